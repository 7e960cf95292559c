/*
 * ioctl's second parameter is an unsigned long in glibc and an int in musl, and KVM's reading requests have bit 31 set:
 * the bare call compiles without a conversion warning in only one of the two.
 */
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

/* As ioctl(2). */
static inline int kvm_ioctl(int fd, unsigned long request, void *argument)
{
    return (int)syscall(SYS_ioctl, fd, request, argument);
}
