#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Packages are of the version that the program has, and find what they install.

load helpers

setup() {
    q2_setup
    tree=$BATS_TEST_DIRNAME/..
}

@test "the packages have the program's version" {
    version=$("$QCOW2" --version | sed -n '1s/.* //p')
    [ -n "$version" ]
    [ "$(sed -n '1s/^qcow2-tools (\(.*\)) .*/\1/p' "$tree/debian/changelog")" = "$version" ]
    [ "$(sed -n 's/^Version: *//p' "$tree/qcow2-tools.spec")" = "$version" ]
    grep -q "^\* .* - $version-1$" "$tree/qcow2-tools.spec"
}

@test "the licence in Debian's form is the project's" {
    words() { tr -s ' \n.' '\n' | grep -v '^$'; }
    sed -n '/^Permission/,$p' "$tree/LICENSE" | words >ours
    sed -n '/^ Permission/,$p' "$tree/debian/copyright" | words >theirs
    [ "$(wc -l <ours)" -gt 100 ]
    diff ours theirs
}

@test "Debian's build asks for the libraries that configure asks for" {
    asked=$(sed -nE 's/^PKG_CHECK_MODULES\(\[[A-Z]+\], \[([a-z]+).*/\1/p' "$tree/configure.ac")
    [ "$(wc -w <<<"$asked")" -ge 4 ]
    for library in $asked libisal; do
        grep -qE "^ (lib)?${library#lib}[0-9]*g?-dev\b" "$tree/debian/control" ||
            [ "$library" = zlib ] || fail "debian/control: $library"
        grep -qF "pkgconfig($library)" "$tree/qcow2-tools.spec" || fail "spec: $library"
    done
}
