#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# A small disk whose parts say where they are, in all the ways that a recovery knows: two
# partition tables, an ext4 and an XFS file system as far as they count, and labels.
#
#   tests/fuzz/guest_disk.py FILE
import struct
import sys

SIZE = 1 << 20
EXT, XFS, BTRFS, SWAP, LVM = (n << 10 for n in (64, 320, 640, 768, 896))
BLOCK = 1024

disk = bytearray(SIZE)


def put(at, fmt, *values):
    struct.pack_into(fmt, disk, at, *values)


def identity(n):
    return bytes([n]) * 16


def partitions():
    put(446, "<BBBBBBBBII", 0, 0, 2, 0, 0xEE, 0, 0, 0, 1, SIZE // 512 - 1)
    put(462, "<BBBBBBBBII", 0, 0, 2, 0, 0x83, 0, 0, 0, EXT // 512, 512)
    put(510, "<H", 0xAA55)
    last = SIZE // 512 - 1
    for own, other in ((1, last), (last, 1)):
        put(own * 512, "<8sIIIIQQ", b"EFI PART", 0x10000, 92, 0, 0, own, other)
        put(own * 512 + 84, "<I", 128)
    starts = (EXT, XFS, BTRFS, SWAP, LVM, SIZE - 512)
    for i in range(5):
        put(1024 + 128 * i + 32, "<QQ", starts[i] // 512, starts[i + 1] // 512 - 1)


# Groups of 64 blocks: a superblock, descriptors, two bitmaps, four blocks of inodes.
def ext():
    groups, per_group, inodes = 4, 64, 16
    table = lambda g: g * per_group + 1 + 4
    for g in range(groups):
        at = EXT + (g * per_group + 1) * BLOCK
        put(at, "<IIIIIIIIIII", groups * inodes, groups * per_group, 0, 8, 8, 1, 0, 0,
            per_group, per_group, inodes)
        put(at + 56, "<HHHH", 0xEF53, 1, 1, 0)
        put(at + 76, "<IIIHH", 1, 0, 11, 256, g)
        put(at + 92, "<III", 0, 0x42, 0x400)
        disk[at + 104:at + 120] = identity(1)
        put(at + 1020, "<I", 1)  # no cluster of it is a hole
        for i in range(groups):
            put(at + BLOCK + 32 * i, "<IIIHHH", i * per_group + 3, i * per_group + 4,
                table(i), 8, 8, 2)
        disk[at + 2 * BLOCK:at + 3 * BLOCK] = b"\xff" * BLOCK
        disk[at + 3 * BLOCK:at + 4 * BLOCK] = b"\x0f\x00" + b"\xff" * (BLOCK - 2)
    for n in range(groups * inodes):
        group, index = divmod(n, inodes)
        at = EXT + table(group) * BLOCK + 256 * index
        inode(at, n, group * per_group + 12 + index)


# A folder in every group, and files with an extent, of which some have data.
def inode(at, n, block):
    put(at, "<HHI", 0x81A4 if n % 16 else 0x41ED, 0, BLOCK - 100)
    put(at + 26, "<HII", 1, 6, 0x80000)
    put(at + 40, "<HHHHIIHHI", 0xF30A, 1, 4, 0, 0, 0, 1, 0, block)
    put(at + 128, "<H", 32)
    start = EXT + block * BLOCK
    if n % 16 == 0:
        put(start, "<IHBBc", n + 1, 12, 1, 2, b".")
        put(start + 12, "<IHBB2s", 1, BLOCK - 12, 2, 2, b"..")
        put(start + 512, "<I", n)
    elif n % 5 == 0:
        disk[start:start + BLOCK - 100] = bytes([n]) * (BLOCK - 100)
    crc = crc32c(crc32c(0xFFFFFFFF, identity(1)), struct.pack("<I", n + 1))
    crc = crc32c(crc, bytes(4) + disk[at:at + 256])
    put(at + 124, "<H", crc & 0xFFFF)
    put(at + 130, "<H", crc >> 16)


def crc32c(crc, data):
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


# Four groups of 128 blocks of 512 bytes.
def xfs():
    per_group = 128
    for g in range(4):
        at = XFS + g * per_group * 512
        put(at, ">4sIQ", b"XFSB", 512, 4 * per_group)
        disk[at + 32:at + 48] = identity(2)
        put(at + 84, ">II", per_group, 4)
        put(at + 120, ">BBBBB", 9, 9, 9, 0, 7)
        put(at + 512, ">4sII", b"XAGF", 1, g)
        disk[at + 512 + 64:at + 512 + 80] = identity(2)
        put(at + 1024, ">4sII", b"XAGI", 1, g)
        disk[at + 1024 + 296:at + 1024 + 312] = identity(2)
        tree = at + 4 * 512
        put(tree, ">4s12xQ", b"AB3B", (tree - XFS) // 512)
        disk[tree + 32:tree + 48] = identity(2)
        inode = at + 8 * 512
        put(inode, ">HHBB", 0x494E, 0x81A4, 3, 2)
        put(inode + 56, ">Q", 1500)
        put(inode + 76, ">I", 1)
        put(inode + 152, ">Q", g << 7 | 8)
        disk[inode + 160:inode + 176] = identity(2)
        start = g << 7 | 16
        put(inode + 176, ">QQ", start >> 43, (start & ((1 << 43) - 1)) << 21 | 3)
        disk[at + 16 * 512:at + 16 * 512 + 1500] = b"x" * 1500


def labels():
    at = BTRFS + 65536
    disk[at + 32:at + 48] = identity(3)
    put(at + 48, "<Q8s", 65536, b"_BHRfS_M")
    put(at + 112, "<Q", SWAP - BTRFS)
    disk[SWAP + 1036:SWAP + 1052] = identity(4)
    disk[SWAP + 4086:SWAP + 4096] = b"SWAPSPACE2"
    put(LVM + 512, "<8sQ", b"LABELONE", 1)
    disk[LVM + 544:LVM + 560] = identity(5)


partitions()
ext()
xfs()
labels()
with open(sys.argv[1], "wb") as out:
    out.write(disk)
