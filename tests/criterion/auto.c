/* Mode auto, with a device of known times under a virtual clock: what it picks must be near the best of the fixed modes,
   it follows when that changes, survives a device that is slow, full or stuck, and neither sticks nor flaps. Also queues
   for all classes, refusals, and inflated data that is verified.
   cc -O2 -I. tests/criterion/auto.c -o build/tests/auto -lcriterion -lisal -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int64_t clock_ns = 1000000000, sleep_costs;
static int64_t device_due(void);
static int test_epoll_wait(int ep, struct epoll_event *events, int n, int64_t timeout) {
    const int64_t due = device_due();
    clock_ns += timeout ? 100 + sleep_costs : 100; /* a system call */
    if (timeout && due != INT64_MAX && (timeout < 0 || due - clock_ns < timeout)) timeout = due - clock_ns;
    if (timeout > 0) clock_ns += timeout;
    return epoll_wait(ep, events, n, 0);
}
#define OL_SYS_NOW() clock_ns
#define OL_SYS_EPOLL_CREATE() epoll_create1(EPOLL_CLOEXEC)
#define OL_SYS_EPOLL_CTL(ep, op, fd, event) epoll_ctl((ep), (op), (fd), (event))
#define OL_SYS_EPOLL_WAIT(ep, events, n, timeout_ns) test_epoll_wait((ep), (events), (n), (timeout_ns))
#define OL_SYS_EVENTFD() eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
#define OFFLOAD_IMPLEMENTATION
#define OFFLOAD_ISAL
#include "offload.h"

#include <criterion/criterion.h>
#include <fcntl.h>

#include "random.h"

TestSuite(automatic, .timeout = 120);

/* Within so many percent of it. */
static int64_t around(int64_t ns, int percent) {
    if (!percent) return ns;
    const int64_t range = ns * percent / 50 + 1;
    return ns - ns * percent / 100 + (int64_t)(random64() % (uint64_t)range);
}

/* ---- a device: engines with one queue, first come, first served */

enum { US = 1000, DEPTH = 256 };
static struct device {
    int engines, takes, hangs, fails, tells, percent;
    uint32_t depth, reserve, flags, kinds;
    int64_t setup, engine, latency; /* of an operation */
    double per_byte;                /* of the engine */
    int64_t sleeps_after, wake;     /* an idle one falls asleep; to wake it takes the submitter so long */
    int64_t busy_until[8], used;
    ol_op *held[DEPTH];
    int64_t ready_at[DEPTH];
    int n, most, by_class[3], most_by_class[3];
    int64_t (*result)(ol_op *op); /* NULL: 7 */
    int log[512], logged;         /* the `len` of what it was given, in order */
} dev;
static int64_t device_due(void) {
    int64_t due = INT64_MAX;
    for (int i = 0; i < dev.n; i++)
        if (dev.ready_at[i] < due) due = dev.ready_at[i];
    return due;
}
static int device_open(void *self, ol_notify *notify, ol_channel *out) {
    (void)notify;
    out->self = self;
    out->depth = dev.depth;
    out->reserve = dev.reserve;
    out->flags = dev.flags;
    return 0;
}
static void device_close(void *self) { (void)self; }
static int device_asleep(void *self) {
    (void)self;
    return dev.sleeps_after && !dev.n && clock_ns - dev.used > dev.sleeps_after;
}
static int64_t device_finish(const ol_op *op) { /* when an engine will be through with it */
    int e = 0;
    for (int i = 1; i < dev.engines; i++)
        if (dev.busy_until[i] < dev.busy_until[e]) e = i;
    const int64_t begin = dev.busy_until[e] > clock_ns ? dev.busy_until[e] : clock_ns;
    return dev.busy_until[e] = begin + around(dev.engine + (int64_t)(dev.per_byte * (double)op->len), dev.percent);
}
static int device_submit(void *self, ol_op *const *ops, int n) {
    int i = 0;
    if (dev.fails) return -EIO;
    if (device_asleep(self)) clock_ns += dev.wake;
    for (; i < n && dev.n < dev.takes; i++) {
        ol_op *op = ops[i];
        clock_ns += dev.setup;
        const int64_t end = device_finish(op);
        dev.held[dev.n] = op;
        dev.ready_at[dev.n++] = dev.hangs ? INT64_MAX : end + dev.latency;
        if (dev.tells) op->service_ns = (uint32_t)(dev.engine + (int64_t)(dev.per_byte * (double)op->len));
        const int cls = (int)ol__op_class(op);
        if (dev.n > dev.most) dev.most = dev.n;
        if (++dev.by_class[cls] > dev.most_by_class[cls]) dev.most_by_class[cls] = dev.by_class[cls];
        if (dev.logged < 512) dev.log[dev.logged++] = (int)op->len;
        dev.used = clock_ns;
    }
    return i;
}
static int device_poll(void *self, ol_op **ops, int max) {
    int n = 0;
    (void)self;
    for (int i = 0; i < dev.n && n < max;) {
        if (dev.ready_at[i] > clock_ns) {
            i++;
            continue;
        }
        ops[n] = dev.held[i];
        dev.by_class[ol__op_class(ops[n])]--;
        if (ops[n]->result != -ECANCELED) ops[n]->result = dev.result ? dev.result(ops[n]) : 7;
        n++;
        dev.n--;
        memmove(dev.held + i, dev.held + i + 1, (size_t)(dev.n - i) * sizeof *dev.held);
        memmove(dev.ready_at + i, dev.ready_at + i + 1, (size_t)(dev.n - i) * sizeof *dev.ready_at);
    }
    if (n) dev.used = clock_ns;
    return n;
}
static int device_look(void *self) {
    (void)self;
    clock_ns += 20; /* who spins sees time go by */
    return device_due() <= clock_ns;
}
static int64_t device_next(void *self, int64_t now) {
    (void)self, (void)now;
    return device_due() == INT64_MAX ? -1 : device_due();
}
static int device_cancel(void *self, ol_op *op) {
    (void)self;
    for (int i = 0; i < dev.n; i++)
        if (dev.held[i] == op) {
            dev.ready_at[i] = clock_ns;
            op->result = -ECANCELED;
            return 0;
        }
    return -EBUSY;
}
static ol_backend backend = {OL_BACKEND_VERSION, ~0u,         "device",     NULL,        device_open,
                             device_submit,      device_poll, device_look,  device_next, device_cancel,
                             device_close,       NULL,        device_asleep};

/* One engine: 2.3 us for any operation on an idle device, of which the submitter is busy 0.3. */
static void device_new(void) {
    memset(&dev, 0, sizeof dev);
    dev.engines = 1, dev.takes = DEPTH, dev.depth = DEPTH / 2, dev.tells = 1, dev.flags = OL_CHANNEL_ONE_QUEUE;
    dev.setup = 300, dev.engine = 1000, dev.latency = 1000;
}

/* ---- the load: coroutines that each run one operation after another */

static ol_loop *loop;
static void begin(const char *policy) {
    static ol_backend *list = &backend;
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.backends = &list, d.nbackends = 1, d.no_pool = 1, d.policy = policy;
    cr_assert_eq(ol_loop_create(&loop, &d), 0, "%s", ol_error());
    sleep_costs = 0;
}
static void end(void) { cr_assert_eq(ol_loop_destroy(loop), 0, "%s", ol_error()); }
static void run(void) { cr_assert_eq(ol_loop_run(loop), 0, "%s", ol_error()); }

static int64_t here_ns; /* an operation's time in software, */
static double here_per_byte;
static int here_percent;
enum { MOST = 100 };
typedef struct client {
    ol_co co;
    ol_op op;
    int64_t r, begun, left; /* left: steps of the work under way */
    int steps, last;        /* steps: the work can be sliced; last: how the last measured operation went, for changes */
} client;
static client clients[MOST];
static struct tally {
    long n, left, mode[6], why[16], failed, changes;
    int64_t think, response, longest; /* response: the sum of the times to the result */
    uint64_t len;
    uint32_t timeout_us;
    int last;
} tally;
static int64_t in_software(void *arg) {
    client *c = (client *)arg;
    const int64_t all = here_ns + (int64_t)(here_per_byte * (double)c->op.len);
    if (!c->steps) {
        clock_ns += around(all, here_percent);
        return 7;
    }
    if (c->left <= 0) c->left = all;
    const int64_t step = c->left < 2000 ? c->left : 2000;
    clock_ns += step;
    return (c->left -= step) > 0 ? OL_MORE : 7;
}
static ol_op *client_op(client *c) {
    ol_prep_steps(&c->op, in_software, c);
    if (!c->steps) c->op.format = 0;
    c->op.len = tally.len;
    c->op.timeout_us = tally.timeout_us;
    c->begun = clock_ns;
    return &c->op;
}
static void client_counts(const client *c) {
    tally.n++;
    tally.mode[c->op.mode]++;
    tally.why[c->op.why]++;
    tally.failed += c->r != 7;
    tally.response += clock_ns - c->begun;
    if (clock_ns - c->begun > tally.longest) tally.longest = clock_ns - c->begun;
    if (c->op.why != OL_WHY_MEASURED) return;
    const int how = c->op.mode <= OL_SLICED ? OL_SOFTWARE : c->op.mode;
    tally.changes += tally.last && how != tally.last;
    tally.last = how;
}
static void client_main(ol_co *co) {
    client *c = OL_SELF(co, client, co);
    OL_BEGIN(co);
    while (tally.left > 0) {
        tally.left--;
        clock_ns += tally.think;
        OL_AWAIT(c->r, ol_run(co, client_op(c)));
        client_counts(c);
    }
    OL_END(co);
}
/* So many operations by `n` coroutines; the virtual time that it took. */
static int64_t load(int n, int cls, long ops) {
    const int64_t begun = clock_ns;
    const struct tally t = tally;
    memset(&tally, 0, sizeof tally);
    tally.think = t.think, tally.len = t.len, tally.timeout_us = t.timeout_us, tally.last = t.last;
    tally.left = ops;
    for (int i = 0; i < n; i++) {
        const int steps = clients[i].steps;
        memset(&clients[i], 0, sizeof clients[i]);
        clients[i].steps = steps;
        cr_assert_eq(ol_spawn(loop, &clients[i].co, client_main, 0, cls), 0);
    }
    while (loop->stats.roots) cr_assert_geq(ol_loop_step(loop, -1), 0);
    cr_assert_eq(tally.n, ops);
    return clock_ns - begun;
}
static long offloaded(void) { return tally.mode[OL_SYNC] + tally.mode[OL_ASYNC]; }
static long here(void) { return tally.mode[OL_SOFTWARE] + tally.mode[OL_SLICED]; }

/* ---- near the best of the fixed modes */

/* What an operation costs with this policy once it has settled: its response time, or for batch the time of all. */
static double cost(const char *policy, int n, int cls, uint64_t len) {
    enum { SETTLE = 1500, OPS = 3000 };
    begin(policy);
    tally.len = len;
    load(n, cls, SETTLE);
    const int64_t whole = load(n, cls, OPS);
    const double each = cls == OL_LATENCY ? (double)tally.response / OPS : (double)whole / OPS;
    cr_assert_eq(tally.failed, 0);
    end();
    return each;
}
static void near_the_best(int n, int cls, uint64_t len, double within) {
    static const char *const fixed[] = {"any any 0- software - -", "any any 0- async device wait",
                                        "any any 0- sync device wait"};
    double best = 1e18, of[3];
    for (int i = 0; i < 3; i++)
        if ((of[i] = cost(fixed[i], n, cls, len)) < best) best = of[i];
    const double got = cost("any any 0- auto device wait", n, cls, len);
    if (getenv("SHOW"))
        fprintf(stderr, "%d cls %d len %6d: here %9.0f async %9.0f sync %9.0f auto %9.0f  %.2f | %ld %ld %ld %ld\n", n,
                cls, (int)len, of[0], of[1], of[2], got, got / best, tally.mode[1], tally.mode[2], tally.mode[3],
                tally.mode[4]);
    cr_assert_leq(got, best * within, "%d of class %d, %d bytes: %.0f, software %.0f, async %.0f, sync %.0f", n, cls,
                  (int)len, got, of[0], of[1], of[2]);
}
/* Sizes on both sides of where the device breaks even, which more company moves. */
static const uint64_t sizes[] = {100, 1000, 1500, 2000, 3000, 6000, 40000};
static void near_the_best_at_all_sizes(int n, int cls, double within) {
    device_new();
    dev.per_byte = 0.1, here_per_byte = 1;
    tally.think = 500;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) near_the_best(n, cls, sizes[i], within);
}
Test(automatic, one_latency_critical_operation_goes_the_fastest_way) { near_the_best_at_all_sizes(1, OL_LATENCY, 1.3); }
Test(automatic, several_latency_critical_operations_do) { near_the_best_at_all_sizes(4, OL_LATENCY, 1.3); }
Test(automatic, many_latency_critical_operations_do) { near_the_best_at_all_sizes(30, OL_LATENCY, 1.3); }
Test(automatic, one_batch_operation_goes_the_way_that_gets_most_done) { near_the_best_at_all_sizes(1, OL_BATCH, 1.4); }
Test(automatic, several_batch_operations_do) { near_the_best_at_all_sizes(4, OL_BATCH, 1.4); }
Test(automatic, many_batch_operations_do) { near_the_best_at_all_sizes(30, OL_BATCH, 1.4); }
Test(automatic, a_device_slower_at_every_size_is_not_used) {
    device_new();
    dev.per_byte = 3, here_per_byte = 1, dev.engine = 5000;
    tally.think = 500;
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++) {
        near_the_best(1, cls, 1000, 1.1);
        near_the_best(1, cls, 10000, 1.1);
    }
}
Test(automatic, a_device_that_is_far_away_is_not_used_however_fast_it_is) {
    for (int notifies = 0; notifies < 2; notifies++) {
        device_new();
        dev.latency = 20 * US;
        if (notifies) dev.flags |= OL_CHANNEL_NOTIFIES;
        here_ns = 10 * US, here_per_byte = 0;
        tally.think = 500;
        near_the_best(1, OL_LATENCY, 1000, 1.1);
        near_the_best(1, OL_BATCH, 1000, 1.1);
    }
}
/* With one engine that is as fast as the loop's core, both together get most done. */
Test(automatic, batch_uses_an_idle_loop_while_the_device_is_saturated) {
    device_new();
    dev.engine = here_ns = 10 * US;
    here_per_byte = 0;
    const double there = cost("any any 0- async device wait", 40, OL_BATCH, 100);
    const double both = cost("any any 0- auto device wait", 40, OL_BATCH, 100);
    cr_assert_leq(both, 0.65 * there, "%.0f instead of %.0f", both, there);
}

/* ---- it follows */

enum { ADAPTS = 1000, LOOK = 1000 };
static void begin_auto(const char *full) {
    char policy[64];
    snprintf(policy, sizeof policy, "any any 0- auto device %s", full);
    begin(policy);
    here_ns = 8 * US, here_per_byte = 0, here_percent = 0;
    tally.len = 1000, tally.think = 500, tally.timeout_us = 0, tally.last = 0;
    for (int i = 0; i < MOST; i++) clients[i].steps = 1;
}
/* At most so many operations later nearly all go this way. Batch work that isn't alone may use both: what counts is
   what gets done. */
static void goes(int there, int n, int cls, const char *when) {
    load(n, cls, ADAPTS);
    const int64_t took = load(n, cls, LOOK), in_software = here_ns + tally.think + 100;
    const int both = cls == OL_BATCH && n > 1;
    if (both) cr_assert_leq(took, LOOK * in_software * 13 / 10, "%s, %d of batch: %lld", when, n, (long long)took);
    if (!both || there)
        cr_assert_geq(there ? offloaded() : here(), both ? LOOK / 2 : LOOK * 95 / 100,
                      "%s, %d of class %d: %ld software, %ld sliced, %ld sync, %ld async", when, n, cls, tally.mode[1],
                      tally.mode[2], tally.mode[3], tally.mode[4]);
}
static const int companies[] = {1, 4, 20};
static void device_is(int64_t engine, int64_t software) { dev.engine = engine, here_ns = software; }
Test(automatic, it_follows_when_the_device_or_software_changes) {
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++)
        for (int k = 0; k < 3; k++) {
            const int n = companies[k];
            device_new();
            dev.engines = 2;
            begin_auto("wait");
            goes(1, n, cls, "fast");
            device_is(100 * US, 8 * US), goes(0, n, cls, "100 times slower");
            device_is(1000, 8 * US), goes(1, n, cls, "fast again");
            device_is(1000, 200), goes(0, n, cls, "software 40 times faster");
            device_is(1000, 80 * US), goes(1, n, cls, "software slow");
            if (n == 1 || cls == OL_LATENCY) device_is(10000 * US, 8 * US), goes(0, n, cls, "10,000 times slower");
            device_is(1000, 8 * US), goes(1, n, cls, "fast for the third time");
            cr_assert_eq(tally.failed, 0);
            end();
        }
}
/* A device that takes no more: who may run in software does at once; who waits gets there when it takes again. */
Test(automatic, a_full_device_delays_nobody_who_may_run_here) {
    device_new();
    begin_auto("software");
    goes(1, 4, OL_LATENCY, "fast");
    dev.takes = 0;
    load(4, OL_LATENCY, ADAPTS);
    cr_assert_eq(here(), ADAPTS);
    cr_assert_leq(tally.longest, 4 * (8 * US + 2 * US) + 4 * 20 * US);
    dev.takes = DEPTH;
    goes(1, 4, OL_LATENCY, "takes again");
    cr_assert_eq(tally.failed, 0);
    end();
}
static void takes_again(ol_loop *l, ol_timer *t) { (void)l, (void)t, dev.takes = DEPTH; }
Test(automatic, what_waits_for_a_full_device_gets_there) {
    ol_timer timer;
    device_new();
    begin_auto("wait");
    goes(1, 8, OL_BATCH, "fast");
    dev.takes = 0;
    memset(&timer, 0, sizeof timer);
    cr_assert_eq(ol_timer_start(loop, &timer, 100000 * US, takes_again), 0);
    load(8, OL_BATCH, 1000);
    cr_assert_gt(tally.why[OL_WHY_PARKED], 0);
    cr_assert(tally.failed == 0 && tally.n == 1000);
    goes(1, 8, OL_BATCH, "takes again");
    end();
}
/* With timeouts: each that hangs fails after its timeout, and only few are sent to find out. */
Test(automatic, a_device_that_hangs_is_avoided_and_used_again_when_it_is_back) {
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++)
        for (int k = 0; k < 3; k++) {
            const int n = companies[k];
            device_new();
            begin_auto("wait");
            tally.timeout_us = 2000;
            goes(1, n, cls, "fast");
            dev.hangs = 1;
            load(n, cls, ADAPTS);
            cr_assert_leq(tally.failed, n + 10, "%ld hung", tally.failed);
            load(n, cls, 4000);
            cr_assert(tally.failed >= 4 && tally.failed <= 40, "%ld tries", tally.failed);
            cr_assert_eq(tally.why[OL_WHY_STOPPED], tally.failed);
            cr_assert_geq(tally.why[OL_WHY_STALLED], 3900);
            cr_assert_eq(here(), 4000 - tally.failed);
            dev.hangs = 0;
            goes(1, n, cls, "back");
            cr_assert_eq(tally.failed, 0);
            end();
        }
}
/* Without: what hangs stays out, and after desc.stall_ns the others notice that nothing comes back. */
static ol_op stuck[2000];
static int stuck_dones;
static void on_stuck(ol_loop *l, ol_op *op) { (void)l, (void)op, stuck_dones++; }
static int64_t at_once(void *arg) { return (void)arg, clock_ns += here_ns, 7; }
Test(automatic, without_timeouts_only_those_that_try_it_are_stuck) {
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++) {
        int stalled = 0;
        device_new();
        begin_auto("wait");
        goes(1, 1, cls, "fast");
        dev.hangs = 1;
        stuck_dones = 0;
        for (int i = 0; i < 2000; i++) {
            ol_prep_call(&stuck[i], at_once, NULL)->len = 1000;
            stuck[i].cls = (uint8_t)cls;
            cr_assert_eq(ol_submit(loop, &stuck[i], on_stuck), 0);
            cr_assert_geq(ol_loop_step(loop, 0), 0);
            clock_ns += loop->desc.stall_ns / 4; /* so the first few don't know yet */
            stalled += stuck[i].why == OL_WHY_STALLED;
        }
        cr_assert(dev.n >= 1 && dev.n <= 16, "%d are stuck", dev.n);
        cr_assert_geq(stalled, 1950);
        for (int i = 0; i < 3; i++) cr_assert_geq(ol_loop_step(loop, 0), 0);
        cr_assert_eq(stuck_dones + dev.n, 2000);
        dev.hangs = 0;
        for (int i = 0; i < dev.n; i++) dev.ready_at[i] = clock_ns;
        goes(1, 1, cls, "back");
        cr_assert_eq(stuck_dones, 2000);
        end();
    }
}
static ol_op lost[8];
static int lost_dones;
static void on_lost(ol_loop *l, ol_op *op) { (void)l, (void)op, lost_dones++; }
Test(automatic, a_device_that_completes_nothing_is_avoided) {
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++) {
        device_new();
        begin_auto("wait");
        goes(1, 4, cls, "fast");
        dev.hangs = 1;
        lost_dones = 0;
        for (int i = 0; i < 8; i++) { /* they don't hold up the load, but the device has them */
            ol_prep_call(&lost[i], at_once, NULL)->len = 1000;
            lost[i].cls = (uint8_t)cls;
            cr_assert_eq(ol_submit(loop, &lost[i], on_lost), 0);
        }
        for (int i = 0; i < 4; i++) cr_assert_geq(ol_loop_step(loop, 0), 0);
        clock_ns += loop->desc.stall_ns + 1;
        const int before = dev.n;
        tally.timeout_us = 3000; /* so that those that try it end */
        load(4, cls, 2000);
        cr_assert_leq(tally.failed, 40, "%ld hung", tally.failed);
        cr_assert_geq(tally.why[OL_WHY_STALLED], 1900);
        cr_assert(before > 0 && dev.n >= before);
        dev.hangs = 0;
        for (int i = 0; i < dev.n; i++) dev.ready_at[i] = clock_ns;
        goes(1, 4, cls, "back");
        cr_assert(tally.failed == 0 && lost_dones == 8);
        end();
    }
}

/* ---- it neither sticks nor flaps */

Test(automatic, another_way_is_tried_now_and_then_but_rarely) {
    enum { N = 100000 };
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++)
        for (int here_best = 0; here_best < 2; here_best++) {
            device_new();
            begin_auto("wait");
            here_ns = here_best ? 500 : 8 * US;
            load(1, cls, 5000);
            load(1, cls, N);
            cr_assert_leq(tally.why[OL_WHY_PROBE], N / 512, "%ld probes", tally.why[OL_WHY_PROBE]);
            cr_assert_geq(tally.why[OL_WHY_PROBE], N / 514, "%ld probes", tally.why[OL_WHY_PROBE]);
            cr_assert_eq(tally.why[OL_WHY_MEASURED] + tally.why[OL_WHY_PROBE], N);
            if (here_best) cr_assert_gt(offloaded(), 0);
            if (!here_best) cr_assert_gt(here(), 0);
            end();
        }
}
static void flaps_at_most(int cls, int tells, int64_t software, long ops, long most) {
    device_new();
    begin_auto("wait");
    dev.tells = tells;
    dev.engine = 4 * US;
    here_ns = software;
    dev.percent = here_percent = 10;
    for (int i = 0; i < MOST; i++) clients[i].steps = 0;
    load(1, cls, 2000);
    load(1, cls, ops);
    cr_assert_leq(tally.changes, most, "class %d: %ld changes", cls, tally.changes);
    end();
}
Test(automatic, what_costs_the_same_does_not_flap) {
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++) {
        for (int tells = 0; tells < 2; tells++)
            for (int64_t more = -400; more <= 400; more += 200) flaps_at_most(cls, tells, 5400 + more, 10000, 2);
        flaps_at_most(cls, 1, 5400, 100000, 10); /* as long as the device's answer takes */
    }
}
Test(automatic, one_bad_moment_changes_nothing) {
    device_new();
    begin_auto("wait");
    here_ns = 2 * US, dev.engine = 8 * US;
    load(1, OL_LATENCY, 3000);
    for (int i = 0; i < 50; i++) { /* now and then the process loses its core for 10 ms in an operation */
        here_ns = 10000 * US;
        load(1, OL_LATENCY, 1);
        here_ns = 2 * US;
        load(1, OL_LATENCY, 500);
        cr_assert_geq(here(), 490);
    }
    end();
}

/* ---- sync, slices, files, sleepers */

static int neighbour_stops;
static void neighbour(ol_co *co) { /* always ready */
    OL_BEGIN(co);
    while (!neighbour_stops) {
        clock_ns += 100;
        OL_YIELD();
    }
    OL_END(co);
}
static void ends_neighbour(ol_co *co) {
    client *c = OL_SELF(co, client, co);
    OL_BEGIN(co);
    while (tally.left-- > 0) {
        OL_AWAIT(c->r, ol_run(co, client_op(c)));
        client_counts(c);
    }
    neighbour_stops = 1;
    OL_END(co);
}
static void with_neighbour(int cls, int cls_of_neighbour, long ops) {
    static ol_co other;
    memset(&tally, 0, sizeof tally);
    tally.left = ops, tally.len = 1000;
    neighbour_stops = 0;
    cr_assert_eq(ol_spawn(loop, &other, neighbour, 0, cls_of_neighbour), 0);
    cr_assert_eq(ol_spawn(loop, &clients[0].co, ends_neighbour, 0, cls), 0);
    run();
    cr_assert_eq(tally.n, ops);
}
static void never_measured_sync(void) {
    ol_cell c;
    c.size = sizeof c;
    cr_assert_eq(ol_loop_get_cell(loop, OL_OP_CALL, OL_LATENCY, 1000, &c), 0);
    cr_assert(!c.n[OL_SYNC] && !c.sync_ns[0] && !c.sync_ns[1] && c.async_ns[0]);
}
Test(automatic, it_spins_only_if_nobody_of_its_class_is_ready_or_out) {
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++) {
        device_new();
        dev.flags |= OL_CHANNEL_NOTIFIES;
        begin_auto("wait");
        sleep_costs = 3 * US;
        load(1, cls, 3000);
        cr_assert(cls == OL_LATENCY ? tally.mode[OL_SYNC] > 2000 : tally.mode[OL_SYNC] == 0);
        load(5, cls, 3000); /* the last of them may end alone */
        cr_assert_leq(tally.mode[OL_SYNC], 1, "with others out");
        with_neighbour(cls, OL_LATENCY, 2000);
        cr_assert_eq(tally.mode[OL_SYNC], cls == OL_LATENCY ? 0 : 0, "with others ready");
        end();
    }
    device_new();
    dev.flags |= OL_CHANNEL_NOTIFIES;
    begin_auto("wait");
    with_neighbour(OL_LATENCY, OL_BATCH, 2000); /* who is of batch can wait */
    cr_assert_gt(tally.mode[OL_SYNC], 0);
    end();
    device_new();
    dev.flags |= OL_CHANNEL_NO_SYNC;
    begin_auto("wait");
    load(1, OL_LATENCY, 3000);
    cr_assert_eq(tally.mode[OL_SYNC], 0, "the engine shares the loop's core");
    cr_assert_gt(tally.mode[OL_ASYNC], 2000);
    never_measured_sync();
    end();
}
static long submitted_modes[6];
static void on_done(ol_loop *l, ol_op *op) { (void)l, submitted_modes[op->mode]++; }
Test(automatic, what_is_submitted_with_a_callback_never_spins) {
    device_new();
    begin_auto("wait");
    for (int i = 0; i < 2000; i++) {
        client *c = &clients[0];
        client_op(c)->cls = OL_LATENCY;
        cr_assert_eq(ol_submit(loop, &c->op, on_done), 0);
        run();
    }
    cr_assert(submitted_modes[OL_SYNC] == 0 && submitted_modes[OL_ASYNC] > 1900);
    never_measured_sync();
    end();
}
Test(automatic, what_it_measures_is_what_it_took) {
    static const int64_t latencies[] = {50, 500, 5000, 15000};
    for (int tells = 0; tells < 2; tells++)
        for (size_t i = 0; i < 4; i++) {
            ol_cell c;
            device_new();
            dev.tells = tells;
            dev.setup = 50, dev.engine = 100, dev.latency = latencies[i];
            begin_auto("wait");
            here_ns = 19 * US;
            load(1, OL_LATENCY, 3000);
            c.size = sizeof c;
            cr_assert_eq(ol_loop_get_cell(loop, OL_OP_CALL, OL_LATENCY, 1000, &c), 0);
            const int64_t takes = 150 + latencies[i];
            cr_assert(c.here_ns == 19 * US && c.service_ns == (tells ? 100 : 0));
            cr_assert(c.sync_ns[0] >= takes && c.sync_ns[0] <= takes + takes / 20 + 50, "sync: %lld of %lld",
                      (long long)c.sync_ns[0], (long long)takes);
            /* async, the moment at which the loop looked is known to about that of one look */
            cr_assert(c.async_ns[0] >= takes * 19 / 20 - 50 && c.async_ns[0] <= takes + takes / 20 + 500,
                      "async: %lld of %lld", (long long)c.async_ns[0], (long long)takes);
            end();
        }
}
Test(automatic, what_is_longer_than_a_slice_is_sliced) {
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++) {
        device_new();
        dev.engine = 5000 * US;
        begin_auto("wait");
        here_ns = 100 * US;
        load(1, cls, 200);
        load(1, cls, 1000);
        cr_assert_eq(tally.mode[OL_SOFTWARE], 0);
        cr_assert_gt(tally.mode[OL_SLICED], 990);
        here_ns = 15 * US; /* shorter than a slice: in one go, once that is known */
        load(1, cls, 200);
        load(1, cls, 1000);
        cr_assert_eq(tally.mode[OL_SLICED], 0);
        end();
        device_new();
        dev.engine = 5000 * US;
        begin_auto("wait");
        here_ns = 100 * US;
        tally.len = 20000; /* large, and nothing is known yet */
        load(1, cls, 1);
        cr_assert_eq(tally.mode[OL_SLICED], 1);
        end();
    }
}
static char bytes[100];
typedef struct reader {
    ol_co co;
    ol_op op;
    int64_t r;
    int fd, i, cls;
} reader;
static int64_t by_the_book(ol_op *op) { return ol_op_exec(NULL, op); }
static void reads(ol_co *co) {
    reader *f = OL_SELF(co, reader, co);
    OL_BEGIN(co);
    for (f->i = 0; f->i < 200; f->i++) {
        OL_AWAIT(f->r, ol_pread(co, &f->op, f->fd, bytes, sizeof bytes, 0));
        cr_assert_gt(f->r, 0, "%s", ol_co_error(co));
        cr_assert(f->op.mode == OL_ASYNC && f->op.where == 1, "a file operation on the loop");
    }
    OL_END(co);
}
Test(automatic, what_may_block_never_runs_on_the_loop) {
    reader f;
    device_new();
    dev.engine = 1000 * US; /* however slow that is */
    dev.result = by_the_book;
    begin_auto("wait");
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++) {
        memset(&f, 0, sizeof f);
        f.fd = open("/proc/self/stat", O_RDONLY); /* never in the page cache */
        cr_assert_geq(f.fd, 0);
        cr_assert_eq(ol_spawn(loop, &f.co, reads, 0, cls), 0);
        run();
        close(f.fd);
    }
    end();
}
Test(automatic, waking_a_worker_has_its_price) {
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++) {
        ol_cell c;
        device_new();
        dev.sleeps_after = 20 * US, dev.wake = 10 * US;
        begin_auto("wait");
        here_ns = 6 * US;
        tally.think = 0; /* it never sleeps */
        load(1, cls, 1000);
        load(1, cls, 1000);
        cr_assert_geq(offloaded(), 950);
        tally.think = 50 * US; /* it always does */
        load(1, cls, 1000);
        load(1, cls, 1000);
        cr_assert_geq(here(), 950, "%ld", here());
        tally.think = 0; /* the other is not forgotten */
        load(1, cls, 1000);
        load(1, cls, 1000);
        cr_assert_geq(offloaded(), 950);
        c.size = sizeof c;
        cr_assert_eq(ol_loop_get_cell(loop, OL_OP_CALL, cls, 1000, &c), 0);
        cr_assert(c.async_ns[0] > 2000 && c.async_ns[0] < 4000, "%lld", (long long)c.async_ns[0]);
        cr_assert(c.async_ns[1] > 11000 && c.async_ns[1] < 15000, "%lld", (long long)c.async_ns[1]);
        cr_assert(c.here_ns > 5000 && c.here_ns < 7000 && c.service_ns == 1000);
        end();
    }
}
Test(automatic, statistics_take_one_in_sample_whatever_auto_learns) {
    for (uint32_t sample = 1; sample < 200; sample = sample * 3 + 1) {
        static ol_backend *list = &backend;
        ol_loop_desc d;
        ol_histogram h;
        device_new();
        begin_auto("wait"), end();
        memset(&d, 0, sizeof d);
        d.backends = &list, d.nbackends = 1, d.no_pool = 1, d.policy = "any any 0- auto device wait", d.sample = sample;
        cr_assert_eq(ol_loop_create(&loop, &d), 0);
        load(3, OL_LATENCY, 2999);
        load(3, OL_BATCH, 2999);
        cr_assert_eq(ol_loop_get_times(loop, 0, 0, OL_TIME_TOTAL, &h), 0);
        cr_assert_eq(h.count, 5998 / sample);
        end();
    }
}

/* ---- one queue for all classes, and refusals */

static ol_op many[64];
static int order[64], ended;
static void on_end(ol_loop *l, ol_op *op) { (void)l, order[ended++] = (int)op->len; }
static void give(int i, int cls) {
    ol_prep_call(&many[i], at_once, NULL)->len = (uint64_t)i;
    many[i].cls = (uint8_t)cls;
    cr_assert_eq(ol_submit(loop, &many[i], on_end), 0, "%s", ol_error());
}
Test(automatic, one_queue_keeps_a_reserve_for_what_is_urgent) {
    device_new();
    dev.depth = 8, dev.reserve = 3;
    begin("any latency 0- async device wait\nany any 0- async device wait");
    ended = 0;
    for (int i = 0; i < 20; i++) give(i, OL_BATCH);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert_eq(dev.n, 5, "batch took the reserve");
    for (int i = 20; i < 26; i++) give(i, OL_LATENCY);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert_eq(dev.n, 8);
    ol_prep_crc32(&many[40], 0, "x", 1)->cls = OL_LATENCY; /* another kind: the same queue */
    cr_assert_eq(ol_submit(loop, &many[40], on_end), 0);
    cr_assert_eq(many[40].why, OL_WHY_PARKED);
    run();
    cr_assert(dev.most == 8 && dev.most_by_class[OL_BATCH] == 5 && ended == 27);
    int last[2] = {-1, -1}; /* in each class first come, first served, and no batch before what is urgent */
    for (int i = 0; i < dev.logged; i++) {
        const int urgent = dev.log[i] >= 20;
        if (dev.log[i] == 1 && i > 1) continue; /* the checksum */
        cr_assert_gt(dev.log[i], last[urgent]);
        last[urgent] = dev.log[i];
        if (i >= 5 && !urgent) cr_assert_eq(last[1], 25, "batch went before what is urgent");
    }
    end();
}
Test(automatic, without_a_reserve_each_class_has_the_depth) {
    device_new();
    dev.depth = 4, dev.flags = 0;
    begin("any any 0- async device wait");
    ended = 0;
    for (int i = 0; i < 20; i++) give(i, i % 2 ? OL_LATENCY : OL_BATCH);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert(dev.most_by_class[OL_LATENCY] == 4 && dev.most_by_class[OL_BATCH] == 4);
    run();
    cr_assert_eq(ended, 20);
    end();
}
Test(automatic, latency_may_use_all_places_and_then_runs_here) {
    device_new();
    dev.depth = 8, dev.reserve = 3;
    begin("any latency 0- async device software\nany any 0- async device wait");
    ended = 0;
    for (int i = 0; i < 12; i++) give(i, OL_LATENCY);
    for (int i = 8; i < 12; i++) cr_assert(many[i].mode == OL_SOFTWARE && many[i].why == OL_WHY_FULL);
    run();
    cr_assert(dev.most == 8 && ended == 12);
    end();
}
/* It takes fewer than it promised. Who may run in software does so now; the rest wait in order. */
Test(automatic, refused_below_its_depth_who_may_runs_here_and_the_rest_keep_their_order) {
    device_new();
    dev.takes = 3;
    begin("any latency 0- async device software\nany any 0- async device wait");
    ended = 0;
    for (int i = 0; i < 10; i++) give(i, OL_LATENCY);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert_eq(dev.n, 3);
    for (int i = 3; i < 10; i++) cr_assert(many[i].mode == OL_SOFTWARE && many[i].why == OL_WHY_FULL, "%d", i);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert_eq(ended, 7);
    for (int i = 0; i < 7; i++) cr_assert_eq(order[i], 3 + i);
    run();
    dev.logged = ended = 0;
    for (int i = 0; i < 50; i++) give(i, OL_BATCH); /* more than one burst */
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    for (int i = 3; i < 32; i++) cr_assert_eq(many[i].why, OL_WHY_PARKED);
    run();
    cr_assert_eq(ended, 50);
    for (int i = 0; i < 50; i++) cr_assert(dev.log[i] == i && order[i] == i && many[i].mode == OL_ASYNC);
    /* both rules in one line: classes apart, so a coroutine's rule doesn't change another's turn */
    dev.logged = ended = 0;
    for (int i = 0; i < 40; i++) give(i, i % 4 == 3 ? OL_LATENCY : OL_BATCH);
    run();
    int last = -1;
    for (int i = 0; i < dev.logged; i++) {
        if (dev.log[i] % 4 == 3) continue;
        cr_assert_gt(dev.log[i], last);
        last = dev.log[i];
    }
    cr_assert(ended == 40 && last == 38);
    end();
}
Test(automatic, a_changed_rule_keeps_the_order_of_what_was_refused) {
    ol_policy p;
    device_new();
    dev.takes = 0;
    begin("any any 0- async device wait");
    ended = 0;
    for (int i = 0; i < 4; i++) give(i, OL_BATCH);
    cr_assert_eq(ol_policy_parse("any any 0- async device software", &p, NULL, 0), 0);
    cr_assert_eq(ol_loop_set_policy(loop, &p), 0);
    for (int i = 4; i < 8; i++) give(i, OL_BATCH);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert_eq(dev.n, 0);
    for (int i = 0; i < 8; i++) cr_assert(i < 4 ? many[i].why == OL_WHY_PARKED : many[i].mode == OL_SOFTWARE);
    dev.takes = DEPTH;
    run();
    for (int i = 0; i < 4; i++) cr_assert(dev.log[i] == i && order[i] == 4 + i && order[4 + i] == i);
    end();
}

/* ---- hardware that inflates: its result counts if the stream's checksum is that of its output */

static int wrong; /* what the device gets wrong */
enum { NOTHING, A_BIT, ONE_LESS, ONE_MORE, USED_LESS, USED_MORE, USED_0, USED_ALL, PAST_CAP, FAILS, WRONGS };
static ol_exec *exec;
static int64_t inflates(ol_op *op) {
    int64_t r = ol_op_exec(exec, op);
    if (r < 0) return r;
    if (wrong == A_BIT) ((uint8_t *)op->dst)[(uint64_t)r / 2] ^= 4;
    if (wrong == ONE_LESS) r--;
    if (wrong == ONE_MORE) r++;
    if (wrong == USED_LESS) op->used--;
    if (wrong == USED_MORE) op->used++;
    if (wrong == USED_0) op->used = 0;
    if (wrong == USED_ALL) op->used = UINT64_MAX - 3;
    if (wrong == PAST_CAP) r = (int64_t)op->cap + 1;
    return wrong == FAILS ? -EIO : r;
}
static int64_t inflated(ol_op *op) {
    cr_assert_eq(ol_submit(loop, op, on_lost), 0, "%s", ol_error());
    run();
    return op->result;
}
Test(automatic, an_inflate_that_does_not_match_its_checksum_is_an_error) {
    enum { N = 5000 };
    static uint8_t plain[N], packed[4][2 * N], out[N + 10];
    int64_t packed_n[4];
    ol_op op;
    exec = ol_exec_create();
    for (int i = 0; i < N; i++) plain[i] = (uint8_t)(random64() % 20);
    for (int f = OL_RAW; f <= OL_GZIP; f++)
        packed_n[f] = ol_op_exec(exec, ol_prep_deflate(&op, f, packed[f], 2 * N, plain, N));
    for (int verifies = 0; verifies < 2; verifies++) {
        device_new();
        dev.result = inflates;
        dev.flags |= verifies ? OL_CHANNEL_VERIFY : 0;
        begin("any any 0- async device wait");
        for (wrong = NOTHING; wrong < WRONGS; wrong++)
            for (int f = OL_RAW; f <= OL_GZIP; f++) {
                const int found = wrong == FAILS || (wrong && verifies && f != OL_RAW);
                const int64_t says = wrong == ONE_LESS   ? N - 1
                                     : wrong == ONE_MORE ? N + 1
                                     : wrong == PAST_CAP ? N + 11
                                                         : N;
                ol_prep_inflate(&op, f, out, sizeof out, packed[f], (uint64_t)packed_n[f] + 3); /* more may follow */
                const int64_t r = inflated(&op);
                cr_assert_eq(r, found ? -EIO : says, "fault %d, format %d: %lld", wrong, f, (long long)r);
                if (found && wrong != FAILS) cr_assert_not_null(strstr(ol_op_error(&op), "in software"));
                if (wrong == NOTHING) cr_assert(memcmp(out, plain, N) == 0 && op.used == (uint64_t)packed_n[f]);
                ol_stream s; /* a chunk has no checksum of its own */
                memset(&s, 0, sizeof s);
                if (wrong == PAST_CAP || wrong == FAILS) continue;
                ol_prep_inflate_chunk(&op, f, out, sizeof out, packed[f], (uint64_t)packed_n[f], &s, NULL, 0, 1);
                cr_assert_eq(inflated(&op), says);
            }
        wrong = NOTHING;
        ol_prep_inflate(&op, OL_GZIP, out, 100, packed[OL_GZIP], (uint64_t)packed_n[OL_GZIP]);
        cr_assert_eq(inflated(&op), -ENOSPC); /* errors stay what they are */
        ol_prep_inflate(&op, OL_GZIP, out, N, packed[OL_GZIP], 100);
        cr_assert_eq(inflated(&op), -EBADMSG);
        packed[0][0] = 0; /* nothing at all, and what isn't inflated */
        packed_n[0] = ol_op_exec(exec, ol_prep_deflate(&op, OL_ZLIB, packed[0], 2 * N, plain, 0));
        cr_assert_eq(inflated(ol_prep_inflate(&op, OL_ZLIB, out, N, packed[0], (uint64_t)packed_n[0])), 0);
        wrong = A_BIT;
        cr_assert_eq(inflated(ol_prep_deflate(&op, OL_ZLIB, out, N, plain, 100)), packed_n[0] ? op.result : 0);
        cr_assert_gt(op.result, 0);
        end();
    }
    ol_exec_destroy(exec);
}
/* A device whose output and trailer are right, but not where it may have them. */
static uint64_t claims_used;
static int64_t claims(ol_op *op) { return op->used = claims_used, memset(op->dst, 'x', 100), 100; }
Test(automatic, an_inflate_must_stay_within_its_buffers) {
    static uint8_t in[200], plain[100], out[100];
    static const struct {
        int from, len, used, cap, right;
    } is[] = {{0, 60, 60, 100, 1}, {0, 70, 60, 100, 1}, {0, 60, 60, 99, 0}, {56, 60, 4, 100, 0}, {0, 59, 60, 100, 0}};
    ol_op op;
    exec = ol_exec_create();
    memset(plain, 'x', sizeof plain);
    const int64_t n = ol_op_exec(exec, ol_prep_deflate(&op, OL_GZIP, in + 100, 100, plain, 100));
    cr_assert_gt(n, 8);
    memcpy(in + 52, in + 100 + n - 8, 8); /* the trailer */
    device_new();
    dev.result = claims;
    dev.flags |= OL_CHANNEL_VERIFY;
    begin("any any 0- async device wait");
    for (size_t i = 0; i < sizeof is / sizeof *is; i++) {
        claims_used = (uint64_t)is[i].used;
        ol_prep_inflate(&op, OL_GZIP, out, (uint64_t)is[i].cap, in + is[i].from, (uint64_t)is[i].len);
        cr_assert_eq(inflated(&op), is[i].right ? 100 : -EIO, "%d", (int)i);
    }
    end();
    ol_exec_destroy(exec);
}
