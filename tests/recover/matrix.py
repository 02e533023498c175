#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Images whose header, L1 table or refcounts are destroyed, one by one and two together:
what recover brings back, with qemu-img as the judge.

    matrix.py [--only REGEX] [--damage REGEX] [--every N] [--first N] [--most N] [--table]
              FOLDER

QCOW2 and ORACLE name the programs, CC a compiler. Every damage must come back whole: all
states byte for byte, the snapshots' names, and of size, backing file and bitmaps what was
not destroyed; the report must tell no less and no more than that. Only where an L1 table
of many entries is lost the active state may differ: then it is told how much of the data
is right, and how much is wrong. --table: a line for each image. The last line is the sum;
a damage that did not come back has a line of its own."""

import argparse
import itertools
import json
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
        self.bitmaps = more.get("bitmaps", 0)
        self.far = more.get("far", 0)      # MiB at the start that are never written
        self.grown = more.get("grown", 0)  # to its size, from so many MiB
        self.left = []
        self.old = "0.10" in options
        self.slow = more.get("slow", 1)  # one of so many pairs

    def damages(self):
        fields = [f for f in FIELDS if not self.old or FIELDS[f][0] < 72]
        # There its first four clusters have come to hold data.
        single = fields + [r for r in REGIONS if r != "four-clusters" or not self.grown]
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
        everywhere = range(self.far << 20, self.size << 20, unit)
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
        call(QEMU_IMG, *create, self.name, "%dM" % (self.grown or self.size),
             env=steady_clock() if self.luks else None)
        if self.grown:
            qemu_img("resize", "-q", "-f", "qcow2", self.name, "%dM" % self.size)
        self.writes(30, "")
        for i in range(self.snapshots):
            call(QCOW2, "snapshot", "-c", "s%d" % i, self.name)
            self.writes(8, "s%d" % i)
        for i in range(self.bitmaps):
            qemu_img("bitmap", "--add", self.name, "b%d" % i)
            self.writes(4, "b%d" % i)
        for i, state in enumerate(self.states()):
            self.read(state, self.name, "state%d.raw" % i)
        self.known = self.facts(self.name)

    def facts(self, name):
        """What must be told of it, by name."""
        said = json.loads(qemu_img("info", "--output=json", "-f", "qcow2", name).stdout)
        more = said.get("format-specific", {}).get("data", {})
        return {
            "size": said["virtual-size"],
            "backing": (said.get("backing-filename"), said.get("backing-filename-format")),
            "snapshots": [(s["id"], s["name"], s["date-sec"], s["vm-clock-nsec"])
                          for s in said.get("snapshots", [])],
            "bitmaps": [(b["name"], b["granularity"], b["flags"])
                        for b in more.get("bitmaps", [])],
            "encrypted": (said.get("encrypted", False), more.get("encrypt", {}).get("uuid")),
            "kind": (more.get("compat"), more.get("extended-l2"), more.get("compression-type")),
        }

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
    Image("v3-512-far", "compat=1.1,cluster_size=512", 64, far=48),
    Image("v3-512-gap", "compat=1.1,cluster_size=512", 512),
    Image("v3-4k-far", "compat=1.1,cluster_size=4k", 8 << 10, far=6 << 10, slow=10),
    Image("v3-4k-far-grown", "compat=1.1,cluster_size=4k", 8 << 10, far=6 << 10, slow=10,
          grown=100, snapshots=1),
    Image("v3-512-grown", "compat=1.1,cluster_size=512", 64, far=48, grown=1),
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
    Image("luks-512-far", "compat=1.1,cluster_size=512", 32, luks=True, slow=10, far=30),
    Image("luks-64k", "compat=1.1", luks=True, slow=10, snapshots=1),
    Image("v2-luks-2M", "compat=0.10,cluster_size=2M", luks=True, slow=10),
    Image("bitmaps", "compat=1.1", bitmaps=2, snapshots=1),
    Image("bitmaps-4k", "compat=1.1,cluster_size=4k", 16, bitmaps=2, slow=10),
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
            self.entries = struct.unpack(">%dQ" % l1_size, file.read(8 * l1_size))
            self.n_used = sum(entry != 0 for entry in self.entries)
            file.seek(table)
            blocks = struct.unpack(">%dQ" % (self.cluster // 8), file.read(self.cluster))
            self.l1 = (l1, l1_size * 8)
            self.refcounts = [(at, self.cluster) for at in (table, *blocks) if at]

    def ranges(self, part):
        return {"first-sector": [(0, 512)], "first-cluster": [(0, self.cluster)],
                "four-clusters": [(0, 4 * self.cluster)], "refcounts": self.refcounts,
                "l1-zeros": [self.l1], "l1-random": [self.l1]}.get(part) or [FIELDS[part]]


class Damage:
    """What is destroyed in which places; lost: entries of an L1 table of many."""

    def __init__(self, image, name, what):
        anatomy = Anatomy(name)
        self.what, self.hit = what, []
        with open(name, "r+b") as file:
            for part in what.split("+"):
                junk = random.Random(image.name + part).randbytes
                for offset, n in anatomy.ranges(part):
                    file.seek(offset)
                    file.write(bytes(n) if part == "l1-zeros" else junk(n))
                    self.hit.append((offset, n))
        self.l1_hit = self.hits(*anatomy.l1)
        self.lost = anatomy.n_used > 1 and any(
            self.hits(anatomy.l1[0] + 8 * i, 8) for i, e in enumerate(anatomy.entries) if e)
        # All but the header is there.
        self.tables = not self.l1_hit and not any(self.hits(*r) for r in anatomy.refcounts)
        self.entries = anatomy.entries

    def hits(self, offset, n):
        return any(at < offset + n and offset < at + length for at, length in self.hit)

    def fields(self, *names):
        return any(self.hits(*FIELDS[name]) for name in names)


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


def same(image, damage, result):
    """What of the states is not the same, and whether that must not be."""
    wrong, bad = [], False
    for i, state in enumerate(image.states()):
        said = image.read(state, "new.qcow2", "new.raw")
        raw = "state%d.raw" % i
        if not said and qemu_img("compare", "-f", "raw", "-F", "raw", raw, "new.raw",
                                 ok=False).returncode == 0:
            continue
        wrong.append("%s: %s" % (state or "active", said or "differs"))
        bad |= bool(state or said or not damage.lost)
        if not state and not said:
            result.data, result.right, result.wrong = score(raw, "new.raw")
    return "; ".join(wrong), bad


def unknown(image, damage, report):
    """What need not be as it was: it was destroyed, and nothing else says it."""
    names = set()
    if damage.fields("size") and report["size-is-a-guess"]:
        names.add("size")
    header = damage.fields("version", "header_length") or damage.hits(104, 408)
    if damage.fields("magic", "autoclear_features", "size") or header:
        names.add("bitmaps")
    if damage.fields("version"):
        names.add("kind")
    return names


def judge_facts(image, damage, report):
    """What was not destroyed must be as it was, and the report must say what is."""
    new, free = image.facts("new.qcow2"), unknown(image, damage, report)
    for name, value in image.known.items():
        if new[name] != value and name not in free:
            return "%s: %s instead of %s" % (name, new[name], value)
    if report["virtual-size"] != new["size"] or report["snapshots"] != image.snapshots:
        return "the report says otherwise"
    mask = (1 << 56) - 512
    if any(l1["begin-is-a-guess"] for l1 in report["l1-tables"]) and damage.tables:
        return "where the L1 table begins is guessed"
    for table in report["placed"]:
        index = table["index"]
        if table["placed"] == "surely" and not image.snapshots and (
                index >= len(damage.entries) or
                damage.entries[index] & mask != table["offset"]):
            return "the table at 0x%x is not that of entry %d" % (table["offset"], index)
    left = {k: v for k, v in report["left-over"].items() if v and "runs" not in k}
    if damage.tables and left and not image.bitmaps:
        return "left over: %s" % left
    return ""


def recover(image, damage, result):
    """What is wrong, and whether it must not be."""
    with open("broken.qcow2", "rb") as file:
        before = file.read(1 << 20)
    if os.path.exists("new.qcow2"):
        os.unlink("new.qcow2")
    given = []
    if image.backing and (damage.fields("backing_file_offset", "backing_file_size") or
                          damage.fields("version", "header_length") or
                          damage.hits(104, 408)):
        given = ["-b", "base.raw", "-F", "raw"]
    done = call(QCOW2, "recover", "--output=json", *given, "broken.qcow2", "new.qcow2",
                ok=False)
    if done.returncode != 0:
        return "exit %d: %s" % (done.returncode, done.stdout.strip()), True
    report = json.loads(done.stdout)
    with open("broken.qcow2", "rb") as file:
        if file.read(1 << 20) != before:
            return "the broken image was changed", True
    for program in (QCOW2, QEMU_IMG):
        done = call(program, "check", *image.source("new.qcow2"), ok=False)
        if done.returncode != 0:
            return "check: exit %d: %s" % (done.returncode, done.stdout.strip()), True
    wrong, bad = same(image, damage, result)
    told = judge_facts(image, damage, report)
    return "; ".join(filter(None, (wrong, told))), bad or bool(told)


def trial(image, what):
    result = Result()
    call("cp", "--sparse=always", image.name, "broken.qcow2")
    wrong, bad = recover(image, Damage(image, "broken.qcow2", what), result)
    result.whole, result.bad = int(not wrong), int(bad)
    result.lost = 1 - result.whole - result.bad
    if wrong:
        print("%s: %s: %s: %s" % ("LOST" if result.lost else "BAD", image.name, what,
                                  wrong if result.bad else result.share()), flush=True)
    return result


def run(image, whats):
    result = Result()
    image.make()
    for what in whats:
        result.add(trial(image, what))
    if not result.bad:
        os.unlink(image.name)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="images of such names")
    parser.add_argument("--damage", default="", metavar="REGEX", help="such damages")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of these")
    parser.add_argument("--first", type=int, default=0, metavar="N",
                        help="of these, leave the first N out")
    parser.add_argument("--most", type=int, metavar="N", help="and no more than N")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("folder")
    args = parser.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    os.chdir(args.folder)
    jobs = [(image, what) for image in IMAGES for what in image.damages()
            if re.search(args.only, image.name)]
    jobs = [job for job in jobs[::args.every] if re.search(args.damage, job[1])]
    jobs = jobs[args.first:][:args.most]
    total, lines = Result(), []
    for image, part in itertools.groupby(jobs, key=lambda job: job[0]):
        one = run(image, [what for _, what in part])
        total.add(one)
        lines.append("%-24s %4d damages, %4d whole, %3d L1 table lost %s" % (
            image.name, one.whole + one.lost + one.bad, one.whole, one.lost, one.share()))
    if args.table:
        print("\n".join(lines))
    print("%d whole, %d with a lost L1 table of many entries, %d bad" %
          (total.whole, total.lost, total.bad))
    return total.bad > 0


if __name__ == "__main__":
    sys.exit(main())
