/* The command line, the same as Firecracker's and a few options of our own. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/error.h"
#include "vmm/exit_code.h"

/* 2^32 - 1 is nobody's id. */
enum { API_ANYBODY = 0xffffffff };

/* All strings are borrowed from argv. */
struct options {
    const char *api_sock;
    const char *id;
    const char *config_file;
    const char *log_path;
    const char *level;
    const char *module;
    const char *metrics_path;
    const char *metadata;
    const char *seccomp_filter;
    const char *describe_snapshot;
    uint64_t api_peer_uid;   /* API_ANYBODY: not checked */
    uint64_t api_sock_group; /* API_ANYBODY: none */
    uint64_t http_api_max_payload_size;
    uint64_t mmds_size_limit;
    uint64_t start_time_us;
    uint64_t start_time_cpu_us;
    uint64_t parent_cpu_time_us;
    bool boot_timer;
    bool enable_pci;
    bool help;
    bool no_api;
    bool no_kernel_sharing;
    bool no_seccomp;
    bool show_level;
    bool show_log_origin;
    bool snapshot_version;
    bool version;
    bool as_firecracker; /* called by the name of the program that we stand in for */
};

/*
 * Reads argv; "--name value" and "--name=value" are the same, but that `value` then does not begin with "--"; "--" ends
 * the options and what follows is ignored. With help or version set nothing else was read. The error names the option,
 * the value and what was expected.
 */
struct error *options_parse(int argc, char *const argv[], struct options *options);

/* Prints the options to stdout. */
void options_print_help(void);
