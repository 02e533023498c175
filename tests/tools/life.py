#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The life of images: random sequences of guest writes, snapshots made, applied and
deleted, resizes and amendments, done by the program under test and by QEMU in turns, with
a model of what is in the active state and in each snapshot.

  life.py [--seed N] [--runs N] [--steps N] [--only INDEX] FOLDER

After each step QEMU and the program find the image sound, its size, version, refcount
width and snapshots are what they should be, and the active state and a snapshot read as
they should, by either program. What has to be refused is, and leaves the file as it was.

QCOW2 in the environment is the program under test, ORACLE is qemu-img."""

import argparse
import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys

from imgtool import FIELDS, Image

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../crash"))
# pylint: disable=wrong-import-position
from turns import QEMU_IMG, Bad, Player, named, run

QCOW2 = os.environ.get("QCOW2", "qcow2")
IO = {QCOW2: "qcow2 io", QEMU_IMG: "qemu-io"}
PASSPHRASE = "passw0rd"
NAMES = ("one", "two", "three", "2", "a name with spaces")

# Version, cluster size, refcount width, further options of create, bytes of the disk, has a
# backing file. Small clusters have many tables for few bytes.
IMAGES = (
    (3, 512, 16, "", 150 << 10, False),
    (2, 512, 16, "", 120 << 10, True),
    (3, 4096, 1, "", 600 << 10, True),
    (3, 65536, 16, "lazy_refcounts=on", 3 << 20, True),
    (3, 4096, 16, "encrypt.format=luks,encrypt.iter-time=10", 500 << 10, True),
    (2, 4096, 16, "", 600 << 10, False),
    (3, 1024, 64, "compression_type=zstd", 250 << 10, True),
    (3, 16384, 16, "extended_l2=on", 1500 << 10, True),
    (3, 512, 4, "lazy_refcounts=on", 100 << 10, False),
    (2, 65536, 16, "", 2 << 20, True),
    (3, 2048, 16, "encrypt.format=aes", 300 << 10, False),
    (3, 4096, 8, "data_file={}.data,data_file_raw=on", 500 << 10, False),
    (3, 65536, 16, "data_file={}.data", 2 << 20, True),
    (3, 4096, 8, "preallocation=metadata", 500 << 10, False),
    (3, 2048, 2, "", 400 << 10, False),
    (2, 1024, 16, "preallocation=metadata", 200 << 10, False),
    (3, 512, 32, "compression_type=zstd", 130 << 10, True),
)


class Refused(Exception):
    """It was, as it had to be."""


class Life(Player):
    """One image, its model, and what is done with it."""

    def __init__(self, image, rng, backing, passphrase):
        super().__init__(image, rng, passphrase)
        self.backing = backing  # its content, or None
        self.snapshots = []     # (id, name, content), in their order
        self.count = 0
        self.refusals = 0
        self.done = set()       # (kind of step, program) that came to an end
        fields = Image(image)
        self.bits = 1 << fields.get("refcount_order") if self.version == 3 else 16
        features = fields.get("incompatible_features") if self.version == 3 else 0
        self.zstd, self.extended = features & 8 != 0, features & 16 != 0
        self.data_file = features & 4 != 0
        self.raw_data = self.data_file and fields.get("autoclear_features") & 2 != 0
        self.packs = self.packs and not self.data_file
        self.lazy = self.version == 3 and fields.get("compatible_features") & 1 != 0

    # --- how a command ends ---------------------------------------------------------------

    def hash(self):
        with open(self.image, "rb") as file:
            return hashlib.sha256(file.read()).digest()

    def do(self, program, *args, refused=False):
        """refused: True, False, or None where only the program can tell; it is quiet."""
        if self.passphrase is not None and "-f" in args:
            at = args.index("-f")
            args = args[:at] + args[at + 2:]
        argv = [program, args[0], *self.named[:-1], *args[1:], self.named[-1]]
        if args[0] == "resize":  # the size comes last
            argv[-2:] = argv[:-3:-1]
        self.log.append(" ".join(argv))
        before = self.hash() if refused is not False else None
        said = run(argv, (0,) if refused is False else (1,) if refused else (0, 1))
        if refused is False and said and args[0] != "resize":
            raise Bad("%s says: %s" % (" ".join(argv), said))
        if refused or (refused is None and said):
            if self.hash() != before:
                raise Bad("refused, and the file has changed: %s" % " ".join(argv))
            self.refusals += 1
            raise Refused

    # --- what the refcounts leave room for ------------------------------------------------

    def highest_refcount(self):
        fields = Image(self.image)
        size = os.path.getsize(self.image)
        highest = 0
        per_block = self.cluster * 8 // self.bits
        for cluster in range(-(-size // self.cluster)):
            byte, bit, width = fields.refcount(cluster)
            if byte < fields.get("refcount_table_offset") and \
                    fields.read(fields.refcount_block(cluster // per_block), ">Q") == 0:
                continue
            raw = fields.read(byte, ">B") if width < 8 else \
                fields.read(byte, {8: ">B", 16: ">H", 32: ">I", 64: ">Q"}[width])
            highest = max(highest, raw >> bit & ((1 << width) - 1))
        return highest

    def is_narrow(self):
        """Could another state of the guest's disk be one reference too many?"""
        return 2 * self.highest_refcount() > (1 << self.bits) - 1

    # --- steps ----------------------------------------------------------------------------

    def step_io(self, program):
        self.can_discard = self.version > 2 or self.backing is None
        self.play_io(IO[program])

    def step_create(self, program):
        if len(self.snapshots) >= 5:
            return self.step_delete(program)
        if self.data_file:
            self.do(QCOW2, "snapshot", "-c", "one", refused=True)
        narrow = self.is_narrow()
        if narrow:
            program = QCOW2  # QEMU notices on the way
        name = self.rng.choice(NAMES)
        self.do(program, "snapshot", "-c", name, refused=None if narrow else False)
        number = max([int(s[0]) for s in self.snapshots], default=0) + 1
        self.snapshots.append((str(number), name, bytes(self.model)))
        return None

    def found(self, spec, by_id):
        return next((i for i, s in enumerate(self.snapshots) if s[0 if by_id else 1] == spec),
                    None)

    def step_apply(self, program):
        if not self.snapshots:
            return self.step_create(program)
        spec = self.rng.choice(self.rng.choice(self.snapshots)[:2])
        at = self.found(spec, True)
        at = self.found(spec, False) if at is None else at
        narrow = self.is_narrow()
        if narrow:
            program = QCOW2
        self.do(program, "snapshot", "-a", spec, refused=None if narrow else False)
        self.model = bytearray(self.snapshots[at][2])
        return None

    def step_delete(self, program):
        if not self.snapshots:
            return self.step_create(program)
        snapshot = self.rng.choice(self.snapshots)
        if self.found(snapshot[0], False) is None:
            self.expect_refused("snapshot", "-d", snapshot[0])
        self.do(program, "snapshot", "-d", snapshot[1])
        del self.snapshots[self.found(snapshot[1], False)]
        return None

    def expect_refused(self, *args):
        try:
            self.do(QCOW2, *args, refused=True)
        except Refused:
            pass

    def a_size(self):
        start = len(self.model)
        size = int(start * self.rng.choice((0.4, 0.8, 1.1, 1.7)))
        if self.rng.random() < 0.3:
            size = size // self.cluster * self.cluster
        most = max(1 << 20, 60 * self.cluster)
        return max(10 * self.cluster, min(size, most)) // 512 * 512

    def set_size(self, size):
        del self.model[size:]
        self.model += bytes(size - len(self.model))

    def step_resize(self, program):
        size, now = self.a_size(), len(self.model)
        refused = bool(self.version == 2 and self.snapshots)
        # QEMU cannot hide what is behind the old end, in its cluster and in a backing file.
        if refused or (size > now and (now % self.cluster or
                                       (self.version == 2 and self.backing is not None))):
            program = QCOW2
        options = ["--shrink"]
        if size > now and self.rng.random() < 0.4:
            # What QEMU preallocates reads as what was there before.
            program = QCOW2
            options = ["--preallocation=" + self.rng.choice(("metadata", "falloc", "full"))]
        self.do(program, "resize", "-f", "qcow2", *options, str(size), refused=refused)
        self.set_size(size)

    def some_changes(self):
        """Options of amend: what is asked for, in a random order."""
        asked = {}
        if self.rng.random() < 0.5:
            asked["compat"] = self.rng.choice(("0.10", "1.1"))
        if self.rng.random() < 0.5:
            asked["refcount_bits"] = self.rng.choice((1, 2, 4, 8, 16, 16, 16, 32, 64))
        if self.rng.random() < 0.3:
            asked["lazy_refcounts"] = self.rng.choice(("on", "off"))
        if not asked or self.rng.random() < 0.2:
            asked["size"] = self.rng.choice((self.a_size(), len(self.model)))
        keys = list(asked)
        self.rng.shuffle(keys)
        return {key: asked[key] for key in keys}

    def is_refusable(self, asked, version, bits):
        """True, False, or None: only the program can tell."""
        size = asked.get("size", len(self.model))
        other_sizes = any(len(s[2]) != size for s in self.snapshots)
        if version == 2 and (bits != 16 or
                             (asked.get("lazy_refcounts") == "on" and not self.lazy)):
            return True
        if "size" in asked and self.version == version == 2 and self.snapshots:
            return True
        if version < self.version and (other_sizes or self.extended or self.data_file):
            return True
        if bits < self.bits and self.highest_refcount() > (1 << bits) - 1:
            return True
        hidden = self.passphrase is not None and self.backing is not None
        return None if version < self.version and (self.zstd or hidden) else False

    def step_amend(self, program):
        asked = self.some_changes()
        version = {"0.10": 2, "1.1": 3}.get(asked.get("compat"), self.version)
        bits = asked.get("refcount_bits", self.bits)
        refused = self.is_refusable(asked, version, bits)
        # QEMU notices on the way, does not upgrade before it resizes, cannot hide what is
        # behind the end, and where zero clusters that it downgrades have a place that a
        # snapshot shares, it says that they are the active state's alone. What it writes
        # for them in an encrypted image is not encrypted.
        if refused is not False or "size" in asked or \
                (version < self.version and (self.snapshots or self.passphrase is not None)):
            program = QCOW2
        text = ",".join("%s=%s" % item for item in asked.items())
        self.do(program, "amend", "-f", "qcow2", "-o", text, refused=refused)
        self.version, self.bits = version, bits
        if "lazy_refcounts" in asked or version == 2:
            self.lazy = version == 3 and asked.get("lazy_refcounts") == "on"
        self.zstd = self.zstd and version == 3
        self.set_size(asked.get("size", len(self.model)))

    # --- how it is judged -----------------------------------------------------------------

    def judge_facts(self):
        info = json.loads(run([QEMU_IMG, "info", "--output=json", self.image]))
        data = info["format-specific"]["data"]
        now = (info["virtual-size"], data["compat"], data.get("refcount-bits", 16),
               data.get("lazy-refcounts", False),
               [(s["id"], s["name"]) for s in info.get("snapshots", ())])
        should = (len(self.model), {2: "0.10", 3: "1.1"}[self.version], self.bits, self.lazy,
                  [s[:2] for s in self.snapshots])
        if now != should:
            raise Bad("size, version, refcounts, snapshots are %s, not %s" % (now, should))
        said = json.loads(run([QCOW2, "snapshot", "--output=json", self.image]))
        if [(s["id"], s["name"]) for s in said] != should[4]:
            raise Bad("snapshots are listed as %s" % said)

    def judge_content(self, program, image, should, snapshot=None):
        raw = image + ".raw"
        run([program, "convert", "-O", "raw", *(["-l", snapshot] if snapshot else []),
             *named(image, self.passphrase), raw])
        with open(raw, "rb") as file:
            now = file.read()
        if snapshot:
            # QEMU reads as much as the disk has now; what is longer than the snapshot was
            # is not the snapshot's.
            now = now[:len(should)]
            should = should[:len(now)] if program == QEMU_IMG else should
        if now != should:
            at = next((i for i, (a, b) in enumerate(zip(now, should)) if a != b),
                      min(len(now), len(should)))
            raise Bad("by %s: %s differs from 0x%x on, %d bytes for %d" % (
                program, "snapshot " + snapshot if snapshot else "the disk", at, len(now),
                len(should)))

    def judge_applied(self, snapshot):
        """QEMU applies it, to a copy."""
        copy = self.image + ".copy"
        shutil.copyfile(self.image, copy)
        run([QEMU_IMG, "snapshot", "-a", snapshot[0], *named(copy, self.passphrase)])
        self.judge_content(QEMU_IMG, copy, snapshot[2])

    def judge_raw_data(self):
        """It reads as the disk does; what it lacks at its end are zeros."""
        with open(self.image + ".data", "rb") as file:
            now = file.read(len(self.model))
        if now + bytes(len(self.model) - len(now)) != self.model:
            raise Bad("the data file, which is raw, is not the disk")

    def judge(self, everything=False):
        both = (QEMU_IMG, QCOW2)
        run([QEMU_IMG, "check", "-q", *self.named])
        run([QCOW2, "check", "-q", *self.named])
        self.judge_facts()
        self.judge_content(both[self.count % 2], self.image, bytes(self.model))
        if self.raw_data:
            self.judge_raw_data()
        snapshots = self.snapshots
        if not everything:
            snapshots = self.rng.sample(snapshots, min(1, len(snapshots)))
        for number, snapshot in enumerate(snapshots):
            self.judge_content(both[(self.count + number) % 2], self.image, snapshot[2],
                               "snapshot.id=" + snapshot[0])
            if everything and not self.is_narrow():
                self.judge_applied(snapshot)

    def play(self, turns):
        kinds = [self.step_io] * 4 + [self.step_create] * 3 + [self.step_apply] * 2 + \
            [self.step_delete] + [self.step_resize] * 2 + [self.step_amend] * 3
        self.judge()
        for self.count in range(turns):
            step = self.rng.choice(kinds)
            program = self.rng.choice((QCOW2, QCOW2, QEMU_IMG))
            try:
                step(program)
                self.done.add((step.__name__, program))
            except Refused:
                pass
            self.judge()
        self.judge(everything=True)


def make(path, index, spec, seed):
    """Every other image is QEMU's."""
    version, cluster, bits, more, size, backed = spec
    program = (QEMU_IMG, QCOW2)[(index + seed) % 2 or "luks" in more]
    options = "compat=%s,cluster_size=%d" % ("0.10" if version == 2 else "1.1", cluster)
    if bits != 16:
        options += ",refcount_bits=%d" % bits
    if more and not (backed and "preallocation" in more):
        options += "," + more.format(path)
    encrypted = "encrypt" in more
    if encrypted:
        options += ",encrypt.key-secret=s"
    backing = None
    if backed:
        rng = random.Random("%d %d" % (seed, index))
        n_bytes = (size // 2, size * 2)[index % 4 > 0] // 512 * 512
        backing = b"".join(bytes([rng.randrange(1, 256)]) * 512 for _ in range(n_bytes // 512))
        with open(path + ".base", "wb") as file:
            file.write(backing)
    run([program, "create", "-q", "-f", "qcow2", "-o", options,
         *(["--object", "secret,id=s,data=" + PASSPHRASE] if encrypted else []),
         *(["-b", os.path.basename(path) + ".base", "-F", "raw"] if backed else []), path,
         str(size // 512 * 512)])
    return backing


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(os.environ.get("Q2_SEED", "1")))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--images", type=int, default=len(IMAGES))
    parser.add_argument("--only", type=int)
    parser.add_argument("folder")
    args = parser.parse_args()
    bad, done, refusals = 0, set(), 0
    for turn, (index, spec) in itertools.product(range(args.runs), enumerate(IMAGES)):
        seed = args.seed + turn * 7919
        if args.only not in (None, index) or index >= args.images:
            continue
        path = os.path.join(args.folder, "%d-%d" % (seed, index))
        player = None
        try:
            backing = make(path, index, spec, seed)
            player = Life(path, random.Random("life %d %d" % (seed, index)), backing,
                          PASSPHRASE if "encrypt" in spec[3] else None)
            player.play(args.steps)
            done |= player.done
            refusals += player.refusals
        except (Bad, subprocess.TimeoutExpired) as e:
            bad += 1
            print("%s, --seed %d --only %d: %s\nso far:\n  %s" % (
                path, seed, index, e, "\n  ".join(player.log if player else [])))
    print("done:", *sorted("%s/%s" % (kind[5:], IO[who]) for kind, who in done),
          "refused: %d" % refusals)
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
