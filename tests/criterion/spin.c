/* How long a loop spins for completions before it sleeps, and what ends that. The clock is virtual: each look at it takes
   a microsecond, and something may happen at a moment of it.
   cc -O2 -I. tests/criterion/spin.c -o build/tests/spin -lcriterion -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int64_t clock_ns = 1000000000, moment, slept_at;
static void (*at_moment)(void), (*on_sleep)(void);
static int looks; /* at the kernel, without waiting */
static int64_t clock_step = 1000; /* what a look at it takes */
static int64_t test_now(void) {
    void (*const call)(void) = at_moment;
    clock_ns += clock_step;
    if (call && clock_ns >= moment) at_moment = NULL, call();
    return clock_ns;
}
static int test_epoll_wait(int ep, struct epoll_event *events, int n, int64_t timeout) {
    if (!timeout) looks++;
    else if (!slept_at) slept_at = clock_ns;
    if (timeout && on_sleep) on_sleep();
    if (timeout > 0) clock_ns += timeout;
    return epoll_wait(ep, events, n, 0);
}
#define OL_SYS_NOW() test_now()
#define OL_SYS_EPOLL_CREATE() epoll_create1(EPOLL_CLOEXEC)
#define OL_SYS_EPOLL_CTL(ep, op, fd, event) epoll_ctl((ep), (op), (fd), (event))
#define OL_SYS_EPOLL_WAIT(ep, events, n, timeout_ns) test_epoll_wait((ep), (events), (n), (timeout_ns))
#define OL_SYS_EVENTFD() eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

#include <criterion/criterion.h>

TestSuite(spin, .timeout = 30);

enum { US = 1000, SPIN = 100 * US };
static ol_loop *loop;
static ol_op op, *kept, *ready;
static int dones;
static uint32_t device_flags = OL_CHANNEL_NOTIFIES;
static int64_t device_due = -1; /* its next_ns */

static int device_open(void *self, ol_notify *notify, ol_channel *out) {
    (void)notify;
    out->self = self;
    out->depth = 4;
    out->flags = device_flags;
    return 0;
}
static void device_close(void *self) { (void)self; }
static int device_submit(void *self, ol_op *const *ops, int n) {
    (void)self;
    kept = ops[0];
    return n;
}
static int device_poll(void *self, ol_op **ops, int max) {
    (void)self, (void)max;
    if (!ready) return 0;
    ops[0] = ready;
    ready = NULL;
    return 1;
}
static int64_t device_next(void *self, int64_t now) { return (void)self, (void)now, device_due; }
static int device_look(void *self) { return (void)self, ready != NULL; }
static void device_completes(void) {
    if (kept) ready = kept, kept = NULL;
}
static ol_backend device = {OL_BACKEND_VERSION, ~0u,         "device",    NULL, device_open,  device_submit,
                            device_poll,        device_look, device_next, NULL, device_close, NULL, NULL};

static void on_done(ol_loop *l, ol_op *o) { (void)l, (void)o, dones++; }

static void begin(int64_t spin_ns, int with_op) {
    ol_backend *list = &device;
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.backends = &list, d.nbackends = 1, d.no_pool = 1, d.spin_ns = spin_ns;
    d.policy = "any any 0- async device wait";
    cr_assert_eq(ol_loop_create(&loop, &d), 0, "%s", ol_error());
    if (with_op) {
        cr_assert_eq(ol_submit(loop, ol_prep_crc32(&op, 0, "abc", 3), on_done), 0);
        cr_assert_eq(ol_loop_step(loop, 0), 1); /* the device has it */
        cr_assert_not_null(kept);
    }
    slept_at = looks = 0;
}
static void end(void) {
    on_sleep = NULL;
    device_completes();
    while (ol_loop_step(loop, 0) > 0) {
    }
    cr_assert_eq(ol_loop_destroy(loop), 0, "%s", ol_error());
}
/* One round with this limit; how long until it slept, or -1. */
static int64_t sleeps_after(int64_t limit) {
    const int64_t begun = clock_ns;
    cr_assert_geq(ol_loop_step(loop, limit), 0);
    return slept_at ? slept_at - begun : -1;
}
#define between(value, low, high)                                                                                      \
    do {                                                                                                               \
        const int64_t v = (value);                                                                                     \
        cr_assert(v >= (low) && v <= (high), "%s: %lld ns", #value, (long long)v);                                     \
    } while (0)

Test(spin, a_loop_spins_as_long_as_it_was_told_while_something_is_out) {
    begin(SPIN, 1);
    on_sleep = device_completes;
    between(sleeps_after(-1), SPIN, SPIN + 8 * US);
    end();
    begin(SPIN, 1);
    between(sleeps_after(10 * SPIN), SPIN, SPIN + 8 * US);
    end();
}
Test(spin, and_no_longer_than_the_round_may_take) {
    const int64_t begun = clock_ns;
    begin(SPIN, 1);
    cr_assert_eq(sleeps_after(30 * US), -1, "it has slept");
    between(clock_ns - begun, 30 * US, 40 * US);
    end();
}
Test(spin, it_does_not_sleep_when_a_backend_is_to_be_polled_before_the_kernel_would_return) {
    device_flags = 0; /* it doesn't notify */
    for (int known = 0; known < 2; known++) {
        begin(0, 1);
        device_due = known ? clock_ns + 40 * US : -1;
        const int64_t begun = clock_ns;
        cr_assert_eq(sleeps_after(-1), -1, "it has slept");
        between(clock_ns - begun, known ? 36 * US : 1 * US, known ? 50 * US : 10 * US);
        end();
        begin(0, 1);
        device_due = clock_ns + 200 * US;
        between(sleeps_after(-1), 0, 4 * US);
        end();
    }
}
Test(spin, it_does_not_spin_with_nothing_out_or_when_told_not_to) {
    begin(SPIN, 0);
    between(sleeps_after(SPIN), 0, 4 * US);
    end();
    begin(0, 1);
    between(sleeps_after(SPIN), 0, 4 * US);
    end();
}
Test(spin, a_completion_ends_it) {
    const int64_t begun = clock_ns;
    begin(SPIN, 1);
    at_moment = device_completes;
    moment = clock_ns + 40 * US;
    cr_assert_eq(sleeps_after(-1), -1, "it has slept");
    between(clock_ns - begun, 40 * US, 60 * US);
    cr_assert_eq(dones, 1);
    end();
}

static int far;
static void far_writes(void) { cr_assert_eq(write(far, "x", 1), 1); }
static char got;
static int64_t r;
static ol_fd fd;
static void reads(ol_co *co) {
    OL_BEGIN(co);
    OL_AWAIT(r, ol_read(co, fd, &got, 1));
    OL_END(co);
}
Test(spin, the_kernel_is_looked_at_meanwhile_but_not_each_time) {
    static ol_co co;
    int sv[2];
    begin(SPIN, 1);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &fd), 0);
    cr_assert_eq(ol_spawn(loop, &co, reads, fd, 0), 0);
    for (int i = 0; i < 4; i++) { /* it waits, and the first edge has been seen */
        clock_ns += OL__KERNEL_NS;
        cr_assert_eq(ol_loop_step(loop, 0), 1);
    }
    far = sv[1];
    at_moment = far_writes;
    moment = clock_ns + 40 * US;
    slept_at = looks = 0;
    cr_assert_eq(sleeps_after(-1), -1, "it has slept");
    cr_assert_eq(r, 1);
    between(looks, 1, 100 * US / OL__KERNEL_NS + 2);
    between(clock_ns, moment, moment + OL__KERNEL_NS + 8 * US);
    end();
    close(sv[1]);
}

/* ---- a round: how much runs in it, and how often the kernel is asked between rounds. Time passes only where a coroutine
   says so. */

static struct worker {
    ol_co co;
    int64_t takes;
    int yields;
} worker[64];
static int resumes;
static void works(ol_co *co) {
    struct worker *w = OL_SELF(co, struct worker, co);
    OL_BEGIN(co);
    while (w->yields-- > 0) {
        clock_ns += w->takes;
        resumes++;
        OL_YIELD();
    }
    clock_ns += w->takes;
    resumes++;
    OL_END(co);
}
/* n coroutines, each of which takes so long; how many of them a round runs. */
static int in_a_round(int n, int cls, int64_t takes) {
    clock_step = 0;
    begin(0, 0);
    for (int i = 0; i < n; i++) {
        worker[i].takes = takes;
        worker[i].yields = 0;
        cr_assert_eq(ol_spawn(loop, &worker[i].co, works, 0, cls), 0);
    }
    resumes = 0;
    cr_assert_geq(ol_loop_step(loop, 0), 0);
    const int ran = resumes;
    end();
    cr_assert_eq(resumes, n);
    return ran;
}
Test(round, ends_after_20_microseconds_of_batch_work_and_looks_at_the_clock_each_time) {
    cr_assert_eq(in_a_round(20, OL_BATCH, 3 * US), 7);
    cr_assert_eq(in_a_round(20, OL_BATCH, 20 * US), 2); /* 20 is not more than 20 */
    cr_assert_eq(in_a_round(20, OL_BATCH, 20 * US + 1), 1);
    cr_assert_eq(in_a_round(20, OL_BATCH, 1), 20);
}
Test(round, looks_at_the_clock_after_eight_of_latency_critical_work) {
    cr_assert_eq(in_a_round(20, OL_LATENCY, 3 * US), 8);
    cr_assert_eq(in_a_round(20, OL_LATENCY, 2 * US), 16);
    cr_assert_eq(in_a_round(20, OL_LATENCY, 50 * US), 8);
    cr_assert_eq(in_a_round(20, OL_LATENCY, 1), 20);
}

/* Rounds until the kernel is asked again, while there is always something to run. */
static int rounds_to_a_look(int64_t takes) {
    clock_step = 0;
    begin(0, 0);
    worker[0].takes = takes;
    worker[0].yields = 200;
    cr_assert_eq(ol_spawn(loop, &worker[0].co, works, 0, OL_LATENCY), 0);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    looks = 0;
    while (!looks) cr_assert_eq(ol_loop_step(loop, 0), 1); /* from one that has asked on */
    int rounds = 0;
    for (looks = 0; !looks; rounds++) cr_assert_eq(ol_loop_step(loop, 0), 1);
    worker[0].yields = 0;
    end();
    return rounds;
}
Test(round, asks_the_kernel_every_16_rounds_or_10_microseconds_while_there_is_work) {
    cr_assert_eq(rounds_to_a_look(0), 16);
    cr_assert_eq(rounds_to_a_look(2 * US), 5);
    cr_assert_eq(rounds_to_a_look(2 * US + 1), 5);
    cr_assert_eq(rounds_to_a_look(10 * US - 1), 2);
    cr_assert_eq(rounds_to_a_look(10 * US), 1);
}

/* ---- a worker on the loop's own core is not spun for */

Test(round, a_synchronous_rule_suspends_where_the_workers_share_the_loops_core) {
    for (uint32_t sched = 1; sched <= 2; sched++) {
        ol_backend *pool;
        ol_channel channel;
        ol_threads_desc d;
        memset(&d, 0, sizeof d);
        d.sched = sched;
        cr_assert_eq(ol_threads_create(&pool, &d), 0);
        cr_assert_eq(pool->open(pool->self, NULL, &channel), 0);
        cr_assert_eq((channel.flags & OL_CHANNEL_NO_SYNC) != 0, sched == 1);
        pool->close(channel.self);
        cr_assert_eq(ol_threads_destroy(pool), 0);
    }
}
