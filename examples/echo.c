/* echo: the program of offload.h's manual, made whole. Sends back what each of its clients sends.

   cc -O2 -I. examples/echo.c -o build/examples/echo -pthread

   Try: build/examples/echo --port 7000, and in another terminal: nc 127.0.0.1 7000 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct conn { /* one for each client */
    ol_co co;
    ol_fd fd;
    int64_t n;
    char buf[4096];
};

static struct {
    ol_loop *loop;
    ol_fd listener;
    ol_co acceptor;
    int64_t accepted, reported; /* an ol_fd or a negative errno; the last errno that was printed */
    ol_post_node stop;
    uint64_t clients, bytes;
} server;

static void echo(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, co);
    OL_BEGIN(co);
    for (;;) {
        OL_AWAIT(c->n, ol_read(co, c->fd, c->buf, sizeof c->buf));
        if (c->n <= 0) break;
        OL_AWAIT(c->n, ol_write(co, c->fd, c->buf, (size_t)c->n));
        if (c->n < 0) break;
        server.bytes += (uint64_t)c->n;
    }
    ol_close(co->loop, c->fd);
    OL_END_THEN(co, free(c));
}

static void start(ol_fd fd) {
    struct conn *c = (struct conn *)malloc(sizeof *c);
    if (c) c->fd = fd;
    if (c && ol_spawn(server.loop, &c->co, echo, fd, 0) == 0) {
        server.clients++;
        return;
    }
    fprintf(stderr, "echo: a client was turned away: out of memory\n");
    ol_close(server.loop, fd);
    free(c);
}

static void acceptor(ol_co *co) {
    OL_BEGIN(co);
    for (;;) {
        OL_AWAIT(server.accepted, ol_accept(co, server.listener));
        if (server.accepted == -ECANCELED || server.accepted == -EBADF) break;
        if (server.accepted >= 0) {
            start((ol_fd)server.accepted);
        } else if (server.accepted != server.reported) { /* one client's error, or no free fd: it came after a pause */
            fprintf(stderr, "echo: accept: %s\n", ol_co_error(co));
            server.reported = server.accepted;
        }
    }
    OL_END(co);
}

static void stop(ol_loop *loop, ol_post_node *node) {
    (void)node;
    ol_loop_stop(loop);
}

static void on_signal(int number) { /* ol_post is one of the few calls that a signal handler may make */
    const int saved = errno;
    (void)number;
    ol_post(server.loop, &server.stop);
    errno = saved;
}

static int fail(const char *what) {
    fprintf(stderr, "echo: %s: %s\n", what, ol_error());
    return 1;
}

static int listen_on(int port) {
    struct sockaddr_in addr;
    socklen_t len = sizeof addr;
    memset(&addr, 0, sizeof addr);
    addr.sin_family = AF_INET;
    addr.sin_port = htons((uint16_t)port);
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (ol_listen(server.loop, (const struct sockaddr *)&addr, len, 512, 0, 0, &server.listener) != 0) return -1;
    getsockname(ol_fd_raw(server.loop, server.listener), (struct sockaddr *)&addr, &len);
    printf("listening on 127.0.0.1:%d\n", ntohs(addr.sin_port));
    fflush(stdout);
    return 0;
}

static int port_of(int argc, char **argv) { /* -1: the program is to end */
    char *end = NULL;
    long port = 0;
    if (argc == 1) return 0;
    if (argc == 3 && strcmp(argv[1], "--port") == 0) port = strtol(argv[2], &end, 10);
    if (end && end != argv[2] && *end == 0 && port >= 0 && port <= 65535) return (int)port;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        puts("usage: echo [--port N]\n\nListens on 127.0.0.1 and sends back what it receives, until SIGTERM or ^C.\n"
             "  --port N   0 to 65535; 0, the default, picks a free one and prints it");
        exit(0);
    }
    fprintf(stderr, "usage: echo [--port N]   with N from 0 to 65535; see --help\n");
    return -1;
}

int main(int argc, char **argv) {
    const int port = port_of(argc, argv);
    if (port < 0) return 2;
    if (ol_loop_create(&server.loop, NULL) != 0) return fail("cannot create a loop");
    server.stop.fn = stop;
    signal(SIGTERM, on_signal); /* before anybody is told the port */
    signal(SIGINT, on_signal);
    if (listen_on(port) != 0) return fail("cannot listen");
    if (ol_spawn(server.loop, &server.acceptor, acceptor, server.listener, 0) != 0) return fail("cannot start");

    if (ol_loop_run(server.loop) != 0) return fail("the loop failed");

    signal(SIGTERM, SIG_DFL); /* a second one ends it at once */
    signal(SIGINT, SIG_DFL);
    if (ol_loop_drain(server.loop, 1000000000) != 0) return fail("some clients did not end");
    ol_close(server.loop, server.listener);
    if (ol_loop_destroy(server.loop) != 0) return fail("cannot free the loop");
    printf("%llu clients, %llu bytes echoed\n", (unsigned long long)server.clients, (unsigned long long)server.bytes);
    return 0;
}
