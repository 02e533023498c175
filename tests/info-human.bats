#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# info for people, character by character as in QEMU's transcripts.

load helpers

setup() {
    q2_setup
}

@test "images of all kinds" {
    transcript_images
    luks_image luks.qcow2
    replay <<'EOF'
$ qemu-img info a.qcow2
image: a.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 1.32 MiB
cluster_size: 65536
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    corrupt: false
    extended l2: false
Child node '/file':
    filename: a.qcow2
    protocol type: file
    file length: 1.44 MiB (1507328 bytes)
    disk size: 1.32 MiB
[exit 0]

$ qemu-img info v2.qcow2
image: v2.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 196 KiB
cluster_size: 65536
Format specific information:
    compat: 0.10
    compression type: zlib
    refcount bits: 16
Child node '/file':
    filename: v2.qcow2
    protocol type: file
    file length: 192 KiB (197120 bytes)
    disk size: 196 KiB
[exit 0]

$ qemu-img info b.qcow2
image: b.qcow2
file format: qcow2
virtual size: 1.5 GiB (1610612736 bytes)
disk size: 20 KiB
cluster_size: 4096
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: true
    refcount bits: 8
    corrupt: false
    extended l2: false
Child node '/file':
    filename: b.qcow2
    protocol type: file
    file length: 18 KiB (18432 bytes)
    disk size: 20 KiB
[exit 0]

$ qemu-img info ext.qcow2
image: ext.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 196 KiB
cluster_size: 65536
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    corrupt: false
    extended l2: true
Child node '/file':
    filename: ext.qcow2
    protocol type: file
    file length: 192 KiB (197120 bytes)
    disk size: 196 KiB
[exit 0]

$ qemu-img info z.qcow2
image: z.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 196 KiB
cluster_size: 65536
Format specific information:
    compat: 1.1
    compression type: zstd
    lazy refcounts: false
    refcount bits: 16
    corrupt: false
    extended l2: false
Child node '/file':
    filename: z.qcow2
    protocol type: file
    file length: 192 KiB (197120 bytes)
    disk size: 196 KiB
[exit 0]

$ qemu-img info df.qcow2
image: df.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 260 KiB
cluster_size: 65536
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    data file: ext.raw
    data file raw: true
    corrupt: false
    extended l2: false
Child node '/file':
    filename: df.qcow2
    protocol type: file
    file length: 320 KiB (327680 bytes)
    disk size: 260 KiB
[exit 0]

$ qemu-img info over.qcow2
image: over.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 324 KiB
cluster_size: 65536
backing file: a.qcow2
backing file format: qcow2
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    corrupt: false
    extended l2: false
Child node '/file':
    filename: over.qcow2
    protocol type: file
    file length: 384 KiB (393216 bytes)
    disk size: 324 KiB
[exit 0]

$ qemu-img info orphan.qcow2
image: orphan.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 196 KiB
cluster_size: 65536
backing file: missing.qcow2
backing file format: qcow2
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    corrupt: false
    extended l2: false
Child node '/file':
    filename: orphan.qcow2
    protocol type: file
    file length: 192 KiB (197120 bytes)
    disk size: 196 KiB
[exit 0]

$ qemu-img info luks.qcow2
image: luks.qcow2
file format: qcow2
virtual size: 16 MiB (16777216 bytes)
disk size: 2.19 MiB
encrypted: yes
cluster_size: 65536
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    encrypt:
        ivgen alg: plain64
        detached header: false
        hash alg: sha256
        cipher alg: aes-256
        uuid: fbae4f92-06c4-4c03-ae21-6d1b9ec25c23
        format: luks
        cipher mode: xts
        slots:
            [0]:
                active: true
                iters: 41011
                key offset: 4096
                stripes: 4000
            [1]:
                active: false
                key offset: 262144
            [2]:
                active: false
                key offset: 520192
            [3]:
                active: false
                key offset: 778240
            [4]:
                active: false
                key offset: 1036288
            [5]:
                active: false
                key offset: 1294336
            [6]:
                active: false
                key offset: 1552384
            [7]:
                active: false
                key offset: 1810432
        payload offset: 2068480
        master key iters: 9848
    corrupt: false
    extended l2: false
Child node '/file':
    filename: luks.qcow2
    protocol type: file
    file length: 2.25 MiB (2359296 bytes)
    disk size: 2.19 MiB
[exit 0]

$ qemu-img info aes.qcow2
image: aes.qcow2
file format: qcow2
virtual size: 16 MiB (16777216 bytes)
disk size: 196 KiB
encrypted: yes
cluster_size: 65536
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    encrypt:
        format: aes
    corrupt: false
    extended l2: false
Child node '/file':
    filename: aes.qcow2
    protocol type: file
    file length: 192 KiB (197120 bytes)
    disk size: 196 KiB
[exit 0]

$ qemu-img info r.raw
image: r.raw
file format: raw
virtual size: 16 MiB (16777216 bytes)
disk size: 4 KiB
Child node '/file':
    filename: r.raw
    protocol type: file
    file length: 16 MiB (16777216 bytes)
    disk size: 4 KiB
[exit 0]

$ qemu-img info --backing-chain over.qcow2
image: over.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 324 KiB
cluster_size: 65536
backing file: a.qcow2
backing file format: qcow2
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    corrupt: false
    extended l2: false
Child node '/file':
    filename: over.qcow2
    protocol type: file
    file length: 384 KiB (393216 bytes)
    disk size: 324 KiB

image: a.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 1.32 MiB
cluster_size: 65536
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    corrupt: false
    extended l2: false
Child node '/file':
    filename: a.qcow2
    protocol type: file
    file length: 1.44 MiB (1507328 bytes)
    disk size: 1.32 MiB
[exit 0]
EOF
}

@test "a snapshot list" {
    transcript_images
    with_snapshots
    replay <<'EOF'
$ qemu-img info a.qcow2
image: a.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 1.46 MiB
cluster_size: 65536
Snapshot list:
ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT
1       first                 0 B 2026-11-23 04:11:22  0000:00:00.000          0
2       second                0 B 2026-11-23 04:11:22  0000:00:00.000          0
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    corrupt: false
    extended l2: false
Child node '/file':
    filename: a.qcow2
    protocol type: file
    file length: 1.69 MiB (1769984 bytes)
    disk size: 1.46 MiB
[exit 0]
EOF
}

@test "bitmaps" {
    transcript_images
    # The transcript's image had seen other commands before.
    local MASK_ALSO='s/(file length:|^ {16}"virtual-size":) .*/\1 #/'
    replay <<'EOF'
$ qemu-img info bm.qcow2
image: bm.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 216 KiB
cluster_size: 65536
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    bitmaps:
        [0]:
            flags:
                [0]: auto
            name: b0
            granularity: 32768
    refcount bits: 16
    corrupt: false
    extended l2: false
Child node '/file':
    filename: bm.qcow2
    protocol type: file
    file length: 448 KiB (459264 bytes)
    disk size: 216 KiB
[exit 0]
EOF
}

@test "the corrupt bit" {
    transcript_images
    with_snapshots
    must oracle snapshot -a first a.qcow2
    must oracle snapshot -d second a.qcow2
    cp a.qcow2 corrupt.qcow2
    imgtool poke corrupt.qcow2 79 02
    replay <<'EOF'
$ qemu-img info corrupt.qcow2
image: corrupt.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 1.09 MiB
cluster_size: 65536
Snapshot list:
ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT
1       first                 0 B 2026-11-23 04:11:22  0000:00:00.000          0
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    corrupt: true
    extended l2: false
Child node '/file':
    filename: corrupt.qcow2
    protocol type: file
    file length: 1.69 MiB (1769984 bytes)
    disk size: 1.09 MiB
[exit 0]
EOF
}

@test "a truncated image" {
    transcript_images
    with_snapshots
    must oracle snapshot -d second a.qcow2
    cp a.qcow2 trunc.qcow2
    truncate -s 400000 trunc.qcow2
    replay <<'EOF'
$ qemu-img info trunc.qcow2
image: trunc.qcow2
file format: qcow2
virtual size: 64 MiB (67108864 bytes)
disk size: 92 KiB
cluster_size: 65536
Snapshot list:
ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT
                              0 B 1970-01-01 00:00:00  0000:00:00.000         --
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    corrupt: false
    extended l2: false
Child node '/file':
    filename: trunc.qcow2
    protocol type: file
    file length: 391 KiB (400384 bytes)
    disk size: 92 KiB
[exit 0]
EOF
}
