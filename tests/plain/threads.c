/* valgrind
   The pool under real threads: made for ThreadSanitizer, which can't run under Criterion. Every test ends by itself; nothing
   here depends on how fast a thread is.
   cc -O2 -I. tests/plain/threads.c -o build/tests/threads -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>

/* The seam: threads that refuse to start, and a count of futex calls. */
static int threads_to_refuse_from = 1 << 30, threads_started;
static int start_thread(pthread_t *t, void *(*fn)(void *), void *arg) {
    if (threads_started >= threads_to_refuse_from) return 11; /* EAGAIN */
    const int r = pthread_create(t, NULL, fn, arg);
    threads_started += r == 0;
    return r;
}
#define OL_SYS_THREAD pthread_t
#define OL_SYS_THREAD_START(t, fn, arg) start_thread((t), (fn), (arg))
#define OL_SYS_THREAD_JOIN(t) pthread_join((t), NULL)
#define OL_SYS_FUTEX_WAIT(word, value) syscall(SYS_futex, (word), 128, (value), NULL, NULL, 0)
#define OL_SYS_FUTEX_WAKE(word, n) (__atomic_add_fetch(&futex_wakes, 1, __ATOMIC_RELAXED), syscall(SYS_futex, (word), 129, (n), NULL, NULL, 0))
#define OL_SYS_MUTEX pthread_mutex_t
#define OL_SYS_MUTEX_INIT PTHREAD_MUTEX_INITIALIZER
#define OL_SYS_MUTEX_LOCK(m) pthread_mutex_lock(m)
#define OL_SYS_MUTEX_UNLOCK(m) pthread_mutex_unlock(m)
#define OL_SYS_CPUS() 2
#define OL_SYS_NAP() usleep(20)
#define OL_SYS_SCHED_IDLE() ((void)0)
static int futex_wakes;
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

static int passed, failed, bad;
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("  %s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                                     \
            bad++;                                                                                                     \
        }                                                                                                              \
    } while (0)

static int scaled(int n) { return getenv("OL_TEST_SLOW") ? n / 20 : n; } /* valgrind sets it */

/* ---- many coroutines, both classes, calls and plain operations: each completes once with its own result */

enum { COS = 64 };
typedef struct job {
    ol_co co;
    ol_op op;
    int64_t r, i, rounds, wrong, number;
    unsigned char buf[512];
} job;

static int64_t twice(void *arg) { return 2 * ((job *)arg)->number + ((job *)arg)->i; }

static void worker(ol_co *co) {
    job *j = OL_SELF(co, job, co);
    OL_BEGIN(co);
    for (j->i = 0; j->i < j->rounds; j->i++) {
        if ((j->i + j->number) % 2) {
            OL_AWAIT(j->r, ol_run(co, ol_prep_call(&j->op, twice, j)));
            j->wrong += j->r != 2 * j->number + j->i;
        } else {
            memset(j->buf, (int)j->i, sizeof j->buf);
            OL_AWAIT(j->r, ol_run(co, ol_prep_crc32(&j->op, 0, j->buf, sizeof j->buf)));
            j->wrong += j->r != ol__crc32(0, j->buf, sizeof j->buf);
        }
    }
    OL_END(co);
}

static const char *const all_async = "any any 0- async threads wait";

static void run_jobs(ol_loop *loop, int rounds) {
    job *j = (job *)calloc(COS, sizeof *j);
    for (int i = 0; i < COS; i++) {
        j[i].number = i;
        j[i].rounds = rounds;
        CHECK(ol_spawn(loop, &j[i].co, worker, 0, i % 2 ? OL_LATENCY : OL_BATCH) == 0);
    }
    CHECK(ol_loop_run(loop) == 0);
    for (int i = 0; i < COS; i++) CHECK(j[i].wrong == 0 && j[i].i == rounds);
    free(j);
}

static ol_loop *make_loop(ol_backend *pool, const char *policy, int64_t spin) {
    ol_loop_desc d;
    ol_loop *loop = NULL;
    memset(&d, 0, sizeof d);
    d.backends = &pool;
    d.nbackends = pool != NULL;
    d.policy = policy;
    d.spin_ns = spin;
    CHECK(ol_loop_create(&loop, &d) == 0);
    return loop;
}
static ol_backend *make_pool(uint32_t workers, uint32_t depth, int64_t spin) {
    ol_threads_desc d;
    ol_backend *pool = NULL;
    memset(&d, 0, sizeof d);
    d.workers = workers;
    d.depth = depth;
    d.spin_ns = spin;
    CHECK(ol_threads_create(&pool, &d) == 0);
    return pool;
}

static void every_operation_completes_once(void) {
    static const int64_t spin[] = {-1, 20000};
    for (int i = 0; i < 8; i++) {
        ol_backend *pool = make_pool(1 + (uint32_t)i % 3, i % 4 < 2 ? 4 : 256, spin[i % 2]);
        ol_loop *loop = make_loop(pool, all_async, i / 4 ? 20000 : 0);
        ol_loop_stats s;
        run_jobs(loop, scaled(400));
        s.size = sizeof s;
        ol_loop_get_stats(loop, &s);
        CHECK(s.offloaded == (uint64_t)COS * (uint64_t)scaled(400) && s.ops == 0 && s.roots == 0);
        CHECK(ol_threads_destroy(pool) == -EBUSY);
        CHECK(ol_loop_destroy(loop) == 0);
        CHECK(ol_threads_destroy(pool) == 0);
    }
}

/* ---- several loops in threads of their own share one pool */

static void *loop_thread(void *pool) {
    for (int i = 0; i < 3; i++) {
        ol_loop *loop = make_loop((ol_backend *)pool, all_async, i * 5000);
        run_jobs(loop, scaled(150));
        CHECK(ol_loop_destroy(loop) == 0);
    }
    return NULL;
}
static void loops_share_a_pool_and_come_and_go(void) {
    for (int shared = 0; shared < 2; shared++) { /* a pool of ours, then the process's own */
        ol_backend *pool = shared ? NULL : make_pool(2, 16, 10000);
        pthread_t t[4];
        for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, loop_thread, pool);
        for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
        if (pool) CHECK(ol_threads_destroy(pool) == 0);
    }
}

/* ---- cancel: an operation that waits behind a blocked one is stopped; one that runs gives its true result */

typedef struct gate {
    sem_t entered, leave;
} gate;
static int64_t blocked(void *arg) {
    gate *g = (gate *)arg;
    sem_post(&g->entered);
    while (sem_wait(&g->leave) != 0) {}
    return 7;
}
static int ran;
static int64_t must_not_run(void *arg) {
    (void)arg;
    ran++;
    return 0;
}
static int dones;
static int64_t done_result[2000];
static void on_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    done_result[dones++] = op->result;
}

static void cancel_stops_what_waits_and_not_what_runs(void) {
    ol_backend *pool = make_pool(1, 64, -1);
    ol_loop *loop = make_loop(pool, all_async, 0);
    gate g;
    ol_op first, rest[40];
    sem_init(&g.entered, 0, 0);
    sem_init(&g.leave, 0, 0);
    dones = ran = 0;
    CHECK(ol_submit(loop, ol_prep_call(&first, blocked, &g), on_done) == 0);
    for (int i = 0; i < 40; i++) CHECK(ol_submit(loop, ol_prep_call(&rest[i], must_not_run, NULL), on_done) == 0);
    CHECK(ol_submit(loop, &rest[0], on_done) == -EBUSY);
    ol_loop_step(loop, 0); /* submits */
    while (sem_wait(&g.entered) != 0) {}
    for (int i = 0; i < 40; i++) CHECK(ol_op_cancel(loop, &rest[i]) == 0);
    CHECK(ol_op_cancel(loop, &first) == 0);
    while (dones < 40) ol_loop_step(loop, 0);
    for (int i = 0; i < 40; i++) CHECK(done_result[i] == -ECANCELED);
    ol_loop_step(loop, 0);
    CHECK(dones == 40);
    sem_post(&g.leave);
    CHECK(ol_loop_run(loop) == 0);
    CHECK(dones == 41 && done_result[40] == 7 && ran == 0);
    CHECK(ol_op_cancel(loop, &first) == -EINVAL);
    CHECK(strcmp(ol_op_where(loop, &first), "threads") == 0);
    CHECK(ol_loop_destroy(loop) == 0 && ol_threads_destroy(pool) == 0);
}

static void cancels_race_with_workers(void) {
    ol_backend *pool = make_pool(2, 64, 5000);
    ol_loop *loop = make_loop(pool, all_async, 0);
    static ol_op op[2000];
    const int n = scaled(2000);
    for (int round = 0; round < 5; round++) {
        int stopped = 0;
        dones = ran = 0;
        for (int i = 0; i < n; i++) {
            ol_prep_call(&op[i], must_not_run, NULL)->cls = i % 2 ? OL_LATENCY : OL_BATCH;
            CHECK(ol_submit(loop, &op[i], on_done) == 0);
            if (i % 16 == 0) ol_loop_step(loop, 0);
            if (i >= 8 && i % 3 == 0) (void)ol_op_cancel(loop, &op[i - 8]);
        }
        CHECK(ol_loop_run(loop) == 0);
        CHECK(dones == n);
        for (int i = 0; i < n; i++) stopped += done_result[i] == -ECANCELED;
        CHECK(stopped + ran == n);
    }
    CHECK(ol_loop_destroy(loop) == 0 && ol_threads_destroy(pool) == 0);
}

/* ---- calls that block leave one worker of several to the other operations */

static void blocked_calls_leave_a_worker_for_the_rest(void) {
    ol_backend *pool = make_pool(3, 64, -1);
    ol_loop *loop = make_loop(pool, all_async, 0);
    gate g;
    ol_op call[8], crc;
    sem_init(&g.entered, 0, 0);
    sem_init(&g.leave, 0, 0);
    dones = 0;
    for (int i = 0; i < 8; i++) CHECK(ol_submit(loop, ol_prep_call(&call[i], blocked, &g), on_done) == 0);
    ol_loop_step(loop, 0);
    for (int i = 0; i < 2; i++)
        while (sem_wait(&g.entered) != 0) {}
    CHECK(ol_submit(loop, ol_prep_crc32(&crc, 0, "abc", 3), on_done) == 0);
    while (dones < 1) ol_loop_step(loop, -1);
    CHECK(dones == 1 && done_result[0] == 0x352441c2);
    int value = 0;
    sem_getvalue(&g.entered, &value);
    CHECK(value == 0); /* no third call has begun */
    for (int i = 0; i < 8; i++) sem_post(&g.leave);
    CHECK(ol_loop_run(loop) == 0 && dones == 9);
    CHECK(ol_loop_destroy(loop) == 0 && ol_threads_destroy(pool) == 0);
}

/* ---- latency-critical work never queues behind batch */

static void latency_passes_batch_in_the_pool(void) {
    ol_backend *pool = make_pool(1, 64, -1);
    ol_loop *loop = make_loop(pool, all_async, 0);
    gate g;
    ol_op first, batch[20], urgent;
    sem_init(&g.entered, 0, 0);
    sem_init(&g.leave, 0, 0);
    dones = 0;
    CHECK(ol_submit(loop, ol_prep_call(&first, blocked, &g), on_done) == 0);
    ol_loop_step(loop, 0);
    while (sem_wait(&g.entered) != 0) {}
    for (int i = 0; i < 20; i++) CHECK(ol_submit(loop, ol_prep_crc32(&batch[i], 0, "x", 1), on_done) == 0);
    ol_loop_step(loop, 0);
    ol_prep_crc32(&urgent, 0, "abc", 3)->cls = OL_LATENCY;
    CHECK(ol_submit(loop, &urgent, on_done) == 0);
    ol_loop_step(loop, 0);
    sem_post(&g.leave);
    while (dones < 22) ol_loop_step(loop, -1);
    int at = 0;
    while (at < 22 && done_result[at] != 0x352441c2) at++;
    CHECK(at <= 1); /* with the blocked one, before all of batch */
    CHECK(ol_loop_destroy(loop) == 0 && ol_threads_destroy(pool) == 0);
}

/* ---- threads that can't start */

static void without_threads_work_is_done_in_software(void) {
    threads_to_refuse_from = threads_started;
    ol_backend *pool = make_pool(2, 64, -1);
    ol_loop *loop = make_loop(pool, all_async, 0);
    ol_op op;
    dones = 0;
    CHECK(ol_submit(loop, ol_prep_crc32(&op, 0, "abc", 3), on_done) == 0);
    CHECK(ol_loop_run(loop) == 0 && dones == 1 && op.result == 0x352441c2);
    CHECK(op.why == OL_WHY_FAILED && strcmp(ol_op_where(loop, &op), "software") == 0);
    run_jobs(loop, 20);
    CHECK(ol_loop_destroy(loop) == 0 && ol_threads_destroy(pool) == 0);

    threads_to_refuse_from = threads_started + 1; /* one of three starts */
    pool = make_pool(3, 64, -1);
    loop = make_loop(pool, all_async, 0);
    run_jobs(loop, 20);
    threads_to_refuse_from = 1 << 30;
    CHECK(ol_loop_destroy(loop) == 0 && ol_threads_destroy(pool) == 0);
}

static void threads_start_at_the_first_operation(void) {
    const int before = threads_started;
    ol_backend *pool = make_pool(2, 64, -1);
    ol_loop *loop = make_loop(pool, "any any 0- software - -\n", 0);
    run_jobs(loop, 3);
    CHECK(threads_started == before);
    ol_policy p;
    CHECK(ol_policy_parse(all_async, &p, NULL, 0) == 0 && ol_loop_set_policy(loop, &p) == 0);
    run_jobs(loop, 3);
    CHECK(threads_started == before + 2);
    CHECK(ol_loop_destroy(loop) == 0 && ol_threads_destroy(pool) == 0);
}

/* ---- a burst is one wake */

static void a_burst_wakes_a_sleeping_worker_once(void) {
    ol_backend *pool = make_pool(1, 64, -1);
    ol_loop *loop = make_loop(pool, all_async, 0);
    ol__pool *p = (ol__pool *)pool->self;
    ol_op op[32];
    dones = 0;
    CHECK(ol_submit(loop, ol_prep_crc32(&op[0], 0, "abc", 3), on_done) == 0);
    CHECK(ol_loop_run(loop) == 0);
    for (int round = 0; round < 20; round++) {
        while (!__atomic_load_n(&p->sleep[0].waiters, __ATOMIC_ACQUIRE)) sched_yield(); /* asleep, or nearly */
        const int before = __atomic_load_n(&futex_wakes, __ATOMIC_RELAXED);
        for (int i = 0; i < 32; i++) CHECK(ol_submit(loop, ol_prep_crc32(&op[i], 0, "abc", 3), on_done) == 0);
        ol_loop_step(loop, 0);
        CHECK(__atomic_load_n(&futex_wakes, __ATOMIC_RELAXED) == before + 1);
        CHECK(ol_loop_run(loop) == 0);
    }
    CHECK(dones == 1 + 20 * 32);
    CHECK(ol_loop_destroy(loop) == 0 && ol_threads_destroy(pool) == 0);
}

/* ---- posts from threads and from a signal handler */

enum { POSTERS = 3 };
typedef struct poster {
    ol_post_node node;
    ol_loop *loop;
    int64_t written, accepted; /* written is plain data: a post that is refused must still be seen */
    int64_t seen, calls;
} poster;
static int posters_left;
static void on_post(ol_loop *loop, ol_post_node *node) {
    poster *p = OL_CONTAINER(node, poster, node);
    const int64_t w = __atomic_load_n(&p->written, __ATOMIC_RELAXED);
    if (w < p->seen) bad++;
    p->seen = w;
    p->calls++;
    (void)loop;
}
static void *post_thread(void *arg) {
    poster *p = (poster *)arg;
    for (int i = 1; i <= scaled(20000); i++) {
        __atomic_store_n(&p->written, i, __ATOMIC_RELAXED);
        if (ol_post(p->loop, &p->node) == 0) p->accepted++;
    }
    __atomic_sub_fetch(&posters_left, 1, __ATOMIC_RELEASE);
    return NULL;
}
static void tick(ol_loop *loop, ol_timer *t) {
    (void)t;
    if (__atomic_load_n(&posters_left, __ATOMIC_ACQUIRE)) ol_timer_start(loop, t, 1000000, tick);
}
static void posts_of_threads_are_not_lost(void) {
    ol_loop *loop = make_loop(NULL, NULL, 0);
    static poster p[POSTERS];
    pthread_t t[POSTERS];
    ol_timer timer;
    memset(p, 0, sizeof p);
    memset(&timer, 0, sizeof timer);
    posters_left = POSTERS;
    CHECK(ol_timer_start(loop, &timer, 1000000, tick) == 0);
    for (int i = 0; i < POSTERS; i++) {
        p[i].loop = loop;
        p[i].node.fn = on_post;
        pthread_create(&t[i], NULL, post_thread, &p[i]);
    }
    CHECK(ol_loop_run(loop) == 0);
    for (int i = 0; i < POSTERS; i++) {
        pthread_join(t[i], NULL);
        CHECK(p[i].calls == p[i].accepted && p[i].seen == scaled(20000));
    }
    CHECK(ol_loop_destroy(loop) == 0);
}

static ol_loop *signal_loop;
static poster signal_poster;
static void on_signal(int number) {
    (void)number;
    (void)ol_post(signal_loop, &signal_poster.node);
}
static void on_signal_post(ol_loop *loop, ol_post_node *node) {
    (void)node;
    signal_poster.calls++;
    ol_loop_stop(loop);
}
static void *kill_thread(void *arg) {
    pthread_kill(*(pthread_t *)arg, SIGUSR1);
    return NULL;
}
static void far_timer(ol_loop *loop, ol_timer *t) {
    (void)loop;
    (void)t;
    bad++;
}
static void a_signal_handler_may_post(void) {
    pthread_t self = pthread_self(), t;
    ol_timer timer;
    signal_loop = make_loop(NULL, NULL, 0);
    memset(&timer, 0, sizeof timer);
    memset(&signal_poster, 0, sizeof signal_poster);
    signal_poster.node.fn = on_signal_post;
    signal(SIGUSR1, on_signal);
    CHECK(ol_timer_start(signal_loop, &timer, (int64_t)3600 * 1000000000, far_timer) == 0);
    for (int i = 1; i <= 50; i++) {
        pthread_create(&t, NULL, kill_thread, &self);
        CHECK(ol_loop_run(signal_loop) == 0);
        pthread_join(t, NULL);
        CHECK(signal_poster.calls == i);
    }
    ol_timer_stop(signal_loop, &timer);
    signal(SIGUSR1, SIG_DFL);
    CHECK(ol_loop_destroy(signal_loop) == 0);
}

/* ---- a loop that is destroyed with operations in flight waits for them */

static int64_t short_work(void *arg) {
    *(int *)arg += 1;
    return 1;
}
static void destroy_waits_for_operations(void) {
    for (int i = 0; i < scaled(300); i++) {
        ol_loop *loop = make_loop(NULL, all_async, 0);
        ol_op op[8];
        int counter[8];
        memset(counter, 0, sizeof counter);
        dones = 0;
        for (int k = 0; k < 8; k++) CHECK(ol_submit(loop, ol_prep_call(&op[k], short_work, &counter[k]), on_done) == 0);
        if (i % 2) ol_loop_step(loop, 0);
        CHECK(ol_loop_destroy(loop) == 0);
        CHECK(dones == 8);
        for (int k = 0; k < 8; k++) CHECK(op[k].result == (counter[k] ? 1 : -ECANCELED));
    }
}

int main(void) {
    static const struct {
        const char *name;
        void (*run)(void);
    } test[] = {
#define TEST(name) {#name, name}
        TEST(every_operation_completes_once),
        TEST(loops_share_a_pool_and_come_and_go),
        TEST(cancel_stops_what_waits_and_not_what_runs),
        TEST(cancels_race_with_workers),
        TEST(blocked_calls_leave_a_worker_for_the_rest),
        TEST(latency_passes_batch_in_the_pool),
        TEST(without_threads_work_is_done_in_software),
        TEST(threads_start_at_the_first_operation),
        TEST(a_burst_wakes_a_sleeping_worker_once),
        TEST(posts_of_threads_are_not_lost),
        TEST(a_signal_handler_may_post),
        TEST(destroy_waits_for_operations),
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof test / sizeof *test; i++) {
        bad = 0;
        test[i].run();
        printf("%s %s\n", bad ? "FAIL" : "ok", test[i].name);
        passed += !bad;
        failed += bad != 0;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
