#!/usr/bin/env bash
# The programs that check offload.h, built by gcc and clang, without and with optimisation, under each sanitizer and
# valgrind. Nothing is suppressed. Criterion's tests are not here: they can't run under ThreadSanitizer or
# MemorySanitizer; `make test` runs them under AddressSanitizer.
set -u
cd "$(dirname "$0")/../.." || exit 2
shopt -s nullglob

usage() {
    cat <<'EOF'
usage: bash tests/sanitizers/run.sh [--quick] [--seeds N] [--list] [NAME...]

  NAME        only runs whose name contains all of these words: clang tsan O2 threads
  --seeds N   seeds of the simulation for each; default 1000, a fiftieth of them under valgrind
  --quick     what `make test` does not run anyway: clang's with one optimisation, and valgrind, on 80 seeds
  --list      the names

A run passes when its program says that all its tests passed and no sanitizer wrote a line. Logs: build/sanitizers.
CC and CLANG name other compilers than gcc and clang, NOISAL=1 leaves out what needs ISA-L.
EOF
}

out=$PWD/build/sanitizers
gcc=${CC:-gcc}
clang=${CLANG:-clang}
limit=1200
seeds=1000
quick=
mode=run
words=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --quick) quick=1 seeds=80 ;;
    --list) mode=list ;;
    --seeds)
        seeds=${2:-}
        [[ $seeds =~ ^[0-9]+$ ]] || { echo "sanitizers: --seeds needs a number; see --help" >&2; exit 2; }
        shift
        ;;
    -*) echo "sanitizers: unknown option $1; see --help" >&2; exit 2 ;;
    *) words+=("$1") ;;
    esac
    shift
done

# What is built: a line for each program, with flags of its own.
programs() {
    local f
    for f in tests/plain/*.c tests/sim/*.c; do
        echo "$(basename "$f" .c) $f"
    done
}
with_isal() { # the simulation with the codec, whose insides MemorySanitizer could not see
    local f
    for f in tests/sim/*.c; do
        echo "$(basename "$f" .c).isal $f -DOFFLOAD_ISAL -lisal"
    done
}

asan="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
tsan="-fsanitize=thread"
msan="-fsanitize=memory -fsanitize-memory-track-origins=2 -fno-optimize-sibling-calls"

# All runs, one a line: name, compiler, kind, source, flags.
runs() {
    local compiler o levels="-O0 -O2" name source flags
    [ -z "$quick" ] || levels=-O2
    for compiler in gcc clang; do
        [ -n "$quick" ] && [ $compiler = gcc ] && continue
        for o in $levels; do
            { programs; [ -n "$quick${NOISAL:-}" ] || with_isal; } | while read -r name source flags; do
                echo "$compiler$o-asan-$name $compiler san $source $o $asan $flags"
                # the simulation has one thread
                [ -z "$quick" ] || [[ $source == tests/plain/* ]] || continue
                echo "$compiler$o-tsan-$name $compiler san $source $o $tsan $flags"
            done
            [ $compiler = gcc ] || programs | while read -r name source flags; do
                # MemorySanitizer can't see what the kernel writes through a bare syscall()
                [[ $source == tests/plain/* ]] && flags+=" -D_GNU_SOURCE -include tests/sanitizers/msan.h"
                echo "$compiler$o-msan-$name $compiler san $source $o $msan $flags"
            done
        done
    done
    programs | while read -r name source flags; do
        echo "gcc-valgrind-$name gcc valgrind $source -O1 $flags"
    done
}

selected() {
    local line w
    runs | while read -r line; do
        for w in "${words[@]}"; do
            case ${line%% *} in *"$w"*) ;; *) continue 2 ;; esac
        done
        echo "$line"
    done
}

words_of() { # a program's libraries and defines stand in the compile line at its top
    sed -n '/^[ */]*cc .*\.c/{ s/^[ */]*//; p; q; }' "$1" | tr ' ' '\n' | grep -E '^-([lDI]|pthread)' | tr '\n' ' '
}

# sanitizers' shadow memory doesn't fit every layout that a kernel may choose at random
fixed=()
setarch -R true 2>/dev/null && fixed=(setarch -R)

one() { # name, compiler, kind, source, flags...
    local name=$1 compiler=$2 kind=$3 source=$4 b=$out/$1 args=() rc last before=()
    shift 4
    [ "$compiler" = gcc ] && compiler=$gcc || compiler=$clang
    rm -f "$b" "$b".*
    # shellcheck disable=SC2046,SC2086
    if ! $compiler -std=c11 -g -fno-omit-frame-pointer -I. "$source" -o "$b" "$@" $(words_of "$source") \
        >"$b.log" 2>&1; then
        verdict "$name" "it doesn't compile"
        return
    fi
    case $source in */sim.c) args=(--seeds "$seeds") ;; esac
    if [ "$kind" = valgrind ]; then
        export OL_TEST_SLOW=1
        [ ${#args[@]} = 0 ] || args=(--seeds $((seeds / 50 + 1)))
        before=(valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,possible
            --errors-for-leak-kinds=definite,possible)
    fi
    ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1 LSAN_OPTIONS='' \
        UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=second_deadlock_stack=1 MSAN_OPTIONS='' \
        timeout -k 5 $limit "${fixed[@]}" "${before[@]}" "$b" "${args[@]}" >"$b.log" 2>&1 </dev/null
    rc=$?
    last=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$b.log" | tail -n 1)
    if grep -qE 'Sanitizer|runtime error:|^==[0-9]+==' "$b.log"; then
        verdict "$name" "a report: $(grep -m 1 -E 'Sanitizer|runtime error:|^==[0-9]+== +[A-Z]' "$b.log")"
    elif [ $rc != 0 ]; then
        verdict "$name" "exit status $rc${last:+, $last}"
    elif [[ ! $last =~ ^[1-9][0-9]*\ passed,\ 0\ failed$ ]]; then
        verdict "$name" "it ended without a closing line"
    else
        verdict "$name" ""
    fi
    rm -f "$b"
}

verdict() { # name, what is wrong
    if [ -z "$2" ]; then
        echo "ok $1"
        echo ok >"$out/$1.verdict"
    else
        echo "not ok $1: $2 (log: build/sanitizers/$1.log)"
        tail -n 5 "$out/$1.log" | sed 's/^/    /'
    fi
}

# A sanitizer that is told to look away proves nothing.
nothing_suppressed() {
    local found
    found=$(grep -nE 'no_sanitize|suppressions=|__(a|l|t|m)san_default_(options|suppressions)|__lsan_(disable|ignore)' \
        offload.h Makefile tests/run.sh tests/*/*.[ch] tests/*/*.sh examples/*.c | grep -v '^tests/sanitizers/run.sh:')
    : >"$out/suppressions.log"
    [ -z "$found" ] || echo "$found" >"$out/suppressions.log"
    verdict suppressions "${found:+something is suppressed}"
}

if [ $mode = list ]; then
    selected | cut -d ' ' -f 1
    exit 0
fi
for tool in "${gcc%% *}" "${clang%% *}" valgrind; do
    command -v "$tool" >/dev/null ||
        { echo "sanitizers: $tool is missing; Debian: apt-get install gcc clang libclang-rt-dev valgrind" >&2; exit 2; }
done
mkdir -p "$out"
rm -f "$out"/*
total=1
nothing_suppressed
while read -r name compiler kind source flags; do
    total=$((total + 1))
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do
        wait -n
    done
    # shellcheck disable=SC2086
    one "$name" "$compiler" "$kind" "$source" $flags &
done < <(selected)
wait
passed=$(find "$out" -name '*.verdict' | wc -l)
printf 'runs\t%d\t\nfailed\t%d\t\nseeds\t%d\tfor each\n' "$total" $((total - passed)) "$seeds" >"$out/results.tsv"
echo "$passed passed, $((total - passed)) failed"
[ "$passed" = "$total" ] && [ "$total" -gt 1 ]
