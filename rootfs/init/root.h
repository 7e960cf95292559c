/*
 * From the initramfs into the root file system that the command line names.
 */
#pragma once

#include "cmdline.h"
#include "failure.h"

/*
 * Mounts cmdline->root (with a tmpfs over it when cmdline->overlay), moves /dev, /proc and /sys
 * there, makes it "/", and frees the initramfs's files. /dev must be mounted. On failure nothing
 * has been deleted and init is still in the initramfs.
 */
int root_switch(const struct cmdline *cmdline, struct failure *failure);
