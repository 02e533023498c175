// SPDX-License-Identifier: MIT
// Passphrases come and go: which key slots are meant is found out first, with all that
// speaks against it; then they are written one by one, each in an order that a power cut
// survives.
#include "ops/amend_steps.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "image/crypt_slots.h"
#include "image/overlap.h"

#define SLOT(i) (1U << (i))
#define ALL_SLOTS (SLOT(Q2_LUKS_SLOTS) - 1)

static bool is_adding(const struct q2_amend_keys *k)
{
    return strcmp(k->state, "active") == 0;
}

static unsigned active_slots(const struct q2_luks_header *h)
{
    unsigned slots = 0;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        slots |= h->slots[i].active ? SLOT(i) : 0;
    return slots;
}

static int check_keyslot(const struct q2_amend_keys *k, struct q2_error *err)
{
    if (!k->set_keyslot || (k->keyslot >= 0 && k->keyslot < Q2_LUKS_SLOTS))
        return 0;
    return q2_fail(err, -EINVAL,
                   "Invalid keyslot %" PRId64 " specified, must be between 0 and %u",
                   k->keyslot, Q2_LUKS_SLOTS - 1);
}

// --- a new passphrase ----------------------------------------------------------------

static int check_adding(const struct q2_amend_keys *k, struct q2_error *err)
{
    if (!k->new_secret)
        return q2_fail(err, -EINVAL, "'new-secret' is required to activate a keyslot");
    if (k->old_secret)
        return q2_fail(err, -EINVAL,
                       "'old-secret' must not be given when activating keyslots");
    return check_keyslot(k, err);
}

static int choose_slot(const struct q2_luks_header *h, const struct q2_amend_keys *k,
                       unsigned *slots, struct q2_error *err)
{
    unsigned index = 0;
    while (index < Q2_LUKS_SLOTS && h->slots[index].active)
        index++;
    if (k->set_keyslot)
        index = (unsigned)k->keyslot;
    if (index == Q2_LUKS_SLOTS)
        return q2_fail(err, -ENOSPC, "Can't add a keyslot - all keyslots are in use");
    if (!k->force && h->slots[index].active)
        return q2_fail(err, -EEXIST,
                       "Refusing to overwrite active keyslot %u - please erase it first",
                       index);
    *slots = SLOT(index);
    return 0;
}

static int judge_adding(const struct q2_image *img, const struct q2_amend_keys *k,
                        unsigned *slots, struct q2_error *err)
{
    const struct q2_secret *passphrase;
    int ret = check_adding(k, err);
    if (ret == 0)
        ret = choose_slot(&img->crypt->luks, k, slots, err);
    return ret < 0 ? ret
                   : q2_secrets_find_text(k->secrets, k->new_secret, &passphrase, err);
}

// --- erasing -------------------------------------------------------------------------

static int check_erasing(const struct q2_amend_keys *k, struct q2_error *err)
{
    const char *extra = k->new_secret      ? "new-secret"
                        : k->set_iter_time ? "iter-time"
                                           : NULL;
    return extra ? q2_fail(err, -EINVAL, "'%s' must not be given when erasing keyslots",
                           extra)
                 : 0;
}

// Leaves those of the slots that the passphrase opens.
static int keep_matching(struct q2_image *img, const struct q2_secret *passphrase,
                         unsigned *slots, struct q2_error *err)
{
    const struct q2_crypt *c = img->crypt;
    uint8_t *key = q2_secret_alloc(c->suite.key_bytes);
    int ret = key ? 0 : q2_fail_memory(err, c->suite.key_bytes);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS && ret == 0; i++) {
        bool matches = false;
        if (*slots & SLOT(i))
            ret =
                q2_slot_try(img, &c->luks, &c->suite, i, passphrase, key, &matches, err);
        if (!matches)
            *slots &= ~SLOT(i);
    }
    q2_secret_free(key);
    return ret;
}

static int refuse_one(const struct q2_luks_header *h, const struct q2_amend_keys *k,
                      struct q2_error *err)
{
    unsigned index = (unsigned)k->keyslot;
    if (!h->slots[index].active)
        return q2_fail(err, -EINVAL, "Given keyslot %u is already erased (inactive) ",
                       index);
    if (active_slots(h) == SLOT(index))
        return q2_fail(err, -EINVAL,
                       "Attempt to erase the only active keyslot %u which will erase all "
                       "the data in the image irreversibly - refusing operation",
                       index);
    return 0;
}

static int judge_erasing_one(const struct q2_image *img, const struct q2_amend_keys *k,
                             unsigned matching, unsigned *slots, struct q2_error *err)
{
    *slots = SLOT(k->keyslot);
    if (!(matching & *slots))
        return q2_fail(err, -EINVAL,
                       "Given keyslot %" PRId64
                       " doesn't contain the given old password for erase operation",
                       k->keyslot);
    return k->force ? 0 : refuse_one(&img->crypt->luks, k, err);
}

static int judge_erasing_all(const struct q2_image *img, const struct q2_amend_keys *k,
                             unsigned matching, unsigned *slots, struct q2_error *err)
{
    *slots = matching;
    if (matching == 0)
        return q2_fail(err, -EINVAL,
                       "No keyslots match given (old) password for erase operation");
    if (!k->force && matching == active_slots(&img->crypt->luks))
        return q2_fail(err, -EINVAL,
                       "All the active keyslots match the (old) password that was given "
                       "and erasing them will erase all the data in the image "
                       "irreversibly - refusing operation");
    return 0;
}

static int judge_erasing(struct q2_image *img, const struct q2_amend_keys *k,
                         unsigned *slots, struct q2_error *err)
{
    const struct q2_secret *passphrase = NULL;
    unsigned matching = ALL_SLOTS;
    int ret = check_erasing(k, err);
    if (ret == 0 && k->old_secret)
        ret = q2_secrets_find_text(k->secrets, k->old_secret, &passphrase, err);
    if (ret == 0)
        ret = check_keyslot(k, err);
    if (ret < 0)
        return ret;
    if (k->set_keyslot)
        matching = SLOT(k->keyslot);
    if (passphrase)
        ret = keep_matching(img, passphrase, &matching, err);
    if (ret < 0)
        return ret;
    if (k->set_keyslot)
        return judge_erasing_one(img, k, matching, slots, err);
    if (passphrase)
        return judge_erasing_all(img, k, matching, slots, err);
    return q2_fail(err, -EINVAL,
                   "To erase keyslot(s), either explicit keyslot index or the password "
                   "currently contained in them must be given");
}

// -------------------------------------------------------------------------------------

static int check_state(const struct q2_amend_keys *k, struct q2_error *err)
{
    if (!k->state)
        return q2_fail(err, -EINVAL, "Parameter 'state' is missing");
    if (!is_adding(k) && strcmp(k->state, "inactive") != 0)
        return q2_fail(err, -EINVAL, "Parameter 'state' does not accept value '%s'",
                       k->state);
    return 0;
}

static int check_image(struct q2_image *img, struct q2_error *err)
{
    const struct q2_header *h = &img->header;
    if (h->crypt_method == Q2_CRYPT_NONE)
        return q2_fail(err, -EINVAL,
                       "Can't amend encryption options - encryption not present");
    if (h->crypt_method != Q2_CRYPT_LUKS)
        return q2_fail(err, -ENOTSUP, "Only LUKS encryption options can be amended");
    if (!img->crypt)
        return q2_fail(err, -EINVAL,
                       "Parameter 'encrypt.key-secret' is required for cipher");
    return q2_overlap_check(img, Q2_OVERLAP_LUKS_HEADER, h->crypto_header_offset,
                            h->crypto_header_length, err);
}

int q2_amend_judge_keys(struct q2_image *img, const struct q2_amend_keys *k,
                        unsigned *slots, struct q2_error *err)
{
    int ret = check_image(img, err);
    if (ret == 0)
        ret = check_state(k, err);
    if (ret < 0)
        return ret;
    return is_adding(k) ? judge_adding(img, k, slots, err)
                        : judge_erasing(img, k, slots, err);
}

static int put(struct q2_image *img, const struct q2_amend_keys *k, unsigned index,
               struct q2_error *err)
{
    const struct q2_secret *passphrase;
    uint64_t iter_time = k->set_iter_time ? k->iter_time : Q2_CRYPT_ITER_TIME;
    int ret = q2_secrets_find_text(k->secrets, k->new_secret, &passphrase, err);
    if (ret == 0)
        ret = q2_slot_put(img, index, passphrase, iter_time, err);
    return ret < 0 ? q2_hint(err, "Failed to write to keyslot %u", index) : 0;
}

int q2_amend_change_keys(struct q2_image *img, const struct q2_amend_keys *k,
                         unsigned slots, struct q2_error *err)
{
    int ret = 0;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS && ret == 0; i++) {
        if (!(slots & SLOT(i)))
            continue;
        ret = is_adding(k) ? put(img, k, i, err) : q2_slot_erase(img, i, err);
    }
    return ret;
}
