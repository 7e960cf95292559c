#include "vmm/backend/vhost_net.h"

#include "vmm/base/cleanup.h"
#include "vmm/guest_memory.h"
#include "vmm/hotplug_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <sys/ioctl.h>

static const char path[] = "/dev/vhost-net";

enum { REGIONS_MAX = GUEST_REGIONS_MAX + 1 };

/* struct vhost_memory with its regions. */
struct memory_table {
    uint32_t count;
    uint32_t padding;
    struct vhost_memory_region regions[REGIONS_MAX];
};
_Static_assert(offsetof(struct memory_table, count) == offsetof(struct vhost_memory, nregions) &&
                   offsetof(struct memory_table, regions) == offsetof(struct vhost_memory, regions),
               "the table is what the kernel takes it for");

struct error *vhost_net_open(int *fd, uint64_t *features)
{
    cleanup_fd int opened = open(path, O_RDWR | O_CLOEXEC);

    if (opened < 0)
        return error_errno(errno, "cannot open %s%s", path,
                           errno == ENOENT || errno == ENODEV ? " (modprobe vhost_net; a jail has it by --vhost-net)"
                                                              : "");
    if (ioctl(opened, VHOST_SET_OWNER, NULL) < 0 || ioctl(opened, VHOST_GET_FEATURES, features) < 0)
        return error_errno(errno, "cannot take %s", path);
    *fd = take_fd(&opened);
    return NULL;
}

static void add_region(struct memory_table *table, uint64_t gpa, uint64_t size, const uint8_t *hva)
{
    table->regions[table->count++] =
        (struct vhost_memory_region){.guest_phys_addr = gpa, .memory_size = size, .userspace_addr = (uintptr_t)hva};
}

/* Of memory that comes and goes all is told: what is not plugged nobody may touch, the kernel on our behalf neither. */
static bool set_memory(int fd, const struct guest_memory *memory)
{
    struct memory_table table = {0};

    for (size_t i = 0; i < memory->count; i++)
        add_region(&table, memory->regions[i].gpa, memory->regions[i].size, memory->regions[i].hva);
    if (memory->hotplug != NULL)
        add_region(&table, memory->hotplug->gpa, memory->hotplug->size, memory->hotplug->hva);
    return ioctl(fd, VHOST_SET_MEM_TABLE, &table) == 0;
}

bool vhost_net_begin(int fd, const struct guest_memory *memory, uint64_t features)
{
    return ioctl(fd, VHOST_SET_FEATURES, &features) == 0 && set_memory(fd, memory);
}

bool vhost_net_set_queue(int fd, unsigned index, const struct vhost_net_queue *queue, uint16_t base)
{
    struct vhost_vring_state size = {.index = index, .num = queue->size};
    struct vhost_vring_state position = {.index = index, .num = base};
    struct vhost_vring_addr address = {
        .index = index,
        .desc_user_addr = (uintptr_t)queue->descriptors,
        .avail_user_addr = (uintptr_t)queue->available,
        .used_user_addr = (uintptr_t)queue->used,
    };
    struct vhost_vring_file call = {.index = index, .fd = queue->call_fd};
    struct vhost_vring_file error = {.index = index, .fd = queue->error_fd};
    struct vhost_vring_file kick = {.index = index, .fd = queue->kick_fd};

    return ioctl(fd, VHOST_SET_VRING_NUM, &size) == 0 && ioctl(fd, VHOST_SET_VRING_BASE, &position) == 0 &&
           ioctl(fd, VHOST_SET_VRING_ADDR, &address) == 0 && ioctl(fd, VHOST_SET_VRING_CALL, &call) == 0 &&
           ioctl(fd, VHOST_SET_VRING_ERR, &error) == 0 && ioctl(fd, VHOST_SET_VRING_KICK, &kick) == 0;
}

bool vhost_net_attach(int fd, unsigned index, int tap_fd)
{
    struct vhost_vring_file backend = {.index = index, .fd = tap_fd};

    return ioctl(fd, VHOST_NET_SET_BACKEND, &backend) == 0;
}
