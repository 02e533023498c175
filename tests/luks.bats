#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Encrypted guest data: every cipher, mode, IV generator and hash that QEMU has, made by
# QEMU and used here, and the other way round; cryptsetup as the judge of the header.
# shellcheck disable=SC2030,SC2031

load helpers

SECRET=(--object "secret,id=sec0,data=passw0rd")

setup() {
    q2_setup
    PATH=$PATH:/usr/sbin # cryptsetup
}

# node IMAGE: how an encrypted image is named with its secret.
node() {
    echo "driver=qcow2,file.filename=$1,encrypt.key-secret=sec0"
}

# keyed PROGRAM COMMAND [OPTION...] IMAGE [IMAGE]: with the secret; names that do not end
# in .qcow2 are raw.
keyed() {
    local program=$1 command=$2 args=() arg
    shift 2
    for arg; do
        case $arg in
        *.qcow2) args+=("$(node "$arg")") ;;
        *.raw) args+=("driver=raw,file.filename=$arg") ;;
        *) args+=("$arg") ;;
        esac
    done
    "$program" "$command" "${SECRET[@]}" --image-opts "${args[@]}"
}

# fill PROGRAM RAW IMAGE
fill() {
    "$1" convert -n -f raw "${SECRET[@]}" --target-image-opts "$2" "$(node "$3")"
}

# Both read what is in RAW, and QEMU finds no fault.
right() {
    must keyed qemu-img compare "$1" "$2" || return 1
    must keyed oracle compare "$1" "$2" || return 1
    must keyed oracle check "$1"
}

# suite CIPHER MODE IVGEN HASH: create's options. IVGEN may have a hash behind a colon.
suite() {
    local options=encrypt.format=luks,encrypt.key-secret=sec0,encrypt.iter-time=10
    options+=,encrypt.cipher-alg=$1,encrypt.cipher-mode=$2,encrypt.ivgen-alg=${3%:*}
    case $3 in *:*) options+=,encrypt.ivgen-hash-alg=${3#*:} ;; esac
    echo "$options,encrypt.hash-alg=$4"
}

# header IMAGE OUT: the LUKS header and all key material.
header() {
    python3 -S - "$1" "$2" <<'EOF'
import struct, sys
with open(sys.argv[1], "rb") as file:
    start = file.read(65536)
    at = start.index(bytes.fromhex("0537be7700000010")) + 8
    offset, length = struct.unpack(">QQ", start[at:at + 16])
    file.seek(offset)
    open(sys.argv[2], "wb").write(file.read(length))
EOF
}

# format LUKS-OR-AES: create's options with the defaults.
format() {
    case $1 in
    luks) suite aes-256 xts plain64 sha256 ;;
    aes) echo encrypt.format=aes,encrypt.key-secret=sec0 ;;
    esac
}

SUITES=$(rows 'aes-128 xts plain64 sha256
aes-192 xts plain64 sha1
aes-256 xts plain64 sha512
aes-256 xts plain sha224
aes-128 cbc plain64 sha384
aes-256 cbc essiv:sha256 ripemd160
aes-128 cbc essiv:sha256 sha256
aes-128 cbc essiv:md5 md5
aes-256 cbc plain:sha1 sha256
aes-256 ctr plain64 sha256
aes-128 ecb plain64 sha256
serpent-128 xts plain64 sha256
serpent-256 cbc essiv:sha256 sha512
twofish-128 xts plain64 sha1
twofish-256 cbc plain64 sha256
cast5-128 cbc plain64 sha1' 'aes-256 xts plain64 sha256
aes-128 cbc essiv:sha256 sha1')

@test "LUKS images made by QEMU, of every cipher and hash, are read and written" {
    local cipher mode ivgen hash
    imgtool fill one.raw 1M --seed 1
    imgtool fill two.raw 1M --seed 2
    while read -r cipher mode ivgen hash; do
        echo "$cipher $mode $ivgen $hash"
        rm -f img.qcow2
        must with_clock "$ORACLE" create -q -f qcow2 "${SECRET[@]}" \
            -o "$(suite "$cipher" "$mode" "$ivgen" "$hash")" img.qcow2 1M
        must fill oracle one.raw img.qcow2
        must keyed qemu-img compare img.qcow2 one.raw
        must fill qemu-img two.raw img.qcow2
        right img.qcow2 two.raw
    done <<<"$SUITES"
}

@test "LUKS images made here are read by QEMU, and cryptsetup opens their headers" {
    local cipher mode ivgen hash
    imgtool fill one.raw 1M --seed 1
    imgtool fill two.raw 1M --seed 2
    while read -r cipher mode ivgen hash; do
        echo "$cipher $mode $ivgen $hash"
        rm -f img.qcow2
        must qemu-img create -q -f qcow2 "${SECRET[@]}" \
            -o "$(suite "$cipher" "$mode" "$ivgen" "$hash")" img.qcow2 1M
        must fill qemu-img one.raw img.qcow2
        right img.qcow2 one.raw
        must fill oracle two.raw img.qcow2
        must keyed qemu-img compare img.qcow2 two.raw
        [ "$hash" != md5 ] || continue # which cryptsetup does not take
        header img.qcow2 header.bin
        cryptsetup luksDump header.bin >dump
        grep -q "^Cipher name:[[:space:]]*${cipher%%-*}\$" dump
        grep -q "^Cipher mode:[[:space:]]*$mode-$ivgen\$" dump
        grep -q "^Hash spec:[[:space:]]*$hash\$" dump
        [ "$(grep -c '^Key Slot [0-7]: ENABLED' dump)" -eq 1 ]
    done <<<"$SUITES"
}

# The key slot is unlocked by cryptsetup's own code, which shares nothing with ours.
@test "cryptsetup unlocks a header made here, with the right passphrase alone" {
    must qemu-img create -q -f qcow2 "${SECRET[@]}" \
        -o "$(format luks)" img.qcow2 1M
    header img.qcow2 header.bin
    printf passw0rd | must cryptsetup open --test-passphrase --key-file - header.bin
    printf passw0re | must_exit 2 cryptsetup open --test-passphrase --key-file - header.bin
}

@test "what libgcrypt has and QEMU 7.2 has not works with itself" {
    imgtool fill one.raw 1M --seed 1
    must qemu-img create -q -f qcow2 "${SECRET[@]}" -o "$(suite sm4 xts plain64 sm3)" \
        img.qcow2 1M
    must fill qemu-img one.raw img.qcow2
    must keyed qemu-img compare img.qcow2 one.raw
    header img.qcow2 header.bin
    cryptsetup luksDump header.bin | grep -q 'sm4'
}

@test "legacy AES: long and short passphrases, made by QEMU and here" {
    local pass maker
    imgtool fill one.raw 1M --seed 1
    for pass in x sixteen-bytes-16 a-passphrase-of-more-than-16-bytes 'grün'; do
        SECRET=(--object "secret,id=sec0,data=$pass")
        for maker in qemu-img oracle; do
            rm -f img.qcow2
            must $maker create -q -f qcow2 "${SECRET[@]}" \
                -o "$(format aes)" img.qcow2 1M
            must fill $maker one.raw img.qcow2
            right img.qcow2 one.raw
        done
    done
}

# Guest data that stand in the file as they are would be no secret.
@test "nothing of the guest stands in the file in the clear" {
    local format
    printf '%065536d' 0 >plain.raw # 64 KiB of '0'
    truncate -s 1M plain.raw
    for format in luks aes; do
        rm -f img.qcow2
        must qemu-img create -q -f qcow2 "${SECRET[@]}" \
            -o "$(format $format)" img.qcow2 1M
        must fill qemu-img plain.raw img.qcow2
        right img.qcow2 plain.raw
        must_exit 1 grep -q -a 00000000000000000000000000000000 img.qcow2
        must_exit 1 grep -q -a passw0rd img.qcow2
    done
}

@test "io and qemu-io take turns on encrypted images of all kinds" {
    local format kind options images=()
    imgtool fill base.raw 2M --seed 9
    for format in luks aes; do
        options=$(format $format)
        for kind in cluster_size=512 cluster_size=64k compat=0.10 \
            extended_l2=on,cluster_size=16k preallocation=metadata backed; do
            images+=("$format-${kind//[,=]/-}.qcow2")
            case $kind in
            backed) must qemu-img create -q -f qcow2 "${SECRET[@]}" -o "$options" \
                -b base.raw -F raw "${images[-1]}" 3M ;;
            *) must qemu-img create -q -f qcow2 "${SECRET[@]}" -o "$options,$kind" \
                "${images[-1]}" 3M ;;
            esac
        done
    done
    must python3 "$BATS_TEST_DIRNAME/crash/turns.py" --turns "$(rows 4 2)" \
        --judge-every 4 --passphrase passw0rd "${images[@]}"
}

# In QEMU it reads as whatever zeros decrypt to; and so does ours in QEMU, were they not
# marked.
@test "preallocated encrypted disks read as zeros" {
    local mode compat format
    truncate -s 1100288 zero.raw
    for format in luks aes; do
        for compat in v2 v3; do
            for mode in metadata falloc full; do
                rm -f img.qcow2
                must qemu-img create -q -f qcow2 "${SECRET[@]}" \
                    -o "compat=$compat,preallocation=$mode,$(format $format)" img.qcow2 1100288
                right img.qcow2 zero.raw
            done
        done
    done
}

@test "a chain of encrypted layers, each with a secret of its own" {
    local secrets=(--object "secret,id=s0,data=zero" --object "secret,id=s1,data=one")
    local chain="driver=qcow2,file.filename=top.qcow2,encrypt.key-secret=s1"
    imgtool fill one.raw 1M --seed 1
    must qemu-img create -q -f qcow2 "${secrets[@]}" \
        -o encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10 base.qcow2 1M
    must qemu-img convert -n -f raw "${secrets[@]}" --target-image-opts one.raw \
        driver=qcow2,file.filename=base.qcow2,encrypt.key-secret=s0
    must qemu-img create -q -u -f qcow2 "${secrets[@]}" -b base.qcow2 -F qcow2 \
        -o encrypt.format=luks,encrypt.key-secret=s1,encrypt.iter-time=10 top.qcow2 1M
    must qemu-img compare "${secrets[@]}" --image-opts \
        "$chain,backing.encrypt.key-secret=s0" driver=raw,file.filename=one.raw
    # A part of a sector, the rest of its cluster copied up.
    must qemu-img io "${secrets[@]}" --image-opts -c 'write -P 7 70000 100' \
        "$chain,backing.encrypt.key-secret=s0"
    must qemu-io -f raw -c 'write -P 7 70000 100' one.raw
    must oracle compare "${secrets[@]}" --image-opts \
        "$chain,backing.driver=qcow2,backing.file.filename=base.qcow2,backing.encrypt.key-secret=s0" \
        driver=raw,file.filename=one.raw
    # The base is opened once more for that, with the key that is there.
    cp top.qcow2 overlay.qcow2
    must qemu-img commit "${secrets[@]}" --image-opts "$chain,backing.encrypt.key-secret=s0"
    must oracle compare "${secrets[@]}" --image-opts driver=raw,file.filename=one.raw \
        driver=qcow2,file.filename=base.qcow2,encrypt.key-secret=s0
    cp overlay.qcow2 top.qcow2
    one_error 1 qemu-img map "${secrets[@]}" --image-opts "$chain"
    message_has "Parameter 'encrypt.key-secret' is required for cipher"
    one_error 1 qemu-img map "${secrets[@]}" --image-opts \
        "$chain,backing.encrypt.key-secret=s1"
    message_has 'Invalid password, cannot unlock any keyslot'
}

# Sectors of an external data file are numbered by where they lie in it.
@test "encrypted guest data in an external data file, written by QEMU and here in turns" {
    local format maker
    imgtool fill one.raw 1M --seed 1
    for format in luks aes; do
        for maker in qemu-img oracle; do
            rm -f img.qcow2 img.data
            must with_clock "$maker" create -q -f qcow2 "${SECRET[@]}" \
                -o "$(format $format),data_file=img.data" img.qcow2 1M
            must fill qemu-img one.raw img.qcow2
            right img.qcow2 one.raw
            must_exit 1 cmp -s img.data one.raw
            must python3 "$BATS_TEST_DIRNAME/crash/turns.py" --turns "$(rows 4 2)" \
                --judge-every 4 --passphrase passw0rd img.qcow2
        done
    done
}

# What libgcrypt locks is an anonymous mapping; what is freed is wiped.
@test "the passphrase and the key lie in secure memory alone" {
    local mode key
    printf 'S3cretP4ssPhrase' >pass
    SECRET=(--object "secret,id=sec0,file=pass")
    for mode in 'xts plain64' 'cbc essiv:sha256'; do
        rm -f img.qcow2
        # shellcheck disable=SC2086
        must qemu-img create -q -f qcow2 "${SECRET[@]}" -o "$(suite aes-256 $mode sha256)" \
            img.qcow2 4M
        header img.qcow2 header.bin
        key=$(cryptsetup luksDump --dump-master-key --batch-mode --key-file pass header.bin |
            sed -n -e '/^MK dump:/,$p' | sed -e 's/^MK dump://' | tr -cd 0-9a-f)
        python3 -S "$BATS_TEST_DIRNAME/tools/secret_places.py" img.qcow2 pass "$key" >places
        sort -u places
        grep -q '^passphrase anonymous$' places
        grep -q '^key anonymous$' places
        must_exit 1 grep -v ' anonymous$' places
    done
}

@test "memory that cannot be locked is no matter" {
    luks_image img.qcow2
    (ulimit -l 0 && keyed qemu-img map img.qcow2) >out 2>stderr
    [ ! -s stderr ]
}

# --- damage -----------------------------------------------------------------------------

# poke_luks OFFSET HEX: into the LUKS header.
poke_luks() {
    python3 -S - img.qcow2 "$1" "$2" <<'EOF'
import struct, sys
with open(sys.argv[1], "r+b") as file:
    start = file.read(65536)
    at = start.index(bytes.fromhex("0537be7700000010")) + 8
    file.seek(struct.unpack(">Q", start[at:at + 8])[0] + int(sys.argv[2]))
    file.write(bytes.fromhex(sys.argv[3]))
EOF
}

@test "damaged LUKS headers are refused, never written, and no secret is asked in vain" {
    local at hex part
    luks_image keep.qcow2
    while read -r at hex part; do
        echo "$at $hex"
        cp keep.qcow2 img.qcow2
        poke_luks "$at" "$hex"
        cp img.qcow2 before.qcow2
        one_error 1 keyed qemu-img map img.qcow2
        message_has "$part"
        one_error 1 fill qemu-img keep.qcow2 img.qcow2
        message_has "$part"
        same_bytes img.qcow2 before.qcow2
    done <<'EOF'
0 00 not in LUKS format
6 0002 LUKS version 2 is not supported
8 78 Algorithm 'xes' with key size 32 bytes not supported
40 666f6f Cipher mode 'foo' not supported
72 666f6f0000 Hash algorithm 'foo' not supported
104 00000001 overlapping
108 00000041 key length 65
112 00 Invalid password
132 0000000000000000 Invalid password
164 00000000 iteration count is zero
208 00000001 Keyslot 0 state
208 0000dead Invalid password
212 00000001 Invalid password
248 7fffffff Keyslot 0 is overlapping
252 00000001 Keyslot 0 is corrupted
4096 00000000 Invalid password
EOF
}

@test "a LUKS header that lies elsewhere: no key material is looked for outside of it" {
    luks_image img.qcow2
    # The extension's length: shorter than what the slots need.
    python3 -S - <<'EOF'
with open("img.qcow2", "r+b") as file:
    at = file.read(65536).index(bytes.fromhex("0537be7700000010")) + 16
    file.seek(at)
    file.write((4096).to_bytes(8, "big"))
EOF
    one_error 1 keyed qemu-img map img.qcow2
    message_has 'lies outside of the encryption header \(4096 bytes\)'
}

@test "guest data never go over the LUKS header, whatever an entry says" {
    local offset
    luks_image img.qcow2
    must keyed qemu-img io -c 'write -P 1 0 64k' img.qcow2
    offset=$(python3 -S -c 'd = open("img.qcow2", "rb").read(65536)
at = d.index(bytes.fromhex("0537be7700000010")) + 8
print(hex(int.from_bytes(d[at:at + 8], "big") | 1 << 63))')
    imgtool l2 img.qcow2 0 "$offset"
    header img.qcow2 before.bin
    must_exit 1 keyed qemu-img io -c 'write -P 2 0 64k' img.qcow2
    header img.qcow2 after.bin
    same_bytes before.bin after.bin
}
