/* The emulated device: when each operation is complete, to the nanosecond, what its result is, and what its text may
   say. The clock is virtual and stands still but for what the tests, the sleeps of loops and the set-ups add to it.
   cc -O2 -DOFFLOAD_ISAL -I. tests/criterion/emulated.c -o build/tests/emulated -lcriterion -lisal -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include "counted.h"

enum { US = 1000 };
static int64_t clock_ns = 1000000000, spent;
static int spends, stopped, stops, no_memory;
static void *test_malloc(size_t n) { return no_memory ? NULL : test_realloc(NULL, n); }
static void test_spend(int64_t ns) { clock_ns += ns, spent += ns, spends++; }
static int test_epoll_wait(int ep, struct epoll_event *events, int n, int64_t timeout) {
    if (timeout > 0) clock_ns += timeout;
    return epoll_wait(ep, events, n, 0);
}
#undef OL_SYS_MALLOC
#define OL_SYS_MALLOC(n) test_malloc(n)
#define OL_SYS_NOW() (clock_ns + 0)
#define OL_SYS_SPEND(ns) test_spend(ns)
#define OL_SYS_CLOCK_STOP() (stopped++, stops++)
#define OL_SYS_CLOCK_GO() (stopped--)
#define OL_SYS_EPOLL_CREATE() epoll_create1(EPOLL_CLOEXEC)
#define OL_SYS_EPOLL_CTL(ep, op, fd, event) epoll_ctl((ep), (op), (fd), (event))
#define OL_SYS_EPOLL_WAIT(ep, events, n, timeout_ns) test_epoll_wait((ep), (events), (n), (timeout_ns))
#define OL_SYS_EVENTFD() eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

#include <criterion/criterion.h>

TestSuite(emulated, .timeout = 30);

/* A device and two channels of it, as two loops would open them. */
static ol_backend *device;
static ol_channel channel[2];
static ol_op ops[4096];
static int used, ran;

static ol_emulated_desc parsed(const char *text) {
    ol_emulated_desc d;
    cr_assert_eq(ol_emulated_parse(text, &d, NULL, 0), 0, "%s", ol_error());
    return d;
}
static void begin(const char *text) {
    const ol_emulated_desc d = parsed(text);
    cr_assert_eq(ol_emulated_create(&device, &d), 0, "%s", ol_error());
    for (int i = 0; i < 2; i++) cr_assert_eq(device->open(device->self, NULL, &channel[i]), 0);
    used = ran = 0;
}
static void end(void) {
    for (int i = 0; i < 2; i++) device->close(channel[i].self);
    cr_assert_eq(ol_emulated_destroy(device), 0, "%s", ol_error());
    cr_assert_eq(live, 0, "%ld allocations are left", live);
}
static int64_t seven(void *arg) {
    (void)arg;
    ran++;
    cr_assert_eq(stopped, 1, "the clock runs while a result is made");
    return 7;
}
static ol_op *call_of(uint64_t bytes) {
    ol_op *op = ol_prep_call(&ops[used++], seven, NULL);
    op->len = bytes;
    op->service_ns = 99;
    return op;
}
static int submit_to(int c, ol_op *op) { return device->submit(channel[c].self, &op, 1); }
static ol_op *submit(uint64_t bytes) {
    ol_op *op = call_of(bytes);
    cr_assert_eq(submit_to(0, op), 1);
    return op;
}
static ol_op *poll_of(int c) {
    ol_op *op = NULL;
    const int there = device->look(channel[c].self);
    cr_assert_eq(device->poll(channel[c].self, &op, 1), there != 0);
    return op;
}
static int cancel(int c, ol_op *op) { return device->cancel(channel[c].self, op); }
static int64_t next(int c) { return device->next_ns(channel[c].self, clock_ns); }

/* The next completion of the channel is this operation's, so many ns after `since`, and no earlier. */
static void completes(int c, const ol_op *op, int64_t since, int64_t after) {
    cr_assert_eq(next(c), since + after, "%lld ns after", (long long)(next(c) - since));
    if (since + after > clock_ns) {
        clock_ns = since + after - 1;
        cr_assert_null(poll_of(c));
        clock_ns++;
    }
    cr_assert_eq(poll_of(c), op);
}

Test(emulated, by_default_it_takes_no_time_and_its_results_are_true) {
    begin("");
    const int64_t now = clock_ns;
    ol_op *op = submit(1000);
    cr_assert_eq(ran, 0);
    completes(0, op, now, 0);
    cr_assert_eq(op->result, 7);
    cr_assert_eq(op->service_ns, 0);
    ol_prep_crc32(&ops[1], 0, "123456789", 9);
    cr_assert_eq(submit_to(1, &ops[1]), 1);
    cr_assert_eq(poll_of(1), &ops[1]);
    cr_assert_eq(ops[1].result, 0xcbf43926);
    cr_assert_geq(stops, 4); /* at each submission and each poll */
    cr_assert_eq(stopped, 0);
    cr_assert_eq(spends, 0);
    cr_assert_eq(next(0), -1);
    cr_assert_str_eq(device->name, "device");
    cr_assert_eq(device->kinds, 1u << OL_OP_CALL | 1u << OL_OP_CRC32 | 1u << OL_OP_DEFLATE | 1u << OL_OP_INFLATE);
    cr_assert_eq(channel[0].depth, 128);
    cr_assert_eq(channel[0].reserve, 16);
    cr_assert_eq(channel[0].flags, OL_CHANNEL_ONE_QUEUE | OL_CHANNEL_VERIFY);
    end();
}
Test(emulated, engine_size_and_latency_add_up) {
    begin("engine_ns=300 latency_ns=5000 bytes_per_s=2e9");
    const int64_t now = clock_ns;
    ol_op *op = submit(4096);
    completes(0, op, now, 300 + 2048 + 5000);
    cr_assert_eq(op->service_ns, 300 + 2048 + 5000);
    end();
}
Test(emulated, what_it_took_is_capped_not_cut) {
    begin("engine_ns=5e9");
    ol_op *op = submit(0);
    clock_ns += 5000000000;
    cr_assert_eq(poll_of(0), op);
    cr_assert_eq(op->service_ns, UINT32_MAX);
    end();
}
Test(emulated, the_submitter_spends_the_set_up_of_each_operation_and_of_each_burst) {
    begin("setup_ns=700 burst_ns=50 depth=4 engine_ns=10");
    ol_op *burst[6];
    const int64_t now = clock_ns;
    for (int i = 0; i < 6; i++) burst[i] = call_of(0);
    cr_assert_eq(device->submit(channel[0].self, burst, 3), 3);
    cr_assert_eq(spent, 50 + 3 * 700);
    cr_assert_eq(device->submit(channel[0].self, burst + 3, 3), 1); /* full */
    cr_assert_eq(spent, 2 * 50 + 4 * 700);
    cr_assert_eq(device->submit(channel[0].self, burst + 4, 2), 0); /* nothing entered, nothing was set up */
    cr_assert_eq(spent, 2 * 50 + 4 * 700);
    completes(0, burst[0], now, 50 + 700 + 10); /* it had not waited for the others' set-up */
    cr_assert_eq(device->submit(channel[0].self, burst + 4, 2), 1);
    end();
}
Test(emulated, an_engine_does_one_at_a_time_but_latencies_overlap) {
    begin("engine_ns=100 latency_ns=1000 engines=2");
    const int64_t now = clock_ns;
    ol_op *op[5];
    for (int i = 0; i < 5; i++) op[i] = submit(0);
    completes(0, op[0], now, 1100);
    completes(0, op[1], now, 1100);
    completes(0, op[2], now, 1200);
    completes(0, op[3], now, 1200);
    completes(0, op[4], now, 1300);
    end();
}
Test(emulated, engines_are_shared_by_channels_queues_are_not) {
    begin("engine_ns=100 depth=1");
    const int64_t now = clock_ns;
    ol_op *first = submit(0), *second = call_of(0);
    cr_assert_eq(submit_to(0, second), 0);
    cr_assert_eq(submit_to(1, second), 1);
    completes(0, first, now, 100);
    completes(1, second, now, 200);
    end();
}

Test(emulated, the_size_has_its_exponent) {
    static const struct {
        const char *exponent;
        uint64_t bytes;
        int64_t ns; /* bytes to the power, at 1e9 a second */
    } row[] = {{"exponent=2", 3000, 9000000},
               {"exponent=0.5", 1 << 20, 1024},
               {"exponent=1.5", 4096, 262144},
               {"exponent=0.25", 10000, 10},
               {"exponent=3", 9999, 999700029999},
               {"exponent=2.5", 14400, 24883200000},
               {"exponent=4", 1000, 1000000000000},
               {"exponent=1", 123457, 123457},
               {"exponent=2", 1, 1},
               {"exponent=2", 0, 0},
               {"exponent=4", 1ull << 62, 1000000000000}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char text[64];
        snprintf(text, sizeof text, "bytes_per_s=1e9 %s", row[i].exponent);
        begin(text);
        const int64_t now = clock_ns;
        completes(0, submit(row[i].bytes), now, row[i].ns);
        end();
    }
}

Test(emulated, jitter_stays_in_its_bounds_and_reaches_them) {
    begin("engine_ns=10000 jitter=0.2 depth=1000 engines=64 latency_ns=500 seed=3");
    int64_t least = 1 << 30, most = 0, sum = 0;
    for (int i = 0; i < 1000; i++) {
        ol_op *op = submit(0);
        clock_ns += 20000;
        cr_assert_eq(poll_of(0), op);
        sum += op->service_ns;
        if (op->service_ns < least) least = op->service_ns;
        if (op->service_ns > most) most = op->service_ns;
    }
    cr_assert(least >= 8500 && least < 8600, "%lld", (long long)least);
    cr_assert(most <= 12500 && most > 12400, "%lld", (long long)most);
    cr_assert(sum > 10400 * 1000 && sum < 10600 * 1000, "%lld", (long long)sum);
    end();
}
static uint64_t fates(const char *text) { /* a hash of what happens to 500 operations */
    uint64_t h = 0;
    begin(text);
    for (int i = 0; i < 500; i++) {
        ol_op *op = submit(0);
        clock_ns += 1000000;
        if (poll_of(0) == NULL) {
            cr_assert_eq(cancel(0, op), 0);
            cr_assert_eq(poll_of(0), op);
        }
        h = (h ^ (uint64_t)op->result ^ (uint64_t)op->service_ns << 20) * 0x9e3779b97f4a7c15u;
    }
    end();
    return h;
}
Test(emulated, the_seed_decides_all_that_is_random) {
    const char *same = "seed=5 engine_ns=10000 jitter=0.5 faults=0.2 corrupts=0.2 hangs=0.2";
    const uint64_t h = fates(same);
    cr_assert_eq(fates(same), h);
    cr_assert_neq(fates("seed=6 engine_ns=10000 jitter=0.5 faults=0.2 corrupts=0.2 hangs=0.2"), h);
}

Test(emulated, completions_come_as_they_finish_or_in_order) {
    begin("bytes_per_s=1e9 engines=3");
    int64_t now = clock_ns;
    ol_op *a = submit(3000), *b = submit(1000), *c = submit(2000);
    completes(0, b, now, 1000);
    completes(0, c, now, 2000);
    completes(0, a, now, 3000);
    end();
    begin("bytes_per_s=1e9 engines=3 order=1");
    now = clock_ns;
    a = submit(3000), b = submit(1000), c = submit(4000);
    ol_op *other = call_of(500); /* the order is a channel's */
    cr_assert_eq(submit_to(1, other), 1);
    completes(1, other, now, 1000 + 500);
    completes(0, a, now, 3000);
    cr_assert_eq(poll_of(0), b);
    completes(0, c, now, 4000);
    end();
}

Test(emulated, a_full_channel_takes_fewer_and_poll_makes_room) {
    begin("depth=16");
    ol_op *burst[20];
    for (int i = 0; i < 20; i++) burst[i] = call_of(0);
    cr_assert_eq(device->submit(channel[0].self, burst, 20), 16);
    cr_assert_eq(device->submit(channel[0].self, burst + 16, 4), 0);
    cr_assert_eq(device->poll(channel[0].self, burst, 3), 3);
    cr_assert_eq(device->submit(channel[0].self, burst + 16, 4), 3);
    cr_assert_eq(device->poll(channel[0].self, burst, 20), 16);
    end();
}

Test(emulated, a_share_of_the_operations_is_faulty_and_does_not_run) {
    begin("faults=0.3 seed=11");
    int faulty = 0;
    for (int i = 0; i < 4000; i++, used = 0) {
        ol_op *op = submit(0);
        cr_assert_eq(poll_of(0), op);
        cr_assert(op->result == 7 || op->result == -EIO);
        faulty += op->result == -EIO;
    }
    cr_assert(faulty > 1055 && faulty < 1345, "%d of 4000", faulty); /* 5 standard deviations */
    cr_assert_eq(ran, 4000 - faulty);
    end();
}
Test(emulated, each_of_three_shares_is_as_large_as_it_was_asked_for) {
    begin("faults=0.25 corrupts=0.25 hangs=0.25 seed=12");
    int good = 0, faulty = 0, corrupt = 0, hung = 0;
    for (int i = 0; i < 4000; i++, used = 0) {
        ol_op *op = submit(0);
        if (poll_of(0) == NULL) {
            hung++;
            cr_assert_eq(cancel(0, op), 0);
            cr_assert_eq(poll_of(0), op);
        } else {
            good += op->result == 7, faulty += op->result == -EIO, corrupt += op->result >= 0 && op->result != 7;
        }
    }
    const int n[] = {good, faulty, corrupt, hung};
    for (int i = 0; i < 4; i++) cr_assert(n[i] > 860 && n[i] < 1140, "%d: %d", i, n[i]); /* 5 standard deviations */
    end();
}
static int bits(const uint8_t *a, const uint8_t *b, size_t n) { /* that differ */
    int sum = 0;
    for (size_t i = 0; i < n; i++) sum += __builtin_popcount((unsigned)(a[i] ^ b[i]));
    return sum;
}
Test(emulated, a_corrupt_result_has_exactly_one_wrong_bit) {
    static uint8_t text[3000], packed[4000], bad[4000], out[3000];
    ol_exec *exec = ol_exec_create();
    ol_op truth;
    for (size_t i = 0; i < sizeof text; i++) text[i] = (uint8_t)(i * i >> 7);
    const int64_t n = ol_op_exec(exec, ol_prep_deflate(&truth, OL_GZIP, packed, sizeof packed, text, sizeof text));
    cr_assert_gt(n, 0);
    begin("corrupts=1");
    for (int i = 0; i < 200; i++, used = 0) {
        ol_op *op = submit(0);
        cr_assert_eq(poll_of(0), op);
        cr_assert_geq(op->result, 0);
        cr_assert_eq(__builtin_popcountll((unsigned long long)(op->result ^ 7)), 1);
        cr_assert_eq(submit_to(0, ol_prep_crc32(op, 0, "123456789", 9)), 1);
        cr_assert_eq(poll_of(0), op);
        cr_assert(op->result >= 0 && op->result <= UINT32_MAX);
        cr_assert_eq(__builtin_popcountll((unsigned long long)(op->result ^ 0xcbf43926)), 1);
        memset(bad, 0, sizeof bad);
        cr_assert_eq(submit_to(0, ol_prep_deflate(op, OL_GZIP, bad, sizeof bad, text, sizeof text)), 1);
        cr_assert_eq(poll_of(0), op);
        cr_assert_eq(op->result, n);
        cr_assert_eq(bits(bad, packed, (size_t)n), 1);
        cr_assert_eq(submit_to(0, ol_prep_inflate(op, OL_GZIP, out, sizeof out, packed, (uint64_t)n)), 1);
        cr_assert_eq(poll_of(0), op);
        cr_assert_eq(op->result, (int64_t)sizeof out);
        cr_assert_eq(bits(out, text, sizeof out), 1);
        cr_assert_eq(submit_to(0, ol_prep_deflate(op, OL_GZIP, bad, 5, text, sizeof text)), 1);
        cr_assert_eq(poll_of(0), op);
        cr_assert_eq(op->result, -ENOSPC, "a true error stays one");
    }
    ol_exec_destroy(exec);
    end();
}
Test(emulated, a_hung_operation_ends_by_cancel_alone_and_its_engine_goes_on) {
    begin("hangs=1 engine_ns=100");
    ol_emulated_desc d = parsed("engine_ns=100");
    ol_op *hung = submit(0), *queued = submit(0);
    cr_assert_eq(ol_emulated_change(device, &d), 0);
    ol_op *good = submit(0);
    completes(0, good, clock_ns, 300);
    cr_assert_eq(next(0), -1);
    clock_ns += INT64_C(3600) * 1000000000;
    cr_assert_null(poll_of(0));
    for (int again = 0; again < 2; again++) cr_assert_eq(cancel(0, hung), 0);
    cr_assert_leq(next(0), clock_ns);
    cr_assert_eq(poll_of(0), hung);
    cr_assert_eq(hung->result, -ECANCELED);
    cr_assert_eq(hung->service_ns, 0);
    cr_assert_null(poll_of(0));
    cr_assert_eq(cancel(0, queued), 0);
    cr_assert_eq(poll_of(0), queued);
    cr_assert_eq(ran, 1, "what hangs does not run");
    end();
}
Test(emulated, in_order_a_hung_operation_holds_up_those_behind_it) {
    begin("hangs=1 order=1 engine_ns=100");
    ol_emulated_desc d = parsed("engine_ns=100");
    const int64_t now = clock_ns;
    ol_op *hung = submit(0);
    cr_assert_eq(ol_emulated_change(device, &d), 0);
    ol_op *good = submit(0), *last = submit(0);
    cr_assert_eq(next(0), -1);
    clock_ns = now + 199;
    cr_assert_eq(cancel(0, last), 0); /* what is cancelled waits for nobody */
    cr_assert_eq(poll_of(0), last);
    clock_ns = now + 1000;
    cr_assert_null(poll_of(0));
    cr_assert_eq(cancel(0, hung), 0);
    cr_assert_eq(poll_of(0), hung);
    cr_assert_eq(poll_of(0), good);
    end();
}
Test(emulated, what_no_engine_has_begun_can_be_cancelled_and_leaves_no_trace) {
    begin("engine_ns=100");
    const int64_t now = clock_ns;
    ol_op *a = submit(0), *b = submit(0), *c = call_of(0);
    cr_assert_eq(submit_to(1, c), 1); /* another loop's moves up, too */
    cr_assert_eq(cancel(0, a), -EBUSY);
    clock_ns = now + 99;
    cr_assert_eq(cancel(0, b), 0);
    cr_assert_eq(poll_of(0), b);
    cr_assert_eq(b->result, -ECANCELED);
    completes(1, c, now, 200);
    cr_assert_eq(cancel(0, a), -EBUSY, "it is complete, but not polled");
    completes(0, a, now, 100);
    cr_assert_eq(ran, 2);
    b = submit(0);
    cr_assert_eq(cancel(0, b), -EBUSY, "an engine was idle: it has begun");
    clock_ns += 100;
    cr_assert_eq(poll_of(0), b);
    end();
}
Test(emulated, a_cancelled_chunk_has_not_touched_its_stream) {
    static uint8_t out[1000];
    ol_stream stream, before;
    memset(&stream, 0, sizeof stream);
    before = stream;
    begin("engine_ns=100");
    ol_op *a = submit(0), *chunk = &ops[used++];
    ol_prep_deflate_chunk(chunk, OL_GZIP, out, sizeof out, "abc", 3, &stream, NULL, 0, 0);
    cr_assert_eq(submit_to(0, chunk), 1);
    cr_assert_eq(cancel(0, chunk), 0);
    cr_assert_eq(poll_of(0), chunk);
    cr_assert_arr_eq(&stream, &before, sizeof stream);
    clock_ns += 100;
    cr_assert_eq(poll_of(0), a);
    end();
}

/* A model: all that has entered and was not cancelled before it began, served in order from the beginning of time. */
struct life {
    ol_op *op;
    int64_t entered, took, begins, ends;
    int c, gone, polled;
};
static void serve(struct life *life, int n, int engines, int64_t latency) {
    int64_t idle[4] = {0, 0, 0, 0};
    for (int i = 0; i < n; i++) {
        int k = 0;
        if (life[i].gone) continue;
        for (int e = 1; e < engines; e++)
            if (idle[e] < idle[k]) k = e;
        life[i].begins = idle[k] > life[i].entered ? idle[k] : life[i].entered;
        idle[k] = life[i].begins + life[i].took;
        life[i].ends = idle[k] + latency;
    }
}
static uint32_t random_state;
static uint32_t below(uint32_t n) { return (random_state = random_state * 1664525 + 1013904223) / 65536 % n; }
static void step_of_the_model(struct life *life, int *n, int engines, int64_t latency) {
    struct life *l = &life[*n];
    const uint32_t what = below(8);
    clock_ns += below(60);
    if (what < 4) {
        l->took = 1 + below(200);
        l->c = (int)below(2);
        l->op = call_of((uint64_t)l->took);
        l->entered = clock_ns;
        *n += submit_to(l->c, l->op);
        serve(life, *n, engines, latency);
    } else if (what == 4 && *n) {
        l = &life[below((uint32_t)*n)];
        if (l->polled) return;
        const int late = !l->gone && l->begins <= clock_ns;
        cr_assert_eq(cancel(l->c, l->op), late ? -EBUSY : 0);
        l->gone = !late;
        serve(life, *n, engines, latency);
    } else {
        const int c = (int)below(2);
        ol_op *op = poll_of(c);
        int64_t first = -1;
        for (int i = 0; i < *n; i++) {
            l = &life[i];
            const int complete = l->gone || l->ends <= clock_ns;
            if (l->op == op) {
                cr_assert(complete && !l->polled, "%d has %lld ns to go", i, (long long)(l->ends - clock_ns));
                cr_assert_eq(op->result, l->gone ? -ECANCELED : 7);
                l->polled = 1;
            }
            cr_assert(op || l->c != c || l->polled || !complete, "%d is overdue", i);
            if (l->c == c && !l->polled && !l->gone && (first < 0 || l->ends < first)) first = l->ends;
            if (l->c == c && !l->polled && l->gone) first = 0;
        }
        if (first) cr_assert_eq(next(c), first);
    }
}
Test(emulated, it_serves_as_a_simple_model_does_whatever_is_cancelled) {
    static struct life life[4096];
    for (uint32_t seed = 0; seed < 40; seed++) {
        const int engines = 1 + (int)seed % 4;
        char text[96];
        int n = 0;
        random_state = seed;
        snprintf(text, sizeof text, "bytes_per_s=1e9 depth=%u latency_ns=%u engines=%d", 4 + below(60), seed * 7,
                 engines);
        memset(life, 0, sizeof life);
        begin(text);
        for (int i = 0; i < 600; i++) step_of_the_model(life, &n, engines, seed * 7);
        clock_ns += 1000000;
        for (int c = 0; c < 2; c++)
            while (poll_of(c)) ran++;
        end();
    }
}

Test(emulated, a_change_holds_for_what_is_submitted_from_then_on) {
    begin("engine_ns=100 engines=2 depth=8");
    const int64_t now = clock_ns;
    ol_emulated_desc d =
        parsed("setup_ns=10 engine_ns=1000 latency_ns=5 bytes_per_s=1e9 engines=3 depth=9 order=1 name=x");
    ol_op *a = submit(50), *b = submit(50);
    cr_assert_eq(ol_emulated_change(device, &d), 0);
    ol_op *c = submit(50);
    completes(0, a, now, 100);
    completes(0, b, now, 100);
    completes(0, c, now, 100 + 1000 + 50 + 5); /* neither a third engine, nor its set-up added */
    cr_assert_eq(spent, 10);
    cr_assert_str_eq(device->name, "device");
    for (int i = 0; i < 8; i++) submit(0);
    cr_assert_eq(submit_to(0, call_of(0)), 0);
    d = parsed("faults=1");
    cr_assert_eq(ol_emulated_change(device, &d), 0);
    ol_op *faulty = call_of(0);
    cr_assert_eq(submit_to(1, faulty), 1);
    clock_ns += 100000;
    while (poll_of(0)) continue;
    cr_assert_eq(poll_of(1), faulty);
    cr_assert_eq(faulty->result, -EIO);
    d.latency_ns = -1;
    cr_assert_eq(ol_emulated_change(device, &d), -EINVAL);
    cr_assert_str_eq(ol_error(), "ol_emulated_desc: latency_ns must not be negative");
    cr_assert_eq(ol_emulated_change(device, NULL), -EINVAL);
    cr_assert_eq(ol_emulated_change(NULL, &d), -EINVAL);
    end();
}

#define REFUSED(member, value)                                                                                         \
    do {                                                                                                               \
        ol_emulated_desc d_;                                                                                           \
        ol_backend *b_ = NULL;                                                                                         \
        memset(&d_, 0, sizeof d_);                                                                                     \
        d_.member = (value);                                                                                           \
        cr_assert_eq(ol_emulated_create(&b_, &d_), -EINVAL, #member " = " #value);                                     \
        cr_assert(strstr(ol_error(), " " #member " ") != NULL, "%s", ol_error());                                      \
        cr_assert_null(b_);                                                                                            \
    } while (0)
Test(emulated, a_desc_out_of_range_is_refused_and_its_member_named) {
    REFUSED(engines, 65);
    REFUSED(depth, 65537);
    REFUSED(reserve, 128);
    REFUSED(order, 2);
    REFUSED(kinds, 1u << OL_OP_FILE);
    REFUSED(kinds, 1);
    REFUSED(setup_ns, -1);
    REFUSED(burst_ns, -1);
    REFUSED(latency_ns, INT64_MIN);
    REFUSED(latency_ns, INT64_MAX);
    REFUSED(engine_ns, 1000000000001);
    REFUSED(bytes_per_s, -1);
    REFUSED(bytes_per_s, __builtin_nan(""));
    REFUSED(bytes_per_s, __builtin_inf());
    REFUSED(exponent, 4.1);
    REFUSED(exponent, -1);
    REFUSED(jitter, 1.01);
    REFUSED(jitter, -0.01);
    REFUSED(faults, 1.01);
    REFUSED(corrupts, -0.5);
    REFUSED(hangs, 2);
    REFUSED(seed, UINT64_MAX);
    REFUSED(canary_, 1);
    ol_emulated_desc d;
    ol_backend *b = NULL;
    memset(&d, 0, sizeof d);
    d.faults = 0.5, d.hangs = 0.6;
    cr_assert_eq(ol_emulated_create(&b, &d), -EINVAL);
    cr_assert(strstr(ol_error(), "faults, corrupts and hangs"), "%s", ol_error());
    memset(&d, 'x', sizeof d.name);
    memset((char *)&d + sizeof d.name, 0, sizeof d - sizeof d.name);
    cr_assert_eq(ol_emulated_create(&b, &d), -EINVAL);
    cr_assert(strstr(ol_error(), " name "), "%s", ol_error());
    memcpy(d.name, "two words", 10);
    cr_assert_eq(ol_emulated_create(&device, &d), -EINVAL);
    cr_assert(strstr(ol_error(), " name "), "%s", ol_error());
    cr_assert_eq(ol_emulated_create(NULL, NULL), -EINVAL);
    cr_assert_eq(live, 0);
}
Test(emulated, without_memory_nothing_is_made) {
    no_memory = 1;
    cr_assert_eq(ol_emulated_create(&device, NULL), -ENOMEM);
    no_memory = 0;
    cr_assert_eq(ol_emulated_create(&device, NULL), 0);
    no_memory = 1;
    cr_assert_eq(device->open(device->self, NULL, &channel[0]), -ENOMEM);
    cr_assert_eq(ol_emulated_destroy(device), 0);
    cr_assert_eq(live, 0);
}

Test(emulated, text_sets_every_member) {
    const ol_emulated_desc d =
        parsed(" name=qat\tkinds=deflate,call engines=2 depth=64\n reserve=3 order=1 setup_ns=4 # not this\n"
               "burst_ns=5 latency_ns=6 engine_ns=7 bytes_per_s=2.5e9 exponent=1.5 jitter=0.25 "
               "faults=0.1 corrupts=0.2 hangs=0.3 seed=9007199254740991");
    cr_assert_str_eq(d.name, "qat");
    cr_assert_eq(d.kinds, 1u << OL_OP_DEFLATE | 1u << OL_OP_CALL);
    cr_assert(d.engines == 2 && d.depth == 64 && d.reserve == 3 && d.order == 1);
    cr_assert(d.setup_ns == 4 && d.burst_ns == 5 && d.latency_ns == 6 && d.engine_ns == 7);
    cr_assert(d.bytes_per_s == 2.5e9 && d.exponent == 1.5 && d.jitter == 0.25);
    cr_assert(d.faults == 0.1 && d.corrupts == 0.2 && d.hangs == 0.3 && d.seed == 9007199254740991 && !d.canary_);
}
Test(emulated, text_that_is_wrong_is_refused_and_the_member_named) {
    static const char *const row[][2] = {
        {"engines=0", "engines must not be 0"},
        {"engines=65", "engines must be at most 64"},
        {"engines=-1", "engines must not be negative"},
        {"engines=1.5", "engines must be a whole number"},
        {"engines=", "engines must be a number"},
        {"engines=2x", "engines must be a number"},
        {"engines=1e0:", "engines must be a number"},
        {"engines=0x2", "engines must be a number"},
        {"engines=+2", "engines must be a number"},
        {"engines=-", "engines must be a number"},
        {"depth=0", "depth must not be 0"},
        {"depth=65537", "depth must be at most 65536"},
        {"reserve=0", "reserve must not be 0"},
        {"reserve=128", "reserve must be less than depth"},
        {"depth=8 reserve=8", "reserve must be less than depth"},
        {"order=2", "order must be at most 1"},
        {"setup_ns=-1", "setup_ns must not be negative"},
        {"burst_ns=-0.5", "burst_ns must not be negative"},
        {"latency_ns=0.5", "latency_ns must be a whole number"},
        {"latency_ns=1e99", "latency_ns must be at most 1000000000000"},
        {"engine_ns=1e999999999999", "engine_ns must be a"},
        {"bytes_per_s=nan", "bytes_per_s must be a number"},
        {"bytes_per_s=inf", "bytes_per_s must be a number"},
        {"exponent=0", "exponent must not be 0"},
        {"exponent=4.5", "exponent must be at most 4"},
        {"jitter=1.1", "jitter must be at most 1"},
        {"jitter=0,1", "jitter must be a number"},
        {"faults=-1", "faults must not be negative"},
        {"corrupts=7", "corrupts must be at most 1"},
        {"hangs=1.5", "hangs must be at most 1"},
        {"faults=0.4 hangs=0.4 corrupts=0.4", "faults, corrupts and hangs must be at most 1"},
        {"seed=0", "seed must not be 0"},
        {"seed=1e30", "seed must be at most 9007199254740992"},
        {"name=", "name must have 1 to 15"},
        {"name=sixteen-letters-", "name must have 1 to 15"},
        {"kinds=", "kinds must be of"},
        {"kinds=file", "kinds must be of"},
        {"kinds=any", "kinds must be of"},
        {"kinds=call,", "kinds must be of"},
        {"kinds=call,,crc32", "kinds must be of"},
        {"kinds=callcallcallcallcall", "kinds must be of"},
        {"canary_=1", "canary_ is not a member"},
        {"color=1", "color is not a member"},
        {"=1", " is not a member"},
        {"bluefield3", "bluefield3 is not bluefield2-host"},
        {"slow slow", "slow must be MEMBER=VALUE"},
        {"engines=2 slow", "slow must be MEMBER=VALUE"},
        {"x2345678901234567890123456789012345678901234567890123456789012345678901234567890", "has a word of more than"},
        {NULL, "must not be NULL"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char err[128] = "";
        ol_emulated_desc d, before;
        memset(&d, 0x5a, sizeof d);
        before = d;
        cr_assert_eq(ol_emulated_parse(row[i][0], &d, err, sizeof err), -EINVAL, "%s", row[i][0]);
        cr_assert(strstr(err, row[i][1]), "\"%s\": %s", row[i][0], err);
        cr_assert_str_eq(err, ol_error());
        cr_assert_arr_eq(&d, &before, sizeof d);
        cr_assert_eq(ol_emulated_parse(row[i][0], NULL, NULL, 0), -EINVAL);
    }
}

static int64_t computation(const ol_emulated_desc *d, uint64_t bytes) { /* as the device itself says */
    ol_backend *b = NULL;
    ol_channel c;
    ol_op *op = call_of(bytes);
    cr_assert_eq(ol_emulated_create(&b, d), 0, "%s", ol_error());
    cr_assert_eq(b->open(b->self, NULL, &c), 0);
    cr_assert_eq(b->submit(c.self, &op, 1), 1);
    clock_ns += INT64_C(10000000000);
    cr_assert_eq(b->poll(c.self, &op, 1), 1);
    b->close(c.self);
    cr_assert_eq(ol_emulated_destroy(b), 0);
    return op->service_ns;
}
Test(emulated, the_bluefields_are_as_their_source_says) {
    const ol_emulated_desc host = parsed("bluefield2-host"), nic = parsed("bluefield2-nic");
    cr_assert(host.setup_ns >= 360 && host.setup_ns <= 2800);
    cr_assert(nic.setup_ns >= 1000 && nic.setup_ns <= 11000);
    cr_assert_eq(computation(&host, 256), 4550);
    for (uint64_t bytes = 1; bytes <= 16 << 20; bytes *= 2) {
        const int64_t there = computation(&host, bytes), here = computation(&nic, bytes);
        cr_assert_eq(there - here, 2000);
        cr_assert(host.setup_ns < there && nic.setup_ns < here, "at %llu bytes", (unsigned long long)bytes);
        cr_assert_eq(there * 4 <= here * 5, bytes >= 8192, "at %llu bytes", (unsigned long long)bytes);
    }
    cr_assert_eq(live, 0);
}
Test(emulated, a_named_device_can_be_changed_by_further_words) {
    const ol_emulated_desc d = parsed("bluefield2-host engines=2 latency_ns=3000 jitter=0.1"), q = parsed("qat-like");
    cr_assert(d.engines == 2 && d.latency_ns == 3000 && d.jitter == 0.1 && d.setup_ns == 1000);
    cr_assert(q.engines > 1 && q.order == 1);
    for (uint64_t bytes = 64; bytes <= 1 << 20; bytes *= 4) {
        const ol_emulated_desc slow = parsed("slow"), host = parsed("bluefield2-host");
        cr_assert_gt(computation(&slow, bytes), 4 * computation(&host, bytes));
    }
}

/* With loops. */
static int dones;
static int64_t done_at[8];
static void on_done(ol_loop *l, ol_op *op) {
    (void)l;
    if (dones < 8) done_at[dones] = clock_ns;
    dones++;
    cr_assert(op->result == 7 || op->result == -ECANCELED, "%s", ol_op_error(op));
}
static ol_loop *loop_with_device(void) {
    ol_loop *l = NULL;
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.backends = &device, d.nbackends = 1, d.no_pool = 1;
    d.policy = "any any 0- async device wait";
    cr_assert_eq(ol_loop_create(&l, &d), 0, "%s", ol_error());
    return l;
}
Test(emulated, a_loop_sleeps_until_the_completion_not_longer) {
    const ol_emulated_desc d = parsed("engine_ns=123456");
    cr_assert_eq(ol_emulated_create(&device, &d), 0);
    ol_loop *l = loop_with_device();
    const int64_t now = clock_ns;
    cr_assert_eq(ol_submit(l, call_of(0), on_done), 0);
    for (int i = 0; i < 100 && !dones; i++) cr_assert_geq(ol_loop_step(l, -1), 0);
    cr_assert_eq(dones, 1);
    cr_assert_eq(done_at[0] - now, 123456);
    cr_assert_eq(ol_emulated_destroy(device), -EBUSY);
    cr_assert_eq(ol_loop_destroy(l), 0, "%s", ol_error());
    cr_assert_eq(ol_emulated_destroy(device), 0);
    cr_assert_eq(live, 0);
}
Test(emulated, two_loops_share_its_engines) {
    const ol_emulated_desc d = parsed("engine_ns=100000");
    const int fds = open_fds();
    cr_assert_eq(ol_emulated_create(&device, &d), 0);
    ol_loop *l[2] = {loop_with_device(), loop_with_device()};
    const int64_t now = clock_ns;
    for (int i = 0; i < 4; i++) cr_assert_eq(ol_submit(l[i % 2], call_of(0), on_done), 0);
    for (int i = 0; i < 4000 && dones < 4; i++) {
        cr_assert_geq(ol_loop_step(l[i % 2], 0), 0);
        clock_ns += US;
    }
    cr_assert_eq(dones, 4);
    for (int i = 0; i < 4; i++) {
        const int64_t due = now + (i + 1) * 100 * US;
        cr_assert(done_at[i] >= due && done_at[i] < due + 30 * US, "%lld", (long long)(done_at[i] - now));
    }
    for (int i = 0; i < 2; i++) cr_assert_eq(ol_loop_destroy(l[i]), 0, "%s", ol_error());
    cr_assert_eq(ol_emulated_destroy(device), 0);
    cr_assert_eq(live, 0);
    cr_assert_eq(open_fds(), fds);
}
Test(emulated, an_operation_that_waits_in_it_can_time_out) {
    const ol_emulated_desc d = parsed("engine_ns=1e6");
    cr_assert_eq(ol_emulated_create(&device, &d), 0);
    ol_loop *l = loop_with_device();
    cr_assert_eq(ol_submit(l, call_of(0), on_done), 0);
    ol_op *late = call_of(0);
    cr_assert_eq(ol_submit(l, late, on_done), 0);
    cr_assert_geq(ol_loop_step(l, 0), 0);
    cr_assert_eq(ol_op_cancel(l, late), 0);
    for (int i = 0; i < 100 && dones < 2; i++) cr_assert_geq(ol_loop_step(l, -1), 0);
    cr_assert_eq(late->result, -ECANCELED);
    cr_assert_eq(ran, 1);
    cr_assert_eq(ol_loop_destroy(l), 0, "%s", ol_error());
    cr_assert_eq(ol_emulated_destroy(device), 0);
}

/* In the child: what was in flight is cancelled, the engine is free, what waits for it moves up as ever, all can be
   destroyed. An exit status: 0 good. */
static int as_a_child(ol_loop *l) {
    alarm(10);
    for (int i = 0; i < 100 && dones < 3; i++) (void)ol_loop_step(l, 0);
    if (dones != 3 || ran) return 1;
    for (int i = 0; i < 3; i++)
        if (ops[i].result != -ECANCELED) return 2;
    const int64_t now = clock_ns;
    ol_op *own[3];
    for (int i = 0; i < 3; i++)
        if (ol_submit(l, own[i] = call_of(0), on_done) != 0) return 3;
    for (int i = 0; i < 100 && dones < 4; i++) (void)ol_loop_step(l, -1);
    if (own[0]->result != 7 || done_at[3] - now != 1000000) return 4;
    (void)ol_op_cancel(l, own[2]); /* the engine has begun own[1] */
    for (int i = 0; i < 100 && dones < 6; i++) (void)ol_loop_step(l, -1);
    if (own[1]->result != 7 || own[2]->result != -ECANCELED || done_at[5] - now != 2000000) return 6;
    if (ol_loop_destroy(l) != 0 || ol_emulated_destroy(device) != 0) return 7;
    return live ? 8 : 0;
}
Test(emulated, after_a_fork_it_is_idle_in_the_child_and_goes_on_in_the_parent) {
    const ol_emulated_desc d = parsed("engine_ns=1e6");
    int status = -1;
    cr_assert_eq(ol_emulated_create(&device, &d), 0);
    ol_loop *l = loop_with_device();
    const int64_t now = clock_ns;
    for (int i = 0; i < 3; i++) cr_assert_eq(ol_submit(l, call_of(0), on_done), 0);
    cr_assert_geq(ol_loop_step(l, 0), 0);
    clock_ns += 300000;
    const pid_t pid = fork();
    if (pid == 0) _exit(as_a_child(l));
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child: %#x", (unsigned)status);
    for (int i = 0; i < 100 && dones < 3; i++) cr_assert_geq(ol_loop_step(l, -1), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(ops[i].result, 7);
        cr_assert_eq(done_at[i] - now, 1000000 * (i + 1));
    }
    cr_assert_eq(ol_loop_destroy(l), 0, "%s", ol_error());
    cr_assert_eq(ol_emulated_destroy(device), 0);
    cr_assert_eq(live, 0);
}

Test(emulated, an_empty_output_has_no_bit_that_could_be_wrong) {
    static char packed[64], out[4];
    ol_exec *exec = ol_exec_create();
    ol_op op;
    const int64_t n = ol_op_exec(exec, ol_prep_deflate(&op, OL_RAW, packed, sizeof packed, "", 0));
    cr_assert_gt(n, 0);
    ol_exec_destroy(exec);
    begin("corrupts=1");
    cr_assert_eq(submit_to(0, ol_prep_inflate(&op, OL_RAW, out, sizeof out, packed, (uint64_t)n)), 1);
    cr_assert_eq(poll_of(0), &op);
    cr_assert_eq(op.result, 0);
    cr_assert_eq(out[0] | out[1] | out[2] | out[3], 0);
    end();
}
Test(emulated, other_backends_and_missing_arguments_are_refused) {
    ol_emulated_desc d = parsed("engines=2");
    ol_backend *pool;
    cr_assert_eq(ol_threads_create(&pool, NULL), 0);
    cr_assert_eq(ol_emulated_change(pool, &d), -EINVAL);
    cr_assert_eq(ol_emulated_change(NULL, &d), -EINVAL);
    cr_assert_eq(ol_emulated_destroy(pool), -EINVAL);
    cr_assert_eq(ol_emulated_destroy(NULL), -EINVAL);
    cr_assert_eq(ol_threads_destroy(pool), 0);
    cr_assert_eq(ol_emulated_create(NULL, &d), -EINVAL);
    begin("");
    cr_assert_eq(ol_threads_destroy(device), -EINVAL);
    cr_assert_eq(ol_emulated_change(device, NULL), -EINVAL);
    end();
    char err[4] = "abc";
    cr_assert_eq(ol_emulated_parse("engines=3", NULL, err, sizeof err), 0);
    cr_assert_eq(ol_emulated_parse("engines=0", NULL, err, 0), -EINVAL);
    cr_assert_str_eq(err, "abc");
}
