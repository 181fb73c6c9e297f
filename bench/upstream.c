/* The runner's stand-in for bench/gateway.py: as fast as one core allows, so that the proxies are what is measured.
 *
 * upstream CHUNKS: listens on a free port of 127.0.0.1, prints it, answers every request whose body holds
 * "stream":true with CHUNKS chunks, each written on its own and in turn with those of the other streams, and every
 * other request with one small JSON object. Ends when its standard input does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 65536, BUFFER = 16384 };

struct connection {
    char in[BUFFER];
    size_t used;
    int left; /* chunks still to be written */
};

static struct connection *connections[MAX_FD];
static int active[MAX_FD], active_count, chunks;

static const char whole_head[] = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s";
static const char whole_body[] =
    "{\"model\":\"tiny\",\"created_at\":\"2026-01-01T00:00:00.000000000Z\",\"message\":{\"role\":\"assistant\","
    "\"content\":\"Hello! How can I help you today?\"},\"done\":true,\"done_reason\":\"stop\",\"total_duration\":1,"
    "\"prompt_eval_count\":11,\"eval_count\":10}";
static const char stream_head[] =
    "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
static const char line[] =
    "{\"model\":\"tiny\",\"created_at\":\"2026-01-01T00:00:00.000000000Z\",\"message\":{\"role\":\"assistant\","
    "\"content\":\" token\"},\"done\":false}\n";
static char whole[1024], chunk[512], last_chunk[512];
static size_t whole_size, chunk_size, last_size;

static void drop(int fd) {
    close(fd);
    free(connections[fd]);
    connections[fd] = NULL;
}

/* Small writes to loopback only block when the reader has fallen far behind: then the stream just waits its turn. */
static int put(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t done = send(fd, data, size, MSG_NOSIGNAL);
        if (done < 0 && errno == EAGAIN) continue;
        if (done < 0) return -1;
        data += done;
        size -= (size_t)done;
    }
    return 0;
}

static int answer(int fd, struct connection *c, const char *body, size_t length) {
    if (!memmem(body, length, "\"stream\":true", 13)) return put(fd, whole, whole_size);
    c->left = chunks;
    active[active_count++] = fd;
    return put(fd, stream_head, sizeof stream_head - 1);
}

/* Answers what is complete in the buffer; -1 when the connection is to be closed. */
static int requests(int fd, struct connection *c) {
    for (;;) {
        char *end = memmem(c->in, c->used, "\r\n\r\n", 4);
        if (!end || c->left) return 0;
        size_t head = (size_t)(end - c->in) + 4, length = 0;
        *end = 0;
        char *field = strcasestr(c->in, "content-length:");
        if (field) length = strtoul(field + 15, NULL, 10);
        *end = '\r';
        if (c->used < head + length) return 0;
        if (answer(fd, c, c->in + head, length)) return -1;
        c->used -= head + length;
        memmove(c->in, c->in + head + length, c->used);
    }
}

static void readable(int fd) {
    struct connection *c = connections[fd];
    ssize_t size = recv(fd, c->in + c->used, BUFFER - 1 - c->used, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    if (size > 0) c->used += (size_t)size;
    if (size > 0 && c->used < BUFFER - 1 && !requests(fd, c)) return;
    for (int i = 0; i < active_count; i++)
        if (active[i] == fd) active[i] = active[--active_count];
    drop(fd);
}

static void write_one_chunk_each(void) {
    for (int i = 0; i < active_count;) {
        int fd = active[i];
        struct connection *c = connections[fd];
        int final = --c->left == 0;
        int failed = put(fd, final ? last_chunk : chunk, final ? last_size : chunk_size);
        if (!failed && !final) {
            i++;
            continue;
        }
        active[i] = active[--active_count];
        if (failed || requests(fd, c)) drop(fd);
    }
}

int main(int argc, char **argv) {
    chunks = argc > 1 ? atoi(argv[1]) : 64;
    whole_size = (size_t)snprintf(whole, sizeof whole, whole_head, strlen(whole_body), whole_body);
    chunk_size = (size_t)snprintf(chunk, sizeof chunk, "%zx\r\n%s\r\n", strlen(line), line);
    last_size = (size_t)snprintf(last_chunk, sizeof last_chunk, "%s0\r\n\r\n", chunk);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0), on = 1;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = 0;
    epoll_ctl(poll, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
        int count = epoll_wait(poll, events, 256, active_count ? 0 : -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == 0) {
                char byte;
                if (read(0, &byte, 1) <= 0) return 0;
            } else if (fd == listener) {
                int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (client < 0 || client >= MAX_FD) continue;
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                connections[client] = calloc(1, sizeof(struct connection));
                event.data.fd = client;
                epoll_ctl(poll, EPOLL_CTL_ADD, client, &event);
            } else if (connections[fd]) {
                readable(fd);
            }
        }
        write_one_chunk_each();
    }
}
