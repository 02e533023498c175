#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Names of images that are options: --image-opts KEY=VALUE,..., json:{...}, file:PATH. What
# each means is held to QEMU, and so is what is refused, word by word.

load helpers

setup() {
    q2_setup
    mkdir ../ours
    ln -s "$QCOW2" ../ours/qemu-io
    ours=$BATS_TEST_TMPDIR/ours/qemu-io
    theirs=$(command -v qemu-io)
    must oracle create -f qcow2 disk.qcow2 1M
    must oracle create -f qcow2 -b disk.qcow2 -F qcow2 over.qcow2
    must oracle create -f raw disk.raw 1M
    must qemu-io -f raw -c 'write -P 0x55 0 1M' disk.raw
    must qemu-io -f qcow2 -c 'write -P 0x11 0 64k' disk.qcow2
    must qemu-io -f qcow2 -c 'write -P 0x22 128k 64k' over.qcow2
}

# same_io ARGUMENTS...: both programs say the same and end the same.
same_io() {
    local code=0 want=0
    "$theirs" "$@" >want 2>&1 </dev/null || want=$?
    "$ours" "$@" >got 2>&1 </dev/null || code=$?
    echo "[exit $want]" >>want
    echo "[exit $code]" >>got
    # A key alone is deprecated there; a hint of two lines says so.
    sed -i -E 's/(ops; ).*/\1T/' want got
    sed -i -e '/short-form boolean option/d' -e '/^Please use .* instead$/d' \
        -e '/is deprecated; use "backing": null/d' want
    diff -u want got >differs || fail "qemu-io $*"$'\n'"$(tail -n +3 differs)"
}

same_img() {
    local code=0 want=0
    oracle "$@" >want 2>&1 </dev/null || want=$?
    qemu-img "$@" >got 2>&1 </dev/null || code=$?
    echo "[exit $want]" >>want
    echo "[exit $code]" >>got
    diff -u want got >differs || fail "qemu-img $*"$'\n'"$(tail -n +3 differs)"
}

@test "lists of options mean what they mean in QEMU" {
    while IFS= read -r name; do
        same_io --image-opts -c length -c map -c 'read -P 0x11 0 64k' "$name"
    done <<'END'
driver=qcow2,file.filename=disk.qcow2
file.filename=disk.qcow2
driver=qcow2,file.driver=file,file.filename=disk.qcow2
driver=raw,file.filename=disk.qcow2
driver=file,filename=disk.raw
driver=qcow2,file.driver=raw,file.file.filename=disk.qcow2
driver=qcow2,file.filename=disk.qcow2,driver=raw
driver=qcow2,file.filename=over.qcow2
driver=qcow2,file.filename=over.qcow2,backing.driver=raw,backing.file.filename=disk.raw
driver=qcow2,file.filename=over.qcow2,backing.file.filename=disk.raw,backing.driver=raw
driver=qcow2,file.filename=over.qcow2,backing.driver=qcow2
driver=qcow2,file.filename=over.qcow2,backing.driver=raw
driver=qcow2,file.filename=over.qcow2,backing.lazy-refcounts=on
driver=qcow2,file.filename=over.qcow2,backing=
driver=qcow2,file.filename=disk.qcow2,lazy-refcounts
driver=qcow2,file.filename=disk.qcow2,nolazy-refcounts
driver=qcow2,file.filename=disk.qcow2,lazy-refcounts=yes,lazy-refcounts=no
driver=qcow2,file.filename=disk.qcow2,lazy-refcounts=on,pass-discard-request=off
driver=qcow2,file.filename=disk.qcow2,pass-discard-snapshot=on,pass-discard-other=on
driver=qcow2,file.filename=disk.qcow2,overlap-check=all
driver=qcow2,file.filename=disk.qcow2,overlap-check.template=none,overlap-check.main-header=on
driver=qcow2,file.filename=disk.qcow2,overlap-check.template=all,overlap-check=all
driver=qcow2,file.filename=disk.qcow2,cache-size=2M,l2-cache-size=1M
driver=qcow2,file.filename=disk.qcow2,l2-cache-size=1M,refcount-cache-size=2M
driver=qcow2,file.filename=disk.qcow2,l2-cache-entry-size=4096,cache-clean-interval=10
driver=qcow2,file.filename=disk.qcow2,detect-zeroes=unmap,discard=unmap
driver=qcow2,file.filename=disk.qcow2,discard=on,detect-zeroes=on
driver=qcow2,file.filename=disk.qcow2,cache.direct=on,cache.no-flush=on
driver=qcow2,file.filename=disk.qcow2,auto-read-only=on,node-name=some
driver=qcow2,file.filename=disk.qcow2,file.locking=auto,file.aio=threads,file.discard=unmap
driver=qcow2,file.filename=disk.qcow2,
END
}

@test "lists of options are refused with QEMU's words" {
    while IFS= read -r name; do
        same_io --image-opts -c length "$name"
    done <<'END'

disk.qcow2
filename=disk.qcow2
driver=qcow2
driver=raw,filename=disk.raw
driver=qcow2,filename=disk.qcow2
driver=foo,file.filename=disk.qcow2
driver=qcow2,file=x
driver=raw,file.filename=disk.qcow2,file=x
driver=qcow2,file.filename=disk.qcow2,foo=bar
driver=qcow2,file.filename=disk.qcow2,=3
driver=qcow2,file.filename=disk.qcow2,file.foo=bar
driver=qcow2,file.filename=none
driver=qcow2,file.filename=disk.qcow2,,x
driver=qcow2,file.filename=
driver=qcow2,file.filename=disk.raw
driver=qcow2,file.driver=foo,file.filename=disk.qcow2
driver=raw,file.filename=disk.raw,lazy-refcounts=on
driver=qcow2,file.filename=disk.qcow2,cache-size=x
driver=qcow2,file.filename=disk.qcow2,cache-size=-1
driver=qcow2,file.filename=disk.qcow2,cache-size=
driver=qcow2,file.filename=disk.qcow2,cache-size=1M,l2-cache-size=2M
driver=qcow2,file.filename=disk.qcow2,cache-size=1M,refcount-cache-size=2M
driver=qcow2,file.filename=disk.qcow2,cache-size=1M,refcount-cache-size=1M,l2-cache-size=1M
driver=qcow2,file.filename=disk.qcow2,l2-cache-entry-size=1000
driver=qcow2,file.filename=disk.qcow2,l2-cache-entry-size=128k
driver=qcow2,file.filename=disk.qcow2,cache-clean-interval=x
driver=qcow2,file.filename=disk.qcow2,cache-clean-interval=5000000000
driver=qcow2,file.filename=disk.qcow2,overlap-check=foo
driver=qcow2,file.filename=disk.qcow2,overlap-check.template=foo
driver=qcow2,file.filename=disk.qcow2,overlap-check.template=all,overlap-check=none
driver=qcow2,file.filename=disk.qcow2,overlap-check.main-header=maybe
driver=qcow2,file.filename=disk.qcow2,overlap-check.foo=on
driver=qcow2,file.filename=disk.qcow2,detect-zeroes=foo
driver=qcow2,file.filename=disk.qcow2,detect-zeroes=unmap,discard=ignore
driver=qcow2,file.filename=disk.qcow2,discard=foo
driver=qcow2,file.filename=disk.qcow2,cache.direct=foo
driver=qcow2,file.filename=disk.qcow2,cache.writeback=on
driver=qcow2,file.filename=disk.qcow2,read-only=on
driver=qcow2,file.filename=disk.qcow2,force-share=on
driver=qcow2,file.filename=disk.qcow2,lazy-refcounts=
driver=qcow2,file.filename=disk.qcow2,pass-discard-request=foo
driver=qcow2,file.filename=disk.qcow2,file.locking=x
driver=qcow2,file.filename=disk.qcow2,file.aio=x
driver=qcow2,file.filename=disk.qcow2,file.aio=native
driver=qcow2,file.filename=disk.qcow2,aio=native
driver=qcow2,file.filename=over.qcow2,backing=x
driver=qcow2,file.filename=over.qcow2,backing.driver=foo
driver=qcow2,file.filename=over.qcow2,backing.x=on
driver=qcow2,file.filename=over.qcow2,backing.file.filename=none
END
    same_io --image-opts -f qcow2 -c length driver=qcow2,file.filename=disk.qcow2
    # What is said to be a file's name is one, whatever it begins with.
    run "$ours" --image-opts -c length driver=qcow2,file.filename=file:disk.qcow2
    [ "$status" -eq 1 ]
    [[ $output == *"file:disk.qcow2': No such file or directory" ]]
    # An option of qcow2 for an image that turns out to be raw.
    run "$ours" --image-opts -r -c length file.filename=disk.raw,lazy-refcounts=on
    [ "$status" -eq 1 ]
    [[ $output == *"Block format 'raw' does not support the option 'lazy-refcounts'"* ]]
}

@test "JSON means what it means in QEMU" {
    while IFS= read -r name; do
        same_io -c length -c map -c 'read -P 0x55 0 64k' "json:$name"
    done <<'END'
{"driver":"qcow2","file":{"driver":"file","filename":"disk.qcow2"}}
{"driver":"qcow2","file.filename":"disk.qcow2"}
{"file":{"filename":"disk.qcow2"}}
{"driver":"qcow2","lazy-refcounts":true,"file.filename":"disk.qcow2"}
{"driver":"qcow2","cache-size":1048576,"file.filename":"disk.qcow2"}
{"driver":"qcow2","cache-size":"1M","file.filename":"disk.qcow2"}
{"driver":"qcow2","overlap-check":{"template":"all","main-header":false},"file.filename":"disk.qcow2"}
{"driver":"qcow2","backing":null,"file.filename":"over.qcow2"}
{"driver":"qcow2","backing":{"driver":"raw","file.filename":"disk.raw"},"file.filename":"over.qcow2"}
{"driver":"qcow2","backing":{"driver":"raw","file":{"driver":"file","filename":"disk.raw"}},"file.filename":"over.qcow2"}
{"driver":"qcow2","backing":{"driver":"raw","file.filename":"disk.raw"},"file.filename":"disk.qcow2"}
{"driver":"qcow2"}
{"driver":"qcow2","file":5}
{"file":"x"}
{"driver":"qcow2","foo":1,"file.filename":"disk.qcow2"}
{"driver":"qcow2","lazy-refcounts":"foo","file.filename":"disk.qcow2"}
{"driver":"qcow2","lazy-refcounts":1,"file.filename":"disk.qcow2"}
{"driver":"qcow2","file.filename":"none"}
{"driver":"qcow2","backing":{"file.filename":"none"},"file.filename":"over.qcow2"}
[]
END
    for name in 'json:' 'json:{' 'json:{"driver":"qcow2",}'; do
        run "$ours" -c length "$name"
        [ "$status" -eq 1 ]
        [[ $output == "qemu-io: can't open device $name: Could not parse the JSON options: "* ]]
    done
    run "$ours" -c length 'json:{"driver":"qcow2","file":[1]}'
    [ "$status" -eq 1 ]
}

@test "a path after file:, and one with a colon that is an option" {
    same_io -c length file:disk.qcow2
    same_io -c length file:none
    same_img info file:none
    cp disk.qcow2 a:b
    must "$ours" -c length --image-opts driver=qcow2,file.filename=a:b
    must "$ours" -c length 'json:{"driver":"qcow2","file.filename":"a:b"}'
    must qemu-img info file:a:b
    one_error 1 qemu-img info a:b
    message_has "Unknown protocol 'a'"
}

# Every command that opens images, by options.
@test "info, check, map, compare and convert open such names" {
    opts=driver=qcow2,file.filename=over.qcow2
    json='json:{"driver":"qcow2","file.filename":"over.qcow2"}'
    settle
    qemu-img info over.qcow2 >want
    qemu-img info --image-opts $opts | diff want -
    qemu-img info "$json" | diff want -
    qemu-img info file:over.qcow2 | diff want -
    qemu-img info --backing-chain --image-opts $opts | grep -q '^image: disk.qcow2'

    same_img map --image-opts $opts
    same_img map "$json"
    same_img check --image-opts $opts
    same_img check "$json"
    same_img check file:over.qcow2
    same_img check --output=json --image-opts $opts

    same_img compare --image-opts $opts $opts
    same_img compare over.qcow2 "$json"
    same_img compare --image-opts $opts driver=raw,file.filename=disk.raw

    must qemu-img convert --image-opts -O raw $opts got.raw
    must oracle compare -f qcow2 -F raw over.qcow2 got.raw
    must qemu-img convert -O raw "$json" file:got2.raw
    must cmp got.raw got2.raw
    must qemu-img convert -O raw 'json:{"driver":"qcow2","file.filename":"over.qcow2","backing":null}' got3.raw
    must oracle compare -f raw -F raw got3.raw <(true) || true
    [ "$(head -c 65536 got3.raw | tr -d '\0' | wc -c)" -eq 0 ]

    must oracle create -f qcow2 target 1M
    must qemu-img convert -n --target-image-opts over.qcow2 \
        driver=qcow2,lazy-refcounts=on,file.filename=target
    must oracle compare over.qcow2 target
    clean target
    must qemu-img convert -n disk.raw 'json:{"driver":"qcow2","file.filename":"target"}'
    must oracle compare -f raw -F qcow2 disk.raw target
    clean target
}

@test "what does not go together is refused as QEMU does" {
    opts=driver=qcow2,file.filename=disk.qcow2
    for command in info map check; do
        same_img $command -f qcow2 --image-opts $opts
        same_img $command --image-opts $opts,foo=bar
        same_img $command --image-opts driver=qcow2,file.filename=none
        same_img $command 'json:{"driver":"qcow2","file.filename":"none"}'
    done
    # info opens no backing file, whether the image has one or not.
    for file in disk.qcow2 over.qcow2; do
        same_img info --image-opts driver=qcow2,file.filename=$file,backing.driver=raw
        one_error 1 qemu-img info --image-opts --backing-chain \
            driver=qcow2,file.filename=$file,backing.file.filename=none
        message_has "'qcow2' does not support the option 'backing.file.filename'"
    done
    same_img compare -f qcow2 --image-opts $opts $opts
    same_img compare -F qcow2 --image-opts $opts $opts
    same_img convert -f qcow2 --image-opts $opts x
    same_img convert -O qcow2 --target-image-opts disk.qcow2 $opts
    same_img convert --target-image-opts disk.qcow2 $opts
    same_img convert -n -O qcow2 --target-image-opts disk.raw $opts
    one_error 1 qemu-img create -f qcow2 'json:{"driver":"qcow2"}' 1M
    one_error 1 qemu-img convert disk.raw 'json:{"driver":"qcow2"}'
    one_error 1 qemu-img convert -n --target-image-opts disk.qcow2 $opts
    message_has 'cannot be the target'
    absent x
}

@test "an image's own backing name is never options" {
    must oracle create -f qcow2 -u -F raw -b 'json:{"driver":"raw","file.filename":"disk.raw"}' \
        evil.qcow2 1M
    for command in map 'convert -O raw' compare; do
        # shellcheck disable=SC2086
        run qemu-img $command evil.qcow2 x
        [ "$status" -ne 0 ]
    done
    one_error 1 qemu-img map evil.qcow2
    message_has "Unknown protocol 'json'"
    run "$ours" -c 'read 0 512' evil.qcow2
    [ "$status" -eq 1 ]
    [[ $output == *"Unknown protocol 'json'"* ]]
}

@test "--object takes a secret and refuses other kinds" {
    must qemu-img info --object secret,id=a,data=b disk.qcow2
    must "$ours" --object secret,id=a,data=b -c length disk.qcow2
    must_exit 1 "$ours" --object throttle-group,id=a -c length disk.qcow2
    one_error 1 qemu-img info --object throttle-group,id=a disk.qcow2
    message_has 'throttle-group'
}

@test "lazy-refcounts=on lasts as long as the image is open" {
    for switch in on off; do
        must oracle create -f qcow2 -o lazy_refcounts=off lazy.qcow2 1M
        run "$ours" --image-opts -c 'write 0 64k' -c 'sigraise 9' \
            driver=qcow2,lazy-refcounts=$switch,file.filename=lazy.qcow2
        [ "$status" -eq 137 ]
        dirty=$(oracle info --output=json lazy.qcow2 | json_value '["dirty-flag"]')
        case $switch in on) [ "$dirty" = True ] ;; off) [ "$dirty" = False ] ;; esac
        must "$ours" --image-opts -c 'read -P 0xcd 0 64k' -c 'write 64k 64k' \
            driver=qcow2,lazy-refcounts=$switch,file.filename=lazy.qcow2
        clean lazy.qcow2
        [ "$(oracle info --output=json lazy.qcow2 | json_value '["dirty-flag"]')" = False ]
        [ "$(oracle info --output=json lazy.qcow2 |
            json_value '["format-specific"]["data"]["lazy-refcounts"]')" = False ]
    done
}

@test "detect-zeroes makes zeros that are written cheap" {
    must "$ours" --image-opts -c 'write -P 0 0 64k' \
        driver=qcow2,detect-zeroes=on,file.filename=disk.qcow2
    qemu-img map --output=json disk.qcow2 >said
    json_value '[0]["zero"]' <said | grep -qx True
    clean disk.qcow2
}

@test "discard and pass-discard-request say whether space is given back" {
    for row in 'discard=unmap yes' 'discard=unmap,pass-discard-request=off no' 'discard=ignore no'; do
        read -r options freed <<<"$row"
        must oracle create -f qcow2 space.qcow2 4M
        must qemu-io -c 'write 0 4M' space.qcow2
        before=$(disk_bytes space.qcow2)
        must "$ours" --image-opts -c 'discard 0 4M' "driver=qcow2,$options,file.filename=space.qcow2"
        after=$(disk_bytes space.qcow2)
        case $freed in
        yes) [ "$after" -lt $((before - 3000000)) ] || fail "$row: $before, $after" ;;
        no) [ "$after" -gt $((before - 100000)) ] || fail "$row: $before, $after" ;;
        esac
        clean space.qcow2
    done
}

@test "a raw disk may be a part of its file" {
    while IFS= read -r name; do
        same_io --image-opts -c length -c map -c 'read -v 0 512' "$name"
        same_io --image-opts -c 'write -P 7 1k 3k' -c 'write -z 64k 64k' -c 'discard 0 512' "$name"
        same_img map --image-opts "$name"
        same_img convert -O raw --image-opts "$name" part.raw
        if [ -e part.raw ]; then
            must oracle compare --image-opts driver=raw,file.filename=part.raw "$name"
            rm part.raw
        fi
        same_img resize --image-opts "$name" 2M
    done <<'END'
driver=raw,offset=64k,size=512k,file.filename=disk.raw
driver=raw,offset=100,size=512k,file.filename=disk.raw
driver=raw,size=1M,file.filename=disk.raw
driver=raw,size=0,file.filename=disk.raw
driver=raw,offset=1M,file.filename=disk.raw
driver=raw,offset=9M,file.filename=disk.raw
driver=raw,offset=512,size=8M,file.filename=disk.raw
driver=raw,size=1000,file.filename=disk.raw
driver=raw,offset=x,file.filename=disk.raw
driver=raw,offset=18446744073709551615,file.filename=disk.raw
driver=raw,offset=512,size=18446744073709551104,file.filename=disk.raw
driver=qcow2,offset=0,file.filename=disk.qcow2
END
}

@test "a part of a file is written by convert, and nothing beside it" {
    local part=driver=raw,offset=65000,size=256k,file.filename=disk.raw
    imgtool fill small.raw 256k --seed 3
    cp disk.raw want.raw
    dd if=small.raw of=want.raw bs=1000 seek=65 conv=notrunc status=none
    must qemu-img convert -n -f raw --target-image-opts small.raw "$part"
    same_bytes disk.raw want.raw
    [ "$(qemu-img info --image-opts "$part" | head -n 1)" = \
        "$(oracle info --image-opts "$part" | head -n 1)" ]
    must qemu-img info --output=json \
        'json:{"driver": "raw", "offset": 512, "file": {"driver": "file", "filename": "disk.raw"}}'
}

# A file with an image in its middle, and 100 bytes behind what is said to be its part.
image_in_file() {
    must oracle create -q -f qcow2 inner.qcow2 1M
    must qemu-io -f qcow2 -c 'write -P 0x11 0 64k' -c 'write -P 0x22 128k 64k' inner.qcow2
    (
        head -c 70001 /dev/zero | tr '\0' x
        cat inner.qcow2
    ) >big
    truncate -s 3000000 big
    printf 'behind the part' >>big
}

@test "a qcow2 image may be a part of its file" {
    image_in_file
    while IFS= read -r name; do
        same_io --image-opts -c length -c map -c 'read -P 0x11 0 64k' -c 'read -P 0x22 128k 64k' "$name"
        same_img map --image-opts "$name"
        same_img check --image-opts "$name"
        same_img compare --image-opts "$name" driver=qcow2,file.filename=inner.qcow2
        [ "$(qemu-img info --image-opts "$name" | head -n 4)" = \
            "$(oracle info --image-opts "$name" | head -n 4)" ]
    done <<'END'
driver=qcow2,file.driver=raw,file.offset=70001,file.file.filename=big
file.driver=raw,file.offset=70001,file.file.filename=big
driver=qcow2,file.driver=raw,file.offset=70001,file.size=2M,file.file.filename=big
driver=qcow2,file.driver=raw,file.offset=70000,file.file.driver=raw,file.file.offset=1,file.file.file.filename=big
driver=qcow2,file.driver=raw,file.file.filename=inner.qcow2
driver=raw,offset=512,file.driver=raw,file.offset=512,file.file.filename=big
driver=raw,file.driver=raw,file.offset=0,file.file.filename=big
END
    while IFS= read -r name; do
        same_img map --image-opts "$name"
        same_img info --image-opts "$name"
    done <<'END'
driver=qcow2,file.offset=5,file.filename=inner.qcow2
driver=qcow2,offset=5,file.filename=inner.qcow2
driver=qcow2,file.driver=raw,file.offset=9M,file.file.filename=big
driver=qcow2,file.driver=raw,file.size=100,file.file.filename=big
driver=qcow2,file.driver=raw,file.offset=70001,file.size=9M,file.file.filename=big
driver=qcow2,file.driver=raw,file.offset=5,file.file.filename=big
driver=qcow2,file.driver=raw,file.offset=x,file.file.filename=big
driver=qcow2,file.driver=raw,file.offset=1,file.foo=1,file.file.filename=big
END
    # What lies between is told as it is in the image's own JSON.
    qemu-img info --output=json --image-opts \
        driver=qcow2,file.driver=raw,file.offset=70001,file.size=2M,file.file.filename=big >said
    [ "$(json_value '["children"][0]["info"]["virtual-size"]' <said)" = 2097152 ]
    [ "$(json_value '["children"][0]["info"]["children"][0]["info"]["filename"]' <said)" = big ]
}

@test "an image that is a part of its file is changed and mended, and nothing beside it" {
    image_in_file
    local part=driver=qcow2,file.driver=raw,file.offset=70001,file.size=2M,file.file.filename=big
    head -c 70001 big >before
    tail -c 832862 big >behind
    must "$ours" --image-opts -c 'write -P 0x33 500k 200k' -c 'discard 0 64k' "$part"
    must qemu-img snapshot -c one --image-opts "$part"
    must qemu-img amend -o lazy_refcounts=on --image-opts "$part"
    must "$ours" --image-opts -c 'write -P 0x44 0 4k' "$part"
    must oracle check --image-opts "$part"
    must "$theirs" --image-opts -r -c 'read -P 0x33 500k 200k' -c 'read -P 0x44 0 4k' \
        -c 'read -P 0x22 128k 64k' "$part"
    # Dirty, with a refcount that is wrong: opening for writing mends it in its place.
    run "$ours" --image-opts -c 'write -P 0x55 800k 64k' -c 'sigraise 9' "$part"
    [ "$status" -eq 137 ]
    oracle info --output=json --image-opts "$part" | json_value '["dirty-flag"]' | grep -qx True
    must qemu-img check -r all --image-opts "$part"
    must oracle check --image-opts "$part"
    run "$ours" --image-opts -c 'write -P 0x55 800k 64k' -c 'sigraise 9' "$part"
    must "$ours" --image-opts -c 'write -P 0x66 900k 4k' "$part"
    must oracle check --image-opts "$part"
    # No room behind the end of the part.
    must_exit 1 "$ours" --image-opts -c 'write -P 0x77 0 1M' -c 'write -P 0x78 0 1M' \
        "${part/2M/512k}"
    cmp <(head -c 70001 big) before
    cmp <(tail -c 832862 big) behind
    # A part without a size grows with the file.
    local open=${part/,file.size=2M/}
    must qemu-img resize --image-opts "$open" 8M
    must "$ours" --image-opts -c 'write -P 0x77 2M 4M' "$open"
    must qemu-img bitmap --add --image-opts "$open" b0
    must oracle check --image-opts "$open"
    must "$theirs" --image-opts -r -c 'read -P 0x77 2M 4M' "$open"
    cmp <(head -c 70001 big) before
}

@test "a repair of a part is taken back in its place" {
    image_in_file
    local part=driver=qcow2,file.driver=raw,file.offset=70001,file.file.filename=big
    python3 -c 'f = open("big", "r+b"); f.seek(70001 + 2 * 65536 + 8); f.write(bytes([0, 9]))'
    cp big broken
    must_exit 2 qemu-img check --image-opts "$part"
    must qemu-img check -r all --undo-file undo --image-opts "$part"
    must oracle check --image-opts "$part"
    must qemu-img check --undo undo --image-opts "$part"
    cmp big broken
}

@test "an overlay's base may be a part of a file" {
    image_in_file
    must oracle create -q -f qcow2 top.qcow2 1M
    local chain=driver=qcow2,file.filename=top.qcow2,backing.driver=qcow2
    chain+=,backing.file.driver=raw,backing.file.offset=70001,backing.file.file.filename=big
    same_io --image-opts -r -c 'read -P 0x11 0 64k' -c 'read -P 0x22 128k 64k' "$chain"
    same_img convert -O raw --image-opts "$chain" flat.raw
    must oracle compare -f raw -F qcow2 flat.raw inner.qcow2
    one_error 1 qemu-img map --image-opts \
        driver=qcow2,file.filename=top.qcow2,data-file.driver=raw,data-file.offset=1,data-file.file.filename=big
    message_has 'part of another file is not supported'
}
