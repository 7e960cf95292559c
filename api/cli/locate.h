/* Where the parts of Mayfly are: the VMM beside this program, the guest's files near it. */
#pragma once

#include "api/cli/run_options.h"

struct located {
    char *vmm;
    char *jailer; /* NULL: there is none beside this program or on PATH */
    char *kernel;
    char *initrd;  /* NULL: none */
    char *rootfs;  /* NULL: none */
    char *cmdline; /* the kernel command line that came with the kernel; NULL: none did */
};

/*
 * Fills `located`: what the options name is taken as it is, the rest is looked for. A kernel given without an initrd
 * (or a rootfs) gets none: parts of different guests do not mix. Errors say where was looked.
 */
struct error *locate(struct located *located, const struct run_options *options);
/* virtiofsd, on PATH or where distributions put it; the caller frees it. NULL: there is none. */
char *locate_virtiofsd(void);
/* passt, on PATH; the same. */
char *locate_passt(void);

void located_free(struct located *located);
