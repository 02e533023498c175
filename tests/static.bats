#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# --enable-static-binary makes one file that needs no other; else libraries are shared.
#
#   Q2_TEST_STATIC  yes: configure was asked for it

load helpers

setup() {
    q2_setup
}

@test "the program is one file exactly where configure was asked for it" {
    if [ "${Q2_TEST_STATIC:-no}" = yes ]; then
        must bash "$BATS_TEST_DIRNAME/../scripts/check-static" "$QCOW2"
    else
        readelf -dW "$QCOW2" | grep -q 'NEEDED.*libgcrypt'
        must_exit 1 bash "$BATS_TEST_DIRNAME/../scripts/check-static" "$QCOW2"
    fi
}
