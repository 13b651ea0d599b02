/* A program that uses the library for real: it echoes over a socket pair, and runs a call and a crc32 by operation.
   run.sh builds it in many ways. It is C and C++.

   ENTRY   name of the function; when it isn't defined, the program is whole and this is main
   OFFLOAD_IMPLEMENTATION   whether the implementation is in this file: by run.sh */
#include "offload.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#if !defined(ENTRY)
#define ENTRY main
#endif

struct talk {
    ol_co server, client;
    ol_fd fd[2];
    ol_op op;
    int64_t n, m;
    int64_t called, crc, deflated;
    const char *text;
    char in[64], out[64], back[64], packed[256];
    int ended, fails;
};

static int64_t add_one(void *arg) { return *(int64_t *)arg + 1; }

static void serve(ol_co *co) {
    struct talk *t = OL_SELF(co, struct talk, server);
    OL_BEGIN(co);
    for (;;) {
        OL_AWAIT(t->n, ol_read(co, t->fd[0], t->in, sizeof t->in));
        if (t->n <= 0) break;
        OL_AWAIT(t->n, ol_write(co, t->fd[0], t->in, (size_t)t->n));
        if (t->n < 0) break;
    }
    t->ended++;
    OL_END(co);
}

static void ask(ol_co *co) {
    struct talk *t = OL_SELF(co, struct talk, client);
    OL_BEGIN(co);
    OL_AWAIT(t->m, ol_write(co, t->fd[1], t->out, strlen(t->out)));
    OL_AWAIT(t->m, ol_read(co, t->fd[1], t->back, sizeof t->back));
    t->m = 41;
    OL_AWAIT(t->called, ol_run(co, ol_prep_call(&t->op, add_one, &t->m)));
    OL_AWAIT(t->crc, ol_run(co, ol_prep_crc32(&t->op, 0, "123456789", 9)));
    OL_AWAIT(t->deflated, ol_run(co, ol_prep_deflate(&t->op, OL_GZIP, t->packed, sizeof t->packed, t->out, 5)));
    t->text = ol_co_error(co);
    ol_close(co->loop, t->fd[1]);
    t->ended++;
    OL_END(co);
}

static void expect(struct talk *t, int ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "program.c: %s\n", what);
    t->fails++;
}

int ENTRY(void);
int ENTRY(void) {
    static struct talk t;
    ol_loop *loop = NULL;
    int raw[2];
    memset(&t, 0, sizeof t);
    memcpy(t.out, "hello", 6);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, raw) != 0 || ol_loop_create(&loop, NULL) != 0) {
        fprintf(stderr, "program.c: no socket pair, or no loop: %s\n", ol_error());
        return 1;
    }
    expect(&t, ol_attach(loop, raw[0], OL_LATENCY, &t.fd[0]) == 0, "attach");
    expect(&t, ol_attach(loop, raw[1], OL_BATCH, &t.fd[1]) == 0, "attach");
    expect(&t, ol_spawn(loop, &t.server, serve, t.fd[0], 0) == 0, "spawn");
    expect(&t, ol_spawn(loop, &t.client, ask, t.fd[1], 0) == 0, "spawn");
    expect(&t, ol_loop_run(loop) == 0, "run");
    expect(&t, t.ended == 2, "a coroutine did not reach its end");
    expect(&t, strcmp(t.back, "hello") == 0, "the echo differs");
    expect(&t, t.called == 42, "call gave a wrong result");
    expect(&t, t.crc == 0xcbf43926, "crc32 of 123456789 is wrong"); /* the check value in the catalogue of CRCs */
#if defined(OFFLOAD_ISAL)
    expect(&t, t.deflated > 18, "deflate failed");
    expect(&t, memcmp(t.packed, "\x1f\x8b\x08", 3) == 0, "deflate made no gzip member");
#else
    expect(&t, t.deflated == -ENOTSUP, "deflate without OFFLOAD_ISAL must answer -ENOTSUP");
    expect(&t, strstr(t.text, "OFFLOAD_ISAL") != NULL, "the text doesn't name OFFLOAD_ISAL");
#endif
    expect(&t, ol_version() == (OL_VERSION_MAJOR << 16 | OL_VERSION_MINOR << 8 | OL_VERSION_PATCH), "version");
    expect(&t, ol_close(loop, t.fd[0]) == 0, "close");
    expect(&t, ol_loop_destroy(loop) == 0, "destroy");
    return t.fails != 0;
}
