// SPDX-License-Identifier: MIT
// Target: what users write: names of images, lists of options, sizes, paths. The first
// byte chooses who reads it. Nothing that is named is opened.
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "cmd/create_options.h"
#include "cmd/image_opts.h"
#include "cmd/objects.h"
#include "cmd/options.h"
#include "image/path.h"
#include "tests/fuzz/fuzz.h"

static void read_name(const char *text, bool image_opts)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image_name name;
    char *title = NULL;
    if (q2_image_name_parse(text, image_opts, "file", NULL, &name, &err) == 0) {
        q2_image_name_check(&name, "qcow2", 65536, &err);
        q2_image_name_title(&name, "qcow2", &title, &err);
        free(title);
        q2_image_name_title(&name, "raw", &title, &err);
        free(title);
    }
    q2_image_name_clear(&name);
}

static void try_list(const char *text)
{
    read_name(text, true);
}

static void try_json(const char *text)
{
    char *named = malloc(strlen(text) + 6);
    if (!named)
        fuzz_give_up("no memory");
    strcpy(named, "json:");
    strcat(named, text);
    read_name(named, false);
    free(named);
}

static void new_image(const char *text, struct q2_new_image *image)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_create_options o;
    char *lists = NULL;
    int ret = q2_option_list_append(&lists, text, &err);
    if (ret == 0 && !q2_option_list_asks_help(lists))
        ret = q2_new_image_parse(image, lists, &err);
    if (ret == 0) {
        q2_new_image_print(image, "image");
        if (q2_new_image_resolve(image, &o, &err) == 0)
            q2_create_validate(&o, &err);
    }
    q2_new_image_clear(image);
    free(lists);
}

static void try_create(const char *text)
{
    struct q2_new_image image = {.format = "qcow2"};
    new_image(text, &image);
}

static void try_measure(const char *text)
{
    struct q2_new_image image = {.format = "qcow2", .measures = true, .copied = true};
    new_image(text, &image);
}

static void try_amend(const char *text)
{
    struct q2_new_image image = {.format = "qcow2", .amends = true};
    struct q2_error err = Q2_ERROR_INIT;
    q2_new_image_parse(&image, text, &err);
    q2_new_image_clear(&image);
}

static void try_size(const char *text)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_file_options file = {.writable = false};
    char shown[Q2_SIZE_TEXT_MAX];
    uint64_t value;
    bool on;
    if (q2_value_size("size", text, &value, &err) == 0)
        q2_size_format(value, shown);
    q2_value_number("number", text, 1, 1000, &value, &err);
    q2_value_parameter_size("size", text, &value, &err);
    q2_value_parameter_switch("switch", text, &on, &err);
    q2_value_cache(text, true, &file, &err);
}

static void try_path(const char *text)
{
    struct q2_error err = Q2_ERROR_INIT;
    const char *plain;
    char *path = NULL;
    q2_path_plain(text, &plain, &err);
    if (q2_backing_path("folder/overlay", text, &path, &err) == 0)
        free(path);
    if (q2_backing_path(text, "base", &path, &err) == 0)
        free(path);
}

// Secrets that are files would be read.
static void try_object(const char *text)
{
    struct q2_error err = Q2_ERROR_INIT;
    bool help;
    if (!strstr(text, "file") && !strchr(text, '\\'))
        q2_object_take(text, &help, &err);
    q2_objects_clear();
}

void fuzz_target_options(const uint8_t *data, size_t n_bytes)
{
    static void (*const readers[])(const char *) = {
        try_json,  try_list, try_create, try_measure,
        try_amend, try_size, try_path,   try_object,
    };
    if (n_bytes == 0)
        return;
    char *text = malloc(n_bytes);
    if (!text)
        fuzz_give_up("no memory");
    memcpy(text, data + 1, n_bytes - 1);
    text[n_bytes - 1] = '\0';
    // A digit, so that seeds can be written by hand.
    readers[data[0] % (sizeof(readers) / sizeof(readers[0]))](text);
    free(text);
}
