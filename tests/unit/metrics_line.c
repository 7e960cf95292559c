#include "tests/unit/harness.h"

#include "tests/unit/metrics_line.h"

#include "vmm/metrics.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

yajl_val metrics_line(void)
{
    cleanup_fd int fd = memfd_create("metrics", MFD_CLOEXEC);
    char error[256] = "";
    struct stat status;

    assert_true(fd >= 0);
    assert_true(metrics_prepare(NULL));
    assert_no_error(metrics_write(fd));
    assert_int_equal(fstat(fd, &status), 0);
    cleanup_free char *text = calloc(1, (size_t)status.st_size + 1);
    assert_non_null(text);
    assert_int_equal(pread(fd, text, (size_t)status.st_size, 0), status.st_size);
    yajl_val line = yajl_tree_parse(text, error, sizeof(error));
    if (line == NULL)
        fail_msg("not JSON: %s in %s", error, text);
    return line;
}

long long metrics_line_number(yajl_val line, const char *group, const char *key)
{
    const char *path[] = {group, key, NULL};
    yajl_val value = yajl_tree_get(line, path, yajl_t_number);

    if (value == NULL)
        fail_msg("no number \"%s\" in \"%s\"", key, group);
    return YAJL_GET_INTEGER(value);
}

bool metrics_line_has(yajl_val line, const char *group)
{
    const char *path[] = {group, NULL};

    return yajl_tree_get(line, path, yajl_t_object) != NULL;
}

long long metrics_line_next(const char *group, const char *key)
{
    yajl_val line = metrics_line();
    long long number = metrics_line_number(line, group, key);

    yajl_tree_free(line);
    return number;
}
