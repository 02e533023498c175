// SPDX-License-Identifier: MIT
// io: the values that say how a disk is opened.
#include <errno.h>
#include <string.h>

#include "cmd/choices.h"
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
    const struct q2_choice *c = q2_choice_find(q2_choices_discard, value);
    if (!c)
        return q2_fail(err, -EINVAL, "Invalid discard option: %s", value);
    mode->discard = c->value;
    return 0;
}

int q2_shell_mode_aio(struct q2_shell_mode *mode, const char *value, struct q2_error *err)
{
    const struct q2_choice *c = q2_choice_find(q2_choices_aio, value);
    if (!c)
        return q2_fail(err, -EINVAL, "Invalid aio option: %s", value);
    mode->native_aio = c->value == Q2_AIO_NATIVE;
    return 0;
}
