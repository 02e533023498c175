#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# snapshot: what one program makes, the other applies and deletes; QEMU finds every image
# sound, and every state reads as it was.
#
# shellcheck disable=SC2154 # message is set by the helpers

load helpers

setup() {
    q2_setup
}

size_of() {
    oracle info --output=json "$1" | json_value '["virtual-size"]'
}

names_in() {
    oracle info --output=json "$1" | json_value '.get("snapshots", [])' |
        python3 -c 'import ast, sys; print(*(s["id"] + ":" + s["name"] for s in ast.literal_eval(sys.stdin.read())))'
}

# The active state reads like the file; so does the snapshot, if one is named.
state_is() { # IMAGE RAW [SNAPSHOT]
    local options=()
    [ $# -lt 3 ] || options=(-l "$3")
    must oracle convert "${options[@]}" -O raw "$1" state.raw || return 1
    same_bytes state.raw "$2" || fail "$1 ${3:-active} is not $2"
}

@test "one action at a time, and -U for none that writes" {
    must oracle create -f qcow2 a.qcow2 64M
    replay <<'TRANSCRIPT'
$ qemu-img snapshot -l -a x a.qcow2
stderr: qemu-img: Cannot mix '-l', '-a', '-c', '-d'
stderr: Try 'qemu-img snapshot --help' for more information
[exit 1]

$ qemu-img snapshot -U -c x a.qcow2
stderr: qemu-img: Could not open 'a.qcow2': force-share=on can only be used with read-only images
[exit 1]
TRANSCRIPT
}

@test "the JSON list has the fields of info" {
    must oracle create -f qcow2 a.qcow2 1M
    [ "$("$QCOW2" snapshot --output=json a.qcow2 | json_value '')" = "[]" ]
    must "$QCOW2" snapshot -c one a.qcow2
    must oracle snapshot -c two a.qcow2
    diff <("$QCOW2" snapshot -l --output=json a.qcow2 | json_value '') \
        <("$QCOW2" info --output=json a.qcow2 | json_value '["snapshots"]')
    truncate -s 1M r.raw
    [ "$("$QCOW2" snapshot -l -f raw --output=json r.raw | json_value '')" = "[]" ]
}

@test "what is made by either program is applied and deleted by both" {
    local cluster compat maker user
    for cluster in $(rows '512 4k 64k 2M' '512 64k'); do
        for compat in 0.10 1.1; do
            for maker in "$QCOW2" "$ORACLE"; do
                for user in "$QCOW2" "$ORACLE"; do
                    [ "$maker$user" != "$ORACLE$ORACLE" ] || continue
                    rm -f x.qcow2
                    must oracle create -f qcow2 -o "cluster_size=$cluster,compat=$compat" \
                        x.qcow2 6M
                    scribble qcow2 x.qcow2 1 --size 6M --count 25
                    must oracle convert -O raw x.qcow2 one.raw
                    must "$maker" snapshot -c one x.qcow2
                    clean x.qcow2
                    scribble qcow2 x.qcow2 2 --size 6M --count 25
                    must oracle convert -O raw x.qcow2 two.raw
                    must "$maker" snapshot -c two x.qcow2
                    scribble qcow2 x.qcow2 3 --size 6M --count 9
                    must "$user" snapshot -a one x.qcow2
                    clean x.qcow2
                    state_is x.qcow2 one.raw
                    state_is x.qcow2 two.raw two
                    scribble qcow2 x.qcow2 4 --size 6M --count 9
                    must "$user" snapshot -d one x.qcow2
                    clean x.qcow2
                    state_is x.qcow2 two.raw two
                    must "$user" snapshot -a two x.qcow2
                    must "$user" snapshot -d two x.qcow2
                    clean x.qcow2
                    written_right x.qcow2 two.raw
                done
            done
        done
    done
}

@test "compressed clusters, zero clusters and a backing file stay what they are" {
    must oracle create -f raw base.raw 6M
    must qemu-io -f raw -c 'write -P 9 0 6M' base.raw
    must oracle create -f qcow2 -b base.raw -F raw x.qcow2 6M
    must qemu-io -f qcow2 -c 'write -c -P 1 0 64k' -c 'write -c -P 2 64k 64k' \
        -c 'write -z 1M 1M' -c 'write -P 3 3M 100k' x.qcow2
    must oracle convert -O raw x.qcow2 one.raw
    must "$QCOW2" snapshot -c one x.qcow2
    clean x.qcow2
    must qemu-io -f qcow2 -c 'write -P 4 0 4M' -c 'discard 5M 1M' x.qcow2
    must oracle convert -O raw x.qcow2 two.raw
    must "$QCOW2" snapshot -c two x.qcow2
    must "$QCOW2" snapshot -a one x.qcow2
    clean x.qcow2
    state_is x.qcow2 one.raw
    must "$QCOW2" snapshot -d one x.qcow2
    clean x.qcow2
    state_is x.qcow2 one.raw
    state_is x.qcow2 two.raw two
}

@test "a snapshot is made without a look at the backing file, and its data stay unread" {
    must oracle create -f raw base.raw 1M
    must oracle create -f qcow2 -b base.raw -F raw x.qcow2
    rm base.raw
    must "$QCOW2" snapshot -c one x.qcow2
    must "$QCOW2" snapshot -a one x.qcow2
    [ "$("$QCOW2" snapshot -l x.qcow2 | wc -l)" -eq 3 ]
    must "$QCOW2" snapshot -d one x.qcow2
}

@test "names: several of one name, ids before names, none, long ones" {
    local long
    long=$(printf 'x%.0s' {1..300})
    must oracle create -f qcow2 x.qcow2 1M
    must "$QCOW2" snapshot -c same x.qcow2
    must qemu-io -f qcow2 -c 'write -P 1 0 64k' x.qcow2
    must "$QCOW2" snapshot -c 1 x.qcow2
    must qemu-io -f qcow2 -c 'write -P 2 0 64k' x.qcow2
    must "$QCOW2" snapshot -c same x.qcow2
    must "$QCOW2" snapshot -a 1 x.qcow2 # the id, not the name
    must qemu-io -f qcow2 -c 'read -P 0 0 64k' x.qcow2
    must "$QCOW2" snapshot -a 3 x.qcow2
    must qemu-io -f qcow2 -c 'read -P 2 0 64k' x.qcow2
    must "$QCOW2" snapshot -d 1 x.qcow2 # the name: deleting goes by nothing else
    [ "$(names_in x.qcow2)" = "1:same 3:same" ] || fail "$(names_in x.qcow2)"
    must_exit 1 "$QCOW2" snapshot -d 3 x.qcow2
    must "$QCOW2" snapshot -d same x.qcow2
    [ "$(names_in x.qcow2)" = "3:same" ] || fail "$(names_in x.qcow2)"
    must "$QCOW2" snapshot -c '' x.qcow2
    must "$QCOW2" snapshot -c "$long" x.qcow2
    [ "$(names_in x.qcow2)" = "3:same 4: 5:${long:0:255}" ] || fail "$(names_in x.qcow2)"
    must "$QCOW2" snapshot -d '' x.qcow2
    must "$QCOW2" snapshot -d "${long:0:255}" x.qcow2
    must "$QCOW2" snapshot -d same x.qcow2
    [ -z "$(names_in x.qcow2)" ]
    clean x.qcow2
}

@test "a snapshot of another size brings it back" {
    local program
    for program in "$QCOW2" "$ORACLE"; do
        rm -f x.qcow2
        must oracle create -f qcow2 -o cluster_size=4k x.qcow2 3M
        must qemu-io -f qcow2 -c 'write -P 1 0 3M' x.qcow2
        must "$program" snapshot -c three x.qcow2
        must "$QCOW2" resize x.qcow2 80M
        must qemu-io -f qcow2 -c 'write -P 2 70M 1M' x.qcow2
        must "$program" snapshot -c eighty x.qcow2
        must "$QCOW2" snapshot -a three x.qcow2
        clean x.qcow2
        [ "$(size_of x.qcow2)" -eq $((3 << 20)) ]
        must qemu-io -f qcow2 -c 'read -P 1 0 3M' x.qcow2
        must "$QCOW2" snapshot -a eighty x.qcow2
        clean x.qcow2
        [ "$(size_of x.qcow2)" -eq $((80 << 20)) ]
        must qemu-io -f qcow2 -c 'read -P 1 0 3M' -c 'read -P 0 3M 67M' -c 'read -P 2 70M 1M' \
            x.qcow2
        must "$program" snapshot -d three x.qcow2
        must "$program" snapshot -d eighty x.qcow2
        clean x.qcow2
    done
}

@test "the machine's state goes with the snapshot" {
    must oracle create -f qcow2 x.qcow2 1M
    must "$QCOW2" io -f qcow2 -c 'write -P 1 0 1M' -c 'write -b -P 8 0 300k' x.qcow2
    must "$QCOW2" snapshot -c one x.qcow2
    must "$QCOW2" io -f qcow2 -c 'write -b -P 7 0 300k' x.qcow2
    must "$QCOW2" snapshot -c two x.qcow2
    clean x.qcow2
    must "$QCOW2" snapshot -a one x.qcow2
    must "$QCOW2" io -f qcow2 -c 'read -b -P 8 0 300k' x.qcow2
    must "$QCOW2" snapshot -d one x.qcow2
    must qemu-io -f qcow2 -c 'read -b -P 8 0 300k' x.qcow2
    must "$QCOW2" snapshot -a two x.qcow2
    must qemu-io -f qcow2 -c 'read -b -P 7 0 300k' -c 'read -P 1 0 1M' x.qcow2
    clean x.qcow2
}

@test "refcounts that are too narrow are told before anything changes" {
    local bits i
    for bits in 1 2 4; do
        must oracle create -f qcow2 -o refcount_bits=$bits x.qcow2 1M
        must qemu-io -f qcow2 -c 'write -P 1 0 256k' x.qcow2
        # One reference is the active state's.
        for ((i = 1; i < (1 << bits) - 1; i++)); do
            must "$QCOW2" snapshot -c "s$i" x.qcow2
        done
        clean x.qcow2
        cp x.qcow2 before.qcow2
        one_error 1 "$QCOW2" snapshot -c more x.qcow2
        message_has "^qcow2: Could not create snapshot 'more': refcount of host cluster [0-9]+ is $(((1 << bits) - 1)), and refcounts of $bits bits cannot be larger"
        same_bytes x.qcow2 before.qcow2
        # Nothing is shared more than it was: there is room to apply one.
        [ "$bits" -eq 1 ] || must "$QCOW2" snapshot -a s1 x.qcow2
        clean x.qcow2
    done
}

@test "applying needs no more references than there are before and after" {
    must oracle create -f qcow2 -o refcount_bits=2 x.qcow2 1M
    must qemu-io -f qcow2 -c 'write -P 1 0 256k' x.qcow2
    must "$QCOW2" snapshot -c one x.qcow2
    must "$QCOW2" snapshot -c two x.qcow2
    # Tables of its own in the active state, most data shared.
    must qemu-io -f qcow2 -c 'write -P 2 0 64k' x.qcow2
    must "$QCOW2" snapshot -a two x.qcow2
    must qemu-io -f qcow2 -c 'read -P 1 0 256k' x.qcow2
    clean x.qcow2
}

@test "wrong refcounts and tables are refused before anything changes" {
    must oracle create -f qcow2 good.qcow2 1M
    must qemu-io -f qcow2 -c 'write -P 1 0 256k' good.qcow2
    must "$QCOW2" snapshot -c one good.qcow2
    must qemu-io -f qcow2 -c 'write -P 2 128k 64k' good.qcow2
    local damage actions action
    while IFS=: read -r damage actions; do
        cp good.qcow2 x.qcow2
        # shellcheck disable=SC2086 # words
        must imgtool $damage
        cp x.qcow2 before.qcow2
        for action in $actions; do
            one_error 1 "$QCOW2" snapshot "-$action" one x.qcow2
            message_has 'check the image'
            same_bytes x.qcow2 before.qcow2 || fail "$damage: $action"
        done
    done <<'DAMAGE'
l2 x.qcow2 0 0x8000000000ff0000:c a
l2 x.qcow2 0 0x8000000000050200:c a
refcount x.qcow2 0x50000 0:c d
DAMAGE
}

# QEMU opens encrypted images with their key alone.
clean_locked() {
    local node="driver=qcow2,file.filename=$1"
    [ "$1" != luks.qcow2 ] || node+=,encrypt.key-secret=sec0
    must oracle check --object secret,id=sec0,data=passw0rd --image-opts "$node"
}

@test "encryption, zstd and extended L2 entries are no matter" {
    local kind
    luks_image luks.qcow2
    must oracle create -f qcow2 -o compression_type=zstd zstd.qcow2 4M
    must qemu-io -f qcow2 -c 'write -c -P 1 0 64k' -c 'write -P 2 1M 64k' zstd.qcow2
    must oracle create -f qcow2 -o extended_l2=on extended.qcow2 4M
    must qemu-io -f qcow2 -c 'write -P 1 2k 2k' -c 'write -P 2 1M 64k' extended.qcow2
    for kind in luks zstd extended; do
        must "$QCOW2" snapshot -c one $kind.qcow2
        clean_locked $kind.qcow2
        must "$QCOW2" snapshot -c two $kind.qcow2
        must "$QCOW2" snapshot -a one $kind.qcow2
        clean_locked $kind.qcow2
        must "$QCOW2" snapshot -d one $kind.qcow2
        clean_locked $kind.qcow2
        must "$QCOW2" snapshot -d two $kind.qcow2
        clean_locked $kind.qcow2
    done
    must qemu-io -f qcow2 -c 'read -P 1 0 64k' -c 'read -P 2 1M 64k' zstd.qcow2
    must qemu-io -f qcow2 -c 'read -P 0 0 2k' -c 'read -P 1 2k 2k' -c 'read -P 2 1M 64k' \
        extended.qcow2
}

@test "deleting gives space back to the file system" {
    must oracle create -f qcow2 x.qcow2 64M
    must qemu-io -f qcow2 -c 'write -P 1 0 32M' x.qcow2
    must "$QCOW2" snapshot -c one x.qcow2
    must qemu-io -f qcow2 -c 'write -P 2 0 32M' x.qcow2
    [ "$(disk_bytes x.qcow2)" -ge $((64 << 20)) ]
    must "$QCOW2" snapshot -d one x.qcow2
    [ "$(disk_bytes x.qcow2)" -le $((36 << 20)) ]
    must qemu-io -f qcow2 -c 'read -P 2 0 32M' x.qcow2
    clean x.qcow2
}

@test "QEMU's rules for what may be written in place hold after a delete" {
    must oracle create -f qcow2 x.qcow2 4M
    must qemu-io -f qcow2 -c 'write -P 1 0 4M' x.qcow2
    must "$QCOW2" snapshot -c one x.qcow2
    must "$QCOW2" snapshot -d one x.qcow2
    local size
    size=$(stat -c %s x.qcow2)
    must qemu-io -f qcow2 -c 'write -P 2 0 4M' x.qcow2
    [ "$(stat -c %s x.qcow2)" -eq "$size" ] || fail "copied though it need not be"
    clean x.qcow2
}

@test "progress is shown, and nothing is with -q" {
    must oracle create -f qcow2 x.qcow2 1M
    "$QCOW2" snapshot -p -c one x.qcow2 | grep -q '(100.00/100%)'
    [ -z "$("$QCOW2" snapshot -q -d one x.qcow2)" ]
}
