/* Mode sliced: the results are those of software byte for byte, no slice exceeds its time by more than one block or step,
   others run in between, and nothing is lost when what waits in line or is under way is stopped. The clock is virtual:
   only what works advances it.
   cc -O2 -I. tests/criterion/slices.c -o build/tests/slices -lcriterion -lisal -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

static int64_t clock_ns = 1000000000;
static int test_epoll_wait(int ep, struct epoll_event *events, int n, int64_t timeout) {
    if (timeout > 0) clock_ns += timeout;
    return epoll_wait(ep, events, n, 0);
}
static int64_t timerfd_ns; /* what it was last set to */
static int test_timerfd_set(int64_t ns) { return timerfd_ns = ns, 0; }
static long live, fail_in = -1; /* allocations; the n-th from now on fails, and all later ones */
static void *test_realloc(void *p, size_t n) {
    if (fail_in == 0) return NULL;
    if (fail_in > 0) fail_in--;
    live += p == NULL;
    return realloc(p, n);
}
static void test_free(void *p) {
    live -= p != NULL;
    free(p);
}
/* The codec's steps are seen and take time: a nanosecond a byte that they read or, inflating, write; a checksum's
   an eighth of that. */
static int64_t step_bytes, step_most;
static int test_deflate(struct isal_zstream *z) {
    const uint32_t in = z->avail_in, out = z->avail_out;
    const int r = (isal_deflate)(z);
    step_bytes = in - z->avail_in;
    if (out - z->avail_out > step_bytes) step_bytes = out - z->avail_out; /* symbols are put out in lumps */
    if (step_bytes > step_most) step_most = step_bytes;
    clock_ns += 500 + step_bytes;
    return r;
}
static int test_inflate(struct inflate_state *z) {
    const uint32_t in = z->avail_in, out = z->avail_out;
    const int r = (isal_inflate)(z);
    step_bytes = (in - z->avail_in > out - z->avail_out) ? in - z->avail_in : out - z->avail_out;
    if (step_bytes > step_most) step_most = step_bytes;
    clock_ns += 500 + step_bytes;
    return r;
}
static uint32_t test_crc(uint32_t crc, const unsigned char *p, uint64_t n) {
    clock_ns += (int64_t)n / 8;
    return (crc32_gzip_refl)(crc, p, n);
}
#define isal_deflate(z) test_deflate(z)
#define isal_inflate(z) test_inflate(z)
#define crc32_gzip_refl(crc, p, n) test_crc((crc), (p), (n))

#define OL_SYS_MALLOC(n) test_realloc(NULL, (n))
#define OL_SYS_REALLOC(p, n) test_realloc((p), (n))
#define OL_SYS_FREE(p) test_free(p)
#define OL_SYS_NOW() clock_ns
#define OL_SYS_EPOLL_CREATE() epoll_create1(EPOLL_CLOEXEC)
#define OL_SYS_EPOLL_CTL(ep, op, fd, event) epoll_ctl((ep), (op), (fd), (event))
#define OL_SYS_EPOLL_WAIT(ep, events, n, timeout_ns) test_epoll_wait((ep), (events), (n), (timeout_ns))
#define OL_SYS_EVENTFD() eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
#define OL_SYS_TIMERFD() eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
#define OL_SYS_TIMERFD_SET(fd, ns) test_timerfd_set(ns)
#define OFFLOAD_IMPLEMENTATION
#define OFFLOAD_ISAL
#include "offload.h"

#include <criterion/criterion.h>

#include "random.h"

TestSuite(slices, .timeout = 120);

enum { US = 1000, SLICE = 20 * US, BLOCK = 16384, STEP = 500 + 2 * BLOCK + BLOCK / 4 /* the longest */ };
static ol_loop *loop;
static void begin_with(ol_loop_desc *d) {
    d->no_pool = 1;
    if (!d->policy) d->policy = "any any 0- sliced - -";
    cr_assert_eq(ol_loop_create(&loop, d), 0, "%s", ol_error());
}
static void begin(int64_t slice_ns) {
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.slice_ns = slice_ns;
    begin_with(&d);
}
static void end(void) {
    cr_assert_eq(ol_loop_destroy(loop), 0, "%s", ol_error());
    cr_assert_eq(live, 0, "%ld allocations leaked", live);
}
static ol_loop_stats stats(void) {
    ol_loop_stats s;
    s.size = sizeof s;
    ol_loop_get_stats(loop, &s);
    return s;
}

/* ---- the same results as in software */

enum { MOST = 1 << 20, ROOM = MOST + MOST / 8 };
/* Text-like, noise, one repeated byte, noise with long repetitions. */
static void fill(uint8_t *p, size_t n, int kind) {
    for (size_t i = 0; i < n; i++) {
        if (kind == 0) p[i] = (uint8_t)("etaoin shrdlu\n<>"[random32() % 16]);
        if (kind == 1) p[i] = (uint8_t)random32();
        if (kind == 2) p[i] = 'x';
        if (kind == 3) p[i] = i > 5000 && i % 700 > 100 ? p[i - 1 - i % 5000] : (uint8_t)random32();
    }
}

static uint8_t *src, *here, *sliced, *packed;
static ol_exec *exec;
static void buffers(void) {
    src = malloc(MOST), here = malloc(ROOM + 1), sliced = malloc(ROOM + 1), packed = malloc(ROOM + 1);
    exec = ol_exec_create();
    cr_assert(src && here && sliced && packed && exec);
}
static void buffers_free(void) {
    free(src), free(here), free(sliced), free(packed);
    ol_exec_destroy(exec);
}

static int reports;
static void on_done(ol_loop *l, ol_op *op) { (void)l, (void)op, reports++; }
static void run_sliced(ol_op *op) {
    const int before = reports;
    cr_assert_eq(ol_submit(loop, op, on_done), 0, "%s", ol_error());
    cr_assert_eq(reports, before, "done was called from ol_submit");
    const int64_t slice_ns = ol_loop_desc_of(loop)->slice_ns;
    for (int more = 1; more;) {
        const int64_t begun = clock_ns;
        more = ol_loop_step(loop, 0);
        cr_assert_leq(clock_ns - begun, slice_ns + STEP, "%lld ns in one slice", (long long)(clock_ns - begun));
    }
    cr_assert_eq(reports, before + 1);
    cr_assert(op->mode == OL_SLICED && op->where == 0 && op->why == OL_WHY_RULE);
}
static const char *about(const ol_op *op) {
    static char text[128];
    snprintf(text, sizeof text, "kind %d format %d level %d, %d bytes, room %d", op->kind, op->format, op->level,
             (int)op->len, (int)op->cap);
    return text;
}
/* Both ways, into `here` and `sliced`; the same to the last byte, and not one past cap. */
static int64_t same(const ol_op *prepared) {
    ol_op a = *prepared, b = *prepared;
    ol_stream first, second;
    if (a.u.codec.stream && a.kind != OL_OP_CRC32) {
        first = second = *a.u.codec.stream;
        a.u.codec.stream = &first, b.u.codec.stream = &second;
    }
    if (a.kind != OL_OP_CRC32) a.dst = here, b.dst = sliced;
    if (a.kind == OL_OP_DEFLATE) memset(here, 0x5a, a.cap + 1), memset(sliced, 0x5a, a.cap + 1);
    else memset(here + a.cap, 0x5a, 1), memset(sliced + a.cap, 0x5a, 1);
    ol_op_exec(exec, &a);
    step_most = 0;
    run_sliced(&b);
    cr_assert_leq(step_most, BLOCK, "a step of %lld bytes, %s", (long long)step_most, about(&b));
    cr_assert_eq(a.result, b.result, "%lld %lld %s", (long long)a.result, (long long)b.result, about(&b));
    cr_assert(a.used == b.used && strcmp(ol_op_error(&a), ol_op_error(&b)) == 0, "%s", about(&b));
    if (a.kind == OL_OP_CRC32) return a.result;
    cr_assert(sliced[a.cap] == 0x5a, "past the end: %s", about(&b));
    if (a.result > 0) cr_assert(memcmp(here, sliced, (size_t)a.result) == 0, "%s", about(&b));
    if (!prepared->u.codec.stream) return a.result;
    cr_assert(memcmp(&first, &second, sizeof first) == 0, "the streams differ: %s", about(&b));
    *prepared->u.codec.stream = first;
    return a.result;
}

static const uint64_t sizes[] = {0,     1,     100,   8192,  8193,   16383,  16384,  16385, 32768,
                                 40000, 65535, 65536, 81920, 131070, 131071, 200000, MOST};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void wholes(int format) {
    ol_op op;
    buffers();
    begin(1); /* one step each */
    for (int kind = 0; kind < 4; kind++) {
        fill(src, MOST, kind);
        for (int i = 0; i < SIZES; i++)
            for (int level = OL_LEVEL_AUTO; level <= OL_LEVEL_STATIC; level++) {
                if (sizes[i] == MOST && level > OL_LEVEL_1) continue;
                ol_prep_deflate(&op, format, here, ol_deflate_bound(sizes[i]), src, sizes[i])->level = (uint8_t)level;
                const int64_t n = same(&op);
                cr_assert_gt(n, 0);
                if (level % 3) continue;
                memcpy(packed, here, (size_t)n);
                ol_prep_inflate(&op, format, here, sizes[i] + 100, packed, (uint64_t)n);
                cr_assert_eq(same(&op), (int64_t)sizes[i]);
                cr_assert(memcmp(sliced, src, (size_t)sizes[i]) == 0);
                ol_prep_inflate(&op, format, here, sizes[i], packed, (uint64_t)n); /* exactly the room */
                cr_assert_eq(same(&op), (int64_t)sizes[i]);
            }
    }
    buffers_free();
    end();
}
Test(slices, deflate_and_inflate_give_what_software_gives_raw) { wholes(OL_RAW); }
Test(slices, deflate_and_inflate_give_what_software_gives_zlib) { wholes(OL_ZLIB); }
Test(slices, deflate_and_inflate_give_what_software_gives_gzip) { wholes(OL_GZIP); }

Test(slices, what_has_too_little_room_is_stored_or_refused_as_in_software) {
    ol_op op;
    buffers();
    begin(1);
    for (int kind = 0; kind < 3; kind++) {
        fill(src, MOST, kind);
        for (int i = 2; i < SIZES - 1; i++) {
            ol_prep_deflate(&op, OL_GZIP, here, ROOM, src, sizes[i])->level = kind == 1 ? OL_LEVEL_1 : OL_LEVEL_2;
            const int64_t n = same(&op);
            memcpy(packed, here, (size_t)n);
            const uint64_t stored = 18 + sizes[i] + 5 * ((sizes[i] + 65534) / 65535);
            const uint64_t caps[] = {0, 17, 18, 19, sizes[i] / 2, (uint64_t)n - 1, (uint64_t)n, stored - 1, stored};
            for (size_t k = 0; k < sizeof caps / sizeof *caps; k++) {
                op.cap = caps[k];
                const int64_t r = same(&op);
                cr_assert(r == (int64_t)stored || r == n || r == -ENOSPC, "%lld", (long long)r);
            }
            for (uint64_t cap = 0; cap < sizes[i]; cap += 1 + sizes[i] / 7)
                cr_assert_eq(same(ol_prep_inflate(&op, OL_GZIP, here, cap, packed, (uint64_t)n)), -ENOSPC);
            cr_assert_eq(same(ol_prep_inflate(&op, OL_GZIP, here, sizes[i] - 1, packed, (uint64_t)n)), -ENOSPC);
        }
    }
    buffers_free();
    end();
}

Test(slices, corrupt_and_truncated_input_is_found_as_in_software) {
    ol_op op;
    int refused = 0;
    buffers();
    begin(1);
    fill(src, MOST, 3);
    ol_prep_deflate(&op, OL_ZLIB, here, ROOM, src, 100000)->level = OL_LEVEL_3;
    const uint64_t n = (uint64_t)same(&op);
    memcpy(packed, here, n);
    for (uint64_t len = 0; len < n; len += len < 40 || n - len < 40 ? 1 : 977)
        cr_assert_eq(same(ol_prep_inflate(&op, OL_ZLIB, here, 100000, packed, len)), -EBADMSG);
    for (int i = 0; i < 300; i++) {
        uint8_t *const where = packed + random32() % n;
        const uint8_t was = *where;
        *where ^= (uint8_t)(1u << random32() % 8);
        refused += same(ol_prep_inflate(&op, OL_ZLIB, here, 100000, packed, n)) < 0;
        *where = was;
    }
    cr_assert_gt(refused, 290);
    cr_assert_eq(same(ol_prep_inflate(&op, OL_ZLIB, here, 100000, packed, n)), 100000);
    memset(packed + n, 7, 50); /* something follows */
    cr_assert_eq(same(ol_prep_inflate(&op, OL_ZLIB, here, 100000, packed, n + 50)), 100000);
    buffers_free();
    end();
}

static void streams(int format, uint64_t chunk) {
    enum { ALL = 300000 };
    ol_stream out, in;
    uint8_t *back = malloc(ROOM), *both = malloc(ROOM);
    uint64_t at = 0, k = 0;
    ol_op op;
    memset(&out, 0, sizeof out), memset(&in, 0, sizeof in);
    for (; at < ALL; at += chunk) {
        const uint64_t n = ALL - at < chunk ? ALL - at : chunk, dict = at < 32768 ? at : 32768;
        const int final = at + n == ALL;
        ol_prep_deflate_chunk(&op, format, here, ol_deflate_bound(n), src + at, n, &out, dict ? src + at - dict : NULL,
                              (uint32_t)dict, final);
        op.level = (uint8_t)(random32() % 5);
        const int64_t r = same(&op);
        cr_assert_gt(r, 0);
        memcpy(both + k, here, (size_t)r);
        const ol_stream before = in; /* -ENOSPC leaves the stream as it was */
        const void *const history = dict ? back + at - dict : NULL;
        ol_prep_inflate_chunk(&op, format, here, n - 1, both + k, (uint64_t)r, &in, history, (uint32_t)dict, final);
        cr_assert_eq(same(&op), -ENOSPC);
        cr_assert(in.started == before.started && in.total == before.total && !in.failed);
        ol_prep_inflate_chunk(&op, format, here, n, both + k, (uint64_t)r, &in, history, (uint32_t)dict, final);
        cr_assert_eq(same(&op), (int64_t)n);
        memcpy(back + at, sliced, n);
        k += (uint64_t)r;
    }
    cr_assert(memcmp(back, src, ALL) == 0 && in.finished && out.finished && in.total == ALL);
    ol_prep_inflate(&op, format, here, ALL, both, k); /* together they are one */
    cr_assert_eq(same(&op), ALL);
    free(back), free(both);
}
Test(slices, chunks_of_streams_give_what_software_gives) {
    buffers();
    begin(1);
    for (int kind = 0; kind < 4; kind++) {
        fill(src, MOST, kind);
        streams(OL_RAW + kind % 3, 50000);
        streams(OL_GZIP, 16384);
    }
    streams(OL_ZLIB, 300000);
    buffers_free();
    end();
}
Test(slices, a_corrupt_chunk_ends_its_stream) {
    ol_stream s;
    ol_op op;
    buffers();
    begin(1);
    memset(&s, 0, sizeof s);
    fill(packed, 60000, 1);
    cr_assert_eq(same(ol_prep_inflate_chunk(&op, OL_RAW, here, 60000, packed, 60000, &s, NULL, 0, 0)), -EBADMSG);
    cr_assert_eq(s.failed, 1);
    buffers_free();
    end();
}
Test(slices, crc32_gives_what_software_gives) {
    static const uint64_t more[] = {16 * BLOCK - 1, 16 * BLOCK, 16 * BLOCK + 1, 32 * BLOCK, 3 * MOST / 4 + 5};
    ol_op op;
    buffers();
    begin(1);
    fill(src, MOST, 1);
    for (size_t i = 0; i < SIZES + 5; i++)
        same(ol_prep_crc32(&op, i % 2 ? random32() : 0, src, i < SIZES ? sizes[i] : more[i - SIZES]));
    buffers_free();
    end();
}

/* ---- how long a slice takes */

/* What a slice did, as its steps saw it. */
typedef struct seen {
    uint64_t slice; /* its number */
    int64_t begin, end;
    int id;
} seen;
enum { SEEN = 4096 };
static seen trace[SEEN];
static int traced;
static void trace_step(int id, int64_t cost) {
    cr_assert_lt(traced, SEEN);
    trace[traced].slice = loop->stats.slices;
    trace[traced].id = id;
    trace[traced].begin = clock_ns;
    trace[traced++].end = clock_ns += cost;
}

typedef struct job {
    ol_co co;
    ol_op op;
    ol_fd fd;
    int id, steps, ran, ended;
    uint32_t timeout_us;
    int64_t cost, r;
    const char *why, *error;
} job;
static int64_t job_step(void *arg) {
    job *j = (job *)arg;
    trace_step(j->id, j->cost);
    return ++j->ran < j->steps ? OL_MORE : 1000 + j->id;
}
static int order[64], ends;
static void job_ends(job *j) {
    j->ended++;
    order[ends++] = j->id;
}
static void job_done(ol_loop *l, ol_op *op) {
    job *j = OL_CONTAINER(op, job, op);
    (void)l;
    j->r = op->result;
    j->why = ol_op_why(op);
    j->error = ol_op_error(op);
    job_ends(j);
}
static ol_op *job_prepare(job *j, int id, int steps, int64_t cost) {
    memset(j, 0, sizeof *j);
    j->id = id, j->steps = steps, j->cost = cost;
    return ol_prep_steps(&j->op, job_step, j);
}
static void job_submit(job *j, int id, int cls, int steps, int64_t cost) {
    job_prepare(j, id, steps, cost)->cls = (uint8_t)cls;
    cr_assert_eq(ol_submit(loop, &j->op, job_done), 0, "%s", ol_error());
}
static void job_main(ol_co *co) {
    job *j = OL_SELF(co, job, co);
    OL_BEGIN(co);
    OL_AWAIT(j->r, ol_run(co, (ol_prep_steps(&j->op, job_step, j)->timeout_us = j->timeout_us, &j->op)));
    j->why = ol_op_why(&j->op);
    j->error = ol_co_error(co);
    job_ends(j);
    OL_END(co);
}
static void job_spawn(job *j, int id, int cls, int steps, int64_t cost, ol_fd fd) {
    job_prepare(j, id, steps, cost);
    j->fd = fd;
    cr_assert_eq(ol_spawn(loop, &j->co, job_main, fd, cls), 0);
}
static void run(void) { cr_assert_eq(ol_loop_run(loop), 0, "%s", ol_error()); }
static void step(void) { cr_assert_geq(ol_loop_step(loop, 0), 0, "%s", ol_error()); }
static void reset(void) { traced = ends = reports = 0; }

/* No step begins in a slice whose time is over, and a slice ends before that only with its operation. */
static void slices_are_right(int64_t slice_ns) {
    for (int i = 0, k; i < traced; i = k) {
        for (k = i + 1; k < traced && trace[k].slice == trace[i].slice; k++) {
            cr_assert_eq(trace[k].id, trace[i].id, "two operations in one slice");
            cr_assert_lt(trace[k].begin - trace[i].begin, slice_ns, "a step began after its slice's time");
        }
        int more = 0;
        for (int m = k; m < traced; m++) more |= trace[m].id == trace[i].id;
        if (more) cr_assert_geq(trace[k - 1].end - trace[i].begin, slice_ns, "a slice was cut short");
    }
}

Test(slices, a_slice_exceeds_its_time_by_one_step_at_most) {
    static const int64_t costs[] = {1, 7, 999, 1000, 4999, 5000, 19999, 20000, 20001, 70000};
    static const int64_t times[] = {1, 5000, 20000, 100000};
    for (size_t t = 0; t < 4; t++) {
        begin(times[t]);
        for (size_t i = 0; i < sizeof costs / sizeof *costs; i++) {
            job j;
            reset();
            const uint64_t before = stats().slices;
            job_submit(&j, 1, 0, 300, costs[i]);
            run();
            cr_assert(j.ended == 1 && j.ran == 300 && j.r == 1001);
            slices_are_right(times[t]);
            const int64_t each = (times[t] + costs[i] - 1) / costs[i]; /* steps of a slice */
            cr_assert_eq((int64_t)(stats().slices - before), (300 + each - 1) / each);
            cr_assert_eq(j.op.service_ns, 300 * costs[i]);
        }
        end();
    }
}
Test(slices, the_default_slice_is_20_microseconds) {
    begin(0);
    cr_assert_eq(ol_loop_desc_of(loop)->slice_ns, SLICE);
    end();
}
/* Between two looks at the clock a slice does a block, also of what expands a thousandfold, or not at all. */
Test(slices, a_codec_slice_is_bounded_whatever_the_data) {
    enum { BOMB = 24 << 20 };
    uint8_t *zeros = calloc(1, BOMB), *out = malloc(BOMB + 1), *blocks = malloc(MOST);
    ol_op op;
    buffers();
    begin(SLICE);
    ol_prep_deflate(&op, OL_GZIP, packed, ROOM, zeros, BOMB);
    cr_assert_gt(ol_op_exec(exec, &op), 0);
    const uint64_t n = (uint64_t)op.result;
    cr_assert_lt(n, BOMB / 200);
    ol_prep_inflate(&op, OL_GZIP, out, BOMB, packed, n);
    step_most = 0;
    run_sliced(&op);
    cr_assert_eq(op.result, BOMB);
    cr_assert(memcmp(out, zeros, BOMB) == 0);
    cr_assert_leq(step_most, BLOCK);
    cr_assert_gt(stats().slices, BOMB / (SLICE + BLOCK));
    /* empty stored blocks: a megabyte of input, no output */
    for (size_t i = 0; i + 5 <= MOST; i += 5) memcpy(blocks + i, "\0\0\0\377\377", 5);
    memcpy(blocks + MOST / 5 * 5 - 5, "\1\0\0\377\377", 5);
    ol_prep_inflate(&op, OL_RAW, out, 10, blocks, MOST / 5 * 5);
    step_most = 0;
    run_sliced(&op);
    cr_assert_eq(op.result, 0, "%s", ol_op_error(&op));
    cr_assert_leq(step_most, BLOCK);
    free(zeros), free(out), free(blocks);
    buffers_free();
    end();
}
Test(slices, a_plain_call_is_one_step_and_a_file_operation_none) {
    job j;
    begin(SLICE);
    reset();
    job_prepare(&j, 1, 1, 500 * US)->format = 0;
    j.op.u.call.fn = job_step;
    cr_assert_eq(ol_submit(loop, &j.op, job_done), 0);
    run();
    cr_assert(j.r == 1001 && traced == 1 && j.op.mode == OL_SLICED);
    j.ran = 0, j.steps = 2; /* of a call that isn't told to have steps OL_MORE is a number like any other */
    ol_prep_call(&j.op, job_step, &j);
    cr_assert_eq(ol_submit(loop, &j.op, job_done), 0);
    run();
    cr_assert(j.r < 0 && traced == 2);
    end();
}
static struct stat st;
static char bytes[4096];
typedef struct reader {
    ol_co co;
    ol_op op;
    int64_t r, stat;
    int fd;
} reader;
static void reads(ol_co *co) {
    reader *f = OL_SELF(co, reader, co);
    OL_BEGIN(co);
    OL_AWAIT(f->r, ol_pread(co, &f->op, f->fd, bytes, sizeof bytes, 0));
    cr_assert_eq(f->op.mode, OL_SOFTWARE);
    OL_AWAIT(f->stat, ol_stat(co, &f->op, f->fd, NULL, &st));
    cr_assert_eq(f->op.mode, OL_SOFTWARE);
    OL_END(co);
}
Test(slices, what_may_block_runs_on_the_spot) {
    reader f;
    begin(SLICE);
    memset(&f, 0, sizeof f);
    f.fd = open("/proc/self/stat", O_RDONLY); /* never in the page cache */
    cr_assert_geq(f.fd, 0);
    cr_assert_eq(ol_spawn(loop, &f.co, reads, 0, 0), 0);
    run();
    cr_assert(f.r > 0 && f.stat == 0, "%s", ol_co_error(&f.co));
    cr_assert_eq(stats().slices, 0u);
    close(f.fd);
    end();
}

/* ---- who runs between slices, and in which order */

typedef struct ticker {
    ol_co co;
    int ticks;
} ticker;
static int tickers_stop;
static void ticks(ol_co *co) {
    ticker *t = OL_SELF(co, ticker, co);
    OL_BEGIN(co);
    while (!tickers_stop) {
        t->ticks++;
        OL_YIELD();
    }
    OL_END(co);
}
/* After each step of a job the others' counts are kept, to see who ran between two slices. */
Test(slices, who_is_ready_runs_between_two_slices) {
    enum { N = 5 };
    ticker t[N];
    job j;
    begin(SLICE);
    reset();
    tickers_stop = 0;
    memset(t, 0, sizeof t);
    for (int i = 0; i < N; i++) cr_assert_eq(ol_spawn(loop, &t[i].co, ticks, 0, OL_BATCH), 0);
    job_submit(&j, 1, OL_BATCH, 100, 10 * US);
    while (!j.ended) {
        int before[N];
        const uint64_t slices = stats().slices;
        for (int i = 0; i < N; i++) before[i] = t[i].ticks;
        for (int k = 0; stats().slices == slices && !j.ended; k++) {
            step();
            cr_assert_lt(k, 20, "the operation starves");
        }
        cr_assert_leq(stats().slices, slices + 1);
        if (slices)
            for (int i = 0; i < N; i++) cr_assert_geq(t[i].ticks, before[i] + 1, "no turn between two slices");
    }
    cr_assert_eq(stats().slices, 50u);
    tickers_stop = 1;
    run();
    end();
}
static job urgent[2];
static void submit_urgent(ol_loop *l, ol_timer *t) {
    (void)l, (void)t;
    job_submit(&urgent[0], 7, OL_LATENCY, 14, 10 * US);
}
Test(slices, latency_critical_work_goes_first) {
    ol_timer timer;
    job slow;
    begin(SLICE);
    reset();
    memset(&timer, 0, sizeof timer);
    job_submit(&slow, 1, OL_BATCH, 200, 10 * US);
    cr_assert_eq(ol_timer_start(loop, &timer, 500 * US, submit_urgent), 0);
    run();
    int first = 0, last = 0;
    for (int i = 0; i < traced; i++) {
        if (trace[i].id != 7) continue;
        if (!first) first = i;
        last = i;
    }
    cr_assert(first > 40 && first < 60, "%d", first);
    cr_assert_eq(last - first, 13, "batch work came between"); /* 7 slices, fewer than latency_run */
    cr_assert(ends == 2 && order[0] == 7 && order[1] == 1);
    slices_are_right(SLICE);
    end();
}
Test(slices, latency_critical_work_does_not_starve_batch) {
    job slow;
    begin(SLICE);
    reset();
    job_submit(&slow, 1, OL_BATCH, 20, 10 * US);
    job_submit(&urgent[0], 7, OL_LATENCY, 400, 10 * US);
    run();
    int between = 0, most = 0; /* urgent slices between two of batch, of two steps each */
    for (int i = 0; i < 9 * 2 * 10; i += 2) {
        between = trace[i].id == 1 ? 0 : between + 1;
        if (between > most) most = between;
    }
    cr_assert_eq(most, (int)ol_loop_desc_of(loop)->latency_run, "%d", most);
    cr_assert_eq(order[0], 1, "batch work waited to the end");
    end();
}
Test(slices, one_of_each_class_at_a_time_first_come_first_served) {
    enum { N = 12 };
    static job j[2 * N];
    begin(SLICE);
    reset();
    for (int i = 0; i < N; i++) {
        job_submit(&j[i], 1 + i, OL_BATCH, 3 + i % 4, 8 * US);
        job_submit(&j[N + i], 101 + i, OL_LATENCY, 2 + i % 5, 8 * US);
    }
    run();
    int at[2] = {1, 101}, left[2] = {3, 2}; /* id under way and its steps to come, by class */
    for (int i = 0; i < traced; i++) {
        const int urgently = trace[i].id > 100;
        cr_assert_eq(trace[i].id, at[urgently], "two of a class under way");
        if (--left[urgently]) continue;
        const int next = at[urgently]++ % 100;
        left[urgently] = urgently ? 2 + next % 5 : 3 + next % 4;
    }
    cr_assert(at[0] == N + 1 && at[1] == N + 101 && ends == 2 * N);
    slices_are_right(SLICE);
    for (int i = 0; i < 2 * N; i++) cr_assert(j[i].r == 1000 + j[i].id && j[i].op.mode == OL_SLICED);
    end();
}
Test(slices, the_kernel_is_looked_at_after_each_slice_that_takes_long) {
    job j[2];
    ol_histogram h;
    begin(50 * US);
    reset();
    job_submit(&j[0], 1, OL_BATCH, 100, 10 * US);
    job_submit(&j[1], 2, OL_LATENCY, 100, 10 * US);
    run();
    cr_assert_eq(ol_loop_get_times(loop, 0, 0, OL_TIME_LAG, &h), 0);
    cr_assert_eq(h.max, 50u * US, "two slices without a look: %d", (int)h.max);
    end();
}
/* done may submit the same operation again, which goes to the end of the line. */
static int again;
static void resubmits(ol_loop *l, ol_op *op) {
    job *j = OL_CONTAINER(op, job, op);
    job_ends(j);
    if (!again) return;
    again--;
    j->ran = 0;
    cr_assert_eq(ol_submit(l, ol_prep_steps(op, job_step, j), resubmits), 0);
}
Test(slices, done_may_submit_it_again) {
    job a, b;
    begin(SLICE);
    reset();
    again = 3;
    job_prepare(&a, 1, 5, 10 * US);
    cr_assert_eq(ol_submit(loop, &a.op, resubmits), 0);
    job_submit(&b, 2, 0, 5, 10 * US);
    run();
    cr_assert(a.ended == 4 && b.ended == 1 && b.r == 1002);
    cr_assert_eq(traced, 25);
    end();
}
Test(slices, an_await_ends_with_the_result) {
    job j[3];
    begin(SLICE);
    reset();
    for (int i = 0; i < 3; i++) job_spawn(&j[i], 1 + i, i == 2 ? OL_LATENCY : OL_BATCH, 10, 7 * US, 0);
    run();
    for (int i = 0; i < 3; i++) cr_assert(j[i].ended == 1 && j[i].r == 1001 + i && j[i].op.mode == OL_SLICED);
    cr_assert(order[0] == 3 && order[1] == 1 && order[2] == 2);
    const ol_loop_stats s = stats();
    cr_assert(s.software == 3 && s.offloaded == 0 && s.why[OL_WHY_RULE] == 3 && s.ops == 0);
    ol_cell c;
    c.size = sizeof c;
    cr_assert_eq(ol_loop_get_cell(loop, OL_OP_CALL, OL_BATCH, 0, &c), 0);
    cr_assert_eq(c.n[OL_SLICED], 2u);
    cr_assert_eq(c.here_ns, 70 * US);
    end();
}
Test(slices, its_times_are_those_of_the_work_and_of_the_line) {
    job j[3];
    ol_histogram submit, queue, service, total;
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.sample = 1;
    begin_with(&d);
    reset();
    for (int i = 0; i < 3; i++) job_submit(&j[i], i, OL_BATCH, 10, 10 * US);
    run();
    cr_assert_eq(ol_loop_get_times(loop, OL_OP_CALL, OL_BATCH, OL_TIME_SUBMIT, &submit), 0);
    cr_assert_eq(ol_loop_get_times(loop, OL_OP_CALL, OL_BATCH, OL_TIME_QUEUE, &queue), 0);
    cr_assert_eq(ol_loop_get_times(loop, OL_OP_CALL, OL_BATCH, OL_TIME_SERVICE, &service), 0);
    cr_assert_eq(ol_loop_get_times(loop, OL_OP_CALL, OL_BATCH, OL_TIME_TOTAL, &total), 0);
    cr_assert(submit.count == 3 && submit.sum == 0);
    cr_assert(queue.count == 3 && queue.sum == 300u * US && queue.max == 200u * US);
    cr_assert(service.count == 3 && service.sum == 300u * US && service.max == 100u * US);
    cr_assert(total.count == 3 && total.sum == 600u * US && total.max == 300u * US);
    end();
}
/* An outer loop that watches ol_loop_fd is to call again at once while something is under way. */
Test(slices, a_guest_is_called_again_while_an_operation_is_under_way) {
    job j;
    begin(SLICE);
    reset();
    cr_assert_geq(ol_loop_fd(loop), 0);
    step();
    timerfd_ns = -1;
    job_submit(&j, 1, 0, 10, 10 * US);
    uint64_t rung = 0;
    cr_assert_eq(read(loop->notify.eventfd, &rung, 8), 8, "nobody told the guest");
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(j.ended, 0);
        step();
        cr_assert_eq(timerfd_ns, 1);
    }
    run();
    cr_assert_eq(j.r, 1001);
    end();
}

/* ---- stopped, in line and under way */

enum { HEAD, WAITS, LAST, JOBS };
static job line[JOBS];
/* Three in one line, or with `co` awaited by coroutines; `rounds` slices are run. */
static int three_class;
static void three(int co, uint32_t timeout_us, int whose, int rounds) {
    reset();
    for (int i = 0; i < JOBS; i++) {
        if (co) {
            job_spawn(&line[i], i + 1, 0, 10, 10 * US, 0);
            if (i == whose) line[i].timeout_us = timeout_us;
            continue;
        }
        job_prepare(&line[i], i + 1, 10, 10 * US)->cls = (uint8_t)three_class;
        if (i == whose) line[i].op.timeout_us = timeout_us;
        cr_assert_eq(ol_submit(loop, &line[i].op, job_done), 0);
    }
    while (!co && stats().slices < (uint64_t)rounds) step();
    if (co) step(), step(); /* all have submitted, and the first is under way */
}
/* Of the three, one was stopped with this result; the others are complete. */
static void one_stopped(int which, int64_t result, int at_most) {
    for (int i = 0; i < JOBS; i++) {
        cr_assert_eq(line[i].ended, 1);
        cr_assert_eq(line[i].r, i == which ? result : 1001 + i, "job %d: %lld", i, (long long)line[i].r);
        if (i != which) cr_assert_eq(line[i].ran, 10);
    }
    cr_assert_leq(line[which].ran, at_most, "it went on for %d steps", line[which].ran);
    cr_assert_eq(order[0], which + 1, "it was not reported at once");
    cr_assert_str_eq(line[which].why, "cancelled or timed out");
    cr_assert_not_null(strstr(line[which].error, result == -ETIMEDOUT ? "timeout" : "cancel"), "%s", line[which].error);
    cr_assert_eq(stats().ops, 0u);
}

Test(slices, an_operation_is_cancelled_in_line_and_under_way) {
    begin(SLICE);
    for (int i = 0; i < 3 * JOBS; i++) {
        const int which = i % JOBS;
        three_class = i / JOBS; /* 0, OL_LATENCY, OL_BATCH */
        three(0, 0, 0, (int)stats().slices + 2);
        cr_assert_eq(line[HEAD].ran, 4);
        cr_assert_eq(ol_op_cancel(loop, &line[which].op), 0);
        cr_assert_eq(line[which].ended, 0, "done was called from ol_op_cancel");
        cr_assert_eq(ol_op_cancel(loop, &line[which].op), 0); /* twice */
        run();
        one_stopped(which, -ECANCELED, which == HEAD ? 4 : 0);
        cr_assert_eq(ol_op_cancel(loop, &line[which].op), -EINVAL);
    }
    end();
}
Test(slices, a_timeout_ends_it_in_line_and_under_way) {
    for (int co = 0; co < 2; co++)
        for (int which = 0; which < JOBS; which++) {
            begin(SLICE);
            three(co, 55, which, 1);
            run();
            one_stopped(which, -ETIMEDOUT, which == HEAD ? 7 : 0);
            cr_assert_eq(loop->heap_n, 0u);
            end();
        }
}
Test(slices, a_timeout_that_does_not_strike_is_forgotten) {
    job j;
    begin(SLICE);
    reset();
    job_prepare(&j, 1, 10, 10 * US)->timeout_us = 1000;
    cr_assert_eq(ol_submit(loop, &j.op, job_done), 0);
    run();
    cr_assert(j.r == 1001 && loop->heap_n == 0);
    end();
}
Test(slices, a_coroutine_is_cancelled_while_it_waits_in_line_and_under_way) {
    for (int which = 0; which < JOBS; which++) {
        begin(SLICE);
        three(1, 0, 0, 1);
        cr_assert_gt(line[HEAD].ran, 0);
        const int ran = line[which].ran;
        ol_cancel(&line[which].co);
        run();
        one_stopped(which, -ECANCELED, ran);
        end();
    }
}
Test(slices, a_deadline_ends_the_wait_in_line_and_under_way) {
    for (int which = 0; which < JOBS; which++) {
        begin(SLICE);
        three(1, 0, 0, 1);
        cr_assert_eq(ol_deadline(&line[which].co, 45 * US), 0);
        run();
        one_stopped(which, -ETIMEDOUT, which == HEAD ? 8 : 0);
        end();
    }
}
Test(slices, closing_the_fd_stops_what_its_partition_has) {
    for (int which = 0; which < JOBS; which++) {
        int sv[JOBS][2];
        ol_fd fd[JOBS];
        begin(SLICE);
        reset();
        for (int i = 0; i < JOBS; i++) {
            cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv[i]), 0);
            cr_assert_eq(ol_attach(loop, sv[i][0], 0, &fd[i]), 0);
            job_spawn(&line[i], i + 1, 0, 10, 10 * US, fd[i]);
        }
        step(), step();
        const int ran = line[which].ran;
        cr_assert(which != HEAD || ran > 0);
        cr_assert_eq(ol_close(loop, fd[which]), 0);
        run();
        one_stopped(which, -ECANCELED, ran);
        char c;
        cr_assert_eq(read(sv[which][1], &c, 1), 0, "the peer saw no end");
        for (int i = 0; i < JOBS; i++) {
            if (i != which) cr_assert_eq(ol_close(loop, fd[i]), 0);
            close(sv[i][1]);
        }
        cr_assert_eq(stats().fds, 0u);
        end();
    }
}
Test(slices, drain_ends_all) {
    for (int co = 0; co < 2; co++) {
        begin(SLICE);
        three(co, 0, 0, 1);
        job other;
        job_prepare(&other, 9, 100, 10 * US)->cls = OL_LATENCY;
        cr_assert_eq(ol_submit(loop, &other.op, job_done), 0);
        const int ran = line[HEAD].ran;
        cr_assert_eq(ol_loop_drain(loop, 1000 * US), 0, "%s", ol_error());
        for (int i = 0; i < JOBS; i++) cr_assert(line[i].ended == 1 && line[i].r == -ECANCELED);
        cr_assert(line[HEAD].ran == ran && other.r == -ECANCELED && other.ran == 0);
        job_prepare(&other, 9, 1, US);
        cr_assert_eq(ol_submit(loop, &other.op, job_done), 0); /* it can go on */
        run();
        cr_assert_eq(other.r, 1009);
        end();
    }
}
Test(slices, destroy_calls_done_of_all) {
    for (int slices_before = 0; slices_before < 3; slices_before++) {
        begin(SLICE);
        three(0, 0, 0, slices_before);
        end();
        for (int i = 0; i < JOBS; i++) cr_assert(line[i].ended == 1 && line[i].r == -ECANCELED);
        cr_assert_eq(line[HEAD].ran, 2 * slices_before);
    }
}
Test(slices, a_cancelled_stream_is_as_it_was) {
    ol_stream s, before;
    ol_op op;
    buffers();
    begin(1);
    fill(src, MOST, 0);
    memset(&s, 0, sizeof s);
    ol_prep_deflate_chunk(&op, OL_GZIP, here, ROOM, src, 1000, &s, NULL, 0, 0);
    cr_assert_gt(same(&op), 0);
    before = s;
    ol_prep_deflate_chunk(&op, OL_GZIP, here, ROOM, src, MOST, &s, NULL, 0, 1);
    cr_assert_eq(ol_submit(loop, &op, on_done), 0);
    for (int i = 0; i < 30; i++) step();
    cr_assert_gt(stats().slices, 3u);
    cr_assert_eq(ol_op_cancel(loop, &op), 0);
    run();
    cr_assert(op.result == -ECANCELED && memcmp(&s, &before, sizeof s) == 0);
    ol_prep_deflate_chunk(&op, OL_GZIP, here, ROOM, src, 1000, &s, NULL, 0,
                          1); /* and the context is good for the next */
    cr_assert_gt(same(&op), 0);
    buffers_free();
    end();
}

/* ---- no room, no memory, a fork */

Test(slices, a_full_line_is_EAGAIN) {
    enum { PARK = 3 };
    job j[PARK + 2], more;
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.park_max = PARK;
    d.sample = 1; /* what is refused gives its sample back */
    begin_with(&d);
    reset();
    for (int i = 0; i < PARK + 1; i++) job_submit(&j[i], i, OL_BATCH, 4, 10 * US);
    for (int i = 0; i < 300; i++) {
        job_prepare(&more, 50, 1, US)->cls = OL_BATCH;
        cr_assert_eq(ol_submit(loop, &more.op, job_done), -EAGAIN);
        cr_assert_not_null(strstr(ol_error(), "park_max"));
    }
    job_submit(&j[PARK + 1], PARK + 1, OL_LATENCY, 4, 10 * US); /* each class has its own */
    job_spawn(&more, 51, OL_BATCH, 1, US, 0);
    for (int i = 0; i < 4 && !more.ended; i++) step();
    cr_assert(more.r == -EAGAIN && strstr(more.error, "park_max"));
    while (!j[0].ended) step();
    job_submit(&more, 52, OL_BATCH, 1, US); /* there is room again */
    run();
    cr_assert_eq(more.r, 1052);
    for (int i = 0; i < PARK + 2; i++) cr_assert(j[i].ended == 1 && j[i].r == 1000 + i);
    ol_histogram h;
    cr_assert_eq(ol_loop_get_times(loop, 0, 0, OL_TIME_TOTAL, &h), 0);
    cr_assert_eq(h.count, PARK + 3u);
    end();
}
Test(slices, a_full_line_obeys_when_full) {
    static const struct {
        const char *policy;
        int cls, result;
    } rule[] = {
        {"any any 0- sliced - -", OL_LATENCY, 0},    {"any any 0- sliced - software", OL_BATCH, 0},
        {"any any 0- sliced - -", OL_BATCH, 1},      {"any any 0- sliced - wait", OL_LATENCY, 1},
        {"any any 0- sliced - fail", OL_LATENCY, 1},
    };
    for (size_t i = 0; i < sizeof rule / sizeof *rule; i++) {
        job j[3];
        ol_loop_desc d;
        memset(&d, 0, sizeof d);
        d.park_max = 1, d.policy = rule[i].policy;
        begin_with(&d);
        reset();
        for (int k = 0; k < 2; k++) job_submit(&j[k], k, rule[i].cls, 4, 10 * US);
        job_prepare(&j[2], 9, 4, 10 * US)->cls = (uint8_t)rule[i].cls;
        cr_assert_eq(ol_submit(loop, &j[2].op, job_done), rule[i].result ? -EAGAIN : 0);
        cr_assert_eq(traced, rule[i].result ? 0 : 4, "not on the spot");
        run();
        cr_assert(j[0].r == 1000 && j[1].r == 1001);
        if (!rule[i].result) cr_assert(j[2].r == 1009 && j[2].op.mode == OL_SOFTWARE && j[2].op.why == OL_WHY_FULL);
        end();
    }
}
Test(slices, without_memory_for_a_context_it_runs_in_software) {
    job j;
    begin(SLICE);
    reset();
    fail_in = 0;
    job_submit(&j, 1, 0, 10, 10 * US);
    cr_assert_eq(traced, 10, "not on the spot");
    fail_in = -1;
    cr_assert_eq(j.ended, 0);
    run();
    cr_assert(j.r == 1001 && j.ended == 1 && j.op.mode == OL_SOFTWARE && stats().slices == 0);
    job_submit(&j, 1, 0, 10, 10 * US);
    run();
    cr_assert(j.r == 1001 && j.op.mode == OL_SLICED && stats().slices == 5);
    end();
}
Test(slices, without_memory_for_a_codec_or_a_timeout_it_fails_alone) {
    job j[2];
    ol_op op;
    buffers();
    begin(SLICE);
    reset();
    job_submit(&j[0], 1, 0, 10, 10 * US); /* the context is there */
    ol_prep_deflate(&op, OL_RAW, here, ROOM, src, 100);
    cr_assert_eq(ol_submit(loop, &op, on_done), 0);
    fail_in = 0;
    job_prepare(&j[1], 2, 1, US)->timeout_us = 5;
    cr_assert_eq(ol_submit(loop, &j[1].op, job_done), -ENOMEM);
    run();
    cr_assert(j[0].r == 1001 && op.result == -ENOMEM && j[1].ended == 0);
    cr_assert_str_eq(ol_op_error(&op), "out of memory");
    fail_in = -1;
    cr_assert_eq(ol_submit(loop, &op, on_done), 0);
    run();
    cr_assert_gt(op.result, 0);
    buffers_free();
    end();
}
Test(slices, the_child_of_a_fork_goes_on_with_it_and_so_does_the_parent) {
    for (int co = 0; co < 2; co++) {
        begin(SLICE);
        three(co, 0, 0, 1);
        const int before = line[HEAD].ran;
        cr_assert(before > 0 && before < 10);
        const pid_t child = fork();
        cr_assert_geq(child, 0);
        run();
        int right = ends == JOBS;
        for (int i = 0; i < JOBS; i++)
            right &= line[i].ended == 1 && line[i].r == 1001 + i && line[i].ran == 10 && order[i] == i + 1;
        const int destroyed = ol_loop_destroy(loop);
        if (!child) _exit(right && !destroyed && !live ? 0 : 1);
        int status = -1;
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child");
        cr_assert(right && !destroyed && !live, "the parent");
    }
}
