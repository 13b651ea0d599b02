/* sim.c: random programs on the simulated kernel, with checkers that know nothing of the library's insides.

   cc -std=c11 -O1 -g -I. tests/sim/sim.c -o build/tests/sim -pthread

   Each seed is one program: loops with listeners, connections that parse, compute and answer, clients, pipes, operations
   in every form, timers, posts from other threads, and mischief: closes, cancels, deadlines and policy changes at the
   worst moments, on a kernel and devices that delay, refuse and fail. Then the faults stop, and everything must come to
   its end. `sim --seed S` replays one with a log of every event. With -DOFFLOAD_ISAL (and -lisal) deflate takes part.

   What is checked, each in O(1) where it happens:
     gate        one root alive in a partition; roots start in the order of their spawns; not before the callbacks of
                 operations that an earlier one submitted
     stream      each connection's bytes arrive complete and in order, unless the seed broke it
     operation   each accepted one completes once, with its true result if it ran; a stopped one never ran; its buffers
                 are not written afterwards
     callback    never from inside ol_submit
     resume      never from inside another coroutine or its own await
     error       each negative result has its cause: closed, cancelled, timed out, faulty
     time        sleeps, deadlines and timers never early, and not late beyond a bound
     order       a device gets the operations of a class in the order of their submission
     class       latency before batch, batch after at most latency_run
     count       the library's counters agree with what is alive
     close       the peer sees it at once; close(2) at once if nothing is in flight, else operations are asked to stop
     ending      everything ends in bounded time once faults stop; nothing is left open or allocated
   and the kernel's own: use of closed fds, double close, close with an operation in flight, lost wake-up, busy loop. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "kernel.h"
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"
#include "device.h"
#include "world.h"
#include "roots.h"
#include "tasks.h"
#include "streams.h"
#include "extras.h"
#include "callbacks.h"

/* ---------------------------------------------------------------------------------------------------------------- */
/* Mischief: from coroutines, callbacks, timers, posts and between steps                                            */

static void mischief_fd(int what) {
    fdrec *f;
    if (!w.nopen) return;
    f = w.open[k_below((uint32_t)w.nopen)];
    if (what && w.nroots < ROOTS - 64) {
        all.spawns++;
        extra_start(f);
    } else if (!what && !(f == w.listener[f->loop] && k_below(20))) {
        taint(f->party);
        k_trace("mischief closes", (int64_t)(f - w.fds), 0);
        fd_close(f);
    }
}
static void mischief_task(void) {
    task *t;
    int e;
    if (!w.ntasks) return;
    t = w.tasks[k_below((uint32_t)w.ntasks)];
    t->canceled = 1;
    k_trace("mischief cancels", t->id, 0);
    e = ol_op_cancel(w.loop[t->loop], &t->op);
    CHECK("error", e == 0 || e == -EINVAL); /* EINVAL: it is complete, and its root has not run yet */
    all.op_cancels++;
}
static void mischief_timer(int loop) {
    clock_timer *t = &w.timer[loop][k_below(TIMERS)];
    if (k_below(3)) timer_start(loop, t);
    else timer_stop(t);
}

static void class_change(void) {
    root *r = (root *)(void *)w.running;
    if (!r) return;
    r->cls = 1 + (int)k_below(2);
    CHECK("error", ol_set_class(&r->co, r->cls) == 0);
    CHECK("error", ol_set_class(&r->co, 3) == -EINVAL);
}

/* `loop` is the one that runs; between steps any. */
static void mischief(int loop) {
    int64_t ns; /* not in the call: the order of arguments is the compiler's, and each seed must run alike on all */
    int n;
    if (w.phase != CHAOS || w.budget <= 0 || k_below(3)) return;
    w.budget--;
    switch (k_below(17)) {
    case 0: mischief_fd(0); break;
    case 1:
    case 2:
    case 3: mischief_fd(1); break;
    case 4:
        if (w.nroots) root_cancel(w.roots[k_below((uint32_t)w.nroots)]);
        break;
    case 5:
        ns = k_range(-1, 3 * MS);
        if (w.nroots) root_deadline(w.roots[k_below((uint32_t)w.nroots)], ns);
        break;
    case 6:
    case 7: mischief_task(); break;
    case 8: policy_set(loop); break;
    case 9:
    case 10: mischief_timer(loop); break;
    case 11: outside(); break;
    case 12:
        if (w.clients-- > 0) client_start(loop);
        break;
    case 13:
        if (w.pumps-- > 0) pump_start();
        break;
    case 14: ol_loop_stop(w.loop[loop]); break; /* ends the next ol_loop_run after its round */
    case 15: class_change(); break;
    default:
        for (n = 1 + (int)k_below(k_below(4) ? 3 : 12); n > 0; n--)
            task_submit(loop, w.stepping == loop ? w.current : NULL);
        break;
    }
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* A seed                                                                                                           */

/* 0 mostly, else a small or a large probability: seeds differ in character. */
static int some(int small, int large) {
    const uint32_t x = k_below(4);
    return x < 2 ? 0 : x == 2 ? small : large;
}

static void choose_faults(void) {
    k_faults *f = &sim.faults;
    f->late = some(100, 500);
    f->spurious = some(20, 200);
    f->ghost = some(20, 200);
    f->eintr = some(20, 200);
    f->short_read = some(50, 400);
    f->short_write = some(50, 400);
    f->again = some(20, 200);
    f->enomem = some(50, 300); /* large, because allocations are rare */
    f->ctl = some(5, 50);
    f->accept_abort = some(20, 200);
    f->accept_full = some(10, 100);
    f->socket_full = some(10, 100);
    f->interrupt = some(5, 50);
    f->stall = some(1, 10);
    w.old_kernel = f->no_openat2 = k_below(4) == 0;
    f->no_nowait = k_below(4) == 0;
    if (k_below(5) == 0) sim.fd_limit = K_FIRST_FD + 10 + (int)k_below(20);
    sim.oversleep = k_below(2) ? 0 : 50 * US;
    sim.tick = 1 + (int)k_below(60);
}
static void choose_device(int i) {
    static const char *const name[DEVS] = {"dev0", "dev1"};
    dev_params p;
    memset(&p, 0, sizeof p);
    p.depth = 1 + k_below(k_below(2) ? 3 : 30);
    p.flags = k_below(2) ? OL_CHANNEL_NOTIFIES : 0;
    if (k_below(6) == 0) p.flags |= OL_CHANNEL_NO_SYNC;
    p.next = (int)k_below(3);
    p.base = k_range(100, k_below(2) ? 2 * US : 50 * US);
    p.jitter = k_range(0, k_below(2) ? 5 * US : 500 * US);
    p.slow = some(10, 100);
    p.hang = some(5, 30);
    p.few = some(100, 500);
    p.refuse = some(50, 300);
    p.fail = some(10, 50);
    p.stop = k_below(5) == 0 ? -1 : (int)k_below(1001);
    p.fault = some(10, 100);
    dev_init(&w.device[i], name[i], &p);
    w.device[i].on_take = device_takes;
    w.device[i].on_cancel = device_cancel;
    w.device[i].on_done = device_done;
}
static void choose_loop(int i) {
    static ol_backend *backends[DEVS];
    ol_loop_desc *d = &w.desc[i];
    int j;
    for (j = 0; j < DEVS; j++) backends[j] = &w.device[j].backend;
    d->backends = backends;
    d->nbackends = DEVS;
    d->no_pool = 1;
    d->events = 1 + k_below(32);
    d->turn = 1 + k_below(64);
    d->latency_run = 1 + k_below(8);
    d->budget = 1 + k_below(64);
    d->park_max = 1 + k_below(k_below(2) ? 4 : 64);
    d->dequeue_batch = 1 + k_below(16);
    d->spin_ns = k_below(3) ? 0 : k_range(1, 5 * US);
    d->sync_ns = k_range(1, k_below(2) ? 2 * US : 200 * US);
    d->poll_ns = k_range(500, 5 * US);
    CHECK("test", ol_loop_create(&w.loop[i], d) == 0);
}
static void listener_start(int i) {
    struct sockaddr_in in = k_address(8000 + i);
    acceptor *a = (acceptor *)calloc(1, sizeof *a);
    ol_fd handle;
    const int cls = (int)k_below(3), backlog = 1 + (int)k_below(8);
    CHECK("test", ol_listen(w.loop[i], (struct sockaddr *)&in, sizeof in, backlog, 0, cls, &handle) == 0);
    w.listener[i] = a->f = fd_new(i, handle, cls, part_new(), NULL);
    CHECK("test", root_spawn(&a->r, a, R_ACCEPTOR, i, a->f->part, a->f, acceptor_entry) == 0);
}

static void build(void) {
    int i, parties;
    w.nloops = 1 + (int)k_below(LOOPS);
    w.stepping = -1;
#if defined(OFFLOAD_ISAL)
    inflater = ol_exec_create();
#endif
    for (i = 0; i < DEVS; i++) choose_device(i);
    for (i = 0; i < w.nloops; i++) {
        choose_loop(i);
        listener_start(i);
        policy_set(i);
    }
    for (i = 0; i < FILES; i++) {
        const uint64_t size = k_below(900), seed = k_rand();
        char name[16];
        snprintf(name, sizeof name, "file%d", i);
        w.file[i] = k_file_add(name, size, seed);
        w.file[i]->cached = k_below(2) ? w.file[i]->size : k_below((uint32_t)w.file[i]->size + 1);
        w.file[i]->name_cached = (int)k_below(2);
    }
    for (i = 0; i < NODES; i++) {
        w.notes[i].node.fn = on_note;
        w.notes[i].loop = (int)k_below((uint32_t)w.nloops);
    }
    parties = 2 + (int)k_below(12);
    for (i = 0; i < parties; i++) {
        party *p = party_new(1);
        k_at(k_range(1, 3 * MS), script, p, 0);
    }
    w.budget = 20 + (int)k_below(200);
    w.clients = (int)k_below(8);
    w.pumps = (int)k_below(4);
    if (k_below(2)) k_at(k_range(1, MS), outside_later, NULL, 0);
    sim.interrupt = outside;
    choose_faults();
}

/* Are only acceptors left, and those that wait behind them? */
static int calm(void) {
    int i;
    for (i = 0; i < w.nparties; i++)
        if (w.parties[i].outside && !w.parties[i].over) return 0;
    for (i = 0; i < w.nroots; i++)
        if (w.roots[i]->kind != R_ACCEPTOR &&
            !(w.roots[i]->part == w.listener[w.roots[i]->loop]->part && !w.roots[i]->started))
            return 0;
    return w.ntasks == 0;
}

/* Falls asleep, or goes on sleeping: then no post and no announced completion may be waiting. */
static void on_asleep(k_file *ep) {
    int i;
    (void)ep;
    if (w.stepping < 0) return;
    for (i = 0; i < NODES; i++)
        if (w.notes[i].loop == w.stepping && w.notes[i].pending) k_fail("lost wake-up", "sleeps although a post waits");
    for (i = 0; i < DEVS; i++)
        if ((w.device[i].p.flags & OL_CHANNEL_NOTIFIES) && w.device[i].channel[w.stepping].finished)
            k_fail("lost wake-up", "sleeps although a device has announced a completion");
}

/* Nothing would wake the loop: right only if nobody waits for anything. */
static int on_idle(void) {
    if (w.phase != CHAOS && !calm()) return 0;
    outside();
    return 1;
}

static void check_counts(int i) {
    ol_loop_stats s;
    s.size = sizeof s;
    ol_loop_get_stats(w.loop[i], &s);
    CHECK("count", (int)s.roots == w.alive[i]);
    CHECK("count", (int)s.ops <= w.inflight[i]);
}
static void step(int i, int64_t timeout) {
    int r;
    w.stepping = i;
    r = ol_loop_step(w.loop[i], timeout);
    w.stepping = -1;
    if (r < 0) k_fail("error", "ol_loop_step gave %d: %s", r, ol_error());
    if (w.alive[i]) CHECK("count", r == 1);
    check_counts(i);
    all.turns++;
}
static int64_t a_timeout(void) {
    const uint32_t x = k_below(4);
    if (x == 0) return 0;
    if (w.nloops == 1 && x == 1) return -1;
    return k_range(1, x == 2 ? 10 * US : MS);
}

static void chaos(void) {
    int i, turn;
    sim.idle = on_idle;
    sim.asleep = on_asleep;
    for (turn = 0; turn < 3000 && (turn < 100 || sim.nevents < 1200); turn++) {
        i = k_below(5) ? turn % w.nloops : (int)k_below((uint32_t)w.nloops);
        mischief(i);
        if (turn == 50) CHECK("error", !w.alive[i] || ol_loop_destroy(w.loop[i]) == -EBUSY);
        step(i, a_timeout());
    }
}

/* The faults stop; what hung or fell silent goes on. */
static void quiet(void) {
    int i, j;
    memset(&sim.faults, 0, sizeof sim.faults);
    sim.fd_limit = 1024;
    sim.interrupt = NULL;
    for (i = 0; i < DEVS; i++) {
        dev_release(&w.device[i]);
        w.device[i].p.hang = w.device[i].p.refuse = w.device[i].p.fail = w.device[i].p.fault = 0;
    }
    for (i = 0; i < w.nparties; i++) {
        w.parties[i].stalled = 0;
        if (w.parties[i].outside && !w.parties[i].over) script_soon(&w.parties[i], w.parties[i].lag);
    }
    for (i = 0; i < w.nloops; i++)
        for (j = 0; j < TIMERS; j++)
            if (k_below(2)) timer_stop(&w.timer[i][j]);
}

/* Runs on until everything has come to its end by itself. */
static void end_by_itself(void) {
    int i, turn;
    w.phase = CALM;
    quiet();
    for (turn = 0; !calm(); turn++) {
        if (turn > 200000) k_fail("ending", "things are still under way after %d turns without faults", turn);
        step(turn % w.nloops, w.nloops == 1 && k_below(2) ? -1 : 200 * US);
    }
    w.phase = ENDING;
    for (i = 0; i < w.nloops; i++)
        if (!w.listener[i]->closed) fd_close(w.listener[i]);
    for (i = 0; i < w.nloops; i++) {
        w.stepping = i;
        CHECK("error", ol_loop_run(w.loop[i]) == 0); /* may be stopped at once */
        CHECK("error", ol_loop_run(w.loop[i]) == 0);
        CHECK("ending", w.alive[i] == 0 && w.inflight[i] == 0);
        w.stepping = -1;
        all.runs++;
    }
}

/* Or is asked to end, in the middle of everything. */
static void end_by_drain(void) {
    int i, j, r;
    w.phase = ENDING;
    for (i = 0; i < w.nparties; i++) taint(&w.parties[i]);
    if (k_below(2)) quiet();
    for (i = 0; i < w.nloops; i++) {
        for (j = 0; j < w.nroots; j++)
            if (w.roots[j]->loop == i) w.roots[j]->canceled = 1;
        w.stepping = i;
        r = ol_loop_drain(w.loop[i], k_below(2) ? 0 : 5 * MS);
        CHECK("error", r == -ETIMEDOUT || (r == 0 && w.alive[i] == 0 && w.inflight[i] == 0));
        if (r) {
            quiet();
            r = ol_loop_drain(w.loop[i], (int64_t)10000 * MS);
            if (r)
                k_fail("ending", "%d roots and %d operations are left after a drain of 10 s", w.alive[i],
                       w.inflight[i]);
        }
        CHECK("ending", w.alive[i] == 0 && w.inflight[i] == 0);
        w.stepping = -1;
        all.drains++;
    }
}

static void add_stats(int i) {
    ol_loop_stats s;
    s.size = sizeof s;
    ol_loop_get_stats(w.loop[i], &s);
    all.withheld += s.withheld;
    all.parked += s.parked;
    all.stale += s.stale;
}

static void take_down(void) {
    int i;
    quiet();
    CHECK("ending", w.nroots == 0 && w.ntasks == 0);
    for (i = 0; i < w.nloops; i++) {
        int n = (int)k_below(3);
        while (n--) task_submit(i, NULL); /* destroy completes these */
        add_stats(i);
        w.stepping = i;
        CHECK("error", ol_loop_destroy(w.loop[i]) == 0);
        w.stepping = -1;
        CHECK("ending", w.inflight[i] == 0);
    }
    for (i = 0; i < NODES; i++) CHECK("post", w.notes[i].pending == 0 && w.notes[i].seen == w.notes[i].wanted);
    for (i = 0; i < DEVS; i++) {
        CHECK("operation", w.device[i].taken == w.device[i].done);
        dev_free(&w.device[i]);
    }
#if defined(OFFLOAD_ISAL)
    ol_exec_destroy(inflater);
#endif
    for (i = 0; i < w.nparties; i++) {
        party *p = &w.parties[i];
        all.complete += (uint64_t)p->complete;
        all.broken += (uint64_t)p->tainted;
        all.refused += (uint64_t)p->refused;
        CHECK("stream", p->complete || p->tainted || p->refused);
        if (p->end) script_over(p);
    }
    k_check_leaks();
}

static void on_panic(const char *text) { k_fail("library", "%s", text); }

static void run_seed(void) {
    build();
    chaos();
    if (k_below(3)) end_by_itself();
    else end_by_drain();
    take_down();
}

/* ---------------------------------------------------------------------------------------------------------------- */

static uint64_t the_seed;
static const char *program;
static int replaying;

static void add_tally(void) {
    uint64_t *to = (uint64_t *)(void *)&all.k;
    const uint64_t *from = (const uint64_t *)(const void *)&sim.stats;
    size_t i;
    for (i = 0; i < sizeof all.k / sizeof *to; i++) to[i] += from[i];
    all.seeds++;
    all.events += sim.nevents;
    all.virtual_ns += (uint64_t)(sim.now - 1000000000);
}

static void print_summary(void) {
    static const char *const kind[R_KINDS] = {"acceptors", "connections", "clients", "extra", "pump ends"};
    const k_stats *s = &all.k;
    int i;
    typedef unsigned long long u;
    printf("%llu seeds, %llu events, %llu turns, %.1f s of virtual time\n", (u)all.seeds, (u)all.events, (u)all.turns,
           (double)all.virtual_ns / 1e9);
    printf("  roots      ");
    for (i = 0; i < R_KINDS; i++) printf(" %llu %s", (u)all.roots[i], kind[i]);
    printf("; withheld %llu, stopped in drains %llu\n", (u)all.withheld, (u)all.drains);
    printf(
        "  streams     %llu messages, %llu bytes, %llu answers; %llu complete, %llu broken on purpose, %llu refused\n",
        (u)all.messages, (u)all.bytes, (u)all.replies, (u)all.complete, (u)all.broken, (u)all.refused);
    printf(
        "  operations  call %llu, crc32 %llu, deflate %llu, file %llu; software %llu, dev0 %llu, dev1 %llu; sync %llu, "
        "callbacks %llu\n",
        (u)all.ops[OL_OP_CALL], (u)all.ops[OL_OP_CRC32], (u)all.ops[OL_OP_DEFLATE], (u)all.ops[OL_OP_FILE],
        (u)all.where[0], (u)all.where[1], (u)all.where[2], (u)all.sync, (u)all.callbacks);
    printf("  why         rule %llu, full %llu, parked %llu, failed %llu, cache %llu, sync bound %llu\n",
           (u)all.why[OL_WHY_RULE], (u)all.why[OL_WHY_FULL], (u)all.why[OL_WHY_PARKED], (u)all.why[OL_WHY_FAILED],
           (u)all.why[OL_WHY_CACHE], (u)all.why[OL_WHY_SYNC_BOUND]);
    printf("  ended       cancelled %llu, timed out %llu, full %llu, device fault %llu\n", (u)all.op_canceled,
           (u)all.op_timeout, (u)all.op_full, (u)all.op_fault);
    printf("  mischief    closes %llu, cancels %llu, deadlines %llu, cancelled operations %llu, policies %llu, timers "
           "%llu "
           "(%llu fired), posts %llu (%llu run)\n",
           (u)all.closes, (u)all.cancels, (u)all.deadlines, (u)all.op_cancels, (u)all.policies, (u)all.timers,
           (u)all.fired, (u)all.posts, (u)all.posted);
    printf("  awaits      ECANCELED %llu, ETIMEDOUT %llu, EBADF %llu, EXDEV %llu, EBUSY %llu; went on after %llu\n",
           (u)all.canceled, (u)all.timed_out, (u)all.badf, (u)all.xdev, (u)all.busy, (u)all.cleared);
    printf(
        "  kernel      waits %llu (%llu slept), events %llu, late %llu, spurious %llu, of closed fds %llu, EINTR %llu, "
        "reused numbers %llu\n",
        (u)s->waits, (u)s->blocked, (u)s->events, (u)s->late, (u)s->spurious, (u)s->ghosts, (u)s->eintr, (u)s->reused);
    printf("  transfers   reads %llu (short %llu, EAGAIN %llu, end %llu), writes %llu (short %llu, EAGAIN %llu), "
           "resets %llu\n",
           (u)s->reads, (u)s->short_reads, (u)s->read_again, (u)s->eofs, (u)s->writes, (u)s->short_writes,
           (u)s->write_again, (u)s->resets);
    printf("  accepts     %llu, EAGAIN %llu, aborted %llu, no fd %llu; connects %llu (refused %llu); ENOMEM %llu, "
           "epoll_ctl failed %llu; interrupts %llu, wake-ups %llu, stalls %llu\n",
           (u)s->accepts, (u)s->accept_again, (u)s->accept_aborts, (u)s->accept_full, (u)s->connects, (u)s->refused,
           (u)s->enomem, (u)s->ctl_failed, (u)s->interrupts, (u)s->eventfd_writes, (u)s->stalls);
}

/* 1 passed; the hash of all that happened goes into *hash. */
static int one_seed(uint64_t seed, uint64_t *hash) {
    the_seed = seed;
    memset(&w, 0, sizeof w);
    k_boot(seed);
    sim.verbose = replaying;
    if (setjmp(sim.on_fail)) {
        printf("FAILED seed %llu after %llu events at %lld ns: [%s] %s\n  replay: %s --seed %llu\n",
               (unsigned long long)seed, (unsigned long long)sim.nevents, (long long)sim.now, sim.checker, sim.text,
               program, (unsigned long long)seed);
        fflush(stdout);
        k_halt();
        return 0;
    }
    run_seed();
    *hash = (*hash ^ sim.hash) * 0x100000001b3u;
    add_tally();
    k_halt();
    return 1;
}

/* A sanitizer or a signal ends the process: say which seed it was. */
static void on_crash(int number) {
    char text[200];
    const int n = snprintf(text, sizeof text, "\nsignal %d; replay: %.100s --seed %llu\n", number, program,
                           (unsigned long long)the_seed);
    if (write(STDERR_FILENO, text, (size_t)n) < 0) _exit(3);
    signal(number, SIG_DFL);
    raise(number);
}
#if defined(__cplusplus)
extern "C"
#endif
    void
    __asan_on_error(void);
void __asan_on_error(void) { fprintf(stderr, "\nreplay: %s --seed %llu\n", program, (unsigned long long)the_seed); }

static int usage(int status) {
    fprintf(
        status ? stderr : stdout,
        "sim [--seeds N] [--first S] [--seed S] [--keep-going]: random programs on offload.h over a simulated kernel\n"
        "  --seeds N     how many seeds; default 10000\n"
        "  --first S     the first one; default 1\n"
        "  --seed S      replay this one, with a log of every event\n"
        "  --keep-going  don't stop at the tenth failure\n");
    return status;
}

int main(int argc, char **argv) {
    uint64_t first = 1, seeds = 10000, i, hash = 0xcbf29ce484222325u;
    int passed = 0, failed = 0, stop_at = 10, a;
    struct sigaction old; /* a sanitizer's handler stays */
    for (a = 1; a < argc; a++) {
        const int more = a + 1 < argc;
        if (strcmp(argv[a], "--help") == 0) return usage(0);
        if (strcmp(argv[a], "--keep-going") == 0) {
            stop_at = INT_MAX;
        } else if (strcmp(argv[a], "--seeds") == 0 && more) {
            seeds = strtoull(argv[++a], NULL, 10);
        } else if (strcmp(argv[a], "--first") == 0 && more) {
            first = strtoull(argv[++a], NULL, 10);
        } else if (strcmp(argv[a], "--seed") == 0 && more) {
            first = strtoull(argv[++a], NULL, 10);
            seeds = 1;
            replaying = 1;
        } else {
            return usage(2);
        }
    }
    program = argv[0];
    signal(SIGABRT, on_crash);
    if (sigaction(SIGSEGV, NULL, &old) == 0 && old.sa_handler == SIG_DFL) signal(SIGSEGV, on_crash);
    ol_set_panic(on_panic);
    for (i = 0; i < seeds && failed < stop_at; i++) {
        if (one_seed(first + i, &hash)) passed++;
        else failed++;
        if (i % 2000 == 1999)
            fprintf(stderr, "  %llu of %llu seeds\n", (unsigned long long)i + 1, (unsigned long long)seeds);
    }
    print_summary();
    printf("trace hash %016llx\n%d passed, %d failed\n", (unsigned long long)hash, passed, failed);
    fflush(stdout);
    if (failed) _exit(1); /* what the failed seeds left behind is not worth a leak report */
    return 0;
}
