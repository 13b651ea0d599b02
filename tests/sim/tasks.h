/* tasks.h: operations, their buffers and their true results. Part of sim.c. */
#ifndef SIM_TASKS_H
#define SIM_TASKS_H

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

#endif
