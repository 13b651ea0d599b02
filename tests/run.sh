#!/usr/bin/env bash
# Runs the suites that `make test` has built, as many at a time as there are cores (four at most; CORES=1: one after
# another), and ends with a table and a line of totals.
# A suite fails when a test of it fails, when it ran no test at all, when it wasn't built, when it exceeds its time, or
# when a sanitizer or valgrind has written anything.
set -u
cd "$(dirname "$0")/.." || exit 2
shopt -s nullglob

usage() {
    cat <<'EOF'
usage: bash tests/run.sh [--list | --targets | --check] [NAME]

  NAME        a suite (criterion/io), a part of its name after a slash (io), or a kind (criterion); all if absent
  --list      the suites' names
  --targets   what make has to build for them
  --check     only say whether NAME exists
EOF
}

logs=build/test-logs
limit=480 # seconds for one suite, so that a hang ends as a failure
cores=${CORES:-$(nproc)}
[ "$cores" -le 4 ] || cores=4 # some suites use all cores themselves

# All suites, one a line: name, kind, program. Tests are found by their place: a new file is a new suite.
suites() {
    local f b
    echo "build programs -"
    for f in tests/criterion/*.c; do
        b=$(basename "$f" .c)
        echo "criterion/$b criterion build/tests/$b"
    done
    for f in tests/plain/*.c; do
        b=$(basename "$f" .c)
        echo "plain/$b/asan plain build/tests/$b.asan"
        echo "plain/$b/tsan plain build/tests/$b.tsan"
        if head -n 5 "$f" | grep -q '^/\* valgrind'; then
            echo "plain/$b/valgrind valgrind build/tests/$b.valgrind"
        fi
    done
    for f in tests/sim/*.c; do # without a codec, and with ISA-L
        b=$(basename "$f" .c)
        echo "sim/$b plain build/tests/$b"
        echo "sim/$b/isal plain build/tests/$b.isal"
    done
    for f in tests/*/run.sh tests/sim/bugs/run.sh; do # areas with more than there is time for here: their quick form
        b=$(basename "$(dirname "$f")")
        [ "$b" != bugs ] || b=sim-bugs
        case $b in
        compile) echo "$b script $f" ;;
        mutation | soak) ;;
        *) echo "$b quick $f" ;;
        esac
    done
    echo "e2e/release e2e build/examples/gzip_server"
    echo "e2e/asan e2e build/asan/gzip_server"
    if [ -e tests/e2e/examples.py ]; then
        echo "e2e/examples examples build/examples"
        echo "e2e/examples/asan examples build/asan"
    fi
}

selected() { # those that $want names
    local name kind program
    suites | while read -r name kind program; do
        case /$name/ in */"$want"/* | /"$want"*/) echo "$name $kind $program" ;; esac
    done
}

programs() { # what the examples, benchmarks and tools are built to
    local f
    for f in examples/*.c bench/*.c tools/*.c; do
        echo "build/${f%.c}"
    done
}

targets() {
    local name kind program b
    selected | while read -r name kind program; do
        case $kind in
        programs) programs ;;
        criterion | plain | valgrind | e2e) echo "$program" ;;
        examples)
            for b in examples/*.c; do
                echo "$program/$(basename "$b" .c)"
            done
            ;;
        esac
    done | tr '\n' ' '
}

# The closing line of a suite, as "passed failed"; nothing if there is none. Criterion skips are not in "Tested", and
# a crash is counted twice, so failures are what is not passing.
count() { # kind, log
    if [ "$1" = criterion ]; then
        sed -n 's/.*Synthesis: Tested: \([0-9]*\) | Passing: \([0-9]*\) |.*/\1 \2/p' "$2" | tail -n 1 |
            awk '{ print $2, $1 - $2 }'
    else
        tail -n 1 "$2" | sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p'
    fi
}

run_one() { # kind, program, name of its logs; the output goes to the log
    local stem=$PWD/$logs/$3 quiet
    quiet="log_path=$stem.san"
    export ASAN_OPTIONS="$quiet:detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1"
    export UBSAN_OPTIONS="$quiet:print_stacktrace=1" LSAN_OPTIONS="$quiet" TSAN_OPTIONS="$quiet:second_deadlock_stack=1"
    local fixed=() # the sanitizers' shadow memory doesn't fit every layout that a kernel may choose at random
    setarch -R true 2>/dev/null && fixed=(setarch -R)
    case $1 in
    programs) built ;;
    criterion) timeout -k 5 $limit "${fixed[@]}" "$2" ;;
    plain) timeout -k 5 $limit "${fixed[@]}" "$2" ;;
    valgrind)
        OL_TEST_SLOW=1 timeout -k 5 $limit valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,possible \
            --errors-for-leak-kinds=definite,possible --child-silent-after-fork=no --log-file="$stem.vg.%p" "$2"
        ;;
    script) timeout -k 5 $limit bash "$2" ;;
    quick) timeout -k 5 $limit bash "$2" --quick ;;
    e2e) timeout -k 5 $limit python3 tests/e2e/run.py "$2" ;;
    examples) timeout -k 5 $limit python3 tests/e2e/examples.py "$2" ;;
    esac
}

# The suite "build": each example, benchmark and tool is there. A failed build leaves none behind.
built() {
    local p passed=0 failed=0
    for p in $(programs); do
        if [ -x "$p" ]; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            echo "not ok $p: see $logs/build.log"
        fi
    done
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}

# Runs a suite and judges it: sets passed, failed, seconds, why (empty if all is well) and report (of a sanitizer).
judge() { # name, kind, program
    local stem=${1//\//.} start=$SECONDS rc f counted
    local log=$logs/$stem.log
    rm -f "$logs/$stem.log" "$logs/$stem".san.* "$logs/$stem".vg.*
    passed=0 failed=1 why= report=
    if [ "$2" != programs ] && [ "$2" != script ] && [ "$2" != quick ] && [ ! -x "$3" ]; then
        seconds=0 why="it was not built"
        cp "$logs/build.log" "$log" 2>/dev/null
        return
    fi
    run_one "$2" "$3" "$stem" >"$log" 2>&1
    rc=$?
    seconds=$((SECONDS - start))
    counted=$(count "$2" "$log")
    if [ -n "$counted" ]; then
        passed=${counted% *} failed=${counted#* }
    fi
    if [ $rc = 124 ] || [ $rc = 137 ]; then
        why="it did not end within $limit s"
    elif [ -z "$counted" ]; then
        why="it ended without a closing line, exit status $rc"
        grep -q 'inheritable arena' "$log" && why="Criterion needs a /dev/shm that $(id -un) can write to"
    elif [ "$failed" != 0 ]; then
        why="$failed failed"
    elif [ "$passed" = 0 ]; then
        why="it ran no test"
    elif [ $rc != 0 ]; then
        why="exit status $rc"
    fi
    # valgrind's errors start with ==; its remarks, as on a system call that it doesn't know, with --
    for f in "$logs/$stem".vg.*; do
        sed -i -n '/^==/p' "$f"
    done
    for f in "$logs/$stem".san.* "$logs/$stem".vg.*; do
        if [ -s "$f" ]; then
            report=$f why="${why:+$why, and }a report: $f"
            break
        fi
        rm -f "$f"
    done
    if [ -n "$why" ] && [ "$failed" = 0 ]; then
        failed=1
    fi
}

show_failure() { # log, report or nothing
    [ -e "$1" ] || return
    grep -E '^not ok|FAIL|^FAILED|\[----\].*(Assertion|Unexpected)|Error|ERROR' "$1" | head -n 15 | sed 's/^/      | /'
    tail -n 5 "$1" | sed 's/^/      > /'
    [ -z "$2" ] || grep -v '^=*$' "$2" | head -n 15 | sed 's/^/      ! /'
}

# Runs a suite and writes what came of it: passed, failed, seconds, report and why, a line each.
run_suite() { # name, kind, program
    local passed failed seconds why report stem=${1//\//.}
    judge "$@" </dev/null
    printf '%s\n' "$passed" "$failed" "$seconds" "$report" "$why" >"$logs/$stem.new" &&
        mv "$logs/$stem.new" "$logs/$stem.verdict"
}

stop() {
    local p
    for p in $(jobs -p); do
        pkill -TERM -P "$p" # timeout, which passes it on
    done
    echo "run.sh: stopped" >&2
    exit 130
}

# Starts suites in order, as many at a time as there are cores, and reports them in order.
run_all() {
    local name kind program table='' all_passed=0 all_failed=0 names=() i=0
    mkdir -p $logs
    rm -f $logs/*.verdict $logs/results.tsv
    trap stop INT TERM
    while read -r name kind program; do
        names+=("$name")
        while [ "$(jobs -rp | wc -l)" -ge "$cores" ]; do
            wait -n
            show_verdicts
        done
        run_suite "$name" "$kind" "$program" &
    done < <(selected)
    while [ "$(jobs -rp | wc -l)" -gt 0 ]; do
        wait -n
        show_verdicts
    done
    show_verdicts last
    printf '\n%-28s %8s %8s %8s\n%s' suite passed failed seconds "$table"
    printf 'passed\t%d\ttests\nfailed\t%d\ttests\nsuites\t%d\t\n' $all_passed $all_failed ${#names[@]} \
        >$logs/results.tsv
    echo "$all_passed passed, $all_failed failed"
    [ $all_failed = 0 ] && [ $all_passed -gt 0 ]
}

# Reports those suites, in order, that have ended since the last time. It has run_all's variables.
show_verdicts() { # "last": none is running any more
    local stem name passed failed seconds report why line
    while [ "$i" -lt ${#names[@]} ]; do
        name=${names[i]} stem=${names[i]//\//.}
        if [ ! -e "$logs/$stem.verdict" ]; then
            [ -n "${1:-}" ] || return
            printf '0\n1\n0\n\nit was stopped\n' >"$logs/$stem.verdict"
        fi
        { read -r passed; read -r failed; read -r seconds; read -r report; read -r why; } <"$logs/$stem.verdict"
        all_passed=$((all_passed + passed)) all_failed=$((all_failed + failed)) i=$((i + 1))
        printf -v line '%-28s %8d %8d %8d' "$name" "$passed" "$failed" "$seconds"
        table+=$line$'\n'
        if [ -z "$why" ]; then
            printf '%-28s ok, %d tests, %d s\n' "$name" "$passed" "$seconds"
        else
            printf '%-28s FAILED: %s (log: %s)\n' "$name" "$why" "$logs/$stem.log"
            show_failure "$logs/$stem.log" "$report"
        fi
    done
}

mode=run want=
for word in "$@"; do
    case $word in
    --list | --targets | --check) mode=${word#--} ;;
    --help | -h) usage; exit 0 ;;
    -*) echo "run.sh: unknown option $word; see --help" >&2; exit 2 ;;
    *) want=$word ;;
    esac
done
if [ -n "$want" ] && [ -z "$(selected)" ]; then
    echo "run.sh: no suite is called '$want'. There are:" >&2
    suites | sed 's/ .*//; s/^/  /' >&2
    exit 2
fi
case $mode in
list) selected | cut -d ' ' -f 1 ;;
targets) targets ;;
check) ;;
run) run_all ;;
esac
