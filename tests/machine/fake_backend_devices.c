#include "tests/machine/fake_backend_devices.h"

#include <linux/fuse.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_net.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECTOR = 512, NET_HEADER = 12, ETHERNET = 14, FRAMES = 6, LIFE = 20, SHORT_LIFE = 2 };

/* --- The disk --- */

static void serve_disk(struct backend_queue *queue, uint16_t head)
{
    const struct vring_desc *descriptors = queue->descriptors;
    struct virtio_blk_outhdr *header;
    uint16_t at = head;
    uint32_t written = 0;
    uint8_t *last = NULL;
    uint8_t status = VIRTIO_BLK_S_OK;

    if (descriptors[head].flags & VRING_DESC_F_INDIRECT) {
        descriptors = backend_memory(descriptors[head].addr, false);
        at = 0;
    }
    header = backend_memory(descriptors[at].addr, false);
    off_t offset = (off_t)header->sector * SECTOR;
    while (descriptors[at].flags & VRING_DESC_F_NEXT) {
        at = descriptors[at].next;
        const struct vring_desc *descriptor = &descriptors[at];
        last = backend_memory(descriptor->addr, false);
        if (!(descriptor->flags & VRING_DESC_F_NEXT))
            break;
        if (header->type == VIRTIO_BLK_T_IN && pread(backend.disk, last, descriptor->len, offset) >= 0)
            written += descriptor->len;
        if (header->type == VIRTIO_BLK_T_OUT && pwrite(backend.disk, last, descriptor->len, offset) < 0)
            status = VIRTIO_BLK_S_IOERR;
        offset += descriptor->len;
    }
    *last = status;
    backend_give(queue, head, written + 1);
}

/* --- The network: what is sent on queue 2n+1 comes back on queue 2n --- */

static void serve_net(unsigned index, uint16_t head)
{
    struct backend_queue *sent = &backend.queues[index], *received = &backend.queues[index - 1];
    const struct vring_desc *from = &sent->descriptors[head];
    const uint8_t *frame = backend_memory(from->addr, false);
    uint16_t room;

    if (from->len > NET_HEADER + ETHERNET && backend_take(received, &room)) {
        uint8_t *to = backend_memory(received->descriptors[room].addr, false);

        memcpy(to, frame, from->len);
        to[10] = 1; /* num_buffers */
        to[11] = 0;
        backend.served++;
        to[NET_HEADER + ETHERNET] = backend.served % FRAMES == 0 ? 'q' : 'l';
        backend_give(received, room, from->len);
        eventfd_write(received->call, 1);
    }
    backend_give(sent, head, 0);
}

/* --- The file system --- */

static void serve_files(struct backend_queue *queue, uint16_t head)
{
    const struct vring_desc *descriptor = &queue->descriptors[head];
    const struct fuse_in_header *in = backend_memory(descriptor->addr, false);
    struct fuse_out_header out = {.len = sizeof(out), .unique = in->unique};

    /* This one takes for ever. */
    if (in->opcode == FUSE_SETLKW)
        return;
    while ((descriptor->flags & (VRING_DESC_F_NEXT | VRING_DESC_F_WRITE)) == VRING_DESC_F_NEXT)
        descriptor = &queue->descriptors[descriptor->next];
    if ((descriptor->flags & VRING_DESC_F_WRITE) == 0) {
        backend_give(queue, head, 0);
        return;
    }
    memcpy(backend_memory(descriptor->addr, false), &out, sizeof(out));
    backend_give(queue, head, sizeof(out));
}

static bool is_in_disorder(void)
{
    return backend.behaviour == BACKEND_DIES_IN_DISORDER || backend.behaviour == BACKEND_DIES_FORGETFUL;
}

static void serve_request(unsigned index, uint16_t head)
{
    struct backend_queue *queue = &backend.queues[index];

    if (backend.device == BACKEND_NET)
        serve_net(index, head);
    else if (backend.device == BACKEND_DISK)
        serve_disk(queue, head);
    else
        serve_files(queue, head);
    eventfd_write(queue->call, 1);
    if (is_in_disorder() && ++backend.served == (backend.behaviour == BACKEND_DIES_FORGETFUL ? SHORT_LIFE : LIFE))
        _exit(0);
}

/* All that is there, the newest first. */
static void serve_in_disorder(unsigned index)
{
    uint16_t heads[256];
    unsigned count = 0;

    while (backend_take(&backend.queues[index], &heads[count]))
        count++;
    while (count > 0)
        serve_request(index, heads[--count]);
}

void backend_redo(unsigned index, uint16_t head)
{
    serve_request(index, head);
}

void backend_serve(unsigned index)
{
    uint16_t head;

    if (backend.device == BACKEND_NET && index % 2 == 0)
        return;
    if (is_in_disorder()) {
        serve_in_disorder(index);
        return;
    }
    while (backend_take(&backend.queues[index], &head)) {
        if (backend.behaviour == BACKEND_DIES_BUSY)
            _exit(0);
        serve_request(index, head);
    }
}

uint64_t backend_features(void)
{
    if (backend.device == BACKEND_NET)
        return 1ull << VIRTIO_NET_F_MQ | 1ull << VIRTIO_NET_F_MRG_RXBUF;
    if (backend.device == BACKEND_DISK)
        return 1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_MQ | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
               1ull << VIRTIO_RING_F_EVENT_IDX;
    return 0;
}

void backend_config(uint8_t *bytes, uint32_t size)
{
    struct virtio_blk_config config = {0};
    struct stat status;

    fstat(backend.disk, &status);
    config.capacity = (uint64_t)status.st_size / SECTOR;
    memcpy(bytes, &config, size < sizeof(config) ? size : sizeof(config));
}
