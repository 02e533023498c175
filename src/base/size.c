// SPDX-License-Identifier: MIT
// Sizes as people write and read them.
#include "base/size.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"

// More digits than this do not change any size below 2^64 but its last byte.
#define FRACTION_DIGITS 19

struct number {
    uint64_t integer;
    // fraction = numerator / denominator; sticky: digits not zero follow it
    uint64_t numerator;
    uint64_t denominator;
    bool sticky;
};

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return 16;
}

// Reads digits of base at *p; false on overflow (all of them are passed then too).
static bool read_integer(const char **p, unsigned base, uint64_t *value)
{
    bool fits = true;
    uint64_t v = 0;

    for (; (unsigned)digit_value(**p) < base; (*p)++)
        fits = fits && q2_mul_u64(v, base, &v) &&
               q2_add_u64(v, (unsigned)digit_value(**p), &v);
    *value = v;
    return fits;
}

static void read_fraction(const char **p, struct number *n)
{
    for (unsigned i = 0; isdigit((unsigned char)**p); (*p)++, i++) {
        unsigned digit = (unsigned)digit_value(**p);
        if (i < FRACTION_DIGITS) {
            n->numerator = n->numerator * 10 + digit;
            n->denominator *= 10;
        } else if (digit) {
            n->sticky = true;
        }
    }
}

// 0, or a negative code; *p is behind the number (before a suffix).
static int read_number(const char **p, struct number *n, bool *hex)
{
    *n = (struct number){.denominator = 1};
    while (isspace((unsigned char)**p))
        (*p)++;
    if (**p == '+')
        (*p)++;

    const char *s = *p;
    *hex = s[0] == '0' && (s[1] == 'x' || s[1] == 'X') && digit_value(s[2]) < 16;
    if (*hex) {
        *p += 2;
        return read_integer(p, 16, &n->integer) ? 0 : -ERANGE;
    }
    if (!isdigit((unsigned char)s[0]) && !(s[0] == '.' && isdigit((unsigned char)s[1])))
        return -EINVAL;

    bool fits = read_integer(p, 10, &n->integer);
    if (**p == '.') {
        (*p)++;
        read_fraction(p, n);
    }
    return fits ? 0 : -ERANGE;
}

static uint64_t suffix_unit(char c)
{
    static const char suffixes[] = "bkmgtpe";
    const char *hit = c ? strchr(suffixes, tolower((unsigned char)c)) : NULL;
    return hit ? UINT64_C(1) << (10 * (hit - suffixes)) : 0;
}

// numerator * unit / denominator, rounded to the nearest; unit is a power of two. Digit
// by binary digit, as the product may have more than 64.
static uint64_t scale_fraction(const struct number *n, uint64_t unit)
{
    uint64_t d = n->denominator, rest = n->numerator, quotient = 0;
    for (; unit > 1; unit /= 2) {
        bool one = rest >= d - rest;
        quotient = 2 * quotient + one;
        rest = one ? rest - (d - rest) : 2 * rest;
    }
    return quotient + (rest >= d - d / 2);
}

// integer * unit + fraction * unit, rounded to the nearest byte.
static int scale(const struct number *n, uint64_t unit, uint64_t *value)
{
    bool has_fraction = n->numerator != 0 || n->sticky;
    if (has_fraction && unit == 1)
        return -EINVAL;

    uint64_t fraction = scale_fraction(n, unit);

    uint64_t whole;
    if (!q2_mul_u64(n->integer, unit, &whole) || !q2_add_u64(whole, fraction, value))
        return -ERANGE;
    return 0;
}

int q2_size_parse(const char *text, uint64_t default_unit, const char **end,
                  uint64_t *value)
{
    const char *p = text;
    struct number n;
    bool hex;
    uint64_t v = 0;

    int ret = read_number(&p, &n, &hex);
    if (ret != -EINVAL) {
        uint64_t unit = hex ? 0 : suffix_unit(*p);
        if (unit)
            p++;
        else
            unit = default_unit;
        if (ret == 0)
            ret = scale(&n, unit, &v);
    }
    // QEMU refuses a fraction behind hex digits even where text may follow
    if (ret == 0 && hex && *p == '.')
        ret = -EINVAL;
    if (ret == -EINVAL)
        p = text;

    if (end)
        *end = p;
    else if (ret != -EINVAL && *p)
        ret = -EINVAL;
    if (ret == 0)
        *value = v;
    return ret;
}

void q2_size_format(uint64_t n_bytes, char out[Q2_SIZE_TEXT_MAX])
{
    static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    int exponent;

    // The next unit from 1000 on, not from 1024: no more than three digits are shown.
    frexp((double)n_bytes / (1000.0 / 1024.0), &exponent);
    int unit = n_bytes ? (exponent - 1) / 10 : 0;
    snprintf(out, Q2_SIZE_TEXT_MAX, "%0.3g %sB",
             (double)n_bytes / (double)(UINT64_C(1) << (10 * unit)), units[unit]);
}
