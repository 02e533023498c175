# SPDX-License-Identifier: MIT
"""Images that ask for far more work than they hold: each takes a number, to see how cost
grows with it. CVE-2015-5162 is this family: programs that look at uploads had no limit, and
some images took all the memory or time there was."""

import os
import struct
import zlib

from builder import COMPRESSED, COPIED, Builder, repeated, words

COSTLY = {}


def costly(*numbers):
    """numbers: how large it is in the tests, and at its worst."""
    def add(make):
        COSTLY[make.__name__.replace("_", "-")] = (make, *numbers)
        return make
    return add


@costly(1 << 22, 1 << 22)
def huge_disk(path, n):
    """An L1 table as long as may be, a hole: 2^63 bytes of disk, nearly."""
    b = Builder(bits=21, size=(n << 39) - (1 << 39), l1_size=n)
    b.write(path)


@costly(10, 14)
def long_file(path, n):
    """A file of 2^n GiB with small clusters, nearly all hole, and what it needs of tables."""
    b = Builder(bits=9, size=1 << 20, l1_size=32)
    b.l2(0, COPIED | b.data())
    b.h["refcount_table_clusters"] = 1
    b.write(path)
    os.truncate(path, 1 << 30 + n)


@costly(40000, 1 << 22)
def l2_shared(path, n):
    """n entries of the L1 table name one L2 table, of zeros."""
    b = Builder(bits=16, size=n << 29)
    at = b.place(b.cluster)
    b.put(b.h["l1_table_offset"], repeated(at, n))
    b.write(path)


@costly(40000, 1 << 22)
def l2_shared_data(path, n):
    """n entries of the L1 table name one L2 table, all whose entries name one cluster."""
    b = Builder(bits=16, size=n << 29)
    data = b.data()
    at = b.place(b.cluster, repeated(data, b.cluster // 8))
    b.put(b.h["l1_table_offset"], repeated(at, n))
    b.write(path)


@costly(10000, 1 << 22)
def l2_shared_small(path, n):
    """The same with small clusters: less from each, but nothing is alike in a row."""
    b = Builder(bits=9, size=n << 15)
    data = b.data()
    at = b.place(b.cluster, repeated(data, b.cluster // 8))
    b.put(b.h["l1_table_offset"], repeated(at, n))
    b.write(path)


@costly(4000, 1 << 18)
def l2_in_holes(path, n):
    """n L2 tables of 2 MiB, all of them holes of the file."""
    b = Builder(bits=21, size=n << 39)
    first = b.place(n << 21)
    b.put(b.h["l1_table_offset"], words([COPIED | first + (i << 21) for i in range(n)]))
    b.write(path)


@costly(1 << 18, 1 << 20)
def cluster_shared(path, n):
    """n entries of L2 tables name one cluster."""
    b = Builder(bits=12, size=n << 12)
    data = b.data()
    entries = repeated(data, 512)
    first = b.place(n // 512 * b.cluster)
    for i in range(n // 512):
        b.put(first + i * b.cluster, entries)
    b.put(b.h["l1_table_offset"],
          words([COPIED | first + i * b.cluster for i in range(n // 512)]))
    b.write(path)


def compressed(path, n, bits):
    """n entries name one cluster of zeros that takes next to nothing."""
    b = Builder(bits=bits, size=n << bits)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
    raw = deflate.compress(bytes(1 << bits)) + deflate.flush()
    at = b.place(len(raw), raw)
    sectors = (len(raw) - 1) // 512
    entry = COMPRESSED | sectors << 62 - (bits - 8) | at
    for i in range(0, n, b.cluster // 8):
        table = b.place(b.cluster, repeated(entry, min(n - i, b.cluster // 8)))
        b.set_l1(i // (b.cluster // 8), COPIED | table)
    b.write(path)


@costly(500, 5000)
def compressed_shared(path, n):
    """n L2 entries name one compressed cluster of 2 MiB of zeros."""
    compressed(path, n, 21)


@costly(1000, 65536)
def snapshots_long(path, n):
    """n snapshots, the table as long as may be: 1024 bytes for each, in its name."""
    b = Builder()
    l1 = b.table([0])
    b.snapshots([(b"%d" % i, b"n%d" % i + b"x" * 945, l1, 1) for i in range(n)])
    b.write(path)


@costly(1000, 65536)
def snapshots_extra(path, n):
    """The same, in extra data that nobody knows."""
    b = Builder()
    l1 = b.table([0])
    b.snapshots([(b"%d" % i, b"n%d" % i, l1, 1, bytes(16) + b"x" * 944) for i in range(n)])
    b.write(path)


@costly(500, 65536)
def snapshots_of_one_l1(path, n):
    """n snapshots of one L1 table, which is n entries long, and of no L2 table."""
    b = Builder()
    l1 = b.table([0] * (n - 1) + [1 << 9])
    b.snapshots([(b"%d" % i, b"n%d" % i, l1, n) for i in range(n)])
    b.write(path)


@costly(500, 65536)
def snapshots_of_one_l2(path, n):
    """n snapshots of one L1 table whose n entries name one L2 table."""
    b = Builder()
    l2 = b.place(b.cluster, repeated(b.data(), b.cluster // 8))
    l1 = b.table([l2] * n)
    b.snapshots([(b"%d" % i, b"n%d" % i, l1, n) for i in range(n)])
    b.write(path)


@costly(500, 65536)
def snapshots_shifted(path, n):
    """n snapshots whose L1 tables, of n entries, begin a cluster apart and overlap."""
    b = Builder(bits=9)
    l1 = b.table([0] * (n * 64) + [1 << 9] * n)
    b.snapshots([(b"%d" % i, b"n%d" % i, l1 + 512 * i, n) for i in range(n)])
    b.write(path)


@costly(1000, 65536)
def snapshots_alike(path, n):
    """n snapshots with one id and name."""
    b = Builder()
    l1 = b.table([0])
    b.snapshots([(b"1", b"alike", l1, 1) for _ in range(n)])
    b.write(path)


@costly(1000, 65536)
def snapshots_of_holes(path, n):
    """n snapshots whose L1 tables, as long as may be, lie in a hole."""
    b = Builder()
    l1 = b.place(32 << 20)
    b.snapshots([(b"%d" % i, b"n%d" % i, l1, 1 << 22) for i in range(n)])
    b.write(path)


@costly(65536, 65536)
def snapshots_nowhere(path, n):
    """n snapshots that the file does not hold."""
    b = Builder()
    b.snapshots([], pad=64)
    b.h["nb_snapshots"] = n
    b.write(path)


@costly(1000, 65535)
def bitmaps_long(path, n):
    """n bitmaps, their directory as long as may be: names of 1000 bytes."""
    b = Builder(size=1 << 20)
    table = b.table([0])
    b.bitmaps([(b"%05d" % i + b"x" * 994, table, 1) for i in range(n)])
    b.write(path)


@costly(500, 65535)
def bitmaps_of_one_table(path, n):
    """n bitmaps of one table, which is n entries long."""
    b = Builder(size=n << 31, l1_size=None)
    data = b.data()
    table = b.table([data] * n)
    b.bitmaps([(b"%05d" % i, table, n, 12) for i in range(n)])
    b.write(path)


@costly(1000, 65535)
def bitmaps_alike(path, n):
    """n bitmaps of one name."""
    b = Builder(size=1 << 20)
    table = b.table([0])
    b.bitmaps([(b"alike", table, 1) for _ in range(n)])
    b.write(path)


@costly(1 << 20, 1 << 20)
def refcount_block_shared(path, n):
    """n entries of the refcount table name one block."""
    b = Builder()
    table = b.place(n * 8, repeated(b.block, n))
    b.h["refcount_table_offset"], b.h["refcount_table_clusters"] = table, n * 8 >> 16
    b.write(path)


@costly(1 << 13, 1 << 17)
def refcount_blocks(path, n):
    """n refcount blocks of a file that they have no use for, and all counts are wrong."""
    b = Builder(bits=9)
    counts = b"\0\7" * 256
    first = b.place(n * 512)
    for i in range(0, n):
        b.put(first + 512 * i, counts)
    table = b.place(n * 8, words([first + 512 * i for i in range(n)]))
    b.h["refcount_table_offset"], b.h["refcount_table_clusters"] = table, n * 8 >> 9
    b.write(path)


@costly(2000, 8000)
def extensions(path, n):
    """n header extensions that nobody knows, of no length."""
    b = Builder()
    b.extensions += [(0x12345678, b"")] * n
    b.write(path)


@costly(1 << 22, 1 << 22)
def l1_of_garbage(path, n):
    """n entries of the L1 table with nonsense: each something to tell of."""
    b = Builder(bits=16, size=n << 29)
    b.put(b.h["l1_table_offset"], struct.pack(">Q", 0x7FFFFFFFFFFFFFFF) * n)
    b.write(path)


@costly(1 << 16, 1 << 22)
def l2_outside(path, n):
    """n L2 entries that lead out of the file, each to another place."""
    b = Builder(bits=16, size=n << 16)
    for i in range(0, n, 8192):
        table = b.place(b.cluster, words([COPIED | (1 << 40) + (k << 17)
                                          for k in range(i, i + 8192)]))
        b.set_l1(i // 8192, COPIED | table)
    b.write(path)


@costly(9, 21)
def one_cluster(path, n):
    """A file of less than one cluster of 2^n bytes: all tables are cut short or missing."""
    b = Builder(bits=n, size=1 << 20)
    b.write(path)
    os.truncate(path, 300)
