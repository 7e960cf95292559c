/*
 * mayfly-seccomp-compiler: turns a text of rules (rules.h) into the file that the jailer and the VMM load
 * (vmm/base/seccomp.h). The build runs it for the filters in the binaries; users run it for --seccomp-filter.
 */
#include "jailer/compiler/rules.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static int usage(FILE *to, int code)
{
    fprintf(to, "Usage: mayfly-seccomp-compiler [--action trap|log|kill] RULES OUTPUT\n\n"
                "Compiles seccomp rules into a file for mayfly-vmm --seccomp-filter. What the rules do not allow\n"
                "traps (the default: the VMM says what it was, and ends), is logged and allowed, or kills.\n");
    return code;
}

static bool parse_action(const char *word, uint32_t *action)
{
    static const struct {
        const char *word;
        uint32_t action;
    } actions[] = {{"trap", SCMP_ACT_TRAP}, {"log", SCMP_ACT_LOG}, {"kill", SCMP_ACT_KILL_PROCESS}};

    for (size_t i = 0; i < array_length(actions); i++) {
        if (strcmp(actions[i].word, word) == 0) {
            *action = actions[i].action;
            return true;
        }
    }
    return false;
}

static int add_rules(scmp_filter_ctx context, const struct filter *filter)
{
    for (size_t i = 0; i < filter->count; i++) {
        const struct rule *rule = &filter->rules[i];
        int code =
            seccomp_rule_add_array(context, SCMP_ACT_ALLOW, rule->syscall, rule->condition_count, rule->conditions);

        /* EEXIST: an included filter had the rule already. */
        if (code < 0 && code != -EEXIST)
            return code;
    }
    return 0;
}

/* The filter's BPF program, malloc'ed; NULL after a message. */
static void *compile(const struct filter *filter, uint32_t action, size_t *size)
{
    scmp_filter_ctx context = seccomp_init(action);
    cleanup_fd int fd = memfd_create("filter", MFD_CLOEXEC);
    struct stat status;
    void *program = NULL;

    /* A binary tree over the numbers: a filter of a hundred calls costs seven comparisons. */
    int code = context == NULL || fd < 0 ? -ENOMEM : seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (code == 0)
        code = seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (code == 0)
        code = add_rules(context, filter);
    if (code == 0)
        code = seccomp_export_bpf(context, fd);
    if (code == 0 && fstat(fd, &status) == 0) {
        *size = (size_t)status.st_size;
        program = malloc(*size);
        if (program != NULL && pread(fd, program, *size, 0) != (ssize_t)*size)
            code = -EIO;
    }
    if (code != 0 || program == NULL)
        fprintf(stderr, "cannot compile filter \"%s\": %s\n", filter->name, strerror(-code));
    seccomp_release(context);
    if (code != 0) {
        free(program);
        program = NULL;
    }
    return program;
}

static bool write_filter(FILE *output, const struct filter *filter, uint32_t action)
{
    struct seccomp_file_filter header = {0};
    size_t size = 0;
    cleanup_free void *program = compile(filter, action, &size);

    if (program == NULL)
        return false;
    header.length = (uint32_t)(size / sizeof(struct sock_filter));
    if (header.length > SECCOMP_INSTRUCTIONS_MAX) {
        fprintf(stderr, "filter \"%s\" takes %u instructions; the kernel takes %d\n", filter->name, header.length,
                SECCOMP_INSTRUCTIONS_MAX);
        return false;
    }
    memcpy(header.name, filter->name, strlen(filter->name));
    return fwrite(&header, sizeof(header), 1, output) == 1 && fwrite(program, size, 1, output) == 1;
}

static bool write_file(const char *path, const struct filter_set *set, uint32_t action)
{
    struct seccomp_file header = {.version = SECCOMP_FILE_VERSION, .arch = seccomp_arch_native(), .count = 0};
    FILE *output = fopen(path, "we");
    bool fine = output != NULL;

    header.count = (uint32_t)set->count;
    memcpy(header.magic, SECCOMP_FILE_MAGIC, sizeof(header.magic));
    fine = fine && fwrite(&header, sizeof(header), 1, output) == 1;
    for (size_t i = 0; fine && i < set->count; i++)
        fine = write_filter(output, &set->filters[i], action);
    if (output != NULL && fclose(output) != 0)
        fine = false;
    if (!fine) {
        fprintf(stderr, "cannot write \"%s\": %s\n", path, strerror(errno));
        remove(path);
    }
    return fine;
}

int main(int argc, char *argv[])
{
    struct filter_set set = {0};
    uint32_t action = SCMP_ACT_TRAP;
    int next = 1;

    if (argc > 1 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, EXIT_SUCCESS);
    if (argc > 2 && strcmp(argv[1], "--action") == 0) {
        if (!parse_action(argv[2], &action))
            return usage(stderr, EXIT_FAILURE);
        next = 3;
    }
    if (argc - next != 2)
        return usage(stderr, EXIT_FAILURE);

    FILE *rules = fopen(argv[next], "re");
    if (rules == NULL) {
        perror(argv[next]);
        return EXIT_FAILURE;
    }
    bool fine = rules_read(rules, argv[next], &set);
    fclose(rules);
    return fine && write_file(argv[next + 1], &set, action) ? EXIT_SUCCESS : EXIT_FAILURE;
}
