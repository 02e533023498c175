#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The damage matrix of check in short: one damage of each structure of each image, some
# repairs cut short, and a hostile image. "make check-damage" runs all of it.

load helpers

setup() {
    q2_setup
    command -v python3 >/dev/null || skip "python3 is not installed"
    QCOW2=$(readlink -f "$QCOW2")
    export QCOW2
}

matrix() {
    python3 "$BATS_TEST_DIRNAME/damage/matrix.py" "$@"
}

# A program that behaves as the real one but for what the given shell code does after it:
# $code is its exit code, the image is the last argument.
spoiled_program() {
    cat >"$BATS_TEST_TMPDIR/spoiled" <<EOF
#!/usr/bin/env bash
'$QCOW2' "\$@"
code=\$?
image=\${!#}
$1
exit \$code
EOF
    chmod +x "$BATS_TEST_TMPDIR/spoiled"
    QCOW2=$BATS_TEST_TMPDIR/spoiled
}

one_damage='v3-4k/refcount of data/'

@test "each structure of each image, damaged: healed, lossy as reported, or untouched" {
    must matrix run --spread --no-qemu --terse --every "$(rows 1 4)"
}

@test "repairs cut short at every write: undone, and finished" {
    command -v "${CC:-cc}" >/dev/null || skip "no C compiler"
    must matrix cut --spread --every "$(rows 12 48)"
}

@test "a repair that makes a cut file longer, cut short: no table looks whole" {
    command -v "${CC:-cc}" >/dev/null || skip "no C compiler"
    must matrix cut --image v3-512-back --only 'file cut/0x500/'
    must matrix cut --image v3-4k-lazy --only 'file cut/0x12800/'
}

@test "what is damaged is rejected by vet, for a reason that the sound image did not give" {
    must matrix vet --image v3-4k --image v3-4k-bitmaps --spread
}

@test "the matrix notices a damaged image that vet accepts" {
    cat >"$BATS_TEST_TMPDIR/spoiled" <<EOF
#!/usr/bin/env bash
[ "\$1" = vet ] || exec '$QCOW2' "\$@"
echo '{"accepted": true, "reasons": []}'
EOF
    chmod +x "$BATS_TEST_TMPDIR/spoiled"
    QCOW2=$BATS_TEST_TMPDIR/spoiled must_exit 1 matrix vet --only "$one_damage" --image v3-4k
}

@test "the matrix notices a guest byte that changed" {
    must matrix run --no-qemu --only "$one_damage" --every 9
    spoiled_program 'case "$*" in *--undo-file*) printf x | dd of="$image" bs=1 \
        seek=$((5 * 4096 + 100)) conv=notrunc status=none ;; esac'
    must_exit 1 matrix run --no-qemu --only "$one_damage" --every 9
}

@test "the matrix notices a repair that is not taken back" {
    spoiled_program 'case "$*" in *"--undo "*) printf "\1" | dd of="$image" bs=1 \
        seek=103 conv=notrunc status=none ;; esac'
    must_exit 1 matrix run --no-qemu --only "$one_damage" --every 9
}

@test "the matrix notices a dry run that writes" {
    spoiled_program 'case "$*" in *--dry-run*) printf x >>"$image" ;; esac'
    must_exit 1 matrix run --no-qemu --only "$one_damage" --every 9
}

@test "a file of 256 GiB that holds nothing is checked in little memory" {
    must oracle create -q -f qcow2 -o cluster_size=512 hostile.qcow2 64M
    must qemu-io -c 'write 0 4k' hostile.qcow2
    truncate -s 256G hostile.qcow2
    python3 - "$QCOW2" <<'EOF' || fail "more than 64 MiB, or it hangs"
import os, resource, subprocess, sys
for options in ([], ["-r", "all", "--dry-run"]):
    done = subprocess.run([sys.argv[1], "check", *options, "hostile.qcow2"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
    if done.returncode not in (0, 2, 3):
        sys.exit("exit code %d" % done.returncode)
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
limit = (64 if os.environ.get("Q2_TEST_ASAN") != "1" else 512) * 1024
sys.exit(0 if most < limit else "%d KiB" % most)
EOF
}
