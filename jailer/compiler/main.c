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

struct arguments {
    uint32_t action;
    bool list;
    const char *library; /* NULL: none */
    const char *rules;
    const char *output;
};

static int usage(FILE *to, int code)
{
    fprintf(to,
            "Usage: mayfly-seccomp-compiler [--action trap|log|kill] [--with RULES] RULES OUTPUT\n"
            "       mayfly-seccomp-compiler --list [--with RULES] RULES\n\n"
            "Compiles seccomp rules into a file for mayfly-vmm --seccomp-filter, which needs the filters main_start,\n"
            "main_run and vcpu (those of Mayfly: vmm/vmm.rules). What the rules do not allow\n"
            "  trap   ends the VMM, which logs the system call and the thread (the default)\n"
            "  log    happens, and the kernel logs it (dmesg, or the audit log): for finding out what is missing\n"
            "  kill   ends the VMM at once and without a word\n"
            "--with reads filters that may be included and are not written themselves. --list prints the rules as\n"
            "they were understood.\n\n"
            "A rule is a line: a system call, and conditions on its arguments that must all hold.\n"
            "  filter NAME                begins a filter; the rules after it are what it allows\n"
            "  include NAME               all rules of an earlier filter\n"
            "  ioctl arg1 == KVM_RUN      == != < <= > >= with a number or a known constant\n"
            "  mmap arg2 & PROT_EXEC == 0 these bits have this value; A|B joins\n"
            "  # ...                      a comment\n");
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

/* Whether an argument for which `one` holds cannot but meet `other`. */
static bool condition_implies(const struct scmp_arg_cmp *one, const struct scmp_arg_cmp *other)
{
    uint64_t mask = one->op == SCMP_CMP_MASKED_EQ ? one->datum_a : UINT64_MAX;
    uint64_t value = one->op == SCMP_CMP_MASKED_EQ ? one->datum_b : one->datum_a;

    if (one->arg != other->arg || (one->op != SCMP_CMP_EQ && one->op != SCMP_CMP_MASKED_EQ))
        return false;
    if (other->op == SCMP_CMP_MASKED_EQ)
        return (other->datum_a & ~mask) == 0 && (value & other->datum_a) == other->datum_b;
    return other->op == SCMP_CMP_EQ && mask == UINT64_MAX && value == other->datum_a;
}

/* Whether `other` allows all that `one` allows. */
static bool rule_implies(const struct rule *one, const struct rule *other)
{
    for (unsigned i = 0; i < other->condition_count; i++) {
        bool implied = false;

        for (unsigned j = 0; j < one->condition_count && !implied; j++)
            implied = condition_implies(&one->conditions[j], &other->conditions[i]);
        if (!implied)
            return false;
    }
    return one->syscall == other->syscall;
}

/* A narrower filter's rules are among those of the one that includes it: what a wider rule allows is left out. */
static bool is_superfluous(const struct filter *filter, size_t index)
{
    for (size_t i = 0; i < filter->count; i++)
        if (i != index && rule_implies(&filter->rules[index], &filter->rules[i]) &&
            (i < index || !rule_implies(&filter->rules[i], &filter->rules[index])))
            return true;
    return false;
}

static int add_rules(scmp_filter_ctx context, const struct filter *filter)
{
    for (size_t i = 0; i < filter->count; i++) {
        const struct rule *rule = &filter->rules[i];

        if (is_superfluous(filter, i))
            continue;
        int code =
            seccomp_rule_add_array(context, SCMP_ACT_ALLOW, rule->syscall, rule->condition_count, rule->conditions);

        if (code < 0)
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
    /* System calls of another architecture (int 0x80) are told like the rest. */
    if (code == 0)
        code = seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, action);
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

    for (size_t i = 0; i < set->count; i++)
        header.count += !set->filters[i].borrowed;
    memcpy(header.magic, SECCOMP_FILE_MAGIC, sizeof(header.magic));
    fine = fine && fwrite(&header, sizeof(header), 1, output) == 1;
    for (size_t i = 0; fine && i < set->count; i++)
        fine = set->filters[i].borrowed || write_filter(output, &set->filters[i], action);
    if (output != NULL && fclose(output) != 0)
        fine = false;
    if (!fine) {
        fprintf(stderr, "cannot write \"%s\": %s\n", path, strerror(errno));
        remove(path);
    }
    return fine;
}

static bool read_rules(const char *path, struct filter_set *set)
{
    FILE *rules = fopen(path, "re");
    size_t before = set->count;

    if (rules == NULL) {
        fprintf(stderr, "cannot open \"%s\": %s\n", path, strerror(errno));
        return false;
    }
    bool fine = rules_read(rules, path, set);
    if (fine && set->count == before) {
        fprintf(stderr, "%s: no filter, expected one at least\n", path);
        fine = false;
    }
    fclose(rules);
    return fine;
}

static bool parse_arguments(int argc, char *argv[], struct arguments *arguments)
{
    int next = 1;

    *arguments = (struct arguments){.action = SCMP_ACT_TRAP};
    for (; next < argc && strncmp(argv[next], "--", 2) == 0; next++) {
        if (strcmp(argv[next], "--list") == 0)
            arguments->list = true;
        else if (strcmp(argv[next], "--with") == 0 && next + 1 < argc)
            arguments->library = argv[++next];
        else if (strcmp(argv[next], "--action") != 0 || next + 1 == argc ||
                 !parse_action(argv[++next], &arguments->action))
            return false;
    }
    if (argc - next != (arguments->list ? 1 : 2))
        return false;
    arguments->rules = argv[next];
    arguments->output = argv[next + 1];
    return true;
}

int main(int argc, char *argv[])
{
    struct filter_set set = {0};
    struct arguments arguments;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, EXIT_SUCCESS);
    if (!parse_arguments(argc, argv, &arguments))
        return usage(stderr, EXIT_FAILURE);
    if (arguments.library != NULL && !read_rules(arguments.library, &set))
        return EXIT_FAILURE;
    for (size_t i = 0; i < set.count; i++)
        set.filters[i].borrowed = true;
    if (!read_rules(arguments.rules, &set))
        return EXIT_FAILURE;
    if (arguments.list)
        rules_print(&set, stdout);
    else if (!write_file(arguments.output, &set, arguments.action))
        return EXIT_FAILURE;
    return EXIT_SUCCESS;
}
