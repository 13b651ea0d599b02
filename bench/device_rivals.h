/* Two other ways to wait for a device: a thread for each request, which the kernel switches, and user threads, by
   Boost.Context. Both use the emulated device through its vtable, and the application's work is the same. */
#ifndef DEVICE_RIVALS_H
#define DEVICE_RIVALS_H

#include <dlfcn.h>

enum { RIVALS = 128 };
static struct rival_device {
    ol_backend *backend;
    ol_channel channel;
} rival;

static void rival_open(ol_backend *backend) {
    rival.backend = backend;
    must(backend->open(backend->self, NULL, &rival.channel) == 0, "a channel");
}
static void rival_submit(ol_op *op) {
    op->where = 1;
    op->mode = OL_ASYNC;
    if (rival.backend->submit(rival.channel.self, &op, 1) != 1) fail("the device took no operation: its queue is full");
}
static void rival_idle(void) { /* nobody has anything to do before the next completion */
    const int64_t now = clock_now();
    clock_idle(rival.backend->next_ns(rival.channel.self, now) - now);
}

/* ---- a thread for each request ----------------------------------------------------------------------------------- */

/* All on one CPU. Who has submitted sleeps on a futex; each submitter looks for completions and wakes their owners, and
   who finds that all others sleep waits for the device. So no time is spent on spinning, and no thread on polling. */
static struct {
    pthread_mutex_t lock;
    struct request *request;
    uint32_t word[RIVALS]; /* 1: its result is there */
    uint8_t asleep[RIVALS];
    int running; /* threads that don't sleep */
} gang;

/* The lock is held, but not while others are woken, so that they find it free. */
static void gang_poll(uint32_t self) {
    ol_op *got[16];
    uint32_t wake[16], wakes = 0;
    if (!rival.backend->look(rival.channel.self)) return;
    const int n = rival.backend->poll(rival.channel.self, got, 16);
    for (int i = 0; i < n; i++) {
        const uint32_t k = (uint32_t)(OL_CONTAINER(got[i], struct request, op) - gang.request);
        if (k == self || !gang.asleep[k]) __atomic_store_n(&gang.word[k], 1u, __ATOMIC_RELEASE);
        else wake[wakes++] = k;
    }
    if (!wakes) return;
    gang.running += (int)wakes;
    for (uint32_t i = 0; i < wakes; i++) gang.asleep[wake[i]] = 0;
    pthread_mutex_unlock(&gang.lock);
    for (uint32_t i = 0; i < wakes; i++) {
        __atomic_store_n(&gang.word[wake[i]], 1u, __ATOMIC_RELEASE);
        syscall(SYS_futex, &gang.word[wake[i]], 129 /* WAKE, private */, 1, NULL, NULL, 0);
    }
    pthread_mutex_lock(&gang.lock);
}
static void gang_wait(uint32_t self) {
    while (!__atomic_load_n(&gang.word[self], __ATOMIC_ACQUIRE)) {
        gang_poll(self);
        if (gang.word[self]) break;
        if (gang.running == 1) {
            rival_idle();
            continue;
        }
        gang.running--;
        gang.asleep[self] = 1;
        pthread_mutex_unlock(&gang.lock);
        while (!__atomic_load_n(&gang.word[self], __ATOMIC_ACQUIRE))
            syscall(SYS_futex, &gang.word[self], 128 /* WAIT, private */, 0, NULL, NULL, 0);
        pthread_mutex_lock(&gang.lock); /* who woke it has counted it as running */
    }
}
static void *gang_member(void *arg) {
    struct request *r = (struct request *)arg;
    const uint32_t self = (uint32_t)(r - gang.request);
    pthread_mutex_lock(&gang.lock);
    while (!r->tally->stop) {
        request_begin(r);
        gang.word[self] = 0;
        rival_submit(&r->op);
        gang_wait(self);
        r->n = r->op.result;
        request_end(r);
        request_count(r);
        pthread_mutex_unlock(&gang.lock); /* the application's work needs no lock; here others may have it */
        pthread_mutex_lock(&gang.lock);
    }
    while (gang.running == 1 && rival.backend->next_ns(rival.channel.self, 0) >= 0) { /* all others sleep: wake one */
        rival_idle();
        gang_poll(RIVALS);
    }
    gang.running--;
    pthread_mutex_unlock(&gang.lock);
    return NULL;
}
static void gang_run(struct request *r, int many) {
    pthread_t thread[RIVALS];
    pthread_attr_t attr;
    memset(&gang, 0, sizeof gang);
    pthread_mutex_init(&gang.lock, NULL);
    gang.request = r;
    gang.running = many;
    ck.cpu = CLOCK_PROCESS_CPUTIME_ID; /* the clock is read under the lock alone, so it is one clock */
    cores_reset();
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    pthread_mutex_lock(&gang.lock);
    for (int i = 0; i < many; i++)
        if (pthread_create(&thread[i], &attr, gang_member, &r[i]) != 0)
            fail("can't start %d threads: raise ulimit -u", many);
    pthread_mutex_unlock(&gang.lock);
    for (int i = 0; i < many; i++) pthread_join(thread[i], NULL);
    pthread_attr_destroy(&attr);
    ck.cpu = CLOCK_THREAD_CPUTIME_ID;
    clock_reference();
}

/* ---- user threads ------------------------------------------------------------------------------------------------ */

typedef void *fcontext; /* as boost/context/detail/fcontext.hpp has it, which is for C++ alone */
typedef struct {
    fcontext from;
    void *data;
} fcontext_transfer;
static fcontext_transfer (*fcontext_jump)(fcontext to, void *data);
static fcontext (*fcontext_make)(void *stack_end, size_t size, void (*fn)(fcontext_transfer));

static int fibers_found(void) {
    static const char *const names[] = {"libboost_context.so", "libboost_context.so.1.74.0",
                                        "libboost_context.so.1.83.0", "libboost_context.so.1.81.0"};
    for (size_t i = 0; i < sizeof names / sizeof *names && !fcontext_jump; i++) {
        void *lib = dlopen(names[i], RTLD_NOW);
        void *jump = lib ? dlsym(lib, "jump_fcontext") : NULL, *make = lib ? dlsym(lib, "make_fcontext") : NULL;
        if (!jump || !make) continue;
        memcpy(&fcontext_jump, &jump, sizeof jump);
        memcpy(&fcontext_make, &make, sizeof make);
    }
    return fcontext_jump != NULL;
}

static struct {
    fcontext scheduler, context[RIVALS];
    struct request *request;
    uint32_t ready[RIVALS]; /* a ring; each is in it at most once */
    uint32_t head, tail;
} team;

static void team_wait(void) { team.scheduler = fcontext_jump(team.scheduler, NULL).from; }
static void team_member(fcontext_transfer t) {
    struct request *r = (struct request *)t.data;
    team.scheduler = t.from;
    while (!r->tally->stop) {
        request_begin(r);
        rival_submit(&r->op);
        team_wait();
        r->n = r->op.result;
        request_end(r);
        request_count(r);
    }
    r->item = NULL; /* it has ended */
    for (;;) team_wait();
}
static void team_poll(void) {
    ol_op *got[16];
    if (!rival.backend->look(rival.channel.self)) return;
    const int n = rival.backend->poll(rival.channel.self, got, 16);
    for (int i = 0; i < n; i++)
        team.ready[team.tail++ % RIVALS] = (uint32_t)(OL_CONTAINER(got[i], struct request, op) - team.request);
}
static void team_run(struct request *r, int many) {
    static char *stacks;
    int left = many;
    if (!stacks) stacks = (char *)memory((size_t)RIVALS * STACK);
    team.request = r;
    team.head = team.tail = 0;
    cores_reset();
    for (int i = 0; i < many; i++) {
        team.context[i] = fcontext_make(stacks + (size_t)(i + 1) * STACK, STACK, team_member);
        team.ready[team.tail++ % RIVALS] = (uint32_t)i;
    }
    while (left) {
        if (team.head == team.tail) {
            rival_idle();
        } else {
            const uint32_t k = team.ready[team.head++ % RIVALS];
            team.context[k] = fcontext_jump(team.context[k], &r[k]).from;
            left -= r[k].item == NULL;
        }
        team_poll();
    }
}

#endif
