# SPDX-License-Identifier: MIT
# The files that the command lines of the tables speak of, into the current folder, made by
# QEMU. Called with the helpers of the tests loaded.
#
# shellcheck shell=bash disable=SC2154

differential_files() {
    mkdir dir
    : >empty
    echo 'This is no disk image.' >text
    python3 -c 'import sys
for i in range(2048): sys.stdout.buffer.write(bytes([(i * 7 + 1) % 255 + 1]) * 512)' >r.raw
    truncate -s 4M r.raw
    cp r.raw same.raw
    cp r.raw diff.raw
    printf x | dd of=diff.raw bs=1 seek=777777 conv=notrunc status=none
    head -c 2M r.raw >short.raw
    cp r.raw longer.raw
    truncate -s 6M longer.raw
    local name options
    while read -r name options; do
        must oracle create -q -f qcow2 ${options:+-o "$options"} "$name.qcow2" 4M || return 1
        must qemu-io -f qcow2 -c 'write -P 1 0 300k' -c 'write -z 1M 128k' \
            -c 'write -P 2 2052k 60k' -c 'write -P 3 3M 4k' "$name.qcow2" || return 1
    done <<'EOF'
a
base
s
bm
inuse
leak
corrupt
dirty lazy_refcounts=on
marked
cut
v2 compat=0.10
z compression_type=zstd
ext extended_l2=on
df data_file=df.data
EOF
    cp a.qcow2 ./-a.qcow2
    must oracle convert -c -O qcow2 a.qcow2 c.qcow2
    for name in one two; do
        must oracle snapshot -c "$name" s.qcow2
        must qemu-io -f qcow2 -c "write -P 9 ${#name}M 100k" s.qcow2
    done
    must oracle bitmap --add -g 64k bm.qcow2 b0
    must oracle bitmap --add --disable bm.qcow2 b1
    must qemu-io -f qcow2 -c 'write -P 7 1M 100k' bm.qcow2
    must oracle bitmap --add inuse.qcow2 b0
    imgtool bitmap inuse.qcow2 0 flags 3
    imgtool refcount leak.qcow2 0x50000 3
    imgtool refcount corrupt.qcow2 0x50000 0
    imgtool field dirty.qcow2 incompatible_features 1
    imgtool field marked.qcow2 incompatible_features 2
    truncate -s 400k cut.qcow2
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2
    must qemu-io -f qcow2 -c 'write -P 11 64k 64k' -c 'write -z 256k 64k' over.qcow2
    must oracle create -q -f qcow2 -b over.qcow2 -F qcow2 over2.qcow2 5M
    must qemu-io -f qcow2 -c 'write -P 12 128k 64k' over2.qcow2
    must oracle create -q -f qcow2 -b over2.qcow2 -F qcow2 top.qcow2
    must qemu-io -f qcow2 -c 'write -P 13 4500k 64k' top.qcow2
    must oracle create -q -f qcow2 -b r.raw -F raw onraw.qcow2
    must qemu-io -f qcow2 -c 'write -P 14 1M 64k' onraw.qcow2
    must oracle create -q -f qcow2 -u -b nosuch -F raw broken-chain.qcow2 4M
    for name in luks aes; do
        must with_clock "$ORACLE" create -q -f qcow2 --object secret,id=s,data=pass -o \
            "encrypt.format=$name,encrypt.key-secret=s$([ $name = aes ] || echo ,encrypt.iter-time=10)" \
            "$name.qcow2" 4M
    done
}
