// SPDX-License-Identifier: MIT
// io: the commands open, close and reopen.
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cmd/io.h"

static int run_close(struct q2_shell *shell, const struct q2_shell_command *self,
                     int argc, char **argv)
{
    (void)self;
    (void)argc;
    (void)argv;
    return q2_shell_close(shell);
}

// --- open ----------------------------------------------------------------------------

struct opening {
    struct q2_shell_mode mode;
    struct q2_pairs pairs;
};

// 1: no such option.
static int take_letter(struct opening *o, int letter, struct q2_error *err)
{
    switch (letter) {
    case 's':
        o->mode.temporary = true;
        return 0;
    case 'n':
        return q2_shell_mode_cache(&o->mode, "none", err);
    case 'r':
        o->mode.read_only = true;
        return 0;
    case 'C':
        o->mode.copy_on_read = true;
        return 0;
    case 'U':
        o->mode.shared = true;
        return 0;
    case 'k':
        o->mode.native_aio = true;
        return 0;
    case 't':
        return q2_shell_mode_cache(&o->mode, optarg, err);
    case 'd':
        return q2_shell_mode_discard(&o->mode, optarg, err);
    case 'i':
        return q2_shell_mode_aio(&o->mode, optarg, err);
    case 'o':
        return q2_pairs_add_list(&o->pairs, optarg, NULL, err);
    }
    return 1;
}

// The path and the options of -o together are the name.
static int resolve_name(struct opening *o, const char *path, struct q2_image_name *name,
                        struct q2_error *err)
{
    int rc = 0;
    *name = (struct q2_image_name){.path = NULL};
    if (path && !o->pairs.n)
        return q2_image_name_parse(path, false, NULL, NULL, name, err);
    if (path && q2_pairs_take(&o->pairs, "file.", "filename"))
        return q2_fail(err, -EINVAL,
                       "Can't specify 'file' and 'filename' options at the same time");
    if (path && !strncmp(path, "json:", 5))
        rc = q2_pairs_add_json(&o->pairs, path + 5, err);
    else if (path)
        rc = q2_pairs_add(&o->pairs, "file.filename",
                          strncmp(path, "file:", 5) ? path : path + 5, err);
    return rc ? rc : q2_image_name_resolve(&o->pairs, name, err);
}

static int open_with(struct q2_shell *shell, const struct q2_shell_command *self,
                     struct opening *o, int argc, char **argv)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image_name name;
    int letter, rc = 0;
    while (!rc && (letter = getopt(argc, argv, "snCro:ki:t:d:U")) != -1)
        rc = take_letter(o, letter, &err);
    if (rc > 0 || (!rc && optind < argc - 1))
        return q2_shell_usage(self);
    const char *path = optind < argc ? argv[optind] : NULL;
    if (rc) {
        q2_shell_print_error(shell, &err);
        return rc;
    }
    rc = resolve_name(o, path, &name, &err);
    if (!rc)
        return q2_shell_open(shell, path, &name, &o->mode);
    q2_image_name_clear(&name);
    return q2_shell_cannot_open(shell, path, &err);
}

static int run_open(struct q2_shell *shell, const struct q2_shell_command *self, int argc,
                    char **argv)
{
    struct opening o = {.mode = Q2_SHELL_MODE_DEFAULTS};
    int rc = open_with(shell, self, &o, argc, argv);
    q2_pairs_clear(&o.pairs);
    return rc;
}

// --- reopen --------------------------------------------------------------------------

static int complain(const struct q2_shell *shell, const char *what, const char *which)
{
    struct q2_error err = Q2_ERROR_INIT;
    q2_fail(&err, -EINVAL, what, which);
    q2_shell_print_error(shell, &err);
    return -EINVAL;
}

struct reopening {
    struct q2_image_name name; // of what is open, changed
    struct q2_shell_mode mode;
    struct q2_pairs pairs;
    bool has_access; // -r or -w
};

static int take_reopen_letter(struct q2_shell *shell, struct reopening *r, int letter)
{
    struct q2_error err = Q2_ERROR_INIT;
    int rc = 0;
    if (letter == 'r' || letter == 'w') {
        if (r->has_access)
            return complain(shell, "Only one -r/-w option may be given%s", "");
        r->has_access = true;
        r->mode.read_only = letter == 'r';
        r->name.read_only = Q2_UNSET;
    } else if (letter == 'c') {
        rc = q2_shell_mode_cache(&r->mode, optarg, &err);
    } else if (letter == 'o') {
        rc = q2_pairs_add_list(&r->pairs, optarg, NULL, &err);
    } else {
        return 1;
    }
    if (rc)
        q2_shell_print_error(shell, &err);
    return rc;
}

// What stays as it is while a disk is open.
static int refuse_fixed(const struct q2_shell *shell, struct q2_pairs *pairs)
{
    static const char *const fixed[] = {"node-name", "force-share"};
    const struct q2_pair *driver = q2_pairs_take(pairs, "", "driver");
    if (driver &&
        (!driver->value || strcmp(driver->value, shell->disk->ops->format) != 0))
        return complain(shell, "Cannot change the option '%s'", "driver");
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        if (q2_pairs_take(pairs, "", fixed[i]))
            return complain(shell, "Cannot change the option '%s'", fixed[i]);
    return 0;
}

// Options that may change while a disk is open.
static int take_changes(struct q2_shell *shell, struct reopening *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    r->name.read_only = Q2_UNSET;
    if (refuse_fixed(shell, &r->pairs))
        return -EINVAL;
    // The key is there already, and stays, whatever is said of passphrases.
    q2_pairs_take(&r->pairs, "encrypt.", "key-secret");
    int rc = q2_image_take_common(&r->pairs, "", &r->name, &err);
    if (!rc && !strcmp(shell->disk->ops->format, "qcow2"))
        rc = q2_image_take_qcow2(&r->pairs, "", &r->name, &err);
    if (rc) {
        q2_shell_print_error(shell, &err);
        return rc;
    }
    const char *left = q2_pairs_unused(&r->pairs, "");
    if (left)
        return complain(shell, "Cannot change the option '%s'", left);
    if (r->name.read_only != Q2_UNSET && r->has_access)
        return complain(shell, "Cannot set both -r/-w and '%s'", "read-only");
    if (r->name.read_only != Q2_UNSET)
        r->mode.read_only = r->name.read_only == Q2_ON;
    r->name.read_only = Q2_UNSET;
    return 0;
}

static int reopen_with(struct q2_shell *shell, const struct q2_shell_command *self,
                       struct reopening *r, int argc, char **argv)
{
    int letter, rc = 0;
    while (!rc && (letter = getopt(argc, argv, "c:o:rw")) != -1)
        rc = take_reopen_letter(shell, r, letter);
    if (rc > 0 || (!rc && optind != argc))
        return q2_shell_usage(self);
    if (!rc)
        rc = take_changes(shell, r);
    return rc ? rc : q2_shell_reopen(shell, &r->name, &r->mode);
}

static int run_reopen(struct q2_shell *shell, const struct q2_shell_command *self,
                      int argc, char **argv)
{
    struct reopening r = {.name = shell->name, .mode = shell->mode};
    int rc = reopen_with(shell, self, &r, argc, argv);
    q2_pairs_clear(&r.pairs);
    return rc;
}

const struct q2_shell_command q2_shell_open_commands[] = {
    {"open", "o", 1, -1, true, "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
     "open a disk",
     " -r  for reading only\n"
     " -s  on top of it a temporary image, which all changes go to\n"
     " -C  keep in the image what was read from its backing file\n"
     " -n  past the page cache, as -t none\n"
     " -U  beside a program that has it open for writing\n"
     " -k  as -i native\n"
     " -i  threads, native or io_uring: no difference here\n"
     " -t  cache mode (writethrough)\n"
     " -d  unmap (default) or ignore: what becomes of discards\n"
     " -o  options of the image, as with --image-opts\n",
     run_open},
    {"close", "c", 0, 0, false, "", "close the open disk", NULL, run_close},
    {"reopen", NULL, 0, -1, false, "[(-r|-w)] [-c cache] [-o options]",
     "change how the disk is open",
     " -r  for reading only\n"
     " -w  for writing\n"
     " -c  cache mode\n"
     " -o  options of the image, as with --image-opts\n",
     run_reopen},
    {.name = NULL},
};
