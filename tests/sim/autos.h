/* autos.h: what auto may decide, and what it knows: the lanes to backends, and
   cells. Part of sim.c.

   Whether a backend makes progress is known between two moments: the loop's
   time is as old as its last look at the clock.

     auto        spins only in an await, for latency-critical work, where no
   other such is ready or out avoids a backend only if that has completed
   nothing for stall_ns, or let an operation time out; and tries it after 16
   operations at first, then after twice as many each time, at most 512; does
   avoid it then chooses what it says that it chose; what it measured is the
   cheaper one, where nobody else waits tries another way after so many
   operations, too */
#ifndef SIM_AUTOS_H
#define SIM_AUTOS_H

/* Sorts that do not hold each other up: calls, which may block, and the rest,
 * each in two classes. */
enum { LINE_CALLS = 1, LINE_OF_BATCH = 2, LINES = 4 };
static int is_call(const task *t) { return t->kind == OL_OP_CALL || t->kind == OL_OP_FILE; }
static int line_of(const task *t) { return is_call(t) + (t->cls == OL_LATENCY ? 0 : LINE_OF_BATCH); }

static int pool_lane(void);
static int pool_watched(void); /* is what the pool's lane holds known? */
static lane_known *lane_of(int loop, int where) { return &w.lane[loop][where]; }
static int lane_watched(int where) { return where <= w.ndevs || pool_watched(); }
static int one_queue(int where) {
    return where > 0 && where <= w.ndevs && (w.device[where - 1].p.flags & OL_CHANNEL_ONE_QUEUE);
}
static uint32_t lane_reserve(int where) {
    const dev *d = &w.device[where - 1];
    if (!one_queue(where)) return 0;
    return d->m.reserve < d->p.depth ? d->m.reserve : d->p.depth - 1;
}
/* Does its time say something of others? Calls and files are apart, unless
 * there is one queue. */
static int lane_tells(const task *t, int where) { return one_queue(where) || !is_call(t); }
static uint32_t lane_holds(const lane_known *l, int where) {
    const uint32_t calls = l->in[LINE_CALLS] + l->in[LINE_CALLS + LINE_OF_BATCH];
    return l->in[0] + l->in[LINE_OF_BATCH] + (one_queue(where) ? calls : 0);
}
static uint32_t lane_all(const lane_known *l) { return l->in[0] + l->in[1] + l->in[2] + l->in[3]; }

/* The backend has it. */
static void lane_takes(task *t) {
    lane_known *l = lane_of(t->loop, t->op.where);
    if (lane_holds(l, t->op.where) == 0) l->made_hi = sim.now;
    l->in[line_of(t)]++;
}
/* It is not in the lane any more. */
static void lane_leaves(task *t) {
    if (t->lane) lane_of(t->loop, t->lane)->out--;
    t->lane = 0;
}
/* Could it be that it was stopped because its time was over? */
static int maybe_late(const task *t) {
    const root *r = t->waiter;
    if (t->op.timeout_us && sim.now >= t->begun + (int64_t)t->op.timeout_us * US) return 1;
    return r && (sim.now >= r->deadline || r->was_due);
}
/* The loop has it back, with its result. */
static void lane_returns(task *t) {
    lane_known *l = lane_of(t->loop, t->op.where);
    l->in[line_of(t)]--;
    l->made_lo = ol_now(w.loop[t->loop]);
    l->made_hi = K_NEVER; /* it will be the loop's time a little later */
    lane_leaves(t);
    if (t->op.result != -ECANCELED) l->avoided = l->tried = 0, l->streak = l->tries = 0;
    else if (maybe_late(t)) l->avoided = 1;
}
static void lane_looks(lane_known *l, int loop) {
    if (l->made_hi == K_NEVER) l->made_hi = ol_now(w.loop[loop]);
}
/* It has been accepted for a backend. Where nothing was out progress is counted
 * from then on, by the loop's time. */
static void lane_accepts(task *t) {
    lane_known *l = lane_of(t->loop, t->op.where);
    if (t->returned) return;
    if (l->out == 0 && t->op.why != OL_WHY_PARKED) l->made_lo = t->loop_time;
    if (!lane_tells(t, t->op.where)) return;
    l->out++;
    t->lane = t->op.where;
}

static uint32_t bucket(uint64_t bytes) {
    uint32_t b = 0;
    while (b < BUCKETS - 1 && bytes >= (uint64_t)256 << b) b++;
    return b;
}
static cell_known *cell_of(const task *t) { return &w.cell[t->loop][t->kind][t->cls][bucket(t->op.len)]; }

/* Before an operation is submitted whose rule says auto. */
typedef struct scene {
    int lane; /* 0: it is not for auto to decide */
    int64_t now;
    uint32_t held, urgent; /* in the lane: that tell how it does; latency-critical ones */
    int others;            /* a latency-critical coroutine is ready */
    int quiet;             /* nobody waits for this loop, or may */
    ol_cell cell;
} scene;

static int latency_ready(int loop, const root *but) {
    int i;
    for (i = 0; i < w.nroots; i++) {
        const root *r = w.roots[i];
        if (r != but && r->loop == loop && r->cls == OL_LATENCY && !r->raised && r->started && woken(r)) return 1;
    }
    return 0;
}
static int out_of(int loop, int where) { /* operations that the lane has, or will have */
    int i, n = 0;
    for (i = 0; i < w.ntasks; i++) n += w.tasks[i]->loop == loop && w.tasks[i]->op.where == where;
    return n;
}
static void auto_before(scene *s, const task *t, const root *r) {
    lane_known *l;
    s->lane = t->has_rule && t->rule.mode == OL_AUTO && t->kind != OL_OP_FILE ? policy_lane(t->rule.backend) : 0;
    s->now = t->loop_time;
    if (s->lane && s->lane <= w.ndevs && !(w.device[s->lane - 1].backend.kinds >> t->kind & 1)) s->lane = 0;
    if (!s->lane) return;
    l = lane_of(t->loop, s->lane);
    lane_looks(l, t->loop);
    s->held = lane_holds(l, s->lane);
    s->urgent = l->in[0] + l->in[LINE_CALLS];
    s->others = latency_ready(t->loop, r);
    s->quiet =
        !ol__ready(w.loop[t->loop]) && lane_all(l) == 0 && lane_watched(s->lane) && out_of(t->loop, s->lane) == 0;
    s->cell.size = sizeof s->cell;
    CHECK("auto", ol_loop_get_cell(w.loop[t->loop], t->kind, t->cls, t->op.len, &s->cell) == 0);
}

static void auto_stalled(const scene *s, const task *t, lane_known *l) {
    const uint32_t most = l->tries < 5 ? 16u << l->tries : 512;
    CHECK("auto", t->op.mode == OL_SOFTWARE || t->op.mode == OL_SLICED || t->op.result < 0);
    if (lane_watched(s->lane))
        CHECK("auto", l->avoided || ol_now(w.loop[t->loop]) - l->made_lo > w.desc[t->loop].stall_ns);
    l->avoided = 1;
    l->tried = 0;
    l->streak++;
    if (lane_watched(s->lane)) CHECK("auto", l->streak <= most);
    COUNT_IF(AUTO_LONG, l->streak == 16);
}
static void auto_tries(const scene *s, const task *t, lane_known *l) {
    const int stalls = lane_watched(s->lane) && s->held && s->now - l->made_hi > w.desc[t->loop].stall_ns;
    if (stalls) {
        CHECK("auto", t->op.why != OL_WHY_MEASURED && t->op.why != OL_WHY_SYNC_BOUND && t->op.mode != OL_SYNC);
        CHECK("auto", !l->tried);
    }
    l->tried = stalls;
    COUNT_IF(AUTO_TRIED, l->avoided);
    if (l->avoided) l->tries++;
    l->streak = 0;
}

static int64_t least_known(const ol_cell *c) {
    const int64_t awake = c->async_ns[0], asleep = c->async_ns[1];
    return !asleep || (awake && awake < asleep) ? awake : asleep;
}
static int64_t most_known(const ol_cell *c) {
    const int64_t most = c->async_ns[0] > c->async_ns[1] ? c->async_ns[0] : c->async_ns[1];
    return most > c->service_ns ? most : c->service_ns;
}
static void auto_measured(const scene *s, const task *t) {
    const ol_cell *c = &s->cell;
    const int here = t->op.mode <= OL_SLICED; /* 0: too many wait to be sliced */
    ol_cell after;
    after.size = sizeof after;
    CHECK("auto", ol_loop_get_cell(w.loop[t->loop], t->kind, t->cls, t->op.len, &after) == 0);
    CHECK("auto", after.choice == (here ? (int)OL_SOFTWARE : t->op.mode));
    CHECK("auto", c->here_ns && least_known(c));
    if (here && t->op.mode)
        CHECK("auto", (t->op.mode == OL_SLICED) == (c->here_ns > w.desc[t->loop].slice_ns) ||
                          c->here_ns == w.desc[t->loop].slice_ns || sim.stats.enomem);
    if (!s->quiet) return; /* the present choice has an advantage of a fifth */
    COUNT(AUTO_QUIET);
    if (here) CHECK("auto", c->here_ns * 4 / 5 <= most_known(c) + 1);
    else if (t->op.mode == OL_ASYNC) CHECK("auto", least_known(c) * 4 / 5 <= c->here_ns + 1);
}

/* It has been submitted, and decided about, or not. */
static void auto_after(const scene *s, const task *t) {
    const uint8_t why = t->op.why;
    cell_known *c = cell_of(t);
    lane_known *l;
    if (!s->lane || why < OL_WHY_FULL || why == OL_WHY_UNSUPPORTED || why == OL_WHY_CACHE || why == OL_WHY_STOPPED ||
        why > OL_WHY_STALLED)
        return;
    l = lane_of(t->loop, s->lane);
    if (t->op.mode == OL_SYNC || why == OL_WHY_SYNC_BOUND) {
        CHECK("auto", t->awaited && t->cls == OL_LATENCY && !s->others && !s->urgent);
        if (s->lane <= w.ndevs) CHECK("auto", !(w.device[s->lane - 1].p.flags & OL_CHANNEL_NO_SYNC));
    }
    if (why == OL_WHY_STALLED) {
        auto_stalled(s, t, l);
        return;
    }
    if (why == OL_WHY_FULL && sliced_full(t)) { /* nobody says what had been decided */
        l->streak = c->measured = 0;
        l->tried = 0;
        l->tries++;
        c->probes++;
        return;
    }
    auto_tries(s, t, l);
    if (why == OL_WHY_MEASURED) {
        c->measured++;
        /* the first comes after two that learn; latency-critical work may put the next try off while others wait */
        if (t->cls == OL_BATCH || s->quiet)
            CHECK("auto", c->probes >= 2 && c->measured <= (c->probes < 7 ? 16u << (c->probes - 2) : 512));
        auto_measured(s, t);
    } else { /* it may have been to learn, too */
        c->measured = 0;
        c->probes++;
    }
}

#endif
