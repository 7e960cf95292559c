#include "tests/machine/jailed.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/clock.h"

enum { TEXT_MAX = 16384 };

bool machine_is_jailed(void)
{
    return getenv("MAYFLY_JAILED") != NULL;
}

/* A network namespace that the test made has the tap it is about: the jail stays in it. */
static bool test_has_network_of_its_own(void)
{
    struct stat ours, parents;
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/ns/net", getppid());
    return stat("/proc/self/ns/net", &ours) != 0 || stat(path, &parents) != 0 || ours.st_ino != parents.st_ino;
}

/* The last part of the VM's directory: names its folder of jails and its cgroups. */
static const char *name_of(const struct vm *vm)
{
    return strrchr(vm->directory, '/') + 1;
}

/* A folder beside the VM's directory, which the jail shows. */
static void place_of(const struct vm *vm, const char *rest, char path[128])
{
    snprintf(path, 128, "%s.jailed%s", vm->directory, rest);
}

struct words {
    char **words;
    size_t count;
    char *text;
    size_t used;
};

static void add(struct words *words, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct words *words, const char *format, ...)
{
    va_list arguments;

    assert_true(words->count + 1 < JAILED_ARGUMENTS_MAX);
    words->words[words->count++] = words->text + words->used;
    va_start(arguments, format);
    words->used += (size_t)vsnprintf(words->text + words->used, TEXT_MAX - words->used, format, arguments) + 1;
    va_end(arguments);
    assert_true(words->used < TEXT_MAX);
}

static void show(struct words *words, const char *path, const char *how)
{
    add(words, "--bind");
    add(words, "%s:%s:%s", path, path, how);
}

/* The VM's directory, the guests, and the files that the VMM's options name. */
static void show_files(struct words *words, const struct vm *vm, const struct machine_options *options)
{
    char guests[PATH_MAX];
    struct stat status;

    show(words, vm->directory, "own");
    show(words, vm_path(vm, "shared"), "own,ro");
    snprintf(guests, sizeof(guests), "%s", guest_image("."));
    *strrchr(guests, '/') = '\0';
    show(words, guests, "ro");
    if (options->shows != NULL)
        show(words, options->shows, "own");
    for (const char *const *word = options->arguments; word != NULL && *word != NULL; word++)
        if ((*word)[0] == '/' && stat(*word, &status) == 0 && !S_ISDIR(status.st_mode))
            show(words, *word, "own");
}

void jailed_arguments(const struct vm *vm, const struct machine_options *options, const char *vmm,
                      char *const *arguments, char *jailer[JAILED_ARGUMENTS_MAX], char **text)
{
    struct words words = {.words = jailer, .text = malloc(TEXT_MAX)};
    char base[128], real[PATH_MAX], exec[128];

    place_of(vm, "", base);
    assert_int_equal(mkdir(base, 0755), 0);
    /* Called by the name that the test wants; the link is followed. */
    assert_non_null(realpath(vmm, real));
    place_of(vm, "/", exec);
    strcat(exec, options->name == NULL ? "mayfly-vmm" : strrchr(options->name, '/') + 1);
    assert_int_equal(symlink(real, exec), 0);
    place_of(vm, "/base", base);
    assert_int_equal(mkdir(base, 0755), 0);

    *text = words.text;
    add(&words, "mayfly-jailer");
    add(&words, "--id=test");
    add(&words, "--exec-file=%s", exec);
    add(&words, "--uid=%u", geteuid() == 0 ? JAILED_UID : geteuid());
    add(&words, "--gid=%u", geteuid() == 0 ? JAILED_GID : getegid());
    add(&words, "--chroot-base-dir=%s", base);
    add(&words, "--parent-cgroup=%s", name_of(vm));
    add(&words, "--new-ipc-ns");
    add(&words, "--new-uts-ns");
    add(&words, "--new-cgroup-ns");
    if (!test_has_network_of_its_own())
        add(&words, "--new-net-ns");
    show_files(&words, vm, options);
    add(&words, "--");
    for (size_t i = 3; arguments[i] != NULL; i++) /* the name and --id are the jailer's to give */
        add(&words, "%s", arguments[i]);
    jailer[words.count] = NULL;
}

void jailed_remove(const struct vm *vm)
{
    static const char *const tops[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"};
    char path[256];

    place_of(vm, "", path);
    test_remove(path);
    for (size_t i = 0; i < array_length(tops); i++) {
        snprintf(path, sizeof(path), "%s/%s", tops[i], name_of(vm));
        test_remove_cgroup(path);
    }
}
