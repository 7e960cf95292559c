#include "vmm/pit.h"

#include "vmm/base/clock.h"
#include "vmm/base/log.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

enum {
    OFFSET_COMMAND = 3,
    READ_BACK = 3, /* a command's channel: not one of the three */
    ACCESS_LATCH = 0,
    ACCESS_LOW = 1,
    ACCESS_HIGH = 2,
    ACCESS_WORD = 3,
    STATE_WORD_HIGH = 4, /* KVM's name for "the low byte came, the high one follows" */
    GATE_MASK = 3,
    GATE_SPEAKER = 2,
    REFRESH_BIT = 4, /* of port 0x61: toggles with the memory refresh, every 15 us on a PC */
};

void pit_init(struct pit *pit, int vm_fd)
{
    *pit = (struct pit){.vm_fd = vm_fd};
}

/* What KVM's PIT would have in a channel that got this command. */
static void apply_command(struct kvm_pit_channel_state *channel, uint8_t command)
{
    uint8_t mode = (command >> 1) & 7;

    if (command == 0)
        return;
    channel->rw_mode = channel->read_state = channel->write_state = (command >> 4) & 3;
    channel->mode = mode > 5 ? mode - 4 : mode; /* the top bit of modes 2 and 3 is a don't-care */
    channel->bcd = command & 1;
}

/* What KVM's PIT would do with the first byte of a count. */
static void apply_count(struct kvm_pit_channel_state *channel, uint8_t byte)
{
    switch (channel->write_state) {
    case ACCESS_WORD:
        channel->write_latch = byte;
        channel->write_state = STATE_WORD_HIGH;
        break;
    case ACCESS_HIGH:
        channel->count = (uint32_t)byte << 8;
        break;
    default:
        channel->count = byte;
        break;
    }
}

/*
 * Makes KVM's PIT and brings it to where the guest's accesses so far would have; `channel` and `byte` are the first
 * count byte written, NULL for none. A VM that cannot have one goes on without: its counters read as zero.
 */
static void move_into_kernel(struct pit *pit, unsigned channel, const uint8_t *byte)
{
    struct kvm_pit_config config = {.flags = KVM_PIT_SPEAKER_DUMMY};
    struct kvm_pit_state2 state;

    if (pit->in_kernel)
        return; /* another vCPU was on its way here meanwhile */
    pit->in_kernel = true;
    if (ioctl(pit->vm_fd, KVM_CREATE_PIT2, &config) < 0 || ioctl(pit->vm_fd, KVM_GET_PIT2, &state) < 0) {
        log_warning("the guest gets no interval timer: KVM_CREATE_PIT2: %s", strerror(errno));
        return;
    }
    for (unsigned i = 0; i < PIT_CHANNELS; i++)
        apply_command(&state.channels[i], pit->command[i]);
    if (byte != NULL)
        apply_count(&state.channels[channel], *byte);
    state.channels[2].gate = pit->gate & 1;
    if ((pit->gate & GATE_SPEAKER) != 0)
        state.flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
    if (ioctl(pit->vm_fd, KVM_SET_PIT2, &state) < 0)
        log_warning("the guest's interval timer starts anew: KVM_SET_PIT2: %s", strerror(errno));
}

static void pit_read(void *device, uint64_t offset, uint8_t *data, uint32_t length)
{
    memset(data, 0, length);
    if (offset != OFFSET_COMMAND)
        move_into_kernel(device, 0, NULL);
}

static void pit_write(void *device, uint64_t offset, const uint8_t *data, uint32_t length)
{
    struct pit *pit = device;
    uint8_t byte = data[0];

    if (length != 1)
        return;
    if (offset != OFFSET_COMMAND)
        move_into_kernel(pit, (unsigned)offset, &byte);
    else if (byte >> 6 != READ_BACK && ((byte >> 4) & 3) != ACCESS_LATCH)
        pit->command[byte >> 6] = byte; /* latching what never counted means nothing */
}

static void gate_read(void *device, uint64_t offset, uint8_t *data, uint32_t length)
{
    const struct pit *pit = device;

    (void)offset;
    memset(data, 0, length);
    data[0] = (uint8_t)(pit->gate | ((clock_monotonic_us() >> 4) & 1) << REFRESH_BIT);
}

static void gate_write(void *device, uint64_t offset, const uint8_t *data, uint32_t length)
{
    struct pit *pit = device;

    (void)offset;
    (void)length;
    pit->gate = data[0] & GATE_MASK;
}

const struct bus_ops pit_bus_ops = {.read = pit_read, .write = pit_write};
const struct bus_ops pit_gate_bus_ops = {.read = gate_read, .write = gate_write};
