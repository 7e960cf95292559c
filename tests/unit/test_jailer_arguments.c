#include "tests/unit/harness.h"

#include "jailer/arguments.h"

#include <stdio.h>
#include <string.h>

enum { ARGUMENTS_MAX = 80 };

/* Parses "a b c" with the required options in front unless `bare`. The words live until the next call. */
static struct error *parse(const char *words, bool bare, struct jail_config *config)
{
    static char line[4096];
    static char *argv[ARGUMENTS_MAX];
    enum jail_request request;
    char *rest = NULL;
    int argc = 0;

    snprintf(line, sizeof(line), "jailer %s %s",
             bare ? "" : "--id vm-1 --exec-file /usr/bin/mayfly-vmm --uid 100 --gid 101", words);
    for (char *word = strtok_r(line, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    argv[argc] = NULL;
    return arguments_parse(argc, argv, "/srv/jailer", config, &request);
}

static void test_defaults_are_firecrackers(void **state)
{
    struct jail_config config;

    (void)state;
    assert_no_error(parse("", false, &config));
    assert_string_equal(config.chroot_base_dir, "/srv/jailer");
    assert_string_equal(config.exec_name, "mayfly-vmm");
    assert_string_equal(config.parent_cgroup, "mayfly-vmm");
    assert_int_equal(config.limits.no_file, 2048);
    assert_true(config.limits.fsize == UINT64_MAX);
    assert_int_equal(config.vmm_argument_count, 0);
}

static void test_both_spellings_of_a_value_are_taken(void **state)
{
    struct jail_config config;

    (void)state;
    assert_no_error(
        parse("--cgroup=cpu.shares=10 --cgroup cpuset.cpus=0-1 --resource-limit=fsize=4096", false, &config));
    assert_int_equal(config.cgroup_count, 2);
    assert_string_equal(config.cgroups[0].file, "cpu.shares");
    assert_string_equal(config.cgroups[0].value, "10");
    assert_string_equal(config.cgroups[1].value, "0-1");
    assert_int_equal(config.limits.fsize, 4096);
}

static void test_every_option_of_firecrackers_jailer_is_accepted(void **state)
{
    struct jail_config config;

    (void)state;
    assert_no_error(
        parse("--chroot-base-dir /jails --netns /var/run/netns/a --daemonize --new-pid-ns --cgroup-version 2 "
              "--cgroup memory.max=1 --parent-cgroup a/b --resource-limit no-file=3 -- --no-seccomp",
              false, &config));
    assert_string_equal(config.chroot_base_dir, "/jails");
    assert_string_equal(config.netns, "/var/run/netns/a");
    assert_string_equal(config.parent_cgroup, "a/b");
    assert_int_equal(config.cgroup_version, 2);
    assert_int_equal(config.limits.no_file, 3);
    assert_true(config.daemonize && config.new_pid_ns);
}

static void test_words_after_two_dashes_are_the_vmms(void **state)
{
    struct jail_config config;

    (void)state;
    assert_no_error(parse("--daemonize -- --id other --nonsense", false, &config));
    assert_string_equal(config.id, "vm-1");
    assert_int_equal(config.vmm_argument_count, 3);
    assert_string_equal(config.vmm_arguments[2], "--nonsense");
    assert_true(config.daemonize);
}

static void test_bad_arguments_are_named(void **state)
{
    static const struct {
        const char *words;
        bool bare;
        const char *message;
    } cases[] = {
        {"--id a/b", true, "--id: \"a/b\" has '/' at position 2"},
        {"--id ..", true, "--id: \"..\" has '.'"},
        {"--id aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true, "65 characters long"},
        {"--id=", true, "0 characters long"},
        {"--exec-file /usr/bin/", true, "does not name a file"},
        {"--exec-file ..", true, "does not name a file"},
        {"--uid -1", true, "--uid: \"-1\" is not a number from 0 to 4294967294"},
        {"--uid 4294967295", true, "--uid: \"4294967295\""},
        {"--gid 1x", true, "--gid: \"1x\""},
        {"--gid 99999999999999999999999", true, "--gid:"},
        {"--cgroup-version 3", false, "--cgroup-version: \"3\""},
        {"--cgroup cpu.shares", false, "is not <file>=<value>"},
        {"--cgroup =5", false, "is not <file>=<value>"},
        {"--cgroup ../tasks=5", false, "does not name a file of a controller"},
        {"--cgroup tasks=5", false, "does not name a file of a controller"},
        {"--parent-cgroup a/../b", false, "must not have \"..\""},
        {"--parent-cgroup /a", false, "is not a path relative"},
        {"--resource-limit cpu=5", false, "is not a known limit"},
        {"--resource-limit fsize=x", false, "\"x\" is not a number"},
        {"--netns=", false, "--netns: is empty"},
        {"--netns /x --new-net-ns", false, "--new-net-ns: cannot be given together"},
        {"--daemonize=yes", false, "takes no value"},
        {"--daemonize --daemonize", false, "--daemonize: given twice"},
        {"--uid 5", false, "--uid: given twice"},
        {"--daemon", false, "\"--daemon\" is not an option"},
        {"--frobnicate", false, "\"--frobnicate\" is not an option"},
        {"--netns", false, "--netns: needs a value"},
        {"--netns -- x", false, "--netns: needs a value"},
        {"", true, "--id: is required"},
        {"--id a --exec-file /b --uid 1", true, "--gid: is required"},
    };

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++) {
        struct jail_config config;

        assert_error(parse(cases[i].words, cases[i].bare, &config), ERROR_INPUT, cases[i].message);
    }
}

TEST_MAIN(cmocka_unit_test(test_defaults_are_firecrackers), cmocka_unit_test(test_both_spellings_of_a_value_are_taken),
          cmocka_unit_test(test_every_option_of_firecrackers_jailer_is_accepted),
          cmocka_unit_test(test_words_after_two_dashes_are_the_vmms), cmocka_unit_test(test_bad_arguments_are_named))
