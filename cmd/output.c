// SPDX-License-Identifier: MIT
// Printing JSON in the layout that scripts for qemu-img know.
#include "cmd/output.h"

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
    new_line(p->indent);
    putchar('}');
    return rc;
}

static int print_item(void *to, json_t *item, struct q2_error *err)
{
    struct printer *p = to;
    (void)err;
    printf("%s", p->n++ ? "," : "");
    new_line(p->indent);
    int rc = print_value(item, p);
    json_decref(item);
    return rc;
}

static int print_array(const json_t *array, const struct printer *p)
{
    struct printer inner = {p->lists, p->err, p->indent + INDENT, 0};
    putchar('[');
    int rc = each_item(array, print_item, &inner);
    new_line(p->indent);
    putchar(']');
    return rc;
}

static int print_value(const json_t *value, const struct printer *p)
{
    if (json_is_object(value))
        return print_object(value, p);
    if (json_is_array(value))
        return print_array(value, p);
    if (json_is_string(value))
        q2_output_quoted(value);
    else
        json_dumpf(value, stdout, JSON_ENCODE_ANY);
    return 0;
}

int q2_output_json(json_t *value)
{
    struct q2_error err = Q2_ERROR_INIT; // without long lists there is no other
    return q2_output_long_json(value, NULL, &err);
}

int q2_output_long_json(json_t *value, const struct q2_long_lists *lists,
                        struct q2_error *err)
{
    if (!value)
        return q2_fail_memory(err, 0);
    int rc = print_value(value, &(struct printer){lists, err, 0, 0});
    putchar('\n');
    json_decref(value);
    return rc;
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
    if (!json_is_object(value) && !json_is_array(value)) {
        print_leaf(value);
        return 0;
    }
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
    int rc = 0;
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
