#!/usr/bin/env python3
"""Soaks gzip_server: rounds of load at 80% of its capacity, with clients of all manners and with stopped threads at the
same time, and after each round a look at what is left when all clients are gone. tests/soak/run.sh builds what this
needs and runs it; `tests/soak/run.sh --help` explains it."""
import argparse
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
import clients
import wire

HANG = clients.HANG
SHARE = 0.8  # of the capacity
CONNECTIONS = 64  # of the load generator
MIX = ["small=small:97", "medium=medium:2", "big=big:1"]
SCHED_IDLE = 5  # the scheduling class of the workers
QUICK = 20  # seconds
FLOOD = 200  # requests at a time before all else

# What a server without a leak may grow by doesn't depend on the length of the run: a table that doubles, a few pages of
# a stack or of the allocator. The bound is what makes 256 KB from the first measurement to the last, in bytes per 1,000
# requests: the longer the run, the smaller the leak that it finds. It is never more than half of what the smallest leak
# makes that there can be at every request: glibc's malloc gives no block of less than 32 bytes.
SMALLEST_LEAK = 32
NOISE = 256 << 10


class Broken(Exception):
    """The run can't go on."""


def count(n):
    return "{:,}".format(n)


class Progress:
    def __init__(self):
        self.start = self.last = time.monotonic()

    def seconds(self):
        return time.monotonic() - self.start

    def step(self, text):
        self.last = time.monotonic()
        print("[%3d s] %s" % (self.seconds(), text), file=sys.stderr, flush=True)

    def now_and_then(self, text):
        if time.monotonic() - self.last > 3:
            self.step(text)


# ----------------------------------------------------------------------------------------------------------------------
# what is served


def write_files(www, sources):
    """Text of the project itself, every line numbered so that no two places of a file are alike. The sizes at which the
    server changes its way are among them. Returns the groups as lists of (name, content)."""
    lines = [line for name in sources for line in open(name, "rb").read().splitlines() if line.strip()]
    parts, size = [], 0
    while size < 5 << 20:
        parts.append(b"%08x %s\n" % (len(parts), lines[len(parts) * 7919 % len(lines)]))
        size += len(parts[-1])
    text = b"".join(parts)
    sizes = {"small": [0, 1, 2] + [int(100 * 1.09 ** i) for i in range(44)],
             "medium": [8191, 8192, 8193, 65535, 65536, 65537, 131072] + [int(5000 * 1.35 ** i) for i in range(18)],
             "big": [1000000, 1 << 20, (1 << 20) + 1, 1500000, 2200000, 3000000, 4000000]}
    groups = []
    for group in sizes:
        os.makedirs(os.path.join(www, group))
        groups.append([])
        for size in sizes[group]:
            at = size * 31 % (len(text) - size)
            groups[-1].append(("%s/%d.txt" % (group, size), text[at:at + size]))
            with open(os.path.join(www, groups[-1][-1][0]), "wb") as f:
                f.write(groups[-1][-1][1])
    return groups


# ----------------------------------------------------------------------------------------------------------------------
# the server


class Server:
    """A child of tests/soak/parent.c, which stops its threads for us."""

    def __init__(self, out, parent, command):
        self.errors_path = os.path.join(out, "server.err")
        with open(self.errors_path, "wb") as errors:
            self.parent = subprocess.Popen([parent] + command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                           stderr=errors, env=environment(), text=True)
        self.end = None  # the line that says how it ended
        first = self.line() + "\n" + self.line() + "\n"  # in either order
        child = re.search(r"^child (\d+)$", first, re.M)
        port = re.search(r"^listening on 127\.0\.0\.1:(\d+)$", first, re.M)
        if not child or not port:
            self.kill()
            raise Broken("the server did not start: %s%s" % (first, self.errors()))
        self.pid, self.port = int(child.group(1)), int(port.group(1))

    def line(self):
        line = self.parent.stdout.readline().rstrip("\n")
        if line.startswith(("exited", "killed")) or not line:
            self.end = line or "without a word: its parent was killed"
        return line

    def command(self, *words):
        """Returns None, or why it was not done."""
        line = ""
        if not self.end:
            try:
                self.parent.stdin.write(" ".join(map(str, words)) + "\n")
                self.parent.stdin.flush()
            except BrokenPipeError:
                pass
            line = self.line()
        if self.end:
            raise Broken("the server has ended by itself: " + self.end)
        return None if line == "ok" else line[len("error "):]

    def check(self):
        if self.parent.poll() is not None:
            self.line()
            raise Broken("the server has ended by itself: %s" % self.end)

    def wait(self):
        """How it ended."""
        timer = threading.Timer(HANG, self.parent.kill)
        timer.start()
        while not self.end:
            self.line()
        timer.cancel()
        return self.end if timer.finished.is_set() and self.parent.wait() == 0 else "not within %.0f s" % HANG

    def kill(self):
        self.parent.kill()  # takes the child along
        self.parent.wait()
        self.parent.stdin.close()
        self.parent.stdout.close()

    def errors(self):
        with open(self.errors_path, "rb") as f:
            return f.read().decode("utf-8", "replace")

    def threads(self):
        """(loops, workers) by their ids."""
        tids = sorted(int(tid) for tid in os.listdir("/proc/%d/task" % self.pid))
        workers = [tid for tid in tids if os.sched_getscheduler(tid) == SCHED_IDLE]
        return [tid for tid in tids if tid not in workers], workers

    def state(self, tid):
        with open("/proc/%d/task/%d/stat" % (self.pid, tid)) as f:
            return f.read().rsplit(")", 1)[1].split()[0]

    def fds(self):
        return os.listdir("/proc/%d/fd" % self.pid)

    def fd_links(self):
        links = []
        for fd in self.fds():
            try:
                links.append(os.readlink("/proc/%d/fd/%s" % (self.pid, fd)))
            except OSError:
                pass  # closed meanwhile
        return links

    def sockets(self):
        return sum(link.startswith("socket:") for link in self.fd_links())

    def fd_names(self):
        """What is open, for people."""
        names = [re.sub(r"\d{2,}", "N", link) for link in self.fd_links()]
        return ", ".join("%d %s" % (names.count(name), name) for name in sorted(set(names)))

    def memory(self, path="smaps_rollup"):
        """Bytes resident: exact, by a walk over all pages."""
        with open("/proc/%d/%s" % (self.pid, path)) as f:
            return int(re.search(r"^(?:Vm)?R[Ss][Ss]:\s+(\d+) kB", f.read(), re.M | re.I).group(1)) * 1024


def environment():
    """With these settings of glibc's malloc, resident memory is memory in use: blocks are filled when they are taken,
    so that the first use of a page in a block that was kept for long is no growth; and what the server takes for a
    request and gives back goes back to the system, so that no leak can hide in the free part of the heap."""
    env = dict(os.environ, MALLOC_PERTURB_="85", MALLOC_MMAP_THRESHOLD_="16384", MALLOC_TRIM_THRESHOLD_="16384")
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=1:exitcode=99"
    env["UBSAN_OPTIONS"] = env.get("UBSAN_OPTIONS", "") + ":halt_on_error=1:print_stacktrace=1"
    return env


class Watch(threading.Thread):
    """Looks at memory and fds while there is load; keeps the highest."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.ended = server, threading.Event()
        self.reset()

    def reset(self):
        self.rss = self.fds = 0

    def run(self):
        while not self.ended.wait(0.2):
            try:
                self.rss = max(self.rss, self.server.memory("status"))
                self.fds = max(self.fds, len(self.server.fds()))
            except (OSError, AttributeError):
                return  # it has ended; others say so


# ----------------------------------------------------------------------------------------------------------------------
# the load generator


class Load:
    """One run of bench/load.c. Its bodies are all checked, by itself."""

    def __init__(self, soak, name, rate, seconds, warmup, seed):
        self.stem = os.path.join(soak.out, name)
        command = [soak.args.load, "--port", str(soak.server.port), "--root", soak.www, "--rate", "%.1f" % rate,
                   "--time", "%.2f" % seconds, "--warmup", "%.2f" % warmup, "--timeout", str(HANG), "--connections",
                   str(CONNECTIONS), "--seed", str(seed), "--pid", str(soak.server.pid), "--tsv", self.stem + ".tsv"]
        for mix in MIX:
            command += ["--mix", mix]
        self.text, self.answers = [], 0
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.readers = [threading.Thread(target=self.read, args=(f,), daemon=True)
                        for f in (self.process.stdout, self.process.stderr)]
        for reader in self.readers:
            reader.start()

    def read(self, f):
        for line in f:
            found = re.match(r"load: .*, (\d+) answers", line)
            if found:
                self.answers = int(found.group(1))
            else:
                self.text.append(line)

    def running(self):
        return self.process.poll() is None

    def result(self):
        """Its table as a dict, when it has ended."""
        self.process.wait()
        for reader in self.readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        self.text = "".join(self.text)
        if self.process.returncode not in (0, 1, 3):
            raise Broken("the load generator failed: " + self.text)
        with open(self.stem + ".tsv") as f:
            row = {name: float(value) for name, value, _ in (line.rstrip("\n").split("\t") for line in f)}
        unsent = re.search(r"^failed: (\d+) never sent$", self.text, re.M)
        row["unsent"] = int(unsent.group(1)) if unsent else 0
        row["why"] = "; ".join(re.findall(r"^(?:first wrong body|failed): .*$", self.text, re.M))
        return row


# ----------------------------------------------------------------------------------------------------------------------
# faults


class Faults:
    """What an ordinary user can do to a server of his: stop single threads, and all of it. Clocks can't be set without
    privileges, and CLOCK_MONOTONIC doesn't jump anyway; to a server that was stopped it has jumped."""

    def __init__(self, soak, seed):
        self.soak, self.server = soak, soak.server
        self.rng = random.Random(seed)
        self.counts = {"worker": 0, "workers": 0, "loop": 0, "all": 0, "long": 0}
        self.bag = []  # of the next kinds
        self.probes = 0  # small requests answered while all workers stood
        self.in_time = 0  # requests that came during a long stop and were answered
        self.stood = 0  # the workers' stands in which no small request was answered
        self.impossible = None

    def hold(self, tids, during):
        held = []
        try:
            for tid in tids:
                why = self.server.command("hold", tid)
                if why:
                    self.impossible = "single threads can't be stopped here: " + why
                    return
                held.append(tid)
            if any(self.server.state(tid) != "t" for tid in held):
                raise Broken("a thread that should stand does not")
            during()
        finally:
            for tid in held:
                self.server.command("release", tid)

    def one_worker(self):
        self.hold([self.rng.choice(self.server.threads()[1])], lambda: time.sleep(self.rng.uniform(0.05, 0.35)))
        self.counts["worker"] += 1

    def all_workers(self):
        """None compresses, reads or opens: what needs no worker goes on all the same."""
        self.hold(self.server.threads()[1], self.probe)
        self.counts["workers"] += 1

    def probe(self):
        """A small file is opened, read and compressed on the loop. The kernel may send one to the workers now and then
        (a name that it can't resolve on the spot), so another try is allowed."""
        for _ in range(int(HANG)):
            name, content = self.rng.choice(self.soak.groups[0])
            try:
                with clients.Connection(self.server.port) as connection:
                    connection.send(wire.request(name, True))
                    connection.receive(wire.Answer(name, content), limit=1)
                self.probes += 1
                return
            except (clients.Unanswered, clients.Cut):
                continue
        self.stood += 1

    def loop(self):
        self.hold([self.rng.choice(self.server.threads()[0])], lambda: time.sleep(self.rng.uniform(0.02, 0.15)))
        self.counts["loop"] += 1

    def suspend(self, seconds, waiting=()):
        why = self.server.command("suspend")
        if why:
            raise Broken("can't suspend the server: " + why)
        for connection, answer in waiting:
            connection.send(wire.request(answer.name, True))
        time.sleep(seconds)
        self.server.command("resume")

    def short(self):
        self.suspend(self.rng.uniform(0.02, 0.25))
        self.counts["all"] += 1

    def long(self):
        """Longer than the time limits of who says nothing: they all pass at once. But who has said something before
        the limit is answered, though the server sees both only after it."""
        waiting = []
        try:
            for name, content in self.soak.groups[0][:8]:
                connection = clients.Connection(self.server.port)
                waiting.append((connection, wire.Answer(name, content)))
                connection.send(wire.request(name, True))
                connection.receive(wire.Answer(name, content))
            self.suspend(1.2 * self.soak.limits["idle"], waiting)
            for connection, answer in waiting:
                connection.receive(answer)
                self.in_time += 1
        except clients.Cut as cut:
            self.soak.tally.failure("suspended server's", self.soak.tally.unanswered,
                                    "asked before the idle timeout, and cut %s" % cut)
        finally:
            for connection, _ in waiting:
                connection.socket.close()
        self.counts["long"] += 1

    def plan(self, seconds, with_long):
        """A fault every 1.2 seconds or so, at random times, of each kind as often as of the others: [(time, function)].
        More would take more than the fifth of the capacity that the load leaves."""
        kinds = []
        while len(kinds) < max(3, seconds / 1.2):
            self.bag = self.bag or self.rng.sample([self.one_worker, self.all_workers, self.loop, self.short], 4)
            kinds.append(self.bag.pop())
        times = sorted(self.rng.uniform(0.05, 0.9) * seconds for _ in kinds)
        if with_long:
            kinds[len(kinds) // 2] = self.long
        return list(zip(times, kinds))

    def total(self):
        return sum(self.counts.values())


# ----------------------------------------------------------------------------------------------------------------------
# the run


class Soak:
    def __init__(self, args):
        self.args, self.results_dir = args, args.out
        self.out = os.path.join(args.out, "run")
        self.www = os.path.join(self.out, "www")
        self.seconds = QUICK if args.quick else 60 * args.minutes
        self.interval = args.interval or min(30, max(1.6, self.seconds / 40))
        # the server's time limits: short enough to pass in the run, the one for writing longer than every suspension
        short = self.seconds < 120
        self.limits = {"idle": 1 if short else 3, "header": 1 if short else 3, "write": 3 if short else 12}
        self.progress = Progress()
        self.tally = clients.Tally()
        self.rows, self.checks, self.totals = [], [], {}
        self.left = ""  # what was open when it should not be
        self.server = self.watch = self.faults = self.load = self.crowd = None
        self.asan = b"__asan_init" in open(args.server, "rb").read()

    def check(self, name, ok, detail):
        self.checks.append(ok)
        print("%s %s: %s" % ("ok" if ok else "not ok", name, detail), flush=True)

    # ---- set-up

    def prepare(self):
        shutil.rmtree(self.out, ignore_errors=True)
        os.makedirs(self.out)
        self.progress.step("writing documents to " + self.www)
        self.groups = write_files(self.www, ["offload.h", "examples/gzip_server.c", "bench/load.c"])
        command = [self.args.server, "--port", "0", "--grace", str(int(HANG))]
        for name, seconds in self.limits.items():
            command += ["--%s-timeout" % name, str(seconds)]
        self.server = Server(self.out, self.args.parent, command + [self.www])
        self.watch = Watch(self.server)
        self.watch.start()
        self.faults = Faults(self, self.args.seed)
        sockets = self.server.sockets()
        self.flood()
        self.until(lambda: self.server.sockets() == sockets)
        self.base = len(self.server.fds())
        if len(self.server.threads()[1]) < 2:
            raise Broken("the server has not started its workers")

    def flood(self):
        """More requests at a time than there will ever be again, so that what the server keeps for use again has its
        full size from the start."""
        waiting = []
        for i in range(FLOOD):
            name, content = self.groups[1][3 + i % 4]
            waiting.append((clients.Connection(self.server.port), wire.Answer(name, content)))
        self.server.command("suspend")
        for connection, answer in waiting:
            connection.send(wire.request(answer.name, True))
        self.server.command("resume")
        for connection, answer in waiting:
            connection.receive(answer)
            connection.socket.close()

    def until(self, condition):
        """Waits until the server has come to that state; False if it doesn't."""
        end = time.monotonic() + HANG
        while not condition():
            if time.monotonic() > end:
                return False
            self.server.check()
            time.sleep(0.01)
        return True

    def gather(self, number):
        """The other clients. One that takes nothing is among them where the round outlasts the time limit for writing,
        and in the first round."""
        stuck = number == 1 or self.interval > self.limits["write"]
        self.crowd = clients.Crowd(self.server.port, self.groups, self.tally, "%d %d" % (self.args.seed, number), stuck)

    def calibrate(self):
        """Capacity is what the server answers as fast as it is asked, while the other clients are there: the median of
        three, so that a moment in which something else ran on the machine doesn't count."""
        seconds = min(4, self.seconds / 40)
        self.progress.step("finding the capacity")
        self.gather(0)
        found = []
        for seed in range(3):
            self.load = Load(self, "capacity", 0, seconds, 0.1 * seconds, self.args.seed + seed)
            row = self.carry_on("finding the capacity", [], seconds)
            self.judge_load(row)
            found.append((row["all.rate"], row["server.busy"]))
        self.crowd.leave()
        self.crowd.close()
        self.totals["capacity"], self.totals["capacity.busy"] = sorted(found)[1]
        self.rate = max(20, SHARE * self.totals["capacity"])
        self.progress.step("it answers %.0f requests/s; the load will be %.0f/s" % (
            self.totals["capacity"], self.rate))

    # ---- a round

    def judge_load(self, row):
        for name in ("bodies.checked", "bodies.wrong", "failed", "unsent", "client.stalls"):
            self.totals[name] = self.totals.get(name, 0) + row[name]
        if row["why"]:
            self.progress.step("load generator: " + row["why"])

    def carry_on(self, what, plan, seconds):
        """The faults, until the load has ended; its result."""
        began = time.monotonic()
        while self.load.running():
            self.server.check()
            if plan and time.monotonic() - began >= plan[0][0]:
                plan.pop(0)[1]()
            else:
                time.sleep(0.02)
            self.progress.now_and_then("%s: %s answers, %d faults so far" % (
                what, count(int(self.answered() + self.load.answers)), self.faults.total()))
            if time.monotonic() - began > 2 * seconds + 3 * HANG:
                raise Broken("the load generator does not end")
        return self.load.result()

    def answered(self):
        return self.totals.get("bodies.checked", 0) + sum(
            n for name, n in self.tally.counts.items() if name.endswith((".answers", ".ended")))

    def round(self):
        number = len(self.rows) + 1
        self.watch.reset()
        faults, aborted = self.faults.total(), self.tally.get("aborting.ended")
        self.gather(number)
        calm = number % 5 == 0  # so that a drift of the latency shows, which stops would hide
        plan = [] if calm else self.faults.plan(self.interval, number % (4 if self.seconds >= 120 else 3) == 0)
        self.load = Load(self, "round", self.rate, self.interval, 0, self.args.seed + number)
        row = self.carry_on("round %d" % number, plan, self.interval)
        self.crowd.leave()
        self.judge_load(row)
        if not self.until(lambda: len(self.server.fds()) == self.base):
            self.left = self.server.fd_names()
        row.update(round=number, ended=self.progress.seconds(), peak_rss=self.watch.rss, peak_fds=self.watch.fds,
                   fds=len(self.server.fds()), rss=self.server.memory(), answered=self.answered(),
                   faults=self.faults.total() - faults, aborted=self.tally.get("aborting.ended") - aborted)
        self.crowd.close()
        self.rows.append(row)
        self.table_row(row)

    COLUMNS = [("round", "%5d", "round", 1), ("ended", "%5.0f", "s", 1), ("all.requests", "%8d", "requests", 1),
               ("all.rate", "%6.0f", "per s", 1), ("small.p50", "%8.2f", "p50 ms", 1e3),
               ("small.p99", "%8.2f", "p99 ms", 1e3), ("small.p99.9", "%8.1f", "p99.9 ms", 1e3),
               ("all.p99", "%8.1f", "all p99", 1e3), ("rss", "%8.0f", "quiet kB", 1024),
               ("peak_rss", "%8.0f", "peak kB", 1024), ("fds", "%5d", "fds", 1), ("peak_fds", "%5d", "peak", 1),
               ("faults", "%6d", "faults", 1), ("aborted", "%7d", "aborted", 1), ("bodies.wrong", "%5d", "wrong", 1)]

    def table_row(self, row):
        if row["round"] == 1:
            print("small requests' latency; memory and fds in the quiet after the round, and their peaks in it")
            print(" ".join(("%%%ds" % int(re.match(r"%(\d+)", form).group(1))) % title
                           for _, form, title, _ in self.COLUMNS))
        print(" ".join(form % (row[name] / unit) for name, form, _, unit in self.COLUMNS), flush=True)

    def failing(self):
        return self.tally.get("failures") or self.totals["failed"] > self.totals["unsent"] or self.faults.stood or \
            self.rows[-1]["fds"] != self.base

    def rounds(self):
        """Until the time is up, or something was not answered: then the next round would tell no more."""
        while not self.rows or not self.failing():
            self.round()
            spent = (self.rows[-1]["ended"] - self.rows[0]["ended"]) / (len(self.rows) - 1) if self.rows[1:] else 0
            if self.progress.seconds() + 0.7 * spent > self.seconds and len(self.rows) >= 5:
                return

    # ---- the end

    def stop(self):
        """SIGTERM while answers are under way: they are finished, everyone else is let go, and the status is 0."""
        self.progress.step("stopping the server, with answers under way")
        problems, under_way, idle = [], [], []
        try:
            for name, content in self.groups[2][-4:]:  # long, and more than the sockets hold
                connection, answer = clients.Connection(self.server.port, rcvbuf=4096), wire.Answer(name, content)
                under_way.append((connection, answer))
                connection.send(wire.request(name, False))
                while answer.status is None:
                    connection.more(answer, 1)
            for name, content in self.groups[0][:3]:
                connection, answer = clients.Connection(self.server.port), wire.Answer(name, content)
                idle.append(connection)
                connection.send(wire.request(name, False))
                connection.receive(answer)
            self.server.command("signal", int(signal.SIGTERM))
            for connection in idle:
                connection.expect_end("an idle connection at the stop")
            for connection, answer in under_way:
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                connection.receive(answer)
                connection.expect_end("a connection at the stop")
        except (clients.Unanswered, clients.Cut, wire.Wrong, OSError) as error:
            problems.append("an answer under way: %s" % error)
        end = self.server.wait()
        if end != "exited 0":
            problems.append("it ended so: " + end)
        try:
            clients.Connection(self.server.port).socket.close()
            problems.append("its port is still open")
        except clients.Unanswered:
            pass
        for connection in idle + [connection for connection, _ in under_way]:
            connection.socket.close()
        return problems

    def slope(self):
        """Bytes per 1,000 requests by linear regression over the quiet moments, the first third left out as warm-up;
        and its bound."""
        rows = self.rows[max(1, len(self.rows) // 3):]
        x = [row["answered"] / 1000 for row in rows]
        y = [row["rss"] for row in rows]
        mx, my = sum(x) / len(x), sum(y) / len(y)
        spread = sum((a - mx) ** 2 for a in x)
        slope = sum((a - mx) * (b - my) for a, b in zip(x, y)) / spread if spread else 0
        return slope, min(1000 * SMALLEST_LEAK / 2, NOISE / (x[-1] - x[0]) if spread else 0), len(rows)

    def judge(self, problems, early):
        total, tally, faults = self.totals, self.tally, self.faults
        self.check("bodies of the load generator", total["bodies.wrong"] == 0 and total["bodies.checked"] > 0,
                   "%s checked, %d wrong" % (count(int(total["bodies.checked"])), total["bodies.wrong"]))
        self.check("bodies of the other clients", not tally.wrong and tally.get("bytes") > 0,
                   "; ".join(tally.wrong[:3]) or "%s bytes of documents, those of partial bodies included, none wrong" %
                   count(tally.get("bytes")))
        lost = total["failed"] - total["unsent"]
        self.check("requests of the load generator are answered", lost == 0, "%d were not" % lost)
        kinds = ("keeping", "pipelining", "reconnecting", "half-closed")
        answers = [tally.get(kind + ".answers") for kind in kinds]
        self.check("clients that behave are answered, others let go", not tally.unanswered and all(answers),
                   "; ".join(tally.unanswered[:3]) or
                   ", ".join("%s %s" % (count(n), kind) for n, kind in zip(answers, kinds)))
        if faults.impossible or not faults.probes + faults.stood:
            print("(not checked: small requests while all workers stand: %s)" % (faults.impossible or "not reached"))
        else:
            self.check("small requests are answered while all workers stand", not faults.stood,
                       "%d of %d times" % (faults.probes, faults.probes + faults.stood))
        over = [row for row in self.rows if row["fds"] != self.base]
        self.check("fds return to the base", not over and bool(self.rows),
                   "; ".join("%d instead of %d after round %d: %s" % (row["fds"], self.base, row["round"], self.left)
                             for row in over) or "%d after each of %d rounds" % (self.base, len(self.rows)))
        self.judge_memory()
        ended = self.server.end if early else None
        self.check("the server did not end by itself", not ended, ended or "0 restarts, one process from start to stop")
        if early and not ended:
            self.check("the run went to its end", False, early)
        self.check("it stops cleanly", not problems,
                   "; ".join(problems) or "answers under way finished, idle connections closed, exit status 0")
        said = self.server.errors()
        self.check("it reported nothing", not said, said[:2000] or "no warning, no error, no sanitizer's report")

    def judge_memory(self):
        if len(self.rows) < 4:
            print("(memory: too few rounds for a slope)")
            return
        slope, bound, n = self.slope()
        self.totals.update({"memory.slope": slope, "memory.bound": bound})
        text = "%.0f bytes per 1,000 requests over the last %d rounds" % (slope, n)
        if self.asan:  # its allocator keeps what is freed; its leak check at the exit does this work instead
            print("(not asserted under AddressSanitizer, which keeps freed memory: %s)" % text)
        else:
            self.check("memory does not grow", slope <= bound, "%s, bound %.0f" % (text, bound))

    def results(self):
        rows = [("seconds", self.progress.seconds(), "s"), ("rounds", len(self.rows), "count"),
                ("interval", self.interval, "s"), ("capacity", self.totals.get("capacity", 0), "1/s"),
                ("capacity.busy", self.totals.get("capacity.busy", 0), "%"),
                ("load.rate", getattr(self, "rate", 0), "1/s"), ("fds.base", getattr(self, "base", 0), "count"),
                ("server.restarts", 0, "count")]
        for name, unit in (("bodies.checked", "count"), ("bodies.wrong", "count"), ("failed", "count"),
                           ("unsent", "count"), ("client.stalls", "count"), ("memory.slope", "B/1000 requests"),
                           ("memory.bound", "B/1000 requests")):
            rows.append((name if name.startswith("memory") else "load." + name, self.totals.get(name, 0), unit))
        if self.rows:
            rows += [("memory.quiet.first", self.rows[0]["rss"], "B"), ("memory.quiet.last", self.rows[-1]["rss"], "B"),
                     ("memory.peak", max(row["peak_rss"] for row in self.rows), "B"),
                     ("fds.peak", max(row["peak_fds"] for row in self.rows), "count")]
        for kind in ("calm", "faults"):
            for name in ("small.p50", "small.p99", "small.p99.9", "all.p99"):
                values = sorted(row[name] for row in self.rows if bool(row["faults"]) == (kind == "faults"))
                if values:
                    rows += [("%s.%s.%s" % (kind, name, which), value, "us") for which, value in
                             (("lowest", values[0]), ("median", values[len(values) // 2]), ("highest", values[-1]))]
        if self.faults:
            rows += [("faults." + name, n, "count") for name, n in self.faults.counts.items()]
            rows += [("faults.probes", self.faults.probes, "count"), ("faults.in-time", self.faults.in_time, "count")]
        rows += [("clients." + name.replace(" ", "-"), n, "B" if name == "bytes" else "count")
                 for name, n in sorted(self.tally.counts.items())]
        with open(os.path.join(self.results_dir, "results.tsv"), "w") as f:
            f.writelines("%s\t%.12g\t%s\n" % row for row in rows)

    def plot(self):
        path = os.path.join(self.results_dir, "intervals.tsv")
        with open(path, "w") as f:
            f.write("# " + "\t".join(title for _, _, title, _ in self.COLUMNS) + "\n")
            f.writelines("\t".join("%.6g" % (row[name] / unit) for name, _, _, unit in self.COLUMNS) + "\n"
                         for row in self.rows)
        if not self.rows or not shutil.which("gnuplot"):
            print("(no plot: gnuplot is missing; Debian: apt-get install gnuplot-nox)" if self.rows else "(no plot)")
            return
        picture = os.path.join(self.results_dir, "soak.png")
        subprocess.run(["gnuplot", "-e", "table='%s'; out='%s'; rate='%.0f'" % (path, picture, self.rate),
                        os.path.join(os.path.dirname(__file__), "soak.gp")], check=False)

    def run(self):
        early, problems = None, []
        try:
            self.prepare()
            self.calibrate()
            self.rounds()
            problems = self.stop()
        except (Broken, clients.Unanswered, clients.Cut, wire.Wrong, OSError) as error:
            early = str(error)
            problems = ["the run did not come so far"]
        finally:
            if self.crowd:
                self.crowd.stop.set()
            if self.load and self.load.running():
                self.load.process.kill()
            if self.watch:
                self.watch.ended.set()
            if self.server:
                self.server.kill()
        for name in ("bodies.checked", "bodies.wrong", "failed", "unsent"):
            self.totals.setdefault(name, 0)
        if self.server and self.rows:
            self.judge(problems, early)
            self.plot()
        else:
            self.check("the run", False, "%s %s" % (early, self.server.errors()[:2000] if self.server else ""))
        self.results()
        shutil.rmtree(self.www, ignore_errors=True)
        failed = self.checks.count(False)
        print("figures: %s; plot: soak.png beside it" % os.path.join(self.results_dir, "results.tsv"))
        print("%d passed, %d failed" % (len(self.checks) - failed, failed))
        return failed == 0


def main():
    parser = argparse.ArgumentParser(description="tests/soak/run.sh runs this; see its --help.")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--interval", type=float)
    parser.add_argument("--seed", type=int, default=1)
    for name in ("server", "load", "parent", "out"):
        parser.add_argument("--" + name, required=True)
    sys.exit(0 if Soak(parser.parse_args()).run() else 1)


if __name__ == "__main__":
    main()
