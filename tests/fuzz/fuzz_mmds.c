/*
 * The metadata service under a hostile guest: frames, each after its length, of which those that begin with 0 are taken
 * as they are, and those that begin with 1 are TCP segments of a connection, whose IPv4 header is made right. A length
 * of 0 lets a second pass.
 */
#include "tests/fuzz/fuzz.h"

#include "vmm/mmds/mmds_net.h"

static const uint32_t address = 0xa9fea9fe, guest = 0xa9fe0005;
static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0, 9};

static uint32_t server_sequence; /* the last that was heard: acknowledging it takes no luck */

static void drain(struct mmds_net *net, uint64_t now_us)
{
    uint8_t frame[FRAME_SENT_MAX];
    struct segment segment;
    size_t size;

    /* Thirty connections, each with an answer that the window lets out at once: it must end. */
    for (unsigned i = 0; (size = mmds_net_send(net, frame, now_us)) > 0; i++) {
        fuzz_require(size <= sizeof(frame) && i < 100000);
        if (frame_parse_segment(frame, size, guest, &segment))
            server_sequence =
                segment.sequence + (uint32_t)segment.length + ((segment.flags & (SEGMENT_SYN | SEGMENT_FIN)) != 0);
    }
}

static void segment_frame(struct mmds_net *net, struct fuzz_input *input, size_t length, uint64_t now_us)
{
    uint8_t data[255], frame[FRAME_SENT_MAX + 60];
    struct segment segment = {.peer = {.mac = {6, 1, 0x23, 0x45, 0x67, 1}, .port = 80, .address = address}};

    segment.port = (uint16_t)(40000 + fuzz_u8(input) % 40);
    segment.flags = fuzz_u8(input) & 0x1f;
    segment.window = fuzz_u16(input);
    segment.sequence = fuzz_u16(input);
    segment.data = data;
    segment.length = fuzz_bytes(input, data, length);
    segment.acknowledged = server_sequence + (segment.window & 1 ? 0 : fuzz_u8(input));
    if ((segment.flags & SEGMENT_SYN) != 0)
        segment.mss = fuzz_u16(input);
    mmds_net_receive(net, frame, frame_write_segment(frame, guest_mac, guest, &segment), now_us);
}

static void set(struct mmds_value *object, const char *name, struct mmds_value *member)
{
    fuzz_require(member != NULL && mmds_object_set(object, name, 1, member));
}

/* {"a": "hello", "b": {"c": 1}, "d": ["x", true]} */
static struct mmds_value *metadata(void)
{
    struct mmds_value *all = mmds_value_new(MMDS_OBJECT, NULL, 0);
    struct mmds_value *object = mmds_value_new(MMDS_OBJECT, NULL, 0);
    struct mmds_value *array = mmds_value_new(MMDS_ARRAY, NULL, 0);

    fuzz_require(all != NULL && object != NULL && array != NULL);
    fuzz_require(mmds_array_add(array, mmds_value_new(MMDS_STRING, "x\n", 2)) &&
                 mmds_array_add(array, mmds_value_new(MMDS_TRUE, NULL, 0)));
    set(object, "c", mmds_value_new(MMDS_NUMBER, "1", 1));
    set(all, "a", mmds_value_new(MMDS_STRING, "hello", 5));
    set(all, "b", object);
    set(all, "d", array);
    return all;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct mmds mmds = {.limit = 51200, .contents = metadata()};
    struct mmds_net *net = mmds_net_new(&mmds, address);
    uint64_t now_us = 1000000;

    fuzz_require(net != NULL);
    server_sequence = 0;
    if (size > 0)
        mmds.version = (data[size - 1] & 1) != 0 ? MMDS_V2 : MMDS_V1;
    while (input.left > 0) {
        uint8_t frame[255];
        size_t length = fuzz_u8(&input);

        if (length == 0) {
            now_us += 1000000;
        } else if (fuzz_u8(&input) % 2 == 0) {
            length = fuzz_bytes(&input, frame, length);
            mmds_net_takes(net, frame, length);
            mmds_net_receive(net, frame, length, now_us);
        } else {
            segment_frame(net, &input, length, now_us);
        }
        drain(net, now_us);
    }
    mmds_net_free(net);
    mmds_free(&mmds);
    return 0;
}
