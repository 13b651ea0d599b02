/* flows.h: streams of bytes over connections whose other end is a script outside. Part of sim.c.

   A script sends the bytes of one stream and gets those of another: its own (an echo), or those of a second script (a
   proxy's other side); both can be checked at any place without being kept. */
#ifndef SIM_FLOWS_H
#define SIM_FLOWS_H

typedef struct flow {
    int id, loop;
    k_end *end;
    uint64_t seed, theirs;     /* what it sends, what it gets */
    uint32_t total, expect;    /* so many */
    uint32_t sent, got, taken; /* taken: what the other side has read */
    int fin, eof, broken, over, complete, tainted, stalled, scheduled;
    int spot;  /* it need not come to its end */
    int dials; /* in vain */
    int64_t lag;
} flow;
static struct flows {
    flow all[FLOWS];
    int n;
} flows;

static void flow_taint(flow *f) {
    if (f) f->tainted = 1;
}

static void flow_script(void *arg, uint64_t tag);
static void flow_soon(flow *f, int64_t at_most) {
    if (f->scheduled || f->over) return;
    f->scheduled = 1;
    k_at(k_range(1, at_most), flow_script, f, 0);
}
static void flow_wake(k_end *e, void *user) {
    flow *f = (flow *)user;
    (void)e;
    if (!f->stalled) flow_soon(f, f->lag);
}
static void flow_over(flow *f) {
    f->over = 1;
    if (!f->end) return;
    f->end->wake = NULL;
    if (f->end->blamed) flow_taint(f);
    k_end_free(f->end);
    f->end = NULL;
    k_trace("flow over", f->id, f->got);
}

/* 1: nothing will arrive any more. */
static int flow_receive(flow *f) {
    unsigned char buf[100];
    ssize_t n = 1, i;
    int rounds;
    for (rounds = 0; rounds < 8 && n > 0; rounds++) {
        n = k_recv(f->end, buf, 1 + k_below(sizeof buf));
        for (i = 0; i < n; i++)
            if (buf[i] != k_byte(f->theirs, f->got + (uint64_t)i))
                k_fail("flow", "byte %llu of flow %d is wrong", (unsigned long long)f->got + (unsigned long long)i,
                       f->id);
        if (n > 0) f->got += (uint32_t)n;
        CHECK("flow", f->got <= f->expect);
    }
    if (n > 0) flow_soon(f, f->lag);
    if (n < 0 && errno != EAGAIN) f->broken = 1;
    return n == 0 || f->broken;
}
static void flow_send(flow *f) {
    while (f->sent < f->total) {
        unsigned char buf[200];
        const uint32_t left = f->total - f->sent, n = 1 + k_below(left < sizeof buf ? left : (uint32_t)sizeof buf);
        uint32_t i;
        ssize_t r;
        for (i = 0; i < n; i++) buf[i] = k_byte(f->seed, f->sent + i);
        r = k_send(f->end, buf, n);
        if (r < 0) {
            f->broken |= errno != EAGAIN;
            return;
        }
        f->sent += (uint32_t)r;
        if (k_below(3) == 0) {
            flow_soon(f, f->lag);
            return;
        }
    }
    if (f->fin) return;
    if (w.phase == CHAOS && k_below(2)) {
        flow_soon(f, f->lag);
        return;
    }
    f->fin = 1;
    k_fin(f->end);
}
static void flow_script(void *arg, uint64_t tag) {
    flow *f = (flow *)arg;
    (void)tag;
    f->scheduled = 0;
    if (f->over) return;
    if (w.phase == CHAOS && k_below(500) == 0) { /* gives up: a reset */
        flow_taint(f);
        if (f->end->peer) k_reset(f->end->peer);
        flow_over(f);
        return;
    }
    if (w.phase == CHAOS && k_below(300) == 0) { /* falls silent until the end */
        f->stalled = 1;
        return;
    }
    sim.progress++;
    f->eof |= flow_receive(f);
    flow_send(f);
    if (!f->broken && (!f->eof || !f->fin)) return;
    if (f->end->blamed) flow_taint(f);
    f->complete = !f->broken && f->got == f->expect;
    CHECK("flow", f->complete || f->tainted || w.phase == ENDING);
    flow_over(f);
}

/* A new script; NULL: there are enough. It talks once it has an end. */
static flow *flow_new(int loop) {
    flow *f = &flows.all[flows.n];
    if (flows.n == FLOWS) return NULL;
    f->id = flows.n++;
    f->loop = loop;
    f->seed = f->theirs = k_rand();
    f->total = f->expect = k_below(k_below(3) ? 200 : 3000);
    f->lag = k_below(2) ? 2 * US : 200 * US;
    return f;
}
static void flow_talks(flow *f, k_end *e) {
    f->end = e;
    e->user = f;
    e->wake = flow_wake;
    flow_soon(f, MS);
}

/* The loop's fd of a connection to a new script, or NULL. */
static fdrec *flow_fd(int loop, int guest) {
    const uint32_t cap = 1 + k_below(k_below(2) ? 64 : 2000);
    const int cls = (int)k_below(3);
    int fds[2], e;
    k_end *end;
    ol_fd handle;
    fdrec *f;
    flow *with;
    if (w.nfds > FDS - 64 || flows.n == FLOWS || !k_free_fds(2)) return NULL;
    if (k_pair(k_below(3) ? K_STREAMS : K_UNIX, cap, fds)) return NULL;
    end = sim.file[fds[1]]->end; /* the script has no number for its end */
    end->file = NULL;
    sim.file[fds[1]]->end = NULL;
    k_close(fds[1]);
    with = flow_new(loop);
    flow_talks(with, end);
    if (guest) k_nonblock(fds[0]);
    e = guest ? ol_attach_guest(w.loop[loop], fds[0], cls, &handle) : ol_attach(w.loop[loop], fds[0], cls, &handle);
    if (e) {
        told(ol_error());
        CHECK("error", e == -ENOMEM || e == -ENOSPC || fork_failed(loop, e));
        flow_taint(with);
        k_close(fds[0]);
        return NULL;
    }
    f = fd_new(loop, handle, cls, part_new(), NULL);
    f->guest = guest;
    f->flow = with;
    f->joins = !guest;
    return f;
}

static void flows_quiet(void) {
    int i;
    for (i = 0; i < flows.n; i++) {
        flows.all[i].stalled = 0;
        if (flows.all[i].end) flow_soon(&flows.all[i], flows.all[i].lag);
    }
}
static void flows_end(void) {
    int i;
    for (i = 0; i < flows.n; i++) {
        flow *f = &flows.all[i];
        COUNT_IF(FLOW_COMPLETE, f->complete);
        COUNT_IF(FLOW_BROKEN, f->tainted);
        if (f->end) flow_over(f);
    }
}

#endif
