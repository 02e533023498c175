# SPDX-License-Identifier: MIT
# The check layer: problems, scanners, the plan of edits, applying it, undo.

libqcow2_a_SOURCES += \
	src/check/apply.c \
	src/check/bitmap_names.c \
	src/check/bitmaps.h \
	src/check/candidates.c \
	src/check/candidates_ext.c \
	src/check/finding.c src/check/finding.h \
	src/check/heal_bitmaps.c \
	src/check/heal_entries.c \
	src/check/heal_header.c src/check/heal_header.h \
	src/check/heal_refcounts.c \
	src/check/heal_snapshots.c \
	src/check/heal_tables.c \
	src/check/judge_l2.c \
	src/check/l2.h \
	src/check/lost_l1.c \
	src/check/mend_bitmaps.c \
	src/check/mend_snapshots.c \
	src/check/misdirected.c \
	src/check/packed.c \
	src/check/problems.def \
	src/check/repair.c src/check/repair.h \
	src/check/scan.c src/check/scan.h \
	src/check/scan_bitmaps.c \
	src/check/scan_crypto.c \
	src/check/scan_l2.c \
	src/check/scan_mapping.c \
	src/check/scan_refcounts.c \
	src/check/scan_snapshots.c \
	src/check/scan_tables.c \
	src/check/sharing.c \
	src/check/suspects.c \
	src/check/undo.h \
	src/check/undo_read.c \
	src/check/undo_write.c \
	src/check/uses.c src/check/uses.h
