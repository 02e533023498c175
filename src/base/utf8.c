// SPDX-License-Identifier: MIT
// UTF-8, looked at a character at a time.
#include "base/utf8.h"

size_t q2_utf8_sequence(const unsigned char *p)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc0 || p[0] > 0xf7)
        return 0;
    unsigned code = p[0] & (0x7fU >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3fU);
    }
    if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    return n;
}

bool q2_utf8_valid(const unsigned char *p, size_t n_bytes)
{
    for (size_t at = 0, n; at < n_bytes; at += n) {
        n = q2_utf8_sequence(p + at);
        if (!p[at] || !n || n > n_bytes - at)
            return false;
    }
    return true;
}
