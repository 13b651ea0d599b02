#!/usr/bin/env bash
# Plants each known kind of bug into a copy of offload.h, one at a time, and counts the seeds that the simulator needs to
# find it. The generator of programs knows nothing of the bugs. None may survive.
set -u
cd "$(dirname "$0")/../../.." || exit 2

usage() {
    cat <<'END'
usage: bash tests/sim/bugs/run.sh [--quick] [--seeds N] [--seconds S] [--jobs N] [BUG...]

  BUG          only these; see --list
  --list       their names, and what they do
  --quick      six of them, each of another kind
  --seeds N    give up on a bug after so many seeds  [2000]
  --seconds S  or after so many seconds              [150]
  --jobs N     so many at a time                     [one for each core]

Prints for each bug the seeds that were needed and the checker that caught it. Writes build/sim-bugs/results.tsv. CC and
CFLAGS (default -O1) are honoured.
END
}

out=build/sim-bugs
plant=tests/sim/bugs/plant.py
seeds=2000 seconds=150 jobs=$(nproc) bugs=
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --list) exec python3 $plant --list ;;
    --quick) bugs="two_roots child_outlives_root lock_kept_at_end no_second_look completed_twice handler_once" ;;
    --seeds | --seconds | --jobs)
        case ${2-} in '' | *[!0-9]* | 0*) echo "sim-bugs: $1 takes a number above 0" >&2; exit 2 ;; esac
        case $1 in --seeds) seeds=$2 ;; --seconds) seconds=$2 ;; --jobs) jobs=$2 ;; esac
        shift ;;
    -*) echo "sim-bugs: unknown option $1; see --help" >&2; exit 2 ;;
    *) bugs="$bugs $1" ;;
    esac
    shift
done
command -v python3 >/dev/null || { echo "sim-bugs: needs python3 (Debian: python3)" >&2; exit 2; }
all=$(python3 $plant --list | cut -f 1)
for bug in $bugs; do
    grep -qx "$bug" <<<"$all" || { echo "sim-bugs: there is no bug '$bug'; see --list" >&2; exit 2; }
done
bugs=${bugs:-$all}

rm -rf $out
mkdir -p $out
python3 $plant offload.h || exit 1

# One bug: NAME.result gets "seeds<TAB>checker"; "-" for the seeds if it survived.
one() {
    local bug=$1 first checker rc
    mkdir "$out/$bug.h"
    python3 $plant offload.h "$bug" >"$out/$bug.h/offload.h"
    if ! ${CC:-cc} -std=c11 ${CFLAGS:--O1} -g -w -I"$out/$bug.h" tests/sim/sim.c -o "$out/$bug" -pthread \
        >"$out/$bug.log" 2>&1; then
        printf -- '-\tdid not compile: see %s\n' "$out/$bug.log" >"$out/$bug.result"
        return
    fi
    timeout -k 5 "$seconds" "$out/$bug" --seeds "$seeds" >"$out/$bug.log" 2>&1
    rc=$?
    first=$(sed -n 's/^FAILED seed \([0-9]*\) .*: \[\([^]]*\)\].*/\1\t\2/p' "$out/$bug.log" | head -n 1)
    if [ -z "$first" ]; then
        first=$(sed -n 's/^signal \([0-9]*\); replay: .* --seed \([0-9]*\)$/\2\tcrash (signal \1)/p' "$out/$bug.log" | head -n 1)
    fi
    [ $rc != 124 ] || [ -n "$first" ] || first=$'-\tnot found in '"$seconds s"
    [ -n "$first" ] || first=$'-\tnot found in '"$seeds seeds"
    printf '%s\n' "$first" >"$out/$bug.result"
    rm -rf "$out/$bug" "$out/$bug.h"
}

passed=0 failed=0 running=0 begun=0
total=$(wc -w <<<"$bugs")
for bug in $bugs; do
    begun=$((begun + 1))
    [ -t 2 ] && printf '\r  %d of %d: %-40s' $begun "$total" "$bug" >&2
    [ -t 2 ] || [ $((begun % 10)) != 0 ] || echo "  $begun of $total" >&2
    one "$bug" &
    running=$((running + 1))
    if [ $running -ge "$jobs" ]; then
        wait -n
        running=$((running - 1))
    fi
done
wait
[ -t 2 ] && printf '\r%70s\r' '' >&2

printf '%-28s %6s  %-22s %s\n' bug seeds 'caught by' 'what it does'
for bug in $bugs; do
    IFS=$'\t' read -r needed checker <"$out/$bug.result"
    if [ "$needed" = - ]; then
        failed=$((failed + 1))
    else
        passed=$((passed + 1))
    fi
    printf '%-28s %6s  %-22s %s\n' "$bug" "$needed" "$checker" "$(python3 $plant --list | sed -n "s/^$bug\t//p")"
    printf 'bug.%s.seeds\t%s\tseeds\n' "$bug" "$needed" >>$out/results.tsv
done
printf 'bugs.planted\t%d\tbugs\nbugs.survived\t%d\tbugs\n' "$total" $failed >>$out/results.tsv
[ $failed = 0 ] || echo "$failed survived: the simulator is blind there. Their logs are in $out."
echo "$passed passed, $failed failed"
[ $failed = 0 ]
