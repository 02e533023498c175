#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads qcow2 images by what qcow2(5) says, and by nothing else: what the page leaves out,
this cannot do. Shares no code with the program or with the other tests.

    reader.py raw IMAGE OUT [SNAPSHOT]    the guest disk, as a raw file
    reader.py check IMAGE [OUT MAP]       what must hold; the disk; MAP is QEMU's, as JSON
    reader.py info IMAGE INFO             what QEMU's info, as JSON, tells of the header,
                                          snapshots and bitmaps
    reader.py bitmap IMAGE NAME           the ranges that a bitmap says were written

PASSPHRASE in the environment opens an encrypted image.
"""

import collections
import ctypes
import hashlib
import json
import os
import struct
import sys
import zlib

OFFSET = ((1 << 56) - 1) & ~511
COPIED, COMPRESSED = 1 << 63, 1 << 62
DATA_FILE, COMPRESSION, EXTENDED = 1 << 2, 1 << 3, 1 << 4
FIELDS = ("magic version backing_file_offset backing_file_size cluster_bits size crypt_method "
          "l1_size l1_table_offset refcount_table_offset refcount_table_clusters nb_snapshots "
          "snapshots_offset").split()
MORE = ("incompatible_features compatible_features autoclear_features refcount_order "
        "header_length").split()
SNAPSHOT = ("l1_table_offset l1_size id_size name_size date_sec date_nsec vm_clock_nsec "
            "vm_state_size extra_data_size").split()
BITMAP = ("table_offset table_size flags type granularity_bits name_size "
          "extra_data_size").split()


def need(holds, what):
    """Something that the page says of every image."""
    if not holds:
        raise SystemExit(f"not as the page says: {what}")


class Raw:
    """A raw backing file."""

    def __init__(self, path):
        self.file = open(path, "rb")  # pylint: disable=consider-using-with
        self.size = os.stat(path).st_size

    def guest(self, at, n):
        """n bytes of the disk."""
        return os.pread(self.file.fileno(), n, at).ljust(n, b"\0")


class Image:
    """An open image."""

    def __init__(self, path):
        self.raw = Raw(path)
        self.folder = os.path.dirname(os.path.abspath(path))
        self.read_header()
        self.read_extensions()
        self.open_others()
        self.cipher = self.guest_cipher()
        self.l1 = self.table(self.h["l1_table_offset"], self.h["l1_size"])
        self.size = self.h["size"]

    # --- header ---

    def bytes(self, at, n):
        """Bytes of the file."""
        return self.raw.guest(at, n)

    def table(self, at, n):
        """Numbers of 8 bytes."""
        need(at % self.n == 0 and at + n * 8 <= -(-self.raw.size // self.n) * self.n,
             f"a table at {at:#x}")
        return struct.unpack(f">{n}Q", self.bytes(at, n * 8))

    def read_header(self):
        """Its fields, with those that version 2 implies."""
        h = dict(zip(FIELDS, struct.unpack(">IIQIIQIIQQIIQ", self.bytes(0, 72))))
        more = (0, 0, 0, 4, 72)
        if h["version"] == 3:
            more = struct.unpack(">QQQII", self.bytes(72, 32))
        h.update(zip(MORE, more))
        h["compression_type"] = self.bytes(104, 1)[0] if h["header_length"] > 104 else 0
        self.h, self.n, self.features = h, 1 << h["cluster_bits"], h["incompatible_features"]
        need(h["magic"] == 0x514649FB and h["version"] in (2, 3), "magic and version")
        need(9 <= h["cluster_bits"] <= 21, "cluster_bits")
        need(self.features < 32 and h["refcount_order"] <= 6, "features, refcount_order")
        need(bool(self.features & COMPRESSION) == bool(h["compression_type"]), "compression")
        need(h["version"] == 2 or h["header_length"] >= 104 and h["header_length"] % 8 == 0,
             "header_length")
        self.words = 2 if self.features & EXTENDED else 1
        self.entries = self.n // 8 // self.words
        self.grains = 32 if self.words == 2 else 1

    def read_extensions(self):
        """Type -> data."""
        self.ext, at = {}, self.h["header_length"]
        end = self.h["backing_file_offset"] or self.n
        while at + 8 <= end:
            kind, n = struct.unpack(">II", self.bytes(at, 8))
            if kind == 0:
                break
            need(at + 8 + n <= end and kind not in self.ext, f"extension {kind:#x}")
            self.ext[kind] = self.bytes(at + 8, n)
            at += 8 + (n + 7) // 8 * 8

    def open_others(self):
        """The backing file, and the file with the guest's data."""
        self.backing, self.data = None, self.raw
        if self.h["backing_file_offset"]:
            name = self.bytes(self.h["backing_file_offset"], self.h["backing_file_size"])
            path = os.path.join(self.folder, name.decode())
            self.backing = {b"raw": Raw, b"qcow2": Image}[self.ext[0xE2792ACA]](path)
        if self.features & DATA_FILE:
            self.data = Raw(self.ext[0x44415441].decode())

    # --- mapping ---

    def entry(self, l1, index):
        """The words of the L2 entry of a guest cluster: (first, bits of subclusters)."""
        i, k = divmod(index, self.entries)
        offset = l1[i] & OFFSET if i < len(l1) else 0
        if not offset:
            return 0, 0
        words = self.l2(offset)[k * self.words:(k + 1) * self.words]
        return words if self.words == 2 else (words[0], 0)

    def l2(self, offset):
        """An L2 table; the last one is kept."""
        if getattr(self, "last", (None,))[0] != offset:
            self.last = (offset, self.table(offset, self.n // 8))
        return self.last[1]

    def compressed_place(self, entry):
        """Offset and bytes at most."""
        x = 70 - self.h["cluster_bits"]
        offset = entry & ((1 << x) - 1)
        sectors = (entry >> x) & ((1 << (62 - x)) - 1)
        return offset, 512 * (sectors + 1) - offset % 512

    def states(self, entry, bits):
        """What each grain is: "stored", "zero" or "below"."""
        stored = entry & OFFSET or self.features & DATA_FILE and entry & COPIED
        if self.words == 1:
            zero = self.h["version"] == 3 and entry & 1
            return ["zero" if zero else "stored" if stored else "below"]
        return ["stored" if bits >> i & 1 else "zero" if bits >> 32 + i & 1 else "below"
                for i in range(32)]

    def cluster(self, l1, index):
        """The bytes of a guest cluster."""
        entry, bits = self.entry(l1, index)
        if entry & COMPRESSED:
            return self.decompress(self.bytes(*self.compressed_place(entry)))
        out, step = [], self.n // self.grains
        for i, state in enumerate(self.states(entry, bits)):
            guest = index * self.n + i * step
            if state == "stored":
                out.append(self.load((entry & OFFSET) + i * step, guest, step))
            elif state == "below" and self.backing and guest < self.backing.size:
                n = min(step, self.backing.size - guest)
                out.append(self.backing.guest(guest, n).ljust(step, b"\0"))
            else:
                out.append(bytes(step))
        return b"".join(out)

    def load(self, host, guest, n):
        """Stored bytes, decrypted."""
        data = self.data.guest(host, n)
        if not self.cipher:
            return data
        first = (guest if self.h["crypt_method"] == 1 else host) // 512
        return self.cipher.decrypt(data, first)

    def decompress(self, packed):
        """One cluster."""
        if self.h["compression_type"] == 0:
            return zlib.decompressobj(-12).decompress(packed, self.n)
        lib, out = ctypes.CDLL("libzstd.so.1"), ctypes.create_string_buffer(self.n)
        lib.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
        n = lib.ZSTD_findFrameCompressedSize(packed, ctypes.c_size_t(len(packed)))
        lib.ZSTD_decompress(out, ctypes.c_size_t(self.n), packed, ctypes.c_size_t(n))
        return out.raw

    def guest(self, at, n):
        """n bytes of the active disk."""
        first, end = at // self.n, -(-(at + n) // self.n)
        found = b"".join(self.cluster(self.l1, i) for i in range(first, end))
        return found[at - first * self.n:][:n]

    def write_raw(self, path, snapshot=None):
        """The disk, or a snapshot's, with holes for what is zero."""
        l1, size = self.l1, self.size
        if snapshot:
            sn = next(s for s in self.snapshots()[0] if s["name"] == snapshot.encode())
            l1, size = self.table(sn["l1_table_offset"], sn["l1_size"]), sn["disk_size"]
        with open(path, "wb") as out:
            out.truncate(size)
            for i in range(-(-size // self.n)):
                data = self.cluster(l1, i)
                if any(data):
                    os.pwrite(out.fileno(), data[:size - i * self.n], i * self.n)

    # --- snapshots and bitmaps ---

    def snapshots(self):
        """The entries of the snapshot table, and where it ends."""
        at, found = self.h["snapshots_offset"], []
        for _ in range(self.h["nb_snapshots"]):
            s = dict(zip(SNAPSHOT, struct.unpack(">QIHHIIQII", self.bytes(at, 40))))
            extra = self.bytes(at + 40, s["extra_data_size"])
            s["disk_size"] = struct.unpack(">Q", extra[8:16])[0] if len(extra) >= 16 else self.size
            start = at + 40 + len(extra)
            s["id"] = self.bytes(start, s["id_size"])
            s["name"] = self.bytes(start + s["id_size"], s["name_size"])
            n = 40 + len(extra) + s["id_size"] + s["name_size"]
            at += (n + 7) // 8 * 8
            found.append(s)
        return found, at if found else 0

    def bitmaps(self):
        """The entries of the bitmap directory."""
        if 0x23852875 not in self.ext or not self.h["autoclear_features"] & 1:
            return []
        count, zero, length, at = struct.unpack(">IIQQ", self.ext[0x23852875])
        need(zero == 0 and at % self.n == 0, "bitmaps extension")
        found, end = [], at + length
        for _ in range(count):
            b = dict(zip(BITMAP, struct.unpack(">QIIBBHI", self.bytes(at, 24))))
            n = 24 + b["extra_data_size"] + b["name_size"]
            b["name"] = self.bytes(at + n - b["name_size"], b["name_size"]).decode()
            need(b["type"] == 1 and b["flags"] < 8, "a bitmap's type and flags")
            at += (n + 7) // 8 * 8
            found.append(b)
        need(at == end, "length of the bitmap directory")
        return found

    def written(self, name):
        """Ranges that a bitmap has, as (start, end)."""
        b = next(b for b in self.bitmaps() if b["name"] == name)
        bits = b""
        for entry in self.table(b["table_offset"], b["table_size"]):
            offset = entry & OFFSET
            bits += self.bytes(offset, self.n) if offset else (b"\xff" if entry & 1 else
                                                               b"\0") * self.n
        granule, found = 1 << b["granularity_bits"], []
        for k in range(-(-self.size // granule)):
            if bits[k // 8] >> k % 8 & 1:
                if found and found[-1][1] == k * granule:
                    found.pop()
                    found.append((start, (k + 1) * granule))
                else:
                    start = k * granule
                    found.append((start, (k + 1) * granule))
        return found

    def told(self):
        """What info tells, of version 3."""
        h, clear = self.h, self.h["autoclear_features"]
        need(h["version"] == 3, "version")
        data = {"compat": "1.1", "refcount-bits": 1 << h["refcount_order"],
                "lazy-refcounts": bool(h["compatible_features"] & 1),
                "corrupt": bool(self.features & 2), "extended-l2": bool(self.features & EXTENDED),
                "compression-type": ("zlib", "zstd")[h["compression_type"]]}
        if self.features & DATA_FILE:
            data["data-file"] = self.ext[0x44415441].decode()
            data["data-file-raw"] = bool(clear & 2)
        flags = ("in-use", "auto")
        bitmaps = [{"name": b["name"], "granularity": 1 << b["granularity_bits"],
                    "flags": [f for i, f in enumerate(flags) if b["flags"] >> i & 1]}
                   for b in self.bitmaps()]
        if bitmaps:
            data["bitmaps"] = bitmaps
        found = {"virtual-size": self.size, "cluster-size": self.n,
                 "dirty-flag": bool(self.features & 1), "data": data}
        if self.backing:
            at, n = h["backing_file_offset"], h["backing_file_size"]
            found["backing-filename"] = self.bytes(at, n).decode()
            found["backing-filename-format"] = self.ext[0xE2792ACA].decode()
        snapshots = [{"id": s["id"].decode(), "name": s["name"].decode(),
                      "vm-state-size": s["vm_state_size"], "date-sec": s["date_sec"],
                      "date-nsec": s["date_nsec"], "vm-clock-sec": s["vm_clock_nsec"] // 10**9,
                      "vm-clock-nsec": s["vm_clock_nsec"] % 10**9} for s in self.snapshots()[0]]
        if snapshots:
            found["snapshots"] = snapshots
        return found

    def compare_info(self, path):
        """Every word of it."""
        with open(path, encoding="utf-8") as f:
            info = json.load(f)
        info["data"] = info.get("format-specific", {}).get("data")
        for name, value in self.told().items():
            theirs = info.get(name)
            if name == "snapshots":
                theirs = [{k: t.get(k) for k in value[0]} for t in theirs]
            need(theirs == value, f"{name}: {value}, to QEMU {theirs}")
        need("snapshots" in self.told() or "snapshots" not in info, "snapshots")

    # --- encryption ---

    def guest_cipher(self):
        """Of guest data; None: not encrypted."""
        secret = os.environ.get("PASSPHRASE", "").encode()
        if self.h["crypt_method"] == 0:
            return None
        if self.h["crypt_method"] == 1:
            return Cipher("aes", "cbc-plain64", secret[:16].ljust(16, b"\0"))
        at, length = struct.unpack(">QQ", self.ext[0x0537BE77])
        head = self.bytes(at, 592)
        need(at % self.n == 0 and head[:8] == b"LUKS\xba\xbe\0\1", "LUKS header")
        name, mode, digest = (head[i:i + 32].rstrip(b"\0").decode() for i in (8, 40, 72))
        n = int.from_bytes(head[108:112], "big")
        for slot in range(8):
            state, count, salt, place, stripes = struct.unpack(
                ">II32sII", head[208 + slot * 48:256 + slot * 48])
            need(state in (0x00AC71F3, 0xDEAD) and stripes == 4000, "a key slot")
            if state == 0xDEAD:
                continue
            need(place * 512 + n * 4000 <= length, "place of key material")
            key = hashlib.pbkdf2_hmac(digest, secret, salt, count, n)
            material = Cipher(name, mode, key).decrypt(self.bytes(at + place * 512, n * 4000), 0)
            master = merge(material, n, digest)
            again = hashlib.pbkdf2_hmac(digest, master, head[132:164],
                                        int.from_bytes(head[164:168], "big"), 20)
            if again == head[112:132]:
                return Cipher(name, mode, master)
        raise SystemExit("no slot opens")

    # --- what must hold ---

    def users(self):
        """Host cluster -> how many users it has by the page's list."""
        count, bits = collections.Counter(), self.h["cluster_bits"]

        def use(at, n_bytes, aligned=True):
            need(not aligned or at % self.n == 0, f"a place at {at:#x}")
            for k in range(at >> bits, (at + n_bytes + self.n - 1) >> bits):
                count[k] += 1
        h = self.h
        use(0, 1)
        use(h["refcount_table_offset"], h["refcount_table_clusters"] * self.n)
        for block in self.blocks:
            if block:
                use(block, self.n)
        snapshots, end = self.snapshots()
        use(h["snapshots_offset"], end - h["snapshots_offset"] if snapshots else 0)
        if h["crypt_method"] == 2:
            use(*struct.unpack(">QQ", self.ext[0x0537BE77]))
        if self.bitmaps():
            use(*reversed(struct.unpack(">QQ", self.ext[0x23852875][8:])))
        for b in self.bitmaps():
            use(b["table_offset"], b["table_size"] * 8)
            for entry in self.table(b["table_offset"], b["table_size"]):
                use(entry & OFFSET, self.n if entry & OFFSET else 0)
        tables = [(s["l1_table_offset"], s["l1_size"]) for s in snapshots]
        for at, n in tables + [(h["l1_table_offset"], h["l1_size"])]:
            use(at, n * 8)
            for l1_entry in self.table(at, n):
                need(l1_entry & ~(OFFSET | COPIED) == 0, "an L1 entry")
                if l1_entry & OFFSET:
                    use(l1_entry & OFFSET, self.n)
                    self.use_l2(l1_entry & OFFSET, use)
        return count

    def use_l2(self, offset, use):
        """What an L2 table leads to."""
        for entry in self.l2(offset)[::self.words]:
            if self.features & DATA_FILE:
                continue
            if entry & COMPRESSED:
                at, n = self.compressed_place(entry)
                last = (at + n - 1) // 512 * 512
                use(at // self.n * self.n, last + 512 - at // self.n * self.n)
            elif entry & OFFSET:
                need(entry & 0x3F000000000001FE == 0, "an L2 entry")
                use(entry & OFFSET, self.n)

    def counts(self):
        """Host cluster -> refcount."""
        width, found = 1 << self.h["refcount_order"], {}
        per_block = 8 * self.n // width
        for i, block in enumerate(self.blocks):
            data = self.bytes(block, self.n) if block else b""
            if not any(data):
                continue
            for k in range(per_block):
                if width >= 8:
                    value = int.from_bytes(data[k * width // 8:(k + 1) * width // 8], "big")
                else:
                    value = data[k * width // 8] >> k * width % 8 & ((1 << width) - 1)
                if value:
                    found[i * per_block + k] = value
        return found

    def check(self):
        """Refcounts, COPIED flags."""
        h = self.h
        self.blocks = self.table(h["refcount_table_offset"],
                                 h["refcount_table_clusters"] * self.n // 8)
        count = self.counts()
        need(count == dict(self.users()), "refcounts and users")
        for l1_entry in self.l1:
            at = l1_entry & OFFSET
            one = at and count[at // self.n] == 1
            need(bool(l1_entry & COPIED) == bool(one), "COPIED of an L1 entry")
            for entry in self.l2(at)[::self.words] if at else ():
                host = entry & OFFSET
                one = not entry & COMPRESSED and host and count.get(host // self.n) == 1
                need(self.features & DATA_FILE or bool(entry & COPIED) == bool(one),
                     "COPIED of an L2 entry")

    def compare_map(self, path):
        """QEMU finds stored data where the mapping has them, and nowhere else."""
        with open(path, encoding="utf-8") as f:
            extents = json.load(f)
        step = self.n // self.grains
        for e in (e for e in extents if e["depth"] == 0):
            for at in range(e["start"], e["start"] + e["length"], step):
                entry, bits = self.entry(self.l1, at // self.n)
                i = at % self.n // step
                state = self.states(entry, bits)[i if self.words == 2 else 0]
                stored = bool(entry & COMPRESSED) or state == "stored"
                # Of a cluster that is a hole in the file QEMU may say that it is zeros.
                hole = stored and e["zero"] and not any(self.guest(at, step))
                need(stored == e["data"] or hole, f"data at {at:#x}")
                if stored and "offset" in e:
                    host = (entry & OFFSET) + at % self.n
                    need(host == e["offset"] + at - e["start"], f"place of {at:#x}")


def merge(material, n, digest):
    """The master key out of its stripes."""
    size, key = hashlib.new(digest).digest_size, bytes(n)
    for i in range(0, len(material), n):
        key = bytes(a ^ b for a, b in zip(key, material[i:i + n]))
        if i + n < len(material):
            key = b"".join(hashlib.new(digest, struct.pack(">I", k) + key[k * size:(k + 1) * size])
                           .digest()[:len(key[k * size:(k + 1) * size])]
                           for k in range(-(-n // size)))
    return key


class Cipher:
    """Sectors under a key; the block cipher is libgcrypt's."""

    def __init__(self, name, mode, key):
        self.lib = ctypes.CDLL("libgcrypt.so.20")
        self.lib.gcry_check_version(None)
        mode, ivgen = mode.split("-", 1)
        self.mode, self.ivgen = mode, ivgen
        family = {16: "128", 24: "192", 32: "256"}
        size = len(key) // (2 if mode == "xts" else 1)
        self.handle = self.open(name, family[size], {"cbc": 3, "xts": 13}[mode], key)
        if ivgen.startswith("essiv:"):
            salt = hashlib.new(ivgen[6:], key).digest()
            self.essiv = self.open(name, family[len(salt)], 1, salt)

    def open(self, name, bits, mode, key):
        """A handle of libgcrypt."""
        number = self.lib.gcry_cipher_map_name((name + bits).encode())
        handle = ctypes.c_void_p()
        need(not self.lib.gcry_cipher_open(ctypes.byref(handle), number, mode, 0), "cipher")
        need(not self.lib.gcry_cipher_setkey(handle, key, ctypes.c_size_t(len(key))), "key")
        return handle

    def initial(self, sector):
        """The initial value."""
        value = struct.pack("<QQ", sector & 0xFFFFFFFF if self.ivgen == "plain" else sector, 0)
        if self.ivgen.startswith("essiv:"):
            out = ctypes.create_string_buffer(16)
            self.lib.gcry_cipher_encrypt(self.essiv, out, ctypes.c_size_t(16), value,
                                         ctypes.c_size_t(16))
            value = out.raw
        return value

    def decrypt(self, data, first):
        """Whole sectors, the first with this number."""
        found = []
        for i in range(0, len(data), 512):
            part, value = data[i:i + 512], self.initial(first + i // 512)
            out, n = ctypes.create_string_buffer(len(part)), ctypes.c_size_t(len(part))
            self.lib.gcry_cipher_setiv(self.handle, value, ctypes.c_size_t(16))
            self.lib.gcry_cipher_decrypt(self.handle, out, n, part, n)
            found.append(out.raw)
        return b"".join(found)


def main():
    command, path, *rest = sys.argv[1:]
    image = Image(path)
    if command == "raw":
        image.write_raw(*rest)
    elif command == "info":
        image.compare_info(*rest)
    elif command == "bitmap":
        print(*(f"{a}-{b}" for a, b in image.written(rest[0])))
    else:
        image.check()
        if rest:
            image.write_raw(rest[0])
            image.compare_map(rest[1])


if __name__ == "__main__":
    main()
