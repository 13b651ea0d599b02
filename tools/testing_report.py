#!/usr/bin/env python3
"""Renews the table of figures in TESTING.md from what the test targets have left in build/.

    python3 tools/testing_report.py [--check]        (make testing-report)

Each target leaves build/AREA/results.tsv: a line for each figure, NAME <tab> VALUE <tab> UNIT. The table stands between
two comments in TESTING.md and is replaced as a whole; a row whose target was not run here keeps its figure. --check
changes nothing: it prints the rows whose targets have not been run.
"""
import argparse
import os
import re
import sys

BEGIN = "<!-- figures: make testing-report -->\n"
END = "<!-- end of figures -->\n"

# What is promised; folder of the results; the figure, with {NAME} from the results; the command that prints it.
ROWS = [
    ("All tests pass", "test-logs", "{passed} passed, {failed} failed, in {suites} suites", "make test"),
    ("A random program on the simulated kernel keeps every promise", "sim",
     "{passed} seeds and checks passed, {failed} failed", "make sim"),
    ("The simulator finds a bug when there is one", "sim-bugs",
     "{bugs.planted} bugs planted, {bugs.survived} not found", "make sim-bugs"),
    ("Each failing call, one at a time, is survived", "torture", "{runs} runs, {failed} failed", "make torture"),
    ("Rings, wake-up and sleep are right under every interleaving", "model",
     "{passed} checks passed, {failed} failed", "make model"),
    ("Hostile input never crashes the policy, the codec or the example's parser", "fuzz",
     "{passed} inputs that fuzzing has found replayed, {failed} failed", "make fuzz"),
    ("Every line of offload.h is tested", "coverage", "{lines}% of {lines_counted} lines", "make coverage"),
    ("Every branch, both ways", "coverage", "{branches}% of {branches_counted} branches", "make coverage"),
    ("Every condition alone decides (MC/DC)", "coverage", "{mcdc}% of {mcdc_counted} conditions", "make coverage"),
    ("A changed condition makes a test fail", "mutation", "{killed}% of {mutants} mutants; by the simulator alone "
     "{killed_by_simulation}%", "make mutation"),
    ("No sanitizer, no compiler and no optimisation sees anything", "sanitizers", "{runs} runs, {failed} failed",
     "make sanitizers"),
    ("A server under load and faults neither grows nor errs", "soak",
     "{seconds:minutes} minutes, {load.bodies.checked} bodies checked, {load.bodies.wrong} wrong; memory grows by "
     "{memory.slope} B per 1,000 requests", "make soak T=MINUTES"),
]


def results(area):
    """name -> value, or None if the target was not run."""
    path = os.path.join("build", area, "results.tsv")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        return dict(line.rstrip("\n").split("\t")[:2] for line in f if "\t" in line)


def shown(value):
    """1234567 as 1,234,567; 3.14159 as 3.1; text as it is."""
    try:
        number = float(value)
    except ValueError:
        return value
    return "{:,.0f}".format(number) if number == int(number) and "." not in value else "{:,.1f}".format(number)


def figure(template, values):
    def one(m):
        name, _, unit = m.group(1).partition(":")
        if name not in values:
            raise SystemExit("testing-report: the results have no '%s': there are %s" % (name, ", ".join(values)))
        return shown("%.1f" % (float(values[name]) / 60)) if unit == "minutes" else shown(values[name])

    return re.sub(r"\{([^}]+)\}", one, template)


def earlier(table):
    """Promise -> figure, of the table as it stands."""
    rows = (re.match(r"\| (.*?) \| (.*?) \| `(.*?)` \|$", line) for line in table.split("\n"))
    return {m.group(1): m.group(2) for m in rows if m}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only print the rows whose targets have not been run here")
    options = parser.parse_args()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    with open("TESTING.md", encoding="utf-8") as f:
        text = f.read()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit("testing-report: TESTING.md must have these two lines once each:\n%s%s" % (BEGIN, END))
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    known = earlier(table)
    lines, absent = ["| What is promised | Figure | Command |", "|---|---|---|"], []
    for promise, area, template, command in ROWS:
        values = results(area)
        if values is None:
            absent.append("%s (%s)" % (promise, command))
        new = figure(template, values) if values is not None else known.get(promise, "not measured yet")
        lines.append("| %s | %s | `%s` |" % (promise, new, command))
    for row in absent:
        print("not run here: " + row)
    if options.check:
        return 1 if absent else 0
    with open("TESTING.md", "w", encoding="utf-8") as f:
        f.write(before + BEGIN + "\n".join(lines) + "\n" + END + after)
    print("TESTING.md: %d figures, %d of them new" % (len(ROWS), len(ROWS) - len(absent)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
