#!/usr/bin/env bash
# Runs tests/NAME/run.sh for a make target, and sees to it that a whole run leaves build/NAME/results.tsv: a script that
# writes no figures of its own gets those of its last line.
set -u
cd "$(dirname "$0")/.." || exit 2
case ${1:-} in
--help | -h | '')
    echo "usage: bash tests/area.sh NAME [OPTION]...    runs tests/NAME/run.sh; sim-bugs is tests/sim/bugs/run.sh"
    exit 0
    ;;
esac
name=$1
shift
script=tests/${name/-//}/run.sh
out=build/$name
[ -e "$script" ] || { echo "area.sh: there is no $script" >&2; exit 2; }
mkdir -p "$out" || exit 2
[ $# != 0 ] || rm -f "$out/results.tsv"
bash "$script" "$@" | tee "$out/last.log"
status=${PIPESTATUS[0]}
if [ $# = 0 ] && [ ! -e "$out/results.tsv" ]; then
    tail -n 1 "$out/last.log" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/passed\t\1\ttests\nfailed\t\2\ttests/p' \
        >"$out/results.tsv"
fi
exit "$status"
