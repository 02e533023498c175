#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs command lines on images that another program has open, and holds what they say to a
table.

    run.py [--by WHO] [--program PROGRAM] [--every N] [--record] TABLE

A row of the table is a command line, and what it ends with in each of MODES: in which way the
image img.qcow2 (or img.raw) is held. "0" and "1" are exit codes; "1 write" is one with the
message 'Failed to get "write" lock', "1 shared write" the same for 'shared "write"'. Rows that
begin with "differs" say where the program under test ends in another way than QEMU's, and
why; those that begin with "ours" are of commands that QEMU does not have. Each row and mode has a folder of its own with copies of the same files.

--by       who holds the images: "daemon", one qemu-storage-daemon a mode (the default), or
           "io": qcow2 io, one process an image
--program  "ours" (the default; $QCOW2) or "theirs" ($ORACLE, qemu-io)
--every    every Nth row alone, beginning with another one in each mode
--record   prints the table as the program makes it, and holds it to nothing"""

import argparse
import concurrent.futures
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

MODES = ("reader", "writer", "shared", "unlocked", "overlay")
OURS = os.environ.get("QCOW2", "qcow2")
THEIRS = os.environ.get("ORACLE", "/usr/bin/qemu-img")
TIMEOUT = 300
LOCK = re.compile(r'Failed to get (shared )?"(.*)" lock')
HINT = re.compile(r"Is another process using the image \[.*\]\?")

TEMPLATE = """
create -q -f qcow2 -o cluster_size=512 base.qcow2 64k
create -q -f qcow2 -o cluster_size=512 other.qcow2 64k
create -q -f qcow2 -o cluster_size=512 -b base.qcow2 -F qcow2 img.qcow2
bitmap --add img.qcow2 b0
bitmap --disable img.qcow2 b0
io -f qcow2 -c 'write -q 0 4k' img.qcow2
snapshot -c s0 img.qcow2
create -q -f qcow2 -o cluster_size=512 -b img.qcow2 -F qcow2 top.qcow2
create -q -f qcow2 -o cluster_size=512 -b img.qcow2 -F qcow2 holder.qcow2
create -q -f qcow2 -o cluster_size=512 -b base.qcow2 -F qcow2 third.qcow2
convert -q -O qcow2 -o cluster_size=512 img.qcow2 copy.qcow2
bitmap --add copy.qcow2 c0
convert -q -O raw img.qcow2 img.raw
convert -q -O raw img.qcow2 copy.raw
"""


def argv_of(line, program):
    words = shlex.split(line)
    if program == "ours":
        return [OURS, *words]
    return ["qemu-io", *words[1:]] if words[0] == "io" else [THEIRS, *words]


def run(line, program, where):
    done = subprocess.run(argv_of(line, program), cwd=where, stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=TIMEOUT, check=False)
    return done.returncode, done.stdout.decode(errors="replace"), \
        done.stderr.decode(errors="replace")


def make_template(folder):
    os.mkdir(folder)
    for line in TEMPLATE.strip().splitlines():
        code, out, err = run(line, "theirs", folder)
        if code != 0:
            sys.exit("%s: %s%s" % (line, out, err))


# --- the table ----------------------------------------------------------------------------

class Row:
    def __init__(self, line, cells):
        self.line = line
        self.cells = dict(zip(MODES, cells))
        self.held = "img.raw" if "img.raw" in line else "img.qcow2"

    def modes(self, by="daemon"):
        """In which ways the image can be held. Without locks, what the daemon changes when
        it opens the image is in the way of others; and it shares raw disks."""
        if by == "io" and self.held == "img.raw":
            return []
        return [m for m in MODES if (self.held == "img.qcow2" or m != "overlay") and
                (by == "daemon" or m != "unlocked" or self.cells[m] == "0")]


def load(path, program):
    rows, differs = [], {}
    with open(path, encoding="utf-8") as f:
        for text in f:
            parts = [p.strip() for p in text.rstrip("\n").split("|")]
            if not text.strip() or text.startswith("#"):
                continue
            if parts[0] == "differs":
                differs[parts[1], parts[2]] = parts[3]
            elif parts[0] == "ours":
                rows += [Row(parts[1], parts[2:])] if program == "ours" else []
            else:
                rows.append(Row(parts[0], parts[1:]))
    return rows, differs


# --- those who hold the images ------------------------------------------------------------

def node(name, path, mode, top):
    """Options of a node that has the image open in that way."""
    if mode == "overlay" and top:
        path, mode = os.path.join(os.path.dirname(path), "holder.qcow2"), "writer"
    kind = "raw" if path.endswith(".raw") else "qcow2"
    options = ["driver=" + kind, "file.driver=file", "file.filename=" + path,
               "read-only=" + ("on" if mode in ("reader", "shared") else "off")]
    if name:
        options.insert(1, "node-name=" + name)
    if mode == "shared":
        options.append("force-share=on")
    if mode == "unlocked":
        options.append("file.locking=off")
    return ",".join(options)


@contextlib.contextmanager
def daemon(mode, paths, folder):
    """One process has all of them open, and offers them to the network."""
    argv = ["qemu-storage-daemon", "--pidfile", "pid", "--nbd-server",
            "addr.type=unix,addr.path=socket"]
    for i, path in enumerate(paths):
        argv += ["--blockdev", node("n%d" % i, path, mode, True)]
        writable = "on" if mode in ("writer", "unlocked", "overlay") else "off"
        argv += ["--export", "type=nbd,id=e%d,node-name=n%d,name=e%d,writable=%s"
                 % (i, i, i, writable)]
    os.mkdir(folder)
    with open(os.path.join(folder, "log"), "wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log)
    try:
        while not os.path.exists(os.path.join(folder, "pid")):
            if process.poll() is not None:
                with open(os.path.join(folder, "log"), encoding="utf-8") as log:
                    sys.exit("qemu-storage-daemon: " + log.read())
            time.sleep(0.01)
        yield
    finally:
        process.kill()
        process.wait()


def open_shell(path, mode):
    process = subprocess.Popen([OURS, "io", *(["-r"] if mode in ("reader", "shared") else []),
                                "--image-opts", node(None, path, mode, True)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    process.stdin.write(b"read 0 512\n")
    process.stdin.flush()
    return process


@contextlib.contextmanager
def shells(mode, paths, _folder):
    """qcow2 io, one for each. That it has the image open is taken from what it says."""
    processes = [open_shell(p, mode) for p in paths]
    try:
        for p in processes:
            said = p.stdout.readline()
            if b"read 512/512" not in said:
                sys.exit("qcow2 io: " + said.decode(errors="replace"))
        yield
    finally:
        for p in processes:
            p.kill()
            p.communicate()


# --- running ------------------------------------------------------------------------------

def content(folder):
    found = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as f:
            found[name] = f.read()
    return found


def outcome(row, program, where):
    """The cell, and what is wrong besides."""
    before = content(where)
    code, out, err = run(row.line, program, where)
    lock = LOCK.search(err) or (row.line.startswith("io ") and LOCK.search(out))
    if not lock:
        return str(code), (out + err).strip(), None
    wrong = None
    if program == "ours" and content(where) != before:
        wrong = "was turned away, and has changed files"
    elif not HINT.search(out + err):
        wrong = "the hint is missing"
    return "%d %s%s" % (code, lock[1] or "", lock[2]), (out + err).strip(), wrong


def run_mode(mode, rows, options, template, folder):
    """What each of the rows ends with, while its image is held in that way."""
    os.mkdir(folder)
    folders = []
    for i, row in enumerate(rows):
        folders.append(os.path.join(folder, str(i)))
        shutil.copytree(template, folders[-1])
    holder = {"daemon": daemon, "io": shells}[options.by]
    paths = [os.path.join(f, row.held) for f, row in zip(folders, rows)]
    with holder(mode, paths, os.path.join(folder, "holder")):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda pair: outcome(pair[0], options.program, pair[1]),
                                 zip(rows, folders)))


def collect(rows, options, where):
    """(row, mode) -> what it ended with."""
    template = os.path.join(where, "template")
    make_template(template)
    found = {}
    for i, mode in enumerate(MODES):
        chosen = [r for n, r in enumerate(rows)
                  if mode in r.modes(options.by) and (n + i) % options.every == 0]
        results = run_mode(mode, chosen, options, template, os.path.join(where, mode))
        found.update({(r.line, mode): x for r, x in zip(chosen, results)})
    return found


def record(rows, found):
    for row in rows:
        cells = [found[row.line, m][0] if m in row.modes() else "-" for m in MODES]
        print("%-66s | %s" % (row.line, " | ".join("%-14s" % c for c in cells).rstrip()))


def judge(rows, differs, found, program):
    bad = 0
    for row in rows:
        for mode in row.modes():
            if (row.line, mode) not in found:
                continue
            want = row.cells[mode]
            if program == "ours":
                want = differs.get((row.line, mode), want)
            got, said, wrong = found[row.line, mode]
            if got != want:
                wrong = "'%s', not '%s'" % (got, want)
            if wrong:
                print("held by a %s: %s: %s\n    %s" % (mode, row.line, wrong, said))
                bad += 1
    lines = {r.line for r in rows}
    for line, mode in differs:
        if line not in lines or differs[line, mode] == dict(
                (r.line, r.cells[mode]) for r in rows)[line]:
            print("no difference: %s, held by a %s" % (line, mode))
            bad += 1
    print("%d cells, %d wrong" % (len(found), bad))
    return bad == 0 and len(found) > 0


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--by", choices=("daemon", "io"), default="daemon")
    parser.add_argument("--program", choices=("ours", "theirs"), default="ours")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("table")
    options = parser.parse_args()
    rows, differs = load(options.table, options.program)
    with tempfile.TemporaryDirectory() as where:
        found = collect(rows, options, where)
    if options.record:
        record(rows, found)
        return 0
    return 0 if judge(rows, differs, found, options.program) else 1


if __name__ == "__main__":
    sys.exit(main())
