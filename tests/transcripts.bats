#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The sessions with QEMU 10.2 that are recorded in tests/transcripts, played again from the
# first line to the last: each command on files as QEMU leaves them, and all of them by the
# program under test alone (tests/transcripts/play.py).

load helpers

setup() {
    q2_setup
    ln -s "$QCOW2" ../.bin/qemu-io
}

as_recorded() { # FOLDER
    # Times of qemu-io, the name that QEMU makes up for a node, and our version.
    MASK_ALSO+="s/( ops; ).*/\1#/; s/persistent in '[^']*'/persistent in '#'/; s/(tools )[0-9.]+/\1#/"
    mask <"$1.want" >want
    mask <"$1.got" >got
    diff -U 12 want got
}

# QEMU finds our images sound, and in them what is in its own. Not those that were damaged,
# whose repair is another.
same_disks() {
    local image
    cd alone || return 1 # names in images are seen from here
    for image in *; do
        case $image in
        bad* | trunc.*) ;;
        luks.* | aes.*)
            must oracle check --object secret,id=sec0,data=passw0rd --image-opts \
                "driver=qcow2,encrypt.key-secret=sec0,file.filename=$image" || return 1
            ;;
        orphan.*)
            must oracle check "json:{\"driver\": \"qcow2\", \"backing\": null,
                \"file\": {\"driver\": \"file\", \"filename\": \"$image\"}}" || return 1
            ;;
        *.qcow2) clean "$image" && same "../theirs/$image" "$image" || return 1 ;;
        *) same "../theirs/$image" "$image" || return 1 ;;
        esac
    done
}

@test "every command that is recorded, in the order of the recording" {
    must with_clock true
    CLOCK=$BATS_FILE_TMPDIR/steady_clock.so python3 -S \
        "$BATS_TEST_DIRNAME/transcripts/play.py" ../.bin "${ORACLE%/*}" \
        "$BATS_TEST_DIRNAME"/transcripts/*.txt
    diff <(grep -h '^\$ [^#]' "$BATS_TEST_DIRNAME"/transcripts/*.txt) <(grep '^\$ ' alone.got)
    as_recorded theirs
    # Where a file ends depends on where in it things lie.
    MASK_ALSO='s/(file length:|^ {16,20}"virtual-size":) .*/\1 #/;' as_recorded alone
    diff <(ls theirs) <(ls alone)
    same_disks
}
