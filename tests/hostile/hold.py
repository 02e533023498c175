#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Holds the program to what is promised of hostile images.

    hold.py vulnerabilities [NAME...]   every command on each, and what it says
    hold.py costly [NAME...]            what looking at them may cost
    hold.py longest                     info of the longest tables that there can be

QCOW2 is the program; BARE=1 says that nothing (a sanitizer) makes it larger than it is. Works
in the current folder, tells each breach in a line.
"""

import os
import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from costly import COSTLY  # noqa: E402
from images import make  # noqa: E402
from limits import MIB, run  # noqa: E402
from vulnerabilities import CASES, SECRET, make_secret  # noqa: E402

PROGRAM = os.environ["QCOW2"]
ORACLE = os.environ.get("ORACLE", "qemu-img")
BARE = os.environ.get("BARE") == "1"

# Address space, which is more than memory, and seconds. info opens one file and starts no
# thread; the others have stacks and a heap for each of two threads.
LITTLE = {"space": 64 * MIB, "cpu": 1}
USUAL = {"space": 320 * MIB, "cpu": 5}

READING = [
    "info IMAGE", "info --output=json IMAGE", "snapshot -l IMAGE", "check IMAGE",
    "map IMAGE", "map --output=json IMAGE", "measure -O qcow2 IMAGE", "compare IMAGE IMAGE",
    "convert -O raw IMAGE target", "convert -l test -O raw IMAGE target", "vet IMAGE",
    "dd -O raw if=IMAGE of=target bs=64k count=2",
]
WRITING = [
    "check -r leaks IMAGE", "amend -o lazy_refcounts=on IMAGE", "amend -o compat=0.10 IMAGE",
    "resize IMAGE +64M", "snapshot -c new IMAGE", "snapshot -a test IMAGE",
    "snapshot -d test IMAGE", "rebase -u -F raw -b other.raw IMAGE", "bitmap --add IMAGE b0",
    "convert -n -O qcow2 other.raw IMAGE", "commit IMAGE",
]
breaches = 0


def breach(*words):
    global breaches
    breaches += 1
    print(*words)


def text_of(name):
    with open(name, encoding="utf-8", errors="replace") as file:
        return file.read()


def remove(*names):
    for name in names:
        if os.path.lexists(name):
            os.unlink(name)


def look(line, image, limits):
    """Runs a command; whatever it makes of the image, it ends by itself, and says why."""
    argv = [PROGRAM] + [image if w == "IMAGE" else w.replace("=IMAGE", "=" + image)
                        for w in line.split()]
    got = run(argv, **(limits if BARE else {"cpu": 300}))
    said = text_of("err")
    if got.signal or got.code not in (0, 1, 2, 3, 4, 63):
        breach(image, line, got, said[:500])
    elif got.code and not said and not text_of("out"):
        breach(image, line, "fails and does not say why")
    elif BARE and got.memory > limits["space"]:
        breach(image, line, got)
    return got, said


def reads(case):
    """Every reading command, the image being what it was; returns what each said."""
    image = case.file()
    with open(image, "rb") as file:
        before = file.read()
    said = {}
    for line in READING:
        said[line] = look(line, image, LITTLE if line.startswith("info") else USUAL)
        if said[line][0].code and "convert" in line and os.path.exists("target"):
            breach(image, line, "leaves a target")
        remove("target")
    with open(image, "rb") as file:
        if file.read() != before:
            breach(image, "was changed by looking at it")
    return said


def writes(case):
    """Every writing command on a copy; then repair, whose work QEMU judges."""
    for line in WRITING:
        # To commit is to be asked to write to the file that the image names.
        if case.kind != "named" or "commit" not in line:
            shutil.copy(case.file(), "copy")
            look(line, "copy", USUAL)
    shutil.copy(case.file(), "copy")
    got, said = look("check -r all IMAGE", "copy", USUAL)
    if got.code == 0:
        again, _ = look("check IMAGE", "copy", USUAL)
        judged = subprocess.run([ORACLE, "check", "-q", "copy"], capture_output=True, check=False)
        # QEMU opens what is named, and does not get far.
        if again.code or (judged.returncode and case.kind != "named"):
            breach(case.name, "is not sound after its repair:", judged.stderr)
    elif case.kind in ("checked", "sound"):
        breach(case.name, "is not repaired:", got, said)
    remove("copy")


def expect(case, ok, *words):
    if not ok:
        breach(case.name, *words)


def refused(case, said):
    for line, (got, text) in said.items():
        if not re.match("check|vet", line):
            expect(case, got.code != 0, line, "takes it")
    for line in ("info IMAGE", "convert -O raw IMAGE target"):
        expect(case, re.search(case.says, said[line][1]), line, "does not say", case.says,
               "but", said[line][1])


def checked(case, said):
    expect(case, said["info IMAGE"][0].code == 0, "info:", *said["info IMAGE"])
    expect(case, said["check IMAGE"][0].code == 2, "check:", *said["check IMAGE"])


def sound(case, said):
    for line, (got, text) in said.items():
        expect(case, got.code == 0 or line.startswith("vet"), line, got, text)


def named(case, said):
    """info tells the name, and has no need of the file, nor has check."""
    for line in ("info IMAGE", "info --output=json IMAGE", "check IMAGE", "snapshot -l IMAGE"):
        expect(case, said[line][0].code == 0, line, *said[line])
    if case.says:
        for line in ("convert -O raw IMAGE target", "map IMAGE"):
            expect(case, said[line][0].code == 1 and re.search(case.says, said[line][1]), line,
                   *said[line])
    remove(SECRET)
    for line in ("info IMAGE", "info --output=json IMAGE", "check IMAGE", "check -r all IMAGE",
                 "snapshot -l IMAGE"):
        got, text = look(line, case.file(), USUAL)
        expect(case, got.code == 0, "without the file:", line, got, text)
        expect(case, not line.startswith("info") or SECRET in text_of("out")
               or "descriptor.vmdk" in text_of("out") or "json:" in text_of("out"),
               line, "does not say what is named")
    make_secret()


EXPECTED = {"refused": refused, "checked": checked, "sound": sound, "named": named}


def hold_vulnerabilities(names):
    with open("other.raw", "wb") as file:
        file.truncate(1 << 20)
    for case in CASES:
        if names and case.name not in names:
            continue
        make_secret()
        make(case.name)
        EXPECTED[case.kind](case, reads(case))
        with open(SECRET, "rb") as file:
            secret = file.read()
        writes(case)
        with open(SECRET, "rb") as file:
            # A data file is the image's own, and is written with it.
            expect(case, file.read() == secret or "data-file" in case.name,
                   "the file that it names was written")
        remove(case.file())


def hold_costly(names):
    for name in COSTLY:
        if names and name not in names:
            continue
        subprocess.run([sys.executable, "-S", os.path.join(sys.path[0], "images.py"), "make",
                        name], check=True)
        for line, limits in LOOKING:
            look(line, name + ".qcow2", limits)
        if name in HEALING:
            got, said = look("check -r all IMAGE", name + ".qcow2", HEALING[name])
            if got.code:
                breach(name, "is not repaired:", got, said[-120:])
        remove(name + ".qcow2")


LOOKING = [
    ("info IMAGE", LITTLE), ("info --output=json IMAGE", LITTLE), ("snapshot -l IMAGE", LITTLE),
    ("check IMAGE", {"space": 128 * MIB, "cpu": 5}),
    ("map --output=json IMAGE", {"space": 128 * MIB, "cpu": 10}),
    ("measure -O qcow2 IMAGE", {"space": 128 * MIB, "cpu": 5}),
]


# More is wrong than one scan keeps in mind: what that costs must not grow with its square.
HEALING = {"l1-of-garbage": {"space": 320 * MIB, "cpu": 20}}


def hold_longest(_):
    for name in ("snapshots-long", "bitmaps-long"):
        subprocess.run([sys.executable, "-S", os.path.join(sys.path[0], "images.py"), "make",
                        name, "--worst"], check=True)
        for line in ("info IMAGE", "info --output=json IMAGE"):
            got, said = look(line, name + ".qcow2", {"space": 64 * MIB, "cpu": 3})
            if got.code or os.path.getsize("out") < 60 * MIB:
                breach(name, line, got, said)
        remove(name + ".qcow2", "out")


def main():
    {"vulnerabilities": hold_vulnerabilities, "costly": hold_costly,
     "longest": hold_longest}[sys.argv[1]](sys.argv[2:])
    sys.exit(1 if breaches else 0)


if __name__ == "__main__":
    main()
