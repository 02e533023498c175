#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Where in a process's memory do secrets lie?

  secret_places.py IMAGE PASSPHRASE-FILE MASTER-KEY-HEX

Starts "$QCOW2 io" on the encrypted image, has it write, and looks through all that the
process could write to. Prints for each place that holds the passphrase or (a half of) the
key the name of its mapping: [heap], [stack], a file, or "anonymous"."""

import os
import re
import subprocess
import sys


# The terabytes that a sanitizer maps for itself are left out.
MOST_BYTES = 1 << 28


def mappings(pid):
    with open("/proc/%d/maps" % pid, encoding="ascii") as file:
        for line in file:
            words = line.split()
            first, end = (int(word, 16) for word in words[0].split("-"))
            if words[1].startswith("rw") and end - first < MOST_BYTES:
                yield first, end, words[5] if len(words) > 5 else "anonymous"


def main():
    image, passphrase, key = sys.argv[1:]
    with open(passphrase, "rb") as file:
        secret = file.read()
    key = bytes.fromhex(key)
    secrets = {"passphrase": secret, "key": key[:len(key) // 2]}
    with subprocess.Popen([os.environ["QCOW2"], "io", "--object", "secret,id=s,file=" + passphrase,
                           "--image-opts",
                           "driver=qcow2,encrypt.key-secret=s,file.filename=" + image],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(b"write -P 3 0 1M\nread 0 1M\nflush\nlength\n")
        process.stdin.flush()
        # Once it says the disk's length it waits for more, and its memory stays as it is.
        while b"4 MiB" not in process.stdout.readline():
            if process.poll() is not None:
                return 1
        with open("/proc/%d/mem" % process.pid, "rb") as memory:
            for first, end, name in mappings(process.pid):
                memory.seek(first)
                content = memory.read(end - first)
                for what, text in secrets.items():
                    for _ in re.finditer(re.escape(text), content):
                        print(what, name)
        process.communicate()
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
