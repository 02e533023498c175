// SPDX-License-Identifier: MIT
// Command lines: getopt's arrays and the help text, both from a command's table.
#include "cmd/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"

#define MAX_OPTIONS 64
#define HELP_COLUMN 29
#define HELP_WIDTH 79
#define NAME_SIZE 256

// What getopt returns for the row i, so that two rows may share a code.
#define ROW_BASE 1024

struct getopt_arrays {
    struct option long_options[MAX_OPTIONS + 2];
    char letters[3 * MAX_OPTIONS];
};

// The name in "--NAME" or "--NAME=VALUE"; its length is 0 where a word is neither.
static size_t long_name(const char *word, const char **name)
{
    bool is_long = word[0] == '-' && word[1] == '-';
    *name = is_long ? word + 2 : "";
    return strcspn(*name, "=");
}

static bool begins(const char *name, const char *part, size_t n)
{
    return strncmp(name, part, n) == 0;
}

// Whether the n bytes at name abbreviate an option of QEMU's.
static bool means_theirs(const struct q2_option *rows, const char *name, size_t n)
{
    for (; rows->name; rows++)
        if (!(rows->code & Q2_OPTION_OURS) && begins(rows->name, name, n))
            return true;
    return begins("help", name, n);
}

// An option of ours steps aside where a word may be short for it or for one of QEMU's,
// unless another word spells it out.
static bool steps_aside(const struct q2_command_line *line, const struct q2_option *row)
{
    bool aside = false;
    for (int i = 1; (row->code & Q2_OPTION_OURS) && i < line->argc; i++) {
        const char *name;
        size_t n = long_name(line->argv[i], &name);
        if (n == 0 || !begins(row->name, name, n))
            continue;
        if (n == strlen(row->name))
            return false;
        aside = aside || means_theirs(line->command->options, name, n);
    }
    return aside;
}

static void build_arrays(const struct q2_command_line *line, struct getopt_arrays *arrays)
{
    const struct q2_option *rows = line->command->options;
    struct option *o = arrays->long_options;
    char *p = arrays->letters;
    *p++ = 'h';
    *o++ = (struct option){"help", no_argument, NULL, 'h'};
    for (int i = 0; i < MAX_OPTIONS && rows[i].name; i++) {
        int has_arg = rows[i].argument ? required_argument : no_argument;
        if (!steps_aside(line, &rows[i]))
            *o++ = (struct option){rows[i].name, has_arg, NULL, ROW_BASE + i};
        for (const char *letter = rows[i].letters; *letter; letter++) {
            *p++ = *letter;
            if (has_arg == required_argument)
                *p++ = ':';
        }
    }
    *o = (struct option){NULL, 0, NULL, 0};
    *p = '\0';
}

static const struct q2_option *find_row(const struct q2_option *rows, int c)
{
    if (c >= ROW_BASE)
        return &rows[c - ROW_BASE];
    for (; rows->name; rows++)
        if (strchr(rows->letters, c))
            return rows;
    return NULL;
}

// What was called: "qcow2 info", or "qemu-io".
static void format_called(const struct q2_command_line *line, char name[NAME_SIZE])
{
    snprintf(name, NAME_SIZE, "%s%s%s", line->program, line->alone ? "" : " ",
             line->alone ? "" : line->command->name);
}

static int try_help(const struct q2_command_line *line, struct q2_error *err)
{
    char name[NAME_SIZE];
    format_called(line, name);
    return q2_hint(err, "Try '%s --help' for more information", name);
}

int q2_options_misuse(const struct q2_command_line *line, struct q2_error *err,
                      const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    q2_fail(err, -EINVAL, "%s", text);
    return try_help(line, err);
}

static int handle_one(struct q2_command_line *line, int c, q2_option_handler handle,
                      struct q2_error *err)
{
    const struct q2_option *row = c == '?' ? NULL : find_row(line->command->options, c);
    bool taken;
    if (!row) { // getopt has said why
        q2_fail(err, -EINVAL, "%s", "");
        return try_help(line, err);
    }
    int code = row->code & ~Q2_OPTION_OURS;
    int rc = q2_common_take(line, code, optarg, &taken, err);
    if (code == Q2_OPTION_OBJECT) // other processes see the command line
        q2_secret_wipe(optarg, strlen(optarg));
    return rc || taken ? rc : handle(line, code, optarg, err);
}

int q2_options_parse(struct q2_command_line *line, q2_option_handler handle,
                     struct q2_error *err)
{
    struct getopt_arrays arrays = {.letters = ""};
    char name[NAME_SIZE];
    int c;

    build_arrays(line, &arrays);
    // getopt begins its messages with argv[0].
    format_called(line, name);
    line->argv[0] = name;
    optind = 0;
    int rc = 0;
    while (!rc && (c = getopt_long(line->argc, line->argv, arrays.letters,
                                   arrays.long_options, NULL)) != -1) {
        if (c == 'h') {
            q2_options_print_help(line);
            rc = 1;
        } else {
            rc = handle_one(line, c, handle, err);
        }
    }
    line->argv[0] = (char *)line->command->name;
    line->n_operands = line->argc - optind;
    line->operands = line->argv + optind;
    return rc;
}

int q2_options_one_image(const struct q2_command_line *line, struct q2_error *err)
{
    if (line->n_operands != 1)
        return q2_options_misuse(line, err, "Expecting one image file name");
    return 0;
}

static void print_row(const struct q2_option *row)
{
    char left[64];
    snprintf(left, sizeof(left), "  %c%c%s --%s%s%s", row->letters[0] ? '-' : ' ',
             row->letters[0] ? row->letters[0] : ' ', row->letters[0] ? "," : " ",
             row->name, row->argument ? " " : "", row->argument ? row->argument : "");
    printf("%-*s  %s\n", HELP_COLUMN, left, row->help);
}

// Rows of a group need not be neighbours: the first of each prints them all.
static bool group_begins(const struct q2_option *rows, const struct q2_option *row)
{
    for (; rows < row; rows++)
        if (rows->help && !strcmp(rows->group, row->group))
            return false;
    return true;
}

static void print_group(const struct q2_option *first)
{
    printf("\n%s:\n", first->group);
    for (const struct q2_option *row = first; row->name; row++)
        if (row->help && !strcmp(row->group, first->group))
            print_row(row);
}

// The operands, on as many lines as they need.
static void print_usage(const struct q2_command *command, const char *name)
{
    int indent = printf("Usage: %s [OPTION]...", name), column = indent;
    size_t n;
    for (const char *words = command->operands; *words; words += n + (words[n] == ' ')) {
        n = strcspn(words, " ");
        if (column + 1 + (int)n > HELP_WIDTH)
            column = printf("\n%*s", indent, "") - 1;
        column += printf(" %.*s", (int)n, words);
    }
    printf("\n       %s --help, man qcow2-%s\n", name, command->name);
}

void q2_options_print_help(const struct q2_command_line *line)
{
    const struct q2_command *command = line->command;
    char name[NAME_SIZE];
    format_called(line, name);
    print_usage(command, name);
    printf("%s.\n", command->summary);
    for (const struct q2_option *row = command->options; row->name; row++)
        if (row->help && group_begins(command->options, row))
            print_group(row);
    printf("\nExamples:\n");
    // An example begins with the command's name.
    for (int i = 0; i < 2; i++)
        printf("  %s%s\n", name, command->examples[i] + strlen(command->name));
}
