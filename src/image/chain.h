// SPDX-License-Identifier: MIT
// Layers of a backing chain, found by name.
#ifndef Q2_IMAGE_CHAIN_H
#define Q2_IMAGE_CHAIN_H

#include "image/disk.h"

// True if a layer (top or below), or its external data file, is the file or device that
// path names.
bool q2_chain_has_file(const struct q2_disk *top, const char *path);

// The backing file of some layer, named as that layer's own header would name it: a
// relative name starts from that layer's folder. NULL: no backing file is called so.
struct q2_disk *q2_chain_find_backing(struct q2_disk *top, const char *name);

// The layer whose backing file is layer; NULL: none.
struct q2_disk *q2_chain_overlay_of(struct q2_disk *top, const struct q2_disk *layer);

#endif
