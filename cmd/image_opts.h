// SPDX-License-Identifier: MIT
// How the command line names an image: a path, file:PATH, json:{...}, or with
// --image-opts KEY=VALUE,... Names out of an image never come here.
#ifndef Q2_CMD_IMAGE_OPTS_H
#define Q2_CMD_IMAGE_OPTS_H

#include "cmd/image_pairs.h"
#include "image/runtime.h"

// A part of the file, or of such a part.
struct q2_named_part {
    struct q2_pair offset, size; // values owned; NULL: not given
    char *title;                 // what it is called: json:{...}; owned
};

struct q2_image_name {
    bool plain;   // nothing but a path was given
    char *path;   // owned; NULL: of a backing file: what the image names
    char *format; // owned; NULL: to be probed
    struct q2_runtime runtime;
    char *encrypt_format, *encrypt_key_secret; // owned; runtime points at them
    // Of runtime.windows, as given.
    struct q2_named_part parts[Q2_MAX_WINDOWS];
    bool is_part; // the last of them is the disk itself, a raw one; else it lies over it
    char *only_qcow2; // an option given that is qcow2's alone; owned, NULL: none
    bool discard_set; // runtime.discard_unmap was given
    enum q2_tristate read_only, force_share, direct, no_flush;
    bool native_aio;
    uint64_t l2_entry_size; // 0: not given; to be checked once the image is open
    // Owned; in place of what the image names.
    struct q2_image_name *backing, *data_file;
    char *backing_option; // owned; the first that is for a backing file; NULL: none
};

// What the words of the command line mean. format is -f's, NULL: none; it is refused
// beside image_opts. implied: see q2_pairs_add_list. The caller clears out, also after a
// failure.
int q2_image_name_parse(const char *text, bool image_opts, const char *implied,
                        const char *format, struct q2_image_name *out,
                        struct q2_error *err);

void q2_image_name_clear(struct q2_image_name *name);

// What the image must be for these options: known once its format and clusters are.
int q2_image_name_check(const struct q2_image_name *name, const char *format,
                        uint64_t cluster_size, struct q2_error *err);

int q2_image_name_set_path(struct q2_image_name *name, const char *path,
                           struct q2_error *err);
int q2_image_name_set_format(struct q2_image_name *name, const char *format,
                             struct q2_error *err);

// --- image_part.c --------------------------------------------------------------------

// A raw driver over what the name has so far: takes the part that it is.
int q2_image_name_add_part(struct q2_image_name *name, struct q2_pairs *pairs,
                           const char *prefix, struct q2_error *err);
// The same for a raw disk: without a part it is the whole.
int q2_image_name_take_part(struct q2_image_name *name, struct q2_pairs *pairs,
                            const char *prefix, struct q2_error *err);
// Whether it is less than all of its file.
bool q2_image_name_is_cut(const struct q2_image_name *name);
// What the image of that format is called where its file's name alone would not open it:
// a passphrase or a part of the file is in its name then. *title (malloced) is NULL where
// the file's name does.
int q2_image_name_title(const struct q2_image_name *name, const char *format,
                        char **title, struct q2_error *err);

// --- image_node.c --------------------------------------------------------------------

// What options that are pairs mean.
int q2_image_name_resolve(struct q2_pairs *pairs, struct q2_image_name *out,
                          struct q2_error *err);

// --- image_runtime.c: the options of all formats, and of qcow2 -----------------------

// Takes them from the pairs that begin with prefix; what is not among them stays as it
// is in out.
int q2_image_take_common(struct q2_pairs *pairs, const char *prefix,
                         struct q2_image_name *out, struct q2_error *err);
int q2_image_take_qcow2(struct q2_pairs *pairs, const char *prefix,
                        struct q2_image_name *out, struct q2_error *err);
// What unlocks it. prefix ends with "encrypt.".
int q2_image_take_encryption(struct q2_pairs *pairs, const char *prefix,
                             struct q2_image_name *out, struct q2_error *err);
// A switch: on, yes, true, y; off, no, false, n. Left as it is where there is no such
// pair.
int q2_image_take_switch(struct q2_pairs *pairs, const char *prefix, const char *key,
                         enum q2_tristate *out, struct q2_error *err);

#endif
