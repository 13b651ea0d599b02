/* backend: an application's own backend behind the public vtable, written as the built-in ones are. It is a batching
   engine with one thread: while that runs a batch, requests gather, and the next batch takes up to BATCH of them.

   cc -O2 -I. examples/backend.c -o build/examples/backend -pthread

   A policy names it. The program prints where each of its operations ran, and why. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

enum { DEPTH = 16, BATCH = 4, JOBS = 12 };

struct engine { /* a channel: each loop that opens the backend gets one */
    pthread_t thread;
    pthread_mutex_t mutex; /* guards all below but exec, which is the thread's */
    pthread_cond_t changed;
    ol_op *op[DEPTH];      /* what we hold: first what has ended, then the batch that runs, then what waits */
    int held, ended, busy; /* how many: in all, ended, running */
    int closing, batches, ran;
    ol_notify *notify;
    ol_exec *exec;
};

static void *run_engine(void *arg) {
    struct engine *e = (struct engine *)arg;
    ol_op *batch[BATCH];
    pthread_mutex_lock(&e->mutex);
    while (!e->closing) {
        if (e->held == e->ended) pthread_cond_wait(&e->changed, &e->mutex);
        e->busy = e->held - e->ended < BATCH ? e->held - e->ended : BATCH;
        memcpy(batch, e->op + e->ended, (size_t)e->busy * sizeof *batch);
        pthread_mutex_unlock(&e->mutex); /* the work itself is done without it */
        for (int i = 0; i < e->busy; i++) ol_op_exec(e->exec, batch[i]);
        pthread_mutex_lock(&e->mutex);
        e->batches += e->busy > 0, e->ran += e->busy, e->ended += e->busy;
        if (e->busy) ol_notify_loop(e->notify); /* last: poll must find what it announces */
        e->busy = 0;
    }
    pthread_mutex_unlock(&e->mutex);
    return NULL;
}

static int engine_open(void *self, ol_notify *notify, ol_channel *out) {
    struct engine *e = (struct engine *)calloc(1, sizeof *e);
    (void)self; /* the backend's own state, shared by all channels: this one needs none */
    if (!e) return -ENOMEM;
    pthread_mutex_init(&e->mutex, NULL);
    pthread_cond_init(&e->changed, NULL);
    e->notify = notify;
    e->exec = ol_exec_create();
    if (!e->exec || pthread_create(&e->thread, NULL, run_engine, e) != 0) {
        if (e->exec) ol_exec_destroy(e->exec);
        free(e);
        return -EAGAIN;
    }
    out->self = e, out->depth = DEPTH, out->flags = OL_CHANNEL_NOTIFIES;
    return 0;
}

static int engine_submit(void *channel, ol_op *const *ops, int n) {
    struct engine *e = (struct engine *)channel;
    int i = 0;
    pthread_mutex_lock(&e->mutex);
    while (i < n && e->held < DEPTH) e->op[e->held++] = ops[i++];
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->mutex);
    return i;
}

static int engine_poll(void *channel, ol_op **ops, int max) {
    struct engine *e = (struct engine *)channel;
    pthread_mutex_lock(&e->mutex);
    const int n = max < e->ended ? max : e->ended;
    memcpy(ops, e->op, (size_t)n * sizeof *ops);
    e->ended -= n, e->held -= n;
    memmove(e->op, e->op + n, (size_t)e->held * sizeof *ops);
    pthread_mutex_unlock(&e->mutex);
    return n;
}

static int engine_look(void *channel) {
    struct engine *e = (struct engine *)channel;
    pthread_mutex_lock(&e->mutex);
    const int n = e->ended;
    pthread_mutex_unlock(&e->mutex);
    return n;
}

static int engine_cancel(void *channel, ol_op *op) { /* what isn't in a batch yet can still be stopped */
    struct engine *e = (struct engine *)channel;
    pthread_mutex_lock(&e->mutex);
    int i = e->ended + e->busy;
    while (i < e->held && e->op[i] != op) i++;
    const int found = i < e->held;
    if (found) {
        op->result = -ECANCELED;
        memmove(e->op + 1, e->op, (size_t)i * sizeof *e->op);
        e->op[0] = op, e->ended++;
        ol_notify_loop(e->notify);
    }
    pthread_mutex_unlock(&e->mutex);
    return found ? 0 : -EBUSY;
}

static void engine_close(void *channel) {
    struct engine *e = (struct engine *)channel;
    pthread_mutex_lock(&e->mutex);
    e->closing = 1;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->mutex);
    pthread_join(e->thread, NULL);
    printf("\nthe engine ran %d operations in %d batches\n", e->ran, e->batches);
    ol_exec_destroy(e->exec);
    free(e);
}

static ol_backend backend = {OL_BACKEND_VERSION,
                             1u << OL_OP_CALL | 1u << OL_OP_CRC32,
                             "engine",
                             NULL,
                             engine_open,
                             engine_submit,
                             engine_poll,
                             engine_look,
                             NULL,
                             engine_cancel,
                             engine_close,
                             NULL,
                             NULL};

struct job {
    ol_co co;
    ol_op op;
    int64_t result;
} jobs[JOBS];

static int64_t sleep_10_ms(void *arg) { return usleep(10000) + (arg != NULL); }

static void run_job(ol_co *co) {
    struct job *j = OL_SELF(co, struct job, co);
    OL_BEGIN(co);
    OL_AWAIT(j->result, ol_run(co, &j->op));
    printf("%-6s %8llu  %-9s %11lld  %s; %s\n", j->op.kind == OL_OP_CRC32 ? "crc32" : "call",
           (unsigned long long)j->op.len, ol_op_where(co->loop, &j->op), (long long)j->result, ol_op_why(&j->op),
           j->result < 0 ? ol_op_error(&j->op) : "ok");
    OL_END(co);
}

int main(int argc, char **argv) {
    const char *policy = "crc32  any  0-4095  software  -       -\nany    any  0-      async     engine  wait\n";
    ol_backend *const backends[] = {&backend};
    ol_loop_desc desc;
    ol_loop *loop;
    static char bytes[1 << 20];
    int i;
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        printf("usage: backend [POLICY]\n\nRuns operations by POLICY, the text of a table. Default:\n%s", policy);
        return argc != 2 || strcmp(argv[1], "--help") != 0;
    }
    memset(&desc, 0, sizeof desc);
    desc.backends = backends, desc.nbackends = 1;
    desc.policy = argc == 2 ? argv[1] : policy;
    if (ol_loop_create(&loop, &desc) != 0) return fprintf(stderr, "backend: %s\n", ol_error()), 1;
    printf("%-6s %8s  %-9s %11s  %s\n", "op", "bytes", "where", "result", "why");
    for (i = 0; i < JOBS; i++) {
        if (i % 2) ol_prep_call(&jobs[i].op, sleep_10_ms, NULL);
        else ol_prep_crc32(&jobs[i].op, 0, bytes, 1u << (9 + i));
        if (i == JOBS - 1) jobs[i].op.timeout_us = 5000; /* it waits longer behind the others: to be cancelled */
        if (ol_spawn(loop, &jobs[i].co, run_job, 0, 0) != 0) return fprintf(stderr, "backend: %s\n", ol_error()), 1;
    }
    i = ol_loop_run(loop);
    return ol_loop_destroy(loop) != 0 || i != 0;
}
