#include "api/cli/configure.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/cli/run_jail_defaults.h"
#include "rootfs/protocol.h"
#include "vmm/base/cleanup.h"

enum { CONNECT_TIMEOUT_MS = 5000 };

/* For kernels that bring no command line of their own: a quick boot, and an end that ends the VMM. */
static const char default_cmdline[] = "quiet panic=-1 reboot=k 8250.nr_uarts=0";

static const struct {
    const char *name;   /* in the guest */
    const char *socket; /* in the private directory */
} ports[RUN_PORT_COUNT] = {
    [RUN_PORT_STDIN] = {PROTOCOL_PORT_STDIN, "stdin"},
    [RUN_PORT_STDOUT] = {PROTOCOL_PORT_STDOUT, "stdout"},
    [RUN_PORT_STDERR] = {PROTOCOL_PORT_STDERR, "stderr"},
    [RUN_PORT_CONTROL] = {PROTOCOL_PORT_CONTROL, "control"},
};

static struct error *put_machine(struct api_client *client, const struct run_options *options)
{
    struct body *body = body_new();

    body_integer(body, "vcpu_count", options->vcpus);
    body_integer(body, "mem_size_mib", options->memory_mib);
    return api_client_put(client, "/machine-config", body);
}

/* " mayfly.mount=TAG:ro:/path" for each: init mounts them. */
static char *mount_words(const struct run_options *options)
{
    char *words = strdup("");

    for (size_t i = 0; words != NULL && i < options->mount_count; i++) {
        const struct run_mount *mount = &options->mounts[i];
        char *longer = NULL;

        if (asprintf(&longer, "%s mayfly.mount=mount%zu:%s:%s", words, i, mount->read_only ? "ro" : "rw",
                     mount->guest) < 0)
            abort();
        free(words);
        words = longer;
    }
    if (words == NULL)
        abort();
    return words;
}

/* " mayfly.net=eth0,ADDRESS/BITS[,GATEWAY[,DNS]]", or "" for a guest that configures itself. */
static char *network_word(const struct run_net_options *net)
{
    char *word = NULL;

    if (!net->wanted || net->address[0] == '\0')
        word = strdup("");
    else if (asprintf(&word, " mayfly.net=eth0,%s/%u%s%s%s%s", net->address, net->bits,
                      net->gateway[0] != '\0' || net->resolver[0] != '\0' ? "," : "",
                      net->gateway[0] != '\0' || net->resolver[0] == '\0' ? net->gateway : "0.0.0.0",
                      net->resolver[0] != '\0' ? "," : "", net->resolver) < 0)
        word = NULL;
    if (word == NULL)
        abort();
    return word;
}

/* Paths are passed on as they are: the VMM has the same working directory, or, in a jail, they are its own. */
static struct error *put_boot_source(struct api_client *client, const struct run_options *options,
                                     const struct located *located)
{
    struct body *body = body_new();
    cleanup_free char *boot_args = NULL;
    cleanup_free char *mounts = mount_words(options);
    cleanup_free char *network = network_word(&options->net);
    bool overlay = located->rootfs != NULL && !options->writable;

    if (asprintf(&boot_args, "%s%s%s%s%s%s", located->cmdline != NULL ? located->cmdline : default_cmdline,
                 overlay ? " mayfly.overlay" : "", mounts, network, options->boot_args != NULL ? " " : "",
                 options->boot_args != NULL ? options->boot_args : "") < 0)
        abort();
    body_string(body, "kernel_image_path", located->kernel);
    body_string(body, "initrd_path", located->initrd);
    body_string(body, "boot_args", boot_args);
    return api_client_put(client, "/boot-source", body);
}

static struct error *put_root_drive(struct api_client *client, const struct run_options *options,
                                    const struct located *located)
{
    struct body *body;

    if (located->rootfs == NULL)
        return NULL;
    body = body_new();
    body_string(body, "drive_id", "rootfs");
    body_string(body, "path_on_host", located->rootfs);
    body_boolean(body, "is_root_device", true);
    body_boolean(body, "is_read_only", !options->writable);
    body_string(body, "cache_type", options->writable ? "Writeback" : "Unsafe");
    return api_client_put(client, "/drives/rootfs", body);
}

static struct error *put_console(struct api_client *client, const struct vmm_process *process)
{
    struct body *body = body_new();

    body_open_array(body, "ports");
    for (size_t i = 0; i < RUN_PORT_COUNT; i++) {
        char path[VMM_PATH_SIZE];

        vmm_process_inner_path(process, ports[i].socket, path);
        body_open_object(body, NULL);
        body_string(body, "name", ports[i].name);
        body_string(body, "socket_path", path);
        body_close_object(body);
    }
    body_close_array(body);
    return api_client_put(client, "/mayfly/console", body);
}

/* The socket is the VMM's, but the caller finds nothing left when all is over. */
static struct error *put_vsock(struct api_client *client, const struct run_options *options,
                               struct vmm_process *process)
{
    struct body *body;
    struct error *error;

    if (options->vsock_path == NULL)
        return NULL;
    body = body_new();
    body_integer(body, "guest_cid", options->vsock_cid);
    body_string(body, "uds_path", process->jail.used ? process->jail.vsock : options->vsock_path);
    error = api_client_put(client, "/vsock", body);
    if (error == NULL)
        process->vsock_path = options->vsock_path;
    return error;
}

static struct error *put_mounts(struct api_client *client, const struct run_options *options,
                                const struct vmm_process *process)
{
    struct error *error = NULL;

    for (size_t i = 0; error == NULL && i < options->mount_count; i++) {
        struct body *body = body_new();
        char id[32], url[64], path[VMM_PATH_SIZE];

        snprintf(id, sizeof(id), "mount%zu", i);
        snprintf(url, sizeof(url), "/mayfly/file-systems/%s", id);
        snprintf(path, sizeof(path), "%s/%zu", process->jail.used ? RUN_JAIL_MOUNTS : process->mounts_directory, i);
        body_string(body, "fs_id", id);
        body_string(body, "tag", id);
        body_string(body, "socket_path", path);
        error = api_client_put(client, url, body);
        if (error != NULL)
            error = error_wrap(error, "--mount %s", options->mounts[i].host);
    }
    return error;
}

struct error *configure(struct api_client *client, const struct run_options *options, const struct located *located,
                        struct vmm_process *process, struct run_net *net)
{
    struct error *error = put_machine(client, options);

    /* First of the devices: passt takes tens of milliseconds to start, and does so beside the rest. */
    if (error == NULL)
        error = run_net_configure(net, client, process, &options->net);
    if (error == NULL)
        error = put_boot_source(client, options, located);
    if (error == NULL)
        error = put_root_drive(client, options, located);
    if (error == NULL)
        error = api_client_put(client, "/entropy", body_new());
    if (error == NULL)
        error = put_console(client, process);
    if (error == NULL)
        error = put_vsock(client, options, process);
    if (error == NULL)
        error = put_mounts(client, options, process);
    return error;
}

struct error *configure_connect_ports(struct vmm_process *process, int fds[RUN_PORT_COUNT])
{
    for (size_t i = 0; i < RUN_PORT_COUNT; i++) {
        struct error *error = vmm_process_connect(process, ports[i].socket, CONNECT_TIMEOUT_MS, &fds[i]);

        if (error != NULL)
            return error_wrap(error, "port %s", ports[i].name);
    }
    return NULL;
}
