/* Each public function, called wrongly in each way that it looks for, one at a time: the errno, a word of the text that
   names the remedy, and that nothing has changed and nothing is lost. The functions' own tests call them rightly.
   cc -O2 -I. tests/criterion/arguments.c -o build/tests/arguments -lcriterion -lisal -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "counted.h"
#define OFFLOAD_IMPLEMENTATION
#define OFFLOAD_ISAL
#include "offload.h"

#include <criterion/criterion.h>

/* ---- a backend that holds what it gets until it is told to go on, and then executes it by ol_op_exec */

static struct {
    ol_op *op[8];
    int n, go;
    ol_exec *exec;
} device;
static int device_open(void *self, ol_notify *notify, ol_channel *out) {
    (void)notify;
    out->self = self;
    out->depth = 8;
    return 0;
}
static int device_submit(void *channel, ol_op *const *ops, int n) {
    (void)channel;
    for (int i = 0; i < n; i++) device.op[device.n++] = ops[i];
    return n;
}
static int device_poll(void *channel, ol_op **ops, int max) {
    (void)channel;
    int n = 0;
    while (n < max && device.n) {
        ops[n] = device.op[--device.n];
        cr_assert_eq(ol_op_exec(device.exec, ops[n]), ops[n]->result);
        n++;
    }
    return n;
}
static int device_look(void *channel) {
    (void)channel;
    return device.go && device.n;
}
static void device_close(void *channel) { (void)channel; }
static ol_backend a_backend(const char *name) {
    ol_backend b;
    memset(&b, 0, sizeof b);
    b.version = OL_BACKEND_VERSION;
    b.kinds = 1u << OL_OP_CALL | 1u << OL_OP_CRC32;
    b.name = name;
    b.open = device_open;
    b.submit = device_submit;
    b.poll = device_poll;
    b.look = device_look;
    b.close = device_close;
    return b;
}

/* ---- the world: what the rows of the tables name */

static struct {
    ol_loop *loop, *other; /* the other one is there so that there are things of another loop */
    ol_backend backend;
    ol_fd fd;      /* free */
    ol_fd held;    /* in the hold of `sleeper`, who waits to read it */
    ol_fd held2;   /* of an operation that is out */
    ol_fd guest;   /* without a handler */
    ol_fd watched; /* a guest with one */
    ol_fd stale, handle;
    int far[8], fars, regular, closed;
    ol_co sleeper, elsewhere, co;
    ol_child child, foreign; /* of `sleeper`; of the other loop's `elsewhere` */
    ol_mutex mutex, free_mutex;
    ol_op op, out, garbage, crc, codec; /* `out` is out */
    ol_stream stream;
    ol_handler handler, second;
    ol_timer timer;
    ol_policy policy;
    struct stat st;
    struct sockaddr_in address;
    struct iovec iov[2], vast[2];
    ol_exec *exec;
    char buf[64];
    int fds_before, calls;
} w;

static void never(ol_co *co) {
    OL_BEGIN(co);
    w.calls++;
    OL_END(co);
}
static void never_timer(ol_loop *loop, ol_timer *timer) { (void)loop, (void)timer, w.calls++; }
static void never_handler(ol_loop *loop, ol_handler *h, int ready) { (void)loop, (void)h, (void)ready, w.calls++; }
static void never_done(ol_loop *loop, ol_op *op) { (void)loop, (void)op, w.calls++; }
static int dones;
static void done(ol_loop *loop, ol_op *op) { (void)loop, (void)op, dones++; }
static int64_t five(void *arg) {
    (void)arg;
    return 5;
}

static void waits_as_child(ol_co *co) {
    OL_BEGIN(co);
    OL_DO(ol_sleep(co, OL_NEVER));
    OL_END(co);
}
static void sleeps(ol_co *co) { /* w.sleeper: holds a partition, a mutex, and has a child */
    OL_BEGIN(co);
    OL_DO(ol_lock(co, &w.mutex));
    cr_assert_eq(ol_fork(co, &w.child, waits_as_child), 0);
    OL_DO(ol_read(co, w.held, w.buf, 1));
    OL_END(co);
}
static ol_mutex far_mutex;
static void sleeps_elsewhere(ol_co *co) {
    OL_BEGIN(co);
    OL_DO(ol_lock(co, &far_mutex));
    cr_assert_eq(ol_fork(co, &w.foreign, waits_as_child), 0);
    OL_DO(ol_sleep(co, OL_NEVER));
    OL_END(co);
}

static int one_end(void) { /* of a socket pair */
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    w.far[w.fars++] = sv[1];
    return sv[0];
}
static ol_fd attached(int guest) {
    ol_fd fd = 0;
    cr_assert_eq((guest ? ol_attach_guest : ol_attach)(w.loop, one_end(), 0, &fd), 0, "%s", ol_error());
    return fd;
}
static void submit_in(ol_loop *loop, ol_handler *h, int ready) {
    (void)ready;
    cr_assert_eq(ol_submit(loop, ol_prep_call(&w.out, five, NULL), done), 0, "%s", ol_error());
    cr_assert_eq(ol_unwatch(loop, h->fd), 0);
}

static void begin(void) {
    static ol_backend *list[1] = {&w.backend};
    static ol_handler once;
    ol_loop_desc d;
    w.fds_before = open_fds();
    memset(&d, 0, sizeof d);
    w.backend = a_backend("device");
    d.backends = list;
    d.nbackends = 1;
    d.no_pool = 1;
    d.policy = "call any 0- async device wait";
    cr_assert_eq(ol_loop_create(&w.loop, &d), 0, "%s", ol_error());
    d.nbackends = 0;
    d.policy = NULL;
    cr_assert_eq(ol_loop_create(&w.other, &d), 0, "%s", ol_error());
    w.fd = attached(0);
    w.held = attached(0);
    w.held2 = attached(0);
    w.guest = attached(1);
    w.watched = attached(1);
    cr_assert_eq(ol_watch(w.loop, w.watched, &w.handler, OL_READABLE, never_handler), 0);
    w.stale = attached(0);
    cr_assert_eq(ol_close(w.loop, w.stale), 0);
    cr_assert_eq(ol_spawn(w.loop, &w.sleeper, sleeps, w.held, 0), 0);
    cr_assert_eq(ol_spawn(w.other, &w.elsewhere, sleeps_elsewhere, 0, 0), 0);
    cr_assert_eq(ol_watch(w.loop, w.held2, &once, OL_WRITABLE, submit_in), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(ol_loop_step(w.loop, 0), 1);
        cr_assert_eq(ol_loop_step(w.other, 0), 1);
    }
    cr_assert_eq(device.n, 1);
    ol_prep_crc32(&w.op, 0, w.buf, sizeof w.buf);
    memset(&w.garbage, 0xa5, sizeof w.garbage);
    w.regular = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    w.closed = dup(0);
    close(w.closed);
    w.iov[0].iov_base = w.buf;
    w.vast[0].iov_base = w.vast[1].iov_base = w.buf; /* each length is a legal one */
    w.vast[0].iov_len = w.vast[1].iov_len = (size_t)SSIZE_MAX;
    w.address.sin_family = AF_INET;
    w.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    w.exec = device.exec = ol_exec_create();
}
static void end(void) {
    device.go = 1;
    cr_assert_eq(ol_loop_drain(w.loop, (int64_t)60 * 1000000000), 0);
    cr_assert_eq(ol_loop_drain(w.other, (int64_t)60 * 1000000000), 0);
    cr_assert_eq(dones, 1);
    cr_assert_eq(w.calls, 0, "something ran that was refused");
    cr_assert_eq(ol_loop_destroy(w.loop), 0, "%s", ol_error());
    cr_assert_eq(ol_loop_destroy(w.other), 0, "%s", ol_error());
    ol_exec_destroy(w.exec);
    for (int i = 0; i < w.fars; i++) close(w.far[i]);
    close(w.regular);
    cr_assert_eq(open_fds(), w.fds_before, "fds leaked");
    cr_assert_eq(live, 0, "%ld allocations leaked", live);
}

/* What a refused call must leave as it is. */
typedef struct state {
    uint32_t roots, ops, fds, timers, user_timers, handlers, parts, draining, guest_part, lanes;
    int open;
    ol_policy policy;
} state;
static state state_of(const ol_loop *loop) {
    state s;
    memset(&s, 0, sizeof s);
    s.roots = loop->stats.roots;
    s.ops = loop->ops;
    s.fds = loop->stats.fds;
    s.timers = loop->heap_n;
    s.user_timers = loop->user_timers;
    s.handlers = loop->handlers;
    s.parts = loop->used_parts;
    for (uint32_t i = loop->free_part; i; i = loop->part[i].closing) s.parts--;
    s.draining = (uint32_t)loop->draining;
    s.guest_part = loop->guest_part;
    s.lanes = loop->lanes;
    s.open = open_fds();
    s.policy = loop->policy;
    return s;
}
static void expect(const char *call, int64_t result, int number, const char *text, const char *word,
                   const state *before) {
    const state after = state_of(w.loop);
    cr_assert_eq(result, -number, "%s: %s (%d) instead of %s", call, strerror((int)-result), (int)result,
                 strerror(number));
    cr_assert_not_null(strstr(text, word), "%s: '%s' doesn't say '%s'", call, text, word);
    cr_assert(memcmp(&after, before, sizeof after) == 0, "%s has changed something", call);
}

/* The call comes before what it has said. */
#define REFUSES(what, number, word, before, call)                                                                      \
    do {                                                                                                               \
        const int64_t refused_ = (call);                                                                               \
        expect((what), refused_, (number), ol_error(), (word), (before));                                              \
    } while (0)

TestSuite(arguments, .timeout = 60);

/* ---- calls from outside */

#define CALLS(X)                                                                                                       \
    X(EINVAL, "co and fn", ol_spawn(NULL, &w.co, never, 0, 0))                                                         \
    X(EINVAL, "co and fn", ol_spawn(w.loop, NULL, never, 0, 0))                                                        \
    X(EINVAL, "co and fn", ol_spawn(w.loop, &w.co, NULL, 0, 0))                                                        \
    X(EINVAL, "OL_BATCH", ol_spawn(w.loop, &w.co, never, 0, -1))                                                       \
    X(EINVAL, "OL_BATCH", ol_spawn(w.loop, &w.co, never, 0, 3))                                                        \
    X(EBADF, "use the handle", ol_spawn(w.loop, &w.co, never, w.stale, 0))                                             \
    X(EBADF, "use the handle", ol_spawn(w.loop, &w.co, never, 1 << 30, 0))                                             \
    X(EINVAL, "running coroutine", ol_fork(NULL, &w.child, never))                                                     \
    X(EINVAL, "running coroutine", ol_fork(&w.sleeper, &w.child, never))                                               \
    X(EINVAL, "OL_LATENCY or OL_BATCH", ol_set_class(&w.sleeper, 0))                                                   \
    X(EINVAL, "OL_LATENCY or OL_BATCH", ol_set_class(&w.sleeper, 3))                                                   \
    X(EBADF, "use the handle", ol_try_join(NULL, w.fd, w.held))                                                        \
    X(EBADF, "use the handle", ol_try_join(w.loop, w.stale, w.fd))                                                     \
    X(EBADF, "use the handle", ol_try_join(w.loop, w.fd, w.stale))                                                     \
    X(EBUSY, "when one is free", ol_try_join(w.loop, w.held, w.held2))                                                 \
    X(EINVAL, "does not hold", ol_unlock(NULL, &w.mutex))                                                              \
    X(EINVAL, "does not hold", ol_unlock(&w.sleeper, NULL))                                                            \
    X(EINVAL, "does not hold", ol_unlock(&w.sleeper, &w.free_mutex))                                                   \
    X(EINVAL, "does not hold", ol_unlock(&w.sleeper, &far_mutex))                                                      \
    X(EINVAL, "comments in offload.h", ol_loop_create(NULL, NULL))                                                     \
    X(EBUSY, "ol_loop_drain", ol_loop_destroy(w.loop))                                                                 \
    X(EINVAL, "NULL", ol_loop_run(NULL))                                                                               \
    X(EINVAL, "NULL", ol_loop_step(NULL, 0))                                                                           \
    X(EINVAL, "NULL", ol_loop_drain(NULL, 0))                                                                          \
    X(EINVAL, "NULL", ol_loop_fd(NULL))                                                                                \
    X(EINVAL, "timer and its function", ol_timer_start(NULL, &w.timer, 1, never_timer))                                \
    X(EINVAL, "timer and its function", ol_timer_start(w.loop, NULL, 1, never_timer))                                  \
    X(EINVAL, "timer and its function", ol_timer_start(w.loop, &w.timer, 1, NULL))                                     \
    X(EINVAL, "must not be NULL", ol_attach(NULL, w.far[0], 0, &w.handle))                                             \
    X(EINVAL, "must not be NULL", ol_attach(w.loop, w.far[0], 0, NULL))                                                \
    X(EINVAL, "OL_BATCH", ol_attach(w.loop, w.far[0], -1, &w.handle))                                                  \
    X(EINVAL, "OL_BATCH", ol_attach(w.loop, w.far[0], 3, &w.handle))                                                   \
    X(EBADF, "negative", ol_attach(w.loop, -1, 0, &w.handle))                                                          \
    X(EBADF, "strerror", ol_attach(w.loop, w.closed, 0, &w.handle))                                                    \
    X(EPERM, "ol_pread", ol_attach(w.loop, w.regular, 0, &w.handle))                                                   \
    X(EEXIST, "attached", ol_attach(w.loop, ol_fd_raw(w.loop, w.fd), 0, &w.handle))                                    \
    X(EEXIST, "attached", ol_attach(w.loop, ol_fd_raw(w.loop, w.guest), 0, &w.handle))                                 \
    X(EINVAL, "must not be NULL", ol_attach_guest(NULL, w.far[0], 0, &w.handle))                                       \
    X(EINVAL, "must not be NULL", ol_attach_guest(w.loop, w.far[0], 0, NULL))                                          \
    X(EINVAL, "OL_BATCH", ol_attach_guest(w.loop, w.far[0], -1, &w.handle))                                            \
    X(EINVAL, "OL_BATCH", ol_attach_guest(w.loop, w.far[0], 3, &w.handle))                                             \
    X(EBADF, "negative", ol_attach_guest(w.loop, -1, 0, &w.handle))                                                    \
    X(EBADF, "strerror", ol_attach_guest(w.loop, w.closed, 0, &w.handle))                                              \
    X(EEXIST, "attached", ol_attach_guest(w.loop, ol_fd_raw(w.loop, w.fd), 0, &w.handle))                              \
    X(EEXIST, "attached", ol_attach_guest(w.loop, ol_fd_raw(w.loop, w.guest), 0, &w.handle))                           \
    X(EINVAL, "must not be NULL", ol_listen(NULL, ADDRESS, sizeof w.address, 1, 0, 0, &w.handle))                      \
    X(EINVAL, "must not be NULL", ol_listen(w.loop, NULL, sizeof w.address, 1, 0, 0, &w.handle))                       \
    X(EINVAL, "must not be NULL", ol_listen(w.loop, ADDRESS, sizeof w.address, 1, 0, 0, NULL))                         \
    X(EINVAL, "OL_BATCH", ol_listen(w.loop, ADDRESS, sizeof w.address, 1, 0, -1, &w.handle))                           \
    X(EINVAL, "OL_BATCH", ol_listen(w.loop, ADDRESS, sizeof w.address, 1, 0, 3, &w.handle))                            \
    X(EINVAL, "strerror", ol_listen(w.loop, ADDRESS, 1, 1, 0, 0, &w.handle))                                           \
    X(EAFNOSUPPORT, "strerror", ol_listen(w.loop, &(struct sockaddr){.sa_family = 200}, 16, 1, 0, 0, &w.handle))       \
    X(EINVAL, "must not be NULL", ol_socket(NULL, AF_INET, SOCK_STREAM, 0, &w.handle))                                 \
    X(EINVAL, "must not be NULL", ol_socket(&w.sleeper, AF_INET, SOCK_STREAM, 0, NULL))                                \
    X(EAFNOSUPPORT, "strerror", ol_socket(&w.sleeper, 200, SOCK_STREAM, 0, &w.handle))                                 \
    X(EBADF, "use the handle", ol_fd_raw(NULL, w.fd))                                                                  \
    X(EBADF, "use the handle", ol_fd_raw(w.loop, w.stale))                                                             \
    X(EBADF, "use the handle", ol_close(NULL, w.fd))                                                                   \
    X(EBADF, "use the handle", ol_close(w.loop, w.stale))                                                              \
    X(EBADF, "use the handle", ol_close(w.loop, 0))                                                                    \
    X(EBADF, "use the handle", ol_close(w.loop, (ol_fd)-1))                                                            \
    X(EBADF, "use the handle", ol_watch(NULL, w.fd, &w.second, OL_READABLE, never_handler))                            \
    X(EBADF, "use the handle", ol_watch(w.loop, w.stale, &w.second, OL_READABLE, never_handler))                       \
    X(EINVAL, "OL_READABLE", ol_watch(w.loop, w.fd, NULL, OL_READABLE, never_handler))                                 \
    X(EINVAL, "OL_READABLE", ol_watch(w.loop, w.fd, &w.second, OL_READABLE, NULL))                                     \
    X(EINVAL, "OL_READABLE", ol_watch(w.loop, w.fd, &w.second, 0, never_handler))                                      \
    X(EINVAL, "OL_READABLE", ol_watch(w.loop, w.fd, &w.second, 4, never_handler))                                      \
    X(EINVAL, "of its own", ol_watch(w.loop, w.fd, &w.handler, OL_READABLE, never_handler))                            \
    X(EBADF, "use the handle", ol_unwatch(NULL, w.watched))                                                            \
    X(EBADF, "use the handle", ol_unwatch(w.loop, w.stale))                                                            \
    X(EBADF, "use the handle", ol_again(NULL, w.fd, 0))                                                                \
    X(EBADF, "use the handle", ol_again(w.loop, w.stale, 1))                                                           \
    X(EBADF, "use the handle", ol_try_read(NULL, w.fd, w.buf, 1))                                                      \
    X(EBADF, "use the handle", ol_try_read(w.loop, w.stale, w.buf, 1))                                                 \
    X(EINVAL, "give it room", ol_try_read(w.loop, w.fd, w.buf, 0))                                                     \
    X(EXDEV, "ol_join", ol_try_read(w.loop, w.held2, w.buf, 1))                                                        \
    X(EAGAIN, "when it is", ol_try_read(w.loop, w.fd, w.buf, 1))                                                       \
    X(EINVAL, "iovec", ol_try_readv(w.loop, w.fd, NULL, 1))                                                            \
    X(EINVAL, "iovec", ol_try_readv(w.loop, w.fd, w.iov, 0))                                                           \
    X(EINVAL, "iovec", ol_try_readv(w.loop, w.fd, w.iov, 1025))                                                        \
    X(EINVAL, "iovec", ol_try_readv(w.loop, w.fd, w.vast, 2))                                                          \
    X(EINVAL, "give it room", ol_try_readv(w.loop, w.fd, w.iov, 1))                                                    \
    X(EBADF, "use the handle", ol_try_write(NULL, w.fd, w.buf, 1))                                                     \
    X(EBADF, "use the handle", ol_try_write(w.loop, w.stale, w.buf, 1))                                                \
    X(EXDEV, "ol_join", ol_try_write(w.loop, w.held2, w.buf, 1))                                                       \
    X(EINVAL, "iovec", ol_try_writev(w.loop, w.fd, NULL, 1))                                                           \
    X(EINVAL, "iovec", ol_try_writev(w.loop, w.fd, w.iov, 0))                                                          \
    X(EINVAL, "iovec", ol_try_writev(w.loop, w.fd, w.iov, 1025))                                                       \
    X(EINVAL, "iovec", ol_try_writev(w.loop, w.fd, w.vast, 2))                                                         \
    X(EBADF, "use the handle", ol_try_accept(NULL, w.fd))                                                              \
    X(EBADF, "use the handle", ol_try_accept(w.loop, w.stale))                                                         \
    X(EBADF, "use the handle", ol_gate_enter(NULL, w.watched, OL_READABLE))                                            \
    X(EBADF, "use the handle", ol_gate_enter(w.loop, w.stale, OL_READABLE))                                            \
    X(EINVAL, "ol_attach_guest", ol_gate_enter(w.loop, w.fd, OL_READABLE))                                             \
    X(EINVAL, "a handler (ol_watch)", ol_gate_enter(w.loop, w.guest, OL_READABLE))                                     \
    X(EINVAL, "what is ready", ol_gate_enter(w.loop, w.watched, 0))                                                    \
    X(EINVAL, "what is ready", ol_gate_enter(w.loop, w.watched, 4))                                                    \
    X(EINVAL, "without an ol_gate_enter", ol_gate_leave(NULL))                                                         \
    X(EINVAL, "without an ol_gate_enter", ol_gate_leave(w.loop))                                                       \
    X(EINVAL, "function is NULL", ol_submit(NULL, &w.op, never_done))                                                  \
    X(EINVAL, "function is NULL", ol_submit(w.loop, &w.op, NULL))                                                      \
    X(EINVAL, "ol_prep", ol_submit(w.loop, NULL, never_done))                                                          \
    X(EINVAL, "ol_prep", ol_submit(w.loop, &w.garbage, never_done))                                                    \
    X(EINVAL, "ol_prep", ol_submit(w.loop, left_by_pread(), never_done))                                               \
    X(EINVAL, "ol_prep", ol_op_exec(w.exec, left_by_pread()))                                                          \
    X(EBUSY, "until its await returns", ol_submit(w.loop, &w.out, never_done))                                         \
    X(EINVAL, "not in flight", ol_op_cancel(NULL, &w.out))                                                             \
    X(EINVAL, "not in flight", ol_op_cancel(w.loop, NULL))                                                             \
    X(EINVAL, "not in flight", ol_op_cancel(w.loop, &w.garbage))                                                       \
    X(EINVAL, "not in flight", ol_op_cancel(w.loop, &w.op))                                                            \
    X(EINVAL, "ol_prep", ol_op_exec(w.exec, NULL))                                                                     \
    X(EINVAL, "ol_prep", ol_op_exec(w.exec, &w.garbage))                                                               \
    X(EINVAL, "line 1: the text is NULL", ol_policy_parse(NULL, &w.policy, NULL, 0))                                   \
    X(EINVAL, "malformed", ol_loop_set_policy(NULL, &w.policy))                                                        \
    X(EINVAL, "malformed", ol_loop_set_policy(w.loop, NULL))                                                           \
    X(EINVAL, "out of its range", ol_threads_create(NULL, NULL))                                                       \
    X(EINVAL, "backend", ol_threads_destroy(NULL))                                                                     \
    X(EINVAL, "backend", ol_threads_destroy(&w.backend))

static ol_op *left_by_pread(void) { /* nobody prepares an operation of this kind but its await */
    return ol__prep(&w.codec, OL_OP_FILE, NULL, 1, w.buf, 1);
}
#define ADDRESS (const struct sockaddr *)(const void *)&w.address

static int64_t call(int row, const char **text, int *number, const char **word) {
    int i = 0;
#define ROW(n, s, c)                                                                                                   \
    if (row == i++) {                                                                                                  \
        *text = #c;                                                                                                    \
        *number = (n);                                                                                                 \
        *word = (s);                                                                                                   \
        return (c);                                                                                                    \
    }
    CALLS(ROW)
#undef ROW
    *text = NULL;
    return 0;
}

Test(arguments, calls_from_outside) {
    begin();
    int rows = 0;
    for (;; rows++) {
        const char *text, *word = "";
        int number = 0;
        const state before = state_of(w.loop);
        ol__last_error = "an old text";
        w.handle = 77;
        const int64_t r = call(rows, &text, &number, &word);
        if (!text) break;
        expect(text, r, number, ol_error(), word, &before);
        cr_assert_eq(w.handle, 77u, "%s has given a handle", text);
    }
    cr_assert_gt(rows, 100);
    end();
}

Test(arguments, where_nothing_can_be_told_nothing_happens) {
    begin();
    const state before = state_of(w.loop);
    ol_timer_stop(NULL, &w.timer);
    ol_timer_stop(w.loop, NULL);
    ol_timer_stop(w.loop, &w.timer);
    ol_exec_destroy(NULL);
    cr_assert_eq(ol_loop_destroy(NULL), 0);
    const state after = state_of(w.loop);
    cr_assert(memcmp(&after, &before, sizeof after) == 0);
    end();
}

Test(arguments, between_gate_enter_and_leave) {
    begin();
    ol_loop *loop = w.loop;
    cr_assert_eq(ol_gate_enter(loop, w.watched, OL_READABLE), 1);
    const state before = state_of(loop);
    REFUSES("step", EBUSY, "ol_gate_leave", &before, ol_loop_step(loop, 0));
    REFUSES("enter", EBUSY, "ol_gate_leave", &before, ol_gate_enter(loop, w.watched, OL_READABLE));
    cr_assert_eq(ol_gate_leave(loop), 0);
    cr_assert_eq(ol_gate_leave(loop), -EINVAL);
    end();
}

Test(arguments, a_loop_without_coroutines_is_not_destroyed_between_gate_enter_and_leave) {
    begin();
    ol_cancel(&w.sleeper);
    while (w.loop->stats.roots) cr_assert_geq(ol_loop_step(w.loop, 0), 0);
    cr_assert_eq(ol_gate_enter(w.loop, w.watched, OL_READABLE), 1);
    const state before = state_of(w.loop);
    REFUSES("destroy", EBUSY, "ol_gate_leave", &before, ol_loop_destroy(w.loop));
    cr_assert_eq(ol_gate_leave(w.loop), 0);
    end();
}

/* The rightful calls beside them: what is refused is refused for what is wrong with it. */
Test(arguments, calls_that_are_just_right) {
    begin();
    int p[2];
    ol_fd h = 0;
    cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
    cr_assert_eq(ol_attach_guest(w.loop, p[0], OL_BATCH, &h), 0, "%s", ol_error()); /* it is no socket */
    cr_assert_eq(ol_close(w.loop, h), 0);
    cr_assert_eq(ol_attach(w.loop, p[1], OL_BATCH, &h), 0);
    cr_assert_eq(ol_watch(w.loop, h, &w.second, OL_READABLE | OL_WRITABLE, never_handler), 0);
    cr_assert_eq(ol_unwatch(w.loop, h), 0);
    cr_assert_eq(ol_close(w.loop, h), 0);
    cr_assert_eq(ol_listen(w.loop, ADDRESS, sizeof w.address, 1, 1, OL_BATCH, &h), 0, "%s", ol_error());
    cr_assert_eq(ol_close(w.loop, h), 0);
    cr_assert_eq(ol_set_class(&w.sleeper, OL_BATCH), 0);
    cr_assert_eq(ol_timer_start(w.loop, &w.timer, INT64_MAX, never_timer), 0);
    ol_timer_stop(w.loop, &w.timer);
    static struct iovec many[1024]; /* as many as there may be */
    many[1023].iov_base = w.buf;
    many[1023].iov_len = 1;
    cr_assert_eq(ol_try_readv(w.loop, w.fd, many, 1024), -EAGAIN);
    cr_assert_eq(ol_try_writev(w.loop, w.fd, many, 1024), 1, "%s", ol_error());
    cr_assert_eq(ol_op_cancel(w.loop, &w.out), 0); /* too late: it completes */
    cr_assert_eq(ol_op_exec(w.exec, ol_prep_crc32(&w.crc, 0, "abc", 3)), 0x352441c2);
    end();
}

/* ---- calls from inside a coroutine: of the loop that runs it, and of ol_fork and ol_socket */

static int ran;
static void inside(ol_co *co) {
    static ol_child child;
    OL_BEGIN(co);
    {
        ol_loop *loop = co->loop;
        const state before = state_of(loop);
        REFUSES("run", EBUSY, "from inside", &before, ol_loop_run(loop));
        REFUSES("step", EBUSY, "from inside", &before, ol_loop_step(loop, 0));
        REFUSES("drain", EBUSY, "from inside", &before, ol_loop_drain(loop, 0));
        REFUSES("destroy", EBUSY, "from inside", &before, ol_loop_destroy(loop));
        REFUSES("enter", EBUSY, "from inside", &before, ol_gate_enter(loop, w.watched, OL_READABLE));
        REFUSES("fork", EINVAL, "an ol_child", &before, ol_fork(co, NULL, never));
        REFUSES("fork", EINVAL, "a function", &before, ol_fork(co, &child, NULL));
        REFUSES("fork", EINVAL, "running coroutine", &before, ol_fork(&w.sleeper, &child, never));
        REFUSES("socket", EINVAL, "NULL", &before, ol_socket(co, AF_INET, SOCK_STREAM, 0, NULL));
        REFUSES("unlock", EINVAL, "does not hold", &before, ol_unlock(co, &w.mutex));
        REFUSES("try_join", EBUSY, "held", &before, ol_try_join(loop, w.held, w.held2));
    }
    ran++;
    OL_END(co);
}
Test(arguments, calls_from_inside) {
    begin();
    cr_assert_eq(ol_spawn(w.loop, &w.co, inside, 0, 0), 0);
    cr_assert_eq(ol_loop_step(w.loop, 0), 1);
    cr_assert_eq(ran, 1);
    end();
}

/* ---- awaits */

#define AWAITS(X)                                                                                                      \
    X(EBADF, "use the handle", ol_read(co, w.stale, w.buf, 1))                                                         \
    X(EBADF, "use the handle", ol_read(co, 0, w.buf, 1))                                                               \
    X(EXDEV, "ol_join", ol_read(co, w.held, w.buf, 1))                                                                 \
    X(EINVAL, "give it room", ol_read(co, w.fd, w.buf, 0))                                                             \
    X(EINVAL, "iovec", ol_readv(co, w.fd, NULL, 1))                                                                    \
    X(EINVAL, "iovec", ol_readv(co, w.fd, w.iov, 0))                                                                   \
    X(EINVAL, "iovec", ol_readv(co, w.fd, w.iov, 1025))                                                                \
    X(EINVAL, "iovec", ol_readv(co, w.fd, w.vast, 2))                                                                  \
    X(EINVAL, "give it room", ol_readv(co, w.fd, w.iov, 1))                                                            \
    X(EBADF, "use the handle", ol_write(co, w.stale, w.buf, 1))                                                        \
    X(EXDEV, "ol_join", ol_write(co, w.held2, w.buf, 1))                                                               \
    X(EINVAL, "iovec", ol_writev(co, w.fd, NULL, 1))                                                                   \
    X(EINVAL, "iovec", ol_writev(co, w.fd, w.iov, 0))                                                                  \
    X(EINVAL, "iovec", ol_writev(co, w.fd, w.iov, 1025))                                                               \
    X(EINVAL, "iovec", ol_writev(co, w.fd, w.vast, 2))                                                                 \
    X(EBADF, "use the handle", ol_accept(co, w.stale))                                                                 \
    X(EXDEV, "ol_join", ol_accept(co, w.held))                                                                         \
    X(EBADF, "use the handle", ol_connect(co, w.stale, ADDRESS, sizeof w.address))                                     \
    X(EXDEV, "ol_join", ol_connect(co, w.held, ADDRESS, sizeof w.address))                                             \
    X(EBADF, "use the handle", ol_wait_readable(co, w.stale))                                                          \
    X(EBADF, "use the handle", ol_wait_writable(co, w.stale))                                                          \
    X(EBADF, "use the handle", ol_join(co, w.stale))                                                                   \
    X(EINVAL, "ol_fork started", ol_wait(co, (ol_child *)(void *)&w.sleeper))                                          \
    X(EXDEV, "another root", ol_wait(co, &w.child))                                                                    \
    X(EXDEV, "another root", ol_wait(co, &w.foreign))                                                                  \
    X(EINVAL, "must not be NULL", ol_lock(co, NULL))                                                                   \
    X(EXDEV, "one loop's coroutines", ol_lock(co, &far_mutex))                                                         \
    X(EINVAL, "ol_prep", ol_run(co, NULL))                                                                             \
    X(EINVAL, "ol_prep", ol_run(co, &w.garbage))                                                                       \
    X(EINVAL, "ol_prep", ol_run(co, left_by_pread()))                                                                  \
    X(EBUSY, "until its await returns", ol_run(co, &w.out))                                                            \
    X(EINVAL, "ol_prep", ol_open(co, NULL, AT_FDCWD, "/", O_RDONLY, 0, 0))                                             \
    X(EFAULT, "address is invalid", ol_open(co, &w.op, AT_FDCWD, NULL, O_RDONLY, 0, 0))                                \
    X(EINVAL, "ol_prep", ol_stat(co, NULL, AT_FDCWD, "/", &w.st))                                                      \
    X(EFAULT, "address is invalid", ol_stat(co, &w.op, AT_FDCWD, "/", NULL))                                           \
    X(EBADF, "strerror", ol_stat(co, &w.op, -1, NULL, &w.st))                                                          \
    X(EINVAL, "ol_prep", ol_pread(co, NULL, w.regular, w.buf, 1, 0))                                                   \
    X(EINVAL, "src is NULL", ol_pread(co, &w.op, w.regular, NULL, 1, 0))                                               \
    X(EBADF, "strerror", ol_pread(co, &w.op, -1, w.buf, 1, 0))                                                         \
    X(EINVAL, "strerror", ol_pread(co, &w.op, w.regular, w.buf, 1, -2))                                                \
    X(EINVAL, "strerror", ol_pread(co, &w.op, w.regular, w.buf, 1, -1)) /* not "where it stands" */

static int await_row(ol_co *co, int row, const char **text, int *number, const char **word) {
    int i = 0;
#define ROW(n, s, c)                                                                                                   \
    if (row == i++) {                                                                                                  \
        *text = #c;                                                                                                    \
        *number = (n);                                                                                                 \
        *word = (s);                                                                                                   \
        return (c);                                                                                                    \
    }
    AWAITS(ROW)
#undef ROW
    *text = NULL;
    return OL__DONE;
}
static struct {
    ol_co co;
    int row, number;
    const char *text, *word;
    state before;
    int64_t r;
} awaiter;
static void awaits(ol_co *co) {
    OL_BEGIN(co);
    for (awaiter.row = 0;; awaiter.row++) {
        awaiter.before = state_of(co->loop);
        OL_AWAIT(awaiter.r, await_row(co, awaiter.row, &awaiter.text, &awaiter.number, &awaiter.word));
        if (!awaiter.text) break;
        expect(awaiter.text, awaiter.r, awaiter.number, ol_co_error(co), awaiter.word, &awaiter.before);
    }
    OL_AWAIT(awaiter.r, ol_pread(co, &w.op, w.regular, NULL, 0, 0)); /* the other side of a pair: nothing to read */
    cr_assert_eq(awaiter.r, 0);
    OL_AWAIT(awaiter.r, ol_stat(co, &w.op, AT_FDCWD, "/nothing/of/this/name", &w.st));
    cr_assert_eq(awaiter.r, -ENOENT);
    OL_AWAIT(awaiter.r, ol_stat(co, &w.op, w.regular, NULL, &w.st));
    cr_assert(awaiter.r == 0 && S_ISREG(w.st.st_mode));
    ol_cancel(co);
    OL_AWAIT(awaiter.r, ol_pread(co, &w.op, w.regular, w.buf, 1, 0));
    cr_assert_eq(awaiter.r, -ECANCELED);
    OL_END(co);
}
Test(arguments, awaits) {
    begin();
    cr_assert_eq(ol_spawn(w.loop, &awaiter.co, awaits, w.fd, 0), 0);
    while (w.loop->stats.roots > 1) cr_assert_eq(ol_loop_step(w.loop, 0), 1);
    cr_assert_gt(awaiter.row, 35);
    end();
}

/* Awaits on an fd whose other user is a child of the same root, which waits for it; and those of a child. */
static ol_child reader, asker;
static int64_t child_r[5];
static const char *child_text[5];
static void reads(ol_co *co) {
    OL_BEGIN(co);
    OL_AWAIT(child_r[0], ol_read(co, w.fd, w.buf, 1));
    OL_END(co);
}
static void asks(ol_co *co) {
    OL_BEGIN(co);
    OL_AWAIT(child_r[1], ol_wait(co, NULL));
    child_text[1] = ol_co_error(co);
    child_r[2] = ol_try_read(co->loop, w.fd, w.buf, 1);
    child_text[2] = ol_error();
    OL_AWAIT(child_r[3], ol_read(co, w.fd, w.buf, 1));
    child_text[3] = ol_co_error(co);
    OL_AWAIT(child_r[4], ol_wait(co, &asker));
    child_text[4] = ol_co_error(co);
    ol_cancel(&reader.co);
    OL_END(co);
}
static void forks(ol_co *co) {
    OL_BEGIN(co);
    cr_assert_eq(ol_fork(co, &reader, reads), 0);
    OL_DO(ol_sleep(co, 0));
    cr_assert_eq(ol_fork(co, &asker, asks), 0);
    OL_END(co);
}
Test(arguments, awaits_of_a_child) {
    begin();
    cr_assert_eq(ol_spawn(w.loop, &w.co, forks, w.fd, 0), 0);
    while (w.loop->stats.roots > 1) cr_assert_eq(ol_loop_step(w.loop, 0), 1);
    cr_assert_eq(child_r[0], -ECANCELED);
    cr_assert(child_r[1] == -EINVAL && strstr(child_text[1], "only the root"), "%s", child_text[1]);
    cr_assert(child_r[2] == -EBUSY && strstr(child_text[2], "one reader and one writer"), "%s", child_text[2]);
    cr_assert(child_r[3] == -EBUSY && strstr(child_text[3], "one reader and one writer"), "%s", child_text[3]);
    cr_assert(child_r[4] == -EDEADLK && strstr(child_text[4], "could never end"), "%s", child_text[4]);
    end();
}

static void awaits_of_guests(ol_co *co) {
    OL_BEGIN(co);
    OL_AWAIT(awaiter.r, ol_read(co, w.guest, w.buf, 1));
    awaiter.text = ol_co_error(co);
    OL_END(co);
}
Test(arguments, a_guests_fd_is_not_awaited) {
    begin();
    cr_assert_eq(ol_spawn(w.loop, &w.co, awaits_of_guests, w.guest, 0), 0);
    while (w.loop->stats.roots > 1) cr_assert_eq(ol_loop_step(w.loop, 0), 1);
    cr_assert(awaiter.r == -ENOTSUP && strstr(awaiter.text, "ol_attach instead"), "%s", awaiter.text);
    end();
}

/* ---- descs: each row sets what is wrong in one that is right, or what is just right still */

typedef struct desc_row {
    const char *what;
    void (*set)(void *desc);
} desc_row;

#define LOOP_DESCS(BAD, GOOD)                                                                                          \
    BAD(canary_ = 1)                                                                                                   \
    BAD(nbackends = 8)                                                                                                 \
    BAD(nbackends = 1, d->backends = NULL)                                                                             \
    BAD(no_pool = 2)                                                                                                   \
    BAD(events = 4097)                                                                                                 \
    BAD(turn = (1 << 20) + 1)                                                                                          \
    BAD(latency_run = (1 << 20) + 1)                                                                                   \
    BAD(budget = (1 << 20) + 1)                                                                                        \
    BAD(dequeue_batch = (1 << 20) + 1)                                                                                 \
    BAD(park_max = (1 << 30) + 1)                                                                                      \
    BAD(spin_ns = -1)                                                                                                  \
    BAD(slice_ns = -1)                                                                                                 \
    BAD(stall_ns = -1)                                                                                                 \
    BAD(sync_ns = -1)                                                                                                  \
    BAD(poll_ns = -1)                                                                                                  \
    GOOD(nbackends = 0, d->backends = NULL)                                                                            \
    GOOD(no_pool = 1)                                                                                                  \
    GOOD(events = 4096)                                                                                                \
    GOOD(turn = 1 << 20)                                                                                               \
    GOOD(latency_run = 1 << 20)                                                                                        \
    GOOD(budget = 1 << 20)                                                                                             \
    GOOD(dequeue_batch = 1 << 20)                                                                                      \
    GOOD(park_max = 1 << 30)                                                                                           \
    GOOD(spin_ns = INT64_MAX)                                                                                          \
    GOOD(sync_ns = INT64_MAX)                                                                                          \
    GOOD(poll_ns = INT64_MAX)
#define POOL_DESCS(BAD, GOOD)                                                                                          \
    BAD(canary_ = 1)                                                                                                   \
    BAD(workers = 65)                                                                                                  \
    BAD(depth = 65537)                                                                                                 \
    BAD(spin_ns = -2)                                                                                                  \
    BAD(sched = 3)                                                                                                     \
    GOOD(workers = 64)                                                                                                 \
    GOOD(depth = 65536)                                                                                                \
    GOOD(spin_ns = -1)                                                                                                 \
    GOOD(sched = 2)
#define BACKENDS(BAD, GOOD)                                                                                            \
    BAD(version = OL_BACKEND_VERSION + 1)                                                                              \
    BAD(name = NULL)                                                                                                   \
    BAD(name = "")                                                                                                     \
    BAD(name = "sixteen_letters_")                                                                                     \
    BAD(open = NULL)                                                                                                   \
    BAD(submit = NULL)                                                                                                 \
    BAD(poll = NULL)                                                                                                   \
    BAD(look = NULL)                                                                                                   \
    BAD(close = NULL)                                                                                                  \
    BAD(name = "software")                                                                                             \
    BAD(name = "-")                                                                                                    \
    BAD(name = "first")                                                                                                \
    GOOD(name = "fifteen_letters")                                                                                     \
    GOOD(name = "Software")                                                                                            \
    GOOD(name = "--")                                                                                                  \
    GOOD(cancel = NULL)                                                                                                \
    GOOD(next_ns = NULL)
#define RULES(BAD, GOOD)                                                                                               \
    BAD(kind = OL__KINDS)                                                                                              \
    BAD(cls = OL_BATCH + 1)                                                                                            \
    BAD(mode = 0)                                                                                                      \
    BAD(mode = OL_AUTO + 1)                                                                                            \
    BAD(full = OL_FULL_FAIL + 1)                                                                                       \
    BAD(min = 10, d->max = 9)                                                                                          \
    BAD(backend[4] = 'x', memset(d->backend + 5, 'x', 11))                                                             \
    BAD(mode = OL_SOFTWARE)                                                                                            \
    BAD(backend[0] = 0)                                                                                                \
    GOOD(kind = OL_OP_FILE)                                                                                            \
    GOOD(cls = OL_BATCH)                                                                                               \
    GOOD(full = OL_FULL_FAIL)                                                                                          \
    GOOD(min = 10, d->max = 10)                                                                                        \
    GOOD(min = 10, d->max = 0)                                                                                         \
    GOOD(mode = OL_SOFTWARE, d->backend[0] = 0)

#define COUNT_ROW(...) +1
#define CASE(...)                                                                                                      \
    if (row == i++) {                                                                                                  \
        d->__VA_ARGS__;                                                                                                \
        return #__VA_ARGS__;                                                                                           \
    }
#define NO_ROW(...)
/* Sets row `row` of a table; the first BADS(...) of them are to be refused. */
#define TABLE(name, type, rows)                                                                                        \
    enum { name##_bad = 0 rows(COUNT_ROW, NO_ROW), name##_all = 0 rows(COUNT_ROW, COUNT_ROW) };                        \
    static const char *name(type *d, int row) {                                                                        \
        int i = 0;                                                                                                     \
        rows(CASE, CASE) return NULL;                                                                                  \
    }
TABLE(loop_desc, ol_loop_desc, LOOP_DESCS)
TABLE(pool_desc, ol_threads_desc, POOL_DESCS)
TABLE(backend, ol_backend, BACKENDS)
TABLE(rule, ol_rule, RULES)

static void nothing_is_left(int fds) {
    cr_assert_eq(live, 0, "%ld allocations leaked", live);
    cr_assert_eq(open_fds(), fds, "fds leaked");
}

Test(arguments, members_of_a_loops_desc) {
    const int fds = open_fds();
    ol_backend b = a_backend("first"), *list[8] = {&b};
    for (int row = 0; row < loop_desc_all; row++) {
        ol_loop_desc d;
        ol_loop *loop = (ol_loop *)&d;
        memset(&d, 0, sizeof d);
        d.nbackends = 1;
        d.backends = list;
        const char *what = loop_desc(&d, row);
        const int r = ol_loop_create(&loop, &d);
        if (row < loop_desc_bad) {
            cr_assert_eq(r, -EINVAL, "%s: %d", what, r);
            cr_assert_not_null(strstr(ol_error(), "out of its range"), "%s", what);
            cr_assert_null(loop, "%s", what);
        } else {
            cr_assert_eq(r, 0, "%s: %s", what, ol_error());
            cr_assert_eq(ol_loop_destroy(loop), 0);
        }
        nothing_is_left(fds);
    }
}

Test(arguments, members_of_a_pools_desc) {
    const int fds = open_fds();
    for (int row = 0; row < pool_desc_all; row++) {
        ol_threads_desc d;
        ol_backend *b = NULL;
        memset(&d, 0, sizeof d);
        d.workers = 1;
        const char *what = pool_desc(&d, row);
        const int r = ol_threads_create(&b, &d);
        if (row < pool_desc_bad) {
            cr_assert_eq(r, -EINVAL, "%s: %d", what, r);
            cr_assert_not_null(strstr(ol_error(), "out of its range"), "%s", what);
            cr_assert_null(b, "%s", what);
        } else {
            cr_assert_eq(r, 0, "%s: %s", what, ol_error());
            cr_assert_eq(ol_threads_destroy(b), 0);
        }
        nothing_is_left(fds);
    }
}

Test(arguments, members_of_a_backend) {
    const int fds = open_fds();
    for (int row = -2; row < backend_all; row++) {
        ol_backend first = a_backend("first"), b = a_backend("second"), *list[2] = {&first, &b};
        ol_loop_desc d;
        ol_loop *loop = NULL;
        memset(&d, 0, sizeof d);
        d.nbackends = 2;
        d.backends = list;
        d.no_pool = 1;
        const char *what = "NULL";
        if (row < 0) list[row + 2] = NULL; /* the first or the second */
        else what = backend(&b, row);
        const int r = ol_loop_create(&loop, &d);
        if (row < backend_bad) {
            cr_assert_eq(r, -EINVAL, "%s: %d", what, r);
            cr_assert_not_null(strstr(ol_error(), "lacks a function"), "%s", what);
        } else {
            cr_assert_eq(r, 0, "%s: %s", what, ol_error());
            cr_assert_eq(ol_loop_destroy(loop), 0);
        }
        nothing_is_left(fds);
    }
}

Test(arguments, rules_of_a_policy) {
    begin();
    for (int row = 0; row < rule_all; row++) {
        ol_policy p, now;
        cr_assert_eq(ol_policy_parse("call any 0- async device wait\ncrc32 any 0- sync device fail", &p, NULL, 0), 0);
        const char *what = rule(&p.rule[1], row);
        const state before = state_of(w.loop);
        const int r = ol_loop_set_policy(w.loop, &p);
        if (row < rule_bad) {
            expect(what, r, EINVAL, ol_error(), "ol_policy_parse", &before);
        } else {
            cr_assert_eq(r, 0, "%s: %s", what, ol_error());
            ol_loop_get_policy(w.loop, &now);
            cr_assert(memcmp(&now, &p, sizeof p) == 0, "%s", what);
        }
    }
    cr_assert_eq(ol_policy_parse("call any 0- async device wait", &w.policy, NULL, 0), 0);
    w.policy.rule[0].mode = OL_SLICED; /* which has no backend */
    {
        const state before = state_of(w.loop);
        REFUSES("sliced on a backend", EINVAL, "malformed", &before, ol_loop_set_policy(w.loop, &w.policy));
    }
    w.policy.n = OL_POLICY_RULES + 1;
    const state before = state_of(w.loop);
    REFUSES("65 rules", EINVAL, "malformed", &before, ol_loop_set_policy(w.loop, &w.policy));
    end();
}

/* ---- operations: each way to be prepared wrongly, by submission, await and execution */

static const char in[64] = "in";
static char out[400];
static ol_op *prepared(ol_op *op, int i) { /* NULL: there are no more */
    ol_stream *s = &w.stream;
    memset(s, 0, sizeof *s);
    switch (i) {
    case 0: ol_prep_crc32(op, 0, in, 4)->cls = 3; break;
    case 1: ol_prep_crc32(op, 0, in, 4)->kind = OL__KINDS; break;
    case 2: ol_prep_crc32(op, 0, in, 4)->kind = 0; break;
    case 3: ol_prep_crc32(op, 0, NULL, 4); break;
    case 4: ol_prep_call(op, NULL, NULL); break;
    case 5: ol_prep_deflate(op, 0, out, sizeof out, in, 4); break;
    case 6: ol_prep_deflate(op, -1, out, sizeof out, in, 4); break;
    case 7: ol_prep_deflate(op, OL_GZIP + 1, out, sizeof out, in, 4); break;
    case 8: ol_prep_inflate(op, 256 + OL_GZIP, out, sizeof out, in, 4); break;
    case 9: ol_prep_deflate(op, OL_RAW, out, sizeof out, in, 4)->level = OL_LEVEL_STATIC + 1; break;
    case 10: ol_prep_deflate(op, OL_RAW, out, sizeof out, NULL, 4); break;
    case 11: ol_prep_deflate(op, OL_RAW, NULL, sizeof out, in, 4); break;
    case 12: ol_prep_inflate(op, OL_RAW, NULL, 1, in, 4); break;
    case 13:
        s->finished = 1;
        ol_prep_deflate_chunk(op, OL_RAW, out, sizeof out, in, 4, s, NULL, 0, 0);
        break;
    case 14:
        s->failed = 1;
        ol_prep_inflate_chunk(op, OL_RAW, out, sizeof out, in, 4, s, NULL, 0, 0);
        break;
    case 15: ol_prep_deflate_chunk(op, OL_RAW, out, sizeof out, in, 4, s, in, 32769, 0); break;
    case 16: ol_prep_deflate_chunk(op, OL_RAW, out, sizeof out, in, 4, s, in, 65536 + 4, 0); break;
    case 17: ol_prep_deflate_chunk(op, OL_RAW, out, sizeof out, in, 4, s, NULL, 4, 0); break;
    case 18: ol_prep_deflate_chunk(op, OL_GZIP, out, sizeof out, in, 4, s, in, 4, 0); break;
    case 19: ol_prep_deflate_chunk(op, OL_ZLIB, out, sizeof out, in, 4, NULL, in, 4, 0); break;
    default: return NULL;
    }
    return op;
}
static const char *const op_words[] = {"OL_LATENCY or OL_BATCH",
                                       "ol_prep",
                                       "ol_prep",
                                       "src is NULL",
                                       "function is NULL",
                                       "format must be",
                                       "format must be",
                                       "format must be",
                                       "format must be",
                                       "OL_LEVEL_STATIC",
                                       "src is NULL",
                                       "dst is NULL",
                                       "dst is NULL",
                                       "zero it",
                                       "zero it",
                                       "32,768",
                                       "32,768",
                                       "a pointer",
                                       "an earlier chunk",
                                       "an earlier chunk"};
static void runs_badly(ol_co *co) {
    OL_BEGIN(co);
    OL_AWAIT(awaiter.r, ol_run(co, prepared(&w.codec, awaiter.row)));
    awaiter.text = ol_co_error(co);
    OL_END(co);
}
Test(arguments, operations_that_are_prepared_wrongly) {
    begin();
    int i = 0;
    for (; prepared(&w.codec, i); i++) {
        const state before = state_of(w.loop);
        char what[32];
        snprintf(what, sizeof what, "case %d", i);
        memset(out, 'o', sizeof out);
        ol__last_error = "an old text";
        REFUSES(what, EINVAL, op_words[i], &before, ol_submit(w.loop, &w.codec, never_done));
        const int64_t r = ol_op_exec(w.exec, prepared(&w.codec, i));
        const char *text = strcmp(op_words[i], "ol_prep") == 0 ? ol_error() : ol_op_error(&w.codec);
        expect(what, r, EINVAL, text, op_words[i], &before);
        awaiter.row = i;
        awaiter.r = 0;
        cr_assert_eq(ol_spawn(w.loop, &awaiter.co, runs_badly, 0, 0), 0);
        while (w.loop->stats.roots > 1) cr_assert_eq(ol_loop_step(w.loop, 0), 1);
        expect(what, awaiter.r, EINVAL, awaiter.text, op_words[i], &before);
        for (size_t k = 0; k < sizeof out; k++) cr_assert_eq(out[k], 'o', "case %d has written", i);
        cr_assert_eq(w.stream.started, 0);
    }
    cr_assert_eq((size_t)i, sizeof op_words / sizeof *op_words);
    end();
}

Test(arguments, operations_that_are_just_right) {
    begin();
    ol_op *op = &w.codec;
    ol_stream s;
    memset(&s, 0, sizeof s);
    cr_assert_eq(ol_op_exec(w.exec, ol_prep_crc32(op, 7, NULL, 0)), 7); /* nothing to go on with */
    const int64_t n = ol_op_exec(w.exec, ol_prep_deflate(op, OL_GZIP, out, sizeof out, NULL, 0));
    cr_assert_gt(n, 0);
    cr_assert_eq(ol_op_exec(w.exec, ol_prep_inflate(op, OL_GZIP, NULL, 0, out, (uint64_t)n)), 0);
    cr_assert_eq(ol_op_exec(w.exec, ol_prep_deflate(op, OL_GZIP, NULL, 0, in, 4)), -ENOSPC);
    static char dict[32768];
    for (int format = OL_RAW; format <= OL_GZIP; format++) { /* a dictionary, after an earlier chunk */
        memset(&s, 0, sizeof s);
        cr_assert_gt(ol_op_exec(w.exec, ol_prep_deflate_chunk(op, format, out, sizeof out, in, 4, &s, NULL, 0, 0)), 0);
        cr_assert_gt(
            ol_op_exec(w.exec, ol_prep_deflate_chunk(op, format, out, sizeof out, in, 4, &s, dict, sizeof dict, 1)), 0);
        cr_assert_eq(ol_op_exec(w.exec, ol_prep_deflate_chunk(op, format, out, sizeof out, in, 4, &s, NULL, 0, 1)),
                     -EINVAL);
    }
    cr_assert_gt(ol_op_exec(w.exec, ol_prep_deflate_chunk(op, OL_RAW, out, sizeof out, in, 4, NULL, dict, 4, 1)), 0);
    memset(&s, 0, sizeof s); /* raw may begin with one */
    cr_assert_gt(ol_op_exec(w.exec, ol_prep_deflate_chunk(op, OL_RAW, out, sizeof out, in, 4, &s, dict, 4, 1)), 0);
    cr_assert_eq(ol_op_exec(NULL, ol_prep_crc32(op, 0, "abc", 3)), 0x352441c2); /* only the codec needs a context */
    cr_assert_eq(ol_op_exec(NULL, ol_prep_deflate(op, OL_RAW, out, sizeof out, in, 4)), -ENOMEM);
    cr_assert_eq(ol_op_exec(NULL, ol_prep_inflate(op, OL_RAW, out, sizeof out, in, 4)), -ENOMEM);
    end();
}

/* ---- texts of what was never filled in */

Test(arguments, texts_of_garbage) {
    begin();
    ol_op *op = &w.garbage;
    cr_assert_str_eq(ol_op_error(op), "no error");
    cr_assert_str_eq(ol_op_where(w.loop, op), "software");
    cr_assert_str_eq(ol_op_why(op), "it has not run");
    cr_assert_str_eq(ol_op_where(w.loop, &w.out), "device");
    cr_assert_str_eq(ol_op_where(w.other, &w.out), "software"); /* which has no such backend */
    cr_assert_str_eq(ol_op_why(&w.out), "policy");
    end();
}

Test(arguments, statistics_of_a_program_that_knows_fewer) {
    begin();
    ol_loop_stats all, few;
    memset(&few, 0x77, sizeof few);
    all.size = sizeof all + 100; /* a newer one */
    few.size = offsetof(ol_loop_stats, fds);
    ol_loop_get_stats(w.loop, &all);
    ol_loop_get_stats(w.loop, &few);
    cr_assert_eq(all.size, sizeof all);
    cr_assert_eq(few.size, offsetof(ol_loop_stats, fds));
    cr_assert(all.roots == 1 && all.ops == 1 && all.fds == 5);
    cr_assert(few.roots == 1 && few.ops == 1 && few.fds == 0x77777777, "it wrote past what was asked for");
    end();
}

/* ---- a broken invariant without a hook */

Test(arguments, a_panic_without_a_hook_aborts, .signal = SIGABRT) {
    ol_set_panic(NULL);
    ol__panic("offload: a text that nobody hears");
}
