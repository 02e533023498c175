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
