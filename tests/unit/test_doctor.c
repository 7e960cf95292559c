/* `mayfly doctor` as a command: its table, its report, its exit codes. */
#include "tests/unit/doctor_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yajl/yajl_tree.h>

#include "api/cli/commands.h"

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text);

    return length >= strlen(end) && strcmp(text + length - strlen(end), end) == 0;
}

/* Hosts without files, or with files full of nonsense, get findings: no check may crash or stay silent. */
static void test_every_check_has_an_answer_for_nonsense(void **state)
{
    static const char *const paths[] = {
        "/proc/cpuinfo",
        "/proc/misc",
        "/proc/cmdline",
        "/proc/swaps",
        "/proc/self/limits",
        "/proc/self/mountinfo",
        "/etc/group",
        "/proc/sys/kernel/seccomp/actions_avail",
        "/proc/sys/kernel/osrelease",
        "/proc/sys/vm/max_map_count",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/devices/system/cpu/vulnerabilities/mds",
        "/sys/devices/system/cpu/smt/active",
        "/sys/kernel/security/lsm",
    };
    static const char *const pieces[] = {"",    "\n",    "-1",           "99999999999999999999999",
                                         " - ", "\xff[", "mitigations=", "a b c d e - "};
    char *text = malloc(70000);
    static const struct file none[] = {{0}};

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < array_length(pieces); i++) {
        char root[32];
        struct host host = host_make(root, 1000, none);

        text[0] = '\0';
        for (size_t n = 0; n < (i % 2 == 0 ? 1 : 2000); n++) /* alone, and so often that no buffer holds it */
            strcat(text, pieces[i]);
        for (size_t j = 0; j < array_length(paths); j++)
            host_put(root, paths[j], text);
        for (size_t j = 0; j < doctor_check_count; j++) {
            struct finding finding = {.verdict = VERDICT_COUNT};

            strcpy(answers.probe.text, "no");
            doctor_checks[j].look(&host, &finding);
            assert_in_range(finding.verdict, VERDICT_OK, VERDICT_PROBLEM);
            assert_int_not_equal(finding.found[0], '\0');
        }
        host_remove(root);
    }
    free(text);
}

static void test_table_has_a_reason_for_each_check(void **state)
{
    (void)state;
    for (size_t i = 0; i < doctor_check_count; i++) {
        const char *why = doctor_checks[i].why;

        assert_true(strlen(doctor_checks[i].name) <= 17); /* the column of the report */
        assert_true(ends_with(why, "."));
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(doctor_checks[i].name, doctor_checks[j].name);
    }
}

static const struct examination sick = {
    .check = &(const struct doctor_check){"limb", NULL, "One walks on it."},
    .finding = {VERDICT_PROBLEM, "it is broken in two places and hurts", "sudo splint --limb"},
};
static const struct examination well = {
    .check = &(const struct doctor_check){"heart", NULL, "It beats."},
    .finding = {VERDICT_OK, "beats", ""},
};

/* What `print` writes, to be freed. */
static char *printed(const struct examination *examination, bool verbose, unsigned columns)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    assert_non_null(to);
    doctor_print(to, examination, verbose, columns);
    assert_int_equal(fclose(to), 0);
    return text;
}

static void test_report_in_a_pipe_is_aligned_and_plain(void **state)
{
    cleanup_free char *bad = printed(&sick, false, 0);
    cleanup_free char *good = printed(&well, false, 0);
    cleanup_free char *said = printed(&well, true, 0);

    (void)state;
    assert_string_equal(bad, "problem  limb              it is broken in two places and hurts\n"
                             "                     why:  One walks on it.\n"
                             "                     mend: sudo splint --limb\n");
    assert_string_equal(good, "ok       heart             beats\n");
    assert_string_equal(said, "ok       heart             beats\n"
                              "                     why:  It beats.\n");
}

static void test_report_on_a_terminal_is_coloured_and_wrapped(void **state)
{
    cleanup_free char *narrow = printed(&sick, false, 58);
    cleanup_free char *tiny = printed(&sick, false, 20);

    (void)state;
    assert_string_equal(narrow, "\033[31mproblem \033[0m limb              it is broken in two places and\n"
                                "                           hurts\n"
                                "                     why:  One walks on it.\n"
                                "                     mend: \033[1msudo splint --limb\033[0m\n");
    assert_non_null(strstr(tiny, "it is broken in two places and hurts\n"));
}

static void test_json_has_each_finding_and_the_counts(void **state)
{
    static const char *checks[] = {"checks", NULL};
    static const char *problems[] = {"problem", NULL};
    static const char *mend[] = {"mend", NULL};
    static const char *verdict[] = {"verdict", NULL};
    const struct examination both[] = {well, sick};
    const size_t counts[VERDICT_COUNT] = {1, 0, 1};
    cleanup_free char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);
    yajl_val tree, list;

    (void)state;
    assert_true(doctor_print_json(to, both, 2, counts));
    assert_int_equal(fclose(to), 0);
    tree = yajl_tree_parse(text, NULL, 0);
    list = yajl_tree_get(tree, checks, yajl_t_array);
    assert_non_null(list);
    assert_int_equal(list->u.array.len, 2);
    assert_null(yajl_tree_get(list->u.array.values[0], mend, yajl_t_any));
    assert_string_equal(yajl_tree_get(list->u.array.values[1], mend, yajl_t_string)->u.string, "sudo splint --limb");
    assert_string_equal(yajl_tree_get(list->u.array.values[1], verdict, yajl_t_string)->u.string, "problem");
    assert_int_equal(YAJL_GET_INTEGER(yajl_tree_get(tree, problems, yajl_t_number)), 1);
    yajl_tree_free(tree);
}

static void test_json_refuses_what_is_not_utf8(void **state)
{
    struct examination broken = sick;
    const size_t counts[VERDICT_COUNT] = {0, 0, 1};
    FILE *to = fopen("/dev/null", "we");

    (void)state;
    strcpy(broken.finding.found, "\xff");
    assert_false(doctor_print_json(to, &broken, 1, counts));
    fclose(to);
}

/* The exit code of `mayfly doctor` with these words; its output goes nowhere. */
static int doctor(const char *const *words)
{
    static const char *argv[8];
    int argc = 1, status;
    pid_t child;

    argv[0] = "doctor";
    for (; *words != NULL; words++)
        argv[argc++] = *words;
    argv[argc] = NULL;
    child = fork();
    if (child == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL || freopen("/dev/null", "w", stderr) == NULL)
            _exit(99);
        _exit(command_doctor(argc, (char **)(uintptr_t)argv));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}
#define DOCTOR(...) doctor((const char *const[]){__VA_ARGS__, NULL})

static void test_wrong_command_lines_are_refused(void **state)
{
    (void)state;
    assert_int_equal(DOCTOR("--check"), EXIT_MAYFLY_FAILED);
    assert_int_equal(DOCTOR("--check", "astrology"), EXIT_MAYFLY_FAILED);
    assert_int_equal(DOCTOR("--check", ""), EXIT_MAYFLY_FAILED);
    assert_int_equal(DOCTOR("--json=yes"), EXIT_MAYFLY_FAILED);
    assert_int_equal(DOCTOR("--cure"), EXIT_MAYFLY_FAILED);
    assert_int_equal(DOCTOR("--verb", "--help"), EXIT_MAYFLY_FAILED);
    assert_int_equal(DOCTOR("kvm"), EXIT_MAYFLY_FAILED);
    assert_int_equal(DOCTOR("--help"), 0);
}

static void test_exit_code_is_that_of_the_chosen_checks(void **state)
{
    (void)state;
    assert_int_equal(DOCTOR("--check", "vsock"), 0); /* never a problem */
    assert_int_equal(DOCTOR("--check", "vsock", "--check", "overcommit", "--json"), 0);
}

TEST_MAIN(cmocka_unit_test_setup(test_every_check_has_an_answer_for_nonsense, answers_reset),
          cmocka_unit_test(test_table_has_a_reason_for_each_check),
          cmocka_unit_test(test_report_in_a_pipe_is_aligned_and_plain),
          cmocka_unit_test(test_report_on_a_terminal_is_coloured_and_wrapped),
          cmocka_unit_test(test_json_has_each_finding_and_the_counts),
          cmocka_unit_test(test_json_refuses_what_is_not_utf8), cmocka_unit_test(test_wrong_command_lines_are_refused),
          cmocka_unit_test(test_exit_code_is_that_of_the_chosen_checks))
