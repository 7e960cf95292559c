#include "jailer/base_filter.h"

#include "vmm/base/embed.h"
#include "vmm/base/seccomp.h"

/* Compiled from base.rules by the build. */
EMBED_FILE(base_filter_blob, BASE_FILTER_PATH);

struct error *base_filter_load(void)
{
    const struct seccomp_blob blob = {base_filter_blob, (size_t)(base_filter_blob_end - base_filter_blob)};

    return seccomp_file_load(&blob, "base");
}
