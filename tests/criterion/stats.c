/* What loops and pools measure: histograms against a sorted array, counters and times against what happened, under a
   clock that stands still unless something takes time; the dump's text and its room.
   cc -O2 -I. tests/criterion/stats.c -o build/tests/stats -lcriterion -lm -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int64_t clock_ns = 1000000000; /* workers read it, too */
static int64_t test_now(void) { return __atomic_load_n(&clock_ns, __ATOMIC_SEQ_CST); }
static void takes(int64_t ns) { __atomic_add_fetch(&clock_ns, ns, __ATOMIC_SEQ_CST); }
static int64_t device_due(void);
static int test_epoll_wait(int ep, struct epoll_event *events, int n, int64_t timeout) {
    const int64_t due = device_due();
    if (timeout && due != INT64_MAX) {
        const int64_t in = due > clock_ns ? due - clock_ns : 0;
        takes(timeout < 0 || in < timeout ? in : timeout);
    } else if (timeout > 0) {
        takes(timeout);
    } else if (timeout) {
        return epoll_wait(ep, events, n, -1); /* for a worker's notification */
    }
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
#include <ctype.h>
#include <math.h>

#include "random.h"

TestSuite(stats, .timeout = 60);

/* ---- histograms */

static const uint64_t OPEN = (uint64_t)15 << 32; /* where the last range begins */
static uint64_t range_end(uint64_t v) {          /* of a time's range, as the manual has it: eight an octave */
    if (v < 16) return v;
    int bits = 0;
    while (v >> bits) bits++;
    const int shift = bits - 4;
    return (((v >> shift) + 1) << shift) - 1;
}
static int by_value(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

enum { MANY = 3000 };
static int64_t value[MANY];
static ol_histogram histogram;
static void add_all(int n) {
    uint64_t sum = 0, most = 0, counted = 0;
    memset(&histogram, 0, sizeof histogram);
    for (int i = 0; i < n; i++) {
        ol_histogram_add(&histogram, value[i]);
        if (value[i] < 0) value[i] = 0;
        sum += (uint64_t)value[i];
        if ((uint64_t)value[i] > most) most = (uint64_t)value[i];
    }
    cr_assert(histogram.count == (uint64_t)n && histogram.sum == sum && histogram.max == most);
    for (int i = 0; i < OL_HISTOGRAM; i++) counted += histogram.n[i];
    cr_assert_eq(counted, (uint64_t)n);
    qsort(value, (size_t)n, sizeof *value, by_value);
}
/* What it says of the value of this rank (from 1): its range's upper end or the maximum, and so not below it. */
static void quantile_is(double share, int rank) {
    const int64_t got = ol_histogram_at(&histogram, share);
    const uint64_t v = (uint64_t)value[rank - 1];
    const uint64_t upper = v >= OPEN ? histogram.max : range_end(v);
    cr_assert_eq(got, (int64_t)(upper < histogram.max ? upper : histogram.max), "share %g, rank %d: %lld for %llu",
                 share, rank, (long long)got, (unsigned long long)v);
    cr_assert_geq(got, value[rank - 1]);
    if (v < OPEN) cr_assert_leq(((uint64_t)got - v) * 8, v, "more than an eighth too large");
}
static void quantiles_are(int n) {
    static const double shares[] = {0.001, 0.01, 0.05, 0.07, 0.1,  0.25,  0.29,
                                    0.5,   0.57, 0.75, 0.9,  0.99, 0.999, 0.9999};
    add_all(n);
    for (int k = 1; k <= n; k += 1 + n / 97) {
        quantile_is((double)k / n, k);
        quantile_is((k - 0.5) / n, k); /* half a sample must not be exceeded by a whole one */
        if (k < n) quantile_is((k + 1e-6) / n, k + 1);
    }
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        const double want = shares[i] * n;
        const int rank = fabs(want - round(want)) < 1e-9 ? (int)round(want) : (int)ceil(want);
        quantile_is(shares[i], rank ? rank : 1);
    }
    quantile_is(0, 1), quantile_is(-1, 1), quantile_is((double)NAN, 1);
    quantile_is(1, n), quantile_is(2, n), quantile_is((double)INFINITY, n);
}
Test(stats, a_histogram_knows_the_quantiles_of_any_distribution) {
    for (int kind = 0; kind < 10; kind++)
        for (int n = 1; n <= MANY; n = n < 8 ? n + 1 : n * 3) {
            for (int i = 0; i < n; i++) {
                const uint64_t r = random64();
                value[i] = kind == 0   ? (int64_t)(r % 16)
                           : kind == 1 ? (int64_t)(r % 1000)
                           : kind == 2 ? (int64_t)(r % 100000000)
                           : kind == 3 ? (int64_t)(r >> (1 + random64() % 62)) /* all magnitudes alike */
                           : kind == 4 ? 12345                                 /* one value */
                           : kind == 5 ? (i % 100 ? 50 : 1000000000)           /* a far tail */
                           : kind == 6 ? (i % 2 ? INT64_MIN : -1)              /* negative: 0 */
                           : kind == 7 ? (i % 2 ? INT64_MAX : 0)
                           : kind == 8 ? (int64_t)OPEN - 2 + (int64_t)(r % 4)
                                       : (int64_t)1 << r % 63;
            }
            quantiles_are(n);
        }
}
Test(stats, every_range_has_its_edges) {
    uint64_t low = 0, before = 0;
    int ranges = 0;
    for (; low < OPEN; ranges++) {
        const uint64_t high = range_end(low);
        const int64_t ends[] = {(int64_t)low, (int64_t)high};
        for (int i = 0; i < 2; i++) {
            memset(&histogram, 0, sizeof histogram);
            ol_histogram_add(&histogram, ends[i]);
            ol_histogram_add(&histogram, INT64_MAX);
            cr_assert_eq(ol_histogram_at(&histogram, 0.5), (int64_t)high, "of %lld", (long long)ends[i]);
            cr_assert_eq(histogram.n[ranges], 1u);
        }
        cr_assert(low == 0 || high > before);
        before = high;
        low = high + 1;
    }
    cr_assert_eq(ranges, OL_HISTOGRAM - 1); /* the last one is open */
    memset(&histogram, 0, sizeof histogram);
    ol_histogram_add(&histogram, (int64_t)OPEN);
    ol_histogram_add(&histogram, INT64_MAX - 1);
    cr_assert(histogram.n[OL_HISTOGRAM - 1] == 2 && ol_histogram_at(&histogram, 0.5) == INT64_MAX - 1);
}
Test(stats, an_empty_histogram_says_0) {
    memset(&histogram, 0, sizeof histogram);
    cr_assert(!ol_histogram_at(&histogram, 0) && !ol_histogram_at(&histogram, 0.5) && !ol_histogram_at(&histogram, 1));
}
Test(stats, a_range_counts_beyond_32_bits) {
    memset(&histogram, 0, sizeof histogram);
    ol_histogram_add(&histogram, 5);
    ol_histogram_add(&histogram, 1000);
    histogram.n[5] += UINT32_MAX, histogram.count += UINT32_MAX;
    ol_histogram_add(&histogram, 5);
    cr_assert_eq(ol_histogram_at(&histogram, 0.999), 5);
}

/* ---- a device whose times are known, and a loop with it */

enum { US = 1000, DEPTH = 1024 };
static ol_op *held[DEPTH];
static int64_t ready_at[DEPTH];
static int nheld, device_takes, device_fails, device_cancels;
static int64_t setup_ns, service_ns, latency_ns; /* service_ns < 0: it doesn't tell */
static uint32_t device_kinds, device_depth;

static int64_t device_due(void) {
    int64_t due = INT64_MAX;
    for (int i = 0; i < nheld; i++)
        if (ready_at[i] < due) due = ready_at[i];
    return due;
}
static int device_open(void *self, ol_notify *notify, ol_channel *out) {
    (void)notify;
    out->self = self;
    out->depth = device_depth;
    out->flags = OL_CHANNEL_NOTIFIES;
    return 0;
}
static void device_close(void *self) { (void)self; }
static int device_submit(void *self, ol_op *const *ops, int n) {
    int i = 0;
    (void)self;
    if (device_fails) return -EIO;
    for (; i < n && nheld < device_takes; i++) {
        takes(setup_ns);
        held[nheld] = ops[i];
        ready_at[nheld++] = clock_ns + (service_ns > 0 ? service_ns : 0) + latency_ns;
    }
    return i;
}
static int device_poll(void *self, ol_op **ops, int max) {
    int n = 0;
    (void)self;
    for (int i = 0; i < nheld && n < max;) {
        if (ready_at[i] > clock_ns) {
            i++;
            continue;
        }
        ops[n] = held[i];
        if (ops[n]->result != -ECANCELED) ops[n]->result = 1;
        if (service_ns >= 0) ops[n]->service_ns = (uint32_t)service_ns;
        n++;
        nheld--;
        memmove(held + i, held + i + 1, (size_t)(nheld - i) * sizeof *held);
        memmove(ready_at + i, ready_at + i + 1, (size_t)(nheld - i) * sizeof *ready_at);
    }
    return n;
}
static int device_look(void *self) { return (void)self, device_due() <= clock_ns; }
static int device_cancel(void *self, ol_op *op) {
    (void)self;
    for (int i = 0; i < nheld && device_cancels; i++)
        if (held[i] == op) return ready_at[i] = clock_ns, op->result = -ECANCELED, 0;
    return -EBUSY;
}
static ol_backend device = {OL_BACKEND_VERSION, 0,    "device", NULL,         device_open, device_submit, device_poll,
                            device_look,        NULL, NULL,     device_close, NULL,        NULL};

static ol_loop *loop;
static void begin(const char *policy, uint32_t sample) {
    static ol_backend *list = &device;
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.backends = &list, d.nbackends = 1, d.no_pool = 1, d.policy = policy, d.sample = sample;
    d.sync_ns = (int64_t)3600 * 1000000000;
    device_takes = DEPTH, device_fails = nheld = 0, device_cancels = 1;
    setup_ns = service_ns = latency_ns = 0;
    if (!device_depth) device_depth = DEPTH;
    device.kinds = device_kinds ? device_kinds : ~0u;
    device.cancel = device_cancel;
    cr_assert_eq(ol_loop_create(&loop, &d), 0, "%s", ol_error());
}
static void end(void) {
    cr_assert_eq(ol_loop_destroy(loop), 0, "%s", ol_error());
    device_depth = device_kinds = 0;
}
static void run(void) { cr_assert_eq(ol_loop_run(loop), 0, "%s", ol_error()); }
static ol_loop_stats stats(void) {
    ol_loop_stats s;
    memset(&s, 0, sizeof s);
    s.size = sizeof s;
    ol_loop_get_stats(loop, &s);
    return s;
}
static ol_histogram times(int kind, int cls, int what) {
    ol_histogram h;
    cr_assert_eq(ol_loop_get_times(loop, kind, cls, what, &h), 0, "%s", ol_error());
    return h;
}

static int64_t work_ns;
static int64_t work(void *arg) { return (void)arg, takes(work_ns), 1; }
static int dones;
static void on_done(ol_loop *l, ol_op *op) { (void)l, (void)op, dones++; }
static ol_op *call(ol_op *op, int cls, uint64_t len) {
    ol_prep_call(op, work, NULL);
    op->cls = (uint8_t)cls;
    op->len = len;
    return op;
}
static void submit(ol_op *op, int cls, uint64_t len) {
    cr_assert_eq(ol_submit(loop, call(op, cls, len), on_done), 0, "%s", ol_error());
}

/* ---- times */

Test(stats, the_parts_of_a_time_add_up) {
    ol_op op;
    begin("any any 0- async device wait", 1);
    setup_ns = 300, service_ns = 2000, latency_ns = 700;
    submit(&op, OL_BATCH, 0);
    takes(11000); /* before the loop runs */
    run();
    cr_assert(times(0, 0, OL_TIME_SUBMIT).sum == 300 && times(0, 0, OL_TIME_SERVICE).sum == 2000);
    cr_assert(times(0, 0, OL_TIME_TOTAL).sum == 14000 && times(0, 0, OL_TIME_QUEUE).sum == 11700);
    for (int i = 1; i < 200; i++) {
        setup_ns = (int64_t)(random64() % 5000), service_ns = (int64_t)(random64() % 50000);
        latency_ns = (int64_t)(random64() % 5000);
        submit(&op, OL_BATCH, 0);
        takes((int64_t)(random64() % 7000));
        run();
    }
    const ol_histogram t = times(0, 0, OL_TIME_TOTAL), s = times(0, 0, OL_TIME_SUBMIT);
    const ol_histogram q = times(0, 0, OL_TIME_QUEUE), v = times(0, 0, OL_TIME_SERVICE);
    cr_assert(t.count == 200 && s.count == 200 && q.count == 200 && v.count == 200);
    cr_assert_eq(s.sum + q.sum + v.sum, t.sum);
    end();
}
Test(stats, a_burst_shares_the_time_of_its_submission) {
    ol_op op[10];
    begin("any any 0- async device wait", 1);
    setup_ns = 100;
    for (int i = 0; i < 10; i++) submit(&op[i], OL_BATCH, 0);
    run();
    const ol_histogram s = times(0, 0, OL_TIME_SUBMIT);
    cr_assert(s.count == 10 && s.sum == 1000 && s.max == 100);
    end();
}
static void busy_post(ol_loop *l, ol_post_node *node) { (void)l, (void)node, takes(300); }
Test(stats, until_the_loop_looks_is_waiting) {
    ol_post_node node;
    ol_op op;
    begin("any any 0- async device wait", 1);
    memset(&node, 0, sizeof node);
    node.fn = busy_post;
    service_ns = 1000;
    submit(&op, OL_BATCH, 0);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    takes(5000);
    cr_assert_eq(ol_post(loop, &node), 0); /* goes first in its round */
    run();
    cr_assert(times(0, 0, OL_TIME_TOTAL).sum == 5300 && times(0, 0, OL_TIME_QUEUE).sum == 4300);
    end();
}
Test(stats, what_a_backend_does_not_tell_is_waiting) {
    ol_op op;
    begin("any any 0- async device wait", 1);
    setup_ns = 100, service_ns = -1, latency_ns = 900;
    submit(&op, OL_BATCH, 0);
    run();
    cr_assert(times(0, 0, OL_TIME_QUEUE).sum == 900 && times(0, 0, OL_TIME_SERVICE).sum == 0);
    end();
}
Test(stats, on_the_spot_there_is_no_waiting) {
    ol_op op;
    begin("", 1);
    work_ns = 4321;
    submit(&op, OL_BATCH, 0);
    run();
    cr_assert(times(0, 0, OL_TIME_SERVICE).sum == 4321 && times(0, 0, OL_TIME_TOTAL).sum == 4321);
    cr_assert(times(0, 0, OL_TIME_SUBMIT).count == 0 && times(0, 0, OL_TIME_QUEUE).count == 0);
    end();
}
Test(stats, times_are_kept_by_kind_and_class) {
    ol_op op;
    begin("call any 0- async device wait", 1);
    work_ns = 0, latency_ns = 1000;
    for (int i = 0; i < 7; i++) {
        submit(&op, i < 3 ? OL_LATENCY : OL_BATCH, 0);
        run();
    }
    for (int i = 0; i < 5; i++) {
        ol_prep_crc32(&op, 0, "x", 1)->cls = OL_LATENCY;
        cr_assert_eq(ol_submit(loop, &op, on_done), 0);
        run();
    }
    cr_assert_eq(times(OL_OP_CALL, OL_LATENCY, OL_TIME_TOTAL).count, 3u);
    cr_assert_eq(times(OL_OP_CALL, OL_BATCH, OL_TIME_TOTAL).count, 4u);
    cr_assert_eq(times(OL_OP_CALL, 0, OL_TIME_TOTAL).count, 7u);
    cr_assert_eq(times(OL_OP_CRC32, OL_LATENCY, OL_TIME_SERVICE).count, 5u);
    cr_assert_eq(times(OL_OP_CRC32, OL_BATCH, OL_TIME_SERVICE).count, 0u);
    cr_assert_eq(times(0, OL_LATENCY, OL_TIME_TOTAL).count, 8u);
    cr_assert(times(0, 0, OL_TIME_TOTAL).count == 12 && times(0, 0, OL_TIME_TOTAL).sum == 7000);
    cr_assert_eq(times(0, 0, OL_TIME_TOTAL).max, 1000u);
    cr_assert_eq(ol_histogram_at(&(ol_histogram){0}, 1), 0);
    end();
}
Test(stats, arguments_out_of_range_are_refused) {
    ol_histogram h;
    ol_cell c;
    begin("", 0);
    c.size = sizeof c;
    cr_assert_eq(ol_loop_get_times(NULL, 0, 0, 0, &h), -EINVAL);
    cr_assert_eq(ol_loop_get_times(loop, 0, 0, 0, NULL), -EINVAL);
    cr_assert_not_null(strstr(ol_error(), "kind, class or what"));
    static const int bad[][3] = {{-1, 0, 0}, {6, 0, 0}, {0, -1, 0}, {0, 3, 0}, {0, 0, -1}, {0, 0, 5}};
    for (size_t i = 0; i < 6; i++) cr_assert_eq(ol_loop_get_times(loop, bad[i][0], bad[i][1], bad[i][2], &h), -EINVAL);
    cr_assert_eq(ol_loop_get_times(loop, 5, 2, OL_TIME_LAG, &h), 0);
    static const int bad_cell[][2] = {{0, 1}, {-1, 1}, {6, 1}, {1, 0}, {1, -1}, {1, 3}};
    for (size_t i = 0; i < 6; i++) cr_assert_eq(ol_loop_get_cell(loop, bad_cell[i][0], bad_cell[i][1], 0, &c), -EINVAL);
    cr_assert_eq(ol_loop_get_cell(NULL, 1, 1, 0, &c), -EINVAL);
    cr_assert_eq(ol_loop_get_cell(loop, 1, 1, 0, NULL), -EINVAL);
    cr_assert_eq(ol_loop_get_cell(loop, 5, 2, UINT64_MAX, &c), 0);
    end();
}

/* ---- one in so many */

typedef struct runs {
    ol_co co;
    ol_op op;
    int64_t r;
    int n, i;
} runs;
static void awaits(ol_co *co) {
    runs *a = OL_SELF(co, runs, co);
    OL_BEGIN(co);
    for (a->i = 0; a->i < a->n; a->i++) OL_AWAIT(a->r, ol_run(co, call(&a->op, 1 + a->i % 2, (uint64_t)a->i)));
    OL_END(co);
}
Test(stats, the_times_of_one_operation_in_so_many_are_taken) {
    static const uint32_t samples[] = {1, 2, 3, 7, 64, 1000};
    static const char *const policies[] = {"", "any any 0- sliced - -", "any any 0- async device -",
                                           "any any 0- sync device -",
                                           "any latency 0- async device software\nany batch 0-9 sliced - -"};
    for (size_t s = 0; s < 6; s++)
        for (size_t p = 0; p < 5; p++) {
            runs a;
            memset(&a, 0, sizeof a);
            begin(policies[p], samples[s]);
            for (a.n = 1; a.n < 1500; a.n = a.n * 3 + 1) {
                const uint64_t before = times(0, 0, OL_TIME_TOTAL).count, rest = loop->sampled;
                cr_assert_eq(ol_spawn(loop, &a.co, awaits, 0, 0), 0);
                run();
                cr_assert_eq(times(0, 0, OL_TIME_TOTAL).count - before, ((uint64_t)a.n + rest) / samples[s]);
            }
            end();
        }
}
/* Those that went to the backend, were refused and ran on the spot count once, too. */
Test(stats, what_is_refused_counts_once) {
    enum { N = 100 };
    static ol_op op[N];
    for (int fails = 0; fails < 2; fails++) {
        begin("any any 0- async device software", 3);
        device_takes = 0, device_fails = fails;
        for (int i = 0; i < N; i++) submit(&op[i], 0, 0);
        run();
        cr_assert_eq(stats().why[fails ? OL_WHY_FAILED : OL_WHY_FULL], (uint64_t)N);
        const uint64_t n = times(0, 0, OL_TIME_TOTAL).count;
        cr_assert(n == N / 3, "%llu", (unsigned long long)n);
        for (int i = 0; i < N; i++) submit(&op[i], 0, 0), run(); /* singly */
        cr_assert_eq(times(0, 0, OL_TIME_TOTAL).count, 2u * N / 3);
        end();
        begin("any any 0- async device software", 1); /* they give their places back */
        device_takes = 0, device_fails = fails;
        for (int i = 0; i < 3 * N; i++) submit(&op[i % N], 0, 0), run();
        device_takes = DEPTH, device_fails = 0;
        for (int i = 0; i < N; i++) submit(&op[i], 0, 0);
        int places = 255;
        for (uint8_t k = loop->sample[0].next; k; k = loop->sample[k].next) places--;
        cr_assert_eq(places, N);
        run();
        cr_assert_eq(times(0, 0, OL_TIME_TOTAL).count, 4u * N);
        end();
    }
}
Test(stats, more_samples_than_places_do_no_harm) {
    enum { N = 300 };
    static ol_op op[N];
    begin("any any 0- async device wait", 1);
    latency_ns = 5000;
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < N; i++) submit(&op[i], i % 2 ? OL_LATENCY : OL_BATCH, 0);
        cr_assert_eq(loop->sample[0].next, 0); /* none is left */
        run();
        for (int i = 0; i < N; i++) cr_assert_eq(op[i].result, 1);
        cr_assert_eq(times(0, 0, OL_TIME_TOTAL).count, 255u * (uint64_t)round);
    }
    for (int i = 0; i < N; i++) submit(&op[i], 0, 0); /* what is cancelled gives its place back, and says nothing */
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    for (int i = 0; i < N; i++) cr_assert_eq(ol_op_cancel(loop, &op[i]), 0);
    run();
    cr_assert_eq(times(0, 0, OL_TIME_TOTAL).count, 255u * 3);
    for (int i = 0; i < 255; i++) submit(&op[i], 0, 0);
    run();
    cr_assert_eq(times(0, 0, OL_TIME_TOTAL).count, 255u * 4);
    end();
}

/* ---- cells */

Test(stats, cells_count_by_mode_class_and_octave) {
    enum { N = 4000 };
    static ol_op op;
    static uint64_t want[2][16][6];
    begin("any latency 0-4095 software - -\nany latency 4K- async device wait\n"
          "any batch 0-1000 sliced - -\nany any 1001-100000 async device wait",
          0);
    work_ns = 0;
    memset(want, 0, sizeof want);
    for (int i = 0; i < N; i++) {
        const uint64_t edge = (uint64_t)1 << random64() % 64, len = edge + random64() % 3 - 1;
        const int cls = 1 + (int)(random64() % 2);
        int bucket = 0;
        while (bucket < 15 && len >= (uint64_t)256 << bucket) bucket++;
        const int mode = cls == OL_LATENCY ? (len < 4096 ? OL_SOFTWARE : OL_ASYNC)
                         : len <= 1000     ? OL_SLICED
                         : len <= 100000   ? OL_ASYNC
                                           : OL_SOFTWARE;
        want[cls - 1][bucket][mode]++;
        submit(&op, cls, len);
        run();
        cr_assert_eq(op.mode, mode);
    }
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++)
        for (int b = 0; b < 16; b++) {
            ol_cell c;
            const uint64_t low = b ? (uint64_t)128 << b : 0, high = b < 15 ? ((uint64_t)256 << b) - 1 : 0;
            c.size = sizeof c;
            cr_assert_eq(ol_loop_get_cell(loop, OL_OP_CALL, cls, low, &c), 0);
            cr_assert(c.size == sizeof c && c.min == low && c.max == high);
            cr_assert(memcmp(c.n, want[cls - 1][b], sizeof c.n) == 0, "class %d, from %llu", cls,
                      (unsigned long long)low);
            cr_assert_eq(ol_loop_get_cell(loop, OL_OP_CALL, cls, high ? high : UINT64_MAX, &c), 0);
            cr_assert_eq(c.min, low);
            cr_assert_eq(ol_loop_get_cell(loop, OL_OP_CRC32, cls, low, &c), 0);
            for (int m = 0; m < 6; m++) cr_assert_eq(c.n[m], 0u);
        }
    end();
}
/* An older program's struct is shorter, a newer one's longer. */
#define TRUNCATES(type, fill)                                                                                          \
    do {                                                                                                               \
        union {                                                                                                        \
            type t;                                                                                                    \
            uint8_t b[sizeof(type) + 64];                                                                              \
        } whole, part;                                                                                                 \
        memset(&whole, 0xa5, sizeof whole);                                                                            \
        whole.t.size = sizeof whole;                                                                                   \
        fill(&whole.t);                                                                                                \
        cr_assert_eq(whole.t.size, sizeof(type));                                                                      \
        for (size_t i = sizeof(type); i < sizeof whole; i++) cr_assert_eq(whole.b[i], 0xa5);                           \
        for (uint32_t n = 4; n <= sizeof(type); n += 4) {                                                              \
            memset(&part, 0xa5, sizeof part);                                                                          \
            part.t.size = n;                                                                                           \
            fill(&part.t);                                                                                             \
            cr_assert_eq(part.t.size, n);                                                                              \
            cr_assert(memcmp(part.b + 4, whole.b + 4, n - 4) == 0, "the first %u bytes", n);                           \
            for (size_t i = n; i < sizeof part; i++) cr_assert_eq(part.b[i], 0xa5, "past %u bytes", n);                \
        }                                                                                                              \
    } while (0)
static ol_backend *pool;
static void fill_cell(ol_cell *c) { cr_assert_eq(ol_loop_get_cell(loop, OL_OP_CALL, OL_BATCH, 300, c), 0); }
static void fill_stats(ol_loop_stats *s) { ol_loop_get_stats(loop, s); }
static void fill_threads(ol_threads_stats *s) { cr_assert_eq(ol_threads_get_stats(pool, s), 0); }
Test(stats, structs_of_other_sizes_are_filled_as_far_as_they_go) {
    ol_op op;
    begin("", 0);
    work_ns = 77;
    for (int i = 0; i < 9; i++) submit(&op, OL_BATCH, 300), run();
    cr_assert_eq(ol_threads_create(&pool, NULL), 0);
    TRUNCATES(ol_cell, fill_cell);
    TRUNCATES(ol_loop_stats, fill_stats);
    TRUNCATES(ol_threads_stats, fill_threads);
    cr_assert_eq(ol_threads_destroy(pool), 0);
    end();
}

/* ---- why */

static char byte;
typedef struct opens {
    ol_co co;
    ol_op op;
    int64_t r;
} opens;
static void reads(ol_co *co) {
    opens *o = OL_SELF(co, opens, co);
    OL_BEGIN(co);
    OL_AWAIT(o->r, ol_pread(co, &o->op, -1, &byte, 0, 0)); /* nothing to read: the cache has it */
    OL_END(co);
}
Test(stats, reasons_are_counted) {
    static ol_op op[12];
    opens o;
    device_kinds = 1u << OL_OP_CALL, device_depth = 2;
    begin("call batch 0-9 async device wait\ncall latency 0-9 async device software\ncrc32 any 0- async device wait",
          0);
    work_ns = 0;
    uint64_t want[16];
    memset(want, 0, sizeof want);
    submit(&op[0], 0, 10), want[OL_WHY_RULE]++;              /* no rule */
    for (int i = 1; i < 6; i++) submit(&op[i], OL_BATCH, 1); /* two go, three wait */
    want[OL_WHY_RULE] += 2, want[OL_WHY_PARKED] += 2, want[OL_WHY_STOPPED]++;
    cr_assert_eq(ol_op_cancel(loop, &op[4]), 0);
    for (int i = 6; i < 9; i++) submit(&op[i], OL_LATENCY, 1); /* two go, one runs here */
    want[OL_WHY_RULE] += 2, want[OL_WHY_FULL]++;
    ol_prep_crc32(&op[9], 0, "x", 1);
    want[OL_WHY_UNSUPPORTED]++;
    cr_assert_eq(ol_submit(loop, &op[9], on_done), 0);
    run();
    device_fails = 1;
    submit(&op[10], 0, 1), want[OL_WHY_FAILED]++;
    run();
    memset(&o, 0, sizeof o);
    cr_assert_eq(ol_spawn(loop, &o.co, reads, 0, 0), 0);
    run();
    want[o.op.why]++;
    const ol_loop_stats s = stats();
    for (int i = 0; i < 16; i++) cr_assert_eq(s.why[i], want[i], "%d: %llu", i, (unsigned long long)s.why[i]);
    cr_assert(s.offloaded == 6 && s.parked == 3);
    device_fails = device_takes = 0;
    submit(&op[11], OL_BATCH, 1);
    for (int i = 0; i < 5; i++) cr_assert_eq(ol_loop_step(loop, 0), 1); /* refused again and again */
    cr_assert_eq(stats().parked, 4u);
    device_takes = DEPTH;
    run();
    cr_assert_eq(stats().why[OL_WHY_PARKED], 3u);
    end();
}
typedef struct syncs {
    ol_co co;
    ol_op op;
    int64_t r;
} syncs;
static int ticking;
static void sync_main(ol_co *co) {
    syncs *s = OL_SELF(co, syncs, co);
    OL_BEGIN(co);
    OL_AWAIT(s->r, ol_run(co, call(&s->op, OL_LATENCY, 0)));
    OL_END(co);
}
static int ticking_look(void *self) { /* who spins sees time go by */
    if (ticking) takes(100);
    return device_look(self);
}
Test(stats, a_synchronous_wait_is_counted_with_its_outcome) {
    syncs s;
    ol_cell c;
    begin("any any 0- sync device wait", 1);
    device.look = ticking_look, ticking = 1;
    memset(&s, 0, sizeof s);
    loop->desc.sync_ns = 50 * US;
    for (int late = 0; late < 2; late++) {
        latency_ns = late ? 500 * US : 20 * US;
        cr_assert_eq(ol_spawn(loop, &s.co, sync_main, 0, 0), 0);
        run();
        cr_assert_eq(s.r, 1);
        cr_assert_eq(s.op.mode, late ? OL_ASYNC : OL_SYNC);
    }
    c.size = sizeof c;
    cr_assert_eq(ol_loop_get_cell(loop, OL_OP_CALL, OL_LATENCY, 0, &c), 0);
    cr_assert(c.n[OL_SYNC] == 1 && c.n[OL_ASYNC] == 1);
    cr_assert(stats().why[OL_WHY_RULE] == 1 && stats().why[OL_WHY_SYNC_BOUND] == 1);
    ticking = 0, device.look = device_look;
    end();
}

/* ---- the loop's own time */

static int naps;
static void naps_and_works(ol_loop *l, ol_timer *t) {
    takes(300 * US);
    if (--naps) cr_assert_eq(ol_timer_start(l, t, 1000 * US, naps_and_works), 0);
}
Test(stats, time_is_either_busy_or_waited) {
    ol_timer t;
    begin("", 0);
    memset(&t, 0, sizeof t);
    const int64_t begun = clock_ns;
    naps = 5;
    cr_assert_eq(ol_timer_start(loop, &t, 1000 * US, naps_and_works), 0);
    run();
    cr_assert_eq(ol_loop_step(loop, 0), 0); /* the kernel is asked once more */
    const ol_loop_stats s = stats();
    const ol_histogram lag = times(0, 0, OL_TIME_LAG);
    cr_assert_eq(s.busy_ns, 5u * 300 * US);
    cr_assert_eq(s.waited_ns, 5u * 1000 * US);
    cr_assert_eq((int64_t)(s.busy_ns + s.waited_ns), clock_ns - begun);
    cr_assert(lag.sum == s.busy_ns && lag.max == 300 * US && lag.count >= 6);
    end();
}

/* ---- the dump */

Test(stats, the_dump_fits_any_room_and_never_exceeds_it) {
    static ol_op op;
    static char whole[1 << 16], part[1 << 16];
    begin("any latency 0- sliced - -\nany batch 1K- async device wait", 1);
    work_ns = 3000, latency_ns = 5000;
    for (int i = 0; i < 30; i++) submit(&op, 1 + i % 2, 300u * (unsigned)i), run();
    const int n = ol_loop_dump(loop, whole, sizeof whole);
    cr_assert(n > 500 && n < (int)sizeof whole && strlen(whole) == (size_t)n);
    cr_assert_eq(ol_loop_dump(loop, NULL, 0), n);
    for (int len = 0; len <= n + 2; len++) {
        memset(part, 0x7f, sizeof part);
        cr_assert_eq(ol_loop_dump(loop, part, (size_t)len), n);
        const int there = len > n ? n : len - 1;
        if (len) cr_assert(part[there] == 0 && memcmp(part, whole, (size_t)there) == 0, "len %d", len);
        for (int i = len; i < n + 10; i++) cr_assert(i < there + 1 || part[i] == 0x7f, "len %d: past the end", len);
    }
    cr_assert_eq(ol_loop_dump(NULL, whole, 10), -EINVAL);
    cr_assert_eq(ol_loop_dump(loop, NULL, 10), -EINVAL);
    end();
}
/* The words of the line that begins with these. */
static int line_of(const char *text, const char *begins, char word[16][24]) {
    int n = 0;
    for (const char *p = text; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
        while (*p == ' ') p++;
        if (strncmp(p, begins, strlen(begins)) != 0) continue;
        while (*p && *p != '\n' && n < 16) {
            size_t k = strcspn(p, " \n");
            if (k) {
                cr_assert_lt(k, 24u);
                memcpy(word[n], p, k);
                word[n++][k] = 0;
            }
            p += k;
            while (*p == ' ') p++;
        }
        return n;
    }
    return 0;
}
Test(stats, the_dump_says_what_was_counted) {
    static ol_op op;
    static char text[1 << 16], word[16][24];
    begin("any latency 0- sliced - -\nany batch 1K- async device wait", 1);
    work_ns = 3000, latency_ns = 5000;
    for (int i = 0; i < 10; i++) submit(&op, OL_BATCH, 2000), run();
    for (int i = 0; i < 7; i++) submit(&op, OL_LATENCY, 20), run();
    cr_assert_gt(ol_loop_dump(loop, text, sizeof text), 0);
    cr_assert_geq(line_of(text, "total", word), 7);
    cr_assert(atoi(word[1]) == 17 && atoi(word[2]) == (10 * 5000 + 7 * 3000) / 17 && atoi(word[6]) == 5000);
    cr_assert(atoll(word[3]) == ol_histogram_at(&(ol_histogram){0}, 1) + 5000 && atoll(word[4]) == 5000);
    cr_assert_geq(line_of(text, "call     latency", word), 7);
    cr_assert(strcmp(word[2], "0+") == 0 && atoi(word[4]) == 7 && atoi(word[3]) == 0 && atoi(word[6]) == 0);
    cr_assert_geq(line_of(text, "call     batch", word), 7);
    cr_assert(strcmp(word[2], "1024+") == 0 && atoi(word[6]) == 10 && atoi(word[4]) == 0);
    cr_assert_eq(line_of(text, "crc32", word), 0); /* none ran */
    cr_assert_geq(line_of(text, "17  policy", word), 2);
    cr_assert_geq(line_of(text, "loop:", word), 8);
    int width = 0;
    for (const char *p = text; *p; p++) {
        cr_assert(isprint((unsigned char)*p) || *p == '\n');
        width = *p == '\n' ? 0 : width + 1;
        cr_assert_leq(width, 140, "a long line");
    }
    cr_assert_eq(text[strlen(text) - 1], '\n');
    end();
}

/* ---- the pool */

static ol_threads_stats pool_stats(void) {
    ol_threads_stats s;
    memset(&s, 0, sizeof s);
    s.size = sizeof s;
    cr_assert_eq(ol_threads_get_stats(pool, &s), 0, "%s", ol_error());
    return s;
}
static void all_asleep(uint32_t n) {
    while (pool_stats().asleep < n) sched_yield();
}
Test(stats, a_pool_says_how_idle_it_was) {
    ol_threads_desc t;
    ol_loop_desc d;
    ol_op op;
    memset(&t, 0, sizeof t), memset(&d, 0, sizeof d);
    t.workers = 1, t.spin_ns = -1;
    cr_assert_eq(ol_threads_create(&pool, &t), 0);
    const ol_threads_stats none = pool_stats();
    cr_assert(none.size == sizeof none && !none.workers && !none.asleep && !none.loops);
    cr_assert(!none.idle_ns && !none.elapsed_ns);
    d.backends = &pool, d.nbackends = 1, d.policy = "any any 0- async threads wait";
    cr_assert_eq(ol_loop_create(&loop, &d), 0);
    cr_assert(pool_stats().loops == 1 && pool_stats().workers == 0);
    work_ns = 5000;
    submit(&op, 0, 0);
    run();
    all_asleep(1);
    takes(7000);
    cr_assert(pool_stats().elapsed_ns == 12000 && pool_stats().idle_ns == 0); /* it has not found work since */
    work_ns = 3000;
    submit(&op, 0, 0);
    run();
    all_asleep(1);
    const ol_threads_stats s = pool_stats();
    cr_assert(s.workers == 1 && s.asleep == 1 && s.loops == 1);
    cr_assert(s.elapsed_ns == 15000 && s.idle_ns == 7000, "%llu of %llu", (unsigned long long)s.idle_ns,
              (unsigned long long)s.elapsed_ns);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    cr_assert_eq(pool_stats().loops, 0u);
    cr_assert_eq(ol_threads_destroy(pool), 0);
}
static int go;
static int64_t holds(void *arg) {
    (void)arg;
    while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE)) sched_yield();
    return 1;
}
Test(stats, a_pool_counts_who_sleeps_and_its_loops) {
    ol_threads_desc t;
    ol_loop_desc d;
    ol_loop *second = NULL;
    ol_op op[2];
    memset(&t, 0, sizeof t), memset(&d, 0, sizeof d);
    t.workers = 3, t.spin_ns = -1;
    cr_assert_eq(ol_threads_create(&pool, &t), 0);
    d.backends = &pool, d.nbackends = 1, d.policy = "any any 0- async threads wait";
    cr_assert_eq(ol_loop_create(&loop, &d), 0);
    cr_assert_eq(ol_loop_create(&second, &d), 0);
    cr_assert_eq(pool_stats().loops, 2u);
    go = 0;
    for (int i = 0; i < 2; i++) cr_assert_eq(ol_submit(loop, ol_prep_call(&op[i], holds, NULL), on_done), 0);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    while (pool_stats().asleep != 1) sched_yield(); /* two hold their calls */
    cr_assert_eq(pool_stats().workers, 3u);
    __atomic_store_n(&go, 1, __ATOMIC_RELEASE);
    run();
    all_asleep(3);
    cr_assert_eq(ol_loop_destroy(second), 0);
    cr_assert_eq(pool_stats().loops, 1u);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    cr_assert_eq(ol_threads_destroy(pool), 0);
}
Test(stats, of_what_is_no_pool_there_are_none) {
    ol_threads_stats s;
    s.size = sizeof s;
    cr_assert_eq(ol_threads_get_stats(NULL, &s), -EINVAL);
    cr_assert_eq(ol_threads_get_stats(&device, &s), -EINVAL);
    cr_assert_eq(ol_threads_create(&pool, NULL), 0);
    cr_assert_eq(ol_threads_get_stats(pool, NULL), -EINVAL);
    cr_assert_eq(ol_threads_destroy(pool), 0);
}
