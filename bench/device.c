/* device: what an emulated accelerator would change, measured on a clock that sees the device's times instead of the
   software that stands in for it, and beside each figure the bound that no program could exceed.

   cc -O2 -I. bench/device.c -o build/bench/device -DOFFLOAD_ISAL -pthread -lisal -lm -ldl
   build/bench/device --help

   Figures go to build/bench/device.tsv (name, value and unit, with tabs between) and build/bench/device-report/;
   tools/device_report.py makes a report of them. All are the emulated device's. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "device_clock.h"

#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

#include "device_load.h"
#include "device_rivals.h"

/* A synchronous wait is to see its bound pass as it would, so it goes there in leaps. */
static int64_t clock_due(void) {
    enum { LEAP_NS = 2000 };
    const ol_loop *loop = cores[core_at].loop;
    int64_t due = loop && loop->heap_n && !loop->sync_op ? loop->heap[1].when : OL_NEVER;
    if (loop && loop->sync_op) due = clock_now() + LEAP_NS;
    for (uint32_t i = 1; loop && i < loop->lanes; i++) {
        const ol__lane *lane = &loop->lane[i];
        const int64_t next = lane->in_backend ? lane->backend->next_ns(lane->channel.self, loop->now) : -1;
        if (next >= 0 && next < due) due = next;
    }
    return due == OL_NEVER ? 0 : due;
}

/* ---- options, figures -------------------------------------------------------------------------------------------- */

enum { ROUNDS_MAX = 25, PATH = 1024 };
static struct {
    uint64_t ops; /* of each cell, all rounds together */
    int rounds, quick;
    const char *device, *only, *sizes;
    char output[PATH / 2];
} want = {20000, 5, 0, "bluefield2-host", NULL, "bench/sizes", "build/bench"};

static double began;            /* s */
static ol_emulated_desc preset; /* of want.device */
static FILE *out;

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static int by_time(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void row(double value, const char *unit, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void row(double value, const char *unit, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("device.", out);
    vfprintf(out, format, args);
    va_end(args);
    fprintf(out, "\t%.5g\t%s\n", value, unit);
}

/* The median of the rounds, with the least and the greatest. */
static double rows(const double *values, const char *unit, const char *name, const char *what) {
    double v[ROUNDS_MAX];
    memcpy(v, values, (size_t)want.rounds * sizeof *v);
    qsort(v, (size_t)want.rounds, sizeof *v, by_value);
    row(v[want.rounds / 2], unit, "%s.%s", name, what);
    row(v[0], unit, "%s.%s.min", name, what);
    row(v[want.rounds - 1], unit, "%s.%s.max", name, what);
    return v[want.rounds / 2];
}
static double rows_ratio(const double *values, const double *base, const char *name, const char *what) {
    double v[ROUNDS_MAX];
    for (int i = 0; i < want.rounds; i++) v[i] = values[i] / base[i];
    return rows(v, "x", name, what);
}

static int wanted(const char *part) {
    const size_t n = strlen(part);
    for (const char *p = want.only; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (strncmp(p, part, n) == 0 && (p[n] == ',' || !p[n])) return 1;
    return !want.only;
}
static void progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void progress(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "device: %5.1f s  ", (double)time_of(CLOCK_MONOTONIC) / 1e9 - began);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* ---- a device that is looked at only at intervals ---------------------------------------------------------------- */

/* The library would look whenever the device says that it is worth it, and in each round. */
static struct {
    ol_backend backend, *inner;
    int64_t interval;
} polled;
struct polled_channel {
    ol_channel inner;
    int64_t looked;
};
static int polled_open(void *self, ol_notify *notify, ol_channel *channel) {
    struct polled_channel *c = (struct polled_channel *)memory(sizeof *c);
    const int r = polled.inner->open(polled.inner->self, notify, &c->inner);
    (void)self;
    *channel = c->inner;
    channel->self = c;
    return r;
}
static int polled_submit(void *channel, ol_op *const *ops, int n) {
    return polled.inner->submit(((struct polled_channel *)channel)->inner.self, ops, n);
}
static int polled_look(void *channel) {
    struct polled_channel *c = (struct polled_channel *)channel;
    const int64_t now = clock_now();
    if (now - c->looked < polled.interval) return 0;
    const int there = polled.inner->look(c->inner.self);
    if (!there) c->looked = now;
    return there;
}
static int polled_poll(void *channel, ol_op **ops, int max) {
    struct polled_channel *c = (struct polled_channel *)channel;
    c->looked = clock_now();
    return polled.inner->poll(c->inner.self, ops, max);
}
static int64_t polled_next(void *channel, int64_t now) {
    (void)now;
    return ((struct polled_channel *)channel)->looked + polled.interval;
}
static void polled_close(void *channel) {
    polled.inner->close(((struct polled_channel *)channel)->inner.self);
    free(channel);
}
static ol_backend *polled_make(ol_backend *inner, int64_t interval) {
    polled.inner = inner;
    polled.interval = interval;
    memset(&polled.backend, 0, sizeof polled.backend);
    polled.backend.version = OL_BACKEND_VERSION;
    polled.backend.kinds = inner->kinds;
    polled.backend.name = inner->name;
    polled.backend.open = polled_open;
    polled.backend.submit = polled_submit;
    polled.backend.poll = polled_poll;
    polled.backend.look = polled_look;
    polled.backend.next_ns = polled_next;
    polled.backend.close = polled_close;
    return &polled.backend;
}

/* ---- one measurement --------------------------------------------------------------------------------------------- */

enum { MANY = 100 }; /* coroutines of a loop, as in the thesis */
enum { REQUESTS = CORES * MANY };
enum { COROUTINES, THREADS, USER_THREADS };

static const struct policy {
    const char *name, *text;
    int cls, who;
} policies[] = {
    {"software", "any any 0- software - -", OL_BATCH, COROUTINES},
    {"sync", "any any 0- sync device wait", OL_LATENCY, COROUTINES},
    {"custom-lc", "deflate any 0-256 software - -\ndeflate any 257- sync device wait", OL_LATENCY, COROUTINES},
    {"async", "any any 0- async device wait", OL_BATCH, COROUTINES},
    {"custom-batch", "deflate any 0- async device wait", OL_BATCH, COROUTINES},
    {"auto", "any any 0- auto device wait", OL_BATCH, COROUTINES},
    {"auto-lc", "any any 0- auto device wait", OL_LATENCY, COROUTINES},
    {"sliced", "any any 0- sliced - -", OL_BATCH, COROUTINES},
    {"threads", "", 0, THREADS},
    {"user-threads", "", 0, USER_THREADS},
};
enum { SOFTWARE, SYNC, CUSTOM_LC, ASYNC, CUSTOM_BATCH, AUTO, AUTO_LC, SLICED, BY_THREADS, BY_USER_THREADS, POLICIES };

struct cell { /* 0: the default, as in the library */
    const struct workload *w;
    const struct policy *policy;
    const ol_emulated_desc *device;
    int input, level; /* OL_LEVEL_1 where it is 0 */
    int many, loops;
    uint32_t dequeue;
    int64_t poll_ns;
    uint64_t ops, warm;
    uint32_t *took; /* room for `ops` times */
};
struct result {
    double ns;                         /* of an operation: the time between first and last, divided by their number */
    double engine, cycle, core, bound; /* ns of an operation: bounds, and the greatest of them */
    double own;                        /* ns of the loop for an operation: without set-up and application */
    double p50, p99;                   /* us */
    double offloaded;                  /* share */
    double modes[6];
};

static struct request *request; /* REQUESTS of them */
static struct tally tally;
static const struct cell *cell;
static ol_backend *device;
static double app_ns; /* the application's own time for a request */

static void requester(ol_co *co) {
    struct request *r = OL_SELF(co, struct request, co);
    OL_BEGIN(co);
    while (!r->tally->stop) {
        request_begin(r);
        OL_AWAIT(r->n, ol_run(co, &r->op));
        request_end(r);
        request_count(r);
    }
    OL_END(co);
}

static ol_loop *loop_make(const char *policy, uint32_t dequeue) {
    ol_loop *loop;
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.backends = &device;
    d.nbackends = 1;
    d.no_pool = 1;
    d.policy = policy;
    d.dequeue_batch = dequeue;
    must(ol_loop_create(&loop, &d) == 0, "ol_loop_create");
    return cores[core_at].loop = loop;
}
static void loop_end(void) {
    must(ol_loop_destroy(cores[core_at].loop) == 0, "ol_loop_destroy");
    cores[core_at].loop = NULL;
}

static void loop_run(int index) {
    ol_loop *loop = loop_make(cell->policy->text, cell->dequeue);
    for (int i = 0; i < cell->many; i++) {
        struct request *r = &request[index * cell->many + i];
        must(ol_spawn(loop, &r->co, requester, 0, cell->policy->cls) == 0, "ol_spawn");
    }
    must(ol_loop_run(loop) == 0, "ol_loop_run");
    loop_end();
}

static double max_of(double a, double b) { return a > b ? a : b; }

/* What the device and the cores permit, as time for an operation. All of it can overlap, so the greatest counts. */
static void bounds(struct result *r) {
    const ol_emulated_desc *d = cell->device;
    const uint32_t depth = d->depth ? d->depth : 128, reserve = d->reserve ? d->reserve : depth / 8;
    const uint32_t queue = cell->policy->cls == OL_BATCH ? depth - reserve : depth;
    const double slots = cell->loops * ((uint32_t)cell->many < queue ? (double)cell->many : (double)queue);
    const double set_up = (double)d->setup_ns + (double)d->burst_ns / 32;
    const double service = tally.engine_ns / (double)cell->ops;
    r->engine = service / (d->engines ? d->engines : 1);
    r->cycle = (set_up + service + (double)d->latency_ns) / slots;
    r->core = (set_up + app_ns) / cell->loops;
    r->bound = max_of(max_of(r->engine, r->cycle), r->core);
}

static void cell_finish(struct result *r) {
    const double n = (double)cell->ops;
    const double elapsed = (double)(tally.end - tally.begin);
    bounds(r);
    r->ns = elapsed / n;
    r->offloaded = (double)tally.offloaded / n;
    for (int i = 0; i < 6; i++) r->modes[i] = (double)tally.modes[i] / n;
    r->own = (elapsed - (double)(tally.end_idle - tally.begin_idle)) / n -
             r->offloaded * (double)cell->device->setup_ns - app_ns;
    qsort(cell->took, cell->ops, sizeof *cell->took, by_time);
    r->p50 = cell->took[cell->ops / 2] / 1e3;
    r->p99 = cell->took[cell->ops * 99 / 100] / 1e3;
}

static void tally_begin(void) {
    memset(&tally, 0, sizeof tally);
    tally.w = cell->w;
    tally.input = input[cell->input];
    tally.level = cell->level;
    tally.first = cell->warm;
    tally.last = cell->warm + cell->ops;
    tally.took = cell->took;
}

static struct result measure(struct cell c) {
    struct result r;
    memset(&r, 0, sizeof r);
    if (!c.level) c.level = OL_LEVEL_1;
    if (!c.many) c.many = MANY;
    if (!c.loops) c.loops = 1;
    /* the budgets of 100 coroutines are out of step */
    if (!c.warm) c.warm = c.ops / 10 + (want.quick ? 500 : 2000) * (uint64_t)c.loops;
    cell = &c;
    cores_reset();
    tally_begin();
    must(ol_emulated_create(&device, c.device) == 0, "ol_emulated_create");
    ol_backend *const real = device;
    if (c.poll_ns) device = polled_make(device, c.poll_ns);
    if (c.policy->who != COROUTINES) {
        rival_open(device);
        if (c.policy->who == THREADS) gang_run(request, c.many);
        else team_run(request, c.many);
        device->close(rival.channel.self);
    } else if (c.loops == 1) {
        loop_run(0);
    } else {
        cores_run(c.loops, loop_run);
    }
    must(ol_emulated_destroy(real) == 0, "ol_emulated_destroy");
    cell_finish(&r);
    return r;
}

/* The application's work of a request, without an operation: results are there from the last one. */
static double measure_app(const struct workload *w) {
    enum { N = 20000 };
    static uint32_t took[N];
    struct cell c;
    memset(&c, 0, sizeof c);
    c.w = w;
    c.took = took;
    c.ops = N - 1;
    c.warm = 1;
    cell = &c;
    cores_reset();
    tally_begin();
    tally.last = UINT32_MAX;
    const int64_t t = clock_now();
    for (int i = 1; i < N; i++) {
        struct request *r = &request[i % MANY];
        request_begin(r);
        r->n = 64;
        tally.first = 0;
        request_end(r);
    }
    return (double)(clock_now() - t) / (N - 1);
}

/* ---- the policies on each workload ------------------------------------------------------------------------------- */

static uint64_t round_ops(void) {
    return want.ops / (uint64_t)want.rounds > 100 ? want.ops / (uint64_t)want.rounds : 100;
}

static uint32_t *took[POLICIES]; /* of all rounds */
static struct result results[POLICIES][ROUNDS_MAX];

static struct cell cell_of(const struct workload *w, int policy, const ol_emulated_desc *d) {
    struct cell c;
    memset(&c, 0, sizeof c);
    c.w = w;
    c.policy = &policies[policy];
    c.device = d;
    c.ops = round_ops();
    c.took = took[policy];
    return c;
}

static const double *column(int policy, double (*get)(const struct result *)) { /* valid until two calls later */
    static double v[2][ROUNDS_MAX];
    static int which;
    which ^= 1;
    for (int i = 0; i < want.rounds; i++) v[which][i] = get(&results[policy][i]);
    return v[which];
}
static double get_ns(const struct result *r) { return r->ns; }
static double get_rate(const struct result *r) { return 1e9 / r->ns; }
static double get_over(const struct result *r) { return r->ns - r->bound; }
static double get_share(const struct result *r) { return r->bound / r->ns; }
static double get_own(const struct result *r) { return r->own; }
static double get_offloaded(const struct result *r) { return r->offloaded; }
static double get_p50(const struct result *r) { return r->p50; }
static double get_p99(const struct result *r) { return r->p99; }
static double get_engine(const struct result *r) { return r->engine; }
static double get_cycle(const struct result *r) { return r->cycle; }
static double get_core(const struct result *r) { return r->core; }
static double get_bound(const struct result *r) { return r->bound; }

static double middle(const double *values) {
    double v[ROUNDS_MAX];
    memcpy(v, values, (size_t)want.rounds * sizeof *v);
    qsort(v, (size_t)want.rounds, sizeof *v, by_value);
    return v[want.rounds / 2];
}

/* What every table has of a policy; `base`: the policy that ratios are relative to. */
static void put_results(const char *name, int policy, int base) {
    rows(column(policy, get_rate), "1/s", name, "per_s");
    rows_ratio(column(base, get_ns), column(policy, get_ns), name, "x_software");
    rows(column(policy, get_share), "x", name, "x_bound");
    rows(column(policy, get_over), "ns", name, "ns_over_bound");
    rows(column(policy, get_p50), "us", name, "p50_us");
    rows(column(policy, get_p99), "us", name, "p99_us");
}
static void put_bound(const char *name, int policy) {
    row(1e9 / middle(column(policy, get_bound)), "1/s", "%s.bound.per_s", name);
    row(middle(column(policy, get_engine)), "ns", "%s.bound.engine_ns", name);
    row(middle(column(policy, get_cycle)), "ns", "%s.bound.cycle_ns", name);
    row(middle(column(policy, get_core)), "ns", "%s.bound.core_ns", name);
    row(app_ns, "ns", "%s.bound.app_ns", name);
}

static void put_cdf(const char *set, int policy) {
    enum { POINTS = 200 };
    char path[PATH];
    const uint64_t n = round_ops() * (uint64_t)want.rounds;
    snprintf(path, sizeof path, "%s/device-report/cdf-%s-%s.tsv", want.output, set, policies[policy].name);
    FILE *f = fopen(path, "w");
    if (!f) fail("%s: %s", path, strerror(errno));
    qsort(took[policy], n, sizeof *took[policy], by_time);
    for (uint64_t i = 0; i <= POINTS; i++)
        fprintf(f, "%.3f\t%.4g\n", took[policy][i * (n - 1) / POINTS] / 1e3, (double)i / (double)POINTS);
    fclose(f);
}

static void set_name(char *name, size_t room, int w, int in) {
    snprintf(name, room, "%s%s", workload_names[w], in == NUMBERS ? "-numbers" : "");
}

static int brief(int w) { return want.quick && w != CACHE1 && w != KB8; } /* left out in the quick form */
static int skipped(int policy) { return policy == BY_USER_THREADS && !fibers_found(); }

static void policies_of(int w, int in) {
    char set[64], name[128];
    double app[ROUNDS_MAX];
    set_name(set, sizeof set, w, in);
    progress("policies: %s", set);
    for (int i = 0; i < want.rounds; i++) {
        workload_draw(&workload[w], round_ops(), (uint64_t)i + 1);
        workload_price(&workload[w], &preset);
        app_ns = app[i] = measure_app(&workload[w]);
        for (int p = 0; p < POLICIES; p++) {
            struct cell c = cell_of(&workload[w], p, &preset);
            c.input = in;
            c.took += (uint64_t)i * c.ops;
            if (!skipped(p)) results[p][i] = measure(c);
        }
    }
    app_ns = middle(app);
    put_bound(set, ASYNC);
    row(workload_bytes(&workload[w]), "B", "%s.mean_bytes", set);
    for (int p = 0; p < POLICIES; p++) {
        if (skipped(p)) continue;
        snprintf(name, sizeof name, "%s.%s", set, policies[p].name);
        put_results(name, p, SOFTWARE);
        rows(column(p, get_offloaded), "share", name, "offloaded");
        rows(column(p, get_own), "ns", name, "own_ns");
        put_cdf(set, p);
    }
}

static void part_policies(void) {
    for (int in = 0; in < INPUTS; in++)
        for (int w = 0; w < WORKLOADS; w++)
            if (in == HTML || (w != SMALL && !want.quick)) policies_of(w, in);
}

/* ---- some policies under other conditions ------------------------------------------------------------------------ */

/* Rounds of the policies in `list`, which ends with -1; the cells are like `like`. */
static void compare(struct cell like, const int *list, const ol_emulated_desc *priced, uint64_t salt) {
    struct workload *w = &workload[like.w - workload];
    for (int i = 0; i < want.rounds; i++) {
        workload_draw(w, like.ops, salt + (uint64_t)i + 1);
        workload_price(w, priced);
        app_ns = measure_app(w);
        for (const int *p = list; *p >= 0; p++) {
            struct cell c = like;
            c.policy = &policies[*p];
            c.took = took[*p];
            results[*p][i] = measure(c);
        }
    }
}
static void put_list(const char *name, const int *list, int base) {
    char whole[160];
    put_bound(name, list[0] == base ? list[1] : list[0]);
    for (const int *p = list; *p >= 0; p++) {
        snprintf(whole, sizeof whole, "%s.%s", name, policies[*p].name);
        put_results(whole, *p, base);
        row(middle(column(*p, get_offloaded)), "share", "%s.offloaded", whole);
    }
}

/* One request at a time: who is alone has nobody to wait for. */
static void part_alone(void) {
    static const int list[] = {SOFTWARE, SYNC, CUSTOM_LC, ASYNC, AUTO_LC, -1};
    for (int w = 0; w < WORKLOADS; w++) {
        char name[64];
        struct cell c = cell_of(&workload[w], ASYNC, &preset);
        if (brief(w)) continue;
        progress("one request at a time: %s", workload[w].name);
        c.many = 1;
        compare(c, list, &preset, 100);
        snprintf(name, sizeof name, "alone.%s", workload[w].name);
        put_list(name, list, SOFTWARE);
    }
}

/* Software as slow as in the thesis. The codec's time is charged so many times that software's rate is the thesis's. */
static void part_thesis(void) {
    static const int list[] = {SOFTWARE, SYNC, CUSTOM_LC, ASYNC, AUTO, -1}, software[] = {SOFTWARE, -1};
    static const struct {
        int w;
        double per_s;
    } speed[] = {{CACHE1, 143700}, {FEED1, 68600}};
    for (int k = 0; k < 2; k++) {
        char name[64];
        const struct workload *w = &workload[speed[k].w];
        struct cell c = cell_of(w, SOFTWARE, &preset);
        progress("software at the thesis's speed: %s", w->name);
        snprintf(name, sizeof name, "thesis.%s", w->name);
        slow_down = 1 + 1e-9;            /* only to be counted */
        for (int k2 = 0; k2 < 3; k2++) { /* from one estimate to a better one */
            codec_ns = codec_calls = 0;
            compare(c, software, &preset, 200);
            slow_down *=
                1 + (1e9 / speed[k].per_s - middle(column(SOFTWARE, get_ns))) / (slow_down * codec_ns / codec_calls);
            if (slow_down < 1) slow_down = 1 + 1e-9; /* this machine is slower */
        }
        row(slow_down, "x", "%s.factor", name);
        row(speed[k].per_s, "1/s", "%s.published_per_s", name);
        compare(c, list, &preset, 200);
        put_list(name, list, SOFTWARE);
        slow_down = 1;
    }
}

/* There are many of them: a third of the operations. */
static struct cell short_cell(const struct workload *w, const ol_emulated_desc *d) {
    struct cell c = cell_of(w, ASYNC, d);
    c.ops = c.ops / 3 > 100 ? c.ops / 3 : 100;
    return c;
}

/* Each parameter of the device a quarter lower and higher; and how much of the fixed time occupies its engine. */
static void parameters_of(const char *what, const ol_emulated_desc *d) {
    static const int list[] = {SOFTWARE, SYNC, ASYNC, AUTO, -1};
    for (int w = 0; w < WORKLOADS; w++) {
        char name[96];
        if (brief(w)) continue;
        compare(short_cell(&workload[w], d), list, d, 300);
        snprintf(name, sizeof name, "parameters.%s.%s", what, workload[w].name);
        put_list(name, list, SOFTWARE);
    }
}
static void part_parameters(void) {
    static const char *const names[] = {"setup_ns", "latency_ns", "engine_ns", "bytes_per_s"};
    ol_emulated_desc d;
    char what[64];
    for (int k = 0; k < 4; k++)
        for (int sign = -1; sign <= 1; sign += 2) {
            const double f = 1 + sign * 0.25;
            d = preset;
            if (k == 0) d.setup_ns = (int64_t)((double)d.setup_ns * f);
            if (k == 1) d.latency_ns = (int64_t)((double)d.latency_ns * f);
            if (k == 2) d.engine_ns = (int64_t)((double)d.engine_ns * f);
            if (k == 3) d.bytes_per_s *= f;
            snprintf(what, sizeof what, "%s%+d%%", names[k], sign * 25);
            progress("parameters: %s", what);
            parameters_of(what, &d);
        }
    for (int k = 0; k < 2; k++) { /* the same time for an operation that is alone, and other rates */
        d = preset;
        const int64_t move = k ? d.engine_ns : -d.engine_ns;
        d.engine_ns += move;
        d.latency_ns -= move;
        progress("parameters: %s of the fixed time on the engine", k ? "more" : "nothing");
        parameters_of(k ? "engine_ns-double" : "engine_ns-none", &d);
    }
}

static void part_devices(void) {
    static const char *const names[] = {"bluefield2-host", "bluefield2-nic", "qat-like", "slow"};
    static const int list[] = {SOFTWARE, SYNC, ASYNC, AUTO, -1};
    for (int k = 0; k < 4; k++)
        for (int w = 0; w < WORKLOADS; w++) {
            ol_emulated_desc d;
            char name[96];
            must(ol_emulated_parse(names[k], &d, NULL, 0) == 0, "ol_emulated_parse");
            if (!w) progress("devices: %s", names[k]);
            if (brief(w)) continue;
            compare(short_cell(&workload[w], &d), list, &d, 400);
            snprintf(name, sizeof name, "devices.%s.%s", names[k], workload[w].name);
            put_list(name, list, SOFTWARE);
        }
}

/* The level that the library would take by itself: static tables up to 8 KB, which cost a fraction of level 1. */
static void part_level(void) {
    static const int list[] = {SOFTWARE, SYNC, ASYNC, AUTO, -1};
    for (int w = 0; w < WORKLOADS; w++) {
        char name[64];
        struct cell c = cell_of(&workload[w], ASYNC, &preset);
        if (brief(w)) continue;
        progress("static tables: %s", workload[w].name);
        c.level = OL_LEVEL_STATIC;
        compare(c, list, &preset, 500);
        snprintf(name, sizeof name, "static.%s", workload[w].name);
        put_list(name, list, SOFTWARE);
    }
}

/* Rounds over settings of one thing; figures relative to the last setting. */
enum { SETTINGS = 8 };
static void sweep(const char *part, const char *const *names, int n, struct cell (*make)(int), uint64_t salt) {
    static double v[SETTINGS][ROUNDS_MAX], over[SETTINGS][ROUNDS_MAX], share[SETTINGS][ROUNDS_MAX];
    static double p50[SETTINGS][ROUNDS_MAX], p99[SETTINGS][ROUNDS_MAX];
    progress("%s", part);
    for (int i = 0; i < want.rounds; i++)
        for (int k = 0; k < n; k++) {
            struct cell c = make(k);
            workload_draw(&workload[c.w - workload], round_ops(), salt + (uint64_t)i + 1);
            workload_price(&workload[c.w - workload], c.device);
            if (!k) app_ns = measure_app(c.w);
            const struct result r = measure(c);
            v[k][i] = r.ns;
            over[k][i] = r.ns - r.bound;
            share[k][i] = r.bound / r.ns;
            p50[k][i] = r.p50;
            p99[k][i] = r.p99;
        }
    for (int k = 0; k < n; k++) {
        char name[96];
        double rate[ROUNDS_MAX];
        for (int i = 0; i < want.rounds; i++) rate[i] = 1e9 / v[k][i];
        snprintf(name, sizeof name, "%s.%s", part, names[k]);
        rows(rate, "1/s", name, "per_s");
        rows_ratio(v[0], v[k], name, "x_first");
        rows(share[k], "x", name, "x_bound");
        rows(over[k], "ns", name, "ns_over_bound");
        rows(p50[k], "us", name, "p50_us");
        rows(p99[k], "us", name, "p99_us");
    }
}

static ol_emulated_desc swept; /* the device of these */
static struct cell polling_cell(int k) {
    static const int64_t ns[] = {50, 100, 250, 500, 1000, 2500, 5000, 10000};
    struct cell c = cell_of(&workload[CACHE1], ASYNC, &swept);
    c.poll_ns = ns[k];
    return c;
}
static struct cell dequeue_cell(int k) {
    struct cell c = cell_of(&workload[CACHE1], ASYNC, &swept);
    c.poll_ns = 1000;
    c.dequeue = 1u << k;
    return c;
}
static struct cell depth_cell(int k) {
    static ol_emulated_desc d;
    struct cell c = cell_of(&workload[CACHE1], ASYNC, &d);
    d = preset;
    d.depth = 1u << k;
    d.reserve = 0;
    return c;
}
static struct cell loops_cell(int k) {
    struct cell c = cell_of(&workload[CACHE1], ASYNC, &swept);
    c.loops = 1 << k;
    c.ops *= (uint64_t)(c.loops < want.rounds ? c.loops : want.rounds); /* no more than there is room for */
    return c;
}
static void part_sweeps(void) {
    static const char *const polling[] = {"50ns", "100ns", "250ns", "500ns", "1000ns", "2500ns", "5000ns", "10000ns"};
    static const char *const powers[] = {"1", "2", "4", "8", "16", "32", "64", "128"};
    if (wanted("depth")) sweep("depth", powers, 8, depth_cell, 800);
    for (int k = 0; k < 2; k++) { /* the second one is faster than a loop */
        char part[32];
        const char *const name = k ? "qat-like" : "device";
        swept = preset;
        if (k) must(ol_emulated_parse(name, &swept, NULL, 0) == 0, "ol_emulated_parse");
        snprintf(part, sizeof part, "polling.%s", name);
        if (wanted("polling")) sweep(part, polling, 8, polling_cell, 600);
        snprintf(part, sizeof part, "dequeue.%s", name);
        if (wanted("dequeue")) sweep(part, powers, 6, dequeue_cell, 700);
        snprintf(part, sizeof part, "loops.%s", name);
        if (wanted("loops")) sweep(part, powers, 4, loops_cell, 900);
    }
}

#include "device_mixed.h"

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static const struct part {
    const char *name, *what;
    void (*run)(void);
} parts[] = {
    {"policies", "every policy on every workload, both kinds of input", part_policies},
    {"alone", "one request at a time", part_alone},
    {"thesis", "software slowed down to the thesis's speed", part_thesis},
    {"parameters", "each of the device's parameters a quarter lower and higher", part_parameters},
    {"devices", "the other emulated devices", part_devices},
    {"level", "software with static tables instead of level 1", part_level},
    {"polling", "polling intervals of 0.05 to 10 us", part_sweeps},
    {"dequeue", "dequeue batches of 1 to 32", NULL},
    {"depth", "queue depths of 1 to 128", NULL},
    {"loops", "1, 2, 4, 8 loops, each on a simulated core, with one device", NULL},
    {"mixed", "latency-critical and batch requests in one program", part_mixed},
    {"decision", "what auto's decision costs", part_decision},
};
enum { PARTS = sizeof parts / sizeof *parts };

static int usage(FILE *to, int status) {
    fputs("usage: device [OPTION]...\n"
          "Measures what an emulated accelerator would change, on a clock that sees the device's times, beside the "
          "bounds.\n"
          "Writes device.tsv and the folder device-report/; tools/device_report.py makes a report of them.\n"
          "  --ops N        operations of each cell, 500 to 10,000,000, over all rounds [20000], a third of that\n"
          "                 with each of the other devices; the thesis had 10,000\n"
          "  --rounds N     interleaved rounds, 3 to 25 [5]\n"
          "  --quick        900 operations in 3 rounds, and not of everything: for a look, not for figures\n"
          "  --device TEXT  as for ol_emulated_parse [bluefield2-host]\n"
          "  --sizes DIR    tables of sizes [bench/sizes]\n"
          "  --output DIR   where the files go [build/bench]\n"
          "  --only LIST    of these parts, with commas between:\n",
          to);
    for (int i = 0; i < PARTS; i++) fprintf(to, "      %-12s %s\n", parts[i].name, parts[i].what);
    return status;
}

static int is_part(const char *name, size_t n) {
    for (int i = 0; i < PARTS; i++)
        if (strlen(parts[i].name) == n && strncmp(parts[i].name, name, n) == 0) return 1;
    return 0;
}
static int64_t option_number(const char *option, const char *text, int64_t least, int64_t most) {
    char *end;
    const long long v = strtoll(text, &end, 10);
    if (*end || v < least || v > most)
        fail("--%s takes a number from %lld to %lld, not '%s'; see device --help", option, (long long)least,
             (long long)most, text);
    return v;
}

static int options(int argc, char **argv) {
    static const struct option known[] = {{"ops", 1, NULL, 'n'},    {"rounds", 1, NULL, 'r'}, {"quick", 0, NULL, 'q'},
                                          {"device", 1, NULL, 'd'}, {"sizes", 1, NULL, 's'},  {"output", 1, NULL, 'o'},
                                          {"only", 1, NULL, 'p'},   {"help", 0, NULL, 'h'},   {NULL, 0, NULL, 0}};
    char err[256];
    for (int o; (o = getopt_long(argc, argv, "h", known, NULL)) != -1;) {
        if (o == 'h') return usage(stdout, 0);
        if (o == 'n') want.ops = (uint64_t)option_number("ops", optarg, 500, 10000000);
        else if (o == 'r') want.rounds = (int)option_number("rounds", optarg, 3, ROUNDS_MAX);
        else if (o == 'q') want.quick = 1, want.ops = 900, want.rounds = 3;
        else if (o == 'd') want.device = optarg;
        else if (o == 's') want.sizes = optarg;
        else if (o == 'o' && strlen(optarg) < sizeof want.output) strcpy(want.output, optarg);
        else if (o == 'p') want.only = optarg;
        else return usage(stderr, 2);
    }
    if (optind < argc) fail("'%s' is no option; see device --help", argv[optind]);
    for (const char *p = want.only; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!is_part(p, strcspn(p, ",")))
            fail("--only: there is no part '%.*s'; see device --help", (int)strcspn(p, ","), p);
    if (ol_emulated_parse(want.device, &preset, err, sizeof err) < 0) fail("--device %s: %s", want.device, err);
    if (preset.faults > 0 || preset.corrupts > 0 || preset.hangs > 0)
        fail("--device: leave out faults, corrupts and hangs");
    if (!(preset.kinds == 0 || preset.kinds >> OL_OP_DEFLATE & 1)) fail("--device: kinds must have deflate");
    memcpy(preset.name, "device", 7); /* as the policies name it */
    return -1;
}

static void make_folder(const char *path) {
    char part[PATH];
    for (const char *p = path; *p; p++) {
        const size_t n = (size_t)(p - path) + 1;
        if (p[1] && p[1] != '/') continue;
        memcpy(part, path, n);
        part[n] = 0;
        struct stat st;
        if (mkdir(part, 0777) == 0 || (stat(part, &st) == 0 && S_ISDIR(st.st_mode))) continue;
        fail("--output: can't make the folder %s", part);
    }
}

static void take_cpu(void) {
    cpu_set_t all, one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof all, &all) != 0) return;
    size_t i = 0;
    while (i < CPU_SETSIZE && !CPU_ISSET(i, &all)) i++;
    CPU_SET(i, &one);
    (void)sched_setaffinity(0, sizeof one, &one); /* all threads of the baseline, too */
}

static void prepare(void) {
    clock_init();
    inputs_make();
    for (int i = 0; i < WORKLOADS; i++) {
        workload[i].name = workload_names[i];
        workload_read(&workload[i], want.sizes);
    }
    request = (struct request *)memory(REQUESTS * sizeof *request);
    unsigned char *p = (unsigned char *)memory((size_t)REQUESTS * OUT);
    memset(p, 1, (size_t)MANY * OUT); /* no page faults while the clock goes */
    for (int i = 0; i < REQUESTS; i++) {
        request[i].tally = &tally;
        request[i].out = p + (size_t)i * OUT;
        if (i >= MANY) memset(request[i].out, 1, 16384);
    }
    for (int i = 0; i < POLICIES; i++)
        took[i] = (uint32_t *)memory(round_ops() * (uint64_t)want.rounds * sizeof **took);
}

static void put_conditions(void) {
    row((double)want.ops, "operations", "conditions.ops");
    row(want.rounds, "rounds", "conditions.rounds");
    row((double)preset.setup_ns, "ns", "conditions.setup_ns");
    row((double)preset.burst_ns, "ns", "conditions.burst_ns");
    row((double)preset.latency_ns, "ns", "conditions.latency_ns");
    row((double)preset.engine_ns, "ns", "conditions.engine_ns");
    row(preset.bytes_per_s, "B/s", "conditions.bytes_per_s");
    row(preset.engines ? preset.engines : 1, "engines", "conditions.engines");
    row(preset.depth ? preset.depth : 128, "operations", "conditions.depth");
}

int main(int argc, char **argv) {
    char path[PATH], done[PATH];
    const int status = options(argc, argv);
    if (status >= 0) return status;
    began = (double)time_of(CLOCK_MONOTONIC) / 1e9;
    snprintf(path, sizeof path, "%s/device-report", want.output);
    make_folder(path);
    snprintf(path, sizeof path, "%s/device.tsv.part", want.output);
    snprintf(done, sizeof done, "%s/device.tsv", want.output);
    if (!(out = fopen(path, "w"))) fail("%s: %s", path, strerror(errno));
    take_cpu();
    prepare();
    fprintf(out,
            "# offload.h %d.%d.%d: emulated device \"%s\", software ISA-L level 1; medians of %d interleaved rounds, "
            "with .min and .max\n",
            OL_VERSION_MAJOR, OL_VERSION_MINOR, OL_VERSION_PATCH, want.device, want.rounds);
    put_conditions();
    if (!fibers_found())
        progress("no user threads: Boost.Context is missing (Debian: apt-get install libboost-context-dev)");
    for (int i = 0; i < PARTS; i++)
        if (parts[i].run && (wanted(parts[i].name) || parts[i].run == part_sweeps)) parts[i].run();
    row((double)checked, "results", "checked");
    row((double)wrong, "results", "wrong");
    row((double)time_of(CLOCK_MONOTONIC) / 1e9 - began, "s", "conditions.seconds");
    row((double)ck.lost / 1e9, "s", "conditions.lost_s");
    row((double)ck.lost_n, "times", "conditions.lost_times");
    if (fclose(out) != 0 || rename(path, done) != 0) fail("%s: %s", done, strerror(errno));
    progress("done: %llu results checked, %llu wrong; other programs had this core for %.1f s",
             (unsigned long long)checked, (unsigned long long)wrong, (double)ck.lost / 1e9);
    if (wrong) fail("results were wrong: %llu", (unsigned long long)wrong);
    return 0;
}
