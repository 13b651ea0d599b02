/* forks.h: the process forks in the middle of everything, and goes on as the child. Part of sim.c.

     fork        the parent's descriptors are left alone (the kernel sees to it); operations in flight end with
                 -ECANCELED, those that were complete keep their results; connections, timers, posts and gates go on; the
                 pool's threads start again */
#ifndef SIM_FORKS_H
#define SIM_FORKS_H

/* A thread was in the middle of a post: in the child it never returns from it, and the node may stay queued for ever. */
static void note_forked(note *n) {
    n->lost |= n->posting > 0;
    n->posting = 0;
}

static void pool_forks(void) {
    int i;
    for (i = 0; i < POOL_CHANNELS; i++) {
        pool.channel[i].forked = pool.channel[i].open;
        pool.channel[i].held = 0;
    }
    memset(pool.worker, 0, sizeof pool.worker);
    pool.idle_ns = 0;
    pool.forks = sim.forks + 1;
    pool.waiting[0] = pool.waiting[1] = pool.calls = 0;
}

static void process_forks(void) {
    int i;
    settle();
    k_trace("forks", w.ntasks, pool_workers());
    for (i = 0; i < w.nposters; i++) note_forked(&w.posters[i].own[0]), note_forked(&w.posters[i].own[1]);
    note_forked(&w.contended);
    w.nposters = 0;
    for (i = 0; i < w.ntasks; i++) {
        task *t = w.tasks[i];
        t->forked = 1;
        t->in_pool = t->asked = t->lane = 0;
        if (t->pin) t->pin->pins--;
        t->pin = NULL;
    }
    for (i = 0; i < w.nopen; i++) w.open[i]->inherited = 1;
    for (i = 0; i < w.ndevs; i++) dev_fork(&w.device[i]);
    memset(w.lane, 0, sizeof w.lane);
    pool_forks();
    k_fork();
    for (i = 0; i < w.nloops; i++) {
        w.renewing[i] = 1;
        guests.fd[i] = -1; /* the child asks for it anew */
    }
    COUNT(FORKED);
}

static void mischief_fork(int loop) {
    (void)loop;
    if (w.forks > 0 && w.gate < 0) w.forks--, process_forks();
}

/* The first use of a loop in a child makes new descriptors, and may fail for lack of any; it is tried again. */
static int fork_failed(int loop, int64_t r) {
    const int failed = w.renewing[loop] && (r == -EMFILE || r == -ENOMEM || r == -ENOSPC);
    COUNT_IF(FORK_FAILED, failed);
    if (failed) w.idle_until = sim.now;
    return failed;
}

/* A file that a worker had opened when the process forked: nobody in the child is told its number. */
static void forks_leave_files(void) {
    int fd;
    for (fd = K_FIRST_FD; fd < K_FDS; fd++)
        if (sim.file[fd] && sim.file[fd]->type == K_REGULAR) k_close(fd);
}

static void forks_build(void) { w.forks = k_below(3) ? 0 : 1 + (int)k_below(2); }

#endif
