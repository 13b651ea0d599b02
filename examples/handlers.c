/* handlers: callbacks instead of coroutines. A server that factors numbers, one a line; each fd has one handler.

   cc -O2 -I. examples/handlers.c -o build/examples/handlers -pthread

   Small numbers are factored on the spot, large ones on a worker: the policy below decides. While an operation of a
   connection is out its handler isn't called: its further lines wait, and those of other connections are answered.
   Try: build/examples/handlers --port 7001, and in another terminal: nc 127.0.0.1 7001 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

/* Its "bytes" are the divisions that a number may take: see `take`. */
static const char policy[] = "call any 0-65535 software - -\ncall any 64K- async threads wait\n";

struct conn {                  /* one for each client */
    struct conn *next, **link; /* list of all, and what points to this one in it */
    ol_handler handler;
    ol_op op;
    ol_fd fd;
    uint64_t number, factor[64];
    size_t in, out;   /* bytes of `line`, and of `answer` to be sent */
    int busy, closed; /* the operation is out; end was called */
    char line[256], answer[256];
};

static struct {
    ol_loop *loop;
    ol_fd listener;
    ol_handler handler;
    ol_post_node stop;
    struct conn *conns;
    unsigned long long numbers;
} server;

static void end(struct conn *c) { /* while its operation is out it belongs to the library, and `done` ends it */
    if (!c->closed) {
        ol_close(server.loop, c->fd); /* the handler isn't called any more */
        *c->link = c->next;
        if (c->next) c->next->link = c->link;
    }
    c->closed = 1;
    if (!c->busy) free(c);
}

static int64_t factor(void *arg) { /* runs on a worker: touches nothing but what belongs to its operation */
    struct conn *c = (struct conn *)arg;
    uint64_t n = c->number;
    int64_t k = 0;
    for (uint64_t d = 2; d <= n / d; d += 1 + (d & 1))
        for (; n % d == 0; n /= d) c->factor[k++] = d;
    if (n > 1 || !k) c->factor[k++] = n;
    return k;
}

static void serve(struct conn *c);

static void done(ol_loop *loop, ol_op *op) { /* called from the loop; the connection is held until it returns */
    struct conn *c = OL_CONTAINER(op, struct conn, op);
    size_t n = (size_t)sprintf(c->answer, "%llu:", (unsigned long long)c->number);
    for (int64_t i = 0; i < op->result; i++)
        n += (size_t)sprintf(c->answer + n, " %llu", (unsigned long long)c->factor[i]);
    c->out = n + (size_t)sprintf(c->answer + n, "  %s\n", ol_op_where(loop, op));
    c->busy = 0;
    server.numbers++;
    c->closed ? end(c) : serve(c);
}

static int take(struct conn *c) { /* the next line: 1 there was one, 0 it isn't complete, -1 this client must go */
    char *const newline = (char *)memchr(c->line, '\n', c->in), *rest;
    if (!newline) return c->in == sizeof c->line ? -1 : 0;
    *newline = 0;
    c->number = strtoull(c->line, &rest, 10);
    const int good = c->line[0] >= '0' && c->line[0] <= '9' && (!*rest || *rest == '\r') && !(c->number >> 53);
    c->in -= (size_t)(newline + 1 - c->line);
    memmove(c->line, newline + 1, c->in);
    if (!good) return c->out = (size_t)sprintf(c->answer, "error: a line must be a number below 2^53\n"), 1;
    ol_prep_call(&c->op, factor, c);
    while (c->op.len * c->op.len < c->number) c->op.len = c->op.len * 2 + 1; /* it takes fewer divisions than that */
    c->busy = ol_submit(server.loop, &c->op, done) == 0;
    return c->busy ? 1 : -1;
}

static void on_ready(ol_loop *loop, ol_handler *handler, int ready) {
    struct conn *c = OL_CONTAINER(handler, struct conn, handler);
    const int64_t n = ready & OL_READABLE ? ol_try_read(loop, c->fd, c->line + c->in, sizeof c->line - c->in) : -EAGAIN;
    if (n > 0) c->in += (size_t)n;             /* one read at a time: it is called again if there is more */
    n > 0 || n == -EAGAIN ? serve(c) : end(c); /* at the end of the stream all lines have been answered */
}

/* Sends, then takes lines, until it would have to wait. A client that doesn't read its answers isn't read either. */
static void serve(struct conn *c) {
    int going = 1;
    while (going > 0 && !c->busy) {
        const int64_t n = c->out ? ol_try_write(server.loop, c->fd, c->answer, c->out) : 0;
        if (n > 0) memmove(c->answer, c->answer + n, c->out -= (size_t)n);
        going = n > 0 ? 1 : n == -EAGAIN ? 0 : n < 0 ? -1 : take(c);
    }
    if (going < 0) end(c);
    else ol_watch(server.loop, c->fd, &c->handler, c->out ? OL_WRITABLE : OL_READABLE, on_ready);
}

static void on_listener(ol_loop *loop, ol_handler *handler, int ready) {
    static int64_t reported;
    const int64_t fd = ol_try_accept(loop, server.listener); /* with no free fd it rests for a moment */
    struct conn *c = fd < 0 ? NULL : (struct conn *)calloc(1, sizeof *c);
    (void)handler, (void)ready;
    if (fd < 0 && fd != -EAGAIN && fd != reported) fprintf(stderr, "handlers: accept: %s\n", ol_error()), reported = fd;
    if (fd >= 0 && !c) ol_close(loop, (ol_fd)fd);
    if (!c) return;
    c->fd = (ol_fd)fd, c->next = server.conns, c->link = &server.conns;
    if (c->next) c->next->link = &c->next;
    server.conns = c;
    ol_watch(loop, c->fd, &c->handler, OL_READABLE, on_ready);
}

static void stop(ol_loop *loop, ol_post_node *node) { (void)node, ol_loop_stop(loop); }
static void on_signal(int number) { (void)number, (void)ol_post(server.loop, &server.stop); }
static int fail(const char *what) { return fprintf(stderr, "handlers: %s: %s\n", what, ol_error()), 1; }

static const char usage[] = "usage: handlers [--port N]\n\n"
                            "Listens on 127.0.0.1 and answers each line, a number below 2^53, with its prime factors\n"
                            "and where it was factored, until SIGTERM or ^C.\n"
                            "  --port N   0 to 65535; 0, the default, picks a free one and prints it\n";

int main(int argc, char **argv) {
    static struct sockaddr_in a;
    static ol_loop_desc desc;
    socklen_t len = sizeof a;
    char *rest = NULL;
    const long port = argc == 3 && strcmp(argv[1], "--port") == 0 ? strtol(argv[2], &rest, 10) : 0;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) return fputs(usage, stdout) < 0;
    if (argc != 1 && (!rest || rest == argv[2] || *rest || port < 0 || port > 65535)) return fputs(usage, stderr), 2;
    desc.policy = policy;
    a.sin_family = AF_INET, a.sin_port = htons((uint16_t)port), a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (ol_loop_create(&server.loop, &desc)) return fail("cannot create a loop");
    if (ol_listen(server.loop, (struct sockaddr *)&a, len, 512, 0, 0, &server.listener)) return fail("cannot listen");
    server.stop.fn = stop, signal(SIGTERM, on_signal), signal(SIGINT, on_signal);
    getsockname(ol_fd_raw(server.loop, server.listener), (struct sockaddr *)&a, &len);
    ol_watch(server.loop, server.listener, &server.handler, OL_READABLE, on_listener);
    printf("listening on 127.0.0.1:%d\n", ntohs(a.sin_port)), fflush(stdout);
    if (ol_loop_run(server.loop) != 0) return fail("the loop failed");
    while (server.conns) end(server.conns);
    ol_close(server.loop, server.listener);
    if (ol_loop_destroy(server.loop) != 0) return fail("cannot free the loop"); /* it waits for what is out */
    printf("%llu numbers factored\n", server.numbers);
    return 0;
}
