/* callbacks.h: timers and posts. Part of sim.c. */
#ifndef SIM_CALLBACKS_H
#define SIM_CALLBACKS_H

/* Some open fd of the loop, or none; often the same as before, so that several stand in one line. */
static fdrec *any_fd(int loop) {
    fdrec *f = w.nopen && k_below(3) ? w.open[k_below((uint32_t)w.nopen)] : NULL;
    if (f && w.named[loop] && !w.named[loop]->closed && k_below(2)) f = w.named[loop];
    if (f && (f->loop != loop || f == w.listener[loop])) f = NULL;
    if (f) w.named[loop] = f;
    return f;
}

static void on_timer(ol_loop *loop, ol_timer *timer);
static void timer_start(int loop, clock_timer *t) {
    const int64_t ns = k_range(0, k_below(2) ? 50 * US : 5 * MS), at = sim.now;
    int e;
    if (t->state == T_IDLE) {
        t->f = any_fd(loop);
        t->t.fd = t->f ? t->f->handle : 0;
    }
    e = ol_timer_start(w.loop[loop], &t->t, ns, on_timer);
    if (e) {
        CHECK("error", e == -ENOMEM && sim.stats.enomem);
        return;
    }
    t->loop = loop;
    t->state = T_RUNNING;
    t->names = t->f ? t->f->part : NULL;
    t->due = at + ns;
    t->surely_due = sim.now + ns;
    t->since = moment();
    place_leave(&t->stand); /* it had run out, and stood in line */
}
/* Of two that name the same partition the one whose time comes first gets in line first. */
static void timer_in_turn(const clock_timer *t, const partition *p) {
    int i;
    for (i = 0; i < TIMERS && t->names == p; i++) {
        const clock_timer *o = &w.timer[t->loop][i];
        if (o == t || o->state != T_RUNNING || o->names != p || o->f->closed || o->f->part != p) continue;
        CHECK("order", o->surely_due >= t->due);
    }
}
/* The same of two posts that one thread has made. */
static void note_in_turn(const note *n, partition *p) {
    if (n == &w.contended || n->names != p || n->thread > 2) return;
    CHECK("order", n->order >= p->last_post[n->thread]);
    p->last_post[n->thread] = n->order;
}
static void on_timer(ol_loop *loop, ol_timer *timer) {
    clock_timer *t = OL_CONTAINER(timer, clock_timer, t);
    partition *p;
    CHECK("callback", loop == w.loop[t->loop]);
    CHECK("time", t->state == T_RUNNING);
    CHECK("time", sim.now >= t->due);
    if (!t->f) check_late(t->due);
    p = callback_enter(t->loop, t->f, &t->stand);
    if (p) timer_in_turn(t, p);
    k_trace("timer", (int64_t)(t - w.timer[t->loop]), sim.now - t->due);
    t->state = T_IDLE;
    COUNT(TIMER_FIRED);
    mischief(t->loop);
    if (w.phase == CHAOS && k_below(2) && t->state == T_IDLE) timer_start(t->loop, t);
    callback_leave(p);
}
static void timer_stop(clock_timer *t) {
    COUNT_IF(STOPPED_IN_LINE, t->stand.part && t->stand.hi != NOT_YET);
    ol_timer_stop(w.loop[t->loop], &t->t);
    t->state = T_IDLE;
    place_leave(&t->stand);
}

static int queued(const note *n) { return !n->lost && n->accepted > n->runs; }

/* May run before the ol_post that queued it has returned. */
static void on_note(ol_loop *loop, ol_post_node *node) {
    note *n = OL_CONTAINER(node, note, node);
    partition *p;
    CHECK("callback", loop == w.loop[n->loop]);
    n->runs++;
    CHECK("post", n->runs <= n->accepted + n->posting + n->lost);
    p = callback_enter(n->loop, n->f, &n->stand);
    if (p) note_in_turn(n, p);
    if (n != &w.contended && !p) {
        CHECK("post", n->order >= w.last_post[n->loop][n->thread]); /* first come, first served, for each thread */
        w.last_post[n->loop][n->thread] = n->order;
    }
    n->seen = n->wanted; /* all that was written before an ol_post that found it queued */
    COUNT(POST_RUN);
    k_trace("post", n->thread, n->seen);
    mischief(n->loop);
    callback_leave(p);
}
static int note_post(note *n) {
    const int ran = n->runs, posts = n->accepted + n->posting, is = queued(n);
    uint64_t call;
    int r;
    if (n->lost) return -EBUSY;
    n->wanted++;
    n->posting++;
    call = ++n->calls;
    r = ol_post(w.loop[n->loop], &n->node);
    n->posting--;
    CHECK("post", r == 0 || r == -EBUSY);
    if (is && n->runs == ran) CHECK("post", r == -EBUSY); /* it stays in the queue that it is in */
    if (posts <= ran && n->calls == call) CHECK("post", r == 0);
    n->accepted += r == 0;
    COUNT_IF(POST_BUSY, r == -EBUSY);
    return r;
}
/* What another thread may do at any moment. */
static void outside(void) {
    note *n = &w.notes[k_below(NODES)];
    const uint64_t order = ++w.posts;
    const int thread = sim.in_hook ? 1 : sim.running ? 2 : 0;
    if (n->lost) return;
    if (!queued(n) && !n->posting && w.phase == CHAOS && (n - w.notes) % 2) { /* the others always get through */
        n->f = any_fd(n->loop);
        n->node.fd = n->f ? n->f->handle : 0;
        n->since = moment();
    }
    if (!queued(n) && !n->posting) n->names = n->f ? n->f->part : NULL;
    if (note_post(n)) return;
    n->order = order;
    n->thread = thread;
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
    int i, k;
    for (i = 0; i < NODES; i++) note_init(&w.notes[i], 0);
    note_init(&w.contended, 0);
    w.nposters = k_below(3) ? 0 : 1 + (int)k_below(POSTERS);
    for (i = 0; i < w.nposters; i++) {
        note_init(&w.posters[i].own[0], 3 + i);
        note_init(&w.posters[i].own[1], 3 + i);
        w.posters[i].thread = k_thread_new(K_OTHER, poster_main, &w.posters[i]);
    }
    if (k_below(2)) k_at(k_range(1, MS), outside_later, NULL, 0);
    for (i = 0; i < w.nloops; i++)
        for (k = (int)k_below(TIMERS + 1); k > 0; k--) timer_start(i, &w.timer[i][k - 1]);
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
    if (n->loop != w.stepping || !queued(n) || n->f) return; /* one that is gated may wait for long */
    k_fail("lost wake-up", "sleeps although a post waits");
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

/* Around each step: timers whose time has come and posts that have been made before it stand in line after it. */
static void place_before_step(place *t, fdrec *f, uint64_t since) {
    if (f && !f->closed && !t->part) place_take(t, f->part, since, NOT_YET);
}
static void place_after_step(place *t, uint64_t now) {
    if (t->part && t->hi == NOT_YET) t->hi = now;
}
static void callbacks_before_step(int loop) {
    int i;
    for (i = 0; i < TIMERS; i++) {
        clock_timer *t = &w.timer[loop][i];
        if (t->state == T_RUNNING && t->due <= sim.now) place_before_step(&t->stand, t->f, t->since);
    }
    for (i = 0; i < NODES; i++) {
        note *n = &w.notes[i];
        if (n->loop == loop && queued(n) && !n->posting) place_before_step(&n->stand, n->f, n->since);
    }
}
static void callbacks_after_step(int loop) {
    const uint64_t now = moment();
    int i;
    for (i = 0; i < TIMERS; i++) {
        clock_timer *t = &w.timer[loop][i];
        if (t->state == T_RUNNING && t->due > sim.now) t->since = now;
        else if (t->surely_due <= w.entered) place_after_step(&t->stand, now);
    }
    for (i = 0; i < NODES; i++)
        if (w.notes[i].loop == loop) place_after_step(&w.notes[i].stand, now);
}

/* May somebody whose turn in line is not known hold the partition, or wait for it? */
static int sessions_in(const partition *p);
static int maybe_held(const partition *p) {
    int i, k;
    if (surely_held(p) || sessions_in(p)) return 1;
    for (i = 0; i < w.nloops; i++)
        for (k = 0; k < TIMERS; k++)
            if (w.timer[i][k].state == T_RUNNING && w.timer[i][k].f && w.timer[i][k].f->part == p) return 1;
    for (i = 0; i < NODES; i++)
        if ((queued(&w.notes[i]) || w.notes[i].posting) && w.notes[i].f && w.notes[i].f->part == p) return 1;
    return 0;
}

/* After a round: each timer that names no fd and was due at its beginning has been called. */
static void timers_in_time(int loop) {
    int i;
    for (i = 0; i < TIMERS; i++)
        if (!w.timer[loop][i].f && w.timer[loop][i].state == T_RUNNING)
            CHECK("time", w.timer[loop][i].surely_due > w.entered);
}

/* Is a timer or a post left that the loop must still run? */
static int callbacks_left(int loop) {
    int i, n = 0;
    for (i = 0; i < TIMERS; i++) n += w.timer[loop][i].state == T_RUNNING;
    for (i = 0; i < NODES; i++) n += w.notes[i].loop == loop && queued(&w.notes[i]);
    return n;
}

#endif
