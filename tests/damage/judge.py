# SPDX-License-Identifier: MIT
"""What became of one damage: what check found, what its repair did, what undo gave back;
and the same damage given to qemu-img.

  healed    sound again, and every state of the guest is byte for byte what it was
  lossy     sound again; only what was hit differs, reads as zeros, and was reported
  kept      sound again; the damaged value made sense and was taken as it stands: only what
            was hit differs, and it reads as the damaged image said
  harmless  nothing is wrong: nothing was found, nothing was changed, the guest's bytes are
            what they were
  unseen    the damaged image is a sound image of something else (QEMU finds nothing either)
  deep      nothing is wrong with the metadata (QEMU finds nothing either), but a cluster cannot
            be read: --read-data finds it
  refused   not a bit of the file was changed, and a message says why
  BAD       anything else
"""

import os
import re
import select
import subprocess

from images import SECRET
from qcow2format import DATA_FILE, OFFSET_MASK, ZERO, FormatError, Reader, be

CLASSES = ["healed", "lossy", "kept", "harmless", "unseen", "deep", "refused", "BAD"]
TIMEOUT = 300  # for what hangs
MAX_FILE_BYTES = 64 << 20  # the sound images have less than 3 MiB
LOSS = re.compile(r"^    (active state|snapshot .*?table entry (\d+)\)?): "
                  r"(all of it|(\d+) bytes at guest offset (\d+))$", re.M)
BACKING = re.compile(rb"backing file|data-file|No such file|requires a file name|Unknown driver|encrypt")
MARKS = (b"runtime error:", b"Sanitizer", b"Assertion", b"assertion")


class Bad(Exception):
    """Something that must never happen."""


def wait(process, seconds):
    """As Popen.wait, without its naps."""
    if hasattr(os, "pidfd_open"):
        fd = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(seconds * 1000)
        finally:
            os.close(fd)
        seconds = 0
    process.wait(seconds)


class Ran:
    """A command that ended. What it prints goes through files: findings are many."""

    def __init__(self, command, cwd, env=None):
        self.command = command
        paths = [os.path.join(cwd, name) for name in ("stdout", "stderr")]
        with open(paths[0], "wb") as out, open(paths[1], "wb") as err:
            process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=err, env=env)
            try:
                wait(process, TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise Bad("hangs: " + " ".join(command)) from None
        self.code = process.returncode
        self.out, self.err = (read_file(path) for path in paths)

    def must_be_sane(self, codes):
        said = self.out + self.err
        if self.code not in codes or any(m in said for m in MARKS):
            raise Bad("%s ends with %d: %s" % (" ".join(self.command[1:4]), self.code,
                                               said[-300:].decode(errors="replace")))
        return self


def read_file(path):
    if os.path.getsize(path) > MAX_FILE_BYTES:
        raise Bad("the file has grown to %d bytes" % os.path.getsize(path))
    with open(path, "rb") as f:
        return f.read()


def write_file(path, raw):
    with open(path, "wb") as f:
        f.write(raw)


def losses(out):
    """State number -> reported guest ranges (bytes)."""
    found = {}
    for m in LOSS.finditer(out.decode(errors="replace")):
        number = 0 if m[2] is None else int(m[2]) + 1
        start = 0 if m[4] is None else int(m[5])
        end = 1 << 62 if m[4] is None else start + int(m[4])
        found.setdefault(number, []).append((start, end))
    return found


def inside(ranges, start, end):
    """Do the ranges together cover start to end?"""
    for a, b in sorted(ranges):
        if a <= start < b:
            start = b
    return start >= end


class Content:
    """Compares the guest's bytes before and after."""

    def __init__(self, layout, damage, outside):
        self.layout, self.outside = layout, outside
        self.bits, self.zeros = layout.bits, layout.zeros
        self.damaged_raw = damage.apply(layout.raw)
        self.hit = layout.hit_ranges(*damage.range(layout.raw))
        self.kind = damage.kind
        self.hit_bytes = damage.range(layout.raw)
        self.damaged = self.read_damaged()

    def read_damaged(self):
        """The states of the damaged image, or the active one alone, or none."""
        try:
            reader = Reader(self.damaged_raw, self.outside)
            try:
                return reader.states()
            except FormatError:
                return [reader.active()]
        except FormatError:
            return []

    @staticmethod
    def find(states, snapshot):
        """The state of this snapshot among states."""
        if snapshot is None:
            return states[0]
        for same in (lambda s: (s.l1_table_offset, s.id, s.name) ==
                     (snapshot.l1_table_offset, snapshot.id, snapshot.name),
                     lambda s: (s.id, s.name) == (snapshot.id, snapshot.name),
                     lambda s: s.l1_table_offset == snapshot.l1_table_offset):
            for state in states[1:]:
                if same(state.snapshot):
                    return state
        return None

    def is_hit(self, number, start, end):
        return inside(self.hit.get(number, []), start, end)

    def entry_is_hit(self, snapshot):
        first = self.layout.snapshot_list[0].offset
        a, b = self.hit_bytes
        return (a < snapshot.end and first < b) or (a < 72 and 60 < b)

    def differences(self, was, now):
        keys = was.content.keys() | now.content.keys()
        different = {i for i in keys
                     if was.content.get(i, self.zeros) != now.content.get(i, self.zeros)}
        for first, last in now.bad_ranges:
            different.update(range(first, last))
        if was.size != now.size:
            different.add(min(was.size, now.size) >> self.bits)
        return different

    def unreadable(self, raw):
        """Does an entry of any state lead nowhere?"""
        reader = Reader(raw, self.outside)
        return any(None in state.content.values() for state in reader.states()) or \
            reader.contradicts

    def compare(self, raw, reported):
        """healed, lossy or kept; raises Bad. reported None: not asked for (QEMU)."""
        try:
            states = Reader(raw, self.outside).states()
        except FormatError as e:
            raise Bad("unreadable afterwards: %s" % e) from None
        verdicts = {"healed"}
        for number, was in enumerate(self.layout.all_states):
            now = self.find(states, was.snapshot)
            verdicts |= self.compare_state(number, was, now, reported)
        if len(states) > len(self.layout.all_states):
            if raw == self.damaged_raw:
                return "kept"
            raise Bad("more snapshots than there were")
        for verdict in ("lossy", "kept", "healed"):
            if verdict in verdicts:
                return verdict
        return None

    def compare_state(self, number, was, now, reported):
        label = "snapshot %d" % (number - 1) if number else "active state"
        if now is None:
            return self.lost_snapshot(number, label, was, reported)
        verdicts = set()
        if was.snapshot and now.snapshot.facts() != was.snapshot.facts():
            if not self.entry_is_hit(was.snapshot):
                raise Bad("%s: its table entry changed" % label)
            verdicts.add("kept")
        for index in self.differences(was, now):
            verdicts.add(self.judge_cluster(number, label, index, was, now, reported))
        if reported is not None:
            for start, end in reported.get(number, []):
                if not self.overlaps_hit(number, start >> self.bits, end >> self.bits):
                    raise Bad("%s: loss reported where nothing was hit: %d" % (label, start))
        return verdicts

    def overlaps_hit(self, number, start, end):
        return any(a < max(end, start + 1) and start < b
                   for a, b in self.hit.get(number, []))

    def lost_snapshot(self, number, label, was, reported):
        if not self.is_hit(number, 0, (was.end() + len(self.zeros) - 1) >> self.bits):
            raise Bad("%s is lost, and it was not hit" % label)
        if reported is not None and not reported.get(number):
            if self.damaged and self.find(self.damaged, was.snapshot) is None:
                return {"kept"}
            raise Bad("%s is lost, and nothing says so" % label)
        return {"lossy"}

    def damaged_cluster(self, was, index):
        """What the damaged image itself said here; None if it made no sense."""
        state = self.find(self.damaged, was.snapshot) if self.damaged else None
        if state is None or any(a <= index < b for a, b in state.bad_ranges):
            return None
        return state.content.get(index, self.zeros)

    def flag_is_gone(self, was, index, got):
        """Nothing is left of an entry that had an offset and the zero flag: its cluster may
        be found again, but nobody can know of the flag."""
        a, b = self.hit_bytes
        if self.layout.features & DATA_FILE:
            # What was written there before may show again.
            at = index << self.bits
            data = self.outside.data[at:at + len(self.zeros)].ljust(len(self.zeros), b"\0")
            return was.content.get(index) is None and got == data
        if b - a != 8 or self.kind not in ("ones", "random") or a % 8:
            return False
        entry = be(self.layout.raw, a, 8)
        at = entry & OFFSET_MASK
        return bool(entry & ZERO and at) and was.content.get(index) is None and \
            got == self.layout.raw[at:at + len(self.zeros)]

    def judge_cluster(self, number, label, index, was, now, reported):
        where = "%s, guest offset %d" % (label, index << self.bits)
        if not self.is_hit(number, index, index + 1):
            raise Bad("changed outside of what was hit: " + where)
        got = now.content.get(index, self.zeros)
        if any(a <= index < b for a, b in now.bad_ranges) or got is None:
            raise Bad("unreadable afterwards: " + where)
        if reported is None:
            return "lossy"
        if self.flag_is_gone(was, index, got):
            return "kept"
        old = was.content.get(index, self.zeros)
        verdicts = set()
        for at in range(0, len(got), self.layout.piece):
            piece = slice(at, at + self.layout.piece)
            if got[piece] != old[piece]:
                verdicts.add(self.judge_piece(number, index, piece, was, got, reported, where))
        return "lossy" if "lossy" in verdicts else "kept"

    def judge_piece(self, number, index, piece, was, got, reported, where):
        at = (index << self.bits) + piece.start
        end = min(at + self.layout.piece, was.end_at(at))
        told = inside(reported.get(number, []), at, end)
        if told and got[piece] == self.zeros[piece]:
            return "lossy"
        damaged = self.damaged_cluster(was, index)
        if not told and damaged is not None and got[piece] == damaged[piece]:
            return "kept"
        if told:
            raise Bad("stale data instead of zeros: " + where)
        raise Bad("silent loss: " + where)

    def compare_bitmaps(self, raw):
        """No bitmap says less than it did, or than the damaged image said."""
        after = {name: (e, reader.dirty(e)) for reader in [Reader(raw, self.outside)]
                 for name, _, e in reader.bitmaps()}
        try:
            reader = Reader(self.damaged_raw, self.outside)
            damaged = {name: reader.dirty(e) for name, _, e in reader.bitmaps()}
        except (FormatError, ValueError, OverflowError, MemoryError):
            damaged = {}
        for name, (e, now) in after.items():
            was = self.layout.all_dirty.get(name)
            if was is None or now >= was or e["flags"] & 1:
                continue
            if damaged.get(name) is None or now != damaged[name]:
                raise Bad("bitmap %s says less than it did" % name)

class Judge:
    """Gives damages of one image to the programs, in a folder of its own."""

    def __init__(self, qcow2, qemu_img, folder, layout, outside):
        self.qcow2, self.qemu_img, self.folder = qcow2, qemu_img, folder
        self.layout, self.outside = layout, outside
        self.path = os.path.join(folder, "image")
        self.undo = os.path.join(folder, "undo")

    def check(self, *options, codes=(0, 1, 2, 3, 63)):
        return Ran([self.qcow2, "check", *options, "image"],
                   self.folder).must_be_sane(codes)

    def oracle(self, *options):
        name = ["image"]
        if self.outside.crypt:
            name = ["--object", "secret,id=sec0,data=" + SECRET, "--image-opts",
                    "driver=qcow2,file.filename=image,encrypt.key-secret=sec0"]
        return Ran([self.qemu_img, "check", *options, *name], self.folder)

    def place(self, raw):
        write_file(self.path, raw)
        if os.path.exists(self.undo):
            os.unlink(self.undo)

    def ours(self, damage):
        """(class, why if BAD)."""
        content = Content(self.layout, damage, self.outside)
        try:
            return self.judge_ours(content), ""
        except Bad as e:
            return "BAD", " ".join(str(e).split())

    def judge_ours(self, content):
        damaged = content.damaged_raw
        self.place(damaged)
        found = self.check()
        dry = self.check("-r", "all", "--dry-run")
        if read_file(self.path) != damaged:
            raise Bad("check or --dry-run changed the image")
        repair = self.check("-r", "all", "--undo-file", "undo")
        after = read_file(self.path)
        if losses(dry.out) != losses(repair.out):
            raise Bad("--dry-run reports other losses than the repair")
        if after == damaged:
            return self.judge_untouched(content, found, repair)
        if repair.code != 0:
            raise Bad("written, and not sound: exit code %d: %s" % (
                repair.code, (repair.err or repair.out)[-200:].decode(errors="replace")))
        self.sound_and_still(after)
        verdict = content.compare(after, losses(repair.out))
        content.compare_bitmaps(after)
        self.takes_back(damaged)
        return verdict

    def judge_untouched(self, content, found, repair):
        if os.path.exists(self.undo):
            raise Bad("nothing was written, but there is an undo file")
        if found.code == 0 and repair.code == 0:
            oracle = self.oracle()
            # QEMU opens the backing file and wants keys, too: not check's affair.
            if oracle.code != 0 and not (oracle.code == 1 and BACKING.search(oracle.err)):
                raise Bad("missed: qemu-img check finds something")
            try:
                Reader(content.damaged_raw, self.outside)
            except FormatError:
                return "unseen"
            if content.unreadable(content.damaged_raw):
                if self.check("--read-data").code != 2:
                    raise Bad("unreadable clusters, and --read-data does not find them")
                return "deep"
            return "harmless" if content.compare(content.damaged_raw, None) == "healed" \
                else "unseen"
        if found.code == 0 or repair.code == 0:
            raise Bad("exit codes %d, %d disagree" % (found.code, repair.code))
        if not repair.err:
            raise Bad("refused without a word")
        return "refused"

    def sound_and_still(self, after):
        again = self.check("-r", "all")
        if again.code != 0 or read_file(self.path) != after:
            raise Bad("a second repair finds something (exit code %d)" % again.code)
        oracle = self.oracle()
        if oracle.code != 0:
            raise Bad("qemu-img check ends with %d: %s" % (
                oracle.code, (oracle.err + oracle.out)[:200].decode(errors="replace")))

    def run_undo(self):
        return Ran([self.qcow2, "check", "--undo", "undo", "image"],
                   self.folder).must_be_sane((0, 1))

    def takes_back(self, damaged):
        undo = self.run_undo()
        if undo.code != 0 or read_file(self.path) != damaged:
            raise Bad("undo does not give the damaged image back: " +
                      undo.err.decode(errors="replace"))

    def theirs(self, damage):
        """The class of qemu-img's repair; 'failed' stands for BAD."""
        content = Content(self.layout, damage, self.outside)
        self.place(content.damaged_raw)
        try:
            repair = self.oracle("-r", "all")
            after = read_file(self.path)
            if after == content.damaged_raw and repair.code != 0:
                return "refused"
            if repair.code != 0 or self.oracle().code != 0:
                return "BAD"
            if after == content.damaged_raw and content.unreadable(after):
                return "deep"
            verdict = content.compare(after, None)
            if after == content.damaged_raw:
                return "harmless" if verdict == "healed" else "unseen"
            return verdict
        except Bad:
            return "BAD"
