/*
 * One connection to the API: bytes in pieces, with a machine behind it that only remembers. The input is pieces of up
 * to 255 bytes, each after its length; a length of 0 lets the server catch up.
 */
#include "tests/fuzz/fuzz.h"

#include "tests/unit/fake_machine.h"

#include "api/http.h"
#include "vmm/base/log.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void drain(int fd)
{
    char reply[4096];

    while (recv(fd, reply, sizeof(reply), MSG_DONTWAIT) > 0)
        ;
}

static void converse(struct event_loop *loop, int fd, struct fuzz_input *input)
{
    while (input->left > 0) {
        uint8_t piece[255];
        size_t length = fuzz_bytes(input, piece, fuzz_u8(input));

        if (length > 0 && send(fd, piece, length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
        if (length == 0) {
            fuzz_settle(loop);
            drain(fd);
        }
    }
    shutdown(fd, SHUT_WR);
    fuzz_settle(loop);
    drain(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    static struct http_host host;
    struct event_loop *loop;
    int fds[2];

    log_set_level(LOG_LEVEL_OFF);
    fake_machine_reset();
    fuzz_no_error(event_loop_new(&loop));
    host = (struct http_host){
        .loop = loop, .context = {.machine = &fake_machine, .app_name = "Mayfly"}, .max_payload = 51200};
    fuzz_require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    fuzz_no_error(http_connection_open(&host, fds[0]));
    converse(loop, fds[1], &input);
    close(fds[1]);
    fuzz_settle(loop);
    fuzz_require(host.connection_count == 0);
    event_loop_free(loop);
    fake_machine_reset();
    return 0;
}
