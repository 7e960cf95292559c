#include "vmm/mmds/mmds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct error *check_size(const struct mmds *mmds, const struct mmds_value *contents)
{
    size_t size = mmds_value_json(contents, NULL);

    if (size <= mmds->limit)
        return NULL;
    return error_new(ERROR_TOO_LARGE, "the metadata would have %zu bytes, expected at most %zu", size, mmds->limit);
}

struct error *mmds_put(struct mmds *mmds, struct mmds_value *contents)
{
    struct error *error = check_size(mmds, contents);

    if (error != NULL)
        return error;
    mmds_value_free(mmds->contents);
    mmds->contents = contents;
    return NULL;
}

/* A merge may fail half-way, and its size is known afterwards: it is done on a copy. */
struct error *mmds_patch(struct mmds *mmds, const struct mmds_value *patch)
{
    if (mmds->contents == NULL)
        return error_new(ERROR_INPUT, "the metadata was never put, expected a PUT before a PATCH");

    struct mmds_value *merged = mmds_value_clone(mmds->contents);
    struct error *error = NULL;
    if (merged == NULL || !mmds_value_merge(merged, patch))
        error = error_errno(ENOMEM, "cannot change the metadata");
    if (error == NULL)
        error = mmds_put(mmds, merged);
    if (error != NULL)
        mmds_value_free(merged);
    return error;
}

void mmds_free(struct mmds *mmds)
{
    mmds_value_free(mmds->contents);
    mmds->contents = NULL;
    explicit_bzero(mmds->key, sizeof(mmds->key));
    mmds->has_key = false;
}
