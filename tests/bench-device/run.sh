#!/usr/bin/env bash
# bench/device and tools/device_report.py: that the figures are all there and can't be impossible, that results were
# true, and what wrong arguments lead to. No measured time decides over passed or failed.
set -u
cd "$(dirname "$0")/../.." || exit 2

usage() {
    cat <<'END'
usage: bash tests/bench-device/run.sh [--quick]
Builds bench/device, measures in its short form (some 25 seconds), makes a report, and checks both.
  --quick   the same, without the parts that repeat one workload under other devices
CC, CPPFLAGS, CFLAGS and LDFLAGS are honoured. Debian: apt-get install gcc libisal-dev python3
END
}

only=
case ${1-} in
--quick) only=policies,thesis,dequeue,loops,mixed,decision ;;
--help | -h) usage && exit 0 ;;
'') ;;
*) usage >&2 && exit 2 ;;
esac

out=build/bench-device
rm -rf "$out"
mkdir -p "$out" || exit 2
passed=0
failed=0

ok() { passed=$((passed + 1)); }
not_ok() { # what, file to show
    failed=$((failed + 1))
    echo "not ok $1"
    [ -z "${2-}" ] || sed 's/^/    /' "$2" | head -n 20
}
done_now() {
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
    exit
}
run=$out/device

# shellcheck disable=SC2086 # flags are words
if ! ${CC:-cc} -std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Werror ${CPPFLAGS-} \
    ${CFLAGS:--O2 -g} -I. bench/device.c -o "$run" -DOFFLOAD_ISAL -pthread ${LDFLAGS-} -lisal -lm -ldl >"$out/log" 2>&1; then
    not_ok "bench/device.c does not compile; Debian: apt-get install gcc libisal-dev" "$out/log"
    done_now
fi

status() { # what, expected status, pattern that its output has, command...
    local what=$1 expected=$2 pattern=$3 got
    shift 3
    "$@" >"$out/log" 2>&1
    got=$?
    if [ $got = "$expected" ] && grep -Eq -- "$pattern" "$out/log"; then ok && return; fi
    not_ok "$what: status $got, expected $expected and /$pattern/" "$out/log"
}

# ---- wrong arguments -------------------------------------------------------------------------------------------------

status "help" 0 '^usage: device' "$run" --help
status "an unknown option" 2 'usage: device' "$run" --fast
status "a word" 2 "'fast' is no option" "$run" fast
status "too few operations" 2 "--ops takes a number from 500 to 10000000, not '3'" "$run" --ops 3
status "no such part" 2 "no part 'poling'" "$run" --only dequeue,poling
status "no such device" 2 '--device nowhere: .*bluefield2-host' "$run" --device nowhere
status "a device that fails" 2 'leave out faults' "$run" --device 'bluefield2-host faults=0.1'
status "no such folder of tables" 2 "$out/none/cache1-like.tsv: .*--sizes" "$run" --sizes "$out/none" --output "$out/x"
status "a folder that can't be made" 2 '--output' "$run" --output "$run/there"
mkdir -p "$out/sizes"
cp bench/sizes/*.tsv "$out/sizes/"
printf '64\t0.5\n32\t1\n' >"$out/sizes/8k.tsv"
status "a table whose sizes descend" 2 '8k.tsv, line 2: not a row' "$run" --sizes "$out/sizes" --output "$out/x"
printf '64\t0.5\n128\t0.9\n' >"$out/sizes/8k.tsv"
status "a table that has no end" 2 '8k.tsv: the last row' "$run" --sizes "$out/sizes" --output "$out/x"

# ---- a measurement ---------------------------------------------------------------------------------------------------

echo "bench-device: measuring, up to half a minute" >&2
status "a short run" 0 ' 0 wrong' "$run" --quick --output "$out" ${only:+--only "$only"}
f=$out/device.tsv
if [ ! -s "$f" ]; then
    not_ok "it left no figures"
    done_now
fi

value() { awk -F'\t' -v n="device.$1" '$1 == n { print $2 }' "$f"; }
holds() { # what, awk condition over a and b, name of a, name of b or a number
    local a b
    a=$(value "$3")
    b=$4
    case $4 in *[a-z]*) b=$(value "$4") ;; esac
    if [ -n "$a" ] && [ -n "$b" ] && awk -v a="$a" -v b="$b" "BEGIN { exit !($2) }"; then ok && return; fi
    not_ok "$1: $3 is '$a', $4 is '$b'"
}

if awk -F'\t' '/^#/ { next } NF != 3 || $1 !~ /^device\./ || $2 !~ /^-?[0-9.e+-]+$/ || $3 == "" || seen[$1]++ { bad = 1 }
    END { exit bad }' "$f"; then ok; else not_ok "a line is no name, number and unit, or comes twice" "$f"; fi
for w in cache1-like feed1-like hyper-snappy hyper-zstd 8k small-heavy; do
    for p in software sync custom-lc async custom-batch auto auto-lc sliced threads; do
        for what in per_s x_software x_bound ns_over_bound p50_us p99_us; do
            [ -n "$(value "$w.$p.$what")" ] && ok && continue
            not_ok "there is no device.$w.$p.$what"
        done
    done
    holds "$w: software is its own measure" 'a == b' "$w.software.x_software" 1
    holds "$w: nothing is on the device in software" 'a == b' "$w.software.offloaded" 0
    holds "$w: sliced is software" 'a == b' "$w.sliced.offloaded" 0
    # what only the device does can't be faster than it; the window's ends take a hundred operations of a few hundred
    for p in async custom-batch sync threads; do
        holds "$w: $p is all on the device" 'a == b' "$w.$p.offloaded" 1
        [ $p = threads ] || holds "$w: $p within the bound" 'a <= b' "$w.$p.x_bound" 1.05
    done
    holds "$w: a synchronous operation takes its set-up, latency and the engine's least time" 'a * 1000 >= 5374 && b' \
        "$w.sync.p50_us" 1
done
holds "8 KB take what the preset says" 'a * 1000 >= b' 8k.sync.p50_us 11000
# 16 us of software, or more, stand for the 6.8 of the engine
holds "the clock stands still while results are made" 'a >= b' 8k.async.x_bound 0.8
holds "small objects stay in software" 'a > 0 && a < b' small-heavy.custom-lc.offloaded 0.5
holds "results were checked" 'a > b' checked 500
holds "... and true" 'a == b' wrong 0
holds "a slower codec slows software down" 'a <= b * 1.15' thesis.cache1-like.software.per_s thesis.cache1-like.published_per_s
for n in 1 2 4 8; do holds "$n loops together within the device's bound" 'a <= b' "loops.device.$n.x_bound" 1.05; done
holds "no loop is faster than its set-up" 'a <= b' loops.qat-like.1.x_bound 1.05
# by Little's law: four hundred in flight instead of one hundred
holds "loops take turns" 'a >= 2 * b' loops.device.4.p50_us loops.device.1.p50_us
holds "loops share one device" 'a <= b' loops.device.8.x_first 1.1
holds "the mixed program, half busy" 'a > b' mixed.latency_p99_x_alone 0
holds "the mixed program, saturated" 'a > b' mixed.batch_x_alone 0
holds "batch saturates the device" 'a > b' mixed.async.saturated.device_share 0.9
holds "batch leaves it alone where there is none" 'a < b' mixed.async.0.device_share 0.2
holds "a decision's cost" 'a > b' decision.software_ns 0
[ -n "$(value decision_ns)" ] && ok || not_ok "there is no device.decision_ns"
for p in software async threads; do
    if awk -F'\t' 'NF != 2 || $1 < x || $2 < y { exit 1 } { x = $1; y = $2 } END { exit !(NR == 201 && y == 1) }' \
        "$out/device-report/cdf-8k-$p.tsv"; then ok; else not_ok "the distribution of 8k, $p" "$out/device-report/cdf-8k-$p.tsv"; fi
done

# ---- the report ------------------------------------------------------------------------------------------------------

if command -v python3 >/dev/null; then
    report="python3 tools/device_report.py"
    # shellcheck disable=SC2086
    {
        status "the report's help" 0 '^usage: device_report' $report --help
        status "an unknown argument" 1 "unknown argument 'x'" $report x
        status "no figures" 1 'make bench-device' $report --input "$out/none"
        status "not figures" 1 'line [0-9]+: not name' $report --input tests/bench-device/run.sh
        status "the report" 0 '^Report: ' $report --input "$f" --output "$out/device-report"
    }
    for text in 'emulated device' 'max\(engine' 'Little' 'mixed, auto, saturated' 'not reached|ok' 'ISA-L level 1'; do
        grep -Eq "$text" "$out/device-report/report.md" && ok && continue
        not_ok "the report doesn't say '$text'"
    done
    while read -r picture; do
        if [ -s "$out/device-report/$picture" ]; then ok; else not_ok "the report shows $picture, which is not there"; fi
    done < <(sed -n 's/^!\[.*](\(.*\))$/\1/p' "$out/device-report/report.md")
    python=$(python3 -c 'import sys; print(sys.executable)')
    status "no gnuplot" 0 'gnuplot is missing \(Debian: apt-get install gnuplot-nox\)' \
        env PATH=/nowhere "$python" tools/device_report.py --input "$f" --output "$out/device-report"
    # a target that is missed is said to be missed
    sed 's/^\(device.8k.sync.p50_us\t\)[^\t]*/\1999/; s/^\(device.decision_ns\t\)[^\t]*/\199/' "$f" >"$out/worse.tsv"
    mkdir -p "$out/worse"
    status "a median that is missed" 0 '^not reached +8 KB: the median of sync' $report --input "$out/worse.tsv" --output "$out/worse"
    status "a decision that is too slow" 0 "^not reached +auto's decision" $report --input "$out/worse.tsv" --output "$out/worse"
else
    echo "bench-device: no report without python3 (Debian: apt-get install python3)" >&2
fi
done_now
