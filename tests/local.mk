# SPDX-License-Identifier: MIT
# The tests and how they are run. Unit tests are listed in tests/unit/local.mk; *.bats
# files and their aids are found, not listed.
#
#   make check                            everything
#   make check TESTS_ONLY="create info"   tests/create.bats and tests/info.bats alone
#   make check-asan                       the same under ASan and UBSan
#   make fuzz, fuzz-short                 any bytes as images (tests/fuzz/local.mk)
#   make check-valgrind                   unit tests and some commands under valgrind
#   make check-damage                     every single damage of an image, against check
#   make check-crash                      power cuts, errors, random operations: others each
#                                         time (Q2_SEED), for minutes (Q2_CRASH_RUNS)
#   make check-locks                      beside other programs, for minutes (Q2_LOCK_SECONDS)
#   make check-recover-real               recover, on large disks with real file systems
#   make check-faults                     every call of every command to the system and to
#                                         the heap fails once (FAULTS: options)
#   make check-recover                    every two damages of an image's header, tables and
#                                         counts, against recover (RECOVER: options)
#   make check-damage DAMAGE="--image v3-4k --only 'L1 entry'"    some of them

include $(top_srcdir)/tests/unit/local.mk
include $(top_srcdir)/tests/crash/local.mk
include $(top_srcdir)/tests/fuzz/local.mk

EXTRA_DIST += \
	tests/run \
	tests/valgrind \
	$(wildcard $(srcdir)/tests/*.bats) \
	$(wildcard $(srcdir)/tests/RESULTS.md) \
	$(wildcard $(srcdir)/tests/*.bash) \
	$(wildcard $(srcdir)/tests/tools/*) \
	$(wildcard $(srcdir)/tests/check/*/*) \
	$(wildcard $(srcdir)/tests/damage/*.[cp]*) \
	$(wildcard $(srcdir)/tests/hostile/*.py) \
	tests/hostile/measure \
	$(wildcard $(srcdir)/tests/differential/*.*) \
	$(wildcard $(srcdir)/tests/recover/*.py) \
	$(wildcard $(srcdir)/tests/faults/*.[chp]*) \
	$(wildcard $(srcdir)/tests/transcripts/*.*) \
	$(wildcard $(srcdir)/tests/options/*.*) \
	$(wildcard $(srcdir)/tests/locks/*.*) \
	$(wildcard $(srcdir)/tests/examples/*.*) \
	$(wildcard $(srcdir)/tests/format/*.*)

Q2_TEST_ENV = QCOW2='$(abs_builddir)/qcow2' TEST_SRCDIR='$(abs_srcdir)/tests' \
	Q2_TEST_HARDENING='$(Q2_HARDENING)' Q2_TEST_STATIC='$(enable_static_binary)'
if ASAN
Q2_TEST_ENV += Q2_TEST_ASAN=1
endif

check-local:
	@$(Q2_TEST_ENV) $(BASH) $(srcdir)/tests/run --log-dir test-logs \
		--unit '$(check_PROGRAMS)' -- $(TESTS_ONLY)

# The sanitizers get a build of their own, in this build directory. Its sources are a copy,
# made as "make dist" makes them: a source tree that is configured itself cannot be built
# out of tree, and what the tests need is shown to be in the distribution. Modification
# times are kept, so that only what changed is compiled again.
.PHONY: check-asan
check-asan:
	@$(MKDIR_P) build-asan/objects
	@$(MAKE) $(AM_MAKEFLAGS) distdir distdir=build-asan/source \
		>build-asan/copy.log 2>&1 || { cat build-asan/copy.log; exit 1; }
	@cd build-asan/objects && { test -f config.status || \
		../source/configure --quiet --enable-asan CC='$(CC)' CFLAGS='-g -O1'; }
	@cd build-asan/objects && $(MAKE) $(AM_MAKEFLAGS) check \
		TESTS_ONLY='$(TESTS_ONLY)'

.PHONY: check-valgrind
check-valgrind: qcow2 $(check_PROGRAMS)
	@$(Q2_TEST_ENV) $(BASH) $(srcdir)/tests/valgrind $(check_PROGRAMS)

# The tables go to the terminal and stay in test-logs/damage.txt.
.PHONY: check-damage
check-damage: qcow2
	@$(MKDIR_P) test-logs
	@$(Q2_TEST_ENV) CC='$(CC)' $(BASH) -o pipefail -c '{ \
		python3 "$(srcdir)/tests/damage/matrix.py" run --full \
			--log test-logs/damage.tsv "$$@"; run=$$?; \
		python3 "$(srcdir)/tests/damage/matrix.py" vet "$$@" || run=1; \
		(($$#)) || set -- --every 50; \
		python3 "$(srcdir)/tests/damage/matrix.py" cut "$$@" && exit $$run; \
		} | tee test-logs/damage.txt' damage $(DAMAGE)

# What happens at random moments, for longer; every row of the table of locks.
.PHONY: check-locks
check-locks: qcow2
	@$(Q2_TEST_ENV) Q2_SEED=$${Q2_SEED:-$$(date +%s)} \
		Q2_LOCK_SECONDS=$${Q2_LOCK_SECONDS:-60} \
		$(BASH) $(srcdir)/tests/run --log-dir test-logs -- concurrency locks

# In a build with sanitizers these judge, too.
.PHONY: check-faults
check-faults: qcow2
	@$(MKDIR_P) test-logs
	@$(Q2_TEST_ENV) CC='$(CC)' $(BASH) -o pipefail -c '\
		python3 "$(srcdir)/tests/faults/matrix.py" run "$$@" | tee test-logs/faults.txt' \
		faults $(FAULTS)

.PHONY: check-recover
check-recover: qcow2
	@$(MKDIR_P) test-logs
	@$(Q2_TEST_ENV) CC='$(CC)' $(BASH) -o pipefail -c '\
		python3 "$(srcdir)/tests/recover/matrix.py" --table "$$@" test-logs/recover | \
			tee test-logs/recover.txt' recover $(RECOVER)

# Some 20 GiB of sparse files, as root, so that the kernel fills the disks.
.PHONY: check-recover-real
check-recover-real: qcow2
	@$(MKDIR_P) test-logs
	@$(Q2_TEST_ENV) $(BASH) -o pipefail -c '\
		python3 "$(srcdir)/tests/recover/real.py" "$$@" recover-real | \
			tee test-logs/recover-real.txt' \
		real --sources /usr --least 95 $(RECOVER_REAL)

# The seed is what it takes to have a failure again. Those files of the suite that play
# random operations, but longer.
.PHONY: check-crash
check-crash: qcow2 $(check_PROGRAMS)
	@seed=$${Q2_SEED:-$$(date +%s)}; echo "Q2_SEED=$$seed"; \
		$(Q2_TEST_ENV) Q2_SEED=$$seed Q2_CRASH_RUNS=$${Q2_CRASH_RUNS:-10} \
		$(BASH) $(srcdir)/tests/run --log-dir test-logs --unit '$(check_PROGRAMS)' \
		-- powercut amending bitmaps layers snapshots resizing errors random_ops crash random life

# Short, and without tests/crash: the whole suite takes minutes, and it is not what distcheck
# is there for. The one run where zlib does ISA-L's work, and where the program is a static
# one. What was unpacked is to be built without Autotools.
AM_DISTCHECK_CONFIGURE_FLAGS = --without-isal --enable-static-binary \
	AUTOCONF=false AUTOHEADER=false AUTOMAKE=false ACLOCAL=false \
	TESTS_ONLY='$(patsubst tests/%,%,$(filter tests/unit/%,$(check_PROGRAMS))) cli man info main-job packages static hardening'

clean-local:
	-rm -rf test-logs build-asan build-fuzz build-coverage
