#!/usr/bin/env bash
# Fuzzing: replays the inputs that are kept, looks for new ones, and folds what was found into what is kept.
set -u
cd "$(dirname "$0")/../.." || exit 2
shopt -s nullglob

usage() {
    cat <<'EOF'
usage: bash tests/fuzz/run.sh [--replay | --minutes T [--jobs N] | --merge | --list] [TARGET...]

  --replay      builds the targets with $CC and sanitizers, and replays tests/fuzz/corpus: the default; --quick is the
                same
  --minutes T   looks for new inputs for T minutes, split among the targets; needs clang and libFuzzer. What is new goes
                to build/fuzz/found/TARGET, what fails to build/fuzz/crashes, the logs to build/fuzz/logs
  --jobs N      so many targets side by side (default 1), each for N times as long
  --merge       puts those of the found inputs that reach something new into tests/fuzz/corpus, and drops what has
                become superfluous there. Inputs with a name instead of a hash were written by hand, and stay
  --list        the targets: each tests/fuzz/*.c is one

CC, CPPFLAGS and LDFLAGS are honoured; FUZZ_CC names the clang that brings libFuzzer.
EOF
}

here=tests/fuzz
out=build/fuzz
strict="-std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow"
sanitize="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
limit=200000 # bytes of a target's corpus
longest=2000 # bytes of an input that is kept, unless it was written by hand

say() { echo "fuzz: $*" >&2; }

targets=()
all_targets() {
    local f
    for f in "$here"/*.c; do basename "$f" .c; done
}

# ---- building -------------------------------------------------------------------------------------------------------

words_of() { # libraries and defines, from the compile line at the program's top
    sed -n '/^[ */]*cc .*\.c/{ s/^[ */]*//; p; q; }' "$1" | tr ' ' '\n' | grep -E '^-([lDI]|pthread)' | tr '\n' ' '
}

fresh() { # program, command: this command has built it, and nothing that it is made of is newer
    local part
    [ -x "$1" ] && [ "$(cat "$1.cmd" 2>/dev/null)" = "$2" ] || return 1
    # shellcheck disable=SC2013 # words are wanted
    for part in $(sed 's/^[^:]*://; s/\\$//' "$1.d" 2>/dev/null); do
        if [ "$part" -nt "$1" ] || [ ! -e "$part" ]; then return 1; fi
    done
}

build() { # target, program, compiler, flags...
    local target=$1 program=$2 command
    shift 2
    command="$* $here/$target.c -o $program ${LDFLAGS:-} $(words_of "$here/$target.c")"
    if fresh "$program" "$command"; then return; fi
    rm -f "$program" "$program.cmd"
    # shellcheck disable=SC2086 # a command is words
    if ! $command -MMD -MF "$program.d" >"$program.log" 2>&1; then
        echo "not ok $target: it doesn't compile: $command"
        head -n 15 "$program.log" | sed 's/^/    /'
        if grep -q 'file not found\|No such file\|cannot find -l\|unable to find library' "$program.log"; then
            echo "    Debian: apt-get install libisal-dev zlib1g-dev libhttp-parser-dev"
        fi
        return 1
    fi
    printf '%s' "$command" >"$program.cmd"
}

told() { # target, clang or libFuzzer: what its source says that this is to be given
    sed -n "s|^/\* $2: \(.*\) \*/\$|\1|p" "$here/$1.c"
}

build_all() { # function that builds a target; as many at a time as there are cores
    local target jobs
    jobs=$(nproc)
    for target in "${targets[@]}"; do
        while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
        "$1" "$target" &
    done
    wait
}

build_replay() { build "$1" "$out/$1" "${CC:-cc}" "$strict" "$sanitize" "${CPPFLAGS:-}"; }
build_libfuzzer() {
    build "$1" "$out/$1.libfuzzer" "$fuzz_cc" "$strict" "$sanitize" "${CPPFLAGS:-}" -fsanitize=fuzzer -DFUZZ_LIBFUZZER \
        "$(told "$1" clang)"
}

find_clang() { # sets fuzz_cc
    local cc probe=$out/probe
    printf '%s\n' '#include <stdint.h>' '#include <stddef.h>' \
        'int LLVMFuzzerTestOneInput(const uint8_t *, size_t);' \
        'int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) { return p && n > 9 ? 0 : 0; }' >"$probe.c"
    for cc in ${FUZZ_CC:-clang-19 clang}; do
        if $cc -fsanitize=fuzzer,address "$probe.c" -o "$probe" >"$probe.log" 2>&1; then
            fuzz_cc=$cc
            return
        fi
    done
    say "no clang here links with -fsanitize=fuzzer (see $probe.log)."
    say "Debian: apt-get install clang-19 libclang-rt-19-dev; or name another one: FUZZ_CC=clang-N"
    exit 2
}

# ---- replay ---------------------------------------------------------------------------------------------------------

ulimit -c 0
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}abort_on_error=1:detect_leaks=1"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}abort_on_error=1:print_stacktrace=1"
fixed=() # the sanitizers' shadow memory doesn't fit every layout that a kernel may choose at random
setarch -R true 2>/dev/null && fixed=(setarch -R)

replay() {
    local target log counted passed failed started all_passed=0 all_failed=0
    say "building ${#targets[@]} targets"
    build_all build_replay
    for target in "${targets[@]}"; do
        if [ ! -x "$out/$target" ]; then
            all_failed=$((all_failed + 1))
            continue
        fi
        log=$out/logs/$target.replay started=$SECONDS
        say "replaying $target"
        "${fixed[@]}" "$out/$target" "$here/corpus/$target" >"$log" 2>&1
        counted=$(tail -n 1 "$log" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p')
        passed=${counted% *} failed=${counted#* }
        if [ -z "$counted" ] || [ "$passed$failed" = 00 ]; then
            passed=0 failed=1
            echo "not ok $target: no input was replayed"
        fi
        if [ "$failed" = 0 ]; then
            echo "ok $target: $passed inputs, $((SECONDS - started)) s"
        else
            grep -v ' passed, .* failed$' "$log" | head -n 40
            echo "    again: $out/$target FILE"
        fi
        all_passed=$((all_passed + passed)) all_failed=$((all_failed + failed))
    done
    echo "$all_passed passed, $all_failed failed"
    [ $all_failed = 0 ] && [ $all_passed -gt 0 ]
}

# ---- fuzzing --------------------------------------------------------------------------------------------------------

options_of() { # what libFuzzer is given for a target
    told "$1" libFuzzer
    if [ -e "$here/$1.dict" ]; then echo "-dict=$here/$1.dict"; fi
}

declare -A pid=() began=() status=() # of the targets that run, and that have run
stop_all() {
    local p
    for p in "${pid[@]}"; do kill "$p" 2>/dev/null; done
    wait
    say "interrupted; what was found is in $out/found"
    exit 130
}

start_target() { # target, seconds
    mkdir -p "$out/found/$1" "$out/crashes"
    # shellcheck disable=SC2046 # options are words
    "${fixed[@]}" "$out/$1.libfuzzer" $(options_of "$1") -max_total_time="$2" -timeout=25 -rss_limit_mb=3000 \
        -print_final_stats=1 -artifact_prefix="$out/crashes/$1." "$out/found/$1" "$here/corpus/$1" \
        >"$out/logs/$1.fuzz" 2>&1 &
    pid[$1]=$! began[$1]=$SECONDS
}

progress() { # seconds for each
    local target line
    for target in "${!pid[@]}"; do
        line=$(grep -a 'cov: ' "$out/logs/$target.fuzz" | tail -n 1 |
            sed -n 's/^#\([0-9]*\).*\(cov: [0-9]*\).*\(corp: [^ ]*\).*\(exec.s: [0-9]*\).*/\1 runs, \2, \3, \4/p')
        say "$target: $((SECONDS - began[$target])) of $1 s, ${line:-starting}"
    done
}

reap() { # takes what has ended out of pid
    local target
    for target in "${!pid[@]}"; do
        kill -0 "${pid[$target]}" 2>/dev/null && continue
        wait "${pid[$target]}"
        status[$target]=$?
        unset "pid[$target]"
    done
}

statistic() { sed -n "s/^stat::$2: *//p" "$out/logs/$1.fuzz" 2>/dev/null | tail -n 1; }
last_word() { grep -a "$2" "$out/logs/$1.fuzz" 2>/dev/null | tail -n 1 | sed -n "s|.*$2\([^ ]*\).*|\1|p"; }
crashes_of() { find "$out/crashes" -name "$1.*" ! -name '*.slow-unit-*' -newer "$out/logs/began" | sort; }

report() {
    local target crash n passed=0 failed=0
    printf '\n%-10s %12s %9s %7s %14s %8s\n' target executions 'exec/s' edges corpus crashes
    for target in "${targets[@]}"; do
        n=$(crashes_of "$target" | wc -l)
        if [ "$n" = 0 ] && [ "${status[$target]:-1}" != 0 ]; then n="see log"; fi
        printf '%-10s %12s %9s %7s %14s %8s\n' "$target" "$(statistic "$target" number_of_executed_units)" \
            "$(statistic "$target" average_exec_per_sec)" "$(last_word "$target" 'cov: ')" \
            "$(last_word "$target" 'corp: ')" "$n"
        if [ "$n" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    done
    for target in "${targets[@]}"; do
        [ "${status[$target]:-1}" = 0 ] && continue
        echo "not ok $target: see $out/logs/$target.fuzz"
        grep -a ' is false: \|ERROR: \|runtime error: ' "$out/logs/$target.fuzz" 2>/dev/null | head -n 2 | sed 's/^/    /'
        for crash in $(crashes_of "$target"); do echo "    again: $out/$target $crash"; done
    done
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}

fuzz() { # minutes, jobs
    local each next=0 shown=$SECONDS n=${#targets[@]} jobs=$2
    if [ "$jobs" -gt "$n" ]; then jobs=$n; fi
    each=$(awk -v t="$1" -v n="$n" -v j="$jobs" 'BEGIN { s = int(t * 60 * j / n); print s < 1 ? 1 : s }')
    find_clang
    say "building $n targets with $fuzz_cc"
    build_all build_libfuzzer
    build_all build_replay
    mkdir -p "$out/crashes"
    touch "$out/logs/began"
    trap stop_all INT TERM
    while [ "$next" -lt "$n" ] || [ ${#pid[@]} -gt 0 ]; do
        while [ ${#pid[@]} -lt "$jobs" ] && [ "$next" -lt "$n" ]; do
            rm -f "$out/logs/${targets[next]}.fuzz"
            if [ -x "$out/${targets[next]}.libfuzzer" ]; then start_target "${targets[next]}" "$each"; fi
            next=$((next + 1))
        done
        sleep 1
        reap
        if [ $((SECONDS - shown)) -ge 10 ]; then
            progress "$each"
            shown=$SECONDS
        fi
    done
    report
}

by_hand() { ! [[ $(basename "$1") =~ ^[0-9a-f]{40}$ ]]; }

merge_target() {
    local target=$1 file dir=$out/merge/$1 from=$out/merge/$1.from
    rm -rf "$dir" "$from"
    mkdir -p "$dir" "$from" "$out/found/$target" "$out/crashes" "$here/corpus/$target"
    find "$here/corpus/$target" "$out/found/$target" -type f -size "-$((longest + 1))c" -exec cp -t "$from" {} +
    for file in "$here/corpus/$target"/*; do # they are there whatever they reach
        if by_hand "$file"; then cp "$file" "$dir"; fi
    done
    # shellcheck disable=SC2046 # options are words
    "${fixed[@]}" "$out/$target.libfuzzer" $(options_of "$target") -set_cover_merge=1 -timeout=25 -rss_limit_mb=3000 \
        -artifact_prefix="$out/crashes/$target." "$dir" "$from" >"$out/logs/$target.merge" 2>&1 || return 1
    for file in "$here/corpus/$target"/*; do
        if ! by_hand "$file"; then rm "$file"; fi
    done
    cp "$dir"/* "$here/corpus/$target" && rm -rf "$dir" "$from" "$out/found/$target"
}

merge() {
    local target n bytes failed=0 passed=0
    find_clang
    say "building ${#targets[@]} targets with $fuzz_cc"
    build_all build_libfuzzer
    for target in "${targets[@]}"; do
        say "merging $target"
        if ! merge_target "$target"; then
            echo "not ok $target: see $out/logs/$target.merge"
            failed=$((failed + 1))
            continue
        fi
        n=$(find "$here/corpus/$target" -type f | wc -l)
        bytes=$(cat "$here/corpus/$target"/* | wc -c)
        echo "$target: $n inputs, $bytes bytes"
        if [ "$bytes" -gt $limit ]; then say "$target: a corpus should stay below $limit bytes"; fi
        passed=$((passed + 1))
    done
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}

# ---- the command line -----------------------------------------------------------------------------------------------

mode=replay minutes="" jobs=1
wrong() {
    echo "run.sh: $1; see --help" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
    --replay | --quick) mode=replay ;;
    --merge | --list) mode=${1#--} ;;
    --minutes | --jobs)
        [ $# -gt 1 ] || wrong "$1 needs a number"
        if [ "$1" = --jobs ]; then jobs=$2; else mode=fuzz minutes=$2; fi
        shift
        ;;
    --help | -h) usage; exit 0 ;;
    -*) wrong "unknown option $1" ;;
    *)
        [ -e "$here/$1.c" ] || wrong "no target is called '$1'; there are: $(all_targets | paste -sd ' ')"
        targets+=("$1")
        ;;
    esac
    shift
done
if [ "$mode" = fuzz ] && ! awk -v t="$minutes" 'BEGIN { exit !(t ~ /^[0-9]+(\.[0-9]+)?$/ && t > 0) }'; then
    wrong "--minutes needs a number, not '$minutes'"
fi
[[ $jobs =~ ^[1-9][0-9]*$ ]] || wrong "--jobs needs a number, not '$jobs'"
if [ ${#targets[@]} = 0 ]; then mapfile -t targets < <(all_targets); fi
mkdir -p "$out/logs"
case "$mode" in
list) printf '%s\n' "${targets[@]}" ;;
replay) replay ;;
fuzz) fuzz "$minutes" "$jobs" ;;
merge) merge ;;
esac
