# SPDX-License-Identifier: MIT
"""A repair that is cut short: its writes are recorded, and every state that the image could
be in when the power goes is made from them. From each, undo must give back the damaged
image, and another repair must end as well as the whole one did. Of some states that other
repair is cut short, too, and the same must hold again."""

import json
import os
import re
import struct
import subprocess
import zlib

from judge import Bad, Content, Judge, Ran, read_file, write_file
from qcow2format import FormatError, Reader

WRITE, FLUSH, SET_SIZE, OTHER = 0, 1, 2, 8
MAX_STATES = 60
# Of these so many are repaired and cut again, in so many places.
MAX_AGAIN = 4
MAX_STATES_AGAIN = 4
PLAN = re.compile(r"^    (?:(flush)|set the file's size to (\d+)|write 0x([0-9a-f]{16}) at "
                  r"offset (\d+)|write (\d+) bytes at offset (\d+))$", re.M)


def build_recorder(folder):
    """The library that is preloaded."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recorder.c")
    target = os.path.join(folder, "recorder.so")
    compiler = (os.environ.get("QCOW2_CC") or os.environ.get("CC", "cc")).split()
    subprocess.run([*compiler, "-D_GNU_SOURCE", "-shared", "-fPIC", "-O", "-o", target,
                    source, "-ldl"], check=True)
    return target


def parse_log(raw):
    """[(kind, offset, bytes)]"""
    ops, at = [], 0
    while at < len(raw):
        kind, offset, n = struct.unpack_from("=QQQ", raw, at)
        ops.append((kind, offset, raw[at + 24:at + 24 + n]))
        at += 24 + n
    return ops


def do(raw, op):
    """The image after one more call."""
    kind, offset, data = op
    if kind == WRITE:
        raw = raw.ljust(offset, b"\0")
        return raw[:offset] + data + raw[offset + len(data):]
    if kind == SET_SIZE:
        return raw[:offset].ljust(offset, b"\0")
    return raw


def torn(op):
    """The first half of a write of several sectors."""
    kind, offset, data = op
    n = len(data) // 512 // 2 * 512
    return (kind, offset, data[:n]) if kind == WRITE and n else None


def states(damaged, ops):
    """Every prefix; and of the writes between two flushes, that may reach the disk in any
    order: each alone, all but each, and each torn."""
    base, epoch = damaged, []
    found = {damaged: None}

    def add(raw):
        found.setdefault(raw, None)

    for op in [*ops, (FLUSH, 0, b"")]:
        if op[0] != FLUSH:
            epoch.append(op)
            continue
        raw = base
        for i, one in enumerate(epoch):
            if torn(one):
                add(do(raw, torn(one)))
            add(do(base, one))
            without = base
            for k, other in enumerate(epoch):
                if k != i:
                    without = do(without, other)
            add(without)
            raw = do(raw, one)
            add(raw)
        base, epoch = raw, []
    return list(found)


def spread(items, most):
    if len(items) <= most:
        return items
    return [items[i * (len(items) - 1) // (most - 1)] for i in range(most)]


class CutJudge(Judge):
    """Judges a repair by all the places where it can be cut."""

    recorder = None

    def record(self, damaged):
        """Does the repair; its calls."""
        self.place(damaged)
        log = os.path.join(self.folder, "log")
        if os.path.exists(log):
            os.unlink(log)
        env = dict(os.environ, LD_PRELOAD=self.recorder, Q2_RECORD=log,
                   Q2_RECORD_IMAGE=self.path)
        env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        done = Ran([self.qcow2, "check", "-r", "all", "--undo-file", "undo", "image"],
                   self.folder, env).must_be_sane((0, 1, 2, 3, 63))
        ops = parse_log(read_file(log)) if os.path.exists(log) else []
        return done, ops

    @staticmethod
    def undo_is_durable_first(ops):
        flushed = False
        for kind, _, _ in ops:
            if kind == WRITE + OTHER:
                flushed = False
            elif kind == FLUSH + OTHER:
                flushed = True
            elif kind in (WRITE, SET_SIZE):
                return flushed
        return True

    @staticmethod
    def same_as_plan(ops, out):
        """Does the dry run's plan say what was then done?"""
        planned, done = [], []
        for flush, size, value, at, n, place in PLAN.findall(out.decode()):
            if flush:
                planned.append("flush")
            elif size:
                planned.append(("size", int(size)))
            elif value:
                planned.append((int(at), 8, bytes.fromhex(value)))
            else:
                planned.append((int(place), int(n), None))
        for kind, offset, data in ops:
            if kind == FLUSH:
                done.append("flush")
            elif kind == SET_SIZE:
                done.append(("size", offset))
            elif kind == WRITE:
                done.append((offset, len(data), data if len(data) == 8 else None))
        while done and done[-1] == "flush":
            done.pop()
        while planned and planned[-1] == "flush":
            planned.pop()
        return planned == done

    @staticmethod
    def same_as_json(ops, out):
        """The same of the plan as JSON, which tells all that is written."""
        planned, done = [], []
        for edit in json.loads(out)["plan"]["edits"]:
            if edit["action"] == "write":
                data = edit.get("data")
                planned.append((edit["offset"], edit["length"],
                                bytes.fromhex(data) if data else int(edit["crc32"], 16)))
            else:
                planned.append(edit.get("size", "flush"))
        for kind, offset, data in ops:
            if kind == WRITE:
                done.append((offset, len(data),
                             data if len(data) <= 512 else zlib.crc32(data)))
            else:
                done.append(offset if kind == SET_SIZE else "flush")
        while done and done[-1] == "flush":
            done.pop()
        while planned and planned[-1] == "flush":
            planned.pop()
        return planned == done

    def wrong(self, raw):
        """What the guest does not read any more: (state, cluster) pairs."""
        found = set()
        try:
            after = Reader(raw, self.outside).states()
        except FormatError:
            return {(number, None) for number in range(len(self.layout.all_states))}
        for number, was in enumerate(self.layout.all_states):
            now = Content.find(after, was.snapshot)
            if now is None:
                found.add((number, None))
                continue
            zeros = self.layout.zeros
            keys = was.content.keys() | now.content.keys()
            for first, last in now.bad_ranges:
                found.update((number, i) for i in range(first, last))
            found.update((number, i) for i in keys
                         if was.content.get(i, zeros) != now.content.get(i, zeros))
        return found

    def cuts(self, damage):
        """(number of states tried, why it is bad or None)"""
        damaged = damage.apply(self.layout.raw)
        try:
            self.place(damaged)
            dry = self.check("-r", "all", "--dry-run")
            plan = self.check("-r", "all", "--dry-run", "--output=json")
            whole, ops = self.record(damaged)
            if not any(kind in (WRITE, SET_SIZE) for kind, _, _ in ops) or whole.code:
                return 0, None
            ours = [op for op in ops if op[0] < OTHER]
            if not self.same_as_plan(ours, dry.out) or \
                    not self.same_as_json(ours, plan.out):
                raise Bad("the dry run's plan is not what was done")
            return self.judge_cuts(damaged, ops)
        except Bad as e:
            return 0, " ".join(str(e).split())

    def judge_cuts(self, damaged, ops):
        ours = [op for op in ops if op[0] < OTHER]
        final = damaged
        for op in ours:
            final = do(final, op)
        if final != read_file(self.path):
            raise Bad("the recorded calls do not make the repaired image")
        if not self.undo_is_durable_first(ops):
            raise Bad("the image is written before the undo file is flushed")
        undo, lost = read_file(self.undo), self.wrong(final)
        self.judge_leaks_first(damaged, lost)
        chosen = spread(states(damaged, ours), MAX_STATES)
        for number, raw in enumerate(chosen):
            self.judge_state("state %d of %d: " % (number, len(chosen)), raw, damaged, undo,
                             lost)
        n = len(chosen)
        for number, raw in enumerate(spread(chosen[1:], MAX_AGAIN)):
            n += self.cut_again("cut %d: " % number, raw, damaged, undo, lost)
        return n, None

    def judge_leaks_first(self, damaged, lost):
        """-r leaks changes nothing that a guest reads, and takes nothing from -r all."""
        self.place(damaged)
        self.check("-r", "leaks")
        if self.wrong(read_file(self.path)) != self.wrong(damaged):
            raise Bad("-r leaks changes what the guest reads")
        if self.check("-r", "all").code != 0:
            raise Bad("after -r leaks, -r all does not make the image sound")
        more = self.wrong(read_file(self.path)) - lost
        if more:
            raise Bad("after -r leaks, -r all loses more: %s" % sorted(more)[:3])

    def judge_state(self, label, raw, damaged, undo, lost):
        self.undoes(label, raw, undo, damaged)
        self.repairs_again(label, raw, lost)

    def undoes(self, label, raw, undo, damaged):
        self.place(raw)
        write_file(self.undo, undo)
        back = self.run_undo()
        # Before the first write there is nothing to take back.
        if (back.code != 0) != (raw == damaged) or read_file(self.path) != damaged:
            raise Bad(label + "undo fails: " + back.err.decode(errors="replace"))

    def repairs_again(self, label, raw, lost):
        self.place(raw)
        again = self.check("-r", "all")
        after = read_file(self.path)
        if again.code != 0:
            raise Bad(label + "a second repair ends with %d" % again.code)
        if self.oracle().code != 0:
            raise Bad(label + "qemu-img check finds something after the second repair")
        more = self.wrong(after) - lost
        if more:
            raise Bad(label + "the second repair loses more: %s" % sorted(more)[:3])

    def cut_again(self, label, raw, damaged, undo, lost):
        """The repair of what a cut has left, cut short. Returns the number of states."""
        _, ops = self.record(raw)
        ours = [op for op in ops if op[0] < OTHER]
        if not any(kind in (WRITE, SET_SIZE) for kind, _, _ in ours):
            return 0
        if not self.undo_is_durable_first(ops):
            raise Bad(label + "the image is written before the undo file is flushed")
        second = read_file(self.undo)
        chosen = spread(states(raw, ours)[1:], MAX_STATES_AGAIN)
        for number, state in enumerate(chosen):
            where = label + "state %d of %d: " % (number, len(chosen))
            # Step by step: to where the first repair was cut, and on to the beginning.
            self.undoes(where, state, second, raw)
            self.undoes(where, read_file(self.path), undo, damaged)
            self.undoes_or_refuses(where, state, undo, damaged)
            self.repairs_again(where, state, lost)
        return len(chosen)

    def undoes_or_refuses(self, label, raw, undo, damaged):
        """The first undo file over what the second repair wrote: it may not know that."""
        self.place(raw)
        write_file(self.undo, undo)
        code = self.run_undo().code
        if read_file(self.path) != (raw if code else damaged):
            raise Bad(label + "the first undo file ends with %d, and leaves something else"
                      % code)
