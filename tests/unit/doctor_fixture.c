#include "tests/unit/doctor_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct answers answers;

/* Files are there for root, however it stands with their modes. */
static int answer_open(const char *path)
{
    if (access(path, F_OK) != 0)
        return ENOENT;
    return answers.open_error;
}

static enum kvm_answer answer_probe(struct kvm_probe *probe)
{
    *probe = answers.probe;
    return probe->answer;
}

static int answer_landlock(void)
{
    return answers.landlock_abi;
}

static int answer_io_uring(void)
{
    return answers.io_uring_error;
}

void host_put(const char *root, const char *path, const char *text)
{
    char full[PATH_SIZE];
    FILE *file;

    assert_true(snprintf(full, sizeof(full), "%s%s", root, path) < PATH_SIZE);
    for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')) != NULL; at++) {
        *at = '\0';
        assert_true(mkdir(full, 0755) == 0 || errno == EEXIST);
        *at = '/';
    }
    file = fopen(full, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

struct host host_make(char root[32], uid_t uid, const struct file *files)
{
    strcpy(root, "/tmp/mayfly-doctor-XXXXXX");
    assert_non_null(mkdtemp(root));
    for (; files->path != NULL; files++)
        host_put(root, files->path, files->text);
    return (struct host){
        .root = root,
        .uid = uid,
        .programs = "/opt/mayfly",
        .try_open = answer_open,
        .probe_kvm = answer_probe,
        .landlock_abi = answer_landlock,
        .io_uring = answer_io_uring,
    };
}

void host_remove(const char *root)
{
    assert_true(test_remove(root));
}

/* Whether a shell can read it: nothing is cut off, no quote left open. */
static bool is_shell_command(const char *text)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        execl("/bin/sh", "sh", "-n", "-c", text, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status == 0;
}

void expect_all(const struct expectation *expectations, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct expectation *expected = &expectations[i];
        struct finding finding = {0};
        char root[32];
        struct host host = host_make(root, expected->uid, expected->files);

        expected->look(&host, &finding);
        host_remove(root);
        if (finding.verdict != expected->verdict || strstr(finding.found, expected->found) == NULL ||
            (expected->mend == NULL ? finding.mend[0] != '\0' : strstr(finding.mend, expected->mend) == NULL))
            fail_msg("row %zu: verdict %d, found \"%s\", mend \"%s\"; expected %d, \"%s\", \"%s\"", i, finding.verdict,
                     finding.found, finding.mend, expected->verdict, expected->found,
                     expected->mend != NULL ? expected->mend : "(none)");
        assert_true(strlen(finding.found) < sizeof(finding.found) - 1 &&
                    strlen(finding.mend) < sizeof(finding.mend) - 1);
        assert_true(finding.mend[0] == '\0' || is_shell_command(finding.mend));
    }
}

int answers_reset(void **state)
{
    (void)state;
    memset(&answers, 0, sizeof(answers));
    return 0;
}
