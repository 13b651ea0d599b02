/* guest.h: a poller of the test's own, level-triggered, inside which a loop of the library is a guest. Part of sim.c.

   It watches the loop's fd and its own connections, and knows nothing else of what the loop has to do: where the fd is not
   readable in time, the loop does not run. Its connections' events go through the gate.

     guest       the loop's fd is readable while there is something to do or due (else things come to no end, or late), and
                 not when there is nothing (busy loop); the gate lets in what is free and nothing else, and gives back all
                 that it has withheld */
#ifndef SIM_GUEST_H
#define SIM_GUEST_H

enum {
    BARREN = 3000
}; /* steps in a row that lead to nothing: each device may be polled each microsecond for a while */
static struct guests {
    int is[LOOPS]; /* the loop is a guest */
    int fd[LOOPS]; /* its fd, -1 to be asked for again */
    uint64_t seen;
    int barren;
} guests;

/* What it watches for. Of what was withheld it hears nothing until it is told; some watch for each direction apart. */
static int guest_mask(const session *s) {
    if (s->paused || s->over || !s->watched || (s->withheld && !s->apart)) return 0;
    return s->mask & ~s->withheld;
}
static uint32_t guest_interest(const session *s) {
    const int mask = guest_mask(s);
    return (mask & OL_READABLE ? (uint32_t)(EPOLLIN | EPOLLHUP | EPOLLERR) : 0) |
           (mask & OL_WRITABLE ? (uint32_t)(EPOLLOUT | EPOLLHUP | EPOLLERR) : 0);
}
/* What is there for this session, as the gate wants it told. */
static int guest_ready(const session *s) {
    const uint32_t interest = guest_interest(s);
    uint32_t events = interest ? k_poll(sim.file[(uint32_t)s->f->handle]) & interest : 0;
    int ready = 0;
    if (events & (EPOLLHUP | EPOLLERR)) return guest_mask(s);
    if (events & EPOLLIN) ready |= OL_READABLE;
    if (events & EPOLLOUT) ready |= OL_WRITABLE;
    return ready;
}
static int guest_loop_ready(int i) { return guests.fd[i] < 0 || (k_poll(sim.file[guests.fd[i]]) & EPOLLIN) != 0; }
static int guest_any_ready(int i) {
    int k;
    for (k = 0; k < handling.n; k++)
        if (handling.all[k]->f->loop == i && handling.all[k]->f->guest && guest_ready(handling.all[k])) return 1;
    return guest_loop_ready(i);
}

static void on_asleep(k_file *ep);
static void sleep_is_bounded(int loop, int64_t ns);
/* How long it may take until the loop's timer makes its fd readable; -1: it isn't set. */
static int64_t guest_timer(int loop) {
    int i;
    for (i = 0; i < sim.nall; i++) {
        const k_file *f = sim.all[i];
        if (f->type == K_TIMERFD && f->item.epoll == sim.file[guests.fd[loop]]) return f->armed ? f->due - sim.now : -1;
    }
    return -1;
}
/* Sleeps until something is there. */
static void guest_sleeps(int i, int64_t timeout) {
    const int64_t limit = timeout < 0 ? K_NEVER : sim.now + timeout;
    int idle = 0;
    sim.since_wait = 0;
    for (;;) {
        k_run_due();
        if (guest_any_ready(i) || sim.now >= limit) return;
        if (guests.fd[i] >= 0 && k_others_run(sim.file[guests.fd[i]], limit)) continue;
        if (k_next() > sim.now + US) { /* else it may be about to run: a timer of 1 ns says so */
            w.stepping = i;
            on_asleep(NULL);
            w.stepping = -1;
            if (guests.fd[i] >= 0 && !w.renewing[i]) sleep_is_bounded(i, guest_timer(i));
        }
        if (k_next() == K_NEVER && limit == K_NEVER && ++idle > 100)
            k_fail("lost wake-up", "the loop's fd is not readable after 100 posts");
        if (!k_sleep_until(limit)) return;
    }
}

/* An event of one of the poller's own connections. */
static void guest_event(session *s, int ready) {
    const int i = s->f->loop;
    ol_loop *loop = w.loop[i];
    int surely, maybe, r;
    partition *p;
    settle();
    surely = surely_held(s->f->part);
    maybe = surely || maybe_held(s->f->part);
    r = ol_gate_enter(loop, s->f->handle, ready);
    k_trace("gate", (int64_t)(uint32_t)s->f->handle, r);
    CHECK("guest", r == 0 || r == 1);
    if (r == 0) {
        const uint64_t now = moment();
        CHECK("guest", maybe);
        s->withheld |= ready;
        if (!s->stand.part) place_take(&s->stand, s->f->part, s->since, now);
        COUNT(WITHHELD_GUEST);
        return;
    }
    CHECK("guest", !surely && !s->withheld);
    if (k_below(16) == 0) CHECK("error", ol_gate_enter(loop, s->f->handle, ready) == -EBUSY);
    if (k_below(16) == 0) CHECK("error", ol_loop_step(loop, 0) == -EBUSY && ol_loop_destroy(loop) == -EBUSY);
    w.gate = i;
    p = session_enter(s);
    COUNT(LET_IN);
    session_acts(s, ready);
    mischief(i);
    session_leave(s, p);
    w.gate = -1;
    CHECK("guest", ol_gate_leave(loop) == 0);
    if (k_below(16) == 0) CHECK("error", ol_gate_leave(loop) == -EINVAL);
}

/* Asks for the fd where there is none; it may be refused for lack of memory or numbers. */
static void guest_ask(int i) {
    const int fd = ol_loop_fd(w.loop[i]);
    if (fd < 0) {
        told(ol_error());
        CHECK("error", fd == -EMFILE || fd == -ENOMEM || fd == -ENOSPC);
    } else if (guests.fd[i] >= 0) {
        CHECK("guest", fd == guests.fd[i]);
    }
    guests.fd[i] = fd < 0 ? -1 : fd;
}

/* One round of the poller; 1: the loop is to be stepped. */
static int guest_round(int i, int64_t timeout) {
    int k;
    if (guests.fd[i] < 0 || k_below(50) == 0) guest_ask(i);
    guest_sleeps(i, timeout);
    for (k = 0; k < handling.n; k++) {
        session *s = handling.all[k];
        int ready = 0;
        if (s->f->loop == i && s->f->guest && !s->over) ready = guest_ready(s);
        if (ready && k_below(4)) guest_event(s, ready);
    }
    if (!guest_loop_ready(i) && k_below(20)) return 0;
    return 1;
}
static void guest_stepped(int i, int left, int r) {
    int k, withheld = 0;
    for (k = 0; k < handling.n; k++) {
        const session *s = handling.all[k];
        if (s->f->loop != i || !s->withheld) continue;
        withheld = 1;
        if (s->watched) CHECK("count", r == 1); /* it stands in line, or is about to be called */
    }
    if (!left && !withheld && !w.nposters && sim.now > handling.pause[i]) CHECK("count", r == 0);
    if (guests.seen != sim.progress || w.inflight[i]) guests.barren = 0;
    else if (++guests.barren > BARREN) k_fail("busy loop", "the loop's fd is readable %d times for nothing", BARREN);
    guests.seen = sim.progress;
}

static void guest_session_start(int loop) {
    fdrec *f;
    session *s;
    if (!guests.is[loop] || handling.n == SESSIONS) return;
    f = flow_fd(loop, 1);
    if (!f) return;
    s = session_new(f, W_ECHO);
    s->apart = (int)k_below(2);
    session_wants(s);
    COUNT(SESSION_GUEST);
}
static void guests_choose(void) {
    int i;
    for (i = 0; i < w.nloops; i++) {
        guests.fd[i] = -1;
        guests.is[i] = k_below(4) == 0;
        COUNT_IF(GUEST, guests.is[i]);
    }
}
static void guests_build(void) {
    int i, n;
    for (i = 0; i < w.nloops; i++)
        for (n = (int)k_below(4); n > 0; n--) guest_session_start(i);
}

#endif
