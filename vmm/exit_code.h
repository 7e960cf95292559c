/*
 * What the process's exit code says, the same numbers as Firecracker's. SIGTERM, SIGINT and SIGQUIT have none: the VMM
 * ends in order and then dies of the signal itself, as its caller asked.
 */
#pragma once

enum exit_code {
    EXIT_CODE_OK = 0,       /* the guest reset or powered off, or --help and --version */
    EXIT_CODE_ERROR = 1,    /* triple fault, KVM error, unknown exit, a start that failed, --config-file included */
    EXIT_CODE_SIGSYS = 148, /* a system call that the seccomp filter forbids */
    EXIT_CODE_SIGBUS = 149, /* also: a file mapped into guest memory was truncated */
    EXIT_CODE_SIGSEGV = 150,
    EXIT_CODE_SIGXFSZ = 151,       /* a file grew over RLIMIT_FSIZE */
    EXIT_CODE_CONFIGURATION = 152, /* --level: all else that is refused is an error */
    EXIT_CODE_ARGUMENTS = 153,     /* the command line */
    EXIT_CODE_SIGXCPU = 154,       /* RLIMIT_CPU */
    EXIT_CODE_SIGHUP = 156,
    EXIT_CODE_SIGILL = 157,
};
