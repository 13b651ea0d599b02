/* guest: offload.h inside a server that has a loop of its own, here libevent's. It answers what a client has sent, once
   that has ended, with its CRC-32 and length.

   cc -O2 -I. examples/guest.c -o build/examples/guest -levent_core -pthread

   libevent (Debian: libevent-dev) polls and accepts as ever. What is new: its loop watches ol_loop_fd; sums are
   operations; each event of a client passes the gate, which withholds it while an operation of that client is out.
   Try: build/examples/guest --port 7002, and in another terminal: nc -N 127.0.0.1 7002 <FILE */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

#include <event2/event.h>
#include <event2/listener.h>

static const char policy[] = "crc32 any 0-16383 software - -\ncrc32 any 16K- async threads wait\n";

struct conn {                  /* one for each client */
    struct conn *next, **link; /* list of all, and what points to this one in it */
    struct event *event;
    ol_fd fd;
    ol_handler handler;
    ol_op op;
    unsigned long long total;
    uint32_t crc;
    int eof, busy, closed; /* all has come; the operation is out; end was called */
    size_t in;             /* bytes in buf */
    char buf[1 << 18];
};

static struct {
    struct event_base *base;
    struct evconnlistener *listener;
    ol_loop *loop;
    ol_timer rest;
    struct conn *conns;
    unsigned long long sums;
} server;

static void end(struct conn *c) { /* while its operation is out it belongs to the library, and `done` ends it */
    if (!c->closed) {
        event_free(c->event); /* before its fd is closed */
        ol_close(server.loop, c->fd);
        *c->link = c->next;
        if (c->next) c->next->link = c->link;
    }
    c->closed = 1;
    if (!c->busy) free(c);
}

static void done(ol_loop *loop, ol_op *op) { /* called by ol_loop_step; the client is held until it returns */
    struct conn *c = OL_CONTAINER(op, struct conn, op);
    char answer[64]; /* there is room for it: nothing was sent before */
    c->crc = (uint32_t)op->result, c->total += op->len, c->in = 0, c->busy = 0;
    const int n = snprintf(answer, sizeof answer, "%08x %llu\n", c->crc, c->total);
    if (c->eof && !c->closed) server.sums += send(ol_fd_raw(loop, c->fd), answer, (size_t)n, MSG_NOSIGNAL) == n;
    if (c->eof || c->closed) end(c);
}

static void serve(struct conn *c) { /* it can be read */
    const ssize_t n = recv(ol_fd_raw(server.loop, c->fd), c->buf + c->in, sizeof c->buf - c->in, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n > 0) c->in += (size_t)n;
    if (n > 0 && c->in < sizeof c->buf) return; /* more at a time costs less */
    c->eof = n == 0;
    c->busy = n >= 0 && ol_submit(server.loop, ol_prep_crc32(&c->op, c->crc, c->buf, c->in), done) == 0;
    if (!c->busy) end(c);
}

static void on_event(evutil_socket_t fd, short what, void *arg) { /* libevent calls it */
    struct conn *c = (struct conn *)arg;
    (void)fd, (void)what;
    if (ol_gate_enter(server.loop, c->fd, OL_READABLE) == 1) serve(c), ol_gate_leave(server.loop);
    else event_del(c->event); /* withheld: not to be polled until on_release is called */
}

static void on_release(ol_loop *loop, ol_handler *handler, int ready) { /* ol_loop_step calls it */
    struct conn *c = OL_CONTAINER(handler, struct conn, handler);
    (void)loop, (void)ready;
    event_add(c->event, NULL);
    serve(c);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *addr, int len, void *arg) {
    struct conn *c = (struct conn *)calloc(1, sizeof *c);
    (void)l, (void)addr, (void)len, (void)arg;
    if (c) c->event = event_new(server.base, fd, EV_READ | EV_PERSIST, on_event, c);
    if (!c || !c->event || ol_attach_guest(server.loop, fd, 0, &c->fd) != 0) {
        fprintf(stderr, "guest: a client was turned away: out of memory\n");
        if (c && c->event) event_free(c->event);
        free(c), close(fd);
        return;
    }
    c->next = server.conns, c->link = &server.conns;
    if (c->next) c->next->link = &c->next;
    server.conns = c;
    ol_watch(server.loop, c->fd, &c->handler, OL_READABLE, on_release);
    if (event_add(c->event, NULL) != 0) end(c);
}

static void rested(ol_loop *loop, ol_timer *timer) { (void)loop, (void)timer, evconnlistener_enable(server.listener); }
static void on_accept_error(struct evconnlistener *listener, void *arg) { /* no free fd: or it would spin */
    fprintf(stderr, "guest: accept: %s\n", strerror(errno));
    (void)arg, evconnlistener_disable(listener);
    ol_timer_start(server.loop, &server.rest, 100000000, rested);
}
static void on_loop(evutil_socket_t s, short w, void *a) { (void)s, (void)w, (void)a, ol_loop_step(server.loop, 0); }
static void quit(evutil_socket_t s, short w, void *a) { (void)s, (void)w, (void)a, event_base_loopbreak(server.base); }
static int fail(const char *what, const char *why) { return fprintf(stderr, "guest: %s: %s\n", what, why), 1; }

static const char usage[] =
    "usage: guest [--port N]\n\nListens on 127.0.0.1 and answers what a client has sent, once that\n"
    "has ended, with its CRC-32 and length, until SIGTERM or ^C.\n"
    "  --port N   0 to 65535; 0, the default, picks a free one and prints it\n";

int main(int argc, char **argv) {
    static struct sockaddr_in a;
    static ol_loop_desc desc;
    struct event *event[3];
    socklen_t len = sizeof a;
    char *rest = NULL;
    const long port = argc == 3 && strcmp(argv[1], "--port") == 0 ? strtol(argv[2], &rest, 10) : 0;
    const unsigned how = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) return fputs(usage, stdout) < 0;
    if (argc != 1 && (!rest || rest == argv[2] || *rest || port < 0 || port > 65535)) return fputs(usage, stderr), 2;
    desc.policy = policy;
    a.sin_family = AF_INET, a.sin_port = htons((uint16_t)port), a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (ol_loop_create(&server.loop, &desc) != 0) return fail("cannot create a loop", ol_error());
    if (!(server.base = event_base_new())) return fail("cannot create libevent's loop", strerror(errno));
    server.listener = evconnlistener_new_bind(server.base, on_accept, NULL, how, 512, (struct sockaddr *)&a, (int)len);
    if (!server.listener) return fail("cannot listen", strerror(errno));
    evconnlistener_set_error_cb(server.listener, on_accept_error);
    event[0] = event_new(server.base, ol_loop_fd(server.loop), EV_READ | EV_PERSIST, on_loop, NULL);
    event[1] = evsignal_new(server.base, SIGTERM, quit, NULL);
    event[2] = evsignal_new(server.base, SIGINT, quit, NULL);
    for (int i = 0; i < 3; i++) event_add(event[i], NULL);
    getsockname(evconnlistener_get_fd(server.listener), (struct sockaddr *)&a, &len);
    printf("listening on 127.0.0.1:%d\n", ntohs(a.sin_port)), fflush(stdout);
    if (event_base_dispatch(server.base)) return fail("libevent's loop failed", strerror(errno));
    while (server.conns) end(server.conns);
    for (int i = 0; i < 3; i++) event_free(event[i]);
    evconnlistener_free(server.listener);
    event_base_free(server.base);
    if (ol_loop_destroy(server.loop) != 0) return fail("cannot free the loop", ol_error()); /* waits for what is out */
    printf("%llu sums\n", server.sums);
    return 0;
}
