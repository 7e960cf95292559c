/* The console under a hostile driver, with peers that come, talk and go, ports that do, and a file. */
#include "tests/fuzz/fuzz.h"

#include "vmm/base/cleanup.h"
#include "vmm/virtio/devices.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORTS = 2, OUTPUT = PORTS };
static const char *const names[] = {"port0", "port1", "file"};
static int peers[PORTS] = {-1, -1};
static struct virtio_device *console;

static struct virtio_device *make(struct event_loop *loop)
{
    char paths[PORTS + 1][96];
    struct console_port_config ports[PORTS + 1] = {0};
    struct console_config config = {.ports = ports, .port_count = PORTS + 1};

    for (size_t i = 0; i <= PORTS; i++) {
        snprintf(paths[i], sizeof(paths[i]), "%s", fuzz_path(names[i]));
        ports[i] = (struct console_port_config){.name = (char *)(uintptr_t)names[i], .socket_path = paths[i]};
    }
    ports[0].console = true;
    ports[OUTPUT].socket_path = NULL;
    ports[OUTPUT].output_path = paths[OUTPUT];
    ports[OUTPUT].output_max_mib = 1;
    fuzz_no_error(virtio_console_new(&config, loop, &console));
    return console;
}

static void update(uint8_t what)
{
    const struct console_update update = {.name = (char *)(uintptr_t)names[what % (PORTS + 1)],
                                          .has_unplugged = (what & 4) != 0,
                                          .unplugged = (what & 8) != 0,
                                          .columns = what >> 4,
                                          .rows = what >> 4};

    error_free(virtio_console_update(console, &update));
}

static void host_event(struct fuzz_input *input)
{
    uint8_t what = fuzz_u8(input), bytes[256];
    int *peer = &peers[what % PORTS];
    size_t length = fuzz_bytes(input, bytes, what >> 3);

    if (what >= 0xf8) {
        update(bytes[0]);
    } else if (*peer < 0) {
        *peer = fuzz_dial(fuzz_path(names[what % PORTS]));
    } else if ((what >> 1 & 3) == 0) {
        fd_close(peer);
    } else if ((what >> 1 & 3) == 1) {
        shutdown(*peer, SHUT_WR);
    } else if ((what >> 1 & 3) == 2) {
        fuzz_require(recv(*peer, bytes, sizeof(bytes), MSG_DONTWAIT) <= (ssize_t)sizeof(bytes));
    } else if (send(*peer, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        fd_close(peer);
    }
}

static void end(void)
{
    for (size_t i = 0; i < PORTS; i++)
        fd_close(&peers[i]);
    unlink(fuzz_path(names[OUTPUT]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_device_ops ops = {.make = make, .host_event = host_event, .end = end};

    return fuzz_device(&ops, data, size);
}
