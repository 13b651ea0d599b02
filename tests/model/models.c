/* models.c: short programs on offload.h whose threads meet in every way that they can; engine.cc runs each of them in
   many schedules.

   cc -std=c11 -O1 -g -fsanitize=thread -I. -c tests/model/models.c -o build/model/models.o   (see tests/model/run.sh)

   A model asserts what the library promises: each operation and each post arrives once, with all that was written
   before. Two things need no assertion: an access without an order is a data race, and a wake-up that gets lost is a
   deadlock, because every wait here is without limit. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "seam.h"
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

#define EXPECT(condition) ((condition) ? (void)0 : model_fail("not so: " #condition))
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* ---- what the models share: jobs, pools, loops ------------------------------------------------------------------ */

/* An operation with data of its own. It lies in the engine's memory, so that each access to it is checked. */
struct job {
    ol_op op;
    uint64_t in, out;
    unsigned char bytes[16];
    int *done;    /* counts those of its submitter that are done */
    int canceled; /* ol_op_cancel was called */
};

static struct job *job[4];
static ol_backend *pool;
static int done[2];
static uint32_t left; /* threads that have finished with the pool; the last one destroys it */

static void broken(const char *text) { model_fail(text); }

static void jobs_begin(void) {
    for (int i = 0; i < COUNT(job); i++) {
        job[i] = (struct job *)model_malloc(sizeof *job[i]);
        memset(job[i], 0, sizeof *job[i]);
    }
    memset(done, 0, sizeof done);
    ol_set_panic(broken);
}
static void jobs_end(void) {
    for (int i = 0; i < COUNT(job); i++) model_free(job[i]);
}

static int64_t work(void *arg) {
    struct job *j = (struct job *)arg;
    EXPECT(j->out == 0);
    j->out = j->in + 1;
    return (int64_t)j->in;
}

static void on_done(ol_loop *loop, ol_op *op) {
    struct job *j = OL_CONTAINER(op, struct job, op);
    (void)loop;
    if (j->canceled && op->result == -ECANCELED) EXPECT(j->out == 0);
    else if (op->kind == OL_OP_CALL) EXPECT(op->result == (int64_t)j->in && j->out == j->in + 1);
    else EXPECT(op->result == (int64_t)ol__crc32(0, j->bytes, sizeof j->bytes));
    j->in = 0; /* the submitter's again */
    ++*j->done;
}

static void submit(ol_loop *loop, int kind, int i, int *counter) { /* the second one is latency-critical */
    struct job *j = job[i];
    j->in = 100 + (uint64_t)i;
    j->out = 0;
    j->done = counter;
    j->canceled = 0;
    memset(j->bytes, 'a' + i, sizeof j->bytes);
    if (kind == OL_OP_CALL) ol_prep_call(&j->op, work, j);
    else ol_prep_crc32(&j->op, 0, j->bytes, sizeof j->bytes);
    j->op.cls = i == 1 ? OL_LATENCY : OL_BATCH;
    EXPECT(ol_submit(loop, &j->op, on_done) == 0);
}

static void pool_create(uint32_t workers, int64_t spin_ns) {
    ol_threads_desc d;
    memset(&d, 0, sizeof d);
    d.workers = workers;
    d.depth = 2;
    d.spin_ns = spin_ns;
    d.sched = 2;
    EXPECT(ol_threads_create(&pool, &d) == 0);
    left = 0;
}

/* Operations of both classes and kinds go to the pool, and wait for room there. */
static ol_loop *loop_create(int with_pool, int64_t spin_ns) {
    ol_loop_desc d;
    ol_loop *loop = NULL;
    memset(&d, 0, sizeof d);
    d.backends = &pool;
    d.nbackends = with_pool ? 1 : 0;
    d.no_pool = 1;
    d.events = 4;
    d.spin_ns = spin_ns;
    d.policy = with_pool ? "any any 0- async threads wait" : "";
    EXPECT(ol_loop_create(&loop, &d) == 0);
    return loop;
}

static void run_until(ol_loop *loop, const int *counter, int n) {
    while (*counter < n) EXPECT(ol_loop_step(loop, -1) >= 0);
    EXPECT(*counter == n);
}

/* The last of the threads that use the pool destroys it. */
static void pool_leave(uint32_t threads) {
    if (OL_SYS_ADD(&left, 1u, OL_SYS_ACQ_REL) + 1 == threads) EXPECT(ol_threads_destroy(pool) == 0);
}

/* ---- ring: one producer that cancels, two consumers ------------------------------------------------------------- */

static ol__ring *ring;
static int put, settled, taken[3], canceled[3];

static void ring_begin(void) {
    jobs_begin();
    ring = (ol__ring *)model_malloc(sizeof *ring);
    memset(ring, 0, sizeof *ring);
    ring->mask = 1;
    ring->slot = (ol_op **)model_malloc(2 * sizeof *ring->slot);
    memset(ring->slot, 0, 2 * sizeof *ring->slot);
    put = settled = 0;
    memset(taken, 0, sizeof taken);
    memset(canceled, 0, sizeof canceled);
}

static void ring_produce(void) {
    for (int i = 0; i < 3; i++) {
        job[i]->in = (uint64_t)i + 1;
        while (!ol__ring_put(ring, &job[i]->op)) model_yield();
        put++;
    }
    for (int i = 1; i < 3; i++) {
        if (!ol__ring_cancel(ring, &job[i]->op)) continue;
        canceled[i]++;
        job[i]->out = 99; /* nobody else may have touched it */
    }
}

static void ring_consume(void) {
    while (settled < 3) {
        uint64_t first = 0;
        const uint64_t n = ol__ring_claim(ring, 2, 2, &first);
        EXPECT(n <= 2 && first + n <= (uint64_t)put + 1);
        for (uint64_t i = 0; i < n; i++) {
            ol_op *op = ol__ring_take(ring, first + i);
            settled++;
            if (!op) continue;
            struct job *j = OL_CONTAINER(op, struct job, op);
            EXPECT(j->out == 0);
            j->out = j->in;
            taken[first + i]++;
        }
        if (!n) model_yield();
    }
}

static void ring_thread(int i) {
    if (i == 0) ring_produce();
    else ring_consume();
}

static void ring_end(void) {
    for (int i = 0; i < 3; i++) {
        EXPECT(taken[i] + canceled[i] == 1);
        EXPECT(job[i]->out == (canceled[i] ? 99 : (uint64_t)i + 1));
    }
    EXPECT(ol__ring_size(ring) == 0);
    model_free(ring->slot);
    model_free(ring);
    jobs_end();
}

/* ---- semaphore: sleepers, and who brings them work --------------------------------------------------------------- */

static ol__semaphore *sem;
static uint32_t *item[2];

static void semaphore_begin(void) {
    sem = (ol__semaphore *)model_malloc(sizeof *sem);
    memset(sem, 0, sizeof *sem);
    for (int i = 0; i < 2; i++) {
        item[i] = (uint32_t *)model_malloc(sizeof *item[i]);
        *item[i] = 0;
    }
}
static void semaphore_end(void) {
    EXPECT(OL_SYS_LOAD(&sem->waiters, OL_SYS_RELAXED) == 0 && OL_SYS_LOAD(&sem->permits, OL_SYS_RELAXED) == 0);
    model_free(sem);
    for (int i = 0; i < 2; i++) model_free(item[i]);
}

/* As ol__worker_sleep does it: announces, looks once more, and sleeps. */
static void doze(int work) {
    if (work) ol__semaphore_leave(sem);
    else ol__semaphore_wait(sem);
}

/* Two sleepers, two that bring an item. Each takes one and is never seen again, like a worker that blocks in a call: the
   other item has to wake the other sleeper. */
static void semaphore_thread(int thread) {
    if (thread >= 2) {
        OL_SYS_STORE(item[thread - 2], 1u, OL_SYS_RELAXED);
        (void)ol__semaphore_wake(sem);
        return;
    }
    for (;;) {
        for (int i = 0; i < 2; i++)
            if (OL_SYS_LOAD(item[i], OL_SYS_RELAXED) && OL_SYS_XCHG(item[i], 0u, OL_SYS_RELAXED)) return;
        OL_SYS_ADD(&sem->waiters, 1u, OL_SYS_ACQUIRE);
        doze(OL_SYS_LOAD(item[0], OL_SYS_RELAXED) || OL_SYS_LOAD(item[1], OL_SYS_RELAXED));
    }
}

/* Who is woken sees what for. */
static void permit_thread(int thread) {
    if (thread == 1) {
        OL_SYS_STORE(item[0], 1u, OL_SYS_RELAXED);
        (void)ol__semaphore_wake(sem);
        return;
    }
    OL_SYS_ADD(&sem->waiters, 1u, OL_SYS_ACQUIRE);
    doze(OL_SYS_LOAD(item[0], OL_SYS_RELAXED) != 0);
    EXPECT(OL_SYS_LOAD(item[0], OL_SYS_RELAXED));
}

/* A ring and a semaphore as in the pool. Operations come in a burst with one wake, or one by one; each worker claims one
   and is never seen again. */
static void chain_begin(void) {
    ring_begin();
    semaphore_begin();
}
static void chain_end(void) {
    for (int i = 0; i < 2; i++) EXPECT(taken[i] == 1);
    model_free(ring->slot);
    model_free(ring);
    semaphore_end();
    jobs_end();
}
static void chain_thread(int thread) {
    if (thread == 0) {
        const int burst = (int)model_choose(2);
        for (int i = 0; i < 2; i++) {
            EXPECT(ol__ring_put(ring, &job[i]->op));
            if (i == 1 || !burst) (void)ol__semaphore_wake(sem);
        }
        return;
    }
    for (;;) {
        uint64_t first = 0;
        if (ol__ring_claim(ring, 4, 1, &first)) {
            if (ol__ring_size(ring)) (void)ol__semaphore_wake(sem);
            EXPECT(ol__ring_take(ring, first));
            taken[first]++;
            return;
        }
        OL_SYS_ADD(&sem->waiters, 1u, OL_SYS_ACQUIRE);
        doze(ol__ring_size(ring) != 0);
    }
}

/* ---- posts: a loop, and two threads that post to it -------------------------------------------------------------- */

struct mail {
    ol_post_node node;
    uint64_t text; /* written by the poster, read by the loop */
    int from, number;
};

static ol_loop *post_loop;
static int arrived[2];
static ol_post_node *echo; /* one that is always posted again */

static void posts_begin(void) {
    memset(arrived, 0, sizeof arrived);
    ol_set_panic(broken);
    post_loop = loop_create(0, 0);
}
static void on_echo(ol_loop *loop, ol_post_node *n) { EXPECT(ol_post(loop, n) == 0); }

/* The loop is destroyed with a post in it, and gives it back. */
static void posts_end(void) {
    echo = (ol_post_node *)model_malloc(sizeof *echo);
    memset(echo, 0, sizeof *echo);
    echo->fn = on_echo;
    EXPECT(ol_post(post_loop, echo) == 0);
    EXPECT(ol_loop_destroy(post_loop) == 0);
    EXPECT(!OL_SYS_LOAD(&echo->next, OL_SYS_RELAXED));
    model_free(echo);
}

/* A node may be freed, or posted again, from its function on. */
static void on_mail(ol_loop *loop, ol_post_node *node) {
    struct mail *m = OL_CONTAINER(node, struct mail, node);
    (void)loop;
    EXPECT(m->text == 7);
    EXPECT(arrived[m->from] == m->number); /* FIFO for one thread */
    arrived[m->from]++;
    model_free(m);
}

static void posts_thread(int thread) {
    if (thread == 0) {
        while (arrived[0] + arrived[1] < 4) EXPECT(ol_loop_step(post_loop, -1) >= 0);
        return;
    }
    for (int i = 0; i < 2; i++) {
        struct mail *m = (struct mail *)model_malloc(sizeof *m);
        memset(m, 0, sizeof *m);
        m->node.fn = on_mail;
        m->from = thread - 1;
        m->number = i;
        m->text = 7;
        EXPECT(ol_post(post_loop, &m->node) == 0);
    }
}

/* One step without limit: it comes back with what has woken it. */
static void woken_thread(int thread) {
    if (thread) {
        posts_thread(thread);
        return;
    }
    while (!arrived[0]) {
        const int before = arrived[0];
        EXPECT(ol_loop_step(post_loop, -1) >= 0);
        EXPECT(arrived[0] > before);
    }
    while (arrived[0] < 2) EXPECT(ol_loop_step(post_loop, -1) >= 0);
}

/* A guest: another loop waits for ours, and steps it when its fd is readable. */
static void guest_begin(void) {
    posts_begin();
    EXPECT(ol_loop_fd(post_loop) >= 0);
}
static void guest_thread(int thread) {
    if (thread) {
        posts_thread(thread);
        return;
    }
    for (int first = 1; arrived[0] < 2; first = 0) {
        model_poll(ol_loop_fd(post_loop));
        EXPECT(ol_loop_step(post_loop, 0) >= 0);
        EXPECT(!first || arrived[0]);
    }
}

/* ---- one: two threads post the same node. Who hears -EBUSY is seen all the same ---------------------------------- */

static ol_post_node *node[3]; /* the one, and a farewell of each thread */
static uint32_t *flag[2];     /* each poster's latest, written relaxed: nothing but the post orders it */
static uint32_t seen[2];
static int accepted, ran, byes;

static void on_one(ol_loop *loop, ol_post_node *n) {
    (void)loop, (void)n;
    for (int i = 0; i < 2; i++) seen[i] = OL_SYS_LOAD(flag[i], OL_SYS_RELAXED);
    ran++;
}
static void on_bye(ol_loop *loop, ol_post_node *n) {
    (void)loop, (void)n;
    byes++;
}

static void one_begin(void) {
    posts_begin();
    for (int i = 0; i < 3; i++) {
        node[i] = (ol_post_node *)model_malloc(sizeof *node[i]);
        memset(node[i], 0, sizeof *node[i]);
        node[i]->fn = i ? on_bye : on_one;
    }
    for (int i = 0; i < 2; i++) {
        flag[i] = (uint32_t *)model_malloc(sizeof *flag[i]);
        *flag[i] = 0;
        seen[i] = 0;
    }
    accepted = ran = byes = 0;
}

/* The same node, and each time it has to wait for its partition. */
static void gated_begin(void) {
    one_begin();
    EXPECT(ol_attach_guest(post_loop, model_eventfd(), OL_BATCH, &node[0]->fd) == 0);
}

static void one_thread(int thread) {
    if (thread == 0) {
        while (byes < 2 || ran < accepted) EXPECT(ol_loop_step(post_loop, -1) >= 0);
        return;
    }
    for (uint32_t i = 1; i <= 2; i++) {
        OL_SYS_STORE(flag[thread - 1], i, OL_SYS_RELAXED);
        const int r = ol_post(post_loop, node[0]);
        EXPECT(r == 0 || r == -EBUSY);
        accepted += r == 0;
    }
    EXPECT(ol_post(post_loop, node[thread]) == 0);
}

static void one_end(void) {
    EXPECT(ran == accepted);
    EXPECT(seen[0] == 2 && seen[1] == 2);
    for (int i = 0; i < 2; i++) model_free(flag[i]);
    for (int i = 0; i < 3; i++) model_free(node[i]);
    posts_end();
}

/* ---- pools: loops that submit, workers that run ----------------------------------------------------------------- */

static ol_loop *the_loop;

/* One loop, one worker: it falls asleep and is woken again, and all is taken down right after the last result. */
static void single_begin(void) {
    jobs_begin();
    pool_create(1, -1);
    the_loop = loop_create(1, 0);
}
static void single_thread(int thread) {
    (void)thread;
    submit(the_loop, OL_OP_CALL, 0, &done[0]);
    run_until(the_loop, &done[0], 1);
    submit(the_loop, OL_OP_CRC32, 1, &done[0]);
    submit(the_loop, OL_OP_CALL, 2, &done[0]);
    run_until(the_loop, &done[0], 3);
    EXPECT(ol_loop_destroy(the_loop) == 0);
    EXPECT(ol_threads_destroy(pool) == 0);
}

/* The same, but both sides look around for a while before they sleep. */
static void spin_begin(void) {
    jobs_begin();
    pool_create(1, 2000);
    the_loop = loop_create(1, 2000);
}

/* One loop, two workers, one of which takes no calls; more operations than the ring holds. */
static void burst_begin(void) {
    jobs_begin();
    pool_create(2, -1);
    the_loop = loop_create(1, 0);
}
static void burst_thread(int thread) {
    (void)thread;
    for (int i = 0; i < 3; i++) submit(the_loop, OL_OP_CRC32, i, &done[0]);
    submit(the_loop, OL_OP_CALL, 3, &done[0]);
    run_until(the_loop, &done[0], 4);
    EXPECT(ol_loop_destroy(the_loop) == 0);
    EXPECT(ol_threads_destroy(pool) == 0);
}

/* Cancels race with the worker. */
static void cancel_thread(int thread) {
    (void)thread;
    for (int i = 0; i < 2; i++) submit(the_loop, OL_OP_CALL, i, &done[0]);
    EXPECT(ol_loop_step(the_loop, 0) >= 0);
    for (int i = 1; i >= 0; i--) {
        job[i]->canceled = 1;
        if (ol_op_cancel(the_loop, &job[i]->op) != 0) EXPECT(done[0] > 0);
    }
    run_until(the_loop, &done[0], 2);
    submit(the_loop, OL_OP_CALL, 2, &done[0]); /* takes a slot that a cancel has left behind */
    run_until(the_loop, &done[0], 3);
    EXPECT(ol_loop_destroy(the_loop) == 0);
    EXPECT(ol_threads_destroy(pool) == 0);
}

/* Two threads with loops on one pool: both start it; the first one's channel is used again. */
static uint32_t seed[3]; /* of the loops' handles */
static void shared_begin(void) {
    jobs_begin();
    pool_create(1, -1);
}
static void shared_end(void) {
    EXPECT(seed[0] != seed[1] && seed[0] != seed[2] && seed[1] != seed[2]);
    jobs_end();
}
static void shared_round(int thread, int number) {
    ol_loop *loop = loop_create(1, 0);
    seed[thread + 2 * number] = loop->gen_seed;
    submit(loop, number ? OL_OP_CRC32 : OL_OP_CALL, 2 * thread + number, &done[thread]);
    run_until(loop, &done[thread], number + 1);
    EXPECT(ol_loop_destroy(loop) == 0);
}
static void shared_thread(int thread) {
    shared_round(thread, 0);
    if (thread == 0) shared_round(thread, 1);
    pool_leave(2);
}

/* Two loops that start the pool's two workers at the same time, and leave at once. */
static ol_loop *start_loop[2];
static void start_begin(void) {
    jobs_begin();
    pool_create(2, -1);
    for (int i = 0; i < 2; i++) start_loop[i] = loop_create(1, 0);
}
static void start_thread(int thread) {
    submit(start_loop[thread], OL_OP_CRC32, thread, &done[thread]);
    run_until(start_loop[thread], &done[thread], 1);
    EXPECT(ol_loop_destroy(start_loop[thread]) == 0);
    pool_leave(2);
}

/* The child of a fork: the pool looks as its threads have left it, and two threads come back to it at the same time.
   One of them makes it anew. */
static void forked_begin(void) {
    start_begin();
    ol__pool *p = (ol__pool *)pool->self;
    OL_SYS_STORE(&p->started, 2u, OL_SYS_RELAXED);
    OL_SYS_STORE(&p->sleep[0].waiters, 1u, OL_SYS_RELAXED);
    OL_SYS_STORE(&p->sleep[1].waiters, 1u, OL_SYS_RELAXED);
    ol__process_forked();
}

const struct model model_all[] = {
    {"ring", "a ring of two slots, cancels, two consumers", 3, 0, ring_begin, ring_thread, ring_end},
    {"permit", "who is woken sees what for", 2, 0, semaphore_begin, permit_thread, semaphore_end},
    {"semaphore", "two sleepers, two wakers", 4, 0, semaphore_begin, semaphore_thread, semaphore_end},
    {"chain", "a burst, and workers that block in what they get", 3, 0, chain_begin, chain_thread, chain_end},
    {"posts", "a loop, two threads that post twice each", 3, 0, posts_begin, posts_thread, posts_end},
    {"woken", "who is woken finds the reason", 2, 0, posts_begin, woken_thread, posts_end},
    {"guest", "the same, stepped by another loop", 2, 0, guest_begin, guest_thread, posts_end},
    {"one", "two threads post one node, twice each", 3, 0, one_begin, one_thread, one_end},
    {"gated", "the same, in the turn of a partition", 3, 0, gated_begin, one_thread, one_end},
    {"single", "a loop and a worker, from the first operation to the end", 1, 1, single_begin, single_thread, jobs_end},
    {"cancel", "cancels against a worker", 1, 1, single_begin, cancel_thread, jobs_end},
    {"burst", "a loop, two workers, a ring that is too small", 1, 2, burst_begin, burst_thread, jobs_end},
    {"shared", "two loops that come and go, one worker", 2, 1, shared_begin, shared_thread, shared_end},
    {"start", "two loops start two workers, and leave", 2, 2, start_begin, start_thread, jobs_end},
    {"forked", "the same in the child of a fork", 2, 2, forked_begin, start_thread, jobs_end},
    {"spin", "as single, and both sides spin before they sleep", 1, 1, spin_begin, single_thread, jobs_end},
};
const int model_count = COUNT(model_all);
