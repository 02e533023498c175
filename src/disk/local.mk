# SPDX-License-Identifier: MIT
# The disk layer: the on-disk format as pure functions.

libqcow2_a_SOURCES += \
	src/disk/bitmap.h \
	src/disk/entry.c src/disk/entry.h \
	src/disk/header.h \
	src/disk/luks.h \
	src/disk/refcount.c src/disk/refcount.h \
	src/disk/snapshot.h
