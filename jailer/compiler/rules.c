#include "jailer/compiler/rules.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const char *name;
    unsigned line;
    struct filter_set *set;
};

/* `word` is what was found, NULL for the end of the line. */
static bool complain(const struct reader *reader, const char *what, const char *word)
{
    if (word == NULL)
        fprintf(stderr, "%s:%u: %s the end of the line\n", reader->name, reader->line, what);
    else
        fprintf(stderr, "%s:%u: %s \"%s\"\n", reader->name, reader->line, what, word);
    return false;
}

/* One part of a value. */
static bool parse_number(const char *word, uint64_t *value)
{
    char *end;

    if (word[0] < '0' || word[0] > '9')
        return constant_find(word, value);
    errno = 0;
    *value = strtoull(word, &end, 0);
    return *end == '\0' && errno == 0;
}

/* "A|B|0x3" */
static bool parse_value(const struct reader *reader, char *text, uint64_t *value)
{
    char *part;

    *value = 0;
    if (text == NULL)
        return complain(reader, "expected a value, found", NULL);
    while ((part = strsep(&text, "|")) != NULL) {
        uint64_t bits;

        if (!parse_number(part, &bits))
            return complain(reader, "expected a number or a known constant, found", part);
        *value |= bits;
    }
    return true;
}

/* The operator of a condition, by its place in the list. */
static const struct {
    const char *word;
    enum scmp_compare compare;
} operators[] = {{"==", SCMP_CMP_EQ}, {"!=", SCMP_CMP_NE}, {"<", SCMP_CMP_LT},       {"<=", SCMP_CMP_LE},
                 {">", SCMP_CMP_GT},  {">=", SCMP_CMP_GE}, {"&", SCMP_CMP_MASKED_EQ}};

static bool parse_operator(const struct reader *reader, const char *word, enum scmp_compare *compare)
{
    for (size_t i = 0; word != NULL && i < array_length(operators); i++) {
        if (strcmp(operators[i].word, word) == 0) {
            *compare = operators[i].compare;
            return true;
        }
    }
    return complain(reader, "expected an operator, found", word);
}

/* argN OP VALUE, or argN & MASK == VALUE; `word` is the first. */
static bool parse_condition(const struct reader *reader, const char *word, char **rest, struct rule *rule)
{
    struct scmp_arg_cmp *condition = &rule->conditions[rule->condition_count];
    uint64_t value;

    if (strncmp(word, "arg", 3) != 0 || word[3] < '0' || word[3] > '5' || word[4] != '\0')
        return complain(reader, "expected arg0 to arg5, found", word);
    if (rule->condition_count == RULE_CONDITIONS_MAX)
        return complain(reader, "expected at most 6 conditions, found another:", word);
    condition->arg = (unsigned)(word[3] - '0');
    if (!parse_operator(reader, strtok_r(NULL, " \t", rest), &condition->op))
        return false;
    if (!parse_value(reader, strtok_r(NULL, " \t", rest), &value))
        return false;
    condition->datum_a = value;
    if (condition->op == SCMP_CMP_MASKED_EQ) {
        char *equals = strtok_r(NULL, " \t", rest);

        if (equals == NULL || strcmp(equals, "==") != 0)
            return complain(reader, "expected == after a mask, found", equals);
        if (!parse_value(reader, strtok_r(NULL, " \t", rest), &value))
            return false;
        condition->datum_b = value;
    }
    /* The request is 32 bits wide for the kernel, but a libc may sign-extend it. */
    if (rule->syscall == SCMP_SYS(ioctl) && condition->arg == 1 && condition->op == SCMP_CMP_EQ)
        *condition = SCMP_A1_64(SCMP_CMP_MASKED_EQ, UINT32_MAX, condition->datum_a);
    rule->condition_count++;
    return true;
}

static void *grow(void *array, size_t count, size_t size)
{
    void *grown = reallocarray(array, count, size);

    if (grown == NULL) {
        perror("out of memory");
        exit(EXIT_FAILURE);
    }
    return grown;
}

static void filter_add(struct filter *filter, const struct rule *rule)
{
    filter->rules = grow(filter->rules, filter->count + 1, sizeof(*filter->rules));
    filter->rules[filter->count++] = *rule;
}

static bool begin_filter(const struct reader *reader, const char *name)
{
    struct filter_set *set = reader->set;

    if (name == NULL || strlen(name) >= FILTER_NAME_SIZE)
        return complain(reader, "expected a name of at most 23 characters, found", name);
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->filters[i].name, name) == 0)
            return complain(reader, "there is a filter of this name already:", name);
    set->filters = grow(set->filters, set->count + 1, sizeof(*set->filters));
    memset(&set->filters[set->count], 0, sizeof(*set->filters));
    strcpy(set->filters[set->count++].name, name);
    return true;
}

static bool include_filter(const struct reader *reader, const char *name)
{
    struct filter_set *set = reader->set;

    for (size_t i = 0; name != NULL && i + 1 < set->count; i++) {
        if (strcmp(set->filters[i].name, name) == 0) {
            for (size_t j = 0; j < set->filters[i].count; j++)
                filter_add(&set->filters[set->count - 1], &set->filters[i].rules[j]);
            return true;
        }
    }
    return complain(reader, "expected the name of an earlier filter, found", name);
}

static bool line_ends(const struct reader *reader, const char *rest)
{
    rest += strspn(rest, " \t");
    return *rest == '\0' || complain(reader, "expected the end of the line, found", rest);
}

static bool parse_line(const struct reader *reader, char *line)
{
    struct rule rule = {0};
    char *rest = NULL;

    line[strcspn(line, "#\n")] = '\0';
    char *word = strtok_r(line, " \t", &rest);
    if (word == NULL)
        return true;
    if (strcmp(word, "filter") == 0)
        return begin_filter(reader, strtok_r(NULL, " \t", &rest)) && line_ends(reader, rest);
    if (reader->set->count == 0)
        return complain(reader, "expected \"filter NAME\" first, found", word);
    if (strcmp(word, "include") == 0)
        return include_filter(reader, strtok_r(NULL, " \t", &rest)) && line_ends(reader, rest);

    rule.syscall = seccomp_syscall_resolve_name(word);
    if (rule.syscall == __NR_SCMP_ERROR)
        return complain(reader, "expected the name of a system call, found", word);
    while ((word = strtok_r(NULL, " \t", &rest)) != NULL)
        if (!parse_condition(reader, word, &rest, &rule))
            return false;
    filter_add(&reader->set->filters[reader->set->count - 1], &rule);
    return true;
}

bool rules_read(FILE *file, const char *name, struct filter_set *set)
{
    struct reader reader = {.name = name, .set = set};
    cleanup_free char *line = NULL;
    size_t size = 0;
    bool fine = true;

    while (getline(&line, &size, file) >= 0) {
        reader.line++;
        fine = parse_line(&reader, line) && fine;
    }
    return fine;
}

static void condition_print(const struct scmp_arg_cmp *condition, FILE *to)
{
    if (condition->op == SCMP_CMP_MASKED_EQ) {
        fprintf(to, " arg%u & %#llx == %#llx", condition->arg, (unsigned long long)condition->datum_a,
                (unsigned long long)condition->datum_b);
        return;
    }
    for (size_t i = 0; i < array_length(operators); i++)
        if (operators[i].compare == condition->op)
            fprintf(to, " arg%u %s %#llx", condition->arg, operators[i].word, (unsigned long long)condition->datum_a);
}

void rules_print(const struct filter_set *set, FILE *to)
{
    for (size_t i = 0; i < set->count; i++) {
        const struct filter *filter = &set->filters[i];

        for (size_t j = 0; j < filter->count && !filter->borrowed; j++) {
            const struct rule *rule = &filter->rules[j];
            cleanup_free char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, rule->syscall);

            fprintf(to, "%s %s %d", filter->name, name, rule->syscall);
            for (unsigned k = 0; k < rule->condition_count; k++)
                condition_print(&rule->conditions[k], to);
            fputc('\n', to);
        }
    }
}
