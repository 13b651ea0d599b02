/* run_shared.c: what partitions share: joins, locks, children, gated timers and posts. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sys/eventfd.h>
#include "checks.h"

static ol_fd event_fd(ol_loop *loop, int cls) {
    ol_fd handle = 0;
    const int fd = eventfd(0, EFD_CLOEXEC);
    if (API(ol_attach(loop, fd, cls, &handle)) == 0) return handle;
    close(fd);
    return 0;
}

/* ---- joins. Each coroutine lives in the partition of `own`, waits, joins `other`, waits, and ends. */

enum { JOINERS = 10 };
struct joiner {
    ol_co co;
    ol_fd own, other;
    int64_t before, after, limit, r;
    int expect, closes, alive, group; /* group: of partitions that will be one */
};
static struct joining {
    struct joiner j[JOINERS];
    int inside[JOINERS]; /* roots that hold the joined partition */
    int circles;
} joining;

static void joiner_main(ol_co *co) {
    struct joiner *j = OL_SELF(co, struct joiner, co);
    OL_BEGIN(co);
    if (j->before) {
        OL_AWAIT(j->r, ol_sleep(co, j->before));
        RESULT_OR(co, j->r, ECANCELED);
    }
    if (j->closes) CHECK(ol_close(co->loop, j->own) == 0);
    if (j->other) {
        if (j->limit && API(ol_deadline(co, j->limit)) < 0) ol_cancel(co);
        OL_AWAIT(j->r, ol_join(co, j->other));
        RESULT_OR(co, j->r, j->expect);
        WORKS(j->r == -j->expect || j->expect == EDEADLK);
        joining.circles += j->r == -EDEADLK;
        API(ol_deadline(co, OL_NEVER));
        if (ol_canceled(co)) ol_cancel_clear(co);
        if (j->r == 0) {
            CHECK(joining.inside[j->group]++ == 0);
            CHECK(API_OR(ol_try_join(co->loop, j->own, j->other), EBADF) == 0 || !j->own);
        }
    }
    if (j->after) {
        OL_DO(ol_sleep(co, j->after));
    }
    if (j->other && j->r == 0) joining.inside[j->group]--;
    j->alive = 0;
    OL_END(co);
}

static void joins(void) {
    enum { A, B, C, D, E, F, G, H, I, K, FDS };
    static const struct {
        int own, other, expect, closes, group;
        int64_t before, after, limit;
    } plan_of[JOINERS] = {
        {A, B, 0, 0, 0, 0, MS / 5, 0},                                         /* free: at once */
        {C, -1, 0, 0, 1, MS, 0, 0},                                            /* holds C for a while */
        {D, C, 0, 0, 1, 0, MS / 5, 0},                                         /* waits for it */
        {E, F, EDEADLK, 0, 2, MS / 5, 0, 0},                                   /* one of the two closes the circle */
        {F, E, EDEADLK, 0, 2, MS / 5, 0, 0}, {G, -1, 0, 1, 3, 3 * MS, 0, 0},   /* holds G, then closes it */
        {H, G, ETIMEDOUT, 0, 3, 0, 0, MS},   {I, G, ECANCELED, 0, 3, 0, 0, 0}, /* until that */
        {K, G, ECANCELED, 0, 3, 0, 0, 0},                                      /* cancelled below */
        {C, B, 0, 0, 0, 0, MS / 5, 0}, /* B is A's, and C is D's by then: all four are one */
    };
    ol_fd fd[FDS];
    ol_loop_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.no_pool = 1;
    ol_loop *loop = loop_new(&desc);
    if (!loop) return;
    memset(&joining, 0, sizeof joining);
    for (int i = 0; i < FDS; i++) fd[i] = event_fd(loop, i % 3);
    for (int i = 0; i < JOINERS; i++) {
        struct joiner *j = &joining.j[i];
        j->own = fd[plan_of[i].own];
        j->other = plan_of[i].other < 0 ? 0 : fd[plan_of[i].other];
        j->expect = plan_of[i].expect, j->closes = plan_of[i].closes && j->own, j->group = plan_of[i].group;
        j->before = plan_of[i].before, j->after = plan_of[i].after, j->limit = plan_of[i].limit;
        j->alive = API(ol_spawn(loop, &j->co, joiner_main, j->own, 0)) == 0;
    }
    API(ol_loop_step(loop, 0));
    if (joining.j[8].alive) ol_cancel(&joining.j[8].co);
    loop_work(loop);
    for (int i = 0; i < JOINERS; i++) CHECK(!joining.j[i].alive);
    WORKS(joining.circles == 1);
    loop_end(loop);
}

static void joins_outside(void) { /* ol_try_join, by who doesn't live in either partition */
    struct joiner j[2];
    ol_loop *loop = loop_new(NULL);
    ol_fd fd[3];
    if (!loop) return;
    memset(j, 0, sizeof j);
    memset(&joining, 0, sizeof joining);
    for (int i = 0; i < 3; i++) fd[i] = event_fd(loop, i);
    const int all = fd[0] && fd[1] && fd[2];
    for (int i = 0; i < 2 && all; i++) {
        j[i].own = fd[i];
        j[i].before = MS;
        j[i].alive = API(ol_spawn(loop, &j[i].co, joiner_main, fd[i], 0)) == 0;
    }
    API(ol_loop_step(loop, 0));
    if (all && j[0].alive && j[1].alive) {
        CHECK(API_OR(ol_try_join(loop, fd[0], fd[1]), EBUSY) == -EBUSY);
        CHECK(API(ol_try_join(loop, fd[0], fd[2])) == 0);
        CHECK(API_OR(ol_try_join(loop, fd[2], fd[1]), EBUSY) == -EBUSY);
        CHECK(API(ol_try_join(loop, fd[0], fd[2])) == 0);
    }
    loop_work(loop);
    if (all) CHECK(API(ol_try_join(loop, fd[1], fd[2])) == 0);
    CHECK(API_OR(ol_try_join(loop, fd[0], 0), EBADF) == -EBADF);
    loop_end(loop);
}

/* A line in front of a partition that a join takes: who is in it moves to the joined one, and waits for others then. */
static struct line {
    struct joiner holder, circle, late;
    ol_co co;
    ol_child child[3];
    ol_fd x, y, z;
    int64_t r[3];
    ol_timer timer;
    ol_post_node node;
    int alive, joined, timers, posts, started;
} line;
static void line_join(ol_co *co, int i, ol_fd fd) {
    OL_BEGIN(co);
    OL_AWAIT(line.r[i], ol_join(co, fd));
    RESULT_OR(co, line.r[i], EDEADLK);
    line.joined += line.r[i] == 0;
    OL_END(co);
}
static void line_x1(ol_co *co) { line_join(co, 0, line.x); }
static void line_x2(ol_co *co) { line_join(co, 1, line.x); }
static void line_z(ol_co *co) { line_join(co, 2, line.z); }
static void line_main(ol_co *co) {
    static void (*const fn[3])(ol_co *) = {line_x1, line_x2, line_z};
    OL_BEGIN(co);
    for (int i = 0; i < 3; i++) CHECK(API(ol_fork(co, &line.child[i], fn[i])) == 0);
    OL_END_THEN(co, line.alive = 0);
}
static void on_line_timer(ol_loop *loop, ol_timer *t) {
    (void)loop, (void)t;
    CHECK(!line.alive && !line.holder.alive);
    line.timers++;
}
static void on_line_post(ol_loop *loop, ol_post_node *node) {
    (void)loop, (void)node;
    CHECK(!line.alive && !line.holder.alive);
    line.posts++;
}
static int line_spawn(ol_loop *loop, struct joiner *j, ol_fd own, ol_fd other, int64_t before, int expect) {
    j->own = own, j->other = other, j->before = before, j->expect = expect;
    return j->alive = API(ol_spawn(loop, &j->co, joiner_main, own, 0)) == 0;
}
static void joins_of_lines(void) {
    ol_loop_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.no_pool = 1;
    ol_loop *loop = loop_new(&desc);
    if (!loop) return;
    memset(&line, 0, sizeof line);
    memset(&joining, 0, sizeof joining);
    line.x = event_fd(loop, 0), line.y = event_fd(loop, OL_LATENCY), line.z = event_fd(loop, 0);
    const int all = line.x && line.y && line.z && line_spawn(loop, &line.holder, line.x, 0, 2 * MS, 0) &&
                    line_spawn(loop, &line.circle, line.z, line.x, MS / 10, EDEADLK);
    if (all) line.alive = API(ol_spawn(loop, &line.co, line_main, line.y, 0)) == 0;
    for (int i = 0; i < 3; i++) API(ol_loop_step(loop, 0));
    if (all && line.alive) {
        line.timer.fd = line.node.fd = line.x;
        line.node.fn = on_line_post;
        line.started = API(ol_timer_start(loop, &line.timer, MS, on_line_timer)) == 0;
        CHECK(ol_post(loop, &line.node) == 0);
        line_spawn(loop, &line.late, line.x, 0, 1000, 0);
    }
    loop_work(loop);
    CHECK(!line.alive && !line.holder.alive && !line.circle.alive && !line.late.alive);
    CHECK(line.timers == line.started);
    WORKS(line.joined == 3 && joining.circles == 1 && line.posts == 1 && line.started);
    loop_end(loop);
}

/* ---- locks */

enum { LOCKERS = 7 };
struct locker {
    ol_co co;
    int64_t r, hold, limit;
    int first, second, expect, keep, alive, got; /* which locks; keep: its end is what releases them */
};
static struct locking {
    ol_mutex mutex[4];
    int held[4], circles;
    int order[8], n;
    struct locker l[LOCKERS];
} locking;

static void locker_take(struct locker *l, int which) {
    CHECK(locking.held[which]++ == 0);
    CHECK(locking.mutex[which].holder == &l->co);
    if (which == 0) locking.order[locking.n++] = (int)(l - locking.l);
}
static void locker_main(ol_co *co) {
    struct locker *l = OL_SELF(co, struct locker, co);
    OL_BEGIN(co);
    CHECK(API_OR(ol_unlock(co, &locking.mutex[l->first]), EINVAL) == -EINVAL);
    if (l->limit && API(ol_deadline(co, l->limit)) < 0) ol_cancel(co);
    OL_AWAIT(l->r, ol_lock(co, &locking.mutex[l->first]));
    RESULT_OR(co, l->r, l->expect);
    API(ol_deadline(co, OL_NEVER));
    if (l->r == 0) {
        locker_take(l, l->first);
        l->got++;
        OL_AWAIT(l->r, ol_sleep(co, l->hold));
        RESULT(co, l->r);
        if (l->second) {
            OL_AWAIT(l->r, ol_lock(co, &locking.mutex[l->second]));
            RESULT_OR(co, l->r, EDEADLK);
            locking.circles += l->r == -EDEADLK;
            if (l->r == 0) {
                locker_take(l, l->second);
                l->got++;
                OL_DO(ol_sleep(co, l->hold));
                locking.held[l->second]--;
                if (!l->keep) CHECK(API(ol_unlock(co, &locking.mutex[l->second])) == 0);
            }
        }
        locking.held[l->first]--;
        if (!l->keep) CHECK(API(ol_unlock(co, &locking.mutex[l->first])) == 0);
    }
    l->alive = 0;
    OL_END(co);
}
static void locks(void) {
    static const struct locker plan_of[LOCKERS] = {
        {.hold = MS / 5, .keep = 1}, /* the first three: in this order */
        {.hold = MS / 5},
        {.hold = MS / 5},
        {.limit = MS / 10, .expect = ETIMEDOUT},   /* its turn would come later */
        {.expect = ECANCELED},                     /* cancelled below */
        {.first = 1, .second = 2, .hold = MS / 5}, /* one of the two closes a circle */
        {.first = 2, .second = 1, .hold = MS / 5, .keep = 1},
    };
    ol_loop_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.no_pool = 1;
    ol_loop *loop = loop_new(&desc);
    if (!loop) return;
    memset(&locking, 0, sizeof locking);
    for (int i = 0; i < LOCKERS; i++) {
        locking.l[i] = plan_of[i];
        locking.l[i].alive = API(ol_spawn(loop, &locking.l[i].co, locker_main, 0, 0)) == 0;
    }
    API(ol_loop_step(loop, 0));
    if (locking.l[4].alive) ol_cancel(&locking.l[4].co);
    loop_work(loop);
    for (int i = 0; i < LOCKERS; i++) CHECK(!locking.l[i].alive);
    for (int i = 0; i < 4; i++) CHECK(!locking.held[i] && !locking.mutex[i].holder);
    for (int i = 1; i < locking.n; i++) CHECK(locking.order[i] > locking.order[i - 1]);
    WORKS(locking.n >= 3 && locking.circles == 1 && locking.l[5].got + locking.l[6].got == 3);
    loop_end(loop);
}

static void locks_left(void) { /* a loop ends, its locks can be used by another one */
    ol_loop *one = loop_new(NULL), *two;
    memset(&locking, 0, sizeof locking);
    locking.l[0].alive = one && API(ol_spawn(one, &locking.l[0].co, locker_main, 0, 0)) == 0;
    loop_work(one);
    loop_end(one);
    two = loop_new(NULL);
    locking.l[1].alive = two && API(ol_spawn(two, &locking.l[1].co, locker_main, 0, 0)) == 0;
    loop_end(two);
    WORKS(locking.l[0].got == 1 && locking.l[1].got == 1);
}

/* ---- children: two roots that write to each other more than a socket holds, and read at once */

enum { FLOOD = 20000, GULP = 4000 };
struct duplex {
    ol_co co;
    ol_child reader, writer;
    ol_fd fd;
    size_t sent, got;
    int64_t n, r, k[2];
    int closed, ended;
    unsigned char out[GULP], in[GULP];
};
static void duplex_close(struct duplex *d, ol_loop *loop) {
    if (!d->closed) CHECK(ol_close(loop, d->fd) == 0);
    d->closed = 1;
}
static void duplex_reader(ol_co *co) {
    struct duplex *d = OL_SELF(co, struct duplex, reader.co);
    OL_BEGIN(co);
    while (d->got < FLOOD) {
        OL_AWAIT(d->r, ol_read(co, d->fd, d->in, GULP));
        if (RESULT_OR(co, d->r, ECANCELED) <= 0) {
            WORKS(0);
            duplex_close(d, co->loop);
            OL_RETURN(-EIO);
        }
        for (int64_t i = 0; i < d->r; i++) CHECK(d->in[i] == (unsigned char)(d->got + (size_t)i));
        d->got += (size_t)d->r;
    }
    OL_RETURN((int64_t)d->got);
    OL_END(co);
}
static void duplex_writer(ol_co *co) {
    struct duplex *d = OL_SELF(co, struct duplex, writer.co);
    OL_BEGIN(co);
    while (d->sent < FLOOD) {
        for (size_t i = 0; i < GULP; i++) d->out[i] = (unsigned char)(d->sent + i);
        OL_AWAIT(d->n, ol_write(co, d->fd, d->out, GULP));
        if (RESULT_OR(co, d->n, ECANCELED) < 0) {
            WORKS(0);
            duplex_close(d, co->loop);
            OL_RETURN(d->n);
        }
        d->sent += (size_t)d->n;
    }
    OL_RETURN((int64_t)d->sent);
    OL_END(co);
}
static void duplex_main(ol_co *co) {
    struct duplex *d = OL_SELF(co, struct duplex, co);
    OL_BEGIN(co);
    CHECK(API(ol_fork(co, &d->reader, duplex_reader)) == 0);
    CHECK(API(ol_fork(co, &d->writer, duplex_writer)) == 0);
    OL_AWAIT(d->k[0], ol_wait(co, &d->reader));
    RESULT_OR(co, d->k[0], strict() ? NONE : EIO);
    OL_AWAIT(d->k[1], ol_wait(co, &d->writer));
    RESULT(co, d->k[1]);
    WORKS(d->k[0] == FLOOD && d->k[1] == FLOOD);
    OL_AWAIT(d->k[0], ol_wait(co, NULL)); /* where a wait had no memory, they are still there */
    RESULT(co, d->k[0]);
    d->ended = 1;
    OL_END_THEN(co, duplex_close(d, d->co.loop));
}
static void children(void) {
    static struct duplex d[2];
    ol_loop_desc desc;
    int pair[2];
    const int small = 4096;
    memset(&desc, 0, sizeof desc);
    desc.no_pool = 1;
    ol_loop *loop = loop_new(&desc);
    if (!loop) return;
    memset(d, 0, sizeof d);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) fail("socketpair: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        (void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
        if (API(ol_attach(loop, pair[i], i, &d[i].fd)) < 0) {
            close(pair[i]);
            continue;
        }
        if (API(ol_spawn(loop, &d[i].co, duplex_main, d[i].fd, 0)) < 0) duplex_close(&d[i], loop);
    }
    loop_work(loop);
    for (int i = 0; i < 2; i++) WORKS(d[i].ended && d[i].closed);
    loop_end(loop);
}

/* Ends: of a root that doesn't wait for its children, of children's children, of a root that is cancelled; waits that
   can't be. */
enum { KIN = 4 };
struct family {
    ol_co co;
    ol_child child[KIN];
    int64_t r[KIN], own;
    ol_fd fd;
    int alive, over, circles, cancel, returns;
};
static void family_leaf(ol_co *co) { /* child 3 */
    struct family *f = OL_SELF(co, struct family, child[3].co);
    OL_BEGIN(co);
    OL_AWAIT(f->r[3], ol_sleep(co, f->cancel ? 3000 * MS : MS));
    RESULT_OR(co, f->r[3], f->cancel ? ECANCELED : NONE);
    f->alive--;
    OL_RETURN(f->r[3] < 0 ? f->r[3] : 33);
    OL_END(co);
}
static void family_other(ol_co *co) { /* child 1, which waits for child 0, which waits for it */
    struct family *f = OL_SELF(co, struct family, child[1].co);
    OL_BEGIN(co);
    OL_AWAIT(f->r[1], ol_wait(co, &f->child[0]));
    RESULT_OR(co, f->r[1], ol_canceled(co) ? ECANCELED : EDEADLK);
    f->circles += f->r[1] == -EDEADLK;
    f->alive--;
    OL_END(co);
}
static void family_parent(ol_co *co) { /* child 0 */
    struct family *f = OL_SELF(co, struct family, child[0].co);
    OL_BEGIN(co);
    CHECK(API(ol_fork(co, &f->child[3], family_leaf)) == 0);
    f->alive++;
    OL_AWAIT(f->r[0], ol_wait(co, NULL)); /* for the root only */
    RESULT_OR(co, f->r[0], ol_canceled(co) ? ECANCELED : EINVAL);
    CHECK(f->r[0] < 0);
    OL_AWAIT(f->r[0], ol_wait(co, &f->child[1]));
    RESULT_OR(co, f->r[0], ol_canceled(co) ? ECANCELED : EDEADLK);
    f->circles += f->r[0] == -EDEADLK;
    f->alive--;
    OL_END(co);
}
static void family_main(ol_co *co) {
    struct family *f = OL_SELF(co, struct family, co);
    OL_BEGIN(co);
    CHECK(API(ol_fork(co, &f->child[0], family_parent)) == 0);
    CHECK(API(ol_fork(co, &f->child[1], family_other)) == 0);
    f->alive += 2;
    if (f->cancel) {
        OL_YIELD();
        ol_cancel(co);
        OL_AWAIT(f->own, ol_sleep(co, MS));
        RESULT_OR(co, f->own, ECANCELED);
    }
    if (f->returns) OL_RETURN(7); /* which waits for them, too */
    OL_END_THEN(co, f->over = f->alive == 0 ? 1 : -1);
}
static void families(void) {
    static struct family f[3];
    struct joiner j;
    ol_loop_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.no_pool = 1;
    ol_loop *loop = loop_new(&desc);
    if (!loop) return;
    memset(f, 0, sizeof f);
    memset(&j, 0, sizeof j);
    memset(&joining, 0, sizeof joining);
    f[1].cancel = 1;
    f[2].returns = 1;
    for (int i = 0; i < 3; i++) {
        f[i].fd = event_fd(loop, 0);
        const int spawned = API(ol_spawn(loop, &f[i].co, family_main, f[i].fd, 0)) == 0;
        f[i].over = !spawned || f[i].returns;
    }
    for (int i = 0; i < 2; i++) API(ol_loop_step(loop, 0));
    j.other = f[0].fd; /* of a root that is at its end, and waits for its children */
    j.alive = API(ol_spawn(loop, &j.co, joiner_main, 0, 0)) == 0;
    loop_work(loop);
    for (int i = 0; i < 3; i++) CHECK(f[i].over == 1 && f[i].alive == 0);
    CHECK(!j.alive);
    WORKS(f[0].circles == 1 && f[2].circles == 1);
    loop_end(loop);
}

/* ---- timers and posts that name an fd wait for its partition */

static struct gated {
    struct joiner holder;
    ol_timer timer[3];
    ol_post_node node[3];
    int timers, posts, posted;
} gated;
static void on_gated_timer(ol_loop *loop, ol_timer *t) {
    (void)loop;
    CHECK(!gated.holder.alive || t == &gated.timer[2]);
    gated.timers++;
}
static void on_gated_post(ol_loop *loop, ol_post_node *node) {
    (void)loop;
    CHECK(!gated.holder.alive || node == &gated.node[2]);
    gated.posts++;
}
static void gates(void) {
    ol_loop_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.no_pool = 1;
    ol_loop *loop = loop_new(&desc);
    int started = 0;
    if (!loop) return;
    memset(&gated, 0, sizeof gated);
    memset(&joining, 0, sizeof joining);
    const ol_fd fd = event_fd(loop, OL_LATENCY), closed = event_fd(loop, 0);
    gated.holder.own = fd;
    gated.holder.before = MS;
    gated.holder.alive = API(ol_spawn(loop, &gated.holder.co, joiner_main, fd, 0)) == 0;
    API(ol_loop_step(loop, 0));
    for (int i = 0; i < 3; i++) { /* the last ones name an fd that is gone, and don't wait */
        gated.timer[i].fd = gated.node[i].fd = i == 2 ? closed : fd;
        gated.node[i].fn = on_gated_post;
        if (!fd || !closed) continue;
        started += API(ol_timer_start(loop, &gated.timer[i], i * 1000, on_gated_timer)) == 0;
        gated.posted += ol_post(loop, &gated.node[i]) == 0;
    }
    if (closed) CHECK(ol_close(loop, closed) == 0);
    loop_work(loop);
    CHECK(gated.timers == started && gated.posts == gated.posted);
    WORKS(started == 3 && gated.posted == 3);
    loop_end(loop);
}

static void gates_left(void) { /* the loop ends while they wait; a timer that waits is stopped */
    ol_loop_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.no_pool = 1;
    ol_loop *loop = loop_new(&desc);
    if (!loop) return;
    memset(&gated, 0, sizeof gated);
    memset(&joining, 0, sizeof joining);
    const ol_fd fd = event_fd(loop, OL_LATENCY);
    gated.holder.own = fd;
    gated.holder.before = 3000 * MS;
    if (fd) gated.holder.alive = API(ol_spawn(loop, &gated.holder.co, joiner_main, fd, 0)) == 0;
    API(ol_loop_step(loop, 0));
    for (int i = 0; i < 2 && gated.holder.alive; i++) {
        gated.timer[i].fd = gated.node[i].fd = fd;
        gated.node[i].fn = on_gated_post;
        API(ol_timer_start(loop, &gated.timer[i], 0, on_gated_timer));
        gated.posted += ol_post(loop, &gated.node[i]) == 0;
    }
    API(ol_loop_step(loop, 0));
    ol_timer_stop(loop, &gated.timer[0]);
    if (gated.holder.alive) ol_cancel(&gated.holder.co);
    loop_drain_end(loop);
    CHECK(gated.posts == gated.posted && gated.timers <= 1 && !gated.holder.alive);
}

const struct scenario scenarios_shared[] = {
    {"joins", joins},
    {"joins_outside", joins_outside},
    {"joins_of_lines", joins_of_lines},
    {"locks", locks},
    {"locks_left", locks_left},
    {"children", children},
    {"families", families},
    {"gates", gates},
    {"gates_left", gates_left},
    {NULL, NULL},
};
