/* slices.h: operations that the loop runs in slices, and calls in steps,
   wherever they run. Part of sim.c.

   A slice is seen where it runs a step of a call; the library's count of slices
   tells two of them apart, and how many nobody has seen.

     steps       each once, one after the other, on one thread; none after the
   result or after a request to stop slice       one operation of each class of
   a loop at a time, first come, first served; no more than one step longer than
   it may be, and not shorter; nothing of its class waits for two slices; never
   inside a coroutine or a callback; what waits for its first slice and is to
   stop ends at once */
#ifndef SIM_SLICES_H
#define SIM_SLICES_H

static uint64_t slices_done(int loop) {
    ol_loop_stats s;
    s.size = sizeof s;
    ol_loop_get_stats(w.loop[loop], &s);
    return s.slices;
}
/* Slices of whose class nobody knows. */
static uint64_t slices_hidden(int loop) { return slices_done(loop) - w.slices_seen[loop]; }

/* Has it ended, though its owner may not know yet? */
static int sliced_over(const task *t) { return t->runs || t->op.why == OL_WHY_STOPPED || t->op.service_ns; }
static void sliced_leave(task *t) {
    slice_line *s = &w.slicer[t->loop][t->cls];
    if (!t->sliced) return;
    if (t->before) t->before->behind = t->behind;
    else s->first = t->behind;
    if (t->behind) t->behind->before = t->before;
    else s->last = t->before;
    t->sliced = 0;
}
/* The one under way, or about to be; NULL if there is none. */
static task *sliced_first(int loop, int cls) {
    slice_line *s = &w.slicer[loop][cls];
    while (s->first && sliced_over(s->first)) sliced_leave(s->first);
    return s->first;
}
static uint32_t sliced_crowd(int loop, int cls) { /* that have not ended */
    const task *t;
    uint32_t n = 0;
    for (t = w.slicer[loop][cls].first; t; t = t->behind) n += !sliced_over(t);
    return n;
}

/* Do as many wait as may? */
static int sliced_full(const task *t) { return sliced_crowd(t->loop, t->cls) > w.desc[t->loop].park_max; }

/* It has been accepted, and is to be sliced. */
static void sliced_join(task *t) {
    slice_line *s = &w.slicer[t->loop][t->cls];
    COUNT_IF(SLICE_LINE, sliced_first(t->loop, t->cls) != NULL);
    t->sliced = 1;
    t->before = s->last;
    t->behind = NULL;
    if (s->last) s->last->behind = t;
    else s->first = t;
    s->last = t;
    CHECK("slice", sliced_crowd(t->loop, t->cls) <= 1 + w.desc[t->loop].park_max);
    w.slices_most[t->loop] += t->kind == OL_OP_CALL ? (uint64_t)t->steps : 1 + t->op.len / (uint64_t)sim.piece * 2 + 64;
}
/* It has ended, and its owner knows. */
static void sliced_end(task *t) {
    if (t->op.mode != OL_SLICED) return;
    COUNT_IF(SLICED_MANY, t->slices > 1 && t->runs);
    if (t->op.why == OL_WHY_STOPPED) w.maybe_software[t->loop]++, w.slices_most[t->loop]++;
    (void)sliced_first(t->loop, t->cls);
    COUNT_IF(SLICED_STOPPED, t->op.why == OL_WHY_STOPPED && t->step > 0);
    if (t->sliced) CHECK("slice", t->op.why == OL_WHY_STOPPED); /* else one that came before it has not ended */
    sliced_leave(t);
}

/* Whoever asks an operation to stop: one that has not had its turn yet has
 * ended when the call returns. */
static void sliced_stops(const task *t) {
    if (!t->sliced || sliced_first(t->loop, t->cls) == t) return;
    CHECK("slice", sliced_over(t));
    COUNT(SLICED_STOPPED_IN_LINE);
}

/* Was it to stop before this round began, or by a request? */
static int surely_stops(const task *t) {
    const root *r = t->waiter;
    if (t->canceled || (t->part && t->part->closes != t->closes)) return 1;
    if (t->op.timeout_us && t->accepted && t->accepted + (int64_t)t->op.timeout_us * US <= w.entered) return 1;
    return r && (r->canceled || (r->surely_due <= w.entered && r->set_in < w.steps[t->loop]));
}

/* A slice begins: the one before has lasted as long as it may, if there was
 * more to do. */
static void slice_begins(task *t, uint64_t number) {
    const int64_t least = w.desc[t->loop].slice_ns;
    w.slice[t->loop] = number;
    w.slices_seen[t->loop]++;
    w.slices_of[t->loop][t->cls]++;
    w.slice_begun = sim.now;
    w.slice_task = t;
    if (t->slices++ && t->slice_took >= 0) CHECK("slice", t->slice_took >= least);
    count_run(t->loop, t->cls);
}
/* A step of a sliced one begins. */
static void slice_step(task *t) {
    const uint64_t number = slices_done(t->loop) + 1;
    CHECK("slice", w.stepping == t->loop && w.nframes == 0 && !w.in_submit && !w.current);
    CHECK("slice", sliced_first(t->loop, t->cls) == t);
    CHECK("steps", !surely_stops(t));
    if (number != w.slice[t->loop] || t != w.slice_task) {
        CHECK("slice", number != w.slice[t->loop]); /* two operations in one slice */
        slice_begins(t, number);
    } else {
        CHECK("slice", w.step_ended - w.slice_begun < w.desc[t->loop].slice_ns);
    }
}
static void slice_step_ends(task *t) {
    w.step_ended = sim.now;
    /* after it the library looks at the clock, which may take a tick; or for
   * long, if other threads run */
    t->slice_took = sim.nthreads > 1 ? -1 : sim.now - w.slice_begun + sim.tick;
    sim.progress++;
}

/* A sleeping loop has nothing to slice. */
static void slices_asleep(void) {
    int cls;
    for (cls = OL_LATENCY; cls <= OL_BATCH; cls++)
        if (sliced_first(w.stepping, cls)) k_fail("lost wake-up", "sleeps although an operation is to be sliced");
}

/* A call, in one step or in many: on a device, on a worker, on the spot, in
 * slices. */
static int64_t task_call(void *arg) {
    task *t = (task *)arg;
    const int64_t at = sim.now;
    const int thread = sim.on_worker ? (int)DEVICE_THREAD : 1 + sim.self, sliced = t->op.mode == OL_SLICED;
    const uint32_t steps = (uint32_t)t->steps;
    uint32_t i;
    CHECK("steps", !t->inside && t->runs == 0 && t->step < t->steps);
    if (t->step == 0) t->thread = thread;
    CHECK("steps", t->thread == thread);
    if (sliced || t->op.mode == OL_SOFTWARE) CHECK("steps", thread == 1);
    if (sliced) slice_step(t);
    t->inside = 1;
    k_compute(steps > 1 ? k_range(0, t->cost) : t->cost);
    t->inside = 0;
    if (sim.self == 0) w.computed += sim.now - at;
    t->spent += sim.now - at;
    for (i = t->len * (uint32_t)t->step / steps; i < t->len * (uint32_t)(t->step + 1) / steps; i++)
        t->out[i] = k_byte(~t->seed, i);
    if (sliced) slice_step_ends(t);
    if (++t->step < t->steps) return OL_MORE;
    t->runs++;
    return t->expect;
}

#endif
