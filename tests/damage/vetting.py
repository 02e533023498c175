# SPDX-License-Identifier: MIT
"""Each damage given to vet: what check finds wrong, by our scan or by QEMU's, is rejected for a
reason that the sound image did not give."""

import json
import os

from judge import BACKING, Bad, Ran, write_file

ALLOWED = "--allow=snapshots,encryption,bitmaps,trailing-data"


class VetJudge:
    def __init__(self, qcow2, oracle, folder, layout):
        self.qcow2, self.oracle, self.folder, self.layout = qcow2, oracle, folder, layout
        self.path = os.path.join(folder, "image")
        write_file(self.path, layout.raw)
        _, self.known = self.vet()

    def vet(self):
        """The exit code, and how often each reason was found."""
        ran = Ran([self.qcow2, "vet", "--output=json", ALLOWED, self.path], self.folder)
        ran.must_be_sane((0, 2))
        said = json.loads(ran.out)
        if said["accepted"] != (ran.code == 0) or said["accepted"] != (not said["reasons"]):
            raise Bad("says %s and ends with %d" % (said, ran.code))
        return ran.code, {r["id"]: r["count"] for r in said["reasons"]}

    def wrong(self):
        """Who finds something wrong: "", "ours", "theirs", "both"."""
        ours = Ran([self.qcow2, "check", "-q", "-f", "qcow2", self.path], self.folder)
        theirs = Ran([self.oracle, "check", "-q", "-f", "qcow2", self.path], self.folder)
        ours.must_be_sane((0, 1, 2, 3))
        found = ["ours"] if ours.code else []
        # Another file that is not there is nothing that is wrong with the image.
        if theirs.code and not BACKING.search(theirs.err):
            found.append("theirs")
        return "both" if len(found) > 1 else "".join(found)

    def judge(self, damage):
        """(who finds it, is there a new reason, what is bad or None)"""
        try:
            write_file(self.path, damage.apply(self.layout.raw))
            wrong = self.wrong()
            _, reasons = self.vet()
        except Bad as bad:
            return "", False, str(bad)
        new = any(count > self.known.get(i, 0) for i, count in reasons.items())
        return wrong, new, None if new or not wrong else "accepted, but %s: wrong" % wrong
