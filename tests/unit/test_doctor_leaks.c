/* The doctor's checks of the ways between guests, on hosts made of a few files. */
#include "tests/unit/doctor_fixture.h"

static void test_mitigations_turned_off_are_a_problem(void **state)
{
    static const struct expectation rows[] = {
        {check_mitigations, {{"/proc/cmdline", "ro quiet\n"}}, 0, VERDICT_OK, "not turned off", NULL},
        {check_mitigations, {{"/proc/cmdline", "mitigations=auto,nosmt ro\n"}}, 0, VERDICT_OK, "not turned off", NULL},
        {check_mitigations,
         {{"/proc/cmdline", "ro mitigations=off\n"}, DEBIAN},
         0,
         VERDICT_PROBLEM,
         "mitigations=off",
         "/etc/default/grub"},
        {check_mitigations,
         {{"/proc/cmdline", "mitigations=auto,no_guest_host"}},
         0,
         VERDICT_PROBLEM,
         "no_guest_host",
         "grubby"},
        {check_mitigations, {{"/proc/cmdline", "mitigations=off mitigations=auto"}}, 0, VERDICT_OK, "not turned", NULL},
        {check_mitigations, {{"/proc/cmdline", "app.mitigations=off"}}, 0, VERDICT_OK, "not turned", NULL},
        {check_mitigations, {{0}}, 0, VERDICT_NOTE, "cannot be read", NULL},
    };

    (void)state;
    EXPECT_ALL(rows);
}

#define HOLE(name, state)                                                                                              \
    {                                                                                                                  \
        "/sys/devices/system/cpu/vulnerabilities/" name, state "\n"                                                    \
    }

static void test_open_vulnerabilities_are_named(void **state)
{
    static const struct expectation rows[] = {
        {check_vulnerabilities,
         {HOLE("mds", "Not affected"), HOLE("l1tf", "Mitigation: PTE Inversion")},
         0,
         VERDICT_OK,
         "none of 2",
         NULL},
        {check_vulnerabilities,
         {HOLE("spectre_v2", "Vulnerable"), HOLE("mds", "Vulnerable: Clear CPU buffers attempted, no microcode"),
          HOLE("l1tf", "Mitigation: PTE Inversion"), CPU_FLAGS("vmx"), DEBIAN},
         0,
         VERDICT_PROBLEM,
         "open: mds, spectre_v2",
         "install intel-microcode"},
        {check_vulnerabilities,
         {HOLE("itlb_multihit", "KVM: Vulnerable"), CPU_FLAGS("svm"), DEBIAN},
         0,
         VERDICT_PROBLEM,
         "open: itlb_multihit",
         "install amd64-microcode"},
        {check_vulnerabilities, {HOLE("tomorrows", "Vulnerable")}, 0, VERDICT_PROBLEM, "tomorrows", "microcode_ctl"},
        {check_vulnerabilities,
         {HOLE("spec_store_bypass", "Vulnerable"), CPU_FLAGS("hypervisor"), DEBIAN},
         0,
         VERDICT_NOTE,
         "open: spec_store_bypass; this virtual machine's provider",
         NULL},
        {check_vulnerabilities,
         {HOLE("retbleed", "Vulnerable"), HOLE("spec_store_bypass", "Vulnerable"), CPU_FLAGS("hypervisor")},
         0,
         VERDICT_PROBLEM,
         "open: retbleed, spec_store_bypass",
         NULL},
        {check_vulnerabilities,
         {HOLE("mds", "Vulnerable"), {"/proc/cmdline", "mitigations=off"}, CPU_FLAGS("hypervisor")},
         0,
         VERDICT_PROBLEM,
         "open: mds",
         "--remove-args=mitigations"},
        {check_vulnerabilities, {{0}}, 0, VERDICT_NOTE, "does not say", NULL},
    };

    (void)state;
    EXPECT_ALL(rows);
}

#define SMT(text)                                                                                                      \
    {                                                                                                                  \
        "/sys/devices/system/cpu/smt/active", text "\n"                                                                \
    }
#define LEAKING(text) HOLE("mds", "Mitigation: Clear CPU buffers; SMT " text)

static void test_smt_is_worse_on_processors_that_leak_between_threads(void **state)
{
    static const struct expectation rows[] = {
        {check_smt, {SMT("0"), LEAKING("disabled")}, 0, VERDICT_OK, "off", NULL},
        {check_smt, {SMT("1"), LEAKING("mitigated")}, 0, VERDICT_NOTE, "on: ", "nosmt"},
        {check_smt, {SMT("1"), LEAKING("vulnerable")}, 0, VERDICT_PROBLEM, "leaks between threads (mds)", "nosmt"},
        {check_smt, {SMT("0"), LEAKING("Host state unknown")}, 0, VERDICT_NOTE, "its host decides (mds)", NULL},
        {check_smt, {{0}}, 0, VERDICT_NOTE, "does not say", NULL},
    };

    (void)state;
    EXPECT_ALL(rows);
}

#define KSM(text)                                                                                                      \
    {                                                                                                                  \
        {                                                                                                              \
            "/sys/kernel/mm/ksm/run", text "\n"                                                                        \
        }                                                                                                              \
    }
#define SWAPS(lines)                                                                                                   \
    {                                                                                                                  \
        {                                                                                                              \
            "/proc/swaps", "Filename\t\t\t\tType\t\tSize\n" lines                                                      \
        }                                                                                                              \
    }

static void test_memory_that_leaves_its_guest_is_noted(void **state)
{
    static const struct expectation rows[] = {
        {check_ksm, KSM("0"), 0, VERDICT_OK, "off", NULL},
        {check_ksm, KSM("1"), 0, VERDICT_NOTE, "on", "echo 2 | sudo tee /sys/kernel/mm/ksm/run"},
        {check_ksm, KSM("2"), 0, VERDICT_OK, "off", NULL},
        {check_ksm, {{0}}, 0, VERDICT_OK, "cannot merge", NULL},
        {check_swap, SWAPS(""), 0, VERDICT_OK, "none on disk", NULL},
        {check_swap, SWAPS("/dev/zram0 partition 100 0 5\n"), 0, VERDICT_OK, "none on disk", NULL},
        {check_swap, SWAPS("/dev/zram0 partition 1 0 5\n/swapfile file 9 0 -2\n/dev/sda2 partition 9 0 -3\n"), 0,
         VERDICT_NOTE, "on /swapfile, /dev/sda2", "swapoff -a"},
        {check_swap, {{0}}, 0, VERDICT_OK, "cannot swap", NULL},
    };

    (void)state;
    EXPECT_ALL(rows);
}

TEST_MAIN(doctor_test(test_mitigations_turned_off_are_a_problem), doctor_test(test_open_vulnerabilities_are_named),
          doctor_test(test_smt_is_worse_on_processors_that_leak_between_threads),
          doctor_test(test_memory_that_leaves_its_guest_is_noted))
