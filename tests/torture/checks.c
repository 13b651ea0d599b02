/* checks.c: see checks.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <time.h>
#include "checks.h"

void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(report->text, sizeof report->text, format, args);
    va_end(args);
    fprintf(stderr, "%s\n", report->text);
    if (!plan.quiet) PRINT_STACK();
    _exit(1);
}

int strict(void) {
    for (int i = 0; i < plan.n; i++)
        if (!(plan.strike[i].fault->flags & HARMLESS)) return 0;
    return 1;
}

int exact(void) { return plan.n == 0; }

/* What a fault leads to elsewhere: the other end is closed or reset, what waited is cancelled, handles are stale. */
static int has_cause(int number, int may) {
    if (number == (may & 0xffff) || number == may >> 16) return 1;
    if (strict()) return 0;
    for (int i = 0; i < plan.n; i++) {
        const int fault = plan.strike[i].fault->number;
        if (number == fault || (number == ENOTSUP && fault == ENOSYS)) return 1; /* openat2 where there is none */
    }
    return number == ECANCELED || number == ECONNRESET || number == ECONNREFUSED || number == EPIPE || number == EBADF;
}

static int64_t judge(const char *file, int line, const char *what, int64_t r, const char *text, int may) {
    if (r >= 0) return r;
    if (r < -4095) fail("%s:%d: %s gave %lld, which is no errno", file, line, what, (long long)r);
    if (!text[0] || strcmp(text, "no error") == 0)
        fail("%s:%d: %s gave %lld and no text", file, line, what, (long long)r);
    if (!has_cause((int)-r, may))
        fail("%s:%d: %s gave %lld (%s), which nothing explains: %s", file, line, what, (long long)r, strerror((int)-r),
             text);
    return r;
}

/* A failing call whose text is known, so that an old text is not taken for that of the next call. */
static const char *old_text;
void before_call(void) {
    (void)ol_timer_start(NULL, NULL, 0, NULL);
    old_text = ol_error();
}

int64_t after_call(const char *file, int line, const char *call, int64_t r, int may) {
    if (r < 0 && ol_error() == old_text)
        fail("%s:%d: %s gave %lld (%s) without a text", file, line, call, (long long)r, strerror((int)-r));
    return judge(file, line, call, r, ol_error(), may);
}

int64_t await_result(const char *file, int line, const ol_co *co, int64_t r, int may) {
    if (r >= 0 && strcmp(ol_co_error(co), "no error") != 0)
        fail("%s:%d: a text for a result of %lld", file, line, (long long)r);
    return judge(file, line, "an await", r, ol_co_error(co), may);
}

int64_t op_result(const char *file, int line, const ol_op *op, int may) {
    return judge(file, line, "an operation", op->result, ol_op_error(op), may);
}

/* ---- what is left behind */

enum { FDS = 1024 };
static struct pollfd before[FDS], after[FDS];

static nfds_t look_at_fds(struct pollfd *p) {
    struct rlimit limit;
    nfds_t n = FDS;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < n) n = (nfds_t)limit.rlim_cur;
    for (nfds_t i = 0; i < n; i++) p[i].fd = (int)i, p[i].events = 0, p[i].revents = 0;
    if (poll(p, n, 0) < 0) fail("poll: %s", strerror(errno));
    return n;
}

void check_begin(void) { (void)look_at_fds(before); }

void check_end(void) {
    const nfds_t n = look_at_fds(after);
    for (nfds_t i = 0; i < n; i++)
        if ((before[i].revents & POLLNVAL) && !(after[i].revents & POLLNVAL)) fail("fd %d was left open", (int)i);
    if (threads_alive()) fail("%d threads were not joined", threads_alive());
    if (blocks_alive()) {
        if (!plan.quiet) PRINT_LEAKS();
        fail("%d blocks of memory were not freed", blocks_alive());
    }
}

/* ---- loops */

ol_loop *loop_new(const ol_loop_desc *desc) {
    ol_loop *loop = NULL;
    const int64_t r = API(ol_loop_create(&loop, desc));
    CHECK((r == 0) == (loop != NULL));
    return loop;
}

enum { ROUNDS = 20000 };
#define PATIENCE (5000 * MS)

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int in_child;
void forked(void) {
    in_child = 1;
    threads_forked();
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* an alarm is not inherited */
    alarm(SECONDS);
}

/* An error of the system that a loop in a child of fork reports, once more. */
static void endure(int times) {
    CHECK(in_child && !strict());
    if (times > 50) plan.active = 0;
}

void loop_work(ol_loop *loop) {
    int64_t r = 1;
    int i = 0, errors = 0;
    if (!loop) return;
    for (; i < ROUNDS && r; i++) {
        const int64_t begin = now();
        r = API(ol_loop_step(loop, i ? PATIENCE : 0)); /* it would sleep with nothing to do, too */
        if (r < 0) endure(++errors);
        if (r && now() - begin >= PATIENCE) {
            ol_loop_stats s;
            s.size = sizeof s;
            ol_loop_get_stats(loop, &s);
            fail("nothing happens any more, with %u coroutines and %u operations alive", s.roots, s.ops);
        }
    }
    if (r) fail("no end after %d rounds", i);
}

void loop_destroy(ol_loop *loop) {
    for (int errors = 0; API(ol_loop_destroy(loop)) < 0;) endure(++errors);
}

void loop_drain_end(ol_loop *loop) {
    if (!loop) return;
    CHECK(API(ol_loop_drain(loop, PATIENCE)) == 0);
    loop_destroy(loop);
}

void loop_end(ol_loop *loop) {
    if (!loop) return;
    loop_work(loop);
    loop_destroy(loop);
}

ol_backend *pool_new(uint32_t workers, uint32_t depth) {
    ol_backend *pool = NULL;
    ol_threads_desc d;
    memset(&d, 0, sizeof d);
    d.workers = workers;
    d.depth = depth;
    d.spin_ns = -1;
    API(ol_threads_create(&pool, &d));
    return pool;
}
void pool_end(ol_backend *pool) {
    if (pool) CHECK(ol_threads_destroy(pool) == 0);
}

/* ---- the device */

static int device_open(void *self, ol_notify *notify, ol_channel *out) {
    device *d = (device *)self;
    const struct fault *f = fault_of(C_DEV_OPEN);
    if (f) return -f->number;
    if (!d->exec) d->exec = ol_exec_create(); /* in the child of a fork it is there */
    if (!d->exec) return -ENOMEM;
    d->open = 1;
    d->held = 0;
    d->notify = notify;
    out->self = d;
    out->depth = d->depth;
    return 0;
}

static int device_submit(void *channel, ol_op *const *ops, int n) {
    device *d = (device *)channel;
    const struct fault *f = fault_of(C_DEV_SUBMIT);
    if (f && f->number > 0) return -f->number;
    if (f) n = f->number == SHORT ? (n + 1) / 2 : 0;
    CHECK(d->open);
    for (int i = 0; i < n; i++) {
        if (d->held == (int)(sizeof d->op / sizeof *d->op)) return i;
        d->op[d->held++] = ops[i];
    }
    return n;
}

static int device_look(void *channel) {
    const device *d = (const device *)channel;
    for (int i = 0; i < d->held; i++)
        if (!d->slow || d->op[i]->result == -ECANCELED) return 1;
    return 0;
}

static int device_poll(void *channel, ol_op **ops, int max) {
    device *d = (device *)channel;
    int n = 0, kept = 0;
    for (int i = 0; i < d->held; i++) {
        ol_op *op = d->op[i];
        const int stopped = op->result == -ECANCELED;
        if (n == max || (d->slow && !stopped)) {
            d->op[kept++] = op;
            continue;
        }
        const struct fault *f = stopped ? NULL : fault_of(C_DEV_RUN);
        if (f) op->result = -f->number;
        else if (!stopped) (void)ol_op_exec(d->exec, op);
        ops[n++] = op;
    }
    d->held = kept;
    return n;
}

static int device_cancel(void *channel, ol_op *op) {
    device *d = (device *)channel;
    const struct fault *f = fault_of(C_DEV_CANCEL);
    if (!d->stops || f) {
        d->slow = 0; /* it will complete */
        return -EBUSY;
    }
    op->result = -ECANCELED;
    return 0;
}

static int device_forked(void *channel) {
    device *d = (device *)channel;
    const struct fault *f = fault_of(C_DEV_FORKED);
    if (f) return -f->number;
    d->held = 0;
    return 0;
}

static void device_close(void *channel) {
    device *d = (device *)channel;
    CHECK(d->open && d->held == 0);
    d->open = 0;
    ol_exec_destroy(d->exec);
    d->exec = NULL;
}

device *device_new(device *d, uint32_t depth) {
    memset(d, 0, sizeof *d);
    d->depth = depth;
    d->backend.version = OL_BACKEND_VERSION;
    d->backend.kinds = 1u << OL_OP_CALL | 1u << OL_OP_CRC32 | 1u << OL_OP_DEFLATE | 1u << OL_OP_INFLATE;
    d->backend.name = "device";
    d->backend.self = d;
    d->backend.open = device_open;
    d->backend.submit = device_submit;
    d->backend.poll = device_poll;
    d->backend.look = device_look;
    d->backend.cancel = device_cancel;
    d->backend.close = device_close;
    d->backend.forked = device_forked;
    return d;
}

/* ---- operations */

void job_done(ol_loop *loop, ol_op *op) {
    job *j = OL_CONTAINER(op, job, op);
    (void)loop;
    CHECK(j->accepted && !j->completed);
    j->completed = 1;
    j->seen = op->result;
}

int job_submit_or(ol_loop *loop, job *j, int may) {
    j->accepted = 1; /* before the call: `done` must not come from inside it */
    const int r = (int)API_OR(ol_submit(loop, &j->op, job_done), may);
    CHECK(!j->completed);
    if (r < 0) j->accepted = 0;
    return r;
}
int job_submit(ol_loop *loop, job *j) { return job_submit_or(loop, j, NONE); }

int64_t count_call(void *arg) { return __atomic_add_fetch((int *)arg, 1, __ATOMIC_SEQ_CST); }

/* ---- addresses */

socklen_t tcp_address(struct sockaddr_storage *to) {
    struct sockaddr_in in;
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(0x7f000001u | ((uint32_t)getpid() & 0x3fffff) << 1);
    memcpy(to, &in, sizeof in);
    return sizeof in;
}

socklen_t unix_address(struct sockaddr_storage *to) {
    static int serial;
    struct sockaddr_un un;
    memset(&un, 0, sizeof un);
    un.sun_family = AF_UNIX;
    const int n = snprintf(un.sun_path + 1, sizeof un.sun_path - 1, "offload-torture-%d-%d", (int)getpid(), ++serial);
    memcpy(to, &un, sizeof un);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

socklen_t address_of(const ol_loop *loop, ol_fd listener, struct sockaddr_storage *to) {
    socklen_t len = sizeof *to;
    memset(to, 0, sizeof *to);
    if (getsockname(ol_fd_raw(loop, listener), (struct sockaddr *)to, &len) != 0)
        fail("getsockname: %s", strerror(errno));
    return len;
}
