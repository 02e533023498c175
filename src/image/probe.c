// SPDX-License-Identifier: MIT
// Telling formats by their first bytes.
#include "image/probe.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/checked.h"
#include "disk/header.h"

#define PROBE_BYTES 2048U

static const struct magic {
    const char *format;
    size_t offset, n_bytes;
    const char *bytes;
} magics[] = {
    {"qcow", 0, 8, "QFI\xfb\0\0\0\1"},
    {"qed", 0, 4, "QED\0"},
    {"vmdk", 0, 4, "KDMV"},
    {"vmdk", 0, 4, "COWD"},
    {"vmdk", 0, 21, "# Disk DescriptorFile"},
    {"vdi", 64, 4, "\x7f\x10\xda\xbe"},
    {"vhdx", 0, 8, "vhdxfile"},
    {"vpc", 0, 8, "conectix"},
    {"parallels", 0, 16, "WithoutFreeSpace"},
    {"parallels", 0, 16, "WithouFreSpacExt"},
    {"luks", 0, 8, "LUKS\xba\xbe\0\1"},
    {"bochs", 0, 32, "Bochs Virtual HD Image\0\0\0\0\0\0\0\0\0\0"},
};

const char *q2_probe_magic(const void *buf, size_t n_bytes)
{
    if (q2_header_probe(buf, n_bytes))
        return "qcow2";
    for (size_t i = 0; i < sizeof(magics) / sizeof(magics[0]); i++) {
        const struct magic *m = &magics[i];
        if (n_bytes >= m->offset + m->n_bytes &&
            memcmp((const uint8_t *)buf + m->offset, m->bytes, m->n_bytes) == 0)
            return m->format;
    }
    return NULL;
}

bool q2_format_known(const char *name)
{
    return strcmp(name, "raw") == 0 || strcmp(name, "qcow2") == 0;
}

int q2_probe(struct q2_io *io, const char **format, struct q2_error *err)
{
    uint8_t buf[PROBE_BYTES];
    uint64_t size;
    int ret = q2_io_get_size(io, &size, err);
    size_t n = ret < 0 ? 0 : (size_t)q2_min_u64(size, sizeof(buf));
    if (ret == 0)
        ret = q2_io_read(io, 0, buf, n, err);
    if (ret < 0)
        return q2_context(err, "Could not read image for determining its format");
    const char *found = q2_probe_magic(buf, n);
    *format = found ? found : "raw";
    if (q2_format_known(*format))
        return 0;
    return q2_fail(err, -ENOTSUP,
                   "The file looks like a %s image, a format that this program does not "
                   "read (name the format raw to take its bytes as they are)",
                   found);
}
