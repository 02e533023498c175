# SPDX-License-Identifier: MIT
"""The page with what "make bench" measured: written as a whole, or, where only some cases
were run, with their rows in place of the older ones. What others have written below the
tables stays. README.md shows some rows:

    bench_page.py README.md tests/RESULTS.md     puts the page's figures there"""

import os
import platform
import re
import subprocess
import sys
import time

TITLE = "# Measured against qemu-img"
GROWTH = "## Cost as the work grows"
COUNTS = "## Instructions"


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return re.search(r"model name\s*: (.*)", file.read()).group(1)
    except (OSError, AttributeError):
        return platform.machine()


def first_line(argv):
    said = subprocess.run(argv, stdout=subprocess.PIPE, check=False).stdout
    return said.decode().split("\n", 1)[0]


def table(heads, rows):
    lines = ["| %s |" % " | ".join(heads), "|---|" + "--:|" * (len(heads) - 1)]
    return lines + ["| %s |" % " | ".join(cells) for cells in rows]


def preface(args, load):
    lines = [TITLE, "", "Written by `make bench BENCH=--record`. Ratios are ours divided by "
             "QEMU's: below 1 is better.", ""]
    return lines + ["- " + fact for fact in (
        time.strftime("%Y-%m-%d"), first_line([args.qcow2, "--version"]),
        first_line([args.qemu_img, "--version"]),
        "%d x %s, Linux %s" % (os.cpu_count(), processor(), platform.release()),
        "load average before: %.1f" % load,
        "medians of %d runs%s" % (args.runs, ", scaled down (`--quick`)"
                                  if args.quick else ""))] + [""]


def sections(text):
    """[heading or title, its lines below], in order."""
    found = []
    for line in text.splitlines():
        if line.startswith(("# ", "## ")):
            found.append((line, []))
        elif found:
            found[-1][1].append(line)
    return found


def put_rows(lines, rows, note):
    """Rows of the same name in their old places, new ones at the end of the table."""
    rows = {cells[0]: "| %s |" % " | ".join(cells) for cells in rows}
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    end = next((i for i in range(first, len(lines)) if not lines[i].startswith("|")),
               len(lines))
    old = [rows.pop(line[2:].split(" | ")[0], line) for line in lines[first:end]]
    facts = [line for line in lines[:first] if line.strip()]
    return ["", *facts[:1], "", *facts[1:], note, "", *old, *rows.values(), *lines[end:]]


def merged(old, args, load, rows):
    """The page as it was, with these rows in it."""
    note = "- %s, load %.1f, medians of %d: measured again: %s" % (
        time.strftime("%Y-%m-%d"), load, args.runs, "; ".join(cells[0] for cells in rows))
    pages = sections(old)
    heading, lines = pages[0]
    pages[0] = (heading, put_rows(lines, rows, note))
    return [line for heading, lines in pages for line in [heading, *lines]]


def whole(old, args, heads, load, rows, growth, counts):
    """A new page, with those sections of the old one that are not measured here."""
    kept = {heading: lines for heading, lines in sections(old)[1:]}
    if growth:
        kept[GROWTH] = ["", *table(("case", "1x", "2x", "4x", "8x"), growth), ""]
    if counts:
        kept[COUNTS] = ["", "Counted by callgrind, in user space. A change that makes one of "
                        "these larger says why.", "",
                        *table(("case", "instructions"), counts), ""]
    order = [h for h in (GROWTH, COUNTS) if h in kept]
    order += [h for h in kept if h not in order]
    lines = [*preface(args, load), *table(heads, rows), ""]
    return lines + [line for h in order for line in [h, *kept[h]]]


def readme_table(text, results):
    """README.md's rows of cases, with the seconds of that page."""
    measured = {}
    for line in results.splitlines():
        cells = line.strip("| ").split(" | ")
        if len(cells) > 3 and re.fullmatch(r"[0-9.]+", cells[1]):
            measured.setdefault(cells[0], cells)
    lines = []
    for line in text.splitlines():
        name = line[2:].split(" | ")[0]
        if line.startswith("| ") and name in measured:
            ours, qemu = measured[name][1:3]
            times = float(qemu) / float(ours)
            line = "| %s | %s | %s | %s |" % (name, qemu, ours, "%.1f" % times if times < 9.95
                                              else "%.0f" % times)
        lines.append(line)
    return "\n".join(lines) + "\n"


def update_readme(readme, page):
    with open(page, encoding="utf-8") as file:
        results = file.read()
    with open(readme, encoding="utf-8") as file:
        text = file.read()
    with open(readme, "w", encoding="utf-8") as file:
        file.write(readme_table(text, results))


def record(args, heads, load, rows, growth, counts):
    old = ""
    if os.path.exists(args.record):
        with open(args.record, encoding="utf-8") as file:
            old = file.read()
    if args.only and old.startswith(TITLE) and not (growth or counts):
        lines = merged(old, args, load, rows)
    else:
        lines = whole(old, args, heads, load, rows, growth, counts)
    with open(args.record, "w", encoding="utf-8") as file:
        file.write("\n".join(lines).rstrip("\n") + "\n")


if __name__ == "__main__":
    update_readme(*sys.argv[1:])
