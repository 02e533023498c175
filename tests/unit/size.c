// SPDX-License-Identifier: MIT
// Sizes: what qemu-img takes and prints.
#include "base/size.h"

#include <errno.h>

#include "test.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)
#define EIB (GIB * GIB)

static const struct parse_case {
    const char *text;
    int ret;
    uint64_t value;
} parse_cases[] = {
    {"0", 0, 0},
    {"00", 0, 0},
    {"512", 0, 512},
    {"010", 0, 10},
    {" 1M", 0, MIB},
    {"+1M", 0, MIB},
    {"1b", 0, 1},
    {"1B", 0, 1},
    {"1k", 0, KIB},
    {"1K", 0, KIB},
    {"64M", 0, 64 * MIB},
    {"2g", 0, 2 * GIB},
    {"1T", 0, 1024 * GIB},
    {"1p", 0, 1024 * 1024 * GIB},
    {"7E", 0, 7 * EIB},
    {"8E", 0, 8 * EIB},
    {"15E", 0, 15 * EIB},
    {"16E", -ERANGE, 0},
    {"18446744073709551615", 0, UINT64_MAX},
    {"18446744073709551616", -ERANGE, 0},
    {"99999999999999999999", -ERANGE, 0},
    {"15.99999999999999999999E", -ERANGE, 0},
    {"1.5k", 0, 1536},
    {"1.5G", 0, GIB + GIB / 2},
    {"1.1k", 0, 1126},
    {"1.9999k", 0, 2048},
    {"12.345M", 0, 12944671},
    {"0.5k", 0, 512},
    {".5k", 0, 512},
    {"1.k", 0, KIB},
    {"1.", 0, 1},
    {"1.0", 0, 1},
    {"1.0b", 0, 1},
    {"0.0001k", 0, 0},
    {"1.0000000000000000000000001k", 0, KIB},
    {"1.5e", 0, EIB + EIB / 2},
    {"0x10", 0, 16},
    {"0X1F", 0, 31},
    {"0x1b", 0, 27},
    {"0x1e", 0, 30},
    {"0xffffffffffffffff", 0, UINT64_MAX},
    {"0x10000000000000000", -ERANGE, 0},
    {"0x10k", -EINVAL, 0},
    {"0x1.8", -EINVAL, 0},
    {"0x", -EINVAL, 0},
    {"1.5", -EINVAL, 0},
    {"1.5b", -EINVAL, 0},
    {"0.1", -EINVAL, 0},
    {"1.00000000000000000000000001", -EINVAL, 0},
    {"1e3", -EINVAL, 0},
    {"1.5e3k", -EINVAL, 0},
    {"1kb", -EINVAL, 0},
    {"1 M", -EINVAL, 0},
    {"12X", -EINVAL, 0},
    {"64M+", -EINVAL, 0},
    {"-1", -EINVAL, 0},
    {"-0", -EINVAL, 0},
    {"", -EINVAL, 0},
    {" ", -EINVAL, 0},
    {".", -EINVAL, 0},
    {"k", -EINVAL, 0},
    {"inf", -EINVAL, 0},
    {"99999999999999999999x", -EINVAL, 0},
};

static void parse(void)
{
    for (size_t i = 0; i < sizeof(parse_cases) / sizeof(parse_cases[0]); i++) {
        const struct parse_case *c = &parse_cases[i];
        uint64_t value = 42;
        is_int(q2_size_parse(c->text, 1, NULL, &value), c->ret, "parse '%s'", c->text);
        is_u64(value, c->ret == 0 ? c->value : 42, "value of '%s'", c->text);
    }
}

static void parse_unit(void)
{
    uint64_t value;
    is_int(q2_size_parse("3", 1024, NULL, &value), 0, "a number in KiB");
    is_u64(value, 3072, "is taken times 1024");
    is_int(q2_size_parse("1.5", 1024, NULL, &value), 0, "with a fraction");
    is_u64(value, 1536, "that is taken too");
    is_int(q2_size_parse("3b", 1024, NULL, &value), 0, "a suffix beats the unit");
    is_u64(value, 3, "bytes");
}

static void parse_prefix(void)
{
    uint64_t value = 0;
    const char *end;
    const char *text = "10k,rest";
    is_int(q2_size_parse(text, 1, &end, &value), 0, "text may follow");
    is_u64(value, 10240, "value before it");
    is_str(end, ",rest", "where it begins");
    text = "nothing";
    is_int(q2_size_parse(text, 1, &end, &value), -EINVAL, "no number");
    ok(end == text, "end is the start then");
    is_int(q2_size_parse("16Ex", 1, &end, &value), -ERANGE, "too large");
    is_str(end, "x", "end is behind it");
    is_int(q2_size_parse("0x10k", 1, &end, &value), 0, "hex digits end");
    is_str(end, "k", "before a suffix");
}

static const struct format_case {
    uint64_t value;
    const char *text;
} format_cases[] = {
    {0, "0 B"},
    {1, "1 B"},
    {512, "512 B"},
    {999, "999 B"},
    {1000, "0.977 KiB"},
    {1023, "0.999 KiB"},
    {KIB, "1 KiB"},
    {4096, "4 KiB"},
    {196 * KIB, "196 KiB"},
    {329216, "322 KiB"},
    {999 * KIB, "999 KiB"},
    {1000 * KIB, "0.977 MiB"},
    {MIB - 1, "1 MiB"},
    {1507328, "1.44 MiB"},
    {1380352, "1.32 MiB"},
    {2359296, "2.25 MiB"},
    {64 * MIB, "64 MiB"},
    {GIB + GIB / 2, "1.5 GiB"},
    {1024 * GIB, "1 TiB"},
    {8 * EIB, "8 EiB"},
    {UINT64_MAX, "16 EiB"},
};

static void format(void)
{
    char text[Q2_SIZE_TEXT_MAX];
    for (size_t i = 0; i < sizeof(format_cases) / sizeof(format_cases[0]); i++) {
        q2_size_format(format_cases[i].value, text);
        is_str(text, format_cases[i].text, "format %" PRIu64, format_cases[i].value);
    }
}

int main(void)
{
    parse();
    parse_unit();
    parse_prefix();
    format();
    return done_testing();
}
