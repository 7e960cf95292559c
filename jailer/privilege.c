#include "jailer/privilege.h"

#include "jailer/user_namespace.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct error *look(uint64_t *effective)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};

    if (syscall(SYS_capget, &header, data) < 0)
        return error_errno(errno, "cannot look at the jailer's capabilities");
    *effective = (uint64_t)data[1].effective << 32 | data[0].effective;
    return NULL;
}

bool privilege_has(int capability)
{
    uint64_t effective = 0;
    struct error *error = look(&effective);

    error_free(error);
    return (effective >> capability & 1) != 0;
}

struct error *privilege_choose_mode(struct jail_config *config)
{
    uint64_t effective = 0;
    struct error *error = look(&effective);

    if (error != NULL)
        return error;
    config->mode = geteuid() == 0 && (effective >> CAP_SYS_ADMIN & 1) != 0 ? JAIL_ROOT : JAIL_USER;
    if (config->mode == JAIL_ROOT || !config->allow_reduced)
        return NULL;

    pid_t child = fork();
    if (child < 0)
        return error_errno(errno, "--allow-reduced: cannot fork");
    if (child == 0)
        _exit(user_namespace_works(config) ? 0 : 1);

    int status;
    if (waitpid(child, &status, 0) != child)
        return error_errno(errno, "--allow-reduced: cannot wait for the process that tries user namespaces");
    if (status != 0)
        config->mode = JAIL_REDUCED;
    return NULL;
}

const char *privilege_default_base(const char *runtime_dir)
{
    static char base[4096];

    if (geteuid() == 0)
        return "/srv/jailer";
    if (runtime_dir == NULL || runtime_dir[0] != '/' || strlen(runtime_dir) > sizeof(base) - sizeof("/mayfly"))
        return NULL;
    snprintf(base, sizeof(base), "%s/mayfly", runtime_dir);
    return base;
}
