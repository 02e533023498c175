#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes and damages disk images for the tests.

It knows the qcow2 format by itself and shares no code with the program under test, nor
with QEMU: a misreading of the format would have to be made twice to go unseen. Everything
random comes from a seed.
"""

import argparse
import os
import random
import struct
import sys

# Name: (offset, struct format). The version 3 fields end at 104; compression_type follows.
FIELDS = {
    "magic": (0, ">I"),
    "version": (4, ">I"),
    "backing_file_offset": (8, ">Q"),
    "backing_file_size": (16, ">I"),
    "cluster_bits": (20, ">I"),
    "size": (24, ">Q"),
    "crypt_method": (32, ">I"),
    "l1_size": (36, ">I"),
    "l1_table_offset": (40, ">Q"),
    "refcount_table_offset": (48, ">Q"),
    "refcount_table_clusters": (56, ">I"),
    "nb_snapshots": (60, ">I"),
    "snapshots_offset": (64, ">Q"),
    "incompatible_features": (72, ">Q"),
    "compatible_features": (80, ">Q"),
    "autoclear_features": (88, ">Q"),
    "refcount_order": (96, ">I"),
    "header_length": (100, ">I"),
    "compression_type": (104, ">B"),
}
EXTENSIONS = {
    "end": 0x00000000,
    "backing_format": 0xE2792ACA,
    "feature_table": 0x6803F857,
    "bitmaps": 0x23852875,
    "crypto": 0x0537BE77,
    "data_file": 0x44415441,
}
OFFSET_MASK = 0x00FFFFFFFFFFFE00


def number(text):
    """A number with an optional suffix; negative ones wrap at 64 bits."""
    units = {"k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
    shift = units.get(text[-1].lower(), 0) if not text.startswith("0x") else 0
    value = int(text[:-1], 10) if shift else int(text, 0)
    return value << shift


def changed(old, text):
    """A new value: a number, or what is to be toggled in the old one ("^0x40")."""
    value = old ^ number(text[1:]) if text.startswith("^") else number(text)
    return value % (1 << 64)


class Image:
    """A qcow2 file, opened for looking things up and for changing bytes in place."""

    def __init__(self, path, writable=False):
        self.file = open(path, "r+b" if writable else "rb")

    def read(self, offset, fmt):
        self.file.seek(offset)
        raw = self.file.read(struct.calcsize(fmt))
        return struct.unpack(fmt, raw.ljust(struct.calcsize(fmt), b"\0"))[0]

    def write(self, offset, raw):
        self.file.seek(offset)
        self.file.write(raw)

    def get(self, name):
        return self.read(*FIELDS[name])

    def set(self, name, value):
        offset, fmt = FIELDS[name]
        bits = 8 * struct.calcsize(fmt)
        self.write(offset, struct.pack(fmt, value % (1 << bits)))

    def l1_entry(self, guest, snapshot=None):
        """Host offset of the L1 entry that maps a guest offset; of the active state, or of
        the snapshot with that index."""
        bits = self.get("cluster_bits") + self.l2_bits()
        if snapshot is None:
            table = self.get("l1_table_offset")
        else:
            table = self.read(self.snapshot(snapshot), ">Q")
        return table + (guest >> bits) * 8

    def entry_bytes(self):
        """Of an L2 entry: extended ones are twice as long."""
        extended = self.get("version") >= 3 and self.get("incompatible_features") >> 4 & 1
        return 16 if extended else 8

    def l2_bits(self):
        return self.get("cluster_bits") - (4 if self.entry_bytes() == 16 else 3)

    def l2_entry(self, guest, snapshot=None):
        """Host offset of the L2 entry that maps a guest offset; 0 if there is no table."""
        bits = self.get("cluster_bits")
        table = self.read(self.l1_entry(guest, snapshot), ">Q") & OFFSET_MASK
        index = (guest >> bits) & ((1 << self.l2_bits()) - 1)
        return table + index * self.entry_bytes() if table else 0

    def bitmap(self, index):
        """Host offset of an entry of the bitmap directory."""
        at = self.read(self.extension("bitmaps") + 16, ">Q")
        for _ in range(index):
            at += (24 + self.read(at + 20, ">I") + self.read(at + 18, ">H") + 7) & ~7
        return at

    def snapshot(self, index):
        """Host offset of an entry of the snapshot table."""
        at = self.get("snapshots_offset")
        for _ in range(index):
            extra = self.read(at + 36, ">I")
            names = self.read(at + 12, ">H") + self.read(at + 14, ">H")
            at += (40 + extra + names + 7) & ~7
        return at

    def refcount_block(self, index):
        """Host offset of the refcount table's entry for that block."""
        return self.get("refcount_table_offset") + index * 8

    def refcount(self, cluster):
        """Host offset, first bit and width of the refcount of a host cluster."""
        order = self.get("refcount_order") if self.get("version") >= 3 else 4
        per_block = 1 << (self.get("cluster_bits") + 3 - order)
        block = self.read(self.refcount_block(cluster // per_block), ">Q")
        bit = cluster % per_block << order
        return block + bit // 8, bit % 8, 1 << order

    def extensions(self):
        """(offset of its head, type, length) for every header extension."""
        at = self.get("header_length") if self.get("version") >= 3 else 72
        while True:
            kind, length = self.read(at, ">I"), self.read(at + 4, ">I")
            yield at, kind, length
            if kind == EXTENSIONS["end"]:
                return
            at += 8 + ((length + 7) & ~7)

    def extension(self, name):
        """Host offset of a header extension's data."""
        for at, kind, _ in self.extensions():
            if kind == EXTENSIONS[name]:
                return at + 8
        sys.exit(f"there is no extension {name}")

    def bitmap_bits(self, table, n_entries):
        """The bits of a bitmap as bytes."""
        cluster = 1 << self.get("cluster_bits")
        for i in range(n_entries):
            entry = self.read(table + 8 * i, ">Q")
            if entry & OFFSET_MASK:
                self.file.seek(entry & OFFSET_MASK)
                yield self.file.read(cluster).ljust(cluster, b"\0")
            else:
                yield (b"\xff" if entry & 1 else b"\0") * cluster


def cmd_poke(args):
    Image(args.file, True).write(number(args.offset), bytes.fromhex(args.hex))


def cmd_field(args):
    if args.value is None:
        print(Image(args.file).get(args.name))
    else:
        Image(args.file, True).set(args.name, number(args.value))


def cmd_entry(args):
    """Where a table entry stands, what is in it, or a new value for it."""
    image = Image(args.file, args.value is not None)
    if args.command == "block":
        at = image.refcount_block(number(args.index))
    else:
        find = image.l1_entry if args.command == "l1" else image.l2_entry
        at = find(number(args.guest), args.snapshot)
    if at == 0:
        sys.exit("no L2 table there")
    if args.command == "l2" and args.bitmap:
        at += 8
    old = image.read(at, ">Q")
    if args.value is None:
        print(hex(at if args.where else old))
    else:
        image.write(at, struct.pack(">Q", changed(old, args.value)))


def cmd_refcount(args):
    """The refcount of a host cluster (given as its offset), or a new value for it."""
    image = Image(args.file, args.value is not None)
    at, bit, width = image.refcount(number(args.offset) >> image.get("cluster_bits"))
    n_bytes = max(1, width // 8)
    image.file.seek(at)
    whole = int.from_bytes(image.file.read(n_bytes), "big")
    mask = ((1 << width) - 1) << bit
    if args.value is None:
        print((whole & mask) >> bit)
    else:
        new = number(args.value) << bit & mask
        image.write(at, (whole & ~mask | new).to_bytes(n_bytes, "big"))


def cmd_snapshot(args):
    """A field of an entry of the snapshot table, or a new value for it."""
    fields = {
        "l1_offset": (0, ">Q"),
        "l1_size": (8, ">I"),
        "id_size": (12, ">H"),
        "name_size": (14, ">H"),
        "date": (16, ">Q"),
        "vm_state_size": (32, ">I"),
        "extra_size": (36, ">I"),
        "disk_size": (48, ">Q"),
    }
    image = Image(args.file, args.value is not None)
    entry = image.snapshot(int(args.index))
    if args.field == "id":
        at, fmt = 40 + image.read(entry + 36, ">I"), ">B"
    else:
        at, fmt = fields[args.field]
    if args.value is None:
        print(entry + at if args.where else image.read(entry + at, fmt))
    else:
        value = changed(image.read(entry + at, fmt), args.value)
        image.write(entry + at, struct.pack(fmt, value % (1 << 8 * struct.calcsize(fmt))))


def cmd_bitmap(args):
    """A field of an entry of the bitmap directory, or (a number for the field) an entry of
    its table; or a new value for it."""
    fields = {
        "table_offset": (0, ">Q"),
        "table_size": (8, ">I"),
        "flags": (12, ">I"),
        "type": (16, ">B"),
        "granularity": (17, ">B"),
        "name_size": (18, ">H"),
        "extra_size": (20, ">I"),
    }
    image = Image(args.file, args.value is not None)
    entry = image.bitmap(int(args.index))
    if args.field in fields:
        at, fmt = entry + fields[args.field][0], fields[args.field][1]
    else:
        at, fmt = image.read(entry, ">Q") + 8 * number(args.field), ">Q"
    if args.value is None:
        print(at if args.where else image.read(at, fmt))
    else:
        value = changed(image.read(at, fmt), args.value)
        image.write(at, struct.pack(fmt, value % (1 << 8 * struct.calcsize(fmt))))


def cmd_strip(args):
    """Shortens the extra data of the snapshot table's last entry, as old writers had it."""
    image = Image(args.file, True)
    at = image.snapshot(image.get("nb_snapshots") - 1)
    extra, keep = image.read(at + 36, ">I"), number(args.bytes)
    n_names = image.read(at + 12, ">H") + image.read(at + 14, ">H")
    image.file.seek(at + 40 + extra)
    names = image.file.read(n_names)
    image.write(at + 36, struct.pack(">I", keep))
    image.write(at + 40 + keep, names + bytes(extra - keep))


def cmd_extension(args):
    """Changes the head of a header extension in place."""
    image = Image(args.file, True)
    for at, kind, _ in image.extensions():
        if kind == EXTENSIONS[args.name]:
            if args.type is not None:
                image.write(at, struct.pack(">I", number(args.type)))
            if args.length is not None:
                image.write(at + 4, struct.pack(">I", number(args.length)))
            if args.data is not None:
                image.write(at + 8 + number(args.skip), bytes.fromhex(args.data))
            return
    sys.exit(f"{args.file} has no extension {args.name}")


def runs_of(bits, n_bits):
    """[first, end) of every run of ones."""
    text = "".join(f"{byte:08b}"[::-1] for byte in bits)[:n_bits]
    end = 0
    while (first := text.find("1", end)) >= 0:
        end = text.find("0", first) % (n_bits + 1)
        yield first, end


def bitmap_lines(image):
    """Name, flags, granularity and dirty ranges ("start+length") of every bitmap."""
    n = 0
    if image.get("version") >= 3 and image.get("autoclear_features") & 1:
        n = image.read(image.extension("bitmaps"), ">I")
    for at in map(image.bitmap, range(n)):
        table, n_entries = image.read(at, ">Q"), image.read(at + 8, ">I")
        flags = image.read(at + 12, ">I")
        granularity = 1 << image.read(at + 17, ">B")
        n_name, n_extra = image.read(at + 18, ">H"), image.read(at + 20, ">I")
        image.file.seek(at + 24 + n_extra)
        name = image.file.read(n_name).decode()
        words = [word for bit, word in enumerate(["in-use", "auto"]) if flags >> bit & 1]
        n_bits = -(-image.get("size") // granularity)
        bits = b"".join(image.bitmap_bits(table, n_entries))[: -(-n_bits // 8)]
        ranges = (f"{a * granularity}+{(b - a) * granularity}" for a, b in runs_of(bits, n_bits))
        yield " ".join([name, ",".join(words) or "-", str(granularity), *ranges])


def cmd_bitmaps(args):
    """Prints the bitmaps of an image; of two images, those that are not the same."""
    lines = [list(bitmap_lines(Image(name))) for name in args.files]
    if len(lines) == 1:
        print(*lines[0], sep="\n", end="\n" if lines[0] else "")
        return
    print(*(f"- {line}" for line in lines[0] if line not in lines[1]), sep="\n")
    print(*(f"+ {line}" for line in lines[1] if line not in lines[0]), sep="\n")
    sys.exit(lines[0] != lines[1])


def cmd_backing(args):
    """Writes a backing file name of any kind, as no program would."""
    image = Image(args.file, True)
    name = args.name.encode()
    end = [at for at, kind, _ in image.extensions() if kind == 0][-1] + 8
    image.write(end, name)
    image.set("backing_file_offset", end)
    image.set("backing_file_size", len(name))


def cmd_damage(args):
    """Random bytes of the file's metadata clusters (all but plain data) turn to nonsense.

    Prints what it did, so that a failing run can be repeated by hand.
    """
    rng = random.Random(args.seed)
    image = Image(args.file, True)
    cluster = 1 << image.get("cluster_bits")
    places = [0] * 4  # the header cluster's first bytes deserve most
    l1 = image.get("l1_table_offset")
    places += [l1, image.get("refcount_table_offset"), image.get("snapshots_offset")]
    places += [
        image.read(l1 + 8 * i, ">Q") & OFFSET_MASK for i in range(min(image.get("l1_size"), 64))
    ]
    for _ in range(rng.randint(1, args.count)):
        base = rng.choice(places)
        span = rng.choice([16, 128, 512, cluster])
        offset = base + rng.randrange(span)
        kind = rng.randrange(3)
        if kind == 0:
            raw = bytes([1 << rng.randrange(8)])
        elif kind == 1:
            raw = rng.choice([b"\xff", b"\0", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 8])
        else:
            raw = rng.randbytes(rng.choice([1, 2, 4, 8]))
        image.write(offset, raw)
        print(f"poke {offset:#x} {raw.hex()}")


def cmd_hostile(args):
    """A file of 256 GiB with clusters of 512 bytes that claims as much as the format allows
    and holds hardly anything."""
    cluster, end = 512, 256 << 30
    l1, table, snapshots, l2, block = 1 << 30, 2 << 30, 3 << 30, 4 << 30, 5 << 30
    n_l1, n_table = (32 << 20) // 8, (8 << 20) // cluster
    n_snapshots = {"holes": 65536, "snapshots": 300}.get(args.kind, 0)
    with open(args.file, "wb") as out:
        out.write(struct.pack(">IIQIIQIIQQIIQ", 0x514649FB, 3, 0, 0, 9, n_l1 * 64 * cluster, 0,
                              n_l1, l1, table, n_table, n_snapshots, snapshots))
        out.write(struct.pack(">QQQII", 0, 0, 0, 4, 104))
        if args.kind in ("scattered", "shared"):
            # L2 tables and refcount blocks all over the file, or the same one many times.
            step = 64 * cluster if args.kind == "scattered" else 0
            for i in range(500):
                out.seek(l1 + 8 * i * 8000 if step else l1 + 8 * i)
                out.write(struct.pack(">Q", 1 << 63 | (l2 + i * step)))
                out.seek(table + 8 * i * (2000 if step else 1))
                out.write(struct.pack(">Q", block + i * step))
            out.seek(l2)
            for i in range(64):
                out.write(struct.pack(">Q", 1 << 63 | (6 << 30) + i * (3 << 30)))
        if args.kind == "snapshots":
            # Each with an L1 table as long as may be, in a hole of its own.
            out.seek(snapshots)
            for i in range(n_snapshots):
                name = b"%d" % i
                out.write(struct.pack(">QIHHIIQII", (6 << 30) + i * (64 << 20), n_l1, len(name),
                                      len(name), 0, 0, 0, 0, 16))
                out.write(struct.pack(">QQ", 0, n_l1 * 64 * cluster))
                out.write((name * 2).ljust((2 * len(name) + 7) & ~7, b"\0"))
        out.truncate(end)


def cmd_hostile_bitmaps(args):
    """As many bitmaps as there can be, whose tables are all behind the end of the file."""
    n, cluster = 65535, 65536
    directory = b"".join(
        struct.pack(">QIIBBHI5s3x", 1 << 40, 1, 0, 1, 16, 5, 0, b"%05d" % i) for i in range(n))
    with open(args.file, "wb") as out:
        out.write(struct.pack(">IIQIIQIIQQIIQ", 0x514649FB, 3, 0, 0, 16, 1 << 40, 0, 2048,
                              3 * cluster, cluster, 1, 0, 0))
        out.write(struct.pack(">QQQII", 0, 0, 1, 4, 104))
        out.write(struct.pack(">IIIIQQQ", EXTENSIONS["bitmaps"], 24, n, 0, len(directory),
                              4 * cluster, 0))
        out.seek(4 * cluster)
        out.write(directory)
        out.truncate(400 * cluster)


def cmd_spoil(args):
    """Makes the first compressed cluster one that cannot be inflated; prints its guest
    offset."""
    image = Image(args.file, True)
    bits = image.get("cluster_bits")
    for guest in range(0, image.get("size"), 1 << bits):
        at = image.l2_entry(guest)
        entry = image.read(at, ">Q") if at else 0
        if entry >> 62 & 1:
            # A deflate block of type 3 does not exist.
            image.write(entry & ((1 << (62 - (bits - 8))) - 1), b"\xff" * 16)
            print(guest)
            return
    sys.exit("no compressed cluster")


def contents(rng, n_bytes):
    """Bytes that compress well, or badly, or not at all."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(n_bytes)
    if kind == 1:
        word = rng.randbytes(rng.randint(1, 300))
        return (word * (n_bytes // len(word) + 1))[:n_bytes]
    if kind == 2:
        words = [rng.randbytes(rng.randint(2, 9)) for _ in range(64)]
        out = b"".join(rng.choice(words) for _ in range(n_bytes // 4 + 16))
        return (out * (n_bytes // len(out) + 1))[:n_bytes]
    return (rng.randbytes(max(1, n_bytes // 3)) + bytes(n_bytes))[:n_bytes]


def cmd_fill(args):
    """A raw disk of data, written zeros and holes, in runs of any length."""
    rng = random.Random(args.seed)
    size, grain = number(args.size), number(args.grain)
    with open(args.file, "wb") as out:
        at = 0
        while at < size:
            run = grain * rng.choice([1, 1, 2, 3, 5, 16, 40])
            if rng.randrange(6) == 0:
                run += rng.randrange(grain)
            run = min(run, size - at)
            kind = rng.randrange(10)
            if kind < 5:
                out.seek(at)
                out.write(contents(rng, run))
            elif kind < 7:
                out.seek(at)
                out.write(bytes(run))
            at += run
        out.truncate(size)


def cmd_io(args):
    """Commands for qemu-io: random writes, zeros, discards, compressed clusters.

    The bytes to write are put in files of their own (--data NAME: NAME.0 and so on), so
    that nothing is as regular as qemu-io's patterns.
    """
    rng = random.Random(args.seed)
    size = number(args.size)
    cluster = number(args.cluster)
    for i in range(8):
        with open(f"{args.data}.{i}", "wb") as out:
            out.write(contents(rng, rng.randint(1 << 12, 1 << 17)))
    kinds = ["write"] * 6 + ["pattern"] * 2 + ["zero"] * 3
    if args.discard:
        kinds += ["discard"] * 2 + ["zero-unmap"] * 2
    if args.compressed:
        kinds += ["compressed"] * 8
    used = set()
    for _ in range(args.count):
        kind = rng.choice(kinds)
        data = f"{args.data}.{rng.randrange(8)}"
        unit = rng.choice([512, 512, 4096, cluster, cluster])
        length = unit * rng.choice([1, 1, 2, 3, 7])
        length = min(length, 1 << 20, size & ~511)
        start = rng.randrange(0, max(1, (size - length) // 512 + 1)) * 512
        if rng.randrange(3) == 0:
            start = min(start // cluster * cluster, start)
        if kind == "write":
            print(f"write -q -s {data} {start} {length}")
        elif kind == "pattern":
            print(f"write -q -P {rng.randrange(1, 256)} {start} {length}")
        elif kind == "zero":
            print(f"write -q -z {start} {length}")
        elif kind == "zero-unmap":
            print(f"write -q -z -u {start} {length}")
        elif kind == "discard":
            print(f"discard -q {start} {length}")
        elif size >= cluster:
            # Never on a cluster that is there already: QEMU refuses some of these.
            index = rng.randrange(size // cluster)
            if index not in used:
                used.add(index)
                print(f"discard -q {index * cluster} {cluster}")
                print(f"write -q -c -s {data} {index * cluster} {cluster}")


def copy_file(path, target, n_bytes):
    with open(path, "rb") as source, open(target, "wb") as copy:
        while n_bytes > 0:
            sent = os.sendfile(copy.fileno(), source.fileno(), None, n_bytes)
            if sent == 0:
                return
            n_bytes -= sent


def cmd_stage(args):
    """Copies real files (sources first to last) into a folder until they take --size.

    Starts again from the first source if the machine has too few.
    """
    left = number(args.size)
    turn = 0
    while left > 1 << 20:
        turn += 1
        for top in args.sources:
            for folder, folders, names in os.walk(top):
                folders.sort()
                inside = f"{args.target}/{turn}{folder}"
                os.makedirs(inside, exist_ok=True)
                for name in sorted(names):
                    path = os.path.join(folder, name)
                    copy = os.path.join(inside, name)  # there, if one source holds another
                    if os.path.islink(path) or not os.path.isfile(path) or os.path.exists(copy):
                        continue
                    n_bytes = os.stat(path).st_size
                    cost = (n_bytes + 4095 & ~4095) + 256
                    if cost > left or not os.access(path, os.R_OK):
                        continue
                    copy_file(path, copy, n_bytes)
                    left -= cost
                if left <= 1 << 20:
                    return
        if left == number(args.size):
            sys.exit("nothing to copy")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    sub = parser.add_subparsers(dest="command", required=True)

    def command(name, run, *positional):
        p = sub.add_parser(name, help=run.__doc__)
        p.set_defaults(run=run)
        for word in positional:
            optional = word.endswith("?")
            p.add_argument(word.rstrip("?"), nargs="?" if optional else None)
        return p

    command("poke", cmd_poke, "file", "offset", "hex")
    command("field", cmd_field, "file", "name", "value?")
    for name in ("l1", "l2"):
        p = command(name, cmd_entry, "file", "guest", "value?")
        p.add_argument("--bitmap", action="store_true", help="of an extended L2 entry")
        p.add_argument("--where", action="store_true")
        p.add_argument("--snapshot", type=int)
    command("strip", cmd_strip, "file", "bytes")
    p = command("block", cmd_entry, "file", "index", "value?")
    p.add_argument("--where", action="store_true")
    command("refcount", cmd_refcount, "file", "offset", "value?")
    p = command("snapshot", cmd_snapshot, "file", "index", "field", "value?")
    p.add_argument("--where", action="store_true")
    p = command("extension", cmd_extension, "file", "name")
    for option in ("--type", "--length", "--data"):
        p.add_argument(option)
    p.add_argument("--skip", default="0", help="write the data so far behind its start")
    p = command("bitmap", cmd_bitmap, "file", "index", "field", "value?")
    p.add_argument("--where", action="store_true")
    p = command("bitmaps", cmd_bitmaps)
    p.add_argument("files", nargs="+")
    command("backing", cmd_backing, "file", "name")
    command("spoil", cmd_spoil, "file")
    command("hostile", cmd_hostile, "file", "kind")
    command("hostile-bitmaps", cmd_hostile_bitmaps, "file")
    p = command("damage", cmd_damage, "file")
    p.add_argument("--seed", type=int, required=True)
    p.add_argument("--count", type=int, default=4)
    p = command("fill", cmd_fill, "file", "size")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--grain", default="4k")
    p = command("io", cmd_io)
    p.add_argument("--seed", type=int, required=True)
    p.add_argument("--size", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--cluster", default="64k")
    p.add_argument("--count", type=int, default=40)
    p.add_argument("--compressed", action="store_true")
    p.add_argument("--no-discard", dest="discard", action="store_false")
    p = command("stage", cmd_stage, "target")
    p.add_argument("sources", nargs="+")
    p.add_argument("--size", required=True)

    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
