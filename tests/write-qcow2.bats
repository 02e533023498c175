#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Images that the program writes: QEMU finds them clean, without even a leak, reads the
# same bytes from them, and can go on writing to them.

load helpers

setup() {
    q2_setup
}

# One raw disk per cluster size class: enough clusters to matter, quick to check.
disk_for() { # CLUSTER
    local size=$(((6 << 20) + 512 * 3))
    case $1 in 512k | 1M | 2M) size=$(((25 << 20) + 512 * 9)) ;; esac
    disk=disk.$size.raw
    [ -e "$disk" ] || imgtool fill "$disk" "$size" --seed "$size"
}

convert_each_cluster_size() { # CONVERT OPTIONS
    local cluster
    for cluster in $CLUSTER_SIZES; do
        echo "clusters of $cluster: $*"
        disk_for "$cluster"
        rm -f out.qcow2
        must "$QCOW2" convert -f raw -O qcow2 -o "cluster_size=$cluster" "$@" "$disk" \
            out.qcow2 || return 1
        written_right out.qcow2 "$disk" || return 1
    done
}

@test "convert to version 3, every cluster size" {
    convert_each_cluster_size
}

@test "convert to version 2, every cluster size" {
    convert_each_cluster_size -o compat=0.10
}

@test "convert -c to version 3, every cluster size" {
    convert_each_cluster_size -c
}

@test "convert -c to version 2, every cluster size" {
    convert_each_cluster_size -c -o compat=0.10
}

@test "convert -S 0 writes every byte, every cluster size" {
    convert_each_cluster_size -S 0
    # Nothing of it is a hole in the image.
    [ "$(oracle map --output=json out.qcow2 | grep -c '"data": false')" -eq 0 ]
}

@test "convert -S 64k" {
    local cluster
    disk_for 64k
    for cluster in 4k 64k 1M; do
        rm -f out.qcow2
        must "$QCOW2" convert -S 64k -O qcow2 -o "cluster_size=$cluster" "$disk" out.qcow2
        written_right out.qcow2 "$disk"
    done
    must "$QCOW2" convert -S 64k -O raw "$disk" out.raw
    same_bytes "$disk" out.raw
}

@test "every refcount width, plain and compressed" {
    local bits how
    disk_for 4k
    for bits in 1 2 4 8 16 32 64; do
        for how in '' -c; do
            # Two compressed clusters in one host cluster need a count of more than one:
            # with 1 bit each must get its own, or stay plain.
            echo "refcount_bits $bits $how"
            rm -f out.qcow2
            must "$QCOW2" convert $how -O qcow2 -o "cluster_size=4k,refcount_bits=$bits" "$disk" \
                out.qcow2
            written_right out.qcow2 "$disk"
        done
    done
}

@test "preallocation in convert" {
    local prealloc cluster
    disk_for 64k
    for prealloc in off metadata falloc full; do
        for cluster in 4k 64k; do
            echo "preallocation $prealloc, clusters of $cluster"
            rm -f out.qcow2
            must "$QCOW2" convert -O qcow2 -o "preallocation=$prealloc,cluster_size=$cluster" \
                "$disk" out.qcow2
            written_right out.qcow2 "$disk"
        done
    done
}

@test "lazy refcounts in convert leave a clean image" {
    disk_for 64k
    must "$QCOW2" convert -O qcow2 -o lazy_refcounts=on "$disk" out.qcow2
    [ "$(imgtool field out.qcow2 incompatible_features)" -eq 0 ]
    [ "$(imgtool field out.qcow2 compatible_features)" -eq 1 ]
    written_right out.qcow2 "$disk"
}

@test "create: every cluster size, both versions, is what QEMU would have made" {
    local cluster compat
    for cluster in $CLUSTER_SIZES; do
        for compat in 0.10 1.1; do
            echo "compat $compat, clusters of $cluster"
            rm -f ./*.qcow2 zero.raw
            must "$QCOW2" create -f qcow2 -o "cluster_size=$cluster,compat=$compat" new.qcow2 9M
            must oracle create -f qcow2 -o "cluster_size=$cluster,compat=$compat" ref.qcow2 9M
            truncate -s 9M zero.raw
            diff <(oracle info new.qcow2 | tail -n +2 | grep -v 'disk size') \
                <(oracle info ref.qcow2 | tail -n +2 | grep -v 'disk size')
            written_right new.qcow2 zero.raw
        done
    done
}

@test "create: every refcount width and preallocation" {
    local bits prealloc
    truncate -s 5M zero.raw
    for bits in 1 2 4 8 16 32 64; do
        for prealloc in off metadata falloc full; do
            # Space is allocated in the same way whatever the width.
            case $prealloc-$bits in falloc-[248] | full-[248]) continue ;; esac
            echo "refcount_bits $bits, preallocation $prealloc"
            rm -f new.qcow2
            must "$QCOW2" create -f qcow2 -o \
                "cluster_size=4k,refcount_bits=$bits,preallocation=$prealloc" new.qcow2 5M
            written_right new.qcow2 zero.raw
        done
    done
}

@test "create: preallocation takes the space it says" {
    local prealloc
    for prealloc in off metadata falloc full; do
        must "$QCOW2" create -f qcow2 -o "preallocation=$prealloc" "$prealloc.qcow2" 16M
        must "$QCOW2" create -f raw -o "preallocation=${prealloc/metadata/off}" "$prealloc.raw" \
            16M
        clean "$prealloc.qcow2"
        [ "$(stat -c %s "$prealloc.raw")" -eq $((16 << 20)) ]
    done
    [ "$(disk_bytes off.qcow2)" -lt $((1 << 20)) ]
    [ "$(disk_bytes metadata.qcow2)" -lt $((1 << 20)) ]
    [ "$(disk_bytes falloc.qcow2)" -ge $((16 << 20)) ]
    [ "$(disk_bytes full.qcow2)" -ge $((16 << 20)) ]
    [ "$(disk_bytes off.raw)" -lt $((1 << 20)) ]
    [ "$(disk_bytes falloc.raw)" -ge $((16 << 20)) ]
    [ "$(disk_bytes full.raw)" -ge $((16 << 20)) ]
}

@test "create: large disks of small clusters" {
    must "$QCOW2" create -f qcow2 -o cluster_size=512 small.qcow2 1G
    clean small.qcow2
    must "$QCOW2" create -f qcow2 -o cluster_size=2M large.qcow2 64T
    clean large.qcow2
    must qemu-io -c 'write -P 5 60T 64k' large.qcow2
    clean large.qcow2
    must qemu-io -c 'write -P 5 1073676288 64k' small.qcow2
    clean small.qcow2
}

@test "metadata of a converted disk of several refcount blocks and L2 tables" {
    # 512-byte clusters: 256 refcounts to a block, 64 entries to an L2 table; the refcount
    # table itself has to grow beyond one cluster.
    imgtool fill disk.raw $(((18 << 20) + 512)) --seed 31
    local how
    for how in '' -c; do
        rm -f out.qcow2
        must "$QCOW2" convert $how -O qcow2 -o cluster_size=512 disk.raw out.qcow2
        written_right out.qcow2 disk.raw
    done
}

@test "an overlay through -B holds only what differs" {
    local format
    imgtool fill base.raw 8M --seed 32
    must oracle convert -O qcow2 base.raw base.qcow2
    for format in raw qcow2; do
        echo "base is $format"
        rm -f over.qcow2 copy.qcow2
        must oracle create -f qcow2 -b "base.$format" -F "$format" over.qcow2 9M
        scribble qcow2 over.qcow2 33 --size 9M --count 12
        must "$QCOW2" convert -O qcow2 -B "base.$format" -F "$format" over.qcow2 copy.qcow2
        clean copy.qcow2
        same over.qcow2 copy.qcow2
        oracle info copy.qcow2 | grep -qx "backing file: base.$format"
        oracle info copy.qcow2 | grep -qx "backing file format: $format"
        [ "$(disk_bytes copy.qcow2)" -lt $((5 << 20)) ]
        # The same through -o, as QEMU has it.
        rm -f copy.qcow2
        must "$QCOW2" convert -O qcow2 -o "backing_file=base.$format,backing_fmt=$format" \
            over.qcow2 copy.qcow2
        same over.qcow2 copy.qcow2
    done
}

@test "-B from small clusters to large ones: the rest of a cluster comes from the backing file" {
    local from to compat
    head -c $(((7 << 20) + 512)) /dev/urandom >base.raw
    for from in 512 4k; do
        rm -f over.qcow2
        must oracle create -f qcow2 -o "cluster_size=$from" -b base.raw -F raw over.qcow2 9M
        scribble qcow2 over.qcow2 36 --size 9M --cluster "$from" --count 60
        for to in 4k 64k 2M; do
            for compat in 0.10 1.1; do
                echo "from $from to $to, compat $compat"
                rm -f copy.qcow2
                must "$QCOW2" convert -O qcow2 -o "cluster_size=$to,compat=$compat" -B base.raw \
                    -F raw over.qcow2 copy.qcow2
                clean copy.qcow2
                same over.qcow2 copy.qcow2
            done
        done
        # And compressed, which writes whole clusters only.
        must "$QCOW2" convert -c -O qcow2 -B base.raw -F raw over.qcow2 copy.qcow2
        clean copy.qcow2
        same over.qcow2 copy.qcow2
    done
}

@test "-B onto a backing file with other content, or a shorter or longer one" {
    imgtool fill disk.raw 5M --seed 34
    local size
    for size in 3M 5M 7M; do
        echo "backing file of $size"
        rm -f base.qcow2 over.qcow2
        must oracle create -f qcow2 base.qcow2 "$size"
        scribble qcow2 base.qcow2 35 --size "$size"
        # A raw source knows no backing file: it is all there, zeros too.
        must "$QCOW2" convert -O qcow2 -B base.qcow2 -F qcow2 disk.raw over.qcow2
        clean over.qcow2
        same over.qcow2 disk.raw
    done
}

@test "-B to version 2: zeros above a backing file with data" {
    must oracle create -f qcow2 base.qcow2 4M
    must qemu-io -c 'write -P 3 0 4M' base.qcow2
    must oracle create -f qcow2 -b base.qcow2 -F qcow2 over.qcow2
    must qemu-io -c 'write -z 1M 512k' -c 'write -P 4 3M 12k' over.qcow2
    must "$QCOW2" convert -O qcow2 -o compat=0.10 -B base.qcow2 -F qcow2 over.qcow2 copy.qcow2
    clean copy.qcow2
    same over.qcow2 copy.qcow2
}

larger() {
    if [ "$1" = 2M ]; then echo "$1"; else echo "$2"; fi
}

@test "-n into an image that holds data" {
    local source cluster compat
    imgtool fill disk.raw 5M --seed 36
    must oracle convert -O qcow2 disk.raw disk.qcow2
    for source in disk.raw disk.qcow2; do
        for cluster in 512 4k 64k 2M; do
            for compat in 0.10 1.1; do
                echo "$source into clusters of $cluster, compat $compat"
                rm -f old.qcow2
                must oracle create -f qcow2 -o "cluster_size=$cluster,compat=$compat" old.qcow2 5M
                scribble qcow2 old.qcow2 37 --size 5M --cluster "$(larger "$cluster" 64k)" \
                    --compressed
                must "$QCOW2" convert -n -O qcow2 "$source" old.qcow2
                written_right old.qcow2 disk.raw
            done
        done
    done
}

@test "-n into a larger image leaves the rest as it was" {
    imgtool fill disk.raw $(((2 << 20) + 512)) --seed 38
    imgtool fill long.raw 5M --seed 39
    local format
    for format in raw qcow2; do
        rm -f old want.raw
        must oracle convert -O $format long.raw old
        must oracle convert -O $format long.raw want
        must oracle convert -n -O $format disk.raw want
        must "$QCOW2" convert -n -O $format disk.raw old
        must oracle compare -f $format -F $format want old
    done
}

@test "-n into an image with snapshots keeps the snapshots" {
    imgtool fill disk.raw 5M --seed 41
    must oracle create -f qcow2 -o cluster_size=4k base.qcow2 5M
    scribble qcow2 base.qcow2 42 --size 5M --cluster 4k --compressed
    must oracle snapshot -c one base.qcow2
    scribble qcow2 base.qcow2 43 --size 5M --cluster 4k
    must oracle snapshot -c two base.qcow2
    must oracle convert -l one -O raw base.qcow2 one.raw
    must oracle convert -l two -O raw base.qcow2 two.raw
    cp base.qcow2 old.qcow2
    must "$QCOW2" convert -n -O qcow2 disk.raw old.qcow2
    clean old.qcow2
    same old.qcow2 disk.raw
    snapshots_kept
    written_right old.qcow2 disk.raw
    snapshots_kept

    # QEMU cannot write compressed clusters over others and says so; whoever can must do it
    # right. Neither may harm what is there.
    cp base.qcow2 old.qcow2
    if "$QCOW2" convert -c -n -O qcow2 disk.raw old.qcow2 2>stderr; then
        same old.qcow2 disk.raw
    else
        grep -q 'error while writing at byte' stderr
    fi
    clean old.qcow2
    snapshots_kept
}

snapshots_kept() {
    local name
    for name in one two; do
        must oracle convert -l "$name" -O raw old.qcow2 got.raw || return 1
        same_bytes "$name.raw" got.raw || return 1
    done
}

@test "-n into an overlay hides the backing file where the source is zero" {
    imgtool fill disk.raw 4M --seed 44
    must oracle create -f qcow2 base.qcow2 4M
    must qemu-io -c 'write -P 9 0 4M' base.qcow2
    local compat before
    before=$(hash_of base.qcow2)
    for compat in 0.10 1.1; do
        rm -f over.qcow2
        must oracle create -f qcow2 -o "compat=$compat" -b base.qcow2 -F qcow2 over.qcow2
        must "$QCOW2" convert -n -O qcow2 disk.raw over.qcow2
        written_right over.qcow2 disk.raw
        [ "$(hash_of base.qcow2)" = "$before" ]
    done
}

@test "several sources, one behind the other" {
    imgtool fill a.raw $(((2 << 20) + 512)) --seed 45
    imgtool fill b.raw $(((3 << 20) + 1024)) --seed 46
    must oracle convert -O qcow2 b.raw b.qcow2
    cat a.raw b.raw a.raw >all.raw
    local how
    for how in '' -c '-o compat=0.10' '-o cluster_size=2M'; do
        rm -f all.qcow2
        # shellcheck disable=SC2086
        must "$QCOW2" convert $how -O qcow2 a.raw b.qcow2 a.raw all.qcow2
        written_right all.qcow2 all.raw
    done
    must "$QCOW2" convert -O raw a.raw b.qcow2 a.raw got.raw
    same_bytes all.raw got.raw
}

@test "--target-is-zero into images made before" {
    disk_for 64k
    local size
    size=$(stat -c %s "$disk")
    must oracle create -f qcow2 t.qcow2 "$size"
    must "$QCOW2" convert -n --target-is-zero -O qcow2 "$disk" t.qcow2
    written_right t.qcow2 "$disk"
    truncate -s "$size" t.raw
    must "$QCOW2" convert -n --target-is-zero -O raw "$disk" t.raw
    same_bytes "$disk" t.raw
    takes_at_most t.raw "$(disk_bytes "$disk")"
    # Without it the zeros of the source must replace what is there.
    head -c "$size" /dev/urandom >u.raw
    must "$QCOW2" convert -n -O raw "$disk" u.raw
    same_bytes "$disk" u.raw
}

@test "the number of threads does not change a byte of the image" {
    local how
    imgtool fill disk.raw $(((40 << 20) + 512)) --seed 47 --grain 16k
    for how in '' -c '-S 0' '-o cluster_size=4k' '-c -o cluster_size=4k,compat=0.10' \
        '-c -o cluster_size=2M'; do
        echo "convert $how"
        # shellcheck disable=SC2086
        must "$QCOW2" convert -m 1 $how -O qcow2 disk.raw m1.qcow2
        # shellcheck disable=SC2086
        must "$QCOW2" convert -m 8 $how -O qcow2 disk.raw m8.qcow2
        same_bytes m1.qcow2 m8.qcow2
        clean m8.qcow2
        same m8.qcow2 disk.raw
    done
    must "$QCOW2" convert -m 8 -O raw m8.qcow2 got.raw
    same_bytes disk.raw got.raw
}

@test "-W, out of order" {
    disk_for 64k
    must "$QCOW2" convert -W -m 8 -O qcow2 "$disk" out.qcow2
    written_right out.qcow2 "$disk"
    must "$QCOW2" convert -W -m 8 -O raw "$disk" out.raw
    same_bytes "$disk" out.raw
}

@test "cache modes, -C and -r change nothing" {
    disk_for 64k
    local how
    for how in '-t none -T none' '-t writeback -T writeback' '-t writethrough -T writethrough' \
        '-t directsync -T directsync' '-t unsafe -T unsafe' -C '-r 1G' '-p -q'; do
        echo "convert $how"
        rm -f out.qcow2 out.raw
        # shellcheck disable=SC2086
        must "$QCOW2" convert $how -O qcow2 "$disk" out.qcow2
        # shellcheck disable=SC2086
        must "$QCOW2" convert $how -O raw out.qcow2 out.raw
        clean out.qcow2
        same_bytes "$disk" out.raw
    done
}

@test "an existing target is replaced, whatever it was" {
    disk_for 64k
    local old
    for old in junk qcow2 snapshots; do
        case $old in
        junk) head -c 20M /dev/urandom >out ;;
        *) must oracle create -f qcow2 out 30M ;;
        esac
        [ "$old" != snapshots ] || must oracle snapshot -c old out
        must "$QCOW2" convert -O qcow2 "$disk" out
        written_right out "$disk"
        must "$QCOW2" convert -O raw "$disk" out
        same_bytes "$disk" out
        rm out
    done
}

@test "empty disks and disks of one sector" {
    local size how
    for size in 0 512; do
        truncate -s "$size" tiny.raw
        for how in '' -c '-S 0' '-o preallocation=metadata'; do
            echo "size $size, convert $how"
            rm -f tiny.qcow2
            # shellcheck disable=SC2086
            must "$QCOW2" convert $how -f raw -O qcow2 tiny.raw tiny.qcow2
            clean tiny.qcow2
            same tiny.qcow2 tiny.raw
            must "$QCOW2" convert -O raw tiny.qcow2 back.raw
            same_bytes tiny.raw back.raw
        done
    done
}

# A disk with 4 KiB of data in each 128 KiB.
sparse_disk() {
    local i
    truncate -s 64M sparse.raw
    for ((i = 0; i < 512; i++)); do echo "write -q -P $((i % 255 + 1)) $((i << 17)) 4k"; done |
        qemu_io raw sparse.raw
}

@test "the data areas of both formats stay sparse" {
    sparse_disk
    local have source target
    have=$(disk_bytes sparse.raw)
    must "$QCOW2" convert -O qcow2 sparse.raw a.qcow2
    must "$QCOW2" convert -O raw sparse.raw b.raw
    must "$QCOW2" convert -O raw a.qcow2 c.raw
    must "$QCOW2" convert -O qcow2 a.qcow2 d.qcow2
    must oracle convert -O qcow2 -S 0 sparse.raw full.qcow2
    must "$QCOW2" convert -O qcow2 full.qcow2 e.qcow2
    must "$QCOW2" convert -O raw full.qcow2 f.raw
    for target in b.raw c.raw f.raw; do
        echo "$target: $(disk_bytes $target), source $have"
        same_bytes sparse.raw $target
        takes_at_most $target "$have"
    done
    for target in a.qcow2 d.qcow2 e.qcow2; do
        echo "$target: $(disk_bytes $target), source $have"
        clean $target
        same sparse.raw $target
        # Header, refcounts, L1 and one L2 table.
        takes_at_most $target $((have + 5 * 65536))
    done
}

@test "zeros that were written become holes, and unallocated clusters" {
    head -c 64M /dev/zero >zeros.raw
    must "$QCOW2" convert -O raw zeros.raw out.raw
    same_bytes zeros.raw out.raw
    takes_at_most out.raw 0
    must "$QCOW2" convert -O qcow2 zeros.raw out.qcow2
    clean out.qcow2
    takes_at_most out.qcow2 $((5 * 65536))
    [ "$(oracle map --output=json out.qcow2 | grep -c '"present": true')" -eq 0 ]
}

@test "no more clusters are allocated than QEMU allocates" {
    local how
    for how in '' -c '-o cluster_size=4k' '-o cluster_size=512' '-o cluster_size=2M' \
        '-c -o cluster_size=4k' '-o compat=0.10'; do
        case $how in *2M) disk_for 2M ;; *) disk_for 64k ;; esac
        # shellcheck disable=SC2086
        must "$QCOW2" convert $how -O qcow2 "$disk" mine.qcow2
        # shellcheck disable=SC2086
        must oracle convert $how -O qcow2 "$disk" theirs.qcow2
        echo "convert $how: $(allocated mine.qcow2), QEMU $(allocated theirs.qcow2)"
        [ "$(allocated mine.qcow2)" -le "$(allocated theirs.qcow2)" ]
    done
}

@test "-S: runs of zeros shorter than that are written, longer ones left out, as QEMU does" {
    # 16 KiB of data, 96 KiB of zeros, 16 KiB of data, 48 KiB of zeros, 16 KiB of data.
    local size
    truncate -s 192k s.raw
    for size in 0 112 176; do echo "write -q -P 1 ${size}k 16k"; done | qemu_io raw s.raw
    dd if=s.raw of=written.raw conv=notrunc status=none
    for size in 4k 32k 64k 128k; do
        must oracle convert -S "$size" -O qcow2 -o cluster_size=4k written.raw theirs.qcow2
        must "$QCOW2" convert -S "$size" -O qcow2 -o cluster_size=4k written.raw mine.qcow2
        same mine.qcow2 written.raw
        echo "-S $size: $(allocated mine.qcow2), QEMU $(allocated theirs.qcow2)"
        [ "$(allocated mine.qcow2)" -eq "$(allocated theirs.qcow2)" ]
    done
}

allocated() {
    oracle check --output=json "$1" | json_value '["allocated-clusters"]'
}

@test "compressed images are no larger than QEMU's by more than a twentieth" {
    imgtool fill disk.raw 24M --seed 48 --grain 64k
    must "$QCOW2" convert -c -O qcow2 disk.raw mine.qcow2
    must oracle convert -c -O qcow2 disk.raw theirs.qcow2
    stat -c "%n %s" mine.qcow2 theirs.qcow2
    [ "$(stat -c %s mine.qcow2)" -le $(($(stat -c %s theirs.qcow2) * 21 / 20)) ]
}

@test "standard output stays empty and standard error too" {
    disk_for 64k
    run --separate-stderr "$QCOW2" convert -O qcow2 "$disk" out.qcow2
    [ "$status" -eq 0 ] && [ -z "$output" ] && [ -z "$stderr" ]
}
