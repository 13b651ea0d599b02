/* contracts_handlers.h: what offload.h promises of handlers, ol_try_ calls, and timers and posts that name an fd. Part
   of contracts.c. */
#ifndef SIM_CONTRACTS_HANDLERS_H
#define SIM_CONTRACTS_HANDLERS_H

typedef struct hook { /* a handler that does what it is told; the letter tells that it was called */
    ol_handler h;
    int letter, calls, ready, does, events;
    int64_t r;
    size_t want; /* reads so much, 0 nothing */
    struct hook *other;
    wire *w;
    ol_op op;
    ol_timer timer;
    ol_post_node node;
    actor *a;
    char buf[64];
} hook;
enum {
    H_NOTHING,
    H_CLOSE,
    H_CLOSE_OTHER,
    H_FREE,
    H_UNWATCH,
    H_MASK,
    H_REPLACE,
    H_FLAP,
    H_SUBMIT,
    H_SPAWN,
    H_CANCEL,
    H_JOIN,
    H_TRY_OTHER,
    H_RAW
};
static hook H[MANY];

static void on_ready(ol_loop *loop, ol_handler *handler, int ready);
static void hook_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    tell(OL_CONTAINER(op, hook, op)->letter - 'a' + 'A');
}
static void hook_raw(hook *h) { /* read of one's own, one byte at a time, as who knows nothing of us */
    ssize_t n = k_read((int)(uint32_t)h->h.fd, h->buf, 1);
    if (n < 0) EQUAL(ol_again(L, h->h.fd, 0), 0);
    else h->r += n;
}
static void hook_acts(hook *h) {
    const ol_fd fd = h->h.fd;
    switch (h->does) {
    case H_CLOSE: EQUAL(ol_close(L, fd), 0); break;
    case H_CLOSE_OTHER: EQUAL(ol_close(L, h->other->h.fd), 0); break;
    case H_FREE:
        EQUAL(ol_close(L, fd), 0);
        k_free(h);
        break;
    case H_UNWATCH: EQUAL(ol_unwatch(L, fd), 0); break;
    case H_MASK: EQUAL(ol_watch(L, fd, &h->h, h->events, on_ready), 0); break;
    case H_REPLACE:
        EQUAL(ol_watch(L, fd, &h->other->h, h->events, on_ready), 0);
        k_free(h);
        break;
    case H_FLAP: /* on and off, and in the end gone */
        EQUAL(ol_watch(L, fd, &h->h, OL_READABLE | OL_WRITABLE, on_ready), 0);
        EQUAL(ol_unwatch(L, fd), 0);
        EQUAL(ol_watch(L, fd, &h->h, OL_READABLE, on_ready), 0);
        EQUAL(ol_close(L, fd), 0);
        break;
    case H_SUBMIT: EQUAL(ol_submit(L, crc_op(&h->op), hook_done), 0); break;
    case H_SPAWN: EQUAL(ol_spawn(L, &h->a->co, act, fd, 0), 0); break;
    case H_CANCEL: ol_cancel(&h->a->co); break;
    case H_JOIN: EQUAL(ol_try_join(L, fd, h->w->fd), 0); break;
    case H_TRY_OTHER: h->r = ol_try_read(L, h->w->fd, h->buf, sizeof h->buf); break;
    case H_RAW: hook_raw(h); break;
    default: break;
    }
}
static void on_ready(ol_loop *loop, ol_handler *handler, int ready) {
    hook *h = OL_CONTAINER(handler, hook, h);
    CHECK(loop == L && ready > 0 && (ready & ~handler->events) == 0);
    sim.progress++;
    h->calls++;
    h->ready = ready;
    if (h->letter) tell(h->letter);
    if (h->want) h->r = ol_try_read(loop, handler->fd, h->buf, h->want);
    hook_acts(h);
}
static void watches(int i, int events) { EQUAL(ol_watch(L, W[i].fd, &H[i].h, events, on_ready), 0); }
static void hooks_set(int n) {
    int i;
    stage_set(n);
    memset(H, 0, sizeof H);
    for (i = 0; i < MANY; i++) H[i].letter = 'a' + i, H[i].w = &W[i];
}
static void arrives(int i, const char *text) { EQUAL(k_write(W[i].peer, text, strlen(text)), (ssize_t)strlen(text)); }

/* ---------------------------------------------------------------------------------------------------------------- */
/* Handlers                                                                                                         */

static void handlers_are_called_again_while_there_is_something(void) {
    hooks_set(1);
    H[0].want = 2;
    watches(0, OL_READABLE);
    turns(2);
    STORY("");
    arrives(0, "12345");
    turns(10);
    STORY("aaa"); /* 2, 2, 1: a short read of TCP is the last */
    EQUAL(stats().withheld, 0);
    EQUAL(H[0].r, 1);
    EQUAL(H[0].ready, OL_READABLE);
    H[0].want = 0; /* one that reads nothing is called for ever */
    arrives(0, "6");
    turns(5);
    CHECK(H[0].calls >= 3 + 4);
    H[0].want = 8;
    turns(3);
    memset(story, 0, sizeof story);
    turns(3);
    STORY("");
    EQUAL(ol_try_read(L, W[0].fd, H[0].buf, 8), -EAGAIN);
    stage_clear(1);
}

static void handlers_hear_of_what_they_watch_for_and_of_nothing_else(void) {
    char big[200], sink[300];
    hooks_set(1);
    memset(big, 'x', sizeof big);
    watches(0, OL_WRITABLE);
    arrives(0, "1");
    turns(3);
    CHECK(H[0].calls > 0 && H[0].ready == OL_WRITABLE);
    EQUAL(ol_unwatch(L, W[0].fd), 0); /* it is about to be called again, and so holds the partition */
    EQUAL(ol_try_write(L, W[0].fd, big, sizeof big), 64);
    EQUAL(ol_try_write(L, W[0].fd, big, sizeof big), -EAGAIN);
    H[0].calls = 0;
    watches(0, OL_WRITABLE);
    turns(3);
    EQUAL(H[0].calls, 0);
    watches(0, OL_READABLE | OL_WRITABLE); /* the mask alone: what is there already counts */
    turns(2);
    CHECK(H[0].calls > 0 && H[0].ready == OL_READABLE);
    CHECK(k_read(W[0].peer, sink, sizeof sink) == 64);
    turns(20); /* with work at hand the kernel is asked now and then only */
    EQUAL(H[0].ready, OL_READABLE | OL_WRITABLE);
    stage_clear(1);
}

static void handlers_hear_of_an_error_or_a_hang_up_whatever_they_watch_for(void) {
    int i;
    for (i = OL_READABLE; i <= OL_WRITABLE; i++) {
        hooks_set(1);
        H[0].does = H_CLOSE;
        watches(0, i);
        if (i == OL_WRITABLE) {
            H[0].does = H_NOTHING;
            turns(2);
            EQUAL(ol_unwatch(L, W[0].fd), 0);
            while (ol_try_write(L, W[0].fd, "xxxxxxxx", 8) > 0) {
            }
            watches(0, i);
            turns(2);
            H[0].does = H_CLOSE;
            H[0].calls = 0;
        }
        k_reset(sim.file[W[0].raw]->end);
        turns(2);
        EQUAL(H[0].calls, 1);
        EQUAL(ol_fd_raw(L, W[0].fd), -EBADF);
        stage_clear(1);
    }
}

static void handlers_wait_while_their_partition_is_held_in_the_order_of_the_line(void) {
    hooks_set(3);
    EQUAL(ol_try_join(L, W[0].fd, W[1].fd), 0);
    EQUAL(ol_try_join(L, W[0].fd, W[2].fd), 0);
    watches(0, OL_READABLE);
    watches(1, OL_READABLE);
    watches(2, OL_READABLE);
    H[0].want = H[1].want = H[2].want = 8;
    does(0, SLEEP, 10 * MS);
    does(0, TELL, 'R');
    does(1, TELL, 'S');
    begins(0);
    turns(2);
    arrives(2, "x");
    turns(2);
    play(&A[1], W[1].fd, 0); /* a root in the same line */
    arrives(0, "x");
    turns(2);
    arrives(1, "x");
    pass(MS);
    STORY("");
    pass(20 * MS);
    STORY("RcSab");
    EQUAL(stats().withheld, 4);
    stage_clear(3);
}

static void handlers_whose_data_the_holder_has_read_are_not_called(void) {
    char buf[8];
    hooks_set(1);
    watches(0, OL_READABLE);
    H[0].want = 8;
    step_add(&A[0], READ, &W[0].fd, buf, 8);
    does(0, SLEEP, MS);
    begins(0);
    turns(2);
    arrives(0, "x");
    pass(5 * MS);
    CHECK(A[0].ended);
    STORY("");
    arrives(0, "y");
    turns(3);
    STORY("a");
    EQUAL(H[0].buf[0], 'y');
    stage_clear(1);
}

static void handlers_what_the_holder_left_is_theirs(void) {
    char buf[8];
    hooks_set(1);
    watches(0, OL_READABLE);
    H[0].want = 8;
    step_add(&A[0], READ, &W[0].fd, buf, 2);
    does(0, SLEEP, MS);
    begins(0);
    turns(2);
    arrives(0, "12345");
    pass(5 * MS);
    STORY("a");
    EQUAL(H[0].r, 3);
    CHECK(memcmp(H[0].buf, "345", 3) == 0);
    stage_clear(1);
}

static void handlers_can_change_their_mask_and_end_their_watch_from_inside(void) {
    hooks_set(1);
    watches(0, OL_READABLE);
    H[0].does = H_MASK;
    H[0].events = OL_WRITABLE;
    arrives(0, "x");
    turns(2);
    EQUAL(H[0].ready, OL_WRITABLE);
    H[0].does = H_UNWATCH;
    turns(2);
    memset(story, 0, sizeof story);
    arrives(0, "y");
    turns(3);
    STORY("");
    EQUAL(ol_loop_step(L, 0), 0); /* nothing is left */
    H[0].does = H_NOTHING;
    H[0].want = 8;
    watches(0, OL_READABLE); /* what came meanwhile is there */
    turns(2);
    STORY("a");
    EQUAL(H[0].r, 2);
    stage_clear(1);
}

static void handlers_can_close_and_free_themselves(void) {
    hook *h;
    hooks_set(2);
    h = (hook *)k_malloc(sizeof *h);
    memset(h, 0, sizeof *h);
    h->letter = 'x';
    h->does = H_FREE;
    EQUAL(ol_watch(L, W[0].fd, &h->h, OL_READABLE, on_ready), 0);
    arrives(0, "12");
    turns(4);
    STORY("x");
    EQUAL(ol_fd_raw(L, W[0].fd), -EBADF);
    watches(1, OL_READABLE); /* after on and off and on */
    H[1].does = H_FLAP;
    arrives(1, "12");
    turns(4);
    STORY("xb");
    EQUAL(ol_loop_step(L, 0), 0);
    stage_clear(2);
}

static void handlers_can_be_replaced_from_inside_and_outside(void) {
    hook *h;
    hooks_set(1);
    h = (hook *)k_malloc(sizeof *h);
    memset(h, 0, sizeof *h);
    h->letter = 'x';
    h->does = H_REPLACE;
    h->events = OL_READABLE;
    h->other = &H[1];
    EQUAL(ol_watch(L, W[0].fd, &h->h, OL_READABLE, on_ready), 0);
    H[1].want = 8;
    arrives(0, "12");
    turns(4);
    STORY("xb");
    EQUAL(H[1].r, 2);
    arrives(0, "34");
    EQUAL(ol_watch(L, W[0].fd, &H[2].h, OL_READABLE, on_ready), 0);
    H[2].want = 8;
    turns(3);
    STORY("xbc");
    EQUAL(ol_watch(L, W[0].fd, &H[1].h, OL_READABLE, on_ready), 0); /* the other one is free for another fd */
    turns(2);
    STORY("xbc");
    stage_clear(1);
}

static void handlers_that_are_unwatched_while_they_wait_or_are_about_to_run_are_not_called(void) {
    hooks_set(2);
    watches(0, OL_READABLE);
    does(0, SLEEP, MS);
    begins(0);
    turns(2);
    arrives(0, "x");
    turns(2);
    EQUAL(ol_unwatch(L, W[0].fd), 0); /* it stood in line */
    pass(5 * MS);
    STORY("");
    watches(0, OL_READABLE); /* admitted at once: it would run in the next round */
    does(1, TELL, 'R');
    play(&A[1], W[0].fd, 0);
    EQUAL(ol_unwatch(L, W[0].fd), 0);
    turns(3);
    STORY("R");
    watches(0, OL_READABLE);
    does(2, TELL, 'S');
    play(&A[2], W[0].fd, 0);
    EQUAL(ol_close(L, W[0].fd), 0);
    turns(3);
    STORY("RS");
    stage_clear(2);
}

static void handlers_one_can_close_anothers_fd(void) {
    hooks_set(2);
    EQUAL(ol_try_join(L, W[0].fd, W[1].fd), 0);
    watches(0, OL_READABLE);
    watches(1, OL_READABLE);
    H[0].does = H_CLOSE_OTHER;
    H[0].other = &H[1];
    H[0].want = 8;
    does(0, SLEEP, MS);
    begins(0);
    turns(2);
    arrives(0, "x");
    turns(2);
    arrives(1, "x");
    pass(5 * MS);
    STORY("a");
    H[0].does = H_NOTHING;
    arrives(0, "y");
    turns(3);
    STORY("aa");
    stage_clear(2);
}

static void handlers_an_operation_that_they_submit_holds_their_partition(void) {
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    memset(A, 0, sizeof A);
    memset(H, 0, sizeof H);
    wire_open(&W[0], 64, K_STREAMS);
    H[0].letter = 'a';
    H[0].does = H_SUBMIT;
    H[0].want = 1;
    watches(0, OL_READABLE);
    arrives(0, "12");
    while (!H[0].calls) turns(1);
    H[0].does = H_NOTHING;
    does(0, TELL, 'R');
    begins(0);
    turns(3);
    STORY("a"); /* the second byte waits, and so does the root */
    pass(MS);
    STORY("aAaRa"); /* the last call finds nothing: only that or a short read says so */
    EQUAL(H[0].r, -EAGAIN);
    EQUAL(H[0].op.result, CRC_OF_NINE);
    EQUAL(ol_unwatch(L, W[0].fd), 0);
    stage_clear(1);
}

static void handlers_close_with_an_operation_of_theirs_in_flight_waits_for_it(void) {
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    memset(H, 0, sizeof H);
    wire_open(&W[0], 64, K_STREAMS);
    H[0].letter = 'a';
    H[0].does = H_SUBMIT;
    H[0].want = 1;
    watches(0, OL_READABLE);
    arrives(0, "1");
    while (!H[0].calls) turns(1);
    D.p.stop = 0;
    EQUAL(ol_close(L, W[0].fd), 0);
    CHECK(sim.file[W[0].raw] && sim.file[W[0].raw]->end->wr_shut);
    pass(MS);
    STORY("aA");
    CHECK(!sim.file[W[0].raw]);
    stage_clear(1);
}

static void handlers_can_spawn_cancel_and_join(void) {
    char buf[8];
    hooks_set(2);
    watches(0, OL_READABLE);
    step_add(&A[0], READ, &W[0].fd, buf, 8); /* takes over */
    does(0, SLEEP, MS);
    does(0, TELL, 'R');
    H[0].does = H_SPAWN;
    H[0].a = &A[0];
    arrives(0, "12");
    turns(1);
    H[0].does = H_NOTHING;
    H[0].want = 8;
    pass(5 * MS);
    STORY("aR");
    EQUAL(A[0].r[0], 2);
    does(1, SLEEP, SEC);
    play(&A[1], 0, 0);
    H[0].does = H_CANCEL;
    H[0].a = &A[1];
    arrives(0, "3");
    turns(4);
    EQUAL(A[1].r[0], -ECANCELED);
    H[0].does = H_JOIN;
    H[0].w = &W[1];
    arrives(0, "4");
    turns(3);
    does(2, SLEEP, MS);
    play(&A[2], W[1].fd, 0);
    turns(2);
    CHECK(is_held(0));
    pass(3 * MS);
    stage_clear(2);
}

static void handlers_keep_the_loop_running_until_they_are_gone(void) {
    hooks_set(1);
    H[0].does = H_UNWATCH;
    watches(0, OL_READABLE);
    EQUAL(ol_loop_step(L, 0), 1);
    later(MS, DO_SEND, W[0].peer, "x", NULL);
    run();
    STORY("a");
    stage_clear(1);
}

static void handlers_mistakes_are_refused(void) {
    ol_fd closed;
    hooks_set(2);
    closed = W[1].fd;
    watches(0, OL_READABLE);
    EQUAL(ol_watch(L, W[1].fd, &H[0].h, OL_READABLE, on_ready), -EINVAL); /* it watches another fd */
    EQUAL(ol_close(L, closed), 0);
    EQUAL(ol_watch(L, closed, &H[1].h, OL_READABLE, on_ready), -EBADF);
    EQUAL(ol_unwatch(L, closed), -EBADF);
    EQUAL(ol_watch(L, W[0].fd, NULL, OL_READABLE, on_ready), -EINVAL);
    EQUAL(ol_watch(L, W[0].fd, &H[0].h, OL_READABLE, NULL), -EINVAL);
    EQUAL(ol_watch(L, W[0].fd, &H[0].h, 0, on_ready), -EINVAL);
    EQUAL(ol_watch(L, W[0].fd, &H[0].h, 4, on_ready), -EINVAL);
    EQUAL(ol_watch(NULL, W[0].fd, &H[0].h, 1, on_ready), -EBADF);
    EQUAL(ol_unwatch(NULL, W[0].fd), -EBADF);
    H[0].want = 4;
    arrives(0, "x"); /* and the first one works on */
    turns(2);
    STORY("a");
    EQUAL(ol_unwatch(L, W[0].fd), 0);
    EQUAL(ol_unwatch(L, W[0].fd), 0); /* there is none: no harm */
    stage_clear(2);
}

static void handlers_of_calls_of_their_own_say_again_when_there_is_no_more(void) {
    hooks_set(1);
    watches(0, OL_READABLE);
    H[0].does = H_RAW;
    arrives(0, "12345");
    turns(12);
    EQUAL(H[0].r, 5);
    EQUAL(H[0].calls, 6);
    arrives(0, "6");
    turns(4);
    EQUAL(H[0].r, 6);
    stage_clear(1);
}

static void handlers_a_short_read_of_what_is_not_tcp_is_not_the_last(void) {
    int fds[2];
    hooks_set(0);
    CHECK(k_pair(K_PIPE, 64, fds) == 0);
    EQUAL(ol_attach(L, fds[0], 0, &W[0].fd), 0);
    k_nonblock(fds[1]);
    H[0].want = 8;
    watches(0, OL_READABLE);
    EQUAL(k_write(fds[1], "123", 3), 3);
    turns(4);
    STORY("aa"); /* the second finds nothing */
    EQUAL(H[0].r, -EAGAIN);
    k_close(fds[1]);
    turns(2);
    EQUAL(H[0].r, 0); /* the end of the stream */
    EQUAL(ol_close(L, W[0].fd), 0);
    close_loop();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Calls that don't wait                                                                                            */

static void try_calls_serve_the_partition_that_runs_and_nobody_while_another_holds_it(void) {
    char buf[8];
    struct iovec iov[2];
    hooks_set(2);
    turns(2);
    EQUAL(ol_try_read(L, W[0].fd, buf, 8), -EAGAIN); /* from outside, while nobody holds it */
    EQUAL(ol_try_write(L, W[0].fd, "hello", 5), 5);
    EQUAL(k_read(W[0].peer, buf, 8), 5);
    arrives(0, "abc");
    turns(2);
    iov[0].iov_base = buf;
    iov[0].iov_len = 2;
    iov[1].iov_base = buf + 2;
    iov[1].iov_len = 4;
    EQUAL(ol_try_readv(L, W[0].fd, iov, 2), 3);
    CHECK(memcmp(buf, "abc", 3) == 0);
    iov[1].iov_len = 1;
    EQUAL(ol_try_writev(L, W[0].fd, iov, 2), 3);
    EQUAL(k_read(W[0].peer, buf, 8), 3);
    does(0, SLEEP, MS);
    begins(0);
    turns(2);
    EQUAL(ol_try_read(L, W[0].fd, buf, 8), -EXDEV);
    EQUAL(ol_try_write(L, W[0].fd, buf, 8), -EXDEV);
    watches(1, OL_READABLE); /* a handler, on another's fd */
    H[1].does = H_TRY_OTHER;
    H[1].w = &W[0];
    H[1].want = 8;
    arrives(1, "x");
    turns(2);
    EQUAL(H[1].r, -EXDEV);
    pass(2 * MS);
    EQUAL(ol_try_read(L, W[0].fd, buf, 8), -EAGAIN);
    k_close(W[0].peer);
    turns(2);
    EQUAL(ol_try_read(L, W[0].fd, buf, 8), 0);
    EQUAL(ol_try_read(L, W[0].fd, buf, 0), -EINVAL);
    EQUAL(ol_try_readv(L, W[0].fd, NULL, 1), -EINVAL);
    EQUAL(ol_try_writev(L, W[0].fd, iov, 0), -EINVAL);
    EQUAL(ol_close(L, W[0].fd), 0);
    EQUAL(ol_try_read(L, W[0].fd, buf, 8), -EBADF);
    EQUAL(ol_try_write(L, W[0].fd, buf, 8), -EBADF);
    EQUAL(ol_try_accept(L, W[0].fd), -EBADF);
    EQUAL(ol_try_read(NULL, W[0].fd, buf, 8), -EBADF);
    W[0] = W[1];
    stage_clear(1);
}

static struct prober {
    union {
        ol_co co;
        ol_child child;
    };
    int64_t r[4];
    char buf[8];
} prober[2];
static void try_in_child(ol_co *co) {
    struct prober *p = OL_SELF(co, struct prober, co);
    OL_BEGIN(co);
    p->r[0] = ol_try_read(L, W[0].fd, p->buf, 8);  /* the root waits for this direction */
    p->r[1] = ol_try_write(L, W[0].fd, "ok", 2);   /* not for this one */
    p->r[2] = ol_try_write(L, W[1].fd, p->buf, 1); /* a foreign fd that nobody holds */
    OL_END(co);
}
static void try_in_root(ol_co *co) {
    struct prober *p = OL_SELF(co, struct prober, co);
    OL_BEGIN(co);
    p->r[1] = ol_try_read(L, W[0].fd, p->buf, 8);
    ol_fork(co, &prober[1].child, try_in_child);
    OL_AWAIT(p->r[0], ol_read(co, W[0].fd, p->buf, 8));
    OL_END(co);
}
static void try_calls_do_not_overtake_a_coroutine_that_waits(void) {
    stage_set(2);
    memset(prober, 0, sizeof prober);
    turns(2);
    EQUAL(ol_spawn(L, &prober[0].co, try_in_root, W[0].fd, 0), 0);
    turns(4);
    EQUAL(prober[0].r[1], -EAGAIN);
    EQUAL(prober[1].r[0], -EBUSY);
    EQUAL(prober[1].r[1], 2);
    EQUAL(prober[1].r[2], 1);
    arrives(0, "x");
    run();
    EQUAL(prober[0].r[0], 1);
    stage_clear(2);
}

static ol_fd listener;
static int64_t taken[8];
static int ntaken, accept_calls;
static void on_connection(ol_loop *loop, ol_handler *h, int ready) {
    int64_t r;
    (void)ready;
    accept_calls++;
    while ((r = ol_try_accept(loop, h->fd)) > 0) taken[ntaken++] = r;
    taken[ntaken] = r;
    sim.progress++;
}
static void listener_up(void) {
    plain_loop();
    listen_on(8000, &listener);
    ntaken = accept_calls = 0;
    memset(H, 0, sizeof H);
}
static void try_accept_gives_connections_to_handlers(void) {
    k_end *e[3];
    int i;
    char buf[4];
    listener_up();
    EQUAL(ol_watch(L, listener, &H[0].h, OL_READABLE, on_connection), 0);
    for (i = 0; i < 3; i++) e[i] = dial(8000);
    turns(3);
    EQUAL(ntaken, 3);
    EQUAL(taken[3], -EAGAIN);
    k_send(e[1], (const unsigned char *)"hi", 2);
    turns(2);
    EQUAL(ol_try_read(L, (ol_fd)taken[1], buf, 4), 2);
    EQUAL(ol_try_write(L, (ol_fd)taken[1], buf, 2), 2);
    for (i = 0; i < 3; i++) {
        EQUAL(ol_close(L, (ol_fd)taken[i]), 0);
        k_end_free(e[i]);
    }
    EQUAL(ol_close(L, listener), 0);
    close_loop();
}
static void try_accept_without_a_free_fd_pauses_the_listener(void) {
    k_end *e;
    int64_t t;
    listener_up();
    EQUAL(ol_watch(L, listener, &H[0].h, OL_READABLE, on_connection), 0);
    turns(2);
    sim.fd_limit = K_FIRST_FD + sim.open;
    e = dial(8000);
    t = sim.now;
    while (!accept_calls) turns(1);
    EQUAL(taken[0], -EMFILE);
    pass(9 * MS);
    EQUAL(accept_calls, 1);
    sim.fd_limit = 1024;
    while (!ntaken) CHECK(ol_loop_step(L, MS) >= 0);
    CHECK(sim.now - t >= 10 * MS && sim.now - t < 12 * MS);
    EQUAL(stats().accept_full, 1);
    EQUAL(ol_close(L, (ol_fd)taken[0]), 0);
    EQUAL(ol_close(L, listener), 0);
    k_end_free(e);
    close_loop();
}
static void try_accept_a_pause_ends_with_the_listener(void) {
    k_end *e;
    listener_up();
    EQUAL(ol_watch(L, listener, &H[0].h, OL_READABLE, on_connection), 0);
    turns(2);
    sim.fd_limit = K_FIRST_FD + sim.open;
    e = dial(8000);
    while (!accept_calls) turns(1);
    EQUAL(ol_close(L, listener), 0);
    sim.fd_limit = 1024;
    listen_on(8000, &listener); /* the same number, a new listener: not paused, not woken */
    EQUAL(ol_watch(L, listener, &H[1].h, OL_READABLE, on_connection), 0);
    pass(20 * MS);
    EQUAL(accept_calls, 1);
    EQUAL(ol_close(L, listener), 0);
    k_end_free(e);
    close_loop();
}
static struct {
    ol_co co;
    int64_t tried, got;
} late_acceptor;
static void accept_after_try(ol_co *co) {
    OL_BEGIN(co);
    late_acceptor.tried = ol_try_accept(co->loop, listener);
    sim.fd_limit = 1024;
    OL_AWAIT(late_acceptor.got, ol_accept(co, listener));
    OL_END(co);
}
static void try_accept_a_pause_wakes_coroutines_too(void) {
    k_end *e;
    listener_up();
    e = dial(8000);
    turns(2);
    sim.fd_limit = K_FIRST_FD + sim.open;
    memset(&late_acceptor, 0, sizeof late_acceptor);
    EQUAL(ol_spawn(L, &late_acceptor.co, accept_after_try, listener, 0), 0);
    pass(50 * MS);
    EQUAL(late_acceptor.tried, -EMFILE);
    CHECK(late_acceptor.got > 0);
    EQUAL(ol_close(L, (ol_fd)late_acceptor.got), 0);
    EQUAL(ol_close(L, listener), 0);
    k_end_free(e);
    close_loop();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Timers and posts that name an fd                                                                                 */

static void on_hook_timer(ol_loop *loop, ol_timer *t) {
    hook *h = OL_CONTAINER(t, hook, timer);
    (void)loop;
    sim.progress++;
    h->calls++;
    tell(h->letter);
    hook_acts(h);
}
static void on_hook_post(ol_loop *loop, ol_post_node *n) {
    hook *h = OL_CONTAINER(n, hook, node);
    (void)loop;
    sim.progress++;
    h->calls++;
    tell(h->letter);
    hook_acts(h);
}
static void timer_on(int i, int64_t ns) {
    H[i].timer.fd = H[i].h.fd = W[0].fd;
    EQUAL(ol_timer_start(L, &H[i].timer, ns, on_hook_timer), 0);
}
static void post_on(int i) {
    H[i].node.fn = on_hook_post;
    H[i].node.fd = H[i].h.fd = W[0].fd;
    EQUAL(ol_post(L, &H[i].node), 0);
}

static void gated_timers_and_posts_wait_their_turn_in_one_line_with_all_others(void) {
    hooks_set(1);
    does(0, SLEEP, 10 * MS);
    does(0, TELL, 'R');
    does(1, TELL, 'S');
    begins(0);
    timer_on(0, MS);
    pass(2 * MS);
    play(&A[1], W[0].fd, 0);
    post_on(1);
    pass(MS);
    timer_on(2, MS);
    pass(2 * MS);
    STORY("");
    EQUAL(ol_post(L, &H[1].node), -EBUSY);
    run();
    STORY("RaSbc");
    post_on(1); /* free: in the next round */
    timer_on(0, 0);
    pass(MS);
    CHECK(strlen(story) == 7);
    stage_clear(1);
}

static void gated_timers_hold_the_partition_while_they_run_and_with_what_they_submit(void) {
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    memset(A, 0, sizeof A);
    memset(H, 0, sizeof H);
    wire_open(&W[0], 64, K_STREAMS);
    H[0].letter = 'a';
    H[1].letter = 'b';
    H[0].does = H[1].does = H_SUBMIT;
    timer_on(0, 0);
    while (!H[0].calls) CHECK(ol_loop_step(L, MS) >= 0);
    does(0, TELL, 'R');
    begins(0);
    turns(3);
    STORY("a");
    run();
    STORY("aAR");
    memset(&A[0], 0, sizeof A[0]);
    does(0, TELL, 'S');
    post_on(1);
    while (!H[1].calls) CHECK(ol_loop_step(L, MS) >= 0);
    begins(0);
    run();
    STORY("aARbBS");
    stage_clear(1);
}

static void gated_a_timer_that_waits_can_be_stopped_and_started_anew(void) {
    hooks_set(1);
    does(0, SLEEP, 10 * MS);
    begins(0);
    timer_on(0, MS);
    timer_on(1, MS);
    pass(2 * MS);
    ol_timer_stop(L, &H[0].timer);
    timer_on(1, 20 * MS);
    pass(10 * MS);
    CHECK(A[0].ended);
    STORY("");
    EQUAL(ol_loop_step(L, 0), 1); /* one is left */
    run();
    STORY("b");
    ol_timer_stop(L, &H[0].timer); /* no harm */
    timer_on(0, 0);
    H[0].does = H_CLOSE;
    sim.now += 1000;
    turns(2);
    STORY("ba");
    EQUAL(ol_fd_raw(L, W[0].fd), -EBADF);
    stage_clear(1);
}

static void gated_a_timer_that_is_about_to_run_can_be_stopped_and_lets_the_next_go(void) {
    hooks_set(1);
    timer_on(0, 0);
    timer_on(1, 0);
    H[0].does = H_NOTHING;
    sim.now += 1000;
    L->desc.turn = 0; /* nothing runs: the first one holds the partition */
    turns(1);
    L->desc.turn = 64;
    ol_timer_stop(L, &H[0].timer);
    turns(2);
    STORY("b");
    stage_clear(1);
}

static void gated_one_whose_fd_is_closed_runs_like_one_without(void) {
    hooks_set(2);
    timer_on(0, MS);
    H[1].node.fn = on_hook_post;
    H[1].node.fd = W[0].fd;
    EQUAL(ol_close(L, W[0].fd), 0);
    EQUAL(ol_post(L, &H[1].node), 0);
    run();
    STORY("ba");
    H[0].timer.fd = UINT64_MAX;
    EQUAL(ol_timer_start(L, &H[0].timer, 0, on_hook_timer), 0);
    run();
    STORY("baa");
    stage_clear(2);
}

static void gated_one_whose_fd_closes_while_it_waits_runs_when_its_holder_has_ended(void) {
    hooks_set(1);
    does(0, SLEEP, 5 * MS);
    does(0, TELL, 'R');
    begins(0);
    timer_on(0, MS);
    post_on(1);
    pass(2 * MS);
    EQUAL(ol_close(L, W[0].fd), 0);
    pass(MS);
    STORY("");
    run();
    CHECK(strcmp(story, "Rab") == 0 || strcmp(story, "Rba") == 0);
    turns(3);
    stage_clear(1);
}

static void gated_they_move_with_a_joined_partition(void) {
    hooks_set(3);
    does(0, SLEEP, 5 * MS);
    does_join(1, 0);
    does(1, SLEEP, 5 * MS);
    does(1, TELL, 'J');
    begins(0);
    begins(1);
    turns(3);
    timer_on(0, MS);
    timer_on(2, MS);
    post_on(1);
    watches(2, OL_READABLE); /* on a third, joined to the first while it is free */
    EQUAL(ol_try_join(L, W[0].fd, W[2].fd), 0);
    pass(7 * MS);
    STORY("");                     /* they wait for who has joined */
    ol_timer_stop(L, &H[2].timer); /* in the joined line */
    pass(10 * MS);
    CHECK(strcmp(story, "Jab") == 0 || strcmp(story, "Jba") == 0);
    stage_clear(3);
}

static void gated_a_loop_that_is_destroyed_runs_its_posts_and_forgets_its_timers(void) {
    hooks_set(1);
    timer_on(0, 0);
    timer_on(1, SEC);
    post_on(2);
    sim.now += 1000;
    k_close(W[0].peer);
    close_loop();
    CHECK(strchr(story, 'c'));
    plain_loop(); /* they can be started on another one */
    H[0].timer.fd = H[1].timer.fd = 0;
    EQUAL(ol_timer_start(L, &H[0].timer, 0, on_hook_timer), 0);
    EQUAL(ol_timer_start(L, &H[1].timer, 0, on_hook_timer), 0);
    memset(story, 0, sizeof story);
    run();
    CHECK(strlen(story) == 2);
    close_loop();
}

#define HANDLER_TESTS                                                                                                  \
    T(handlers_are_called_again_while_there_is_something),                                                             \
        T(handlers_hear_of_what_they_watch_for_and_of_nothing_else),                                                   \
        T(handlers_hear_of_an_error_or_a_hang_up_whatever_they_watch_for),                                             \
        T(handlers_wait_while_their_partition_is_held_in_the_order_of_the_line),                                       \
        T(handlers_whose_data_the_holder_has_read_are_not_called), T(handlers_what_the_holder_left_is_theirs),         \
        T(handlers_can_change_their_mask_and_end_their_watch_from_inside), T(handlers_can_close_and_free_themselves),  \
        T(handlers_can_be_replaced_from_inside_and_outside),                                                           \
        T(handlers_that_are_unwatched_while_they_wait_or_are_about_to_run_are_not_called),                             \
        T(handlers_one_can_close_anothers_fd), T(handlers_an_operation_that_they_submit_holds_their_partition),        \
        T(handlers_close_with_an_operation_of_theirs_in_flight_waits_for_it), T(handlers_can_spawn_cancel_and_join),   \
        T(handlers_keep_the_loop_running_until_they_are_gone), T(handlers_mistakes_are_refused),                       \
        T(handlers_of_calls_of_their_own_say_again_when_there_is_no_more),                                             \
        T(handlers_a_short_read_of_what_is_not_tcp_is_not_the_last),                                                   \
        T(try_calls_serve_the_partition_that_runs_and_nobody_while_another_holds_it),                                  \
        T(try_calls_do_not_overtake_a_coroutine_that_waits), T(try_accept_gives_connections_to_handlers),              \
        T(try_accept_without_a_free_fd_pauses_the_listener), T(try_accept_a_pause_ends_with_the_listener),             \
        T(try_accept_a_pause_wakes_coroutines_too),                                                                    \
        T(gated_timers_and_posts_wait_their_turn_in_one_line_with_all_others),                                         \
        T(gated_timers_hold_the_partition_while_they_run_and_with_what_they_submit),                                   \
        T(gated_a_timer_that_waits_can_be_stopped_and_started_anew),                                                   \
        T(gated_a_timer_that_is_about_to_run_can_be_stopped_and_lets_the_next_go),                                     \
        T(gated_one_whose_fd_is_closed_runs_like_one_without),                                                         \
        T(gated_one_whose_fd_closes_while_it_waits_runs_when_its_holder_has_ended),                                    \
        T(gated_they_move_with_a_joined_partition),                                                                    \
        T(gated_a_loop_that_is_destroyed_runs_its_posts_and_forgets_its_timers)

#endif
