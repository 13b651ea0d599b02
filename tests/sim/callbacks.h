/* callbacks.h: timers, posts, policies. Part of sim.c. */
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
    all.timers++;
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
    all.fired++;
    mischief(t->loop);
    if (w.phase == CHAOS && k_below(4) == 0 && t->state == T_IDLE) timer_start(t->loop, t);
}
static void timer_stop(clock_timer *t) {
    ol_timer_stop(w.loop[t->loop], &t->t);
    t->state = T_IDLE;
}

static void on_note(ol_loop *loop, ol_post_node *node) {
    note *n = OL_CONTAINER(node, note, node);
    CHECK("callback", w.stepping == n->loop && loop == w.loop[n->loop] && w.nframes == 0 && !w.in_submit);
    CHECK("post", n->pending > 0);
    n->pending--;
    CHECK("post", n->order > w.last_post[n->loop][n->thread]); /* first come, first served, for each thread */
    w.last_post[n->loop][n->thread] = n->order;
    n->seen = n->wanted;
    sim.progress++;
    all.posted++;
    k_trace("post", (int64_t)(n - w.notes), n->seen);
    mischief(n->loop);
}
/* What another thread may do at any moment. */
static void outside(void) {
    note *n = &w.notes[k_below(NODES)];
    const uint64_t order = ++w.posts;
    int r;
    n->wanted++;
    r = ol_post(w.loop[n->loop], &n->node);
    CHECK("post", r == 0 || r == -EBUSY);
    if (r == 0) {
        n->pending++;
        n->order = order;
        n->thread = sim.in_hook ? 1 : sim.running ? 2 : 0; /* interrupts, the outside and the loop's own thread */
    }
    all.posts++;
}
static void outside_later(void *arg, uint64_t tag) {
    (void)arg, (void)tag;
    if (w.phase != CHAOS) return; /* such threads have ended before the loops are destroyed */
    outside();
    k_at(k_range(1, MS), outside_later, NULL, 0);
}

static void policy_random(ol_policy *p) {
    uint32_t i;
    memset(p, 0, sizeof *p);
    p->n = k_below(6);
    if (p->n == 0 && k_below(4)) p->n = 1;
    for (i = 0; i < p->n; i++) {
        ol_rule *r = &p->rule[i];
        r->kind = (uint8_t)(k_below(2) ? 0 : k_below(OL__KINDS));
        r->cls = (uint8_t)(k_below(2) ? 0 : k_below(3));
        r->mode = (uint8_t)(k_below(6) == 0 ? OL_SOFTWARE : k_below(3) == 0 ? OL_SYNC : OL_ASYNC);
        r->full = (uint8_t)k_below(4);
        if (k_below(3) == 0) {
            r->min = k_below(500);
            r->max = k_below(2) ? r->min + k_below(2000) : 0;
        }
        if (r->mode != OL_SOFTWARE) snprintf(r->backend, sizeof r->backend, "dev%u", k_below(DEVS));
    }
}
static void policy_set(int loop) {
    ol_policy p, now;
    policy_random(&p);
    if (k_below(8) == 0) { /* a bad one: refused, and the old one stays */
        ol_loop_get_policy(w.loop[loop], &now);
        p.n = 1;
        memset(&p.rule[0], 0, sizeof p.rule[0]);
        p.rule[0].mode = OL_ASYNC;
        memcpy(p.rule[0].backend, "nowhere", 8);
        CHECK("error", ol_loop_set_policy(w.loop[loop], &p) == -EINVAL);
        ol_loop_get_policy(w.loop[loop], &p);
        CHECK("error", memcmp(&p, &now, sizeof p) == 0);
        return;
    }
    CHECK("error", ol_loop_set_policy(w.loop[loop], &p) == 0);
    all.policies++;
}

#endif
