#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Images from strangers: those of public vulnerabilities, those that ask for more work than
# they hold, disks that pretend to be images, and descriptions that go too deep. What each
# image is, and what becomes of it, stands in tests/hostile/vulnerabilities.py and costly.py.

load helpers

setup() {
    q2_setup
    BARE=0
    if is_bare_program; then BARE=1; fi
    export BARE
}

hold() {
    local said
    said=$(python3 -S "$BATS_TEST_DIRNAME/hostile/hold.py" "$@" 2>&1) || fail "$said"
}

hostile_image() { # NAME: NAME.qcow2, and the file that it may name
    must python3 -S "$BATS_TEST_DIRNAME/hostile/images.py" make "$1"
}

@test "the images of public vulnerabilities are refused, found, or read as they should be" {
    hold vulnerabilities
}

@test "what an image claims costs nothing: info in 64 MiB and a second, the rest in little" {
    hold costly
}

@test "info of the longest snapshot table and bitmap directory takes 64 MiB at most" {
    hold longest
}

# --- raw disks in which a guest has written a qcow2 header (CVE-2014-3641, CVE-2016-2140) --

# disk.raw, whose first sectors are an image with secret.raw as its backing file.
pretender() {
    hostile_image CVE-2015-5163-backing
    mv CVE-2015-5163-backing.qcow2 disk.raw
    head -c 512 disk.raw >sector
    truncate -s 1M zero.raw
}

@test "a raw disk that pretends to be an image is read as bytes when it is called raw" {
    pretender
    must qemu-img convert -f raw -O raw disk.raw copy.raw
    same_bytes disk.raw copy.raw
    [ "$(qemu-img info -f raw --output=json disk.raw | json_value '["format"]')" = raw ]
    must qemu-img create -f qcow2 -b disk.raw -F raw over.qcow2
    must qemu-img convert -O raw over.qcow2 copy.raw
    same_bytes disk.raw copy.raw
    must qemu-img compare -f raw -F qcow2 disk.raw over.qcow2
    # Guessed, it is what it says that it is, as for QEMU: no more is read than there.
    must qemu-img convert -O raw disk.raw ours.raw
    must oracle convert -O raw disk.raw theirs.raw
    same_bytes theirs.raw ours.raw
}

@test "a disk that is only guessed to be raw cannot be given an image's header" {
    pretender
    local code=0
    cp zero.raw guessed.raw
    "$QCOW2" io guessed.raw -c 'write -s sector 0 512' >out 2>err || code=$?
    [ "$code" -eq 1 ]
    grep -q 'probing guessed raw' err
    grep -q 'write failed: Operation not permitted' out
    same_bytes zero.raw guessed.raw
    # Nor in pieces that are no header, each for itself.
    head -c 2 sector >first
    tail -c +3 sector | head -c 510 >rest
    code=0
    "$QCOW2" io guessed.raw -c 'write -s first 0 2' -c 'write -s rest 2 510' >out 2>err || code=$?
    [ "$code" -eq 1 ]
    grep -q 'write failed: Operation not permitted' out
    [ "$(head -c 512 guessed.raw | tr -d '\0' | wc -c)" -eq 2 ]
    cp zero.raw guessed.raw
    # By way of commit: what the guest wrote into an overlay of it.
    must oracle create -q -f qcow2 -b zero.raw -F raw over.qcow2
    must qemu-io -f qcow2 -c 'write -s sector 0 512' over.qcow2
    imgtool extension over.qcow2 backing_format --type 0x12345678
    one_error 1 qemu-img commit over.qcow2
    message_has 'zero.raw.*the format was guessed as raw'
    [ "$(tr -d '\0' <zero.raw | wc -c)" -eq 0 ]
    # Who names the format may write what he likes.
    must "$QCOW2" io -f raw guessed.raw -c 'write -s sector 0 512'
    [ "$(head -c 512 guessed.raw | cmp - sector && echo same)" = same ]
}

@test "a backing file's format is not guessed where QEMU does not" {
    pretender
    must_exit 1 qemu-img create -f qcow2 -b disk.raw over.qcow2
    absent over.qcow2
    qemu-img create -f qcow2 -b disk.raw over.qcow2 2>err || true
    grep -q 'Backing file specified without backing format' err || fail "$(cat err)"
    must oracle create -q -f qcow2 -b zero.raw -F raw over.qcow2
    cp over.qcow2 before.qcow2
    one_error 1 qemu-img rebase -b disk.raw over.qcow2
    message_has 'backing format must be specified'
    one_error 1 qemu-img rebase -u -b disk.raw over.qcow2
    message_has 'backing format must be specified'
    same_bytes before.qcow2 over.qcow2
}

# --- depth ---------------------------------------------------------------------------------

@test "every command that walks a chain says how many layers there may be" {
    local code=0
    truncate -s 64k c0
    must python3 -S - "$BATS_TEST_DIRNAME/hostile" <<'EOF'
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from builder import Builder
for i in range(1, 203):
    b = Builder(size=65536)
    b.name_backing("c%d" % (i - 1), "qcow2" if i > 1 else "raw")
    b.write("c%d" % i)
EOF
    must qemu-img info c202
    one_error 1 qemu-img info --backing-chain c202
    message_has 'longer than 200 images'
    one_error 1 qemu-img map c202
    message_has 'more than 200 layers'
    qemu-img check --backing-chain c202 >out 2>err || code=$?
    [ "$code" -eq 1 ]
    grep -q 'more than 200' err || fail "$(cat err)"
    must qemu-img info --backing-chain c199
}

@test "links that lead in a circle, and descriptions within descriptions, have an end" {
    ln -s one two
    ln -s two one
    one_error 1 qemu-img info one
    message_has 'Too many levels of symbolic links'
    must oracle create -q -f qcow2 a.qcow2 1M
    oracle create -q -f qcow2 -u -b one -F qcow2 b.qcow2 1M
    one_error 1 qemu-img convert -O raw b.qcow2 x
    message_has 'Too many levels of symbolic links'
    local options=driver=qcow2 prefix='' i
    for ((i = 0; i < 12; i++)); do
        prefix+=file.
        options+=,${prefix}driver=raw
    done
    one_error 1 qemu-img map --image-opts "$options,${prefix}file.filename=a.qcow2"
    message_has 'nested too deep: .* no more than 8 nodes'
    # Of a name that is longer than a message can be, what is wrong is told all the same.
    one_error 1 qemu-img info "json:$(python3 -S -c 'print("{\"file\":" * 3000 + "1" + "}" * 3000)')"
    message_has 'Could not parse the JSON options: maximum parsing depth'
}
