#!/usr/bin/env bash
# Tests of the packaging: that offload.h compiles wherever it promises to, exports what it promises and nothing else,
# and that what is printed about it can be done. Prints `ok NAME` lines, and at the end `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 2

case ${1:-} in
--help | -h)
    echo "usage: bash tests/compile/run.sh [NAME]    only the checks whose name starts with NAME"
    exit 0
    ;;
esac
only=${1:-}
here=tests/compile
out=$PWD/build/tests/compile
jobs=$(nproc)
strict="-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Werror"
switches="OFFLOAD_STATIC OFFLOAD_NAMESPACE=foo OFFLOAD_ISAL" # every build macro; all their combinations are tried
everything="-DOFFLOAD_STATIC -DOFFLOAD_NAMESPACE=foo -DOFFLOAD_ISAL"
compilers="gcc g++ clang clang++"
started=0
rm -rf "$out"
mkdir -p "$out/result"

# ---- running checks -------------------------------------------------------------------------------------------------

# Runs a check in the background, at most as many at a time as there are cores.
check() { # name, command...
    local name=${1//\//:}
    shift
    case $name in "$only"*) ;; *) return ;; esac
    started=$((started + 1))
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
        wait -n
    done
    : >"$out/result/$name" # empty until the check has ended: one that dies silently counts as failed
    (
        if "$@" >"$out/$name.log" 2>&1; then
            echo ok >"$out/result/$name"
            echo "ok $name"
        else
            echo failed >"$out/result/$name"
            printf 'not ok %s\n%s\n' "$name" "$(head -n 20 "$out/$name.log" | sed 's/^/    /')"
        fi
    ) &
}

finish() {
    local passed failed
    wait
    passed=$(grep -lx ok "$out"/result/* 2>/dev/null | wc -l)
    failed=$((started - passed))
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

# Compiles in the compiler's language with the strict flags.
cc() { # compiler, arguments...
    local compiler=$1
    shift
    case $compiler in
    *++) "$compiler" -x c++ -std=c++17 $strict -I. "$@" ;;
    *) "$compiler" -std=c11 $strict -I. "$@" ;;
    esac
}

fails() { # text that the output must contain, command...
    local text=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "should have failed: $*"
        return 1
    fi
    [[ $output == *"$text"* ]] || { echo "expected '$text' in: $output"; return 1; }
}

same() { # two files that must be equal; the first is what is expected
    [ -s "$1" ] || { echo "nothing to compare with"; return 1; }
    diff "$1" "$2"
}

# ---- what the header declares ---------------------------------------------------------------------------------------

public_half() { sed '/^#endif \/\* OFFLOAD_H \*\//q' offload.h; }

# The functions declared in the public half, sorted.
declared() {
    public_half | grep -o '^OL_API [^(]*(' | sed 's/ *($//; s/.*[ *]//' | sort -u
}

namespace_list_is_complete() {
    declared >"$out/declared"
    public_half | sed -n 's/^#define \(ol_[a-z0-9_]*\) OL__NAME(\(ol_[a-z0-9_]*\))$/\1 \2/p' >"$out/lines"
    awk '$1 != $2 { print "the line for " $1 " names " $2; bad = 1 } END { exit bad }' "$out/lines" || return
    cut -d ' ' -f 1 "$out/lines" | sort >"$out/listed"
    same "$out/declared" "$out/listed"
}

exported() { nm -g --defined-only "$1" | awk 'NF == 3 { print $3 }' | sort; }

exports_exactly() { # prefix, object
    [ "$(declared | wc -l)" -gt 50 ] || { echo "found too few declarations in offload.h"; return 1; }
    diff <(declared | sed "s/^/$1/" | sort) <(exported "$2")
}

# Of a program with everything static, main alone is external.
exports_main_only() { # object
    local symbols
    nm "$1" | grep -q ' t .*ol_loop_run' || { echo "no static ol_loop_run in $1"; return 1; }
    symbols=$(exported "$1")
    [ "$symbols" = main ] || { echo "exported: $symbols"; return 1; }
}

# Macros that are defined after the header and not after the system headers that it includes must carry a prefix.
leaks_no_macro() { # compiler, part of the header: public or whole, defines...
    local compiler=$1 part=$2 lang=c leaked
    shift 2
    [[ $compiler == *++ ]] && lang=c++
    local dump=("$compiler" -x "$lang" -D_GNU_SOURCE -I. -dM -E "$@" -)
    if [ "$part" = public ]; then public_half; else cat offload.h; fi | grep '^#include <' |
        if [[ $* == *ISAL* ]]; then cat; else grep -v isa-l; fi | "${dump[@]}" | sort >"$out/$compiler.$part.system"
    {
        [ "$part" = public ] || echo '#define OFFLOAD_IMPLEMENTATION'
        echo '#include "offload.h"'
    } | "${dump[@]}" | sort >"$out/$compiler.$part.ours"
    grep -q '#define OFFLOAD_H' "$out/$compiler.$part.ours" || { echo "the header was not included"; return 1; }
    leaked=$(comm -13 "$out/$compiler.$part.system" "$out/$compiler.$part.ours" |
        grep -Ev '^#define (OL_|OFFLOAD_|ol_)')
    [ -z "$leaked" ] || { echo "leaked: $leaked"; return 1; }
}

# ---- builds ---------------------------------------------------------------------------------------------------------

use_side() { # compiler, options...
    cc "$1" "${@:2}" -c $here/use.c -o "$out/use.$1$2.o"
}

# A combination of the build macros must compile as an implementation and around a program.
syntax() { # compiler, defines...
    cc "$1" "${@:2}" -D_GNU_SOURCE -fsyntax-only $here/implementation.c &&
        cc "$1" "${@:2}" -D_GNU_SOURCE -DOFFLOAD_IMPLEMENTATION -fsyntax-only $here/program.c
}

# The usual way: the implementation in one file, its use in another. The objects stay, for the checks below.
separate() { # compiler, -O
    local stem=$out/$1$2
    cc "$1" "$2" -D_GNU_SOURCE -c $here/implementation.c -o "$stem.impl.o" &&
        cc "$1" "$2" -c $here/program.c -o "$stem.program.o" &&
        "$1" "$stem.impl.o" "$stem.program.o" -o "$stem.separate" -pthread && "$stem.separate"
}

# One file with every build macro.
together() { # compiler, -O
    local stem=$out/$1$2.all
    cc "$1" "$2" -D_GNU_SOURCE $everything -DOFFLOAD_IMPLEMENTATION -c $here/program.c -o "$stem.o" &&
        "$1" "$stem.o" -o "$stem" -pthread -lisal && "$stem"
}

# The implementation of one language serves programs of the other.
mixed() { # compiler of the implementation, compiler of the program
    g++ "$out/$1-O0.impl.o" "$out/$2-O0.program.o" -o "$out/mixed.$1" -pthread && "$out/mixed.$1"
}

# Two implementations in one program, both used.
two_copies() { # compiler, name, defines of the first, defines of the second
    local stem=$out/$1.two.$2 d=("-D_GNU_SOURCE" "-DOFFLOAD_IMPLEMENTATION" "-O0")
    cc "$1" "${d[@]}" -DENTRY=run_a $3 -c $here/program.c -o "$stem.a.o" &&
        cc "$1" "${d[@]}" -DENTRY=run_b $4 -c $here/program.c -o "$stem.b.o" &&
        cc "$1" -c $here/two.c -o "$stem.main.o" &&
        "$1" "$stem.a.o" "$stem.b.o" "$stem.main.o" -o "$stem" -pthread -lisal && "$stem"
}

# Without a namespace the two would be one: then the linker must object, or the checks above prove nothing.
two_without_namespaces() {
    fails "multiple definition" two_copies gcc bare "" ""
}

namespaced_symbols() { # compiler
    cc "$1" -O0 -D_GNU_SOURCE -DOFFLOAD_NAMESPACE=foo -c $here/implementation.c -o "$out/$1.foo.o" &&
        exports_exactly foo_ "$out/$1.foo.o"
}

static_symbols() { # compiler
    cc "$1" -O0 -D_GNU_SOURCE -DOFFLOAD_STATIC -DOFFLOAD_IMPLEMENTATION -c $here/program.c -o "$out/$1.static.o" &&
        exports_main_only "$out/$1.static.o"
}

twice() { # compiler
    cc "$1" -O0 -c $here/twice.c -o "$out/$1.twice.o" && "$1" "$out/$1.twice.o" -o "$out/$1.twice" -pthread &&
        "$out/$1.twice" # 1, or a crash, unless there is exactly one working implementation
}

without_gnu_source() { # compiler
    fails "-D_GNU_SOURCE" cc "$1" -U_GNU_SOURCE -DNO_GNU_SOURCE -fsyntax-only $here/implementation.c
}

# ---- what is printed ------------------------------------------------------------------------------------------------

# The first line of a program that starts with cc is how to compile it from the project's root.
line_of() { sed -n '/^[ */]*cc .*\.c/{ s/^[ */]*//; p; q; }' "$1"; }

flags_of() { line_of "$1" | tr ' ' '\n' | grep -E '^-([DI]|pthread)' | tr '\n' ' '; }

# Runs the line as it is printed, with cc being gcc, in a copy of the tree that has its own build/.
compile_line() { # file
    local line tree
    line=$(line_of "$1")
    [ -n "$line" ] || { echo "$1 has no line that starts with 'cc ' in the comment at its top"; return 1; }
    tree=$out/tree.${1//\//.}
    mkdir -p "$tree/bin" "$tree/build/${1%/*}"
    ln -s "$(command -v gcc)" "$tree/bin/cc"
    local entry
    for entry in offload.h examples bench tools tests; do
        ln -s "$PWD/$entry" "$tree/$entry"
    done
    (cd "$tree" && PATH=$tree/bin:$PATH sh -c "$line") && [ -x "$tree/build/${1%.c}" ]
}

# gcc finds some faults only when it optimises, clang all of them without.
strict_source() { # compiler, file
    local mode="-O1 -c -o $out/strict.$1.${2//\//.}.o"
    [[ $1 == clang* ]] && mode=-fsyntax-only
    # shellcheck disable=SC2046,SC2086
    cc "$1" $(flags_of "$2") -D_GNU_SOURCE $mode "$2"
}

# Every program answers --help on standard output with its usage, and ends well.
help_of() { # file
    local text
    [ -x "build/${1%.c}" ] || { echo "build/${1%.c} is not there: run make build first"; return 1; }
    text=$(timeout 10 "build/${1%.c}" --help) && [[ ${text,,} == *usage* ]]
}

make_help() {
    local target
    env -u MAKEFLAGS make --no-print-directory help >"$out/help"
    for target in all setup build demo test bench install clean format; do
        grep -qw "$target" "$out/help" || { echo "make help doesn't name $target"; return 1; }
    done
}

make_install() {
    env -u MAKEFLAGS make --no-print-directory install DESTDIR="$out/root" PREFIX=/opt/x &&
        cmp offload.h "$out/root/opt/x/include/offload.h"
}

# The version in the first line, in the macros and in the change log is one.
one_version() {
    local v part
    v=$(sed -n '1s/^.*offload\.h - v\([0-9.]*\) .*/\1/p' offload.h)
    part=$(sed -n 's/^#define OL_VERSION_\(MAJOR\|MINOR\|PATCH\) \([0-9]*\)$/\2/p' offload.h | paste -sd .)
    [ -n "$v" ] && [ "$v" = "$part" ] && grep -q "^## $v " CHANGELOG.md
}

# ---- the list -------------------------------------------------------------------------------------------------------

for c in $compilers; do # the longest first
    for o in -O2 -O0; do
        check "run-$c$o-none" separate "$c" "$o"
        check "run-$c$o-all" together "$c" "$o"
    done
done

for f in examples/*.c bench/*.c tools/*.c; do
    [ -e "$f" ] || continue
    check "line-$f" compile_line "$f"
    for c in $compilers; do
        check "strict-$c-$f" strict_source "$c" "$f"
    done
    check "help-$f" help_of "$f"
done

for c in $compilers; do
    for o in -O0 -O2; do
        check "use-$c$o" use_side "$c" "$o"
        check "use-$c$o-gnu" use_side "$c" "$o" -D_GNU_SOURCE
    done
    combination() { # every subset of the switches, by recursion
        local chosen=$1
        shift
        if [ $# = 0 ]; then
            # shellcheck disable=SC2086
            check "syntax-$c$(echo $chosen | sed 's/-D/+/g; s/OFFLOAD_//g; s/ //g')" syntax "$c" $chosen
            return
        fi
        combination "$chosen" "${@:2}"
        combination "$chosen -D$1" "${@:2}"
    }
    # shellcheck disable=SC2086
    combination "" $switches
    check "twice-$c" twice "$c"
    check "macros-public-$c" leaks_no_macro "$c" public
    check "macros-whole-$c" leaks_no_macro "$c" whole
    check "symbols-namespace-$c" namespaced_symbols "$c"
    check "symbols-static-$c" static_symbols "$c"
done

for c in gcc g++; do
    check "two-namespaces-$c" two_copies $c namespaces -DOFFLOAD_NAMESPACE=foo "-DOFFLOAD_NAMESPACE=bar -DOFFLOAD_ISAL"
    check "two-statics-$c" two_copies $c statics "-DOFFLOAD_STATIC" "-DOFFLOAD_STATIC -DOFFLOAD_ISAL"
    check "two-mixed-$c" two_copies $c mixed "-DOFFLOAD_NAMESPACE=foo" "-DOFFLOAD_STATIC"
done
check two-without-namespaces two_without_namespaces
check no-gnu-source-gcc without_gnu_source gcc
check no-gnu-source-clang without_gnu_source clang
check namespace-list namespace_list_is_complete
check version one_version
check make-help make_help
check make-install make_install

# These use the objects of the first checks.
if [ -z "$only" ] || [ "$only" = run ]; then
    wait
    only=
    for c in $compilers; do
        check "symbols-$c" exports_exactly "" "$out/$c-O0.impl.o"
        check "symbols-$c-O2" exports_exactly "" "$out/$c-O2.impl.o"
    done
    check mixed-c-implementation mixed gcc g++
    check mixed-c++-implementation mixed g++ gcc
    check mixed-clang-implementation mixed clang++ gcc
fi
finish
