#!/bin/sh
# Serves a real directory in three ways, loads each the same way, and says what the small requests felt.
# Everything it writes is below build/demo. It needs no privileges and stops what it starts.

usage() {
    cat <<'END'
usage: sh tools/demo.sh [options]        (make demo sets up and builds first, then runs it)
Compares three servers: whole files compressed on the event loop, chunks compressed on it, and compression offloaded.
  --seconds N   length of one measurement [1.5]
  --rounds N    measurements of each server, in turn; medians count [5; on both cores 3]
  --rate N      requests per second [found out: the naive server's core is to be about half busy]
  --keep        keep the output of each measurement, in build/demo/raw
END
}

set -u
cd "$(dirname "$0")/.." || exit 2
out=build/demo
www=$out/www
raw=$out/raw
server=build/examples/gzip_server
load=build/bench/load
seconds=1.5
rounds=5
rate=
keep=
number() { # OPTION VALUE PATTERN
    printf '%s\n' "$2" | grep -Eqx "$3" && return
    echo "demo: $1 takes a number from 1 on" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) number "$1" "${2-}" '[1-9][0-9]*([.][0-9]+)?' && seconds=$2 && shift ;;
    --rounds) number "$1" "${2-}" '[1-9][0-9]*' && rounds=$2 && shift ;;
    --rate) number "$1" "${2-}" '[1-9][0-9]*' && rate=$2 && shift ;;
    --keep) keep=1 ;;
    --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

began=$(date +%s)
say() { printf '%s\n' "$*"; }
step() { printf '[%3d s] %s\n' $(($(date +%s) - began)) "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 2; }

for program in $server $load; do
    [ -x $program ] || fail "$program is missing: run \`make build\` first"
done

# ---- what runs, and its end ------------------------------------------------------------------------------------------

pids= # started here and still running
server_pid=

stop() { # PID: ends it, and waits, so that the next one finds its core free
    kill "$1" 2>/dev/null
    wait "$1" 2>/dev/null
    pids=$(for p in $pids; do [ "$p" = "$1" ] || printf '%s ' "$p"; done)
}
stop_all() {
    trap - EXIT INT TERM
    for p in $pids; do stop "$p"; done
    [ -n "$keep" ] || rm -rf "$raw"
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The CPUs that we may use: the server gets the first, the client the second.
cpus=$(taskset -pc $$ 2>/dev/null | sed 's/.*: //' | tr ',' '\n' |
    awk -F- '{ for (i = $1; i <= ($2 == "" ? $1 : $2); i++) print i }')
[ -n "$cpus" ] || cpus=0
server_cpu=$(say "$cpus" | sed -n 1p)
client_cpu=$(say "$cpus" | sed -n 2p)
both=$server_cpu,${client_cpu:-$server_cpu}
client_cpu=${client_cpu:-$server_cpu}
on() { # CPUS COMMAND...
    list=$1
    shift
    if command -v taskset >/dev/null; then exec taskset -c "$list" "$@"; else exec "$@"; fi
}

start_server() { # CPUS OPTIONS...
    : >$raw/server.out
    on "$@" >$raw/server.out 2>$raw/server.err &
    server_pid=$!
    pids="$pids $server_pid"
    tries=0
    port=
    while [ -z "$port" ]; do
        port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' $raw/server.out)
        tries=$((tries + 1))
        if [ -z "$port" ]; then
            kill -0 $server_pid 2>/dev/null && [ $tries -lt 200 ] || {
                cat $raw/server.err >&2
                fail "the server did not start"
            }
            sleep 0.05
        fi
    done
}
inline_of() { case $1 in whole | chunks) say "--inline=$1" ;; esac; } # VARIANT

wrong=
run_load() { # NAME OPTIONS...: one measurement of the server that runs
    to=$raw/$1
    shift
    (on "$client_cpu" $load --port "$port" --root $www --pid "$server_pid" --quiet --tsv "$to.tsv" \
        --curve "$to.curve" "$@") >"$to.txt" 2>"$to.err"
    status=$?
    case $status in
    0) ;;
    1 | 3) sed -n 's/^\(first wrong\|failed\)/demo: &/p' "$to.txt" >&2 ;;
    *)
        cat "$to.err" >&2
        fail "the load generator could not do its work (status $status)" ;;
    esac
    if [ $status -eq 1 ] || [ -z "$wrong" ]; then wrong=${status#0}; fi
}

# value NAME METRIC; median METRIC SETTING VARIANT: over the rounds
value() { awk -F'\t' -v m="$2" '$1 == m { print $2 }' "$raw/$1.tsv"; }
median() { # METRIC SETTING VARIANT
    cat "$raw/$2.$3".*.tsv | awk -F'\t' -v m="$1" '$1 == m { print $2 }' | sort -g |
        awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
total() { cat "$raw/$2.$3".*.tsv | awk -F'\t' -v m="$1" '$1 == m { s += $2 } END { printf "%d", s }'; }

# ---- documents -------------------------------------------------------------------------------------------------------

# Text that every system has, and our own; in the order of names, so that the same system gives the same files.
documents() {
    {
        find README.md offload.h examples bench tests -type f -size +0
        find /usr/share/common-licenses /usr/share/doc /usr/include -type f -size +0 \
            \( -name '*.html' -o -name '*.txt' -o -name '*.md' -o -name '*.h' -o -name copyright -o -path '*licenses/*' \)
    } 2>/dev/null | LC_ALL=C sort | tr '\n' '\0' | xargs -0 cat 2>/dev/null | head -c 33554432 >$out/corpus
    [ "$(wc -c <$out/corpus)" -ge 100000 ] || fail "found too little text on this system for documents"
    while [ "$(wc -c <$out/corpus)" -lt 16777216 ]; do # a bare system: read it again
        cat $out/corpus $out/corpus >$out/corpus2 && mv $out/corpus2 $out/corpus
    done
}

# GROUP COUNT FROM TO: files of that many bytes, evenly on a logarithmic scale, each cut from another place
cut_files() {
    mkdir -p "$www/$1"
    awk -v n="$2" -v from="$3" -v to="$4" -v all="$(wc -c <$out/corpus)" 'BEGIN {
        for (i = 0; i < n; i++) {
            size = int(from * exp(log(to / from) * i / (n - 1)) + 0.5)
            printf "%d %d\n", size, (i * 7919 + 1) * 104729 % (all - size)
        }
    }' | while read -r size place; do
        tail -c +$((place + 1)) $out/corpus | head -c "$size" >"$www/$1/$size.txt"
    done
}

rm -rf "$www" "$raw"
mkdir -p "$www" "$raw" || fail "can't write below build/"
step "making documents of 100 bytes to 10 MB in $www, from text on this system"
documents
cut_files small 48 100 4096
cut_files medium 24 5000 800000
cut_files big 10 1000000 10000000
rm -f $out/corpus
[ "$(find $www -name '*.txt' | wc -l)" -eq 82 ] || fail "could not write the documents: is the disk full?"

# ---- measurements ----------------------------------------------------------------------------------------------------

# The client has a core to itself where it can: it never sleeps, so that it is hardly ever late, and checks the bodies
# afterwards. On the server's core nothing else runs. (A spinner of the lowest class there, which keeps it from dozing,
# made the offloaded server's p50 a fifth lower and its p99 three times higher: with several threads of that class on a
# core, the kernel now and then lets one run on for milliseconds.)
alone=--spin
settings="pinned both cold"
first="Server with all its threads on one core, client on the other:"
if [ "$server_cpu" = "$client_cpu" ]; then
    say "This machine has one CPU: server and client share it, and their figures include each other's work."
    alone=--defer
    settings="pinned cold"
    first="Server and client on the only core:"
fi
mix="--mix small=small:97 --mix medium=medium:2 --mix big=big:1"

if [ -z "$rate" ]; then
    step "finding a rate that keeps the naive server's core about half busy"
    start_server "$server_cpu" $server --port 0 --loops 1 --inline=whole $www
    run_load calibrate $mix --rate 1000 --time 2 --warmup 0.2 $alone
    stop "$server_pid"
    rate=$(value calibrate server.busy | awk '{ r = $1 > 0 ? 1000 * 50 / $1 : 1000; r = int(r / 100) * 100
        print (r < 200 ? 200 : (r > 20000 ? 20000 : r)) }')
fi
slow=$((rate / 4 + 1))

# Other programs on the server's core spoil a measurement, whatever it shows. Some may be repeated for that reason.
repeats=6
repeated=0
disturbed() { # NAME
    [ $repeated -lt $repeats ] && value "$1" others.busy | awk '{ exit !($1 >= 15) }'
}

measure() { # NAME CPUS LOOPS VARIANT LOAD-OPTIONS...
    name=$1 where=$2 loops=$3 inline=$(inline_of "$4")
    shift 4
    while :; do
        start_server "$where" $server --port 0 --loops "$loops" ${inline:+"$inline"} $www
        run_load "$name" "$@"
        stop "$server_pid"
        disturbed "$name" || break
        repeated=$((repeated + 1))
        step "  once more: other programs used $(value "$name" others.busy | sed 's/[.].*//')% of a core"
    done
}

series() { # SETTING CPUS LOOPS ROUNDS TEXT LOAD-OPTIONS...
    setting=$1 cores=$2 nloops=$3 times=$4 text=$5
    shift 5
    round=1
    while [ $round -le "$times" ]; do
        for variant in whole chunks offload; do
            step "$text, round $round of $times: $variant"
            measure "$setting.$variant.$round" "$cores" "$nloops" $variant --seed $round "$@"
        done
        if [ "$setting" = pinned ]; then
            step "$text, round $round of $times: no big requests"
            measure pinned.alone.$round "$cores" "$nloops" alone --seed $round --mix small=small --rate $((rate * 97 / 100)) \
                --time "$seconds" --warmup 0.3 $alone
        fi
        round=$((round + 1))
    done
}

series pinned "$server_cpu" 1 "$rounds" "server on one core" $mix --rate "$rate" --time "$seconds" --warmup 0.3 $alone
[ "$server_cpu" = "$client_cpu" ] ||
    series both "$both" 2 $(((rounds + 1) / 2)) "server on both cores" $mix --rate "$rate" --time "$seconds" --warmup 0.3 --defer
series cold "$server_cpu" 1 1 "cold page cache" $mix --rate $slow --time "$seconds" --warmup 0.3 --cold

# The load generator against another one, on the same server: both as fast as they are answered.
wrk_rate=
if command -v wrk >/dev/null; then
    step "cross-check of the load generator with wrk"
    file=$(ls $www/small | sort -n | sed -n 24p)
    start_server "$server_cpu" $server --port 0 --loops 1 $www
    (on "$client_cpu" wrk -t1 -c16 -d2s -H 'Accept-Encoding: gzip' "http://127.0.0.1:$port/small/$file") \
        >$raw/wrk.txt 2>&1
    wrk_rate=$(awk '/^Requests\/sec:/ { printf "%d", $2 }' $raw/wrk.txt)
    run_load closed --mix "file=small/$file" --rate 0 --connections 16 --time 2 --warmup 0.2
    stop "$server_pid"
fi

# ---- what came out ---------------------------------------------------------------------------------------------------

name_of() {
    case $1 in
    whole) say "naive: whole file on the loop" ;;
    chunks) say "careful: chunks on the loop" ;;
    alone) say "(offloaded, no big requests)" ;;
    *) say "offloaded" ;;
    esac
}
grouped() { say "$1" | awk '{ s = ""; n = $1; while (length(n) > 3) { s = "," substr(n, length(n) - 2) s
    n = substr(n, 1, length(n) - 3) } print n s }'; }

variants_of() { say "whole chunks offload"; if [ "$1" = pinned ]; then say alone; fi; } # SETTING

table() { # SETTING
    printf '  %-29s %26s %9s %10s %7s %15s\n' '' '-- small requests, us --' 'all' 'compressed' 'server' '---- bodies ----'
    printf '  %-29s %8s %8s %8s %9s %10s %7s %8s %6s\n' '' p50 p99 p99.9 'per s' MB/s busy checked wrong
    for variant in $(variants_of "$1"); do
        printf '  %-29s %8.0f %8.0f %8.0f %9.0f %10.0f %6.0f%% %8s %6s\n' "$(name_of $variant)" \
            "$(median small.p50 "$1" $variant)" "$(median small.p99 "$1" $variant)" \
            "$(median small.p99.9 "$1" $variant)" "$(median all.rate "$1" $variant)" \
            "$(median all.documents "$1" $variant)" "$(median server.busy "$1" $variant)" \
            "$(grouped "$(total bodies.checked "$1" $variant)")" "$(total bodies.wrong "$1" $variant)"
    done
}
ratio() { # SETTING VARIANT: its p99 over the offloaded server's
    say "$(median small.p99 "$1" "$2") $(median small.p99 "$1" offload)" | awk '{ r = $2 > 0 ? $1 / $2 : 0
        printf (r >= 10 ? "%.0f" : "%.1f"), r }'
}
milliseconds() { # METRIC SETTING VARIANT
    median "$@" | awk '{ printf ($1 >= 10000 ? "%.0f ms" : $1 >= 1000 ? "%.1f ms" : "%.2f ms"), $1 / 1000 }'
}
worst() { # METRIC SETTING: the greatest of the variants' medians
    for variant in whole chunks offload; do
        median "$1" "$2" $variant
    done | sort -g | awk '{ v = $1 } END { printf "%.0f", v }'
}
any_failed() { # requests that failed, all measurements
    cat $raw/*.tsv | awk -F'\t' '$1 == "failed" { s += $2 } END { printf "%d", s }'
}

write_results() {
    printf '# SETTING.VARIANT.METRIC, value, unit; medians of %s rounds (both: half as many, cold: 1); %s CPU(s)\n' "$rounds" \
        "$(say "$cpus" | wc -l)"
    for setting in $settings; do
        for variant in $(variants_of "$setting"); do
            for metric in $(cut -f1 "$raw/$setting.$variant.1.tsv"); do
                printf '%s.%s.%s\t%s\t%s\n' $setting $variant "$metric" "$(median "$metric" $setting $variant)" \
                    "$(awk -F'\t' -v m="$metric" '$1 == m { print $3 }' "$raw/$setting.$variant.1.tsv")"
            done
        done
        for variant in whole chunks; do
            printf '%s.%s.small.p99.ratio\t%s\tx\n' $setting $variant "$(ratio $setting $variant)"
        done
    done
    printf 'rate\t%s\t1/s\n' "$rate"
    [ -z "$wrk_rate" ] || printf 'closed.wrk\t%s\t1/s\nclosed.load\t%s\t1/s\n' "$wrk_rate" "$(value closed all.rate)"
}

plot() { # SETTING: medians over the rounds, a point for each share
    for variant in $(variants_of "$1"); do
        cat "$raw/$1.$variant".*.curve | awk -F'\t' '$1 == "small" { print $2 "\t" $3 }' | LC_ALL=C sort -k1,1g -k2,2g |
            awk -F'\t' 'function put() { if (n) print share "\t" v[int((n + 1) / 2)] }
                $1 != share { put(); n = 0; share = $1 }
                { v[++n] = $2 }
                END { put() }' | sort -gr >"$raw/plot.$variant"
    done
    gnuplot -e "dir='$raw'; out='$out/latency.png'; rate='$rate'" tools/latency.gp 2>$raw/gnuplot.err
}

write_results >$out/results.tsv
naive=$(milliseconds small.p99 pinned whole)
careful=$(milliseconds small.p99 pinned chunks)
offloaded=$(milliseconds small.p99 pinned offload)
floor=$(milliseconds small.p99 pinned alone)
cat <<END

The load: $(grouped "$rate") requests/s at random times: 97% for files of 100 B to 4 KB ("small"), 2% of 5 to 800 KB, 1% of
1 to 10 MB; all as gzip, by the same code, level and chunk size. Latency counts from the moment at which a request was
meant to be sent. Medians of $rounds rounds. Every body is decompressed and compared with its file.

$first
$(table pinned)

END
if [ "$settings" != "pinned cold" ]; then
    cat <<END
Server on both cores, with a loop for each; the client shares one of them, and has to wait for it, too:
$(table both)

END
fi
cat <<END
Cold page cache (files are dropped from it after each answer), server on one core, $(grouped $slow) requests/s, one round:
$(table cold)
  $(sed -n 's/^cold: //p' $raw/cold.offload.1.txt)

What it says: with a core for the server, one small request in 100 takes
    $naive or more where whole files are compressed on the loop,
    $careful where chunks are,
    $offloaded where compression is offloaded, and
    $floor where nobody asks for big files: so much is this machine's own.
The naive server's p99 is $(ratio pinned whole) times the offloaded one's, the careful one's $(ratio pinned chunks) times.

END
late=$(median client.lag.p99 pinned offload | awk '{ printf "%.0f", $1 }')
others=$(worst others.busy pinned)
say "How sure: the client sent 99% of its requests at most $late us late; other programs used $others% of a core meanwhile."
if [ $repeated -gt 0 ]; then
    say "          $repeated measurement(s) were repeated because other programs used more than 15% of a core."
fi
if [ "$others" -ge 15 ]; then
    say "          That is a lot: on a quiet machine the figures are better, above all those of the offloaded server."
fi
if [ -n "$wrk_rate" ]; then
    own_rate=$(grouped "$(value closed all.rate | awk '{ printf "%d", $1 }')")
    say "          One small file, 16 connections, as fast as it is answered: wrk $(grouped "$wrk_rate") requests/s," \
        "our client $own_rate."
fi
if ! command -v gnuplot >/dev/null; then
    say "No plot: gnuplot is missing (Debian: apt-get install gnuplot-nox)."
elif plot pinned; then
    say "Plot:     $out/latency.png"
else
    say "No plot: gnuplot said: $(tail -n 1 $raw/gnuplot.err)"
fi
say "Figures:  $out/results.tsv"
say "By hand:  $server --port 8080 $www      then: curl --compressed http://127.0.0.1:8080/small/100.txt"
say "Done in $(($(date +%s) - began)) s."

if [ "$wrong" = 1 ]; then fail "a body was wrong: see the messages above"; fi
if [ -n "$wrong" ]; then fail "$(any_failed) requests failed: see the messages above"; fi
