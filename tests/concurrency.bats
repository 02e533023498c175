#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Beside other programs that have the image open: who is let in is what QEMU says, whoever
# holds it and whoever comes, at any moment of a command.
#
#   Q2_LOCK_SECONDS  how long each test with random moments runs (a second); 60 or more of
#                    them run the tables in full, too
#
# shellcheck shell=bash disable=SC2030,SC2031,SC2154

load helpers

setup() {
    q2_setup
    LOCKS=$BATS_TEST_DIRNAME/locks
    export PYTHONDONTWRITEBYTECODE=1
    SECONDS_EACH=${Q2_LOCK_SECONDS:-1}
    processes=()
}

# A test that failed leaves nobody behind.
teardown() {
    touch stop
    exec 7>&-
    [ ${#processes[@]} -eq 0 ] || kill -KILL "${processes[@]}" 2>/dev/null || true
}

is_long() {
    [ "$SECONDS_EACH" -ge 60 ]
}

# every N M: each Nth row of a table; each Mth in short mode; all of them in long runs.
every() {
    if is_long; then echo 1; else rows "$1" "$2"; fi
}

# beside OPTIONS: what commands end with while their image is held, against the table.
beside() {
    python3 -S "$LOCKS/run.py" "$@" "$LOCKS/table.txt"
}

preload() { # NAME [COMPILER [TARGET]]: a library of tools/, built for our program
    must "${2:-${QCOW2_CC:-${CC:-cc}}}" -D_GNU_SOURCE -shared -fPIC -O1 \
        -o "$PWD/${3:-$1}.so" "$BATS_TEST_DIRNAME/tools/$1.c" -ldl
}

@test "while qemu-storage-daemon holds the image, every command ends as the table says" {
    beside --every "$(every 1 4)"
}

@test "the table says what QEMU's programs end with" {
    beside --program theirs --every "$(every 4 16)"
}

@test "while qcow2 io holds the image, QEMU's programs and ours end as the table says" {
    beside --by io --program theirs --every "$(every 6 16)"
    beside --by io --every "$(every 6 16)"
}

# locks_with PROGRAM...: the bytes of a.qcow2 that it locks; it takes qemu-io's commands.
locks_with() {
    mkfifo commands
    "$@" -f qcow2 a.qcow2 <commands >held 2>&1 3>&- 7>&- &
    processes+=("$!")
    exec 7>commands
    echo 'read 0 512' >&7
    wait_until grep -q 'read 512/512' held
    python3 -S -c 'import sys
sys.path.insert(0, sys.argv[1])
import stop
print(*sorted(stop.locks_on("a.qcow2")))' "$LOCKS"
    exec 7>&-
    wait "$!"
    processes=()
    rm commands
}

@test "qemu-io and qcow2 io lock the same bytes, in whichever way they open the image" {
    local i mode modes=('' -r '-r -U') want=('100 101 103 201 203' '100 201 203' 100)
    must oracle create -q -f qcow2 a.qcow2 1M
    for i in 0 1 2; do
        read -r -a mode <<<"${modes[i]}"
        locks_with qemu-io "${mode[@]}" >theirs
        locks_with "$QCOW2" io "${mode[@]}" >ours
        [ "$(cat theirs)" = "${want[i]}" ] || fail "qemu-io ${modes[i]}: $(cat theirs)"
        [ "$(cat ours)" = "${want[i]}" ] || fail "qcow2 io ${modes[i]}: $(cat ours)"
    done
}

# nbd_server OPTIONS: qemu-nbd serves a.qcow2 until end_server.
nbd_server() {
    must qemu-nbd --fork --persistent --pid-file="$PWD/pid" -k "$BATS_TEST_TMPDIR/nbd" \
        -f qcow2 "$@" a.qcow2 3>&-
    server=$(cat pid)
    processes+=("$server")
}

end_server() {
    kill "$server"
    wait_until not_running "$server"
    processes=()
}

not_running() {
    ! kill -0 "$1" 2>/dev/null
}

@test "beside qemu-nbd: one that writes keeps all out, one that reads the writers" {
    must oracle create -q -f qcow2 a.qcow2 1M
    nbd_server
    must_exit 1 qemu-img info a.qcow2
    must_exit 1 qemu-img check a.qcow2
    must_exit 1 qemu-img snapshot -c s a.qcow2
    must_exit 1 qemu-io -f qcow2 -r -c 'read 0 512' a.qcow2
    must qemu-img info -U a.qcow2
    must qemu-img check -U a.qcow2
    end_server
    nbd_server -r
    must qemu-img info a.qcow2
    must qemu-img check a.qcow2
    must qemu-img convert -O raw a.qcow2 b.raw
    must_exit 1 qemu-img snapshot -c s a.qcow2
    must_exit 1 qemu-img resize a.qcow2 2M
    end_server
    must qemu-img snapshot -c s a.qcow2
    clean a.qcow2
}

# The daemon takes four KiB a second: the second request of a megabyte is under way for
# minutes.
slow_daemon() {
    qemu-storage-daemon --pidfile pid --object throttle-group,id=slow,x-bps-write=4096 \
        --blockdev driver=qcow2,node-name=disk,file.driver=file,file.filename=a.qcow2 \
        --blockdev driver=throttle,throttle-group=slow,file=disk,node-name=slowly \
        --nbd-server addr.type=unix,addr.path=socket \
        --export type=nbd,id=e,node-name=slowly,name=disk,writable=on \
        >daemon.log 2>&1 3>&- 7>&- &
    daemon=$!
    processes+=("$daemon")
    wait_until started_or_ended "$daemon"
    [ -s pid ] || fail "$(cat daemon.log)"
}

started_or_ended() {
    [ -s pid ] || not_running "$1"
}

@test "beside a machine's disk with a write under way: no snapshot; afterwards there is one" {
    must oracle create -q -f qcow2 a.qcow2 8M
    slow_daemon
    mkfifo commands
    qemu-io -f raw 'nbd+unix:///disk?socket=socket' <commands >client.log 2>&1 3>&- 7>&- &
    processes+=("$!")
    exec 7>commands
    echo 'write -f -P 5 0 1M' >&7
    wait_until grep -q wrote client.log
    echo 'aio_write -P 6 2M 1M' >&7
    must_exit 1 qemu-img snapshot -c s a.qcow2 7>&-
    must_exit 1 qemu-img info a.qcow2 7>&-
    must qemu-img info -U a.qcow2 7>&-
    must qemu-img snapshot -U -l a.qcow2 7>&-
    exec 7>&-
    kill -KILL "${processes[@]}"
    wait "${processes[@]}" || true
    processes=()
    must qemu-img snapshot -c s a.qcow2
    clean a.qcow2
    must qemu-io -f qcow2 -r -c 'read -P 5 0 1M' a.qcow2
}

@test "locks are there from a command's first look to its last write, and none stays" {
    local stops
    stops=$(rows 4 1)
    if is_long; then stops=1000; fi
    preload raise
    python3 -S "$LOCKS/stop.py" raise.so "$stops"
}

@test "a lock that a descriptor holds stays with it, whoever inherits it" {
    local program
    must oracle create -q -f qcow2 a.qcow2 1M
    exec 7<>a.qcow2
    # What a writer locks; the locks are the open file's, not the process's.
    python3 -S -c 'import fcntl, struct
for byte in 100, 101, 103, 201, 203:
    fcntl.fcntl(7, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, byte, 1, 0))'
    for program in "$ORACLE" "$QCOW2"; do
        must_exit 1 "$program" info a.qcow2 # has the descriptor itself
        must_exit 1 "$program" info a.qcow2 7>&-
        must_exit 1 "$program" info /dev/fd/7
        must_exit 1 "$program" snapshot -c s a.qcow2
        must "$program" info -U a.qcow2
        must "$program" info --image-opts driver=qcow2,file.filename=a.qcow2,file.locking=off
    done
    exec 7>&-
    must qemu-img snapshot -c s a.qcow2
}

# without_locks ERROR COMMAND...: on a file system that answers so.
without_locks() {
    local error=$1 library=$PWD/no_locks.so
    shift
    [ "$1" != "$ORACLE" ] || library=$PWD/no_locks_theirs.so
    ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" LD_PRELOAD=$library \
        NO_LOCKS=$error NO_LOCKS_EXCEPT=test "$@"
}

@test "where the file system has no locks, commands go on; with locking=on they do not" {
    # QEMU fails in any case, unless it is told locking=off, with these words.
    local error what theirs options=driver=qcow2,file.filename=a.qcow2,file.locking
    # QEMU's program may be for another machine than ours.
    preload no_locks
    preload no_locks "${CC:-cc}" no_locks_theirs
    for error in 22 37 95; do # EINVAL, ENOLCK, EOPNOTSUPP
        echo "error $error"
        {
            without_locks $error qemu-img create -q -f qcow2 a.qcow2 1M
            without_locks $error qemu-img snapshot -c s a.qcow2
            without_locks $error qemu-img convert -O raw a.qcow2 a.raw
            without_locks $error qemu-img resize -q a.qcow2 2M
            without_locks $error qemu-img check -q --image-opts $options=auto
            without_locks $error qemu-img check -q --image-opts $options=off
        } >out 2>&1
        [ ! -s out ] || fail "says: $(cat out)"
        for what in info check map; do
            run -1 without_locks $error "$ORACLE" $what --image-opts $options=on
            theirs=$output
            run -1 without_locks $error qemu-img $what --image-opts $options=on
            [ "$output" = "$theirs" ] || fail "says: $output"$'\n'"and not: $theirs"
            [[ $output == *'Failed to lock byte '* ]]
        done
        clean a.qcow2
        rm a.qcow2
    done
}

@test "locking=off minds nobody's lock, and holds none; backing files are locked" {
    must oracle create -q -f qcow2 a.qcow2 1M
    must oracle create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2
    local off=driver=qcow2,file.filename=b.qcow2,file.locking=off
    hold_open b.qcow2
    must_exit 1 qemu-img map b.qcow2
    must qemu-img map --image-opts $off
    must qemu-img check --image-opts $off
    let_go
    hold_open a.qcow2
    must_exit 1 qemu-img map --image-opts $off
    must qemu-img map --image-opts "$off,backing.file.filename=a.qcow2,backing.file.locking=off"
    must qemu-img check --image-opts $off
    let_go
}

@test "two writers at any moment: one may be turned away, the image is sound" {
    python3 -S "$LOCKS/writers.py" "$SECONDS_EACH"
}

@test "readers with -U beside a writer at any moment: they end, and write nothing" {
    must oracle create -q -f qcow2 -o cluster_size=4k a.qcow2 32M
    must oracle create -q -f qcow2 other.qcow2 32M
    python3 -S "$LOCKS/live.py" write a.qcow2 ready stop >writer.log 2>&1 3>&- &
    processes+=("$!")
    wait_until live_or_ended "$!"
    [ -e ready ] || fail "$(cat writer.log)"
    # To them the file is read-only.
    in_readonly a.qcow2 python3 -S "$LOCKS/live.py" read a.qcow2 "$SECONDS_EACH"
    cat out err
    [ "$(cat code)" -eq 0 ]
    touch stop
    wait "${processes[@]}" || fail "$(cat writer.log)"
    processes=()
    clean a.qcow2
    must qemu-img check a.qcow2
    reads_like_qemu a.qcow2
}

live_or_ended() {
    [ -e ready ] || not_running "$1"
}
