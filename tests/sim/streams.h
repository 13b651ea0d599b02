/* streams.h: messages over connections, between parties outside, connections, clients and pumps. Part of sim.c. */
#ifndef SIM_STREAMS_H
#define SIM_STREAMS_H

/* ---------------------------------------------------------------------------------------------------------------- */
/* Messages: a header of four words (number, length, checksum, who), and a body that only who and number determine  */

static unsigned char body_byte(int id, uint32_t number, uint32_t i) { return k_byte((uint64_t)id << 32 | number, i); }

static void put_header(unsigned char *out, uint32_t number, uint32_t len, uint32_t sum, uint32_t who) {
    const uint32_t word[4] = {number, len, sum, who};
    memcpy(out, word, 16);
}

/* A request; returns its length in all. */
static uint32_t make_request(int id, uint32_t number, unsigned char *out) {
    const uint32_t len = k_below(3) ? k_below(100) : k_below(BODY + 1);
    uint32_t i;
    for (i = 0; i < len; i++) out[16 + i] = body_byte(id, number, i);
    put_header(out, number, len, crc_slow(0, out + 16, len), (uint32_t)id);
    COUNT(MESSAGES);
    return 16 + len;
}

/* Checks a request or, with `reply`, an answer, of which the body is turned over. */
static void check_message(const unsigned char *in, int id, uint32_t number, int reply) {
    uint32_t word[4], i, sum = 0;
    memcpy(word, in, 16);
    CHECK("stream", word[0] == number && word[3] == (uint32_t)id && word[1] <= BODY);
    for (i = 0; i < word[1]; i++)
        if (in[16 + i] != (unsigned char)(body_byte(id, number, i) ^ (reply ? 0x5a : 0)))
            k_fail("stream", "byte %u of %s %u of %d is wrong", i, reply ? "answer" : "request", number, id);
    if (!reply) sum = crc_slow(0, in + 16, word[1]);
    if (!reply) CHECK("stream", word[2] == sum);
}

static uint32_t message_len(const unsigned char *header) {
    uint32_t len;
    memcpy(&len, header + 4, 4);
    return 16 + len;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Scripts outside: they connect, send, half-close, stall, read slowly, reset                                       */

static void script(void *arg, uint64_t tag);

static void script_soon(party *p, int64_t at_most) {
    if (p->scheduled) return;
    p->scheduled = 1;
    k_at(k_range(1, at_most), script, p, 0);
}
static void script_wake(k_end *e, void *user) {
    party *p = (party *)user;
    (void)e;
    if (!p->stalled) script_soon(p, p->lag);
}

static void script_over(party *p) {
    p->over = 1;
    p->end->wake = NULL;
    if (p->end->blamed) taint(p);
    k_end_free(p->end);
    p->end = NULL;
    k_trace("script over", p->id, p->answered);
}

/* Takes what arrived; each answer must be the next. 1: the connection is over. */
static int script_receive(party *p) {
    ssize_t n = 1;
    int rounds;
    for (rounds = 0; rounds < 20; rounds++) {
        const uint32_t whole = p->in_at < 16 ? 16 : message_len(p->in);
        if (p->in_at == whole && p->in_at >= 16) {
            check_message(p->in, p->id, (uint32_t)p->answered, 1);
            CHECK("stream", p->answered < p->sent);
            p->answered++;
            p->in_at = 0;
            COUNT(REPLIES);
            continue;
        }
        n = k_recv(p->end, p->in + p->in_at, whole - p->in_at);
        if (n <= 0) break;
        p->in_at += (uint32_t)n;
        if (p->in_at >= 16) CHECK("stream", message_len(p->in) <= 16 + BODY);
    }
    if (rounds == 20) script_soon(p, p->lag);
    if (n < 0 && errno != EAGAIN) {
        CHECK("stream", p->tainted || p->end->blamed || w.phase == ENDING);
        return 1;
    }
    return n == 0;
}

static void script_send(party *p) {
    while (p->made < p->target || p->out_at < p->out_len) {
        uint32_t n;
        ssize_t r;
        if (p->out_at == p->out_len) {
            if (p->made - p->answered >= p->window) return;
            p->out_len = make_request(p->id, (uint32_t)p->made++, p->out);
            p->out_at = 0;
        }
        n = 1 + k_below(p->out_len - p->out_at);
        if (p->half && p->made == p->target && k_below(3) == 0) { /* ends in the middle of a message */
            taint(p);
            p->target = p->made;
            p->out_len = p->out_at;
            k_fin(p->end);
            p->fin = 1;
            return;
        }
        r = k_send(p->end, p->out + p->out_at, n);
        if (r < 0) return;
        p->out_at += (uint32_t)r;
        if (p->out_at == p->out_len) p->sent++;
        if (k_below(3) == 0) {
            script_soon(p, p->lag);
            return;
        }
    }
    if (!p->fin && (w.phase != CHAOS || k_below(2))) {
        p->fin = 1;
        k_fin(p->end);
    } else if (!p->fin) {
        script_soon(p, p->lag);
    }
}

static void script_dial(party *p) {
    k_end *e = k_end_new(16 + k_below(k_below(2) ? 64 : 4000));
    const int r = k_arrive(p->port, e, 16 + k_below(k_below(2) ? 64 : 4000));
    if (r == 0) {
        p->end = e;
        e->user = p;
        e->wake = script_wake;
        return;
    }
    k_end_free(e);
    if (r > 0) {
        script_soon(p, 5 * MS);
    } else {
        p->over = p->refused = 1;
    }
}

static void script(void *arg, uint64_t tag) {
    party *p = (party *)arg;
    (void)tag;
    p->scheduled = 0;
    if (p->over) return;
    if (!p->end) {
        script_dial(p);
        if (p->end) script_soon(p, p->lag);
        return;
    }
    if (w.phase == CHAOS && k_below(400) == 0) { /* gives up: a reset */
        taint(p);
        if (p->end->peer) k_reset(p->end->peer);
        script_over(p);
        return;
    }
    if (w.phase == CHAOS && k_below(200) == 0) { /* falls silent until the end */
        p->stalled = 1;
        return;
    }
    sim.progress++;
    if (script_receive(p)) {
        if (p->end->blamed) taint(p);
        p->complete = p->answered == p->target && p->fin;
        CHECK("stream", p->complete || p->tainted || w.phase == ENDING);
        script_over(p);
        return;
    }
    script_send(p);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Connections: read a request, compute, answer. Clients use the same struct.                                       */

enum { IO_READ, IO_READV, IO_WRITE, IO_WRITEV };
typedef struct conn {
    root r[2]; /* one serves; it may hand over to the other */
    ol_frame frame[DEPTH];
    int which, depth, what, left, clean, jobs, job;
    fdrec *f;
    party *with;
    uint32_t want, got;
    int64_t n, span;
    int number, id;
    before b;
    task *t;
    struct iovec iov[3];
    struct sockaddr_in to;
    unsigned char msg[16 + BODY];
} conn;

static void *owner_of(ol_co *co) { return ((root *)(void *)co)->owner; }
static root *root_of(ol_co *co) { return (root *)(void *)co; }

/* Cuts want - got bytes of the message into three pieces, some of them empty. */
static void cut(conn *c) {
    const uint32_t n = c->want - c->got, a = k_below(n + 1), b = a + k_below(n - a + 1);
    c->iov[0].iov_base = c->msg + c->got;
    c->iov[0].iov_len = a;
    c->iov[1].iov_base = c->msg + c->got + a;
    c->iov[1].iov_len = b - a;
    c->iov[2].iov_base = c->msg + c->got + b;
    c->iov[2].iov_len = n - b;
}

static void io_entry(ol_co *co);
/* Transfers want bytes from or to msg, at some depth of calls. Result: want, or what ended it. */
static void io(ol_co *co) {
    conn *c = (conn *)owner_of(co);
    const int level = (int)(co->top - c->frame);
    int64_t n;
    OL_BEGIN(co);
    if (level < c->depth) {
        OL_CALL(n, &c->frame[level + 1], io_entry);
        OL_RETURN(n);
    }
    while (c->got < c->want) {
        begin(&c->b, root_of(co), c->f);
        cut(c);
        if (c->what == IO_READ) OL_AWAIT(c->n, ol_read(co, c->f->handle, c->msg + c->got, c->want - c->got));
        else if (c->what == IO_READV) OL_AWAIT(c->n, ol_readv(co, c->f->handle, c->iov, 3));
        else if (c->what == IO_WRITE) OL_AWAIT(c->n, ol_write(co, c->f->handle, c->msg + c->got, c->want - c->got));
        else OL_AWAIT(c->n, ol_writev(co, c->f->handle, c->iov, 3));
        judge(root_of(co), c->f, &c->b, c->n);
        if (c->n <= 0) {
            if (c->what <= IO_READV && recover(root_of(co), c->n)) continue;
            OL_RETURN(c->n);
        }
        if (c->what >= IO_WRITE) CHECK("stream", c->n == c->want - c->got);
        c->got += (uint32_t)c->n;
    }
    OL_RETURN(c->want);
    OL_END(co);
}
static void io_entry(ol_co *co) {
    enter(co);
    io(co);
    leave_sub(co);
}

static void io_prepare(conn *c, int write, uint32_t from, uint32_t want) {
    c->what = (write ? IO_WRITE : IO_READ) + (int)k_below(2);
    c->depth = (int)k_below(DEPTH);
    c->got = from;
    c->want = want;
}

/* Why a transfer ended early: 0 for the regular end of the stream. */
static void io_verdict(conn *c, int64_t n) {
    c->clean = n == 0 && c->got == 0;
    if (c->clean || w.phase == ENDING) return;
    if (n == -ECANCELED || n == -ETIMEDOUT || n == -EBADF) {
        taint(c->with);
        return;
    }
    CHECK("stream", c->with->tainted || n == -ENOMEM);
}

static int sessions_n(void);
static void yielded(root *r) {
    COUNT(YIELD);
    r->latency_mark = w.latency_runs[r->loop];
    r->batch_mark = w.batch_runs[r->loop];
    r->blur_mark = w.blur[r->loop];
    r->unseen_mark = w.blurred[r->loop];
    r->slices_mark = w.slices_of[r->loop][r->cls];
    r->hidden_mark = slices_hidden(r->loop);
    r->unseen = sessions_n() < r->unseen_mark ? sessions_n() : r->unseen_mark; /* each stands there once at most */
}
/* Between a yield and its resume, at most latency_run of the one class went before each of the other. Some of them may
   have been of either class. */
static void check_share(const root *r) {
    const uint64_t latency = w.latency_runs[r->loop] - r->latency_mark, batch = w.batch_runs[r->loop] - r->batch_mark;
    const uint64_t run = w.desc[r->loop].latency_run;
    const uint64_t hidden = slices_hidden(r->loop) - r->hidden_mark;
    const uint64_t either =
        w.blur[r->loop] - r->blur_mark + (uint64_t)(w.blurred[r->loop] - r->unseen_mark + r->unseen) + hidden;
    if (r->was_raised) return; /* it stood with those of its old class */
    CHECK("slice", w.slices_of[r->loop][r->cls] - r->slices_mark <= 1);
    if (r->cls == OL_BATCH) CHECK("class", latency <= run * (batch + either));
    if (r->cls == OL_LATENCY) CHECK("class", batch <= 1 + (latency + either) / run);
}

/* One of the things that a connection does with a request. Result: 1 go on, 0 give up. */
static void work(ol_co *co) {
    conn *c = OL_SELF(co, conn, frame);
    root *r = root_of(co);
    OL_BEGIN(co);
    c->job = (int)k_below(8);
    c->n = 0;
    if (c->job < 4) {
        c->t = task_new(r->loop, r->part);
        c->t->awaited = 1;
        task_begin(c->t, r->cls);
        begin(&c->b, r, c->f);
        OL_AWAIT(c->n, await_run(co, c->t));
        task_end(c->t);
        judge_task(c->t, r, &c->b, c->n);
        OL_RETURN((c->n != -ECANCELED && c->n != -ETIMEDOUT) || recover(r, c->n) || c->f->closed);
    } else if (c->job == 4) {
        begin(&c->b, r, c->f);
        c->span = k_range(0, 300 * US);
        OL_AWAIT(c->n, await_sleep(co, c->span));
        if (c->n == 0) CHECK("time", sim.now - c->b.at >= c->span);
        if (c->n == 0) check_late(c->b.at + c->span);
    } else if (c->job == 5) {
        yielded(r);
        OL_YIELD();
        check_share(r);
        OL_RETURN(1);
    } else if (c->job == 6) {
        task_submit(r->loop, r->part);
        OL_RETURN(1);
    } else {
        root_deadline(r, k_range(0, 2 * MS));
        OL_RETURN(1);
    }
    if (c->n == -ENOMEM && sim.stats.enomem) OL_RETURN(1);
    if (c->n) CHECK("error", c->n == -ECANCELED ? r->canceled : c->n == -ETIMEDOUT && sim.now >= r->deadline);
    judge_requests(&c->b, c->n);
    OL_RETURN(c->n == 0 || recover(r, c->n));
    OL_END(co);
}
static void work_entry(ol_co *co) {
    enter(co);
    work(co);
    leave_sub(co);
}

static void conn_free(conn *c) { k_disown(c); }

/* The request in msg is complete: check it, and turn it into the answer. */
static void conn_answer(conn *c) {
    uint32_t word[4], i;
    if (c->id < 0) { /* a party that was gone before it was accepted */
        memcpy(word, c->msg, 16);
        c->id = (int)word[3];
    }
    check_message(c->msg, c->id, (uint32_t)c->number, 0);
    for (i = 16; i < c->want; i++) c->msg[i] ^= 0x5a;
    c->number++;
}

static void conn_entry(ol_co *co);
static void conn_main(ol_co *co) {
    conn *c = (conn *)owner_of(co);
    root *r = root_of(co);
    OL_BEGIN(co);
    root_started(r);
    for (; c->left > 0; c->left--) {
        io_prepare(c, 0, 0, 16);
        OL_CALL(c->n, &c->frame[0], io_entry);
        if (c->n <= 0) break;
        CHECK("stream", message_len(c->msg) <= 16 + BODY);
        io_prepare(c, 0, 16, message_len(c->msg));
        OL_CALL(c->n, &c->frame[0], io_entry);
        if (c->n <= 0) break;
        conn_answer(c);
        for (c->jobs = (int)k_below(4); c->jobs > 0; c->jobs--) {
            OL_CALL(c->n, &c->frame[0], work_entry);
            if (c->n == 0) break;
            mischief(r->loop);
        }
        if (c->jobs) { /* gives up */
            c->n = -ECANCELED;
            break;
        }
        io_prepare(c, 1, 0, c->want);
        OL_CALL(c->n, &c->frame[0], io_entry);
        if (c->n <= 0) break;
    }
    if (c->left == 0) { /* hand over to another root, behind those that wait already */
        c->left = 1 + (int)k_below(5);
        c->which = !c->which;
        c->n = root_spawn(&c->r[c->which], c, R_CONN, r->loop, r->part, c->f, conn_entry);
        if (c->n == 0) {
            COUNT(HANDED_OVER);
            root_ended(r);
            OL_RETURN(0);
        }
        taint(c->with);
    } else {
        io_verdict(c, c->n);
    }
    if (!c->f->closed) fd_close(c->f);
    root_ended(r);
    OL_END_THEN(co, conn_free(c));
}
static void conn_entry(ol_co *co) {
    enter(co);
    conn_main(co);
    leave();
}

/* A party that the library accepted; one that is gone already can't be named. */
static party *party_of(int fd) {
    static party nobody;
    const k_end *e = sim.file[fd]->end;
    nobody.id = -1;
    nobody.tainted = 1;
    return e->peer && e->peer->user ? (party *)e->peer->user : &nobody;
}

static void conn_start(int loop, ol_fd handle, int cls) {
    conn *c = (conn *)k_own(sizeof *c);
    c->with = party_of((int)(uint32_t)handle);
    c->id = c->with->id;
    c->f = fd_new(loop, handle, cls, part_new(), c->with);
    c->left = k_below(2) ? 1000 : 1 + (int)k_below(5);
    if (root_spawn(&c->r[0], c, R_CONN, loop, c->f->part, c->f, conn_entry) == 0) return;
    taint(c->with);
    fd_close(c->f);
    conn_free(c);
}

typedef struct acceptor {
    root r;
    fdrec *f;
    before b;
    int64_t n;
    int more;
} acceptor;

/* 1: go on accepting */
static int accepted(acceptor *a) {
    root *r = &a->r;
    if (a->n > 0) {
        k_trace("accepted", r->id, 0);
        CHECK("error", !a->b.canceled && !a->b.closed);
        conn_start(r->loop, (ol_fd)a->n, a->f->cls);
        return 1;
    }
    if (a->n == -EMFILE || a->n == -ENFILE || a->n == -ENOSPC || (a->n == -ENOMEM && !sim.stats.enomem)) {
        CHECK("time", sim.now - a->b.at >= 10 * MS - sim.tick || w.phase == ENDING);
        COUNT(AW_EMFILE);
        return 1;
    }
    judge(r, a->f, &a->b, a->n);
    return a->n == -ENOMEM || recover(r, a->n);
}
static void acceptor_main(ol_co *co) {
    acceptor *a = (acceptor *)owner_of(co);
    OL_BEGIN(co);
    root_started(&a->r);
    do {
        begin(&a->b, &a->r, a->f);
        OL_AWAIT(a->n, ol_accept(co, a->f->handle));
        a->more = accepted(a);
        mischief(a->r.loop);
    } while (a->more);
    root_ended(&a->r);
    OL_END_THEN(co, k_disown(a));
}
static void acceptor_entry(ol_co *co) {
    enter(co);
    acceptor_main(co);
    leave();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Clients inside                                                                                                   */

static party *party_new(int outside) {
    party *p;
    if (w.nparties == PARTIES) return NULL;
    p = &w.parties[w.nparties];
    p->id = w.nparties++;
    p->outside = outside;
    p->target = (int)k_below(12);
    p->window = 1 + (int)k_below(4);
    p->port = 8000 + (int)k_below((uint32_t)w.nloops);
    p->lag = k_below(2) ? 2 * US : 200 * US;
    p->half = k_below(10) == 0;
    return p;
}

static int client_open(conn *c, root *r) {
    ol_fd handle;
    const int e = ol_socket(&r->co, AF_INET, SOCK_STREAM, 0, &handle);
    if (e) {
        CHECK("error", e == -EMFILE || e == -ENOSPC || e == -ENOMEM);
        c->with->refused = 1;
        return 0;
    }
    c->f = fd_new(r->loop, handle, r->cls, r->part, c->with);
    sim.file[(uint32_t)handle]->end->user = c->with;
    c->to = k_address(k_below(12) ? c->with->port : 9999);
    return 1;
}

/* Was the end of this client's connection in order? */
static void client_over(conn *c) {
    party *p = c->with;
    const int fd = c->f->closed ? -1 : (int)(uint32_t)c->f->handle;
    if (fd >= 0 && sim.file[fd]->end->blamed) taint(p);
    p->complete = c->number == p->target;
    if (!p->complete && (c->n == -ECANCELED || c->n == -ETIMEDOUT || c->n == -EBADF || c->n == -ENOMEM)) taint(p);
    if (!p->complete) CHECK("stream", p->tainted || p->refused || w.phase == ENDING);
}

static void client_main(ol_co *co) {
    conn *c = (conn *)owner_of(co);
    root *r = root_of(co);
    OL_BEGIN(co);
    root_started(r);
    if (client_open(c, r)) {
        if (k_below(2)) { /* the kernel reports the fresh socket meanwhile: hung up, and writable */
            OL_AWAIT(c->n, await_sleep(co, k_range(1, 50 * US)));
            (void)recover(r, c->n);
        }
        do {
            begin(&c->b, r, c->f);
            OL_AWAIT(c->n, ol_connect(co, c->f->handle, (struct sockaddr *)&c->to, sizeof c->to));
            judge(r, c->f, &c->b, c->n);
        } while (recover(r, c->n));
        if (c->n == -ECONNREFUSED) c->with->refused = 1;
        while (c->n >= 0 && c->number < c->with->target) {
            mischief(r->loop);
            io_prepare(c, 1, 0, make_request(c->id, (uint32_t)c->number, c->msg));
            OL_CALL(c->n, &c->frame[0], io_entry);
            if (c->n <= 0) break;
            io_prepare(c, 0, 0, 16);
            OL_CALL(c->n, &c->frame[0], io_entry);
            if (c->n <= 0) break;
            CHECK("stream", message_len(c->msg) <= 16 + BODY);
            io_prepare(c, 0, 16, message_len(c->msg));
            OL_CALL(c->n, &c->frame[0], io_entry);
            if (c->n <= 0) break;
            check_message(c->msg, c->id, (uint32_t)c->number++, 1);
            COUNT(REPLIES);
        }
        client_over(c);
        if (!c->f->closed) fd_close(c->f);
    }
    root_ended(r);
    OL_END_THEN(co, conn_free(c));
}
static void client_entry(ol_co *co) {
    enter(co);
    client_main(co);
    leave();
}
static void client_start(int loop) {
    party *p = party_new(0);
    conn *c;
    if (!p) return;
    c = (conn *)k_own(sizeof *c);
    c->with = p;
    c->id = p->id;
    if (root_spawn(&c->r[0], c, R_CLIENT, loop, part_new(), NULL, client_entry) == 0) return;
    p->refused = 1;
    conn_free(c);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Pumps: one root fills a pipe or a socket pair, another empties it                                                */

typedef struct pump {
    root r;
    fdrec *f;
    party *with; /* both sides' */
    int writes, more;
    int raw;          /* reads by a call of its own */
    uint32_t message; /* the longest that fits into one message; 0: a stream */
    uint32_t at, total, n;
    uint64_t seed;
    int64_t got;
    before b;
    unsigned char buf[700];
} pump;

static void pump_fill(pump *p) {
    uint32_t i;
    p->n = 1 + k_below(p->writes && p->message ? p->message : (uint32_t)sizeof p->buf);
    if (!p->writes && p->message) p->n = sizeof p->buf; /* what doesn't fit would be lost */
    if (p->writes && p->n > p->total - p->at) p->n = p->total - p->at;
    for (i = 0; p->writes && i < p->n; i++) p->buf[i] = k_byte(p->seed, p->at + i);
}
/* The fd is readable, or the await has failed. 1: it was not, after all. */
static int pump_raw(pump *p) {
    const int fd = ol_fd_raw(w.loop[p->r.loop], p->f->handle);
    if (p->got < 0) return 0;
    CHECK("error", p->got == 0 && fd == (int)(uint32_t)p->f->handle);
    p->got = k_read(fd, p->buf, p->n);
    if (p->got >= 0) return 0;
    p->got = -errno;
    if (p->got != -EAGAIN) return 0;
    CHECK("error", ol_again(w.loop[p->r.loop], p->f->handle, 0) == 0);
    return 1;
}
static int pump_check(pump *p) { /* 1: go on */
    int64_t i;
    if (p->raw && pump_raw(p)) return 1;
    judge(&p->r, p->f, &p->b, p->got);
    if (p->got < 0 || (p->writes && p->n == 0)) {
        if (p->got < 0) taint(p->with);
        return 0;
    }
    if (p->writes) CHECK("stream", p->got == p->n);
    for (i = 0; !p->writes && i < p->got; i++) CHECK("stream", p->buf[i] == k_byte(p->seed, p->at + (uint64_t)i));
    p->at += (uint32_t)p->got;
    if (p->got == 0) {
        CHECK("stream", p->at == p->total || p->with->tainted);
        p->with->complete = p->at == p->total;
    }
    return p->writes ? p->at < p->total : p->got > 0;
}
static void pump_main(ol_co *co) {
    pump *p = (pump *)owner_of(co);
    OL_BEGIN(co);
    root_started(&p->r);
    do {
        pump_fill(p);
        begin(&p->b, &p->r, p->f);
        if (p->writes) OL_AWAIT(p->got, ol_write(co, p->f->handle, p->buf, p->n));
        else if (p->raw) OL_AWAIT(p->got, ol_wait_readable(co, p->f->handle));
        else OL_AWAIT(p->got, ol_read(co, p->f->handle, p->buf, p->n));
        p->more = pump_check(p);
        mischief(p->r.loop);
    } while (p->more);
    if (!p->f->closed) fd_close(p->f);
    root_ended(&p->r);
    OL_END_THEN(co, k_disown(p));
}
static void pump_entry(ol_co *co) {
    enter(co);
    pump_main(co);
    leave();
}

static int pump_side(int loop, int fd, party *with, int writes, uint32_t total, uint32_t message) {
    pump *p;
    ol_fd handle;
    const int cls = (int)k_below(3), e = ol_attach(w.loop[loop], fd, cls, &handle);
    if (e) {
        CHECK("error", e == -ENOMEM || e == -ENOSPC || fork_failed(loop, e));
        k_close(fd);
        taint(with);
        return 0;
    }
    p = (pump *)k_own(sizeof *p);
    p->with = with;
    p->writes = writes;
    p->raw = !writes && k_below(3) == 0;
    p->total = total;
    p->message = message;
    p->seed = (uint64_t)with->id * 77 + 5;
    p->f = fd_new(loop, handle, cls, part_new(), with);
    if (root_spawn(&p->r, p, R_PUMP, loop, p->f->part, p->f, pump_entry) == 0) return 1;
    taint(with);
    fd_close(p->f);
    k_disown(p);
    return 0;
}
static void pump_start(void) {
    party *with;
    int fds[2];
    const uint32_t total = 1 + k_below(5000), cap = 1 + k_below(600);
    const int kind = (int)k_below(4);
    const uint32_t message = kind == K_MESSAGES ? cap : 0;
    if (!k_free_fds(2)) return;
    with = party_new(0);
    if (!with) return;
    if (k_pair(kind, cap, fds)) k_fail("test", "no fd for a pump");
    pump_side((int)k_below((uint32_t)w.nloops), fds[1], with, 1, total, message);
    pump_side((int)k_below((uint32_t)w.nloops), fds[0], with, 0, total, message);
}

/* ---------------------------------------------------------------------------------------------------------------- */

static void streams_build(void) {
    int i, parties = 2 + (int)k_below(12);
    for (i = 0; i < parties; i++) {
        party *p = party_new(1);
        k_at(k_range(1, 3 * MS), script, p, 0);
    }
    w.clients = (int)k_below(8);
    w.pumps = (int)k_below(4);
}
static void streams_quiet(void) {
    int i;
    for (i = 0; i < w.nparties; i++) {
        w.parties[i].stalled = 0;
        if (w.parties[i].outside && !w.parties[i].over) script_soon(&w.parties[i], w.parties[i].lag);
    }
}
static int streams_calm(void) {
    int i;
    for (i = 0; i < w.nparties; i++)
        if (w.parties[i].outside && !w.parties[i].over) return 0;
    return 1;
}
static void streams_end(void) {
    int i;
    for (i = 0; i < w.nparties; i++) {
        party *p = &w.parties[i];
        COUNT_IF(COMPLETE, p->complete);
        COUNT_IF(BROKEN, p->tainted);
        COUNT_IF(REFUSED, p->refused);
        CHECK("stream", p->complete || p->tainted || p->refused);
        if (p->end) script_over(p);
    }
}

#endif
