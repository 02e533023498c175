#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Files that look like nothing but tables: hostile.py FOLDER. Each claims more than it has."""

import os
import struct
import sys

COPIED, PACKED = 1 << 63, 1 << 62
SIZE = 4 << 20
WORDS = range(SIZE // 8)


def words(numbers):
    numbers = list(numbers)
    return struct.pack(">%dQ" % len(numbers), *numbers)


def blocks(content):
    """A file of blocks that all begin so; content: of the n-th."""
    return b"".join(content(n).ljust(512, b"\0") for n in range(SIZE // 512))


def snapshot(number):
    entry = struct.pack(">QIHHIIQIIQQ", 2048, 64, 2, 1, 0, 0, 0, 0, 16, 0, 1 << 20)
    return entry + b"%02dx" % (number % 100)


FILES = {
    # Each word leads somewhere: a table of every cluster size.
    "entries-512": lambda: words(COPIED | i * 512 % SIZE for i in WORDS),
    "entries-64k": lambda: words(COPIED | i * 65536 % SIZE for i in WORDS),
    "no-flags": lambda: words(i * 512 % SIZE for i in WORDS),
    "compressed": lambda: words(PACKED | i * 512 % SIZE for i in WORDS),
    # Each table leads to the next ones: all pass for L1 tables.
    "chain": lambda: words(COPIED | (i // 64 + 1 + i % 64) * 512 % SIZE for i in WORDS),
    "one-entry-each": lambda: blocks(
        lambda n: words([COPIED | (n * 7 + 1) * 512 % SIZE])),
    "snapshots": lambda: blocks(snapshot),
}


def superblock(fields, size=1024):
    """fields: offset, format, value."""
    block = bytearray(size)
    for offset, form, value in fields:
        struct.pack_into(form, block, offset, value)
    return bytes(block)


def ext(group):
    return superblock([
        (0, "<I", 0xffffffff), (4, "<I", 0xffffffff), (0x150, "<I", 0x7fff), (24, "<I", 2),
        (32, "<I", 32768), (40, "<I", 32768), (56, "<H", 0xef53), (76, "<I", 1),
        (88, "<H", 256), (90, "<H", group), (96, "<I", 0xc0), (254, "<H", 64),
        (104, "16s", b"u" * 16)])


def xfs(_):
    return superblock([
        (0, "4s", b"XFSB"), (4, ">I", 4096), (8, ">Q", 1 << 50), (32, "16s", b"u" * 16),
        (84, ">I", 1 << 30), (88, ">I", 1 << 20), (100, ">H", 0xb4b5), (102, ">H", 512),
        (104, ">H", 512), (106, ">H", 8), (120, "B", 12), (121, "B", 9), (122, "B", 9),
        (123, "B", 3), (124, "B", 30)])


def ntfs(_):
    return superblock([
        (0, "3s", b"\xebR\x90"), (3, "8s", b"NTFS    "), (11, "<H", 512), (13, "B", 8),
        (40, "<Q", 1 << 53), (48, "<Q", 1 << 49), (56, "<Q", 1 << 50), (64, "b", -10),
        (510, "2s", b"\x55\xaa")])


def disk(block, at):
    """An image of 4 KiB clusters without header and L1 table; its file system claims much."""
    def data(n):
        return (bytes(at) + block(n)).ljust(4096, b"u")
    parts = [os.urandom(16384)]
    for table in range(4):
        first = len(b"".join(parts)) // 4096 + 1
        parts.append(words(COPIED | (first + i) * 4096 for i in range(512)))
        parts += [data(table * 512 + i) for i in range(512)]
    return b"".join(parts)


FILES.update({
    "ext": lambda: disk(ext, 1024), "ext-copies": lambda: disk(ext, 0),
    "xfs": lambda: disk(xfs, 0), "ntfs": lambda: disk(ntfs, 0),
})


def make_sparse(folder):
    # A few tables whose entries all lead to the same clusters of 2 MiB.
    with open(os.path.join(folder, "clusters-2M"), "wb") as file:
        file.truncate(64 << 20)
        for cluster in range(1, 5):
            file.seek(cluster << 21)
            file.write(words(COPIED | (i % 32) << 21 for i in range(1 << 18)))
    # A disk of 1 TiB, at its end one table.
    with open(os.path.join(folder, "sparse"), "wb") as file:
        file.write(os.urandom(65536))
        file.seek((1 << 40) - 65536)
        file.write(words(COPIED | i << 16 for i in range(1, 8193)))


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for name, make in FILES.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(make())
    make_sparse(folder)


if __name__ == "__main__":
    main()
