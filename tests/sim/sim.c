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

#define US 1000
#define MS 1000000
enum {
    LOOPS = 2,
    DEVS = 2,
    PARTIES = 64,
    PARTS = 4096,
    FDS = 4096,
    ROOTS = 1024,
    TASKS = 1024,
    TIMERS = 6,
    NODES = 8,
    DEPTH = 6,
    BODY = 1500, /* bytes of a message at most */
    FILES = 4
};
#define LATE (20 * MS) /* how late a time may be noticed: other loops' sleeps and spins included */

/* ---------------------------------------------------------------------------------------------------------------- */
/* What the checkers know                                                                                           */

typedef struct partition { /* a partition */
    int alive;             /* roots started and not ended */
    uint32_t spawned, started;
    int callbacks; /* operations in callback form whose `done` has not returned */
    int inflight;  /* operations accepted, not known to be complete */
    int closes;    /* fds of it that were closed */
    struct fdrec *fd;
} partition;

typedef struct fdrec { /* a fd that the library has */
    ol_fd handle;
    int loop, cls, closed, at; /* at: place among the open ones */
    partition *part;
    struct party *party;
} fdrec;

typedef struct party { /* who talks to a server: a script outside, or a client coroutine */
    int id, outside;
    int tainted; /* the seed broke it on purpose */
    int refused; /* it never got through */
    int complete;
    k_end *end; /* outside only, from here on */
    int port, target, window;
    int made, sent, answered; /* messages begun, sent in full, answered */
    unsigned char out[16 + BODY], in[16 + BODY];
    uint32_t out_len, out_at, in_at;
    int scheduled, stalled, half, fin, over;
    int64_t lag;
} party;

enum { R_ACCEPTOR, R_CONN, R_CLIENT, R_EXTRA, R_PUMP, R_KINDS };
typedef struct root { /* embedded first in everything that is a root coroutine */
    ol_co co;
    int kind, loop, id, at, cls;
    int started, canceled;
    int was_due; /* a deadline may have stopped the operation of this await before it was set anew */
    uint32_t ticket;
    int64_t deadline; /* not before this may it time out */
    partition *part;
    void *owner;                       /* the struct that embeds it */
    uint64_t latency_mark, batch_mark; /* runs of each class when it last yielded */
} root;

typedef struct task { /* an operation and its buffers */
    ol_op op;
    int kind, loop, id, at;
    int inflight, canceled, reported, runs, cls;
    int asked;       /* the device was asked to stop it */
    uint64_t ticket; /* in the order of submission */
    uint64_t seed;
    uint32_t len;
    unsigned char *in, *out;
    uint64_t out_sum; /* of the output at the moment of completion */
    int64_t expect, begun;
    partition *part;
    int closes; /* of its partition, when it was submitted */
    k_file *pin;
} task;

enum { T_IDLE, T_RUNNING };
typedef struct clock_timer {
    ol_timer t;
    int state, loop;
    int64_t due;
} clock_timer;

typedef struct note { /* a post */
    ol_post_node node;
    int pending, wanted, seen, loop, thread;
    uint64_t order; /* of the call that queued it, among those of its thread */
} note;

typedef struct tally { /* over all seeds, for the summary */
    uint64_t seeds, events, turns, virtual_ns;
    uint64_t roots[R_KINDS], messages, bytes, replies, complete, broken;
    uint64_t ops[OL__KINDS], where[3], why[9], op_canceled, op_timeout, op_full, op_fault, callbacks, sync;
    uint64_t closes, cancels, deadlines, spawns, op_cancels, policies, timers, fired, posts, posted, cleared;
    uint64_t canceled, timed_out, badf, xdev, busy, withheld, parked, stale, drains, runs, emfile, nomem, resets,
        refused;
    k_stats k;
} tally;

static struct world {
    int nloops, phase;       /* CHAOS, CALM, ENDING */
    int budget;              /* mischief left */
    int bad, clients, pumps; /* how much may still be started */
    ol_loop *loop[LOOPS];
    ol_loop_desc desc[LOOPS];
    dev device[DEVS];
    int old_kernel;
    uint64_t posts, last_post[LOOPS][3];
    uint64_t tickets, last_taken[LOOPS][DEVS][3][2]; /* by class, and apart for calls and files */
    partition parts[PARTS];
    int nparts;
    fdrec fds[FDS];
    int nfds;
    fdrec *open[FDS];
    int nopen;
    fdrec *listener[LOOPS];
    root *roots[ROOTS];
    int nroots, alive[LOOPS], next_id;
    task *tasks[TASKS];
    int ntasks, inflight[LOOPS];
    party parties[PARTIES];
    int nparties;
    clock_timer timer[LOOPS][TIMERS];
    note notes[NODES];
    k_inode *file[FILES];
    uint64_t latency_runs[LOOPS], batch_runs[LOOPS]; /* taken from the ready queues */
    partition *current;                              /* whose root or callback runs */
    int stepping;                                    /* the loop that is inside a step, -1 none */
    int in_submit;
    ol_frame *frames[DEPTH + 4]; /* that are running, outermost first */
    int nframes;
    ol_co *running, *goes_on;
} w;
enum { CHAOS, CALM, ENDING };

static tally all;

static void mischief(int loop);

#define CHECK(checker, condition)                                                                                      \
    do {                                                                                                               \
        if (!(condition)) k_fail(checker, "line %d: %s", __LINE__, #condition);                                        \
    } while (0)

/* CRC-32, bit by bit: not the library's. */
static uint32_t crc_slow(uint32_t crc, const unsigned char *p, uint64_t n) {
    static uint32_t table[256];
    uint32_t i, j;
    if (!table[1])
        for (i = 0; i < 256; i++) {
            uint32_t c = i;
            for (j = 0; j < 8; j++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
            table[i] = c;
        }
    crc = ~crc;
    while (n--) crc = table[(crc ^ *p++) & 0xff] ^ (crc >> 8);
    return ~crc;
}

static partition *part_new(void) {
    if (w.nparts == PARTS) k_fail("test", "PARTS is too small");
    return &w.parts[w.nparts++];
}

static fdrec *fd_new(int loop, ol_fd handle, int cls, partition *p, party *who) {
    fdrec *f;
    if (w.nfds == FDS) k_fail("test", "FDS is too small");
    f = &w.fds[w.nfds++];
    f->handle = handle;
    f->loop = loop;
    f->cls = cls;
    f->part = p;
    f->party = who;
    f->at = w.nopen;
    w.open[w.nopen++] = f;
    p->fd = f;
    return f;
}

static void taint(party *p) {
    if (p) p->tainted = 1;
}

/* Closes as anybody may, and checks what close promises. */
static int fd_close(fdrec *f) {
    const int fd = (int)(uint32_t)f->handle, was_closed = f->closed, idle = f->part->inflight == 0;
    const k_file *file;
    int r, i;
    if (!was_closed) {
        f->closed = 1;
        f->part->closes++;
        w.open[f->at] = w.open[--w.nopen];
        w.open[f->at]->at = f->at;
    }
    r = ol_close(w.loop[f->loop], f->handle);
    CHECK("error", r == (was_closed ? -EBADF : 0));
    all.closes++;
    if (was_closed) return r;
    file = sim.file[fd];
    if (idle) CHECK("close", file == NULL);
    if (file && file->type == K_SOCKET) CHECK("close", file->end->wr_shut || file->end->state != K_UP);
    for (i = 0; i < w.ntasks; i++)
        if (w.tasks[i]->part == f->part && w.tasks[i]->pin) CHECK("close", w.tasks[i]->asked);
    return r;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Roots: start, resume, end                                                                                        */

/* Around every function of a coroutine. */
static void enter(ol_co *co) {
    root *r = (root *)(void *)co;
    int i;
    sim.now += k_range(0, 300);
    k_stall();
    sim.progress++;
    CHECK("resume", w.stepping == r->loop);
    CHECK("resume", !w.in_submit);
    if (w.nframes == 0 && w.goes_on != co) {
        if (r->cls == OL_LATENCY) w.latency_runs[r->loop]++;
        else w.batch_runs[r->loop]++;
        k_trace("run", r->id, r->kind);
    }
    if (w.nframes == 0) w.running = co;
    w.goes_on = NULL;
    CHECK("resume", w.running == co);
    for (i = 0; i < w.nframes; i++) CHECK("resume", w.frames[i] != co->top);
    CHECK("resume", w.nframes < DEPTH + 4);
    w.frames[w.nframes++] = co->top;
    w.current = r->part;
}
static void leave(void) {
    if (--w.nframes == 0) {
        w.running = NULL;
        w.current = NULL;
    }
}
/* Around a sub-coroutine: where it has ended, its caller goes on in the same run. */
static void leave_sub(ol_co *co) {
    const ol_frame *frame = w.frames[w.nframes - 1];
    leave();
    if (co->top != frame && w.nframes == 0) w.goes_on = co;
}

static void root_started(root *r) {
    CHECK("gate", r->part->alive == 0);
    CHECK("gate", r->ticket == r->part->started);
    CHECK("gate", r->part->callbacks == 0);
    r->part->started++;
    r->part->alive = 1;
    r->started = 1;
    k_trace("start", r->id, r->kind);
}
static void root_ended(root *r) {
    CHECK("gate", r->part->alive == 1);
    r->part->alive = 0;
    w.roots[r->at] = w.roots[--w.nroots];
    w.roots[r->at]->at = r->at;
    w.alive[r->loop]--;
    k_trace("end", r->id, r->kind);
}

/* Spawns; 0 or the error, which must have a cause. */
static int root_spawn(root *r, void *owner, int kind, int loop, partition *p, fdrec *f, void (*fn)(ol_co *)) {
    int result;
    ol_loop_stats s;
    uint64_t withheld;
    const int cls = (int)k_below(3);
    if (w.nroots == ROOTS) return -EAGAIN;
    memset(&r->co, 0x5a, sizeof r->co); /* need not be initialised */
    r->kind = kind;
    r->loop = loop;
    r->id = ++w.next_id;
    r->cls = cls ? cls : f && f->cls ? f->cls : OL_BATCH;
    r->started = r->canceled = r->was_due = 0;
    r->deadline = K_NEVER;
    r->part = p;
    r->owner = owner;
    r->ticket = p->spawned;
    s.size = sizeof s;
    ol_loop_get_stats(w.loop[loop], &s);
    withheld = s.withheld + (p->alive || p->spawned != p->started || p->callbacks);
    result = ol_spawn(w.loop[loop], &r->co, fn, f ? f->handle : 0, cls);
    ol_loop_get_stats(w.loop[loop], &s);
    if (result == 0) CHECK("gate", s.withheld == withheld); /* waits if its partition is held, and only then */
    k_trace("spawn", r->id, result);
    if (result) {
        if (f && f->closed) {
            CHECK("error", result == -EBADF);
        } else {
            CHECK("error", result == -ENOMEM && sim.stats.enomem);
            all.nomem++;
        }
        return result;
    }
    if (w.phase == ENDING) r->canceled = 1;
    p->spawned++;
    r->at = w.nroots;
    w.roots[w.nroots++] = r;
    w.alive[loop]++;
    all.roots[kind]++;
    return 0;
}

static void root_cancel(root *r) {
    r->canceled = 1;
    k_trace("cancel", r->id, 0);
    ol_cancel(&r->co);
    CHECK("error", ol_canceled(&r->co) == 1);
    all.cancels++;
}
static void root_deadline(root *r, int64_t ns) {
    const int64_t at = sim.now;
    const int e = ol_deadline(&r->co, ns);
    k_trace("deadline", r->id, ns);
    if (at >= r->deadline) r->was_due = 1;
    if (e) {
        CHECK("error", e == -ENOMEM && sim.stats.enomem);
        return;
    }
    r->deadline = ns == OL_NEVER ? K_NEVER : at + (ns > 0 ? ns : 0);
    all.deadlines++;
}

/* A time that came up now was due at `due`. While one loop is drained at the end, nobody steps the other. */
static void check_late(int64_t due) { CHECK("time", sim.now <= due + LATE || (w.phase == ENDING && w.nloops > 1)); }

/* What is remembered at the start of an await, to judge its result. */
typedef struct before {
    int canceled, closed, closes, due;
    int64_t at;
} before;
static void begin(before *b, root *r, const fdrec *f) {
    r->was_due = 0;
    b->canceled = r->canceled;
    b->closed = f && f->closed;
    b->closes = r->part->closes;
    b->due = sim.now >= r->deadline;
    b->at = sim.now;
}

/* Is there a cause for this result of an I/O await? */
static void judge(const root *r, const fdrec *f, const before *b, int64_t n) {
    k_trace("await", r->id, n);
    if (b->canceled) CHECK("error", n == -ECANCELED);
    if (n == -ECANCELED) {
        CHECK("error", r->canceled || (f->closed && !b->closed));
        all.canceled++;
    } else if (n == -ETIMEDOUT) {
        CHECK("error", !r->canceled || b->due); /* what was due at once is not recalled by a cancel that comes later */
        CHECK("time", sim.now >= r->deadline || r->was_due);
        if (!r->was_due) check_late(r->deadline > b->at ? r->deadline : b->at);
        all.timed_out++;
    } else if (b->closed) {
        CHECK("error", n == -EBADF);
        all.badf++;
    } else if (n < 0) {
        CHECK("error", n != -EBADF && n != -EXDEV && n != -EBUSY && n != -EINVAL && n != -EAGAIN);
        if (n == -ENOMEM) CHECK("error", sim.stats.enomem);
    }
}

/* After a cancel or a deadline: goes on (1) or not. */
static int recover(root *r, int64_t n) {
    if ((n != -ECANCELED && n != -ETIMEDOUT) || w.phase == ENDING) return 0;
    if (n == -ECANCELED && !r->canceled) return 0;
    if (r->kind != R_ACCEPTOR && k_below(100) < 25) return 0;
    if (n == -ECANCELED || k_below(2)) {
        ol_cancel_clear(&r->co);
        CHECK("error", ol_canceled(&r->co) == 0);
        r->canceled = 0; /* the deadline stays */
    } else {
        root_deadline(r, k_below(2) ? OL_NEVER : k_range(1, 5 * MS));
    }
    all.cleared++;
    return 1;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Operations                                                                                                       */

static int64_t task_call(void *arg) { /* on the device, or on the spot */
    task *t = (task *)arg;
    uint32_t i;
    t->runs++;
    CHECK("operation", t->runs == 1);
    for (i = 0; i < t->len; i++) t->out[i] = k_byte(~t->seed, i);
    return t->expect;
}

static task *task_alloc(int kind, int loop, partition *p, uint32_t len) {
    task *t = (task *)calloc(1, sizeof *t);
    uint32_t i;
    memset(&t->op, 0xcc, sizeof t->op);
    t->kind = kind;
    t->loop = loop;
    t->id = ++w.next_id;
    t->seed = k_rand();
    t->len = len;
    t->part = p;
    t->in = (unsigned char *)malloc(len + 1);
    t->out = (unsigned char *)malloc(len + 1);
    for (i = 0; i < len; i++)
        t->in[i] = kind == OL_OP_DEFLATE ? (unsigned char)(k_byte(t->seed, i) & 3) : k_byte(t->seed, i);
    return t;
}

/* A new operation, prepared; its true result is known. */
static task *task_new(int loop, partition *p) {
    const uint32_t len = k_below(2) ? k_below(64) : k_below(3000);
    task *t;
    int kind = k_below(2) ? OL_OP_CRC32 : OL_OP_CALL;
#if defined(OFFLOAD_ISAL)
    if (k_below(4) == 0) kind = OL_OP_DEFLATE;
#endif
    t = task_alloc(kind, loop, p, len);
    if (kind == OL_OP_CRC32) {
        const uint32_t start = k_below(2) ? 0 : (uint32_t)k_rand();
        ol_prep_crc32(&t->op, start, t->in, len);
        t->expect = crc_slow(start, t->in, len);
    } else if (kind == OL_OP_CALL) {
        ol_prep_call(&t->op, task_call, t);
        t->op.len = len;
        t->expect = k_range(0, INT64_MAX - 1);
#if defined(OFFLOAD_ISAL)
    } else {
        free(t->out);
        t->out = (unsigned char *)malloc(ol_deflate_bound(len));
        ol_prep_deflate(&t->op, 1 + (int)k_below(3), t->out, ol_deflate_bound(len), t->in, len);
        t->op.level = (uint8_t)k_below(5);
#endif
    }
    t->op.cls = (uint8_t)k_below(3);
    if (k_below(6) == 0) t->op.timeout_us = 1 + k_below(3000);
    return t;
}

static void task_begin(task *t, int cls) {
    t->begun = sim.now;
    t->ticket = ++w.tickets;
    t->cls = t->kind != OL_OP_FILE && t->op.cls ? t->op.cls : cls; /* a file operation is prepared by its await */
    t->closes = t->part ? t->part->closes : 0;
    t->inflight = 1;
    if (t->part) t->part->inflight++;
    w.inflight[t->loop]++;
    if (w.ntasks == TASKS) k_fail("test", "TASKS is too small");
    t->at = w.ntasks;
    w.tasks[w.ntasks++] = t;
    k_trace("task", t->id, t->kind);
}
static void task_end(task *t) {
    if (t->part) t->part->inflight--;
    w.inflight[t->loop]--;
    w.tasks[t->at] = w.tasks[--w.ntasks];
    w.tasks[t->at]->at = t->at;
    t->inflight = 0;
}

/* From the device: a fd of the operation's partition must stay open as long as the device writes. */
static void device_takes(ol_op *op) {
    task *t = OL_CONTAINER(op, task, op);
    const fdrec *f = t->part ? t->part->fd : NULL;
    const int call = t->kind == OL_OP_CALL || t->kind == OL_OP_FILE;
    uint64_t *last = &w.last_taken[t->loop][t->op.where - 1][t->cls][call];
    CHECK("operation", t->inflight);
    CHECK("order", t->ticket > *last); /* first come, first served, within a class and sort */
    *last = t->ticket;
    if (f && !f->closed && f->loop == t->loop) {
        t->pin = sim.file[(uint32_t)f->handle];
        t->pin->pins++;
    }
    t->asked = !w.device[t->op.where - 1].backend.cancel; /* one that can't stop anything is not asked */
}
static void device_cancel(ol_op *op) { OL_CONTAINER(op, task, op)->asked = 1; }
static void device_done(ol_op *op) {
    task *t = OL_CONTAINER(op, task, op);
    CHECK("operation", t->inflight && !t->reported);
    t->reported = 1;
    t->out_sum = dev_sum(t->out, t->len);
    if (t->pin) t->pin->pins--;
    t->pin = NULL;
}

#if defined(OFFLOAD_ISAL)
static ol_exec *inflater;
static void check_deflated(task *t, int64_t n) {
    unsigned char *back = (unsigned char *)malloc(t->len + 1);
    const int faults = sim.faults.enomem;
    ol_op op;
    int64_t r;
    sim.faults.enomem = 0; /* the check itself must not fail */
    r = ol_op_exec(inflater, ol_prep_inflate(&op, t->op.format, back, t->len, t->out, (uint64_t)n));
    sim.faults.enomem = faults;
    CHECK("operation", r == t->len && memcmp(back, t->in, t->len) == 0);
    free(back);
}
#endif

static void judge_success(task *t, int64_t n) {
    uint32_t i;
    if (t->kind == OL_OP_FILE) return; /* its caller knows */
    if (t->kind == OL_OP_CALL) {
        CHECK("operation", t->runs == 1);
        for (i = 0; i < t->len; i++) CHECK("operation", t->out[i] == k_byte(~t->seed, i));
    }
#if defined(OFFLOAD_ISAL)
    if (t->kind == OL_OP_DEFLATE) {
        check_deflated(t, n);
        return;
    }
#endif
    CHECK("operation", n == t->expect);
}

/* The result of an operation: true, or with a cause. Frees it. r: the awaiting root, NULL in a callback. */
static void judge_task(task *t, const root *r, const before *b, int64_t n) {
    const int closed = t->part && t->part->closes != t->closes;
    k_trace("result", t->id, n);
    if (b && b->canceled) CHECK("error", n == -ECANCELED && t->runs == 0 && !t->reported);
    if (t->reported) CHECK("operation", dev_sum(t->out, t->len) == t->out_sum);
    all.ops[t->kind]++;
    if (n < 0 && t->kind != OL_OP_FILE) CHECK("operation", t->runs == 0);
    if (n >= 0) {
        judge_success(t, n);
        all.where[t->op.where < 3 ? t->op.where : 0]++;
        all.why[t->op.why < 9 ? t->op.why : 0]++;
        all.sync += t->op.mode == OL_SYNC;
        CHECK("operation", ol_op_where(w.loop[t->loop], &t->op) && t->op.why != OL_WHY_NONE);
    } else if (n == -ECANCELED) {
        CHECK("error", t->canceled || closed || (r && r->canceled) || w.phase == ENDING);
        all.op_canceled++;
    } else if (n == -ETIMEDOUT) {
        const int64_t limit = t->op.timeout_us ? t->begun + (int64_t)t->op.timeout_us * US : K_NEVER;
        CHECK("time", sim.now >= limit || (r && (sim.now >= r->deadline || r->was_due)));
        all.op_timeout++;
    } else if (n == -EIO) {
        CHECK("error", t->reported);
        all.op_fault++;
    } else if (n == -EAGAIN) {
        all.op_full++;
    } else if (n != -ENOMEM && t->kind == OL_OP_FILE) {
        CHECK("error", n == -EMFILE || (n == -ENOTSUP && w.old_kernel));
    } else {
        CHECK("error", n == -ENOMEM && sim.stats.enomem);
        all.nomem++;
    }
    free(t->in);
    free(t->out);
    free(t);
}

static void task_done(ol_loop *on, ol_op *op) {
    (void)on;
    task *t = OL_CONTAINER(op, task, op);
    partition *p = t->part, *was = w.current;
    const int loop = t->loop;
    CHECK("callback", !w.in_submit && w.stepping == t->loop && w.nframes == 0);
    CHECK("operation", t->inflight);
    if (t->cls == OL_LATENCY) w.latency_runs[loop]++;
    else w.batch_runs[loop]++;
    sim.progress++;
    task_end(t);
    judge_task(t, NULL, NULL, op->result);
    w.current = p;
    mischief(loop);
    w.current = was;
    if (p) p->callbacks--;
    all.callbacks++;
}

/* Submits in callback form, for the partition that runs now. */
static void task_submit(int loop, partition *p) {
    task *t;
    int r;
    if (w.ntasks > TASKS - 64) return;
    t = task_new(loop, p);
    task_begin(t, w.loop[loop]->current ? (int)ol__co_class(w.loop[loop]->current) : OL_BATCH);
    if (p) p->callbacks++;
    w.in_submit = 1;
    r = ol_submit(w.loop[loop], &t->op, task_done);
    w.in_submit = 0;
    if (r == 0) {
        if (k_below(8) == 0) {
            CHECK("error", ol_submit(w.loop[loop], &t->op, task_done) == -EBUSY);
            all.busy++;
        }
        return;
    }
    if (p) p->callbacks--;
    task_end(t);
    CHECK("error", r == -EAGAIN || r == -ENOMEM);
    judge_task(t, NULL, NULL, r);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Messages: a header of four words (number, length, checksum, who), and a body that only who and number determine  */

static unsigned char body_byte(int id, uint32_t number, uint32_t i) { return k_byte((uint64_t)id << 32 | number, i); }

static void put_header(unsigned char *out, uint32_t number, uint32_t len, uint32_t sum, uint32_t who) {
    const uint32_t word[4] = {number, len, sum, who};
    memcpy(out, word, 16);
}

/* A request; returns its length in all. */
static uint32_t make_request(int id, uint32_t number, unsigned char *out) {
    const uint32_t len = k_below(3) ? k_below(100) : k_below(BODY + 1);
    uint32_t i;
    for (i = 0; i < len; i++) out[16 + i] = body_byte(id, number, i);
    put_header(out, number, len, crc_slow(0, out + 16, len), (uint32_t)id);
    all.messages++;
    all.bytes += len;
    return 16 + len;
}

/* Checks a request or, with `reply`, an answer, of which the body is turned over. */
static void check_message(const unsigned char *in, int id, uint32_t number, int reply) {
    uint32_t word[4], i, sum = 0;
    memcpy(word, in, 16);
    CHECK("stream", word[0] == number && word[3] == (uint32_t)id && word[1] <= BODY);
    for (i = 0; i < word[1]; i++)
        if (in[16 + i] != (unsigned char)(body_byte(id, number, i) ^ (reply ? 0x5a : 0)))
            k_fail("stream", "byte %u of %s %u of %d is wrong", i, reply ? "answer" : "request", number, id);
    if (!reply) sum = crc_slow(0, in + 16, word[1]);
    if (!reply) CHECK("stream", word[2] == sum);
}

static uint32_t message_len(const unsigned char *header) {
    uint32_t len;
    memcpy(&len, header + 4, 4);
    return 16 + len;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Scripts outside: they connect, send, half-close, stall, read slowly, reset                                       */

static void script(void *arg, uint64_t tag);

static void script_soon(party *p, int64_t at_most) {
    if (p->scheduled) return;
    p->scheduled = 1;
    k_at(k_range(1, at_most), script, p, 0);
}
static void script_wake(k_end *e, void *user) {
    party *p = (party *)user;
    (void)e;
    if (!p->stalled) script_soon(p, p->lag);
}

static void script_over(party *p) {
    p->over = 1;
    p->end->wake = NULL;
    if (p->end->blamed) taint(p);
    k_end_free(p->end);
    p->end = NULL;
    k_trace("script over", p->id, p->answered);
}

/* Takes what arrived; each answer must be the next. 1: the connection is over. */
static int script_receive(party *p) {
    ssize_t n = 1;
    int rounds;
    for (rounds = 0; rounds < 20; rounds++) {
        const uint32_t whole = p->in_at < 16 ? 16 : message_len(p->in);
        if (p->in_at == whole && p->in_at >= 16) {
            check_message(p->in, p->id, (uint32_t)p->answered, 1);
            CHECK("stream", p->answered < p->sent);
            p->answered++;
            p->in_at = 0;
            all.replies++;
            continue;
        }
        n = k_recv(p->end, p->in + p->in_at, whole - p->in_at);
        if (n <= 0) break;
        p->in_at += (uint32_t)n;
        if (p->in_at >= 16) CHECK("stream", message_len(p->in) <= 16 + BODY);
    }
    if (rounds == 20) script_soon(p, p->lag);
    if (n < 0 && errno != EAGAIN) {
        CHECK("stream", p->tainted || p->end->blamed || w.phase == ENDING);
        return 1;
    }
    return n == 0;
}

static void script_send(party *p) {
    while (p->made < p->target || p->out_at < p->out_len) {
        uint32_t n;
        ssize_t r;
        if (p->out_at == p->out_len) {
            if (p->made - p->answered >= p->window) return;
            p->out_len = make_request(p->id, (uint32_t)p->made++, p->out);
            p->out_at = 0;
        }
        n = 1 + k_below(p->out_len - p->out_at);
        if (p->half && p->made == p->target && k_below(3) == 0) { /* ends in the middle of a message */
            taint(p);
            p->target = p->made;
            p->out_len = p->out_at;
            k_fin(p->end);
            p->fin = 1;
            return;
        }
        r = k_send(p->end, p->out + p->out_at, n);
        if (r < 0) return;
        p->out_at += (uint32_t)r;
        if (p->out_at == p->out_len) p->sent++;
        if (k_below(3) == 0) {
            script_soon(p, p->lag);
            return;
        }
    }
    if (!p->fin && (w.phase != CHAOS || k_below(2))) {
        p->fin = 1;
        k_fin(p->end);
    } else if (!p->fin) {
        script_soon(p, p->lag);
    }
}

static void script_dial(party *p) {
    k_end *e = k_end_new(16 + k_below(k_below(2) ? 64 : 4000));
    const int r = k_arrive(p->port, e, 16 + k_below(k_below(2) ? 64 : 4000));
    if (r == 0) {
        p->end = e;
        e->user = p;
        e->wake = script_wake;
        return;
    }
    k_end_free(e);
    if (r > 0) {
        script_soon(p, 5 * MS);
    } else {
        p->over = p->refused = 1;
    }
}

static void script(void *arg, uint64_t tag) {
    party *p = (party *)arg;
    (void)tag;
    p->scheduled = 0;
    if (p->over) return;
    if (!p->end) {
        script_dial(p);
        if (p->end) script_soon(p, p->lag);
        return;
    }
    if (w.phase == CHAOS && k_below(400) == 0) { /* gives up: a reset */
        taint(p);
        if (p->end->peer) k_reset(p->end->peer);
        script_over(p);
        return;
    }
    if (w.phase == CHAOS && k_below(200) == 0) { /* falls silent until the end */
        p->stalled = 1;
        return;
    }
    sim.progress++;
    if (script_receive(p)) {
        if (p->end->blamed) taint(p);
        p->complete = p->answered == p->target && p->fin;
        CHECK("stream", p->complete || p->tainted || w.phase == ENDING);
        script_over(p);
        return;
    }
    script_send(p);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Connections: read a request, compute, answer. Clients use the same struct.                                       */

enum { IO_READ, IO_READV, IO_WRITE, IO_WRITEV };
typedef struct conn {
    root r[2]; /* one serves; it may hand over to the other */
    ol_frame frame[DEPTH];
    int which, depth, what, left, clean, jobs, job;
    fdrec *f;
    party *with;
    uint32_t want, got;
    int64_t n, span;
    int number, id;
    before b;
    task *t;
    struct iovec iov[3];
    struct sockaddr_in to;
    unsigned char msg[16 + BODY];
} conn;

static void *owner_of(ol_co *co) { return ((root *)(void *)co)->owner; }
static root *root_of(ol_co *co) { return (root *)(void *)co; }

/* Cuts want - got bytes of the message into three pieces, some of them empty. */
static void cut(conn *c) {
    const uint32_t n = c->want - c->got, a = k_below(n + 1), b = a + k_below(n - a + 1);
    c->iov[0].iov_base = c->msg + c->got;
    c->iov[0].iov_len = a;
    c->iov[1].iov_base = c->msg + c->got + a;
    c->iov[1].iov_len = b - a;
    c->iov[2].iov_base = c->msg + c->got + b;
    c->iov[2].iov_len = n - b;
}

static void io_entry(ol_co *co);
/* Transfers want bytes from or to msg, at some depth of calls. Result: want, or what ended it. */
static void io(ol_co *co) {
    conn *c = (conn *)owner_of(co);
    const int level = (int)(co->top - c->frame);
    int64_t n;
    OL_BEGIN(co);
    if (level < c->depth) {
        OL_CALL(n, &c->frame[level + 1], io_entry);
        OL_RETURN(n);
    }
    while (c->got < c->want) {
        begin(&c->b, root_of(co), c->f);
        cut(c);
        if (c->what == IO_READ) OL_AWAIT(c->n, ol_read(co, c->f->handle, c->msg + c->got, c->want - c->got));
        else if (c->what == IO_READV) OL_AWAIT(c->n, ol_readv(co, c->f->handle, c->iov, 3));
        else if (c->what == IO_WRITE) OL_AWAIT(c->n, ol_write(co, c->f->handle, c->msg + c->got, c->want - c->got));
        else OL_AWAIT(c->n, ol_writev(co, c->f->handle, c->iov, 3));
        judge(root_of(co), c->f, &c->b, c->n);
        if (c->n <= 0) {
            if (c->what <= IO_READV && recover(root_of(co), c->n)) continue;
            OL_RETURN(c->n);
        }
        if (c->what >= IO_WRITE) CHECK("stream", c->n == c->want - c->got);
        c->got += (uint32_t)c->n;
    }
    OL_RETURN(c->want);
    OL_END(co);
}
static void io_entry(ol_co *co) {
    enter(co);
    io(co);
    leave_sub(co);
}

static void io_prepare(conn *c, int write, uint32_t from, uint32_t want) {
    c->what = (write ? IO_WRITE : IO_READ) + (int)k_below(2);
    c->depth = (int)k_below(DEPTH);
    c->got = from;
    c->want = want;
}

/* Why a transfer ended early: 0 for the regular end of the stream. */
static void io_verdict(conn *c, int64_t n) {
    c->clean = n == 0 && c->got == 0;
    if (c->clean || w.phase == ENDING) return;
    if (n == -ECANCELED || n == -ETIMEDOUT || n == -EBADF) {
        taint(c->with);
        return;
    }
    if (n < 0 && n != -ENOMEM) all.resets++;
    CHECK("stream", c->with->tainted || n == -ENOMEM);
}

static void yielded(root *r) {
    r->latency_mark = w.latency_runs[r->loop];
    r->batch_mark = w.batch_runs[r->loop];
}
/* Between a yield and its resume, at most latency_run of the one class went before each of the other. */
static void check_share(const root *r) {
    const uint64_t latency = w.latency_runs[r->loop] - r->latency_mark, batch = w.batch_runs[r->loop] - r->batch_mark;
    const uint64_t run = w.desc[r->loop].latency_run;
    if (r->cls == OL_BATCH) CHECK("class", latency <= run * batch);
    if (r->cls == OL_LATENCY) CHECK("class", batch <= 1 + latency / run);
}

/* One of the things that a connection does with a request. Result: 1 go on, 0 give up. */
static void work(ol_co *co) {
    conn *c = OL_SELF(co, conn, frame);
    root *r = root_of(co);
    OL_BEGIN(co);
    c->job = (int)k_below(8);
    c->n = 0;
    if (c->job < 4) {
        c->t = task_new(r->loop, r->part);
        task_begin(c->t, r->cls);
        begin(&c->b, r, c->f);
        OL_AWAIT(c->n, ol_run(co, &c->t->op));
        task_end(c->t);
        judge_task(c->t, r, &c->b, c->n);
        OL_RETURN((c->n != -ECANCELED && c->n != -ETIMEDOUT) || recover(r, c->n) || c->f->closed);
    } else if (c->job == 4) {
        begin(&c->b, r, c->f);
        c->span = k_range(0, 300 * US);
        OL_AWAIT(c->n, ol_sleep(co, c->span));
        if (c->n == 0) CHECK("time", sim.now - c->b.at >= c->span);
        if (c->n == 0) check_late(c->b.at + c->span);
    } else if (c->job == 5) {
        yielded(r);
        OL_YIELD();
        check_share(r);
        OL_RETURN(1);
    } else if (c->job == 6) {
        task_submit(r->loop, r->part);
        OL_RETURN(1);
    } else {
        root_deadline(r, k_range(0, 2 * MS));
        OL_RETURN(1);
    }
    if (c->n == -ENOMEM && sim.stats.enomem) OL_RETURN(1);
    if (c->n) CHECK("error", c->n == -ECANCELED ? r->canceled : c->n == -ETIMEDOUT && sim.now >= r->deadline);
    if (c->b.canceled) CHECK("error", c->n == -ECANCELED);
    OL_RETURN(c->n == 0 || recover(r, c->n));
    OL_END(co);
}
static void work_entry(ol_co *co) {
    enter(co);
    work(co);
    leave_sub(co);
}

static void conn_free(conn *c) { free(c); }

/* The request in msg is complete: check it, and turn it into the answer. */
static void conn_answer(conn *c) {
    uint32_t word[4], i;
    if (c->id < 0) { /* a party that was gone before it was accepted */
        memcpy(word, c->msg, 16);
        c->id = (int)word[3];
    }
    check_message(c->msg, c->id, (uint32_t)c->number, 0);
    for (i = 16; i < c->want; i++) c->msg[i] ^= 0x5a;
    c->number++;
}

static void conn_entry(ol_co *co);
static void conn_main(ol_co *co) {
    conn *c = (conn *)owner_of(co);
    root *r = root_of(co);
    OL_BEGIN(co);
    root_started(r);
    for (; c->left > 0; c->left--) {
        io_prepare(c, 0, 0, 16);
        OL_CALL(c->n, &c->frame[0], io_entry);
        if (c->n <= 0) break;
        CHECK("stream", message_len(c->msg) <= 16 + BODY);
        io_prepare(c, 0, 16, message_len(c->msg));
        OL_CALL(c->n, &c->frame[0], io_entry);
        if (c->n <= 0) break;
        conn_answer(c);
        for (c->jobs = (int)k_below(4); c->jobs > 0; c->jobs--) {
            OL_CALL(c->n, &c->frame[0], work_entry);
            if (c->n == 0) break;
            mischief(r->loop);
        }
        if (c->jobs) { /* gives up */
            c->n = -ECANCELED;
            break;
        }
        io_prepare(c, 1, 0, c->want);
        OL_CALL(c->n, &c->frame[0], io_entry);
        if (c->n <= 0) break;
    }
    if (c->left == 0) { /* hand over to another root, behind those that wait already */
        c->left = 1 + (int)k_below(5);
        c->which = !c->which;
        c->n = root_spawn(&c->r[c->which], c, R_CONN, r->loop, r->part, c->f, conn_entry);
        if (c->n == 0) {
            root_ended(r);
            OL_RETURN(0);
        }
        taint(c->with);
    } else {
        io_verdict(c, c->n);
    }
    if (!c->f->closed) fd_close(c->f);
    root_ended(r);
    OL_END_THEN(co, conn_free(c));
}
static void conn_entry(ol_co *co) {
    enter(co);
    conn_main(co);
    leave();
}

/* A party that the library accepted; one that is gone already can't be named. */
static party *party_of(int fd) {
    static party nobody;
    const k_end *e = sim.file[fd]->end;
    nobody.id = -1;
    nobody.tainted = 1;
    return e->peer && e->peer->user ? (party *)e->peer->user : &nobody;
}

static void conn_start(int loop, ol_fd handle, int cls) {
    conn *c = (conn *)calloc(1, sizeof *c);
    c->with = party_of((int)(uint32_t)handle);
    c->id = c->with->id;
    c->f = fd_new(loop, handle, cls, part_new(), c->with);
    c->left = k_below(2) ? 1000 : 1 + (int)k_below(5);
    if (root_spawn(&c->r[0], c, R_CONN, loop, c->f->part, c->f, conn_entry) == 0) return;
    taint(c->with);
    fd_close(c->f);
    conn_free(c);
}

typedef struct acceptor {
    root r;
    fdrec *f;
    before b;
    int64_t n;
    int more;
} acceptor;

/* 1: go on accepting */
static int accepted(acceptor *a) {
    root *r = &a->r;
    if (a->n > 0) {
        k_trace("accepted", r->id, 0);
        CHECK("error", !a->b.canceled && !a->b.closed);
        conn_start(r->loop, (ol_fd)a->n, a->f->cls);
        return 1;
    }
    if (a->n == -EMFILE || a->n == -ENFILE || a->n == -ENOSPC || (a->n == -ENOMEM && !sim.stats.enomem)) {
        CHECK("time", sim.now - a->b.at >= 10 * MS - sim.tick || w.phase == ENDING);
        all.emfile++;
        return 1;
    }
    judge(r, a->f, &a->b, a->n);
    return a->n == -ENOMEM || recover(r, a->n);
}
static void acceptor_main(ol_co *co) {
    acceptor *a = (acceptor *)owner_of(co);
    OL_BEGIN(co);
    root_started(&a->r);
    do {
        begin(&a->b, &a->r, a->f);
        OL_AWAIT(a->n, ol_accept(co, a->f->handle));
        a->more = accepted(a);
        mischief(a->r.loop);
    } while (a->more);
    root_ended(&a->r);
    OL_END_THEN(co, free(a));
}
static void acceptor_entry(ol_co *co) {
    enter(co);
    acceptor_main(co);
    leave();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Clients inside                                                                                                   */

static party *party_new(int outside) {
    party *p;
    if (w.nparties == PARTIES) return NULL;
    p = &w.parties[w.nparties];
    p->id = w.nparties++;
    p->outside = outside;
    p->target = (int)k_below(12);
    p->window = 1 + (int)k_below(4);
    p->port = 8000 + (int)k_below((uint32_t)w.nloops);
    p->lag = k_below(2) ? 2 * US : 200 * US;
    p->half = k_below(10) == 0;
    return p;
}

static int client_open(conn *c, root *r) {
    ol_fd handle;
    const int e = ol_socket(&r->co, AF_INET, SOCK_STREAM, 0, &handle);
    if (e) {
        CHECK("error", e == -EMFILE || e == -ENOSPC || e == -ENOMEM);
        c->with->refused = 1;
        return 0;
    }
    c->f = fd_new(r->loop, handle, r->cls, r->part, c->with);
    sim.file[(uint32_t)handle]->end->user = c->with;
    c->to = k_address(k_below(12) ? c->with->port : 9999);
    return 1;
}

/* Was the end of this client's connection in order? */
static void client_over(conn *c) {
    party *p = c->with;
    const int fd = c->f->closed ? -1 : (int)(uint32_t)c->f->handle;
    if (fd >= 0 && sim.file[fd]->end->blamed) taint(p);
    p->complete = c->number == p->target;
    if (!p->complete && (c->n == -ECANCELED || c->n == -ETIMEDOUT || c->n == -EBADF || c->n == -ENOMEM)) taint(p);
    if (!p->complete) CHECK("stream", p->tainted || p->refused || w.phase == ENDING);
}

static void client_main(ol_co *co) {
    conn *c = (conn *)owner_of(co);
    root *r = root_of(co);
    OL_BEGIN(co);
    root_started(r);
    if (client_open(c, r)) {
        if (k_below(2)) { /* the kernel reports the fresh socket meanwhile: hung up, and writable */
            OL_AWAIT(c->n, ol_sleep(co, k_range(1, 50 * US)));
            (void)recover(r, c->n);
        }
        do {
            begin(&c->b, r, c->f);
            OL_AWAIT(c->n, ol_connect(co, c->f->handle, (struct sockaddr *)&c->to, sizeof c->to));
            judge(r, c->f, &c->b, c->n);
        } while (recover(r, c->n));
        if (c->n == -ECONNREFUSED) c->with->refused = 1;
        while (c->n >= 0 && c->number < c->with->target) {
            mischief(r->loop);
            io_prepare(c, 1, 0, make_request(c->id, (uint32_t)c->number, c->msg));
            OL_CALL(c->n, &c->frame[0], io_entry);
            if (c->n <= 0) break;
            io_prepare(c, 0, 0, 16);
            OL_CALL(c->n, &c->frame[0], io_entry);
            if (c->n <= 0) break;
            CHECK("stream", message_len(c->msg) <= 16 + BODY);
            io_prepare(c, 0, 16, message_len(c->msg));
            OL_CALL(c->n, &c->frame[0], io_entry);
            if (c->n <= 0) break;
            check_message(c->msg, c->id, (uint32_t)c->number++, 1);
            all.replies++;
        }
        client_over(c);
        if (!c->f->closed) fd_close(c->f);
    }
    root_ended(r);
    OL_END_THEN(co, conn_free(c));
}
static void client_entry(ol_co *co) {
    enter(co);
    client_main(co);
    leave();
}
static void client_start(int loop) {
    party *p = party_new(0);
    conn *c;
    if (!p) return;
    c = (conn *)calloc(1, sizeof *c);
    c->with = p;
    c->id = p->id;
    if (root_spawn(&c->r[0], c, R_CLIENT, loop, part_new(), NULL, client_entry) == 0) return;
    p->refused = 1;
    conn_free(c);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Pumps: one root fills a pipe or a socket pair, another empties it                                                */

typedef struct pump {
    root r;
    fdrec *f;
    party *with; /* both sides' */
    int writes, more;
    uint32_t at, total, n;
    uint64_t seed;
    int64_t got;
    before b;
    unsigned char buf[700];
} pump;

static void pump_fill(pump *p) {
    uint32_t i;
    p->n = 1 + k_below(sizeof p->buf);
    if (p->writes && p->n > p->total - p->at) p->n = p->total - p->at;
    for (i = 0; p->writes && i < p->n; i++) p->buf[i] = k_byte(p->seed, p->at + i);
}
static int pump_check(pump *p) { /* 1: go on */
    int64_t i;
    judge(&p->r, p->f, &p->b, p->got);
    if (p->got < 0 || (p->writes && p->n == 0)) {
        if (p->got < 0) taint(p->with);
        return 0;
    }
    if (p->writes) CHECK("stream", p->got == p->n);
    for (i = 0; !p->writes && i < p->got; i++) CHECK("stream", p->buf[i] == k_byte(p->seed, p->at + (uint64_t)i));
    p->at += (uint32_t)p->got;
    if (p->got == 0) {
        CHECK("stream", p->at == p->total || p->with->tainted);
        p->with->complete = p->at == p->total;
    }
    return p->writes ? p->at < p->total : p->got > 0;
}
static void pump_main(ol_co *co) {
    pump *p = (pump *)owner_of(co);
    OL_BEGIN(co);
    root_started(&p->r);
    do {
        pump_fill(p);
        begin(&p->b, &p->r, p->f);
        if (p->writes) OL_AWAIT(p->got, ol_write(co, p->f->handle, p->buf, p->n));
        else OL_AWAIT(p->got, ol_read(co, p->f->handle, p->buf, p->n));
        p->more = pump_check(p);
        mischief(p->r.loop);
    } while (p->more);
    if (!p->f->closed) fd_close(p->f);
    root_ended(&p->r);
    OL_END_THEN(co, free(p));
}
static void pump_entry(ol_co *co) {
    enter(co);
    pump_main(co);
    leave();
}

static int pump_side(int loop, int fd, party *with, int writes, uint32_t total) {
    pump *p;
    ol_fd handle;
    const int cls = (int)k_below(3), e = ol_attach(w.loop[loop], fd, cls, &handle);
    if (e) {
        CHECK("error", e == -ENOMEM || e == -ENOSPC);
        k_close(fd);
        taint(with);
        return 0;
    }
    p = (pump *)calloc(1, sizeof *p);
    p->with = with;
    p->writes = writes;
    p->total = total;
    p->seed = (uint64_t)with->id * 77 + 5;
    p->f = fd_new(loop, handle, cls, part_new(), with);
    if (root_spawn(&p->r, p, R_PUMP, loop, p->f->part, p->f, pump_entry) == 0) return 1;
    taint(with);
    fd_close(p->f);
    free(p);
    return 0;
}
static void pump_start(void) {
    party *with;
    int fds[2];
    const uint32_t total = 1 + k_below(5000), cap = 1 + k_below(600);
    if (K_FIRST_FD + sim.open + 2 > sim.fd_limit) return;
    with = party_new(0);
    if (!with) return;
    if (k_pair(k_below(2) ? K_PIPE : K_STREAMS, cap, fds)) k_fail("test", "no fd for a pump");
    pump_side((int)k_below((uint32_t)w.nloops), fds[1], with, 1, total);
    pump_side((int)k_below((uint32_t)w.nloops), fds[0], with, 0, total);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Extra roots: they queue on somebody's partition and do small things, some of them wrong                          */

typedef struct extra {
    root r;
    fdrec *f, *other;
    ol_frame frame;
    int what, rounds, file, which, was_closed;
    int64_t n, offset;
    before b;
    task *t;
    unsigned char buf[64];
} extra;

enum { X_YIELD, X_SLEEP, X_RUN, X_FOREIGN, X_SUBMIT, X_CLOSE, X_WAIT, X_FILE, X_WRONG, X_KINDS };

static void extra_wrong(extra *x) { /* mistakes that must be refused without harm */
    ol_loop *l = w.loop[x->r.loop];
    ol_fd h;
    ol_op op;
    CHECK("error", ol_close(l, 0) == -EBADF && ol_close(l, UINT64_MAX) == -EBADF);
    if (!x->f->closed) CHECK("error", ol_fd_raw(l, x->f->handle + ((uint64_t)1 << 32)) == -EBADF);
    CHECK("error", ol_attach(l, -1, 0, &h) == -EBADF);
    CHECK("error", ol_loop_step(l, 0) == -EBUSY && ol_loop_run(l) == -EBUSY && ol_loop_destroy(l) == -EBUSY);
    memset(&op, (int)k_below(256), sizeof op);
    CHECK("error", ol_submit(l, &op, task_done) == -EINVAL && ol_op_cancel(l, &op) == -EINVAL);
    if (!x->f->closed) CHECK("error", ol_attach(l, (int)(uint32_t)x->f->handle, 0, &h) == -EEXIST);
}

static void extra_foreign(extra *x) {
    if (x->was_closed) {
        if (!x->b.canceled) CHECK("error", x->n == -EBADF || x->n == -ETIMEDOUT);
    } else if (x->n != -ECANCELED && x->n != -ETIMEDOUT) {
        if (x->other->part == x->r.part) return;
        CHECK("error", x->n == (x->other->loop == x->r.loop ? -EXDEV : -EBADF));
        all.xdev++;
    }
}

/* A file: open, then stat or read it; x->which says what comes next. */
static void extra_file_check(extra *x) {
    const k_inode *f = w.file[x->rounds % FILES];
    int64_t i, whole = (int64_t)f->size - x->offset;
    struct stat st;
    if (x->n < 0) return;
    if (x->which == 0) {
        x->file = (int)x->n;
    } else if (x->which == 1) {
        memcpy(&st, x->t->out, sizeof st);
        CHECK("operation", x->n == 0 && (uint64_t)st.st_size == f->size);
    } else {
        if (whole < 0) whole = 0;
        CHECK("operation", x->n == (whole < (int64_t)x->t->len ? whole : (int64_t)x->t->len));
        for (i = 0; i < x->n; i++) CHECK("operation", x->t->out[i] == k_byte(f->seed, (uint64_t)(x->offset + i)));
    }
}
static void extra_file(ol_co *co) {
    extra *x = (extra *)owner_of(co);
    OL_BEGIN(co);
    x->file = -1;
    for (x->which = 0; x->which < 3; x->which++) {
        if (x->which && x->file < 0) break;
        x->t = task_alloc(OL_OP_FILE, x->r.loop, x->r.part, 200 + k_below(300));
        x->offset = (int64_t)k_below(700);
        task_begin(x->t, x->r.cls);
        begin(&x->b, &x->r, x->f);
        if (x->which == 0)
            OL_AWAIT(x->n, ol_open(co, &x->t->op, AT_FDCWD, w.file[x->rounds % FILES]->name, O_RDONLY, 0, x->what & 1));
        else if (x->which == 1) OL_AWAIT(x->n, ol_stat(co, &x->t->op, x->file, NULL, (struct stat *)(void *)x->t->out));
        else OL_AWAIT(x->n, ol_pread(co, &x->t->op, x->file, x->t->out, x->t->len, x->offset));
        extra_file_check(x);
        task_end(x->t);
        judge_task(x->t, &x->r, &x->b, x->n);
        (void)recover(&x->r, x->n);
    }
    if (x->file >= 0) k_close(x->file);
    OL_RETURN(0);
    OL_END(co);
}
static void extra_file_entry(ol_co *co) {
    enter(co);
    extra_file(co);
    leave_sub(co);
}

static void extra_main(ol_co *co) {
    extra *x = (extra *)owner_of(co);
    OL_BEGIN(co);
    root_started(&x->r);
    for (; x->rounds > 0; x->rounds--) {
        begin(&x->b, &x->r, x->f);
        if (x->what == X_YIELD) {
            yielded(&x->r);
            OL_YIELD();
            check_share(&x->r);
        } else if (x->what == X_SLEEP) {
            OL_AWAIT(x->n, ol_sleep(co, 50 * US));
            if (x->n == 0) CHECK("time", sim.now - x->b.at >= 50 * US);
        } else if (x->what == X_RUN) {
            x->t = task_new(x->r.loop, x->r.part);
            task_begin(x->t, x->r.cls);
            OL_AWAIT(x->n, ol_run(co, &x->t->op));
            task_end(x->t);
            judge_task(x->t, &x->r, &x->b, x->n);
        } else if (x->what == X_FOREIGN) {
            x->other = &w.fds[k_below((uint32_t)w.nfds)];
            if (x->other->part == x->r.part) continue;
            x->was_closed = x->other->closed;
            OL_AWAIT(x->n, ol_read(co, x->other->handle, x->buf, sizeof x->buf));
            extra_foreign(x);
        } else if (x->what == X_SUBMIT) {
            task_submit(x->r.loop, x->r.part);
        } else if (x->what == X_CLOSE) {
            taint(x->f->party);
            fd_close(x->f);
        } else if (x->what == X_WAIT) {
            if (x->r.deadline == K_NEVER) root_deadline(&x->r, MS);
            OL_AWAIT(x->n, ol_wait_writable(co, x->f->handle));
            judge(&x->r, x->f, &x->b, x->n);
        } else if (x->what == X_FILE) {
            OL_CALL(x->n, &x->frame, extra_file_entry);
        } else {
            extra_wrong(x);
            OL_AWAIT(x->n, ol_read(co, x->f->handle, x->buf, 0));
            if (!x->b.canceled && !x->b.closed)
                CHECK("error", x->n == -EINVAL || x->n == -ECANCELED || x->n == -ETIMEDOUT);
        }
        if (!recover(&x->r, x->n) && x->n < 0 && w.phase == ENDING) break;
        mischief(x->r.loop);
    }
    root_ended(&x->r);
    OL_END_THEN(co, free(x));
}
static void extra_entry(ol_co *co) {
    enter(co);
    extra_main(co);
    leave();
}
static void extra_start(fdrec *f) {
    extra *x = (extra *)calloc(1, sizeof *x);
    x->f = f;
    x->what = (int)k_below(X_KINDS);
    if (x->what == X_CLOSE && k_below(3)) x->what = X_YIELD;
    x->rounds = 1 + (int)k_below(4);
    if (root_spawn(&x->r, x, R_EXTRA, f->loop, f->part, f, extra_entry) != 0) free(x);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Timers, posts, policies                                                                                          */

static void on_timer(ol_loop *loop, ol_timer *timer);
static void timer_start(int loop, clock_timer *t) {
    const int64_t ns = k_range(0, k_below(2) ? 50 * US : 5 * MS), at = sim.now;
    const int e = ol_timer_start(w.loop[loop], &t->t, ns, on_timer);
    if (e) {
        CHECK("error", e == -ENOMEM && sim.stats.enomem);
        return;
    }
    t->loop = loop;
    t->state = T_RUNNING;
    t->due = at + ns;
    all.timers++;
}
static void on_timer(ol_loop *loop, ol_timer *timer) {
    clock_timer *t = OL_CONTAINER(timer, clock_timer, t);
    CHECK("callback", w.stepping == t->loop && loop == w.loop[t->loop] && w.nframes == 0 && !w.in_submit);
    CHECK("time", t->state == T_RUNNING);
    CHECK("time", sim.now >= t->due);
    check_late(t->due);
    k_trace("timer", (int64_t)(t - w.timer[t->loop]), sim.now - t->due);
    t->state = T_IDLE;
    sim.progress++;
    all.fired++;
    mischief(t->loop);
    if (w.phase == CHAOS && k_below(4) == 0 && t->state == T_IDLE) timer_start(t->loop, t);
}
static void timer_stop(clock_timer *t) {
    ol_timer_stop(w.loop[t->loop], &t->t);
    t->state = T_IDLE;
}

static void on_note(ol_loop *loop, ol_post_node *node) {
    note *n = OL_CONTAINER(node, note, node);
    CHECK("callback", w.stepping == n->loop && loop == w.loop[n->loop] && w.nframes == 0 && !w.in_submit);
    CHECK("post", n->pending > 0);
    n->pending--;
    CHECK("post", n->order > w.last_post[n->loop][n->thread]); /* first come, first served, for each thread */
    w.last_post[n->loop][n->thread] = n->order;
    n->seen = n->wanted;
    sim.progress++;
    all.posted++;
    k_trace("post", (int64_t)(n - w.notes), n->seen);
    mischief(n->loop);
}
/* What another thread may do at any moment. */
static void outside(void) {
    note *n = &w.notes[k_below(NODES)];
    const uint64_t order = ++w.posts;
    int r;
    n->wanted++;
    r = ol_post(w.loop[n->loop], &n->node);
    CHECK("post", r == 0 || r == -EBUSY);
    if (r == 0) {
        n->pending++;
        n->order = order;
        n->thread = sim.in_hook ? 1 : sim.running ? 2 : 0; /* interrupts, the outside and the loop's own thread */
    }
    all.posts++;
}
static void outside_later(void *arg, uint64_t tag) {
    (void)arg, (void)tag;
    if (w.phase != CHAOS) return; /* such threads have ended before the loops are destroyed */
    outside();
    k_at(k_range(1, MS), outside_later, NULL, 0);
}

static void policy_random(ol_policy *p) {
    uint32_t i;
    memset(p, 0, sizeof *p);
    p->n = k_below(6);
    if (p->n == 0 && k_below(4)) p->n = 1;
    for (i = 0; i < p->n; i++) {
        ol_rule *r = &p->rule[i];
        r->kind = (uint8_t)(k_below(2) ? 0 : k_below(OL__KINDS));
        r->cls = (uint8_t)(k_below(2) ? 0 : k_below(3));
        r->mode = (uint8_t)(k_below(6) == 0 ? OL_SOFTWARE : k_below(3) == 0 ? OL_SYNC : OL_ASYNC);
        r->full = (uint8_t)k_below(4);
        if (k_below(3) == 0) {
            r->min = k_below(500);
            r->max = k_below(2) ? r->min + k_below(2000) : 0;
        }
        if (r->mode != OL_SOFTWARE) snprintf(r->backend, sizeof r->backend, "dev%u", k_below(DEVS));
    }
}
static void policy_set(int loop) {
    ol_policy p, now;
    policy_random(&p);
    if (k_below(8) == 0) { /* a bad one: refused, and the old one stays */
        ol_loop_get_policy(w.loop[loop], &now);
        p.n = 1;
        memset(&p.rule[0], 0, sizeof p.rule[0]);
        p.rule[0].mode = OL_ASYNC;
        memcpy(p.rule[0].backend, "nowhere", 8);
        CHECK("error", ol_loop_set_policy(w.loop[loop], &p) == -EINVAL);
        ol_loop_get_policy(w.loop[loop], &p);
        CHECK("error", memcmp(&p, &now, sizeof p) == 0);
        return;
    }
    CHECK("error", ol_loop_set_policy(w.loop[loop], &p) == 0);
    all.policies++;
}

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
