#!/usr/bin/env python3
"""Union of the coverage of offload.h over several programs, by section: lines, branches, MC/DC.

    python3 tests/coverage/report.py [--header offload.h] [--out DIR] [--quick] EXPORT.json...

Each EXPORT.json is what `llvm-cov export` says about one program. Programs differ in their macros (OFFLOAD_ISAL, the
seam), and what the preprocessor leaves out of one is code of another: so the union is by place in the source. A line
counts when a program has code there, and is covered when any of them runs it. A branch and a condition likewise: its
two outcomes may come from different programs, the two vectors that show a condition's independence (MC/DC) may not;
that errs on the side of saying "uncovered".

Left out: the invariant checks (EXCLUDED below), conditions that are constants, and lines with nothing but a closing
brace, which can't be reached behind a return. A macro of the header counts at each place where the header uses it, and
once for all uses outside. One of the seam whose value is a condition (CONDITIONS) counts by its use, whatever a program
has defined it to.

Where a thread is given up in the middle (a fork, an abandoned fiber of the simulator) LLVM takes the branch that it was
about to decide for one that was false: it derives that count from two others. Then "covered" may be wrong.

Prints a table by section and everything that is uncovered with its source line; writes the same to DIR/report.txt,
DIR/uncovered.tsv (section, kind, line, column, what, source) and DIR/results.tsv (name, value, unit). Exit status 1 if
a goal is missed.
"""
import argparse
import json
import os
import re
import sys

GOALS = {"lines": 100.0, "branches": 100.0, "mcdc": 95.0}  # percent
QUICK_GOALS = {"lines": 99.5, "branches": 99.0, "mcdc": 95.0}  # --quick: without what only long runs or other programs reach
EXCLUDED = ("OL__CHECK",)  # broken invariants: no test can reach what must not happen
CONDITIONS = ("OL_SYS_CAS",)  # macros of the seam that are conditions


class Source:
    """The header: its lines, its sections, and the places that don't count."""

    def __init__(self, path):
        self.path = os.path.realpath(path)
        with open(path, encoding="utf-8") as f:
            self.lines = f.read().split("\n")
        self.sections = []  # (first line, name)
        for i, line in enumerate(self.lines, 1):
            m = re.match(r"(?:/\* |   )>>([a-z]+(?::[a-z]+)?)", line)
            if m and self.lines[i - 2].lstrip("/* ").startswith("-----"):
                self.sections.append((i, m.group(1)))
        self.excluded = [r for name in EXCLUDED for r in self.uses_of(name)]
        self.parameters = self.parameters_of_macros()

    def parameters_of_macros(self):
        """line -> the parameters of the macro that it is part of."""
        found, names = {}, None
        for i, line in enumerate(self.lines, 1):
            m = re.match(r"#\s*define \w+\(([^)]*)\)", line)
            if m:
                names = {p.strip() for p in m.group(1).split(",")}
            if names:
                found[i] = names
            if not line.endswith("\\"):
                names = None
        return found

    def section(self, line):
        name = "config"
        for first, s in self.sections:
            if first > line:
                break
            name = s
        return name

    def uses_of(self, macro):
        """Where a macro is defined and used: ((line, column), (line, column)) from its name to its last parenthesis."""
        found = []
        for i, line in enumerate(self.lines, 1):
            if re.match(r"#\s*define %s\b" % macro, line):
                last = i
                while self.lines[last - 1].endswith("\\"):
                    last += 1
                found.append(((i, 1), (last, len(self.lines[last - 1]) + 1)))
                continue
            for m in re.finditer(r"\b%s\(" % macro, line):
                found.append(((i, m.start() + 1), self.closing(i, m.end())))
        return found

    def closing(self, line, column):
        depth, text = 1, None
        while line <= len(self.lines):
            for k in range(column, len(self.lines[line - 1])):
                c = self.lines[line - 1][k]
                if text:
                    text = None if c == text and self.lines[line - 1][k - 1] != "\\" else text
                elif c in "\"'":
                    text = c
                else:
                    depth += (c == "(") - (c == ")")
                    if depth == 0:
                        return line, k + 2
            line, column = line + 1, 0
        raise SystemExit("report.py: unbalanced parentheses after line %d" % line)

    def begins_with(self, names, place):
        return re.match(r"(?:%s)\b" % "|".join(names), self.lines[place[0] - 1][place[1] - 1 :]) is not None

    def is_excluded(self, line, column):
        return any(a <= (line, column) < b for a, b in self.excluded)

    def text(self, place):
        l1, c1, l2, c2 = place
        if l1 == l2 and c1 == c2:  # a macro of the system
            return re.match(r"\w*(\([^()]*\))?", self.lines[l1 - 1][c1 - 1 :]).group()
        if l1 == l2:
            return self.lines[l1 - 1][c1 - 1 : c2 - 1]
        return self.lines[l1 - 1][c1 - 1 :].rstrip("\\ ") + " ..."

    def is_constant(self, place):
        return re.fullmatch(r"\(*\s*(?:0|1|\d+u?|sizeof\b[^&|<>=]*)\s*\)*", self.text(place)) is not None


class Union:
    """What all programs together have run. Keys are places in the source; a use of a macro is part of its key."""

    def __init__(self, source):
        self.source = source
        self.lines = {}  # line -> count
        self.branches = {}  # (site, place) -> [count of true, count of false]
        self.decisions = {}  # (site, place) -> (places of its conditions, [whether each is shown])
        self.real = set()  # names of functions that some program has used, or at least compiled
        self.hollow = {}  # name -> first and last line of a function that this program's compiler threw away

    def is_header(self, name):
        return os.path.realpath(name) == self.source.path

    def add(self, data):
        hollow = []
        for f in data["functions"]:
            name = f["name"].split(":")[-1].split(";")[-1]
            own = [r for r in f["regions"] if r[7] == 0 and r[5] == 0]
            if not self.is_header(f["filenames"][0]):
                self.add_function(f)
            elif len(f["regions"]) == 1 and f["count"] == 0 and not f["branches"]:
                # an unused static function has one region over all its lines, be they comments
                hollow.append((own[0][0], own[0][2], name))
            else:
                self.real.add(name)
                self.add_function(f)
        for f in data["files"]:
            if self.is_header(f["filename"]):
                self.add_lines(f["segments"], hollow)

    def add_lines(self, segments, hollow):
        """LineCoverageStats of LLVM's CoverageMapping.cpp, from the segments of one program's header."""
        spans = sorted((a, b) for a, b, _ in hollow)
        for a, b, name in hollow:
            self.hollow.setdefault(name, (a, b))
        by_line = {}
        for s in segments:
            by_line.setdefault(s[0], []).append(s)
        if not segments:
            return
        wrapped = None
        for line in range(segments[0][0], segments[-1][0] + 1):
            here = by_line.get(line, [])
            starts = [s for s in here if s[3] and s[4] and not s[5]]  # has a count, starts a region, is no gap
            skipped = bool(here) and not here[0][3] and here[0][4]
            mapped = not skipped and (bool(wrapped and wrapped[3]) or bool(starts))
            mapped = mapped or any(s[3] and s[4] for s in here)
            if mapped and not any(a <= line <= b for a, b in spans):
                counts = [s[2] for s in starts]
                if wrapped and wrapped[3]:
                    counts.append(wrapped[2])
                self.lines[line] = max([self.lines.get(line, 0)] + counts)
            if here:
                wrapped = here[-1]

    def add_function(self, f):
        parent = {r[6]: r for r in f["regions"] if r[7] == 1}  # expansions: file number -> where it is used

        def site(number):
            chain = []
            while number in parent:
                r = parent[number]
                number = r[5]
                chain.append((r[0], r[1]) if self.is_header(f["filenames"][number]) else None)
            return () if None in chain or not self.is_header(f["filenames"][number]) else tuple(chain)

        conditions = {}  # file number -> places of branches that are part of a decision
        for b in f["branches"]:
            place, where = tuple(b[:4]), site(b[6])
            if len(where) == 1 and self.source.begins_with(CONDITIONS, where[0]):
                place, where = where[0] * 2, ()
            elif not self.is_header(f["filenames"][b[6]]):
                continue
            if b[8] == 6:
                conditions.setdefault(b[6], []).append(place)
            counts = self.branches.setdefault((where, place), [0, 0])
            counts[0] += b[4]
            counts[1] += b[5]
        for d in f["mcdc_records"]:
            place, shown = tuple(d[:4]), d[6]
            for number, places in conditions.items():  # the record doesn't say which file it speaks of
                inside = sorted(p for p in places if place[:2] <= p[:2] and p[2:] <= place[2:])
                if len(inside) == len(shown):
                    self.add_decision((site(number), place), inside, shown)
                    break

    def add_decision(self, key, places, shown):
        known = self.decisions.setdefault(key, (places, [False] * len(shown)))
        for i, s in enumerate(shown):
            known[1][i] = known[1][i] or s

    def finish(self):
        """A function that no program uses counts with all lines on which something is written."""
        for name, (a, b) in self.hollow.items():
            if name not in self.real:
                for line in range(a, b + 1):
                    if self.source.lines[line - 1].strip():
                        self.lines.setdefault(line, 0)


class Report:
    def __init__(self, source):
        self.source = source
        self.total = {}  # section -> kind -> [covered, all]
        self.uncovered = []  # (section, kind, line, column, what)
        self.unmeasured = []  # (line, column) of decisions of which there is no MC/DC

    def count(self, kind, line, column, covered, what):
        section = self.source.section(line)
        cell = self.total.setdefault(section, {}).setdefault(kind, [0, 0])
        cell[1] += 1
        if covered:
            cell[0] += 1
        else:
            self.uncovered.append((section, kind, line, column, what))

    def fill(self, union):
        s = self.source
        for line, count in sorted(union.lines.items()):
            text = s.lines[line - 1].lstrip()
            directive = text.startswith("#") and not text.startswith("#define")
            if not directive and text.strip("}; ") and not s.is_excluded(line, 1 + len(s.lines[line - 1]) - len(text)):
                self.count("lines", line, 0, count > 0, "")
        for (site, place), (yes, no) in sorted(union.branches.items()):
            if self.left_out(site, place):
                continue
            text = s.text(place) + used(site)
            self.count("branches", place[0], place[1], yes > 0, "`%s` is never true" % text)
            self.count("branches", place[0], place[1], no > 0, "`%s` is never false" % text)
        for (site, place), (places, shown) in sorted(union.decisions.items()):
            for p, covered in zip(places, shown):
                if not self.left_out(site, p):
                    what = "`%s`%s alone doesn't decide `%s`" % (s.text(p), used(site), s.text(place))
                    self.count("mcdc", p[0], p[1], covered, what)

    def left_out(self, site, place):
        s = self.source
        if not site and s.text(place) in s.parameters.get(place[0], ()):
            return True  # a condition that a test has written into a macro's parameter
        return s.is_constant(place) or s.is_excluded(*place[:2]) or any(s.is_excluded(*p) for p in site)

    def sums(self):
        total = {k: [0, 0] for k in GOALS}
        for kinds in self.total.values():
            for k, (c, n) in kinds.items():
                total[k][0] += c
                total[k][1] += n
        return total

    def text(self, goals):
        row = "%-18s" + "%18s" * 3
        out = [row % ("section", "lines", "branches", "MC/DC")]
        order = [name for _, name in self.source.sections if name in self.total]
        for name in order:
            out.append(row % ((name,) + tuple(cell(self.total[name].get(k, (0, 0))) for k in GOALS)))
        out.append(row % (("all",) + tuple(cell(v) for v in self.sums().values())))
        out.append(row % (("goal",) + tuple("%.1f%%" % g for g in goals.values())))
        if self.uncovered:
            out += ["", "uncovered:"]
        for _, kind, line, column, what in sorted(self.uncovered, key=lambda u: (u[2], u[1] != "lines", u[3])):
            label = {"lines": "line", "branches": "branch", "mcdc": "condition"}[kind]
            out.append("offload.h:%d%s: %s: %s" % (line, ":%d" % column if column else "", label,
                                                   what or self.source.lines[line - 1].strip()))
        for line, column in self.unmeasured:
            out.append("offload.h:%d:%d: decision that clang can't measure (a negated or nested && or ||): %s" %
                       (line, column, self.source.lines[line - 1].strip()))
        return "\n".join(out) + "\n"


def used(site):
    return " (a macro used in line %d)" % site[-1][0] if site else ""


def cell(v):
    covered, n = v
    return "-" if not n else "%d/%d %5.1f%%" % (covered, n, percent(v))


def percent(v):
    """Rounded down, so that 100.0 means all."""
    covered, n = v
    return 100.0 if covered == n else int(1000.0 * covered / n) / 10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", nargs="+", metavar="EXPORT.json")
    parser.add_argument("--header", default="offload.h")
    parser.add_argument("--unmeasured", metavar="FILE", help="decisions that clang can't take apart: line, tab, column")
    parser.add_argument("--quick", action="store_true", help="the goals of the short run")
    parser.add_argument("--out", default="build/coverage", metavar="DIR")
    options = parser.parse_args()
    source = Source(options.header)
    union = Union(source)
    for path in options.exports:
        with open(path, encoding="utf-8") as f:
            for data in json.load(f)["data"]:
                union.add(data)
    union.finish()
    report = Report(source)
    report.fill(union)
    if options.unmeasured:
        with open(options.unmeasured, encoding="utf-8") as f:
            report.unmeasured = [tuple(int(n) for n in line.split()) for line in f]
    goals = QUICK_GOALS if options.quick else GOALS
    text, sums = report.text(goals), report.sums()
    with open(os.path.join(options.out, "report.txt"), "w", encoding="utf-8") as f:
        f.write(text)
    with open(os.path.join(options.out, "uncovered.tsv"), "w", encoding="utf-8") as f:
        for u in report.uncovered:
            f.write("\t".join(map(str, u)) + "\t" + source.lines[u[2] - 1].strip() + "\n")
    with open(os.path.join(options.out, "results.tsv"), "w", encoding="utf-8") as f:
        for k, v in sums.items():
            f.write("%s\t%.1f\t%%\n%s_counted\t%d\t\n" % (k, percent(v), k, v[1]))
        f.write("mcdc_unmeasured\t%d\tdecisions\n" % len(report.unmeasured))
    sys.stdout.write(text)
    reached = all(percent(sums[k]) >= g and sums[k][1] for k, g in goals.items())
    return 0 if reached and not report.unmeasured else 1


if __name__ == "__main__":
    sys.exit(main())
