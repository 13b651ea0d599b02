/* load: an open-loop HTTP load generator that checks every body.

   cc -O2 -I. bench/load.c -o build/bench/load -pthread -lhttp_parser -lz -lm
   build/bench/load --port 8080 --root DIR --rate 5000 --time 5 --mix small=small:99 --mix big=big:1

   Arrivals are drawn in advance, and a request's latency counts from the time at which it was meant to be sent, so a
   server that stalls can't slow the questions down (no coordinated omission). One coroutine for each request, on its
   connection's partition. Responses are kept as they came and checked by a worker of lowest priority: the loop that
   takes the times only finds where each one ends. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <getopt.h>
#include <glob.h>
#include <http_parser.h>
#include <math.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <zlib.h>

enum {
    SMALL_SEG = 4096,
    BIG_SEG = 65536,
    GROUPS = 16,
    GROUP_NAME = 32,
    CHECK_NS = 10 * 1000 * 1000,
    CHECK_BYTES = 8 << 20
};
static const int64_t SECOND = 1000000000;

static void die(const char *what, const char *detail) {
    fprintf(stderr, "load: %s%s%s\n", what, detail ? ": " : "", detail ? detail : "");
    exit(2);
}

static void *need(void *p) {
    if (!p) die("out of memory", "fewer --connections, smaller files, or --check crc");
    return p;
}

/* ---- histogram: 128 steps for each power of two, so that a value is kept to within 0.8% -------------------------- */

enum { HIST_SUB = 7, HIST_N = (64 - HIST_SUB + 1) << HIST_SUB };

struct hist {
    uint64_t n, max, slot[HIST_N];
};

static void hist_add(struct hist *h, int64_t ns) {
    const uint64_t v = ns < 0 ? 0 : (uint64_t)ns;
    const int shift = v >> HIST_SUB ? 63 - __builtin_clzll(v) - HIST_SUB : 0;
    h->slot[((size_t)shift << HIST_SUB) + (size_t)(v >> shift)]++;
    h->n++;
    if (v > h->max) h->max = v;
}

/* The smallest value, in microseconds, that at least the share q of all values does not exceed. */
static double hist_us(const struct hist *h, double q) {
    if (q >= 1) return (double)h->max / 1e3;
    const double want = ceil(q * (double)h->n);
    uint64_t seen = 0;
    for (size_t i = 0; i < HIST_N && h->n; i++) {
        seen += h->slot[i];
        if (h->slot[i] && (double)seen >= want) {
            const int shift = i >> (HIST_SUB + 1) ? (int)(i >> HIST_SUB) - 1 : 0;
            const uint64_t low = (uint64_t)(i - ((size_t)shift << HIST_SUB)) << shift;
            const uint64_t mid = low + ((1ull << shift) >> 1);
            return (double)(mid < h->max ? mid : h->max) / 1e3;
        }
    }
    return 0;
}

/* ---- what is asked for, and of whom ------------------------------------------------------------------------------ */

struct file {
    char *request; /* the whole request, ready to send */
    size_t request_len;
    char *name;
    unsigned char *data; /* the file's bytes; NULL with --check crc */
    uint64_t len;
    uint32_t crc;
    int fd;    /* open with --cold only */
    int asked; /* the worker's: seen in this batch */
};

struct group {
    char name[GROUP_NAME];
    struct hist latency;
    uint64_t failed, bytes;
};

struct mix {
    double upto;              /* running sum of weights */
    uint32_t group, first, n; /* files */
};

struct seg { /* a piece of a response as it came from the wire: a small one first, then big ones */
    struct seg *next;
    struct seg *response; /* of a response's first piece: the next response */
    struct file *file;    /* of a response's first piece */
    uint64_t total;       /* of a response's first piece: bytes of memory of all */
    uint32_t used, size;  /* of the bytes that follow */
};

static char *seg_data(struct seg *s) { return (char *)(s + 1); }

struct conn {
    ol_co co;
    ol_fd fd;
    struct conn *idle; /* next in the stack of idle connections */
    struct file *file;
    struct seg *head, *tail;
    int64_t due, n, seen;
    uint32_t group;
    uint8_t kept;      /* the connection stood idle before this request */
    uint8_t retried;   /* this is the second try */
    uint8_t prompt;    /* a connection was idle when this request was due */
    uint8_t done, bad; /* the parser's findings */
    int64_t outcome;   /* F_... */
    ol_frame exchange; /* of the sub-coroutine */
    struct iovec iov;
    http_parser parser;
};

enum { F_NONE, F_CONNECT, F_TIMEOUT, F_SHORT, F_STATUS, F_PROTOCOL, F_ERROR, F_UNSENT, FAILS };
static const char *const fail_name[FAILS] = {"",           "no connection", "timed out",   "connection closed early",
                                             "not 200 OK", "malformed",     "other error", "never sent"};

static struct {
    const char *host, *root, *tsv, *curve, *name;
    int port, poisson, gzip, crc_only, cold, defer, spin, quiet, connections, pid[8], npid;
    double rate, time, warmup, timeout, memory;
    uint64_t seed;
} opt;

static struct file *files;
static uint32_t nfiles;
static struct group groups[GROUPS];
static uint32_t ngroups;
static struct mix *mixes;
static uint32_t nmixes;

static ol_loop *loop;
static struct sockaddr_in addr;
static struct conn *conns, *idle;
static int opening, open_error, active, ended;
static uint64_t rng[2], failed[FAILS], connects, queued, stalls, answered, measured;
static int64_t start, measure_from, stop_at, give_up_at, last_answer, idle_since;
static double loop_cpu, server_cpu, other_cpu; /* seconds; at the end, cores */
static struct hist lag;
static ol_timer arrival_timer, check_timer, progress_timer;

static struct { /* the next arrival */
    double at;  /* ns after the start */
    int64_t due;
    uint32_t file, group;
} next;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec;
}

static uint64_t draw64(void) { /* xorshift128+ (Vigna, 2014) */
    uint64_t a = rng[0];
    const uint64_t b = rng[1];
    rng[0] = b;
    a ^= a << 23;
    rng[1] = a ^ b ^ (a >> 18) ^ (b >> 5);
    return rng[1] + b;
}

static double draw(void) { /* [0, 1) */
    return (double)(draw64() >> 11) * 0x1p-53;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static char *request_text(const char *path) {
    static const char hex[] = "0123456789ABCDEF";
    char *text = (char *)need(malloc(3 * strlen(path) + 256)), *p = text;
    p += sprintf(p, "GET /");
    for (; *path; path++) {
        const unsigned char ch = (unsigned char)*path;
        if (isalnum(ch) || strchr("-._~/", ch)) {
            *p++ = (char)ch;
        } else {
            *p++ = '%', *p++ = hex[ch >> 4], *p++ = hex[ch & 15];
        }
    }
    sprintf(p, " HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: load\r\n%s\r\n", opt.host, opt.port,
            opt.gzip ? "Accept-Encoding: gzip\r\n" : "");
    return text;
}

static void add_file(const char *path, const struct stat *st) {
    struct file *f;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) die(path, strerror(errno));
    if (!(nfiles & (nfiles - 1)))
        files = (struct file *)need(realloc(files, (nfiles ? nfiles * 2 : 1) * sizeof *files));
    f = &files[nfiles++];
    memset(f, 0, sizeof *f);
    f->name = (char *)need(strdup(path + strlen(opt.root) + 1));
    f->request = request_text(f->name);
    f->request_len = strlen(f->request);
    f->len = (uint64_t)st->st_size;
    f->fd = -1;
    unsigned char *data = (unsigned char *)need(malloc(f->len + 1));
    for (uint64_t at = 0; at < f->len;) {
        const ssize_t n = read(fd, data + at, f->len - at);
        if (n <= 0) die(path, n ? strerror(errno) : "it became shorter while it was read");
        f->crc = (uint32_t)crc32(f->crc, data + at, (uInt)n);
        at += (uint64_t)n;
    }
    if (opt.crc_only) free(data);
    else f->data = data;
    if (opt.cold) f->fd = fd;
    else close(fd);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* A file, or all regular files below a directory, in the order of their names so that a seed means the same anywhere. */
static void add_path(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) die(path, strerror(errno));
    if (S_ISREG(st.st_mode)) add_file(path, &st);
    if (!S_ISDIR(st.st_mode)) return;
    DIR *dir = opendir(path);
    if (!dir) die(path, strerror(errno));
    char **names = NULL;
    size_t n = 0;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        names = (char **)need(realloc(names, (n + 1) * sizeof *names));
        names[n] = (char *)need(malloc(strlen(path) + strlen(e->d_name) + 2));
        sprintf(names[n++], "%s/%s", path, e->d_name);
    }
    closedir(dir);
    if (n) qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        add_path(names[i]);
        free(names[i]);
    }
    free(names);
}

static uint32_t group_of(const char *name, size_t len) {
    if (len == 0 || len >= GROUP_NAME) die("--mix: a group's name has 1 to 31 characters", name);
    for (uint32_t i = 0; i < ngroups; i++) {
        if (strlen(groups[i].name) == len && !memcmp(groups[i].name, name, len)) return i;
    }
    if (ngroups == GROUPS) die("--mix: at most 16 groups", NULL);
    memcpy(groups[ngroups].name, name, len);
    return ngroups++;
}

/* [GROUP=]PATTERN[:WEIGHT] */
static void add_mix(const char *text) {
    const char *eq = strchr(text, '='), *pattern = eq ? eq + 1 : text, *colon = strrchr(pattern, ':');
    char *end = NULL, full[4096];
    const double weight = colon ? strtod(colon + 1, &end) : 1;
    const size_t len = colon ? (size_t)(colon - pattern) : strlen(pattern);
    glob_t g;
    if (!(weight > 0) || (end && *end)) die("--mix: the weight after the last colon must be a number above 0", text);
    if (len == 0 || strlen(opt.root) + len + 2 > sizeof full) die("--mix: [GROUP=]PATTERN[:WEIGHT] expected", text);
    mixes = (struct mix *)need(realloc(mixes, (nmixes + 1) * sizeof *mixes));
    struct mix *m = &mixes[nmixes];
    m->upto = weight + (nmixes ? mixes[nmixes - 1].upto : 0);
    m->group = eq ? group_of(text, (size_t)(eq - text)) : group_of(pattern, len < GROUP_NAME ? len : GROUP_NAME - 1);
    m->first = nfiles;
    sprintf(full, "%s/%.*s", opt.root, (int)len, pattern);
    if (glob(full, 0, NULL, &g) != 0) die("--mix: nothing under --root matches", text);
    for (size_t i = 0; i < g.gl_pathc; i++) add_path(g.gl_pathv[i]);
    globfree(&g);
    m->n = nfiles - m->first;
    if (m->n == 0) die("--mix: no regular file there", text);
    nmixes++;
}

/* Drops a file from the page cache; nobody needs to be root for that. Pages not yet on disk can't be dropped. */
static int evict(const struct file *f) {
    char byte;
    struct iovec iov;
    (void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
    iov.iov_base = &byte;
    iov.iov_len = 1;
    return preadv2(f->fd, &iov, 1, 0, RWF_NOWAIT) < 0 && errno == EAGAIN;
}

static uint32_t evict_all(void) {
    uint32_t cold = 0;
    for (uint32_t i = 0; i < nfiles; i++) {
        (void)fdatasync(files[i].fd);
        cold += (uint32_t)evict(&files[i]);
    }
    if (cold == 0) {
        fprintf(stderr,
                "load: --cold: no file could be dropped from the page cache (a file system in memory?); going on "
                "with a warm cache\n");
    }
    return cold;
}

/* ---- pieces of memory for responses ------------------------------------------------------------------------------ */

static struct seg *seg_free[2];     /* small, big */
static uint64_t memory, memory_max; /* of responses that are not checked yet */

/* A check during the run takes the core that it shares with the loop, for a moment now and then; and a loop that spins
   leaves no time for it at all. With --defer it waits for the end, or for three quarters of the memory to be used. */
static int deferred(void) { return opt.defer && start && !ended && memory < memory_max - memory_max / 4; }

static struct seg *seg_get(int big) {
    const uint32_t size = big ? BIG_SEG : SMALL_SEG;
    struct seg *s = seg_free[big];
    if (memory + size > memory_max) return NULL;
    if (s) seg_free[big] = s->next;
    else if (!(s = (struct seg *)malloc(sizeof *s + size))) return NULL;
    memory += size;
    memset(s, 0, sizeof *s);
    s->size = size;
    return s;
}

static void seg_put_all(struct seg *s) {
    while (s) {
        struct seg *const following = s->next;
        struct seg **const list = &seg_free[s->size == BIG_SEG];
        memory -= s->size;
        s->next = *list;
        *list = s;
        s = following;
    }
}

/* ---- the check, on a worker: parse again, inflate by zlib, compare with the file --------------------------------- */

static struct checker {
    z_stream z;
    http_parser_settings settings;
    const struct file *file;
    uint64_t pos;
    uint32_t crc;
    int gzip, ended, wrong, in_value;
    size_t field_len, value_len;
    char field[32], value[32];
    struct seg *batch;
    uint64_t checked, wrongs, gzips, document_bytes, wire_bytes; /* totals */
    char first[256];                                             /* what was wrong with the first wrong one */
    unsigned char out[BIG_SEG];
} checker;

static void wrong(struct checker *k, const char *what) {
    if (!k->wrong && !k->first[0]) {
        snprintf(k->first, sizeof k->first, "%.150s: %s at byte %llu", k->file->name, what, (unsigned long long)k->pos);
    }
    k->wrong = 1;
}

static void compare(struct checker *k, const unsigned char *data, size_t n) {
    if (n > k->file->len - k->pos) {
        wrong(k, "longer than the file");
        return;
    }
    if (!opt.crc_only && memcmp(k->file->data + k->pos, data, n) != 0) {
        while (*data++ == k->file->data[k->pos]) k->pos++;
        wrong(k, "differs from the file");
        return;
    }
    if (opt.crc_only && !k->gzip) k->crc = (uint32_t)crc32(k->crc, data, (uInt)n);
    k->pos += n;
}

static int check_field(http_parser *p, const char *at, size_t n) {
    struct checker *k = (struct checker *)p->data;
    if (k->in_value) k->in_value = 0, k->field_len = 0;
    for (size_t i = 0; i < n && k->field_len < sizeof k->field - 1; i++) k->field[k->field_len++] = at[i];
    k->field[k->field_len] = 0;
    return 0;
}

static int check_value(http_parser *p, const char *at, size_t n) {
    struct checker *k = (struct checker *)p->data;
    if (!k->in_value) k->in_value = 1, k->value_len = 0;
    for (size_t i = 0; i < n && k->value_len < sizeof k->value - 1; i++) k->value[k->value_len++] = at[i];
    k->value[k->value_len] = 0;
    if (!strcasecmp(k->field, "content-encoding")) k->gzip = !strcasecmp(k->value, "gzip");
    return 0;
}

static int check_body(http_parser *p, const char *at, size_t n) {
    struct checker *k = (struct checker *)p->data;
    if (k->wrong) return 0;
    if (!k->gzip) {
        compare(k, (const unsigned char *)at, n);
        return 0;
    }
    k->z.next_in = (unsigned char *)(uintptr_t)at; /* zlib reads only */
    k->z.avail_in = (uInt)n;
    while (!k->wrong && (k->z.avail_in || k->z.avail_out == 0)) {
        k->z.next_out = k->out;
        k->z.avail_out = sizeof k->out;
        if (k->ended) {
            wrong(k, "bytes after the end of the gzip stream");
            break;
        }
        const int r = inflate(&k->z, Z_NO_FLUSH);
        if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR) wrong(k, k->z.msg ? k->z.msg : "not a gzip stream");
        compare(k, k->out, sizeof k->out - k->z.avail_out);
        k->ended = r == Z_STREAM_END;
        if (k->ended && k->z.avail_in == 0) break;
    }
    return 0;
}

static void check_response(struct checker *k, struct seg *response) {
    http_parser p;
    http_parser_init(&p, HTTP_RESPONSE);
    p.data = k;
    k->file = response->file;
    k->pos = k->crc = 0;
    k->gzip = k->ended = k->wrong = k->in_value = 0;
    k->field_len = 0;
    k->z.avail_out = 1;
    inflateReset(&k->z);
    for (struct seg *s = response; s; s = s->next) {
        if (s->used) (void)http_parser_execute(&p, &k->settings, seg_data(s), s->used);
        k->wire_bytes += s->used;
    }
    if (HTTP_PARSER_ERRNO(&p) != HPE_OK) wrong(k, http_errno_description(HTTP_PARSER_ERRNO(&p)));
    if (k->gzip && !k->ended) wrong(k, "the gzip stream is not complete");
    if (k->pos != k->file->len) wrong(k, "shorter than the file");
    if (opt.crc_only && (k->gzip ? (uint32_t)k->z.adler : k->crc) != k->file->crc) wrong(k, "checksum differs");
    k->checked++;
    k->wrongs += (uint64_t)k->wrong;
    k->gzips += (uint64_t)k->gzip;
    k->document_bytes += k->pos;
    if (response->file->fd >= 0) response->file->asked = 1;
}

static int64_t check_batch(void *arg) {
    struct checker *k = (struct checker *)arg;
    for (struct seg *r = k->batch; r; r = r->response) check_response(k, r);
    if (opt.cold) { /* what was read is cold again for the next one */
        for (struct seg *r = k->batch; r; r = r->response) {
            if (r->file->asked) (void)evict(r->file);
            r->file->asked = 0;
        }
    }
    return 0;
}

static struct seg *check_head, **check_tail = &check_head;
static ol_op check_op;
static int checking;

static void checked(ol_loop *on, ol_op *op) {
    (void)on;
    (void)op;
    checking = 0;
    for (struct seg *r = checker.batch, *following; r; r = following) {
        following = r->response;
        seg_put_all(r);
    }
    checker.batch = NULL;
}

/* Every 10 ms, so that the worker is woken rarely; from a timer, because an operation that a coroutine submits would
   hold that coroutine's connection. */
static void check_tick(ol_loop *l, ol_timer *t) {
    uint64_t bytes = 0;
    if (!checking && check_head && !deferred()) {
        struct seg *r = check_head, *last = r;
        for (; r && bytes < CHECK_BYTES; r = r->response) {
            bytes += r->total;
            last = r;
        }
        checker.batch = check_head;
        check_head = r;
        last->response = NULL;
        if (!r) check_tail = &check_head;
        checking = 1;
        const int error = ol_submit(l, ol_prep_call(&check_op, check_batch, &checker), checked);
        if (error) {
            fprintf(stderr, "load: can't start a check: %s\n", ol_error());
            exit(2);
        }
    }
    if (!ended || check_head) (void)ol_timer_start(l, t, bytes >= CHECK_BYTES ? CHECK_NS / 10 : CHECK_NS, check_tick);
}

/* ---- arrivals ---------------------------------------------------------------------------------------------------- */

static void request(ol_co *co);
static void finish(void);

static void next_arrival(void) {
    const double gap = opt.poisson ? -log(1 - draw()) : 1, pick = draw() * mixes[nmixes - 1].upto, which = draw();
    const struct mix *m = mixes;
    while (m->upto <= pick && m < mixes + nmixes - 1) m++;
    if (opt.rate > 0) {
        next.at += gap * 1e9 / opt.rate;
        next.due = start + (int64_t)next.at;
    }
    next.group = m->group;
    next.file = m->first + (uint32_t)(which * m->n);
}

static void arrival_due(ol_loop *l, ol_timer *t);

static void start_request(struct conn *c) {
    c->file = &files[next.file];
    c->group = next.group;
    c->due = next.due;
    c->retried = 0;
    c->prompt = next.due >= idle_since;
    if (!c->prompt && c->due >= measure_from) queued++;
    active++;
    if (ol_spawn(loop, &c->co, request, c->fd, OL_LATENCY) != 0) die("can't start a request", ol_error());
}

/* Gives the requests that are due to idle connections, in the order of their intended times. Those that find none stay
   in the schedule until a connection is free. */
static void dispatch(void) {
    const int64_t t = now();
    if (opt.rate <= 0) next.due = t;
    while (idle && next.due <= t && next.due < stop_at && t < give_up_at) {
        struct conn *const c = idle;
        idle = c->idle;
        start_request(c);
        next_arrival();
    }
    if (next.due >= stop_at || t >= give_up_at) {
        if (active == 0) finish();
    } else if (idle) {
        if (ol_timer_start(loop, &arrival_timer, next.due - t, arrival_due) != 0)
            die("can't start a timer", ol_error());
    }
}

static void arrival_due(ol_loop *l, ol_timer *t) {
    (void)l, (void)t;
    dispatch();
}

static void conn_idle(struct conn *c) {
    if (!idle) idle_since = now();
    active--;
    c->idle = idle;
    idle = c;
    dispatch();
}

/* What never got a connection within the time limit has failed, too. */
static void count_unsent(void) {
    while (opt.rate > 0 && next.due < stop_at) {
        failed[F_UNSENT]++;
        groups[next.group].failed++;
        next_arrival();
    }
}

static int read_text(const char *path, char *text, size_t size) {
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    text[fread(text, 1, size - 1, f)] = 0;
    fclose(f);
    return 1;
}

/* CPU seconds that a process has used, all threads; 0 if it can't be known. */
static double process_cpu(int pid) {
    char path[64], text[1024];
    unsigned long user = 0, sys = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (!read_text(path, text, sizeof text)) return 0;
    const char *p = strrchr(text, ')'); /* the name before it may hold anything */
    if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys) != 2) return 0;
    return (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

static double own_cpu(int who) {
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* CPU seconds that the machine has spent on what is neither this program nor a process named by --pid. */
static double others_cpu(void) {
    char text[1024];
    unsigned long user = 0, nice = 0, sys = 0, irq = 0, softirq = 0, steal = 0;
    if (!read_text("/proc/stat", text, sizeof text) ||
        sscanf(text, "cpu %lu %lu %lu %*u %*u %lu %lu %lu", &user, &nice, &sys, &irq, &softirq, &steal) != 6)
        return 0;
    double s =
        (double)(user + nice + sys + irq + softirq + steal) / (double)sysconf(_SC_CLK_TCK) - own_cpu(RUSAGE_SELF);
    for (int i = 0; i < opt.npid; i++) s -= process_cpu(opt.pid[i]);
    return s;
}

static void progress(ol_loop *l, ol_timer *t) {
    fprintf(stderr, "load: %.0f of %.0f s, %llu answers\n", (double)(now() - start) / 1e9, opt.warmup + opt.time,
            (unsigned long long)answered);
    (void)ol_timer_start(l, t, 2 * SECOND, progress);
}

/* All connections stand: time begins. */
static void begin(void) {
    start = now() + SECOND / 100;
    measure_from = start + (int64_t)(opt.warmup * 1e9);
    stop_at = measure_from + (int64_t)(opt.time * 1e9);
    give_up_at = stop_at + (int64_t)(opt.timeout * 1e9);
    last_answer = idle_since = start;
    loop_cpu = own_cpu(RUSAGE_THREAD);
    server_cpu = opt.npid ? process_cpu(opt.pid[0]) : 0;
    other_cpu = others_cpu();
    next_arrival();
    dispatch();
    (void)ol_timer_start(loop, &check_timer, CHECK_NS, check_tick);
    if (!opt.quiet) (void)ol_timer_start(loop, &progress_timer, 2 * SECOND, progress);
}

/* The last answer has come; what is left is the check of the last bodies. */
static void finish(void) {
    if (ended) return;
    ended = 1;
    ol_timer_stop(loop, &arrival_timer);
    ol_timer_stop(loop, &progress_timer);
    if (last_answer < stop_at) last_answer = stop_at;
    const double seconds = (double)(now() - start) / 1e9;
    loop_cpu = (own_cpu(RUSAGE_THREAD) - loop_cpu) / seconds;
    server_cpu = opt.npid ? (process_cpu(opt.pid[0]) - server_cpu) / seconds : 0;
    other_cpu = (others_cpu() - other_cpu) / seconds;
    if (other_cpu < 0) other_cpu = 0; /* the kernel's ticks are coarse */
    if (check_head && !opt.quiet) fprintf(stderr, "load: checking the bodies that are left\n");
}

/* ---- one request ------------------------------------------------------------------------------------------------- */

static http_parser_settings finding; /* finds the end of a response, no more */

static int headers_complete(http_parser *p) {
    struct conn *c = (struct conn *)p->data;
    if (p->status_code != 200) c->bad = F_STATUS;
    return 0;
}

static int message_begin(http_parser *p) {
    struct conn *c = (struct conn *)p->data;
    if (c->done) c->bad = F_PROTOCOL; /* more than was asked for */
    return 0;
}

static int message_complete(http_parser *p) {
    struct conn *c = (struct conn *)p->data;
    c->done = 1;
    return 0;
}

static void conn_close(struct conn *c) {
    if (c->fd) (void)ol_close(loop, c->fd);
    c->fd = 0;
    c->kept = 0;
}

static void prepare(struct conn *c) {
    seg_put_all(c->head);
    c->head = c->tail = NULL;
    http_parser_init(&c->parser, HTTP_RESPONSE);
    c->parser.data = c;
    c->done = c->bad = 0;
    c->iov.iov_base = c->file->request;
    c->iov.iov_len = c->file->request_len;
}

static int socket_open(ol_co *co, struct conn *c) {
    const int one = 1, error = ol_socket(co, AF_INET, SOCK_STREAM, 0, &c->fd);
    if (error) return error;
    (void)setsockopt(ol_fd_raw(loop, c->fd), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connects++;
    return 0;
}

/* Room for the next read, or 0 if the memory for unchecked bodies is used up. */
static int has_room(struct conn *c) {
    struct seg *s;
    if (c->tail && c->tail->used < c->tail->size) return 1;
    if (!(s = seg_get(c->head != NULL))) return 0;
    if (c->tail) c->tail->next = s;
    else c->head = s;
    c->tail = s;
    c->head->file = c->file;
    c->head->total += s->size;
    return 1;
}

/* Takes what was read; true when the response is complete or can't become so. The time is taken first. */
static int take(struct conn *c) {
    const char *const at = seg_data(c->tail) + c->tail->used;
    const size_t n = (size_t)c->n; /* 0, the end of the stream, may be the end of the body */
    c->seen = now();
    c->tail->used += (uint32_t)n;
    const int fits = http_parser_execute(&c->parser, &finding, at, n) == n;
    if (!c->bad && n == 0 && !c->done) c->bad = F_SHORT;
    if (!c->bad && !fits) c->bad = F_PROTOCOL;
    return c->done || c->bad;
}

static int kind_of(int64_t error) {
    return error == -ETIMEDOUT ? F_TIMEOUT : error == -ECONNRESET || error == -EPIPE ? F_SHORT : F_ERROR;
}

/* A sub-coroutine: one try of one request; its result is F_NONE or what failed. */
static void exchange(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, exchange);
    OL_BEGIN(co);
    prepare(c);
    if (!c->fd) {
        c->n = socket_open(co, c);
        if (c->n < 0) OL_RETURN(F_CONNECT);
        OL_AWAIT(c->n, ol_connect(co, c->fd, (struct sockaddr *)&addr, sizeof addr));
        if (c->n < 0) OL_RETURN(c->n == -ETIMEDOUT ? F_TIMEOUT : F_CONNECT);
    }
    OL_AWAIT(c->n, ol_writev(co, c->fd, &c->iov, 1));
    if (c->n < 0) OL_RETURN(kind_of(c->n));
    do {
        while (!has_room(c)) { /* the check is behind: this delay is ours, and reported */
            stalls++;
            OL_AWAIT(c->n, ol_sleep(co, SECOND / 1000));
            if (c->n < 0) OL_RETURN(F_TIMEOUT);
        }
        OL_AWAIT(c->n, ol_read(co, c->fd, seg_data(c->tail) + c->tail->used, c->tail->size - c->tail->used));
        if (c->n < 0) OL_RETURN(kind_of(c->n));
    } while (!take(c));
    OL_RETURN(c->bad);
    OL_END(co);
}

/* A server may close an idle connection just when it is used again: one more try on a new one, as browsers do. */
static int worth_a_retry(struct conn *c) {
    if (c->outcome != F_SHORT || !c->kept || (c->head && c->head->used) || c->retried) return 0;
    c->retried = 1;
    conn_close(c);
    return 1;
}

/* A complete response: its time is known, its body goes to the check. */
static void answer(struct conn *c) {
    answered++;
    last_answer = c->seen;
    c->kept = 1;
    if (c->due >= measure_from) {
        hist_add(&groups[c->group].latency, c->seen - c->due);
        groups[c->group].bytes += c->file->len;
        measured++;
    }
    *check_tail = c->head;
    check_tail = &c->head->response;
    c->head = c->tail = NULL;
    if (!http_should_keep_alive(&c->parser)) conn_close(c);
}

static void request(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, co);
    OL_BEGIN(co);
    if (c->prompt && opt.rate > 0 && c->due >= measure_from) hist_add(&lag, now() - c->due);
    (void)ol_deadline(co, (int64_t)(opt.timeout * 1e9));
    do {
        OL_CALL(c->outcome, &c->exchange, exchange);
    } while (worth_a_retry(c));
    (void)ol_deadline(co, OL_NEVER);
    if (c->outcome == F_NONE) {
        answer(c);
    } else {
        failed[c->outcome]++;
        groups[c->group].failed++;
        conn_close(c);
        OL_DO(ol_sleep(co, SECOND / 100)); /* a server that refuses is not asked in a tight loop */
    }
    OL_END_THEN(co, conn_idle(c));
}

/* Connects before time begins. */
static void open_conn(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, co);
    OL_BEGIN(co);
    (void)ol_deadline(co, (int64_t)(opt.timeout * 1e9));
    c->n = socket_open(co, c);
    if (c->n == 0) OL_AWAIT(c->n, ol_connect(co, c->fd, (struct sockaddr *)&addr, sizeof addr));
    c->kept = c->n >= 0;
    if (c->n < 0) {
        open_error = (int)-c->n;
        conn_close(c);
    }
    c->idle = idle;
    idle = c;
    OL_END_THEN(co, (void)(--opening == 0 && !open_error ? begin() : (void)0));
}

/* ---- report ------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    double q;
} columns[] = {{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p99.9", .999}, {"max", 1}};
enum { COLUMNS = sizeof columns / sizeof *columns };

static void hist_merge(struct hist *to, const struct hist *from) {
    for (size_t i = 0; i < HIST_N; i++) to->slot[i] += from->slot[i];
    to->n += from->n;
    if (from->max > to->max) to->max = from->max;
}

static void table_row(const struct group *g, double seconds) {
    printf("%-10s %9llu %9.1f", g->name, (unsigned long long)g->latency.n, (double)g->latency.n / seconds);
    for (int i = 0; i < COLUMNS; i++) printf(" %9.1f", hist_us(&g->latency, columns[i].q));
    printf(" %8.1f %8llu\n", (double)g->bytes / 1e6 / seconds, (unsigned long long)g->failed);
}

static uint64_t failures(void) {
    uint64_t n = 0;
    for (int i = 0; i < FAILS; i++) n += failed[i];
    return n;
}

static void table(const struct group *all, double seconds) {
    printf("%s:%d, ", opt.host, opt.port);
    if (opt.rate > 0)
        printf("%.0f requests/s %s", opt.rate, opt.poisson ? "at random times (Poisson)" : "evenly spaced");
    else printf("each connection as fast as it is answered");
    printf(" for %.1f s, %d connections, seed %llu\n", opt.time, opt.connections, (unsigned long long)opt.seed);
    printf("latency in microseconds from the %s; MB/s are of documents, uncompressed\n",
           opt.rate > 0 ? "intended send time" : "send time");
    printf("%-10s %9s %9s", "group", "requests", "per s");
    for (int i = 0; i < COLUMNS; i++) printf(" %9s", columns[i].name);
    printf(" %8s %8s\n", "MB/s", "failed");
    for (uint32_t i = 0; i < ngroups; i++) table_row(&groups[i], seconds);
    if (ngroups > 1) table_row(all, seconds);
    printf("bodies: %llu checked, %llu wrong; %llu came as gzip; %.1f MB of documents in %.1f MB of responses\n",
           (unsigned long long)checker.checked, (unsigned long long)checker.wrongs, (unsigned long long)checker.gzips,
           (double)checker.document_bytes / 1e6, (double)checker.wire_bytes / 1e6);
    if (checker.wrongs) printf("first wrong body: %s\n", checker.first);
    for (int i = 0; i < FAILS; i++) {
        if (failed[i]) printf("failed: %llu %s\n", (unsigned long long)failed[i], fail_name[i]);
    }
    printf("this client: sends late by p50 %.1f p99 %.1f max %.1f us, %llu waited for a connection, %llu waits for the "
           "check, loop busy %.0f%%, %llu connections made\n",
           hist_us(&lag, .5), hist_us(&lag, .99), hist_us(&lag, 1), (unsigned long long)queued,
           (unsigned long long)stalls, 100 * loop_cpu, (unsigned long long)connects);
    if (opt.npid) printf("server: process %d used %.0f%% of one core\n", opt.pid[0], 100 * server_cpu);
    printf("%s used %.0f%% of one core meanwhile\n", opt.npid ? "other programs" : "the server and other programs",
           100 * other_cpu);
}

static FILE *open_out(const char *path) {
    FILE *f = strcmp(path, "-") ? fopen(path, "w") : stdout;
    if (!f) die(path, strerror(errno));
    return f;
}

static void close_out(FILE *f, const char *path) {
    if (f == stdout ? fflush(f) : fclose(f)) die(path, strerror(errno));
}

static void tsv_group(FILE *f, const struct group *g, double seconds) {
    const char *const dot = opt.name[0] ? "." : "";
    for (int i = 0; i < COLUMNS; i++) {
        fprintf(f, "%s%s%s.%s\t%.1f\tus\n", opt.name, dot, g->name, columns[i].name,
                hist_us(&g->latency, columns[i].q));
    }
    fprintf(f, "%s%s%s.requests\t%llu\tcount\n", opt.name, dot, g->name, (unsigned long long)g->latency.n);
    fprintf(f, "%s%s%s.rate\t%.1f\t1/s\n", opt.name, dot, g->name, (double)g->latency.n / seconds);
    fprintf(f, "%s%s%s.documents\t%.2f\tMB/s\n", opt.name, dot, g->name, (double)g->bytes / 1e6 / seconds);
    fprintf(f, "%s%s%s.failed\t%llu\tcount\n", opt.name, dot, g->name, (unsigned long long)g->failed);
}

static void tsv(const struct group *all, double seconds) {
    const char *const dot = opt.name[0] ? "." : "";
    FILE *f = open_out(opt.tsv);
    for (uint32_t i = 0; i < ngroups; i++) tsv_group(f, &groups[i], seconds);
    tsv_group(f, all, seconds);
    const struct {
        const char *name, *unit;
        double value;
    } rows[] = {
        {"bodies.checked", "count", (double)checker.checked},
        {"bodies.wrong", "count", (double)checker.wrongs},
        {"bodies.gzip", "count", (double)checker.gzips},
        {"bodies.documents", "MB", (double)checker.document_bytes / 1e6},
        {"bodies.wire", "MB", (double)checker.wire_bytes / 1e6},
        {"client.lag.p50", "us", hist_us(&lag, .5)},
        {"client.lag.p99", "us", hist_us(&lag, .99)},
        {"client.lag.max", "us", hist_us(&lag, 1)},
        {"client.queued", "count", (double)queued},
        {"client.stalls", "count", (double)stalls},
        {"client.busy", "%", 100 * loop_cpu},
        {"server.busy", "%", 100 * server_cpu},
        {"others.busy", "%", 100 * other_cpu},
        {"failed", "count", (double)failures()},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fprintf(f, "%s%s%s\t%.12g\t%s\n", opt.name, dot, rows[i].name, rows[i].value, rows[i].unit);
    }
    close_out(f, opt.tsv);
}

/* Points for a plot: ten for each power of ten of the share that is slower. */
static void curve(void) {
    FILE *f = open_out(opt.curve);
    fprintf(f, "# group\tshare of requests that were slower\tus\n");
    for (uint32_t i = 0; i < ngroups; i++) {
        for (int k = 0; k <= 60; k++) {
            const double slower = pow(10, -k / 10.0);
            if (slower * (double)groups[i].latency.n < 1) break;
            fprintf(f, "%s\t%.3g\t%.1f\n", groups[i].name, slower, hist_us(&groups[i].latency, 1 - slower));
        }
    }
    close_out(f, opt.curve);
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

static const char usage[] =
    "usage: load --port N --root DIR --mix [GROUP=]PATTERN[:WEIGHT] [options]\n"
    "Sends HTTP requests for files at given times, checks every body, and prints latencies counted from the intended\n"
    "send times.\n"
    "  --port N            the server's port; required\n"
    "  --host ADDRESS      its IPv4 address                                       [127.0.0.1]\n"
    "  --root DIR          the directory that it serves, to compare with; required\n"
    "  --mix G=PATTERN:W   requests for a file, the files below a directory, or what a pattern in quotes matches,\n"
    "                      all relative to --root; one of the files at random, with weight W [1]. Groups [PATTERN]\n"
    "                      have percentiles of their own. May be given several times; at least once\n"
    "  --rate R            requests per second at all; 0: each connection as fast as it is answered [1000]\n"
    "  --arrivals KIND     poisson (at random times) or fixed (evenly spaced)     [poisson]\n"
    "  --time S            seconds to measure                                     [5]\n"
    "  --warmup S          seconds before, checked but not measured               [0.5]\n"
    "  --connections N     kept open; requests that find none idle wait, and their time counts [64]\n"
    "  --timeout S         time limit of one request                              [10]\n"
    "  --gzip, --identity  ask for gzip or not                                    [--gzip]\n"
    "  --check KIND        bytes: compare with the file, which is kept in memory; crc: with its length and CRC-32 [bytes]\n"
    "  --cold              keep the files out of the page cache: dropped before the start and after each response\n"
    "  --memory MB         limit for unchecked bodies                  [512 MB and the largest file for each "
    "connection]\n"
    "  --defer             check the bodies after the last answer: nothing disturbs the times; takes more memory\n"
    "  --spin              never sleep: sends are hardly ever late; takes a whole core; implies --defer\n"
    "  --seed N            of arrivals and choices: the same seed asks the same of every server [1]\n"
    "  --pid N[,N...]      the server's process, then others that belong to the test: shows how busy the server and the\n"
    "                      rest of the machine were\n"
    "  --tsv FILE          also write name, value and unit, with tabs between; - is the standard output\n"
    "  --name NAME         what the names in that file begin with\n"
    "  --curve FILE        also write percentiles for a plot\n"
    "  --quiet             no progress\n"
    "  --help              this text\n"
    "exit status: 0 all well; 1 a body was wrong; 3 a request failed; 2 anything else\n";

static double number(const char *option, const char *text, double min, double max) {
    char *end;
    const double v = strtod(text, &end);
    if (end == text || *end || !(v >= min && v <= max)) {
        fprintf(stderr, "load: --%s %s: a number from %g to %g is expected\n", option, text, min, max);
        exit(2);
    }
    return v;
}

static int one_of(const char *option, const char *text, const char *yes, const char *no) {
    if (!strcmp(text, yes)) return 1;
    if (strcmp(text, no) != 0) {
        fprintf(stderr, "load: --%s %s: %s or %s is expected\n", option, text, yes, no);
        exit(2);
    }
    return 0;
}

static void set_pids(const char *option, const char *list) {
    char *copy = (char *)need(strdup(list)), *rest = copy;
    for (char *one; (one = strsep(&rest, ",")) != NULL;) {
        if (opt.npid == sizeof opt.pid / sizeof *opt.pid) die("--pid: at most 8", NULL);
        opt.pid[opt.npid++] = (int)number(option, one, 1, 1e9);
    }
    free(copy);
}

enum {
    O_PORT = 256,
    O_HOST,
    O_ROOT,
    O_MIX,
    O_RATE,
    O_ARRIVALS,
    O_TIME,
    O_WARMUP,
    O_CONNECTIONS,
    O_TIMEOUT,
    O_GZIP,
    O_IDENTITY,
    O_CHECK,
    O_COLD,
    O_MEMORY,
    O_DEFER,
    O_SPIN,
    O_SEED,
    O_PID,
    O_TSV,
    O_NAME,
    O_CURVE,
    O_QUIET,
    O_HELP
};
static const struct option long_options[] = {
    {"port", 1, NULL, O_PORT},
    {"host", 1, NULL, O_HOST},
    {"root", 1, NULL, O_ROOT},
    {"mix", 1, NULL, O_MIX},
    {"rate", 1, NULL, O_RATE},
    {"arrivals", 1, NULL, O_ARRIVALS},
    {"time", 1, NULL, O_TIME},
    {"warmup", 1, NULL, O_WARMUP},
    {"connections", 1, NULL, O_CONNECTIONS},
    {"timeout", 1, NULL, O_TIMEOUT},
    {"gzip", 0, NULL, O_GZIP},
    {"identity", 0, NULL, O_IDENTITY},
    {"check", 1, NULL, O_CHECK},
    {"cold", 0, NULL, O_COLD},
    {"memory", 1, NULL, O_MEMORY},
    {"defer", 0, NULL, O_DEFER},
    {"spin", 0, NULL, O_SPIN},
    {"seed", 1, NULL, O_SEED},
    {"pid", 1, NULL, O_PID},
    {"tsv", 1, NULL, O_TSV},
    {"name", 1, NULL, O_NAME},
    {"curve", 1, NULL, O_CURVE},
    {"quiet", 0, NULL, O_QUIET},
    {"help", 0, NULL, O_HELP},
    {NULL, 0, NULL, 0},
};

static void set_option(int o, const char *option, const char *value) {
    switch (o) {
    case O_PORT: opt.port = (int)number(option, value, 1, 65535); break;
    case O_HOST: opt.host = value; break;
    case O_ROOT: opt.root = value; break;
    case O_RATE: opt.rate = number(option, value, 0, 1e7); break;
    case O_ARRIVALS: opt.poisson = one_of(option, value, "poisson", "fixed"); break;
    case O_TIME: opt.time = number(option, value, 0.01, 1e5); break;
    case O_WARMUP: opt.warmup = number(option, value, 0, 1e5); break;
    case O_CONNECTIONS: opt.connections = (int)number(option, value, 1, 100000); break;
    case O_TIMEOUT: opt.timeout = number(option, value, 0.01, 1e5); break;
    case O_GZIP: opt.gzip = 1; break;
    case O_IDENTITY: opt.gzip = 0; break;
    case O_CHECK: opt.crc_only = one_of(option, value, "crc", "bytes"); break;
    case O_COLD: opt.cold = 1; break;
    case O_MEMORY: opt.memory = number(option, value, 1, 1e6); break;
    case O_DEFER: opt.defer = 1; break;
    case O_SPIN: opt.spin = opt.defer = 1; break;
    case O_SEED: opt.seed = (uint64_t)number(option, value, 0, 9e15); break;
    case O_PID: set_pids(option, value); break;
    case O_TSV: opt.tsv = value; break;
    case O_NAME: opt.name = value; break;
    case O_CURVE: opt.curve = value; break;
    case O_QUIET: opt.quiet = 1; break;
    case O_HELP: fputs(usage, stdout); exit(0);
    case O_MIX: break; /* read when --root is known */
    default: fputs("load: see load --help\n", stderr); exit(2);
    }
}

static void read_options(int argc, char **argv) {
    int o, index = 0;
    opt.host = "127.0.0.1", opt.name = "";
    opt.poisson = opt.gzip = 1;
    opt.rate = 1000, opt.time = 5, opt.warmup = 0.5, opt.timeout = 10, opt.connections = 64, opt.seed = 1;
    while ((o = getopt_long(argc, argv, "", long_options, &index)) != -1)
        set_option(o, long_options[index].name, optarg);
    if (optind < argc) die("unexpected argument; see load --help", argv[optind]);
    if (!opt.port || !opt.root) die("--port and --root are required; see load --help", NULL);
    memset(&addr, 0, sizeof addr);
    addr.sin_family = AF_INET;
    addr.sin_port = htons((uint16_t)opt.port);
    if (inet_pton(AF_INET, opt.host, &addr.sin_addr) != 1) die("--host: an IPv4 address is expected", opt.host);
    char *root = (char *)need(strdup(opt.root));
    for (size_t n = strlen(root); n > 1 && root[n - 1] == '/';) root[--n] = 0;
    opt.root = root;
    optind = 1;
    while ((o = getopt_long(argc, argv, "", long_options, &index)) != -1) {
        if (o == O_MIX) add_mix(optarg);
    }
    if (!nmixes) die("--mix is required: --mix PATTERN asks for files below --root; see load --help", NULL);
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

static void make_loop(ol_backend **pool) {
    ol_threads_desc threads;
    ol_loop_desc desc;
    memset(&threads, 0, sizeof threads);
    memset(&desc, 0, sizeof desc);
    threads.workers = 1;
    threads.spin_ns = -1;
    threads.sched = 1; /* the check takes only what nobody else wants */
    if (ol_threads_create(pool, &threads) != 0) die("can't create the worker", ol_error());
    desc.backends = pool;
    desc.nbackends = 1;
    desc.policy = "call any 0- async threads wait";
    if (ol_loop_create(&loop, &desc) != 0) die("can't create the loop", ol_error());
}

static void make_parsers(void) {
    http_parser_settings_init(&finding);
    finding.on_headers_complete = headers_complete;
    finding.on_message_begin = message_begin;
    finding.on_message_complete = message_complete;
    http_parser_settings_init(&checker.settings);
    checker.settings.on_header_field = check_field;
    checker.settings.on_header_value = check_value;
    checker.settings.on_body = check_body;
    if (inflateInit2(&checker.z, 15 + 16) != Z_OK) die("zlib could not start", checker.z.msg);
}

static void set_limits(void) {
    struct rlimit limit; /* a connection is an fd */
    uint64_t largest = 0;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    for (uint32_t i = 0; i < nfiles; i++) largest = files[i].len > largest ? files[i].len : largest;
    memory_max =
        (uint64_t)opt.connections * (largest + largest / 64 + 2 * BIG_SEG); /* less could block them all half-way */
    if (opt.memory > 0 && opt.memory * 1e6 < (double)memory_max) {
        die("--memory: too little for the largest file on each connection", NULL);
    }
    memory_max = opt.memory > 0 ? (uint64_t)(opt.memory * 1e6) : memory_max + ((uint64_t)512 << 20);
    (void)prctl(PR_SET_TIMERSLACK, 1ul); /* the default of 50 us would make every send late */
}

static void seed(void) {
    rng[0] = opt.seed * 0x9E3779B97F4A7C15u + 1;
    rng[1] = ~opt.seed;
    for (int i = 0; i < 16; i++) (void)draw64(); /* neighbouring seeds soon differ */
}

int main(int argc, char **argv) {
    ol_backend *pool;
    read_options(argc, argv);
    set_limits();
    seed();
    make_parsers();
    make_loop(&pool);
    const uint32_t cold = opt.cold ? evict_all() : 0;
    conns = (struct conn *)need(calloc((size_t)opt.connections, sizeof *conns));
    for (int i = 0; i < opt.connections; i++) {
        opening++;
        if (ol_spawn(loop, &conns[i].co, open_conn, 0, OL_LATENCY) != 0) die("can't start a connection", ol_error());
    }
    int error;
    while ((error = ol_loop_step(loop, opt.spin && deferred() ? 0 : -1)) > 0) {
    }
    if (open_error) {
        fprintf(stderr, "load: can't connect to %s:%d: %s%s\n", opt.host, opt.port, strerror(open_error),
                open_error == ECONNREFUSED ? ": start the server first"
                : open_error == EMFILE     ? ": fewer --connections, or a higher ulimit -n"
                                           : "");
        return 2;
    }
    if (error < 0) die("the loop failed", strerror(-error));
    count_unsent();

    static struct group all;
    const double seconds = (double)(last_answer - measure_from) / 1e9;
    strcpy(all.name, "all");
    for (uint32_t i = 0; i < ngroups; i++) {
        hist_merge(&all.latency, &groups[i].latency);
        all.bytes += groups[i].bytes;
        all.failed += groups[i].failed;
    }
    table(&all, seconds);
    if (opt.cold) printf("cold: %u of %u files were dropped from the page cache before the start\n", cold, nfiles);
    if (opt.tsv) tsv(&all, seconds);
    if (opt.curve) curve();
    for (int i = 0; i < opt.connections; i++) conn_close(&conns[i]);
    (void)ol_loop_destroy(loop);
    (void)ol_threads_destroy(pool);
    return checker.wrongs ? 1 : failures() ? 3 : 0;
}
