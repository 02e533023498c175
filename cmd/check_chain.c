// SPDX-License-Identifier: MIT
// From an image to its backing file.
#include "cmd/check_chain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void q2_check_chain_clear(struct q2_check_chain *c)
{
    free(c->path);
    free(c->format);
    free(c->above);
    *c = (struct q2_check_chain){0};
}

// "Could not open 'x': " is said twice of an image that the user named, as QEMU says it;
// of a layer once is enough.
static void drop_repetition(const char *path, struct q2_error *err)
{
    char prefix[Q2_ERROR_MESSAGE_MAX];
    int n = snprintf(prefix, sizeof(prefix), "Could not open '%s': ", path);
    size_t length = n > 0 ? (size_t)n : 0;
    char *again = err->message + length;
    if (length > 0 && length < sizeof(prefix) &&
        strncmp(err->message, prefix, length) == 0 && strncmp(again, prefix, length) == 0)
        memmove(err->message, again, strlen(again) + 1);
}

int q2_check_chain_context(const struct q2_check_chain *c, struct q2_error *err)
{
    if (!c->above)
        return err->code;
    drop_repetition(c->path, err);
    return q2_context(err, "Could not open '%s': Could not open backing file", c->above);
}

static int copy(const char *text, char **out, struct q2_error *err)
{
    *out = text ? strdup(text) : NULL;
    return text && !*out ? q2_fail_memory(err, strlen(text) + 1) : 0;
}

// Notes the file, which may have other names: a chain that comes back to it has no end.
static int refuse_loop(struct q2_check_chain *c, const char *path, struct q2_error *err)
{
    struct stat *st = &c->files[c->n];
    if (stat(path, st) < 0)
        memset(st, 0, sizeof(*st)); // the open that follows says why
    for (unsigned i = 0; i < c->n; i++) {
        if (st->st_ino != 0 && st->st_ino == c->files[i].st_ino &&
            st->st_dev == c->files[i].st_dev)
            return q2_fail(err, -ELOOP, "Backing file '%s' creates an infinite loop",
                           path);
    }
    return 0;
}

// What follows the layer at path, from its header.
static int name_next(struct q2_check_chain *next, const char *path,
                     const struct q2_header *h, struct q2_error *err)
{
    int ret = copy(path, &next->above, err);
    if (ret == 0)
        ret = copy(h->backing_format, &next->format, err);
    if (ret < 0)
        return ret;
    ret = q2_backing_path(path, h->backing_file, &next->path, err);
    return ret < 0
               ? q2_context(err, "Could not open '%s': Could not open backing file '%s'",
                            path, h->backing_file)
               : 0;
}

int q2_check_chain_step(struct q2_check_chain *c, const char *path,
                        const struct q2_header *h, bool *more, struct q2_error *err)
{
    *more = h->backing_file != NULL;
    if (!*more)
        return 0;
    if (c->n + 1 == Q2_MAX_CHAIN)
        return q2_fail(err, -ELOOP, "The backing chain has more than %u layers",
                       Q2_MAX_CHAIN);
    struct q2_check_chain next = {0};
    int ret = c->n == 0 ? refuse_loop(c, path, err) : 0;
    if (ret == 0)
        ret = name_next(&next, path, h, err);
    if (ret < 0) {
        q2_check_chain_clear(&next);
        return ret;
    }
    free(c->path);
    free(c->format);
    free(c->above);
    c->path = next.path;
    c->format = next.format;
    c->above = next.above;
    c->n++;
    return refuse_loop(c, c->path, err);
}
