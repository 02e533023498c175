// SPDX-License-Identifier: MIT
// The options that many commands share.
#include "cmd/objects.h"
#include "cmd/options.h"

static bool *flag_of(struct q2_common_options *c, int code)
{
    switch (code) {
    case Q2_OPTION_IMAGE_OPTS:
        return &c->image_opts;
    case Q2_OPTION_SHARE:
        return &c->shared;
    case Q2_OPTION_PROGRESS:
        return &c->progress;
    case Q2_OPTION_QUIET:
        return &c->quiet;
    }
    return NULL;
}

static const char **text_of(struct q2_common_options *c, int code)
{
    switch (code) {
    case Q2_OPTION_FORMAT:
        return &c->format;
    case Q2_OPTION_CACHE:
        return &c->cache;
    case Q2_OPTION_SOURCE_CACHE:
        return &c->source_cache;
    }
    return NULL;
}

static int take_object(struct q2_command_line *line, const char *value,
                       struct q2_error *err)
{
    bool help;
    line->bad_object = q2_object_take(value, &help, err) != 0;
    return line->bad_object ? err->code : help;
}

int q2_common_take(struct q2_command_line *line, int code, const char *value, bool *taken,
                   struct q2_error *err)
{
    bool *flag = flag_of(&line->common, code);
    const char **text = text_of(&line->common, code);
    *taken = true;
    if (flag)
        *flag = true;
    else if (text)
        *text = value;
    else if (code == Q2_OPTION_OUTPUT)
        return q2_value_output(line, value, &line->common.json, err);
    else if (code == Q2_OPTION_OBJECT)
        return take_object(line, value, err);
    else
        *taken = false;
    return 0;
}
