/* sharing.h: sharers, which join, lock, fork and wait for each other as it comes; proxies, which do it as it should be
   done. Part of sim.c.

     lock        one owner at a time, first come, first served; what it guards does not change across an await
     deadlock    -EDEADLK where a wait would close a circle of joins, locks and children, and only there
     children    no child outlives its root; what follows the root's end comes after the last; results arrive
     flow        a proxy's bytes, both ways at once */
#ifndef SIM_SHARING_H
#define SIM_SHARING_H

enum { FAMILY = 8, SPOTS = 4 };
typedef struct sharer {
    root r;
    ol_frame frame[3];
    struct sharer *head, *kin[FAMILY]; /* of the root: all of its family that was ever there */
    int nkin, generation;
    fdrec *f, *target; /* where it was spawned; what it joins or reads */
    vault *v;
    root *child;
    task *t;
    before b;
    int64_t n, span;
    int what, depth, steps;
    int expects; /* MUST_WAIT, MAY_WAIT, or 0 */
    int foreign; /* the child is another family's, and may be gone */
    uint64_t stamp[VAULTS];
    unsigned char buf[32];
    int rivals;     /* how many read the same fd when it asked for a read of its own, */
    uint64_t reads; /* and which one that is */
} sharer;
enum {
    S_LOCK,
    S_UNLOCK,
    S_JOIN,
    S_TRY_JOIN,
    S_FORK,
    S_WAIT,
    S_SLEEP,
    S_YIELD,
    S_RUN,
    S_SUBMIT,
    S_READ,
    S_CLOSE,
    S_KINDS
};
static const unsigned char share_weight[S_KINDS] = {6, 4, 4, 1, 4, 4, 3, 3, 3, 1, 3, 1};
static struct sharing {
    int starts; /* sharers that may still be started */
    int proxies;
    fdrec *spot[LOOPS][SPOTS];
    root *dead[ROOTS]; /* ended by OL_RETURN: to be freed when nobody runs */
    int ndead;
} sharing;

static void sharer_entry(ol_co *co);
static void share_entry(ol_co *co);

/* ---------------------------------------------------------------------------------------------------------------- */
/* Three awaits, each with what it must give. They may be evaluated again after a wake-up.                          */

enum { MUST_WAIT = 1, MAY_WAIT = 2 };

/* The await has been called. It waits as it should, or has its result; -EDEADLK exactly where it must be. */
static int share_called(sharer *s, int pending, int what, int circle) {
    root *r = &s->r;
    if (pending && !woken(r)) {
        CHECK("deadlock", !circle);
        CHECK("wait", s->expects == MUST_WAIT || s->expects == MAY_WAIT);
        waits_begin(r, what);
        return pending;
    }
    if (r->co.result == -EDEADLK) CHECK("deadlock", circle);
    else if (r->co.result >= 0)
        CHECK("wait", s->expects == 0 || s->expects == MAY_WAIT || (what == WAITS_CHILD && s->expects != MUST_WAIT));
    return pending;
}
/* Would a wait for that close a circle? Asked before it is called. */
static int share_circle(sharer *s, int what) {
    int circle;
    s->r.waits = what;
    circle = in_circle(&s->r);
    s->r.waits = WAITS_NOT;
    return circle;
}

static int await_lock(ol_co *co, sharer *s) {
    vault *v = s->v;
    int circle, pending;
    settle();
    s->r.waits_vault = v;
    circle = share_circle(s, WAITS_LOCK);
    s->expects = v->owner ? MUST_WAIT : 0;
    pending = ol_lock(co, &v->m);
    if (v->owner == NULL && v->m.holder == co) v->owner = &s->r, v->stamp = ++w.stamps;
    return share_called(s, pending, WAITS_LOCK, circle);
}

static int await_join(ol_co *co, sharer *s) {
    fdrec *f = s->target;
    partition *p, *own;
    int circle = 0, pending;
    settle();
    p = f->part;
    own = s->r.part;
    s->r.waits_fd = f;
    s->expects = 0;
    if (!f->closed && p != own) {
        s->expects = surely_held(p) ? MUST_WAIT : maybe_held(p) ? MAY_WAIT : 0;
        circle = share_circle(s, WAITS_JOIN);
    }
    pending = ol_join(co, f->handle);
    if (s->r.co.result == 0 && !f->closed && p != own && (!pending || woken(&s->r))) part_merge(own, p);
    return share_called(s, pending, WAITS_JOIN, circle);
}

static int await_wait(ol_co *co, sharer *s) {
    root *r = &s->r, *c = s->child;
    const int what = c ? WAITS_CHILD : WAITS_ALL;
    int circle = 0, pending;
    settle();
    r->waits_child = c;
    s->expects = 0;
    if (c ? !c->ended && c->top == r->top && c != r->top : r->top == r && r->family) {
        s->expects = MUST_WAIT;
        circle = share_circle(s, what);
    }
    pending = ol_wait(co, c ? &c->child : NULL);
    return share_called(s, pending, what, circle);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* One step of a sharer, somewhere in its sub-coroutines. Its result: 1 go on, 0 end.                               */

static int share_choice(void) {
    int i, total = 0, x;
    for (i = 0; i < S_KINDS; i++) total += share_weight[i];
    x = (int)k_below((uint32_t)total);
    for (i = 0; x >= share_weight[i]; i++) x -= share_weight[i];
    return i;
}

/* Some open fd of the loop that may be joined; now and then one that is closed. */
static fdrec *share_target(int loop) {
    int i;
    for (i = 0; i < 8; i++) {
        fdrec *f = w.nopen && k_below(16) ? w.open[k_below((uint32_t)w.nopen)] : &w.fds[k_below((uint32_t)w.nfds)];
        if (f->loop == loop && (f->joins || f->closed)) return f;
    }
    return NULL;
}
/* An fd of its own partition that sends something. */
static fdrec *share_source(const sharer *s) {
    int i;
    for (i = 0; i < SPOTS; i++) {
        fdrec *f = sharing.spot[s->r.loop][k_below(SPOTS)];
        if (f && f->part == s->r.part) return f;
    }
    return NULL;
}
static root *share_relative(sharer *s) {
    const sharer *top = s->head;
    if (k_below(12) == 0) return &s->r; /* itself */
    if (k_below(16) == 0) {             /* somebody else's, and alive: then it can't be freed meanwhile */
        root *r = w.roots[k_below((uint32_t)w.nroots)];
        if (r->loop == s->r.loop && r->kind == R_CHILD) return r;
    }
    return top->nkin ? &top->kin[k_below((uint32_t)top->nkin)]->r : NULL;
}

static void share_prepare(sharer *s) {
    root *r = &s->r;
    s->what = share_choice();
    s->n = 0;
    s->v = &w.vaults[r->loop][k_below(VAULTS)];
    s->target = s->what == S_JOIN || s->what == S_TRY_JOIN ? share_target(r->loop) : share_source(s);
    s->child = s->what == S_WAIT && k_below(4) ? share_relative(s) : NULL;
    s->foreign = s->child && s->child->top != r->top;
    s->span = k_range(0, 100 * US);
    if ((s->what == S_JOIN || s->what == S_TRY_JOIN || s->what == S_READ) && !s->target) s->what = S_YIELD;
    if (s->what == S_FORK &&
        (s->head->nkin == FAMILY || s->generation == 3 || w.phase == ENDING || w.nroots > ROOTS - 64))
        s->what = S_YIELD;
    if (s->what == S_CLOSE && k_below(3)) s->what = S_YIELD;
    if ((s->what == S_JOIN || s->what == S_READ) && (r->deadline == K_NEVER || sim.now >= r->deadline))
        root_deadline(r, k_range(1, 2 * MS)); /* nothing in here need ever let go of it */
    if ((s->what == S_JOIN || s->what == S_READ) && r->deadline == K_NEVER) s->what = S_YIELD; /* no memory for that */
    begin(&s->b, r, s->what == S_JOIN || s->what == S_READ ? s->target : NULL);
}

/* Has this await, which is none for an fd alone, ended as it may? 1: well. */
static int share_judge(sharer *s) {
    root *r = &s->r;
    const fdrec *f = s->what == S_JOIN ? s->target : NULL;
    k_trace("shared", r->id, s->n);
    if (s->n >= 0) return 1;
    told(ol_co_error(&r->co));
    if (s->b.canceled) CHECK("error", s->n == -ECANCELED);
    if (s->n == -ECANCELED) {
        CHECK("error", r->canceled || (f && f->closed && !s->b.closed));
    } else if (s->n == -ETIMEDOUT) {
        CHECK("error", !r->canceled || s->b.due);
        CHECK("time", sim.now >= r->deadline || r->was_due);
    } else if (s->n == -EBADF) {
        CHECK("error", f && s->b.closed);
    } else if (s->n == -ENOMEM) {
        CHECK("error", sim.stats.enomem);
    } else {
        CHECK("error", s->n == -EDEADLK);
    }
    COUNT_IF(AW_NOMEM, s->n == -ENOMEM);
    COUNT_IF(DEADLOCKS, s->n == -EDEADLK);
    return 0;
}

static void share_locked(sharer *s) {
    const int i = (int)(s->v - w.vaults[s->r.loop]);
    if (!share_judge(s)) return;
    CHECK("lock", s->v->owner == &s->r);
    s->stamp[i] = s->v->stamp;
    COUNT(LOCKED);
}
static void share_untouched(const sharer *s) { /* what it guards is as it left it */
    int i;
    for (i = 0; i < VAULTS; i++)
        if (w.vaults[s->r.loop][i].owner == &s->r) CHECK("lock", w.vaults[s->r.loop][i].stamp == s->stamp[i]);
}
static void share_unlock(sharer *s) {
    const int mine = s->v->owner == &s->r, r = ol_unlock(&s->r.co, &s->v->m);
    CHECK("lock", r == (mine ? 0 : -EINVAL));
    if (mine) vault_release(s->v);
    else told(ol_error());
}

static void share_joined(sharer *s) {
    if (!share_judge(s)) return;
    CHECK("join", s->n == 0 && !s->b.closed);
    CHECK("join", s->target->part == s->r.part || s->target->closed);
    COUNT(JOIN_DONE);
}
/* From anywhere; the model decides what it must give. */
static void try_join(int loop, fdrec *a, fdrec *b) {
    partition *x, *y;
    int r;
    settle();
    x = a->part;
    y = b->part;
    r = ol_try_join(w.loop[loop], a->handle, b->handle);
    k_trace("try join", r, 0);
    if (a->closed || b->closed || b->loop != loop || a->loop != loop) {
        CHECK("error", r == -EBADF);
        return;
    }
    if (x == y) {
        CHECK("join", r == 0);
    } else if (r == 0) {
        CHECK("join", !surely_held(x) || !surely_held(y));
        if (surely_held(y) || (!surely_held(x) && maybe_held(y))) part_merge(y, x);
        else part_merge(x, y);
        COUNT(TRY_JOINED);
    } else {
        CHECK("join", r == -EBUSY && maybe_held(x) && maybe_held(y));
        told(ol_error());
        COUNT(JOIN_BUSY);
    }
}

static void share_fork(sharer *s) {
    sharer *c = (sharer *)k_own(sizeof *c);
    c->head = s->head;
    c->generation = s->generation + 1;
    c->f = s->f;
    c->steps = 1 + (int)k_below(5);
    s->head->kin[s->head->nkin++] = c;
    child_fork(&s->r, &c->r, c, sharer_entry);
}
static void share_waited(sharer *s) {
    root *r = &s->r, *c = s->child;
    if (c && !s->foreign && s->n == c->value && c->ended) { /* also a negative one */
        COUNT(WAITED);
        return;
    }
    if (s->n == -EINVAL) {
        CHECK("error", !s->b.canceled && (c ? c == r && r->top == r : r->top != r));
        return;
    }
    if (s->n == -EXDEV) {
        CHECK("error", !s->b.canceled && s->foreign);
        return;
    }
    if (!share_judge(s)) return;
    CHECK("children", !c && s->n == 0 && r->family == 0);
    COUNT(WAITED_ALL);
}

static void share_read(sharer *s) {
    flow *f = s->target->flow;
    int64_t i;
    s->target->readers--;
    if (s->n == -EBUSY) {
        CHECK("error",
              s->rivals || s->target->reads > s->reads); /* one of its own family, at some time since it asked */
        COUNT(AW_BUSY);
        return;
    }
    judge(&s->r, s->target, &s->b, s->n);
    for (i = 0; i < s->n; i++)
        if (s->buf[i] != k_byte(f->seed, f->taken + (uint64_t)i)) k_fail("flow", "a sharer reads a wrong byte");
    if (s->n > 0) f->taken += (uint32_t)s->n;
}

static void share_step(ol_co *co) {
    sharer *s = (sharer *)owner_of(co);
    root *r = &s->r;
    const int level = (int)(co->top - s->frame);
    int64_t n;
    OL_BEGIN(co);
    if (level < s->depth) {
        OL_CALL(n, &s->frame[level + 1], share_entry);
        OL_RETURN(n);
    }
    share_prepare(s);
    if (s->what == S_LOCK) {
        OL_AWAIT(s->n, await_lock(co, s));
        share_locked(s);
    } else if (s->what == S_JOIN) {
        OL_AWAIT(s->n, await_join(co, s));
        share_joined(s);
    } else if (s->what == S_WAIT) {
        OL_AWAIT(s->n, await_wait(co, s));
        share_waited(s);
        if (s->n != -ECANCELED && s->n != -ETIMEDOUT) s->n = 0;
    } else if (s->what == S_SLEEP) {
        OL_AWAIT(s->n, await_sleep(co, s->span));
        if (s->n == 0) CHECK("time", sim.now - s->b.at >= s->span);
    } else if (s->what == S_YIELD) {
        OL_YIELD();
    } else if (s->what == S_RUN) {
        s->t = task_new(r->loop, r->part);
        s->t->awaited = 1;
        task_begin(s->t, r->cls);
        OL_AWAIT(s->n, await_run(co, s->t));
        task_end(s->t);
        judge_task(s->t, r, &s->b, s->n);
    } else if (s->what == S_READ) {
        s->rivals = s->target->readers++;
        s->reads = ++s->target->reads;
        OL_AWAIT(s->n, ol_read(co, s->target->handle, s->buf, sizeof s->buf));
        share_read(s);
    } else if (s->what == S_UNLOCK) {
        share_unlock(s);
    } else if (s->what == S_TRY_JOIN) {
        try_join(r->loop, s->target, s->f);
    } else if (s->what == S_FORK) {
        share_fork(s);
    } else if (s->what == S_SUBMIT) {
        task_submit(r->loop, r->part);
    } else if (s->f->joins && !s->f->closed && s->f->part == r->part) { /* S_CLOSE */
        taint_fd(s->f);
        fd_close(s->f);
    }
    share_untouched(s);
    mischief(r->loop);
    if (s->n == -ECANCELED || s->n == -ETIMEDOUT) OL_RETURN(recover(r, s->n));
    OL_RETURN(1);
    OL_END(co);
}
static void share_entry(ol_co *co) {
    enter(co);
    share_step(co);
    leave_sub(co);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Sharers                                                                                                          */

static void family_free(sharer *s) {
    int i;
    CHECK("children", s->r.family == 0);
    for (i = 0; i < s->nkin; i++) {
        CHECK("children", s->kin[i]->r.ended);
        k_disown(s->kin[i]);
    }
    k_disown(s);
}

static void sharer_main(ol_co *co) {
    sharer *s = (sharer *)owner_of(co);
    root *r = &s->r;
    int64_t go_on;
    OL_BEGIN(co);
    if (r->top == r) root_started(r);
    r->started = 1;
    while (s->steps-- > 0) {
        s->depth = (int)k_below(3);
        OL_CALL(go_on, &s->frame[0], share_entry);
        if (!go_on) break;
    }
    share_untouched(s);
    if (r->top != r) {
        child_ended(r, k_below(2) ? k_range(-15, 1000) : 0);
        OL_RETURN(r->value);
    }
    root_ended(r);
    if (k_below(2)) {
        r->returns = r->family > 0;
        sharing.dead[sharing.ndead++] = r;
        OL_RETURN(k_range(-5, 5));
    }
    OL_END_THEN(co, family_free(s));
}
static void sharer_entry(ol_co *co) {
    enter(co);
    sharer_main(co);
    leave();
}
static void sharer_start(fdrec *f) {
    sharer *s = (sharer *)k_own(sizeof *s);
    s->head = s;
    s->f = f;
    s->steps = 2 + (int)k_below(10);
    if (root_spawn(&s->r, s, R_SHARER, f->loop, f->part, f, sharer_entry) != 0) k_disown(s);
}
/* Nobody runs: those that ended without a word are freed when their families have. */
static void sharing_sweep(void) {
    int i = 0;
    while (i < sharing.ndead) {
        sharer *s = (sharer *)sharing.dead[i]->owner;
        if (s->r.family) {
            i++;
            continue;
        }
        sharing.dead[i] = sharing.dead[--sharing.ndead];
        family_free(s);
    }
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Proxies: two connections joined, a child for each way                                                            */

typedef struct way {
    root r;
    struct proxy *proxy;
    fdrec *from, *to;
    before b;
    int64_t n, written;
    unsigned char buf[50];
} way;
typedef struct proxy {
    sharer s; /* its root, and what a join needs */
    way ways[2];
    int open, tries, waits;
} proxy;

static void proxy_close(proxy *p) {
    int i;
    for (i = 0; i < 2; i++)
        if (!p->ways[i].from->closed) fd_close(p->ways[i].from);
}
static void proxy_fails(proxy *p) {
    int i;
    for (i = 0; i < 2; i++) flow_taint(p->ways[i].from->flow);
    proxy_close(p);
}
static void way_over(way *x) { /* the end of what one side sends, for the other to see */
    if (x->n == 0 && !x->to->closed) k_fin(sim.file[ol_fd_raw(w.loop[x->r.loop], x->to->handle)]->end);
    if (x->n < 0) proxy_fails(x->proxy);
}
static void way_main(ol_co *co) {
    way *x = (way *)owner_of(co);
    root *r = &x->r;
    OL_BEGIN(co);
    r->started = 1;
    do {
        begin(&x->b, r, x->from);
        OL_AWAIT(x->n, ol_read(co, x->from->handle, x->buf, sizeof x->buf));
        judge(r, x->from, &x->b, x->n);
        mischief(r->loop);
        if (x->n <= 0) continue;
        begin(&x->b, r, x->to);
        OL_AWAIT(x->written, ol_write(co, x->to->handle, x->buf, (size_t)x->n));
        judge(r, x->to, &x->b, x->written);
        if (x->written < 0) x->n = x->written;
        else CHECK("flow", x->written == x->n);
    } while (x->n > 0);
    way_over(x);
    child_ended(r, x->n);
    OL_RETURN(r->value);
    OL_END(co);
}
static void way_entry(ol_co *co) {
    enter(co);
    way_main(co);
    leave();
}

static void proxy_free(proxy *p) {
    CHECK("children", p->s.r.family == 0 && (!p->open || (p->ways[0].r.ended && p->ways[1].r.ended)));
    proxy_close(p);
    k_disown(p);
}
static void proxy_main(ol_co *co) {
    proxy *p = (proxy *)owner_of(co);
    sharer *s = &p->s;
    root *r = &s->r;
    OL_BEGIN(co);
    root_started(r);
    s->what = S_JOIN;
    s->target = p->ways[1].from;
    for (p->tries = 0; p->tries < 5; p->tries++) {
        root_deadline(r, k_range(1, 3 * MS));
        begin(&s->b, r, s->target);
        OL_AWAIT(s->n, await_join(co, s));
        share_joined(s);
        if (s->n == 0 || s->n == -EBADF) break;
        if (s->n == -ECANCELED && !recover(r, s->n)) break;
    }
    if (s->n == 0) {
        root_deadline(r, OL_NEVER);
        p->open = 1;
        COUNT(PROXIED);
        child_fork(r, &p->ways[0].r, &p->ways[0], way_entry);
        child_fork(r, &p->ways[1].r, &p->ways[1], way_entry);
        mischief(r->loop);
        for (p->waits = (int)k_below(3); p->waits > 0; p->waits--) { /* for one, for all, or just its end */
            s->child = k_below(2) ? &p->ways[k_below(2)].r : NULL;
            s->what = S_WAIT;
            begin(&s->b, r, NULL);
            OL_AWAIT(s->n, await_wait(co, s));
            s->foreign = 0;
            share_waited(s);
            (void)recover(r, s->n);
        }
    } else {
        proxy_fails(p);
    }
    root_ended(r);
    OL_END_THEN(co, proxy_free(p));
}
static void proxy_entry(ol_co *co) {
    enter(co);
    proxy_main(co);
    leave();
}
static void proxy_start(int loop) {
    proxy *p;
    fdrec *a, *b;
    int i;
    if (flows.n + 2 > FLOWS) return;
    a = flow_fd(loop, 0);
    b = flow_fd(loop, 0);
    if (!a || !b) {
        if (a || b) flow_taint((a ? a : b)->flow);
        if (a || b) fd_close(a ? a : b);
        return;
    }
    p = (proxy *)k_own(sizeof *p);
    a->flow->theirs = b->flow->seed;
    a->flow->expect = b->flow->total;
    b->flow->theirs = a->flow->seed;
    b->flow->expect = a->flow->total;
    p->ways[0].from = p->ways[1].to = a;
    p->ways[1].from = p->ways[0].to = b;
    for (i = 0; i < 2; i++) p->ways[i].proxy = p;
    p->s.f = a;
    p->s.head = &p->s;
    if (root_spawn(&p->s.r, p, R_PROXY, loop, a->part, a, proxy_entry) == 0) return;
    proxy_fails(p);
    k_disown(p);
}

/* ---------------------------------------------------------------------------------------------------------------- */

static void sharing_build(void) {
    int i, k, n;
    for (i = 0; i < w.nloops; i++) {
        for (k = 0; k < VAULTS; k++) w.vaults[i][k].loop = i;
        for (k = 0; k < SPOTS; k++) {
            fdrec *f = sharing.spot[i][k] = flow_fd(i, 0);
            if (!f) continue;
            f->flow->spot = 1;
            f->flow->expect = 0;
        }
        for (n = 2 + (int)k_below(6); n > 0; n--) {
            fdrec *f = sharing.spot[i][k_below(SPOTS)];
            if (f) sharer_start(f);
        }
    }
    sharing.starts = (int)k_below(12);
    for (n = (int)k_below(3); n > 0; n--) proxy_start((int)k_below((uint32_t)w.nloops));
    sharing.proxies = (int)k_below(3);
}
static int sharing_calm(void) {
    int i;
    for (i = 0; i < flows.n; i++)
        if (!flows.all[i].over && !flows.all[i].spot) return 0;
    return 1;
}
static void sharing_end(void) {
    int i;
    sharing_sweep();
    CHECK("children", sharing.ndead == 0);
    for (i = 0; i < w.nloops * VAULTS; i++) {
        const vault *v = &w.vaults[i / VAULTS][i % VAULTS];
        CHECK("lock", !v->owner && v->n == 0 && !v->m.holder);
    }
    CHECK("wait", w.nwaiting == 0);
}

#endif
