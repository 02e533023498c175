// SPDX-License-Identifier: MIT
// Base64, and secrets that are encrypted.
#include "base/sealed.h"
#include "base/base64.h"

#include <errno.h>

#include "test.h"

static const struct base64_case {
    const char *text;
    int ret;
    const char *bytes;
    size_t n;
} base64_cases[] = {
    {"", 0, "", 0},
    {"Zg==", 0, "f", 1},
    {"Zm8=", 0, "fo", 2},
    {"Zm9v", 0, "foo", 3},
    {"Zm9vYg==", 0, "foob", 4},
    {"Zm9v\nYmFy\n", 0, "foobar", 6},
    {"/+//", 0, "\xff\xef\xff", 3},
    {"AAAA", 0, "\0\0\0", 3},
    {"Zm9vY", 0, "foo", 3},
    {"Z", 0, "", 0},
    {"Zm9v ", -EINVAL, "", 0},
    {"Zm9-", -EINVAL, "", 0},
    {"Zm\t9", -EINVAL, "", 0},
};

static void base64(void)
{
    for (size_t i = 0; i < sizeof(base64_cases) / sizeof(base64_cases[0]); i++) {
        const struct base64_case *c = &base64_cases[i];
        struct q2_error err = Q2_ERROR_INIT;
        uint8_t buf[32];
        size_t n = strlen(c->text);
        memcpy(buf, c->text, n);
        is_int(q2_base64_decode(buf, &n, &err), c->ret, "base64 '%s'", c->text);
        if (c->ret)
            has_str(err.message, "invalid characters", "'%s' says why", c->text);
        else
            ok(n == c->n && memcmp(buf, c->bytes, n) == 0, "'%s' is right", c->text);
    }
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t zero[] = "Zm\0v";
    size_t n = 4;
    is_int(q2_base64_decode(zero, &n, &err), -EINVAL, "base64 with a NUL");
    has_str(err.message, "embedded NUL", "which it says");
}

// The key and block of NIST SP 800-38A, F.2.6; what it decrypts to has no padding.
static uint8_t key_bytes[] = {0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe,
                              0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81,
                              0x1f, 0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7,
                              0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4};
static const uint8_t sealed_bytes[] = {0xf5, 0x8c, 0x4c, 0x04, 0xd6, 0xe5, 0xf1, 0xba,
                                       0x77, 0x9e, 0xab, 0xfb, 0x5f, 0x7b, 0xfb, 0xd6};
static const uint8_t open_bytes[] = {0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96,
                                     0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a};
#define IV "AAECAwQFBgcICQoLDA0ODw=="

static void sealed(void)
{
    const struct q2_secret key = {.data = key_bytes, .n_bytes = sizeof(key_bytes)},
                           short_key = {.data = key_bytes, .n_bytes = 16};
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t buf[sizeof(sealed_bytes)];
    size_t n = sizeof(buf);
    memcpy(buf, sealed_bytes, n);
    is_int(q2_sealed_open(&short_key, IV, buf, &n, &err), -EINVAL, "a short key");
    is_int(q2_sealed_open(&key, NULL, buf, &n, &err), -EINVAL, "no IV");
    is_int(q2_sealed_open(&key, "AAAA", buf, &n, &err), -EINVAL, "a short IV");
    ok(memcmp(buf, sealed_bytes, n) == 0, "nothing was decrypted");
    is_int(q2_sealed_open(&key, IV, buf, &n, &err), -EINVAL, "no padding");
    has_str(err.message, "padding bytes (42)", "which it says");
    ok(memcmp(buf, open_bytes, n) == 0, "decrypted as the standard says");
    n = 15;
    is_int(q2_sealed_open(&key, IV, buf, &n, &err), -EINVAL, "half a block");
    n = 0;
    is_int(q2_sealed_open(&key, IV, buf, &n, &err), 0, "nothing at all");
    is_u64(n, 0, "is nothing");
}

int main(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    if (q2_secret_init(&err) < 0)
        return 1;
    base64();
    sealed();
    return done_testing();
}
