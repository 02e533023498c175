#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# vet: what is accepted, each reason for which an image is rejected, and that nothing but the
# image is opened. That every problem of check is a reason is held in recipes.bash, and by
# the damage matrix.

load helpers
load recipes

REASONS=$BATS_TEST_DIRNAME/../src/ops/vet_reasons.def
PAGE=$BATS_TEST_DIRNAME/../man/qcow2-vet.1

setup() {
    q2_setup
}

# An image in which guest cluster N lies in host cluster 5 + N.
sample() { # [OPTIONS of create -o]
    local kept=$BATS_TEST_TMPDIR/sample.qcow2
    if [ $# -gt 0 ] || [ ! -e "$kept" ]; then
        must oracle create -q -f qcow2 -o "cluster_size=4k${1:+,$1}" image.qcow2 1M || return 1
        must qemu-io -f qcow2 -c 'write -P 1 0 64k' image.qcow2 || return 1
        [ $# -gt 0 ] || cp image.qcow2 "$kept"
    fi
    [ $# -gt 0 ] || cp "$kept" image.qcow2
}

# vetted CODE [OPTION...]: vet of image.qcow2 ends with that code and says so; the ids of its
# reasons, in order, go into $reasons, of those that were allowed into $allowed.
vetted() {
    local want=$1 code=0 yes
    shift
    qcow2 vet --output=json "$@" image.qcow2 >json 2>err || code=$?
    { [ "$code" -eq "$want" ] && [ ! -s err ]; } ||
        fail "exit $code, not $want: $*: $(cat json err)" || return 1
    {
        read -r yes
        read -r reasons
        read -r allowed
    } < <(jq -r '.accepted, (.reasons, .allowed | map(.id) | join(" "))' json)
    [ "$yes" = "$([ "$code" -eq 0 ] && echo true || echo false)" ] || fail "$(cat json)"
}

accepted() {
    vetted 0 "$@" && [ -z "$reasons" ]
}

# --- what is accepted -------------------------------------------------------------------

@test "images of all features are accepted" {
    local options
    while read -r options; do
        rm -f image.qcow2
        must oracle create -q -f qcow2 -o "$options" image.qcow2 9M
        must qemu-io -f qcow2 -c 'write -P 1 0 100k' -c 'write -z 1M 1M' -c 'write 8M 64k' \
            image.qcow2
        accepted || fail "$options: $(cat json)"
    done <<'END'
compat=1.1
compat=0.10
extended_l2=on
lazy_refcounts=on
refcount_bits=1,cluster_size=512
refcount_bits=64,cluster_size=2M
preallocation=metadata
preallocation=full,extended_l2=on
END
}

@test "compressed images are accepted, by whomever they were made" {
    local program options
    head -c 300000 /dev/urandom >disk.raw
    seq 100000 >>disk.raw
    for program in "$ORACLE" qcow2; do
        for options in compression_type=zlib compression_type=zstd,extended_l2=on \
            compat=0.10 cluster_size=512 cluster_size=2M; do
            must "$program" convert -c -f raw -O qcow2 -o "$options" disk.raw image.qcow2
            accepted || fail "$program $options: $(cat json)"
        done
    done
}

@test "an image with bitmaps that were closed is accepted" {
    sample
    must oracle bitmap --add image.qcow2 one
    must qemu-io -f qcow2 -c 'write -P 2 64k 4k' image.qcow2
    accepted
}

@test "unknown compatible and autoclear bits, extensions and fields are no reasons" {
    sample
    imgtool field image.qcow2 compatible_features 0xff00000000000002
    imgtool field image.qcow2 autoclear_features 0x8000000000000000
    accepted
}

@test "a raw disk is accepted, with a partition table, a FAT file system, or text in it" {
    truncate -s 1M image.qcow2
    accepted -f raw
    zeros_but 446 "$BOOT" 510 "$SIGNATURE"
    accepted -f raw
    zeros_but 446 "$GPT" 510 "$SIGNATURE"
    accepted -f raw
    zeros_but 16 '\2' 21 '\xf8' 510 "$SIGNATURE"
    accepted -f raw
    printf '#cloud-config\nusers: []\n' >image.qcow2
    accepted -f raw
    : >image.qcow2
    accepted -f raw
}

# put OFFSET BYTES...: into image.qcow2; bytes as printf takes them.
put() {
    while [ $# -gt 0 ]; do
        # shellcheck disable=SC2059
        printf "$2" | dd of=image.qcow2 bs=1 seek="$(($1))" conv=notrunc status=none
        shift 2
    done
}

# The same, and all other bytes are zeros.
zeros_but() {
    rm -f image.qcow2
    truncate -s 1M image.qcow2
    put "$@"
}

# Entries of a partition table: flag, first place, type, last place, first sector, sectors.
BOOT='\x80\0\2\0\x83\0\0\0\1\0\0\0\0\x8\0\0'
GPT='\0\0\2\0\xee\0\0\0\1\0\0\0\0\x8\0\0'
SIGNATURE='\x55\xaa'

# --- each reason, by itself -------------------------------------------------------------
#
# make_ID makes image.qcow2, and sets options if there have to be some.

make_format() {
    must oracle create -q -f vmdk image.qcow2 1M
}

make_other-format() {
    sample
    put 510 "$SIGNATURE"
}

make_iso() {
    sample
    put 0x8001 CD001
}

make_partition-table() {
    options=(-f raw)
    zeros_but 510 "$SIGNATURE"
}

make_file-size() {
    options=(--max-file-size 4k)
    sample
}

make_virtual-size() {
    options=(--max-virtual-size 1023k)
    sample
}

make_version() {
    sample
    imgtool field image.qcow2 version 4
}

make_unknown-features() {
    sample
    imgtool field image.qcow2 incompatible_features 0x8000000000000020
}

make_header() {
    sample
    imgtool field image.qcow2 header_length 4104
}

make_backing-file() {
    truncate -s 1M back.raw
    sample backing_file=back.raw,backing_fmt=raw
}

make_data-file() {
    sample data_file=data.raw
}

make_dirty() {
    sample
    imgtool field image.qcow2 incompatible_features 1
}

make_corrupt() {
    sample
    imgtool field image.qcow2 incompatible_features 2
}

make_encryption() {
    must qcow2 create -q -f qcow2 --object secret,id=s,data=x -o \
        encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 image.qcow2 1M
}

make_encryption-aes() {
    sample
    imgtool field image.qcow2 crypt_method 1
}

make_snapshots() {
    sample
    must oracle snapshot -c one image.qcow2
}

make_bitmaps() {
    sample
    must oracle bitmap --add image.qcow2 one
    imgtool bitmap image.qcow2 0 flags 3
}

make_leaks() {
    sample
    imgtool l2 image.qcow2 4k 0
}

make_shared-clusters() {
    sample
    imgtool l2 image.qcow2 4k 0
    imgtool refcount image.qcow2 $((6 * 4096)) 0
    imgtool l2 image.qcow2 0 $((5 * 4096))
    imgtool l2 image.qcow2 4k $((5 * 4096))
    imgtool refcount image.qcow2 $((5 * 4096)) 2
}

make_trailing-data() {
    sample
    printf 'PK\5\6' >>image.qcow2
}

# 70000 leaks side by side that are all different, so that each is a finding of its own;
# only so many are kept. Behind them, a corruption.
make_further-damage() {
    others=yes
    must qcow2 create -q -f qcow2 -o cluster_size=512,preallocation=metadata image.qcow2 40M
    python3 -S - <<'END'
import struct
with open("image.qcow2", "r+b") as f:
    def at(offset, fmt):
        f.seek(offset)
        return struct.unpack(fmt, f.read(struct.calcsize(fmt)))
    n_l1, l1 = at(36, ">IQ")
    table, clusters = at(48, ">QI")
    for l2 in at(l1, ">%dQ" % n_l1)[:-1]:
        f.seek(l2 & ~(1 << 63))
        f.write(bytes(512))
    last = at((at(l1 + 8 * n_l1 - 8, ">Q")[0] & ~(1 << 63)) + 504, ">Q")[0] & ~(1 << 63)
    for block in filter(None, at(table, ">%dQ" % (clusters * 64))):
        counts = list(at(block, ">256H"))
        for i in range(0, 256, 2):
            counts[i] *= 2
        f.seek(block)
        f.write(struct.pack(">256H", *counts))
    block = at(table + last // 512 // 256 * 8, ">Q")[0]
    f.seek(block + last // 512 % 256 * 2)
    f.write(bytes(2))
END
}

@test "each reason rejects; those that can be allowed are told and accepted" {
    local id allow options others n=0
    while read -r id allow; do
        rm -f image.qcow2
        options=()
        others=
        "make_$id"
        vetted 2 "${options[@]}" || fail "$id" || return 1
        [ "$reasons" = "$id" ] || { [ "$others" ] && [[ " $reasons " = *" $id "* ]]; } ||
            fail "$id: $(cat json)"
        if [ "$allow" = ASKED ]; then
            accepted "${options[@]}" --allow "$id"
            [ "$allowed" = "$id" ] || fail "$id: $(cat json)"
        else
            one_error_of_allow "$id"
        fi
        n=$((n + 1))
    done < <(tr '\n' ' ' <"$REASONS" | grep -oE 'Q2_VET_REASON\([A-Z_]+, +"[a-z-]+", +[A-Z]+' |
        sed -E 's/.*"(.*)", +/\1 /')
    [ "$n" -ge 20 ]
}

one_error_of_allow() {
    run -1 --separate-stderr qcow2 vet --allow "$1" image.qcow2
    [ "${stderr_lines[0]}" = "qcow2: --allow does not take '$1'" ]
}

@test "the page has each reason of the table once, and says which can be allowed" {
    tr '\n' ' ' <"$REASONS" | grep -oE 'Q2_VET_REASON\([A-Z0-9_]+, +"[a-z-]+", +[A-Z]+' |
        sed -E 's/.*"(.*)", +/\1 /' | sort >table
    awk '/^\.SH REASONS/ { on = 1 } /^\.SH OUTPUT/ { on = 0 }
        on && /^\.TP/ { getline; sub("^[.]B ", ""); gsub(/\\/, ""); id = $0; allow[id] = "NEVER" }
        on && /^\.SS/ { id = "" }
        on && /Can be allowed/ && id { allow[id] = "ASKED" }
        END { for (id in allow) print id, allow[id] }' "$PAGE" | sort >page
    [ -s table ] && diff -u table page
}

@test "snapshots of a larger disk are too large, too" {
    sample
    must oracle snapshot -c one image.qcow2
    must qcow2 resize -q --shrink image.qcow2 512k
    accepted --max-virtual-size 1M --allow snapshots
    vetted 2 --max-virtual-size 512k --allow snapshots
    [ "$reasons" = virtual-size ]
    [ "$(jq -r '.reasons[0].message' json)" = \
        "The disk of snapshot 'one' has 1048576 bytes, more than 524288" ]
}

@test "compressed data is inflated last, and no two clusters have it from one place" {
    seq 10000 >disk.raw
    truncate -s 64k disk.raw
    must oracle convert -c -f raw -O qcow2 -o cluster_size=4k disk.raw image.qcow2
    cp image.qcow2 sound.qcow2
    first=$(imgtool l2 image.qcow2 0)
    put $((first & 0xffffffffff)) '\xff\xff'
    vetted 2
    [ "$reasons" = compressed-data-broken ]
    imgtool field image.qcow2 incompatible_features 1
    vetted 2
    [ "$reasons" = dirty ]
    # The second one is the first one again, or begins a byte behind it. The space that is
    # not used now is a part of a cluster: nothing is leaked.
    for entry in "$first" $((first + 1)); do
        cp sound.qcow2 image.qcow2
        imgtool l2 image.qcow2 4k "$(printf '0x%x' "$entry")"
        clean image.qcow2
        vetted 2
        [ "$reasons" = shared-clusters ] || fail "$(cat json)"
        [ "$(jq '.reasons[0].value' json)" -eq 1 ]
    done
}

# --- formats ----------------------------------------------------------------------------

@test "what begins or ends as an image of another format is neither qcow2 nor raw" {
    local format offset bytes
    while read -r format offset bytes; do
        zeros_but "$offset" "$bytes"
        vetted 2 -f raw
        [ "$reasons" = other-format ] || fail "$format: $(cat json)"
        jq -e --arg f "$format" '.reasons[0].message | endswith(" " + $f)' json >/dev/null ||
            fail "$format: $(cat json)"
        vetted 2
        [[ $reasons = *"$([ "$format" = qcow2 ] && echo version || echo format)" ]] ||
            fail "$format: $(cat json)"
    done <<'END'
qcow2 0 QFI\xfb\0\0\0\x1
qcow2 0 QFI\xfb\0\0\0\x9
qed 0 QED\0
vmdk 0 KDMV\x1\0\0\0
vmdk 0 #\x20Disk\x20DescriptorFile\n
vdi 64 \x7f\x10\xda\xbe
vpc 0 conectix
vhdx 0 vhdxfile
luks 0 LUKS\xba\xbe\0\2
vpc 1048064 conectix
vpc 1048065 conectix
dmg 1048064 koly
END
    for text in '#\n\n version=1\n' '# \0\xff\nversion=1\n\xff' '# x\ncid=1\nCREATEtype="monolithicFlat"\n'; do
        : >image.qcow2
        put 0 "$text"
        vetted 2 -f raw
        [ "$reasons" = other-format ] || fail "$text: $(cat json)"
    done
}

@test "a qcow2 image that is something else, too" {
    sample
    must qcow2 vet image.qcow2
    put 0x8001 NSR02 510 "$SIGNATURE"
    vetted 2 --allow iso
    [ "$reasons $allowed" = 'other-format iso' ]
}

@test "partition tables that make no sense" {
    local what
    local -A tables=(
        [flag]="446 ${BOOT/x80/x40}"
        [place]="446 ${GPT/2/1}"
        [sector]="446 ${GPT/'\1'/'\2'}"
        [second]="462 $GPT"
        [more]="446 $GPT$BOOT"
        [empty]="446 \\0"
    )
    for what in "${!tables[@]}"; do
        # shellcheck disable=SC2086
        zeros_but ${tables[$what]} 510 "$SIGNATURE"
        vetted 2 -f raw
        [ "$reasons" = partition-table ] || fail "$what: $(cat json)"
    done
}

# --- the file alone ---------------------------------------------------------------------

# The names of all files in this folder that a command opens.
opened() {
    python3 -S - "$@" <<'END'
import ctypes, os, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(os.O_NONBLOCK)
if fd < 0 or libc.inotify_add_watch(fd, b".", 0x20) < 0:  # IN_OPEN
    sys.exit("inotify: " + os.strerror(ctypes.get_errno()))
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, timeout=300)
events, names, at = os.read(fd, 1 << 16), set(), 0
while at < len(events):
    length = struct.unpack_from("iIII", events, at)[3]
    names.add(events[at + 16:at + 16 + length].rstrip(b"\0").decode())
    at += 16 + length
print(*sorted(names - {""}))
END
}

@test "nothing but the image is opened" {
    mkfifo data.fifo
    truncate -s 1M back.raw
    must qcow2 create -q -f qcow2 -b back.raw -F raw image.qcow2
    before=$(hash_of image.qcow2)
    # The watch sees what a command opens.
    [ "$(opened qcow2 map image.qcow2)" = 'back.raw image.qcow2' ]
    [ "$(opened qcow2 vet image.qcow2)" = image.qcow2 ]
    [ "$(hash_of image.qcow2)" = "$before" ]
    must oracle create -q -f qcow2 -o data_file=data.raw image.qcow2 1M
    [ "$(opened qcow2 vet --output=json image.qcow2)" = image.qcow2 ]
    rm data.raw
    mkfifo data.raw
    vetted 2
    [ "$reasons" = data-file ]
}

@test "what cannot be judged is an error of one line" {
    mkfifo pipe
    mkdir folder
    for file in pipe folder nosuch /dev/zero; do
        one_error 1 qcow2 vet "$file"
        message_has "Could not open '$file'"
    done
    one_error 1 qcow2 vet -f vmdk pipe
    message_has "Unknown driver 'vmdk'"
    sample
    hold_open image.qcow2
    run -1 --separate-stderr qcow2 vet image.qcow2 9>&-
    let_go
    [ -z "$output" ]
    [ "${stderr_lines[0]}" = \
        "qcow2: Could not open 'image.qcow2': Failed to get shared \"write\" lock" ]
    must qcow2 vet image.qcow2
}

@test "what cannot be read is an error, and no verdict" {
    command -v "${CC:-cc}" >/dev/null || skip "no C compiler"
    sample
    seq 10000 >disk.raw
    truncate -s 64k disk.raw
    must oracle convert -c -f raw -O qcow2 -o cluster_size=4k disk.raw packed.qcow2
    packed=$(($(imgtool l2 packed.qcow2 0) & 0xffffffffff))
    make_unreadable 0
    while read -r file offset; do
        export BAD_OFFSET=$((offset / 4096 * 4096))
        one_error 1 with_bad_disk qcow2 vet "$file"
        message_has "Could not open '$file'" 'Input/output error'
    done <<END
image.qcow2 0
image.qcow2 8192
image.qcow2 12288
image.qcow2 16384
packed.qcow2 $packed
END
}

# --- output -----------------------------------------------------------------------------

@test "the verdict as text" {
    sample
    [ "$(qcow2 vet image.qcow2)" = 'image.qcow2: accepted' ]
    must oracle snapshot -c one image.qcow2
    imgtool refcount image.qcow2 $((6 * 4096)) 0
    imgtool refcount image.qcow2 $((7 * 4096)) 0
    run -2 --separate-stderr qcow2 vet --allow snapshots,leaks image.qcow2
    [ -z "$stderr" ]
    diff -u - <(printf '%s\n' "$output") <<'END'
image.qcow2: rejected
    refcount-too-low: ERROR cluster 6 refcount=0 reference=2 (and 1 more)
Allowed:
    snapshots: The image has 1 internal snapshots: disks that nobody sees who looks at the image
END
}

@test "what an image says of itself does not reach the terminal as a command" {
    must oracle create -q -f qcow2 -u -b $'\e[31mx\n' -F raw image.qcow2 1M
    run -2 qcow2 vet image.qcow2
    [ "${lines[1]}" = "    backing-file: The image has a backing file: '\\x1b[31mx\\x0a'" ]
}

@test "the verdict as JSON" {
    sample
    imgtool field image.qcow2 incompatible_features 2
    imgtool refcount image.qcow2 $((6 * 4096)) 2
    size=$(stat -c %s image.qcow2)
    run -2 --separate-stderr qcow2 vet --output=json --allow leaks --max-file-size 64k image.qcow2
    diff -u - <(printf '%s\n' "$output") <<END
{
    "filename": "image.qcow2",
    "format": "qcow2",
    "accepted": false,
    "virtual-size": 1048576,
    "file-size": $size,
    "reasons": [
        {
            "id": "file-size",
            "message": "The file has $size bytes, more than 65536",
            "count": 1,
            "value": $size,
            "limit": 65536
        },
        {
            "id": "corrupt",
            "message": "The image is marked as corrupt",
            "count": 1
        },
        {
            "id": "copied-flag-data",
            "message": "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000006000 refcount=2",
            "count": 1,
            "problem": "copied-flag-data",
            "severity": "corruption",
            "repair": "safe",
            "host-offset": 24576,
            "size": 4096,
            "index": 1,
            "refcount": 2,
            "guest-offset": 4096,
            "guest-bytes": 4096,
            "entry": "0x8000000000006000",
            "lossy": false
        }
    ],
    "allowed": [
        {
            "id": "leaks",
            "message": "Leaked cluster 6 refcount=2 reference=1",
            "count": 1,
            "problem": "refcount-too-high",
            "severity": "leak",
            "repair": "leaks",
            "cluster": 6,
            "refcount": 2,
            "reference": 1
        }
    ]
}
END
}
