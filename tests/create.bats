#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# create: what it prints, what it refuses, and that nothing is left of what it refused.

load helpers

setup() {
    q2_setup
}

@test "new images, as in the transcripts" {
    replay <<'EOF'
$ qemu-img create -f qcow2 a.qcow2 64M
Formatting 'a.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=67108864 lazy_refcounts=off refcount_bits=16
[exit 0]

$ qemu-img create -q -f qcow2 q.qcow2 64M
[exit 0]

$ qemu-img create -f qcow2 b.qcow2 1.5G -o cluster_size=4k,lazy_refcounts=on,refcount_bits=8
Formatting 'b.qcow2', fmt=qcow2 cluster_size=4096 extended_l2=off compression_type=zlib size=1610612736 lazy_refcounts=on refcount_bits=8
[exit 0]

$ qemu-img create -f qcow2 -o compat=0.10 v2.qcow2 64M
Formatting 'v2.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=67108864 compat=0.10 lazy_refcounts=off refcount_bits=16
[exit 0]

$ qemu-img create -f qcow2 -o extended_l2=on ext.qcow2 64M
Formatting 'ext.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=on compression_type=zlib size=67108864 lazy_refcounts=off refcount_bits=16
[exit 0]

$ qemu-img create -f qcow2 -o compression_type=zstd z.qcow2 64M
Formatting 'z.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zstd size=67108864 lazy_refcounts=off refcount_bits=16
[exit 0]

$ qemu-img create -f qcow2 -o data_file=ext.raw,data_file_raw=on df.qcow2 64M
Formatting 'df.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=67108864 data_file=ext.raw data_file_raw=on lazy_refcounts=off refcount_bits=16
[exit 0]

$ qemu-img create -f qcow2 -o preallocation=metadata pm.qcow2 64M
Formatting 'pm.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off preallocation=metadata compression_type=zlib size=67108864 lazy_refcounts=off refcount_bits=16
[exit 0]

$ qemu-img create -f qcow2 -o preallocation=falloc pf.qcow2 4M
Formatting 'pf.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off preallocation=falloc compression_type=zlib size=4194304 lazy_refcounts=off refcount_bits=16
[exit 0]

$ qemu-img create -f qcow2 -o preallocation=full pfu.qcow2 4M
Formatting 'pfu.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off preallocation=full compression_type=zlib size=4194304 lazy_refcounts=off refcount_bits=16
[exit 0]

$ qemu-img create -f qcow2 x.qcow2 1000
Formatting 'x.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=1000 lazy_refcounts=off refcount_bits=16
[exit 0]

$ qemu-img create -f qcow2 -b a.qcow2 -F qcow2 over.qcow2
Formatting 'over.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=67108864 backing_file=a.qcow2 backing_fmt=qcow2 lazy_refcounts=off refcount_bits=16
[exit 0]

$ qemu-img create -f qcow2 -b a.qcow2 -F qcow2 over2.qcow2 128M
Formatting 'over2.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=134217728 backing_file=a.qcow2 backing_fmt=qcow2 lazy_refcounts=off refcount_bits=16
[exit 0]

$ qemu-img create -f qcow2 -u -b missing.qcow2 -F qcow2 orphan.qcow2 64M
Formatting 'orphan.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=67108864 backing_file=missing.qcow2 backing_fmt=qcow2 lazy_refcounts=off refcount_bits=16
[exit 0]

$ qemu-img create -f raw r.raw 16M
Formatting 'r.raw', fmt=raw size=16777216
[exit 0]
EOF
    local image
    rm orphan.qcow2
    for image in ./*.qcow2; do clean "$image"; done
    [ "$(stat -c %s r.raw)" -eq 16777216 ]
}

@test "refusals, as in the transcripts; nothing is left" {
    must oracle create -f qcow2 a.qcow2 64M
    replay <<'EOF'
$ qemu-img create -f qcow2 -o compat=0.10,lazy_refcounts=on x.qcow2 64M
Formatting 'x.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=67108864 compat=0.10 lazy_refcounts=on refcount_bits=16
stderr: qemu-img: x.qcow2: Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)
[exit 1]

$ qemu-img create -f qcow2 -o compat=0.42 x.qcow2 64M
Formatting 'x.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=67108864 compat=0.42 lazy_refcounts=off refcount_bits=16
stderr: qemu-img: x.qcow2: Parameter 'version' does not accept value '0.42'
[exit 1]

$ qemu-img create -f qcow2 -o cluster_size=1000 x.qcow2 64M
Formatting 'x.qcow2', fmt=qcow2 cluster_size=1000 extended_l2=off compression_type=zlib size=67108864 lazy_refcounts=off refcount_bits=16
stderr: qemu-img: x.qcow2: Cluster size must be a power of two between 512 and 2048k
[exit 1]

$ qemu-img create -f qcow2 -o cluster_size=4M x.qcow2 64M
Formatting 'x.qcow2', fmt=qcow2 cluster_size=4194304 extended_l2=off compression_type=zlib size=67108864 lazy_refcounts=off refcount_bits=16
stderr: qemu-img: x.qcow2: Cluster size must be a power of two between 512 and 2048k
[exit 1]

$ qemu-img create -f qcow2 -o refcount_bits=7 x.qcow2 64M
Formatting 'x.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=67108864 lazy_refcounts=off refcount_bits=7
stderr: qemu-img: x.qcow2: Refcount width must be a power of two and may not exceed 64 bits
[exit 1]

$ qemu-img create -f qcow2 -o compat=0.10,refcount_bits=8 x.qcow2 64M
Formatting 'x.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=67108864 compat=0.10 lazy_refcounts=off refcount_bits=8
stderr: qemu-img: x.qcow2: Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)
[exit 1]

$ qemu-img create -f qcow2 -o extended_l2=on,cluster_size=4k x.qcow2 64M
Formatting 'x.qcow2', fmt=qcow2 cluster_size=4096 extended_l2=on compression_type=zlib size=67108864 lazy_refcounts=off refcount_bits=16
stderr: qemu-img: x.qcow2: Extended L2 entries are only supported with cluster sizes of at least 16384 bytes
[exit 1]

$ qemu-img create -f qcow2 -o compression_type=lzma x.qcow2 64M
Formatting 'x.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=lzma size=67108864 lazy_refcounts=off refcount_bits=16
stderr: qemu-img: x.qcow2: Parameter 'compression-type' does not accept value 'lzma'
[exit 1]

$ qemu-img create -f qcow2 -o preallocation=bogus x.qcow2 4M
Formatting 'x.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off preallocation=bogus compression_type=zlib size=4194304 lazy_refcounts=off refcount_bits=16
stderr: qemu-img: x.qcow2: Parameter 'preallocation' does not accept value 'bogus'
[exit 1]

$ qemu-img create -f qcow2 -o nosuch=on x.qcow2 4M
stderr: qemu-img: x.qcow2: Invalid parameter 'nosuch'
[exit 1]

$ qemu-img create -f qcow2 x.qcow2
stderr: qemu-img: x.qcow2: Image creation needs a size parameter
[exit 1]

$ qemu-img create -f qcow2 x.qcow2 12X
stderr: qemu-img: Invalid image size specified: '12X'
[exit 1]

$ qemu-img create -f qcow2 x.qcow2 -1
stderr: qemu-img create: invalid option -- '1'
stderr: Try 'qemu-img create --help' for more information
[exit 1]

$ qemu-img create -f qcow2 x.qcow2 8E
stderr: qemu-img: Invalid image size specified. Must be between 0 and 9223372036854775807.
[exit 1]

$ qemu-img create -f qcow2 -b a.qcow2 x.qcow2
stderr: qemu-img: x.qcow2: Backing file specified without backing format
stderr: Detected format of qcow2.
[exit 1]

$ qemu-img create -f qcow2 -b missing.qcow2 -F qcow2 x.qcow2
stderr: qemu-img: x.qcow2: Could not open 'missing.qcow2': No such file or directory
stderr: Could not open backing image.
[exit 1]

$ qemu-img create -f nosuch x 1M
stderr: qemu-img: x: Unknown file format 'nosuch'
[exit 1]

$ qemu-img create
stderr: qemu-img: Expecting image file name
stderr: Try 'qemu-img create --help' for more information
[exit 1]
EOF
    absent x x.qcow2
}

@test "-o help" {
    replay <<'EOF'
$ qemu-img create -f qcow2 -o help
Supported qcow2 options:
  backing_file=<str>     - File name of a base image
  backing_fmt=<str>      - Image format of the base image
  cluster_size=<size>    - qcow2 cluster size
  compat=<str>           - Compatibility level (v2 [0.10] or v3 [1.1])
  compression_type=<str> - Compression method used for image cluster compression
  data_file=<str>        - File name of an external data file
  data_file_raw=<bool (on/off)> - The external data file must stay valid as a raw image
  encrypt.cipher-alg=<str> - Name of encryption cipher algorithm
  encrypt.cipher-mode=<str> - Name of encryption cipher mode
  encrypt.format=<str>   - Encrypt the image, format choices: 'aes', 'luks'
  encrypt.hash-alg=<str> - Name of encryption hash algorithm
  encrypt.iter-time=<num> - Time to spend in PBKDF in milliseconds
  encrypt.ivgen-alg=<str> - Name of IV generator algorithm
  encrypt.ivgen-hash-alg=<str> - Name of IV generator hash algorithm
  encrypt.key-secret=<str> - ID of secret providing qcow AES key or LUKS passphrase
  encryption=<bool (on/off)> - Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)
  extended_l2=<bool (on/off)> - Extended L2 tables
  lazy_refcounts=<bool (on/off)> - Postpone refcount updates
  preallocation=<str>    - Preallocation mode (allowed values: off, metadata, falloc, full)
  refcount_bits=<num>    - Width of a reference count entry in bits
  size=<size>            - Virtual disk size

The protocol level may support further options.
Specify the target filename to include those options.
[exit 0]
EOF
}

@test "a refusal leaves an existing file as it was" {
    head -c 3000 /dev/urandom >old
    local before
    before=$(hash_of old)
    must_exit 1 qemu-img create -f qcow2 -o cluster_size=1000 old 64M
    must_exit 1 qemu-img create -f qcow2 -o compat=0.10,lazy_refcounts=on old 64M
    must_exit 1 qemu-img create -f qcow2 -o nosuch=on old 64M
    must_exit 1 qemu-img create -f qcow2 -b missing -F raw old
    must_exit 1 qemu-img create -f qcow2 old 12X
    must_exit 1 qemu-img create -f qcow2 -o encrypt.format=luks old 64M
    must_exit 1 qemu-img create -f nosuch old 64M
    [ "$(hash_of old)" = "$before" ]
}

@test "sizes: suffixes, fractions and hexadecimal, as QEMU takes them" {
    local size
    for size in 0 1 511 512 513 1000 64k 64K 64m 64M 1.5G 0.5k 1.25M 2T 100G 1b 4096b 0x1000 \
        0x10 1.0 3.7k 1.0001M 007 1P; do
        echo "size $size"
        rm -f a.qcow2 b.qcow2 a.raw b.raw
        local code=0
        "$ORACLE" create -f qcow2 -o cluster_size=2M a.qcow2 "$size" >want 2>err || code=$?
        sed -i s/a.qcow2/b.qcow2/ want
        must_exit "$code" qemu-img create -f qcow2 -o cluster_size=2M b.qcow2 "$size"
        if [ "$code" -eq 0 ]; then
            rm b.qcow2
            qemu-img create -f qcow2 -o cluster_size=2M b.qcow2 "$size" | diff want -
            must cmp -i 24 -n 8 a.qcow2 b.qcow2
        fi
    done
    # A raw file is as long as QEMU's, rounded up to sectors in the same way.
    for size in 0 1 513 64k 1.25M 3G; do
        rm -f a.raw b.raw
        must oracle create -f raw a.raw "$size"
        must qemu-img create -f raw b.raw "$size"
        [ "$(stat -c %s a.raw)" = "$(stat -c %s b.raw)" ]
    done
}

@test "sizes that are none" {
    local size
    for size in 12X 1.5 k 64MB '64 M' M 1e3 0x 0x1.8 1..5k 16EE 'five' ''; do
        one_error 1 qemu-img create -f qcow2 x.qcow2 "$size"
        message_has "Invalid image size specified: '$size'"
        absent x.qcow2
    done
    # 2^63 bytes and more.
    for size in 8E 16E 9223372036854775808 18446744073709551616 99999999999999999999P; do
        must_exit 1 qemu-img create -f raw x.raw "$size"
        absent x.raw
    done
}

@test "too large for the L1 table" {
    one_error 1 qemu-img create -q -f qcow2 -o cluster_size=512 x.qcow2 1T
    message_has 'x.qcow2: '
    absent x.qcow2
    # The largest that 512-byte clusters can hold, and a sector more.
    must qemu-img create -f qcow2 -o cluster_size=512 y.qcow2 128G
    clean y.qcow2
    must_exit 1 qemu-img create -f qcow2 -o cluster_size=512 x.qcow2 137438953984
    absent x.qcow2
}

@test "the size can come through -o, and from the backing file" {
    replay <<'EOF'
$ qemu-img create -f qcow2 -o size=32M a.qcow2
Formatting 'a.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=33554432 lazy_refcounts=off refcount_bits=16
[exit 0]
EOF
    truncate -s 1000 odd.raw
    must qemu-img create -f qcow2 -b odd.raw -F raw over.qcow2
    [ "$(imgtool field over.qcow2 size)" -eq 1024 ]
    must qemu-img create -f qcow2 -o backing_file=a.qcow2,backing_fmt=qcow2 over2.qcow2
    [ "$(imgtool field over2.qcow2 size)" -eq 33554432 ]
    oracle info over2.qcow2 | grep -qx 'backing file: a.qcow2'
    oracle info over2.qcow2 | grep -qx 'backing file format: qcow2'
}

@test "versions by all their names" {
    local name want
    for name in 0.10:2 v2:2 1.1:3 v3:3; do
        rm -f a.qcow2
        must qemu-img create -f qcow2 -o "compat=${name%:*}" a.qcow2 1M
        want=${name#*:}
        [ "$(imgtool field a.qcow2 version)" -eq "$want" ]
        clean a.qcow2
    done
}

@test "options: given twice, in several -o, with suffixes, with other words for on and off" {
    must qemu-img create -f qcow2 -o cluster_size=4k -o lazy_refcounts=on,refcount_bits=8 \
        -o refcount_bits=32 a.qcow2 1M
    [ "$(imgtool field a.qcow2 cluster_bits)" -eq 12 ]
    [ "$(imgtool field a.qcow2 compatible_features)" -eq 1 ]
    [ "$(imgtool field a.qcow2 refcount_order)" -eq 5 ]
    local word code
    for word in on off yes no true false y n; do
        rm -f a.qcow2 b.qcow2
        code=0
        "$ORACLE" create -q -f qcow2 -o "lazy_refcounts=$word" a.qcow2 1M 2>/dev/null || code=$?
        must_exit "$code" qemu-img create -f qcow2 -o "lazy_refcounts=$word" b.qcow2 1M
        if [ "$code" -eq 0 ]; then
            [ "$(imgtool field a.qcow2 compatible_features)" -eq \
                "$(imgtool field b.qcow2 compatible_features)" ]
        fi
    done
}

@test "names with commas, and an option value with a doubled comma" {
    truncate -s 1M 'a,b.raw'
    must qemu-img create -f qcow2 -b 'a,b.raw' -F raw over.qcow2
    [ "$(oracle info --output=json over.qcow2 | python3 -c \
        'import json,sys; print(json.load(sys.stdin)["backing-filename"])')" = 'a,b.raw' ]
    rm over.qcow2
    must qemu-img create -f qcow2 -o 'backing_file=a,,b.raw,backing_fmt=raw' over.qcow2
    [ "$(oracle info --output=json over.qcow2 | python3 -c \
        'import json,sys; print(json.load(sys.stdin)["backing-filename"])')" = 'a,b.raw' ]
}

@test "a backing file name of 1023 bytes, and of 1024" {
    local name
    name=$(printf 'd/%.0s' {1..510})x.r
    [ ${#name} -eq 1023 ]
    must qemu-img create -f qcow2 -u -b "$name" -F raw long.qcow2 1M
    [ "$(imgtool field long.qcow2 backing_file_size)" -eq 1023 ]
    must_exit 1 qemu-img create -f qcow2 -u -b "y$name" -F raw longer.qcow2 1M
    absent longer.qcow2
    # A header that must fit into one cluster of 512 bytes.
    must_exit 1 qemu-img create -f qcow2 -o cluster_size=512 -u -b "$name" -F raw longer.qcow2 1M
    absent longer.qcow2
}

@test "a raw file takes no options of qcow2" {
    must_exit 1 qemu-img create -f raw -o cluster_size=4k x.raw 1M
    must_exit 1 qemu-img create -f raw -b a -F raw x.raw 1M
    absent x.raw
}

@test "an existing image that is open for writing is not replaced" {
    must oracle create -f qcow2 busy.qcow2 1M
    local before
    hold_open busy.qcow2
    before=$(hash_of busy.qcow2)
    must_exit 1 qemu-img create -f qcow2 busy.qcow2 2M
    [ "$(hash_of busy.qcow2)" = "$before" ]
    let_go
    [ "$(imgtool field busy.qcow2 size)" -eq 1048576 ]
    clean busy.qcow2
}

@test "a target in a folder that is not there" {
    one_error 1 qemu-img create -q -f qcow2 no/such/x.qcow2 1M
    message_has 'no/such/x.qcow2' 'No such file or directory'
    one_error 1 qemu-img create -q -f raw no/such/x.raw 1M
    message_has 'no/such/x.raw' 'No such file or directory'
}
