#include "vmm/mmds/frame.h"

#include <net/ethernet.h>
#include <string.h>

enum {
    ETHERNET = 14,
    ARP_SIZE = 28,
    IP_MIN = 20,
    TCP_MIN = 20,
    PROTOCOL_TCP = 6,
    TTL = 64,
    ARP_REQUEST = 1,
    ARP_REPLY = 2,
    OPTION_END = 0,
    OPTION_NOTHING = 1,
    OPTION_MSS = 2,
    OPTION_MSS_SIZE = 4,
};

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

/* The sum of RFC 1071, going on from `sum`; an odd last byte counts as if a zero followed. */
static uint32_t sum(uint32_t sum, const uint8_t *bytes, size_t length)
{
    for (; length > 1; bytes += 2, length -= 2)
        sum += get16(bytes);
    return length == 1 ? sum + (uint32_t)(bytes[0] << 8) : sum;
}

static uint16_t sum_end(uint32_t sum)
{
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

bool frame_is_for(const uint8_t *frame, size_t length, uint32_t address)
{
    if (length < ETHERNET + IP_MIN)
        return false;
    if (get16(frame + 12) == ETHERTYPE_IP)
        return get32(frame + ETHERNET + 16) == address;
    return get16(frame + 12) == ETHERTYPE_ARP && length >= ETHERNET + ARP_SIZE &&
           get32(frame + ETHERNET + 24) == address && get16(frame + ETHERNET + 6) == ARP_REQUEST;
}

bool frame_parse_arp(const uint8_t *frame, size_t length, uint32_t address, struct frame_peer *peer)
{
    /* Ethernet, IPv4, addresses of 6 and 4 bytes, a request */
    static const uint8_t request[] = {0, 1, ETHERTYPE_IP >> 8, ETHERTYPE_IP & 0xff, 6, 4, 0, ARP_REQUEST};
    const uint8_t *arp = frame + ETHERNET;

    if (length < ETHERNET + ARP_SIZE || get16(frame + 12) != ETHERTYPE_ARP ||
        memcmp(arp, request, sizeof(request)) != 0 || get32(arp + 24) != address)
        return false;
    *peer = (struct frame_peer){.address = get32(arp + 14)};
    memcpy(peer->mac, arp + 8, sizeof(peer->mac));
    return true;
}

/* Every option's length lies within the header, or the segment is malformed. */
static bool parse_options(const uint8_t *options, size_t length, uint16_t *mss)
{
    for (size_t i = 0; i < length && options[i] != OPTION_END;) {
        size_t size = 1;

        if (options[i] != OPTION_NOTHING) {
            if (length - i < 2 || options[i + 1] < 2 || options[i + 1] > length - i)
                return false;
            size = options[i + 1];
            if (options[i] == OPTION_MSS && size != OPTION_MSS_SIZE)
                return false;
            if (options[i] == OPTION_MSS)
                *mss = get16(options + i + 2);
        }
        i += size;
    }
    return true;
}

/* The part of the frame that IPv4 carries; fragments are none of ours. */
static const uint8_t *parse_ip(const uint8_t *frame, size_t frame_length, uint32_t address, size_t *length)
{
    const uint8_t *ip = frame + ETHERNET;

    if (frame_length < ETHERNET + IP_MIN || get16(frame + 12) != ETHERTYPE_IP)
        return NULL;
    size_t header = (size_t)(ip[0] & 15) * 4;
    size_t total = get16(ip + 2);
    if (ip[0] >> 4 != 4 || header < IP_MIN || total < header || total > frame_length - ETHERNET)
        return NULL;
    if ((get16(ip + 6) & 0x3fff) != 0 || ip[9] != PROTOCOL_TCP || get32(ip + 16) != address)
        return NULL;
    if (sum_end(sum(0, ip, header)) != 0)
        return NULL;
    *length = total - header;
    return ip + header;
}

/*
 * The checksum of TCP is not looked at: the bytes come from memory, and a driver that leaves checksums to its device
 * (VIRTIO_NET_F_CSUM) has put none.
 */
bool frame_parse_segment(const uint8_t *frame, size_t length, uint32_t address, struct segment *segment)
{
    size_t size;
    const uint8_t *tcp = parse_ip(frame, length, address, &size);

    if (tcp == NULL || size < TCP_MIN)
        return false;
    size_t header = (size_t)(tcp[12] >> 4) * 4;
    if (header < TCP_MIN || header > size)
        return false;
    *segment = (struct segment){
        .peer = {.port = get16(tcp), .address = get32(frame + ETHERNET + 12)},
        .port = get16(tcp + 2),
        .sequence = get32(tcp + 4),
        .acknowledged = get32(tcp + 8),
        .flags = tcp[13] & 0x1f,
        .window = get16(tcp + 14),
        .data = tcp + header,
        .length = size - header,
    };
    memcpy(segment->peer.mac, frame + 6, sizeof(segment->peer.mac));
    return parse_options(tcp + TCP_MIN, header - TCP_MIN, &segment->mss);
}

static void write_ethernet(uint8_t *frame, const uint8_t to[6], const uint8_t from[6], unsigned type)
{
    memcpy(frame, to, 6);
    memcpy(frame + 6, from, 6);
    put16(frame + 12, type);
}

size_t frame_write_arp(uint8_t *frame, const uint8_t mac[6], uint32_t address, const struct frame_peer *peer)
{
    uint8_t *arp = frame + ETHERNET;

    write_ethernet(frame, peer->mac, mac, ETHERTYPE_ARP);
    put16(arp, 1);
    put16(arp + 2, ETHERTYPE_IP);
    arp[4] = 6;
    arp[5] = 4;
    put16(arp + 6, ARP_REPLY);
    memcpy(arp + 8, mac, 6);
    put32(arp + 14, address);
    memcpy(arp + 18, peer->mac, 6);
    put32(arp + 24, peer->address);
    return ETHERNET + ARP_SIZE;
}

static void write_ip(uint8_t *ip, size_t length, uint32_t from, uint32_t to)
{
    memset(ip, 0, IP_MIN);
    ip[0] = 0x45;
    put16(ip + 2, (unsigned)length);
    put16(ip + 6, 0x4000); /* never to be cut */
    ip[8] = TTL;
    ip[9] = PROTOCOL_TCP;
    put32(ip + 12, from);
    put32(ip + 16, to);
    put16(ip + 10, sum_end(sum(0, ip, IP_MIN)));
}

size_t frame_write_segment(uint8_t *frame, const uint8_t mac[6], uint32_t address, const struct segment *segment)
{
    uint8_t *ip = frame + ETHERNET;
    uint8_t *tcp = ip + IP_MIN;
    size_t header = TCP_MIN + (segment->mss != 0 ? OPTION_MSS_SIZE : 0);
    size_t size = header + segment->length;

    write_ethernet(frame, segment->peer.mac, mac, ETHERTYPE_IP);
    write_ip(ip, IP_MIN + size, address, segment->peer.address);
    memset(tcp, 0, header);
    put16(tcp, segment->port);
    put16(tcp + 2, segment->peer.port);
    put32(tcp + 4, segment->sequence);
    put32(tcp + 8, segment->acknowledged);
    tcp[12] = (uint8_t)(header / 4 << 4);
    tcp[13] = segment->flags;
    put16(tcp + 14, segment->window);
    if (segment->mss != 0) {
        tcp[TCP_MIN] = OPTION_MSS;
        tcp[TCP_MIN + 1] = OPTION_MSS_SIZE;
        put16(tcp + TCP_MIN + 2, segment->mss);
    }
    if (segment->length > 0)
        memcpy(tcp + header, segment->data, segment->length);
    /* The pseudo-header: both addresses, the protocol, the length. */
    put16(tcp + 16, sum_end(sum(sum(PROTOCOL_TCP + (uint32_t)size, ip + 12, 8), tcp, size)));
    return ETHERNET + IP_MIN + size;
}
