# SPDX-License-Identifier: MIT
# The image layer: an open disk.

libqcow2_a_SOURCES += \
	src/image/alloc.c \
	src/image/bitmap_bits.c \
	src/image/bitmaps.c src/image/bitmaps.h \
	src/image/bitmaps_private.h \
	src/image/bitmaps_store.c \
	src/image/cache.c src/image/cache.h \
	src/image/chain.c src/image/chain.h \
	src/image/cluster_set.c src/image/cluster_set.h \
	src/image/codec.c src/image/codec.h src/image/codec_private.h \
	src/image/codec_zlib.c \
	src/image/codec_zstd.c \
	src/image/commit.c \
	src/image/configure.c \
	src/image/crypt.c src/image/crypt.h \
	src/image/crypt_cipher.c src/image/crypt_cipher.h \
	src/image/crypt_data.c \
	src/image/crypt_key.c src/image/crypt_key.h \
	src/image/crypt_slots.c src/image/crypt_slots.h \
	src/image/crypt_suite.c src/image/crypt_suite.h \
	src/image/data_file.c src/image/data_file.h \
	src/image/discard.c \
	src/image/disk.c src/image/disk.h \
	src/image/free.c \
	src/image/guest_data.c \
	src/image/image.c src/image/image.h \
	src/image/l1.c \
	src/image/mapping.c \
	src/image/metadata.h \
	src/image/open.c src/image/open.h \
	src/image/overlap.c src/image/overlap.h \
	src/image/path.c src/image/path.h \
	src/image/probe.c src/image/probe.h \
	src/image/raw.c src/image/raw.h \
	src/image/read.c \
	src/image/refcount.c \
	src/image/resize.c src/image/resize.h \
	src/image/replace_header.c \
	src/image/runtime.h \
	src/image/slice.c src/image/slice.h \
	src/image/snapshots.c \
	src/image/switch_refcounts.c \
	src/image/tree.c src/image/tree.h \
	src/image/tree_tables.c src/image/tree_tables.h \
	src/image/update.c src/image/update.h \
	src/image/vmstate.c \
	src/image/write.c \
	src/image/zero.c

if ISAL
libqcow2_a_SOURCES += src/image/codec_isal.c
endif
