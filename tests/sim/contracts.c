/* contracts.c: one short test for each promise of offload.h, on the simulated kernel (kernel.h, device.h).

   cc -std=c11 -O1 -g -I. tests/sim/contracts.c -o build/tests/contracts -pthread

   A plain program: `contracts [NAME...]` runs the tests whose names contain one of the words, `--list` prints them all,
   `-v` prints each event of the simulation. The last line is "N passed, N failed"; exit status 1 if any failed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "kernel.h"
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"
#include "device.h"

#define US 1000
#define MS 1000000
#define SEC ((int64_t)1000 * MS)

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) k_fail("contract", "line %d: %s", __LINE__, #condition);                                     \
    } while (0)
#define EQUAL(got, expected)                                                                                           \
    do {                                                                                                               \
        const int64_t got_ = (int64_t)(got), expected_ = (int64_t)(expected);                                          \
        if (got_ != expected_)                                                                                         \
            k_fail("contract", "line %d: %s is %lld, expected %lld", __LINE__, #got, (long long)got_,                  \
                   (long long)expected_);                                                                              \
    } while (0)

/* ---------------------------------------------------------------------------------------------------------------- */
/* A loop, a device, and a coroutine that carries out a list of steps                                               */

static ol_loop *L;
static dev D;
static int has_device;
static int order; /* counts what happens in coroutines and callbacks */

static const dev_params kind_device = {16, OL_CHANNEL_NOTIFIES, DEV_NEXT_NULL, 50 * US, 0, 0, 0, 0, 0, 0, 1000, 0};

static void open_loop(ol_loop_desc *desc, const char *policy, const dev_params *p) {
    static ol_backend *backends[1];
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    d.no_pool = 1;
    d.policy = policy;
    has_device = p != NULL;
    if (p) {
        dev_init(&D, "dev", p);
        backends[0] = &D.backend;
        d.backends = backends;
        d.nbackends = 1;
    }
    EQUAL(ol_loop_create(&L, &d), 0);
}
static void plain_loop(void) { open_loop(NULL, "any any 0- software - -", NULL); }

static void close_loop(void) {
    EQUAL(ol_loop_destroy(L), 0);
    if (has_device) dev_free(&D);
    k_check_leaks();
}

enum { /* what a step does; the awaits first */
       READ,
       WRITE,
       ACCEPT,
       CONNECT,
       SLEEP,
       YIELD,
       RUN,
       WAIT_IN,
       WAIT_OUT,
       OPEN,
       OPEN_BENEATH,
       STAT,
       PREAD,
       CLOSE,
       SUBMIT,
       CANCEL,
       OP_CANCEL,
       DEADLINE,
       CLEAR,
       SOCKET,
       SPAWN,
       CALL,
       SEND_BACK,
       JOIN,
       LOCK,
       WAIT, /* for a child, NULL: for all */
       UNLOCK,
       FORK,
       TRY_JOIN,
       CLASS,
       TELL,
       RETURN
};
enum { STEPS = 16 };
typedef struct step {
    int what;
    ol_fd *fd;
    void *p;
    int64_t n;
} step;

typedef struct actor {
    union {
        ol_co co;
        ol_child child;
    };
    ol_frame sub;
    ol_op op; /* for file steps */
    step s[STEPS];
    int n, i;
    int64_t r[STEPS];  /* each step's result */
    int64_t at[STEPS]; /* and when it came */
    const char *why[STEPS];
    int began, ended; /* order */
    int after;        /* the order that OL_END_THEN found */
    int resumes;
} actor;

#define STEP (a->s[a->i])
#define ACTOR_AWAIT(await) OL_AWAIT(a->r[a->i], await)

static void act(ol_co *co);
static char story[64]; /* what was told, a letter each */
static void tell(int64_t c) {
    const size_t n = strlen(story);
    if (n + 1 < sizeof story) story[n] = (char)c;
}
#define STORY(text)                                                                                                    \
    do {                                                                                                               \
        if (strcmp(story, text) != 0) k_fail("contract", "line %d: the story is %s, not %s", __LINE__, story, text);   \
    } while (0)
static int64_t now(void) { return sim.now; }
static void never_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    k_fail("contract", "done was called with %lld", (long long)op->result);
}

static int64_t act_plain(ol_co *co, actor *a) { /* steps that are no awaits */
    switch (STEP.what) {
    case CLOSE: return ol_close(co->loop, *STEP.fd);
    case SUBMIT: return ol_submit(co->loop, (ol_op *)STEP.p, never_done);
    case CANCEL: ol_cancel((ol_co *)STEP.p); return 0;
    case OP_CANCEL: return ol_op_cancel(co->loop, (ol_op *)STEP.p);
    case DEADLINE: return ol_deadline(co, STEP.n);
    case CLEAR: ol_cancel_clear(co); return 0;
    case SOCKET: return ol_socket(co, AF_INET, SOCK_STREAM, 0, STEP.fd);
    case SPAWN: return ol_spawn(co->loop, &((actor *)STEP.p)->co, act, *STEP.fd, (int)STEP.n);
    case UNLOCK: return ol_unlock(co, (ol_mutex *)STEP.p);
    case FORK: return ol_fork(co, &((actor *)STEP.p)->child, act);
    case TRY_JOIN: return ol_try_join(co->loop, *STEP.fd, *(ol_fd *)STEP.p);
    case CLASS: return ol_set_class(co, (int)STEP.n);
    case TELL: tell(STEP.n); return 0;
    default: k_fail("test", "unknown step %d", STEP.what);
    }
}

static struct sockaddr_in target; /* where CONNECT goes */

static void act_sub(ol_co *co) { /* reads in a sub-coroutine, for CALL */
    actor *a = OL_SELF(co, actor, sub);
    int64_t r;
    OL_BEGIN(co);
    OL_AWAIT(r, ol_read(co, *STEP.fd, STEP.p, (size_t)STEP.n));
    OL_RETURN(r);
    OL_END(co);
}

static void act_file(ol_co *co) {
    actor *a = OL_SELF(co, actor, sub);
    int64_t r;
    OL_BEGIN(co);
    if (STEP.what == OPEN) OL_AWAIT(r, ol_open(co, &a->op, AT_FDCWD, (const char *)STEP.p, O_RDONLY, 0, 0));
    else if (STEP.what == OPEN_BENEATH)
        OL_AWAIT(r, ol_open(co, &a->op, AT_FDCWD, (const char *)STEP.p, O_RDONLY, 0, OL_BENEATH));
    else if (STEP.what == STAT) OL_AWAIT(r, ol_stat(co, &a->op, (int)*STEP.fd, NULL, (struct stat *)STEP.p));
    else OL_AWAIT(r, ol_pread(co, &a->op, (int)*STEP.fd, STEP.p, (size_t)STEP.n, a->i));
    OL_RETURN(r);
    OL_END(co);
}

static void act(ol_co *co) {
    actor *a = OL_SELF(co, actor, co);
    a->resumes++;
    sim.progress++;
    OL_BEGIN(co);
    a->began = ++order;
    for (a->i = 0; a->i < a->n; a->i++) {
        if (STEP.what == READ) ACTOR_AWAIT(ol_read(co, *STEP.fd, STEP.p, (size_t)STEP.n));
        else if (STEP.what == WRITE) ACTOR_AWAIT(ol_write(co, *STEP.fd, STEP.p, (size_t)STEP.n));
        else if (STEP.what == ACCEPT) ACTOR_AWAIT(ol_accept(co, *STEP.fd));
        else if (STEP.what == CONNECT) ACTOR_AWAIT(ol_connect(co, *STEP.fd, (struct sockaddr *)&target, sizeof target));
        else if (STEP.what == SLEEP) ACTOR_AWAIT(ol_sleep(co, STEP.n));
        else if (STEP.what == YIELD) OL_YIELD();
        else if (STEP.what == RUN) ACTOR_AWAIT(ol_run(co, (ol_op *)STEP.p));
        else if (STEP.what == WAIT_IN) ACTOR_AWAIT(ol_wait_readable(co, *STEP.fd));
        else if (STEP.what == WAIT_OUT) ACTOR_AWAIT(ol_wait_writable(co, *STEP.fd));
        else if (STEP.what == CALL) OL_CALL(a->r[a->i], &a->sub, act_sub);
        else if (STEP.what == JOIN) ACTOR_AWAIT(ol_join(co, *STEP.fd));
        else if (STEP.what == LOCK) ACTOR_AWAIT(ol_lock(co, (ol_mutex *)STEP.p));
        else if (STEP.what == WAIT) ACTOR_AWAIT(ol_wait(co, (ol_child *)STEP.p));
        else if (STEP.what == RETURN) break;
        else if (STEP.what == OPEN || STEP.what == OPEN_BENEATH || STEP.what == STAT || STEP.what == PREAD)
            OL_CALL(a->r[a->i], &a->sub, act_file);
        else a->r[a->i] = act_plain(co, a);
        a->at[a->i] = sim.now;
        a->why[a->i] = ol_co_error(co);
    }
    a->ended = ++order;
    if (a->i < a->n) OL_RETURN(STEP.n);
    OL_END_THEN(co, a->after = order);
}

static void step_add(actor *a, int what, ol_fd *fd, void *p, int64_t n) {
    CHECK(a->n < STEPS);
    a->s[a->n].what = what;
    a->s[a->n].fd = fd;
    a->s[a->n].p = p;
    a->r[a->n] = -999999; /* not reached */
    a->s[a->n++].n = n;
}

static void play(actor *a, ol_fd fd, int cls) { EQUAL(ol_spawn(L, &a->co, act, fd, cls), 0); }
static void run(void) { EQUAL(ol_loop_run(L), 0); }
static void turns(int n) {
    while (n--) CHECK(ol_loop_step(L, 0) >= 0);
}
static void nothing(void *arg, uint64_t tag) { (void)arg, (void)tag; }
static void pass(int64_t ns) { /* lets time pass */
    const int64_t until = sim.now + ns;
    k_at(ns, nothing, NULL, 0);
    while (sim.now < until) CHECK(ol_loop_step(L, until - sim.now) >= 0);
    turns(2);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* The world outside                                                                                                */

typedef struct wire { /* a socket pair: one end is the loop's, the other the test's */
    ol_fd fd;
    int raw, peer;
} wire;

static void wire_open(wire *w, uint32_t cap, int kind) {
    int fds[2];
    CHECK(k_pair(kind, cap, fds) == 0);
    w->raw = fds[0];
    w->peer = fds[1];
    k_nonblock(w->peer);
    EQUAL(ol_attach(L, w->raw, 0, &w->fd), 0);
}
static void wire_close(wire *w) {
    EQUAL(ol_close(L, w->fd), 0);
    EQUAL(k_close(w->peer), 0);
}

enum { DO_SEND, DO_CLOSE, DO_POST, DO_RESET, DO_DRAIN, DO_DEV_OPEN };
static struct deed {
    int what, fd;
    const char *text;
    ol_post_node *node;
} deed[32];
static int deeds;

static void do_deed(void *arg, uint64_t tag) {
    struct deed *d = &deed[tag];
    char sink[256];
    (void)arg;
    if (d->what == DO_SEND) EQUAL(k_write(d->fd, d->text, strlen(d->text)), (ssize_t)strlen(d->text));
    if (d->what == DO_CLOSE) k_close(d->fd);
    if (d->what == DO_POST) ol_post(L, d->node);
    if (d->what == DO_RESET) k_reset(sim.file[d->fd]->end);
    if (d->what == DO_DRAIN)
        while (k_read(d->fd, sink, sizeof sink) > 0) {
        }
    if (d->what == DO_DEV_OPEN) D.p.refuse = 0;
}
static void later(int64_t ns, int what, int fd, const char *text, ol_post_node *node) {
    CHECK(deeds < 32);
    deed[deeds].what = what;
    deed[deeds].fd = fd;
    deed[deeds].text = text;
    deed[deeds].node = node;
    k_at(ns, do_deed, NULL, (uint64_t)deeds++);
}

static k_end *dial(int port) { /* a client connects from outside */
    k_end *e = k_end_new(4096);
    if (k_arrive(port, e, 4096)) k_fail("test", "nobody listens on %d, or its backlog is full", port);
    return e;
}
static void listen_on(int port, ol_fd *fd) {
    struct sockaddr_in in = k_address(port);
    EQUAL(ol_listen(L, (struct sockaddr *)&in, sizeof in, 16, 0, 0, fd), 0);
}

static const unsigned char nine[] = "123456789";
#define CRC_OF_NINE 0xcbf43926
static ol_op *crc_op(ol_op *op) { return ol_prep_crc32(op, 0, nine, 9); }

static int calls_made;
static int64_t count_call(void *arg) {
    calls_made++;
    return (int64_t)(intptr_t)arg;
}

static uint32_t alive(void) {
    ol_loop_stats s;
    memset(&s, 0, sizeof s);
    s.size = sizeof s;
    ol_loop_get_stats(L, &s);
    return s.roots;
}
static ol_loop_stats stats(void) {
    ol_loop_stats s;
    memset(&s, 0, sizeof s);
    s.size = sizeof s;
    ol_loop_get_stats(L, &s);
    return s;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* The gate                                                                                                         */

static void gate_roots_of_one_fd_run_one_after_another_first_come_first_served(void) {
    actor a[4];
    wire w;
    int i;
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(a, 0, sizeof a);
    for (i = 0; i < 4; i++) {
        step_add(&a[i], SLEEP, NULL, NULL, (4 - i) * MS);
        step_add(&a[i], YIELD, NULL, NULL, 0);
        play(&a[i], w.fd, i & 1 ? OL_LATENCY : OL_BATCH);
    }
    run();
    for (i = 1; i < 4; i++) CHECK(a[i].began > a[i - 1].ended);
    EQUAL(stats().withheld, 3);
    wire_close(&w);
    close_loop();
}

static void gate_other_partitions_go_on_while_one_waits(void) {
    actor a, b, c;
    wire v, w;
    char buf[8];
    plain_loop();
    wire_open(&v, 64, K_STREAMS);
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b), memset(&c, 0, sizeof c);
    step_add(&a, SLEEP, NULL, NULL, 10 * MS);
    step_add(&b, READ, &v.fd, buf, 8);
    step_add(&c, READ, &w.fd, buf, 8);
    play(&a, v.fd, 0);
    play(&b, v.fd, 0);
    play(&c, w.fd, 0);
    later(MS, DO_SEND, v.peer, "v", NULL);
    later(MS, DO_SEND, w.peer, "w", NULL);
    run();
    CHECK(c.ended < a.ended && a.ended < b.began);
    EQUAL(b.r[0], 1);
    wire_close(&v);
    wire_close(&w);
    close_loop();
}

static void gate_roots_without_an_fd_have_partitions_of_their_own(void) {
    actor a[3];
    int i;
    plain_loop();
    memset(a, 0, sizeof a);
    for (i = 0; i < 3; i++) {
        step_add(&a[i], SLEEP, NULL, NULL, MS);
        play(&a[i], 0, 0);
    }
    turns(3);
    for (i = 0; i < 3; i++) CHECK(a[i].began && !a[i].ended);
    run();
    EQUAL(stats().withheld, 0);
    close_loop();
}

static int done_calls, done_order, in_submit;
static int64_t done_result;
static void on_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    if (in_submit) k_fail("contract", "done was called from inside ol_submit");
    done_calls++;
    done_order = ++order;
    done_result = op->result;
}

typedef struct submitter {
    ol_co co;
    ol_op op[4];
    int n, r[4], ended;
} submitter;
static void submit_all(ol_co *co) {
    submitter *s = OL_SELF(co, submitter, co);
    int i;
    OL_BEGIN(co);
    for (i = 0; i < s->n; i++) {
        in_submit = 1;
        s->r[i] = ol_submit(co->loop, crc_op(&s->op[i]), on_done);
        in_submit = 0;
    }
    s->ended = ++order;
    OL_END(co);
}

static void gate_a_callback_operation_holds_its_partition_until_done_returns(void) {
    submitter s;
    actor a;
    wire w;
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    wire_open(&w, 64, K_STREAMS);
    memset(&s, 0, sizeof s), memset(&a, 0, sizeof a);
    s.n = 3;
    EQUAL(ol_spawn(L, &s.co, submit_all, w.fd, 0), 0);
    play(&a, w.fd, 0);
    run();
    EQUAL(done_calls, 3);
    EQUAL(done_result, CRC_OF_NINE);
    CHECK(s.ended < done_order && done_order < a.began);
    wire_close(&w);
    close_loop();
}

static ol_fd spawn_fd;
static void spawn_in_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    submitter *s = OL_CONTAINER(op, submitter, op);
    static actor late;
    (void)s;
    memset(&late, 0, sizeof late);
    EQUAL(ol_spawn(L, &late.co, act, spawn_fd, 0), 0);
    if (late.began) k_fail("contract", "a coroutine ran inside ol_spawn");
    done_order = ++order;
}
static void submit_spawning(ol_co *co) {
    submitter *s = OL_SELF(co, submitter, co);
    OL_BEGIN(co);
    EQUAL(ol_submit(co->loop, crc_op(&s->op[0]), spawn_in_done), 0);
    OL_END(co);
}

static void gate_a_done_callback_can_spawn_on_its_own_partition(void) {
    submitter s;
    wire w;
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&s, 0, sizeof s);
    spawn_fd = w.fd;
    EQUAL(ol_spawn(L, &s.co, submit_spawning, w.fd, 0), 0);
    run();
    CHECK(done_order == 1 && order == 3);
    EQUAL(alive(), 0);
    wire_close(&w);
    close_loop();
}

static void gate_the_class_of_a_coroutine_is_its_own_else_the_fds(void) {
    actor a, b;
    wire w;
    int fds[2];
    ol_fd fd;
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    CHECK(k_pair(K_STREAMS, 64, fds) == 0);
    EQUAL(ol_attach(L, fds[0], OL_LATENCY, &fd), 0);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    play(&a, w.fd, 0);
    play(&b, fd, 0);
    run();
    CHECK(b.began < a.began); /* latency before batch although it came later */
    wire_close(&w);
    EQUAL(ol_close(L, fd), 0);
    k_close(fds[1]);
    close_loop();
}

static void gate_a_coroutines_class_can_be_changed(void) {
    actor a, b, c;
    plain_loop();
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b), memset(&c, 0, sizeof c);
    step_add(&a, SLEEP, NULL, NULL, MS);
    step_add(&b, SLEEP, NULL, NULL, MS);
    play(&a, 0, OL_BATCH);
    play(&b, 0, OL_BATCH);
    turns(2);
    EQUAL(ol_set_class(&b.co, OL_LATENCY), 0);
    EQUAL(ol_set_class(&b.co, 3), -EINVAL);
    sim.now += 2 * MS; /* both wake up in the same round */
    run();
    CHECK(b.ended < a.ended);
    close_loop();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Readiness                                                                                                        */

static void readiness_an_edge_that_came_while_withheld_is_not_lost(void) {
    actor a, b;
    wire w;
    char buf[16];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, SLEEP, NULL, NULL, 10 * MS);
    step_add(&b, READ, &w.fd, buf, sizeof buf);
    play(&a, w.fd, 0);
    play(&b, w.fd, 0);
    later(MS, DO_SEND, w.peer, "early", NULL);
    run();
    EQUAL(b.r[0], 5);
    CHECK(memcmp(buf, "early", 5) == 0);
    wire_close(&w);
    close_loop();
}

static void readiness_an_edge_before_any_root_is_not_lost(void) {
    actor a;
    wire w;
    char buf[16];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    EQUAL(k_write(w.peer, "x", 1), 1);
    turns(3);
    memset(&a, 0, sizeof a);
    step_add(&a, READ, &w.fd, buf, sizeof buf);
    play(&a, w.fd, 0);
    run();
    EQUAL(a.r[0], 1);
    wire_close(&w);
    close_loop();
}

static void readiness_end_of_stream_comes_after_the_data(void) {
    actor a;
    wire w;
    char buf[16];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a);
    step_add(&a, READ, &w.fd, buf, 2);
    step_add(&a, READ, &w.fd, buf, 16);
    step_add(&a, READ, &w.fd, buf, 16);
    step_add(&a, READ, &w.fd, buf, 16);
    play(&a, w.fd, 0);
    EQUAL(k_write(w.peer, "12345", 5), 5);
    EQUAL(k_close(w.peer), 0);
    run();
    EQUAL(a.r[0], 2);
    EQUAL(a.r[1], 3); /* short, and the end came in the same edge: it must not be forgotten */
    EQUAL(a.r[2], 0);
    EQUAL(a.r[3], 0);
    EQUAL(ol_close(L, w.fd), 0);
    close_loop();
}

static void readiness_end_of_stream_after_a_short_read_wakes(void) {
    actor a;
    wire w;
    char buf[16];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a);
    step_add(&a, READ, &w.fd, buf, 16);
    step_add(&a, READ, &w.fd, buf, 16);
    play(&a, w.fd, 0);
    later(MS, DO_SEND, w.peer, "x", NULL);
    later(2 * MS, DO_CLOSE, w.peer, NULL, NULL);
    run();
    EQUAL(a.r[0], 1);
    EQUAL(a.r[1], 0);
    EQUAL(ol_close(L, w.fd), 0);
    close_loop();
}

static void readiness_a_short_read_costs_no_further_call(void) {
    actor a;
    wire w;
    char buf[16];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a);
    step_add(&a, READ, &w.fd, buf, 16);
    step_add(&a, READ, &w.fd, buf, 16);
    play(&a, w.fd, 0);
    later(MS, DO_SEND, w.peer, "x", NULL);
    later(2 * MS, DO_SEND, w.peer, "yz", NULL);
    run();
    EQUAL(a.r[0], 1);
    EQUAL(a.r[1], 2);
    EQUAL(sim.stats.read_again, 0);
    EQUAL(sim.stats.reads, 2);
    wire_close(&w);
    close_loop();
}

static void readiness_a_short_read_of_a_message_is_not_the_last(void) {
    actor a;
    wire w;
    char buf[16];
    plain_loop();
    wire_open(&w, 64, K_MESSAGES);
    memset(&a, 0, sizeof a);
    step_add(&a, READ, &w.fd, buf, 16);
    step_add(&a, READ, &w.fd, buf, 16);
    step_add(&a, READ, &w.fd, buf, 16);
    EQUAL(k_write(w.peer, "abc", 3), 3);
    EQUAL(k_write(w.peer, "de", 2), 2);
    turns(2);
    play(&a, w.fd, 0);
    later(MS, DO_SEND, w.peer, "f", NULL);
    run();
    EQUAL(a.r[0], 3);
    EQUAL(a.r[1], 2); /* came with the same edge as the first */
    EQUAL(a.r[2], 1);
    CHECK(a.at[1] < a.at[2]);
    wire_close(&w);
    close_loop();
}

static void readiness_an_error_comes_after_the_data(void) {
    actor a;
    wire w;
    char buf[16];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a);
    step_add(&a, READ, &w.fd, buf, 16);
    step_add(&a, READ, &w.fd, buf, 16);
    step_add(&a, WRITE, &w.fd, buf, 4);
    play(&a, w.fd, 0);
    EQUAL(k_write(w.peer, "abc", 3), 3);
    k_reset(sim.file[w.raw]->end);
    run();
    EQUAL(a.r[0], 3);
    EQUAL(a.r[1], -ECONNRESET);
    EQUAL(a.r[2], -EPIPE);
    wire_close(&w);
    close_loop();
}

static void readiness_a_pipes_end_is_seen_by_reader_and_writer(void) {
    actor a, b;
    wire r;
    int fds[2];
    ol_fd out;
    char buf[64];
    plain_loop();
    wire_open(&r, 16, K_PIPE);
    CHECK(k_pair(K_PIPE, 16, fds) == 0);
    EQUAL(ol_attach(L, fds[1], 0, &out), 0);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    memset(buf, 'x', sizeof buf);
    step_add(&a, READ, &r.fd, buf, 16);
    step_add(&b, WRITE, &out, buf, 64);
    play(&a, r.fd, 0);
    play(&b, out, 0);
    later(MS, DO_CLOSE, r.peer, NULL, NULL);
    later(MS, DO_CLOSE, fds[0], NULL, NULL);
    run();
    EQUAL(a.r[0], 0);
    EQUAL(b.r[0], -EPIPE);
    EQUAL(ol_close(L, r.fd), 0);
    EQUAL(ol_close(L, out), 0);
    close_loop();
}

static void readiness_wait_readable_and_again_serve_calls_of_your_own(void) {
    actor a;
    wire w;
    char buf[8];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a);
    step_add(&a, WAIT_OUT, &w.fd, NULL, 0);
    step_add(&a, WAIT_IN, &w.fd, NULL, 0);
    step_add(&a, WAIT_IN, &w.fd, NULL, 0); /* still readable */
    step_add(&a, SLEEP, NULL, NULL, 2 * MS);
    step_add(&a, WAIT_IN, &w.fd, NULL, 0);
    play(&a, w.fd, 0);
    later(MS, DO_SEND, w.peer, "a", NULL);
    while (a.i < 3) CHECK(ol_loop_step(L, -1) == 1);
    EQUAL(k_read(w.raw, buf, 8), 1);
    CHECK(k_read(w.raw, buf, 8) < 0 && errno == EAGAIN);
    EQUAL(ol_again(L, w.fd, 0), 0);
    later(5 * MS, DO_SEND, w.peer, "b", NULL);
    run();
    EQUAL(a.r[2], 0);
    CHECK(a.at[4] >= a.at[3] + 2 * MS);
    wire_close(&w);
    EQUAL(ol_again(L, w.fd, 0), -EBADF);
    close_loop();
}

static void readiness_a_stale_event_of_a_reused_number_is_dropped(void) {
    actor a, b;
    wire v, w;
    char buf[8];
    plain_loop();
    wire_open(&v, 64, K_STREAMS);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, READ, &v.fd, buf, 8);
    play(&a, v.fd, 0);
    turns(2);
    wire_close(&v);
    turns(2);
    wire_open(&w, 64, K_STREAMS);
    EQUAL(w.raw, v.raw); /* the number is used again at once */
    CHECK(w.fd != v.fd);
    step_add(&b, WAIT_IN, &w.fd, NULL, 0);
    play(&b, w.fd, 0);
    sim.faults.ghost = 1000;
    turns(50);
    sim.faults.ghost = 0;
    CHECK(sim.stats.ghosts > 0 && stats().stale > 0);
    CHECK(!b.ended);
    EQUAL(a.r[0], -ECANCELED);
    later(MS, DO_SEND, w.peer, "x", NULL);
    run();
    EQUAL(b.r[0], 0);
    wire_close(&w);
    close_loop();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Handles and close                                                                                                */

static void close_ends_the_wait_at_once_and_later_awaits_get_ebadf(void) {
    actor a;
    wire w;
    char buf[8];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a);
    step_add(&a, READ, &w.fd, buf, 8);
    step_add(&a, READ, &w.fd, buf, 8);
    step_add(&a, WRITE, &w.fd, buf, 8);
    step_add(&a, ACCEPT, &w.fd, NULL, 0);
    step_add(&a, WAIT_IN, &w.fd, NULL, 0);
    play(&a, w.fd, 0);
    turns(3);
    CHECK(a.began && !a.ended);
    wire_close(&w);
    CHECK(sim.file[w.raw] == NULL); /* nothing was in flight: closed now */
    EQUAL(ol_fd_raw(L, w.fd), -EBADF);
    run();
    EQUAL(a.r[0], -ECANCELED);
    EQUAL(a.r[1], -EBADF);
    EQUAL(a.r[2], -EBADF);
    EQUAL(a.r[3], -EBADF);
    EQUAL(a.r[4], -EBADF);
    EQUAL(ol_close(L, w.fd), -EBADF);
    close_loop();
}

static void close_an_await_that_was_woken_but_has_not_run_gets_ecanceled(void) {
    actor a, b;
    wire w;
    char buf[8];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, READ, &w.fd, buf, 8);
    step_add(&b, CLOSE, &w.fd, NULL, 0);
    play(&a, w.fd, OL_BATCH);
    turns(2);
    EQUAL(k_write(w.peer, "x", 1), 1); /* the event makes a ready; b, of the latency class, closes before a runs */
    play(&b, 0, OL_LATENCY);
    sim.now += MS; /* so that the kernel is asked before b runs */
    run();
    EQUAL(b.r[0], 0);
    EQUAL(a.r[0], -ECANCELED);
    k_close(w.peer);
    close_loop();
}

static void close_with_an_operation_in_flight_follows_its_completion(void) {
    dev_params p = kind_device;
    actor a;
    wire w;
    ol_op op;
    char buf[8];
    p.stop = 0; /* too late to stop */
    p.base = 5 * MS;
    open_loop(NULL, "any any 0- async dev wait", &p);
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a);
    step_add(&a, RUN, NULL, crc_op(&op), 0);
    step_add(&a, READ, &w.fd, buf, 8);
    play(&a, w.fd, 0);
    turns(3);
    sim.file[w.raw]->pins = 1; /* close(2) now would be a fault */
    EQUAL(ol_close(L, w.fd), 0);
    EQUAL(k_read(w.peer, buf, 8), 0); /* the peer sees it now */
    EQUAL(ol_fd_raw(L, w.fd), -EBADF);
    pass(MS);
    CHECK(sim.file[w.raw] != NULL && !a.ended);
    sim.file[w.raw]->pins = 0;
    run();
    EQUAL(a.r[0], CRC_OF_NINE); /* the true result */
    EQUAL(a.r[1], -EBADF);
    CHECK(sim.file[w.raw] == NULL);
    k_close(w.peer);
    close_loop();
}

static void close_asks_the_partitions_operations_to_stop(void) {
    dev_params p = kind_device;
    submitter s;
    wire w;
    p.base = SEC;
    open_loop(NULL, "any any 0- async dev wait", &p);
    wire_open(&w, 64, K_STREAMS);
    memset(&s, 0, sizeof s);
    s.n = 4;
    EQUAL(ol_spawn(L, &s.co, submit_all, w.fd, 0), 0);
    turns(3);
    EQUAL(ol_close(L, w.fd), 0);
    run();
    EQUAL(D.stopped, 4);
    EQUAL(done_calls, 4);
    EQUAL(done_result, -ECANCELED);
    CHECK(sim.now < 2 * SEC);
    CHECK(sim.file[w.raw] == NULL);
    k_close(w.peer);
    close_loop();
}

static void close_of_parked_and_staged_operations_completes_each_once(void) {
    dev_params p = kind_device;
    submitter s;
    wire w;
    p.depth = 1;
    p.base = SEC;
    open_loop(NULL, "any any 0- async dev wait", &p);
    wire_open(&w, 64, K_STREAMS);
    memset(&s, 0, sizeof s);
    s.n = 4;
    EQUAL(ol_spawn(L, &s.co, submit_all, w.fd, 0), 0);
    turns(2);
    EQUAL(ol_close(L, w.fd), 0);
    run();
    EQUAL(done_calls, 4);
    EQUAL(stats().fds, 0);
    wire_open(&w, 64, K_STREAMS); /* its partition was given back once: two new fds don't share one */
    {
        wire v;
        actor a, b;
        wire_open(&v, 64, K_STREAMS);
        memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
        step_add(&a, SLEEP, NULL, NULL, MS);
        step_add(&b, SLEEP, NULL, NULL, MS);
        play(&a, v.fd, 0);
        play(&b, w.fd, 0);
        run();
        CHECK(b.began < a.ended);
        wire_close(&v);
    }
    wire_close(&w);
    k_close(deeds ? deed[0].fd : K_FIRST_FD + 3);
    close_loop();
}

static void close_by_its_own_root_and_roots_that_wait_still_run(void) {
    actor a, b;
    wire w;
    char buf[8];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, CLOSE, &w.fd, NULL, 0);
    step_add(&a, READ, &w.fd, buf, 8);
    step_add(&a, SLEEP, NULL, NULL, MS);
    step_add(&b, READ, &w.fd, buf, 8);
    play(&a, w.fd, 0);
    play(&b, w.fd, 0);
    run();
    EQUAL(a.r[0], 0);
    EQUAL(a.r[1], -EBADF);
    EQUAL(b.r[0], -EBADF);
    CHECK(b.began > a.ended); /* the gate holds for them, too */
    EQUAL(ol_spawn(L, &a.co, act, w.fd, 0), -EBADF);
    k_close(w.peer);
    close_loop();
}

static void handles_garbage_and_stale_ones_are_refused(void) {
    actor a;
    wire w;
    char buf[8];
    ol_fd bad[4];
    int i;
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    bad[0] = 0;
    bad[1] = UINT64_MAX;
    bad[2] = w.fd + ((uint64_t)1 << 32);
    bad[3] = w.fd + 1;
    for (i = 0; i < 4; i++) {
        memset(&a, 0, sizeof a);
        step_add(&a, READ, &bad[i], buf, 8);
        step_add(&a, WRITE, &bad[i], buf, 8);
        play(&a, 0, 0);
        run();
        EQUAL(a.r[0], -EBADF);
        EQUAL(a.r[1], -EBADF);
        EQUAL(ol_close(L, bad[i]), -EBADF);
        EQUAL(ol_fd_raw(L, bad[i]), -EBADF);
        CHECK(strlen(ol_error()) > 10);
    }
    wire_close(&w);
    close_loop();
}

static void handles_another_partitions_fd_gives_exdev(void) {
    actor a;
    wire v, w;
    char buf[8];
    plain_loop();
    wire_open(&v, 64, K_STREAMS);
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a);
    step_add(&a, READ, &w.fd, buf, 8);
    step_add(&a, WRITE, &w.fd, buf, 8);
    step_add(&a, WRITE, &v.fd, buf, 8);
    play(&a, v.fd, 0);
    run();
    EQUAL(a.r[0], -EXDEV);
    EQUAL(a.r[1], -EXDEV);
    EQUAL(a.r[2], 8);
    wire_close(&v);
    wire_close(&w);
    close_loop();
}

static void handles_attach_refuses_what_it_cannot_poll_and_changes_nothing(void) {
    wire w;
    ol_fd fd = 77;
    int file;
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    EQUAL(ol_attach(L, w.raw, 0, &fd), -EEXIST);
    EQUAL(ol_attach(L, -1, 0, &fd), -EBADF);
    EQUAL(ol_attach(L, w.peer, 9, &fd), -EINVAL);
    sim.tolerant = 1;
    EQUAL(ol_attach(L, 99, 0, &fd), -EBADF);
    sim.tolerant = 0;
    k_file_add("f", 10, 1);
    file = k_openat("f", 0);
    EQUAL(ol_attach(L, file, 0, &fd), -EPERM);
    sim.fail_ctl = 1;
    CHECK(ol_attach(L, w.peer, 0, &fd) < 0);
    CHECK(sim.file[w.peer] != NULL && fd == 77); /* still the caller's */
    EQUAL(ol_attach(L, w.peer, 0, &fd), 0);
    EQUAL(ol_close(L, fd), 0);
    EQUAL(ol_close(L, w.fd), 0);
    k_close(file);
    close_loop();
}

static void handles_a_number_closed_behind_the_librarys_back_can_be_attached_again(void) {
    actor a, b;
    wire v, w;
    char buf[8];
    plain_loop();
    wire_open(&v, 64, K_STREAMS);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, READ, &v.fd, buf, 8);
    step_add(&a, READ, &v.fd, buf, 8);
    play(&a, v.fd, 0);
    turns(2);
    EQUAL(k_close(v.raw), 0); /* by close(2), not by ol_close */
    EQUAL(k_close(v.peer), 0);
    wire_open(&w, 64, K_STREAMS);
    EQUAL(w.raw, v.raw);
    EQUAL(ol_fd_raw(L, v.fd), -EBADF);
    step_add(&b, READ, &w.fd, buf, 8);
    play(&b, w.fd, 0);
    later(MS, DO_SEND, w.peer, "x", NULL);
    run();
    EQUAL(a.r[0], -ECANCELED);
    EQUAL(a.r[1], -EBADF);
    EQUAL(b.r[0], 1);
    EQUAL(stats().fds, 1);
    wire_close(&w);
    close_loop();
}

static void handles_the_table_grows_and_numbers_are_reused_with_new_generations(void) {
    static wire w[300];
    static ol_fd before[300];
    int i, round;
    plain_loop();
    for (round = 0; round < 3; round++) {
        for (i = 0; i < 300; i++) wire_open(&w[i], 8, K_STREAMS);
        for (i = 0; i < 300; i++) {
            EQUAL(ol_fd_raw(L, w[i].fd), w[i].raw);
            if (round) CHECK(before[i] != w[i].fd && (uint32_t)before[i] == (uint32_t)w[i].fd);
            if (round) EQUAL(ol_fd_raw(L, before[i]), -EBADF);
            before[i] = w[i].fd;
        }
        EQUAL(stats().fds, 300);
        for (i = 299; i >= 0; i--) wire_close(&w[i]);
    }
    EQUAL(stats().fds, 0);
    close_loop();
}

static void memory_partitions_and_slots_are_given_back(void) {
    actor a;
    wire w;
    int64_t bytes = 0;
    uint64_t allocs = 0;
    int i;
    plain_loop();
    memset(&a, 0, sizeof a);
    step_add(&a, SLEEP, NULL, NULL, US);
    for (i = 0; i < 5000; i++) {
        if (i == 100) bytes = sim.bytes, allocs = sim.stats.allocs;
        wire_open(&w, 8, K_STREAMS);
        play(&a, i & 1 ? w.fd : 0, 0);
        if (i & 2) EQUAL(ol_close(L, w.fd), 0);
        run();
        if (!(i & 2)) EQUAL(ol_close(L, w.fd), 0);
        k_close(w.peer);
    }
    EQUAL(sim.bytes, bytes);
    EQUAL(sim.stats.allocs, allocs); /* and nothing is allocated once the tables have their size */
    close_loop();
}

static void memory_a_failing_allocation_gives_enomem_and_leaves_nothing(void) {
    int n, r = -1;
    ol_loop *loop;
    ol_loop_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.no_pool = 1;
    for (n = 1; r != 0; n++) {
        sim.fail_alloc = n;
        r = ol_loop_create(&loop, &desc);
        sim.fail_alloc = 0;
        if (r == 0) break;
        EQUAL(r, -ENOMEM);
        k_check_leaks();
        CHECK(n < 100);
    }
    CHECK(n > 2);
    EQUAL(ol_loop_destroy(loop), 0);
    k_check_leaks();
    for (n = 0; n < 3; n++) { /* no fd for epoll, or for the eventfd */
        sim.fd_limit = K_FIRST_FD + n;
        EQUAL(ol_loop_create(&loop, &desc), n < 2 ? -EMFILE : 0);
    }
    EQUAL(ol_loop_destroy(loop), 0);
    k_check_leaks();
}

static void memory_tables_that_cannot_grow_give_enomem_and_recover(void) {
    enum { N = 200 };
    static actor a[N];
    static ol_timer t[N];
    static wire w[N];
    int i, refused = 0, fds[2];
    plain_loop();
    memset(a, 0, sizeof a);
    memset(t, 0, sizeof t);
    sim.faults.enomem = 500;
    for (i = 0; i < N; i++) {
        int r;
        while ((r = ol_timer_start(L, &t[i], SEC, (void (*)(ol_loop *, ol_timer *))(uintptr_t)1)) < 0) {
            EQUAL(r, -ENOMEM);
            refused++;
        }
        step_add(&a[i], SLEEP, NULL, NULL, MS);
        while ((r = ol_spawn(L, &a[i].co, act, 0, 0)) < 0) {
            EQUAL(r, -ENOMEM);
            refused++;
        }
        CHECK(k_pair(K_STREAMS, 8, fds) == 0);
        w[i].peer = fds[1];
        while ((r = ol_attach(L, fds[0], 0, &w[i].fd)) < 0) {
            EQUAL(r, -ENOMEM);
            refused++;
        }
    }
    CHECK(refused > 3);
    sim.faults.enomem = 0;
    for (i = 0; i < N; i++) ol_timer_stop(L, &t[i]);
    run();
    for (i = 0; i < N; i++) {
        CHECK(a[i].ended);
        CHECK(a[i].r[0] == 0 || a[i].r[0] == -ENOMEM);
        wire_close(&w[i]);
    }
    close_loop();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Cancel and deadline                                                                                              */

static void cancel_ends_each_await_until_it_is_cleared(void) {
    actor a;
    wire w;
    ol_op op;
    char buf[8];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a);
    step_add(&a, READ, &w.fd, buf, 8);
    step_add(&a, WRITE, &w.fd, buf, 8);
    step_add(&a, SLEEP, NULL, NULL, MS);
    step_add(&a, YIELD, NULL, NULL, 0); /* has no result: the request shows at the next await */
    step_add(&a, RUN, NULL, crc_op(&op), 0);
    step_add(&a, CALL, &w.fd, buf, 8);
    step_add(&a, CLEAR, NULL, NULL, 0);
    step_add(&a, WRITE, &w.fd, buf, 8);
    step_add(&a, SLEEP, NULL, NULL, MS);
    play(&a, w.fd, 0);
    turns(2);
    CHECK(!ol_canceled(&a.co));
    ol_cancel(&a.co);
    ol_cancel(&a.co);
    CHECK(ol_canceled(&a.co));
    run();
    EQUAL(a.r[0], -ECANCELED);
    EQUAL(a.r[1], -ECANCELED);
    EQUAL(a.r[2], -ECANCELED);
    EQUAL(a.r[4], -ECANCELED);
    EQUAL(a.r[5], -ECANCELED);
    EQUAL(a.r[7], 8);
    EQUAL(a.r[8], 0);
    wire_close(&w);
    close_loop();
}

static void cancel_outranks_a_deadline(void) {
    actor a;
    plain_loop();
    memset(&a, 0, sizeof a);
    step_add(&a, DEADLINE, NULL, NULL, MS);
    step_add(&a, SLEEP, NULL, NULL, 10 * MS);
    step_add(&a, SLEEP, NULL, NULL, 10 * MS);
    step_add(&a, CANCEL, NULL, &a.co, 0);
    step_add(&a, SLEEP, NULL, NULL, 10 * MS);
    step_add(&a, CLEAR, NULL, NULL, 0);
    step_add(&a, SLEEP, NULL, NULL, 10 * MS);
    step_add(&a, DEADLINE, NULL, NULL, OL_NEVER);
    step_add(&a, SLEEP, NULL, NULL, 10 * MS);
    play(&a, 0, 0);
    run();
    EQUAL(a.r[1], -ETIMEDOUT);
    EQUAL(a.r[2], -ETIMEDOUT); /* stays until it is set again */
    EQUAL(a.r[4], -ECANCELED);
    EQUAL(a.r[6], -ETIMEDOUT); /* the deadline is not forgotten with the cancel */
    EQUAL(a.r[8], 0);
    close_loop();
}

static void cancel_and_deadline_in_one_round_give_the_cancel(void) {
    actor a;
    wire w;
    char buf[8];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a);
    step_add(&a, DEADLINE, NULL, NULL, MS);
    step_add(&a, READ, &w.fd, buf, 8);
    play(&a, w.fd, 0);
    turns(2);
    sim.now += 2 * MS; /* the deadline has passed, and the loop has not looked yet */
    ol_cancel(&a.co);
    run();
    EQUAL(a.r[1], -ECANCELED);
    wire_close(&w);
    close_loop();
}

static void cancel_before_the_start_reaches_the_first_await(void) {
    actor a, b;
    wire w;
    char buf[8];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, SLEEP, NULL, NULL, MS);
    step_add(&b, READ, &w.fd, buf, 8);
    play(&a, w.fd, 0);
    play(&b, w.fd, 0);
    ol_cancel(&b.co);
    run();
    EQUAL(a.r[0], 0);
    EQUAL(b.r[0], -ECANCELED);
    CHECK(b.began > a.ended);
    wire_close(&w);
    close_loop();
}

static void cancel_of_an_operation_in_time_stops_it(void) {
    dev_params p = kind_device;
    actor a;
    ol_op op;
    p.base = SEC;
    open_loop(NULL, "any any 0- async dev wait", &p);
    memset(&a, 0, sizeof a);
    step_add(&a, RUN, NULL, crc_op(&op), 0);
    play(&a, 0, 0);
    turns(3);
    EQUAL(ol_op_cancel(L, &op), 0);
    run();
    EQUAL(a.r[0], -ECANCELED);
    EQUAL(op.result, -ECANCELED);
    CHECK(!ol_canceled(&a.co) && sim.now < 2 * SEC);
    EQUAL(ol_op_cancel(L, &op), -EINVAL);
    close_loop();
}

static void cancel_of_an_operation_too_late_gives_its_true_result(void) {
    dev_params p = kind_device;
    actor a, b;
    ol_op op, op2;
    p.stop = 0;
    open_loop(NULL, "any any 0- async dev wait", &p);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, RUN, NULL, crc_op(&op), 0);
    step_add(&a, SLEEP, NULL, NULL, MS);
    step_add(&b, RUN, NULL, crc_op(&op2), 0);
    step_add(&b, SLEEP, NULL, NULL, MS);
    play(&a, 0, 0);
    play(&b, 0, 0);
    turns(3);
    ol_cancel(&a.co);
    EQUAL(ol_op_cancel(L, &op2), 0);
    run();
    EQUAL(a.r[0], CRC_OF_NINE);
    EQUAL(a.r[1], -ECANCELED); /* the request stands */
    EQUAL(b.r[0], CRC_OF_NINE);
    EQUAL(b.r[1], 0);
    EQUAL(D.too_late, 2);
    close_loop();
}

static void cancel_outranks_the_timeout_of_an_operation_that_is_being_stopped(void) {
    dev_params p = kind_device;
    actor a;
    ol_op op;
    p.base = SEC;
    open_loop(NULL, "any any 0- async dev wait", &p);
    memset(&a, 0, sizeof a);
    crc_op(&op)->timeout_us = 1000;
    step_add(&a, RUN, NULL, &op, 0);
    play(&a, 0, 0);
    while (!D.stopped) CHECK(ol_loop_step(L, -1) == 1); /* by its timeout; the device's answer is not fetched yet */
    CHECK(!a.ended);
    ol_cancel(&a.co);
    run();
    EQUAL(a.r[0], -ECANCELED);
    close_loop();
}

static void deadline_of_an_operation_stops_it_or_gives_its_true_result(void) {
    dev_params p = kind_device;
    actor a;
    ol_op op;
    int stop;
    for (stop = 0; stop < 2; stop++) {
        p.stop = stop ? 1000 : 0;
        p.base = 10 * MS;
        open_loop(NULL, "any any 0- async dev wait", &p);
        memset(&a, 0, sizeof a);
        step_add(&a, DEADLINE, NULL, NULL, MS);
        step_add(&a, RUN, NULL, crc_op(&op), 0);
        step_add(&a, SLEEP, NULL, NULL, MS);
        play(&a, 0, 0);
        run();
        EQUAL(a.r[1], stop ? (int64_t)-ETIMEDOUT : (int64_t)CRC_OF_NINE);
        EQUAL(a.r[2], -ETIMEDOUT);
        CHECK(a.at[1] >= a.at[0] + MS);
        CHECK(stop ? a.at[1] < a.at[0] + 2 * MS : a.at[1] >= a.at[0] + 10 * MS);
        close_loop();
    }
}

static void deadline_an_operations_own_timeout_is_its_alone(void) {
    dev_params p = kind_device;
    actor a;
    ol_op op;
    p.base = 10 * MS;
    open_loop(NULL, "any any 0- async dev wait", &p);
    memset(&a, 0, sizeof a);
    crc_op(&op)->timeout_us = 1000;
    step_add(&a, RUN, NULL, &op, 0);
    step_add(&a, SLEEP, NULL, NULL, MS);
    play(&a, 0, 0);
    run();
    EQUAL(a.r[0], -ETIMEDOUT);
    EQUAL(a.r[1], 0);
    crc_op(&op)->timeout_us = 100000; /* long enough: leaves no timer behind */
    memset(&a, 0, sizeof a);
    step_add(&a, RUN, NULL, &op, 0);
    play(&a, 0, 0);
    run();
    EQUAL(a.r[0], CRC_OF_NINE);
    CHECK(sim.now < 2 * SEC);
    close_loop();
}

static void deadline_never_fires_early_and_fires_when_due(void) {
    actor a;
    wire w;
    char buf[8];
    int i;
    const int64_t ns[4] = {1, 999, 1000001, 123456789};
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    for (i = 0; i < 4; i++) {
        memset(&a, 0, sizeof a);
        step_add(&a, DEADLINE, NULL, NULL, ns[i]);
        step_add(&a, READ, &w.fd, buf, 8);
        play(&a, w.fd, 0);
        turns(1);
        run();
        EQUAL(a.r[1], -ETIMEDOUT);
        CHECK(a.at[1] - a.at[0] >= ns[i] - sim.tick);
        CHECK(a.at[1] - a.at[0] <= ns[i] + 10 * US);
    }
    wire_close(&w);
    close_loop();
}

static void deadline_that_cannot_be_set_leaves_the_old_one(void) {
    actor a;
    wire w;
    char buf[8];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a);
    step_add(&a, READ, &w.fd, buf, 8);
    play(&a, w.fd, 0);
    turns(1);
    EQUAL(ol_deadline(&a.co, 0), 0); /* has passed */
    sim.faults.enomem = 1000;
    EQUAL(ol_deadline(&a.co, SEC), -ENOMEM);
    sim.faults.enomem = 0;
    run();
    EQUAL(a.r[0], -ETIMEDOUT);
    CHECK(a.at[0] < 1 * SEC + MS); /* the clock began at 1 s */
    wire_close(&w);
    close_loop();
}

static void deadline_can_be_put_off_brought_forward_and_removed(void) {
    actor a;
    plain_loop();
    memset(&a, 0, sizeof a);
    step_add(&a, DEADLINE, NULL, NULL, 2 * MS);
    step_add(&a, DEADLINE, NULL, NULL, 50 * MS); /* put off */
    step_add(&a, SLEEP, NULL, NULL, 10 * MS);
    step_add(&a, DEADLINE, NULL, NULL, 5 * MS); /* brought forward */
    step_add(&a, SLEEP, NULL, NULL, 10 * MS);
    step_add(&a, DEADLINE, NULL, NULL, 5 * MS);
    step_add(&a, DEADLINE, NULL, NULL, OL_NEVER); /* removed */
    step_add(&a, SLEEP, NULL, NULL, 10 * MS);
    step_add(&a, DEADLINE, NULL, NULL, 20 * MS);
    step_add(&a, SLEEP, NULL, NULL, 10 * MS); /* a sleep shorter than the deadline is not touched by it */
    step_add(&a, SLEEP, NULL, NULL, 30 * MS);
    play(&a, 0, 0);
    run();
    EQUAL(a.r[2], 0);
    EQUAL(a.r[4], -ETIMEDOUT);
    EQUAL(a.r[7], 0);
    EQUAL(a.r[9], 0);
    EQUAL(a.r[10], -ETIMEDOUT);
    CHECK(a.at[2] - a.at[1] >= 10 * MS - sim.tick && a.at[4] - a.at[3] <= 5 * MS + 10 * US);
    CHECK(a.at[10] - a.at[8] <= 20 * MS + 10 * US);
    close_loop();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Operations                                                                                                       */

static void operations_done_is_never_called_from_submit(void) {
    static const char *const policy[3] = {"any any 0- software - -", "any any 0- sync dev -", "any any 0- async dev -"};
    int i;
    for (i = 0; i < 3; i++) {
        submitter s;
        dev_params p = kind_device;
        ol_op op;
        p.base = 10;
        open_loop(NULL, policy[i], &p);
        memset(&s, 0, sizeof s);
        s.n = 4;
        done_calls = 0;
        EQUAL(ol_spawn(L, &s.co, submit_all, 0, 0), 0);
        in_submit = 1; /* and from outside of any coroutine */
        EQUAL(ol_submit(L, crc_op(&op), on_done), 0);
        in_submit = 0;
        run();
        EQUAL(done_calls, 5);
        EQUAL(done_result, CRC_OF_NINE);
        close_loop();
    }
}

static void operations_unprepared_or_garbage_ones_are_refused(void) {
    actor a;
    ol_op zero, garbage, null;
    int i;
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    memset(&zero, 0, sizeof zero);
    memset(&garbage, 0xff, sizeof garbage);
    ol_prep_crc32(&null, 0, NULL, 5);
    for (i = 0; i < 2; i++) {
        EQUAL(ol_submit(L, &zero, never_done), -EINVAL);
        EQUAL(ol_submit(L, &garbage, never_done), -EINVAL);
        EQUAL(ol_submit(L, &null, never_done), -EINVAL);
        EQUAL(ol_op_cancel(L, &zero), -EINVAL);
        EQUAL(ol_op_cancel(L, &garbage), -EINVAL);
    }
    memset(&a, 0, sizeof a);
    step_add(&a, RUN, NULL, &zero, 0);
    step_add(&a, RUN, NULL, &garbage, 0);
    step_add(&a, RUN, NULL, &null, 0);
    step_add(&a, RUN, NULL, ol_prep_call(&garbage, NULL, NULL), 0);
    play(&a, 0, 0);
    run();
    for (i = 0; i < 4; i++) EQUAL(a.r[i], -EINVAL);
    EQUAL(stats().ops, 0);
    close_loop();
}

static void operations_one_in_flight_is_refused_with_ebusy(void) {
    actor a, b;
    ol_op op;
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, RUN, NULL, crc_op(&op), 0);
    step_add(&b, RUN, NULL, &op, 0);
    step_add(&b, SUBMIT, NULL, &op, 0);
    play(&a, 0, 0);
    play(&b, 0, 0);
    run();
    EQUAL(a.r[0], CRC_OF_NINE);
    EQUAL(b.r[0], -EBUSY);
    EQUAL(b.r[1], -EBUSY);
    EQUAL(D.taken, 1);
    close_loop();
}

typedef struct looper { /* awaits as much as it can in a row */
    ol_co co;
    ol_op op;
    int rounds, i, at_resume, most;
    int64_t r;
    int yields; /* 1: yields, 0: runs operations */
} looper;
static int latency_run_seen, latency_run_most, batch_between, batch_between_most;
static void loop_round(ol_co *co) {
    looper *l = OL_SELF(co, looper, co);
    sim.progress++;
    if (l->i - l->at_resume > l->most) l->most = l->i - l->at_resume;
    l->at_resume = l->i;
    OL_BEGIN(co);
    for (l->i = 0; l->i < l->rounds; l->i++) {
        if (l->yields) OL_YIELD();
        else OL_AWAIT(l->r, ol_run(co, crc_op(&l->op)));
    }
    OL_END(co);
}

static void operations_that_complete_on_the_spot_go_on_within_a_budget(void) {
    looper a;
    actor b;
    ol_loop_desc desc;
    int i;
    memset(&desc, 0, sizeof desc);
    desc.budget = 10;
    open_loop(&desc, "any any 0- software - -", NULL);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    a.rounds = 500;
    EQUAL(ol_spawn(L, &a.co, loop_round, 0, 0), 0);
    for (i = 0; i < 10; i++) step_add(&b, YIELD, NULL, NULL, 0);
    play(&b, 0, 0);
    run();
    EQUAL(a.i, 500);
    EQUAL(a.r, CRC_OF_NINE);
    CHECK(a.most > 1 && a.most <= 11); /* without suspending, but not for ever */
    EQUAL(stats().software, 500);
    close_loop();
}

static void operations_tell_where_they_ran_and_why(void) {
    dev_params p = kind_device;
    actor a;
    ol_op op[3];
    open_loop(NULL, "crc32 any 0-8 software - -\ncrc32 any 9- async dev wait\ncall any 0- sync dev software", &p);
    D.backend.kinds = 1u << OL_OP_CRC32;
    EQUAL(ol_loop_destroy(L), 0);
    dev_free(&D);
    {
        ol_backend *b = &D.backend;
        ol_loop_desc d;
        memset(&d, 0, sizeof d);
        dev_init(&D, "dev", &p);
        D.backend.kinds = 1u << OL_OP_CRC32;
        d.backends = &b;
        d.nbackends = 1;
        d.no_pool = 1;
        d.policy = "crc32 any 0-8 software - -\ncrc32 any 9- async dev wait\ncall any 0- sync dev software";
        EQUAL(ol_loop_create(&L, &d), 0);
    }
    memset(&a, 0, sizeof a);
    step_add(&a, RUN, NULL, ol_prep_crc32(&op[0], 0, nine, 8), 0);
    step_add(&a, RUN, NULL, ol_prep_crc32(&op[1], 0, nine, 9), 0);
    step_add(&a, RUN, NULL, ol_prep_call(&op[2], count_call, (void *)(intptr_t)42), 0);
    play(&a, 0, 0);
    run();
    EQUAL(a.r[1], CRC_OF_NINE);
    EQUAL(a.r[2], 42);
    CHECK(strcmp(ol_op_where(L, &op[0]), "software") == 0 && op[0].why == OL_WHY_RULE && op[0].mode == OL_SOFTWARE);
    CHECK(strcmp(ol_op_where(L, &op[1]), "dev") == 0 && op[1].why == OL_WHY_RULE && op[1].mode == OL_ASYNC);
    CHECK(strcmp(ol_op_where(L, &op[2]), "software") == 0 && op[2].why == OL_WHY_UNSUPPORTED);
    CHECK(strlen(ol_op_why(&op[2])) > 3);
    close_loop();
}

static void operations_a_policy_change_concerns_those_submitted_later(void) {
    actor a, b;
    ol_op op, op2;
    ol_policy p, q;
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, RUN, NULL, crc_op(&op), 0);
    play(&a, 0, 0);
    turns(3);
    EQUAL(ol_policy_parse("any any 0- software - -", &p, NULL, 0), 0);
    EQUAL(ol_loop_set_policy(L, &p), 0);
    step_add(&b, RUN, NULL, crc_op(&op2), 0);
    play(&b, 0, 0);
    run();
    EQUAL(op.where, 1);
    EQUAL(op2.where, 0);
    EQUAL(a.r[0], CRC_OF_NINE);
    EQUAL(b.r[0], CRC_OF_NINE);
    EQUAL(ol_policy_parse("any any 0- async nowhere wait", &q, NULL, 0), 0);
    EQUAL(ol_loop_set_policy(L, &q), -EINVAL);
    memset(&q, 0, sizeof q);
    ol_loop_get_policy(L, &q);
    EQUAL(q.n, 1);
    EQUAL(q.rule[0].mode, OL_SOFTWARE); /* the old one stays in force */
    close_loop();
}

static void sync_files_the_completions_of_others_and_stops_at_its_own(void) {
    dev_params p = kind_device;
    actor a, b;
    ol_op op, op2;
    open_loop(NULL, "call any 0- async dev wait\ncrc32 any 0- sync dev software", &p);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, RUN, NULL, ol_prep_call(&op, count_call, (void *)(intptr_t)7), 0);
    step_add(&b, SLEEP, NULL, NULL, 10 * US);
    step_add(&b, RUN, NULL, crc_op(&op2), 0);
    play(&a, 0, 0);
    play(&b, 0, 0);
    run();
    EQUAL(a.r[0], 7);
    EQUAL(b.r[1], CRC_OF_NINE);
    EQUAL(calls_made, 1);
    CHECK(op2.mode == OL_SYNC && op2.why == OL_WHY_RULE);
    EQUAL(b.resumes, 2); /* start and the end of the sleep: its own operation did not suspend it */
    CHECK(a.at[0] >= b.at[1]);
    close_loop();
}

static void sync_is_bounded_and_then_suspends(void) {
    dev_params p = kind_device;
    actor a, b;
    ol_op op;
    p.base = 50 * MS;
    open_loop(NULL, "any any 0- sync dev software", &p);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, RUN, NULL, crc_op(&op), 0);
    step_add(&b, SLEEP, NULL, NULL, MS);
    play(&a, 0, 0);
    play(&b, 0, 0);
    run();
    EQUAL(a.r[0], CRC_OF_NINE);
    EQUAL(op.why, OL_WHY_SYNC_BOUND);
    CHECK(b.ended && b.ended < a.ended);
    CHECK(b.at[0] < a.at[0]);
    EQUAL(a.resumes, 2);
    close_loop();
}

static void sync_on_a_channel_that_shares_the_core_suspends(void) {
    dev_params p = kind_device;
    actor a;
    ol_op op;
    p.flags |= OL_CHANNEL_NO_SYNC;
    open_loop(NULL, "any any 0- sync dev software", &p);
    memset(&a, 0, sizeof a);
    step_add(&a, RUN, NULL, crc_op(&op), 0);
    play(&a, 0, 0);
    run();
    EQUAL(a.r[0], CRC_OF_NINE);
    EQUAL(op.mode, OL_ASYNC);
    EQUAL(a.resumes, 2);
    close_loop();
}

static void full_runs_in_software_where_the_rule_or_the_latency_class_says_so(void) {
    dev_params p = kind_device;
    actor a[3];
    ol_op op[3];
    int i, explicit_rule;
    for (explicit_rule = 0; explicit_rule < 2; explicit_rule++) {
        p.depth = 1;
        open_loop(NULL, explicit_rule ? "any any 0- async dev software" : "any any 0- async dev -", &p);
        memset(a, 0, sizeof a);
        for (i = 0; i < 3; i++) {
            step_add(&a[i], RUN, NULL, crc_op(&op[i]), 0);
            play(&a[i], 0, explicit_rule ? OL_BATCH : OL_LATENCY);
        }
        run();
        for (i = 0; i < 3; i++) {
            EQUAL(a[i].r[0], CRC_OF_NINE);
            EQUAL(op[i].where, i == 0);
            EQUAL(op[i].why, i == 0 ? OL_WHY_RULE : OL_WHY_FULL);
        }
        close_loop();
    }
}

static void full_batch_waits_in_order_and_completions_resume_it(void) {
    dev_params p = kind_device;
    actor a[5];
    ol_op op[5];
    int i;
    p.depth = 1;
    open_loop(NULL, "any any 0- async dev -", &p);
    memset(a, 0, sizeof a);
    for (i = 0; i < 5; i++) {
        step_add(&a[i], RUN, NULL, crc_op(&op[i]), 0);
        play(&a[i], 0, OL_BATCH);
    }
    run();
    for (i = 0; i < 5; i++) {
        EQUAL(a[i].r[0], CRC_OF_NINE);
        EQUAL(op[i].where, 1);
        EQUAL(op[i].why, i == 0 ? OL_WHY_RULE : OL_WHY_PARKED);
        if (i) CHECK(a[i].ended > a[i - 1].ended);
    }
    EQUAL(D.max_held, 1);
    EQUAL(stats().parked, 4);
    close_loop();
}

static int64_t note_order(void *arg) {
    *(int *)arg = ++order;
    return 0;
}
static void full_what_a_backend_did_not_take_keeps_its_place(void) {
    dev_params p = kind_device;
    actor a[12];
    ol_op op[12];
    int at[12], i;
    p.few = 1000; /* takes a part of each burst */
    p.base = 0;
    open_loop(NULL, "any any 0- async dev wait", &p);
    memset(a, 0, sizeof a);
    for (i = 0; i < 12; i++) {
        step_add(&a[i], RUN, NULL, ol_prep_call(&op[i], note_order, &at[i]), 0);
        play(&a[i], 0, OL_BATCH);
    }
    run();
    CHECK(D.full > 0);
    for (i = 1; i < 12; i++) CHECK(at[i] > at[i - 1]);
    close_loop();
}

static void full_beyond_the_bound_gives_eagain(void) {
    dev_params p = kind_device;
    submitter s;
    actor a;
    ol_op op;
    ol_loop_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.park_max = 2;
    p.depth = 1;
    open_loop(&desc, "crc32 any 0-8 async dev fail\nany any 0- async dev wait", &p);
    memset(&s, 0, sizeof s), memset(&a, 0, sizeof a);
    s.n = 4;
    EQUAL(ol_spawn(L, &s.co, submit_all, 0, OL_BATCH), 0);
    step_add(&a, RUN, NULL, ol_prep_crc32(&op, 0, nine, 8), 0);
    play(&a, 0, OL_BATCH);
    run();
    EQUAL(s.r[0], 0);
    EQUAL(s.r[1], 0);
    EQUAL(s.r[2], 0);
    EQUAL(s.r[3], -EAGAIN);
    EQUAL(done_calls, 3);
    EQUAL(a.r[0], -EAGAIN);
    EQUAL(calls_made, 0);
    close_loop();
}

static void full_what_waits_is_resumed_by_a_timer_too(void) {
    dev_params p = kind_device;
    actor a;
    ol_op op;
    p.refuse = 1000; /* nothing in flight that could complete, and still no room */
    open_loop(NULL, "any any 0- async dev wait", &p);
    memset(&a, 0, sizeof a);
    step_add(&a, RUN, NULL, crc_op(&op), 0);
    play(&a, 0, 0);
    later(20 * MS, DO_DEV_OPEN, 0, NULL, NULL);
    run();
    EQUAL(a.r[0], CRC_OF_NINE);
    EQUAL(op.why, OL_WHY_PARKED);
    CHECK(D.full < 25000); /* no spin meanwhile: at most one attempt each poll interval */
    close_loop();
}

static void full_what_waits_can_be_cancelled_and_timed_out(void) {
    dev_params p = kind_device;
    actor a, b, c;
    ol_op op[3];
    p.refuse = 1000;
    open_loop(NULL, "any any 0- async dev wait", &p);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b), memset(&c, 0, sizeof c);
    step_add(&a, RUN, NULL, crc_op(&op[0]), 0);
    step_add(&b, DEADLINE, NULL, NULL, MS);
    step_add(&b, RUN, NULL, crc_op(&op[1]), 0);
    crc_op(&op[2])->timeout_us = 500;
    step_add(&c, RUN, NULL, &op[2], 0);
    play(&a, 0, 0);
    play(&b, 0, 0);
    play(&c, 0, 0);
    pass(100 * US);
    ol_cancel(&a.co);
    run();
    EQUAL(a.r[0], -ECANCELED);
    EQUAL(b.r[1], -ETIMEDOUT);
    EQUAL(c.r[0], -ETIMEDOUT);
    EQUAL(op[0].why, OL_WHY_STOPPED);
    EQUAL(D.taken, 0);
    close_loop();
}

static void backend_one_that_fails_or_notifies_nothing_still_completes_everything(void) {
    int variant;
    for (variant = 0; variant < 4; variant++) {
        dev_params p = kind_device;
        actor a[4];
        ol_op op[4];
        int i;
        p.flags = 0;
        p.next = variant % 3;
        p.fail = variant == 3 ? 1000 : 0;
        p.jitter = MS;
        open_loop(NULL, "any any 0- async dev wait", &p);
        memset(a, 0, sizeof a);
        for (i = 0; i < 4; i++) {
            step_add(&a[i], RUN, NULL, crc_op(&op[i]), 0);
            play(&a[i], 0, 0);
        }
        run();
        for (i = 0; i < 4; i++) {
            EQUAL(a[i].r[0], CRC_OF_NINE);
            if (variant == 3) EQUAL(op[i].why, OL_WHY_FAILED);
            if (variant == 3) EQUAL(op[i].where, 0);
        }
        close_loop();
    }
}

static void backend_its_errors_arrive_as_the_operations_result(void) {
    dev_params p = kind_device;
    actor a;
    ol_op op;
    p.fault = 1000;
    open_loop(NULL, "any any 0- async dev wait", &p);
    memset(&a, 0, sizeof a);
    step_add(&a, RUN, NULL, crc_op(&op), 0);
    play(&a, 0, 0);
    run();
    EQUAL(a.r[0], -EIO);
    CHECK(strlen(ol_op_error(&op)) > 5 && strlen(ol_co_error(&a.co)) > 5);
    close_loop();
}

/* A thread that can't start: the pool's operations run in software and say so. */
static void backend_a_pool_without_threads_runs_in_software(void) {
    ol_backend *pool = NULL;
    ol_loop_desc d;
    actor a;
    ol_op op;
    EQUAL(ol_threads_create(&pool, NULL), 0);
    memset(&d, 0, sizeof d);
    d.backends = &pool;
    d.nbackends = 1;
    d.policy = "any any 0- async threads wait";
    has_device = 0;
    EQUAL(ol_loop_create(&L, &d), 0);
    memset(&a, 0, sizeof a);
    step_add(&a, RUN, NULL, crc_op(&op), 0);
    play(&a, 0, 0);
    run();
    EQUAL(a.r[0], CRC_OF_NINE);
    EQUAL(op.why, OL_WHY_FAILED);
    CHECK(sim.stats.thread_starts > 0);
    EQUAL(ol_threads_destroy(pool), -EBUSY);
    EQUAL(ol_loop_destroy(L), 0);
    EQUAL(ol_threads_destroy(pool), 0);
    k_check_leaks();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* The loop                                                                                                         */

static void note_class(int latency) { /* counts runs of the one class while the other waits */
    if (latency) {
        batch_between = 0;
        if (++latency_run_seen > latency_run_most) latency_run_most = latency_run_seen;
    } else {
        latency_run_seen = 0;
        if (++batch_between > batch_between_most) batch_between_most = batch_between;
    }
}
static void yield_and_note(ol_co *co) {
    looper *l = OL_SELF(co, looper, co);
    sim.progress++;
    note_class(l->yields);
    OL_BEGIN(co);
    for (l->i = 0; l->i < l->rounds; l->i++) OL_YIELD();
    OL_END(co);
}

static void loop_latency_goes_before_batch_and_batch_is_not_starved(void) {
    looper a[6];
    ol_loop_desc desc;
    int i;
    memset(&desc, 0, sizeof desc);
    desc.latency_run = 5;
    open_loop(&desc, "any any 0- software - -", NULL);
    memset(a, 0, sizeof a);
    latency_run_seen = latency_run_most = batch_between = batch_between_most = 0;
    for (i = 0; i < 6; i++) {
        a[i].rounds = i < 3 ? 100000 : 100;
        a[i].yields = i < 3;
        EQUAL(ol_spawn(L, &a[i].co, yield_and_note, 0, i < 3 ? OL_LATENCY : OL_BATCH), 0);
    }
    while (alive() == 6) CHECK(ol_loop_step(L, 0) == 1);
    EQUAL(latency_run_most, 5); /* the bound, and used */
    EQUAL(batch_between_most, 1);
    for (i = 0; i < 6; i++) a[i].rounds = 0;
    run();
    close_loop();
}

static void loop_busy_coroutines_do_not_keep_events_and_timers_waiting(void) {
    looper a;
    actor b, c;
    wire w;
    char buf[8];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b), memset(&c, 0, sizeof c);
    a.rounds = 1000000;
    a.yields = 1;
    EQUAL(ol_spawn(L, &a.co, loop_round, 0, OL_LATENCY), 0);
    step_add(&b, READ, &w.fd, buf, 8);
    step_add(&c, SLEEP, NULL, NULL, 3 * US);
    play(&b, w.fd, 0);
    play(&c, 0, 0);
    later(2 * US, DO_SEND, w.peer, "x", NULL);
    while (!b.ended || !c.ended) CHECK(ol_loop_step(L, 0) == 1);
    CHECK(a.i < 100000);
    a.rounds = 0;
    run();
    wire_close(&w);
    close_loop();
}

static int timer_log[16], timers_fired;
static ol_timer timer[8];
static void on_timer(ol_loop *loop, ol_timer *t) {
    (void)loop;
    timer_log[timers_fired++] = (int)(t - timer);
}
/* What is due at the very moment that a round has for its time comes in that round. */
static void timers_sleeps_and_deadlines_come_when_the_loops_time_is_theirs(void) {
    int64_t ns;
    int i, exact[3] = {0, 0, 0};
    plain_loop();
    memset(timer, 0, sizeof timer);
    sim.tick = 1;
    for (ns = 1; ns <= 60; ns++) {
        actor a[2];
        int64_t due[3];
        int came[3] = {0, 0, 0};
        timers_fired = 0;
        memset(a, 0, sizeof a);
        step_add(&a[0], SLEEP, NULL, NULL, ns);
        step_add(&a[1], SLEEP, NULL, NULL, SEC);
        EQUAL(ol_spawn(L, &a[0].co, act, 0, 0), 0);
        EQUAL(ol_spawn(L, &a[1].co, act, 0, 0), 0);
        EQUAL(ol_loop_step(L, 0), 1);
        due[0] = a[0].co.loop->heap[a[0].co.timer].wake;
        EQUAL(ol_deadline(&a[1].co, ns), 0);
        due[1] = ol_now(L) + ns;
        EQUAL(ol_timer_start(L, &timer[0], ns, on_timer), 0);
        due[2] = ol_now(L) + ns;
        while (!came[0] || !came[1] || !came[2]) {
            CHECK(ol_loop_step(L, 0) >= 0);
            came[0] = a[0].ended, came[1] = a[1].ended, came[2] = timers_fired;
            for (i = 0; i < 3; i++) {
                CHECK(!came[i] == (ol_now(L) < due[i]));
                exact[i] += ol_now(L) == due[i];
            }
        }
        EQUAL(a[0].r[0], 0);
        EQUAL(a[1].r[0], -ETIMEDOUT);
    }
    CHECK(exact[0] && exact[1] && exact[2]);
    close_loop();
}

static void on_timer_again(ol_loop *loop, ol_timer *t) {
    on_timer(loop, t);
    if (timers_fired < 5) EQUAL(ol_timer_start(loop, t, 0, on_timer_again), 0);
}
static void on_timer_stop_other(ol_loop *loop, ol_timer *t) {
    on_timer(loop, t);
    ol_timer_stop(loop, &timer[7]);
}

static void timers_fire_in_order_not_early_and_can_be_restarted_and_stopped(void) {
    int64_t start;
    plain_loop();
    memset(timer, 0, sizeof timer);
    timers_fired = 0;
    start = now();
    EQUAL(ol_timer_start(L, &timer[0], 30 * MS, on_timer), 0);
    EQUAL(ol_timer_start(L, &timer[1], 10 * MS, on_timer), 0);
    EQUAL(ol_timer_start(L, &timer[2], 20 * MS, on_timer), 0);
    EQUAL(ol_timer_start(L, &timer[3], 5 * MS, on_timer), 0);
    EQUAL(ol_timer_start(L, &timer[3], 25 * MS, on_timer), 0); /* restarted later */
    EQUAL(ol_timer_start(L, &timer[4], 90 * MS, on_timer), 0);
    EQUAL(ol_timer_start(L, &timer[4], 15 * MS, on_timer), 0); /* and earlier */
    EQUAL(ol_timer_start(L, &timer[5], MS, on_timer), 0);
    ol_timer_stop(L, &timer[5]);
    ol_timer_stop(L, &timer[5]);
    ol_timer_stop(L, &timer[6]); /* never started */
    EQUAL(ol_timer_start(L, &timer[6], 40 * MS, on_timer_stop_other), 0);
    EQUAL(ol_timer_start(L, &timer[7], 40 * MS + 1, on_timer), 0); /* due at the same look, stopped by the other */
    sim.oversleep = 1000;
    run();
    EQUAL(timers_fired, 6);
    CHECK(timer_log[0] == 1 && timer_log[1] == 4 && timer_log[2] == 2 && timer_log[3] == 3 && timer_log[4] == 0 &&
          timer_log[5] == 6);
    CHECK(now() >= start + 40 * MS && now() < start + 41 * MS);
    close_loop();
}

static void timers_one_that_restarts_itself_at_once_lets_others_run(void) {
    actor a;
    plain_loop();
    memset(timer, 0, sizeof timer);
    memset(&a, 0, sizeof a);
    timers_fired = 0;
    EQUAL(ol_timer_start(L, &timer[0], 0, on_timer_again), 0);
    step_add(&a, YIELD, NULL, NULL, 0);
    play(&a, 0, 0);
    turns(3);
    CHECK(a.ended);
    CHECK(timers_fired < 5); /* once a round, not all in one */
    run();
    EQUAL(timers_fired, 5);
    EQUAL(ol_timer_start(L, NULL, 1, on_timer), -EINVAL);
    EQUAL(ol_timer_start(L, &timer[0], 1, NULL), -EINVAL);
    close_loop();
}

static int posts_run, post_last;
static ol_post_node node[4];
static void on_post(ol_loop *loop, ol_post_node *n) {
    CHECK(loop == L);
    posts_run++;
    post_last = post_last * 10 + (int)(n - node) + 1;
}
static void repost(ol_loop *loop, ol_post_node *n) {
    on_post(loop, n);
    if (posts_run < 3) EQUAL(ol_post(loop, n), 0); /* it is no longer queued while its function runs */
}
static void posts_clear(void (*fn)(ol_loop *, ol_post_node *)) {
    int i;
    memset(node, 0, sizeof node);
    for (i = 0; i < 4; i++) node[i].fn = fn;
    posts_run = post_last = 0;
}

static void posts_wake_a_sleeping_loop_with_one_write_and_keep_their_order(void) {
    actor a;
    plain_loop();
    posts_clear(on_post);
    memset(&a, 0, sizeof a);
    step_add(&a, SLEEP, NULL, NULL, SEC);
    play(&a, 0, 0);
    later(MS, DO_POST, 0, NULL, &node[2]);
    later(MS, DO_POST, 0, NULL, &node[0]);
    later(MS, DO_POST, 0, NULL, &node[1]);
    while (!posts_run) CHECK(ol_loop_step(L, -1) == 1);
    turns(2);
    EQUAL(posts_run, 3);
    EQUAL(post_last, 312);
    EQUAL(sim.stats.eventfd_writes, 1);
    CHECK(sim.now < 1100 * MS);
    ol_cancel(&a.co);
    run();
    close_loop();
}

static void posts_from_inside_the_loop_write_nothing_and_run(void) {
    plain_loop();
    posts_clear(repost);
    turns(1);
    EQUAL(ol_post(L, &node[0]), 0);
    EQUAL(ol_post(L, &node[0]), -EBUSY);
    CHECK(posts_run == 0);
    turns(1);
    {
        const uint64_t writes = sim.stats.eventfd_writes;
        while (posts_run < 3) CHECK(ol_loop_step(L, -1) >= 0);
        EQUAL(sim.stats.eventfd_writes, writes);
    }
    EQUAL(posts_run, 3);
    close_loop();
}

static int point_wanted, point_seen;
static int64_t point_time;
static void post_at_point(void) {
    if (++point_seen != point_wanted) return;
    point_time = sim.now;
    ol_post(L, &node[0]);
}
static void posts_at_any_point_before_the_sleep_are_not_lost(void) {
    int wanted;
    actor a;
    plain_loop();
    memset(&a, 0, sizeof a);
    step_add(&a, SLEEP, NULL, NULL, 1000 * SEC);
    play(&a, 0, 0);
    turns(3);
    for (wanted = 1; wanted < 60; wanted++) {
        posts_clear(on_post);
        point_wanted = wanted;
        point_seen = 0;
        sim.interrupt = post_at_point;
        sim.faults.interrupt = 1000;
        CHECK(ol_loop_step(L, 10 * SEC) == 1);
        sim.faults.interrupt = 0;
        if (point_seen < wanted) break;                        /* every point was tried */
        if (!posts_run) CHECK(ol_loop_step(L, 10 * SEC) == 1); /* it came after the last look of the step */
        CHECK(sim.now - point_time < SEC);                     /* and no sleep came between */
        EQUAL(posts_run, 1);
    }
    CHECK(wanted > 3 && wanted < 60);
    ol_cancel(&a.co);
    run();
    close_loop();
}

static dev_channel *ready_channel;
static void finish_at_point(void) {
    if (++point_seen != point_wanted) return;
    point_time = sim.now;
    while (ready_channel->slot[0].state == DEV_AT_WORK) dev_complete(ready_channel, &ready_channel->slot[0]);
}
static void completions_at_any_point_before_the_sleep_are_not_lost(void) {
    int wanted, ended;
    for (wanted = 1; wanted < 80; wanted++) {
        dev_params p = kind_device;
        actor a;
        ol_op op;
        p.hang = 1000;
        open_loop(NULL, "any any 0- async dev wait", &p);
        memset(&a, 0, sizeof a);
        step_add(&a, RUN, NULL, crc_op(&op), 0);
        play(&a, 0, 0);
        turns(3);
        ready_channel = &D.channel[0];
        CHECK(ready_channel->slot[0].state == DEV_AT_WORK);
        point_wanted = wanted;
        point_seen = 0;
        sim.interrupt = finish_at_point;
        sim.faults.interrupt = 1000;
        k_at(10 * SEC, nothing, NULL, 0);
        CHECK(ol_loop_step(L, SEC) >= 0);
        sim.faults.interrupt = 0;
        ended = point_seen < wanted;
        if (ended) dev_release(&D);
        if (!ended && !a.ended) CHECK(ol_loop_step(L, SEC) >= 0);
        if (!ended) CHECK(a.ended && sim.now - point_time < SEC / 2);
        run();
        EQUAL(a.r[0], CRC_OF_NINE);
        close_loop();
        if (ended) break;
    }
    CHECK(wanted > 3 && wanted < 80);
}

static void loop_run_ends_when_nothing_is_left_and_stop_ends_it_earlier(void) {
    actor a;
    plain_loop();
    run(); /* nothing at all */
    EQUAL(ol_loop_step(L, 0), 0);
    memset(&a, 0, sizeof a);
    step_add(&a, SLEEP, NULL, NULL, 10 * MS);
    play(&a, 0, 0);
    memset(timer, 0, sizeof timer);
    timers_fired = 0;
    EQUAL(ol_timer_start(L, &timer[0], 20 * MS, on_timer), 0);
    EQUAL(ol_loop_step(L, 0), 1);
    run();
    CHECK(a.ended && timers_fired == 1); /* a timer counts as something left */
    close_loop();
}

static void stop_on_post(ol_loop *loop, ol_post_node *n) {
    posts_run++;
    (void)n;
    EQUAL(ol_loop_run(loop), -EBUSY);
    EQUAL(ol_loop_step(loop, 0), -EBUSY);
    EQUAL(ol_loop_destroy(loop), -EBUSY);
    ol_loop_stop(loop);
}
static void loop_stop_by_a_post_ends_run_and_calls_from_inside_get_ebusy(void) {
    actor a;
    plain_loop();
    posts_clear(stop_on_post);
    memset(&a, 0, sizeof a);
    step_add(&a, SLEEP, NULL, NULL, SEC);
    play(&a, 0, 0);
    later(10 * MS, DO_POST, 0, NULL, &node[0]);
    run();
    EQUAL(posts_run, 1);
    CHECK(!a.ended);
    EQUAL(ol_loop_destroy(L), -EBUSY); /* coroutines are alive */
    run();
    CHECK(a.ended);
    close_loop();
}

static void loop_drain_cancels_all_waits_for_operations_and_destroy_closes_fds(void) {
    dev_params p = kind_device;
    actor a, b, c;
    wire w;
    ol_op op;
    char buf[8];
    p.stop = 0;
    p.base = 20 * MS;
    open_loop(NULL, "any any 0- async dev wait", &p);
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b), memset(&c, 0, sizeof c);
    step_add(&a, READ, &w.fd, buf, 8);
    step_add(&b, RUN, NULL, crc_op(&op), 0);
    step_add(&c, READ, &w.fd, buf, 8);
    play(&a, w.fd, 0);
    play(&b, 0, 0);
    play(&c, w.fd, 0); /* waits behind a */
    turns(3);
    EQUAL(ol_loop_drain(L, MS), -ETIMEDOUT);
    CHECK(a.ended && c.ended && !b.ended);
    EQUAL(a.r[0], -ECANCELED);
    EQUAL(c.r[0], -ECANCELED);
    EQUAL(ol_loop_drain(L, SEC), 0);
    EQUAL(b.r[0], CRC_OF_NINE);
    EQUAL(ol_loop_destroy(L), 0); /* closes w.fd */
    dev_free(&D);
    CHECK(sim.file[w.raw] == NULL);
    k_close(w.peer);
    k_check_leaks();
}

static void loop_destroy_waits_for_callback_operations(void) {
    dev_params p = kind_device;
    ol_op op[4];
    int i;
    p.stop = 500;
    p.base = 20 * MS;
    open_loop(NULL, "any any 0- async dev wait", &p);
    done_calls = 0;
    for (i = 0; i < 4; i++) EQUAL(ol_submit(L, crc_op(&op[i]), on_done), 0);
    close_loop();
    EQUAL(done_calls, 4);
    CHECK(done_result == CRC_OF_NINE || done_result == -ECANCELED);
}

static void loop_a_signal_during_the_sleep_does_no_harm(void) {
    actor a;
    plain_loop();
    memset(&a, 0, sizeof a);
    step_add(&a, SLEEP, NULL, NULL, 10 * MS);
    play(&a, 0, 0);
    sim.faults.eintr = 700;
    run();
    EQUAL(a.r[0], 0);
    CHECK(sim.stats.eintr > 0);
    close_loop();
}

static void loop_a_garbage_desc_is_refused_and_defaults_are_resolved(void) {
    ol_loop_desc d;
    ol_loop *loop = NULL;
    ol_backend *none = NULL;
    memset(&d, 0xff, sizeof d);
    EQUAL(ol_loop_create(&loop, &d), -EINVAL);
    CHECK(strlen(ol_error()) > 10);
    memset(&d, 0, sizeof d);
    d.canary_ = 1;
    EQUAL(ol_loop_create(&loop, &d), -EINVAL);
    memset(&d, 0, sizeof d);
    d.backends = &none;
    d.nbackends = 1;
    EQUAL(ol_loop_create(&loop, &d), -EINVAL);
    memset(&d, 0, sizeof d);
    d.no_pool = 1;
    d.policy = "this is no policy";
    CHECK(ol_loop_create(&loop, &d) < 0);
    k_check_leaks();
    memset(&d, 0, sizeof d);
    d.no_pool = 1;
    EQUAL(ol_loop_create(&L, &d), 0);
    EQUAL(ol_loop_desc_of(L)->events, 256);
    EQUAL(ol_loop_desc_of(L)->turn, 64);
    EQUAL(ol_loop_desc_of(L)->sync_ns, 100000);
    has_device = 0;
    close_loop();
}

static void loop_two_side_by_side_do_not_touch_each_other(void) {
    ol_loop *first, *second;
    actor a, b;
    wire v, w;
    char buf[8];
    plain_loop();
    first = L;
    wire_open(&v, 64, K_STREAMS);
    plain_loop();
    second = L;
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, READ, &v.fd, buf, 8);
    step_add(&a, READ, &w.fd, buf, 8); /* the other loop's handle */
    step_add(&b, READ, &w.fd, buf, 8);
    EQUAL(ol_spawn(first, &a.co, act, v.fd, 0), 0);
    EQUAL(ol_spawn(second, &b.co, act, w.fd, 0), 0);
    later(MS, DO_SEND, v.peer, "1", NULL);
    later(2 * MS, DO_SEND, w.peer, "22", NULL);
    EQUAL(ol_loop_run(first), 0);
    CHECK(a.ended && !b.ended);
    EQUAL(ol_loop_run(second), 0);
    EQUAL(a.r[0], 1);
    CHECK(a.r[1] == -EBADF || a.r[1] == -EXDEV);
    EQUAL(b.r[0], 2);
    EQUAL(ol_loop_destroy(first), 0);
    k_close(v.peer);
    wire_close(&w);
    close_loop();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Input and output                                                                                                 */

static void io_write_sends_everything_through_short_writes(void) {
    static char text[5000], got[5000];
    actor a;
    wire w;
    int i, n = 0;
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    for (i = 0; i < 5000; i++) text[i] = (char)k_byte(1, (uint64_t)i);
    memset(&a, 0, sizeof a);
    step_add(&a, WRITE, &w.fd, text, 5000);
    step_add(&a, WRITE, &w.fd, text, 0);
    step_add(&a, CLOSE, &w.fd, NULL, 0);
    play(&a, w.fd, 0);
    while (n < 5000) {
        ssize_t r;
        turns(2);
        r = k_read(w.peer, got + n, 37);
        CHECK(r > 0);
        n += (int)r;
    }
    run();
    EQUAL(a.r[0], 5000);
    EQUAL(a.r[1], 0);
    CHECK(memcmp(text, got, 5000) == 0);
    EQUAL(k_read(w.peer, got, 10), 0);
    k_close(w.peer);
    close_loop();
}

typedef struct vec {
    ol_co co;
    ol_fd fd;
    struct iovec out[5], in[3];
    char text[300], got[300];
    int64_t w, r, bad, total;
} vec;
static void vec_run(ol_co *co) {
    vec *v = OL_SELF(co, vec, co);
    sim.progress++;
    OL_BEGIN(co);
    OL_AWAIT(v->bad, ol_writev(co, v->fd, NULL, 1));
    OL_AWAIT(v->w, ol_writev(co, v->fd, v->out, 5));
    while (v->total < 300) {
        OL_AWAIT(v->r, ol_readv(co, v->fd, v->in, 3));
        if (v->r <= 0) break;
        v->total += v->r;
    }
    OL_END(co);
}
static void io_writev_sends_everything_and_advances_the_array_readv_fills_it(void) {
    static const size_t part[5] = {100, 0, 1, 150, 49};
    vec v;
    wire w;
    size_t at = 0;
    char got[300];
    int i, n = 0;
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&v, 0, sizeof v);
    for (i = 0; i < 300; i++) v.text[i] = (char)k_byte(2, (uint64_t)i);
    for (i = 0; i < 5; i++) {
        v.out[i].iov_base = v.text + at;
        v.out[i].iov_len = part[i];
        at += part[i];
    }
    for (i = 0; i < 3; i++) {
        v.in[i].iov_base = v.got + i;
        v.in[i].iov_len = 1;
    }
    v.fd = w.fd;
    EQUAL(ol_spawn(L, &v.co, vec_run, w.fd, 0), 0);
    while (n < 300) {
        turns(2);
        n += (int)k_read(w.peer, got + n, 300);
        CHECK(n > 0);
    }
    CHECK(memcmp(got, v.text, 300) == 0);
    turns(2);
    EQUAL(v.bad, -EINVAL);
    EQUAL(v.w, 300);
    for (i = 0; i < 5; i++) EQUAL(v.out[i].iov_len, 0);
    CHECK(v.out[4].iov_base == v.text + 300);
    EQUAL(k_write(w.peer, "xyz", 3), 3);
    turns(3);
    EQUAL(v.r, 3);
    CHECK(memcmp(v.got, "xyz", 3) == 0);
    k_close(w.peer);
    run();
    EQUAL(v.r, 0);
    EQUAL(ol_close(L, w.fd), 0);
    close_loop();
}

static void io_a_read_of_nothing_is_refused(void) {
    actor a;
    wire w;
    char buf[8];
    plain_loop();
    wire_open(&w, 64, K_STREAMS);
    memset(&a, 0, sizeof a);
    step_add(&a, READ, &w.fd, buf, 0);
    play(&a, w.fd, 0);
    run();
    EQUAL(a.r[0], -EINVAL);
    wire_close(&w);
    close_loop();
}

static void io_accept_gives_attached_connections_of_their_own_partition(void) {
    actor a, b;
    ol_fd lfd, conn;
    k_end *c1, *c2;
    unsigned char buf[8];
    plain_loop();
    listen_on(8080, &lfd);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    step_add(&a, ACCEPT, &lfd, NULL, 0);
    step_add(&a, ACCEPT, &lfd, NULL, 0);
    play(&a, lfd, 0);
    c1 = dial(8080);
    c2 = dial(8080);
    turns(3);
    CHECK(a.ended && a.r[0] > 0 && a.r[1] > 0 && a.r[0] != a.r[1]);
    conn = (ol_fd)a.r[0];
    CHECK(sim.file[ol_fd_raw(L, conn)]->nonblock);
    step_add(&b, WRITE, &conn, (void *)(uintptr_t)nine, 9);
    step_add(&b, CLOSE, &conn, NULL, 0);
    play(&b, conn, 0);
    run();
    EQUAL(b.r[0], 9);
    EQUAL(k_recv(c1, buf, 8), 8);
    EQUAL(ol_close(L, (ol_fd)a.r[1]), 0);
    EQUAL(ol_close(L, lfd), 0);
    k_end_free(c1);
    k_end_free(c2);
    close_loop();
}

static void io_accept_backs_off_when_no_fd_is_free(void) {
    actor a;
    ol_fd lfd;
    k_end *c;
    int64_t start;
    int i;
    plain_loop();
    listen_on(8080, &lfd);
    memset(&a, 0, sizeof a);
    for (i = 0; i < 11; i++) step_add(&a, ACCEPT, &lfd, NULL, 0);
    play(&a, lfd, 0);
    sim.fd_limit = K_FIRST_FD + 3;
    c = dial(8080);
    start = now();
    while (a.i < 9) CHECK(ol_loop_step(L, -1) == 1);
    for (i = 0; i < 9; i++) EQUAL(a.r[i], -EMFILE);
    CHECK(now() - start >= 90 * MS);  /* 10 ms each: a loop around it can't spin */
    EQUAL(sim.stats.accept_full, 10); /* the tenth is under way */
    CHECK(stats().turns < 100);
    sim.fd_limit = 100;
    run();
    CHECK(a.r[10] > 0); /* the connection was not lost */
    EQUAL(ol_close(L, (ol_fd)a.r[10]), 0);
    EQUAL(ol_close(L, lfd), 0);
    k_end_free(c);
    close_loop();
}

static void io_accept_whose_pause_finds_no_memory_leaves_no_waiter_behind(void) {
    actor a;
    ol_loop_desc desc;
    ol_fd lfd;
    k_end *c;
    memset(&desc, 0, sizeof desc);
    desc.budget = 1; /* so that the error itself is delivered at the next turn only */
    open_loop(&desc, "any any 0- software - -", NULL);
    listen_on(8080, &lfd);
    memset(&a, 0, sizeof a);
    step_add(&a, ACCEPT, &lfd, NULL, 0);
    step_add(&a, ACCEPT, &lfd, NULL, 0);
    sim.fd_limit = K_FIRST_FD + 3;
    c = dial(8080);
    turns(2);
    play(&a, lfd, 0);
    sim.fail_alloc = 1; /* the timer heap's */
    turns(1);
    EQUAL(sim.stats.enomem, 1);
    run();
    EQUAL(a.r[0], -ENOMEM);
    EQUAL(a.r[1], -EMFILE);
    EQUAL(ol_close(L, lfd), 0);
    k_end_free(c);
    close_loop();
}

static void io_close_during_the_back_off_ends_the_accept_at_once(void) {
    actor a;
    ol_fd lfd;
    k_end *c;
    int64_t start;
    plain_loop();
    listen_on(8080, &lfd);
    memset(&a, 0, sizeof a);
    step_add(&a, ACCEPT, &lfd, NULL, 0);
    play(&a, lfd, 0);
    sim.fd_limit = K_FIRST_FD + 3;
    c = dial(8080);
    turns(3);
    EQUAL(sim.stats.accept_full, 1);
    start = now();
    EQUAL(ol_close(L, lfd), 0);
    run();
    EQUAL(a.r[0], -ECANCELED);
    CHECK(now() - start < MS);
    k_end_free(c);
    close_loop();
}

static void io_accept_skips_connections_that_were_aborted(void) {
    actor a;
    ol_fd lfd;
    k_end *c;
    plain_loop();
    listen_on(8080, &lfd);
    memset(&a, 0, sizeof a);
    step_add(&a, ACCEPT, &lfd, NULL, 0);
    play(&a, lfd, 0);
    c = dial(8080);
    sim.faults.accept_abort = 1000;
    turns(3);
    EQUAL(sim.stats.accept_aborts, 1);
    CHECK(!a.ended);
    sim.faults.accept_abort = 0;
    k_end_free(c);
    c = dial(8080);
    run();
    CHECK(a.r[0] > 0);
    EQUAL(ol_close(L, (ol_fd)a.r[0]), 0);
    EQUAL(ol_close(L, lfd), 0);
    k_end_free(c);
    close_loop();
}

static void io_accept_closes_what_it_cannot_attach(void) {
    actor a;
    ol_fd lfd;
    k_end *c;
    int open;
    unsigned char buf[4];
    plain_loop();
    listen_on(8080, &lfd);
    open = sim.open;
    memset(&a, 0, sizeof a);
    step_add(&a, ACCEPT, &lfd, NULL, 0);
    play(&a, lfd, 0);
    c = dial(8080);
    sim.fail_ctl = 1;
    run();
    CHECK(a.r[0] == -ENOMEM || a.r[0] == -ENOSPC);
    EQUAL(sim.open, open);
    EQUAL(k_recv(c, buf, 4), 0); /* the client sees the end, not silence */
    EQUAL(ol_close(L, lfd), 0);
    k_end_free(c);
    close_loop();
}

static void io_connect_reports_success_refusal_and_cancel(void) {
    actor a, b, d;
    ol_fd lfd, fd[3];
    k_end *queued;
    plain_loop();
    listen_on(8080, &lfd);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b), memset(&d, 0, sizeof d);
    target = k_address(8080);
    step_add(&a, SOCKET, &fd[0], NULL, 0);
    step_add(&a, SLEEP, NULL, NULL, MS); /* the events of the fresh socket arrive: HUP and OUT */
    step_add(&a, CONNECT, &fd[0], NULL, 0);
    step_add(&a, WRITE, &fd[0], (void *)(uintptr_t)nine, 9);
    play(&a, 0, 0);
    run();
    EQUAL(a.r[0], 0);
    EQUAL(a.r[2], 0);
    CHECK(a.at[2] - a.at[1] >= US); /* what the fresh socket's events said was not taken for success */
    EQUAL(a.r[3], 9);
    queued = sim.file[ol_fd_raw(L, lfd)]->queue[0];
    EQUAL(queued->rx.len, 9);
    target = k_address(9999);
    step_add(&b, SOCKET, &fd[1], NULL, 0);
    step_add(&b, CONNECT, &fd[1], NULL, 0);
    step_add(&d, SOCKET, &fd[2], NULL, 0);
    step_add(&d, CONNECT, &fd[2], NULL, 0);
    play(&b, 0, 0);
    play(&d, 0, 0);
    turns(1);
    ol_cancel(&d.co);
    run();
    EQUAL(b.r[1], -ECONNREFUSED);
    EQUAL(d.r[1], -ECANCELED);
    EQUAL(ol_close(L, fd[0]), 0);
    EQUAL(ol_close(L, fd[1]), 0);
    EQUAL(ol_close(L, fd[2]), 0);
    EQUAL(ol_close(L, lfd), 0);
    close_loop();
}

static void io_files_are_answered_on_the_spot_where_cached_else_by_an_operation(void) {
    static unsigned char buf[200];
    dev_params p = kind_device;
    k_inode *hot, *cold;
    actor a;
    ol_fd f[2];
    struct stat st;
    int i, j;
    open_loop(NULL, "any any 0- async dev wait", &p);
    hot = k_file_add("hot", 1000, 5);
    cold = k_file_add("cold", 150, 6);
    cold->cached = 20;
    cold->name_cached = 0;
    for (i = 0; i < 2; i++) {
        memset(&a, 0, sizeof a);
        step_add(&a, OPEN, NULL, (void *)(uintptr_t)(i ? "cold" : "hot"), 0);
        play(&a, 0, 0);
        run();
        CHECK(a.r[0] > 0);
        f[i] = (ol_fd)a.r[0];
        memset(&a, 0, sizeof a);
        step_add(&a, STAT, &f[i], &st, 0);
        step_add(&a, PREAD, &f[i], buf, 200); /* at offset 1, the step's number */
        play(&a, 0, 0);
        run();
        EQUAL(a.r[0], 0);
        EQUAL(st.st_size, i ? 150 : 1000);
        EQUAL(a.r[1], i ? 149 : 200); /* fewer only at the end of the file */
        for (j = 0; j < a.r[1]; j++) CHECK(buf[j] == k_byte(i ? cold->seed : hot->seed, (uint64_t)j + 1));
        CHECK(i ? a.op.why != OL_WHY_CACHE : a.op.why == OL_WHY_CACHE);
    }
    CHECK(D.taken >= 2 && sim.stats.cold >= 2);
    memset(&a, 0, sizeof a);
    step_add(&a, OPEN, NULL, (void *)(uintptr_t) "nothing", 0);
    step_add(&a, OPEN_BENEATH, NULL, (void *)(uintptr_t) "../hot", 0);
    step_add(&a, OPEN_BENEATH, NULL, (void *)(uintptr_t) "hot", 0);
    play(&a, 0, 0);
    run();
    EQUAL(a.r[0], -ENOENT);
    EQUAL(a.r[1], -EXDEV);
    CHECK(a.r[2] > 0);
    k_close((int)a.r[2]);
    k_close((int)f[0]);
    k_close((int)f[1]);
    close_loop();
}

static void io_files_an_open_that_may_block_goes_through_an_operation(void) {
    actor a;
    k_inode *fifo;
    int i;
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    k_file_add("regular", 10, 1);
    fifo = k_file_add("fifo", 0, 2);
    fifo->fifo = 1;
    memset(&a, 0, sizeof a);
    step_add(&a, OPEN, NULL, (void *)(uintptr_t) "regular", 0);
    step_add(&a, OPEN, NULL, (void *)(uintptr_t) "fifo", 0);
    play(&a, 0, 0);
    run();
    EQUAL(D.taken, 1);
    for (i = 0; i < 2; i++) {
        CHECK(a.r[i] > 0);
        EQUAL(sim.file[a.r[i]]->nonblock, 0); /* what comes out is as it was asked for */
        k_close((int)a.r[i]);
    }
    close_loop();
}

static void io_files_on_older_kernels_go_through_an_operation(void) {
    static unsigned char buf[200];
    actor a;
    ol_fd f;
    int j;
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    sim.faults.no_nowait = sim.faults.no_openat2 = 1;
    sim.faults.short_read = 500; /* a pread that is interrupted goes on */
    k_file_add("f", 500, 9);
    memset(&a, 0, sizeof a);
    step_add(&a, OPEN, NULL, (void *)(uintptr_t) "f", 0);
    step_add(&a, OPEN_BENEATH, NULL, (void *)(uintptr_t) "f", 0);
    play(&a, 0, 0);
    run();
    CHECK(a.r[0] > 0);
    EQUAL(a.r[1], -ENOTSUP); /* refused rather than opened without the guarantee */
    f = (ol_fd)a.r[0];
    memset(&a, 0, sizeof a);
    step_add(&a, PREAD, &f, buf, 200);
    play(&a, 0, 0);
    run();
    EQUAL(a.r[0], 200);
    for (j = 0; j < 200; j++) CHECK(buf[j] == k_byte(9, (uint64_t)j));
    k_close((int)f);
    close_loop();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Traps                                                                                                            */

static jmp_buf trapped;
static char trap_text[300];
static void on_panic(const char *text) {
    snprintf(trap_text, sizeof trap_text, "%s", text);
    longjmp(trapped, 1);
}

static void inner_switch(ol_co *co) {
    looper *l = OL_SELF(co, looper, co);
    sim.progress++;
    OL_BEGIN(co);
    switch (l->rounds) {
    case 0: OL_DO(ol_sleep(co, 1)); break;
    default: break;
    }
    OL_END(co);
}
static void bare_return(ol_co *co) {
    looper *l = OL_SELF(co, looper, co);
    sim.progress++;
    OL_BEGIN(co);
    OL_YIELD();
    if (l->rounds == 0) return;
    OL_END(co);
}
typedef struct nest {
    ol_co co;
    ol_frame sub;
    int late;
} nest;
static void bare_sub(ol_co *co) {
    nest *n = OL_SELF(co, nest, sub);
    OL_BEGIN(co);
    if (n->late) OL_YIELD();
    if (n->late < 2) return;
    OL_END(co);
}
static void call_bare_sub(ol_co *co) {
    nest *n = OL_SELF(co, nest, co);
    int64_t r;
    sim.progress++;
    OL_BEGIN(co);
    OL_CALL(r, &n->sub, bare_sub);
    (void)r;
    OL_END(co);
}
static void break_out(ol_co *co) {
    looper *l = OL_SELF(co, looper, co);
    OL_BEGIN(co);
    if (l->rounds == 0) break;
    OL_END(co);
}

static void on_library_panic(const char *text) { k_fail("library", "%s", text); }

static const char *panics(void (*fn)(ol_co *), ol_co *co) {
    trap_text[0] = 0;
    plain_loop();
    ol_set_panic(on_panic);
    EQUAL(ol_spawn(L, co, fn, 0, 0), 0);
    if (setjmp(trapped) == 0) {
        run();
        ol_set_panic(on_library_panic);
        k_fail("contract", "the mistake was not trapped");
    }
    ol_set_panic(on_library_panic);
    return trap_text;
}

static void traps_catch_an_await_inside_a_switch_of_ones_own(void) {
    static looper l;
    memset(&l, 0, sizeof l);
    CHECK(strstr(panics(inner_switch, &l.co), "switch"));
}
static void traps_catch_a_bare_return(void) {
    static looper l;
    memset(&l, 0, sizeof l);
    CHECK(strstr(panics(bare_return, &l.co), "OL_RETURN"));
}
static void traps_catch_a_bare_return_of_a_sub_coroutine(void) {
    static nest n;
    memset(&n, 0, sizeof n);
    CHECK(strstr(panics(call_bare_sub, &n.co), "OL_RETURN"));
}
static void traps_catch_a_bare_return_of_a_resumed_sub_coroutine(void) {
    static nest n;
    memset(&n, 0, sizeof n);
    n.late = 1;
    CHECK(strstr(panics(call_bare_sub, &n.co), "OL_RETURN"));
}
static void traps_catch_a_break_out_of_the_body(void) {
    static looper l;
    memset(&l, 0, sizeof l);
    CHECK(strstr(panics(break_out, &l.co), "break"));
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Coroutines                                                                                                       */

enum { DEPTH = 12 };
typedef struct deep {
    ol_co co;
    ol_frame frame[DEPTH];
    int level, calls[DEPTH], top_calls;
    int64_t r;
} deep;
static void deep_sub(ol_co *co) {
    deep *d = OL_CONTAINER(co, deep, co);
    int64_t r;
    const int level = (int)(co->top - d->frame);
    d->calls[level]++;
    sim.progress++;
    OL_BEGIN(co);
    if (level + 1 < DEPTH) {
        OL_CALL(r, &d->frame[level + 1], deep_sub);
        OL_RETURN(r + 1);
    }
    OL_YIELD();
    OL_DO(ol_sleep(co, MS));
    OL_YIELD();
    OL_RETURN(100);
    OL_END(co);
}
static void deep_top(ol_co *co) {
    deep *d = OL_SELF(co, deep, co);
    d->top_calls++;
    sim.progress++;
    OL_BEGIN(co);
    OL_CALL(d->r, &d->frame[0], deep_sub);
    OL_CALL(d->r, &d->frame[DEPTH - 1], deep_sub);
    OL_CALL(d->r, &d->frame[0], deep_sub);
    OL_END(co);
}
static void coroutines_a_resume_goes_straight_to_the_innermost_frame(void) {
    deep d;
    int i;
    plain_loop();
    memset(&d, 0, sizeof d);
    EQUAL(ol_spawn(L, &d.co, deep_top, 0, 0), 0);
    run();
    EQUAL(d.r, 100 + DEPTH - 1);
    EQUAL(d.top_calls, 4);                                /* once, and after each of its three calls */
    for (i = 0; i < DEPTH - 1; i++) EQUAL(d.calls[i], 4); /* start and return, twice */
    EQUAL(d.calls[DEPTH - 1], 12);                        /* start and three resumes, three times */
    close_loop();
}

static void freed_end(ol_co *co) {
    actor *a = OL_SELF(co, actor, co);
    OL_BEGIN(co);
    OL_YIELD();
    OL_END_THEN(co, k_free(a));
}
static void coroutines_their_memory_is_not_touched_after_the_end(void) {
    wire w;
    int i;
    plain_loop();
    wire_open(&w, 8, K_STREAMS);
    for (i = 0; i < 3; i++) {
        actor *a = (actor *)k_malloc(sizeof *a);
        EQUAL(ol_spawn(L, &a->co, freed_end, w.fd, 0), 0);
    }
    run();
    wire_close(&w);
    close_loop();
}

#include "contracts_sharing.h"
#include "contracts_handlers.h"
#include "contracts_guests.h"

/* ---------------------------------------------------------------------------------------------------------------- */

#define T(name)                                                                                                        \
    { #name, name }
static const struct test {
    const char *name;
    void (*fn)(void);
} tests[] = {
    T(gate_roots_of_one_fd_run_one_after_another_first_come_first_served),
    T(gate_other_partitions_go_on_while_one_waits),
    T(gate_roots_without_an_fd_have_partitions_of_their_own),
    T(gate_a_callback_operation_holds_its_partition_until_done_returns),
    T(gate_a_done_callback_can_spawn_on_its_own_partition),
    T(gate_the_class_of_a_coroutine_is_its_own_else_the_fds),
    T(gate_a_coroutines_class_can_be_changed),
    T(readiness_an_edge_that_came_while_withheld_is_not_lost),
    T(readiness_an_edge_before_any_root_is_not_lost),
    T(readiness_end_of_stream_comes_after_the_data),
    T(readiness_end_of_stream_after_a_short_read_wakes),
    T(readiness_a_short_read_costs_no_further_call),
    T(readiness_a_short_read_of_a_message_is_not_the_last),
    T(readiness_an_error_comes_after_the_data),
    T(readiness_a_pipes_end_is_seen_by_reader_and_writer),
    T(readiness_wait_readable_and_again_serve_calls_of_your_own),
    T(readiness_a_stale_event_of_a_reused_number_is_dropped),
    T(close_ends_the_wait_at_once_and_later_awaits_get_ebadf),
    T(close_an_await_that_was_woken_but_has_not_run_gets_ecanceled),
    T(close_with_an_operation_in_flight_follows_its_completion),
    T(close_asks_the_partitions_operations_to_stop),
    T(close_of_parked_and_staged_operations_completes_each_once),
    T(close_by_its_own_root_and_roots_that_wait_still_run),
    T(handles_garbage_and_stale_ones_are_refused),
    T(handles_another_partitions_fd_gives_exdev),
    T(handles_attach_refuses_what_it_cannot_poll_and_changes_nothing),
    T(handles_a_number_closed_behind_the_librarys_back_can_be_attached_again),
    T(handles_the_table_grows_and_numbers_are_reused_with_new_generations),
    T(memory_partitions_and_slots_are_given_back),
    T(memory_a_failing_allocation_gives_enomem_and_leaves_nothing),
    T(memory_tables_that_cannot_grow_give_enomem_and_recover),
    T(cancel_ends_each_await_until_it_is_cleared),
    T(cancel_outranks_a_deadline),
    T(cancel_and_deadline_in_one_round_give_the_cancel),
    T(cancel_before_the_start_reaches_the_first_await),
    T(cancel_of_an_operation_in_time_stops_it),
    T(cancel_of_an_operation_too_late_gives_its_true_result),
    T(cancel_outranks_the_timeout_of_an_operation_that_is_being_stopped),
    T(deadline_of_an_operation_stops_it_or_gives_its_true_result),
    T(deadline_an_operations_own_timeout_is_its_alone),
    T(deadline_never_fires_early_and_fires_when_due),
    T(deadline_that_cannot_be_set_leaves_the_old_one),
    T(deadline_can_be_put_off_brought_forward_and_removed),
    T(operations_done_is_never_called_from_submit),
    T(operations_unprepared_or_garbage_ones_are_refused),
    T(operations_one_in_flight_is_refused_with_ebusy),
    T(operations_that_complete_on_the_spot_go_on_within_a_budget),
    T(operations_tell_where_they_ran_and_why),
    T(operations_a_policy_change_concerns_those_submitted_later),
    T(sync_files_the_completions_of_others_and_stops_at_its_own),
    T(sync_is_bounded_and_then_suspends),
    T(sync_on_a_channel_that_shares_the_core_suspends),
    T(full_runs_in_software_where_the_rule_or_the_latency_class_says_so),
    T(full_batch_waits_in_order_and_completions_resume_it),
    T(full_what_a_backend_did_not_take_keeps_its_place),
    T(full_beyond_the_bound_gives_eagain),
    T(full_what_waits_is_resumed_by_a_timer_too),
    T(full_what_waits_can_be_cancelled_and_timed_out),
    T(backend_one_that_fails_or_notifies_nothing_still_completes_everything),
    T(backend_its_errors_arrive_as_the_operations_result),
    T(backend_a_pool_without_threads_runs_in_software),
    T(loop_latency_goes_before_batch_and_batch_is_not_starved),
    T(loop_busy_coroutines_do_not_keep_events_and_timers_waiting),
    T(timers_sleeps_and_deadlines_come_when_the_loops_time_is_theirs),
    T(timers_fire_in_order_not_early_and_can_be_restarted_and_stopped),
    T(timers_one_that_restarts_itself_at_once_lets_others_run),
    T(posts_wake_a_sleeping_loop_with_one_write_and_keep_their_order),
    T(posts_from_inside_the_loop_write_nothing_and_run),
    T(posts_at_any_point_before_the_sleep_are_not_lost),
    T(completions_at_any_point_before_the_sleep_are_not_lost),
    T(loop_run_ends_when_nothing_is_left_and_stop_ends_it_earlier),
    T(loop_stop_by_a_post_ends_run_and_calls_from_inside_get_ebusy),
    T(loop_drain_cancels_all_waits_for_operations_and_destroy_closes_fds),
    T(loop_destroy_waits_for_callback_operations),
    T(loop_a_signal_during_the_sleep_does_no_harm),
    T(loop_a_garbage_desc_is_refused_and_defaults_are_resolved),
    T(loop_two_side_by_side_do_not_touch_each_other),
    T(io_write_sends_everything_through_short_writes),
    T(io_writev_sends_everything_and_advances_the_array_readv_fills_it),
    T(io_a_read_of_nothing_is_refused),
    T(io_accept_gives_attached_connections_of_their_own_partition),
    T(io_accept_backs_off_when_no_fd_is_free),
    T(io_accept_whose_pause_finds_no_memory_leaves_no_waiter_behind),
    T(io_close_during_the_back_off_ends_the_accept_at_once),
    T(io_accept_skips_connections_that_were_aborted),
    T(io_accept_closes_what_it_cannot_attach),
    T(io_connect_reports_success_refusal_and_cancel),
    T(io_files_are_answered_on_the_spot_where_cached_else_by_an_operation),
    T(io_files_an_open_that_may_block_goes_through_an_operation),
    T(io_files_on_older_kernels_go_through_an_operation),
    T(traps_catch_an_await_inside_a_switch_of_ones_own),
    T(traps_catch_a_bare_return),
    T(traps_catch_a_bare_return_of_a_sub_coroutine),
    T(traps_catch_a_bare_return_of_a_resumed_sub_coroutine),
    T(traps_catch_a_break_out_of_the_body),
    T(coroutines_a_resume_goes_straight_to_the_innermost_frame),
    T(coroutines_their_memory_is_not_touched_after_the_end),
    SHARING_TESTS,
    HANDLER_TESTS,
    GUEST_TESTS,
};

static int run_test(const struct test *t, int verbose) {
    volatile int ok = 0;
    k_boot(1);
    sim.tick = 10;
    sim.verbose = verbose;
    deeds = order = done_calls = in_submit = calls_made = done_order = 0;
    memset(story, 0, sizeof story);
    L = NULL;
    if (setjmp(sim.on_fail) == 0) {
        t->fn();
        ok = 1;
    } else {
        printf("FAILED  %s: [%s] %s\n", t->name, sim.checker, sim.text);
    }
    k_halt();
    return ok;
}

int main(int argc, char **argv) {
    int i, j, passed = 0, failed = 0, verbose = 0, words = 0;
    ol_set_panic(on_library_panic);
    for (j = 1; j < argc; j++) {
        if (strcmp(argv[j], "--help") == 0) {
            printf("contracts [-v] [--list] [WORD...]: tests of offload.h's promises on a simulated kernel\n"
                   "  WORD    run only the tests whose name contains it\n  --list  print the names\n"
                   "  -v      print every event of the simulation\n");
            return 0;
        }
        if (strcmp(argv[j], "-v") == 0) verbose = 1;
        else words++;
    }
    for (i = 0; i < (int)(sizeof tests / sizeof tests[0]); i++) {
        int wanted = words == 0;
        for (j = 1; j < argc; j++) {
            if (strcmp(argv[j], "--list") == 0) {
                printf("%s\n", tests[i].name);
                wanted = 0;
                break;
            }
            if (strcmp(argv[j], "-v") != 0 && strstr(tests[i].name, argv[j])) wanted = 1;
        }
        if (!wanted) continue;
        if (run_test(&tests[i], verbose)) passed++;
        else failed++;
    }
    if (words && passed + failed == 0) {
        if (!(argc > 1 && strcmp(argv[1], "--list") == 0)) {
            fprintf(stderr, "contracts: no test has that in its name; contracts --list prints all\n");
            return 2;
        }
        return 0;
    }
    printf("%d passed, %d failed\n", passed, failed);
    fflush(stdout); /* before a leak checker ends the process */
    return failed != 0;
}
