#include "vmm/kvm.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

static struct error *open_failure(int code)
{
    switch (code) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
        return error_errno(code, "cannot open /dev/kvm (this host offers no KVM: is its module loaded, is the node in "
                                 "the jail?)");
    case EACCES:
    case EPERM:
        return error_errno(code, "cannot open /dev/kvm (this user needs read and write permission on it)");
    default:
        return error_errno(code, "cannot open /dev/kvm");
    }
}

struct error *kvm_open(int *kvm_fd)
{
    cleanup_fd int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return open_failure(errno);

    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version < 0)
        return error_errno(errno, "/dev/kvm is not KVM");
    if (version != KVM_API_VERSION)
        return error_new(ERROR_HOST, "/dev/kvm speaks API version %d, expected %d", version, KVM_API_VERSION);
    if (ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) <= 0)
        return error_new(ERROR_HOST, "/dev/kvm has no KVM_CAP_IMMEDIATE_EXIT (Linux 4.13 or newer is needed)");
    *kvm_fd = take_fd(&fd);
    return NULL;
}

struct error *kvm_run_size(int kvm_fd, size_t *size)
{
    int bytes = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

    if (bytes < (int)sizeof(struct kvm_run))
        return error_errno(errno, "KVM_GET_VCPU_MMAP_SIZE");
    *size = (size_t)bytes;
    return NULL;
}

struct error *kvm_vm_new(int kvm_fd, int *vm_fd)
{
    int fd;

    /* KVM_CREATE_VM may be interrupted by a signal. */
    do
        fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return error_errno(errno, "KVM_CREATE_VM");
    *vm_fd = fd;
    return NULL;
}

struct error *kvm_memslot_set(int vm_fd, uint32_t slot, const struct guest_region *region, uint32_t flags)
{
    struct kvm_userspace_memory_region memslot = {
        .slot = slot,
        .flags = flags,
        .guest_phys_addr = region->gpa,
        .memory_size = region->size,
        .userspace_addr = (uintptr_t)region->hva,
    };

    if (ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &memslot) < 0)
        return error_errno(errno, "KVM refuses a memslot of %llu MiB at GPA 0x%llx",
                           (unsigned long long)region->size >> 20, (unsigned long long)region->gpa);
    return NULL;
}

struct error *kvm_memslots_set(int vm_fd, const struct guest_memory *memory, bool track_dirty_pages)
{
    uint32_t flags = track_dirty_pages ? KVM_MEM_LOG_DIRTY_PAGES : 0;

    for (uint32_t slot = 0; slot < memory->count; slot++) {
        struct error *error = kvm_memslot_set(vm_fd, slot, &memory->regions[slot], flags);

        if (error != NULL)
            return error_wrap(error, "mem_size_mib");
    }
    return NULL;
}

struct error *kvm_irq_event_new(int vm_fd, uint32_t gsi, int *event_fd)
{
    cleanup_fd int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = gsi};

    if (fd < 0)
        return error_errno(errno, "cannot make an eventfd for interrupt %u", gsi);
    if (ioctl(vm_fd, KVM_IRQFD, &irqfd) < 0)
        return error_errno(errno, "KVM_IRQFD for interrupt %u", gsi);
    *event_fd = take_fd(&fd);
    return NULL;
}
