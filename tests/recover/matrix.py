#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Images whose header, L1 table or refcounts are destroyed, one by one and two together:
what recover brings back, with qemu-img as the judge.

    matrix.py [--only REGEX] [--damage REGEX] [--every N] [--table] FOLDER

QCOW2 and ORACLE name the programs, CC a compiler. Every damage must come back whole, byte
for byte, but where an L1 table of many entries is lost: then it is told how much of the
data is right, and how much is wrong. --table: a line for each image. The last line is the
sum; a damage that did not come back has a line of its own."""

import argparse
import itertools
import os
import random
import re
import struct
import subprocess
import sys

QCOW2 = os.environ.get("QCOW2", "qcow2")
QEMU_IMG = os.environ.get("ORACLE", "qemu-img")
HERE = os.path.dirname(os.path.abspath(__file__))
SECRET = ["--object", "secret,id=s,data=passw0rd"]

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


class Image:
    """How one is made: options of create, size in MiB, what is written."""

    def __init__(self, name, options, size=64, **more):
        self.name, self.options, self.size = name, options, size
        self.snapshots = more.get("snapshots", 0)
        self.how = more.get("how", "")
        self.backing, self.luks = more.get("backing"), more.get("luks")
        self.left = []
        self.old = "0.10" in options
        self.slow = more.get("slow", 1)  # one of so many pairs

    def damages(self):
        fields = [f for f in FIELDS if not self.old or FIELDS[f][0] < 72]
        single = fields + REGIONS
        pairs = ["+".join(two) for two in itertools.combinations(single, 2)]
        return single + pairs[::self.slow]

    def source(self, name):
        """How programs are told to open it."""
        if self.luks:
            return [*SECRET, "--image-opts",
                    "driver=qcow2,encrypt.key-secret=s,file.filename=" + name]
        return ["-f", "qcow2", name]

    def places(self, count, numbers):
        """Offsets to write to; compressed, none twice: QEMU cannot do that."""
        unit = 2 << 20 if self.how and "2M" in self.options else 65536
        everywhere = range(0, self.size << 20, unit)
        if not self.how:
            return unit, numbers.sample(everywhere, min(count, len(everywhere)))
        if not self.left:
            self.left = numbers.sample(everywhere, len(everywhere) // 2)
        taken, self.left = self.left[:count], self.left[count:]
        return unit, taken

    def writes(self, count, seed):
        numbers = random.Random(self.name + seed)
        unit, places = self.places(count, numbers)
        argv = []
        for offset in places:
            n = unit if self.how else numbers.choice([512, 4096, 65536, 200000])
            n = min(n, (self.size << 20) - offset)
            argv += ["-c", "write %s -P %d %d %d" % (self.how, numbers.randrange(1, 250),
                                                     offset, n)]
        call("qemu-io", *argv, *self.source(self.name))

    def make(self):
        create = ["create", "-q", "-f", "qcow2", "-o", self.options]
        if self.backing:
            qemu_img("create", "-q", "-f", "raw", "base.raw", "%dM" % self.size)
            call("qemu-io", "-f", "raw", "-c", "write -P 77 0 1M", "base.raw")
            create += ["-b", "base.raw", "-F", "raw"]
        if self.luks:
            create += [*SECRET, "-o", "encrypt.format=luks,encrypt.key-secret=s,"
                                      "encrypt.iter-time=10"]
        call(QEMU_IMG, *create, self.name, "%dM" % self.size,
             env=steady_clock() if self.luks else None)
        self.writes(30, "")
        for i in range(self.snapshots):
            call(QCOW2, "snapshot", "-c", "s%d" % i, self.name)
            self.writes(8, "s%d" % i)
        for i, state in enumerate(self.states()):
            self.read(state, self.name, "state%d.raw" % i)

    def states(self):
        return [None] + ["s%d" % i for i in range(self.snapshots)]

    def read(self, state, name, raw):
        """The state as a raw file; what went wrong."""
        which = ["-l", "snapshot.name=" + state] if state else []
        done = qemu_img("convert", *which, *self.source(name), "-O", "raw", raw, ok=False)
        return done.stdout.strip() if done.returncode else ""


SNAPSHOTS = {"snapshots": 2}
IMAGES = [
    Image("v%d-%s%s" % (version, cluster, "-snapshots" if more else ""),
          "compat=%s,cluster_size=%s" % ("1.1" if version == 3 else "0.10", cluster),
          size, **more)
    for version in (3, 2) for cluster, size in (("512", 4), ("4k", 64), ("64k", 64), ("2M", 64))
    for more in ({}, SNAPSHOTS)
] + [
    Image("v3-64k-large", "compat=1.1", 4096),
    Image("v3-64k-large-snapshots", "compat=1.1", 4096, snapshots=1),
    Image("v3-2M-huge", "compat=1.1,cluster_size=2M", 600 << 10, slow=10),
    Image("refcounts-1", "compat=1.1,refcount_bits=1"),
    Image("refcounts-64", "compat=1.1,refcount_bits=64", snapshots=1),
    Image("zlib-512", "compat=1.1,cluster_size=512", 1, how="-c"),
    Image("zlib-64k", "compat=1.1", how="-c", snapshots=1),
    Image("zlib-2M", "compat=1.1,cluster_size=2M", how="-c"),
    Image("v2-zlib-64k", "compat=0.10", how="-c"),
    Image("zstd-4k", "compat=1.1,compression_type=zstd,cluster_size=4k", 16, how="-c"),
    Image("zstd-64k", "compat=1.1,compression_type=zstd", how="-c", snapshots=1),
    Image("zstd-2M", "compat=1.1,compression_type=zstd,cluster_size=2M", how="-c"),
    Image("subclusters-16k", "compat=1.1,extended_l2=on,cluster_size=16k", snapshots=1),
    Image("subclusters-64k", "compat=1.1,extended_l2=on", snapshots=1),
    Image("subclusters-2M", "compat=1.1,extended_l2=on,cluster_size=2M"),
    Image("subclusters-zstd", "compat=1.1,extended_l2=on,compression_type=zstd", how="-c"),
    Image("luks-4k", "compat=1.1,cluster_size=4k", 16, luks=True, slow=10),
    Image("luks-64k", "compat=1.1", luks=True, slow=10, snapshots=1),
    Image("v2-luks-2M", "compat=0.10,cluster_size=2M", luks=True, slow=10),
    Image("backing", "compat=1.1", backing=True, snapshots=1),
    Image("v2-backing-4k", "compat=0.10,cluster_size=4k", backing=True),
]


def call(*argv, ok=True, env=None):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False, text=True, errors="replace",
                          env={**os.environ, **(env or {})})
    if ok and done.returncode != 0:
        sys.exit("%s: exit %d: %s" % (" ".join(argv), done.returncode, done.stdout))
    return done


def qemu_img(*argv, ok=True):
    return call(QEMU_IMG, *argv, ok=ok)


def steady_clock():
    """QEMU times its own hashing when it makes LUKS keys, and a coarse clock stops it."""
    library = os.path.abspath("steady_clock.so")
    if not os.path.exists(library):
        call(os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library,
             os.path.join(HERE, "..", "tools", "steady_clock.c"))
    options = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    return {"LD_PRELOAD": library, "ASAN_OPTIONS": options}


class Anatomy:
    """Where things lie in an image."""

    def __init__(self, name):
        with open(name, "rb") as file:
            header = file.read(112)
            self.cluster = 1 << struct.unpack(">I", header[20:24])[0]
            l1_size, l1 = struct.unpack(">IQ", header[36:48])
            table, = struct.unpack(">Q", header[48:56])
            file.seek(l1)
            self.n_used = sum(any(file.read(8)) for _ in range(l1_size))
            file.seek(table)
            blocks = struct.unpack(">%dQ" % (self.cluster // 8), file.read(self.cluster))
            self.l1 = (l1, l1_size * 8)
            self.refcounts = [(at, self.cluster) for at in (table, *blocks) if at]

    def ranges(self, part):
        return {"first-sector": [(0, 512)], "first-cluster": [(0, self.cluster)],
                "four-clusters": [(0, 4 * self.cluster)], "refcounts": self.refcounts,
                "l1-zeros": [self.l1], "l1-random": [self.l1]}.get(part) or [FIELDS[part]]


def damage(name, what):
    """True: entries of an L1 table of many entries are lost."""
    anatomy = Anatomy(name)
    lost = False
    with open(name, "r+b") as file:
        for part in what.split("+"):
            junk = random.Random(name + part).randbytes
            for offset, n in anatomy.ranges(part):
                file.seek(offset)
                file.write(bytes(n) if part == "l1-zeros" else junk(n))
                start, length = anatomy.l1
                lost |= offset < start + length and start < offset + n
    return lost and anatomy.n_used > 1


def pieces(name):
    """The data of a raw file: offset and 512 bytes."""
    with open(name, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        at = 0
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) & ~511
            except OSError:
                return
            stop = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            file.seek(at)
            block = file.read(min(stop - at, 1 << 20))
            for i in range(0, len(block), 512):
                if any(block[i:i + 512]):
                    yield at + i, block[i:i + 512]
            at += len(block)


def score(raw, new):
    """Bytes of data, of them right; bytes that are wrong."""
    want, have = dict(pieces(raw)), dict(pieces(new))
    right = sum(have.get(at) == data for at, data in want.items())
    wrong = sum(want.get(at) != data for at, data in have.items())
    return len(want) * 512, right * 512, wrong * 512


class Result:
    """Sums of some damages."""

    def __init__(self):
        self.whole = self.lost = self.bad = 0
        self.data = self.right = self.wrong = 0

    def add(self, other):
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def share(self):
        if not self.data:
            return ""
        return "%.1f %% of the data right, %.2f %% wrong" % (
            100 * self.right / self.data, 100 * self.wrong / self.data)


def same(image, result):
    """Empty where all states of both are the same."""
    wrong = []
    for i, state in enumerate(image.states()):
        said = image.read(state, "new.qcow2", "new.raw")
        raw = "state%d.raw" % i
        if not said and qemu_img("compare", "-f", "raw", "-F", "raw", raw, "new.raw",
                                 ok=False).returncode == 0:
            continue
        wrong.append("%s: %s" % (state or "active", said or "differs"))
        if not state and not said:
            result.data, result.right, result.wrong = score(raw, "new.raw")
    return "; ".join(wrong)


def recover(image, result):
    """What is wrong."""
    with open("broken.qcow2", "rb") as file:
        before = file.read(1 << 20)
    if os.path.exists("new.qcow2"):
        os.unlink("new.qcow2")
    given = ["-b", "base.raw", "-F", "raw"] if image.backing else []
    done = call(QCOW2, "recover", "-q", *given, "broken.qcow2", "new.qcow2", ok=False)
    if done.returncode != 0 or done.stdout:
        return "exit %d: %s" % (done.returncode, done.stdout.strip())
    with open("broken.qcow2", "rb") as file:
        if file.read(1 << 20) != before:
            return "the broken image was changed"
    for program in (QCOW2, QEMU_IMG):
        done = call(program, "check", *image.source("new.qcow2"), ok=False)
        if done.returncode != 0:
            return "check: exit %d: %s" % (done.returncode, done.stdout.strip())
    return same(image, result)


def trial(image, what):
    result = Result()
    call("cp", "--sparse=always", image.name, "broken.qcow2")
    lost = damage("broken.qcow2", what)
    wrong = recover(image, result)
    told = result.data > 0 or not wrong
    result.whole, result.lost = int(not wrong), int(bool(wrong) and lost and told)
    result.bad = 1 - result.whole - result.lost
    if wrong:
        print("%s: %s: %s: %s" % ("LOST" if result.lost else "BAD", image.name, what,
                                  wrong if result.bad else result.share()), flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="images of such names")
    parser.add_argument("--damage", default="", metavar="REGEX", help="such damages")
    parser.add_argument("--every", type=int, default=1, metavar="N")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("folder")
    args = parser.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    os.chdir(args.folder)
    number, total, lines = 0, Result(), []
    for image in IMAGES:
        part = Result()
        whats = [w for w in image.damages() if re.search(args.damage, w)]
        if not re.search(args.only, image.name):
            continue
        whats = [w for i, w in enumerate(whats) if (number + i) % args.every == 0]
        number += len(image.damages())
        if whats:
            image.make()
        for what in whats:
            part.add(trial(image, what))
        if whats and not part.bad:
            os.unlink(image.name)
        total.add(part)
        lines.append("%-24s %4d damages, %4d whole, %3d L1 table lost %s" % (
            image.name, part.whole + part.lost + part.bad, part.whole, part.lost,
            part.share()))
    if args.table:
        print("\n".join(lines))
    print("%d whole, %d with a lost L1 table of many entries, %d bad" %
          (total.whole, total.lost, total.bad))
    return total.bad > 0


if __name__ == "__main__":
    sys.exit(main())
