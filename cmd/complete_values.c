// SPDX-License-Identifier: MIT
// Shell completion: what options and operands may be. By the name that the table gives a
// value, and where several options share one, by the option's own.
#include <stdio.h>
#include <string.h>

#include "cmd/choices.h"
#include "cmd/complete.h"

struct kind {
    const char *option;   // NULL: any
    const char *argument; // as its row names it
    const struct q2_choice *list;
};

// The first that fits counts.
static const struct kind kinds[] = {
    {"preallocation", "MODE", q2_choices_preallocation},
    {"discard", "MODE", q2_choices_discard},
    {"aio", "MODE", q2_choices_aio},
    {"repair", "WHAT", q2_choices_repair},
    {NULL, "AIO", q2_choices_aio},
    {NULL, "FMT", q2_choices_format},
    {NULL, "FORM", q2_choices_output},
    {NULL, "LEVEL", q2_choices_level},
    {NULL, "MODE", q2_choices_cache},
};

static const struct q2_choice *find_list(const struct q2_option *row)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (!strcmp(kinds[i].argument, row->argument) &&
            (!kinds[i].option || !strcmp(kinds[i].option, row->name)))
            return kinds[i].list;
    return NULL;
}

static bool is_named(const struct q2_option *row, const char *argument)
{
    return !strcmp(row->argument, argument);
}

void q2_complete_value(const struct q2_completion *c, const struct q2_option *row,
                       size_t start)
{
    const struct q2_choice *list = find_list(row);
    if (list)
        q2_complete_list(c, list, start);
    else if (is_named(row, "FILE") || is_named(row, "BASE") || is_named(row, "DIR"))
        q2_complete_begin(c, "files", start);
    else if (is_named(row, "OPTS"))
        q2_complete_keys(c, start);
    else if (is_named(row, "DEF"))
        q2_complete_object(c, start);
    else if (is_named(row, "SNAPSHOT"))
        q2_complete_snapshots(c, start, true);
    else if (is_named(row, "REASONS"))
        q2_complete_list(c, q2_choices_reasons, q2_complete_item(c, start));
    else if (!strcmp(row->name, "delete"))
        q2_complete_snapshots(c, start, false);
    else if (!strcmp(row->name, "merge"))
        q2_complete_bitmaps(c, start, q2_completion_value(c, "source-file"));
}

// dd takes pairs; if and of name files.
static void complete_pair(const struct q2_completion *c)
{
    size_t n = strcspn(c->word, "=");
    if (c->word[n]) {
        if (n == 2 && c->word[1] == 'f')
            q2_complete_begin(c, "files", n + 1);
        return;
    }
    q2_complete_begin(c, "parts", 0);
    for (const struct q2_choice *key = q2_choices_dd; key->name; key++) {
        char text[16];
        snprintf(text, sizeof(text), "%s=", key->name);
        q2_complete_offer(text, "");
    }
}

// With --image-opts the file is a part of the word.
static void complete_file(const struct q2_completion *c)
{
    static const char key[] = "file.filename=";
    size_t item = q2_complete_item(c, 0), n = sizeof(key) - 1;
    if (!q2_completion_value(c, "image-opts")) {
        q2_complete_begin(c, "files", 0);
    } else if (!strncmp(c->word + item, key, n)) {
        q2_complete_begin(c, "files", item + n);
    } else {
        q2_complete_begin(c, "parts", item);
        q2_complete_offer(item ? key : "driver=qcow2,file.filename=", "");
    }
}

void q2_complete_operand(const struct q2_completion *c)
{
    bool names_more = strstr(c->command->operands, "...") != NULL ||
                      strstr(c->command->operands, "FILE2") != NULL ||
                      strstr(c->command->operands, "NEW") != NULL;
    if (!strcmp(c->command->name, "dd"))
        complete_pair(c);
    else if (!strcmp(c->command->name, "bitmap") && c->operand == 1)
        q2_complete_bitmaps(c, 0, NULL);
    else if (c->operand == 0 || names_more)
        complete_file(c);
}
