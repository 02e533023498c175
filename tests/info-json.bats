#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# info --output=json, character by character as in QEMU's transcripts.

load helpers

setup() {
    q2_setup
}

@test "images of all kinds" {
    transcript_images
    luks_image luks.qcow2
    replay <<'EOF'
$ qemu-img info --output=json a.qcow2
{
    "children": [
        {
            "name": "file",
            "info": {
                "children": [
                ],
                "virtual-size": 1507328,
                "filename": "a.qcow2",
                "format": "file",
                "actual-size": 1380352,
                "format-specific": {
                    "type": "file",
                    "data": {
                    }
                },
                "dirty-flag": false
            }
        }
    ],
    "virtual-size": 67108864,
    "filename": "a.qcow2",
    "cluster-size": 65536,
    "format": "qcow2",
    "actual-size": 1380352,
    "format-specific": {
        "type": "qcow2",
        "data": {
            "compat": "1.1",
            "compression-type": "zlib",
            "lazy-refcounts": false,
            "refcount-bits": 16,
            "corrupt": false,
            "extended-l2": false
        }
    },
    "dirty-flag": false
}
[exit 0]

$ qemu-img info --output=json b.qcow2
{
    "children": [
        {
            "name": "file",
            "info": {
                "children": [
                ],
                "virtual-size": 18432,
                "filename": "b.qcow2",
                "format": "file",
                "actual-size": 20480,
                "format-specific": {
                    "type": "file",
                    "data": {
                    }
                },
                "dirty-flag": false
            }
        }
    ],
    "virtual-size": 1610612736,
    "filename": "b.qcow2",
    "cluster-size": 4096,
    "format": "qcow2",
    "actual-size": 20480,
    "format-specific": {
        "type": "qcow2",
        "data": {
            "compat": "1.1",
            "compression-type": "zlib",
            "lazy-refcounts": true,
            "refcount-bits": 8,
            "corrupt": false,
            "extended-l2": false
        }
    },
    "dirty-flag": false
}
[exit 0]

$ qemu-img info --output=json over.qcow2
{
    "children": [
        {
            "name": "file",
            "info": {
                "children": [
                ],
                "virtual-size": 393216,
                "filename": "over.qcow2",
                "format": "file",
                "actual-size": 331776,
                "format-specific": {
                    "type": "file",
                    "data": {
                    }
                },
                "dirty-flag": false
            }
        }
    ],
    "backing-filename-format": "qcow2",
    "virtual-size": 67108864,
    "filename": "over.qcow2",
    "cluster-size": 65536,
    "format": "qcow2",
    "actual-size": 331776,
    "format-specific": {
        "type": "qcow2",
        "data": {
            "compat": "1.1",
            "compression-type": "zlib",
            "lazy-refcounts": false,
            "refcount-bits": 16,
            "corrupt": false,
            "extended-l2": false
        }
    },
    "full-backing-filename": "a.qcow2",
    "backing-filename": "a.qcow2",
    "dirty-flag": false
}
[exit 0]

$ qemu-img info --output=json luks.qcow2
{
    "children": [
        {
            "name": "file",
            "info": {
                "children": [
                ],
                "virtual-size": 2359296,
                "filename": "luks.qcow2",
                "format": "file",
                "actual-size": 2297856,
                "format-specific": {
                    "type": "file",
                    "data": {
                    }
                },
                "dirty-flag": false
            }
        }
    ],
    "virtual-size": 16777216,
    "filename": "luks.qcow2",
    "cluster-size": 65536,
    "format": "qcow2",
    "actual-size": 2297856,
    "format-specific": {
        "type": "qcow2",
        "data": {
            "compat": "1.1",
            "compression-type": "zlib",
            "lazy-refcounts": false,
            "refcount-bits": 16,
            "encrypt": {
                "ivgen-alg": "plain64",
                "detached-header": false,
                "hash-alg": "sha256",
                "cipher-alg": "aes-256",
                "uuid": "fbae4f92-06c4-4c03-ae21-6d1b9ec25c23",
                "format": "luks",
                "cipher-mode": "xts",
                "slots": [
                    {
                        "active": true,
                        "iters": 41011,
                        "key-offset": 4096,
                        "stripes": 4000
                    },
                    {
                        "active": false,
                        "key-offset": 262144
                    },
                    {
                        "active": false,
                        "key-offset": 520192
                    },
                    {
                        "active": false,
                        "key-offset": 778240
                    },
                    {
                        "active": false,
                        "key-offset": 1036288
                    },
                    {
                        "active": false,
                        "key-offset": 1294336
                    },
                    {
                        "active": false,
                        "key-offset": 1552384
                    },
                    {
                        "active": false,
                        "key-offset": 1810432
                    }
                ],
                "payload-offset": 2068480,
                "master-key-iters": 9848
            },
            "corrupt": false,
            "extended-l2": false
        }
    },
    "encrypted": true,
    "dirty-flag": false
}
[exit 0]

$ qemu-img info --output=json df.qcow2
{
    "children": [
        {
            "name": "file",
            "info": {
                "children": [
                ],
                "virtual-size": 327680,
                "filename": "df.qcow2",
                "format": "file",
                "actual-size": 266240,
                "format-specific": {
                    "type": "file",
                    "data": {
                    }
                },
                "dirty-flag": false
            }
        }
    ],
    "virtual-size": 67108864,
    "filename": "df.qcow2",
    "cluster-size": 65536,
    "format": "qcow2",
    "actual-size": 266240,
    "format-specific": {
        "type": "qcow2",
        "data": {
            "compat": "1.1",
            "compression-type": "zlib",
            "lazy-refcounts": false,
            "refcount-bits": 16,
            "data-file": "ext.raw",
            "data-file-raw": true,
            "corrupt": false,
            "extended-l2": false
        }
    },
    "dirty-flag": false
}
[exit 0]

$ qemu-img info --output=json r.raw
{
    "children": [
        {
            "name": "file",
            "info": {
                "children": [
                ],
                "virtual-size": 16777216,
                "filename": "r.raw",
                "format": "file",
                "actual-size": 4096,
                "format-specific": {
                    "type": "file",
                    "data": {
                    }
                },
                "dirty-flag": false
            }
        }
    ],
    "virtual-size": 16777216,
    "filename": "r.raw",
    "format": "raw",
    "actual-size": 4096,
    "dirty-flag": false
}
[exit 0]

$ qemu-img info --output=json --backing-chain over.qcow2
[
    {
        "children": [
            {
                "name": "file",
                "info": {
                    "children": [
                    ],
                    "virtual-size": 393216,
                    "filename": "over.qcow2",
                    "format": "file",
                    "actual-size": 331776,
                    "format-specific": {
                        "type": "file",
                        "data": {
                        }
                    },
                    "dirty-flag": false
                }
            }
        ],
        "backing-filename-format": "qcow2",
        "virtual-size": 67108864,
        "filename": "over.qcow2",
        "cluster-size": 65536,
        "format": "qcow2",
        "actual-size": 331776,
        "format-specific": {
            "type": "qcow2",
            "data": {
                "compat": "1.1",
                "compression-type": "zlib",
                "lazy-refcounts": false,
                "refcount-bits": 16,
                "corrupt": false,
                "extended-l2": false
            }
        },
        "full-backing-filename": "a.qcow2",
        "backing-filename": "a.qcow2",
        "dirty-flag": false
    },
    {
        "children": [
            {
                "name": "file",
                "info": {
                    "children": [
                    ],
                    "virtual-size": 1507328,
                    "filename": "a.qcow2",
                    "format": "file",
                    "actual-size": 1380352,
                    "format-specific": {
                        "type": "file",
                        "data": {
                        }
                    },
                    "dirty-flag": false
                }
            }
        ],
        "virtual-size": 67108864,
        "filename": "a.qcow2",
        "cluster-size": 65536,
        "format": "qcow2",
        "actual-size": 1380352,
        "format-specific": {
            "type": "qcow2",
            "data": {
                "compat": "1.1",
                "compression-type": "zlib",
                "lazy-refcounts": false,
                "refcount-bits": 16,
                "corrupt": false,
                "extended-l2": false
            }
        },
        "dirty-flag": false
    }
]
[exit 0]
EOF
}

@test "a snapshot list" {
    transcript_images
    with_snapshots
    replay <<'EOF'
$ qemu-img info --output=json a.qcow2
{
    "children": [
        {
            "name": "file",
            "info": {
                "children": [
                ],
                "virtual-size": 1769984,
                "filename": "a.qcow2",
                "format": "file",
                "actual-size": 1527808,
                "format-specific": {
                    "type": "file",
                    "data": {
                    }
                },
                "dirty-flag": false
            }
        }
    ],
    "snapshots": [
        {
            "icount": 0,
            "vm-clock-nsec": 0,
            "name": "first",
            "date-sec": 1795407082,
            "date-nsec": 532984000,
            "vm-clock-sec": 0,
            "id": "1",
            "vm-state-size": 0
        },
        {
            "icount": 0,
            "vm-clock-nsec": 0,
            "name": "second",
            "date-sec": 1795407082,
            "date-nsec": 546911000,
            "vm-clock-sec": 0,
            "id": "2",
            "vm-state-size": 0
        }
    ],
    "virtual-size": 67108864,
    "filename": "a.qcow2",
    "cluster-size": 65536,
    "format": "qcow2",
    "actual-size": 1527808,
    "format-specific": {
        "type": "qcow2",
        "data": {
            "compat": "1.1",
            "compression-type": "zlib",
            "lazy-refcounts": false,
            "refcount-bits": 16,
            "corrupt": false,
            "extended-l2": false
        }
    },
    "dirty-flag": false
}
[exit 0]
EOF
}

@test "bitmaps" {
    transcript_images
    # The transcript's image had seen other commands before.
    local MASK_ALSO='s/(file length:|^ {16}"virtual-size":) .*/\1 #/'
    replay <<'EOF'
$ qemu-img info --output=json bm.qcow2
{
    "children": [
        {
            "name": "file",
            "info": {
                "children": [
                ],
                "virtual-size": 459264,
                "filename": "bm.qcow2",
                "format": "file",
                "actual-size": 221184,
                "format-specific": {
                    "type": "file",
                    "data": {
                    }
                },
                "dirty-flag": false
            }
        }
    ],
    "virtual-size": 67108864,
    "filename": "bm.qcow2",
    "cluster-size": 65536,
    "format": "qcow2",
    "actual-size": 221184,
    "format-specific": {
        "type": "qcow2",
        "data": {
            "compat": "1.1",
            "compression-type": "zlib",
            "lazy-refcounts": false,
            "bitmaps": [
                {
                    "flags": [
                        "auto"
                    ],
                    "name": "b0",
                    "granularity": 32768
                }
            ],
            "refcount-bits": 16,
            "corrupt": false,
            "extended-l2": false
        }
    },
    "dirty-flag": false
}
[exit 0]
EOF
}
