/*
 * The guest's side of `mayfly run --net`: an interface with a fixed address.
 */
#pragma once

#include "failure.h"

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>

/* What mayfly.net=INTERFACE,ADDRESS/BITS[,GATEWAY[,DNS]] asks for. 0.0.0.0: not given. */
struct network {
    char interface[IFNAMSIZ];
    struct in_addr address;
    struct in_addr mask;
    struct in_addr gateway;
    struct in_addr dns;
};

/* Reads the text behind the '='; false when it is not of that form. */
bool network_parse(struct network *network, const char *text);

/*
 * Sets the interface up as `text` asks. Where resolvers are looked for, the one given is then found: a file of ours
 * lies over /etc/resolv.conf, and the image's own stays as it is. `root_is_scratch`: what is written to the root is
 * lost with the guest, so that a missing file can be made.
 */
int network_up(const char *text, bool root_is_scratch, struct failure *failure);
