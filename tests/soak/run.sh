#!/usr/bin/env bash
# Soaks gzip_server for some minutes. Builds what it needs, then tests/soak/soak.py does the work.
set -u
cd "$(dirname "$0")/../.." || exit 2

usage() {
    cat <<'END'
usage: bash tests/soak/run.sh [options]        (make soak T=MINUTES runs it)
Runs gzip_server at 80% of its measured capacity for some minutes, in rounds. In each round, at the same time:
  - the load generator (bench/load.c), which asks at random times and checks every body;
  - clients that behave: on kept connections, pipelining, a connection for each request, half-closed after it;
  - clients that don't: they read a few bytes a second, send a few, say nothing, abort in the middle of an answer;
  - faults: one worker, all workers or an event loop stand for a while (a tracer stops single threads), or the whole
    process does, now and then for longer than the server's time limits, so that they all pass at once. Every fifth
    round is without, so that a drift of the latency shows.
After each round, when all clients are gone, it looks at what is left.

Asserted: every byte that any client received; every client that behaves is answered and every other let go; small
requests are answered while all workers stand; open fds return to the base; memory grows by no more bytes per 1,000
requests than a bound allows; the server never ends by itself, reports nothing, and stops cleanly at the end, with the
answers under way finished. Times are reported, not asserted; the time limits in here only tell a hang.

  --minutes N    how long (fractions are fine) [1]
  --quick        about 20 seconds
  --asan         the server with AddressSanitizer and UndefinedBehaviorSanitizer; its leak check at the exit then
                 takes the place of the bound on memory
  --server FILE  another build of the server
  --interval S   length of a round's load [a fortieth of the whole, 1.6 to 30]
  --seed N       of the choices of clients and faults [1]
  --help         this text

build/soak/ (with --asan build/soak/asan/) has the results: results.tsv (name, value, unit), intervals.tsv (a line for
each round) and soak.png.
It runs as an ordinary user. What it can't do without privileges: set clocks (to a process that was stopped, they have
jumped), freeze a thread by a cgroup, take real-time priority. CC, CPPFLAGS, CFLAGS and LDFLAGS are honoured.
END
}

out=build/soak
server=
asan=
args=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage && exit 0 ;;
    --quick) args+=(--quick) ;;
    --asan) asan=1 ;;
    --minutes | --interval | --seed)
        printf '%s\n' "${2-}" | grep -Eqx '[0-9]+([.][0-9]+)?' || {
            echo "soak: $1 takes a number; see bash tests/soak/run.sh --help" >&2
            exit 2
        }
        args+=("$1" "$2")
        shift
        ;;
    --server)
        server=${2-}
        [ -x "$server" ] || {
            echo "soak: --server: '$server' is not a program" >&2
            exit 2
        }
        shift
        ;;
    *)
        echo "soak: unknown option $1; see bash tests/soak/run.sh --help" >&2
        exit 2
        ;;
    esac
    shift
done

command -v python3 >/dev/null || {
    echo "soak: python3 is missing (Debian: apt-get install python3)" >&2
    exit 2
}
targets=(build/bench/load)
if [ -z "$server" ]; then
    server=build/examples/gzip_server
    [ -z "$asan" ] || server=build/asan/gzip_server
    targets+=("$server")
fi
env -u MAKEFLAGS -u MFLAGS make --no-print-directory -s "${targets[@]}" >&2 || {
    echo "soak: the build failed: \`make setup\` installs what it needs" >&2
    exit 2
}
[ -z "$asan" ] || out=$out/asan
mkdir -p $out
# shellcheck disable=SC2086
${CC:-cc} -std=c11 ${CPPFLAGS:-} ${CFLAGS:--O2 -g} tests/soak/parent.c -o $out/parent ${LDFLAGS:-} || exit 2
exec python3 tests/soak/soak.py --server "$server" --load build/bench/load --parent $out/parent --out $out \
    ${args[@]+"${args[@]}"}
