#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# check: locks, progress, signals, layers, hostile images, images of every feature.

load helpers
load recipes

setup() {
    q2_setup
}

# --- locks, progress, layers ------------------------------------------------------------

@test "beside a writer: check refuses, -U reads, nothing is repaired or undone" {
    local text
    repaired
    text="Is another process using the image [image.qcow2]?"
    hold_open image.qcow2
    one_lock() {
        must_exit 1 qemu-img check "$@" image.qcow2
        qemu-img check "$@" image.qcow2 2>err || true
        [ "$(tail -n 1 err)" = "$text" ]
    }
    one_lock
    one_lock -r all
    one_lock -r leaks
    one_lock -r all --dry-run
    one_lock --undo undo
    must qemu-img check -U image.qcow2
    must qemu-img check -U -r all --dry-run image.qcow2
    let_go
    must qemu-img check image.qcow2
}

@test "-p tells how far it is, -q only what is wrong" {
    base
    qemu-img check -p image.qcow2 >out
    grep -qF '(0.00/100%)' out
    grep -qF '(100.00/100%)' out
    [ "$(qemu-img check -p image.qcow2 | tail -n 1)" = "$(qemu-img check image.qcow2 | tail -n 1)" ]
    recipe refcount-too-high
    qemu-img check -q image.qcow2 >out 2>err || [ $? -eq 3 ]
    [ ! -s out ]
    [ "$(wc -l <err)" -eq 2 ]
    qemu-img check -q -r all image.qcow2 >out 2>err
    [ ! -s out ]
    clean image.qcow2
}

# The percentages that were shown, at least so many, go up; they are left in "percent".
goes_up() { # FILE LEAST
    tr '\r' '\n' <"$1" | sed -nE 's/^ +\(([0-9]+\.[0-9]{2})\/100%\)$/\1/p' >percent
    sort -n percent | diff -u - percent
    [ "$(wc -l <percent)" -ge "$2" ] || fail "only $(cat percent)"
}

from_0_to_100() { # FILE LEAST
    goes_up "$@"
    [ "$(head -n 1 percent)" = 0.00 ]
    [ "$(tail -n 1 percent)" = 100.00 ]
}

# 128 MiB in 64 L2 tables, with clusters of 4 KiB.
many_tables() {
    must oracle create -q -f qcow2 -o cluster_size=4k image.qcow2 128M
    for ((i = 0; i < 64; i++)); do
        echo "write -q -P 1 $((i * 2))M 64k"
    done | qemu_io qcow2 image.qcow2
}

@test "-p goes up from 0 to 100: tables, data, and all rounds of a repair" {
    many_tables
    qemu-img check -p image.qcow2 >out
    from_0_to_100 out 5
    qemu-img check -p --read-data image.qcow2 >out
    from_0_to_100 out 40
    qemu-img check -p -r all image.qcow2 >out
    from_0_to_100 out 8
    recipe reference-outside.lost-v2
    qemu-img check -p -r all --dry-run image.qcow2 >out 2>err || [ $? -eq 2 ]
    from_0_to_100 out 5
    qemu-img check -p -r all image.qcow2 >out 2>err
    from_0_to_100 out 8
    # Not of a check that fails.
    with_signal pread 3 15 "$QCOW2" check -p image.qcow2
    [ "$code" -eq 143 ]
    [ "$(grep -cF '(100.00/100%)' out)" -eq 0 ]
}

@test "SIGUSR1 asks how far it is, without -p" {
    local usr1
    usr1=$(kill -l USR1)
    many_tables
    with_signal pread 10 "$usr1" "$QCOW2" check --read-data image.qcow2
    [ "$code" -eq 0 ]
    goes_up err 1
    [ "$(wc -l <err)" -eq 1 ]
    [ "$(grep -cF '/100%' out)" -eq 0 ]
    with_signal pread 0 "$usr1" "$QCOW2" check --read-data image.qcow2
    [ "$code" -eq 0 ]
    goes_up err 40
}

# After a repair that got a signal: the image is either what it was, or wholly repaired, and
# then the undo file is there.
stopped_well() {
    if cmp -s damaged.qcow2 image.qcow2; then
        absent undo
        grep -qx '[^ ]*: Stopped by signal SIG\(TERM\|INT\)' err
        stopped_before=$((stopped_before + 1))
    else
        same_bytes repaired.qcow2 image.qcow2
        must qemu-img check --undo undo image.qcow2
        same_bytes damaged.qcow2 image.qcow2
        rm undo
        stopped_after=$((stopped_after + 1))
    fi
}

@test "SIGTERM and SIGINT stop a repair before its first write or after its last" {
    local n stopped_before=0 stopped_after=0
    repaired
    # A third table is to be written.
    imgtool l1 damaged.qcow2 0 "$(($(imgtool l1 damaged.qcow2 0) & 0x00fffffffffffe00))"
    cp damaged.qcow2 repaired.qcow2
    must qemu-img check -r all repaired.qcow2
    rm undo
    for ((n = 1; n < 999; n += 2)); do
        cp damaged.qcow2 image.qcow2
        with_signal pread "$n" 15 "$QCOW2" check -r all --undo-file undo image.qcow2
        [ "$code" -ne 0 ] || break # there are fewer reads
        [ "$code" -eq 143 ] || fail "exit $code: $(cat err)"
        stopped_well
    done
    rm undo
    # Both cases were there.
    [ "$stopped_before" -ge 5 ]
    [ "$stopped_after" -ge 2 ]
    # Between its writes it is not stopped, not even by a second one.
    stopped_before=0
    for ((n = 1; n < 999; n++)); do
        cp damaged.qcow2 image.qcow2
        signal_times=2 with_signal pwrite "$n" 2 "$QCOW2" check -r all --undo-file undo image.qcow2
        [ "$code" -ne 0 ] || break
        [ "$code" -eq 130 ] || fail "exit $code: $(cat err)"
        grep -q 'warning: The repair is done; the check after it was stopped$' err
        stopped_well
    done
    [ "$n" -gt 3 ]
    [ "$stopped_before" -eq 0 ]
    # A check, too, is stopped, also between the clusters of one table.
    cp damaged.qcow2 image.qcow2
    with_signal pread 3 15 "$QCOW2" check image.qcow2
    [ "$code" -eq 143 ]
    many_tables
    with_signal pread 12 15 "$QCOW2" check --read-data image.qcow2
    [ "$code" -eq 143 ]
}

@test "a backing file is not opened without --backing-chain" {
    recipe reference-outside.lost
    rm back.qcow2
    must_exit 2 qemu-img check image.qcow2
    must qemu-img check -r all image.qcow2
    must_exit 0 qemu-img check image.qcow2
    one_error 1 qemu-img check -q --backing-chain image.qcow2
    [ "$message" = "qemu-img: Could not open 'image.qcow2': Could not open backing file: Could not open 'back.qcow2': No such file or directory" ]
}

@test "--backing-chain checks and repairs every layer" {
    base
    mv image.qcow2 low.qcow2
    base backing_file=low.qcow2,backing_fmt=qcow2
    must qemu-img check --backing-chain image.qcow2
    # A leak in the upper layer, a corruption in the lower one: the worse one tells.
    truncate -s 128k image.qcow2
    imgtool refcount image.qcow2 96k 1
    must_exit 3 qemu-img check --backing-chain image.qcow2
    imgtool l1 low.qcow2 2M ^0x8000000000000000
    must_exit 3 qemu-img check image.qcow2
    must_exit 2 qemu-img check --backing-chain image.qcow2
    must qemu-img check --backing-chain -r all image.qcow2
    clean image.qcow2
    clean low.qcow2
    # A raw file at the bottom is no error.
    truncate -s 8M bottom.raw
    must oracle create -f qcow2 -b bottom.raw -F raw top.qcow2 8M
    must qemu-img check --backing-chain top.qcow2
}

@test "--backing-chain --output=json is one list, of the layers that were checked" {
    base
    mv image.qcow2 low.qcow2
    base backing_file=low.qcow2,backing_fmt=qcow2
    imgtool l1 low.qcow2 2M ^0x8000000000000000
    must_exit 2 qemu-img check --backing-chain --output=json --details image.qcow2
    qemu-img check --backing-chain --output=json --details image.qcow2 >json 2>err || true
    [ "$(jq -c '[.[] | [.filename, .corruptions, (.findings | length)]]' json)" = \
        '[["image.qcow2",null,0],["low.qcow2",1,1]]' ]
    must_exit 2 qemu-img check --backing-chain --output=json -r all --dry-run image.qcow2
    qemu-img check --backing-chain --output=json -r all --dry-run image.qcow2 >json 2>err ||
        true
    [ "$(jq -c '[.[] | .plan.edits | length > 0]' json)" = '[false,true]' ]
    must qemu-img check --backing-chain --output=json -r all image.qcow2
    # One layer is a list, too; without the option it is none.
    qemu-img check --backing-chain --output=json low.qcow2 >json
    [ "$(jq -c '[.[].filename]' json)" = '["low.qcow2"]' ]
    qemu-img check --output=json low.qcow2 >json
    [ "$(jq -r .filename json)" = low.qcow2 ]
}

@test "--backing-chain: what stops it is one error, below what was found" {
    local text
    must oracle create -q -f qcow2 low.qcow2 8M
    must oracle create -q -f qcow2 -b low.qcow2 -F qcow2 image.qcow2
    stops() { # ERROR
        must_exit 1 qemu-img check --backing-chain --output=json image.qcow2
        qemu-img check --backing-chain --output=json image.qcow2 >json 2>err || true
        [ "$(cat err)" = "qemu-img: $1" ] || fail "$(cat err)"
        [ "$(jq -r '.[0].filename' json)" = image.qcow2 ]
        must_exit 1 qemu-img check --backing-chain image.qcow2
    }
    text="Could not open 'image.qcow2': Could not open backing file"
    rm low.qcow2
    stops "$text: Could not open 'low.qcow2': No such file or directory"
    echo 'no image' >low.qcow2
    stops "$text: Could not open 'low.qcow2': Image is not in qcow2 format"
    must oracle create -q -f qcow2 -u -b image.qcow2 -F qcow2 low.qcow2 8M
    stops "Backing file 'image.qcow2' creates an infinite loop"
    must oracle create -q -f qcow2 -u -b nbd://localhost/ -F raw image.qcow2 8M
    stops "$text 'nbd://localhost/': Unknown protocol 'nbd'"
    must oracle create -q -f qcow2 -u -b low.qcow2 -F vmdk image.qcow2 8M
    stops "$text: Could not open 'low.qcow2': Unknown driver 'vmdk'"
    # Nothing at all is printed when the image itself is at fault.
    rm image.qcow2
    one_error 1 qemu-img check --backing-chain --output=json image.qcow2
}

@test "--clear-feature clears an unknown bit, and no other" {
    base
    cp image.qcow2 good.qcow2
    imgtool field image.qcow2 incompatible_features 0x8000000000000000
    must_exit 1 qemu-img check image.qcow2
    must_exit 1 qemu-img check -r all --clear-feature 62 image.qcow2
    must_exit 1 qemu-img check -r all --clear-feature 3 image.qcow2
    [ "$(imgtool field image.qcow2 incompatible_features)" = 9223372036854775808 ]
    must qemu-img check -r all --clear-feature 63 image.qcow2
    same_bytes good.qcow2 image.qcow2
}

@test "--details lists findings with their values" {
    recipe reference-outside
    qemu-img check --output=json --details image.qcow2 >json 2>err || [ $? -eq 2 ]
    diff -u - <(jq -S '.findings[0]' json) <<'END'
{
  "entry": "0x8000010000006000",
  "guest-bytes": 4096,
  "guest-offset": 4096,
  "host-offset": 1099511652352,
  "index": 1,
  "lossy": false,
  "problem": "reference-outside",
  "repair": "lossy",
  "severity": "corruption",
  "size": 4096
}
END
    # Findings are QEMU's keys' sum.
    [ "$(jq '[.findings[] | select(.severity == "corruption")] | length' json)" -eq \
        "$(jq .corruptions json)" ]
    [ "$(jq '[.findings[] | select(.severity == "leak") | .count] | add' json)" -eq \
        "$(jq .leaks json)" ]
    # Not without the option.
    qemu-img check --output=json image.qcow2 >json 2>err || true
    [ "$(jq 'has("findings")' json)" = false ]
}

# --- hostile ----------------------------------------------------------------------------

# 64 MiB.
little_memory() {
    (
        if is_bare_program; then ulimit -v 65536; fi
        exec timeout -k 5 300 "$@"
    )
}

@test "a file that claims 256 GiB and holds nothing is checked in 64 MiB of memory" {
    local kind option code
    for kind in $(rows 'empty holes scattered shared snapshots' 'empty holes snapshots'); do
        imgtool hostile h.qcow2 "$kind"
        for option in '' '-r all --dry-run'; do
            echo "$kind $option"
            code=0
            # shellcheck disable=SC2086
            little_memory "$QCOW2" check $option h.qcow2 >out 2>err || code=$?
            # A refcount table for all of it would be too large: refused, in words.
            [ "$code" -eq 2 ] || {
                [ "$code" -eq 1 ] && [ -n "$option" ] && grep -q 'refcount table would be' err
            } || fail "$kind $option: exit $code: $(tail -n 2 err)"
            # What is told of it is bounded, too.
            [ "$(wc -l <err)" -le 400000 ] || fail "$kind $option: $(wc -l <err) lines"
        done
        rm h.qcow2
    done
}

@test "65535 bitmaps whose tables are nowhere cost no memory" {
    imgtool hostile-bitmaps h.qcow2
    must_exit 2 little_memory "$QCOW2" check h.qcow2
    must_exit 1 "$QCOW2" check -q -r all h.qcow2
    "$QCOW2" check -q -r all h.qcow2 2>err || true
    grep -q 'New bitmap tables would be larger' err
}

# --- other kinds of image ---------------------------------------------------------------

@test "images of every feature are checked as QEMU checks them, and left alone" {
    local name
    must oracle create -f qcow2 --object secret,id=sec0,data=passw0rd -o \
        encrypt.format=aes,encrypt.key-secret=sec0 aes.qcow2 8M
    luks_image luks.qcow2
    must oracle create -f qcow2 -o compression_type=zstd zstd.qcow2 8M
    must oracle create -f qcow2 -o lazy_refcounts=on lazy.qcow2 8M
    must oracle create -f qcow2 -o extended_l2=on extended.qcow2 8M
    must oracle create -f qcow2 -o data_file=data.raw data-file.qcow2 8M
    must oracle create -f qcow2 -o data_file=raw.raw,data_file_raw=on,extended_l2=on \
        data-file-raw.qcow2 8M
    must oracle create -f qcow2 bitmaps.qcow2 8M
    must oracle bitmap --add bitmaps.qcow2 b0
    for name in zstd lazy extended data-file data-file-raw bitmaps; do
        printf '%s\n' 'write -q -P 7 0 64k' 'write -q -P 8 100k 3k' 'write -q -z 64k 2k' \
            'write -q -z 1M 64k' | qemu_io qcow2 $name.qcow2
    done
    for name in zstd extended; do
        echo 'write -q -c -P 7 2M 64k' | qemu_io qcow2 $name.qcow2
        must oracle snapshot -c one $name.qcow2
        echo 'write -q -P 9 10k 64k' | qemu_io qcow2 $name.qcow2
    done
    must oracle bitmap --add --disable -g 512 bitmaps.qcow2 'a second one'
    for name in aes luks zstd lazy extended data-file data-file-raw bitmaps; do
        cp $name.qcow2 before
        qemu-img check $name.qcow2 >got
        if [ $name != aes ] && [ $name != luks ]; then
            oracle check $name.qcow2 >want
            same_text want got
        fi
        must qemu-img check -r all $name.qcow2
        same_bytes before $name.qcow2
    done
    # The data file is not needed for that.
    rm data.raw
    must qemu-img check data-file.qcow2
}

@test "--read-data reads the data file, and says which one is missing" {
    base_with_data_file
    must qemu-img check --read-data image.qcow2
    make_unreadable $((2 << 20))
    mv data.raw other.raw
    one_error 1 qemu-img check --read-data image.qcow2
    [ "$message" = "qemu-img: Could not open 'image.qcow2': Could not open 'data.raw': No such file or directory" ]
    must qemu-img check image.qcow2
    must qemu-img check --read-data --image-opts \
        driver=qcow2,file.filename=image.qcow2,data-file.filename=other.raw
    mv other.raw data.raw
    must_exit 2 with_bad_disk qemu-img check --read-data image.qcow2
    # What an image names is opened only as a plain path.
    imgtool extension image.qcow2 data_file --data 6e62643a2f2f612f # nbd://a/
    one_error 1 qemu-img check --read-data image.qcow2
    message_has "Unknown protocol 'nbd'"
}

@test "--read-data inflates zstd, with extended entries, too" {
    must oracle create -q -f qcow2 -o compression_type=zstd,extended_l2=on image.qcow2 8M
    printf '%s\n' 'write -q -c -P 5 0 64k' 'write -q -c -P 6 64k 64k' |
        qemu_io qcow2 image.qcow2
    must qemu-img check --read-data image.qcow2
    imgtool spoil image.qcow2
    must qemu-img check image.qcow2
    must_exit 2 qemu-img check --read-data image.qcow2
    [ "$(qemu-img check --read-data image.qcow2 2>&1 | grep -c 'does not inflate')" -eq 1 ]
}

@test "a dirty image of every feature is repaired by who opens it for writing" {
    local options
    for options in extended_l2=on data_file=data.raw compression_type=zstd; do
        rm -f image.qcow2 data.raw
        must oracle create -q -f qcow2 -o "lazy_refcounts=on,$options" image.qcow2 8M
        printf '%s\n' 'write -q -P 5 0 128k' 'write -q -z 1M 4k' | qemu_io qcow2 image.qcow2
        keep_contents
        # The L2 table's count was not written when the program died.
        imgtool refcount image.qcow2 "$(($(imgtool l1 image.qcow2 0) & 0xfffffffffe00))" 0
        imgtool field image.qcow2 incompatible_features \
            $(($(imgtool field image.qcow2 incompatible_features) | 1))
        must qemu-img amend -o lazy_refcounts=off image.qcow2
        clean image.qcow2
        same_contents
    done
}

@test "a lazy image whose refcounts were never written is healed" {
    local guest
    base lazy_refcounts=on
    keep_contents
    # What a crash leaves: data and tables are there, their counts are not.
    for guest in 0 4k 2M; do
        imgtool refcount image.qcow2 "$(($(imgtool l2 image.qcow2 $guest) & 0xfffffe00))" 0
    done
    imgtool field image.qcow2 incompatible_features 1
    must_exit 2 qemu-img check image.qcow2
    must qemu-img check -r all image.qcow2
    [ "$(imgtool field image.qcow2 incompatible_features)" -eq 0 ]
    [ "$(imgtool field image.qcow2 compatible_features)" -eq 1 ]
    clean image.qcow2
    same_contents
}
