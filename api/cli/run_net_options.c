#include "api/cli/run_net_options.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/cleanup.h"

/* Where passt has its guest unless told otherwise: as QEMU's user-mode network. */
#define PASST_ADDRESS "10.0.2.15"
#define PASST_GATEWAY "10.0.2.2"
#define PASST_RESOLVER "10.0.2.3"
enum { PASST_BITS = 24 };

static bool parse_number(const char *text, unsigned long maximum, unsigned long *value)
{
    char *end;

    if (!isdigit((unsigned char)*text) || strlen(text) > 5)
        return false;
    *value = strtoul(text, &end, 10);
    return *end == '\0' && *value <= maximum;
}

/* A dotted address, but 0.0.0.0 only where that makes sense. */
static bool parse_address(const char *text, bool any, char address[INET_ADDRSTRLEN])
{
    struct in_addr binary;

    if (inet_pton(AF_INET, text, &binary) != 1 || (binary.s_addr == 0 && !any))
        return false;
    inet_ntop(AF_INET, &binary, address, INET_ADDRSTRLEN);
    return true;
}

/* "ADDRESS/BITS"; changes the text. */
static bool parse_network(char *text, struct run_net_options *net)
{
    char *slash = strchr(text, '/');
    unsigned long bits = 0;

    if (slash == NULL)
        return false;
    *slash++ = '\0';
    if (!parse_address(text, false, net->address) || !parse_number(slash, 32, &bits) || bits == 0)
        return false;
    net->bits = (unsigned)bits;
    return true;
}

static bool take_part(char *text, struct run_net_options *net)
{
    static const char address[] = "address=", gateway[] = "gateway=", dns[] = "dns=";

    if (strncmp(text, address, strlen(address)) == 0)
        return parse_network(text + strlen(address), net);
    if (strncmp(text, gateway, strlen(gateway)) == 0)
        return parse_address(text + strlen(gateway), false, net->gateway);
    if (strncmp(text, dns, strlen(dns)) == 0)
        return net->own_resolver = parse_address(text + strlen(dns), false, net->resolver);
    return strcmp(text, "vhost") == 0 && (net->vhost = true);
}

/* The name is checked by the API; here only that it fits and that it can be told from what follows. */
static bool take_kind(const char *text, struct run_net_options *net)
{
    static const char tap[] = "tap:";

    if (strcmp(text, "passt") == 0)
        return true;
    if (strncmp(text, tap, strlen(tap)) != 0 || text[strlen(tap)] == '\0' ||
        strlen(text + strlen(tap)) >= sizeof(net->tap))
        return false;
    strcpy(net->tap, text + strlen(tap));
    return true;
}

struct error *run_net_options_parse(struct run_net_options *net, const char *text)
{
    cleanup_free char *copy = strdup(text != NULL ? text : "passt");
    char *rest = copy;
    bool right;

    if (copy == NULL)
        abort();
    net->wanted = true;
    net->tap[0] = net->address[0] = net->gateway[0] = net->resolver[0] = '\0';
    net->own_resolver = net->vhost = false;
    right = take_kind(strsep(&rest, ","), net);
    while (right && rest != NULL)
        right = take_part(strsep(&rest, ","), net);
    if (right)
        return NULL;
    return error_new(ERROR_INPUT,
                     "--net \"%s\": expected passt or tap:NAME, and behind it perhaps ,address=A.B.C.D/BITS "
                     ",gateway=A.B.C.D and ,dns=A.B.C.D, and behind a tap ,vhost",
                     text);
}

static bool parse_publish(char *text, struct run_publish *publish)
{
    char *protocol = strchr(text, '/');
    char *guest = strrchr(text, ':');
    unsigned long host_port = 0, guest_port = 0;
    char *host;

    if (protocol != NULL)
        *protocol++ = '\0';
    if (guest == NULL || (protocol != NULL && strcmp(protocol, "udp") != 0 && strcmp(protocol, "tcp") != 0))
        return false;
    *guest++ = '\0';
    host = strrchr(text, ':');
    if (host != NULL)
        *host++ = '\0';
    /* To be open to others has to be asked for. */
    if (!parse_address(host != NULL ? text : "127.0.0.1", true, publish->address) ||
        !parse_number(host != NULL ? host : text, UINT16_MAX, &host_port) || host_port == 0 ||
        !parse_number(guest, UINT16_MAX, &guest_port) || guest_port == 0)
        return false;
    publish->host = (uint16_t)host_port;
    publish->guest = (uint16_t)guest_port;
    publish->udp = protocol != NULL && *protocol == 'u';
    return true;
}

struct error *run_net_options_publish(struct run_net_options *net, const char *text)
{
    cleanup_free char *copy = strdup(text);

    if (copy == NULL)
        abort();
    if (net->publish_count == RUN_PUBLISH_MAX)
        return error_new(ERROR_INPUT, "--publish \"%s\": expected at most %d of them", text, RUN_PUBLISH_MAX);
    if (!parse_publish(copy, &net->publish[net->publish_count]))
        return error_new(ERROR_INPUT,
                         "--publish \"%s\": expected [ADDRESS:]PORT:PORT, the host's and the guest's, and perhaps "
                         "/udp",
                         text);
    /* Debian 12's passt drops them, unless the guest may reach all of the host's loopback interface. */
    if (net->publish[net->publish_count].udp && strncmp(net->publish[net->publish_count].address, "127.", 4) == 0)
        return error_new(ERROR_INPUT,
                         "--publish \"%s\": passt brings no answers back to 127.0.0.1; expected another ADDRESS of "
                         "the host, or 0.0.0.0, for udp",
                         text);
    net->publish_count++;
    return NULL;
}

static bool same_network(const struct run_net_options *net)
{
    struct in_addr address, gateway;

    inet_pton(AF_INET, net->address, &address);
    inet_pton(AF_INET, net->gateway, &gateway);
    return ((ntohl(address.s_addr) ^ ntohl(gateway.s_addr)) & UINT32_MAX << (32 - net->bits)) == 0;
}

struct error *run_net_options_complete(struct run_net_options *net)
{
    bool passt;

    net->wanted = net->wanted || net->publish_count > 0;
    passt = net->wanted && net->tap[0] == '\0';
    if (net->publish_count > 0 && !passt)
        return error_new(ERROR_INPUT, "--publish: a tap has no ports; expected --net=passt");
    if (net->vhost && passt)
        return error_new(ERROR_INPUT, "--net: vhost is for taps, not for passt; expected tap:NAME,vhost");
    if (passt && net->address[0] == '\0' && net->gateway[0] == '\0') {
        strcpy(net->address, PASST_ADDRESS);
        net->bits = PASST_BITS;
        strcpy(net->gateway, PASST_GATEWAY);
        if (!net->own_resolver)
            strcpy(net->resolver, PASST_RESOLVER);
    }
    if (passt && (net->address[0] == '\0' || net->gateway[0] == '\0'))
        return error_new(ERROR_INPUT, "--net: passt's guest has an address and a gateway; expected both or neither");
    if (net->address[0] == '\0' && (net->gateway[0] != '\0' || net->resolver[0] != '\0'))
        return error_new(ERROR_INPUT, "--net: gateway and dns are for a guest whose address is given");
    if (net->gateway[0] != '\0' && !same_network(net))
        return error_new(ERROR_INPUT, "--net: expected a gateway in the network of %s/%u, not %s", net->address,
                         net->bits, net->gateway);
    /* In a network that the caller chose no address is known to be free: names then go to the gateway. */
    if (passt && net->resolver[0] == '\0')
        strcpy(net->resolver, net->gateway);
    return NULL;
}
