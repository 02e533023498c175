#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The damage matrix of check.

  matrix.py run [--image NAME] [--only TEXT] [--every N] ...   all damages, and the table
  matrix.py cut [--image NAME] [--only TEXT] [--every N] ...   repairs cut short anywhere
  matrix.py vet [--image NAME] [--only TEXT] [--every N] ...   does vet reject what is damaged?
  matrix.py make DAMAGE FILE                                   one damaged image, by its name
  matrix.py list [--image NAME] [--only TEXT]                  the damages' names

Environment: QCOW2 (program under test), ORACLE (qemu-img), CC (for the recorder of cut).
"""

import argparse
import collections
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

sys.dont_write_bytecode = True

from damages import all_damages
from images import FEATURES, IMAGES, THINNED, build, outside
from judge import CLASSES, read_file, write_file
from powercut import CutJudge, build_recorder
from qcow2format import Layout
from vetting import VetJudge

QCOW2 = os.path.abspath(os.environ.get("QCOW2", "qcow2"))
ORACLE = os.environ.get("ORACLE", "qemu-img")


class Base:
    """A sound image, built once, shared by the workers."""

    def __init__(self, name, folder):
        self.name = name
        path = build(name, folder, ORACLE)
        self.others = [p for p in (os.path.join(folder, name + end)
                                   for end in (".back", ".data")) if os.path.exists(p)]
        self.outside = outside(name, folder)
        self.layout = Layout(read_file(path), self.outside)
        self.damages = all_damages(name, self.layout)
        self.structures = {d.structure for d in self.damages}


def wanted(args, base, start):
    """The damages asked for; start spreads --every over the images."""
    found = [d for d in base.damages if all(t in d.name for t in args.only)
             and (args.all or not d.again)]
    if args.spread:
        groups = {}
        for d in found:
            groups.setdefault(d.structure, []).append(d)
        if base.name in FEATURES:  # of what others have, too, a part is enough
            known = set().union(*(b.structures for b in Worker.bases.values()
                                  if b.name not in FEATURES))
            groups = {g: d for i, (g, d) in enumerate(groups.items())
                      if g not in known or i % 6 == 0}
        number = sorted(IMAGES).index(found[0].image) if found else 0
        found = [g[(7 * number + 5 * i) % len(g)] for i, g in enumerate(groups.values())]
    every = args.every * (1 if args.all else THINNED.get(base.name, 1))
    return found[start % every::every]


class Worker:
    """One process; judges of all images."""

    bases, folder, qemu = {}, None, True

    @classmethod
    def judge(cls, name):
        folder = os.path.join(cls.folder, "%d-%s" % (os.getpid(), name))
        base = cls.bases[name]
        if not os.path.isdir(folder):
            os.mkdir(folder)
            for path in base.others:  # copies: QEMU's locks are of files
                subprocess.run(["cp", "--sparse=always", path, folder], check=True)
        return CutJudge(QCOW2, ORACLE, folder, base.layout, base.outside)

    @classmethod
    def work(cls, job):
        name, index = job
        damage = cls.bases[name].damages[index]
        judge = cls.judge(name)
        start = time.monotonic()
        verdict, why = judge.ours(damage)
        seconds = time.monotonic() - start
        return job, verdict, why, judge.theirs(damage) if cls.qemu else None, seconds

    @classmethod
    def cut(cls, job):
        name, index = job
        return job, *cls.judge(name).cuts(cls.bases[name].damages[index])

    @classmethod
    def vet(cls, job):
        name, index = job
        base = cls.bases[name]
        judge = VetJudge(QCOW2, ORACLE, cls.judge(name).folder, base.layout)
        return job, *judge.judge(base.damages[index])


def short(counter):
    return " ".join("%s %d" % (c, counter[c]) for c in CLASSES if counter[c])


def table(title, rows, out):
    """rows: label -> (ours, theirs)."""
    wide = max([len(label) for label in rows] + [len(title)])
    print("\n%-*s  %5s | %-52s | %s" % (wide, title, "", "qcow2", "qemu-img"), file=out)
    for label, (ours, theirs) in rows.items():
        print("%-*s  %5d | %-52s | %s" % (wide, label, sum(ours.values()), short(ours),
                                          short(theirs)), file=out)


class Results:
    def __init__(self):
        self.by_structure, self.by_kind, self.by_image, self.cells = {}, {}, {}, {}
        self.total = (collections.Counter(), collections.Counter())
        self.bad, self.worse, self.slowest = [], [], (0.0, "")

    def add(self, damage, verdict, why, theirs, seconds):
        kind = damage.kind
        for rows, label in ((self.by_structure, damage.structure), (self.by_kind, kind),
                            (self.by_image, damage.image),
                            (self.cells, damage.structure + " / " + kind)):
            cell = rows.setdefault(label, (collections.Counter(), collections.Counter()))
            cell[0][verdict] += 1
            cell[1][theirs] += 1
        self.total[0][verdict] += 1
        self.total[1][theirs] += 1
        self.slowest = max(self.slowest, (seconds, damage.name))
        if verdict == "BAD":
            self.bad.append((damage.name, why))
        elif theirs is not None and self.rank(verdict) > self.rank(theirs):
            self.worse.append((damage.name, verdict, theirs))

    @staticmethod
    def rank(verdict):
        if verdict in ("healed", "harmless", "unseen", "deep"):
            return 0
        return 1 if verdict in ("lossy", "kept") else 2

    def print(self, terse, full, out):
        if not terse:
            table("structure", self.by_structure, out)
            table("kind of damage", self.by_kind, out)
            table("image", self.by_image, out)
        if full:
            table("structure / kind", self.cells, out)
        table("total", {"all": self.total}, out)
        print("\nlongest: %.1f s, %s" % self.slowest, file=out)
        for name, ours, theirs in self.worse:
            print("qemu-img does better: %s: %s, %s" % (name, ours, theirs), file=out)
        for name, why in self.bad:
            print("BAD: %s: %s" % (name, why), file=out)


def prepare(args, folder):
    """The images, and what is to be done with them."""
    Worker.folder, jobs = folder, []
    for name in args.image or IMAGES:
        base = Worker.bases[name] = Base(name, folder)
        numbers = {d: i for i, d in enumerate(base.damages)}
        jobs += [(name, numbers[d]) for d in wanted(args, base, len(jobs))]
    jobs = jobs[args.first:][:args.most]
    if not jobs:
        sys.exit("matrix.py: there is no such damage")
    return jobs


def die_by_signals():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end(pool):
    """Leaving it ends the processes by a signal, which they may miss, and wait for ever."""
    pool.close()
    pool.join()


def cut(args, folder):
    jobs = prepare(args, folder)
    CutJudge.recorder = build_recorder(folder)
    n_states, n_cut, bad = 0, 0, []
    with multiprocessing.get_context("fork").Pool(args.jobs, die_by_signals) as pool:
        for (name, index), n, why in pool.imap(Worker.cut, jobs):
            n_states += n
            n_cut += n > 0
            if why:
                bad.append("BAD: %s: %s" % (Worker.bases[name].damages[index].name, why))
        end(pool)
    print("repairs cut short: %d of %d damages, %d states, BAD %d" % (
        n_cut, len(jobs), n_states, len(bad)))
    for line in bad:
        print(line)
    return 0 if n_cut and not bad else 1


def vet(args, folder):
    jobs = prepare(args, folder)
    found, bad = collections.Counter(), []
    with multiprocessing.get_context("fork").Pool(args.jobs, die_by_signals) as pool:
        for (name, index), wrong, new, why in pool.imap(Worker.vet, jobs):
            found[wrong, new] += 1
            if why:
                bad.append("BAD: %s: %s" % (Worker.bases[name].damages[index].name, why))
        end(pool)
    for (wrong, new), n in sorted(found.items()):
        print("found by %-8s %-8s %5d" % (wrong or "nobody",
                                          "rejected" if new else "accepted", n))
    for line in bad:
        print(line)
    return 0 if sum(found.values()) > len(bad) and not bad else 1


def run(args, folder):
    jobs = prepare(args, folder)
    Worker.qemu = not args.no_qemu
    results = Results()
    log = open(args.log, "w", encoding="utf-8") if args.log else None
    with multiprocessing.get_context("fork").Pool(args.jobs, die_by_signals) as pool:
        done = pool.imap(Worker.work, jobs, chunksize=1)
        for n, ((name, index), verdict, why, theirs, seconds) in enumerate(done, 1):
            damage = Worker.bases[name].damages[index]
            results.add(damage, verdict, why, theirs, seconds)
            if log:
                print(verdict, theirs, damage.name, why, sep="\t", file=log, flush=True)
            if sys.stderr.isatty():
                print("%d of %d" % (n, len(jobs)), end="\r", file=sys.stderr)
        end(pool)
    results.print(args.terse, args.full, sys.stdout)
    return 0 if not results.bad else 1


def find(text, folder):
    base = Base(text.split("/")[0], folder)
    for damage in base.damages:
        if damage.name == text:
            return base, damage
    sys.exit("matrix.py: there is no damage named " + text)


def make(args, folder):
    base, damage = find(args.damage, folder)
    write_file(args.file, damage.apply(base.layout.raw))
    for path in base.others:
        shutil.copy(path, os.path.dirname(os.path.abspath(args.file)))
    return 0


def list_names(args, folder):
    for name in args.image or IMAGES:
        for damage in wanted(args, Base(name, folder), 0):
            print(damage.name)
    return 0


def command_line():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in (("run", run), ("cut", cut), ("vet", vet), ("list", list_names)):
        p = commands.add_parser(name)
        p.set_defaults(function=function)
        p.add_argument("--image", action="append", choices=list(IMAGES))
        p.add_argument("--only", action="append", default=[], help="part of the name")
        p.add_argument("--every", type=int, default=1, help="one damage out of N")
        p.add_argument("--all", action="store_true",
                       help="a second place of each kind in every L2 table, too")
        p.add_argument("--spread", action="store_true",
                       help="one damage of each structure of each image")
        if name != "list":
            p.add_argument("--first", type=int, default=0, metavar="N",
                           help="of these, leave the first N out")
            p.add_argument("--most", type=int, metavar="N", help="and no more than N")
            p.add_argument("--jobs", type=int, default=os.cpu_count())
        if name == "run":
            p.add_argument("--no-qemu", action="store_true")
            p.add_argument("--terse", action="store_true", help="totals and BAD ones alone")
            p.add_argument("--full", action="store_true", help="every cell of the table")
            p.add_argument("--log", help="one line for each damage")
    p = commands.add_parser("make")
    p.set_defaults(function=make)
    p.add_argument("damage")
    p.add_argument("file")
    return parser.parse_args()


def main():
    args = command_line()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # In memory where there is room: every repair flushes.
    place = None
    if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 1 << 28:
        place = "/dev/shm"
    with tempfile.TemporaryDirectory(prefix="qcow2-damage.", dir=place) as folder:
        return args.function(args, folder)


if __name__ == "__main__":
    sys.exit(main())
