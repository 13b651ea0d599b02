/* contracts_guests.h: what offload.h promises to another loop that it is a guest of, and to the child of a fork. Part of
   contracts.c. */
#ifndef SIM_CONTRACTS_GUESTS_H
#define SIM_CONTRACTS_GUESTS_H

/* ---------------------------------------------------------------------------------------------------------------- */
/* Inside another loop                                                                                              */

static int loop_fd;

/* Steps as the other loop does, until there is nothing to do; more than a few steps are a busy loop. */
static void settle(void) {
    int i;
    for (i = 0; k_wait_readable(loop_fd, US); i++) { /* a timer of 1 ns counts */
        if (i == 50) k_fail("contract", "the loop's fd stays readable and nothing comes of it");
        CHECK(ol_loop_step(L, 0) >= 0);
    }
}
/* The other loop sleeps until ours has something to do, at most so long; 1 if it has. */
static int wakes_within(int64_t ns) {
    const int64_t until = sim.now + ns;
    k_at(ns, nothing, NULL, 0);
    return k_wait_readable(loop_fd, until - sim.now);
}
static void guest_set(int n) {
    hooks_set(n);
    loop_fd = ol_loop_fd(L);
    CHECK(loop_fd >= 0);
    EQUAL(ol_loop_fd(L), loop_fd);
    settle();
}

/* An fd that the other loop polls. */
static void guest_open(int i) {
    int fds[2];
    CHECK(k_pair(K_STREAMS, 64, fds) == 0);
    W[i].raw = fds[0];
    W[i].peer = fds[1];
    k_nonblock(fds[0]), k_nonblock(fds[1]);
    EQUAL(ol_attach_guest(L, W[i].raw, 0, &W[i].fd), 0);
}

static void guests_the_fd_is_readable_when_there_is_something_to_do_and_not_otherwise(void) {
    guest_set(1);
    CHECK(!wakes_within(SEC));
    does(0, SLEEP, 3 * MS);
    begins(0);
    CHECK(wakes_within(US));
    settle();
    CHECK(A[0].began && !wakes_within(2 * MS)); /* a timer carries the end of the sleep */
    CHECK(wakes_within(2 * MS));
    settle();
    CHECK(A[0].ended && !wakes_within(SEC));
    watches(0, OL_READABLE);
    H[0].want = 8;
    settle();
    arrives(0, "x");
    CHECK(wakes_within(US));
    settle();
    STORY("a");
    CHECK(!wakes_within(SEC));
    stage_clear(1);
}

enum {
    G_SPAWN,
    G_SUBMIT,
    G_TIMER,
    G_CANCEL,
    G_DEADLINE,
    G_DUE,
    G_OP_CANCEL,
    G_CLOSE,
    G_WATCH,
    G_UNWATCH,
    G_UNLOCK,
    G_POST,
    G_GATE,
    G_STOP_TIMER,
    G_CALLS
};
static void call_from_outside(int what) {
    static ol_op op;
    switch (what) {
    case G_SPAWN: begins(3); break;
    case G_SUBMIT: EQUAL(ol_submit(L, crc_op(&op), on_done), 0); break;
    case G_TIMER: EQUAL(ol_timer_start(L, &H[4].timer, 0, on_hook_timer), 0); break;
    case G_CANCEL: ol_cancel(&A[0].co); break;
    case G_DEADLINE: EQUAL(ol_deadline(&A[0].co, MS), 0); break;
    case G_DUE: EQUAL(ol_deadline(&A[0].co, 0), 0); break;
    case G_OP_CANCEL: EQUAL(ol_op_cancel(L, &H[0].op), 0); break;
    case G_CLOSE: EQUAL(ol_close(L, W[1].fd), 0); break;
    case G_WATCH: EQUAL(ol_watch(L, W[1].fd, &H[5].h, OL_READABLE, on_ready), 0); break;
    case G_UNWATCH: EQUAL(ol_unwatch(L, W[4].fd), 0); break;
    case G_UNLOCK: EQUAL(ol_unlock(&A[0].co, &M[0]), 0); break;
    case G_POST:
        H[4].node.fn = on_hook_post;
        EQUAL(ol_post(L, &H[4].node), 0);
        break;
    case G_GATE: EQUAL(ol_gate_leave(L), 0); break;
    case G_STOP_TIMER: ol_timer_stop(L, &H[6].timer); break;
    default: k_fail("test", "no such call");
    }
}
/* Each call finds a loop that sleeps for ever, or for long, and makes work; that work is done without anything else. */
static void guests_each_call_from_outside_that_makes_work_wakes_the_loop(void) {
    int what;
    for (what = 0; what < G_CALLS; what++) {
        static const dev_params slow = {16, OL_CHANNEL_NOTIFIES, DEV_NEXT_NULL, SEC, 0, 0, 0, 0, 0, 0, 1000, 0};
        open_loop(NULL, what == G_SUBMIT ? "" : "any any 0- async dev wait", &slow);
        memset(A, 0, sizeof A), memset(H, 0, sizeof H), memset(M, 0, sizeof M), memset(story, 0, sizeof story);
        done_calls = 0;
        wire_open(&W[0], 64, K_STREAMS), wire_open(&W[1], 64, K_STREAMS), wire_open(&W[2], 64, K_STREAMS);
        wire_open(&W[3], 64, K_STREAMS), wire_open(&W[4], 64, K_STREAMS);
        guest_open(5);
        does_lock(0, 0);
        does(0, SLEEP, 100 * SEC);
        does(0, TELL, 'r');
        begins(0);
        does_lock(1, 0);
        does(1, TELL, 'l');
        if (what == G_UNLOCK) begins(1);
        does_join(2, 1);
        does(2, TELL, 'j');
        does(5, SLEEP, 50 * SEC);
        if (what == G_CLOSE) begins(2), play(&A[5], W[1].fd, 0);
        does(3, TELL, 's');
        H[4].letter = 't';
        H[5].letter = 'w';
        H[5].want = 8;
        if (what == G_OP_CANCEL) EQUAL(ol_submit(L, crc_op(&H[0].op), on_done), 0);
        loop_fd = ol_loop_fd(L);
        if (what == G_CLOSE) L->desc.turn = 64;
        if (what == G_WATCH) arrives(1, "x");
        if (what == G_UNWATCH) { /* a handler that holds the partition, and a root behind it */
            EQUAL(ol_watch(L, W[4].fd, &H[6].h, OL_READABLE, on_ready), 0);
            settle();
            L->desc.turn = 0;
            arrives(4, "x");
            CHECK(wakes_within(US));
            EQUAL(ol_loop_step(L, 0), 1);
            play(&A[3], W[4].fd, 0);
            L->desc.turn = 64;
            EQUAL(ol_unwatch(L, W[4].fd), 0);
            settle();
            STORY("s");
        } else if (what == G_STOP_TIMER) {
            H[6].timer.fd = W[4].fd;
            EQUAL(ol_timer_start(L, &H[6].timer, 0, on_hook_timer), 0);
            L->desc.turn = 0;
            sim.now += 1000;
            EQUAL(ol_loop_step(L, 0), 1);
            play(&A[3], W[4].fd, 0);
            L->desc.turn = 64;
            call_from_outside(what);
            settle();
            STORY("s");
        } else if (what == G_GATE) {
            settle();
            EQUAL(ol_watch(L, W[5].fd, &H[5].h, OL_READABLE, on_ready), 0);
            settle();
            EQUAL(ol_gate_enter(L, W[5].fd, OL_READABLE), 1);
            play(&A[3], W[5].fd, 0);
            STORY("");
            call_from_outside(what);
            CHECK(wakes_within(US));
            settle();
            STORY("s");
        } else {
            settle();
            CHECK(!wakes_within(10 * MS));
            call_from_outside(what);
            if (!wakes_within(2 * MS)) k_fail("contract", "call %d wakes nobody", what);
            settle();
            (void)wakes_within(2 * MS);
            settle();
            if (what == G_CANCEL || what == G_DEADLINE || what == G_DUE) STORY("r");
            if (what == G_SPAWN) STORY("s");
            if (what == G_TIMER || what == G_POST) STORY("t");
            if (what == G_UNLOCK) STORY("l");
            if (what == G_CLOSE) STORY("j");
            if (what == G_WATCH) STORY("w");
            if (what == G_SUBMIT || what == G_OP_CANCEL) EQUAL(done_calls, 1);
        }
        EQUAL(ol_loop_drain(L, SEC), 0);
        EQUAL(ol_close(L, W[5].fd), 0);
        k_close(W[5].peer);
        stage_clear(5);
    }
}

static void guests_a_turn_that_ends_early_leaves_the_fd_readable(void) {
    ol_loop_desc d;
    int i;
    memset(&d, 0, sizeof d);
    d.turn = 2;
    d.events = 2;
    open_loop(&d, "", NULL);
    memset(A, 0, sizeof A), memset(H, 0, sizeof H);
    loop_fd = ol_loop_fd(L);
    for (i = 0; i < MANY; i++) {
        wire_open(&W[i], 64, K_STREAMS);
        does(i, YIELD, 0);
        begins(i);
    }
    settle();
    for (i = 0; i < MANY; i++) CHECK(A[i].ended);
    for (i = 0; i < MANY; i++) { /* and so do more events than are taken at a time */
        H[i].want = 8;
        watches(i, OL_READABLE);
    }
    settle();
    for (i = 0; i < MANY; i++) arrives(i, "x");
    settle();
    for (i = 0; i < MANY; i++) EQUAL(H[i].r, 1);
    stage_clear(MANY);
}

static void guests_completions_and_posts_of_other_threads_wake_the_loop(void) {
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    memset(H, 0, sizeof H);
    loop_fd = ol_loop_fd(L);
    EQUAL(ol_submit(L, crc_op(&H[0].op), on_done), 0);
    settle();
    EQUAL(done_calls, 0);
    CHECK(wakes_within(MS));
    settle();
    EQUAL(done_calls, 1);
    H[0].node.fn = on_hook_post;
    H[0].letter = 'p';
    later(MS, DO_POST, 0, NULL, &H[0].node);
    CHECK(wakes_within(2 * MS));
    settle();
    STORY("p");
    CHECK(!wakes_within(SEC));
    close_loop();
}

static void guests_a_backend_that_notifies_nothing_is_polled_by_the_timer(void) {
    static const dev_params silent = {16, 0, DEV_NEXT_UNKNOWN, 50 * US, 0, 0, 0, 0, 0, 0, 1000, 0};
    int steps = 0;
    open_loop(NULL, "any any 0- async dev wait", &silent);
    memset(H, 0, sizeof H);
    loop_fd = ol_loop_fd(L);
    EQUAL(ol_submit(L, crc_op(&H[0].op), on_done), 0);
    for (; !done_calls; steps++) {
        CHECK(wakes_within(10 * US));
        CHECK(ol_loop_step(L, 0) >= 0);
    }
    CHECK(steps < 200);
    settle();
    CHECK(!wakes_within(SEC));
    close_loop();
}

static void guests_the_gate_lets_an_event_in_or_withholds_it_until_the_partition_is_free(void) {
    guest_set(0);
    guest_open(0);
    watches(0, OL_READABLE | OL_WRITABLE);
    EQUAL(ol_gate_enter(L, W[0].fd, OL_READABLE), 1);
    EQUAL(ol_try_write(L, W[0].fd, "x", 1), 1); /* it is the guest's turn */
    EQUAL(ol_gate_enter(L, W[0].fd, OL_READABLE), -EBUSY);
    EQUAL(ol_loop_step(L, 0), -EBUSY);
    EQUAL(ol_loop_destroy(L), -EBUSY);
    EQUAL(ol_gate_leave(L), 0);
    EQUAL(ol_gate_leave(L), -EINVAL);
    does(0, SLEEP, 5 * MS);
    does(0, TELL, 'R');
    begins(0);
    settle();
    EQUAL(ol_gate_enter(L, W[0].fd, OL_READABLE), 0);
    EQUAL(ol_gate_enter(L, W[0].fd, OL_WRITABLE), 0);
    settle();
    STORY("");
    CHECK(!wakes_within(4 * MS));
    CHECK(wakes_within(2 * MS));
    settle();
    STORY("Ra");
    EQUAL(H[0].ready, OL_READABLE | OL_WRITABLE); /* all that was withheld, once */
    CHECK(!wakes_within(SEC));
    EQUAL(ol_gate_enter(L, W[0].fd, OL_WRITABLE), 1);
    EQUAL(ol_gate_leave(L), 0);
    settle();
    EQUAL(ol_close(L, W[0].fd), 0);
    k_close(W[0].peer);
    close_loop();
}

static void guests_what_is_withheld_is_reported_also_if_it_was_not_watched_for(void) {
    guest_set(0);
    guest_open(0);
    watches(0, OL_READABLE | OL_WRITABLE);
    does(0, SLEEP, MS);
    begins(0);
    settle();
    EQUAL(ol_gate_enter(L, W[0].fd, OL_WRITABLE), 0);
    watches(0, OL_READABLE); /* what it polls for is the other loop's affair */
    settle();
    H[0].h.events = OL_READABLE | OL_WRITABLE; /* for the check in on_ready alone */
    CHECK(wakes_within(2 * MS));
    settle();
    STORY("a");
    EQUAL(H[0].ready, OL_WRITABLE);
    EQUAL(ol_close(L, W[0].fd), 0);
    k_close(W[0].peer);
    close_loop();
}

static void guests_operations_submitted_at_the_gate_hold_the_partition(void) {
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    memset(A, 0, sizeof A), memset(H, 0, sizeof H);
    H[0].letter = 'a';
    loop_fd = ol_loop_fd(L);
    guest_open(0);
    watches(0, OL_READABLE);
    EQUAL(ol_gate_enter(L, W[0].fd, OL_READABLE), 1);
    EQUAL(ol_submit(L, crc_op(&H[0].op), hook_done), 0);
    EQUAL(ol_gate_leave(L), 0);
    EQUAL(ol_gate_enter(L, W[0].fd, OL_READABLE), 0);
    settle();
    STORY("");
    CHECK(wakes_within(MS));
    settle();
    STORY("Aa");
    EQUAL(ol_gate_enter(L, W[0].fd, OL_READABLE), 1); /* free again */
    EQUAL(ol_close(L, W[0].fd), 0);                   /* closed inside the gate */
    EQUAL(ol_gate_leave(L), 0);
    settle();
    k_close(W[0].peer);
    close_loop();
}

static void guests_their_fds_are_not_in_our_epoll_and_cannot_be_awaited(void) {
    char buf[8];
    ol_fd other;
    guest_set(0);
    guest_open(0);
    CHECK(!sim.file[W[0].raw]->item.epoll);
    EQUAL(ol_attach_guest(L, W[0].raw, 0, &other), -EEXIST);
    EQUAL(ol_attach(L, W[0].raw, 0, &other), -EEXIST);
    EQUAL(ol_attach_guest(L, -1, 0, &other), -EBADF);
    EQUAL(ol_attach_guest(L, W[0].peer, 7, &other), -EINVAL);
    EQUAL(ol_attach_guest(NULL, W[0].peer, 0, &other), -EINVAL);
    watches(0, OL_READABLE);
    EQUAL(ol_loop_step(L, 0), 0); /* such a handler is no reason to go on */
    step_add(&A[0], READ, &W[0].fd, buf, 8);
    does(0, SLEEP, MS);
    step_add(&A[0], READ, &W[0].fd, buf, 8);
    step_add(&A[0], WAIT_OUT, &W[0].fd, NULL, 0);
    begins(0);
    settle();
    arrives(0, "x");
    EQUAL(ol_gate_enter(L, W[0].fd, OL_READABLE), 0);
    run();
    EQUAL(A[0].r[0], -ENOTSUP);
    EQUAL(A[0].r[2], -ENOTSUP);
    EQUAL(A[0].r[3], -ENOTSUP);
    EQUAL(ol_close(L, W[0].fd), 0);
    CHECK(!sim.file[W[0].raw]);
    k_close(W[0].peer);
    close_loop();
}

static void guests_the_gate_refuses_mistakes(void) {
    guest_set(1);
    guest_open(1);
    EQUAL(ol_gate_enter(L, W[1].fd, OL_READABLE), -EINVAL); /* no handler */
    watches(1, OL_READABLE);
    watches(0, OL_READABLE);
    EQUAL(ol_gate_enter(L, W[0].fd, OL_READABLE), -EINVAL); /* not a guest's */
    EQUAL(ol_gate_enter(L, W[1].fd, 0), -EINVAL);
    EQUAL(ol_gate_enter(L, W[1].fd, 4), -EINVAL);
    EQUAL(ol_gate_enter(NULL, W[1].fd, 1), -EBADF);
    EQUAL(ol_gate_leave(NULL), -EINVAL);
    EQUAL(ol_close(L, W[1].fd), 0);
    EQUAL(ol_gate_enter(L, W[1].fd, OL_READABLE), -EBADF);
    k_close(W[1].peer);
    stage_clear(1);
}

static void enter_inside(ol_loop *loop, ol_timer *t) {
    hook *h = OL_CONTAINER(t, hook, timer);
    EQUAL(ol_gate_enter(loop, h->w->fd, OL_READABLE), -EBUSY);
    tell('t');
}
static void guests_the_gate_is_not_for_calls_from_inside_a_step(void) {
    guest_set(0);
    guest_open(0);
    watches(0, OL_READABLE);
    EQUAL(ol_timer_start(L, &H[0].timer, 0, enter_inside), 0);
    settle();
    STORY("t");
    EQUAL(ol_close(L, W[0].fd), 0);
    k_close(W[0].peer);
    close_loop();
}

static void guests_a_loop_fd_that_cannot_be_had_is_an_error_and_can_be_asked_for_again(void) {
    plain_loop();
    sim.fd_limit = K_FIRST_FD + sim.open;
    EQUAL(ol_loop_fd(L), -EMFILE);
    sim.fd_limit = 1024;
    sim.fail_ctl = 1;
    CHECK(ol_loop_fd(L) < 0);
    CHECK(ol_loop_fd(L) >= 0);
    EQUAL(ol_loop_fd(NULL), -EINVAL);
    close_loop();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Forks: from k_fork on this is the child                                                                          */

static void forks(void) {
    if (has_device) dev_fork(&D);
    k_fork();
}

static void forks_operations_in_flight_end_once_with_ecanceled_and_all_goes_on(void) {
    static const dev_params hanging = {2, OL_CHANNEL_NOTIFIES, DEV_NEXT_NULL, SEC, 0, 0, 0, 0, 0, 0, 1000, 0};
    static ol_op ops[6];
    char buf[8];
    int i;
    open_loop(NULL, "any any 0- async dev wait", &hanging);
    memset(A, 0, sizeof A), memset(ops, 0, sizeof ops);
    wire_open(&W[0], 64, K_STREAMS);
    step_add(&A[0], RUN, NULL, crc_op(&ops[0]), 0); /* awaited; the rest in callback form, some of them parked */
    step_add(&A[0], READ, &W[0].fd, buf, 8);
    step_add(&A[0], RUN, NULL, crc_op(&ops[0]), 0);
    begins(0);
    for (i = 1; i < 6; i++) EQUAL(ol_submit(L, crc_op(&ops[i]), on_done), 0);
    ops[1].timeout_us = 0;
    turns(3);
    EQUAL(done_calls, 0);
    D.p.base = 50 * US;
    forks();
    pass(MS);
    EQUAL(done_calls, 5);
    for (i = 1; i < 6; i++) EQUAL(ops[i].result, -ECANCELED);
    CHECK(strstr(ol_op_error(&ops[1]), "forked"));
    EQUAL(A[0].r[0], -ECANCELED);
    CHECK(strstr(A[0].why[0], "forked"));
    arrives(0, "x");
    run();
    EQUAL(A[0].r[1], 1);
    EQUAL(A[0].r[2], CRC_OF_NINE);
    EQUAL(stats().ops, 0);
    stage_clear(1);
}

static void forks_what_was_complete_keeps_its_result(void) {
    static ol_op op;
    open_loop(NULL, "", NULL);
    EQUAL(ol_submit(L, crc_op(&op), on_done), 0); /* it has run, done has not */
    forks();
    run();
    EQUAL(done_calls, 1);
    EQUAL(done_result, CRC_OF_NINE);
    close_loop();
}

static void forks_the_parents_descriptors_are_closed_here_and_not_used(void) {
    int old_epoll, i;
    ol_loop_stats s;
    hooks_set(2); /* the kernel checks each use */
    old_epoll = L->ep;
    does(0, SLEEP, 5 * MS);
    begins(0);
    H[1].want = 8;
    watches(1, OL_READABLE);
    turns(3);
    forks();
    turns(1);
    CHECK(L->ep != old_epoll && !sim.file[old_epoll]);
    for (i = 0; i < 2; i++) CHECK(sim.file[W[i].raw]->item.epoll == sim.file[L->ep]);
    arrives(1, "x");
    pass(10 * MS);
    CHECK(A[0].ended);
    STORY("b");
    s = stats();
    EQUAL(s.fds, 2);
    stage_clear(2);
}

static void forks_readiness_that_was_seen_before_counts_after(void) {
    char buf[8];
    stage_set(2);
    arrives(0, "x");
    turns(2); /* seen, and nobody has read it */
    arrives(1, "y");
    forks();
    step_add(&A[0], READ, &W[0].fd, buf, 8);
    step_add(&A[1], READ, &W[1].fd, buf, 8);
    begins(0);
    begins(1);
    run();
    EQUAL(A[0].r[0], 1);
    EQUAL(A[1].r[0], 1);
    stage_clear(2);
}

static void forks_timers_posts_locks_joins_and_children_go_on(void) {
    hooks_set(3);
    does_lock(0, 0);
    does_join(0, 1);
    does_fork(0, 3);
    does_wait(0, 3);
    does(3, SLEEP, 4 * MS);
    does(3, RETURN, 8);
    does_lock(2, 0);
    does(2, TELL, 'l');
    begins(0);
    begins(2);
    timer_on(0, 2 * MS); /* gated, on 0's partition */
    H[1].timer.fd = 0;
    EQUAL(ol_timer_start(L, &H[1].timer, 3 * MS, on_hook_timer), 0);
    turns(3);
    forks();
    H[2].node.fn = on_hook_post;
    EQUAL(ol_post(L, &H[2].node), 0);
    run();
    STORY("cbla");
    EQUAL(A[0].r[3], 8);
    EQUAL(A[2].r[0], 0);
    stage_clear(3);
}

static int fork_in;
static void on_fork_post(ol_loop *loop, ol_post_node *n) {
    (void)loop, (void)n;
    forks();
    tell('p');
}
static void on_fork_timer(ol_loop *loop, ol_timer *t) {
    (void)loop, (void)t;
    forks();
    tell('t');
}
static void on_fork_ready(ol_loop *loop, ol_handler *h, int ready) {
    (void)ready;
    forks();
    EQUAL(ol_unwatch(loop, h->fd), 0);
    tell('h');
}
static void on_fork_done(ol_loop *loop, ol_op *op) {
    (void)loop, (void)op;
    forks();
    tell('d');
}
static ol_op fork_op[3];
static struct {
    ol_co co;
    int64_t r;
} forking;
static void fork_and_run(ol_co *co) { /* an operation of the child's own, in the step of the fork */
    OL_BEGIN(co);
    forks();
    tell('c');
    OL_AWAIT(forking.r, ol_run(co, crc_op(&fork_op[1])));
    OL_END(co);
}
static void forks_from_inside_a_coroutine_or_a_callback_are_noticed_too(void) {
    for (fork_in = 0; fork_in < 5; fork_in++) {
        static const dev_params slow = {16, OL_CHANNEL_NOTIFIES, DEV_NEXT_NULL, 100 * US, 0, 0, 0, 0, 0, 0, 1000, 0};
        open_loop(NULL, "any any 0- async dev wait", &slow);
        memset(A, 0, sizeof A), memset(H, 0, sizeof H), memset(story, 0, sizeof story);
        memset(&forking, 0, sizeof forking);
        done_calls = 0;
        wire_open(&W[0], 64, K_STREAMS);
        (void)ol_loop_fd(L); /* so that each step arms a timer, which would be the parent's */
        step_add(&A[0], RUN, NULL, crc_op(&fork_op[0]), 0);
        play(&A[0], 0, 0);
        H[0].node.fn = on_fork_post;
        if (fork_in == 3) EQUAL(ol_submit(L, crc_op(&fork_op[1]), on_fork_done), 0);
        while (D.channel[0].held == 0) turns(1);
        if (fork_in == 0) EQUAL(ol_post(L, &H[0].node), 0);
        if (fork_in == 1) EQUAL(ol_timer_start(L, &H[0].timer, 0, on_fork_timer), 0);
        if (fork_in == 2) EQUAL(ol_watch(L, W[0].fd, &H[0].h, OL_WRITABLE, on_fork_ready), 0);
        if (fork_in == 3) EQUAL(ol_op_cancel(L, &fork_op[1]), 0);
        if (fork_in == 4) EQUAL(ol_spawn(L, &forking.co, fork_and_run, 0, 0), 0);
        while (!story[0]) CHECK(ol_loop_step(L, 10 * US) >= 0);
        pass(MS);
        EQUAL(story[0], "pthdc"[fork_in]);
        EQUAL(A[0].r[0], -ECANCELED);
        if (fork_in == 4) EQUAL(forking.r, CRC_OF_NINE);
        stage_clear(1);
    }
}

static void forks_a_loop_inside_another_one_is_armed_in_the_child(void) {
    guest_set(1);
    H[0].timer.fd = 0;
    EQUAL(ol_timer_start(L, &H[0].timer, 3 * MS, on_hook_timer), 0);
    settle();
    forks();
    loop_fd = ol_loop_fd(L); /* the child asks for it anew */
    settle();
    CHECK(!wakes_within(2 * MS));
    CHECK(wakes_within(2 * MS));
    settle();
    STORY("a");
    guest_open(1); /* asking by another call, too */
    forks();
    begins(0);
    loop_fd = ol_loop_fd(L);
    CHECK(wakes_within(US));
    settle();
    EQUAL(ol_close(L, W[1].fd), 0);
    k_close(W[1].peer);
    stage_clear(1);
}

static void forks_that_find_no_descriptor_are_an_error_and_tried_again(void) {
    static ol_op op;
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    EQUAL(ol_submit(L, crc_op(&op), on_done), 0);
    turns(1);
    forks();
    sim.fd_limit = K_FIRST_FD + sim.open;
    EQUAL(ol_loop_step(L, 0), -EMFILE);
    EQUAL(ol_loop_step(L, 0), -EMFILE);
    EQUAL(ol_loop_destroy(L), -EMFILE);
    EQUAL(done_calls, 0);
    sim.fd_limit++;
    EQUAL(ol_loop_step(L, 0), -EMFILE); /* the second one */
    sim.fd_limit = 1024;
    sim.fail_ctl = 1;
    CHECK(ol_loop_step(L, 0) < 0);
    run();
    EQUAL(done_calls, 1);
    EQUAL(done_result, -ECANCELED);
    close_loop();
}

static void forks_a_loop_can_be_destroyed_at_once(void) {
    static ol_op op;
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    EQUAL(ol_submit(L, crc_op(&op), on_done), 0);
    turns(1);
    forks();
    EQUAL(ol_loop_destroy(L), 0);
    EQUAL(done_calls, 1);
    EQUAL(done_result, -ECANCELED);
    dev_free(&D);
    k_check_leaks();
}

static void forks_backends_hear_of_it_before_anything_else_and_others_are_opened_anew(void) {
    int anew;
    for (anew = 0; anew < 2; anew++) { /* the device checks that nothing comes before */
        static ol_op op, other;
        open_loop(NULL, "any any 0- async dev wait", &kind_device);
        memset(A, 0, sizeof A);
        if (anew) D.backend.forked = NULL;
        done_calls = 0;
        wire_open(&W[0], 64, K_STREAMS);
        step_add(&A[0], RUN, NULL, crc_op(&op), 0);
        begins(0);
        EQUAL(ol_submit(L, crc_op(&other), on_done), 0);
        turns(3);
        forks();
        ol_cancel(&A[0].co);
        EQUAL(ol_op_cancel(L, &other), 0);
        EQUAL(ol_close(L, W[0].fd), 0);
        EQUAL(ol_deadline(&A[0].co, 0), 0);
        run();
        EQUAL(A[0].r[0], -ECANCELED);
        EQUAL(done_calls, 1);
        EQUAL(ol_submit(L, crc_op(&op), on_done), 0);
        run();
        EQUAL(done_result, CRC_OF_NINE);
        EQUAL(D.channel[anew].held, 0);
        stage_clear(1);
    }
}

static void forks_an_fd_that_the_child_has_closed_by_itself_does_no_harm(void) {
    int low[4], i;
    plain_loop();
    CHECK(k_pair(K_STREAMS, 64, low) == 0 && k_pair(K_STREAMS, 64, low + 2) == 0);
    wire_open(&W[0], 64, K_STREAMS);
    wire_open(&W[1], 64, K_STREAMS);
    memset(A, 0, sizeof A);
    turns(1);
    forks();
    for (i = 0; i < 4; i++) k_close(low[i]); /* whose numbers the loop's new descriptors get */
    k_close(W[0].raw);
    does(1, SLEEP, MS);
    begins(1);
    sim.tolerant = 1;
    run();
    EQUAL(ol_close(L, W[0].fd), 0);
    sim.tolerant = 0;
    stage_clear(2);
}

static void forks_twice(void) {
    static ol_op op;
    int i;
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    for (i = 1; i < 4; i++) {
        EQUAL(ol_submit(L, crc_op(&op), on_done), 0);
        turns(1);
        forks();
        if (i == 2) forks(); /* without a use in between */
        run();
        EQUAL(done_calls, i);
        EQUAL(done_result, -ECANCELED);
    }
    close_loop();
}

#define GUEST_TESTS                                                                                                    \
    T(guests_the_fd_is_readable_when_there_is_something_to_do_and_not_otherwise),                                      \
        T(guests_each_call_from_outside_that_makes_work_wakes_the_loop),                                               \
        T(guests_a_turn_that_ends_early_leaves_the_fd_readable),                                                       \
        T(guests_completions_and_posts_of_other_threads_wake_the_loop),                                                \
        T(guests_a_backend_that_notifies_nothing_is_polled_by_the_timer),                                              \
        T(guests_the_gate_lets_an_event_in_or_withholds_it_until_the_partition_is_free),                               \
        T(guests_what_is_withheld_is_reported_also_if_it_was_not_watched_for),                                         \
        T(guests_operations_submitted_at_the_gate_hold_the_partition),                                                 \
        T(guests_their_fds_are_not_in_our_epoll_and_cannot_be_awaited), T(guests_the_gate_refuses_mistakes),           \
        T(guests_the_gate_is_not_for_calls_from_inside_a_step),                                                        \
        T(guests_a_loop_fd_that_cannot_be_had_is_an_error_and_can_be_asked_for_again),                                 \
        T(forks_operations_in_flight_end_once_with_ecanceled_and_all_goes_on),                                         \
        T(forks_what_was_complete_keeps_its_result), T(forks_the_parents_descriptors_are_closed_here_and_not_used),    \
        T(forks_readiness_that_was_seen_before_counts_after), T(forks_timers_posts_locks_joins_and_children_go_on),    \
        T(forks_from_inside_a_coroutine_or_a_callback_are_noticed_too),                                                \
        T(forks_a_loop_inside_another_one_is_armed_in_the_child),                                                      \
        T(forks_that_find_no_descriptor_are_an_error_and_tried_again), T(forks_a_loop_can_be_destroyed_at_once),       \
        T(forks_backends_hear_of_it_before_anything_else_and_others_are_opened_anew),                                  \
        T(forks_an_fd_that_the_child_has_closed_by_itself_does_no_harm), T(forks_twice)

#endif
