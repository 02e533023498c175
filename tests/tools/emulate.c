// SPDX-License-Identifier: MIT
// Stands where the tests look for a program of another kind of machine, and runs it: the
// file PATH.real, if PATH is where this one is. A script would not do, as what is
// preloaded into the program is not for this machine's shell. Linked statically, with
//
//   EMULATOR  the program that runs it
//   ROOT      the folder with its libraries
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef EMULATOR
#define EMULATOR "qemu-s390x-static"
#endif
#ifndef ROOT
#define ROOT "/"
#endif

int main(int argc, char **argv)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 6);
    char **to = calloc((size_t)argc + 6, sizeof(*to));
    if (n < 0 || !to)
        return 125;
    snprintf(path + n, 6, ".real");
    to[0] = EMULATOR;
    to[1] = "-L";
    to[2] = ROOT;
    to[3] = "-0";
    to[4] = argv[0];
    to[5] = path;
    for (int i = 1; i < argc; i++)
        to[i + 5] = argv[i];
    execvp(to[0], to);
    perror(EMULATOR);
    return 125;
}
