#include "tests/machine/every_device.h"

#include "tests/unit/host_tap.h"

#include <linux/if_tun.h>
#include <sched.h>
#include <stdio.h>

static const char limits[] = "{\"ops\":{\"size\":10,\"refill_time\":100}}";

bool every_device_tap(void)
{
    cleanup_fd int tun = unshare(CLONE_NEWNET) == 0 ? host_tap_open("tap0", IFF_VNET_HDR, true) : -1;

    return tun >= 0;
}

static void put_drive(struct vm *vm, const char *id, const char *io_engine)
{
    char path[32];

    snprintf(path, sizeof(path), "/drives/%s", id);
    vm_put(vm, path,
           "{\"drive_id\":\"%s\",\"path_on_host\":\"%s\",\"is_root_device\":false,\"is_read_only\":false,"
           "\"io_engine\":\"%s\",\"rate_limiter\":%s}",
           id, vm_file(vm, id, 1 << 20, 0), io_engine, limits);
}

void every_device_put(struct vm *vm, bool with_tap)
{
    put_drive(vm, "disk", "Async");
    put_drive(vm, "other", "Sync");
    vm_put(vm, "/pmem/p", "{\"id\":\"p\",\"path_on_host\":\"%s\"}", vm_file(vm, "pmem", 2 << 20, 0));
    if (with_tap) {
        vm_put(vm, "/network-interfaces/n",
               "{\"iface_id\":\"n\",\"host_dev_name\":\"tap0\",\"rx_rate_limiter\":%s,\"tx_rate_limiter\":%s}", limits,
               limits);
        vm_put(vm, "/mmds/config", "{\"network_interfaces\":[\"n\"],\"version\":\"V2\"}");
        vm_put(vm, "/mmds", "{\"latest\":{\"meta-data\":{\"instance-id\":\"test\"}}}");
    }
    vm_put(vm, "/vsock", "{\"guest_cid\":3,\"uds_path\":\"%s\"}", vm_path(vm, "vsock"));
    vm_put(vm, "/mayfly/vsock-seqpacket", "{\"uds_path\":\"%s\"}", vm_path(vm, "seqpacket"));
    vm_put(vm, "/balloon",
           "{\"amount_mib\":0,\"deflate_on_oom\":true,\"stats_polling_interval_s\":1,\"free_page_hinting\":true,"
           "\"free_page_reporting\":true}");
    vm_put(vm, "/hotplug/memory", "{\"total_size_mib\":1024}");
    vm_put(vm, "/entropy", "{\"rate_limiter\":%s}", limits);
    vm_put(vm, "/mayfly/console",
           "{\"ports\":[{\"name\":\"a\",\"socket_path\":\"%s\"},{\"name\":\"log\",\"output_path\":\"%s\"}]}",
           vm_path(vm, "port"), vm_path(vm, "console"));
}
