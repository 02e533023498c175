// SPDX-License-Identifier: MIT
// Ciphers and keys against known answers (IEEE 1619 for XTS; the others were computed
// with OpenSSL and Python's hashlib), and secrets.
#include "image/crypt_cipher.h"
#include "image/crypt_key.h"

#include "base/secret.h"
#include "test.h"

#define MAX_MATERIAL (Q2_LUKS_MAX_KEY_BYTES * Q2_LUKS_STRIPES)

static bool is_hex(const uint8_t *p, const char *hex)
{
    char text[2 * Q2_LUKS_SECTOR + 1];
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++)
        snprintf(text + 2 * i, 3, "%02x", p[i]);
    if (strcmp(text, hex) != 0)
        printf("#   got  %s\n#   want %s\n", text, hex);
    return strcmp(text, hex) == 0;
}

static void choose(const struct q2_crypt_names *names, struct q2_luks_header *h,
                   struct q2_crypt_suite *s)
{
    struct q2_error err = Q2_ERROR_INIT;
    if (q2_crypt_suite_choose(names, h, s, &err) < 0) {
        printf("Bail out! %s\n", err.message);
        exit(1);
    }
}

// --- ciphers -------------------------------------------------------------------------

// 32 bytes (0, 1, 2 ...) under the key (0, 7, 14 ...) in sector 0x123456789a, but where
// the standard has others.
static const struct {
    const char *alg, *mode, *ivgen, *ivgen_hash, *want;
} answers[] = {
    {"aes-256", "cbc", "plain64", NULL,
     "5d9b3fdfde37b10e76ddbbe7c0a71f5c0bd3c1df1490e4592a3ef4fe4f25696c"},
    {"aes-128", "cbc", "plain", NULL,
     "1cbfccc6e3ee689941f24134b790cd7d3dcf5c1e6bd0078b8669e7109c710eef"},
    {"aes-128", "cbc", "essiv", "sha256",
     "178f26080773bce00f825e11fe7edf8288cbffc56ac06d00f85a5dd90d45e0de"},
    {"aes-256", "ctr", "plain64", NULL,
     "9a28c275ea6dae66420d15f7de88ba8bf6590f872ea5f9d814cbf98d44c742eb"},
    {"cast5-128", "cbc", "plain64", NULL,
     "83b8a13756cbbf67a7a4c0bea9ee59db946ffe2ed16f5d34d3dba109bcde17c6"},
};

static void encrypts(const struct q2_crypt_suite *s, const uint8_t *key, uint64_t sector,
                     const uint8_t *plain, const char *want, const char *name)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_cipher *c;
    uint8_t buf[32];
    is_int(q2_cipher_new(s, key, &c, &err), 0, "%s: a cipher %s", name, err.message);
    q2_cipher_run(c, Q2_ENCRYPT, sector, plain, buf, sizeof(buf), &err);
    ok(is_hex(buf, want), "%s: encrypts", name);
    q2_cipher_run(c, Q2_DECRYPT, sector, buf, buf, sizeof(buf), &err);
    ok(memcmp(buf, plain, sizeof(buf)) == 0, "%s: decrypts in place", name);
    q2_cipher_free(c);
}

static void known_answers(void)
{
    uint8_t key[64], plain[32];
    struct q2_luks_header h;
    struct q2_crypt_suite s;
    for (unsigned i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)(i * 7);
    for (unsigned i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)i;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        const struct q2_crypt_names names = {.cipher_alg = answers[i].alg,
                                             .cipher_mode = answers[i].mode,
                                             .ivgen_alg = answers[i].ivgen,
                                             .ivgen_hash_alg = answers[i].ivgen_hash};
        choose(&names, &h, &s);
        encrypts(&s, key, 0x123456789a, plain, answers[i].want, h.cipher_mode);
    }
    q2_crypt_suite_legacy(&s);
    uint8_t sums[32];
    memset(sums, 0, sizeof(sums));
    encrypts(&s, sums, 0, sums,
             "66e94bd4ef8a2c3b884cfa59ca342b2ef795bd4a52e29ed713d313fa20e98dbc",
             "the old AES");
}

static void xts(void)
{
    const struct q2_crypt_names names = {.cipher_alg = "aes-128", .cipher_mode = "xts"};
    uint8_t key[32], plain[32];
    struct q2_luks_header h;
    struct q2_crypt_suite s;
    choose(&names, &h, &s);
    memset(key, 0x11, 16);
    memset(key + 16, 0x22, 16);
    memset(plain, 0x44, sizeof(plain));
    encrypts(&s, key, UINT64_C(0x3333333333), plain,
             "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0",
             "IEEE 1619, vector 2");
}

// Many sectors at once are the same as each by itself; a short one ends them.
static void long_runs(void)
{
    enum { N = 5 * 512 + 64 };
    const struct q2_crypt_names names = {.cipher_alg = NULL};
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t key[64], plain[N], whole[N], single[N];
    struct q2_luks_header h;
    struct q2_crypt_suite s;
    struct q2_cipher *c;
    choose(&names, &h, &s);
    is_str(h.cipher_name, "aes", "the default cipher");
    is_str(h.cipher_mode, "xts-plain64", "the default mode");
    is_str(h.hash_spec, "sha256", "the default hash");
    is_u64(s.key_bytes, 64, "the default key length");
    q2_key_random(key, sizeof(key), &err);
    memset(plain, 0x5a, sizeof(plain));
    if (q2_cipher_new(&s, key, &c, &err) < 0)
        abort();
    q2_cipher_run(c, Q2_ENCRYPT, 77, plain, whole, N, &err);
    for (size_t at = 0; at < N; at += 512)
        q2_cipher_run(c, Q2_ENCRYPT, 77 + at / 512, plain + at, single + at,
                      N - at < 512 ? N - at : 512, &err);
    ok(memcmp(whole, single, N) == 0, "sector by sector");
    ok(memcmp(whole, whole + 512, 512) != 0, "each has its own initial value");
    q2_cipher_free(c);
}

// --- names ---------------------------------------------------------------------------

static void refused_names(void)
{
    static const struct {
        struct q2_crypt_names names;
        const char *message;
    } cases[] = {
        {{.cipher_alg = "rot13"}, "Parameter 'cipher-alg' does not accept value 'rot13'"},
        {{.cipher_mode = "gcm"}, "Parameter 'cipher-mode' does not accept value 'gcm'"},
        {{.ivgen_alg = "x"}, "Parameter 'ivgen-alg' does not accept value 'x'"},
        {{.ivgen_hash_alg = "x"}, "Parameter 'ivgen-hash-alg' does not accept value 'x'"},
        {{.hash_alg = "x"}, "Parameter 'hash-alg' does not accept value 'x'"},
        {{.cipher_alg = "3des"}, "Algorithm '3des' not supported"},
        {{.cipher_alg = "cast5-128"}, "Unsupported cipher mode xts"},
        {{.ivgen_alg = "essiv", .ivgen_hash_alg = "sha1"},
         "No AES cipher with key size 20 available"},
        {{.cipher_alg = "cast5-128", .cipher_mode = "cbc", .ivgen_alg = "essiv"},
         "Cipher cast5-128 not supported with essiv"},
        {{.cipher_alg = "aes-192", .cipher_mode = "cbc"},
         "Algorithm 'aes-192' not supported in cipher mode 'cbc'"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct q2_error err = Q2_ERROR_INIT;
        struct q2_luks_header h;
        struct q2_crypt_suite s;
        ok(q2_crypt_suite_choose(&cases[i].names, &h, &s, &err) < 0, "refused");
        is_str(err.message, cases[i].message, "says why");
    }
}

static void unknown_headers(void)
{
    static const struct {
        const char *name, *mode, *hash;
        unsigned key_bytes;
        const char *part;
    } cases[] = {
        {"aes", "xts-plain64", "sha256", 63, "key size 31"},
        {"aes", "xts-plain64", "sha256", 65, "key size 65"},
        {"aes", "cbc-plain64", "sha256", 64, "key size 64"},
        {"blowfish", "cbc-plain64", "sha256", 16, "'blowfish'"},
        {"aes", "xts", "sha256", 64, "format 'xts'"},
        {"aes", "lrw-plain64", "sha256", 32, "Cipher mode 'lrw'"},
        {"aes", "cbc-benbi", "sha256", 32, "IV generator 'benbi'"},
        {"aes", "cbc-essiv", "sha256", 32, "Missing IV generator hash"},
        {"aes", "cbc-essiv:tiger", "sha256", 32, "Hash algorithm 'tiger'"},
        {"aes", "cbc-essiv:sha512", "sha256", 32, "key size 64"},
        {"aes", "xts-plain64", "whirlpool", 64, "Hash algorithm 'whirlpool'"},
        {"cast5", "xts-plain64", "sha256", 32, "cipher mode xts"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct q2_error err = Q2_ERROR_INIT;
        struct q2_luks_header h = {.master_key_bytes = cases[i].key_bytes};
        struct q2_crypt_suite s;
        snprintf(h.cipher_name, sizeof(h.cipher_name), "%s", cases[i].name);
        snprintf(h.cipher_mode, sizeof(h.cipher_mode), "%s", cases[i].mode);
        snprintf(h.hash_spec, sizeof(h.hash_spec), "%s", cases[i].hash);
        ok(q2_crypt_suite_read(&h, &s, &err) < 0, "refused: %s %s", h.cipher_name,
           h.cipher_mode);
        has_str(err.message, cases[i].part, "says what");
    }
}

// --- keys ----------------------------------------------------------------------------

static void fill_material(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(i * i >> 3);
}

static const struct {
    const char *cipher, *hash, *want;
    unsigned key_bytes;
} slots[] = {
    {"aes", "sha1", "6c359fa0beea4a9e324b78bdf90cef92", 16},
    {"aes", "sha1", "bb5bc7186b78ab406aea595317d11e4566808fc15f138ce1", 24},
    {"aes", "sha256", "7a3947081db9ed403b29541931982cfb8a4a13705d602b463ab30395a8b2c268",
     32},
};

static void unwraps(void)
{
    uint8_t *material = malloc(MAX_MATERIAL);
    struct q2_luks_slot slot = {.iterations = 1000, .stripes = Q2_LUKS_STRIPES};
    const struct q2_secret pass = {.data = (uint8_t[]){"pass"}, .n_bytes = 4};
    if (!material)
        abort();
    memset(slot.salt, 0x33, sizeof(slot.salt));
    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
        struct q2_error err = Q2_ERROR_INIT;
        struct q2_luks_header h = {.cipher_mode = "cbc-plain64",
                                   .master_key_bytes = slots[i].key_bytes};
        struct q2_crypt_suite s;
        uint8_t key[Q2_LUKS_MAX_KEY_BYTES];
        snprintf(h.cipher_name, sizeof(h.cipher_name), "%s", slots[i].cipher);
        snprintf(h.hash_spec, sizeof(h.hash_spec), "%s", slots[i].hash);
        is_int(q2_crypt_suite_read(&h, &s, &err), 0, "a suite %s", err.message);
        is_u64(q2_key_material_bytes(&s), 4000 * slots[i].key_bytes, "material");
        fill_material(material, q2_key_material_bytes(&s));
        is_int(q2_key_unwrap(&s, &slot, &pass, material, key, &err), 0, "unwraps");
        ok(is_hex(key, slots[i].want), "%s, %u bytes", slots[i].hash, slots[i].key_bytes);
    }
    free(material);
}

static void wraps(void)
{
    const struct q2_crypt_names names = {.hash_alg = "sha512"};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_luks_slot slot = {.iterations = 1000, .stripes = Q2_LUKS_STRIPES};
    const struct q2_secret pass = {.data = (uint8_t[]){"pass"}, .n_bytes = 4};
    const struct q2_secret none = {.data = (uint8_t[]){""}, .n_bytes = 0};
    uint8_t key[64], out[64], *a = malloc(MAX_MATERIAL), *b = malloc(MAX_MATERIAL);
    struct q2_luks_header h;
    struct q2_crypt_suite s;
    if (!a || !b)
        abort();
    choose(&names, &h, &s);
    q2_key_random(key, sizeof(key), &err);
    is_int(q2_key_wrap(&s, &slot, &pass, key, a, &err), 0, "wraps %s", err.message);
    is_int(q2_key_wrap(&s, &slot, &pass, key, b, &err), 0, "wraps again");
    ok(memcmp(a, b, 512) != 0, "other stripes each time");
    q2_key_unwrap(&s, &slot, &pass, a, out, &err);
    ok(memcmp(key, out, sizeof(key)) == 0, "the key comes back");
    q2_key_unwrap(&s, &slot, &none, a, out, &err);
    ok(memcmp(key, out, sizeof(key)) != 0, "not with another passphrase");
    a[100000] ^= 1;
    q2_key_unwrap(&s, &slot, &pass, a, out, &err);
    ok(memcmp(key, out, sizeof(key)) != 0, "nor from damaged material");
    is_int(q2_key_wrap(&s, &slot, &none, key, a, &err), 0, "an empty passphrase");
    q2_key_unwrap(&s, &slot, &none, a, out, &err);
    ok(memcmp(key, out, sizeof(key)) == 0, "opens it");
    free(a);
    free(b);
}

static void digests(void)
{
    const struct q2_crypt_names names = {.cipher_alg = NULL};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_luks_header h = {.master_key_iterations = 1234};
    struct q2_crypt_suite s;
    uint8_t key[64], digest[20];
    choose(&names, &h, &s);
    memset(h.master_key_salt, 0x22, sizeof(h.master_key_salt));
    for (unsigned i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)(i + 1);
    is_int(q2_key_digest(&s, &h, key, digest, &err), 0, "a digest %s", err.message);
    ok(is_hex(digest, "d37b716f3ed5654a33b5267124e65298efef6fcb"), "of the master key");
}

static void iterations(void)
{
    const struct q2_crypt_names names = {.cipher_alg = NULL};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_luks_header h;
    struct q2_crypt_suite s;
    uint32_t n = 0;
    choose(&names, &h, &s);
    is_int(q2_key_iterations(s.hash, 64, 0, 1, &n, &err), 0, "no time");
    is_u64(n, Q2_KEY_MIN_ITERATIONS, "the fewest");
    ok(q2_key_iterations(s.hash, 64, UINT64_MAX, 1, &n, &err) < 0, "ages");
    has_str(err.message, "too large to scale", "says so");
    ok(q2_key_iterations(s.hash, 20, UINT64_C(1) << 40, 1, &n, &err) < 0, "34 years");
    has_str(err.message, "larger than 4294967295", "says so");
}

// --- secrets -------------------------------------------------------------------------

static void texts(void)
{
    static const struct {
        const char *bytes;
        size_t n;
        bool good;
    } cases[] = {
        {"passw0rd", 8, true},
        {"", 0, true},
        {"gr\xc3\xbc\xc3\x9f", 6, true},
        {"\xe2\x82\xac", 3, true},
        {"\xf0\x9f\x94\x91", 4, true},
        {"\xf4\x8f\xbf\xbf", 4, true},
        {"a\0b", 3, false},
        {"\xff\xfe", 2, false},
        {"\xc3", 1, false},
        {"\xc0\x80", 2, false},
        {"\xe0\x80\x80", 3, false},
        {"\xed\xa0\x80", 3, false},
        {"\xf4\x90\x80\x80", 4, false},
        {"\xf5\x80\x80\x80", 4, false},
        {"\xe2\x82", 2, false},
        {"\xe2\x28\xa1", 3, false},
        {"a\x80", 2, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct q2_error err = Q2_ERROR_INIT;
        struct q2_secrets *store;
        const struct q2_secret *s;
        if (q2_secrets_new(&store, &err) < 0)
            abort();
        is_int(q2_secrets_add(store, "k", cases[i].bytes, cases[i].n, &err), 0, "added");
        int ret = q2_secrets_find_text(store, "k", &s, &err);
        ok((ret == 0) == cases[i].good, "case %zu is %s", i,
           cases[i].good ? "text" : "none");
        is_str(err.message, cases[i].good ? "" : "Data from secret k is not valid UTF-8",
               "message");
        q2_secrets_free(store);
    }
}

static void stores(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_secrets *store;
    const struct q2_secret *s = NULL;
    if (q2_secrets_new(&store, &err) < 0)
        abort();
    is_int(q2_secrets_add(store, "a", "one", 3, &err), 0, "a");
    is_int(q2_secrets_add(store, "b", "two", 3, &err), 0, "b");
    ok(q2_secrets_add(store, "a", "three", 5, &err) < 0, "a again");
    has_str(err.message, "duplicate", "says so");
    is_int(q2_secrets_find(store, "b", &s, &err), 0, "b is there");
    ok(s && s->n_bytes == 3 && memcmp(s->data, "two", 4) == 0, "its bytes, and a NUL");
    ok(q2_secrets_find(store, "c", &s, &err) < 0, "c is not");
    is_str(err.message, "No secret with id 'c'", "says so");
    ok(q2_secrets_find(NULL, "a", &s, &err) < 0, "nothing in no store");
    q2_secrets_free(store);
}

int main(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    if (q2_secret_init(&err) < 0)
        return 1;
    known_answers();
    xts();
    long_runs();
    refused_names();
    unknown_headers();
    unwraps();
    wraps();
    digests();
    iterations();
    texts();
    stores();
    return done_testing();
}
