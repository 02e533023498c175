// SPDX-License-Identifier: MIT
// The program: finds the command, runs it, says what went wrong, and ends.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/command.h"
#include "cmd/complete.h"
#include "cmd/objects.h"
#include "cmd/options.h"
#include "cmd/output.h"
#include "cmd/signals.h"

static const struct q2_command *const commands[] = {
    &q2_cmd_amend,   &q2_cmd_bench,    &q2_cmd_bitmap,  &q2_cmd_check,  &q2_cmd_commit,
    &q2_cmd_compare, &q2_cmd_convert,  &q2_cmd_create,  &q2_cmd_dd,     &q2_cmd_info,
    &q2_cmd_io,      &q2_cmd_map,      &q2_cmd_measure, &q2_cmd_rebase, &q2_cmd_recover,
    &q2_cmd_resize,  &q2_cmd_snapshot, &q2_cmd_vet,
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct option long_options[] = {{"help", no_argument, NULL, 'h'},
                                             {"version", no_argument, NULL, 'V'},
                                             {"trace", required_argument, NULL, 'T'},
                                             {NULL, 0, NULL, 0}};

// What to end with if the command's output is lost.
static int lost_status = 1;

static void print_version(const char *program)
{
    if (!strcmp(program, "qemu-img"))
        printf("qemu-img version " Q2_QEMU_VERSION " (qcow2-tools " PACKAGE_VERSION
               ")\n");
    else
        printf("%s (qcow2-tools) " PACKAGE_VERSION "\n", program);
    printf("MIT License: free software, no warranty.\n");
}

// Scripts also take the version from the first line of the help, as QEMU's has it.
static void print_help(const char *program)
{
    if (!strcmp(program, "qemu-img"))
        print_version(program);
    printf("Usage: %s COMMAND [OPTION]...\n"
           "Work on qcow2 and raw disk images.\n\nCommands:\n",
           program);
    for (size_t i = 0; i < N_COMMANDS; i++)
        printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
    printf("\nOptions:\n"
           "  -h, --help      print this help; after a command: help on it\n"
           "  -V, --version   print the version\n\n"
           "Manual: man qcow2; when an image is damaged: man qcow2-repair\n"
           "Supported image formats: qcow2 raw\n");
}

static int flush_output(struct q2_error *err)
{
    bool lost = ferror(stdout) != 0; // a flush on the way failed: its reason is gone
    int code = fflush(stdout) ? -errno : 0;
    if (!lost && code == 0 && q2_output_incomplete())
        code = -ENOMEM;
    if (!lost && code == 0)
        return 0;
    return lost ? q2_fail(err, -EIO, "Could not write to standard output")
                : q2_fail_errno(err, code, "Could not write to standard output");
}

static void print_error(const char *program, const struct q2_error *err)
{
    if (err->message[0]) {
        fprintf(stderr, "%s: ", program);
        q2_output_text(stderr, err->message);
        putc('\n', stderr);
    }
    if (err->hint[0])
        fprintf(stderr, "%s%s", err->hint,
                err->hint[strlen(err->hint) - 1] == '\n' ? "" : "\n");
}

// What is left in stdout's buffer goes out first, so that the error is the last that is
// seen. That it was lost is told if there is nothing worse to tell.
static int finish(const char *program, int status, struct q2_error *err)
{
    struct q2_error lost = Q2_ERROR_INIT;
    if (flush_output(&lost) < 0 && !err->message[0]) {
        *err = lost;
        status = lost_status;
    }
    if (err->code == -ECANCELED && q2_signals_caught()) {
        fprintf(stderr, "%s: Stopped by signal %s\n", program,
                q2_signals_name(q2_signals_caught()));
        q2_signals_die(q2_signals_caught());
    }
    print_error(program, err);
    return status;
}

static int misuse(const char *program, struct q2_error *err, const char *what,
                  const char *which)
{
    q2_fail(err, -EINVAL, "%s%s", what, which);
    q2_hint(err, "Try '%s --help' for more information", program);
    return 1;
}

static int run_line(struct q2_command_line *line, struct q2_error *err)
{
    q2_signals_setup();
    q2_objects_setup(line->program);
    if (line->command->writes)
        q2_signals_catch();
    if (line->command->lost_status)
        lost_status = line->command->lost_status;
    int status = line->command->run(line, err);
    q2_objects_clear();
    return status;
}

static int run_completion(int argc, char **argv)
{
    const struct q2_program all = {commands, N_COMMANDS, long_options};
    return q2_complete(&all, argc, argv);
}

static int run_command(const char *program, int argc, char **argv, struct q2_error *err)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[0], commands[i]->name) != 0)
            continue;
        struct q2_command_line line = {
            .program = program, .command = commands[i], .argc = argc, .argv = argv};
        return run_line(&line, err);
    }
    if (!strcmp(argv[0], Q2_COMPLETE_COMMAND))
        return run_completion(argc, argv);
    return misuse(program, err, "Command not found: ", argv[0]);
}

// By the name of qemu-io the program is that command alone.
static int run_io(const char *program, int argc, char **argv, struct q2_error *err)
{
    struct q2_command_line line = {.program = program,
                                   .command = &q2_cmd_io,
                                   .alone = true,
                                   .argc = argc,
                                   .argv = argv};
    return run_line(&line, err);
}

static int run(const char *program, int argc, char **argv, struct q2_error *err)
{
    argv[0] = (char *)program; // getopt's messages begin with it
    if (!strcmp(program, "qemu-io"))
        return run_io(program, argc, argv, err);
    int c;
    while ((c = getopt_long(argc, argv, "+hVT:", long_options, NULL)) == 'T')
        fprintf(stderr, "%s: warning: trace events are QEMU's: '%s' is ignored\n",
                program, optarg);
    if (c == 'h')
        print_help(program);
    else if (c == 'V')
        print_version(program);
    if (c == 'h' || c == 'V')
        return 0;
    if (c != -1) {
        misuse(program, err, "", "");
        return 1;
    }
    if (optind >= argc)
        return misuse(program, err, "Not enough arguments", "");
    return run_command(program, argc - optind, argv + optind, err);
}

// An image that is opened as descriptor 1 would be given what is printed.
static void keep_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0)
            _exit(1);
}

int main(int argc, char **argv)
{
    static char buffer[1 << 16];
    static struct q2_error err = Q2_ERROR_INIT;
    if (argc < 1)
        return 1;
    keep_standard_descriptors();
    q2_output_setup();
    mallopt(M_ARENA_MAX, 2); // others reserve 64 MiB a thread, and callers set RLIMIT_AS
    setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
    const char *slash = strrchr(argv[0], '/');
    const char *program = slash ? slash + 1 : argv[0];
    return finish(program, run(program, argc, argv, &err), &err);
}
