/* tasks.h: operations, their buffers and their true results. Part of sim.c. */
#ifndef SIM_TASKS_H
#define SIM_TASKS_H

static task *task_alloc(int kind, int loop, partition *p, uint32_t len) {
    task *t = (task *)k_own(sizeof *t);
    uint32_t i;
    memset(&t->op, 0xcc, sizeof t->op);
    t->kind = kind;
    t->loop = loop;
    t->id = ++w.next_id;
    t->seed = k_rand();
    t->len = len;
    t->part = p;
    t->in = (unsigned char *)k_own(len + 1);
    t->out = (unsigned char *)k_own(len + 1);
    for (i = 0; i < len; i++) t->in[i] = k_byte(t->seed, i);
    return t;
}

#if HAS_CODEC
static ol_exec *codec; /* the checkers' own */

/* Text that can be compressed. */
static unsigned char text_byte(const task *t, uint32_t i) { return k_byte(t->seed, i) & 3; }

/* The codec on the spot, where nothing fails. */
static int64_t codec_exec(ol_op *op) {
    const int faults = sim.faults.enomem;
    int64_t r;
    sim.faults.enomem = 0;
    r = ol_op_exec(codec, op);
    sim.faults.enomem = faults;
    return r;
}

/* deflate: its input is text, its output is checked by inflating it. inflate: the other way round. Half of them are a
   stream of one chunk. */
static void codec_prepare(task *t) {
    const int format = 1 + (int)k_below(3), chunk = (int)k_below(2);
    const uint64_t cap = ol_deflate_bound(t->len);
    unsigned char *packed = (unsigned char *)k_own(cap);
    uint32_t i;
    ol_op op;
    for (i = 0; i < t->len; i++) t->in[i] = text_byte(t, i);
    if (t->kind == OL_OP_DEFLATE) {
        k_disown(t->out);
        t->out = packed;
        if (chunk) ol_prep_deflate_chunk(&t->op, format, packed, cap, t->in, t->len, &t->stream, NULL, 0, 1);
        else ol_prep_deflate(&t->op, format, packed, cap, t->in, t->len);
        t->op.level = (uint8_t)k_below(5);
        return;
    }
    t->expect = t->len;
    t->packed = codec_exec(ol_prep_deflate(&op, format, packed, cap, t->in, t->len));
    k_disown(t->in);
    t->in = packed;
    if (chunk)
        ol_prep_inflate_chunk(&t->op, format, t->out, t->len, packed, (uint64_t)t->packed, &t->stream, NULL, 0, 1);
    else ol_prep_inflate(&t->op, format, t->out, t->len, packed, (uint64_t)t->packed);
}

static void codec_check(task *t, int64_t n) {
    unsigned char *back = t->out;
    uint32_t i;
    ol_op op;
    if (t->kind == OL_OP_DEFLATE) {
        back = (unsigned char *)k_own(t->len + 1);
        n = codec_exec(ol_prep_inflate(&op, t->op.format, back, t->len, t->out, (uint64_t)n));
    } else {
        CHECK("operation", t->op.used == (uint64_t)t->packed);
    }
    CHECK("operation", n == t->len);
    for (i = 0; i < t->len; i++) CHECK("operation", back[i] == text_byte(t, i));
    if (back != t->out) k_disown(back);
}
#endif

/* A new operation, prepared; its true result is known. */
static task *task_new(int loop, partition *p) {
    const uint32_t len = k_below(2) ? k_below(64) : k_below(3000);
    task *t;
    int kind = k_below(2) ? OL_OP_CRC32 : OL_OP_CALL;
    if (HAS_CODEC && k_below(3) == 0) kind = k_below(3) ? OL_OP_DEFLATE : OL_OP_INFLATE;
    t = task_alloc(kind, loop, p, len);
    if (kind == OL_OP_CRC32) {
        const uint32_t start = k_below(2) ? 0 : (uint32_t)k_rand();
        ol_prep_crc32(&t->op, start, t->in, len);
        t->expect = crc_slow(start, t->in, len);
    } else if (kind == OL_OP_CALL) {
        t->steps = k_below(2) ? 1 + (int)k_below(k_below(4) ? 6 : 40) : 1;
        if (t->steps > 1) ol_prep_steps(&t->op, task_call, t);
        else ol_prep_call(&t->op, task_call, t);
        COUNT_IF(OP_STEPS, t->steps > 1);
        t->op.len = len;
        t->cost = k_range(0, k_below(4) ? 5 * US : 100 * US) / (t->steps > 6 ? 6 : 1);
        t->expect = k_range(0, INT64_MAX - 1);
#if HAS_CODEC
    } else {
        codec_prepare(t);
#endif
    }
    t->op.cls = (uint8_t)k_below(3);
    if (k_below(4) == 0) t->op.timeout_us = 1 + k_below(3000);
    return t;
}

static void task_begin(task *t, int cls) {
    t->waiter = NULL;
    t->begun = sim.now;
    t->loop_time = ol_now(w.loop[t->loop]);
    t->ticket = ++w.tickets;
    t->cls = t->kind != OL_OP_FILE && t->op.cls ? t->op.cls : cls; /* a file operation is prepared by its await */
    t->closes = t->part ? t->part->closes : 0;
    t->inflight = 1;
    if (t->kind != OL_OP_FILE) t->op_len = t->op.len;
    policy_note(t);
    if (t->part) t->part->inflight++;
    w.inflight[t->loop]++;
    if (w.ntasks == TASKS) k_fail("test", "TASKS is too small");
    t->at = w.ntasks;
    w.tasks[w.ntasks++] = t;
    k_trace("task", t->id, t->kind);
}
/* It waits in the loop for room, or not any more. */
static void task_refused(task *t, int is) {
    w.refused[t->loop] += is - t->refused;
    t->refused = is;
}
static void task_end(task *t) {
    task_refused(t, 0);
    sliced_end(t);
    lane_leaves(t);
    if (t->part) t->part->inflight--;
    w.inflight[t->loop]--;
    w.tasks[t->at] = w.tasks[--w.ntasks];
    w.tasks[t->at]->at = t->at;
    t->inflight = 0;
}

/* The backend has no more than it may: of each line, or of all; then latency-critical work alone has the last places. */
static void lane_fits(const task *t, uint32_t depth) {
    const lane_known *l = lane_of(t->loop, t->op.where);
    const uint32_t batch = l->in[LINE_OF_BATCH] + l->in[LINE_OF_BATCH + LINE_CALLS];
    if (!one_queue(t->op.where)) {
        CHECK("backend", l->in[line_of(t)] <= depth);
        return;
    }
    CHECK("backend", lane_all(l) <= depth && batch <= depth - lane_reserve(t->op.where));
    COUNT_IF(ONE_QUEUE_FULL, lane_all(l) == depth);
    COUNT_IF(RESERVE_USED, lane_all(l) > depth - lane_reserve(t->op.where));
}

/* From a device: a fd of the operation's partition must stay open as long as the device writes. */
static void device_takes(ol_op *op) {
    task *t = OL_CONTAINER(op, task, op);
    const fdrec *f = t->part ? t->part->fd : NULL;
    const dev *d = &w.device[t->op.where - 1]; /* devices are the first lanes */
    uint64_t *last = &w.last_taken[t->loop][t->op.where - 1][t->cls][is_call(t)];
    CHECK("operation", t->inflight);
    task_refused(t, 0);
    CHECK("order", t->ticket > *last); /* first come, first served, within a class and sort */
    *last = t->ticket;
    CHECK("backend", d->backend.kinds >> t->kind & 1);
    lane_takes(t);
    lane_fits(t, d->p.depth);
    w.offloaded[t->loop]++;
    if (f && !f->closed && f->loop == t->loop) {
        t->pin = sim.file[(uint32_t)f->handle];
        t->pin->pins++;
    }
    t->asked = !d->backend.cancel; /* one that can't stop anything is not asked */
}
static void device_refuses(ol_op *op) { task_refused(OL_CONTAINER(op, task, op), 1); }
static void device_returns(ol_op *op) {
    task *t = OL_CONTAINER(op, task, op);
    t->returned = 1;
    lane_returns(t);
}
static void device_cancel(ol_op *op) { OL_CONTAINER(op, task, op)->asked = 1; }
static void device_done(ol_op *op) {
    task *t = OL_CONTAINER(op, task, op);
    CHECK("operation", t->inflight && !t->reported);
    t->reported = 1;
    t->told_ns = op->service_ns;
    t->out_sum = dev_sum(t->out, t->len);
    if (t->pin) t->pin->pins--;
    t->pin = NULL;
}

static void judge_success(task *t, int64_t n) {
    uint32_t i;
    if (t->kind == OL_OP_FILE) return; /* its caller knows */
    if (t->kind == OL_OP_CALL) {
        CHECK("operation", t->runs == 1 && t->step == t->steps && !t->inside);
        for (i = 0; i < t->len; i++) CHECK("operation", t->out[i] == k_byte(~t->seed, i));
    }
#if HAS_CODEC
    if (t->kind == OL_OP_DEFLATE || t->kind == OL_OP_INFLATE) {
        codec_check(t, n);
        return;
    }
#endif
    CHECK("operation", n == t->expect);
}

/* The depth of a backend, by its op.where. */
static uint32_t lane_depth(int lane);
/* How many operations the backend and the loop have of its line; or of all lines, where they are one. waits: one of its
   line waits for room. */
static uint32_t task_crowd(const task *t, int where, int all, int *waits) {
    uint32_t n = 0;
    int i;
    for (i = 0; i < w.ntasks; i++) {
        const task *o = w.tasks[i];
        if (o == t || o->forked || o->loop != t->loop || o->op.where != where || o->returned) continue;
        if (o->op.why == OL_WHY_STOPPED || (line_of(o) != line_of(t) && !all)) continue;
        if (waits && line_of(o) == line_of(t)) *waits |= o->op.why == OL_WHY_PARKED;
        n++;
    }
    return n;
}
/* It has been accepted: if it had to wait for room, then as one of park_max at most. */
static void task_parks(const task *t) {
    if (t->op.where && t->op.where <= w.nbackends)
        CHECK("policy",
              task_crowd(t, t->op.where, 0, NULL) < lane_depth(t->op.where) + w.desc[t->loop].park_max);
}

/* There was no room for it: others have it, or wait for it. */
static void task_no_room(const task *t, int where) {
    int waits = 0;
    const uint32_t n = task_crowd(t, where, one_queue(where), &waits);
    const uint32_t kept = t->cls == OL_LATENCY || !one_queue(where) ? 0 : lane_reserve(where);
    CHECK("policy", n > 0);
    if (lane_watched(where)) CHECK("policy", waits || n + kept >= lane_depth(where));
}
/* It has been refused for lack of room. */
static void task_full(const task *t) {
    if (!t->op.mode) {
        CHECK("policy", sliced_full(t));
        COUNT(SLICE_LINE_FULL);
    } else if (policy_full(t) == OL_FULL_FAIL) {
        task_no_room(t, t->op.where);
    } else {
        CHECK("policy", task_crowd(t, t->op.where, 0, NULL) >= w.desc[t->loop].park_max);
    }
}
/* It has run on the spot for lack of room: others have it, or the backend has refused it. */
static void task_crowded_out(const task *t) {
    if (t->op.why != OL_WHY_FULL || t->refused || sliced_full(t)) return;
    CHECK("policy", t->rule.mode > OL_SLICED);
    task_no_room(t, policy_lane(t->rule.backend));
}

/* It has been submitted: 1 it is in flight, 0 it ran or was refused. */
static void task_submitted(task *t, const scene *s, int accepted) {
    auto_after(s, t);
    t->accepted = sim.now;
    if (!accepted) return;
    if (t->op.mode == OL_SLICED) sliced_join(t);
    else if (t->op.where) lane_accepts(t);
    if (w.ntasks > 200) w.crowded[t->loop] = 1;
}
/* The same of a file operation. */
static int await_file(ol_co *co, task *t, int pending) {
    t->waiter = (root *)(void *)co;
    if (pending && !woken(t->waiter)) lane_accepts(t);
    return pending;
}

/* ol_run: it suspends, or comes back within the bound of a synchronous wait. */
static int await_run(ol_co *co, task *t) {
    const int64_t at = sim.now, computed = w.computed, bound = w.desc[t->loop].sync_ns;
    int pending, why;
    int64_t took;
    scene s;
    t->waiter = (root *)(void *)co;
    auto_before(&s, t, t->waiter);
    pending = ol_run(co, &t->op);
    why = t->op.why;
    took = sim.now - at;
    if (why == OL_WHY_SYNC_BOUND) CHECK("policy", pending && took >= bound);
    if (why == OL_WHY_SYNC_BOUND || (t->op.where && t->op.mode == OL_SYNC))
        CHECK("policy", took - (w.computed - computed) <= bound + SPIN_SLACK); /* but for what it runs for others */
    task_submitted(t, &s, pending && !woken(t->waiter));
    task_crowded_out(t);
    if (pending && !woken((root *)(void *)co)) task_parks(t);
    else if (co->result == -EAGAIN) task_full(t);
    return pending;
}

static void task_count(const task *t, int64_t n);
static void judge_service(const task *t);
static int fork_failed(int loop, int64_t r);

/* The result of an operation: true, or with a cause. Frees it. r: the awaiting root, NULL in a callback. */
static void judge_task(task *t, const root *r, const before *b, int64_t n) {
    const int closed = t->part && t->part->closes != t->closes;
    k_trace("result", t->id, n);
    if (b) judge_requests(b, n);
    if (b && (b->canceled || b->overdue)) CHECK("error", t->runs == 0 && t->step == 0 && !t->reported);
    COUNT_IF(OP_FORKED, t->forked && n == -ECANCELED);
    if (t->reported) CHECK("operation", dev_sum(t->out, t->len) == t->out_sum);
    CHECK("operation", !t->in_pool);
    if (n < 0 && r) told(ol_co_error(&r->co));
    if (n < 0 && (!r || t->op.result == n)) told(ol_op_error(&t->op)); /* else it was not even submitted */
    COUNT_AT(OP, t->kind - OL_OP_CALL);
    COUNT_IF(WHY_STOPPED, n < 0 && t->op.why == OL_WHY_STOPPED);
    task_count(t, n);
    if (n < 0 && t->kind != OL_OP_FILE && !t->forked)
        CHECK("operation", t->runs == 0 && (t->starts == 0 || n == -ENOMEM));
    if (n < 0 && t->op.mode != OL_SLICED && !t->forked) CHECK("steps", t->step == 0);
    if (n >= 0) {
        judge_success(t, n);
        policy_judge(t);
        judge_service(t);
        CHECK("operation", t->starts == (t->op.where && t->op.where == pool_lane()));
        COUNT_AT(AT_SOFTWARE, t->op.where && t->op.where == pool_lane() ? (int)LANES : t->op.where);
        COUNT_AT(WHY, t->op.why);
        COUNT_AT(OP_SOFTWARE, t->op.mode - OL_SOFTWARE);
        CHECK("policy",
              strcmp(ol_op_where(w.loop[t->loop], &t->op), t->op.where ? w.backend[t->op.where - 1] : "software") == 0);
        told(ol_op_why(&t->op));
    } else if (n == -ECANCELED) {
        CHECK("error", t->canceled || closed || (r && r->canceled) || w.phase == ENDING || w.destroying == t->loop ||
                           (t->forked && t->op.mode != OL_SLICED)); /* what is sliced goes on in a child */
        COUNT(OP_CANCELED);
    } else if (n == -ETIMEDOUT) {
        const int64_t limit = t->op.timeout_us ? t->begun + (int64_t)t->op.timeout_us * US : K_NEVER;
        CHECK("time", sim.now >= limit || (r && (sim.now >= r->deadline || r->was_due)));
        COUNT(OP_TIMEOUT);
    } else if (n == -EIO) {
        CHECK("error", t->reported);
        COUNT(OP_FAULT);
    } else if (n == -EAGAIN) {
        COUNT(OP_REFUSED);
        policy_judge_full(t);
    } else if (sim.forks && (n == -EMFILE || n == -ENOSPC || n == -ENOMEM)) {
        COUNT(FORK_FAILED);
    } else if (n != -ENOMEM && t->kind == OL_OP_FILE) {
        CHECK("error", n == -EMFILE || (n == -ENOTSUP && w.old_kernel));
        COUNT_IF(OP_NO_FD, n == -EMFILE);
    } else {
        CHECK("error", n == -ENOMEM && sim.stats.enomem);
    }
    k_disown(t->in);
    k_disown(t->out);
    k_disown(t);
}

static void task_done(ol_loop *on, ol_op *op) {
    (void)on;
    task *t = OL_CONTAINER(op, task, op);
    partition *p = t->part, *was = w.current;
    const int loop = t->loop;
    CHECK("callback", !w.in_submit && w.stepping == t->loop && w.nframes == 0);
    CHECK("operation", t->inflight);
    settle();
    count_run(loop, t->cls);
    if (p) CHECK("gate", !p->busy);
    sim.progress++;
    task_end(t);
    judge_task(t, NULL, NULL, op->result);
    w.current = p;
    mischief(loop);
    w.current = was;
    if (p) p->callbacks--;
    COUNT(DONE_CALLED);
}

/* The class of an operation that names none: the running coroutine's, or that of the partition whose callback runs. */
static int inherited_class(const ol_loop *loop) {
    uint32_t cls = 0;
    if (loop->current) cls = ol__co_class(loop->current);
    else if (loop->callback_part) cls = ol__part_class(loop, &loop->part[loop->callback_part]);
    return cls ? (int)cls : OL_BATCH;
}

/* Submits in callback form, for the partition that runs now. */
static void task_submit(int loop, partition *p) {
    task *t;
    scene s;
    int r;
    if (w.ntasks > TASKS - 64) return;
    t = task_new(loop, p);
    task_begin(t, inherited_class(w.loop[loop]));
    if (p) p->callbacks++;
    auto_before(&s, t, NULL);
    w.in_submit = 1;
    r = ol_submit(w.loop[loop], &t->op, task_done);
    w.in_submit = 0;
    task_submitted(t, &s, r == 0 && t->op.mode != OL_SOFTWARE);
    if (r == 0) {
        COUNT(OP_CALLBACK);
        task_parks(t);
        task_crowded_out(t);
        if (k_below(8) == 0) {
            CHECK("error", ol_submit(w.loop[loop], &t->op, task_done) == -EBUSY);
            COUNT(OP_BUSY);
        }
        return;
    }
    if (r == -EAGAIN) task_full(t);
    if (p) p->callbacks--;
    task_end(t);
    CHECK("error", r == -EAGAIN || r == -ENOMEM || fork_failed(loop, r) || (r == -ECANCELED && w.phase == ENDING));
    judge_task(t, NULL, NULL, r);
}

#endif
