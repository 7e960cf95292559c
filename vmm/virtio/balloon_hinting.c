/*
 * Free page hinting (virtio 1.2, section 5.5.6.5): the host asks for a run by a number in config space; the guest
 * repeats the number, then names free pages, then says stop. Hints without the number of the run that the host wants
 * are of a run that is over: their pages may be in use again, and are left alone.
 *
 * The guest may take a page back at any time, even before its hint was served; one that it has written to since must
 * not be touched (5.5.6.5.2). Nothing here can tell whether it has. But Linux makes a page available to itself only
 * after notifying us (get_free_page_and_send), page by page. So a notification is served by the vCPU that sends it,
 * before it goes on (prompt_queues), and none is ever suppressed: by the time that a page can be written to, its hint
 * has been served. A driver that notifies late, or not, plays with its own guest's memory.
 */
#include "vmm/virtio/balloon.h"

#include "vmm/metrics.h"

#include <linux/virtio_balloon.h>
#include <string.h>

enum { RUN_FIRST = 2 };

static void tell(struct balloon *balloon, uint32_t host_cmd)
{
    balloon->hints.host_cmd = host_cmd;
    virtio_device_config_changed(&balloon->device);
}

void virtio_balloon_hinting_start(struct virtio_device *device, bool acknowledge_on_stop)
{
    struct balloon *balloon = balloon_of(device);
    struct balloon_hints *hints = &balloon->hints;

    hints->last_run = hints->last_run < RUN_FIRST || hints->last_run == UINT32_MAX ? RUN_FIRST : hints->last_run + 1;
    hints->acknowledge_on_stop = acknowledge_on_stop;
    tell(balloon, hints->last_run);
}

/* The guest takes its pages back when it reads this. */
void virtio_balloon_hinting_stop(struct virtio_device *device)
{
    tell(balloon_of(device), VIRTIO_BALLOON_CMD_ID_DONE);
}

void virtio_balloon_hinting_status(const struct virtio_device *device, struct balloon_hinting_status *status)
{
    const struct balloon_hints *hints = &balloon_of(device)->hints;

    *status = (struct balloon_hinting_status){
        .host_cmd = hints->host_cmd,
        .guest_cmd = hints->guest_cmd,
        .has_guest_cmd = hints->has_guest_cmd,
    };
}

void balloon_hinting_reset(struct balloon *balloon)
{
    balloon->hints.has_guest_cmd = false;
    balloon->hints.guest_cmd = 0;
}

static void serve_command(struct balloon *balloon, const struct virtqueue_chain *chain)
{
    struct balloon_hints *hints = &balloon->hints;
    uint32_t command;

    if (virtqueue_chain_read(chain, 0, &command, sizeof(command)) != sizeof(command)) {
        METRIC_INCREMENT(balloon.free_page_hint_fails);
        return;
    }
    bool ends_run = command == VIRTIO_BALLOON_CMD_ID_STOP && hints->has_guest_cmd &&
                    hints->guest_cmd == hints->host_cmd && hints->host_cmd >= RUN_FIRST;

    hints->guest_cmd = command;
    hints->has_guest_cmd = true;
    if (ends_run && hints->acknowledge_on_stop)
        tell(balloon, VIRTIO_BALLOON_CMD_ID_DONE);
}

void balloon_hinting_serve(struct balloon *balloon, const struct virtqueue_chain *chain)
{
    const struct balloon_hints *hints = &balloon->hints;
    uint64_t fails = 0;

    if (chain->readable_count > 0)
        serve_command(balloon, chain);
    if (chain->writable_count == 0)
        return;
    METRIC_INCREMENT(balloon.free_page_hint_count);
    if (hints->has_guest_cmd && hints->guest_cmd == hints->host_cmd && hints->host_cmd >= RUN_FIRST)
        METRIC_ADD(balloon.free_page_hint_freed, balloon_release_buffers(balloon, chain, &fails));
    METRIC_ADD(balloon.free_page_hint_fails, fails);
}
