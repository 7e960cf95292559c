#include "jailer/identity.h"

#include "jailer/privilege.h"

#include <cap-ng.h>
#include <errno.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Raw system calls: libc's would change every thread, and the guardian must stay who it is. */
static struct error *become(const struct jail_config *config, struct missing *missing)
{
    uid_t uid = config->uid;
    gid_t gid = config->gid;

    /* An ordinary user keeps them: one is what opens /dev/kvm, and the kernel lets none be dropped. */
    if (config->mode != JAIL_USER && syscall(SYS_setgroups, 0, NULL) < 0) {
        if (config->mode == JAIL_ROOT || errno != EPERM)
            return error_errno(errno, "cannot drop supplementary groups");
        missing_add(missing, "dropped supplementary groups (no CAP_SETGID)");
    }
    if (syscall(SYS_setresgid, gid, gid, gid) < 0)
        return error_errno(errno, "--gid: cannot become group %u", gid);
    if (syscall(SYS_setresuid, uid, uid, uid) < 0)
        return error_errno(errno, "--uid: cannot become user %u", uid);
    return NULL;
}

/*
 * The order is forced: emptying the bounding set and locking securebits take CAP_SETPCAP, changing ids takes
 * CAP_SETUID and CAP_SETGID, so the effective and permitted sets are emptied last.
 */
static struct error *lock_capabilities(void)
{
    const unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED |
                               SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                               SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

    int capability = 0;

    /* Not by libcap-ng, which passes over one that does not go. The first one that the kernel does not know ends it. */
    while (prctl(PR_CAPBSET_DROP, capability) == 0)
        capability++;
    if (errno != EINVAL || capability == 0)
        return error_errno(errno, "cannot empty the capability bounding set: %d stays in it", capability);
    if (prctl(PR_SET_SECUREBITS, bits) < 0)
        return error_errno(errno, "cannot lock the securebits");
    return NULL;
}

struct error *identity_drop(const struct jail_config *config, struct missing *missing)
{
    struct error *error = NULL;

    if (config->mode != JAIL_REDUCED || privilege_has(CAP_SETPCAP))
        error = lock_capabilities();
    else
        missing_add(missing, "an empty capability bounding set and locked securebits (no CAP_SETPCAP)");
    if (error == NULL)
        error = become(config, missing);
    if (error != NULL)
        return error;

    capng_clear(CAPNG_SELECT_ALL);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_errno(errno, "cannot set no_new_privs");
    if (capng_apply(CAPNG_SELECT_CAPS) != 0 || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return error_errno(errno, "cannot empty the capability sets");
    return NULL;
}
