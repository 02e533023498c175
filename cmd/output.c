// SPDX-License-Identifier: MIT
// Printing JSON in the layout that scripts for qemu-img know, and text that is not ours.
#include "cmd/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define INDENT 4

json_t *q2_output_string(const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd";
    char *clean = malloc(3 * strlen(text) + 1), *to = clean;
    if (!clean)
        return NULL;
    for (const char *p = text; *p;) {
        size_t n = q2_utf8_sequence((const unsigned char *)p);
        memcpy(to, n ? p : replacement, n ? n : 3);
        to += n ? n : 3;
        p += n ? n : 1;
    }
    *to = '\0';
    json_t *string = json_string(clean);
    free(clean);
    return string;
}

static void print_value(const json_t *value, int indent);

static void new_line(int indent)
{
    printf("\n%*s", indent, "");
}

static void print_object(const json_t *object, int indent)
{
    const char *key, *comma = "";
    json_t *value;
    putchar('{');
    json_object_foreach((json_t *)object, key, value)
    {
        printf("%s", comma);
        new_line(indent + INDENT);
        printf("\"%s\": ", key);
        print_value(value, indent + INDENT);
        comma = ",";
    }
    new_line(indent);
    putchar('}');
}

static void print_array(const json_t *array, int indent)
{
    size_t i;
    json_t *value;
    putchar('[');
    json_array_foreach(array, i, value)
    {
        printf("%s", i ? "," : "");
        new_line(indent + INDENT);
        print_value(value, indent + INDENT);
    }
    new_line(indent);
    putchar(']');
}

static void print_value(const json_t *value, int indent)
{
    if (json_is_object(value))
        print_object(value, indent);
    else if (json_is_array(value))
        print_array(value, indent);
    else
        json_dumpf(value, stdout, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
}

int q2_output_json(json_t *value)
{
    if (!value)
        return -ENOMEM;
    print_value(value, 0);
    putchar('\n');
    json_decref(value);
    return 0;
}

void q2_output_text(FILE *to, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f)
            fprintf(to, "\\x%02x", *p);
        else
            putc(*p, to);
    }
}

static void print_leaf(const json_t *value)
{
    putchar(' ');
    if (json_is_string(value))
        q2_output_text(stdout, json_string_value(value));
    else
        json_dumpf(value, stdout, JSON_ENCODE_ANY);
    putchar('\n');
}

static void print_branch(const json_t *value, int indent)
{
    size_t i;
    json_t *item;
    if (!json_is_object(value) && !json_is_array(value)) {
        print_leaf(value);
        return;
    }
    putchar('\n');
    if (json_is_object(value)) {
        q2_output_tree(value, indent);
        return;
    }
    json_array_foreach(value, i, item)
    {
        printf("%*s[%zu]:", indent, "", i);
        print_branch(item, indent + INDENT);
    }
}

void q2_output_tree(const json_t *object, int indent)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        printf("%*s", indent, "");
        for (const char *p = key; *p; p++)
            putchar(*p == '-' ? ' ' : *p);
        putchar(':');
        print_branch(value, indent + INDENT);
    }
}
