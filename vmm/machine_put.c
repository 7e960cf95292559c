/*
 * Accepting configuration: each put checks its object against the rest and the host, replaces what was there, and has
 * the VM prepared anew. Devices are made here, at put time, so that a missing file or tap is reported by the request
 * that named it.
 */
#include "vmm/machine_parts.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/cmdline.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

struct error *machine_check_not_started(const struct machine *machine, const char *what)
{
    if (machine->state == MACHINE_NOT_STARTED)
        return NULL;
    return error_new(ERROR_STATE, "%s: cannot be put after the microVM has started", what);
}

/* --- machine-config --- */

/*
 * KVM keeps up to 8 bytes a page for itself, which a caller could turn against the whole host: at this multiple of the
 * host's memory, an eighth of it. Lazy population makes guests larger than the host useful, up to a point.
 */
enum { HOST_MEMORY_TIMES_MAX = 64 };

struct error *machine_check_host_memory(const char *field, uint64_t size_mib)
{
    struct sysinfo host;
    uint64_t limit;

    if (sysinfo(&host) < 0)
        return error_errno(errno, "%s: cannot tell the host's memory", field);
    limit = (((uint64_t)host.totalram * host.mem_unit) >> 20) * HOST_MEMORY_TIMES_MAX;
    if (size_mib <= limit)
        return NULL;
    return error_new(ERROR_INPUT, "%s: %llu, expected at most %llu (%d times this host's memory)", field,
                     (unsigned long long)size_mib, (unsigned long long)limit, HOST_MEMORY_TIMES_MAX);
}

static struct error *check_machine_config(const struct machine_config *config)
{
    if (config->vcpu_count < 1 || config->vcpu_count > VCPUS_MAX)
        return error_new(ERROR_INPUT, "vcpu_count: %u, expected 1 to %d", config->vcpu_count, VCPUS_MAX);
    if (config->smt && config->vcpu_count != 1 && config->vcpu_count % 2 != 0)
        return error_new(ERROR_INPUT, "vcpu_count: %u, expected 1 or an even number with smt", config->vcpu_count);
    if (config->mem_size_mib < 1 || config->mem_size_mib > MEM_SIZE_MIB_MAX)
        return error_new(ERROR_INPUT, "mem_size_mib: %llu, expected 1 to %d", (unsigned long long)config->mem_size_mib,
                         MEM_SIZE_MIB_MAX);
    if (config->huge_pages == HUGE_PAGES_2M && config->mem_size_mib % 2 != 0)
        return error_new(ERROR_INPUT, "mem_size_mib: %llu, expected a multiple of 2 with huge_pages 2M",
                         (unsigned long long)config->mem_size_mib);

    struct error *error = arch_cpu_template_check(config->cpu_template);
    if (error != NULL)
        return error;
    return machine_check_host_memory("mem_size_mib", config->mem_size_mib);
}

/* Whether a VM prepared for one will do for the other. */
static bool same_vm(const struct machine_config *one, const struct machine_config *other)
{
    return one->vcpu_count == other->vcpu_count && one->mem_size_mib == other->mem_size_mib && one->smt == other->smt &&
           one->track_dirty_pages == other->track_dirty_pages && one->huge_pages == other->huge_pages;
}

struct error *machine_put_machine_config(struct machine *machine, struct machine_config *config)
{
    struct error *error = machine_check_not_started(machine, "machine-config");

    if (error == NULL)
        error = check_machine_config(config);
    if (error == NULL && machine->config.balloon.present)
        error = machine_check_balloon(machine->config.balloon.amount_mib, config->mem_size_mib);
    if (error != NULL)
        return error;
    if (machine->memory.count > 0 && !same_vm(&machine->config.machine, config))
        machine_vm_discard(machine);
    if (config->has_cpu_template)
        machine_cpu_template_set(machine, config->cpu_template);
    else
        config->cpu_template = machine->config.machine.cpu_template;
    take_config(&machine->config.machine, config);
    machine->config.machine.has_cpu_template = machine->config.machine.cpu_template != CPU_TEMPLATE_NONE;
    machine->size_settled = true;
    machine_prepare_later(machine);
    return NULL;
}

/* --- boot-source --- */

/* Opens what will be loaded at the start; non-blocking, for it may turn out to be a FIFO. */
static struct error *open_image(const char *field, const char *path, int *fd)
{
    struct stat status;
    cleanup_fd int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (opened < 0)
        return error_errno(errno, "%s: cannot open '%s'", field, path);
    if (fstat(opened, &status) < 0)
        return error_errno(errno, "%s: cannot examine '%s'", field, path);
    if (!S_ISREG(status.st_mode))
        return error_new(ERROR_INPUT, "%s: '%s' is not a regular file", field, path);
    *fd = take_fd(&opened);
    return NULL;
}

struct error *machine_put_boot_source(struct machine *machine, struct boot_source_config *config)
{
    cleanup_fd int kernel_fd = -1;
    cleanup_fd int initrd_fd = -1;
    struct error *error = machine_check_not_started(machine, "boot-source");

    if (error == NULL && config->kernel_image_path == NULL)
        error = error_new(ERROR_INPUT, "kernel_image_path: missing, expected a path");
    if (error == NULL && config->boot_args != NULL)
        error = cmdline_check(config->boot_args);
    if (error == NULL)
        error = open_image("kernel_image_path", config->kernel_image_path, &kernel_fd);
    if (error == NULL && config->initrd_path != NULL)
        error = open_image("initrd_path", config->initrd_path, &initrd_fd);
    if (error != NULL)
        return error;

    machine_boot_discard(machine);
    fd_close(&machine->kernel_fd);
    fd_close(&machine->initrd_fd);
    machine->kernel_fd = take_fd(&kernel_fd);
    machine->initrd_fd = take_fd(&initrd_fd);
    boot_source_config_free(&machine->config.boot_source);
    take_config(&machine->config.boot_source, config);
    machine_prepare_later(machine);
    return NULL;
}

/* --- Devices --- */

struct error *machine_check_id(const char *field, const char *id)
{
    size_t length = id == NULL ? 0 : strlen(id);

    if (length < 1 || length > ID_LENGTH_MAX)
        return error_new(ERROR_INPUT, "%s: %zu characters, expected 1 to %d", field, length, ID_LENGTH_MAX);
    if (!device_id_is_spelled(id))
        return error_new(ERROR_INPUT, "%s: '%s', expected letters, digits, '_', '-', '.' and '/'", field, id);
    return NULL;
}

struct error *machine_check_room(const struct machine *machine, const char *what)
{
    struct virtio_mmio *list[VIRTIO_DEVICES_MAX];

    if (machine_transports(machine, list) < VIRTIO_DEVICES_MAX)
        return NULL;
    return error_new(ERROR_INPUT, "%s: a microVM takes at most %d devices, it has them already", what,
                     VIRTIO_DEVICES_MAX);
}

static struct error *check_drive(const struct machine *machine, const struct drive_config *config, size_t place)
{
    if ((config->path_on_host == NULL) == (config->socket == NULL))
        return error_new(ERROR_INPUT, "path_on_host: %s, expected either it or socket",
                         config->socket == NULL ? "missing" : "given beside socket");
    for (size_t i = 0; i < machine->config.drive_count; i++)
        if (i != place && config->is_root_device && machine->config.drives[i].is_root_device)
            return error_new(ERROR_INPUT, "is_root_device: true, but drive '%s' is the root device already",
                             machine->config.drives[i].drive_id);
    if (config->is_root_device && machine->config.pmem_count > 0 && machine->config.pmem[0].root_device)
        return error_new(ERROR_INPUT, "is_root_device: true, but pmem '%s' is the root device already",
                         machine->config.pmem[0].id);
    return place < machine->config.drive_count ? NULL : machine_check_room(machine, "drives");
}

/* Takes element `from` of both arrays to the front. */
static void drive_move_to_front(struct machine *machine, size_t from)
{
    struct drive_config config = machine->config.drives[from];
    struct virtio_mmio *transport = machine->drives[from];

    memmove(&machine->config.drives[1], &machine->config.drives[0], from * sizeof(config));
    memmove(&machine->drives[1], &machine->drives[0], from * sizeof(transport));
    machine->config.drives[0] = config;
    machine->drives[0] = transport;
}

struct error *machine_put_drive(struct machine *machine, struct drive_config *config)
{
    struct virtio_mmio *transport;
    struct error *error = machine_check_not_started(machine, "drives");
    size_t place;

    if (error == NULL)
        error = machine_check_id("drive_id", config->drive_id);
    if (error != NULL)
        return error;
    place = drive_find(&machine->config, config->drive_id);
    error = check_drive(machine, config, place);
    if (place < machine->config.drive_count) {
        config->direct = config->socket == NULL && machine->config.drives[place].direct;
        config->queue_count = machine->config.drives[place].queue_count;
    }
    if (error != NULL)
        return error;

    /* A back end has one front end at a time: the one to be replaced lets go first. */
    bool replaces = place < machine->config.drive_count;
    bool lets_go = replaces && machine->config.drives[place].socket != NULL;
    if (lets_go)
        machine_device_free(machine, &machine->drives[place]);
    error = machine_drive_new(machine, config, &transport);
    if (error != NULL) {
        if (lets_go) {
            machine_devices_bring_back(machine);
            machine_prepare_later(machine);
        }
        return error;
    }

    if (replaces) {
        if (!lets_go)
            machine_device_free(machine, &machine->drives[place]);
        drive_config_free(&machine->config.drives[place]);
    } else {
        machine->config.drive_count++;
    }
    /* Who gave a path sees their defaults; with a socket they are the back end's business. */
    config->has_is_read_only = config->has_io_engine = config->socket == NULL;
    if (config->socket != NULL)
        config->is_read_only = (virtio_mmio_device(transport)->features & 1ull << VIRTIO_BLK_F_RO) != 0;
    machine->drives[place] = transport;
    take_config(&machine->config.drives[place], config);
    if (machine->config.drives[place].is_root_device)
        drive_move_to_front(machine, place);
    machine_prepare_later(machine);
    return NULL;
}

static struct error *check_network_interface(const struct machine *machine,
                                             const struct network_interface_config *config, size_t place)
{
    const struct vm_config *all = &machine->config;
    const char *carrier = network_interface_carrier(config);

    if (config->host_dev_name == NULL && !config->backend.present)
        return error_new(ERROR_INPUT, "host_dev_name: missing, expected the name of a tap device, or a backend");
    if (config->host_dev_name != NULL && config->backend.present)
        return error_new(ERROR_INPUT, "backend: given beside host_dev_name, expected one of them");
    if (carrier != NULL && (config->rx_rate_limiter.present || config->tx_rate_limiter.present))
        return error_new(ERROR_INPUT, "%s: given, expected not to be, as %s carries the frames",
                         config->rx_rate_limiter.present ? "rx_rate_limiter" : "tx_rate_limiter", carrier);
    if (config->vhost && config->backend.present)
        return error_new(ERROR_INPUT, "backend: given, but interface '%s' has vhost, expected host_dev_name",
                         config->iface_id);
    if (config->backend.present && config->backend.socket_path == NULL)
        return error_new(ERROR_INPUT, "backend.socket_path: missing, expected a path");
    for (size_t i = 0; i < all->network_interface_count; i++) {
        const struct network_interface_config *other = &all->network_interfaces[i];

        if (i == place)
            continue;
        if (config->guest_mac != NULL && other->guest_mac != NULL &&
            strcasecmp(config->guest_mac, other->guest_mac) == 0)
            return error_new(ERROR_INPUT, "guest_mac: '%s' is the address of interface '%s' already", config->guest_mac,
                             other->iface_id);
        if (config->host_dev_name != NULL && other->host_dev_name != NULL &&
            strcmp(config->host_dev_name, other->host_dev_name) == 0)
            return error_new(ERROR_INPUT, "host_dev_name: '%s' is the device of interface '%s' already",
                             config->host_dev_name, other->iface_id);
    }
    return place < all->network_interface_count ? NULL : machine_check_room(machine, "network-interfaces");
}

void machine_devices_bring_back(struct machine *machine)
{
    struct error *error = machine_devices_complete(machine);

    if (error != NULL)
        log_warning("%s", error->message);
    error_free(error);
}

struct error *machine_put_network_interface(struct machine *machine, struct network_interface_config *config)
{
    struct network_interface_config *configs = machine->config.network_interfaces;
    struct virtio_mmio *transport;
    struct error *error = machine_check_not_started(machine, "network-interfaces");
    size_t place;

    if (error == NULL)
        error = machine_check_id("iface_id", config->iface_id);
    if (error != NULL)
        return error;
    place = network_interface_find(&machine->config, config->iface_id);
    if (place < machine->config.network_interface_count) {
        config->queue_count = configs[place].queue_count;
        config->vhost = configs[place].vhost;
    }
    error = check_network_interface(machine, config, place);
    if (error != NULL)
        return error;

    /* A tap has one owner at a time: the one to be replaced lets go first. */
    bool replaces = place < machine->config.network_interface_count;
    if (replaces)
        machine_device_free(machine, &machine->network_interfaces[place]);
    error = machine_network_interface_new(machine, config, &transport);
    if (error != NULL) {
        machine_devices_bring_back(machine);
        machine_prepare_later(machine);
        return error;
    }

    if (replaces)
        network_interface_config_free(&configs[place]);
    else
        machine->config.network_interface_count++;
    machine->network_interfaces[place] = transport;
    take_config(&configs[place], config);
    machine_prepare_later(machine);
    return NULL;
}

struct error *machine_put_entropy(struct machine *machine, struct entropy_config *config)
{
    struct virtio_mmio *transport;
    struct error *error = machine_check_not_started(machine, "entropy");

    if (error == NULL && !machine->config.entropy.present)
        error = machine_check_room(machine, "entropy");
    if (error == NULL)
        error = machine_entropy_new(machine, config, &transport);
    if (error != NULL)
        return error;
    if (machine->config.entropy.present)
        machine_device_free(machine, &machine->entropy);
    machine->entropy = transport;
    take_config(&machine->config.entropy, config);
    machine->config.entropy.present = true;
    machine_prepare_later(machine);
    return NULL;
}

struct error *machine_put_console(struct machine *machine, struct console_config *config)
{
    struct virtio_mmio *transport;
    struct error *error = machine_check_not_started(machine, "console");

    if (error == NULL && config->port_count == 0)
        error = error_new(ERROR_INPUT, "ports: none, expected 1 to %d", CONSOLE_PORTS_MAX);
    if (error == NULL && machine->config.console.port_count == 0)
        error = machine_check_room(machine, "console");
    if (error != NULL)
        return error;

    /* Its sockets' paths are taken until the old device lets go of them. */
    if (machine->console != NULL)
        machine_device_free(machine, &machine->console);
    error = machine_console_new(machine, config, &transport);
    if (error != NULL) {
        machine_devices_bring_back(machine);
        machine_prepare_later(machine);
        return error;
    }
    console_config_free(&machine->config.console);
    machine->console = transport;
    take_config(&machine->config.console, config);
    machine_prepare_later(machine);
    return NULL;
}

struct error *machine_put_serial(struct machine *machine, struct serial_config *config)
{
    struct error *error = machine_check_not_started(machine, "serial");

    /* Opened for the error's sake: the start opens it again. */
    if (error == NULL)
        error = serial_check(config);
    if (error != NULL)
        return error;
    serial_config_free(&machine->config.serial);
    take_config(&machine->config.serial, config);
    return NULL;
}
