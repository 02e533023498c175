# SPDX-License-Identifier: MIT
# The image layer: an open disk.

libqcow2_a_SOURCES += \
	src/image/disk.h \
	src/image/open.h
