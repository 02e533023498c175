# SPDX-License-Identifier: MIT
"""What "make bench" measures: the one table of its cases, and how their inputs are made.

In a command, {qcow2} is the program under test, {img} and {io} the program whose turn it is:
"qcow2" and "qcow2 io", or "qemu-img" and "qemu-io"; {fast} is what ours alone takes;
{tests} is tests/, the other words are in SIZES. Commands run in the folder of the inputs."""

# Word: (full, --quick)
SIZES = {
    "big": ("1T", "32G"),           # of 64k clusters, all its metadata preallocated
    "big2": ("2T", "64G"),
    "huge": ("10T", "64G"),
    "big_half": ("512G", "16G"),
    "fine": ("64G", "2G"),          # of 4k clusters
    "disk_mib": (2600, 150),        # of files of /usr, in an ext4 file system
    "disk_space_mib": (8192, 400),
    "random_mib": (4096, 256),
    "random_writes": (50000, 4000),
    "slow_writes": (2000, 200),
}

PREALLOCATED = "{qcow2} create -q -f qcow2 -o preallocation=metadata"
SNAPSHOTS = ["s%d" % i for i in range(10)]

# What names an encrypted image.
SECRET = "--object secret,id=s,data=bench"
LOCKED = "driver=qcow2,encrypt.key-secret=s,file.filename="

# Name: how it is made. What is made from another input names it first, with "+".
INPUTS = {
    "big.qcow2": [PREALLOCATED + " big.qcow2 {big}"],
    "big10.qcow2": ["+big.qcow2"] + ["{qcow2} snapshot -c %s big10.qcow2" % s
                                     for s in SNAPSHOTS],
    "huge.qcow2": [PREALLOCATED + " huge.qcow2 {huge}"],
    "dirty.qcow2": ["+big.qcow2", "python3 -c 'import os, sys; "
                    "os.pwrite(os.open(\"dirty.qcow2\", os.O_WRONLY), bytes([1]), 79)'"],
    "small.qcow2": ["{qcow2} create -q -f qcow2 small.qcow2 1G"],
    "random.raw": ["dd if=/dev/urandom of=random.raw bs=1M count={random_mib} status=none"],
    "fine.qcow2": [PREALLOCATED + ",cluster_size=4k fine.qcow2 {fine}"],
    "fine10.qcow2": ["+fine.qcow2"] + ["{qcow2} snapshot -c %s fine10.qcow2" % s
                                       for s in SNAPSHOTS],
    "zeros.qcow2": ["+fine.qcow2", "{qcow2} io -f qcow2 -c 'write -z 0 1G' zeros.qcow2"],
    "disk.raw": ["mkdir -p files",
                 "python3 -S {tests}/tools/imgtool.py stage --size {disk_mib}M files /usr",
                 "mke2fs -q -F -t ext4 -d files disk.raw {disk_space_mib}M",
                 "rm -rf files"],
    "disk.qcow2": ["{qcow2} convert -O qcow2 disk.raw disk.qcow2"],
    "packed.qcow2": ["{qcow2} convert -c -O qcow2 disk.raw packed.qcow2"],
    "zstd.qcow2": ["{qcow2} convert -c -O qcow2 -o compression_type=zstd disk.raw zstd.qcow2"],
    "locked.qcow2": ["{qcow2} create -q -f qcow2 " + SECRET + " -o encrypt.format=luks,"
                     "encrypt.key-secret=s,encrypt.iter-time=10 locked.qcow2 "
                     "{disk_space_mib}M"],
    "full.qcow2": ["+locked.qcow2", "{qcow2} convert -n -f raw " + SECRET +
                   " --target-image-opts disk.raw " + LOCKED + "full.qcow2"],
    "over.qcow2": ["{qcow2} create -q -f qcow2 -b disk.raw -F raw over.qcow2"],
    "random.qcow2": [PREALLOCATED + " random.qcow2 4G"],
    "empty.qcow2": ["{qcow2} create -q -f qcow2 empty.qcow2 4G"],
    "recorded.qcow2": ["+empty.qcow2", "{qcow2} bitmap --add -g 512 recorded.qcow2 b"],
    "bitmap.qcow2": ["{qcow2} create -q -f qcow2 bitmap.qcow2 64T",
                     "{qcow2} bitmap --add bitmap.qcow2 b",
                     "{qcow2} io -c 'write -q 0 64k' -c 'write -q 20T 64k' bitmap.qcow2"],
}


class Case:
    """name; the commands that are timed, in sum; the inputs that they read; the input that
    they change, as "x.qcow2", a new copy each time; the file whose size is told; lines for
    the standard input of each command; the ratio of wall time that it should stay below;
    what is run instead of QEMU."""

    def __init__(self, name, commands, needs=(), changes=None, output=None, stdin=None,
                 target=1.0, other=None):
        self.name, self.output, self.stdin = name, output, stdin
        self.commands = [commands] if isinstance(commands, str) else commands
        self.others = [other] if other else self.commands
        self.needs, self.changes, self.target = needs, changes, target


def random_writes(count):
    """4k each, anywhere in 4 GiB: the same ones for everybody."""
    place = 12345
    lines = []
    for _ in range(count):
        place = (place * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        lines.append("write -q -P 7 %d 4k\n" % ((place >> 33) % (1 << 20) * 4096))
    return "".join(lines)


def each_snapshot(option):
    return ["{img} snapshot -%s %s x.qcow2" % (option, s) for s in SNAPSHOTS]


CASES = [
    Case("create {big}, metadata preallocated",
         "{img} create -q -f qcow2 -o preallocation=metadata out.qcow2 {big}",
         output="out.qcow2", target=0.1),
    Case("create {huge}, metadata preallocated",
         "{img} create -q -f qcow2 -o preallocation=metadata out.qcow2 {huge}",
         output="out.qcow2", target=0.1),
    Case("create {fine}, 4k clusters, metadata preallocated",
         "{img} create -q -f qcow2 -o preallocation=metadata,cluster_size=4k out.qcow2 {fine}",
         output="out.qcow2", target=0.1),
    Case("info of {big}", "{img} info big.qcow2", ["big.qcow2"]),
    Case("measure of 1G", "{img} measure -O qcow2 small.qcow2", ["small.qcow2"]),
    Case("map of 1G", "{img} map small.qcow2", ["small.qcow2"]),
    Case("check of {big}", "{img} check -q -f qcow2 big.qcow2", ["big.qcow2"],
         target=1 / 8),
    Case("check of {huge}", "{img} check -q -f qcow2 huge.qcow2", ["huge.qcow2"],
         target=1 / 8),
    Case("check -r all of {big}, dirty", "{img} check -q -f qcow2 -r all x.qcow2",
         changes="dirty.qcow2", target=1 / 6),
    Case("check of {fine}, 4k clusters, ten snapshots", "{img} check -q -f qcow2 fine10.qcow2",
         ["fine10.qcow2"], target=1 / 20),
    Case("map of {big}, JSON", "{img} map --output=json big.qcow2", ["big.qcow2"], target=1 / 5),
    Case("ten snapshots created, {big}", each_snapshot("c"), changes="big.qcow2",
         output="x.qcow2", target=1 / 20),
    Case("ten snapshots deleted, {big}", each_snapshot("d"), changes="big10.qcow2",
         output="x.qcow2", target=1 / 20),
    Case("a snapshot applied, {big}", "{img} snapshot -a s0 x.qcow2", changes="big10.qcow2",
         target=1 / 20),
    Case("a snapshot created beside ten, {big}", "{img} snapshot -c s x.qcow2",
         changes="big10.qcow2", target=1 / 20),
    Case("a snapshot deleted beside nine, {big}", "{img} snapshot -d s5 x.qcow2",
         changes="big10.qcow2", target=1 / 20),
    Case("ten snapshots created, {fine}, 4k clusters", each_snapshot("c"),
         changes="fine.qcow2", output="x.qcow2", target=1 / 20),
    Case("ten snapshots deleted, {fine}, 4k clusters", each_snapshot("d"),
         changes="fine10.qcow2", output="x.qcow2", target=1 / 20),
    Case("a snapshot applied, {fine}, 4k clusters", "{img} snapshot -a s0 x.qcow2",
         changes="fine10.qcow2", target=1 / 20),
    Case("resize of {big} to {big2}", "{img} resize -q -f qcow2 x.qcow2 {big2}",
         changes="big.qcow2", target=1 / 3),
    Case("resize of {big} to {big_half}",
         "{img} resize -q -f qcow2 --shrink x.qcow2 {big_half}", changes="big.qcow2",
         output="x.qcow2", target=1 / 3),
    Case("amend of {big}: compat=0.10", "{img} amend -f qcow2 -o compat=0.10 x.qcow2",
         changes="big.qcow2", target=1 / 3),
    Case("amend of 1G of 4k zero clusters: compat=0.10",
         "{img} amend -f qcow2 -o compat=0.10 x.qcow2", changes="zeros.qcow2", target=1 / 3),
    Case("amend of {big}: refcount_bits=64", "{img} amend -f qcow2 -o refcount_bits=64 x.qcow2",
         changes="big.qcow2", output="x.qcow2", target=1 / 3),
    Case("convert raw to qcow2", "{img} convert -f raw -O qcow2 disk.raw out.qcow2",
         ["disk.raw"], output="out.qcow2", target=1 / 1.5),
    Case("convert raw to qcow2, beside cp --sparse=always",
         "{img} convert -f raw -O qcow2 disk.raw out.qcow2", ["disk.raw"],
         output="out.qcow2", target=1.3, other="cp --sparse=always disk.raw out.qcow2"),
    Case("convert -C raw to raw", "{img} convert -C -f raw -O raw disk.raw out.raw",
         ["disk.raw"], output="out.raw"),
    Case("convert raw to qcow2, {random_mib} MiB random",
         "{img} convert -f raw -O qcow2 random.raw out.qcow2", ["random.raw"],
         output="out.qcow2", target=1 / 1.2),
    Case("convert qcow2 to qcow2", "{img} convert -f qcow2 -O qcow2 disk.qcow2 out.qcow2",
         ["disk.raw", "disk.qcow2"], output="out.qcow2", target=1 / 1.3),
    Case("convert qcow2 to raw", "{img} convert -f qcow2 -O raw disk.qcow2 out.raw",
         ["disk.raw", "disk.qcow2"], output="out.raw", target=1 / 1.3),
    Case("convert raw to qcow2, compressed (zlib)",
         "{img} convert -c -f raw -O qcow2 disk.raw out.qcow2", ["disk.raw"],
         output="out.qcow2", target=1 / 2.5),
    Case("convert raw to qcow2, compressed (zlib), fast",
         "{img} convert -c {fast} -f raw -O qcow2 disk.raw out.qcow2", ["disk.raw"],
         output="out.qcow2", target=1 / 15),
    Case("convert compressed (zlib) to raw",
         "{img} convert -f qcow2 -O raw packed.qcow2 out.raw", ["disk.raw", "packed.qcow2"],
         output="out.raw", target=1 / 4),
    Case("convert raw to qcow2, compressed (zstd)",
         "{img} convert -c -f raw -O qcow2 -o compression_type=zstd disk.raw out.qcow2",
         ["disk.raw"], output="out.qcow2", target=1 / 3),
    Case("convert raw to qcow2, compressed (zstd), fast",
         "{img} convert -c {fast} -f raw -O qcow2 -o compression_type=zstd disk.raw out.qcow2",
         ["disk.raw"], output="out.qcow2", target=1 / 3),
    Case("convert compressed (zstd) to raw",
         "{img} convert -f qcow2 -O raw zstd.qcow2 out.raw", ["disk.raw", "zstd.qcow2"],
         output="out.raw", target=1 / 2),
    Case("convert raw to an encrypted image (LUKS)",
         "{img} convert -n -f raw " + SECRET + " --target-image-opts disk.raw " + LOCKED +
         "x.qcow2", ["disk.raw"], changes="locked.qcow2", output="x.qcow2", target=1 / 1.9),
    Case("convert an encrypted image (LUKS) to raw",
         "{img} convert -O raw " + SECRET + " --image-opts " + LOCKED + "full.qcow2 out.raw",
         ["disk.raw", "full.qcow2"], output="out.raw", target=1 / 1.9),
    Case("compare raw and qcow2", "{img} compare -q -f raw -F qcow2 disk.raw disk.qcow2",
         ["disk.raw", "disk.qcow2"], target=1 / 1.2),
    Case("compare raw and compressed (zlib)",
         "{img} compare -q -f raw -F qcow2 disk.raw packed.qcow2",
         ["disk.raw", "packed.qcow2"], target=1 / 4),
    Case("rebase from a raw file onto none", "{img} rebase -b '' x.qcow2", ["disk.raw"],
         changes="over.qcow2", output="x.qcow2"),
    Case("rebase from a raw file onto the same as qcow2",
         "{img} rebase -b disk.qcow2 -F qcow2 x.qcow2", ["disk.raw", "disk.qcow2"],
         changes="over.qcow2", output="x.qcow2"),
    Case("dd of a qcow2 image", "{img} dd -f qcow2 bs=64k if=disk.qcow2 of=out.raw",
         ["disk.qcow2"], output="out.raw"),
    Case("{random_writes} random writes of 4k, new clusters",
         "{io} -f qcow2 -t writeback x.qcow2", changes="empty.qcow2", output="x.qcow2",
         stdin="random_writes"),
    Case("{random_writes} random writes of 4k, preallocated",
         "{io} -f qcow2 -t writeback x.qcow2", changes="random.qcow2", output="x.qcow2",
         stdin="random_writes"),
    Case("{slow_writes} random writes of 4k, new clusters, writethrough",
         "{io} -f qcow2 -t writethrough x.qcow2", changes="empty.qcow2", output="x.qcow2",
         stdin="slow_writes"),
    Case("{slow_writes} random writes of 4k, preallocated, writethrough",
         "{io} -f qcow2 -t writethrough x.qcow2", changes="random.qcow2", output="x.qcow2",
         stdin="slow_writes"),
    Case("{random_writes} random writes of 4k, new clusters, recorded in a bitmap",
         "{io} -f qcow2 -t writeback x.qcow2", changes="recorded.qcow2", output="x.qcow2",
         stdin="random_writes"),
    Case("merge of a bitmap of 64T into a new one",
         "{img} bitmap --add --merge b -f qcow2 x.qcow2 c", changes="bitmap.qcow2"),
    Case("convert of an empty disk of 64T with its bitmap",
         "{img} convert --bitmaps -f qcow2 -O qcow2 bitmap.qcow2 out.qcow2", ["bitmap.qcow2"],
         output="out.qcow2"),
]
