#include "api/cli/run_jail.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "api/cli/jail_remove.h"
#include "api/cli/run_jail_defaults.h"
#include "jailer/jail.h"
#include "vmm/base/checked.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

enum {
    NAMES_MAX = 16,
    PATIENCE_MS = 30000,
    END_PATIENCE_US = 5000000,
    END_LOOK_US = 200,
    /* What the VMM takes beside its guest's memory, its page tables included: 64 MiB and a thirty-second of it. */
    OVERHEAD_MIB = 64,
    OVERHEAD_SHARE = 32,
    /* A range that neither systemd nor shadow gives away; a process id, of 22 bits, is added. */
    UID_FIRST = 0x70000000,
};

/* --- Words --- */

static void add_word(struct run_jail *jail, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_word(struct run_jail *jail, const char *format, ...)
{
    va_list arguments;
    char *word = NULL;

    va_start(arguments, format);
    if (jail->word_count == RUN_JAIL_WORDS_MAX - 1 || vasprintf(&word, format, arguments) < 0)
        abort();
    va_end(arguments);
    jail->words[jail->word_count++] = word;
}

static void add_option(struct run_jail *jail, const char *name, const char *value)
{
    add_word(jail, "%s", name);
    add_word(jail, "%s", value);
}

/* --- Whose it is --- */

/* Whether this user namespace knows the id; in the first one all are. */
static bool is_mapped(const char *map, uint32_t id, uint32_t *last)
{
    FILE *file = fopen(map, "re");
    unsigned long long inside, outside, count;
    bool mapped = file == NULL;

    while (file != NULL && fscanf(file, "%llu %llu %llu", &inside, &outside, &count) == 3) {
        mapped = mapped || (id >= inside && id - inside < count);
        *last = (uint32_t)(inside + count - 1);
    }
    if (file != NULL)
        fclose(file);
    return mapped;
}

static uint64_t effective_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};

    if (syscall(SYS_capget, &header, data) != 0)
        return 0;
    return (uint64_t)data[1].effective << 32 | data[0].effective;
}

static bool makes_namespaces(void)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0)
        _exit(unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 ? 0 : 1);
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

/*
 * Whether the jail can have a user of its own. An ordinary user has no other ids to give. Root of a container gives one
 * only in a reduced jail with device nodes of its own: it must reach and end what it starts, and the container's own
 * /dev/kvm is its root's.
 */
static bool can_have_own_user(const struct run_options *options)
{
    const uint64_t needed = 1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_KILL | 1ull << CAP_SETGID |
                            1ull << CAP_SETUID | 1ull << CAP_SYS_CHROOT | 1ull << CAP_MKNOD;
    uint64_t capabilities = effective_capabilities();

    if (geteuid() != 0 || (capabilities >> CAP_SYS_ADMIN & 1) != 0)
        return geteuid() == 0;
    return options->allow_reduced && (capabilities & needed) == needed && !makes_namespaces();
}

static struct error *choose_identity(struct run_jail *jail, const struct run_options *options)
{
    uint32_t last = 0;

    jail->uid = UID_FIRST + (uint32_t)getpid();
    jail->gid = jail->uid;
    if (options->has_jail_uid) {
        if (geteuid() != 0 && options->jail_uid != geteuid())
            return error_new(
                ERROR_INPUT,
                "--jail-uid \"%u\": the microVM's sockets would be out of your reach; expected your own, %u",
                options->jail_uid, geteuid());
        jail->uid = options->jail_uid;
        jail->gid = options->jail_gid;
        return NULL;
    }
    if (!can_have_own_user(options)) {
        jail->uid = geteuid();
        jail->gid = getegid();
        return NULL;
    }
    if (!is_mapped("/proc/self/uid_map", jail->uid, &last))
        jail->uid = last;
    if (!is_mapped("/proc/self/gid_map", jail->gid, &last))
        jail->gid = last;
    return NULL;
}

/* --- Where it is --- */

static struct error *make_folders(struct run_jail *jail, const struct run_options *options, char **base)
{
    const char *wanted = options->jail_dir != NULL ? options->jail_dir : run_jail_base();

    if (mkdir(wanted, geteuid() == 0 ? 0755 : 0700) != 0 && errno != EEXIST)
        return error_errno(errno, "cannot make %s for the jail; --jail-dir names another place", wanted);
    *base = realpath(wanted, NULL);
    if (*base == NULL)
        return error_errno(errno, "--jail-dir %s", wanted);
    if (asprintf(&jail->exec, "%s/%s", *base, jail->exec_name) < 0)
        abort();
    return NULL;
}

/*
 * Named after this process: nobody else has that while we live. What is there already is left by a dead one, or
 * belongs to a process of another pid namespace.
 */
static struct error *choose_id(struct run_jail *jail)
{
    cleanup_fd int exec = open(jail->exec, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    for (unsigned i = 0; i < NAMES_MAX; i++) {
        enum jail_state state = JAIL_GONE;

        snprintf(jail->id, sizeof(jail->id), i == 0 ? "run-%d" : "run-%d-%u", getpid(), i);
        if (exec >= 0)
            error_free(jail_remove(exec, jail->exec_name, jail->id, false, &state));
        if (exec < 0 || faccessat(exec, jail->id, F_OK, 0) != 0)
            return NULL;
    }
    return error_new(ERROR_HOST, "%s has %d jails of the name run-%d already", jail->exec, NAMES_MAX, getpid());
}

/* --- What it sees --- */

/*
 * Shows the file *path at `place` below the jail's root. A file that the jail's user may not read, or is to write, is
 * made its own there: the host's file keeps its owner.
 */
static struct error *show(struct run_jail *jail, const char *what, char **path, const char *place, bool writable,
                          uint64_t *size)
{
    char *real;
    struct stat status;

    if (*path == NULL)
        return NULL;
    real = realpath(*path, NULL);
    if (real == NULL || stat(real, &status) != 0) {
        struct error *error = error_errno(errno, "%s %s", what, *path);

        free(real);
        return error;
    }
    bool readable = (status.st_mode & S_IROTH) != 0 || (status.st_uid == jail->uid && (status.st_mode & S_IRUSR) != 0);
    /* Only root can make it another's. */
    bool own = geteuid() == 0 && status.st_uid != jail->uid && (writable || !readable);

    add_word(jail, "--bind");
    add_word(jail, "%s:/%s:%s%s", real, place, writable ? "rw" : "ro", own ? ",own" : "");
    if (writable && (uint64_t)status.st_size > *size)
        *size = (uint64_t)status.st_size;
    free(real);
    jail->files[jail->file_count].place = place;
    jail->files[jail->file_count++].path = *path;
    *path = strdup(place);
    return *path != NULL ? NULL : error_errno(ENOMEM, "%s", what);
}

/*
 * The socket's folder is shown, as the VMM's own, so that it can make the socket and reach those that host programs put
 * beside it. All in it is within a taken VMM's reach: a folder that is shared with others will not do.
 */
static struct error *show_vsock(struct run_jail *jail, const struct run_options *options)
{
    const char *path = options->vsock_path;
    const char *slash = path == NULL ? NULL : strrchr(path, '/');
    cleanup_free char *folder = slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    cleanup_free char *real = NULL;
    struct stat status, there;

    if (path == NULL)
        return NULL;
    real = folder == NULL ? NULL : realpath(folder, NULL);
    if (real == NULL || stat(real, &status) != 0)
        return error_errno(errno, "--vsock %s", path);
    if (lstat(path, &there) == 0 && !S_ISSOCK(there.st_mode))
        return error_new(ERROR_INPUT, "--vsock %s: exists and is not a socket", path);
    if (status.st_uid != geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0 || strcmp(real, "/") == 0)
        return error_new(ERROR_INPUT,
                         "--vsock %s: in a jail the microVM sees all of the socket's folder; expected one of its own "
                         "that no other user writes, or --no-jail",
                         path);
    add_word(jail, "--bind");
    add_word(jail, "%s:/" RUN_JAIL_VSOCK ":rw%s", real, status.st_uid == jail->uid ? "" : ",own");
    snprintf(jail->vsock, sizeof(jail->vsock), RUN_JAIL_VSOCK "/%.60s", slash == NULL ? path : slash + 1);
    return NULL;
}

/* The sockets become the jail's user's, who can connect to them; the folder stays ours, and read-only there. */
static struct error *show_mounts(struct run_jail *jail, const struct run_options *options)
{
    cleanup_fd int folder = -1;

    if (jail->mounts == NULL)
        return NULL;
    folder = open(jail->mounts, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0 || fchmod(folder, 0711) != 0)
        return error_errno(errno, "--mount: cannot show %s in the jail", jail->mounts);
    for (size_t i = 0; i < options->mount_count; i++) {
        char name[24];

        snprintf(name, sizeof(name), "%zu", i);
        if (fchownat(folder, name, jail->uid, jail->gid, AT_SYMLINK_NOFOLLOW) != 0)
            return error_errno(errno, "--mount: cannot give the jail's user a socket");
    }
    add_word(jail, "--bind");
    add_word(jail, "%s:/" RUN_JAIL_MOUNTS ":ro", jail->mounts);
    return NULL;
}

static uint64_t memory_limit(uint64_t guest_mib)
{
    uint64_t mib, bytes;

    if (!checked_add(guest_mib, guest_mib / OVERHEAD_SHARE + OVERHEAD_MIB, &mib) ||
        !checked_mul(mib, 1ull << 20, &bytes) || bytes > INT64_MAX)
        return INT64_MAX; /* the API will refuse it */
    return bytes;
}

static struct error *add_files(struct run_jail *jail, const struct run_options *options, struct located *located)
{
    /* No file grows beyond the guest's memory (which may be one) or the image that it may write. */
    uint64_t largest;
    struct error *error;

    if (!checked_mul(options->memory_mib, 1ull << 20, &largest) || largest > INT64_MAX)
        largest = INT64_MAX;
    error = show(jail, "kernel", &located->kernel, "kernel", false, &largest);
    if (error == NULL)
        error = show(jail, "initrd", &located->initrd, "initrd", false, &largest);
    if (error == NULL)
        error = show(jail, "rootfs", &located->rootfs, "rootfs", options->writable, &largest);
    if (error == NULL)
        error = show_vsock(jail, options);
    if (error == NULL)
        error = show_mounts(jail, options);
    add_word(jail, "--resource-limit");
    add_word(jail, "fsize=%llu", (unsigned long long)largest);
    return error;
}

static struct error *prepare(struct run_jail *jail, const struct run_options *options, struct located *located)
{
    static const char *const walls[] = {"--new-pid-ns",  "--new-ipc-ns",     "--new-uts-ns", "--new-cgroup-ns",
                                        "--new-time-ns", "--no-userfaultfd", "--announce"};
    cleanup_free char *vmm = realpath(located->vmm, NULL);
    cleanup_free char *base = NULL;
    struct error *error;

    if (vmm == NULL)
        return error_errno(errno, "--vmm %s", located->vmm);
    jail->exec_name = strdup(strrchr(vmm, '/') + 1);
    if (jail->exec_name == NULL)
        abort();
    error = choose_identity(jail, options);
    if (error == NULL)
        error = make_folders(jail, options, &base);
    if (error == NULL)
        error = choose_id(jail);
    if (error != NULL)
        return error;

    add_word(jail, "mayfly-jailer");
    add_option(jail, "--id", jail->id);
    add_option(jail, "--exec-file", vmm);
    add_word(jail, "--uid=%u", jail->uid);
    add_word(jail, "--gid=%u", jail->gid);
    add_option(jail, "--chroot-base-dir", base);
    add_word(jail, "--memory-limit=%llu", (unsigned long long)memory_limit(options->memory_mib));
    for (size_t i = 0; i < array_length(walls); i++)
        add_word(jail, "%s", walls[i]);
    if (options->allow_reduced)
        add_word(jail, "--allow-reduced");
    /* A tap is opened by its name, in the network namespace that it is in: the caller's. */
    if (options->net.tap[0] == '\0') {
        add_word(jail, "--new-net-ns");
        add_word(jail, "--no-tun");
    }
    if (options->net.vhost)
        add_word(jail, "--vhost-net");
    error = add_files(jail, options, located);
    add_word(jail, "--");
    add_option(jail, "--api-sock", RUN_JAIL_SOCKETS "/api");
    add_option(jail, "--level", "Warning");
    return error;
}

struct error *run_jail_prepare(struct run_jail *jail, const struct run_options *options, struct located *located)
{
    jail->used = false;
    if (options->no_jail)
        return NULL;
    if (located->jailer == NULL)
        return error_new(ERROR_INPUT, "mayfly-jailer is neither beside mayfly nor on PATH; --no-jail does without");
    jail->used = true;
    return prepare(jail, options, located);
}

/* --- Its beginning and its end --- */

/* What the jailer said last is why it failed. */
static struct error *failure(const char *text)
{
    static const char prefix[] = "mayfly-jailer: ";
    /* What our user knows them by. */
    static const struct {
        const char *jailers, *ours;
    } options[] = {{"--chroot-base-dir", "--jail-dir"}, {"--exec-file", "--vmm"}};
    const char *last = NULL;

    for (const char *at = strstr(text, prefix); at != NULL; at = strstr(at + 1, prefix))
        last = at;
    if (last == NULL)
        return error_new(ERROR_HOST, "mayfly-jailer ended before the jail stood");

    const char *reason = last + strlen(prefix), *option = "";
    for (size_t i = 0; i < array_length(options); i++)
        if (strncmp(reason, options[i].jailers, strlen(options[i].jailers)) == 0) {
            option = options[i].ours;
            reason += strlen(options[i].jailers);
            break;
        }
    int length = (int)strcspn(reason, "\n");

    /* Without KVM nobody can do. */
    return error_new(ERROR_HOST, "the jail: %s%.*s%s", option, length, reason,
                     memmem(reason, (size_t)length, "/dev/kvm", 8) != NULL ? "" : "; --no-jail does without");
}

/* Who allowed a reduced jail is told what it lacks. */
static void tell_what_is_missing(const char *text)
{
    const char *note = strstr(text, JAIL_REDUCED_NOTE);

    if (note != NULL)
        dprintf(STDERR_FILENO, "mayfly: %.*s\n", (int)strcspn(note, "\n"), note);
}

struct error *run_jail_await(int log_fd, int process_fd, struct tail *log, uint64_t *stands_us)
{
    char text[4096] = "";
    size_t length = 0;

    for (;;) {
        struct pollfd wait[] = {{.fd = log_fd, .events = POLLIN}, {.fd = process_fd, .events = POLLIN}};
        char *line, *end;

        if (poll(wait, 2, PATIENCE_MS) == 0)
            return error_new(ERROR_HOST, "mayfly-jailer did not build the jail within %d s", PATIENCE_MS / 1000);
        ssize_t got = read(log_fd, text + length, sizeof(text) - 1 - length);
        if (got > 0)
            length += (size_t)got;
        text[length] = '\0';
        line = strstr(text, JAIL_ANNOUNCEMENT);
        end = line == NULL ? NULL : strchr(line, '\n');
        if (end != NULL) {
            *stands_us = strtoull(line + strlen(JAIL_ANNOUNCEMENT), NULL, 10);
            tell_what_is_missing(text);
            tail_add(log, text, (size_t)(line - text));
            tail_add(log, end + 1, strlen(end + 1));
            return NULL;
        }
        if (got == 0 || length == sizeof(text) - 1 || (got < 0 && wait[1].revents != 0))
            return failure(text);
    }
}

/* `error` with "PLACE" in quotes of either kind replaced by "PATH". */
static struct error *rename_file(struct error *error, const char *place, const char *path)
{
    const size_t length = strlen(place);

    for (const char *at = strstr(error->message, place); at != NULL; at = strstr(at + 1, place)) {
        struct error *renamed;

        if (at == error->message || (at[-1] != '"' && at[-1] != '\'') || at[length] != at[-1])
            continue;
        renamed = error_new(error->kind, "%.*s%s%s", (int)(at - error->message), error->message, path, at + length);
        renamed->code = error->code;
        error_free(error);
        return renamed;
    }
    return error;
}

struct error *run_jail_explain(const struct run_jail *jail, struct error *error)
{
    for (size_t i = 0; error != NULL && i < jail->file_count; i++)
        error = rename_file(error, jail->files[i].place, jail->files[i].path);
    return error;
}

struct error *run_jail_remove(const struct run_jail *jail)
{
    uint64_t until = clock_monotonic_us() + END_PATIENCE_US;
    cleanup_fd int exec = -1;
    enum jail_state state;
    struct error *error;

    if (!jail->used || jail->exec == NULL)
        return NULL;
    exec = open(jail->exec, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (exec < 0)
        return NULL; /* the jailer's failed start took it back */
    /* A jailer that was killed may have a child that still takes back what it began. */
    do {
        error = jail_remove(exec, jail->exec_name, jail->id, false, &state);
    } while (error == NULL && (state == JAIL_ALIVE || state == JAIL_BUILDING) && clock_monotonic_us() < until &&
             nanosleep(&(struct timespec){.tv_nsec = END_LOOK_US * 1000}, NULL) == 0);
    if (error == NULL && (state == JAIL_ALIVE || state == JAIL_BUILDING))
        return error_new(ERROR_HOST, "the jail %s/%s is still in use; mayfly gc removes it later", jail->exec,
                         jail->id);
    /* If it was the last: a jailer that is about to use the folder makes it again. The base may be open somewhere. */
    if (error == NULL)
        rmdir(jail->exec);
    return error;
}

void run_jail_free(struct run_jail *jail)
{
    for (size_t i = 0; i < jail->word_count; i++)
        free(jail->words[i]);
    for (size_t i = 0; i < jail->file_count; i++)
        free(jail->files[i].path);
    free(jail->exec);
    free(jail->exec_name);
    *jail = (struct run_jail){0};
}
