// SPDX-License-Identifier: MIT
// io: the values that say how a disk is opened.
#include <errno.h>
#include <string.h>

#include "cmd/io.h"
#include "cmd/options.h"

int q2_shell_mode_cache(struct q2_shell_mode *mode, const char *value,
                        struct q2_error *err)
{
    struct q2_file_options options = {.direct = false};
    int rc = q2_value_cache(value, false, &options, err);
    if (rc)
        return rc;
    mode->direct = options.direct;
    mode->no_flush = options.no_flush;
    mode->write_back = !options.sync_writes;
    return 0;
}

int q2_shell_mode_discard(struct q2_shell_mode *mode, const char *value,
                          struct q2_error *err)
{
    mode->discard = !strcmp(value, "unmap") || !strcmp(value, "on");
    if (!mode->discard && strcmp(value, "ignore") != 0 && strcmp(value, "off") != 0)
        return q2_fail(err, -EINVAL, "Invalid discard option: %s", value);
    return 0;
}

int q2_shell_mode_aio(struct q2_shell_mode *mode, const char *value, struct q2_error *err)
{
    mode->native_aio = !strcmp(value, "native");
    if (!mode->native_aio && strcmp(value, "threads") != 0 &&
        strcmp(value, "io_uring") != 0)
        return q2_fail(err, -EINVAL, "Invalid aio option: %s", value);
    return 0;
}
