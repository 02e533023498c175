// SPDX-License-Identifier: MIT
// Shell completion: -o KEY=VALUE,... and --object.
#include <stdio.h>
#include <string.h>

#include "cmd/choices.h"
#include "cmd/complete.h"
#include "image/crypt_suite.h"

// Where the item that the word ends with begins. A doubled comma is no end of one.
size_t q2_complete_item(const struct q2_completion *c, size_t start)
{
    size_t item = start;
    for (size_t i = start; c->word[i]; i++) {
        if (c->word[i] != ',')
            continue;
        if (c->word[i + 1] == ',')
            i++;
        else
            item = i + 1;
    }
    return item;
}

static void offer_powers(const struct q2_completion *c, unsigned first, unsigned last,
                         size_t start)
{
    q2_complete_begin(c, "words", start);
    for (unsigned n = first; n <= last; n *= 2) {
        char text[32];
        const char *unit = n >= 1U << 20 ? "M" : n >= 1U << 10 ? "k" : "";
        snprintf(text, sizeof(text), "%u%s",
                 n >> (*unit == 'M' ? 20
                       : *unit      ? 10
                                    : 0),
                 unit);
        q2_complete_offer(text, "");
    }
}

static void offer_names(const struct q2_completion *c, enum q2_crypt_parameter parameter,
                        size_t start)
{
    const char *name;
    q2_complete_begin(c, "words", start);
    for (size_t i = 0; (name = q2_crypt_suite_name(parameter, i)) != NULL; i++)
        q2_complete_offer(name, "");
}

// The ids of --object secret,id=ID.
static void offer_secrets(const struct q2_completion *c, size_t start)
{
    q2_complete_begin(c, "words", start);
    for (size_t i = 0; i < c->n_objects; i++) {
        char id[64];
        const char *p = strstr(c->objects[i], ",id=");
        size_t n = p ? strcspn(p + 4, ",") : 0;
        if (n == 0 || n >= sizeof(id))
            continue;
        snprintf(id, sizeof(id), "%.*s", (int)n, p + 4);
        q2_complete_offer(id, "");
    }
}

static void offer_value(const struct q2_completion *c, const struct q2_key_row *row,
                        size_t start)
{
    static const struct {
        enum q2_create_key key;
        const struct q2_choice *list;
    } lists[] = {
        {Q2_KEY_ENCRYPT_FORMAT, q2_choices_encryption},
        {Q2_KEY_PREALLOCATION, q2_choices_preallocation},
        {Q2_KEY_COMPRESSION_TYPE, q2_choices_compression},
        {Q2_KEY_COMPRESSION_LEVEL, q2_choices_level},
        {Q2_KEY_COMPAT, q2_choices_compat},
        {Q2_KEY_BACKING_FORMAT, q2_choices_format},
        {Q2_KEY_ENCRYPT_STATE, q2_choices_keyslot},
    };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        if (lists[i].key == row->key)
            q2_complete_list(c, lists[i].list, start);
    switch (row->key) {
    case Q2_KEY_CLUSTER_SIZE:
        offer_powers(c, 1U << 9, 1U << 21, start);
        break;
    case Q2_KEY_REFCOUNT_BITS:
        offer_powers(c, 1, 64, start);
        break;
    case Q2_KEY_BACKING_FILE:
    case Q2_KEY_DATA_FILE:
        q2_complete_begin(c, "files", start);
        break;
    case Q2_KEY_ENCRYPT_CIPHER_ALG:
        offer_names(c, Q2_CIPHER_ALG, start);
        break;
    case Q2_KEY_ENCRYPT_CIPHER_MODE:
        offer_names(c, Q2_CIPHER_MODE, start);
        break;
    case Q2_KEY_ENCRYPT_IVGEN_ALG:
        offer_names(c, Q2_IVGEN_ALG, start);
        break;
    case Q2_KEY_ENCRYPT_IVGEN_HASH_ALG:
    case Q2_KEY_ENCRYPT_HASH_ALG:
        offer_names(c, Q2_HASH_ALG, start);
        break;
    case Q2_KEY_ENCRYPT_KEY_SECRET:
    case Q2_KEY_ENCRYPT_NEW_SECRET:
    case Q2_KEY_ENCRYPT_OLD_SECRET:
        offer_secrets(c, start);
        break;
    default:
        if (row->type == Q2_TYPE_BOOL)
            q2_complete_list(c, q2_choices_switch, start);
    }
}

static const struct q2_key_row *rows_of(const struct q2_completion *c, size_t *n)
{
    // create names the new image's format by -f, convert and measure by -O.
    bool creates = !strcmp(c->command->name, "create");
    const char *format = q2_completion_letter(c, creates ? 'f' : 'O');
    if (!strcmp(c->command->name, "amend"))
        return q2_key_amend_rows(n);
    return q2_key_rows(format ? format : "raw", n);
}

// The key, or its value where the item has come to that.
static void offer_row(const struct q2_completion *c, const struct q2_key_row *row,
                      size_t item)
{
    char key[64];
    size_t n = strcspn(c->word + item, "=");
    snprintf(key, sizeof(key), "%s=", row->name);
    if (!c->word[item + n])
        q2_complete_offer(key, row->help);
    else if (!strncmp(key, c->word + item, n + 1))
        offer_value(c, row, item + n + 1);
}

void q2_complete_keys(const struct q2_completion *c, size_t start)
{
    size_t item = q2_complete_item(c, start), n_rows;
    const struct q2_key_row *rows = rows_of(c, &n_rows);
    if (!strchr(c->word + item, '='))
        q2_complete_begin(c, "parts", item);
    for (size_t i = 0; i < n_rows; i++)
        offer_row(c, &rows[i], item);
    if (!strcmp(c->command->name, "convert"))
        offer_row(c, &q2_key_level_row, item);
}

void q2_complete_object(const struct q2_completion *c, size_t start)
{
    static const char *const parts[] = {"secret,id=", "id=", "file="};
    size_t item = q2_complete_item(c, start);
    if (!strncmp(c->word + item, "file=", 5)) {
        q2_complete_begin(c, "files", item + 5);
        return;
    }
    q2_complete_begin(c, "parts", item);
    if (item == start)
        q2_complete_offer(parts[0], "a passphrase");
    else
        for (size_t i = 1; i < sizeof(parts) / sizeof(parts[0]); i++)
            q2_complete_offer(parts[i], "");
}
