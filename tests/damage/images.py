# SPDX-License-Identifier: MIT
"""The sound images that the damage matrix starts from: made by QEMU, small, with as many
kinds of clusters as their version allows."""

import os
import random
import subprocess

from qcow2format import DATA_FILE, EXTENDED, ZSTD, Outside

# name: version, cluster size, refcount bits, lazy, backing file, snapshots, virtual size
IMAGES = {
    "v3-64k": (3, 65536, 16, False, False, 2, 1200 << 20),
    "v3-4k": (3, 4096, 16, False, False, 2, 5 << 20),
    "v3-512-wide": (3, 512, 64, False, False, 2, 384 << 10),
    "v3-512-back": (3, 512, 16, False, True, 1, 300 << 10),
    "v3-4k-lazy": (3, 4096, 16, True, True, 1, 5 << 20),
    "v3-4k-one": (3, 4096, 1, False, False, 0, 5 << 20),
    "v3-4k-narrow": (3, 4096, 4, False, False, 2, 5 << 20),
    "v3-2m": (3, 2 << 20, 16, False, False, 1, 6 << 20),
    "v3-4k-vmstate": (3, 4096, 16, False, False, 2, 5 << 20),
    "v3-4k-foreign": (3, 4096, 32, False, False, 1, 5 << 20),
    "v2-64k-back": (2, 65536, 16, False, True, 1, 1200 << 20),
    "v2-4k": (2, 4096, 16, False, False, 2, 5 << 20),
    "v2-512": (2, 512, 16, False, False, 2, 384 << 10),
    "v3-16k-ext": (3, 16384, 16, False, False, 2, 40 << 20),
    "v3-16k-ext-back": (3, 16384, 16, False, True, 1, 40 << 20),
    "v3-4k-data": (3, 4096, 16, False, False, 0, 5 << 20),
    "v3-16k-data-raw": (3, 16384, 16, False, False, 0, 40 << 20),
    "v3-4k-bitmaps": (3, 4096, 16, False, False, 1, 5 << 20),
    "v3-4k-luks": (3, 4096, 16, False, False, 1, 5 << 20),
    "v3-4k-zstd": (3, 4096, 16, False, False, 2, 5 << 20),
}
# What create is asked for besides.
OPTIONS = {
    "v3-16k-ext": "extended_l2=on",
    "v3-16k-ext-back": "extended_l2=on",
    "v3-4k-data": "data_file=v3-4k-data.data",
    "v3-16k-data-raw": "data_file=v3-16k-data-raw.data,data_file_raw=on,extended_l2=on",
    "v3-4k-luks": "encrypt.format=luks,encrypt.key-secret=sec0,encrypt.iter-time=10",
    "v3-4k-zstd": "compression_type=zstd",
}
# Images of one feature each, all else of which others have.
FEATURES = {*OPTIONS, "v3-4k-bitmaps"}
SECRET = "passw0rd"
# One damage of an image out of so many, unless all are asked for: it takes long.
THINNED = {"v3-2m": 6, "v3-4k-luks": 4}
VM_STATE_BYTES = 50000
BACKING_BYTES = 1 << 20


def run(*command, env=None, cwd=None):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=env, cwd=cwd)


class Builder:
    """Writes into one image; what it writes differs from cluster to cluster."""

    def __init__(self, path, cluster_size, seed):
        self.path = path
        self.cluster_size = cluster_size
        self.random = random.Random(seed)
        self.generation = 0
        self.encrypted = "encrypt" in OPTIONS.get(seed, "")
        self.packs = "data_file" not in OPTIONS.get(seed, "") and not self.encrypted
        self.parts = []

    def source(self, n_bytes, packable):
        """A file to write from, under the image's folder."""
        self.generation += 1
        name = "%s.src%d" % (self.path, self.generation)
        with open(name, "wb") as f:
            for i in range(n_bytes // self.cluster_size):
                tag = b"write %d cluster %d of %s\n" % (self.generation, i,
                                                       os.path.basename(self.path).encode())
                if packable:
                    text = tag * (self.cluster_size // len(tag) + 1)
                else:
                    text = tag + self.random.randbytes(self.cluster_size)
                f.write(text[:self.cluster_size])
        self.parts.append(name)
        return name

    def write(self, cluster, n, packed=False):
        packed = packed and self.packs
        name = self.source(n * self.cluster_size, packed)
        self.io("write %s -s %s %d %d" % ("-c" if packed else "", name,
                                          cluster * self.cluster_size,
                                          n * self.cluster_size))

    def io(self, *commands):
        arguments = []
        for c in commands:
            arguments += ["-c", c]
        self.run("qemu-io", *arguments, *self.named())

    def run(self, *command, env=None):
        """In the image's folder: a data file is found from there."""
        run(*command, env=env, cwd=os.path.dirname(self.path))

    def named(self):
        """The image as QEMU's programs open it."""
        if not self.encrypted:
            return [self.path]
        return ["--object", "secret,id=sec0,data=" + SECRET, "--image-opts",
                "driver=qcow2,file.filename=%s,encrypt.key-secret=sec0" % self.path]

    def zero(self, cluster, n, unmap=False):
        self.io("write -z %s %d %d" % ("-u" if unmap else "", cluster * self.cluster_size,
                                       n * self.cluster_size))

    def finish(self):
        for name in self.parts:
            os.unlink(name)


def build(name, folder, qemu_img="qemu-img"):
    """Makes the image FOLDER/NAME.qcow2 (and NAME.back); returns its path."""
    version, cluster_size, bits, lazy, backing, n_snapshots, size = IMAGES[name]
    path = os.path.join(folder, name + ".qcow2")
    options = "compat=%s,cluster_size=%d" % ("1.1" if version == 3 else "0.10", cluster_size)
    if version == 3:
        options += ",refcount_bits=%d" % bits
    if lazy:
        options += ",lazy_refcounts=on"
    if name in OPTIONS:
        options += "," + OPTIONS[name]
    command = [qemu_img, "create", "-q", "-f", "qcow2", "-o", options]
    if backing:
        with open(os.path.join(folder, name + ".back"), "wb") as f:
            f.write(random.Random(name).randbytes(BACKING_BYTES))
        command += ["-b", name + ".back", "-F", "raw"]
    extended = "extended_l2" in options
    span = cluster_size // (16 if extended else 8)  # guest clusters of one L2 table
    vm_state = name.endswith("-vmstate")
    # A machine's state is written as if the disk went on behind its end.
    n_tables = (size + span * cluster_size - 1) // (span * cluster_size)
    b = Builder(path, cluster_size, name)
    create(b, [*command, path,
               str((n_tables + 1) * span * cluster_size if vm_state else size)], folder)
    if vm_state:
        b.write(n_tables * span, VM_STATE_BYTES // cluster_size + 1)
    if cluster_size > 65536:
        fill_few(b, qemu_img)
    else:
        fill(b, span, version, backing, n_snapshots, qemu_img)
    if extended:
        fill_subclusters(b)
    if name.endswith("-bitmaps"):
        add_bitmaps(b, qemu_img)
    b.finish()
    if vm_state:
        b.io("discard %d %d" % (n_tables * span * cluster_size, span * cluster_size))
        shrink_to(path, size)
    if name.endswith("-foreign"):
        add_foreign(path)
    b.run(qemu_img, "check", *b.named())
    return path


def create(b, command, folder):
    """A LUKS header takes QEMU's timing of keys, which wants a steady clock."""
    env = None
    if b.encrypted:
        clock = os.path.join(folder, "steady_clock.so")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "tools",
                              "steady_clock.c")
        run(*os.environ.get("CC", "cc").split(), "-shared", "-fPIC", "-o", clock, source)
        env = dict(os.environ, LD_PRELOAD=clock)
        command = [command[0], command[1], "--object", "secret,id=sec0,data=" + SECRET,
                   *command[2:]]
    b.run(*command, env=env)


def outside(name, folder):
    """What the image needs besides its file."""
    def content(end):
        path = os.path.join(folder, name + end)
        if not os.path.exists(path):
            return None
        with open(path, "rb") as f:
            return f.read()

    options = OPTIONS.get(name, "")
    features = ((DATA_FILE if "data_file" in options else 0) |
                (EXTENDED if "extended_l2" in options else 0) |
                (ZSTD if "zstd" in options else 0))
    return Outside(content(".back"), content(".data"), features,
                   2 if "luks" in options else 0)


def fill_subclusters(b):
    """Clusters some of whose subclusters are stored, zero, or neither."""
    sub, cluster = b.cluster_size // 32, b.cluster_size
    b.io("write -P 0x51 %d %d" % (40 * cluster + 3 * sub, 4 * sub),
         "write -z %d %d" % (40 * cluster + 9 * sub, 2 * sub),
         "write -P 0x52 %d %d" % (41 * cluster + 30 * sub, 3 * sub),
         "write -z %d %d" % (44 * cluster + sub, 5 * sub))


def add_bitmaps(b, qemu_img):
    """One that says nothing, one that says something, one that is all in one cluster."""
    for options in (["--add", "empty"], ["--add", "-g", "512", "fine"],
                    ["--add", "-g", "65536", "coarse"]):
        run(qemu_img, "bitmap", *options[:-1], b.path, options[-1])
    b.write(30, 3)
    b.write(700, 2)
    run(qemu_img, "bitmap", "--disable", b.path, "coarse")
    b.write(40, 1)


def be(raw, at, n_bytes):
    return int.from_bytes(raw[at:at + n_bytes], "big")


def shrink_to(path, size):
    """What is behind this size becomes the first snapshot's machine state."""
    with open(path, "r+b") as f:
        raw = bytearray(f.read())
        raw[24:32] = size.to_bytes(8, "big")
        at = be(raw, 64, 8)
        for number in range(be(raw, 60, 4)):
            n_extra, n_id, n_name = be(raw, at + 36, 4), be(raw, at + 12, 2), \
                be(raw, at + 14, 2)
            raw[at + 48:at + 56] = size.to_bytes(8, "big")
            if number == 0:
                raw[at + 32:at + 36] = VM_STATE_BYTES.to_bytes(4, "big")
                raw[at + 40:at + 48] = VM_STATE_BYTES.to_bytes(8, "big")
            at = (at + 40 + n_extra + n_id + n_name + 7) & ~7
        f.seek(0)
        f.write(raw)


def add_foreign(path):
    """Things of a later program that others may leave alone: a header extension, and bits
    of the compatible and the autoclear features."""
    with open(path, "r+b") as f:
        header = f.read(4096)
        at = be(header, 100, 4)
        extension = (0x51325135).to_bytes(4, "big") + (21).to_bytes(4, "big") + \
            b"of some other program".ljust(24, b"\0")
        header = header[:at] + extension + header[at:]
        header = header[:80] + (be(header, 80, 8) | 1 << 20).to_bytes(8, "big") + \
            (be(header, 88, 8) | 1 << 33).to_bytes(8, "big") + header[96:]
        f.seek(0)
        f.write(header[:4096])


def fill_few(b, qemu_img):
    """The same in few clusters, which are large."""
    b.write(0, 1)
    b.write(1, 1, packed=True)
    run(qemu_img, "snapshot", "-c", "first", b.path)
    b.write(0, 1)
    b.zero(2, 1)


def fill(b, span, version, backing, n_snapshots, qemu_img):
    def snapshot(name):
        b.run(qemu_img, "snapshot", "-c", name, *b.named())

    b.write(0, 3)
    b.write(4, 2, packed=True)
    b.write(span + 1, 2)
    b.write(span - 2, 2)
    b.write(8, 2)
    if version == 3 or backing is False:
        b.zero(8, 1)
        b.zero(12, 2, unmap=True)
    if n_snapshots > 0:
        snapshot("first")
        b.write(1, 1)
        b.write(5, 1)
        b.write(10, 1, packed=True)
        b.write(span + 2, 2)
    if n_snapshots > 1:
        snapshot("the second one")
        b.write(2, 1)
        b.write(16, 2, packed=True)
        b.write(20, 2)
    b.write(span * 2 + 1, 1)
    if b.cluster_size == 512:
        b.write(span * 3, 240)  # more than one refcount block counts
    b.write(24, 4)
    if version == 3:
        b.zero(25, 1)
        b.zero(28, 1, unmap=True)
