/* device.h: a simulated accelerator behind the backend vtable of offload.h, on the virtual clock of kernel.h.

   Include it after both. Operations complete after random latencies and are handed back in random order; the results
   are always the true ones, computed by ol_op_exec at the moment of completion, as a device's DMA would write them. It
   may take fewer operations than it is given, refuse them all, fail, hang until dev_release, grant or deny a cancel, lose
   an operation so that only a cancel ends it, be slow, fast and full by turns, have to be woken up. It
   checks what the library owes a backend: no operation twice, no cancel or close of what it does not hold, inputs that
   stay as they were. */
#ifndef SIM_DEVICE_H
#define SIM_DEVICE_H

#define DEV_SLOTS 128
#define DEV_CHANNELS 8

enum { DEV_NEXT_NULL, DEV_NEXT_UNKNOWN, DEV_NEXT_KNOWN }; /* the vtable's next_ns */
enum { DEV_FREE, DEV_AT_WORK, DEV_STOPPED, DEV_DONE };    /* a slot */

typedef struct dev_params { /* probabilities in 1/1000 */
    uint32_t depth;         /* of one class and sort */
    uint32_t flags;         /* OL_CHANNEL_... */
    int next;               /* DEV_NEXT_... */
    int64_t base, jitter;   /* latency: base + 0..jitter ns */
    int slow;               /* takes 20 times as long */
    int hang;               /* completes at dev_release only */
    int few;                /* submit takes fewer than it could */
    int refuse;             /* submit takes none although there is room */
    int fail;               /* submit gives -EIO */
    int stop;               /* cancel is granted */
    int fault;              /* completes with -EIO, unexecuted */
} dev_params;

/* All 0: none of it. Set after dev_init. */
typedef struct dev_moods {
    uint32_t reserve; /* of one queue for all, for latency-critical work only */
    int lost;         /* completes at a cancel only, which is granted, or at dev_release */
    int asleep;       /* an idle one says that it sleeps, where the vtable has dev_asleep */
    int tells;        /* 1: op->service_ns is how long it had the operation */
    int64_t phase;    /* ns: it is as ever, slow, fast and full by turns, each for so long; 0: always as ever */
} dev_moods;

typedef struct dev_slot {
    ol_op *op;
    int64_t due, taken;
    int state, lost;
    uint64_t serial, sum; /* sum: of the input when it was taken */
} dev_slot;

struct dev;
typedef struct dev_channel {
    struct dev *dev;
    ol_notify *notify;
    dev_slot slot[DEV_SLOTS];
    int open, held, finished;
    int forked; /* the process is another one now, and nobody has told the channel */
} dev_channel;

typedef struct dev {
    ol_backend backend;
    ol_exec *exec;
    dev_params p;
    dev_moods m;
    dev_channel channel[DEV_CHANNELS];
    uint64_t serial;
    int released; /* no more hanging */
    int max_held;
    uint64_t taken, full, failed, done, faults, stopped, too_late, hung, lost, ended_by_cancel, in_phase[4], slept;
    void (*on_take)(ol_op *op);   /* the device has it */
    void (*on_refuse)(ol_op *op); /* it has not, though it was asked */
    void (*on_cancel)(ol_op *op); /* it was asked to stop it */
    void (*on_done)(ol_op *op);   /* it has written the results */
    void (*on_return)(ol_op *op); /* the loop gets it back */
} dev;

K_FN uint64_t dev_sum(const void *p, uint64_t n) {
    const unsigned char *b = (const unsigned char *)p;
    uint64_t i, h = 0xcbf29ce484222325u;
    for (i = 0; i < n; i++) h = (h ^ b[i]) * 0x100000001b3u;
    return h;
}

K_FN uint64_t dev_input_sum(const ol_op *op) {
    return op->kind == OL_OP_CALL || op->kind == OL_OP_FILE || !op->src ? 0 : dev_sum(op->src, op->len);
}

K_FN void dev_ask(const dev_channel *c, const char *what) {
    if (c->forked) k_fail("fork", "%s on a channel that has not heard of the fork", what);
    if (!c->open) k_fail("device", "%s on a closed channel", what);
}

/* The moment of completion, on the device's side. */
K_FN void dev_complete(dev_channel *c, dev_slot *s) {
    dev *d = c->dev;
    if (s->sum != dev_input_sum(s->op)) k_fail("buffers", "an operation's input changed while it was in flight");
    if (s->state == DEV_STOPPED) {
        s->op->result = -ECANCELED;
    } else if (k_chance(d->p.fault)) {
        s->op->result = -EIO;
        d->faults++;
    } else {
        sim.on_worker = 1;
        ol_op_exec(d->exec, s->op);
        sim.on_worker = 0;
    }
    if (d->m.tells) s->op->service_ns = (uint32_t)(sim.now - s->taken < UINT32_MAX ? sim.now - s->taken : UINT32_MAX);
    s->state = DEV_DONE;
    c->finished++;
    d->done++;
    sim.progress++;
    k_trace("device done", s->op->kind, s->op->result);
    if (d->on_done) d->on_done(s->op);
    if (d->p.flags & OL_CHANNEL_NOTIFIES) ol_notify_loop(c->notify);
}

K_FN void dev_due(void *arg, uint64_t tag) {
    dev_channel *c = (dev_channel *)arg;
    dev_slot *s = &c->slot[tag % DEV_SLOTS];
    if (s->serial == tag / DEV_SLOTS && (s->state == DEV_AT_WORK || s->state == DEV_STOPPED) && s->due <= sim.now)
        dev_complete(c, s);
}

K_FN void dev_schedule(dev_channel *c, dev_slot *s, int64_t after) {
    s->due = sim.now + after;
    k_at(after, dev_due, c, s->serial * DEV_SLOTS + (uint64_t)(s - c->slot));
}

enum { DEV_AS_EVER, DEV_SLOW, DEV_FAST, DEV_FULL }; /* phases */
K_FN int dev_phase(const dev *d) { return d->m.phase ? (int)(sim.now / d->m.phase % 4) : (int)DEV_AS_EVER; }

K_FN void dev_take(dev_channel *c, ol_op *op) {
    dev *d = c->dev;
    int64_t latency = d->p.base + (d->p.jitter ? k_range(0, d->p.jitter) : 0);
    int i, empty = -1;
    const int phase = dev_phase(d);
    for (i = DEV_SLOTS - 1; i >= 0; i--) {
        if (c->slot[i].state == DEV_FREE) empty = i;
        if (c->slot[i].op == op) k_fail("device", "an operation was submitted that the device already has");
    }
    if (empty < 0) k_fail("device", "no slot for what was accepted");
    c->slot[empty].op = op;
    c->slot[empty].state = DEV_AT_WORK;
    c->slot[empty].serial = ++d->serial;
    c->slot[empty].sum = dev_input_sum(op);
    c->slot[empty].due = K_NEVER;
    c->slot[empty].taken = sim.now;
    c->slot[empty].lost = !d->released && k_chance(d->m.lost);
    c->held++;
    d->in_phase[phase]++;
    d->taken++;
    if (d->on_take) d->on_take(op);
    if (c->held > d->max_held) d->max_held = c->held;
    k_trace("device takes", op->kind, (int64_t)op->len);
    if (k_chance(d->p.slow)) latency *= 20;
    else if (phase == DEV_SLOW) latency *= 10;
    if (phase == DEV_FAST) latency = latency / 10 + 1;
    if (c->slot[empty].lost) d->lost++;
    else if (k_chance(d->p.hang) && !d->released) d->hung++;
    else dev_schedule(c, &c->slot[empty], latency);
}

K_FN int dev_submit(void *channel, ol_op *const *ops, int n) {
    dev_channel *c = (dev_channel *)channel;
    dev *d = c->dev;
    const int room = (int)(4 * d->p.depth) - c->held; /* depth for each class, and apart for calls and files */
    int i, take = n < room ? n : room;
    if (n < 1) k_fail("device", "submit of %d operations", n);
    dev_ask(c, "submit");
    if (k_chance(d->p.fail)) {
        d->failed++;
        k_trace("device fails", n, 0);
        return -EIO;
    }
    if (dev_phase(d) == DEV_FULL) d->in_phase[DEV_FULL]++, take = 0;
    else if (take > 0 && k_chance(d->p.refuse)) take = 0;
    else if (take > 1 && k_chance(d->p.few)) take = 1 + (int)k_below((uint32_t)take - 1);
    if (take < n) d->full++;
    if (take < 0) take = 0;
    for (i = 0; i < take; i++) dev_take(c, ops[i]);
    for (i = take; i < n; i++)
        if (d->on_refuse) d->on_refuse(ops[i]);
    return take;
}

K_FN int dev_poll(void *channel, ol_op **ops, int max) {
    dev_channel *c = (dev_channel *)channel;
    int n = 0, at = (int)k_below(DEV_SLOTS), i;
    if (max < 1) k_fail("device", "poll for %d operations", max);
    dev_ask(c, "poll");
    k_run_due();
    if (c->finished > 1 && max > 1 && k_chance(c->dev->p.few)) max = 1;
    for (i = 0; i < DEV_SLOTS && n < max && c->finished; i++, at = (at + 1) % DEV_SLOTS) {
        if (c->slot[at].state != DEV_DONE) continue;
        ops[n++] = c->slot[at].op;
        if (c->dev->on_return) c->dev->on_return(c->slot[at].op);
        c->slot[at].op = NULL;
        c->slot[at].state = DEV_FREE;
        c->finished--;
        c->held--;
    }
    if (n) k_trace("device returns", n, c->held);
    return n;
}

K_FN int dev_look(void *channel) {
    dev_ask((dev_channel *)channel, "look");
    k_run_due();
    return ((dev_channel *)channel)->finished;
}

/* When the first of what it has is complete, as far as that is known. */
K_FN int64_t dev_least_due(const dev_channel *c) {
    int64_t least = K_NEVER;
    int i;
    for (i = 0; i < DEV_SLOTS && c->held; i++)
        if (c->slot[i].state != DEV_FREE && c->slot[i].due < least) least = c->slot[i].due;
    return c->dev->p.next == DEV_NEXT_KNOWN ? least : K_NEVER;
}

K_FN int64_t dev_next_ns(void *channel, int64_t now) {
    dev_channel *c = (dev_channel *)channel;
    int64_t least;
    dev_ask(c, "next_ns");
    if (c->finished) return now;
    least = dev_least_due(c);
    return least == K_NEVER ? -1 : least;
}

K_FN int dev_cancel(void *channel, ol_op *op) {
    dev_channel *c = (dev_channel *)channel;
    int i;
    dev_ask(c, "cancel");
    for (i = 0; i < DEV_SLOTS && c->slot[i].op != op; i++) {
    }
    if (i == DEV_SLOTS) k_fail("device", "cancel of an operation that the device does not have");
    k_trace("device cancel", op->kind, c->slot[i].state);
    if (c->dev->on_cancel) c->dev->on_cancel(op);
    if (c->slot[i].state != DEV_AT_WORK || !(c->slot[i].lost || k_chance(c->dev->p.stop))) {
        c->dev->too_late++;
        return -EBUSY;
    }
    c->dev->stopped++;
    c->dev->ended_by_cancel += c->slot[i].lost && c->slot[i].due == K_NEVER;
    c->slot[i].state = DEV_STOPPED;
    if (k_below(2)) dev_complete(c, &c->slot[i]);
    else dev_schedule(c, &c->slot[i], k_range(1, 1000));
    return 0;
}

K_FN int dev_asleep(void *channel) {
    dev_channel *c = (dev_channel *)channel;
    dev_ask(c, "asleep");
    if (c->held || !k_chance(c->dev->m.asleep)) return 0;
    c->dev->slept++;
    return 1;
}

K_FN int dev_forked(void *channel) {
    dev_channel *c = (dev_channel *)channel;
    if (!c->forked) k_fail("device", "is told of a fork twice, or of none");
    c->forked = 0;
    return 0;
}

K_FN int dev_open(void *self, ol_notify *notify, ol_channel *out) {
    dev *d = (dev *)self;
    int i = 0;
    while (i < DEV_CHANNELS && (d->channel[i].open || d->channel[i].forked)) i++;
    if (i == DEV_CHANNELS) return -ENOSPC;
    memset(&d->channel[i], 0, sizeof d->channel[i]);
    d->channel[i].dev = d;
    d->channel[i].open = 1;
    d->channel[i].notify = notify;
    out->self = &d->channel[i];
    out->depth = d->p.depth;
    out->flags = d->p.flags;
    out->reserve = d->m.reserve;
    return 0;
}

K_FN void dev_close(void *channel) {
    dev_channel *c = (dev_channel *)channel;
    dev_ask(c, "close");
    if (c->held) k_fail("device", "the channel is closed with %d operations in flight", c->held);
    c->open = 0;
}

/* The process has forked: what is in flight is in the parent. Of the channels nothing may be used before dev_forked; and
   nothing any more where the vtable has no such function. */
K_FN void dev_fork(dev *d) {
    int i, s;
    for (i = 0; i < DEV_CHANNELS; i++) {
        dev_channel *c = &d->channel[i];
        c->forked = c->open;
        if (!d->backend.forked) c->open = 0;
        d->taken -= (uint64_t)(c->held - c->finished);
        c->held = c->finished = 0;
        for (s = 0; s < DEV_SLOTS; s++) {
            c->slot[s].state = DEV_FREE;
            c->slot[s].op = NULL;
        }
    }
}

K_FN void dev_init(dev *d, const char *name, const dev_params *p) {
    memset(d, 0, sizeof *d);
    d->p = *p;
    if (d->p.depth > DEV_SLOTS / 4) d->p.depth = DEV_SLOTS / 4;
    d->exec = ol_exec_create();
    if (!d->exec) k_fail("test", "no memory for the device's codec context");
    d->backend.version = OL_BACKEND_VERSION;
    d->backend.kinds = 0xffffffffu;
    d->backend.name = name;
    d->backend.self = d;
    d->backend.open = dev_open;
    d->backend.submit = dev_submit;
    d->backend.poll = dev_poll;
    d->backend.look = dev_look;
    d->backend.next_ns = p->next == DEV_NEXT_NULL ? NULL : dev_next_ns;
    d->backend.cancel = p->stop < 0 ? NULL : dev_cancel;
    d->backend.close = dev_close;
    d->backend.forked = dev_forked;
}

K_FN void dev_free(dev *d) {
    ol_exec_destroy(d->exec);
    d->exec = NULL;
}

/* What hangs goes on, and from now on nothing hangs. */
K_FN void dev_release(dev *d) {
    int i, s;
    d->released = 1;
    for (i = 0; i < DEV_CHANNELS; i++)
        for (s = 0; s < DEV_SLOTS; s++)
            if (d->channel[i].slot[s].state == DEV_AT_WORK && d->channel[i].slot[s].due == K_NEVER)
                dev_schedule(&d->channel[i], &d->channel[i].slot[s], k_range(1, 10000));
}

#endif
