/* Messages out and answers in, for vhost_user.c. A false means that the connection is of no use any more: `failure`
 * says why. */
#pragma once

#include "vmm/backend/vhost_user.h"

static inline bool vhost_user_has(const struct vhost_user *front, enum vhost_user_protocol_feature feature)
{
    return (front->protocol_features & 1ull << feature) != 0;
}

/* Makes the connection one of no use, and returns false. `for_good`: another attempt would end the same way. */
bool vhost_user_fail(struct vhost_user *front, const char *why);
bool vhost_user_fail_for_good(struct vhost_user *front, const char *why);

/*
 * Sends a request, with descriptors (borrowed) if there are any. When it has an answer, or the back end acknowledges
 * what it is told, that is expected from now on.
 */
bool vhost_user_say(struct vhost_user *front, enum vhost_user_request request, const void *payload, size_t size,
                    const int *fds, size_t fd_count);
bool vhost_user_ask(struct vhost_user *front, enum vhost_user_request request);
bool vhost_user_say_number(struct vhost_user *front, enum vhost_user_request request, uint64_t number);
bool vhost_user_say_state(struct vhost_user *front, enum vhost_user_request request, uint32_t index, uint32_t value);
bool vhost_user_say_fd(struct vhost_user *front, enum vhost_user_request request, uint32_t index, int fd);

/* A descriptor that comes with an answer is front->incoming_fd while `take` runs, which may take it. */

/* Takes what has come; each answer goes to `take`, which may say more. */
typedef bool vhost_user_answer(struct vhost_user *front, enum vhost_user_request request,
                               const struct vhost_user_message *answer);
bool vhost_user_receive(struct vhost_user *front, vhost_user_answer *take);
/* The same until no answer is due any more, or it has taken so long. */
bool vhost_user_wait(struct vhost_user *front, vhost_user_answer *take, uint64_t patience_us);

/* Takes what the back end said on the channel of its own; `changed`: that its config space has changed. */
bool vhost_user_listen(struct vhost_user *front, bool *changed);
