# SPDX-License-Identifier: MIT
# The same command lines by QEMU and by the program under test, each in a folder of its own
# that was filled alike: what they say, their exit codes and the disks they leave are to be
# the same.
#
# shellcheck shell=bash disable=SC2154

# What differs by version or run: where help is to be found; how often progress is shown;
# times.
plain() {
    tr '\r' '\n' | sed -E -e '/^ +\([0-9.]+\/100%\)$/d' -e '/^$/d' \
        -e 's/completed in [0-9.]+ seconds/completed in # seconds/' \
        -e "s/'qemu-img ([a-z]+ )?--help'/'qemu-img --help'/"
}

# one_side FOLDER LINE...: runs the lines in there and prints all that is to be compared.
one_side() {
    local line said code
    cd "$1" || return 1
    shift
    for line in "$@"; do
        code=0
        echo "\$ qemu-img $line"
        (eval "qemu-img $line") 2>../err </dev/null || code=$?
        while IFS= read -r said; do
            echo "stderr: $said"
        done <../err
        echo "[exit $code]"
    done
}

# Guest content, size and backing file of each image that is not as it was, and QEMU's
# verdict on it.
disks_of() {
    local image
    cd "$1" || return 1
    for image in *; do
        if cmp -s "$image" "../images/$image"; then continue; fi
        echo "$image"
        if [[ $image == *.raw ]]; then
            hash_of "$image"
            continue
        fi
        oracle check -q "$image" 2>&1 || echo "check: exit $?"
        oracle info "$image" 2>&1 | sed -nE "/^(virtual size|backing file)/s|$PWD|.|p"
        oracle convert -O raw "$image" ../flat 2>&1 && hash_of ../flat
    done
}

# beside LINE...: with the folder "images" as it is at first. Leaves ours and theirs.
beside() {
    rm -rf ours theirs
    cp -a --sparse=always images ours && cp -a --sparse=always images theirs || return 1
    (one_side ours "$@") | plain >ours.said
    (PATH=${ORACLE%/*}:$PATH one_side theirs "$@") | plain >theirs.said
    diff -u theirs.said ours.said || fail "said something else than QEMU" || return 1
    (disks_of ours) >ours.disks
    (disks_of theirs) >theirs.disks
    diff -u theirs.disks ours.disks || fail "left other disks than QEMU: $*"
}

# The same lines one by one, each on fresh images.
each_beside() {
    local line
    for line in "$@"; do
        beside "$line" || return 1
    done
}
