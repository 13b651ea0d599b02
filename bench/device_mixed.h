/* Latency-critical and batch requests in one program, and what a decision costs. Included by device.c alone. */
#ifndef DEVICE_MIXED_H
#define DEVICE_MIXED_H

/* ---- the mixed program ------------------------------------------------------------------------------------------- */

/* Latency-critical requests come at random times, whatever is going on, and are measured from the moment at which they
   should have begun. Batch requests come the same way, or, to saturate the device, from coroutines that always have one
   under way. */
enum { POOL = 1024 }; /* requests of each class at a time */
enum { LOADS = 8, HALF = 4 };
static const double loads[LOADS] = {0, 0.1, 0.25, 0.4, 0.5, 0.75, 0.9, 2}; /* of the device, by batch; 2: saturated */
static const char *const load_names[LOADS] = {"0", "10", "25", "40", "50", "75", "90", "saturated"};
static int left_out(int load) { return want.quick && load && load != HALF && load != LOADS - 1; }
static const double latency_load = 0.05; /* of the device, if all of them went there */

static const struct mix_policy {
    const char *name, *text;
} mix_policies[] = {
    {"auto", "any any 0- auto device wait"},
    {"thesis", "deflate latency 0-256 software - -\ndeflate latency 257- sync device software\n"
               "deflate batch 0- async device wait"},
    {"async", "any any 0- async device wait"},
    {"sync", "any any 0- sync device wait"},
    {"software", "any any 0- software - -"},
    {"reserved", "deflate latency 0- software - -\ndeflate batch 0- async device wait"},
};
enum { MIX_POLICIES = sizeof mix_policies / sizeof *mix_policies };

struct stream { /* requests of one class */
    const struct workload *w;
    struct mixed_request *free;
    ol_timer timer;
    struct dice dice;
    double next, each; /* ns */
    int cls;
    uint64_t at, begun, done, refused; /* measured: done */
    double engine_ns, offloaded_ns;    /* of those done, as the device would have; of these, what it did */
};
struct mixed_request {
    struct request r; /* first */
    struct stream *stream;
    struct mixed_request *next;
    int64_t due;
    int keep; /* it begins again at once */
};
struct mixed_result {
    double p50, p99; /* us */
    double batch_per_s, latency_per_s;
    double batch_share;  /* engine time of batch requests that were done, by the device or not, of the time */
    double device_share; /* engine time that was used */
    double latency_used; /* ... of that, by latency-critical requests */
    double refused;
};

static struct {
    struct stream latency, batch;
    uint32_t *took;
    uint64_t warm, want;
    int64_t begin;
    int measuring, stop;
    struct tally tally; /* for request_begin; unused otherwise */
} mix;
static struct mixed_request *mixed_pool; /* twice POOL */

static void mixed_done(struct mixed_request *m) {
    struct stream *s = m->stream;
    const int64_t now = clock_now();
    if (m->r.n <= 0) fail("an operation failed: %s", ol_op_error(&m->r.op));
    mix.tally.sum += crc32_gzip_refl(0, m->r.out, m->r.n < 64 ? (uint64_t)m->r.n : 64) + m->r.head[0];
    if (++s->begun % CHECK_EACH == 0) request_check(&m->r);
    if (mix.measuring) {
        if (s == &mix.latency && s->done < mix.want) mix.took[s->done] = (uint32_t)(now - m->due);
        s->done++;
        s->engine_ns += m->r.item->engine_ns;
        if (m->r.op.where) s->offloaded_ns += m->r.item->engine_ns;
        if (mix.latency.done == mix.want) {
            mix.stop = 1;
            mix.measuring = 0;
            mix.took[mix.want] = 0;
            mix.begin = now - mix.begin; /* now the duration */
        }
    } else if (mix.latency.begun == mix.warm && s == &mix.latency) {
        mix.measuring = 1;
        mix.begin = now;
    }
}
static void mixed_prep(struct mixed_request *m) {
    mix.tally.w = m->stream->w;
    mix.tally.next = m->stream->at++;
    request_begin(&m->r);
}
static void mixed_run(ol_co *co) {
    struct mixed_request *m = OL_SELF(co, struct mixed_request, r.co);
    OL_BEGIN(co);
    do {
        mixed_prep(m);
        OL_AWAIT(m->r.n, ol_run(co, &m->r.op));
        mixed_done(m);
    } while (m->keep && !mix.stop);
    m->next = m->stream->free;
    m->stream->free = m;
    OL_END(co);
}
static void mixed_spawn(ol_loop *loop, struct stream *s, int64_t due, int keep) {
    struct mixed_request *m = s->free;
    if (!m) {
        s->refused++;
        return;
    }
    s->free = m->next;
    m->due = due;
    m->keep = keep;
    must(ol_spawn(loop, &m->r.co, mixed_run, 0, s->cls) == 0, "ol_spawn");
}
static void mixed_arrive(ol_loop *loop, ol_timer *timer) {
    struct stream *s = OL_CONTAINER(timer, struct stream, timer);
    int64_t now = clock_now();
    if (mix.stop) return;
    for (; s->next <= (double)now; s->next -= s->each * log(draw_share(&s->dice)))
        mixed_spawn(loop, s, (int64_t)s->next, 0);
    must(ol_timer_start(loop, timer, (int64_t)s->next - now + 1, mixed_arrive) == 0, "ol_timer_start");
}
static void stream_begin(ol_loop *loop, struct stream *s, const struct workload *w, int cls, double load,
                         uint64_t seed) {
    double engine = 0;
    struct mixed_request *pool = mixed_pool + (cls == OL_BATCH ? POOL : 0);
    memset(s, 0, sizeof *s);
    s->w = w;
    s->cls = cls;
    s->dice.state = seed;
    for (int i = POOL; i-- > 0;) {
        pool[i].stream = s;
        pool[i].next = s->free;
        s->free = &pool[i];
    }
    for (uint32_t i = 0; i < w->items; i++) engine += w->item[i].engine_ns / w->items;
    if (load > 1)
        for (int i = 0; i < MANY; i++) mixed_spawn(loop, s, 0, 1);
    else if (load > 0) {
        s->each = engine / (preset.engines ? preset.engines : 1) / load;
        s->next = (double)clock_now();
        mixed_arrive(loop, &s->timer);
    }
}

static struct mixed_result mixed_measure(const char *policy, double latency, double batch, uint64_t n, uint32_t *times,
                                         uint64_t seed) {
    struct mixed_result r;
    cores_reset();
    memset(&r, 0, sizeof r);
    memset(&mix, 0, sizeof mix);
    mix.tally.input = input[HTML];
    mix.tally.level = OL_LEVEL_1;
    mix.took = times;
    mix.want = n;
    mix.warm = n / 10 + (n < 1000 ? 5 : 500); /* time for auto to learn */
    must(ol_emulated_create(&device, &preset) == 0, "ol_emulated_create");
    ol_loop *loop = loop_make(policy, 0);
    stream_begin(loop, &mix.batch, &workload[SNAPPY], OL_BATCH, batch, 2 * seed + 1);
    stream_begin(loop, &mix.latency, &workload[CACHE1], OL_LATENCY, latency, 2 * seed);
    must(ol_loop_run(loop) == 0, "ol_loop_run");
    loop_end();
    must(ol_emulated_destroy(device) == 0, "ol_emulated_destroy");
    const double ns = (double)mix.begin, engines = preset.engines ? preset.engines : 1;
    qsort(times, n, sizeof *times, by_time);
    r.p50 = times[n / 2] / 1e3;
    r.p99 = times[n * 99 / 100] / 1e3;
    r.batch_per_s = (double)mix.batch.done * 1e9 / ns;
    r.latency_per_s = (double)mix.latency.done * 1e9 / ns;
    r.batch_share = mix.batch.engine_ns / ns / engines;
    r.latency_used = mix.latency.offloaded_ns / ns / engines;
    r.device_share = r.latency_used + mix.batch.offloaded_ns / ns / engines;
    r.refused = (double)(mix.latency.refused + mix.batch.refused);
    return r;
}

static void mixed_rows(const struct mixed_result *r, const char *policy, const char *load) {
    double v[7][ROUNDS_MAX];
    static const char *const what[] = {"latency_p50_us", "latency_p99_us", "batch_per_s", "batch_share",
                                       "device_share",   "latency_used",   "refused"};
    static const char *const unit[] = {"us", "us", "1/s", "share", "share", "share", "requests"};
    char name[96];
    snprintf(name, sizeof name, "mixed.%s.%s", policy, load);
    for (int i = 0; i < want.rounds; i++) {
        v[0][i] = r[i].p50;
        v[1][i] = r[i].p99;
        v[2][i] = r[i].batch_per_s;
        v[3][i] = r[i].batch_share;
        v[4][i] = r[i].device_share;
        v[5][i] = r[i].latency_used;
        v[6][i] = r[i].refused;
    }
    for (int k = 0; k < 7; k++) rows(v[k], unit[k], name, what[k]);
}

static void mixed_prepare(void) {
    mixed_pool = (struct mixed_request *)memory(2 * POOL * sizeof *mixed_pool);
    unsigned char *p = (unsigned char *)memory((size_t)2 * POOL * OUT); /* the pages that are used are few */
    for (int i = 0; i < 2 * POOL; i++) {
        mixed_pool[i].r.tally = &mix.tally;
        mixed_pool[i].r.out = p + (size_t)i * OUT;
    }
}

static void part_mixed(void) {
    static struct mixed_result r[MIX_POLICIES][LOADS][ROUNDS_MAX], alone[ROUNDS_MAX];
    const uint64_t n = round_ops() < 1000 ? 1000 : round_ops();
    uint32_t *times = (uint32_t *)memory((n + 1) * sizeof *times);
    mixed_prepare();
    double batch_engine = 0;
    for (int i = 0; i < want.rounds; i++) {
        progress("mixed program, round %d of %d", i + 1, want.rounds);
        workload_draw(&workload[CACHE1], ITEMS, 1000 + (uint64_t)i);
        workload_draw(&workload[SNAPPY], n, 1100 + (uint64_t)i);
        workload_price(&workload[CACHE1], &preset);
        workload_price(&workload[SNAPPY], &preset);
        for (int k = 0; k < LOADS; k++)
            for (int p = 0; p < MIX_POLICIES && !left_out(k); p++)
                r[p][k][i] = mixed_measure(mix_policies[p].text, latency_load, loads[k], n, times, (uint64_t)i + 1);
        /* batch alone: with so few others that they don't matter, to time it by */
        alone[i] = mixed_measure(mix_policies[0].text, latency_load / 50, 2, n / 50, times, (uint64_t)i + 1);
    }
    for (uint32_t i = 0; i < workload[SNAPPY].items; i++)
        batch_engine += workload[SNAPPY].item[i].engine_ns / workload[SNAPPY].items;
    row((batch_engine + (double)preset.latency_ns) / 1e3, "us", "mixed.batch_service_us");
    row(latency_load, "share", "mixed.latency_load");
    for (int p = 0; p < MIX_POLICIES; p++)
        for (int k = 0; k < LOADS; k++)
            if (!left_out(k)) mixed_rows(r[p][k], mix_policies[p].name, load_names[k]);
    mixed_rows(alone, "auto", "batch-alone");
    for (int k = HALF; k < LOADS; k += LOADS - 1 - HALF) {
        double p99[ROUNDS_MAX], batch[ROUNDS_MAX];
        char name[64];
        for (int i = 0; i < want.rounds; i++) {
            p99[i] = r[0][k][i].p99 / r[0][0][i].p99;
            batch[i] = r[0][k][i].batch_per_s / alone[i].batch_per_s;
        }
        snprintf(name, sizeof name, "mixed%s%s", k == HALF ? "" : ".", k == HALF ? "" : load_names[k]);
        rows(p99, "x", name, "latency_p99_x_alone");
        if (k != HALF) rows(batch, "x", "mixed", "batch_x_alone");
    }
    free(times);
}

/* ---- what a decision costs --------------------------------------------------------------------------------------- */

static int64_t call_nothing(void *arg) { return *(int *)arg; }
struct caller {
    ol_co co;
    ol_op op;
    int64_t n, left, begin;
    int value;
};
static void call_all(ol_co *co) {
    struct caller *c = OL_SELF(co, struct caller, co);
    OL_BEGIN(co);
    for (; c->left; c->left--) {
        OL_AWAIT(c->n, ol_run(co, ol_prep_call(&c->op, call_nothing, &c->value)));
        if (c->n != 7) fail("a call returned %lld", (long long)c->n);
    }
    OL_END(co);
}
static double call_ns(const char *policy, int64_t n, uint64_t *probes) {
    struct caller c;
    ol_loop_stats s;
    ol_emulated_desc d;
    cores_reset();
    must(ol_emulated_parse("latency_ns=20000", &d, NULL, 0) == 0, "ol_emulated_parse");
    must(ol_emulated_create(&device, &d) == 0, "ol_emulated_create");
    ol_loop *loop = loop_make(policy, 0);
    memset(&c, 0, sizeof c);
    c.value = 7;
    double ns = 0;
    for (int k = 0; k < 2; k++) { /* the first time it learns */
        c.left = k ? n : 20000;
        must(ol_spawn(loop, &c.co, call_all, 0, OL_BATCH) == 0, "ol_spawn");
        const int64_t begin = clock_now() - cores[0].idle;
        must(ol_loop_run(loop) == 0, "ol_loop_run");
        ns = (double)(clock_now() - cores[0].idle - begin) / (double)n;
    }
    s.size = sizeof s;
    ol_loop_get_stats(loop, &s);
    *probes = s.why[OL_WHY_PROBE];
    loop_end();
    must(ol_emulated_destroy(device) == 0, "ol_emulated_destroy");
    return ns;
}

/* A call of a function that does nothing, under a rule that says software and under one that says auto, which comes to
   the same decision. What auto tries now and then is included. */
static void part_decision(void) {
    double fixed[ROUNDS_MAX], difference[ROUNDS_MAX];
    const int64_t n = want.quick ? 200000 : 2000000;
    uint64_t probes = 0;
    progress("what a decision costs");
    for (int i = 0; i < want.rounds; i++) {
        fixed[i] = call_ns("call any 0- software - -", n, &probes);
        difference[i] = call_ns("call any 0- auto device wait", n, &probes) - fixed[i];
    }
    rows(fixed, "ns", "decision", "software_ns");
    rows(difference, "ns", "decision", "ns");
    row(middle(difference), "ns", "decision_ns");
    row((double)probes / (double)n, "share", "decision.tried");
}

#endif
