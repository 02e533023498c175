#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes a qcow2 image of a raw disk by what qcow2(5) says, and by nothing else.

    writer.py RAW IMAGE VERSION CLUSTER-BITS REFCOUNT-ORDER [KIND]

KIND: plain; packed (every second cluster is compressed); extended (subclusters, stored where
they are not zeros).
"""

import struct
import sys
import zlib

COPIED, COMPRESSED, ZERO = 1 << 63, 1 << 62, 1


class Writer:
    """An image that grows at its end."""

    def __init__(self, version, bits, order, kind):
        self.version, self.bits, self.n, self.order = version, bits, 1 << bits, order
        self.kind = kind
        self.words = 2 if kind == "extended" else 1
        self.file, self.count = bytearray(self.n), [1]
        self.packed_end = 0  # where further compressed data may follow, in a cluster that is used

    def take(self, data):
        """New clusters with this content; their offset."""
        at = len(self.file)
        self.file += data + bytes(-len(data) % self.n)
        self.count += [1] * ((len(self.file) - at) // self.n)
        return at

    def pack(self, data):
        """An entry for compressed data; None: not worth it."""
        deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
        packed = deflate.compress(data) + deflate.flush()
        if len(packed) >= self.n:
            return None
        at = self.packed_end
        if at % self.n + len(packed) > self.n or at == 0:
            at = self.take(packed)
        else:
            self.file[at:at + len(packed)] = packed
            self.count[at // self.n] += 1
        end = at + len(packed)
        self.packed_end = end if end % self.n else 0
        x = 70 - self.bits
        sectors = (end - 1) // 512 - at // 512
        if (at // 512 + sectors) * 512 // self.n > at // self.n:  # the last sector is elsewhere
            raise ValueError("sectors of a cluster that ends with it")
        return COMPRESSED | sectors << x | at

    def extended(self, data):
        """Two words for a cluster."""
        step, stored, zero = self.n // 32, 0, 0
        for i in range(32):
            if any(data[i * step:(i + 1) * step]):
                stored |= 1 << i
            else:
                zero |= 1 << 32 + i
        return self.take(data) | COPIED, stored | zero

    def entry(self, index, data):
        """The words of an L2 entry."""
        if self.kind == "extended":
            return self.extended(data)
        if self.kind == "packed" and index % 2:
            packed = self.pack(data)
            if packed:
                return (packed,)
        return (self.take(data) | COPIED,)

    def map(self, disk):
        """Writes the disk; the L1 table."""
        entries = self.n // 8 // self.words
        l1 = []
        for first in range(0, len(disk), self.n * entries):
            l2 = []
            for k in range(entries):
                data = disk[first + k * self.n:first + (k + 1) * self.n]
                l2 += self.entry(k, data.ljust(self.n, b"\0")) if any(data) else [0] * self.words
            used = any(l2)
            l1.append(self.take(struct.pack(f">{len(l2)}Q", *l2)) | COPIED if used else 0)
        return l1

    def block(self, counts):
        """A refcount block."""
        width = 1 << self.order
        if width >= 8:
            return b"".join(c.to_bytes(width // 8, "big") for c in counts).ljust(self.n, b"\0")
        data = bytearray(self.n)
        for i, c in enumerate(counts):
            data[i * width // 8] |= c << i * width % 8
        return bytes(data)

    def count_all(self):
        """Refcount table and blocks, which count themselves; offset and clusters."""
        per_block = 8 * self.n >> self.order
        n_blocks = n_table = 1
        while True:
            total = len(self.count) + n_blocks + n_table
            blocks, table = -(-total // per_block), -(-n_blocks * 8 // self.n)
            if (blocks, table) == (n_blocks, n_table):
                break
            n_blocks, n_table = blocks, table
        counts = self.count + [1] * (n_blocks + n_table)
        places = [self.take(self.block(counts[i * per_block:(i + 1) * per_block]))
                  for i in range(n_blocks)]
        return self.take(struct.pack(f">{n_blocks}Q", *places)), n_table

    def write(self, disk, path):
        """All of it, and the header."""
        l1 = self.map(disk)
        l1_at = self.take(struct.pack(f">{len(l1)}Q", *l1))
        table, n_table = self.count_all()
        head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", self.version, 0, 0, self.bits, len(disk),
                           0, len(l1), l1_at, table, n_table, 0, 0)
        if self.version == 3:
            head += struct.pack(">QQQII", (self.words - 1) << 4, 0, 0, self.order, 104)
        self.file[:len(head)] = head
        with open(path, "wb") as out:
            out.write(self.file)


def main():
    raw, image, version, bits, order, *kind = sys.argv[1:]
    with open(raw, "rb") as f:
        disk = f.read()
    Writer(int(version), int(bits), int(order), *(kind or ["plain"])).write(disk, image)


if __name__ == "__main__":
    main()
