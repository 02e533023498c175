// SPDX-License-Identifier: MIT
// Text that is not ours: names out of images, of which there can be a hundred MiB, all of
// it in need of an escape.
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "cmd/output.h"

// What is to be printed, in pieces that are worth a call.
struct buffer {
    FILE *to;
    size_t n;
    char bytes[4096];
};

#define ESCAPE_BYTES 12U // two \uNNNN

static void write_out(struct buffer *b)
{
    fwrite(b->bytes, 1, b->n, b->to);
    b->n = 0;
}

// Before and behind each character there is room for an escape.
static void put(struct buffer *b, char c)
{
    b->bytes[b->n++] = c;
    if (b->n > sizeof(b->bytes) - ESCAPE_BYTES)
        write_out(b);
}

// The last bytes of an escape.
static void put_hex(struct buffer *b, const char *digits, unsigned value,
                    unsigned n_digits)
{
    while (--n_digits > 0)
        b->bytes[b->n++] = digits[value >> 4 * n_digits & 15];
    put(b, digits[value & 15]);
}

json_t *q2_output_string(const char *text)
{
    json_malloc_t allocate; // the one that notes when there is no memory
    json_get_alloc_funcs(&allocate, NULL);
    char *clean = allocate(3 * strlen(text) + 1), *to = clean;
    if (!clean)
        return NULL;
    for (const char *p = text; *p;) {
        size_t n =
            (unsigned char)*p < 0x80 ? 1 : q2_utf8_sequence((const unsigned char *)p);
        if (n == 0) {
            memcpy(to, "\xef\xbf\xbd", 3);
            to += 3;
            p++;
        }
        while (n-- > 0)
            *to++ = *p++;
    }
    json_t *string = json_stringn_nocheck(clean, (size_t)(to - clean));
    free(clean);
    return string;
}

void q2_output_text(FILE *to, const char *text)
{
    struct buffer b = {.to = to, .n = 0};
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p >= 0x20 && *p != 0x7f) {
            put(&b, (char)*p);
        } else {
            b.bytes[b.n++] = '\\';
            b.bytes[b.n++] = 'x';
            put_hex(&b, "0123456789abcdef", *p, 2);
        }
    }
    write_out(&b);
}

static void put_escape(struct buffer *b, unsigned code)
{
    b->bytes[b->n++] = '\\';
    b->bytes[b->n++] = 'u';
    put_hex(b, "0123456789ABCDEF", code, 4);
}

// What stands behind the backslash of a short escape; 0: there is none.
static char short_escape(char c)
{
    switch (c) {
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    case '"':
    case '\\':
        return c;
    default:
        return '\0';
    }
}

static void put_ascii(struct buffer *b, char c)
{
    char escape = short_escape(c);
    if (escape) {
        b->bytes[b->n++] = '\\';
        put(b, escape);
    } else if (c < 0x20) {
        put_escape(b, (unsigned)c);
    } else {
        put(b, c);
    }
}

// A character of more than one byte. Returns how many.
static size_t put_wide(struct buffer *b, const unsigned char *p)
{
    size_t n = q2_utf8_sequence(p);
    unsigned code = p[0] & (0x7fU >> n);
    for (size_t i = 1; i < n; i++)
        code = code << 6 | (p[i] & 0x3fU);
    if (code > 0xffff) {
        put_escape(b, 0xd800 + (code - 0x10000) / 0x400);
        code = 0xdc00 + (code - 0x10000) % 0x400;
    }
    put_escape(b, code);
    return n;
}

void q2_output_quoted(const json_t *string)
{
    const char *p = json_string_value(string);
    const char *end = p + json_string_length(string);
    struct buffer b = {.to = stdout, .n = 0};
    put(&b, '"');
    while (p < end) {
        if ((unsigned char)*p < 0x80)
            put_ascii(&b, *p++);
        else
            p += put_wide(&b, (const unsigned char *)p);
    }
    put(&b, '"');
    write_out(&b);
}
