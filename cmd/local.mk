# SPDX-License-Identifier: MIT
# The program: dispatch, options, output, one file per command.

qcow2_SOURCES += \
	cmd/check.c \
	cmd/check_chain.c \
	cmd/check_chain.h \
	cmd/check_options.c \
	cmd/check_options.h \
	cmd/check_output.c \
	cmd/check_output.h \
	cmd/check_plan.c \
	cmd/check_plan.h \
	cmd/command.h \
	cmd/compare.c \
	cmd/convert.c \
	cmd/convert.h \
	cmd/convert_run.c \
	cmd/convert_target.c \
	cmd/create.c \
	cmd/create_keys.c \
	cmd/create_keys.h \
	cmd/create_options.c \
	cmd/create_options.h \
	cmd/create_values.c \
	cmd/image_opts.c \
	cmd/image_opts.h \
	cmd/image_pairs.c \
	cmd/image_pairs.h \
	cmd/image_runtime.c \
	cmd/info.c \
	cmd/info_json.c \
	cmd/info_output.c \
	cmd/info_output.h \
	cmd/io.c \
	cmd/io.h \
	cmd/io_disk.c \
	cmd/io_mode.c \
	cmd/io_open.c \
	cmd/io_open_commands.c \
	cmd/io_read.c \
	cmd/io_shell.c \
	cmd/io_transfer.c \
	cmd/io_values.c \
	cmd/io_write.c \
	cmd/main.c \
	cmd/map.c \
	cmd/opening.c \
	cmd/opening.h \
	cmd/options.c \
	cmd/options.h \
	cmd/output.c \
	cmd/output.h \
	cmd/progress.c \
	cmd/progress.h \
	cmd/signals.c \
	cmd/signals.h \
	cmd/values.c
