// SPDX-License-Identifier: MIT
// io: finds the command of a line and runs it.
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/io.h"
#include "cmd/output.h"

static int run_help(struct q2_shell *shell, const struct q2_shell_command *self, int argc,
                    char **argv);
static int run_quit(struct q2_shell *shell, const struct q2_shell_command *self, int argc,
                    char **argv)
{
    (void)self;
    (void)argc;
    (void)argv;
    shell->quit = true;
    return 0;
}

static const struct q2_shell_command shell_commands[] = {
    {"help", "?", 0, 1, true, "[command]", "tell about one command or all", NULL,
     run_help},
    {"quit", "q", 0, -1, true, "", "end the program", NULL, run_quit},
    {.name = NULL},
};

static const struct q2_shell_command *const tables[] = {
    q2_shell_transfer_commands,
    q2_shell_disk_commands,
    q2_shell_open_commands,
    shell_commands,
};

#define N_TABLES (sizeof(tables) / sizeof(tables[0]))

static const struct q2_shell_command *find_command(const char *name)
{
    for (size_t i = 0; i < N_TABLES; i++)
        for (const struct q2_shell_command *c = tables[i]; c->name; c++)
            if (!strcmp(c->name, name) || (c->alias && !strcmp(c->alias, name)))
                return c;
    return NULL;
}

// The first command whose name comes behind last in the alphabet; NULL: none.
static const struct q2_shell_command *next_command(const char *last)
{
    const struct q2_shell_command *next = NULL;
    for (size_t i = 0; i < N_TABLES; i++)
        for (const struct q2_shell_command *c = tables[i]; c->name; c++)
            if (strcmp(c->name, last) > 0 && (!next || strcmp(c->name, next->name) < 0))
                next = c;
    return next;
}

static void print_usage(const struct q2_shell_command *c)
{
    printf("%s %s%s-- %s\n", c->name, c->args, c->args[0] ? " " : "", c->summary);
}

int q2_shell_usage(const struct q2_shell_command *c)
{
    print_usage(c);
    return -EINVAL;
}

static int run_help(struct q2_shell *shell, const struct q2_shell_command *self, int argc,
                    char **argv)
{
    (void)shell;
    (void)self;
    if (argc > 1) {
        const struct q2_shell_command *c = find_command(argv[1]);
        if (!c) {
            printf("command %s not found\n", argv[1]);
            return -EINVAL;
        }
        print_usage(c);
        if (c->help)
            printf("\n%s\n", c->help);
        return 0;
    }
    for (const struct q2_shell_command *c = next_command(""); c;
         c = next_command(c->name))
        print_usage(c);
    printf("\nUse 'help commandname' for extended help.\n");
    return 0;
}

void q2_shell_print_error(const struct q2_shell *shell, const struct q2_error *err)
{
    fprintf(stderr, "%s: ", shell->program);
    q2_output_text(stderr, err->message);
    fprintf(stderr, "\n%s", err->hint);
    if (err->hint[0] && err->hint[strlen(err->hint) - 1] != '\n')
        putc('\n', stderr);
}

bool q2_shell_writable(const struct q2_shell *shell)
{
    if (!shell->mode.read_only)
        return true;
    fprintf(stderr, "%s: Block node is read-only\n", shell->program);
    return false;
}

static int check_count(const struct q2_shell_command *c, const char *called, int n)
{
    if (n >= c->min && (c->max < 0 || n <= c->max))
        return 0;
    fprintf(stderr, "bad argument count %d to %s, expected ", n, called);
    if (c->max < 0)
        fprintf(stderr, "at least %d arguments\n", c->min);
    else if (c->max == c->min)
        fprintf(stderr, "%d arguments\n", c->min);
    else
        fprintf(stderr, "between %d and %d arguments\n", c->min, c->max);
    return -EINVAL;
}

static int run_words(struct q2_shell *shell, int argc, char **argv)
{
    const struct q2_shell_command *c = find_command(argv[0]);
    if (!c) {
        fprintf(stderr, "command \"%s\" not found\n", argv[0]);
        return -EINVAL;
    }
    if (!c->without_disk && !shell->disk) {
        fprintf(stderr, "no file open, try 'help open'\n");
        return -EINVAL;
    }
    int rc = check_count(c, argv[0], argc - 1);
    optind = 0; // each command parses its options anew
    return rc ? rc : c->run(shell, c, argc, argv);
}

int q2_shell_run(struct q2_shell *shell, const char *line)
{
    char *copy = strdup(line);
    // Every second character may begin a word.
    char **words = calloc(strlen(line) / 2 + 2, sizeof(char *));
    int n = 0, rc = 0;
    if (!copy || !words) {
        fprintf(stderr, "%s: %s\n", shell->program, strerror(ENOMEM));
        rc = -ENOMEM;
    } else {
        char *rest = copy;
        for (char *word; (word = strsep(&rest, " "));)
            if (*word)
                words[n++] = word;
        if (n)
            rc = run_words(shell, n, words);
    }
    free(words);
    free(copy);
    // What was done is told before anything else happens: the next command may be a
    // crash.
    fflush(stdout);
    return rc;
}
