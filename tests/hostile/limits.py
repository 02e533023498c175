# SPDX-License-Identifier: MIT
"""Runs a program within limits, and says what it took."""

import os
import resource
import signal
import time

MIB = 1 << 20


class Result:
    def __init__(self, status, usage, seconds, out, err):
        self.signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        self.code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -self.signal
        self.cpu = usage.ru_utime + usage.ru_stime
        self.memory = usage.ru_maxrss * 1024
        self.seconds, self.out, self.err = seconds, out, err

    def __str__(self):
        return "exit %s, %.2f s CPU, %d MiB" % (
            signal.Signals(self.signal).name if self.signal else self.code, self.cpu,
            self.memory // MIB)


def limit(space, cpu, file_size):
    # Each thread takes its share of address space: there are two, on any machine.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if space:
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
    if cpu:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))


def run(argv, space=0, cpu=0, file_size=0, out="out", err="err"):
    """space in bytes, cpu in seconds; a write behind file_size bytes of a file ends it. What
    it prints goes into the files."""
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            for number, path in (1, out), (2, err):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            limit(space, cpu, file_size)
            os.execvp(argv[0], argv)
        finally:
            os._exit(127)
    _, status, usage = os.wait4(pid, 0)
    return Result(status, usage, time.monotonic() - began, out, err)
