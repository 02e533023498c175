#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""hold.py FILE COMMAND...: runs the command while FILE is locked as a machine that writes to
it locks it (the byte ranges stand in qcow2.1, "Locks")."""

import fcntl
import os
import struct
import subprocess
import sys

F_OFD_SETLK = 37

file = os.open(sys.argv[1], os.O_RDWR)
for byte in (100, 101, 103, 201, 203):
    fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, byte, 1, 0))
sys.exit(subprocess.run(sys.argv[2:], check=False).returncode)
