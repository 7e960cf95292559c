/* The doctor's checks of limits and devices, on hosts made of a few files. */
#include "tests/unit/doctor_fixture.h"

#include <errno.h>

#define LIMITS(nproc, files)                                                                                           \
    {                                                                                                                  \
        "/proc/self/limits", "Limit                     Soft Limit           Hard Limit           Units     \n"        \
                             "Max processes             " nproc "                96365                processes \n"    \
                             "Max open files            1024                 " files "                files     \n"    \
    }
#define NUMBERS(pids, threads)                                                                                         \
    {"/proc/sys/kernel/pid_max", pids "\n"},                                                                           \
    {                                                                                                                  \
        "/proc/sys/kernel/threads-max", threads "\n"                                                                   \
    }

static void test_small_limits_are_found(void **state)
{
    static const struct expectation rows[] = {
        {check_open_files, {LIMITS("9", "2048")}, 1000, VERDICT_OK, "2048 a process", NULL},
        {check_open_files, {LIMITS("9", "unlimited")}, 1000, VERDICT_OK, "no limit", NULL},
        {check_open_files, {LIMITS("9", "2047")}, 1000, VERDICT_PROBLEM, "at most 2047", "limits.d/60-mayfly.conf"},
        {check_open_files, {LIMITS("9", "2047")}, 0, VERDICT_NOTE, "at most 2047", "limits.d/60-mayfly.conf"},
        {check_open_files, {{"/proc/self/limits", "Max open files\n"}}, 0, VERDICT_NOTE, "unknown", NULL},
        {check_open_files, {{0}}, 0, VERDICT_NOTE, "unknown", NULL},
        {check_processes, {NUMBERS("4194304", "192730")}, 0, VERDICT_OK, "192730", NULL},
        {check_processes, {NUMBERS("32768", "192730")}, 0, VERDICT_NOTE, "kernel.pid_max", "kernel.pid_max=4194304"},
        {check_processes, {NUMBERS("4194304", "9000")}, 0, VERDICT_NOTE, "9000", "kernel.threads-max=1048576"},
        {check_processes,
         {NUMBERS("4194304", "192730"), LIMITS("100", "2048")},
         1000,
         VERDICT_NOTE,
         "only 100",
         "nproc 65536"},
        {check_processes, {NUMBERS("4194304", "192730"), LIMITS("100", "2048")}, 0, VERDICT_OK, "192730", NULL},
        {check_processes, {{"/proc/sys/kernel/pid_max", "many\n"}}, 0, VERDICT_NOTE, "unknown", NULL},
        {check_mappings, {{"/proc/sys/vm/max_map_count", "65530\n"}}, 0, VERDICT_OK, "65530", NULL},
        {check_mappings, {{"/proc/sys/vm/max_map_count", "65529\n"}}, 0, VERDICT_NOTE, "65529", "vm.max_map_count="},
        {check_mappings, {{0}}, 0, VERDICT_NOTE, "unknown", NULL},
    };

    (void)state;
    EXPECT_ALL(rows);
}

#define THP "/sys/kernel/mm/transparent_hugepage/enabled"
#define HUGETLB "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

static void test_memory_settings_are_read(void **state)
{
    static const struct expectation rows[] = {
        {check_overcommit, {{"/proc/sys/vm/overcommit_memory", "0\n"}}, 0, VERDICT_OK, "touched", NULL},
        {check_overcommit,
         {{"/proc/sys/vm/overcommit_memory", "2\n"}},
         0,
         VERDICT_NOTE,
         "is 2",
         "vm.overcommit_memory=0"},
        {check_huge_pages,
         {{THP, "always [madvise] never\n"}, {HUGETLB, "512\n"}},
         0,
         VERDICT_OK,
         "madvise; 512",
         NULL},
        {check_huge_pages, {{THP, "[always] madvise never\n"}}, 0, VERDICT_OK, "always; 0", NULL},
        {check_huge_pages, {{THP, "always madvise [never]\n"}}, 0, VERDICT_NOTE, "are off", "echo madvise"},
        {check_huge_pages, {{HUGETLB, "3\n"}}, 0, VERDICT_NOTE, "no transparent huge pages; 3 of 2 MiB", NULL},
    };

    (void)state;
    EXPECT_ALL(rows);
}

static void test_devices_are_tried(void **state)
{
    static const struct expectation open[] = {
        {check_tun, {{"/dev/net/tun", ""}}, 0, VERDICT_OK, "can be opened", NULL},
        {check_tun, {{0}}, 0, VERDICT_NOTE, "there is no /dev/net/tun", "modprobe tun"},
        {check_vhost_net, {{"/dev/vhost-net", ""}}, 0, VERDICT_OK, "there is /dev/vhost-net", NULL},
        {check_vhost_net, {{0}}, 0, VERDICT_OK, "modprobe vhost_net", NULL},
        {check_vsock, {{"/dev/vhost-vsock", ""}}, 0, VERDICT_OK, "has vhost-vsock", NULL},
        {check_vsock, {{"/dev/vsock", ""}}, 0, VERDICT_OK, "has vsock, not vhost-vsock", NULL},
        {check_vsock, {{0}}, 0, VERDICT_OK, "has neither", NULL},
        {check_userfaultfd, {{"/dev/userfaultfd", ""}}, 0, VERDICT_OK, "can be opened", NULL},
        {check_userfaultfd, {{"/proc/sys/vm/unprivileged_userfaultfd", "1"}}, 0, VERDICT_OK, "every process", NULL},
        {check_userfaultfd,
         {{"/proc/sys/vm/unprivileged_userfaultfd", "0"}},
         0,
         VERDICT_NOTE,
         "there is no /dev/userfaultfd",
         "vm.unprivileged_userfaultfd=1"},
        {check_userfaultfd, {{0}}, 0, VERDICT_NOTE, "CONFIG_USERFAULTFD", NULL},
    };
    static const struct expectation closed[] = {
        {check_tun, {{"/dev/net/tun", ""}}, 1000, VERDICT_NOTE, "Permission denied", "chmod 0666 /dev/net/tun"},
        {check_userfaultfd, {{"/dev/userfaultfd", ""}}, 1000, VERDICT_NOTE, "not for this user", "chgrp kvm"},
    };

    (void)state;
    EXPECT_ALL(open);
    answers.open_error = EACCES;
    EXPECT_ALL(closed);
}

#define IO_URING_DISABLED(text)                                                                                        \
    {                                                                                                                  \
        {                                                                                                              \
            "/proc/sys/kernel/io_uring_disabled", text                                                                 \
        }                                                                                                              \
    }

static void test_io_uring_is_told_from_absent_and_forbidden(void **state)
{
    static const struct expectation allowed[] = {
        {check_io_uring, IO_URING_DISABLED("0"), 0, VERDICT_OK, "every process", NULL},
        {check_io_uring, {{0}}, 0, VERDICT_OK, "every process", NULL},
        {check_io_uring, IO_URING_DISABLED("1"), 0, VERDICT_NOTE, "only root", "kernel.io_uring_disabled=0"},
    };
    static const struct expectation refused[] = {
        {check_io_uring, IO_URING_DISABLED("2"), 0, VERDICT_NOTE, "nobody", "kernel.io_uring_disabled=0"},
        {check_io_uring, IO_URING_DISABLED("0"), 0, VERDICT_NOTE, "refused: Operation not permitted", NULL},
    };
    static const struct expectation absent = {check_io_uring, {{0}}, 0, VERDICT_NOTE, "has no io_uring", NULL};

    (void)state;
    EXPECT_ALL(allowed);
    answers.io_uring_error = EPERM;
    EXPECT_ALL(refused);
    answers.io_uring_error = ENOSYS;
    expect_all(&absent, 1);
}

TEST_MAIN(doctor_test(test_small_limits_are_found), doctor_test(test_memory_settings_are_read),
          doctor_test(test_devices_are_tried), doctor_test(test_io_uring_is_told_from_absent_and_forbidden))
