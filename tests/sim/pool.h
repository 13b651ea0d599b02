/* pool.h: the shipped thread pool under the simulated threads, and what it promises. Part of sim.c.

   A seed may have a pool of its own, which all its loops share: they see it through a backend of the same name in
   front of it, where each submit, poll and cancel is checked. Or it has the library's own pool, seen only from below.
   What workers do is seen at their exchanges and compare-and-swaps: an operation is taken out of a ring by the one and
   put on a stack of completions by the other. Of the library's insides only the rings' positions are looked at.

     pool        an operation starts once; not if its cancel was granted; not before it was submitted
                 those accepted are handed back once: run and true, or stopped
                 calls and file operations keep at most all workers but one busy
                 a latency operation is claimed before a batch one that came later, bar those already under way
                 no thread before the first operation, and none after the pool's end
                 nothing touches a channel or its loop after close
     lost wake-up   no worker sleeps while an operation waits, no loop while a completion does */
#ifndef SIM_POOL_H
#define SIM_POOL_H

enum { POOL_NONE, POOL_OWN, POOL_SHARED };

enum { POOL_DEPTH = 256, POOL_CHANNELS = 4 };

typedef struct pool_channel {
    void *real;
    const void *notify;
    int loop, open, held;
    int forked;                         /* and it has not been told */
    uint64_t opened;                    /* serial */
    uint64_t puts[LINES];               /* operations that its rings have had */
    task *put[LINES][POOL_DEPTH];       /* the latest of them */
    uint64_t serial[LINES][POOL_DEPTH]; /* when they were there */
} pool_channel;

struct pool_worker { /* a thread of the pool */
    task *runs;
    uint64_t ended;                 /* serial at the end of its latest operation */
    uint64_t looked[POOL_CHANNELS]; /* when it last looked at the ring of latency-critical operations */
    uint64_t wakes[POOL_CHANNELS];  /* how often it had been woken then */
    uint64_t jumped;                /* the latency call that batch calls went ahead of, and how many */
    int jumps;
};

static struct pool_watch {
    int kind, lane; /* lane: its op.where, 0 without a pool */
    ol_backend backend, *real;
    pool_channel channel[POOL_CHANNELS];
    int nchannels; /* most at a time */
    uint64_t serial, submits;
    int workers;
    uint32_t depth;
    int waiting[2]; /* accepted and not started, by sort */
    int calls;      /* running */
    struct pool_worker worker[K_THREADS];
    int64_t made;
    uint64_t idle_ns; /* as it was told last */
    uint32_t forks;   /* until then */
} pool;

static int pool_lane(void) { return pool.lane; }
static int pool_watched(void) { return pool.kind == POOL_OWN; }
static uint32_t lane_depth(int lane) { return lane == pool.lane ? pool.depth : w.device[lane - 1].p.depth; }
static int pool_workers(void) { return k_threads_of(K_WORKER); }

/* ---------------------------------------------------------------------------------------------------------------- */
/* From below: what workers do                                                                                      */

/* The oldest operation of a line that no worker has claimed; NULL if there is none. */
static const task *pool_oldest(const pool_channel *c, int line, uint64_t *serial) {
    uint64_t at = ((const ol__pool_channel *)c->real)->ring[line].head;
    for (; at < c->puts[line]; at++) {
        const task *t = c->put[line][at % POOL_DEPTH];
        *serial = c->serial[line][at % POOL_DEPTH];
        if (t) return t; /* else it was stopped */
    }
    return NULL;
}

/* A worker claims batch, or starts the next of what it has claimed: it has looked at every ring of latency-critical
   operations since it last finished one of batch, or woke up. */
static void pool_latency_first(const struct pool_worker *self) {
    int i;
    for (i = 0; i < POOL_CHANNELS; i++) {
        const pool_channel *c = &pool.channel[i];
        uint64_t serial;
        if (!c->open || self->looked[i] < c->opened) continue;
        CHECK("pool", self->looked[i] > self->ended);
        CHECK("pool", self->wakes[i] == sim.thread[sim.self].wakes);
        if (pool_oldest(c, 0, &serial)) CHECK("pool", serial > self->ended);
    }
}

/* A worker claims batch calls: for latency-critical calls it looks once a round, and a round may take a batch call from
   each channel. */
static void pool_calls_first(struct pool_worker *self) {
    int i;
    for (i = 0; i < POOL_CHANNELS; i++) {
        uint64_t serial;
        const task *l = pool.channel[i].open ? pool_oldest(&pool.channel[i], LINE_CALLS, &serial) : NULL;
        if (!l) continue;
        self->jumps = self->jumped == l->ticket ? self->jumps + 1 : 1;
        self->jumped = l->ticket;
        CHECK("pool", self->jumps <= pool.nchannels);
    }
}

/* Where on a channel is this word? A line, or -1. */
static int pool_line_at(const pool_channel *c, const void *word, size_t member) {
    const ol__ring *r = ((const ol__pool_channel *)c->real)->ring;
    int line;
    for (line = 0; line < LINES; line++)
        if (word == (const char *)&r[line] + member) return line;
    return -1;
}

static void pool_loads(const void *word) {
    struct pool_worker *self = &pool.worker[sim.self];
    int i;
    for (i = 0; i < POOL_CHANNELS; i++) {
        if (!pool.channel[i].open || pool_line_at(&pool.channel[i], word, offsetof(ol__ring, tail)) != 0) continue;
        self->looked[i] = ++pool.serial;
        self->wakes[i] = sim.thread[sim.self].wakes;
    }
}

static void pool_exchanges(const void *word, uintptr_t old) {
    struct pool_worker *self = &pool.worker[sim.self];
    task *t;
    int i;
    for (i = 0; i < ALL_LOOPS; i++)
        if (w.gone[i] && word == w.gone[i]) k_fail("pool", "a worker notifies a loop that has closed its channel");
    if (old <= 1) return; /* empty, cancelled, or the flag of a sleep */
    t = OL_CONTAINER((ol_op *)old, task, op);
    CHECK("pool", t->inflight && !self->runs);
    if (t->granted) k_fail("pool", "an operation runs that was cancelled in the ring");
    CHECK("pool", ++t->starts == 1);
    CHECK("pool", t->in_pool || pool.kind == POOL_SHARED);
    if (t->in_pool) pool.waiting[is_call(t)]--;
    if (is_call(t)) {
        const int workers = pool_workers();
        pool.calls++;
        COUNT_IF(POOL_CALLS_FULL, workers > 2 && pool.calls == workers - 1);
        CHECK("pool", pool.calls <= (workers > 1 ? workers - 1 : 1));
    }
    if (pool.kind == POOL_OWN && line_of(t) & LINE_OF_BATCH) pool_latency_first(self);
    self->runs = t;
    k_trace("worker starts", t->id, t->kind);
}

static void pool_swaps(const void *word, uintptr_t value) {
    struct pool_worker *self = &pool.worker[sim.self];
    task *t = self->runs;
    int i;
    for (i = 0; i < POOL_CHANNELS; i++) {
        const int line = pool.channel[i].open ? pool_line_at(&pool.channel[i], word, offsetof(ol__ring, head)) : -1;
        if (line >= LINE_OF_BATCH) pool_latency_first(self);
        if (line == LINE_OF_BATCH + LINE_CALLS) pool_calls_first(self);
    }
    if (!t || value != (uintptr_t)&t->op) return;
    self->runs = NULL;
    self->ended = ++pool.serial;
    pool.calls -= is_call(t);
    t->reported = 1;
    t->out_sum = dev_sum(t->out, t->len);
    if (t->pin) t->pin->pins--;
    t->pin = NULL;
    k_trace("worker ends", t->id, t->op.result);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* From above: the backend that a loop sees                                                                         */

static void pool_accepted(pool_channel *c, task *t) {
    const fdrec *f = t->part ? t->part->fd : NULL;
    uint64_t *last = &w.last_taken[t->loop][pool.lane - 1][t->cls][is_call(t)];
    const int line = line_of(t);
    CHECK("operation", t->inflight && t->loop == c->loop);
    task_refused(t, 0);
    CHECK("order", t->ticket > *last);
    *last = t->ticket;
    c->put[line][c->puts[line] % POOL_DEPTH] = t;
    c->serial[line][c->puts[line]++ % POOL_DEPTH] = ++pool.serial;
    c->held++;
    lane_takes(t);
    w.offloaded[t->loop]++;
    if (t->reported || !f || f->closed || f->loop != t->loop) return;
    t->pin = sim.file[(uint32_t)f->handle]; /* the operation's fd must stay open as long as a worker writes */
    t->pin->pins++;
}

static int pool_submit(void *channel, ol_op *const *ops, int n) {
    pool_channel *c = (pool_channel *)channel;
    int i, r;
    CHECK("pool", c->open && !c->forked && n > 0);
    if (!pool.submits++) CHECK("pool", sim.stats.thread_starts == 0);
    if (sim.forks) COUNT(POOL_AFTER_FORK);
    for (i = 0; i < n; i++) { /* a worker may have one before the next is in */
        task *t = OL_CONTAINER(ops[i], task, op);
        CHECK("pool", !t->in_pool);
        t->in_pool = 1;
        pool.waiting[is_call(t)]++;
    }
    r = pool.real->submit(c->real, ops, n);
    CHECK("pool", r <= n);
    for (i = 0; i < n; i++) {
        task *t = OL_CONTAINER(ops[i], task, op);
        if (i < r) {
            pool_accepted(c, t);
            continue;
        }
        CHECK("pool", t->starts == 0);
        t->in_pool = 0;
        if (r >= 0) task_refused(t, 1); /* else it runs in the loop */
        pool.waiting[is_call(t)]--;
    }
    if (r > 0 && !sim.stats.thread_failed) CHECK("pool", pool_workers() == pool.workers);
    COUNT_IF(POOL_REFUSED, r < 0);
    COUNT_IF(POOL_FULL, r >= 0 && r < n);
    k_trace("pool takes", n, r);
    return r;
}

static int pool_poll(void *channel, ol_op **ops, int max) {
    pool_channel *c = (pool_channel *)channel;
    int i, n;
    CHECK("pool", c->open && !c->forked && max > 0 && (uint32_t)max <= w.desc[c->loop].dequeue_batch);
    n = pool.real->poll(c->real, ops, max);
    CHECK("pool", n >= 0 && n <= max);
    for (i = 0; i < n; i++) {
        task *t = OL_CONTAINER(ops[i], task, op);
        CHECK("pool", t->in_pool && t->inflight);
        CHECK("pool", t->granted ? t->op.result == -ECANCELED && t->starts == 0 : t->starts == 1 && t->reported);
        t->in_pool = 0;
        t->returned = 1;
        t->told_ns = t->op.service_ns;
        lane_returns(t);
        c->held--;
    }
    return n;
}

static int pool_look(void *channel) {
    pool_channel *c = (pool_channel *)channel;
    CHECK("pool", c->open && !c->forked);
    return pool.real->look(c->real);
}

static int pool_sleeping(void *channel) {
    pool_channel *c = (pool_channel *)channel;
    const int r = pool.real->asleep(c->real);
    int i;
    CHECK("pool", c->open && !c->forked);
    for (i = 1; i < sim.nthreads && r; i++) CHECK("pool", !pool.worker[i].runs);
    return r;
}

static int pool_cancel(void *channel, ol_op *op) {
    pool_channel *c = (pool_channel *)channel;
    task *t = OL_CONTAINER(op, task, op);
    const int line = line_of(t);
    uint64_t at;
    int r;
    CHECK("pool", c->open && !c->forked && t->in_pool);
    t->asked = 1;
    r = pool.real->cancel(c->real, op);
    COUNT_IF(POOL_STOPPED, r == 0);
    COUNT_IF(POOL_TOO_LATE, r != 0);
    CHECK("pool", r == 0 || r == -EBUSY);
    if (r) return r;
    CHECK("pool", t->starts == 0 && !t->granted);
    t->granted = 1;
    pool.waiting[is_call(t)]--;
    if (t->pin) t->pin->pins--;
    t->pin = NULL;
    for (at = c->puts[line]; at-- > 0 && at + POOL_DEPTH > c->puts[line];)
        if (c->put[line][at % POOL_DEPTH] == t) c->put[line][at % POOL_DEPTH] = NULL;
    return 0;
}

static int pool_open(void *self, ol_notify *notify, ol_channel *out) {
    pool_channel *c = pool.channel;
    int r, i, open = 1;
    (void)self;
    for (i = 0; i < POOL_CHANNELS; i++) open += pool.channel[i].open;
    while (c->open) c++;
    r = pool.real->open(pool.real->self, notify, out);
    if (r) return r;
    memset(c, 0, sizeof *c);
    c->real = out->self;
    c->notify = notify;
    c->loop = w.creating;
    c->open = 1;
    c->opened = ++pool.serial;
    for (i = 0; i < LINES; i++) c->puts[i] = ((const ol__pool_channel *)c->real)->ring[i].tail;
    if (open > pool.nchannels) pool.nchannels = open;
    out->self = c;
    return 0;
}

static int pool_forked(void *channel) {
    pool_channel *c = (pool_channel *)channel;
    CHECK("pool", c->open && c->forked);
    c->forked = 0;
    return pool.real->forked(c->real);
}

static void pool_close(void *channel) {
    pool_channel *c = (pool_channel *)channel;
    CHECK("pool", c->open && c->held == 0);
    pool.real->close(c->real);
    c->open = 0;
    w.gone[c->loop] = c->notify;
}

/* What the pool says of itself, to whoever asks. */
static void pool_stats(void) {
    ol_threads_stats s;
    uint64_t open = 0;
    int i;
    if (pool.kind != POOL_OWN) return;
    memset(&s, 0xee, sizeof s);
    s.size = k_below(4) ? (uint32_t)sizeof s : (uint32_t)offsetof(ol_threads_stats, idle_ns);
    CHECK("pool", ol_threads_get_stats(pool.real, &s) == 0);
    COUNT(POOL_STATS);
    for (i = 0; i < POOL_CHANNELS; i++) open += (uint64_t)pool.channel[i].open;
    if (sim.self == 0) CHECK("pool", (int)s.workers == pool_workers() && s.loops == open);
    CHECK("pool", s.asleep <= s.workers);
    if (s.size < sizeof s) {
        CHECK("pool", s.idle_ns == 0xeeeeeeeeeeeeeeee && s.elapsed_ns == s.idle_ns);
        return;
    }
    CHECK("pool", s.elapsed_ns <= (uint64_t)(sim.now - pool.made) && (s.elapsed_ns > 0) == (s.workers > 0));
    CHECK("pool", s.idle_ns <= s.workers * s.elapsed_ns);
    if (sim.self || pool.forks != sim.forks) return;
    CHECK("pool", s.idle_ns >= pool.idle_ns);
    pool.idle_ns = s.idle_ns;
}
/* All of its threads sleep. */
static void pool_all_asleep(void) {
    ol_threads_stats s;
    s.size = sizeof s;
    CHECK("pool", ol_threads_get_stats(pool.real, &s) == 0);
    CHECK("pool", s.asleep == s.workers);
    if (s.workers) CHECK("pool", pool.real->asleep(((pool_channel *)pool.channel)->real));
}

/* Does an operation wait that no worker has claimed? */
static int pool_unclaimed(int calls) {
    uint64_t serial;
    int i;
    for (i = 0; i < POOL_CHANNELS; i++)
        if (pool.channel[i].open && (pool_oldest(&pool.channel[i], calls, &serial) ||
                                     pool_oldest(&pool.channel[i], calls | LINE_OF_BATCH, &serial)))
            return 1;
    return 0;
}

/* Nobody can run, and the loop sleeps: then no worker is idle while there is something that it could do; and if all
   workers sleep nothing waits at all. */
static void pool_asleep(void) {
    const ol__semaphore *s;
    int i;
    if (pool.kind != POOL_OWN) return;
    s = ((const ol__pool *)pool.real->self)->sleep;
    for (i = 1; i < sim.nthreads; i++) {
        const k_thread *t = &sim.thread[i];
        if (t->kind != K_WORKER || t->state != K_T_FUTEX) continue;
        if (pool_unclaimed(0)) k_fail("lost wake-up", "a worker sleeps while an operation waits");
        if (t->waits == &s[0].permits && pool_unclaimed(LINE_CALLS))
            k_fail("lost wake-up", "a worker sleeps while a call waits");
    }
    for (i = 1; i < sim.nthreads; i++)
        if (sim.thread[i].kind == K_WORKER && sim.thread[i].state != K_T_FUTEX) return;
    if (pool.waiting[0] || pool.waiting[1])
        k_fail("lost wake-up", "all workers sleep, and %d operations wait for them", pool.waiting[0] + pool.waiting[1]);
    sim.in_hook = 1; /* a look of ours is no chance for anybody else */
    pool_all_asleep();
    for (i = 0; i < POOL_CHANNELS; i++)
        if (pool.channel[i].open && pool.channel[i].loop == w.stepping && pool.real->look(pool.channel[i].real))
            k_fail("lost wake-up", "the loop sleeps although a completion waits that nobody will announce");
    sim.in_hook = 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */

static void pool_build(int kind) {
    ol_threads_desc d;
    memset(&pool, 0, sizeof pool);
    pool.kind = kind;
    pool.lane = kind == POOL_NONE ? 0 : w.ndevs + 1;
    pool.depth = 256;
    sim.exchanges = pool_exchanges;
    sim.swaps = pool_swaps;
    if (kind != POOL_OWN) return;
    sim.loads = pool_loads;
    memset(&d, 0, sizeof d);
    d.workers = k_below(4) ? 1 + k_below(k_below(2) ? 3 : 6) : 0;
    d.depth = 1 + k_below(k_below(4) ? 4 : 64);
    for (pool.depth = 1; pool.depth < d.depth;) pool.depth *= 2;
    d.spin_ns = k_below(2) ? -1 : k_range(1, 10 * US);
    d.sched = k_below(3);
    pool.made = sim.now;
    CHECK("test", ol_threads_create(&pool.real, &d) == 0);
    pool.workers = d.workers ? (int)d.workers : sim.cpus > 1 ? sim.cpus - 1 : 1;
    pool.backend = *pool.real;
    pool.backend.self = &pool;
    pool.backend.open = pool_open;
    pool.backend.submit = pool_submit;
    pool.backend.poll = pool_poll;
    pool.backend.look = pool_look;
    pool.backend.cancel = pool_cancel;
    pool.backend.close = pool_close;
    pool.backend.forked = pool_forked;
    pool.backend.asleep = pool_sleeping;
}

/* The loops are gone. */
static void pool_end(void) {
    if (pool.kind == POOL_OWN) CHECK("pool", ol_threads_destroy(pool.real) == 0);
    CHECK("pool", pool_workers() == 0 && pool.calls == 0 && !pool.waiting[0] && !pool.waiting[1]);
}

/* After a failure: the library's own pool is process-wide, and may be in any state. */
static void pool_forget(void) {
    ol__shared_pool = NULL;
    ol__shared_users = 0;
    ol__shared_lock = 0;
}

#endif
