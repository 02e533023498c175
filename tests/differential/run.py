#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs command lines with the program under test and with QEMU's, each in a folder of its
own with copies of the same files, and compares what is left: the exit code, what is
printed, and the files (images by what the guest sees, and by QEMU's check).

    run.py OURS THEIRS TABLE...

OURS and THEIRS are folders in which the programs are found as qemu-img. A table holds a
command line a row; "#" begins a comment. What QEMU says otherwise in the version at hand
stands in known.txt, with the reason."""

import concurrent.futures
import difflib
import json
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TIMEOUT = 300


def load_known():
    """Rows "WHO<TAB>REGEX<TAB>REPLACEMENT": what is replaced in the output of "ours",
    "theirs" or "both"; rows "key<TAB>NAME": what is left out of JSON; rows
    "differs<TAB>REGEX": command lines that differ."""
    rows = []
    with open(os.path.join(HERE, "known.txt"), encoding="utf-8") as f:
        for line in f:
            line = line.rstrip("\n")
            if line and not line.startswith("#"):
                rows.append(line.split("\t"))
    replace = [(r[0], re.compile(r[1], re.M), (r[2] if len(r) > 2 else "").replace("\\n", "\n"))
               for r in rows if r[0] not in ("differs", "key")]
    keys = {r[1] for r in rows if r[0] == "key"}
    differs = [re.compile(r[1]) for r in rows if r[0] == "differs"]
    return (replace, keys), differs


class Side:
    """One of the two programs."""

    def __init__(self, who, folder):
        self.who = who
        self.env = dict(os.environ, PATH=os.path.abspath(folder) + os.pathsep + os.environ["PATH"],
                        LC_ALL="C", TZ="UTC")

    def run(self, line, where):
        done = subprocess.run(["bash", "-c", line], cwd=where, env=self.env,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=TIMEOUT, check=False)
        return done.returncode, [b.decode("utf-8", "replace")
                                 for b in (done.stdout, done.stderr)]


def copy_files(line, source, where):
    """Those files that the line speaks of, and what lies behind them."""
    os.makedirs(where)
    for name in os.listdir(source):
        path = os.path.join(source, name)
        stem = re.escape(name)
        if os.path.isdir(path):
            os.makedirs(os.path.join(where, name))
        elif re.search(r"(?<![\w.])" + stem + r"(?![\w.])", line) or behind(name, line):
            subprocess.run(["cp", "--sparse=always", path, where], check=True)


# Files that others name as their backing or data file.
BEHIND = {"base.qcow2": ("over.qcow2", "over2.qcow2", "top.qcow2"),
          "over.qcow2": ("over2.qcow2", "top.qcow2"), "r.raw": ("onraw.qcow2",),
          "over2.qcow2": ("top.qcow2",), "df.data": ("df.qcow2",)}


def behind(name, line):
    return any(n in line for n in BEHIND.get(name, ()))


def without(value, keys):
    if isinstance(value, dict):
        return {k: without(v, keys) for k, v in value.items() if k not in keys}
    return [without(v, keys) for v in value] if isinstance(value, list) else value


def settle(text, who, known):
    replace, keys = known
    try:
        text = json.dumps(without(json.loads(text), keys), indent=1) + "\n"
    except ValueError:
        pass
    for side, regex, new in replace:
        if side in (who, "both"):
            text = regex.sub(new, text)
    return text


def oracle(*args):
    return subprocess.run([ORACLE, *args], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode


def same_guest(x, y):
    """Images: the guest sees the same, and check thinks the same of them. Where they cannot
    be opened without more ado, that holds for both."""
    magic = [open(path, "rb").read(4) for path in (x, y)]
    if magic != [b"QFI\xfb"] * 2:
        return subprocess.run(["cmp", "-s", x, y], check=False).returncode == 0
    if oracle("check", "-U", x) != oracle("check", "-U", y):
        return False
    sizes = {open(path, "rb").read(32)[24:] for path in (x, y)}
    if len(sizes) > 1:
        return False
    code = oracle("compare", "-U", x, y)
    return code == 0 or code > 1 and oracle("map", x) != 0 and oracle("map", y) != 0


def same_files(a, b, source):
    names = set(os.listdir(a)) ^ set(os.listdir(b))
    if names:
        return "only one of the two leaves: " + " ".join(sorted(names))
    for name in sorted(os.listdir(a)):
        x, y, was = (os.path.join(d, name) for d in (a, b, source))
        if os.path.isdir(x) or not changed(x, was) and not changed(y, was):
            continue
        if not same_guest(x, y):
            return f"{name} is not the same afterwards"
    return ""


def changed(path, was):
    return not os.path.exists(was) or subprocess.run(["cmp", "-s", path, was],
                                                     check=False).returncode != 0


def play(job):
    number, line, source, sides, (replace, differs) = job
    folders = [os.path.join(os.getcwd(), f"{number}.{s.who}", "d") for s in sides]
    results = []
    for side, folder in zip(sides, folders):
        os.makedirs(os.path.dirname(folder))
        copy_files(line, source, folder)
        code, printed = side.run(line, folder)
        text = "".join(settle(t, side.who, replace) for t in printed)
        results.append(f"{text}[exit {code}]\n")
    wrong = "".join(difflib.unified_diff(results[1].splitlines(True),
                                         results[0].splitlines(True), "QEMU", "ours"))
    if not wrong:
        wrong = same_files(folders[0], folders[1], source)
    for folder in folders:
        shutil.rmtree(os.path.dirname(folder))
    if any(r.search(line) for r in differs):
        return "" if wrong else f"$ {line}\n(is listed in known.txt, but does not differ)\n"
    return f"$ {line}\n{wrong}\n" if wrong else ""


def lines_of(table):
    with open(table, encoding="utf-8") as f:
        lines = [l.rstrip("\n") for l in f if l.strip() and not l.startswith("#")]
    return lines[::5] if os.environ.get("Q2_TEST_SHORT") == "1" else lines


def main():
    ours, theirs, source, *tables = sys.argv[1:]
    sides = (Side("ours", ours), Side("theirs", theirs))
    known = load_known()
    jobs = [(f"{os.getpid()}.{t}.{n}", line, os.path.abspath(source), sides, known)
            for t, table in enumerate(tables) for n, line in enumerate(lines_of(table))]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        wrong = [w for w in pool.map(play, jobs) if w]
    print("".join(wrong), end="")
    print(f"{len(jobs)} command lines, {len(wrong)} of them differ")
    return 1 if wrong else 0


ORACLE = os.environ.get("ORACLE", "/usr/bin/qemu-img")

if __name__ == "__main__":
    sys.exit(main())
