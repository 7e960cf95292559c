/* What the fuzz targets have in common. A target is a tests/fuzz/fuzz_*.c: one program of libFuzzer. */
#pragma once

#include "tests/fuzz/input.h"
#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"
#include "vmm/virtio/device.h"

/* libFuzzer calls it with one input after the other. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the program, as a finding, unless `holds`. */
#define fuzz_require(holds) fuzz_require_named(holds, #holds)
void fuzz_require_named(bool holds, const char *text);

/* Ends the program when there is an error: for what must not fail. */
void fuzz_no_error(struct error *error);

/* Runs `loop` until nothing is ready and no timer is due. A loop that spins hangs, which libFuzzer reports. */
void fuzz_settle(struct event_loop *loop);

/* A private directory for sockets and files, made once, removed at exit; "<directory>/<name>" in a static buffer. */
const char *fuzz_path(const char *name);

/* A connected Unix stream socket to `path`, non-blocking, or -1. */
int fuzz_dial(const char *path);

/*
 * fuzz_device(): the body of a target for a virtio device. Its input is a script: a driver, well-behaved or not, that
 * negotiates, builds descriptor chains, writes registers, config space and guest memory as it likes, while the host's
 * side makes events.
 */
enum { FUZZ_REQUEST_SIZE = 128 };

struct fuzz_device_ops {
    /* NULL: there is none this time. */
    struct virtio_device *(*make)(struct event_loop *loop);
    /* Adds to the guest's memory what the device has of it. NULL: nothing. */
    void (*attach)(struct guest_memory *memory);
    /*
     * Makes the bytes at the beginning of a chain, which are `input`'s so far, a request that the device would listen
     * to, if it is one of queue `queue`. NULL: a fuzzer comes upon such by itself.
     */
    void (*request)(struct fuzz_input *input, unsigned queue, uint8_t bytes[FUZZ_REQUEST_SIZE]);
    /* Something happens on the host's side, as `input` says. NULL: nothing ever does. */
    void (*host_event)(struct fuzz_input *input);
    /* After the device is gone: gives back what make and host_event opened. NULL: nothing. */
    void (*end)(void);
    bool memory_is_shared; /* as with another process: the same for every input */
};
int fuzz_device(const struct fuzz_device_ops *ops, const uint8_t *data, size_t size);
