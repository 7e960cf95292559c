/* The back end's rings, for vhost_user.c. A false means that the connection is of no use any more. */
#pragma once

#include "vmm/backend/vhost_user.h"

/* Hands over memory and rings; in two steps when the back end counts requests in flight, see take_in_flight. */
bool vhost_user_rings_run(struct vhost_user *front);

/* Answers to GET_INFLIGHT_FD and GET_VRING_BASE. */
bool vhost_user_rings_take_in_flight(struct vhost_user *front, const struct vhost_user_message *answer);
bool vhost_user_rings_take_base(struct vhost_user *front, const struct vhost_user_message *answer);

/* The connection is gone under running rings. */
void vhost_user_rings_lost(struct vhost_user *front);
