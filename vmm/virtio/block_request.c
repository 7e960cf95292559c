/*
 * What a block request asks for, and whether it may (virtio 1.2, 5.2.6). The preparers return a status, or BLOCK_RUN.
 */
#include "vmm/virtio/block.h"

#include "vmm/base/checked.h"
#include "vmm/base/cleanup.h"

static bool sectors_to_range(const struct block *block, uint64_t sector, uint64_t sectors, struct disk_request *disk)
{
    if (!range_within(sector, sectors, block->config.capacity))
        return false;
    disk->offset = sector * DISK_SECTOR;
    disk->length = sectors * DISK_SECTOR;
    return true;
}

static int prepare_transfer(const struct block *block, const struct virtio_blk_outhdr *header, uint32_t length,
                            struct disk_request *disk)
{
    if (length % DISK_SECTOR != 0 || !sectors_to_range(block, header->sector, length / DISK_SECTOR, disk))
        return VIRTIO_BLK_S_IOERR;
    return length > 0 ? BLOCK_RUN : VIRTIO_BLK_S_OK;
}

static int prepare_read(const struct block *block, struct virtqueue_chain *chain,
                        const struct virtio_blk_outhdr *header, struct block_request *request)
{
    struct disk_request *disk = &request->disk;
    uint32_t length = chain->writable_bytes - 1;

    disk->operation = DISK_READ;
    disk->iov = chain->iov;
    disk->iov_count = iovec_slice(chain->iov, chain->iov + chain->readable_count, chain->writable_count, 0, length);
    return prepare_transfer(block, header, length, disk);
}

static int prepare_write(const struct block *block, struct virtqueue_chain *chain,
                         const struct virtio_blk_outhdr *header, struct block_request *request)
{
    struct disk_request *disk = &request->disk;
    uint32_t length = chain->readable_bytes - (uint32_t)sizeof(*header);

    if (block->read_only)
        return VIRTIO_BLK_S_IOERR;
    disk->operation = DISK_WRITE;
    /* Who cannot flush relies on each write (5.2.6.2). */
    disk->durable = block->writeback && (block->device.driver_features & 1ULL << VIRTIO_BLK_F_FLUSH) == 0;
    disk->iov = chain->iov;
    disk->iov_count = iovec_slice(chain->iov, chain->iov, chain->readable_count, sizeof(*header), length);
    return prepare_transfer(block, header, length, disk);
}

static int prepare_flush(const struct block *block, struct virtqueue_chain *chain,
                         const struct virtio_blk_outhdr *header, struct block_request *request)
{
    (void)chain;
    (void)header;
    request->disk.operation = DISK_SYNC;
    return block->writeback ? BLOCK_RUN : VIRTIO_BLK_S_OK;
}

static int prepare_identity(const struct block *block, struct virtqueue_chain *chain,
                            const struct virtio_blk_outhdr *header, struct block_request *request)
{
    (void)header;
    if (chain->writable_bytes < VIRTIO_BLK_ID_BYTES + 1)
        return VIRTIO_BLK_S_IOERR;
    request->written = VIRTIO_BLK_ID_BYTES;
    virtqueue_chain_write(chain, 0, block->file.identity, VIRTIO_BLK_ID_BYTES);
    return VIRTIO_BLK_S_OK;
}

/* Discard and write-zeroes: one segment, the flags that are allowed, a length of at most `sectors_max`. */
static int prepare_segment(const struct block *block, struct virtqueue_chain *chain, uint32_t flags_allowed,
                           uint32_t sectors_max, struct block_request *request)
{
    struct virtio_blk_discard_write_zeroes segment;

    if (block->read_only || chain->readable_bytes != sizeof(struct virtio_blk_outhdr) + sizeof(segment))
        return VIRTIO_BLK_S_IOERR;
    virtqueue_chain_read(chain, sizeof(struct virtio_blk_outhdr), &segment, sizeof(segment));
    if ((segment.flags & ~flags_allowed) != 0)
        return VIRTIO_BLK_S_UNSUPP;
    if (segment.num_sectors > sectors_max ||
        !sectors_to_range(block, segment.sector, segment.num_sectors, &request->disk))
        return VIRTIO_BLK_S_IOERR;
    request->disk.deallocate = (segment.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) != 0;
    return segment.num_sectors > 0 ? BLOCK_RUN : VIRTIO_BLK_S_OK;
}

static int prepare_discard(const struct block *block, struct virtqueue_chain *chain,
                           const struct virtio_blk_outhdr *header, struct block_request *request)
{
    (void)header;
    request->disk.operation = DISK_DISCARD;
    return prepare_segment(block, chain, 0, BLOCK_DISCARD_SECTORS_MAX, request);
}

static int prepare_write_zeroes(const struct block *block, struct virtqueue_chain *chain,
                                const struct virtio_blk_outhdr *header, struct block_request *request)
{
    (void)header;
    request->disk.operation = DISK_WRITE_ZEROES;
    return prepare_segment(block, chain, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, BLOCK_WRITE_ZEROES_SECTORS_MAX, request);
}

static const struct {
    uint32_t type;
    int (*prepare)(const struct block *block, struct virtqueue_chain *chain, const struct virtio_blk_outhdr *header,
                   struct block_request *request);
} request_types[] = {
    {VIRTIO_BLK_T_IN, prepare_read},         {VIRTIO_BLK_T_OUT, prepare_write},
    {VIRTIO_BLK_T_FLUSH, prepare_flush},     {VIRTIO_BLK_T_GET_ID, prepare_identity},
    {VIRTIO_BLK_T_DISCARD, prepare_discard}, {VIRTIO_BLK_T_WRITE_ZEROES, prepare_write_zeroes},
};

int block_request_prepare(struct block *block, struct virtqueue *queue, struct virtqueue_chain *chain,
                          struct block_request *request)
{
    const struct iovec *last = &chain->iov[chain->readable_count + chain->writable_count - 1];
    struct virtio_blk_outhdr header;

    *request = (struct block_request){
        .block = block,
        .queue = queue,
        .disk.operation = DISK_OPERATIONS, /* none yet */
        .head = chain->head,
        .status = (uint8_t *)last->iov_base + last->iov_len - 1,
    };
    if (virtqueue_chain_read(chain, 0, &header, sizeof(header)) < sizeof(header))
        return VIRTIO_BLK_S_IOERR;
    for (size_t i = 0; i < array_length(request_types); i++)
        if (request_types[i].type == header.type)
            return request_types[i].prepare(block, chain, &header, request);
    return VIRTIO_BLK_S_UNSUPP;
}
