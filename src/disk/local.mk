# SPDX-License-Identifier: MIT
# The disk layer: the on-disk format as pure functions.

libqcow2_a_SOURCES += \
	src/disk/bitmap.c src/disk/bitmap.h \
	src/disk/entry.c src/disk/entry.h \
	src/disk/header.c src/disk/header.h src/disk/header_private.h \
	src/disk/header_encode.c \
	src/disk/header_ext.c \
	src/disk/luks.c src/disk/luks.h \
	src/disk/refcount.c src/disk/refcount.h \
	src/disk/snapshot.c src/disk/snapshot.h \
	src/disk/subcluster.c src/disk/subcluster.h
