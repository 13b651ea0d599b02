#!/usr/bin/env python3
"""Makes a report of what bench/device.c has measured: build/bench/device-report/report.md, and plots if gnuplot is there.

usage: device_report.py [--input FILE] [--output DIR] [--help]
  --input FILE   figures [build/bench/device.tsv]
  --output DIR   where the report and the plots go; has the latency distributions [build/bench/device-report]
"""
import glob
import os
import shutil
import subprocess
import sys

WORKLOADS = ["cache1-like", "feed1-like", "hyper-snappy", "hyper-zstd", "8k", "small-heavy"]
POLICIES = ["software", "sync", "custom-lc", "async", "custom-batch", "auto", "auto-lc", "sliced", "threads",
            "user-threads"]
FIXED = ["software", "sync", "custom-lc", "async", "custom-batch", "sliced"]
TITLES = {
    "software": "software", "sync": "sync", "custom-lc": "custom-lc (thesis, latency-critical)", "async": "async",
    "custom-batch": "custom-batch (thesis, batch)", "auto": "auto, batch", "auto-lc": "auto, latency-critical",
    "sliced": "sliced", "threads": "thread per request", "user-threads": "user threads (Boost.Context)",
}
MIXES = ["auto", "thesis", "async", "sync", "software", "reserved"]
LOADS = ["0", "10", "25", "40", "50", "75", "90", "saturated"]
COLOURS = ["#2471a3", "#c0392b", "#e0a030", "#1e8449", "#7d3c98", "#117a65", "#a04000", "#808080", "#34495e", "#d98880"]


def fail(text):
    sys.exit("device_report.py: " + text)


class Figures:
    """name -> value, without the prefix that all names have."""

    def __init__(self, path):
        self.value, self.head = {}, ""
        try:
            with open(path, encoding="utf-8") as f:
                for number, line in enumerate(f, 1):
                    if line.startswith("#"):
                        self.head = line[1:].strip()
                        continue
                    parts = line.rstrip("\n").split("\t")
                    if len(parts) != 3 or not parts[0].startswith("device."):
                        fail(f"{path}, line {number}: not name, value and unit")
                    self.value[parts[0][len("device."):]] = float(parts[1])
        except OSError as e:
            fail(f"{e.filename}: {e.strerror}; `make bench-device` makes it")
        except ValueError:
            fail(f"{path}, line {number}: not a number")

    def __call__(self, name):
        return self.value.get(name)

    def has(self, prefix):
        return any(k.startswith(prefix) for k in self.value)

    def names(self, prefix, depth=0):
        """What follows the prefix up to the next dot, in the file's order."""
        found = []
        for k in self.value:
            if k.startswith(prefix):
                part = k[len(prefix):].split(".")[depth]
                if part not in found:
                    found.append(part)
        return found


def count(v):
    if v is None:
        return "-"
    return f"{v / 1e6:.2f}M" if v >= 1e6 else f"{v / 1e3:.1f}K" if v >= 1e4 else f"{v:,.0f}"


def short(v, digits=2):
    return "-" if v is None else f"{v:,.0f}" if abs(v) >= 100 else f"{v:.1f}" if abs(v) >= 10 else f"{v:.{digits}f}"


def span(f, name):
    v, low, high = f(name), f(name + ".min"), f(name + ".max")
    return "-" if v is None else short(v) if low is None else f"{short(v)} ({short(low)}-{short(high)})"


def table(head, lines, left=1):
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * left + "---:|" * (len(head) - left)]
    return out + ["| " + " | ".join(line) + " |" for line in lines] + [""]


# ---- targets ---------------------------------------------------------------------------------------------------------


def target_bound(f):
    worst, ok = None, True
    for w in [s for s in sets(f)]:
        share, over = f(f"{w}.async.x_bound"), f(f"{w}.async.ns_over_bound")
        if share is None:
            continue
        ok = ok and (share >= 0.95 or over <= 50)
        if worst is None or share < worst[1]:
            worst = (w, share, over)
    return worst and ("async reaches 95% of the bound, or is at most 50 ns an operation above it, on every workload",
                      f"least: {worst[1]:.1%} on {worst[0]}, {worst[2]:.1f} ns above it", ok, "")


def target_thesis(f):
    out = []
    for w, least in (("cache1-like", 3.8), ("feed1-like", 3.4)):
        v = f(f"thesis.{w}.async.x_software")
        if v is not None:
            out.append((f"{w}, software at the thesis's speed: async at least {least} times software", short(v), v >= least,
                        f"no policy that offloads all can exceed {short(f(f'thesis.{w}.bound.per_s') / f(f'thesis.{w}.software.per_s'))}"))
    for w in ("cache1-like", "feed1-like"):
        v = f(f"thesis.{w}.sync.x_software")
        if v is None:
            continue
        alone = 1e9 / f(f"thesis.{w}.software.per_s")
        least = f("conditions.setup_ns") + f("conditions.latency_ns") + f(f"thesis.{w}.bound.engine_ns") * f("conditions.engines")
        out.append((f"{w}, software at the thesis's speed: sync at least 1.12 times software", short(v), v >= 1.12,
                    f"set-up, latency and engine take {least:,.0f} ns, software {alone:,.0f}: the model allows {alone / least:.2f}"))
    return out


def target_sync(f):
    sync, software = f("8k.sync.p50_us"), f("8k.software.p50_us")
    return sync and ("8 KB: the median of sync at most 0.75 of software's", f"{sync / software:.2f}", sync <= 0.75 * software, "")


def target_mixed(f):
    out, alone = [], f("mixed.auto.0.latency_p99_us")
    if alone is None:
        return out
    for load in LOADS[1:5]:
        busy, p99 = f(f"mixed.auto.{load}.device_share"), f(f"mixed.auto.{load}.latency_p99_us")
        if busy is not None and busy <= 0.5:
            out.append((f"mixed, auto: latency p99 at most 1.2 of its own alone, batch load {load}%, device {busy:.0%} busy",
                        f"{p99 / alone:.2f} ({p99:.1f} of {alone:.1f} us)", p99 <= 1.2 * alone,
                        f"latency-critical work in software: {short(f(f'mixed.reserved.{load}.latency_p99_us'))} us"))
    p99, most = f("mixed.auto.saturated.latency_p99_us"), alone + f("mixed.batch_service_us")
    out.append(("mixed, auto, saturated: latency p99 at most that alone and one mean batch service",
                f"{p99:.1f} us, allowed {most:.1f}", p99 <= most, ""))
    batch, left = f("mixed.batch_x_alone"), 1 - f("mixed.auto.saturated.latency_used")
    out.append(("mixed, auto, saturated: batch keeps 90% of the capacity that is left", f"{batch / left:.1%}",
                batch >= 0.9 * left, ""))
    return out


def best_fixed(f, w):
    rates = [(f(f"{w}.{p}.per_s"), p) for p in FIXED if f(f"{w}.{p}.per_s")]
    return max(rates) if rates else None


def target_auto(f):
    out = []
    for p in ("auto", "auto-lc"):
        worst = None
        for w in sets(f):
            best, v = best_fixed(f, w), f(f"{w}.{p}.per_s")
            if best and v and (worst is None or v / best[0] < worst[0]):
                worst = (v / best[0], w, best[1])
        if worst:
            out.append((f"{TITLES[p]}: within 5% of the best fixed policy on every workload",
                        f"least: {worst[0]:.3f} of {worst[2]} on {worst[1]}", worst[0] >= 0.95, ""))
    if not f.has("mixed."):
        return out
    beaten, lost = [], []
    for p in MIXES[1:5]:
        for load in ("50", "saturated"):
            a, b = (f(f"mixed.auto.{load}.latency_p99_us"), f(f"mixed.{p}.{load}.latency_p99_us"))
            c, d = (f(f"mixed.auto.{load}.batch_per_s"), f(f"mixed.{p}.{load}.batch_per_s"))
            good = a <= 1.05 * b and c >= 0.95 * d and (a < 0.95 * b or c > 1.05 * d)
            (beaten if good else lost).append(f"{p} at {load}")
    out.append(("mixed: auto better than each fixed policy (p99 or batch rate by 5%, and the other not worse by more)",
                f"better than {len(beaten)} of {len(beaten) + len(lost)}" + (f"; not: {', '.join(lost)}" if lost else ""),
                not lost, ""))
    return out


def target_decision(f):
    v = f("decision_ns")
    return v is not None and ("auto's decision at most 15 ns", f"{span(f, 'decision.ns')} ns", v <= 15, "")


def targets(f):
    found = [target_bound(f)] + target_thesis(f) + [target_sync(f)] + target_mixed(f) + target_auto(f) + [target_decision(f)]
    return [t for t in found if t]


# ---- sections --------------------------------------------------------------------------------------------------------


def sets(f):
    return [w + s for s in ("", "-numbers") for w in WORKLOADS if f(f"{w}{s}.async.per_s") is not None]


def bound_text(f, name):
    engine, cycle, core = (f(f"{name}.bound.{k}_ns") for k in ("engine", "cycle", "core"))
    return (f"Bound: max(engine {engine:,.0f}, cycle {cycle:,.0f}, core {core:,.0f}) ns an operation = "
            f"{count(f(f'{name}.bound.per_s'))}/s; application {f(f'{name}.bound.app_ns'):.0f} ns.")


def policy_lines(f, name, policies):
    return [[TITLES[p], count(f(f"{name}.{p}.per_s")), span(f, f"{name}.{p}.x_software"),
             f"{f(f'{name}.{p}.x_bound'):.1%}", short(f(f"{name}.{p}.ns_over_bound"), 1), short(f(f"{name}.{p}.p50_us")),
             short(f(f"{name}.{p}.p99_us")), "-" if f(f"{name}.{p}.offloaded") is None else f"{f(f'{name}.{p}.offloaded'):.0%}",
             short(f(f"{name}.{p}.own_ns"), 0)]
            for p in policies if f(f"{name}.{p}.per_s") is not None]


HEAD = ["policy", "operations/s", "x software", "of the bound", "ns over it", "p50 us", "p99 us", "on the device", "own ns"]


def section_policies(f, plots):
    out = ["## Policies and workloads", "",
           "Closed loop: 100 coroutines, each with one request after another. Latency is from the call to the result, so by "
           "Little's law the means are 100 / rate: where all are suspended it includes the queue, where none is (software, "
           "sync) each request is short and the other 99 wait before theirs begin, or, a share of them that p99 shows, after "
           "a budget has run out. What is above the bound ran in software beside the busy device. `own ns` is the core's time "
           "for an operation beyond set-up and application; in it are the codec where it ran there, and the cache misses "
           "that the codec leaves behind where it makes the device's results.", ""]
    if "bars.png" in plots:
        out += ["![throughput, emulated device](bars.png)", ""]
    for s in sets(f):
        out += [f"### {s} (emulated device)", "", f"Mean size {f(s + '.mean_bytes'):,.0f} bytes. " + bound_text(f, s), ""]
        out += table(HEAD, policy_lines(f, s, POLICIES))
        if f"cdf-{s}.png" in plots:
            out += [f"![latency, emulated device](cdf-{s}.png)", ""]
    return out


def section_list(f, prefix, title, text):
    out = [f"## {title} (emulated device)", "", text, ""]
    for w in f.names(prefix):
        name = prefix + w
        policies = [p for p in POLICIES if f(f"{name}.{p}.per_s") is not None]
        if not policies:
            continue
        out += [f"### {w}", "", bound_text(f, name), ""]
        factor = f(f"{name}.factor")
        if factor:
            out += [f"Factor on the codec's time: {factor:.3f}, for {count(f(f'{name}.published_per_s'))} operations/s.", ""]
        out += table(HEAD, policy_lines(f, name, policies))
    return out


def section_grid(f, prefix, title, text, policies, columns=None):
    """Rows: settings; columns: workloads; one table for each policy, ratios to software."""
    out = [f"## {title} (emulated device)", "", text, ""]
    settings = f.names(prefix)
    for p in policies:
        lines = []
        for s in settings:
            cells = []
            for w in WORKLOADS:
                v, b = f(f"{prefix}{s}.{w}.{p}.x_software"), f(f"{prefix}{s}.{w}.{p}.x_bound")
                cells.append("-" if v is None else f"{v:.2f} ({b:.0%})")
            lines.append([s] + cells)
        out += [f"{TITLES[p]}: times software (share of the bound)", ""]
        out += table([columns or "device"] + WORKLOADS, lines)
    return out


def section_sweeps(f):
    out = []
    for part, title, text in (
            ("polling.device.", "Polling interval", "cache1-like, async; the device is looked at at most so often."),
            ("polling.qat-like.", "Polling interval, qat-like", "The same with a device that one loop can't saturate."),
            ("dequeue.device.", "Dequeue batch", "cache1-like, async, polled each microsecond; completions taken at a time."),
            ("dequeue.qat-like.", "Dequeue batch, qat-like", "The same with a device that one loop can't saturate."),
            ("depth.", "Queue depth", "cache1-like, async; operations that the device takes from a loop. None is reserved."),
            ("loops.device.", "Several loops, one device", "cache1-like, async; each loop on a simulated core, with its own queue."),
            ("loops.qat-like.", "Several loops, qat-like", "The same with a device that one loop can't saturate.")):
        if not f.has(part):
            continue
        lines = [[s, count(f(f"{part}{s}.per_s")), span(f, f"{part}{s}.x_first"), f"{f(f'{part}{s}.x_bound'):.1%}",
                  short(f(f"{part}{s}.ns_over_bound"), 1), short(f(f"{part}{s}.p50_us")), short(f(f"{part}{s}.p99_us"))]
                 for s in f.names(part)]
        out += [f"## {title} (emulated device)", "", text, ""]
        out += table(["setting", "operations/s", "x first", "of the bound", "ns over it", "p50 us", "p99 us"], lines)
    return out


def section_mixed(f, plots):
    if not f.has("mixed."):
        return []
    out = ["## Latency-critical and batch in one program (emulated device)", "",
           f"Latency-critical: cache1-like sizes at random times, {f('mixed.latency_load'):.0%} of the device's capacity; latency "
           "counts from the intended time. Batch: hyper-snappy sizes, at random times at a share of the capacity, or saturated: "
           f"100 coroutines that always have one under way. One mean batch service takes {f('mixed.batch_service_us'):.1f} us. "
           "`reserved`: latency-critical work in software, batch on the device.", ""]
    if "mixed.png" in plots:
        out += ["![mixed program, emulated device](mixed.png)", ""]
    for p in MIXES:
        lines = [[load, short(f(f"mixed.{p}.{load}.latency_p50_us")), span(f, f"mixed.{p}.{load}.latency_p99_us"),
                  count(f(f"mixed.{p}.{load}.batch_per_s")), f"{f(f'mixed.{p}.{load}.device_share'):.0%}",
                  f"{f(f'mixed.{p}.{load}.latency_used'):.1%}", short(f(f"mixed.{p}.{load}.refused"), 0)]
                 for load in LOADS if f(f"mixed.{p}.{load}.latency_p50_us") is not None]
        out += [f"### {p}", ""] + table(["batch load, %", "p50 us", "p99 us", "batch/s", "device busy", "by latency-critical",
                                         "refused"], lines)
    out += [f"Batch alone, saturated, auto: {count(f('mixed.auto.batch-alone.batch_per_s'))}/s.", ""]
    return out


def section_conditions(f):
    lost, seconds = f("conditions.lost_s"), f("conditions.seconds")
    out = ["## How it was measured", "",
           "- The clock goes while the program computes, and stands still while ISA-L makes the device's results, which are "
           f"true: {f('checked'):,.0f} were decompressed and compared, {f('wrong'):,.0f} were wrong. Where the program would wait "
           "it is moved: by the set-up's time, and to the device's next completion.",
           f"- Other programs had this core for {lost:.1f} s of {seconds:.0f} s, {f('conditions.lost_times'):,.0f} times; that time "
           "is left out. " + ("The machine was disturbed: caches and frequency were not the program's alone, so software's "
                              "figures are worse than on a quiet one." if lost > 0.03 * seconds else "The machine was quiet."),
           "- The bound's terms, each in ns an operation: engine = (engine_ns + bytes / bytes_per_s) / engines; cycle = "
           "(set-up + that + latency_ns) / operations that can be in flight; core = (set-up + application) / cores. An operation "
           "takes at least the greatest: rate <= min(device rate, depth / latency, 1 / (set-up + application time)).",
           f"- Device: set-up {f('conditions.setup_ns'):,.0f} ns, latency {f('conditions.latency_ns'):,.0f} ns, engine "
           f"{f('conditions.engine_ns'):,.0f} ns + {f('conditions.bytes_per_s') / 1e9:.3f} bytes a ns, {f('conditions.engines'):.0f} engine(s), "
           f"depth {f('conditions.depth'):.0f}. Its figures were fixed before anything was measured; section \"Parameters\" shows "
           "what depends on them.",
           f"- {f('conditions.ops'):,.0f} operations a cell in {f('conditions.rounds'):.0f} interleaved rounds; ratios are of one "
           "round's values; medians, in parentheses least and greatest.", ""]
    return out


# ---- plots -----------------------------------------------------------------------------------------------------------


def gnuplot(directory, name, script):
    text = (f"set terminal pngcairo size 1100,680 font 'sans,11'\nset output '{os.path.join(directory, name)}'\n"
            "set grid\nset rmargin 6\nset key below\n" + script)
    done = subprocess.run(["gnuplot"], input=text, text=True, capture_output=True, check=False)
    if done.returncode:
        print(f"device_report.py: no plot {name}: gnuplot said: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
    return done.returncode == 0


def plot_bars(f, directory):
    found = [p for p in POLICIES if p != "software" and f.has(f"cache1-like.{p}.")]
    rows = [w for w in sets(f)]
    if not found or not rows:
        return []
    data = "$d << EOD\n" + "\n".join(f'"{w}" ' + " ".join(str(f(f"{w}.{p}.x_software")) for p in found) for w in rows) + "\nEOD\n"
    lines = [f"$d using {i + 2}:xtic(1) title '{TITLES[p]}' linecolor rgb '{COLOURS[i]}'" for i, p in enumerate(found)]
    script = (data + "set title 'Throughput relative to software (ISA-L level 1); emulated device'\nset style data histogram\n"
              "set style fill solid\nset yrange [0:*]\nset ylabel 'times software'\nset xtics rotate by -20\n"
              "plot " + ", ".join(lines) + ", 1 with lines linecolor rgb '#000000' notitle\n")
    return ["bars.png"] if gnuplot(directory, "bars.png", script) else []


def plot_cdf(directory, name):
    files = [(p, os.path.join(directory, f"cdf-{name}-{p}.tsv")) for p in POLICIES]
    lines = [f"'{path}' using 1:2 with lines linewidth 2 linecolor rgb '{COLOURS[i]}' title '{TITLES[p]}'"
             for i, (p, path) in enumerate(files) if os.path.exists(path)]
    script = (f"set title 'Latency of a request, {name}, 100 at a time; emulated device'\nset xlabel 'us'\nset logscale x\n"
              "set ylabel 'share of the requests'\nset yrange [0:1]\nplot " + ", ".join(lines) + "\n")
    return [f"cdf-{name}.png"] if lines and gnuplot(directory, f"cdf-{name}.png", script) else []


def plot_mixed(f, directory):
    if not f.has("mixed."):
        return []
    data, upper, lower = "", [], []
    for i, p in enumerate(MIXES):
        data += f"$m{i} << EOD\n" + "\n".join(
            f"{110 if load == 'saturated' else load} {f(f'mixed.{p}.{load}.latency_p99_us')} {f(f'mixed.{p}.{load}.batch_per_s') / 1e3}"
            for load in LOADS if f(f"mixed.{p}.{load}.latency_p99_us") is not None) + "\nEOD\n"
        style = f"with linespoints linewidth 2 pointtype 7 linecolor rgb '{COLOURS[i]}'"
        upper.append(f"$m{i} using 1:2 {style} title '{p}'")
        lower.append(f"$m{i} using 1:3 {style} notitle")
    ticks = "set xtics (" + ", ".join(f"'{load}' {110 if load == 'saturated' else load}" for load in LOADS) + ")\n"
    alone = f("mixed.auto.0.latency_p99_us") + f("mixed.batch_service_us")
    script = (data + ticks + "set multiplot layout 2,1 title 'Latency-critical and batch requests in one program; emulated device'\n"
              "set logscale y\nset ylabel 'p99, latency-critical, us'\nset xlabel 'batch load, % of the device'\n"
              "plot " + ", ".join(upper) + f", {alone} with lines dashtype 2 linecolor rgb '#000000' title 'alone + one batch service'\n"
              "unset logscale y\nset yrange [0:*]\nset ylabel 'batch, thousands/s'\nplot " + ", ".join(lower) + "\nunset multiplot\n")
    return ["mixed.png"] if gnuplot(directory, "mixed.png", script) else []


def plots_of(f, directory):
    for old in glob.glob(os.path.join(directory, "*.png")):
        os.remove(old)
    if not shutil.which("gnuplot"):
        print("device_report.py: no plots: gnuplot is missing (Debian: apt-get install gnuplot-nox)", file=sys.stderr)
        return []
    found = plot_bars(f, directory) + plot_mixed(f, directory)
    for s in sets(f):
        found += plot_cdf(directory, s)
    return found


# ---- all of it -------------------------------------------------------------------------------------------------------


def report(f, plots):
    out = ["# What an accelerator would change", "",
           "**All figures of devices are those of an emulated device.** " + f.head, "", "## Targets", ""]
    out += table(["target", "figure", "", "remark"],
                 [[t[0], t[1], "ok" if t[2] else "**not reached**", t[3]] for t in targets(f)], left=4)
    if sets(f):
        out += section_policies(f, plots)
    if f.has("thesis."):
        out += section_list(f, "thesis.", "Software at the thesis's speed",
                            "The thesis's core is slower than this one. Here the clock charges the codec's time by a factor with "
                            "which software has the rate that the thesis gives; the device is as before.")
    if f.has("alone."):
        out += section_list(f, "alone.", "One request at a time", "Nobody waits for the loop, so p50 is a request's own time.")
    out += section_mixed(f, plots)
    if f.has("parameters."):
        out += section_grid(f, "parameters.", "Parameters", "Each a quarter lower and higher; `engine_ns-none` and `-double`: "
                            "nothing, or twice as much, of the fixed time occupies the engine, with the same time for an "
                            "operation that is alone.", ["sync", "async", "auto"], "parameter")
    if f.has("devices."):
        out += section_grid(f, "devices.", "Other devices", "The figures of qat-like and slow are assumptions, no product's.",
                            ["sync", "async", "auto"])
    if f.has("static."):
        out += section_list(f, "static.", "Static tables", "Software by the level that the library takes by itself: static tables up "
                            "to 8 KB, which take a fraction of level 1's time and compress less. The device is as before.")
    out += section_sweeps(f)
    if f("decision_ns") is not None:
        out += ["## What a decision costs", "", f"An ol_run of a call that does nothing takes {span(f, 'decision.software_ns')} ns "
                f"under a rule that says software, and {span(f, 'decision.ns')} ns more under one that says auto and comes to the "
                f"same. {f('decision.tried'):.2%} of them tried another way; that is included.", ""]
    return out + section_conditions(f)


def main(args):
    given = {"--input": "build/bench/device.tsv", "--output": "build/bench/device-report"}
    while args:
        word = args.pop(0)
        if word in ("--help", "-h"):
            print(__doc__.strip())
            return 0
        if word not in given or not args:
            fail(f"unknown argument '{word}'; see device_report.py --help")
        given[word] = args.pop(0)
    f = Figures(given["--input"])
    if not os.path.isdir(given["--output"]):
        fail(f"{given['--output']}: no such folder; `make bench-device` makes it")
    lines = report(f, plots_of(f, given["--output"]))
    path = os.path.join(given["--output"], "report.md")
    with open(path, "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")
    for t in targets(f):
        print(f"{'ok' if t[2] else 'not reached':<12}{t[0]}: {t[1]}" + (f" ({t[3]})" if t[3] and not t[2] else ""))
    print(f"Report:     {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
