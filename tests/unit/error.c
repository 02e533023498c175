// SPDX-License-Identifier: MIT
// Errors: message, context, hint, and texts longer than there is room.
#include "base/error.h"

#include <errno.h>

#include "test.h"

static void plain(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    is_int(err.code, 0, "starts without an error");
    is_str(err.message, "", "starts without a message");

    is_int(q2_fail(&err, -EINVAL, "entry %d of %s", 7, "x"), -EINVAL, "returns the code");
    is_int(err.code, -EINVAL, "keeps the code");
    is_str(err.message, "entry 7 of x", "formats the message");

    is_int(q2_hint(&err, "Try %s", "y"), -EINVAL, "hint returns the code");
    is_str(err.hint, "Try y", "keeps the hint");
    is_int(q2_context(&err, "snapshot '%s'", "z"), -EINVAL, "context returns the code");
    is_str(err.message, "snapshot 'z': entry 7 of x", "context stands before");
    is_str(err.hint, "Try y", "context keeps the hint");

    q2_fail(&err, -EIO, "other");
    is_str(err.message, "other", "a new error replaces the message");
    is_str(err.hint, "", "a new error drops the hint");
}

static void of_the_system(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    is_int(q2_fail_errno(&err, -ENOENT, "Could not open '%s'", "f"), -ENOENT, "code");
    is_str(err.message, "Could not open 'f': No such file or directory", "text of errno");
    is_int(q2_fail_memory(&err, 12345), -ENOMEM, "memory: code");
    has_str(err.message, "12345", "memory: names the size");
}

static void own_text_as_argument(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    q2_fail(&err, -EINVAL, "inner");
    q2_fail(&err, -EIO, "outer (%s)", err.message);
    is_str(err.message, "outer (inner)", "its own message may be an argument");
    q2_context(&err, "%s", err.message);
    is_str(err.message, "outer (inner): outer (inner)", "of context too");
}

static void too_long(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    size_t n = (size_t)Q2_ERROR_MESSAGE_MAX * 2;
    char *text = malloc(n + 1);
    if (!text)
        abort();
    memset(text, 'a', n);
    text[n] = '\0';

    q2_fail(&err, -EINVAL, "%s", text);
    is_u64(strlen(err.message), Q2_ERROR_MESSAGE_MAX - 1, "a long message is cut");
    q2_context(&err, "ctx");
    is_u64(strlen(err.message), Q2_ERROR_MESSAGE_MAX - 1, "and stays cut with a context");
    ok(strncmp(err.message, "ctx: aaa", 8) == 0, "which is there");

    q2_context(&err, "%s", text);
    is_u64(strlen(err.message), Q2_ERROR_MESSAGE_MAX - 1, "a long context is cut");
    has_str(err.message, "a: ", "with its separator");

    q2_fail_errno(&err, -ENOSPC, "%s", text);
    is_u64(strlen(err.message), Q2_ERROR_MESSAGE_MAX - 1, "with errno it is cut too");
    has_str(err.message, "a: No space left on device", "but the reason stays");

    q2_hint(&err, "%s", text);
    is_u64(strlen(err.hint), Q2_ERROR_HINT_MAX - 1, "a long hint is cut");
    free(text);
}

int main(void)
{
    plain();
    of_the_system();
    own_text_as_argument();
    too_long();
    return done_testing();
}
