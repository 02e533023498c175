// SPDX-License-Identifier: MIT
// Shell completion: the names of snapshots and bitmaps that an image has. Only what
// "info" reads is read, beside whoever has the image open; no passphrase is needed for
// it.
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd/complete.h"
#include "cmd/opening.h"
#include "ops/info.h"

// Somebody waits at the other end of a pipe, and some devices act when they are opened.
static bool is_disk(const char *path)
{
    struct stat st;
    return path && !stat(path, &st) && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
}

static bool read_image(const struct q2_completion *c, const char *text, bool image_opts,
                       struct q2_info *info)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image_name name = {.path = NULL};
    const char *format = image_opts ? NULL : q2_completion_letter(c, 'f');
    int rc = q2_named_parse(text, image_opts, format, &name, &err);
    bool found = !rc && is_disk(name.path) &&
                 !q2_info_read(name.path, name.format, true, &name.runtime, info, &err);
    q2_image_name_clear(&name);
    return found;
}

static int offer_snapshot(void *opaque, struct q2_snapshot *s, struct q2_error *err)
{
    const bool *ids = opaque;
    char description[64];
    (void)err;
    snprintf(description, sizeof(description), "snapshot %.40s", s->id);
    q2_complete_offer(s->name, description);
    if (*ids)
        q2_complete_offer(s->id, s->name);
    return 0;
}

static int offer_bitmap(void *opaque, const struct q2_bitmap *b, struct q2_error *err)
{
    (void)opaque;
    (void)err;
    q2_complete_offer(b->name, "bitmap");
    return 0;
}

void q2_complete_snapshots(const struct q2_completion *c, size_t start, bool ids)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    struct q2_info info;
    bool image_opts = q2_completion_value(c, "image-opts") != NULL;
    if (c->n_operands == 0 || !read_image(c, c->operands[0], image_opts, &info))
        return;
    q2_complete_begin(c, "words", start);
    q2_info_each_snapshot(&info, offer_snapshot, &ids, &ignored);
    q2_info_clear(&info);
}

void q2_complete_bitmaps(const struct q2_completion *c, size_t start, const char *image)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    struct q2_info info;
    bool image_opts = q2_completion_value(c, "image-opts") != NULL;
    bool other = image != NULL; // the options for the first are not for it
    if (!image)
        image = c->n_operands > 0 && c->operand != 0 ? c->operands[0] : NULL;
    if (!image || !read_image(c, image, image_opts && !other, &info))
        return;
    q2_complete_begin(c, "words", start);
    q2_info_each_bitmap(&info, offer_bitmap, NULL, &ignored);
    q2_info_clear(&info);
}
