// SPDX-License-Identifier: MIT
// Base64 into bytes.
#include "base/base64.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static const char alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int check(const uint8_t *text, size_t n_bytes, struct q2_error *err)
{
    for (size_t i = 0; i < n_bytes; i++) {
        if (!text[i])
            return q2_fail(err, -EINVAL, "Base64 data contains embedded NUL characters");
        if (!strchr(alphabet, text[i]) && text[i] != '=' && text[i] != '\n')
            return q2_fail(err, -EINVAL, "Base64 data contains invalid characters");
    }
    return 0;
}

int q2_base64_decode(uint8_t *text, size_t *n_bytes, struct q2_error *err)
{
    uint8_t *to = text;
    unsigned n = 0, n_padding = 0, bits = 0;
    int rc = check(text, *n_bytes, err);
    for (size_t i = 0; !rc && i < *n_bytes; i++) {
        if (text[i] == '\n')
            continue;
        bool padding = text[i] == '=';
        n_padding = padding ? n_padding + 1 : 0;
        bits =
            bits << 6 | (padding ? 0 : (unsigned)(strchr(alphabet, text[i]) - alphabet));
        if (++n % 4)
            continue;
        // The write never overtakes the read: three bytes for each four.
        *to++ = (uint8_t)(bits >> 16);
        if (n_padding < 2)
            *to++ = (uint8_t)(bits >> 8);
        if (n_padding < 1)
            *to++ = (uint8_t)bits;
    }
    *n_bytes = rc ? *n_bytes : (size_t)(to - text);
    return rc;
}
