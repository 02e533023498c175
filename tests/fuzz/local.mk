# SPDX-License-Identifier: MIT
# Fuzzing: all targets in one program, which is built with clang, apart from the rest.
#
#   make fuzz            each target for FUZZ_SECONDS (60); FUZZ_TARGETS="check read"
#   make fuzz-short      the same for a few seconds, and every fixture
#   make fuzz-coverage   what of the sources the corpora reach
#
# Corpora grow in FUZZ_CORPUS (fuzz-corpus of the build directory), which is kept.

Q2_FUZZ_TARGETS = \
	tests/fuzz/common.c \
	tests/fuzz/content.c \
	tests/fuzz/copy.c \
	tests/fuzz/fuzz.h \
	tests/fuzz/luks.c tests/fuzz/luks.h \
	tests/fuzz/operations.c \
	tests/fuzz/options.c \
	tests/fuzz/parts.c \
	tests/fuzz/readers.c \
	tests/fuzz/recover.c \
	tests/fuzz/repair.c \
	tests/fuzz/targets.c \
	tests/fuzz/undo.c \
	tests/fuzz/writers.c
EXTRA_DIST += \
	tests/fuzz/fuzzer.c \
	tests/fuzz/guest_disk.py \
	tests/fuzz/mutate.c \
	tests/fuzz/run \
	tests/fuzz/seeds \
	$(wildcard $(srcdir)/tests/fuzz/*.dict) \
	$(wildcard $(srcdir)/tests/fuzz/fixtures/*/*)

# Any compiler can play the fixtures; the suite does.
check_PROGRAMS += tests/fuzz/replay
tests_fuzz_replay_SOURCES = tests/fuzz/replay.c $(Q2_FUZZ_TARGETS)
# The program is there for what it reads and prints.
tests_fuzz_replay_DEPENDENCIES = $(filter-out cmd/main.%,$(qcow2_OBJECTS)) libqcow2.a
tests_fuzz_replay_LDADD = $(filter-out cmd/main.%,$(qcow2_OBJECTS)) $(LDADD)

# --- libFuzzer -----------------------------------------------------------------------

FUZZ_CC = clang
FUZZ_FLAGS = -O1 -gline-tables-only -fno-omit-frame-pointer \
	-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
Q2_FUZZED = $(filter-out cmd/main.c,$(filter %.c,$(libqcow2_a_SOURCES) $(qcow2_SOURCES) \
	$(Q2_FUZZ_TARGETS) tests/fuzz/fuzzer.c tests/fuzz/mutate.c))
Q2_FUZZ_OBJECTS = $(Q2_FUZZED:%.c=build-fuzz/%.o)
Q2_COVERAGE_OBJECTS = $(filter-out %/fuzzer.o %/mutate.o, \
	$(Q2_FUZZED:%.c=build-coverage/%.o)) build-coverage/tests/fuzz/replay.o
Q2_FUZZ_COMPILE = $(FUZZ_CC) -std=gnu11 $(DEFS) -D_FORTIFY_SOURCE=0 -I. $(AM_CPPFLAGS) \
	$(ZLIB_CFLAGS) $(ZSTD_CFLAGS) $(GCRYPT_CFLAGS) $(JANSSON_CFLAGS) $(ISAL_CFLAGS) -MMD -MP
Q2_FUZZ_LIBS = $(ZLIB_LIBS) $(ZSTD_LIBS) $(GCRYPT_LIBS) $(JANSSON_LIBS) $(ISAL_LIBS) \
	-lpthread

build-fuzz/%.o: $(srcdir)/%.c config.h
	@$(MKDIR_P) $(@D)
	@$(Q2_FUZZ_COMPILE) $(FUZZ_FLAGS) -c $< -o $@

build-fuzz/fuzzer: $(Q2_FUZZ_OBJECTS)
	@$(FUZZ_CC) -fsanitize=fuzzer,address,undefined $(Q2_FUZZ_OBJECTS) $(Q2_FUZZ_LIBS) -o $@

build-coverage/%.o: $(srcdir)/%.c config.h
	@$(MKDIR_P) $(@D)
	@$(Q2_FUZZ_COMPILE) -O1 -g -fprofile-instr-generate -fcoverage-mapping -c $< -o $@

build-coverage/replay: $(Q2_COVERAGE_OBJECTS)
	@$(FUZZ_CC) -fprofile-instr-generate $(Q2_COVERAGE_OBJECTS) $(Q2_FUZZ_LIBS) -o $@

-include $(Q2_FUZZ_OBJECTS:.o=.d) $(Q2_COVERAGE_OBJECTS:.o=.d)

FUZZ_CORPUS = fuzz-corpus
Q2_FUZZ_RUN = $(Q2_TEST_ENV) FUZZ_CORPUS='$(FUZZ_CORPUS)' $(BASH) $(srcdir)/tests/fuzz/run

.PHONY: fuzz fuzz-short fuzz-coverage
fuzz: build-fuzz/fuzzer qcow2
	@$(Q2_FUZZ_RUN) long $(FUZZ_TARGETS)

fuzz-short: build-fuzz/fuzzer qcow2
	@$(Q2_FUZZ_RUN) short $(FUZZ_TARGETS)

fuzz-coverage: build-coverage/replay
	@$(Q2_FUZZ_RUN) coverage $(FUZZ_TARGETS)
