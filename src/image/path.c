// SPDX-License-Identifier: MIT
// Names of files, as users and images write them.
#include "image/path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// "proto:" in front of a name: a colon before the first slash.
static size_t protocol_length(const char *name)
{
    size_t n = strcspn(name, ":/");
    return name[n] == ':' ? n : 0;
}

int q2_path_plain(const char *name, const char **out, struct q2_error *err)
{
    size_t n = protocol_length(name);
    *out = name;
    if (n == 0)
        return 0;
    if (n == 4 && strncmp(name, "file", 4) == 0) {
        *out = name + 5;
        return 0;
    }
    return q2_fail(err, -EINVAL, "Unknown protocol '%.*s'", (int)n, name);
}

int q2_backing_path(const char *overlay_path, const char *backing_name, char **out,
                    struct q2_error *err)
{
    const char *name;
    int ret = q2_path_plain(backing_name, &name, err);
    if (ret < 0)
        return ret;
    const char *slash = strrchr(overlay_path, '/');
    size_t n_dir = name == backing_name && name[0] != '/' && slash
                       ? (size_t)(slash - overlay_path) + 1
                       : 0;
    if (name != backing_name && protocol_length(name) > 0) {
        // What is left of "file:a:b" would be taken for another protocol.
        overlay_path = "./";
        n_dir = 2;
    }
    size_t n_name = strlen(name) + 1;
    char *path = malloc(n_dir + n_name);
    if (!path)
        return q2_fail_memory(err, n_dir + n_name);
    memcpy(path, overlay_path, n_dir);
    memcpy(path + n_dir, name, n_name);
    *out = path;
    return 0;
}
