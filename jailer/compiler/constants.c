/* The names that rules may use for numbers. */
#include "jailer/compiler/rules.h"

#include "vmm/base/cleanup.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <linux/vhost.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <termios.h>

#define NAMED(constant)                                                                                                \
    {                                                                                                                  \
#constant, (uint64_t)(constant)                                                                                \
    }

static const struct {
    const char *name;
    uint64_t value;
} constants[] = {
    /* sockets */
    NAMED(AF_UNIX),
    NAMED(AF_INET),
    NAMED(SOCK_STREAM),
    NAMED(SOCK_SEQPACKET),
    NAMED(SOCK_DGRAM),
    NAMED(SOCK_CLOEXEC),
    NAMED(SOCK_NONBLOCK),
    NAMED(SOL_SOCKET),
    NAMED(SO_PEERCRED),
    NAMED(SHUT_RD),
    NAMED(SHUT_WR),
    NAMED(MSG_NOSIGNAL),
    NAMED(MSG_CMSG_CLOEXEC),
    NAMED(MSG_DONTWAIT),
    /* memory */
    NAMED(PROT_NONE),
    NAMED(PROT_READ),
    NAMED(PROT_WRITE),
    NAMED(PROT_EXEC),
    NAMED(MAP_SHARED),
    NAMED(MAP_PRIVATE),
    NAMED(MAP_FIXED),
    NAMED(MAP_ANONYMOUS),
    NAMED(MAP_NORESERVE),
    NAMED(MAP_POPULATE),
    NAMED(MAP_HUGETLB),
    NAMED(MAP_HUGE_2MB),
    NAMED(MADV_DONTNEED),
    NAMED(MADV_REMOVE),
    NAMED(MADV_DONTDUMP),
    NAMED(SCHED_OTHER),
    NAMED(SCHED_BATCH),
    NAMED(MADV_FREE),
    NAMED(MADV_HUGEPAGE),
    /* processes and threads */
    NAMED(CLONE_VM),
    NAMED(CLONE_FS),
    NAMED(CLONE_FILES),
    NAMED(CLONE_SIGHAND),
    NAMED(CLONE_THREAD),
    NAMED(CLONE_SYSVSEM),
    NAMED(CLONE_SETTLS),
    NAMED(CLONE_PARENT_SETTID),
    NAMED(CLONE_CHILD_CLEARTID),
    NAMED(CLONE_DETACHED),
    NAMED(FUTEX_CMD_MASK),
    NAMED(FUTEX_WAIT),
    NAMED(FUTEX_WAKE),
    NAMED(FUTEX_REQUEUE),
    NAMED(SIGINT),
    NAMED(SIGPIPE),
    NAMED(SIGQUIT),
    NAMED(SIGTERM),
    {"SIGRTMIN", 35}, /* musl's: it keeps three for itself */
    NAMED(PR_SET_NAME),
    NAMED(PR_SET_DUMPABLE),
    NAMED(PR_SET_NO_NEW_PRIVS),
    NAMED(PR_SET_SECCOMP),
    NAMED(SECCOMP_SET_MODE_FILTER),
    NAMED(ARCH_SET_FS),
    /* io_uring */
    NAMED(IORING_REGISTER_FILES),
    NAMED(IORING_REGISTER_FILES_UPDATE),
    NAMED(IORING_REGISTER_RESTRICTIONS),
    NAMED(IORING_REGISTER_ENABLE_RINGS),
    /* files and terminals */
    NAMED(AT_EMPTY_PATH),
    NAMED(O_CREAT),
    NAMED(O_TRUNC),
    NAMED(F_GETFD),
    NAMED(F_SETFD),
    NAMED(F_ADD_SEALS),
    NAMED(MFD_CLOEXEC),
    NAMED(MFD_ALLOW_SEALING),
    NAMED(MFD_HUGETLB),
    NAMED(MFD_HUGE_2MB),
    NAMED(F_GETFL),
    NAMED(F_SETFL),
    NAMED(FD_CLOEXEC),
    NAMED(RWF_DSYNC),
    NAMED(RWF_NOWAIT),
    NAMED(FIONREAD),
    NAMED(FIONBIO),
    NAMED(TCGETS),
    NAMED(TCSETS),
    NAMED(TCSETSW),
    NAMED(TCSETSF),
    NAMED(TIOCGWINSZ),
    NAMED(TIOCGPGRP),
    NAMED(BLKGETSIZE64),
    NAMED(BLKDISCARD),
    NAMED(BLKZEROOUT),
    /* tap */
    NAMED(TUNSETIFF),
    NAMED(TUNGETIFF),
    NAMED(TUNSETOFFLOAD),
    NAMED(TUNSETQUEUE),
    NAMED(TUNSETVNETHDRSZ),
    NAMED(SIOCGIFINDEX),
    NAMED(SIOCGIFFLAGS),
    /* vhost-net */
    NAMED(VHOST_SET_OWNER),
    NAMED(VHOST_GET_FEATURES),
    NAMED(VHOST_SET_FEATURES),
    NAMED(VHOST_SET_MEM_TABLE),
    NAMED(VHOST_SET_VRING_NUM),
    NAMED(VHOST_SET_VRING_BASE),
    NAMED(VHOST_SET_VRING_ADDR),
    NAMED(VHOST_SET_VRING_CALL),
    NAMED(VHOST_SET_VRING_ERR),
    NAMED(VHOST_SET_VRING_KICK),
    NAMED(VHOST_NET_SET_BACKEND),
    /* KVM */
    NAMED(KVM_GET_API_VERSION),
    NAMED(KVM_CREATE_VM),
    NAMED(KVM_CHECK_EXTENSION),
    NAMED(KVM_GET_VCPU_MMAP_SIZE),
    NAMED(KVM_GET_SUPPORTED_CPUID),
    NAMED(KVM_GET_MSR_INDEX_LIST),
    NAMED(KVM_CREATE_VCPU),
    NAMED(KVM_SET_USER_MEMORY_REGION),
    NAMED(KVM_SET_TSS_ADDR),
    NAMED(KVM_SET_IDENTITY_MAP_ADDR),
    NAMED(KVM_CREATE_IRQCHIP),
    NAMED(KVM_CREATE_PIT2),
    NAMED(KVM_GET_PIT2),
    NAMED(KVM_SET_PIT2),
    NAMED(KVM_IRQFD),
    NAMED(KVM_IOEVENTFD),
    NAMED(KVM_IRQ_LINE),
    NAMED(KVM_RUN),
    NAMED(KVM_GET_REGS),
    NAMED(KVM_SET_REGS),
    NAMED(KVM_GET_SREGS),
    NAMED(KVM_SET_SREGS),
    NAMED(KVM_SET_CPUID2),
    NAMED(KVM_GET_CPUID2),
    NAMED(KVM_GET_MSRS),
    NAMED(KVM_SET_MSRS),
    NAMED(KVM_GET_FPU),
    NAMED(KVM_SET_FPU),
    NAMED(KVM_GET_LAPIC),
    NAMED(KVM_SET_LAPIC),
    NAMED(KVM_GET_MP_STATE),
    NAMED(KVM_SET_MP_STATE),
    NAMED(KVM_KVMCLOCK_CTRL),
    NAMED(KVM_GET_DIRTY_LOG),
    NAMED(KVM_ENABLE_CAP),
    NAMED(KVM_GET_TSC_KHZ),
    NAMED(KVM_SET_TSC_KHZ),
};

bool constant_find(const char *name, uint64_t *value)
{
    for (size_t i = 0; i < array_length(constants); i++) {
        if (strcmp(constants[i].name, name) == 0) {
            *value = constants[i].value;
            return true;
        }
    }
    return false;
}
