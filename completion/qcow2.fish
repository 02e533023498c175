# SPDX-License-Identifier: MIT
# Completion of qcow2's command lines in fish. The program itself tells what may stand
# where; this hands it the words and puts its answers into them.

# The word at the cursor is as it was typed; one whose quotes are open means what is in them.
function __qcow2_plain
    string unescape -- $argv
    or string replace -r '^["\']' '' -- $argv
end

function __qcow2_home
    string replace -r '^~(?=/|$)' -- $HOME $argv
end

function __qcow2_complete
    set -l before (commandline -opc)[2..-1]
    set -l current (commandline -ct)
    set -l all (commandline -op)[2..-1]
    set -l first_after (math (count $before) + 1)
    test -n "$current"
    and set first_after (math $first_after + 1)
    set -l after $all[$first_after..-1]
    set -l lines (command qcow2 __complete (count $before) (__qcow2_home $before) \
        (__qcow2_plain "$current") (__qcow2_home $after) 2>/dev/null </dev/null)
    test (count $lines) -gt 0
    or return 0
    set -l head (string split -m 1 \t -- $lines[1])
    if test "$head[1]" = files
        set -l name (string sub -s (math (string length -- "$head[2]") + 1) -- "$current")
        for path in (__fish_complete_path "$name")
            echo "$head[2]$path"
        end
    else
        for line in $lines[2..-1]
            echo "$head[2]$line"
        end
    end
end

complete -c qcow2 -f -a '(__qcow2_complete)'
