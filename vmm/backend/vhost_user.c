#include "vmm/backend/vhost_user.h"

#include "vmm/backend/unix_socket.h"
#include "vmm/backend/vhost_user_rings.h"
#include "vmm/backend/vhost_user_wire.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/hotplug_memory.h"
#include "vmm/metrics.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <string.h>
#include <sys/socket.h>

#define PATIENCE_US (VHOST_USER_PATIENCE_MS * 1000ull)
#define PATIENCE_MIN_US (VHOST_USER_PATIENCE_MIN_MS * 1000ull)

static void disconnect(struct vhost_user *front)
{
    event_timer_cancel(&front->patience);
    event_source_remove(&front->connection);
    event_source_remove(&front->channel);
    fd_close(&front->connection.fd);
    fd_close(&front->channel.fd);
    fd_close(&front->incoming_fd);
    front->config_asked = false;
    if (front->state == VHOST_USER_RUNNING) {
        vhost_user_rings_lost(front);
        front->interrupted = true;
    }
    front->state = VHOST_USER_CLOSED;
    front->expected_count = 0;
    front->incoming_length = front->said_length = 0;
}

static void retry_later(struct vhost_user *front, uint64_t delay_ms)
{
    event_timer_set(front->loop, &front->retry, clock_monotonic_us() + delay_ms * 1000);
}

/* The connection broke: `failure` says why. */
static void lost(struct vhost_user *front)
{
    bool first = front->state != VHOST_USER_GREETING;

    disconnect(front);
    /* One line for a back end that went, none for each attempt to find it again. */
    if (first)
        log_warning("%s \"%s\": the back end at \"%s\" is lost: %s", front->needs.name, front->needs.id,
                    front->needs.path, front->failure);
    if (!front->wanted && !front->awaited)
        return;
    if (front->wanted && (front->hopeless || !front->needs.resumable)) {
        front->wanted = false;
        front->owner_ops->failed(front->owner, front->failure);
        return;
    }
    retry_later(front, VHOST_USER_RETRY_MS);
}

/* --- Agreeing on features --- */

static bool take_features(struct vhost_user *front, uint64_t offered)
{
    if ((offered & 1ull << VIRTIO_F_VERSION_1) == 0)
        return vhost_user_fail_for_good(front, "it does not know virtio 1");
    if (front->was_agreed && (front->features & ~offered) != 0)
        return vhost_user_fail_for_good(front, "it came back with fewer features");
    if (!front->was_agreed) {
        front->features = offered & (front->needs.features | 1ull << VIRTIO_F_VERSION_1);
        front->features |= offered & 1ull << VHOST_USER_F_PROTOCOL_FEATURES;
    }
    if ((front->features & 1ull << VHOST_USER_F_PROTOCOL_FEATURES) != 0)
        return vhost_user_ask(front, VHOST_USER_GET_PROTOCOL_FEATURES);
    if (front->needs.config_size > 0)
        return vhost_user_fail_for_good(front, "it keeps no config space (protocol feature CONFIG)");
    return true;
}

/* A channel on which the back end says that its config space has changed. */
static bool open_channel(struct vhost_user *front)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return vhost_user_fail(front, strerror(errno));
    front->channel.fd = ends[0];

    bool said = vhost_user_say(front, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, &ends[1], 1);
    fd_close(&ends[1]);
    struct error *error = said ? event_source_add(front->loop, &front->channel, EPOLLIN) : NULL;
    if (error != NULL)
        vhost_user_fail(front, "its channel cannot be watched");
    error_free(error);
    return front->failure == NULL;
}

static bool ask_config(struct vhost_user *front)
{
    struct vhost_user_config config = {.size = (uint32_t)front->needs.config_size};

    front->config_asked = true;
    return vhost_user_say(front, VHOST_USER_GET_CONFIG, &config,
                          offsetof(struct vhost_user_config, bytes) + front->needs.config_size, NULL, 0);
}

static bool take_protocol_features(struct vhost_user *front, uint64_t offered)
{
    const bool config = front->needs.config_size > 0;
    uint64_t known = 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK | 1ull << VHOST_USER_PROTOCOL_F_MQ;

    if (config)
        known |= 1ull << VHOST_USER_PROTOCOL_F_CONFIG | 1ull << VHOST_USER_PROTOCOL_F_BACKEND_REQ;
    if (front->needs.resumable)
        known |= 1ull << VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD;
    uint64_t agreed = front->was_agreed ? front->agreed_protocol : offered & known;

    if ((agreed & ~offered) != 0)
        return vhost_user_fail_for_good(front, "it came back with fewer features");
    if (config && (agreed & 1ull << VHOST_USER_PROTOCOL_F_CONFIG) == 0)
        return vhost_user_fail_for_good(front, "it keeps no config space (protocol feature CONFIG)");
    if (!vhost_user_say_number(front, VHOST_USER_SET_PROTOCOL_FEATURES, agreed))
        return false;
    front->protocol_features = front->agreed_protocol = agreed;
    if (vhost_user_has(front, VHOST_USER_PROTOCOL_F_MQ) && !vhost_user_ask(front, VHOST_USER_GET_QUEUE_NUM))
        return false;
    if (vhost_user_has(front, VHOST_USER_PROTOCOL_F_BACKEND_REQ) && !open_channel(front))
        return false;
    return !config || ask_config(front);
}

static bool take_config(struct vhost_user *front, const struct vhost_user_message *answer)
{
    const struct vhost_user_config *config = &answer->payload.config;
    const size_t size = front->needs.config_size;

    if (answer->header.size != offsetof(struct vhost_user_config, bytes) + size || config->size != size)
        return vhost_user_fail_for_good(front, "its config space is shorter than the device's");

    front->config_asked = false;
    bool differs = memcmp(front->config, config->bytes, size) != 0;
    memcpy(front->config, config->bytes, size);
    if (!differs || !front->was_agreed)
        return true;
    log_info("%s \"%s\": the back end has changed its config space", front->needs.name, front->needs.id);
    front->owner_ops->config_changed(front->owner);
    return true;
}

/* --- Answers --- */

/* All that was asked has been answered. */
static bool settled(struct vhost_user *front)
{
    if (front->state != VHOST_USER_GREETING)
        return true;
    front->state = VHOST_USER_READY;
    if (!front->was_agreed && front->needs.resumable && !vhost_user_has(front, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))
        log_info("%s \"%s\": the back end keeps no count of requests in flight (protocol feature INFLIGHT_SHMFD): "
                 "should it end with some, the device may stop until the guest reboots",
                 front->needs.name, front->needs.id);
    front->was_agreed = true;
    if (front->awaited)
        log_info("%s \"%s\": the back end at \"%s\" is there again", front->needs.name, front->needs.id,
                 front->needs.path);
    return !front->wanted || vhost_user_rings_run(front);
}

static bool take_number(struct vhost_user *front, enum vhost_user_request request, uint64_t number)
{
    switch (request) {
    case VHOST_USER_GET_FEATURES:
        return take_features(front, number);
    case VHOST_USER_GET_PROTOCOL_FEATURES:
        return take_protocol_features(front, number);
    case VHOST_USER_GET_QUEUE_NUM:
        return number >= front->needs.queue_count ||
               vhost_user_fail_for_good(front, "it has fewer queues than the device");
    default:
        return number == 0 || vhost_user_fail_for_good(front, "it refused what it was told");
    }
}

static bool take_answer(struct vhost_user *front, enum vhost_user_request request,
                        const struct vhost_user_message *answer)
{
    bool taken;

    if (request == VHOST_USER_GET_CONFIG)
        taken = take_config(front, answer);
    else if (request == VHOST_USER_GET_VRING_BASE)
        taken = vhost_user_rings_take_base(front, answer);
    else if (request == VHOST_USER_GET_INFLIGHT_FD)
        taken = vhost_user_rings_take_in_flight(front, answer);
    else if (answer->header.size != sizeof(answer->payload.number))
        taken = vhost_user_fail(front, "it answered what it was not asked");
    else
        taken = take_number(front, request, answer->payload.number);
    if (taken && front->expected_count == 0)
        taken = settled(front);
    return taken;
}

/* After anything that happened on the loop: either the connection is lost, or its answers are due in time. */
static void look_after(struct vhost_user *front)
{
    if (front->failure != NULL) {
        lost(front);
        return;
    }
    if (front->expected_count == 0)
        event_timer_cancel(&front->patience);
    else if (front->patience.loop == NULL)
        event_timer_set(front->loop, &front->patience, clock_monotonic_us() + PATIENCE_US);
}

static void connection_ready(struct event_source *source, uint32_t events)
{
    struct vhost_user *front = container_of(source, struct vhost_user, connection);

    (void)events;
    vhost_user_receive(front, take_answer);
    look_after(front);
}

static void channel_ready(struct event_source *source, uint32_t events)
{
    struct vhost_user *front = container_of(source, struct vhost_user, channel);
    bool changed;

    (void)events;
    if (!vhost_user_listen(front, &changed)) {
        event_source_remove(source);
        fd_close(&source->fd);
        return;
    }
    /* What was asked for a moment ago may already be old; but a back end that says so all the time is asked no faster.
     */
    if (changed && front->state != VHOST_USER_GREETING && !front->config_asked)
        ask_config(front);
    look_after(front);
}

static void out_of_patience(struct event_timer *timer)
{
    struct vhost_user *front = container_of(timer, struct vhost_user, patience);

    vhost_user_fail(front, "it does not answer");
    look_after(front);
}

/* --- Connecting --- */

static bool connect_once(struct vhost_user *front)
{
    struct error *error;
    int fd = unix_socket_connect(front->needs.path, SOCK_STREAM);

    front->failure = NULL;
    front->hopeless = false;
    front->protocol_features = 0;
    if (fd < 0)
        return vhost_user_fail(front, strerror(-fd));
    front->connection.fd = fd;
    error = event_source_add(front->loop, &front->connection, EPOLLIN);
    if (error != NULL)
        vhost_user_fail(front, "its connection cannot be watched");
    error_free(error);
    front->state = VHOST_USER_GREETING;
    return vhost_user_ask(front, VHOST_USER_SET_OWNER) && vhost_user_ask(front, VHOST_USER_GET_FEATURES);
}

static void retry_due(struct event_timer *timer)
{
    struct vhost_user *front = container_of(timer, struct vhost_user, retry);

    if (!connect_once(front) && front->connection.fd < 0)
        retry_later(front, VHOST_USER_RETRY_MS);
    else
        look_after(front);
}

struct error *vhost_user_open(struct vhost_user *front, const struct vhost_user_needs *needs, struct event_loop *loop,
                              const struct vhost_user_owner *owner_ops, void *owner)
{
    uint64_t start = clock_monotonic_us();

    *front = (struct vhost_user){
        .needs = *needs,
        .owner_ops = owner_ops,
        .owner = owner,
        .loop = loop,
        .connection = {.fd = -1, .ready = connection_ready},
        .channel = {.fd = -1, .ready = channel_ready},
        .incoming_fd = -1,
        .in_flight_fd = -1,
        .patience = {.expired = out_of_patience},
        .retry = {.expired = retry_due},
    };
    struct error *error = unix_socket_check_path(needs->path);
    if (error != NULL)
        return error;
    if (!connect_once(front) || !vhost_user_wait(front, take_answer, PATIENCE_US)) {
        disconnect(front);
        COUNTER_INCREMENT(front->needs.metrics->cfg_fails);
        return error_new(ERROR_HOST, "\"%s\": the back end cannot be used: %s", needs->path, front->failure);
    }
    COUNTER_SET(front->needs.metrics->init_time_us, clock_monotonic_us() - start);
    return NULL;
}

/* --- What the device asks for --- */

static void run_or_await(struct vhost_user *front)
{
    front->wanted = true;
    front->awaited = false;
    if (front->state == VHOST_USER_CLOSED && !front->needs.resumable) {
        front->wanted = false;
        front->owner_ops->failed(front->owner, front->failure);
    } else if (front->state == VHOST_USER_READY && !vhost_user_rings_run(front)) {
        /* The owner hears of it from the loop: it may be about to become active. */
        event_timer_set(front->loop, &front->patience, 0);
    } else if (front->state == VHOST_USER_RUNNING || front->state == VHOST_USER_COUNTING) {
        look_after(front);
    } else if (front->state == VHOST_USER_CLOSED) {
        retry_later(front, 0);
    }
}

bool vhost_user_start(struct vhost_user *front, const struct guest_memory *memory, uint64_t driver_features,
                      const struct vhost_user_ring *rings)
{
    const bool shared = memory->shared && (memory->hotplug == NULL || memory->hotplug->shared);

    if (!shared || memory->count >= VHOST_USER_REGIONS_MAX)
        return false;
    front->memory = memory;
    front->driver_features = driver_features;
    memcpy(front->rings, rings, front->needs.queue_count * sizeof(rings[0]));
    front->interrupted = front->again = false;
    fd_close(&front->in_flight_fd);
    run_or_await(front);
    return true;
}

uint64_t vhost_user_patience_left(struct vhost_user_patience *patience, uint64_t now_us)
{
    const uint64_t back_us = (now_us - patience->at_us) / 10;

    patience->spent_us -= back_us < patience->spent_us ? back_us : patience->spent_us;
    patience->at_us = now_us;
    return patience->spent_us > PATIENCE_US - PATIENCE_MIN_US ? PATIENCE_MIN_US : PATIENCE_US - patience->spent_us;
}

void vhost_user_patience_spend(struct vhost_user_patience *patience, uint64_t waited_us)
{
    patience->spent_us += waited_us;
    if (patience->spent_us > PATIENCE_US)
        patience->spent_us = PATIENCE_US;
}

void vhost_user_stop(struct vhost_user *front)
{
    front->wanted = front->awaited = false;
    event_timer_cancel(&front->retry);
    /* Half-way between having no rings and having them: it starts again from the beginning. */
    if (front->state == VHOST_USER_COUNTING)
        disconnect(front);
    if (front->state != VHOST_USER_RUNNING)
        return;
    for (uint32_t i = 0; i < front->needs.queue_count; i++)
        if (front->rings[i].ready)
            vhost_user_say_state(front, VHOST_USER_GET_VRING_BASE, i, 0);

    const uint64_t start = clock_monotonic_us();
    if (!vhost_user_wait(front, take_answer, vhost_user_patience_left(&front->stopping, start))) {
        vhost_user_patience_spend(&front->stopping, clock_monotonic_us() - start);
        lost(front);
        return;
    }
    event_timer_cancel(&front->patience);
    front->state = VHOST_USER_READY;
}

void vhost_user_resume(struct vhost_user *front)
{
    run_or_await(front);
}

void vhost_user_enable(struct vhost_user *front, unsigned index, bool enabled)
{
    if (front->rings[index].enabled == enabled)
        return;
    front->rings[index].enabled = enabled;
    if (front->state != VHOST_USER_RUNNING || !front->rings[index].ready)
        return;
    vhost_user_say_state(front, VHOST_USER_SET_VRING_ENABLE, index, enabled);
    look_after(front);
}

void vhost_user_await(struct vhost_user *front)
{
    front->awaited = true;
    if (front->state == VHOST_USER_CLOSED)
        retry_later(front, VHOST_USER_RETRY_MS);
}

bool vhost_user_is_there(const struct vhost_user *front)
{
    return front->state == VHOST_USER_READY;
}

struct error *vhost_user_config_read(struct vhost_user *front)
{
    uint64_t start = clock_monotonic_us();

    if (front->state < VHOST_USER_READY)
        return error_new(ERROR_HOST, "\"%s\": the back end is not there", front->needs.path);
    ask_config(front);
    if (!vhost_user_wait(front, take_answer, PATIENCE_US)) {
        struct error *error =
            error_new(ERROR_HOST, "\"%s\": the back end is lost: %s", front->needs.path, front->failure);

        COUNTER_INCREMENT(front->needs.metrics->cfg_fails);
        lost(front);
        return error;
    }
    look_after(front);
    COUNTER_SET(front->needs.metrics->config_change_time_us, clock_monotonic_us() - start);
    return NULL;
}

void vhost_user_close(struct vhost_user *front)
{
    event_timer_cancel(&front->retry);
    disconnect(front);
    fd_close(&front->in_flight_fd);
}
