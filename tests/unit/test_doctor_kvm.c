/* The doctor's checks of KVM, on hosts made of a few files. */
#include "tests/unit/doctor_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_kvm_is_judged_by_its_guest(void **state)
{
    static const struct {
        struct kvm_probe probe;
        enum verdict verdict;
    } rows[] = {
        {{KVM_RUNS_LINUX, false, "runs"}, VERDICT_OK},
        {{KVM_RUNS_LINUX, true, "crawls"}, VERDICT_NOTE},
        {{KVM_CANNOT_RUN_LINUX, true, "hangs"}, VERDICT_PROBLEM},
        {{KVM_NOT_USABLE, false, "is not there"}, VERDICT_PROBLEM},
    };

    (void)state;
    for (size_t i = 0; i < array_length(rows); i++) {
        const struct expectation row = {check_kvm, {{0}}, 0, rows[i].verdict, rows[i].probe.text, NULL};

        answers.probe = rows[i].probe;
        expect_all(&row, 1);
    }
}

static void test_missing_kvm_device_is_told_with_its_reason(void **state)
{
    static const struct expectation rows[] = {
        {check_kvm_device, {CPU_FLAGS("vmx")}, 0, VERDICT_PROBLEM, "kvm_intel is not loaded", "modprobe kvm_intel"},
        {check_kvm_device, {CPU_FLAGS("svm")}, 0, VERDICT_PROBLEM, "kvm_amd is not loaded", "modprobe kvm_amd"},
        {check_kvm_device, {CPU_FLAGS("svm_lock")}, 0, VERDICT_PROBLEM, "offers no virtualisation", NULL},
        {check_kvm_device, {{0}}, 0, VERDICT_PROBLEM, "offers no virtualisation", NULL},
        {check_kvm_device,
         {CPU_FLAGS("vmx"), {"/proc/misc", "200 tun\n232 kvm\n"}},
         0,
         VERDICT_PROBLEM,
         "--device /dev/kvm",
         NULL},
    };

    (void)state;
    EXPECT_ALL(rows);
}

static void test_kvm_device_is_judged_by_group_and_mode(void **state)
{
    static const struct {
        int open_error;
        mode_t mode;
        gid_t group;
        enum verdict verdict;
        const char *found, *mend;
    } rows[] = {
        {0, 0660, 1, VERDICT_OK, "root and the group kvm (mode 0660)", ""},
        {0, 0660, 2, VERDICT_OK, "root and the group 2 (mode 0660)", ""},
        {0, 0666, 1, VERDICT_NOTE, "every user", "65-kvm.rules"},
        {0, 0600, 1, VERDICT_NOTE, "only root", "chmod 0660 /dev/kvm"},
        {0, 0660, 0, VERDICT_NOTE, "only root", "chgrp kvm /dev/kvm"},
        {EACCES, 0660, 1, VERDICT_PROBLEM, "which you are not in", "usermod -aG kvm \"$USER\""},
        {EACCES, 0600, 0, VERDICT_PROBLEM, "for root only", "/dev/kvm && sudo usermod -aG kvm"},
        {EPERM, 0660, 1, VERDICT_PROBLEM, "a device cgroup forbids it", ""},
        {ENODEV, 0660, 1, VERDICT_PROBLEM, "No such device", ""},
    };
    static const struct file files[] = {{"/dev/kvm", ""}, {"/etc/group", "root:x:0:\nkvm:x:1:tom\nbroken line\n"}, {0}};
    char root[32], path[PATH_SIZE];
    struct host host = host_make(root, 1000, files);

    (void)state;
    if (geteuid() != 0) {
        host_remove(root);
        print_message("only root can give the fixture to other groups\n");
        skip();
    }
    snprintf(path, sizeof(path), "%s/dev/kvm", root);
    for (size_t i = 0; i < array_length(rows); i++) {
        struct finding finding = {0};

        answers.open_error = rows[i].open_error;
        assert_int_equal(chown(path, 0, rows[i].group), 0);
        assert_int_equal(chmod(path, rows[i].mode), 0);
        check_kvm_device(&host, &finding);
        assert_int_equal(finding.verdict, rows[i].verdict);
        assert_non_null(strstr(finding.found, rows[i].found));
        assert_non_null(strstr(finding.mend, rows[i].mend));
        assert_int_equal(rows[i].mend[0] == '\0', finding.mend[0] == '\0');
    }
    host_remove(root);
}

static void test_virtual_host_is_noted(void **state)
{
    static const struct expectation rows[] = {
        {check_nested, {CPU_FLAGS("vmx")}, 0, VERDICT_OK, "not a virtual machine itself", NULL},
        {check_nested,
         {CPU_FLAGS("hypervisor"), {"/sys/module/kvm_intel/parameters/nested", "Y\n"}},
         0,
         VERDICT_NOTE,
         "itself a virtual machine; KVM offers nested",
         NULL},
        {check_nested,
         {CPU_FLAGS("svm"), {"/sys/module/kvm_amd/parameters/nested", "0\n"}},
         0,
         VERDICT_OK,
         "offers no nested",
         NULL},
    };

    (void)state;
    EXPECT_ALL(rows);
}

#define RELEASE(text)                                                                                                  \
    {                                                                                                                  \
        {                                                                                                              \
            "/proc/sys/kernel/osrelease", text "\n"                                                                    \
        }                                                                                                              \
    }

static void test_kernel_version_tells_what_is_missing(void **state)
{
    static const struct expectation rows[] = {
        {check_kernel, RELEASE("6.18.0-1-amd64"), 0, VERDICT_OK, "Linux 6.18.0-1-amd64", NULL},
        {check_kernel, RELEASE("7.0.0"), 0, VERDICT_OK, "Linux 7.0.0", NULL},
        {check_kernel, RELEASE("6.12.1"), 0, VERDICT_NOTE, "Linux 6.12.1; 6.18 has ioeventfds", NULL},
        {check_kernel, RELEASE("6.1.0"), 0, VERDICT_NOTE, "; 6.7 has PAGEMAP_SCAN", NULL},
        {check_kernel, RELEASE("5.10.0"), 0, VERDICT_NOTE, "; 5.13 has Landlock, 6.1 has", NULL},
        {check_kernel, RELEASE("5.8.18"), 0, VERDICT_PROBLEM, "; 5.9 has close_range", NULL},
        {check_kernel, RELEASE("4.19"), 0, VERDICT_PROBLEM, "; 5.9 has close_range", NULL},
        {check_kernel, RELEASE("elsewhere"), 0, VERDICT_PROBLEM, "\"elsewhere\"", NULL},
        {check_kernel, {{0}}, 0, VERDICT_PROBLEM, "unknown", NULL},
    };

    (void)state;
    EXPECT_ALL(rows);
}

TEST_MAIN(doctor_test(test_kvm_is_judged_by_its_guest), doctor_test(test_missing_kvm_device_is_told_with_its_reason),
          doctor_test(test_kvm_device_is_judged_by_group_and_mode), doctor_test(test_virtual_host_is_noted),
          doctor_test(test_kernel_version_tells_what_is_missing))
