/* What code may do from inside a coroutine or a callback: a test for each cell of the manual's table FROM INSIDE, named
   `row_column`, and for each statement below it. In each of them a crowd of others waits in all ways there are; nobody
   else's code may run before the caller has returned, and everybody must come to the end that is due to him. The clock
   is virtual, devices answer when they are told to.
   cc -O2 -I. tests/criterion/inside.c -o build/tests/inside -lcriterion -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

/* The seam: allocations are counted, time passes when the loop sleeps, and an accept can find no free fd. */
#include "counted.h"
static int64_t clock_ns = 1000000000; /* shared with workers */
static int test_epoll_wait(int ep, struct epoll_event *events, int n, int64_t timeout) {
    const int k = epoll_wait(ep, events, n, timeout < 0 ? -1 : 0);
    if (k == 0 && timeout > 0) __atomic_fetch_add(&clock_ns, timeout, __ATOMIC_RELAXED);
    return k;
}
static int accepts_to_fail;
static int test_accept(int fd) {
    (void)fd;
    if (!accepts_to_fail) return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    accepts_to_fail--;
    errno = EMFILE;
    return -1;
}
#define OL_SYS_NOW() __atomic_add_fetch(&clock_ns, 1000, __ATOMIC_RELAXED)
#define OL_SYS_EPOLL_CREATE() epoll_create1(EPOLL_CLOEXEC)
#define OL_SYS_EPOLL_CTL(ep, op, fd, event) epoll_ctl((ep), (op), (fd), (event))
#define OL_SYS_EPOLL_WAIT(ep, events, n, timeout_ns) test_epoll_wait((ep), (events), (n), (timeout_ns))
#define OL_SYS_EVENTFD() eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
#define accept4(fd, addr, len, flags) test_accept(fd)
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

#include <criterion/criterion.h>
#include <semaphore.h>

TestSuite(inside, .timeout = 30);

/* ---- who: the rows of the table, some of them in several places */

enum row {
    coroutine,
    child,
    handler,
    done,         /* of an operation that holds its partition alone */
    done_of_root, /* of an operation beside whom its root lives on */
    timer,
    gated_timer,
    post,
    gated_post,
    log_of_accept,  /* inside ol_accept, in a coroutine */
    log_of_try,     /* inside ol_try_accept, in a handler */
    log_of_refusal, /* from the loop itself: a backend refuses an operation */
    ROWS
};
/* In a partition of its own, that of fd 0, which is held meanwhile; where a root lives, too, which goes on; where it is
   that root, or its child, who calls. */
static const int gated[ROWS] = {1, 1, 1, 1, 1, 0, 1, 0, 1, 1, 1, 0};
static const int rooted[ROWS] = {1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0};
static const int in_co[ROWS] = {1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0};

typedef struct callback { /* all that a row may be called by; on the heap, so that it can be freed */
    ol_child child;
    ol_handler handler;
    ol_op op;
    ol_timer timer;
    ol_post_node node;
    char buf[8];
} callback;

enum how { BY_STEPS, WHILE_WOKEN, BY_RUN, BY_DRAIN, BY_DESTROY }; /* who calls the row; B has been woken, not yet run */
enum { AFTER_IT, AT_THE_END };
enum { FDS = 6, OWN = 0, WAITED = 1, BUSY = 2, FREE = 3, JOINER = 4, GUEST = 5 };

static struct {
    enum row row;
    void (*column)(void);
    ol_loop *loop;
    ol_fd fd[FDS];
    int raw[FDS], far[FDS];
    callback *self;
    ol_co root; /* the child's, done's, or the acceptor */
    int calls;  /* of the row */
    int inside; /* it is on the stack */
    int woken;  /* B is to have been woken by then, and not to have run */
    int joins, again, frees;
    int64_t r, root_r, joined[2]; /* results of awaits after the deed */
    char log[1024];
} c;

static void say(const char *format, const char *what) {
    const size_t n = strlen(c.log);
    snprintf(c.log + n, sizeof c.log - n, format, what);
    cr_assert(!c.inside, "'%s' runs inside of the callback", c.log + n);
}
static int times(const char *word) {
    int n = 0;
    for (const char *p = c.log; (p = strstr(p, word)); p++) n++;
    return n;
}
#define said(word, n) cr_assert_eq(times(word), (n), "'%s' should be there %d times: %s", word, n, c.log)
#define before(a, b)                                                                                                   \
    cr_assert(times(a) && times(b) && strstr(c.log, a) < strstr(c.log, b), "'%s' should come before '%s': %s", a, b,   \
              c.log)
#define is(call, want)                                                                                                 \
    do {                                                                                                               \
        const int64_t result = (call);                                                                                 \
        cr_assert_eq(result, (want), "%s gives %lld (%s)", #call, (long long)result, ol_error());                      \
    } while (0)
#define refused(call, want)                                                                                            \
    do {                                                                                                               \
        is(call, want);                                                                                                \
        cr_assert_str_neq(ol_error(), "no error");                                                                     \
    } while (0)

static const char *name_of(int64_t r) {
    static char number[24];
    snprintf(number, sizeof number, "%lld", (long long)r);
    return r == -ECANCELED ? "CANCELED" : r == -EBADF ? "BADF" : r == -ETIMEDOUT ? "TIMEDOUT" : number;
}
static ol_loop_stats stats(void) {
    ol_loop_stats st;
    st.size = sizeof st;
    ol_loop_get_stats(c.loop, &st);
    return st;
}
static void step(int64_t ns) { cr_assert_geq(ol_loop_step(c.loop, ns), 0, "%s", ol_error()); }
static void go(void) { /* steps until nothing moves any more; no time passes */
    uint64_t moved;
    do {
        moved = stats().resumes + stats().events;
        for (int i = 0; i < 3; i++) step(0);
    } while (stats().resumes + stats().events != moved);
}
static int is_open(int i) { return fcntl(c.raw[i], F_GETFD) >= 0; }
static int at_end(int i) { /* the peer sees the end */
    char byte[8];
    ssize_t n;
    while ((n = recv(c.far[i], byte, sizeof byte, MSG_DONTWAIT)) > 0) {
    }
    return n == 0 || errno == ECONNRESET;
}

/* ---- a device that keeps slow calls until it is told to go on, and can refuse to work */

static struct {
    ol_op *kept[16], *ready[16];
    int nkept, nready, keeps, refuses;
    ol_notify *notify;
    ol_exec *exec;
} device;

static int64_t slow(void *arg) {
    (void)arg;
    return 7;
}
static int64_t answer(void *arg) {
    (void)arg;
    return 42;
}
static int device_open(void *self, ol_notify *notify, ol_channel *out) {
    out->self = self;
    out->depth = 16;
    out->flags = OL_CHANNEL_NOTIFIES;
    device.notify = notify;
    return 0;
}
static void device_close(void *self) { (void)self; }
static void device_does(ol_op *op) {
    ol_op_exec(device.exec, op);
    device.ready[device.nready++] = op;
}
static int device_submit(void *self, ol_op *const *ops, int n) {
    (void)self;
    if (device.refuses) return device.refuses = 0, -EIO;
    for (int i = 0; i < n; i++) {
        if (device.keeps && ops[i]->kind == OL_OP_CALL && ops[i]->u.call.fn == slow)
            device.kept[device.nkept++] = ops[i];
        else device_does(ops[i]);
    }
    return n;
}
static int device_poll(void *self, ol_op **ops, int max) {
    int n = 0;
    (void)self;
    while (n < max && device.nready) ops[n++] = device.ready[--device.nready];
    return n;
}
static int device_look(void *self) { return (void)self, __atomic_load_n(&device.nready, __ATOMIC_ACQUIRE); }
static int device_cancel(void *self, ol_op *op) {
    (void)self;
    for (int i = 0; i < device.nkept; i++) {
        if (device.kept[i] != op) continue;
        device.kept[i] = device.kept[--device.nkept];
        op->result = -ECANCELED;
        device.ready[device.nready++] = op;
        return 0;
    }
    return -EBUSY;
}
static void device_goes_on(void) {
    device.keeps = 0;
    while (device.nkept) device_does(device.kept[--device.nkept]);
}
static ol_backend device_backend = {OL_BACKEND_VERSION,
                                    1u << OL_OP_CALL | 1u << OL_OP_CRC32,
                                    "device",
                                    NULL,
                                    device_open,
                                    device_submit,
                                    device_poll,
                                    device_look,
                                    NULL,
                                    device_cancel,
                                    device_close,
                                    NULL,
                                    NULL};

/* ---- the crowd: B reads fd 1 and holds a lock, L waits in line to start there, J waits to join it, N waits for the
   lock, O is an operation of fd 2; and what a column starts: roots S, operations D */

typedef struct other {
    ol_co co;
    ol_fd fd;
    int64_t r;
    const char *name;
    char buf[8];
} other;
static other b, l, j, n, s[3];
static ol_mutex mutex;
static ol_op o, d[3];
static ol_post_node submitter;
static const char big[200];

static void reads(ol_co *co) { /* B and L */
    other *self = OL_SELF(co, other, co);
    OL_BEGIN(co);
    if (self == &b) OL_AWAIT(self->r, ol_lock(co, &mutex));
    OL_AWAIT(self->r, ol_read(co, c.fd[WAITED], self->buf, 1));
    OL_END_THEN(co, say(self == &b ? "B=%s " : "L=%s ", name_of(self->r)));
}
static void joins(ol_co *co) {
    other *self = OL_SELF(co, other, co);
    OL_BEGIN(co);
    OL_AWAIT(self->r, ol_join(co, c.fd[WAITED]));
    OL_END_THEN(co, say("J=%s ", name_of(self->r)));
}
static void locks(ol_co *co) {
    other *self = OL_SELF(co, other, co);
    OL_BEGIN(co);
    OL_AWAIT(self->r, ol_lock(co, &mutex));
    OL_END_THEN(co, say("N=%s ", name_of(self->r)));
}
static void runs(ol_co *co) {
    other *self = OL_SELF(co, other, co);
    OL_BEGIN(co);
    OL_END_THEN(co, say("%s ", self->name));
}
static void is_done(ol_loop *loop, ol_op *op) {
    char text[24];
    (void)loop;
    if (op == &o) say("O=%s ", name_of(op->result));
    if (op == &o) return;
    snprintf(text, sizeof text, "D%d ", (int)(op - d));
    say("%s", text);
}
static void submits_o(ol_loop *loop, ol_post_node *node) {
    (void)node;
    is(ol_submit(loop, ol_prep_call(&o, slow, NULL), is_done), 0);
}
static void crowd(void) {
    is(ol_spawn(c.loop, &b.co, reads, c.fd[WAITED], 0), 0);
    is(ol_spawn(c.loop, &l.co, reads, c.fd[WAITED], 0), 0);
    is(ol_spawn(c.loop, &j.co, joins, c.fd[JOINER], 0), 0);
    is(ol_spawn(c.loop, &n.co, locks, 0, 0), 0);
    submitter.fn = submits_o;
    submitter.fd = c.fd[BUSY];
    is(ol_post(c.loop, &submitter), 0);
    go();
    cr_assert_str_empty(c.log);
}
/* The words of the crowd so far, in this order. */
static void fates(const char *want) {
    char got[128] = "";
    for (const char *who = "BLJNO"; *who; who++) {
        const char word[] = {*who, '=', 0}, *at = strstr(c.log, word);
        if (at) strncat(got, at, (size_t)(strchr(at, ' ') - at + 1));
    }
    cr_assert_str_eq(got, want, "%s instead of %s; all: %s", got, want, c.log);
}

/* ---- the rows */

static void gone(void *self) {
    memset(self, 0xa5, sizeof(callback));
    free(self);
    c.self = NULL;
}
static void deed(void) {
    c.calls++;
    if (c.woken) is(ol__waits(&b.co), OL__W_READY);
    c.inside = 1;
    c.column();
    c.inside = 0;
    say("%s", "out ");
}
static void starts_s(int i, ol_fd fd) {
    static const char *const name[] = {"S0", "S1", "S2"};
    s[i].name = name[i];
    is(ol_spawn(c.loop, &s[i].co, runs, fd, 0), 0);
}
static void withheld_s(ol_fd fd) { /* a root of a partition that is held */
    const uint64_t withheld = stats().withheld;
    starts_s(0, fd);
    cr_assert_eq(stats().withheld, withheld + 1);
}

static void as_coroutine(ol_co *co) {
    callback *self = OL_SELF(co, callback, child.co);
    OL_BEGIN(co);
    deed();
    if (c.joins) {
        OL_AWAIT(c.joined[0], ol_join(co, c.fd[FREE]));
        withheld_s(c.fd[FREE]);
        OL_AWAIT(c.joined[1], ol_join(co, c.fd[WAITED]));
    }
    OL_AWAIT(c.r, ol_read(co, c.fd[OWN], self->buf, 1));
    OL_END_THEN(co, say("%s", "end "); if (c.frees) gone(self));
}
static void as_root_of_child(ol_co *co) {
    OL_BEGIN(co);
    is(ol_fork(co, &c.self->child, as_coroutine), 0);
    OL_AWAIT(c.root_r, ol_wait(co, NULL));
    OL_END_THEN(co, say("%s", "root "));
}
static void as_handler(ol_loop *loop, ol_handler *h, int ready) {
    is(ready, OL_READABLE);
    cr_assert_eq(h, &c.self->handler);
    deed();
    if (c.self && !c.again) (void)ol_unwatch(loop, c.fd[OWN]);
}
static void as_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    cr_assert_eq(op, &c.self->op);
    deed();
}
static void submits_it(ol_loop *loop, ol_post_node *node) {
    (void)node;
    is(ol_submit(loop, &c.self->op, as_done), 0);
}
static void as_root_of_done(ol_co *co) {
    static char buf[8];
    OL_BEGIN(co);
    is(ol_submit(co->loop, &c.self->op, as_done), 0);
    OL_AWAIT(c.root_r, ol_read(co, c.fd[OWN], buf, 1));
    OL_END_THEN(co, say("%s", "root "));
}
static void as_timer(ol_loop *loop, ol_timer *t) {
    (void)loop;
    cr_assert_eq(t, &c.self->timer);
    deed();
}
static void as_post(ol_loop *loop, ol_post_node *node) {
    (void)loop;
    cr_assert_eq(node, &c.self->node);
    deed();
}
static void as_log(void *user, int level, const char *text) {
    cr_assert_eq(user, &c);
    cr_assert_eq(level, 1);
    cr_assert_not_null(strstr(text, c.row == log_of_refusal ? "refused" : "ulimit"));
    deed();
}
static void as_acceptor(ol_co *co) {
    OL_BEGIN(co);
    ol_cancel_clear(co); /* in a drain */
    do OL_AWAIT(c.root_r, ol_accept(co, c.fd[OWN]));
    while (c.root_r == -EMFILE);
    if (c.root_r >= 0) is(ol_close(co->loop, (ol_fd)c.root_r), 0);
    OL_END_THEN(co, say("%s", "root "));
}
static void as_accepting_handler(ol_loop *loop, ol_handler *h, int ready) {
    (void)ready;
    is(ol_try_accept(loop, h->fd), -EMFILE);
    (void)ol_unwatch(loop, h->fd);
}
static void is_refused(ol_loop *loop, ol_op *op) {
    if (op->why == OL_WHY_STOPPED) return;
    is(op->result, 42);
    cr_assert_str_eq(ol_op_where(loop, op), "software");
}
static void as_refused_root(ol_co *co) {
    OL_BEGIN(co);
    is(ol_submit(co->loop, ol_prep_call(&c.self->op, answer, NULL), is_refused), 0);
    OL_END(co);
}

static void start(enum how how) {
    callback *self = c.self;
    ol_prep_call(&self->op, how == BY_DRAIN || how == BY_DESTROY ? slow : answer, NULL);
    if (c.row == handler || c.row == log_of_accept || c.row == log_of_try) {
        is(write(c.far[OWN], "x", 1), 1);
        go();
    }
    accepts_to_fail = c.row == log_of_accept || c.row == log_of_try;
    switch (c.row) {
    case coroutine: is(ol_spawn(c.loop, &self->child.co, as_coroutine, c.fd[OWN], 0), 0); break;
    case child: is(ol_spawn(c.loop, &c.root, as_root_of_child, c.fd[OWN], 0), 0); break;
    case handler: is(ol_watch(c.loop, c.fd[OWN], &self->handler, OL_READABLE, as_handler), 0); break;
    case done:
        self->node.fd = c.fd[OWN];
        self->node.fn = submits_it;
        is(ol_post(c.loop, &self->node), 0);
        break;
    case done_of_root: is(ol_spawn(c.loop, &c.root, as_root_of_done, c.fd[OWN], 0), 0); break;
    case gated_timer: self->timer.fd = c.fd[OWN]; /* fall through */
    case timer: is(ol_timer_start(c.loop, &self->timer, 0, as_timer), 0); break;
    case gated_post: self->node.fd = c.fd[OWN]; /* fall through */
    case post:
        self->node.fn = as_post;
        is(ol_post(c.loop, &self->node), 0);
        break;
    case log_of_accept: is(ol_spawn(c.loop, &c.root, as_acceptor, c.fd[OWN], 0), 0); break;
    case log_of_try: is(ol_watch(c.loop, c.fd[OWN], &self->handler, OL_READABLE, as_accepting_handler), 0); break;
    default: device.refuses = 1; is(ol_spawn(c.loop, &c.root, as_refused_root, 0, 0), 0);
    }
    if ((how == BY_DRAIN || how == BY_DESTROY) && (c.row == done || c.row == done_of_root)) go();
}

/* ---- the frame of each test */

static void guest_is_free(ol_loop *loop, ol_handler *h, int ready) { (void)loop, (void)h, (void)ready; }
static void make_loop(void) {
    static ol_handler guest;
    ol_backend *backends = &device_backend;
    ol_loop_desc desc;
    memset(&desc, 0, sizeof desc);
    memset(&guest, 0, sizeof guest);
    desc.backends = &backends;
    desc.nbackends = 1;
    desc.no_pool = 1;
    desc.policy = "call any 0- async device wait\ncrc32 any 0-100 async device wait";
    desc.log = as_log;
    desc.log_user = &c;
    is(ol_loop_create(&c.loop, &desc), 0);
    for (int i = 0; i < FDS; i++) {
        int sv[2];
        is(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
        is(i == GUEST ? ol_attach_guest(c.loop, sv[0], 0, &c.fd[i]) : ol_attach(c.loop, sv[0], 0, &c.fd[i]), 0);
        c.raw[i] = sv[0];
        c.far[i] = sv[1];
    }
    is(ol_watch(c.loop, c.fd[GUEST], &guest, OL_READABLE, guest_is_free), 0);
}
static void finale(void) { /* all that somebody waits for comes */
    device_goes_on();
    is(write(c.far[WAITED], "xx", 2) == 2 || errno == EPIPE, 1);
    if (rooted[c.row]) is(write(c.far[OWN], "x", 1) == 1 || errno == EPIPE, 1);
    for (int i = 0; i < 100 && (stats().roots || stats().ops); i++) step(1000000);
    is(stats().roots, 0);
    is(stats().ops, 0);
    if (c.self) (void)ol_unwatch(c.loop, c.fd[OWN]);
}

static void cell(enum row row, void (*column)(void), void (*check)(int when), enum how how) {
    const int fds = open_fds();
    signal(SIGPIPE, SIG_IGN);
    c.row = row;
    c.column = column;
    c.r = c.root_r = c.joined[0] = c.joined[1] = 99;
    c.self = (callback *)calloc(1, sizeof *c.self);
    memset(&c.self->child, 0xa5, sizeof c.self->child); /* need not be initialised */
    device.keeps = 1;
    device.exec = ol_exec_create();
    make_loop();
    if (how != BY_DESTROY) crowd();
    start(how);
    c.woken = how == WHILE_WOKEN;
    if (c.woken) is(write(c.far[WAITED], "x", 1), 1);
    clock_ns += 1000000; /* time to ask the kernel again, although there is something to do */
    if (how == BY_RUN) is(ol_loop_run(c.loop), 0);
    if (how == BY_DRAIN) is(ol_loop_drain(c.loop, (int64_t)60 * 1000000000), 0);
    if (how == BY_DESTROY) is(ol_loop_destroy(c.loop), 0);
    for (int i = 0; i < 20 && !c.calls && how <= WHILE_WOKEN; i++) step(1000000);
    cr_assert(c.calls, "it was not called");
    if (how != BY_DESTROY) {
        go();
        if (check) check(AFTER_IT);
        finale();
        if (check) check(AT_THE_END);
        is(ol_loop_destroy(c.loop), 0);
        for (const char *who = "BLJNO"; *who; who++) said(((char[]){*who, '=', 0}), 1);
    }
    ol_exec_destroy(device.exec);
    for (int i = 0; i < FDS; i++) close(c.far[i]);
    free(c.self);
    cr_assert_eq(live, 0, "%ld allocations leaked", live);
    cr_assert_eq(open_fds(), fds, "fds leaked");
}

#define CELL(row, column, check, how)                                                                                  \
    Test(inside, row##_##column) { cell(row, column, check, how); }
#define IN_CO(column, check, how) CELL(coroutine, column, check, how) CELL(child, column, check, how)
#define OF_PART(column, check, how)                                                                                    \
    CELL(handler, column, check, how)                                                                                  \
    CELL(done, column, check, how)                                                                                     \
    CELL(done_of_root, column, check, how)                                                                             \
    CELL(gated_timer, column, check, how)                                                                              \
    CELL(gated_post, column, check, how)                                                                               \
    CELL(log_of_accept, column, check, how)                                                                            \
    CELL(log_of_try, column, check, how)
#define OF_NONE(column, check, how)                                                                                    \
    CELL(timer, column, check, how) CELL(post, column, check, how) CELL(log_of_refusal, column, check, how)
#define EVERYBODY(column, check, how) IN_CO(column, check, how) OF_PART(column, check, how) OF_NONE(column, check, how)

/* ---- column ol_close */

static void closes_its_own_fd(void) {
    is(ol_close(c.loop, c.fd[OWN]), 0);
    refused(ol_close(c.loop, c.fd[OWN]), -EBADF);
    refused(ol_fd_raw(c.loop, c.fd[OWN]), -EBADF);
}
static void own_is_closed(int when) {
    if (when == AFTER_IT) fates("");
    is(is_open(OWN), 0);
    is(at_end(OWN), 1);
    is(c.calls, 1);
    if (c.row == coroutine || c.row == child) is(c.r, -EBADF);
    if (c.row == done_of_root || c.row == log_of_accept) is(c.root_r, -ECANCELED);
    if (rooted[c.row]) said("out ", 1);
    said("root ", c.row == child || c.row == done_of_root || c.row == log_of_accept);
}
IN_CO(closes_its_own_fd, own_is_closed, BY_STEPS)
OF_PART(closes_its_own_fd, own_is_closed, BY_STEPS)

static void closes_another_fd(void) { is(ol_close(c.loop, c.fd[FREE]), 0); }
static void another_is_closed(int when) {
    fates(when == AFTER_IT ? "" : "B=1 L=1 J=0 N=0 O=7 ");
    is(is_open(FREE), 0);
    is(at_end(FREE), 1);
}
EVERYBODY(closes_another_fd, another_is_closed, BY_STEPS)

static void closes_an_fd_with_waiters(void) { is(ol_close(c.loop, c.fd[WAITED]), 0); }
static void waiters_are_told(int when) {
    fates(when == AFTER_IT ? "B=CANCELED L=BADF J=CANCELED N=0 " : "B=CANCELED L=BADF J=CANCELED N=0 O=7 ");
    is(is_open(WAITED), 0);
}
EVERYBODY(closes_an_fd_with_waiters, waiters_are_told, BY_STEPS)
#define WOKEN(column, check)                                                                                           \
    Test(inside, timer_##column##_that_is_woken) { cell(timer, column, check, WHILE_WOKEN); }                          \
    Test(inside, post_##column##_that_is_woken) { cell(post, column, check, WHILE_WOKEN); }
WOKEN(closes_an_fd_with_waiters, waiters_are_told)

static void closes_an_fd_with_an_operation(void) {
    is(ol_close(c.loop, c.fd[BUSY]), 0);
    is(is_open(BUSY), 1); /* until the operation is done */
    is(at_end(BUSY), 1);  /* but the peer sees it now */
}
static void operation_is_stopped(int when) {
    fates(when == AFTER_IT ? "O=CANCELED " : "B=1 L=1 J=0 N=0 O=CANCELED ");
    if (when == AFTER_IT) is(is_open(BUSY), 0);
}
EVERYBODY(closes_an_fd_with_an_operation, operation_is_stopped, BY_STEPS)

/* ---- column ol_cancel */

static void cancels_its_coroutine(void) {
    ol_cancel(c.row == coroutine || c.row == child ? &c.self->child.co : &c.root);
}
static void it_is_cancelled(int when) {
    if (when == AFTER_IT) fates("");
    said("out ", 1);
    is(c.row == coroutine || c.row == child ? c.r : c.root_r, -ECANCELED);
    if (c.row == child) is(c.root_r, 0); /* which was not */
    said(c.row == coroutine ? "end " : "root ", 1);
}
IN_CO(cancels_its_coroutine, it_is_cancelled, BY_STEPS)
CELL(done_of_root, cancels_its_coroutine, it_is_cancelled, BY_STEPS)
CELL(log_of_accept, cancels_its_coroutine, it_is_cancelled, BY_STEPS)

static void cancels_its_root(void) { /* and so itself */
    ol_cancel(&c.root);
}
static void both_are_cancelled(int when) {
    if (when == AFTER_IT) fates("");
    is(c.r, -ECANCELED);
    is(c.root_r, -ECANCELED);
    before("end ", "root ");
}
CELL(child, cancels_its_root, both_are_cancelled, BY_STEPS)

static void cancels_another(void) {
    ol_cancel(&b.co);
    is(ol_canceled(&b.co), 1);
}
static void another_is_cancelled(int when) {
    fates(when == AFTER_IT ? "B=CANCELED N=0 " : "B=CANCELED L=1 J=0 N=0 O=7 ");
}
EVERYBODY(cancels_another, another_is_cancelled, BY_STEPS)
static void woken_one_is_cancelled(int when) { /* L reads the byte that B was woken for */
    fates(when == AFTER_IT ? "B=CANCELED L=1 J=0 N=0 " : "B=CANCELED L=1 J=0 N=0 O=7 ");
}
WOKEN(cancels_another, woken_one_is_cancelled)

static void cancels_those_in_line(void) { /* who has not started yet hears of it when he has */
    ol_cancel(&l.co);
    ol_cancel(&j.co);
    ol_cancel(&n.co);
}
static void those_in_line_are_cancelled(int when) {
    fates(when == AFTER_IT ? "J=CANCELED N=CANCELED " : "B=1 L=CANCELED J=CANCELED N=CANCELED O=7 ");
}
EVERYBODY(cancels_those_in_line, those_in_line_are_cancelled, BY_STEPS)

static void cancels_an_operation(void) { is(ol_op_cancel(c.loop, &o), 0); }
static void operation_is_cancelled(int when) {
    fates(when == AFTER_IT ? "O=CANCELED " : "B=1 L=1 J=0 N=0 O=CANCELED ");
}
EVERYBODY(cancels_an_operation, operation_is_cancelled, BY_STEPS)

static void cancels_its_operation(void) { is(ol_op_cancel(c.loop, &c.self->op), 0); }
static void it_has_not_run(int when) {
    fates(when == AFTER_IT ? "" : "B=1 L=1 J=0 N=0 O=7 ");
    is(c.self->op.result, -ECANCELED);
    is(c.self->op.why, OL_WHY_STOPPED);
}
CELL(log_of_refusal, cancels_its_operation, it_has_not_run, BY_STEPS)

/* ---- column join */

static void awaits_a_join(void) { c.joins = 1; }
static void has_joined(int when) {
    fates(when == AFTER_IT ? "" : "B=1 L=1 J=0 N=0 O=7 ");
    is(c.joined[0], 0);
    is(c.joined[1], when == AFTER_IT ? 99 : 0); /* it waits its turn behind L and J */
    said("S0 ", when == AT_THE_END);
    if (when == AFTER_IT) return;
    before("J=", "end ");
    before(c.row == child ? "root " : "end ", "S0 ");
}
IN_CO(awaits_a_join, has_joined, BY_STEPS)

static void joins_now(void) {
    is(ol_try_join(c.loop, c.fd[OWN], c.fd[FREE]), 0);
    if (gated[c.row]) refused(ol_try_join(c.loop, c.fd[OWN], c.fd[WAITED]), -EBUSY);
    else is(ol_try_join(c.loop, c.fd[OWN], c.fd[WAITED]), 0);
    withheld_s(c.fd[FREE]);
}
static void they_are_one(int when) {
    fates(when == AFTER_IT ? "" : "B=1 L=1 J=0 N=0 O=7 ");
    said("S0 ", when == AT_THE_END || (gated[c.row] && !rooted[c.row]));
    if (when == AFTER_IT) return;
    before(rooted[c.row] ? "root " : "out ", "S0 ");
    if (!gated[c.row]) before("L=", "S0 ");
}
OF_PART(joins_now, they_are_one, BY_STEPS)
OF_NONE(joins_now, they_are_one, BY_STEPS)

/* ---- columns spawn, submit */

static void spawns(void) {
    starts_s(0, c.fd[OWN]);
    starts_s(1, c.fd[FREE]);
    starts_s(2, 0);
}
static void hold_ends_first(void) { /* before S0 runs */
    before(c.row == coroutine ? "end " : rooted[c.row] ? "root " : "out ", "S0 ");
}
static void spawned_ones_run(int when) {
    said("S0 ", when == AT_THE_END || !rooted[c.row]);
    said("S1 ", 1);
    said("S2 ", 1);
    if (when == AT_THE_END) hold_ends_first();
}
EVERYBODY(spawns, spawned_ones_run, BY_STEPS)

static void submits(void) {
    is(ol_submit(c.loop, ol_prep_call(&d[0], slow, NULL), is_done), 0);
    is(ol_submit(c.loop, ol_prep_crc32(&d[1], 0, "abc", 3), is_done), 0);
    is(ol_submit(c.loop, ol_prep_crc32(&d[2], 0, big, sizeof big), is_done), 0); /* runs here, is reported later */
    refused(ol_submit(c.loop, &d[0], is_done), -EBUSY);
    starts_s(0, c.fd[OWN]);
}
static void operations_run_and_hold_the_partition(int when) {
    said("D0 ", when == AT_THE_END || c.row == log_of_refusal); /* which all of that burst goes round */
    said("D1 ", 1);
    said("D2 ", 1);
    said("S0 ", when == AT_THE_END || !gated[c.row]);
    if (when == AFTER_IT) return;
    is(d[0].result, 7);
    is(d[1].result, 0x352441c2);
    hold_ends_first();
    if (gated[c.row]) before("D0 ", "S0 ");
}
EVERYBODY(submits, operations_run_and_hold_the_partition, BY_STEPS)

static void submits_in_a_drain(void) {
    if (in_co[c.row]) is(ol_submit(c.loop, ol_prep_crc32(&d[1], 0, "abc", 3), is_done), 0);
    else refused(ol_submit(c.loop, ol_prep_crc32(&d[1], 0, "abc", 3), is_done), -ECANCELED);
}
static void drain_has_ended_all(int when) {
    (void)when;
    fates("B=CANCELED L=CANCELED J=CANCELED N=CANCELED O=CANCELED ");
    said("D1 ", in_co[c.row]);
}
EVERYBODY(submits_in_a_drain, drain_has_ended_all, BY_DRAIN)

static void submits_in_a_destroy(void) {
    refused(ol_submit(c.loop, ol_prep_crc32(&d[1], 0, "abc", 3), is_done), -ECANCELED);
}
CELL(done, submits_in_a_destroy, NULL, BY_DESTROY)
CELL(timer, submits_in_a_destroy, NULL, BY_DESTROY)
CELL(gated_timer, submits_in_a_destroy, NULL, BY_DESTROY)
CELL(post, submits_in_a_destroy, NULL, BY_DESTROY)
CELL(gated_post, submits_in_a_destroy, NULL, BY_DESTROY)

/* ---- columns again, free its own struct */

static void is_called_again(void) { /* twice; then it is free */
    callback *self = c.self;
    c.again = 1;
    if (c.calls == 3) {
        if (c.row == handler) is(ol_unwatch(c.loop, c.fd[OWN]), 0);
        gone(self);
        return;
    }
    if (c.row == done || c.row == done_of_root) is(ol_submit(c.loop, &self->op, as_done), 0);
    if (c.row == timer || c.row == gated_timer) is(ol_timer_start(c.loop, &self->timer, 0, as_timer), 0);
    if (c.row == post || c.row == gated_post) is(ol_post(c.loop, &self->node), 0);
}
static void called_thrice(int when) {
    (void)when;
    is(c.calls, 3);
    said("out ", 3);
}
#define AGAIN(column, check)                                                                                           \
    CELL(handler, column, check, BY_STEPS)                                                                             \
    CELL(done, column, check, BY_STEPS)                                                                                \
    CELL(done_of_root, column, check, BY_STEPS)                                                                        \
    CELL(timer, column, check, BY_STEPS)                                                                               \
    CELL(gated_timer, column, check, BY_STEPS)                                                                         \
    CELL(post, column, check, BY_STEPS)                                                                                \
    CELL(gated_post, column, check, BY_STEPS)
AGAIN(is_called_again, called_thrice)

static void is_called_while_ready(void) {
    c.again = 1;
    if (c.calls >= 3) is(ol_try_read(c.loop, c.fd[OWN], c.self->buf, 8), c.calls == 3 ? 1 : -EAGAIN);
}
static void called_until_it_had_read(int when) {
    (void)when;
    is(c.calls, 4); /* the last time to see that there is no more */
}
CELL(handler, is_called_while_ready, called_until_it_had_read, BY_STEPS)

static void frees_itself(void) {
    if (c.row == handler) is(ol_close(c.loop, c.fd[OWN]), 0);
    if (c.row == coroutine || c.row == child) c.frees = 1; /* in OL_END_THEN */
    else gone(c.self);
}
static void is_gone(int when) {
    if (when == AT_THE_END) cr_assert_null(c.self);
    is(c.calls, 1);
}
IN_CO(frees_itself, is_gone, BY_STEPS)
AGAIN(frees_itself, is_gone)

static void frees_itself_after_unwatch(void) {
    is(ol_unwatch(c.loop, c.fd[OWN]), 0);
    gone(c.self);
}
CELL(handler, frees_itself_after_unwatch, is_gone, BY_STEPS)

static ol_handler heir;
static void takes_over(ol_loop *loop, ol_handler *h, int ready) {
    is(ready, OL_READABLE);
    say("%s", "heir ");
    is(ol_unwatch(loop, h->fd), 0);
}
static void frees_itself_after_a_successor(void) {
    is(ol_watch(c.loop, c.fd[OWN], &heir, OL_READABLE, takes_over), 0);
    gone(c.self);
}
static void heir_is_called(int when) {
    is_gone(when);
    before("out ", "heir ");
}
CELL(handler, frees_itself_after_a_successor, heir_is_called, BY_STEPS)

/* ---- below the table */

static ol_timer guard;
static void too_late(ol_loop *loop, ol_timer *t) {
    (void)t;
    say("%s", "late ");
    ol_loop_stop(loop);
}
static void stops_the_loop(void) {
    ol_loop_stop(c.loop);
    refused(ol_loop_run(c.loop), -EBUSY);                                        /* which changes nothing */
    is(ol_timer_start(c.loop, &guard, (int64_t)3600 * 1000000000, too_late), 0); /* else it would run until then */
}
static void has_stopped(int when) {
    said("out ", 1);
    said("late ", 0);
    fates(when == AFTER_IT ? "" : "B=1 L=1 J=0 N=0 O=7 ");
    if (when == AFTER_IT) return;
    ol_timer_stop(c.loop, &guard);
}
EVERYBODY(stops_the_loop, has_stopped, BY_RUN)

static void cannot_run_the_loop(void) {
    refused(ol_loop_step(c.loop, 0), -EBUSY);
    refused(ol_loop_run(c.loop), -EBUSY);
    refused(ol_loop_drain(c.loop, 1), -EBUSY);
    refused(ol_loop_destroy(c.loop), -EBUSY);
    cr_assert_not_null(strstr(ol_error(), "inside"), "%s", ol_error());
    refused(ol_gate_enter(c.loop, c.fd[GUEST], OL_READABLE), -EBUSY);
}
static void all_goes_on(int when) { fates(when == AFTER_IT ? "" : "B=1 L=1 J=0 N=0 O=7 "); }
EVERYBODY(cannot_run_the_loop, all_goes_on, BY_STEPS)

/* ---- the function of an OL_OP_CALL, on a worker */

static struct {
    ol_loop *loop;
    sem_t seen; /* the loop's thread has seen it, while the worker waits: it was not the call's own completion */
    ol_post_node node;
    ol_op op, inner;
    ol_exec *exec;
    int64_t crc;
    pthread_t thread;
    int posted, notified;
} w;
static void worker_waits(void) {
    while (sem_wait(&w.seen) != 0) {
    }
    w.thread = pthread_self();
}
static void is_posted(ol_loop *loop, ol_post_node *node) {
    (void)loop, (void)node;
    w.posted++;
    sem_post(&w.seen);
}
static int64_t posts(void *arg) {
    (void)arg;
    const int accepted = ol_post(w.loop, &w.node) == 0;
    worker_waits();
    return accepted;
}
static int64_t notifies(void *arg) { /* as an engine does that has finished an operation */
    (void)arg;
    ol_op_exec(w.exec, device.kept[0]);
    device.ready[0] = device.kept[0];
    __atomic_store_n(&device.nready, 1, __ATOMIC_RELEASE);
    ol_notify_loop(device.notify);
    worker_waits();
    return 1;
}
static void engine_is_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    is(op->result, 7);
    w.notified++;
    sem_post(&w.seen);
}
static int64_t executes(void *arg) {
    (void)arg;
    w.crc = ol_op_exec(w.exec, ol_prep_crc32(&w.inner, 0, "abc", 3));
    sem_post(&w.seen);
    worker_waits();
    return 1;
}
static void call_is_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    is(op->result, 1);
}
static void on_a_worker(int64_t (*fn)(void *), const char *policy) {
    ol_backend *backends = &device_backend;
    ol_loop_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.backends = &backends;
    desc.nbackends = 1;
    desc.policy = policy;
    is(sem_init(&w.seen, 0, 0), 0);
    is(ol_loop_create(&w.loop, &desc), 0);
    w.exec = ol_exec_create();
    w.node.fn = is_posted;
    device.keeps = 1;
    if (fn == notifies) {
        ol_prep_call(&w.inner, slow, NULL)->len = 1;
        is(ol_submit(w.loop, &w.inner, engine_is_done), 0);
        is(ol_loop_step(w.loop, 0), 1);
    }
    is(ol_submit(w.loop, ol_prep_call(&w.op, fn, NULL), call_is_done), 0);
    is(ol_loop_run(w.loop), 0);
    is(pthread_equal(w.thread, pthread_self()), 0);
    is(ol_loop_destroy(w.loop), 0);
    ol_exec_destroy(w.exec);
    is(live, 0);
}
Test(inside, worker_posts) {
    on_a_worker(posts, "call any 0- async threads wait");
    is(w.posted, 1);
}
Test(inside, worker_notifies) {
    on_a_worker(notifies, "call any 1- async device wait\ncall any 0- async threads wait");
    is(w.notified, 1);
}
Test(inside, worker_executes) {
    on_a_worker(executes, "call any 0- async threads wait");
    is(w.crc, 0x352441c2);
}
