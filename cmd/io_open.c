// SPDX-License-Identifier: MIT
// io: the disk that is open.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/io.h"
#include "cmd/opening.h"
#include "ops/create.h"

// --- a disk whose changes are dropped ------------------------------------------------

// A new image on top of base (taken over on success). It has no name any more once it is
// there, and no header either: it goes with the process.
static int put_temporary(struct q2_disk **base, struct q2_error *err)
{
    const char *folder = getenv("TMPDIR");
    struct q2_create_options options = Q2_CREATE_DEFAULTS;
    const struct q2_file_options file = {.no_flush = true};
    struct q2_disk *d;
    char *path;
    bool made;
    if (asprintf(&path, "%s/qcow2.XXXXXX", folder && *folder ? folder : "/var/tmp") < 0)
        return q2_fail_memory(err, 0);
    int fd = mkstemp(path);
    if (fd < 0) {
        q2_fail_errno(err, -errno, "Could not create temporary file '%s'", path);
        free(path);
        return err->code;
    }
    options.size = (*base)->size;
    int rc = q2_create_open(path, &options, &file, NULL, &d, &made, err);
    unlink(path);
    close(fd);
    free(path);
    if (rc)
        return rc;
    d->backing = *base;
    *base = d;
    return 0;
}

// --- open and close ------------------------------------------------------------------

static int check_mode(const struct q2_shell_mode *mode, struct q2_error *err)
{
    if (mode->copy_on_read && mode->read_only)
        return q2_fail(err, -EINVAL, "Can't use copy-on-read on read-only device");
    if (mode->native_aio && !mode->direct)
        return q2_fail(err, -EINVAL,
                       "aio=native was specified, but it requires cache.direct=on, which "
                       "was not specified.");
    return 0;
}

static int open_disk(struct q2_shell *shell, struct q2_image_name *name,
                     const struct q2_shell_mode *mode, struct q2_error *err)
{
    struct q2_open_options options = {
        .writable = !mode->read_only && !mode->temporary,
        .unsafe_share = mode->shared,
        .beside_writer = true,
        .runtime = &name->runtime,
        .file = {.direct = mode->direct, .no_flush = mode->no_flush},
    };
    if (!name->discard_set)
        name->runtime.discard_unmap = mode->discard;
    int rc = check_mode(mode, err);
    if (!rc)
        rc = q2_open_image_name(name, &options, shell->monitor, &shell->disk, err);
    if (!rc && mode->temporary) {
        rc = put_temporary(&shell->disk, err);
        if (rc) {
            q2_disk_close(shell->disk);
            shell->disk = NULL;
        }
    }
    return rc;
}

static void warn_of_probing(const struct q2_shell *shell)
{
    if (!shell->mode.read_only)
        q2_warn_of_probing(shell->disk);
}

int q2_shell_cannot_open(const struct q2_shell *shell, const char *title,
                         struct q2_error *err)
{
    if (title)
        q2_context(err, "can't open device %s", title);
    else
        q2_context(err, "can't open");
    q2_shell_print_error(shell, err);
    return err->code;
}

int q2_shell_open(struct q2_shell *shell, const char *title, struct q2_image_name *name,
                  const struct q2_shell_mode *mode)
{
    struct q2_error err = Q2_ERROR_INIT;
    if (shell->disk) {
        fprintf(stderr, "%s: file open already, try 'help close'\n", shell->program);
        q2_image_name_clear(name);
        return -EEXIST;
    }
    int rc = open_disk(shell, name, mode, &err);
    if (rc) {
        q2_image_name_clear(name);
        return q2_shell_cannot_open(shell, title, &err);
    }
    shell->name = *name;
    shell->mode = *mode;
    *name = (struct q2_image_name){.path = NULL};
    warn_of_probing(shell);
    return 0;
}

// Ends the work with the disk alone; its name is kept.
static int close_disk(struct q2_shell *shell)
{
    struct q2_error err = Q2_ERROR_INIT;
    int rc = 0;
    if (shell->disk && !shell->mode.read_only && !shell->mode.temporary)
        rc = q2_disk_finish(shell->disk, &err);
    if (rc)
        q2_shell_print_error(shell, &err);
    q2_disk_close(shell->disk);
    shell->disk = NULL;
    return rc;
}

int q2_shell_reopen(struct q2_shell *shell, const struct q2_image_name *name,
                    const struct q2_shell_mode *mode)
{
    struct q2_error err = Q2_ERROR_INIT;
    const struct q2_image_name old_name = shell->name;
    const struct q2_shell_mode old_mode = shell->mode;
    int rc = shell->mode.temporary ? 0 : close_disk(shell);
    shell->name = *name;
    shell->mode = *mode;
    if (rc || shell->disk)
        return rc;
    rc = open_disk(shell, &shell->name, &shell->mode, &err);
    if (!rc)
        return 0;
    q2_shell_print_error(shell, &err);
    shell->name = old_name;
    shell->mode = old_mode;
    return open_disk(shell, &shell->name, &shell->mode, &err) ? err.code : rc;
}

int q2_shell_close(struct q2_shell *shell)
{
    int rc = close_disk(shell);
    q2_image_name_clear(&shell->name);
    return rc;
}
