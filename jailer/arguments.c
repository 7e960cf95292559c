#include "jailer/arguments.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct error *parse_number(const char *option, const char *value, uint64_t max, uint64_t *number)
{
    char *end;

    errno = 0;
    unsigned long long parsed = strtoull(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0 || parsed > max)
        return error_new(ERROR_INPUT, "%s: \"%s\" is not a number from 0 to %llu", option, value,
                         (unsigned long long)max);
    *number = parsed;
    return NULL;
}

static struct error *set_id(struct jail_config *config, const char *option, const char *value)
{
    size_t length = strlen(value);

    for (size_t i = 0; i < length; i++) {
        char c = value[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';

        if (!fine)
            return error_new(ERROR_INPUT, "%s: \"%s\" has '%c' at position %zu; expected letters, digits and '-'",
                             option, value, c, i + 1);
    }
    if (length == 0 || length > JAIL_ID_MAX)
        return error_new(ERROR_INPUT, "%s: \"%s\" is %zu characters long; expected 1 to %d", option, value, length,
                         JAIL_ID_MAX);
    config->id = value;
    return NULL;
}

static struct error *set_exec_file(struct jail_config *config, const char *option, const char *value)
{
    const char *slash = strrchr(value, '/');
    const char *name = slash == NULL ? value : slash + 1;

    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return error_new(ERROR_INPUT, "%s: \"%s\" does not name a file", option, value);
    config->exec_file = value;
    config->exec_name = name;
    return NULL;
}

/* 2^32 - 1 means "leave unchanged" to setresuid: never an id. */
static struct error *set_uid(struct jail_config *config, const char *option, const char *value)
{
    uint64_t number;
    struct error *error = parse_number(option, value, UINT32_MAX - 1, &number);

    if (error == NULL)
        config->uid = (uid_t)number;
    return error;
}

static struct error *set_gid(struct jail_config *config, const char *option, const char *value)
{
    uint64_t number;
    struct error *error = parse_number(option, value, UINT32_MAX - 1, &number);

    if (error == NULL)
        config->gid = (gid_t)number;
    return error;
}

static struct error *set_cgroup_version(struct jail_config *config, const char *option, const char *value)
{
    if (strcmp(value, "1") != 0 && strcmp(value, "2") != 0)
        return error_new(ERROR_INPUT, "%s: \"%s\" is not a cgroup version; expected 1 or 2", option, value);
    config->cgroup_version = value[0] - '0';
    return NULL;
}

/* "file=value". The file is one path component of a cgroup directory: it must not climb out of it. */
static struct error *add_cgroup(struct jail_config *config, const char *option, const char *value)
{
    char *equals = strchr(value, '=');

    if (equals == NULL || equals == value || equals[1] == '\0')
        return error_new(ERROR_INPUT, "%s: \"%s\" is not <file>=<value>, like cpu.shares=10", option, value);
    if (memchr(value, '/', (size_t)(equals - value)) != NULL || value[0] == '.' ||
        memchr(value, '.', (size_t)(equals - value)) == NULL)
        return error_new(ERROR_INPUT, "%s: \"%s\" does not name a file of a controller, like cpu.shares", option,
                         value);
    if (config->cgroup_count == JAIL_SETTINGS_MAX)
        return error_new(ERROR_INPUT, "%s: given more than %d times", option, JAIL_SETTINGS_MAX);
    *equals = '\0'; /* argv is ours to cut */
    config->cgroups[config->cgroup_count++] = (struct cgroup_setting){.file = value, .value = equals + 1};
    return NULL;
}

static struct error *set_parent_cgroup(struct jail_config *config, const char *option, const char *value)
{
    cleanup_free char *copy = strdup(value);

    if (copy == NULL)
        return error_errno(ENOMEM, "%s", option);
    if (value[0] == '\0' || value[0] == '/')
        return error_new(ERROR_INPUT, "%s: \"%s\" is not a path relative to the cgroup mount", option, value);
    for (char *rest = NULL, *part = strtok_r(copy, "/", &rest); part != NULL; part = strtok_r(NULL, "/", &rest))
        if (strcmp(part, "..") == 0 || strcmp(part, ".") == 0)
            return error_new(ERROR_INPUT, "%s: \"%s\" must not have \"%s\" in it", option, value, part);
    config->parent_cgroup = value;
    return NULL;
}

static struct error *set_chroot_base_dir(struct jail_config *config, const char *option, const char *value)
{
    if (value[0] == '\0')
        return error_new(ERROR_INPUT, "%s: is empty; expected a directory", option);
    config->chroot_base_dir = value;
    config->default_base = false;
    return NULL;
}

static struct error *set_netns(struct jail_config *config, const char *option, const char *value)
{
    if (value[0] == '\0')
        return error_new(ERROR_INPUT, "%s: is empty; expected the path of a network namespace", option);
    config->netns = value;
    return NULL;
}

/* An absolute path below the jail's root that goes nowhere but down. */
static struct error *check_target(const char *option, const char *target)
{
    cleanup_free char *copy = strdup(target);
    size_t parts = 0;

    if (copy == NULL)
        return error_errno(ENOMEM, "%s", option);
    for (char *rest = NULL, *part = strtok_r(copy, "/", &rest); part != NULL; part = strtok_r(NULL, "/", &rest)) {
        if (strcmp(part, "..") == 0 || strcmp(part, ".") == 0)
            return error_new(ERROR_INPUT, "%s: \"%s\" must not have \"%s\" in it", option, target, part);
        parts++;
    }
    return parts > 0 ? NULL : error_new(ERROR_INPUT, "%s: \"%s\" does not name a place below the root", option, target);
}

/* The words behind the last colon, unless that is where the target begins. */
static struct error *take_bind_words(const char *option, const char *value, char *words, struct jail_bind *bind)
{
    for (char *rest = NULL, *word = strtok_r(words, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
        if (strcmp(word, "ro") == 0)
            bind->read_only = true;
        else if (strcmp(word, "own") == 0)
            bind->own = true;
        else if (strcmp(word, "rw") != 0)
            return error_new(ERROR_INPUT, "%s: \"%s\" has \"%s\" behind it; expected ro, rw or own", option, value,
                             word);
    }
    return NULL;
}

/* Read from the end, so that the source may have colons in its name. */
static struct error *add_bind(struct jail_config *config, const char *option, const char *value)
{
    struct jail_bind bind = {0};
    char *colon = strrchr(value, ':');
    struct error *error = NULL;

    if (config->bind_count == JAIL_BINDS_MAX)
        return error_new(ERROR_INPUT, "%s: given more than %d times", option, JAIL_BINDS_MAX);
    if (colon != NULL && colon[1] != '/') {
        *colon = '\0'; /* argv is ours to cut */
        error = take_bind_words(option, value, colon + 1, &bind);
        colon = strrchr(value, ':');
    }
    if (error == NULL && (colon == NULL || colon == value || colon[1] != '/'))
        error = error_new(ERROR_INPUT, "%s: \"%s\" is not <path>:/<path in the jail>, perhaps with :ro behind it",
                          option, value);
    if (error != NULL)
        return error;
    *colon = '\0';
    bind.source = value;
    bind.target = colon + 1;
    error = check_target(option, bind.target);
    if (error == NULL)
        config->binds[config->bind_count++] = bind;
    return error;
}

static struct error *set_memory_limit(struct jail_config *config, const char *option, const char *value)
{
    struct error *error = parse_number(option, value, INT64_MAX, &config->memory_limit);

    if (error == NULL && config->memory_limit == 0)
        return error_new(ERROR_INPUT, "%s: is 0; expected a number of bytes", option);
    return error;
}

static struct error *add_resource_limit(struct jail_config *config, const char *option, const char *value)
{
    static const struct {
        const char *name;
        size_t offset;
    } limits[] = {
        {"fsize=", offsetof(struct jail_config, limits.fsize)},
        {"no-file=", offsetof(struct jail_config, limits.no_file)},
    };

    for (size_t i = 0; i < array_length(limits); i++) {
        size_t length = strlen(limits[i].name);

        if (strncmp(value, limits[i].name, length) == 0)
            return parse_number(option, value + length, INT64_MAX,
                                (uint64_t *)(void *)((char *)config + limits[i].offset));
    }
    return error_new(ERROR_INPUT, "%s: \"%s\" is not a known limit; expected fsize=<bytes> or no-file=<count>", option,
                     value);
}

struct option {
    const char *name;
    struct error *(*set)(struct jail_config *config, const char *option, const char *value); /* NULL: a switch */
    size_t flag;                                                                             /* of a switch */
    bool many;
    const char *argument;
    const char *help;
};

static const struct option options[] = {
    {"--id", set_id, 0, false, "ID", "name of the microVM: 1 to 64 letters, digits and '-' (required)"},
    {"--exec-file", set_exec_file, 0, false, "PATH", "the VMM to run in the jail, a static binary (required)"},
    {"--uid", set_uid, 0, false, "UID", "user that the VMM runs as (required)"},
    {"--gid", set_gid, 0, false, "GID", "group that the VMM runs as (required)"},
    {"--cgroup-version", set_cgroup_version, 0, false, "1|2", "cgroup version; default: what the host has"},
    {"--cgroup", add_cgroup, 0, true, "FILE=VALUE", "a value to write into a cgroup file; may be given many times"},
    {"--parent-cgroup", set_parent_cgroup, 0, false, "PATH",
     "cgroup to put the jail's cgroup under; default: the name of the exec file"},
    {"--chroot-base-dir", set_chroot_base_dir, 0, false, "DIR",
     "where jails are built; default /srv/jailer, and\n"
     "                                   for an ordinary user $XDG_RUNTIME_DIR/mayfly"},
    {"--netns", set_netns, 0, false, "PATH", "network namespace to join"},
    {"--resource-limit", add_resource_limit, 0, true, "LIMIT=VALUE",
     "fsize=<bytes> or no-file=<count>; default no-file=2048"},
    {"--daemonize", NULL, offsetof(struct jail_config, daemonize), false, NULL,
     "start a session of its own, with stdin, stdout and stderr on /dev/null"},
    {"--new-pid-ns", NULL, offsetof(struct jail_config, new_pid_ns), false, NULL, "run in a new pid namespace"},
    {"--new-net-ns", NULL, offsetof(struct jail_config, new_net_ns), false, NULL,
     "run in a new, empty network namespace"},
    {"--new-ipc-ns", NULL, offsetof(struct jail_config, new_ipc_ns), false, NULL, "run in a new IPC namespace"},
    {"--new-uts-ns", NULL, offsetof(struct jail_config, new_uts_ns), false, NULL, "run in a new UTS namespace"},
    {"--new-cgroup-ns", NULL, offsetof(struct jail_config, new_cgroup_ns), false, NULL,
     "run in a new cgroup namespace"},
    {"--new-time-ns", NULL, offsetof(struct jail_config, new_time_ns), false, NULL, "run in a new time namespace"},
    {"--bind", add_bind, 0, true, "PATH:DST[:ro]",
     "show a file or folder of the host at DST in the jail; :own gives it to UID and GID there"},
    {"--memory-limit", set_memory_limit, 0, false, "BYTES",
     "memory of the jail's cgroup, if the host has the controller"},
    {"--announce", NULL, offsetof(struct jail_config, announce), false, NULL,
     "say on stderr when the jail stands and the VMM begins"},
    {"--open-to-group", NULL, offsetof(struct jail_config, open_to_group), false, NULL,
     "let GID go to the sockets in the jail's /run"},
    {"--no-tun", NULL, offsetof(struct jail_config, no_tun), false, NULL, "make no /dev/net/tun in the jail"},
    {"--no-userfaultfd", NULL, offsetof(struct jail_config, no_uffd), false, NULL,
     "make no /dev/userfaultfd in the jail"},
    {"--vhost-net", NULL, offsetof(struct jail_config, vhost_net), false, NULL,
     "make /dev/vhost-net in the jail, for interfaces with vhost"},
    {"--no-base-filter", NULL, offsetof(struct jail_config, no_base_filter), false, NULL,
     "do not load the base seccomp filter"},
    {"--allow-reduced", NULL, offsetof(struct jail_config, allow_reduced), false, NULL,
     "in a container without root's rights and user namespaces: run, and tell which walls are missing"},
};

static const struct option *option_find(const char *word, size_t length)
{
    for (size_t i = 0; i < array_length(options); i++)
        if (strlen(options[i].name) == length && strncmp(options[i].name, word, length) == 0)
            return &options[i];
    return NULL;
}

/* Handles the word at argv[*index], and the one after it when that is its value; moves *index past both. */
static struct error *parse_option(int argc, char *const argv[], int *index, uint64_t *seen, struct jail_config *config)
{
    const char *word = argv[(*index)++];
    const char *equals = strchr(word, '=');
    const struct option *option = option_find(word, equals == NULL ? strlen(word) : (size_t)(equals - word));

    if (option == NULL)
        return error_new(ERROR_INPUT, "\"%s\" is not an option; see --help", word);

    uint64_t bit = 1ull << (option - options);
    if ((*seen & bit) != 0 && !option->many)
        return error_new(ERROR_INPUT, "%s: given twice", option->name);
    *seen |= bit;

    if (option->set == NULL) {
        if (equals != NULL)
            return error_new(ERROR_INPUT, "%s: takes no value, was given \"%s\"", option->name, equals + 1);
        *(bool *)((char *)config + option->flag) = true;
        return NULL;
    }
    if (equals != NULL)
        return option->set(config, option->name, equals + 1);
    if (*index == argc || strcmp(argv[*index], "--") == 0)
        return error_new(ERROR_INPUT, "%s: needs a value: %s", option->name, option->argument);
    return option->set(config, option->name, argv[(*index)++]);
}

static struct error *check_required(uint64_t seen, const struct jail_config *config)
{
    for (size_t i = 0; i < 4; i++) /* the table's first four */
        if ((seen & (1ull << i)) == 0)
            return error_new(ERROR_INPUT, "%s: is required; expected %s", options[i].name, options[i].argument);
    if (config->chroot_base_dir == NULL)
        return error_new(ERROR_INPUT, "--chroot-base-dir: is required where XDG_RUNTIME_DIR is not set; expected DIR");
    if (config->netns != NULL && config->new_net_ns)
        return error_new(ERROR_INPUT, "--new-net-ns: cannot be given together with --netns");
    return NULL;
}

struct error *arguments_parse(int argc, char *const argv[], const char *base, struct jail_config *config,
                              enum jail_request *request)
{
    uint64_t seen = 0;
    int index = 1;

    *config = (struct jail_config){
        .chroot_base_dir = base,
        .default_base = true,
        .limits = {.fsize = UINT64_MAX, .no_file = JAIL_NO_FILE_DEFAULT, .processes = UINT64_MAX},
        .vmm_arguments = &argv[argc],
    };
    *request = JAIL_RUN;

    while (index < argc) {
        const char *word = argv[index];

        if (strcmp(word, "--") == 0) {
            config->vmm_arguments = &argv[index + 1];
            config->vmm_argument_count = (size_t)(argc - index - 1);
            break;
        }
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            *request = JAIL_HELP;
            return NULL;
        }
        if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
            *request = JAIL_VERSION;
            return NULL;
        }

        struct error *error = parse_option(argc, argv, &index, &seen, config);
        if (error != NULL)
            return error;
    }
    if (config->parent_cgroup == NULL)
        config->parent_cgroup = config->exec_name;
    return check_required(seen, config);
}

void arguments_print_help(void)
{
    printf("mayfly-jailer %s: builds a jail and runs a VMM in it\n\n"
           "Usage: mayfly-jailer --id ID --exec-file PATH --uid UID --gid GID [OPTION...] [-- VMM-ARGUMENT...]\n\n",
           MAYFLY_VERSION);
    for (size_t i = 0; i < array_length(options); i++) {
        char name[64];

        snprintf(name, sizeof(name), "%s%s%s", options[i].name, options[i].argument == NULL ? "" : " ",
                 options[i].argument == NULL ? "" : options[i].argument);
        printf("  %-32s %s\n", name, options[i].help);
    }
    printf(
        "  %-32s %s\n  %-32s %s\n\n"
        "Started by an ordinary user, who must be able to open /dev/kvm, it builds the same jail in a user namespace.\n"
        "--uid and --gid are then the user's own, or subordinate ids of the user's (/etc/subuid, newuidmap). Limits "
        "take\n"
        "a cgroup that was delegated to the user (`systemd-run --user --scope`).\n",
        "--version", "print the version", "--help", "print this");
}
