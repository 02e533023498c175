#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The fault matrix: every call that a command makes to the system and to the heap fails
once, space and descriptors run out, and what the command says and leaves must be right.

  matrix.py run [--only TEXT] [--mode MODE] [--every N] [--jobs N] [--terse]
  matrix.py one MODE N TEXT       one of them, with what it printed and where it failed
  matrix.py list                  the cases

Environment: QCOW2 (program under test), ORACLE (qemu-img), QCOW2_CC or CC (for the library
that is preloaded). A program with sanitizers is judged by these, too: no leak, no misuse.
"""

import argparse
import collections
import functools
import itertools
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from cases import CASES
from images import Builder
from judge import Bad, Reader, held_against, one_line, read_file, write_file

QCOW2 = os.path.abspath(os.environ.get("QCOW2", "qcow2"))
ORACLE = os.environ.get("ORACLE", "qemu-img")
MODES = ("once", "ever", "short", "eintr", "refuse")
# What the system itself refuses, of any program: files end at so many sectors; there are no
# more than so many descriptors, counted from where the program starts at all.
LIMITS = {"space": (resource.RLIMIT_FSIZE, 512), "descriptors": (resource.RLIMIT_NOFILE, 1)}
TIMEOUT = int(os.environ.get("Q2_FAULT_TIMEOUT", "120"))
# Jobs are so many calls of one case.
PIECE = 60
# Of a row of more than forty calls of the same name that middle, one in so many.
MIDDLE = 25000
# If one of these fails, the program must say so: what was asked for may not be there.
MUST_TELL = ("pwrite", "write", "fdatasync", "fsync", "ftruncate")
# What may be lacking when clusters are freed: they leak.
MEMORY = ("malloc", "calloc", "realloc", "memalign")
# What makes it impossible to remove a file, or to know which one that is.
REMOVING = ("unlink", "lstat", "fstat", "stat")


def build_shim(folder):
    here = os.path.dirname(os.path.abspath(__file__))
    target = os.path.join(folder, "shim.so")
    compiler = (os.environ.get("QCOW2_CC") or os.environ.get("CC", "cc")).split()
    # A sanitizer looks up the stack from one frame to the next.
    subprocess.run([*compiler, "-D_GNU_SOURCE", "-shared", "-fPIC", "-O1",
                    "-fno-omit-frame-pointer", "-o", target,
                    *(os.path.join(here, name) for name in ("shim.c", "shim_files.c")),
                    "-ldl"], check=True)
    return target


def finding(err):
    """What a sanitizer says, and where in our sources: None if it says nothing."""
    said = re.search(r"(?:ERROR: (\w+Sanitizer: \S+)|(runtime error: .*))", err)
    if not said:
        return None
    where = re.findall(r"#\d+ 0x[0-9a-f]+ in (\w+) \S*/(?:src|cmd)/", err[said.start():])
    return "%s in %s" % (said.group(1) or said.group(2), " < ".join(where[:6]) or "a library")


def limit(mode, at):
    what, unit = LIMITS[mode]
    return lambda: resource.setrlimit(what, (at * unit, at * unit))


@functools.lru_cache
def descriptors_to_start():
    """With so many the program starts."""
    for n in range(3, 64):
        ran = subprocess.run([QCOW2, "--version"], check=False, capture_output=True,
                             preexec_fn=limit("descriptors", n))
        if ran.returncode == 0:
            return n
    raise Bad("does not start with 63 descriptors")


class Ran:
    def __init__(self, code, out, err, failed, lost):
        self.code, self.out, self.err = code, out, err
        self.failed, self.lost = failed, lost


class Player:
    """Plays one case in a folder of its own."""

    def __init__(self, case, images, shim, folder):
        self.case = case
        self.shim = shim # None: the program is run as it is
        self.folder = folder
        self.log = folder + ".log"
        self.program = folder + ".bin/" + case.program
        os.makedirs(folder + ".bin", exist_ok=True)
        os.makedirs(folder)
        os.makedirs(folder + ".tmp", exist_ok=True)
        if not os.path.exists(self.program):
            os.symlink(QCOW2, self.program)
        self.before = {n: read_file(os.path.join(images, n))
                       for n in case.uses + case.changes + case.mixes}
        self.there = {}
        self.reader = Reader(folder, ORACLE, QCOW2)
        self.reset()
        self.old = {n: self.reader.state(n) for n in self.before}
        self.good = self.play("once", 0)
        if self.good.code != case.code:
            raise Bad("ends with %d without a fault: %s" % (self.good.code, self.good.err))
        self.new = {n: self.reader.state(n) for n in self.listing() if n != case.undo}
        self.sizes = {n: os.path.getsize(self.path(n)) for n in self.listing()}
        self.reset()

    def path(self, name):
        return os.path.join(self.folder, name)

    def listing(self):
        return sorted(os.listdir(self.folder))

    def reset(self):
        for name in self.listing():
            if name not in self.before:
                os.unlink(self.path(name))
        for name, data in self.before.items():
            if not os.path.exists(self.path(name)) or read_file(self.path(name)) != data:
                write_file(self.path(name), data)

    def play(self, mode, at, trace=False):
        if os.path.exists(self.log):
            os.unlink(self.log)
        env = {**os.environ, "LC_ALL": "C", "TZ": "UTC", "TMPDIR": self.folder + ".tmp"}
        if self.shim and mode not in LIMITS:
            env.update({"LD_PRELOAD": self.shim, "FAULT_MODE": mode, "FAULT_AT": str(at),
                        "FAULT_LOG": self.log})
        env["ASAN_OPTIONS"] = ("verify_asan_link_order=0:allocator_may_return_null=1:"
                               "detect_leaks=1:exitcode=86")
        env["UBSAN_OPTIONS"] = "print_stacktrace=1:exitcode=86"
        if self.case.threads:
            env["FAULT_THREADS"] = "1"
        if trace:
            env["FAULT_TRACE"] = "1"
        stdin = open(self.path(self.case.stdin), "rb") if self.case.stdin else None
        try:
            p = subprocess.run([self.program, *self.case.words], cwd=self.folder, env=env,
                               stdin=stdin or subprocess.DEVNULL, capture_output=True,
                               timeout=TIMEOUT, check=False, restore_signals=False,
                               preexec_fn=limit(mode, at) if mode in LIMITS else None)
        finally:
            if stdin:
                stdin.close()
        log = read_file(self.log).decode() if os.path.exists(self.log) else ""
        if at == 0 and mode not in LIMITS:
            return Ran(p.returncode, p.stdout, p.stderr.decode(errors="replace"),
                       log.split("\n")[:-1], False)
        failed = [mode] if mode in LIMITS else re.findall(r"^failed (.*)$", log, re.M)
        ran = Ran(p.returncode, p.stdout, p.stderr.decode(errors="replace"),
                  failed[0] if failed else None, "lost " in log)
        ran.log = log
        return ran

    def masked(self, data):
        for m in self.case.masks:
            data = re.sub(m.encode(), b"", data)
        return data

    # --- the judgement ------------------------------------------------------------------

    def judge(self, mode, ran):
        """What became of it, in a word or two."""
        case = self.case
        if finding(ran.err):
            raise Bad(finding(ran.err))
        if ran.code < 0 or ran.code == 86:
            raise Bad("crashed, exit code %d" % ran.code)
        left = os.listdir(self.folder + ".tmp")
        if left:
            for name in left:
                os.unlink(os.path.join(self.folder + ".tmp", name))
            if ran.failed not in REMOVING and mode != "ever":
                raise Bad("left temporary files: " + " ".join(left))
        files = set(self.listing())
        strange = files - set(self.before) - set(case.makes) - {case.undo}
        if strange or set(self.before) - files:
            raise Bad("left or lost files: " + " ".join(sorted(files)))
        for name in case.uses:
            if read_file(self.path(name)) != self.before[name]:
                raise Bad(name + " has changed")
        if ran.code == case.code:
            return self.judge_success(mode, ran)
        return self.judge_failure(mode, ran)

    def judge_success(self, mode, ran):
        case = self.case
        outcome = "went on"
        # Where nobody knows which parts are holes, more is said to be there.
        blind = ran.failed == "lseek-data" or (mode == "ever" and ran.failed == "pread")
        if self.masked(ran.out) != self.masked(self.good.out) and not (
                case.words[0] in ("map", "recover") and blind):
            raise Bad("said that it went well, but printed something else")
        known = set(self.good.err.split("\n"))
        for s in ran.err.split("\n"):
            if s not in known and not s.startswith(case.program + ": warning: "):
                raise Bad("said that it went well, and: " + s)
        if ran.lost and not case.changes:
            # What a change writes behind its last flush may be lost: the power cuts show it.
            raise Bad("did not tell that closing a file failed, with data not on the disk")
        lies = "FAULT_LIES" in os.environ
        if ran.failed in MUST_TELL and mode in ("once", "ever") and not lies:
            raise Bad("did not tell that %s failed" % ran.failed)
        if "--salvage" in case.words and "warning: error while reading" in ran.err:
            return "went on, with holes"
        for name in case.makes + case.changes + case.mixes:
            if not os.path.exists(self.path(name)):
                raise Bad(name + " is not there")
            state, new = self.reader.state(name), self.new[name]
            if state is None or state.disks != new.disks:
                raise Bad(name + " does not hold what it should")
            if state.verdict == "leaks" and ran.failed in MEMORY:
                outcome = "went on, with leaks"
            elif state.verdict != new.verdict or state.described != new.described:
                raise Bad("%s is %s, not %s, or something else in it is not as it should be"
                          % (name, state.verdict, new.verdict))
        self.judge_undo()
        return outcome

    def judge_failure(self, mode, ran):
        case = self.case
        if ran.code not in case.codes:
            raise Bad("exit code %d" % ran.code)
        if mode in ("short", "eintr", "refuse") and "libgcrypt cannot" not in ran.err:
            raise Bad("failed because of something that is no error")
        if not (case.talks and ran.out != self.good.out and not ran.err):
            self.judge_words(ran)
        where = "told"
        for name in case.makes:
            where = self.judge_made(name, ran, mode, where)
        for name in case.changes + case.mixes:
            state = self.reader.state(name)
            if state is None:
                raise Bad(name + " is no image any more")
            place = held_against(state, self.old[name], self.new[name], name in case.mixes)
            # A flush that failed says nothing good about later ones.
            if mode == "once" and ran.failed != "fdatasync" and (
                    state.verdict == "needless copies"):
                raise Bad(name + " has wrong COPIED flags, and they could have been mended")
            if read_file(self.path(name)) == self.before[name]:
                place = "untouched"
            where = "%s, %s" % (where, place if state.verdict == "clean" or
                                place == "untouched" else place + " with " + state.verdict)
        self.judge_undo()
        return where

    def judge_words(self, ran):
        known = set(self.good.err.split("\n"))
        known.update(re.findall("^ERROR the data cluster at .* cannot be read$", ran.err, re.M))
        if ran.code == 2 and known != {""}:
            return # check takes it for damage
        said = ran.err
        if self.case.talks: # a line for each of its commands that fails
            said = said.split("\n")[0] + "\n"
            if said.split(":")[0] in self.case.uses: # in qemu-io's words
                return
        one_line(self.case.program, said, known)
        good = self.masked(self.good.out)
        out = self.masked(ran.out)
        if self.case.words[0] == "check" and "is told" in ran.err:
            return # and the rest is printed
        if self.case.talks or not out or ran.failed == "write" or "cannot be read" in ran.err:
            return
        if not good.startswith(out):
            raise Bad("printed something else before it failed")

    def judge_made(self, name, ran, mode, where):
        if not os.path.exists(self.path(name)):
            return where
        data = read_file(self.path(name))
        state = self.reader.state(name) if data[:4] == b"QFI\xfb" or (
            not self.new[name].described) else None
        if state and state.verdict == "clean" and state.disks == self.new[name].disks:
            return "told, whole"
        if (ran.failed in REMOVING or mode in ("ever", *LIMITS) or "libgcrypt cannot" in ran.err) and (
                not data or not state):
            return "told, no image left"
        raise Bad("left something of %s: %d bytes" % (name, len(data)))

    def judge_undo(self):
        """The undo file gives the old image back, or there is none and nothing to undo."""
        case = self.case
        if not case.undo:
            return
        name = (case.changes + case.mixes)[0]
        changed = read_file(self.path(name)) != self.before[name]
        if not os.path.exists(self.path(case.undo)):
            if changed:
                raise Bad("the image was changed, and there is no undo file")
            return
        empty = os.path.getsize(self.path(case.undo)) == 0 # it could not be removed
        ran = subprocess.run([self.program, "check", "--undo", case.undo, name],
                             cwd=self.folder, capture_output=True, check=False,
                             stdin=subprocess.DEVNULL, timeout=TIMEOUT)
        if read_file(self.path(name)) != self.before[name]:
            raise Bad("--undo does not give the old image back: exit code %d, %s" %
                      (ran.returncode, ran.stderr.decode()[:300]))
        if not changed and not empty and b"nothing to take back" not in ran.stderr:
            raise Bad("left an undo file that is of no use")


# --- many of them -----------------------------------------------------------------------

players = {}
place = None


def player_of(index):
    if index not in players:
        folder = os.path.join(place, "%d.%d" % (os.getpid(), index))
        shim = os.path.join(place, "shim.so")
        players[index] = Player(CASES[index], os.path.join(place, "images"),
                                shim if os.path.exists(shim) else None, folder)
    return players[index]


def play_one(player, mode, at):
    """(call that failed, outcome, complaint)"""
    try:
        ran = player.play(mode, at)
    except subprocess.TimeoutExpired:
        player.reset()
        return "?", "BAD", "did not end"
    if ran.failed is None:
        player.reset()
        return None, None, None
    try:
        result = ran.failed, player.judge(mode, ran), None
    except Bad as bad:
        result = ran.failed, "BAD", "%s [exit %d: %s]" % (bad, ran.code, ran.err.strip()[:300])
    except subprocess.TimeoutExpired:
        result = ran.failed, "BAD", "what it left cannot be read in time"
    player.reset()
    return result


def play_piece(job):
    index, mode, points = job
    found = []
    try:
        player = player_of(index)
    except Bad as bad:
        return index, mode, [(0, "?", "BAD", str(bad))]
    for at in points:
        call, outcome, complaint = play_one(player, mode, at)
        if call is None:
            break
        found.append((at, call, outcome, complaint))
    return index, mode, found


def points_of(calls, mode):
    """The numbers of the calls that may be hit. A long row of the same one is a library's loop:
    its ends, and a part of the middle."""
    letter = {"short": "s", "eintr": "e", "refuse": "r"}.get(mode, "")
    names = [c.split()[0] for c in calls if letter in c]
    points, at = [], 0
    for name, row in itertools.groupby(names):
        n = len(list(row))
        points += [at + k + 1 for k in range(n)
                   if k < 20 or k >= n - 20 or k % MIDDLE == 0]
        at += n
    return points


def limits_of(player, mode):
    """As far as the command can notice."""
    if mode == "descriptors":
        first = descriptors_to_start()
        return list(range(first, first + 6))
    case = player.case
    n = max([0] + [player.sizes[f] for f in case.makes + case.changes + case.mixes]) // 512
    return [*range(min(n, 4)), *range(4, n + 1, max(1, n // 20))]


def count(index):
    """The points of each mode."""
    try:
        player = player_of(index)
        points = {mode: limits_of(player, mode) for mode in LIMITS}
        if player.shim:
            points.update({mode: points_of(player.good.failed, mode) for mode in MODES})
        return points
    except Bad as bad:
        return str(bad)


def wanted(args):
    return [i for i, c in enumerate(CASES) if all(t in c.name for t in args.only)
            and not any(t in c.name for t in args.skip)]


def jobs_of(args, pool):
    """Of the calls of each case and mode every args.every-th, not the same everywhere."""
    jobs = []
    for index, counts in zip(wanted(args), pool.imap(count, wanted(args))):
        if isinstance(counts, str):
            print("BAD  %s: %s" % (CASES[index].name, counts))
            jobs.append(None)
            continue
        for mode in args.mode or counts:
            every = args.every * CASES[index].thin
            points = counts[mode][(7 * index + list(counts).index(mode)) % every::every]
            for k in range(0, len(points), PIECE):
                jobs.append((index, mode, points[k:k + PIECE]))
    return jobs


class Sum:
    def __init__(self):
        self.outcomes = collections.Counter()
        self.calls = collections.Counter()

    def line(self, name):
        n = sum(self.outcomes.values())
        return "%-72s %6d  %s" % (name[:72], n, ", ".join(
            "%s %d" % o for o in sorted(self.outcomes.items())))


def die_by_signals():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def run(args, folder):
    global place
    place = folder
    begin = time.time()
    if args.lies:
        os.environ["FAULT_LIES"] = "1"
    os.mkdir(os.path.join(folder, "images"))
    Builder(os.path.join(folder, "images"), ORACLE, QCOW2).build()
    if not args.mode or not set(args.mode) <= set(LIMITS):
        build_shim(folder)
    cases = collections.defaultdict(Sum)
    modes = collections.defaultdict(Sum)
    bad = 0
    with multiprocessing.Pool(args.jobs, die_by_signals) as pool:
        jobs = jobs_of(args, pool)
        bad += jobs.count(None)
        for index, mode, found in pool.imap_unordered(play_piece, [j for j in jobs if j]):
            for at, call, outcome, complaint in found:
                for s in (cases[index], modes[mode], modes["all"]):
                    s.outcomes[outcome] += 1
                modes[mode].calls[call] += 1
                if outcome == "BAD":
                    bad += 1
                    print("BAD  %s %d %s, %s: %s" % (mode, at, CASES[index].name, call,
                                                     complaint), flush=True)
        pool.close() # ended by a signal, processes may miss it, and would be waited for
        pool.join()
    if not args.terse:
        for index in sorted(cases):
            print(cases[index].line(CASES[index].name))
        for mode, s in modes.items():
            print("%s: %s" % (mode, ", ".join("%s %d" % c for c in s.calls.most_common())))
    for mode, s in modes.items():
        print(s.line(mode))
    print("%d cases, %.0f s" % (len(cases), time.time() - begin))
    return 1 if bad or not cases else 0


def one(args, folder):
    os.mkdir(os.path.join(folder, "images"))
    Builder(os.path.join(folder, "images"), ORACLE, QCOW2).build()
    shim = None if args.mode in LIMITS else build_shim(folder)
    case = [c for c in CASES if args.case in c.name][0]
    player = Player(case, os.path.join(folder, "images"), shim, os.path.join(folder, "work"))
    ran = player.play(args.mode, args.at, trace=True)
    print("%s\nexit %d\n--- out\n%s--- err\n%s--- log\n%s" % (
        case.name, ran.code, ran.out.decode(errors="replace"), ran.err, ran.log))
    if args.keep:
        shutil.copytree(player.folder, args.keep)
    try:
        print(player.judge(args.mode, ran))
    except Bad as bad:
        print("BAD  %s" % bad)
        return 1
    return 0


def list_names(_args, _folder):
    for c in CASES:
        print(c.name)
    return 0


def command_line():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("run")
    p.set_defaults(function=run)
    p.add_argument("--only", action="append", default=[], help="part of the command line")
    p.add_argument("--skip", action="append", default=[], help="the same, of what is not run")
    p.add_argument("--mode", action="append", choices=(*MODES, *LIMITS))
    p.add_argument("--every", type=int, default=1, help="one call out of N")
    p.add_argument("--lies", action="store_true",
                   help="writes that should fail do nothing instead: must be BAD")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--terse", action="store_true", help="totals and BAD ones alone")
    p = commands.add_parser("one")
    p.set_defaults(function=one)
    p.add_argument("mode", choices=(*MODES, *LIMITS))
    p.add_argument("at", type=int)
    p.add_argument("case", help="part of the command line")
    p.add_argument("--keep", help="a folder that gets what it left")
    p = commands.add_parser("list")
    p.set_defaults(function=list_names)
    return parser.parse_args()


def main():
    args = command_line()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder_of = None
    if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 1 << 28:
        folder_of = "/dev/shm" # every command flushes
    with tempfile.TemporaryDirectory(prefix="qcow2-faults.", dir=folder_of) as folder:
        return args.function(args, folder)


if __name__ == "__main__":
    sys.exit(main())
