#!/bin/sh
# Finds out what this machine lacks to build, demonstrate or test offload.h, and installs it through the system's
# packages. When nothing is missing it says nothing and takes a fraction of a second.
set -u

usage() {
    cat <<'EOF'
usage: sh tools/setup.sh [--check] [GROUP]...

  build       headers and libraries of the examples and benchmarks
  demo        build, and the tools that `make demo` uses
  test        build, and the compilers, libraries and tools that `make test` uses
  sim torture model fuzz coverage mutation sanitizers soak bench-device calibrate
              what the make target of that name uses
  --check     only say what is missing and how to install it; exit 1 if anything is
  --help      this text

Without a group: demo and test. Looks for the headers, libraries and programs themselves, wherever they come from.
Installs by apt-get, as root or through sudo where that asks no password. Elsewhere it prints the command to run.
CC, CPPFLAGS, CFLAGS and LDFLAGS are honoured when it looks for headers and libraries.
EOF
}

install=1
groups=
cd "$(dirname "$0")/.." || exit 2
for word in "$@"; do
    case $word in
    --check) install=0 ;;
    --help | -h) usage; exit 0 ;;
    build | demo | test | sim | torture | model | fuzz | coverage | mutation | sanitizers | soak | \
        bench-device | calibrate)
        groups="$groups $word"
        ;;
    *) echo "setup.sh: unknown argument '$word'; see sh tools/setup.sh --help" >&2; exit 2 ;;
    esac
done
groups=${groups:-demo test}
cc=${CC:-cc}

# 1 if a group that needs it was asked for
wants() {
    for wanted in $groups; do
        case " $* " in *" $wanted "*) return 0 ;; esac
    done
    return 1
}

has_tool() { command -v "$1" >/dev/null 2>&1; }

# compiles and links an empty program with these headers and libraries
can_link() {
    options=
    for word in "$@"; do
        case $word in
        -*) options="$options $word" ;;
        *) options="$options -include $word" ;;
        esac
    done
    # shellcheck disable=SC2086
    echo 'int main(void) { return 0; }' |
        $cc ${CPPFLAGS:-} ${CFLAGS:-} -x c - -o /dev/null ${LDFLAGS:-} $options >/dev/null 2>&1
}

# what is missing: a list for people, and the packages by distribution
list=
apt=
dnf=
pacman=
missing() { # text, apt, dnf, pacman
    list="$list
  $1"
    apt="$apt $2"
    dnf="$dnf $3"
    pacman="$pacman $4"
}

need_tool() { # tool, apt, dnf, pacman
    has_tool "$1" || missing "the program $1" "$2" "$3" "$4"
}

# A compiler's own run-time libraries for the sanitizers. gcc's come with gcc in Debian, clang's do not.
# shellcheck disable=SC2086 # it may be two words
need_sanitizers() { # compiler
    if $1 -dM -E -x c /dev/null 2>/dev/null | grep -q __clang__; then
        echo 'int main(void) { return 0; }' | $1 -fsanitize=address -x c - -o /dev/null >/dev/null 2>&1 ||
            missing "the sanitizers of $1" libclang-rt-dev compiler-rt compiler-rt
    else
        for name in asan ubsan tsan; do
            [ -e "$($1 -print-file-name=lib$name.so)" ] ||
                missing "the sanitizer lib$name of $1" gcc lib$name gcc-libs
        done
    fi
}

# 1 if the compile line of a program in these files has this word
named() { # word, files...
    searched=$1
    shift
    grep -sh '^[ /*]*cc .*\.c' "$@" | grep -q -- " $searched\( \|\$\)"
}

# The LLVM of coverage and fuzzing: MC/DC needs 18 or later, and Debian 12's clang is 14.
need_llvm() { # coverage | fuzzer
    llvm=${CLANG:-clang-19}
    [ "$1" != fuzzer ] || llvm=${FUZZ_CC:-$llvm}
    if ! has_tool "$llvm"; then
        missing "the program $llvm (CLANG names another, of version 18 or later)" \
            "clang-19 libclang-rt-19-dev" "clang compiler-rt" "clang compiler-rt"
    elif [ "$1" = fuzzer ]; then
        echo 'int LLVMFuzzerTestOneInput(const char *p, long n); int LLVMFuzzerTestOneInput(const char *p, long n)
            { return !p && n; }' | "$llvm" -fsanitize=fuzzer,address -x c - -o /dev/null >/dev/null 2>&1 ||
            missing "libFuzzer of $llvm" "libfuzzer-19-dev libclang-rt-19-dev" compiler-rt compiler-rt
    else
        echo 'int main(void) { return 0; }' |
            "$llvm" -fprofile-instr-generate -fcoverage-mapping -x c - -o /dev/null >/dev/null 2>&1 ||
            missing "the profile library of $llvm" libclang-rt-19-dev compiler-rt compiler-rt
    fi
    if [ "$1" = coverage ]; then
        need_tool "${LLVM_COV:-llvm-cov-19}" llvm-19 llvm llvm
        need_tool "${LLVM_PROFDATA:-llvm-profdata-19}" llvm-19 llvm llvm
    fi
}

# What the examples, the benchmarks and the programs of the tests are linked with.
need_libraries() {
    libraries="isa-l/igzip_lib.h -lisal http_parser.h -lhttp_parser zlib.h -lz"
    # shellcheck disable=SC2086
    if ! can_link $libraries; then
        can_link isa-l/igzip_lib.h -lisal || missing "ISA-L: isa-l/igzip_lib.h and -lisal" libisal-dev isa-l-devel isa-l
        can_link http_parser.h -lhttp_parser ||
            missing "http-parser: http_parser.h and -lhttp_parser" libhttp-parser-dev http-parser-devel http-parser
        can_link zlib.h -lz || missing "zlib: zlib.h and -lz" zlib1g-dev zlib-devel zlib
    fi
    for library in event event_core; do
        if named "-l$library" examples/*.c bench/*.c tests/*/*.c && ! can_link event2/event.h "-l$library"; then
            missing "libevent: event2/event.h and -l$library" libevent-dev libevent-devel libevent
        fi
    done
    if named -luv examples/*.c bench/*.c tests/*/*.c; then
        can_link uv.h -luv || missing "libuv: uv.h and -luv" libuv1-dev libuv-devel libuv
    fi
}

look() {
    list='' apt='' dnf='' pacman=''
    if ! can_link stdio.h; then
        if [ "$cc" != cc ] && [ "$cc" != gcc ]; then
            echo "setup: '$cc' does not compile a program here. Set CC to a C compiler that does, or leave it unset." >&2
            exit 1
        fi
        missing "a C compiler: $cc can't compile a program" "gcc libc6-dev" "gcc glibc-devel" "gcc glibc"
        return # what else is missing shows when there is one
    fi
    wants build demo test coverage mutation sanitizers soak torture fuzz bench-device calibrate && need_libraries
    if wants demo test coverage mutation; then
        need_tool curl curl curl curl
        need_tool wrk wrk wrk wrk
    fi
    if wants demo test; then
        need_tool taskset util-linux util-linux util-linux
    fi
    if wants demo test soak coverage mutation fuzz sim torture bench-device; then
        need_tool python3 python3 python3 python
    fi
    if wants demo soak bench-device calibrate; then
        need_tool gnuplot gnuplot-nox gnuplot gnuplot
    fi
    if wants test sanitizers; then
        need_tool gcc gcc gcc gcc
        need_tool clang "clang libclang-rt-dev" "clang compiler-rt" "clang compiler-rt"
        need_tool valgrind valgrind valgrind valgrind
    fi
    if wants test; then
        need_tool g++ g++ gcc-c++ gcc
        need_tool clang++ clang clang clang
        need_tool nm binutils binutils binutils
        need_tool gzip gzip gzip gzip
    fi
    if wants test coverage mutation; then
        can_link criterion/criterion.h -lcriterion ||
            missing "Criterion: criterion/criterion.h and -lcriterion" libcriterion-dev criterion-devel criterion
    fi
    wants test sanitizers sim torture soak mutation && need_sanitizers "$cc"
    wants test sanitizers && has_tool clang && need_sanitizers clang
    if wants test model; then
        need_tool g++ g++ gcc-c++ gcc
        need_tool spin spin spin spin
        echo '#include <relacy/relacy.hpp>' | g++ -x c++ -E - >/dev/null 2>&1 ||
            missing "Relacy: relacy/relacy.hpp" relacy-dev relacy relacy
    fi
    wants fuzz && need_llvm fuzzer
    wants test coverage && need_llvm coverage
}

words() { # each word once, in order
    # shellcheck disable=SC2048,SC2086
    printf '%s\n' $* | awk '!seen[$0]++ { printf "%s%s", sep, $0; sep = " " }'
}

# Everything a person needs who has to do it by hand; then the end.
give_up() { # reason
    {
        echo "setup: $1"
        if has_tool dnf && ! has_tool apt-get; then
            echo "Run, with names that may differ among releases:"
            echo "    sudo dnf install $(words "$dnf")"
        elif has_tool pacman && ! has_tool apt-get; then
            echo "Run (what pacman doesn't know is in the AUR):"
            echo "    sudo pacman -S $(words "$pacman")"
        else
            echo "Run as root (Debian, Ubuntu):"
            echo "    apt-get update && apt-get install -y --no-install-recommends $(words "$apt")"
            has_tool apt-get || {
                echo "or on Fedora:  dnf install $(words "$dnf")"
                echo "or on Arch:    pacman -S $(words "$pacman")    (some may be in the AUR)"
            }
        fi
        echo "then the same command again."
    } >&2
    exit 1
}

look
[ -z "$list" ] && exit 0
echo "setup: this machine lacks:$list"
[ $install = 1 ] || give_up "nothing was installed. \`make setup\` can do it, or:"
has_tool apt-get || give_up "there is no apt-get here, so it has to be done by hand."
if [ "$(id -u)" = 0 ]; then
    root=
elif has_tool sudo && sudo -n true 2>/dev/null; then
    root="sudo -n"
else
    give_up "installing needs root, and sudo is not there or asks for a password."
fi

get="$root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0"
install_packages() {
    packages=$(words "$apt")
    echo "setup: installing by apt-get: $packages"
    # The lists of packages are fetched only when they are absent or out of date: then the first try fails.
    # shellcheck disable=SC2086
    $get install -y --no-install-recommends $packages && return
    echo "setup: once more with fresh lists of packages"
    $get update || give_up "apt-get update failed (its message is above)."
    # shellcheck disable=SC2086
    $get install -y --no-install-recommends $packages || give_up "apt-get install failed (its message is above)."
}

install_packages
had=$list
look
if [ -n "$list" ] && [ "$list" != "$had" ]; then # there was no compiler to look with
    echo "setup: this machine lacks also:$list"
    install_packages
    look
fi
[ -z "$list" ] || give_up "installed ($packages), and yet this is missing:$list"
echo "setup: done"
