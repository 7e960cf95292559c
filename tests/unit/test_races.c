/*
 * Another vCPU of the guest writes rings and requests while the device reads them: whatever it looks at twice may have
 * changed. With the sanitizers this finds what is checked at the first look and used at the second.
 */
#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"
#include "tests/unit/mem_fixture.h"

#include "vmm/base/log.h"
#include "vmm/virtio/devices.h"
#include "vmm/virtio/net.h"

#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROUNDS = 3000, TIMES = 100, DATA_GPA = 0x200000, DATA_SIZE = 0x100000, FILE_SIZE = 1 << 20, CHAIN_MAX = 4 };
enum { PLACES = 8 }; /* descriptors in use, at most */

static struct guest_driver driver;
static struct guest_ring rings[GUEST_DRIVER_QUEUES_MAX]; /* where they are; the driver's own it lays out anew */
static struct hotplug_memory hotplug;
static char folder[40];
static struct event_timer turn;
static int wire = -1;
static bool stop;

/* --- The other vCPU --- */

static _Thread_local uint32_t seed = 1;

static uint32_t some(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)(seed >> 8) * below >> 24);
}

static void store16(void *place, uint16_t value)
{
    __atomic_store_n((uint16_t *)place, value, __ATOMIC_RELAXED);
}

static uint64_t some_gpa(void)
{
    static const uint64_t odd[] = {0, GUEST_RINGS_GPA, GUEST_LOW_SIZE - 16, GUEST_LOW_SIZE, GUEST_HIGH_GPA, UINT64_MAX};

    return some(8) == 0 ? odd[some(array_length(odd))] : DATA_GPA + some(DATA_SIZE);
}

static uint32_t some_length(void)
{
    static const uint32_t usual[] = {0, 1, 8, 16, 24, 44, 512, 4096, 70000, UINT32_MAX};

    return usual[some(some(8) == 0 ? 10 : 9)];
}

/* Back and forth, so that one look finds what may be had, and the next what may not. */
static void change_descriptor(struct guest_ring *ring)
{
    struct vring_desc *descriptor = &ring->descriptors[some(PLACES)];
    const uint64_t addresses[] = {some_gpa(), DATA_GPA};
    const uint32_t lengths[] = {some(8) == 0 ? UINT32_MAX : some_length(), 16};
    const uint16_t flags[] = {(uint16_t)(some(16) == 0 ? some(8) : some(4)), VRING_DESC_F_WRITE};
    const uint16_t nexts[] = {(uint16_t)some(ring->size + (some(64) == 0 ? 1u : 0u)), (uint16_t)some(PLACES)};
    const uint32_t what = some(4);

    for (unsigned i = 0; i < TIMES; i++) {
        if (what == 0)
            __atomic_store_n(&descriptor->addr, addresses[i & 1], __ATOMIC_RELAXED);
        else if (what == 1)
            __atomic_store_n(&descriptor->len, lengths[i & 1], __ATOMIC_RELAXED);
        else if (what == 2)
            store16(&descriptor->flags, flags[i & 1]);
        else
            store16(&descriptor->next, nexts[i & 1]);
    }
}

static void *change_all(void *unused)
{
    (void)unused;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        struct guest_ring *ring = &rings[some(driver.device->queue_count)];

        change_descriptor(ring);
        if (some(4) == 0)
            store16(&ring->available->ring[some(ring->size)], (uint16_t)some(PLACES));
        if (some(4) == 0)
            store16(guest_at(&driver.memory, DATA_GPA + (some(DATA_SIZE) & ~1u), 2), (uint16_t)some(0x10000));
    }
    return NULL;
}

/* --- The vCPU that notifies, and the loop --- */

static void turn_ends(struct event_timer *timer)
{
    (void)timer;
    event_loop_stop(driver.loop);
}

static void run_a_turn(void)
{
    turn.expired = turn_ends;
    event_timer_set(driver.loop, &turn, 0);
    assert_no_error(event_loop_run(driver.loop));
}

/* Sound chains of a few buffers; what becomes of them is the other's business. */
static void offer(struct guest_ring *ring, uint16_t *at, unsigned count)
{
    uint16_t index = __atomic_load_n(&ring->available->idx, __ATOMIC_RELAXED);

    for (unsigned i = 0; i < count; i++) {
        unsigned links = 1 + some(CHAIN_MAX);
        const uint16_t places = ring->size < PLACES ? ring->size : PLACES;
        uint16_t head = (uint16_t)(*at % places);

        for (unsigned link = 0; link < links; link++) {
            uint16_t place = (uint16_t)((*at)++ % places);
            bool last = link + 1 == links;
            uint16_t flags = (uint16_t)((last ? 0 : VRING_DESC_F_NEXT) |
                                        ((link > 0 && last) || some(3) == 0 ? VRING_DESC_F_WRITE : 0));

            guest_ring_descriptor(ring, place, DATA_GPA + some(DATA_SIZE), some_length() % 5000, flags,
                                  (uint16_t)(*at % places));
        }
        store16(&ring->available->ring[index++ % ring->size], head);
    }
    __atomic_store_n(&ring->available->idx, index, __ATOMIC_RELEASE);
}

static void survive(struct virtio_device *device, uint64_t features)
{
    uint16_t places[GUEST_DRIVER_QUEUES_MAX] = {0};
    pthread_t thread;

    stop = false;
    guest_driver_start(&driver, device, features);
#if defined(__SANITIZE_THREAD__)
    print_message("skipped: a race is what this is about, ThreadSanitizer says no more\n");
    skip();
#endif
    memcpy(rings, driver.rings, sizeof(rings));
    pthread_create(&thread, NULL, change_all, NULL);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned index = some(device->queue_count);
        struct guest_ring *ring = &driver.rings[index];
        uint16_t free_places = (uint16_t)(ring->size - (uint16_t)(ring->available->idx - ring->used->idx));

        if (free_places <= ring->size)
            offer(ring, &places[index], some(free_places + 1u));
        guest_driver_notify(&driver, index);
        run_a_turn();
        if (device->failed || round % 64 == 63) {
            guest_driver_reset(&driver);
            guest_driver_restart(&driver, features);
        }
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
}

static const char *path_of(const char *name)
{
    static char path[80];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    log_set_level(LOG_LEVEL_OFF);
    seed = 2;
    snprintf(folder, sizeof(folder), "/tmp/mayfly-races-XXXXXX");
    assert_non_null(mkdtemp(folder));
    cleanup_fd int fd = open(path_of("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && ftruncate(fd, FILE_SIZE) == 0);
    guest_driver_setup(&driver);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&driver);
    hotplug_memory_free(&hotplug);
    fd_close(&wire);
    unlink(path_of("file"));
    rmdir(folder);
    return 0;
}

/* --- The devices --- */

static void disk_survives(enum io_engine engine)
{
    const struct drive_config config = {.drive_id = (char *)"disk",
                                        .path_on_host = (char *)(uintptr_t)path_of("file"),
                                        .io_engine = engine,
                                        .cache_type = CACHE_TYPE_WRITEBACK,
                                        .queue_count = 2};
    struct virtio_device *device = NULL;
    struct error *error = virtio_block_new(&config, driver.loop, &device);

    if (error != NULL && engine == IO_ENGINE_ASYNC) {
        print_message("skipped: no io_uring: %s\n", error->message);
        error_free(error);
        skip();
    }
    assert_no_error(error);
    survive(device, device->features | 1ull << VIRTIO_RING_F_INDIRECT_DESC);
}

static void test_disk_survives_changes_under_its_eyes(void **state)
{
    (void)state;
    disk_survives(IO_ENGINE_SYNC);
}

static void test_asynchronous_disk_survives_changes_under_its_eyes(void **state)
{
    (void)state;
    disk_survives(IO_ENGINE_ASYNC);
}

static void test_network_survives_changes_under_its_eyes(void **state)
{
    const struct network_interface_config config = {.iface_id = (char *)"eth0"};
    struct virtio_device *device = NULL;
    int pair[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    wire = pair[1];
    /* Its own frames come back to it. */
    assert_no_error(virtio_net_new_on(&config, net_tap_new(pair[0]), driver.loop, &device));
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(send(wire, folder, sizeof(folder), 0), sizeof(folder));
    survive(device, 1ull << VIRTIO_NET_F_MRG_RXBUF | 1ull << VIRTIO_RING_F_EVENT_IDX);
}

static void test_sockets_survive_changes_under_their_eyes(void **state)
{
    const struct vsock_config config = {.guest_cid = 3, .uds_path = (char *)(uintptr_t)path_of("vsock")};
    const struct vsock_seqpacket_config none = {0};
    struct virtio_device *device = NULL;

    (void)state;
    assert_no_error(virtio_vsock_new(&config, &none, driver.loop, &device));
    survive(device, device->features);
}

static void test_console_survives_changes_under_its_eyes(void **state)
{
    struct console_port_config ports[] = {{.name = (char *)"log", .output_path = (char *)"/dev/null"},
                                          {.name = (char *)"hvc", .console = true, .output_path = (char *)"/dev/null"}};
    const struct console_config config = {.ports = ports, .port_count = array_length(ports)};
    struct virtio_device *device = NULL;

    (void)state;
    assert_no_error(virtio_console_new(&config, driver.loop, &device));
    survive(device, device->features);
}

static void test_entropy_survives_changes_under_its_eyes(void **state)
{
    const struct entropy_config config = {.present = true};
    struct virtio_device *device = NULL;

    (void)state;
    assert_no_error(virtio_entropy_new(&config, driver.loop, &device));
    survive(device, 1ull << VIRTIO_RING_F_INDIRECT_DESC);
}

static void test_balloon_survives_changes_under_its_eyes(void **state)
{
    const struct balloon_config config = {
        .present = true, .stats_polling_interval_s = 3600, .free_page_hinting = true, .free_page_reporting = true};
    struct virtio_device *device = NULL;

    (void)state;
    assert_no_error(virtio_balloon_new(&config, driver.loop, &device));
    virtio_balloon_hinting_start(device, true);
    survive(device, device->features);
}

static void test_flushes_survive_changes_under_their_eyes(void **state)
{
    const struct pmem_config config = {.id = (char *)"pmem", .path_on_host = (char *)(uintptr_t)path_of("file")};
    struct virtio_device *device = NULL;

    (void)state;
    assert_no_error(virtio_pmem_new(&config, driver.loop, &device));
    survive(device, 0);
}

static void test_memory_survives_changes_under_its_eyes(void **state)
{
    struct virtio_device *device = mem_device(&driver, &hotplug);

    (void)state;
    virtio_mem_request(device, 256 << 20);
    survive(device, device->features);
}

#define RACE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

TEST_MAIN(RACE_TEST(test_disk_survives_changes_under_its_eyes),
          RACE_TEST(test_asynchronous_disk_survives_changes_under_its_eyes),
          RACE_TEST(test_network_survives_changes_under_its_eyes),
          RACE_TEST(test_sockets_survive_changes_under_their_eyes),
          RACE_TEST(test_console_survives_changes_under_its_eyes),
          RACE_TEST(test_entropy_survives_changes_under_its_eyes),
          RACE_TEST(test_balloon_survives_changes_under_its_eyes),
          RACE_TEST(test_flushes_survive_changes_under_their_eyes),
          RACE_TEST(test_memory_survives_changes_under_its_eyes))
