#include "jailer/namespaces.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

struct error *namespaces_open_netns(const struct jail_config *config, int *fd)
{
    *fd = -1;
    if (config->netns == NULL)
        return NULL;

    cleanup_fd int file = open(config->netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return error_errno(errno, "--netns: cannot open \"%s\"", config->netns);
    if (ioctl(file, NS_GET_NSTYPE) != CLONE_NEWNET)
        return error_new(ERROR_INPUT, "--netns: \"%s\" is not a network namespace", config->netns);
    *fd = take_fd(&file);
    return NULL;
}

struct error *namespaces_enter_mount(void)
{
    if (unshare(CLONE_NEWNS) < 0)
        return error_errno(errno, "cannot unshare the mount namespace");
    /*
     * Or the unmounting of the old root would propagate to the host. Not private: what the caller mounts below the
     * jail's root later, the image of a disk over its placeholder, is to be there.
     */
    if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
        return error_errno(errno, "cannot make the mounts slaves of the host's");
    return NULL;
}

struct error *namespaces_enter(const struct jail_config *config, int netns)
{
    static const struct {
        size_t flag;
        int clone_flag;
    } optional[] = {
        {offsetof(struct jail_config, new_net_ns), CLONE_NEWNET},
        {offsetof(struct jail_config, new_ipc_ns), CLONE_NEWIPC},
        {offsetof(struct jail_config, new_uts_ns), CLONE_NEWUTS},
        {offsetof(struct jail_config, new_cgroup_ns), CLONE_NEWCGROUP},
    };
    int flags = 0;

    for (size_t i = 0; i < array_length(optional); i++)
        if (*(const bool *)((const char *)config + optional[i].flag))
            flags |= optional[i].clone_flag;
    if (flags != 0 && unshare(flags) < 0)
        return error_errno(errno, "cannot unshare namespaces (flags %#x)", (unsigned)flags);
    if (netns >= 0 && setns(netns, CLONE_NEWNET) < 0)
        return error_errno(errno, "--netns: cannot join \"%s\"", config->netns);
    return NULL;
}

struct error *namespaces_enter_time(const struct jail_config *config)
{
    if (config->new_time_ns && unshare(CLONE_NEWTIME) < 0)
        return error_errno(errno, "cannot unshare the time namespace");
    return NULL;
}
