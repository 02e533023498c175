# SPDX-License-Identifier: MIT
# Developers' tools, and the targets that run them.

EXTRA_DIST += \
	.ci/run \
	.clang-tidy \
	scripts/analyze \
	scripts/analyzer.h \
	scripts/bench \
	scripts/bench_cases.py \
	scripts/bench_growth.py \
	scripts/bench_page.py \
	scripts/check-32bit \
	scripts/check-big-endian \
	scripts/check-code \
	scripts/check-layers \
	scripts/check-library \
	scripts/check-man \
	scripts/check-package \
	scripts/check-static \
	scripts/cppcheck-suppressions \
	scripts/foreign.bash \
	scripts/fuzz-afl \
	scripts/lint \
	scripts/real-users \
	scripts/real_users.py \
	scripts/setup

# Recipes for pipelines.
exampledir = $(docdir)/examples
dist_example_SCRIPTS = \
	scripts/examples/check-images \
	scripts/examples/compact-image \
	scripts/examples/gate-upload
dist_example_DATA = \
	scripts/examples/github-actions.yml \
	scripts/examples/gitlab-ci.yml

# Out of tree and out of the way: nothing of the build is touched, the library of this
# build alone is looked into.
.PHONY: lint
lint: config.h libqcow2.a
	@Q2_WARNINGS='$(Q2_WARNINGS)' \
	Q2_CPPFLAGS='$(ZLIB_CFLAGS) $(ZSTD_CFLAGS) $(GCRYPT_CFLAGS) $(JANSSON_CFLAGS) $(ISAL_CFLAGS)' \
	$(BASH) $(srcdir)/scripts/lint $(abs_srcdir) $(abs_builddir)

# A program made with --enable-static-binary, where there is nothing else.
.PHONY: check-static
check-static: qcow2
	@$(BASH) $(srcdir)/scripts/check-static $(abs_builddir)/qcow2

# The Debian package: built from the archive, installed into an empty root, removed.
.PHONY: check-package
check-package: dist
	@$(BASH) $(srcdir)/scripts/check-package $(distdir).tar.xz

# Minutes of following paths. ANALYZE holds the names of files (default: all).
.PHONY: analyze
analyze: config.h
	@Q2_CPPFLAGS='$(ZLIB_CFLAGS) $(ZSTD_CFLAGS) $(GCRYPT_CFLAGS) $(JANSSON_CFLAGS) $(ISAL_CFLAGS)' \
	$(BASH) $(srcdir)/scripts/analyze $(abs_srcdir) $(abs_builddir) $(ANALYZE)

# Beside qemu-img, on the same files. BENCH holds options, see scripts/bench --help.
.PHONY: bench
bench: qcow2
	@QCOW2='$(abs_builddir)/qcow2' python3 $(srcdir)/scripts/bench $(BENCH)
