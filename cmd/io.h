// SPDX-License-Identifier: MIT
// io: a small shell that reads and writes disks, with the command language of qemu-io.
#ifndef Q2_CMD_IO_H
#define Q2_CMD_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/monitor.h"
#include "cmd/image_opts.h"
#include "image/disk.h"

// The longest request: the last whole sector below 2 GiB.
#define Q2_SHELL_MAX_BYTES UINT64_C(2147483136)

// How a disk is, or is to be, opened.
struct q2_shell_mode {
    bool read_only, shared, copy_on_read, temporary; // temporary: changes are dropped
    bool discard;                                    // discards are carried out
    bool write_back; // else each write is followed by a flush
    bool direct, no_flush;
    bool native_aio; // only what goes with it is checked
};

#define Q2_SHELL_MODE_DEFAULTS \
    {                          \
        .discard = true        \
    }

struct q2_shell {
    const char *program;
    const struct q2_monitor *monitor;
    struct q2_disk *disk; // NULL: none is open
    struct q2_image_name name;
    struct q2_shell_mode mode;
    bool quit;
};

struct q2_shell_command {
    const char *name, *alias; // alias: NULL if none
    int min, max;             // arguments; max < 0: any number
    bool without_disk;        // makes sense while none is open
    const char *args;         // as the usage line shows them
    const char *summary;
    const char *help; // more of it; NULL: none
    // 0, or a negative code; the command has said why.
    int (*run)(struct q2_shell *shell, const struct q2_shell_command *self, int argc,
               char **argv);
};

// Each table ends with a row without a name.
extern const struct q2_shell_command q2_shell_transfer_commands[]; // io_transfer.c
extern const struct q2_shell_command q2_shell_disk_commands[];     // io_disk.c
extern const struct q2_shell_command q2_shell_open_commands[];     // io_open_commands.c

int q2_shell_read(struct q2_shell *shell, const struct q2_shell_command *self, int argc,
                  char **argv);
int q2_shell_write(struct q2_shell *shell, const struct q2_shell_command *self, int argc,
                   char **argv);

// --- io_shell.c ----------------------------------------------------------------------

// Runs one line. Returns 0 or a negative code; what went wrong has been said.
int q2_shell_run(struct q2_shell *shell, const char *line);

// Prints "NAME ARGS -- SUMMARY"; returns -EINVAL.
int q2_shell_usage(const struct q2_shell_command *command);

// "PROGRAM: message" and the hint on standard error.
void q2_shell_print_error(const struct q2_shell *shell, const struct q2_error *err);

// False, and said so, when the disk may not be written.
bool q2_shell_writable(const struct q2_shell *shell);

// --- io_open.c -----------------------------------------------------------------------

// Opens name (taken over, even on failure) as mode says, and keeps both in the shell.
// title is what messages call it; NULL: it has no name. Returns 0 or a negative code;
// what went wrong has been said.
int q2_shell_open(struct q2_shell *shell, const char *title, struct q2_image_name *name,
                  const struct q2_shell_mode *mode);

// "can't open device TITLE: why"; returns the code.
int q2_shell_cannot_open(const struct q2_shell *shell, const char *title,
                         struct q2_error *err);

// The same disk, with other options; name is the shell's own with changes. When that
// fails it is opened as it was.
int q2_shell_reopen(struct q2_shell *shell, const struct q2_image_name *name,
                    const struct q2_shell_mode *mode);

// Ends the work with the disk: flushes, marks it clean, closes.
int q2_shell_close(struct q2_shell *shell);

// --- io_mode.c: values of options -t, -d, -i -----------------------------------------

int q2_shell_mode_cache(struct q2_shell_mode *mode, const char *value,
                        struct q2_error *err);
int q2_shell_mode_discard(struct q2_shell_mode *mode, const char *value,
                          struct q2_error *err);
int q2_shell_mode_aio(struct q2_shell_mode *mode, const char *value,
                      struct q2_error *err);

// --- io_values.c ---------------------------------------------------------------------

// A size of the command line; says what is wrong with it.
bool q2_shell_size(const char *text, uint64_t *value);
// The length of a request; over tells what its limit is called.
bool q2_shell_length(const char *text, const char *over, uint64_t *value);
bool q2_shell_pattern(const char *text, uint8_t *pattern);
// The sum of the lengths of a request that is made of n pieces.
bool q2_shell_pieces(char *const *texts, int n, uint64_t *n_bytes);

#define Q2_SHELL_NUMBER_MAX 64
// "1 MiB", "2.875 MiB", "512 bytes".
void q2_shell_format_size(double value, char text[Q2_SHELL_NUMBER_MAX]);

// What a request has done, and how fast.
struct q2_shell_report {
    const char *done; // "read", "wrote", "discard"
    uint64_t offset, n_bytes;
    struct timespec started;
    bool quiet, terse;
};

void q2_shell_start(struct q2_shell_report *report);
void q2_shell_print_report(const struct q2_shell_report *report);

// True for a range of whole sectors; else says that it is none.
bool q2_shell_sectors(const struct q2_shell_report *report);

// A request that reaches behind the end of the disk: -EIO.
int q2_shell_check_range(const struct q2_disk *d, uint64_t offset, uint64_t n_bytes,
                         struct q2_error *err);

// "WHAT failed: why" on standard output, and where more is known than the code says,
// that on standard error. Returns the code.
int q2_shell_failed(const struct q2_shell *shell, const char *what,
                    const struct q2_error *err);

#endif
