#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Two commands that write to one image are started at almost the same time, again and again.
Each does its work or is turned away because of the other's locks; the image is sound after
that, and holds what the one that was let in has written.

    writers.py SECONDS

At least every command once. Q2_SEED chooses the pairs and the moments."""

import os
import random
import subprocess
import sys
import tempfile
import time

from run import HINT, LOCK, argv_of, run

TIMEOUT = 300
MAKE = """
create -q -f qcow2 -o cluster_size=4k base.qcow2 4M
create -q -f qcow2 -o cluster_size=4k -b base.qcow2 -F qcow2 image.qcow2
io -f qcow2 -c 'write -q -P 9 3M 64k' image.qcow2
create -q -f raw zeros.raw 4M
"""
# N is another number each time. What must be true then, if anything can be said.
WRITERS = (
    ("snapshot -c sN image.qcow2", ("snapshot -l image.qcow2", " sN ")),
    ("resize -q image.qcow2 +1M", None),
    ("amend -o lazy_refcounts=on image.qcow2", None),
    ("amend -o refcount_bits=32 image.qcow2", None),
    ("amend -o refcount_bits=16 image.qcow2", None),
    ("check -q -r all image.qcow2", None),
    ("bitmap --add image.qcow2 bN", ("info image.qcow2", "name: bN\n")),
    ("rebase -u -F qcow2 -b ./base.qcow2 image.qcow2", None),
    ("convert -n -O qcow2 zeros.raw image.qcow2", None),
    ("commit -q image.qcow2", None),
    ("bench -w -q -c 8 -s 4096 image.qcow2", None),
    ("io -f qcow2 -c 'write -q -P 7 1M 20k' image.qcow2",
     ("io -f qcow2 -r -c 'read -P 7 1M 20k' image.qcow2", "read 20480")),
)


class Bad(Exception):
    """What is wrong."""


def let_in(line, process):
    """Whether the command was; if not, it says so."""
    out, err = process.communicate(timeout=TIMEOUT)
    said = (out + err).decode(errors="replace")
    if process.returncode == 0:
        return True
    if process.returncode == 1 and LOCK.search(said) and HINT.search(said):
        return False
    raise Bad("%s: exit %d: %s" % (line, process.returncode, said))


def expect(line, program, where, text=""):
    code, out, err = run(line, program, where)
    if code != 0 or text not in out or "Pattern" in out:
        raise Bad("%s: exit %d: %s%s" % (line, code, out, err))


def play(pair, delay, where):
    """The second one comes a moment later. Returns how many were let in."""
    running = []
    for line in pair:
        running.append(subprocess.Popen(argv_of(line, "ours"), cwd=where,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE))
        if len(running) == 1:
            time.sleep(delay)
    worked = [let_in(line, process) for line, process in zip(pair, running)]
    expect("check -q image.qcow2", "ours", where)
    return worked


def play_round(n, first, numbers, where):
    chosen = [WRITERS[first], numbers.choice(WRITERS)]
    names = [line.replace("N", "%da" % n if i == 0 else "%db" % n)
             for i, (line, _) in enumerate(chosen)]
    worked = play(names, numbers.random() * numbers.choice((0, 0.003, 0.02)), where)
    # What one has written, the other may have written over.
    if sum(worked) == 1:
        i = worked.index(True)
        if chosen[i][1]:
            line, text = (s.replace("N", "%da" % n if i == 0 else "%db" % n)
                          for s in chosen[i][1])
            expect(line, "ours", where, text)
    return 2 - sum(worked)


def make(where):
    for line in MAKE.strip().splitlines():
        expect(line, "theirs", where)


def main():
    seed = int(os.environ.get("Q2_SEED", "1"))
    numbers = random.Random(seed)
    until = time.monotonic() + float(sys.argv[1])
    n = refused = 0
    with tempfile.TemporaryDirectory() as where:
        while n < len(WRITERS) or time.monotonic() < until:
            image = os.path.join(where, "image.qcow2")
            if n % 60 == 0:
                if n:
                    os.unlink(image)
                make(where)
            try:
                refused += play_round(n, n % len(WRITERS), numbers, where)
            except Bad as bad:
                sys.exit("Q2_SEED=%d, round %d: %s" % (seed, n, bad))
            n += 1
            if n % 30 == 0:
                expect("check -q image.qcow2", "theirs", where)
    print("%d pairs, %d commands turned away" % (n, refused))


if __name__ == "__main__":
    main()
