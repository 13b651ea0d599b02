/* run_guest.c: a loop inside another one, and loops on both sides of a fork. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include "checks.h"

/* ---- guest: our own epoll loop watches the library's fd and a socket of its own, which the library gates */

enum { LINES = 3, LINE = 100 };
static struct guest {
    ol_loop *loop;
    int ep, fd, peer; /* of a pair of sockets */
    ol_fd handle;     /* 0: closed */
    ol_handler handler;
    job sum;
    ol_timer timer;
    ol_co co;
    int64_t slept;
    int events, withheld, fired, started, alive;
    size_t sent, got, from, until;
    unsigned char buf[LINE];
} guest;

static void guest_interest(uint32_t events) {
    struct epoll_event e;
    memset(&e, 0, sizeof e);
    e.events = events;
    e.data.fd = guest.fd;
    if (epoll_ctl(guest.ep, EPOLL_CTL_MOD, guest.fd, &e) != 0) fail("epoll_ctl: %s", strerror(errno));
}
static void guest_close(void) {
    if (!guest.handle) return;
    if (epoll_ctl(guest.ep, EPOLL_CTL_DEL, guest.fd, NULL) != 0) fail("epoll_ctl: %s", strerror(errno));
    CHECK(ol_close(guest.loop, guest.handle) == 0);
    guest.handle = 0;
}
static void guest_answer(ol_loop *loop) { /* 100 bytes fit, unless something fails */
    const int64_t k =
        API_OR(ol_try_write(loop, guest.handle, guest.buf + guest.from, guest.until - guest.from), EAGAIN);
    if (k < 0 && k != -EAGAIN) {
        guest_close();
        return;
    }
    guest.from += k < 0 ? 0 : (size_t)k;
    guest_interest(guest.from < guest.until ? EPOLLOUT : EPOLLIN);
}
static void guest_summed(ol_loop *loop, ol_op *op) {
    job_done(loop, op);
    OP_RESULT(op);
    if (guest.handle) guest_answer(loop);
}
/* The guest's own handler of its fd: it reads, and answers when an operation over it is done. */
static void guest_serve(ol_loop *loop) {
    const int64_t k = API_OR(ol_try_read(loop, guest.handle, guest.buf, LINE), EAGAIN);
    CHECK(guest.from == guest.until && !(guest.sum.accepted && !guest.sum.completed));
    if (k == -EAGAIN) return;
    if (k <= 0) {
        guest_close();
        return;
    }
    guest.from = 0, guest.until = (size_t)k;
    memset(&guest.sum, 0, sizeof guest.sum);
    ol_prep_crc32(&guest.sum.op, 0, guest.buf, (uint64_t)k);
    guest.sum.accepted = 1;
    if (API(ol_submit(loop, &guest.sum.op, guest_summed)) < 0) {
        guest.sum.accepted = 0;
        guest_close();
    }
}
static void guest_ready(ol_loop *loop) { /* it goes on with its answer, or with the next line */
    if (guest.from < guest.until) guest_answer(loop);
    else guest_serve(loop);
}
static void guest_released(ol_loop *loop, ol_handler *h, int ready) { /* what was withheld, from a step */
    CHECK(h == &guest.handler && ready == OL_READABLE && guest.withheld && guest.handle);
    guest.withheld = 0;
    guest_interest(EPOLLIN);
    guest_ready(loop);
}
static void guest_event(ol_loop *loop, uint32_t events) {
    const int ready = events & EPOLLOUT ? OL_WRITABLE : OL_READABLE;
    const int r = (int)API(ol_gate_enter(loop, guest.handle, ready));
    if (r < 0) {
        guest_close();
    } else if (r == 0) {
        CHECK(guest.sum.accepted && !guest.sum.completed);
        guest.withheld = 1;
        guest_interest(0);
    } else {
        CHECK(API_OR(ol_loop_step(loop, 0), EBUSY) == -EBUSY);
        guest_ready(loop);
        CHECK(API(ol_gate_leave(loop)) == 0);
    }
}

/* The other end, from outside: it sends the next line while the operation over this one is out. */
static void guest_peer(void) {
    unsigned char buf[LINE];
    ssize_t k;
    while ((k = recv(guest.peer, buf, sizeof buf, MSG_DONTWAIT)) > 0) {
        for (ssize_t i = 0; i < k; i++) CHECK(buf[i] == (unsigned char)(guest.got + (size_t)i));
        guest.got += (size_t)k;
    }
    if (guest.sent < LINES * LINE && guest.got + LINE >= guest.sent) {
        for (size_t i = 0; i < LINE; i++) buf[i] = (unsigned char)(guest.sent + i);
        if (send(guest.peer, buf, LINE, MSG_DONTWAIT | MSG_NOSIGNAL) == LINE) guest.sent += LINE;
    }
    if (guest.got == LINES * LINE) shutdown(guest.peer, SHUT_WR);
}
static void on_guest_timer(ol_loop *loop, ol_timer *t) {
    (void)loop, (void)t;
    guest.fired = 1;
}
static void guest_sleeper(ol_co *co) {
    OL_BEGIN(co);
    OL_AWAIT(guest.slept, ol_sleep(co, MS / 2));
    RESULT(co, guest.slept);
    guest.alive = 0;
    OL_END(co);
}

static void guest_rounds(void) {
    struct epoll_event e[4];
    for (int round = 0; guest.handle || guest.alive || guest.started > guest.fired; round++) {
        guest_peer();
        const int n = epoll_wait(guest.ep, e, 4, 5000);
        if (n == 0)
            fail("the loop's fd doesn't turn readable: connection %d, coroutine %d, timer %d", guest.handle != 0,
                 guest.alive, guest.started - guest.fired);
        if (round > 5000) fail("no end after %d rounds", round);
        for (int i = 0; i < n; i++) {
            if (e[i].data.fd == guest.fd && guest.handle && !guest.withheld) guest_event(guest.loop, e[i].events);
            if (e[i].data.fd == -1) API(ol_loop_step(guest.loop, 0));
        }
    }
}

static int guest_set_up(ol_loop *loop, int pair[2]) {
    struct epoll_event e;
    const int fd = (int)API(ol_loop_fd(loop));
    memset(&e, 0, sizeof e);
    if (fd < 0) return 0;
    CHECK(API(ol_loop_fd(loop)) == fd);
    e.events = EPOLLIN;
    e.data.fd = -1;
    if (epoll_ctl(guest.ep, EPOLL_CTL_ADD, fd, &e) != 0) fail("epoll_ctl: %s", strerror(errno));
    if (API(ol_attach_guest(loop, pair[0], OL_LATENCY, &guest.handle)) < 0) return 0;
    e.data.fd = guest.fd = pair[0];
    if (epoll_ctl(guest.ep, EPOLL_CTL_ADD, guest.fd, &e) != 0) fail("epoll_ctl: %s", strerror(errno));
    CHECK(API_OR(ol_gate_enter(loop, guest.handle, OL_READABLE), EINVAL) == -EINVAL);
    CHECK(API(ol_watch(loop, guest.handle, &guest.handler, OL_READABLE, guest_released)) == 0);
    return 1;
}

static void guest_run(ol_backend *backend, const char *policy) {
    ol_loop_desc d;
    int pair[2];
    memset(&d, 0, sizeof d);
    memset(&guest, 0, sizeof guest);
    d.no_pool = 1;
    d.backends = &backend;
    d.nbackends = backend != NULL;
    d.policy = policy;
    d.poll_ns = MS / 5;
    guest.loop = loop_new(&d);
    if (!guest.loop) return;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        fail("socketpair: %s", strerror(errno));
    guest.ep = epoll_create1(EPOLL_CLOEXEC);
    guest.peer = pair[1];
    if (guest_set_up(guest.loop, pair)) {
        guest.started = API(ol_timer_start(guest.loop, &guest.timer, MS, on_guest_timer)) == 0;
        guest.alive = API(ol_spawn(guest.loop, &guest.co, guest_sleeper, 0, 0)) == 0;
        guest_rounds();
        WORKS(guest.got == LINES * LINE && guest.fired && guest.slept == 0);
    } else if (!guest.handle) {
        close(pair[0]);
    }
    close(pair[1]);
    loop_end(guest.loop);
    close(guest.ep);
}
static void guest_device(void) {
    device d;
    guest_run(&device_new(&d, 2)->backend, "any any 0- async device wait");
}
static void guest_pool(void) {
    ol_backend *pool = pool_new(1, 2);
    if (pool) guest_run(pool, "any any 0- async threads wait");
    pool_end(pool);
}
static void guest_software(void) { guest_run(NULL, ""); }

/* ---- fork: a loop with an operation in flight, a coroutine that waits for one, another that waits for an fd, a timer.
   Both processes go on with it, the child first. */

static struct split {
    ol_loop *loop;
    ol_co co[2];
    ol_op op;
    ol_fd in;
    job job, first, early;
    ol_timer timer;
    int64_t r[2];
    int alive[2], calls, earlies, warm, fired, child, started, raw, out, go[2];
} split;

static int64_t split_wait(void *arg) { /* on a worker, in the parent: until there is no child any more */
    char c;
    (void)arg;
    if (this_side == SIDE_WORKER && !split.child && read(split.go[0], &c, 1) != 1) return -EIO;
    return 5;
}
static void split_op(ol_co *co) {
    OL_BEGIN(co);
    OL_AWAIT(split.r[0], ol_run(co, ol_prep_call(&split.op, count_call, &split.calls)));
    RESULT(co, split.r[0]);
    split.warm = 1;
    OL_AWAIT(split.r[0], ol_run(co, ol_prep_call(&split.op, split_wait, NULL)));
    RESULT_OR(co, split.r[0], split.child ? ECANCELED : NONE);
    CHECK(!exact() || split.r[0] == (split.child ? -ECANCELED : 5));
    OL_AWAIT(split.r[0], ol_run(co, ol_prep_call(&split.op, count_call, &split.calls))); /* and again */
    RESULT_OR(co, split.r[0], split.child ? ECANCELED : NONE);
    CHECK(!exact() || split.r[0] == 2);
    split.alive[0] = 0;
    OL_END(co);
}
static void split_read(ol_co *co) {
    static char buf[4];
    OL_BEGIN(co);
    OL_AWAIT(split.r[1], ol_read(co, split.in, buf, sizeof buf));
    RESULT(co, split.r[1]);
    WORKS(split.r[1] == 1 && buf[0] == (split.child ? 'c' : 'p'));
    CHECK(ol_close(co->loop, split.in) == 0);
    split.alive[1] = 0;
    OL_END(co);
}
static void on_split_timer(ol_loop *loop, ol_timer *t) {
    (void)loop, (void)t;
    CHECK(split.started && !split.fired++);
}

static void split_pipe(int *in, int *out) {
    int fd[2];
    if (pipe2(fd, O_CLOEXEC) != 0) fail("pipe2: %s", strerror(errno));
    *in = fd[0], *out = fd[1];
}

static void split_go_on(char c) {
    if (split.alive[1] && write(split.out, &c, 1) != 1) fail("write: %s", strerror(errno));
    loop_work(split.loop);
    CHECK(!split.alive[0] && !split.alive[1] && split.fired == split.started);
    CHECK(split.job.completed == split.job.accepted);
    if (!split.job.completed) return;
    OP_RESULT_OR(&split.job.op, split.child ? ECANCELED : NONE);
    CHECK(!exact() || split.job.op.result == (split.child ? -ECANCELED : 5));
}

__attribute__((noreturn)) static void split_child(device *d, ol_backend *pool, int destroy) {
    split.child = 1;
    forked();
    if (d) d->slow = 0;
    close(split.out);
    if (split.alive[1]) { /* a pipe of this process alone takes the place of the one that both have */
        int in;
        split_pipe(&in, &split.out);
        if (dup3(in, split.raw, O_CLOEXEC) != split.raw) fail("dup3: %s", strerror(errno));
        close(in);
    }
    ol_prep_call(&split.early.op, count_call, &split.earlies); /* the child's own, before the loop knows of it */
    job_submit(split.loop, &split.early);
    if (destroy) {
        loop_destroy(split.loop);
        CHECK(split.job.completed == split.job.accepted && split.timer.index == 0);
        if (split.job.completed) CHECK(OP_RESULT_OR(&split.job.op, ECANCELED) < 0 || !exact());
    } else {
        split_go_on('c');
        loop_end(split.loop);
    }
    CHECK(split.early.completed == split.early.accepted);
    if (split.early.completed) OP_RESULT_OR(&split.early.op, destroy ? ECANCELED : NONE);
    WORKS(destroy || split.early.op.result == 1);
    pool_end(pool);
    if (split.alive[1] || !destroy) close(split.out);
    close(split.go[0]);
    close(split.go[1]);
    check_end();
    _exit(0);
}

static void split_fork(device *d, ol_backend *pool, int destroy) {
    int status = 0;
    const pid_t pid = fork();
    if (pid < 0) fail("fork: %s", strerror(errno));
    if (pid == 0) split_child(d, pool, destroy);
    if (waitpid(pid, &status, 0) != pid) fail("waitpid: %s", strerror(errno));
    if (WIFSIGNALED(status)) fail("the child of fork was killed by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status)) _exit(1); /* it has said why */
    if (d) d->slow = 0;
    if (write(split.go[1], "gg", 2) != 2) fail("write: %s", strerror(errno));
}

static void split_run(device *d, ol_backend *pool, int as_guest, int destroy) {
    ol_loop_desc desc;
    ol_backend *b = d ? &d->backend : pool;
    memset(&desc, 0, sizeof desc);
    memset(&split, 0, sizeof split);
    desc.backends = &b, desc.nbackends = 1, desc.no_pool = 1, desc.poll_ns = MS / 5;
    desc.policy = d ? "any any 0- async device wait" : "any any 0- async threads wait";
    split.loop = loop_new(&desc);
    if (!split.loop) return;
    split_pipe(&split.raw, &split.out);
    split_pipe(&split.go[0], &split.go[1]);
    if (as_guest) API(ol_loop_fd(split.loop));
    if (API(ol_attach(split.loop, split.raw, 0, &split.in)) < 0) close(split.raw);
    ol_prep_call(&split.first.op, count_call, &split.calls); /* the workers are there */
    job_submit(split.loop, &split.first);
    while (split.first.accepted && !split.first.completed) API(ol_loop_step(split.loop, MS));
    split.calls = 0;
    if (!destroy) {
        split.alive[0] = API(ol_spawn(split.loop, &split.co[0], split_op, 0, 0)) == 0;
        while (split.alive[0] && !split.warm) API(ol_loop_step(split.loop, MS));
        if (d) d->slow = 1;
        if (split.in) split.alive[1] = API(ol_spawn(split.loop, &split.co[1], split_read, split.in, 0)) == 0;
    }
    if (d) d->slow = 1;
    API(ol_loop_step(split.loop, 0));
    ol_prep_call(&split.job.op, split_wait, NULL)->cls = OL_LATENCY;
    job_submit(split.loop, &split.job);
    API(ol_loop_step(split.loop, 0));
    split.started = API(ol_timer_start(split.loop, &split.timer, 2 * MS, on_split_timer)) == 0;
    split_fork(d, pool, destroy);
    split_go_on('p');
    close(split.out);
    loop_end(split.loop);
    close(split.go[0]);
    close(split.go[1]);
}

static void fork_device(void) {
    device d;
    device_new(&d, 2);
    split_run(&d, NULL, 0, 0);
}
static void fork_device_new(void) { /* one that is opened anew in the child; in a guest's loop */
    device d;
    device_new(&d, 2)->backend.forked = NULL;
    split_run(&d, NULL, 1, 0);
}
static void fork_pool(void) {
    ol_backend *pool = pool_new(1, 4);
    if (pool) split_run(NULL, pool, 0, 0);
    pool_end(pool);
}
static void fork_destroy(void) {
    device d;
    device_new(&d, 2);
    split_run(&d, NULL, 1, 1);
}
static void fork_destroy_pool(void) {
    ol_backend *pool = pool_new(1, 4);
    if (pool) split_run(NULL, pool, 0, 1);
    pool_end(pool);
}

const struct scenario scenarios_guest[] = {
    {"guest_software", guest_software}, {"guest_device", guest_device},           {"guest_pool", guest_pool},
    {"fork_device", fork_device},       {"fork_device_new", fork_device_new},     {"fork_pool", fork_pool},
    {"fork_destroy", fork_destroy},     {"fork_destroy_pool", fork_destroy_pool}, {NULL, NULL},
};
