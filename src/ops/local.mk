# SPDX-License-Identifier: MIT
# The ops layer: what a user asks for.

libqcow2_a_SOURCES += \
	src/ops/amend.c src/ops/amend.h \
	src/ops/amend_keys.c \
	src/ops/amend_refcounts.c \
	src/ops/amend_steps.h \
	src/ops/amend_tables.c \
	src/ops/amend_zeroes.c \
	src/ops/bench.c src/ops/bench.h \
	src/ops/bitmap.c src/ops/bitmap.h \
	src/ops/check.c src/ops/check.h \
	src/ops/check_edits.c src/ops/check_edits.h \
	src/ops/check_progress.c src/ops/check_progress.h \
	src/ops/commit.c src/ops/commit.h \
	src/ops/compare.c src/ops/compare.h \
	src/ops/convert.c src/ops/convert.h \
	src/ops/convert_offload.c src/ops/convert_offload.h \
	src/ops/convert_segment.c src/ops/convert_segment.h \
	src/ops/convert_window.c src/ops/convert_window.h \
	src/ops/create.c src/ops/create.h \
	src/ops/dd.c src/ops/dd.h \
	src/ops/info.c src/ops/info.h \
	src/ops/leftovers.c src/ops/leftovers.h \
	src/ops/map.c src/ops/map.h \
	src/ops/measure.c src/ops/measure.h \
	src/ops/open_rw.c src/ops/open_rw.h \
	src/ops/preallocate.c src/ops/preallocate.h \
	src/ops/rebase.c src/ops/rebase.h \
	src/ops/recover.c src/ops/recover.h \
	src/ops/recover_copy.c src/ops/recover_copy.h \
	src/ops/resize.c src/ops/resize.h \
	src/ops/snapshot.c src/ops/snapshot.h \
	src/ops/snapshot_switch.c src/ops/snapshot_switch.h \
	src/ops/stream_out.c src/ops/stream_out.h \
	src/ops/vet.c src/ops/vet.h src/ops/vet_private.h \
	src/ops/vet_formats.c \
	src/ops/vet_qcow2.c \
	src/ops/vet_reasons.def
