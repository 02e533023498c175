// SPDX-License-Identifier: MIT
// Backing files of images to be made, and which files a disk is made of.
#include "cmd/opening.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// "Could not open 'x': why" of the user's own files is "why" where the file is not the
// one that the command is about.
static void drop_context(struct q2_error *err, const char *path)
{
    char context[Q2_ERROR_MESSAGE_MAX];
    int n = snprintf(context, sizeof(context), "Could not open '%s': ", path);
    size_t length = (size_t)n;
    if (n > 0 && length < sizeof(context) && !strncmp(err->message, context, length))
        memmove(err->message, err->message + length, strlen(err->message + length) + 1);
}

int q2_open_backing(const char *overlay_path, const char *backing_name,
                    const struct q2_open_options *options, struct q2_disk **out,
                    struct q2_error *err)
{
    char *path;
    int rc = q2_backing_path(overlay_path, backing_name, &path, err);
    if (rc)
        return rc;
    rc = q2_disk_open(path, options, out, err);
    if (rc)
        drop_context(err, path);
    free(path);
    return rc;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    if (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode))
        return a->st_rdev == b->st_rdev;
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

bool q2_chain_has_file(const struct q2_disk *d, const char *path)
{
    struct stat named, opened;
    if (stat(path, &named))
        return false;
    for (; d; d = d->backing) {
        int fd = q2_file_descriptor(d->file);
        if (fd >= 0 && !fstat(fd, &opened) && same_file(&named, &opened))
            return true;
    }
    return false;
}
