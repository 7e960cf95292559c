/* Memory for requests in flight together: busy drives need one after the other, too large to be kept by malloc. */
#include "vmm/virtio/block.h"

#include <stdlib.h>

enum { LANDED_MAX = 4 };

struct block_flight *block_flight_new(struct block *block, size_t size)
{
    struct block_flight *flight = block->landed;

    if (flight != NULL) {
        block->landed = flight->next;
        block->landed_count--;
        if (flight->size >= size)
            return flight;
        free(flight);
    }
    flight = malloc(size);
    if (flight != NULL)
        flight->size = size;
    return flight;
}

void block_flight_land(struct block_flight *flight)
{
    struct block *block = flight->block;

    if (block->landed_count == LANDED_MAX) {
        free(flight);
        return;
    }
    flight->next = block->landed;
    block->landed = flight;
    block->landed_count++;
}

void block_flights_free(struct block *block)
{
    while (block->landed != NULL) {
        struct block_flight *flight = block->landed;

        block->landed = flight->next;
        free(flight);
    }
    block->landed_count = 0;
}
