# SPDX-License-Identifier: MIT
# The program: dispatch, options, output, one file per command.

qcow2_SOURCES +=
