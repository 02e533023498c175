# SPDX-License-Identifier: MIT
# What the tests need in a distribution. Unit tests are listed in tests/unit/local.mk;
# *.bats files and their aids are found, not listed.

include $(top_srcdir)/tests/unit/local.mk
