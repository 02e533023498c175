#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# bench: it says what QEMU says, and writes what QEMU writes (up to the disk's end: behind it,
# QEMU 7.2 begins again elsewhere than later versions).

load helpers
load beside

setup() {
    q2_setup
    mkdir images
    must oracle create -q -f qcow2 images/a.qcow2 8M
    must oracle create -q -f raw images/small.raw 4k
    must oracle create -q -f raw images/r.raw 1M
}

@test "reads and writes, beside QEMU" {
    beside 'bench -c 100 a.qcow2' 'bench -c 5 -d 4 -s 64k -S 1M -o 3M -w --pattern 7 a.qcow2' \
        'bench -w -c 16 -d 4 --flush-interval 4 -s 3000 -S 12345 --pattern 0x21 a.qcow2' \
        'bench -w -c 3 -d 2 --flush-interval 2 --no-drain -o 7M -s 300k --pattern 9 a.qcow2' \
        'bench -f raw -w -c 200 -s 4k -S 4k --pattern 5 r.raw' 'bench -q -c 1 -f raw small.raw' \
        'bench -n -t none -c 1 a.qcow2' 'bench -i threads -U -c 3 a.qcow2' \
        'bench -c 3 -s 4k -d 1 -f raw small.raw'
}

@test "what cannot be, beside QEMU" {
    beside bench 'bench nosuch' 'bench -c 10 --flush-interval 4 a.qcow2' \
        'bench -w -c 10 --flush-interval 4 a.qcow2' 'bench -i foo a.qcow2' 'bench -n a.qcow2' \
        'bench -t foo a.qcow2' 'bench -i native -c 1 a.qcow2' 'bench -U -w -c 1 a.qcow2' \
        'bench -c 1 -o 9M a.qcow2' 'bench -w -c 1 -o 9M a.qcow2' 'bench -s 16M -c 2 a.qcow2'
    local bad
    for bad in '-c 0' '-c x' '-d 0' '-s 0' '-s 3G' '-S -1' '--pattern 256' '--flush-interval x'; do
        # shellcheck disable=SC2086
        one_error 1 qemu-img bench $bad images/a.qcow2
        message_has '^qemu-img: Invalid (request count|queue depth|buffer size|step size|pattern byte|flush interval) specified'
    done
}
