#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Every feature of the format through every command, on images made by QEMU and by us. Each
# command line is run twice, on copies of one image: by us and by QEMU. Both end with the
# same code, say the same where they refuse, and leave an image with the same guest data,
# which QEMU finds clean.
#
# shellcheck shell=bash disable=SC2154

load helpers

setup() {
    q2_setup
    mkdir made ours theirs
}

# --- the features -----------------------------------------------------------------------

# What a new image of the feature is made with.
options_of() {
    case $1 in
    zstd) echo compression_type=zstd ;;
    subclusters) echo extended_l2=on,cluster_size=64k ;;
    data-file) echo data_file=disk.data ;;
    data-file-raw) echo data_file=disk.data,data_file_raw=on ;;
    bitmaps) echo cluster_size=64k ;;
    luks) echo encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 ;;
    aes) echo encrypt.format=aes,encrypt.key-secret=s ;;
    esac
}

is_encrypted() {
    [[ $feature == luks || $feature == aes ]]
}

# name FILE: how a command line names an image of the feature; raw FILE: a raw file beside.
name() {
    if is_encrypted; then
        echo "driver=qcow2,encrypt.key-secret=s,file.filename=$1"
    else
        echo "$1"
    fi
}

raw() {
    if is_encrypted; then echo "driver=raw,file.filename=$1"; else echo "$1"; fi
}

# opening: what goes before the names.
opening() {
    if is_encrypted; then
        echo --object secret,id=s,data=pass --image-opts
    fi
}

secret() {
    is_encrypted && echo --object secret,id=s,data=pass
    return 0
}

# --- the two programs -------------------------------------------------------------------

img() { # ours|theirs COMMAND...
    local side=$1
    shift
    if [ "$side" = ours ]; then qemu-img "$@"; else with_clock "$ORACLE" "$@"; fi
}

disk_io() { # ours|theirs COMMANDS of io...
    local side=$1 commands=() c
    shift
    for c in "$@"; do commands+=(-c "$c"); done
    if [ "$side" = ours ]; then
        # shellcheck disable=SC2046
        qcow2 io $(opening) "${commands[@]}" "$(name disk.qcow2)"
    else
        # shellcheck disable=SC2046
        qemu-io $(opening) "${commands[@]}" "$(name disk.qcow2)"
    fi
}

# The image of the feature, by one of the two, in the folder "made"; its data in want.raw.
make_image() { # ours|theirs
    local side=$1
    cd made || return 1
    # shellcheck disable=SC2046
    must img "$side" create -f qcow2 $(secret) -o "$(options_of "$feature")" disk.qcow2 4M ||
        return 1
    [ "$feature" != bitmaps ] || must img "$side" bitmap --add disk.qcow2 b0 || return 1
    must disk_io "$side" 'write -P 1 0 300k' 'write -P 2 2052k 60k' 'write -P 3 3M 512' \
        'write -z 1M 192k' 'write -P 4 1088k 4k' || return 1
    [ "$feature" != zstd ] && [ "$feature" != subclusters ] ||
        must disk_io "$side" 'write -c -P 5 3200k 64k' || return 1
    # shellcheck disable=SC2046
    must oracle convert $(opening) -O raw "$(name disk.qcow2)" ../want.raw || return 1
    cd ..
}

# both COMMAND...: in copies of the image; the shell words {ours,theirs} are what differs.
both() {
    local side code
    rm -rf ours theirs
    for side in ours theirs; do
        cp -r made "$side"
        code=0
        (cd "$side" && "$@" "$side") >"$side.out" 2>"$side.err" </dev/null || code=$?
        echo "$code" >"$side.code"
    done
    cmp -s ours.code theirs.code ||
        fail "$feature: $*: exit $(cat ours.code), QEMU's $(cat theirs.code)" \
            "$(cat ours.err theirs.err)" || return 1
    [ "$(cat ours.code)" -eq 0 ] || refused_alike "$@" || return 1
    same_guest "$@"
}

# Newer versions of QEMU begin some messages otherwise; what they say is the same.
refused_alike() {
    local ours theirs
    # QEMU notices the first at a write, and calls it an error there; it gives no reason
    # for the second.
    [[ "$feature $*" != 'data-file'*' c_'@(in_packed|snapshot) ]] || return 0
    ours=$(tail -n 1 ours.err) theirs=$(tail -n 1 theirs.err)
    [ "${ours##*: }" = "${theirs##*: }" ] ||
        fail "$feature: $*: says '$ours', QEMU '$theirs'"
}

# Both images read alike and are clean.
same_guest() {
    local side
    for side in ours theirs; do
        # shellcheck disable=SC2046
        (cd "$side" && must oracle convert $(opening) -O raw "$(name disk.qcow2)" \
            "../$side.raw") || fail "after: $feature: $*" || return 1
        # shellcheck disable=SC2046
        (cd "$side" && must oracle check $(opening) "$(name disk.qcow2)") ||
            fail "after: $feature: $*" || return 1
    done
    cmp ours.raw theirs.raw >/dev/null || fail "$feature: $*: other data than QEMU's"
}

# Version 7.2 of QEMU does not say in a map what is compressed.
same_output() {
    local -x MASK_ALSO='s/"compressed": (true|false), //; s/, "compressed": (true|false)}/}/'
    diff <(mask <theirs.out) <(mask <ours.out) >said || fail "$feature: $*: $(cat said)"
}

# --- the commands -----------------------------------------------------------------------

# shellcheck disable=SC2046
c_info() { img "$1" info $(opening) "$(name disk.qcow2)"; }
# shellcheck disable=SC2046
c_check() { img "$1" check --output=json $(opening) "$(name disk.qcow2)"; }
# shellcheck disable=SC2046
c_map() { img "$1" map --output=json $(opening) "$(name disk.qcow2)"; }
# shellcheck disable=SC2046
c_compare() { img "$1" compare $(opening) "$(raw ../want.raw)" "$(name disk.qcow2)"; }
# shellcheck disable=SC2046
c_out_raw() { img "$1" convert $(opening) -O raw "$(name disk.qcow2)" out && cmp out ../want.raw; }
c_out_plain() {
    # shellcheck disable=SC2046
    img "$1" convert -c $(opening) -O qcow2 "$(name disk.qcow2)" out &&
        oracle check -q out && oracle compare -q ../want.raw out
}
c_in() {
    rm -f disk.*
    # shellcheck disable=SC2046
    img "$1" convert -f raw -O qcow2 $(secret) -o "$(options_of "$feature")" ../want.raw disk.qcow2
}
c_in_place() {
    if is_encrypted; then
        img "$1" convert -n --object secret,id=s,data=pass --image-opts --target-image-opts \
            "$(raw ../want.raw)" "$(name disk.qcow2)"
    else
        img "$1" convert -n -f raw -O qcow2 ../want.raw disk.qcow2
    fi
}
c_in_packed() {
    rm -f disk.*
    # shellcheck disable=SC2046
    if ! img "$1" convert -c -f raw -O qcow2 $(secret) -o "$(options_of "$feature")" \
        ../want.raw disk.qcow2; then
        cp ../made/disk* . # for a look at the guest's data
        return 1
    fi
}
c_io() {
    disk_io "$1" 'write -P 9 777k 70000' 'discard 64k 128k' 'write -z 10k 100k' \
        'read -P 9 777k 70000' 'write -z -u 2M 64k' 'write -P 8 130k 2k' 'flush'
}
c_snapshot() {
    # shellcheck disable=SC2046
    img "$1" snapshot $(opening) -c one "$(name disk.qcow2)" || return
    disk_io "$1" 'write -P 6 0 100k' >/dev/null || return
    # shellcheck disable=SC2046
    img "$1" snapshot $(opening) -c two "$(name disk.qcow2)" || return
    # shellcheck disable=SC2046
    img "$1" snapshot $(opening) -a one "$(name disk.qcow2)" || return
    # shellcheck disable=SC2046
    img "$1" snapshot $(opening) -d two "$(name disk.qcow2)"
}
# shellcheck disable=SC2046
c_grow() { img "$1" resize $(opening) "$(name disk.qcow2)" +1M; }
# shellcheck disable=SC2046
c_grow_full() { img "$1" resize --preallocation=full $(opening) "$(name disk.qcow2)" +1M; }
# shellcheck disable=SC2046
c_shrink() { img "$1" resize --shrink $(opening) "$(name disk.qcow2)" 1M; }
# shellcheck disable=SC2046
c_shrink_unasked() { img "$1" resize $(opening) "$(name disk.qcow2)" 1M; }
c_amend() {
    # shellcheck disable=SC2046
    img "$1" amend $(opening) -o "$amendment" "$(name disk.qcow2)"
}
# A count that is too high: a leak.
c_leak() {
    imgtool refcount disk.qcow2 0 2
    # shellcheck disable=SC2046
    img "$1" check -r leaks $(opening) "$(name disk.qcow2)" >/dev/null
}
# One that is too low.
c_repair() {
    imgtool refcount disk.qcow2 0 0
    # shellcheck disable=SC2046
    img "$1" check -r all $(opening) "$(name disk.qcow2)" >/dev/null
}

all_commands() {
    local c
    for feature in "$@"; do
        for maker in $(rows 'ours theirs' theirs); do
            rm -rf made
            mkdir made
            make_image "$maker" || return 1
            both c_info || return 1
            both c_check && same_output check || return 1
            both c_map && same_output map || return 1
            # (QEMU leaves preallocated clusters of encrypted disks as they are: they read as
            # nonsense.)
            is_encrypted || both c_grow_full || return 1
            for c in compare out_raw out_plain in in_place in_packed io snapshot grow shrink \
                shrink_unasked leak repair; do
                both "c_$c" || return 1
            done
            for amendment in lazy_refcounts=on refcount_bits=32 compat=0.10 size=5M \
                compression_type=zlib,size=6M extended_l2=off cluster_size=4k; do
                # QEMU drops bitmaps silently where they cannot be kept.
                [ "$feature $amendment" != 'bitmaps compat=0.10' ] || continue
                both c_amend || return 1
            done
        done
    done
}

@test "compression_type=zstd" {
    all_commands zstd
}

@test "extended L2 entries" {
    all_commands subclusters
}

@test "an external data file, raw or not" {
    all_commands data-file data-file-raw
}

@test "bitmaps" {
    all_commands bitmaps
}

@test "encryption" {
    all_commands luks aes
}
