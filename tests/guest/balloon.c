/*
 * A balloon of pages= pages from 32 MiB on: fills them, and each time that it gets a 'g' goes a step further: inflates
 * (by= pages a request), names them free (reporting, hints), tells statistics, deflates and looks at them. own: also
 * inflates (hints) a page of its own image. hostile: asks for what is not there.
 */
#include "tests/guest/lib/virtio.h"

enum { PAGES_AT = 32 << 20, PAGE = 4096, INFLATE = 0, DEFLATE = 1, BY_MAX = 2048, CONFIG_ACTUAL = 4, CONFIG_RUN = 8 };

static uint32_t numbers[BY_MAX];
static uint8_t own[2 * PAGE] __attribute__((aligned(4096))) = {[0 ... 2 * PAGE - 1] = 0x77};
static struct virtio balloon;

static void step(const char *what, uint64_t value)
{
    serial_result(what, value);
    while (serial_get() != 'g')
        ;
}

static volatile uint64_t *page_at(uint64_t index)
{
    return (volatile uint64_t *)(PAGES_AT + index * PAGE);
}

static void fill(uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++)
        *page_at(i) = ~i;
}

static uint64_t filled(uint64_t pages)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < pages; i++)
        count += *page_at(i) == ~i;
    return count;
}

/* As Linux does it: numbers of pages in no order of use to anybody. */
static void send_pages(unsigned queue, uint64_t pages, uint64_t by)
{
    for (uint64_t done = 0; done < pages; done += by) {
        uint64_t count = pages - done < by ? pages - done : by;

        for (uint64_t i = 0; i < count; i++)
            numbers[i] =
                (uint32_t)(PAGES_AT / PAGE + done + (i % 2 == 0 ? i : count - 1 - (count % 2 == 0 ? i - 1 : i)));
        virtio_request(&balloon, queue, &(struct buffer){numbers, (uint32_t)(count * sizeof(numbers[0])), false}, 1);
    }
}

static void inflate_own(void)
{
    uint32_t number = (uint32_t)((uint64_t)own / PAGE);

    virtio_request(&balloon, INFLATE, &(struct buffer){&number, sizeof(number), false}, 1);
    serial_result("own", *(volatile uint8_t *)own);
    serial_result("next", *(volatile uint8_t *)(own + PAGE));
}

static void inflate_what_is_not_there(void)
{
    static const uint32_t wrong[] = {0xffffffff, 0x7fffffff, 0xc0000, 0xfee00, 0x8000, 0x8000, 0x8001, 0};

    virtio_request(&balloon, INFLATE, &(struct buffer){wrong, sizeof(wrong) - 4, false}, 1);
    virtio_request(&balloon, INFLATE, &(struct buffer){wrong, 3, false}, 1);
    virtio_request(&balloon, INFLATE, &(struct buffer){numbers, 1, true}, 1);
    virtio_request(&balloon, INFLATE, &(struct buffer){(void *)PAGES_AT, 64 << 20, false}, 1);
    for (unsigned queue = 3; queue < balloon.queue_count; queue++) {
        struct buffer buffers[] = {
            {"abc", 3, false}, {(void *)(PAGES_AT + 5), 1, true}, {(void *)PAGES_AT, 4095, true}};

        virtio_request(&balloon, queue, buffers, 3);
    }
}

static void name_free(unsigned queue, uint64_t pages)
{
    virtio_request(&balloon, queue, &(struct buffer){(void *)PAGES_AT, (uint32_t)(pages * PAGE), true}, 1);
}

static void command(unsigned queue, uint32_t value)
{
    virtio_request(&balloon, queue, &(struct buffer){&value, sizeof(value), false}, 1);
}

/* Whether what is notified has been served by the next instruction. */
static bool hint_is_served_at_once(unsigned queue)
{
    bool at_once = true;

    for (unsigned i = 0; i < 100; i++) {
        uint32_t stop = 0;

        queue_add(&balloon.queues[queue], &(struct buffer){&stop, sizeof(stop), false}, 1);
        virtio_notify(&balloon, queue);
        at_once = at_once && queue_has_used(&balloon.queues[queue]);
        queue_wait(&balloon.queues[queue]);
    }
    return at_once;
}

/*
 * A page of the guest's own image, which is the host's file. Another such page stands in the queue for inflating, whose
 * doorbell has not been rung.
 */
static void hint_own(unsigned queue)
{
    static uint32_t next;

    next = (uint32_t)((uint64_t)own / PAGE + 1);
    queue_add(&balloon.queues[INFLATE], &(struct buffer){&next, sizeof(next), false}, 1);
    command(queue, virtio_read(&balloon, REG_CONFIG + CONFIG_RUN));
    virtio_request(&balloon, queue, &(struct buffer){own, PAGE, true}, 1);
    serial_result("own", *(volatile uint8_t *)own);
    virtio_notify(&balloon, INFLATE);
    queue_wait(&balloon.queues[INFLATE]);
    serial_result("next", *(volatile uint8_t *)(own + PAGE));
}

/* A run of hints: the number that the host chose, the pages, stop. */
static void hint(unsigned queue, uint64_t pages)
{
    uint32_t run = virtio_read(&balloon, REG_CONFIG + CONFIG_RUN);

    serial_result("prompt", hint_is_served_at_once(queue));
    name_free(queue, pages);
    serial_result("early", filled(pages));
    if (cmdline_has("own"))
        hint_own(queue);
    command(queue, run);
    name_free(queue, pages);
    step("hinted", run);
    command(queue, 0);
    step("run", virtio_read(&balloon, REG_CONFIG + CONFIG_RUN));
}

/* Two known statistics, an unknown one, and part of one. */
static void tell_statistics(void)
{
    static struct {
        uint16_t tag;
        uint64_t value;
    } __attribute__((packed)) statistics[] = {{4, 0x123456789a}, {10, 3}, {999, 9}, {5, 77}};

    queue_add(&balloon.queues[2], &(struct buffer){statistics, sizeof(statistics) - 1, false}, 1);
    virtio_notify(&balloon, 2);
    serial_puts("told\n");
    queue_wait(&balloon.queues[2]);
    serial_puts("asked\n");
    statistics[0].value++;
    queue_add(&balloon.queues[2], &(struct buffer){statistics, sizeof(statistics), false}, 1);
    virtio_notify(&balloon, 2);
    step("told again", 0);
}

void guest_main(void)
{
    uint64_t pages = cmdline_number("pages", 64);
    uint64_t by = cmdline_number("by", 256);

    guest_expect(virtio_open(&balloon, VIRTIO_BALLOON, FEATURE_VERSION_1 | 0x3f, (unsigned)cmdline_number("queues", 2)),
                 "no balloon device");
    if (cmdline_has("hostile"))
        inflate_what_is_not_there();
    if (cmdline_has("own") && !cmdline_has("hinting"))
        inflate_own();
    if (cmdline_has("statistics"))
        tell_statistics();
    fill(pages);
    step("filled", filled(pages));
    if (cmdline_has("hinting"))
        hint((unsigned)cmdline_number("hinting_queue", 2), pages);
    else if (cmdline_has("reporting"))
        name_free(2, pages);
    else
        send_pages(INFLATE, pages, by);
    virtio_write(&balloon, REG_CONFIG + CONFIG_ACTUAL, (uint32_t)pages);
    step("inflated", virtio_read(&balloon, REG_CONFIG));
    send_pages(DEFLATE, pages, by);
    virtio_write(&balloon, REG_CONFIG + CONFIG_ACTUAL, 0);
    serial_result("left", filled(pages));
    fill(pages);
    step("deflated", virtio_read(&balloon, REG_CONFIG));
    serial_puts("done\n");
}
