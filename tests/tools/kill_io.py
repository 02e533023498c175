#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A writer that is killed, and what its disk may hold then.

  kill_io.py run MODEL SEED SIZE FILL COMMAND...   runs "qcow2 io ..." on an image whose disk
                                                   is FILL bytes, writes to it, kills it
                                                   with SIGKILL in the middle, and keeps in
                                                   MODEL what each sector may hold
  kill_io.py verify MODEL RAW                      fails if RAW holds anything else
"""
import json
import random
import signal
import subprocess
import sys
import time

SECTOR = 512
CLUSTER = 65536


class Model:
    """For each sector, the values that it may have now, and those it may have after a crash."""

    def __init__(self, size, fill):
        self.now = [{fill} for _ in range(size // SECTOR)]
        self.after = [{fill} for _ in range(size // SECTOR)]

    def sent(self, op):
        for i in op.sectors():
            self.after[i] |= op.values(self.now[i])

    def done(self, op):
        for i in op.sectors():
            self.now[i] = op.values(self.now[i])

    def flushed(self):
        self.after = [set(values) for values in self.now]


class Op:
    def __init__(self, rng, size, durable):
        self.durable = durable
        self.kind = rng.choices(
            ["write", "zero", "unmap", "discard", "compress", "flush"], [60, 8, 8, 10, 4, 10])[0]
        n_sectors = size // SECTOR
        if self.kind in ("discard", "compress"):
            cluster = rng.randrange(size // CLUSTER)
            self.start, self.n = cluster * (CLUSTER // SECTOR), CLUSTER // SECTOR
        else:
            self.start = rng.randrange(n_sectors)
            self.n = min(n_sectors - self.start, rng.choice([1, 3, 8, 17, 128, 300]))
        self.value = rng.randrange(1, 256)

    def sectors(self):
        return () if self.kind == "flush" else range(self.start, self.start + self.n)

    def values(self, old):
        if self.kind in ("zero", "unmap"):
            return {0}
        if self.kind == "discard":
            return old | {0}
        return {self.value}

    def line(self):
        where = f"{self.start * SECTOR} {self.n * SECTOR}"
        return {
            "write": f"write -q -P {self.value} {where}",
            "zero": f"write -q -z {where}",
            "unmap": f"write -q -zu {where}",
            "discard": f"discard -q {where}",
            "compress": f"write -q -c -P {self.value} {where}",
            "flush": "flush",
        }[self.kind]


class Writer:
    def __init__(self, command):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.wait()

    def wait(self):
        said = b""
        while not said.endswith(b"> "):
            more = self.process.stdout.read(1)
            if not more:
                sys.exit(f"the writer has ended: {said!r}")
            said += more
        if b"failed" in said:
            sys.exit(f"the writer said {said!r}")

    def send(self, op):
        self.process.stdin.write(op.line().encode() + b"\n")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def run(path, seed, size, fill, command):
    rng = random.Random(seed)
    model = Model(size, fill)
    durable = "writeback" not in command
    writer = Writer(command)
    for _ in range(rng.randrange(5, 60)):
        op = Op(rng, size, durable)
        model.sent(op)
        writer.send(op)
        writer.wait()
        model.done(op)
        if op.kind == "flush":
            model.flushed()
        elif durable and op.kind != "discard":
            for i in op.sectors():
                model.after[i] = set(model.now[i])
    # The last ones are under way when the end comes.
    for _ in range(rng.randrange(6)):
        op = Op(rng, size, durable)
        model.sent(op)
        writer.send(op)
        model.done(op)
    time.sleep(rng.random() * rng.choice([0, 0.001, 0.01]))
    writer.kill()
    with open(path, "w", encoding="ascii") as out:
        json.dump([sorted(values) for values in model.after], out)


def verify(path, raw):
    with open(path, encoding="ascii") as file:
        allowed = json.load(file)
    with open(raw, "rb") as file:
        data = file.read()
    if len(data) != len(allowed) * SECTOR:
        sys.exit(f"{len(data)} bytes, not {len(allowed) * SECTOR}")
    for i, values in enumerate(allowed):
        sector = data[i * SECTOR:(i + 1) * SECTOR]
        if sector != bytes([sector[0]]) * SECTOR or sector[0] not in values:
            sys.exit(f"sector {i} holds {sorted(set(sector))}, not one of {values}")


def main():
    if sys.argv[1] == "run":
        run(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:])
    else:
        verify(sys.argv[2], sys.argv[3])


main()
