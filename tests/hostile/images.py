#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The hostile images: images.py list | make NAME... [--number N] [--worst]. Files are made in
the current folder."""

import argparse
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from costly import COSTLY  # noqa: E402
from vulnerabilities import CASES, make_secret  # noqa: E402


def make(name, number=None, worst=False):
    """Makes one image; returns its file's name."""
    path = name + ".qcow2"
    if name in COSTLY:
        recipe, usual, most = COSTLY[name]
        recipe(path, number if number is not None else most if worst else usual)
    else:
        next(c for c in CASES if c.name == name).make(path)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["list", "make"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--number", type=int)
    parser.add_argument("--worst", action="store_true")
    args = parser.parse_args()
    if args.command == "list":
        for c in CASES:
            print(c.name, c.kind, c.what, sep="\t")
        for name, (recipe, _, _) in COSTLY.items():
            print(name, "costly", " ".join(recipe.__doc__.split()), sep="\t")
        return
    make_secret()
    for name in args.names:
        make(name, args.number, args.worst)


if __name__ == "__main__":
    main()
