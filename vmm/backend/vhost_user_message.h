/* The messages of the vhost-user protocol, as QEMU's docs/interop/vhost-user.rst has them: host byte order, packed. */
#pragma once

#include <stdint.h>

enum vhost_user_request {
    VHOST_USER_GET_FEATURES = 1,
    VHOST_USER_SET_FEATURES = 2,
    VHOST_USER_SET_OWNER = 3,
    VHOST_USER_SET_MEM_TABLE = 5,
    VHOST_USER_SET_VRING_NUM = 8,
    VHOST_USER_SET_VRING_ADDR = 9,
    VHOST_USER_SET_VRING_BASE = 10,
    VHOST_USER_GET_VRING_BASE = 11,
    VHOST_USER_SET_VRING_KICK = 12,
    VHOST_USER_SET_VRING_CALL = 13,
    VHOST_USER_GET_PROTOCOL_FEATURES = 15,
    VHOST_USER_SET_PROTOCOL_FEATURES = 16,
    VHOST_USER_GET_QUEUE_NUM = 17,
    VHOST_USER_SET_VRING_ENABLE = 18,
    VHOST_USER_SET_BACKEND_REQ_FD = 21,
    VHOST_USER_GET_CONFIG = 24,
    VHOST_USER_GET_INFLIGHT_FD = 31,
    VHOST_USER_SET_INFLIGHT_FD = 32,
};

/* What the back end says of its own accord, on the channel of SET_BACKEND_REQ_FD. */
enum { VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2 };

/* Of the virtio features: the back end knows protocol features. */
enum { VHOST_USER_F_PROTOCOL_FEATURES = 30 };

enum vhost_user_protocol_feature {
    VHOST_USER_PROTOCOL_F_MQ = 0,
    VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
    VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
    VHOST_USER_PROTOCOL_F_CONFIG = 9,
    VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12,
};

/* In a header's flags. */
enum {
    VHOST_USER_VERSION_MASK = 0x3,
    VHOST_USER_VERSION = 0x1,
    VHOST_USER_REPLY = 1 << 2,
    VHOST_USER_NEED_REPLY = 1 << 3,
};

/* In the number that goes with a descriptor: there is none. */
enum { VHOST_USER_NO_FD = 1 << 8 };

enum { VHOST_USER_CONFIG_MAX = 256, VHOST_USER_REGIONS_MAX = 8 };

struct vhost_user_header {
    uint32_t request;
    uint32_t flags;
    uint32_t size; /* of the payload */
} __attribute__((packed));

struct vhost_user_region {
    uint64_t gpa;
    uint64_t size;
    uint64_t hva; /* in the front end: what vring addresses refer to */
    uint64_t offset;
} __attribute__((packed));

struct vhost_user_memory {
    uint32_t count;
    uint32_t padding;
    struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
} __attribute__((packed));

struct vhost_user_vring_state {
    uint32_t index;
    uint32_t value;
} __attribute__((packed));

struct vhost_user_vring_address {
    uint32_t index;
    uint32_t flags;
    uint64_t descriptors;
    uint64_t used;
    uint64_t available;
    uint64_t log;
} __attribute__((packed));

struct vhost_user_config {
    uint32_t offset;
    uint32_t size;
    uint32_t flags;
    uint8_t bytes[VHOST_USER_CONFIG_MAX];
} __attribute__((packed));

/* Memory in which the back end keeps what it has in hand, so that its successor knows; laid out by back ends. */
struct vhost_user_inflight {
    uint64_t mmap_size;
    uint64_t mmap_offset;
    uint16_t queue_count;
    uint16_t queue_size;
} __attribute__((packed));

union vhost_user_payload {
    uint64_t number;
    struct vhost_user_memory memory;
    struct vhost_user_vring_state state;
    struct vhost_user_vring_address address;
    struct vhost_user_config config;
    struct vhost_user_inflight inflight;
};

struct vhost_user_message {
    struct vhost_user_header header;
    union vhost_user_payload payload;
} __attribute__((packed));
