#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# recover: disks with file systems in images whose L1 table or whose beginning is lost. Small
# ones, with clusters so small that there are many L2 tables; make check-recover-real does
# the same with large ones that the kernel has filled.

load helpers

setup() {
    q2_setup
    export RECOVER_NO_MOUNT=1
}

# Of each case, as the script says: nothing that was placed by evidence is at a wrong place,
# 95 % of the data are placed so (or as said), and files read back.
real() {
    run python3 -S "$BATS_TEST_DIRNAME/recover/real.py" --mib 360 --data 12 --damages zeros \
        --clusters 4096 --least 95 "$@" disks
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "ext4: tables are placed by its inodes, folders and files; without the image's beginning" {
    real --disks ext4 --start 256 --files 95
    [ "$(grep -c '^| ext4-gpt | 4096 |' <<<"$output")" -eq 2 ]
    [ "$(grep -c ' can be read at best' <<<"$output")" -eq 2 ]
}

# The swap partition's own tables are told by nothing.
@test "ext4 behind what was overwritten: every file is as it was, and e2fsck finds nothing" {
    real --disks ext4-far --orders guest --start 256 --least 60 --files 100
    [ "$(grep -c ' none; e2fsck: 0, ' <<<"$output")" -eq 1 ]
}

@test "ext4 in a logical volume in two pieces: LVM's text says where these are" {
    real --disks ext4-lvm --start 256 --least 100 --files 95
    [ "$(grep -c '^| ext4-lvm-gpt | 4096 |' <<<"$output")" -eq 2 ]
}

@test "btrfs: tables are placed by its trees and its checksums of data" {
    command -v mkfs.btrfs || skip "without mkfs.btrfs"
    real --disks btrfs --least 100 --start 256 --right 95
    [ "$(grep -c '^| btrfs-gpt | 4096 |' <<<"$output")" -eq 2 ]
}

@test "XFS: tables are placed by its blocks and its files" {
    real --disks xfs --start 0
    [ "$(grep -c '^| xfs-dos | 4096 |' <<<"$output")" -eq 2 ]
}

@test "XFS in a logical partition: each of their tables says where the next one is" {
    real --disks xfs-logical --orders random --start 0
    [ "$(grep -c '^| xfs-logical-dos | 4096 |' <<<"$output")" -eq 1 ]
}

# Its log has nothing that tells a place.
@test "NTFS: tables are placed by its files" {
    real --disks ntfs --orders random --start 0 --mib 64 --data 4 --least 60
    [ "$(grep -c '^| ntfs-dos | 4096 |' <<<"$output")" -eq 1 ]
}
