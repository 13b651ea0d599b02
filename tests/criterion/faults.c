/* Bad input and failing systems on the real kernel: a negative errno with a text that names the remedy; nothing lost,
   leaked or spinning.
   cc -O2 -I. tests/criterion/faults.c -o build/tests/faults -lcriterion -lisal -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdlib.h>

/* The seam: allocations are counted, and the n-th one fails. */
static long allocations, live, fail_at = -1;
static void *count_malloc(size_t n);
static void *count_realloc(void *p, size_t n);
static void count_free(void *p) {
    __atomic_fetch_sub(&live, p != NULL, __ATOMIC_RELAXED);
    free(p);
}
#define OL_SYS_MALLOC(n) count_malloc(n)
#define OL_SYS_REALLOC(p, n) count_realloc((p), (n))
#define OL_SYS_FREE(p) count_free(p)
#define OFFLOAD_IMPLEMENTATION
#define OFFLOAD_ISAL
#include "offload.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <sys/resource.h>

static void *count_malloc(size_t n) {
    if (__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED) == fail_at) return NULL;
    __atomic_fetch_add(&live, 1, __ATOMIC_RELAXED);
    return malloc(n);
}
static void *count_realloc(void *p, size_t n) {
    if (__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED) == fail_at) return NULL;
    __atomic_fetch_add(&live, p == NULL, __ATOMIC_RELAXED);
    return realloc(p, n);
}

static int open_fds(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static int fds_before;
TestSuite(faults, .timeout = 60);

/* A test and the check that it has leaked nothing: not in .fini, where a failure does not count. */
#define PROMISE(name)                                                                                                  \
    static void name(void);                                                                                            \
    Test(faults, name) {                                                                                               \
        fds_before = open_fds();                                                                                       \
        name();                                                                                                        \
        cr_assert_eq(live, 0, "%ld allocations leaked", live);                                                         \
        cr_assert_eq(open_fds(), fds_before, "fds leaked");                                                            \
    }                                                                                                                  \
    static void name(void)

static ol_loop *make(const char *policy) {
    ol_loop_desc d;
    ol_loop *loop = NULL;
    memset(&d, 0, sizeof d);
    d.policy = policy;
    cr_assert_eq(ol_loop_create(&loop, &d), 0, "%s", ol_error());
    return loop;
}

/* A coroutine that runs one step function of the test's and keeps its results. */
typedef struct probe {
    ol_co co;
    ol_fd fd;
    ol_op op;
    ol_stream stream;
    struct stat st;
    int64_t r[8];
    const char *text[8];
    int i, file;
    char buf[70000], out[90000];
} probe;
static probe *new_probe(void) { return calloc(1, sizeof(probe)); }

PROMISE(a_loop_desc_that_was_not_zeroed_is_refused) {
    ol_loop_desc d;
    ol_loop *loop = (ol_loop *)&d;
    memset(&d, 0xa5, sizeof d);
    cr_assert_eq(ol_loop_create(&loop, &d), -EINVAL);
    cr_assert_not_null(strstr(ol_error(), "zeroed"));
    cr_assert_null(loop);
    cr_assert_eq(ol_loop_create(NULL, NULL), -EINVAL);
    memset(&d, 0, sizeof d);
    d.events = 5000;
    cr_assert_eq(ol_loop_create(&loop, &d), -EINVAL);
    memset(&d, 0, sizeof d);
    d.nbackends = 1;
    cr_assert_eq(ol_loop_create(&loop, &d), -EINVAL);
}

PROMISE(a_pool_desc_that_was_not_zeroed_is_refused) {
    ol_threads_desc d;
    ol_backend *b = NULL;
    memset(&d, 0xa5, sizeof d);
    cr_assert_eq(ol_threads_create(&b, &d), -EINVAL);
    cr_assert_eq(ol_threads_create(NULL, NULL), -EINVAL);
    cr_assert_eq(ol_threads_destroy(NULL), -EINVAL);
}

PROMISE(a_bad_backend_is_refused) {
    ol_backend b, *list[2] = {&b, NULL};
    ol_loop_desc d;
    ol_loop *loop = NULL;
    memset(&b, 0, sizeof b);
    memset(&d, 0, sizeof d);
    d.backends = list;
    d.nbackends = 1;
    cr_assert_eq(ol_loop_create(&loop, &d), -EINVAL);
    cr_assert_not_null(strstr(ol_error(), "backend"));
    list[0] = NULL;
    cr_assert_eq(ol_loop_create(&loop, &d), -EINVAL);
}

PROMISE(defaults_are_resolved_and_can_be_queried) {
    ol_loop *loop = make(NULL);
    const ol_loop_desc *d = ol_loop_desc_of(loop);
    cr_assert(d->events == 256 && d->turn == 64 && d->latency_run == 8 && d->budget == 64 && d->park_max == 4096 &&
              d->dequeue_batch == 16 && d->spin_ns == 0 && d->sync_ns == 100000 && d->poll_ns == 1000);
    cr_assert_str_eq(d->policy, "pool");
    cr_assert_eq(ol_loop_destroy(loop), 0);
    cr_assert_eq(ol_version(), 0x000100u);
}

PROMISE(every_allocation_of_a_loop_may_fail) {
    int failures = 0;
    for (long n = 0;; n++) {
        ol_loop *loop = NULL;
        allocations = 0;
        fail_at = n;
        const int r = ol_loop_create(&loop, NULL);
        const long made = allocations;
        fail_at = -1;
        if (r == 0) {
            cr_assert_eq(ol_loop_destroy(loop), 0);
            cr_assert_leq(made, n);
            break;
        }
        failures++;
        cr_assert_eq(r, -ENOMEM, "allocation %ld: %d", n, r);
        cr_assert_null(loop);
        cr_assert_eq(live, 0);
        cr_assert_eq(open_fds(), fds_before);
    }
    cr_assert_geq(failures, 8);
}

static void codec_job(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_run(co, ol_prep_deflate(&p->op, OL_GZIP, p->out, sizeof p->out, p->buf, sizeof p->buf)));
    p->text[0] = ol_co_error(co);
    OL_AWAIT(p->r[1], ol_run(co, ol_prep_inflate(&p->op, OL_GZIP, p->buf, sizeof p->buf, p->out, p->r[0] < 0 ? 0 : (uint64_t)p->r[0])));
    OL_END(co);
}

PROMISE(codec_contexts_that_cannot_be_allocated_are_ENOMEM_and_can_be_tried_again) {
    ol_loop *loop = make("any any 0- software - -");
    probe *p = new_probe();
    for (int i = 0; i < 2; i++) { /* the level buffer, which comes second, then once more; what was had stays */
        cr_assert_eq(ol_spawn(loop, &p->co, codec_job, 0, 0), 0);
        fail_at = allocations + !i;
        cr_assert_eq(ol_loop_run(loop), 0);
        fail_at = -1;
        cr_assert_eq(p->r[0], -ENOMEM);
        cr_assert_not_null(strstr(p->text[0], "memory"));
        cr_assert_eq(p->r[1], -EBADMSG);
    }
    cr_assert_eq(ol_spawn(loop, &p->co, codec_job, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_gt(p->r[0], 0);
    cr_assert_eq(p->r[1], (int64_t)sizeof p->buf);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    free(p);
}

static int done_calls;
static void on_done(ol_loop *loop, ol_op *op) {
    (void)loop, (void)op;
    done_calls++;
}

PROMISE(an_operation_that_is_zeroed_or_garbage_is_EINVAL) {
    ol_loop *loop = make(NULL);
    ol_op op;
    memset(&op, 0, sizeof op);
    cr_assert_eq(ol_submit(loop, &op, on_done), -EINVAL);
    cr_assert_not_null(strstr(ol_error(), "ol_prep"));
    memset(&op, 0xa5, sizeof op);
    cr_assert_eq(ol_submit(loop, &op, on_done), -EINVAL);
    cr_assert_eq(ol_op_exec(NULL, &op), -EINVAL);
    cr_assert_eq(ol_submit(loop, NULL, on_done), -EINVAL);
    cr_assert_eq(ol_submit(NULL, ol_prep_crc32(&op, 0, "a", 1), on_done), -EINVAL);
    cr_assert_eq(ol_submit(loop, ol_prep_crc32(&op, 0, "a", 1), NULL), -EINVAL);
    cr_assert_eq(ol_submit(loop, ol_prep_crc32(&op, 0, NULL, 1), on_done), -EINVAL);
    cr_assert_eq(ol_submit(loop, ol_prep_call(&op, NULL, NULL), on_done), -EINVAL);
    ol_prep_crc32(&op, 0, "a", 1)->cls = 3;
    cr_assert_eq(ol_submit(loop, &op, on_done), -EINVAL);
    ol_prep_crc32(&op, 0, "a", 1)->kind = 77;
    cr_assert_eq(ol_submit(loop, &op, on_done), -EINVAL);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(done_calls, 0);
    cr_assert_eq(ol_op_cancel(loop, &op), -EINVAL);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

PROMISE(bad_codec_arguments_are_EINVAL_with_a_text) {
    ol_exec *x = ol_exec_create();
    static char in[100], out[400];
    ol_stream s;
    ol_op op;
    memset(&s, 0, sizeof s);
    const struct {
        ol_op *op;
        const char *text;
    } bad[] = {{ol_prep_deflate(&op, 0, out, 100, in, 10), "format"}};
    cr_assert_eq(ol_op_exec(x, bad[0].op), -EINVAL);
    cr_assert_not_null(strstr(ol_op_error(&op), bad[0].text));
    static const int formats[] = {-1, 4, 255, 256, 1 << 20};
    for (int i = 0; i < 5; i++) cr_assert_eq(ol_op_exec(x, ol_prep_inflate(&op, formats[i], out, 100, in, 10)), -EINVAL);
    ol_prep_deflate(&op, OL_RAW, out, 400, in, 10)->level = 5;
    cr_assert_eq(ol_op_exec(x, &op), -EINVAL);
    cr_assert_eq(ol_op_exec(x, ol_prep_deflate(&op, OL_RAW, NULL, 100, in, 10)), -EINVAL);
    cr_assert_eq(ol_op_exec(x, ol_prep_deflate(&op, OL_RAW, out, 100, NULL, 10)), -EINVAL);
    cr_assert_eq(ol_op_exec(x, ol_prep_deflate_chunk(&op, OL_RAW, out, 400, in, 10, &s, in, 40000, 0)), -EINVAL);
    cr_assert_eq(ol_op_exec(x, ol_prep_deflate_chunk(&op, OL_RAW, out, 400, in, 10, &s, NULL, 40, 0)), -EINVAL);
    cr_assert_eq(ol_op_exec(x, ol_prep_deflate_chunk(&op, OL_GZIP, out, 400, in, 10, &s, in, 40, 0)), -EINVAL);
    cr_assert_eq(ol_op_exec(x, ol_prep_deflate(&op, OL_GZIP, NULL, 0, in, 10)), -ENOSPC);
    cr_assert_gt(ol_op_exec(x, ol_prep_deflate_chunk(&op, OL_GZIP, out, 400, in, 10, &s, NULL, 0, 1)), 0);
    cr_assert_eq(ol_op_exec(x, ol_prep_deflate_chunk(&op, OL_GZIP, out, 400, in, 10, &s, NULL, 0, 1)), -EINVAL);
    cr_assert_eq(ol_op_exec(NULL, ol_prep_deflate(&op, OL_GZIP, out, 400, in, 10)), -ENOMEM);
    ol_exec_destroy(x);
    ol_exec_destroy(NULL);
}

PROMISE(loop_calls_refuse_nonsense) {
    ol_loop *loop = make(NULL);
    ol_co co;
    ol_fd h = 0;
    ol_timer t;
    memset(&t, 0, sizeof t);
    cr_assert_eq(ol_spawn(NULL, &co, codec_job, 0, 0), -EINVAL);
    cr_assert_eq(ol_spawn(loop, NULL, codec_job, 0, 0), -EINVAL);
    cr_assert_eq(ol_spawn(loop, &co, NULL, 0, 0), -EINVAL);
    cr_assert_eq(ol_spawn(loop, &co, codec_job, 0, 3), -EINVAL);
    cr_assert_eq(ol_spawn(loop, &co, codec_job, 12345, 0), -EBADF);
    cr_assert_eq(ol_attach(loop, -1, 0, &h), -EBADF);
    cr_assert_eq(ol_attach(loop, 0, 9, &h), -EINVAL);
    cr_assert_eq(ol_attach(loop, 987654, 0, &h), -EBADF);
    const int file = open("/dev/null", O_RDONLY), regular = open("/etc/hostname", O_RDONLY | O_CREAT, 0644);
    if (regular >= 0) cr_assert_eq(ol_attach(loop, regular, 0, &h), -EPERM);
    cr_assert_not_null(strstr(ol_error(), "ol_pread"));
    close(file);
    close(regular);
    cr_assert_eq(ol_close(loop, 0), -EBADF);
    cr_assert_eq(ol_close(loop, (ol_fd)-1), -EBADF);
    cr_assert_eq(ol_fd_raw(loop, 77), -EBADF);
    cr_assert_eq(ol_again(loop, 77, 0), -EBADF);
    cr_assert_eq(ol_timer_start(loop, &t, 1, NULL), -EINVAL);
    ol_timer_stop(loop, &t);
    cr_assert_eq(ol_loop_destroy(NULL), 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

PROMISE(an_fd_can_be_attached_once) {
    ol_loop *loop = make(NULL);
    int p[2];
    ol_fd h[2], again;
    cr_assert_eq(pipe(p), 0);
    cr_assert_eq(ol_attach(loop, p[0], 0, &h[0]), 0);
    cr_assert_eq(ol_attach(loop, p[0], 0, &again), -EEXIST);
    cr_assert_eq(ol_attach(loop, p[1], 0, &h[1]), 0);
    cr_assert_eq(ol_fd_raw(loop, h[1]), p[1]);
    cr_assert_eq(ol_close(loop, h[0]), 0);
    cr_assert_eq(ol_close(loop, h[0]), -EBADF);
    cr_assert_eq(ol_loop_destroy(loop), 0); /* closes the other end */
}

/* ---- fds that go away, system calls that fail */

static void reader(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_read(co, p->fd, p->buf, 10));
    p->text[0] = ol_co_error(co);
    OL_AWAIT(p->r[1], ol_read(co, p->fd, p->buf, 0));
    p->text[1] = ol_co_error(co);
    OL_AWAIT(p->r[2], ol_readv(co, p->fd, NULL, 3));
    OL_AWAIT(p->r[3], ol_write(co, p->fd, "x", 1));
    OL_END(co);
}

PROMISE(an_fd_closed_behind_the_loop_is_EBADF_not_a_hang) {
    ol_loop *loop = make(NULL);
    probe *p = new_probe();
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &p->fd), 0);
    cr_assert_eq(write(sv[1], "x", 1), 1);
    cr_assert_eq(ol_spawn(loop, &p->co, reader, p->fd, 0), 0);
    ol_loop_step(loop, 0); /* the event has been seen or is about to be */
    const int copy = dup(sv[1]);
    close(sv[0]); /* the user's mistake */
    ol_loop_step(loop, 0);
    cr_assert(p->r[0] == -EBADF || p->r[0] == 1, "%d", (int)p->r[0]);
    ol_cancel(&p->co);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(ol_close(loop, p->fd), 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    close(sv[1]);
    close(copy);
    free(p);
}

PROMISE(bad_arguments_of_awaits_are_EINVAL) {
    ol_loop *loop = make(NULL);
    probe *p = new_probe();
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(loop, sv[0], 0, &p->fd), 0);
    close(sv[1]);
    cr_assert_eq(ol_spawn(loop, &p->co, reader, p->fd, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_eq(p->r[0], 0);
    cr_assert_eq(p->r[1], -EINVAL);
    cr_assert_not_null(strstr(p->text[1], "0 bytes"));
    cr_assert_eq(p->r[2], -EINVAL);
    cr_assert_eq(p->r[3], -EPIPE); /* and no SIGPIPE */
    cr_assert_eq(ol_loop_destroy(loop), 0);
    free(p);
}

static int accepted[3];
static void acceptor(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    for (;;) {
        OL_AWAIT(p->r[0], ol_accept(co, p->fd));
        if (p->r[0] == -ECANCELED) break;
        if (p->r[0] == -EMFILE) {
            accepted[1]++;
            p->text[0] = ol_co_error(co);
            close(p->file); /* one fd becomes free */
        } else if (p->r[0] >= 0) {
            accepted[0]++;
            ol_close(co->loop, (ol_fd)p->r[0]);
        } else {
            accepted[2]++;
        }
        if (accepted[0] == 2) break;
    }
    ol_close(co->loop, p->fd);
    OL_END(co);
}

static int logged;
static void on_log(void *user, int level, const char *text) {
    (void)user;
    logged += level == 1 && strstr(text, "ulimit") != NULL;
}

PROMISE(accept_without_a_free_fd_backs_off_and_goes_on) {
    ol_loop_desc d;
    ol_loop *loop;
    probe *p = new_probe();
    struct sockaddr_in a;
    struct rlimit old, few;
    socklen_t len = sizeof a;
    memset(&d, 0, sizeof d);
    d.log = on_log;
    cr_assert_eq(ol_loop_create(&loop, &d), 0);
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(ol_listen(loop, (struct sockaddr *)&a, sizeof a, 16, 0, 0, &p->fd), 0, "%s", ol_error());
    cr_assert_eq(getsockname(ol_fd_raw(loop, p->fd), (struct sockaddr *)&a, &len), 0);
    const int client[2] = {socket(AF_INET, SOCK_STREAM, 0), socket(AF_INET, SOCK_STREAM, 0)};
    for (int i = 0; i < 2; i++) cr_assert_eq(connect(client[i], (struct sockaddr *)&a, len), 0);
    p->file = dup(0);
    getrlimit(RLIMIT_NOFILE, &old);
    few = old;
    few.rlim_cur = (rlim_t)p->file + 1;
    int filler[64], n = 0;
    setrlimit(RLIMIT_NOFILE, &few);
    while (n < 64 && (filler[n] = dup(0)) >= 0) n++;
    cr_assert_eq(ol_spawn(loop, &p->co, acceptor, p->fd, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    ol_loop_stats s;
    s.size = sizeof s;
    ol_loop_get_stats(loop, &s);
    cr_assert(accepted[0] == 2 && accepted[1] == 1 && accepted[2] == 0, "%d %d %d", accepted[0], accepted[1], accepted[2]);
    cr_assert_not_null(strstr(p->text[0], "ulimit -n"));
    cr_assert_eq(logged, 1);
    cr_assert_eq(s.accept_full, 1u);
    cr_assert_lt(s.turns, 40u, "it spins: %d turns", (int)s.turns);
    setrlimit(RLIMIT_NOFILE, &old);
    for (int i = 0; i < n; i++) close(filler[i]);
    for (int i = 0; i < 2; i++) close(client[i]);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    free(p);
}

/* ---- files */

static char path[64];
static int dir;
static void make_tree(void) {
    strcpy(path, "/tmp/offload-test-XXXXXX");
    cr_assert_not_null(mkdtemp(path));
    dir = open(path, O_RDONLY | O_DIRECTORY);
    const int f = openat(dir, "file", O_CREAT | O_WRONLY, 0600);
    for (int i = 0; i < 10000; i++) cr_assert_eq(write(f, "0123456789", 10), 10);
    close(f);
    cr_assert_eq(symlinkat("/etc/passwd", dir, "out"), 0);
    cr_assert_eq(symlinkat("file", dir, "in"), 0);
}
static void remove_tree(void) {
    static const char *const names[] = {"file", "out", "in", "new"};
    for (int i = 0; i < 4; i++) unlinkat(dir, names[i], 0);
    close(dir);
    rmdir(path);
}

static void file_job(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r[0], ol_open(co, &p->op, dir, "in", O_RDONLY, 0, OL_BENEATH));
    p->file = (int)p->r[0];
    OL_AWAIT(p->r[0], ol_stat(co, &p->op, p->file, NULL, &p->st));
    OL_AWAIT(p->r[1], ol_pread(co, &p->op, p->file, p->buf, sizeof p->buf, 40005));
    OL_AWAIT(p->r[2], ol_pread(co, &p->op, p->file, p->buf + 100, 50, 1000000));
    OL_AWAIT(p->r[3], ol_open(co, &p->op, dir, "out", O_RDONLY, 0, OL_BENEATH));
    p->text[3] = ol_co_error(co);
    OL_AWAIT(p->r[4], ol_open(co, &p->op, dir, "../../etc/passwd", O_RDONLY, 0, OL_BENEATH));
    OL_AWAIT(p->r[5], ol_open(co, &p->op, dir, "nothing", O_RDONLY, 0, 0));
    p->text[5] = ol_co_error(co);
    OL_AWAIT(p->r[6], ol_stat(co, &p->op, dir, "file", &p->st));
    OL_AWAIT(p->r[7], ol_open(co, &p->op, dir, "new", O_CREAT | O_WRONLY, 0640, OL_BENEATH));
    OL_END(co);
}

static void check_files(const char *policy) {
    ol_loop *loop = make(policy);
    probe *p = new_probe();
    make_tree();
    cr_assert_eq(ol_spawn(loop, &p->co, file_job, 0, 0), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_geq(p->file, 0);
    cr_assert_eq(p->r[0], 0);
    cr_assert_eq(p->st.st_size, 100000);
    cr_assert_eq(p->r[1], 100000 - 40005);
    for (int i = 0; i < 100000 - 40005; i++) cr_assert_eq(p->buf[i], '0' + (i + 5) % 10);
    cr_assert_eq(p->r[2], 0);
    cr_assert_eq(p->r[3], -EXDEV);
    cr_assert_not_null(strstr(p->text[3], "directory"));
    cr_assert_eq(p->r[4], -EXDEV);
    cr_assert_eq(p->r[5], -ENOENT);
    cr_assert_str_eq(p->text[5], "no such file");
    cr_assert_eq(p->r[6], 0);
    cr_assert_geq(p->r[7], 0);
    cr_assert(fstat((int)p->r[7], &p->st) == 0 && (p->st.st_mode & 0777) == (0640 & ~(umask(0) & 0777)));
    close(p->file);
    close((int)p->r[7]);
    remove_tree();
    cr_assert_eq(ol_loop_destroy(loop), 0);
    free(p);
}
PROMISE(files_through_the_pool_or_the_cache) { check_files(NULL); }
PROMISE(files_in_software) { check_files("file any 0- software - -"); }

/* ---- no allocation per event or operation after set-up */

typedef struct pair {
    ol_co co;
    ol_fd fd;
    ol_op op;
    int64_t r, i, n;
    int first;
    char buf[20000], out[30000];
} pair;
static int64_t nothing(void *arg) { return (int64_t)(intptr_t)arg; }
static void ping(ol_co *co) {
    pair *p = OL_SELF(co, pair, co);
    OL_BEGIN(co);
    for (p->i = 0; p->i < p->n; p->i++) {
        if (p->first) OL_AWAIT(p->r, ol_write(co, p->fd, p->buf, 100));
        OL_AWAIT(p->r, ol_read(co, p->fd, p->buf, 100));
        if (p->r <= 0) break;
        OL_DO(ol_deadline(co, 1000000000) == 0 ? ol_run(co, ol_prep_call(&p->op, nothing, NULL)) : OL__DONE);
        OL_AWAIT(p->r, ol_run(co, ol_prep_deflate(&p->op, OL_GZIP, p->out, sizeof p->out, p->buf, p->i % 2 ? 500 : sizeof p->buf)));
        if (!p->first) OL_AWAIT(p->r, ol_write(co, p->fd, p->buf, 100));
    }
    OL_END(co);
}
PROMISE(no_allocation_for_events_and_operations_after_set_up) {
    ol_loop *loop = make("any any 0- async threads wait");
    pair *p = calloc(2, sizeof *p);
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    for (int i = 0; i < 2; i++) {
        p[i].first = i;
        cr_assert_eq(ol_attach(loop, sv[i], 0, &p[i].fd), 0);
    }
    long before = 0;
    for (int round = 0; round < 2; round++) { /* the first is set-up: tables, contexts, threads */
        before = allocations;
        for (int i = 0; i < 2; i++) {
            p[i].n = 2000;
            cr_assert_eq(ol_spawn(loop, &p[i].co, ping, p[i].fd, 0), 0);
        }
        cr_assert_eq(ol_loop_run(loop), 0);
        cr_assert(p[0].i == 2000 && p[1].i == 2000);
        if (round == 0) cr_assert_gt(allocations, before);
    }
    cr_assert_eq(allocations - before, 0, "%ld allocations for 4,000 exchanges and 8,000 operations", allocations - before);
    cr_assert_eq(ol_loop_destroy(loop), 0);
    free(p);
}
