#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Random backing chains, and one random commit, rebase or dd on each: by QEMU and by the
program under test on copies. Exit code and every disk that is left (what it reads as, what it
stands on) must be the same, and QEMU must find every image sound. Where QEMU gives up (it cannot make zeros in a
version 2 image above a backing file) what the top of the chain reads must not have changed.

usage: layers.py SEED ROUNDS QEMU-IMG PROGRAM"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys

KIB = 1024


def run(command, folder, may_fail=False):
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    if done.returncode and not may_fail:
        sys.exit("%s: %s" % (command, done.stdout.decode(errors="replace")))
    return done.returncode, done.stdout.decode(errors="replace")


def format_of(name):
    return "raw" if name.endswith("raw") else "qcow2"


class Round:
    """A chain in a folder of its own, the lowest layer first in self.layers."""

    def __init__(self, seed, qemu, ours):
        self.random = random.Random(seed)
        self.qemu, self.ours, self.layers = qemu, ours, []
        self.make("source")

    def scribble(self, name, size, count):
        pick, commands = self.random, []
        for _ in range(count):
            at = pick.randrange(size // 512) * 512
            n = min(size - at, pick.choice([512, 4096, 65536, 100 * KIB]))
            kind = pick.choice(["write -P %d" % pick.randrange(1, 255)] * 3 +
                               ["write -z", "discard"])
            commands += ["-c", "%s %d %d" % (kind, at, n)]
        run(["qemu-io", "-f", format_of(name)] + commands + [name], "source")

    def options(self):
        pick = self.random
        cluster = pick.choice([512, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 2048 * KIB])
        options = ["cluster_size=%d" % cluster]
        if pick.random() < 0.2:
            return ",".join(options + ["compat=0.10"])
        if cluster >= 16 * KIB and pick.random() < 0.3:
            options.append("extended_l2=on")
        if pick.random() < 0.2:
            options.append("lazy_refcounts=on")
        options.append("refcount_bits=%d" % pick.choice([1, 8, 16, 64]))
        return ",".join(options)

    def new_disk(self, name, options, backing=None):
        size = self.random.randrange(1, 48) * 64 * KIB
        on = ["-b", backing, "-F", format_of(backing)] if backing else []
        run([self.qemu, "create", "-q", "-f", format_of(name)] + options + on +
            [name, str(size)], "source")
        self.scribble(name, size, self.random.randrange(8))

    def make(self, folder):
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        raw = self.random.random() < 0.4
        self.new_disk("new.raw", [])
        self.new_disk("new.qcow2", ["-o", "cluster_size=64k"])
        for i in range(self.random.randint(2, 4)):
            name = "l%d.%s" % (i, "raw" if raw and i == 0 else "qcow2")
            options = [] if name.endswith("raw") else ["-o", self.options()]
            self.new_disk(name, options, self.layers[-1] if self.layers else None)
            self.layers.append(name)

    def command(self):
        pick, top = self.random, self.layers[-1]
        kind = pick.random()
        if kind < 0.25:
            return ["commit"] + pick.choice([[], ["-d"]]) + [top]
        if kind < 0.4:
            return ["commit", "-b", pick.choice(self.layers[:-1]), top]
        if kind < 0.85:
            base = pick.choice(["", "new.qcow2", "new.raw"] + self.layers[:-1])
            return ["rebase", "-b", base] + (["-F", format_of(base)] if base else []) + [top]
        form = pick.choice(["raw", "qcow2"])
        return ["dd", "-O", form, "if=" + top, "of=out." + form,
                "bs=%d" % pick.choice([512, 1000, 4096, 65536, 1 << 20]),
                "skip=%d" % pick.randrange(40), "count=%d" % pick.randrange(200)]

    def content(self, folder, name):
        run([self.qemu, "convert", "-f", format_of(name), "-O", "raw", name, "../flat"], folder)
        with open("flat", "rb") as flat:
            return hashlib.sha256(flat.read()).hexdigest()

    def disks(self, folder, command):
        # After commit -b, what lies between is of no use to anybody.
        lost = self.layers[self.layers.index(command[2]) + 1:-1] if "-b" in command and \
            command[0] == "commit" else []
        found = {}
        for name in sorted(set(os.listdir(folder)) - set(lost)):
            backing = None
            if format_of(name) == "qcow2":
                run([self.qemu, "check", "-q", name], folder)
                said = run([self.qemu, "info", "--output=json", name], folder)[1]
                backing = json.loads(said).get("backing-filename")
            found[name] = self.content(folder, name), backing
        return found

    def play(self):
        command, left = self.command(), {}
        for folder, program in (("theirs", self.qemu), ("ours", self.ours)):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree("source", folder)
            code, said = run([program] + command, folder, may_fail=True)
            left[folder] = code, self.disks(folder, command), said
        if left["theirs"][:2] == left["ours"][:2]:
            return None
        gave_up = left["theirs"][0] == 1 and left["ours"][0] == 0
        top = self.layers[-1]
        if gave_up and self.content("source", top) == self.content("ours", top):
            return None
        return "%s: %s" % (" ".join(command), left)


def main():
    seed, rounds = int(sys.argv[1]), int(sys.argv[2])
    for i in range(rounds):
        wrong = Round(seed * 1000003 + i, sys.argv[3], sys.argv[4]).play()
        if wrong:
            sys.exit("Q2_SEED=%d, round %d: %s" % (seed, i, wrong))


main()
