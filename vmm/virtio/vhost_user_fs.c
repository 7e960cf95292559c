/*
 * File systems that another process serves (virtio 1.2, section 5.11).
 *
 * What is open and locked lives in the back end: when it ends, nobody can go on where it stopped. Requests must not
 * hang for that, and Linux does not look at DEVICE_NEEDS_RESET here. So we take the queues over ("orphaned") and answer
 * every request with EIO, until one begins a new session (FUSE_INIT: the guest has unmounted, and mounts again) and
 * there is a back end once more: it gets the queues, from that request on.
 */
#include "vmm/virtio/vhost_user.h"

#include "vmm/base/log.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <linux/fuse.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <string.h>

enum { HIGH_PRIORITY_QUEUE = 0, REQUEST_QUEUES = 1, QUEUES = 1 + REQUEST_QUEUES, ANSWERS_AT_ONCE = 64 };

struct file_system {
    struct vhost_user_device served; /* first */
    struct virtio_fs_config config;
    bool orphaned;
};

static struct file_system *file_system_of(struct virtio_device *device)
{
    return (struct file_system *)vhost_user_device_of(device);
}

/* --- Without a back end --- */

/* What a request asks for; 0, which nothing is, when it is too short to say. */
static struct fuse_in_header request_of(const struct virtqueue_chain *chain)
{
    struct fuse_in_header request;

    if (virtqueue_chain_read(chain, 0, &request, sizeof(request)) != sizeof(request))
        memset(&request, 0, sizeof(request));
    return request;
}

/* Some requests want no answer, and have no room for one. */
static void refuse(struct virtqueue *queue, const struct virtqueue_chain *chain, const struct fuse_in_header *request)
{
    const struct fuse_out_header answer = {.len = sizeof(answer), .error = -EIO, .unique = request->unique};

    virtqueue_push(queue, chain->head, (uint32_t)virtqueue_chain_write(chain, 0, &answer, sizeof(answer)));
}

/* Gives the queues to a back end that has come; what is in them is for it to do. */
static void hand_over(struct file_system *files)
{
    struct virtio_device *device = &files->served.device;
    struct vhost_user_ring rings[VHOST_USER_RINGS_MAX];

    log_info("%s \"%s\": the guest mounts it again", device->ops->name, device->id);
    files->orphaned = false;
    vhost_user_device_rings(&files->served, rings);
    for (unsigned i = 0; i < QUEUES; i++) {
        vhost_user_device_serve(&files->served, i, false);
        rings[i].base = device->queues[i].next_available;
    }
    vhost_user_device_start(&files->served, rings);
    /* Whatever bell rang here rings there. */
    for (unsigned i = 0; i < QUEUES; i++)
        vhost_user_device_kick(&files->served, i);
}

static void break_device(struct file_system *files, const char *why)
{
    struct virtio_device *device = &files->served.device;

    files->orphaned = false;
    for (unsigned i = 0; i < QUEUES; i++)
        vhost_user_device_serve(&files->served, i, false);
    vhost_user_stop(&files->served.front);
    virtio_device_fail(device, why);
}

/* Whether the request was answered; if not, it has gone to a back end. */
static bool refuse_or_hand_over(struct file_system *files, unsigned index, const struct virtqueue_chain *chain)
{
    struct virtqueue *queue = &files->served.device.queues[index];
    const struct fuse_in_header request = request_of(chain);

    if (request.opcode == FUSE_INIT && index != HIGH_PRIORITY_QUEUE && vhost_user_is_there(&files->served.front)) {
        virtqueue_unpop(queue);
        return false;
    }
    refuse(queue, chain, &request);
    return true;
}

static void serve_orphan(struct file_system *files, unsigned index)
{
    struct virtio_device *device = &files->served.device;
    struct virtqueue *queue = &device->queues[index];
    struct virtqueue_chain chain;

    for (unsigned answered = 0; answered < ANSWERS_AT_ONCE; answered++) {
        enum virtqueue_result result = virtqueue_pop(queue, &chain);

        if (result == VIRTQUEUE_BROKEN) {
            break_device(files, "a queue is broken");
            return;
        }
        if (result == VIRTQUEUE_EMPTY && virtqueue_arm(queue))
            continue;
        if (result == VIRTQUEUE_EMPTY) {
            virtio_device_signal(device, index);
            return;
        }
        if (!refuse_or_hand_over(files, index, &chain)) {
            virtio_device_signal(device, index);
            hand_over(files);
            return;
        }
    }
    /* More than one turn's worth: the rest has to wait for the others. */
    virtio_device_signal(device, index);
    vhost_user_device_kick(&files->served, index);
}

/* What the back end had in hand is refused, too. False when nobody can tell what that was. */
static bool refuse_what_is_in_hand(struct file_system *files, unsigned index, const struct vhost_user_ring *ring)
{
    struct virtqueue *queue = &files->served.device.queues[index];
    uint16_t heads[VHOST_USER_RING_SIZE_MAX];
    unsigned count;

    if (!vhost_user_ring_in_flight(ring, heads, &count))
        return false;
    virtqueue_take_over(queue, (uint16_t)count);
    for (unsigned i = 0; i < count; i++) {
        struct virtqueue_chain chain;

        if (virtqueue_look(queue, heads[i], &chain) != VIRTQUEUE_CHAIN)
            return false;

        const struct fuse_in_header request = request_of(&chain);
        refuse(queue, &chain, &request);
    }
    return true;
}

static void become_orphan(struct file_system *files)
{
    struct virtio_device *device = &files->served.device;
    struct vhost_user_ring rings[VHOST_USER_RINGS_MAX];

    files->orphaned = true;
    vhost_user_device_rings(&files->served, rings);
    vhost_user_await(&files->served.front);
    for (unsigned i = 0; i < QUEUES; i++) {
        if (!device->queues[i].ready)
            continue;
        if (!refuse_what_is_in_hand(files, i, &rings[i])) {
            break_device(files, "nobody knows which requests its back end had in hand");
            return;
        }
        vhost_user_device_serve(&files->served, i, true);
    }
    for (unsigned i = 0; i < QUEUES && files->orphaned; i++)
        if (device->queues[i].ready)
            serve_orphan(files, i);
}

static void failed(void *owner, const char *reason)
{
    struct file_system *files = owner;
    const struct virtio_device *device = &files->served.device;

    (void)reason;
    log_warning("%s \"%s\": what the guest asks for fails with EIO until it mounts again, with a back end there",
                device->ops->name, device->id);
    become_orphan(files);
}

/* --- The device's operations --- */

static bool activate(struct virtio_device *device)
{
    struct file_system *files = file_system_of(device);

    if (vhost_user_is_there(&files->served.front))
        return vhost_user_device_activate(device);
    /* The driver's rings may be in use only when the device is active, after this returns. */
    files->orphaned = true;
    vhost_user_await(&files->served.front);
    for (unsigned i = 0; i < QUEUES; i++) {
        vhost_user_device_serve(&files->served, i, true);
        vhost_user_device_kick(&files->served, i);
    }
    return true;
}

static void notify(struct virtio_device *device, unsigned index)
{
    struct file_system *files = file_system_of(device);

    if (files->orphaned)
        serve_orphan(files, index);
    else
        vhost_user_device_notify(device, index);
}

static void reset(struct virtio_device *device)
{
    struct file_system *files = file_system_of(device);

    files->orphaned = false;
    for (unsigned i = 0; i < QUEUES; i++)
        vhost_user_device_serve(&files->served, i, false);
    vhost_user_device_stop(device);
}

static void stop(struct virtio_device *device)
{
    if (!file_system_of(device)->orphaned)
        vhost_user_device_stop(device);
}

static void resume(struct virtio_device *device)
{
    struct file_system *files = file_system_of(device);

    if (!files->orphaned)
        vhost_user_device_resume(device);
    for (unsigned i = 0; i < QUEUES && files->orphaned; i++)
        serve_orphan(files, i);
}

static const struct virtio_ops file_system_ops = {
    .type = VIRTIO_ID_FS,
    .name = "file system",
    .config_read = vhost_user_device_config_read,
    .activate = activate,
    .notify = notify,
    .reset = reset,
    .pause = stop,
    .resume = resume,
    .destroy = vhost_user_device_destroy,
};
static const struct vhost_user_owner owner_ops = {.config_changed = vhost_user_device_config_changed, .failed = failed};
static const struct vhost_user_kind file_system_kind = {
    .ops = &file_system_ops,
    .owner_ops = &owner_ops,
    .metrics_prefix = "vhost_user_fs",
    .size = sizeof(struct file_system),
};

struct error *virtio_file_system_new(const struct file_system_config *config, struct event_loop *loop,
                                     struct virtio_device **device)
{
    struct vhost_user_device *served;
    struct vhost_user_needs needs = {.features = VHOST_USER_RING_FEATURES, .queue_count = QUEUES};

    struct error *error =
        vhost_user_device_new(&file_system_kind, config->fs_id, config->socket_path, &needs, loop, &served);
    if (error != NULL)
        return error_wrap(error, "socket_path");

    struct file_system *files = (struct file_system *)served;
    served->config = (uint8_t *)&files->config;
    served->config_size = sizeof(files->config);
    memcpy(files->config.tag, config->tag, strnlen(config->tag, sizeof(files->config.tag)));
    files->config.num_request_queues = REQUEST_QUEUES;
    *device = &served->device;
    return NULL;
}
