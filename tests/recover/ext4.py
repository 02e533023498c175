# SPDX-License-Identifier: MIT
"""What can be read of an ext4 file system, which files are as they were, and which blocks
they have. Blocks are of 4 KiB. A copy of the superblock is used where the first may be gone."""

import os
import re
import subprocess

import disks

BLOCK = 4096
COPY = ["-b", "32768"]  # of the superblock


def debugfs(disk, raw, commands, *options):
    with disk.view(raw) as fs:
        return disks.debugfs(fs, commands, *options)


def read_back(disk, raw, folder, inodes):
    """Of inodes (with their SHA-256) those whose content is right."""
    out = os.path.join(folder, "files")
    os.makedirs(out, exist_ok=True)
    right = set()
    for superblock in ["-b", str(BLOCK), "-s", COPY[1]], []:
        missing = [i for i in inodes if i not in right]
        if not missing:
            break
        debugfs(disk, raw, ["dump <%d> %s/%d" % (i, out, i) for i in missing],
                "-c", *superblock)
        for i in missing:
            path = os.path.join(out, str(i))
            if os.path.exists(path):
                if disks.sha256(path) == inodes[i]:
                    right.add(i)
                os.remove(path)
    return right


def fsck(disk, raw, *options):
    """Exit code of e2fsck -fn; lines that it has to say, besides its passes."""
    with disk.view(raw) as fs:
        done = subprocess.run(["e2fsck", "-fn", *options, fs], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    lines = done.stdout.decode(errors="replace").splitlines()
    return done.returncode, [line for line in lines if "?" in line]


def blocks(disk, inodes):
    """Of the sound disk: all blocks of each inode, with the one that it is in itself."""
    text = debugfs(disk, disk.path,
                   [command for i in inodes for command in ("blocks <%d>" % i, "imap <%d>" % i)])
    found, inode = {}, None
    for line in text.splitlines():
        asked = re.match(r"debugfs: +\w+ <(\d+)>", line)
        if asked:
            inode = int(asked.group(1))
            found.setdefault(inode, set())
        elif "located at block" in line:
            found[inode].add(int(re.search(r"block (\d+)", line).group(1)))
        elif inode and re.fullmatch(r"[\d ]+", line):
            found[inode].update(map(int, line.split()))
    return found


class Losses:
    """Which blocks lay in the first n bytes of an image, and of which no L2 table is left."""

    def __init__(self, disk, truth, n):
        self.pieces = disk.pieces or [(disk.offset, disk.size)]
        self.size = 1 << truth.bits
        self.hit = {guest // self.size for guest, host in truth.clusters() if host < n}
        self.span = 1 << 2 * truth.bits - 3
        self.tables = {i for table, i in truth.index.items() if table < n}

    def places(self, block):
        at = block * BLOCK
        for start, n in self.pieces:
            if at < n:
                return start + at
            at -= n
        raise SystemExit("block %d is not on the disk" % block)

    def is_hit(self, block):
        first = self.places(block)
        return any(at // self.size in self.hit for at in (first, first + BLOCK - 1))

    def has_no_table(self, block):
        return self.places(block) // self.span in self.tables
