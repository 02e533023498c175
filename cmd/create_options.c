// SPDX-License-Identifier: MIT
// What -o says: lists of key=value taken apart, and the line that says what is made.
#include "cmd/create_options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/create_keys.h"
#include "cmd/options.h"

static int parse_bool(const struct q2_key_row *row, const char *text, uint64_t *value,
                      struct q2_error *err)
{
    bool on = false;
    int rc = q2_value_parameter_switch(row->name, text, &on, err);
    *value = on;
    return rc;
}

static int parse_number(const struct q2_key_row *row, const char *text, uint64_t *value,
                        struct q2_error *err)
{
    char *end;
    errno = 0;
    *value = strtoumax(text, &end, 0);
    if (end == text || *end || errno)
        return q2_fail(err, -EINVAL, "Parameter '%s' expects a number", row->name);
    return 0;
}

static int parse_size(const struct q2_key_row *row, const char *text, uint64_t *value,
                      struct q2_error *err)
{
    return q2_value_parameter_size(row->name, text, value, err);
}

static int set_row(struct q2_new_image *image, const struct q2_key_row *row,
                   const char *text, struct q2_error *err)
{
    static int (*const parse[])(const struct q2_key_row *, const char *, uint64_t *,
                                struct q2_error *) = {[Q2_TYPE_BOOL] = parse_bool,
                                                      [Q2_TYPE_NUMBER] = parse_number,
                                                      [Q2_TYPE_SIZE] = parse_size};
    if (row->type != Q2_TYPE_TEXT) {
        int rc = parse[row->type](row, text, &image->number[row->key], err);
        if (rc)
            return rc;
    }
    char *copy = strdup(text);
    if (!copy)
        return q2_fail_memory(err, strlen(text));
    free(image->text[row->key]);
    image->text[row->key] = copy;
    return 0;
}

static const struct q2_key_row *find_name(const struct q2_key_row *rows, size_t n,
                                          const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(rows[i].name, name))
            return &rows[i];
    return NULL;
}

static int set_named(struct q2_new_image *image, const char *name, const char *text,
                     struct q2_error *err)
{
    size_t n, n_amend;
    const struct q2_key_row *rows = q2_key_rows(image->format, &n);
    const struct q2_key_row *row = find_name(rows, n, name);
    const struct q2_key_row *amend_rows = q2_key_amend_rows(&n_amend);
    if (image->copied && !strcmp(image->format, "qcow2") &&
        !strcmp(name, q2_key_level_row.name))
        row = &q2_key_level_row;
    bool only_new = image->amends && row && !row->of_file;
    if (image->amends)
        row = find_name(amend_rows, n_amend, name);
    if (row)
        return set_row(image, row, text, err);
    q2_fail(err, -EINVAL, "Invalid parameter '%s'", name);
    return only_new ? q2_hint(err, "This option is only supported for image creation")
                    : err->code;
}

int q2_new_image_set(struct q2_new_image *image, enum q2_create_key key, const char *text,
                     struct q2_error *err)
{
    size_t n;
    const struct q2_key_row *rows = q2_key_rows(image->format, &n);
    for (size_t i = 0; i < n; i++)
        if (rows[i].key == key)
            return set_row(image, &rows[i], text, err);
    return q2_fail(err, -EINVAL, "Backing file%s not supported for file format '%s'",
                   key == Q2_KEY_BACKING_FORMAT ? " format" : "", image->format);
}

int q2_new_image_set_size(struct q2_new_image *image, uint64_t size, struct q2_error *err)
{
    char text[32];
    snprintf(text, sizeof(text), "%" PRIu64, size);
    return q2_new_image_set(image, Q2_KEY_SIZE, text, err);
}

void q2_new_image_clear(struct q2_new_image *image)
{
    for (int i = 0; i < Q2_KEYS; i++) {
        free(image->text[i]);
        image->text[i] = NULL;
    }
}

// "key" alone is on, "nokey" is off.
static int set_item(struct q2_new_image *image, char *item, struct q2_error *err)
{
    char *equals = strchr(item, '=');
    if (equals) {
        *equals = '\0';
        return set_named(image, item, equals + 1, err);
    }
    if (!strncmp(item, "no", 2) && strcmp(item, "nocow") != 0)
        return set_named(image, item + 2, "off", err);
    return set_named(image, item, "on", err);
}

int q2_new_image_parse(struct q2_new_image *image, const char *lists,
                       struct q2_error *err)
{
    int rc = 0;
    while (!rc && *lists) {
        char *item = q2_value_next_item(&lists);
        rc = item ? set_item(image, item, err) : q2_fail_memory(err, strlen(lists) + 1);
        free(item);
    }
    return rc;
}

bool q2_option_list_asks_help(const char *lists)
{
    bool found = false;
    while (!found && *lists) {
        char *item = q2_value_next_item(&lists);
        if (!item) // who reads the list in earnest will say so
            break;
        found = !strcmp(item, "help") || !strcmp(item, "?");
        free(item);
    }
    return found;
}

// A list that begins or ends with a comma would change its meaning when joined.
static bool joinable(const char *list)
{
    size_t n = strlen(list), commas = 0;
    while (commas < n && list[n - 1 - commas] == ',')
        commas++;
    return n && list[0] != ',' && commas % 2 == 0;
}

int q2_option_list_append(char **lists, const char *list, struct q2_error *err)
{
    if (!joinable(list))
        return q2_fail(err, -EINVAL, "Invalid option list: %s", list);
    char *joined;
    if (asprintf(&joined, "%s%s%s", *lists ? *lists : "", *lists ? "," : "", list) < 0)
        return q2_fail_memory(err, strlen(list));
    free(*lists);
    *lists = joined;
    return 0;
}

static void print_value(const struct q2_new_image *image, const struct q2_key_row *row)
{
    const char *text = image->text[row->key];
    if (text && (row->type == Q2_TYPE_SIZE || row->type == Q2_TYPE_NUMBER)) {
        printf("%" PRId64, (int64_t)image->number[row->key]);
        return;
    }
    for (text = text ? text : row->preset; *text; text++) {
        if (*text == ',')
            putchar(',');
        putchar(*text);
    }
}

void q2_new_image_print(const struct q2_new_image *image, const char *filename)
{
    size_t n;
    const struct q2_key_row *rows = q2_key_rows(image->format, &n);
    printf("Formatting '%s', fmt=%s", filename, image->format);
    for (size_t i = 0; i < n; i++) {
        if (!image->text[rows[i].key] && !rows[i].preset)
            continue;
        printf(" %s=", rows[i].name);
        print_value(image, &rows[i]);
    }
    printf("\n");
}
