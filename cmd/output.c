// SPDX-License-Identifier: MIT
// Printing JSON in the layout that scripts for qemu-img know.
#include "cmd/output.h"

#include <errno.h>
#include <stdlib.h>

#define INDENT 4

// How far the printing of a list or a tree has come.
struct printer {
    const struct q2_long_lists *lists;
    struct q2_error *err;
    int indent;
    size_t n; // items of the list so far
};

// The items of an array, which may be one that is only made now.
static int each_item(const json_t *array, q2_take_item *take, struct printer *to)
{
    size_t i;
    json_t *item;
    int rc = 0;
    for (unsigned k = 0; to->lists && k < to->lists->n; k++) {
        const struct q2_long_list *l = &to->lists->list[k];
        if (l->place == array)
            return l->each(l->source, take, to, to->err);
    }
    json_array_foreach(array, i, item)
    {
        rc = rc ? rc : take(to, json_incref(item), to->err);
    }
    return rc;
}

static bool no_memory;

static void *allocate(size_t n_bytes)
{
    void *p = malloc(n_bytes);
    if (!p)
        no_memory = true;
    return p;
}

void q2_output_setup(void)
{
    json_set_alloc_funcs(allocate, free);
}

bool q2_output_incomplete(void)
{
    return no_memory;
}

static int check_complete(struct q2_error *err)
{
    return no_memory ? q2_fail_errno(err, -ENOMEM, "Could not print all of it") : 0;
}

static int print_number(const json_t *value, struct q2_error *err)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    if (text)
        fputs(text, stdout);
    free(text);
    return check_complete(err);
}

static int print_value(const json_t *value, const struct printer *p);

static void new_line(int indent)
{
    printf("\n%*s", indent, "");
}

static int print_object(const json_t *object, const struct printer *p)
{
    struct printer inner = {p->lists, p->err, p->indent + INDENT, 0};
    const char *key, *comma = "";
    json_t *value;
    int rc = 0;
    putchar('{');
    json_object_foreach((json_t *)object, key, value)
    {
        if (rc)
            break;
        printf("%s", comma);
        new_line(inner.indent);
        printf("\"%s\": ", key);
        rc = print_value(value, &inner);
        comma = ",";
    }
    if (rc) // not closed: it must not pass for a whole one
        return rc;
    new_line(p->indent);
    putchar('}');
    return 0;
}

static int print_item(void *to, json_t *item, struct q2_error *err)
{
    struct printer *p = to;
    int rc = check_complete(err); // it may have been made only now
    if (rc == 0) {
        printf("%s", p->n++ ? "," : "");
        new_line(p->indent);
        rc = print_value(item, p);
    }
    json_decref(item);
    return rc;
}

static int print_array(const json_t *array, const struct printer *p)
{
    struct printer inner = {p->lists, p->err, p->indent + INDENT, 0};
    putchar('[');
    int rc = each_item(array, print_item, &inner);
    if (rc)
        return rc;
    new_line(p->indent);
    putchar(']');
    return 0;
}

static int print_value(const json_t *value, const struct printer *p)
{
    if (json_is_object(value))
        return print_object(value, p);
    if (json_is_array(value))
        return print_array(value, p);
    if (!json_is_string(value))
        return print_number(value, p->err);
    q2_output_quoted(value);
    return 0;
}

int q2_output_json(json_t *value, struct q2_error *err)
{
    return q2_output_long_json(value, NULL, err);
}

int q2_output_long_json(json_t *value, const struct q2_long_lists *lists,
                        struct q2_error *err)
{
    if (!value)
        no_memory = true;
    int rc = check_complete(err);
    if (rc) {
        json_decref(value);
        return rc;
    }
    rc = print_value(value, &(struct printer){lists, err, 0, 0});
    if (!rc)
        putchar('\n');
    json_decref(value);
    return rc;
}

static int print_leaf(const json_t *value, struct q2_error *err)
{
    int rc = 0;
    putchar(' ');
    if (json_is_string(value))
        q2_output_text(stdout, json_string_value(value));
    else
        rc = print_number(value, err);
    if (!rc)
        putchar('\n');
    return rc;
}

static int print_branch(const json_t *value, const struct printer *p);

static int print_numbered(void *to, json_t *item, struct q2_error *err)
{
    struct printer *p = to;
    struct printer inner = {p->lists, err, p->indent + INDENT, 0};
    printf("%*s[%zu]:", p->indent, "", p->n++);
    int rc = print_branch(item, &inner);
    json_decref(item);
    return rc;
}

static int print_branch(const json_t *value, const struct printer *p)
{
    struct printer inner = *p;
    if (!json_is_object(value) && !json_is_array(value))
        return print_leaf(value, p->err);
    putchar('\n');
    inner.n = 0;
    return json_is_object(value) ? q2_output_tree(value, p->indent, p->lists, p->err)
                                 : each_item(value, print_numbered, &inner);
}

int q2_output_tree(const json_t *object, int indent, const struct q2_long_lists *lists,
                   struct q2_error *err)
{
    const struct printer inner = {lists, err, indent + INDENT, 0};
    const char *key;
    json_t *value;
    int rc = check_complete(err);
    json_object_foreach((json_t *)object, key, value)
    {
        if (rc)
            break;
        printf("%*s", indent, "");
        for (const char *p = key; *p; p++)
            putchar(*p == '-' ? ' ' : *p);
        putchar(':');
        rc = print_branch(value, &inner);
    }
    return rc;
}
