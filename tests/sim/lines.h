/* lines.h: a model of who holds a partition, who stands in line for it, what is joined, who waits for whom. Part of
   sim.c.

   It is kept by what the program does and sees, never by the library's tables. Of the library it is asked one thing:
   whether a coroutine that waits has been woken, and with what (settle), since that happens between two moments at which
   the program is asked. What comes to a line at a moment that the program can't see (a timer that runs out, a post, an
   event for a handler) comes between two moments that it can see: two such are ordered only if one surely came first. */
#ifndef SIM_LINES_H
#define SIM_LINES_H

static uint64_t moment(void) { return ++w.clock; }

/* What the library took from its ready queues, of which class. */
static void count_run(int loop, int cls) {
    if (cls == OL_LATENCY) w.latency_runs[loop]++;
    else w.batch_runs[loop]++;
    w.items++;
}
/* The same for one whose class may have changed since it was put there. */
static void count_blurred(int loop) {
    w.blur[loop]++;
    w.items++;
}
static void count_fd(const fdrec *f) { count_blurred(f->loop); } /* what was put there, and not called, nobody sees */

/* ---------------------------------------------------------------------------------------------------------------- */
/* Lines                                                                                                            */

static void place_take(place *t, partition *p, uint64_t lo, uint64_t hi) {
    CHECK("test", !t->part);
    t->part = t->came = p;
    t->lo = lo;
    t->hi = hi;
    t->next = &p->line;
    t->prev = p->line.prev;
    t->prev->next = t->next->prev = t;
}
static void place_leave(place *t) {
    if (!t->part) return;
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->part = NULL;
}

/* Must a start before b? Only where they surely stood in one line: b came to it, or to what had taken it in by then. */
static int comes_before(const place *a, const place *b) {
    const partition *p;
    if (a->hi >= b->lo) return 0;
    for (p = a->came; p != b->came; p = p->into)
        if (!p->into || p->merged > b->lo) return 0;
    return 1;
}

static int in_line(const partition *p) { /* a root that waits to start */
    const place *t;
    for (t = p->line.next; t != &p->line; t = t->next)
        if (t->surely) return 1;
    return 0;
}
static int surely_held(const partition *p) { return p->holder || p->busy || p->callbacks || in_line(p); }
static int maybe_held(const partition *p);

/* Somebody begins to run in a partition: it must be free, and nobody else's turn. */
static void place_starts(place *t, partition *p) {
    const place *other;
    CHECK("gate", !p->holder);
    CHECK("gate", !p->busy);
    CHECK("gate", p->callbacks == 0);
    if (!t->part) return;
    CHECK("gate", t->part == p);
    for (other = p->line.next; other != &p->line; other = other->next)
        if (other != t && comes_before(other, t)) k_fail("order", "somebody else stood in line before");
    place_leave(t);
}

/* Around a callback that names an fd (NULL: none): while that is open it runs in the partition, in its turn. Whether the
   library took it for one or the other, only the library can say where the fd was closed at about that time. */
static partition *callback_enter(int loop, fdrec *f, place *t) {
    const int gated = w.loop[loop]->callback_part != 0;
    partition *p = f ? f->part : NULL;
    CHECK("callback", w.stepping == loop && w.nframes == 0 && !w.in_submit);
    settle();
    sim.progress++;
    if (!gated) {
        CHECK("gate", !f || f->closed);
        CHECK("gate", !t->part || t->hi == NOT_YET); /* once in line, it has its turn there, closed or not */
        place_leave(t);
        return NULL;
    }
    CHECK("gate", f != NULL);
    p = f->part;
    place_starts(t, p);
    p->busy = 1;
    w.current = p;
    count_fd(f);
    COUNT(GATED);
    return p;
}
static void callback_leave(partition *p) {
    settle();
    if (p) p->busy = 0;
    w.current = NULL;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Joins                                                                                                            */

/* The classes after a join: all of it has the highest of its open fds and its root. One that is closed and waits for
   operations may count, or not: then it is enough that what the library says is between the two. */
static void classes_join(partition *p) {
    int i, cls = 0, least = 0;
    for (i = 0; i < w.nfds; i++) {
        const fdrec *f = &w.fds[i];
        if (f->part != p || !f->cls) continue;
        if (!least || f->cls < least) least = f->cls;
        if (!f->closed && (!cls || f->cls < cls)) cls = f->cls;
    }
    for (i = 0; i < w.nroots; i++) { /* one that is about to start may count as well */
        const root *r = w.roots[i];
        if (r->part == p && r->top == r && (!least || r->cls < least)) least = r->cls;
    }
    if (p->holder && (!cls || p->holder->cls < cls)) cls = p->holder->cls;
    for (i = 0; i < w.nfds; i++) {
        fdrec *f = &w.fds[i];
        if (f->part != p || f->closed) continue;
        f->cls = w.loop[f->loop]->slot[(uint32_t)f->handle].cls;
        CHECK("class", f->cls ? f->cls >= least && (!cls || f->cls <= cls) : !cls);
        f->joined = 1;
    }
    for (i = 0; i < w.nroots; i++) {
        root *r = w.roots[i];
        const int now = (int)ol__co_class(&r->co);
        if (r->part != p || r->ended) continue;
        CHECK("class", now == r->cls || (least && now >= least && now < r->cls));
        if (cls) CHECK("class", now <= cls);
        r->raised |= now != r->cls;
        r->cls = now;
    }
}

/* `from`, which nobody may hold, is a part of `into` from now on. */
static void part_merge(partition *into, partition *from) {
    int i;
    CHECK("join", into != from && !from->holder && !from->busy && !from->callbacks);
    while (from->line.next != &from->line) {
        place *t = from->line.next;
        place_leave(t);
        t->part = into;
        t->next = &into->line;
        t->prev = into->line.prev;
        t->prev->next = t->next->prev = t;
    }
    from->into = into;
    from->merged = moment();
    for (i = 0; i < w.nfds; i++)
        if (w.fds[i].part == from) w.fds[i].part = into;
    for (i = 0; i < w.nroots; i++)
        if (w.roots[i]->part == from) w.roots[i]->part = into;
    if (!into->fd || into->fd->closed) into->fd = from->fd;
    classes_join(into);
    COUNT(JOINED);
    k_trace("joined", into - w.parts, from - w.parts);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Locks                                                                                                            */

static int vault_at(const vault *v, const root *r) {
    int i = 0;
    while (i < v->n && v->line[i] != r) i++;
    return i;
}
static void vault_leave(vault *v, const root *r) {
    const int i = vault_at(v, r);
    CHECK("test", i < v->n);
    memmove(&v->line[i], &v->line[i + 1], (size_t)(--v->n - i) * sizeof v->line[0]);
}
/* Its owner lets go; the next in line has it. */
static void vault_release(vault *v) {
    v->owner = v->n ? v->line[0] : NULL;
    if (v->owner) vault_leave(v, v->owner);
    v->stamp = ++w.stamps;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Who waits for whom                                                                                               */

static int reaches(root *from, root *to);
static int reaches_all(const root *top, const root *from, root *to, int and_top) {
    int i;
    for (i = 0; i < w.nroots; i++) {
        root *r = w.roots[i];
        if (r->top != top || (r == top && !and_top) || (r == from && r != to)) continue;
        if (r == to || reaches(r, to)) return 1;
    }
    return 0;
}
/* Is what `from` waits for, or what that waits for, and so on, `to`? For a partition its root and all children are waited
   for, for a lock its owner. In the simplest way: all of it anew, by depth first. */
static int reaches(root *from, root *to) {
    if (from->seen == w.stamps) return 0;
    from->seen = w.stamps;
    switch (from->waits) {
    case WAITS_JOIN: {
        const root *holder = from->waits_fd->part->holder;
        return holder && reaches_all(holder, from, to, 1);
    }
    case WAITS_LOCK: {
        root *owner = from->waits_vault->owner;
        return owner && (owner == to || reaches(owner, to));
    }
    case WAITS_CHILD: return from->waits_child == to || reaches(from->waits_child, to);
    case WAITS_ALL: return reaches_all(from->top, from, to, 0);
    default: return from->ended && reaches_all(from, from, to, 0);
    }
}
static int in_circle(root *r) {
    w.stamps++;
    return reaches(r, r);
}

static int woken(const root *r) { return (r->co.frame.bits & (OL__CO_DONE | OL__CO_RETRY)) != 0; }

static void waits_begin(root *r, int what) {
    r->waits = what;
    w.waiting[w.nwaiting++] = r;
    if (what == WAITS_JOIN) {
        const uint64_t now = moment();
        place_take(&r->stand, r->waits_fd->part, now, now);
    }
    if (what == WAITS_LOCK) r->waits_vault->line[r->waits_vault->n++] = r;
}
/* It has been woken: by what it waited for, or it is to look again at why. 1: partitions were joined. */
static int waits_end(root *r) {
    const int done = (r->co.frame.bits & OL__CO_DONE) != 0, what = r->waits;
    int joined = 0;
    if (what == WAITS_JOIN) {
        place_leave(&r->stand);
        if (done && r->co.result == 0 && r->part != r->waits_fd->part) {
            part_merge(r->part, r->waits_fd->part);
            joined = 1;
        }
    } else if (what == WAITS_LOCK) {
        if (done) CHECK("lock", r->waits_vault->owner == r);
        else vault_leave(r->waits_vault, r);
    }
    r->waits = WAITS_NOT;
    return joined;
}

/* Takes note of all who have been woken since the program was last asked. A join moves a line of others who join: they
   wait for other coroutines then, and nobody else looks whether that closes a circle. */
static int gives_up(const root *r) { /* it waited, and a join has closed a circle */
    return (r->co.frame.bits & OL__CO_DONE) && r->co.result == -EDEADLK && r->waits != WAITS_CHILD;
}
static int settle_those(int that_give_up) {
    int i, joined = 0;
    for (i = 0; i < w.nwaiting;) {
        root *r = w.waiting[i];
        if (!woken(r) || gives_up(r) != that_give_up) {
            i++;
            continue;
        }
        joined |= waits_end(r);
        memmove(&w.waiting[i], &w.waiting[i + 1], (size_t)(--w.nwaiting - i) * sizeof w.waiting[0]);
    }
    return joined;
}
static void settle(void) {
    int i, joined = settle_those(0);
    for (i = 0; i < w.nwaiting; i++)
        if (gives_up(w.waiting[i]) && !in_circle(w.waiting[i]))
            k_fail("deadlock", "%d gives up, and there is no circle", w.waiting[i]->id);
    settle_those(1);
    for (i = 0; joined && i < w.nwaiting; i++)
        if (in_circle(w.waiting[i]))
            k_fail("deadlock", "%d waits in a circle that a join has closed", w.waiting[i]->id);
}

#endif
