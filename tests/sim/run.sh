#!/usr/bin/env bash
# The simulator at full length: tens of thousands of seeds, what they reached, and that a seed is the same everywhere.
set -u
cd "$(dirname "$0")/../.." || exit 2

usage() {
    cat <<'END'
usage: bash tests/sim/run.sh [--quick] [--seeds N] [--first S] [--seed S]

  --quick    a short form: fewer seeds, fewer builds to compare
  --seeds N  how many seeds; default 20,000, and a quarter of that with ISA-L
  --first S  the first one; default 1. Seeds that nobody has tried: any large number
  --seed S   replay this one, with a log of every event: time in ns, thread, what, two numbers
  --help     this text

Runs random programs on offload.h over a simulated kernel, without a codec and with ISA-L, in as many processes as there
are cores. Prints how often each kind of operation, await, call and fault occurred, and in what share of the seeds: one
that occurs in less than 5% of them fails the run, as the generator then tests it too little. Then some hundred seeds in
other builds (gcc and clang, -O0 and -O2, AddressSanitizer, alone and after others): every event must be the same.
CC, CPPFLAGS and LDFLAGS are honoured.
END
}

out=build/sim
cc=${CC:-cc}
seeds=20000 first=1 seed='' quick='' percent=5 compared=300
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --quick) quick=1 seeds=2000 percent=2.5 compared=100 ;;
    --seeds | --first | --seed)
        [[ ${2:-} =~ ^[0-9]+$ ]] || { echo "sim: $1 needs a number; see --help" >&2; exit 2; }
        declare "${1#--}=$2"
        shift
        ;;
    *) echo "sim: unknown option $1; see --help" >&2; exit 2 ;;
    esac
    shift
done

passed=0 failed=0
say() { echo "$@" >&2; }
verdict() { # name, what is wrong or nothing
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        echo "ok $1"
    else
        failed=$((failed + 1))
        echo "not ok $1: $2"
    fi
}

# shellcheck disable=SC2086 # flags are words
build() { # name, compiler, flags...
    local name=$1 compiler=$2
    shift 2
    rm -f "$out/$name"
    $compiler -std=c11 -g ${CPPFLAGS:-} -I. tests/sim/sim.c -o "$out/$name" ${LDFLAGS:-} "$@" -pthread \
        >"$out/$name.log" 2>&1
}
must_build() { # name, compiler, flags...
    build "$@" && return
    say "sim: $2 can't build tests/sim/sim.c:"
    head -n 20 "$out/$1.log" >&2
    echo "0 passed, 1 failed"
    exit 1
}

# Runs a program; its seeds and rows count as tests.
run() { # name, seeds
    local log=$out/$1.out line
    "$out/$1" --seeds "$2" --first "$first" --jobs "$(nproc)" --require "$percent" | tee "$log"
    line=$(tail -n 1 "$log")
    if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
    else
        failed=$((failed + 1))
        echo "not ok $1: it ended without a closing line"
    fi
}

# The hashes of some seeds must be those of the first build.
compare() { # name, compiler, flags...
    local name=$1
    if ! command -v "${2%% *}" >/dev/null; then
        verdict "$name" "no $2 here; Debian has it in the package ${2%% *}"
        return
    fi
    if ! build "$@"; then
        verdict "$name" "it doesn't compile: $out/$name.log"
        return
    fi
    "$out/$name" --hashes --seeds "$compared" 2>"$out/$name.err" | grep '^seed' >"$out/$name.hashes"
    same "$name"
}
same() { # name
    local different
    different=$(diff "$out/hashes" "$out/$1.hashes" | grep -m 1 '^[<>]')
    verdict "every event of $compared seeds is the same: $1" "$different"
}

mkdir -p $out || exit 2
must_build sim "$cc" -O2
if [ -n "$seed" ]; then
    exec $out/sim --seed "$seed"
fi

say "sim: $seeds seeds"
run sim "$seeds"
if build isal "$cc" -O2 -DOFFLOAD_ISAL -lisal; then
    say "sim: $((seeds / 4)) seeds with ISA-L"
    run isal $((seeds / 4))
else
    verdict "a build with ISA-L" "it fails ($out/isal.log); Debian has it in the package libisal-dev"
fi

say "sim: $compared seeds in other builds"
$out/sim --hashes --seeds $compared 2>/dev/null | grep '^seed' >$out/hashes
sed -n "$((compared / 2 + 1)),\$p" $out/hashes >$out/half
different="a seed depends on those before it"
$out/sim --hashes --first $((compared / 2 + 1)) --seeds $((compared - compared / 2)) 2>/dev/null | grep '^seed' |
    diff - $out/half >/dev/null && different=''
verdict "seeds from the middle on run as they do after others" "$different"
if [ -n "$quick" ]; then
    compare clang-O0 clang -O0
else
    compare gcc-O0 gcc -O0
    compare gcc-O2 gcc -O2
    compare clang-O0 clang -O0
    compare clang-O2 clang -O2
    compare sanitized gcc -O1 -fsanitize=address,undefined
fi

# Every function of the header has a row, but for the emulated device's, which has tests of its own (tests/criterion): here
# devices are simulated.
missing=$(sed '/defined(OFFLOAD_IMPLEMENTATION)/q' offload.h | grep -o '^OL_API.*[ *]ol_[a-z0-9][a-z0-9_]*(' |
    grep -o 'ol_[a-z0-9_]*($' | tr -d '(' | sort -u | while read -r name; do
    [[ $name == ol_emulated_* ]] || grep -q "^#define $name(" tests/sim/tally.h || echo "$name"
done)
verdict "every function of offload.h is counted" "${missing:+not in tests/sim/tally.h: ${missing//$'\n'/ }}"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
