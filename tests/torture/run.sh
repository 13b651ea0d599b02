#!/usr/bin/env bash
# Fails every call that offload.h makes, one at a time: builds tests/torture with sanitizers and runs it.
set -u
cd "$(dirname "$0")/../.." || exit 2

usage() {
    cat <<'END'
usage: bash tests/torture/run.sh [--quick] [--plain] [option of torture]...

  --plain     without sanitizers
  --help      this text

Without options: every call, with every error that its manual page names, once and from then on; then two faults at a
time, at random. All other options are torture's, to run a part or to repeat a failure:

END
    if [ -x $out/torture ]; then $out/torture --help | sed '1,/^$/d'; else echo "  (built by the first run)"; fi
    cat <<'END'

Ends with two tables: of the scenarios, how often each call was made, how many faults were injected and how many of them
struck; of the calls, with their errors. build/torture/results.tsv has the figures of a whole run. CC, CPPFLAGS and
LDFLAGS are honoured.
END
}

out=build/torture
cc=${CC:-cc}
checks='-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined'
strict='-std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow'
program=$out/torture
whole=1
args=()
for word in "$@"; do
    case $word in
    --help | -h) usage; exit 0 ;;
    --plain) checks='-O1 -g' program=$out/torture.plain ;;
    --quick) args+=(--quick) whole= ;;
    *) args+=("$word") whole= ;;
    esac
done

# The library must call nothing directly that can fail. These can't, or not with what it gives them.
harmless='abort bcmp memchr memcmp memcpy memmove memset snprintf strchr strcmp strlen strpbrk vsnprintf
    __errno_location __sched_cpucount __stack_chk_fail __tls_get_addr _GLOBAL_OFFSET_TABLE_
    clock_gettime pthread_mutex_lock pthread_mutex_unlock pthread_once pthread_self pthread_sigmask sigfillset
    crc32_gzip_refl isal_[a-z0-9_]* torture_[a-z0-9_]*'

try() { # what it is for, command...
    local what=$1
    shift
    "$@" >$out/build.log 2>&1 && return
    echo "torture: $what fails: $*" >&2
    head -n 20 $out/build.log >&2
    exit 1
}

# shellcheck disable=SC2086 # flags are words
build() {
    # the sources, libraries and defines stand in the compile line at the top of torture.c
    local line words command f newer= sources=()
    line=$(sed -n '/^ *cc .*\.c/{ p; q; }' tests/torture/torture.c)
    words=$(printf '%s\n' $line | grep -E '^-([lDI]|pthread)' | tr '\n' ' ')
    for f in $line; do [[ $f != *.c ]] || sources+=("$f"); done
    command="$cc $strict ${CPPFLAGS:-} $checks -I. ${sources[*]} -o $program ${LDFLAGS:-} $words"
    mkdir -p $out
    command -v "${cc%% *}" >/dev/null || { echo "torture: no compiler '$cc'; Debian: apt-get install gcc" >&2; exit 2; }
    echo '#include <isa-l.h>' | $cc ${CPPFLAGS:-} -E - >/dev/null 2>&1 ||
        { echo "torture: isa-l.h is missing; Debian: apt-get install libisal-dev" >&2; exit 2; }
    for f in offload.h tests/torture/*.[ch]; do
        [ $program -nt "$f" ] || newer=$f
    done
    if [ -n "$newer" ] || [ "$(cat $program.command 2>/dev/null)" != "$command" ]; then
        echo "  building $program" >&2
        try "the build" $command
        echo "$command" >$program.command
    fi
}

# Everything that offload.h still calls by itself, apart from the names above: should be nothing. The allocation of a
# stack or of thread-local memory is not a call.
# shellcheck disable=SC2086
unknown_calls() {
    local names
    command -v nm >/dev/null || { echo "torture: nm is missing; Debian: apt-get install binutils" >&2; exit 2; }
    try "the build without sanitizers" $cc $strict ${CPPFLAGS:-} -O1 -I. -DOFFLOAD_ISAL -c tests/torture/library.c -o $out/library.o
    names=$(printf '%s\n' $harmless | tr '\n' '|')
    nm -u $out/library.o | awk '{ print $NF }' | grep -Ev "^(${names%|})$" | tr '\n' ' '
}

[ -e offload.h ] || { echo "torture: there is no offload.h here" >&2; exit 2; }
mkdir -p $out
build
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1
jobs=$(nproc)
fixed=() # the sanitizers' shadow memory doesn't fit every layout that a kernel may choose at random
setarch -R true 2>/dev/null && fixed=(setarch -R)
"${fixed[@]}" $program --jobs $((jobs > 16 ? 16 : jobs)) "${args[@]}" >$out/log
rc=$?
sed '$d' $out/log
closing=$(tail -n 1 $out/log)
passed=${closing%% *}
failed=${closing#*, }
failed=${failed%% *}
case $closing in
[0-9]*' passed, '[0-9]*' failed') ;;
*)
    tail -n 1 $out/log
    case " ${args[*]} " in *' --list '* | *' --calls '*) exit $rc ;; esac
    exit $((rc ? rc : 1))
    ;;
esac
unknown=$(unknown_calls) || exit 2
if [ -z "$unknown" ]; then
    passed=$((passed + 1))
else
    failed=$((failed + 1))
    echo "not ok seam: offload.h calls what the injector doesn't know, and so can't make fail: $unknown"
    echo "      give each a function in tests/torture/faults.c, or list it in tests/torture/run.sh if it can't fail"
fi
[ -z "$whole" ] || printf 'runs\t%d\truns\nfailed\t%d\truns\n' $((passed + failed)) "$failed" >$out/results.tsv
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ $rc = 0 ]
