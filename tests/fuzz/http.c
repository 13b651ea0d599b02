/* http.c: fuzz target: what examples/gzip_server.c answers, whatever comes, in whatever pieces.

   cc -std=c11 -O1 -g -I. tests/fuzz/http.c -o build/fuzz/http -pthread -lisal -lhttp_parser -lz

   The whole server runs in this process, with its loop and real sockets, but on a clock that moves only when the input
   says so, and with a device in place of the pool. Input: a byte of options (see struct world), then what the client
   sends. Bytes that no request may contain say how it sends:

     1  what came so far is sent, and the server runs until it has nothing more to do
     2  so, and then a second passes
     3  so, and then the client reads what there is (otherwise it reads at the end)
     4  the client ends its side     5  the client closes, with answers unread
     6  the server is asked to stop  (the second time: to stop at once)

   What is checked:
     - Every answer is well-formed: status line, fields, Content-Length or chunks that fit; one answer for each request;
       nothing behind the one that says Connection: close; the log has a line for each, and no request can forge one.
     - A plain request for a file gets it; a head that leaves open where the next request begins is refused (RFC 9112).
     - The body of a 200 is, decompressed by zlib, the file that its ETag and the target name; nothing from outside of
       the directory is ever sent.
     - However the bytes are cut the answers are the same, byte for byte: all at once to a server that works on the spot;
       as the input says, and in steps of a few bytes, on two connections side by side, to one that offloads. (A head
       with several faults may be refused for any of them.)
     - Every connection ends, within the server's own time limits; no coroutine, operation, fd or byte of memory is left.
       The loop never goes on turning without a reason. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fuzz.h"

#include <time.h>

/* The clock: monotonic for the loop, and the same moment for every Date. */
static int64_t virtual_ns;
static int64_t virtual_now(void) { return virtual_ns += 50; }
static int virtual_clock(clockid_t id, struct timespec *to) {
    (void)id;
    to->tv_sec = 1700000000;
    to->tv_nsec = 0;
    return 0;
}
#define OL_SYS_NOW() virtual_now()
#define clock_gettime virtual_clock
#define main server_main
#include "examples/gzip_server.c"
#undef main
#undef clock_gettime

#include <zlib.h>

/* libFuzzer: -max_len=17000 */

enum { CLIENTS = 2, ANSWERS = 1024 };
enum { CUT = 1, SECOND, READ, HALF_CLOSE, CLOSE, STOP, MARKS };
enum { BODY_BYTES = 1 << 17 };

/* ---------------------------------------------------------------------------------------------------------------- */
/* the directory that is served                                                                                     */

enum { TEXT, NOISE };
static struct file {
    const char *name;
    size_t size;
    int kind;
    char etag[72];
    uint8_t *data;
} files[] = {{"index.html", 150, TEXT, "", NULL},     {"empty.txt", 0, TEXT, "", NULL},
             {"small.txt", 1000, TEXT, "", NULL},     {"edge.css", 8192, TEXT, "", NULL},
             {"over.js", 8193, TEXT, "", NULL},       {"large.txt", 70000, TEXT, "", NULL},
             {"noise.txt", 400, NOISE, "", NULL},     {"noise.png", 9000, NOISE, "", NULL},
             {"dir/index.html", 300, TEXT, "", NULL}, {"a b%\"\\.txt", 20, TEXT, "", NULL}};
enum { FILES_SERVED = sizeof files / sizeof files[0] };
static const char secret[] = "this file is outside of the directory that is served";
static char www[4096], root[4200]; /* next to this program; what is served of it */

static void must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "http: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* Writes a file at once, so that several of us may do it at the same time. */
static void put_file(const char *name, const void *bytes, size_t n, time_t when) {
    char path[4200], part[4300];
    struct stat st;
    const struct timespec times[2] = {{when, 0}, {when, 0}};
    snprintf(path, sizeof path, "%s/%s", www, name);
    if (stat(path, &st) == 0 && st.st_size == (off_t)n && st.st_mtim.tv_sec == when) return;
    snprintf(part, sizeof part, "%s.%d", path, (int)getpid());
    const int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    must(fd >= 0 && write(fd, bytes, n) == (ssize_t)n && futimens(fd, times) == 0 && close(fd) == 0, part);
    must(rename(part, path) == 0, path);
}

static void put_link(const char *name, const char *to) {
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", www, name);
    must(symlink(to, path) == 0 || errno == EEXIST, path);
}

static void put_dir(const char *name) {
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", www, name);
    must(mkdir(path, 0755) == 0 || errno == EEXIST, path);
}

static void make_files(void) {
    uint32_t x = 1;
    const ssize_t n = readlink("/proc/self/exe", www, sizeof www - 8);
    must(n > 0, "/proc/self/exe");
    www[n] = '\0';
    strcpy(strrchr(www, '/'), "/www");
    snprintf(root, sizeof root, "%s/root", www);
    put_dir("");
    put_dir("root");
    put_dir("root/dir");
    for (int i = 0; i < FILES_SERVED; i++) {
        struct file *f = &files[i];
        char name[64];
        const time_t when = 1000000000 + i;
        f->data = (uint8_t *)malloc(f->size + 1);
        must(f->data != NULL, "malloc");
        for (size_t k = 0; k < f->size; k++) {
            static const char text[] = "Events of a partition are processed one after another. ";
            x = x * 1664525 + 1013904223;
            f->data[k] = f->kind == NOISE || k % 97 == 0 ? (uint8_t)(x >> 24) : (uint8_t)text[k % (sizeof text - 1)];
        }
        snprintf(f->etag, sizeof f->etag, "W/\"%llx-0-%zx\"", (unsigned long long)when, f->size);
        snprintf(name, sizeof name, "root/%s", f->name);
        put_file(name, f->data, f->size, when);
    }
    put_file("secret.txt", secret, sizeof secret - 1, 1000000000);
    put_link("root/out.txt", "../secret.txt");
    put_link("root/up", "..");
    put_link("root/in.txt", "small.txt");
    put_link("root/loop", "loop");
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* a device: completes what it has after some looks, in one order or the other                                      */

enum { DEPTH = 8 };
static struct device {
    ol_op *op[DEPTH];
    int n, looks, slow, reverse;
    ol_exec *exec;
} device;

static int device_open(void *self, ol_notify *notify, ol_channel *out) {
    (void)notify;
    memset(out, 0, sizeof *out);
    out->self = self;
    out->depth = DEPTH;
    return 0;
}
static int device_submit(void *channel, ol_op *const *ops, int n) {
    struct device *d = (struct device *)channel;
    int i = 0;
    for (; i < n && d->n < DEPTH; i++) {
        d->op[d->n++] = ops[i];
        d->looks = 0;
    }
    return i;
}
static int device_look(void *channel) {
    struct device *d = (struct device *)channel;
    return d->n && ++d->looks > d->slow;
}
static int device_poll(void *channel, ol_op **ops, int max) {
    struct device *d = (struct device *)channel;
    if (max < 1 || !device_look(channel)) return 0;
    const int i = d->reverse ? d->n - 1 : 0;
    ops[0] = d->op[i];
    (void)ol_op_exec(d->exec, ops[0]); /* done late: until now it could have been cancelled */
    memmove(d->op + i, d->op + i + 1, (size_t)(--d->n - i) * sizeof *d->op);
    d->looks = 0;
    return 1;
}
static int device_cancel(void *channel, ol_op *op) {
    (void)channel, (void)op;
    return -EBUSY;
}
static void device_close(void *channel) { (void)channel; }

static ol_backend backend;
static void make_backend(void) {
    memset(&backend, 0, sizeof backend);
    backend.version = OL_BACKEND_VERSION;
    backend.kinds = 1u << OL_OP_CALL | 1u << OL_OP_CRC32 | 1u << OL_OP_DEFLATE | 1u << OL_OP_INFLATE | 1u << OL_OP_FILE;
    backend.name = "threads";
    backend.self = &device;
    backend.open = device_open;
    backend.submit = device_submit;
    backend.poll = device_poll;
    backend.look = device_look;
    backend.cancel = device_cancel;
    backend.close = device_close;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* clients                                                                                                          */

struct client {
    const uint8_t *p, *end; /* to be sent */
    size_t stride;          /* in pieces of so many bytes; 0: as the marks say */
    int fd, half_closed, broken, ended;
    uint8_t *out; /* all that it has to say so far; out[0..sent) is on its way */
    size_t out_n, sent;
    char *in; /* received */
    size_t n, room;
};

static void client_flush(struct client *c) {
    while (c->sent < c->out_n && !c->broken) {
        const ssize_t n = send(c->fd, c->out + c->sent, c->out_n - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (n < 0) c->broken = 1; /* the server has closed */
        else c->sent += (size_t)n;
    }
}

/* All that has come. 1: there was something. */
static int client_read(struct client *c) {
    const size_t before = c->n;
    while (!c->ended) {
        if (c->room - c->n < 4096) {
            c->room = 2 * c->room + 8192;
            c->in = (char *)realloc(c->in, c->room);
            must(c->in != NULL, "realloc");
        }
        const ssize_t n = recv(c->fd, c->in + c->n, c->room - c->n, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        if (n <= 0) c->ended = 1; /* a reset as well: what was sent before it has been read */
        else c->n += (size_t)n;
    }
    return c->n > before;
}

static void client_half_close(struct client *c) {
    if (!c->half_closed && !c->ended) (void)shutdown(c->fd, SHUT_WR);
    c->half_closed = 1;
}

/* The next piece: what it ends with, or 0 if that was the last. */
static int client_act(struct client *c) {
    const size_t before = c->out_n;
    while (c->p < c->end) {
        const int byte = *c->p++;
        if (!c->stride && byte >= CUT && byte < MARKS) return byte;
        if (!c->half_closed) c->out[c->out_n++] = (uint8_t)byte;
        if (c->stride && c->out_n - before == c->stride) return CUT;
    }
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* a server with clients                                                                                            */

/* The byte of options: 0-1 how it compresses, see compression; 2 the server's socket buffers are small; 3 the device
   is slow; 4 the device completes in reverse; 5 at the end the client just waits, instead of ending its side. */
enum { SMALL_BUFFERS = 4, SLOW = 8, REVERSE = 16, WAITS = 32 };

struct world {
    struct server *server;
    struct config config;
    struct client client[CLIENTS];
    int clients, options;
    char *log;
    size_t log_n;
};

static void world_start(struct world *w, int options, int on_the_spot) {
    static const enum mode modes[] = {OFFLOADED, OFFLOADED, INLINE_CHUNKS, INLINE_WHOLE};
    struct sockaddr_in address;
    memset(w, 0, sizeof *w);
    memset(&device, 0, sizeof device);
    device.slow = options & SLOW ? 7 : 0;
    device.reverse = options & REVERSE;
    device.exec = ol_exec_create();
    w->options = options;
    w->config.directory = root;
    must(open_files(&w->config) == 0, root);
    w->config.policy_file = "policy";
    (void)ol_policy_parse(on_the_spot ? "any any 0- software - -" : "any any 0- async threads wait", &w->config.policy,
                          NULL, 0);
    w->config.mode = modes[options & 3];
    w->config.number[IDLE_TIMEOUT] = 6;
    w->config.number[HEADER_TIMEOUT] = 3;
    w->config.number[WRITE_TIMEOUT] = 4;
    w->config.number[GRACE] = 3;
    w->config.number[LEVEL] = options & 3 & 1;
    w->config.chunk = 32 * 1024;
    w->config.pool = &backend;
    w->config.log_fd = memfd_create("log", MFD_CLOEXEC);
    must(w->config.log_fd >= 0, "memfd_create");
    w->server = (struct server *)calloc(1, sizeof *w->server);
    must(w->server && device.exec, "no memory");
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    must(server_start(w->server, &w->config, &address) == 0, "server_start");
}

static void world_join(struct world *w, const uint8_t *p, size_t n, size_t stride) {
    struct client *c = &w->client[w->clients++];
    int pair[2];
    const int small = 1;
    ol_fd fd;
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
    if (w->options & SMALL_BUFFERS) (void)setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    must(ol_attach(w->server->loop, pair[0], OL_LATENCY, &fd) == 0, "ol_attach");
    conn_start(w->server, fd);
    c->p = p;
    c->end = p + n;
    c->stride = stride;
    c->fd = pair[1];
    c->out = (uint8_t *)malloc(n + 1);
    must(c->out != NULL, "malloc");
}

/* Rounds of the loop until nothing happens any more. */
static void settle(struct world *w) {
    ol_loop_stats before, after;
    int quiet = 0;
    before.size = after.size = sizeof after;
    ol_loop_get_stats(w->server->loop, &after);
    for (int i = 0; quiet < 2; i++) {
        before = after;
        FUZZ_CHECK(ol_loop_step(w->server->loop, 0) >= 0, "%s", ol_error());
        ol_loop_get_stats(w->server->loop, &after);
        quiet = after.resumes == before.resumes && after.events == before.events && !device.n ? quiet + 1 : 0;
        FUZZ_CHECK(i < 100000, "the loop goes on turning: %llu resumes", (unsigned long long)after.resumes);
    }
}

static void a_second_passes(struct world *w) {
    virtual_ns += second;
    settle(w);
}

static void client_close(struct client *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->ended = c->broken = 1;
}

/* Everybody sends, by turns. */
static void talk(struct world *w) {
    for (int going = 1; going;) {
        going = 0;
        for (int i = 0; i < w->clients; i++) {
            struct client *c = &w->client[i];
            const int mark = client_act(c);
            if (mark == STOP) (void)ol_post(w->server->loop, &w->server->stop);
            client_flush(c);
            settle(w);
            if (mark == STOP && !c->sent && !c->ended) {
                client_read(c);
                FUZZ_CHECK(c->ended, "the server stops, but not for a client that has said nothing");
            }
            if (mark == SECOND) a_second_passes(w);
            if (mark == READ) client_read(c);
            if (mark == HALF_CLOSE) client_half_close(c);
            if (mark == CLOSE) client_close(c);
            going |= mark != 0;
        }
    }
}

/* Everybody reads until the server has closed. */
static void finish(struct world *w) {
    for (int idle = 0, open = 1; open;) {
        int some = 0;
        open = 0;
        for (int i = 0; i < w->clients; i++) {
            struct client *c = &w->client[i];
            client_flush(c);
            settle(w);
            some |= client_read(c);
            if (!some && (c->sent == c->out_n || c->broken) && !(w->options & WAITS)) client_half_close(c);
            if (c->ended) client_close(c);
            open |= !c->ended;
        }
        if (some || !open) continue;
        a_second_passes(w);
        FUZZ_CHECK(++idle < 60, "a connection doesn't end: the clients got %zu and %zu bytes", w->client[0].n,
                   w->client[1].n);
    }
    for (int i = 0; i < 3; i++) a_second_passes(w); /* say_goodbye, and what the log holds back */
    FUZZ_CHECK(!w->server->conns, "the client is gone, its connection isn't");
}

static void world_end(struct world *w) {
    ol_loop_stats stats;
    struct server *s = w->server;
    if (!s->stopping) (void)ol_post(s->loop, &s->stop);
    for (int i = 0; i < 5; i++) a_second_passes(w);
    FUZZ_CHECK(!s->accepting, "the server doesn't stop");
    memset(&stats, 0, sizeof stats);
    stats.size = sizeof stats;
    ol_loop_get_stats(s->loop, &stats);
    FUZZ_CHECK(stats.roots == 0 && stats.ops == 0 && stats.fds == 0, "%u coroutines, %u operations, %u fds are left",
               stats.roots, stats.ops, stats.fds);
    ol_timer_stop(s->loop, &s->grace);
    ol_timer_stop(s->loop, &s->log_timer);
    log_flush(s);
    server_free(s);
    free(s);
    w->server = NULL;
    w->log_n = (size_t)lseek(w->config.log_fd, 0, SEEK_END);
    w->log = (char *)malloc(w->log_n + 1);
    must(w->log && pread(w->config.log_fd, w->log, w->log_n, 0) == (ssize_t)w->log_n, "the log");
    close(w->config.log_fd);
    close(w->config.root);
    ol_exec_destroy(device.exec);
}

static void world_free(struct world *w) {
    for (int i = 0; i < w->clients; i++) {
        free(w->client[i].in);
        free(w->client[i].out);
    }
    free(w->log);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* what may come out                                                                                                */

struct text {
    const char *p;
    size_t n;
};
struct answer {
    int status, last, gzip, chunked, head; /* last: Connection: close */
    struct text whole;                     /* as the client got it */
    struct text body;                      /* without chunks; valid until the next answer is taken */
    struct text etag, location;
};
struct answers {
    int n;
    struct answer a[ANSWERS];
};

static int text_is(struct text t, const char *what) { return t.n == strlen(what) && memcmp(t.p, what, t.n) == 0; }

static struct text upto(struct text *rest, const char *mark) {
    struct text t = *rest;
    const char *found = rest->n ? (const char *)memmem(rest->p, rest->n, mark, strlen(mark)) : NULL;
    t.n = found ? (size_t)(found - t.p) : 0;
    if (found) rest->p = found + strlen(mark), rest->n -= t.n + strlen(mark);
    else t.p = NULL;
    return t;
}

static uint64_t number(struct text t, unsigned base) {
    uint64_t v = 0;
    FUZZ_CHECK(t.n > 0 && t.n < 16, "a number of %zu digits", t.n);
    for (size_t i = 0; i < t.n; i++) {
        const char *digits = "0123456789abcdef", *d = strchr(digits, t.p[i]);
        FUZZ_CHECK(t.p[i] && d && (unsigned)(d - digits) < base, "not a number: %.*s", (int)t.n, t.p);
        v = v * base + (unsigned)(d - digits);
    }
    return v;
}

/* The next request's head as the client knows it; 0 if there is none, or none that is complete. */
static int next_head(struct text *rest, struct text *head) {
    while (rest->n >= 2 && memcmp(rest->p, "\r\n", 2) == 0) rest->p += 2, rest->n -= 2;
    *head = upto(rest, "\r\n\r\n");
    return head->p != NULL;
}

/* 0: the chunks are not complete. */
static int join_chunks(struct text *rest, struct text *body) {
    static char joined[BODY_BYTES];
    body->p = joined;
    body->n = 0;
    for (;;) {
        struct text line = upto(rest, "\r\n");
        if (!line.p) return 0;
        const size_t n = number(line, 16);
        if (rest->n < n + 2) return 0;
        FUZZ_CHECK(n <= sizeof joined - body->n, "a body of more than %zu bytes", sizeof joined);
        memcpy(joined + body->n, rest->p, n);
        body->n += n;
        FUZZ_CHECK(memcmp(rest->p + n, "\r\n", 2) == 0, "no end of line behind a chunk");
        rest->p += n + 2;
        rest->n -= n + 2;
        if (n == 0) return 1;
    }
}

static void check_field(struct text line) {
    static const char token[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-";
    const char *colon = (const char *)memchr(line.p, ':', line.n);
    FUZZ_CHECK(colon && colon > line.p && colon[1] == ' ', "not a field: %.*s", (int)line.n, line.p);
    for (const char *p = line.p; p < colon; p++) FUZZ_CHECK(strchr(token, *p), "not a name: %.*s", (int)line.n, line.p);
    for (const char *p = colon; p < line.p + line.n; p++)
        FUZZ_CHECK(*p >= ' ' && *p != 0x7f, "a control character in a field: %.*s", (int)line.n, line.p);
}

/* The value of a field that may be there once. */
static struct text field(struct text head, const char *name) {
    struct text found = {NULL, 0};
    for (struct text line = upto(&head, "\r\n"); line.p; line = upto(&head, "\r\n")) {
        const size_t n = strlen(name);
        if (line.n < n + 2 || memcmp(line.p, name, n) != 0 || line.p[n] != ':') continue;
        FUZZ_CHECK(!found.p, "%s twice", name);
        found.p = line.p + n + 2;
        found.n = line.n - n - 2;
    }
    return found;
}

static void check_status_line(struct text line, struct answer *a) {
    static const int statuses[] = {200, 301, 304, 400, 403, 404, 405, 406, 408, 413, 414, 431, 501, 503, 505};
    struct text code = {line.p + 9, 3};
    int known = 0;
    FUZZ_CHECK(line.n > 13 && memcmp(line.p, "HTTP/1.1 ", 9) == 0 && line.p[12] == ' ', "not a status line: %.*s",
               (int)line.n, line.p);
    a->status = (int)number(code, 10);
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) known |= statuses[i] == a->status;
    FUZZ_CHECK(known, "status %d", a->status);
}

/* The body by what the head says. 0: it is not complete. */
static int take_body_of(struct answer *a, struct text *rest, struct text length, int http_1_0) {
    a->body.p = rest->p;
    FUZZ_CHECK(!(a->chunked && length.p), "chunks and a length");
    FUZZ_CHECK(a->chunked || length.p || a->status == 304 || (http_1_0 && a->last), "no way to find the end");
    FUZZ_CHECK(!(a->chunked && http_1_0), "chunks for HTTP/1.0");
    if (a->head || a->status == 304) return 1;
    if (a->chunked) return join_chunks(rest, &a->body);
    a->body.n = length.p ? number(length, 10) : rest->n;
    if (a->body.n > rest->n) return 0;
    rest->p += a->body.n;
    rest->n -= a->body.n;
    return 1;
}

static void check_fields_of(struct text head, struct answer *a) {
    struct text lines = head;
    for (struct text line = upto(&lines, "\r\n"); line.p; line = upto(&lines, "\r\n")) check_field(line);
    const struct text coding = field(head, "Transfer-Encoding"), content = field(head, "Content-Encoding");
    const struct text connection = field(head, "Connection");
    FUZZ_CHECK(text_is(field(head, "Date"), "Tue, 14 Nov 2023 22:13:20 GMT"), "no Date");
    FUZZ_CHECK(!coding.p || text_is(coding, "chunked"), "Transfer-Encoding: %.*s", (int)coding.n, coding.p);
    FUZZ_CHECK(!content.p || text_is(content, "gzip"), "Content-Encoding: %.*s", (int)content.n, content.p);
    FUZZ_CHECK((a->status == 304) != (field(head, "Content-Type").p != NULL), "status %d and a type", a->status);
    a->chunked = coding.p != NULL;
    a->gzip = content.p != NULL;
    a->last = connection.p && text_is(connection, "close");
    a->etag = field(head, "ETag");
    a->location = field(head, "Location");
}

static struct text first_line(struct text head) {
    const char *end = (const char *)memchr(head.p, '\r', head.n);
    if (end) head.n = (size_t)(end - head.p);
    return head;
}

/* The answer to `request` (p NULL: to something that is not a whole head). 0: it is not complete. */
static int take_answer(struct text *rest, struct text request, struct answer *a) {
    const struct text before = *rest, line = request.p ? first_line(request) : request;
    const int http_1_0 = line.n > 9 && memcmp(line.p + line.n - 9, " HTTP/1.0", 9) == 0;
    struct text head = upto(rest, "\r\n\r\n");
    memset(a, 0, sizeof *a);
    if (!head.p) return 0;
    head.n += 2; /* so that each line has an end */
    check_status_line(upto(&head, "\r\n"), a);
    check_fields_of(head, a);
    a->head = line.n > 5 && memcmp(line.p, "HEAD ", 5) == 0;
    /* a refusal may come before the method is looked at: then what follows is its body, as nothing else can */
    if (a->status >= 400 && a->last && rest->n) a->head = 0;
    struct text all = {before.p, (size_t)(rest->p - before.p)};
    if (!take_body_of(a, rest, field(head, "Content-Length"), http_1_0)) return 0;
    a->whole = all;
    a->whole.n = (size_t)(rest->p - before.p);
    return 1;
}

static size_t gunzip(struct text in, uint8_t *out, size_t room) {
    static z_stream z;
    if ((z.state ? inflateReset(&z) : inflateInit2(&z, 31)) != Z_OK) abort();
    z.next_in = (uint8_t *)(uintptr_t)in.p;
    z.avail_in = (uInt)in.n;
    z.next_out = out;
    z.avail_out = (uInt)room;
    FUZZ_CHECK(inflate(&z, Z_FINISH) == Z_STREAM_END && z.avail_in == 0, "the body is not one gzip member: %s",
               z.msg ? z.msg : "truncated, or with something behind it");
    return room - z.avail_out;
}

static int mentions(struct text t, const char *what) {
    for (size_t i = 0, n = strlen(what); i + n <= t.n; i++)
        if (strncasecmp(t.p + i, what, n) == 0) return 1;
    return 0;
}

/* What was asked for, if that is plain to see: the file's number, else -1. */
static int plain_target(struct text line) {
    const char *begin = (const char *)memchr(line.p, ' ', line.n);
    const char *end = begin ? (const char *)memchr(begin + 1, ' ', (size_t)(line.p + line.n - begin - 1)) : NULL;
    for (int i = 0; end && i < FILES_SERVED; i++)
        if ((size_t)(end - begin) == strlen(files[i].name) + 2 && begin[1] == '/' &&
            memcmp(begin + 2, files[i].name, strlen(files[i].name)) == 0)
            return i;
    return -1;
}

/* A request for a file with nothing in it but a Host. */
static int is_plain(struct text request) {
    const struct text line = first_line(request);
    const size_t n = line.n + 8;
    if (line.n < 13 || memcmp(line.p, "GET /", 5) != 0 || memcmp(line.p + line.n - 9, " HTTP/1.1", 9) != 0) return 0;
    if (request.n <= n || memcmp(request.p + line.n, "\r\nHost: ", 8) != 0) return 0;
    for (size_t i = n; i < request.n; i++)
        if (!isalnum((unsigned char)request.p[i])) return 0;
    const int target = plain_target(line);
    return target >= 0 && line.n == 5 + strlen(files[target].name) + 9;
}

/* Whoever lets one of these pass may take the bytes of one request for another's (RFC 9112, sections 3.2, 5 and 6). */
static int must_be_refused(struct text request) {
    const struct text line = first_line(request);
    const int http_1_1 = line.n > 9 && memcmp(line.p + line.n - 9, " HTTP/1.1", 9) == 0;
    int hosts = 0, bad = 0;
    request.n += 2; /* so that each line has an end */
    (void)upto(&request, "\r\n");
    for (struct text f = upto(&request, "\r\n"); f.p; f = upto(&request, "\r\n")) {
        size_t name = 0;
        while (name < f.n && (isalnum((unsigned char)f.p[name]) || strchr("!#$%&'*+-.^_`|~", f.p[name]))) name++;
        bad |= name == 0 || name == f.n || f.p[name] != ':';
        for (size_t i = 0; i < f.n; i++) bad |= ((unsigned char)f.p[i] < ' ' && f.p[i] != '\t') || f.p[i] == 0x7f;
        hosts += name == 4 && strncasecmp(f.p, "Host", 4) == 0;
        bad |= name == 17 && strncasecmp(f.p, "Transfer-Encoding", 17) == 0;
        if (name == 14 && strncasecmp(f.p, "Content-Length", 14) == 0)
            for (size_t i = name + 1; i < f.n; i++) bad |= f.p[i] != '0' && f.p[i] != ' ' && f.p[i] != '\t';
    }
    return bad || hosts > 1 || (http_1_1 && hosts == 0);
}

/* The client wants no further answer on this connection (RFC 9112, section 9.3). */
static int wants_the_end(struct text request) {
    const struct text line = first_line(request);
    int close = 0, stay = 0;
    request.n += 2;
    (void)upto(&request, "\r\n");
    for (struct text f = upto(&request, "\r\n"); f.p; f = upto(&request, "\r\n")) {
        close |= f.n == 17 && strncasecmp(f.p, "Connection: close", 17) == 0;
        stay |= f.n > 11 && strncasecmp(f.p, "Connection:", 11) == 0;
    }
    return close || (!stay && line.n > 9 && memcmp(line.p + line.n - 9, " HTTP/1.0", 9) == 0);
}

static void check_answer(struct text request, const struct answer *a) {
    static uint8_t plain[BODY_BYTES];
    const int target = request.p ? plain_target(first_line(request)) : -1;
    int i = 0;
    /* 408: it was complete too late */
    if (request.p && is_plain(request)) FUZZ_CHECK(a->status == 200 || a->status == 408, "status %d", a->status);
    if (request.p && is_plain(request)) FUZZ_CHECK(!a->gzip, "gzip, and nobody asked for it");
    if (request.p && must_be_refused(request)) FUZZ_CHECK(a->status >= 400, "status %d", a->status);
    if (request.p && wants_the_end(request)) FUZZ_CHECK(a->last, "status %d, and the connection stays", a->status);
    FUZZ_CHECK((a->status == 301) == (a->location.p != NULL), "status %d and a place", a->status);
    FUZZ_CHECK((a->status == 200 || a->status == 304) == (a->etag.p != NULL), "status %d and an ETag", a->status);
    FUZZ_CHECK(request.p || (a->status >= 400 && a->last), "status %d for what is not a request", a->status);
    FUZZ_CHECK(!a->gzip || mentions(request, "gzip") || mentions(request, "*"), "gzip, and nobody asked for it");
    if (a->location.p)
        FUZZ_CHECK(a->location.p[0] == '/' && a->location.n > 1 && a->location.p[1] != '/', "to another place: %.*s",
                   (int)a->location.n, a->location.p);
    if (a->etag.p) {
        while (i < FILES_SERVED && !text_is(a->etag, files[i].etag)) i++;
        FUZZ_CHECK(i < FILES_SERVED, "an unknown ETag %.*s", (int)a->etag.n, a->etag.p);
        FUZZ_CHECK(target < 0 || target == i, "%s instead of %s", files[i].name, files[target].name);
    }
    if (a->head || a->status == 304) return;
    if (a->status != 200) {
        FUZZ_CHECK(!a->gzip && a->body.n > 5 && strtol(a->body.p, NULL, 10) == a->status, "%d: %.*s", a->status,
                   (int)a->body.n, a->body.p);
        return;
    }
    const size_t n = a->gzip ? gunzip(a->body, plain, sizeof plain) : a->body.n;
    FUZZ_CHECK(n == files[i].size && memcmp(a->gzip ? (char *)plain : a->body.p, files[i].data, n) == 0,
               "%zu other bytes instead of the %zu of %s", n, files[i].size, files[i].name);
}

/* All that a client got, against all that it sent. loose: something other than the requests decided about the end. */
static void check_client(const struct client *c, int loose, struct answers *list) {
    struct text received = {c->in, c->n}, sent = {(const char *)c->out, c->sent}, request;
    list->n = 0;
    FUZZ_CHECK(!c->n || !memmem(c->in, c->n, secret, sizeof secret - 1), "a file from outside was sent");
    for (;;) {
        const int asked = next_head(&sent, &request);
        if (!received.n) {
            FUZZ_CHECK(!asked || loose, "no answer to %.*s", (int)request.n, request.p);
            break;
        }
        FUZZ_CHECK(list->n < ANSWERS, "more answers than the input can have requests");
        struct answer *a = &list->a[list->n];
        const struct text before = received;
        if (!take_answer(&received, request, a)) {
            FUZZ_CHECK(loose, "an incomplete answer: %.*s", (int)before.n, before.p);
            break;
        }
        check_answer(request, a);
        list->n++;
        FUZZ_CHECK(!a->last || !received.n, "%zu bytes behind the last answer", received.n);
        if (a->last) break;
    }
}

/* The log: client "request" status bytes coding where why. */
static void check_log(const struct world *w, const struct answers *only, int answers) {
    struct text rest = {w->log, w->log_n};
    int n = 0;
    for (struct text line = upto(&rest, "\n"); line.p; line = upto(&rest, "\n"), n++) {
        struct text left = line;
        int quotes = 0;
        for (size_t i = 0; i < line.n; i++) {
            FUZZ_CHECK((line.p[i] & 0x80) || (line.p[i] >= ' ' && line.p[i] != 0x7f), "a control character in the log");
            quotes += line.p[i] == '"';
        }
        FUZZ_CHECK(quotes == 2, "%d quotes: %.*s", quotes, (int)line.n, line.p);
        (void)upto(&left, "\" ");
        const struct text status = upto(&left, " "), bytes = upto(&left, " "), coding = upto(&left, " ");
        FUZZ_CHECK(text_is(coding, "gzip") || text_is(coding, "identity"), "%.*s", (int)line.n, line.p);
        if (!only || n >= only->n) continue;
        FUZZ_CHECK((int)number(status, 10) == only->a[n].status, "another status: %.*s", (int)line.n, line.p);
        FUZZ_CHECK(text_is(coding, "gzip") == only->a[n].gzip, "another coding: %.*s", (int)line.n, line.p);
        FUZZ_CHECK(number(bytes, 10) <= only->a[n].whole.n, "more than was sent: %.*s", (int)line.n, line.p);
    }
    FUZZ_CHECK(rest.n == 0, "the log ends in a line");
    FUZZ_CHECK(answers < 0 || n == answers, "%d lines for %d answers", n, answers);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* one input                                                                                                        */

static int is_refusal(int status) { return status == 400 || status == 414 || status == 431; }

static void check_same(const struct answers *x, const struct answers *y, const char *what) {
    FUZZ_CHECK(x->n == y->n, "%d answers at once, %d %s", x->n, y->n, what);
    for (int i = 0; i < x->n; i++) {
        const struct answer *a = &x->a[i], *b = &y->a[i];
        if (is_refusal(a->status) && is_refusal(b->status)) continue;
        FUZZ_CHECK(a->whole.n == b->whole.n && memcmp(a->whole.p, b->whole.p, a->whole.n) == 0,
                   "another answer %d %s:\n%.*s\n---\n%.*s", i, what, (int)(a->whole.n < 600 ? a->whole.n : 600),
                   a->whole.p, (int)(b->whole.n < 600 ? b->whole.n : 600), b->whole.p);
    }
}

/* The bytes without marks. 1: there are marks because of which more than the bytes decides about the answers. */
static int strip(const uint8_t *from, size_t n, uint8_t *to, size_t *left) {
    int closed = 0;
    *left = 0;
    for (size_t i = 0; i < n; i++) {
        if (from[i] == SECOND || from[i] == CLOSE || from[i] == STOP) return 1;
        closed |= from[i] == HALF_CLOSE;
        if (!closed && (from[i] == 0 || from[i] >= MARKS)) to[(*left)++] = from[i];
    }
    return 0;
}

static int open_fds(void) {
    int n = 0;
    for (int fd = 0; fd < 128; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void run(struct world *w) {
    talk(w);
    finish(w);
    world_end(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct world at_once, in_pieces;
    static struct answers expected, got;
    size_t n;
    if (size < 2) return 0;
    if (!files[0].data) make_files(), make_backend();
    uint8_t *bytes = (uint8_t *)malloc(size);
    must(bytes != NULL, "malloc");
    const int fds = open_fds(), loose = strip(data + 1, size - 1, bytes, &n);
    /* where one client ends its side, all do */
    const int options = memchr(data + 1, HALF_CLOSE, size - 1) ? data[0] & ~WAITS : data[0];
    if (!loose) {
        world_start(&at_once, options & ~SMALL_BUFFERS, 1);
        world_join(&at_once, bytes, n, n + 1);
        run(&at_once);
        check_client(&at_once.client[0], 0, &expected);
        check_log(&at_once, &expected, expected.n);
    }
    world_start(&in_pieces, options, 0);
    world_join(&in_pieces, data + 1, size - 1, 0);
    if (!loose) world_join(&in_pieces, bytes, n, 1 + n / 48);
    run(&in_pieces);
    int answers = 0;
    for (int i = 0; i < in_pieces.clients; i++) {
        check_client(&in_pieces.client[i], loose, &got);
        if (!loose) check_same(&expected, &got, i ? "in steps" : "as the marks say");
        answers += got.n;
    }
    check_log(&in_pieces, NULL, loose ? -1 : answers);
    if (!loose) world_free(&at_once);
    world_free(&in_pieces);
    free(bytes);
    FUZZ_CHECK(open_fds() == fds, "%d fds became %d", fds, open_fds());
    return 0;
}
