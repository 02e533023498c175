# SPDX-License-Identifier: MIT
# Images by QEMU for the tests of random operations, power cuts and errors: with data,
# compressed data, zeros and internal snapshots, above a backing file and without.
#
# shellcheck shell=bash disable=SC2154

# crash_program FOLDER/NAME: a program of the tests, beside the one under test.
crash_program() {
    local program
    program=$(dirname "$(readlink -f "$QCOW2")")/tests/$1
    [ -x "$program" ] || fail "not built: $program" || return 1
    echo "$program"
}

# A test program's TAP: every line of it, and its exit code.
all_ok() {
    local said
    said=$("$@" 2>&1) || fail "failed: $*"$'\n'"$(grep -v '^ok' <<<"$said")"
}

# fill_image FILE UNIT FIRST-BYTE: some of everything, in units of UNIT bytes.
fill_image() {
    local u=$2 p=$3
    must qemu-io -c "write -P $p 0 $((9 * u))" -c "write -P $((p + 1)) $((20 * u)) $((2 * u))" \
        -c "write -c -P $((p + 2)) $((30 * u)) $u" -c "write -c -P $((p + 3)) $((31 * u)) $u" \
        -c "write -z $((12 * u)) $((2 * u))" -c "discard $((4 * u)) $u" \
        -c "write -P $((p + 4)) $((40 * u + 512)) 1024" "$1"
}

# image_with_snapshots FILE SIZE UNIT OPTIONS [BACKING]
image_with_snapshots() {
    local file=$1 size=$2 unit=$3
    must oracle create -q -f qcow2 -o "$4" ${5:+-b "$5" -F raw} "$file" "$size" || return 1
    fill_image "$file" "$unit" 17 || return 1
    must oracle snapshot -c one "$file" || return 1
    must qemu-io -c "write -P 50 $((2 * unit)) $((4 * unit))" \
        -c "write -c -P 51 $((34 * unit)) $unit" -c "discard $((20 * unit)) $unit" "$file" ||
        return 1
    must oracle snapshot -c two "$file" || return 1
    must qemu-io -c "write -P 60 $((8 * unit)) $((3 * unit))" \
        -c "write -z -u 0 $((2 * unit))" "$file"
}

# All kinds, into the current folder; small ones have many tables for few bytes.
crash_images() {
    python3 -c 'import sys
for i in range(280): sys.stdout.buffer.write(bytes([i % 251 + 1, i // 251]) * 256)' >base.raw
    image_with_snapshots v3-512 192k 512 compat=1.1,cluster_size=512
    image_with_snapshots v3-512-lazy 192k 512 compat=1.1,cluster_size=512,lazy_refcounts=on
    image_with_snapshots v3-512-r4-base 192k 512 compat=1.1,cluster_size=512,refcount_bits=4 \
        base.raw
    image_with_snapshots v3-1k-r64 256k 1024 compat=1.1,cluster_size=1k,refcount_bits=64
    image_with_snapshots v2-512 192k 512 compat=0.10,cluster_size=512
    image_with_snapshots v2-1k-base 256k 1024 compat=0.10,cluster_size=1k base.raw
    image_with_snapshots v3-4k-base 512k 4096 compat=1.1,cluster_size=4k base.raw
    image_with_snapshots v3-64k 4M 65536 compat=1.1,cluster_size=64k
    # Counts of one bit leave no room for snapshots, nor for compressed clusters that share
    # a host cluster.
    must oracle create -q -f qcow2 -o compat=1.1,cluster_size=2k,refcount_bits=1 \
        -b base.raw -F raw v3-2k-r1 512k
    fill_image v3-2k-r1 2048 90
}
