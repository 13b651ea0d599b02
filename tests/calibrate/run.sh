#!/usr/bin/env bash
# tools/calibrate: what it concludes from given figures, exactly; and that a real run's files can be loaded again.
set -u
cd "$(dirname "$0")/../.." || exit 2

usage() {
    cat <<'END'
usage: bash tests/calibrate/run.sh [--quick]
Builds tools/calibrate with and without ISA-L, gives it figures whose break-even sizes are known, and measures once.
  --quick   measures coarsely (some 10 seconds); without it the real run is one as users make it (under a minute)
CC, CPPFLAGS, CFLAGS and LDFLAGS are honoured. No time that is measured decides over passed or failed.
END
}

speed=
case ${1-} in
--quick) speed="--quick --seconds 4" ;;
--help | -h) usage && exit 0 ;;
'') ;;
*) usage >&2 && exit 2 ;;
esac

out=build/calibrate-tests
rm -rf "$out"
mkdir -p "$out" || exit 2
passed=0
failed=0

ok() { passed=$((passed + 1)); }
not_ok() { # what, file to show
    failed=$((failed + 1))
    echo "not ok $1"
    [ -z "${2-}" ] || sed 's/^/    /' "$2"
}

build() { # program, words...
    local program=$1
    shift
    # shellcheck disable=SC2086 # flags are words
    ${CC:-cc} -std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Werror ${CPPFLAGS-} \
        ${CFLAGS:--O2 -g} -I. tools/calibrate.c -o "$program" ${LDFLAGS-} "$@" >"$program.log" 2>&1 && return
    echo "not ok $program does not compile"
    head -n 15 "$program.log"
    echo "    Debian: apt-get install gcc libisal-dev"
    echo "0 passed, 1 failed"
    exit 1
}
build "$out/calibrate" -DOFFLOAD_ISAL -pthread -lisal -lm
build "$out/plain" -pthread -lm
run=$out/calibrate

# ---- figures whose break-even sizes are known ------------------------------------------------------------------------

# Software takes 1 ns a byte. The loop's own time is 4,096 ns with a worker that sleeps, and 256 ns with one that is
# awake: batch work pays from 4 KB, and from 256 B. A result from a sleeping worker comes 15,360 ns later: with a quarter
# of the loop's time that makes 16,384 ns, which a quarter of software's time is from 64 KB on.
# The device's own time is 512 ns, its result takes 3,072 ns and 1/20 ns a byte where the loop spins, and 60 us more where
# it polls: synchronously it is a fifth faster than software from 4 KB on.
# Another device needs 4 us more to be noticed, and is synchronous up to the size where that is a tenth cheaper.
figures() { # states of threads; 1 or 2: a device, too; 1: one round of five is spoilt; 1: a hump
    awk -v states="$1" -v device="${2-}" -v spoilt="${3-}" -v hump="${4-}" 'BEGIN {
        OFS = "\t"
        print "# machine: a machine of numbers, 2 CPUs\n# commands: none\n# conditions: 5 rounds"
        split("random repeated html numbers json", inputs, " ")
        n = split(states, state, " ")
        for (r = 1; r <= 5; r++) for (i = 1; i <= 5; i++) {
            for (k = 1; k <= n; k++)
                print "empty", inputs[i], 64, 0, "threads", state[k], r, 10, 100, state[k] == "spinning" ? 500 : 15370, 200
            for (x = 64; x <= 1048576; x *= 2) {
                f = spoilt && r == 3 ? 100 : 1
                soft = hump && x == 16384 ? 1000 : x
                for (k = 1; k <= n; k++)
                    if (state[k] == "spinning") print "deflate", inputs[i], x, x, "threads", state[k], r, soft, 100, soft + 500, 256
                    else print "deflate", inputs[i], x, x, "threads", state[k], r, soft, 3000, f * (soft + 15360), f * 4096
                if (device) print "deflate", inputs[i], x, x, "device", "spinning", r, soft, 400, 3072 + x / 20, 512
                if (device) print "deflate", inputs[i], x, x, "device", "sleeping", r, soft, 400, (device == 2 ? 7072 : 63072) + x / 20, 512
            }
        }
    }'
}
figures "spinning sleeping" >"$out/threads.tsv"
figures "sleeping" >"$out/one.tsv"
figures "spinning sleeping" 1 >"$out/device.tsv"
figures "spinning sleeping" 2 >"$out/device2.tsv"
figures "spinning sleeping" "" 1 >"$out/spoilt.tsv"
figures "spinning sleeping" "" "" 1 >"$out/hump.tsv"

rules() { # what, expected rules of the codecs with single spaces, options...
    local what=$1 expected=$2 got
    shift 2
    if ! "$run" "$@" --policy "$out/policy.txt" >"$out/log" 2>&1; then
        not_ok "$what: it failed" "$out/log"
        return
    fi
    got=$(grep -E '^(de|in)flate' "$out/policy.txt" | tr -s ' ')
    [ "$got" = "$expected" ] && ok && return
    not_ok "$what" "$out/policy.txt"
    printf '    expected:\n%s\n' "$expected"
}

rules "break-even of a pool whose workers sleep" "deflate latency 64K- async threads software
deflate batch 4K- async threads wait" --from "$out/threads.tsv"
rules "the same with one round of five spoilt" "deflate latency 64K- async threads software
deflate batch 4K- async threads wait" --from "$out/spoilt.tsv"
rules "one CPU: the way to the worker and back is the loop's, too" "deflate latency 80K- async threads software
deflate batch 15K- async threads wait" --from "$out/one.tsv"
rules "workers that are awake" "deflate latency 2K- async threads software
deflate batch 256- async threads wait" --from "$out/threads.tsv" --awake
rules "only the result's time counts: threads never pay" "deflate latency 0- software - -
deflate batch 4K- async threads wait" --from "$out/threads.tsv" --others 0
rules "a device: synchronous where that is faster" "deflate latency 4K- sync device software
deflate batch 512- async device wait" --from "$out/device.tsv"
rules "a device: synchronous up to where waiting costs more" "deflate latency 160K- async device software
deflate latency 4K-163839 sync device software
deflate batch 512- async device wait" --from "$out/device2.tsv"
rules "software is faster again at 16 KB: what doesn't last is no break-even" \
    "deflate latency 64K- async threads software
deflate batch 22K- async threads wait" --from "$out/hump.tsv"

# Compressed, the same data have another size for each kind of input, and a repeated character hardly any; the policy
# goes by that. 1 ns a compressed byte; 1 us where so few bytes stand for so much. As many as 1 MB there are of random
# numbers alone: what one kind says counts for nothing.
awk 'BEGIN {
    OFS = "\t"
    split("random repeated html numbers json", input, " ")
    split("1 0.00390625 0.75 0.5 0.25", share, " ")
    for (i = 1; i <= 5; i++) for (x = 64; x <= 1048576; x *= 2) {
        bytes = int(x * share[i]) + 1
        soft = i == 2 ? 1000 * bytes : i == 1 && x > 600000 ? 100 : bytes
        print "inflate", input[i], x, bytes, "threads", "sleeping", 1, soft, 3000, soft + 15360, 4096
        print "inflate", input[i], x, bytes, "threads", "spinning", 1, soft, 100, soft + 500, 256
    }
}' >"$out/inflate.tsv"
rules "sizes of inflate are compressed ones" "inflate latency 64K- async threads software
inflate batch 4K- async threads wait" --from "$out/inflate.tsv"

# ---- a policy against figures ----------------------------------------------------------------------------------------

status() { # what, expected status, pattern that its output has, options...
    local what=$1 expected=$2 pattern=$3 got
    shift 3
    "$run" "$@" >"$out/log" 2>&1
    got=$?
    if [ $got = "$expected" ] && grep -Eq -- "$pattern" "$out/log"; then ok && return; fi
    not_ok "$what: status $got, expected $expected and /$pattern/" "$out/log"
}
policy() { printf '%s\n' "$@" >"$out/wrong.txt"; }

"$run" --from "$out/device.tsv" --policy "$out/own.txt" >/dev/null 2>&1
status "its own policy is as good as it gets" 0 '^  nowhere$' --from "$out/device.tsv" --compare "$out/own.txt"
policy 'deflate any 0- async threads wait'
status "offloads too early" 1 '^  deflate +batch +64 B to 2 KB +async threads +software +64x at 64 B: 4.10 us against 0.06$' \
    --from "$out/threads.tsv" --compare "$out/wrong.txt"
policy 'deflate batch 64K- async threads wait'
status "offloads too late" 1 '^  deflate +batch +8 KB to 32 KB +software +async threads +8.0x at 32 KB: 32.8 us against 4.10$' \
    --from "$out/threads.tsv" --compare "$out/wrong.txt"
status "within a margin" 0 '^  nowhere$' --from "$out/threads.tsv" --compare "$out/wrong.txt" --margin 800
policy '# none'
status "offloads nothing" 1 'runs calls on the loop' --from "$out/threads.tsv" --compare "$out/wrong.txt"
policy 'deflate any 0- sync device wait'
status "a backend that was not measured" 2 "backend 'device'.*--device" --from "$out/threads.tsv" --compare "$out/wrong.txt"
policy 'deflate any 4K- async threads wait' 'deflate any 1-2 somehow threads wait'
status "not a policy" 2 'line 2: mode must be' --from "$out/threads.tsv" --compare "$out/wrong.txt"
status "a preset by its name" 1 '^pool against what was measured' --from "$out/threads.tsv" --compare pool

# ---- wrong arguments -------------------------------------------------------------------------------------------------

status "help" 0 '^usage: calibrate' --help
status "an unknown option" 2 'calibrate --help' --fast
status "a word" 2 "'fast' is no option" fast
status "no number" 2 "--rounds takes a number from 3 to 99, not 'many'" --rounds many
status "an unknown operation" 2 'deflate,inflate,crc32,call' --ops deflate,encrypt
status "no such policy" 2 '--compare takes a policy file' --from "$out/threads.tsv" --compare "$out/nowhere.txt"
status "no such figures" 2 '--from takes the calibrate.tsv' --from "$out/nowhere.tsv"
status "not figures" 2 'run.sh, line 3: not a row of figures' --from tests/calibrate/run.sh
status "one CPU, and workers that are awake" 2 'leave it out' --from "$out/one.tsv" --awake
status "a directory that can't be made" 2 '--output' --from "$out/one.tsv" --output "$out/log/there"
run=$out/plain
status "a codec that is not built in" 2 'OFFLOAD_ISAL.*libisal-dev' --ops deflate
run=$out/calibrate

# ---- a real run ------------------------------------------------------------------------------------------------------

real() { # what, program, operations, options...
    local what=$1 program=$2 ops=$3 dir=$out/run-$1 op input
    shift 3
    if ! "$program" "$@" --output "$dir" >"$out/log"; then
        not_ok "$what: it failed" "$out/log"
        return
    fi
    ok
    for op in $ops; do
        for input in random repeated html numbers json; do
            grep -q "^$op	$input	1048576	.*	threads	sleeping	1	" "$dir/calibrate.tsv" && ok && continue
            not_ok "$what: no figures of $op with $input"
        done
    done
    "$program" --from "$dir/calibrate.tsv" --output "$dir/again" >"$out/log" 2>&1 || not_ok "$what: it can't read its figures" "$out/log"
    for f in policy.txt calibrate.tsv calibrate.dat calibrate.gp; do
        if cmp "$dir/$f" "$dir/again/$f" >"$out/log" 2>&1; then ok; else not_ok "$what: other from the same figures" "$out/log"; fi
    done
    "$program" --from "$dir/calibrate.tsv" --compare "$dir/policy.txt" >"$out/log" 2>&1
    if [ $? -le 1 ]; then ok; else not_ok "$what: its policy can't be loaded" "$out/log"; fi
}

# shellcheck disable=SC2086 # nothing, or an option
real isal "$out/calibrate" "call crc32 deflate inflate" $speed
real plain "$out/plain" "call crc32" --quick --seconds 3
# shellcheck disable=SC2086
if "$out/calibrate" $speed --ops deflate --device bluefield2-host --output "$out/device" >"$out/log" &&
    grep -q '^deflate	html	1048576	.*	device	spinning	1	' "$out/device/calibrate.tsv"; then
    ok
else
    not_ok "an emulated device" "$out/log"
fi
"$out/calibrate" --from "$out/device/calibrate.tsv" --compare thesis >"$out/log" 2>&1
if [ $? -le 1 ]; then ok; else not_ok "the thesis's policy with a device" "$out/log"; fi
status "devices that fail can't be calibrated" 2 'leave out faults' --device 'bluefield2-host faults=0.1'
status "no such device" 2 '^calibrate: --device nowhere' --device nowhere
if command -v gnuplot >/dev/null; then
    for f in deflate-software deflate-threads inflate-threads crc32-threads call-software; do
        if [ -s "$out/run-isal/$f.png" ]; then ok; else not_ok "no plot $f.png"; fi
    done
fi
PATH=/nowhere "$out/calibrate" --from "$out/threads.tsv" --output "$out/noplot" >"$out/log" 2>&1
if grep -q 'gnuplot is missing (Debian: apt-get install gnuplot-nox)' "$out/log"; then ok; else not_ok "no gnuplot" "$out/log"; fi

echo "$passed passed, $failed failed"
[ $failed = 0 ]
