#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""An image that is written all the time.

    live.py write IMAGE READY STOP   qemu-io writes at random places and lets go of others
                                     until the file STOP is there; READY is made when it has
                                     begun
    live.py read IMAGE SECONDS       our commands read the image, with -U, until the time is
                                     over, each at least once: they end by themselves, with
                                     an exit code that means something

Q2_SEED chooses the random numbers."""

import itertools
import os
import random
import re
import shlex
import subprocess
import sys
import time

from run import OURS

SIZE = 32 << 20
TIMEOUT = 300

# What may be found in an image that changes while it is read, besides an error.
READERS = (
    ("info -U IMAGE", (0,)),
    ("info -U --output=json IMAGE", (0,)),
    ("snapshot -U -l IMAGE", (0,)),
    ("check -U IMAGE", (0, 2, 3)),
    ("check -U --output=json IMAGE", (0, 2, 3)),
    ("map -U IMAGE", (0,)),
    ("map -U --output=json IMAGE", (0,)),
    ("measure -U -O qcow2 IMAGE", (0,)),
    ("convert -U -O raw IMAGE new.raw", (0,)),
    ("convert -U -c -O qcow2 IMAGE new.qcow2", (0,)),
    ("compare -U IMAGE other.qcow2", (0, 1, 2, 3, 4)),
    ("dd -U bs=64k if=IMAGE of=dd.raw", (0,)),
    ("io -f qcow2 -r -U -c 'read 0 16M' IMAGE", (0,)),
)


def command(numbers):
    offset = numbers.randrange(SIZE // 512) * 512
    n_bytes = min(numbers.choice((512, 4096, 65536, 300000 // 512 * 512)), SIZE - offset)
    kind = numbers.choice(("write", "write", "write", "write -z", "discard"))
    pattern = " -P %d" % numbers.randrange(1, 256) if kind == "write" else ""
    return "%s -q%s %d %d" % (kind, pattern, offset, n_bytes)


def wait_for_prompt(shell):
    """qemu-io takes one line after the other: what comes before the prompt may get stuck."""
    said = b""
    while not said.endswith(b"qemu-io> "):
        more = os.read(shell.stdout.fileno(), 4096)
        if not more:
            sys.exit("qemu-io has ended: " + said.decode(errors="replace"))
        said += more
    if said != b"qemu-io> ":
        sys.exit("qemu-io says: " + said.decode(errors="replace"))


def write(image, ready, stop):
    """The image is emptied now and then, so that clusters are allocated all the time."""
    numbers = random.Random(int(os.environ.get("Q2_SEED", "1")))
    with subprocess.Popen(["qemu-io", "-f", "qcow2", image], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as shell:
        for n in itertools.count():
            wait_for_prompt(shell)
            if os.path.exists(stop):
                break
            if n == 20:
                open(ready, "w", encoding="utf-8").close()
            line = "flush" if n % 20 == 19 else command(numbers)
            if numbers.randrange(200) == 0:
                line = "discard -q 0 %d" % SIZE
            shell.stdin.write(line.encode() + b"\n")
            shell.stdin.flush()
        shell.stdin.close()
    return shell.returncode


def read_once(line, codes, image):
    argv = [OURS] + [w.replace("IMAGE", image) for w in shlex.split(line)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=TIMEOUT, check=False)
    errors = done.stderr.decode(errors="replace").strip()
    if done.returncode in codes:
        return 0
    # What was found, and an error that says why that was the end.
    if done.returncode == 1 and re.search("^qcow2: ", errors, re.M) and \
            " lock" not in errors and "Read-only" not in errors:
        return 1
    sys.exit("%s: exit %d: %s" % (" ".join(argv), done.returncode, errors))


def read(image, seconds):
    """Each reader once at least."""
    until = time.monotonic() + seconds
    n = refused = 0
    while n < len(READERS) or time.monotonic() < until:
        line, codes = READERS[n % len(READERS)]
        refused += read_once(line, codes, image)
        n += 1
    print("%d commands, %d of them ended with an error" % (n, refused))


if __name__ == "__main__":
    if sys.argv[1] == "write":
        sys.exit(write(*sys.argv[2:]))
    read(sys.argv[2], float(sys.argv[3]))
