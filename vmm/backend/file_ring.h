/*
 * Disk operations through io_uring: many at a time, without a thread. The ring may do nothing but read, write, sync and
 * fallocate the one file that it was made for. Everything runs with the event loop's lock held.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/backend/file.h"
#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"

enum { FILE_RING_DEPTH = 128 }; /* requests in flight */

struct file_ring;

/*
 * Makes a ring for `file` (borrowed; open until file_ring_free). After each batch of completions `settled` is called
 * once with `owner`. Fails with ERROR_HOST when the host has no io_uring (Linux 5.10 or newer).
 */
struct error *file_ring_new(struct event_loop *loop, const struct disk_file *file, void (*settled)(void *owner),
                            void *owner, struct file_ring **ring);
/* Drains first. NULL is fine. */
void file_ring_free(struct file_ring *ring);

/* How many more requests can be in flight. */
unsigned file_ring_room(const struct file_ring *ring);

/* Queues `request`, which stays in place until request->complete was called; not on a full ring. */
void file_ring_queue(struct file_ring *ring, struct disk_request *request);
/* Hands what was queued to the kernel. */
void file_ring_submit(struct file_ring *ring);
/*
 * Completes what is done already, without a system call: what the kernel did while it was handed over (a read from the
 * page cache) need not wait for the event loop. Does not call `settled`. Returns how many operations came back.
 */
unsigned file_ring_reap(struct file_ring *ring);
/*
 * Waits until nothing is in flight. Completes requests, does not call `settled`. At most `bytes` are begun to transfer
 * meanwhile: a guest may have asked for gigabytes many times over. What would take more completes with ECANCELED.
 */
void file_ring_drain(struct file_ring *ring, uint64_t bytes);
/*
 * Waits until nothing is in flight, and keeps what has come half-way; file_ring_continue, or the next drain, goes on
 * with it.
 */
void file_ring_hold(struct file_ring *ring);
void file_ring_continue(struct file_ring *ring);
/*
 * As a drain, but what has come half-way is not continued, and what failed not tried again: it completes with
 * ECANCELED. Makes no system call but waits.
 */
void file_ring_abandon(struct file_ring *ring);

/* Works on `file` from now on. Nothing may be in flight. On failure the ring keeps its old file. */
struct error *file_ring_set_file(struct file_ring *ring, const struct disk_file *file);
