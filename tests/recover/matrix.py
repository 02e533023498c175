#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Images whose header, L1 table or refcounts are destroyed, one by one and together: what
recover brings back, with qemu-img as the judge.

    matrix.py [--only REGEX] [--every N] FOLDER

QCOW2 and ORACLE name the programs. Every damage must come back whole, but where the L1
table of many entries is lost: that is told, and counted. The last line is the sum."""

import argparse
import os
import random
import re
import struct
import subprocess
import sys

QCOW2 = os.environ.get("QCOW2", "qcow2")
QEMU_IMG = os.environ.get("ORACLE", "qemu-img")

# Place and length of what is overwritten with random bytes.
FIELDS = {
    "magic": (0, 4), "version": (4, 4), "backing_file_offset": (8, 8),
    "backing_file_size": (16, 4), "cluster_bits": (20, 4), "size": (24, 8),
    "crypt_method": (32, 4), "l1_size": (36, 4), "l1_table_offset": (40, 8),
    "refcount_table_offset": (48, 8), "refcount_table_clusters": (56, 4),
    "nb_snapshots": (60, 4), "snapshots_offset": (64, 8), "incompatible_features": (72, 8),
    "compatible_features": (80, 8), "autoclear_features": (88, 8),
    "refcount_order": (96, 4), "header_length": (100, 4),
}
REGIONS = ["first-sector", "first-cluster", "four-clusters", "l1-zeros", "l1-random",
           "refcounts"]
PAIRS = ["first-sector+refcounts", "first-cluster+refcounts", "first-cluster+l1-zeros",
         "l1-random+refcounts", "magic+cluster_bits", "size+l1_table_offset"]


class Image:
    """How one is made: options of create, size in MiB, what is written."""

    def __init__(self, name, options, size=64, snapshots=0, how="", backing=False):
        self.name, self.options, self.size = name, options, size
        self.snapshots, self.how, self.backing = snapshots, how, backing

    def writes(self, count, seed):
        numbers = random.Random(self.name + seed)
        argv = []
        for _ in range(count):
            offset = numbers.randrange(self.size * 16) << 16
            n = 65536 if self.how else numbers.choice([512, 4096, 65536, 200000])
            n = min(n, (self.size << 20) - offset)
            argv += ["-c", "write %s -P %d %d %d" % (self.how, numbers.randrange(1, 250),
                                                     offset, n)]
        return argv

    def make(self):
        create = ["create", "-q", "-f", "qcow2", "-o", self.options]
        if self.backing:
            qemu_img("create", "-q", "-f", "raw", "base.raw", "%dM" % self.size)
            call("qemu-io", "-f", "raw", "-c", "write -P 77 0 1M", "base.raw")
            create += ["-b", "base.raw", "-F", "raw"]
        qemu_img(*create, self.name, "%dM" % self.size)
        call("qemu-io", "-f", "qcow2", *self.writes(30, ""), self.name)
        for i in range(self.snapshots):
            qemu_img("snapshot", "-c", "s%d" % i, self.name)
            call("qemu-io", "-f", "qcow2", *self.writes(8, "s%d" % i), self.name)


IMAGES = [
    Image("v3", "compat=1.1"),
    Image("v3-snapshots", "compat=1.1", snapshots=2),
    Image("v2", "compat=0.10"),
    Image("v2-snapshots", "compat=0.10", snapshots=2),
    Image("v3-512", "compat=1.1,cluster_size=512", 4, snapshots=1),
    Image("v2-4k", "compat=0.10,cluster_size=4k", snapshots=1),
    Image("v3-2M", "compat=1.1,cluster_size=2M", snapshots=1),
    Image("v3-large", "compat=1.1", 4096),
    Image("refcounts-1", "compat=1.1,refcount_bits=1"),
    Image("refcounts-64", "compat=1.1,refcount_bits=64", snapshots=1),
    Image("zlib", "compat=1.1", how="-c"),
    Image("zstd", "compat=1.1,compression_type=zstd", how="-c"),
    Image("subclusters", "compat=1.1,extended_l2=on", snapshots=1),
    Image("backing", "compat=1.1", backing=True),
]


def call(*argv, ok=True):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False, text=True)
    if ok and done.returncode != 0:
        sys.exit("%s: exit %d: %s" % (" ".join(argv), done.returncode, done.stdout))
    return done


def qemu_img(*argv, ok=True):
    return call(QEMU_IMG, *argv, ok=ok)


def damage(name, what):
    """What the two L1 entries or more have in common is that they are lost: True then."""
    with open(name, "r+b") as file:
        header = file.read(112)
        l1_size, l1 = struct.unpack(">IQ", header[36:48])
        table, = struct.unpack(">Q", header[48:56])
        cluster = 1 << struct.unpack(">I", header[20:24])[0]
        file.seek(table)
        block, = struct.unpack(">Q", file.read(8))
        file.seek(l1)
        used = sum(any(file.read(8)) for _ in range(l1_size))
        lost = False
        for part in what.split("+"):
            junk = random.Random(name + part).randbytes
            ranges = {"first-sector": [(0, 512)], "first-cluster": [(0, cluster)],
                      "four-clusters": [(0, 4 * cluster)],
                      "refcounts": [(table, cluster), (block, cluster)],
                      "l1-zeros": [(l1, l1_size * 8)], "l1-random": [(l1, l1_size * 8)]}
            for offset, n in ranges.get(part) or [FIELDS[part]]:
                file.seek(offset)
                file.write(bytes(n) if part == "l1-zeros" else junk(n))
                lost |= offset < l1 + l1_size * 8 and l1 < offset + n
    return lost and used > 1


def compare(image, snapshot=None):
    """Empty where both are the same."""
    names = [image.name, "new.qcow2"]
    if snapshot:
        for i, name in enumerate(list(names)):
            done = qemu_img("convert", "-l", snapshot, "-O", "raw", name, "%d.raw" % i,
                            ok=False)
            if done.returncode != 0:
                return "%s of %s: %s" % (snapshot, name, done.stdout.strip())
            names[i] = "%d.raw" % i
    done = qemu_img("compare", *names, ok=False)
    return "" if done.returncode == 0 else done.stdout.strip().replace("\n", " ")


def trial(image, what):
    """What is wrong, and whether the L1 table was lost."""
    call("cp", "--sparse=always", image.name, "broken.qcow2")
    lost = damage("broken.qcow2", what)
    with open("broken.qcow2", "rb") as file:
        before = file.read(1 << 20)
    if os.path.exists("new.qcow2"):
        os.unlink("new.qcow2")
    given = ["-b", "base.raw", "-F", "raw"] if image.backing else []
    done = call(QCOW2, "recover", "-q", *given, "broken.qcow2", "new.qcow2", ok=False)
    if done.returncode != 0 or done.stdout:
        return "exit %d: %s" % (done.returncode, done.stdout.strip()), lost
    with open("broken.qcow2", "rb") as file:
        if file.read(1 << 20) != before:
            return "the broken image was changed", lost
    for program in (QCOW2, QEMU_IMG):
        done = call(program, "check", "new.qcow2", ok=False)
        if done.returncode != 0:
            return "check: exit %d: %s" % (done.returncode, done.stdout.strip()), lost
    wrong = [compare(image)] + [compare(image, "s%d" % i) for i in range(image.snapshots)]
    return " ".join(w for w in wrong if w), lost


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="images of such names")
    parser.add_argument("--every", type=int, default=1, metavar="N")
    parser.add_argument("folder")
    args = parser.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    os.chdir(args.folder)
    whats = list(FIELDS) + REGIONS + PAIRS
    number = n_whole = n_lost = n_bad = 0
    for image in IMAGES:
        if not re.search(args.only, image.name):
            continue
        chosen = []
        for what in whats:
            number += 1
            if number % args.every == 0 and (image.options.find("0.10") < 0 or
                                             what not in FIELDS or FIELDS[what][0] < 72):
                chosen.append(what)
        if chosen:
            image.make()
        for what in chosen:
            wrong, lost = trial(image, what)
            n_whole += not wrong
            n_lost += bool(wrong and lost)
            n_bad += bool(wrong and not lost)
            if wrong:
                print("%s: %s: %s%s" % ("LOST" if lost else "BAD", image.name, what,
                                        "" if lost else ": " + wrong), flush=True)
    print("%d whole, %d with a lost L1 table of many entries, %d bad" %
          (n_whole, n_lost, n_bad))
    return n_bad > 0


if __name__ == "__main__":
    sys.exit(main())
