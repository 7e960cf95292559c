/*
 * count PID: counts what a process does, and says "counting" when it has begun. For each line on standard input it
 * prints the counts so far as a JSON object; it ends with its input.
 */
#include "scripts/bench_tool/counters.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char *argv[])
{
    struct counters counters;
    char line[64];

    setlinebuf(stdout);
    if (argc != 2) {
        fprintf(stderr, "usage: count PID\n");
        return EXIT_FAILURE;
    }
    if (!counters_open(&counters, (pid_t)strtol(argv[1], NULL, 10))) {
        fprintf(stderr, "count: no trace points of this process: takes root, and a kernel with tracefs\n");
        return EXIT_FAILURE;
    }
    puts("counting");
    while (fgets(line, sizeof(line), stdin) != NULL) {
        struct counts counts = counters_read(&counters);

        printf("{\"syscalls\":%llu,\"exits\":%llu,\"cpu_us\":%.1f,\"vcpu_us\":%.1f}\n",
               (unsigned long long)counts.syscalls, (unsigned long long)counts.exits, counts.cpu_us, counts.vcpu_us);
    }
    counters_close(&counters);
    return EXIT_SUCCESS;
}
