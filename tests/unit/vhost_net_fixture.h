/*
 * A network device whose frames the host's kernel moves, and its driver. This host may have no /dev/vhost-net: the
 * program that includes this stands in for it, and for the tap, by being what open(2) and ioctl(2) reach.
 */
#pragma once

#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"
#include "tests/unit/settle.h"

#include "vmm/hotplug_memory.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAIRS = 2, CONTROL = 4, RX = 0, TX = 1, HEADER_SIZE = 12, REGIONS = 3, NOBODY = -1 };

#define FEATURE(bit) (1ull << (bit))
#define QUEUES (FEATURE(VIRTIO_NET_F_MQ) | FEATURE(VIRTIO_NET_F_CTRL_VQ))
#define COMMAND_GPA 0x600000ULL
#define ANSWER_GPA 0x610000ULL
/* What vhost-net says, and what of it nobody has asked for. */
#define KERNEL_FEATURES                                                                                                \
    (FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) | FEATURE(VIRTIO_RING_F_EVENT_IDX) |           \
     FEATURE(VIRTIO_NET_F_MRG_RXBUF) | FEATURE(VHOST_F_LOG_ALL) | FEATURE(VIRTIO_F_ACCESS_PLATFORM))

struct fake_queue {
    unsigned size, base;
    struct vhost_vring_addr address;
    int kick_fd, call_fd, error_fd;
    int tap_fd;
    unsigned attachments;
};

/* One open /dev/vhost-net, or one queue of the tap. */
struct fake_file {
    int fd;
    bool owned;
    uint64_t features;
    struct vhost_memory_region regions[REGIONS];
    unsigned region_count;
    struct fake_queue queues[2];
    bool attached; /* of the tap */
    unsigned offloads;
};

static struct guest_driver driver;
static struct network_interface_config config;
static struct fake_file vhosts[PAIRS], taps[PAIRS];
static unsigned vhost_count, tap_count;
static unsigned long refused; /* the request that fails, once `refuse_after` others have not */
static unsigned refuse_after;
static bool missing; /* there is no /dev/vhost-net */

/* --- The kernel --- */

static inline struct fake_file *find(struct fake_file *files, int fd)
{
    for (unsigned i = 0; i < PAIRS; i++)
        if (files[i].fd == fd && fd >= 0)
            return &files[i];
    return NULL;
}

static inline int answer_tap(struct fake_file *tap, unsigned long request, void *argument)
{
    struct ifreq *interface = argument;

    switch (request) {
    case TUNGETIFF:
        interface->ifr_flags = IFF_PERSIST;
        return 0;
    case TUNSETIFF:
        tap->attached = true;
        return 0;
    case TUNSETQUEUE:
        assert_int_equal(tap->attached, (interface->ifr_flags & IFF_DETACH_QUEUE) != 0);
        tap->attached = !tap->attached;
        return 0;
    case TUNSETOFFLOAD:
        tap->offloads = (unsigned)(uintptr_t)argument;
        return 0;
    default:
        assert_int_equal(request, TUNSETVNETHDRSZ);
        assert_int_equal(*(int *)argument, HEADER_SIZE);
        return 0;
    }
}

static inline void take_memory(struct fake_file *vhost, const struct vhost_memory *table)
{
    assert_in_range(table->nregions, 1, REGIONS);
    vhost->region_count = table->nregions;
    memcpy(vhost->regions, table->regions, table->nregions * sizeof(table->regions[0]));
}

static inline int answer_queue(struct fake_file *vhost, unsigned long request, const void *argument)
{
    const struct vhost_vring_state *state = argument; /* they all begin with the index */
    const struct vhost_vring_file *file = argument;

    assert_in_range(state->index, 0, 1);
    struct fake_queue *queue = &vhost->queues[state->index];
    /* As the kernel: what is attached stays where it is. */
    if (request != VHOST_NET_SET_BACKEND)
        assert_int_equal(queue->tap_fd, NOBODY);
    switch (request) {
    case VHOST_SET_VRING_NUM:
        queue->size = state->num;
        return 0;
    case VHOST_SET_VRING_BASE:
        queue->base = state->num;
        return 0;
    case VHOST_SET_VRING_ADDR:
        memcpy(&queue->address, argument, sizeof(queue->address));
        return 0;
    case VHOST_SET_VRING_KICK:
        queue->kick_fd = file->fd;
        return 0;
    case VHOST_SET_VRING_CALL:
        queue->call_fd = file->fd;
        return 0;
    case VHOST_SET_VRING_ERR:
        queue->error_fd = file->fd;
        return 0;
    default:
        assert_int_equal(request, VHOST_NET_SET_BACKEND);
        assert_true(file->fd == NOBODY || queue->size > 0);
        queue->tap_fd = file->fd;
        queue->attachments += file->fd != NOBODY;
        return 0;
    }
}

static inline int answer_vhost(struct fake_file *vhost, unsigned long request, void *argument)
{
    assert_true(vhost->owned || request == VHOST_SET_OWNER);
    switch (request) {
    case VHOST_SET_OWNER:
        vhost->owned = true;
        return 0;
    case VHOST_GET_FEATURES:
        *(uint64_t *)argument = KERNEL_FEATURES;
        return 0;
    case VHOST_SET_FEATURES:
        vhost->features = *(uint64_t *)argument;
        return 0;
    case VHOST_SET_MEM_TABLE:
        take_memory(vhost, argument);
        return 0;
    default:
        return answer_queue(vhost, request, argument);
    }
}

int fake_ioctl(int fd, unsigned long request, ...) __asm__("ioctl");
int fake_ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    struct fake_file *vhost = find(vhosts, fd), *tap = find(taps, fd);

    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (vhost == NULL && tap == NULL)
        return (int)syscall(SYS_ioctl, fd, request, argument);
    if (request == refused && refuse_after-- == 0) {
        refused = 0;
        errno = EFAULT;
        return -1;
    }
    return vhost != NULL ? answer_vhost(vhost, request, argument) : answer_tap(tap, request, argument);
}

static inline int open_fake(struct fake_file *file)
{
    file->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    for (unsigned i = 0; i < 2; i++)
        file->queues[i].tap_fd = NOBODY;
    return file->fd;
}

int fake_open(const char *path, int flags, ...) __asm__("open");
int fake_open(const char *path, int flags, ...)
{
    if (strcmp(path, "/dev/net/tun") == 0)
        return open_fake(&taps[tap_count++]);
    if (strcmp(path, "/dev/vhost-net") == 0 && !missing)
        return open_fake(&vhosts[vhost_count++]);
    if (strcmp(path, "/dev/vhost-net") != 0)
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600);
    errno = ENOENT;
    return -1;
}

unsigned if_nametoindex(const char *name)
{
    assert_string_equal(name, "tap0");
    return 1;
}

/* --- The driver --- */

static inline int setup(void **state)
{
    (void)state;
    memset(vhosts, 0, sizeof(vhosts));
    memset(taps, 0, sizeof(taps));
    for (unsigned i = 0; i < PAIRS; i++)
        vhosts[i].fd = taps[i].fd = -1;
    vhost_count = tap_count = 0;
    refused = refuse_after = 0;
    missing = false;
    config = (struct network_interface_config){
        .iface_id = (char *)"eth0", .host_dev_name = (char *)"tap0", .vhost = true, .queue_count = 1};
    guest_driver_setup(&driver);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&driver);
    /* Nothing is left open. */
    for (unsigned i = 0; i < PAIRS; i++) {
        assert_true(vhosts[i].fd < 0 || fcntl(vhosts[i].fd, F_GETFD) < 0);
        assert_true(taps[i].fd < 0 || fcntl(taps[i].fd, F_GETFD) < 0);
    }
    return 0;
}

static inline void make(unsigned pairs)
{
    config.queue_count = pairs;
    assert_no_error(virtio_vhost_net_new(&config, driver.loop, &driver.device));
    assert_int_equal(tap_count, pairs);
    assert_int_equal(vhost_count, pairs);
}

static inline void start(unsigned pairs, uint64_t features)
{
    make(pairs);
    guest_driver_start(&driver, driver.device, features);
    guest_driver_settle(&driver);
}

static inline void next_driver(void)
{
    guest_driver_reset(&driver);
    guest_driver_restart(&driver, 0);
    guest_driver_settle(&driver);
}

static inline bool is_attached(unsigned pair)
{
    const struct fake_queue *queues = vhosts[pair].queues;

    assert_int_equal(queues[RX].tap_fd, queues[TX].tap_fd);
    if (queues[RX].tap_fd == NOBODY)
        return false;
    assert_int_equal(queues[RX].tap_fd, taps[pair].fd);
    return true;
}

/* How often a queue's bell was rung since this was last asked. */
static inline unsigned rings(unsigned queue)
{
    eventfd_t count = 0;

    return driver.bells[queue] > 0 && eventfd_read(driver.bells[queue], &count) == 0 ? (unsigned)count : 0;
}

static inline uint8_t use_pairs(uint16_t pairs)
{
    const uint8_t command[] = {VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, (uint8_t)pairs,
                               (uint8_t)(pairs >> 8)};
    const struct guest_buffer buffers[] = {{COMMAND_GPA, sizeof(command), false}, {ANSWER_GPA, 1, true}};

    memcpy(guest_at(&driver.memory, COMMAND_GPA, sizeof(command)), command, sizeof(command));
    guest_ring_add(&driver.rings[CONTROL], buffers, array_length(buffers));
    guest_driver_notify(&driver, CONTROL);
    assert_int_equal(guest_driver_wait_used(&driver, CONTROL, NULL), 1);
    return *(uint8_t *)guest_at(&driver.memory, ANSWER_GPA, 1);
}

static inline void pause_device(bool paused)
{
    driver.device->paused = paused;
    if (paused)
        driver.device->ops->pause(driver.device);
    else
        driver.device->ops->resume(driver.device);
    guest_driver_settle(&driver);
}
