# SPDX-License-Identifier: MIT
"""What a command left behind: read by QEMU's program, so that a mistake of ours in writing is
not made up for by the same one in reading."""

import hashlib
import json
import os
import re
import subprocess

from images import KEY, encrypted

SECTOR = 512


class Bad(Exception):
    """What must not be."""


def read_file(path):
    with open(path, "rb") as f:
        return f.read()


def write_file(path, data):
    """With holes where there are zeros, as the files were."""
    with open(path, "wb") as f:
        for at in range(0, len(data), 4096):
            piece = data[at:at + 4096]
            if piece.count(0) != len(piece):
                f.seek(at)
                f.write(piece)
        f.truncate(len(data))


class State:
    """One image: what the guest sees in each of its states, and what check says."""

    def __init__(self, disks, described, verdict):
        self.disks = disks
        self.described = described
        self.verdict = verdict


class Reader:
    """Reads the images in a folder. What it has seen once it knows for ever."""

    def __init__(self, folder, oracle, qcow2):
        self.folder = folder
        self.oracle = oracle
        self.qcow2 = qcow2
        self.known = {}

    def run(self, program, *arguments):
        return subprocess.run([program, *arguments], cwd=self.folder, capture_output=True,
                              stdin=subprocess.DEVNULL, check=False, timeout=120)

    def state(self, name):
        """None: it is no image that can be opened."""
        files = sorted(os.listdir(self.folder))
        key = [name]
        for f in files:
            key.append(f + hashlib.sha1(read_file(os.path.join(self.folder, f))).hexdigest())
        key = " ".join(key)
        if key not in self.known:
            self.known[key] = self.look(name)
        return self.known[key]

    def look(self, name):
        data = read_file(os.path.join(self.folder, name))
        if data[:4] != b"QFI\xfb":
            if name.endswith(".qcow2"):
                return None
            return State({"": data}, {}, "clean")
        verdict, copy = self.verdict(name, data)
        try:
            return State(self.disks(copy), self.describe(copy), verdict)
        finally:
            if copy != name:
                os.unlink(os.path.join(self.folder, copy))

    def check(self, program, name, data):
        return self.run(program, "check", "-q", *self.name_it(name, data)).returncode

    def verdict(self, name, data):
        """And the name of a file to read it from: a copy that was healed, if it says that it
        is dirty."""
        dirty = data[7] == 3 and data[79] & 1
        if dirty:
            copy = name + ".healed"
            write_file(os.path.join(self.folder, copy), data)
            for program in (self.qcow2, self.oracle):
                ran = self.run(program, "check", "-q", "-r", "all", "-f", "qcow2", copy)
                if ran.returncode not in (0, 3):
                    raise Bad("dirty, and check -r all ends with %d: %s" % (
                        ran.returncode, ran.stderr.decode(errors="replace")[:300]))
            return "dirty", copy
        codes = {self.check(p, name, data) for p in (self.qcow2, self.oracle)}
        if codes <= {0}:
            return "clean", name
        # Version 2 has no mark for it: clusters may be taken for shared that are not.
        if 2 in codes and data[7] == 2 and self.only_copies(name, data):
            return "needless copies", name
        return ("leaks" if codes <= {0, 3} else "errors"), name

    def only_copies(self, name, data):
        """A cluster that leaks may be thought to be shared, or said not to be, by its entry."""
        said = self.run(self.oracle, "check", "-f", "qcow2", name).stderr.decode()
        size = 1 << int.from_bytes(data[20:24], "big")
        leaked = {int(n) for n in re.findall(r"^Leaked cluster (\d+) .* reference=1$", said, re.M)}
        for s in said.splitlines():
            entry = re.match(r"ERROR OFLAG_COPIED .*_entry=([0-9a-f]+) refcount=(\d+)$", s)
            if not entry and not s.startswith("Leaked cluster "):
                return False
            if not entry:
                continue
            value = int(entry.group(1), 16)
            if value >> 63 and (value & 0xfffffffffffe00) // size not in leaked:
                return False
        return True

    def name_it(self, name, data):
        """Arguments that name it."""
        method = int.from_bytes(data[32:36], "big")
        if method:
            return ["--object", KEY, "--image-opts", encrypted(name)]
        return ["-f", "qcow2", name]

    def disks(self, name):
        data = read_file(os.path.join(self.folder, name))
        named = self.name_it(name, data)
        listing = json.loads(self.run(self.oracle, "info", "--output=json", "-f", "qcow2",
                                      name).stdout or "{}")
        disks = {}
        for state in ["", *(s["name"] for s in listing.get("snapshots", []))]:
            ran = self.run(self.oracle, "convert", "-O", "raw",
                           *(["-l", "snapshot.name=" + state] if state else []), *named,
                           ".raw")
            if ran.returncode:
                raise Bad("cannot be read: " + ran.stderr.decode(errors="replace")[:300])
            path = os.path.join(self.folder, ".raw")
            disks[state] = read_file(path)
            os.unlink(path)
        return disks

    def describe(self, name):
        """What info says, but for sizes on disk and times."""
        said = json.loads(self.run(self.oracle, "info", "--output=json", "-f", "qcow2",
                                   name).stdout)
        for key in ("actual-size", "dirty-flag", "filename", "children"):
            said.pop(key, None)
        data = said.get("format-specific", {}).get("data", {})
        data.pop("corrupt", None)
        data.get("encrypt", {}).pop("uuid", None)
        for slot in data.get("encrypt", {}).get("slots", []):
            slot.pop("iters", None)
        data.get("encrypt", {}).pop("master-key-iters", None)
        for s in said.get("snapshots", []):
            for key in ("date-sec", "date-nsec"):
                s.pop(key, None)
        # A bitmap that was at work when the program failed says so itself.
        for b in data.get("bitmaps", []):
            b["flags"] = sorted(f for f in b["flags"] if f != "in-use")
        return said


def mixed(data, old, new):
    """Each sector is the old or the new one."""
    if len(data) not in (len(old), len(new)):
        return False
    for at in range(0, len(data), SECTOR):
        piece = data[at:at + SECTOR]
        if piece not in (old[at:at + SECTOR], new[at:at + SECTOR]):
            return False
    return True


def held_against(state, old, new, mixes):
    """A state beside those before and after: "old", "new" or "between"."""
    if state.verdict == "errors" and old.verdict != "errors":
        raise Bad("check finds errors in it")
    if set(state.disks) not in (set(old.disks), set(new.disks)):
        raise Bad("it has the snapshots " + str(sorted(state.disks)))
    where = set()
    for name, data in state.disks.items():
        known = [s.disks[name] for s in (old, new) if name in s.disks]
        if data == known[0]:
            where.add("old" if name in old.disks else "new")
        elif data == known[-1]:
            where.add("new")
        elif mixes and mixed(data, known[0], known[-1]):
            where.add("between")
        else:
            raise Bad("the guest's data of '%s' are neither old nor new" % name)
    if state.described not in (old.described, new.described):
        raise Bad("info tells neither old nor new: " + json.dumps(state.described)[:2000])
    if state.described != old.described:
        where.add("new")
    return where.pop() if len(where) == 1 else "between"


def one_line(program, stderr, known_lines):
    """The one line that says what went wrong."""
    lines = [s for s in stderr.split("\n")[:-1] if s not in known_lines
             and not re.match(r"%s: warning: " % program, s)
             and not re.match(r"Is another process using the image \[|"
                              r"Could not open backing image\.$|Failed to write to keyslot ",
                              s)]
    if stderr and not stderr.endswith("\n"):
        raise Bad("its last line does not end")
    if len(lines) != 1:
        raise Bad("%d lines of error" % len(lines))
    if not re.match(r"%s: \S.*" % program, lines[0]):
        raise Bad("an error line that does not begin with its name")
    if re.search(r": Success|\(null\)|Unknown error|: $", lines[0]):
        raise Bad("an error line that says nothing")
    return lines[0]
