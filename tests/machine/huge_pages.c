#include "tests/machine/huge_pages.h"

#include "vmm/base/clock.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static const char nr_hugepages[] = "/proc/sys/vm/nr_hugepages";

static unsigned long meminfo(const char *name)
{
    FILE *file = fopen("/proc/meminfo", "re");
    cleanup_free char *line = NULL;
    size_t size = 0;
    unsigned long value = 0;

    assert_non_null(file);
    while (getline(&line, &size, file) > 0)
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
            value = strtoul(line + strlen(name) + 1, NULL, 10);
    fclose(file);
    return value;
}

static void set_pool(unsigned long pages)
{
    cleanup_fd int fd = open(nr_hugepages, O_WRONLY | O_CLOEXEC);
    char text[32];
    int length = snprintf(text, sizeof(text), "%lu", pages);

    if (fd >= 0 && write(fd, text, (size_t)length) != length)
        print_message("cannot write %s\n", nr_hugepages);
}

static unsigned long pool_before;
static int lock_fd = -1;

int huge_pages_teardown(void **state)
{
    machine_teardown(state);
    set_pool(pool_before);
    fd_close(&lock_fd);
    return 0;
}

unsigned long huge_pages_free(void)
{
    return meminfo("HugePages_Free");
}

unsigned long huge_pages_left(void)
{
    return meminfo("HugePages_Free") - meminfo("HugePages_Rsvd");
}

void huge_pages_reserve(unsigned long pages)
{
    unsigned long used = meminfo("HugePages_Total") - meminfo("HugePages_Free");

    if (meminfo("Hugepagesize") != 2048 || access(nr_hugepages, W_OK) != 0) {
        print_message("skipped: huge pages of 2 MiB cannot be reserved here\n");
        skip();
    }
    set_pool(used + pages);
    if (huge_pages_left() != pages) {
        print_message("skipped: the host has no %lu huge pages to give\n", pages);
        skip();
    }
}

int huge_pages_setup(void **state)
{
    uint64_t until = clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull;

    (void)state;
    /* There is one pool, and what is free in it is counted: one test at a time, of all that run. But not for ever. */
    lock_fd = open("/sys/kernel/mm/hugepages/hugepages-2048kB", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (lock_fd >= 0 && flock(lock_fd, LOCK_EX | LOCK_NB) != 0 && clock_monotonic_us() < until)
        poll(NULL, 0, 10);
    pool_before = meminfo("HugePages_Total");
    return 0;
}
