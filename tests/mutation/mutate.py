#!/usr/bin/env python3
"""Mutation testing of offload.h: each condition changed in turn; a test must fail.

    bash tests/mutation/run.sh [--section NAME]... [--sample N] [--seeds N] [--jobs N] [--list] [--survivors] [--line N]
                                 [--without NAME]

Changes: each condition of an if, a while, a for, a ?: and each operand of && and || is negated; each && becomes || and
the other way round; == becomes != and the other way round; < becomes <=, <= becomes <, and so for > and >=.

A mutant that doesn't compile, or whose object code is that of another mutant, doesn't count; nor does one whose code is
that of the original, by gcc or by clang: a change that can't be seen, as n >= max for n > max in a minimum. The others
are compiled into the simulator and run with some thousand seeds, then into the other programs until one fails: that
kills it. A test that hangs or crashes has failed.

What was found is kept in build/mutation, and the next run goes on from there, as long as offload.h and the tests are
the same. Prints, by section, how many were killed and by what, then each survivor with its line and text; the same in
build/mutation: results.tsv (name, value, unit), mutants.tsv (section, line, column, change, killed by, source).
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

GOALS = {"killed": 95.0, "killed_by_simulation": 80.0}  # percent of the mutants that count
SECTIONS = ["list", "ring", "coroutine", "partition", "gate", "roots", "lock", "fds", "guest", "op:impl",
            "backend:threads", "loop:impl"]
THREADS = {"list", "ring", "backend:threads", "loop:impl"}  # what several threads run
OUT = "build/mutation"
CPU_SECONDS = 6  # for one program; a busy loop ends so. More if the original needs more
WALL_SECONDS = 40  # for one program that sleeps for ever
MEMORY = 4 << 30

TOKEN = re.compile(
    r"""(?P<space>\s+|\\\n)|(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<word>[A-Za-z_]\w*)|(?P<number>\.?\d(?:[eEpP][+-]|[\w.])*)
    |(?P<op><<=|>>=|\.\.\.|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|.)""",
    re.S | re.X)
OPEN, CLOSE = {"(": ")", "[": "]", "{": "}"}, {")": "(", "]": "[", "}": "{"}
ASSIGN = {"=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="}
# what ends an operand of ?:, || and && on either side, outside brackets
ENDS = {",", ";", "?", ":", "return", "else", "do", "case"} | ASSIGN
ENDS_OR = ENDS | {"||"}
ENDS_AND = ENDS_OR | {"&&"}


class Token:
    __slots__ = ("text", "at", "end", "mate")

    def __init__(self, text, at):
        self.text, self.at, self.end, self.mate = text, at, at + len(text), None


def tokens_of(text):
    """The tokens of the code, without directives (a mutant of a macro would be one at each of its uses)."""
    out, stack, i, fresh = [], [], 0, True
    while i < len(text):
        if fresh and text[i] == "#":
            while True:
                end = text.find("\n", i)
                end = len(text) if end < 0 else end
                if text[end - 1] != "\\":
                    break
                i = end + 1
            i = end
            continue
        m = TOKEN.match(text, i)
        i = m.end()
        kind = m.lastgroup
        if kind == "space":
            fresh = fresh or "\n" in m.group()
            continue
        if kind == "comment":
            continue
        fresh = False
        t = Token(m.group(), m.start())
        if t.text in OPEN:
            stack.append(len(out))
        elif t.text in CLOSE:
            t.mate = stack.pop()
            out[t.mate].mate = len(out)
        out.append(t)
    return out


class Mutant:
    def __init__(self, section, at, end, new, what):
        self.section, self.at, self.end, self.new, self.what = section, at, end, new, what
        self.killer = None

    def key(self):
        return "%d:%d:%s" % (self.at, self.end, self.new)

    def apply(self, text):
        return text[: self.at] + self.new + text[self.end :]


class Header:
    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            self.text = f.read()
        self.starts = [0] + [m.end() for m in re.finditer("\n", self.text)]
        self.sections = [(m.start(), m.group(1)) for m in
                         re.finditer(r"^/\* -{20,} \*/\n/\* >>([a-z]+(?::[a-z]+)?)", self.text, re.M)]

    def section(self, at):
        name = ""
        for start, s in self.sections:
            if start > at:
                break
            name = s
        return name

    def place(self, at):
        low, high = 0, len(self.starts)
        while high - low > 1:
            mid = (low + high) // 2
            low, high = (mid, high) if self.starts[mid] <= at else (low, mid)
        return low + 1, at - self.starts[low] + 1

    def line(self, at):
        return self.text.split("\n")[self.place(at)[0] - 1].strip()

    def mutants(self, sections):
        tokens, found = tokens_of(self.text), {}

        def add(at, end, new, what):
            section = self.section(at)
            if section in sections:
                m = Mutant(section, at, end, new, what)
                found.setdefault(m.key(), m)

        def negate(first, last):  # tokens, both inclusive
            at, end = tokens[first].at, tokens[last].end
            old = self.text[at:end]
            add(at, end, "!(%s)" % old, "negated: %s" % " ".join(old.split()))

        for i, t in enumerate(tokens):
            if t.text in ("if", "while") and tokens[i + 1].text == "(":
                negate(i + 2, tokens[i + 1].mate - 1)
            elif t.text == "for" and tokens[i + 1].text == "(":
                semicolons = [k for k in top_level(tokens, i + 2, tokens[i + 1].mate) if tokens[k].text == ";"]
                if len(semicolons) == 2 and semicolons[1] > semicolons[0] + 1:
                    negate(semicolons[0] + 1, semicolons[1] - 1)
            elif t.text == "?":
                negate(left_of(tokens, i, ENDS), i - 1)
            elif t.text in ("&&", "||"):
                ends = ENDS_AND if t.text == "&&" else ENDS_OR
                negate(left_of(tokens, i, ends), i - 1)
                negate(i + 1, right_of(tokens, i, ends))
                add(t.at, t.end, "||" if t.text == "&&" else "&&", "%s becomes the other" % t.text)
            elif t.text in ("==", "!="):
                add(t.at, t.end, "!=" if t.text == "==" else "==", "%s becomes the opposite" % t.text)
            elif t.text in ("<", ">"):
                add(t.at, t.end, t.text + "=", "%s becomes %s=" % (t.text, t.text))
            elif t.text in ("<=", ">="):
                add(t.at, t.end, t.text[0], "%s becomes %s" % (t.text, t.text[0]))
        return sorted(found.values(), key=lambda m: (m.at, m.end, m.new))


def top_level(tokens, first, end):
    i = first
    while i < end:
        yield i
        i = tokens[i].mate + 1 if tokens[i].text in OPEN else i + 1


def left_of(tokens, i, ends):
    i -= 1
    while True:
        t = tokens[i]
        if t.text in ends or t.text in OPEN or t.text == "}":
            return i + 1
        i = t.mate - 1 if t.text in CLOSE else i - 1


def right_of(tokens, i, ends):
    i += 1
    while True:
        t = tokens[i]
        if t.text in ends or t.text in CLOSE:
            return i - 1
        i = t.mate + 1 if t.text in OPEN else i + 1


# ---- running ---------------------------------------------------------------------------------------------------------

CC = os.environ.get("CC", "cc").split()
COMPILERS = [CC[0], "clang", "clang-19"]  # that judge whether a mutant can be told from the original


def words_of(path):
    """A program's libraries and defines stand in the compile line at its top."""
    with open(path, encoding="utf-8") as f:
        for line in f:
            m = re.match(r"[ */]*(cc .*\.c.*)", line)
            if m:
                return [w for w in m.group(1).split() if re.match(r"-(l|D|I|pthread)", w) and w != "-I."]
    return []


class Step:
    """A program that is built with the mutated header and run; or a script of the tests, run in a copy of them."""

    def __init__(self, name, source=None, flags=("-O0",), args=(), script=None, simulation=False, again=None,
                 sections=None):
        self.name, self.source, self.flags, self.args = name, source, list(flags), list(args)
        self.script, self.simulation = script, simulation
        self.again = again  # the program of the step with this name
        self.sections = sections  # it can tell a mutant of these only; None: of all
        self.cpu, self.wall = CPU_SECONDS, WALL_SECONDS

    def build(self, work, log):
        if self.script or self.again:
            return True
        command = CC + ["-std=c11", "-g0", "-w", "-I", work, "-I."] + [self.source, "-o", self.binary(work)] + \
            self.flags + words_of(self.source)
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode == 0

    def binary(self, work):
        return os.path.join(work, self.again or self.name)

    def run(self, work, log):
        """Whether all tests passed."""
        def limits():
            resource.setrlimit(resource.RLIMIT_CPU, (self.cpu, self.cpu + 2))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if "address" not in " ".join(self.flags) and not self.script:
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            os.setsid()

        if self.script:
            command, cwd = ["bash", self.script] + self.args, os.path.join(work, "tree")
        else:
            command, cwd = [os.path.abspath(self.binary(work))] + self.args, None
        p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=limits, cwd=cwd)
        try:
            return p.wait(self.wall) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            try:
                os.killpg(p.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            p.wait()


def steps(seeds):
    asan = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    criterion = ["-O0", "-Wl,--as-needed", "-lcriterion"]
    sim = "tests/sim/sim.c"

    def some(first, n):
        return ["--first", str(first), "--seeds", str(n)]
    out = [Step("sim", sim, ["-O1"], some(1, seeds), simulation=True),
           Step("sim-more", sim, ["-O1"], some(seeds + 1, 3 * seeds), simulation=True, again="sim"),
           Step("contracts", "tests/sim/contracts.c")]
    for name in sorted(os.listdir("tests/criterion")):
        if name.endswith(".c") and name != "codec.c":  # the sections above are not the codec's
            out.append(Step("criterion-" + name[:-2], "tests/criterion/" + name, criterion))
    out += [Step("plain-threads", "tests/plain/threads.c", asan, sections=THREADS),
            Step("sim-asan", sim, asan, some(1, seeds), simulation=True),
            Step("lifetime-asan", "tests/criterion/lifetime.c", asan + ["-lcriterion"]),
            Step("model", script="tests/model/run.sh", args=["--quick"], sections=THREADS),
            Step("torture", script="tests/torture/run.sh", args=["--quick"])]
    return [s for s in out if s.script or os.path.exists(s.source)]


def source_hash(all_steps):
    """Of everything that decides about a mutant: the header, the tests, and how they are run."""
    h = hashlib.sha256(repr([(s.name, s.args, s.flags) for s in all_steps]).encode())
    names = ["offload.h"]
    for top in ["tests/sim", "tests/plain", "tests/criterion", "tests/torture", "tests/model"]:
        for folder, _, files in os.walk(top):
            names += [os.path.join(folder, f) for f in files if f.endswith((".c", ".h", ".cc", ".sh", ".pml"))]
    for name in sorted(names):
        with open(name, "rb") as f:
            h.update(name.encode() + hashlib.sha256(f.read()).digest())
    return h.hexdigest()[:16]


class Worker:
    """A folder with a header of its own, in which one mutant at a time is built and run."""

    def __init__(self, number, all_steps):
        self.work = os.path.join(OUT, "worker%d" % number)
        self.steps = all_steps
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(self.work)
        if any(s.script for s in all_steps):
            tree = os.path.join(self.work, "tree")
            os.makedirs(tree)
            for name in ("tests", "tools", "examples"):
                shutil.copytree(name, os.path.join(tree, name))
            shutil.copy("Makefile", tree)

    def write(self, text):
        for folder in (self.work, os.path.join(self.work, "tree")):
            if os.path.isdir(folder):
                with open(os.path.join(folder, "offload.h"), "w", encoding="utf-8") as f:
                    f.write(text)

    def object_code(self, log):
        """A hash of the simulator's object code, linked on the way; None if it doesn't compile."""
        s = self.steps[0]
        code = self.compiled("sim", [s.source], log)
        link = CC + [os.path.join(self.work, "sim.o"), "-o", s.binary(self.work)] + words_of(s.source)
        if not code or subprocess.run(link, stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode:
            return None
        return code

    def real_code(self, compiler, log):
        """A hash of the implementation's on the real kernel, by a compiler that may see that two conditions are one."""
        what = ["-O2", "-D_GNU_SOURCE", "-DOFFLOAD_IMPLEMENTATION", "-x", "c", "-"]
        return self.compiled("real", what, log, [compiler])

    def compiled(self, name, what, log, compiler=None):
        path = os.path.join(self.work, name + ".o")
        command = (compiler or CC) + ["-std=c11", "-O1", "-g0", "-w", "-I", self.work, "-I.", "-c", "-o", path]
        command += ["-ffile-prefix-map=%s=." % self.work] + what
        if subprocess.run(command, input=b"#include <offload.h>\n", stdout=log, stderr=log).returncode:
            return None
        with open(path, "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()

    def first_to_fail(self, section, log, originals):
        """The program that fails, "-" if none does, or "equivalent": one compiler's code is that of the original."""
        for i, s in enumerate(self.steps):
            if s.sections and section not in s.sections:
                continue
            if i == 2 and any(self.real_code(c, log) == code for c, code in originals.items()):
                return "equivalent"
            if i and not s.build(self.work, log):
                return s.name + " (it doesn't compile)"
            if not s.run(self.work, log):
                return s.name
        return "-"


class Run:
    def __init__(self, options):
        self.options = options
        self.header = Header("offload.h")
        self.steps = [s for s in steps(options.seeds) if s.name not in options.without]
        self.kept = os.path.join(OUT, source_hash(self.steps) + ".jsonl")
        self.known, self.codes, self.lock = {}, {}, threading.Lock()
        self.real = {}  # compiler -> its code of the original
        self.limits = None  # seconds for each program, once the original has passed them all
        self.started, self.done, self.todo = time.monotonic(), 0, 0

    def load(self):
        if not os.path.exists(self.kept):
            return
        with open(self.kept, encoding="utf-8") as f:
            for line in f:
                try:
                    r = json.loads(line)
                except ValueError:  # the line at which an earlier run was stopped
                    continue
                if "original" in r:
                    self.limits = r["original"]
                    self.real = r["real"]
                    self.remember(r["code"])
                    continue
                self.known[r["key"]] = r["killer"]
                self.codes.setdefault(r.get("code"), r["key"])

    def remember(self, code):
        self.codes.update({c: "original" for c in [code] + list(self.real.values())})

    def keep(self, mutant, code):
        with self.lock:
            self.known[mutant.key()] = mutant.killer
            with open(self.kept, "a", encoding="utf-8") as f:
                f.write(json.dumps({"key": mutant.key(), "killer": mutant.killer, "code": code}) + "\n")
            self.done += 1
            spent = time.monotonic() - self.started
            left = spent / self.done * (self.todo - self.done)
            line, column = self.header.place(mutant.at)
            print("%4d/%d  %d:%d %s: %s  (%.0f s left)" %
                  (self.done, self.todo, line, column, mutant.what[:60], mutant.killer, left), file=sys.stderr)

    def original(self):
        """The unchanged header must pass everything, or a kill would prove nothing. Sets the limits of time, too."""
        if self.limits:
            for s in self.steps:
                s.cpu, s.wall = self.limits[s.name]
            return
        w = Worker(0, self.steps)
        w.write(self.header.text)
        path = os.path.join(OUT, "original.log")
        with open(path, "w") as log:
            code = w.object_code(log)
            self.real = {c: w.real_code(c, log) for c in COMPILERS if shutil.which(c)}
            self.remember(code)
            for i, s in enumerate(self.steps):
                begin, cpu = time.monotonic(), os.times()
                if (i and not s.build(w.work, log)) or not s.run(w.work, log):
                    sys.exit("mutation: %s fails without any mutation: see %s" % (s.name, path))
                after = os.times()
                used = after.children_user + after.children_system - cpu.children_user - cpu.children_system
                s.cpu = max(CPU_SECONDS, int(10 * used) + 1)
                s.wall = max(WALL_SECONDS, int(10 * (time.monotonic() - begin)) + 1)
                print("  the original passes %s" % s.name, file=sys.stderr)
        with open(self.kept, "a", encoding="utf-8") as f:
            limits = {s.name: (s.cpu, s.wall) for s in self.steps}
            f.write(json.dumps({"code": code, "real": self.real, "original": limits}) + "\n")

    def judge(self, mutant, worker):
        worker.write(mutant.apply(self.header.text))
        with open(os.path.join(worker.work, "log"), "w") as log:
            code = worker.object_code(log)
            if code and self.codes.get(code) == "original":  # the simulator's seam can make a condition a constant
                code = worker.real_code(CC[0], log) or ""
            with self.lock:
                twin = self.codes.setdefault(code, mutant.key()) if code else None
            if code is None:
                mutant.killer = "invalid"
            elif twin == "original":
                mutant.killer = "equivalent"
            elif twin != mutant.key():
                mutant.killer = "duplicate"
            else:
                mutant.killer = worker.first_to_fail(mutant.section, log, self.real)
        self.keep(mutant, code)

    def choose(self):
        sections = self.options.section or SECTIONS
        unknown = set(sections) - {s for _, s in self.header.sections}
        if self.options.section and unknown:
            sys.exit("mutation: offload.h has no section %s. There are: %s" %
                     (", ".join(sorted(unknown)), " ".join(s for _, s in self.header.sections)))
        mutants = self.header.mutants(sections)
        if self.options.line:
            mutants = [m for m in mutants if self.header.place(m.at)[0] in self.options.line]
        if self.options.survivors:
            with open(os.path.join(OUT, "survivors.json"), encoding="utf-8") as f:
                before = {(s["source"], s["what"]) for s in json.load(f)}
            mutants = [m for m in mutants if (self.header.line(m.at), m.what) in before]
        if self.options.sample and self.options.sample < len(mutants):
            mutants = sorted(random.Random(1).sample(mutants, self.options.sample), key=lambda m: m.at)
        return mutants

    def go(self, mutants):
        free = [Worker(i, self.steps) for i in range(self.options.jobs)]

        def task(mutant):
            with self.lock:
                worker = free.pop()
            try:
                self.judge(mutant, worker)
            finally:
                with self.lock:
                    free.append(worker)

        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            jobs = [pool.submit(task, m) for m in mutants]
            try:
                for job in concurrent.futures.as_completed(jobs):
                    job.result()
            except KeyboardInterrupt:
                for job in jobs:
                    job.cancel()
                sys.exit("mutation: stopped; the same command goes on from here")

    def main(self):
        mutants = self.choose()
        if self.options.list:
            for m in mutants:
                print("offload.h:%d:%d: %s: %s" % (self.header.place(m.at) + (m.section, m.what)))
            print("%d mutants" % len(mutants))
            return 0
        os.makedirs(OUT, exist_ok=True)
        self.load()
        todo = [m for m in mutants if m.key() not in self.known]
        self.todo = len(todo)
        print("mutation: %d mutants, %d of them known from before" % (len(mutants), len(mutants) - len(todo)),
              file=sys.stderr)
        if todo:
            self.original()
            self.go(todo)
        for m in mutants:
            m.killer = self.known[m.key()]
        return self.report(mutants)

    def report(self, mutants):
        uncounted = ("invalid", "equivalent", "duplicate")
        counted = [m for m in mutants if m.killer not in uncounted]
        by_simulation = {s.name for s in self.steps if s.simulation}
        row = "%-18s%8s%8s%12s%12s%10s"
        print(row % ("section", "counted", "killed", "by sim", "by others", "survivors"))
        for section in [s for _, s in self.header.sections if any(m.section == s for m in counted)] + ["all"]:
            here = [m for m in counted if section in (m.section, "all")]
            dead = [m for m in here if m.killer != "-"]
            sim = [m for m in dead if m.killer in by_simulation]
            print(row % (section, len(here), percent(dead, here), percent(sim, here), len(dead) - len(sim),
                         len(here) - len(dead)))
        print("not counted: " + ", ".join("%d %s" % (sum(m.killer == u for m in mutants), u) for u in uncounted))
        killers = sorted({m.killer for m in counted if m.killer != "-"})
        print("killed by: " + ", ".join("%s %d" % (k, sum(m.killer == k for m in counted)) for k in killers))
        survivors = [m for m in counted if m.killer == "-"]
        for m in survivors:
            line, column = self.header.place(m.at)
            print("survives: offload.h:%d:%d: %s\n    %s" % (line, column, m.what, self.header.line(m.at)))
        figures = {"killed": [m for m in counted if m.killer != "-"],
                   "killed_by_simulation": [m for m in counted if m.killer in by_simulation]}
        self.write_results(mutants, counted, figures, survivors)
        failed = 0
        for name, goal in GOALS.items():
            reached = bool(counted) and 100.0 * len(figures[name]) / len(counted) >= goal
            failed += not reached
            print("%s %s: %s of %d, goal %.0f%%" %
                  ("ok" if reached else "not ok", name, percent(figures[name], counted), len(counted), goal))
        print("%d passed, %d failed" % (len(GOALS) - failed, failed))
        return 1 if failed else 0

    def write_results(self, mutants, counted, figures, survivors):
        with open(os.path.join(OUT, "mutants.tsv"), "w", encoding="utf-8") as f:
            for m in mutants:
                line, column = self.header.place(m.at)
                row = (m.section, line, column, m.what, m.killer, self.header.line(m.at))
                f.write("%s\t%d\t%d\t%s\t%s\t%s\n" % row)
        if self.options.sample or self.options.survivors or self.options.line:
            return  # a part says nothing about the whole
        with open(os.path.join(OUT, "survivors.json"), "w", encoding="utf-8") as f:
            json.dump([{"source": self.header.line(m.at), "what": m.what} for m in survivors], f)
        if self.options.section:
            return
        with open(os.path.join(OUT, "results.tsv"), "w", encoding="utf-8") as f:
            f.write("mutants\t%d\t\n" % len(counted))
            for name in GOALS:
                f.write("%s\t%s\t%%\n" % (name, percent(figures[name], counted).rstrip("%")))
            f.write("survivors\t%d\t\n" % len(survivors))


def percent(part, whole):
    return "%.1f%%" % (int(1000.0 * len(part) / len(whole)) / 10 if whole else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", action="append", help="only this section of offload.h; may come several times")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of the mutants, always the same ones")
    parser.add_argument("--line", type=int, action="append", metavar="N", help="only mutants of this line")
    parser.add_argument("--survivors", action="store_true", help="only those that survived the last whole run")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="not this program: torture, ...")
    parser.add_argument("--seeds", type=int, default=300, metavar="N", help="of the simulator for each at first, then three times as many [300]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="at a time [one a core]")
    parser.add_argument("--list", action="store_true", help="print the mutants, run nothing")
    parser.add_argument("--quick", action="store_true", help="a sample of 20")
    options = parser.parse_args()
    if options.quick:
        options.sample = 20
    return Run(options).main()


if __name__ == "__main__":
    sys.exit(main())
