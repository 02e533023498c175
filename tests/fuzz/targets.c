// SPDX-License-Identifier: MIT
// The list of targets.
#include <string.h>

#include "tests/fuzz/fuzz.h"

const struct fuzz_target fuzz_targets[] = {
    {"info", fuzz_target_info, FUZZ_IMAGE},
    {"read", fuzz_target_read, FUZZ_IMAGE},
    {"check", fuzz_target_check, FUZZ_IMAGE},
    {"vet", fuzz_target_vet, FUZZ_IMAGE},
    {"repair", fuzz_target_repair, FUZZ_IMAGE},
    {"undo", fuzz_target_undo, FUZZ_IMAGE},
    {"snapshots", fuzz_target_snapshots, FUZZ_IMAGE},
    {"amend", fuzz_target_amend, FUZZ_IMAGE},
    {"bitmaps", fuzz_target_bitmaps, FUZZ_IMAGE},
    {"luks", fuzz_target_luks, FUZZ_IMAGE},
    {"recover", fuzz_target_recover, FUZZ_IMAGE},
    {"copy", fuzz_target_copy, FUZZ_IMAGE},
    {"parts", fuzz_target_parts, FUZZ_BYTES},
    {"options", fuzz_target_options, FUZZ_TEXT},
    {NULL, NULL, FUZZ_BYTES},
};

const struct fuzz_target *fuzz_target_find(const char *name)
{
    const struct fuzz_target *t = fuzz_targets;
    while (t->name && strcmp(t->name, name) != 0)
        t++;
    return t->name ? t : NULL;
}
