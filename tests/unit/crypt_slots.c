// SPDX-License-Identifier: MIT
// Key slots and a power cut: whatever of the writes has reached the file, a passphrase
// opens it, and the guest's data are there. And encrypted data from many threads.
#include "image/crypt_slots.h"

#include <pthread.h>

#include "base/checked.h"
#include "image/crypt.h"
#include "image/image.h"
#include "image/runtime.h"
#include "io/fault.h"
#include "io/memory.h"
#include "ops/create.h"
#include "test.h"

#define DISK_BYTES (UINT32_C(4) << 20)
#define CLUSTER_BITS 12U
#define MAX_RECORD (UINT32_C(16) << 20)

static struct q2_secrets *secrets;

static void must(int ret, const struct q2_error *err)
{
    if (ret >= 0)
        return;
    printf("Bail out! %s\n", err->message);
    exit(1);
}

static const struct q2_secret *secret(const char *id)
{
    struct q2_error err = Q2_ERROR_INIT;
    const struct q2_secret *s;
    must(q2_secrets_find_text(secrets, id, &s, &err), &err);
    return s;
}

// The shortest key, as it is derived many times over.
static const struct q2_crypt_options luks = {
    .format = "luks",
    .key_secret = "old",
    .names = {.cipher_alg = "aes-128", .cipher_mode = "cbc", .hash_alg = "sha1"},
    .set_iter_time = true};

// A new image in io, unlocked by "old".
static struct q2_image *make(struct q2_io *io, const struct q2_crypt_options *how)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_crypt_options o = *how;
    struct q2_header h = {.version = 3,
                          .cluster_bits = CLUSTER_BITS,
                          .size = DISK_BYTES,
                          .refcount_order = 4,
                          .header_length = Q2_HEADER_V3_BYTES};
    struct q2_image *img;
    o.secrets = secrets;
    must(q2_crypt_validate(&o, &err), &err);
    q2_crypt_announce(&o, &h);
    must(q2_image_new(io, &h, &img, &err), &err);
    must(q2_crypt_make(img, &o, &err), &err);
    return img;
}

static uint8_t content(uint64_t offset)
{
    return (uint8_t)(offset * 31 + (offset >> 12));
}

static void fill(uint8_t *buf, uint64_t offset, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf[i] = content(offset + i);
}

// Gives the image up without a word to its file.
static void drop(struct q2_image *img)
{
    img->disk.ops->release(&img->disk);
}

// Does the passphrase open what is in io, and is the data right?
static bool opens(struct q2_io *io, const char *id)
{
    struct q2_error err = Q2_ERROR_INIT;
    const struct q2_runtime r = {.secrets = secrets, .encrypt_key_secret = id};
    uint8_t want[8192], got[8192];
    struct q2_image *img;
    fill(want, 1000, sizeof(want));
    must(q2_image_open(io, false, false, &img, &err), &err);
    int ret = q2_crypt_unlock(img, &r, &err);
    if (ret == 0)
        must(q2_disk_read(&img->disk, 1000, got, sizeof(got), &err), &err);
    drop(img);
    return ret == 0 && memcmp(want, got, sizeof(got)) == 0;
}

// --- power cuts ----------------------------------------------------------------------

enum keep { NOTHING, EVERYTHING, ANYTHING, N_KEEPS };

struct choice {
    enum keep keep;
    uint64_t seed;
};

static bool keep_sector(void *opaque, size_t call, uint64_t sector)
{
    struct choice *c = opaque;
    (void)call;
    (void)sector;
    if (c->keep != ANYTHING)
        return c->keep == EVERYTHING;
    return test_random(&c->seed) & 1;
}

// In every state that a cut may leave one of the two opens the image; when everything is
// through, the first does.
static void cut(struct q2_io *fault, const char *now, const char *before,
                const char *name)
{
    struct q2_error err = Q2_ERROR_INIT;
    size_t n;
    unsigned n_bad = 0, n_states = 0;
    q2_fault_calls(fault, &n);
    for (size_t i = 0; i <= n; i++) {
        for (enum keep k = NOTHING; k < N_KEEPS; k++) {
            struct choice c = {.keep = k, .seed = i + 1};
            struct q2_io *state;
            must(q2_fault_state(fault, i, keep_sector, &c, &state, &err), &err);
            n_bad += !opens(state, before) && !opens(state, now);
            n_states++;
            q2_io_close(state);
        }
    }
    ok(n > 3 && n_bad == 0, "%s: %u states, %u of them locked for good", name, n_states,
       n_bad);
}

static void test_cuts(unsigned index)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *memory, *fault;
    uint8_t data[8192];
    must(q2_memory_open("disk", NULL, 0, &memory, &err), &err);
    must(q2_fault_open(memory, MAX_RECORD, &fault, &err), &err);
    struct q2_image *img = make(fault, &luks);
    fill(data, 1000, sizeof(data));
    must(q2_disk_write(&img->disk, 1000, data, sizeof(data), &err), &err);
    must(q2_create_publish(&img->disk, &err), &err);
    ok(opens(fault, "old"), "made");
    ok(!opens(fault, "new"), "and locked");

    q2_fault_forget(fault);
    must(q2_slot_put(img, index, secret("new"), 0, &err), &err);
    cut(fault, "new", "old", index == 0 ? "the only slot replaced" : "a slot added");
    ok(opens(fault, "new"), "the new passphrase");
    is_int(opens(fault, "old"), index != 0, "the old one");
    unsigned n_active = 0;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        n_active += img->crypt->luks.slots[i].active;
    is_u64(n_active, index == 0 ? 1 : 2, "active slots");

    if (index != 0) {
        q2_fault_forget(fault);
        must(q2_slot_erase(img, 0, &err), &err);
        cut(fault, "new", "new", "the other slot erased");
        ok(!opens(fault, "old"), "which is gone");
    }
    drop(img);
    q2_io_close(fault);
    q2_io_close(memory);
}

// The key material that a slot had is not in the file any more.
static void test_erased(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *memory;
    uint8_t before[512], after[512], slot[Q2_LUKS_SLOT_BYTES], zeros[36] = {0};
    must(q2_memory_open("disk", NULL, 0, &memory, &err), &err);
    struct q2_image *img = make(memory, &luks);
    uint64_t header = img->header.crypto_header_offset;
    uint64_t at = header + img->crypt->luks.slots[0].key_offset_sectors * 512;
    must(q2_io_read(memory, at, before, 512, &err), &err);
    must(q2_slot_erase(img, 0, &err), &err);
    must(q2_io_read(memory, at, after, 512, &err), &err);
    must(q2_io_read(memory, header + Q2_LUKS_SLOTS_AT, slot, sizeof(slot), &err), &err);
    unsigned n_same = 0;
    for (unsigned i = 0; i < 512; i++)
        n_same += before[i] == after[i];
    ok(n_same < 32, "material overwritten (%u bytes are the same)", n_same);
    ok(memcmp(slot, "\0\0\xde\xad", 4) == 0, "the slot is inactive");
    ok(memcmp(slot + 4, zeros, sizeof(zeros)) == 0, "without iterations and salt");
    drop(img);
    q2_io_close(memory);
}

// --- threads -------------------------------------------------------------------------

#define N_THREADS 4U
#define PART (DISK_BYTES / N_THREADS)

struct job {
    struct q2_disk *d;
    uint64_t start;
    bool good;
};

// Writes of odd lengths, so that sectors at their ends are read, and read back.
static void *work(void *opaque)
{
    struct job *j = opaque;
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t buf[20000], want[20000];
    size_t n;
    j->good = true;
    for (uint64_t at = 0; at < PART && j->good; at += n) {
        n = 1 + (size_t)(at * 7919 % sizeof(buf));
        n = (size_t)q2_min_u64(n, PART - at);
        fill(buf, j->start + at, n);
        j->good = q2_disk_write(j->d, j->start + at, buf, n, &err) == 0;
    }
    for (uint64_t at = 0; at < PART && j->good; at += n) {
        n = 1 + (size_t)(at * 104729 % sizeof(buf));
        n = (size_t)q2_min_u64(n, PART - at);
        fill(want, j->start + at, n);
        j->good = q2_disk_read(j->d, j->start + at, buf, n, &err) == 0 &&
                  memcmp(buf, want, n) == 0;
    }
    return NULL;
}

static void test_threads(const char *format)
{
    const struct q2_crypt_options how = {
        .format = format, .key_secret = "old", .set_iter_time = format[0] == 'l'};
    struct q2_error err = Q2_ERROR_INIT;
    struct job jobs[N_THREADS];
    pthread_t threads[N_THREADS];
    struct q2_io *memory;
    must(q2_memory_open("disk", NULL, 0, &memory, &err), &err);
    struct q2_image *img = make(memory, &how);
    for (unsigned i = 0; i < N_THREADS; i++) {
        jobs[i] = (struct job){.d = &img->disk, .start = (uint64_t)i * PART};
        if (pthread_create(&threads[i], NULL, work, &jobs[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        ok(jobs[i].good, "%s: thread %u reads what it wrote", format, i);
    }
    must(q2_create_publish(&img->disk, &err), &err);
    drop(img);
    ok(opens(memory, "old"), "%s: so does the next one", format);
    q2_io_close(memory);
}

int main(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    must(q2_secrets_new(&secrets, &err), &err);
    must(q2_secrets_add(secrets, "old", "old", 3, &err), &err);
    must(q2_secrets_add(secrets, "new", "new", 3, &err), &err);
    test_cuts(0);
    test_cuts(6);
    test_erased();
    test_threads("luks");
    test_threads("aes");
    q2_secrets_free(secrets);
    return done_testing();
}
