/* The metrics' file of a VM with two drives and two network interfaces: each tells its own, the groups the sum. */
#include "tests/machine/machine.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DISK_SIZE = 1 << 20, SECTOR = 512, FRAME = 60 };

/* What all lines together say of the counter; each line must have it. */
static uint64_t counted(struct vm *vm, const char *group, const char *key)
{
    FILE *metrics = fopen(vm_path(vm, "metrics"), "re");
    cleanup_free char *line = NULL;
    char object[80], number[80];
    uint64_t sum = 0;
    size_t size = 0, lines = 0;

    assert_non_null(metrics);
    snprintf(object, sizeof(object), "\"%s\":{", group);
    snprintf(number, sizeof(number), "\"%s\":", key);
    for (; getline(&line, &size, metrics) > 0; lines++) {
        const char *start = strstr(line, object);
        const char *found = start == NULL ? NULL : strstr(start, number);

        if (found == NULL)
            vm_fail(vm, "no \"%s\" of \"%s\" in %s", key, group, line);
        sum += strtoull(found + strlen(number), NULL, 10);
    }
    fclose(metrics);
    assert_true(lines > 0);
    return sum;
}

static void put_interface(struct vm *vm, const char *id)
{
    char url[64];

    snprintf(url, sizeof(url), "/network-interfaces/%s", id);
    vm_put(vm, url, "{\"iface_id\":\"%s\",\"backend\":{\"type\":\"stream\",\"socket_path\":\"%s\"}}", id,
           vm_path(vm, id));
}

/* A VM with two of each; `peers` are the other ends of the interfaces. */
static struct vm *start(int peers[2])
{
    struct vm *vm = vm_start();
    cleanup_fd int first = vm_listen(vm, "eth0");
    cleanup_fd int second = vm_listen(vm, "eth1");

    vm_put(vm, "/metrics", "{\"metrics_path\":\"%s\"}", vm_path(vm, "metrics"));
    vm_drive(vm, "system", vm_file(vm, "system", DISK_SIZE, 0), "");
    vm_drive(vm, "data", vm_file(vm, "data", DISK_SIZE, 0), "");
    put_interface(vm, "eth0");
    put_interface(vm, "eth1");
    peers[0] = accept(first, NULL, NULL);
    peers[1] = accept(second, NULL, NULL);
    return vm;
}

static void test_each_drive_tells_its_own_counters(void **state)
{
    int peers[2];
    struct vm *vm = start(peers);

    (void)state;
    vm_drive(vm, "data", vm_path(vm, "data"), ""); /* again: what replaces it counts for itself */
    vm_boot(vm, "block", "ops=r3,w3:A,r3,f,p");
    vm_expect(vm, "waiting\n");
    vm_patch(vm, "/drives/data", "{\"drive_id\":\"data\",\"path_on_host\":\"%s\"}", vm_path(vm, "data"));
    vm_say(vm, "\n");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
    assert_int_equal(counted(vm, "block_system", "read_count"), 2);
    assert_int_equal(counted(vm, "block_system", "write_bytes"), SECTOR);
    assert_int_equal(counted(vm, "block_data", "read_count"), 0);
    assert_int_equal(counted(vm, "block_system", "update_count"), 0);
    assert_int_equal(counted(vm, "block_data", "update_count"), 1);
    assert_int_equal(counted(vm, "block", "read_count"), 2);
    assert_int_equal(counted(vm, "block", "update_count"), 1);
    assert_int_equal(counted(vm, "net_eth0", "tx_count"), 0);
    assert_int_equal(counted(vm, "net_eth1", "tx_count"), 0);
    assert_true(counted(vm, "interrupts", "triggers") > 0);
    /* The guest reads its devices' registers from memory, and writes them to us. */
    assert_int_equal(counted(vm, "vcpu", "exit_mmio_read"), 0);
    assert_true(counted(vm, "vcpu", "exit_mmio_write") > 0);
    close(peers[0]);
    close(peers[1]);
}

static void test_each_interface_tells_its_own_counters(void **state)
{
    static const uint8_t quit[FRAME] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x88, 0xb5, 'q'};
    const uint32_t length = htonl(FRAME);
    int peers[2];
    struct vm *vm = start(peers);

    (void)state;
    vm_boot(vm, "net", NULL);
    vm_expect(vm, "sent\n");
    vm_action(vm, "FlushMetrics");
    assert_int_equal(send(peers[0], &length, sizeof(length), 0), sizeof(length));
    assert_int_equal(send(peers[0], quit, sizeof(quit), 0), sizeof(quit));
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
    /* The announcement, and the answer to what made it quit. */
    assert_int_equal(counted(vm, "net_eth0", "tx_packets_count"), 2);
    assert_int_equal(counted(vm, "net_eth0", "rx_packets_count"), 1);
    assert_int_equal(counted(vm, "net_eth0", "rx_bytes_count"), FRAME);
    assert_int_equal(counted(vm, "net_eth1", "tx_packets_count"), 0);
    assert_int_equal(counted(vm, "net_eth1", "rx_packets_count"), 0);
    assert_int_equal(counted(vm, "net", "tx_packets_count"), 2);
    assert_int_equal(counted(vm, "net", "rx_bytes_count"), FRAME);
    assert_int_equal(counted(vm, "block_system", "read_count"), 0);
    assert_int_equal(counted(vm, "block_data", "read_count"), 0);
    close(peers[0]);
    close(peers[1]);
}

/* The line is written by a signal handler, wherever the VMM was. */
static void test_last_line_of_a_dying_vmm_has_the_devices(void **state)
{
    int peers[2];
    struct vm *vm = start(peers);

    (void)state;
    vm_boot(vm, "block", "ops=r3,r3,p");
    vm_expect(vm, "waiting\n");
    kill(vm->pid, SIGHUP);
    vm_expect_exit(vm, 156);
    assert_int_equal(counted(vm, "signals", "sighup"), 1);
    assert_int_equal(counted(vm, "block_system", "read_count"), 2);
    assert_int_equal(counted(vm, "block_data", "read_count"), 0);
    assert_int_equal(counted(vm, "net_eth1", "rx_count"), 0);
    close(peers[0]);
    close(peers[1]);
}

TEST_MAIN(machine_test(test_each_drive_tells_its_own_counters),
          machine_test(test_each_interface_tells_its_own_counters),
          machine_test(test_last_line_of_a_dying_vmm_has_the_devices))
