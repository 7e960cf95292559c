/*
 * mayfly-vmm: one microVM, one process. Parse the command line, configure what it says, serve the API until the guest
 * is over or nobody wants it any more.
 */
#include "api/config_file.h"
#include "api/mmds_json.h"
#include "api/routes.h"
#include "api/server.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/log.h"
#include "vmm/exit_code.h"
#include "vmm/filters.h"
#include "vmm/machine.h"
#include "vmm/options.h"
#include "vmm/process.h"
#include "vmm/signals.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Says why on stderr and in the log, if that is elsewhere; consumes `error`. */
static int fail(enum exit_code exit_code, struct error *error)
{
    if (!log_is_stderr())
        log_error("%s: exit code %d", error->message, exit_code);
    fprintf(stderr, "mayfly-vmm: %s\n", error->message);
    error_free(error);
    return (int)exit_code;
}

static char *copy(const char *text)
{
    return text == NULL ? NULL : strdup(text);
}

static struct error *configure_logger(struct machine *machine, const struct options *options)
{
    struct logger_config config = {
        .log_path = copy(options->log_path),
        .level = copy(options->level),
        .module = copy(options->module),
        .show_level = options->show_level,
        .has_show_level = options->show_level,
        .show_log_origin = options->show_log_origin,
        .has_show_log_origin = options->show_log_origin,
    };
    struct error *error = machine_put_logger(machine, &config);

    logger_config_free(&config);
    return error;
}

static struct error *configure_metrics(struct machine *machine, const struct options *options)
{
    struct metrics_config config = {.metrics_path = copy(options->metrics_path)};
    struct error *error = options->metrics_path == NULL ? NULL : machine_put_metrics(machine, &config);

    metrics_config_free(&config);
    return error;
}

static struct error *configure_metadata(struct machine *machine, const struct options *options)
{
    struct error *error = options->metadata == NULL ? NULL : mmds_json_apply_file(options->metadata, machine);

    return error == NULL ? NULL : error_wrap(error, "--metadata: '%s'", options->metadata);
}

static void log_start(const struct options *options)
{
    if (options->as_firecracker) {
        log_info("Running Firecracker v" API_COMPATIBLE_VERSION);
        log_info("in its place: Mayfly v" MAYFLY_VERSION);
    }
    if (options->enable_pci)
        log_info("--enable-pci: devices are on virtio-mmio all the same");
    if (!filters_supported() && !options->no_seccomp)
        log_info("seccomp: this build runs without filters");
}

static _Noreturn void end_as_firecracker(int exit_code)
{
    if (exit_code == EXIT_CODE_OK)
        log_info("Firecracker exiting successfully. exit_code=0");
    else
        log_error("Firecracker exiting with error. exit_code=%d", exit_code);
    _exit(exit_code);
}

/* The log tells of the start in the words that scripts wait for where no API can be asked. */
static struct error *configure_from_file(struct event_loop *loop, struct machine *machine,
                                         const struct options *options)
{
    const char *path = options->config_file;
    struct error *error;

    event_loop_lock(loop);
    error = api_config_file_apply(path, machine);
    if (error == NULL)
        error = machine_start(machine);
    if (error == NULL && options->as_firecracker)
        log_info("Successfully started microvm that was configured from one single json");
    event_loop_unlock(loop);
    return error == NULL ? NULL : error_wrap(error, "--config-file '%s'", path);
}

static struct error *serve_api(struct event_loop *loop, struct machine *machine, const struct options *options,
                               struct api_server **server)
{
    struct api_options api_options = {
        .socket_path = options->api_sock,
        .has_peer_uid = options->api_peer_uid != API_ANYBODY,
        .has_group = options->api_sock_group != API_ANYBODY,
        .peer_uid = (uint32_t)options->api_peer_uid,
        .group = (uint32_t)options->api_sock_group,
        .max_payload = options->http_api_max_payload_size,
        .start_time_us = options->start_time_us,
        .start_time_cpu_us = options->start_time_cpu_us,
        .parent_cpu_time_us = options->parent_cpu_time_us,
    };

    if (options->no_api)
        return NULL;
    struct error *error = api_server_new(loop, machine, &api_options, server);
    if (error == NULL && options->as_firecracker) {
        log_info("Listening on API socket (\"%s\").", options->api_sock);
        log_info("API server started.");
    }
    return error;
}

static int run(const struct options *options, const struct filters *filters)
{
    struct event_loop *loop;
    struct machine *machine;
    struct api_server *server = NULL;
    const struct machine_options machine_options = {
        .id = options->id,
        .mmds_size_limit =
            options->mmds_size_limit != 0 ? options->mmds_size_limit : options->http_api_max_payload_size,
        .boot_timer = options->boot_timer,
        .no_kernel_sharing = options->no_kernel_sharing,
        .filters = filters,
        .exit = options->as_firecracker ? end_as_firecracker : NULL,
    };
    struct error *error = event_loop_new(&loop);

    if (error == NULL)
        error = machine_new(loop, &machine_options, &machine);
    if (error != NULL)
        return fail(EXIT_CODE_ERROR, error);

    error = configure_logger(machine, options);
    /* What is wrong with it is its level, or else the host. */
    bool level_is_wrong = error != NULL && error->kind == ERROR_INPUT;
    if (error == NULL)
        error = configure_metrics(machine, options);
    if (error == NULL)
        error = configure_metadata(machine, options);
    if (error != NULL)
        return fail(level_is_wrong ? EXIT_CODE_CONFIGURATION : EXIT_CODE_ERROR, error_wrap(error, "command line"));
    log_start(options);

    error = serve_api(loop, machine, options, &server);
    if (error != NULL)
        return fail(EXIT_CODE_ERROR, error);
    if (options->config_file != NULL)
        error = configure_from_file(loop, machine, options);
    if (error != NULL) {
        api_server_free(server);
        return fail(EXIT_CODE_ERROR, error);
    }

    /* The guest's end, or a signal, ends the process from within. */
    error = event_loop_run(loop);
    return error == NULL ? EXIT_CODE_OK : fail(EXIT_CODE_ERROR, error);
}

int main(int argc, char *argv[])
{
    struct options options;
    struct filters filters;
    struct error *error = process_harden(argc > 0 ? argv[0] : NULL);

    if (error != NULL)
        return fail(EXIT_CODE_ERROR, error);
    error = options_parse(argc, argv, &options);
    if (error != NULL)
        return fail(EXIT_CODE_ARGUMENTS, error);
    if (options.help) {
        options_print_help();
        return EXIT_CODE_OK;
    }
    if (options.version) {
        /* The first line is only the version: callers parse the rest of it. */
        if (options.as_firecracker)
            puts("Firecracker v" API_COMPATIBLE_VERSION "\n");
        puts("Mayfly v" MAYFLY_VERSION);
        return EXIT_CODE_OK;
    }
    log_set_instance(options.id);
    signals_install();

    error = filters_choose(options.no_seccomp, options.seccomp_filter, &filters);
    if (error == NULL)
        error = filters_load(&filters, FILTER_MAIN_START);
    if (error != NULL)
        return fail(EXIT_CODE_ERROR, error);
    int exit_code = run(&options, &filters);
    /* Nothing is taken apart: the kernel does that when nobody waits any more. */
    if (options.as_firecracker)
        end_as_firecracker(exit_code);
    _exit(exit_code);
}
