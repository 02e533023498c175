#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The command line as such: names, help, unknown words. And a look at the test helpers
# themselves: they must be able to fail.

load helpers

setup() {
    q2_setup
}

COMMANDS='amend bench bitmap check commit compare convert create dd info map measure rebase recover resize
    snapshot vet'

@test "the name in messages is the one the program was called by" {
    one_error 1 qcow2 info missing
    [ "$message" = "qcow2: Could not open 'missing': Could not open 'missing': No such file or directory" ]
    one_error 1 qemu-img info missing
    [ "$message" = "qemu-img: Could not open 'missing': Could not open 'missing': No such file or directory" ]
    one_error 1 "$BATS_TEST_TMPDIR/.bin/qcow2" info missing
    [ "$message" = "qcow2: Could not open 'missing': Could not open 'missing': No such file or directory" ]
    ln -s "$QCOW2" "$BATS_TEST_TMPDIR/.bin/disktool"
    run --separate-stderr disktool info missing
    [ "$status" -eq 1 ]
    [ "$stderr" = "disktool: Could not open 'missing': Could not open 'missing': No such file or directory" ]
}

@test "unknown options and missing arguments name the command" {
    local command
    for command in $COMMANDS; do
        run --separate-stderr qemu-img "$command" --no-such-option
        [ "$status" -ne 0 ]
        [ "$status" -lt 128 ]
        [ -z "$output" ]
        [ "${stderr_lines[0]}" = "qemu-img $command: unrecognized option '--no-such-option'" ]
        [ "${stderr_lines[1]}" = "Try 'qemu-img $command --help' for more information" ]
        [ "${#stderr_lines[@]}" -eq 2 ]

        [ "$command" != recover ] || continue # it takes no -f
        run --separate-stderr qemu-img "$command" -f
        [ "$status" -ne 0 ]
        [ "${stderr_lines[0]}" = "qemu-img $command: option requires an argument -- 'f'" ]
        [ "${stderr_lines[1]}" = "Try 'qemu-img $command --help' for more information" ]
    done
}

# says COMMAND HINT MESSAGE [ARGUMENT...]: one line, and the hint for the command or none.
says() {
    local command=$1 hint=$2 message=$3
    shift 3
    run --separate-stderr qemu-img "$command" "$@"
    [ "$status" -eq 1 ] || return 1
    [ -z "$output" ] || return 1
    [ "${stderr_lines[0]}" = "qemu-img: $message" ] || fail "$command $*: $stderr" || return 1
    case $hint in
    hint) [ "${stderr_lines[1]}" = "Try 'qemu-img $command --help' for more information" ] ;;
    none) [ "${#stderr_lines[@]}" -eq 1 ] ;;
    esac || fail "$command $*: $stderr"
}

@test "too few and too many words, and where QEMU 10.2 gives the hint" {
    local command one='Expecting one image file name'
    for command in bench check commit info map snapshot; do
        says $command hint "$one"
        says $command hint "$one" a b
    done
    says rebase hint "$one" -b x
    says rebase hint 'Must specify backing file (-b) or use unsafe mode (-u)' a
    says amend hint 'Must specify options (-o)' a
    says amend none "$one" -o compat=v3
    says amend none "$one" -o compat=v3 a b
    says create hint 'Expecting image file name'
    says create hint 'Unexpected argument: b' a 1M b
    says compare hint 'Expecting two image file names' a
    says compare hint 'Expecting two image file names' a b c
    says convert none 'Must specify image file name'
    says convert none 'Must specify image file name' a
    says resize hint 'Expecting image file name and size' a
    says resize hint 'Extra argument(s) in command line' a 1M 2M
    says snapshot hint "Cannot mix '-l', '-a', '-c', '-d'" -l -c x a
    says bitmap none 'Need at least one of --add, --remove, --clear, --enable, --disable, or --merge' a b
    says bitmap none 'Expecting filename and bitmap name' --add a
    says bitmap none 'Expecting filename and bitmap name' --add a b c
    says dd none 'Must specify both input and output files' if=a
    says dd none 'unrecognized operand x' x
    says measure none 'Either --size N or one filename must be specified.'
    says measure none 'At most one filename argument is allowed.' a b
    says measure none '--size N cannot be used together with a filename.' --size 1M a
    for command in info map check measure; do
        says $command hint "--output expects 'human' or 'json', not 'x'" --output x a
    done
}

@test "compare exits as QEMU does for a wrong command line" {
    must_exit 1 qemu-img compare
    must_exit 1 qemu-img compare onlyone
    must_exit 1 qemu-img compare --no-such-option a b
    must_exit 1 qemu-img compare a b c
}

@test "too many arguments" {
    truncate -s 1M a b
    must_exit 1 qemu-img info a b
    must_exit 1 qemu-img map a b
    must_exit 1 qemu-img create -f raw c 1M more
    absent c
}

@test "--help of the program names every command" {
    local word command
    for word in --help -h; do
        run --separate-stderr qcow2 $word
        [ "$status" -eq 0 ]
        [ -z "$stderr" ]
        for command in $COMMANDS; do
            grep -qw -e "$command" <<<"$output"
        done
    done
}

# help_has COMMAND OPTION...: each option stands in the command's help.
help_has() {
    local command=$1 option
    shift
    run --separate-stderr qcow2 "$command" --help
    [ "$status" -eq 0 ] || return 1
    [ -z "$stderr" ] || return 1
    for option in "$@"; do
        grep -qE -e "(^|[][ ,|(])$option([][ ,|=)]|\$)" <<<"$output" ||
            fail "$command --help does not have $option:"$'\n'"$output" || return 1
    done
}

@test "--help of each command names every option" {
    help_has create -f -o -b -F -u -q --help
    help_has info -f -U --output --backing-chain --help
    help_has convert -f -O -c -o -p -q -n -S -l -B -F -m -W -U -t -T -C -r --salvage \
        --target-is-zero --help
    help_has compare -f -F -p -q -s -T -U --help
    help_has map -f -s -l -U --output --help
}

@test "--version" {
    local word
    for word in --version -V; do
        run --separate-stderr qcow2 $word
        [ "$status" -eq 0 ]
        [ -z "$stderr" ]
        [[ ${lines[0]} =~ ^qcow2.*[0-9]+\.[0-9]+ ]]
    done
}

@test "output that cannot be written is an error" {
    must oracle create -f qcow2 a.qcow2 1M
    local command
    for command in 'info a.qcow2' 'map a.qcow2' 'map --output=json a.qcow2' \
        'info --output=json a.qcow2' --help 'create -f qcow2 b.qcow2 1M'; do
        # shellcheck disable=SC2086
        run --separate-stderr bash -c 'qcow2 "$@" >/dev/full' bash $command
        echo "$command: exit $status, $stderr"
        [ "$status" -ne 0 ]
        [ "$status" -lt 128 ]
        [[ $stderr == qcow2:* ]]
    done
}

@test "a file name that begins with a dash, behind --" {
    must qemu-img create -f qcow2 -- -x.qcow2 1M
    [ -e ./-x.qcow2 ]
    must qemu-img info -- -x.qcow2
    must qemu-img convert -O raw -- -x.qcow2 -y.raw
    must qemu-img compare -- -x.qcow2 -y.raw
}

@test "options may stand behind the file names" {
    must qemu-img create a.qcow2 1M -f qcow2 -o cluster_size=4k
    [ "$(imgtool field a.qcow2 cluster_bits)" -eq 12 ]
    must qemu-img convert a.qcow2 b.qcow2 -O qcow2 -o cluster_size=4k
    must qemu-img compare a.qcow2 b.qcow2 -s
}

@test "nothing of the environment changes numbers or words" {
    must oracle create -f qcow2 a.qcow2 1536M
    local plain
    plain=$(LC_ALL=C qemu-img info a.qcow2)
    [ "$(LC_ALL=de_DE.UTF-8 LANGUAGE=de qemu-img info a.qcow2)" = "$plain" ]
    [ "$(COLUMNS=20 qemu-img info a.qcow2)" = "$plain" ]
}

# --- the helpers ------------------------------------------------------------------------

@test "replay sees a wrong line, stream, exit code and a missing newline" {
    local wrong
    replay <<<$'$ echo a; echo b >&2; exit 3\na\nstderr: b\n[exit 3]'
    for wrong in $'$ echo a\nb\n[exit 0]' $'$ echo a\na\n[exit 1]' $'$ echo a\n[exit 0]' \
        $'$ true\na\n[exit 0]' $'$ echo a >&2\na\n[exit 0]' $'$ echo a\nstderr: a\n[exit 0]' \
        $'$ printf a\na\n[exit 0]' $'$ echo a\na\n' ''; do
        run replay <<<"$wrong"
        [ "$status" -ne 0 ]
    done
}

@test "one_error wants one line, with a name, and the exit code" {
    one_error 1 bash -c 'echo "qcow2: broken" >&2; exit 1'
    local wrong
    for wrong in 'echo "qcow2: broken" >&2; exit 2' 'echo "qcow2: broken" >&2' \
        'echo "broken" >&2; exit 1' 'exit 1' 'echo "qcow2: a" >&2; echo b >&2; exit 1' \
        'echo out; echo "qcow2: broken" >&2; exit 1'; do
        run one_error 1 bash -c "$wrong"
        [ "$status" -ne 0 ]
    done
}

@test "written_right sees a leak, a wrong byte and a wrong refcount" {
    imgtool fill disk.raw 1M --seed 2
    must oracle convert -O qcow2 disk.raw good.qcow2
    cp good.qcow2 a.qcow2
    written_right a.qcow2 disk.raw
    # Refcounts stand in the third cluster: one too many, one too few.
    cp good.qcow2 a.qcow2
    imgtool poke a.qcow2 $((2 * 65536 + 2 * 5)) 0002
    run written_right a.qcow2 disk.raw
    [ "$status" -ne 0 ]
    cp good.qcow2 a.qcow2
    imgtool poke a.qcow2 $((2 * 65536 + 2 * 5)) 0000
    run written_right a.qcow2 disk.raw
    [ "$status" -ne 0 ]
    cp good.qcow2 a.qcow2
    must qemu-io -c 'write -P 99 0 512' a.qcow2
    run written_right a.qcow2 disk.raw
    [ "$status" -ne 0 ]
}
