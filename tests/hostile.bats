#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Images full of nonsense: each header field one by one, extensions, tables, and damage at
# random. One line that names the file and the field, an unchanged file, no crash, bounded
# memory and time.

load helpers

setup() {
    q2_setup
    bare=0
    if is_bare_program; then bare=1; fi
    # Each thread takes its share of address space: there are two, on any machine.
    processors=$(python3 -S -c \
        'import os; print(*sorted(os.sched_getaffinity(0))[:2], sep=",")')
}

# The program with little memory and an end to it.
bounded() {
    (
        [ "$bare" -eq 0 ] || ulimit -v 307200
        exec taskset -c "$processors" timeout -k 5 300 "$@"
    )
}

# An answer and nothing on standard error, or exit 1 and one line that names the image.
# (Not every nonsense has to be found by every command.)
sane() {
    local code=0
    bounded "$@" >out 2>err || code=$?
    message=$(cat err)
    if [ "$code" -eq 0 ]; then
        [ ! -s err ] || fail "exit 0 with an error: $*: $message"
    else
        [ "$code" -eq 1 ] || fail "exit $code: $*: $message" || return 1
        is_one_error_line "$*" || return 1
        message_has img.qcow2
    fi
}

sample() { # VERSION: img.qcow2 with data, a snapshot, a backing file name
    local cluster=${2:-4k}
    if [ ! -e "v$1.qcow2" ]; then
        truncate -s 4M base.raw
        must oracle create -f qcow2 -o "compat=$1,cluster_size=$cluster" -b base.raw -F raw \
            "v$1.qcow2" 4M || return 1
        must qemu-io -c 'write -P 1 0 300k' -c 'write -P 2 3M 8k' "v$1.qcow2" || return 1
        must oracle snapshot -c one "v$1.qcow2" || return 1
    fi
    cp "v$1.qcow2" img.qcow2
}

# info and convert refuse img.qcow2 with one line that names it and says this; nothing
# changes, no target is left.
refused() { # PATTERN...
    local before
    before=$(hash_of img.qcow2)
    one_error 1 bounded qemu-img info -f qcow2 img.qcow2 || return 1
    message_has "^qemu-img: Could not open 'img.qcow2': " "$@" || return 1
    reading_refused "$@" || return 1
    [ "$(hash_of img.qcow2)" = "$before" ] || fail "the file changed"
}

# The same for what only commands that read guest data look at.
reading_refused() {
    one_error 1 bounded qemu-img convert -f qcow2 -O raw img.qcow2 x || return 1
    message_has "img.qcow2" "$@" || return 1
    absent x
}

# VERSION FIELD VALUE PATTERN, one row per nonsense.
header_rows() {
    cat <<'EOF'
1.1  magic                    0x514649fa          not in qcow2 format
1.1  magic                    0                   not in qcow2 format
1.1  version                  0                   Unsupported qcow2 version 0
1.1  version                  1                   Unsupported qcow2 version 1
1.1  version                  4                   Unsupported qcow2 version 4
1.1  version                  0xffffffff          Unsupported qcow2 version 4294967295
1.1  cluster_bits             0                   Unsupported cluster size: 2\^0
1.1  cluster_bits             8                   Unsupported cluster size: 2\^8
0.10 cluster_bits             22                  Unsupported cluster size: 2\^22
1.1  cluster_bits             64                  Unsupported cluster size: 2\^64
1.1  cluster_bits             0xffffffff          Unsupported cluster size: 2\^4294967295
1.1  header_length            0                   header too short
1.1  header_length            103                 header too short
1.1  header_length            4097                header exceeds cluster size
1.1  header_length            0xffffffff          header exceeds cluster size
1.1  header_length            0xfffffff8          header exceeds cluster size
1.1  backing_file_offset      4096                [Bb]acking file (offset|name)
0.10 backing_file_offset      5000                Invalid backing file offset
1.1  backing_file_offset      0xffffffffffffffff  Invalid backing file offset
1.1  backing_file_size        1024                Backing file name too long
1.1  backing_file_size        0xffffffff          Backing file name too long
0.10 backing_file_size        0x80000000          Backing file name too long
1.1  crypt_method             3                   Unsupported encryption method 3
0.10 crypt_method             0xffffffff          Unsupported encryption method
1.1  size                     0xffffffffffffffff  size|L1|too (big|large)
1.1  size                     0x7fffffffffffffff  size|L1|too (big|large)
1.1  size                     1P                  L1 table is too small
0.10 size                     8G                  L1 table is too small
1.1  l1_size                  0                   L1 table is too small
1.1  l1_size                  1                   L1 table is too small
1.1  l1_size                  4194305             Active L1 table too large
1.1  l1_size                  0xffffffff          Active L1 table too large
1.1  l1_table_offset          1                   Active L1 table offset invalid
1.1  l1_table_offset          4608                Active L1 table offset invalid
1.1  l1_table_offset          0xfffffffffffff000  Active L1 table offset invalid
0.10 l1_table_offset          0x8000000000000000  Active L1 table offset invalid
1.1  refcount_table_offset    1                   Reference count table offset invalid
1.1  refcount_table_offset    0xfffffffffffff000  Reference count table offset invalid
0.10 refcount_table_offset    4097                Reference count table offset invalid
1.1  refcount_table_clusters  0                   does not contain a reference count table
1.1  refcount_table_clusters  2049                Reference count table too large
1.1  refcount_table_clusters  0xffffffff          Reference count table too large
1.1  nb_snapshots             65537               Snapshot table too large
1.1  nb_snapshots             0xffffffff          Snapshot table too large
1.1  snapshots_offset         1                   Snapshot table offset invalid
1.1  snapshots_offset         0xfffffffffffff000  Snapshot table offset invalid
1.1  refcount_order           7                   Reference count entry width too large; may not exceed 64 bits
1.1  refcount_order           0xffffffff          Reference count entry width too large; may not exceed 64 bits
1.1  incompatible_features    0x20                Unsupported qcow2 feature\(s\): Unknown incompatible feature: 20
1.1  incompatible_features    0x8000000000000000  Unsupported qcow2 feature\(s\): Unknown incompatible feature: 8000000000000000
1.1  incompatible_features    0xffffffffffffffe0  Unsupported qcow2 feature\(s\): Unknown incompatible feature: ffffffffffffffe0
1.1  incompatible_features    8                   compression type
1.1  compression_type         2                   compression type
1.1  compression_type         255                 compression type
1.1  compression_type         1                   compression type
EOF
}

@test "every header field, one by one" {
    local version field value pattern bad=0
    while read -r version field value pattern; do
        sample "$version"
        imgtool field img.qcow2 "$field" "$value"
        refused "$pattern" || {
            echo "^ version $version, $field = $value"
            bad=1
        }
    done < <(header_rows)
    [ "$bad" -eq 0 ]
}

@test "every command says the same of a header it does not take" {
    sample 1.1
    imgtool field img.qcow2 refcount_order 7
    refused 'Reference count entry width too large'
    local text
    text=${message#*: }
    one_error 1 bounded qemu-img map -f qcow2 img.qcow2
    [ "${message#*: }" = "$text" ]
    one_error 2 bounded qemu-img compare -f qcow2 img.qcow2 base.raw
    [ "${message#*: }" = "$text" ]
    one_error 2 bounded qemu-img compare -F qcow2 base.raw img.qcow2
    [ "${message#*: }" = "$text" ]
    one_error 1 bounded qemu-img info --output=json img.qcow2
    [ "${message#*: }" = "$text" ]
    one_error 1 bounded qemu-img convert -n -O qcow2 base.raw img.qcow2
    [ "${message#*: }" = "$text" ]
}

@test "a header cut short, at any length" {
    local length
    sample 1.1
    for length in 4 8 20 24 71 72 73 100 103 104 111 112; do
        head -c "$length" v1.1.qcow2 >img.qcow2
        # A header that is all there can be described, though nothing else is.
        [ "$length" -ge 104 ] || must_exit 1 bounded qemu-img info -f qcow2 img.qcow2
        must_exit 1 bounded qemu-img convert -f qcow2 -O raw img.qcow2 x
        absent x
    done
    : >img.qcow2
    must_exit 1 bounded qemu-img info -f qcow2 img.qcow2
    printf 'QFI\373' >img.qcow2
    must_exit 1 bounded qemu-img convert -f qcow2 -O raw img.qcow2 x
    absent x
}

@test "header extensions: too long, running out of the first cluster, never ending" {
    local length
    for length in 0xffffffff 0x7fffffff 0xfffffff8 4096 100000; do
        sample 1.1 64k
        imgtool extension img.qcow2 backing_format --length $length
        refused 'extension|backing format'
        sample 1.1 64k
        imgtool extension img.qcow2 feature_table --length $length
        refused 'extension'
    done
    # Unknown ones are measured too.
    sample 1.1 64k
    imgtool extension img.qcow2 feature_table --type 0x77777777 --length 0xfffffff0
    refused 'extension'
    sample 1.1 64k
    imgtool extension img.qcow2 backing_format --type 0x23852875
    refused 'bitmaps_ext: Invalid extension length'
}

@test "the bitmap extension and directory" {
    must oracle create -f qcow2 -o cluster_size=4k b.qcow2 4M
    must oracle bitmap --add b.qcow2 one
    truncate -s 4M base.raw
    local row
    # Count, reserved, size and offset of the directory.
    while read -r -a row; do
        cp b.qcow2 img.qcow2
        imgtool extension img.qcow2 bitmaps --data "$(printf %s "${row[@]}")"
        echo "bitmap extension ${row[*]}"
        sane qemu-img info img.qcow2
        # Guest data does not depend on it, or it is refused: no crash either way.
        sane qemu-img convert -f qcow2 -O raw img.qcow2 x
        rm -f x
    done <<'EOF'
00010000 00000000 0000000000000020 0000000000008000
00000001 00000000 0000000000000020 000000000000800f
00000001 00000000 0000000000000020 0fffffffffff0000
00000001 00000000 0000000000000020 fffffffffffff000
00000001 00000000 0000000000000000 0000000000008000
00000001 00000000 ffffffffffffffff 0000000000008000
00000000 00000000 0000000000000020 0000000000008000
ffffffff 00000000 0000000000000020 0000000000008000
0000ffff 00000000 0000000003fffc00 0000000000008000
00000002 00000000 0000000000000020 0000000000000000
00000001 ffffffff 0000000000000020 0000000000008000
EOF
    cp b.qcow2 img.qcow2
    imgtool extension img.qcow2 bitmaps --length 16
    truncate -s 4M base.raw
    refused 'bitmaps'
}

@test "snapshot tables of nonsense" {
    local at row value code
    sample 1.1
    at=$(imgtool field img.qcow2 snapshots_offset)
    # Offset in the entry, bytes: L1 offset, L1 size, id and name length, extra data size.
    for row in 0:ffffffffffffffff 0:0000000000000001 8:ffffffff 8:00400001 12:ffff 14:ffff \
        36:ffffffff 36:00000401; do
        sample 1.1
        imgtool poke img.qcow2 $((at + ${row%:*})) "${row#*:}"
        echo "snapshot entry, $row"
        case $row in
        12:* | 14:*)
            # No snapshot has this name now, or the name goes on with zeros to the end of the
            # file and is the same as before.
            code=0
            bounded qemu-img convert -f qcow2 -l one -O raw img.qcow2 x 2>err || code=$?
            message=$(cat err)
            [ "$code" -eq 0 ] || { [ "$code" -eq 1 ] && is_one_error_line "$row" && absent x; }
            rm -f x
            ;;
        *)
            one_error 1 bounded qemu-img convert -f qcow2 -l one -O raw img.qcow2 x
            message_has img.qcow2
            absent x
            ;;
        esac
        sane qemu-img info -f qcow2 img.qcow2
    done
    # Many snapshots that are not there.
    for value in 2 1000 65536; do
        sample 1.1
        imgtool field img.qcow2 nb_snapshots $value
        sane qemu-img info -f qcow2 img.qcow2
    done
    # A table that is behind the end of the file.
    sample 1.1
    imgtool field img.qcow2 snapshots_offset 0x100000000000
    sane qemu-img info -f qcow2 img.qcow2
}

@test "an L1 table behind the end of the file" {
    sample 1.1
    imgtool field img.qcow2 l1_table_offset 0x10000000000
    must_exit 1 bounded qemu-img convert -f qcow2 -O raw img.qcow2 x
    absent x
    sane qemu-img info -f qcow2 img.qcow2
}

@test "claimed sizes cost nothing: a huge disk in a small file" {
    must oracle create -f qcow2 -o cluster_size=2M img.qcow2 1T
    # 8 EiB - 2 MiB would need an L1 table of 2^25 entries: refused; 64 TiB with a table
    # that is not in the file is not worth its memory.
    imgtool field img.qcow2 size 64T
    imgtool field img.qcow2 l1_size 4194304
    sane qemu-img info img.qcow2
    sane qemu-img map img.qcow2
    sane qemu-img convert -O qcow2 img.qcow2 x
    must oracle create -f qcow2 -o cluster_size=2M big.qcow2 1P
    must bounded qemu-img info big.qcow2
    must bounded qemu-img map big.qcow2
    must bounded qemu-img convert -O qcow2 -o cluster_size=2M big.qcow2 copy.qcow2
    must bounded qemu-img compare big.qcow2 copy.qcow2
    clean copy.qcow2
}

@test "a file that is nearly all hole costs no more than what is in it" {
    must oracle create -f qcow2 -o cluster_size=512,refcount_bits=64 img.qcow2 1M
    must qemu-io -c 'write 0 64k' img.qcow2
    # A tmpfs takes files of any length.
    # shellcheck disable=SC2016
    in_tmpfs 4m sh -c 'cp img.qcow2 small && truncate -s 7E small/img.qcow2 &&
        exec timeout 300 qemu-img map --output=json small/img.qcow2'
    [ "$(cat code)" -eq 0 ]
    grep -q '"data": true' out
}

@test "a large L1 table is not looked through for each extent of the layer below" {
    local limit=6 # seconds of processor time; the sanitizers take their share
    [ "$bare" -eq 1 ] || limit=120
    python3 - <<'EOF'
with open("base.raw", "wb") as f:
    f.truncate(128 << 30)
    for i in range(4000):
        f.seek((32 * i + 2) << 20)
        f.write(bytes([1]) * 512)
EOF
    must oracle create -f qcow2 -b base.raw -F raw -o cluster_size=512 img.qcow2 128G
    (
        ulimit -t $limit
        must bounded qemu-img convert -O qcow2 img.qcow2 x
    )
    clean x
}

@test "compressed clusters: lengths and offsets of nonsense" {
    local value
    imgtool fill base.raw 1M --seed 9
    must oracle convert -c -O qcow2 -o cluster_size=64k base.raw c.qcow2
    spoil_compressed c.qcow2
    for value in 0x7fffffffffffffff 0x4000000000000000 0x7fc0000000000001 0x40000000000001ff \
        0x7fe0000000050000; do
        cp c.qcow2 img.qcow2
        imgtool l2 img.qcow2 "$spoiled" $value
        echo "entry $value"
        one_error 1 bounded qemu-img convert -f qcow2 -O raw img.qcow2 x
        message_has img.qcow2
        absent x
        one_error 4 bounded qemu-img compare img.qcow2 base.raw
    done
}

@test "L2 tables that are other metadata, or each other" {
    local value
    sample 1.1
    # The header, the refcount table, the L1 table itself, an odd place.
    for value in 0x8000000000000000 0x8000000000001000 0x8000000000003000 0x7f00000000005000; do
        sample 1.1
        imgtool l1 img.qcow2 0 $value
        sane qemu-img map img.qcow2
        sane qemu-img convert -O raw img.qcow2 x
        rm -f x
    done
}

# -B and chains: names that must not be followed.
marked_corrupt() { # as QEMU says it, and then why the command failed
    local code=0
    "$@" 2>stderr || code=$?
    [ "$code" -eq 1 ] || fail "exit $code: $*" || return 1
    [ "$(wc -l <stderr)" -eq 2 ] || fail "$(cat stderr)" || return 1
    head -n 1 stderr | grep -qE '^qcow2: Marking image as corrupt: Preventing invalid write on metadata \(overlaps with .*\); further corruption events will be suppressed$' ||
        fail "$(cat stderr)" || return 1
    tail -n 1 stderr | grep -q 'must be repaired first' || fail "$(cat stderr)"
}

@test "entries that lead into the skeleton: nothing is written there but the corrupt bit" {
    local value
    imgtool fill new.raw 1M --seed 3
    must oracle create -f qcow2 plain.qcow2 1M
    must qemu-io -c 'write -P 1 0 128k' plain.qcow2
    # Guest data where the refcount table and the L1 table lie.
    for value in 0x8000000000010000 0x8000000000030000; do
        cp plain.qcow2 img.qcow2
        imgtool l2 img.qcow2 0 $value
        cp img.qcow2 keep.qcow2
        marked_corrupt bounded qemu-img convert -n -O qcow2 new.raw img.qcow2
        imgtool poke keep.qcow2 79 02
        must cmp img.qcow2 keep.qcow2
    done
    # An L2 table that is the L1 table.
    cp plain.qcow2 img.qcow2
    imgtool l1 img.qcow2 0 0x8000000000030000
    cp img.qcow2 keep.qcow2
    marked_corrupt bounded qemu-img convert -n -O qcow2 new.raw img.qcow2
    imgtool poke keep.qcow2 79 02
    must cmp img.qcow2 keep.qcow2
}

@test "backing file names that are no plain paths are refused" {
    local name
    truncate -s 4M base.raw
    for name in 'json:{"driver":"file","filename":"/etc/passwd"}' nbd://localhost/x \
        ssh://host/x fat:/etc https://example.org/x; do
        must oracle create -f qcow2 img.qcow2 4M
        imgtool backing img.qcow2 "$name"
        one_error 1 bounded qemu-img convert -O raw img.qcow2 x
        message_has img.qcow2
        absent x
        must bounded qemu-img info img.qcow2
    done
    # A path all the same, when it says so.
    must oracle create -f qcow2 img.qcow2 4M
    imgtool backing img.qcow2 file:base.raw
    must bounded qemu-img convert -O raw img.qcow2 x
    rm x
    cp base.raw nbd:x
    imgtool backing img.qcow2 ./nbd:x
    must bounded qemu-img convert -O raw img.qcow2 x
}

@test "chains that never end" {
    truncate -s 4M base.raw
    must oracle create -f qcow2 img.qcow2 4M
    imgtool backing img.qcow2 img.qcow2
    one_error 1 bounded qemu-img convert -O raw img.qcow2 x
    message_has "Backing file 'img.qcow2' creates an infinite loop"
    absent x
    must oracle create -f qcow2 -u -b img.qcow2 -F qcow2 b.qcow2 4M
    rm img.qcow2
    must oracle create -f qcow2 -u -b b.qcow2 -F qcow2 img.qcow2 4M
    one_error 1 bounded qemu-img convert -O raw img.qcow2 x
    message_has "Backing file 'img.qcow2' creates an infinite loop"
    one_error 1 bounded qemu-img map img.qcow2
    one_error 2 bounded qemu-img compare img.qcow2 base.raw
    absent x
    ln -f b.qcow2 hard.qcow2
    must oracle rebase -u -b hard.qcow2 -F qcow2 b.qcow2
    one_error 1 bounded qemu-img convert -O raw b.qcow2 x
    message_has "Backing file 'hard.qcow2' creates an infinite loop"
}

@test "a long chain, and one that is too long" {
    local i
    truncate -s 64k c0
    must oracle create -f qcow2 -u -b c0 -F raw c1 64k
    for ((i = 2; i <= 220; i++)); do
        must oracle create -f qcow2 -u -b "c$((i - 1))" -F qcow2 "c$i" 64k
    done
    must bounded qemu-img convert -O raw c100 x
    rm x
    one_error 1 bounded qemu-img convert -O raw c220 x
    message_has chain
    absent x
}

@test "damage at random: an answer or an error, never a crash" {
    local seed code command runs
    sample 0.10
    sample 1.1
    must oracle create -f qcow2 -o cluster_size=4k -b base.raw -F raw c.qcow2 4M
    scribble qcow2 c.qcow2 5 --size 4M --cluster 4k --compressed
    must oracle snapshot -c one c.qcow2
    runs=$(rows 60 20)
    for ((seed = 1; seed <= runs; seed++)); do
        case $((seed % 3)) in
        0) cp v0.10.qcow2 img.qcow2 ;;
        1) cp v1.1.qcow2 img.qcow2 ;;
        2) cp c.qcow2 img.qcow2 ;;
        esac
        imgtool damage img.qcow2 --seed $seed >pokes
        cp img.qcow2 keep.qcow2
        for command in 'info' 'info --output=json' 'map --output=json' \
            'convert -O qcow2' 'convert --salvage -l one -O qcow2'; do
            set -- img.qcow2
            case $command in convert*) set -- img.qcow2 x ;; esac
            code=0
            # shellcheck disable=SC2086
            bounded qemu-img $command -f qcow2 "$@" >out 2>err || code=$?
            [ "$code" -le 1 ] ||
                fail "seed $seed: exit $code: $command: $(cat pokes) $(head -c 2000 err)"
            [ "$code" -eq 0 ] || grep -q '^qemu-img: ' err || fail "seed $seed: $command says nothing"
            # Whatever was taken for good is good, by itself.
            case $command-$code in convert*-0) clean x ;; convert*) absent x ;; esac
            rm -f x
        done
        must cmp img.qcow2 keep.qcow2
    done
}
