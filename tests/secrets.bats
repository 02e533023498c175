#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Passphrases on the command line, and encrypted images through every command. Where both
# run the same command line, QEMU is what they must be like: exit code, what is printed,
# what the image holds then.
load helpers.bash

S=(--object 'secret,id=s,data=passw0rd')
T=(--object 'secret,id=t,data=other')
FAST=encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10

# Images made once, of 4 MiB, with data in the first 256k and at 1M; raw.img holds the same.
setup_file() {
    mkdir "$BATS_FILE_TMPDIR/images"
    cd "$BATS_FILE_TMPDIR/images" || return 1
    make_images
}

setup() {
    q2_setup
    ln -sf "$QCOW2" ../.bin/qemu-io
    ours=$BATS_TEST_TMPDIR/.bin
    cp "$BATS_FILE_TMPDIR"/images/* .
}

make_images() {
    local f
    must with_clock "$ORACLE" create -q -f qcow2 "${S[@]}" -o "$FAST" luks.qcow2 4M
    must oracle create -q -f qcow2 "${S[@]}" -o encrypt.format=aes,encrypt.key-secret=s aes.qcow2 4M
    must oracle create -q -f qcow2 plain.qcow2 4M
    must "$QCOW2" create -q -f qcow2 "${S[@]}" -o "$FAST" our-luks.qcow2 4M
    must "$QCOW2" create -q -f qcow2 "${S[@]}" -o encryption=on,encrypt.key-secret=s our-aes.qcow2 4M
    for f in luks aes plain our-luks our-aes; do
        must /usr/bin/qemu-io "${S[@]}" --image-opts "$(opts $f)" -c 'write -P 0x11 0 256k' \
            -c 'write -P 0x22 1M 64k'
    done
    must oracle convert -O raw plain.qcow2 raw.img
}

opts() {
    echo "driver=qcow2,file.filename=$1.qcow2,encrypt.key-secret=s"
}

clean_locked() { # NAME
    must oracle check "${S[@]}" --image-opts "$(opts "$1")"
}

holds() { # NAME RAW
    clean_locked "$1" || return 1
    must oracle compare "${S[@]}" --image-opts "$(opts "$1")" "driver=raw,file.filename=$2"
}

# Names, speeds and what newer versions add.
plain_words() {
    sed -E -e 's/^qemu-io: /qemu-img: /' -e 's/[0-9.]+ [KMG]?i?B\/sec.*//' \
        -e 's/, [0-9]+ ops; .*//' -e 's/, "compressed": (false|true)//' \
        -e 's/PBKDF iterations [0-9]+/PBKDF iterations #/'
}

# Both run it in copies of this folder; what they print and how they end is the same.
alike() { # qemu-img|qemu-io ARGUMENTS...
    local program=$1 side code dir=$BATS_TEST_TMPDIR/alike
    shift
    rm -rf "$dir"
    mkdir "$dir"
    for side in "/usr/bin/$program" "$ours/$program"; do
        case $1 in
        map | info | check | compare | measure | bench) ln -s "$PWD" "$dir/work" ;;
        *) cp -r . "$dir/work" ;;
        esac
        code=0
        (cd "$dir/work" && run_side "$side" "$@") >"$dir/out" 2>"$dir/err" </dev/null || code=$?
        {
            plain_words <"$dir/out"
            plain_words <"$dir/err" | sed 's/^/stderr: /'
            echo "exit $code"
        } >"$dir/$([ "$side" = "$ours/$program" ] && echo got || echo want)"
        rm -rf "$dir/work"
    done
    diff -u "$dir/want" "$dir/got" >"$dir/diff" ||
        fail "\$ $program $*"$'\n'"$(tail -n +3 "$dir/diff")"
}

run_side() {
    case $1 in
    /usr/*) with_clock "$@" ;;
    *) "$@" ;;
    esac
}

# alike, for each of the command lines on standard input.
alike_all() {
    local line bad=0 words
    while IFS= read -r line; do
        [ -n "$line" ] || continue
        eval "words=($line)"
        alike "${words[@]}" || bad=1
    done
    return "$bad"
}

@test "--object: secrets are taken and refused as by QEMU" {
    local object bad=0 key
    key=$(head -c 32 /dev/zero | base64)
    while IFS= read -r object; do
        object_alike "$key" "$object" || bad=1
    done <<'EOF'
secret
secret,data=x
secret,id=a
secret,id=a,data=x
secret,id=a,data=x,file=raw.img
secret,id=a,file=missing
secret,id=a,file=.
secret,id=a,data=x,format=raw
secret,id=a,data=x,format=foo
secret,id=a,data=x,foo=bar
secret,id=a,data=x,foo.bar=1
secret,id=1a,data=x
secret,id=1a,foo=x
secret,id=a b,data=x
secret,id=,data=x
secret,id=a,data=e*,format=base64
secret,id=a,data=e,format=base64
secret,id=a,data=eHg=,format=base64
secret,id=a,data=x,data=y
secret,id=a,data=,x
secret,id=a,data=a,,b
secret,id=a,data=a,
secret,id=a,,data=a
secret,id=a,data
secret,id=k,data=x
secret,id=a,data=x,keyid=nope
secret,id=a,data=x,keyid=k
secret,id=a,data=x,keyid=s
secret,id=a,data=x,iv=AAAA
secret,id=a,data=x,keyid=k,iv=AAAA
secret,id=a,data=x,keyid=k,iv=A*
secret,id=a,data=eHh4,keyid=k,iv=AAAAAAAAAAAAAAAAAAAAAA==,format=base64
secret,id=a,data=eHh4eHh4eHh4eHh4eHh4eA==,keyid=k,iv=AAAAAAAAAAAAAAAAAAAAAA==,format=base64
secret,foo=z
secret,data=x,format=foo
foo,id=a
id=a,data=x
,secret
[1]
qom-type=secret,id=a,data=x
{"qom-type":"secret","id":"a","data":"x"}
{"qom-type":"secret","id":"a","data":"x","more":1}
{"qom-type":"secret","id":"a","data":5}
{"qom-type":"secret","id":"a","data":null}
{"qom-type":"secret","id":5}
{"qom-type":"secret"}
{"qom-type":"foo","id":"a"}
{"qom-type":5,"id":"x"}
{"id":"a","data":"x"}
EOF
    object_alike "$key" '' || bad=1
    [ "$bad" -eq 0 ]
}

object_alike() { # KEY OBJECT
    local want got
    set -- "${S[@]}" --object "secret,id=k,data=$1,format=base64" --object "$2" plain.qcow2
    want=$(oracle map "$@" 2>&1 || echo "exit $?")
    got=$(qemu-img map "$@" 2>&1 || echo "exit $?")
    [ "$want" = "$got" ] || fail "--object ${*: -2:1}"$'\n'"QEMU: $want"$'\n'"here: $got"
}

@test "--object help, and the exit code of compare" {
    [ "$(qemu-img info --object help)" = $'List of user creatable objects:\n  secret' ]
    [ "$(qemu-img info --object secret,help)" = "$(oracle info --object secret,help)" ]
    alike qemu-img compare --object secret plain.qcow2 plain.qcow2
    alike qemu-img compare --object foo,id=a plain.qcow2 plain.qcow2
}

@test "the same passphrase in all its forms" {
    local form key iv sealed
    printf passw0rd >plain.key
    printf cGFzc3cwcmQ= >base64.key
    # AES-256-CBC of "passw0rd", as "openssl enc" makes it.
    key=ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=
    iv=QEFCQ0RFRkdISUpLTE1OTw==
    sealed=2rJX+aCXsndd6uNeWW9Kmg==
    for form in secret,data=passw0rd,id=s secret,id=s,data=cGFzc3cwcmQ=,format=base64 \
        secret,id=s,file=plain.key secret,id=s,file=base64.key,format=base64 \
        secret,id=s,format=raw,file=plain.key \
        "secret,id=s,data=$sealed,keyid=k,iv=$iv,format=base64" \
        '{"qom-type": "secret", "id": "s", "file": "plain.key"}'; do
        must qemu-img compare --object "secret,id=k,data=$key,format=base64" \
            --object "$form" --image-opts "$(opts luks)" driver=raw,file.filename=raw.img
    done
    must qemu-img compare --object "secret,id=s,file=/dev/fd/7" --image-opts "$(opts luks)" \
        driver=raw,file.filename=raw.img 7< <(printf passw0rd)
    printf 'passw0rd\n' >line.key # a line's end belongs to it, as in QEMU
    one_error 2 qemu-img compare --object secret,id=s,file=line.key --image-opts \
        "$(opts luks)" driver=raw,file.filename=raw.img
    message_has 'Invalid password, cannot unlock any keyslot$'
}

@test "what is too long is no passphrase" {
    one_error 1 qemu-img info --object secret,id=s,file=/dev/zero plain.qcow2
    message_has '/dev/zero.*too large'
    one_error 1 qemu-img info --object "secret,id=s,data=$(head -c 20000 /dev/zero | tr '\0' x)" \
        plain.qcow2
    message_has "'s' is too long"
}

@test "no passphrase is ever printed" {
    local secret=Hu5hHu5h
    for form in "secret,id=1,data=$secret" "secret,id=a,data=$secret,format=foo" \
        "secret,id=a,data=$secret*,format=base64" "secret,id=a,data=$secret,more=1" \
        "secret,id=s,data=$secret" "data=$secret" "foo,id=a,data=$secret" \
        "throttle-group,id=a,data=$secret" "{\"qom-type\":\"secret\",\"data\":\"$secret\"}"; do
        one_error_or_hint qemu-img map "${S[@]}" --object "$form" luks.qcow2
    done
    one_error_or_hint qemu-img map --object "secret,id=s,data=$secret" --image-opts "$(opts luks)"
    one_error_or_hint qemu-io --object "secret,id=s,data=$secret" --image-opts "$(opts luks)" -c map
}

one_error_or_hint() {
    local said code=0
    said=$("$@" 2>&1) || code=$?
    [ "$code" -eq 1 ] || fail "exit $code: $*" || return 1
    case $said in
    *Hu5h*) fail "prints it: $said" ;;
    *[a-z]*) ;;
    *) fail "says nothing: $*" ;;
    esac
}

@test "a passphrase does not stay on the command line" {
    mkfifo lines
    qemu-io "${S[@]}" --image-opts "$(opts luks)" <lines >said 2>&1 3>&- &
    exec 9>lines
    echo length >&9
    wait_until grep -q MiB said
    tr '\0' ' ' <"/proc/$!/cmdline" >cmdline
    exec 9>&-
    wait $!
    grep -q -e '--object' cmdline
    ! grep -q passw0rd cmdline || fail "$(cat cmdline)"
}

@test "what unlocks an image, in --image-opts and json:, as QEMU takes it" {
    local name o
    for name in luks aes plain; do
        for o in '' ,encrypt.key-secret=s ,encrypt.key-secret=t ,encrypt.key-secret=nope \
            ,encrypt.key-secret= ,encrypt.format=luks ,encrypt.format=aes,encrypt.key-secret=s \
            ,encrypt.format=luks,encrypt.key-secret=s ,encrypt.format=foo,encrypt.key-secret=s; do
            # The old method cannot tell a wrong key from the right one.
            alike qemu-img map --output=json "${S[@]}" "${T[@]}" --image-opts \
                "driver=qcow2,file.filename=$name.qcow2$o"
        done
        alike qemu-img map "${S[@]}" --image-opts "file.filename=$name.qcow2,encrypt.key-secret=s"
        for o in '"s"' 5; do
            alike qemu-img map "${S[@]}" "json:{\"encrypt\": {\"key-secret\": $o}, \
\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"$name.qcow2\"}}"
        done
    done
    alike qemu-img map "${S[@]}" --image-opts "$(opts luks),encrypt.foo=1"
    for name in luks,encrypt.format=aes aes,encrypt.format=luks plain,encrypt.format=luks \
        luks,encrypt.format=foo; do
        o=driver=qcow2,file.filename=${name%%,*}.qcow2,${name#*,}
        alike qemu-img info --image-opts "$o"
        alike qemu-img snapshot -l --image-opts "$o"
        alike qemu-img snapshot -c x --image-opts "$o"
        alike qemu-img amend -o lazy_refcounts=on --image-opts "$o"
    done
    alike qemu-img map --image-opts driver=raw,file.filename=raw.img,encrypt.format=luks
}

@test "passphrases are text, and empty ones are some" {
    local data
    for data in '//8=' 'AGE=' 'wyg=' '7aCA' '9JCAgA==' ''; do
        alike qemu-img create -f qcow2 --object "secret,id=s,data=$data,format=base64" \
            -o "$FAST" new.qcow2 1M
    done
    must qemu-img create -q -f qcow2 --object secret,id=s,data= -o "$FAST" new.qcow2 1M
    must oracle check --object secret,id=s,data= --image-opts "$(opts new)"
    data=$(printf 'Gr\303\274\303\237e \360\237\224\221' | base64)
    must qemu-img create -q -f qcow2 --object "secret,id=s,data=$data,format=base64" \
        -o "$FAST" new.qcow2 1M
    must oracle check --object "secret,id=s,data=$data,format=base64" --image-opts "$(opts new)"
}

@test "create -o encrypt...: as QEMU judges it" {
    local o L=encrypt.format=luks,encrypt.key-secret=s
    for o in encryption=on encryption=on,encrypt.key-secret=s encryption=on,encrypt.format=luks \
        encryption=on,encrypt.format=aes,encrypt.key-secret=s \
        encryption=off,encrypt.format=aes,encrypt.key-secret=s \
        encryption=off,encrypt.key-secret=s encryption=off encrypt.format=aes \
        encrypt.format=luks encrypt.format=foo encrypt.format= encrypt.key-secret=s \
        encrypt.format=aes,encrypt.key-secret=nope encrypt.format=luks,encrypt.key-secret=nope \
        encrypt.format=aes,encrypt.key-secret=s,encrypt.cipher-alg=aes-256 \
        encryption=on,encrypt.iter-time=10 encrypt.foo=1 $L,encrypt.iter-time=x \
        $L,encrypt.iter-time=0 $L,encrypt.iter-time=-1 $L,encrypt.cipher-alg=foo \
        $L,encrypt.cipher-mode=foo $L,encrypt.ivgen-alg=foo $L,encrypt.hash-alg=foo \
        $L,encrypt.ivgen-hash-alg=foo $FAST,compat=0.10 $FAST,cluster_size=512 \
        $FAST,preallocation=metadata $FAST,backing_file=plain.qcow2,backing_fmt=qcow2 \
        $FAST,backing_file=luks.qcow2,backing_fmt=qcow2; do
        alike qemu-img create -f qcow2 "${S[@]}" -o "$o" new.qcow2 4M
    done
    alike qemu-img create -f raw -o encrypt.format=luks new.img 1M
    alike qemu-img create -f raw -o encryption=on new.img 1M
}

@test "an image that could not be encrypted is not there" {
    one_error_and_absent() {
        must_exit 1 qemu-img create -q -f qcow2 "${S[@]}" -o "$1" new.qcow2 1M
        absent new.qcow2
    }
    one_error_and_absent encrypt.format=luks
    one_error_and_absent encrypt.format=luks,encrypt.key-secret=nope
    one_error_and_absent "$FAST,encrypt.cipher-alg=rot13"
}

@test "a signal while keys are made leaves no image" {
    local n signal_file=new.qcow2
    for ((n = 1; n < 99; n++)); do
        with_signal pwrite "$n" 15 "$QCOW2" create -q -f qcow2 "${S[@]}" -o "$FAST" new.qcow2 1G
        [ "$code" -ne 0 ] || break # there are fewer calls
        [ "$code" -eq 143 ] || fail "write $n: exit $code: $(cat err)"
        absent new.qcow2
    done
    [ "$n" -gt 3 ] || fail "$n writes only"
}

@test "every command on encrypted images, made by QEMU and here" {
    local name o
    for name in $(rows 'luks our-luks our-aes' 'our-luks'); do
        o=$(opts "$name")
        alike qemu-img compare "${S[@]}" --image-opts "$o" driver=raw,file.filename=raw.img
        alike qemu-img compare -s "${S[@]}" --image-opts "driver=qcow2,file.filename=plain.qcow2" "$o"
        alike qemu-img map "${S[@]}" --image-opts "$o"
        alike qemu-img map --output=json "${S[@]}" --image-opts "$o"
        alike qemu-img check "${S[@]}" --image-opts "$o"
        alike qemu-io "${S[@]}" --image-opts "$o" -c 'read -P 0x11 0 256k' -c 'read -P 0x22 1M 64k' \
            -c 'read -P 0 256k 768k' -c 'write -P 5 300k 512' -c 'read -P 5 300k 512' -c map
        alike qemu-img snapshot "${S[@]}" -c x --image-opts "$o"
        alike qemu-img snapshot "${S[@]}" -d x --image-opts "$o"
        alike qemu-img resize "${S[@]}" --image-opts "$o" +1M
        alike qemu-img resize "${S[@]}" --image-opts "$o" --shrink 1M
        alike qemu-img resize "${S[@]}" --image-opts "$o" --preallocation=full +1M
        alike qemu-img amend "${S[@]}" --image-opts "$o" -o refcount_bits=8
        alike qemu-img amend "${S[@]}" --image-opts "$o" -o compat=0.10
        alike qemu-img convert "${S[@]}" -O raw --image-opts "$o" out.raw
        alike qemu-img dd "${S[@]}" --image-opts "if=$o" of=out.raw
        alike qemu-img convert "${S[@]}" -n --target-image-opts raw.img "$o"
    done
}

@test "what the commands do to encrypted images, QEMU reads" {
    local name o
    cp raw.img want.raw
    for name in luks aes our-luks our-aes; do
        o=$(opts $name)
        must qemu-img convert "${S[@]}" -O raw --image-opts "$o" out.raw
        same_bytes out.raw raw.img
        must qemu-img dd "${S[@]}" --image-opts "if=$o" of=out.raw
        same_bytes out.raw raw.img
        must qemu-img snapshot "${S[@]}" -c one --image-opts "$o"
        must qemu-io "${S[@]}" --image-opts "$o" -c 'write -P 0x33 0 100k' -c 'write -z 200k 4k' \
            -c 'write -P 0x44 3000k 700'
        must qemu-io -f raw raw.img -c 'write -P 0x33 0 100k' -c 'write -z 200k 4k' \
            -c 'write -P 0x44 3000k 700'
        holds $name raw.img
        must qemu-img convert "${S[@]}" -O raw -l one --image-opts "$o" out.raw
        same_bytes out.raw want.raw
        must qemu-img resize "${S[@]}" --image-opts "$o" --preallocation=full +1M
        must oracle resize -f raw raw.img +1M
        holds $name raw.img
        must qemu-img resize "${S[@]}" --image-opts "$o" --shrink 2M
        must oracle resize -f raw --shrink raw.img 2M
        must qemu-img amend "${S[@]}" --image-opts "$o" -o refcount_bits=32,lazy_refcounts=on
        holds $name raw.img
        must qemu-img snapshot "${S[@]}" -a one --image-opts "$o"
        must qemu-img snapshot "${S[@]}" -d one --image-opts "$o"
        must qemu-img amend "${S[@]}" --image-opts "$o" -o lazy_refcounts=off,refcount_bits=16
        must qemu-img amend "${S[@]}" --image-opts "$o" -o compat=0.10
        holds $name want.raw
        cp want.raw raw.img
    done
}

@test "without the passphrase: QEMU's words where it is needed" {
    local name
    for name in luks aes; do
        alike_all <<EOF
qemu-img map $name.qcow2
qemu-img compare $name.qcow2 raw.img
qemu-img convert -O raw $name.qcow2 out.raw
qemu-img convert -O qcow2 -f qcow2 "\${S[@]}" $name.qcow2 out.qcow2
qemu-img convert -n -O qcow2 raw.img $name.qcow2
qemu-img convert -n -c -O qcow2 raw.img $name.qcow2
qemu-img resize $name.qcow2 +1M
qemu-img dd if=$name.qcow2 of=out.raw
qemu-img bench -c 1 $name.qcow2
qemu-img commit $name.qcow2
qemu-io -c 'read 0 512' $name.qcow2
qemu-io -r -c 'read 0 512' $name.qcow2
EOF
    done
    alike qemu-img convert "${T[@]}" -n --target-image-opts raw.img \
        driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=t
    alike qemu-img resize "${T[@]}" --image-opts \
        driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=t +1M
    alike qemu-img amend "${T[@]}" -o lazy_refcounts=on --image-opts \
        driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=t
    alike qemu-img snapshot "${T[@]}" -c x --image-opts \
        driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=t
    alike qemu-img snapshot "${T[@]}" -c x --image-opts \
        driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=nope
    hash_of luks.qcow2 aes.qcow2 >before
    must_exit 1 qemu-img resize luks.qcow2 +1M
    must_exit 1 qemu-io -c 'write 0 512' aes.qcow2
    hash_of luks.qcow2 aes.qcow2 >after
    cmp before after
}

@test "without the passphrase: what looks at no guest data works" {
    local name
    for name in luks aes our-luks our-aes; do
        must qemu-img info $name.qcow2
        must qemu-img info --output=json $name.qcow2
        must qemu-img check $name.qcow2
        must qemu-img snapshot -c x $name.qcow2
        [ "$(qemu-img snapshot -l $name.qcow2 | wc -l)" -eq 3 ]
        must qemu-img amend -o lazy_refcounts=on,refcount_bits=32 $name.qcow2
        must qemu-img snapshot -a x $name.qcow2
        must qemu-img snapshot -d x $name.qcow2
        holds $name raw.img
    done
}

@test "info tells of encryption as QEMU does" {
    local name o
    for name in luks aes our-luks our-aes; do
        diff -u <(oracle info $name.qcow2 | grep -v '^disk size') \
            <(qemu-img info $name.qcow2 | sed -e '/^Child node/,$d' |
                grep -v -e 'detached header' -e '^disk size')
        [ "$(qemu-img info --output=json $name.qcow2 | json_value '["encrypted"]')" = True ]
        for o in "$(opts $name)" "$(opts $name),lazy-refcounts=on"; do
            [ "$(qemu-img info "${S[@]}" --image-opts "$o" | head -n 1)" = \
                "$(oracle info "${S[@]}" --image-opts "$o" | head -n 1)" ]
            diff <(qemu-img info "${S[@]}" --output=json --image-opts "$o" | json_value '["filename"]') \
                <(oracle info "${S[@]}" --output=json --image-opts "$o" | json_value '["filename"]')
        done
        diff -u <(oracle info --output=json $name.qcow2 | python3 -c "$SPECIFIC") \
            <(qemu-img info --output=json $name.qcow2 | python3 -c "$SPECIFIC")
    done
}

SPECIFIC='
import json, sys
data = json.load(sys.stdin)["format-specific"]["data"]
data["encrypt"].pop("detached-header", None)
print(json.dumps(data, indent=1, sort_keys=True))'

@test "convert into an encrypted image, and onto one" {
    local o
    for o in "$FAST" encrypt.format=aes,encrypt.key-secret=s encryption=on,encrypt.key-secret=s; do
        must qemu-img convert "${S[@]}" -O qcow2 -o "$o" raw.img new.qcow2
        holds new raw.img
        must qemu-img convert "${S[@]}" "${T[@]}" -O qcow2 -o "$FAST,cluster_size=4k" --image-opts \
            "$(opts new)" again.qcow2
        holds again raw.img
    done
    must oracle create -q -f raw other.img 4M
    must qemu-io -f raw other.img -c 'write -P 0x77 0 2M'
    for o in luks aes our-luks our-aes; do
        must qemu-img convert "${S[@]}" -n --target-image-opts other.img "$(opts $o)"
        holds $o other.img
    done
    must qemu-img convert "${S[@]}" -n --image-opts --target-image-opts "$(opts luks)" "$(opts our-aes)"
    holds our-aes other.img
}

@test "convert: refusals about encryption, as in QEMU" {
    local o
    for o in "$FAST" encrypt.format=aes,encrypt.key-secret=s encryption=on,encrypt.key-secret=s \
        encrypt.format=luks encrypt.format=luks,encrypt.key-secret=nope; do
        alike qemu-img convert "${S[@]}" -O qcow2 -c -o "$o" raw.img new.qcow2
        alike qemu-img convert "${S[@]}" -O raw -o "$o" raw.img new.qcow2
    done
    for o in encrypt.format=luks encrypt.key-secret=s encrypt.format=luks,encrypt.key-secret=nope; do
        alike qemu-img convert "${S[@]}" -O qcow2 -o "$o" raw.img new.qcow2
        must_exit 1 qemu-img convert "${S[@]}" -O qcow2 -o "$o" raw.img new.qcow2
        absent new.qcow2
    done
    # What cannot be compressed stays as it is.
    must_exit 1 qemu-img convert "${S[@]}" -n -c --target-image-opts raw.img "$(opts luks)"
    holds luks raw.img
}

@test "encrypted images on encrypted ones, each with a passphrase of its own" {
    local top
    must qemu-img create -q -f qcow2 "${T[@]}" \
        -o encrypt.format=luks,encrypt.key-secret=t,encrypt.iter-time=10 \
        -b luks.qcow2 -F qcow2 top.qcow2
    top=driver=qcow2,file.filename=top.qcow2,encrypt.key-secret=t,backing.encrypt.key-secret=s
    must qemu-img compare "${S[@]}" "${T[@]}" --image-opts "$top" driver=raw,file.filename=raw.img
    must qemu-io "${S[@]}" "${T[@]}" --image-opts "$top" -c 'write -P 0x55 100k 300' -c 'write -z 1M 4k'
    must qemu-io -f raw raw.img -c 'write -P 0x55 100k 300' -c 'write -z 1M 4k'
    must oracle compare "${S[@]}" "${T[@]}" --image-opts \
        "${top/backing.encrypt/backing.driver=qcow2,backing.file.filename=luks.qcow2,backing.encrypt}" \
        driver=raw,file.filename=raw.img
    must qemu-img convert "${S[@]}" "${T[@]}" -O raw "json:{\"driver\":\"qcow2\",
        \"encrypt\":{\"format\":\"luks\",\"key-secret\":\"t\"},
        \"file\":{\"driver\":\"file\",\"filename\":\"top.qcow2\"},
        \"backing\":{\"driver\":\"qcow2\",\"encrypt\":{\"key-secret\":\"s\"},
        \"file\":{\"driver\":\"file\",\"filename\":\"luks.qcow2\"}}}" out.raw
    same_bytes out.raw raw.img
    alike qemu-img map "${S[@]}" "${T[@]}" --image-opts "${top%,backing*}"
    alike qemu-img map "${S[@]}" "${T[@]}" --image-opts "${top%=s}=t"
}

@test "io: open and reopen with a passphrase" {
    alike qemu-io "${S[@]}" -c 'open -o encrypt.key-secret=s luks.qcow2' -c 'read -P 0x11 0 512' \
        -c 'reopen -r' -c 'read -P 0x11 0 512' -c 'write 0 512' -c 'reopen -w' \
        -c 'write -P 3 0 512' -c 'read -P 3 0 512' -c 'reopen -o encrypt.key-secret=s' \
        -c 'read -P 3 0 1k' -c close -c 'open luks.qcow2'
    alike qemu-io "${S[@]}" -s --image-opts "$(opts luks)" -c 'write -P 4 0 512' \
        -c 'read -P 4 0 512'
}

@test "commit and rebase with encryption above, below, and nowhere" {
    local above=driver=qcow2,file.filename=top.qcow2,encrypt.key-secret=s
    local below=driver=qcow2,file.filename=top.qcow2,backing.encrypt.key-secret=s
    must qemu-io -f raw raw.img -c 'write -P 0x66 60k 70k'
    must qemu-img create -q -f qcow2 -b luks.qcow2 -F qcow2 top.qcow2
    must qemu-io "${S[@]}" --image-opts "$below" -c 'write -P 0x66 60k 70k'
    one_error 1 qemu-img commit top.qcow2
    message_has "Could not open backing file: Parameter 'encrypt.key-secret' is required"
    must qemu-img commit "${S[@]}" --image-opts "$below"
    holds luks raw.img
    must qemu-io "${S[@]}" --image-opts "$below" -c 'write -P 0x67 2M 5k'
    must qemu-io -f raw raw.img -c 'write -P 0x67 2M 5k'
    must qemu-img rebase "${S[@]}" -b '' --image-opts "$below"
    same top.qcow2 raw.img
    must qemu-img create -q -f qcow2 "${S[@]}" -o "$FAST" -b plain.qcow2 -F qcow2 top.qcow2
    must qemu-io "${S[@]}" --image-opts "$above" -c 'write -P 0x66 60k 70k' -c 'write -P 0x67 2M 5k'
    must qemu-img commit -d "${S[@]}" --image-opts "$above"
    same plain.qcow2 raw.img
    must qemu-img rebase "${S[@]}" -b '' --image-opts "$above"
    holds top raw.img
}

@test "measure of encrypted images, and of images to be encrypted, as QEMU" {
    local name
    for name in luks aes; do
        alike qemu-img measure "${S[@]}" -O qcow2 --image-opts "$(opts $name)"
        alike qemu-img measure "${S[@]}" -O raw --image-opts "$(opts $name)"
        alike qemu-img measure -O qcow2 $name.qcow2
        alike qemu-img measure "${S[@]}" -O qcow2 -o "encrypt.format=$name,encrypt.key-secret=s" raw.img
    done
    alike qemu-img measure "${S[@]}" -O qcow2 -o encryption=on,encrypt.key-secret=s --size 1G
    alike qemu-img measure -O qcow2 -o encrypt.format=luks,encrypt.key-secret=nope --size 1G
}

@test "amend: key slots, in QEMU's words" {
    local base='"${S[@]}" "${T[@]}" --image-opts $(opts luks)'
    alike_all <<EOF
qemu-img amend $base -o encrypt.state=active
qemu-img amend $base -o encrypt.state=inactive
qemu-img amend $base -o encrypt.state=foo,encrypt.new-secret=t
qemu-img amend $base -o encrypt.new-secret=t
qemu-img amend $base -o encrypt.state=active,encrypt.new-secret=nope
qemu-img amend $base -o encrypt.state=active,encrypt.new-secret=t,encrypt.keyslot=8
qemu-img amend $base -o encrypt.state=active,encrypt.new-secret=t,encrypt.keyslot=800
qemu-img amend $base -o encrypt.state=active,encrypt.new-secret=t,encrypt.keyslot=x
qemu-img amend $base -o encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=10,encrypt.keyslot=0
qemu-img amend $base -o encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=10,encrypt.old-secret=s
qemu-img amend $base -o encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=10
qemu-img amend $base -o encrypt.state=inactive,encrypt.keyslot=0
qemu-img amend $base -o encrypt.state=inactive,encrypt.keyslot=5
qemu-img amend $base -o encrypt.state=inactive,encrypt.keyslot=8
qemu-img amend $base -o encrypt.state=inactive,encrypt.old-secret=s
qemu-img amend $base -o encrypt.state=inactive,encrypt.old-secret=t
qemu-img amend $base -o encrypt.state=inactive,encrypt.old-secret=nope
qemu-img amend $base -o encrypt.state=inactive,encrypt.new-secret=t
qemu-img amend $base -o encrypt.state=inactive,encrypt.keyslot=0,encrypt.iter-time=10
qemu-img amend --force $base -o encrypt.state=inactive,encrypt.keyslot=0
qemu-img amend --force $base -o encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=10,encrypt.keyslot=0
qemu-img amend "\${S[@]}" --image-opts \$(opts aes) -o encrypt.state=active,encrypt.new-secret=s
qemu-img amend "\${S[@]}" -o encrypt.state=active,encrypt.new-secret=s plain.qcow2
qemu-img amend "\${S[@]}" -o encrypt.state=active,encrypt.new-secret=s luks.qcow2
EOF
}

@test "amend: a second passphrase opens the image, an erased one does not" {
    local second=driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=t
    must qemu-img amend "${S[@]}" "${T[@]}" --image-opts "$(opts luks)" \
        -o encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=10,encrypt.keyslot=5
    must oracle compare "${T[@]}" --image-opts "$second" driver=raw,file.filename=raw.img
    [ "$(qemu-img info --output=json luks.qcow2 | json_value \
        '["format-specific"]["data"]["encrypt"]["slots"][5]["active"]')" = True ]
    must qemu-img amend "${S[@]}" "${T[@]}" --image-opts "$second" \
        -o encrypt.state=inactive,encrypt.old-secret=s
    must oracle compare "${T[@]}" --image-opts "$second" driver=raw,file.filename=raw.img
    must_exit 1 oracle check "${S[@]}" --image-opts "$(opts luks)"
    must_exit 1 qemu-img map "${S[@]}" --image-opts "$(opts luks)"
    must_exit 1 qemu-img amend "${T[@]}" --image-opts "$second" -o encrypt.state=inactive,encrypt.keyslot=5
    must qemu-img amend --force "${T[@]}" --image-opts "$second" \
        -o encrypt.state=inactive,encrypt.keyslot=5
    must_exit 1 oracle check "${T[@]}" --image-opts "$second"
}
