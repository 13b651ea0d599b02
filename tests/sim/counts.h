/* counts.h: the library's counters, cells, histograms and dump against what the
   program has seen. Part of sim.c.

     count       operations by reason, by mode in each cell, on the spot and
   offloaded, slices times       what is sampled is counted, once, in each of
   its times: with `sample` 1 each operation, else one in so many; sums agree; a
   histogram's counts do, and what is read from it is too large by an eighth at
   most samples     with nothing in flight all their places are free dump as
   long as it says, and says what the counters say */
#ifndef SIM_COUNTS_H
#define SIM_COUNTS_H

/* Was it accepted, to run or to be stopped? */
static int task_accepted(const task *t, int64_t n) {
    const ol_op *op = &t->op;
    if (op->why == OL_WHY_NONE || op->why > OL_WHY_STALLED || op->mode == 0 || n == -EAGAIN) return 0;
    return n != -ENOMEM || op->mode <= OL_SLICED || t->reported || t->kind == OL_OP_FILE;
}

/* For the library's counters. Whether an operation that was stopped, or ran
 * late, had been parked, it does not say. */
static void task_count(const task *t, int64_t n) {
    const ol_op *op = &t->op;
    const int kind = t->kind, i = t->loop, spot = op->mode == OL_SOFTWARE;
    const int stopped = op->why == OL_WHY_STOPPED || op->result == -ECANCELED;
    if (op->why == OL_WHY_NONE || op->why > OL_WHY_STALLED) return; /* it was not even submitted */
    if (op->why == OL_WHY_PARKED) w.parked[i]++;
    if (op->why == OL_WHY_STOPPED || op->why == OL_WHY_SYNC_BOUND || op->why == OL_WHY_FAILED) w.perhaps[i]++;
    w.due_most[i] += 2;
    if (!task_accepted(t, n)) {
        w.undue[i]++;
        return;
    }
    w.why[i][op->why]++;
    cell_of(t)->n[op->mode]++;
    if (op->why == OL_WHY_CACHE) return;
    w.due_least[i]++;
    w.undue[i] += stopped || op->why == OL_WHY_FAILED || op->why == OL_WHY_FULL;
    if (op->mode <= OL_SLICED && !stopped) w.software[i]++;
    if (!stopped) w.timed[i][kind][t->cls]++;
    if (!stopped && !spot) w.handed[i][kind][t->cls]++;
    if (sim.now - t->begun > w.longest[i]) w.longest[i] = sim.now - t->begun;
}

/* How long its backend worked on it: what that says, or what was seen. */
static void judge_service(const task *t) {
    const ol_op *op = &t->op;
    const int64_t most = sim.now - t->begun;
    CHECK("times", (int64_t)op->service_ns <= most);
    if (op->where && lane_watched(op->where)) CHECK("times", op->service_ns == t->told_ns);
    if (op->where && op->where == pool_lane() && op->service_ns && is_call(t) && t->kind != OL_OP_FILE)
        CHECK("times", op->service_ns >= t->spent);
    if (op->mode == OL_SLICED) CHECK("times", op->service_ns > 0 && op->service_ns >= t->spent);
    COUNT_IF(SERVICE_TOLD, op->where && op->where <= w.ndevs && op->service_ns);
}

static void check_histogram(const ol_histogram *h) {
    uint64_t n = 0;
    int i;
    for (i = 0; i < OL_HISTOGRAM; i++) n += h->n[i];
    CHECK("times", n == h->count && (h->count || (!h->sum && !h->max)) && h->max <= h->sum);
}
/* What is read from it grows with the share. */
static void check_quantiles(const ol_histogram *h) {
    int64_t at = ol_histogram_at(h, 0);
    int i;
    for (i = 1; i <= 4; i++) {
        const int64_t next = ol_histogram_at(h, i / 4.0);
        CHECK("times", at <= next);
        at = next;
    }
    CHECK("times", at == (int64_t)h->max);
}

/* A histogram of our own: values are found again. */
static void histogram_try(void) {
    const int64_t v = (int64_t)(k_rand() >> (29 + k_below(35))), large = v + k_range(0, v) + 1;
    ol_histogram h;
    int64_t at;
    memset(&h, 0, sizeof h);
    CHECK("times", ol_histogram_at(&h, 0.5) == 0);
    ol_histogram_add(&h, v);
    CHECK("times", ol_histogram_at(&h, 0) == v);
    CHECK("times", ol_histogram_at(&h, 1) == v);
    ol_histogram_add(&h, large);
    ol_histogram_add(&h, -large);
    at = ol_histogram_at(&h, 0.66);
    CHECK("times", at >= v && (v < 16 ? at == v : at <= v + v / 8));
    CHECK("times", ol_histogram_at(&h, 0.3) == 0);
    CHECK("times", ol_histogram_at(&h, 2) == large);
    check_quantiles(&h);
    CHECK("times", h.count == 3 && h.sum == (uint64_t)(v + large) && h.max == (uint64_t)large);
    check_histogram(&h);
}

static void check_times(int i, int kind, int cls) {
    ol_histogram t[OL_TIME_LAG];
    int k;
    for (k = 0; k < OL_TIME_LAG; k++) {
        CHECK("times", ol_loop_get_times(w.loop[i], kind, cls, k, &t[k]) == 0);
        check_histogram(&t[k]);
    }
    CHECK("times", t[OL_TIME_SERVICE].count == t[OL_TIME_TOTAL].count);
    CHECK("times", t[OL_TIME_SUBMIT].count == t[OL_TIME_QUEUE].count);
    CHECK("times", t[OL_TIME_SERVICE].sum <= t[OL_TIME_TOTAL].sum && t[OL_TIME_TOTAL].max <= (uint64_t)w.longest[i]);
    CHECK("times", t[OL_TIME_SUBMIT].sum + t[OL_TIME_QUEUE].sum + t[OL_TIME_SERVICE].sum >= t[OL_TIME_TOTAL].sum);
    if (!kind) check_quantiles(&t[OL_TIME_TOTAL]);
    if (kind) {
        CHECK("times", t[OL_TIME_TOTAL].count <= w.timed[i][kind][cls]);
        CHECK("times", t[OL_TIME_SUBMIT].count <= w.handed[i][kind][cls]);
    } else {
        const uint64_t one_in = w.desc[i].sample, least = w.due_least[i] / one_in;
        CHECK("times", t[OL_TIME_TOTAL].count <= w.due_most[i] / one_in);
        if (!w.crowded[i]) CHECK("times", t[OL_TIME_TOTAL].count + w.undue[i] >= least);
    }
    if (w.desc[i].sample > 1 || w.crowded[i] || !kind) return;
    CHECK("times", t[OL_TIME_TOTAL].count == w.timed[i][kind][cls]);
    CHECK("times", t[OL_TIME_SUBMIT].count == w.handed[i][kind][cls]);
    COUNT_IF(TIMES_ALL, t[OL_TIME_TOTAL].count > 0);
}

/* Between a return from the kernel and the next call, and in the kernel. */
static void check_busy(int i, const ol_loop_stats *s) {
    ol_histogram lag;
    CHECK("times", ol_loop_get_times(w.loop[i], 0, 0, OL_TIME_LAG, &lag) == 0);
    check_histogram(&lag);
    CHECK("times", lag.sum == s->busy_ns);
}

static void check_cell(int i, int kind, int cls, uint32_t b) {
    const cell_known *c = &w.cell[i][kind][cls][b];
    const uint64_t bytes = b ? (uint64_t)128 << b : 0;
    ol_cell got;
    int k;
    got.size = sizeof got;
    CHECK("count", ol_loop_get_cell(w.loop[i], kind, cls, bytes + k_below(b ? (uint32_t)bytes : 256), &got) == 0);
    CHECK("count", got.min == bytes && got.max == (b == BUCKETS - 1 ? 0 : b ? 2 * bytes - 1 : 255));
    for (k = OL_SOFTWARE; k <= OL_ASYNC; k++) CHECK("count", got.n[k] == c->n[k]);
    CHECK("count", got.here_ns <= w.longest[i]);
    CHECK("count", got.service_ns <= w.longest[i]);
    for (k = 0; k < 2; k++) CHECK("count", got.sync_ns[k] <= w.longest[i] && got.async_ns[k] <= w.longest[i]);
}

static void check_dump(int i, const ol_loop_stats *s) {
    static char text[100000], less[100000], line[100];
    const int n = ol_loop_dump(w.loop[i], text, sizeof text);
    const size_t room = k_below((uint32_t)n + 2);
    int k;
    CHECK("dump", n > 0 && (size_t)n < sizeof text && strlen(text) == (size_t)n);
    memset(less, 1, sizeof less);
    CHECK("dump", ol_loop_dump(w.loop[i], less, room) == n && less[room] == 1);
    if (room) CHECK("dump", strlen(less) == room - 1 && memcmp(less, text, room - 1) == 0);
    snprintf(line, sizeof line, "%u roots, %u operations in flight, %u fds, %llu rounds, %llu events", s->roots, s->ops,
             s->fds, (unsigned long long)s->turns, (unsigned long long)s->events);
    CHECK("dump", strstr(text, line) != NULL);
    for (k = OL_WHY_RULE; k <= OL_WHY_STALLED; k++) {
        ol_op op;
        op.why = (uint8_t)k;
        snprintf(line, sizeof line, "%12llu  %s\n", (unsigned long long)s->why[k], ol_op_why(&op));
        CHECK("dump", (strstr(text, line) != NULL) == (s->why[k] > 0));
    }
    COUNT(DUMPED);
}

/* All that is counted, with nothing in flight. */
static void counts_end(int i) {
    ol_loop_stats s;
    uint32_t b;
    int kind, cls, n = 0;
    uint8_t at;
    if (w.inflight[i]) return;
    s.size = sizeof s;
    ol_loop_get_stats(w.loop[i], &s);
    for (kind = 1; kind < OL__KINDS; kind++)
        for (cls = OL_LATENCY; cls <= OL_BATCH; cls++) {
            check_times(i, kind, cls);
            for (b = 0; b < BUCKETS; b++) check_cell(i, kind, cls, b);
        }
    check_times(i, 0, 0);
    check_busy(i, &s);
    for (at = w.loop[i]->sample[0].next; at && n < 256; at = w.loop[i]->sample[at].next) n++;
    CHECK("samples", n == 255);
    if (k_below(4) == 0) check_dump(i, &s);
    histogram_try();
}

/* After each round. turns: rounds since it was asked last; entered: when this
 * one began, waits: the kernel was asked. */
static void check_counts(int i, uint64_t turns, int64_t entered, int waits) {
    ol_loop_stats s;
    int k;
    s.size = sizeof s;
    ol_loop_get_stats(w.loop[i], &s);
    CHECK("count", (int)s.roots == w.alive[i]);
    CHECK("count", (int)s.ops <= w.inflight[i]);
    CHECK("count", (int)s.fds >= w.attached[i] && s.turns == turns);
    CHECK("times", (int64_t)(s.busy_ns + s.waited_ns) <= sim.now - w.created_lo[i]);
    if (waits) CHECK("times", (int64_t)(s.busy_ns + s.waited_ns) >= entered - w.created_hi[i]);
    CHECK("count", s.slices >= w.slices_seen[i] && s.slices <= w.slices_most[i]);
    for (k = 1; k <= w.nbackends; k++) lane_looks(lane_of(i, k), i);
    if (w.inflight[i]) return; /* what has ended is not known to us before its owner runs */
    CHECK("count", (int)s.fds == w.attached[i]);
    CHECK("count", s.software >= w.software[i] && s.software <= w.software[i] + w.maybe_software[i]);
    CHECK("count", s.parked >= w.parked[i] && s.parked <= w.parked[i] + w.perhaps[i]);
    if (pool.kind != POOL_SHARED) CHECK("count", s.offloaded == w.offloaded[i]);
    CHECK("count", memcmp(s.why, w.why[i], sizeof s.why) == 0);
    if (w.turns % 64 == 0) check_busy(i, &s);
}

/* A loop has been made. */
static void counts_begin(int i, int64_t made) {
    w.software[i] = w.offloaded[i] = w.parked[i] = w.perhaps[i] = w.maybe_software[i] = 0;
    w.slice[i] = w.slices_seen[i] = w.slices_most[i] = w.due_least[i] = w.due_most[i] = w.undue[i] = 0;
    w.crowded[i] = 0;
    w.longest[i] = 0;
    memset(w.slices_of[i], 0, sizeof w.slices_of[i]);
    memset(w.lane[i], 0, sizeof w.lane[i]);
    memset(w.cell[i], 0, sizeof w.cell[i]);
    memset(w.why[i], 0, sizeof w.why[i]);
    memset(w.timed[i], 0, sizeof w.timed[i]);
    memset(w.handed[i], 0, sizeof w.handed[i]);
    w.created_lo[i] = made;
    w.created_hi[i] = sim.now;
}

#endif
