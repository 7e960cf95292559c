/* The API server in a thread of its own, and callers that speak to it byte by byte. */
#pragma once

#include "tests/unit/harness.h"

#include <linux/sockios.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/server.h"
#include "tests/unit/fake_machine.h"
#include "vmm/base/log.h"

/* A server on its own thread, as a program would run it. */
static struct {
    char directory[64];
    char path[96];
    struct event_loop *loop;
    struct api_server *server;
    pthread_t thread;
} fixture;

static inline void *serve(void *loop)
{
    assert_no_error(event_loop_run(loop));
    return NULL;
}

static inline int setup(void **state)
{
    struct api_options options = {.socket_path = fixture.path};

    (void)state;
    log_set_level(LOG_LEVEL_OFF);
    fake_machine_reset();
    strcpy(fixture.directory, "/tmp/mayfly-http-XXXXXX");
    assert_non_null(mkdtemp(fixture.directory));
    snprintf(fixture.path, sizeof(fixture.path), "%s/api", fixture.directory);
    assert_no_error(event_loop_new(&fixture.loop));
    assert_no_error(api_server_new(fixture.loop, &fake_machine, &options, &fixture.server));
    assert_int_equal(pthread_create(&fixture.thread, NULL, serve, fixture.loop), 0);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    event_loop_lock(fixture.loop);
    event_loop_stop(fixture.loop);
    event_loop_unlock(fixture.loop);
    pthread_join(fixture.thread, NULL);
    api_server_free(fixture.server);
    event_loop_free(fixture.loop);
    assert_int_equal(access(fixture.path, F_OK), -1);
    assert_int_equal(rmdir(fixture.directory), 0);
    fake_machine_reset();
    return 0;
}

static inline int dial_path(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    strcpy(address.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static inline int dial(void)
{
    return dial_path(fixture.path);
}

static inline void say_bytes(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(fd, text, length, MSG_NOSIGNAL);

        assert_true(sent > 0);
        text += sent;
        length -= (size_t)sent;
    }
}

static inline void say(int fd, const char *text)
{
    say_bytes(fd, text, strlen(text));
}

/* Waits until the server has read all that was sent. */
static inline void wait_until_read(int fd)
{
    int left = 1;

    while (left > 0) {
        assert_int_equal(ioctl(fd, SIOCOUTQ, &left), 0);
        sched_yield();
    }
}

struct reply {
    unsigned status;
    bool closes;
    char head[1024];
    char body[8192];
};

/* Byte by byte, so that nothing of the next reply is taken. */
static inline struct reply hear(int fd)
{
    struct reply reply = {0};
    size_t used = 0, length = 0;
    const char *header;

    while (strstr(reply.head, "\r\n\r\n") == NULL) {
        assert_true(used + 1 < sizeof(reply.head));
        assert_int_equal(recv(fd, reply.head + used++, 1, 0), 1);
    }
    assert_int_equal(sscanf(reply.head, "HTTP/1.1 %u ", &reply.status), 1);
    reply.closes = strstr(reply.head, "\r\nConnection: close\r\n") != NULL;
    header = strstr(reply.head, "\r\nContent-Length: ");
    if (header != NULL)
        length = strtoul(header + strlen("\r\nContent-Length: "), NULL, 10);
    assert_true(length < sizeof(reply.body));
    for (used = 0; used < length;) {
        ssize_t received = recv(fd, reply.body + used, length - used, 0);

        assert_true(received > 0);
        used += (size_t)received;
    }
    return reply;
}

static inline void assert_hears(int fd, unsigned status, const char *part)
{
    struct reply reply = hear(fd);

    if (reply.status != status || strstr(reply.body, part) == NULL)
        fail_msg("%s%s, expected %u with \"%s\"", reply.head, reply.body, status, part);
}

static inline void assert_ended(int fd)
{
    char byte;

    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    close(fd);
}

/* What HTTP refuses: 400 with {"error": ...}, then the end. */
static inline void assert_refused(int fd, unsigned status, const char *part)
{
    struct reply reply = hear(fd);

    if (reply.status != status || strncmp(reply.body, "{\"error\":\"", 10) != 0 || strstr(reply.body, part) == NULL)
        fail_msg("%s%s, expected %u with \"%s\"", reply.head, reply.body, status, part);
    assert_true(reply.closes);
    assert_ended(fd);
}

#define BODY "{\"vcpu_count\": 2, \"mem_size_mib\": 256}"
#define PUT_MACHINE "PUT /machine-config HTTP/1.1\r\nHost: localhost\r\n"
#define PUT_RIGHT PUT_MACHINE "Content-Length: 38\r\n\r\n" BODY
#define GET_VERSION "GET /version HTTP/1.1\r\n\r\n"
#define GET_INSTANCE "GET / HTTP/1.1\r\n\r\n"

static inline void assert_still_serves(void)
{
    int fd = dial();

    say(fd, GET_INSTANCE);
    assert_hears(fd, 200, "fake-1");
    close(fd);
}

static inline struct error *start_another(const char *path, struct api_server **server)
{
    struct api_options options = {.socket_path = path, .max_payload = 10, .app_name = "Firecracker"};
    struct error *error;

    event_loop_lock(fixture.loop);
    error = api_server_new(fixture.loop, &fake_machine, &options, server);
    event_loop_unlock(fixture.loop);
    return error;
}

static inline void stop_another(struct api_server *server)
{
    event_loop_lock(fixture.loop);
    api_server_free(server);
    event_loop_unlock(fixture.loop);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
