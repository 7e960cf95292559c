/*
 * How the machine makes each kind of device. The config struct is copied as far as it is needed; the caller keeps it.
 * On success *device is ready for virtio_mmio_new. Errors name the API field and value.
 */
#pragma once

#include "vmm/backend/shared_file.h"
#include "vmm/config.h"
#include "vmm/virtio/device.h"

/*
 * block.c: opens path_on_host, a regular file or a block device (its size in sectors, rounded down, is the capacity; an
 * empty file is a drive without sectors, for callers that give it a file later). The serial number that the guest reads
 * is the first 20 characters of the file's st_dev, st_rdev and st_ino, in decimal, without anything between them: what
 * guests set up for Firecracker look for. `direct` and `queue_count` as in struct drive_options. io_engine Async makes
 * the io_uring here: no other is made while the guest runs.
 */
struct error *virtio_block_new(const struct drive_config *config, struct event_loop *loop,
                               struct virtio_device **device);
/*
 * Opens another file for a running drive (PATCH): new capacity, serial number, config change interrupt; what is in
 * flight ends on the old one. `update`'s NULLs are kept. On failure nothing has changed.
 */
struct error *virtio_block_update(struct virtio_device *device, const struct drive_update *update);

/* net.c: attaches to the tap host_dev_name, or connects to the backend's socket. */
struct error *virtio_net_new(const struct network_interface_config *config, struct event_loop *loop,
                             struct virtio_device **device);
/*
 * vhost_net.c: the same tap, but the host's kernel moves the frames. Config space and control queue are here; no
 * limits, no metadata service.
 */
struct error *virtio_vhost_net_new(const struct network_interface_config *config, struct event_loop *loop,
                                   struct virtio_device **device);
/*
 * net_mmds.c: leads the interface to the metadata service at the IPv4 `address` (host order), which its backend then
 * never sees; NULL: no longer. `mmds` is borrowed. False without memory.
 */
struct mmds;
bool virtio_net_set_mmds(struct virtio_device *device, struct mmds *mmds, uint32_t address);
struct error *virtio_net_update(struct virtio_device *device, const struct network_interface_update *update);

/*
 * vhost_user.c: devices whose queues another process serves. Each connects to the back end's socket and takes over its
 * features and config space; guest memory must be shared by the time the driver is ready.
 */
struct error *virtio_vhost_user_block_new(const struct drive_config *config, struct event_loop *loop,
                                          struct virtio_device **device);
struct error *virtio_vhost_user_net_new(const struct network_interface_config *config, struct event_loop *loop,
                                        struct virtio_device **device);
struct error *virtio_file_system_new(const struct file_system_config *config, struct event_loop *loop,
                                     struct virtio_device **device);
/* Reads the config space from the back end again (PATCH of a drive): the guest hears of a new size. */
struct error *virtio_vhost_user_config_read(struct virtio_device *device);

/* entropy.c */
struct error *virtio_entropy_new(const struct entropy_config *config, struct event_loop *loop,
                                 struct virtio_device **device);

/*
 * pmem.c: opens and maps path_on_host, a regular file that is not empty, shared. Where the guest finds it is told by
 * virtio_pmem_place, before the guest runs: the machine makes the memslot.
 */
struct error *virtio_pmem_new(const struct pmem_config *config, struct event_loop *loop, struct virtio_device **device);
const struct shared_file *virtio_pmem_file(const struct virtio_device *device);
void virtio_pmem_place(struct virtio_device *device, uint64_t gpa);
void virtio_pmem_update(struct virtio_device *device, const struct pmem_update *update);

/* console.c: listens on the ports' sockets and opens their files. */
struct error *virtio_console_new(const struct console_config *config, struct event_loop *loop,
                                 struct virtio_device **device);
/* Plugs a port in or out, changes a terminal's window. */
struct error *virtio_console_update(struct virtio_device *device, const struct console_update *update);

/*
 * vsock.c: listens on uds_path, and on that of `seqpacket` when it is present, mode 0600; accepts nobody before the
 * guest's driver is ready. The guest's connections go to the sockets at `<uds_path>_<port>` of `config`.
 */
struct error *virtio_vsock_new(const struct vsock_config *config, const struct vsock_seqpacket_config *seqpacket,
                               struct event_loop *loop, struct virtio_device **device);

/* balloon.c; any of these only for a device that virtio_balloon_new made. */
struct error *virtio_balloon_new(const struct balloon_config *config, struct event_loop *loop,
                                 struct virtio_device **device);
/* Tells the guest what to give up. */
void virtio_balloon_resize(struct virtio_device *device, uint32_t amount_mib);
/* Asks for statistics at once, and from then on at this interval. */
void virtio_balloon_poll(struct virtio_device *device, uint32_t interval_s);
void virtio_balloon_statistics(const struct virtio_device *device, struct balloon_statistics *statistics);
/* balloon_hinting.c: the same for hints about free pages. */
void virtio_balloon_hinting_start(struct virtio_device *device, bool acknowledge_on_stop);
void virtio_balloon_hinting_stop(struct virtio_device *device);
void virtio_balloon_hinting_status(const struct virtio_device *device, struct balloon_hinting_status *status);

/*
 * mem.c: plugs and unplugs blocks of `memory`, which is borrowed and may be reserved later, before the guest runs. Asks
 * `users` whether another device has to do with what the guest wants unplugged.
 */
enum memory_use {
    MEMORY_UNUSED,
    MEMORY_MAY_BE_WORKED_ON, /* some device has a request in hand, whose buffers may be there */
    MEMORY_HOLDS_RING,
};
struct virtio_mem_users {
    enum memory_use (*use)(void *owner, uint64_t gpa, uint64_t length);
    void *owner;
};
struct error *virtio_mem_new(const struct memory_hotplug_config *config, struct hotplug_memory *memory,
                             const struct virtio_mem_users *users, struct virtio_device **device);
/* How much memory of it the guest shall have, in bytes. */
void virtio_mem_request(struct virtio_device *device, uint64_t size);
uint64_t virtio_mem_requested(const struct virtio_device *device);
