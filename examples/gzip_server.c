/* gzip_server.c - static files over HTTP/1.1, compressed on the fly without making anyone wait

   cc -O2 -I. examples/gzip_server.c -o build/examples/gzip_server -pthread -lisal -lhttp_parser

   (Debian: apt-get install libisal-dev libhttp-parser-dev.) Then `build/examples/gzip_server --help`.

   HOW IT IS MADE
     One loop for each core, each with a listening socket of its own on the same port; one coroutine for each
     connection:

       serve ── read_request                           bytes to struct request, or the status that refuses it
            └── respond ── find_file                   open and stat, through the pool when the cache has no answer
                       └── send_status, send_at_once   one of these
                           or send_stream
            └── say_goodbye                            lets the client read our last words before the close

     An idle connection holds a struct conn and nothing else. A request under way takes a struct request, and a body
     under way a struct transfer (about 180 KB) from the loop's stock.

     A file above 8 KB is read, compressed and sent chunk by chunk, so that its size doesn't matter. Each chunk is an
     operation; the policy decides where it runs. While a worker compresses, the loop serves others. The workers run at
     SCHED_IDLE: they take what the loops leave over of all cores and never delay a loop that has something to do.

     --inline compresses on the loop instead, as a server without a pool would: for comparison. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define OFFLOAD_IMPLEMENTATION
#define OFFLOAD_ISAL
#include "offload.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <getopt.h>
#include <http_parser.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/resource.h>

enum {
    LINE_BYTES = 8192,       /* a longer request line is refused with 414 */
    HEAD_BYTES = 16384,      /* a longer head with 431 */
    SMALL_BYTES = 8192,      /* files up to this size are compressed in one operation: their length is known first */
    DICT_BYTES = 32768,      /* what deflate can refer back to */
    GOODBYE_BYTES = 1 << 18, /* read and thrown away before a close */
    LOG_BYTES = 32768,       /* the log's buffer in each loop */
    LOG_LINE_BYTES = 1536,   /* longest line in it */
    STOCK_REQUESTS = 64,     /* free requests and transfers that a loop keeps; the rest goes back to malloc */
    STOCK_TRANSFERS = 32
};
static const int64_t second = 1000000000;

/* ---------------------------------------------------------------------------------------------------------------- */
/* what the program keeps                                                                                           */

enum mode { OFFLOADED, INLINE_CHUNKS, INLINE_WHOLE };

/* Options that are numbers; times are in seconds. */
enum { PORT, LOOPS, WORKERS, LEVEL, CHUNK_KIB, IDLE_TIMEOUT, HEADER_TIMEOUT, WRITE_TIMEOUT, GRACE, NUMBERS };
struct number {
    const char *name;
    long min, max, initial; /* initial 0 of loops and workers: by the CPUs */
};
static const struct number numbers[NUMBERS] = {{"port", 0, 65535, 0},
                                               {"loops", 1, 256, 0},
                                               {"workers", 1, 64, 0},
                                               {"level", 0, 3, 0},
                                               {"chunk", 32, 1024, 64},
                                               {"idle-timeout", 1, 86400, 60},
                                               {"header-timeout", 1, 86400, 10},
                                               {"write-timeout", 1, 86400, 30},
                                               {"grace", 1, 86400, 10}};

struct config {
    const char *directory, *address, *policy_file, *log_file;
    long number[NUMBERS];
    enum mode mode;
    size_t chunk;
    int root;   /* the directory's fd; every name is opened beneath it */
    int log_fd; /* -1: no log */
    ol_backend *pool;
    ol_policy policy; /* valid if policy_file */
};

struct span {
    const char *p;
    size_t n;
};

/* Free blocks of one size. Last in, first out: the block that is taken is the one that the cache still knows. */
struct stock {
    void *first;
    size_t size;
    uint32_t n, max;
};

/* Buffers of a body under way. `in` has room for the dictionary in front of a chunk. */
struct transfer {
    void *stock_next;
    ol_stream stream;
    struct iovec iov[4];
    int niov;
    char frame[24]; /* the chunk's size line */
    char *in, *out;
    size_t out_cap;
};

enum { CODING_GZIP, CODING_IDENTITY, CODING_ANY, CODINGS };

/* A request under way, its answer included. */
struct request {
    void *stock_next;

    /* input: in[pos..have) is not used up yet, in[pos..scanned) was looked at */
    size_t pos, scanned, have;
    size_t line_end, head_end; /* offsets behind the request line and behind the head; 0: not yet seen */

    /* what the head says; spans point into `in` */
    struct span line, target, query, field, if_none_match, if_modified_since;
    int hosts, host_bad, transfer_codings, chunked, head_only, minor, keep_alive;
    uint64_t body;
    int accept_encoding, q[CODINGS]; /* weights in thousandths, -1 not mentioned */

    /* the answer */
    int status, file, gzip, identity_ok, begun; /* begun: some of it may have been sent */
    const char *type, *where, *why;
    struct stat st;
    int64_t offset, len, sent, want; /* place in the file, chunk under way, body sent, body in the next write */
    char *body_in, *body_out, *whole_in, *whole_out; /* whole_: if they are malloc's */
    size_t body_cap;
    struct transfer *transfer;
    ol_op op;
    size_t out_len;
    char path[LINE_BYTES + 16];
    char out[LINE_BYTES + 1024]; /* head of the answer; a redirection repeats the target in it */
    char in[HEAD_BYTES];
};

struct server;

/* A connection. */
struct conn {
    ol_co co;
    ol_frame sub, leaf; /* frames of the calls one and two levels deep */
    struct server *server;
    struct conn *prev, *next;
    struct request *req; /* NULL while it is idle */
    ol_fd fd;
    int64_t n; /* result of the last await */
    uint32_t peer;
    int idle, linger;
};

/* One loop with all that belongs to it. */
struct server {
    const struct config *config;
    ol_loop *loop;
    ol_exec *exec; /* codec for --inline */
    ol_fd listener;
    ol_co acceptor;
    int64_t accepted;
    struct conn *conns;
    struct stock requests, transfers;
    ol_post_node stop, reload, table, dump;
    ol_timer grace, log_timer;
    int accepting, stopping;
    int64_t warned; /* when stderr last got a warning */
    time_t date_time;
    char date[32];
    size_t log_len;
    char log[LOG_BYTES];
    pthread_t thread;
    int result;
};

/* For the signal handler. */
static struct server *g_servers;
static int g_nservers;

/* The table that SIGHUP has brought, for the loops to take over. */
static pthread_mutex_t g_policy_lock = PTHREAD_MUTEX_INITIALIZER;
static ol_policy g_policy;

static void *stock_take(struct stock *s) {
    void *p = s->first;
    if (!p) return malloc(s->size);
    memcpy(&s->first, p, sizeof s->first);
    s->n--;
    return p;
}

static void stock_give(struct stock *s, void *p) {
    if (s->n == s->max) {
        free(p);
        return;
    }
    memcpy(p, &s->first, sizeof s->first);
    s->first = p;
    s->n++;
}

static void stock_empty(struct stock *s) {
    s->max = 0;
    while (s->n) {
        void *p = stock_take(s);
        free(p);
    }
}

static struct request *request_take(struct server *s) {
    struct request *r = (struct request *)stock_take(&s->requests);
    if (!r) return NULL;
    memset(r, 0, offsetof(struct request, op)); /* the buffers at the end don't need it */
    r->file = -1;
    return r;
}

/* Forgets the request that was answered and keeps the bytes behind it. */
static void request_next(struct request *r) {
    const size_t end = r->head_end ? r->head_end : r->have, have = r->have;
    memset(r, 0, offsetof(struct request, op));
    r->file = -1;
    r->pos = r->scanned = end;
    r->have = have;
}

static struct transfer *transfer_take(struct server *s) {
    struct transfer *t = (struct transfer *)stock_take(&s->transfers);
    if (!t) return NULL;
    memset(t, 0, sizeof *t);
    t->in = (char *)(t + 1);
    t->out = t->in + DICT_BYTES + s->config->chunk;
    t->out_cap = (size_t)ol_deflate_bound(s->config->chunk);
    return t;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* log and warnings                                                                                                 */

static void log_flush(struct server *s) {
    size_t done = 0;
    while (done < s->log_len) {
        const ssize_t n = write(s->config->log_fd, s->log + done, s->log_len - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break; /* a full disk must not stop the service: the lines are lost */
        done += (size_t)n;
    }
    s->log_len = 0;
}

static void on_log_timer(ol_loop *loop, ol_timer *timer) {
    (void)loop;
    log_flush(OL_CONTAINER(timer, struct server, log_timer));
}

/* The request line is the client's text: what could end the quotes is written as in a URL. */
static int log_quote(char *to, size_t cap, struct span line) {
    size_t n = 0;
    for (size_t i = 0; i < line.n && n + 4 < cap; i++) {
        const char ch = line.p[i];
        if (ch == '"' || ch == '\\') n += (size_t)snprintf(to + n, 4, "%%%02X", (unsigned)ch);
        else to[n++] = ch;
    }
    return (int)n;
}

/* One line for each response: who, what, status, bytes of body sent, coding, where it was compressed, why there. */
static void log_response(struct conn *c) {
    struct server *s = c->server;
    const struct request *r = c->req;
    char line[LOG_LINE_BYTES - 256], peer[INET_ADDRSTRLEN] = "-";
    if (s->config->log_fd < 0) return;
    inet_ntop(AF_INET, &c->peer, peer, sizeof peer);
    const int quoted = r->line.n ? log_quote(line, sizeof line, r->line) : snprintf(line, sizeof line, "-");
    if (s->log_len > sizeof s->log - LOG_LINE_BYTES) log_flush(s);
    s->log_len += (size_t)snprintf(s->log + s->log_len, LOG_LINE_BYTES, "%s \"%.*s\" %d %lld %s %s %s%s\n", peer,
                                   quoted, line, r->status, (long long)r->sent, r->gzip ? "gzip" : "identity",
                                   r->where ? r->where : "-", r->why ? r->why : "-", c->n < 0 ? " broken" : "");
    if (!s->log_timer.index) (void)ol_timer_start(s->loop, &s->log_timer, second / 5, on_log_timer);
}

/* What goes on failing is said every ten seconds, not each time. Also the library's log. */
static void warn(void *user, int level, const char *text) {
    struct server *s = (struct server *)user;
    const int64_t now = s->loop ? ol_now(s->loop) : 0;
    if (s->warned && now - s->warned < 10 * second) return;
    s->warned = now;
    fprintf(stderr, "gzip_server: %s: %s\n", level ? "warning" : "error", text);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* the request's head                                                                                               */

static int is_token(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)p[i]) && (!p[i] || !strchr("!#$%&'*+-.^_`|~", p[i]))) return 0;
    return n > 0;
}

static struct span trim(const char *p, size_t n) {
    struct span s;
    while (n && (*p == ' ' || *p == '\t')) p++, n--;
    while (n && (p[n - 1] == ' ' || p[n - 1] == '\t')) n--;
    s.p = p;
    s.n = n;
    return s;
}

static int span_is(struct span s, const char *text) { return s.n == strlen(text) && strncasecmp(s.p, text, s.n) == 0; }

/* Looks at the bytes that came since the last call. 0: more are needed; 200: the head is complete; else the status that
   refuses it. libhttp-parser as distributions build it is lenient: it takes a bare LF, folded lines, blanks in a
   field's name, two blanks in the request line. What framing depends on is therefore checked here and below
   (RFC 9112, sections 2.2, 3 and 5.1). */
static int scan_head(struct request *r) {
    while (r->have - r->pos >= 2 && memcmp(r->in + r->pos, "\r\n", 2) == 0) r->pos += 2; /* left by older clients */
    if (r->scanned < r->pos) r->scanned = r->pos;
    for (; r->scanned < r->have; r->scanned++) {
        const char *p = r->in + r->scanned;
        const int after_cr = r->scanned > r->pos && p[-1] == '\r';
        if ((*p == '\n') != after_cr) return 400;
        if (((unsigned char)*p < ' ' && !strchr("\t\r\n", *p)) || !*p || *p == 0x7f) return 400;
        if (*p != '\n') continue;
        if (!r->line_end) r->line_end = r->scanned - 1;
        if (r->scanned - r->pos < 3 || memcmp(p - 3, "\r\n\r\n", 4) != 0) continue;
        r->head_end = ++r->scanned;
        break;
    }
    if ((r->line_end ? r->line_end : r->have) - r->pos > LINE_BYTES) return 414;
    if (r->head_end) return 200;
    return r->have - r->pos == HEAD_BYTES ? 431 : 0;
}

/* method SP target SP HTTP/digit.digit, nothing more and nothing less */
static int check_line(struct request *r) {
    const char *p = r->in + r->pos, *end = r->in + r->line_end;
    const char *a = (const char *)memchr(p, ' ', (size_t)(end - p));
    const char *b = a ? (const char *)memchr(a + 1, ' ', (size_t)(end - a - 1)) : NULL;
    if (!b || b == a + 1 || end - b != 9 || memcmp(b + 1, "HTTP/", 5) != 0) return 400;
    if (!isdigit((unsigned char)b[6]) || b[7] != '.' || !isdigit((unsigned char)b[8])) return 400;
    if (!is_token(p, (size_t)(a - p))) return 400;
    for (const char *q = a + 1; q < b; q++)
        if (!isgraph((unsigned char)*q)) return 400;
    r->line.p = p;
    r->line.n = (size_t)(end - p);
    r->target.p = a + 1;
    r->target.n = (size_t)(b - a - 1);
    r->minor = b[8] - '0';
    return b[6] == '1' ? 200 : 505;
}

/* name ":" value; a folded line begins with a blank, which no name may contain */
static int check_fields(const struct request *r) {
    const char *p = r->in + r->line_end + 2, *end = r->in + r->head_end - 2;
    while (p < end) {
        const char *cr = (const char *)memchr(p, '\r', (size_t)(end - p));
        const char *colon = (const char *)memchr(p, ':', (size_t)(cr - p));
        if (!colon || !is_token(p, (size_t)(colon - p))) return 400;
        p = cr + 2;
    }
    return 200;
}

/* "q=0.5" in thousandths; -1 malformed */
static int parse_weight(struct span s) {
    int q = 0, scale = 1000;
    if (s.n < 3 || s.n > 7 || strncasecmp(s.p, "q=", 2) != 0 || s.p[2] < '0' || s.p[2] > '1') return -1;
    q = (s.p[2] - '0') * scale;
    if (s.n > 3 && s.p[3] != '.') return -1;
    for (size_t i = 4; i < s.n; i++) {
        if (!isdigit((unsigned char)s.p[i])) return -1;
        scale /= 10;
        q += (s.p[i] - '0') * scale;
    }
    return q > 1000 ? -1 : q;
}

/* RFC 9110, section 12.5.3: a list of codings, each with an optional weight. Malformed members are passed over. */
static void parse_accept_encoding(struct request *r, struct span value) {
    const char *p = value.p, *end = p + value.n;
    r->accept_encoding = 1;
    while (p < end) {
        const char *comma = (const char *)memchr(p, ',', (size_t)(end - p));
        if (!comma) comma = end;
        const char *semicolon = (const char *)memchr(p, ';', (size_t)(comma - p));
        const struct span name = trim(p, (size_t)((semicolon ? semicolon : comma) - p));
        const int q = semicolon ? parse_weight(trim(semicolon + 1, (size_t)(comma - semicolon - 1))) : 1000;
        if (q >= 0 && (span_is(name, "gzip") || span_is(name, "x-gzip"))) r->q[CODING_GZIP] = q;
        else if (q >= 0 && span_is(name, "identity")) r->q[CODING_IDENTITY] = q;
        else if (q >= 0 && span_is(name, "*")) r->q[CODING_ANY] = q;
        p = comma + 1;
    }
}

/* uri-host [":" port]; only its form matters here: this server has one site */
static int host_ok(struct span host) {
    for (size_t i = 0; i < host.n; i++)
        if (!isalnum((unsigned char)host.p[i]) && !strchr("-._~%!$&'()*+,;=:[]", host.p[i])) return 0;
    return 1;
}

static int on_field(http_parser *parser, const char *at, size_t n) {
    struct request *r = (struct request *)parser->data;
    r->field.p = at;
    r->field.n = n;
    return 0;
}

static int on_value(http_parser *parser, const char *at, size_t n) {
    struct request *r = (struct request *)parser->data;
    const struct span value = trim(at, n);
    if (span_is(r->field, "host")) {
        r->hosts++;
        r->host_bad |= !host_ok(value);
    } else if (span_is(r->field, "transfer-encoding")) {
        r->transfer_codings++;
        r->chunked = span_is(value, "chunked");
    } else if (span_is(r->field, "accept-encoding")) {
        parse_accept_encoding(r, value);
    } else if (span_is(r->field, "if-none-match")) {
        r->if_none_match = value;
    } else if (span_is(r->field, "if-modified-since")) {
        r->if_modified_since = value;
    }
    return 0;
}

static int on_headers_complete(http_parser *parser) {
    struct request *r = (struct request *)parser->data;
    r->keep_alive = http_should_keep_alive(parser);
    r->body = parser->content_length == UINT64_MAX ? 0 : parser->content_length;
    return 1; /* no body: one that is announced is refused */
}

static int hex_digit(char ch) {
    if (ch >= '0' && ch <= '9') return ch - '0';
    ch = (char)(ch | 0x20);
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* Splits absolute-form (RFC 9112, section 3.2.2) down to the path, and the query off. */
static int split_target(struct request *r) {
    struct span t = r->target;
    if (t.n > 7 && strncasecmp(t.p, "http://", 7) == 0) {
        size_t n = 7;
        while (n < t.n && t.p[n] != '/' && t.p[n] != '?') n++;
        if (n == 7 || memchr(t.p, '@', n)) return 400;
        t.p += n;
        t.n -= n;
    } else if (t.p[0] != '/') {
        return 400;
    }
    if (memchr(t.p, '#', t.n)) return 400;
    const char *mark = (const char *)memchr(t.p, '?', t.n);
    r->query.p = mark ? mark : t.p + t.n;
    r->query.n = (size_t)(t.p + t.n - r->query.p);
    r->target.p = t.p;
    r->target.n = t.n - r->query.n;
    return 200;
}

/* The target's path as a name relative to the root. A slash or NUL in disguise and ".." are refused here. Symbolic
   links that leave the root are refused by the kernel (OL_BENEATH), which is the second line against "..", too. */
static int decode_path(struct request *r) {
    size_t n = 0, start = 0;
    for (size_t i = 0; i < r->target.n; i++) {
        char ch = r->target.p[i];
        if (ch == '%') {
            if (r->target.n - i < 3) return 400;
            const int hi = hex_digit(r->target.p[i + 1]), lo = hex_digit(r->target.p[i + 2]);
            if (hi < 0 || lo < 0) return 400;
            ch = (char)(hi << 4 | lo);
            i += 2;
            if (ch == '/' || ch == '\0') return 400;
        }
        if (ch == '/' && n == 0) continue;
        r->path[n++] = ch;
    }
    if (n == 0 || r->path[n - 1] == '/') n += (size_t)snprintf(r->path + n, sizeof r->path - n, "index.html");
    r->path[n] = '\0';
    for (size_t i = 0; i <= n; i++) {
        if (i < n && r->path[i] != '/') continue;
        if (i - start == 2 && memcmp(r->path + start, "..", 2) == 0) return 400;
        start = i + 1;
    }
    return 200;
}

/* A complete head: 200, or the status that refuses it. */
static int parse_head(struct request *r) {
    static const http_parser_settings settings = {NULL, NULL, NULL, on_field, on_value, on_headers_complete,
                                                  NULL, NULL, NULL, NULL};
    http_parser parser;
    int status = check_line(r);
    if (status == 200) status = check_fields(r);
    if (status != 200) return status;
    r->q[CODING_GZIP] = r->q[CODING_IDENTITY] = r->q[CODING_ANY] = -1;
    http_parser_init(&parser, HTTP_REQUEST);
    parser.data = r;
    (void)http_parser_execute(&parser, &settings, r->in + r->pos, r->head_end - r->pos);
    if (HTTP_PARSER_ERRNO(&parser) == HPE_INVALID_METHOD) return 501;
    if (HTTP_PARSER_ERRNO(&parser) != HPE_OK) return 400;
    if (r->hosts > 1 || (r->minor > 0 && !r->hosts) || r->host_bad) return 400;
    if (parser.method != HTTP_GET && parser.method != HTTP_HEAD) return 405;
    r->head_only = parser.method == HTTP_HEAD;
    if (r->transfer_codings) return r->minor == 0 ? 400 : r->chunked && r->transfer_codings == 1 ? 413 : 501;
    if (r->body) return 413; /* a body has no meaning in GET and HEAD (RFC 9110, section 9.3.1) */
    status = split_target(r);
    return status == 200 ? decode_path(r) : status;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* what to answer                                                                                                   */

struct type {
    const char *extension, *type;
    int compress;
};
/* clang-format off */
static const struct type types[] = {
    {"html", "text/html", 1},          {"htm", "text/html", 1},          {"css", "text/css", 1},
    {"js", "text/javascript", 1},      {"mjs", "text/javascript", 1},    {"json", "application/json", 1},
    {"map", "application/json", 1},    {"txt", "text/plain", 1},         {"md", "text/markdown", 1},
    {"csv", "text/csv", 1},            {"tsv", "text/tab-separated-values", 1},
    {"log", "text/plain", 1},          {"c", "text/plain", 1},           {"h", "text/plain", 1},
    {"xml", "application/xml", 1},     {"svg", "image/svg+xml", 1},      {"wasm", "application/wasm", 1},
    {"rst", "text/plain", 1},          {"yaml", "application/yaml", 1},  {"bmp", "image/bmp", 1},
    {"ttf", "font/ttf", 1},            {"otf", "font/otf", 1},           {"ico", "image/vnd.microsoft.icon", 1},
    {"tar", "application/x-tar", 1},   {"pdf", "application/pdf", 0},    {"woff", "font/woff", 0},
    {"woff2", "font/woff2", 0},        {"png", "image/png", 0},          {"jpg", "image/jpeg", 0},
    {"jpeg", "image/jpeg", 0},         {"gif", "image/gif", 0},          {"webp", "image/webp", 0},
    {"avif", "image/avif", 0},         {"mp3", "audio/mpeg", 0},         {"mp4", "video/mp4", 0},
    {"webm", "video/webm", 0},         {"gz", "application/gzip", 0},    {"zip", "application/zip", 0},
    {"xz", "application/x-xz", 0},     {"zst", "application/zstd", 0},   {"bz2", "application/x-bzip2", 0}};
/* clang-format on */
static const struct type type_unknown = {"", "application/octet-stream", 0};

static const struct type *type_of(const char *path) {
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
    if (dot)
        for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
            if (strcasecmp(dot + 1, types[i].extension) == 0) return &types[i];
    return &type_unknown;
}

/* Coding by weight. Without Accept-Encoding nothing is coded; identity that isn't mentioned is acceptable (unless
   "*;q=0" says no) but comes last. */
static int choose_coding(struct request *r) {
    const struct type *type = type_of(r->path);
    const int any = r->q[CODING_ANY];
    int gzip = r->q[CODING_GZIP], identity = r->q[CODING_IDENTITY];
    if (gzip < 0) gzip = any < 0 ? 0 : any;
    if (identity < 0) identity = any < 0 ? 1 : any;
    r->type = type->type;
    r->identity_ok = identity > 0;
    r->gzip = r->accept_encoding && gzip > 0 && (identity == 0 || (type->compress && gzip >= identity));
    return r->gzip || r->identity_ok ? 200 : 406;
}

/* Weak, so that it holds for both codings. */
static int make_etag(const struct request *r, char *to, size_t cap) {
    return snprintf(to, cap, "W/\"%llx-%llx-%llx\"", (unsigned long long)r->st.st_mtim.tv_sec,
                    (unsigned long long)r->st.st_mtim.tv_nsec, (unsigned long long)r->st.st_size);
}

static void http_date(time_t when, char *to, size_t cap) {
    struct tm tm;
    gmtime_r(&when, &tm);
    (void)strftime(to, cap, "%a, %d %b %Y %H:%M:%S GMT", &tm);
}

/* RFC 9110, section 13.1. If-Modified-Since is compared as text: clients send back what they got. */
static int not_modified(const struct request *r) {
    char tag[72], date[40];
    if (r->if_none_match.n) {
        const int n = make_etag(r, tag, sizeof tag);
        if (span_is(r->if_none_match, "*")) return 1;
        return memmem(r->if_none_match.p, r->if_none_match.n, tag + 2, (size_t)n - 2) != NULL; /* W/ doesn't count */
    }
    http_date(r->st.st_mtim.tv_sec, date, sizeof date);
    return span_is(r->if_modified_since, date);
}

/* The status for a file that can't be opened or read. */
static int status_of(struct conn *c, int64_t error) {
    switch (error) {
    case -ENOENT:
    case -ENOTDIR:
    case -ENAMETOOLONG:
    case -ELOOP:
    case -ENXIO:             /* a socket */
    case -EXDEV: return 404; /* leaves the root: whether there is something outside is nobody's business */
    case -EACCES:
    case -EPERM: return 403;
    case -EMFILE:
    case -ENFILE: warn(c->server, 1, "no free fd for a file: raise ulimit -n, or lower --idle-timeout"); return 503;
    case -ENOMEM: return 503;
    case -ECANCELED: return 503; /* we stop; nothing will be sent */
    default: warn(c->server, 0, ol_co_error(&c->co)); return 500;
    }
}

__attribute__((format(printf, 2, 3))) static void put(struct request *r, const char *format, ...) {
    const size_t room = sizeof r->out - r->out_len;
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(r->out + r->out_len, room, format, args);
    va_end(args);
    if (n > 0) r->out_len += (size_t)n < room ? (size_t)n : room - 1;
}

static const char *date_now(struct server *s) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec != s->date_time) http_date(s->date_time = now.tv_sec, s->date, sizeof s->date);
    return s->date;
}

/* The target with a slash behind. One slash in front, for two would name another host. */
static void put_location(struct request *r) {
    struct span path = r->target;
    while (path.n > 1 && path.p[1] == '/') path.p++, path.n--;
    put(r, "Location: %.*s/%.*s\r\n", (int)path.n, path.p, (int)r->query.n, r->query.p);
}

/* Writes the answer's head to r->out. length -1: not known before the body is sent. */
static void make_head(struct conn *c, int64_t length) {
    struct request *r = c->req;
    char tag[72], modified[40];
    if (c->server->stopping || (length < 0 && r->minor == 0)) r->keep_alive = 0; /* HTTP/1.0: the close is the end */
    r->out_len = 0;
    put(r, "HTTP/1.1 %d %s\r\nDate: %s\r\n", r->status, http_status_str((enum http_status)r->status),
        date_now(c->server));
    if (r->status == 200 || r->status == 304) {
        make_etag(r, tag, sizeof tag);
        http_date(r->st.st_mtim.tv_sec, modified, sizeof modified);
        put(r, "Vary: Accept-Encoding\r\nETag: %s\r\nLast-Modified: %s\r\n", tag, modified);
    }
    if (r->status == 405 || r->status == 501) put(r, "Allow: GET, HEAD\r\n");
    if (r->status == 301) put_location(r);
    if (r->status != 304) put(r, "Content-Type: %s\r\n", r->status == 200 ? r->type : "text/plain");
    if (r->gzip) put(r, "Content-Encoding: gzip\r\n");
    if (length >= 0 && r->status != 304) put(r, "Content-Length: %lld\r\n", (long long)length);
    if (length < 0 && r->minor > 0) put(r, "Transfer-Encoding: chunked\r\n");
    if (!r->keep_alive) put(r, "Connection: close\r\n");
    else if (r->minor == 0) put(r, "Connection: keep-alive\r\n");
    put(r, "\r\n");
}

/* Puts [head,] [size line,] data [, end] into the transfer's iovecs. With chunks n is never 0: that means the end. */
static void frame(struct request *r, const char *data, size_t n, int chunked, int last) {
    struct transfer *t = r->transfer;
    int i = 0;
    if (r->out_len) t->iov[i].iov_base = r->out, t->iov[i++].iov_len = r->out_len;
    if (chunked) {
        t->iov[i].iov_base = t->frame;
        t->iov[i++].iov_len = (size_t)snprintf(t->frame, sizeof t->frame, "%zx\r\n", n);
    }
    if (n) t->iov[i].iov_base = (void *)(uintptr_t)data, t->iov[i++].iov_len = n;
    if (chunked) {
        t->iov[i].iov_base = (void *)(uintptr_t)(last ? "\r\n0\r\n\r\n" : "\r\n");
        t->iov[i++].iov_len = last ? 7 : 2;
    }
    r->out_len = 0;
    r->want = (int64_t)n;
    r->begun = 1;
    t->niov = i;
}

/* Remembers for the log where compression ran. */
static void note_where(struct conn *c) {
    struct request *r = c->req;
    const int offloaded = c->server->config->mode == OFFLOADED;
    const char *where = offloaded ? ol_op_where(c->server->loop, &r->op) : "loop";
    const char *why = offloaded ? ol_op_why(&r->op) : "inline";
    r->where = !r->where || strcmp(r->where, where) == 0 ? where : "mixed";
    r->why = !r->why || strcmp(r->why, why) == 0 ? why : "mixed";
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* the coroutines                                                                                                   */

static int bytes_waiting(struct conn *c) {
    char byte;
    return recv(ol_fd_raw(c->server->loop, c->fd), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void write_deadline(struct conn *c) {
    (void)ol_deadline(&c->co, c->server->config->number[WRITE_TIMEOUT] * second);
}

/* Makes room for more of a head: moves what is there to the front of the buffer. */
static void make_room(struct request *r) {
    const size_t shift = r->pos;
    if (!shift) return;
    memmove(r->in, r->in + shift, r->have - shift);
    r->have -= shift;
    r->scanned -= shift;
    r->pos = 0;
    if (r->line_end) r->line_end -= shift;
}

/* Waits for a request and reads its head. Result: 0 with req->status set, or negative: there is nothing to answer. */
static void read_request(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, sub);
    const struct config *config = c->server->config;
    OL_BEGIN(co);
    if (!c->req) {
        if (c->server->stopping && !bytes_waiting(c)) OL_RETURN(-ECANCELED);
        (void)ol_deadline(co, config->number[IDLE_TIMEOUT] * second);
        c->idle = 1;
        OL_AWAIT(c->n, ol_wait_readable(co, c->fd));
        c->idle = 0;
        if ((c->n == -ETIMEDOUT || (c->n == -ECANCELED && c->server->stopping == 1)) && bytes_waiting(c)) {
            ol_cancel_clear(co); /* we stop, or were stopped, but this request was here before: it gets its answer */
            c->n = 0;
        }
        if (c->n < 0) OL_RETURN(c->n);
        c->req = request_take(c->server);
        if (!c->req) OL_RETURN(-ENOMEM);
    }
    (void)ol_deadline(co, config->number[HEADER_TIMEOUT] * second); /* for the whole head: drop by drop doesn't help */
    while ((c->req->status = scan_head(c->req)) == 0) {
        make_room(c->req);
        OL_AWAIT(c->n, ol_read(co, c->fd, c->req->in + c->req->have, sizeof c->req->in - c->req->have));
        if (c->n == -ETIMEDOUT && c->req->have) {
            c->req->status = 408;
            break;
        }
        if (c->n <= 0) OL_RETURN(c->n ? c->n : -ECONNRESET);
        c->req->have += (size_t)c->n;
    }
    (void)ol_deadline(co, OL_NEVER);
    if (c->req->status == 200) c->req->status = parse_head(c->req);
    if (c->req->status != 200) c->req->keep_alive = 0; /* where the next request begins can't be known */
    OL_END(co);
}

/* Opens the file, or sets the status that says why not. */
static void find_file(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, leaf);
    struct request *r = c->req;
    OL_BEGIN(co);
    /* O_NONBLOCK: a FIFO in the directory must not hold the open up */
    OL_AWAIT(c->n, ol_open(co, &r->op, c->server->config->root, r->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
                           0, OL_BENEATH));
    if (c->n >= 0) {
        r->file = (int)c->n;
        OL_AWAIT(c->n, ol_stat(co, &r->op, r->file, NULL, &r->st));
    }
    if (c->n < 0) r->status = status_of(c, c->n);
    else if (S_ISDIR(r->st.st_mode)) r->status = 301;
    else if (!S_ISREG(r->st.st_mode)) r->status = 403;
    else r->status = choose_coding(r);
    if (r->status == 200 && not_modified(r)) r->status = 304;
    OL_END(co);
}

/* An answer without a file: errors, redirections, 304. */
static void make_status(struct conn *c) {
    struct request *r = c->req;
    char text[64] = "";
    if (r->status != 304)
        snprintf(text, sizeof text, "%d %s\n", r->status, http_status_str((enum http_status)r->status));
    r->gzip = 0;
    make_head(c, (int64_t)strlen(text));
    if (r->head_only) return;
    r->sent = (int64_t)strlen(text);
    put(r, "%s", text);
}

static void send_status(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, leaf);
    OL_BEGIN(co);
    make_status(c);
    write_deadline(c);
    OL_AWAIT(c->n, ol_write(co, c->fd, c->req->out, c->req->out_len));
    OL_RETURN(c->n);
    OL_END(co);
}

static int64_t chunk_len(const struct conn *c) {
    const int64_t left = c->req->st.st_size - c->req->offset, chunk = (int64_t)c->server->config->chunk;
    return left < chunk ? left : chunk;
}

/* The chunk of r->len bytes at src, in front of which lies what the file has before it. */
static ol_op *prepare_chunk(struct conn *c, const char *src) {
    struct request *r = c->req;
    struct transfer *t = r->transfer;
    const uint32_t dict = r->offset < DICT_BYTES ? (uint32_t)r->offset : (uint32_t)DICT_BYTES;
    ol_prep_deflate_chunk(&r->op, OL_GZIP, t->out, t->out_cap, src, (uint64_t)r->len, &t->stream,
                          dict ? src - dict : NULL, dict, r->offset + r->len == r->st.st_size);
    r->op.level = (uint8_t)c->server->config->number[LEVEL];
    r->op.cls = OL_BATCH;
    return &r->op;
}

/* A file of any size, chunk by chunk: read, compress, send. With gzip the chunks are one member, and its length is not
   known before its end: chunked transfer coding. If the file shrinks meanwhile the connection is cut, so that the
   client sees that something is missing. */
static void send_stream(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, leaf);
    struct request *r = c->req;
    struct transfer *t = r->transfer;
    OL_BEGIN(co);
    make_head(c, r->gzip ? -1 : (int64_t)r->st.st_size);
    if (r->head_only) r->offset = r->st.st_size;
    while (r->offset < r->st.st_size) {
        r->len = chunk_len(c);
        OL_AWAIT(c->n, ol_pread(co, &r->op, r->file, t->in + DICT_BYTES, (size_t)r->len, r->offset));
        if (c->n != r->len) OL_RETURN(c->n < 0 ? c->n : -EIO);
        if (!r->gzip) {
            frame(r, t->in + DICT_BYTES, (size_t)r->len, 0, 0);
        } else {
            prepare_chunk(c, t->in + DICT_BYTES);
            if (c->server->config->mode == OFFLOADED) {
                OL_AWAIT(c->n, ol_run(co, &r->op));
            } else {
                OL_YIELD(); /* the careful server: others first, then one chunk */
                c->n = co->result < 0 ? co->result : ol_op_exec(c->server->exec, &r->op);
            }
            if (c->n < 0) OL_RETURN(c->n);
            note_where(c);
            frame(r, t->out, (size_t)c->n, r->minor > 0, r->op.final);
            memmove(t->in, t->in + r->len, DICT_BYTES); /* the chunk's end is the next one's dictionary */
        }
        r->offset += r->len;
        write_deadline(c); /* for each chunk: a client that takes nothing is let go */
        OL_AWAIT(c->n, ol_writev(co, c->fd, t->iov, t->niov));
        if (c->n < 0) OL_RETURN(c->n);
        (void)ol_deadline(co, OL_NEVER);
        r->sent += r->want;
    }
    if (r->head_only) {
        r->begun = 1;
        write_deadline(c);
        OL_AWAIT(c->n, ol_write(co, c->fd, r->out, r->out_len));
    }
    OL_RETURN(c->n);
    OL_END(co);
}

/* All chunks of r->body_in in a row, without a look at anything else: the naive server. */
static int64_t compress_whole(struct conn *c) {
    struct request *r = c->req;
    int64_t n = 0, done = 0;
    for (; r->offset < r->st.st_size; r->offset += r->len) {
        r->len = chunk_len(c);
        ol_op *op = prepare_chunk(c, r->body_in + r->offset);
        op->dst = r->body_out + done;
        op->cap = r->body_cap - (size_t)done;
        n = ol_op_exec(c->server->exec, op);
        if (n < 0) return n;
        done += n;
    }
    return done;
}

/* Buffers for a file that is sent at once: the transfer's for a small one. */
static int take_body(struct conn *c) {
    struct request *r = c->req;
    r->body_in = r->transfer->in;
    r->body_out = r->transfer->out;
    r->body_cap = r->transfer->out_cap;
    if (r->st.st_size <= SMALL_BYTES) return 1;
    r->body_cap *= (size_t)r->st.st_size / c->server->config->chunk + 1;
    r->body_in = r->whole_in = (char *)malloc((size_t)r->st.st_size);
    r->body_out = r->whole_out = (char *)malloc(r->body_cap);
    return r->whole_in && r->whole_out;
}

/* Compressed or as it is, whichever is smaller; head and body in one write. */
static void frame_body(struct conn *c, size_t packed) {
    struct request *r = c->req;
    if (r->gzip && packed >= (size_t)r->st.st_size && r->identity_ok) r->gzip = 0;
    const size_t n = r->gzip ? packed : (size_t)r->st.st_size;
    make_head(c, (int64_t)n);
    frame(r, r->gzip ? r->body_out : r->body_in, r->head_only ? 0 : n, 0, 1);
}

/* One read, compression in one go, one write, and the length is known first. For files of at most 8 KB, whose
   compression is latency-critical work; with --inline=whole for all. */
static void send_at_once(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, leaf);
    struct request *r = c->req;
    OL_BEGIN(co);
    if (!take_body(c)) OL_RETURN(-ENOMEM);
    OL_AWAIT(c->n, ol_pread(co, &r->op, r->file, r->body_in, (size_t)r->st.st_size, 0));
    if (c->n != (int64_t)r->st.st_size) OL_RETURN(c->n < 0 ? c->n : -EIO);
    if (r->gzip) {
        ol_prep_deflate(&r->op, OL_GZIP, r->body_out, r->body_cap, r->body_in, (uint64_t)r->st.st_size);
        r->op.level = (uint8_t)c->server->config->number[LEVEL];
        r->op.cls = OL_LATENCY;
        if (r->st.st_size > SMALL_BYTES) c->n = compress_whole(c);
        else if (c->server->config->mode != OFFLOADED) c->n = ol_op_exec(c->server->exec, &r->op);
        else OL_AWAIT(c->n, ol_run(co, &r->op));
        if (c->n < 0) OL_RETURN(c->n);
        note_where(c);
    }
    frame_body(c, (size_t)c->n);
    write_deadline(c);
    OL_AWAIT(c->n, ol_writev(co, c->fd, r->transfer->iov, r->transfer->niov));
    if (c->n >= 0) r->sent = r->want;
    OL_RETURN(c->n);
    OL_END(co);
}

static void end_response(struct conn *c) {
    struct request *r = c->req;
    log_response(c);
    if (r->file >= 0) close(r->file);
    if (r->transfer) stock_give(&c->server->transfers, r->transfer);
    free(r->whole_in);
    free(r->whole_out);
    r->file = -1;
    r->transfer = NULL;
    r->whole_in = r->whole_out = NULL;
}

static int at_once(const struct conn *c) {
    return c->req->st.st_size <= SMALL_BYTES || (c->req->gzip && c->server->config->mode == INLINE_WHOLE);
}

/* Answers c->req. Result: negative if the connection is of no use any more. */
static void respond(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, sub);
    struct request *r = c->req;
    OL_BEGIN(co);
    if (r->status == 200) OL_CALL(c->n, &c->leaf, find_file);
    if (r->status == 200 && !(r->transfer = transfer_take(c->server))) r->status = 503;
    if (r->status == 200) {
        if (at_once(c)) {
            OL_CALL(c->n, &c->leaf, send_at_once);
        } else { /* a long body gives way to other requests */
            (void)ol_set_class(co, OL_BATCH);
            OL_CALL(c->n, &c->leaf, send_stream);
            (void)ol_set_class(co, OL_LATENCY);
        }
        if (c->n < 0 && !r->begun) r->status = status_of(c, c->n);
    }
    if (r->status != 200) OL_CALL(c->n, &c->leaf, send_status);
    end_response(c);
    OL_RETURN(c->n);
    OL_END(co);
}

/* Our last words may still be on their way: a close with unread bytes would make the kernel reset the connection and
   the client lose them. So: end our side, read what comes, for a second at most. */
static void say_goodbye(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, sub);
    OL_BEGIN(co);
    (void)shutdown(ol_fd_raw(co->loop, c->fd), SHUT_WR);
    (void)ol_deadline(co, second);
    c->req->have = 0;
    do {
        OL_AWAIT(c->n, ol_read(co, c->fd, c->req->in, sizeof c->req->in));
        if (c->n > 0) c->req->have += (size_t)c->n;
    } while (c->n > 0 && c->req->have < GOODBYE_BYTES);
    OL_END(co);
}

/* After an answer: 1 if the connection goes on. */
static int next_request(struct conn *c) {
    struct request *r = c->req;
    const int more = r->have > r->head_end; /* pipelined, or the rest of something refused */
    if (!r->keep_alive) {
        c->linger = r->status != 200 || more || c->server->stopping;
        return 0;
    }
    if (more) {
        request_next(r);
    } else {
        stock_give(&c->server->requests, r);
        c->req = NULL;
    }
    return 1;
}

static void stop_if_done(struct server *s) {
    if (s->stopping && !s->conns && !s->accepting) ol_loop_stop(s->loop);
}

static void conn_end(struct conn *c) {
    struct server *s = c->server;
    (void)ol_close(s->loop, c->fd);
    if (c->req) stock_give(&s->requests, c->req);
    if (c->prev) c->prev->next = c->next;
    else s->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    free(c);
    stop_if_done(s);
}

/* One coroutine for each connection. */
static void serve(ol_co *co) {
    struct conn *c = OL_SELF(co, struct conn, co);
    OL_BEGIN(co);
    do {
        OL_CALL(c->n, &c->sub, read_request);
        if (c->n < 0) break;
        OL_CALL(c->n, &c->sub, respond);
    } while (c->n >= 0 && next_request(c));
    if (c->linger) OL_CALL(c->n, &c->sub, say_goodbye);
    OL_END_THEN(co, conn_end(c));
}

static void conn_start(struct server *s, ol_fd fd) {
    struct conn *c = (struct conn *)calloc(1, sizeof *c);
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    if (!c || ol_spawn(s->loop, &c->co, serve, fd, OL_LATENCY) != 0) {
        warn(s, 1, "out of memory for a connection: lower --idle-timeout");
        free(c);
        (void)ol_close(s->loop, fd);
        return;
    }
    if (s->config->log_fd >= 0 && getpeername(ol_fd_raw(s->loop, fd), (struct sockaddr *)&peer, &len) == 0)
        c->peer = peer.sin_addr.s_addr;
    c->server = s;
    c->fd = fd;
    c->next = s->conns;
    if (c->next) c->next->prev = c;
    s->conns = c;
}

static void acceptor(ol_co *co) {
    struct server *s = OL_SELF(co, struct server, acceptor);
    OL_BEGIN(co);
    for (;;) {
        OL_AWAIT(s->accepted, ol_accept(co, s->listener));
        if (s->accepted == -ECANCELED || s->accepted == -EBADF) break; /* the listener is closed: we stop */
        if (s->accepted >= 0) conn_start(s, (ol_fd)s->accepted);
        /* else no fd is free: the library has said so and paused; those who wait are accepted later */
    }
    s->accepting = 0;
    OL_END_THEN(co, stop_if_done(s));
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* start and stop                                                                                                   */

static void cancel_all(struct server *s) {
    s->stopping = 2;
    for (struct conn *c = s->conns; c; c = c->next) ol_cancel(&c->co);
}

static void on_grace(ol_loop *loop, ol_timer *timer) {
    (void)loop;
    cancel_all(OL_CONTAINER(timer, struct server, grace));
}

/* On each loop after a signal. First: accept no more, let go of who waits for a next request, let the answers under way
   finish. The second time, or when the grace time is over: end everything. */
static void on_stop(ol_loop *loop, ol_post_node *node) {
    struct server *s = OL_CONTAINER(node, struct server, stop);
    if (s->stopping) {
        cancel_all(s);
        return;
    }
    s->stopping = 1;
    (void)ol_close(loop, s->listener);
    for (struct conn *c = s->conns; c; c = c->next)
        if (c->idle) ol_cancel(&c->co);
    (void)ol_timer_start(loop, &s->grace, s->config->number[GRACE] * second, on_grace);
    stop_if_done(s);
}

static int fail(const char *what, const char *why, const char *remedy) {
    fprintf(stderr, "gzip_server: %s: %s. %s\n", what, why, remedy);
    return 1;
}

static int load_policy(const struct config *config, ol_policy *policy) {
    char text[16384], why[256];
    const int fd = open(config->policy_file, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    const int error = errno;
    if (fd >= 0) close(fd);
    if (n < 0) return fail(config->policy_file, strerror(error), "Give --policy a file that can be read.");
    if ((size_t)n == sizeof text - 1) return fail(config->policy_file, "longer than 16 KB", "Shorten it.");
    text[n] = '\0';
    if (ol_policy_parse(text, policy, why, sizeof why) != 0)
        return fail(config->policy_file, why, "The format is explained in offload.h under `>>policy`.");
    return 0;
}

static int use_policy(struct server *s, const ol_policy *policy) {
    if (ol_loop_set_policy(s->loop, policy) == 0) return 0;
    return fail(s->config->policy_file, ol_error(), "The backend here is called threads.");
}

/* On the first loop after SIGHUP. A table that can't be loaded leaves the old one in force. */
static void on_reload(ol_loop *loop, ol_post_node *node) {
    struct server *s = OL_CONTAINER(node, struct server, reload);
    ol_policy policy;
    (void)loop;
    if (!s->config->policy_file) {
        (void)fail("SIGHUP", "there is no policy to load again", "Start with --policy FILE.");
        return;
    }
    if (load_policy(s->config, &policy) != 0 || use_policy(s, &policy) != 0) return;
    pthread_mutex_lock(&g_policy_lock);
    g_policy = policy;
    pthread_mutex_unlock(&g_policy_lock);
    for (int i = 1; i < g_nservers; i++) (void)ol_post(g_servers[i].loop, &g_servers[i].table);
    fprintf(stderr, "gzip_server: %s: loaded, %u rules.\n", s->config->policy_file, policy.n);
}

/* On the other loops: which backends they have is the same, so what the first has taken they take. */
static void on_table(ol_loop *loop, ol_post_node *node) {
    ol_policy policy;
    (void)loop;
    pthread_mutex_lock(&g_policy_lock);
    policy = g_policy;
    pthread_mutex_unlock(&g_policy_lock);
    (void)use_policy(OL_CONTAINER(node, struct server, table), &policy);
}

/* On each loop after SIGUSR1: its statistics, in one piece. */
static void on_dump(ol_loop *loop, ol_post_node *node) {
    const int n = ol_loop_dump(loop, NULL, 0);
    char *text = (char *)malloc((size_t)n + 1);
    (void)node;
    if (!text) return;
    (void)ol_loop_dump(loop, text, (size_t)n + 1);
    fprintf(stderr, "%s\n", text);
    free(text);
}

static void on_signal(int number) {
    const int saved = errno;
    for (int i = 0; i < g_nservers; i++) {
        struct server *s = &g_servers[i];
        if (number == SIGUSR1) (void)ol_post(s->loop, &s->dump);
        else if (number != SIGHUP) (void)ol_post(s->loop, &s->stop);
        else if (i == 0) (void)ol_post(s->loop, &s->reload);
    }
    errno = saved;
}

/* SO_REUSEPORT would let us share a port with another server of ours without noticing: ask for it alone first. */
static int port_is_free(const struct sockaddr_in *address) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) return 0;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    const int r = bind(fd, (const struct sockaddr *)address, sizeof *address);
    const int error = errno;
    close(fd);
    errno = error;
    return r == 0;
}

static int server_start(struct server *s, const struct config *config, struct sockaddr_in *address) {
    ol_loop_desc desc;
    socklen_t len = sizeof *address;
    const int one = 1;
    s->config = config;
    s->requests.size = sizeof(struct request);
    s->requests.max = STOCK_REQUESTS;
    s->transfers.size = sizeof(struct transfer) + DICT_BYTES + config->chunk + (size_t)ol_deflate_bound(config->chunk);
    s->transfers.max = STOCK_TRANSFERS;
    s->stop.fn = on_stop;
    s->reload.fn = on_reload;
    s->table.fn = on_table;
    s->dump.fn = on_dump;
    memset(&desc, 0, sizeof desc);
    desc.backends = &config->pool;
    desc.nbackends = 1;
    desc.log = warn;
    desc.log_user = s;
    if (ol_loop_create(&s->loop, &desc) != 0) return fail("can't create a loop", ol_error(), "Lower --loops.");
    if (config->policy_file && use_policy(s, &config->policy) != 0) return 1;
    s->exec = config->mode == OFFLOADED ? NULL : ol_exec_create();
    if (config->mode != OFFLOADED && !s->exec) return fail("can't start", "out of memory", "Lower --loops.");
    const int r = ol_listen(s->loop, (struct sockaddr *)address, len, 1024, 1, OL_LATENCY, &s->listener);
    if (r != 0) return fail("can't listen", strerror(-r), "Choose another --port or --address.");
    const int fd = ol_fd_raw(s->loop, s->listener);
    (void)getsockname(fd, (struct sockaddr *)address, &len);          /* port 0: the next loops take the same */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* Linux: accepted sockets inherit it */
    s->accepting = 1;
    if (ol_spawn(s->loop, &s->acceptor, acceptor, s->listener, OL_LATENCY) != 0)
        return fail("can't start", ol_error(), "Lower --loops.");
    return 0;
}

static void server_free(struct server *s) {
    if (s->loop && ol_loop_destroy(s->loop) == -EBUSY) {
        (void)ol_loop_drain(s->loop, -1);
        (void)ol_loop_destroy(s->loop);
    }
    ol_exec_destroy(s->exec);
    stock_empty(&s->requests);
    stock_empty(&s->transfers);
}

static void *server_run(void *arg) {
    struct server *s = (struct server *)arg;
    s->result = ol_loop_run(s->loop);
    ol_timer_stop(s->loop, &s->grace);
    ol_timer_stop(s->loop, &s->log_timer);
    log_flush(s);
    return NULL;
}

static int run_all(const struct config *config, struct server *servers, const struct sockaddr_in *address) {
    char text[INET_ADDRSTRLEN];
    struct sigaction action;
    int failed = 0, started = 1;
    g_servers = servers;
    g_nservers = (int)config->number[LOOPS];
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGHUP, &action, NULL);
    (void)sigaction(SIGUSR1, &action, NULL);
    inet_ntop(AF_INET, &address->sin_addr, text, sizeof text);
    printf("listening on %s:%d\n", text, ntohs(address->sin_port));
    fflush(stdout);
    for (; started < config->number[LOOPS]; started++) {
        if (pthread_create(&servers[started].thread, NULL, server_run, &servers[started]) == 0) continue;
        failed = fail("can't start a thread", "the limit is reached", "Lower --loops or raise `ulimit -u`.");
        on_signal(0);
        break;
    }
    server_run(&servers[0]);
    for (int i = 1; i < started; i++) pthread_join(servers[i].thread, NULL);
    for (int i = 0; i < started; i++)
        if (servers[i].result != 0) failed = fail("a loop ended", strerror(-servers[i].result), "This is a bug.");
    g_nservers = 0;
    return failed;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* the command line                                                                                                 */

static void usage(FILE *to) {
    fprintf(to, "%s",
            "Usage: gzip_server [OPTION]... DIRECTORY\n"
            "Serves the files of DIRECTORY over HTTP/1.1 and compresses them on the fly, on worker threads.\n"
            "Every file in it that can be read is served, also one whose name begins with a dot. Symbolic links that\n"
            "leave DIRECTORY are not followed. A directory is answered by its index.html.\n"
            "\n"
            "  --port N            port to listen on; 0 (default) picks a free one\n"
            "  --address A         IPv4 address to listen on (default 127.0.0.1; 0.0.0.0: all)\n"
            "  --loops N           event loops, one thread each (default: one for each CPU)\n"
            "  --workers N         compressing threads, shared by the loops (default: one for each CPU, at least 2)\n"
            "  --policy FILE       where operations run, as text: see `>>policy` in offload.h (default: preset pool)\n"
            "  --inline[=chunks]   compress on the loops, with a return to the loop between the chunks\n"
            "  --inline=whole      compress on the loops, each file in one go\n"
            "  --level N           1 fastest to 3 smallest; 0 (default) chooses by size\n"
            "  --chunk KIB         size of a chunk (default 64, 32 to 1024)\n"
            "  --log FILE          access log; - is standard output\n"
            "  --idle-timeout S    seconds until a connection without a request is closed (default 60)\n"
            "  --header-timeout S  seconds for a request's head, then 408 (default 10)\n"
            "  --write-timeout S   seconds in which a client must take a chunk (default 30)\n"
            "  --grace S           seconds for the answers under way after SIGTERM or SIGINT (default 10)\n"
            "  --help              this text\n"
            "\n"
            "SIGTERM or SIGINT stops it: answers under way are finished, then it exits with status 0. A second one\n"
            "ends them at once. SIGHUP loads --policy again; a file with an error leaves the old one in force. SIGUSR1\n"
            "prints what the loops have measured. A line of the log: client \"request\" status bytes coding where why.\n"
            "\n"
            "Example: gzip_server --port 8080 --log - /usr/share/doc\n");
}

static int bad_usage(const char *option, const char *text, const char *why) {
    fprintf(stderr, "gzip_server: --%s: '%s' is not %s. Try --help.\n", option, text, why);
    return 2;
}

static int set_number(struct config *config, int which, const char *text) {
    char *end, why[64];
    const struct number *n = &numbers[which];
    errno = 0;
    config->number[which] = strtol(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && config->number[which] >= n->min && config->number[which] <= n->max)
        return 0;
    snprintf(why, sizeof why, "a number from %ld to %ld", n->min, n->max);
    return bad_usage(n->name, text, why);
}

static int set_text(struct config *config, int which, const char *text) {
    switch (which) {
    case 'a': config->address = text; return 0;
    case 'p': config->policy_file = text; return 0;
    case 'l': config->log_file = text; return 0;
    case 'i':
        config->mode = text && strcmp(text, "whole") == 0 ? INLINE_WHOLE : INLINE_CHUNKS;
        if (!text || config->mode == INLINE_WHOLE || strcmp(text, "chunks") == 0) return 0;
        return bad_usage("inline", text, "chunks or whole");
    case 'h': usage(stdout); return -1;
    default: return 2; /* getopt has said what is wrong */
    }
}

static int cpus(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* 0 go on, 2 wrong usage, -1 help was printed */
static int parse_options(struct config *config, int argc, char **argv) {
    struct option options[NUMBERS + 6] = {{"address", required_argument, NULL, 'a'},
                                          {"policy", required_argument, NULL, 'p'},
                                          {"log", required_argument, NULL, 'l'},
                                          {"inline", optional_argument, NULL, 'i'},
                                          {"help", no_argument, NULL, 'h'}};
    int r = 0, which;
    for (int i = 0; i < NUMBERS; i++) {
        options[5 + i].name = numbers[i].name;
        options[5 + i].has_arg = required_argument;
        options[5 + i].val = i;
        config->number[i] = numbers[i].initial;
    }
    while (r == 0 && (which = getopt_long(argc, argv, "", options, NULL)) != -1)
        r = which < NUMBERS ? set_number(config, which, optarg) : set_text(config, which, optarg);
    if (r != 0) return r;
    if (optind + 1 != argc) {
        fprintf(stderr, "gzip_server: give one DIRECTORY to serve. Try --help.\n");
        return 2;
    }
    config->directory = argv[optind];
    config->chunk = (size_t)config->number[CHUNK_KIB] * 1024;
    if (!config->number[LOOPS]) config->number[LOOPS] = cpus();
    if (!config->number[WORKERS]) config->number[WORKERS] = cpus() < 2 ? 2 : cpus(); /* a cold file blocks one */
    return 0;
}

static int open_files(struct config *config) {
    config->root = open(config->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (config->root < 0) return fail(config->directory, strerror(errno), "Give a directory that can be read.");
    if (config->log_file && strcmp(config->log_file, "-") == 0) config->log_fd = STDOUT_FILENO;
    else if (config->log_file) {
        config->log_fd = open(config->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (config->log_fd < 0) return fail(config->log_file, strerror(errno), "Give --log a file to write to.");
    }
    return config->policy_file ? load_policy(config, &config->policy) : 0;
}

/* The workers share the loops' cores. At SCHED_IDLE the kernel runs a loop that has something to do at once, and a
   worker only on what is left: heavy work fills the machine, but it can't delay a small request. */
static int start_pool(struct config *config) {
    ol_threads_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.workers = (uint32_t)config->number[WORKERS];
    desc.sched = 1;
    if (ol_threads_create(&config->pool, &desc) == 0) return 0;
    return fail("can't start the pool", ol_error(), "Lower --workers.");
}

static int prepare(struct config *config, struct sockaddr_in *address) {
    struct rlimit files;
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    address->sin_port = htons((uint16_t)config->number[PORT]);
    if (inet_pton(AF_INET, config->address, &address->sin_addr) != 1)
        return fail(config->address, "not an IPv4 address", "Give --address four numbers, as in 127.0.0.1.");
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) { /* a connection is an fd, or two */
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    if (config->number[PORT] && !port_is_free(address)) {
        char what[32];
        snprintf(what, sizeof what, "can't listen on port %ld", config->number[PORT]);
        return fail(what, strerror(errno), "Choose another --port, or 0 for any.");
    }
    if (open_files(config) != 0) return 1;
    return start_pool(config);
}

int main(int argc, char **argv) {
    struct config config;
    struct sockaddr_in address;
    memset(&config, 0, sizeof config);
    config.address = "127.0.0.1";
    config.root = config.log_fd = -1;
    int r = parse_options(&config, argc, argv);
    if (r != 0) return r < 0 ? 0 : r;
    const size_t n = (size_t)config.number[LOOPS];
    struct server *servers = (struct server *)calloc(n, sizeof *servers);
    r = servers ? prepare(&config, &address) : fail("can't start", "out of memory", "Lower --loops.");
    for (size_t i = 0; r == 0 && i < n; i++) r = server_start(&servers[i], &config, &address);
    if (r == 0) r = run_all(&config, servers, &address);
    for (size_t i = 0; servers && i < n; i++) server_free(&servers[i]);
    if (config.pool) (void)ol_threads_destroy(config.pool);
    if (config.log_fd > STDERR_FILENO) close(config.log_fd);
    if (config.root >= 0) close(config.root);
    free(servers);
    return r;
}
