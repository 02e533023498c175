// SPDX-License-Identifier: MIT
// A small TAP writer for the unit tests: each check is a line "ok" or "not ok", the plan
// stands at the end. main ends with "return done_testing();".
#ifndef Q2_TESTS_UNIT_TEST_H
#define Q2_TESTS_UNIT_TEST_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned test_count;
static unsigned test_failures;

#define ok(condition, ...) test_ok(__FILE__, __LINE__, (condition), __VA_ARGS__)
#define is_u64(got, want, ...) \
    test_is_u64(__FILE__, __LINE__, (uint64_t)(got), (uint64_t)(want), __VA_ARGS__)
#define is_int(got, want, ...) test_is_int(__FILE__, __LINE__, (got), (want), __VA_ARGS__)
#define is_str(got, want, ...) test_is_str(__FILE__, __LINE__, (got), (want), __VA_ARGS__)
#define has_str(text, part, ...) \
    test_has_str(__FILE__, __LINE__, (text), (part), __VA_ARGS__)

static inline bool test_result(const char *file, int line, bool passed, const char *fmt,
                               va_list ap)
{
    printf("%sok %u - ", passed ? "" : "not ", ++test_count);
    vprintf(fmt, ap);
    putchar('\n');
    if (!passed) {
        test_failures++;
        printf("#   at %s:%d\n", file, line);
    }
    return passed;
}

__attribute__((format(printf, 4, 5))) static inline bool
test_ok(const char *file, int line, bool passed, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    test_result(file, line, passed, fmt, ap);
    va_end(ap);
    return passed;
}

__attribute__((format(printf, 5, 6))) static inline bool
test_is_u64(const char *file, int line, uint64_t got, uint64_t want, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!test_result(file, line, got == want, fmt, ap))
        printf("#   got  %" PRIu64 " (0x%" PRIx64 ")\n#   want %" PRIu64 " (0x%" PRIx64
               ")\n",
               got, got, want, want);
    va_end(ap);
    return got == want;
}

__attribute__((format(printf, 5, 6))) static inline bool
test_is_int(const char *file, int line, int got, int want, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!test_result(file, line, got == want, fmt, ap))
        printf("#   got  %d\n#   want %d\n", got, want);
    va_end(ap);
    return got == want;
}

__attribute__((format(printf, 5, 6))) static inline bool
test_is_str(const char *file, int line, const char *got, const char *want,
            const char *fmt, ...)
{
    bool passed = got && strcmp(got, want) == 0;
    va_list ap;
    va_start(ap, fmt);
    if (!test_result(file, line, passed, fmt, ap))
        printf("#   got  \"%s\"\n#   want \"%s\"\n", got ? got : "(null)", want);
    va_end(ap);
    return passed;
}

__attribute__((format(printf, 5, 6))) static inline bool
test_has_str(const char *file, int line, const char *text, const char *part,
             const char *fmt, ...)
{
    bool passed = strstr(text, part) != NULL;
    va_list ap;
    va_start(ap, fmt);
    if (!test_result(file, line, passed, fmt, ap))
        printf("#   got  \"%s\"\n#   want \"%s\" in it\n", text, part);
    va_end(ap);
    return passed;
}

// Prints the plan; the exit code. Nothing tested is a failure too.
static inline int done_testing(void)
{
    printf("1..%u\n", test_count);
    if (test_failures)
        printf("# %u of %u failed\n", test_failures, test_count);
    return test_failures || !test_count;
}

// The same numbers in every run (xorshift64*): a failure can be had again.
static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

#endif
