#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs what the manual shows: every example of every page, and those of --help.

An example is a block between .EX and .EE. A line "$ COMMAND" is run, together with the lines
that continue it (after one that ends in a backslash, "|" or "&&"); the lines below it are
what it prints, and if there are any, it has to print them. "[...]" stands for any text, and
alone in a line for any lines. Dates and the space that a file takes are not compared. A
command ends with 0, unless the next one is "$ echo $?".

A block starts in a folder of its own, which the function of files.bash fills that is named
in a comment before it:  .\\" files: NAME  or, without one, by the page (page_qcow2_check).
.\\" files: same  goes on where the block before it has ended.
In Markdown a block is fenced as "console", and all go on where the one before has ended.

    run.py PROGRAM PAGE...      prints what is wrong; the last line says how many were run
    run.py --count PAGE...      prints how many examples of its command a page has: PAGE N
"""

import concurrent.futures
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ESCAPES = {r"\-": "-", r"\e": "\\", r"\(aq": "'", r"\(dq": '"', r"\(lq": "“", r"\(rq": "”",
           r"\(ha": "^", r"\(ti": "~", r"\&": "", r"\fB": "", r"\fI": "", r"\fR": ""}
VARYING = [(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE"), (r"disk size: .*", "disk size: #"),
           (r'"actual-size": \d+', '"actual-size": #')]


class Block:
    """Lines of an example, as they look on a terminal."""

    def __init__(self, page, line, files):
        self.page, self.line, self.files, self.text = page, line, files, []

    def commands(self):
        """[(command, [lines it prints])]"""
        found, whole = [], True
        for text in self.text:
            if text.startswith("$ "):
                found.append([text[2:], []])
            elif not whole:
                found[-1][0] += "\n" + text
            elif not found:
                raise ValueError(f"{self.page}:{self.line}: an example begins with '$ '")
            else:
                found[-1][1].append(text)
            if text.startswith("$ ") or not whole:
                whole = not re.search(r"(\\|\||&&)$", text)
        return found


def plain(text, where):
    """A line of roff as it is shown."""
    def escape(m):
        if m.group() not in ESCAPES:
            raise ValueError(f"{where}: {m.group()} in an example")
        return ESCAPES[m.group()]
    return re.sub(r"\\(\(..|f.|.)", escape, text)


# What a comment that names files, the start and the end of an example look like.
ROFF = (r'\.\\" files: ([\w-]+)', ".EX", ".EE")
MARKDOWN = (r"(?!)", "```console", "```")


def blocks(path):
    """The examples of a page; such as go on in the same folder are one list."""
    page = os.path.basename(path)
    comment, begin, end = MARKDOWN if page.endswith(".md") else ROFF
    found, files, block = [], None, None
    with open(path, encoding="utf-8") as f:
        for n, text in enumerate(f.read().splitlines(), 1):
            named = re.fullmatch(comment, text)
            if named:
                files = named.group(1)
            elif text == begin:
                files = files or ("same" if found and end == "```" else page.rsplit(".", 1)[0])
                block = Block(page, n, files)
                if files != "same":
                    found.append([])
                found[-1].append(block)
                files = None
            elif text == end:
                block = None
            elif block:
                block.text.append(text if end == "```" else plain(text, f"{page}:{n}"))
            elif text.startswith("qcow2 ") and end == "```":
                raise ValueError(f"{page}:{n}: a command outside of an example: {text}")
    return found


def masked(text):
    """Without what differs from one run to the next."""
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text)
    return text


def pattern_of(shown):
    """What the lines shown stand for, as a regular expression."""
    text = "".join(line + "\n" for line in shown)
    parts = re.split(r"(^\[\.\.\.\]\n|\[\.\.\.\])", masked(text), flags=re.M)
    return "".join({"[...]\n": r"(?:.*\n)*", "[...]": ".*"}.get(p, re.escape(p)) for p in parts)


def environment(program, folder):
    """In which "qcow2" is the program, and time stands at Greenwich."""
    os.mkdir(os.path.join(folder, "bin"))
    os.symlink(program, os.path.join(folder, "bin", "qcow2"))
    os.mkdir(os.path.join(folder, "work"))
    return dict(os.environ, PATH=os.path.join(folder, "bin") + ":" + os.environ["PATH"],
                BIN=os.path.join(folder, "bin"), TOOLS=os.path.join(HERE, "..", "tools"),
                TZ="UTC", LC_ALL="C.UTF-8")


def shell(script, env, folder):
    """Exit code and all that was printed, in order."""
    done = subprocess.run(["bash", "-c", script], cwd=os.path.join(folder, "work"), env=env,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    return done.returncode, done.stdout


def end_user(folder):
    """Who has an image open for an example is not needed any more."""
    pid = os.path.join(folder, "bin", "user.pid")
    if os.path.exists(pid):
        with open(pid, encoding="ascii") as f, contextlib.suppress(ProcessLookupError):
            os.kill(int(f.read()), signal.SIGTERM)


def play(program, chain):
    """Runs blocks that share a folder. Returns (number of commands, what is wrong)."""
    with tempfile.TemporaryDirectory(prefix="examples.", dir=os.getcwd()) as folder:
        env = environment(program, folder)
        try:
            return play_in(folder, env, chain)
        finally:
            end_user(folder)


def play_in(folder, env, chain):
    """The same, in a folder."""
    first, count = chain[0], 0
    name = "page_" + first.files.replace("-", "_")
    code, said = shell(f". {HERE}/files.bash && {name}", env, folder)
    if code:
        return 0, f"{first.page}:{first.line}: {name} of files.bash: exit {code}\n{said}"
    for block in chain:
        commands = block.commands()
        for i, (command, shown) in enumerate(commands):
            asks = i + 1 < len(commands) and commands[i + 1][0] == "echo $?"
            before = code
            code, said = shell(f"(exit {before}); {command}", env, folder)
            count += 1
            if code and not asks:
                return count, f"{block.page}:{block.line}: $ {command}\nexit {code}\n{said}"
            said += "\n" if said and not said.endswith("\n") else ""
            if shown and not re.fullmatch(pattern_of(shown), masked(said)):
                return count, (f"{block.page}:{block.line}: $ {command}\nshown:\n" +
                               "\n".join(shown) + f"\nprinted:\n{said}")
    return count, ""


def main():
    if sys.argv[1] == "--count":
        for path in sys.argv[2:]:
            name = os.path.basename(path).rsplit(".", 1)[0]
            word = re.compile(rf"\b{name.replace('-', ' ')}\b")
            print(path, sum(bool(word.search(command)) for chain in blocks(path)
                            for block in chain for command, _ in block.commands()))
        return 0
    program = os.path.abspath(sys.argv[1])
    chains = [chain for path in sys.argv[2:] for chain in blocks(path)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(pool.map(lambda chain: play(program, chain), chains))
    wrong = [w for _, w in results if w]
    print("\n".join(wrong), end="\n" if wrong else "")
    print(f"{sum(n for n, _ in results)} commands, {len(wrong)} examples wrong")
    return 1 if wrong or not chains else 0


if __name__ == "__main__":
    sys.exit(main())
