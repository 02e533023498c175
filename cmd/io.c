// SPDX-License-Identifier: MIT
// io: its options, and where its commands come from.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/io.h"
#include "cmd/options.h"
#include "cmd/progress.h"

enum { OPTION_IGNORED = Q2_OPTION_FIRST_OWN };

static const struct q2_option io_options[] = {
    {"cmd", "c", "COMMAND", 'c', "Commands", "run it; may be given again"},
    Q2_ROW_FORMAT,
    Q2_ROW_IMAGE_OPTS,
    {"read-only", "r", NULL, 'r', "Image", "open for reading only"},
    {"snapshot", "s", NULL, 's', "Image", "changes go to a temporary image"},
    {"copy-on-read", "C", NULL, 'C', "Image", "keep what the backing file gave"},
    {"nocache", "n", NULL, 'n', "Image", "as -t none"},
    {"cache", "t", "MODE", 't', "Image", "cache mode (default: writethrough)"},
    {"discard", "d", "MODE", 'd', "Image", "unmap (default) or ignore"},
    {"aio", "i", "MODE", 'i', "Image", "threads, native, io_uring: no difference"},
    {"native-aio", "k", NULL, 'k', "Image", "as -i native"},
    {"misalign", "m", NULL, OPTION_IGNORED, "Image", "of no effect"},
    {"trace", "T", "SPEC", OPTION_IGNORED, "Other", "of no effect"},
    Q2_ROW_OBJECT,
    Q2_ROW_SHARE,
    {"version", "V", NULL, 'V', "Other", "print the version"},
    Q2_ROW_END,
};

struct settings {
    const struct q2_common_options *common;
    struct q2_shell_mode mode;
    const char **commands;
    size_t n_commands;
    bool version;
};

static int add_command(struct settings *s, const char *text, struct q2_error *err)
{
    const char **list = realloc(s->commands, (s->n_commands + 1) * sizeof(*list));
    if (!list)
        return q2_fail_memory(err, (s->n_commands + 1) * sizeof(*list));
    s->commands = list;
    list[s->n_commands++] = text;
    return 0;
}

static bool *flag_setting(struct settings *s, int code)
{
    switch (code) {
    case 'r':
        return &s->mode.read_only;
    case 's':
        return &s->mode.temporary;
    case 'C':
        return &s->mode.copy_on_read;
    case 'k':
        return &s->mode.native_aio;
    case 'V':
        return &s->version;
    }
    return NULL;
}

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    bool *flag = flag_setting(s, code);
    if (flag)
        *flag = true;
    switch (code) {
    case 'c':
        return add_command(s, value, err);
    case 'n':
        return q2_shell_mode_cache(&s->mode, "none", err);
    case 't':
        return q2_shell_mode_cache(&s->mode, value, err);
    case 'd':
        return q2_shell_mode_discard(&s->mode, value, err);
    case 'i':
        return q2_shell_mode_aio(&s->mode, value, err);
    }
    return 0;
}

// All commands are run, whatever becomes of those before.
static int run_given(struct q2_shell *shell, const struct settings *s)
{
    int rc = 0;
    for (size_t i = 0; i < s->n_commands && !shell->quit; i++) {
        int one = q2_shell_run(shell, s->commands[i]);
        rc = rc ? rc : one;
    }
    return rc;
}

static int run_lines(struct q2_shell *shell, const char *prompt)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    int rc = 0;
    while (!shell->quit) {
        printf("%s> ", prompt);
        fflush(stdout);
        n = getline(&line, &room, stdin);
        if (n < 0 && !feof(stdin)) {
            fprintf(stderr, "%s: Could not read from standard input: %s\n",
                    shell->program, strerror(errno));
            rc = -EIO;
        }
        if (n <= 0)
            break;
        if (line[n - 1] == '\n')
            line[n - 1] = '\0';
        int one = q2_shell_run(shell, line);
        rc = rc ? rc : one;
    }
    free(line);
    return rc;
}

static int open_given(struct q2_shell *shell, const struct settings *s, const char *text)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image_name name;
    const struct q2_common_options *c = s->common;
    const char *title = c->image_opts ? NULL : text;
    if (!q2_image_name_parse(text, c->image_opts, NULL, c->format, &name, &err))
        return q2_shell_open(shell, title, &name, &s->mode);
    q2_image_name_clear(&name);
    return q2_shell_cannot_open(shell, title, &err);
}

static int run_shell(const struct q2_command_line *line, const struct settings *s)
{
    struct q2_progress progress;
    char prompt[256];
    q2_progress_start(&progress, line, false, 1);
    struct q2_shell shell = {.program = line->program, .monitor = &progress.monitor};
    snprintf(prompt, sizeof(prompt), "%s%s", line->program, line->alone ? "" : " io");
    int rc = line->n_operands ? open_given(&shell, s, line->operands[0]) : 0;
    if (rc)
        return 1;
    rc = s->n_commands ? run_given(&shell, s) : run_lines(&shell, prompt);
    int closed = q2_shell_close(&shell);
    return rc || closed;
}

static int check_usage(const struct q2_command_line *line, const struct settings *s,
                       struct q2_error *err)
{
    if (line->n_operands > 1)
        return q2_options_misuse(line, err, "Expecting one image file name");
    if (s->common->image_opts && s->common->format)
        return q2_fail(err, -EINVAL, "--image-opts and -f are mutually exclusive");
    return 0;
}

// By its other name it has the version whose language this is.
static void print_version(const struct q2_command_line *line)
{
    if (line->alone)
        printf("qemu-io version " Q2_QEMU_VERSION " (qcow2-tools " PACKAGE_VERSION ")\n");
    else
        printf("%s io (qcow2-tools) " PACKAGE_VERSION "\n", line->program);
}

static int io_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.common = &line->common, .mode = Q2_SHELL_MODE_DEFAULTS};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc && !s.version)
        rc = check_usage(line, &s, err);
    int status = rc < 0;
    s.mode.shared = line->common.shared;
    if (!rc && s.version)
        print_version(line);
    else if (!rc)
        status = run_shell(line, &s);
    free(s.commands);
    return status;
}

const struct q2_command q2_cmd_io = {
    .name = "io",
    .summary = "Read and write disks by hand, in qemu-io's language",
    .operands = "[FILE]",
    .options = io_options,
    .examples = {"io -c 'write -P 0x11 0 1M' disk.qcow2",
                 "io -r -c 'read -v 0 512' -c map disk.qcow2"},
    .run = io_run,
};
