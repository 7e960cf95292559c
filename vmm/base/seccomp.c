#include "vmm/base/seccomp.h"

#include "vmm/base/checked.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Copies the header at *offset and moves past it and its instructions; false when the file ends before. */
static bool next_filter(const struct seccomp_blob *blob, size_t *offset, struct seccomp_file_filter *filter)
{
    if (!range_within(*offset, sizeof(*filter), blob->size))
        return false;
    memcpy(filter, blob->data + *offset, sizeof(*filter));
    *offset += sizeof(*filter);
    if (filter->length == 0 || filter->length > SECCOMP_INSTRUCTIONS_MAX ||
        !range_within(*offset, filter->length * sizeof(struct sock_filter), blob->size))
        return false;
    *offset += filter->length * sizeof(struct sock_filter);
    return true;
}

struct error *seccomp_file_check(const struct seccomp_blob *blob, const char *what)
{
    struct seccomp_file file;
    struct seccomp_file_filter filter;
    size_t offset = sizeof(file);

    if (blob->size < sizeof(file) || memcmp(blob->data, SECCOMP_FILE_MAGIC, sizeof(file.magic)) != 0)
        return error_new(ERROR_INPUT,
                         "%s is not a compiled seccomp filter; expected what mayfly-seccomp-compiler writes", what);
    memcpy(&file, blob->data, sizeof(file));
    if (file.version != SECCOMP_FILE_VERSION)
        return error_new(ERROR_INPUT, "%s is a seccomp filter of version %u; expected %d", what, file.version,
                         SECCOMP_FILE_VERSION);
    if (file.arch != SECCOMP_ARCH_HERE)
        return error_new(ERROR_INPUT, "%s is a seccomp filter for architecture %#x; expected %#x", what, file.arch,
                         SECCOMP_ARCH_HERE);
    for (uint32_t i = 0; i < file.count; i++)
        if (!next_filter(blob, &offset, &filter))
            return error_new(ERROR_INPUT, "%s ends within filter %u of %u, or its length is wrong", what, i + 1,
                             file.count);
    if (offset != blob->size)
        return error_new(ERROR_INPUT, "%s has %zu bytes after its last filter", what, blob->size - offset);
    return NULL;
}

/* Finds filter `name`; its instructions are at *code, within the blob. */
static bool find_filter(const struct seccomp_blob *blob, const char *name, struct seccomp_file_filter *filter,
                        const uint8_t **code)
{
    size_t offset = sizeof(struct seccomp_file);

    while (next_filter(blob, &offset, filter)) {
        *code = blob->data + offset - filter->length * sizeof(struct sock_filter);
        if (strncmp(filter->name, name, sizeof(filter->name)) == 0)
            return true;
    }
    return false;
}

bool seccomp_file_has(const struct seccomp_blob *blob, const char *name)
{
    struct seccomp_file_filter filter;
    const uint8_t *code;

    return find_filter(blob, name, &filter, &code);
}

struct error *seccomp_file_load(const struct seccomp_blob *blob, const char *name)
{
    struct seccomp_file_filter filter;
    const uint8_t *code;

    if (!find_filter(blob, name, &filter, &code))
        return error_new(ERROR_INPUT, "the seccomp filters have none called \"%s\"", name);

    struct sock_fprog program = {
        .len = (unsigned short)filter.length,
        .filter = (struct sock_filter *)(uintptr_t)code,
    };
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
        return error_errno(errno, "cannot load the seccomp filter \"%s\"", name);
    return NULL;
}
