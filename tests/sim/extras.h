/* extras.h: extra roots: they queue on somebody's partition and do small things, some of them wrong. Part of sim.c. */
#ifndef SIM_EXTRAS_H
#define SIM_EXTRAS_H

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

/* Without a codec: refused, by its own error. */
static void extra_codec(ol_loop *l) {
    unsigned char from[4] = {1, 2, 3, 4}, to[64];
    ol_stream stream;
    ol_op op;
    memset(&stream, 0, sizeof stream);
    CHECK("error", ol_deflate_bound(sizeof from) <= sizeof to);
    switch (k_below(4)) {
    case 0: ol_prep_deflate(&op, OL_GZIP, to, sizeof to, from, sizeof from); break;
    case 1: ol_prep_inflate(&op, OL_RAW, to, sizeof to, from, sizeof from); break;
    case 2: ol_prep_deflate_chunk(&op, OL_GZIP, to, sizeof to, from, sizeof from, &stream, NULL, 0, 0); break;
    default: ol_prep_inflate_chunk(&op, OL_ZLIB, to, sizeof to, from, sizeof from, &stream, NULL, 0, 1); break;
    }
    CHECK("error", ol_submit(l, &op, task_done) == -ENOTSUP);
    COUNT(OP_NO_CODEC);
}

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
    if (!x->f->closed) {
        const int e = ol_attach(l, (int)(uint32_t)x->f->handle, 0, &h);
        CHECK("error", e == -EEXIST || fork_failed(x->r.loop, e));
    }
    if (!HAS_CODEC) extra_codec(l);
}

static void extra_foreign(extra *x) {
    if (x->was_closed) {
        if (!x->b.canceled) CHECK("error", x->n == -EBADF || x->n == -ETIMEDOUT);
    } else if (x->n != -ECANCELED && x->n != -ETIMEDOUT) {
        if (x->other->part == x->r.part) return;
        CHECK("error", x->n == (x->other->loop == x->r.loop ? -EXDEV : -EBADF));
        COUNT(AW_XDEV);
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
        x->t->awaited = 1;
        x->t->op_len = x->which == 2 ? x->t->len : 0;
        task_begin(x->t, x->r.cls);
        begin(&x->b, &x->r, x->f);
        if (x->which == 0)
            OL_AWAIT(x->n, await_file(co, x->t, ol_open(co, &x->t->op, AT_FDCWD, w.file[x->rounds % FILES]->name, O_RDONLY,
                                                        0, x->what & 1)));
        else if (x->which == 1)
            OL_AWAIT(x->n, await_file(co, x->t, ol_stat(co, &x->t->op, x->file, NULL,
                                                        (struct stat *)(void *)x->t->out)));
        else
            OL_AWAIT(x->n,
                     await_file(co, x->t, ol_pread(co, &x->t->op, x->file, x->t->out, x->t->len, x->offset)));
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
            OL_AWAIT(x->n, await_sleep(co, 50 * US));
            if (x->n == 0) CHECK("time", sim.now - x->b.at >= 50 * US);
        } else if (x->what == X_RUN) {
            x->t = task_new(x->r.loop, x->r.part);
            x->t->awaited = 1;
            task_begin(x->t, x->r.cls);
            OL_AWAIT(x->n, await_run(co, x->t));
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
            taint_fd(x->f);
            fd_close(x->f);
        } else if (x->what == X_WAIT) {
            if (x->r.deadline == K_NEVER) root_deadline(&x->r, MS);
            if (x->r.deadline == K_NEVER) continue; /* no memory for it: a listener is never writable */
            OL_AWAIT(x->n, ol_wait_writable(co, x->f->handle));
            judge(&x->r, x->f, &x->b, x->n);
        } else if (x->what == X_FILE) {
            OL_CALL(x->n, &x->frame, extra_file_entry);
        } else {
            extra_wrong(x);
            OL_AWAIT(x->n, ol_read(co, x->f->handle, x->buf, 0));
            if (!x->b.canceled && !x->b.closed)
                CHECK("error", x->n == (x->f->guest ? -ENOTSUP : -EINVAL) || x->n == -ECANCELED || x->n == -ETIMEDOUT);
        }
        if (!recover(&x->r, x->n) && x->n < 0 && w.phase == ENDING) break;
        mischief(x->r.loop);
    }
    root_ended(&x->r);
    OL_END_THEN(co, k_disown(x));
}
static void extra_entry(ol_co *co) {
    enter(co);
    extra_main(co);
    leave();
}
static void extra_start(fdrec *f) {
    extra *x = (extra *)k_own(sizeof *x);
    x->f = f;
    x->what = (int)k_below(X_KINDS);
    if (x->what == X_CLOSE && k_below(3)) x->what = X_YIELD;
    x->rounds = 1 + (int)k_below(4);
    if (root_spawn(&x->r, x, R_EXTRA, f->loop, f->part, f, extra_entry) != 0) k_disown(x);
}

static void files_build(void) {
    int i;
    for (i = 0; i < FILES; i++) {
        const uint64_t size = k_below(900), seed = k_rand();
        char name[16];
        snprintf(name, sizeof name, "file%d", i);
        w.file[i] = k_file_add(name, size, seed);
        w.file[i]->cached = k_below(2) ? w.file[i]->size : k_below((uint32_t)w.file[i]->size + 1);
        w.file[i]->name_cached = (int)k_below(2);
    }
}

#endif
