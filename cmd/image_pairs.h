// SPDX-License-Identifier: MIT
// Options of an image as the command line gives them: KEY=VALUE,... or a JSON object,
// both a flat list of pairs.
#ifndef Q2_CMD_IMAGE_PAIRS_H
#define Q2_CMD_IMAGE_PAIRS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct q2_pair {
    char *key;    // levels are joined by dots: "file.filename"
    char *value;  // NULL: JSON's null
    bool is_text; // no number, nor a switch
    bool used;
};

struct q2_pairs {
    struct q2_pair *list;
    size_t n;
};

// Appends a pair; copies both.
int q2_pairs_add(struct q2_pairs *pairs, const char *key, const char *value,
                 struct q2_error *err);
// Appends KEY=VALUE,...: a doubled comma stands for one; KEY alone is on, noKEY off. If
// the first item is without a "=", it is the value of the key implied (NULL: it is as all
// others).
int q2_pairs_add_list(struct q2_pairs *pairs, const char *text, const char *implied,
                      struct q2_error *err);
// The same without switches: only the first item may be without a "=".
int q2_pairs_add_strict(struct q2_pairs *pairs, const char *text, const char *implied,
                        struct q2_error *err);
// Appends the members of a JSON object.
int q2_pairs_add_json(struct q2_pairs *pairs, const char *text, struct q2_error *err);
// Wipes the values, too: a passphrase may be one.
void q2_pairs_clear(struct q2_pairs *pairs);

// The pair prefix+key, the last of several; marks all of them as used. NULL: none.
const struct q2_pair *q2_pairs_take(struct q2_pairs *pairs, const char *prefix,
                                    const char *key);
// Is there a key that begins with prefix+key+"."?
bool q2_pairs_has_below(const struct q2_pairs *pairs, const char *prefix,
                        const char *key);
// The first key with that prefix that was not used, without the prefix; NULL: none.
const char *q2_pairs_unused(const struct q2_pairs *pairs, const char *prefix);

#endif
