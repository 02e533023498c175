#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What the build does against those who find a hole: looked for in the program itself.
#
#   Q2_TEST_HARDENING  what configure has turned on (default: all there is)

load helpers

setup() {
    q2_setup
    LC_ALL=C readelf -hldsW "$QCOW2" >elf
}

count_bytes() { # PCRE
    LC_ALL=C grep -aoP "$1" "$QCOW2" | wc -l
}

# The processors that have marks for where indirect jumps may land.
is_x86() {
    grep -qE 'Machine: +(Advanced Micro Devices X86-64|Intel 80386)$' elf
}

ALL='stack-protector stack-clash control-flow pie relro bind-now no-exec-stack'

is_there() { # NAME
    case $1 in
    fortify) grep -qE ' __[a-z]+_chk(@| |$)' elf ;;
    stack-protector) grep -q '__stack_chk_fail' elf ;;
    # the stack grows by a page, which is touched: gcc's way, clang's way
    stack-clash)
        ! is_x86 || (($(count_bytes \
            '\xec\x00\x10\x00\x00\x48?(\x83\x0c\x24\x00|\xc7\x04\x24\x00{4})')))
        ;;
    control-flow) ! is_x86 || (($(count_bytes '\xf3\x0f\x1e[\xfa\xfb]') > 100)) ;;
    pie) grep -qE 'Type: +DYN' elf && grep -qE 'FLAGS_1.* PIE' elf ;;
    relro) grep -qE '^ +GNU_RELRO ' elf ;;
    bind-now) grep -qE 'BIND_NOW|FLAGS_1.* NOW' elf ;;
    no-exec-stack) grep -qE '^ +GNU_STACK .* RW +0x' elf ;;
    *) fail "what is $1?" ;;
    esac
}

@test "the program is hardened" {
    local on=${Q2_TEST_HARDENING:-fortify $ALL} name
    # Sanitizers, or --disable-hardening
    [ "$on" != none ] || return 0
    # gcc and clang know all of it on the processors that most people have.
    if grep -q 'Machine: .*X86-64' elf; then
        for name in $ALL; do
            [[ " $on " == *" $name "* ]] || fail "configure did not turn on: $name"
        done
    fi
    for name in $on; do
        is_there "$name" || fail "not in the program: $name"
    done
}
