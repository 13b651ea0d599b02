/* The clock on which an emulated device is seen as it would be, and the simulated cores that have it.

   It goes while the program computes, and stands still while the device's results are made in software
   (OL_SYS_CLOCK_STOP), while the kernel runs other programs instead of this one, and in measurements' own work. It is
   moved where the program would wait: by the set-up's time (OL_SYS_SPEND), and to the next completion or timer where
   there is nothing to do before it. Several cores, each with a clock and a loop of its own, run in this one thread: at
   each move the one goes on whose clock is furthest behind, so that the device sees operations in the order of time. */
#ifndef DEVICE_CLOCK_H
#define DEVICE_CLOCK_H

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <isa-l/igzip_lib.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* ---- ticks ------------------------------------------------------------------------------------------------------- */

static double ns_per_tick = 1;

static int64_t time_of(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#if defined(__x86_64__)
static int64_t ticks(void) { return (int64_t)__builtin_ia32_rdtsc(); }
static void ticks_calibrate(void) {
    const int64_t t = time_of(CLOCK_MONOTONIC), x = ticks();
    while (time_of(CLOCK_MONOTONIC) - t < 50 * 1000 * 1000) {
    }
    const int64_t x2 = ticks();
    ns_per_tick = (double)(time_of(CLOCK_MONOTONIC) - t) / (double)(x2 - x);
}
#else
static int64_t ticks(void) { return time_of(CLOCK_MONOTONIC); }
static void ticks_calibrate(void) {}
#endif

/* ---- clocks and cores -------------------------------------------------------------------------------------------- */

struct core {
    int64_t ran;   /* ticks that its code took */
    int64_t moved; /* ns that its clock was moved by, */
    int64_t idle;  /* ... and of these, where it had nothing to do */
    ucontext_t context;
    void *stack;
    void (*fn)(int index);
    struct ol_loop *loop; /* to be asked when it has something to do again */
    int done;
};

enum { CORES = 8, STACK = 256 * 1024 };
enum { CHECK_NS = 10000 }; /* what took longer is looked at: did the program run all the time? */

static struct core cores[CORES];
static int cores_n, core_at; /* 0: no simulated cores, only cores[0]'s clock */
static ucontext_t cores_main;

static struct {
    int64_t mark;              /* ticks up to which the running core's clock has counted */
    int64_t check;             /* CHECK_NS in ticks */
    int64_t ref_tick, ref_cpu; /* the same moment, in ticks and in CPU time */
    int64_t lost, lost_n;      /* ns that the kernel gave to others, and how often */
    clockid_t cpu;             /* of this thread; of all of them where several take turns */
    int stopped;
} ck;

static void clock_reference(void) {
    ck.ref_cpu = time_of(ck.cpu);
    ck.ref_tick = ck.mark = ticks();
}

/* A long time since the last look at the clock, `spent` ticks up to `now`: what the kernel gave to others is not ours. */
static int64_t clock_own(int64_t now, int64_t spent) {
    const double wall = (double)(now - ck.ref_tick) * ns_per_tick;
    const double others = wall - (double)(time_of(ck.cpu) - ck.ref_cpu);
    double lost = others / ns_per_tick;
    clock_reference();
    if (others < 3000 + wall * 1e-4) return spent;
    if (lost > (double)spent) lost = (double)spent;
    ck.lost += (int64_t)(lost * ns_per_tick);
    ck.lost_n++;
    return spent - (int64_t)lost;
}

static inline void clock_count(void) {
    const int64_t now = ticks(), spent = now - ck.mark;
    if (ck.stopped) return;
    ck.mark = now;
    cores[core_at].ran += spent < ck.check ? spent : clock_own(now, spent);
}
static inline int64_t clock_of(const struct core *c) { return (int64_t)((double)c->ran * ns_per_tick) + c->moved; }

static inline int64_t clock_now(void) {
    clock_count();
    return clock_of(&cores[core_at]);
}

static void clock_stop(void) {
    clock_count();
    ck.stopped++;
}
static void clock_go(void) {
    if (--ck.stopped) return;
    const int64_t now = ticks();
    if (now - ck.mark < ck.check) ck.mark = now;
    else clock_reference();
}

/* ---- cores in turn ----------------------------------------------------------------------------------------------- */

static int core_behind(void) { /* the one whose clock is furthest behind, -1: all are done */
    int best = -1;
    for (int i = 0; i < cores_n; i++)
        if (!cores[i].done && (best < 0 || clock_of(&cores[i]) < clock_of(&cores[best]))) best = i;
    return best;
}
static void core_leave(ucontext_t *from) {
    const int next = core_behind();
    if (next == core_at) return;
    if (next >= 0) core_at = next;
    swapcontext(from, next < 0 ? &cores_main : &cores[next].context);
    ck.mark = ticks(); /* it is this one's turn again */
}
static void core_turn(void) {
    if (cores_n < 2) return;
    clock_count();
    core_leave(&cores[core_at].context);
}
static void core_main(void) {
    ck.mark = ticks();
    cores[core_at].fn(core_at);
    clock_count();
    cores[core_at].done = 1;
    core_leave(&cores[core_at].context);
}

static void cores_reset(void) {
    for (int i = 0; i < CORES; i++) {
        cores[i].ran = cores[i].idle = cores[i].done = 0;
        cores[i].moved = 1000000000; /* a time that is not 0 */
    }
    cores_n = core_at = 0;
    clock_reference();
}

/* Calls fn(0) to fn(n - 1) on simulated cores; returns when all have returned. */
static void cores_run(int n, void (*fn)(int)) {
    cores_reset();
    for (int i = 0; i < n; i++) {
        struct core *c = &cores[i];
        if (!c->stack && !(c->stack = malloc(STACK))) fail("out of memory");
        if (getcontext(&c->context) != 0) fail("getcontext failed");
        c->context.uc_stack.ss_sp = c->stack;
        c->context.uc_stack.ss_size = STACK;
        c->context.uc_link = NULL;
        c->fn = fn;
        makecontext(&c->context, core_main, 0);
    }
    cores_n = n;
    swapcontext(&cores_main, &cores[0].context);
    cores_n = core_at = 0;
    clock_reference();
}

/* ---- where the clock is moved ------------------------------------------------------------------------------------ */

static void clock_spend(int64_t ns) {
    cores[core_at].moved += ns;
    core_turn();
}
static void clock_idle(int64_t ns) {
    if (ns <= 0) return;
    cores[core_at].idle += ns;
    clock_spend(ns);
}

/* When the running core's loop has something to do again; defined where the loop is known. */
static int64_t clock_due(void);

static void clock_pause(void) { /* what spins goes there at once */
    const int64_t due = clock_due();
    clock_idle(due - clock_now());
}

/* No fds are used: the kernel is asked as it would be, but nobody sleeps. */
static int clock_epoll_wait(int ep, struct epoll_event *events, int n, int64_t timeout_ns) {
    const int r = epoll_wait(ep, events, n, 0);
    if (r == 0 && timeout_ns < 0) fail("a loop waits for nothing");
    if (r == 0) clock_idle(timeout_ns);
    return r;
}

/* ---- a slower codec ---------------------------------------------------------------------------------------------- */

static double slow_down = 1; /* software's codec is charged so many times its time, and counted where that isn't 1 */
static double codec_ns, codec_calls;

static int slow_deflate(struct isal_zstream *z) {
    if (ck.stopped || slow_down <= 1) return isal_deflate(z);
    const int64_t begin = clock_now();
    const int r = isal_deflate(z);
    const double took = (double)(clock_now() - begin);
    cores[core_at].moved += (int64_t)((slow_down - 1) * took);
    codec_ns += took;
    codec_calls++;
    return r;
}

static void clock_init(void) {
    ticks_calibrate();
    ck.cpu = CLOCK_THREAD_CPUTIME_ID;
    ck.check = (int64_t)((double)CHECK_NS / ns_per_tick);
    cores_reset();
}

#define isal_deflate(z) slow_deflate(z)
#define OL_SYS_NOW() clock_now()
#define OL_SYS_SPEND(ns) clock_spend(ns)
#define OL_SYS_CLOCK_STOP() (core_turn(), clock_stop()) /* the device's turn: whose clock is behind goes first */
#define OL_SYS_CLOCK_GO() clock_go()
#define OL_SYS_PAUSE() clock_pause()
#define OL_SYS_EPOLL_CREATE() epoll_create1(EPOLL_CLOEXEC)
#define OL_SYS_EPOLL_CTL(ep, op, fd, event) epoll_ctl((ep), (op), (fd), (event))
#define OL_SYS_EPOLL_WAIT(ep, events, n, timeout_ns) clock_epoll_wait((ep), (events), (n), (timeout_ns))
#define OL_SYS_EVENTFD() eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)

#endif
