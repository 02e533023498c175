# SPDX-License-Identifier: MIT
# What the Bats files share: the program under test, the oracle, replayed transcripts,
# and images to work on.
#
#   QCOW2          the program under test (absolute path)
#   QCOW2_CC       compiles what is preloaded into it (default: $CC, cc)
#   ORACLE         qemu-img, by absolute path; qemu-io is found through PATH
#   Q2_TEST_SHORT  1: fewer rows in the matrices, none left out of the suite
#
# shellcheck shell=bash disable=SC2154

bats_require_minimum_version 1.5.0

: "${QCOW2:=$BATS_TEST_DIRNAME/../qcow2}"
: "${ORACLE:=/usr/bin/qemu-img}"
IMGTOOL=${BATS_TEST_DIRNAME}/tools/imgtool.py
export QCOW2 ORACLE IMGTOOL

# Every test starts with this: an empty directory of its own, in which "qemu-img" is the
# program under test, so that the name it prints is the one in QEMU's transcripts.
q2_setup() {
    [ -x "$QCOW2" ] || fail "no program to test at $QCOW2" || return 1
    cd "$BATS_TEST_TMPDIR" || return 1
    mkdir -p .bin work
    ln -sf "$QCOW2" .bin/qemu-img
    ln -sf "$QCOW2" .bin/qcow2
    PATH=$PWD/.bin:$PATH
    export TZ=UTC LC_ALL=C
    cd work || return 1
}

oracle() {
    "$ORACLE" "$@"
}

imgtool() {
    python3 -S "$IMGTOOL" "$@" # it needs nothing that is installed besides Python itself
}

# Neither built with a sanitizer nor run under a checker or by an emulator: these need address
# space of their own, so it cannot be limited.
is_bare_program() {
    [ -z "${Q2_TEST_EMULATED:-}" ] && [ "$(head -c 4 "$QCOW2" | tail -c 3)" = ELF ] &&
        ! grep -qa -e __asan_init -e __ubsan_handle "$QCOW2"
}

is_short() {
    [ "${Q2_TEST_SHORT:-0}" = 1 ]
}

# The first list in normal mode, the second in short mode: rows "a b c" / "a c".
rows() {
    if is_short; then echo "$2"; else echo "$1"; fi
}

CLUSTER_SIZES=$(rows '512 1k 2k 4k 8k 16k 32k 64k 128k 256k 512k 1M 2M' '512 4k 64k 2M')
export CLUSTER_SIZES

fail() {
    printf '%s\n' "$*" >&2
    return 1
}

# Runs a command quietly; on failure says which, with everything it printed.
must() {
    local said
    if ! said=$("$@" 2>&1); then
        fail "failed: $*"$'\n'"$said"
    fi
}

# must_exit CODE COMMAND...: it ends with exactly that code.
must_exit() {
    local want=$1 code=0 said
    shift
    said=$("$@" 2>&1) || code=$?
    [ "$code" -eq "$want" ] || fail "exit $code, not $want: $*"$'\n'"$said"
}

# One line on standard error that begins with the program's name, nothing on standard
# output, the given exit code. The line goes into $message for a closer look.
one_error() {
    local want=$1 code=0
    shift
    "$@" >"$BATS_TEST_TMPDIR/stdout" 2>"$BATS_TEST_TMPDIR/stderr" </dev/null || code=$?
    message=$(cat "$BATS_TEST_TMPDIR/stderr")
    [ "$code" -eq "$want" ] || fail "exit $code, not $want: $*"$'\n'"$message" || return 1
    [ ! -s "$BATS_TEST_TMPDIR/stdout" ] ||
        fail "prints on standard output: $*"$'\n'"$(cat "$BATS_TEST_TMPDIR/stdout")" ||
        return 1
    is_one_error_line "$*"
}

is_one_error_line() {
    [ "$(printf '%s\n' "$message" | wc -l)" -eq 1 ] || fail "not one line: $1"$'\n'"$message" ||
        return 1
    case $message in
    'qcow2: '?* | 'qemu-img: '?*) ;;
    *) fail "does not begin with the program's name: $1"$'\n'"$message" ;;
    esac
}

message_has() {
    local part
    for part in "$@"; do
        printf '%s' "$message" | grep -qiE -e "$part" ||
            fail "the message does not say '$part': $message" || return 1
    done
}

absent() {
    local f
    for f in "$@"; do
        [ ! -e "$f" ] || fail "$f is still there" || return 1
    done
}

hash_of() {
    sha256sum "$@" | cut -d ' ' -f 1
}

disk_bytes() {
    sync "$1"
    echo $(($(stat -c '%b * %B' "$1")))
}

# What a file system spends on finding a file's pieces is counted with them. It depends on
# how many there are on the disk, and on the order in which they were written out.
takes_at_most() { # FILE BYTES
    local takes
    takes=$(disk_bytes "$1")
    [ "$takes" -le $(($2 + $2 / 256 + 32768)) ] || fail "$1 takes $takes bytes, not $2"
}

# QEMU finds no error and no leak.
clean() {
    must oracle check -f qcow2 "$1"
}

# QEMU reads the same from both.
same() {
    must oracle compare "$1" "$2"
}

same_bytes() {
    must cmp "$1" "$2"
}

# --- transcripts ------------------------------------------------------------------------

# Numbers that are different on every machine or in every run become '#'.
mask() {
    sed -E -e 's/\r/\\r/g' \
        -e 's/disk size: .*/disk size: #/' \
        -e 's/"actual-size": [0-9]+/"actual-size": #/' \
        -e 's/20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}/####-##-## ##:##:##/' \
        -e 's/"date-(n?sec)": [0-9]+/"date-\1": #/' \
        -e 's/uuid("?): ("?)[0-9a-f-]{36}/uuid\1: \2#/' \
        -e 's/iters("?): [0-9]+/iters\1: #/' \
        ${MASK_ALSO:+-e "$MASK_ALSO"}
}

# Reads a transcript from standard input, runs each of its commands again and compares
# standard output, standard error (lines "stderr: …") and exit code.
replay() {
    local line='' command='' expected='' bad=0 done=0
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        '$ '*)
            command=${line#'$ '}
            expected=''
            ;;
        '[exit '*']')
            replay_one "$command" "$expected$line" || bad=1
            command=''
            done=1
            ;;
        *) [ -z "$command" ] || expected+=$line$'\n' ;;
        esac
    done
    [ -z "$command" ] || fail "transcript without an exit code: $command" || bad=1
    [ "$done" -eq 1 ] || fail "empty transcript" || bad=1
    return "$bad"
}

replay_one() {
    local dir=$BATS_TEST_TMPDIR/replay code=0
    mkdir -p "$dir"
    (eval "$1") >"$dir/out" 2>"$dir/err" </dev/null || code=$?
    {
        mask <"$dir/out"
        mask <"$dir/err" | sed -e 's/^/stderr: /'
        echo "[exit $code]"
    } >"$dir/got"
    printf '%s\n' "$2" | mask >"$dir/expected"
    diff -u "$dir/expected" "$dir/got" >"$dir/diff" ||
        fail "\$ $1"$'\n'"$(tail -n +3 "$dir/diff")"
}

# --- images -----------------------------------------------------------------------------

# qemu_io FORMAT IMAGE: runs the commands on standard input, fails if one of them does.
qemu_io() {
    local said
    said=$(qemu-io -f "$1" "$2" 2>&1) || fail "qemu-io $2: $said" || return 1
    case $said in
    *rror* | *ailed*) fail "qemu-io $2: $(printf '%s' "$said" | grep -iE 'error|failed')" ;;
    esac
}

# scribble FORMAT IMAGE SEED [OPTIONS of imgtool io]: random writes, zeros and discards.
scribble() {
    local format=$1 image=$2 seed=$3 commands
    shift 3
    # The same commands are often wanted again, for another image.
    commands="$BATS_TEST_TMPDIR/scribble.$seed.${*//[^a-z0-9.]/_}"
    if [ ! -e "$commands" ]; then
        imgtool io --seed "$seed" --data "$BATS_TEST_TMPDIR/scribble.$seed" "$@" >"$commands" ||
            return 1
    fi
    qemu_io "$format" "$image" <"$commands"
}

# Until a file is written out, the space that it takes, and where in it are holes, may
# change from one look to the next.
settle() {
    find . -type f -exec sync {} +
}

# The program's conversion of an image to raw is byte for byte QEMU's, and the program's
# compare agrees.
reads_like_qemu() {
    local image=$1
    shift
    must oracle convert "$@" -O raw "$image" want.raw || return 1
    must "$QCOW2" convert "$@" -O raw "$image" got.raw || return 1
    same_bytes want.raw got.raw || return 1
    [ $# -gt 0 ] || must "$QCOW2" compare "$image" want.raw
}

# A written image is one that QEMU finds clean, that reads like the raw file, that can be
# written by QEMU, and is clean and right after that.
written_right() {
    local image=$1 raw=$2 size
    clean "$image" || return 1
    same "$image" "$raw" || return 1
    size=$(($(stat -c %s "$raw") / 512 * 512))
    cp --sparse=always "$raw" scribbled.raw || return 1
    scribble raw scribbled.raw 77 --size "$size" --count 12 --no-discard || return 1
    scribble qcow2 "$image" 77 --size "$size" --count 12 --no-discard || return 1
    clean "$image" || return 1
    same "$image" scribbled.raw
}

# Waits until a command succeeds. The bound, five minutes at least, is there for what never
# comes.
wait_until() {
    local i
    for ((i = 0; i < 6000; i++)); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.05
    done
    fail "waited in vain: $*"
}

# The number of blocks a file takes on disk: 0 without a file. To see that a command is at
# work this is better than a second program that opens the file: that one takes locks, too.
blocks_of() { # FILE
    stat -c %b "$1" 2>/dev/null || echo 0
}

has_grown() { # FILE BLOCKS-BEFORE
    [ "$(blocks_of "$1")" -gt "$2" ]
}

# Starts a slow conversion of much data in the background and waits until it has written
# some of it: more than half a MiB, which is more than the tables of an image. Its process id is
# in $pid, its messages go to err.slow. (SIGINT is ignored in a background process of a
# script: env gives it back.)
start_slow() { # CONVERT ARGUMENTS, the target last
    local target=${*: -1} before
    before=$(blocks_of "$target")
    env --default-signal=INT,TERM,HUP qemu-img convert -r 4M "$@" >out.slow 2>err.slow \
        </dev/null 3>&- &
    pid=$!
    wait_until grown_or_ended "$target" $((before + 1024)) || return 1
    kill -0 "$pid" || fail "has ended: $(cat err.slow)"
}

grown_or_ended() { # FILE BLOCKS-BEFORE
    has_grown "$@" || ! kill -0 "$pid"
}

# Waits for the slow conversion; its exit code is in $code.
finish_slow() {
    code=0
    wait "$pid" || code=$?
    pid=
    message=$(cat err.slow)
}

# In teardown: a test that failed leaves nothing behind that works on, or stands still.
no_slow() {
    [ -z "${pid:-}" ] || kill -KILL "$pid" 2>/dev/null || true
}

# with_signal CALL N SIGNAL COMMAND...: call N (pread or pwrite) of the command on
# $signal_file raises the signal, a number, $signal_times times. The command has one
# processor, and so one thread: call N is the same in every run. Its exit code goes into
# $code, its output into the files out and err.
with_signal() {
    local call=$1 at=$2 signal=$3 library=$BATS_FILE_TMPDIR/raise.so
    shift 3
    [ -e "$library" ] || must "${QCOW2_CC:-${CC:-cc}}" -D_GNU_SOURCE -shared -fPIC -O1 \
        -o "$library" "$BATS_TEST_DIRNAME/tools/raise.c" -ldl || return 1
    code=0
    ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" LD_PRELOAD=$library \
        RAISE_FILE=${signal_file:-image.qcow2} RAISE_CALL=$call RAISE_AT=$at \
        RAISE_SIGNAL=$signal RAISE_TIMES=${signal_times:-1} "$@" >out 2>err || code=$?
}

# Runs a command in a mount namespace of its own, in which the folder "small" is a tmpfs of
# the given size. Leaves its output and exit code in the files out, err and code, and the
# names of what it left in the folder in left. Without root a user namespace gives the
# right to mount.
in_tmpfs() { # SIZE COMMAND...
    mkdir -p small
    in_mounts 'mount -t tmpfs -o "size=$1" tmpfs small' "$@"
}

# The same with a file or folder that is mounted read-only.
in_readonly() { # PATH COMMAND...
    in_mounts 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"' "$@"
}

in_mounts() { # MOUNT-COMMANDS ARGUMENT COMMAND...
    local flags=-m
    [ "$(id -u)" -eq 0 ] || flags=-mUr
    rm -f out err code
    : >left
    unshare $flags bash -c '
        mounting=$1
        shift
        eval "$mounting" || exit 99
        shift
        "$@" >out 2>err </dev/null
        echo $? >code
        if [ -d small ]; then ls -A small >left; fi' \
        in_mounts "$@" || fail "cannot mount"
    message=$(cat err)
}

# After in_tmpfs or in_readonly: it failed as it should, with one line.
failed_cleanly() {
    [ "$(cat code)" -eq 1 ] || fail "exit $(cat code), not 1: $message" || return 1
    is_one_error_line "in a small or read-only file system" || return 1
    [ ! -s left ] || fail "left behind: $(cat left)"
}

# hold_open IMAGE: qemu-io has it open for writing until let_go.
hold_open() {
    held_by "$1" 'write 0 512' wrote
    is_locked "$1"
}

# The same for reading: a writer is turned away.
hold_open_to_read() { # IMAGE
    held_by "$1" 'read 0 512' 'read 512' -r
}

# That it has the image open is taken from what it says. To try whether the image is locked
# would be to take locks, and to turn away the one who is to hold them.
held_by() { # IMAGE COMMAND WHAT-IT-SAYS [OPTION]
    mkfifo "$BATS_TEST_TMPDIR/hold"
    qemu-io ${4:+"$4"} -f qcow2 "$1" <"$BATS_TEST_TMPDIR/hold" >"$BATS_TEST_TMPDIR/held" \
        2>&1 3>&- &
    holder=$!
    exec 9>"$BATS_TEST_TMPDIR/hold"
    echo "$2" >&9
    wait_until grep -q "$3" "$BATS_TEST_TMPDIR/held"
}

is_locked() {
    ! oracle info "$1" 9>&- && oracle info -U "$1" 9>&-
}

let_go() {
    exec 9>&-
    wait "$holder" || true
    rm "$BATS_TEST_TMPDIR/hold"
}

# with_clock COMMAND...: QEMU making LUKS keys. What it times is its own hashing, and it gives
# up where the clock of a virtual machine is too coarse for that: it is given a steady one.
with_clock() {
    local clock=$BATS_FILE_TMPDIR/steady_clock.so
    [ -e "$clock" ] || must "${CC:-cc}" -shared -fPIC -o "$clock" \
        "$BATS_TEST_DIRNAME/tools/steady_clock.c" || return 1
    ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" LD_PRELOAD=$clock "$@"
}

# luks_image IMAGE: an encrypted image.
luks_image() {
    must with_clock "$ORACLE" create -q -f qcow2 --object secret,id=sec0,data=passw0rd -o \
        encrypt.format=luks,encrypt.key-secret=sec0,encrypt.iter-time=10 "$1" 16M
}

# A number out of the JSON that info prints: json_value FILTER, for example '["format"]'.
json_value() {
    python3 -c "import json,sys; print(json.load(sys.stdin)$1)"
}

# The images that the transcripts speak of. (The file named ext.raw is never looked at.)
transcript_images() {
    must oracle create -f qcow2 a.qcow2 64M
    must oracle create -f qcow2 b.qcow2 1.5G -o cluster_size=4k,lazy_refcounts=on,refcount_bits=8
    must oracle create -f qcow2 -o compat=0.10 v2.qcow2 64M
    must oracle create -f qcow2 -o extended_l2=on ext.qcow2 64M
    must oracle create -f qcow2 -o compression_type=zstd z.qcow2 64M
    must oracle create -f qcow2 -o data_file=ext.raw,data_file_raw=on df.qcow2 64M
    must oracle create -f qcow2 -b a.qcow2 -F qcow2 over.qcow2
    must oracle create -f qcow2 -u -b missing.qcow2 -F qcow2 orphan.qcow2 64M
    must oracle create -f raw r.raw 16M
    must oracle create -f qcow2 --object secret,id=sec0,data=passw0rd -o \
        encrypt.format=aes,encrypt.key-secret=sec0 aes.qcow2 16M
    must qemu-io -c 'write -P 0x11 0 1M' -c 'write -P 0x22 5M 128k' -c 'write -z 8M 256k' \
        -c 'discard 5M 64k' a.qcow2
    must qemu-io -c 'write -P 0x33 1M 64k' over.qcow2
    must oracle create -f qcow2 bm.qcow2 64M
    must oracle bitmap --add -g 32k bm.qcow2 b0
}

with_snapshots() {
    must oracle snapshot -c first a.qcow2
    must qemu-io -c 'write -P 0x44 0 64k' a.qcow2
    must oracle snapshot -c second a.qcow2
}

# Writes nonsense over the compressed data of the first cluster that is compressed; says
# at which guest offset in $spoiled.
spoil_compressed() {
    spoiled=$(imgtool spoil "$1") || fail "no compressed cluster in $1"
}
