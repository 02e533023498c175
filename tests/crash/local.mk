# SPDX-License-Identifier: MIT
# Random operations, power cuts and errors. Each program plays on images that it makes
# itself ("make check" runs it so), or on images that are named.

EXTRA_DIST += tests/crash/turns.py

Q2_CRASH_SOURCES = \
	tests/crash/fixture.c tests/crash/fixture.h \
	tests/crash/judge.c tests/crash/judge.h \
	tests/crash/model.c tests/crash/model.h \
	tests/crash/play.c tests/crash/play.h \
	tests/crash/slice.c tests/crash/slice.h

check_PROGRAMS += \
	tests/crash/amending \
	tests/crash/bitmaps \
	tests/crash/errors \
	tests/crash/layers \
	tests/crash/new_image \
	tests/crash/powercut \
	tests/crash/resizing \
	tests/crash/snapshots \
	tests/crash/threads \
	tests/unit/random_ops \
	tests/unit/steady

tests_crash_amending_SOURCES = tests/crash/amending.c \
	tests/crash/cuts.c tests/crash/cuts.h $(Q2_CRASH_SOURCES)
tests_crash_bitmaps_SOURCES = tests/crash/bitmaps.c \
	tests/crash/cuts.c tests/crash/cuts.h $(Q2_CRASH_SOURCES)
tests_crash_errors_SOURCES = tests/crash/errors.c $(Q2_CRASH_SOURCES)
tests_crash_layers_SOURCES = tests/crash/layers.c \
	tests/crash/cuts.c tests/crash/cuts.h $(Q2_CRASH_SOURCES)
tests_crash_new_image_SOURCES = tests/crash/new_image.c $(Q2_CRASH_SOURCES)
tests_crash_powercut_SOURCES = tests/crash/powercut.c $(Q2_CRASH_SOURCES)
tests_crash_resizing_SOURCES = tests/crash/resizing.c $(Q2_CRASH_SOURCES)
tests_crash_snapshots_SOURCES = tests/crash/snapshots.c $(Q2_CRASH_SOURCES)
tests_crash_threads_SOURCES = tests/crash/threads.c $(Q2_CRASH_SOURCES)
tests_unit_random_ops_SOURCES = tests/unit/random_ops.c $(Q2_CRASH_SOURCES)
tests_unit_steady_SOURCES = tests/unit/steady.c \
	tests/crash/fixture.c tests/crash/fixture.h \
	tests/crash/slice.c tests/crash/slice.h
