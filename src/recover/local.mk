# SPDX-License-Identifier: MIT
# Bringing back an image without a usable header or L1 table.

libqcow2_a_SOURCES += \
	src/recover/clues.c src/recover/clues.h \
	src/recover/counts.c \
	src/recover/ext.c src/recover/ext.h \
	src/recover/ext_bitmaps.c \
	src/recover/ext_files.c \
	src/recover/found.c \
	src/recover/glance.c src/recover/glance.h \
	src/recover/header.c \
	src/recover/l1.c \
	src/recover/l1_frame.c \
	src/recover/layout.c src/recover/layout.h \
	src/recover/luks.c \
	src/recover/marks.c src/recover/marks.h \
	src/recover/marks_btrfs.c \
	src/recover/marks_ext.c \
	src/recover/marks_lvm.c \
	src/recover/marks_mbr.c \
	src/recover/marks_ntfs.c \
	src/recover/marks_others.c \
	src/recover/marks_settle.c \
	src/recover/marks_xfs.c \
	src/recover/orphans.c src/recover/orphans.h \
	src/recover/orphans_ends.c \
	src/recover/orphans_ext.c \
	src/recover/orphans_place.c \
	src/recover/orphans_sums.c \
	src/recover/place.c src/recover/place.h \
	src/recover/place_align.c \
	src/recover/place_clues.c \
	src/recover/place_data.c \
	src/recover/place_ext.c \
	src/recover/place_marks.c \
	src/recover/place_use.c \
	src/recover/place_votes.c \
	src/recover/read_marks.c \
	src/recover/recover.c src/recover/recover.h \
	src/recover/snapshots.c \
	src/recover/survey.c src/recover/survey.h \
	src/recover/uses.h \
	src/recover/within.c \
	src/recover/work.h
