/* run_io.c: sockets, pipes and other fds. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include "checks.h"

static ol_loop *loop_alone(void) {
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.no_pool = 1;
    return loop_new(&d);
}

/* The byte at a place of every stream. */
static unsigned char byte_at(size_t i) { return (unsigned char)(i * 7 + i / 251); }
static void fill(unsigned char *to, size_t from, size_t n) {
    for (size_t i = 0; i < n; i++) to[i] = byte_at(from + i);
}
static int same(const unsigned char *got, size_t from, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (got[i] != byte_at(from + i)) return 0;
    return 1;
}

/* Attaches an fd of ours, or closes it. */
static ol_fd attach_or_close(ol_loop *loop, int fd, int cls) {
    ol_fd handle = 0;
    if (API(ol_attach(loop, fd, cls, &handle)) == 0) return handle;
    close(fd);
    return 0;
}

/* ---- echo: a listener, connections and clients, all coroutines of one loop */

enum { CLIENTS = 2, SERVERS = 8, MESSAGE = 900, MESSAGES = 2 };
struct echo;
struct server {
    ol_co co;
    struct echo *echo;
    ol_fd fd;
    int64_t n;
    int used;
    unsigned char buf[2][MESSAGE / 2];
    struct iovec iov[2];
    ol_handler handler;
    job sum;            /* an operation over what was read, before it is answered */
    size_t from, until; /* of buf, to be written */
};
struct client {
    ol_co co;
    struct echo *echo;
    ol_fd fd;
    int64_t r;
    size_t got;
    int messages, alive;
    unsigned char out[MESSAGE], in[MESSAGE];
    struct iovec iov[3];
};
struct echo {
    ol_loop *loop;
    ol_co acceptor;
    ol_fd listener;
    struct sockaddr_storage addr;
    socklen_t len;
    int64_t conn;
    int vectored, handlers, tight, accepting, failures, clients_left, answered;
    ol_handler door; /* of the listener, where handlers serve */
    struct server server[SERVERS];
    struct client client[CLIENTS];
};

static int echo_read(struct server *s, ol_co *co) {
    s->iov[0].iov_base = s->buf[0], s->iov[1].iov_base = s->buf[1];
    s->iov[0].iov_len = s->iov[1].iov_len = sizeof s->buf[0];
    return s->echo->vectored ? ol_readv(co, s->fd, s->iov, 2) : ol_read(co, s->fd, s->buf, sizeof s->buf);
}
static void echo_serve(ol_co *co) {
    struct server *s = OL_SELF(co, struct server, co);
    OL_BEGIN(co);
    for (;;) {
        OL_AWAIT(s->n, echo_read(s, co));
        if (RESULT(co, s->n) <= 0) break;
        s->iov[0].iov_base = s->buf, s->iov[0].iov_len = (size_t)s->n;
        if (s->echo->vectored) OL_AWAIT(s->n, ol_writev(co, s->fd, s->iov, 1));
        else OL_AWAIT(s->n, ol_write(co, s->fd, s->buf, (size_t)s->n));
        if (RESULT(co, s->n) < 0) break;
    }
    CHECK(ol_close(co->loop, s->fd) == 0);
    OL_END_THEN(co, s->used = 0);
}

static void echo_accept(ol_co *co) {
    struct echo *e = OL_CONTAINER(co->top, struct echo, acceptor.frame);
    struct server *s;
    OL_BEGIN(co);
    while (e->failures < 3) {
        OL_AWAIT(e->conn, ol_accept(co, e->listener));
        if (RESULT_OR(co, e->conn, ECANCELED) < 0) {
            if (ol_canceled(co)) break;
            e->failures++;
            continue;
        }
        for (s = e->server; s->used; s++) CHECK(s + 1 < e->server + SERVERS);
        s->used = 1;
        s->echo = e;
        s->fd = (ol_fd)e->conn;
        if (API(ol_spawn(co->loop, &s->co, echo_serve, s->fd, 0)) < 0) {
            CHECK(ol_close(co->loop, s->fd) == 0);
            s->used = 0;
        }
    }
    CHECK(ol_close(co->loop, e->listener) == 0);
    e->accepting = 0;
    OL_END(co);
}

/* The same by handlers. */
static void echo_stop(ol_loop *loop, struct server *s) {
    CHECK(ol_close(loop, s->fd) == 0); /* the handler goes with it */
    s->used = 0;
}
static void echo_handle(ol_loop *loop, ol_handler *h, int ready);
static void echo_answer(ol_loop *loop, struct server *s) {
    int events = OL_READABLE;
    while (s->from < s->until) {
        const unsigned char *from = s->buf[0] + s->from;
        struct iovec iov = {(void *)(uintptr_t)from, s->until - s->from};
        const int64_t k = s->echo->vectored ? API_OR(ol_try_writev(loop, s->fd, &iov, 1), EAGAIN)
                                            : API_OR(ol_try_write(loop, s->fd, from, s->until - s->from), EAGAIN);
        if (k == -EAGAIN) {
            events = OL_WRITABLE;
            break;
        }
        if (k < 0) {
            echo_stop(loop, s);
            return;
        }
        s->from += (size_t)k;
    }
    CHECK(API(ol_watch(loop, s->fd, &s->handler, events, echo_handle)) == 0);
}
static void echo_summed(ol_loop *loop, ol_op *op) {
    struct server *s = OL_CONTAINER(op, struct server, sum.op);
    job_done(loop, op);
    OP_RESULT(op);
    echo_answer(loop, s);
}
static void echo_handle(ol_loop *loop, ol_handler *h, int ready) {
    struct server *s = OL_CONTAINER(h, struct server, handler);
    struct iovec iov = {s->buf, sizeof s->buf};
    CHECK(s->used && ready && !(s->sum.accepted && !s->sum.completed));
    if (s->from < s->until) {
        echo_answer(loop, s);
        return;
    }
    const int64_t k = s->echo->vectored ? API_OR(ol_try_readv(loop, s->fd, &iov, 1), EAGAIN)
                                        : API_OR(ol_try_read(loop, s->fd, s->buf, sizeof s->buf), EAGAIN);
    if (k == -EAGAIN) return;
    if (k <= 0) {
        echo_stop(loop, s);
        return;
    }
    s->from = 0, s->until = (size_t)k;
    memset(&s->sum, 0, sizeof s->sum);
    ol_prep_crc32(&s->sum.op, 0, s->buf, (uint64_t)k);
    s->sum.accepted = 1; /* holds the partition: no event of it until it is done */
    if (API(ol_submit(loop, &s->sum.op, echo_summed)) < 0) {
        s->sum.accepted = 0;
        echo_stop(loop, s);
    }
}
static void echo_door(ol_loop *loop, ol_handler *h, int ready) {
    struct echo *e = OL_CONTAINER(h, struct echo, door);
    const int64_t conn = API_OR(ol_try_accept(loop, e->listener), EAGAIN);
    struct server *s = e->server;
    CHECK(ready == OL_READABLE && e->listener);
    if (conn < 0) {
        if (conn == -EAGAIN || ++e->failures < 3) return;
        CHECK(ol_close(loop, e->listener) == 0);
        e->listener = 0;
        return;
    }
    for (; s->used; s++) CHECK(s + 1 < e->server + SERVERS);
    memset(s, 0, sizeof *s);
    s->used = 1;
    s->echo = e;
    s->fd = (ol_fd)conn;
    CHECK(API(ol_watch(loop, s->fd, &s->handler, OL_READABLE, echo_handle)) == 0);
}

static void echo_over(struct echo *e) { /* the last client has ended */
    if (e->accepting) ol_cancel(&e->acceptor);
    else if (e->listener && e->handlers) CHECK(ol_close(e->loop, e->listener) == 0), e->listener = 0;
}

static void echo_client(ol_co *co) {
    struct client *c = OL_SELF(co, struct client, co);
    struct echo *e = c->echo;
    OL_BEGIN(co);
    if (API(ol_socket(co, e->addr.ss_family, SOCK_STREAM, 0, &c->fd)) < 0) goto out;
    OL_AWAIT(c->r, ol_connect(co, c->fd, (struct sockaddr *)&c->echo->addr, c->echo->len));
    if (RESULT(co, c->r) < 0) goto close;
    for (; c->messages < MESSAGES; c->messages++) {
        fill(c->out, (size_t)c->messages, MESSAGE);
        for (int i = 0; i < 3; i++) c->iov[i].iov_base = c->out + i * (MESSAGE / 3), c->iov[i].iov_len = MESSAGE / 3;
        if (c->echo->vectored) OL_AWAIT(c->r, ol_writev(co, c->fd, c->iov, 3));
        else OL_AWAIT(c->r, ol_write(co, c->fd, c->out, MESSAGE));
        if (RESULT(co, c->r) < 0) goto close;
        CHECK(c->r == MESSAGE);
        for (c->got = 0; c->got < MESSAGE; c->got += (size_t)c->r) {
            OL_AWAIT(c->r, ol_read(co, c->fd, c->in + c->got, MESSAGE - c->got));
            if (RESULT(co, c->r) <= 0) goto close;
            CHECK(same(c->in + c->got, (size_t)c->messages + c->got, (size_t)c->r));
        }
        c->echo->answered++;
    }
close:
    CHECK(ol_close(co->loop, c->fd) == 0);
out:
    e = c->echo;
    if (--e->clients_left == 0) echo_over(e);
    OL_END(co);
}

/* Has the listener served, or closes it. */
static void echo_open(struct echo *e) {
    if (e->handlers) CHECK(API(ol_watch(e->loop, e->listener, &e->door, OL_READABLE, echo_door)) == 0);
    else if (API(ol_spawn(e->loop, &e->acceptor, echo_accept, e->listener, 0)) == 0) e->accepting = 1;
    else CHECK(ol_close(e->loop, e->listener) == 0);
    if (!e->clients_left) echo_over(e);
}

static void echo_run(struct echo *e, ol_backend *backend) {
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.no_pool = 1;
    d.backends = &backend;
    d.nbackends = backend != NULL;
    d.policy = backend ? "any any 0- async device wait" : "";
    if (e->tight) d.budget = d.turn = d.events = d.latency_run = 1;
    e->loop = loop_new(&d);
    if (!e->loop) return;
    if (API(ol_listen(e->loop, (struct sockaddr *)&e->addr, e->len, 8, e->addr.ss_family == AF_INET, OL_LATENCY,
                      &e->listener)) == 0) {
        e->len = address_of(e->loop, e->listener, &e->addr);
        for (int i = 0; i < CLIENTS; i++) {
            e->client[i].echo = e;
            if (API(ol_spawn(e->loop, &e->client[i].co, echo_client, 0, OL_BATCH)) == 0) e->clients_left++;
        }
        echo_open(e);
        loop_work(e->loop);
        CHECK(!e->accepting && !e->clients_left);
        for (int i = 0; i < SERVERS; i++) CHECK(!e->server[i].used);
        WORKS(e->answered == CLIENTS * MESSAGES);
    }
    loop_end(e->loop);
}

static void echo_tcp(void) {
    struct echo e;
    memset(&e, 0, sizeof e);
    e.len = tcp_address(&e.addr);
    echo_run(&e, NULL);
}
static void echo_unix(void) {
    struct echo e;
    memset(&e, 0, sizeof e);
    e.len = unix_address(&e.addr);
    echo_run(&e, NULL);
}
static void echo_vectored(void) {
    struct echo e;
    memset(&e, 0, sizeof e);
    e.len = tcp_address(&e.addr);
    e.vectored = 1;
    echo_run(&e, NULL);
}
static void echo_tight(void) { /* with as little as possible between two looks at the kernel */
    struct echo e;
    memset(&e, 0, sizeof e);
    e.len = unix_address(&e.addr);
    e.tight = 1;
    echo_run(&e, NULL);
}
static void handlers_tcp(void) { /* with operations on a device */
    struct echo e;
    device d;
    memset(&e, 0, sizeof e);
    e.len = tcp_address(&e.addr);
    e.handlers = 1;
    echo_run(&e, &device_new(&d, 2)->backend);
}
static void handlers_unix(void) { /* and on the spot */
    struct echo e;
    memset(&e, 0, sizeof e);
    e.len = unix_address(&e.addr);
    e.handlers = e.vectored = 1;
    echo_run(&e, NULL);
}

/* ---- accept where neither the tables nor the heap of timers have room for what it needs */

struct crowded {
    ol_co co;
    ol_handler handler;
    ol_fd listener;
    int64_t conn;
    int tries, accepted;
};
static void crowded_take(struct crowded *c, ol_loop *loop, int64_t conn) {
    c->tries++;
    if (conn < 0) return;
    c->accepted++;
    CHECK(ol_close(loop, (ol_fd)conn) == 0);
}
static int crowded_over(const struct crowded *c) { return c->accepted == CLIENTS || c->tries >= 6; }
static void crowded_main(ol_co *co) {
    struct crowded *c = OL_SELF(co, struct crowded, co);
    OL_BEGIN(co);
    while (!crowded_over(c) && !ol_canceled(co)) {
        OL_AWAIT(c->conn, ol_accept(co, c->listener));
        RESULT(co, c->conn);
        crowded_take(c, co->loop, c->conn);
    }
    CHECK(ol_close(co->loop, c->listener) == 0);
    c->listener = 0;
    OL_END(co);
}
static void crowded_handle(ol_loop *loop, ol_handler *h, int ready) {
    struct crowded *c = OL_CONTAINER(h, struct crowded, handler);
    const int64_t conn = API_OR(ol_try_accept(loop, c->listener), EAGAIN);
    CHECK(ready == OL_READABLE);
    if (conn != -EAGAIN) crowded_take(c, loop, conn);
    if (!crowded_over(c)) return;
    CHECK(ol_close(loop, c->listener) == 0);
    c->listener = 0;
}
/* A fault may have taken connections away: when none comes any more, who waits for it is stopped. */
static void crowded_work(struct crowded *c, ol_loop *loop, int handlers) {
    for (int tries = -1; !strict() && c->tries != tries && c->listener;) {
        tries = c->tries;
        API(ol_loop_step(loop, 0));
        API(ol_loop_step(loop, 15 * MS));
        API(ol_loop_step(loop, 0));
    }
    if (!strict() && c->listener && handlers) CHECK(ol_close(loop, c->listener) == 0);
    else if (!strict() && c->listener) ol_cancel(&c->co);
    loop_work(loop);
}
static void crowded(int handlers) {
    struct crowded c;
    struct sockaddr_storage addr;
    const socklen_t len = unix_address(&addr);
    int taken[64], n = 0, peer[CLIENTS];
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(&c, 0, sizeof c);
    if (API(ol_listen(loop, (struct sockaddr *)&addr, len, 8, 0, 0, &c.listener)) == 0) {
        for (int i = 0; i < CLIENTS; i++) {
            peer[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
            if (connect(peer[i], (struct sockaddr *)&addr, len) != 0) fail("connect: %s", strerror(errno));
        }
        while ((taken[n] = fcntl(0, F_DUPFD_CLOEXEC, 0)) < 64) n++; /* what accept gets is past the first table */
        close(taken[n]);
        if (handlers) API(ol_watch(loop, c.listener, &c.handler, OL_READABLE, crowded_handle));
        else if (API(ol_spawn(loop, &c.co, crowded_main, c.listener, 0)) < 0) CHECK(ol_close(loop, c.listener) == 0);
        crowded_work(&c, loop, handlers);
        WORKS(c.accepted == CLIENTS);
        while (n > 0) close(taken[--n]);
        for (int i = 0; i < CLIENTS; i++) close(peer[i]);
    }
    loop_end(loop);
}
static void crowded_coroutine(void) { crowded(0); }
static void crowded_handler(void) { crowded(1); }

/* ---- refused: a port that is bound, so that nobody else can listen there */

struct refused {
    ol_co co;
    ol_fd fd;
    int64_t r;
    struct sockaddr_storage addr;
    socklen_t len;
    int tries, refused;
};
static void refused_main(ol_co *co) {
    struct refused *c = OL_SELF(co, struct refused, co);
    OL_BEGIN(co);
    for (; c->tries < 2; c->tries++) {
        if (API(ol_socket(co, AF_INET, SOCK_STREAM, 0, &c->fd)) < 0) continue;
        OL_AWAIT(c->r, ol_connect(co, c->fd, (struct sockaddr *)&c->addr, c->len));
        CHECK(RESULT_OR(co, c->r, ECONNREFUSED) < 0);
        c->refused += c->r == -ECONNREFUSED;
        CHECK(ol_close(co->loop, c->fd) == 0);
    }
    OL_END(co);
}
static void connect_refused(void) {
    struct refused c;
    ol_loop *loop = loop_alone();
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&c, 0, sizeof c);
    c.len = tcp_address(&c.addr);
    if (fd < 0 || bind(fd, (struct sockaddr *)&c.addr, c.len) != 0) fail("bind: %s", strerror(errno));
    if (getsockname(fd, (struct sockaddr *)&c.addr, &c.len) != 0) fail("getsockname: %s", strerror(errno));
    if (loop) {
        API(ol_spawn(loop, &c.co, refused_main, 0, 0));
        loop_work(loop);
        WORKS(c.refused == 2);
        loop_end(loop);
    }
    close(fd);
}

/* ---- a stream through a pipe or a pair of sockets that holds less than it */

struct stream {
    ol_co writer, reader;
    ol_fd in, out; /* 0: none */
    size_t size, chunk, sent, got;
    int vectored, ended;
    int64_t n, k;
    unsigned char from[6000], to[6000];
    struct iovec iov[3], into[2];
};
static int stream_write(struct stream *s, ol_co *co) {
    const size_t n = s->chunk / 3;
    if (!s->vectored) return ol_write(co, s->out, s->from, s->chunk);
    if (!s->iov[0].iov_base)
        for (size_t i = 0; i < 3; i++) s->iov[i].iov_base = s->from + i * n, s->iov[i].iov_len = n;
    return ol_writev(co, s->out, s->iov, 3);
}
static void stream_writer(ol_co *co) {
    struct stream *s = OL_CONTAINER(co, struct stream, writer);
    OL_BEGIN(co);
    while (s->sent < s->size) {
        fill(s->from, s->sent, s->chunk);
        s->iov[0].iov_base = NULL;
        OL_AWAIT(s->n, stream_write(s, co));
        if (RESULT(co, s->n) < 0) break;
        CHECK(s->n == (int64_t)s->chunk);
        s->sent += s->chunk;
    }
    CHECK(ol_close(co->loop, s->out) == 0);
    OL_END(co);
}
static int stream_read(struct stream *s, ol_co *co) {
    s->into[0].iov_base = s->to, s->into[0].iov_len = 1000;
    s->into[1].iov_base = s->to + 1000, s->into[1].iov_len = 2000;
    return s->vectored ? ol_readv(co, s->in, s->into, 2) : ol_read(co, s->in, s->to, 3000);
}
static void stream_reader(ol_co *co) {
    struct stream *s = OL_CONTAINER(co, struct stream, reader);
    OL_BEGIN(co);
    for (;;) {
        OL_AWAIT(s->k, stream_read(s, co));
        if (RESULT(co, s->k) <= 0) break;
        CHECK(same(s->to, s->got, (size_t)s->k));
        s->got += (size_t)s->k;
    }
    s->ended = s->k == 0;
    CHECK(ol_close(co->loop, s->in) == 0);
    OL_END(co);
}
static void stream_run(ol_loop *loop, struct stream *s, const int fd[2]) {
    s->in = attach_or_close(loop, fd[0], OL_LATENCY);
    s->out = attach_or_close(loop, fd[1], 0);
    if (s->in && API(ol_spawn(loop, &s->reader, stream_reader, s->in, 0)) < 0) CHECK(ol_close(loop, s->in) == 0);
    if (s->out && API(ol_spawn(loop, &s->writer, stream_writer, s->out, 0)) < 0) CHECK(ol_close(loop, s->out) == 0);
    loop_work(loop);
    CHECK(s->got <= s->sent + s->chunk);
    WORKS(s->ended && s->got == s->size);
}
static void stream_pipe_of(int vectored) {
    struct stream s;
    int fd[2];
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(&s, 0, sizeof s);
    if (pipe2(fd, O_CLOEXEC) != 0) fail("pipe2: %s", strerror(errno));
    (void)fcntl(fd[1], F_SETPIPE_SZ, 4096);
    signal(SIGPIPE, SIG_IGN); /* of a pipe it is the application's */
    s.size = 12000, s.chunk = 6000, s.vectored = vectored;
    stream_run(loop, &s, fd);
    signal(SIGPIPE, SIG_DFL);
    loop_end(loop);
}
static void stream_pipe(void) { stream_pipe_of(0); }
static void stream_pipe_vectored(void) { stream_pipe_of(1); }

static void stream_sockets_of(int vectored, int type) {
    struct stream s;
    int fd[2];
    const int small = 4096;
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(&s, 0, sizeof s);
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fd) != 0) fail("socketpair: %s", strerror(errno));
    (void)setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    s.size = 18000, s.chunk = 6000, s.vectored = vectored;
    stream_run(loop, &s, fd);
    loop_end(loop);
}
static void stream_sockets(void) { stream_sockets_of(0, SOCK_STREAM); }
static void stream_sockets_vectored(void) { stream_sockets_of(1, SOCK_STREAM); }

/* ---- attach: what can't be polled, twice, numbers that are used again */

static void attach(void) {
    ol_fd one = 0, two = 0, three = 0;
    int fd[2];
    ol_loop *loop = loop_alone();
    const int file = memfd_create("regular", 0);
    if (pipe2(fd, O_CLOEXEC) != 0 || file < 0) fail("pipe2: %s", strerror(errno));
    if (loop) {
        CHECK(API_OR(ol_attach(loop, file, 0, &one), EPERM) < 0);
        CHECK(API_OR(ol_attach(loop, -1, 0, &one), EBADF) == -EBADF);
        one = attach_or_close(loop, fd[0], 0);
        if (one) CHECK(API_OR(ol_attach(loop, fd[0], 0, &three), EEXIST) < 0);
        two = attach_or_close(loop, fd[1], OL_LATENCY);
        CHECK(!one || ol_fd_raw(loop, one) == fd[0]);
        if (one) CHECK(ol_close(loop, one) == 0 && API_OR(ol_close(loop, one), EBADF) == -EBADF);
        if (one) CHECK(API_OR(ol_fd_raw(loop, one), EBADF) == -EBADF);
        CHECK(!two || ol_fd_raw(loop, two) == fd[1]);
        loop_end(loop); /* closes fd[1] */
    } else {
        close(fd[0]);
        close(fd[1]);
    }
    close(file);
}

/* An fd is closed behind the library's back and its number given out again; before that, while a duplicate keeps the
   registration alive, which EPOLL_CTL_ADD finds. */
static void attach_again(void) {
    ol_fd first = 0, second = 0, third = 0;
    ol_loop *loop = loop_alone();
    if (!loop) return;
    const int fd = eventfd(0, EFD_CLOEXEC);
    first = attach_or_close(loop, fd, 0);
    if (first) {
        close(fd);
        if (eventfd(0, EFD_CLOEXEC) != fd) fail("the number is not free");
        if (API(ol_attach(loop, fd, 0, &second)) == 0) {
            CHECK(ol_fd_raw(loop, first) == -EBADF);
            const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 10);
            CHECK(ol_close(loop, second) == 0);
            if (dup3(copy, fd, O_CLOEXEC) != fd) fail("dup3");
            third = attach_or_close(loop, fd, 0);
            CHECK(ol_fd_raw(loop, second) == -EBADF);
            if (third) CHECK(ol_close(loop, third) == 0);
            close(copy);
        } else {
            CHECK(ol_close(loop, first) == 0);
        }
    }
    loop_end(loop);
}

static void attach_many(void) { /* the table of fds grows */
    ol_fd handle[3] = {0, 0, 0};
    ol_loop *loop = loop_alone();
    if (!loop) return;
    for (int i = 0; i < 3; i++) {
        const int fd = eventfd(0, EFD_CLOEXEC), high = fcntl(fd, F_DUPFD_CLOEXEC, 70 << i);
        close(fd);
        if (high < 0) fail("fcntl: %s", strerror(errno));
        handle[i] = attach_or_close(loop, high, i);
        WORKS(handle[i] != 0);
    }
    for (int i = 0; i < 3; i++)
        if (handle[i] && i != 1) CHECK(ol_close(loop, handle[i]) == 0);
    loop_end(loop);
}

/* ---- waits for readiness, with calls of the application's own */

struct waiter {
    ol_co co;
    ol_fd fd;
    int64_t r;
    size_t n;
    int raw, reads, edge_lost;
    char buf[64];
};
static void waiter_reader(ol_co *co) {
    struct waiter *w = OL_SELF(co, struct waiter, co);
    ssize_t k;
    OL_BEGIN(co);
    for (;;) {
        OL_AWAIT(w->r, ol_wait_readable(co, w->fd));
        if (RESULT(co, w->r) < 0) break;
        k = read(w->raw, w->buf, 20);
        if (k > 0) w->n += (size_t)k;
        if (k == 0) break;
        if (k < 0) {
            CHECK(errno == EAGAIN);
            CHECK(ol_again(co->loop, w->fd, 0) == 0);
        }
    }
    CHECK(ol_close(co->loop, w->fd) == 0);
    OL_END(co);
}
static void waiter_writer(ol_co *co) {
    struct waiter *w = OL_SELF(co, struct waiter, co);
    OL_BEGIN(co);
    while (w->n < 100) {
        OL_AWAIT(w->r, ol_wait_writable(co, w->fd));
        if (RESULT(co, w->r) < 0) break;
        if (write(w->raw, w->buf, 10) != 10) break;
        w->n += 10;
        if (w->n == 50) {
            OL_AWAIT(w->r, ol_sleep(co, MS / 10));
            RESULT(co, w->r);
        }
    }
    CHECK(ol_close(co->loop, w->fd) == 0);
    OL_END(co);
}
static void waits(void) {
    struct waiter r, w;
    int fd[2];
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(&r, 0, sizeof r);
    memset(&w, 0, sizeof w);
    if (pipe2(fd, O_CLOEXEC) != 0) fail("pipe2: %s", strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    r.raw = fd[0], w.raw = fd[1];
    r.fd = attach_or_close(loop, fd[0], 0);
    w.fd = attach_or_close(loop, fd[1], 0);
    if (r.fd && API(ol_spawn(loop, &r.co, waiter_reader, r.fd, 0)) < 0) CHECK(ol_close(loop, r.fd) == 0);
    if (w.fd && API(ol_spawn(loop, &w.co, waiter_writer, w.fd, 0)) < 0) CHECK(ol_close(loop, w.fd) == 0);
    loop_work(loop);
    CHECK(r.n <= w.n || !w.fd);
    WORKS(r.n == 100 && w.n == 100);
    signal(SIGPIPE, SIG_DFL);
    loop_end(loop);
}

/* ---- what goes wrong at the ends: fds that are closed, cancelled or timed out during a wait, of others, wrong calls */

struct reader {
    ol_co co;
    ol_fd fd, other;
    int64_t r, limit;
    int alive, expect;
    char buf[8];
};
static void reader_main(ol_co *co) {
    struct reader *s = OL_SELF(co, struct reader, co);
    OL_BEGIN(co);
    if (s->other) {
        OL_AWAIT(s->r, ol_read(co, s->other, s->buf, sizeof s->buf));
        CHECK(RESULT_OR(co, s->r, ol_canceled(co) ? ECANCELED : EXDEV) < 0);
    }
    OL_AWAIT(s->r, ol_read(co, s->fd, s->buf, 0));
    CHECK(RESULT_OR(co, s->r, ol_canceled(co) ? ECANCELED : EINVAL) < 0);
    if (s->limit && API(ol_deadline(co, s->limit)) < 0) s->expect = 0;
    if (s->expect) {
        OL_AWAIT(s->r, ol_read(co, s->fd, s->buf, sizeof s->buf));
        RESULT_OR(co, s->r, s->expect);
        WORKS(s->r == -s->expect);
    }
    s->alive = 0;
    OL_END(co);
}
static void close_main(ol_co *co) { /* closes, cancels, and awaits what it closed */
    struct reader *s = OL_SELF(co, struct reader, co), *first = s - 1;
    OL_BEGIN(co);
    OL_AWAIT(s->r, ol_sleep(co, MS / 10));
    RESULT(co, s->r);
    if (first->alive && first->fd) CHECK(ol_close(co->loop, first->fd) == 0);
    if (s[1].alive) ol_cancel(&s[1].co);
    CHECK(ol_close(co->loop, s->fd) == 0);
    OL_AWAIT(s->r, ol_read(co, s->fd, s->buf, sizeof s->buf));
    CHECK(RESULT_OR(co, s->r, EBADF) == -EBADF);
    OL_END(co);
}
static void interrupted(void) {
    static const int expect[] = {ECANCELED, 0, ECANCELED, ETIMEDOUT};
    struct reader s[4];
    int fd[4];
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(s, 0, sizeof s);
    for (int i = 0; i < 4; i++) {
        fd[i] = eventfd(0, EFD_CLOEXEC);
        s[i].fd = attach_or_close(loop, fd[i], 0);
        s[i].expect = expect[i];
    }
    s[2].other = s[3].fd;
    s[3].limit = MS;
    for (int i = 0; i < 4; i++)
        if (s[i].fd && (i != 0 || s[1].fd))
            s[i].alive = API(ol_spawn(loop, &s[i].co, i == 1 ? close_main : reader_main, s[i].fd, 0)) == 0;
    if (!s[1].alive)
        for (int i = 0; i < 4; i += 2)
            if (s[i].alive) ol_cancel(&s[i].co);
    loop_work(loop);
    loop_end(loop);
}

/* ---- handlers that come, go and take each other's place while they are about to run */

struct watched {
    ol_fd fd;
    ol_handler handler, other;
    int out, calls, others;
};
static struct watch { struct watched w[3]; } watch;
static void on_other(ol_loop *loop, ol_handler *h, int ready) {
    struct watched *w = OL_CONTAINER(h, struct watched, other);
    char c;
    const int64_t r = API_OR(ol_try_read(loop, w->fd, &c, 1), EAGAIN);
    CHECK(ready == OL_READABLE && w->others++ < 1000);
    if (r == -EAGAIN) return;
    WORKS(r == 1 && c == 'w');
    CHECK(ol_close(loop, w->fd) == 0);
    w->fd = 0;
}
static void on_watched(ol_loop *loop, ol_handler *h, int ready) {
    struct watched *w = OL_CONTAINER(h, struct watched, handler);
    CHECK(ready == OL_READABLE);
    for (int i = 0; i < 3; i++) { /* the others are about to run: one is taken off, and all get another handler */
        struct watched *v = &watch.w[i];
        if (!v->fd) continue;
        CHECK(v == w || !v->calls);
        if (v != w) CHECK(API(ol_unwatch(loop, v->fd)) == 0);
        CHECK(API(ol_watch(loop, v->fd, &v->other, OL_READABLE, on_other)) == 0);
    }
    w->calls++;
}
static void handlers_change(void) {
    ol_loop *loop = loop_alone();
    int fd[2], ran = 0;
    if (!loop) return;
    memset(&watch, 0, sizeof watch);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 3; i++) {
        if (pipe2(fd, O_CLOEXEC) != 0) fail("pipe2: %s", strerror(errno));
        watch.w[i].out = fd[1];
        watch.w[i].fd = attach_or_close(loop, fd[0], i);
        if (watch.w[i].fd) CHECK(API(ol_watch(loop, watch.w[i].fd, &watch.w[i].handler, OL_READABLE, on_watched)) == 0);
        CHECK(write(fd[1], "w", 1) == 1 || !watch.w[i].fd);
    }
    loop_work(loop);
    signal(SIGPIPE, SIG_DFL);
    for (int i = 0; i < 3; i++) {
        close(watch.w[i].out);
        ran += watch.w[i].calls;
        WORKS(!watch.w[i].fd && watch.w[i].others);
    }
    CHECK(ran <= 1);
    loop_end(loop);
}

/* Writing to who is gone: an error, and never a signal, which would end this process. */
struct broken {
    ol_co co;
    ol_fd fd, peer;
    ol_handler handler;
    int64_t r;
    int errors, called;
    char buf[8];
    struct iovec iov[2];
};
static void on_broken(ol_loop *loop, ol_handler *h, int ready) {
    struct broken *b = OL_CONTAINER(h, struct broken, handler);
    CHECK(ready && b->called++ < 1000);
    const int64_t r = API_OR(ol_try_write(loop, b->fd, b->buf, sizeof b->buf), EITHER(EPIPE, EAGAIN));
    if (r == -EAGAIN) return;
    WORKS(r == -EPIPE);
    b->errors += r == -EPIPE;
    CHECK(ol_close(loop, b->fd) == 0);
    b->fd = 0;
}
static void broken_main(ol_co *co) {
    struct broken *b = OL_SELF(co, struct broken, co);
    OL_BEGIN(co);
    OL_AWAIT(b->r, ol_write(co, b->fd, b->buf, sizeof b->buf));
    b->errors += RESULT_OR(co, b->r, EPIPE) == -EPIPE;
    b->iov[0].iov_base = b->iov[1].iov_base = b->buf, b->iov[0].iov_len = b->iov[1].iov_len = 4;
    OL_AWAIT(b->r, ol_writev(co, b->fd, b->iov, 2));
    b->errors += RESULT_OR(co, b->r, EPIPE) == -EPIPE;
    OL_AWAIT(b->r, ol_read(co, b->fd, b->buf, sizeof b->buf));
    CHECK(RESULT(co, b->r) <= 0);
    API(ol_watch(co->loop, b->fd, &b->handler, OL_WRITABLE, on_broken));
    OL_END(co);
}
static void broken(void) {
    struct broken b;
    int pair[2];
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(&b, 0, sizeof b);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) fail("socketpair: %s", strerror(errno));
    b.fd = attach_or_close(loop, pair[0], 0);
    close(pair[1]);
    if (b.fd && API(ol_spawn(loop, &b.co, broken_main, b.fd, 0)) < 0) CHECK(ol_close(loop, b.fd) == 0);
    loop_work(loop);
    WORKS(b.errors == 3);
    loop_end(loop);
}

static void drain(void) { /* coroutines in every wait for an fd or a time end when they are asked to */
    struct reader s[3];
    struct stream t;
    int fd[2];
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(s, 0, sizeof s);
    memset(&t, 0, sizeof t);
    if (pipe2(fd, O_CLOEXEC) != 0) fail("pipe2: %s", strerror(errno));
    t.size = 18000, t.chunk = 6000;
    (void)fcntl(fd[1], F_SETPIPE_SZ, 4096);
    s[0].fd = attach_or_close(loop, fd[0], 0); /* nobody writes so much; withheld: the second on the same fd */
    s[0].expect = s[1].expect = ECANCELED;
    s[1].fd = s[0].fd;
    t.out = attach_or_close(loop, fd[1], 0);
    for (int i = 0; i < 2; i++)
        if (s[0].fd) s[i].alive = API(ol_spawn(loop, &s[i].co, reader_main, s[0].fd, 0)) == 0;
    API(ol_loop_step(loop, 0));
    CHECK(ol_loop_drain(loop, 5000 * MS) == 0);
    CHECK(!s[0].alive && !s[1].alive);
    loop_drain_end(loop);
}

const struct scenario scenarios_io[] = {
    {"echo_tcp", echo_tcp},
    {"echo_unix", echo_unix},
    {"echo_vectored", echo_vectored},
    {"echo_tight", echo_tight},
    {"handlers_tcp", handlers_tcp},
    {"handlers_unix", handlers_unix},
    {"crowded", crowded_coroutine},
    {"crowded_handler", crowded_handler},
    {"refused", connect_refused},
    {"pipe", stream_pipe},
    {"pipe_vectored", stream_pipe_vectored},
    {"sockets", stream_sockets},
    {"sockets_vectored", stream_sockets_vectored},
    {"attach", attach},
    {"attach_again", attach_again},
    {"attach_many", attach_many},
    {"waits", waits},
    {"interrupted", interrupted},
    {"handlers_change", handlers_change},
    {"broken", broken},
    {"drain", drain},
    {NULL, NULL},
};
