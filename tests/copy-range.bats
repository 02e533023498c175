#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# convert -C: data that is copied from file to file by the file system.

load helpers

setup() {
    q2_setup
    imgtool fill a.raw 4M --seed 1
    truncate -s 4999680 a.raw
    must oracle convert -f raw -O qcow2 a.raw a.qcow2
}

# with_range COMMAND...: what the file system is asked to copy goes into the file ranges. Its
# ways to fail are set by the caller, as variables.
with_range() {
    local library=$BATS_FILE_TMPDIR/copy_range.so
    [ -e "$library" ] || must "${QCOW2_CC:-${CC:-cc}}" -D_GNU_SOURCE -shared -fPIC -O1 \
        -o "$library" "$BATS_TEST_DIRNAME/tools/copy_range.c" -ldl -lpthread || return 1
    rm -f ranges
    ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" LD_PRELOAD=$library \
        COPY_RANGE_LOG=ranges "$@"
}

copied() {
    awk '$1 > 0 { n += $1 } END { print n + 0 }' ranges 2>/dev/null || echo 0
}

# The file system can copy here; without that there is nothing to test.
can_copy() {
    with_range "$QCOW2" convert -C -f raw -O raw a.raw probe
    [ "$(copied)" -ge 2000000 ] || fail "no file system with copies of ranges: $(cat ranges)"
}

# convert -C ARGUMENTS TARGET gives what QEMU gives without -C, and QEMU finds it sound.
like_oracle() { # FORMAT ARGUMENTS...
    local format=$1
    shift
    rm -f want got
    must oracle convert -O "$format" "$@" want || return 1
    must with_range "$QCOW2" convert -C -O "$format" "$@" got || return 1
    [ "$format" = raw ] || clean got || return 1
    must oracle compare -f "$format" -F "$format" want got
}

@test "all data of plain files and images goes from file to file" {
    local source format
    can_copy
    for source in raw qcow2; do
        for format in raw qcow2; do
            like_oracle "$format" -f "$source" "a.$source"
            (($(copied) >= 2000000))
            cmp <("$QCOW2" dd -f "$format" if=got of=- bs=1M) a.raw
        done
    done
    like_oracle qcow2 -f qcow2 -o compat=0.10,cluster_size=4k a.qcow2
    (($(copied) >= 2000000))
}

@test "calls that copy less than they were asked for are gone on with" {
    COPY_RANGE_MOST=4096 like_oracle qcow2 -f raw a.raw
    (($(copied) >= 2000000 && $(wc -l <ranges) > 500))
}

@test "where the file system does not copy, or stops to, data is read and written" {
    local at code
    for at in 1 3; do
        for code in 5 18 22 38 95; do # EIO, EXDEV, EINVAL, ENOSYS, EOPNOTSUPP
            COPY_RANGE_FAIL=$at COPY_RANGE_ERRNO=$code like_oracle qcow2 -f raw -m 1 a.raw
            # Asked no more once it has failed.
            [ "$(grep -c '^-1' ranges)" -eq 1 ]
            COPY_RANGE_FAIL=$at COPY_RANGE_ERRNO=$code like_oracle raw -f qcow2 a.qcow2
        done
    done
}

@test "data that has another form in the file is read and written" {
    yes 'a line of text' | head -c 1M >words
    must oracle convert -c -f raw -O qcow2 words packed.qcow2
    like_oracle raw -f qcow2 packed.qcow2
    [ "$(copied)" -eq 0 ]
    luks_image locked.qcow2
    must oracle convert -n --object secret,id=s,data=passw0rd -f raw --target-image-opts a.raw \
        driver=qcow2,encrypt.key-secret=s,file.filename=locked.qcow2
    must with_range "$QCOW2" convert -C -O raw --object secret,id=s,data=passw0rd --image-opts \
        driver=qcow2,encrypt.key-secret=s,file.filename=locked.qcow2 got
    [ "$(copied)" -eq 0 ]
    cmp -n 4999680 got a.raw
    cp locked.qcow2 target.qcow2
    must with_range "$QCOW2" convert -C -n --object secret,id=s,data=passw0rd -f raw \
        --target-image-opts a.raw \
        driver=qcow2,encrypt.key-secret=s,file.filename=target.qcow2
    [ "$(copied)" -eq 0 ]
    must with_range "$QCOW2" convert -C -f raw -O qcow2 -o extended_l2=on,cluster_size=16k \
        a.raw got.qcow2
    clean got.qcow2
    same got.qcow2 a.raw
}

@test "layers, snapshots, several sources, targets with content" {
    must oracle create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2 6M
    must qemu-io -c 'write -P 7 70000 300000' -c 'write -z 1M 100k' over.qcow2
    must oracle snapshot -c s over.qcow2
    must qemu-io -c 'write -P 8 200000 300000' over.qcow2
    like_oracle raw -f qcow2 over.qcow2
    (($(copied) >= 2000000))
    like_oracle qcow2 -f qcow2 -o cluster_size=128k over.qcow2
    like_oracle qcow2 -f qcow2 -l s over.qcow2
    like_oracle qcow2 -f qcow2 -B a.qcow2 -F qcow2 over.qcow2
    like_oracle qcow2 -f raw a.raw a.raw
    (($(copied) >= 4000000))

    must oracle create -q -f qcow2 -o cluster_size=4k full.qcow2 6M
    must qemu-io -c 'write -P 9 0 6M' full.qcow2
    must oracle snapshot -c s full.qcow2
    must with_range "$QCOW2" convert -C -n -f raw -O qcow2 a.raw full.qcow2
    clean full.qcow2
    cmp -n 4999680 <("$QCOW2" dd -f qcow2 if=full.qcow2 of=- bs=1M) a.raw
    must qemu-io -r -c 'read -P 9 5001216 1000000' full.qcow2
    must oracle convert -l s -O raw full.qcow2 old.raw
    must qemu-io -r -f raw -c 'read -P 9 0 6M' old.raw
}

@test "where the file system would only read and write, that is done here" {
    local folder=.
    # A folder whose file system is one of those, if this one is not.
    case $(stat -f -c %T .) in
        ext2/ext3 | tmpfs) ;;
        *) folder=/dev/shm ;;
    esac
    ln -s "$(mktemp -d "$folder/q2copy.XXXXXX")" plain
    COPY_RANGE_PLAIN=1 must with_range "$QCOW2" convert -C -f raw -O raw a.raw plain/got
    cmp plain/got a.raw
    rm -r "$(readlink plain)"
    [ "$(copied)" -eq 0 ]
}

@test "zeros in the data stay data, as in QEMU" {
    truncate -s 0 z.raw
    head -c 1M /dev/zero >z.raw
    must "$QCOW2" convert -f raw -O qcow2 z.raw without.qcow2
    must with_range "$QCOW2" convert -C -f raw -O qcow2 z.raw with.qcow2
    [ "$(oracle map --output=json with.qcow2 | jq -c '.[] | [.start, .length, .data]')" = \
        '[0,1048576,true]' ]
    [ "$(oracle map --output=json without.qcow2 | jq -c '.[] | [.start, .length, .data]')" = \
        '[0,1048576,false]' ]
}
