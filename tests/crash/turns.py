#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The program under test and qemu-io take turns on one image: random writes, zeros,
discards and reads, a byte array as the model. Some turns end with a flush and kill -9.
After each turn a few ranges are read back by the other one, at the end QEMU converts the
image, and it must be what the model says. With --bitmap each image gets a bitmap, which must
have recorded just that.

  turns.py [--seed N] [--turns N] [--judge-every TURNS] [--passphrase TEXT] [--bitmap] IMAGE...

QCOW2 in the environment is the program under test."""

import argparse
import os
import random
import subprocess
import sys
import tempfile

QEMU_IMG = os.environ.get("ORACLE", "qemu-img")
IMGTOOL = os.path.join(os.path.dirname(__file__), "..", "tools", "imgtool.py")
PROGRAMS = {"qemu-io": ["qemu-io"], "qcow2 io": [os.environ.get("QCOW2", "qcow2"), "io"]}
KILLED = 137, -9


class Bad(Exception):
    """What is wrong, in one line."""


def run(argv, codes=(0,)):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, timeout=300, check=False)
    if done.returncode not in codes:
        raise Bad("exit %d: %s\n%s" % (done.returncode, " ".join(argv),
                                       done.stdout.decode(errors="replace")))
    return done.stdout.decode(errors="replace")


def named(image, passphrase):
    """The end of a command line that names the image; its name is the last word."""
    if passphrase is None:
        return [image]
    return ["--object", "secret,id=sec0,data=" + passphrase, "--image-opts",
            "driver=qcow2,file.filename=%s,encrypt.key-secret=sec0" % image]


def raw_content(image, passphrase, snapshot=None):
    with tempfile.NamedTemporaryFile(dir=".") as raw:
        run([QEMU_IMG, "convert", "-O", "raw", *(["-l", snapshot] if snapshot else []),
             *named(image, passphrase), raw.name])
        return bytearray(raw.read())


def header_fields(image):
    """(version, cluster size, has a backing file, has snapshots)"""
    with open(image, "rb") as file:
        head = file.read(72)
    return head[7], 1 << int.from_bytes(head[20:24], "big"), any(head[8:16]), any(head[60:64])


class Player:
    """One image, its model, and whose turn it is."""

    judge_every = 6

    def __init__(self, image, rng, passphrase=None):
        self.image, self.rng, self.passphrase = image, rng, passphrase
        self.named = named(image, passphrase)
        self.packs = passphrase is None  # compressed clusters are possible
        self.version, self.cluster, backed, snapshots = header_fields(image)
        self.can_discard = self.version > 2 or not backed
        self.model = raw_content(image, passphrase)
        self.snapshots = {name: raw_content(image, passphrase, name)
                          for name in ("one", "two") if snapshots}
        self.log = []
        self.dirty = None  # sectors that the bitmap has recorded; None: there is no bitmap

    def a_range(self, unit):
        size = len(self.model)
        most = min(size // 6, self.cluster * self.rng.choice((1, 3, 40)))
        at = self.rng.randrange(size // unit) * unit
        n = max(unit, self.rng.randrange(1, max(2, most // unit + 1)) * unit)
        return at, min(n, size - at)

    def is_all(self, at, n):
        """The one byte that the range consists of, or None."""
        part = self.model[at:at + n]
        return part[0] if part.count(part[0]) == n else None

    def touch(self, at, n):
        if self.dirty is not None:
            self.dirty.update(range(at // 512, (at + n + 511) // 512))

    def new_bitmap(self, *action):
        program = self.rng.choice((QEMU_IMG, os.environ.get("QCOW2", "qcow2")))
        run([program, "bitmap", *action, "--add", "-g", "512", self.image, "b"])
        self.dirty = set()

    def judge_bitmap(self, killed):
        """Whoever is killed leaves it in use, unless nothing was written."""
        if self.dirty is None:
            return
        _, flags, _, *ranges = run([sys.executable, "-S", IMGTOOL, "bitmaps", self.image]).split()
        if killed and flags == "in-use,auto":
            self.new_bitmap("--remove")
            return
        now = set()
        for start, length in (map(int, text.split("+")) for text in ranges):
            now.update(range(start // 512, (start + length) // 512))
        if flags != "auto" or now != self.dirty:
            raise Bad("bitmap: %s, of sectors %s" % (flags, sorted(now ^ self.dirty)[:20]))

    def write(self):
        at, n = self.a_range(512 if self.rng.random() < 0.7 else 1)
        pattern = self.rng.randrange(1, 256)
        self.touch(at, n)
        self.model[at:at + n] = bytes([pattern]) * n
        return "write -P %d %d %d" % (pattern, at, n)

    def zero(self):
        at, n = self.a_range(512)
        self.touch(at, n)
        self.model[at:at + n] = bytes(n)
        return "write -z%s %d %d" % (self.rng.choice(("", " -u")), at, n)

    def discard(self):
        at, n = self.a_range(self.cluster)
        self.touch(at, n)
        if self.can_discard:
            self.model[at:at + n] = bytes(n)
        return "discard %d %d" % (at, n)

    def compressed(self):
        at = self.rng.randrange(len(self.model) // self.cluster) * self.cluster
        return self.compress(at)

    def compress(self, at):
        pattern = self.rng.randrange(1, 256)
        self.touch(at, self.cluster)
        self.model[at:at + self.cluster] = bytes([pattern]) * self.cluster
        return "write -c -P %d %d %d" % (pattern, at, self.cluster)

    def compressed_by_qemu(self):
        """QEMU compresses only into clusters that are not there; and once it has, it may
        put compressed data behind what was freed and is another's: so they come last."""
        if not self.can_discard:
            return []
        places = self.rng.sample(range(len(self.model) // self.cluster),
                                 self.rng.randrange(4))
        places = [i * self.cluster for i in places]
        return ["discard %d %d" % (at, self.cluster) for at in places] + \
            [self.compress(at) for at in places]

    def read(self):
        """Of the model's ranges, one that is of one byte."""
        at, n = self.a_range(512)
        while n > 512 and self.is_all(at, n) is None:
            n = max(512, n // 2 // 512 * 512)
        pattern = self.is_all(at, n)
        return "read %d %d" % (at, n) if pattern is None else \
            "read -P %d %d %d" % (pattern, at, n)

    def flush(self):
        return "flush"

    def play_io(self, who, killed=False):
        """Some commands on the guest's disk by this program."""
        kinds = [self.write] * 6 + [self.zero] * 3 + [self.discard] * 3 + \
            [self.read] * 4 + [self.flush]
        if who != "qemu-io" and self.packs:
            kinds += [self.compressed] * 3
        commands = [self.rng.choice(kinds)() for _ in range(self.rng.randrange(4, 16))]
        if who == "qemu-io" and self.packs:
            commands += self.compressed_by_qemu()
        if killed:
            commands += ["flush", "sigraise 9"]
        self.log.append("%s: %s" % (who, "; ".join(commands)))
        argv = [*PROGRAMS[who], "-d", "unmap"]
        for command in commands:
            argv += ["-c", command]
        said = run([*argv, *self.named], KILLED if killed else (0,))
        if "failed" in said:
            raise Bad("%s\n%s" % (" ".join(argv), said))

    def judge(self):
        for name, content in self.snapshots.items():
            if raw_content(self.image, self.passphrase, name) != content:
                raise Bad("snapshot %s has changed" % name)
        now = raw_content(self.image, self.passphrase)
        if now != self.model:
            at = next(i for i, (a, b) in enumerate(zip(now, self.model)) if a != b)
            raise Bad("guest byte 0x%x is %02x, not %02x" % (at, now[at], self.model[at]))

    def end(self):
        """Killed programs may leave leaks, or a dirty image; nothing else."""
        run([*PROGRAMS["qcow2 io"], "-c", "flush", *self.named])
        run([QEMU_IMG, "check", "-q", "-r", "leaks", *self.named])
        run([QEMU_IMG, "check", "-q", *self.named])
        self.judge()

    def play(self, turns, bitmap):
        if bitmap:
            self.new_bitmap()
        for number in range(turns):
            killed = self.rng.random() < 0.2
            self.play_io(list(PROGRAMS)[number % 2], killed)
            self.judge_bitmap(killed)
            if number % self.judge_every == 0:
                self.judge()
        self.end()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(os.environ.get("Q2_SEED", "1")))
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--judge-every", type=int, default=6)
    parser.add_argument("--passphrase", help="of the images, which are encrypted")
    parser.add_argument("--bitmap", action="store_true", help="judge a bitmap, too")
    parser.add_argument("images", nargs="+")
    args = parser.parse_args()
    Player.judge_every = args.judge_every
    bad = 0
    for image in args.images:
        player = Player(image, random.Random("%d %s" % (args.seed, os.path.basename(image))),
                        args.passphrase)
        try:
            player.play(args.turns, args.bitmap)
        except (Bad, subprocess.TimeoutExpired) as e:
            bad += 1
            print("%s, seed %d: %s\nso far:\n  %s" % (image, args.seed, e,
                                                      "\n  ".join(player.log[-6:])))
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
