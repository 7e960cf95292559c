/*
 * What a Linux guest does for the bench, and the host's end of it. Each workload says "begin NAME", rests, works, says
 * "end NAME NANOSECONDS", and rests again, so that whoever listens can count at either line.
 *
 *   load nothing NAME
 *   load disk NAME FILE read|write SIZE DEPTH COUNT [random]   COUNT requests of SIZE bytes, DEPTH at a time
 *   load send NAME ADDRESS BYTES      a TCP stream to `load serve`
 *   load receive NAME ADDRESS BYTES   one from it
 *   load ask NAME ADDRESS COUNT       a byte there and back, COUNT times
 *   load serve                        the other end, on the host: port 1000
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 1000, CHUNK = 65536, DEPTH_MAX = 32, REST_US = 200000, STACK = 65536 };

struct order {
    char what; /* 's'end, 'r'eceive or 'a'sk, as the guest says it */
    uint64_t amount;
} __attribute__((packed));

static char bytes[CHUNK];

static void must(bool condition, const char *what)
{
    if (condition)
        return;
    printf("load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t begin(const char *name)
{
    printf("begin %s\n", name);
    fflush(stdout);
    usleep(REST_US);
    return now_ns();
}

static void end(const char *name, uint64_t began)
{
    uint64_t took = now_ns() - began;

    printf("end %s %llu\n", name, (unsigned long long)took);
    fflush(stdout);
    usleep(REST_US);
}

/* Streams. */

static void send_all(int fd, uint64_t amount)
{
    while (amount > 0) {
        ssize_t sent = send(fd, bytes, amount < CHUNK ? (size_t)amount : CHUNK, MSG_NOSIGNAL);

        must(sent > 0, "send");
        amount -= (uint64_t)sent;
    }
}

static void receive_all(int fd, uint64_t amount)
{
    while (amount > 0) {
        ssize_t got = recv(fd, bytes, amount < CHUNK ? (size_t)amount : CHUNK, 0);

        must(got > 0, "recv");
        amount -= (uint64_t)got;
    }
}

static void be_prompt(int fd)
{
    const int yes = 1;

    must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)) == 0, "TCP_NODELAY");
}

/* The guest's side: the connection is made before the beginning. */
static void stream(char what, const char *name, const char *host, uint64_t amount)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    const struct order order = {what, amount};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    must(inet_pton(AF_INET, host, &address.sin_addr) == 1, "address");
    must(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0, "connect");
    be_prompt(fd);
    uint64_t began = begin(name);
    must(send(fd, &order, sizeof(order), 0) == sizeof(order), "order");
    if (what == 's') {
        send_all(fd, amount);
        receive_all(fd, 1);
    } else if (what == 'r') {
        receive_all(fd, amount);
    } else {
        for (uint64_t i = 0; i < amount; i++) {
            send_all(fd, 1);
            receive_all(fd, 1);
        }
    }
    end(name, began);
    close(fd);
}

static void serve_one(int fd)
{
    struct order order;

    be_prompt(fd);
    must(recv(fd, &order, sizeof(order), MSG_WAITALL) == sizeof(order), "order");
    if (order.what == 's') {
        receive_all(fd, order.amount);
        send_all(fd, 1);
    } else if (order.what == 'r') {
        send_all(fd, order.amount);
    } else {
        for (uint64_t i = 0; i < order.amount; i++) {
            receive_all(fd, 1);
            send_all(fd, 1);
        }
    }
    close(fd);
}

static void serve(void)
{
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    const int yes = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    must(bind(listener, (const struct sockaddr *)&address, sizeof(address)) == 0, "bind");
    must(listen(listener, 16) == 0, "listen");
    printf("ready\n");
    fflush(stdout);
    for (;;)
        serve_one(accept(listener, NULL, NULL));
}

/* The disk: a thread for each request in flight. */

static struct {
    int fd;
    bool write, random;
    size_t size;
    uint64_t units, count, next, seed;
    pthread_mutex_t lock;
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Where the next request goes; false when all are under way. */
static bool take(off_t *offset)
{
    bool more;

    pthread_mutex_lock(&disk.lock);
    more = disk.next < disk.count;
    disk.seed = disk.random ? disk.seed * 6364136223846793005ull + 1442695040888963407ull : disk.next;
    *offset = (off_t)((disk.random ? disk.seed >> 33 : disk.seed) % disk.units * disk.size);
    disk.next++;
    pthread_mutex_unlock(&disk.lock);
    return more;
}

static void *work(void *buffer)
{
    off_t offset;

    while (take(&offset)) {
        ssize_t done =
            disk.write ? pwrite(disk.fd, buffer, disk.size, offset) : pread(disk.fd, buffer, disk.size, offset);

        must(done == (ssize_t)disk.size, "disk");
    }
    return NULL;
}

static void load_disk(const char *name, const char *path, unsigned depth)
{
    pthread_t threads[DEPTH_MAX];
    void *buffers[DEPTH_MAX];
    pthread_attr_t small;

    must(depth >= 1 && depth <= DEPTH_MAX, "depth");
    disk.fd = open(path, O_RDWR | O_DIRECT);
    must(disk.fd >= 0, path);
    disk.units = (uint64_t)lseek(disk.fd, 0, SEEK_END) / disk.size;
    for (unsigned i = 0; i < depth; i++) {
        must(posix_memalign(&buffers[i], 4096, disk.size) == 0, "memory");
        memset(buffers[i], 1, disk.size);
    }
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK);
    uint64_t began = begin(name);
    for (unsigned i = 1; i < depth; i++)
        must(pthread_create(&threads[i], &small, work, buffers[i]) == 0, "thread");
    work(buffers[0]);
    for (unsigned i = 1; i < depth; i++)
        pthread_join(threads[i], NULL);
    end(name, began);
}

static uint64_t number(const char *word)
{
    return strtoull(word, NULL, 10);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "serve") == 0)
        serve();
    else if (argc == 3 && strcmp(argv[1], "nothing") == 0)
        end(argv[2], begin(argv[2]));
    else if (argc >= 8 && strcmp(argv[1], "disk") == 0) {
        disk.write = strcmp(argv[4], "write") == 0;
        disk.size = number(argv[5]);
        disk.count = number(argv[7]);
        disk.random = argc > 8;
        load_disk(argv[2], argv[3], (unsigned)number(argv[6]));
    } else if (argc == 5 && strchr("sra", argv[1][0]) != NULL)
        stream(argv[1][0], argv[2], argv[3], number(argv[4]));
    else
        return 2;
    return 0;
}
