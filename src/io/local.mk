# SPDX-License-Identifier: MIT
# The io layer: bytes at offsets.

libqcow2_a_SOURCES += \
	src/io/ahead.c src/io/ahead.h \
	src/io/direct.c src/io/direct.h \
	src/io/fault.c src/io/fault.h \
	src/io/file.c src/io/file.h src/io/file_private.h \
	src/io/io.c src/io/io.h \
	src/io/lock.c src/io/lock.h \
	src/io/memory.c src/io/memory.h \
	src/io/overlay.c src/io/overlay.h \
	src/io/space.c \
	src/io/stream.c src/io/stream.h \
	src/io/transfer.c \
	src/io/window.c src/io/window.h
