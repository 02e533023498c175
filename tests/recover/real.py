#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Disks with real file systems in images whose L1 table is lost: where recover puts the L2
tables, and how sure it says that is, held against where they were.

    real.py [--mib N] [--data MIB] [--sources FOLDER,...] [--disks ext4,xfs,...]
            [--clusters 65536,...] [--orders guest,random] [--least PERCENT] [--keep] FOLDER

QCOW2 and ORACLE name the programs; RECOVER_NO_MOUNT=1: as if the kernel could mount nothing.
Without sources files are made, the same each time. A line a case. The first 4 MiB of the
image are overwritten as well; of ext4 it is told which of its files read back. Disks: KIND, a
file system in a partition; KIND-lvm, in a logical volume in two pieces; KIND-logical, in a
logical partition; KIND-far, in a partition behind a swap partition that is in use, whose data
the first MiB of the image have. The exit code is 1 when a table that was placed by evidence is at a wrong place, when less than that part of
the data is placed by evidence, when a file that has nothing in what was overwritten cannot be
read back, or when e2fsck objects to a disk that is far."""

import argparse
import json
import os
import random
import socket
import struct
import subprocess
import sys
import time

import disks
import ext4

QCOW2 = os.environ.get("QCOW2", "qcow2")
QEMU_IMG = os.environ.get("ORACLE", "qemu-img")
MASK = 0x00fffffffffffe00


class Nbd:
    """Writes to an image through QEMU, in any order."""

    def __init__(self, path, work):
        name = os.path.abspath(os.path.join(work, "nbd.socket"))
        self.server = subprocess.Popen(["qemu-nbd", "-f", "qcow2", "-k", name,
                                        "--cache=unsafe", "--discard=unmap", path])
        self.s = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.s.connect(name)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if self.server.poll() is not None:
                    raise SystemExit("qemu-nbd does not start")
                time.sleep(0.05)
        self.receive(18)
        self.s.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
        self.receive(10)

    def receive(self, n):
        got = b""
        while len(got) < n:
            part = self.s.recv(n - len(got))
            if not part:
                raise SystemExit("qemu-nbd ended")
            got += part
        return got

    def request(self, kind, offset, data=b""):
        self.s.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, 0, offset, len(data)) + data)
        if kind != 2:
            magic, error = struct.unpack(">II", self.receive(16)[:8])
            if magic != 0x67446698 or error:
                raise SystemExit("qemu-nbd: error %d" % error)

    def close(self):
        self.request(2, 0)
        self.s.close()
        self.server.wait()


def write_random(raw, image, cluster, size, work):
    """The disk's data in pieces of 1 MiB, or of a cluster, in an order that says nothing."""
    disks.call(QEMU_IMG, "create", "-q", "-f", "qcow2", "-o", "cluster_size=%d" % cluster,
               image, size)
    step = max(1 << 20, cluster)
    pieces = sorted({at // step for start, n in disks.extents(raw)
                     for at in range(start // step * step, start + n, step)})
    random.Random(raw).shuffle(pieces)
    nbd = Nbd(image, work)
    with open(raw, "rb") as f:
        for p in pieces:
            f.seek(p * step)
            data = f.read(step)
            start = 0
            for at in range(0, len(data) + 1, cluster):
                part = data[at:at + cluster]
                if not part or not part.strip(b"\0"):
                    if at > start:
                        nbd.request(1, p * step + start, data[start:at])
                    start = at + cluster
    nbd.close()


class Truth:
    """The L1 table of a sound image, and how much each L2 table maps."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            header = f.read(104)
            self.bits = struct.unpack(">I", header[20:24])[0]
            n, self.l1 = struct.unpack(">IQ", header[36:48])
            f.seek(self.l1)
            self.old = f.read(8 * n)
            self.index, self.weight = {}, {}
            for i, entry in enumerate(struct.unpack(">%dQ" % n, self.old)):
                table = entry & MASK
                if table:
                    self.index[table] = i
                    self.weight[table] = sum(e & MASK != 0 for e in self.entries(f, table))

    def entries(self, f, table):
        f.seek(table)
        return struct.unpack(">%dQ" % (1 << self.bits - 3), f.read(1 << self.bits))

    def clusters(self):
        """Guest and host offsets of all clusters."""
        with open(self.path, "rb") as f:
            for table, i in self.index.items():
                for k, entry in enumerate(self.entries(f, table)):
                    if entry & MASK:
                        yield (i << 2 * self.bits - 3) + (k << self.bits), entry & MASK

    def is_right(self, table, index):
        """Or does another table with the same guest data belong there? btrfs has twins."""
        if table not in self.index or self.index[table] == index:
            return table in self.index
        places = {i: t for t, i in self.index.items()}
        with open(self.path, "rb") as f:
            for x, y in zip(self.entries(f, table),
                            self.entries(f, places[index]) if index in places else ()):
                if bool(x & MASK) != bool(y & MASK):
                    return False
                f.seek(x & MASK)
                data = f.read(1 << self.bits)
                f.seek(y & MASK)
                if data != f.read(1 << self.bits):
                    return False
        return index in places

    def patch(self, data):
        with open(self.path, "r+b") as f:
            f.seek(self.l1)
            f.write(data)


def percent(part, all_):
    return 100.0 * part / all_ if all_ else 100.0


def judge(truth, report, show):
    total = sum(truth.weight.values())
    sums = {}
    for p in report["placed"]:
        right = truth.is_right(p["offset"], p["index"])
        key = (p["placed"], right)
        n, weight = sums.get(key, (0, 0))
        sums[key] = n + 1, weight + truth.weight.get(p["offset"], 0)
        if show:
            print("    ", p, truth.index.get(p["offset"]), truth.weight.get(p["offset"]))
    words = []
    for certainty in ("surely", "likely", "in-order"):
        right = sums.get((certainty, True), (0, 0))
        wrong = sums.get((certainty, False), (0, 0))
        words.append("%d/%d tables, %.1f %% of data" % (
            right[0], right[0] + wrong[0], percent(right[1], total)))
    wrong = sum(sums.get((c, False), (0, 0))[0] for c in ("surely", "likely"))
    evident = sum(sums.get((c, True), (0, 0))[1] for c in ("surely", "likely"))
    all_right = evident + sums.get(("in-order", True), (0, 0))[1]
    return wrong, percent(evident, total), percent(all_right, total), words


def lose_l1(disk, image, how, order, options):
    truth = Truth(image)
    n = len(truth.old)
    truth.patch(bytes(n) if how == "zeros" else random.Random(image).randbytes(n))
    start = time.time()
    try:
        out = subprocess.run([QCOW2, "recover", "--dry-run", "--output=json", image],
                             stdout=subprocess.PIPE, check=True).stdout
    finally:
        truth.patch(truth.old)
    seconds = time.time() - start
    wrong, evident, right, words = judge(truth, json.loads(out), options.show)
    print("| %s | %d | %s | %s | %d | %s | %.2f | %.2f | %.1f |" % (
        disk.name, 1 << truth.bits, order, how, len(truth.index), " | ".join(words), evident,
        right, seconds), flush=True)
    return wrong + (evident < options.least)


def part_right(disk, truth, raw, n):
    """Percent of the clusters behind the first n bytes that are as they were."""
    right = total = 0
    with open(raw, "rb") as f, open(disk.path, "rb") as g:
        for guest, host in truth.clusters():
            if host >= n:
                f.seek(guest)
                g.seek(guest)
                total += 1
                right += f.read(1 << truth.bits) == g.read(1 << truth.bits)
    return percent(right, total)


def lose_start(disk, image, order, options):
    """The beginning of the image is overwritten."""
    truth = Truth(image)
    n = options.start << 10
    raw, ideal = image + ".new", image + ".ideal"
    with open(image, "r+b") as f:
        old = f.read(n)
        f.seek(0)
        f.write(random.Random(image).randbytes(n))
    start = time.time()
    try:
        report = subprocess.run([QCOW2, "recover", "--output=json", "-O", "raw", image, raw],
                                stdout=subprocess.PIPE, check=True).stdout
    finally:
        with open(image, "r+b") as f:
            f.write(old)
    seconds = time.time() - start
    report = json.loads(report)
    wrong, evident, right, words = judge(truth, report, options.show)
    same = part_right(disk, truth, raw, n)
    wrong += same < options.right
    print("%s, clusters of %d, in the order of %s, %s, first %d KiB lost: %.2f %% of the other "
          "clusters are right; tables: surely %s; likely %s; guessed %s; made anew: %d clusters, "
          "left over: %d MiB; %.1f s" % (
              disk.name, 1 << truth.bits, order, disk.how, n >> 10, same, *words,
              sum(t["clusters"] for t in report["remade"]), report["left-over"]["data"] >> 20,
              seconds), flush=True)
    if disk.kind == "ext4":
        wrong += lose_files(disk, truth, raw, ideal, n, options)
    os.remove(raw)
    return wrong


def lose_files(disk, truth, raw, ideal, n, options):
    """What could come back at best is the disk without the clusters that lay there."""
    disks.call("cp", "--sparse=always", disk.path, ideal)
    with open(ideal, "r+b") as f:
        for guest, host in truth.clusters():
            if host < n:
                f.seek(guest)
                f.write(bytes(1 << truth.bits))
    chosen = sorted(disk.files.values())
    inodes = dict(chosen[::len(chosen) // options.tries + 1])
    best = ext4.read_back(disk, ideal, options.folder, inodes)
    got = ext4.read_back(disk, raw, options.folder, inodes)
    lost = ext4.Losses(disk, truth, n)
    hit, tableless, others = set(), set(), set()
    for i, blocks in ext4.blocks(disk, set(inodes) - got).items():
        (hit if any(map(lost.is_hit, blocks)) else
         tableless if any(map(lost.has_no_table, blocks)) else others).add(i)
    code, _ = ext4.fsck(disk, raw)
    said, at_best = (ext4.fsck(disk, x, *ext4.COPY)[1] for x in (raw, ideal))
    print("  of %d files %d can be read at best, %d are; of the %d others %d have a block in the "
          "lost clusters, %d one whose L2 table is lost, %d none; e2fsck: %d, by a copy of the "
          "superblock it objects to %d things (at best %d)" % (
              len(inodes), len(best), len(best & got), len(inodes) - len(got), len(hit),
              len(tableless), len(others), code, len(said), len(at_best)), flush=True)
    if options.show:
        print("\n".join(said), hit, tableless, others)
    os.remove(ideal)
    return len(others) + (100 * len(best & got) < options.files * len(best)) + (
        disk.far and (code != 0 or len(got) < len(inodes)))


def images_of(disk, options):
    for cluster in options.clusters.split(","):
        for order in options.orders.split(","):
            image = os.path.join(options.folder, "%s-%s-%s.qcow2" % (disk.name, cluster, order))
            if not os.path.exists(image):
                if order == "guest":
                    disks.call(QEMU_IMG, "convert", "-f", "raw", "-O", "qcow2", "-o",
                               "cluster_size=" + cluster, disk.path, image)
                else:
                    write_random(disk.path, image, int(cluster), disk.mib << 20, options.folder)
            yield image, order
            if not options.keep:
                os.remove(image)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--mib", type=int, default=20480)
    p.add_argument("--data", type=int, default=2000, help="MiB")
    p.add_argument("--sources", default="")
    p.add_argument("--disks", default="ext4,xfs,btrfs,ntfs,ext4-lvm,ext4-far")
    p.add_argument("--clusters", default="65536")
    p.add_argument("--orders", default="guest,random")
    p.add_argument("--damages", default="zeros,random")
    p.add_argument("--start", type=int, default=4096, help="KiB that are overwritten")
    p.add_argument("--least", type=float, default=0, help="percent of the data, by evidence")
    p.add_argument("--right", type=float, default=0,
                   help="percent of the clusters that are not overwritten")
    p.add_argument("--tries", type=int, default=5000, help="files that are read back, at most")
    p.add_argument("--files", type=float, default=0, help="percent of those that can be read")
    p.add_argument("--keep", action="store_true")
    p.add_argument("--show", action="store_true")
    p.add_argument("folder")
    options = p.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    bad = 0
    print("| disk | clusters | written in the order of | L1 table | L2 tables | surely | likely "
          "| guessed | by evidence, % | right, % | s |\n" + "|---" * 11 + "|")
    for name in options.disks.split(","):
        kind, _, variant = name.partition("-")
        disk = disks.Disk(options.folder, kind, options.mib,
                          options.sources.split(",") if options.sources else [],
                          options.data << 20, "dos" if kind in ("xfs", "ntfs") or variant == "logical" else "gpt",
                          variant)
        if options.keep and os.path.exists(disk.path + ".json"):
            disk.load()
        else:
            disk.make()
        for image, order in images_of(disk, options):
            for how in filter(None, options.damages.split(",")):
                bad += lose_l1(disk, image, how, order, options)
            if options.start:
                bad += lose_start(disk, image, order, options)
        if not options.keep:
            os.remove(disk.path)
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
