/* --bind: what the jail shows of the host, how, and what is refused. */
#include "tests/jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "api/client/client.h"
#include "vmm/base/clock.h"

/* A file of the test's own, and the option that shows it. */
static const char *file(struct jail *jail, const char *name, const char *text, mode_t mode)
{
    const char *path = jail_path(jail, "%s", name);

    write_text(path, text);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

static const char *bind_of(const char *path, const char *rest)
{
    static char options[4][512];
    static unsigned next;
    char *option = options[next++ % array_length(options)];

    snprintf(option, sizeof(options[0]), "--bind=%s:%s", path, rest);
    return option;
}

static void run_reader(struct jail *jail, struct outcome *outcome, const char *option, const char *path,
                       const char *what)
{
    jail_run(jail, outcome, option, "--no-base-filter", "--", path, what, NULL);
}

static void test_a_file_is_shown_and_nothing_is_left(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    run_reader(jail, &outcome, bind_of(file(jail, "a:b", "shown\n", 0644), "/some/where/kernel:ro"),
               "/some/where/kernel", "show");
    assert_exited(&outcome, 0);
    assert_string_equal(outcome.out, "shown\nread-only\n");
    assert_string_equal(read_text(jail_path(jail, "a:b")), "shown\n");
}

static void test_a_file_of_the_hosts_root_is_the_jails_with_own(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    struct stat status;
    const char *path = file(jail, "secret", "mine\n", 0600);

    run_reader(jail, &outcome, bind_of(path, "/f"), "/f", "show");
    assert_exited(&outcome, EACCES);
    jail_remove(jail);
    run_reader(jail, &outcome, bind_of(path, "/f:rw,own"), "/f", "show");
    assert_exited(&outcome, 0);
    assert_string_equal(outcome.out, "mine\nwritable\n");
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_uid, geteuid());
}

/* A device that this test knows and no jail has: /dev/full reads as zeroes. */
static const char *node(struct jail *jail, mode_t mode)
{
    const char *path = jail_path(jail, "node");

    unlink(path);
    assert_int_equal(mknod(path, S_IFCHR | 0600, makedev(1, 7)), 0);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

/* A disk, say; the jail's own /dev is there already. */
static void test_a_device_is_shown_as_its_mode_and_options_say(void **state)
{
    static const struct {
        mode_t mode;
        const char *rest;
        int code;
        const char *says;
    } ways[] = {
        {0666, "/dev/disks/first", 0, "writable\n"},         {0600, "/dev/disks/first", EACCES, NULL},
        {0600, "/dev/disks/first:own", 0, "writable\n"},     {0666, "/dev/disks/first:ro", 0, "read-only\n"},
        {0600, "/dev/disks/first:ro,own", 0, "read-only\n"}, {0600, "/disk:own", 0, "writable\n"},
    };
    struct jail *jail = *state;
    struct outcome outcome;

    for (size_t i = 0; i < array_length(ways); i++) {
        char target[64];

        snprintf(target, sizeof(target), "%.*s", (int)strcspn(ways[i].rest, ":"), ways[i].rest);
        run_reader(jail, &outcome, bind_of(node(jail, ways[i].mode), ways[i].rest), target, "show");
        assert_exited(&outcome, ways[i].code);
        if (ways[i].says != NULL && strstr(outcome.out, ways[i].says) == NULL)
            fail_msg("mode %o as %s: \"%s\"", ways[i].mode, ways[i].rest, outcome.out);
        jail_remove(jail);
    }
}

static void test_a_bind_that_makes_no_sense_is_refused(void **state)
{
    static const struct {
        const char *value;
        const char *says;
    } wrong[] = {
        {"/etc/passwd", "--bind: \"/etc/passwd\" is not <path>:/<path in the jail>, perhaps with :ro behind it"},
        {"/etc/passwd:x", "--bind: \"/etc/passwd\" has \"x\" behind it; expected ro, rw or own"},
        {":/x", "--bind: \":/x\" is not <path>:/<path in the jail>, perhaps with :ro behind it"},
        {"/etc/passwd:/", "--bind: \"/\" does not name a place below the root"},
        {"/etc/passwd:/a/../b", "--bind: \"/a/../b\" must not have \"..\" in it"},
        {"/no/such:/x", "--bind: cannot open \"/no/such\": No such file or directory"},
        {"/proc/self/exe:/x", "--bind: \"/proc/self/exe\" has a symbolic link in it; expected the path without one"},
    };
    struct jail *jail = *state;
    struct outcome outcome;

    for (size_t i = 0; i < array_length(wrong); i++) {
        char value[64];

        strcpy(value, wrong[i].value);
        jail_run(jail, &outcome, "--bind", value, NULL);
        assert_refused(&outcome, "%s", wrong[i].says);
        assert_nothing_left(jail);
    }
}

/* As a tmpfs of Linux 6.1 is; here it is the cgroups' file system. */
static void test_own_says_what_to_do_where_a_file_system_cannot(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--bind", "/sys/fs/cgroup/pids:/groups:own", NULL);
    assert_refused(&outcome,
                   "--bind: the file system of \"/sys/fs/cgroup/pids\" cannot show it as another user's (own takes "
                   "idmapped mounts, which a tmpfs has since Linux 6.3); chown it to %d:%d and leave own out: Invalid "
                   "argument",
                   JAIL_UID, JAIL_GID);
    assert_nothing_left(jail);
}

/* The jail's user owns its root and may have put a link there: it is not followed, whichever part it is. */
static void test_a_link_in_the_jail_is_not_followed(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    const char *outside = jail_path(jail, "outside");

    assert_int_equal(mkdir(outside, 0755), 0);
    assert_int_equal(mkdir(jail_path(jail, "base/%s", jail->exec_name), 0755), 0);
    assert_int_equal(mkdir(jail_path(jail, "base/%s/%s", jail->exec_name, jail->id), 0755), 0);
    assert_int_equal(mkdir(jail_root(jail, ""), 0755), 0);
    assert_int_equal(symlink(outside, jail_root(jail, "way")), 0);
    jail_run(jail, &outcome, "--bind", "/etc/passwd:/way/passwd", NULL);
    assert_refused(&outcome, "--bind: cannot open the way to \"/way/passwd\" in the jail (a link is refused): "
                             "Not a directory");
    assert_int_not_equal(access(jail_path(jail, "outside/passwd"), F_OK), 0);
}

JAIL_MAIN(jail_test(test_a_file_is_shown_and_nothing_is_left),
          jail_test(test_a_file_of_the_hosts_root_is_the_jails_with_own),
          jail_test(test_a_device_is_shown_as_its_mode_and_options_say),
          jail_test(test_a_bind_that_makes_no_sense_is_refused),
          jail_test(test_own_says_what_to_do_where_a_file_system_cannot),
          jail_test(test_a_link_in_the_jail_is_not_followed))
