#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Stops commands in their middle, at one read or write of the image after another, and looks
which locks they hold: from the first to the last those that the command is to have. Then the
command goes on, is ended, or is killed, and no lock is left. Those that write are stopped
once more, behind the first time that they close the image: all is done then, also where the
image was dirty and had to be repaired before.

    stop.py LIBRARY STOPS

LIBRARY is tools/raise.c, built; STOPS bounds how often each command is stopped."""

import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile

from run import OURS, argv_of, make_template

F_OFD_GETLK = 36
FLOCK = "hhqqi4x"
BYTES = [*range(100, 104), *range(200, 204)]
METADATA = {201, 203}
READ = {100, 201, 203}
SHARED = {100}
WRITE = {100, 101, 103, 201, 203}
CALLS = ("pread", "pwrite")

# The locks on img.qcow2; a command line; what QEMU's program does before, if anything.
COMMANDS = (
    (METADATA, "info img.qcow2"),
    (METADATA, "snapshot -l img.qcow2"),
    (READ, "check img.qcow2"),
    (READ, "map img.qcow2"),
    (READ, "measure -O qcow2 img.qcow2"),
    (READ, "compare img.qcow2 copy.qcow2"),
    (READ, "convert -O qcow2 img.qcow2 new.qcow2"),
    (READ, "convert -O qcow2 top.qcow2 new.qcow2"),
    (READ, "dd bs=4k if=img.qcow2 of=new.raw"),
    (READ, "bench -c 4 img.qcow2"),
    (READ, "rebase -b img.qcow2 -F qcow2 third.qcow2"),
    (READ, "bitmap --merge b0 -b img.qcow2 -F qcow2 copy.qcow2 c0"),
    (READ, "io -f qcow2 -r -c 'read 0 64k' img.qcow2"),
    (SHARED, "info -U img.qcow2"),
    (SHARED, "check -U img.qcow2"),
    (SHARED, "map -U img.qcow2"),
    (SHARED, "convert -U -O raw img.qcow2 new.raw"),
    (SHARED, "compare -U img.qcow2 copy.qcow2"),
    (WRITE, "check -r all img.qcow2"),
    (WRITE, "snapshot -c s1 img.qcow2"),
    (WRITE, "snapshot -a s0 img.qcow2", "bitmap --remove img.qcow2 b0"),
    (WRITE, "snapshot -d s0 img.qcow2"),
    (WRITE, "resize -q img.qcow2 128k"),
    (WRITE, "amend -o lazy_refcounts=on img.qcow2"),
    (WRITE, "amend -o refcount_bits=64 img.qcow2"),
    (WRITE, "commit -q img.qcow2"),
    (WRITE, "rebase -b other.qcow2 -F qcow2 img.qcow2"),
    (WRITE, "rebase -u -b other.qcow2 -F qcow2 img.qcow2"),
    (WRITE, "bitmap --add img.qcow2 b1"),
    (WRITE, "bitmap --clear img.qcow2 b0"),
    (WRITE, "convert -n -O qcow2 copy.qcow2 img.qcow2"),
    (WRITE, "convert -O qcow2 copy.qcow2 img.qcow2"),
    (WRITE, "create -q -f qcow2 img.qcow2 64k"),
    (WRITE, "dd -O qcow2 bs=4k if=copy.qcow2 of=img.qcow2"),
    (WRITE, "bench -w -c 4 img.qcow2"),
    (WRITE, "io -f qcow2 -c 'write 8k 4k' img.qcow2"),
)


def locks_on(path):
    """The bytes that somebody has locked."""
    held = set()
    with open(path, "rb") as f:
        for byte in BYTES:
            asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            said = struct.unpack(FLOCK, fcntl.fcntl(f, F_OFD_GETLK, asked))
            if said[0] != fcntl.F_UNLCK:
                held.add(byte)
    return held


# What a dirty image is repaired for.
DIRTY = (
    "snapshot -c s1 img.qcow2",
    "resize -q img.qcow2 128k",
    "amend -o lazy_refcounts=off img.qcow2",
    "rebase -u -b other.qcow2 -F qcow2 img.qcow2",
    "bitmap --add img.qcow2 b1",
    "convert -n -O qcow2 copy.qcow2 img.qcow2",
    "commit -q img.qcow2",
    "check -r all img.qcow2",
    "io -f qcow2 -c 'write 8k 4k' img.qcow2",
)


class Bad(Exception):
    """What is wrong."""


def start(line, call, at, where, library):
    """True if the command, whose process is returned, has stopped itself at that call."""
    options = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    env = dict(os.environ, LD_PRELOAD=library, RAISE_FILE="img.qcow2", RAISE_CALL=call,
               RAISE_AT=str(at), RAISE_TIMES="1", RAISE_SIGNAL=str(int(signal.SIGSTOP)),
               ASAN_OPTIONS=options)
    with open(os.path.join(where, "said"), "wb") as said:
        process = subprocess.Popen(argv_of(line, "ours"), cwd=where, env=env, stdout=said,
                                   stderr=said, stdin=subprocess.DEVNULL)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return process, True
    process.returncode = os.waitstatus_to_exitcode(status)
    return process, False


def expect_exit(process, codes, where):
    if process.returncode in codes:
        return
    with open(os.path.join(where, "said"), encoding="utf-8", errors="replace") as said:
        raise Bad("exit %d, not %s: %s" % (process.returncode, codes, said.read()))


def end(process, how, where):
    """A signal that comes when nothing may interrupt the command any more comes too late."""
    if how != signal.SIGCONT:
        process.send_signal(how)
    process.send_signal(signal.SIGCONT)
    process.wait()
    codes = {signal.SIGCONT: (0,), signal.SIGTERM: (0, 143, -15), signal.SIGKILL: (-9,)}
    expect_exit(process, codes[how], where)


def stop_once(wanted, line, call, at, where, library, how):
    """False if there are fewer such calls."""
    image = os.path.join(where, "img.qcow2")
    process, stopped = start(line, call, at, where, library)
    if not stopped:
        expect_exit(process, (0,), where)
    else:
        held = locks_on(image)
        end(process, how, where)
        if held != wanted:
            raise Bad("holds %s, not %s" % (sorted(held), sorted(wanted)))
    if locks_on(image):
        raise Bad("has ended, and left locks: %s" % sorted(locks_on(image)))
    return stopped


def content(path):
    with open(path, "rb") as f:
        return f.read()


def is_dirty(path):
    return content(path)[79] & 1


def make_dirty(where):
    """The image has a writer that is killed."""
    image = os.path.join(where, "img.qcow2")
    subprocess.run(argv_of("amend -o lazy_refcounts=on img.qcow2", "theirs"), cwd=where,
                   check=True)
    with subprocess.Popen(argv_of("io -f qcow2 img.qcow2", "ours"), cwd=where,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        shell.stdin.write(b"write 16k 4k\nflush\nread 0 512\n")
        shell.stdin.flush()
        while b"read 512/512" not in shell.stdout.readline():
            pass
        shell.kill()
    if not is_dirty(image):
        raise Bad("the image is not dirty")


def stop_behind(line, where, library):
    """What the command does, it does before it closes the image for the first time."""
    image = os.path.join(where, "img.qcow2")
    process, stopped = start(line, "close", 1, where, library)
    if not stopped:
        expect_exit(process, (0,), where)
        raise Bad("never closes the image")
    held, before = locks_on(image), content(image)
    end(process, signal.SIGCONT, where)
    if held:
        raise Bad("has closed the image, and holds %s" % sorted(held))
    if content(image) != before or is_dirty(image):
        raise Bad("writes to the image after it has closed it")


def prepare(template, preparation, where):
    shutil.copytree(template, where, dirs_exist_ok=True)
    if preparation:
        subprocess.run(argv_of(preparation, "theirs"), cwd=where, check=True)


def stop_all(wanted, line, preparation, template, library, stops):
    """At the first calls each, and then at fewer and fewer of them."""
    n = 0
    for call in CALLS:
        at, step = 1, 1
        for _ in range(stops):
            how = (signal.SIGCONT, signal.SIGKILL, signal.SIGTERM)[n % 3]
            with tempfile.TemporaryDirectory(dir=".") as where:
                prepare(template, preparation, where)
                try:
                    if not stop_once(wanted, line, call, at, where, library, how):
                        break
                except Bad as bad:
                    raise Bad("%s: %s %d, %s: %s" % (line, call, at, how.name, bad)) from None
            n += 1
            at += step
            step += 1
    if n == 0:
        raise Bad("%s: was never stopped" % line)
    return n


def stop_writers(template, library):
    """The commands that write, on a sound image and on a dirty one."""
    lines = [(c[1], c[2] if len(c) > 2 else None, False) for c in COMMANDS if c[0] == WRITE]
    lines += [(line, "bitmap --remove img.qcow2 b0", True) for line in DIRTY]
    for line, preparation, dirty in lines:
        with tempfile.TemporaryDirectory(dir=".") as where:
            prepare(template, preparation, where)
            if dirty:
                make_dirty(where)
            try:
                stop_behind(line, where, library)
            except Bad as bad:
                raise Bad("%s%s: %s" % (line, " (dirty)" if dirty else "", bad)) from None
    return len(lines)


def main():
    library, stops = os.path.abspath(sys.argv[1]), int(sys.argv[2])
    n = 0
    with tempfile.TemporaryDirectory() as where:
        template = os.path.join(where, "template")
        make_template(template)
        os.chdir(where)
        try:
            for wanted, line, *before in COMMANDS:
                n += stop_all(wanted, line, before[0] if before else None, template, library,
                              stops)
            n += stop_writers(template, library)
        except Bad as bad:
            sys.exit("%s: %s" % (os.path.basename(OURS), bad))
    print("stopped %d times" % n)


if __name__ == "__main__":
    main()
