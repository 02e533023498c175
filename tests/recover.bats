#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# recover: images without a usable header or L1 table.

load helpers

setup() {
    q2_setup
}

# An image, and broken.qcow2: the same without its first cluster.
break_first() {
    must oracle create -q -f qcow2 image.qcow2 8M
    must qemu-io -f qcow2 -c 'write -P 1 0 64k' -c 'write -P 2 3M 200k' image.qcow2
    cp image.qcow2 broken.qcow2
    must dd if=/dev/urandom of=broken.qcow2 bs=64k count=1 conv=notrunc status=none
}

whole() { # NEW: is what image.qcow2 is
    clean "$1" && must oracle compare image.qcow2 "$1"
}

@test "a sample of damages to all kinds of images" {
    run python3 -S "$BATS_TEST_DIRNAME/recover/matrix.py" --every "${RECOVER_EVERY:-499}" work
    echo "$output"
    [ "$status" -eq 0 ]
    [ "${lines[-1]##*, }" = '0 bad' ]
}

@test "the report, as text and as JSON" {
    break_first
    qcow2 recover broken.qcow2 new.qcow2 >out
    cat >want <<END
cluster size: 65536 (found)
version: 3 (ASSUMED)
virtual size: 3407872 (GUESSED: as far as anything is mapped)
L1 table 1: at 0x30000, 1 L2 tables (taken)
snapshots: 0
L2 tables: 1, mapped 1, left over 0
mapped again: 589824 of 589824 bytes (100.00 %)
The new image is in new.qcow2.
END
    diff -u want out
    qcow2 recover --size 8M --output=json broken.qcow2 other.qcow2 >json
    [ "$(jq -c '[."cluster-size", ."virtual-size", ."size-is-a-guess", ."l1-tables"[0].chosen]' json)" = \
        '[65536,8388608,false,true]' ]
    whole other.qcow2
    qcow2 recover -q --size 8M broken.qcow2 third.qcow2 >out
    [ ! -s out ]
}

@test "the report says where each field comes from" {
    must oracle create -q -f qcow2 -o cluster_size=4k image.qcow2 8M
    must qemu-io -f qcow2 -c 'write -P 1 0 1M' image.qcow2
    must qcow2 snapshot -c one image.qcow2
    cp image.qcow2 broken.qcow2
    qcow2 recover --dry-run --output=json broken.qcow2 >json
    [ "$(jq -c '.sources | [.[]]' json)" = '["header","header","header","none","header"]' ]
    qcow2 recover --dry-run --output=json --size 9M --version 3 --cluster-size 4k -b b -F raw \
        broken.qcow2 >json
    [ "$(jq -c '.sources | [.[]]' json)" = '["option","option","option","option","header"]' ]
    dd if=/dev/urandom of=broken.qcow2 bs=512 count=1 conv=notrunc status=none
    qcow2 recover --dry-run --output=json broken.qcow2 >json
    [ "$(jq -c '.sources | [.[]]' json)" = '["tables","none","snapshot","none","tables"]' ]
}

@test "--leftovers: what has no place goes into files, none of which is overwritten" {
    break_first
    # Two more clusters that nothing leads to, one of them behind a hole.
    size=$(stat -c %s broken.qcow2)
    head -c 65536 /dev/urandom >one
    cat one >>broken.qcow2
    dd if=one of=broken.qcow2 bs=64k seek=$((size / 65536 + 3)) conv=notrunc status=none
    must qcow2 recover -q --dry-run --leftovers left broken.qcow2
    absent left
    must qcow2 recover -q --size 8M --leftovers left broken.qcow2 new.qcow2
    whole new.qcow2
    [ "$(find left -type f | wc -l)" -eq 4 ]
    for at in $size $((size + 3 * 65536)); do
        name=$(printf 'left/0x%012x' "$at")
        head -c 65536 "$name.data" | cmp - one
        grep -qx "offset: $(printf '0x%x' "$at")" "$name.txt"
    done
    rm new.qcow2
    sum=$(cat left/* | sha256sum)
    one_error 1 qcow2 recover -q --leftovers left broken.qcow2 new.qcow2
    message_has 'File exists'
    absent new.qcow2
    [ "$(cat left/* | sha256sum)" = "$sum" ]
}

# Overwrites clusters of broken.qcow2: junk CLUSTER_SIZE [FIRST [COUNT]]
junk() {
    dd if=/dev/urandom of=broken.qcow2 bs="$1" seek="${2:-0}" count="${3:-1}" conv=notrunc \
        status=none
}

@test "nothing is left over of an image that has lost its first cluster alone" {
    for what in '65536 8M 7M' '4096 8M 7M' '512 1G 700M'; do
        read -r cluster size last <<<"$what"
        must oracle create -q -f qcow2 -o "cluster_size=$cluster" image.qcow2 "$size"
        must qemu-io -f qcow2 -c 'write -P 1 0 64k' -c "write -P 2 $last 200k" image.qcow2
        must qcow2 snapshot -c one image.qcow2
        must qemu-io -f qcow2 -c 'write -P 3 32k 64k' image.qcow2
        cp image.qcow2 broken.qcow2
        junk "$cluster"
        qcow2 recover --leftovers left broken.qcow2 new.qcow2 >out
        ! grep 'left over:' out
        [ -z "$(ls left)" ]
        whole new.qcow2
        rm -r left new.qcow2
    done
}

@test "an L1 table whose first entries name nothing begins where it did" {
    must oracle create -q -f qcow2 -o cluster_size=4k image.qcow2 16G
    must qcow2 snapshot -c empty image.qcow2
    must qemu-io -f qcow2 -c 'write -P 1 12G 1M' image.qcow2
    must qcow2 snapshot -c far image.qcow2
    must qemu-io -f qcow2 -c 'write -P 2 15G 1M' image.qcow2
    for damage in '4096 0 1' '4096 0 3' '4 0 1' '8 5 1' '8 8 1'; do
        cp image.qcow2 broken.qcow2
        # shellcheck disable=SC2086
        junk $damage
        qcow2 recover --output=json broken.qcow2 new.qcow2 >json
        whole new.qcow2
        [ "$(jq '."l1-tables"[] | select(.chosen) | ."begin-is-a-guess"' json)" = false ]
        [ "$(qcow2 snapshot -l new.qcow2 | grep -c -w -e empty -e far)" -eq 2 ]
        for state in empty far; do
            for file in image new; do
                must oracle convert -l "$state" -f qcow2 -O qcow2 $file.qcow2 $file-state.qcow2
            done
            must oracle compare image-state.qcow2 new-state.qcow2
        done
        rm new.qcow2
    done
}

@test "a file that was cut off as well: what is there comes back, what is not is told" {
    must oracle create -q -f qcow2 image.qcow2 1G
    must qemu-io -f qcow2 -c 'write -P 1 1M 3M' -c 'write -P 2 600M 1M' image.qcow2
    cp image.qcow2 broken.qcow2
    truncate -s $((4 * 65536 + 65536 + 2 * 1048576)) broken.qcow2
    junk 65536
    qcow2 recover --size 1G broken.qcow2 new.qcow2 >out
    grep -qx 'The file was cut off: 1 L2 tables and 16 clusters of the disk lay behind its end,.*' out
    clean new.qcow2
    must qemu-io -r -f qcow2 -c 'read -P 0 0 1M' -c 'read -P 1 1M 2M' -c 'read -P 0 3M 1021M' new.qcow2
}

@test "compressed clusters speak for an image, however small they are" {
    must oracle create -q -f qcow2 -o cluster_size=2M image.qcow2 8M
    for i in 1 3 4 2; do
        must qemu-io -f qcow2 -c "write -c -P $i $((i * 2 - 2))M 2M" image.qcow2
    done
    cp image.qcow2 broken.qcow2
    junk 2M 0 4
    must qcow2 recover -q broken.qcow2 new.qcow2
    whole new.qcow2
}

@test "the header's own word on size counts where it says what is found" {
    must oracle create -q -f qcow2 -o cluster_size=4k image.qcow2 4G
    must qemu-io -f qcow2 -c 'write -P 1 0 1M' image.qcow2
    cp image.qcow2 broken.qcow2
    junk 8 5 # the place of the L1 table
    must qcow2 recover -q broken.qcow2 new.qcow2
    must oracle compare -s image.qcow2 new.qcow2
    cp image.qcow2 broken.qcow2
    junk 8 3 # the size: the L1 table was made for 4 GiB
    must qcow2 recover -q --force broken.qcow2 new.qcow2
    must oracle compare -s image.qcow2 new.qcow2
}

@test "--data-file: each table says where it belongs" {
    must oracle create -q -f qcow2 -o data_file=disk.raw,data_file_raw=on image.qcow2 3G
    must qemu-io -f qcow2 -c 'write -P 1 0 1M' -c 'write -P 2 700M 2M' \
        -c 'write -P 3 2900M 100k' image.qcow2
    cp image.qcow2 broken.qcow2
    one_error 1 qcow2 recover broken.qcow2 new.qcow2
    message_has "'broken.qcow2' has an external data file: say which, by --data-file"
    dd if=/dev/urandom of=broken.qcow2 bs=1 seek=40 count=20 conv=notrunc status=none
    must qcow2 recover -q --data-file disk.raw broken.qcow2 new.qcow2
    whole new.qcow2
    [ "$(qcow2 info --output=json new.qcow2 | jq '."format-specific".data."data-file-raw"')" = true ]
    dd if=/dev/urandom of=broken.qcow2 bs=64k count=4 conv=notrunc status=none
    hash=$(hash_of disk.raw)
    qcow2 recover --output=json --data-file disk.raw broken.qcow2 other.qcow2 >json
    whole other.qcow2
    [ "$(hash_of disk.raw)" = "$hash" ]
    [ "$(jq -c '[."virtual-size", .sources."virtual-size", (.placed | length)]' json)" = \
        '[3221225472,"data-file",6]' ]
    one_error 1 qcow2 recover broken.qcow2 third.qcow2
    message_has "There is no qcow2 table in 'broken.qcow2'"
}

# Three states with an L1 table each, no header and no snapshot table.
lose_all_but_tables() {
    must oracle create -q -f qcow2 -o cluster_size=4k image.qcow2 8M
    for i in 1 2 3; do
        must qemu-io -f qcow2 -c "write -P $i ${i}M 1M" image.qcow2
        cp image.qcow2 "state$i.qcow2"
        [ "$i" -eq 3 ] || must qcow2 snapshot -c "$i" image.qcow2
    done
    cp image.qcow2 broken.qcow2
    at=$((0x$(od -An -tx1 -j 64 -N 8 image.qcow2 | tr -d ' ')))
    dd if=/dev/urandom of=broken.qcow2 bs=4k count=1 conv=notrunc status=none
    dd if=/dev/urandom of=broken.qcow2 bs=4k count=1 seek=$((at / 4096)) conv=notrunc status=none
}

@test "--candidate takes each L1 table that the report lists" {
    lose_all_but_tables
    qcow2 recover --dry-run --output=json broken.qcow2 >json
    [ "$(jq '."l1-tables" | length' json)" -eq 3 ]
    [ "$(jq -c '[."l1-tables"[].chosen]' json)" = '[true,false,false]' ]
    must qcow2 recover -q --size 8M broken.qcow2 new.qcow2
    whole new.qcow2
    found=()
    for n in 1 2 3; do
        must qcow2 recover -q --size 8M --candidate "$n" broken.qcow2 "new$n.qcow2"
        clean "new$n.qcow2"
        for i in 1 2 3; do
            if oracle compare -q "state$i.qcow2" "new$n.qcow2"; then found+=("$i"); fi
        done
    done
    [ "$(printf '%s\n' "${found[@]}" | sort | tr '\n' ' ')" = '1 2 3 ' ]
}

@test "what is known can be said: version, cluster size, size, backing file" {
    must oracle create -q -f raw base.raw 8M
    must qemu-io -f raw -c 'write -P 9 4M 1M' base.raw
    must oracle create -q -f qcow2 -o compat=0.10,cluster_size=8k -b base.raw -F raw image.qcow2
    must qemu-io -f qcow2 -c 'write -P 1 1M 1M' image.qcow2
    cp image.qcow2 broken.qcow2
    dd if=/dev/urandom of=broken.qcow2 bs=8k count=1 conv=notrunc status=none
    must qcow2 recover -q --version 2 --cluster-size 8k --size 8M -b base.raw -F raw broken.qcow2 \
        new.qcow2
    whole new.qcow2
    [ "$(qcow2 info --output=json new.qcow2 | jq -c '[."virtual-size", ."cluster-size",
        ."format-specific".data.compat, ."backing-filename"]')" = \
        '[8388608,8192,"0.10","base.raw"]' ]
    must qcow2 recover -q -O raw --size 8M -b base.raw -F raw broken.qcow2 new.raw
    must oracle compare -f qcow2 -F raw image.qcow2 new.raw
}

@test "--dry-run writes nothing" {
    break_first
    hash=$(hash_of broken.qcow2)
    must qcow2 recover --dry-run broken.qcow2
    must qcow2 recover --dry-run broken.qcow2 new.qcow2
    absent new.qcow2
    [ "$(hash_of broken.qcow2)" = "$hash" ]
}

@test "-O raw" {
    break_first
    must qcow2 recover -q --size 8M -O raw broken.qcow2 new.raw
    must oracle compare -f qcow2 -F raw image.qcow2 new.raw
}

@test "-O raw has what the backing file has" {
    must oracle create -q -f qcow2 base.qcow2 8M
    must qemu-io -f qcow2 -c 'write -P 7 1M 64k' base.qcow2
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 image.qcow2
    must qemu-io -f qcow2 -c 'write -P 1 0 64k' -c 'write -P 2 3M 200k' image.qcow2
    cp image.qcow2 broken.qcow2
    must dd if=/dev/urandom of=broken.qcow2 bs=64k count=1 conv=notrunc status=none
    must qcow2 recover -q --size 8M -b base.qcow2 -F qcow2 -O raw broken.qcow2 new.raw
    must oracle compare -f qcow2 -F raw image.qcow2 new.raw
}

@test "an encrypted image, whose LUKS header is found" {
    luks_image image.qcow2
    must qemu-io --object secret,id=s,data=passw0rd -c 'write -P 5 0 128k' \
        --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=image.qcow2
    cp image.qcow2 broken.qcow2
    dd if=/dev/urandom of=broken.qcow2 bs=64k count=1 conv=notrunc status=none
    must qcow2 recover broken.qcow2 new.qcow2
    must qcow2 check new.qcow2
    must qemu-io -r --object secret,id=s,data=passw0rd -c 'read -P 5 0 128k' \
        --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=new.qcow2
    one_error 1 qcow2 recover -O raw broken.qcow2 new.raw
    message_has "'broken.qcow2' is encrypted: recover it as qcow2, and convert that"
    absent new.raw
}

# disk.raw: 64 MiB, a partition, ext4 with files in it.
make_disk() {
    mkdir files
    for i in $(seq 40); do
        mkdir "files/$i"
        seq "$i" $((i * 300)) >"files/$i/numbers"
    done
    truncate -s 64M disk.raw
    echo 'start=2048, size=120000, type=83' | sfdisk -q disk.raw
    must mke2fs -q -F -t ext4 -O ^has_journal -b 1024 -d files -E offset=1048576 disk.raw 60000k
}

# L2 tables of the report in json that were placed so.
placed() {
    jq --arg how "$1" '[.placed[] | select(.placed == $how)] | length' json
}

@test "the L1 table of a disk with a file system is put together by what that says" {
    make_disk
    must oracle convert -f raw -O qcow2 -o cluster_size=8k disk.raw image.qcow2
    cp image.qcow2 broken.qcow2
    # Its place and size, from the header.
    l1=$((0x$(od -An -tx1 -j 40 -N 8 broken.qcow2 | tr -d ' ')))
    dd if=/dev/zero of=broken.qcow2 bs=1 seek="$l1" count=64 conv=notrunc status=none
    qcow2 recover --output=json broken.qcow2 new.qcow2 >json
    [ "$(jq '.placed | length' json)" -lt $(($(placed surely) * 2)) ]
    whole new.qcow2
}

@test "another image over the start of one is not believed against the rest of it" {
    make_disk
    must oracle convert -f raw -O qcow2 -o cluster_size=4k disk.raw image.qcow2
    must oracle create -q -f qcow2 -o cluster_size=4k other.qcow2 1G
    must qemu-io -f qcow2 -c 'write -P 9 0 600k' -c 'write -P 8 600M 100k' other.qcow2
    cp other.qcow2 larger.qcow2
    must qemu-io -f qcow2 -c 'write -P 9 600k 1M' larger.qcow2
    # Its header and tables, which lead to this one's; then all of it.
    cp image.qcow2 broken.qcow2
    dd if=larger.qcow2 of=broken.qcow2 bs=32k count=1 conv=notrunc status=none
    must qcow2 recover -q broken.qcow2 new.qcow2
    must oracle convert -f qcow2 -O raw new.qcow2 new.raw
    cmp -i 4M -n 40M disk.raw new.raw
    dd if=other.qcow2 of=broken.qcow2 bs=64k conv=notrunc status=none
    qcow2 recover --dry-run --output=json broken.qcow2 >json
    [ "$(jq '[."l1-tables"[].chosen] | any' json)" = true ]
    [ "$(jq '.placed | length' json)" -eq 0 ]
    qcow2 recover --dry-run --candidate none --output=json broken.qcow2 >json
    [ "$(jq '[."l1-tables"[].chosen] | any' json)" = false ]
    [ "$(jq '.placed | length' json)" -gt 0 ]
}

@test "the L1 table of an image within the image is not taken for its own" {
    must oracle create -q -f qcow2 -o cluster_size=4k inner.qcow2 1M
    must qemu-io -f qcow2 -c 'write -P 1 0 1M' inner.qcow2
    must oracle create -q -f qcow2 -o cluster_size=4k image.qcow2 16M
    must qemu-io -f qcow2 -c 'write -P 2 4M 12M' -c 'write -s inner.qcow2 1M 1M' image.qcow2
    cp image.qcow2 broken.qcow2
    junk 4096 0 4
    qcow2 recover --dry-run --output=json broken.qcow2 >json
    [ "$(jq '."l1-tables" | length' json)" -eq 0 ]
}

@test "an image that does not begin where the file does is told, and where it begins" {
    must oracle create -q -f qcow2 image.qcow2 8M
    must qemu-io -f qcow2 -c 'write -P 1 0 3M' image.qcow2
    for offset in 1048576 $((63 * 512)); do
        head -c "$offset" /dev/urandom >broken.qcow2
        cat image.qcow2 >>broken.qcow2
        one_error 1 qcow2 recover broken.qcow2 new.qcow2
        message_has "'broken.qcow2' holds an image that begins at offset $offset, and must be copied"
        absent new.qcow2
        tail -c +$((offset + 1)) broken.qcow2 | cmp - image.qcow2
    done
}

@test "what is no image is told as such; nothing is left behind" {
    head -c 1M /dev/urandom >random
    : >empty
    seq 100000 >numbers
    # An entry of a table, by chance.
    cp numbers chance
    { printf '\0\0\0\0\0\0\x10\0' && head -c 504 /dev/zero; } |
        dd of=chance bs=512 seek=99 conv=notrunc status=none
    for file in random empty numbers chance; do
        one_error 1 qcow2 recover "$file" new.qcow2
        message_has "There is no qcow2 table in '$file'"
        absent new.qcow2
    done
    one_error 1 qcow2 recover nosuch new.qcow2
    message_has "Could not open 'nosuch': No such file or directory"
    one_error 1 qcow2 recover random
    message_has 'Expecting the broken image and a name for the new one'
}

@test "the new image is neither the broken one nor another file that is there" {
    break_first
    ln -s broken.qcow2 link
    ln broken.qcow2 hard
    hash=$(hash_of broken.qcow2)
    for name in broken.qcow2 link hard; do
        one_error 1 qcow2 recover --force broken.qcow2 "$name"
        message_has "'$name' is the broken image itself, which is only read"
        [ "$(hash_of broken.qcow2)" = "$hash" ]
    done
    echo precious >new.qcow2
    for format in qcow2 raw; do
        one_error 1 qcow2 recover -O "$format" broken.qcow2 new.qcow2
        message_has "'new.qcow2' exists already: --force overwrites it"
        [ "$(cat new.qcow2)" = precious ]
    done
    must qcow2 recover -q --force --size 8M broken.qcow2 new.qcow2
    whole new.qcow2
    : >empty
    must qcow2 recover -q --size 8M broken.qcow2 empty
    whole empty
}

# Exit code, and the last line of what is said: hinted CODE COMMAND...
hinted() {
    run "${@:2}"
    [ "$status" -eq "$1" ]
    [[ $output == *'ooks like a qcow2 image whose header is lost: see '"'qcow2 recover'"* ]]
}

@test "check and info name recover where an image's header is lost, and print what they did" {
    local of='looks like a qcow2 image whose header is lost: see'
    break_first
    qcow2 info --output=json broken.qcow2 >json 2>said
    [ "$(cat said)" = "qcow2: 'broken.qcow2' $of 'qcow2 recover'" ]
    qcow2 info -f raw --output=json broken.qcow2 2>said | diff - json
    qemu-img info broken.qcow2 2>>said >/dev/null
    [ ! -s said ]
    hinted 63 qcow2 check broken.qcow2
    hinted 0 qcow2 map broken.qcow2
    hinted 1 qcow2 info -f qcow2 broken.qcow2
    # Not only the first bytes.
    cp image.qcow2 broken.qcow2
    dd if=/dev/urandom of=broken.qcow2 bs=1 seek=4 count=60 conv=notrunc status=none
    hinted 1 qcow2 info broken.qcow2
}

@test "no disk, archive, text or program passes for an image whose header is lost" {
    break_first
    truncate -s 16M zeros partitioned
    echo 'start=2048, type=83' | sfdisk -q partitioned
    mkdir files
    cp image.qcow2 files
    must mke2fs -q -F -t ext4 -d files -E offset=1048576 partitioned 15360k
    tar cf archive.tar files
    tar czf archive.tar.gz files
    head -c 300000 /dev/urandom >random
    seq 100000 >text
    for file in zeros partitioned archive.tar archive.tar.gz random text /usr/bin/ls; do
        qcow2 info "$file" 2>said >/dev/null
        [ ! -s said ]
        run qcow2 check "$file"
        [ "$status" -eq 63 ]
        [ "$output" = 'qcow2: This image format does not support checks' ]
    done
}

@test "files full of what looks like tables take bounded time and memory" {
    python3 -S "$BATS_TEST_DIRNAME/recover/hostile.py" hostile
    for file in hostile/*; do
        code=0
        (
            ulimit -t 60
            if is_bare_program; then ulimit -v 400000; fi
            exec "$QCOW2" recover -q "$file" "$file.new"
        ) 2>said || code=$?
        case $code in
            0) must qcow2 check "$file.new" ;;
            1) [ "$(wc -l <said)" -eq 1 ] ;;
            *) fail "$file: exit $code: $(cat said)" ;;
        esac
        rm -f "$file.new"
    done
}
