# SPDX-License-Identifier: MIT
# The io layer: bytes at offsets.

libqcow2_a_SOURCES += \
	src/io/file.h \
	src/io/io.h \
	src/io/memory.h
