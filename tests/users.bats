#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What programs that run qemu-img do with it, step by step as they do it. The programs
# themselves are run by scripts/real-users; they are too big to be installed for every test.

load helpers

setup() { q2_setup; }

# A disk with something in it, and its qcow2 image.
make_disk() { # SIZE
    imgtool fill disk.raw "$1" --seed 5
    must oracle convert -f raw -O qcow2 disk.raw disk.qcow2
}

@test "OpenStack's library reads text and JSON of info" {
    must /usr/bin/python3 "$BATS_TEST_DIRNAME/../scripts/real_users.py" oslo
}

@test "as packer: a box is copied, grown, booted, and compressed in place" {
    make_disk 4M
    mkdir out
    must qemu-img convert -O qcow2 disk.qcow2 out/box
    must qemu-img resize -f qcow2 out/box 40960M
    must qemu-io -f qcow2 -c 'write -P 7 30G 64k' out/box
    must qemu-img convert -c -O qcow2 out/box out/box.convert
    mv out/box.convert out/box
    clean out/box
    [ "$(oracle info --output=json out/box | json_value '["virtual-size"]')" -eq 42949672960 ]
    truncate -s 40960M disk.raw
    qemu_io raw disk.raw <<<'write -P 7 30G 64k'
    same out/box disk.raw
}

@test "as packer: an overlay over the box, and a new disk beside it" {
    make_disk 4M
    must qemu-img create -f qcow2 -b "$PWD/disk.qcow2" -F qcow2 -o size=8M over
    must qemu-img create -f qcow2 second 1G
    must qemu-img create -f raw third 512M
    [ "$(stat -c %s third)" -eq 536870912 ]
    clean over
    clean second
    must oracle resize -f raw disk.raw 8M
    same over disk.raw
}

@test "as vagrant-libvirt: the size of a box, its packing, the chain of a snapshot" {
    make_disk 5M
    [ "$(qemu-img info --output=json disk.qcow2 | jq '."virtual-size"')" -eq 5242880 ]
    [ "$(qemu-img info disk.qcow2 | awk '/^virtual size:/ { print $3, $4 }')" = "5 MiB" ]
    must qemu-img create -f qcow2 -F qcow2 -b disk.qcow2 machine.img
    must qemu-io -f qcow2 -c 'write -P 9 1M 100k' machine.img
    [ "$(qemu-img info machine.img | grep 'backing file:' | cut -d : -f 2)" = ' disk.qcow2' ]
    must oracle convert -O raw machine.img want.raw
    must qemu-img rebase -p -b '' machine.img
    rm disk.qcow2
    [ "$(qemu-img info --output=json machine.img | jq 'has("backing-filename")')" = false ]
    must qemu-img convert -S 16k -c -O qcow2 machine.img box.img
    clean box.img
    same box.img want.raw
}

@test "as a hypervisor's import: progress is read while an image goes to a block device's place" {
    make_disk 6M
    truncate -s 6M target.raw
    qemu-img convert -p -n -f qcow2 -O raw -t none -T none disk.qcow2 target.raw >said
    [ "$(tr '\r' '\n' <said | grep -cE '^ *\([0-9]+\.[0-9]{2}/100%\)')" -ge 2 ]
    tr '\r' '\n' <said | grep -q '(100.00/100%)'
    same_bytes disk.raw target.raw
    must qemu-img resize --shrink -f raw target.raw 3M
    must cmp -n 3145728 disk.raw target.raw
}

@test "as a backup: external snapshot, commit down the chain, chain as JSON" {
    make_disk 4M
    must qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 a.qcow2
    must qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2
    must qemu-io -f qcow2 -c 'write -P 3 2M 512k' b.qcow2
    must oracle convert -O raw b.qcow2 want.raw
    [ "$(qemu-img info --backing-chain --output=json b.qcow2 |
        jq -r '.[].filename' | tr '\n' ' ')" = 'b.qcow2 a.qcow2 disk.qcow2 ' ]
    must qemu-img commit -q -f qcow2 -b disk.qcow2 b.qcow2
    clean disk.qcow2
    same disk.qcow2 want.raw
    [ "$(qemu-img check --output=json disk.qcow2 | jq '."check-errors"')" -eq 0 ]
    qemu-img map --output=json disk.qcow2 | jq -e 'map(.length) | add == 4194304'
}

@test "the version is in the first line of --version and of --help" {
    for option in --version --help -h; do
        [ "$(qemu-img $option | head -n 1 | cut -d ' ' -f 1-2)" = 'qemu-img version' ]
        version=$(qemu-img $option | head -n 1 | cut -d ' ' -f 3)
        [[ $version =~ ^10\.[0-9]+\.[0-9]+$ ]] || fail "$option: $version"
    done
}

@test "a limited address space is enough for many threads" {
    imgtool fill disk.raw 24M --seed 5
    if is_bare_program; then ulimit -v 409600; fi
    for options in '' -c '-c -o compression_type=zstd'; do
        # shellcheck disable=SC2086
        must qemu-img convert $options -W -m 16 -O qcow2 disk.raw disk.qcow2
        must qemu-img convert -W -m 16 -O raw disk.qcow2 back.raw
        must cmp disk.raw back.raw
    done
}
