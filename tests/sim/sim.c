/* sim.c: random programs on the simulated kernel, with checkers that know next to nothing of the library's insides.

   cc -std=c11 -O1 -g -I. tests/sim/sim.c -o build/tests/sim -pthread

   Each seed is one program: loops with listeners, connections that parse, compute and answer, clients, pipes, operations
   in every form, timers, posts from other threads, and mischief: closes, cancels, deadlines and policy changes at the
   worst moments, on a kernel, devices and worker threads that delay, refuse and fail. Then the faults stop, and
   everything must come to its end. `sim --seed S` replays one with a log of every event. With -DOFFLOAD_ISAL (and
   -lisal) deflate and inflate take part.

   The parts, each a header: kernel.h, threads.h, device.h (what is simulated), tally.h (what is counted), world.h (what
   the checkers know), roots.h, policies.h, slices.h, autos.h, tasks.h, pool.h, counts.h (coroutines, operations, modes,
   the pool, figures), streams.h, extras.h, callbacks.h, forks.h (what a program does). A new part gets a line in `workloads`, and one in `mischiefs` for what it
   does at any moment.

   For a fuzzer: with SIM_NO_MAIN defined there is no main, and sim_run_bytes runs one program that the bytes choose.

   What is checked, each in O(1) where it happens:
     gate        one root alive in a partition, with its children, or one callback; not before the callbacks of operations
                 that an earlier one submitted
     order       who comes first to a partition's line is served first: roots, joins, handlers, timers, posts
     join, lock, deadlock, children, wait   see sharing.h; handler: handlers.h; guest: guest.h; fork: forks.h
     stream      each connection's bytes arrive complete and in order, unless the seed broke it
     operation   each accepted one completes once, with its true result if it ran; a stopped one never ran; its buffers
                 are not written afterwards, nor is any struct after the library has given it back
     callback    never from inside ol_submit
     resume      never from inside another coroutine or its own await
     error       each negative result has its cause: closed, cancelled, timed out, faulty, no memory, no fd, forked; and a
                 text (checker "text")
     time        sleeps, deadlines and timers never early, and not late beyond a bound: sleeps, and timers without an fd, end
                 in the first round that begins when they are due; the loop's time never goes back
     order       a backend gets the operations of a class and sort in the order of their submission
     class       latency before batch, batch after at most latency_run, across callbacks, too
     policy      an operation runs where the rule in force says, or for a reason that holds; text and struct agree; a
                 synchronous wait has its bound, and park_max bounds what waits for room
     print       a policy is the same after it was printed and read
     slice, steps   see slices.h; auto: autos.h; times, samples, dump: counts.h
     poll        a backend that can't notify is polled in time; what one has refused it is soon offered again
     backend     never more in flight than its depth, never a kind that it does not do; of one queue never more of all
                 classes and sorts, and of batch no more than what the reserve leaves
     pool        what pool.h says of the shipped pool
     post        each accepted post runs once, in order for each thread, and sees what was written before; -EBUSY while it
                 is queued and only then
     budget      awaits of one run, and `turn` the runs of one round, stay within their bounds
     count       the library's counters agree with ours; a round says whether anything is left
     desc, log   what was asked for is in force; what is reported is a text
     close       the peer sees it at once; close(2) at once if nothing is in flight, else operations are asked to stop
     ending      everything ends in bounded virtual time once faults stop; nothing is left open or allocated
   and the kernel's own: use of closed fds, double close, close with an operation in flight, writes to freed memory, lost
   wake-up, busy loop, threads that wait for each other, use of a parent's descriptors after a fork. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "kernel.h"
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"
#include "tally.h"
#include "device.h"
#include "world.h"
#include "lines.h"
#include "roots.h"
#include "policies.h"
#include "slices.h"
#include "autos.h"
#include "tasks.h"
#include "pool.h"
#include "counts.h"
#include "streams.h"
#include "extras.h"
#include "callbacks.h"
#include "flows.h"
#include "sharing.h"
#include "handlers.h"
#include "guest.h"
#include "forks.h"

#include <sys/wait.h>

static const workload workloads[] = {
    /* name, build, quiet, calm, asleep, close, leave, end */
    {"streams", streams_build, streams_quiet, streams_calm, NULL, NULL, NULL, streams_end},
    {"files", files_build, NULL, NULL, NULL, NULL, NULL, NULL},
    {"callbacks", callbacks_build, callbacks_quiet, NULL, callbacks_asleep, NULL, callbacks_leave, callbacks_end},
    {"slices", NULL, NULL, NULL, slices_asleep, NULL, NULL, NULL},
    {"pool", NULL, NULL, NULL, pool_asleep, NULL, NULL, pool_end},
    {"flows", NULL, flows_quiet, NULL, NULL, NULL, NULL, flows_end},
    {"sharing", sharing_build, NULL, sharing_calm, NULL, NULL, NULL, sharing_end},
    {"guests", guests_choose, NULL, NULL, NULL, NULL, NULL, NULL},
    {"handlers", handling_build, handling_quiet, handling_calm, NULL, handling_close, NULL, handling_end},
    {"guest connections", guests_build, NULL, NULL, NULL, NULL, NULL, NULL},
    {"forks", forks_build, NULL, NULL, NULL, NULL, NULL, NULL},
};
enum { WORKLOADS = sizeof workloads / sizeof *workloads };

/* ---------------------------------------------------------------------------------------------------------------- */
/* Mischief: from coroutines, callbacks, timers, posts and between steps                                            */

static void mischief_close(int loop) {
    fdrec *f;
    (void)loop;
    if (!w.nopen) return;
    f = w.open[k_below((uint32_t)w.nopen)];
    if (f == w.listener[f->loop] && k_below(20)) return;
    taint_fd(f);
    k_trace("mischief closes", (int64_t)(f - w.fds), 0);
    fd_close(f);
}
static void mischief_spawn(int loop) {
    (void)loop;
    if (w.nopen && w.nroots < ROOTS - 64) extra_start(w.open[k_below((uint32_t)w.nopen)]);
}
static void mischief_cancel(int loop) {
    (void)loop;
    if (w.nroots) root_cancel(w.roots[k_below((uint32_t)w.nroots)]);
}
static void mischief_deadline(int loop) {
    const int64_t ns = k_below(4) ? k_range(1, 3 * MS) : k_range(-1, 0);
    root *r;
    (void)loop;
    if (!w.nroots) return;
    r = w.roots[k_below((uint32_t)w.nroots)];
    root_deadline(r, ns);
    if (k_below(4) == 0) root_deadline(r, k_range(1, 3 * MS)); /* put off before it shows */
}
static void mischief_task(int loop) {
    task *t;
    int e;
    (void)loop;
    if (!w.ntasks) return;
    t = w.tasks[k_below((uint32_t)w.ntasks)];
    t->canceled = 1;
    k_trace("mischief cancels", t->id, 0);
    e = ol_op_cancel(w.loop[t->loop], &t->op);
    CHECK("error", e == 0 || (e == -EINVAL && t->awaited)); /* EINVAL: complete, and its root has not run yet */
    if (e == 0) sliced_stops(t);
}
static void mischief_timer(int loop) {
    clock_timer *t = &w.timer[loop][k_below(TIMERS)];
    if (k_below(3)) timer_start(loop, t);
    else timer_stop(t);
}
static void mischief_post(int loop) {
    (void)loop;
    outside();
}
static void mischief_client(int loop) {
    if (w.clients-- > 0) client_start(loop);
}
static void mischief_pump(int loop) {
    (void)loop;
    if (w.pumps-- > 0) pump_start();
}
static void mischief_stop(int loop) { ol_loop_stop(w.loop[loop]); } /* ends the next ol_loop_run after its round */
static void mischief_class(int loop) {
    root *r = (root *)(void *)w.running;
    (void)loop;
    if (!r) return;
    r->cls = 1 + (int)k_below(2);
    CHECK("error", ol_set_class(&r->co, r->cls) == 0);
    CHECK("error", ol_set_class(&r->co, 3) == -EINVAL);
}
static void mischief_submit(int loop) {
    int n = 1 + (int)k_below(k_below(4) ? 3 : 12);
    for (; n > 0; n--) task_submit(loop, w.stepping == loop || w.gate == loop ? w.current : NULL);
}
/* Small ones, one round after the other or all at once. */
static void mischief_burst(int loop) {
    int n = 20 + (int)k_below(20);
    if (w.bursts-- <= 0) return;
    for (; n > 0; n--) task_submit(loop, w.stepping == loop || w.gate == loop ? w.current : NULL);
}
static void mischief_ask(int loop) { /* for figures */
    pool_stats();
    histogram_try();
    policy_prints(&w.policy[loop]);
}
static void mischief_share(int loop) {
    fdrec *f = share_target(loop);
    if (f && !f->closed && w.nroots < ROOTS - 64 && sharing.starts-- > 0) sharer_start(f);
}
static void mischief_proxy(int loop) {
    if (sharing.proxies-- > 0) proxy_start(loop);
}
static void mischief_join(int loop) {
    fdrec *a = share_target(loop), *b = share_target(loop);
    if (a && b) try_join(loop, a, b);
}
static void mischief_session(int loop) {
    if (handling.starts-- <= 0) return;
    if (guests.is[loop] && k_below(2)) guest_session_start(loop);
    else session_start(loop);
}
static void mischief_handler(int loop) {
    session *s = session_any(loop);
    const uint32_t what = k_below(4);
    if (!s) return;
    if (what == 0) session_unwatch(s);
    else if (what == 1) session_watch(s, 1 + (int)k_below(3), 1);
    else if (what == 2) session_watch(s, 1 + (int)k_below(3), 0);
    session_wants(s);
}

static const struct mischief_kind {
    int weight;
    void (*fn)(int loop);
} mischiefs[] = {
    {1, mischief_close}, {3, mischief_spawn},   {1, mischief_cancel},  {1, mischief_deadline}, {2, mischief_task},
    {1, policy_set},     {2, mischief_timer},   {1, mischief_post},    {1, mischief_client},   {1, mischief_pump},
    {1, mischief_stop},  {1, mischief_class},   {2, mischief_submit},  {3, mischief_share},    {1, mischief_proxy},
    {1, mischief_burst}, {1, mischief_ask},
    {2, mischief_join},  {2, mischief_session}, {2, mischief_handler}, {1, mischief_fork},
};
enum { MISCHIEFS = sizeof mischiefs / sizeof *mischiefs };

/* `loop` is the one that runs; between steps any. */
static void mischief(int loop) {
    int i, total = 0, x;
    if (w.phase != CHAOS || loop == VISITOR || w.budget <= 0 || k_below(3)) return;
    w.budget--;
    for (i = 0; i < MISCHIEFS; i++) total += mischiefs[i].weight;
    x = (int)k_below((uint32_t)total);
    for (i = 0; x >= mischiefs[i].weight; i++) x -= mischiefs[i].weight;
    mischiefs[i].fn(loop);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Build-up of the world                                                                                            */

/* 0 mostly, else a small or a large probability: seeds differ in character. */
static int some(int small, int large) {
    const uint32_t x = k_below(4);
    return x < 2 ? 0 : x == 2 ? small : large;
}

static void choose_faults(void) {
    k_faults *f = &sim.faults;
    f->late = some(100, 500);
    f->spurious = some(20, 200);
    f->ghost = some(20, 200);
    f->eintr = some(20, 200);
    f->short_read = some(50, 400);
    f->short_write = some(50, 400);
    f->again = some(20, 200);
    f->enomem = k_below(2) ? some(100, 500) : 300; /* large, because allocations are rare */
    f->ctl = some(5, 50);
    f->accept_abort = some(20, 200);
    f->accept_full = some(10, 100);
    f->socket_full = some(10, 100);
    f->open_full = some(50, 300);
    f->interrupt = some(5, 50);
    f->stall = some(1, 10);
    f->preempt = some(5, 200);
    f->thread_stall = some(50, 300);
    f->thread_stick = some(20, 200);
    f->thread_start = some(200, 1000);
    f->futex = some(50, 500);
    w.old_kernel = f->no_openat2 = k_below(4) == 0;
    f->no_nowait = k_below(4) == 0;
    if (k_below(5) == 0) sim.fd_limit = sim.lowest + (int)k_below(20);
    sim.oversleep = k_below(2) ? 0 : 50 * US;
    sim.tick = 1 + (int)k_below(60);
    sim.piece = k_below(2) ? 1 << 30 : 64u << k_below(6);
}
static void choose_device(int i) {
    static const char *const name[DEVS] = {"dev0", "dev1"};
    dev_params p;
    memset(&p, 0, sizeof p);
    p.depth = 1 + k_below(k_below(2) ? 3 : 30);
    p.flags = k_below(2) ? OL_CHANNEL_NOTIFIES : 0;
    if (k_below(6) == 0) p.flags |= OL_CHANNEL_NO_SYNC;
    if (k_below(2)) p.flags |= OL_CHANNEL_ONE_QUEUE;
    if (k_below(3) == 0) p.flags |= OL_CHANNEL_VERIFY;
    p.next = (int)k_below(3);
    p.base = k_range(100, k_below(2) ? 2 * US : 50 * US);
    p.jitter = k_range(0, k_below(2) ? 5 * US : 500 * US);
    p.slow = some(10, 100);
    p.hang = some(5, 30);
    p.few = some(100, 500);
    p.refuse = some(50, 300);
    p.fail = some(10, 50);
    p.stop = k_below(5) == 0 ? -1 : (int)k_below(1001);
    p.fault = some(10, 100);
    dev_init(&w.device[i], name[i], &p);
    w.device[i].m.reserve = k_below(4) ? k_below(p.depth + 3) : 0; /* of which that is too many counts as depth - 1 */
    w.device[i].m.lost = some(30, 100);
    w.device[i].m.asleep = (int)k_below(1001);
    w.device[i].m.tells = (int)k_below(2);
    w.device[i].m.phase = k_below(3) ? 0 : k_range(20 * US, 2 * MS);
    if (k_below(2)) w.device[i].backend.asleep = dev_asleep;
    if (k_below(2)) w.device[i].backend.forked = NULL; /* its channels are opened anew */
    if (k_below(4) == 0) w.device[i].backend.kinds = (1u << OL_OP_CRC32) | (1u << OL_OP_DEFLATE);
    w.device[i].on_take = device_takes;
    w.device[i].on_refuse = device_refuses;
    w.device[i].on_cancel = device_cancel;
    w.device[i].on_done = device_done;
    w.device[i].on_return = device_returns;
    w.backend[w.nbackends++] = name[i];
}
/* Devices, the pool, or both. */
static void choose_backends(void) {
    const uint32_t x = k_below(10);
    int kind = x < 3 ? POOL_NONE : x < 8 ? POOL_OWN : POOL_SHARED;
    int i;
    w.ndevs = (int)k_below(DEVS + 1);
    if (w.ndevs == 0 && kind == POOL_NONE) kind = POOL_OWN;
    sim.threads_max = K_THREADS - 1 - POSTERS;
    sim.cpus = 1 + (int)k_below(5);
    for (i = 0; i < w.ndevs; i++) choose_device(i);
    pool_build(kind);
    if (kind != POOL_NONE) w.backend[w.nbackends++] = "threads";
}
/* Reported to the application: text that says something, and not as an error. */
static void on_log(void *user, int level, const char *text) {
    CHECK("text", user == &w && (level == 0 || level == 1) && text && *text);
    COUNT(LOGGED);
}
static void choose_loop(int i) {
    static ol_backend *backends[LANES];
    ol_loop_desc *d = &w.desc[i];
    int j;
    for (j = 0; j < w.ndevs; j++) backends[j] = &w.device[j].backend;
    if (pool.kind == POOL_OWN) backends[j++] = &pool.backend;
    d->backends = backends;
    d->nbackends = (uint32_t)j;
    d->no_pool = pool.kind != POOL_SHARED;
    d->events = 1 + k_below(32);
    d->turn = 1 + k_below(64);
    d->latency_run = 1 + k_below(8);
    d->budget = 1 + k_below(64);
    d->park_max = 1 + k_below(k_below(2) ? 4 : 64);
    d->dequeue_batch = 1 + k_below(16);
    d->spin_ns = k_below(3) ? 0 : k_range(1, 5 * US);
    d->sync_ns = k_range(1, k_below(2) ? 2 * US : 200 * US);
    d->poll_ns = k_range(500, 5 * US);
    d->slice_ns = k_range(1, k_below(2) ? 2 * US : 30 * US);
    d->stall_ns = k_range(1, k_below(2) ? 5 * US : 500 * US);
    d->sample = k_below(2) ? 1 : 1 + k_below(10);
    d->log = on_log;
    d->log_user = &w;
}
static int loop_create(int i) {
    const ol_loop_desc *d = &w.desc[i], *got;
    const int64_t made = sim.now;
    int r;
    choose_loop(i);
    w.creating = i;
    r = ol_loop_create(&w.loop[i], &w.desc[i]);
    if (r) return r;
    ol_loop_get_policy(w.loop[i], &w.policy[i]);
    counts_begin(i, made);
    got = ol_loop_desc_of(w.loop[i]); /* what was not left to a default is as it was asked for */
    CHECK("desc", got->events == d->events && got->turn == d->turn && got->latency_run == d->latency_run &&
                      got->budget == d->budget && got->park_max == d->park_max &&
                      got->dequeue_batch == d->dequeue_batch && got->spin_ns == d->spin_ns &&
                      got->sync_ns == d->sync_ns && got->poll_ns == d->poll_ns && got->slice_ns == d->slice_ns &&
                      got->stall_ns == d->stall_ns && got->sample == d->sample && got->nbackends == d->nbackends);
    return 0;
}
static void listener_start(int i) {
    struct sockaddr_in in = k_address(8000 + i);
    acceptor *a = (acceptor *)k_own(sizeof *a);
    ol_fd handle;
    const int cls = (int)k_below(3), backlog = 1 + (int)k_below(8);
    CHECK("test", ol_listen(w.loop[i], (struct sockaddr *)&in, sizeof in, backlog, 0, cls, &handle) == 0);
    w.listener[i] = a->f = fd_new(i, handle, cls, part_new(), NULL);
    CHECK("test", root_spawn(&a->r, a, R_ACCEPTOR, i, a->f->part, a->f, acceptor_entry) == 0);
}

static void build(void) {
    int i;
    w.nloops = 1 + (int)k_below(LOOPS);
    w.stepping = w.destroying = w.draining = w.gate = -1;
    sim.thrifty = 1;
    CHECK("error", ol_version() == (OL_VERSION_MAJOR << 16 | OL_VERSION_MINOR << 8 | OL_VERSION_PATCH));
    if (k_below(4)) sim.lowest = 56 - (int)k_below(16); /* tables grow in the middle of the run */
#if HAS_CODEC
    codec = ol_exec_create();
#endif
    w.taste = (int)k_below(TASTES);
    choose_backends();
    for (i = 0; i < w.nloops; i++) {
        CHECK("test", loop_create(i) == 0);
        listener_start(i);
        policy_set(i);
    }
    for (i = 0; i < WORKLOADS; i++)
        if (workloads[i].build) workloads[i].build();
    w.budget = 20 + (int)k_below(200);
    w.bursts = w.taste == TASTE_AUTO ? 2 : 0;
    choose_faults();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* A seed                                                                                                           */

/* Are only acceptors left, and those that wait behind them? */
static int calm(void) {
    int i;
    for (i = 0; i < WORKLOADS; i++)
        if (workloads[i].calm && !workloads[i].calm()) return 0;
    for (i = 0; i < w.nroots; i++)
        if (w.roots[i]->kind != R_ACCEPTOR &&
            !(w.roots[i]->part == w.listener[w.roots[i]->loop]->part && !w.roots[i]->started))
            return 0;
    return w.ntasks == 0;
}

/* Falls asleep for so long: not longer than until what was refused is to be tried again, and until a device that tells
   nobody of its completions is to be asked. */
static void sleep_is_bounded(int loop, int64_t ns) {
    int i;
    if (ns < 0) ns = K_NEVER;
    if (w.refused[loop] && ns > MS + US)
        k_fail("lost wake-up", "sleeps without a thought of what a backend has refused");
    for (i = 0; i < w.ndevs * DEV_CHANNELS; i++) {
        const dev *d = &w.device[i / DEV_CHANNELS];
        const dev_channel *c = &d->channel[i % DEV_CHANNELS];
        int64_t most = w.desc[loop].poll_ns, due;
        if ((d->p.flags & OL_CHANNEL_NOTIFIES) || !c->open || !c->held || c->notify != &w.loop[loop]->notify) continue;
        due = d->backend.next_ns ? dev_least_due(c) : K_NEVER;
        if (due != K_NEVER && due - w.entered > most) most = due - w.entered; /* it has said when */
        CHECK("poll", ns <= most + US); /* a timerfd is set a little later than its time is computed */
    }
}
/* Falls asleep, or goes on sleeping: then nothing that has been announced may be waiting, unless a thread has stalled:
   it may be the one that is about to write to the eventfd, on behalf of all who have announced something since. */
static void on_asleep(k_file *ep) {
    int i;
    if (w.stepping < 0) return;
    if (ep && sim.falls_asleep && !w.renewing[w.stepping]) sleep_is_bounded(w.stepping, sim.sleep_for);
    if (k_anyone_stalled()) return;
    for (i = 0; i < WORKLOADS; i++)
        if (workloads[i].asleep) workloads[i].asleep();
    for (i = 0; i < w.ndevs * DEV_CHANNELS && w.stepping < LOOPS; i++) {
        const dev *d = &w.device[i / DEV_CHANNELS];
        const dev_channel *c = &d->channel[i % DEV_CHANNELS];
        if ((d->p.flags & OL_CHANNEL_NOTIFIES) && c->open && c->finished && c->notify == &w.loop[w.stepping]->notify)
            k_fail("lost wake-up", "sleeps although a device has announced a completion");
    }
}

/* Nothing would wake the loop: right only if nobody waits for anything. */
static int on_idle(void) {
    if (w.phase != CHAOS && !calm()) return 0;
    outside();
    return 1;
}

static void step(int i, int64_t timeout) {
    const int64_t earlier = ol_now(w.loop[i]), began = sim.now;
    const uint32_t forks = sim.forks;
    ol_loop_stats s;
    uint64_t waits;
    int r, left;
    w.turns++;
    if (i < LOOPS && guests.is[i]) {
        if (!guest_round(i, timeout)) return;
        timeout = k_below(8) ? 0 : k_range(0, 10 * US);
    }
    if (i < LOOPS) callbacks_before_step(i);
    s.size = sizeof s;
    ol_loop_get_stats(w.loop[i], &s);
    w.items = 0;
    w.stepping = i;
    w.entered = sim.now;
    waits = sim.stats.waits;
    r = ol_loop_step(w.loop[i], timeout);
    w.stepping = -1;
    if (fork_failed(i, r)) return;
    if (r < 0) k_fail("error", "ol_loop_step gave %d: %s", r, ol_error());
    if (i < LOOPS) callbacks_after_step(i);
    if (i < LOOPS) timers_in_time(i);
    sleepers_in_time(i);
    left = w.alive[i] || w.inflight[i] || (i < LOOPS && (callbacks_left(i) || handlers_left(i)));
    if (i < LOOPS && guests.is[i]) guest_stepped(i, left, r);
    sharing_sweep();
    handling_sweep(); /* may close what was left */
    if (left) CHECK("count", r == 1);
    if (!left && !w.nposters && (i >= LOOPS || (sim.now > handling.pause[i] && !guests.is[i]))) CHECK("count", r == 0);
    CHECK("time", ol_now(w.loop[i]) >= earlier && ol_now(w.loop[i]) <= sim.now);
    CHECK("turn", w.items <= w.desc[i].turn);
    check_counts(i, s.turns + 1, w.entered, sim.stats.waits > waits);
    w.began[i] = began;
    w.steps[i]++;
    if (forks == sim.forks) w.renewing[i] = 0;
}
static int64_t a_timeout(void) {
    const uint32_t x = k_below(4);
    if (x == 0) return 0;
    if (w.nloops == 1 && x == 1) return -1;
    return k_range(1, x == 2 ? 10 * US : MS);
}

static void add_stats(int i) {
    ol_loop_stats s;
    s.size = sizeof s;
    ol_loop_get_stats(w.loop[i], &s);
    counted[T_WITHHELD] += s.withheld;
    counted[T_STALE] += s.stale;
}

static void loop_destroy(int i) {
    add_stats(i);
    counts_end(i);
    w.stepping = w.destroying = i;
    CHECK("error", ol_loop_destroy(w.loop[i]) == 0);
    w.stepping = w.destroying = -1;
    CHECK("ending", w.inflight[i] == 0);
    w.loop[i] = NULL;
}

/* A loop that shares the pool for a moment: its channel is used again by the next. */
static void visitor(void) {
    ol_policy *p = &w.policy[VISITOR];
    int n = 1 + (int)k_below(10), r;
    if (pool.kind == POOL_NONE) return;
    w.gone[VISITOR] = NULL;
    memset(w.last_taken[VISITOR], 0, sizeof w.last_taken[VISITOR]);
    r = loop_create(VISITOR);
    if (r) {
        CHECK("error", r == -ENOMEM || r == -EMFILE || r == -ENOSPC);
        told(ol_error());
        return;
    }
    COUNT(VISITOR);
    CHECK("error", ol_policy_parse("any any 0- async threads wait", p, NULL, 0) == 0);
    CHECK("error", ol_loop_set_policy(w.loop[VISITOR], p) == 0);
    while (n--) task_submit(VISITOR, NULL);
    for (n = (int)k_below(4); n > 0; n--) step(VISITOR, k_range(0, 20 * US));
    loop_destroy(VISITOR);
}

static int by_bytes; /* a fuzzer's */

static void chaos(void) {
    int i, turn;
    sim.idle = on_idle;
    sim.asleep = on_asleep;
    for (turn = 0; turn < 3000 && (turn < 100 || sim.nevents < 2500); turn++) {
        if (by_bytes && !sim.ninput && turn > 20) break; /* what follows, all inputs have in common */
        i = k_below(5) ? turn % w.nloops : (int)k_below((uint32_t)w.nloops);
        mischief(i);
        if (k_below(30) == 0) visitor();
        if (turn == 50) CHECK("error", !w.alive[i] || ol_loop_destroy(w.loop[i]) == -EBUSY);
        step(i, a_timeout());
    }
}

/* The faults stop; what hung or fell silent goes on. */
static void quiet(void) {
    int i;
    memset(&sim.faults, 0, sizeof sim.faults);
    sim.fd_limit = 1024;
    for (i = 0; i < w.ndevs; i++) {
        dev_release(&w.device[i]);
        w.device[i].m.lost = 0;
        w.device[i].m.phase = 0;
        w.device[i].p.hang = w.device[i].p.refuse = w.device[i].p.fail = w.device[i].p.fault = 0;
    }
    for (i = 0; i < WORKLOADS; i++)
        if (workloads[i].quiet) workloads[i].quiet();
}

/* Runs on until everything has come to its end by itself. */
static void end_by_itself(void) {
    const int64_t begun = sim.now;
    int i, turn;
    w.phase = CALM;
    quiet();
    for (turn = 0; !calm(); turn++) {
        if (turn > 200000 || sim.now > begun + ENOUGH)
            k_fail("ending", "things are still under way after %d turns and %lld ns without faults", turn,
                   (long long)(sim.now - begun));
        step(turn % w.nloops, w.nloops == 1 && k_below(2) ? -1 : 200 * US);
    }
    w.phase = ENDING;
    for (i = 0; i < w.nloops; i++)
        if (!w.listener[i]->closed) fd_close(w.listener[i]);
    for (i = 0; i < WORKLOADS; i++)
        if (workloads[i].close) workloads[i].close();
    for (i = 0; i < w.nloops; i++) {
        w.stepping = i;
        CHECK("error", ol_loop_run(w.loop[i]) == 0); /* may be stopped at once */
        CHECK("error", ol_loop_run(w.loop[i]) == 0);
        CHECK("ending", w.alive[i] == 0 && w.inflight[i] == 0);
        w.stepping = -1;
    }
    COUNT(ENDED_ITSELF);
}

/* Or is asked to end, in the middle of everything. */
static void end_by_drain(void) {
    int i, j, r;
    w.phase = ENDING;
    for (i = 0; i < w.nparties; i++) taint(&w.parties[i]);
    if (k_below(2)) quiet();
    for (i = 0; i < w.nloops; i++) {
        for (j = 0; j < w.nroots; j++)
            if (w.roots[j]->loop == i) root_canceled(w.roots[j]);
        w.stepping = w.draining = i;
        r = ol_loop_drain(w.loop[i], k_below(2) ? 0 : 5 * MS);
        if (r == -ETIMEDOUT) CHECK("ending", w.alive[i] || w.inflight[i]);
        CHECK("error", r == -ETIMEDOUT || fork_failed(i, r) || (r == 0 && w.alive[i] == 0 && w.inflight[i] == 0));
        COUNT_IF(ENDED_LATE, r);
        if (r) {
            quiet();
            r = ol_loop_drain(w.loop[i], ENOUGH);
            if (r)
                k_fail("ending", "%d roots and %d operations are left after a drain of %lld ns", w.alive[i],
                       w.inflight[i], (long long)ENOUGH);
        }
        CHECK("ending", w.alive[i] == 0 && w.inflight[i] == 0);
        w.stepping = w.draining = -1;
    }
    COUNT(ENDED_DRAINED);
}

static void count_device(const dev *d) {
    COUNT_IF(DEV_ENDED_BY_CANCEL, d->ended_by_cancel);
    COUNT_IF(DEV_ASLEEP, d->slept);
    COUNT_IF(DEV_IN_SLOW, d->in_phase[DEV_SLOW]);
    COUNT_IF(DEV_IN_FAST, d->in_phase[DEV_FAST]);
    COUNT_IF(DEV_IN_FULL, d->in_phase[DEV_FULL]);
}
static void take_down(void) {
    int i, n;
    quiet();
    CHECK("ending", w.nroots == 0 && w.ntasks == 0);
    for (i = 0; i < WORKLOADS; i++)
        if (workloads[i].leave) workloads[i].leave();
    for (i = 0; i < w.nloops; i++) {
        counts_end(i);
        for (n = (int)k_below(3); n > 0; n--) task_submit(i, NULL); /* destroy completes these */
        if (pool.kind == POOL_OWN) CHECK("error", ol_threads_destroy(pool.real) == -EBUSY);
        loop_destroy(i);
    }
    for (i = 0; i < WORKLOADS; i++)
        if (workloads[i].end) workloads[i].end();
    for (i = 0; i < w.ndevs; i++) {
        CHECK("operation", w.device[i].taken == w.device[i].done);
        count_device(&w.device[i]);
        dev_free(&w.device[i]);
    }
#if HAS_CODEC
    ol_exec_destroy(codec);
#endif
    if (sim.forks) forks_leave_files();
    k_check_leaks();
}

static void on_panic(const char *text) { k_fail("library", "%s", text); }

static void run_program(void) {
    ol_set_panic(on_panic);
    build();
    chaos();
    if (k_below(3)) end_by_itself();
    else end_by_drain();
    take_down();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* One seed, or one string of bytes                                                                                 */

static uint64_t the_seed;
static const char *program = "sim";
static int replaying;

/* 1 passed. The world has been booted. */
static int run_one(tally *t) {
    memset(&w, 0, sizeof w);
    memset(&flows, 0, sizeof flows);
    memset(&sharing, 0, sizeof sharing);
    memset(&handling, 0, sizeof handling);
    memset(&guests, 0, sizeof guests);
    memset(counted, 0, sizeof counted);
    sim.verbose = replaying;
    if (setjmp(sim.on_fail)) {
        printf("FAILED %s %llu after %llu events at %lld ns: [%s] %s\n", by_bytes ? "input" : "seed",
               (unsigned long long)the_seed, (unsigned long long)sim.nevents, (long long)sim.now, sim.checker,
               sim.text);
        tally_seed(t, w.turns);
        t->failed++;
        k_halt();
        pool_forget();
        return 0;
    }
    run_program();
    tally_seed(t, w.turns);
    t->passed++;
    k_halt();
    return 1;
}

static int run_seed(uint64_t seed, tally *t, uint64_t *hash) {
    uint64_t x;
    int ok;
    the_seed = seed;
    k_boot(seed);
    ok = run_one(t);
    if (!ok) printf("  replay: %s --seed %llu\n", program, (unsigned long long)seed);
    fflush(stdout);
    *hash = sim.hash;
    x = sim.hash ^ seed;
    t->hash += k_splitmix(&x); /* a sum: seeds may run in any order */
    return ok;
}

/* The program that these bytes choose: 0, or 1 if a checker has found something and printed it. */
#if defined(__cplusplus)
extern "C"
#endif
    int
    sim_run_bytes(const unsigned char *data, size_t size);
int sim_run_bytes(const unsigned char *data, size_t size) {
    static tally sink;
    int failed;
    the_seed++; /* the number of the input */
    by_bytes = 1;
    k_boot_bytes(data, size);
    failed = !run_one(&sink);
    fflush(stdout);
    return failed;
}

#if !defined(SIM_NO_MAIN)
/* ---------------------------------------------------------------------------------------------------------------- */
/* The driver                                                                                                       */

static struct options {
    uint64_t first, seeds;
    int jobs, stop_at, hashes;
    double require; /* percent of the seeds in which each row must occur; 0: none */
    const char *bytes;
} options;

static const char *plural(uint64_t n) { return n == 1 ? "" : "s"; }

static void print_summary(const tally *t) {
    const uint64_t runs = t->passed + t->failed;
    if (!runs) return;
    printf("%llu seed%s, %llu events (%llu a seed), %llu turns, %.1f s of virtual time\n", (unsigned long long)runs,
           plural(runs), (unsigned long long)t->events, (unsigned long long)(t->events / runs),
           (unsigned long long)t->turns, (double)t->virtual_ns / 1e9);
    tally_print(t);
}

/* A sanitizer or a signal ends the process: say which seed it was. */
static void on_crash(int number) {
    char text[200];
    const int n = snprintf(text, sizeof text, "\nsignal %d; replay: %.100s --seed %llu\n", number, program,
                           (unsigned long long)the_seed);
    if (write(STDERR_FILENO, text, (size_t)n) < 0) _exit(3);
    signal(number, SIG_DFL);
    raise(number);
}
#if defined(__cplusplus)
extern "C"
#endif
    void
    __asan_on_error(void);
void __asan_on_error(void) { fprintf(stderr, "\nreplay: %s --seed %llu\n", program, (unsigned long long)the_seed); }

/* Every jobs-th seed, from the job-th on. */
static void run_share(int job, tally *t) {
    uint64_t i, hash, done = 0;
    const uint64_t share = (options.seeds + (uint64_t)options.jobs - 1) / (uint64_t)options.jobs;
    for (i = (uint64_t)job; i < options.seeds && t->failed < (uint64_t)options.stop_at; i += (uint64_t)options.jobs) {
        run_seed(options.first + i, t, &hash);
        if (options.hashes)
            printf("seed %llu: %016llx\n", (unsigned long long)(options.first + i), (unsigned long long)hash);
        if (job == 0 && ++done % 2000 == 0)
            fprintf(stderr, "  %llu of %llu seeds\n", (unsigned long long)(done * (uint64_t)options.jobs),
                    (unsigned long long)(share * (uint64_t)options.jobs));
    }
}

/* The seeds in several processes; what they count is in memory that they share with this one. */
static int run_jobs(tally *total) {
    const size_t size = sizeof(tally) * (size_t)options.jobs;
    tally *t = (tally *)mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int i, status, bad = 0;
    if ((void *)t == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    fflush(stdout);
    for (i = 0; i < options.jobs; i++) {
        const pid_t pid = fork();
        if (pid < 0) perror("fork"), bad++;
        if (pid == 0) {
            run_share(i, &t[i]);
            fflush(stdout);
            _exit(0);
        }
    }
    while (wait(&status) > 0) bad += status != 0; /* it has said why */
    for (i = 0; i < options.jobs; i++) tally_add(total, &t[i]);
    munmap(t, size);
    return bad;
}

static int run_file(void) {
    static unsigned char data[1 << 20];
    FILE *f = fopen(options.bytes, "rb");
    size_t n;
    int failed;
    if (!f) {
        perror(options.bytes);
        return 2;
    }
    n = fread(data, 1, sizeof data, f);
    fclose(f);
    replaying = 1;
    failed = sim_run_bytes(data, n);
    printf("%d passed, %d failed\n", !failed, failed);
    return failed;
}

static int usage(int status) {
    fprintf(status ? stderr : stdout,
            "sim [--seeds N] [--first S] [--seed S] [...]: random programs on offload.h over a simulated kernel\n"
            "  --seeds N     how many seeds; default %d\n"
            "  --first S     the first one; default 1\n"
            "  --seed S      replay this one, with a log of every event: time in ns, thread, what, two numbers\n"
            "  --bytes FILE  the same for the program that a fuzzer's bytes choose\n"
            "  --jobs N      in so many processes\n"
            "  --require P   fail unless each thing that is counted occurs in at least P percent of the seeds\n"
            "  --hashes      print the hash of each seed's events\n"
            "  --keep-going  don't stop at the tenth failure\n",
            DEFAULT_SEEDS);
    return status;
}

static int parse(int argc, char **argv) { /* 0, or 1 + the exit status */
    int a;
    options.first = 1;
    options.seeds = DEFAULT_SEEDS;
    options.jobs = 1;
    options.stop_at = 10;
    for (a = 1; a < argc; a++) {
        const char *word = argv[a], *value = a + 1 < argc ? argv[a + 1] : NULL;
        if (strcmp(word, "--help") == 0) return 1 + usage(0);
        if (strcmp(word, "--keep-going") == 0) {
            options.stop_at = INT_MAX;
            continue;
        }
        if (strcmp(word, "--hashes") == 0) {
            options.hashes = 1;
            continue;
        }
        if (!value) return 1 + usage(2);
        a++;
        if (strcmp(word, "--seeds") == 0) options.seeds = strtoull(value, NULL, 10);
        else if (strcmp(word, "--first") == 0) options.first = strtoull(value, NULL, 10);
        else if (strcmp(word, "--seed") == 0)
            options.first = strtoull(value, NULL, 10), options.seeds = 1, replaying = 1;
        else if (strcmp(word, "--bytes") == 0) options.bytes = value;
        else if (strcmp(word, "--jobs") == 0) options.jobs = atoi(value);
        else if (strcmp(word, "--require") == 0) options.require = atof(value);
        else return 1 + usage(2);
    }
    return options.jobs < 1 || options.jobs > 256 ? 1 + usage(2) : 0;
}

int main(int argc, char **argv) {
    static tally total;
    int bad = 0, rare = 0, r = parse(argc, argv);
    struct sigaction old; /* a sanitizer's handler stays */
    if (r) return r - 1;
    program = argv[0];
    signal(SIGABRT, on_crash);
    if (sigaction(SIGSEGV, NULL, &old) == 0 && old.sa_handler == SIG_DFL) signal(SIGSEGV, on_crash);
    if (options.bytes) return run_file();
    if (options.jobs == 1) run_share(0, &total);
    else bad = run_jobs(&total);
    if (!options.hashes) print_summary(&total);
    if (options.require > 0) {
        rare = tally_rare(&total, options.require);
        total.passed += (uint64_t)(tally_needed() - rare);
    }
    total.failed += (uint64_t)(bad + rare);
    printf("trace hash %016llx\n%llu passed, %llu failed\n", (unsigned long long)total.hash,
           (unsigned long long)total.passed, (unsigned long long)total.failed);
    fflush(stdout);
    if (total.failed) _exit(1); /* what the failed seeds left behind is not worth a leak report */
    return 0;
}
#endif
