/* threads.h: simulated threads for kernel.h, which includes it: fibres, one of which runs at a time.

   Thread 0 is the loop's: the program itself, on its own stack. The library's workers, and threads of a test, are
   fibres. The seed decides at every contact with the seam who goes on: a thread may be preempted at each atomic access
   and each system call, stall for long, be woken from a futex without cause. What a thread computes takes virtual time
   in which the others run (k_compute). A loop that sleeps in epoll_wait lets the others run until none can; then time
   moves on.

   Nothing depends on addresses: a futex and a mutex are found by theirs, among few threads, in the order of their
   numbers. */
#ifndef SIM_THREADS_H
#define SIM_THREADS_H

#include <sys/mman.h>
#include <ucontext.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define K_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define K_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define K_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define K_TSAN 1
#endif
#if defined(K_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(K_TSAN)
#include <sanitizer/tsan_interface.h>
#endif
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif

/* ---------------------------------------------------------------------------------------------------------------- */
/* Switching stacks: ucontext for a thread's first step, setjmp from then on, as it costs no system call            */

static void *k_stacks[K_THREADS]; /* kept from seed to seed; 0 is the process's own */

K_FN void *k_stack(int i) {
    const size_t page = 4096;
    char *p = (char *)k_stacks[i];
    if (!p) {
        p = (char *)mmap(NULL, K_STACK + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                         0);
        if ((void *)p == MAP_FAILED || mprotect(p, page, PROT_NONE) != 0) {
            perror("a simulated thread's stack");
            abort();
        }
        k_stacks[i] = p += page; /* what runs over its end hits a page that nobody may touch */
#if defined(VALGRIND_STACK_REGISTER)
        (void)VALGRIND_STACK_REGISTER(p, p + K_STACK);
#endif
    }
#if defined(K_ASAN)
    __asan_unpoison_memory_region(p, K_STACK); /* an earlier thread may have ended in the middle of its frames */
#endif
    return p;
}

/* Inlined, and after setjmp: ThreadSanitizer keeps calls and jump buffers for each fibre, and its switch is in here. */
K_FN __attribute__((always_inline)) inline void k_leaving(k_thread *from, k_thread *to) {
#if defined(K_ASAN)
    __sanitizer_start_switch_fiber(from->state == K_T_DONE ? NULL : &from->fake_stack, to->bottom, to->stack_size);
#endif
#if defined(K_TSAN)
    if (!from->tsan) from->tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->tsan, 0);
#endif
    (void)from, (void)to;
}
K_FN void k_thread_gone(k_thread *t) { /* not the running one */
#if defined(K_TSAN)
    if (t->tsan && t != sim.thread) __tsan_destroy_fiber(t->tsan);
    t->tsan = NULL;
#endif
    t->state = K_T_FREE;
}
K_FN void k_arriving(k_thread *self) {
#if defined(K_ASAN)
    k_thread *from = &sim.thread[sim.came_from];
    __sanitizer_finish_switch_fiber(self->fake_stack, &from->bottom, &from->stack_size);
#endif
    errno = self->number;
    if (sim.failing && sim.self == 0) longjmp(sim.on_fail, 1);
}

K_FN void k_thread_over(void);
K_FN void k_thread_entry(void) {
    k_thread *t = &sim.thread[sim.self];
    k_arriving(t);
    t->fn(t->arg);
    k_thread_over();
}

K_FN void k_first_step(k_thread *t) {
    static ucontext_t context; /* no frame may stay behind on the stack that is left here */
    t->fresh = 0;
    getcontext(&context);
    context.uc_stack.ss_sp = k_stack((int)(t - sim.thread));
    context.uc_stack.ss_size = K_STACK;
    context.uc_link = NULL;
    makecontext(&context, k_thread_entry, 0);
    setcontext(&context);
    abort();
}

K_FN void k_switch(int to) {
    if (to == sim.self) return;
    sim.stats.switches++;
    k_note("thread", to, sim.thread[sim.self].state);
    sim.thread[sim.self].number = errno; /* each thread has its own */
    sim.came_from = sim.self;
    sim.self = to;
    if (_setjmp(sim.thread[sim.came_from].at) == 0) {
        k_leaving(&sim.thread[sim.came_from], &sim.thread[sim.self]);
        if (sim.thread[sim.self].fresh) k_first_step(&sim.thread[sim.self]);
        _longjmp(sim.thread[sim.self].at, 1);
    }
    k_arriving(&sim.thread[sim.self]);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* The scheduler                                                                                                    */

K_FN int k_can_run(const k_thread *t) {
    if (t->state == K_T_POLL) return k_polled_ready() || sim.now >= sim.poll_limit;
    return t->state == K_T_RUNS;
}

/* Somebody who can run, by lot; -1 if nobody can. */
K_FN int k_pick(void) {
    int i, n = 0, can[K_THREADS];
    for (i = 0; i < sim.nthreads; i++)
        if (k_can_run(&sim.thread[i])) can[n++] = i;
    return n == 0 ? -1 : n == 1 ? can[0] : can[k_below((uint32_t)n)];
}

/* The running thread has said in its state what it waits for, and lets the others run. A sleeping loop is asked last:
   it moves the time on. */
K_FN void k_wait_turn(void) {
    for (;;) {
        const int next = k_pick();
        if (next >= 0) {
            k_switch(next);
            return;
        }
        if (sim.thread[0].state == K_T_POLL) {
            k_switch(0);
            return;
        }
        if (k_next() == K_NEVER) k_fail("threads", "every thread waits for another one");
        if (k_next() > sim.now) sim.now = k_next();
        k_run_due();
    }
}

K_FN int k_alone(void) { return sim.nthreads <= 1 || sim.in_hook || sim.running; }

K_FN void k_yield(void) {
    if (!k_alone()) k_wait_turn();
}

K_FN void k_wake_thread(k_thread *t) {
    t->state = K_T_RUNS;
    t->waits = NULL;
    t->calls = 0;
}

K_FN void k_sleep_over(void *arg, uint64_t tag) {
    k_thread *t = &sim.thread[tag % K_THREADS];
    (void)arg;
    if (t->state == K_T_SLEEP && t->serial == tag / K_THREADS) k_wake_thread(t);
}

/* The running thread does nothing for a while; the others do. */
K_FN void k_sleep_for(int64_t ns) {
    k_thread *t = &sim.thread[sim.self];
    if (k_alone()) {
        if (sim.in_hook || sim.running) return;
        sim.now += ns;
        k_run_due();
        return;
    }
    t->state = K_T_SLEEP;
    t->serial = ++sim.thread_serial;
    k_at(ns, k_sleep_over, NULL, t->serial * K_THREADS + (uint64_t)sim.self);
    k_wait_turn();
}

K_FN int k_anyone_stalled(void) {
    int i, n = 0;
    for (i = 1; i < sim.nthreads; i++) n += sim.thread[i].stalled && sim.thread[i].state == K_T_SLEEP;
    return n > 0;
}

K_FN int k_is_worker(void) { return sim.thread[sim.self].kind == K_WORKER; }

/* Computation, or a call that blocks, of so many ns: with several processors others go on meanwhile. */
K_FN void k_compute(int64_t ns) {
    if (sim.self) k_sleep_for(ns);
    else if (!sim.in_hook && !sim.running) sim.now += ns, k_run_due();
}

/* The running thread, which is not the loop's, does not run for long. */
K_FN void k_stall_thread(void) {
    k_thread *t = &sim.thread[sim.self];
    sim.stats.thread_stalls++;
    k_note("thread stalls", 0, 0);
    t->stalled = 1;
    k_sleep_for(k_range(1, k_below(8) ? 20000 : 3000000));
    t->stalled = 0;
}

K_FN void k_thread_point(void) {
    k_thread *t = &sim.thread[sim.self];
    if (k_alone()) return;
    if (sim.self && ++t->calls > 1000000) k_fail("busy loop", "a thread makes a million calls without a pause");
    if (t->stall_in && --t->stall_in == 0) {
        k_stall_thread();
        return;
    }
    if (--sim.preempt_in > 0) return;
    sim.preempt_in = 1 + (int)k_below(sim.faults.preempt ? 2000u / (uint32_t)sim.faults.preempt : 1000u);
    if (sim.self && k_chance(sim.faults.thread_stall)) {
        k_stall_thread();
        return;
    }
    sim.stats.preemptions++;
    k_wait_turn();
}

/* A contact with the seam: another thread may act here. */
K_FN void k_point(void) {
    int saved;
    k_thread_point();
    if (sim.self) return;
    k_busy();
    if (!sim.interrupt || sim.in_hook || sim.running || !k_chance(sim.faults.interrupt)) return;
    saved = errno; /* each thread has its own */
    sim.in_hook = 1;
    sim.stats.interrupts++;
    sim.interrupt();
    sim.in_hook = 0;
    errno = saved;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Threads, futexes, mutexes                                                                                        */

K_FN int k_thread_new(int kind, void *(*fn)(void *), void *arg) {
    k_thread *t;
    int i = 1;
    while (i < sim.nthreads && sim.thread[i].state != K_T_FREE) i++;
    if (i == K_THREADS) return -1;
    if (i >= sim.nthreads) sim.nthreads = i + 1;
    t = &sim.thread[i];
    memset(t, 0, sizeof *t);
    t->kind = kind;
    t->state = K_T_RUNS;
    t->fresh = 1;
    t->fn = fn;
    t->arg = arg;
    t->bottom = k_stack(i);
    t->stack_size = K_STACK;
#if defined(K_TSAN)
    t->tsan = __tsan_create_fiber(0);
#endif
    k_trace("thread starts", i, kind);
    return i;
}

K_FN int k_threads_of(int kind) {
    int i, n = 0;
    for (i = 1; i < sim.nthreads; i++) n += sim.thread[i].state != K_T_FREE && sim.thread[i].kind == kind;
    return n;
}

K_FN int k_thread_start(int *thread, void *(*fn)(void *), void *arg) {
    int i = -1;
    k_point();
    sim.stats.thread_starts++;
    if (k_threads_of(K_WORKER) < sim.threads_max && !k_chance(sim.faults.thread_start))
        i = k_thread_new(K_WORKER, fn, arg);
    if (i < 0) {
        sim.stats.thread_failed++;
        k_trace("thread fails", 0, 0);
        return EAGAIN;
    }
    *thread = i;
    k_point();
    return 0;
}

/* The end of a fibre: somebody else goes on, and it never comes back. */
K_FN void k_thread_over(void) {
    int i;
    sim.thread[sim.self].state = K_T_DONE;
    k_trace("thread ends", sim.self, 0);
    for (i = 0; i < sim.nthreads; i++)
        if (sim.thread[i].state == K_T_JOIN && sim.thread[i].joins == sim.self) k_wake_thread(&sim.thread[i]);
    k_wait_turn();
    abort();
}

K_FN void k_thread_join(int thread) {
    k_thread *self = &sim.thread[sim.self], *t = &sim.thread[thread];
    k_point();
    if (thread <= 0 || thread >= sim.nthreads || t->state == K_T_FREE)
        k_fail("threads", "join of thread %d, which is none", thread);
    while (t->state != K_T_DONE) {
        self->state = K_T_JOIN;
        self->joins = thread;
        k_wait_turn();
    }
    k_thread_gone(t);
    while (sim.nthreads > 1 && sim.thread[sim.nthreads - 1].state == K_T_FREE) sim.nthreads--;
}

/* A process that forks has one thread in its child: the others are gone wherever they were. */
K_FN void k_threads_vanish(void) {
    if (sim.self) k_fail("test", "only the loop's thread forks here");
    while (sim.nthreads > 1) k_thread_gone(&sim.thread[--sim.nthreads]);
}

K_FN void k_futex_wake(const uint32_t *word, int n) {
    int i, at;
    k_point();
    at = sim.nthreads > 1 ? (int)k_below((uint32_t)sim.nthreads) : 0;
    for (i = 0; i < sim.nthreads && n > 0; i++, at = (at + 1) % sim.nthreads) {
        k_thread *t = &sim.thread[at];
        if (t->state != K_T_FUTEX || t->waits != word) continue;
        sim.stats.futex_wakes++;
        k_note("futex wakes", at, 0);
        k_wake_thread(t);
        n--;
    }
    if (sim.nthreads > 1 && k_chance(sim.faults.futex)) { /* one more, who was not meant */
        k_thread *t = &sim.thread[k_below((uint32_t)sim.nthreads)];
        if (t->state != K_T_FUTEX) return;
        sim.stats.futex_spurious++;
        k_wake_thread(t);
    }
}

K_FN void k_futex_wait(const uint32_t *word, uint32_t value) {
    k_thread *t = &sim.thread[sim.self];
    k_point();
    if (sim.self == 0) k_fail("threads", "the loop's thread sleeps in a futex");
    if (*word != value) return;
    if (k_chance(sim.faults.futex)) {
        sim.stats.futex_spurious++;
        return;
    }
    sim.stats.futex_waits++;
    k_note("futex waits", 0, 0);
    t->state = K_T_FUTEX;
    t->waits = word;
    k_wait_turn();
    t->wakes++;
}

/* A mutex is the number of its holder + 1. */
K_FN void k_lock(int *m) {
    k_thread *t = &sim.thread[sim.self];
    k_point();
    if (*m == sim.self + 1) k_fail("mutex", "locked twice");
    while (*m) {
        if (k_alone()) k_fail("mutex", "its holder is gone");
        sim.stats.mutex_waits++;
        t->state = K_T_MUTEX;
        t->waits = m;
        k_wait_turn();
    }
    *m = sim.self + 1;
}
K_FN void k_unlock(int *m) {
    int i;
    if (*m != sim.self + 1) k_fail("mutex", "unlocked by thread %d, which does not hold it", sim.self);
    *m = 0;
    for (i = 0; i < sim.nthreads; i++)
        if (sim.thread[i].state == K_T_MUTEX && sim.thread[i].waits == m) k_wake_thread(&sim.thread[i]);
    k_point();
}

/* ---------------------------------------------------------------------------------------------------------------- */

/* A spinning thread lets others run. */
K_FN void k_pause(void) {
    if (sim.self == 0) k_busy();
    sim.now += sim.self ? 100 : 20;
    k_run_due();
    if (!k_alone() && k_below(4) == 0) k_wait_turn();
}

/* The loop sleeps in epoll_wait: the others run until it has something to do. 0: nobody can. */
K_FN int k_others_run(k_file *f, int64_t limit) {
    int i = 1;
    while (i < sim.nthreads && sim.thread[i].state != K_T_RUNS) i++;
    if (k_alone() || i == sim.nthreads || sim.self) return 0;
    sim.thread[0].state = K_T_POLL;
    sim.poll_ep = f;
    sim.poll_limit = limit;
    k_wait_turn();
    sim.thread[0].state = K_T_RUNS;
    return 1;
}

#endif
