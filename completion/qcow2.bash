# SPDX-License-Identifier: MIT
# Completion of qcow2's command lines in bash. The program itself tells what may stand
# where; this hands it the words and puts its answers into them.
#
# shellcheck shell=bash

# What a word of the command line means: without quotes and backslashes. Variables and
# commands in it are not looked at.
_qcow2_unquote() # WORD: sets REPLY
{
    local word=$1 c quote=
    REPLY=
    if [[ $word == \~ || $word == \~/* ]]; then
        REPLY=$HOME
        word=${word:1}
    fi
    while [[ $word ]]; do
        c=${word:0:1}
        word=${word:1}
        case $quote$c in
        "'" | '"') quote=$c ;;
        "''" | '""') quote= ;;
        \\ | \"\\)
            REPLY+=${word:0:1}
            word=${word:1}
            ;;
        *) REPLY+=$c ;;
        esac
    done
}

# bash has split words at the colons and equals signs in them: puts them together again.
# Of the word with the cursor in it, what is behind the cursor does not count.
_qcow2_words() # sets words, as they were typed, and index
{
    local line=$COMP_LINE before=${COMP_LINE:0:COMP_POINT} i rest word
    words=() index=0
    for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
        word=${COMP_WORDS[i]}
        rest=${line#"${line%%[![:blank:]]*}"}
        if ((i == 0)) || [[ $rest != "$line" ]]; then
            words+=("$word")
        elif ((i <= COMP_CWORD || index < ${#words[@]} - 1)); then
            words[${#words[@]} - 1]+=$word
        fi
        line=${rest#"$word"}
        ((i == COMP_CWORD)) || continue
        index=$((${#words[@]} - 1))
        while [[ $before != *"${words[index]}" ]]; do
            words[index]=${words[index]%?}
        done
    done
}

# A value as it has to be typed, behind what was typed of the word.
_qcow2_quote() # PREFIX VALUE: sets REPLY
{
    local whole=$1$2
    case ${words[index]:0:1} in
    "'") [[ $whole == *"'"* ]] && REPLY='' || REPLY="'$whole" ;;
    '"')
        whole=${whole//\\/\\\\}
        whole=${whole//\"/\\\"}
        whole=${whole//\$/\\\$}
        REPLY=\"${whole//\`/\\\`}
        ;;
    *) printf -v REPLY '%s%q' "$1" "$2" ;;
    esac
}

_qcow2()
{
    local REPLY words index i plain=() lines kind prefix current value kept
    COMPREPLY=()
    _qcow2_words
    ((index > 0)) || return 0
    for i in "${words[@]:1}"; do
        _qcow2_unquote "$i"
        plain+=("$REPLY")
    done
    current=${plain[index - 1]}
    mapfile -t lines < <(command qcow2 __complete $((index - 1)) "${plain[@]}" \
        2>/dev/null </dev/null)
    ((${#lines[@]})) || return 0
    kind=${lines[0]%%$'\t'*}
    prefix=${lines[0]#*$'\t'}
    if [[ $kind == files ]]; then
        compopt -o default # readline's own completion of file names
        return 0
    fi
    [[ $kind == parts ]] && compopt -o nospace
    # readline has its own idea of where the word begins: that is $2.
    kept=${words[index]%"$2"}
    for i in "${lines[@]:1}"; do
        value=${i%%$'\t'*}
        [[ $prefix$value == "$current"* ]] || continue
        _qcow2_quote "$prefix" "$value"
        [[ $REPLY == "$kept"* && $REPLY ]] && COMPREPLY+=("${REPLY#"$kept"}")
    done
    return 0
}

complete -F _qcow2 qcow2
