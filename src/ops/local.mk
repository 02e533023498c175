# SPDX-License-Identifier: MIT
# The ops layer: what a user asks for.

libqcow2_a_SOURCES += \
	src/ops/compare.c \
	src/ops/compare.h \
	src/ops/convert.h \
	src/ops/create.h \
	src/ops/info.c \
	src/ops/info.h \
	src/ops/map.c \
	src/ops/map.h
