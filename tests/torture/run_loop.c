/* run_loop.c: loops, coroutines, times, partitions and posts. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sys/eventfd.h>
#include "checks.h"

static ol_loop *loop_alone(void) {
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.no_pool = 1;
    return loop_new(&d);
}

/* ---- creation */

static void create(void) { loop_end(loop_alone()); }

static void create_shared(void) { /* the process's pool: made for the first loop, gone with the last */
    ol_loop *one = loop_new(NULL), *two = loop_new(NULL);
    loop_end(one);
    loop_end(two);
    loop_end(loop_new(NULL));
}

static void create_pool(void) {
    ol_backend *pool = pool_new(2, 4);
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.backends = &pool;
    d.nbackends = pool != NULL;
    ol_loop *one = loop_new(&d), *two = loop_new(&d);
    if (one && pool) CHECK(API_OR(ol_threads_destroy(pool), EBUSY) == -EBUSY);
    loop_end(one);
    loop_end(two);
    loop_end(loop_new(&d)); /* a channel that is used again */
    pool_end(pool);
}

static void create_default_pool(void) { /* as many workers as there are CPUs */
    ol_backend *pool = NULL;
    if (API(ol_threads_create(&pool, NULL)) == 0) pool_end(pool);
}

static void create_device(void) {
    device d1, d2;
    ol_backend *both[2];
    ol_loop_desc d;
    both[0] = &device_new(&d1, 2)->backend;
    both[1] = &device_new(&d2, 2)->backend;
    d2.backend.name = "second";
    memset(&d, 0, sizeof d);
    d.backends = both;
    d.nbackends = 2;
    loop_end(loop_new(&d));
    CHECK(!d1.open && !d2.open);
}

static void create_bad_policy(void) {
    ol_loop_desc d;
    ol_loop *loop = NULL;
    memset(&d, 0, sizeof d);
    d.policy = "call any 0- async nowhere wait";
    CHECK(API_OR(ol_loop_create(&loop, &d), EINVAL) < 0 && !loop);
}

/* ---- timers */

enum { TIMERS = 70 }; /* more than the heap's first size */
static struct clocks {
    ol_timer timer[TIMERS];
    int started[TIMERS], fired[TIMERS];
    int again;
} clocks;
static void on_timer(ol_loop *loop, ol_timer *t) {
    const long i = t - clocks.timer;
    CHECK(i >= 0 && i < TIMERS && clocks.started[i] && !clocks.fired[i]);
    clocks.fired[i] = 1;
    if (i == 1 && clocks.again++ < 2 && API(ol_timer_start(loop, t, MS / 10, on_timer)) == 0) clocks.fired[i] = 0;
    if (i == 2 && clocks.started[3]) { /* it is later, so it has not fired */
        ol_timer_stop(loop, &clocks.timer[3]);
        clocks.started[3] = 0;
    }
}
static void timers(void) {
    struct clocks *c = &clocks;
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(c, 0, sizeof *c);
    for (int i = 0; i < TIMERS; i++) {
        c->started[i] = API(ol_timer_start(loop, &c->timer[i], i == 3 ? 3000 * MS : (int64_t)i * 1000, on_timer)) == 0;
        if (c->started[i] && i % 8 == 4) CHECK(API(ol_timer_start(loop, &c->timer[i], MS, on_timer)) == 0);
    }
    if (!c->started[2]) ol_timer_stop(loop, &c->timer[3]), c->started[3] = 0; /* nobody else will */
    loop_work(loop);
    for (int i = 0; i < TIMERS; i++) {
        CHECK(c->fired[i] == c->started[i]);
        WORKS(c->started[i] || i == 3);
    }
    loop_end(loop);
}

static void timers_left(void) { /* a loop ends with timers that run */
    struct clocks *c = &clocks;
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(c, 0, sizeof *c);
    for (int i = 0; i < 3; i++) API(ol_timer_start(loop, &c->timer[i], 3000 * MS, on_timer));
    CHECK(ol_loop_destroy(loop) == 0);
    for (int i = 0; i < 3; i++) CHECK(c->timer[i].index == 0);
}

/* ---- sleeps, deadlines, cancels */

struct sleeper {
    ol_co co;
    struct sleeper *victim; /* to be cancelled */
    int64_t r, ns, limit;
    int alive, expect, clear;
    int cleared; /* its second sleep, after the request was forgotten, went well */
};
static void sleeper_main(ol_co *co) {
    struct sleeper *s = OL_SELF(co, struct sleeper, co);
    OL_BEGIN(co);
    if (s->limit && API(ol_deadline(co, s->limit)) < 0) s->ns = 0;
    OL_AWAIT(s->r, ol_sleep(co, s->ns));
    RESULT_OR(co, s->r, s->expect);
    WORKS(s->r == -s->expect);
    if (s->victim && s->victim->alive) ol_cancel(&s->victim->co);
    if (s->clear) {
        if (ol_canceled(co)) ol_cancel_clear(co);
        API(ol_deadline(co, OL_NEVER));
        CHECK(API(ol_set_class(co, OL_LATENCY)) == 0);
        OL_AWAIT(s->r, ol_sleep(co, MS / 10));
        s->cleared = RESULT(co, s->r) == 0;
    }
    s->alive = 0;
    OL_END(co);
}
static void sleeps(void) {
    static const struct {
        int64_t ns, limit;
        int expect, clear, victim;
    } plan_of[] = {
        {MS / 10, 0, 0, 0, 0},
        {3000 * MS, MS / 10, ETIMEDOUT, 1, 0},
        {3000 * MS, 0, ECANCELED, 1, 0}, /* cancelled by the next one */
        {MS, 2000 * MS, 0, 0, 2},
        {0, 0, 0, 0, 0},
        {3000 * MS, -1, ETIMEDOUT, 1, 0}, /* its deadline has passed */
        {MS, 0, 0, 0, 0},                 /* cancelled before it starts, below */
    };
    enum { N = (int)(sizeof plan_of / sizeof *plan_of) };
    struct sleeper s[N];
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(s, 0, sizeof s);
    for (int i = 0; i < N; i++) {
        s[i].ns = plan_of[i].ns, s[i].limit = plan_of[i].limit, s[i].expect = plan_of[i].expect;
        s[i].clear = plan_of[i].clear;
        if (plan_of[i].victim) s[i].victim = &s[plan_of[i].victim];
        s[i].alive = API(ol_spawn(loop, &s[i].co, sleeper_main, 0, i % 2 ? OL_LATENCY : OL_BATCH)) == 0;
    }
    s[N - 1].expect = ECANCELED;
    if (s[N - 1].alive) ol_cancel(&s[N - 1].co);
    if (s[2].alive && !s[3].alive) ol_cancel(&s[2].co); /* there is nobody to do it */
    loop_work(loop);
    WORKS(s[1].cleared && s[2].cleared);
    loop_end(loop);
}

/* ---- sub-coroutines and yields */

struct deep {
    ol_co co;
    ol_frame one, two;
    int64_t r;
    int depth, rounds;
};
static void deep_two(ol_co *co) {
    struct deep *d = OL_SELF(co, struct deep, two);
    OL_BEGIN(co);
    OL_YIELD();
    OL_AWAIT(d->r, ol_sleep(co, 1000));
    if (RESULT(co, d->r) < 0) OL_RETURN(d->r);
    d->depth++;
    OL_RETURN(7);
    OL_END(co);
}
static void deep_one(ol_co *co) {
    struct deep *d = OL_SELF(co, struct deep, one);
    OL_BEGIN(co);
    OL_CALL(d->r, &d->two, deep_two);
    if (RESULT(co, d->r) < 0) OL_RETURN(d->r);
    CHECK(d->r == 7);
    d->depth++;
    OL_RETURN(d->r + 1);
    OL_END(co);
}
static void deep_main(ol_co *co) {
    struct deep *d = OL_SELF(co, struct deep, co);
    OL_BEGIN(co);
    for (d->rounds = 0; d->rounds < 3; d->rounds++) {
        OL_CALL(d->r, &d->one, deep_one);
        RESULT(co, d->r);
        CHECK(d->r == 8 || d->r < 0);
        OL_YIELD();
    }
    OL_END(co);
}
static void calls(void) {
    struct deep d;
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(&d, 0, sizeof d);
    API(ol_spawn(loop, &d.co, deep_main, 0, 0));
    CHECK(ol_loop_run(loop) == 0);
    WORKS(d.depth == 6);
    loop_end(loop);
}

/* ---- partitions */

struct member {
    ol_co co;
    struct crowd *crowd;
    int64_t r;
    int number, spawned, ran;
};
struct crowd {
    struct member member[150];
    int running, last, ran, inside_limit;
};
static void member_main(ol_co *co) {
    struct member *m = OL_SELF(co, struct member, co);
    struct crowd *c = m->crowd;
    OL_BEGIN(co);
    CHECK(!c->inside_limit || ++c->running == 1);
    CHECK(!c->inside_limit || m->number > c->last); /* first come, first served */
    c->last = m->number;
    OL_YIELD();
    if (m->number % 3 == 0) {
        OL_AWAIT(m->r, ol_sleep(co, 1000));
        RESULT(co, m->r);
    }
    m->ran++;
    c->ran++;
    c->running--;
    OL_END(co);
}
static void crowd_run(ol_loop *loop, struct crowd *c, int n, ol_fd fd) {
    memset(c, 0, sizeof *c);
    c->last = -1;
    c->inside_limit = fd != 0;
    for (int i = 0; i < n; i++) {
        c->member[i].crowd = c;
        c->member[i].number = i;
        c->member[i].spawned = API(ol_spawn(loop, &c->member[i].co, member_main, fd, 0)) == 0;
    }
    loop_work(loop);
    for (int i = 0; i < n; i++) CHECK(c->member[i].ran == c->member[i].spawned);
    WORKS(c->ran == n);
}
static void partitions(void) { /* more than the table's first size; and a queue for one */
    static struct crowd c;
    ol_fd handle = 0;
    ol_loop *loop = loop_alone();
    const int fd = eventfd(0, EFD_CLOEXEC);
    if (!loop) {
        close(fd);
        return;
    }
    crowd_run(loop, &c, 70, 0);
    if (API(ol_attach(loop, fd, OL_LATENCY, &handle)) == 0) {
        crowd_run(loop, &c, 10, handle);
        CHECK(ol_close(loop, handle) == 0);
    } else {
        close(fd);
    }
    loop_end(loop);
}

/* ---- posts */

enum { NODES = 3 };
struct mail {
    ol_co co; /* keeps the loop alive until all has come */
    ol_loop *loop;
    ol_post_node node[NODES];
    int64_t r;
    int posted[NODES], came, alive, expected;
};
static struct mail *the_mail;
static void on_mail(ol_loop *loop, ol_post_node *node) {
    struct mail *m = the_mail;
    const int i = (int)(node - m->node);
    CHECK(loop == m->loop && i >= 0 && i < NODES && m->posted[i] > 0);
    m->posted[i]--;
    if (++m->came >= m->expected && m->alive) ol_cancel(&m->co);
}
static void mail_main(ol_co *co) {
    struct mail *m = OL_SELF(co, struct mail, co);
    OL_BEGIN(co);
    OL_AWAIT(m->r, ol_sleep(co, 5000 * MS));
    RESULT_OR(co, m->r, ECANCELED);
    m->alive = 0;
    OL_END(co);
}
static void *poster(void *arg) {
    struct mail *m = (struct mail *)arg;
    this_side = SIDE_WORKER;
    for (int i = 0; i < NODES; i++) {
        m->posted[i] = 1;
        CHECK(ol_post(m->loop, &m->node[i]) == 0);
    }
    return NULL;
}
static void posts(void) {
    struct mail m;
    pthread_t thread;
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(&m, 0, sizeof m);
    the_mail = &m;
    m.loop = loop;
    m.expected = NODES + 1;
    for (int i = 0; i < NODES; i++) m.node[i].fn = on_mail;
    m.posted[0] = 1;
    CHECK(ol_post(loop, &m.node[0]) == 0); /* from the loop's own thread */
    CHECK(ol_post(loop, &m.node[0]) == -EBUSY);
    loop_work(loop);
    CHECK(m.came == 1);
    m.alive = API(ol_spawn(loop, &m.co, mail_main, 0, 0)) == 0;
    if (pthread_create(&thread, NULL, poster, &m) != 0) fail("pthread_create");
    loop_work(loop);
    pthread_join(thread, NULL);
    loop_work(loop);
    CHECK(m.came == NODES + 1 && !m.alive);
    loop_end(loop);
}

static void posts_left(void) { /* what was posted is called by the loop's end */
    struct mail m;
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(&m, 0, sizeof m);
    the_mail = &m;
    m.loop = loop;
    m.expected = NODES + 1;
    for (int i = 0; i < NODES; i++) {
        m.node[i].fn = on_mail;
        m.posted[i] = 1;
        CHECK(ol_post(loop, &m.node[i]) == 0);
    }
    CHECK(ol_loop_destroy(loop) == 0);
    CHECK(m.came == NODES);
}

/* ---- stop */

struct stopper {
    ol_co co;
    int64_t r;
    int rounds;
};
static void stopper_main(ol_co *co) {
    struct stopper *s = OL_SELF(co, struct stopper, co);
    OL_BEGIN(co);
    for (s->rounds = 1; s->rounds <= 2; s->rounds++) {
        ol_loop_stop(co->loop);
        CHECK(ol_loop_destroy(co->loop) == -EBUSY && ol_loop_step(co->loop, 0) == -EBUSY);
        OL_AWAIT(s->r, ol_sleep(co, 1000));
        RESULT(co, s->r);
    }
    OL_END(co);
}
static void stop(void) {
    struct stopper s;
    ol_loop *loop = loop_alone();
    if (!loop) return;
    memset(&s, 0, sizeof s);
    if (API(ol_spawn(loop, &s.co, stopper_main, 0, 0)) == 0) {
        CHECK(ol_loop_run(loop) == 0);
        WORKS(s.rounds == 1);
        if (s.rounds == 1) CHECK(API_OR(ol_loop_destroy(loop), EBUSY) == -EBUSY);
    }
    CHECK(ol_loop_run(loop) == 0);
    loop_end(loop);
}

const struct scenario scenarios_loop[] = {
    {"create", create},
    {"create_shared", create_shared},
    {"create_pool", create_pool},
    {"create_defaults", create_default_pool},
    {"create_device", create_device},
    {"create_bad", create_bad_policy},
    {"timers", timers},
    {"timers_left", timers_left},
    {"sleeps", sleeps},
    {"calls", calls},
    {"partitions", partitions},
    {"posts", posts},
    {"posts_left", posts_left},
    {"stop", stop},
    {NULL, NULL},
};
