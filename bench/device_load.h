/* What the device's benchmark compresses: inputs, sizes, requests, and what the application does for each. */
#ifndef DEVICE_LOAD_H
#define DEVICE_LOAD_H

#include <math.h>

static void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("device: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}
static void must(int ok, const char *what) {
    if (!ok) fail("%s failed: %s (%s)", what, ol_error(), strerror(errno));
}
static void *memory(size_t n) {
    void *p = calloc(1, n);
    if (!p) fail("out of memory");
    return p;
}

/* ---- random numbers and inputs, from fixed seeds ----------------------------------------------------------------- */

struct dice {
    uint64_t state;
};
static uint64_t draw(struct dice *d, uint64_t below) { /* xorshift64* */
    d->state ^= d->state >> 12;
    d->state ^= d->state << 25;
    d->state ^= d->state >> 27;
    return (d->state * UINT64_C(0x2545f4914f6cdd1d) >> 11) % below;
}
static double draw_share(struct dice *d) {
    return ((double)draw(d, UINT64_C(1) << 40) + 0.5) / (double)(UINT64_C(1) << 40);
}

enum { HTML, NUMBERS, INPUTS };
enum { BIGGEST = 1 << 20, INPUT = 2 << 20 }; /* an operation begins somewhere in the first INPUT bytes */
static unsigned char *input[INPUTS];

static const char *draw_word(struct dice *d) { /* the first ones most often */
    static const char *const words[] = {"the",     "of",      "and",     "to",     "in",     "a",      "is",
                                        "news",    "that",    "page",    "with",   "on",     "as",     "today",
                                        "from",    "which",   "people",  "market", "more",   "report", "station",
                                        "weather", "morning", "between", "city",   "season", "under",  "record",
                                        "harbour", "railway", "council", "evening"};
    const uint64_t n = sizeof words / sizeof *words;
    return words[draw(d, draw(d, n) + 1)];
}
static int write_html(struct dice *d, char *at, size_t room) {
    const int n = snprintf(at, room, "<li class=\"%s\"><a href=\"/%s/%d/%s.html\">", draw(d, 4) ? "item" : "item new",
                           draw_word(d), (int)draw(d, 2000), draw_word(d));
    int k = n;
    for (uint64_t words = 6 + draw(d, 20); words && k < (int)room; words--)
        k += snprintf(at + k, room - (size_t)k, "%s%s", draw_word(d), draw(d, 8) ? " " : ", ");
    if (k < (int)room) k += snprintf(at + k, room - (size_t)k, "</a></li>\n");
    return k;
}
static int write_numbers(struct dice *d, char *at, size_t room) { /* columns of a table; two of them wander */
    static int row, level = 50000;
    level += (int)draw(d, 401) - 200;
    return snprintf(at, room, "%d;%d.%02d;%d;%d\n", ++row, level / 100, abs(level % 100), (int)draw(d, 1000),
                    (int)draw(d, 100000));
}
static void inputs_make(void) {
    for (int k = 0; k < INPUTS; k++) {
        enum { ROW = 1024 };
        struct dice d = {UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)k};
        input[k] = (unsigned char *)memory(INPUT + BIGGEST + ROW);
        for (int at = 0; at < INPUT + BIGGEST;) {
            char *p = (char *)input[k] + at;
            at += k == HTML ? write_html(&d, p, ROW) : write_numbers(&d, p, ROW);
        }
    }
}

/* ---- workloads --------------------------------------------------------------------------------------------------- */

struct item { /* what one operation compresses */
    uint32_t at, len;
    double engine_ns; /* that the device under test has for it */
};
enum { ITEMS = 1 << 16, WORKLOADS = 6 };
struct workload {
    const char *name;
    uint32_t items; /* in use; then they come again */
    struct item *item;
    struct {
        double upto, share;
    } row[32];
    int rows;
};
static struct workload workload[WORKLOADS];
enum { CACHE1, FEED1, SNAPPY, ZSTD, KB8, SMALL };
static const char *const workload_names[WORKLOADS] = {"cache1-like", "feed1-like", "hyper-snappy",
                                                      "hyper-zstd",  "8k",         "small-heavy"};

static void workload_read(struct workload *w, const char *dir) {
    char path[1024], line[512];
    snprintf(path, sizeof path, "%s/%s.tsv", dir, w->name);
    FILE *f = fopen(path, "r");
    if (!f) fail("%s: %s; --sizes names the folder that has it", path, strerror(errno));
    for (int n = 1; fgets(line, sizeof line, f); n++) {
        char *end;
        if (line[0] == '#' || line[0] == '\n') continue;
        const double upto = strtod(line, &end), share = *end == '\t' ? strtod(end, &end) : -1;
        const double before = w->rows ? w->row[w->rows - 1].share : 0;
        if (*end != '\n' || upto < 1 || upto > (double)BIGGEST || share < before || share > 1 || w->rows == 32 ||
            (w->rows && upto <= w->row[w->rows - 1].upto))
            fail("%s, line %d: not a row of bytes and cumulative share, both ascending", path, n);
        w->row[w->rows].upto = upto;
        w->row[w->rows++].share = share;
    }
    fclose(f);
    if (!w->rows || w->row[w->rows - 1].share < 1) fail("%s: the last row's share must be 1", path);
}

static uint32_t workload_size(const struct workload *w, double share) {
    int i = 0;
    while (w->row[i].share < share) i++;
    const double above = i ? w->row[i - 1].share : 0;
    const double low = i ? w->row[i - 1].upto : w->row[0].upto / 16 < 16 ? 16 : w->row[0].upto / 16;
    const double size = low * pow(w->row[i].upto / low, (share - above) / (w->row[i].share - above));
    const double whole = ceil(size - 1e-6);
    return whole <= low && i ? (uint32_t)low + 1 : (uint32_t)whole;
}

/* The distribution exactly: one item from each of n equal parts of it, in random order. */
static void workload_draw(struct workload *w, uint64_t n, uint64_t seed) {
    struct dice d = {seed * 0x9e3779b97f4a7c15u + 1};
    w->items = n < ITEMS ? (uint32_t)n : (uint32_t)ITEMS;
    if (!w->item) w->item = (struct item *)memory(ITEMS * sizeof *w->item);
    for (uint32_t i = 0; i < w->items; i++) {
        w->item[i].len = workload_size(w, ((double)i + 0.5) / w->items);
        w->item[i].at = (uint32_t)draw(&d, INPUT / 64) * 64;
    }
    for (uint32_t i = w->items - 1; i; i--) {
        const uint32_t k = (uint32_t)draw(&d, i + 1);
        const struct item t = w->item[i];
        w->item[i] = w->item[k];
        w->item[k] = t;
    }
}
static double engine_ns(const ol_emulated_desc *d, uint32_t len) { /* the emulated device's formula, in offload.h */
    const double exponent = d->exponent > 0 ? d->exponent : 1;
    return (double)d->engine_ns + (d->bytes_per_s > 0 ? pow(len, exponent) * 1e9 / d->bytes_per_s : 0);
}
static void workload_price(struct workload *w, const ol_emulated_desc *d) {
    for (uint32_t i = 0; i < w->items; i++) w->item[i].engine_ns = engine_ns(d, w->item[i].len);
}
static double workload_bytes(const struct workload *w) {
    double sum = 0;
    for (uint32_t i = 0; i < w->items; i++) sum += w->item[i].len;
    return sum / w->items;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* Who makes them, and what has come out. One at a time is measured. */
struct tally {
    const struct workload *w;
    const unsigned char *input;
    int level;
    uint64_t next;              /* item */
    uint64_t done, first, last; /* requests: done; measured are those after `first` up to `last` */
    int stop;
    int64_t begin, end; /* when the first and the last of those were done */
    int64_t begin_idle, end_idle;
    double engine_ns; /* of those measured */
    uint64_t offloaded, modes[6];
    uint32_t *took; /* ns, of each that was measured */
    uint64_t sum;   /* of checksums, so that they are made */
};

struct request {
    ol_co co;
    ol_op op;
    struct tally *tally;
    const struct item *item;
    unsigned char *out;
    int64_t begin, n;
    unsigned char head[64];
};

enum { OUT = BIGGEST + BIGGEST / 8 + 4096 };
static uint64_t checked, wrong; /* results that were decompressed and compared with their input */
enum { CHECK_EACH = 256 };

static void request_check(const struct request *r) {
    static ol_exec *exec;
    static unsigned char *back;
    ol_op op;
    clock_stop();
    if (!exec && (!(exec = ol_exec_create()) || !(back = (unsigned char *)malloc(BIGGEST)))) fail("out of memory");
    ol_prep_inflate(&op, OL_GZIP, back, BIGGEST, r->out, (uint64_t)r->n);
    const int64_t n = ol_op_exec(exec, &op);
    checked++;
    if (n != r->item->len || memcmp(back, r->tally->input + r->item->at, r->item->len) != 0) wrong++;
    clock_go();
}

/* The application's work for each request: its clock, a header, and a checksum over the result's first bytes. */
static inline void request_begin(struct request *r) {
    struct tally *t = r->tally;
    r->item = &t->w->item[t->next++ % t->w->items];
    r->begin = clock_now();
    memset(r->head, 0, sizeof r->head);
    memcpy(r->head, &r->item->len, sizeof r->item->len);
    memcpy(r->head + 8, &r->begin, sizeof r->begin);
    ol_prep_deflate(&r->op, OL_GZIP, r->out, OUT, t->input + r->item->at, r->item->len);
    r->op.level = (uint8_t)t->level;
}
static inline void request_end(struct request *r) {
    struct tally *t = r->tally;
    if (r->n <= 0) fail("an operation failed: %s", ol_op_error(&r->op));
    t->sum += crc32_gzip_refl(0, r->out, r->n < 64 ? (uint64_t)r->n : 64) + r->head[0];
    const uint64_t n = ++t->done;
    if (n <= t->first || n > t->last) return;
    const int64_t took = clock_now() - r->begin;
    t->took[n - t->first - 1] = took < 0 ? 0 : took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    t->engine_ns += r->item->engine_ns;
    t->offloaded += r->op.where != 0;
    t->modes[r->op.mode]++;
}
/* What the measurement adds, with the clock stopped where it takes time. */
static inline void request_count(struct request *r) {
    struct tally *t = r->tally;
    if (t->done % CHECK_EACH == 0) request_check(r);
    if (t->done != t->first && t->done < t->last) return;
    if (t->done == t->first) {
        t->begin = clock_now();
        t->begin_idle = cores[core_at].idle;
    } else if (t->done == t->last) {
        t->end = clock_now();
        t->end_idle = cores[core_at].idle;
    }
    t->stop = t->done >= t->last;
}

#endif
