/* proxy: a TCP proxy. The two ends of a connection share state, so they are one partition; each direction is a child.

   cc -O2 -I. examples/proxy.c -o build/examples/proxy -pthread

   A direction that ends is shut down while the other one goes on; an end that breaks off breaks the other end off, too,
   so that half a transfer is never taken for a whole. Who reads slowly slows down the sender, and nobody else.
   Try: build/examples/proxy --port 7003 localhost 80, and in another terminal: curl http://localhost:7003/ */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

#include <netdb.h>
#include <netinet/tcp.h>

struct half { /* one direction */
    ol_child child;
    struct link *link;
    ol_fd from, to;
    int64_t n;
    char buf[32768];
};

struct link { /* one for each client */
    ol_co co;
    ol_fd end[2]; /* the client, the target */
    int64_t result;
    int broken;
    struct half half[2];
};

static struct {
    ol_loop *loop;
    ol_fd listener;
    ol_co acceptor;
    ol_post_node stop;
    int64_t accepted, reported; /* an ol_fd or a negative errno; the last errno that was printed */
    struct addrinfo *target;
    unsigned long long links, bytes;
} proxy;

static void copy(ol_co *co) { /* it reads no more than it has sent: that is the back-pressure */
    struct half *h = OL_SELF(co, struct half, child.co);
    OL_BEGIN(co);
    for (;;) {
        OL_AWAIT(h->n, ol_read(co, h->from, h->buf, sizeof h->buf));
        if (h->n <= 0) break;
        OL_AWAIT(h->n, ol_write(co, h->to, h->buf, (size_t)h->n));
        if (h->n < 0) break;
        proxy.bytes += (uint64_t)h->n;
    }
    if (h->n == 0) { /* this direction has ended */
        shutdown(ol_fd_raw(co->loop, h->to), SHUT_WR);
    } else {
        h->link->broken = 1;
        ol_cancel(&h->link->co); /* and with it the other direction */
    }
    OL_END(co);
}

static void end(struct link *l) { /* nothing of it runs any more */
    const struct linger reset = {1, 0};
    for (int i = 0; i < 2; i++) {
        if (l->broken) setsockopt(ol_fd_raw(proxy.loop, l->end[i]), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        ol_close(proxy.loop, l->end[i]);
    }
    free(l);
}

static void connect_both(ol_co *co) {
    struct link *l = OL_SELF(co, struct link, co);
    const int one = 1;
    OL_BEGIN(co);
    l->result = ol_socket(co, proxy.target->ai_family, SOCK_STREAM, 0, &l->end[1]); /* in the client's partition */
    if (l->result != 0) fprintf(stderr, "proxy: a client was turned away: %s\n", ol_error());
    if (l->result == 0) {
        (void)ol_deadline(co, (int64_t)10 * 1000000000);
        OL_AWAIT(l->result, ol_connect(co, l->end[1], proxy.target->ai_addr, proxy.target->ai_addrlen));
        if (l->result < 0 && !ol_canceled(co)) fprintf(stderr, "proxy: cannot reach the target: %s\n", ol_co_error(co));
        (void)ol_deadline(co, OL_NEVER);
    }
    l->broken = l->result != 0;
    for (int i = 0; i < 2 && !l->broken; i++) {
        struct half *h = &l->half[i];
        h->link = l, h->from = l->end[i], h->to = l->end[1 - i];
        setsockopt(ol_fd_raw(co->loop, h->from), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        ol_fork(co, &h->child, copy);
    }
    OL_END_THEN(co, end(l)); /* when both directions have ended */
}

static void acceptor(ol_co *co) {
    struct link *l;
    OL_BEGIN(co);
    for (;;) {
        OL_AWAIT(proxy.accepted, ol_accept(co, proxy.listener));
        if (proxy.accepted == -ECANCELED) break;
        if (proxy.accepted >= 0) {
            l = (struct link *)malloc(sizeof *l);
            if (l) l->end[0] = (ol_fd)proxy.accepted, l->end[1] = 0;
            if (l && ol_spawn(proxy.loop, &l->co, connect_both, l->end[0], 0) == 0) {
                proxy.links++;
            } else {
                ol_close(proxy.loop, (ol_fd)proxy.accepted);
                free(l);
            }
        } else if (proxy.accepted != proxy.reported) { /* one client's error, or no free fd: it came after a pause */
            fprintf(stderr, "proxy: accept: %s\n", ol_co_error(co));
            proxy.reported = proxy.accepted;
        }
    }
    OL_END(co);
}

static void stop(ol_loop *loop, ol_post_node *node) { (void)node, ol_loop_stop(loop); }
static void on_signal(int number) { (void)number, (void)ol_post(proxy.loop, &proxy.stop); }
static int fail(const char *what, const char *why) { return fprintf(stderr, "proxy: %s: %s\n", what, why), 1; }
static const char usage[] = "usage: proxy [--port N] HOST PORT\n\n"
                            "Listens on 127.0.0.1 and connects each client to PORT of HOST, until SIGTERM or ^C.\n"
                            "  --port N   0 to 65535; 0, the default, picks a free one and prints it\n";

int main(int argc, char **argv) {
    static struct sockaddr_in a;
    static struct addrinfo hints;
    socklen_t len = sizeof a;
    char *rest = NULL;
    const long port = argc == 5 && strcmp(argv[1], "--port") == 0 ? strtol(argv[2], &rest, 10) : 0;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) return fputs(usage, stdout) < 0;
    if (argc != 3 && (!rest || rest == argv[2] || *rest || port < 0 || port > 65535)) return fputs(usage, stderr), 2;
    hints.ai_socktype = SOCK_STREAM;
    const int r = getaddrinfo(argv[argc - 2], argv[argc - 1], &hints, &proxy.target);
    if (r != 0) return fail("cannot resolve HOST and PORT", gai_strerror(r));
    a.sin_family = AF_INET, a.sin_port = htons((uint16_t)port), a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (ol_loop_create(&proxy.loop, NULL)) return fail("cannot create a loop", ol_error());
    if (ol_listen(proxy.loop, (struct sockaddr *)&a, len, 512, 0, 0, &proxy.listener) ||
        ol_spawn(proxy.loop, &proxy.acceptor, acceptor, proxy.listener, 0))
        return fail("cannot listen", ol_error());
    proxy.stop.fn = stop, signal(SIGTERM, on_signal), signal(SIGINT, on_signal);
    getsockname(ol_fd_raw(proxy.loop, proxy.listener), (struct sockaddr *)&a, &len);
    printf("listening on 127.0.0.1:%d\n", ntohs(a.sin_port)), fflush(stdout);
    if (ol_loop_run(proxy.loop) != 0) return fail("the loop failed", ol_error());
    if (ol_loop_drain(proxy.loop, 1000000000) != 0) return fail("some clients did not end", ol_error());
    ol_close(proxy.loop, proxy.listener);
    if (ol_loop_destroy(proxy.loop) != 0) return fail("cannot free the loop", ol_error());
    freeaddrinfo(proxy.target);
    printf("%llu clients, %llu bytes\n", proxy.links, proxy.bytes);
    return 0;
}
