# SPDX-License-Identifier: MIT
# What the checks of the table of options are made of.
#
# shellcheck shell=bash

# Standard output, and standard error, hold the words.
out() { grep -qF -e "$1" out; }
err() { grep -qF -e "$1" err; }

silent() { [ ! -s out ] && [ ! -s err ]; }

absent() { [ ! -e "$1" ]; }

oracle() { "${ORACLE:-/usr/bin/qemu-img}" "$@"; }

# info FILE KEY VALUE: as it stands in the image's description.
info() { oracle info -U --output=json "$1" | grep -qE "^ +\"$2\": \"?$3\"?,?$"; }

# is FORMAT FILE: by its first bytes.
is() { info "$2" format "$1"; }

# json EXPRESSION VALUE: of what was printed.
json() { [ "$(tell "$1" <out)" = "$2" ]; }

tell() { python3 -S -c "import json, sys; print(json.load(sys.stdin)$1)"; }

# equal FILE FILE: the guest sees the same.
equal() { oracle compare -q "$1" "$2"; }

# sound FILE: QEMU finds nothing wrong.
sound() { oracle check -q "$1"; }

# holds BYTE OFFSET LENGTH FILE: as QEMU reads it.
holds() { "$(dirname "${ORACLE:-/usr/bin/qemu-img}")/qemu-io" -r -c "read -P $1 $2 $3" "$4" >/dev/null; }

# told FILE EXPRESSION VALUE: anything else of its description.
told() { [ "$(oracle info -U --output=json "$1" | tell "$2")" = "$3" ]; }

flags() { told "$1" "['format-specific']['data']['bitmaps'][$2]['flags']" "$3"; }
