# SPDX-License-Identifier: MIT
"""What the damage matrix knows of the qcow2 format, on its own: where every structure of a
sound image lies, and what the guest would read from a sound or a damaged one."""

import array
import ctypes
import struct
import sys
import zlib

OFFSET_MASK = 0x00FFFFFFFFFFFE00
COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1
L2_RESERVED = 0x3F000000000001FE
MAX_TABLE_BYTES = 32 << 20
UNREADABLE = b"?"  # stands for the bytes of a subcluster that cannot be read
DIRTY_OR_CORRUPT = 3
DATA_FILE, ZSTD, EXTENDED = 1 << 2, 1 << 3, 1 << 4
BITMAPS, CRYPTO = 0x23852875, 0x0537BE77

HEADER_FIELDS = [
    ("magic", 0, 4), ("version", 4, 4), ("backing_file_offset", 8, 8),
    ("backing_file_size", 16, 4), ("cluster_bits", 20, 4), ("size", 24, 8),
    ("crypt_method", 32, 4), ("l1_size", 36, 4), ("l1_table_offset", 40, 8),
    ("refcount_table_offset", 48, 8), ("refcount_table_clusters", 56, 4),
    ("nb_snapshots", 60, 4), ("snapshots_offset", 64, 8),
    ("incompatible_features", 72, 8), ("compatible_features", 80, 8),
    ("autoclear_features", 88, 8), ("refcount_order", 96, 4), ("header_length", 100, 4),
    ("compression_type", 104, 1),
]
# Fields that decide what the guest reads.
GUEST_FIELDS = {"magic", "version", "backing_file_offset", "backing_file_size",
                "cluster_bits", "size", "crypt_method", "l1_size", "l1_table_offset"}
SNAPSHOT_FIELDS = [
    ("l1_table_offset", 0, 8), ("l1_size", 8, 4), ("id_size", 12, 2), ("name_size", 14, 2),
    ("date_sec", 16, 4), ("date_nsec", 20, 4), ("vm_clock", 24, 8),
    ("vm_state_size", 32, 4), ("extra_data_size", 36, 4),
]


BITMAP_FIELDS = [
    ("table_offset", 0, 8), ("table_size", 8, 4), ("flags", 12, 4), ("type", 16, 1),
    ("granularity_bits", 17, 1), ("name_size", 18, 2), ("extra_data_size", 20, 4),
]


class Outside:
    """What belongs to an image and is not in its file; and what cannot be told from a
    damaged one: its features, and how it is encrypted."""

    def __init__(self, backing=None, data=None, features=0, crypt=0):
        self.backing, self.data = backing, data
        self.features, self.crypt = features, crypt


class FormatError(Exception):
    """Not an image whose guest content could be told."""


def be(raw, offset, n_bytes):
    """A big-endian number; what lies behind the end reads as zeros."""
    return int.from_bytes(raw[offset:offset + n_bytes].ljust(n_bytes, b"\0"), "big")


def entries(raw, offset, n):
    """A table of 64-bit entries."""
    table = array.array("Q", raw[offset:offset + n * 8].ljust(n * 8, b"\0"))
    if sys.byteorder == "little":
        table.byteswap()
    return table


def inflate_zlib(packed, n_bytes):
    try:
        return zlib.decompressobj(-12).decompress(packed, n_bytes)
    except zlib.error:
        return None


def inflate_zstd(packed, n_bytes):
    """The first frame of what is there."""
    lib = inflate_zstd.lib = inflate_zstd.lib or ctypes.CDLL("libzstd.so.1")
    for name in ("ZSTD_findFrameCompressedSize", "ZSTD_decompress"):
        getattr(lib, name).restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(n_bytes)
    size = lib.ZSTD_findFrameCompressedSize(packed, ctypes.c_size_t(len(packed)))
    if size > len(packed):
        return None
    got = lib.ZSTD_decompress(out, ctypes.c_size_t(n_bytes), packed, ctypes.c_size_t(size))
    return out.raw if got == n_bytes else None


inflate_zstd.lib = None


class Snapshot:
    """An entry of the snapshot table."""

    def __init__(self, raw, offset):
        self.offset = offset
        for name, at, n_bytes in SNAPSHOT_FIELDS:
            setattr(self, name, be(raw, offset + at, n_bytes))
        if self.extra_data_size > 65536:
            raise FormatError("snapshot with much extra data")
        self.id_offset = offset + 40 + self.extra_data_size
        self.name_offset = self.id_offset + self.id_size
        self.end = self.name_offset + self.name_size
        if self.end > len(raw):
            raise FormatError("snapshot table beyond the end")
        self.extra = raw[offset + 40:self.id_offset]
        self.id = raw[self.id_offset:self.name_offset]
        self.name = raw[self.name_offset:self.end]

    def facts(self):
        """What must not change when something else is repaired."""
        return (self.id, self.name, self.date_sec, self.date_nsec, self.vm_clock,
                self.vm_state_size, self.extra)


class State:
    """What a guest reads: the active state or a snapshot. content: guest cluster -> bytes,
    clusters of zeros left out; None where the entry leads nowhere."""

    def __init__(self, size, snapshot=None):
        self.size = size
        self.vm_start = self.vm_end = 0  # guest bytes behind the disk: a machine's state
        self.snapshot = snapshot
        self.content = {}
        self.bad_ranges = []  # guest cluster ranges whose L2 table leads nowhere

    def end(self):
        return max(self.size, self.vm_end)

    def end_at(self, at):
        """Where the disk, or the machine's state behind it, that a guest byte is of ends."""
        return self.vm_end if self.vm_end and at >= self.vm_start else self.size


class Reader:
    """Reads all states of an image that may be damaged."""

    def __init__(self, raw, outside):
        self.raw = raw
        self.outside, self.backing, self.data = outside, outside.backing, outside.data
        self.header = {name: be(raw, at, n) for name, at, n in HEADER_FIELDS}
        h = self.header
        if h["magic"] != 0x514649FB or h["version"] not in (2, 3):
            raise FormatError("no qcow2")
        if not 9 <= h["cluster_bits"] <= 21:
            raise FormatError("cluster_bits")
        if h["version"] == 2:
            for name in ("incompatible_features", "compatible_features",
                         "autoclear_features", "compression_type"):
                h[name] = 0
            h["refcount_order"], h["header_length"] = 4, 72
        self.features = h["incompatible_features"] & ~DIRTY_OR_CORRUPT
        if self.features != outside.features or h["crypt_method"] != outside.crypt or \
                h["compression_type"] != (1 if self.features & ZSTD else 0):
            raise FormatError("features")
        self.bits = h["cluster_bits"]
        self.cluster_size = 1 << self.bits
        self.words = 2 if self.features & EXTENDED else 1
        self.entry_bytes = 8 * self.words
        self.l2_bits = self.bits - 2 - self.words
        # What is allocated, zeroed and read at once.
        self.piece = self.cluster_size // (32 if self.words == 2 else 1)
        self.zeros = bytes(self.cluster_size)
        self.tables, self.used = {}, {}
        self.inflated = {}
        self.contradicts = False  # a subcluster is stored and zero, too

    def snapshots(self):
        """The snapshot table's entries."""
        h, found = self.header, []
        if h["nb_snapshots"] > 1000:
            raise FormatError("nb_snapshots")
        at = h["snapshots_offset"]
        for _ in range(h["nb_snapshots"]):
            sn = Snapshot(self.raw, at)
            found.append(sn)
            at = (sn.end + 7) & ~7
        return found

    def states(self):
        """All states, the active one first."""
        h = self.header
        result = [self.active()]
        for sn in self.snapshots():
            size = be(sn.extra, 8, 8) if len(sn.extra) >= 16 else h["size"]
            state = State(size, sn)
            self.place_vm_state(state, sn)
            self.read_l1(state, sn.l1_table_offset, sn.l1_size)
            result.append(state)
        return result

    def active(self):
        h = self.header
        state = State(h["size"])
        self.read_l1(state, h["l1_table_offset"], h["l1_size"])
        return state

    def place_vm_state(self, state, sn):
        """It begins where an L2 table begins, behind the disk."""
        n = be(sn.extra, 0, 8) if len(sn.extra) >= 8 else sn.vm_state_size
        table_bits = self.bits + self.l2_bits
        if n:
            state.vm_start = (state.size + (1 << table_bits) - 1) >> table_bits << table_bits
            state.vm_end = state.vm_start + n

    def backing_cluster(self, index):
        """What shows through where nothing is allocated."""
        if self.backing is None or self.header["backing_file_offset"] == 0:
            return self.zeros
        at = index << self.bits
        return self.backing[at:at + self.cluster_size].ljust(self.cluster_size, b"\0")

    def read_l1(self, state, offset, n):
        if n * 8 > MAX_TABLE_BYTES:
            raise FormatError("l1_size")
        l1 = entries(self.raw, offset, n)
        span = 1 << self.l2_bits
        n_clusters = (state.end() + self.cluster_size - 1) >> self.bits
        l1 = l1[:(n_clusters + span - 1) // span]
        for i, entry in enumerate(l1):
            self.read_l2(state, i * span, entry)
        self.read_backing(state, len(l1) * span, n_clusters)

    def read_backing(self, state, first, end):
        if self.backing is None or self.header["backing_file_offset"] == 0:
            return
        for index in range(first, min(end, self.backing_end())):
            self.put(state, index, self.backing_cluster(index))

    def backing_end(self):
        return (len(self.backing) + self.cluster_size - 1) >> self.bits

    def put(self, state, index, content):
        at = index << self.bits
        size = state.end_at(at) - at
        if size <= 0:
            return
        if content is not None and size < self.cluster_size:
            content = content[:size].ljust(self.cluster_size, b"\0")
        if content != self.zeros:
            state.content[index] = content

    def read_l2(self, state, first, l1_entry):
        offset = l1_entry & OFFSET_MASK
        span = 1 << self.l2_bits
        if offset == 0:
            self.read_backing(state, first, first + span)
            return
        if offset % self.cluster_size or offset >= len(self.raw):
            state.bad_ranges.append((first, first + span))
            return
        table = self.tables.get(offset)
        if table is None:
            table = self.tables[offset] = self.l2_table(offset)
        if self.backing is not None and self.header["backing_file_offset"]:
            for i in range(max(0, min(span, self.backing_end() - first))):
                if not any(table[i]):
                    self.put(state, first + i, self.backing_cluster(first + i))
        for i, entry in self.used_entries(offset, table):
            self.put(state, first + i, self.cluster(first + i, entry))

    def l2_table(self, offset):
        """Its entries: (entry, bitmap of an extended one)."""
        n = 1 << self.l2_bits
        words = entries(self.raw, offset, n * self.words)
        if self.words == 1:
            return [(w, 0) for w in words]
        return list(zip(words[::2], words[1::2]))

    def used_entries(self, offset, table):
        """The entries that say something: [(index, entry)]"""
        if offset not in self.used:
            self.used[offset] = [(i, entry) for i, entry in enumerate(table) if any(entry)]
        return self.used[offset]

    def cluster(self, index, words):
        """The guest's cluster as its L2 entry says; None: the entry leads nowhere."""
        entry, bitmap = words
        if entry & COMPRESSED:
            return None if self.features & DATA_FILE else self.inflate(entry)
        if entry & L2_RESERVED:
            return None
        if self.words == 2:
            return self.mixed(index, entry, bitmap)
        if self.header["version"] < 3 and entry & ZERO:
            return None
        if entry & ZERO:
            return self.zeros
        if not self.is_placed(entry):
            return self.backing_cluster(index)
        return self.stored(index, entry)

    def is_placed(self, entry):
        """Does the entry name a cluster?"""
        return entry & OFFSET_MASK or self.features & DATA_FILE and entry & COPIED

    def stored(self, index, entry):
        offset = entry & OFFSET_MASK
        if self.features & DATA_FILE:
            if offset != index << self.bits:
                return None
            raw = self.data
        else:
            raw = self.raw
            if offset % self.cluster_size or offset >= len(raw):
                return None
        return raw[offset:offset + self.cluster_size].ljust(self.cluster_size, b"\0")

    def mixed(self, index, entry, bitmap):
        """A cluster of subclusters."""
        stored, zero = bitmap & 0xFFFFFFFF, bitmap >> 32
        lost = stored & zero if self.is_placed(entry) else stored
        self.contradicts |= bool(lost)
        here = self.stored(index, entry) if stored and lost != stored else self.zeros
        if here is None:
            return None
        below, parts = self.backing_cluster(index), []
        for i in range(32):
            at = slice(i * self.piece, (i + 1) * self.piece)
            source = UNREADABLE * self.cluster_size if lost & 1 << i else \
                here if stored >> i & 1 else self.zeros if zero >> i & 1 else below
            parts.append(source[at])
        return b"".join(parts)

    def compressed_place(self, entry):
        """Host offset and bytes of a compressed cluster."""
        shift = 62 - (self.bits - 8)
        offset = entry & ((1 << shift) - 1)
        sectors = (entry >> shift) & ((1 << (self.bits - 8)) - 1)
        return offset, (sectors + 1) * 512 - offset % 512

    def inflate(self, entry):
        offset, n_bytes = self.compressed_place(entry)
        key = (offset, n_bytes)
        if key not in self.inflated:
            inflate = inflate_zstd if self.features & ZSTD else inflate_zlib
            out = inflate(self.raw[offset:offset + n_bytes], self.cluster_size)
            self.inflated[key] = out if out and len(out) == self.cluster_size else None
        return self.inflated[key]


    # --- extensions ---

    def extension(self, wanted):
        """Host offset of a header extension's data; 0: it is not there."""
        at = self.header["header_length"]
        for _ in range(16):
            kind, n = be(self.raw, at, 4), be(self.raw, at + 4, 4)
            if kind == wanted:
                return at + 8
            if kind == 0:
                break
            at += 8 + (n + 7) // 8 * 8
        return 0

    def bitmaps(self):
        """The bitmap directory: [(name, host offset of the entry, {field: value})]"""
        at = self.extension(BITMAPS)
        if not at or not self.header["autoclear_features"] & 1:
            return []
        n, at = be(self.raw, at, 4), be(self.raw, at + 16, 8)
        found = []
        for _ in range(min(n, 64)):
            e = {name: be(self.raw, at + k, n_bytes) for name, k, n_bytes in BITMAP_FIELDS}
            start = at + 24 + e["extra_data_size"]
            found.append((self.raw[start:start + e["name_size"]], at, e))
            at = (start + e["name_size"] + 7) & ~7
        return found

    def dirty(self, e):
        """What a bitmap says has changed: guest sectors."""
        shift = e["granularity_bits"]
        n_bits = (self.header["size"] + (1 << shift) - 1) >> shift
        bits = bytearray()
        for entry in entries(self.raw, e["table_offset"], min(e["table_size"], 4096)):
            offset = entry & OFFSET_MASK
            part = self.raw[offset:offset + self.cluster_size] if offset else \
                (b"\xff" if entry & 1 else b"\0") * self.cluster_size
            bits += part.ljust(self.cluster_size, b"\0")
        end = self.header["size"] // 512
        return {sector for i in range(min(n_bits, len(bits) * 8)) if bits[i // 8] >> i % 8 & 1
                for sector in range(i << shift - 9, min((i + 1) << shift - 9, end))}


class Layout(Reader):
    """A sound image, taken apart: which bytes hold what."""

    def __init__(self, raw, outside):
        super().__init__(raw, outside)
        h = self.header
        self.snapshot_list = self.snapshots()
        self.refcount_bits = 1 << h["refcount_order"]
        self.l1s = [(h["l1_table_offset"], h["l1_size"], None)]
        self.l1s += [(s.l1_table_offset, s.l1_size, s) for s in self.snapshot_list]
        self.refblock_entries = (self.cluster_size * 8) // self.refcount_bits
        self.reftable = entries(raw, h["refcount_table_offset"],
                                h["refcount_table_clusters"] << (self.bits - 3))
        self.kinds = {}  # host cluster -> what lies there
        self.l2s = {}    # host offset -> entries
        self.all_states = self.states()
        self.find_kinds()
        self.l2_places = []  # host offset, state number, first guest cluster
        self.depends = self.find_dependencies()

    def claim(self, offset, n_bytes, kind):
        for cluster in range(offset >> self.bits,
                             (offset + n_bytes + self.cluster_size - 1) >> self.bits):
            self.kinds.setdefault(cluster, kind)

    def find_kinds(self):
        h = self.header
        self.claim(0, 1, "header")
        self.claim(h["refcount_table_offset"],
                   h["refcount_table_clusters"] << self.bits, "refcount-table")
        for entry in self.reftable:
            if entry:
                self.claim(entry & OFFSET_MASK, self.cluster_size, "refcount-block")
        if self.snapshot_list:
            self.claim(h["snapshots_offset"],
                       self.snapshot_list[-1].end - h["snapshots_offset"],
                       "snapshot-table")
        self.find_extensions()
        for offset, n, snapshot in self.l1s:
            self.claim(offset, n * 8, "snapshot-l1" if snapshot else "active-l1")
            for entry in entries(self.raw, offset, n):
                if entry:
                    self.claim_l2(entry & OFFSET_MASK, snapshot)

    def find_extensions(self):
        at = self.extension(CRYPTO)
        if at:
            self.claim(be(self.raw, at, 8), be(self.raw, at + 8, 8), "luks-header")
        at = self.extension(BITMAPS)
        if at:
            self.claim(be(self.raw, at + 16, 8), be(self.raw, at + 8, 8), "bitmap-directory")
        self.all_bitmaps = self.bitmaps()
        self.all_dirty = {name: self.dirty(e) for name, _, e in self.all_bitmaps}
        for _, _, e in self.all_bitmaps:
            self.claim(e["table_offset"], e["table_size"] * 8, "bitmap-table")
            for entry in entries(self.raw, e["table_offset"], e["table_size"]):
                if entry & OFFSET_MASK:
                    self.claim(entry & OFFSET_MASK, self.cluster_size, "bitmap-data")

    def claim_l2(self, offset, snapshot):
        self.claim(offset, self.cluster_size, "snapshot-l2" if snapshot else "active-l2")
        if offset in self.l2s:
            return
        self.l2s[offset] = self.l2_table(offset)
        for entry, _ in self.l2s[offset]:
            if self.features & DATA_FILE:
                continue
            if entry & COMPRESSED:
                self.claim(*self.compressed_place(entry), "compressed")
            elif entry & OFFSET_MASK:
                self.claim(entry & OFFSET_MASK, self.cluster_size, "data")

    def find_dependencies(self):
        """(host start, host end, state number, first guest cluster, end): damage in the
        host bytes may change these guest clusters, and no others."""
        deps, whole = [], 1 << 60
        fields = [(a, a + n) for name, a, n in HEADER_FIELDS if name in GUEST_FIELDS]
        for number, (offset, n, sn) in enumerate(self.l1s):
            if sn is None:
                deps += [(a, b, 0, 0, whole) for a, b in fields]
            else:
                # Entries stand one behind the other: a length that is wrong moves all that
                # follow it.
                first = self.snapshot_list[0].offset
                deps.append((first, sn.end, number, 0, whole))
                deps.append((60, 72, number, 0, whole))
                deps.append((0, 36, number, 0, whole))  # magic to crypt_method
            self.depend_on_l1(deps, number, offset, n)
        return deps

    def depend_on_l1(self, deps, number, offset, n):
        span = 1 << self.l2_bits
        for i, entry in enumerate(entries(self.raw, offset, n)):
            at = offset + i * 8
            deps.append((at, at + 8, number, i * span, (i + 1) * span))
            if not entry:
                continue
            l2_offset = entry & OFFSET_MASK
            self.l2_places.append((l2_offset, number, i * span))
            if self.features & DATA_FILE:
                continue
            for k, (l2, bitmap) in enumerate(self.l2s[l2_offset]):
                if l2 & COMPRESSED:
                    start, size = self.compressed_place(l2)
                elif l2 & OFFSET_MASK and (bitmap & 0xFFFFFFFF if self.words == 2 else
                                           not l2 & ZERO):
                    start, size = l2 & OFFSET_MASK, self.cluster_size
                else:
                    continue
                deps.append((start, start + size, number, i * span + k, i * span + k + 1))

    def hit_ranges(self, start, end):
        """State number -> list of guest cluster ranges that these host bytes decide."""
        hit = {}
        for a, b, number, first, last in self.depends:
            if a < end and start < b:
                hit.setdefault(number, []).append((first, last))
        for table, number, guest in self.l2_places:
            a, b = max(start, table), min(end, table + self.cluster_size)
            if a < b:
                n = self.entry_bytes
                hit.setdefault(number, []).append((guest + (a - table) // n,
                                                   guest + (b - table + n - 1) // n))
        return hit
