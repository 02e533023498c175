# SPDX-License-Identifier: MIT
"""The images that the fault matrix starts from: made by QEMU, small, a kind of each."""

import os
import struct
import subprocess

KEY = "secret,id=sec0,data=passw0rd"
LUKS = "encrypt.format=luks,encrypt.key-secret=sec0,encrypt.iter-time=10"


def encrypted(name):
    """The --image-opts of an image with a key."""
    return "driver=qcow2,encrypt.key-secret=sec0,file.filename=" + name


class Builder:
    def __init__(self, folder, oracle, qcow2):
        self.folder = folder
        self.oracle = oracle
        self.qcow2 = qcow2

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, *command):
        subprocess.run(command, cwd=self.folder, check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def img(self, *arguments):
        self.run(self.oracle, *arguments)

    def io(self, name, *commands, options=("-f", "qcow2")):
        words = [w for c in commands for w in ("-c", c)]
        self.run("qemu-io", *options, *words, name)

    def create(self, name, size, *options):
        self.img("create", "-q", "-f", "qcow2", *options, name, size)

    def poke(self, name, offset, data):
        with open(self.path(name), "r+b") as f:
            f.seek(offset)
            f.write(data)

    def number(self, name, offset, fmt=">Q"):
        with open(self.path(name), "rb") as f:
            f.seek(offset)
            return struct.unpack(fmt, f.read(struct.calcsize(fmt)))[0]

    def raw(self, name, first, size=256):
        """Data, compressible and not, zeros and a hole."""
        with open(self.path(name), "wb") as f:
            for k in range(size // 4):
                if k % 8 < 5:
                    f.seek(k * 4096)
                    f.write(bytes([first + k % 60]) * 4000 + b"%096d" % k)
            f.truncate(size << 10)

    def build(self):
        self.raw("src.raw", 1)
        self.raw("base.raw", 65)
        self.raw("small.raw", 130, 64)
        with open(self.path("word"), "wb") as f:
            f.write(b"passw0rd")
        with open(self.path("script"), "wb") as f:
            f.write(b"write -P 9 0 8k\nread -P 9 0 8k\nquit\n")
        self.with_everything("a.qcow2", "-o", "cluster_size=4k")
        self.with_everything("v2.qcow2", "-o", "compat=0.10,cluster_size=4k")
        self.with_everything("lazy.qcow2", "-o", "cluster_size=4k,lazy_refcounts=on")
        self.with_everything("z.qcow2", "-o", "cluster_size=4k,compression_type=zstd")
        self.with_everything("ext.qcow2", "-o", "cluster_size=16k,extended_l2=on")
        self.create("plain.qcow2", "1M")
        self.io("plain.qcow2", "write -P 5 64k 100k", "write -z 512k 64k")
        self.bitmaps()
        self.layers()
        self.broken()
        self.lost()
        self.with_key()
        self.data_file()

    def with_everything(self, name, *options):
        self.create(name, "256k", *options)
        self.io(name, "write -P 11 0 40k", "write -c -P 12 64k 16k", "write -z 96k 16k",
                "write -P 13 200k 1k")
        self.img("snapshot", "-c", "one", name)
        self.io(name, "write -P 21 8k 12k", "write -c -P 22 128k 16k", "discard 32k 4k")

    def bitmaps(self):
        self.create("bm.qcow2", "256k", "-o", "cluster_size=4k")
        for name in ("b0", "b1"):
            self.img("bitmap", "--add", "-g", "4k", "bm.qcow2", name)
        self.io("bm.qcow2", "write -P 11 0 40k", "write -P 12 128k 16k")
        self.img("bitmap", "--disable", "bm.qcow2", "b1")
        self.io("bm.qcow2", "write -P 13 60k 4k")

    def layers(self):
        self.img("convert", "-O", "qcow2", "-o", "cluster_size=4k", "base.raw", "base.qcow2")
        self.img("convert", "-O", "qcow2", "-o", "cluster_size=4k", "src.raw", "other.qcow2")
        self.create("over.qcow2", "256k", "-o", "cluster_size=4k", "-b", "base.qcow2", "-F",
                    "qcow2")
        self.io("over.qcow2", "write -P 31 4k 8k", "write -P 32 100k 24k", "write -z 60k 8k")
        self.create("top.qcow2", "256k", "-o", "cluster_size=4k", "-b", "over.qcow2", "-F",
                    "qcow2")
        self.io("top.qcow2", "write -P 41 8k 8k", "write -P 42 180k 12k")
        self.create("onraw.qcow2", "256k", "-o", "cluster_size=4k", "-b", "base.raw", "-F",
                    "raw")
        self.io("onraw.qcow2", "write -P 33 16k 8k")

    def copy(self, old, new):
        with open(self.path(old), "rb") as f, open(self.path(new), "wb") as g:
            g.write(f.read())

    def broken(self):
        self.copy("lazy.qcow2", "dirty.qcow2")
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 51 48k 16k", "-c", "flush",
                        "-c", "sigraise 9", "dirty.qcow2"], cwd=self.folder,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        assert self.number("dirty.qcow2", 72) & 1
        # A cluster that leaks, an entry without its flag, and a refcount that is too low.
        self.copy("a.qcow2", "broken.qcow2")
        block = self.number("broken.qcow2", self.number("broken.qcow2", 48))
        size = os.path.getsize(self.path("broken.qcow2"))
        size = -(-size // 4096) * 4096
        self.poke("broken.qcow2", block + 2 * (size // 4096), b"\0\1")
        self.poke("broken.qcow2", size, bytes(4096))
        self.copy("broken.qcow2", "leaky.qcow2")
        l2 = self.number("broken.qcow2", self.number("broken.qcow2", 40)) & 0xfffffffffffe00
        entry = self.number("broken.qcow2", l2)
        self.poke("broken.qcow2", l2, struct.pack(">Q", entry ^ 1 << 63))
        data = (entry & 0xfffffffffffe00) // 4096
        self.poke("broken.qcow2", block + 2 * data, b"\0\0")
        self.copy("leaky.qcow2", "mended.qcow2")
        self.run(self.qcow2, "check", "-r", "all", "--undo-file", "mended.undo", "mended.qcow2")

    def lost(self):
        """An image without its first cluster, and one without its header and L1 table."""
        self.copy("a.qcow2", "lost.qcow2")
        self.poke("lost.qcow2", 0, bytes(4096))
        self.copy("over.qcow2", "beheaded.qcow2")
        self.poke("beheaded.qcow2", self.number("beheaded.qcow2", 40), bytes(4096))
        self.poke("beheaded.qcow2", 0, bytes(512))

    def with_key(self):
        self.run(self.qcow2, "create", "-q", "-f", "qcow2", "--object", KEY, "-o",
                 LUKS + ",cluster_size=4k", "luks.qcow2", "64k")
        self.io(encrypted("luks.qcow2"), "write -P 61 0 24k",
                options=("--object", KEY, "--image-opts"))

    def data_file(self):
        self.create("df.qcow2", "256k", "-o", "cluster_size=4k,data_file=df.data")
        self.io("df.qcow2", "write -P 71 0 24k", "write -P 72 100k 8k")
