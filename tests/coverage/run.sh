#!/usr/bin/env bash
# Coverage of offload.h by all tests that check something, together: lines, branches and MC/DC.
# Each program is built by clang with its instruments, run, and its counts exported; report.py makes the union.
set -u
cd "$(dirname "$0")/../.." || exit 2
shopt -s nullglob

usage() {
    cat <<'EOF'
usage: bash tests/coverage/run.sh [--quick] [--anyway] [--seeds N] [--list] [NAME...]

  NAME        only programs whose name contains one of these words; the goals are not judged then
  --seeds N   seeds of the simulation; default 10000
  --quick     for make test: the unit tests, the contracts and 200 seeds of the simulation, against goals of their own
  --anyway    count what a program reaches whose tests fail, too; the exit status stays that of a failure
  --list      the programs' names

Prints a table by section of offload.h and everything that no test reaches. Leaves, in build/coverage (build/coverage/quick):
report.txt, uncovered.tsv and results.tsv. The goals stand at the top of tests/coverage/report.py.
CLANG, LLVM_COV and LLVM_PROFDATA name other tools than clang-19, llvm-cov-19 and llvm-profdata-19.
EOF
}

out=$PWD/build/coverage
clang=${CLANG:-clang-19}
cov=${LLVM_COV:-llvm-cov-19}
profdata=${LLVM_PROFDATA:-llvm-profdata-19}
instruments="-O1 -g -fprofile-instr-generate -fcoverage-mapping -fcoverage-mcdc"
limit=600
seeds=10000
quick=
anyway=
mode=run
words=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --quick) # -O0 halves the time to compile; the figures of the whole run are kept
        seeds=200 quick=--quick instruments=${instruments/-O1/-O0} out=$PWD/build/coverage/quick
        ;;
    --anyway) anyway=1 ;;
    --list) mode=list ;;
    --seeds)
        seeds=${2:-}
        [[ $seeds =~ ^[0-9]+$ ]] || { echo "coverage: --seeds needs a number; see --help" >&2; exit 2; }
        shift
        ;;
    -*) echo "coverage: unknown option $1; see --help" >&2; exit 2 ;;
    *) words+=("$1") ;;
    esac
    shift
done

# A line for each program: name, source, how it runs, and flags beyond those of its own compile line.
# Programs with threads count atomically; the simulation has one thread.
programs() {
    local f b threads=-fprofile-update=atomic
    for f in tests/criterion/*.c; do
        b=$(basename "$f" .c)
        [ -z "$quick" ] || [ "$b" != codec ] || continue # it takes as long as all others; pieces.c has the same code
        echo "criterion-$b $f direct $threads -Wl,--as-needed -lcriterion"
    done
    for f in tests/plain/*.c; do
        b=$(basename "$f" .c)
        echo "plain-$b $f direct $threads"
    done
    for f in tests/sim/*.c; do
        b=$(basename "$f" .c)
        echo "$b $f $b"
        [ -n "$quick" ] || echo "$b-isal $f $b -DOFFLOAD_ISAL -lisal"
    done
    [ -z "$quick" ] || return 0
    f=tests/torture/torture.c
    [ ! -e $f ] || echo "torture $f torture $threads"
    for f in tests/fuzz/*.c; do # what fuzzing has found
        b=$(basename "$f" .c)
        echo "fuzz-$b $f corpus/$b $threads"
    done
    echo "e2e examples/gzip_server.c e2e $threads"
}

selected() {
    local line w
    programs | while read -r line; do
        [ ${#words[@]} = 0 ] && echo "$line"
        for w in "${words[@]}"; do
            case ${line%% *} in *"$w"*) echo "$line"; break ;; esac
        done
    done
}

need() { # tool, package
    command -v "$1" >/dev/null || { echo "coverage: $1 is missing; Debian: apt-get install $2" >&2; exit 2; }
}

# A program's sources, libraries and defines stand in the compile line at its top.
line_of() { sed -n '/^[ */]*cc .*\.c/{ s/^[ */]*//; p; q; }' "$1" | tr ' ' '\n'; }
words_of() { line_of "$1" | grep -E '^-([lDI]|pthread)' | tr '\n' ' '; }
sources_of() { line_of "$1" | grep '\.c$' | tr '\n' ' '; }

run_it() { # binary, how
    case $2 in
    sim) "$1" --seeds "$seeds" ;;
    e2e) python3 tests/e2e/run.py "$1" ;;
    torture) "$1" ;;
    corpus/*) "$1" "tests/fuzz/$2" ;;
    *) "$1" ;;
    esac
}

# Builds, runs and exports one program. What it prints goes to NAME.log; a failed test makes its counts worthless.
measure() { # name, source, how, flags...
    local name=$1 source=$2 how=$3 b=$out/$1
    shift 3
    rm -rf "$b.json" "$b.profile" "$b.profdata" "$b"
    # shellcheck disable=SC2046,SC2086
    "$clang" -std=c11 $instruments -I. $(sources_of "$source") "$out/flush.o" -o "$b" -Wl,--wrap=abort,--wrap=_exit "$@" \
        $(words_of "$source") >"$b.build.log" 2>&1 ||
        { echo "$name: it doesn't compile: see $b.build.log" >&2; return 1; }
    LLVM_PROFILE_FILE="$b.profile/%4m.profraw" timeout -k 5 $limit \
        bash -c "$(declare -f run_it); seeds=$seeds; run_it $b $how" >"$b.log" 2>&1 </dev/null || {
        echo "$name: its tests fail: see $b.log" >&2
        echo "$name" >>"$out/failed"
        [ -n "$anyway" ] || return
    }
    "$profdata" merge -sparse "$b.profile" -o "$b.profdata" >>"$b.log" 2>&1 &&
        "$cov" export "$b" -instr-profile="$b.profdata" --sources offload.h >"$b.json" 2>>"$b.log" ||
        { echo "$name: its counts can't be read: see $b.log" >&2; rm -f "$b.json"; return 1; }
    echo "  $name" >&2
}

if [ $mode = list ]; then
    selected | cut -d ' ' -f 1
    exit 0
fi
need "$clang" "clang-19 libclang-rt-19-dev"
need "$cov" llvm-19
need "$profdata" llvm-19
mkdir -p "$out"
rm -f "$out/failed" "$out"/*.json "$out"/*.log "$out/results.tsv" "$out/report.txt"
"$clang" -O1 -c tests/coverage/flush.c -o "$out/flush.o" || exit 2
total=0
while read -r name source how flags; do
    total=$((total + 1))
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do
        wait -n
    done
    # shellcheck disable=SC2086
    measure "$name" "$source" "$how" $flags &
done < <(selected)
wait
exports=("$out"/*.json)
passed=${#exports[@]}
[ -z "$anyway" ] || [ ! -e "$out/failed" ] || passed=$((passed - $(wc -l <"$out/failed")))
failed=$((total - passed))
if [ ${#exports[@]} -gt 0 ]; then
    # decisions that clang can't take apart: their MC/DC is unknown, which is no better than uncovered
    sed -n 's/^.*offload\.h:\([0-9]*\):\([0-9]*\): warning: unsupported MC\/DC.*/\1\t\2/p' "$out"/*.build.log |
        sort -nu >"$out/unmeasured.tsv"
    # shellcheck disable=SC2086
    if python3 tests/coverage/report.py $quick --out "$out" --unmeasured "$out/unmeasured.tsv" "${exports[@]}"; then
        passed=$((passed + 1))
    elif [ ${#words[@]} = 0 ]; then
        failed=$((failed + 1))
        echo "coverage: a goal is missed: the list is above, and in ${out#"$PWD"/}/report.txt" >&2
    fi
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
