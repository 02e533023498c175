#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""same_bytes.py PROGRAM OTHER: two builds of the program, for different machines, do the
same work on the same files. Every file that is left must be the same, byte for byte (but for
the time at which a snapshot was taken), and so must what they print and their exit codes."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile

IMGTOOL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "imgtool.py")
SEEDS = range(1, 9)

# These run once, with the first program.
PREPARE = """
imgtool fill in.raw 8M --seed 3
imgtool fill other.raw 8M --seed 4
create -q -f qcow2 -o cluster_size=4k base 8M
io -c "write -P 17 64k 100k" -c "write -P 34 2M 300k" -c "write -z 5M 64k" base
bitmap --add -g 4k base full
io -c "write -P 51 3M 8k" base
snapshot -c one base
io -c "write -P 68 2M 20k" base
convert -f raw -O qcow2 -o cluster_size=4k in.raw full.qcow2
convert -c -f raw -O qcow2 in.raw packed
convert -f raw -O qcow2 -o refcount_bits=1 in.raw bits1
create -q -f qcow2 -b other.raw -F raw over
io -c "write -P 85 1M 200k" over
create -q -f qcow2 -o extended_l2=on,cluster_size=64k parts 8M
io -c "write -P 102 3k 5k" -c "write -z 1M 6k" parts
"""
# Each of these runs with both, on copies of what there is then.
CASES = """
create -q -f qcow2 -o preallocation=metadata new 64M
create -q -f qcow2 -o extended_l2=on,cluster_size=128k,preallocation=falloc new 64M
create -q -f qcow2 -o compat=0.10 -b base -F qcow2 new
create -q -f qcow2 -o data_file=data.raw,data_file_raw=on new 64M
convert -f raw -O qcow2 in.raw new
convert -f raw -O qcow2 -o cluster_size=512,refcount_bits=1 in.raw new
convert -f raw -O qcow2 -o refcount_bits=2,lazy_refcounts=on in.raw new
convert -f raw -O qcow2 -o refcount_bits=4,compat=1.1 in.raw new
convert -f raw -O qcow2 -o refcount_bits=64,extended_l2=on in.raw new
convert -f raw -O qcow2 -o data_file=data.raw in.raw new
convert -c -f raw -O qcow2 in.raw new
convert -c -f raw -O qcow2 -o cluster_size=512 in.raw new
convert -c -f raw -O qcow2 -o compression_type=zstd in.raw new
convert -O raw base new
convert -O raw packed new
convert -O raw parts new
convert -O qcow2 over new
convert -O qcow2 -B other.raw -F raw over new
convert -l one -O qcow2 base new
convert --bitmaps -O qcow2 base new
dd -f raw -O qcow2 if=in.raw of=new bs=64k skip=3
io -c "write -q -P 7 12345 54321" -c "discard -q 2M 64k" -c "write -q -z 100k 1M" base
io -c "write -q -P 7 12345 54321" -c "discard -q 2M 64k" -c "write -q -z 100k 1M" parts
io -c "write -q -P 7 12345 54321" -c "discard -q 2M 64k" bits1
resize packed 96M
resize -q --shrink packed 1M
amend -f qcow2 -o compat=0.10 packed
amend -f qcow2 -o refcount_bits=64 base
amend -f qcow2 -o refcount_bits=8 base
amend -f qcow2 -o lazy_refcounts=on,backing_file= over
bitmap --add -g 512 base b0
bitmap --add --disable -g 2M base b1 --merge full
bitmap --clear base full
bitmap --remove base full
snapshot -a one base
snapshot -d one base
snapshot -c two base
snapshot -c two packed
check base
check --output=json packed
check -r all bits1
rebase -u -b in.raw -F raw over
rebase -b in.raw -F raw over
rebase -b "" over
commit over
map --output=json base
map over
info base
info --output=json parts
measure --output=json -O qcow2 base
compare base packed
compare in.raw full.qcow2
bench -c 100 -w -S 8k base
"""


def run(program, line, folder):
    command = shlex.split(line)
    if command[0] == "imgtool":
        command = [sys.executable, "-S", IMGTOOL, *command[1:]]
    else:
        command = [program, *command]
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


def forget_dates(folder):
    """A snapshot's date is when it was taken."""
    for name in ("base", "packed"):
        path = os.path.join(folder, name)
        for index in range(3):
            subprocess.run([sys.executable, "-S", IMGTOOL, "snapshot", path, str(index),
                            "date", "0"], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)


def contents(folder):
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = file.read()
    return found


def differences(one, other):
    for name in sorted(set(one) | set(other)):
        a, b = one.get(name), other.get(name)
        if a is None or b is None:
            yield "%s: only one of them left it" % name
        elif a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            yield "%s: %d and %d bytes, different from byte %d on" % (name, len(a), len(b), at)


def unlike(line, said):
    """What is printed of time is another one each time."""
    if line.startswith("bench "):
        return said.split(b"Run completed")[0]
    return said


def play(line, programs, prepared, work):
    """What is different after one case."""
    left, told = [], []
    for i, program in enumerate(programs):
        folder = os.path.join(work, "disks")
        shutil.copytree(prepared, folder)
        code, said = run(program, line, folder)
        told.append((code, unlike(line, said).replace(program.encode(), b"")))
        if line.startswith("snapshot -c"):
            forget_dates(folder)
        left.append(contents(folder))
        shutil.rmtree(folder)
    if told[0] != told[1]:
        yield "said %r, and the other %r" % tuple(told)
    yield from differences(*left)


def damaged(prepared, seed, program):
    """Folders in which an image is broken, and the cases in them."""
    for name in ("base", "packed", "parts"):
        folder = prepared + ".damaged"
        shutil.copytree(prepared, folder)
        run(program, "imgtool damage %s --seed %d --count 6" % (name, seed), folder)
        yield folder, "check %s" % name
        yield folder, "check -r all %s" % name
        yield folder, "check -r leaks %s" % name
        shutil.rmtree(folder)


def cases(prepared, program):
    for line in CASES.strip().splitlines():
        yield prepared, line
    for seed in SEEDS:
        yield from damaged(prepared, seed, program)


def main():
    programs = sys.argv[1:]
    # One thread: where several rebase, they take turns by chance.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    n = bad = 0
    with tempfile.TemporaryDirectory(prefix="qcow2-same.") as work:
        prepared = os.path.join(work, "prepared")
        os.mkdir(prepared)
        for line in PREPARE.strip().splitlines():
            code, said = run(programs[0], line, prepared)
            if code:
                sys.exit("same_bytes.py: %s: %s" % (line, said.decode()))
        for folder, line in cases(prepared, programs[0]):
            n += 1
            for what in play(line, programs, folder, work):
                bad += 1
                print("not the same: %s: %s" % (line, what))
    print("%d cases, %d differences" % (n, bad))
    sys.exit(bad != 0)


main()
