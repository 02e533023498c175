# SPDX-License-Identifier: MIT
# The manual: the program, a page for each command, the format, and a guide.

dist_man_MANS += \
	man/qcow2.1 \
	man/qcow2.5 \
	man/qcow2-amend.1 \
	man/qcow2-bench.1 \
	man/qcow2-bitmap.1 \
	man/qcow2-check.1 \
	man/qcow2-ci.7 \
	man/qcow2-commit.1 \
	man/qcow2-compare.1 \
	man/qcow2-convert.1 \
	man/qcow2-create.1 \
	man/qcow2-dd.1 \
	man/qcow2-info.1 \
	man/qcow2-io.1 \
	man/qcow2-map.1 \
	man/qcow2-measure.1 \
	man/qcow2-rebase.1 \
	man/qcow2-recover.1 \
	man/qcow2-repair.7 \
	man/qcow2-resize.1 \
	man/qcow2-snapshot.1 \
	man/qcow2-vet.1
