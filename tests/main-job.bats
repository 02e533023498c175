#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The main job: a disk of real files goes to qcow2 and back, plain and compressed, and QEMU
# agrees on every byte.

load helpers

# The disk is made once for the whole file, of real files of this machine; short mode takes
# a smaller one.
setup_file() {
    local size files
    export DISK=$BATS_FILE_TMPDIR/disk.raw
    size=$(rows 1152 200) # MiB
    # What the file system needs for itself.
    files=$((size * 15 / 16))
    python3 "$IMGTOOL" stage "$BATS_FILE_TMPDIR/files" /usr/lib /usr/share /usr/bin /usr \
        --size "${files}m"
    mke2fs -q -t ext4 -F -N 200000 -m 0 -d "$BATS_FILE_TMPDIR/files" "$DISK" \
        "$((size * 5 / 4))M" 2>&1
    rm -rf "$BATS_FILE_TMPDIR/files"
    sync "$DISK"
    e2fsck -fn "$DISK"
    sha256sum <"$DISK" >"$BATS_FILE_TMPDIR/hash"
}

setup() {
    q2_setup
}

teardown() {
    rm -rf "$BATS_TEST_TMPDIR/work"
}

# Bytes of tables that an image of this disk may hold beside data: two to each cluster for
# refcounts, eight for L2, whole clusters, and header, refcount table and L1.
tables() {
    local clusters=$((($(stat -c %s "$DISK") + 65535) / 65536))
    echo $(((clusters * 8 / 65536 + 1 + clusters * 2 / 65536 + 2 + 3) * 65536))
}

source_untouched() {
    sha256sum <"$DISK" | cmp - "$BATS_FILE_TMPDIR/hash"
}

back_to_raw() { # IMAGE
    must "$QCOW2" convert -O raw "$1" back.raw || return 1
    same_bytes "$DISK" back.raw || return 1
    takes_at_most back.raw "$(disk_bytes "$DISK")" || return 1
    must e2fsck -fn back.raw
}

@test "the disk holds as much real data as it should" {
    [ "$(disk_bytes "$DISK")" -ge $(($(rows 1024 180) << 20)) ]
}

@test "raw to qcow2 to raw" {
    must "$QCOW2" convert -f raw -O qcow2 "$DISK" disk.qcow2
    clean disk.qcow2
    must oracle compare "$DISK" disk.qcow2
    must "$QCOW2" compare "$DISK" disk.qcow2
    echo "image $(disk_bytes disk.qcow2), disk $(disk_bytes "$DISK"), tables $(tables)"
    takes_at_most disk.qcow2 $(($(disk_bytes "$DISK") + $(tables)))
    back_to_raw disk.qcow2
    source_untouched
}

@test "raw to compressed qcow2 to raw" {
    must "$QCOW2" convert -c -f raw -O qcow2 "$DISK" disk.qcow2
    clean disk.qcow2
    must oracle compare "$DISK" disk.qcow2
    must "$QCOW2" compare "$DISK" disk.qcow2
    [ "$(disk_bytes disk.qcow2)" -lt "$(disk_bytes "$DISK")" ]
    # Real files of programs and texts: compressed they take less than three quarters.
    [ "$(stat -c %s disk.qcow2)" -lt $(($(disk_bytes "$DISK") * 3 / 4)) ]
    back_to_raw disk.qcow2
    source_untouched
}

@test "qcow2 to qcow2, and one thread makes the same image as many" {
    must "$QCOW2" convert -O qcow2 "$DISK" disk.qcow2
    must "$QCOW2" convert -m 1 -O qcow2 disk.qcow2 copy.qcow2
    clean copy.qcow2
    same_bytes disk.qcow2 copy.qcow2
}
