/* contracts_sharing.h: what offload.h promises of joins, locks, children and deadlocks. Part of contracts.c. */
#ifndef SIM_CONTRACTS_SHARING_H
#define SIM_CONTRACTS_SHARING_H

enum { MANY = 8 };
static actor A[MANY];
static wire W[MANY];
static ol_mutex M[MANY];

/* A loop with n wires; actor i is to live in the partition of wire i. */
static void stage_set(int n) {
    int i;
    plain_loop();
    memset(A, 0, sizeof A);
    memset(M, 0, sizeof M);
    for (i = 0; i < n; i++) wire_open(&W[i], 64, K_STREAMS);
}
static void stage_clear(int n) {
    while (n-- > 0) {
        if (ol_fd_raw(L, W[n].fd) >= 0) ol_close(L, W[n].fd);
        k_close(W[n].peer);
    }
    close_loop();
}
static void does(int i, int what, int64_t n) { step_add(&A[i], what, NULL, NULL, n); }
static void does_join(int i, int wire_of) { step_add(&A[i], JOIN, &W[wire_of].fd, NULL, 0); }
static void does_lock(int i, int m) { step_add(&A[i], LOCK, NULL, &M[m], 0); }
static void does_unlock(int i, int m) { step_add(&A[i], UNLOCK, NULL, &M[m], 0); }
static void does_fork(int i, int child) { step_add(&A[i], FORK, NULL, &A[child], 0); }
static void does_wait(int i, int child) { step_add(&A[i], WAIT, NULL, child < 0 ? NULL : &A[child], 0); }
static void begins(int i) { play(&A[i], W[i].fd, 0); }

/* Another root on wire i's partition right now: does it have to wait? */
static int is_held(int i) {
    static actor probe[MANY];
    const uint64_t before = stats().withheld;
    memset(&probe[i], 0, sizeof probe[i]);
    play(&probe[i], W[i].fd, 0);
    return stats().withheld > before;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Joins                                                                                                            */

static void join_a_free_partition_is_joined_at_once_until_its_fd_closes(void) {
    char buf[8];
    stage_set(2);
    does_join(0, 1);
    step_add(&A[0], READ, &W[1].fd, buf, 8);
    step_add(&A[0], READ, &W[0].fd, buf, 8);
    does(0, SLEEP, 10 * MS);
    does(1, TELL, 'b'); /* on the other fd, but of the same partition now */
    does(2, TELL, 'c');
    begins(0);
    later(MS, DO_SEND, W[0].peer, "x", NULL);
    later(2 * MS, DO_SEND, W[1].peer, "yy", NULL);
    pass(MS / 2);
    EQUAL(A[0].r[0], 0);
    begins(1);
    pass(5 * MS);
    EQUAL(A[0].r[1], 2);
    EQUAL(A[0].r[2], 1);
    STORY("");
    run();
    STORY("b");
    does(3, SLEEP, MS); /* the join outlives its root */
    does(4, TELL, 'd');
    play(&A[3], W[0].fd, 0);
    play(&A[4], W[1].fd, 0);
    turns(3);
    STORY("b");
    run();
    STORY("bd");
    EQUAL(ol_close(L, W[1].fd), 0);
    stage_clear(2);
}

static void join_of_what_is_joined_already_gives_0(void) {
    stage_set(2);
    does_join(0, 0);
    does_join(0, 1);
    does_join(0, 1);
    begins(0);
    run();
    EQUAL(A[0].r[0], 0);
    EQUAL(A[0].r[1], 0);
    EQUAL(A[0].r[2], 0);
    EQUAL(A[0].resumes, 1);
    stage_clear(2);
}

static void join_a_held_partition_is_waited_for_first_come_first_served(void) {
    int i;
    stage_set(6);
    does(0, SLEEP, 10 * MS);
    for (i = 1; i < 6; i++) {
        if (i != 3) does_join(i, 0);
        does(i, TELL, 'a' + i);
        does(i, YIELD, 0);
    }
    begins(0);
    turns(2);
    begins(1);
    begins(2);
    turns(3);
    play(&A[3], W[0].fd, 0); /* a root of the partition stands in the same line */
    begins(4);
    turns(3);
    begins(5);
    turns(3);
    STORY("");
    run();
    STORY("bcdef");
    EQUAL(stats().withheld, 5);
    stage_clear(6);
}

static void join_puts_what_waits_there_behind_what_waits_here(void) {
    stage_set(3);
    does(0, SLEEP, 5 * MS); /* holds 0 */
    does_join(1, 0);
    does(1, TELL, 'a');
    does(1, SLEEP, 5 * MS);
    does(2, TELL, 'b'); /* waits for 1's partition */
    does(3, TELL, 'c'); /* waits for 0's, behind the join */
    does(4, TELL, 'd'); /* comes last, to what is one by then */
    begins(0);
    begins(1);
    turns(3);
    play(&A[3], W[0].fd, 0);
    turns(3);
    play(&A[2], W[1].fd, 0);
    pass(7 * MS);
    STORY("a");
    play(&A[4], W[0].fd, 0);
    run();
    STORY("abcd");
    stage_clear(3);
}

static void join_a_closed_fd_gives_ebadf_one_that_closes_meanwhile_ecanceled(void) {
    ol_fd closed;
    stage_set(3);
    closed = W[2].fd;
    EQUAL(ol_close(L, W[2].fd), 0);
    does(0, SLEEP, 10 * MS);
    step_add(&A[1], JOIN, &closed, NULL, 0);
    does_join(1, 0);
    does(1, TELL, 'j');
    begins(0);
    begins(1);
    pass(2 * MS);
    EQUAL(A[1].r[0], -EBADF);
    STORY("");
    EQUAL(ol_close(L, W[0].fd), 0);
    turns(3);
    EQUAL(A[1].r[1], -ECANCELED);
    CHECK(strstr(A[1].why[1], "closed"));
    STORY("j");
    EQUAL(ol_canceled(&A[1].co), 0);
    run();
    stage_clear(3);
}

static void join_a_cancel_and_a_deadline_end_the_wait_and_leave_the_line(void) {
    stage_set(4);
    does(0, SLEEP, 10 * MS);
    does_join(1, 0);
    does(2, DEADLINE, MS);
    does_join(2, 0);
    does_join(3, 0);
    begins(0);
    begins(1);
    begins(2);
    begins(3);
    pass(MS / 2);
    ol_cancel(&A[1].co);
    turns(2);
    EQUAL(A[1].r[0], -ECANCELED);
    pass(2 * MS);
    EQUAL(A[2].r[1], -ETIMEDOUT);
    run();
    EQUAL(A[3].r[0], 0);
    CHECK(A[1].ended && A[2].ended);
    does(4, SLEEP, MS); /* 1 and 2 are on their own, 3 and 0 are one */
    play(&A[4], W[0].fd, 0);
    turns(2);
    CHECK(!is_held(1) && !is_held(2) && is_held(3));
    run();
    stage_clear(4);
}

static void join_waits_until_done_of_an_operation_in_callback_form_has_returned(void) {
    static submitter s;
    open_loop(NULL, "any any 0- async dev wait", &kind_device);
    memset(A, 0, sizeof A);
    wire_open(&W[0], 64, K_STREAMS);
    wire_open(&W[1], 64, K_STREAMS);
    memset(&s, 0, sizeof s);
    s.n = 2;
    EQUAL(ol_spawn(L, &s.co, submit_all, W[0].fd, 0), 0);
    turns(2);
    CHECK(s.ended && !done_calls);
    does_join(1, 0);
    begins(1);
    run();
    EQUAL(A[1].r[0], 0);
    EQUAL(done_calls, 2);
    CHECK(done_order < A[1].ended);
    stage_clear(2);
}

static void join_by_two_of_one_root_serves_both(void) {
    stage_set(3);
    does(0, SLEEP, 3 * MS);
    does_fork(1, 3);
    does_join(1, 0);
    does_join(3, 0);
    does(1, TELL, 'a');
    does(3, TELL, 'b');
    does_join(2, 0);
    does(2, TELL, 'c');
    begins(0);
    begins(1);
    turns(3);
    begins(2);
    run();
    EQUAL(A[1].r[1], 0);
    EQUAL(A[3].r[0], 0);
    EQUAL(A[2].r[0], 0);
    CHECK(story[2] == 'c');
    stage_clear(3);
}

static void join_takes_the_highest_class_of_fds_and_root(void) {
    int i;
    stage_set(3);
    EQUAL(ol_close(L, W[1].fd), 0);
    k_close(W[1].peer);
    {
        int fds[2];
        CHECK(k_pair(K_STREAMS, 64, fds) == 0);
        W[1].peer = fds[1];
        EQUAL(ol_attach(L, fds[0], OL_LATENCY, &W[1].fd), 0);
    }
    does_join(0, 1);
    does(0, SLEEP, MS);
    begins(0);
    play(&A[3], W[0].fd, OL_BATCH); /* it waits, and becomes latency-critical with its partition */
    turns(3);
    EQUAL(ol__co_class(&A[0].co), OL_LATENCY);
    EQUAL(ol__co_class(&A[3].co), OL_LATENCY);
    for (i = 4; i < 6; i++) play(&A[i], W[i - 4].fd, OL_BATCH); /* whoever comes later, too */
    EQUAL(ol__co_class(&A[4].co), OL_LATENCY);
    EQUAL(ol__co_class(&A[5].co), OL_LATENCY);
    does(6, SLEEP, MS);
    does_join(6, 2);
    play(&A[6], W[0].fd, OL_BATCH);
    run();
    play(&A[7], W[2].fd, OL_BATCH);
    EQUAL(ol__co_class(&A[7].co), OL_LATENCY);
    run();
    stage_clear(3);
}

static void join_a_member_that_closes_leaves_the_others_joined(void) {
    char buf[8];
    stage_set(3);
    does_join(0, 1);
    does_join(0, 2);
    step_add(&A[0], CLOSE, &W[1].fd, NULL, 0);
    step_add(&A[0], READ, &W[1].fd, buf, 8);
    step_add(&A[0], READ, &W[2].fd, buf, 8);
    begins(0);
    later(MS, DO_SEND, W[2].peer, "x", NULL);
    turns(3);
    CHECK(is_held(2));
    run();
    EQUAL(A[0].r[3], -EBADF);
    EQUAL(A[0].r[4], 1);
    does(3, SLEEP, MS);
    play(&A[3], W[0].fd, 0);
    turns(2);
    CHECK(is_held(2));
    run();
    stage_clear(3);
}

static void join_the_partition_lives_on_when_its_first_fd_closes(void) {
    stage_set(2);
    does_join(0, 1);
    step_add(&A[0], CLOSE, &W[0].fd, NULL, 0);
    begins(0);
    run();
    does(1, SLEEP, MS);
    begins(1);
    turns(2);
    CHECK(is_held(1));
    run();
    stage_clear(2);
}

static void join_a_long_chain_is_one_partition(void) {
    int i;
    stage_set(MANY);
    for (i = 0; i < MANY; i++) {
        if (i + 1 < MANY) does_join(i, i + 1);
        does(i, YIELD, 0);
        does(i, TELL, '0' + i);
    }
    for (i = MANY; i-- > 0;) {
        begins(i);
        turns(1);
    }
    run();
    CHECK(strlen(story) == MANY);
    for (i = 0; i < MANY; i++) memset(&A[i], 0, sizeof A[i]);
    does(0, SLEEP, MS);
    begins(0);
    turns(2);
    for (i = 1; i < MANY; i++) CHECK(is_held(i));
    run();
    stage_clear(MANY);
}

static void try_join_joins_unless_both_are_held(void) {
    ol_fd closed;
    stage_set(5);
    closed = W[4].fd;
    EQUAL(ol_close(L, closed), 0);
    EQUAL(ol_try_join(L, W[0].fd, W[1].fd), 0); /* both free */
    EQUAL(ol_try_join(L, W[1].fd, W[0].fd), 0); /* again */
    EQUAL(ol_try_join(L, W[0].fd, closed), -EBADF);
    EQUAL(ol_try_join(L, closed, W[0].fd), -EBADF);
    EQUAL(ol_try_join(L, 0, W[0].fd), -EBADF);
    EQUAL(ol_try_join(NULL, W[0].fd, W[1].fd), -EBADF);
    does(0, SLEEP, MS);
    does(2, SLEEP, 2 * MS);
    does(2, TELL, 'c');
    does(5, TELL, 'f'); /* waits in 2's line, and still does in the joined one */
    begins(0);
    begins(2);
    play(&A[5], W[2].fd, 0);
    turns(2);
    CHECK(is_held(1));
    EQUAL(ol_try_join(L, W[1].fd, W[2].fd), -EBUSY);
    CHECK(strstr(ol_error(), "ol_join"));
    EQUAL(ol_try_join(L, W[3].fd, W[2].fd), 0); /* one is held, by 2: in this order or the other */
    CHECK(is_held(3));
    pass(MS + MS / 2);
    CHECK(A[0].ended);
    EQUAL(ol_try_join(L, W[2].fd, W[1].fd), 0);
    CHECK(is_held(0));
    run();
    STORY("cf");
    stage_clear(5);
}

static void try_join_from_a_coroutine_takes_free_partitions_only(void) {
    stage_set(3);
    does(1, SLEEP, MS);
    step_add(&A[0], TRY_JOIN, &W[0].fd, &W[1].fd, 0);
    step_add(&A[0], TRY_JOIN, &W[2].fd, &W[0].fd, 0);
    does(0, SLEEP, 2 * MS);
    begins(1);
    turns(2);
    begins(0);
    turns(2);
    EQUAL(A[0].r[0], -EBUSY);
    EQUAL(A[0].r[1], 0);
    CHECK(is_held(2));
    run();
    stage_clear(3);
}

static void join_without_memory_for_the_search_gives_enomem(void) {
    stage_set(2);
    does(0, SLEEP, 3 * MS);
    does_join(1, 0);
    does_join(1, 0);
    begins(0);
    turns(2);
    sim.fail_alloc = 1;
    begins(1);
    turns(2);
    EQUAL(sim.fail_alloc, 0);
    EQUAL(A[1].r[0], -ENOMEM);
    run();
    EQUAL(A[1].r[1], 0);
    stage_clear(2);
}

static void join_of_a_canceled_coroutine_changes_nothing(void) {
    stage_set(2);
    does_join(0, 1);
    begins(0);
    ol_cancel(&A[0].co);
    run();
    EQUAL(A[0].r[0], -ECANCELED);
    does(2, SLEEP, MS);
    play(&A[2], W[0].fd, 0);
    turns(2);
    CHECK(!is_held(1));
    run();
    stage_clear(2);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Locks                                                                                                            */

static void lock_excludes_across_partitions_first_come_first_served(void) {
    int i;
    stage_set(4);
    for (i = 0; i < 4; i++) {
        does(i, SLEEP, (i + 1) * MS / 10);
        does_lock(i, 0);
        does(i, TELL, 'a' + i);
        does(i, SLEEP, MS);
        does(i, TELL, 'A' + i);
        does_unlock(i, 0);
    }
    does(0, YIELD, 0);
    does_lock(0, 0); /* who has just let go stands behind those who wait */
    does(0, TELL, 'x');
    for (i = 0; i < 4; i++) begins(i);
    run();
    STORY("aAbBcCdDx");
    for (i = 0; i < 4; i++) EQUAL(A[i].r[1], 0);
    stage_clear(4);
}

static void lock_a_free_one_is_taken_without_suspending(void) {
    stage_set(1);
    does_lock(0, 0);
    does_unlock(0, 0);
    does_lock(0, 0);
    does_unlock(0, 0);
    begins(0);
    run();
    EQUAL(A[0].resumes, 1);
    EQUAL(A[0].r[3], 0);
    CHECK(!M[0].holder);
    stage_clear(1);
}

static void lock_the_next_in_line_has_it_as_soon_as_it_is_released(void) {
    stage_set(2);
    does_lock(0, 0);
    does(0, SLEEP, MS);
    does_unlock(0, 0);
    does_lock(0, 0); /* at once: too late */
    does(0, TELL, 'a');
    does_lock(1, 0);
    does(1, TELL, 'b');
    begins(0);
    begins(1);
    run();
    STORY("ba");
    stage_clear(2);
}

static void lock_is_released_by_the_end_of_its_holder(void) {
    int i;
    stage_set(3);
    for (i = 0; i < 5; i++) does_lock(0, i); /* ends with five */
    does(0, YIELD, 0);
    for (i = 0; i < 5; i++) does_lock(1, i);
    does(1, RETURN, 7);
    for (i = 0; i < 5; i++) does_lock(2, i);
    for (i = 0; i < 3; i++) begins(i);
    run();
    for (i = 0; i < 5; i++) CHECK(!M[i].holder && A[1].r[i] == 0 && A[2].r[i] == 0);
    stage_clear(3);
}

static void lock_more_than_the_counter_holds_are_all_released(void) {
    static ol_mutex many[40];
    static actor a[4]; /* 10 each, of one root */
    int i, k;
    plain_loop();
    memset(a, 0, sizeof a);
    memset(many, 0, sizeof many);
    for (i = 0; i < 4; i++)
        for (k = 0; k < 10; k++) step_add(&a[i], LOCK, NULL, &many[10 * i + k], 0);
    for (i = 0; i < 4; i++) play(&a[i], 0, 0);
    run();
    for (i = 0; i < 40; i++) CHECK(!many[i].holder);
    close_loop();
}

static struct hoarder {
    ol_co co;
    ol_mutex m[40];
    int i;
    int64_t r;
} hoarder;
static void hoard(ol_co *co) {
    struct hoarder *h = OL_SELF(co, struct hoarder, co);
    OL_BEGIN(co);
    for (h->i = 0; h->i < 40; h->i++) OL_AWAIT(h->r, ol_lock(co, &h->m[h->i]));
    for (h->i = 0; h->i < 20; h->i++) EQUAL(ol_unlock(co, &h->m[h->i]), 0);
    OL_END(co);
}
static void lock_forty_of_one_coroutine_are_counted_right(void) {
    int i;
    plain_loop();
    memset(&hoarder, 0, sizeof hoarder);
    EQUAL(ol_spawn(L, &hoarder.co, hoard, 0, 0), 0);
    run();
    for (i = 0; i < 40; i++) CHECK(!hoarder.m[i].holder);
    close_loop();
}

static void lock_a_cancel_and_a_deadline_end_the_wait_and_leave_the_line(void) {
    stage_set(4);
    does_lock(0, 0);
    does(0, SLEEP, 10 * MS);
    does_lock(1, 0);
    does(2, DEADLINE, MS);
    does_lock(2, 0);
    does_lock(3, 0);
    begins(0);
    begins(1);
    begins(2);
    begins(3);
    pass(MS / 2);
    ol_cancel(&A[1].co);
    pass(2 * MS);
    EQUAL(A[1].r[0], -ECANCELED);
    EQUAL(A[2].r[1], -ETIMEDOUT);
    CHECK(A[1].ended && A[2].ended && !A[3].ended);
    run();
    EQUAL(A[3].r[0], 0);
    CHECK(!M[0].holder);
    stage_clear(4);
}

static void lock_only_its_holder_can_release_it(void) {
    stage_set(2);
    does_unlock(0, 0); /* not locked */
    does_lock(0, 0);
    does(0, SLEEP, MS);
    does_unlock(1, 0);
    begins(0);
    begins(1);
    turns(2);
    EQUAL(A[0].r[0], -EINVAL);
    EQUAL(A[1].r[0], -EINVAL);
    CHECK(M[0].holder == &A[0].co);
    EQUAL(ol_unlock(NULL, &M[0]), -EINVAL);
    EQUAL(ol_unlock(&A[0].co, NULL), -EINVAL);
    run();
    stage_clear(2);
}

static void lock_of_another_loop_gives_exdev(void) {
    ol_loop *first, *second;
    stage_set(1);
    first = L;
    does_lock(0, 0);
    does(0, SLEEP, MS);
    begins(0);
    turns(2);
    EQUAL(ol_loop_create(&L, NULL), 0);
    second = L;
    does_lock(1, 0);
    does_lock(1, 1);
    play(&A[1], 0, 0);
    run();
    EQUAL(A[1].r[0], -EXDEV);
    EQUAL(A[1].r[1], 0);
    EQUAL(ol_loop_destroy(second), 0);
    L = first;
    run();
    stage_clear(1);
}

static void lock_a_null_one_is_refused(void) {
    stage_set(1);
    step_add(&A[0], LOCK, NULL, NULL, 0);
    begins(0);
    run();
    EQUAL(A[0].r[0], -EINVAL);
    stage_clear(1);
}

static void lock_excludes_the_children_of_one_root_too(void) {
    int i;
    stage_set(1);
    for (i = 1; i < 4; i++) {
        does_fork(0, i);
        does_lock(i, 0);
        does(i, TELL, '0');
        does(i, SLEEP, MS);
        does(i, TELL, '1');
        if (i == 2) does_unlock(i, 0);
    }
    begins(0);
    run();
    STORY("010101");
    stage_clear(1);
}

static void lock_of_a_root_is_released_at_its_end_before_its_children_have_ended(void) {
    stage_set(2);
    does_lock(0, 0);
    does_fork(0, 2);
    does(2, SLEEP, 10 * MS);
    does(2, TELL, 'c');
    does_lock(1, 0);
    does(1, TELL, 'l');
    begins(0);
    begins(1);
    run();
    STORY("lc");
    stage_clear(2);
}

static void lock_outlives_a_drain_and_is_free_after_it(void) {
    stage_set(2);
    does_lock(0, 0);
    does(0, SLEEP, SEC);
    does_lock(1, 0);
    does(1, TELL, 'b');
    begins(0);
    begins(1);
    turns(3);
    EQUAL(ol_loop_drain(L, SEC), 0);
    EQUAL(A[1].r[0], -ECANCELED);
    CHECK(!M[0].holder);
    stage_clear(2);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Deadlocks                                                                                                        */

static void deadlock_joins_that_cross_the_second_gets_edeadlk(void) {
    stage_set(2);
    does(0, YIELD, 0);
    does_join(0, 1);
    does_join(1, 0);
    does(1, TELL, 'x');
    begins(0);
    begins(1);
    run();
    EQUAL(A[1].r[0], 0); /* it was the first */
    EQUAL(A[0].r[1], -EDEADLK);
    EQUAL(stats().withheld, 1); /* who is refused does not wait */
    stage_clear(2);
}

static void deadlock_a_circle_of_many_joins_is_closed_by_nobody(void) {
    int i, refused = 0;
    stage_set(6);
    for (i = 0; i < 6; i++) {
        does(i, YIELD, 0);
        does_join(i, (i + 1) % 6);
        begins(i);
    }
    run();
    for (i = 0; i < 6; i++) refused += A[i].r[1] == -EDEADLK;
    EQUAL(refused, 1);
    EQUAL(A[5].r[1], -EDEADLK); /* the last one, who would have closed it */
    CHECK(strstr(A[5].why[1], "one order"));
    stage_clear(6);
}

static void deadlock_locks_that_cross_and_ones_own_give_edeadlk(void) {
    stage_set(2);
    does_lock(0, 0);
    does_lock(0, 0); /* its own */
    does(0, SLEEP, MS);
    does_lock(0, 1);
    does_lock(1, 1);
    does(1, SLEEP, 2 * MS);
    does_lock(1, 0);
    begins(0);
    begins(1);
    run();
    EQUAL(A[0].r[1], -EDEADLK);
    EQUAL(A[0].r[3], 0);
    EQUAL(A[1].r[2], -EDEADLK);
    stage_clear(2);
}

static void deadlock_a_circle_over_a_join_a_lock_and_a_child_is_found(void) {
    stage_set(3);
    does_lock(1, 0); /* 1 holds the lock and waits for 0's partition */
    does(1, SLEEP, 2 * MS);
    does_join(1, 0);
    does_fork(0, 3); /* 0 waits for its child */
    does_wait(0, 3);
    does(3, SLEEP, 3 * MS);
    does_lock(3, 0); /* the child waits for the lock */
    does(3, RETURN, 5);
    begins(0);
    begins(1);
    run();
    EQUAL(A[3].r[1], -EDEADLK);
    EQUAL(A[0].r[1], 5);
    EQUAL(A[1].r[2], 0);
    stage_clear(3);
}

static void deadlock_the_end_of_a_root_waits_for_children_and_counts(void) {
    stage_set(2);
    does_fork(0, 2); /* the root ends, its child wants the partition of 1, who wants ours */
    does(2, SLEEP, 2 * MS);
    does_join(2, 1);
    does(1, SLEEP, MS);
    does_join(1, 0);
    begins(0);
    begins(1);
    run();
    EQUAL(A[2].r[1], -EDEADLK);
    EQUAL(A[1].r[1], 0);
    stage_clear(2);
}

static void deadlock_children_that_wait_for_each_other_or_themselves_get_edeadlk(void) {
    stage_set(1);
    does_fork(0, 1);
    does_fork(0, 2);
    does_wait(1, 2);
    does(1, RETURN, 1);
    does_wait(2, 2); /* itself */
    does(2, SLEEP, MS);
    does_wait(2, 1); /* who waits for it */
    does(2, RETURN, 2);
    begins(0);
    run();
    EQUAL(A[2].r[0], -EDEADLK);
    EQUAL(A[2].r[2], -EDEADLK);
    EQUAL(A[1].r[0], 2);
    stage_clear(1);
}

static void deadlock_a_child_that_waits_for_what_its_waiting_root_holds_is_refused(void) {
    stage_set(1);
    does_lock(0, 0);
    does_fork(0, 1);
    does_wait(0, -1);
    does_unlock(0, 0);
    does_lock(1, 0);
    begins(0);
    run();
    EQUAL(A[1].r[0], -EDEADLK);
    EQUAL(A[0].r[2], 0);
    stage_clear(1);
}

static void deadlock_a_join_that_moves_a_line_is_looked_at_again(void) {
    stage_set(3);
    does(2, SLEEP, 5 * MS); /* H holds Q */
    does_fork(0, 3);        /* R0 wants Q, first in line */
    does_join(0, 2);
    does(3, SLEEP, 2 * MS); /* its child wants R1's lock */
    does_lock(3, 0);
    does_lock(1, 0); /* R1 holds it, and wants Q, second in line */
    does(1, SLEEP, MS);
    does_join(1, 2);
    does(1, TELL, 'r');
    begins(2);
    begins(0);
    begins(1);
    pass(20 * MS);
    EQUAL(A[1].r[2], -EDEADLK); /* since Q is R0's, and R0's child waits for R1 */
    CHECK(strstr(A[1].why[2], "one order"));
    run();
    EQUAL(A[0].r[1], 0);
    EQUAL(A[3].r[1], 0);
    stage_clear(3);
}

static void deadlock_no_false_alarm_where_a_wait_only_looks_like_one(void) {
    stage_set(4);
    does_lock(0, 0); /* 1 waits for 0's lock, 2 for 1's, 0 for 3's partition: a chain, no circle */
    does(0, SLEEP, 2 * MS);
    does_join(0, 3);
    does_lock(1, 1);
    does_lock(1, 0);
    does_lock(2, 2);
    does_lock(2, 1);
    does(3, SLEEP, 5 * MS);
    does_lock(3, 3);
    begins(0);
    begins(1);
    begins(2);
    begins(3);
    run();
    EQUAL(A[0].r[2], 0);
    EQUAL(A[1].r[1], 0);
    EQUAL(A[2].r[1], 0);
    EQUAL(A[3].r[1], 0);
    stage_clear(4);
}

static void deadlock_who_was_refused_can_let_go_and_try_again(void) {
    stage_set(2);
    does_lock(0, 0);
    does(0, SLEEP, MS);
    does_lock(0, 1);
    does_lock(1, 1);
    does(1, SLEEP, 2 * MS);
    does_lock(1, 0);
    does_unlock(1, 1);
    does_lock(1, 0);
    does_lock(1, 1);
    begins(0);
    begins(1);
    run();
    EQUAL(A[0].r[2], 0);
    EQUAL(A[1].r[2], -EDEADLK);
    EQUAL(A[1].r[4], 0);
    EQUAL(A[1].r[5], 0);
    stage_clear(2);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Children                                                                                                         */

static void children_start_from_the_loop_and_never_in_ol_fork(void) {
    stage_set(1);
    does_fork(0, 1);
    does(0, TELL, 'r');
    does(0, YIELD, 0);
    does(1, TELL, 'c');
    begins(0);
    run();
    STORY("rc");
    EQUAL(A[0].r[0], 0);
    stage_clear(1);
}

static void children_read_and_write_one_fd_at_the_same_time(void) {
    char in[8], big[200], sink[300];
    stage_set(1);
    memset(big, 'b', sizeof big);
    does_fork(0, 1);
    does_fork(0, 2);
    does_wait(0, -1);
    step_add(&A[1], READ, &W[0].fd, in, 8);
    step_add(&A[1], READ, &W[0].fd, in, 8);
    step_add(&A[2], WRITE, &W[0].fd, big, sizeof big); /* more than fits: it waits */
    begins(0);
    later(MS, DO_SEND, W[0].peer, "1", NULL);
    later(2 * MS, DO_SEND, W[0].peer, "22", NULL);
    pass(5 * MS);
    EQUAL(A[1].r[0], 1);
    EQUAL(A[1].r[1], 2);
    CHECK(A[1].ended && !A[2].ended && !A[0].ended);
    while (!A[2].ended) {
        CHECK(k_read(W[0].peer, sink, sizeof sink) > 0);
        turns(2);
    }
    run();
    EQUAL(A[2].r[0], sizeof big);
    EQUAL(A[0].r[2], 0);
    stage_clear(1);
}

static void children_a_second_waiter_for_one_direction_gets_ebusy(void) {
    char buf[8];
    stage_set(1);
    does_fork(0, 1);
    does_fork(0, 2);
    step_add(&A[1], READ, &W[0].fd, buf, 8);
    step_add(&A[2], READ, &W[0].fd, buf, 8);
    step_add(&A[2], WAIT_IN, &W[0].fd, NULL, 0);
    step_add(&A[2], WRITE, &W[0].fd, buf, 1); /* the other direction is free */
    begins(0);
    later(MS, DO_SEND, W[0].peer, "x", NULL);
    run();
    CHECK((A[1].r[0] == 1) + (A[2].r[0] == 1) == 1); /* who came first has it */
    CHECK((A[1].r[0] == -EBUSY) + (A[2].r[0] == -EBUSY) == 1);
    EQUAL(A[2].r[2], 1);
    stage_clear(1);
}

/* An event makes a waiter ready; until it has run, its sibling must not take what has come, or write into its write. */
static void children_a_waiter_that_is_woken_is_still_the_one_that_waits(void) {
    char first[8] = "", second[8] = "";
    stage_set(1);
    does_fork(0, 1);
    does_fork(0, 2);
    step_add(&A[1], READ, &W[0].fd, first, 8);
    does(2, SLEEP, MS);
    step_add(&A[2], READ, &W[0].fd, second, 8);
    begins(0);
    turns(2);
    EQUAL(ol_set_class(&A[2].co, OL_LATENCY), 0); /* goes first when both are ready */
    sim.now += 2 * MS; /* both wake up in the same round */
    EQUAL(k_write(W[0].peer, "x", 1), 1);
    run();
    EQUAL(A[1].r[0], 1);
    EQUAL(first[0], 'x');
    EQUAL(A[2].r[1], -EBUSY);
    stage_clear(1);
}

static void children_a_waiter_that_has_what_it_waited_for_makes_room(void) {
    char first[8] = "", second[8] = "";
    stage_set(1);
    does_fork(0, 1);
    does_fork(0, 2);
    step_add(&A[1], READ, &W[0].fd, first, 8);
    does(1, SLEEP, 9 * MS);
    does(2, SLEEP, 2 * MS);
    step_add(&A[2], READ, &W[0].fd, second, 8);
    begins(0);
    turns(2);
    EQUAL(k_write(W[0].peer, "x", 1), 1);
    turns(3);
    EQUAL(A[1].r[0], 1);
    sim.now += 3 * MS;
    turns(3); /* the second one waits now, while the first one sleeps */
    EQUAL(k_write(W[0].peer, "y", 1), 1);
    run();
    EQUAL(A[2].r[1], 1);
    EQUAL(second[0], 'y');
    EQUAL(A[1].r[1], 0);
    stage_clear(1);
}

static void children_their_results_come_to_those_who_wait(void) {
    stage_set(1);
    does_fork(0, 1);
    does_fork(0, 2);
    does_fork(0, 3);
    does_wait(0, 1); /* must wait */
    does_wait(0, 2); /* has ended */
    does_wait(0, 3); /* ended with an error */
    does_wait(0, 1); /* again */
    does(1, SLEEP, 2 * MS);
    does(1, RETURN, 11);
    does(2, RETURN, 22);
    does(3, RETURN, -EPROTO);
    begins(0);
    run();
    EQUAL(A[0].r[3], 11);
    EQUAL(A[0].r[4], 22);
    EQUAL(A[0].r[5], -EPROTO);
    EQUAL(A[0].r[6], 11);
    stage_clear(1);
}

static void children_the_root_can_wait_for_all_and_a_child_cannot(void) {
    int i;
    stage_set(1);
    does_wait(0, -1); /* there are none */
    for (i = 1; i < 4; i++) {
        does_fork(0, i);
        does(i, SLEEP, (4 - i) * MS);
        if (i == 1) does_fork(1, 4); /* a grandchild counts, also one that comes during the wait */
        does(i, TELL, '0' + i);
    }
    does_wait(2, -1);
    does(4, SLEEP, 5 * MS);
    does(4, TELL, '4');
    does_wait(0, -1);
    does(0, TELL, 'r');
    does_wait(0, -1);
    begins(0);
    run();
    STORY("3214r");
    EQUAL(A[0].r[0], 0);
    EQUAL(A[0].r[4], 0);
    EQUAL(A[0].r[6], 0);
    EQUAL(A[2].r[2], -EINVAL);
    stage_clear(1);
}

static void children_several_can_wait_for_one(void) {
    stage_set(1);
    does_fork(0, 1);
    does_fork(0, 2);
    does_fork(0, 3);
    does(1, SLEEP, MS);
    does(1, RETURN, 9);
    does_wait(2, 1);
    does_wait(3, 1);
    does_wait(0, 1);
    begins(0);
    run();
    EQUAL(A[0].r[3], 9);
    EQUAL(A[2].r[0], 9);
    EQUAL(A[3].r[0], 9);
    stage_clear(1);
}

static void children_a_wait_can_be_canceled_and_time_out(void) {
    stage_set(1);
    does_fork(0, 1);
    does(0, DEADLINE, MS);
    does_wait(0, 1);
    does(0, DEADLINE, OL_NEVER);
    does_wait(0, -1);
    does(0, CLEAR, 0);
    does_wait(0, 1);
    does(1, SLEEP, 5 * MS);
    does(1, CLEAR, 0);
    does(1, RETURN, 3);
    begins(0);
    pass(2 * MS);
    EQUAL(A[0].r[2], -ETIMEDOUT);
    ol_cancel(&A[0].co);
    run();
    EQUAL(A[0].r[4], -ECANCELED);
    EQUAL(A[1].r[0], -ECANCELED);
    EQUAL(A[0].r[6], 3);
    stage_clear(1);
}

static void children_the_root_ends_after_the_last_of_them(void) {
    int returns;
    for (returns = 0; returns < 2; returns++) {
        memset(story, 0, sizeof story);
        stage_set(1);
        does_fork(0, 1);
        does(0, TELL, 'r');
        if (returns) does(0, RETURN, 4);
        does(1, SLEEP, MS);
        does_fork(1, 2); /* while the root waits at its end */
        does(1, TELL, '1');
        does(2, SLEEP, MS);
        does(2, TELL, '2');
        does(3, TELL, 'n'); /* the next root */
        begins(0);
        play(&A[3], W[0].fd, 0);
        pass(MS / 2);
        CHECK(A[0].ended && !A[0].after);
        EQUAL(alive(), 2);
        run();
        STORY("r12n");
        CHECK(returns ? !A[0].after : A[0].after >= A[2].ended && A[0].after < A[3].began);
        EQUAL(A[0].resumes, returns ? 1 : 2);
        stage_clear(1);
    }
}

typedef struct family {
    ol_co co;
    ol_child child[2];
    ol_frame sub;
    int ends;
    int64_t n;
} family;
static int families;
static void family_sub(ol_co *co) {
    OL_BEGIN(co);
    OL_DO(ol_sleep(co, MS));
    OL_RETURN(6);
    OL_END(co);
}
static void family_first(ol_co *co) {
    family *f = OL_SELF(co, family, child[0].co);
    OL_BEGIN(co);
    OL_DO(ol_sleep(co, 2 * MS));
    f->ends++;
    OL_END(co);
}
static void family_second(ol_co *co) { /* with a sub-coroutine */
    family *f = OL_CONTAINER(co, family, child[1].co);
    OL_BEGIN(co);
    OL_CALL(f->n, &f->sub, family_sub);
    f->ends++;
    OL_END(co);
}
static void family_over(family *f) {
    CHECK(f->ends == 2 && f->n == 6);
    k_free(f);
    families--;
}
static void family_root(ol_co *co) {
    family *f = OL_SELF(co, family, co);
    OL_BEGIN(co);
    EQUAL(ol_fork(co, &f->child[0], family_first), 0);
    EQUAL(ol_fork(co, &f->child[1], family_second), 0);
    OL_END_THEN(co, family_over(f));
}
static void children_what_follows_the_roots_end_may_free_them_all(void) {
    int i;
    stage_set(1);
    for (families = 0; families < 3; families++) {
        family *f = (family *)k_malloc(sizeof *f);
        f->ends = 0;
        EQUAL(ol_spawn(L, &f->co, family_root, W[0].fd, 0), 0);
    }
    run();
    EQUAL(families, 0);
    for (i = 0; i < 3; i++) turns(1);
    stage_clear(1);
}

static void children_a_cancel_of_the_root_reaches_them_all(void) {
    int i;
    stage_set(1);
    for (i = 1; i < 4; i++) does_fork(0, i);
    does(0, SLEEP, SEC);
    does_fork(0, 4); /* a child of a canceled root is born canceled */
    does(1, SLEEP, SEC);
    does_fork(2, 5);
    does(2, SLEEP, SEC);
    does(3, SLEEP, MS);
    for (i = 4; i < 6; i++) does(i, SLEEP, SEC);
    begins(0);
    pass(2 * MS);
    EQUAL(A[3].r[0], 0);
    ol_cancel(&A[0].co);
    run();
    CHECK(sim.now < 2 * SEC);
    EQUAL(A[0].r[3], -ECANCELED);
    EQUAL(A[1].r[0], -ECANCELED);
    EQUAL(A[2].r[1], -ECANCELED);
    EQUAL(A[4].r[0], -ECANCELED);
    EQUAL(A[5].r[0], -ECANCELED);
    stage_clear(1);
}

static void children_a_cancel_of_an_ended_root_reaches_those_it_waits_for(void) {
    stage_set(1);
    does_fork(0, 1);
    does(1, SLEEP, SEC);
    begins(0);
    pass(MS);
    CHECK(A[0].ended && !A[0].after);
    ol_cancel(&A[0].co);
    run();
    EQUAL(A[1].r[0], -ECANCELED);
    CHECK(A[0].after);
    stage_clear(1);
}

static void children_a_cancel_of_one_concerns_nobody_else(void) {
    stage_set(1);
    does_fork(0, 1);
    does_fork(0, 2);
    does(0, SLEEP, 2 * MS);
    does(1, SLEEP, 2 * MS);
    does(2, SLEEP, 2 * MS);
    begins(0);
    turns(3);
    ol_cancel(&A[1].co);
    run();
    EQUAL(A[0].r[2], 0);
    EQUAL(A[1].r[0], -ECANCELED);
    EQUAL(A[2].r[0], 0);
    stage_clear(1);
}

static void children_have_their_parents_class(void) {
    stage_set(1);
    does_fork(0, 1);
    does(0, CLASS, OL_LATENCY);
    does_fork(0, 2);
    does_fork(2, 3);
    begins(0);
    run();
    EQUAL(ol__co_class(&A[1].co), OL_BATCH);
    EQUAL(ol__co_class(&A[2].co), OL_LATENCY);
    EQUAL(ol__co_class(&A[3].co), OL_LATENCY);
    stage_clear(1);
}

static void children_have_deadlines_of_their_own(void) {
    stage_set(1);
    does_fork(0, 1);
    does(0, SLEEP, 3 * MS);
    does(1, DEADLINE, MS);
    does(1, SLEEP, 5 * MS);
    begins(0);
    run();
    EQUAL(A[0].r[1], 0);
    EQUAL(A[1].r[1], -ETIMEDOUT);
    stage_clear(1);
}

static void children_mistakes_are_refused(void) {
    static ol_child idle;
    stage_set(2);
    EQUAL(ol_fork(NULL, &idle, act), -EINVAL);
    does(0, SLEEP, MS);
    does(0, SLEEP, MS);
    begins(0);
    turns(2);
    EQUAL(ol_fork(&A[0].co, &idle, act), -EINVAL); /* it doesn't run */
    CHECK(strstr(ol_error(), "ol_fork"));
    does_fork(1, 2);
    does(1, SLEEP, MS);
    does_wait(1, 0); /* a root */
    does(2, SLEEP, 5 * MS);
    begins(1);
    does_wait(0, 2); /* somebody else's */
    run();
    EQUAL(A[1].r[2], -EINVAL);
    EQUAL(A[0].r[2], -EXDEV);
    stage_clear(2);
}

static void children_join_and_lock_for_the_whole_partition(void) {
    char buf[8];
    stage_set(2);
    does_fork(0, 2);
    does_wait(0, 2);
    step_add(&A[0], READ, &W[1].fd, buf, 8); /* of the partition that its child has joined */
    does_join(2, 1);
    does_lock(2, 0);
    begins(0);
    later(MS, DO_SEND, W[1].peer, "x", NULL);
    run();
    EQUAL(A[0].r[2], 1);
    CHECK(!M[0].holder);
    stage_clear(2);
}

static void children_a_drain_ends_families(void) {
    int i;
    stage_set(2);
    for (i = 2; i < 5; i++) {
        does_fork(0, i);
        does(i, SLEEP, SEC);
    }
    does(0, RETURN, 0);
    does_fork(1, 5);
    does_wait(1, 5);
    does(5, SLEEP, SEC);
    begins(0);
    begins(1);
    turns(4);
    EQUAL(ol_loop_destroy(L), -EBUSY);
    EQUAL(ol_loop_drain(L, SEC), 0);
    EQUAL(A[1].r[1], -ECANCELED);
    stage_clear(2);
}

#define SHARING_TESTS                                                                                                  \
    T(join_a_free_partition_is_joined_at_once_until_its_fd_closes), T(join_of_what_is_joined_already_gives_0),         \
        T(join_a_held_partition_is_waited_for_first_come_first_served),                                                \
        T(join_puts_what_waits_there_behind_what_waits_here),                                                          \
        T(join_a_closed_fd_gives_ebadf_one_that_closes_meanwhile_ecanceled),                                           \
        T(join_a_cancel_and_a_deadline_end_the_wait_and_leave_the_line),                                               \
        T(join_waits_until_done_of_an_operation_in_callback_form_has_returned),                                        \
        T(join_by_two_of_one_root_serves_both), T(join_takes_the_highest_class_of_fds_and_root),                       \
        T(join_a_member_that_closes_leaves_the_others_joined),                                                         \
        T(join_the_partition_lives_on_when_its_first_fd_closes), T(join_a_long_chain_is_one_partition),                \
        T(try_join_joins_unless_both_are_held), T(try_join_from_a_coroutine_takes_free_partitions_only),               \
        T(join_without_memory_for_the_search_gives_enomem), T(join_of_a_canceled_coroutine_changes_nothing),           \
        T(lock_excludes_across_partitions_first_come_first_served), T(lock_a_free_one_is_taken_without_suspending),    \
        T(lock_the_next_in_line_has_it_as_soon_as_it_is_released), T(lock_is_released_by_the_end_of_its_holder),       \
        T(lock_more_than_the_counter_holds_are_all_released), T(lock_forty_of_one_coroutine_are_counted_right),        \
        T(lock_a_cancel_and_a_deadline_end_the_wait_and_leave_the_line), T(lock_only_its_holder_can_release_it),       \
        T(lock_of_another_loop_gives_exdev), T(lock_a_null_one_is_refused),                                            \
        T(lock_excludes_the_children_of_one_root_too),                                                                 \
        T(lock_of_a_root_is_released_at_its_end_before_its_children_have_ended),                                       \
        T(lock_outlives_a_drain_and_is_free_after_it), T(deadlock_joins_that_cross_the_second_gets_edeadlk),           \
        T(deadlock_a_circle_of_many_joins_is_closed_by_nobody),                                                        \
        T(deadlock_locks_that_cross_and_ones_own_give_edeadlk),                                                        \
        T(deadlock_a_circle_over_a_join_a_lock_and_a_child_is_found),                                                  \
        T(deadlock_the_end_of_a_root_waits_for_children_and_counts),                                                   \
        T(deadlock_children_that_wait_for_each_other_or_themselves_get_edeadlk),                                       \
        T(deadlock_a_child_that_waits_for_what_its_waiting_root_holds_is_refused),                                     \
        T(deadlock_a_join_that_moves_a_line_is_looked_at_again),                                                       \
        T(deadlock_no_false_alarm_where_a_wait_only_looks_like_one),                                                   \
        T(deadlock_who_was_refused_can_let_go_and_try_again), T(children_start_from_the_loop_and_never_in_ol_fork),    \
        T(children_read_and_write_one_fd_at_the_same_time), T(children_a_second_waiter_for_one_direction_gets_ebusy),  \
        T(children_a_waiter_that_is_woken_is_still_the_one_that_waits),                                                  \
        T(children_a_waiter_that_has_what_it_waited_for_makes_room),                                                     \
        T(children_their_results_come_to_those_who_wait), T(children_the_root_can_wait_for_all_and_a_child_cannot),    \
        T(children_several_can_wait_for_one), T(children_a_wait_can_be_canceled_and_time_out),                         \
        T(children_the_root_ends_after_the_last_of_them), T(children_what_follows_the_roots_end_may_free_them_all),    \
        T(children_a_cancel_of_the_root_reaches_them_all),                                                             \
        T(children_a_cancel_of_an_ended_root_reaches_those_it_waits_for),                                              \
        T(children_a_cancel_of_one_concerns_nobody_else), T(children_have_their_parents_class),                        \
        T(children_have_deadlines_of_their_own), T(children_mistakes_are_refused),                                     \
        T(children_join_and_lock_for_the_whole_partition), T(children_a_drain_ends_families)

#endif
