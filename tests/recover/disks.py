#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Disks as real ones are: a partition table, a file system in a partition, files of this
machine in it. Where the kernel can mount the file system (as root, through a loop device),
its own allocator puts them there, with files deleted in between; else the tools of the file
system do."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import subprocess

import lvm

MIB = 1 << 20
NO_MOUNT = bool(os.environ.get("RECOVER_NO_MOUNT"))  # the tools alone, as any user can


def call(*argv, **options):
    options.setdefault("stdout", subprocess.DEVNULL)
    try:
        return subprocess.run(list(map(str, argv)), check=True, stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, **options)
    except subprocess.CalledProcessError as e:
        raise SystemExit("%s: %s" % (" ".join(map(str, argv)),
                                     e.stderr.decode(errors="replace").strip()))


def works(*argv):
    return subprocess.run(list(map(str, argv)), stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def choose(folders, n_bytes, seed):
    """Files below the folders, in an order that is the same each time, of n_bytes in all."""
    found = []
    for folder in folders:
        for top, below, names in os.walk(folder):
            below.sort()
            for name in sorted(names):
                path = os.path.join(top, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    found.append((path, os.path.getsize(path)))
    random.Random(seed).shuffle(found)
    total, chosen = 0, []
    for path, size in found:
        if total + size <= n_bytes and size > 0:
            total += size
            chosen.append(path)
    return sorted(chosen)


def generate(folder, n_bytes, seed):
    """Files of the same content each time, of sizes as in real life: most are small."""
    numbers = random.Random(seed)
    total, n, made = 0, 0, []
    while total < n_bytes:
        size = min(int(numbers.lognormvariate(9.6, 1.6)) + 1, 2 * MIB)
        path = os.path.join(folder, "d%d" % (n // 50), "f%d" % n)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(numbers.randbytes(size))
        made.append(path)
        total += size
        n += 1
    return made


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def extents(path):
    """Where a sparse file has data: offsets and lengths."""
    with open(path, "rb") as f:
        end, at = os.fstat(f.fileno()).st_size, 0
        while at < end:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            to = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            yield at, to - at
            at = to


def copy_pieces(source, pieces, target, to):
    """Pairs of an offset and a length, in both; one of the two lists has one alone."""
    many = pieces if len(pieces) > 1 else to
    done = 0
    for start, n in many:
        here, there = (start, to[0][0] + done) if many is pieces else (pieces[0][0] + done, start)
        copy_data(source, here, n, target, there)
        done += n


def copy_data(source, here, n, target, there):
    with open(source, "rb") as f, open(target, "r+b") as t:
        for first, length in extents(source):
            at, end = max(first, here), min(first + length, here + n)
            f.seek(at)
            t.seek(there + at - here)
            for k in range(at, end, MIB):
                t.write(f.read(min(MIB, end - k)))


def debugfs(name, commands, *options):
    return subprocess.run(["debugfs", *options, "-f", "-", name],
                          input="\n".join(commands).encode(), stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout.decode(errors="replace")


class Mounted:
    """The file system at an offset of a raw disk, mounted."""

    def __init__(self, disk, offset, size, kind, folder, how="rw"):
        self.arguments = disk, offset, size, kind
        self.folder, self.how = folder, how

    def __enter__(self):
        disk, offset, size, kind = self.arguments
        os.makedirs(self.folder, exist_ok=True)
        options = "loop,offset=%d,sizelimit=%d,%s" % (offset, size, self.how)
        self.ok = not NO_MOUNT and works("mount", "-t", kind, "-o", options, disk, self.folder)
        return self

    def __exit__(self, *_):
        if self.ok:
            os.sync()
            call("umount", self.folder)


class Disk:
    """kind: the file system. label: gpt or dos. variant: lvm, it is in a logical volume;
    logical, in the third logical partition; far, there is much in the swap partition before
    it."""

    def __init__(self, work, kind, mib, sources, n_bytes, label="gpt", variant=""):
        self.name = "-".join(filter(None, (kind, variant, label)))
        self.work, self.kind, self.mib, self.label = work, kind, mib, label
        self.sources, self.n_bytes = sources, n_bytes
        self.lvm, self.far = variant == "lvm", variant == "far"
        self.logical = variant == "logical"
        self.path = self.fs = os.path.join(work, self.name + ".raw")
        self.pieces = []  # of a logical volume on the disk; else the file system is at offset
        self.files = {}  # path in the file system: (inode, SHA-256)
        self.how = "mounted"

    def load(self):
        """One that was made before."""
        with open(self.path + ".json") as f:
            (self.offset, self.size, self.pieces, self.how, self.files) = json.load(f)

    def save(self):
        with open(self.path + ".json", "w") as f:
            json.dump([self.offset, self.size, self.pieces, self.how, self.files], f)

    def make(self):
        with open(self.path, "wb") as f:
            f.truncate(self.mib * MIB)
        swap = max(self.mib // 20, 8)
        text = "label: %s\nsize=%dM, type=S\ntype=%s\n" % (
            self.label, swap, "V" if self.lvm else "L")
        if self.logical:
            text = "label: dos\nd1 : size=%dM, type=83\nd2 : type=5\nd5 : size=%dM, type=82\n" \
                   "d6 : size=8M, type=83\nd7 : type=83\n" % (swap + 2, swap)
        subprocess.run(["sfdisk", "-q", self.path], input=text.encode(), check=True)
        dump = subprocess.run(["sfdisk", "-d", self.path], check=True,
                              stdout=subprocess.PIPE).stdout.decode()
        parts = [dict(p.split("=", 1) for p in
                      line.split(" : ", 1)[1].replace(" ", "").split(",") if "=" in p)
                 for line in dump.splitlines() if " : " in line]
        swap = parts[2 if self.logical else 0]
        self.put_swap(int(swap["start"]) * 512, int(swap["size"]) * 512)
        self.offset, self.size = int(parts[-1]["start"]) * 512, int(parts[-1]["size"]) * 512
        if self.lvm:
            self.put_lvm()
        self.fill()
        if self.lvm:
            copy_pieces(self.fs, [(0, self.size)], self.path, self.pieces)
            os.remove(self.fs)
        self.save()

    def put_swap(self, offset, size):
        part = self.path + ".part"
        with open(part, "wb") as f:
            f.truncate(size)
        call("mkswap", part)
        if self.far:
            with open(part, "r+b") as f:
                f.seek(MIB // 16)
                f.write(random.Random("swap").randbytes(size // 2 if size < 16 * MIB else 8 * MIB))
        self.put_part(part, offset)

    def put_part(self, part, offset):
        n = os.path.getsize(part)
        copy_pieces(part, [(0, n)], self.fs, [(offset, n)])
        os.remove(part)

    def put_lvm(self):
        """A physical volume with two logical ones; the file system's one is in two pieces,
        one before and one behind the other. By hand: LVM makes none without its driver."""
        extents = lvm.extents(self.size)
        share = extents * 3 // 10
        volumes = [("root", [(0, share), (2 * share, share)]), ("home", [(share, share)])]
        begin = lvm.physical_volume(self.size, volumes)
        self.backup = os.path.join(self.work, "made", "etc-lvm-backup")
        os.makedirs(os.path.dirname(self.backup), exist_ok=True)
        with open(self.backup, "wb") as f:
            f.write(lvm.backup(self.size, volumes))
        with open(self.path, "r+b") as f:
            f.seek(self.offset)
            f.write(begin)
        first = self.offset + lvm.START
        n = share * lvm.EXTENT
        self.pieces = [(first, n), (first + 2 * n, n)]
        self.offset, self.size, self.fs = 0, 2 * n, self.path + ".lv"
        with open(self.fs, "wb") as f:
            f.truncate(self.size)

    @contextlib.contextmanager
    def view(self, raw):
        """The file system of that copy of the disk, as the tools of ext name it."""
        if not self.pieces:
            yield "%s?offset=%d" % (raw, self.offset)
            return
        path = raw + ".fs"
        with open(path, "wb") as f:
            f.truncate(self.size)
        copy_pieces(raw, self.pieces, path, [(0, self.size)])
        yield path
        os.remove(path)

    def fill(self):
        if self.sources:
            first = choose(self.sources, self.n_bytes * 2 // 3, "first")
            known = set(first)
            rest = [p for p in choose(self.sources, self.n_bytes, "second")
                    if p not in known]
        else:
            first, rest = generate(os.path.join(self.work, "made"), self.n_bytes, 1), []
        if self.lvm:
            rest.append(self.backup)
        getattr(self, "make_" + self.kind)(first, rest)

    def format(self, *argv):
        """Runs a mkfs on a file of the partition's size, and puts that into the disk."""
        part = self.path + ".part"
        with open(part, "wb") as f:
            f.truncate(self.size)
        call(*argv, part)
        self.put_part(part, self.offset)

    def fill_mounted(self, first, rest):
        """A third of what was there first is deleted before the rest comes."""
        with Mounted(self.fs, self.offset, self.size, self.kind,
                     os.path.join(self.work, "mnt")) as m:
            if not m.ok:
                return False
            numbers = random.Random(self.name)
            gone = [self.copy(m.folder, p) for p in first]
            os.sync()
            for name in gone:
                if numbers.randrange(3) == 0:
                    os.remove(os.path.join(m.folder, name))
                    del self.files[name]
            os.sync()
            for p in rest:
                self.copy(m.folder, p)
            with open(os.path.join(m.folder, "log"), "w") as log:
                for i in range(200):  # grows beside others, and so in pieces
                    log.write("line %d of a file that grows\n" % i * 400)
                    log.flush()
                    os.fsync(log.fileno())
                    with open(os.path.join(m.folder, "piece%d" % i), "wb") as f:
                        f.write(numbers.randbytes(5000))
                        os.fsync(f.fileno())
        return True

    def copy(self, folder, path):
        name = path.lstrip("/")
        to = os.path.join(folder, name)
        os.makedirs(os.path.dirname(to), exist_ok=True)
        shutil.copyfile(path, to)
        self.files[name] = (os.stat(to).st_ino, sha256(to))
        return name

    def staged(self, files):
        """The files as a folder, for tools that fill a file system."""
        stage = os.path.join(self.work, "stage")
        shutil.rmtree(stage, ignore_errors=True)
        os.makedirs(stage)
        for p in files:
            to = os.path.join(stage, p.lstrip("/"))
            os.makedirs(os.path.dirname(to), exist_ok=True)
            shutil.copyfile(p, to)
            self.files[p.lstrip("/")] = (0, sha256(to))
        return stage

    def make_ext4(self, first, rest):
        self.format("mke2fs", "-q", "-F", "-b", "4096", "-t", "ext4")
        if self.fill_mounted(first, rest):
            return
        self.how = "mke2fs -d"
        stage = self.staged(first + rest)
        self.format("mke2fs", "-q", "-F", "-b", "4096", "-t", "ext4", "-d", stage)
        shutil.rmtree(stage)
        names = list(self.files)
        text = debugfs("%s?offset=%d" % (self.fs, self.offset), ["stat \"/%s\"" % n for n in names])
        inodes = [int(word) for word in re.findall(r"^Inode: (\d+)", text, re.M)]
        assert len(inodes) == len(names)
        self.files = {n: (i, self.files[n][1]) for n, i in zip(names, inodes)}

    def make_xfs(self, first, rest):
        self.format("mkfs.xfs", "-q", "-f")
        if self.fill_mounted(first, rest):
            return
        self.how = "mkfs.xfs -p"
        stage = self.staged(first + rest)
        proto = self.path + ".proto"
        with open(proto, "w") as f:
            f.write("/boot/none\n0 0\nd--755 0 0\n")
            write_proto(f, stage)
            f.write("$\n")
        self.format("mkfs.xfs", "-q", "-f", "-p", proto)
        os.remove(proto)
        shutil.rmtree(stage)

    def make_btrfs(self, first, rest):
        self.format("mkfs.btrfs", "-q", "-f")
        if self.fill_mounted(first, rest):
            return
        self.how = "mkfs.btrfs --rootdir"
        stage = self.staged(first + rest)
        self.format("mkfs.btrfs", "-q", "-f", "--rootdir", stage)
        shutil.rmtree(stage)

    def copy_ntfs(self, files):
        part = self.path + ".part"
        with open(part, "wb") as f:
            f.truncate(self.size)
        call("mkntfs", "-q", "-F", "-f", part)
        for i, path in enumerate(files):
            call("ntfscp", "-q", "-f", part, path, "f%d" % i)
            self.files["f%d" % i] = (0, sha256(path))
        self.how = "ntfscp"
        self.put_part(part, self.offset)

    def make_ntfs(self, first, rest):
        """By ntfs-3g through FUSE, else file by file into its root."""
        if NO_MOUNT:
            self.copy_ntfs(first + rest)
            return
        self.format("mkntfs", "-q", "-F", "-f")
        mnt, part = os.path.join(self.work, "mnt"), self.fs
        os.makedirs(mnt, exist_ok=True)
        device = subprocess.run(
            ["losetup", "-f", "--show", "-o", str(self.offset), "--sizelimit",
             str(self.size), part], check=True, stdout=subprocess.PIPE).stdout.decode().strip()
        try:
            call("ntfs-3g", device, mnt)
            for p in first + rest:
                self.copy(mnt, p)
            call("umount", mnt)
            call("sync")
        finally:
            call("losetup", "-d", device)
        self.how = "ntfs-3g"


def write_proto(f, folder):
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            f.write("%s d--755 0 0\n" % name)
            write_proto(f, path)
            f.write("$\n")
        else:
            f.write("%s ---644 0 0 %s\n" % (name, path))
