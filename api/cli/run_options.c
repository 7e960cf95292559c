#include "api/cli/run_options.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/cli/option_next.h"
#include "vmm/base/checked.h"
#include "vmm/base/cleanup.h"
#include "vmm/config.h"

const char run_help[] = "Usage: mayfly run [OPTION...] [--] COMMAND [ARG...]\n"
                        "\n"
                        "Starts a microVM, runs COMMAND in it with this terminal's stdin, stdout and stderr, and\n"
                        "exits with the command's exit code. Nothing is left when it is over.\n"
                        "\n"
                        "The machine:\n"
                        "  --vcpus N          processors, 1 to 32 (default 1)\n"
                        "  --memory SIZE      memory in MiB, or with M or G behind the number (default 128)\n"
                        "  --kernel FILE      kernel: vmlinux or bzImage\n"
                        "  --initrd FILE      initial RAM disk, which holds Mayfly's init\n"
                        "  --rootfs FILE      root file system image: ext4, erofs or squashfs\n"
                        "  --rw               writes go to the image; without it they go to memory and are lost\n"
                        "  --boot-args TEXT   more words for the kernel's command line\n"
                        "  --vmm FILE         the mayfly-vmm to use\n"
                        "  --mount HOST:GUEST[:ro]\n"
                        "                     shows the guest the directory HOST at GUEST, by virtiofsd; may be\n"
                        "                     repeated\n"
                        "  --net[=passt|=tap:NAME[,vhost]][,address=A/BITS][,gateway=A][,dns=A]\n"
                        "                     a network interface: through passt, which needs no root, or on the\n"
                        "                     host's tap NAME, between which and the guest with vhost the host's\n"
                        "                     kernel moves the frames\n"
                        "  --publish [ADDRESS:]PORT:PORT[/udp]\n"
                        "                     passes a port of the host (of 127.0.0.1 unless told otherwise, which\n"
                        "                     udp has to be) on to one of the guest, by passt; may be repeated\n"
                        "  --vsock PATH[:CID] sockets between guest and host by way of the Unix socket PATH, which\n"
                        "                     \"mayfly connect\" talks to; the guest's CID is 3 unless given\n"
                        "\n"
                        "The jail that mayfly-jailer puts around it:\n"
                        "  --no-jail          none: the microVM's process is this user's, beside all others\n"
                        "  --allow-reduced    in a container without CAP_SYS_ADMIN and user namespaces: a jail\n"
                        "                     with fewer walls; stderr tells which are missing\n"
                        "  --jail-dir DIR     where jails are built (default /run/mayfly, and for an\n"
                        "                     ordinary user $XDG_RUNTIME_DIR/mayfly)\n"
                        "  --jail-uid N[:M]   user N and group M of the jail (default: of its own, 0x70000000\n"
                        "                     plus this process's id; an ordinary user's own)\n"
                        "\n"
                        "The command:\n"
                        "  --env K=V          sets a variable; may be repeated. --env K passes this one on\n"
                        "  --cwd DIR          working directory (default /)\n"
                        "  --hostname NAME    host name\n"
                        "  --timeout TIME     ends the microVM when the command is not over by then, counted from\n"
                        "                     the guest's start: seconds, or with ms, s, m or h behind the number\n"
                        "\n"
                        "What happened:\n"
                        "  --timeline         prints on stderr where the time went; --timeline=FILE.svg draws it\n"
                        "  --json             prints the exit code and the timeline on stderr, as one line of JSON;\n"
                        "                     --json=FILE writes it there\n"
                        "  --console FILE     keeps what the kernel says on the serial port\n"
                        "  -h, --help         prints this text\n"
                        "\n"
                        "Kernel, initrd and rootfs that are not given are vmlinux, initramfs.cpio and rootfs.erofs in\n"
                        "$MAYFLY_GUEST, ../share/mayfly or ../guest, seen from where mayfly is.\n"
                        "\n"
                        "SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on to the command; the second of a kind, or\n"
                        "one before the command runs, ends the microVM at once. Exit code: the command's; 128 + N\n"
                        "when signal N killed it; 127 when it was not found; 126 when it could not be executed; 125\n"
                        "when the microVM failed; 124 when --timeout ended it.\n";

enum option_code {
    OPTION_VCPUS = 0x100,
    OPTION_MEMORY,
    OPTION_KERNEL,
    OPTION_INITRD,
    OPTION_ROOTFS,
    OPTION_RW,
    OPTION_BOOT_ARGS,
    OPTION_VMM,
    OPTION_NO_JAIL,
    OPTION_ALLOW_REDUCED,
    OPTION_JAIL_DIR,
    OPTION_JAIL_UID,
    OPTION_ENV,
    OPTION_CWD,
    OPTION_HOSTNAME,
    OPTION_TIMEOUT,
    OPTION_TIMELINE,
    OPTION_JSON,
    OPTION_CONSOLE,
    OPTION_VSOCK,
    OPTION_MOUNT,
    OPTION_NET,
    OPTION_PUBLISH,
};

static const struct option long_options[] = {
    {"vcpus", required_argument, NULL, OPTION_VCPUS},
    {"memory", required_argument, NULL, OPTION_MEMORY},
    {"kernel", required_argument, NULL, OPTION_KERNEL},
    {"initrd", required_argument, NULL, OPTION_INITRD},
    {"rootfs", required_argument, NULL, OPTION_ROOTFS},
    {"rw", no_argument, NULL, OPTION_RW},
    {"boot-args", required_argument, NULL, OPTION_BOOT_ARGS},
    {"vmm", required_argument, NULL, OPTION_VMM},
    {"no-jail", no_argument, NULL, OPTION_NO_JAIL},
    {"allow-reduced", no_argument, NULL, OPTION_ALLOW_REDUCED},
    {"jail-dir", required_argument, NULL, OPTION_JAIL_DIR},
    {"jail-uid", required_argument, NULL, OPTION_JAIL_UID},
    {"env", required_argument, NULL, OPTION_ENV},
    {"cwd", required_argument, NULL, OPTION_CWD},
    {"hostname", required_argument, NULL, OPTION_HOSTNAME},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"timeline", optional_argument, NULL, OPTION_TIMELINE},
    {"json", optional_argument, NULL, OPTION_JSON},
    {"console", required_argument, NULL, OPTION_CONSOLE},
    {"vsock", required_argument, NULL, OPTION_VSOCK},
    {"mount", required_argument, NULL, OPTION_MOUNT},
    {"net", optional_argument, NULL, OPTION_NET},
    {"publish", required_argument, NULL, OPTION_PUBLISH},
    {"help", no_argument, NULL, 'h'},
    {0},
};

/* Digits only: no sign, no blanks. Returns what follows them, or NULL. */
static const char *parse_digits(const char *text, uint64_t *value)
{
    char *end;

    if (!isdigit((unsigned char)*text))
        return NULL;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return errno == 0 ? end : NULL;
}

struct error *run_options_parse_memory(const char *text, uint64_t *mib)
{
    uint64_t value;
    const char *unit = parse_digits(text, &value);
    uint64_t factor = 1;

    if (unit != NULL && (*unit == 'M' || *unit == 'G')) {
        factor = *unit == 'G' ? 1024 : 1;
        unit++;
    }
    if (unit == NULL || *unit != '\0' || !checked_mul(value, factor, &value) || value == 0)
        return error_new(ERROR_INPUT, "--memory \"%s\": expected a number of MiB, or one with M or G behind it", text);
    *mib = value;
    return NULL;
}

/* "90", "1500ms", "90s", "5m" or "1h", in milliseconds. */
static struct error *parse_timeout(const char *text, uint64_t *timeout_ms)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}};
    uint64_t value = 0;
    const char *unit = parse_digits(text, &value);

    for (size_t i = 0; unit != NULL && i < array_length(units); i++)
        if (strcmp(unit, units[i].name) == 0 && checked_mul(value, units[i].ms, timeout_ms) && *timeout_ms > 0)
            return NULL;
    return error_new(ERROR_INPUT,
                     "--timeout \"%s\": expected seconds above 0, or a number with ms, s, m or h behind it", text);
}

static struct error *parse_vcpus(const char *text, uint32_t *vcpus)
{
    uint64_t value = 0;
    const char *end = parse_digits(text, &value);

    if (end == NULL || *end != '\0' || value < 1 || value > VCPUS_MAX)
        return error_new(ERROR_INPUT, "--vcpus \"%s\": expected 1 to %d", text, VCPUS_MAX);
    *vcpus = (uint32_t)value;
    return NULL;
}

/* "PATH" or "PATH:CID"; a colon that no number follows belongs to the path. */
static struct error *parse_vsock(const char *text, char **path, uint32_t *cid)
{
    const char *colon = strrchr(text, ':');
    uint64_t value = VSOCK_GUEST_CID_MIN;
    const char *end = colon != NULL ? parse_digits(colon + 1, &value) : NULL;
    size_t length = end != NULL && *end == '\0' ? (size_t)(colon - text) : strlen(text);

    if (length == 0)
        return error_new(ERROR_INPUT, "--vsock \"%s\": expected the path of a socket", text);
    if (value < VSOCK_GUEST_CID_MIN || value > VSOCK_GUEST_CID_MAX)
        return error_new(ERROR_INPUT, "--vsock \"%s\": expected a CID from %u to %u", text, VSOCK_GUEST_CID_MIN,
                         VSOCK_GUEST_CID_MAX);
    free(*path);
    *path = strndup(text, length);
    if (*path == NULL)
        abort();
    *cid = (uint32_t)value;
    return NULL;
}

/* The guest's path stands in the kernel's command line: no blanks, no quotes. */
static bool is_guest_path(const char *text)
{
    if (*text != '/')
        return false;
    for (; *text != '\0'; text++)
        if (!isgraph((unsigned char)*text) || *text == '"' || *text == ':')
            return false;
    return true;
}

/* "HOST:GUEST" or "HOST:GUEST:ro": a colon in HOST would be one too many. */
static struct error *add_mount(struct run_options *options, const char *text)
{
    struct run_mount *mount = &options->mounts[options->mount_count];
    char *copy, *guest, *word;

    if (options->mount_count == RUN_MOUNTS_MAX)
        return error_new(ERROR_INPUT, "--mount \"%s\": expected at most %d of them", text, RUN_MOUNTS_MAX);
    copy = strdup(text);
    if (copy == NULL)
        abort();
    guest = strchr(copy, ':');
    word = guest != NULL ? strchr(guest + 1, ':') : NULL;
    if (guest != NULL)
        *guest++ = '\0';
    if (word != NULL)
        *word++ = '\0';
    if (*copy == '\0' || guest == NULL || !is_guest_path(guest) || (word != NULL && strcmp(word, "ro") != 0)) {
        free(copy);
        return error_new(
            ERROR_INPUT,
            "--mount \"%s\": expected HOST:GUEST or HOST:GUEST:ro, where GUEST is an absolute path without "
            "blanks, quotes and colons",
            text);
    }
    *mount = (struct run_mount){.host = copy, .guest = guest, .read_only = word != NULL};
    options->mount_count++;
    return NULL;
}

/* 2^32 - 1 means "leave unchanged" to setresuid: never an id. */
static struct error *parse_jail_uid(const char *text, struct run_options *options)
{
    uint64_t uid = 0, gid = 0;
    const char *end = parse_digits(text, &uid);

    gid = uid;
    if (end != NULL && *end == ':')
        end = parse_digits(end + 1, &gid);
    if (end == NULL || *end != '\0' || uid >= UINT32_MAX || gid >= UINT32_MAX)
        return error_new(ERROR_INPUT, "--jail-uid \"%s\": expected a user, or a user and a group, like 1000:1000",
                         text);
    options->has_jail_uid = true;
    options->jail_uid = (uint32_t)uid;
    options->jail_gid = (uint32_t)gid;
    return NULL;
}

/* "K=V" as it is; "K" with the value it has here, or not at all. */
static struct error *add_environment(struct run_options *options, const char *text)
{
    const char *equals = strchr(text, '=');
    const char *value;
    const char **slot = &options->environment[options->environment_count];
    size_t name_length;
    char *joined;

    if (equals == text || *text == '\0')
        return error_new(ERROR_INPUT, "--env \"%s\": expected NAME=VALUE or NAME", text);
    value = equals == NULL ? getenv(text) : NULL;
    if (equals == NULL && value == NULL)
        return NULL;
    name_length = strlen(text);
    joined = malloc(name_length + (value != NULL ? strlen(value) + 2 : 1));
    if (joined == NULL)
        abort();
    strcpy(joined, text);
    if (value != NULL) {
        joined[name_length] = '=';
        strcpy(joined + name_length + 1, value);
    }
    *slot = joined;
    options->environment_count++;
    return NULL;
}

static struct error *take_option(struct run_options *options, int option, const char *value)
{
    switch (option) {
    case OPTION_VCPUS:
        return parse_vcpus(value, &options->vcpus);
    case OPTION_MEMORY:
        return run_options_parse_memory(value, &options->memory_mib);
    case OPTION_KERNEL:
        options->kernel = value;
        return NULL;
    case OPTION_INITRD:
        options->initrd = value;
        return NULL;
    case OPTION_ROOTFS:
        options->rootfs = value;
        return NULL;
    case OPTION_RW:
        options->writable = true;
        return NULL;
    case OPTION_BOOT_ARGS:
        options->boot_args = value;
        return NULL;
    case OPTION_VMM:
        options->vmm = value;
        return NULL;
    case OPTION_MOUNT:
        return add_mount(options, value);
    case OPTION_NET:
        return run_net_options_parse(&options->net, value);
    case OPTION_PUBLISH:
        return run_net_options_publish(&options->net, value);
    case OPTION_NO_JAIL:
        options->no_jail = true;
        return NULL;
    case OPTION_ALLOW_REDUCED:
        options->allow_reduced = true;
        return NULL;
    case OPTION_JAIL_DIR:
        options->jail_dir = value;
        return NULL;
    case OPTION_JAIL_UID:
        return parse_jail_uid(value, options);
    case OPTION_ENV:
        return add_environment(options, value);
    case OPTION_CWD:
        options->cwd = value;
        return NULL;
    case OPTION_HOSTNAME:
        options->hostname = value;
        return NULL;
    case OPTION_TIMEOUT:
        return parse_timeout(value, &options->timeout_ms);
    case OPTION_TIMELINE:
        options->timeline = true;
        options->timeline_path = value;
        return NULL;
    case OPTION_JSON:
        options->json = true;
        options->json_path = value;
        return NULL;
    case OPTION_CONSOLE:
        options->console_path = value;
        return NULL;
    case OPTION_VSOCK:
        return parse_vsock(value, &options->vsock_path, &options->vsock_cid);
    default:
        options->help = true;
        return NULL;
    }
}

struct error *run_options_parse(struct run_options *options, int argc, char **argv)
{
    *options = (struct run_options){.vcpus = 1, .memory_mib = MEM_SIZE_MIB_DEFAULT};
    options->environment = calloc((size_t)argc + 1, sizeof(*options->environment));
    if (options->environment == NULL)
        abort();
    opterr = 0;
    optind = 0; /* so that glibc and musl start afresh */

    struct error *error = NULL;
    for (int option; (option = option_next("mayfly run", argc, argv, "+:h", long_options, &error)) != -1;) {
        if (option == OPTION_JSON)
            error_free(take_option(options, option, optarg)); /* where to tell of what was wrong before */
        else if (error == NULL)
            error = take_option(options, option, optarg);
    }
    if (error == NULL)
        error = run_net_options_complete(&options->net);
    if (error != NULL)
        return error;
    options->command = argv + optind;
    options->command_count = (size_t)(argc - optind);
    if (options->command_count == 0 && !options->help)
        return error_new(ERROR_INPUT, "no command given; see mayfly run --help");
    if (options->command_count > 0 && options->command[0][0] == '\0')
        return error_new(ERROR_INPUT, "the command is an empty word");
    return NULL;
}

void run_options_free(struct run_options *options)
{
    for (size_t i = 0; i < options->mount_count; i++)
        free(options->mounts[i].host);
    for (size_t i = 0; i < options->environment_count; i++)
        free((void *)(uintptr_t)options->environment[i]);
    free(options->environment);
    free(options->vsock_path);
    *options = (struct run_options){0};
}
