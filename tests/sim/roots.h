/* roots.h: start, resume and end of root coroutines; judging the result of an await. Part of sim.c. */
#ifndef SIM_ROOTS_H
#define SIM_ROOTS_H

static void root_gone(root *r);

/* Around every function of a coroutine. */
static void enter(ol_co *co) {
    root *r = (root *)(void *)co;
    int i;
    sim.now += k_range(0, 300);
    k_stall();
    sim.progress++;
    settle();
    CHECK("resume", w.stepping == r->loop);
    CHECK("resume", !w.in_submit);
    if (w.nframes == 0 && w.goes_on != co) {
        if (r->raised || r->ended) count_blurred(r->loop); /* at its end a join may have raised it, too */
        else count_run(r->loop, r->cls);
        r->was_raised = r->raised;
        r->raised = 0;
        w.awaits = 0;
        k_trace("run", r->id, r->kind);
    }
    if (r->started || r->top != r) CHECK("gate", r->part->holder == r->top);
    r->sleeps = 0;
    if (r->ended) root_gone(r); /* its children have ended: now it ends */
    if (w.nframes == 0) w.running = co;
    w.goes_on = NULL;
    CHECK("resume", w.running == co);
    for (i = 0; i < w.nframes; i++) CHECK("resume", w.frames[i] != co->top);
    CHECK("resume", w.nframes < DEPTH + 4);
    w.frames[w.nframes++] = co->top;
    w.current = r->part;
}
static void leave(void) {
    if (--w.nframes == 0) {
        w.running = NULL;
        w.current = NULL;
    }
}
/* Around a sub-coroutine: where it has ended, its caller goes on in the same run. */
static void leave_sub(ol_co *co) {
    const ol_frame *frame = w.frames[w.nframes - 1];
    leave();
    if (co->top != frame && w.nframes == 0) w.goes_on = co;
}

static void root_started(root *r) {
    place_starts(&r->stand, r->part);
    r->part->holder = r;
    r->started = 1;
    k_trace("start", r->id, r->kind);
}
static void root_listed(root *r) {
    r->at = w.nroots;
    w.roots[w.nroots++] = r;
}
static void root_unlisted(root *r) {
    w.roots[r->at] = w.roots[--w.nroots];
    w.roots[r->at]->at = r->at;
    k_trace("end", r->id, r->kind);
}
static void root_gone(root *r) {
    CHECK("gate", r->part->holder == r && r->family == 0);
    r->part->holder = NULL;
    w.alive[r->loop]--;
    root_unlisted(r);
}
static void locks_end(root *r) { /* what it held, the library gives to the next in line */
    int i;
    settle();
    for (i = 0; i < VAULTS && r->loop < LOOPS; i++)
        if (w.vaults[r->loop][i].owner == r) vault_release(&w.vaults[r->loop][i]);
}
/* It has reached its end; the library learns of it right after this. A root waits for its children: one that returns is
   gone with the last of them, any other is resumed once more. */
static void root_ended(root *r) {
    locks_end(r);
    r->ended = 1;
    if (r->family == 0) root_gone(r);
}
static void child_ended(root *r, int64_t value) {
    root *top = r->top;
    CHECK("children", r != top && top->family > 0 && r->part == top->part);
    locks_end(r);
    r->ended = 1;
    r->value = value;
    root_unlisted(r);
    if (--top->family == 0 && top->returns) root_gone(top);
}

static void root_init(root *r, void *owner, int kind, int loop, partition *p) {
    memset(&r->co, 0x5a, sizeof r->co); /* need not be initialised */
    r->kind = kind;
    r->loop = loop;
    r->id = ++w.next_id;
    r->started = r->canceled = r->was_due = r->sleeps = r->was_raised = r->family = r->ended = r->returns = r->waits =
        r->raised = 0;
    r->deadline = r->surely_due = K_NEVER;
    r->part = p;
    r->owner = owner;
    r->top = r;
}

/* Spawns; 0 or the error, which must have a cause. */
static int root_spawn(root *r, void *owner, int kind, int loop, partition *p, fdrec *f, void (*fn)(ol_co *)) {
    int result;
    ol_loop_stats s;
    uint64_t withheld;
    const int cls = (int)k_below(3);
    int surely, maybe;
    if (w.nroots == ROOTS) return -EAGAIN;
    settle();
    if (f) p = f->part; /* it may just have been joined */
    root_init(r, owner, kind, loop, p);
    r->cls = cls ? cls : f && f->cls ? f->cls : OL_BATCH;
    s.size = sizeof s;
    ol_loop_get_stats(w.loop[loop], &s);
    withheld = s.withheld;
    surely = surely_held(p);
    maybe = surely || maybe_held(p);
    result = ol_spawn(w.loop[loop], &r->co, fn, f ? f->handle : 0, cls);
    ol_loop_get_stats(w.loop[loop], &s);
    if (result == 0) { /* it waits if its partition is held, and only then */
        if (surely) CHECK("gate", s.withheld == withheld + 1);
        if (!maybe) CHECK("gate", s.withheld == withheld);
        CHECK("class", (int)ol__co_class(&r->co) == r->cls || (f && f->joined && f->cls < r->cls));
        r->cls = (int)ol__co_class(&r->co);
    }
    k_trace("spawn", r->id, result);
    if (result) {
        told(ol_error());
        if (f && f->closed) {
            CHECK("error", result == -EBADF);
        } else {
            CHECK("error", result == -ENOMEM && sim.stats.enomem);
        }
        return result;
    }
    if (w.draining == loop) r->canceled = 1;
    {
        const uint64_t now = moment();
        place_take(&r->stand, p, now, now);
        r->stand.surely = 1;
    }
    root_listed(r);
    w.alive[loop]++;
    COUNT_AT(ROOT, kind);
    return 0;
}

/* A child of the coroutine that runs. */
static void child_fork(root *parent, root *c, void *owner, void (*fn)(ol_co *)) {
    root_init(c, owner, R_CHILD, parent->loop, parent->part);
    CHECK("error", ol_fork(&parent->co, &c->child, fn) == 0);
    CHECK("children", !c->started);
    c->top = parent->top;
    c->top->family++;
    c->cls = (int)ol__co_class(&c->co);
    CHECK("class", c->cls == parent->cls);
    c->canceled = ol_canceled(&c->co);
    CHECK("error", c->canceled == (parent->canceled || w.draining == parent->loop));
    root_listed(c);
    k_trace("fork", parent->id, c->id);
    COUNT(ROOT_CHILD);
}

/* An await that a deadline has ended is not recalled by a cancel that comes before its coroutine has run. */
static void root_canceled(root *r) {
    r->canceled = 1;
    r->was_late = sim.now >= r->deadline;
}
static void root_cancel(root *r) {
    int i;
    settle();
    root_canceled(r);
    for (i = 0; i < w.nroots && r->part->holder == r; i++)
        if (w.roots[i]->top == r && w.roots[i] != r) root_canceled(w.roots[i]);
    k_trace("cancel", r->id, 0);
    ol_cancel(&r->co);
    CHECK("error", ol_canceled(&r->co) == 1);
}
static void root_deadline(root *r, int64_t ns) {
    const int64_t at = sim.now;
    int e;
    settle();
    e = ol_deadline(&r->co, ns);
    k_trace("deadline", r->id, ns);
    if (at >= r->deadline) r->was_due = 1;
    if (e) {
        CHECK("error", e == -ENOMEM && sim.stats.enomem);
        return;
    }
    r->deadline = ns == OL_NEVER ? K_NEVER : at + (ns > 0 ? ns : 0);
    r->surely_due = ns == OL_NEVER ? K_NEVER : sim.now + (ns > 0 ? ns : 0);
    r->set_in = w.steps[r->loop];
}

/* ol_sleep, evaluated again where a cancel or a deadline that was taken back has interrupted it. */
static int await_sleep(ol_co *co, int64_t ns) {
    root *r = (root *)(void *)co;
    const int again = r->sleeps_until && (co->frame.bits & OL__CO_RETRY);
    const int pending = ol_sleep(co, ns);
    if (!again) r->sleeps_until = sim.now + ns;
    r->sleeps_since = w.steps[r->loop];
    r->sleeps = pending && !woken(r);
    return pending;
}
/* After a round: who was to wake up before its beginning has been woken. */
static void sleepers_in_time(int loop) {
    int i;
    for (i = 0; i < w.nroots; i++) {
        const root *r = w.roots[i];
        if (r->loop != loop || !r->sleeps || r->sleeps_since >= w.steps[loop]) continue;
        if (r->sleeps_until <= w.entered) CHECK("time", woken(r));
    }
}

/* A time that came up now was due at `due`. While one loop is drained at the end, nobody steps the other. */
static void check_late(int64_t due) {
    if (due < w.idle_until) due = w.idle_until;
    CHECK("time", sim.now <= due + LATE || (w.phase == ENDING && w.nloops > 1));
}

/* What is remembered at the start of an await, to judge its result. */
typedef struct before {
    int canceled, closed, closes, due;
    int overdue; /* the deadline had passed before the loop's last round */
    int64_t at;
} before;
static void begin(before *b, root *r, const fdrec *f) {
    r->was_due = 0;
    b->canceled = r->canceled;
    b->closed = f && f->closed;
    b->closes = r->part->closes;
    b->due = sim.now >= r->deadline;
    b->overdue = r->surely_due <= w.began[r->loop] && r->set_in < w.steps[r->loop];
    b->at = sim.now;
}

/* A request to end shows at this await and at each later one, until it is taken back. */
static void judge_requests(const before *b, int64_t n) {
    if (b->canceled) CHECK("error", n == -ECANCELED);
    if (b->overdue) CHECK("error", n == -ETIMEDOUT || n == -ECANCELED);
    COUNT_IF(AW_OVERDUE, b->overdue && n == -ETIMEDOUT);
}

/* Is there a cause for this result of an I/O await? */
static void judge(const root *r, const fdrec *f, const before *b, int64_t n) {
    k_trace("await", r->id, n);
    if (n < 0) told(ol_co_error(&r->co));
    CHECK("budget", w.awaits++ <= w.desc[r->loop].budget); /* one may end at the start of a run */
    judge_requests(b, n);
    if (n == -ECANCELED) {
        CHECK("error", r->canceled || (f->closed && !b->closed));
        COUNT(AW_CANCELED);
    } else if (n == -ETIMEDOUT) {
        CHECK("error", !r->canceled || b->due || r->was_late);
        CHECK("time", sim.now >= r->deadline || r->was_due);
        if (!r->was_due) check_late(r->deadline > b->at ? r->deadline : b->at);
        COUNT(AW_TIMED_OUT);
    } else if (b->closed) {
        CHECK("error", n == -EBADF);
        COUNT(AW_BADF);
    } else if (n < 0) {
        CHECK("error", n != -EBADF && n != -EXDEV && n != -EBUSY && n != -EINVAL && n != -EAGAIN);
        if (n == -ENOMEM) CHECK("error", sim.stats.enomem);
        COUNT_IF(AW_NOMEM, n == -ENOMEM);
        COUNT_IF(AW_RESET, n == -ECONNRESET || n == -EPIPE);
    }
}

/* After a cancel or a deadline: goes on (1) or not. */
static int recover(root *r, int64_t n) {
    if ((n != -ECANCELED && n != -ETIMEDOUT) || w.phase == ENDING) return 0;
    if (n == -ECANCELED && !r->canceled) return 0;
    if (r->kind != R_ACCEPTOR && k_below(100) < 25) return 0;
    if (n == -ECANCELED || k_below(2)) {
        ol_cancel_clear(&r->co);
        CHECK("error", ol_canceled(&r->co) == 0);
        r->canceled = 0; /* the deadline stays */
    } else {
        root_deadline(r, k_below(2) ? OL_NEVER : k_range(1, 5 * MS));
    }
    COUNT(WENT_ON);
    return 1;
}

#endif
