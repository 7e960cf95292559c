#include "vmm/options.h"

#include "vmm/base/cleanup.h"
#include "vmm/config.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum option_kind { OPTION_FLAG, OPTION_TEXT, OPTION_NUMBER };

/* Texts in place: a table of pointers would cost every process a page of relocations. */
struct option {
    char name[28];
    uint16_t offset; /* in struct options */
    uint8_t kind;    /* enum option_kind */
    char help[80];
};

#define OPTION(name_, kind_, field, help_)                                                                             \
    {                                                                                                                  \
        name_, offsetof(struct options, field), kind_, help_                                                           \
    }

static const struct option table[] = {
    OPTION("api-peer-uid", OPTION_NUMBER, api_peer_uid, "serve the API to processes of this user only [to all]"),
    OPTION("api-sock", OPTION_TEXT, api_sock,
           "API socket [/run/mayfly.sock; called firecracker: /run/firecracker.socket]"),
    OPTION("api-sock-group", OPTION_NUMBER, api_sock_group, "open the API socket to this group, too: mode 0660 [0600]"),
    OPTION("boot-timer", OPTION_FLAG, boot_timer, "log how long the guest took to boot"),
    OPTION("config-file", OPTION_TEXT, config_file, "configure the microVM from this JSON file and start it"),
    OPTION("describe-snapshot", OPTION_TEXT, describe_snapshot, "not in this version: there are no snapshots yet"),
    OPTION("enable-pci", OPTION_FLAG, enable_pci, "accepted; devices are on virtio-mmio all the same"),
    OPTION("help", OPTION_FLAG, help, "print this and exit"),
    OPTION("http-api-max-payload-size", OPTION_NUMBER, http_api_max_payload_size,
           "largest body of a request, in bytes [51200]"),
    OPTION("id", OPTION_TEXT, id, "what this microVM is called [anonymous-instance]"),
    OPTION("level", OPTION_TEXT, level, "Off, Error, Warning, Info, Debug or Trace [Info]"),
    OPTION("log-path", OPTION_TEXT, log_path, "file or FIFO of the log [stderr]"),
    OPTION("metadata", OPTION_TEXT, metadata, "JSON file that the metadata service starts with"),
    OPTION("metrics-path", OPTION_TEXT, metrics_path, "file or FIFO of the metrics [none]"),
    OPTION("mmds-size-limit", OPTION_NUMBER, mmds_size_limit,
           "largest metadata, in bytes [as --http-api-max-payload-size]"),
    OPTION("module", OPTION_TEXT, module, "log only what comes from source paths that start so"),
    OPTION("no-api", OPTION_FLAG, no_api, "no API socket; needs --config-file"),
    OPTION("no-kernel-sharing", OPTION_FLAG, no_kernel_sharing,
           "give this microVM a copy of kernel and initrd instead of mapping the files"),
    OPTION("no-seccomp", OPTION_FLAG, no_seccomp, "run without seccomp filters"),
    OPTION("parent-cpu-time-us", OPTION_NUMBER, parent_cpu_time_us, "CPU time of the process that started this one"),
    OPTION("seccomp-filter", OPTION_TEXT, seccomp_filter, "use the filters of this compiled file"),
    OPTION("show-level", OPTION_FLAG, show_level, "log lines carry their level"),
    OPTION("show-log-origin", OPTION_FLAG, show_log_origin, "log lines carry their source file and line"),
    OPTION("snapshot-version", OPTION_FLAG, snapshot_version, "not in this version: there are no snapshots yet"),
    OPTION("start-time-cpu-us", OPTION_NUMBER, start_time_cpu_us, "CPU clock of this process when it was started"),
    OPTION("start-time-us", OPTION_NUMBER, start_time_us, "monotonic clock when this process was started"),
    OPTION("version", OPTION_FLAG, version, "print the version and exit"),
};

enum { HELP_COLUMN = 38 };

/* The option that the `length` bytes at `name` name, or NULL. */
static const struct option *option_find(const char *name, size_t length)
{
    for (size_t i = 0; i < array_length(table); i++)
        if (strlen(table[i].name) == length && memcmp(table[i].name, name, length) == 0)
            return &table[i];
    return NULL;
}

static struct error *parse_number(const char *name, const char *text, uint64_t *number)
{
    uint64_t value = 0;

    for (const char *at = text; *at != '\0'; at++)
        if (*at < '0' || *at > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
            return error_new(ERROR_INPUT, "--%s: '%s', expected a number from 0 to %llu", name, text,
                             (unsigned long long)UINT64_MAX);
    if (*text == '\0')
        return error_new(ERROR_INPUT, "--%s: empty, expected a number", name);
    *number = value;
    return NULL;
}

static struct error *store(const struct option *option, const char *value, struct options *options)
{
    void *field = (char *)options + option->offset;

    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)field = true;
        return NULL;
    case OPTION_TEXT:
        *(const char **)field = value;
        return NULL;
    default:
        return parse_number(option->name, value, field);
    }
}

/* One option at argv[*index], and its value; *index then is the last argument used. */
static struct error *parse_one(int argc, char *const argv[], int *index, struct options *options, bool seen[])
{
    const char *argument = argv[*index];
    const char *value = NULL;

    if (strncmp(argument, "--", 2) != 0)
        return error_new(ERROR_INPUT, "'%s': expected an option, --help lists them", argument);

    const char *name = argument + 2;
    size_t length = strcspn(name, "=");
    const struct option *option = option_find(name, length);
    if (option == NULL)
        return error_new(ERROR_INPUT, "--%.*s: unknown option, --help lists them", (int)length, name);
    if (seen[option - table])
        return error_new(ERROR_INPUT, "--%s: given twice, expected once", option->name);
    seen[option - table] = true;

    if (name[length] == '=')
        value = name + length + 1;
    if (option->kind == OPTION_FLAG && value != NULL)
        return error_new(ERROR_INPUT, "--%s: '%s', expected no value", option->name, value);
    if (option->kind != OPTION_FLAG && value == NULL) {
        /* Rather an option whose value was forgotten; --name=VALUE takes any. */
        if (*index + 1 >= argc || strncmp(argv[*index + 1], "--", 2) == 0)
            return error_new(ERROR_INPUT, "--%s: expected a value after it", option->name);
        value = argv[++*index];
    }
    return store(option, value, options);
}

static struct error *check_id(const char *id)
{
    size_t length = strlen(id);

    if (length < 1 || length > ID_LENGTH_MAX)
        return error_new(ERROR_INPUT, "--id: %zu characters, expected 1 to %d", length, ID_LENGTH_MAX);
    for (const char *at = id; *at != '\0'; at++)
        if (!(*at >= 'a' && *at <= 'z') && !(*at >= 'A' && *at <= 'Z') && !(*at >= '0' && *at <= '9') && *at != '-')
            return error_new(ERROR_INPUT, "--id: '%s', expected letters, digits and '-'", id);
    return NULL;
}

/* What is asked for and what this version has not. */
static struct error *check_refused(const struct options *options)
{
    if (options->describe_snapshot != NULL)
        return error_new(ERROR_INPUT, "--describe-snapshot: '%s', but this version has no snapshots",
                         options->describe_snapshot);
    if (options->snapshot_version)
        return error_new(ERROR_INPUT, "--snapshot-version: this version has no snapshots");
    return NULL;
}

static struct error *check_together(const struct options *options)
{
    struct error *error = check_refused(options);

    if (error != NULL)
        return error;
    if (options->no_api && options->config_file == NULL)
        return error_new(ERROR_INPUT, "--no-api: expected --config-file with it");
    if (options->no_seccomp && options->seccomp_filter != NULL)
        return error_new(ERROR_INPUT, "--no-seccomp: expected without --seccomp-filter");
    if (options->api_peer_uid > API_ANYBODY)
        return error_new(ERROR_INPUT, "--api-peer-uid: %llu, expected a user's id",
                         (unsigned long long)options->api_peer_uid);
    if (options->api_sock_group > API_ANYBODY)
        return error_new(ERROR_INPUT, "--api-sock-group: %llu, expected a group's id",
                         (unsigned long long)options->api_sock_group);
    if (options->http_api_max_payload_size == 0)
        return error_new(ERROR_INPUT, "--http-api-max-payload-size: 0, expected at least 1");
    return check_id(options->id);
}

/* In its releases the file is called firecracker-v1.11.0-x86_64. */
static bool is_firecracker(const char *program)
{
    static const char known[] = "firecracker";
    const char *slash = program == NULL ? NULL : strrchr(program, '/');
    const char *name = slash != NULL ? slash + 1 : program;

    return name != NULL && strncmp(name, known, strlen(known)) == 0;
}

/* Who asks for help or the version gets it, whatever else is wrong. */
static bool asks_to_print(int argc, char *const argv[], struct options *options)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        options->help = options->help || strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
        options->version = options->version || strcmp(argv[i], "--version") == 0;
    }
    return options->help || options->version;
}

struct error *options_parse(int argc, char *const argv[], struct options *options)
{
    bool seen[array_length(table)] = {false};

    bool as_firecracker = argc > 0 && is_firecracker(argv[0]);

    *options = (struct options){
        .api_sock = as_firecracker ? "/run/firecracker.socket" : "/run/mayfly.sock",
        .as_firecracker = as_firecracker,
        .id = "anonymous-instance",
        .http_api_max_payload_size = 51200,
        .api_peer_uid = API_ANYBODY,
        .api_sock_group = API_ANYBODY,
    };
    if (asks_to_print(argc, argv, options))
        return NULL;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        struct error *error = parse_one(argc, argv, &i, options, seen);

        if (error != NULL)
            return error;
    }
    return check_together(options);
}

void options_print_help(void)
{
    printf("Mayfly v" MAYFLY_VERSION ", a microVM in a process\n\nmayfly-vmm [OPTION...]\n\n");
    for (size_t i = 0; i < array_length(table); i++) {
        const struct option *option = &table[i];
        int width = printf("  --%s%s", option->name, option->kind == OPTION_FLAG ? "" : " VALUE");

        printf("%*s%s\n", HELP_COLUMN - width, "", option->help);
    }
}
