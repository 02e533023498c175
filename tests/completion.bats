#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Shell completion: keys are typed into real shells, and the last word that came of them is
# looked at. What the program offers to all of them is held to its help.

load helpers

setup() {
    q2_setup
    completion=$BATS_TEST_DIRNAME/../completion
    qcow2 create -q -f qcow2 vm.qcow2 1M
    qcow2 snapshot -c 'before upgrade' vm.qcow2
    qcow2 snapshot -c "o'clock" vm.qcow2
    qcow2 bitmap --add vm.qcow2 since-sunday
    cp vm.qcow2 'my disk.qcow2'
    mkdir json
    export HOME=$PWD INPUTRC=/dev/null TERM=dumb
}

# What is typed before the TAB, and the last word then.
table() {
    cat <<'END'
qcow2 chec|check
qcow2 --vers|--version
qcow2 check --rep|--repair
qcow2 check -r le|leaks
qcow2 check -rle|-rleaks
qcow2 info --output=js|--output=json
qcow2 info --out js|json
qcow2 convert -cO qc|qcow2
qcow2 convert -t writeth|writethrough
qcow2 convert -c --compression-level be|best
qcow2 create -f qcow2 -o clus|cluster_size=
qcow2 create -f qcow2 -o compat=v3,cluster_size=64|compat=v3,cluster_size=64k
qcow2 create -f qcow2 -o compression_type=zs|compression_type=zstd
qcow2 create -f qcow2 -oencrypt.cipher-alg=twofish-1|-oencrypt.cipher-alg=twofish-128
qcow2 create --object secret,id=key0,file=x -o encrypt.key-secret=ke -f qcow2|qcow2
qcow2 create -f qcow2 --object secret,id=key0,file=x -o encrypt.key-secret=ke|encrypt.key-secret=key0
qcow2 amend -o lazy_refcounts=of|lazy_refcounts=off
qcow2 resize --preallocation fa|falloc
qcow2 io -d ig|ignore
qcow2 vet --allow snapshots,enc|snapshots,encryption
qcow2 bench -i io|io_uring
qcow2 measure --output=hu|--output=human
qcow2 snapshot vm.qcow2 -d bef|before upgrade
qcow2 snapshot -l vm.qcow2 -a before\ u|before upgrade
qcow2 snapshot -f qcow2 vm.qcow2 -d "bef|before upgrade
qcow2 snapshot vm.qcow2 -d o|o'clock
qcow2 snapshot ~/vm.qcow2 -d bef|before upgrade
qcow2 snapshot my\ disk.qcow2 -d bef|before upgrade
qcow2 snapshot --image-opts driver=qcow2,file.filename=vm.qcow2 -d bef|before upgrade
qcow2 bitmap --remove vm.qcow2 sin|since-sunday
qcow2 bitmap -b vm.qcow2 --merge sin|since-sunday
qcow2 info my|my disk.qcow2
qcow2 compare vm.qcow2 my|my disk.qcow2
qcow2 dd bs=1M if=my|if=my disk.qcow2
qcow2 dd os|osize=
qcow2 check --undo-file=my|--undo-file=my disk.qcow2
qcow2 create -b my|my disk.qcow2
END
}

# Readline reads keys from a pipe as well as from a terminal, and in a session of its own the
# shell leaves whatever terminal the tests run in alone.
interactive_bash() {
    setsid --wait bash --noprofile --rcfile rc -i
}

same_as_table() { # FILE
    table | cut -d '|' -f 2 >wanted
    diff -u wanted "$1"
}

@test "bash completes commands, options, values, files and what is in the image" {
    cat >rc <<END
source $completion/qcow2.bash
qcow2() { printf '%s\n' "\${@: -1}" >>got; }
PS1=
END
    table | cut -d '|' -f 1 | sed $'s/$/\t/' | interactive_bash 2>said ||
        fail "$(cat said)"
    same_as_table got
}

@test "bash: a value before the image, and several words in a place" {
    cat >rc <<END
source $completion/qcow2.bash
qcow2() { printf '<%s>' "\$@" >>got; echo >>got; }
PS1=
END
    printf '%s\n' $'qcow2 snapshot -d  vm.qcow2\eb\eb\e[Dbef\t' \
        $'true && qcow2 info --output \e*' $'X=1 qcow2 check -r \e*' |
        interactive_bash 2>said || fail "$(cat said)"
    diff -u - got <<'END'
<snapshot><-d><before upgrade><vm.qcow2>
<info><--output><human><json>
<check><-r><all><leaks>
END
}

@test "bash: a name out of an image is never run" {
    evil=("\$(touch pwned)" "\`touch pwned\`" '; touch pwned' '"; touch pwned; "' '!x')
    for name in "${evil[@]}"; do
        qcow2 create -q -f qcow2 evil.qcow2 1M
        qcow2 snapshot -c "$name" evil.qcow2
        cat >rc <<END
source $completion/qcow2.bash
qcow2() { printf '%s\n' "\${@: -1}" >>got; }
PS1=
END
        rm -f got
        # The value in the place itself, and within either kind of quotes.
        printf '%s\n' $'qcow2 snapshot evil.qcow2 -d \t' $'qcow2 snapshot evil.qcow2 -d \'\t' |
            interactive_bash 2>said || fail "$(cat said)"
        printf '%s\n' "$name" "$name" | diff -u - got
        absent pwned
    done
}

@test "zsh completes the same" {
    # Its line editor works on a terminal only; a container may have none to give.
    if ! python3 -S -c 'import os; os.openpty()'; then
        zsh -n "$completion/_qcow2"
        return
    fi
    cat >type.zsh <<END
zmodload zsh/zpty
zpty z zsh -f -i
# Keys are typed when the line editor says that it waits for them.
zpty -w z 'PROMPT= RPROMPT=; stty -echo; fpath=($completion \$fpath); autoload -U compinit;
    compinit -u -D; bindkey "^T" take; zle -N take; zle -N zle-line-init;
    take() { print -r -- "\${(Q)\${(z)BUFFER}[-1]}" >>got; BUFFER=; zle accept-line };
    zle-line-init() { print -n RE""ADY }'
zpty -r z REPLY '*READY*'
while IFS= read -r line; do
    zpty -n -w z "\$line"\$'\t\x14'
    zpty -r z REPLY '*READY*'
done
zpty -d z
END
    table | cut -d '|' -f 1 >typed
    timeout 900 zsh -f type.zsh <typed
    same_as_table got
}

@test "fish completes the same" {
    # It can tell what it would type.
    table | cut -d '|' -f 1 >typed
    fish --no-config -c "
        source $completion/qcow2.fish
        while read -l line
            echo (string split -f 1 \t -- (complete -C \$line))
        end" <typed >got
    same_as_table got
}

# What the program offers behind "qcow2", the last word being the one to complete.
offers() {
    qcow2 __complete $(($# - 1)) "$@" | tail -n +2 | cut -f 1
}

@test "every command is offered, and of each command every option that its help has" {
    qcow2 --help | awk '/^Commands:/ { on = 1; next } !NF { on = 0 } on { print $1 }' >wanted
    [ -s wanted ]
    offers '' | diff -u wanted -
    while read -r command; do
        qcow2 "$command" --help | sed -nE 's/^ +(-[A-Za-z], )?(--[a-z-]+).*/\2/p' >in.help
        echo --help >>in.help
        diff -u <(sort in.help) <(offers "$command" -- | sort)
    done <wanted
}

@test "every property that -o help lists is offered, and what is offered for one is taken" {
    for format in qcow2 raw; do
        qcow2 create -f "$format" -o help x.img | sed -nE 's/^  ([a-z0-9_.-]+=).*/\1/p' |
            sort >keys
        [ -s keys ]
        diff -u keys <(offers create -f "$format" -o '' | sort)
    done
    for key in cluster_size preallocation compression_type compat lazy_refcounts refcount_bits; do
        values=$(offers create -f qcow2 -o "$key=")
        [ "$(wc -w <<<"$values")" -ge 2 ]
        for value in $values; do
            must qcow2 create -f qcow2 -o "$key=$value" new.qcow2 1M
        done
    done
    for mode in $(offers convert -t ''); do
        [ "$mode" = none ] || [ "$mode" = directsync ] ||
            must qcow2 convert -t "$mode" vm.qcow2 new.raw
    done
    for level in $(offers convert --compression-level ''); do
        must qcow2 convert -c --compression-level "$level" -O qcow2 vm.qcow2 new.qcow2
    done
}

@test "what is offered for encryption is taken" {
    echo -n secret >pass
    secret=secret,id=s,file=pass
    formats=$(offers create -f qcow2 -o encrypt.format=)
    [ "$(wc -w <<<"$formats")" -eq 2 ]
    for format in $formats; do
        options=encrypt.format=$format,encrypt.key-secret=s
        [ "$format" = aes ] || options+=,encrypt.iter-time=10
        must qcow2 create -q -f qcow2 --object $secret -o "$options" "$format.qcow2" 1M
    done
    states=$(offers amend -o encrypt.state=)
    [ "$(wc -w <<<"$states")" -eq 2 ]
    # They are refused for what is missing beside them, not for what they are.
    for state in $states; do
        one_error 1 qcow2 amend --object $secret -o "encrypt.state=$state" --image-opts \
            driver=qcow2,encrypt.key-secret=s,file.filename=luks.qcow2
        message_has 'new-secret|erase keyslot'
    done
}

@test "completion waits for nobody, asks nobody, and keeps quiet" {
    mkfifo pipe
    head -c 4096 /dev/urandom >noise.qcow2
    printf 'QFI\xfb' >short.qcow2
    for file in pipe noise.qcow2 short.qcow2 missing.qcow2 . '' 'json:{' file: nbd://x/; do
        run --separate-stderr qcow2 __complete 2 snapshot -d '' "$file" </dev/null
        [ "$status" -eq 0 ]
        [ -z "$stderr" ] || fail "$file: $stderr"
        [ -z "$output" ] || [ "$output" = $'words\t' ] || fail "$file: $output"
    done
    for line in '' '0' '1 x' '-1 x' 'x x' '99999999999999999999 x' $'0 a\nb'; do
        IFS=' ' read -r -d '' -a words <<<"$line" || true
        run --separate-stderr qcow2 __complete "${words[@]}"
        [ -z "$stderr" ] || fail "$line: $stderr"
    done
}

@test "completion needs no passphrase, and writes nothing" {
    echo -n secret >pass
    qcow2 create -q -f qcow2 --object secret,id=s,file=pass \
        -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 vault.qcow2 1M
    qcow2 snapshot -c sealed --object secret,id=s,file=pass --image-opts \
        driver=qcow2,encrypt.key-secret=s,file.filename=vault.qcow2
    before=$(hash_of vault.qcow2)
    [ "$(offers snapshot vault.qcow2 -d '' </dev/null)" = sealed ]
    [ "$(hash_of vault.qcow2)" = "$before" ]
    [ "$(offers convert -l '' | wc -l)" -eq 0 ]
}

@test "a name with control characters is not offered" {
    before=$(offers snapshot vm.qcow2 -d '')
    for name in $'two\nlines' $'a\ttab' $'\e[31m' $'\xc2\x9b31m' $'\xff'; do
        qcow2 snapshot -c "$name" vm.qcow2
    done
    [ "$(offers snapshot vm.qcow2 -d '')" = "$before" ]
    qcow2 snapshot -c 'vor dem Übergang' vm.qcow2
    [ "$(offers snapshot vm.qcow2 -d '' | tail -n 1)" = 'vor dem Übergang' ]
}
