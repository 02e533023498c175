#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the command lines of a table of options, each in a folder of its own with copies of
the same files, and holds what they say and leave to what the table says.

    run.py PROGRAM FILES TABLE COMMAND

PROGRAM is called as qemu-img (or qemu-io). The table has a section "[COMMAND]" for each
command; its rows are, with tabs between them:

    SPELLINGS  EXIT  LINE  CHECK

LINE is what stands behind the program's name. "@" in it is replaced by each spelling of the
option in turn, "@=VALUE" by the option with that value in each way in which it can be
given: behind a space, behind a "=" (long ones), without anything between (letters). Where a
spelling is a long one, the shortest abbreviation that is unambiguous in QEMU is tried, too;
not of those with a "+" before them, which QEMU does not have. A LINE that begins with
"%FILE " is run while another program has FILE open for writing. CHECK is run by bash in the
same folder, with the aids of aids.bash; out and err are what was printed."""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SHORT = os.environ.get("Q2_TEST_SHORT") == "1"


class Row:
    """A row of the table."""

    def __init__(self, line):
        spellings, self.exit, self.line, self.check = re.split(r"\t+", line)
        self.ours = {s[1:] for s in spellings.split() if s[0] == "+"}
        self.spellings = [s.lstrip("+") for s in spellings.split()]

    def longs(self):
        return [s for s in self.spellings if s.startswith("--")]


def section(table, command):
    """The rows of one command."""
    rows, found = [], False
    with open(table, encoding="utf-8") as f:
        for line in f:
            line = line.rstrip("\n")
            if line.startswith("["):
                found = line == f"[{command}]"
            elif found and line and not line.startswith("#"):
                rows.append(Row(line))
    return rows


def abbreviation(name, names):
    """The shortest that no other of the names begins with; None: there is none."""
    for n in range(3, len(name)):
        if not any(o != name and o.startswith(name[:n]) for o in names):
            return name[:n]
    return None


def lines_of(row, names):
    """The command lines that a row stands for."""
    spellings = [(s, s in row.ours) for s in row.spellings]
    for s, ours in list(spellings):
        short = abbreviation(s, names) if s.startswith("--") and not ours else None
        if short and not SHORT:
            spellings.append((short, ours))
    value = re.search(r"@=(\S+)", row.line)
    for s, _ in spellings:
        if not value:
            yield row.line.replace("@", s)
            continue
        yield row.line.replace(value[0], f"{s} {value[1]}")
        if s.startswith("--"):
            yield row.line.replace(value[0], f"{s}={value[1]}")
        elif value[1] != "''" and not SHORT:
            yield row.line.replace(value[0], f"{s}{value[1]}")


def play(job):
    number, line, row, program, files = job
    folder = os.path.join(os.getcwd(), f"case.{number}")
    shutil.copytree(files, folder)
    run = f"{program} {line}"
    beside = re.match(r"%(\S+) (.*)", line)
    if beside:
        run = f"python3 -S {HERE}/hold.py {beside[1]} {program} {beside[2]}"
    script = (f". {HERE}/aids.bash\n"
              f"{run} >out 2>err </dev/null\ncode=$?\n"
              f'[ $code -eq {row.exit} ] || {{ echo "exit $code"; exit 1; }}\n{row.check}')
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True,
                          errors="replace", timeout=120, check=False)
    wrong = ""
    if done.returncode:
        wrong = f"$ {run}\nwanted exit {row.exit}, and: {row.check}\n{done.stdout}{done.stderr}"
        for name in ("out", "err"):
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as f:
                wrong += f"{name}: {f.read()[:600]}\n"
    shutil.rmtree(folder)
    return wrong


def missing(rows, program, command):
    """Options of the command's help that have no row."""
    words = [] if command in ("qemu-img", "qemu-io") else [command]
    said = subprocess.run([program, *words, "--help"], capture_output=True, text=True,
                          check=True).stdout
    shown = set(re.findall(r"^ +(?:-\w, )?(--[\w-]+)", said, re.M))
    return shown - {s for r in rows for s in r.spellings}


def main():
    program, files, table, command = sys.argv[1:]
    rows = section(table, command)
    names = {s for r in rows for s in r.longs() if s not in r.ours} | {"--help"}
    lines = [(line, r) for r in rows for line in lines_of(r, names)]
    jobs = [(f"{command}.{n}", line, r, program, os.path.abspath(files))
            for n, (line, r) in enumerate(lines)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        wrong = [w for w in pool.map(play, jobs) if w]
    wrong += [f"no row for {name}\n" for name in sorted(missing(rows, program, command))]
    print("\n".join(wrong), end="")
    print(f"{len(jobs)} command lines, {len(wrong)} of them wrong")
    return 1 if wrong or not jobs else 0


if __name__ == "__main__":
    sys.exit(main())
