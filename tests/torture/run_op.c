/* run_op.c: operations, in every form, on every backend; files. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sys/eventfd.h>
#include <sys/stat.h>
#include "checks.h"

enum { BYTES = 3000, ROOM = 4096 };
static unsigned char input[BYTES];
static const uint32_t input_crc = 0x9c60886a; /* of `input`, as zlib's crc32 gives it */

static void make_input(void) {
    for (int i = 0; i < BYTES; i++) input[i] = (unsigned char)("offload"[i % 7] + i / 500);
}

/* ---- a coroutine that awaits one operation of each kind, and callbacks beside it */

struct worker {
    ol_co co;
    ol_op op;
    ol_stream out_stream, in_stream;
    int64_t r, packed;
    int calls, done, same, alive;
    unsigned char out[ROOM], back[ROOM];
};
static void worker_main(ol_co *co) {
    struct worker *w = OL_SELF(co, struct worker, co);
    OL_BEGIN(co);
    OL_AWAIT(w->r, ol_run(co, ol_prep_call(&w->op, count_call, &w->calls)));
    if (RESULT(co, w->r) >= 0) CHECK(w->r == 1 && w->calls == 1), w->done++;
    OL_AWAIT(w->r, ol_run(co, ol_prep_crc32(&w->op, 0, input, BYTES)));
    if (RESULT(co, w->r) >= 0) CHECK(w->r == input_crc), w->done++;
    OL_AWAIT(w->packed, ol_run(co, ol_prep_deflate(&w->op, OL_GZIP, w->out, ROOM, input, BYTES)));
    if (RESULT(co, w->packed) > 0) {
        w->done++;
        OL_AWAIT(w->r, ol_run(co, ol_prep_inflate(&w->op, OL_GZIP, w->back, ROOM, w->out, (uint64_t)w->packed)));
        if (RESULT(co, w->r) >= 0) {
            CHECK(w->r == BYTES && memcmp(w->back, input, BYTES) == 0);
            w->done++;
        }
    }
    w->op.level = 1;
    OL_AWAIT(w->packed, ol_run(co, ol_prep_deflate_chunk(&w->op, OL_ZLIB, w->out, ROOM, input, BYTES, &w->out_stream,
                                                         NULL, 0, 1)));
    if (RESULT(co, w->packed) > 0) {
        w->done++;
        OL_AWAIT(w->r, ol_run(co, ol_prep_inflate_chunk(&w->op, OL_ZLIB, w->back, ROOM, w->out, (uint64_t)w->packed,
                                                        &w->in_stream, NULL, 0, 1)));
        if (RESULT(co, w->r) >= 0) {
            CHECK(w->r == BYTES && memcmp(w->back, input, BYTES) == 0);
            w->done++;
        }
    }
    w->alive = 0;
    OL_END(co);
}

enum { WORKERS = 2, JOBS = 6 };
struct work {
    struct worker worker[WORKERS];
    job job[JOBS];
    unsigned char out[JOBS][ROOM];
    int calls;
};
static void work(ol_loop *loop) {
    static struct work w;
    memset(&w, 0, sizeof w);
    make_input();
    for (int i = 0; i < WORKERS; i++)
        w.worker[i].alive = API(ol_spawn(loop, &w.worker[i].co, worker_main, 0, i ? OL_LATENCY : OL_BATCH)) == 0;
    for (int i = 0; i < JOBS; i++) {
        if (i % 3 == 0) ol_prep_call(&w.job[i].op, count_call, &w.calls);
        if (i % 3 == 1) ol_prep_crc32(&w.job[i].op, 0, input, BYTES);
        if (i % 3 == 2) ol_prep_deflate(&w.job[i].op, OL_RAW, w.out[i], ROOM, input, BYTES);
        if (i >= 3) w.job[i].op.cls = OL_LATENCY;
        job_submit(loop, &w.job[i]);
    }
    loop_work(loop);
    for (int i = 0; i < WORKERS; i++) {
        CHECK(!w.worker[i].alive);
        WORKS(w.worker[i].done == 6);
    }
    for (int i = 0; i < JOBS; i++) {
        CHECK(w.job[i].completed == w.job[i].accepted);
        if (!w.job[i].completed) continue;
        if (OP_RESULT(&w.job[i].op) >= 0 && i % 3 == 1) CHECK(w.job[i].op.result == input_crc);
        WORKS(w.job[i].op.result > 0);
    }
}

static ol_loop *loop_with(ol_backend **backend, const char *policy) {
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.backends = backend;
    d.nbackends = backend && *backend;
    d.policy = policy;
    d.no_pool = !backend || !*backend || (*backend)->name[0] == 'd';
    d.poll_ns = MS / 5;
    return loop_new(&d);
}
static void work_and_end(ol_loop *loop) {
    if (loop) work(loop);
    loop_end(loop);
}

static void ops_software(void) { work_and_end(loop_with(NULL, "")); }
static void ops_device_by(const char *policy, uint32_t depth) {
    device d;
    ol_backend *b = &device_new(&d, depth)->backend;
    work_and_end(loop_with(&b, policy));
}
static void ops_device(void) { ops_device_by("any any 0- async device wait", 2); }
static void ops_device_full(void) {
    ops_device_by("any latency 0- async device software\nany any 0- async device wait", 8);
}
static void ops_sync(void) { ops_device_by("any any 0- sync device wait", 2); }
static void ops_sliced(void) { work_and_end(loop_with(NULL, "any any 0- sliced - -")); }
static void ops_auto(void) { ops_device_by("any any 0- auto device wait", 2); }
static void ops_pool_of(uint32_t workers) {
    ol_backend *pool = pool_new(workers, 4);
    if (pool) work_and_end(loop_with(&pool, "any any 0- async threads wait"));
    pool_end(pool);
}
static void ops_pool(void) { ops_pool_of(1); }
static void ops_pool_of_two(void) { ops_pool_of(2); }
static void ops_spin(void) { /* workers and loop spin before they sleep */
    ol_backend *pool = NULL;
    ol_threads_desc t;
    ol_loop_desc d;
    memset(&t, 0, sizeof t);
    memset(&d, 0, sizeof d);
    t.workers = 1, t.depth = 4, t.spin_ns = MS / 20;
    API(ol_threads_create(&pool, &t));
    d.backends = &pool, d.nbackends = pool != NULL, d.no_pool = 1, d.spin_ns = MS / 20;
    d.policy = pool ? "any any 0- async threads wait" : "";
    work_and_end(loop_new(&d));
    pool_end(pool);
}
static void ops_default(void) { work_and_end(loop_new(NULL)); }

static void ops_exec(void) { /* without a loop */
    static unsigned char out[ROOM], back[ROOM];
    ol_exec *x = ol_exec_create();
    ol_op op;
    make_input();
    WORKS(x != NULL);
    if (!x) return;
    ol_op_exec(x, ol_prep_deflate(&op, OL_ZLIB, out, ROOM, input, BYTES));
    if (OP_RESULT(&op) > 0) {
        const uint64_t packed = (uint64_t)op.result;
        ol_op_exec(x, ol_prep_inflate(&op, OL_ZLIB, back, ROOM, out, packed));
        if (OP_RESULT(&op) > 0) CHECK(op.result == BYTES && memcmp(back, input, BYTES) == 0);
        WORKS(op.result > 0);
    }
    WORKS(op.result > 0);
    ol_prep_deflate(&op, OL_GZIP, out, ROOM, input, BYTES)->level = OL_LEVEL_3;
    ol_op_exec(x, &op);
    OP_RESULT(&op);
    WORKS(op.result > 0);
    ol_exec_destroy(x);
}

/* ---- a backend that is full, slow or asked to stop */

static device *the_device;
static void on_release(ol_loop *loop, ol_timer *t) {
    (void)loop, (void)t;
    the_device->slow = 0;
}
static void release_later(ol_loop *loop, device *d, ol_timer *t, int64_t ns) {
    the_device = d;
    memset(t, 0, sizeof *t);
    if (API(ol_timer_start(loop, t, ns, on_release)) < 0) d->slow = 0;
}

struct full {
    device device;
    job job[9];
    ol_timer release;
    int calls;
};
static void full_submit(ol_loop *loop, struct full *f, int i, int cls, uint32_t timeout_us, int may) {
    ol_prep_call(&f->job[i].op, count_call, &f->calls);
    f->job[i].op.cls = (uint8_t)cls;
    f->job[i].op.timeout_us = timeout_us;
    const int r = job_submit_or(loop, &f->job[i], may);
    CHECK(!exact() || r == -may);
}
static void parked(void) {
    struct full f;
    ol_loop_desc d;
    ol_backend *b = &device_new(&f.device, 1)->backend;
    memset(&d, 0, sizeof d);
    memset(f.job, 0, sizeof f.job);
    f.calls = 0;
    d.backends = &b, d.nbackends = 1, d.no_pool = 1;
    d.policy = "call latency 0- async device software\ncall batch 0- async device wait\nany any 0- async device fail";
    d.park_max = 3;
    d.poll_ns = MS / 5;
    f.device.slow = f.device.stops = 1;
    ol_loop *loop = loop_new(&d);
    if (!loop) return;
    make_input();
    full_submit(loop, &f, 0, OL_BATCH, 0, 0);
    full_submit(loop, &f, 1, OL_BATCH, 0, 0);
    full_submit(loop, &f, 2, OL_BATCH, 1000, 0); /* its time passes while it waits */
    full_submit(loop, &f, 3, OL_BATCH, 0, 0);
    full_submit(loop, &f, 4, OL_BATCH, 0, EAGAIN);
    full_submit(loop, &f, 5, OL_LATENCY, 0, 0);
    ol_prep_crc32(&f.job[6].op, 0, input, BYTES);
    ol_prep_crc32(&f.job[7].op, 0, input, BYTES);
    job_submit(loop, &f.job[6]);
    job_submit_or(loop, &f.job[7], EAGAIN);
    full_submit(loop, &f, 8, OL_LATENCY, 0, 0); /* in software: the fifth is in flight */
    CHECK(!exact() || strcmp(ol_op_where(loop, &f.job[8].op), "software") == 0);
    if (f.job[1].accepted) CHECK(API(ol_op_cancel(loop, &f.job[1].op)) == 0);
    release_later(loop, &f.device, &f.release, 3 * MS);
    loop_work(loop);
    for (int i = 0; i < 9; i++) {
        CHECK(f.job[i].completed == f.job[i].accepted);
        if (f.job[i].completed) OP_RESULT_OR(&f.job[i].op, i == 1 ? ECANCELED : i == 2 ? ETIMEDOUT : NONE);
    }
    if (exact()) CHECK(f.job[1].op.result == -ECANCELED && f.job[2].op.result == -ETIMEDOUT);
    CHECK(f.calls <= 6);
    loop_end(loop);
}

/* Coroutines whose operation is out when they are cancelled, when their deadline passes, when its own time passes. */
struct stopped {
    ol_co co;
    ol_op op;
    int64_t r, deadline;
    uint32_t timeout_us;
    int calls, alive, expect;
};
static void stopped_main(ol_co *co) {
    struct stopped *s = OL_SELF(co, struct stopped, co);
    OL_BEGIN(co);
    if (s->deadline) API(ol_deadline(co, s->deadline));
    ol_prep_call(&s->op, count_call, &s->calls)->timeout_us = s->timeout_us;
    OL_AWAIT(s->r, ol_run(co, &s->op));
    RESULT_OR(co, s->r, s->expect);
    CHECK(s->r < 0 ? s->calls == 0 : s->calls == 1);
    s->alive = 0;
    OL_END(co);
}
static void stop_ops(int stops) {
    static const int expect[] = {ECANCELED, ETIMEDOUT, ETIMEDOUT, 0};
    struct stopped s[4];
    device d;
    ol_timer release;
    ol_backend *b = &device_new(&d, 4)->backend;
    d.slow = 1, d.stops = stops;
    ol_loop *loop = loop_with(&b, "any any 0- async device wait");
    if (!loop) return;
    memset(s, 0, sizeof s);
    s[1].deadline = MS;
    s[2].timeout_us = 1000;
    for (int i = 0; i < 4; i++) {
        s[i].expect = expect[i];
        s[i].alive = API(ol_spawn(loop, &s[i].co, stopped_main, 0, 0)) == 0;
    }
    API(ol_loop_step(loop, 0));
    if (s[0].alive) ol_cancel(&s[0].co);
    release_later(loop, &d, &release, 3 * MS);
    loop_work(loop);
    for (int i = 0; i < 4; i++) {
        CHECK(!s[i].alive);
        CHECK(!exact() || !stops || s[i].r == -expect[i] || (i == 3 && s[i].r == 1));
    }
    loop_end(loop);
}
static void ops_stopped(void) { stop_ops(1); }
static void ops_too_late(void) { stop_ops(0); }

/* ---- close and destroy with operations out */

struct busy {
    ol_co co;
    ol_op op;
    ol_fd fd;
    job beside;
    int64_t r;
    int go[2], calls, alive, closed, peer;
};
static int64_t wait_for_go(void *arg) { /* on a worker: until the loop's thread has closed the fd */
    struct busy *s = (struct busy *)arg;
    char c;
    if (this_side == SIDE_WORKER && read(s->go[0], &c, 1) != 1) return -EIO;
    return 5;
}
static void busy_main(ol_co *co) {
    struct busy *s = OL_SELF(co, struct busy, co);
    OL_BEGIN(co);
    ol_prep_call(&s->beside.op, count_call, &s->calls);
    job_submit(co->loop, &s->beside);
    OL_AWAIT(s->r, ol_run(co, ol_prep_call(&s->op, wait_for_go, s)));
    RESULT_OR(co, s->r, ECANCELED);
    s->alive = 0;
    OL_END(co);
}
static struct busy *the_busy;
static void on_close(ol_loop *loop, ol_timer *t) {
    struct busy *s = the_busy;
    char c;
    (void)t;
    if (s->closed++) return;
    CHECK(ol_close(loop, s->fd) == 0);
    if (exact()) CHECK(recv(s->peer, &c, 1, MSG_DONTWAIT) == 0); /* it sees the end now */
    if (write(s->go[1], "g", 1) != 1) fail("write");
}
static void close_with_ops(ol_backend *b, const char *policy) {
    struct busy s;
    ol_timer t;
    int pair[2];
    ol_loop *loop = loop_with(&b, policy);
    if (!loop) return;
    memset(&s, 0, sizeof s);
    memset(&t, 0, sizeof t);
    the_busy = &s;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0 || pipe2(s.go, O_CLOEXEC) != 0)
        fail("socketpair");
    s.peer = pair[1];
    if (API(ol_attach(loop, pair[0], 0, &s.fd)) == 0) {
        s.alive = API(ol_spawn(loop, &s.co, busy_main, s.fd, 0)) == 0;
        API(ol_loop_step(loop, 0));
        if (API(ol_timer_start(loop, &t, MS, on_close)) < 0) on_close(loop, &t);
        loop_work(loop);
        CHECK(!s.alive && s.closed && s.beside.completed == s.beside.accepted);
    } else {
        close(pair[0]);
    }
    close(pair[1]);
    close(s.go[0]);
    close(s.go[1]);
    loop_end(loop);
}
static void close_device(void) {
    device d;
    device_new(&d, 4);
    d.slow = d.stops = 1;
    close_with_ops(&d.backend, "any any 0- async device wait");
}
static void close_device_late(void) { /* it doesn't stop what it has begun */
    device d;
    device_new(&d, 4);
    d.slow = 1;
    close_with_ops(&d.backend, "any any 0- async device wait");
}
static void close_pool(void) {
    ol_backend *pool = pool_new(1, 4);
    if (pool) close_with_ops(pool, "any any 0- async threads wait");
    pool_end(pool);
}

static void destroy_with(ol_backend *b, const char *policy) {
    job j[6];
    int calls = 0;
    ol_loop *loop = loop_with(&b, policy);
    if (!loop) return;
    memset(j, 0, sizeof j);
    for (int i = 0; i < 6; i++) {
        ol_prep_call(&j[i].op, count_call, &calls)->cls = i % 2 ? OL_LATENCY : OL_BATCH;
        job_submit(loop, &j[i]);
        if (i == 3) API(ol_loop_step(loop, 0));
    }
    CHECK(ol_loop_destroy(loop) == 0);
    for (int i = 0; i < 6; i++) {
        CHECK(j[i].completed == j[i].accepted);
        if (j[i].completed) OP_RESULT_OR(&j[i].op, ECANCELED);
    }
}
static void destroy_device(void) {
    device d;
    device_new(&d, 1);
    d.slow = d.stops = 1;
    destroy_with(&d.backend, "any any 0- async device wait");
}
static void destroy_pool(void) {
    ol_backend *pool = pool_new(1, 1);
    if (pool) destroy_with(pool, "any any 0- async threads wait");
    pool_end(pool);
}

static void drain_ops(void) {
    struct stopped s[3];
    device d;
    ol_backend *b = &device_new(&d, 1)->backend;
    d.slow = d.stops = 1;
    ol_loop *loop = loop_with(&b, "any any 0- async device wait");
    if (!loop) return;
    memset(s, 0, sizeof s);
    for (int i = 0; i < 3; i++) {
        s[i].expect = ECANCELED;
        s[i].alive = API(ol_spawn(loop, &s[i].co, stopped_main, 0, 0)) == 0;
    }
    API(ol_loop_step(loop, 0));
    loop_drain_end(loop);
    for (int i = 0; i < 3; i++) CHECK(!s[i].alive);
}

/* ---- files */

struct reading {
    ol_co co;
    ol_op op;
    int dir, file, steps, alive;
    int64_t r;
    struct stat st;
    unsigned char *buf;
};
static void reading_main(ol_co *co) {
    struct reading *f = OL_SELF(co, struct reading, co);
    OL_BEGIN(co);
    OL_AWAIT(f->r, ol_stat(co, &f->op, f->dir, "file", &f->st));
    f->steps += RESULT(co, f->r) == 0 && f->st.st_size == FILE_BYTES;
    OL_AWAIT(f->r, ol_open(co, &f->op, f->dir, "file", O_RDONLY, 0, 0));
    f->file = (int)RESULT(co, f->r);
    if (f->file >= 0) {
        OL_AWAIT(f->r, ol_stat(co, &f->op, f->file, NULL, &f->st));
        f->steps += RESULT(co, f->r) == 0 && f->st.st_size == FILE_BYTES;
        OL_AWAIT(f->r, ol_pread(co, &f->op, f->file, f->buf, 1000, 10));
        f->steps += RESULT(co, f->r) == 1000;
        CHECK(f->r < 0 || (f->r == 1000 && f->buf[0] == 10 && f->buf[999] == (1009 & 0xff)));
        OL_AWAIT(f->r, ol_pread(co, &f->op, f->file, f->buf, FILE_BYTES + 500, 0));
        f->steps += RESULT(co, f->r) == FILE_BYTES;
        CHECK(f->r < 0 || (f->r == FILE_BYTES && f->buf[FILE_BYTES - 1] == ((FILE_BYTES - 1) & 0xff)));
        OL_AWAIT(f->r, ol_pread(co, &f->op, f->file, f->buf, 100, FILE_BYTES - 50));
        f->steps += RESULT(co, f->r) == 50;
        CHECK(f->r < 0 || f->r == 50);
        close(f->file);
    }
    OL_AWAIT(f->r, ol_open(co, &f->op, f->dir, "file", O_RDONLY | O_NONBLOCK, 0, OL_BENEATH));
    if (RESULT(co, f->r) >= 0) close((int)f->r), f->steps++;
    OL_AWAIT(f->r, ol_open(co, &f->op, f->dir, "../file", O_RDONLY, 0, OL_BENEATH));
    CHECK(RESULT_OR(co, f->r, EXDEV) < 0);
    OL_AWAIT(f->r, ol_open(co, &f->op, f->dir, "missing", O_RDONLY, 0, 0));
    CHECK(RESULT_OR(co, f->r, ENOENT) < 0);
    OL_AWAIT(f->r, ol_stat(co, &f->op, f->dir, "missing", &f->st));
    CHECK(RESULT_OR(co, f->r, ENOENT) < 0);
    OL_AWAIT(f->r, ol_open(co, &f->op, f->dir, "fifo", O_RDONLY | O_NONBLOCK, 0, 0));
    if (RESULT(co, f->r) >= 0) close((int)f->r), f->steps++;
    f->alive = 0;
    OL_END(co);
}

static void files_on(ol_loop *loop) {
    static unsigned char buf[FILE_BYTES + 500];
    struct reading f;
    if (!loop) return;
    memset(&f, 0, sizeof f);
    f.dir = open(files_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f.dir < 0) fail("%s: %s", files_directory, strerror(errno));
    f.buf = buf;
    f.alive = API(ol_spawn(loop, &f.co, reading_main, 0, 0)) == 0;
    loop_work(loop);
    close(f.dir);
    CHECK(!f.alive);
    WORKS(f.steps == 7);
    loop_end(loop);
}
static void files_pool(void) {
    ol_backend *pool = pool_new(1, 4);
    if (pool) files_on(loop_with(&pool, "pool"));
    pool_end(pool);
}
static void files_software(void) { files_on(loop_with(NULL, "")); }

const struct scenario scenarios_op[] = {
    {"ops_software", ops_software},
    {"ops_device", ops_device},
    {"ops_device_full", ops_device_full},
    {"ops_sync", ops_sync},
    {"ops_sliced", ops_sliced},
    {"ops_auto", ops_auto},
    {"ops_pool", ops_pool},
    {"ops_pool_of_two", ops_pool_of_two},
    {"ops_spin", ops_spin},
    {"ops_default", ops_default},
    {"ops_exec", ops_exec},
    {"ops_parked", parked},
    {"ops_stopped", ops_stopped},
    {"ops_too_late", ops_too_late},
    {"close_device", close_device},
    {"close_device_late", close_device_late},
    {"close_pool", close_pool},
    {"destroy_device", destroy_device},
    {"destroy_pool", destroy_pool},
    {"drain_ops", drain_ops},
    {"files_pool", files_pool},
    {"files_software", files_software},
    {NULL, NULL},
};
