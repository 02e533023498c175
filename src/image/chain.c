// SPDX-License-Identifier: MIT
// Layers of a backing chain, found by name.
#include "image/chain.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "image/open.h"
#include "io/file.h"

static bool is_open_in(const struct q2_io *io, const struct stat *named)
{
    struct stat opened;
    int fd = io ? q2_file_descriptor(io) : -1;
    if (fd < 0 || fstat(fd, &opened) != 0)
        return false;
    if (S_ISBLK(named->st_mode) && S_ISBLK(opened.st_mode))
        return named->st_rdev == opened.st_rdev;
    return named->st_dev == opened.st_dev && named->st_ino == opened.st_ino;
}

bool q2_chain_has_file(const struct q2_disk *top, const char *path)
{
    struct stat named;
    if (stat(path, &named) != 0)
        return false;
    const struct q2_disk *d = top;
    while (d && !is_open_in(d->file, &named) && !is_open_in(d->data, &named))
        d = d->backing;
    return d != NULL;
}

struct q2_disk *q2_chain_find_backing(struct q2_disk *top, const char *name)
{
    for (struct q2_disk *d = top; d->backing; d = d->backing) {
        struct q2_error ignored = Q2_ERROR_INIT;
        struct stat named;
        char *path;
        if (q2_backing_path(d->path, name, &path, &ignored) < 0)
            continue;
        bool found = stat(path, &named) == 0 && is_open_in(d->backing->file, &named);
        free(path);
        if (found)
            return d->backing;
    }
    return NULL;
}

struct q2_disk *q2_chain_overlay_of(struct q2_disk *top, const struct q2_disk *layer)
{
    struct q2_disk *d = top;
    while (d && d->backing != layer)
        d = d->backing;
    return d;
}
