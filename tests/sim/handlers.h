/* handlers.h: servers written as handlers: echoes, proxies, a listener; they watch, stop watching, replace and free
   themselves, submit, hand over to coroutines. Part of sim.c.

     handler     called for what it watches for and nothing else; never while its partition is held; in its turn; not after
                 the end of its watch, nor after its fd's close; its struct is not touched once it may be freed
     flow        every byte comes back, or arrives at the other side: so no event is lost, and none that is left over */
#ifndef SIM_HANDLERS_H
#define SIM_HANDLERS_H

enum { HELD = 64, W_ECHO = 0, W_PROXY = 1, PORT = 9000 };
typedef struct watcher { /* what the library knows; a new one takes its place now and then */
    ol_handler h;
    struct session *s;
} watcher;
typedef struct session { /* one fd and what has been read from it */
    watcher *now;
    fdrec *f;
    struct session *other; /* a proxy's other side; of an echo itself */
    int watched, mask, kind, eof, ended, over, paused, relieved;
    int ready;         /* the bit is surely set: the last read took all that it asked for */
    int running;       /* inside its function */
    int withheld;      /* a guest's: what the gate has not let through */
    int apart;         /* a guest's: it watches for each direction apart */
    uint64_t since;    /* from this moment on it may stand in line */
    place stand, rest; /* rest: of the timer, never in line as far as is known */
    int drained;       /* a coroutine reads it: what stands in line may find nothing */
    ol_timer timer;
    unsigned char held[HELD];
    int n, at;
} session;
static struct handling {
    session *all[SESSIONS];
    int n, starts;
    watcher *listener[LOOPS]; /* on PORT + loop */
    fdrec *listens[LOOPS];
    place stand[LOOPS];   /* never known */
    int64_t pause[LOOPS]; /* until then the library may keep a timer for a listener without fds */
} handling;

static void on_session(ol_loop *loop, ol_handler *h, int ready);
static void relief_start(session *s);

/* ---------------------------------------------------------------------------------------------------------------- */
/* Watching                                                                                                         */

static void session_unwatch(session *s) {
    if (s->f->closed) return;
    CHECK("error", ol_unwatch(w.loop[s->f->loop], s->f->handle) == 0);
    if (s->watched && !s->running) w.blurred[s->f->loop]++;
    s->watched = s->mask = 0; /* what the gate has withheld waits for whoever watches next */
    place_leave(&s->stand);
}
/* Watches for so much; 0: nothing. With `anew` by another struct, and the old one is freed. */
static void session_watch(session *s, int mask, int anew) {
    watcher *old = s->now;
    int e;
    if (s->f->closed) return;
    if (!mask || s->paused) {
        if (s->watched) session_unwatch(s);
        return;
    }
    if (anew || !s->now) {
        s->now = (watcher *)k_own(sizeof *s->now);
        s->now->s = s;
    }
    if (s->watched && !s->running && (anew || mask != s->mask)) w.blurred[s->f->loop]++;
    if (!s->watched || s->now != old) {
        place_leave(&s->stand);
        s->since = moment();
    } else if (s->stand.part) {
        s->stand.hi = NOT_YET; /* if it is no longer ready for anything, it goes when its turn comes */
    }
    e = ol_watch(w.loop[s->f->loop], s->f->handle, &s->now->h, mask, on_session);
    CHECK("error", e == 0);
    s->watched = 1;
    s->mask = mask;
    if (old && old != s->now) k_disown(old);
    COUNT_IF(REPLACED, old && old != s->now);
}

static void session_drop(session *s) { /* nothing needs it any more */
    int i = 0;
    while (handling.all[i] != s) i++;
    handling.all[i] = handling.all[--handling.n];
    ol_timer_stop(w.loop[s->f->loop], &s->timer);
    if (s->now) k_disown(s->now);
    s->f->session = NULL;
    k_disown(s);
}
/* Called by fd_close, whoever calls that. */
static void session_closed(session *s) {
    if (s->watched && !s->running) w.blurred[s->f->loop]++;
    if (s->now) k_disown(s->now); /* it may be freed at once, also from inside */
    s->now = NULL;
    s->watched = s->mask = s->withheld = 0;
    s->over = 1;
    place_leave(&s->stand);
}
/* Closes; the flow has come to its end, or never will. */
static void session_close(session *s, int well) {
    session *o = s->other;
    if (!well) flow_taint(s->f->flow), flow_taint(o->f->flow);
    if (!s->f->closed) fd_close(s->f);
    if (!o->f->closed) fd_close(o->f);
    s->over = o->over = 1;
}

/* What both sides want to hear of now. Each reads as long as it has room, and writes what the other has read. */
static void session_wants(session *s) {
    int k;
    for (k = 0; k < 2 && !s->over; k++, s = s->other) {
        int mask = 0;
        if (!s->eof && s->n < HELD) mask |= OL_READABLE;
        if (s->other->n) mask |= OL_WRITABLE;
        session_watch(s, mask, k_below(12) == 0);
        if (s == s->other) break;
    }
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* What a handler does                                                                                              */

static void session_read(session *s) {
    ol_loop *loop = w.loop[s->f->loop];
    const int room = HELD - s->n, ask = room ? 1 + (int)k_below((uint32_t)room) : 0;
    const int raw = k_below(8) == 0 || s->f->guest;
    struct iovec iov[2];
    int64_t n;
    s->ready = 0;
    if (!ask || s->eof) return;
    if (raw) { /* a call of its own */
        n = k_read(ol_fd_raw(loop, s->f->handle), s->held + s->n, (size_t)ask);
        if (n < 0) n = -errno;
        if (n == -EAGAIN) CHECK("error", ol_again(loop, s->f->handle, 0) == 0);
        s->ready = n == ask && !s->f->guest;
    } else if (k_below(3) == 0) {
        iov[0].iov_base = s->held + s->n;
        iov[0].iov_len = (size_t)ask / 2;
        iov[1].iov_base = s->held + s->n + ask / 2;
        iov[1].iov_len = (size_t)(ask - ask / 2);
        n = ol_try_readv(loop, s->f->handle, iov, 2);
        s->ready = n == ask;
    } else {
        n = ol_try_read(loop, s->f->handle, s->held + s->n, (size_t)ask);
        s->ready = n == ask;
    }
    if (n < 0 && !raw) told(ol_error());
    if (n > 0) s->n += (int)n;
    if (n == 0) s->eof = 1;
    if (n < 0 && n != -EAGAIN) {
        CHECK("error", n == -ECONNRESET || n == -EPIPE);
        session_close(s, 0);
    }
    COUNT_IF(TRY_READ, n > 0 && !raw);
}
/* Writes what `from` has read. */
static void session_write(session *from) {
    session *to = from->other;
    ol_loop *loop = w.loop[to->f->loop];
    struct iovec iov[2];
    int64_t n;
    if (from->over || to->over || !from->n) return;
    if (k_below(3) == 0) {
        iov[0].iov_base = from->held;
        iov[0].iov_len = (size_t)from->n / 2;
        iov[1].iov_base = from->held + from->n / 2;
        iov[1].iov_len = (size_t)(from->n - from->n / 2);
        n = ol_try_writev(loop, to->f->handle, iov, 2);
    } else {
        n = ol_try_write(loop, to->f->handle, from->held, (size_t)from->n);
    }
    if (n < 0) told(ol_error());
    if (n > 0) {
        from->n -= (int)n;
        memmove(from->held, from->held + n, (size_t)from->n);
        COUNT(TRY_WRITTEN);
    } else if (n == -EAGAIN) {
        to->stand.hi = NOT_YET; /* it can't be written to: perhaps it was for that */
    } else {
        CHECK("error", n == -ECONNRESET || n == -EPIPE);
        session_close(from, 0);
    }
}
/* The end of what it got is passed on; when both ends have come, all is over. */
static void session_ends(session *s) {
    session *o = s->other;
    if (s->over) return;
    if (s->eof && !s->n && !s->ended) {
        s->ended = 1;
        if (o != s && !o->over) k_fin(sim.file[ol_fd_raw(w.loop[o->f->loop], o->f->handle)]->end);
    }
    if (s->ended && o->ended) session_close(s, 1);
}

static void on_pause_over(ol_loop *loop, ol_timer *timer) {
    session *s = OL_CONTAINER(timer, session, timer);
    partition *p = callback_enter(s->f->loop, timer->fd ? s->f : NULL, &s->rest);
    CHECK("callback", loop == w.loop[s->f->loop] && s->paused);
    s->paused = 0;
    if (!s->over) session_wants(s);
    callback_leave(p);
}
/* A call from a handler for an fd of another partition, of another loop, or closed. */
static void session_foreign(const session *s) {
    const fdrec *f = &w.fds[k_below((uint32_t)w.nfds)];
    unsigned char byte;
    int64_t n;
    if (!f->closed && (f->loop != s->f->loop || f->part == s->f->part || !surely_held(f->part))) return;
    n = k_below(2) ? ol_try_read(w.loop[s->f->loop], f->handle, &byte, 1)
                   : ol_try_accept(w.loop[s->f->loop], f->handle);
    CHECK("error", n == (f->closed ? -EBADF : -EXDEV));
    told(ol_error());
    COUNT(TRY_FOREIGN);
}

static void session_acts(session *s, int ready) {
    session *o = s->other;
    const uint32_t x = k_below(40);
    if (o->over) session_close(s, 0); /* somebody has closed the one side */
    if (s->over) return;
    if (ready & OL_READABLE) session_read(s);
    if (x == 0) session_foreign(s);
    if ((x == 1 || x == 2 || x >= 36) && w.phase != ENDING) task_submit(s->f->loop, s->f->part);
    if (x == 3 && w.phase == CHAOS && !s->over) relief_start(s);
    if (x == 4 && w.phase == CHAOS) session_close(s, 0);
    if ((ready & OL_WRITABLE) || k_below(3)) session_write(s); /* else when it hears that it can */
    if (!s->over && o != s) session_write(o);
    session_ends(s);
    if (!s->over) session_ends(o);
    if (s->over) return;
    if (x == 5 && !s->paused) { /* for a while it hears of nothing */
        s->paused = 1;
        s->timer.fd = k_below(2) ? s->f->handle : 0;
        if (ol_timer_start(w.loop[s->f->loop], &s->timer, k_range(0, MS), on_pause_over)) s->paused = 0;
    }
    session_wants(s);
}

/* Between these a handler's function runs, or the guest's: the partition is its own. */
static partition *session_enter(session *s) {
    partition *p;
    settle();
    p = s->f->part;
    CHECK("callback", w.nframes == 0 && !w.in_submit && s->watched && !s->f->closed);
    place_starts(&s->stand, p);
    s->since = moment();
    s->running = p->busy = 1;
    w.current = p;
    sim.progress++;
    return p;
}
static void session_leave(session *s, partition *p) {
    settle();
    s->running = p->busy = 0;
    w.current = NULL;
    if (s->watched && s->ready && (s->mask & OL_READABLE) && !s->stand.part && !s->f->guest) {
        const uint64_t now = moment();
        place_take(&s->stand, p, s->since, now); /* level-triggered: it stands in line again */
    }
}
static void on_session(ol_loop *loop, ol_handler *h, int ready) {
    watcher *x = OL_CONTAINER(h, watcher, h);
    session *s = x->s;
    const int i = s->f->loop;
    partition *p;
    CHECK("handler", s->now == x && loop == w.loop[s->f->loop] && w.stepping == s->f->loop);
    if (s->f->guest) CHECK("handler", ready == s->withheld);
    else CHECK("handler", ready && (ready & ~s->mask) == 0);
    s->withheld = 0;
    p = session_enter(s);
    count_fd(s->f);
    k_trace("handler", (int64_t)(uint32_t)s->f->handle, ready);
    COUNT(HANDLED);
    session_acts(s, ready);
    mischief(i);
    session_leave(s, p);
}

/* An event is delivered: whoever watches for it stands in line from now on. */
static void on_delivered(const k_file *file, uint32_t events) {
    const fdrec *f = w.by_number[file->fd];
    session *s = f && !f->closed ? f->session : NULL;
    uint64_t now;
    int ready = 0;
    if (!s || !s->watched || f->guest) return;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) ready |= OL_READABLE;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) ready |= OL_WRITABLE;
    if (!(ready & s->mask)) return;
    settle();
    now = moment();
    if (!s->stand.part) place_take(&s->stand, f->part, s->since, s->drained ? NOT_YET : now);
    else if (s->stand.hi == NOT_YET && !s->drained) s->stand.hi = now;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* A root that takes over for a while                                                                               */

typedef struct relief {
    root r;
    session *s;
    fdrec *f;
    int rounds;
    before b;
    int64_t n, written;
    unsigned char buf[40];
} relief;

static void relief_fails(relief *x) {
    if (!x->s->over) session_close(x->s, 0);
}
static void relief_main(ol_co *co) {
    relief *x = (relief *)owner_of(co);
    session *s = x->s;
    root *r = &x->r;
    OL_BEGIN(co);
    root_started(r);
    x->written = x->n = 0;
    s->drained++;
    s->stand.hi = NOT_YET;  /* its data may be gone before its turn comes */
    if (s->n && !s->over) { /* what the handler has read goes first */
        begin(&x->b, r, x->f);
        OL_AWAIT(x->written, ol_write(co, x->f->handle, s->held, (size_t)s->n));
        judge(r, x->f, &x->b, x->written);
        if (x->written >= 0) s->n = 0;
    }
    for (; x->rounds > 0 && x->written >= 0 && !s->eof && !s->over; x->rounds--) {
        if (r->deadline == K_NEVER) root_deadline(r, k_range(1, MS));
        begin(&x->b, r, x->f);
        OL_AWAIT(x->n, ol_read(co, x->f->handle, x->buf, sizeof x->buf));
        judge(r, x->f, &x->b, x->n);
        if (x->n == 0) s->eof = 1;
        if (x->n <= 0) break;
        root_deadline(r, OL_NEVER);
        begin(&x->b, r, x->f);
        OL_AWAIT(x->written, ol_write(co, x->f->handle, x->buf, (size_t)x->n));
        judge(r, x->f, &x->b, x->written);
        mischief(r->loop);
    }
    if (x->written < 0 || (x->n < 0 && x->n != -ETIMEDOUT && x->n != -ECANCELED)) relief_fails(x);
    s->relieved--;
    s->drained--;
    if (!s->over) {
        session_ends(s);
        session_wants(s);
    }
    COUNT(RELIEVED);
    root_ended(r);
    OL_END_THEN(co, k_disown(x));
}
static void relief_entry(ol_co *co) {
    enter(co);
    relief_main(co);
    leave();
}
static void relief_start(session *s) {
    relief *x;
    if (s->kind != W_ECHO || s->f->guest) return;
    x = (relief *)k_own(sizeof *x);
    x->s = s;
    x->f = s->f;
    x->rounds = 1 + (int)k_below(3);
    s->relieved++;
    if (root_spawn(&x->r, x, R_RELIEF, s->f->loop, s->f->part, s->f, relief_entry) == 0) return;
    s->relieved--;
    k_disown(x);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Sessions                                                                                                         */

static session *session_new(fdrec *f, int kind) {
    session *s = (session *)k_own(sizeof *s);
    s->f = f;
    s->kind = kind;
    s->other = s;
    f->session = s;
    handling.all[handling.n++] = s;
    COUNT_IF(SESSION_ECHO, kind == W_ECHO);
    COUNT_IF(SESSION_PROXY, kind == W_PROXY);
    return s;
}
static void session_start(int loop) {
    const int proxies = k_below(3) == 0;
    fdrec *a, *b;
    session *x, *y;
    if (handling.n + 2 > SESSIONS || flows.n + 2 > FLOWS) return;
    a = flow_fd(loop, 0);
    if (!a) return;
    x = session_new(a, proxies ? W_PROXY : W_ECHO);
    b = proxies ? flow_fd(loop, 0) : NULL;
    if (proxies && !b) {
        session_close(x, 0);
        return;
    }
    if (proxies) {
        y = session_new(b, W_PROXY);
        x->other = y;
        y->other = x;
        a->flow->theirs = b->flow->seed;
        a->flow->expect = b->flow->total;
        b->flow->theirs = a->flow->seed;
        b->flow->expect = a->flow->total;
        try_join(loop, a, b);
        CHECK("join", a->part == b->part);
    }
    session_wants(x);
}
/* Those that are over are freed when nobody runs and nobody will come for them. */
static void handling_sweep(void) {
    int i = 0;
    while (i < handling.n) {
        session *s = handling.all[i], *o = s->other;
        if (s->over && !o->over) session_close(o, 0); /* somebody has closed the one side */
        if (!s->over || !o->over || s->relieved || o->relieved) {
            i++;
            continue;
        }
        if (o != s) {
            o->other = o;
            session_drop(o);
        }
        session_drop(s);
        i = 0;
    }
}

static int sessions_in(const partition *p) {
    int i;
    for (i = 0; i < handling.n; i++)
        if (handling.all[i]->f->part == p && (handling.all[i]->watched || handling.all[i]->paused)) return 1;
    for (i = 0; i < w.nloops; i++)
        if (handling.listens[i] && handling.listens[i]->part == p) return 1;
    return 0;
}
static int sessions_n(void) { return handling.n; }
static session *session_any(int loop) {
    session *s = handling.n ? handling.all[k_below((uint32_t)handling.n)] : NULL;
    return s && s->f->loop == loop && !s->over ? s : NULL;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* A listener with a handler                                                                                        */

static void on_dial(void *arg, uint64_t port) {
    flow *f = (flow *)arg;
    k_end *e;
    int r;
    if (f->over) return;
    e = k_end_new(16 + k_below(200));
    r = k_arrive((int)port, e, 16 + k_below(200));
    if (r == 0) {
        flow_talks(f, e);
        return;
    }
    k_end_free(e);
    /* nobody accepts as long as an operation of the listener's partition is lost: that is over when the faults stop */
    if (r > 0 && (w.phase != CHAOS || f->dials++ < 100)) {
        k_at(k_range(1, 2 * MS), on_dial, f, port);
    } else {
        f->tainted = f->over = 1;
    }
}
static void session_accepted(int loop, ol_fd handle, int cls) {
    const k_end *e = sim.file[(uint32_t)handle]->end;
    fdrec *f = fd_new(loop, handle, cls, part_new(), NULL);
    flow *with = e->peer ? (flow *)e->peer->user : NULL;
    session *s;
    f->flow = with;
    f->joins = 1;
    if (!with || handling.n == SESSIONS) {
        flow_taint(with);
        fd_close(f);
        return;
    }
    s = session_new(f, W_ECHO);
    session_wants(s);
}
static void on_dialled(ol_loop *loop, ol_handler *h, int ready) {
    int i = 0, tries;
    int64_t r = 1;
    fdrec *f;
    while (handling.listener[i] == NULL || &handling.listener[i]->h != h) i++;
    f = handling.listens[i];
    settle();
    CHECK("handler", loop == w.loop[i] && ready == OL_READABLE && !f->closed && w.stepping == i);
    place_starts(&handling.stand[i], f->part);
    f->part->busy = 1;
    w.current = f->part;
    count_fd(f);
    sim.progress++;
    for (tries = 1 + (int)k_below(4); tries > 0 && r > 0; tries--) {
        r = ol_try_accept(loop, f->handle);
        if (r > 0) session_accepted(i, (ol_fd)r, f->cls);
        COUNT_IF(TRY_ACCEPTED, r > 0);
    }
    if (r < 0) told(ol_error());
    if (r == -EMFILE || r == -ENFILE || r == -ENOSPC || r == -ENOMEM) {
        handling.pause[i] = sim.now + 10 * MS + LATE;
        COUNT(TRY_FULL);
    } else if (r < 0) {
        CHECK("error", r == -EAGAIN);
    }
    mischief(i);
    f->part->busy = 0;
    w.current = NULL;
}
static void listening_start(int i) {
    struct sockaddr_in in = k_address(PORT + i);
    const int cls = (int)k_below(3);
    ol_fd handle;
    int n;
    CHECK("test", ol_listen(w.loop[i], (struct sockaddr *)&in, sizeof in, 1 + (int)k_below(8), 0, cls, &handle) == 0);
    handling.listens[i] = fd_new(i, handle, cls, part_new(), NULL);
    handling.listener[i] = (watcher *)k_own(sizeof(watcher));
    CHECK("error", ol_watch(w.loop[i], handle, &handling.listener[i]->h, OL_READABLE, on_dialled) == 0);
    for (n = (int)k_below(5); n > 0; n--) {
        flow *f = flow_new(i);
        if (f) k_at(k_range(1, 3 * MS), on_dial, f, (uint64_t)(PORT + i));
    }
}

/* ---------------------------------------------------------------------------------------------------------------- */

static void handling_build(void) {
    int i, n;
    sim.delivered = on_delivered;
    for (i = 0; i < w.nloops; i++) {
        if (k_below(2)) listening_start(i);
        for (n = (int)k_below(4); n > 0; n--) session_start(i);
    }
    handling.starts = (int)k_below(4);
}
static void handling_quiet(void) {
    int i;
    for (i = 0; i < handling.n; i++) { /* who hears of nothing any more does so again */
        session *s = handling.all[i];
        if (s->over || s->running) continue;
        ol_timer_stop(w.loop[s->f->loop], &s->timer);
        s->paused = 0;
        session_wants(s);
    }
}
static int handling_calm(void) {
    int i;
    for (i = 0; i < handling.n; i++)
        if (!handling.all[i]->over) return 0;
    return 1;
}
/* Only listeners are left that nobody is going to call: they are closed. */
static void handling_close(void) {
    int i;
    for (i = 0; i < w.nloops; i++)
        if (handling.listens[i] && !handling.listens[i]->closed) fd_close(handling.listens[i]);
}
static int handlers_left(int loop) {
    int i, n = handling.listens[loop] && !handling.listens[loop]->closed;
    for (i = 0; i < handling.n; i++)
        n += handling.all[i]->f->loop == loop && handling.all[i]->watched && !handling.all[i]->f->guest;
    for (i = 0; i < handling.n; i++) n += handling.all[i]->f->loop == loop && handling.all[i]->paused;
    return n;
}
static void handling_end(void) {
    int i;
    while (handling.n) {
        handling.all[0]->relieved = 0;
        session_drop(handling.all[0]);
    }
    for (i = 0; i < w.nloops; i++)
        if (handling.listener[i]) k_disown(handling.listener[i]);
}

#endif
