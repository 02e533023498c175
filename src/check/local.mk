# SPDX-License-Identifier: MIT
# The check layer: problems, scanners, plans of repair.

libqcow2_a_SOURCES +=
