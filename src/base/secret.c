// SPDX-License-Identifier: MIT
// Secure memory, and the passphrases that a command was given.
#include "base/secret.h"

#include <assert.h>
#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define OLDEST_LIBGCRYPT "1.9.0"
// What an ordinary user may lock everywhere. More is taken in pieces of this size when it
// is used up.
#define POOL_BYTES (32U << 10)

struct q2_secrets {
    struct q2_secret *list;
    size_t n;
};

static pthread_once_t init_once = PTHREAD_ONCE_INIT;
static bool is_ready;

// Where the system locks no memory, libgcrypt would say so on stderr each time; it works
// all the same, and is wiped.
static void init(void)
{
    if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P)) {
        is_ready = true;
        return;
    }
    if (!gcry_check_version(OLDEST_LIBGCRYPT))
        return;
    gcry_control(GCRYCTL_DISABLE_SECMEM_WARN);
    gcry_control(GCRYCTL_AUTO_EXPAND_SECMEM, POOL_BYTES);
    gcry_control(GCRYCTL_INIT_SECMEM, POOL_BYTES, 0);
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    is_ready = true;
}

int q2_secret_init(struct q2_error *err)
{
    pthread_once(&init_once, init);
    return is_ready
               ? 0
               : q2_fail(err, -ENOTSUP, "libgcrypt is older than %s", OLDEST_LIBGCRYPT);
}

void *q2_secret_alloc(size_t n_bytes)
{
    return gcry_calloc_secure(1, n_bytes > 0 ? n_bytes : 1);
}

// libgcrypt wipes secure memory when it is freed.
void q2_secret_free(void *p)
{
    gcry_free(p);
}

void q2_secret_wipe(void *p, size_t n_bytes)
{
    explicit_bzero(p, n_bytes);
}

int q2_secrets_new(struct q2_secrets **out, struct q2_error *err)
{
    int ret = q2_secret_init(err);
    if (ret < 0)
        return ret;
    *out = calloc(1, sizeof(**out));
    return *out ? 0 : q2_fail_memory(err, sizeof(**out));
}

static const struct q2_secret *find(const struct q2_secrets *store, const char *id)
{
    for (size_t i = 0; store && i < store->n; i++) {
        if (strcmp(store->list[i].id, id) == 0)
            return &store->list[i];
    }
    return NULL;
}

static void clear(struct q2_secret *s)
{
    free(s->id);
    q2_secret_free(s->data);
}

static int copy(const char *id, const void *data, size_t n_bytes, struct q2_secret *s,
                struct q2_error *err)
{
    *s = (struct q2_secret){
        .id = strdup(id), .data = q2_secret_alloc(n_bytes + 1), .n_bytes = n_bytes};
    if (!s->id || !s->data) {
        clear(s);
        return q2_fail_memory(err, n_bytes);
    }
    if (n_bytes > 0)
        memcpy(s->data, data, n_bytes);
    return 0;
}

int q2_secrets_add(struct q2_secrets *store, const char *id, const void *data,
                   size_t n_bytes, struct q2_error *err)
{
    assert(store);
    if (find(store, id))
        return q2_fail(err, -EEXIST,
                       "attempt to add duplicate property '%s' to object "
                       "(type 'container')",
                       id);
    struct q2_secret *list = reallocarray(store->list, store->n + 1, sizeof(*list));
    if (!list)
        return q2_fail_memory(err, (store->n + 1) * sizeof(*list));
    store->list = list;
    int ret = copy(id, data, n_bytes, &list[store->n], err);
    if (ret == 0)
        store->n++;
    return ret;
}

int q2_secrets_find(const struct q2_secrets *store, const char *id,
                    const struct q2_secret **out, struct q2_error *err)
{
    *out = find(store, id);
    return *out ? 0 : q2_fail(err, -ENOENT, "No secret with id '%s'", id);
}

int q2_secrets_find_text(const struct q2_secrets *store, const char *id,
                         const struct q2_secret **out, struct q2_error *err)
{
    int ret = q2_secrets_find(store, id, out, err);
    if (ret == 0 && !q2_utf8_valid((*out)->data, (*out)->n_bytes))
        ret = q2_fail(err, -EINVAL, "Data from secret %s is not valid UTF-8", id);
    return ret;
}

void q2_secrets_free(struct q2_secrets *store)
{
    if (!store)
        return;
    for (size_t i = 0; i < store->n; i++)
        clear(&store->list[i]);
    free(store->list);
    free(store);
}
