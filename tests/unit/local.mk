# SPDX-License-Identifier: MIT
# C unit tests: one program per file, printing TAP. The program tests/unit/NAME is built
# from tests/unit/NAME.c and linked with libqcow2.a; its name is all that is said here:
#
#   check_PROGRAMS += tests/unit/NAME

EXTRA_DIST += \
	tests/unit/built.h \
	tests/unit/engine.h \
	tests/unit/test.h

check_PROGRAMS += \
	tests/unit/bench \
	tests/unit/bitmap \
	tests/unit/cache \
	tests/unit/cluster_set \
	tests/unit/codec \
	tests/unit/counters \
	tests/unit/data_file \
	tests/unit/crypt \
	tests/unit/crypt_slots \
	tests/unit/device \
	tests/unit/endian \
	tests/unit/engine \
	tests/unit/engine_moves \
	tests/unit/engine_order \
	tests/unit/entry \
	tests/unit/error \
	tests/unit/fault \
	tests/unit/file \
	tests/unit/guest_data \
	tests/unit/header \
	tests/unit/header_hostile \
	tests/unit/image \
	tests/unit/luks \
	tests/unit/memory \
	tests/unit/mutated \
	tests/unit/overlay \
	tests/unit/pool \
	tests/unit/refcount \
	tests/unit/refcount_table \
	tests/unit/sealed \
	tests/unit/size \
	tests/unit/snapshot \
	tests/unit/subcluster \
	tests/unit/zero

# These stand on the images in memory of the crash tests.
tests_unit_engine_SOURCES = tests/unit/engine.c $(Q2_CRASH_SOURCES)
tests_unit_engine_moves_SOURCES = tests/unit/engine_moves.c $(Q2_CRASH_SOURCES)
tests_unit_engine_order_SOURCES = tests/unit/engine_order.c $(Q2_CRASH_SOURCES)
