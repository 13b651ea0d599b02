/* core: what the library itself costs, each thing beside the least that it could cost, measured in the same run.

   cc -O2 -I. bench/core.c -o build/bench/core -pthread -lisal
   build/bench/core [--rounds N]

   Prints name, value and unit with tabs between. Times are medians over interleaved rounds, with the least and the
   greatest beside them; a ratio is the median of the rounds' ratios. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- the seam, counting: allocations and their bytes, and system calls of all threads ---------------------------- */

static size_t heap_bytes, heap_calls, sys_calls,
    sys_looks; /* looks: the loop asked the kernel for events, and went on */
#define COUNT(counter, n) ((void)__atomic_fetch_add(&(counter), (size_t)(n), __ATOMIC_RELAXED))
#define SYS(call) (COUNT(sys_calls, 1), (call))

static void *count_realloc(void *p, size_t n) {
    if (p) COUNT(heap_bytes, (size_t)0 - malloc_usable_size(p));
    p = realloc(p, n);
    COUNT(heap_calls, 1);
    if (p) COUNT(heap_bytes, malloc_usable_size(p));
    return p;
}
static void count_free(void *p) {
    if (p) COUNT(heap_bytes, (size_t)0 - malloc_usable_size(p));
    free(p);
}
static int count_epoll_wait(int ep, struct epoll_event *events, int n, int64_t ns) {
    struct timespec t;
    t.tv_sec = (time_t)(ns / 1000000000);
    t.tv_nsec = (long)(ns % 1000000000);
    if (ns) COUNT(sys_calls, 1);
    else COUNT(sys_looks, 1);
    return ns > 0 ? (int)syscall(441 /* epoll_pwait2 */, ep, events, n, &t, (void *)0, (size_t)0)
                  : epoll_wait(ep, events, n, (int)ns);
}
static ssize_t count_sendv(int fd, struct iovec *iov, int n) {
    struct msghdr m;
    memset(&m, 0, sizeof m);
    m.msg_iov = iov;
    m.msg_iovlen = (size_t)n;
    return SYS(sendmsg(fd, &m, MSG_NOSIGNAL));
}
static int count_getsockopt(int fd, int name, int *value) {
    socklen_t len = sizeof *value;
    return SYS(getsockopt(fd, SOL_SOCKET, name, value, &len));
}
#define OL_SYS_MALLOC(n) count_realloc(NULL, (n))
#define OL_SYS_REALLOC(p, n) count_realloc((p), (n))
#define OL_SYS_FREE(p) count_free(p)
#define OL_SYS_EPOLL_CREATE() SYS(epoll_create1(EPOLL_CLOEXEC))
#define OL_SYS_EPOLL_CTL(ep, op, fd, event) SYS(epoll_ctl((ep), (op), (fd), (event)))
#define OL_SYS_EPOLL_WAIT(ep, events, n, timeout_ns) count_epoll_wait((ep), (events), (n), (timeout_ns))
#define OL_SYS_EVENTFD() SYS(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC))
#define OL_SYS_READ(fd, buf, n) SYS(read((fd), (buf), (n)))
#define OL_SYS_WRITE(fd, buf, n) SYS(write((fd), (buf), (n)))
#define OL_SYS_READV(fd, iov, n) SYS(readv((fd), (iov), (n)))
#define OL_SYS_WRITEV(fd, iov, n) SYS(writev((fd), (iov), (n)))
#define OL_SYS_SEND(fd, buf, n) SYS(send((fd), (buf), (n), MSG_NOSIGNAL))
#define OL_SYS_SENDV(fd, iov, n) count_sendv((fd), (iov), (n))
#define OL_SYS_ACCEPT(fd) SYS(accept4((fd), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC))
#define OL_SYS_CONNECT(fd, addr, len) SYS(connect((fd), (addr), (len)))
#define OL_SYS_SOCKET(domain, type, protocol) SYS(socket((domain), (type), (protocol)))
#define OL_SYS_BIND(fd, addr, len) SYS(bind((fd), (addr), (len)))
#define OL_SYS_LISTEN(fd, backlog) SYS(listen((fd), (backlog)))
#define OL_SYS_SHUTDOWN(fd) SYS(shutdown((fd), SHUT_RDWR))
#define OL_SYS_CLOSE(fd) SYS(close(fd))
#define OL_SYS_GETSOCKOPT(fd, name, value) count_getsockopt((fd), (name), (value))
#define OL_SYS_SETSOCKOPT(fd, name, value) SYS(setsockopt((fd), SOL_SOCKET, (name), &(value), sizeof(value)))
#define OL_SYS_NONBLOCK(fd) SYS(fcntl((fd), F_SETFL, fcntl((fd), F_GETFL) | O_NONBLOCK))
#define OL_SYS_THREAD pthread_t
#define OL_SYS_THREAD_START(thread, fn, arg) start_away((thread), (fn), (arg))
#define OL_SYS_THREAD_JOIN(thread) SYS(pthread_join((thread), NULL))
#define OL_SYS_FUTEX_WAIT(word, value) SYS(syscall(SYS_futex, (word), 128, (value), NULL, NULL, 0))
#define OL_SYS_FUTEX_WAKE(word, n) SYS(syscall(SYS_futex, (word), 129, (n), NULL, NULL, 0))
#define OL_SYS_MUTEX pthread_mutex_t
#define OL_SYS_MUTEX_INIT PTHREAD_MUTEX_INITIALIZER
#define OL_SYS_MUTEX_LOCK(m) pthread_mutex_lock(m)
#define OL_SYS_MUTEX_UNLOCK(m) pthread_mutex_unlock(m)
#define OL_SYS_CPUS() count_cpus()
#define OL_SYS_SCHED_IDLE() ((void)0)
static int count_cpus(void);
static int start_away(pthread_t *thread, void *(*fn)(void *), void *arg);

#define OFFLOAD_IMPLEMENTATION
#define OFFLOAD_ISAL
#include "offload.h"

/* ---- measuring --------------------------------------------------------------------------------------------------- */

enum { ROUNDS_MAX = 101 };
static int rounds = 9;

static cpu_set_t all_cpus;
static size_t cpu_here, cpu_away; /* the main thread's CPU, and that of the other end; the same if there is only one */

static int count_cpus(void) { return CPU_COUNT(&all_cpus); }

/* Each end keeps its CPU, so that no round measures a migration. */
static void take_cpus(void) {
    cpu_set_t here;
    if (sched_getaffinity(0, sizeof all_cpus, &all_cpus) != 0) CPU_SET(0, &all_cpus);
    while (!CPU_ISSET(cpu_here, &all_cpus)) cpu_here++;
    for (cpu_away = CPU_SETSIZE - 1; !CPU_ISSET(cpu_away, &all_cpus);) cpu_away--;
    CPU_ZERO(&here);
    CPU_SET(cpu_here, &here);
    (void)sched_setaffinity(0, sizeof here, &here);
}

static int start_away(pthread_t *thread, void *(*fn)(void *), void *arg) {
    cpu_set_t away;
    const int r = pthread_create(thread, NULL, fn, arg);
    CPU_ZERO(&away);
    CPU_SET(cpu_away, &away);
    if (r == 0) (void)pthread_setaffinity_np(*thread, sizeof away, &away);
    return r;
}

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void must(int ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "core: %s failed: %s (%s)\n", what, ol_error(), strerror(errno));
    exit(1);
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void row(const char *name, const char *suffix, double value, const char *unit) {
    printf("%s%s\t%.4g\t%s\n", name, suffix, value, unit);
}

static double print_median(const char *name, const double *values, const char *unit) {
    double v[ROUNDS_MAX];
    memcpy(v, values, (size_t)rounds * sizeof *v);
    qsort(v, (size_t)rounds, sizeof *v, by_value);
    row(name, "", v[rounds / 2], unit);
    row(name, ".min", v[0], unit);
    row(name, ".max", v[rounds - 1], unit);
    return v[rounds / 2];
}

static void print_ratio(const char *name, const double *values, const double *base) {
    double v[ROUNDS_MAX];
    for (int i = 0; i < rounds; i++) v[i] = values[i] / base[i];
    print_median(name, v, "x");
}

static void progress(const char *what) { fprintf(stderr, "core: %s\n", what); }

/* A loop with a pool of one worker. Spinning both, or both asleep between operations. */
struct bed {
    ol_loop *loop;
    ol_backend *pool;
};

enum { SPIN_NS = 10 * 1000 * 1000 }; /* longer than anything that is waited for here */

static void bed_open(struct bed *b, int spinning, const char *policy) {
    ol_threads_desc t;
    ol_loop_desc d;
    memset(&t, 0, sizeof t);
    memset(&d, 0, sizeof d);
    t.workers = 1;
    t.spin_ns = spinning ? SPIN_NS : -1;
    t.sched = 2;
    must(ol_threads_create(&b->pool, &t) == 0, "ol_threads_create");
    d.backends = &b->pool;
    d.nbackends = 1;
    d.policy = policy;
    d.spin_ns = spinning ? SPIN_NS : 0;
    must(ol_loop_create(&b->loop, &d) == 0, "ol_loop_create");
}

static void bed_close(struct bed *b) {
    must(ol_loop_destroy(b->loop) == 0, "ol_loop_destroy");
    must(ol_threads_destroy(b->pool) == 0, "ol_threads_destroy");
}

/* ---- resume and yield against a call ----------------------------------------------------------------------------- */

/* All variants do the same work on each turn: add to a counter in a struct that they are handed. */
struct work {
    ol_co co;
    ol_frame frame[4];
    uint64_t count;
    int64_t stop;
};

static __attribute__((noinline)) void plain(void *arg) { ((struct work *)arg)->count++; }

/* The least await: it suspends, and its result is there at the next resume. No queue: the switch alone. */
static inline int suspend(ol_co *co) {
    co->link.fd = 0;
    co->frame.bits |= (uint32_t)OL__CO_DONE;
    return OL__PENDING;
}

/* Coroutines that suspend by `await` until they are stopped, in the root and four calls below it. */
#define BODY(name, member, await)                                                                                      \
    static void name(ol_co *co) {                                                                                      \
        struct work *w = OL_SELF(co, struct work, member);                                                             \
        OL_BEGIN(co);                                                                                                  \
        while (!w->stop) {                                                                                             \
            w->count++;                                                                                                \
            await;                                                                                                     \
        }                                                                                                              \
        OL_END(co);                                                                                                    \
    }
#define NEST(name, member, inner, inner_member)                                                                        \
    static void name(ol_co *co) {                                                                                      \
        struct work *w = OL_SELF(co, struct work, member);                                                             \
        OL_BEGIN(co);                                                                                                  \
        OL_CALL(w->stop, &w->inner_member, inner);                                                                     \
        OL_END(co);                                                                                                    \
    }
BODY(flat, co, OL_DO(suspend(co)))
BODY(deep4, frame[3], OL_DO(suspend(co)))
NEST(deep3, frame[2], deep4, frame[3])
NEST(deep2, frame[1], deep3, frame[2])
NEST(deep1, frame[0], deep2, frame[1])
NEST(deep, co, deep1, frame[0])
BODY(flat_yield, co, OL_YIELD())
BODY(deep_yield4, frame[3], OL_YIELD())
NEST(deep_yield3, frame[2], deep_yield4, frame[3])
NEST(deep_yield2, frame[1], deep_yield3, frame[2])
NEST(deep_yield1, frame[0], deep_yield2, frame[1])
NEST(deep_yield, co, deep_yield1, frame[0])

static void yields(ol_co *co) {
    struct work *w = OL_SELF(co, struct work, co);
    OL_BEGIN(co);
    while ((int64_t)w->count < w->stop) {
        w->count++;
        OL_YIELD();
    }
    OL_END(co);
}

static double time_calls(struct work *w, int n) {
    void (*volatile hidden)(void *) = plain; /* so that the compiler doesn't see which function it is */
    void (*fn)(void *) = hidden;
    const double t = now_ns();
    for (int i = 0; i < n; i++) fn(w);
    return (now_ns() - t) / n;
}

static double time_resumes(ol_loop *loop, ol_co *co, int n) {
    const double t = now_ns();
    for (int i = 0; i < n; i++) (void)ol__resume(loop, co);
    return (now_ns() - t) / n;
}

/* What the loop does with a coroutine that is ready and yields: it takes it from the ready queue, resumes its innermost
   frame, and queues it again. */
static void resume_next(ol_loop *loop) { (void)ol__resume(loop, (ol_co *)ol__pop(&loop->ready[OL_LATENCY])); }

static double time_yields_direct(ol_loop *loop, int n) {
    const double t = now_ns();
    for (int i = 0; i < n; i++) resume_next(loop);
    return (now_ns() - t) / n;
}

/* The same over many, one after another: each one's state comes from the cache, and no resume waits for the last one's
   stores. */
static double time_calls_in_turn(struct work *w, int many, int n) {
    void (*volatile hidden)(void *) = plain;
    void (*fn)(void *) = hidden;
    const double t = now_ns();
    for (int k = 0; k < n / many; k++)
        for (int i = 0; i < many; i++) fn(&w[i]);
    return (now_ns() - t) / n;
}

/* n yields through the loop and its ready queue, by `many` coroutines in turn. */
static double time_yields(ol_loop *loop, struct work *w, int cls, int many, int n) {
    for (int i = 0; i < many; i++) {
        w[i].count = 0;
        w[i].stop = n / many;
        must(ol_spawn(loop, &w[i].co, yields, 0, cls) == 0, "ol_spawn");
    }
    const double t = now_ns();
    must(ol_loop_run(loop) == 0, "ol_loop_run");
    return (now_ns() - t) / n;
}

/* A loop whose ready queue holds `many` coroutines; each has run to its first suspension. */
static ol_loop *ready_loop(struct work *w, void (*fn)(ol_co *), int many) {
    ol_loop *loop;
    must(ol_loop_create(&loop, NULL) == 0, "ol_loop_create");
    for (int i = 0; i < many; i++) must(ol_spawn(loop, &w[i].co, fn, 0, OL_LATENCY) == 0, "ol_spawn");
    for (int i = 0; i < many; i++) resume_next(loop);
    return loop;
}

static void end_all(ol_loop *loop, struct work *w, int many, uint64_t expected) {
    for (int i = 0; i < many; i++) {
        must(w[i].count >= expected, "a count of resumes");
        w[i].stop = 1;
        if (!loop->ready[OL_LATENCY].head) (void)ol__resume(loop, &w[i].co); /* it waits for nobody */
    }
    must(ol_loop_run(loop) == 0 && ol_loop_destroy(loop) == 0, "the end of a loop");
    memset(w, 0, (size_t)many * sizeof *w);
}

enum { CALL, SWITCH, SWITCH4, YIELD, YIELD4, CALL_ALL, YIELD_ALL, TURN, LATENCY, BATCH, SWITCHES };

static void switch_round(double (*v)[ROUNDS_MAX], int k) {
    enum { N = 1000000, MANY = 1000 };
    static struct work w, many[MANY];
    ol_loop *loop;
    v[CALL][k] = time_calls(&w, N);
    loop = ready_loop(&w, flat, 1);
    v[SWITCH][k] = time_resumes(loop, &w.co, N);
    end_all(loop, &w, 1, N);
    loop = ready_loop(&w, deep, 1);
    v[SWITCH4][k] = time_resumes(loop, &w.co, N);
    end_all(loop, &w, 1, N);
    loop = ready_loop(&w, flat_yield, 1);
    v[YIELD][k] = time_yields_direct(loop, N);
    end_all(loop, &w, 1, N);
    loop = ready_loop(&w, deep_yield, 1);
    v[YIELD4][k] = time_yields_direct(loop, N);
    end_all(loop, &w, 1, N);
    v[CALL_ALL][k] = time_calls_in_turn(many, MANY, N);
    loop = ready_loop(many, flat_yield, MANY);
    v[YIELD_ALL][k] = time_yields_direct(loop, N);
    end_all(loop, many, MANY, N / MANY);
    must(ol_loop_create(&loop, NULL) == 0, "ol_loop_create");
    v[TURN][k] = time_yields(loop, many, OL_LATENCY, 1, N / 10);
    v[LATENCY][k] = time_yields(loop, many, OL_LATENCY, MANY, N / 10);
    v[BATCH][k] = time_yields(loop, many, OL_BATCH, MANY, N / 10);
    memset(many, 0, sizeof many);
    must(ol_loop_destroy(loop) == 0, "ol_loop_destroy");
}

static void measure_switch(void) {
    static double v[SWITCHES][ROUNDS_MAX];
    progress("resume and yield against a call");
    switch_round(v, 0); /* warms up */
    for (int i = 0; i < rounds; i++) switch_round(v, i);
    print_median("call", v[CALL], "ns");
    print_median("switch.flat", v[SWITCH], "ns");
    print_ratio("switch.flat.ratio", v[SWITCH], v[CALL]);
    print_median("switch.depth4", v[SWITCH4], "ns");
    print_ratio("switch.depth4.ratio", v[SWITCH4], v[CALL]);
    print_median("yield.flat", v[YIELD], "ns"); /* with the ready queue */
    print_ratio("yield.flat.ratio", v[YIELD], v[CALL]);
    print_median("yield.depth4", v[YIELD4], "ns");
    print_ratio("yield.depth4.ratio", v[YIELD4], v[CALL]);
    print_median("call.1000-in-turn", v[CALL_ALL], "ns");
    print_median("yield.1000-in-turn", v[YIELD_ALL], "ns");
    print_ratio("yield.1000-in-turn.ratio", v[YIELD_ALL], v[CALL_ALL]);
    print_median("loop.turn", v[TURN], "ns"); /* one coroutine: a whole turn of the loop for each yield */
    print_median("loop.yield.latency", v[LATENCY], "ns");
    print_median("loop.yield.batch", v[BATCH], "ns");
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

struct conn {
    ol_co co;
    ol_fd fd;
    int64_t n, got, left;
    char byte;
};

static void idle(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, co);
    OL_BEGIN(co);
    OL_AWAIT(c->n, ol_read(co, c->fd, &c->byte, 1));
    OL_END(co);
}

/* Connections, both ends of socket pairs, each with a coroutine that waits for its first byte. */
static void measure_idle(void) {
    enum { WANT = 5000 };
    static struct conn c[WANT];
    struct rlimit limit;
    ol_loop *loop;
    int n = 0, pair[2];
    progress("memory of idle connections");
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    must(ol_loop_create(&loop, NULL) == 0, "ol_loop_create");
    const size_t before = heap_bytes;
    for (; n + 2 <= WANT && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0; n += 2) {
        for (int k = 0; k < 2; k++) {
            must(ol_attach(loop, pair[k], 0, &c[n + k].fd) == 0, "ol_attach");
            must(ol_spawn(loop, &c[n + k].co, idle, c[n + k].fd, 0) == 0, "ol_spawn");
        }
    }
    for (int i = 0; i < n; i++) (void)ol_loop_step(loop, 0);
    ol_loop_stats s;
    s.size = sizeof s;
    ol_loop_get_stats(loop, &s);
    must((int)s.roots == n, "a count of idle connections");
    row("idle.connections", "", n, "count");
    row("idle.slot-and-partition", "", sizeof(ol__slot) + sizeof(ol__part), "B/connection");
    row("idle.tables", "", (double)(heap_bytes - before) / n, "B/connection"); /* doubling included */
    row("idle.co", "", sizeof(ol_co), "B/connection");
    row("idle.total", "", (double)(heap_bytes - before) / n + (double)sizeof(ol_co), "B/connection");
    must(ol_loop_drain(loop, INT64_C(5000000000)) == 0, "ol_loop_drain");
    must(ol_loop_destroy(loop) == 0, "ol_loop_destroy");
}

static void measure_sizes(void) {
    row("size.frame", "", sizeof(ol_frame), "B");
    row("size.co", "", sizeof(ol_co), "B");
    row("size.op", "", sizeof(ol_op), "B");
    row("size.stream", "", sizeof(ol_stream), "B");
}

/* ---- allocations and system calls after set-up ------------------------------------------------------------------- */

static void ping(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, co);
    OL_BEGIN(co);
    for (; c->left > 0; c->left--) {
        OL_AWAIT(c->n, ol_write(co, c->fd, &c->byte, 1));
        OL_AWAIT(c->n, ol_read(co, c->fd, &c->byte, 1));
    }
    OL_END(co);
}

static void pong(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, co);
    OL_BEGIN(co);
    for (; c->left > 0; c->left--) {
        OL_AWAIT(c->n, ol_read(co, c->fd, &c->byte, 1));
        OL_AWAIT(c->n, ol_write(co, c->fd, &c->byte, 1));
    }
    OL_END(co);
}

static void run_events(ol_loop *loop, struct conn *c, int n) {
    c[0].left = c[1].left = n;
    must(ol_spawn(loop, &c[0].co, ping, c[0].fd, 0) == 0 && ol_spawn(loop, &c[1].co, pong, c[1].fd, 0) == 0,
         "ol_spawn");
    must(ol_loop_run(loop) == 0 && c[0].left == 0 && c[1].left == 0, "ping-pong");
}

static void measure_event_cost(void) {
    enum { N = 20000 };
    static struct conn c[2];
    ol_loop *loop;
    int pair[2];
    must(ol_loop_create(&loop, NULL) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "set-up");
    for (int k = 0; k < 2; k++) must(ol_attach(loop, pair[k], 0, &c[k].fd) == 0, "ol_attach");
    run_events(loop, c, 100);
    const size_t heap = heap_calls, sys = sys_calls + sys_looks;
    run_events(loop, c, N);
    row("event.allocations", "", (double)(heap_calls - heap) / (double)(2 * N), "1/event");
    row("event.system-calls", "", (double)(sys_calls + sys_looks - sys) / (double)(2 * N), "1/event");
    must(ol_loop_destroy(loop) == 0, "ol_loop_destroy");
}

struct job {
    ol_co co;
    ol_op op;
    int64_t n, left;
    int kind;
    uint64_t offloaded;
    unsigned char in[4096], out[8192];
};

static int64_t nothing(void *arg) {
    (void)arg;
    return 7;
}

static ol_op *job_prep(struct job *j) {
    if (j->kind == OL_OP_CRC32) return ol_prep_crc32(&j->op, 0, j->in, sizeof j->in);
    if (j->kind == OL_OP_DEFLATE) return ol_prep_deflate(&j->op, OL_GZIP, j->out, sizeof j->out, j->in, sizeof j->in);
    return ol_prep_call(&j->op, nothing, NULL);
}

static void job_run(ol_co *co) {
    struct job *j = OL_SELF(co, struct job, co);
    OL_BEGIN(co);
    for (; j->left > 0; j->left--) {
        OL_AWAIT(j->n, ol_run(co, job_prep(j)));
        if (j->n < 0) break;
        j->offloaded += j->op.where != 0;
    }
    OL_END(co);
}

/* `many` coroutines with n operations altogether; ns for each. All must have run on the worker. */
static double time_jobs(ol_loop *loop, struct job *j, int kind, int many, int n) {
    for (int i = 0; i < many; i++) {
        j[i].kind = kind;
        j[i].left = n / many;
        j[i].offloaded = 0;
        must(ol_spawn(loop, &j[i].co, job_run, 0, 0) == 0, "ol_spawn");
    }
    const double t = now_ns();
    must(ol_loop_run(loop) == 0, "ol_loop_run");
    const double ns = (now_ns() - t) / n;
    for (int i = 0; i < many; i++)
        must(j[i].left == 0 && j[i].offloaded == (uint64_t)(n / many), "an offloaded operation");
    return ns;
}

enum { MANY_JOBS = 64 };
static struct job jobs[MANY_JOBS];

static void measure_op_cost(void) {
    enum { N = 6400 };
    static const char *const name[] = {"", "op.call", "op.crc32", "op.deflate"};
    struct bed b;
    progress("allocations and system calls of operations");
    bed_open(&b, count_cpus() > 1, "any any 0- async threads wait");
    for (int kind = OL_OP_CALL; kind <= OL_OP_DEFLATE; kind++) {
        time_jobs(b.loop, jobs, kind, 1, 64);
        time_jobs(b.loop, jobs, kind, MANY_JOBS, N);
        const size_t heap = heap_calls, sys = sys_calls, looks = sys_looks;
        const double ns = time_jobs(b.loop, jobs, kind, 1, N) + time_jobs(b.loop, jobs, kind, MANY_JOBS, N);
        row(name[kind], ".allocations", (double)(heap_calls - heap) / (double)(2 * N), "1/op");
        if (count_cpus() == 1) continue; /* its worker does not spin */
        row(name[kind], ".system-calls", (double)(sys_calls - sys) / (double)(2 * N), "1/op");
        row(name[kind], ".looks-at-kernel", (double)(sys_looks - looks) * 1e6 / (ns * (double)N), "1/ms");
    }
    bed_close(&b);
}

/* ---- the way to another core and back ---------------------------------------------------------------------------- */

enum { RING = 256, CACHE_LINE = 64 };
struct ring { /* one producer, one consumer; each index on a cache line of its own */
    uint64_t tail __attribute__((aligned(CACHE_LINE)));
    uint64_t head __attribute__((aligned(CACHE_LINE)));
    void *slot[RING] __attribute__((aligned(CACHE_LINE)));
};
static struct ring there, back;
static int ring_stop;

static int ring_push(struct ring *r, void *p) {
    const uint64_t tail = __atomic_load_n(&r->tail, __ATOMIC_RELAXED);
    if (tail - __atomic_load_n(&r->head, __ATOMIC_ACQUIRE) == RING) return 0;
    r->slot[tail % RING] = p;
    __atomic_store_n(&r->tail, tail + 1, __ATOMIC_RELEASE);
    return 1;
}

static void *ring_pop(struct ring *r) {
    const uint64_t head = __atomic_load_n(&r->head, __ATOMIC_RELAXED);
    if (head == __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE)) return NULL;
    void *p = r->slot[head % RING];
    __atomic_store_n(&r->head, head + 1, __ATOMIC_RELEASE);
    return p;
}

static void *ring_worker(void *arg) {
    (void)arg;
    while (!__atomic_load_n(&ring_stop, __ATOMIC_RELAXED)) {
        void *p = ring_pop(&there);
        if (p) {
            while (!ring_push(&back, p)) {
            }
        } else {
            OL_SYS_PAUSE();
        }
    }
    return NULL;
}

/* n tokens there and back, `many` at a time. */
static double time_ring(int many, int n) {
    static char token;
    int sent = 0, got = 0;
    const double t = now_ns();
    while (got < n) {
        if (sent < n && sent - got < many && ring_push(&there, &token)) sent++;
        if (ring_pop(&back)) got++;
        else if (sent - got == many) OL_SYS_PAUSE();
    }
    return (now_ns() - t) / n;
}

static void measure_spinning(void) {
    enum { N = 64000 };
    static double ring1[ROUNDS_MAX], ring64[ROUNDS_MAX], op1[ROUNDS_MAX], op64[ROUNDS_MAX], sync1[ROUNDS_MAX];
    progress("round trips, all spinning");
    for (int i = -1; i < rounds; i++) { /* each bed's worker spins: only one may be there at a time */
        const int k = i < 0 ? 0 : i;
        struct bed b;
        pthread_t thread;
        ring_stop = 0;
        must(start_away(&thread, ring_worker, NULL) == 0, "a thread");
        time_ring(1, 1000);
        ring1[k] = time_ring(1, N);
        ring64[k] = time_ring(64, N);
        __atomic_store_n(&ring_stop, 1, __ATOMIC_RELAXED);
        pthread_join(thread, NULL);
        bed_open(&b, 1, "any any 0- async threads wait");
        time_jobs(b.loop, jobs, OL_OP_CALL, 1, 1000);
        op1[k] = time_jobs(b.loop, jobs, OL_OP_CALL, 1, N);
        op64[k] = time_jobs(b.loop, jobs, OL_OP_CALL, 64, N);
        bed_close(&b);
        bed_open(&b, 1, "any any 0- sync threads wait");
        time_jobs(b.loop, jobs, OL_OP_CALL, 1, 1000);
        sync1[k] = time_jobs(b.loop, jobs, OL_OP_CALL, 1, N);
        bed_close(&b);
    }
    print_median("ring.1", ring1, "ns");
    print_median("ring.64", ring64, "ns");
    print_median("offload.spinning.1", op1, "ns");
    print_ratio("offload.spinning.1.ratio", op1, ring1);
    print_median("offload.spinning.64", op64, "ns");
    print_ratio("offload.spinning.64.ratio", op64, ring64);
    print_median("offload.sync.1", sync1, "ns");
    print_ratio("offload.sync.1.ratio", sync1, ring1);
}

static int bell[2]; /* eventfds there and back */

static void *bell_worker(void *arg) {
    uint64_t v;
    (void)arg;
    while (read(bell[0], &v, sizeof v) == sizeof v && v != 1000) {
        v = 1;
        if (write(bell[1], &v, sizeof v) < 0) break;
    }
    return NULL;
}

/* Two threads that wake each other, no more: the limit of a round trip whose ends both sleep. */
static double time_bell(int n) {
    uint64_t v = 1;
    const double t = now_ns();
    for (int i = 0; i < n; i++) {
        v = 1;
        must(write(bell[0], &v, sizeof v) == sizeof v && read(bell[1], &v, sizeof v) == sizeof v, "eventfd");
    }
    return (now_ns() - t) / n;
}

static void measure_sleeping(void) {
    enum { N = 1000 };
    static double bare[ROUNDS_MAX], op1[ROUNDS_MAX], op64[ROUNDS_MAX];
    struct bed b;
    pthread_t thread;
    uint64_t stop = 1000;
    progress("round trips, all asleep between them");
    for (int k = 0; k < 2; k++) must((bell[k] = eventfd(0, 0)) >= 0, "eventfd");
    must(start_away(&thread, bell_worker, NULL) == 0, "a thread");
    bed_open(&b, 0, "any any 0- async threads wait");
    for (int i = -1; i < rounds; i++) {
        const int k = i < 0 ? 0 : i;
        bare[k] = time_bell(N);
        op1[k] = time_jobs(b.loop, jobs, OL_OP_CALL, 1, N);
        op64[k] = time_jobs(b.loop, jobs, OL_OP_CALL, 64, 64 * N);
    }
    must(write(bell[0], &stop, sizeof stop) == sizeof stop, "eventfd");
    pthread_join(thread, NULL);
    bed_close(&b);
    print_median("eventfd.1", bare, "ns");
    print_median("offload.sleeping.1", op1, "ns");
    print_ratio("offload.sleeping.1.ratio", op1, bare);
    print_median("offload.sleeping.64", op64, "ns");
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"rounds", 1, NULL, 'r'}, {"help", 0, NULL, 'h'}, {NULL, 0, NULL, 0}};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (o == 'h') {
            puts("usage: core [--rounds N]\nPrints what the library costs on this machine: name, value and unit, with "
                 "tabs "
                 "between.\n  --rounds N   rounds of each measurement, 7 to 101 [9]");
            return 0;
        }
        rounds = o == 'r' ? atoi(optarg) : 0;
        if (rounds < 7 || rounds > ROUNDS_MAX) {
            fputs("core: --rounds takes a number from 7 to 101; see core --help\n", stderr);
            return 2;
        }
    }
    const double t = now_ns();
    take_cpus();
    printf(
        "# offload.h %d.%d.%d: costs on %d CPU(s), medians of %d interleaved rounds, with .min and .max; ratios are of "
        "one round's values\n",
        OL_VERSION_MAJOR, OL_VERSION_MINOR, OL_VERSION_PATCH, count_cpus(), rounds);
    measure_sizes();
    measure_idle();
    measure_switch();
    measure_event_cost();
    measure_op_cost();
    if (count_cpus() > 1) measure_spinning();
    else puts("# one CPU: no round trip between two that spin");
    measure_sleeping();
    fprintf(stderr, "core: done in %.1f s\n", (now_ns() - t) / 1e9);
    return 0;
}
