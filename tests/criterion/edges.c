/* Promises at their edges, on the real kernel and with real threads. What can be simulated is in tests/sim.
   cc -O2 -I. tests/criterion/edges.c -o build/tests/edges -lcriterion -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

#include <criterion/criterion.h>
#include <semaphore.h>

TestSuite(edges, .timeout = 60);

static ol_loop *make(const char *policy, ol_backend *pool) {
    ol_loop_desc d;
    ol_loop *loop = NULL;
    memset(&d, 0, sizeof d);
    d.policy = policy;
    d.backends = &pool;
    d.nbackends = pool != NULL;
    cr_assert_eq(ol_loop_create(&loop, &d), 0, "%s", ol_error());
    return loop;
}
static ol_backend *make_pool(uint32_t workers, uint32_t depth) {
    ol_threads_desc d;
    ol_backend *pool = NULL;
    memset(&d, 0, sizeof d);
    d.workers = workers;
    d.depth = depth;
    d.spin_ns = -1;
    cr_assert_eq(ol_threads_create(&pool, &d), 0);
    return pool;
}

typedef struct probe {
    ol_co co;
    ol_fd fd;
    ol_op op;
    ol_frame sub;
    int64_t r[4];
    const char *text;
    int i, n, cls;
    char buf[4096];
} probe;

static int dones;
static int last_class;
static void on_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    last_class = op->flags_ & 3;
    dones++;
}

/* ---- what runs after a root's end belongs to no partition */

static ol_op after_op[8];
static void ends_and_submits(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_END_THEN(co, (void)ol_submit(p->co.loop, ol_prep_crc32(&after_op[p->n], 0, "abc", 3), on_done));
}
static void lives(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    for (p->i = 0; p->i < 5; p->i++) OL_YIELD();
    OL_END(co);
}
Test(edges, an_operation_submitted_after_the_end_holds_no_partition) {
    ol_loop *loop = make("any any 0- async threads wait", NULL);
    static probe p[16];
    for (int i = 0; i < 8; i++) {
        p[i].n = i;
        cr_assert_eq(ol_spawn(loop, &p[i].co, ends_and_submits, 0, 0), 0);
        ol_loop_step(loop, 0);
        cr_assert_eq(ol_spawn(loop, &p[8 + i].co, lives, 0, 0), 0);
    }
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(dones, 8);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- a read that ends early at the fds of a message, on a Unix socket */

static void reads_twice(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    for (p->i = 0; p->i < 6;) {
        OL_AWAIT(p->r[0], ol_read(co, p->fd, p->buf + p->i, sizeof p->buf - (size_t)p->i));
        if (p->r[0] <= 0) break;
        p->i += (int)p->r[0];
    }
    OL_END(co);
}
static void reads_from(ol_co *co) { /* once */
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_read(co, p->fd, p->buf, sizeof p->buf));
    OL_END(co);
}
Test(edges, a_short_read_of_a_unix_socket_does_not_hide_what_follows) {
    ol_loop *loop = make(NULL, NULL);
    static probe p;
    int sv[2];
    union {
        struct cmsghdr h;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {(char[]){"abc"}, 3};
    struct msghdr m;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    memset(&m, 0, sizeof m);
    memset(&control, 0, sizeof control);
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    m.msg_control = &control;
    m.msg_controllen = sizeof control.room;
    control.h.cmsg_level = SOL_SOCKET;
    control.h.cmsg_type = SCM_RIGHTS;
    control.h.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.h), &sv[1], sizeof(int));
    cr_assert_eq(sendmsg(sv[1], &m, 0), 3);
    cr_assert_eq(write(sv[1], "def", 3), 3);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &p.fd), 0);
    cr_assert_eq(ol_spawn(loop, &p.co, reads_twice, p.fd, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0); /* else it waits for ever */
    cr_assert(memcmp(p.buf, "abcdef", 6) == 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(sv[1]);
}

/* ---- calls that wait for each other, and calls that hang */

static sem_t first_may_go;
static int64_t waits_for_the_second(void *arg) {
    (void)arg;
    while (sem_wait(&first_may_go) != 0) {
    }
    return 1;
}
static int64_t lets_the_first_go(void *arg) {
    (void)arg;
    sem_post(&first_may_go);
    return 2;
}
Test(edges, a_call_that_blocks_does_not_hold_up_another_while_a_worker_is_idle) {
    sem_init(&first_may_go, 0, 0);
    for (int round = 0; round < 20; round++) {
        ol_backend *pool = make_pool(4, 64);
        ol_loop *loop = make("any any 0- async threads wait", pool);
        ol_op op[9];
        dones = 0;
        for (int i = 0; i < 9; i++)
            cr_assert_eq(
                ol_submit(loop, ol_prep_call(&op[i], i ? lets_the_first_go : waits_for_the_second, NULL), on_done), 0);
        cr_assert_eq(ol_loop_run(loop), 0);
        cr_assert_eq(dones, 9);
        cr_assert_eq(ol_loop_destroy(loop), 0);
        cr_assert_eq(ol_threads_destroy(pool), 0);
        while (sem_trywait(&first_may_go) == 0) {
        }
    }
}

static sem_t hang;
static int hanging;
static int64_t hangs(void *arg) {
    (void)arg;
    __atomic_fetch_add(&hanging, 1, __ATOMIC_RELEASE);
    while (sem_wait(&hang) != 0) {
    }
    return 0;
}
Test(edges, hung_calls_leave_room_for_other_work) {
    ol_backend *pool = make_pool(2, 4);
    ol_loop *loop = make("any any 0- async threads wait", pool);
    ol_op call[20], crc;
    sem_init(&hang, 0, 0);
    for (int i = 0; i < 20; i++) cr_assert_eq(ol_submit(loop, ol_prep_call(&call[i], hangs, NULL), on_done), 0);
    ol_loop_step(loop, 0);
    cr_assert_eq(ol_submit(loop, ol_prep_crc32(&crc, 0, "abc", 3), on_done), 0);
    while (!dones) ol_loop_step(loop, -1);
    cr_assert_eq(crc.result, 0x352441c2);
    for (int i = 1; i < 20; i++) cr_assert_eq(ol_op_cancel(loop, &call[i]), 0);
    cr_assert_eq(ol_submit(loop, ol_prep_crc32(&crc, 0, "abc", 3), on_done), 0);
    while (crc.state_) ol_loop_step(loop, -1);
    for (int i = 0; i < 20; i++) sem_post(&hang);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(dones, 22);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    cr_assert_eq(ol_threads_destroy(pool), 0);
}

Test(edges, a_call_that_waits_in_a_ring_can_be_cancelled_wherever_it_stands) {
    for (int before = 0; before < 4; before++) { /* so many have gone through it */
        ol_backend *pool = make_pool(2, 4);
        ol_loop *loop = make("any any 0- async threads wait", pool);
        ol_op blocker, op[4];
        sem_init(&hang, 0, 0);
        for (int i = 0; i < before; i++)
            cr_assert_eq(ol_submit(loop, ol_prep_call(&op[i], lets_the_first_go, NULL), on_done), 0);
        cr_assert_eq(ol_loop_run(loop), 0);
        for (int round = 0; round < 4; round++) {
            dones = hanging = 0;
            cr_assert_eq(ol_submit(loop, ol_prep_call(&blocker, hangs, NULL), on_done), 0);
            while (!__atomic_load_n(&hanging, __ATOMIC_ACQUIRE)) ol_loop_step(loop, 0);
            for (int i = 0; i <= round % 3; i++)
                cr_assert_eq(ol_submit(loop, ol_prep_call(&op[i], lets_the_first_go, NULL), on_done), 0);
            cr_assert_geq(ol_loop_step(loop, 0), 0);
            for (int i = 0; i <= round % 3; i++) cr_assert_eq(ol_op_cancel(loop, &op[i]), 0);
            sem_post(&hang);
            cr_assert_eq(ol_loop_run(loop), 0);
            cr_assert_eq(dones, 2 + round % 3);
            for (int i = 0; i <= round % 3; i++) cr_assert_eq(op[i].result, -ECANCELED);
        }
        cr_assert_eq(ol_loop_destroy(loop), 0);
        cr_assert_eq(ol_threads_destroy(pool), 0);
    }
}

/* ---- coroutines that never give up */

static int stubborn_may_end;
static void stubborn(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    while (!stubborn_may_end) {
        OL_AWAIT(p->r[0], ol_sleep(co, 1000));
        p->n++;
    }
    OL_END(co);
}
Test(edges, a_coroutine_that_ignores_its_cancel_does_not_stop_the_loop) {
    ol_loop *loop = make(NULL, NULL);
    static probe p;
    cr_assert_eq(ol_spawn(loop, &p.co, stubborn, 0, 0), 0);
    cr_assert_eq(ol_loop_drain(loop, 10000000), -ETIMEDOUT);
    cr_assert_eq(ol_loop_destroy(loop), -EBUSY);
    stubborn_may_end = 1;
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(p.r[0], -ECANCELED);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

static void tries_again(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    do OL_AWAIT(p->r[0], ol_run(co, ol_prep_crc32(&p->op, 0, "abc", 3)));
    while (p->r[0] == -EAGAIN);
    OL_END(co);
}
Test(edges, one_that_tries_again_while_all_is_full_lets_the_completions_in) {
    ol_backend *pool = make_pool(1, 1);
    ol_loop *loop = make("any any 0- async threads fail", pool);
    static probe p[8];
    for (int i = 0; i < 8; i++) cr_assert_eq(ol_spawn(loop, &p[i].co, tries_again, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    for (int i = 0; i < 8; i++) cr_assert_eq(p[i].r[0], 0x352441c2);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    cr_assert_eq(ol_threads_destroy(pool), 0);
}

static void sleeps_for_ever(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_sleep(co, OL_NEVER));
    OL_END(co);
}
Test(edges, who_sleeps_for_ever_can_be_cancelled_and_drained) {
    ol_loop *loop = make(NULL, NULL);
    static probe p[2];
    for (int i = 0; i < 2; i++) cr_assert_eq(ol_spawn(loop, &p[i].co, sleeps_for_ever, 0, 0), 0);
    ol_loop_step(loop, 0);
    ol_cancel(&p[0].co);
    ol_loop_step(loop, 0);
    cr_assert_eq(p[0].r[0], -ECANCELED);
    cr_assert_eq(ol_loop_drain(loop, (int64_t)60 * 1000000000), 0);
    cr_assert_eq(p[1].r[0], -ECANCELED);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- deadlines */

static void past_deadline(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    (void)ol_deadline(co, -5);
    OL_AWAIT(p->r[0], ol_sleep(co, OL_NEVER));
    p->text = ol_co_error(co);
    (void)ol_deadline(co, 0);
    OL_AWAIT(p->r[1], ol_sleep(co, OL_NEVER));
    (void)ol_deadline(co, OL_NEVER);
    OL_AWAIT(p->r[2], ol_sleep(co, 1));
    OL_END(co);
}
Test(edges, a_deadline_in_the_past_has_passed) {
    ol_loop *loop = make(NULL, NULL);
    static probe p;
    cr_assert_eq(ol_spawn(loop, &p.co, past_deadline, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(p.r[0], -ETIMEDOUT);
    cr_assert_not_null(strstr(p.text, "ol_deadline"));
    cr_assert_eq(p.r[1], -ETIMEDOUT);
    cr_assert_eq(p.r[2], 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- files that are none */

static char dir[64];
static void opens_fifo(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_open(co, &p->op, AT_FDCWD, dir, O_RDONLY, 0, 0));
    OL_END(co);
}
static void opens_other_end(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_sleep(co, 1000000)); /* only if the loop goes on */
    p->i = open(dir, O_WRONLY | O_NONBLOCK);
    while (p->i < 0) {
        OL_AWAIT(p->r[0], ol_sleep(co, 1000000));
        p->i = open(dir, O_WRONLY | O_NONBLOCK);
    }
    OL_END(co);
}
Test(edges, opening_a_fifo_does_not_block_the_loop) {
    ol_loop *loop = make(NULL, NULL);
    static probe p[2];
    strcpy(dir, "/tmp/offload-fifo-XXXXXX");
    close(mkstemp(dir));
    unlink(dir);
    cr_assert_eq(mkfifo(dir, 0600), 0);
    struct stat st;
    cr_assert_eq(stat(dir, &st), 0); /* the name is in the cache */
    cr_assert_eq(ol_spawn(loop, &p[0].co, opens_fifo, 0, 0), 0);
    cr_assert_eq(ol_spawn(loop, &p[1].co, opens_other_end, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_geq(p[0].r[0], 0);
    cr_assert_eq(fcntl((int)p[0].r[0], F_GETFL) & O_NONBLOCK, 0); /* as asked */
    cr_assert_eq(p[0].op.why, OL_WHY_RULE);
    close((int)p[0].r[0]);
    close(p[1].i);
    unlink(dir);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- which policy and class a program gets that says nothing */

static int64_t nothing(void *arg) {
    (void)arg;
    return 5;
}
static void calls_once(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_run(co, ol_prep_call(&p->op, nothing, NULL)));
    OL_END(co);
}
Test(edges, a_pool_of_ones_own_gets_the_pool_policy) {
    ol_backend *pool = make_pool(1, 8);
    ol_loop_desc d;
    ol_loop *loop = NULL;
    static probe p;
    memset(&d, 0, sizeof d);
    d.backends = &pool;
    d.nbackends = 1;
    d.no_pool = 1;
    cr_assert_eq(ol_loop_create(&loop, &d), 0);
    cr_assert_str_eq(ol_loop_desc_of(loop)->policy, "pool");
    cr_assert_eq(ol_spawn(loop, &p.co, calls_once, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_str_eq(ol_op_where(loop, &p.op), "threads");
    cr_assert_eq(ol_loop_destroy(loop), 0);
    cr_assert_eq(ol_threads_destroy(pool), 0);
}

static int open_none(void *self, ol_notify *notify, ol_channel *out) {
    (void)self, (void)notify;
    memset(out, 0, sizeof *out);
    return 0;
}
static int submit_none(void *channel, ol_op *const *ops, int n) {
    (void)channel, (void)ops, (void)n;
    return 0;
}
static int poll_none(void *channel, ol_op **ops, int max) {
    (void)channel, (void)ops, (void)max;
    return 0;
}
static int look_none(void *channel) {
    (void)channel;
    return 0;
}
static void close_none(void *channel) { (void)channel; }
Test(edges, seven_backends_fit_beside_the_shared_pool_and_eight_are_refused) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    ol_backend b[8], *list[8];
    ol_loop_desc d;
    ol_loop *loop = NULL;
    memset(b, 0, sizeof b);
    memset(&d, 0, sizeof d);
    for (int i = 0; i < 8; i++) {
        b[i].version = OL_BACKEND_VERSION;
        b[i].name = names[i];
        b[i].open = open_none;
        b[i].submit = submit_none;
        b[i].poll = poll_none;
        b[i].look = look_none;
        b[i].close = close_none;
        list[i] = &b[i];
    }
    d.backends = list;
    d.nbackends = 7;
    cr_assert_eq(ol_loop_create(&loop, &d), 0, "%s", ol_error());
    cr_assert_eq(ol_loop_destroy(loop), 0);
    d.nbackends = 8;
    cr_assert_eq(ol_loop_create(&loop, &d), -EINVAL);
    d.nbackends = 2;
    b[1].name = "a";
    cr_assert_eq(ol_loop_create(&loop, &d), -EINVAL); /* a name twice */
    cr_assert_eq(ol_threads_destroy(&b[0]), -EINVAL); /* not a pool */
}

static void submits(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    ol_prep_crc32(&p->op, 0, "abc", 3)->cls = (uint8_t)p->cls;
    p->r[0] = ol_submit(co->loop, &p->op, on_done);
    OL_END(co);
}
Test(edges, the_class_is_the_operations_else_the_coroutines_else_batch) {
    ol_loop *loop = make("any any 0- async threads wait", NULL);
    static probe p;
    static const int op[] = {0, OL_LATENCY, OL_BATCH, 0}, co[] = {OL_LATENCY, OL_BATCH, OL_LATENCY, 0},
                     want[] = {OL_LATENCY, OL_LATENCY, OL_BATCH, OL_BATCH};
    for (int i = 0; i < 4; i++) {
        p.cls = op[i];
        cr_assert_eq(ol_spawn(loop, &p.co, submits, 0, co[i]), 0);
        cr_assert_eq(ol_loop_run(loop), 0);
        cr_assert_eq(last_class, want[i], "case %d", i);
    }
    ol_op o; /* outside of coroutines */
    cr_assert_eq(ol_submit(loop, ol_prep_crc32(&o, 0, "abc", 3), on_done), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(last_class, OL_BATCH);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- an fd number that was closed behind the loop and given out again */

Test(edges, a_number_closed_behind_the_loop_can_be_attached_again) {
    ol_loop *loop = make(NULL, NULL);
    static probe p;
    int a[2], b[2];
    ol_fd again = 0;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
    cr_assert_eq(ol_attach(loop, a[0], 0, &p.fd), 0);
    cr_assert_eq(ol_spawn(loop, &p.co, reads_twice, p.fd, 0), 0);
    ol_loop_step(loop, 0);
    close(a[0]); /* the user's mistake */
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
    cr_assert_eq(b[0], a[0], "the kernel reuses numbers at once");
    cr_assert_eq(ol_attach(loop, b[0], 0, &again), 0, "%s", ol_error());
    cr_assert_neq(again, p.fd);
    cr_assert_eq(ol_loop_run(loop), 0); /* the old waiter is told */
    cr_assert_eq(p.r[0], -ECANCELED);
    cr_assert_eq(ol_fd_raw(loop, p.fd), -EBADF);
    cr_assert_eq(ol_fd_raw(loop, again), b[0]);
    ol_loop_stats s;
    s.size = sizeof s;
    ol_loop_get_stats(loop, &s);
    cr_assert_eq(s.fds, 1u);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(a[1]);
    close(b[1]);
}

/* ---- loops end, timers live on */

static int fired;
static void fire(ol_loop *loop, ol_timer *timer) {
    (void)loop, (void)timer;
    fired++;
}
Test(edges, a_timer_of_a_destroyed_loop_can_be_started_on_another) {
    ol_timer t[3];
    memset(t, 0, sizeof t);
    ol_loop *loop = make(NULL, NULL);
    for (int i = 0; i < 3; i++) cr_assert_eq(ol_timer_start(loop, &t[i], (int64_t)3600 * 1000000000, fire), 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    loop = make(NULL, NULL);
    for (int i = 0; i < 3; i++) cr_assert_eq(ol_timer_start(loop, &t[i], 1, fire), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(fired, 3);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

static void ends_with_an_error(ol_co *co) {
    OL_BEGIN(co);
    OL_RETURN(-EBADMSG);
    OL_END(co);
}
static void asks_for_the_error(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_read(co, 12345, p->buf, 1));
    OL_CALL(p->r[1], &p->sub, ends_with_an_error);
    p->text = ol_co_error(co);
    OL_END(co);
}
Test(edges, the_text_belongs_to_the_last_result) {
    ol_loop *loop = make(NULL, NULL);
    static probe p;
    cr_assert_eq(ol_spawn(loop, &p.co, asks_for_the_error, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(p.r[0], -EBADF);
    cr_assert_eq(p.r[1], -EBADMSG);
    cr_assert_not_null(strstr(p.text, "itself"), "%s", p.text);
    cr_assert_eq(ol_loop_run(NULL), -EINVAL);
    cr_assert_not_null(strstr(ol_error(), "NULL"));
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

static int64_t inside[3];
static void from_inside(ol_loop *loop, ol_timer *t) {
    (void)t;
    inside[0] = ol_loop_step(loop, 0);
    inside[1] = ol_loop_run(loop);
    inside[2] = ol_loop_destroy(loop);
}
Test(edges, a_loop_cannot_be_run_or_destroyed_from_inside) {
    ol_loop *loop = make(NULL, NULL);
    ol_timer t;
    memset(&t, 0, sizeof t);
    cr_assert_eq(ol_timer_start(loop, &t, 1, from_inside), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    for (int i = 0; i < 3; i++) cr_assert_eq(inside[i], -EBUSY);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- ends of loops: what callbacks still do then */

static ol_fd ends_fd;
static ol_handler ends_handler;
static int ends_ready;
static ol_timer ends_timer;
static ol_post_node ends_node;
static void ends_when_ready(ol_loop *loop, ol_handler *h, int ready) { (void)loop, (void)h, (void)ready, ends_ready++; }
static void watches(ol_loop *loop, ol_post_node *node) {
    (void)node;
    cr_assert_eq(ol_watch(loop, ends_fd, &ends_handler, OL_WRITABLE, ends_when_ready), 0);
    ends_timer.fd = ends_fd;
    cr_assert_eq(ol_timer_start(loop, &ends_timer, 0, fire), 0); /* due at once, behind the handler */
}
Test(edges, a_handler_that_is_set_while_the_loop_is_destroyed_is_not_called_afterwards) {
    ol_loop *loop = make(NULL, NULL);
    static ol_post_node node;
    int sv[2];
    node.fn = watches;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &ends_fd), 0);
    cr_assert_eq(ol_post(loop, &node), 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    const int calls = ends_ready;
    loop = make(NULL, NULL); /* both can be used with another loop */
    cr_assert_eq(ol_attach(loop, sv[1], 0, &ends_fd), 0);
    ends_timer.fd = 0;
    const int before = fired;
    cr_assert_eq(ol_timer_start(loop, &ends_timer, 0, fire), 0);
    cr_assert_eq(ol_watch(loop, ends_fd, &ends_handler, OL_READABLE, ends_when_ready), 0);
    while (ends_ready == calls) cr_assert_eq(ol_loop_step(loop, -1), 1); /* its peer is closed */
    cr_assert_eq(fired, before + 1);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

static void never_called(ol_loop *loop, ol_post_node *node) {
    (void)loop, (void)node;
    cr_assert(0, "a post was called after the last operation");
}
static void called(ol_loop *loop, ol_post_node *node) { (void)loop, (void)node, fired++; }
static void posts(ol_loop *loop, ol_timer *timer) {
    (void)timer;
    ends_node.fn = never_called;
    cr_assert_eq(ol_post(loop, &ends_node), 0);
}
Test(edges, a_post_that_comes_too_late_is_dropped_and_can_be_posted_elsewhere) {
    ol_loop *loop = make(NULL, NULL);
    ol_timer t;
    memset(&t, 0, sizeof t);
    cr_assert_eq(ol_timer_start(loop, &t, 0, posts), 0); /* timers come after posts */
    cr_assert_eq(ol_loop_destroy(loop), 0);
    cr_assert_null(ends_node.next);
    loop = make(NULL, NULL);
    ends_node.fn = called;
    cr_assert_eq(ol_post(loop, &ends_node), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(fired, 1);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

static probe born_late;
static void clings(ol_co *co) { /* it is born cancelled */
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    p->n = ol_canceled(co);
    ol_cancel_clear(co);
    OL_AWAIT(p->r[0], ol_sleep(co, OL_NEVER));
    OL_END(co);
}
static void spawns(ol_loop *loop, ol_post_node *node) {
    (void)node;
    cr_assert_eq(ol_spawn(loop, &born_late.co, clings, 0, 0), 0);
}
Test(edges, a_loop_in_which_a_post_starts_a_coroutine_is_not_destroyed) {
    ol_loop *loop = make(NULL, NULL);
    static ol_post_node node;
    node.fn = spawns;
    cr_assert_eq(ol_post(loop, &node), 0);
    cr_assert_eq(ol_loop_destroy(loop), -EBUSY);
    cr_assert_not_null(strstr(ol_error(), "ol_loop_drain"));
    cr_assert_eq(ol_loop_drain(loop, (int64_t)60 * 1000000000), 0);
    cr_assert(born_late.n == 1 && born_late.r[0] == -ECANCELED);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- a drain: what is started in it */

static probe heir;
static int heir_was_canceled;
static void inherits(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    heir_was_canceled = ol_canceled(co);
    OL_AWAIT(p->r[0], ol_sleep(co, OL_NEVER));
    OL_END(co);
}
static void leaves_an_heir(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_sleep(co, OL_NEVER));
    cr_assert_eq(ol_spawn(co->loop, &heir.co, inherits, 0, 0), 0);
    p->r[1] = ol_submit(co->loop, ol_prep_crc32(&p->op, 0, "abc", 3), on_done); /* a coroutine's clean-up may */
    OL_END(co);
}
static ol_op refused;
static int64_t refused_with;
static const char *refused_text;
static void submits_more(ol_loop *loop, ol_op *op) {
    (void)op;
    refused_with = ol_submit(loop, ol_prep_crc32(&refused, 0, "abc", 3), on_done);
    refused_text = ol_error();
}
Test(edges, in_a_drain_coroutines_are_born_cancelled_and_callbacks_submit_nothing) {
    ol_loop *loop = make("any any 0- async threads wait", NULL);
    static probe p;
    static ol_op op;
    cr_assert_eq(ol_spawn(loop, &p.co, leaves_an_heir, 0, 0), 0);
    ol_loop_step(loop, 0);
    cr_assert_eq(ol_submit(loop, ol_prep_crc32(&op, 0, "abc", 3), submits_more), 0);
    cr_assert_eq(ol_loop_drain(loop, (int64_t)60 * 1000000000), 0);
    cr_assert(heir_was_canceled && heir.r[0] == -ECANCELED);
    cr_assert_eq(p.r[1], 0);
    cr_assert_eq(dones, 1);
    cr_assert_eq(refused_with, -ECANCELED);
    cr_assert_not_null(strstr(refused_text, "start no more"));
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- numbers and generations of fds */

Test(edges, the_last_generation_is_followed_by_the_first) {
    ol_loop *loop = make(NULL, NULL);
    int sv[2];
    ol_fd h = 0, again = 0;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &h), 0);
    loop->slot[sv[0]].gen = 0x7fffffff; /* after two thousand million others */
    h = ol__handle(0x7fffffff, sv[0]);
    cr_assert(h > 0 && (int64_t)h > 0, "an ol_fd is an await's result");
    cr_assert_eq(ol_fd_raw(loop, h), sv[0]);
    cr_assert_eq(ol_close(loop, h), 0);
    cr_assert_eq(dup2(sv[1], sv[0]), sv[0]);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &again), 0);
    cr_assert(again != 0 && again != h && (int64_t)again > 0);
    cr_assert_eq(ol_fd_raw(loop, h), -EBADF);
    cr_assert_eq(ol_fd_raw(loop, again), sv[0]);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(sv[1]);
}

static void makes_a_socket(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    p->r[0] = ol_socket(co, AF_UNIX, SOCK_STREAM, 0, &p->fd);
    OL_END(co);
}
Test(edges, a_socket_with_the_number_of_one_closed_behind_the_loop) {
    ol_loop *loop = make(NULL, NULL);
    static probe lost, p;
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &lost.fd), 0);
    cr_assert_eq(ol_spawn(loop, &lost.co, reads_twice, lost.fd, 0), 0);
    ol_loop_step(loop, 0);
    close(sv[0]); /* the user's mistake */
    cr_assert_eq(ol_spawn(loop, &p.co, makes_a_socket, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(p.r[0], 0, "%s", ol_error());
    cr_assert_eq(ol_fd_raw(loop, p.fd), sv[0], "the kernel reuses numbers at once");
    cr_assert_eq(lost.r[0], -ECANCELED);
    cr_assert_eq(ol_fd_raw(loop, lost.fd), -EBADF);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(sv[1]);
}

static void hangs_on_its_fd(ol_loop *loop, ol_handler *h, int ready) {
    static ol_op op;
    (void)ready;
    cr_assert_eq(ol_submit(loop, ol_prep_call(&op, hangs, NULL), on_done), 0);
    cr_assert_eq(ol_close(loop, h->fd), 0);
}
Test(edges, an_fd_whose_close_waits_for_an_operation_cannot_be_attached_again) {
    ol_backend *pool = make_pool(1, 4);
    ol_loop *loop = make("any any 0- async threads wait", pool);
    static ol_handler handler;
    int sv[2];
    ol_fd h = 0, again = 77;
    sem_init(&hang, 0, 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &h), 0);
    cr_assert_eq(ol_watch(loop, h, &handler, OL_WRITABLE, hangs_on_its_fd), 0);
    while (ol_fd_raw(loop, h) >= 0) cr_assert_eq(ol_loop_step(loop, -1), 1);
    cr_assert_geq(fcntl(sv[0], F_GETFD), 0, "it is still open");
    cr_assert_eq(ol_attach(loop, sv[0], 0, &again), -EEXIST);
    cr_assert_not_null(strstr(ol_error(), "ol_close has not finished"));
    cr_assert_eq(again, 77u);
    sem_post(&hang);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_lt(fcntl(sv[0], F_GETFD), 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    cr_assert_eq(ol_threads_destroy(pool), 0);
    close(sv[1]);
}

/* ---- urgent data: a read ends at its mark, though more is there */

Test(edges, a_read_that_ends_at_the_urgent_mark_does_not_hide_what_follows) {
    ol_loop *loop = make(NULL, NULL);
    static probe p;
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int l = socket(AF_INET, SOCK_STREAM, 0), far = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(bind(l, (struct sockaddr *)&a, sizeof a) == 0 && listen(l, 1) == 0);
    cr_assert_eq(getsockname(l, (struct sockaddr *)&a, &len), 0);
    cr_assert_eq(connect(far, (struct sockaddr *)&a, sizeof a), 0);
    const int near = accept(l, NULL, NULL);
    cr_assert_eq(send(far, "abc", 3, 0), 3);
    cr_assert_eq(send(far, "!", 1, MSG_OOB), 1);
    cr_assert_eq(send(far, "def", 3, 0), 3);
    cr_assert_eq(ol_attach(loop, near, 0, &p.fd), 0);
    cr_assert_eq(ol_spawn(loop, &p.co, reads_twice, p.fd, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0); /* else it waits for ever */
    cr_assert(memcmp(p.buf, "abcdef", 6) == 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(far);
    close(l);
}

/* ---- an await whose expression has become another one since */

static int turned;
static void turns(ol_co *co) { /* waits to read, then, woken, for something else: nobody is left in the fd's slot */
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], turned ? ol_sleep(co, 0) : ol_read(co, p->fd, p->buf, 1));
    OL_AWAIT(p->r[1], ol_read(co, p->fd, p->buf, 1));
    OL_END(co);
}
static void turns_and_ends(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], turned ? 0 : ol_read(co, p->fd, p->buf, 1));
    OL_END_THEN(co, memset(p, 0xa5, sizeof *p));
}
static ol_loop *with_a_reader(probe *p, void (*fn)(ol_co *), int *far) {
    ol_loop *loop = make(NULL, NULL);
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    *far = sv[1];
    cr_assert_eq(ol_attach(loop, sv[0], 0, &p->fd), 0);
    cr_assert_eq(ol_spawn(loop, &p->co, fn, p->fd, 0), 0);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert_eq(write(*far, "xy", 2), 2);
    turned = 1;
    return loop;
}
Test(edges, an_await_that_turns_into_another_one_leaves_the_fd) {
    static probe p;
    int far;
    ol_loop *loop = with_a_reader(&p, turns, &far);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(p.r[0], 0);
    cr_assert_eq(p.r[1], 1, "%d", (int)p.r[1]); /* it is not in its own way */
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(far);
}
static struct {
    ol_child co;
    ol_fd fd;
    int64_t n;
    char c;
} sibling;
static void reads_later(ol_co *co) {
    OL_BEGIN(co);
    while (turned < 2) OL_YIELD();
    OL_AWAIT(sibling.n, ol_read(co, sibling.fd, &sibling.c, 1));
    OL_END(co);
}
static void turns_to_its_child(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    sibling.fd = p->fd;
    cr_assert_eq(ol_fork(co, &sibling.co, reads_later), 0);
    OL_AWAIT(p->r[0], turned ? (turned = 2, ol_wait(co, &sibling.co)) : ol_read(co, p->fd, p->buf, 1));
    OL_END(co);
}
Test(edges, an_await_that_turns_into_another_one_makes_room_for_who_reads) {
    static probe p;
    int far;
    ol_loop *loop = with_a_reader(&p, turns_to_its_child, &far);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(sibling.n, 1, "%d", (int)sibling.n);
    cr_assert_eq(sibling.c, 'x');
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(far);
}
Test(edges, a_coroutine_whose_await_turned_into_nothing_may_be_freed) {
    static probe p, next;
    int far;
    ol_loop *loop = with_a_reader(&p, turns_and_ends, &far);
    next.fd = p.fd;
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(p.i, (int)0xa5a5a5a5);
    cr_assert_eq(ol_spawn(loop, &next.co, reads_from, next.fd, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(next.r[0], 2);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(far);
}

static void sleeps_an_hour(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_sleep(co, (int64_t)3600 * 1000000000));
    OL_END(co);
}
Test(edges, a_sleep_whose_cancel_was_taken_back_ends_when_it_would_have) {
    ol_loop *loop = make(NULL, NULL);
    static probe p;
    p.r[0] = 1234;
    cr_assert_eq(ol_spawn(loop, &p.co, sleeps_an_hour, 0, 0), 0);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    const int64_t end = ol__co_wake(&p.co);
    for (int i = 0; i < 3; i++) {
        ol_cancel(&p.co);
        ol_cancel_clear(&p.co); /* before it has run */
        cr_assert_eq(ol_loop_step(loop, 0), 1);
        cr_assert_eq(p.r[0], 1234);
        cr_assert_eq(ol__co_wake(&p.co), end);
    }
    ol_cancel(&p.co);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(p.r[0], -ECANCELED);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- guests of another loop */

static int from_inside_fd;
static void asks_for_the_fd(ol_loop *loop, ol_timer *timer) {
    (void)timer;
    from_inside_fd = ol_loop_fd(loop);
}
static int readable(int fd) {
    struct epoll_event e;
    const int ep = epoll_create1(EPOLL_CLOEXEC);
    memset(&e, 0, sizeof e);
    e.events = EPOLLIN;
    cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e), 0);
    const int n = epoll_wait(ep, &e, 1, 0);
    close(ep);
    return n;
}
Test(edges, the_loops_fd_may_be_asked_for_from_inside) {
    ol_loop *loop = make(NULL, NULL);
    static ol_timer t, hour;
    static ol_post_node node;
    node.fn = called;
    cr_assert_eq(ol_timer_start(loop, &hour, (int64_t)3600 * 1000000000, fire), 0);
    cr_assert_eq(ol_timer_start(loop, &t, 0, asks_for_the_fd), 0);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert_geq(from_inside_fd, 0);
    cr_assert_eq(ol_loop_fd(loop), from_inside_fd);
    cr_assert_eq(ol_loop_step(loop, 0), 1); /* this one has ended armed, as the first */
    cr_assert_eq(readable(from_inside_fd), 0);
    cr_assert_eq(ol_post(loop, &node), 0);
    cr_assert_eq(readable(from_inside_fd), 1);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert_eq(fired, 1);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
Test(edges, an_eventfd_that_is_full_wakes_the_loop_all_the_same) {
    ol_loop *loop = make(NULL, NULL);
    static ol_post_node node;
    node.fn = called;
    const int fd = ol_loop_fd(loop);
    const uint64_t most = UINT64_MAX - 1;
    cr_assert_eq(write(loop->notify.eventfd, &most, sizeof most), (ssize_t)sizeof most);
    errno = 1234;
    cr_assert_eq(ol_post(loop, &node), 0); /* its write says EAGAIN: the fd is readable already */
    cr_assert_eq(errno, 1234);
    cr_assert_eq(readable(fd), 1);
    cr_assert_eq(ol_loop_step(loop, 0), 0);
    cr_assert_eq(fired, 1);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- what your own calls have found out */

static int readies;
static void says_eagain(ol_loop *loop, ol_handler *h, int ready) {
    char buf[8];
    cr_assert_eq(ready, OL_READABLE | OL_WRITABLE);
    readies++;
    if (readies < 3) return; /* level-triggered: it is called again */
    cr_assert_eq(recv(ol_fd_raw(loop, h->fd), buf, sizeof buf, MSG_DONTWAIT), 1);
    cr_assert_eq(ol_again(loop, h->fd, 0), 0);
    cr_assert_eq(ol_again(loop, h->fd, 1), 0);
}
Test(edges, after_ol_again_a_handler_is_called_for_the_next_event) {
    ol_loop *loop = make(NULL, NULL);
    static ol_handler h;
    int sv[2];
    ol_fd fd;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &fd), 0);
    cr_assert_eq(write(sv[1], "x", 1), 1);
    cr_assert_eq(ol_watch(loop, fd, &h, OL_READABLE | OL_WRITABLE, says_eagain), 0);
    while (readies < 3) cr_assert_eq(ol_loop_step(loop, -1), 1);
    for (int i = 0; i < 3; i++) cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert_eq(readies, 3, "it is neither readable nor writable");
    cr_assert_eq(ol_try_write(loop, fd, "y", 1), -EAGAIN, "so it was told");
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(sv[1]);
}

/* ---- tables */

Test(edges, a_table_that_cannot_be_addressed_stays_as_it_is) {
    uint32_t capacity = 1u << 31;
    int here;
    cr_assert_eq(ol__grow(&here, &capacity, 1u << 31, 1), &here);
    cr_assert_null(ol__grow(&here, &capacity, (1u << 31) + 1, 1));
    cr_assert_eq(capacity, 1u << 31);
    cr_assert_str_eq(ol_error(), "out of memory");
    capacity = 0;
    void *table = ol__grow(NULL, &capacity, 100, 3); /* in steps of two, from 64 on */
    cr_assert_not_null(table);
    cr_assert_eq(capacity, 128u);
    for (int i = 0; i < 300; i++) cr_assert_eq(((char *)table)[i], 0);
    free(table);
}
