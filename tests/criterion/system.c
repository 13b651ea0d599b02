/* What the system may answer and seldom does: errnos of accept, connect, files and epoll, old kernels, odd numbers of
   CPUs, threads that come in between, numbers of fds that a child of fork has freed. The calls themselves are replaced,
   as in tests/torture, so that what the seam does around them is the shipped code.
   cc -O2 -I. tests/criterion/system.c -o build/tests/system -lcriterion -lisal -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>

/* What a call's next answers are: errnos, then 0: the system's own. OFTEN at the end: the last one, for ever. */
enum { OFTEN = -1 };
typedef struct answers {
    const int *next;
    int after; /* so many calls */
    int calls;
} answers;
static int says(answers *a) {
    a->calls++;
    if (a->after-- > 0 || !a->next || !*a->next) return 0;
    errno = a->next[0];
    if (a->next[1] != OFTEN && !*++a->next) a->next = NULL;
    return 1;
}
static answers reads_of, writes, settings, binds, listens, statuses, flags_calls, timer_fds, at_forks;
static answers accepts, options, waits, naps, controls, opens, opens2, reads, reads_cached;
static const int *connects; /* what connect says after it has done its work */
static int no_memory, waited_ms, waits_only_noted, cached_reads_end, clock_stands, its_cpus = -1;
static int64_t ahead; /* of the real clock */

static int late(int r, const int **list) {
    if (!*list || !**list) return r;
    errno = *(*list)++;
    return -1;
}
static answers *of(long number) {
    static __thread answers none;
    return number == SYS_openat2 ? &opens2 : number == 441 /* epoll_pwait2 */ ? &naps : &none;
}
static int test_clock(clockid_t id, struct timespec *t) {
    const int r = clock_gettime(id, t);
    const int64_t real = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec, ns = (clock_stands ? 1000000000 : real) + ahead;
    t->tv_sec = (time_t)(ns / 1000000000);
    t->tv_nsec = (long)(ns % 1000000000);
    return r;
}
static int test_affinity(size_t size, cpu_set_t *set) {
    if (its_cpus == -1) return sched_getaffinity(0, size, set);
    if (its_cpus == -2) {
        errno = EINVAL; /* more CPUs than a cpu_set_t has bits */
        return -1;
    }
    CPU_ZERO(set);
    for (int i = 0; i < its_cpus; i++) CPU_SET((size_t)i, set);
    return 0;
}

/* Not every file system has a cache to ask: here it has all, or, as in Linux 5.9, nothing but an end. */
static ssize_t cached_read(int fd, const struct iovec *iov, int n, int64_t offset, int flags) {
    (void)n, (void)flags;
    return cached_reads_end ? 0 : pread(fd, iov->iov_base, iov->iov_len, offset);
}

/* A moment at which another thread comes in between: called once, before a lock is taken or a word exchanged. */
static void (*before_lock)(void);
static void (*before_swap)(void);
static int swaps_left;
static int comes_in_between(void (**what)(void)) {
    void (*const f)(void) = *what;
    *what = NULL;
    if (f) f();
    return 0;
}
static int swap_comes(void) { return before_swap && swaps_left-- == 0 ? comes_in_between(&before_swap) : 0; }

#define accept4(...) (says(&accepts) ? -1 : accept4(__VA_ARGS__))
#define connect(...) late(connect(__VA_ARGS__), &connects)
#define read(...) (says(&reads_of) ? -1 : read(__VA_ARGS__))
#define setsockopt(...) (says(&settings) ? -1 : setsockopt(__VA_ARGS__))
#define bind(...) (says(&binds) ? -1 : bind(__VA_ARGS__))
#define listen(...) (says(&listens) ? -1 : listen(__VA_ARGS__))
#define fstat(...) (says(&statuses) ? -1 : fstat(__VA_ARGS__))
#define fcntl(...) (says(&flags_calls) ? -1 : fcntl(__VA_ARGS__))
#define timerfd_create(...) (says(&timer_fds) ? -1 : timerfd_create(__VA_ARGS__))
#define pthread_atfork(...) (says(&at_forks) ? errno : pthread_atfork(__VA_ARGS__))
#define write(...) (says(&writes) ? -1 : write(__VA_ARGS__))
#define getsockopt(...) (says(&options) ? -1 : getsockopt(__VA_ARGS__))
#define epoll_ctl(...) (says(&controls) ? -1 : epoll_ctl(__VA_ARGS__))
#define epoll_wait(ep, events, n, ms)                                                                                  \
    (waited_ms = (ms), says(&waits) ? -1 : waits_only_noted ? 0 : epoll_wait((ep), (events), (n), (ms)))
#define syscall(number, ...) (says(of(number)) ? -1 : syscall((number), __VA_ARGS__))
#define openat(...) (says(&opens) ? -1 : openat(__VA_ARGS__))
#define pread(...) (says(&reads) ? -1 : pread(__VA_ARGS__))
#define preadv2(...) (says(&reads_cached) ? -1 : cached_read(__VA_ARGS__))
#define realloc(...) (no_memory ? NULL : realloc(__VA_ARGS__))
#define sched_getaffinity(pid, size, set) test_affinity((size), (set))
#define clock_gettime(id, t) test_clock((id), (t))
#define pthread_mutex_lock(m) (comes_in_between(&before_lock), pthread_mutex_lock(m))

#define OL_SYS_ATOMIC(T) T
#define OL_SYS_RELAXED __ATOMIC_RELAXED
#define OL_SYS_ACQUIRE __ATOMIC_ACQUIRE
#define OL_SYS_RELEASE __ATOMIC_RELEASE
#define OL_SYS_ACQ_REL __ATOMIC_ACQ_REL
#define OL_SYS_SEQ_CST __ATOMIC_SEQ_CST
#define OL_SYS_LOAD(p, order) __atomic_load_n((p), (order))
#define OL_SYS_STORE(p, value, order) __atomic_store_n((p), (value), (order))
#define OL_SYS_XCHG(p, value, order) __atomic_exchange_n((p), (value), (order))
#define OL_SYS_ADD(p, value, order) __atomic_fetch_add((p), (value), (order))
#define OL_SYS_CAS(p, expected, value, order)                                                                          \
    (swap_comes(), __atomic_compare_exchange_n((p), (expected), (value), 0, (order), OL_SYS_RELAXED))

#define OFFLOAD_IMPLEMENTATION
#define OFFLOAD_ISAL
#include "offload.h"

#undef accept4
#undef connect
#undef read
#undef setsockopt
#undef bind
#undef listen
#undef fstat
#undef fcntl
#undef timerfd_create
#undef pthread_atfork
#undef write
#undef getsockopt
#undef epoll_ctl
#undef epoll_wait
#undef syscall
#undef openat
#undef pread
#undef preadv2
#undef realloc
#undef sched_getaffinity
#undef clock_gettime
#undef pthread_mutex_lock

#include <criterion/criterion.h>

TestSuite(system, .timeout = 60);

static ol_loop *make(const char *policy) {
    ol_loop_desc d;
    ol_loop *loop = NULL;
    memset(&d, 0, sizeof d);
    d.policy = policy;
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
static ol_loop *make_with(ol_backend *backend, const char *policy) {
    ol_loop_desc d;
    ol_loop *loop = NULL;
    memset(&d, 0, sizeof d);
    d.policy = policy;
    d.backends = &backend;
    d.nbackends = 1;
    d.no_pool = 1;
    cr_assert_eq(ol_loop_create(&loop, &d), 0, "%s", ol_error());
    return loop;
}

typedef struct probe {
    ol_co co;
    ol_fd fd;
    ol_op op;
    struct stat st;
    int64_t r[4];
    const char *text[4];
    int i, n, how, file;
    const char *path;
    char buf[64];
} probe;

static struct sockaddr_in address;
static ol_fd listener_of(ol_loop *loop, int clients, int *client);
static void accepts_once(ol_co *co);
static int turn_of_other;
static void takes_turns(ol_co *co) {
    OL_BEGIN(co);
    turn_of_other++;
    OL_END(co);
}
static int finished;
static void finish(ol_loop *loop, ol_op *op) { (void)loop, (void)op, finished++; }
static int64_t five(void *arg) {
    (void)arg;
    return 5;
}

/* ---- old kernels */

static void timeouts_in_milliseconds(const int *refusal) {
    static const struct {
        int64_t ns;
        int ms;
    } t[] = {{1, 1},
             {999999, 1},
             {1000000, 1},
             {1000001, 2},
             {(int64_t)INT_MAX * 1000000, INT_MAX},
             {(int64_t)INT_MAX * 1000000 + 1, INT_MAX},
             {INT64_MAX / 2, INT_MAX},
             {INT64_MAX - 1, INT_MAX}};
    ol_loop *loop = make(NULL);
    waits_only_noted = 1;
    naps.next = refusal;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        cr_assert_eq(ol_loop_step(loop, t[i].ns), 0);
        cr_assert_eq(waited_ms, t[i].ms, "%d ms for %lld ns", waited_ms, (long long)t[i].ns);
    }
    cr_assert_eq(naps.calls, 1, "it is asked once");
    cr_assert_eq(ol_loop_step(loop, -1), 0);
    cr_assert_eq(waited_ms, -1);
    cr_assert_eq(ol_loop_step(loop, 0), 0);
    cr_assert_eq(waited_ms, 0);
    waits_only_noted = 0;
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
Test(system, a_kernel_before_5_11_waits_in_milliseconds_rounded_up) {
    timeouts_in_milliseconds((const int[]){ENOSYS, OFTEN});
}
Test(system, a_filter_of_calls_that_refuses_epoll_pwait2_is_an_old_kernel) {
    timeouts_in_milliseconds((const int[]){EPERM, OFTEN});
}
Test(system, other_errors_of_epoll_pwait2_are_errors) {
    ol_loop *loop = make(NULL);
    naps.next = (const int[]){EFAULT, 0};
    cr_assert_eq(ol_loop_step(loop, 1), -EFAULT);
    cr_assert_not_null(strstr(ol_error(), "address is invalid"));
    cr_assert_eq(ol_loop_step(loop, 1), 0);
    cr_assert_eq(naps.calls, 2, "it is no old kernel");
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- CPUs */

Test(system, a_pools_size_follows_the_cpus_of_the_process) {
    static const struct {
        int cpus;
        uint32_t workers, sched;
    } t[] = {{-2, 1, 1}, {0, 1, 1}, {1, 1, 1}, {2, 1, 2}, {3, 2, 2}, {64, 63, 2}, {65, 64, 2}, {1000, 64, 2}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        ol_backend *b = NULL;
        its_cpus = t[i].cpus;
        cr_assert_eq(ol_threads_create(&b, NULL), 0);
        const ol_threads_desc *d = &((const ol__pool *)b->self)->desc;
        cr_assert_eq(d->workers, t[i].workers, "%d CPUs: %u workers", its_cpus, d->workers);
        cr_assert_eq(d->sched, t[i].sched, "%d CPUs", its_cpus);
        cr_assert_eq(d->spin_ns, its_cpus > 1 ? 20000 : -1, "%d CPUs", its_cpus);
        cr_assert_eq(d->depth, 256u);
        cr_assert_eq(ol_threads_destroy(b), 0);
    }
}

static int64_t its_scheduler(void *arg) {
    (void)arg;
    return sched_getscheduler(0);
}
Test(system, with_one_cpu_the_workers_are_idle_priority) {
    static ol_op op;
    for (its_cpus = 1; its_cpus <= 2; its_cpus++) {
        ol_loop *loop = make("any any 0- async threads wait");
        cr_assert_eq(ol_submit(loop, ol_prep_call(&op, its_scheduler, NULL), finish), 0);
        cr_assert_eq(ol_loop_run(loop), 0);
        cr_assert_eq(op.result, its_cpus == 1 ? SCHED_IDLE : sched_getscheduler(0));
        cr_assert_eq(ol_loop_destroy(loop), 0);
    }
}

/* ---- errors of loops, fds and listeners that are being made */

static int lowest(void) { /* number of fd that is free: nothing is left open */
    const int fd = dup(0);
    close(fd);
    return fd;
}
Test(system, a_loop_that_cannot_hear_of_forks_is_not_made) {
    ol_loop *loop = NULL;
    const int fd = lowest();
    at_forks.next = (const int[]){ENOMEM, 0};
    cr_assert_eq(ol_loop_create(&loop, NULL), -ENOMEM);
    cr_assert_str_eq(ol_error(), "out of memory");
    cr_assert(loop == NULL && lowest() == fd);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(ol_loop_create(&loop, NULL), 0);
        cr_assert_eq(ol_loop_destroy(loop), 0);
    }
    cr_assert_eq(at_forks.calls, 2, "it is asked for until it is had");
}
Test(system, each_step_of_a_listener_may_fail) {
    static const struct {
        answers *of;
        int after, number;
        const char *word;
    } t[] = {{&settings, 0, ENOMEM, "out of memory"},        {&settings, 1, ENOPROTOOPT, "strerror"},
             {&binds, 0, EADDRINUSE, "choose another port"}, {&binds, 0, EACCES, "ports below 1024"},
             {&listens, 0, EADDRINUSE, "another server"},    {&controls, 0, ENOSPC, "strerror"}};
    ol_loop *loop = make(NULL);
    ol_fd fd = 77;
    const int free_fd = lowest();
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        const int answer[] = {t[i].number, 0};
        t[i].of->next = answer;
        t[i].of->after = t[i].after;
        cr_assert_eq(ol_listen(loop, (struct sockaddr *)&address, sizeof address, 1, 1, 0, &fd), -t[i].number);
        cr_assert_not_null(strstr(ol_error(), t[i].word), "%s", ol_error());
        cr_assert(fd == 77 && lowest() == free_fd && loop->stats.fds == 0);
    }
    settings.after = 1; /* which is not asked for now */
    settings.next = (const int[]){ENOPROTOOPT, 0};
    cr_assert_eq(ol_listen(loop, (struct sockaddr *)&address, sizeof address, 1, 0, 0, &fd), 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
Test(system, the_number_0_is_one_as_any_other) {
    ol_loop *loop = make(NULL);
    static probe p;
    int client[1];
    const int kept = dup(0);
    close(0);
    const ol_fd fd = listener_of(loop, 0, client);
    cr_assert(ol_fd_raw(loop, fd) == 0 && fd != 0);
    p.fd = fd;
    cr_assert_eq(ol_spawn(loop, &p.co, accepts_once, fd, 0), 0);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    client[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(client[0], (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_gt(p.r[0], 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    cr_assert_eq(dup2(kept, 0), 0);
    close(client[0]);
}
static ol_fd socket_given;
static void makes_a_socket(ol_co *co) {
    OL_BEGIN(co);
    cr_assert_eq(ol_socket(co, AF_INET, SOCK_STREAM, 0, &socket_given), 0);
    OL_END(co);
}
Test(system, the_number_0_can_be_attached_and_made) {
    ol_loop *loop = make(NULL);
    const int kept = dup(0);
    ol_fd fd = 0;
    static ol_co co;
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(dup2(sv[0], 0), 0);
    cr_assert_eq(ol_attach(loop, 0, 0, &fd), 0);
    cr_assert_eq(ol_fd_raw(loop, fd), 0);
    cr_assert_eq(ol_close(loop, fd), 0);
    cr_assert_eq(dup2(sv[0], 0), 0);
    cr_assert_eq(ol_attach_guest(loop, 0, 0, &fd), 0);
    cr_assert_eq(ol_fd_raw(loop, fd), 0);
    cr_assert_eq(ol_close(loop, fd), 0);
    cr_assert_eq(fcntl(0, F_GETFD), -1); /* the lowest number is free */
    cr_assert_eq(ol_spawn(loop, &co, makes_a_socket, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(ol_fd_raw(loop, socket_given), 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    cr_assert_eq(dup2(kept, 0), 0);
    close(kept), close(sv[0]), close(sv[1]);
}
Test(system, an_attach_that_fails_leaves_the_fd_to_the_caller) {
    ol_loop *loop = make(NULL);
    ol_fd fd = 77;
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    flags_calls.next = (const int[]){EBADF, 0};
    cr_assert_eq(ol_attach(loop, sv[0], 0, &fd), -EBADF);
    controls.next = (const int[]){ENOMEM, 0};
    cr_assert_eq(ol_attach(loop, sv[0], 0, &fd), -ENOMEM);
    controls.next = (const int[]){EEXIST, ENOMEM, 0}; /* a registration that has outlived its number can't be changed */
    cr_assert_eq(ol_attach(loop, sv[0], 0, &fd), -ENOMEM);
    cr_assert(fd == 77 && loop->stats.fds == 0 && fcntl(sv[0], F_GETFD) >= 0);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &fd), 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(sv[1]);
}
static void reads_a_byte(ol_co *co);
Test(system, a_registration_that_has_outlived_its_number_is_taken_over) {
    ol_loop *loop = make(NULL);
    static probe p;
    ol_fd old = 0;
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &old), 0);
    const int copy = dup(sv[0]); /* close(2) of the number doesn't end the registration of the file */
    cr_assert_eq(ol_close(loop, old), 0);
    cr_assert_eq(dup2(copy, sv[0]), sv[0]);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &p.fd), 0, "%s", ol_error());
    cr_assert_neq(p.fd, old);
    cr_assert_eq(ol_spawn(loop, &p.co, reads_a_byte, p.fd, 0), 0);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert_eq(write(sv[1], "x", 1), 1);
    cr_assert_eq(ol_loop_run(loop), 0); /* its events come with the new handle */
    cr_assert_eq(p.r[0], 1);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(copy);
    close(sv[1]);
}
static void sleeps(ol_co *co) {
    OL_BEGIN(co);
    OL_DO(ol_sleep(co, OL_NEVER));
    OL_END(co);
}
Test(system, a_coroutine_without_memory_for_its_partition_is_not_started) {
    ol_loop *loop = make(NULL);
    static ol_co co[100];
    int n = 0;
    no_memory = 1;
    int r = 0;
    while (n < 100 && (r = ol_spawn(loop, &co[n], sleeps, 0, 0)) == 0) n++;
    cr_assert_eq(r, -ENOMEM);
    cr_assert_str_eq(ol_error(), "out of memory");
    cr_assert_eq(loop->stats.roots, (uint32_t)n);
    no_memory = 0;
    cr_assert_eq(ol_loop_drain(loop, (int64_t)60 * 1000000000), 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- reads and writes that are interrupted or fail */

static void writes_twice(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    static struct iovec iov[2];
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_write(co, p->fd, "abc", 3));
    iov[0].iov_base = p->buf, iov[0].iov_len = 1;
    iov[1].iov_base = p->buf + 1, iov[1].iov_len = 2;
    memcpy(p->buf, "def", 3);
    OL_AWAIT(p->r[1], ol_writev(co, p->fd, iov, 2));
    OL_AWAIT(p->r[2], ol_write(co, p->fd, "g", 1));
    p->text[2] = ol_co_error(co);
    OL_END(co);
}
Test(system, reads_and_writes_of_a_pipe_that_are_interrupted_or_fail) {
    ol_loop *loop = make(NULL);
    static probe out, in;
    int p[2];
    cr_assert_eq(pipe(p), 0);
    cr_assert_eq(ol_attach(loop, p[0], 0, &in.fd), 0);
    cr_assert_eq(ol_attach(loop, p[1], 0, &out.fd), 0);
    writes.next = (const int[]){EINTR, EINTR, 0};
    cr_assert_eq(ol_spawn(loop, &out.co, writes_twice, out.fd, 0), 0);
    cr_assert_eq(ol_loop_step(loop, 0), 0);
    cr_assert(out.r[0] == 3 && out.r[1] == 3 && out.r[2] == 1);
    cr_assert_eq(writes.calls, 4);
    reads_of.next = (const int[]){EINTR, EINTR, 0};
    cr_assert_eq(ol_spawn(loop, &in.co, reads_a_byte, in.fd, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert(in.r[0] == 7 && memcmp(in.buf, "abcdefg", 7) == 0);
    cr_assert_eq(write(p[1], "x", 1), 1);
    cr_assert_geq(ol_loop_step(loop, 0), 0);
    reads_of.next = (const int[]){EIO, 0};
    cr_assert_eq(ol_try_read(loop, in.fd, in.buf, 1), -EIO);
    writes.next = (const int[]){EIO, 0};
    cr_assert_eq(ol_try_write(loop, out.fd, "x", 1), -EIO);
    writes.next = (const int[]){EIO, 0};
    cr_assert_eq(ol_spawn(loop, &out.co, writes_twice, out.fd, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(out.r[0], -EIO);
    cr_assert_eq(ol_close(loop, in.fd), 0);
    signal(SIGPIPE, SIG_IGN); /* the library promises for sockets only */
    cr_assert_eq(ol_spawn(loop, &out.co, writes_twice, out.fd, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert(out.r[0] == -EPIPE && out.r[1] == -EPIPE && out.r[2] == -EPIPE);
    cr_assert_str_eq(out.text[2], "the peer has closed the connection");
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
Test(system, a_peer_that_resets_the_connection) {
    ol_loop *loop = make(NULL);
    static probe p;
    const struct linger at_once = {1, 0};
    int client[1];
    const ol_fd listener = listener_of(loop, 1, client);
    cr_assert_eq(ol_loop_step(loop, 0), 0);
    p.fd = (ol_fd)ol_try_accept(loop, listener);
    cr_assert_eq(ol_spawn(loop, &p.co, reads_a_byte, p.fd, 0), 0);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert_eq(setsockopt(client[0], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    close(client[0]);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(p.r[0], -ECONNRESET);
    cr_assert_str_eq(p.text[0], "the peer reset the connection");
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- errors of accept */

static ol_fd listener_of(ol_loop *loop, int clients, int *client) { /* one with so many connections waiting */
    ol_fd fd = 0;
    socklen_t len = sizeof address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(ol_listen(loop, (struct sockaddr *)&address, sizeof address, 16, 1, 0, &fd), 0, "%s", ol_error());
    cr_assert_eq(getsockname(ol_fd_raw(loop, fd), (struct sockaddr *)&address, &len), 0);
    for (int i = 0; i < clients; i++) {
        client[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        cr_assert_eq(connect(client[i], (struct sockaddr *)&address, len), 0);
    }
    return fd;
}
static void accepts_once(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_accept(co, p->fd));
    p->text[0] = ol_co_error(co);
    OL_END(co);
}
static const int gone[] = {ECONNABORTED, EINTR,  EPROTO,       ENETDOWN,    ENOPROTOOPT,
                           EHOSTDOWN,    ENONET, EHOSTUNREACH, ENETUNREACH, 0};

Test(system, a_connection_that_is_gone_before_it_is_accepted_does_not_hide_the_next) {
    ol_loop *loop = make(NULL);
    static probe p;
    int client[10], n = 0;
    p.fd = listener_of(loop, 10, client);
    for (; gone[n]; n++) { /* each alone, then all in a row */
        const int answer[] = {gone[n], 0};
        accepts.next = answer;
        accepts.calls = 0;
        cr_assert_eq(ol_spawn(loop, &p.co, accepts_once, p.fd, 0), 0);
        cr_assert_eq(ol_loop_run(loop), 0);
        cr_assert_gt(p.r[0], 0, "%s: %s", strerror(gone[n]), p.text[0]);
        cr_assert_eq(accepts.calls, 2, "%s", strerror(gone[n]));
        cr_assert_eq(ol_close(loop, (ol_fd)p.r[0]), 0);
    }
    accepts.next = gone;
    accepts.calls = 0;
    const int64_t r = ol_try_accept(loop, p.fd);
    cr_assert_gt(r, 0, "%s", ol_error());
    cr_assert_eq(accepts.calls, 10);
    cr_assert_eq(ol_try_accept(loop, p.fd), -EAGAIN);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    for (int i = 0; i < 10; i++) close(client[i]);
}

Test(system, many_that_are_gone_do_not_hold_up_the_others) {
    ol_loop *loop = make(NULL);
    static probe p;
    static ol_co other;
    int client[1];
    p.fd = listener_of(loop, 1, client);
    loop->desc.budget = 4;
    accepts.next = gone;
    cr_assert_eq(ol_loop_step(loop, 0), 0); /* its event */
    cr_assert_eq(ol_spawn(loop, &p.co, accepts_once, p.fd, 0), 0);
    cr_assert_eq(ol_spawn(loop, &other, takes_turns, 0, 0), 0);
    while (!turn_of_other) cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert(p.r[0] == 0 && accepts.calls < 9, "it went on without end");
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_gt(p.r[0], 0);
    cr_assert_eq(accepts.calls, 10);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(client[0]);
}

Test(system, an_accept_that_fails_otherwise_says_why_and_the_listener_goes_on) {
    ol_loop *loop = make(NULL);
    static probe p;
    int client[1];
    p.fd = listener_of(loop, 1, client);
    accepts.next = (const int[]){EPERM, 0}; /* a firewall's rule, accept(2) */
    cr_assert_eq(ol_spawn(loop, &p.co, accepts_once, p.fd, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(p.r[0], -EPERM);
    cr_assert_not_null(strstr(p.text[0], "strerror"));
    cr_assert_eq(accepts.calls, 1);
    cr_assert_eq(ol_spawn(loop, &p.co, accepts_once, p.fd, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_gt(p.r[0], 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(client[0]);
}

/* Listeners without a free fd, and handlers: they are paused, together; without memory for that they are not, and the
   error is told all the same. */
static int handled[2];
static void takes_one(ol_loop *loop, ol_handler *h, int ready) {
    (void)ready;
    static ol_handler *first;
    if (!first) first = h;
    const int64_t r = ol_try_accept(loop, h->fd);
    cr_assert(r > 0 || r == -EMFILE, "%s", ol_error());
    if (r < 0) return;
    handled[h != first]++;
    cr_assert_eq(ol_close(loop, (ol_fd)r), 0);
    cr_assert_eq(ol_unwatch(loop, h->fd), 0);
}
Test(system, two_handlers_without_a_free_fd_are_paused_for_one_time) {
    ol_loop *loop = make(NULL);
    ol_handler h[2];
    int client[2];
    memset(h, 0, sizeof h);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(ol_watch(loop, listener_of(loop, 1, &client[i]), &h[i], OL_READABLE, takes_one), 0);
    accepts.next = (const int[]){EMFILE, EMFILE, 0};
    while (accepts.calls < 2) cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert(handled[0] == 0 && handled[1] == 0);
    cr_assert_eq(loop->user_timers, 1u, "one timer for both");
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    cr_assert_eq(accepts.calls, 2, "they spin");
    ahead += OL__ACCEPT_PAUSE_NS;
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert(handled[0] == 1 && handled[1] == 1);
    ol_loop_stats s;
    s.size = sizeof s;
    ol_loop_get_stats(loop, &s);
    cr_assert_eq(s.accept_full, 2u);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    for (int i = 0; i < 2; i++) close(client[i]);
}
Test(system, without_memory_for_the_pause_the_next_accept_may_come_at_once) {
    ol_loop *loop = make(NULL);
    int client[1];
    const ol_fd fd = listener_of(loop, 1, client);
    cr_assert_eq(ol_loop_step(loop, 0), 0); /* its event */
    no_memory = 1;
    accepts.next = (const int[]){ENFILE, 0};
    cr_assert_eq(ol_try_accept(loop, fd), -ENFILE);
    cr_assert_not_null(strstr(ol_error(), "ulimit -n"));
    no_memory = 0;
    cr_assert_eq(loop->user_timers, 0u);
    cr_assert_gt(ol_try_accept(loop, fd), 0, "%s", ol_error());
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(client[0]);
}

/* ---- errors of connect */

static void connects_once(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    cr_assert_eq(ol_socket(co, AF_INET, SOCK_STREAM, 0, &p->fd), 0);
    OL_AWAIT(p->r[0], ol_connect(co, p->fd, (struct sockaddr *)&address, sizeof address));
    p->text[0] = ol_co_error(co);
    OL_AWAIT(p->r[1], p->r[0] == 0 ? ol_write(co, p->fd, "x", 1) : ol_sleep(co, 0));
    ol_close(co->loop, p->fd);
    OL_END(co);
}
Test(system, a_connect_that_is_interrupted_is_under_way) {
    static const int interrupted[] = {EINTR, EALREADY, EINPROGRESS};
    ol_loop *loop = make(NULL);
    const ol_fd fd = listener_of(loop, 0, NULL);
    for (int i = 0; i < 3; i++) {
        const int answer[] = {interrupted[i], 0};
        static probe p;
        connects = answer;
        cr_assert_eq(ol_spawn(loop, &p.co, connects_once, 0, 0), 0);
        cr_assert_eq(ol_loop_run(loop), 0);
        cr_assert_eq(p.r[0], 0, "%s: %s", strerror(interrupted[i]), p.text[0]);
        cr_assert_eq(p.r[1], 1);
        connects = NULL;
        cr_assert_eq(ol_loop_step(loop, 0), 0);
        const int64_t peer = ol_try_accept(loop, fd);
        cr_assert_gt(peer, 0);
        cr_assert_eq(ol_close(loop, (ol_fd)peer), 0);
    }
    cr_assert_eq(ol_close(loop, fd), 0);
    static probe refused;
    connects = (const int[]){ECONNREFUSED, 0};
    cr_assert_eq(ol_spawn(loop, &refused.co, connects_once, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(refused.r[0], -ECONNREFUSED);
    cr_assert_not_null(strstr(refused.text[0], "nothing listens"));
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
static struct sockaddr_un local;
static void connects_locally(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    cr_assert_eq(ol_socket(co, AF_UNIX, SOCK_STREAM, 0, &p->fd), 0);
    errno = ENOENT; /* of an earlier call */
    OL_AWAIT(p->r[0], ol_connect(co, p->fd, (struct sockaddr *)&local, sizeof local));
    OL_AWAIT(p->r[1], ol_write(co, p->fd, "x", 1));
    OL_END(co);
}
Test(system, a_connect_that_is_done_at_once) {
    ol_loop *loop = make(NULL);
    static probe p;
    ol_fd fd = 0;
    local.sun_family = AF_UNIX; /* an abstract name, unix(7) */
    snprintf(local.sun_path + 1, sizeof local.sun_path - 1, "offload-test-%d", (int)getpid());
    cr_assert_eq(ol_listen(loop, (struct sockaddr *)&local, sizeof local, 1, 0, 0, &fd), 0, "%s", ol_error());
    cr_assert_eq(ol_spawn(loop, &p.co, connects_locally, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert(p.r[0] == 0 && p.r[1] == 1, "%d", (int)p.r[0]);
    cr_assert_eq(ol_loop_step(loop, 0), 0); /* the listener's event */
    cr_assert_gt(ol_try_accept(loop, fd), 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
Test(system, a_connect_whose_outcome_cannot_be_asked_for_has_failed) {
    ol_loop *loop = make(NULL);
    static probe p;
    listener_of(loop, 0, NULL);
    connects = (const int[]){EINPROGRESS, 0};
    options.next = (const int[]){ENOTSOCK, ENOBUFS, 0}; /* which protocol it is; what came of it */
    cr_assert_eq(ol_spawn(loop, &p.co, connects_once, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(p.r[0], -ENOBUFS);
    cr_assert_str_eq(p.text[0], "out of memory");
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

static void spends_all_first(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    cr_assert_eq(ol_socket(co, AF_INET, SOCK_STREAM, 0, &p->fd), 0);
    OL_AWAIT(p->r[1], ol_run(co, ol_prep_crc32(&p->op, 0, "abc", 3)));
    OL_AWAIT(p->r[0], ol_connect(co, p->fd, (struct sockaddr *)&address, sizeof address));
    OL_END(co);
}
Test(system, a_connect_for_which_no_budget_was_left_is_made_in_the_next_turn) {
    ol_loop *loop = make("");
    static probe p;
    const ol_fd fd = listener_of(loop, 0, NULL);
    loop->desc.budget = 1;
    cr_assert_eq(ol_spawn(loop, &p.co, spends_all_first, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(p.r[1], 0x352441c2);
    cr_assert_eq(p.r[0], 0);
    cr_assert_eq(ol_loop_step(loop, 0), 0);
    cr_assert_gt(ol_try_accept(loop, fd), 0, "it was not made");
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- errors of epoll_wait: told, and nothing is lost */

static int fired;
static void fire(ol_loop *loop, ol_timer *timer) { (void)loop, (void)timer, fired++; }
Test(system, an_error_of_the_wait_is_told_and_the_round_goes_on) {
    ol_loop *loop = make(NULL);
    static ol_timer t;
    cr_assert_eq(ol_timer_start(loop, &t, 0, fire), 0);
    waits.next = (const int[]){EINVAL, 0};
    cr_assert_eq(ol_loop_step(loop, 0), -EINVAL);
    cr_assert_not_null(strstr(ol_error(), "strerror"));
    cr_assert_eq(fired, 1, "what needs no kernel is done");
    cr_assert_eq(ol_timer_start(loop, &t, 0, fire), 0);
    waits.next = (const int[]){EINTR, 0}; /* is none */
    cr_assert_eq(ol_loop_step(loop, 0), 0);
    cr_assert_eq(ol_timer_start(loop, &t, 0, fire), 0);
    waits.next = (const int[]){EINVAL, 0};
    cr_assert_eq(ol_loop_run(loop), -EINVAL);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(fired, 3);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
static void sleeps_on(ol_co *co) { /* until it is cancelled for the second time */
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    for (p->n = 0; p->n < 2; p->n++) {
        OL_AWAIT(p->r[0], ol_sleep(co, OL_NEVER));
        ol_cancel_clear(co);
    }
    OL_END(co);
}
Test(system, a_drain_that_cannot_ask_the_kernel_can_be_repeated) {
    ol_loop *loop = make(NULL);
    static probe p;
    cr_assert_eq(ol_spawn(loop, &p.co, sleeps_on, 0, 0), 0);
    cr_assert_eq(ol_loop_step(loop, 0), 1);
    waits.next = naps.next = (const int[]){EBADF, 0};
    cr_assert_eq(ol_loop_drain(loop, (int64_t)60 * 1000000000), -EBADF);
    cr_assert(p.n == 1 && loop->stats.roots == 1);
    waits.next = naps.next = NULL;
    cr_assert_eq(ol_loop_drain(loop, (int64_t)60 * 1000000000), 0);
    cr_assert_eq(p.n, 2);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
static probe born;
static void spawns(ol_loop *loop, ol_post_node *node) {
    (void)node;
    cr_assert_eq(ol_spawn(loop, &born.co, sleeps_on, 0, 0), 0);
}
Test(system, a_destroy_that_cannot_ask_the_kernel_can_be_repeated) {
    ol_loop *loop = make(NULL);
    static ol_op op;
    static ol_post_node node;
    int sv[2];
    ol_fd fd;
    node.fn = spawns;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &fd), 0);
    waits.next = naps.next = (const int[]){EBADF, 0};
    cr_assert_eq(ol_loop_destroy(loop), -EBADF);
    waits.next = naps.next = NULL;
    cr_assert_eq(ol_fd_raw(loop, fd), sv[0], "it is as it was");
    cr_assert_eq(ol_submit(loop, ol_prep_crc32(&op, 0, "abc", 3), finish), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(finished, 1);
    cr_assert_eq(ol_post(loop, &node), 0);
    cr_assert_eq(ol_loop_destroy(loop), -EBUSY); /* another reason */
    cr_assert_eq(ol_loop_drain(loop, (int64_t)60 * 1000000000), 0);
    cr_assert_eq(born.n, 2);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(sv[1]);
}

static int posted;
static void on_post(ol_loop *loop, ol_post_node *node) { (void)loop, (void)node, posted++; }
Test(system, a_wake_up_that_is_interrupted_is_tried_again_one_that_fails_is_not) {
    ol_loop *loop = make(NULL);
    static ol_post_node node[2];
    cr_assert_geq(ol_loop_fd(loop), 0); /* it counts as asleep */
    for (int i = 0; i < 2; i++) {
        node[i].fn = on_post;
        writes.next = i ? (const int[]){EAGAIN, EAGAIN, 0} : (const int[]){EINTR, EINTR, 0};
        writes.calls = 0;
        errno = 1234;
        cr_assert_eq(ol_post(loop, &node[i]), 0);
        cr_assert_eq(writes.calls, i ? 1 : 3);
        cr_assert_eq(errno, 1234, "a signal handler's caller sees another errno");
        cr_assert_eq(ol_loop_step(loop, 0), 0);
        cr_assert_eq(posted, i + 1);
    }
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- files */

static char tree[64], *large;
static int dir;
static void make_tree(void) {
    struct sockaddr_un a;
    strcpy(tree, "/tmp/offload-test-XXXXXX");
    cr_assert_not_null(mkdtemp(tree));
    dir = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int f = openat(dir, "file", O_CREAT | O_WRONLY, 0600);
    cr_assert_eq(write(f, "0123456789", 10), 10);
    close(f);
    cr_assert_eq(mkdirat(dir, "dir", 0700), 0);
    memset(&a, 0, sizeof a);
    a.sun_family = AF_UNIX;
    snprintf(a.sun_path, sizeof a.sun_path, "%s/socket", tree);
    const int s = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(s, (struct sockaddr *)&a, sizeof a), 0);
    close(s);
}
static void remove_tree(void) {
    unlinkat(dir, "file", 0);
    unlinkat(dir, "socket", 0);
    unlinkat(dir, "dir", AT_REMOVEDIR);
    close(dir);
    rmdir(tree);
}

static void opens_once(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_open(co, &p->op, dir, p->path, p->n, 0, p->how));
    p->text[0] = ol_co_error(co);
    OL_END(co);
}
static void reads_once(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_pread(co, &p->op, p->file, p->buf, sizeof p->buf, 2));
    p->text[0] = ol_co_error(co);
    OL_END(co);
}
static const char *const in_software = "file any 0- software - -";
static probe *run_on(ol_loop *loop, void (*fn)(ol_co *), probe p) {
    static probe kept;
    opens.calls = opens2.calls = reads.calls = reads_cached.calls = 0;
    kept = p;
    cr_assert_eq(ol_spawn(loop, &kept.co, fn, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    return &kept;
}
static probe *open_it(ol_loop *loop, const char *path, int flags, int how) {
    probe p;
    memset(&p, 0, sizeof p);
    p.path = path;
    p.n = flags;
    p.how = how;
    return run_on(loop, opens_once, p);
}

Test(system, a_race_with_a_rename_is_run_again_but_not_for_ever) {
    ol_loop *loop = make(in_software);
    make_tree();
    opens2.next = (const int[]){EAGAIN, EAGAIN, EINTR, EAGAIN, 0}; /* the first: it is not in the cache */
    probe *p = open_it(loop, "file", O_RDONLY, OL_BENEATH);
    cr_assert_geq(p->r[0], 0, "%s", p->text[0]);
    cr_assert_eq(opens2.calls, 5);
    cr_assert_eq(p->op.why, OL_WHY_RULE);
    close((int)p->r[0]);
    opens2.next = (const int[]){EAGAIN, OFTEN};
    p = open_it(loop, "file", O_RDONLY, OL_BENEATH);
    cr_assert_eq(p->r[0], -EAGAIN);
    cr_assert_eq(opens2.calls, 1 + 64);
    remove_tree();
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
Test(system, a_lease_that_must_be_broken_is_told_at_once) {
    ol_loop *loop = make(in_software);
    make_tree();
    opens2.next = (const int[]){EAGAIN, 0};
    opens.next = (const int[]){EAGAIN, 0}; /* open(2): EWOULDBLOCK, of a file with a lease and O_NONBLOCK */
    probe *p = open_it(loop, "file", O_RDONLY | O_NONBLOCK, 0);
    cr_assert_eq(p->r[0], -EAGAIN);
    cr_assert_eq(opens.calls, 1);
    opens2.next = (const int[]){EAGAIN, 0};
    opens.next = (const int[]){EINTR, EINTR, 0}; /* a slow device */
    p = open_it(loop, "file", O_RDONLY, 0);
    cr_assert_geq(p->r[0], 0, "%s", p->text[0]);
    cr_assert_eq(opens.calls, 3);
    close((int)p->r[0]);
    remove_tree();
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
Test(system, what_the_cached_open_may_say_without_knowing_the_answer) {
    static const int unknown[] = {EAGAIN, ENOSYS, EINVAL, EINTR, EPERM, ENXIO};
    ol_loop *loop = make(in_software);
    make_tree();
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        const int answer[] = {unknown[i], 0};
        opens2.next = answer;
        probe *p = open_it(loop, "file", O_RDONLY, 0);
        cr_assert_geq(p->r[0], 0, "%s", strerror(unknown[i]));
        cr_assert(p->op.why == OL_WHY_RULE && opens.calls == 1, "%s", strerror(unknown[i]));
        close((int)p->r[0]);
    }
    opens2.next = (const int[]){ELOOP, 0}; /* the answer */
    probe *p = open_it(loop, "file", O_RDONLY, 0);
    cr_assert_eq(p->r[0], -ELOOP);
    cr_assert(p->op.why == OL_WHY_CACHE && opens.calls == 0);
    remove_tree();
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
Test(system, a_kernel_before_5_6_opens_but_not_beneath) {
    ol_loop *loop = make(in_software);
    make_tree();
    opens2.next = (const int[]){ENOSYS, OFTEN};
    probe *p = open_it(loop, "file", O_RDONLY, 0);
    cr_assert_geq(p->r[0], 0, "%s", p->text[0]);
    close((int)p->r[0]);
    p = open_it(loop, "file", O_RDONLY, OL_BENEATH);
    cr_assert_eq(p->r[0], -ENOTSUP);
    cr_assert_not_null(strstr(p->text[0], "openat2"));
    remove_tree();
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
Test(system, a_directory_is_opened_on_the_spot_a_socket_is_refused_by_the_operation) {
    ol_loop *loop = make(in_software);
    struct stat st;
    make_tree();
    cr_assert(fstatat(dir, "dir", &st, 0) == 0 && fstatat(dir, "socket", &st, 0) == 0); /* in the name cache */
    probe *p = open_it(loop, "dir", O_RDONLY | O_DIRECTORY, 0);
    cr_assert_geq(p->r[0], 0, "%s", p->text[0]);
    cr_assert(fstat((int)p->r[0], &st) == 0 && S_ISDIR(st.st_mode));
    cr_assert(p->op.why == OL_WHY_CACHE || opens2.calls == 1, "%s", ol_op_why(&p->op));
    cr_assert_eq(fcntl((int)p->r[0], F_GETFL) & O_NONBLOCK, 0);
    const int cached = p->op.why == OL_WHY_CACHE;
    close((int)p->r[0]);
    p = open_it(loop, "socket", O_RDONLY, 0);
    cr_assert_eq(p->r[0], -ENXIO);
    cr_assert(p->op.why == OL_WHY_RULE && opens.calls == 1);
    p = open_it(loop, "/dev/null", O_RDONLY, 0); /* a device may wait: it isn't kept on the spot */
    cr_assert_geq(p->r[0], 0);
    cr_assert(p->op.why == OL_WHY_RULE && opens.calls == 1);
    close((int)p->r[0]);
    p = open_it(loop, "/dev/null", O_RDONLY | O_NONBLOCK, 0); /* this one can't */
    cr_assert_geq(p->r[0], 0);
    cr_assert(fcntl((int)p->r[0], F_GETFL) & O_NONBLOCK);
    cr_assert(!cached || p->op.why == OL_WHY_CACHE);
    close((int)p->r[0]);
    remove_tree();
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

Test(system, a_file_that_cannot_be_looked_at_is_opened_by_the_operation) {
    ol_loop *loop = make(in_software);
    make_tree();
    for (int i = 0; i < 3; i++) { /* fstat; the two steps that clear O_NONBLOCK */
        answers *a = i ? &flags_calls : &statuses;
        const int fd = lowest();
        opens.calls = 0;
        a->next = (const int[]){EIO, 0};
        a->after = i / 2;
        probe *p = open_it(loop, "file", O_RDONLY, 0);
        cr_assert_eq(p->r[0], fd, "%d: the first one is still open", i);
        cr_assert_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
        cr_assert(p->op.why == OL_WHY_RULE && opens.calls == 1);
        close(fd);
    }
    remove_tree();
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
static void reads_long(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_pread(co, &p->op, p->file, large, (size_t)p->n, 0));
    ol_cancel(co);
    OL_AWAIT(p->r[1], ol_stat(co, &p->op, AT_FDCWD, "/", &p->st));
    OL_AWAIT(p->r[2], ol_open(co, &p->op, AT_FDCWD, "/", O_RDONLY, 0, 0));
    OL_END(co);
}
Test(system, a_long_read_is_never_made_on_the_spot) {
    ol_loop *loop = make(in_software);
    probe p;
    large = calloc(1, OL__SPOT_BYTES + 1);
    memset(&p, 0, sizeof p);
    p.file = memfd_create("large", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(p.file, OL__SPOT_BYTES + 1), 0);
    for (p.n = OL__SPOT_BYTES; p.n <= OL__SPOT_BYTES + 1; p.n++) {
        const probe *q = run_on(loop, reads_long, p);
        cr_assert_eq(q->r[0], p.n);
        cr_assert_eq(reads.calls, p.n > OL__SPOT_BYTES);
        cr_assert(q->r[1] == -ECANCELED && q->r[2] == -ECANCELED);
    }
    close(p.file);
    free(large);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* A read of eight bytes: what the cached read says, what the read of the operation says; the result; who has said it. */
static void a_read(const int *cached, const int *plain, int64_t want, uint8_t why, int plain_calls) {
    ol_loop *loop = make(in_software);
    probe p;
    make_tree();
    memset(&p, 0, sizeof p);
    p.file = openat(dir, "file", O_RDONLY | O_CLOEXEC);
    reads_cached.next = cached;
    reads.next = plain;
    errno = EAGAIN; /* of an earlier call */
    const probe *q = run_on(loop, reads_once, p);
    cr_assert_eq(q->r[0], want, "%lld: %s", (long long)q->r[0], q->text[0]);
    if (want > 0) cr_assert(memcmp(q->buf, "23456789", 8) == 0);
    cr_assert_eq(q->op.why, why);
    cr_assert_eq(reads.calls, plain_calls);
    close(p.file);
    remove_tree();
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
Test(system, a_read_that_is_interrupted_goes_on) {
    a_read((const int[]){EINTR, EINTR, EAGAIN, 0}, (const int[]){EINTR, 0}, 8, OL_WHY_RULE, 3);
}
Test(system, a_file_system_without_a_cached_read) { a_read((const int[]){EOPNOTSUPP, 0}, NULL, 8, OL_WHY_RULE, 2); }
Test(system, a_kernel_without_a_cached_read) { a_read((const int[]){ENOSYS, 0}, NULL, 8, OL_WHY_RULE, 2); }
Test(system, what_is_not_in_the_cache) { a_read((const int[]){EAGAIN, 0}, NULL, 8, OL_WHY_RULE, 2); }
Test(system, a_cached_read_that_fails) { a_read((const int[]){EIO, 0}, NULL, -EIO, OL_WHY_CACHE, 0); }
Test(system, a_read_that_fails) { a_read((const int[]){EAGAIN, 0}, (const int[]){EIO, 0}, -EIO, OL_WHY_RULE, 1); }
Test(system, what_is_in_the_cache_is_read_to_its_end) { a_read(NULL, NULL, 8, OL_WHY_CACHE, 0); }
Test(system, the_cached_read_of_linux_5_9_says_the_end_too_early) {
    cached_reads_end = 1;
    a_read(NULL, NULL, 8, OL_WHY_RULE, 2);
}

Test(system, an_end_that_cannot_be_checked_is_none) {
    cached_reads_end = 1;
    statuses.next = (const int[]){EIO, 0};
    a_read(NULL, NULL, 8, OL_WHY_RULE, 2);
}

/* ---- what an operation on the spot costs: the coroutine goes on only within its budget */

enum { LARGE = 4 << 20 };
static void deflates_twice(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    for (p->i = 0; p->i < 2; p->i++) {
        OL_AWAIT(p->r[p->i], ol_run(co, ol_prep_deflate(&p->op, OL_RAW, large + LARGE, LARGE, large, LARGE)));
        p->r[2 + p->i] = turn_of_other;
    }
    OL_END(co);
}
Test(system, however_large_a_buffer_it_costs_1024_at_most) {
    static probe p;
    static ol_co other;
    ol_loop_desc d;
    ol_loop *loop = NULL;
    memset(&d, 0, sizeof d);
    d.no_pool = 1;
    d.budget = 2047; /* the first one fits, by its size it would not; the second doesn't */
    cr_assert_eq(ol_loop_create(&loop, &d), 0);
    large = calloc(2, LARGE);
    cr_assert_eq(ol_spawn(loop, &p.co, deflates_twice, 0, 0), 0);
    cr_assert_eq(ol_spawn(loop, &other, takes_turns, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert(p.r[0] > 0 && p.r[1] > 0);
    cr_assert_eq(p.r[2], 0, "it was put off at once");
    cr_assert_eq(p.r[3], 1, "it went on without end");
    free(large);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- a device that takes its time, and hands back many at once */

static ol_op *had[200];
static int has, most_asked_for;
static int64_t takes_ns;
static int device_open(void *self, ol_notify *notify, ol_channel *out) {
    (void)notify;
    out->self = self;
    out->depth = *(const uint32_t *)self;
    return 0;
}
static int device_submit(void *channel, ol_op *const *ops, int n) {
    (void)channel;
    for (int i = 0; i < n; i++) had[has++] = ops[i];
    return n;
}
static int device_poll(void *channel, ol_op **ops, int max) {
    (void)channel;
    int n = 0;
    if (max > most_asked_for) most_asked_for = max;
    for (; n < max && has; n++) {
        ops[n] = had[--has];
        ops[n]->result = 7;
    }
    return n;
}
static int device_look(void *channel) {
    (void)channel;
    ahead += takes_ns;
    return has;
}
static void device_close(void *channel) { (void)channel; }
static ol_backend a_device(uint32_t *depth) {
    ol_backend b;
    memset(&b, 0, sizeof b);
    b.version = OL_BACKEND_VERSION;
    b.kinds = 1u << OL_OP_CALL | 1u << OL_OP_CRC32;
    b.name = "device";
    b.self = depth;
    b.open = device_open;
    b.submit = device_submit;
    b.poll = device_poll;
    b.look = device_look;
    b.close = device_close;
    return b;
}

Test(system, completions_are_taken_64_at_a_time_at_most) {
    uint32_t depth = 200;
    ol_backend b = a_device(&depth), *list[1] = {&b};
    ol_loop_desc d;
    ol_loop *loop = NULL;
    static ol_op op[150];
    memset(&d, 0, sizeof d);
    d.backends = list;
    d.nbackends = 1;
    d.no_pool = 1;
    d.policy = "any any 0- async device wait";
    for (uint32_t batch = 63; batch <= 65; batch++) {
        d.dequeue_batch = batch;
        finished = most_asked_for = 0;
        cr_assert_eq(ol_loop_create(&loop, &d), 0, "%s", ol_error());
        for (int i = 0; i < 150; i++) cr_assert_eq(ol_submit(loop, ol_prep_call(&op[i], five, NULL), finish), 0);
        cr_assert_eq(ol_loop_run(loop), 0);
        cr_assert_eq(finished, 150);
        cr_assert_eq(most_asked_for, batch == 63 ? 63 : 64);
        cr_assert_eq(ol_loop_destroy(loop), 0);
    }
}

static void waits_for_it(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_run(co, ol_prep_call(&p->op, five, NULL)));
    p->r[1] = turn_of_other;
    OL_END(co);
}
Test(system, a_synchronous_wait_costs_what_it_took) {
    static const struct {
        int64_t us;
        int others; /* have run before it goes on */
    } t[] = {{0, 0}, {99, 0}, {100, 1}, {1023, 1}, {1024, 1}, {UINT32_MAX, 1}, {(int64_t)1 << 32, 1}};
    clock_stands = 1;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        uint32_t depth = 8;
        static probe p;
        static ol_co other;
        ol_backend b = a_device(&depth);
        ol_loop *loop = make_with(&b, "any any 0- sync device wait");
        loop->desc.sync_ns = INT64_MAX;
        loop->desc.budget = 100;
        takes_ns = t[i].us * 1000;
        turn_of_other = 0;
        cr_assert_eq(ol_spawn(loop, &p.co, waits_for_it, 0, 0), 0);
        cr_assert_eq(ol_spawn(loop, &other, takes_turns, 0, 0), 0);
        cr_assert_eq(ol_loop_run(loop), 0);
        cr_assert_eq(p.r[0], 7);
        cr_assert_eq(p.op.mode, OL_SYNC);
        cr_assert_eq(p.r[1], t[i].others, "%lld us", (long long)t[i].us);
        cr_assert_eq(ol_loop_destroy(loop), 0);
    }
}

/* ---- another thread comes in between */

static ol_loop *between;
static void loop_takes_its_posts(void) { cr_assert_geq(ol_loop_step(between, 0), 0); }
Test(system, a_node_that_the_loop_takes_while_it_is_posted_again_is_posted_again) {
    static ol_post_node node;
    between = make(NULL);
    node.fn = on_post;
    cr_assert_eq(ol_post(between, &node), 0);
    cr_assert_eq(ol_post(between, &node), -EBUSY);
    before_swap = loop_takes_its_posts; /* between the look at the node and the touch that says "still queued" */
    swaps_left = 1;
    cr_assert_eq(ol_post(between, &node), 0);
    cr_assert_null(before_swap);
    cr_assert_eq(posted, 1);
    cr_assert_eq(ol_loop_run(between), 0);
    cr_assert_eq(posted, 2, "a post was lost");
    cr_assert_eq(ol_loop_destroy(between), 0);
}
static ol_post_node rival;
static void rival_posts(void) { cr_assert_eq(ol_post(between, &rival), 0); }
Test(system, two_posts_at_a_time_are_both_queued) {
    static ol_post_node node;
    between = make(NULL);
    node.fn = rival.fn = on_post;
    before_swap = rival_posts; /* between the look at the list's head and its exchange */
    swaps_left = 1;
    cr_assert_eq(ol_post(between, &node), 0);
    cr_assert_eq(ol_loop_run(between), 0);
    cr_assert_eq(posted, 2, "a post was lost");
    cr_assert_eq(ol_loop_destroy(between), 0);
}

/* ---- the pool's limit */

Test(system, a_pool_serves_256_loops_and_takes_another_when_one_has_gone) {
    static ol_loop *loop[256];
    ol_loop_desc d;
    ol_loop *another = NULL;
    ol_backend *pool = make_pool(1, 1);
    memset(&d, 0, sizeof d);
    d.backends = &pool;
    d.nbackends = 1;
    for (int i = 0; i < 256; i++) cr_assert_eq(ol_loop_create(&loop[i], &d), 0, "%d: %s", i, ol_error());
    cr_assert_eq(ol_loop_create(&another, &d), -ENOSPC);
    cr_assert_not_null(strstr(ol_error(), "256 loops"));
    cr_assert_null(another);
    cr_assert_eq(ol_threads_destroy(pool), -EBUSY);
    cr_assert_eq(ol_loop_destroy(loop[100]), 0);
    cr_assert_eq(ol_loop_create(&loop[100], &d), 0, "%s", ol_error());
    cr_assert_eq(ol_loop_create(&another, &d), -ENOSPC);
    static ol_op op;
    cr_assert_eq(ol_submit(loop[100], ol_prep_call(&op, five, NULL), finish), 0);
    cr_assert_eq(ol_loop_run(loop[100]), 0);
    cr_assert(finished == 1 && op.result == 5);
    for (int i = 0; i < 256; i++) cr_assert_eq(ol_loop_destroy(loop[i]), 0);
    cr_assert_eq(ol_threads_destroy(pool), 0);
}

/* ---- forks: what the child does is told by its exit status, the number of the line that doesn't hold */

#define HOLDS(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "in the child: %s:%d: %s does not hold: %s\n", __FILE__, __LINE__, #condition,             \
                    ol_error());                                                                                       \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)
static void in_a_child(int (*f)(void)) {
    int status = 0;
    const pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) _exit(f());
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
}

static struct {
    ol_loop *loop;
    ol_fd fd;
    int far;
} heir;
static int closes_and_listens(void) {
    ol_loop_stats *s = &heir.loop->stats;
    HOLDS(ol_loop_step(heir.loop, 0) >= 0);
    HOLDS(ol_close(heir.loop, heir.fd) == 0);
    const uint64_t before = s->events + s->stale;
    HOLDS(write(heir.far, "x", 1) == 1); /* to the parent, which has it still */
    for (int i = 0; i < 3; i++) HOLDS(ol_loop_step(heir.loop, 0) >= 0);
    HOLDS(s->events + s->stale == before);
    HOLDS(ol_loop_destroy(heir.loop) == 0);
    return 0;
}
Test(system, a_child_hears_no_more_of_what_it_has_closed) {
    int sv[2];
    heir.loop = make(NULL);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    heir.far = sv[1];
    cr_assert_eq(ol_attach(heir.loop, sv[0], 0, &heir.fd), 0);
    cr_assert_geq(ol_loop_step(heir.loop, 0), 0);
    in_a_child(closes_and_listens);
    cr_assert_geq(ol_loop_step(heir.loop, 0), 0);
    cr_assert_gt(heir.loop->stats.events, 0);
    cr_assert_eq(ol_loop_destroy(heir.loop), 0);
    close(sv[1]);
}

static void reads_a_byte(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_read(co, p->fd, p->buf, sizeof p->buf));
    p->text[0] = ol_co_error(co);
    OL_END(co);
}
static struct {
    ol_loop *loop;
    probe p[5];
    int far[5];
} f;
static void five_readers(int with_guest) {
    f.loop = make(NULL);
    for (int i = 0; i < 5; i++) {
        int sv[2];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
        f.far[i] = sv[1];
        cr_assert_eq(ol_attach(f.loop, sv[0], 0, &f.p[i].fd), 0);
        f.p[i].r[0] = 1234;
        cr_assert_eq(ol_spawn(f.loop, &f.p[i].co, reads_a_byte, f.p[i].fd, 0), 0);
    }
    if (with_guest) cr_assert_geq(ol_loop_fd(f.loop), 0);
    cr_assert_eq(ol_loop_step(f.loop, 0), 1);
}
static void readers_end(void) { /* in the parent all five are as they were */
    for (int i = 0; i < 5; i++) cr_assert_eq(write(f.far[i], "p", 1), 1);
    cr_assert_eq(ol_loop_run(f.loop), 0);
    for (int i = 0; i < 5; i++) {
        cr_assert(f.p[i].r[0] == 1 && f.p[i].buf[0] == 'p');
        close(f.far[i]);
    }
    cr_assert_eq(ol_loop_destroy(f.loop), 0);
}

static int their_numbers_are_given_out_again(void) {
    int raw[5], n;
    for (int i = 0; i < 5; i++) raw[i] = ol_fd_raw(f.loop, f.p[i].fd);
    do n = dup(0);
    while (n >= 0 && n < raw[4]); /* no other number is free below */
    HOLDS(n > raw[4]);
    for (int i = 0; i < 3; i++) close(raw[i]);
    HOLDS(ol_loop_step(f.loop, 0) == 1);
    HOLDS(f.loop->ep == raw[0] && f.loop->notify.eventfd == raw[1] && f.loop->timerfd == raw[2]);
    for (int i = 0; i < 3; i++) {
        HOLDS(f.p[i].r[0] == -ECANCELED);
        HOLDS(ol_fd_raw(f.loop, f.p[i].fd) == -EBADF);
    }
    HOLDS(f.p[3].r[0] == 1234 && f.p[4].r[0] == 1234);
    for (int i = 3; i < 5; i++) HOLDS(write(f.far[i], "cc", 2) == 2);
    HOLDS(ol_loop_run(f.loop) == 0);
    for (int i = 3; i < 5; i++) {
        HOLDS(f.p[i].r[0] == 2 && f.p[i].buf[1] == 'c');
        HOLDS(ol_fd_raw(f.loop, f.p[i].fd) == raw[i]);
    }
    HOLDS(ol_loop_destroy(f.loop) == 0);
    return 0;
}
Test(system, a_child_that_has_closed_fds_whose_numbers_the_loops_own_get) {
    five_readers(1);
    in_a_child(their_numbers_are_given_out_again);
    readers_end();
}

static int low[3];
static int one_is_gone_and_memory_is_short(void) {
    static const int no[] = {ENOMEM, 0};
    const int gone_fd = ol_fd_raw(f.loop, f.p[4].fd);
    int failed = 0, r;
    for (int i = 0; i < 3; i++) close(low[i]); /* what the loop opens gets these numbers */
    close(gone_fd);
    const int fds = open("/dev/null", O_RDONLY);
    close(fds);
    for (;; failed++) { /* each registration fails in turn, that of the closed fd among them */
        controls.next = no;
        controls.after = failed;
        r = ol_loop_step(f.loop, 0);
        if (r >= 0) break;
        HOLDS(r == -ENOMEM && strstr(ol_error(), "memory"));
        HOLDS(dup(0) == fds && close(fds) == 0); /* nothing stays open */
    }
    controls.next = NULL;
    HOLDS(failed == 1 + 5 && r == 1);
    HOLDS(f.loop->ep == low[0] && fcntl(gone_fd, F_GETFD) < 0);
    for (int i = 0; i < 4; i++) HOLDS(write(f.far[i], "c", 1) == 1);
    ol_cancel(&f.p[4].co);
    HOLDS(ol_loop_run(f.loop) == 0);
    for (int i = 0; i < 4; i++) HOLDS(f.p[i].r[0] == 1 && f.p[i].buf[0] == 'c');
    HOLDS(f.p[4].r[0] == -ECANCELED);
    return 0;
}
Test(system, a_child_that_has_closed_an_fd_and_has_no_memory_at_first) {
    for (int i = 0; i < 3; i++) low[i] = dup(0);
    five_readers(0);
    in_a_child(one_is_gone_and_memory_is_short);
    readers_end();
    for (int i = 0; i < 3; i++) close(low[i]);
}

static int no_timer_at_first(void) {
    const int fd = lowest();
    HOLDS(ol_close(f.loop, f.p[0].fd) == 0); /* before the loop is used here */
    HOLDS(fcntl(lowest(), F_GETFD) < 0 && lowest() < fd);
    timer_fds.next = (const int[]){EMFILE, 0};
    HOLDS(ol_loop_step(f.loop, 0) == -EMFILE && strstr(ol_error(), "ulimit -n"));
    controls.next = (const int[]){ENOSPC, 0};
    controls.after = 1; /* the eventfd's is well */
    HOLDS(ol_loop_step(f.loop, 0) == -ENOSPC);
    HOLDS(ol_loop_step(f.loop, 0) == 1);
    HOLDS(f.p[0].r[0] == -ECANCELED);
    for (int i = 1; i < 5; i++) HOLDS(write(f.far[i], "c", 1) == 1);
    HOLDS(ol_loop_run(f.loop) == 0);
    for (int i = 1; i < 5; i++) HOLDS(f.p[i].r[0] == 1 && f.p[i].buf[0] == 'c');
    return 0;
}
Test(system, a_child_whose_loop_is_watched_and_has_no_fd_at_first) {
    five_readers(1);
    in_a_child(no_timer_at_first);
    readers_end(); /* what the child has closed is open here */
}

static uint32_t device_depth;
static ol_loop *device_loop;
static int its_device_is_opened_again(void) {
    static ol_op op[2];
    HOLDS(ol_loop_step(device_loop, 0) == 0);
    for (int i = 0; i < 2; i++) HOLDS(ol_submit(device_loop, ol_prep_call(&op[i], five, NULL), finish) == 0);
    HOLDS(ol_loop_run(device_loop) == 0);
    HOLDS(finished == 2 && op[0].result == 7 && op[1].result == 7);
    HOLDS(op[0].why == OL_WHY_RULE && op[1].why == OL_WHY_PARKED); /* one at a time */
    return 0;
}
Test(system, a_depth_of_none_is_one_in_a_child_as_well) {
    static ol_op op[2];
    ol_backend b = a_device(&device_depth);
    device_loop = make_with(&b, "any any 0- async device wait");
    for (int i = 0; i < 2; i++) cr_assert_eq(ol_submit(device_loop, ol_prep_call(&op[i], five, NULL), finish), 0);
    cr_assert_eq(ol_loop_run(device_loop), 0);
    cr_assert(op[0].why == OL_WHY_RULE && op[1].why == OL_WHY_PARKED);
    finished = 0;
    in_a_child(its_device_is_opened_again);
    cr_assert_eq(ol_loop_destroy(device_loop), 0);
}

/* Two loops of two threads share a pool. After a fork both come to it at a time: what the first one has made of it, and
   submitted, the second one leaves alone. */
static ol_loop *first, *second;
static ol_op in_between;
static void first_loop_comes(void) {
    cr_assert_eq(ol_submit(first, ol_prep_call(&in_between, five, NULL), finish), 0);
    cr_assert_geq(ol_loop_step(first, 0), 0);
}
static int both_come_to_the_pool(void) {
    static ol_op op;
    before_lock = first_loop_comes; /* when `second` takes the lock under which the pool is made anew */
    HOLDS(ol_loop_step(second, 0) == 0);
    HOLDS(before_lock == NULL);
    HOLDS(ol_submit(second, ol_prep_call(&op, five, NULL), finish) == 0);
    HOLDS(ol_loop_run(second) == 0);
    HOLDS(ol_loop_run(first) == 0); /* else it waits for ever */
    HOLDS(finished == 2 && in_between.result == 5 && op.result == 5);
    HOLDS(ol_loop_destroy(first) == 0 && ol_loop_destroy(second) == 0);
    return 0;
}
Test(system, a_pool_is_made_anew_once_in_a_child) {
    ol_backend *pool = make_pool(2, 16);
    first = make_with(pool, "any any 0- async threads wait");
    second = make_with(pool, "any any 0- async threads wait");
    in_a_child(both_come_to_the_pool);
    cr_assert_eq(ol_loop_destroy(first), 0);
    cr_assert_eq(ol_loop_destroy(second), 0);
    cr_assert_eq(ol_threads_destroy(pool), 0);
}
