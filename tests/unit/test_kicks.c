/*
 * A guest with EVENT_IDX notifies only when the device has asked for it. A device that does not look once more after it
 * asked, or asks too late, never hears of a request that came just then, and the guest waits for ever. A guest that
 * does as it likes meets that moment by luck only; one whose ring cannot be written makes its request when the device
 * is about to ask, in every run.
 */
#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"
#include "tests/unit/mem_fixture.h"
#include "tests/unit/settle.h"

#include "vmm/backend/unix_socket.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/virtio/devices.h"
#include "vmm/virtio/net.h"

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_console.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_vsock.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REQUESTS = 5000, READ_GPA = 0x200000, WRITE_GPA = 0x210000, PATIENCE_US = 30000000, RING_BYTES = 4096 };
#define EVENT_IDX (1ULL << VIRTIO_RING_F_EVENT_IDX)

static struct guest_driver driver;
static struct hotplug_memory hotplug;
static struct event_source doorbell;
static unsigned queue;
static unsigned kicks;
static bool all_served;
static char path[] = "/tmp/mayfly-kicks-XXXXXX";
static int other_end = -1;

static void doorbell_rung(struct event_source *source, uint32_t events)
{
    (void)source;
    (void)events;
    guest_driver_notify(&driver, queue);
}

/* Waits until the device is at most `behind` requests behind; false when it stands still. */
static bool await_used(const struct guest_ring *ring, uint16_t index, uint16_t behind)
{
    const uint64_t deadline = clock_monotonic_us() + PATIENCE_US;

    for (unsigned looks = 1; (uint16_t)(index - __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE)) > behind;
         looks++) {
        if (looks % 1024 != 0)
            continue;
        if (clock_monotonic_us() > deadline)
            return false;
        sched_yield();
    }
    return true;
}

/* The vCPU: the same chain over and over, at moments that have nothing to do with what the device is at. */
static void *ask(void *unused)
{
    struct guest_ring *ring = &driver.rings[queue];
    uint32_t seed = 1;
    uint16_t index = 0;
    bool alive = true;

    (void)unused;
    for (unsigned i = 0; i < REQUESTS && alive; i++) {
        uint16_t before = index++;

        __atomic_store_n(&ring->available->ring[before % ring->size], 0, __ATOMIC_RELAXED);
        __atomic_store_n(&ring->available->idx, index, __ATOMIC_SEQ_CST);
        uint16_t event = __atomic_load_n((uint16_t *)&ring->used->ring[ring->size], __ATOMIC_SEQ_CST);
        if (vring_need_event(event, index, before)) {
            kicks++;
            eventfd_write(doorbell.fd, 1);
        }
        seed = seed * 1664525 + 1013904223;
        for (uint32_t pause = seed >> 22; pause > 0; pause--)
            __asm__ volatile("" ::: "memory");
        alive = await_used(ring, index, (uint16_t)(ring->size / 2));
    }
    all_served = alive && await_used(ring, index, 0);
    event_loop_lock(driver.loop);
    event_loop_stop(driver.loop);
    event_loop_unlock(driver.loop);
    return NULL;
}

/* Makes descriptor 0's request when the device writes to the watched ring, and lets it write. */
static struct guest_ring *volatile watched;

static void ring_is_written(int number, siginfo_t *info, void *context)
{
    struct guest_ring *ring = watched;

    (void)context;
    if (ring == NULL || (uintptr_t)info->si_addr - (uintptr_t)ring->used >= RING_BYTES) {
        signal(number, SIG_DFL);
        return;
    }
    watched = NULL;
    mprotect(ring->used, RING_BYTES, PROT_READ | PROT_WRITE);
    guest_ring_publish(ring, 0);
}

static unsigned interrupts(void)
{
    unsigned sum = 0;

    for (unsigned i = 0; i < driver.device->queue_count; i++)
        sum += driver.queue_signals[i];
    return sum;
}

/*
 * `provoke` has the device look at queue `index`, which is empty; then it gets no notification any more. The guest is
 * interrupted when its request is there again.
 */
static void hears_of_what_comes_while_it_asks(unsigned index, void (*provoke)(void))
{
    struct guest_ring *ring = &driver.rings[index];
    struct sigaction action = {.sa_sigaction = ring_is_written, .sa_flags = SA_SIGINFO}, before;

    assert_int_equal(ring->used->idx, ring->available->idx);
    assert_int_equal((uintptr_t)ring->used % RING_BYTES, 0);
    guest_ring_used_event(ring, ring->used->idx);
    unsigned before_it = interrupts();
    assert_int_equal(sigaction(SIGSEGV, &action, &before), 0);
    watched = ring;
    assert_int_equal(mprotect(ring->used, RING_BYTES, PROT_READ), 0);
    provoke();
    guest_driver_settle(&driver);
    assert_null(watched);
    assert_int_equal(sigaction(SIGSEGV, &before, NULL), 0);
    assert_false(driver.failed);
    assert_int_equal(ring->used->idx, ring->available->idx);
    assert_true(interrupts() > before_it);
}

static void notify_without_need(void)
{
    guest_driver_notify(&driver, queue);
}

/* `readable` bytes at READ_GPA, then `writable` ones. */
static void hears_of_every_request(struct virtio_device *device, uint64_t features, unsigned index, uint32_t readable,
                                   uint32_t writable)
{
    pthread_t thread;

    queue = index;
    kicks = 0;
    guest_driver_start(&driver, device, features | EVENT_IDX);
    assert_no_error(event_source_add(driver.loop, &doorbell, EPOLLIN | EPOLLET));
    struct guest_ring *ring = &driver.rings[queue];
    if (readable > 0)
        guest_ring_descriptor(ring, 0, READ_GPA, readable, writable > 0 ? VRING_DESC_F_NEXT : 0, 1);
    guest_ring_descriptor(ring, readable > 0, writable > 0 ? WRITE_GPA : READ_GPA, writable > 0 ? writable : readable,
                          writable > 0 ? VRING_DESC_F_WRITE : 0, 0);
    pthread_create(&thread, NULL, ask, NULL);
    assert_no_error(event_loop_run(driver.loop));
    pthread_join(thread, NULL);
    event_source_remove(&doorbell);
    assert_false(driver.failed);
    assert_true(all_served);
    assert_true(kicks > 0);
    hears_of_what_comes_while_it_asks(queue, notify_without_need);
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    guest_driver_setup(&driver);
    doorbell = (struct event_source){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), .ready = doorbell_rung};
    memcpy(path + sizeof(path) - 7, "XXXXXX", 6);
    cleanup_fd int fd = mkstemp(path);
    assert_true(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    event_source_remove(&doorbell);
    guest_driver_teardown(&driver);
    hotplug_memory_free(&hotplug);
    fd_close(&doorbell.fd);
    fd_close(&other_end);
    unlink(path);
    return 0;
}

/* --- Devices --- */

/* A backend whose other end is `other_end` from now on. */
static struct net_backend *new_backend(void)
{
    int pair[2];

    fd_close(&other_end);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    other_end = pair[1];
    return net_tap_new(pair[0]);
}

static struct virtio_device *network(void)
{
    const struct network_interface_config config = {.iface_id = (char *)"eth0"};
    struct virtio_device *device = NULL;

    assert_no_error(virtio_net_new_on(&config, new_backend(), driver.loop, &device));
    return device;
}

static struct virtio_device *sockets(void)
{
    char socket[sizeof(path) + 2];
    const struct vsock_config config = {.guest_cid = 3, .uds_path = socket};
    const struct vsock_seqpacket_config none = {0};
    struct virtio_device *device = NULL;

    snprintf(socket, sizeof(socket), "%s.s", path);
    assert_no_error(virtio_vsock_new(&config, &none, driver.loop, &device));
    return device;
}

static struct virtio_device *console(void)
{
    struct console_port_config port = {.name = (char *)"log", .output_path = (char *)"/dev/null"};
    const struct console_config config = {.ports = &port, .port_count = 1};
    struct virtio_device *device = NULL;

    assert_no_error(virtio_console_new(&config, driver.loop, &device));
    return device;
}

static void test_disk_hears_of_every_request(void **state)
{
    const struct drive_config config = {.drive_id = (char *)"disk", .path_on_host = path};
    const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_GET_ID};
    struct virtio_device *device = NULL;

    (void)state;
    assert_no_error(virtio_block_new(&config, driver.loop, &device));
    memcpy(guest_at(&driver.memory, READ_GPA, sizeof(header)), &header, sizeof(header));
    hears_of_every_request(device, 0, 0, sizeof(header), VIRTIO_BLK_ID_BYTES + 1);
}

static void test_entropy_hears_of_every_request(void **state)
{
    const struct entropy_config config = {.present = true};
    struct virtio_device *device = NULL;

    (void)state;
    assert_no_error(virtio_entropy_new(&config, driver.loop, &device));
    hears_of_every_request(device, 0, 0, 0, 8);
}

static void test_network_hears_of_every_frame(void **state)
{
    struct virtio_device *device = network();

    (void)state;
    hears_of_every_request(device, 0, TX, 10, 0); /* too short for a frame: dropped, and given back */
}

static void test_sockets_hear_of_every_packet(void **state)
{
    struct virtio_device *device = sockets();

    (void)state;
    hears_of_every_request(device, 0, 1, 44, 0); /* from nobody: dropped */
}

static void test_console_hears_of_every_output(void **state)
{
    struct virtio_device *device = console();

    (void)state;
    hears_of_every_request(device, device->features, 1, 5, 0);
}

static void test_balloon_hears_of_every_request(void **state)
{
    const struct balloon_config config = {.present = true};
    struct virtio_device *device = NULL;

    (void)state;
    assert_no_error(virtio_balloon_new(&config, driver.loop, &device));
    hears_of_every_request(device, 0, 1, 4, 0);
}

static void test_flushes_are_all_heard_of(void **state)
{
    const struct pmem_config config = {.id = (char *)"pmem", .path_on_host = path, .read_only = true};
    struct virtio_device *device = NULL;

    (void)state;
    assert_no_error(virtio_pmem_new(&config, driver.loop, &device));
    hears_of_every_request(device, 0, 0, 4, 4);
}

static void test_memory_hears_of_every_request(void **state)
{
    (void)state;
    hears_of_every_request(mem_device(&driver, &hotplug), 0, 0, 24, 10);
}

/* --- Buffers for what the device has to say --- */

static void give_buffers_of(unsigned index, uint32_t length)
{
    guest_ring_descriptor(&driver.rings[index], 0, WRITE_GPA, length, VRING_DESC_F_WRITE, 0);
}

/* A request of `length` bytes at READ_GPA. */
static void say(unsigned index, const void *bytes, uint32_t length)
{
    memcpy(guest_at(&driver.memory, READ_GPA, length), bytes, length);
    guest_ring_descriptor(&driver.rings[index], 0, READ_GPA, length, 0, 0);
    guest_ring_publish(&driver.rings[index], 0);
    guest_driver_notify(&driver, index);
}

static void frame_comes(void)
{
    static const uint8_t frame[100];

    assert_int_equal(send(other_end, frame, sizeof(frame), 0), sizeof(frame));
}

static void test_network_hears_of_every_buffer(void **state)
{
    struct virtio_device *device = network();

    (void)state;
    guest_driver_start(&driver, device, EVENT_IDX);
    give_buffers_of(RX, 2048);
    hears_of_what_comes_while_it_asks(RX, frame_comes);
}

static void packet_to_nobody(void)
{
    const struct virtio_vsock_hdr header = {.src_cid = 3, .dst_cid = 2, .type = VIRTIO_VSOCK_TYPE_STREAM, .op = 5};

    say(1, &header, sizeof(header));
}

static void test_sockets_hear_of_every_buffer(void **state)
{
    struct virtio_device *device = sockets();

    (void)state;
    guest_driver_start(&driver, device, EVENT_IDX);
    guest_driver_settle(&driver);
    give_buffers_of(0, 2048);
    hears_of_what_comes_while_it_asks(0, packet_to_nobody);
}

static void console_driver_is_ready(void)
{
    const struct virtio_console_control message = {.event = VIRTIO_CONSOLE_DEVICE_READY, .value = 1};

    say(3, &message, sizeof(message));
}

static void test_console_hears_of_every_message_and_of_every_buffer_for_its_own(void **state)
{
    struct virtio_device *device = console();

    (void)state;
    guest_driver_start(&driver, device, device->features | EVENT_IDX);
    guest_driver_settle(&driver);
    give_buffers_of(2, 128);
    hears_of_what_comes_while_it_asks(2, console_driver_is_ready);
    queue = 3;
    hears_of_what_comes_while_it_asks(3, notify_without_need);
}

static char socket_path[sizeof(path) + 2];

static void peer_comes_and_types(void)
{
    other_end = unix_socket_connect(socket_path, SOCK_STREAM);
    assert_int_equal(send(other_end, "x", 1, MSG_NOSIGNAL), 1);
}

static void test_console_hears_of_every_buffer_for_input(void **state)
{
    struct console_port_config port = {.name = (char *)"shell", .socket_path = socket_path};
    const struct console_config config = {.ports = &port, .port_count = 1};
    struct virtio_device *device = NULL;

    (void)state;
    snprintf(socket_path, sizeof(socket_path), "%s.s", path);
    assert_no_error(virtio_console_new(&config, driver.loop, &device));
    guest_driver_start(&driver, device, EVENT_IDX);
    guest_driver_settle(&driver);
    give_buffers_of(0, 16);
    hears_of_what_comes_while_it_asks(0, peer_comes_and_types);
}

static void test_network_hears_of_every_command(void **state)
{
    const struct network_interface_config config = {.iface_id = (char *)"eth0"};
    struct net_backend *backends[2];
    struct virtio_device *device = NULL;

    (void)state;
    for (size_t i = 0; i < array_length(backends); i++)
        backends[i] = new_backend();
    assert_no_error(virtio_net_new_on_queues(&config, backends, array_length(backends), driver.loop, &device));
    guest_driver_start(&driver, device, 1ULL << VIRTIO_NET_F_CTRL_VQ | 1ULL << VIRTIO_NET_F_MQ | EVENT_IDX);
    guest_driver_settle(&driver);
    queue = device->queue_count - 1;
    give_buffers_of(queue, 1);
    hears_of_what_comes_while_it_asks(queue, notify_without_need);
}

#define KICK_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

TEST_MAIN(KICK_TEST(test_disk_hears_of_every_request), KICK_TEST(test_entropy_hears_of_every_request),
          KICK_TEST(test_network_hears_of_every_frame), KICK_TEST(test_sockets_hear_of_every_packet),
          KICK_TEST(test_console_hears_of_every_output), KICK_TEST(test_balloon_hears_of_every_request),
          KICK_TEST(test_flushes_are_all_heard_of), KICK_TEST(test_memory_hears_of_every_request),
          KICK_TEST(test_network_hears_of_every_command), KICK_TEST(test_network_hears_of_every_buffer),
          KICK_TEST(test_console_hears_of_every_buffer_for_input), KICK_TEST(test_sockets_hear_of_every_buffer),
          KICK_TEST(test_console_hears_of_every_message_and_of_every_buffer_for_its_own))
