/* The manual's table OWNERSHIP AND LIFE TIME: for each line of it, memory is freed (and overwritten before) at the very
   moment from which on it is the application's again, whatever has brought that about; and until then the library uses
   it. The clock is virtual, a device answers when it is told to.
   cc -O2 -DOFFLOAD_ISAL -I. tests/criterion/lifetime.c -o build/tests/lifetime -lcriterion -lisal -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/* The seam: the library's allocations are counted; time passes when the loop sleeps, and when a test says so. */
#include "counted.h"
static int64_t clock_ns = 1000000000;
static void (*on_sleep)(void); /* called once, when the loop sleeps */
static int test_epoll_wait(int ep, struct epoll_event *events, int n, int64_t timeout) {
    void (*const call)(void) = timeout ? on_sleep : NULL;
    if (call) on_sleep = NULL, call();
    const int k = epoll_wait(ep, events, n, call || timeout > 0 ? 0 : (int)timeout);
    if (k == 0 && timeout > 0) clock_ns += timeout;
    return k;
}
#define OL_SYS_NOW() (clock_ns += 1000)
#define OL_SYS_EPOLL_CREATE() epoll_create1(EPOLL_CLOEXEC)
#define OL_SYS_EPOLL_CTL(ep, op, fd, event) epoll_ctl((ep), (op), (fd), (event))
#define OL_SYS_EPOLL_WAIT(ep, events, n, timeout_ns) test_epoll_wait((ep), (events), (n), (timeout_ns))
#define OL_SYS_EVENTFD() eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

#include <criterion/criterion.h>
#include <sys/wait.h>

TestSuite(lifetime, .timeout = 30);

#define is(call, want)                                                                                                 \
    do {                                                                                                               \
        const int64_t result = (int64_t)(call);                                                                        \
        cr_assert_eq(result, (want), "%s gives %lld (%s)", #call, (long long)result, ol_error());                      \
    } while (0)

static int blocks;             /* of mine, not yet freed */
static void *block(size_t n) { /* nothing need be initialised but what is zeroed once */
    blocks++;
    return memset(malloc(n), 0xa5, n);
}
static void *zeroed(size_t n) { return memset(block(n), 0, n); }
static void gone(void *p, size_t n) { /* as nobody's any more: overwritten, where no sanitizer watches */
    blocks--;
    memset(p, 0x5a, n);
    free(p);
}
#define gone_all(p) gone((p), sizeof *(p))

/* ---- the world */

enum { FDS = 4, LONG = 1 << 20 };
static const int64_t ms = 1000000, second = 1000000000;
static struct {
    ol_loop *loop;
    ol_fd fd[FDS];
    int raw[FDS], far[FDS], fds_before;
    int64_t r;  /* of the last await that was looked at */
    int over;   /* times that what the test waits for has happened */
    int others; /* the same for others */
} w;

static struct {
    ol_op *kept[256], *ready[256];
    int nkept, nready, works, stubborn, requests;
    uint32_t depth;
    ol_exec *exec;
} device; /* keeps what it gets until it is told to go on; when it is stubborn, a request to stop comes too late */

static int device_open(void *self, ol_notify *notify, ol_channel *out) {
    (void)notify;
    out->self = self;
    out->depth = device.depth ? device.depth : 16;
    out->flags = OL_CHANNEL_NOTIFIES;
    return 0;
}
static void device_close(void *self) { (void)self; }
static void device_does(ol_op *op) {
    ol_op_exec(device.exec, op);
    device.ready[device.nready++] = op;
}
static int device_submit(void *self, ol_op *const *ops, int n) {
    (void)self;
    for (int i = 0; i < n; i++) {
        if (device.works) device_does(ops[i]);
        else device.kept[device.nkept++] = ops[i];
    }
    return n;
}
static int device_poll(void *self, ol_op **ops, int max) {
    int n = 0;
    (void)self;
    while (n < max && device.nready) ops[n++] = device.ready[--device.nready];
    return n;
}
static int device_look(void *self) { return (void)self, device.nready; }
static int device_cancel(void *self, ol_op *op) {
    (void)self;
    device.requests++;
    for (int i = 0; i < device.nkept && !device.stubborn; i++) {
        if (device.kept[i] != op) continue;
        device.kept[i] = device.kept[--device.nkept];
        op->result = -ECANCELED;
        device.ready[device.nready++] = op;
        return 0;
    }
    return -EBUSY;
}
static void device_goes_on(void) {
    device.works = 1;
    while (device.nkept) device_does(device.kept[--device.nkept]);
}
static ol_backend device_backend = {OL_BACKEND_VERSION, ~0u,         "device",    NULL, device_open,
                                    device_submit,      device_poll, device_look, NULL, device_cancel,
                                    device_close,       NULL, NULL};

static void attach(int i) {
    int sv[2];
    is(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    is(ol_attach(w.loop, sv[0], 0, &w.fd[i]), 0);
    w.raw[i] = sv[0];
    w.far[i] = sv[1];
}
static void begin(void) {
    ol_backend *backends = &device_backend;
    ol_loop_desc d;
    signal(SIGPIPE, SIG_IGN);
    w.fds_before = open_fds();
    device.exec = ol_exec_create();
    memset(&d, 0, sizeof d);
    d.backends = &backends;
    d.nbackends = 1;
    d.no_pool = 1;
    d.policy = "any any 0- async device wait";
    is(ol_loop_create(&w.loop, &d), 0);
    memset(&d, 0xa5, sizeof d); /* the desc itself is copied */
    backends = NULL;
    for (int i = 0; i < FDS; i++) attach(i);
}
static void end(void) { /* nothing is left, of neither side */
    if (w.loop) is(ol_loop_destroy(w.loop), 0);
    ol_exec_destroy(device.exec);
    for (int i = 0; i < FDS; i++) close(w.far[i]);
    cr_assert_eq(blocks, 0, "%d blocks of the test were not freed: something that should have happened has not",
                 blocks);
    cr_assert_eq(live, 0, "%ld allocations leaked", live);
    is(open_fds(), w.fds_before);
}
#define PROMISE(name)                                                                                                  \
    static void name(void);                                                                                            \
    Test(lifetime, name) {                                                                                             \
        begin();                                                                                                       \
        name();                                                                                                        \
        end();                                                                                                         \
    }                                                                                                                  \
    static void name(void)
#define CASE(name, call)                                                                                               \
    Test(lifetime, name) {                                                                                             \
        begin();                                                                                                       \
        call;                                                                                                          \
        end();                                                                                                         \
    }

static ol_loop_stats stats(void) {
    ol_loop_stats s;
    s.size = sizeof s;
    ol_loop_get_stats(w.loop, &s);
    return s;
}
static void go(void) { /* steps until nothing moves any more */
    uint64_t moved;
    do {
        moved = stats().resumes + stats().events;
        for (int i = 0; i < 3; i++) cr_assert_geq(ol_loop_step(w.loop, 0), 0, "%s", ol_error());
    } while (stats().resumes + stats().events != moved);
}
static void later(int64_t ns) {
    clock_ns += ns;
    go();
}
static void give(int i) { is(write(w.far[i], "x", 1), 1); }

/* A root that holds the partition of an fd until it is told to go. */
typedef struct holder {
    ol_co co;
    int64_t r;
    int i;
    char byte;
} holder;
static void holds(ol_co *co) {
    holder *h = OL_SELF(co, holder, co);
    OL_BEGIN(co);
    OL_AWAIT(h->r, ol_read(co, w.fd[h->i], &h->byte, 1));
    OL_END_THEN(co, gone_all(h));
}
static void hold(int i) {
    holder *h = (holder *)block(sizeof *h);
    h->i = i;
    is(ol_spawn(w.loop, &h->co, holds, w.fd[i], 0), 0);
    go();
}

/* ---- "ol_op, its buffers, dictionary and stream: from ol_run or ol_submit until the await returns or `done` is called,
   without exception: not after a cancel, a deadline, a close or a fork either" */

enum device_is { STUBBORN, OBEDIENT, FULL };
enum way { NOTHING, CANCEL, DEADLINE, TIMEOUT, CLOSE, DRAIN, DESTROY, FORK };

typedef struct job {
    ol_co co;
    ol_op *op;
    unsigned char *src, *dst, *dict;
    ol_stream *stream;
} job;
enum { JOB_BYTES = 1000 };

static void job_over(job *j) {
    w.over++;
    w.r = j->op->result;
    gone(j->src, JOB_BYTES);
    gone(j->dst, 2 * JOB_BYTES);
    gone(j->dict, JOB_BYTES);
    gone_all(j->stream);
    gone_all(j->op);
}
static void awaits_op(ol_co *co) {
    job *j = OL_SELF(co, job, co);
    OL_BEGIN(co);
    OL_DO(ol_run(co, j->op));
    job_over(j);
    OL_END_THEN(co, gone_all(j));
}
static job *submitted;
static void op_is_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    cr_assert_eq(op, submitted->op);
    job_over(submitted);
    gone_all(submitted);
}
static void submits_op(ol_co *co) { /* and is gone before it is done */
    OL_BEGIN(co);
    is(ol_submit(co->loop, submitted->op, op_is_done), 0);
    OL_END(co);
}

static job *new_job(enum way way) {
    job *j = (job *)block(sizeof *j);
    j->op = (ol_op *)block(sizeof *j->op);
    j->src = (unsigned char *)block(JOB_BYTES);
    j->dst = (unsigned char *)block(2 * JOB_BYTES);
    j->dict = (unsigned char *)block(JOB_BYTES);
    j->stream = (ol_stream *)zeroed(sizeof *j->stream);
    ol_prep_deflate_chunk(j->op, OL_RAW, j->dst, 2 * JOB_BYTES, j->src, JOB_BYTES, j->stream, j->dict, JOB_BYTES, 1);
    j->op->timeout_us = way == TIMEOUT ? 1000 : 500000;
    return j;
}
static void hurry(enum way way, int submit, job *j, int still_out) {
    switch (way) {
    case CANCEL:
        if (submit) is(ol_op_cancel(w.loop, j->op), 0);
        else ol_cancel(&j->co);
        break;
    case DEADLINE: is(ol_deadline(&j->co, 0), 0); break;
    case TIMEOUT: later(2 * ms); break;
    case CLOSE: is(ol_close(w.loop, w.fd[0]), 0); break;
    case DRAIN: is(ol_loop_drain(w.loop, 10 * ms), still_out ? -ETIMEDOUT : 0); break;
    case DESTROY:
        on_sleep = device_goes_on;
        is(ol_loop_destroy(w.loop), 0);
        w.loop = NULL;
        break;
    default: break;
    }
    if (w.loop) go();
}
static void fork_with_an_operation(void) {
    int status = -1;
    const pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) { /* there it is over, and its memory free; what the device had is forgotten */
        device.nkept = 0;
        for (int i = 0; i < 5; i++) ol_loop_step(w.loop, 0);
        _exit(!(w.over == 1 && w.r == -ECANCELED && !blocks && ol_loop_destroy(w.loop) == 0));
    }
    while (waitpid(pid, &status, 0) < 0) is(errno, EINTR);
    is(status, 0);
}
static void plug_done(ol_loop *loop, ol_op *op) { (void)loop, (void)op, w.others++; }

static void operation(int submit, enum way way, enum device_is mode) {
    static ol_op plug[2];
    job *j = new_job(way);
    static struct job submitter;
    device.stubborn = mode == STUBBORN;
    if (mode == FULL) { /* this one never gets to the device */
        is(ol_submit(w.loop, ol_prep_crc32(&plug[0], 0, "abc", 3), plug_done), 0);
        go();
    }
    submitted = j;
    is(ol_spawn(w.loop, submit ? &submitter.co : &j->co, submit ? submits_op : awaits_op, w.fd[0], 0), 0);
    go();
    is(w.over, 0);
    is(device.nkept, 1);
    if (way == FORK) fork_with_an_operation();
    else hurry(way, submit, j, mode == STUBBORN);
    const int waits = mode == STUBBORN || way == NOTHING || way == FORK;
    if (waits && way != DESTROY) {
        is(w.over, 0); /* although it was asked to stop */
        if (way != NOTHING && way != FORK) cr_assert_geq(device.requests, 1);
        device_goes_on(); /* and reads and writes all of it */
        go();
    }
    is(w.over, 1);
    if (waits) cr_assert_gt(w.r, 0);
    else is(w.r, way == DEADLINE || way == TIMEOUT ? -ETIMEDOUT : -ECANCELED);
    const int more = mode == FULL && w.loop != NULL; /* another waits where it has waited */
    if (more) is(ol_submit(w.loop, ol_prep_crc32(&plug[1], 0, "abc", 3), plug_done), 0);
    device_goes_on();
    if (w.loop) later(second); /* its timeout */
    is(w.others, (mode == FULL) + more);
}
#define OPERATION(how, submit, way, mode)                                                                              \
    Test(lifetime, how##_##way##_##mode) {                                                                             \
        device.depth = 1;                                                                                              \
        begin();                                                                                                       \
        operation(submit, way, mode);                                                                                  \
        end();                                                                                                         \
    }
#define MODES(how, submit, way)                                                                                        \
    OPERATION(how, submit, way, STUBBORN) OPERATION(how, submit, way, OBEDIENT) OPERATION(how, submit, way, FULL)
OPERATION(an_awaited_operation, 0, NOTHING, OBEDIENT)
OPERATION(an_awaited_operation, 0, FORK, OBEDIENT)
MODES(an_awaited_operation, 0, CANCEL)
MODES(an_awaited_operation, 0, DEADLINE)
MODES(an_awaited_operation, 0, TIMEOUT)
MODES(an_awaited_operation, 0, CLOSE)
MODES(an_awaited_operation, 0, DRAIN)
OPERATION(a_submitted_operation, 1, NOTHING, OBEDIENT)
OPERATION(a_submitted_operation, 1, FORK, OBEDIENT)
MODES(a_submitted_operation, 1, CANCEL)
MODES(a_submitted_operation, 1, TIMEOUT)
MODES(a_submitted_operation, 1, CLOSE)
MODES(a_submitted_operation, 1, DRAIN)
MODES(a_submitted_operation, 1, DESTROY)

/* ---- "ol_co: from ol_spawn until its end" */

static void passes(ol_co *co) {
    OL_BEGIN(co);
    OL_END_THEN(co, w.others++);
}
static void others_start(int i) { /* the partition is free, and sound */
    static ol_co co;
    const int before = w.others;
    is(ol_spawn(w.loop, &co, passes, w.fd[i], 0), 0);
    go();
    is(w.others, before + 1);
}

typedef struct family { /* a root and two children, in one block */
    ol_co co;
    ol_child child[2];
    ol_mutex mutex; /* held at the end */
    int64_t r, starts;
    char byte[3];
} family;
static void ends_with_a_deadline(ol_co *co) {
    family *f = OL_SELF(co, family, co);
    OL_BEGIN(co);
    is(ol_deadline(co, second), 0);
    OL_AWAIT(f->r, ol_lock(co, &f->mutex));
    OL_AWAIT(f->r, ol_read(co, w.fd[0], f->byte, 1));
    OL_END_THEN(co, w.over++; w.r = f->r; gone_all(f));
}
static family *root(void (*fn)(ol_co *)) {
    family *f = (family *)zeroed(sizeof *f);
    memset(&f->co, 0xa5, sizeof f->co); /* need not be initialised */
    memset(f->child, 0xa5, sizeof f->child);
    is(ol_spawn(w.loop, &f->co, fn, w.fd[0], 0), 0);
    return f;
}
static void a_root(enum way way, int64_t want) {
    family *f = root(ends_with_a_deadline);
    go();
    is(w.over, 0);
    switch (way) {
    case CANCEL: ol_cancel(&f->co); break;
    case TIMEOUT: clock_ns += 2 * second; break;
    case CLOSE: is(ol_close(w.loop, w.fd[0]), 0); break;
    case DRAIN: is(ol_loop_drain(w.loop, second), 0); break;
    default: give(0);
    }
    go();
    is(w.over, 1);
    is(w.r, want);
    is(stats().roots, 0);
    later(2 * second); /* its deadline */
    if (way != CLOSE) others_start(0);
}
CASE(a_root_is_free_at_its_end, a_root(NOTHING, 1))
CASE(a_root_is_free_at_its_end_after_a_cancel, a_root(CANCEL, -ECANCELED))
CASE(a_root_is_free_at_its_end_after_its_deadline, a_root(TIMEOUT, -ETIMEDOUT))
CASE(a_root_is_free_at_its_end_after_a_close, a_root(CLOSE, -ECANCELED))
CASE(a_root_is_free_at_its_end_after_a_drain, a_root(DRAIN, -ECANCELED))

/* Neither a cancel nor a close ends one that has not started: it starts, and ends itself. */
static void a_root_in_line(enum way way, int64_t want) {
    hold(0);
    family *f = root(ends_with_a_deadline);
    if (way == CANCEL) ol_cancel(&f->co);
    else is(ol_close(w.loop, w.fd[0]), 0);
    is(w.over, 0);
    is(stats().roots, 2);
    if (way == CANCEL) give(0);
    go();
    is(w.over, 1);
    is(w.r, want);
    later(2 * second);
}
CASE(a_root_in_line_is_kept_after_a_cancel_until_its_end, a_root_in_line(CANCEL, -ECANCELED))
CASE(a_root_in_line_is_kept_after_a_close_until_its_end, a_root_in_line(CLOSE, -EBADF))

static void starts_again(ol_co *co) {
    family *f = OL_SELF(co, family, co);
    OL_BEGIN(co);
    OL_AWAIT(f->r, ol_sleep(co, ms));
    OL_END_THEN(co, if (++f->starts < 3) is(ol_spawn(w.loop, co, starts_again, w.fd[0], 0), 0); else gone_all(f));
}
PROMISE(a_root_can_be_started_again_at_its_end) {
    const family *const f = root(starts_again);
    for (int i = 0; i < 3; i++) {
        go();
        is(f->starts, i);
        later(2 * ms);
    }
    is(blocks, 0);
    others_start(0);
}

/* ---- "ol_child: from ol_fork until its end, and until ol_wait(child) has returned where somebody waits for it" */

static void child_reads(ol_co *co) { /* the second one: fd 1's byte */
    family *f = OL_SELF(co, family, child[1].co);
    OL_BEGIN(co);
    OL_AWAIT(w.r, ol_read(co, w.fd[0], &f->byte[1], 1));
    OL_END_THEN(co, w.over++);
}
static void first_child_ends(ol_co *co) {
    OL_BEGIN(co);
    OL_YIELD();
    OL_RETURN(5);
    OL_END(co);
}
static void has_children(ol_co *co) {
    family *f = OL_SELF(co, family, co);
    OL_BEGIN(co);
    is(ol_fork(co, &f->child[0], first_child_ends), 0);
    is(ol_fork(co, &f->child[1], child_reads), 0);
    OL_END_THEN(co, w.others++; gone_all(f));
}
PROMISE(a_root_and_its_children_are_free_at_its_end_which_waits_for_them) {
    root(has_children);
    go();
    is(w.others, 0);
    give(0);
    go();
    is(w.over, 1);
    is(w.others, 1);
    others_start(0);
}

static void last_child_frees(ol_co *co) { /* by now its root, which returned before, has ended, too */
    family *f = OL_SELF(co, family, child[0].co);
    OL_BEGIN(co);
    OL_AWAIT(w.r, ol_read(co, w.fd[0], f->byte, 1));
    OL_END_THEN(co, w.over++; gone_all(f));
}
static void returns_before(ol_co *co) {
    family *f = OL_SELF(co, family, co);
    OL_BEGIN(co);
    is(ol_deadline(co, second), 0);
    is(ol_fork(co, &f->child[0], last_child_frees), 0);
    OL_RETURN(1);
    OL_END(co);
}
PROMISE(a_root_that_has_returned_is_free_at_the_end_of_its_last_child) {
    root(returns_before);
    later(2 * second); /* it has no deadline any more */
    is(w.over, 0);
    give(0);
    go();
    is(w.over, 1);
    is(stats().roots, 0);
    others_start(0);
}

typedef struct loose { /* a child in a block of its own */
    ol_child child;
    int i;
    int64_t r;
    char byte;
} loose;
static loose *offspring[4];
static void frees_itself(ol_co *co) {
    loose *l = OL_SELF(co, loose, child.co);
    OL_BEGIN(co);
    is(ol_deadline(co, second), 0);
    OL_AWAIT(l->r, ol_read(co, w.fd[l->i], &l->byte, 1));
    OL_END_THEN(co, w.over++; gone_all(l));
}
static void waits_for_all(ol_co *co) {
    family *f = OL_SELF(co, family, co);
    OL_BEGIN(co);
    for (int i = 1; i < FDS; i++) is(ol_try_join(w.loop, w.fd[0], w.fd[i]), 0);
    for (int i = 0; i < 4; i++) {
        offspring[i] = (loose *)block(sizeof(loose));
        offspring[i]->i = i;
        is(ol_fork(co, &offspring[i]->child, frees_itself), 0);
    }
    OL_AWAIT(f->r, ol_wait(co, NULL)); /* waits for none of them in particular */
    OL_END_THEN(co, w.others++; gone_all(f));
}
PROMISE(a_child_is_free_at_its_end_if_nobody_waits_for_it) {
    family *f = root(waits_for_all);
    static const int order[] = {1, 3, 0}; /* from the middle, the ends of the list */
    go();
    for (int i = 0; i < 3; i++) {
        give(order[i]);
        go();
        is(w.over, i + 1);
    }
    later(second / 2);
    is(w.over, 3);
    ol_cancel(&f->co); /* reaches who is left */
    go();
    is(w.over, 4);
    is(w.others, 1);
    later(2 * second); /* their deadlines */
}

static void ends_with_7(ol_co *co) {
    loose *l = OL_SELF(co, loose, child.co);
    OL_BEGIN(co);
    OL_AWAIT(l->r, ol_read(co, w.fd[0], &l->byte, 1));
    w.over++;
    OL_RETURN(7);
    OL_END(co);
}
static int64_t wait_for_first(ol_co *co, family *f) { /* its result; frees it */
    w.r = f->r;
    is(w.over, 1);
    gone_all(offspring[0]);
    (void)co;
    return f->r;
}
static int waits_late, waits_in_child;
static void sibling_waits(ol_co *co) {
    family *f = OL_SELF(co, family, child[0].co);
    OL_BEGIN(co);
    OL_AWAIT(f->r, ol_wait(co, &offspring[0]->child));
    OL_END_THEN(co, (void)wait_for_first(co, f));
}
static void waits_for_one(ol_co *co) {
    family *f = OL_SELF(co, family, co);
    OL_BEGIN(co);
    offspring[0] = (loose *)block(sizeof(loose));
    is(ol_fork(co, &offspring[0]->child, ends_with_7), 0);
    if (waits_in_child) {
        is(ol_fork(co, &f->child[0], sibling_waits), 0);
    } else {
        if (waits_late) OL_DO(ol_sleep(co, second));
        OL_AWAIT(f->r, ol_wait(co, &offspring[0]->child));
        (void)wait_for_first(co, f);
        OL_DO(ol_sleep(co, ms)); /* lives on without it */
    }
    OL_END_THEN(co, w.others++; gone_all(f));
}
static void a_child_that_is_waited_for(int late, int by_child) {
    waits_late = late;
    waits_in_child = by_child;
    root(waits_for_one);
    go();
    give(0);
    go();
    is(w.over, 1);
    later(2 * second);
    later(second);
    is(w.r, 7);
    is(w.others, 1);
    others_start(0);
}
CASE(a_child_is_free_when_the_wait_for_it_has_returned, a_child_that_is_waited_for(0, 0))
CASE(a_child_that_has_ended_is_kept_for_a_later_wait, a_child_that_is_waited_for(1, 0))
CASE(a_child_that_a_sibling_waits_for_is_free_then, a_child_that_is_waited_for(0, 1))

static void waits_in_vain(ol_co *co) {
    family *f = OL_SELF(co, family, co);
    OL_BEGIN(co);
    offspring[0] = (loose *)block(sizeof(loose));
    offspring[0]->i = 0;
    is(ol_fork(co, &offspring[0]->child, frees_itself), 0);
    is(ol_deadline(co, ms), 0);
    OL_AWAIT(f->r, ol_wait(co, &offspring[0]->child));
    w.r = f->r;
    OL_END_THEN(co, w.others++; gone_all(f));
}
PROMISE(a_child_lives_on_when_the_wait_for_it_ends_early) {
    root(waits_in_vain);
    go();
    later(2 * ms);
    is(w.r, -ETIMEDOUT);
    is(w.over, 0);
    is(w.others, 0);
    give(0);
    go();
    is(w.over, 1);
    is(w.others, 1);
}

/* ---- "frames of sub-coroutines: from OL_CALL until they end; they may share a union" */

typedef struct sub {
    ol_frame frame;
    int64_t r;
    int wait;
    char byte;
} sub;
typedef struct caller {
    ol_co co;
    union {
        sub first;
        struct {
            char room[8];
            sub sub;
        } second;
    } u;
    sub *loose, *inner;
    int64_t r[5];
} caller;
static void sub_reads(ol_co *co) {
    sub *s = OL_SELF(co, sub, frame);
    OL_BEGIN(co);
    s->r = 0;
    if (s->wait) OL_AWAIT(s->r, ol_read(co, w.fd[0], &s->byte, 1));
    OL_RETURN(s->r);
    OL_END(co);
}
static void sub_frees_itself(ol_co *co) {
    sub *s = OL_SELF(co, sub, frame);
    OL_BEGIN(co);
    s->r = 0;
    if (s->wait) OL_AWAIT(w.r, ol_read(co, w.fd[0], &s->byte, 1));
    OL_END_THEN(co, w.over++; gone_all(s));
}
static sub *new_sub(int wait) {
    sub *s = (sub *)block(sizeof *s);
    s->wait = wait;
    return s;
}
static void sub_calls(ol_co *co) { /* frees the inner one, then itself */
    sub *s = OL_SELF(co, sub, frame);
    caller *c = (caller *)(void *)co;
    OL_BEGIN(co);
    c->inner = new_sub(s->wait);
    OL_CALL(c->r[4], &c->inner->frame, sub_frees_itself);
    OL_END_THEN(co, w.over++; gone_all(s));
}
static int sub_waits;
static void calls_subs(ol_co *co) {
    caller *c = OL_SELF(co, caller, co);
    OL_BEGIN(co);
    memset(&c->u, 0xa5, sizeof c->u);
    c->u.first.wait = sub_waits;
    OL_CALL(c->r[0], &c->u.first.frame, sub_reads);
    memset(&c->u, 0xa5, sizeof c->u); /* the next one's */
    c->u.second.sub.wait = sub_waits;
    OL_CALL(c->r[1], &c->u.second.sub.frame, sub_reads);
    memset(&c->u, 0xa5, sizeof c->u);
    c->loose = new_sub(sub_waits);
    OL_CALL(c->r[2], &c->loose->frame, sub_reads);
    gone_all(c->loose);
    OL_CALL(c->r[3], &new_sub(sub_waits)->frame, sub_calls);
    for (int i = 0; i < 3; i++) is(c->r[i], sub_waits < 0 ? -ECANCELED : sub_waits);
    OL_END_THEN(co, w.over++; gone_all(c));
}
static void frames(int waits, int cancel) { /* each at once, after a wait, after a wait that is cancelled */
    caller *c = (caller *)zeroed(sizeof *c);
    sub_waits = cancel ? -1 : waits;
    is(ol_spawn(w.loop, &c->co, calls_subs, w.fd[0], 0), 0);
    go();
    for (int i = 0; i < 4 && waits && !cancel; i++) {
        is(w.over, 0);
        give(0);
        go();
    }
    if (cancel) ol_cancel(&c->co);
    go();
    is(w.over, 3);
}
CASE(a_frame_is_free_when_it_ends_at_once, frames(0, 0))
CASE(a_frame_is_free_when_it_ends_after_a_wait, frames(1, 0))
CASE(a_frame_is_free_when_it_ends_after_a_cancel, frames(1, 1))

/* ---- "ol_timer: from ol_timer_start until its function is called, or ol_timer_stop", "ol_post_node: from ol_post until
   its function is called", "ol_handler: from ol_watch until ol_unwatch, ol_close of its fd, or a handler in its place" */

typedef struct item {
    ol_timer timer;
    ol_post_node node;
    ol_handler handler;
} item;
static item *new_item(void) { return (item *)zeroed(sizeof(item)); }
static void timer_frees(ol_loop *loop, ol_timer *t) {
    (void)loop;
    w.over++;
    gone_all(OL_CONTAINER(t, item, timer));
}
static void post_frees(ol_loop *loop, ol_post_node *n) {
    (void)loop;
    w.over++;
    gone_all(OL_CONTAINER(n, item, node));
}
static void must_not_run(void) { cr_assert(0, "it is called after its end"); }
static void stopped_timer(ol_loop *loop, ol_timer *t) { (void)loop, (void)t, must_not_run(); }
static void ended_handler(ol_loop *loop, ol_handler *h, int ready) { (void)loop, (void)h, (void)ready, must_not_run(); }

enum state { IDLE, IN_LINE, ADMITTED }; /* it waits for its time or event, for its partition, or for its turn to run */
static ol_handler heir;
static struct {
    item *it;
    void (*end)(void);
} victim;
static void ends_timer(void) { ol_timer_stop(w.loop, &victim.it->timer); }
static void restarts_timer(void) { is(ol_timer_start(w.loop, &victim.it->timer, second, timer_frees), 0); }
static void its_unwatch(void) { is(ol_unwatch(w.loop, w.fd[0]), 0); }
static void its_close(void) { is(ol_close(w.loop, w.fd[0]), 0); }
static void reads(ol_loop *loop, ol_handler *h, int ready) {
    char byte;
    is(ready, OL_READABLE);
    w.over += ol_try_read(loop, h->fd, &byte, 1) == 1;
}
static void its_successor(void) { is(ol_watch(w.loop, w.fd[0], &heir, OL_READABLE, reads), 0); }
static void its_loops_destroy(void) {
    is(ol_loop_destroy(w.loop), 0);
    w.loop = NULL;
}
static void changes_loops(void) {
    its_loops_destroy();
    is(ol_loop_create(&w.loop, NULL), 0);
    is(ol_timer_start(w.loop, &victim.it->timer, second, timer_frees), 0);
}
static void strike(void) {
    victim.end();
    if (victim.end != restarts_timer && victim.end != changes_loops) gone_all(victim.it);
}
static void timer_kills(ol_loop *loop, ol_timer *t) {
    const ol_timer *it = &victim.it->timer;
    (void)t;
    cr_assert_eq(loop->part[it->part_].holder, (uintptr_t)it | OL__TIMER); /* it is about to run */
    strike();
}
static void post_kills(ol_loop *loop, ol_post_node *n) {
    (void)loop, (void)n;
    is(victim.it->handler.state_, OL__ADMITTED);
    strike();
}

static void a_timer(enum state state, void (*end_of_it)(void)) {
    static ol_timer killer;
    item *it = new_item();
    it->timer.fd = w.fd[0];
    victim.it = it;
    victim.end = end_of_it;
    if (state == IN_LINE) hold(0);
    is(ol_timer_start(w.loop, &it->timer, ms, end_of_it ? stopped_timer : timer_frees), 0);
    if (state == ADMITTED) is(ol_timer_start(w.loop, &killer, 2 * ms, timer_kills), 0); /* in the same round */
    if (state == IN_LINE) later(3 * ms);
    if (state == IN_LINE) is(!it->timer.index && it->timer.part_, 1);
    if (state == ADMITTED) later(3 * ms);
    if (state != ADMITTED && end_of_it) strike();
    if (state == IN_LINE) give(0);
    later(ms);
    if (end_of_it && end_of_it != ends_timer) is(w.over, 0);
    later(2 * second);
    is(w.over, end_of_it != ends_timer);
    if (end_of_it != changes_loops) others_start(0);
}
CASE(a_timer_is_free_in_its_function, a_timer(IDLE, NULL))
CASE(a_timer_that_had_to_wait_is_free_in_its_function, a_timer(IN_LINE, NULL))
CASE(a_timer_is_free_when_it_is_stopped, a_timer(IDLE, ends_timer))
CASE(a_timer_in_line_is_free_when_it_is_stopped, a_timer(IN_LINE, ends_timer))
CASE(a_timer_about_to_run_is_free_when_it_is_stopped, a_timer(ADMITTED, ends_timer))
CASE(a_timer_is_another_loops_when_its_own_is_destroyed, a_timer(IDLE, changes_loops))
CASE(a_timer_is_kept_when_it_is_started_again, a_timer(IDLE, restarts_timer))
CASE(a_timer_in_line_is_kept_when_it_is_started_again, a_timer(IN_LINE, restarts_timer))
CASE(a_timer_about_to_run_is_kept_when_it_is_started_again, a_timer(ADMITTED, restarts_timer))

PROMISE(a_timer_without_an_fd_is_free_in_its_function) {
    for (int i = 0; i < 9; i++) is(ol_timer_start(w.loop, &new_item()->timer, (i * 5 % 9) * ms, timer_frees), 0);
    later(second);
    is(w.over, 9);
}

static void a_post(int fd, int line, enum way way) {
    item *it = new_item();
    it->node.fn = post_frees;
    it->node.fd = fd ? w.fd[0] : 0;
    if (line) hold(0);
    is(ol_post(w.loop, &it->node), 0);
    if (line) go();
    is(w.over, 0);
    if (way == CLOSE) its_close();
    if (way == DESTROY) is(ol_loop_destroy(w.loop), 0);
    if (way == DESTROY) w.loop = NULL;
    if (line && way != CLOSE) give(0);
    if (w.loop) go();
    is(w.over, 1);
    if (w.loop && way != CLOSE) others_start(0);
}
CASE(a_post_is_free_in_its_function, a_post(0, 0, NOTHING))
CASE(a_post_for_an_fd_is_free_in_its_function, a_post(1, 0, NOTHING))
CASE(a_post_in_line_is_free_in_its_function, a_post(1, 1, NOTHING))
CASE(a_post_for_a_closed_fd_is_free_in_its_function, a_post(1, 0, CLOSE))
CASE(a_post_in_line_for_a_closed_fd_is_free_in_its_function, a_post(1, 1, CLOSE))
CASE(a_post_to_a_loop_that_is_destroyed_is_free_in_its_function, a_post(0, 0, DESTROY))
CASE(a_post_for_an_fd_to_a_loop_that_is_destroyed_is_free_in_its_function, a_post(1, 0, DESTROY))

static void a_handler(enum state state, void (*end_of_it)(void)) {
    static ol_post_node killer;
    victim.it = new_item();
    victim.end = end_of_it;
    if (state == IN_LINE) hold(1);
    if (state == IN_LINE) is(ol_try_join(w.loop, w.fd[0], w.fd[1]), 0);
    is(ol_watch(w.loop, w.fd[0], &victim.it->handler, OL_READABLE, ended_handler), 0);
    go();
    if (state != IDLE) give(0);
    killer.fn = post_kills; /* which runs after events are seen, and before what is ready */
    if (state == ADMITTED) is(ol_post(w.loop, &killer), 0);
    if (state != IDLE) later(ms);
    if (state == IN_LINE) is(victim.it->handler.state_, OL__QUEUED);
    if (end_of_it == its_loops_destroy) give(0); /* not seen yet */
    if (state != ADMITTED) strike();
    if (!w.loop) return;
    if (state == IDLE && end_of_it != its_close) give(0);
    if (state == IN_LINE) give(1);
    go();
    is(w.over, end_of_it == its_successor);
    if (end_of_it != its_close) is(ol_unwatch(w.loop, w.fd[0]), 0);
    others_start(1);
    if (end_of_it != its_close) others_start(0);
}
#define HANDLER(state, what) CASE(a_handler_##state##_is_free_after_##what, a_handler(state, what))
HANDLER(IDLE, its_unwatch)
HANDLER(IDLE, its_close)
HANDLER(IDLE, its_successor)
HANDLER(IDLE, its_loops_destroy)
HANDLER(IN_LINE, its_unwatch)
HANDLER(IN_LINE, its_close)
HANDLER(IN_LINE, its_successor)
HANDLER(ADMITTED, its_unwatch)
HANDLER(ADMITTED, its_close)
HANDLER(ADMITTED, its_successor)

PROMISE(a_handler_is_free_when_a_close_waits_for_operations) {
    job *j = new_job(NOTHING);
    static ol_co submitter;
    device.stubborn = 1;
    submitted = j;
    victim.it = new_item();
    victim.end = its_close;
    is(ol_watch(w.loop, w.fd[0], &victim.it->handler, OL_READABLE, ended_handler), 0);
    is(ol_spawn(w.loop, &submitter, submits_op, w.fd[0], 0), 0);
    go();
    give(0);
    go();
    strike();
    go();
    is(fcntl(w.raw[0], F_GETFD) >= 0, 1);
    device_goes_on();
    go();
    is(w.over, 1);
}

/* ---- "ol_mutex: while somebody holds it or waits for it" */

enum { MUTEXES = 5 };
static ol_mutex *mutex[MUTEXES];
static void locks_five(ol_co *co) { /* frees each after its unlock, in an order that takes each place in a list */
    static const int order[] = {2, 0, 4, 1, 3};
    static int i;
    static int64_t r;
    OL_BEGIN(co);
    for (i = 0; i < MUTEXES; i++) {
        mutex[i] = (ol_mutex *)zeroed(sizeof(ol_mutex));
        OL_AWAIT(r, ol_lock(co, mutex[i]));
        is(r, 0);
    }
    for (i = 0; i < MUTEXES; i++) {
        is(ol_unlock(co, mutex[order[i]]), 0);
        gone_all(mutex[order[i]]);
    }
    OL_END_THEN(co, w.over++);
}
PROMISE(a_mutex_is_free_after_its_unlock) {
    static ol_co co;
    is(ol_spawn(w.loop, &co, locks_five, 0, 0), 0);
    go();
    is(w.over, 1);
}

static void locks_and_reads(ol_co *co) { /* it ends with the lock */
    family *f = OL_SELF(co, family, co);
    OL_BEGIN(co);
    OL_AWAIT(f->r, ol_lock(co, mutex[0]));
    if (f->r == 0) OL_AWAIT(f->r, ol_read(co, w.fd[f->starts], f->byte, 1));
    OL_END_THEN(co, w.over++; gone_all(f));
}
static family *locker(int i) {
    family *f = (family *)zeroed(sizeof *f);
    f->starts = i;
    is(ol_spawn(w.loop, &f->co, locks_and_reads, w.fd[i], 0), 0);
    go();
    return f;
}
PROMISE(a_mutex_is_free_when_its_last_holder_has_ended) {
    mutex[0] = (ol_mutex *)zeroed(sizeof(ol_mutex));
    locker(0);
    locker(1);
    family *const f = locker(2);
    give(0);
    go();
    is(w.over, 1);
    ol_cancel(&f->co); /* who waits in line goes without it */
    go();
    is(w.over, 2);
    cr_assert_not_null(mutex[0]->holder);
    give(1);
    go();
    is(w.over, 3);
    cr_assert_null(mutex[0]->holder);
    gone_all(mutex[0]);
    others_start(0);
}

/* ---- "iovecs, buffers of reads and writes: from the await's first evaluation until it returns" */

enum transfer { READ, READV, WRITE, WRITEV };
static struct transfers {
    ol_co co;
    enum transfer kind;
    struct iovec *iov;
    unsigned char *buf;
    int64_t r;
} t;
static void transfers(ol_co *co) {
    OL_BEGIN(co);
    if (t.kind == READ) OL_AWAIT(t.r, ol_read(co, w.fd[0], t.buf, LONG));
    else if (t.kind == READV) OL_AWAIT(t.r, ol_readv(co, w.fd[0], t.iov, 2));
    else if (t.kind == WRITE) OL_AWAIT(t.r, ol_write(co, w.fd[0], t.buf, LONG));
    else OL_AWAIT(t.r, ol_writev(co, w.fd[0], t.iov, 2));
    w.over++;
    if (t.kind == READ && t.r > 0) is(t.buf[0], 'x');
    gone(t.buf, LONG);
    gone(t.iov, 2 * sizeof *t.iov);
    OL_DO(ol_sleep(co, 2 * second)); /* goes on without them */
    OL_END(co);
}
static int64_t far_reads(void) { /* all that is there; checks it */
    static unsigned char in[1 << 16];
    static int64_t got;
    ssize_t n;
    while ((n = recv(w.far[0], in, sizeof in, MSG_DONTWAIT)) > 0)
        for (ssize_t i = 0; i < n; i++, got++)
            cr_assert_eq(in[i], (unsigned char)(got * 7 + got / 256), "byte %lld", (long long)got);
    return got;
}
static void a_transfer(enum transfer kind, enum way way) {
    t.kind = kind;
    t.buf = (unsigned char *)block(LONG);
    t.iov = (struct iovec *)block(2 * sizeof *t.iov);
    for (int64_t i = 0; i < LONG; i++) t.buf[i] = (unsigned char)(i * 7 + i / 256);
    for (int i = 0; i < 2; i++) t.iov[i].iov_base = t.buf + i * LONG / 2, t.iov[i].iov_len = LONG / 2;
    is(ol_spawn(w.loop, &t.co, transfers, w.fd[0], 0), 0);
    go();
    is(w.over, 0);
    switch (way) {
    case CANCEL: ol_cancel(&t.co); break;
    case DEADLINE: is(ol_deadline(&t.co, 0), 0); break;
    case CLOSE: its_close(); break;
    case DRAIN: is(ol_loop_drain(w.loop, second), 0); break;
    default:
        if (kind <= READV) give(0);
        for (int i = 0; i < 1000 && kind >= WRITE && far_reads() < LONG; i++) go();
    }
    go();
    is(w.over, 1);
    is(t.r, way == NOTHING ? (kind <= READV ? 1 : LONG) : way == DEADLINE ? -ETIMEDOUT : -ECANCELED);
    if (way != CLOSE) give(0); /* what comes now is not for that buffer */
    go();
    (void)far_reads();
    go();
    later(3 * second);
    is(stats().roots, 0);
}
#define TRANSFER(kind)                                                                                                 \
    CASE(a_buffer_of_##kind##_is_used_until_it_returns, a_transfer(kind, NOTHING))                                     \
    CASE(a_buffer_of_##kind##_is_free_after_a_cancel, a_transfer(kind, CANCEL))                                        \
    CASE(a_buffer_of_##kind##_is_free_after_a_deadline, a_transfer(kind, DEADLINE))                                    \
    CASE(a_buffer_of_##kind##_is_free_after_a_close, a_transfer(kind, CLOSE))                                          \
    CASE(a_buffer_of_##kind##_is_free_after_a_drain, a_transfer(kind, DRAIN))
TRANSFER(READ)
TRANSFER(READV)
TRANSFER(WRITE)
TRANSFER(WRITEV)

/* ---- "ol_backend: until the loops that have it are destroyed. Strings of a desc: until then, too" */

PROMISE(backends_and_strings_are_free_when_their_loops_are_destroyed) {
    ol_backend *b = (ol_backend *)block(sizeof *b), *pool = NULL;
    char *name = (char *)block(8), *policy = (char *)block(64);
    ol_policy *rules = (ol_policy *)block(sizeof *rules);
    ol_loop *loop[2];
    ol_loop_desc d;
    ol_op op;
    *b = device_backend;
    b->name = strcpy(name, "mine");
    strcpy(policy, "any any 0- async mine wait");
    device.works = 1;
    is(ol_threads_create(&pool, NULL), 0);
    for (int i = 0; i < 2; i++) {
        ol_backend *backends[2] = {b, pool};
        memset(&d, 0, sizeof d);
        d.backends = backends;
        d.nbackends = 2;
        d.policy = policy;
        is(ol_loop_create(&loop[i], &d), 0);
        ol_loop_get_policy(loop[i], rules);
        is(ol_loop_set_policy(loop[i], rules), 0);
        memset(rules, 0xa5, sizeof *rules); /* the loop has a copy */
    }
    for (int i = 0; i < 2; i++) {
        is(ol_submit(loop[i], ol_prep_crc32(&op, 0, "abc", 3), plug_done), 0);
        is(ol_loop_run(loop[i]), 0);
        cr_assert_str_eq(ol_op_where(loop[i], &op), "mine");
        cr_assert_str_eq(ol_loop_desc_of(loop[i])->policy, "any any 0- async mine wait");
        is(ol_threads_destroy(pool), -EBUSY);
        is(ol_loop_destroy(loop[i]), 0);
    }
    is(ol_threads_destroy(pool), 0);
    gone_all(rules);
    gone(name, 8);
    gone(policy, 64);
    gone_all(b);
    is(w.others, 2);
}

/* ---- "An fd that is attached is closed by the library: at ol_close, or when the last operation of its partition is done,
   or by ol_loop_destroy" */

static int is_open(int i) { return fcntl(w.raw[i], F_GETFD) >= 0; }
PROMISE(an_fd_is_closed_at_once_without_operations) {
    const uint32_t parts = w.loop->used_parts;
    for (int i = 0; i < 100; i++) { /* and its partition used again */
        is(ol_close(w.loop, w.fd[1]), 0);
        is(is_open(1), 0);
        close(w.far[1]);
        attach(1);
        is(w.loop->used_parts, parts);
    }
    hold(0);
    is(ol_close(w.loop, w.fd[0]), 0);
    is(is_open(0), 0);
    const int again = dup(w.far[0]); /* has its number from now on, which the loop leaves alone */
    is(again, w.raw[0]);
    go();
    is(ol_close(w.loop, w.fd[0]), -EBADF);
    is(is_open(0), 1);
    is(close(again), 0);
}

static job *jobs[2];
static void job_is_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    job *j = jobs[op == jobs[1]->op];
    job_over(j);
}
static void submits_two(ol_co *co) {
    OL_BEGIN(co);
    is(ol_try_join(w.loop, w.fd[0], w.fd[1]), 0);
    for (int i = 0; i < 2; i++) {
        jobs[i] = new_job(NOTHING);
        is(ol_submit(co->loop, jobs[i]->op, job_is_done), 0);
    }
    OL_END(co);
}
static void two_jobs(void) {
    static ol_co co;
    device.stubborn = 1;
    is(ol_spawn(w.loop, &co, submits_two, w.fd[0], 0), 0);
    go();
    is(device.nkept, 2);
}
PROMISE(an_fd_is_closed_when_the_last_operation_of_its_partition_is_done) {
    ol_fd handle;
    two_jobs();
    for (int i = 0; i < 2; i++) is(ol_close(w.loop, w.fd[i]), 0);
    is(ol_close(w.loop, w.fd[2]), 0); /* of another partition */
    for (int n = 0; n <= 2; n++) {
        go();
        is(w.over, n);
        for (int i = 0; i < 2; i++) is(is_open(i), n < 2);
        is(is_open(2), 0);
        is(stats().fds, n < 2 ? 3 : 1);
        if (n < 2) is(ol_attach(w.loop, w.raw[0], 0, &handle), -EEXIST);
        if (n < 2) device_does(device.kept[--device.nkept]);
    }
    for (int i = 0; i < 2; i++) gone_all(jobs[i]);
}
PROMISE(fds_are_closed_by_the_loops_destroy) { /* attached, a guest's, one whose close is waited for */
    ol_fd guest;
    const int raw = dup(w.far[3]);
    is(ol_attach_guest(w.loop, raw, 0, &guest), 0);
    two_jobs();
    is(ol_close(w.loop, w.fd[0]), 0);
    for (int i = 0; i < FDS; i++) is(is_open(i), 1);
    on_sleep = device_goes_on;
    is(ol_loop_destroy(w.loop), 0);
    w.loop = NULL;
    for (int i = 0; i < FDS; i++) is(is_open(i), 0);
    cr_assert_lt(fcntl(raw, F_GETFD), 0);
    is(w.over, 2);
    for (int i = 0; i < 2; i++) gone_all(jobs[i]);
}
PROMISE(an_fd_that_could_not_be_attached_is_still_the_applications) {
    ol_fd handle;
    const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    is(ol_attach(w.loop, file, 0, &handle), -EPERM);
    is(fcntl(file, F_GETFD) >= 0, 1);
    is(close(file), 0);
}

/* ---- loops: ol_loop_destroy that is refused has freed nothing */

PROMISE(a_loop_lives_on_when_its_destroy_is_refused) {
    hold(0);
    is(ol_loop_destroy(w.loop), -EBUSY);
    go();
    is(blocks, 1); /* nobody was cancelled */
    is(ol_spawn(w.loop, &t.co, passes, w.fd[0], 0), 0);
    give(0);
    go();
    is(w.others, 1);
    is(blocks, 0);
}

/* ---- more operations than go in one burst */

static void one_of_many(ol_loop *loop, ol_op *op) {
    (void)loop;
    is(op->result, 0x352441c2);
    w.over++;
}
Test(lifetime, operations_many_at_once_are_all_given_to_the_device_in_that_round) {
    enum { MANY = 200 };
    device.depth = MANY;
    begin();
    ol_op *op = (ol_op *)block(MANY * sizeof *op);
    for (int i = 0; i < MANY; i++) is(ol_submit(w.loop, ol_prep_crc32(&op[i], 0, "abc", 3), one_of_many), 0);
    is(ol_loop_step(w.loop, 0), 1);
    is(device.nkept, MANY);
    device_goes_on();
    go();
    is(w.over, MANY);
    gone(op, MANY * sizeof *op);
    end();
}
