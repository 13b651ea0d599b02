/* calibrate: measures from which size on offloading pays on this machine, and writes a policy that says so.

   cc -O2 -I. tools/calibrate.c -o build/tools/calibrate -DOFFLOAD_ISAL -pthread -lisal -lm
   build/tools/calibrate --help

   Every operation is run by the loop's thread and by each backend, for buffers of 64 bytes to 1 MB and five kinds of
   input, in interleaved rounds; what is compared was measured in the same round. Without OFFLOAD_ISAL and -lisal it
   measures checksums and calls alone. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- the clock, which can be stopped ----------------------------------------------------------------------------- */

/* An emulated device makes its results in software while this clock stands still, so that only the device's own times
   are seen. Nobody reads the clock meanwhile. */
static int64_t stopped_for;

static int64_t running_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static int64_t now_ns(void) { return running_ns() - __atomic_load_n(&stopped_for, __ATOMIC_RELAXED); }

#define OL_SYS_NOW() now_ns()
#define OL_SYS_CLOCK_STOP() ((void)__atomic_fetch_sub(&stopped_for, running_ns(), __ATOMIC_RELAXED))
#define OL_SYS_CLOCK_GO() ((void)__atomic_fetch_add(&stopped_for, running_ns(), __ATOMIC_RELAXED))

#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

/* ---- what is measured -------------------------------------------------------------------------------------------- */

enum { EMPTY = 0, OPS = OL_OP_INFLATE + 1 }; /* by kind; EMPTY: a call of a function that does nothing */
enum { INPUTS = 5, SIZES = 15, SMALLEST = 64, BIGGEST = SMALLEST << (SIZES - 1) };
enum { SOFTWARE = 0, THREADS = 1, BACKENDS = 6 };
enum { SPINNING, SLEEPING, STATES }; /* both ends between operations: loop and worker, or loop alone with a device */
enum { ROUNDS_MAX = 99, ROUNDS_MIN = 3 };
enum { MEDIAN = -1, ALL = -1 }; /* in place of a round, of a kind of input */

static const char *const op_names[OPS] = {"empty", "call", "crc32", "deflate", "inflate"};
static const char *const input_names[INPUTS] = {"random", "repeated", "html", "numbers", "json"};
static const char *const input_titles[INPUTS] = {"random numbers", "repeated character", "HTML", "numeric data",
                                                 "JSON lines"};
static const char *const state_names[STATES] = {"spinning", "sleeping"};
static const char *const class_names[] = {"", "latency", "batch"};
static const char *const mode_names[] = {"", "software", "sliced", "sync", "async", "auto"};

/* One measurement, in ns. */
struct figure {
    double software; /* the same by the loop's own thread, measured just before */
    double setup;    /* of the loop's thread, until the backend has the operation */
    double trip;     /* until the result is there; 0: not measured */
    double loop;     /* what the loop's thread has spent altogether: set-up, and the handling of the completion */
};
static struct figure figures[OPS][INPUTS][SIZES][BACKENDS][STATES][ROUNDS_MAX];
static double bytes_of[OPS][INPUTS][SIZES]; /* what the policy goes by: of inflate the compressed bytes */
static char backend_names[BACKENDS][16] = {"software", "threads"};
static int backends = 2; /* measured, software among them */
static int rounds;       /* that are complete */

static struct {
    int rounds, quick, awake;
    double seconds, others, margin;
    uint32_t ops; /* bits by kind */
    const char *output, *policy, *compare, *from, *device[BACKENDS];
    int devices;
} want = {0, 0, 0, 0, 0.25, 50, 0, NULL, NULL, NULL, NULL, {NULL}, 0};

static char machine[160] = "unknown CPU", commands[600], conditions[160] = "conditions unknown";
static int cpus = 1;

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *format, ...) {
    va_list args;
    fflush(stdout);
    fputs("calibrate: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(2);
}

static void must(int r, const char *what) {
    if (r < 0) fail("%s: %s", what, ol_error());
}

static void *memory(size_t n) {
    void *p = calloc(1, n);
    if (!p) fail("out of memory");
    return p;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Quantile of values that are not NaN; sorts them. NaN if there is none. */
static double quantile(double *v, int n, double share) {
    int k = 0;
    for (int i = 0; i < n; i++)
        if (!isnan(v[i])) v[k++] = v[i];
    if (!k) return (double)NAN;
    qsort(v, (size_t)k, sizeof *v, by_value);
    const double at = share * (k - 1);
    const int low = (int)at;
    if (low + 1 >= k || v[low + 1] == v[low]) return v[low]; /* infinities, too */
    return v[low] + (v[low + 1] - v[low]) * (at - low);
}

/* ---- the five kinds of input ------------------------------------------------------------------------------------- */

static uint64_t seed;
static uint64_t draw(uint64_t below) { /* xorshift64* */
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (seed * UINT64_C(0x2545f4914f6cdd1d) >> 11) % below;
}

static const char *word(void) { /* the first ones are drawn most often, as in any text */
    static const char *const words[] = {
        "the",     "of",       "and",     "to",      "in",       "a",       "is",       "for",       "that",
        "with",    "on",       "as",      "are",     "from",     "which",   "data",     "request",   "server",
        "time",    "each",     "buffer",  "result",  "before",   "network", "latency",  "system",    "between",
        "memory",  "several",  "process", "measure", "library",  "accept",  "overhead", "benchmark", "through",
        "kernel",  "compress", "queue",   "packet",  "another",  "thread",  "variant",  "hardware",  "software",
        "balance", "quickly",  "offload", "region",  "threshold"};
    const uint64_t n = sizeof words / sizeof *words;
    return words[draw(draw(n) + 1)];
}

struct text {
    char *at, *end;
};
static void put(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *t, const char *format, ...) {
    va_list args;
    const size_t room = (size_t)(t->end - t->at);
    va_start(args, format);
    const int n = vsnprintf(t->at, room + 1, format, args); /* there is a byte behind the end */
    va_end(args);
    t->at += (size_t)n < room ? (size_t)n : room;
}

static void put_html(struct text *t) {
    const int section = (int)draw(5);
    if (section == 0) put(t, "<h2 id=\"%s-%d\">%s %s</h2>\n", word(), (int)draw(100), word(), word());
    put(t, "<p class=\"%s\">", draw(3) ? "text" : "note");
    for (int n = 12 + (int)draw(40); n > 0; n--) {
        if (draw(25) == 0) put(t, "<a href=\"/%s/%s.html\">%s %s</a> ", word(), word(), word(), word());
        put(t, "%s%s", word(), draw(9) ? " " : ", ");
    }
    put(t, "</p>\n");
    if (section == 1)
        put(t, "<div class=\"figure\"><img src=\"/images/%d.png\" alt=\"%s\"></div>\n", (int)draw(5000), word());
}

static void put_numbers(struct text *t) { /* three quantities that wander, and a count: rows of a table */
    static int a, b, c, row;
    if (!row++) a = 21500, b = 101325, c = 480;
    a += (int)draw(61) - 30;
    b += (int)draw(41) - 20;
    c += (int)draw(9) - 4;
    put(t, "%d,%d.%03d,%d.%02d,%d,%d\n", 1000 + row, a / 1000, abs(a % 1000), b / 100, abs(b % 100), c,
        (int)draw(65536));
}

static void put_json(struct text *t) {
    static const char *const level[] = {"info", "info", "info", "warn", "error"};
    static const char *const method[] = {"GET", "GET", "GET", "POST", "PUT"};
    static const int status[] = {200, 200, 200, 304, 404, 500};
    static int64_t ms = 1700000000000;
    ms += (int64_t)draw(900);
    put(t,
        "{\"ts\":%lld,\"level\":\"%s\",\"method\":\"%s\",\"path\":\"/%s/%s/%d\",\"status\":%d,\"bytes\":%d,\"us\":%d,"
        "\"id\":\"%08x%08x\"}\n",
        (long long)ms, level[draw(5)], method[draw(5)], word(), word(), (int)draw(10000), status[draw(6)],
        (int)draw(200000), (int)draw(90000), (unsigned)draw(1u << 31), (unsigned)draw(1u << 31));
}

static unsigned char *make_input(int input) {
    unsigned char *p = (unsigned char *)memory(BIGGEST + 1);
    struct text t;
    t.at = (char *)p;
    t.end = t.at + BIGGEST;
    seed = UINT64_C(0x9e3779b97f4a7c15);
    while (t.at < t.end) {
        switch (input) {
        case 0: *t.at++ = (char)draw(256); break;
        case 1: *t.at++ = 'a'; break;
        case 2: put_html(&t); break;
        case 3: put_numbers(&t); break;
        default: put_json(&t);
        }
    }
    return p;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static unsigned char *source[INPUTS], *packed[INPUTS][SIZES], *output;
static uint64_t packed_len[INPUTS][SIZES];
static ol_exec *codec;

static int step_of_sizes(void) { return want.quick ? 2 : 1; } /* quick: sizes by factors of four */

struct hashed {
    const unsigned char *p;
    uint64_t n;
};
static struct hashed hashed;

static int64_t hash(void *arg) { /* FNV-1a: what a call stands for here; about 1 ns for each byte */
    const struct hashed *h = (const struct hashed *)arg;
    uint64_t v = UINT64_C(0xcbf29ce484222325);
    for (uint64_t i = 0; i < h->n; i++) v = (v ^ h->p[i]) * UINT64_C(0x100000001b3);
    return (int64_t)(v >> 1);
}
static int64_t nothing(void *arg) {
    (void)arg;
    return 7;
}

static const unsigned char *input_of(int op, int input, int size, uint64_t *len) {
    *len = (uint64_t)SMALLEST << size;
    if (op != OL_OP_INFLATE) return source[input];
    *len = packed_len[input][size];
    return packed[input][size];
}

static ol_op *prepare(ol_op *p, int op, int input, int size) {
    uint64_t len = 0;
    const unsigned char *in = op == EMPTY ? NULL : input_of(op, input, size, &len);
    switch (op) {
    case EMPTY: return ol_prep_call(p, nothing, NULL);
    case OL_OP_CRC32: return ol_prep_crc32(p, 0, in, len);
    case OL_OP_DEFLATE: return ol_prep_deflate(p, OL_GZIP, output, ol_deflate_bound(BIGGEST), in, len);
    case OL_OP_INFLATE: return ol_prep_inflate(p, OL_GZIP, output, (uint64_t)SMALLEST << size, in, len);
    default:
        hashed.p = in;
        hashed.n = len;
        ol_prep_call(p, hash, &hashed)->len = len;
        return p;
    }
}

/* A server has just received what it hands on: the input lies in the cache of the loop's core, not of the worker's. */
static void touch(int op, int input, int size) {
    uint64_t len = 0;
    if (op == EMPTY) return;
    volatile unsigned char *p = (volatile unsigned char *)(uintptr_t)input_of(op, input, size, &len);
    for (uint64_t i = 0; i < len; i += 64) p[i] = p[i];
}

static int has_codec(void) {
    ol_op op;
    unsigned char small[256];
    return ol_op_exec(codec, ol_prep_deflate(&op, OL_GZIP, small, sizeof small, "a", 1)) != -ENOTSUP;
}

static int measured(int op) { return op == EMPTY || (want.ops >> op & 1); }

static void make_inputs(void) {
    ol_op op;
    codec = ol_exec_create();
    output = (unsigned char *)memory(ol_deflate_bound(BIGGEST));
    if (!codec) fail("out of memory");
    const uint32_t codecs = 1u << OL_OP_DEFLATE | 1u << OL_OP_INFLATE;
    if (!want.ops) want.ops = 1u << OL_OP_CALL | 1u << OL_OP_CRC32 | (has_codec() ? codecs : 0);
    if ((want.ops & codecs) && !has_codec())
        fail("deflate and inflate are not built in: compile with -DOFFLOAD_ISAL and -lisal (Debian: libisal-dev), or "
             "take --ops crc32,call");
    for (int i = 0; i < INPUTS; i++) {
        source[i] = make_input(i);
        for (int k = 0; k < SIZES && measured(OL_OP_INFLATE); k++) {
            const int64_t n = ol_op_exec(codec, prepare(&op, OL_OP_DEFLATE, i, k));
            if (n < 0) fail("deflate of %s: %s", input_titles[i], ol_op_error(&op));
            packed_len[i][k] = (uint64_t)n;
            packed[i][k] = (unsigned char *)memory((size_t)n);
            memcpy(packed[i][k], output, (size_t)n);
        }
    }
    for (int k = OL_OP_CALL; k < OPS; k++)
        for (int i = 0; i < INPUTS; i++)
            for (int s = 0; s < SIZES; s++) {
                uint64_t len;
                (void)input_of(k, i, s, &len);
                bytes_of[k][i][s] = (double)len;
            }
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

static double clock_ns; /* what reading the clock costs */
static cpu_set_t all_cpus;
static cpu_set_t here, away; /* the loop's CPU; the others, for workers. The same if there is only one */

static void pin(const cpu_set_t *set) { (void)sched_setaffinity(0, sizeof *set, set); }

static void take_cpus(void) {
    const int cpu = sched_getcpu();
    if (sched_getaffinity(0, sizeof all_cpus, &all_cpus) != 0) CPU_SET(0, &all_cpus);
    cpus = CPU_COUNT(&all_cpus);
    CPU_SET((size_t)(cpu < 0 ? 0 : cpu), &here);
    CPU_XOR(&away, &all_cpus, &here);
    if (cpus < 2) away = here;
    pin(&here);
}

static void time_clock(void) {
    double v[1001];
    for (int i = 0; i < 1001; i++) {
        const int64_t t = now_ns();
        v[i] = (double)(now_ns() - t);
    }
    clock_ns = quantile(v, 1001, 0.5);
}

/* The backend under test behind a copy of its vtable that takes the time of each submit and poll. */
static struct {
    ol_backend copy;
    const ol_backend *inner;
    int64_t submitted, polled; /* when submit returned, when the poll that brought something began */
    int started;
} watched;

/* The first submit starts a pool's threads, which inherit the CPUs of their starter. */
static int watched_submit(void *channel, ol_op *const *ops, int n) {
    if (!watched.started) pin(&away);
    const int k = watched.inner->submit(channel, ops, n);
    if (!watched.started) pin(&here);
    watched.started = 1;
    watched.submitted = now_ns();
    return k;
}
static int watched_poll(void *channel, ol_op **ops, int max) {
    const int64_t t = now_ns();
    const int n = watched.inner->poll(channel, ops, max);
    if (n > 0) watched.polled = t;
    return n;
}

/* A loop with one backend. */
struct bed {
    ol_loop *loop;
    ol_backend *backend;
    int index, state;
};

enum { LONG_NS = 1000 * 1000 * 1000 }; /* longer than anything that is waited for by spinning */

static void open_backend(struct bed *b) {
    ol_threads_desc t;
    memset(&t, 0, sizeof t);
    t.workers = 1;
    t.spin_ns = b->state == SPINNING ? LONG_NS : -1;
    if (b->index == THREADS) must(ol_threads_create(&b->backend, &t), "the thread pool");
    ol_emulated_desc d;
    char err[200];
    if (b->index > THREADS && ol_emulated_parse(want.device[b->index - 2], &d, err, sizeof err) < 0)
        fail("--device %s: %s", want.device[b->index - 2], err);
    if (b->index > THREADS) must(ol_emulated_create(&b->backend, &d), "the emulated device");
}

static void bed_open(struct bed *b, int index, int state) {
    ol_loop_desc d;
    char policy[80];
    b->index = index;
    b->state = state;
    open_backend(b);
    watched.inner = b->backend;
    watched.copy = *b->backend;
    watched.copy.submit = watched_submit;
    watched.copy.poll = watched_poll;
    watched.started = 0;
    ol_backend *list = &watched.copy;
    snprintf(policy, sizeof policy, "any any 0- %s %s wait", state == SPINNING ? "sync" : "async", b->backend->name);
    memset(&d, 0, sizeof d);
    d.backends = &list;
    d.nbackends = 1;
    d.no_pool = 1;
    d.policy = policy;
    d.budget = 1 << 20; /* an operation that was waited for is no reason to yield here */
    d.spin_ns = state == SPINNING ? LONG_NS : 0;
    d.sync_ns = LONG_NS;
    must(ol_loop_create(&b->loop, &d), "the loop");
}

static void bed_close(struct bed *b) {
    must(ol_loop_destroy(b->loop), "the end of the loop");
    if (b->index == THREADS) must(ol_threads_destroy(b->backend), "the end of the thread pool");
    if (b->index > THREADS) must(ol_emulated_destroy(b->backend), "the end of the emulated device");
}

enum { REPEATS = 15, PAUSE_NS = 30 * 1000, CELL_NS = 2 * 1000 * 1000 };

/* The same operation several times over, one at a time, by a coroutine: the way that most programs take. Where it takes
   long, perhaps because others have the CPU, more rounds say more than more repetitions in one. */
struct probe {
    ol_co co;
    ol_op op;
    int64_t n, begin, expected, end_by;
    int kind, input, size, state, index;
    int i;
    double setup[REPEATS], trip[REPEATS], loop[REPEATS];
};

/* Between two operations a worker that is to sleep is given the time to lie down. */
static void before(struct probe *p) {
    touch(p->kind, p->input, p->size);
    if (p->state == SLEEPING && p->index == THREADS)
        for (const int64_t end = now_ns() + PAUSE_NS; now_ns() < end;) OL_SYS_PAUSE();
    prepare(&p->op, p->kind, p->input, p->size);
    p->begin = now_ns();
}

static void after(struct probe *p) {
    const int64_t end = now_ns();
    if (p->n != p->expected || !p->op.where)
        fail("%s of %s on %s: %s", op_names[p->kind], input_titles[p->input], backend_names[p->index],
             p->n < 0       ? ol_co_error(&p->co)
             : !p->op.where ? "it ran in software instead"
                            : "another result than in software");
    p->setup[p->i] = (double)(watched.submitted - p->begin) - clock_ns;
    p->trip[p->i] = (double)(end - p->begin) - 3 * clock_ns; /* submit and poll read the clock, too */
    p->loop[p->i] = p->setup[p->i] + (double)(end - watched.polled) - clock_ns;
}

static void probe_run(ol_co *co) {
    struct probe *p = OL_SELF(co, struct probe, co);
    OL_BEGIN(co);
    p->end_by = now_ns() + CELL_NS;
    for (p->i = 0; p->i < REPEATS && (p->i == 0 || now_ns() < p->end_by); p->i++) {
        before(p);
        OL_AWAIT(p->n, ol_run(co, &p->op));
        after(p);
    }
    OL_END(co);
}

/* As the file of figures has it: tenths of ns. Less than 1 is below what the clock can tell. */
static double sane(double ns) { return ns < 1 ? 1 : floor(ns * 10 + 0.5) / 10; }

/* Software's time: the median of some groups, each long enough for the clock. */
static double time_software(int op, int input, int size, int64_t *result) {
    enum { GROUPS = 3, GROUP_NS = 10000 };
    ol_op p;
    double v[GROUPS];
    int n = 1;
    touch(op, input, size);
    for (int g = 0; g < GROUPS;) {
        const int64_t t = now_ns();
        for (int i = 0; i < n; i++) *result = ol_op_exec(codec, prepare(&p, op, input, size));
        const double ns = (double)(now_ns() - t) - clock_ns;
        if (g == 0 && ns < (double)GROUP_NS && n < 1000) {
            n = ns < GROUP_NS / 8 ? n * 8 : n * 2;
            continue;
        }
        v[g++] = sane(ns / n);
        if (ns > 100 * GROUP_NS) return sane(ns / n);
    }
    return sane(quantile(v, GROUPS, 0.5));
}

static void measure_cell(struct bed *b, int op, int input, int size, int round) {
    static struct probe p;
    struct figure *f = &figures[op][input][size][b->index][b->state][round];
    memset(&p, 0, sizeof p);
    f->software = time_software(op, input, size, &p.expected);
    p.kind = op;
    p.input = input;
    p.size = size;
    p.state = b->state;
    p.index = b->index;
    must(ol_spawn(b->loop, &p.co, probe_run, 0, OL_LATENCY), "a coroutine");
    must(ol_loop_run(b->loop), "the loop");
    f->setup = sane(quantile(p.setup, p.i, 0.5));
    f->trip = sane(quantile(p.trip, p.i, 0.5));
    f->loop = sane(quantile(p.loop, p.i, 0.5));
}

static int can(const ol_backend *b, int op) { return (int)(b->kinds >> (op == EMPTY ? OL_OP_CALL : op) & 1); }

static int64_t end_by; /* of running_ns; a round that isn't complete by then doesn't count, unless it is the first */

static int late(int round) { return round && running_ns() > end_by; }

static void measure_backend(int index, int state, int round) {
    struct bed b;
    memset(&b, 0, sizeof b);
    bed_open(&b, index, state);
    for (int i = 0; i < INPUTS && can(b.backend, EMPTY); i++) measure_cell(&b, EMPTY, i, 0, round);
    for (int op = OL_OP_CALL; op < OPS; op++)
        for (int input = 0; input < INPUTS && measured(op) && can(b.backend, op); input++)
            for (int size = 0; size < SIZES && !late(round); size += step_of_sizes())
                measure_cell(&b, op, input, size, round);
    bed_close(&b);
}

static void measure_round(int round) {
    for (int b = THREADS; b < backends; b++)
        for (int s = cpus > 1 || b > THREADS ? SPINNING : SLEEPING; s < STATES && !late(round); s++)
            measure_backend(b, s, round);
}

static double others_ns(void) { /* CPU time of other programs since the system started; NaN if it doesn't tell */
    unsigned long long v[8] = {0};
    struct rusage own;
    FILE *f = fopen("/proc/stat", "r");
    if (!f) return (double)NAN;
    const int n = fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5],
                         &v[6], &v[7]);
    fclose(f);
    if (n < 8) return (double)NAN;
    getrusage(RUSAGE_SELF, &own);
    const double mine = (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) * 1e9 +
                        (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) * 1e3;
    const double all = (double)(v[0] + v[1] + v[2] + v[5] + v[6] + v[7]); /* not idle, not iowait; stolen, too */
    return all * 1e9 / (double)sysconf(_SC_CLK_TCK) - mine;
}

static void name_machine(void) {
    char line[256], model[100] = "";
    struct utsname u;
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && !model[0] && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':'))
            snprintf(model, sizeof model, "%.99s", strchr(line, ':') + 2);
    if (f) fclose(f);
    model[strcspn(model, "\n")] = 0;
    if (uname(&u) == 0 && !model[0]) snprintf(model, sizeof model, "%.60s", u.machine);
    snprintf(machine, sizeof machine, "%s, %d CPU%s", model, cpus, cpus > 1 ? "s" : "");
}

static void name_devices(void) {
    for (int i = 0; i < want.devices; i++) {
        ol_emulated_desc d;
        char err[200];
        if (ol_emulated_parse(want.device[i], &d, err, sizeof err) < 0) fail("--device %s: %s", want.device[i], err);
        if (d.faults > 0 || d.corrupts > 0 || d.hangs > 0)
            fail("--device %s: what is calibrated must not fail: leave out faults, corrupts and hangs", want.device[i]);
        snprintf(backend_names[backends], sizeof backend_names[0], "%.15s", d.name[0] ? d.name : "device");
        for (int k = 0; k < backends; k++)
            if (strcmp(backend_names[k], backend_names[backends]) == 0)
                fail("--device %s: there is a backend of the name %s already: add name=...", want.device[i],
                     backend_names[k]);
        backends++;
    }
}

static void measure(void) {
    const int64_t begin = running_ns();
    take_cpus();
    name_machine();
    time_clock();
    make_inputs();
    const double others = others_ns();
    fprintf(stderr, "calibrate: %d rounds on %s\n", want.rounds, machine);
    end_by = begin + (int64_t)(want.seconds * 1e9);
    while (rounds < want.rounds) {
        const double spent = (double)(running_ns() - begin) / 1e9;
        fprintf(stderr, "calibrate: [%2.0f s] round %d of %d\n", spent, rounds + 1, want.rounds);
        measure_round(rounds);
        if (late(rounds)) break;
        rounds++;
    }
    if (rounds < want.rounds)
        fprintf(stderr, "calibrate: the time is up: %d complete round%s must do\n", rounds, rounds == 1 ? "" : "s");
    const double wall = (double)(running_ns() - begin);
    const double busy = (others_ns() - others) / wall * 100;
    fprintf(stderr, "calibrate: measured for %.1f s\n", wall / 1e9);
    if (isnan(busy)) snprintf(conditions, sizeof conditions, "%d round%s", rounds, rounds == 1 ? "" : "s");
    else
        snprintf(conditions, sizeof conditions, "%d round%s; other programs used %.0f%% of a CPU meanwhile", rounds,
                 rounds == 1 ? "" : "s", busy > 0 ? busy : 0);
}

/* ---- the figures as a file --------------------------------------------------------------------------------------- */

static FILE *create(const char *path) {
    FILE *f = fopen(path, "w");
    if (!f) fail("can't write %s: %s", path, strerror(errno));
    return f;
}
static void finish(FILE *f, const char *path) {
    const int bad = ferror(f);
    if (fclose(f) != 0 || bad) fail("can't write %s: %s", path, strerror(errno));
}

static void save_row(FILE *f, int op, int input, int size, int b, int state) {
    for (int r = 0; r < rounds; r++) {
        const struct figure *v = &figures[op][input][size][b][state][r];
        if (v->trip > 0)
            fprintf(f, "%s\t%s\t%d\t%.0f\t%s\t%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\n", op_names[op], input_names[input],
                    SMALLEST << size, bytes_of[op][input][size], backend_names[b], state_names[state], r + 1,
                    v->software, v->setup, v->trip, v->loop);
    }
}

static void save_figures(const char *path) {
    FILE *f = create(path);
    fprintf(f, "# machine: %s\n# commands: %s\n# conditions: %s\n", machine, commands, conditions);
    fprintf(f, "#op\tinput\tsize\tbytes\tbackend\tstate\tround\tsoftware_ns\tsetup_ns\ttrip_ns\tloop_ns\n");
    for (int op = 0; op < OPS; op++)
        for (int input = 0; input < INPUTS; input++)
            for (int size = 0; size < SIZES; size++)
                for (int b = THREADS; b < backends; b++)
                    for (int s = 0; s < STATES; s++) save_row(f, op, input, size, b, s);
    finish(f, path);
}

static int index_of(const char *const *names, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}
static int backend_named(const char *name) {
    for (int i = 0; i < backends; i++)
        if (strcmp(backend_names[i], name) == 0) return i;
    return -1;
}

static int load_row(const char *line) {
    char op_name[16], input_name[16], backend[16], state_name[16];
    long long bytes, size;
    int round;
    struct figure v;
    if (sscanf(line, "%15s %15s %lld %lld %15s %15s %d %lf %lf %lf %lf", op_name, input_name, &size, &bytes, backend,
               state_name, &round, &v.software, &v.setup, &v.trip, &v.loop) != 11)
        return 0;
    const int op = index_of(op_names, OPS, op_name), input = index_of(input_names, INPUTS, input_name);
    const int state = index_of(state_names, STATES, state_name);
    int at = 0;
    while (at < SIZES && (long long)SMALLEST << at != size) at++;
    if (op < 0 || input < 0 || state < 0 || at == SIZES || round < 1 || round > ROUNDS_MAX || bytes < 0) return 0;
    if (!(v.software > 0) || !(v.setup >= 0) || !(v.trip > 0) || !(v.loop > 0)) return 0;
    int b = backend_named(backend);
    if (b == SOFTWARE || (b < 0 && backends == BACKENDS)) return 0;
    if (b < 0) snprintf(backend_names[b = backends++], sizeof backend_names[0], "%s", backend);
    figures[op][input][at][b][state][round - 1] = v;
    bytes_of[op][input][at] = (double)bytes;
    if (round > rounds) rounds = round;
    if (op != EMPTY) want.ops |= 1u << op;
    return 1;
}

static void load_figures(const char *path) {
    char line[800];
    int n = 0;
    FILE *f = fopen(path, "r");
    if (!f) fail("can't read %s: %s: --from takes the calibrate.tsv of an earlier run", path, strerror(errno));
    while (fgets(line, sizeof line, f)) {
        n++;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "# machine: %159[^\n]", machine) == 1 ||
            sscanf(line, "# commands: %599[^\n]", commands) == 1 ||
            sscanf(line, "# conditions: %159[^\n]", conditions) == 1 || line[0] == '#')
            continue;
        if (!load_row(line))
            fail("%s, line %d: not a row of figures; is it the calibrate.tsv of an earlier run?", path, n);
    }
    fclose(f);
    if (!want.ops) fail("%s holds no figures: take the calibrate.tsv of an earlier run", path);
}

/* ---- from figures to costs --------------------------------------------------------------------------------------- */

enum metric { ALONE, SETUP, TRIP, LOOP }; /* ALONE: in software */
struct series {
    int op, backend, state;
    enum metric metric;
    int round; /* or MEDIAN */
};

static struct series series_of(int op, int backend, int state, enum metric metric, int round) {
    struct series s;
    s.op = op;
    s.backend = backend;
    s.state = state;
    s.metric = metric;
    s.round = round;
    return s;
}

static double value_of(const struct figure *f, enum metric m) {
    if (!(f->trip > 0)) return (double)NAN;
    return m == ALONE ? f->software : m == SETUP ? f->setup : m == TRIP ? f->trip : f->loop;
}

static double cell(const struct series *s, int input, int size) {
    const struct figure *f = figures[s->op][input][size][s->backend][s->state];
    double v[ROUNDS_MAX];
    if (s->round != MEDIAN) return value_of(&f[s->round], s->metric);
    for (int r = 0; r < rounds; r++) v[r] = value_of(&f[r], s->metric);
    return quantile(v, rounds, 0.5);
}

/* The value at x bytes, on a straight line between its neighbours where both axes are logarithmic; NaN outside. */
static double curve(const struct series *s, int input, double x) {
    double x0 = 0, y0 = 0;
    for (int i = 0; i < SIZES; i++) {
        const double x1 = bytes_of[s->op][input][i], y1 = cell(s, input, i);
        if (isnan(y1) || x1 <= x0) continue; /* compressed, two sizes may be the same */
        if (x1 == x) return y1;
        if (x1 > x) return x0 > 0 ? y0 * pow(y1 / y0, log(x / x0) / log(x1 / x0)) : (double)NAN;
        x0 = x1;
        y0 = y1;
    }
    return (double)NAN;
}

/* 0 least, 0.5 median, 1 most of the kinds of input. Compressed, some kinds are never as small or as large as others:
   where fewer than three have a value, the rest stands for itself alone. */
static double of_inputs(double *v, double share) {
    int n = 0;
    for (int i = 0; i < INPUTS; i++) n += !isnan(v[i]);
    return n < 3 ? (double)NAN : quantile(v, INPUTS, share);
}

static double at(int op, int b, int state, enum metric m, double x, double share) {
    const struct series s = series_of(op, b, state, m, MEDIAN);
    double v[INPUTS];
    for (int i = 0; i < INPUTS; i++) v[i] = curve(&s, i, x);
    return of_inputs(v, share);
}

static double software_at(int op, double x, double share) { return at(op, THREADS, SLEEPING, ALONE, x, share); }

static double empty(int b, int state, enum metric m) {
    const struct series s = series_of(EMPTY, b, state, m, MEDIAN);
    double v[INPUTS];
    for (int i = 0; i < INPUTS; i++) v[i] = cell(&s, i, 0);
    return quantile(v, INPUTS, 0.5);
}

static int one_cpu; /* nothing could spin for threads */

static int has_state(int b, int state) {
    for (int op = 0; op < OPS; op++)
        for (int i = 0; i < SIZES; i++)
            for (int r = 0; r < rounds; r++)
                if (figures[op][0][i][b][state][r].trip > 0) return 1;
    return 0;
}

/* Where and how an operation can run, and what that costs the class: batch work what the loop's thread spends on it,
   latency-critical work the time to its result, and a share of the loop's, for which other requests wait. */
struct choice {
    int backend, mode;
};
enum { CHOICES = 2 * BACKENDS, SYNC_NS = 100 * 1000 /* then a synchronous wait suspends, by default */ };

static double cost_of(int cls, double trip, double loop) { return cls == OL_BATCH ? loop : trip + want.others * loop; }

/* Against software, whose time was taken beside it. Where the loop and its workers share the only CPU, switching to them
   and back is at the loop's expense, too. */
static double cost(int op, struct choice c, int cls, int round, int input, double x) {
    const int state = c.mode == OL_SYNC || want.awake ? SPINNING : SLEEPING;
    if (c.mode == OL_SOFTWARE) return 1;
    struct series s = series_of(op, c.backend, state, ALONE, round);
    const double software = curve(&s, input, x);
    s.metric = TRIP;
    const double trip = curve(&s, input, x);
    s.metric = LOOP;
    double loop = c.mode == OL_ASYNC ? curve(&s, input, x) : trip > (double)SYNC_NS ? (double)SYNC_NS : trip;
    if (c.backend == THREADS && one_cpu && trip - software > loop) loop = trip - software;
    return cost_of(cls, trip, loop) / cost_of(cls, software, software);
}

static double cost_ratio(int op, struct choice a, struct choice b, int cls, int round, int input, double x) {
    double v[INPUTS];
    for (int i = 0; i < INPUTS; i++) v[i] = cost(op, a, cls, round, i, x) / cost(op, b, cls, round, i, x);
    return input == ALL ? of_inputs(v, 0.5) : v[input];
}

static double cost_ns(int op, struct choice c, int cls, double x) {
    const struct series s = series_of(op, THREADS, SLEEPING, ALONE, MEDIAN);
    double v[INPUTS];
    for (int i = 0; i < INPUTS; i++) {
        const double software = curve(&s, i, x);
        v[i] = cost(op, c, cls, MEDIAN, i, x) * cost_of(cls, software, software);
    }
    return of_inputs(v, 0.5);
}

static struct choice choice_of(int backend, int mode) {
    struct choice c;
    c.backend = backend;
    c.mode = mode;
    return c;
}
static int same(struct choice a, struct choice b) { return a.backend == b.backend && a.mode == b.mode; }

static int choices_for(int cls, struct choice *c) { /* [0] is software */
    int n = 0;
    c[n++] = choice_of(SOFTWARE, OL_SOFTWARE);
    for (int b = THREADS; b < backends; b++) {
        c[n++] = choice_of(b, OL_ASYNC);
        if (cls == OL_LATENCY) c[n++] = choice_of(b, OL_SYNC);
    }
    return n;
}

/* Is it the cheapest? Below 1: yes. A synchronous wait holds the loop as software does: it has to be a fifth faster. Of two that offload, the one that holds for larger sizes is preferred as long as it
   is not a tenth dearer, so that the table stays short. */
static double standing(int op, struct choice c, int cls, int round, int input, double x) {
    struct choice all[CHOICES];
    const int n = choices_for(cls, all);
    double worst = cost_ratio(op, c, all[0], cls, round, input, x) * (c.mode == OL_SYNC ? 1.25 : 1);
    for (int i = 1; i < n; i++) {
        const double r = cost_ratio(op, c, all[i], cls, round, input, x) / 1.1;
        if (!same(c, all[i]) && r > worst) worst = r;
    }
    return worst;
}

/* The size from which it is the cheapest, for all larger ones below `limit`, too. INFINITY: it isn't at the largest;
   0: it is at all sizes. */
static double from_size(int op, struct choice c, int cls, int round, int input, double limit) {
    double above_x = 0, above = 0;
    for (int i = SIZES - 1; i >= 0; i--) {
        const double x = (double)((int64_t)SMALLEST << i),
                     r = x < limit ? standing(op, c, cls, round, input, x) : (double)NAN;
        if (isnan(r)) continue;
        if (r >= 1) return above_x > 0 ? x * pow(above_x / x, log(r) / (log(r) - log(above))) : (double)INFINITY;
        above_x = x;
        above = r;
    }
    return above_x > 0 ? 0 : (double)INFINITY;
}

/* ---- the policy -------------------------------------------------------------------------------------------------- */

enum { LINES = 3 }; /* for one operation and class */
struct line {
    struct choice choice;
    double from, to;    /* bytes, rounded; `to` exclusive, INFINITY: no limit */
    double exact;       /* before rounding */
    double low, high;   /* quartiles over the rounds */
    double least, most; /* over the kinds of input */
};
struct plan {
    int n;
    struct line line[LINES];
};

/* To whole KB, or below 1 KB to multiples of 64, and to an eighth of the power of two below it. */
static double rounded(double x) {
    double unit = x >= 1024 ? 1024 : 64;
    if (x <= 0 || isinf(x)) return x;
    while (unit * 16 <= x) unit *= 2;
    const double r = floor(x / unit + 0.5) * unit;
    return r < (double)SMALLEST ? (double)SMALLEST : r;
}

static void spread_of(int op, int cls, double limit, struct line *l) {
    double v[ROUNDS_MAX];
    for (int r = 0; r < rounds; r++) v[r] = from_size(op, l->choice, cls, r, ALL, limit);
    l->low = quantile(v, rounds, 0.25);
    l->high = quantile(v, rounds, 0.75);
    for (int i = 0; i < INPUTS; i++) v[i] = from_size(op, l->choice, cls, MEDIAN, i, limit);
    l->least = quantile(v, INPUTS, 0);
    l->most = quantile(v, INPUTS, 1);
}

/* From the largest size down: who is the cheapest there, from where on, and who is below. */
static struct plan plan_for(int op, int cls) {
    struct plan p;
    struct choice all[CHOICES];
    const int n = choices_for(cls, all);
    double limit = (double)INFINITY;
    memset(&p, 0, sizeof p);
    while (p.n < LINES && limit > 0) {
        struct line *l = &p.line[p.n];
        l->exact = (double)INFINITY;
        for (int i = 1; i < n; i++) {
            const double from = from_size(op, all[i], cls, MEDIAN, ALL, limit);
            if (from >= l->exact) continue;
            l->exact = from;
            l->choice = all[i];
        }
        if (isinf(l->exact)) break;
        spread_of(op, cls, limit, l);
        l->from = rounded(l->exact);
        l->to = limit;
        if (l->from >= limit) break;
        limit = l->from;
        p.n++;
    }
    return p;
}

static struct plan plans[OPS][3];
static void make_plans(void) {
    for (int op = OL_OP_CALL; op < OPS; op++)
        for (int cls = OL_LATENCY; cls <= OL_BATCH && measured(op); cls++) plans[op][cls] = plan_for(op, cls);
}

/* N for the policy's text. */
static const char *policy_bytes(char *text, size_t len, double bytes) {
    const long long n = (long long)bytes;
    if (n && n % 1048576 == 0) snprintf(text, len, "%lldM", n >> 20);
    else if (n && n % 1024 == 0) snprintf(text, len, "%lldK", n >> 10);
    else snprintf(text, len, "%lld", n);
    return text;
}

static const char *size_text(char *text, size_t len, double bytes) {
    if (isinf(bytes)) snprintf(text, len, "never");
    else if (bytes < (double)SMALLEST) snprintf(text, len, "any size");
    else if (bytes < 1024) snprintf(text, len, "%.0f B", bytes);
    else if (bytes < 10 * 1024 && fmod(bytes, 1024) > 0) snprintf(text, len, "%.1f KB", bytes / 1024);
    else if (bytes < 1048576) snprintf(text, len, "%.0f KB", bytes / 1024);
    else snprintf(text, len, "%.3g MB", bytes / 1048576);
    return text;
}

static const char *us_text(char *text, size_t len, double ns) {
    if (isnan(ns)) snprintf(text, len, "-");
    else snprintf(text, len, ns < 9995 ? "%.2f" : ns < 99950 ? "%.1f" : "%.0f", ns / 1e3);
    return text;
}

static void write_rule(FILE *f, int op, int cls, const char *bytes, int mode, const char *backend, const char *full) {
    fprintf(f, "%-8s %-8s %-12s %-9s %-9s %s\n", op ? op_names[op] : "any", cls ? class_names[cls] : "any", bytes,
            mode_names[mode], backend, full);
}

static void write_plan(FILE *f, int op, int cls) {
    const struct plan *p = &plans[op][cls];
    const char *full = cls == OL_LATENCY ? "software" : "wait";
    char from[24], to[24], range[50], low[24], high[24];
    if (!p->n) write_rule(f, op, cls, "0-", OL_SOFTWARE, "-", "-");
    for (int i = 0; i < p->n; i++) {
        const struct line *l = &p->line[i];
        policy_bytes(from, sizeof from, l->from);
        to[0] = 0;
        if (!isinf(l->to)) snprintf(to, sizeof to, "%.0f", l->to - 1);
        snprintf(range, sizeof range, "%s-%s", from, to);
        fprintf(f, "# %s %s: break-even at %s (middle half of the rounds: %s to %s)\n", op_names[op], class_names[cls],
                size_text(from, sizeof from, l->exact), size_text(low, sizeof low, l->low),
                size_text(high, sizeof high, l->high));
        write_rule(f, op, cls, range, l->choice.mode, backend_names[l->choice.backend], full);
    }
}

static void write_policy(const char *path) {
    FILE *f = create(path);
    fprintf(f, "# Where operations run. Measured by tools/calibrate.c; ol_policy_parse reads it.\n");
    fprintf(f, "# machine:    %s\n# commands:   %s\n# conditions: %s\n", machine, commands, conditions);
    fprintf(f,
            "# batch:      from where the loop's thread spends less on handing it away than on doing it\n"
            "# latency:    from where the time to the result, and %.4g of the loop's time, are less\n"
            "# workers:    %s; inputs: the median of five kinds\n",
            want.others, want.awake ? "awake" : "asleep, and so is the loop, when work comes");
    fprintf(f, "%-8s %-8s %-12s %-9s %-9s %s\n", "# op", "class", "bytes", "mode", "backend", "when-full");
    fprintf(f, "# what may block never runs on the loop, whatever its size\n");
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++)
        write_rule(f, OL_OP_CALL, cls, "0-", OL_ASYNC, "threads", "wait");
    fprintf(f, "%-8s %-8s %-12s %-9s %-9s %s\n", "file", "any", "0-", "async", "threads", "wait");
    for (int op = OL_OP_CRC32; op < OPS; op++)
        for (int cls = OL_LATENCY; cls <= OL_BATCH && measured(op); cls++) write_plan(f, op, cls);
    write_rule(f, 0, 0, "0-", OL_SOFTWARE, "-", "-");
    finish(f, path);
}

/* ---- what people read -------------------------------------------------------------------------------------------- */

/* Room for a number as text; there are as many as a line of output needs. */
static char *room(void) {
    static char rooms[32][40];
    static unsigned i;
    return rooms[i++ % 32];
}
#define SIZE(x) size_text(room(), 24, (x))
#define US(x) us_text(room(), 24, (x))

static void print_range(char *text, size_t len, double a, double b) {
    if (strcmp(SIZE(a), SIZE(b)) == 0) snprintf(text, len, "%s", SIZE(a));
    else snprintf(text, len, "%s to %s", SIZE(a), SIZE(b));
}

static void print_plan(int op, int cls) {
    const struct plan *p = &plans[op][cls];
    char how[40], by_round[60], by_input[60];
    if (!p->n) printf("  %-8s %-8s never up to %s\n", op_names[op], class_names[cls], SIZE(BIGGEST));
    for (int i = 0; i < p->n; i++) {
        const struct line *l = &p->line[i];
        snprintf(how, sizeof how, "%s %s", mode_names[l->choice.mode], backend_names[l->choice.backend]);
        print_range(by_round, sizeof by_round, l->low, l->high);
        print_range(by_input, sizeof by_input, l->least, l->most);
        printf("  %-8s %-8s %-9s %-16s %9s   %-20s %s\n", op_names[op], class_names[cls], SIZE(l->from), how,
               US(software_at(op, l->exact > (double)SMALLEST ? l->exact : (double)SMALLEST, 0.5)), by_round, by_input);
    }
}

/* How far the middle half of the rounds lies apart, as a share of the median, in 9 of 10 cells. */
static double spread(void) {
    static double v[OPS * INPUTS * SIZES * BACKENDS * STATES];
    int n = 0;
    for (int op = OL_OP_CALL; op < OPS; op++)
        for (int input = 0; input < INPUTS; input++)
            for (int size = 0; size < SIZES; size++)
                for (int b = 0; b < backends; b++)
                    for (int s = 0; s < STATES; s++) {
                        double t[ROUNDS_MAX];
                        for (int r = 0; r < rounds; r++) t[r] = value_of(&figures[op][input][size][b][s][r], TRIP);
                        v[n++] = (quantile(t, rounds, 0.75) - quantile(t, rounds, 0.25)) / quantile(t, rounds, 0.5) / 2;
                    }
    return quantile(v, n, 0.9) * 100;
}

static void print_warning(void) {
    double busy = 0;
    (void)sscanf(conditions, "%*d %*[rounds]; other programs used %lf", &busy);
    const double wide = rounds < ROUNDS_MIN ? 100 : spread();
    if (wide <= 15 && busy <= 10 * cpus) return;
    printf("Take this with care, and measure again when the machine is quiet: it did other work meanwhile%s.\n\n",
           rounds < ROUNDS_MIN ? ",\nand there was no time for more rounds"
           : wide > 15         ? ",\nand the rounds differ widely"
                               : "");
}

static void print_summary(void) {
    print_warning();
    printf("On this machine (%s) offloading pays from:\n\n", machine);
    printf("  %-8s %-8s %-9s %-16s %9s   %-20s %s\n", "", "", "", "", "software", "middle half", "among the kinds");
    printf("  %-8s %-8s %-9s %-16s %9s   %-20s %s\n", "op", "class", "from", "to", "then, us", "of the rounds",
           "of input");
    for (int op = OPS - 1; op >= OL_OP_CALL; op--)
        for (int cls = OL_BATCH; cls >= OL_LATENCY && measured(op); cls--) print_plan(op, cls);
    printf("\n  Batch work pays when the loop's thread spends less on handing it away (set-up and completion) than on "
           "doing\n"
           "  it. Latency-critical work pays when its result, with %.4g of the loop's time, comes sooner: workers "
           "compute no\n"
           "  faster than the loop, but while it computes, all others wait. Sizes of inflate are compressed bytes.\n",
           want.others);
    if (one_cpu)
        printf("  With one CPU the worker shares it: switching to it and back counts as the loop's time, too.\n");
    if (measured(OL_OP_CALL))
        printf(
            "  A call here hashes its bytes; go by the microseconds. The policy offloads all calls: they may block.\n");
}

static const char *state_title(int b, int state) {
    return b == THREADS        ? state == SPINNING ? "worker awake" : "worker asleep"
           : state == SPINNING ? "loop spins"
                               : "loop polls";
}

static void print_wake_cost(int b) {
    static const char *const what[] = {"", "set-up", "round trip", "loop's own time"};
    const double spinning = empty(b, SPINNING, TRIP), sleeping = empty(b, SLEEPING, TRIP);
    if (isnan(sleeping)) return;
    printf("\n  %-32s %13s %13s %13s\n", backend_names[b], isnan(spinning) ? "" : state_title(b, SPINNING),
           state_title(b, SLEEPING),
           isnan(spinning) ? ""
           : b == THREADS  ? "wake cost"
                           : "difference");
    for (int m = SETUP; m <= LOOP; m++) {
        const double x = empty(b, SPINNING, (enum metric)m), y = empty(b, SLEEPING, (enum metric)m);
        printf("  an empty call: %-17s %13s %13s %13s\n", what[m], isnan(x) ? "" : US(x), US(y),
               isnan(x) ? "" : US(y - x));
    }
}

static int supports(int b, int op) {
    for (int r = 0; r < rounds; r++)
        for (int size = 0; size < SIZES; size++)
            if (figures[op][0][size][b][SLEEPING][r].trip > 0) return 1;
    return 0;
}

static void print_row(int op, int b, int size) {
    const double x = (double)((int64_t)SMALLEST << size);
    const struct series alone = series_of(op, THREADS, SLEEPING, ALONE, MEDIAN);
    if (isnan(cell(&alone, 0, size)) || isnan(software_at(op, x, 0.5))) return; /* a quick run leaves some out */
    printf("  %8s %9s %9s %9s", SIZE(x), US(software_at(op, x, 0)), US(software_at(op, x, 0.5)),
           US(software_at(op, x, 1)));
    const int first = has_state(b, SPINNING) ? SPINNING : SLEEPING;
    const double computation = at(op, b, first, TRIP, x, 0.5) - empty(b, first, TRIP);
    printf(" %12s", US(computation < 0 ? 0 : computation));
    for (int s = first; s < STATES; s++)
        printf("   %9s %9s %9s", US(at(op, b, s, SETUP, x, 0.5)), US(at(op, b, s, LOOP, x, 0.5)),
               US(at(op, b, s, TRIP, x, 0.5)));
    putchar('\n');
}

static void print_table(int op, int b) {
    char title[60];
    const int first = has_state(b, SPINNING) ? SPINNING : SLEEPING;
    snprintf(title, sizeof title, "%s, us", op_names[op]);
    printf("\n%-12s %27s %12s", title, "--------- software --------", backend_names[b]);
    for (int s = first; s < STATES; s++) printf("   %29s", state_title(b, s));
    printf("\n  %8s %9s %9s %9s %12s", "input", "least", "median", "most", "computation");
    for (int s = first; s < STATES; s++) printf("   %9s %9s %9s", "set-up", "loop's", "trip");
    putchar('\n');
    for (int i = 0; i < SIZES; i++) print_row(op, b, i);
}

static void print_all(void) {
    print_summary();
    for (int b = THREADS; b < backends; b++) print_wake_cost(b);
    for (int op = OPS - 1; op >= OL_OP_CALL; op--)
        for (int b = THREADS; b < backends; b++)
            if (supports(b, op)) print_table(op, b);
    printf("\nMedians over the kinds of input; software also the least and the most. Computation is the round trip "
           "without\n"
           "an empty call's. The cost of reading the clock is subtracted.\n");
    printf("loop's: what the loop's thread spends altogether. trip: from the submission until the result is there.\n");
    if (rounds < ROUNDS_MIN) printf("How sure: %s. That is too little to tell.\n", conditions);
    else
        printf("How sure: %s. In 9 of 10 cells the middle half of the rounds lies\nwithin %.0f%% of the median.\n",
               conditions, spread());
}

/* ---- plots ------------------------------------------------------------------------------------------------------- */

static void plot_software(FILE *f, int op) {
    for (int input = 0; input < INPUTS; input++) {
        fprintf(f, "# %s %s: bytes, us\n", op_names[op], input_names[input]);
        const struct series s = series_of(op, THREADS, SLEEPING, ALONE, MEDIAN);
        for (int i = 0; i < SIZES; i++)
            if (!isnan(cell(&s, input, i))) fprintf(f, "%.0f %.4g\n", bytes_of[op][input][i], cell(&s, input, i) / 1e3);
        fprintf(f, "\n\n");
    }
}

static void plot_backend(FILE *f, int op, int b) {
    const int s = has_state(b, SPINNING) ? SPINNING : SLEEPING;
    fprintf(f,
            "# %s %s: bytes; software least median most; round trip least median most; round trip from sleep; set-up; "
            "loop's own time, us\n",
            op_names[op], backend_names[b]);
    for (int i = 0; i < SIZES; i++) {
        const double x = (double)((int64_t)SMALLEST << i);
        if (isnan(at(op, b, s, TRIP, x, 0.5)) || isnan(software_at(op, x, 0.5))) continue;
        fprintf(f, "%.0f", x);
        for (int k = 0; k < 3; k++) fprintf(f, " %.4g", software_at(op, x, k / 2.0) / 1e3);
        for (int k = 0; k < 3; k++) fprintf(f, " %.4g", at(op, b, s, TRIP, x, k / 2.0) / 1e3);
        fprintf(f, " %.4g %.4g %.4g\n", at(op, b, SLEEPING, TRIP, x, 0.5) / 1e3,
                at(op, b, SLEEPING, SETUP, x, 0.5) / 1e3, at(op, b, SLEEPING, LOOP, x, 0.5) / 1e3);
    }
    fprintf(f, "\n\n");
}

static void write_data(const char *path) {
    FILE *f = create(path);
    for (int op = OL_OP_CALL; op < OPS; op++) {
        if (!measured(op)) continue;
        plot_software(f, op);
        for (int b = THREADS; b < backends; b++) plot_backend(f, op, b);
    }
    finish(f, path);
}

static void quoted(FILE *f, const char *text) { /* in gnuplot's single quotes */
    fputc('\'', f);
    for (; *text; text++) fprintf(f, *text == '\'' ? "%c%c" : "%c", *text, *text);
    fputc('\'', f);
}

static void script_software(FILE *f, int op) {
    static const char *const colour[INPUTS] = {"#c0392b", "#2471a3", "#27865a", "#e0a030", "#7d3c98"};
    fprintf(f, "\nset output '%s-software.png'\nset title ", op_names[op]);
    char title[256];
    snprintf(title, sizeof title, "%s in software, by kind of input (%s)", op_names[op], machine);
    quoted(f, title);
    fprintf(f, " noenhanced\nplot ");
    for (int i = 0; i < INPUTS; i++)
        fprintf(f,
                "%s'calibrate.dat' index '%s %s: bytes, us' using 1:2 with linespoints linewidth 2 pointtype 7 "
                "pointsize 0.6 "
                "linecolor rgb '%s' title '%s'",
                i ? ", \\\n     " : "", op_names[op], input_names[i], colour[i], input_titles[i]);
    fprintf(f, "\n");
}

/* The size below which software is better; 0 if offloading is always, INFINITY if it never is. */
static double pays_from(int op, int cls, int b) {
    const struct plan *p = &plans[op][cls];
    double from = (double)INFINITY;
    for (int i = 0; i < p->n; i++)
        if (p->line[i].choice.backend == b && p->line[i].from < from) from = p->line[i].from;
    return from;
}

static void script_backend(FILE *f, int op, int b) {
    const double grey = pays_from(op, OL_BATCH, b), dashed = pays_from(op, OL_LATENCY, b);
    char title[256], index[200];
    snprintf(title, sizeof title, "%s: software and %s (%s)", op_names[op], backend_names[b], machine);
    snprintf(index, sizeof index, "'calibrate.dat' index '%s %s:' using", op_names[op], backend_names[b]);
    fprintf(f, "\nset output '%s-%s.png'\nset title ", op_names[op], backend_names[b]);
    quoted(f, title);
    fprintf(f, " noenhanced\n");
    if (isinf(grey))
        fprintf(f, "set object 1 rectangle from graph 0,0 to graph 1,1 behind fillcolor rgb '#e4e4e4' fillstyle solid "
                   "noborder\n");
    else if (grey > (double)SMALLEST)
        fprintf(f,
                "set object 1 rectangle from graph 0, graph 0 to first %.0f, graph 1 behind fillcolor rgb '#e4e4e4' "
                "fillstyle solid "
                "noborder\n",
                grey);
    if (!isinf(dashed) && dashed > (double)SMALLEST)
        fprintf(
            f,
            "set arrow 1 from first %.0f, graph 0 to first %.0f, graph 1 nohead dashtype 3 linecolor rgb '#606060'\n",
            dashed, dashed);
    fprintf(f,
            "plot %s 1:2:4 with filledcurves fillcolor rgb '#c0392b' fillstyle transparent solid 0.18 noborder "
            "notitle, \\\n",
            index);
    fprintf(f,
            "     %s 1:5:7 with filledcurves fillcolor rgb '#2471a3' fillstyle transparent solid 0.18 noborder "
            "notitle, \\\n",
            index);
    fprintf(f,
            "     %s 1:3 with lines linewidth 3 linecolor rgb '#c0392b' title 'software, median of the inputs', \\\n",
            index);
    fprintf(f, "     %s 1:6 with lines linewidth 3 linecolor rgb '#2471a3' title 'round trip, %s', \\\n", index,
            state_title(b, has_state(b, SPINNING) ? SPINNING : SLEEPING));
    if (has_state(b, SPINNING))
        fprintf(f, "     %s 1:8 with lines linewidth 2 dashtype 2 linecolor rgb '#2471a3' title 'round trip, %s', \\\n",
                index, state_title(b, SLEEPING));
    fprintf(f, "     %s 1:10 with lines linewidth 2 linecolor rgb '#27865a' title 'of that the loop''s own time', \\\n",
            index);
    fprintf(f, "     %s 1:9 with lines linewidth 2 dashtype 2 linecolor rgb '#27865a' title 'of that set-up', \\\n",
            index);
    fprintf(
        f,
        "     NaN with boxes fillstyle solid noborder linecolor rgb '#e4e4e4' title 'software is better (batch work)'");
    if (!isinf(dashed) && dashed > (double)SMALLEST)
        fprintf(f, ", \\\n     NaN with lines dashtype 3 linecolor rgb '#606060' title 'latency-critical work pays "
                   "from here'");
    fprintf(f, "\nunset object\nunset arrow\n");
}

static void write_script(const char *path) {
    FILE *f = create(path);
    fprintf(f,
            "# Latency over the size of the input: gnuplot calibrate.gp, in this directory. Bands: least to most of "
            "five inputs.\n"
            "set terminal pngcairo size 1000,640 font 'sans,11'\nset logscale x 2\nset logscale y 10\nset grid\nset "
            "key bottom right\n"
            "set xlabel 'bytes of input'\nset ylabel 'latency'\nset xrange [%d:%d]\nset style fill solid\n",
            SMALLEST, BIGGEST);
    fprintf(f, "set xtics ('64 B' 64, '256 B' 256, '1 KB' 1024, '4 KB' 4096, '16 KB' 16384, '64 KB' 65536, '256 KB' "
               "262144, '1 MB' 1048576)\n"
               "set ytics ('10 ns' 0.01, '100 ns' 0.1, '1 us' 1, '10 us' 10, '100 us' 100, '1 ms' 1000, '10 ms' 10000, "
               "'100 ms' 100000)\n");
    for (int op = OL_OP_CALL; op < OPS; op++) {
        if (!measured(op)) continue;
        script_software(f, op);
        for (int b = THREADS; b < backends; b++)
            if (supports(b, op)) script_backend(f, op, b);
    }
    finish(f, path);
}

static void run_gnuplot(const char *directory) {
    int status = 0;
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        if (chdir(directory) == 0) execlp("gnuplot", "gnuplot", "calibrate.gp", (char *)NULL);
        _exit(errno == ENOENT ? 127 : 126);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0) fail("can't start gnuplot: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) printf("Plots:    %s/*.png\n", directory);
    else if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        printf(
            "No plots: gnuplot is missing (Debian: apt-get install gnuplot-nox); then: cd %s && gnuplot calibrate.gp\n",
            directory);
    else printf("No plots: gnuplot failed, see above; again: cd %s && gnuplot calibrate.gp\n", directory);
}

/* ---- a policy against the figures -------------------------------------------------------------------------------- */

static const ol_rule *rule_for(const ol_policy *p, int op, int cls, double bytes) {
    for (uint32_t i = 0; i < p->n; i++) {
        const ol_rule *r = &p->rule[i];
        if ((r->kind && r->kind != op) || (r->cls && r->cls != cls)) continue;
        if (bytes >= (double)r->min && (!r->max || bytes <= (double)r->max)) return r;
    }
    return NULL;
}

/* What a rule decides, as something that was measured. Slices and `auto` cost about what the cheaper way does. */
static struct choice decided(const ol_rule *r, int op, int cls, double x) {
    const struct choice software = choice_of(SOFTWARE, OL_SOFTWARE);
    if (!r || r->mode == OL_SOFTWARE || r->mode == OL_SLICED) return software;
    const int b = backend_named(r->backend);
    const struct choice there = choice_of(b, r->mode == OL_SYNC ? OL_SYNC : OL_ASYNC);
    const double ratio = cost_ratio(op, there, software, cls, MEDIAN, ALL, x);
    if (isnan(ratio))
        return r->mode == OL_SYNC ? choice_of(b, OL_ASYNC) : software; /* not on this machine: what the loop does */
    return r->mode == OL_AUTO && ratio > 1 ? software : there;
}

static struct choice best_at(int op, int cls, double x) {
    struct choice all[CHOICES];
    const int n = choices_for(cls, all);
    int best = 0; /* as in standing() */
    for (int i = 1; i < n; i++)
        if (cost_ratio(op, all[i], all[best], cls, MEDIAN, ALL, x) * (all[i].mode == OL_SYNC ? 1.25 : 1) < 1) best = i;
    return all[best];
}

static const char *choice_text(char *text, size_t len, struct choice c) {
    if (c.mode == OL_SOFTWARE) snprintf(text, len, "software");
    else snprintf(text, len, "%s %s", mode_names[c.mode], backend_names[c.backend]);
    return text;
}
#define CHOICE(c) choice_text(room(), 40, (c))

/* Neighbouring sizes where the policy decides alike and the same would be better. */
struct region {
    double from, to, worst, worst_at;
    struct choice is, best;
};

static void print_region(const struct region *r, int op, int cls) {
    char range[60];
    print_range(range, sizeof range, r->from, r->to);
    printf("  %-8s %-8s %-18s %-16s %-16s %5.*fx at %s: %s us against %s\n", op_names[op], class_names[cls], range,
           CHOICE(r->is), CHOICE(r->best), r->worst < 10 ? 1 : 0, r->worst, SIZE(r->worst_at),
           US(cost_ns(op, r->is, cls, r->worst_at)), US(cost_ns(op, r->best, cls, r->worst_at)));
}

enum { NEGLIGIBLE_NS = 200 }; /* an absolute difference that is no reason for anything */

static int compare_class(const ol_policy *p, int op, int cls) {
    struct region r;
    int n = 0;
    memset(&r, 0, sizeof r);
    for (int i = 0; i < SIZES; i++) {
        const double x = (double)((int64_t)SMALLEST << i);
        const struct choice is = decided(rule_for(p, op, cls, x), op, cls, x), best = best_at(op, cls, x);
        const double ratio = cost_ratio(op, is, best, cls, MEDIAN, ALL, x);
        if (isnan(ratio)) continue;
        const double more = cost_ns(op, is, cls, x) - cost_ns(op, best, cls, x);
        const int slower = ratio > 1 + want.margin / 100 && more > (double)NEGLIGIBLE_NS;
        if (r.worst > 0 && (!slower || !same(is, r.is) || !same(best, r.best))) {
            print_region(&r, op, cls);
            r.worst = 0;
            n++;
        }
        if (!slower) continue;
        if (!(r.worst > 0)) r.from = x, r.is = is, r.best = best;
        r.to = x;
        if (ratio > r.worst) r.worst = ratio, r.worst_at = x;
    }
    if (r.worst > 0) print_region(&r, op, cls);
    return n + (r.worst > 0);
}

static char *read_text(const char *path) {
    enum { MOST = 1 << 20 };
    FILE *f = fopen(path, "r");
    if (!f && (strcmp(path, "pool") == 0 || strcmp(path, "thesis") == 0)) return strdup(path);
    if (!f) fail("can't read %s: %s: --compare takes a policy file, or pool or thesis", path, strerror(errno));
    char *text = (char *)memory(MOST);
    const size_t n = fread(text, 1, MOST, f);
    if (ferror(f)) fail("can't read %s: %s", path, strerror(errno));
    if (n == MOST || memchr(text, 0, n)) fail("%s is not a policy file", path);
    fclose(f);
    return text;
}

static void parse_policy(const char *path, ol_policy *p) {
    char err[200];
    char *text = read_text(path);
    if (ol_policy_parse(text, p, err, sizeof err) < 0) fail("%s: %s", path, err);
    free(text);
}

static void check_backends(const char *path, const ol_policy *p) {
    for (uint32_t i = 0; i < p->n; i++)
        if (p->rule[i].backend[0] && backend_named(p->rule[i].backend) < 0)
            fail("%s names the backend '%s', which is not measured: describe it by --device '... name=%s', or take it "
                 "out",
                 path, p->rule[i].backend, p->rule[i].backend);
}

static int compare(const ol_policy *p) {
    int n = 0;
    printf("\n%s against what was measured: where it is slower by more than %.0f%% (and %.1f us)\n\n", want.compare,
           want.margin, (double)NEGLIGIBLE_NS / 1e3);
    printf("  %-8s %-8s %-18s %-16s %-16s %s\n", "op", "class", "input", "decides", "better", "slower by up to");
    for (int op = OPS - 1; op > OL_OP_CALL; op--) /* calls: their size is a hint */
        for (int cls = OL_BATCH; cls >= OL_LATENCY && measured(op); cls--) n += compare_class(p, op, cls);
    if (!n) printf("  nowhere\n");
    const ol_rule *call = rule_for(p, OL_OP_CALL, OL_BATCH, 0);
    if (!call || call->mode == OL_SOFTWARE) printf("  It runs calls on the loop: one that blocks stops everything.\n");
    printf("\n%s: %d region%s slower than measured\n", want.compare, n, n == 1 ? " is" : "s are");
    return n ? 1 : 0;
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

static void usage(void) {
    printf("usage: calibrate [options]\n"
           "Measures from which size on it pays to offload operations on this machine, prints what came out, and "
           "writes a policy\n"
           "that says so, the figures and plots. Takes less than a minute; leave the machine alone meanwhile.\n\n"
           "  --quick          fewer sizes and 3 rounds: a few seconds, coarse\n"
           "  --rounds N       rounds, %d to %d [15]\n"
           "  --seconds N      no new round after so long [45; quick 8]; the one under way then doesn't count\n"
           "  --ops LIST       of deflate,inflate,crc32,call [all that are built in]\n"
           "  --device TEXT    an emulated device to measure, too, as for ol_emulated_parse: a preset and name=value "
           "words, as\n"
           "                   in 'bluefield2-host latency_ns=3000'. Up to %d times; then each needs a name=\n"
           "  --awake          count on workers that are awake: for a loop that is always busy, or pools with a long "
           "spin_ns\n"
           "  --others SHARE   how much the loop's time, for which others wait, counts beside a latency-critical "
           "operation's own\n"
           "                   time to its result [0.25]; 0: only its own counts, and no thread is ever worth it\n",
           ROUNDS_MIN, ROUNDS_MAX, BACKENDS - 2);
    printf("  --output DIR     where it writes to [build/calibrate]: policy.txt, calibrate.tsv (all figures), "
           "calibrate.dat,\n"
           "                   calibrate.gp and, if gnuplot is installed, OP-software.png and OP-BACKEND.png\n"
           "  --policy FILE    where it writes the policy to [DIR/policy.txt; with --compare: nowhere]\n"
           "  --compare FILE   says where the policy FILE (or the preset pool or thesis) is slower than what was "
           "measured\n"
           "  --margin N       by how many percent, at least, for --compare [50]\n"
           "  --from FILE      measures nothing: takes the figures from the calibrate.tsv of an earlier run, and\n"
           "                   writes only what --output or --policy ask for\n"
           "  --help           this\n\n"
           "Exit status: 0; 1 when --compare found a difference; 2 after an error.\n\n"
           "Kinds of input, made from a fixed seed. Random numbers can't be compressed, a repeated character can't be "
           "compressed\n"
           "better: they bound what a codec may take. HTML and numeric data (columns of decimal numbers) are what "
           "servers send;\n"
           "JSON lines, as in logs and answers of APIs, lie between them: much repeats, but at short range, among "
           "random digits.\n");
}

static double number(const char *option, const char *text, double least, double most) {
    char *end;
    errno = 0;
    const double v = strtod(text, &end);
    if (end == text || *end || errno || !(v >= least) || !(v <= most))
        fail("--%s takes a number from %.4g to %.4g, not '%s'; see calibrate --help", option, least, most, text);
    return v;
}

static uint32_t ops_of(const char *list) {
    char copy[100];
    uint32_t ops = 0;
    snprintf(copy, sizeof copy, "%s", list);
    for (char *save = NULL, *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        const int op = index_of(op_names, OPS, w);
        if (op <= EMPTY) fail("--ops takes a list of deflate,inflate,crc32,call, not '%s'", w);
        ops |= 1u << op;
    }
    if (!ops) fail("--ops takes a list of deflate,inflate,crc32,call");
    return ops;
}

static void take_option(int o) {
    switch (o) {
    case 'q': want.quick = 1; break;
    case 'r': want.rounds = (int)number("rounds", optarg, ROUNDS_MIN, ROUNDS_MAX); break;
    case 's': want.seconds = number("seconds", optarg, 1, 3600); break;
    case 'n': want.ops = ops_of(optarg); break;
    case 'd':
        if (want.devices == BACKENDS - 2) fail("at most %d devices", BACKENDS - 2);
        want.device[want.devices++] = optarg;
        break;
    case 'a': want.awake = 1; break;
    case 'w': want.others = number("others", optarg, 0, 100); break;
    case 'o': want.output = optarg; break;
    case 'p': want.policy = optarg; break;
    case 'c': want.compare = optarg; break;
    case 'm': want.margin = number("margin", optarg, 0, 1e6); break;
    case 'f': want.from = optarg; break;
    case 'h': usage(); exit(0);
    default: fputs("calibrate: see calibrate --help\n", stderr); exit(2);
    }
}

static const char *in_output(const char *name) { /* valid to the end */
    static char paths[8][4096];
    static int n;
    char *path = paths[n++ % 8];
    if (snprintf(path, sizeof paths[0], "%s/%s", want.output, name) >= (int)sizeof paths[0])
        fail("--output: the path is too long");
    return path;
}

static void options(int argc, char **argv) {
    static const struct option all[] = {{"quick", 0, NULL, 'q'},   {"rounds", 1, NULL, 'r'}, {"seconds", 1, NULL, 's'},
                                        {"ops", 1, NULL, 'n'},     {"device", 1, NULL, 'd'}, {"awake", 0, NULL, 'a'},
                                        {"others", 1, NULL, 'w'},  {"output", 1, NULL, 'o'}, {"policy", 1, NULL, 'p'},
                                        {"compare", 1, NULL, 'c'}, {"margin", 1, NULL, 'm'}, {"from", 1, NULL, 'f'},
                                        {"help", 0, NULL, 'h'},    {NULL, 0, NULL, 0}};
    size_t n = 0;
    for (int i = 0; i < argc && n < sizeof commands; i++)
        n += (size_t)snprintf(commands + n, sizeof commands - n, strchr(argv[i], ' ') ? "%s'%s'" : "%s%s", i ? " " : "",
                              argv[i]);
    for (char *p = commands; *p; p++)
        if (*p == '\n') *p = ' ';
    for (int o; (o = getopt_long(argc, argv, "", all, NULL)) != -1;) take_option(o);
    if (optind < argc) fail("'%s' is no option; see calibrate --help", argv[optind]);
    if (!(want.seconds > 0)) want.seconds = want.quick ? 8 : 45;
    if (!want.rounds) want.rounds = want.quick ? ROUNDS_MIN : 15;
    if (!want.output && !want.from) want.output = "build/calibrate";
    if (!want.policy && want.output && !want.compare) want.policy = in_output("policy.txt");
    if (want.from && (want.devices || want.ops))
        fail("--from takes what an earlier run has measured: leave out --device and --ops");
}

static void make_directory(const char *path) { /* with its parents */
    char copy[4096];
    if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy || !path[0]) fail("--output: not a path");
    for (char *p = copy + 1;; p++) {
        const char c = *p;
        if (c && c != '/') continue;
        *p = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            fail("can't make the directory %s: %s: choose another by --output", copy, strerror(errno));
        *p = c;
        if (!c) return;
    }
}

static void write_all(void) {
    make_directory(want.output);
    save_figures(in_output("calibrate.tsv"));
    write_data(in_output("calibrate.dat"));
    write_script(in_output("calibrate.gp"));
    printf("\nFigures:  %s\n", in_output("calibrate.tsv"));
    run_gnuplot(want.output);
}

int main(int argc, char **argv) {
    ol_policy policy;
    options(argc, argv);
    if (want.compare) parse_policy(want.compare, &policy); /* an error is better known before a minute has passed */
    if (want.from) load_figures(want.from);
    else name_devices();
    if (want.compare) check_backends(want.compare, &policy);
    if (want.output) make_directory(want.output);
    if (!want.from) measure();
    one_cpu = !has_state(THREADS, SPINNING);
    if (want.awake && one_cpu) fail("--awake needs workers on a CPU of their own, and there is one CPU: leave it out");
    make_plans();
    print_all();
    if (want.output) write_all();
    if (want.policy) {
        write_policy(want.policy);
        printf("Policy:   %s\n", want.policy);
        ol_policy own;
        parse_policy(want.policy, &own); /* what nobody can load is no policy */
    }
    return want.compare ? compare(&policy) : 0;
}
