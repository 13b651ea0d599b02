/* callbacks.h: timers and posts. Part of sim.c. */
#ifndef SIM_CALLBACKS_H
#define SIM_CALLBACKS_H

static void on_timer(ol_loop *loop, ol_timer *timer);
static void timer_start(int loop, clock_timer *t) {
    const int64_t ns = k_range(0, k_below(2) ? 50 * US : 5 * MS), at = sim.now;
    const int e = ol_timer_start(w.loop[loop], &t->t, ns, on_timer);
    if (e) {
        CHECK("error", e == -ENOMEM && sim.stats.enomem);
        return;
    }
    t->loop = loop;
    t->state = T_RUNNING;
    t->due = at + ns;
}
static void on_timer(ol_loop *loop, ol_timer *timer) {
    clock_timer *t = OL_CONTAINER(timer, clock_timer, t);
    CHECK("callback", w.stepping == t->loop && loop == w.loop[t->loop] && w.nframes == 0 && !w.in_submit);
    CHECK("time", t->state == T_RUNNING);
    CHECK("time", sim.now >= t->due);
    check_late(t->due);
    k_trace("timer", (int64_t)(t - w.timer[t->loop]), sim.now - t->due);
    t->state = T_IDLE;
    sim.progress++;
    COUNT(TIMER_FIRED);
    mischief(t->loop);
    if (w.phase == CHAOS && k_below(4) == 0 && t->state == T_IDLE) timer_start(t->loop, t);
}
static void timer_stop(clock_timer *t) {
    ol_timer_stop(w.loop[t->loop], &t->t);
    t->state = T_IDLE;
}

static int queued(const note *n) { return !n->lost && n->accepted > n->runs; }

/* May run before the ol_post that queued it has returned. */
static void on_note(ol_loop *loop, ol_post_node *node) {
    note *n = OL_CONTAINER(node, note, node);
    CHECK("callback", w.stepping == n->loop && loop == w.loop[n->loop] && w.nframes == 0 && !w.in_submit);
    n->runs++;
    CHECK("post", n->runs <= n->accepted + n->posting + n->lost);
    if (n != &w.contended) {
        CHECK("post", n->order >= w.last_post[n->loop][n->thread]); /* first come, first served, for each thread */
        w.last_post[n->loop][n->thread] = n->order;
    }
    n->seen = n->wanted; /* all that was written before an ol_post that found it queued */
    sim.progress++;
    COUNT(POST_RUN);
    k_trace("post", n->thread, n->seen);
    mischief(n->loop);
}
static int note_post(note *n) {
    int r;
    if (n->lost) return -EBUSY;
    n->wanted++;
    n->posting++;
    r = ol_post(w.loop[n->loop], &n->node);
    n->posting--;
    CHECK("post", r == 0 || r == -EBUSY);
    n->accepted += r == 0;
    COUNT_IF(POST_BUSY, r == -EBUSY);
    return r;
}
/* What another thread may do at any moment. */
static void outside(void) {
    note *n = &w.notes[k_below(NODES)];
    const uint64_t order = ++w.posts;
    if (note_post(n)) return;
    n->order = order;
    n->thread = sim.in_hook ? 1 : sim.running ? 2 : 0;
}
static void outside_later(void *arg, uint64_t tag) {
    (void)arg, (void)tag;
    if (w.phase != CHAOS) return; /* such threads have ended before the loops are destroyed */
    outside();
    k_at(k_range(1, MS), outside_later, NULL, 0);
}

/* A thread of the application; it may be preempted in the middle of its posts. */
static void *poster_main(void *arg) {
    poster *p = (poster *)arg;
    while (!w.posters_end) {
        note *n = k_below(3) ? &p->own[k_below(2)] : &w.contended;
        k_sleep_for(k_range(1, k_below(2) ? 20 * US : MS));
        if (queued(n)) n = &w.contended;
        COUNT(POST_THREAD);
        if (n != &w.contended) {
            n->order = ++w.posts;
            CHECK("post", note_post(n) == 0);
        } else {
            (void)note_post(n);
        }
    }
    return NULL;
}

static void note_init(note *n, int thread) {
    n->node.fn = on_note;
    n->loop = (int)k_below((uint32_t)w.nloops);
    n->thread = thread;
}
static void callbacks_build(void) {
    int i;
    for (i = 0; i < NODES; i++) note_init(&w.notes[i], 0);
    note_init(&w.contended, 0);
    w.nposters = k_below(3) ? 0 : 1 + (int)k_below(POSTERS);
    for (i = 0; i < w.nposters; i++) {
        note_init(&w.posters[i].own[0], 3 + i);
        note_init(&w.posters[i].own[1], 3 + i);
        w.posters[i].thread = k_thread_new(K_OTHER, poster_main, &w.posters[i]);
    }
    if (k_below(2)) k_at(k_range(1, MS), outside_later, NULL, 0);
    sim.interrupt = outside;
}
static void callbacks_quiet(void) {
    int i, j;
    sim.interrupt = NULL;
    w.posters_end = 1;
    for (i = 0; i < w.nloops; i++)
        for (j = 0; j < TIMERS; j++)
            if (k_below(2)) timer_stop(&w.timer[i][j]);
}
static void note_asleep(const note *n) {
    if (n->loop == w.stepping && queued(n)) k_fail("lost wake-up", "sleeps although a post waits");
}
static void callbacks_asleep(void) {
    int i;
    for (i = 0; i < NODES; i++) note_asleep(&w.notes[i]);
    for (i = 0; i < w.nposters; i++) note_asleep(&w.posters[i].own[0]), note_asleep(&w.posters[i].own[1]);
    note_asleep(&w.contended);
}
static void callbacks_leave(void) {
    int i;
    for (i = 0; i < w.nposters; i++) k_thread_join(w.posters[i].thread);
}
static void note_end(const note *n) {
    if (n->lost) return;
    CHECK("post", n->accepted == n->runs && n->seen == n->wanted && n->posting == 0);
}
static void callbacks_end(void) {
    int i;
    for (i = 0; i < NODES; i++) note_end(&w.notes[i]);
    for (i = 0; i < w.nposters; i++) note_end(&w.posters[i].own[0]), note_end(&w.posters[i].own[1]);
    note_end(&w.contended);
}

/* Is a timer or a post left that the loop must still run? */
static int callbacks_left(int loop) {
    int i, n = 0;
    for (i = 0; i < TIMERS; i++) n += w.timer[loop][i].state == T_RUNNING;
    for (i = 0; i < NODES; i++) n += w.notes[i].loop == loop && queued(&w.notes[i]);
    return n;
}

#endif
