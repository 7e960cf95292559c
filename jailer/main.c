/*
 * mayfly-jailer: builds a jail and becomes the VMM in it.
 *
 * The order of the steps is what makes the walls hold:
 *   - inherited state goes first, so that nothing later can use it by mistake;
 *   - what needs the host's view (the binary, device numbers, cgroups, the network namespace) is opened before it is
 *     left;
 *   - what --bind shows is opened inside the new mount namespace, while it still looks like the host's, and attached
 *     by descriptor;
 *   - the folder is opened inside the new mount namespace, where nothing propagates to the host, and locked before the
 *     cgroups are touched: those of a jail that exists stay as they are;
 *   - cgroups before the other namespaces, so that a new cgroup namespace is rooted in them, and while there is one
 *     thread;
 *   - privileges go last: ids, capabilities, no_new_privs, then Landlock, then the seccomp filter, which allows little
 *     more than the exec that follows.
 * An ordinary user's jail has one step more, before the mount namespace: the user namespace, which gives the rights
 * that the others take. A reduced jail (reduced.h) leaves out what a container does not let it do, and says so. Each
 * step pushes what it leaves on the host; a failure takes all of it back (undo.h, guardian.h).
 */
#include "jailer/arguments.h"
#include "jailer/base_filter.h"
#include "jailer/binds.h"
#include "jailer/cgroup.h"
#include "jailer/devices.h"
#include "jailer/exec_file.h"
#include "jailer/folder.h"
#include "jailer/guardian.h"
#include "jailer/identity.h"
#include "jailer/landlock.h"
#include "jailer/limits.h"
#include "jailer/missing.h"
#include "jailer/namespaces.h"
#include "jailer/privilege.h"
#include "jailer/process.h"
#include "jailer/reduced.h"
#include "jailer/root.h"
#include "jailer/sanitize.h"
#include "jailer/undo.h"
#include "jailer/user_namespace.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct jail {
    struct jail_config config;
    struct undo undo;
    struct cgroup cgroup;
    struct cgroup_tree delegated; /* an ordinary user's */
    struct devices devices;
    struct missing missing; /* walls, in a reduced jail */
    bool outside;           /* the root could not be changed */
    struct waiter waiter;   /* with --new-pid-ns */
    int exec_fd;
    int netns_fd;
    int null_fd;
    int root_fd;
    int bind_fds[JAIL_BINDS_MAX];
    int report_fd; /* where a failure is told: stderr, or the process that --daemonize left waiting */
    pid_t pid;     /* on the host */
    struct parent parent;
    uint64_t start_time_us;
    uint64_t parent_cpu_us;
};

/* What must be found on the host before its view is left. */
static struct error *look_around(struct jail *jail)
{
    struct error *error = exec_file_open(jail->config.exec_file, &jail->exec_fd);

    if (error == NULL)
        error = devices_look_up(&jail->config, &jail->devices);
    if (error == NULL)
        error = namespaces_open_netns(&jail->config, &jail->netns_fd);
    if (error != NULL || !jail->config.daemonize)
        return error;
    jail->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    return jail->null_fd < 0 ? error_errno(errno, "--daemonize: cannot open /dev/null") : NULL;
}

/* Returns in the process that goes on; the one that waits for it exits here with its code. */
static struct error *enter_processes(struct jail *jail)
{
    bool joined = false;
    struct error *error = NULL;

    if (jail->config.daemonize)
        error = process_daemonize(jail->null_fd, &jail->report_fd);
    if (error == NULL && jail->config.new_pid_ns) {
        uint64_t cpu = clock_process_cpu_us();

        error = namespaces_enter_time(&jail->config);
        if (error == NULL)
            error = process_fork(&jail->cgroup, &joined, &jail->waiter, &jail->pid);
        jail->parent_cpu_us = cpu;
        if (jail->waiter.child > 0)
            _exit(jail->config.daemonize ? 0 : process_wait(&jail->waiter));
    } else {
        jail->pid = getpid();
    }
    if (error == NULL && !joined)
        error = cgroup_join(&jail->cgroup);
    return error;
}

static struct error *build_root(struct jail *jail)
{
    struct error *error = folder_write_pid(&jail->config, jail->root_fd, jail->pid, &jail->undo);

    if (error == NULL && jail->config.mode == JAIL_REDUCED)
        error = reduced_enter_root(&jail->config, &jail->devices, jail->root_fd, &jail->undo, &jail->missing,
                                   &jail->outside);
    if (jail->config.mode == JAIL_REDUCED)
        return error != NULL ? error : binds_copy(&jail->config, jail->bind_fds, jail->root_fd, &jail->undo);
    if (error == NULL)
        error = root_mount(&jail->config, &jail->devices, &jail->undo, &jail->root_fd);
    /* In the jail's mounts: a place may be in its /dev. */
    if (error == NULL)
        error = binds_make_places(&jail->config, jail->bind_fds, jail->root_fd, &jail->undo);
    if (error == NULL)
        error = binds_mount(&jail->config, jail->bind_fds, jail->root_fd, &jail->undo);
    if (error == NULL)
        error = root_enter(jail->root_fd);
    return error; /* root_fd stays open until exec: undo needs it */
}

static struct error *apply_landlock(struct jail *jail)
{
    const char *nodes[DEVICES_COUNT + 1];
    size_t count = 0;
    bool applied;

    for (size_t i = 0; jail->outside && i < DEVICES_COUNT; i++)
        if ((nodes[count] = devices_path(&jail->config, &jail->devices, i)) != NULL)
            count++;
    nodes[count] = NULL;

    struct error *error = landlock_apply(jail->exec_fd, nodes, &applied);
    if (error == NULL && jail->outside && !applied)
        missing_add(&jail->missing, "any wall around files (no Landlock in this kernel)");
    return error;
}

static struct error *drop_privileges(struct jail *jail)
{
    struct error *error = limits_apply(&jail->config);

    if (error == NULL)
        error = guardian_start(&jail->undo);
    if (error == NULL && !jail->config.new_pid_ns)
        error = namespaces_enter_time(&jail->config);
    if (error == NULL)
        error = identity_drop(&jail->config, &jail->missing);
    if (error == NULL && jail->config.mode != JAIL_ROOT)
        error = devices_check_access(&jail->config);
    if (error == NULL)
        error = apply_landlock(jail);
    if (error == NULL && jail->config.new_pid_ns && !jail->config.daemonize)
        error = process_end_with_waiter(&jail->waiter);
    /* There is no pid namespace to end with it. In other jails it is lost, as in Firecracker's. */
    if (error == NULL && jail->config.mode == JAIL_REDUCED && !jail->config.daemonize)
        error = process_end_with_parent(&jail->parent);
    return error;
}

/* Replaces this program by the VMM; returns only when that fails. */
static struct error *become_vmm(struct jail *jail)
{
    static char *const environment[] = {NULL};
    const struct jail_config *config = &jail->config;
    char name[NAME_MAX + 2], numbers[3][24];
    const char **arguments = calloc(config->vmm_argument_count + 10, sizeof(*arguments));
    size_t count = 0;

    if (arguments == NULL)
        return error_errno(ENOMEM, "cannot start the VMM");
    snprintf(numbers[0], sizeof(numbers[0]), "%llu", (unsigned long long)jail->start_time_us);
    snprintf(numbers[1], sizeof(numbers[1]), "%llu", (unsigned long long)clock_process_cpu_us());
    snprintf(numbers[2], sizeof(numbers[2]), "%llu", (unsigned long long)jail->parent_cpu_us);

    /* As if it lay in the jail's root, where Firecracker's copy of it does: tools look for "/firecracker --id ID". */
    snprintf(name, sizeof(name), "/%s", config->exec_name);
    const char *const first[] = {name,       "--id",
                                 config->id, "--start-time-us",
                                 numbers[0], "--start-time-cpu-us",
                                 numbers[1], "--parent-cpu-time-us",
                                 numbers[2]};
    for (size_t i = 0; i < array_length(first); i++)
        arguments[count++] = first[i];
    for (size_t i = 0; i < config->vmm_argument_count; i++)
        arguments[count++] = config->vmm_arguments[i];

    missing_print(&jail->missing);
    /* Who started us learns what the jail took, whatever clock its stderr is read by. */
    if (config->announce)
        dprintf(jail->report_fd, JAIL_ANNOUNCEMENT "%llu us\n", (unsigned long long)clock_monotonic_us());
    /* The filter is loaded last: nothing but the exec happens under it. */
    struct error *error = config->no_base_filter ? NULL : base_filter_load();
    if (error == NULL) {
        syscall(SYS_execveat, jail->exec_fd, "", arguments, environment, AT_EMPTY_PATH);
        error = error_errno(errno, "--exec-file: cannot run \"%s\"", config->exec_file);
    }
    free(arguments);
    return error;
}

static struct error *create_cgroup(struct jail *jail)
{
    struct jail_config *config = &jail->config;

    if (config->mode == JAIL_REDUCED) {
        reduced_create_cgroup(config, &jail->cgroup, &jail->undo, &jail->missing);
        /* What counts a user's processes counts the container's, too, when the user is not the jail's own. */
        if (!jail->cgroup.limits_processes && config->uid != geteuid())
            config->limits.processes = JAIL_PIDS_MAX_DEFAULT;
        return NULL;
    }

    if (config->mode == JAIL_ROOT) {
        struct error *error = cgroup_create(config, &jail->cgroup, &jail->undo);

        if (error == NULL)
            cgroup_note_root(&jail->cgroup, jail->root_fd);
        return error;
    }
    struct error *error = cgroup_delegated_create(config, &jail->delegated, &jail->cgroup, &jail->undo);
    if (error == NULL && !jail->cgroup.limits_processes)
        config->limits.processes = JAIL_PIDS_MAX_DEFAULT; /* counted in the user namespace alone */
    return error;
}

static struct error *build(struct jail *jail)
{
    struct error *error = look_around(jail);

    if (error == NULL && jail->config.mode == JAIL_REDUCED)
        error = reduced_prepare(&jail->config, &jail->missing);
    if (error == NULL && jail->config.mode == JAIL_USER)
        error = user_namespace_enter(&jail->config);
    if (error == NULL && jail->config.mode != JAIL_REDUCED)
        error = namespaces_enter_mount();
    if (error == NULL)
        error = binds_open(&jail->config, jail->bind_fds);
    if (error == NULL && jail->config.mode == JAIL_USER)
        error = cgroup_delegated_find(&jail->config, &jail->delegated);
    if (error == NULL)
        error = folder_open(&jail->config, &jail->undo, &jail->root_fd);
    if (error == NULL)
        error = create_cgroup(jail);
    if (error == NULL)
        error = enter_processes(jail);
    if (error == NULL)
        error = namespaces_enter(&jail->config, jail->netns_fd);
    if (error == NULL)
        error = build_root(jail);
    if (error == NULL)
        error = drop_privileges(jail);
    if (error == NULL)
        error = become_vmm(jail);
    guardian_undo(&jail->undo);
    return error;
}

static int report(int fd, const struct error *error)
{
    dprintf(fd, "mayfly-jailer: %s\n", error->message);
    return EXIT_FAILURE;
}

/* By a link, or in the place of jailer-v1.11.0-x86_64: callers compare the version of the program that they know. */
static bool is_called_jailer(const char *program)
{
    static const char known[] = "jailer";
    const char *slash = program == NULL ? NULL : strrchr(program, '/');

    return program != NULL && strncmp(slash == NULL ? program : slash + 1, known, strlen(known)) == 0;
}

int main(int argc, char *argv[])
{
    static struct jail jail = {.exec_fd = -1,
                               .netns_fd = -1,
                               .null_fd = -1,
                               .root_fd = -1,
                               .report_fd = STDERR_FILENO,
                               .waiter = {.proc_fd = -1, .alive_fd = -1}};
    enum jail_request request;

    jail.start_time_us = clock_monotonic_us();
    process_note_parent(&jail.parent);

    const char *base = privilege_default_base(getenv("XDG_RUNTIME_DIR"));
    struct error *error = sanitize_process();
    if (error == NULL)
        error = arguments_parse(argc, argv, base, &jail.config, &request);
    if (error != NULL)
        return report(STDERR_FILENO, error);
    if (request == JAIL_HELP) {
        arguments_print_help();
        return EXIT_SUCCESS;
    }
    if (request == JAIL_VERSION) {
        /* The first line is only the version: callers parse the rest of it. */
        if (is_called_jailer(argv[0]))
            puts("Jailer v" JAILER_COMPATIBLE_VERSION "\n");
        puts("Mayfly jailer v" MAYFLY_VERSION);
        return EXIT_SUCCESS;
    }
    error = privilege_choose_mode(&jail.config);
    if (error == NULL)
        error = build(&jail);
    return report(jail.report_fd, error);
}
