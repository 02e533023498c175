// SPDX-License-Identifier: MIT
// --object: secrets, from the command line itself or from files.
#include "cmd/objects.h"

#include <ctype.h>
#include <errno.h>
#include <gcrypt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/sealed.h"
#include "cmd/image_pairs.h"
#include "cmd/streams.h"

// No passphrase is longer, and a file that has no end is none. (Secure memory comes in
// pieces that are not much larger.)
#define MAX_BYTES ((size_t)16 << 10)

static struct q2_secrets *secrets;

const struct q2_secrets *q2_object_secrets(void)
{
    return secrets;
}

// --- libgcrypt, when it gives up -------------------------------------------------------

static const char *program_name;

// In place of abort, for which a core file with keys in it would be left. What was begun
// stays as a power cut would leave it: a new image is none yet.
static _Noreturn void give_up(const char *why)
{
    fprintf(stderr, "%s: libgcrypt cannot go on: %s\n", program_name, why);
    _exit(1);
}

static void on_fatal(void *opaque, int code, const char *text)
{
    (void)opaque;
    give_up(text ? text : gcry_strerror((gcry_error_t)code));
}

// Its hints are not for users: that it takes ordinary memory when there is no other.
static void on_message(void *opaque, int level, const char *fmt, va_list ap)
{
    char text[256];
    (void)opaque;
    vsnprintf(text, sizeof(text), fmt, ap);
    text[strcspn(text, "\n")] = '\0';
    // It also aborts behind messages of a lower level, which begin so.
    if (level >= GCRY_LOG_FATAL || !strncmp(text, "FATAL", 5))
        give_up(text);
}

void q2_objects_setup(const char *program)
{
    program_name = program;
    gcry_set_fatalerror_handler(on_fatal, NULL);
    gcry_set_log_handler(on_message, NULL);
}

void q2_objects_clear(void)
{
    q2_secrets_free(secrets);
    secrets = NULL;
}

// The options of a secret. Texts belong to the pairs; NULL: not given.
struct definition {
    const char *id, *data, *file, *format, *keyid, *iv;
};

// --- its bytes -----------------------------------------------------------------------

// In secure memory.
struct bytes {
    uint8_t *p;
    size_t n;
};

// Not buffered: the stream would keep a copy. A pipe will do, too.
static int read_stream(FILE *f, const char *path, struct bytes *b, struct q2_error *err)
{
    setvbuf(f, NULL, _IONBF, 0);
    b->n = fread(b->p, 1, MAX_BYTES + 1, f);
    if (ferror(f))
        return q2_fail(err, -errno, "Unable to read %s: Error reading file “%s”: %s",
                       path, path, strerror(errno));
    if (b->n > MAX_BYTES)
        return q2_fail(err, -EFBIG, "Unable to read %s: the file is too large", path);
    return 0;
}

static int read_file(const char *path, struct bytes *b, struct q2_error *err)
{
    FILE *f = q2_streams_open_file(path);
    if (!f)
        return q2_fail(err, -errno, "Unable to read %s: Failed to open file “%s”: %s",
                       path, path, strerror(errno));
    int rc = read_stream(f, path, b, err);
    fclose(f);
    return rc;
}

static int read_bytes(const struct definition *d, struct bytes *b, struct q2_error *err)
{
    if (d->file && d->data)
        return q2_fail(err, -EINVAL, "'file' and 'data' are mutually exclusive");
    if (!d->file && !d->data)
        return q2_fail(err, -EINVAL, "Either 'file' or 'data' must be provided");
    b->p = q2_secret_alloc(MAX_BYTES + 1);
    if (!b->p)
        return q2_fail_memory(err, MAX_BYTES + 1);
    if (d->file)
        return read_file(d->file, b, err);
    b->n = strlen(d->data);
    if (b->n > MAX_BYTES)
        return q2_fail(err, -EFBIG, "The secret '%s' is too long", d->id);
    memcpy(b->p, d->data, b->n);
    return 0;
}

// A secret that is encrypted itself names another one as its key.
static int open_sealed(const struct definition *d, struct bytes *b, struct q2_error *err)
{
    const struct q2_secret *key;
    if (!d->keyid)
        return 0;
    int rc = q2_secrets_find(secrets, d->keyid, &key, err);
    return rc ? rc : q2_sealed_open(key, d->iv, b->p, &b->n, err);
}

static int define(const struct definition *d, struct q2_error *err)
{
    struct bytes b = {.p = NULL};
    int rc = secrets ? 0 : q2_secrets_new(&secrets, err);
    if (!rc)
        rc = read_bytes(d, &b, err);
    if (!rc && d->format && !strcmp(d->format, "base64"))
        rc = q2_base64_decode(b.p, &b.n, err);
    if (!rc)
        rc = open_sealed(d, &b, err);
    if (!rc)
        rc = q2_secrets_add(secrets, d->id, b.p, b.n, err);
    q2_secret_free(b.p);
    return rc;
}

// --- its options ---------------------------------------------------------------------

static int take_text(struct q2_pairs *pairs, const char *key, const char **out,
                     struct q2_error *err)
{
    const struct q2_pair *p = q2_pairs_take(pairs, "", key);
    if (p && !p->is_text)
        return q2_fail(err, -EINVAL, "Invalid parameter type for '%s', expected: string",
                       key);
    *out = p ? p->value : NULL;
    return 0;
}

// Kinds that QEMU has, and that disk images have no use for, are refused for what they
// are.
static int take_kind(struct q2_pairs *pairs, struct q2_error *err)
{
    static const char *const others[] = {
        "authz-",         "iothread",       "main-loop",      "pr-manager-",
        "secret_keyring", "thread-context", "throttle-group", "tls-"};
    const char *kind = NULL;
    int rc = take_text(pairs, "qom-type", &kind, err);
    if (rc || (kind && !strcmp(kind, "secret")))
        return rc;
    if (!kind)
        return q2_fail(err, -EINVAL, "Parameter 'qom-type' is missing");
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (!strncmp(kind, others[i], strlen(others[i])))
            return q2_fail(err, -ENOTSUP, "--object %s is not supported: only secret is",
                           kind);
    return q2_fail(err, -EINVAL, "Parameter 'qom-type' does not accept value '%s'", kind);
}

static int check_id(const char *id, struct q2_error *err)
{
    size_t n = strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                          "-._");
    if (isalpha((unsigned char)id[0]) && !id[n])
        return 0;
    q2_fail(err, -EINVAL, "Parameter 'id' expects an identifier");
    return q2_hint(err, "Identifiers consist of letters, digits, '-', '.', '_', starting "
                        "with a letter.");
}

static int refuse_unused(const struct q2_pairs *pairs, struct q2_error *err)
{
    const char *key = q2_pairs_unused(pairs, "");
    return key ? q2_fail(err, -EINVAL, "Parameter '%.*s' is unexpected",
                         (int)strcspn(key, "."), key)
               : 0;
}

static int take_definition(struct q2_pairs *pairs, struct definition *d,
                           struct q2_error *err)
{
    const struct {
        const char *key, **value;
    } texts[] = {{"id", &d->id}, {"format", &d->format}, {"keyid", &d->keyid},
                 {"iv", &d->iv}, {"data", &d->data},     {"file", &d->file}};
    int rc = take_kind(pairs, err);
    for (size_t i = 0; !rc && i < sizeof(texts) / sizeof(texts[0]); i++) {
        rc = take_text(pairs, texts[i].key, texts[i].value, err);
        if (!rc && !d->id)
            rc = q2_fail(err, -EINVAL, "Parameter 'id' is missing");
    }
    if (!rc && d->format && strcmp(d->format, "raw") != 0 &&
        strcmp(d->format, "base64") != 0)
        rc = q2_fail(err, -EINVAL, "Parameter 'format' does not accept value '%s'",
                     d->format);
    if (!rc)
        rc = refuse_unused(pairs, err);
    return rc ? rc : check_id(d->id, err);
}

static bool print_help(const char *text)
{
    const char *comma = strchr(text, ',');
    if (!strcmp(text, "help") || !strcmp(text, "?"))
        printf("List of user creatable objects:\n  secret\n");
    else if (comma && (!strcmp(comma, ",help") || !strcmp(comma, ",?")) &&
             !strncmp(text, "secret,", 7))
        printf("secret options:\n  data=<string>\n  file=<string>\n"
               "  format=<QCryptoSecretFormat>\n  iv=<string>\n  keyid=<string>\n");
    else
        return false;
    return true;
}

int q2_object_take(const char *text, bool *help, struct q2_error *err)
{
    struct q2_pairs pairs = {.list = NULL};
    struct definition d = {.id = NULL};
    *help = print_help(text);
    if (*help)
        return 0;
    int rc = text[0] == '{' ? q2_pairs_add_json(&pairs, text, err)
                            : q2_pairs_add_strict(&pairs, text, "qom-type", err);
    if (!rc)
        rc = take_definition(&pairs, &d, err);
    if (!rc)
        rc = define(&d, err);
    q2_pairs_clear(&pairs);
    return rc;
}
