# SPDX-License-Identifier: MIT
"""Every single damage of the matrix: each field of each structure of an image, times the
ways in which it can go wrong. A damage is plain data; the same image gives the same list."""

import random
import zlib

from qcow2format import (BITMAP_FIELDS, BITMAPS, COMPRESSED, COPIED, CRYPTO, HEADER_FIELDS,
                         OFFSET_MASK, SNAPSHOT_FIELDS, ZERO, be, entries)

OFFSET_FIELDS = {"backing_file_offset", "l1_table_offset", "refcount_table_offset",
                 "snapshots_offset"}
METADATA = ["header", "active-l1", "snapshot-l1", "active-l2", "snapshot-l2",
            "refcount-table", "refcount-block", "snapshot-table", "luks-header",
            "bitmap-directory", "bitmap-table", "bitmap-data"]


class Damage:
    """Bytes written over the image at offset, or (data None) the file cut there."""

    def __init__(self, image, structure, place, kind, offset, data):
        self.image, self.structure, self.place, self.kind = image, structure, place, kind
        self.offset, self.data = offset, data
        self.again = False  # of a like place as an earlier one: left out of a shorter run

    @property
    def name(self):
        return "/".join((self.image, self.structure, self.place, self.kind))

    def apply(self, raw):
        if self.data is None:
            return raw[:self.offset]
        return raw[:self.offset] + self.data + raw[self.offset + len(self.data):]

    def range(self, raw):
        """The host bytes that were hit."""
        if self.data is None:
            return self.offset, len(raw)
        return self.offset, self.offset + len(self.data)


def seeded(*words):
    return random.Random(zlib.crc32("/".join(map(str, words)).encode()))


class Maker:
    """Collects the damages of one image."""

    def __init__(self, name, layout):
        self.name, self.layout, self.list = name, layout, []
        self.bits, self.cluster_size = layout.bits, layout.cluster_size
        self.end = (len(layout.raw) + self.cluster_size - 1) // self.cluster_size \
            * self.cluster_size
        self.homes = {}  # kind of cluster -> host offsets
        for cluster, kind in sorted(layout.kinds.items()):
            self.homes.setdefault(kind, []).append(cluster << self.bits)

    def add(self, structure, place, kind, offset, data):
        now = self.layout.raw[offset:offset + len(data)]
        if data != now.ljust(len(data), b"\0"):
            self.list.append(Damage(self.name, structure, place, kind, offset, data))

    def number(self, structure, place, kind, offset, n_bytes, value):
        value &= (1 << 8 * n_bytes) - 1
        self.add(structure, place, kind, offset, value.to_bytes(n_bytes, "big"))

    def targets(self, value):
        """Where an offset may be led astray to: (kind, host offset)."""
        now = value & OFFSET_MASK
        found = [("past-end", self.end + 16 * self.cluster_size),
                 ("far-past-end", 1 << 50)]
        for kind in METADATA:
            places = [p for p in self.homes.get(kind, []) if p != now]
            if places:
                found.append(("onto-" + kind, places[-1]))
        others = [p for p in self.homes.get("data", []) if p != now]
        if others:
            found += [("onto-data", others[0]), ("onto-other-data", others[-1])]
        if self.homes.get("compressed"):
            found.append(("onto-compressed", self.homes["compressed"][0]))
        return found

    def plain(self, structure, place, offset, n_bytes, bits):
        """Ways to go wrong of a number that is no offset."""
        value = be(self.layout.raw, offset, n_bytes)
        seed = seeded(structure, place, offset)
        wrong = [("zero", 0), ("ones", -1), ("random", seed.getrandbits(8 * n_bytes)),
                 ("plus-one", value + 1), ("minus-one", value - 1), ("double", value * 2)]
        wrong += [("flip-%d" % b, value ^ (1 << b)) for b in bits if b < 8 * n_bytes]
        for kind, new in wrong:
            self.number(structure, place, kind, offset, n_bytes, new)

    def offset_field(self, structure, place, offset):
        """A 64-bit offset without flags."""
        value = be(self.layout.raw, offset, 8)
        for bit in (0, 3, 9, self.bits, self.bits + 1, self.bits + 4, 40, 57, 63):
            self.number(structure, place, "flip-%d" % bit, offset, 8, value ^ (1 << bit))
        for kind, new in [("zero", 0), ("ones", -1),
                          ("random", seeded(structure, place).getrandbits(64)),
                          ("sector-off", value + 512),
                          ("cluster-off", value + self.cluster_size),
                          ("cluster-before", value - self.cluster_size),
                          *self.targets(value)]:
            self.number(structure, place, kind, offset, 8, new)

    def entry(self, structure, place, offset):
        """An entry of an L1 or L2 table or of the refcount table."""
        value = be(self.layout.raw, offset, 8)
        flag = 0 if structure == "refcount table entry" else COPIED
        keep = value & ~OFFSET_MASK if value & OFFSET_MASK else flag
        wrong = [("zero", 0), ("ones", -1),
                 ("random", seeded(structure, place).getrandbits(64)),
                 ("sector-off", value + 512), ("cluster-off", value + self.cluster_size),
                 ("cluster-before", value - self.cluster_size)]
        if value & COMPRESSED:
            mask = (1 << (62 - (self.bits - 8))) - 1
            keep = value & ~mask
            wrong += [("longest", value | (((1 << 62) - 1) & ~mask)),
                      ("byte-off", value + 1)]
        bits = {0, 1, 8, 9, self.bits - 1, self.bits, self.bits + 1, self.bits + 4, 40, 56,
                61, 62, 63}
        wrong += [("flip-%d" % b, value ^ (1 << b)) for b in sorted(bits)]
        wrong += [(kind, keep | to) for kind, to in self.targets(value)]
        for kind, new in wrong:
            self.number(structure, place, kind, offset, 8, new)

    # --- the structures ---

    def header(self):
        version = self.layout.header["version"]
        for name, at, n in HEADER_FIELDS:
            if version == 2 and at >= 72:
                break
            if name in OFFSET_FIELDS:
                self.offset_field("header " + name, "-", at)
            elif name.endswith("features"):
                self.plain("header " + name, "-", at, n, (0, 1, 2, 3, 4, 5, 40, 63))
            else:
                self.plain("header " + name, "-", at, n, (0, 1, 2, 4, 16, 30, 31, 40, 62))

    def extensions(self):
        raw, h = self.layout.raw, self.layout.header
        at = h["header_length"]
        for index in range(16):
            kind, n = be(raw, at, 4), be(raw, at + 4, 4)
            place = "%d:%08x" % (index, kind)
            self.plain("extension type", place, at, 4, (0, 7, 31))
            self.plain("extension length", place, at + 4, 4, (0, 3, 9, 16, 31))
            if kind == 0:
                break
            seed = seeded("extension", index)
            self.add("extension data", place, "zero", at + 8, bytes(n))
            self.add("extension data", place, "ones", at + 8, b"\xff" * n)
            self.add("extension data", place, "random", at + 8, seed.randbytes(n))
            at += 8 + (n + 7) // 8 * 8
        self.extension_fields()
        n = h["backing_file_size"]
        if h["backing_file_offset"]:
            at = h["backing_file_offset"]
            self.add("backing file name", "-", "zero", at, bytes(n))
            self.add("backing file name", "-", "ones", at, b"\xff" * n)

    def extension_fields(self):
        """Of those that name places."""
        at = self.layout.extension(BITMAPS)
        if at:
            self.plain("bitmaps extension", "nb_bitmaps", at, 4, (0, 1, 2, 16, 31))
            self.plain("bitmaps extension", "reserved", at + 4, 4, (0, 31))
            self.plain("bitmaps extension", "size", at + 8, 8, (0, 3, 5, 12, 40, 63))
            self.offset_field("bitmaps extension", "offset", at + 16)
        at = self.layout.extension(CRYPTO)
        if at:
            self.offset_field("crypto extension", "offset", at)
            self.plain("crypto extension", "length", at + 8, 8, (0, 9, 12, 13, 20, 40, 63))
            luks = be(self.layout.raw, at, 8)
            self.plain("luks header", "magic", luks, 4, (0, 31))
            self.plain("luks header", "version", luks + 6, 2, (0, 15))
            self.plain("luks header", "payload_offset", luks + 104, 4, (0, 4, 30))
            self.plain("luks header", "slot 0 state", luks + 208, 4, (0, 31))

    def bitmaps(self):
        """The directory's entries and those of the tables."""
        for number, (name, offset, e) in enumerate(self.layout.all_bitmaps):
            for field, at, n in BITMAP_FIELDS:
                if field == "table_offset":
                    self.offset_field("bitmap " + field, str(number), offset + at)
                else:
                    self.plain("bitmap " + field, str(number), offset + at, n,
                               (0, 1, 2, 3, 5, 12, 31))
            for kind, data in (("zero", bytes(len(name))), ("ones", b"\xff" * len(name)),
                               ("flip", bytes([name[0] ^ 4]) + name[1:])):
                self.add("bitmap name", str(number), kind, offset + 24, data)
            for i in range(e["table_size"]):
                at = e["table_offset"] + i * 8
                value = be(self.layout.raw, at, 8)
                self.entry("bitmap table entry%s" % ("" if value else ", empty"),
                           "%d:%d" % (number, i), at)

    def tables(self):
        raw = self.layout.raw
        for number, (offset, n, snapshot) in enumerate(self.layout.l1s):
            name = "L1 entry, snapshot" if snapshot else "L1 entry, active"
            l1 = entries(raw, offset, n)
            used = [i for i in range(n) if l1[i]]
            free = [i for i in range(n) if not l1[i]]
            for i in used[:3] + free[:1]:
                self.entry(name, "%d:%d%s" % (number, i, "" if l1[i] else "(empty)"),
                           offset + i * 8)
        for offset, l2 in sorted(self.layout.l2s.items()):
            kind = self.layout.kinds[offset >> self.bits]
            self.l2_entries("L2 entry, snapshot" if kind == "snapshot-l2" else
                            "L2 entry, active", offset, l2)

    def l2_entries(self, structure, offset, l2):
        """The first two entries of each kind."""
        seen, size = {}, self.layout.entry_bytes
        for i, (value, bitmap) in enumerate(l2):
            kind = ("compressed" if value & COMPRESSED else
                    "empty" if value == 0 and bitmap == 0 else
                    self.kind_by_bitmap(value, bitmap) if size == 16 else
                    "zero" if value == ZERO else
                    "zero-allocated" if value & ZERO else
                    "normal" if value & COPIED else "shared")
            seen[kind] = seen.get(kind, 0) + 1
            if seen[kind] <= (1 if kind == "empty" else 2):
                before = len(self.list)
                self.entry("%s, %s" % (structure, kind),
                           "0x%x:%d" % (offset, i), offset + i * size)
                if size == 16:
                    self.plain("%s, %s, bitmap" % (structure, kind),
                               "0x%x:%d" % (offset, i), offset + i * size + 8, 8,
                               (0, 3, 9, 31, 32, 35, 41, 63))
                for damage in self.list[before:]:
                    damage.again = seen[kind] > 1

    @staticmethod
    def kind_by_bitmap(value, bitmap):
        owner = "shared" if value & OFFSET_MASK and not value & COPIED else "own"
        if bitmap & 0xFFFFFFFF == 0:
            return "zero" if not value & OFFSET_MASK else "zero-allocated"
        return owner + (" whole" if bitmap == 0xFFFFFFFF else " mixed")

    def refcounts(self):
        h = self.layout.header
        at = h["refcount_table_offset"]
        used = [i for i, e in enumerate(self.layout.reftable) if e]
        for i in used[:2] + [len(used)]:
            self.entry("refcount table entry", "%d%s" % (i, "" if i in used else "(empty)"),
                       at + i * 8)
        chosen = {}
        for cluster, kind in sorted(self.layout.kinds.items()):
            chosen.setdefault(kind, []).append(cluster)
        chosen["free"] = [self.end >> self.bits, (self.end >> self.bits) + 3]
        for kind, clusters in chosen.items():
            for cluster in clusters[:2] + clusters[-1:]:
                self.refcount("refcount of " + kind, cluster)

    def refcount(self, structure, cluster):
        bits, per_block = self.layout.refcount_bits, self.layout.refblock_entries
        entry = self.layout.reftable[cluster // per_block]
        if not entry:
            return
        at = entry + cluster % per_block * bits // 8
        place = "cluster %d" % cluster
        if bits < 8:
            shift = cluster % per_block * bits % 8
            byte = self.layout.raw[at]
            self.add(structure, place, "inverted", at, bytes([byte ^ (1 << shift)]))
            return
        n = bits // 8
        self.plain(structure, place, at, n, (0, 1, 3, bits - 1))
        self.number(structure, place, "two", at, n, 2)

    def snapshots(self):
        raw = self.layout.raw
        for number, sn in enumerate(self.layout.snapshot_list):
            place = str(number)
            for name, at, n in SNAPSHOT_FIELDS:
                if name == "l1_table_offset":
                    self.offset_field("snapshot " + name, place, sn.offset + at)
                else:
                    self.plain("snapshot " + name, place, sn.offset + at, n,
                               (0, 1, 3, 12, 31))
            for k, name in enumerate(("vm_state_size_large", "disk_size", "icount")):
                if len(sn.extra) >= (k + 1) * 8:
                    self.plain("snapshot " + name, place, sn.offset + 40 + k * 8, 8,
                               (0, 9, self.bits, 40, 63))
            for name, at, n in (("id", sn.id_offset, sn.id_size),
                                ("name", sn.name_offset, sn.name_size)):
                self.add("snapshot " + name, place, "zero", at, bytes(n))
                self.add("snapshot " + name, place, "ones", at, b"\xff" * n)
                self.add("snapshot " + name, place, "flip", at,
                         bytes([raw[at] ^ 4]) + raw[at + 1:at + n])
            self.add("snapshot id", place, "duplicate", sn.id_offset,
                     self.layout.snapshot_list[1 - number].id
                     if len(self.layout.snapshot_list) > 1 else sn.id)

    def whole_tables(self):
        """A whole cluster of metadata, or a sector of it, overwritten."""
        raw, data = self.layout.raw, self.homes.get("data", [0])
        for kind, places in sorted(self.homes.items()):
            if kind in ("data", "compressed", "header"):
                continue
            for at in places[:2]:
                n = min(self.cluster_size, len(raw) - at)
                name, place = "whole " + kind, "0x%x" % at
                self.add(name, place, "zero", at, bytes(n))
                self.add(name, place, "ones", at, b"\xff" * n)
                self.add(name, place, "random", at, seeded(name, at).randbytes(n))
                self.add(name, place, "sector-zero", at, bytes(512))
                self.add(name, place, "sector-random", at,
                         seeded(name, at, 1).randbytes(512))
                self.add(name, place, "data", at, raw[data[0]:data[0] + n])
                self.add(name, place, "text", at, (b"no table at all. " * n)[:n])
                self.whole_copies(name, place, at, n)

    def whole_copies(self, name, place, at, n):
        for other in METADATA[1:]:
            source = [p for p in self.homes.get(other, []) if p != at]
            if source:
                self.add(name, place, "copy-of-" + other, at,
                         self.layout.raw[source[0]:source[0] + n])

    def truncations(self):
        raw = self.layout.raw
        # Without its backing file's name an image is another one.
        start = (self.layout.header["backing_file_offset"] + 64 + 511) // 512 * 512
        places = {start: "512 bytes", self.cluster_size: "header only",
                  len(raw) - 512: "sector less", len(raw) // 2: "half",
                  self.end - self.cluster_size: "cluster less",
                  len(raw) * 3 // 4 // 512 * 512 + 100: "three quarters, odd"}
        for kind, clusters in self.homes.items():
            for at in {clusters[0], clusters[-1]}:
                places[at] = "before %s 0x%x" % (kind, at)
                places[at + self.cluster_size // 2] = "in %s 0x%x" % (kind, at)
        for at, place in sorted(places.items()):
            if 0 < at < len(raw):
                kind = place.split(" 0x")[0].replace(" ", "-")
                self.list.append(Damage(self.name, "file cut", "0x%x" % at, kind, at, None))


def all_damages(name, layout):
    m = Maker(name, layout)
    m.header()
    if layout.header["version"] >= 3:
        m.extensions()
    m.tables()
    m.bitmaps()
    m.refcounts()
    m.snapshots()
    m.whole_tables()
    m.truncations()
    seen, unique = set(), []
    for d in m.list:
        key = (d.offset, d.data)
        if key not in seen:
            seen.add(key)
            unique.append(d)
    return unique
