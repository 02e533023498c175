# SPDX-License-Identifier: MIT
"""Makes qcow2 files out of their parts, right or wrong, without any program's help: what is
not said to be otherwise is a sound empty disk. Files are sparse."""

import struct

COPIED = 1 << 63
COMPRESSED = 1 << 62
BACKING_FORMAT, DATA_FILE, BITMAPS = 0xE2792ACA, 0x44415441, 0x23852875
INCOMPAT_DATA_FILE = 4


class Builder:
    """Header fields as attributes, places in the file as they are asked for."""

    def __init__(self, bits=16, size=64 << 20, version=3, l1_size=None):
        self.bits, self.cluster = bits, 1 << bits
        self.pieces = []  # (offset, bytes)
        self.extensions = []  # (type, data, or the length that is claimed of none)
        self.end = self.cluster
        span = 1 << 2 * bits - 3
        n_l1 = -(-size // span) if l1_size is None else l1_size
        self.h = {
            "magic": 0x514649FB, "version": version, "backing_file_offset": 0,
            "backing_file_size": 0, "cluster_bits": bits, "size": size, "crypt_method": 0,
            "l1_size": n_l1, "l1_table_offset": 0, "refcount_table_offset": 0,
            "refcount_table_clusters": 1, "nb_snapshots": 0, "snapshots_offset": 0,
            "incompatible": 0, "compatible": 0, "autoclear": 0, "refcount_order": 4,
            "header_length": 104,
        }
        self.h["refcount_table_offset"] = self.place(self.cluster)
        self.block = self.place(self.cluster)
        self.counts = None
        self.h["l1_table_offset"] = self.place(n_l1 * 8)
        self.backing = None

    def place(self, n_bytes, content=None):
        """Whole clusters at the end of the file."""
        at = self.end
        self.end += -(-n_bytes // self.cluster) * self.cluster
        if content:
            self.pieces.append((at, content))
        return at

    def table(self, entries):
        return self.place(len(entries) * 8, words(entries))

    def put(self, offset, content):
        self.pieces.append((offset, content))

    def set_l1(self, index, *entries):
        self.put(self.h["l1_table_offset"] + 8 * index, words(entries))

    def l2(self, l1_index, *entries):
        """A whole L2 table with these entries first."""
        at = self.place(self.cluster, words(entries))
        self.set_l1(l1_index, COPIED | at)
        return at

    def data(self, byte=b"\x5a"):
        return self.place(self.cluster, byte * self.cluster)

    def name_backing(self, name, fmt=None):
        self.backing = name.encode()
        if fmt:
            self.extensions.append((BACKING_FORMAT, fmt.encode()))

    def name_data_file(self, name):
        self.h["incompatible"] |= INCOMPAT_DATA_FILE
        self.extensions.append((DATA_FILE, name.encode()))

    def snapshots(self, rows, pad=0):
        """Rows (id, name, L1 offset, L1 size, extra)."""
        raw = b"".join(snapshot(*row) for row in rows)
        self.h["snapshots_offset"] = self.place(len(raw) + pad, raw)
        self.h["nb_snapshots"] = len(rows)

    def bitmaps(self, rows, pad=0):
        """Rows (name, table offset, table size, granularity bits, flags)."""
        raw = b"".join(bitmap(*row) for row in rows)
        at = self.place(len(raw) + pad, raw)
        self.h["autoclear"] |= 1
        self.extensions.append((BITMAPS, struct.pack(">IIQQ", len(rows), 0, len(raw), at)))

    def head(self):
        out = b""
        for kind, data in self.extensions:
            if isinstance(data, int):
                out += struct.pack(">II", kind, data)
            else:
                out += struct.pack(">II", kind, len(data)) + data.ljust((len(data) + 7) & ~7, b"\0")
        out += bytes(8)
        start = 72 if self.h["version"] < 3 else 104
        if self.backing is not None and not self.h["backing_file_offset"]:
            self.h["backing_file_offset"] = start + len(out)
            self.h["backing_file_size"] = len(self.backing)
            out += self.backing
        raw = struct.pack(">IIQIIQIIQQIIQQQQII", *self.h.values())
        return raw[:start] + out

    def write(self, path):
        """Every cluster of the file has refcount 1, as far as one block goes."""
        n = min(self.end >> self.bits, self.cluster // 2)
        with open(path, "wb") as out:
            out.write(self.head())
            out.seek(self.cluster)
            out.write(words([self.block]))
            out.seek(self.block)
            out.write(self.counts if self.counts is not None else b"\0\1" * n)
            for at, content in self.pieces:
                out.seek(at)
                out.write(content)
            out.truncate(max(self.end, out.seek(0, 2)))


def words(entries):
    return struct.pack(">%dQ" % len(entries), *entries)


def repeated(entry, n):
    return struct.pack(">Q", entry) * n


def snapshot(ident, name, l1_offset, l1_size, extra=None):
    extra = struct.pack(">QQ", 0, 64 << 20) if extra is None else extra
    raw = struct.pack(">QIHHIIQII", l1_offset, l1_size, len(ident), len(name), 0, 0, 0, 0,
                      len(extra)) + extra + ident + name
    return raw.ljust((len(raw) + 7) & ~7, b"\0")


def bitmap(name, table, n_entries, granularity=16, flags=0):
    raw = struct.pack(">QIIBBHI", table, n_entries, flags, 1, granularity, len(name), 0) + name
    return raw.ljust((len(raw) + 7) & ~7, b"\0")
