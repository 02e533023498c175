# SPDX-License-Identifier: MIT
# What runs the folders of tests/check. Each is named SLUG, or SLUG.VARIANT, and holds
#
#   recipe         functions: build makes a sound image.qcow2, damage breaks it; program
#                  (optional) runs check with the given arguments
#   expect-check   "exit N", "problem SLUG" for each kind of finding in order, and what
#                  check says on standard error ("stderr: ...")
#   expect-repair  "exit N", the header fields that -r all heals ("heals: ..."), and the
#                  losses as it prints them ("lost ...")
#
# Used after helpers.bash.
#
# shellcheck shell=bash disable=SC2154

RECIPES=$BATS_TEST_DIRNAME/check
PROBLEMS=$BATS_TEST_DIRNAME/../src/check/problems.def

slugs() {
    sed -nE 's/^Q2_PROBLEM\([A-Z0-9_]+, "([a-z0-9-]+)".*/\1/p' "$PROBLEMS"
}

# image.qcow2 as a recipe makes it, damaged.
recipe() { # FOLDER-NAME
    prepare_image "$RECIPES/$1" >/dev/null
}

# image.qcow2 repaired, with the undo file "undo"; damaged.qcow2 is what it was.
repaired() {
    recipe reference-outside.lost
    must qemu-img check -r all --undo-file undo image.qcow2
    cp image.qcow2 repaired.qcow2
}

# --- for recipes ------------------------------------------------------------------------

# An image of 8 MiB with clusters of 4 KiB, so that an L2 table maps 2 MiB. Every cluster
# that is written holds bytes of its own: what gets mixed up is seen.
base() { # [OPTIONS of create -o]
    made_once image.qcow2 make_base "${1:-}"
}

# The same on top of a backing file that is full of other data.
base_with_backing() { # [OPTIONS of create -o]
    made_once back.qcow2 make_backing
    base "backing_file=back.qcow2,backing_fmt=qcow2${1:+,$1}"
}

# Many recipes begin with the same image: it is made once in a test, and copied.
made_once() { # FILE COMMAND...
    local kept=$BATS_TEST_TMPDIR/made.${*//[^a-z0-9=]/_}
    if [ ! -e "$kept" ]; then
        "${@:2}"
        cp "$1" "$kept"
        [ ! -e data.raw ] || cp data.raw "$kept.data"
    fi
    cp "$kept" "$1"
    [ ! -e "$kept.data" ] || cp "$kept.data" data.raw
}

make_base() { # OPTIONS
    must oracle create -q -f qcow2 -o "cluster_size=4k${1:+,$1}" image.qcow2 8M
    {
        write_clusters 0 1 6
        write_clusters 2M 33 6
        write_clusters 4M 65 2
    } | qemu_io qcow2 image.qcow2
}

# With extended L2 entries: clusters of 16 KiB, subclusters of 512 bytes. In the first
# cluster some are stored and some are zero, the second one is whole, the third one packed.
base_extended() { # [OPTIONS of create -o]
    made_once image.qcow2 make_extended "${1:-}"
}

make_extended() { # OPTIONS
    must oracle create -q -f qcow2 -o "extended_l2=on,cluster_size=16k${1:+,$1}" image.qcow2 32M
    printf '%s\n' 'write -q -P 1 512 2k' 'write -q -z 4k 1k' 'write -q -P 2 16k 16k' \
        'write -q -c -P 3 32k 16k' 'write -q -P 4 16M 48k' | qemu_io qcow2 image.qcow2
}

# With its data in another file.
base_with_data_file() { # [OPTIONS of create -o]
    base "data_file=data.raw${1:+,$1}"
}

# With two bitmaps, one of which has nothing to say.
base_with_bitmaps() {
    base
    must oracle bitmap --add -g 512 image.qcow2 first
    write_clusters 6M 90 3 | qemu_io qcow2 image.qcow2
    must oracle bitmap --add image.qcow2 second
}

make_backing() {
    must oracle create -q -f qcow2 back.qcow2 8M
    echo 'write -q -P 0xbb 0 8M' | qemu_io qcow2 back.qcow2
}

write_clusters() { # GUEST-OFFSET FIRST-PATTERN COUNT
    local i at=$(($(numfmt --from=iec "$1")))
    for ((i = 0; i < $3; i++)); do
        echo "write -q -P $(($2 + i)) $((at + i * 4096)) 4096"
    done
}

fill_clusters() { # GUEST-OFFSET FIRST-PATTERN COUNT
    write_clusters "$@" | qemu_io qcow2 image.qcow2
}

take_snapshot() { # NAME
    must oracle snapshot -c "$1" image.qcow2
}

# Reads of the 4 KiB at this host offset fail under with_bad_disk.
make_unreadable() { # HOST-OFFSET
    export BAD_OFFSET=$1
    must "${QCOW2_CC:-${CC:-cc}}" -D_GNU_SOURCE -shared -fPIC -O1 \
        -o eio.so "$BATS_TEST_DIRNAME/tools/eio.c" -ldl
}

with_bad_disk() { # COMMAND...
    ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" LD_PRELOAD=$PWD/eio.so "$@"
}

# --- running them -----------------------------------------------------------------------
#
# These are run under set -e, in a shell of their own (run_recipes): a command that fails
# ends them.

program() {
    qemu-img check "$@"
}

snapshot_names() {
    oracle info -U --output=json image.qcow2 | jq -r '.snapshots // [] | .[].name'
}

# What the guest sees, now and in every snapshot: good.raw and good.N.raw, N being the
# index in the snapshot table. A recipe calls it again if the damage cannot be told from
# what a guest wrote.
keep_contents() {
    local i=0 name
    must oracle convert -O raw image.qcow2 good.raw
    snapshot_names >names
    while read -r name; do
        must oracle convert -l "snapshot.name=$name" -O raw image.qcow2 good.$i.raw
        i=$((i + 1))
    done <names
}

# What a line of expect-repair says of the contents: a range reads as zeros, a snapshot is
# gone.
expect_loss() { # LINE
    local raw=good.raw index range
    case $1 in
    'snapshot '*' (table entry '*)
        index=${1##* (table entry }
        raw=good.${index%%[!0-9]*}.raw
        ;;
    esac
    case $1 in
    *': all of it')
        rm "$raw"
        return
        ;;
    esac
    range=$(sed -nE 's/.*: ([0-9]+) bytes at guest offset ([0-9]+)$/\1 \2/p' <<<"$1")
    [ -n "$range" ] || fail "no range in: $1"
    head -c "${range% *}" /dev/zero |
        dd of="$raw" bs=64k seek="${range#* }" oflag=seek_bytes conv=notrunc status=none
}

same_contents() {
    local i=0 name
    must oracle convert -O raw image.qcow2 got.raw
    same_bytes good.raw got.raw
    while read -r name; do
        if [ -e good.$i.raw ]; then
            must oracle convert -l "snapshot.name=$name" -O raw image.qcow2 got.raw
            same_bytes good.$i.raw got.raw
        elif snapshot_names | grep -qxF "$name"; then
            fail "snapshot $name is still there"
        fi
        i=$((i + 1))
    done <names
}

same_text() { # WANT GOT
    diff -u "$1" "$2" >text.diff || fail "$(cat text.diff)"
}

# What check finds: written as expect-check is.
observe_check() {
    local code=0
    program --output=json --details image.qcow2 >json 2>err || code=$?
    echo "exit $code"
    jq -r '[.findings[].problem] | reduce .[] as $p ([];
        if index($p) then . else . + [$p] end) | .[] | "problem " + .' json
    sed 's/^/stderr: /' err
}

losses() {
    sed -nE 's/^    ((active state|snapshot '.*' \(table entry [0-9]+\)): .*)/lost \1/p' "$1"
}

# What a repair says, written as expect-repair is.
observe_repair() {
    local code=0
    program -r all --undo-file undo image.qcow2 >out 2>err || code=$?
    echo "exit $code"
    sed -n 's/^Repairing header/heals: &/p' err
    losses out
}

prepare() { # FOLDER
    # shellcheck disable=SC1091
    . "$1/recipe"
    build
    clean image.qcow2
    keep_contents
    damage
    cp image.qcow2 damaged.qcow2
}

# The damaged image alone, for tests that do not ask what it held.
prepare_image() { # FOLDER
    # shellcheck disable=SC1091
    . "$1/recipe"
    build
    damage
    cp image.qcow2 damaged.qcow2
}

# Sound, by our scan and by QEMU's; the same contents; nothing left to do.
healed() {
    clean image.qcow2
    program --output=json --details image.qcow2 >json || fail "check ends with $?"
    [ "$(jq -c .findings json)" = '[]' ] || fail "still finds: $(cat json)"
    same_contents
    cp image.qcow2 once.qcow2
    must_exit 0 program -r all image.qcow2
    cmp -s once.qcow2 image.qcow2 || fail "a second repair does something"
}

# A repair of leaks alone destroys nothing that a whole one needs.
leaks_first() {
    cp damaged.qcow2 image.qcow2
    program -r leaks image.qcow2 >out 2>&1 || true
    program -r all image.qcow2 >out 2>&1 || fail "after -r leaks: $(cat out)"
    # Mostly it is the image that has been looked at already.
    cmp -s once.qcow2 image.qcow2 || healed
}

check_recipe() { # FOLDER
    local line slug
    slug=$(basename "$1")
    slug=${slug%%.*}
    prepare "$1"
    observe_check >got-check
    same_text "$1/expect-check" got-check
    # A header that can be used, but is wrong, is told by the repair.
    grep -qx "problem $slug" got-check ||
        { [ "$slug" = header-field ] && ! grep -qx 'exit 1' got-check; } ||
        fail "does not find $slug"
    rejected_by_vet "$slug"
    program -r all --dry-run image.qcow2 >dry 2>&1 || true
    says_what_for "$slug" "$1"
    cmp -s damaged.qcow2 image.qcow2 || fail "a check or a dry run writes"
    observe_repair >got-repair
    same_text "$1/expect-repair" got-repair
    observe_losses_of_dry_run "$1"
    if grep -qx 'exit 0' "$1/expect-repair"; then
        while read -r line; do
            expect_loss "$line"
        done < <(sed -n 's/^lost //p' "$1/expect-repair")
        healed
        must qemu-img check --undo undo image.qcow2
        cmp -s damaged.qcow2 image.qcow2 || fail "--undo does not give the image back"
        leaks_first
    else
        cmp -s damaged.qcow2 image.qcow2 || fail "a repair that heals nothing writes"
    fi
}

# What check finds wrong, vet rejects for the same reason, or as a header that cannot be used.
# (Of plain data, it reads nothing.)
rejected_by_vet() { # SLUG
    local code=0
    [ "$1" != data-unreadable ] || return 0
    qemu-img vet --output=json --allow snapshots,bitmaps,encryption image.qcow2 >json || code=$?
    [ "$code" -eq 2 ] || fail "vet ends with $code"
    jq -r '.reasons[] | .id, .problem // empty' json | grep -qxE "$1|header" ||
        { [ "$1" = header-field ] && ! grep -qx 'exit 1' got-check; } ||
        fail "vet does not tell of $1: $(cat json)"
}

# Each edit of the plan says what it is for, and where the problem is healed, one is for it,
# or for the header's field behind it.
says_what_for() { # SLUG FOLDER
    program -r all --dry-run --output=json image.qcow2 >plan 2>/dev/null || true
    [ -s plan ] || echo '{"plan": {"edits": []}}' >plan
    [ "$(jq -c '[.plan.edits[] | select(.action != "flush" and .problems == [])]' plan)" = '[]' ] ||
        fail "for nothing: $(cat plan)"
    ! grep -qx 'exit 0' "$2/expect-repair" ||
        jq -e --arg slug "$1" 'any(.plan.edits[].problems[]?;
            . == $slug or . == "header-field")' plan >/dev/null ||
        fail "nothing for $1: $(cat plan)"
}

observe_losses_of_dry_run() { # FOLDER
    losses dry >dry.losses
    sed -n '/^lost /p' "$1/expect-repair" >want.losses
    same_text want.losses dry.losses
}

# Runs the given folders, each in a directory of its own; tells of all that fail.
run_recipes() { # FOLDER...
    local folder name failed=0
    for folder in "$@"; do
        name=$(basename "$folder")
        mkdir "$name"
        # In the background, because what stands left of || is not ended by set -e.
        (
            trap - ERR EXIT DEBUG
            set -e
            cd "$name"
            check_recipe "$folder"
        ) >"$name.log" 2>&1 3>&- &
        if ! wait $!; then
            echo "--- $name:"
            cat "$name.log"
            failed=$((failed + 1))
        fi
        rm -rf "$name"
    done
    [ "$failed" -eq 0 ] || fail "$failed recipes failed"
}
