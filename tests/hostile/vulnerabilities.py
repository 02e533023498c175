# SPDX-License-Identifier: MIT
"""The malformed images of public vulnerabilities of programs that read qcow2, each made from
nothing. What is wrong with each, and what becomes of it here, stands with it:

  refused   no command takes it, and all say the same: "says"
  checked   check finds it; the commands that meet it refuse it
  sound     there is nothing wrong with it: it is read as it should be
  named     it names a file of the host: info says which, and opens nothing
"""

from builder import COPIED, Builder, repeated

SECRET = "secret.raw"


class Case:
    def __init__(self, name, kind, make, says=None, what=""):
        self.name, self.kind, self.make, self.says, self.what = name, kind, make, says, what

    def file(self):
        return self.name + ".qcow2"


CASES = []


def case(name, kind, says=None):
    def add(make):
        CASES.append(Case(name, kind, make, says, " ".join(make.__doc__.split())))
        return make
    return add


def with_field(**fields):
    """A disk with a cluster of data, and header fields as given."""
    b = Builder()
    b.l2(0, COPIED | b.data())
    b.h.update(fields)
    return b


def field_case(name, says, what, **fields):
    CASES.append(Case(name, "refused", lambda path: with_field(**fields).write(path), says, what))


# --- CVE-2014-0144: sizes and offsets of the header that nobody had looked at ------------

for i, length in enumerate((0xFFFFFFFF, 0x7FFFFFFF)):
    field_case("CVE-2014-0144-header-length-%d" % i, "header exceeds cluster size",
               "The header is as long as can be said: it was read to a buffer of that size.",
               header_length=length)
for i, n in enumerate((0xFFFFFFFF, 0x20001)):
    field_case("CVE-2014-0144-refcount-table-size-%d" % i, "Reference count table too large",
               "The refcount table's size in bytes overflowed, or was allocated unseen.",
               refcount_table_clusters=n)
for i, at in enumerate((0x1234567890ABCDEF, 0xFFFFFFFFFFFF0000)):
    field_case("CVE-2014-0144-refcount-table-offset-%d" % i,
               "Reference count table offset invalid",
               "The refcount table is nowhere.", refcount_table_offset=at,
               refcount_table_clusters=0x7F)
for i, n in enumerate((0xFFFFFFFF, 0x7FFFFFFF)):
    field_case("CVE-2014-0144-snapshots-%d" % i, "Snapshot table too large",
               "The snapshots' number times the size of one overflowed.", nb_snapshots=n)
for i, at in enumerate((0xFFFFFFFFFFFF0000, 0x1234567890ABCDEF)):
    field_case("CVE-2014-0144-snapshots-offset-%d" % i, "Snapshot table offset invalid",
               "The snapshot table is nowhere.", nb_snapshots=0xFFFF, snapshots_offset=at)
for i, n in enumerate((0xFFFFFFFF, 0x7FFFFFFF)):
    field_case("CVE-2014-0144-l1-size-%d" % i, "Active L1 table too large",
               "The L1 table's size in bytes overflowed.", l1_size=n)
for i, at in enumerate((0x7FFFFFFFFFFF0000, 0x1234567890ABCDEF)):
    field_case("CVE-2014-0144-l1-offset-%d" % i, "Active L1 table offset invalid",
               "The L1 table is nowhere.", l1_table_offset=at, l1_size=0xFFFF)
field_case("CVE-2014-0144-backing-name", "Backing file name too long",
           "A backing file's name was read to a buffer of 1023 bytes, whatever its length.",
           backing_file_offset=4096, backing_file_size=0xFFFFFFFF)


@case("CVE-2014-0144-extension", "refused", "[Ee]xtension")
def huge_extension(path):
    """An unknown header extension that is longer than the file."""
    b = with_field()
    b.extensions.append((0x12345678, 0x7FFFFFFF))
    b.write(path)


@case("CVE-2014-0144-backing-offset", "refused", "Invalid backing file offset")
def huge_backing_offset(path):
    """The backing file's name is nowhere, which was the end of where extensions are sought."""
    b = with_field(backing_file_offset=(1 << 64) - 1, backing_file_size=4)
    b.extensions.append((0x12345678, 0x7FFFFFFF))
    b.write(path)


# --- CVE-2014-0143: integer overflows -----------------------------------------------------

@case("CVE-2014-0143-snapshot-l1-size", "checked")
def snapshot_l1_size(path):
    """A snapshot's L1 table of 2^28 entries: in bytes this is 0 of 32 bits."""
    b = with_field()
    b.snapshots([(b"1", b"test", b.table([0]), 0x10000000)])
    b.write(path)


@case("CVE-2014-0143-snapshot-l1-offset", "checked")
def snapshot_l1_offset(path):
    """A snapshot's L1 table that is not aligned, and outside of the file."""
    b = with_field()
    b.snapshots([(b"1", b"test", 0x400200, 1)])
    b.write(path)


@case("CVE-2014-0143-disk-size", "refused", "L1 table is too small|too (big|large)")
def disk_size(path):
    """A disk of 2^63 bytes: the number of L1 entries that it takes was an int."""
    b = Builder(bits=9)
    b.h["size"] = (1 << 63) - 512
    b.write(path)


# --- CVE-2014-0145 to 0147 ----------------------------------------------------------------

@case("CVE-2014-0145-longer-snapshot", "sound")
def longer_snapshot(path):
    """A snapshot's L1 table with more entries than the active one was read to a buffer of
    the active one's size. The image is right: the disk had been larger."""
    b = with_field()
    l2 = b.place(b.cluster, repeated(COPIED | b.data(b"\x77"), 1))
    n = 8000
    b.snapshots([(b"1", b"test", b.place(8 * n, repeated(COPIED | l2, 1)), n,
                  (0).to_bytes(8, "big") + (n << 29).to_bytes(8, "big"))])
    b.write(path)


@case("CVE-2014-0146-snapshots-unread", "refused", "Active L1 table offset invalid")
def snapshots_unread(path):
    """There are snapshots, and the image is refused before they were read: what was not
    there yet was freed."""
    b = with_field()
    b.snapshots([(b"1", b"test", b.table([0]), 1)])
    b.h["l1_table_offset"] = 0x40200
    b.write(path)


for i, entry in enumerate((0xBFFFFFFFFFFF0000, 0x800000FFFFFF0000)):
    @case("CVE-2014-0147-cluster-%d" % i, "checked")
    def far_cluster(path, entry=entry):
        """An L2 entry whose cluster no refcount block can count: a snapshot made room in
        the refcount table for it, beyond its end."""
        b = Builder()
        b.l2(0, entry, COPIED | b.data())
        b.write(path)


# --- CVE-2014-0222 and 0223: the older format, which is not read here ---------------------

def qcow1(path, cluster_bits=12, l2_bits=9, size=64 << 20):
    with open(path, "wb") as out:
        out.write(b"QFI\xfb" + (1).to_bytes(4, "big") + bytes(12) + bytes(4)
                  + size.to_bytes(8, "big") + bytes([cluster_bits, l2_bits, 0, 0])
                  + bytes(4) + (48).to_bytes(8, "big"))
        out.truncate(65536)


@case("CVE-2014-0222-l2-bits", "refused", "qcow image|Unsupported qcow2 version 1")
def qcow1_l2_bits(path):
    """qcow, not qcow2: L2 tables of 2^255 entries."""
    qcow1(path, l2_bits=255)


@case("CVE-2014-0222-cluster-bits", "refused", "qcow image|Unsupported qcow2 version 1")
def qcow1_cluster_bits(path):
    """qcow, not qcow2: clusters of 2^31 bytes."""
    qcow1(path, cluster_bits=31)


@case("CVE-2014-0223-size", "refused", "qcow image|Unsupported qcow2 version 1")
def qcow1_size(path):
    """qcow, not qcow2: a disk of 2^64 - 1 bytes."""
    qcow1(path, size=(1 << 64) - 1)


# --- a file of the host that the image names ----------------------------------------------

@case("CVE-2015-5163-backing", "named")
def backing_file(path):
    """An upload whose backing file is one of the host's: what converts it reads that."""
    b = Builder(size=1 << 20)
    b.name_backing(SECRET, "raw")
    b.write(path)


@case("CVE-2015-5163-no-format", "named")
def backing_unknown_format(path):
    """The same without the backing file's format: that is guessed, as qemu-img does."""
    b = Builder(size=1 << 20)
    b.name_backing(SECRET)
    b.write(path)


@case("CVE-2022-47951-vmdk", "named", "Unknown driver 'vmdk'")
def backing_vmdk(path):
    """The backing file is a descriptor that names yet another file as its extent: of formats
    other than raw and qcow2 nothing is known here."""
    with open("descriptor.vmdk", "w", encoding="ascii") as out:
        out.write('# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n'
                  'createType="monolithicFlat"\n\nRW 2048 FLAT "%s" 0\n' % SECRET)
    b = Builder(size=1 << 20)
    b.name_backing("descriptor.vmdk", "vmdk")
    b.write(path)


@case("CVE-2022-47951-vmdk-guessed", "named", "looks like a vmdk image")
def backing_vmdk_guessed(path):
    """The same, its format to be guessed."""
    backing_vmdk(path)
    b = Builder(size=1 << 20)
    b.name_backing("descriptor.vmdk")
    b.write(path)


@case("CVE-2024-4467-data-file", "named", "Unknown protocol 'json'|json:")
def data_file_json(path):
    """The data file's name is a description of devices, which info followed: it could open
    any file, for writing too, or take all memory."""
    b = Builder(size=1 << 20)
    b.name_data_file('json:{"driver":"qcow2","file":{"driver":"file","filename":"%s"}}' % SECRET)
    b.write(path)


@case("CVE-2024-4467-nested", "named", "Unknown protocol 'json'|json:")
def data_file_nested(path):
    """The same, nested as deep as a header has room for."""
    b = Builder(size=1 << 20)
    b.name_data_file("json:" + '{"file":' * 4000 + "1" + "}" * 4001)
    b.write(path)


@case("CVE-2024-32498-data-file", "named")
def data_file(path):
    """An upload whose data file is one of the host's."""
    b = Builder(size=1 << 20)
    b.name_data_file(SECRET)
    b.l2(0, *(COPIED | i << 16 for i in range(16)))
    b.write(path)


def make_secret():
    with open(SECRET, "wb") as out:
        out.write(b"SECRET:\n" * (1 << 17))
