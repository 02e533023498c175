#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Plays recorded sessions again: play.py OURS THEIRS RECORDING...

OURS and THEIRS are folders in which qemu-img and qemu-io are. Every command runs twice, in
two folders here:
  theirs  on a copy of it, by ours; then it is QEMU's turn, on the files themselves
  alone   by ours, on what ours has made before
For each folder NAME, NAME.want is what was recorded, NAME.got what was said now.

A command begins with "$ " and ends with its exit code. "# poke FILE offset N bytes B" writes
bytes. Not from the recording are
  % COMMAND      what it does not show: a copy, a cut
  ! REASON       instead of what is recorded above, this is said
  !alone REASON  the same, but in the folder alone only
"""

import os
import re
import shutil
import subprocess
import sys

# Nothing is written by these: they need no copy, and it need not be QEMU's turn.
READS = re.compile(r"qemu-img (info|map|compare|measure|check(?! -r)|snapshot -l)\b")
POKE = re.compile(r"# poke (\S+) offset (\d+) bytes (\S+)$")


class Block:
    """A command, and what is said then, in both folders."""

    def __init__(self, command):
        self.command = command
        self.said = {"recorded": []}
        self.into = self.said["recorded"]
        self.ended = False

    def add(self, line):
        if re.match(r"!(alone)? ", line):
            self.into = self.said[line.split(" ")[0]] = []
            self.ended = False
        elif not self.ended:
            self.into.append(line)
            self.ended = line.startswith("[exit ")

    def want(self, folder):
        for kind in ["!alone", "!"] if folder == "alone" else ["!"]:
            if kind in self.said:
                return self.said[kind]
        return self.said["recorded"]


def read_blocks(paths):
    blocks = []
    for path in paths:
        with open(path, encoding="utf-8") as f:
            for line in f.read().split("\n"):
                if line.startswith(("$ ", "% ")):
                    blocks.append(Block(line))
                elif blocks:
                    blocks[-1].add(line)
    return blocks


def run(command, folder, programs):
    path = programs + ":" + os.environ["PATH"]
    env = dict(os.environ, PATH=path, THEIRS=os.path.abspath("theirs"))
    # QEMU times its hashing, for which it needs a steady clock.
    if "encrypt.format=luks" in command and programs == THEIRS:
        env["LD_PRELOAD"] = os.environ["CLOCK"]
    return subprocess.run(["bash", "-c", command], cwd=folder, env=env, check=False,
                          stdin=subprocess.DEVNULL, capture_output=True)


def as_recorded(done):
    lines = done.stdout.decode().split("\n")[:-1]
    lines += ["stderr: " + line for line in done.stderr.decode().split("\n")[:-1]]
    return lines + [f"[exit {done.returncode}]"]


def poke(path, offset, text):
    data = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text).encode("latin-1")
    with open(path, "r+b") as f:
        f.seek(int(offset))
        f.write(data)


def prepare(command):
    for folder, programs in (("theirs", THEIRS), ("alone", OURS)):
        done = run(command, folder, programs)
        if done.returncode:
            sys.exit(f"{command}: {done.stderr.decode()}")


def on_theirs(command):
    if READS.match(command):
        return as_recorded(run(command, "theirs", OURS))
    shutil.rmtree("copy", ignore_errors=True)
    subprocess.run(["cp", "-a", "--sparse=always", "theirs", "copy"], check=True)
    said = as_recorded(run(command, "copy", OURS))
    run(command, "theirs", THEIRS)
    return said


def main():
    for folder in ("theirs", "alone"):
        os.makedirs(folder)
    said = {(folder, which): [] for folder in ("theirs", "alone") for which in ("want", "got")}
    for block in read_blocks(sys.argv[3:]):
        command = block.command[2:]
        poked = POKE.match(command)
        if poked:
            for folder in ("theirs", "alone"):
                poke(os.path.join(folder, poked[1]), *poked.groups()[1:])
        elif block.command.startswith("%"):
            prepare(command)
        else:
            for folder in ("theirs", "alone"):
                got = (on_theirs(command) if folder == "theirs"
                       else as_recorded(run(command, "alone", OURS)))
                said[folder, "want"] += [block.command] + block.want(folder) + [""]
                said[folder, "got"] += [block.command] + got + [""]
    for (folder, which), lines in said.items():
        with open(f"{folder}.{which}", "w", encoding="utf-8", newline="") as f:
            f.write("\n".join(lines))


OURS, THEIRS = (os.path.abspath(p) for p in sys.argv[1:3])
main()
