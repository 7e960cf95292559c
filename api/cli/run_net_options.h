/* --net and --publish of `mayfly run`. */
#pragma once

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/error.h"

enum { RUN_PUBLISH_MAX = 16 };

/* --publish [ADDRESS:]HOST:GUEST[/udp] */
struct run_publish {
    char address[INET_ADDRSTRLEN]; /* of the host's, where it listens */
    uint16_t host;
    uint16_t guest;
    bool udp;
};

struct run_net_options {
    bool wanted;
    char tap[IFNAMSIZ];             /* "": user-mode network, by passt */
    bool vhost;                     /* the host's kernel moves the tap's frames */
    char address[INET_ADDRSTRLEN];  /* the guest's; "": the guest configures itself */
    unsigned bits;                  /* of its network */
    char gateway[INET_ADDRSTRLEN];  /* "": none */
    char resolver[INET_ADDRSTRLEN]; /* the guest's name server; "": none */
    bool own_resolver;              /* it is somebody: passt does not stand in for it */
    struct run_publish publish[RUN_PUBLISH_MAX];
    size_t publish_count;
};

/* --net: `text` is NULL or "passt[,...]" or "tap:NAME[,...]", where what follows is address=, gateway=, dns=, vhost. */
struct error *run_net_options_parse(struct run_net_options *net, const char *text);

/* --publish. Without --net before or behind, it asks for a user-mode network. */
struct error *run_net_options_publish(struct run_net_options *net, const char *text);

/* What can only be told when all options are known; fills in what passt has by default. */
struct error *run_net_options_complete(struct run_net_options *net);
