#include "vmm/backend/tap.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>

static struct error *missing(const char *name)
{
    return error_new(ERROR_INPUT, "\"%s\" is not a network interface of this host: expected an existing tap", name);
}

static struct error *attach_refused(const char *name, int code, bool several)
{
    if (code == EBUSY)
        return error_errno(code, "\"%s\": another process has this tap", name);
    if (code == E2BIG)
        return error_errno(code, "\"%s\": another process has queues of this tap, or it has too few", name);
    if (code == EINVAL)
        return error_errno(code, "\"%s\" is not a tap%s", name,
                           several ? " with several queues (ip tuntap add ... multi_queue)" : "");
    return error_errno(code, "\"%s\": cannot attach to this tap", name);
}

/*
 * TUNSETIFF makes an interface when there is none of that name. So look first; should it vanish between the look and
 * the attachment, what TUNSETIFF made shows by not being persistent (one that is and has a single queue could not have
 * been attached to otherwise), and is gone when the descriptor is closed.
 */
static struct error *tap_attach(int fd, const char *name, bool several)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

    if (several)
        request.ifr_flags |= IFF_MULTI_QUEUE;
    if (if_nametoindex(name) == 0)
        return missing(name);
    strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);

    int refused = ioctl(fd, TUNSETIFF, &request);
    /* One that was made with several queues can do with one. */
    if (refused < 0 && errno == EINVAL && !several) {
        request.ifr_flags |= IFF_MULTI_QUEUE;
        refused = ioctl(fd, TUNSETIFF, &request);
    }
    if (refused < 0)
        return attach_refused(name, errno, several);
    if (ioctl(fd, TUNGETIFF, &request) < 0)
        return error_errno(errno, "\"%s\": cannot read the flags of this tap", name);
    if ((request.ifr_flags & IFF_PERSIST) == 0)
        return missing(name);
    return NULL;
}

static struct error *open_queue(const char *name, bool several, int *fd)
{
    int header_size = TAP_HEADER_SIZE;
    cleanup_fd int opened = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    if (opened < 0)
        return error_errno(errno, "\"%s\": cannot open /dev/net/tun", name);

    struct error *error = tap_attach(opened, name, several);
    if (error == NULL && ioctl(opened, TUNSETVNETHDRSZ, &header_size) < 0)
        error = error_errno(errno, "\"%s\": cannot set the size of the virtio-net header", name);
    if (error == NULL && !tap_set_offloads(opened, 0))
        error = error_errno(errno, "\"%s\": cannot turn the offloads off", name);
    if (error != NULL)
        return error;
    *fd = take_fd(&opened);
    return NULL;
}

struct error *tap_open(const char *name, int *fds, unsigned count)
{
    struct error *error = NULL;
    unsigned opened = 0;

    if (name[0] == '\0' || strlen(name) >= IFNAMSIZ)
        return error_new(ERROR_INPUT, "\"%s\" has %zu characters: expected 1 to %d", name, strlen(name), IFNAMSIZ - 1);
    while (opened < count && error == NULL) {
        error = open_queue(name, count > 1, &fds[opened]);
        opened += error == NULL;
    }
    for (unsigned i = 0; i < opened && error != NULL; i++)
        fd_close(&fds[i]);
    return error;
}

bool tap_set_offloads(int fd, unsigned offloads)
{
    return ioctl(fd, TUNSETOFFLOAD, (unsigned long)offloads) == 0;
}

bool tap_attach_queue(int fd, bool attached)
{
    struct ifreq request = {.ifr_flags = attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

    return ioctl(fd, TUNSETQUEUE, &request) == 0;
}
