// SPDX-License-Identifier: MIT
// Shell completion: what of the command line is what, and which word is asked for.
#include "cmd/complete.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/utf8.h"
#include "cmd/options.h"

// An image on a server that is gone must not hold up somebody's shell for ever.
#define MAX_SECONDS 10

static bool is_control(const unsigned char *p)
{
    // Some terminals obey those behind U+0080, too.
    return *p < ' ' || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0);
}

// A text that a shell, and the terminal behind it, can only take as it is meant.
static bool is_printable(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    for (size_t n; *p; p += n) {
        n = q2_utf8_sequence(p);
        if (!n || is_control(p))
            return false;
    }
    return true;
}

void q2_complete_begin(const struct q2_completion *c, const char *kind,
                       size_t prefix_bytes)
{
    printf("%s\t%.*s\n", kind, (int)prefix_bytes, c->word);
}

void q2_complete_offer(const char *value, const char *description)
{
    if (*value && is_printable(value) && is_printable(description))
        printf("%s\t%s\n", value, description);
}

static bool is_first_name(const struct q2_choice *list, const struct q2_choice *choice)
{
    while (list < choice && list->value != choice->value)
        list++;
    return list == choice;
}

void q2_complete_list(const struct q2_completion *c, const struct q2_choice *list,
                      size_t start)
{
    q2_complete_begin(c, "words", start);
    for (const struct q2_choice *choice = list; choice->name; choice++)
        if (is_first_name(list, choice))
            q2_complete_offer(choice->name, "");
}

// --- options -------------------------------------------------------------------------

const char *q2_completion_value(const struct q2_completion *c, const char *option)
{
    const struct q2_option *rows = c->command->options;
    for (size_t i = 0; i < Q2_COMPLETE_MAX && rows[i].name; i++)
        if (!strcmp(rows[i].name, option))
            return c->values[i];
    return NULL;
}

const char *q2_completion_letter(const struct q2_completion *c, char letter)
{
    const struct q2_option *rows = c->command->options;
    for (size_t i = 0; i < Q2_COMPLETE_MAX && rows[i].name; i++)
        if (strchr(rows[i].letters, letter))
            return c->values[i];
    return NULL;
}

// The row that "NAME", or its beginning, is; NULL: none.
static const struct q2_option *find_long(const struct q2_option *rows, const char *name,
                                         size_t n)
{
    const struct q2_option *found = NULL;
    for (; rows->name; rows++) {
        if (strncmp(rows->name, name, n) != 0)
            continue;
        if (strlen(rows->name) == n)
            return rows;
        found = found ? found : rows;
    }
    return found;
}

static const struct q2_option *find_letter(const struct q2_option *rows, char letter)
{
    for (; rows->name; rows++)
        if (letter && strchr(rows->letters, letter))
            return rows;
    return NULL;
}

// An option in a word: its row, and where in the word its value begins.
struct found {
    const struct q2_option *row; // NULL: none that is known
    const char *value;           // NULL: the word has none
};

static void note(struct q2_completion *c, const struct q2_option *row, const char *value)
{
    c->values[row - c->command->options] = value;
    if ((row->code & ~Q2_OPTION_OURS) == Q2_OPTION_OBJECT &&
        c->n_objects < Q2_COMPLETE_MAX)
        c->objects[c->n_objects++] = value;
}

// Letters that take no value may stand together; the last one may take one.
static struct found read_letters(struct q2_completion *c, const char *word)
{
    struct found f = {NULL, NULL};
    for (const char *p = word + 1; *p; p++) {
        f.row = find_letter(c->command->options, *p);
        if (f.row && f.row->argument) {
            f.value = p[1] ? p + 1 : NULL;
            break;
        }
        if (f.row)
            note(c, f.row, "");
    }
    return f;
}

static struct found read_option(struct q2_completion *c, const char *word)
{
    if (word[1] != '-')
        return read_letters(c, word);
    size_t n = strcspn(word + 2, "=");
    struct found f = {find_long(c->command->options, word + 2, n), NULL};
    if (f.row && f.row->argument && word[2 + n])
        f.value = word + 2 + n + 1;
    if (f.row && !f.row->argument)
        note(c, f.row, "");
    return f;
}

// --- the words -----------------------------------------------------------------------

struct reader {
    const struct q2_option *waiting; // an option whose value comes next
    bool no_more_options;            // behind "--"
};

static void read_word(struct q2_completion *c, struct reader *r, const char *word)
{
    if (r->waiting) {
        note(c, r->waiting, word);
        r->waiting = NULL;
    } else if (!r->no_more_options && !strcmp(word, "--")) {
        r->no_more_options = true;
    } else if (!r->no_more_options && word[0] == '-' && word[1]) {
        struct found f = read_option(c, word);
        if (f.row && f.row->argument && !f.value)
            r->waiting = f.row;
        else if (f.row && f.value)
            note(c, f.row, f.value);
    } else if (c->n_operands < Q2_COMPLETE_MAX) {
        c->operands[c->n_operands++] = word;
    }
}

static void offer_options(const struct q2_completion *c)
{
    bool is_long = !strncmp(c->word, "--", 2);
    q2_complete_begin(c, "words", 0);
    for (const struct q2_option *row = c->command->options; row->name; row++) {
        char name[64], letter[3] = {'-', row->letters[0], '\0'};
        snprintf(name, sizeof(name), "--%s", row->name);
        if (row->help)
            q2_complete_offer(name, row->help);
        if (row->help && row->letters[0] && !is_long)
            q2_complete_offer(letter, row->help);
    }
    q2_complete_offer("--help", "print help on the command");
}

static void offer(struct q2_completion *c, const struct reader *r)
{
    if (r->waiting) {
        q2_complete_value(c, r->waiting, 0);
    } else if (c->word[0] == '-' && !r->no_more_options) {
        struct found f = c->word[1] ? read_option(c, c->word) : (struct found){0};
        if (f.row && f.value)
            q2_complete_value(c, f.row, (size_t)(f.value - c->word));
        else if (!strchr(c->word, '='))
            offer_options(c);
    } else {
        q2_complete_operand(c);
    }
}

// What comes behind the cursor counts, too: the image may be there.
static void complete_command(const struct q2_command *command, int index, int n,
                             char **words)
{
    struct q2_completion c = {.command = command, .word = words[index]};
    struct reader before = {.waiting = NULL};
    for (int i = 0; i < index; i++)
        read_word(&c, &before, words[i]);
    struct reader after = {.no_more_options = before.no_more_options};
    c.operand = c.n_operands;
    for (int i = index + 1; i < n; i++)
        read_word(&c, &after, words[i]);
    offer(&c, &before);
}

// --- before the command --------------------------------------------------------------

static void offer_program(const struct q2_program *program, const char *word)
{
    struct q2_completion c = {.word = word};
    q2_complete_begin(&c, "words", 0);
    if (word[0] != '-')
        for (size_t i = 0; i < program->n_commands; i++)
            q2_complete_offer(program->commands[i]->name, program->commands[i]->summary);
    for (const struct option *o = program->options; o->name && word[0] == '-'; o++) {
        char name[64];
        snprintf(name, sizeof(name), "--%s", o->name);
        if (o->has_arg == no_argument)
            q2_complete_offer(name, "");
    }
}

static const struct q2_command *find_command(const struct q2_program *program,
                                             const char *name)
{
    for (size_t i = 0; i < program->n_commands; i++)
        if (!strcmp(program->commands[i]->name, name))
            return program->commands[i];
    return NULL;
}

int q2_complete(const struct q2_program *program, int argc, char **argv)
{
    char *end = NULL;
    long index = argc > 2 ? strtol(argv[1], &end, 10) : -1;
    char **words = argv + 2;
    if (index < 0 || index >= argc - 2 || *end || strpbrk(words[index], "\t\n"))
        return 1;
    alarm(MAX_SECONDS);
    int first = 0; // the command
    while (first < index && words[first][0] == '-')
        first++;
    const struct q2_command *command = find_command(program, words[first]);
    if (first == index)
        offer_program(program, words[first]);
    else if (command)
        complete_command(command, (int)index - first - 1, argc - 2 - first - 1,
                         words + first + 1);
    return 0;
}
