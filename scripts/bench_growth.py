# SPDX-License-Identifier: MIT
"""What "make bench" tells beside ratios: cost as the work grows, and instruction counts of
small cases that later changes can be held against. Commands as in bench_cases.py."""

import re
import subprocess

STEPS = (1, 2, 4, 8)

# Name, unit of size (full, --quick) in GiB or MiB, what is prepared, what is measured. {size}
# is the size of a step.
GROWTH = [
    ("create, metadata preallocated", ("128G", "4G"), [],
     "{qcow2} create -q -f qcow2 -o preallocation=metadata g.qcow2 {size}"),
    ("check", ("128G", "4G"),
     ["{qcow2} create -q -f qcow2 -o preallocation=metadata g.qcow2 {size}"],
     "{qcow2} check -q -f qcow2 g.qcow2"),
    ("snapshot -c", ("128G", "4G"),
     ["{qcow2} create -q -f qcow2 -o preallocation=metadata g.qcow2 {size}"],
     "{qcow2} snapshot -c s g.qcow2"),
    ("convert raw to qcow2", ("512M", "64M"),
     ["python3 -S {tests}/tools/imgtool.py fill g.raw {size} --seed 1"],
     "{qcow2} convert -f raw -O qcow2 g.raw g.qcow2"),
    ("convert raw to qcow2, compressed (zstd)", ("512M", "64M"),
     ["python3 -S {tests}/tools/imgtool.py fill g.raw {size} --seed 1"],
     "{qcow2} convert -c -f raw -O qcow2 -o compression_type=zstd g.raw g.qcow2"),
]

# Name, what is prepared, what is counted: fixed sizes, one thread.
INSTRUCTIONS = [
    ("create 1G, metadata preallocated", [],
     "{qcow2} create -q -f qcow2 -o preallocation=metadata n.qcow2 1G"),
    ("check of 1G, metadata preallocated",
     ["{qcow2} create -q -f qcow2 -o preallocation=metadata n.qcow2 1G"],
     "{qcow2} check -q -f qcow2 n.qcow2"),
    ("map of 1G, JSON",
     ["{qcow2} create -q -f qcow2 -o preallocation=metadata n.qcow2 1G"],
     "{qcow2} map --output=json n.qcow2"),
    ("snapshot -c of 1G, metadata preallocated",
     ["{qcow2} create -q -f qcow2 -o preallocation=metadata n.qcow2 1G"],
     "{qcow2} snapshot -c s n.qcow2"),
    ("convert 16M raw to qcow2",
     ["python3 -S {tests}/tools/imgtool.py fill n.raw 16M --seed 1"],
     "{qcow2} convert -m 1 -f raw -O qcow2 n.raw n.qcow2"),
]


def scaled(size, factor):
    number, unit = re.fullmatch(r"(\d+)(\D)", size).groups()
    return "%d%s" % (int(number) * factor, unit)


def clean(bench, names):
    for name in names:
        bench.remove(name)


def grow(bench, print_row):
    """Rows: name, then size, seconds of CPU time and MiB of memory of each step."""
    rows = []
    for name, sizes, before, command in GROWTH:
        cells = [name]
        for factor in STEPS:
            bench.words["size"] = scaled(sizes[bench.args.quick], factor)
            clean(bench, ("g.qcow2", "g.raw"))
            for line in before:
                bench.call(bench.argv(line))
            usage = bench.timed(bench.argv(command), None)
            cells += ["%s: %.2f s CPU, %.0f MiB" % (bench.words["size"], usage.cpu,
                                                    usage.memory / 1024)]
        clean(bench, ("g.qcow2", "g.raw"))
        rows.append(cells)
        print_row(cells)
    return rows


def count(bench, print_row):
    """Rows: name, instructions in user space. Empty without valgrind."""
    rows = []
    for name, before, command in INSTRUCTIONS:
        clean(bench, ("n.qcow2", "n.raw"))
        for line in before:
            bench.call(bench.argv(line))
        said = subprocess.run(["valgrind", "--tool=callgrind",
                               "--callgrind-out-file=/dev/null", *bench.argv(command)],
                              cwd=bench.folder, stderr=subprocess.PIPE,
                              stdout=subprocess.DEVNULL, check=True).stderr.decode()
        n = int(re.search(r"Collected : (\d+)", said).group(1))
        rows.append([name, "%.1f million" % (n / 1e6)])
        print_row(rows[-1])
    clean(bench, ("n.qcow2", "n.raw"))
    return rows
