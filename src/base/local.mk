# SPDX-License-Identifier: MIT
# The base layer: errors, checked arithmetic, sizes, workers.

libqcow2_a_SOURCES += \
	src/base/base64.c src/base/base64.h \
	src/base/checked.h \
	src/base/counters.c src/base/counters.h \
	src/base/endian.h \
	src/base/error.c src/base/error.h \
	src/base/monitor.c src/base/monitor.h \
	src/base/pool.c src/base/pool.h \
	src/base/search.h \
	src/base/sealed.c src/base/sealed.h \
	src/base/secret.c src/base/secret.h \
	src/base/size.c src/base/size.h \
	src/base/utf8.c src/base/utf8.h \
	src/base/zero.c src/base/zero.h
