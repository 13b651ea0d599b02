#!/usr/bin/env bash
# Checks what no test on real threads can: every order that the memory model allows, and every interleaving of a model.
# Relacy runs the lines of offload.h themselves (seam.h, engine.cc, models.c), Spin a model of how they fit together
# (gate.pml). Then each is broken on purpose, in every place, and has to fail.
set -u
cd "$(dirname "$0")/../.." || exit 2

usage() {
    cat <<'EOF'
usage: bash tests/model/run.sh [--quick]

  --quick   fewer schedules, two workers instead of three in Spin; seconds instead of minutes

Prints for each model how many schedules or states were tried; a table with each atomic access of offload.h, weakened,
and the model that noticed; the variants of gate.pml that must fail, and what noticed them. One schedule again, with a
log of all accesses: build/model/model --help. CXX, CC, CPPFLAGS and LDFLAGS are honoured; what is built is in
build/model. The last line is `N passed, N failed`.
EOF
}

quick=
for word in "$@"; do
    case $word in
    --quick) quick=--quick ;;
    --help | -h) usage; exit 0 ;;
    *) echo "tests/model/run.sh: unknown option $word; see --help" >&2; exit 2 ;;
    esac
done

out=$PWD/build/model
jobs=$(nproc)
cc=${CC:-cc}
cxx=${CXX:-g++}
passed=0 failed=0
mkdir -p "$out/gate"

# ---- tools -------------------------------------------------------------------------------------------------------

need() { # what, Debian package
    echo "tests/model/run.sh: $1 is missing. Debian: apt-get install $2" >&2
    exit 2
}
for tool in "$cc" "$cxx"; do
    command -v "${tool%% *}" >/dev/null || need "$tool" "gcc g++"
done
command -v spin >/dev/null || need spin spin
command -v cpp >/dev/null || need "cpp, which spin calls," cpp
# shellcheck disable=SC2086
echo '#include <relacy/relacy.hpp>' | $cxx ${CPPFLAGS:-} -x c++ -w -E - >/dev/null 2>&1 ||
    need relacy/relacy.hpp relacy-dev

# ---- building ----------------------------------------------------------------------------------------------------

newer() { # product, sources...: does one of them come after it?
    local product=$1 source
    shift
    [ -e "$product" ] || return 0
    for source in "$@"; do
        [ "$source" -nt "$product" ] && return 0
    done
    return 1
}

build_one() { # product, command...: complete or not at all
    local product=$1
    shift
    "$@" -o "$product.new" >"$product.log" 2>&1 && mv "$product.new" "$product" && return
    cat "$product.log" >&2
    return 1
}

build() {
    local here=tests/model
    # shellcheck disable=SC2086
    if newer "$out/engine.o" $here/engine.cc $here/seam.h $here/run.sh; then
        build_one "$out/engine.o" $cxx -std=c++17 -O1 -g -w ${CPPFLAGS:-} -c $here/engine.cc &
    fi
    # shellcheck disable=SC2086
    if newer "$out/models.o" $here/models.c $here/seam.h offload.h $here/run.sh; then
        build_one "$out/models.o" $cc -std=c11 -O1 -g -Wall -Wextra -fsanitize=thread ${CPPFLAGS:-} -I. \
            -c $here/models.c || return
    fi
    wait
    # shellcheck disable=SC2086
    [ -e "$out/engine.o" ] && build_one "$out/model" $cxx -no-pie "$out/engine.o" "$out/models.o" ${LDFLAGS:-}
}

# ---- the source itself -------------------------------------------------------------------------------------------

# Shows all but its last line, from which it takes the counts.
relacy() {
    local log=$out/model.log counted
    "$out/model" $quick --jobs "$jobs" | tee "$log" | sed '$d'
    counted=$(tail -n 1 "$log" | sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p')
    [ -n "$counted" ] || counted="0 1"
    passed=$((passed + ${counted% *}))
    failed=$((failed + ${counted#* }))
}

# ---- the model of the whole --------------------------------------------------------------------------------------

# What has to notice a variant: an assertion, an end where somebody waits, or that not everything is reported.
variants="RELEASE_EARLY=assertion SLOT_TOO_EARLY=assertion CLAIM_IN_STEPS=assertion
          NO_LOOP_LOOK=end NO_WORKER_LOOK=end NOTIFY_FIRST=end WAKE_FIRST=end WITHHELD_LOST=end NO_RESUBMIT=end
          COUNTED_TWICE=end NO_CHAIN=end ONE_COMPLETION=end
          LOOKS_ONLY=liveness"

# Runs Spin in a directory of its own; leaves "result|states|seconds" in its file `result`.
search() { # directory, safety or liveness, optimisation, defines...
    local dir=$out/gate/$1 what=$2 level=$3 begin states result
    shift 3
    rm -rf "$dir"
    mkdir -p "$dir"
    cp tests/model/gate.pml "$dir"
    cd "$dir" || exit 2
    begin=$(date +%s%N)
    if [ "$what" = safety ]; then
        spin -a "$@" gate.pml >log 2>&1 && $cc -w "$level" -DSAFETY -DNOCLAIM -DCOLLAPSE -o pan pan.c >>log 2>&1 &&
            timeout 500 ./pan -m100000 -w22 >>log 2>&1
    else
        spin -a "$@" gate.pml >log 2>&1 && $cc -w "$level" -DCOLLAPSE -o pan pan.c >>log 2>&1 &&
            timeout 500 ./pan -a -m1000000 -w22 >>log 2>&1
    fi
    states=$(sed -n 's/^ *\([0-9][0-9]*\) states, stored.*/\1/p' log)
    case $(grep -m 1 -E '^pan:1:|errors: 0$|error: max search depth' log) in
    *"assertion violated"*) result=assertion ;;
    *"invalid end state"*) result=end ;;
    *"acceptance cycle"*) result=liveness ;;
    *"errors: 0"*) result=none ;;
    *) result=broken ;;
    esac
    echo "$result|${states:-0}|$((($(date +%s%N) - begin) / 100000000))" >result
}

in_words() {
    case $1 in
    assertion) echo "an assertion" ;;
    end) echo "somebody waits for ever" ;;
    liveness) echo "an operation is never reported" ;;
    none) echo "nothing" ;;
    *) echo "no result" ;;
    esac
}

show() { # directory, text, what is expected
    local result states tenths verdict=ok
    IFS='|' read -r result states tenths <"$out/gate/$1/result"
    if [ "$result" = "$3" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        verdict="FAILED, expected: $(in_words "$3"); see build/model/gate/$1"
    fi
    printf '%-28s %9d states %5d.%d s  found: %s, %s\n' "$2" "$states" $((tenths / 10)) $((tenths % 10)) \
        "$(in_words "$result")" "$verdict"
}

gate() {
    local v workers=3 level=-O2
    [ -z "$quick" ] || workers=2 level=-O0
    printf '\ngate.pml, %s workers:\n' $workers
    (search safety safety $level -DWORKERS=$workers) &
    (search liveness liveness $level -DWORKERS=$workers) &
    for v in $variants; do
        while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
            wait -n
        done
        case $v in
        *=liveness) (search "${v%=*}" liveness -O0 -DWORKERS=$workers "-D${v%=*}") & ;;
        *) (search "${v%=*}" safety -O0 -DWORKERS=$workers "-D${v%=*}") & ;;
        esac
    done
    wait
    show safety "as it is, safety" none
    show liveness "as it is, liveness" none
    for v in $variants; do
        show "${v%=*}" "with ${v%=*}" "${v#*=}"
    done
}

echo "building for Relacy" >&2
if build; then
    relacy
else
    echo "not built: see above"
    failed=$((failed + 1))
fi
gate
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
