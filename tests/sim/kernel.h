/* kernel.h: a simulated kernel, network, clock and scheduler under offload.h, deterministic.

   Include it before offload.h with OFFLOAD_IMPLEMENTATION. It defines the macros of the seam (>>sys), so that the
   shipped lines run against it unmodified. One seed drives every choice: how much a read returns, in which order and
   how late epoll reports, which call fails, which thread goes on (threads.h). Time is virtual: it moves on in
   epoll_wait, to the next event of the network or to the caller's timeout, and by a few ns at each look at the clock.

   Where choices come from a fuzzer (k_boot_bytes) they are taken from its bytes, and from a fixed seed after those.

   It is strict. A call on a closed fd number, a double close, a write to freed memory, an operation's buffer outliving
   its fd, sleeping with nothing left that could wake, turning without progress, asking again where nothing was found and
   no event has come since (if `thrifty`): each ends the run through k_fail with the checker's name.

   What it models follows Linux where the library can see it: an edge is queued whenever new readiness arrives, also
   when the fd was ready before; an event carries the readiness of the moment when it is delivered; space is reported
   only after a writer or a poll found none; HUP and ERR are reported always; closing a fd ends its registration; the
   lowest free number is used first.

   Sections: >>fail >>random >>events >>threads >>memory >>fds >>epoll >>timerfd >>streams >>sockets >>files >>seam */
#ifndef SIM_KERNEL_H
#define SIM_KERNEL_H

#undef _FORTIFY_SOURCE /* its longjmp refuses to go from one stack to another */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#define K_FN static __attribute__((unused))
#define K_FDS 4096   /* fd numbers at most */
#define K_FIRST_FD 3 /* 0, 1 and 2 are taken, as in any program */
#define K_BACKLOG 64 /* connections that a listener holds at most; messages in a socket that keeps their bounds */
#define K_GHOSTS 8   /* closed registrations whose events may still come */
#define K_INODES 16  /* regular files */
#define K_THREADS 16 /* threads, the loop's included */
#define K_STACK (256 * 1024)
#define K_NEVER INT64_MAX

typedef struct k_file k_file;
typedef struct k_end k_end;

/* Probabilities in 1/1000 of what may go wrong or come in a nasty way. All 0: a kind kernel. */
typedef struct k_faults {
    int late;         /* a ready fd is left for a later epoll_wait */
    int spurious;     /* an fd is reported without cause */
    int ghost;        /* an event of a closed registration is reported */
    int eintr;        /* epoll_wait is interrupted by a signal */
    int short_read;   /* a read returns part of what is there; an edge follows */
    int short_write;  /* a write finds less room than there is; an edge follows */
    int again;        /* EAGAIN although there are data or room; an edge follows */
    int enomem;       /* malloc fails */
    int ctl;          /* epoll_ctl ADD fails with ENOMEM or ENOSPC */
    int accept_abort; /* accept gives ECONNABORTED */
    int accept_full;  /* accept gives EMFILE or ENFILE without need */
    int socket_full;  /* socket gives EMFILE */
    int open_full;    /* open gives EMFILE */
    int stall;        /* the thread does not run for up to a millisecond (k_stall) */
    int interrupt;    /* another thread acts at a system call or at an atomic access (sim.interrupt) */
    int preempt;      /* another thread goes on at a contact with the seam; 0: now and then all the same */
    int thread_stall; /* of those: the thread, if it is not the loop's, does not run for up to 3 ms */
    int thread_stick; /* a worker does so soon after a compare-and-swap that has succeeded */
    int thread_start; /* no more threads: EAGAIN */
    int futex;        /* a futex wakes its sleeper without cause */
    int no_openat2;   /* always: not a probability */
    int no_nowait;    /* always: preadv2 without RWF_NOWAIT */
} k_faults;

/* How often each thing happened: member, what sort of thing it is, its name. */
#define K_STATS(X)                                                                                                     \
    X(waits, "system calls", "epoll_wait")                                                                             \
    X(reads, "system calls", "read")                                                                                   \
    X(writes, "system calls", "write")                                                                                 \
    X(accepts, "system calls", "accept")                                                                               \
    X(connects, "system calls", "connect")                                                                             \
    X(sockets, "system calls", "socket")                                                                               \
    X(closes, "system calls", "close")                                                                                 \
    X(shutdowns, "system calls", "shutdown")                                                                           \
    X(ctls, "system calls", "epoll_ctl")                                                                               \
    X(opens, "system calls", "open")                                                                                   \
    X(stats, "system calls", "stat")                                                                                   \
    X(preads, "system calls", "pread")                                                                                 \
    X(eventfd_writes, "system calls", "write to an eventfd")                                                           \
    X(futex_waits, "system calls", "futex wait")                                                                       \
    X(futex_wakes, "system calls", "futex wake")                                                                       \
    X(thread_starts, "system calls", "thread start")                                                                   \
    X(naps, "system calls", "nap")                                                                                     \
    X(allocs, "system calls", "malloc")                                                                                \
    X(clock, "system calls", "clock")                                                                                  \
    X(blocked, "kernel", "epoll_wait slept")                                                                           \
    X(empty, "kernel", "epoll_wait found nothing")                                                                     \
    X(events, "kernel", "events")                                                                                      \
    X(eofs, "kernel", "end of stream")                                                                                 \
    X(reused, "kernel", "fd number used again")                                                                        \
    X(hot, "kernel", "file in the cache")                                                                              \
    X(cold, "kernel", "file not in the cache")                                                                         \
    X(switches, "kernel", "switches of threads")                                                                       \
    X(late, "faults", "events left for later")                                                                         \
    X(spurious, "faults", "event without cause")                                                                       \
    X(ghosts, "faults", "event of a closed fd")                                                                        \
    X(eintr, "faults", "EINTR")                                                                                        \
    X(short_reads, "faults", "short read")                                                                             \
    X(short_writes, "faults", "short write")                                                                           \
    X(read_again, "faults", "read EAGAIN")                                                                             \
    X(write_again, "faults", "write EAGAIN")                                                                           \
    X(resets, "faults", "reset")                                                                                       \
    X(accept_again, "faults", "accept EAGAIN")                                                                         \
    X(accept_aborts, "faults", "accept ECONNABORTED")                                                                  \
    X(accept_full, "faults", "accept EMFILE, ENFILE")                                                                  \
    X(socket_full, "faults", "socket EMFILE")                                                                          \
    X(open_full, "faults", "open EMFILE")                                                                              \
    X(refused, "faults", "connect ECONNREFUSED")                                                                       \
    X(enomem, "faults", "malloc ENOMEM")                                                                               \
    X(ctl_failed, "faults", "epoll_ctl ENOMEM, ENOSPC")                                                                \
    X(old_kernel, "faults", "no openat2, no RWF_NOWAIT")                                                               \
    X(interrupts, "faults", "post at a point")                                                                         \
    X(stalls, "faults", "the loop stalls")                                                                             \
    X(preemptions, "faults", "preemption")                                                                             \
    X(thread_stalls, "faults", "a thread stalls")                                                                      \
    X(thread_failed, "faults", "thread start EAGAIN")                                                                  \
    X(futex_spurious, "faults", "futex woken without cause")

typedef struct k_stats {
#define X(member, sort, name) uint64_t member;
    K_STATS(X)
#undef X
    uint64_t pipes, mutex_waits;
} k_stats;

typedef struct k_item { /* a registration; a file has at most one */
    k_file *epoll;      /* NULL: none */
    uint32_t events;
    int ready; /* place in the epoll's ready list, -1 none */
    uint64_t data;
} k_item;

typedef struct k_queue {
    unsigned char *data;
    uint32_t cap, len, head;
} k_queue;

enum { K_FRESH, K_CONNECTING, K_UP, K_DOWN }; /* k_end.state */
enum { K_SOCKET = 1, K_LISTENER, K_PIPE_READ, K_PIPE_WRITE, K_EVENTFD, K_EPOLL, K_REGULAR, K_TIMERFD };

/* One end of a connection or pipe. Held by a fd, by a listener's queue or by a script of the test. */
struct k_end {
    k_queue rx;     /* what arrived */
    k_end *peer;    /* NULL: gone */
    k_file *file;   /* NULL: not a fd's */
    int state;      /* K_FRESH... */
    int rd_shut;    /* no more will arrive */
    int wr_shut;    /* no more will be sent */
    int nospace;    /* a writer or a poll found no room: report space */
    int err;        /* pending error */
    int connecting; /* the first connect was made and its success is not reported */
    int port;       /* connecting to */
    uint64_t serial;
    int nmessages; /* >= 0: keeps the bounds of messages (SOCK_SEQPACKET): these wait in rx */
    uint32_t message[K_BACKLOG];
    int marked; /* a Unix stream: reads end where a message's credentials begin, and no edge follows */
    int blamed; /* a fault of the kernel's, not of the library's, ended the connection */
    void (*wake)(k_end *end, void *user); /* the script's, called on every change */
    void *user;
    k_end *older, *newer; /* list of all */
};

typedef struct k_inode {
    char name[24];
    uint64_t size, seed;
    uint64_t cached; /* bytes from the start that are in the page cache */
    int name_cached;
    int fifo; /* an open may block until somebody opens the other end */
} k_inode;

struct k_file {
    int fd, type, nonblock;
    int pins;       /* operations in flight that need this fd open */
    int registered; /* was at some time */
    int all_at;     /* place in the list of registered files */
    k_item item;
    k_end *end;
    k_inode *inode;
    int dry_in, dry_out; /* a read, a write found nothing, and no event has said otherwise since */
    uint64_t counter;    /* eventfd; timerfd: times that it has run out */
    uint64_t armed;      /* timerfd: number of the setting in force, 0 none */
    int64_t due;         /* and when it runs out */
    int parents;         /* epoll, timerfd: of the process that this one was forked from */
    k_file **ready;      /* epoll: ready list */
    int nready, ready_cap;
    uint64_t ghost[K_GHOSTS];
    int nghosts;
    int port, backlog, down, nqueue; /* listener */
    int full;                        /* so often it was asked for nothing since the last event, for want of a number, */
    int64_t full_until;              /* until then; a pause may be cut short by a cancel, or with another listener's */
    k_end *queue[K_BACKLOG];
};

typedef struct k_event {
    int64_t at;
    uint64_t order; /* equal times run in the order in which they were asked for */
    void (*fn)(void *arg, uint64_t tag);
    void *arg;
    uint64_t tag;
} k_event;

typedef struct k_block { /* in front of what k_malloc returns */
    struct k_block *prev, *next;
    size_t size;
    uint64_t magic;
} k_block;

enum { K_T_FREE, K_T_RUNS, K_T_POLL, K_T_FUTEX, K_T_MUTEX, K_T_JOIN, K_T_SLEEP, K_T_DONE }; /* k_thread.state */
enum { K_LOOP, K_WORKER, K_OTHER }; /* k_thread.kind: the loop's, started through the seam, started by a test */
typedef struct k_thread {
    int state, kind, fresh; /* fresh: it has not run yet */
    int stalled;            /* asleep by a fault, wherever it was */
    int stall_in;           /* points until then, 0 none */
    int joins;              /* the thread that it waits for */
    const void *waits;      /* the futex or mutex that it waits for */
    void *(*fn)(void *);
    void *arg;
    uint64_t serial; /* of its sleep */
    uint64_t calls;  /* of the seam since it waited last */
    uint64_t wakes;  /* times that it was woken from a futex */
    int number;      /* errno */
    jmp_buf at;
    void *fake_stack; /* AddressSanitizer's */
    void *tsan;       /* ThreadSanitizer's name for it */
    const void *bottom;
    size_t stack_size;
} k_thread;

typedef struct k_kernel {
    uint64_t rng[4];
    const unsigned char *input; /* a fuzzer's choices, used up first */
    size_t ninput;
    int64_t now;
    int tick;      /* each look at the clock takes 0..tick ns; at least 1 */
    uint32_t piece;/* the most that the library works on at a time, in bytes */
    int oversleep; /* a timed-out sleep ends 0..oversleep ns late */
    k_faults faults;
    k_stats stats;

    k_file *file[K_FDS];
    k_file **all; /* registered files, for spurious events */
    int nall, all_cap;
    int fd_limit, lowest, open;
    unsigned char used[K_FDS]; /* numbers that were open before */
    k_inode inode[K_INODES];
    int ninodes;
    k_end *ends; /* newest */
    uint64_t serial;

    k_event *heap;
    int nheap, heap_cap;
    uint64_t order;
    int running; /* inside k_run_due */

    k_block blocks, freed; /* list heads */
    int64_t nblocks, bytes, nowned;
    int64_t fail_alloc; /* counts down to the allocation that fails; 0 none */
    int64_t fail_ctl;   /* the same for epoll_ctl ADD */

    int sleeping;      /* inside an epoll_wait that may block */
    int64_t sleep_for; /* so long at most, -1 without limit, at its beginning */
    int falls_asleep;  /* it begins to sleep, and does not merely go on */
    int in_hook;
    int on_worker; /* a device's thread runs, which may block */
    uint32_t forks;
    int tolerant;               /* bad fd numbers are the test's intention */
    int thrifty;                /* no read or write in vain twice without an event in between */
    void (*interrupt)(void);    /* what another thread does; may only use calls that are legal from any thread */
    void (*asleep)(k_file *ep); /* called when a sleep begins and goes on: is it right to sleep? */
    void (*delivered)(const k_file *f, uint32_t events); /* called for each event of a registered fd */
    int (*idle)(void); /* asked when nothing would ever wake the sleeper; 1: something was done */
    uint64_t progress, seen_progress;
    int barren;     /* epoll_wait calls that found nothing, did not block, and followed no progress */
    int barren_max; /* so many are a busy loop */
    uint64_t waits_max, since_wait;

    k_thread thread[K_THREADS]; /* 0 is the loop's */
    int nthreads, self, came_from;
    int threads_max; /* so many may be started through the seam */
    int cpus;
    int preempt_in; /* points until the next preemption */
    int failing;    /* k_fail was called on a fibre */
    uint64_t thread_serial;
    k_file *poll_ep; /* where the loop sleeps, and how long */
    int64_t poll_limit;
    /* on a worker, right before a load, an exchange (of `old`) or a compare-and-swap that will succeed (to `value`) */
    void (*loads)(const void *word);
    void (*exchanges)(const void *word, uintptr_t old);
    void (*swaps)(const void *word, uintptr_t value);

    uint64_t hash, nevents;
    int verbose;
    jmp_buf on_fail;
    const char *checker;
    char text[400];
} k_kernel;

static k_kernel sim;

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>fail                                                                                                           */

K_FN void k_fail(const char *checker, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
K_FN void k_switch(int to);
K_FN void k_fail(const char *checker, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(sim.text, sizeof sim.text, format, args);
    va_end(args);
    sim.checker = checker;
    if (sim.self == 0) longjmp(sim.on_fail, 1);
    sim.failing = 1;
    k_switch(0);
    abort();
}

/* Everything that happens goes through here: into the hash that must be equal for equal seeds, and into the log. */
K_FN void k_note(const char *what, int64_t a, int64_t b) {
    uint64_t h = sim.hash;
    const char *p;
    for (p = what; *p; p++) h = (h ^ (unsigned char)*p) * 0x100000001b3u;
    h = (h ^ (uint64_t)a) * 0x100000001b3u;
    h = (h ^ (uint64_t)b) * 0x100000001b3u;
    sim.hash = (h ^ (h >> 29)) + (uint64_t)sim.now;
    if (sim.verbose)
        printf("%14lld %2d  %-18s %lld %lld\n", (long long)sim.now, sim.self, what, (long long)a, (long long)b);
}
K_FN void k_trace(const char *what, int64_t a, int64_t b) {
    sim.nevents++;
    k_note(what, a, b);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>random: xoshiro256** by Blackman and Vigna, seeded by splitmix64                                               */

K_FN uint64_t k_splitmix(uint64_t *x) {
    uint64_t z = (*x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

K_FN uint64_t k_rotl(uint64_t x, int n) { return (x << n) | (x >> (64 - n)); }

/* The next n bytes of a fuzzer's; what it does not give is 0. */
K_FN uint64_t k_bytes(size_t n) {
    uint64_t x = 0;
    size_t i;
    for (i = 0; i < n && sim.ninput; i++, sim.ninput--) x |= (uint64_t)*sim.input++ << 8 * i;
    return x;
}

K_FN uint64_t k_rand(void) {
    uint64_t *s = sim.rng;
    const uint64_t result = k_rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = k_rotl(s[3], 45);
    return sim.ninput ? k_bytes(8) : result;
}

/* 0..n-1; n > 0 */
K_FN uint32_t k_below(uint32_t n) {
    if (sim.ninput) return (uint32_t)(k_bytes(n <= 256 ? 1 : n <= 65536 ? 2 : 4) % n);
    return (uint32_t)(((k_rand() >> 32) * n) >> 32);
}

/* lo..hi */
K_FN int64_t k_range(int64_t lo, int64_t hi) {
    const uint64_t n = (uint64_t)(hi - lo + 1);
    return lo + (int64_t)(sim.ninput ? k_bytes(n <= 256 ? 1 : n <= 65536 ? 2 : 4) % n : k_rand() % n);
}

/* True in per_mille of 1000 cases; takes no random number when that is 0, so a kind kernel has no hidden choices. */
K_FN int k_chance(int per_mille) {
    if (per_mille <= 0) return 0;
    if (sim.ninput) return (int)k_bytes(1) * 1000 < per_mille * 256; /* one byte decides, in steps of 1/256 */
    return (int)k_below(1000) < per_mille;
}

/* Byte `at` of the endless stream `seed`: contents can be checked at any place without keeping them. */
K_FN unsigned char k_byte(uint64_t seed, uint64_t at) {
    uint64_t z = seed ^ (at * 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 31)) * 0xbf58476d1ce4e5b9u;
    return (unsigned char)(z >> 56);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>events: what the world outside does, in order of time                                                          */

K_FN int k_before(const k_event *a, const k_event *b) { return a->at != b->at ? a->at < b->at : a->order < b->order; }

/* Calls fn(arg, tag) `after` ns from now. Such functions are "another thread": of the library they may only use what
   is legal from any thread. */
K_FN void k_at(int64_t after, void (*fn)(void *, uint64_t), void *arg, uint64_t tag) {
    k_event e;
    int i;
    if (sim.nheap == sim.heap_cap) {
        sim.heap_cap = sim.heap_cap ? 2 * sim.heap_cap : 64;
        sim.heap = (k_event *)realloc(sim.heap, (size_t)sim.heap_cap * sizeof *sim.heap);
    }
    e.at = after > K_NEVER - sim.now ? K_NEVER : sim.now + after;
    e.order = sim.order++;
    e.fn = fn;
    e.arg = arg;
    e.tag = tag;
    for (i = sim.nheap++; i > 0 && k_before(&e, &sim.heap[(i - 1) / 2]); i = (i - 1) / 2)
        sim.heap[i] = sim.heap[(i - 1) / 2];
    sim.heap[i] = e;
}

K_FN k_event k_pop(void) {
    const k_event top = sim.heap[0], last = sim.heap[--sim.nheap];
    int i = 0, child;
    while ((child = 2 * i + 1) < sim.nheap) {
        if (child + 1 < sim.nheap && k_before(&sim.heap[child + 1], &sim.heap[child])) child++;
        if (!k_before(&sim.heap[child], &last)) break;
        sim.heap[i] = sim.heap[child];
        i = child;
    }
    sim.heap[i] = last;
    return top;
}

K_FN void k_run_due(void) {
    const int saved = errno;
    if (sim.running) return;
    sim.running = 1;
    while (sim.nheap > 0 && sim.heap[0].at <= sim.now) {
        const k_event e = k_pop();
        e.fn(e.arg, e.tag);
    }
    sim.running = 0;
    errno = saved;
}

K_FN int64_t k_next(void) { return sim.nheap ? sim.heap[0].at : K_NEVER; }

/* Counts what the loop's thread does between two calls of epoll_wait. */
K_FN void k_busy(void) {
    if (++sim.since_wait > 5000000) k_fail("busy loop", "five million calls, and none of epoll_wait among them");
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>threads                                                                                                        */

K_FN int k_polled_ready(void);
#include "threads.h"

K_FN int64_t k_clock(void) {
    if (sim.in_hook) return sim.now;
    k_thread_point();
    sim.stats.clock++;
    sim.now += k_range(1, sim.tick);
    k_run_due();
    return sim.now;
}

/* The scheduler lets somebody else run. */
K_FN void k_stall(void) {
    if (!k_chance(sim.faults.stall)) return;
    sim.now += k_range(1, 1000000);
    sim.stats.stalls++;
    k_run_due();
}

K_FN void k_nap(void) {
    k_point();
    sim.stats.naps++;
    k_sleep_for(20000);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>memory                                                                                                         */

#define K_LIVE 0x6b6d656d
#define K_DEAD 0x64656164
#define K_OWN 0x6f776e65

K_FN void k_unlink(k_block *b) {
    b->prev->next = b->next;
    b->next->prev = b->prev;
}
K_FN void k_link_block(k_block *list, k_block *b) {
    b->prev = list;
    b->next = list->next;
    list->next->prev = b;
    list->next = b;
}

K_FN void *k_malloc(size_t n) {
    k_block *b;
    k_thread_point();
    sim.stats.allocs++;
    if (k_chance(sim.faults.enomem) || (sim.fail_alloc > 0 && --sim.fail_alloc == 0)) {
        sim.stats.enomem++;
        k_trace("enomem", (int64_t)n, 0);
        errno = ENOMEM;
        return NULL;
    }
    b = (k_block *)malloc(sizeof *b + n);
    if (!b) abort();
    b->size = n;
    b->magic = K_LIVE;
    k_link_block(&sim.blocks, b);
    sim.nblocks++;
    sim.bytes += (int64_t)n;
    memset(b + 1, 0xa5, n); /* what malloc gives is not zero */
    return b + 1;
}

/* Freed blocks stay what they are until the end of the run: who writes to one is found out then, who touches one under
   AddressSanitizer at once. */
K_FN void k_bury(k_block *b) {
    b->magic = K_DEAD;
    k_unlink(b);
    k_link_block(&sim.freed, b);
    memset(b + 1, 0xdd, b->size);
#if defined(K_ASAN)
    __asan_poison_memory_region(b + 1, b->size);
#endif
}

K_FN void k_free(void *p) {
    k_block *b;
    if (!p) return;
    b = (k_block *)p - 1;
    if (b->magic != K_LIVE) k_fail("memory", "free of what malloc did not give");
    sim.nblocks--;
    sim.bytes -= (int64_t)b->size;
    k_bury(b);
}

/* The same for a test's own structs and buffers, zeroed, which the library uses for a time: nothing fails here. */
K_FN void *k_own(size_t n) {
    k_block *b = (k_block *)calloc(1, sizeof *b + n);
    if (!b) abort();
    b->size = n;
    b->magic = K_OWN;
    k_link_block(&sim.blocks, b);
    sim.nowned++;
    return b + 1;
}
K_FN void k_disown(void *p) {
    k_block *b = (k_block *)p - 1;
    if (b->magic != K_OWN) k_fail("test", "k_disown of what k_own did not give");
    sim.nowned--;
    k_bury(b);
}

/* Gives the freed blocks back; 1 if one was written to. */
K_FN int k_release_freed(void) {
    int written = 0;
    while (sim.freed.next && sim.freed.next != &sim.freed) {
        k_block *b = sim.freed.next;
        const unsigned char *p = (const unsigned char *)(b + 1);
#if defined(K_ASAN)
        __asan_unpoison_memory_region(b + 1, b->size);
#endif
        written |= b->size && (p[0] != 0xdd || memcmp(p, p + 1, b->size - 1) != 0); /* each byte is as the one before */
        k_unlink(b);
        free(b);
    }
    return written;
}

K_FN void *k_realloc(void *p, size_t n) { /* always moves, so that a kept pointer is found out */
    void *q = k_malloc(n);
    if (q && p) {
        const size_t old = ((k_block *)p - 1)->size;
        memcpy(q, p, old < n ? old : n);
        k_free(p);
    }
    return q;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>fds                                                                                                            */

K_FN k_file *k_get(int fd, const char *call) {
    k_file *f = fd >= 0 && fd < K_FDS ? sim.file[fd] : NULL;
    if (!f && !sim.tolerant) k_fail("closed fd", "%s on fd %d, which is not open", call, fd);
    if (!f) errno = EBADF;
    return f;
}

K_FN int k_room(void) {
    int fd = sim.lowest;
    while (fd < K_FDS && sim.file[fd]) fd++;
    sim.lowest = fd;
    return fd < sim.fd_limit && fd < K_FDS ? fd : -1;
}

/* Are n more numbers free? */
K_FN int k_free_fds(int n) {
    int fd = k_room();
    for (; fd >= 0 && fd < sim.fd_limit && fd < K_FDS && n > 0; fd++) n -= !sim.file[fd];
    return n <= 0;
}

/* The lowest free number, or -1 with EMFILE. */
K_FN k_file *k_open_fd(int type) {
    const int fd = k_room();
    k_file *f;
    if (fd < 0) {
        errno = EMFILE;
        return NULL;
    }
    f = (k_file *)calloc(1, sizeof *f);
    f->fd = fd;
    f->type = type;
    f->item.ready = -1;
    f->all_at = -1;
    sim.file[fd] = f;
    sim.open++;
    sim.stats.reused += sim.used[fd];
    sim.used[fd] = 1;
    return f;
}

K_FN void k_queue_init(k_queue *q, uint32_t cap) {
    q->data = (unsigned char *)malloc(cap);
    q->cap = cap;
    q->len = q->head = 0;
}

K_FN void k_put(k_queue *q, const unsigned char *from, uint32_t n) {
    uint32_t i, at = (q->head + q->len) % q->cap;
    for (i = 0; i < n; i++) {
        q->data[at] = from[i];
        if (++at == q->cap) at = 0;
    }
    q->len += n;
}

K_FN void k_take(k_queue *q, unsigned char *to, uint32_t n) {
    uint32_t i;
    for (i = 0; i < n; i++) {
        to[i] = q->data[q->head];
        if (++q->head == q->cap) q->head = 0;
    }
    q->len -= n;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>epoll                                                                                                          */

K_FN int k_writable(const k_end *e) { /* a third of the buffer, as TCP has it */
    if (!e->peer) return 1;
    return (e->peer->rx.cap - e->peer->rx.len) * 3 >= e->peer->rx.cap;
}

K_FN uint32_t k_poll_socket(k_end *e) {
    uint32_t m = 0;
    if (e->state == K_FRESH) return EPOLLOUT | EPOLLHUP;
    if (e->state == K_DOWN || (e->rd_shut && e->wr_shut)) m |= EPOLLHUP;
    if (e->rd_shut) m |= EPOLLIN | EPOLLRDHUP;
    if (e->rx.len) m |= EPOLLIN;
    if (e->err) m |= EPOLLERR;
    if (e->state == K_CONNECTING) return m;
    if (e->wr_shut || k_writable(e)) m |= EPOLLOUT;
    else e->nospace = 1;
    return m;
}

K_FN int k_epoll_ready(const k_file *ep);
K_FN uint32_t k_poll(k_file *f) {
    k_end *e = f->end;
    switch (f->type) {
    case K_SOCKET: return k_poll_socket(e);
    case K_LISTENER: return f->down ? (uint32_t)EPOLLHUP : f->nqueue ? (uint32_t)EPOLLIN : 0;
    case K_PIPE_READ: return (e->rx.len ? (uint32_t)EPOLLIN : 0) | (e->peer ? 0 : (uint32_t)EPOLLHUP);
    case K_PIPE_WRITE:
        if (!e->peer) return EPOLLOUT | EPOLLERR;
        if (e->peer->rx.len < e->peer->rx.cap) return EPOLLOUT;
        e->nospace = 1;
        return 0;
    case K_EVENTFD: return (f->counter ? (uint32_t)EPOLLIN : 0) | EPOLLOUT;
    case K_TIMERFD: return f->counter ? (uint32_t)EPOLLIN : 0;
    case K_EPOLL: return k_epoll_ready(f) ? (uint32_t)EPOLLIN : 0;
    default: return EPOLLIN | EPOLLOUT;
    }
}

/* Would epoll_wait report something now? */
K_FN int k_epoll_ready(const k_file *ep) {
    int i;
    for (i = 0; i < ep->nready; i++)
        if (k_poll(ep->ready[i]) & (ep->ready[i]->item.events | EPOLLERR | EPOLLHUP)) return 1;
    return 0;
}

/* Has what thread 0 sleeps for come? */
K_FN int k_polled_ready(void) {
    return sim.poll_ep->type == K_EPOLL ? sim.poll_ep->nready > 0 : (k_poll(sim.poll_ep) & EPOLLIN) != 0;
}

/* Queues an edge. `key` is what happened; 0 (a change of state) concerns every registration. */
K_FN void k_wake(k_file *f, uint32_t key) {
    k_file *ep = f->item.epoll;
    if (!ep || f->item.ready >= 0) return; /* edges that were not yet fetched merge */
    if (key && !(key & (f->item.events | EPOLLERR | EPOLLHUP))) return;
    if (ep->nready == ep->ready_cap) {
        ep->ready_cap = ep->ready_cap ? 2 * ep->ready_cap : 16;
        ep->ready = (k_file **)realloc(ep->ready, (size_t)ep->ready_cap * sizeof *ep->ready);
    }
    f->item.ready = ep->nready;
    ep->ready[ep->nready++] = f;
    if (ep->item.epoll) k_wake(ep, EPOLLIN); /* watched by another one: a guest's */
}

K_FN void k_unready(k_file *f) {
    k_file *ep = f->item.epoll;
    const int i = f->item.ready;
    if (i < 0) return;
    ep->ready[i] = ep->ready[--ep->nready];
    ep->ready[i]->item.ready = i;
    f->item.ready = -1;
}

/* Ends a registration; its events may still come later, as they do where another process shares the fd. */
K_FN void k_unregister(k_file *f) {
    k_file *ep = f->item.epoll;
    if (!ep) return;
    k_unready(f);
    ep->ghost[ep->nghosts++ % K_GHOSTS] = f->item.data;
    f->item.epoll = NULL;
    sim.all[f->all_at] = sim.all[--sim.nall];
    sim.all[f->all_at]->all_at = f->all_at;
}

K_FN int k_ctl_add(k_file *ep, k_file *f, const struct epoll_event *event) {
    if (f == ep) return errno = EINVAL, -1;
    if (f->item.epoll) return errno = EEXIST, -1;
    if (f->type == K_REGULAR) return errno = EPERM, -1;
    if (k_chance(sim.faults.ctl) || (sim.fail_ctl > 0 && --sim.fail_ctl == 0)) {
        sim.stats.ctl_failed++;
        k_trace("ctl fails", f->fd, 0);
        return errno = f->fd & 1 ? ENOSPC : ENOMEM, -1;
    }
    f->registered = 1;
    f->item.epoll = ep;
    f->item.events = event->events;
    f->item.data = event->data.u64;
    if (sim.nall == sim.all_cap) {
        sim.all_cap = sim.all_cap ? 2 * sim.all_cap : 16;
        sim.all = (k_file **)realloc(sim.all, (size_t)sim.all_cap * sizeof *sim.all);
    }
    f->all_at = sim.nall;
    sim.all[sim.nall++] = f;
    if (k_poll(f) & (f->item.events | EPOLLERR | EPOLLHUP)) k_wake(f, 0);
    return 0;
}

K_FN int k_epoll_ctl(int epfd, int op, int fd, const struct epoll_event *event) {
    k_file *ep, *f;
    k_point();
    ep = k_get(epfd, "epoll_ctl");
    f = k_get(fd, "epoll_ctl");
    if (!ep || !f) return -1;
    if (ep->type != K_EPOLL) k_fail("epoll", "epoll_ctl: %d is no epoll fd", epfd);
    if (ep->parents) k_fail("fork", "epoll_ctl on fd %d, which the parent process uses", epfd);
    sim.stats.ctls++;
    k_trace("epoll_ctl", op, fd);
    if (op == EPOLL_CTL_ADD) return k_ctl_add(ep, f, event);
    if (f->item.epoll != ep) return errno = ENOENT, -1;
    if (op == EPOLL_CTL_DEL) {
        k_unregister(f);
        return 0;
    }
    f->item.events = event->events;
    f->item.data = event->data.u64;
    if (k_poll(f) & (f->item.events | EPOLLERR | EPOLLHUP)) k_wake(f, 0);
    return 0;
}

/* Takes ready fds in any order; `all_late` lets it come back with nothing. */
K_FN int k_harvest(k_file *ep, struct epoll_event *out, int max, int all_late) {
    int n = 0, batch = max;
    if (sim.nall && k_chance(sim.faults.spurious)) {
        k_file *f = sim.all[k_below((uint32_t)sim.nall)];
        if (f->item.epoll == ep && f->item.ready < 0) sim.stats.spurious++, k_wake(f, 0);
    }
    if (ep->nready && k_chance(sim.faults.late)) {
        batch = (int)k_below((uint32_t)ep->nready + 1);
        if (batch == 0 && !all_late) batch = 1;
        if (batch < ep->nready) sim.stats.late++;
        if (batch > max) batch = max;
    }
    if (ep->nghosts && n < batch && k_chance(sim.faults.ghost)) {
        const int have = ep->nghosts < K_GHOSTS ? ep->nghosts : K_GHOSTS;
        out[n].data.u64 = ep->ghost[k_below((uint32_t)have)];
        out[n++].events = EPOLLIN | (k_below(2) ? (uint32_t)EPOLLHUP | EPOLLRDHUP : (uint32_t)EPOLLOUT);
        sim.stats.ghosts++;
    }
    while (n < batch && ep->nready) {
        k_file *f = ep->ready[sim.faults.late ? (int)k_below((uint32_t)ep->nready) : 0];
        const uint32_t m = k_poll(f) & (f->item.events | EPOLLERR | EPOLLHUP);
        k_unready(f);
        if (!m) continue;
        k_trace("event", f->fd, m);
        if (m & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) f->dry_in = 0;
        if (m & (EPOLLOUT | EPOLLHUP | EPOLLERR)) f->dry_out = 0;
        f->full = 0;
        if (sim.delivered) sim.delivered(f, m);
        out[n].events = m;
        out[n++].data.u64 = f->item.data;
        if (!(f->item.events & EPOLLET)) { /* level-triggered: stays on the list; one of a batch is enough here */
            k_wake(f, 0);
            break;
        }
    }
    sim.stats.events += (uint64_t)n;
    return n;
}

/* Counts rounds that neither sleep nor do anything. */
K_FN void k_spin_check(int found, int blocked) {
    if (found || blocked || sim.progress != sim.seen_progress) {
        sim.seen_progress = sim.progress;
        sim.barren = 0;
    } else if (++sim.barren > sim.barren_max) {
        k_fail("busy loop", "%d calls of epoll_wait in a row found nothing, did not sleep and led to nothing",
               sim.barren);
    }
}

/* Lets time pass until the next event or the limit. 1: go on looking, 0: time is up. */
K_FN int k_sleep_until(int64_t limit) {
    const int64_t next = k_next();
    if (next == K_NEVER && limit == K_NEVER) {
        if (!sim.idle || !sim.idle())
            k_fail("lost wake-up", "sleeps without limit, and nothing is left that could wake it");
        return 1;
    }
    if (next <= limit) {
        if (next > sim.now) sim.now = next;
    } else {
        if (limit > sim.now) sim.now = limit;
        if (sim.oversleep) sim.now += k_range(0, sim.oversleep);
    }
    k_run_due();
    return next <= limit;
}

K_FN int k_epoll_wait(int epfd, struct epoll_event *out, int max, int64_t timeout) {
    k_file *ep;
    int n, blocked = 0, others = 0;
    int64_t limit;
    k_point();
    ep = k_get(epfd, "epoll_wait");
    if (!ep || ep->type != K_EPOLL || max <= 0) k_fail("epoll", "epoll_wait(%d, max %d)", epfd, max);
    if (ep->parents) k_fail("fork", "epoll_wait on fd %d, which the parent process uses", epfd);
    if (timeout == 0 && k_below(4) == 0) k_yield();
    if (++sim.stats.waits > sim.waits_max)
        k_fail("ending", "%llu calls of epoll_wait, and still no end", (unsigned long long)sim.stats.waits);
    sim.since_wait = 0;
    sim.sleeping = timeout != 0;
    sim.sleep_for = timeout;
    sim.falls_asleep = 1;
    k_run_due();
    limit = timeout < 0 || timeout > K_NEVER - sim.now ? K_NEVER : sim.now + timeout;
    for (;;) {
        n = k_harvest(ep, out, max, timeout == 0);
        if (n || timeout == 0 || sim.now >= limit) break;
        if (!others && k_chance(sim.faults.eintr)) {
            sim.stats.eintr++;
            sim.sleeping = 0;
            errno = EINTR;
            return -1;
        }
        blocked = 1;
        others = k_others_run(ep, limit);
        if (others) {
            sim.falls_asleep = 0;
            continue;
        }
        if (sim.asleep) sim.asleep(ep);
        sim.falls_asleep = 0;
        if (!k_sleep_until(limit)) {
            n = k_harvest(ep, out, max, 1);
            break;
        }
    }
    sim.sleeping = 0;
    sim.stats.blocked += (uint64_t)blocked;
    sim.stats.empty += n == 0;
    k_spin_check(n, blocked);
    if (n || blocked) k_trace("epoll_wait", n, timeout);
    return n;
}

K_FN int k_epoll_create(void) {
    k_file *f = k_open_fd(K_EPOLL);
    return f ? f->fd : -1;
}

K_FN int k_eventfd(void) {
    k_file *f = k_open_fd(K_EVENTFD);
    if (!f) return -1;
    f->nonblock = 1;
    return f->fd;
}

/* The same for a loop that is not the library's and watches one fd. 1: readable. */
K_FN int k_wait_readable(int fd, int64_t timeout) {
    k_file *f = k_get(fd, "poll");
    const int64_t limit = timeout < 0 || timeout > K_NEVER - sim.now ? K_NEVER : sim.now + timeout;
    sim.since_wait = 0;
    for (;;) {
        k_run_due();
        if (k_poll(f) & EPOLLIN) return 1;
        if (sim.now >= limit) return 0;
        if (k_others_run(f, limit)) continue;
        if (!k_sleep_until(limit)) return (k_poll(f) & EPOLLIN) != 0;
    }
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>timerfd                                                                                                        */

K_FN int k_timerfd(void) {
    k_file *f;
    k_point();
    f = k_open_fd(K_TIMERFD);
    if (!f) return -1;
    f->nonblock = 1;
    return f->fd;
}

K_FN void k_timerfd_out(void *arg, uint64_t fd_and_setting) {
    k_file *f = sim.file[fd_and_setting % K_FDS];
    (void)arg;
    if (!f || f->type != K_TIMERFD || f->armed != fd_and_setting / K_FDS) return;
    f->armed = 0;
    f->counter++;
    k_wake(f, EPOLLIN);
}

/* Runs out once, ns from now; 0 disarms. A new setting forgets that an earlier one has run out. */
K_FN int k_timerfd_set(int fd, int64_t ns) {
    k_file *f;
    k_point();
    f = k_get(fd, "timerfd_settime");
    if (!f) return -1;
    if (f->type != K_TIMERFD || ns < 0) return errno = EINVAL, -1;
    if (f->parents) k_fail("fork", "timerfd_settime on fd %d, which the parent process uses", fd);
    f->counter = 0;
    f->armed = ns ? ++sim.serial : 0;
    f->due = sim.now + ns;
    if (ns) k_at(ns, k_timerfd_out, NULL, f->armed * K_FDS + (uint64_t)fd);
    return 0;
}

/* What the library has asked to be called in the child of a fork; once for a process, as with pthread_atfork. */
static void (*k_forked)(void);
K_FN int k_at_fork(void (*fn)(void)) {
    k_forked = fn;
    return 0;
}

/* From here on this is the child of a fork. Other threads are gone. Epoll fds and timerfds are the parent's as well, who
   goes on using them: here they may be closed, and nothing else. What is registered there is as if it were not. */
K_FN void k_fork(void) {
    int fd;
    sim.forks++;
    k_threads_vanish();
    for (fd = K_FIRST_FD; fd < K_FDS; fd++) {
        k_file *f = sim.file[fd];
        if (!f) continue;
        if (f->type == K_EPOLL) f->nghosts = 0;
        if (f->type == K_EPOLL || f->type == K_TIMERFD) f->parents = 1;
        k_unregister(f);
    }
    k_trace("fork", sim.forks, 0);
    if (k_forked) k_forked();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>streams                                                                                                        */

/* Tells whoever holds this end that something happened. */
K_FN void k_changed(k_end *e, uint32_t key) {
    if (e->file) k_wake(e->file, key);
    if (e->wake) e->wake(e, e->user);
}

K_FN k_end *k_end_new(uint32_t cap) {
    k_end *e = (k_end *)calloc(1, sizeof *e);
    k_queue_init(&e->rx, cap);
    e->nmessages = -1;
    e->serial = ++sim.serial;
    e->older = sim.ends;
    if (e->older) e->older->newer = e;
    sim.ends = e;
    return e;
}

K_FN void k_end_release(k_end *e) {
    if (e->older) e->older->newer = e->newer;
    if (e->newer) e->newer->older = e->older;
    else sim.ends = e->older;
    free(e->rx.data);
    free(e);
}

K_FN void k_link(k_end *a, k_end *b) {
    a->peer = b;
    b->peer = a;
    a->state = b->state = K_UP;
}

/* A reset arrives at e: what it has received stays readable, then comes the error. */
K_FN void k_reset(k_end *e) {
    if (e->state == K_DOWN) return;
    e->err = e->rd_shut ? EPIPE : ECONNRESET;
    e->state = K_DOWN;
    e->rd_shut = e->wr_shut = 1;
    sim.stats.resets++;
    k_changed(e, 0);
}

K_FN void k_fin(k_end *e) { /* e sends its end of stream */
    if (e->wr_shut) return;
    e->wr_shut = 1;
    if (!e->peer || e->peer->rd_shut) return;
    e->peer->rd_shut = 1;
    k_changed(e->peer, 0);
}

/* The holder lets go. Unread data turn the close into a reset, as TCP does. */
K_FN void k_end_free(k_end *e) {
    k_end *peer = e->peer;
    if (peer) {
        peer->peer = NULL;
        if (e->rx.len && e->state == K_UP) {
            k_reset(peer);
        } else if (!e->wr_shut) {
            peer->rd_shut = 1;
            k_changed(peer, 0);
        } else {
            k_changed(peer, EPOLLOUT);
        }
    }
    k_end_release(e);
}

/* Space was made in e's buffer: its writer learns of it only if it was told that there is none. */
K_FN void k_space(k_end *e) {
    k_end *w = e->peer;
    if (!w || !w->nospace) return;
    if (w->file && w->file->type == K_PIPE_WRITE ? e->rx.len >= e->rx.cap : !k_writable(w)) return;
    w->nospace = 0;
    k_changed(w, EPOLLOUT);
}

/* One message at a time; what does not fit is thrown away. */
K_FN ssize_t k_recv_message(k_end *e, unsigned char *buf, size_t n) {
    uint32_t left = e->message[0];
    const uint32_t take = n < left ? (uint32_t)n : left;
    unsigned char sink;
    memmove(e->message, e->message + 1, (size_t)--e->nmessages * sizeof e->message[0]);
    k_take(&e->rx, buf, take);
    for (left -= take; left; left--) k_take(&e->rx, &sink, 1);
    k_space(e);
    sim.progress += take;
    return (ssize_t)take;
}

K_FN ssize_t k_recv(k_end *e, unsigned char *buf, size_t n) {
    uint32_t take;
    if (e->nmessages > 0) return k_recv_message(e, buf, n);
    if (e->rx.len) {
        take = n < e->rx.len ? (uint32_t)n : e->rx.len;
        if (take > 1 && (e->marked ? k_below(3) == 0 : k_chance(sim.faults.short_read))) take = 1 + k_below(take - 1);
        k_take(&e->rx, buf, take);
        k_space(e);
        sim.progress += take;
        return (ssize_t)take;
    }
    if (e->err) {
        errno = e->err;
        e->err = 0;
        return -1;
    }
    if (e->rd_shut) return 0;
    errno = e->state == K_FRESH ? ENOTCONN : EAGAIN;
    return -1;
}

K_FN ssize_t k_send(k_end *e, const unsigned char *buf, size_t n) {
    uint32_t room;
    if (e->err || e->wr_shut || e->state == K_FRESH) {
        errno = e->err ? e->err : EPIPE;
        e->err = 0;
        return -1;
    }
    if (e->state == K_CONNECTING) {
        e->nospace = 1;
        errno = EAGAIN;
        return -1;
    }
    if (!e->peer) { /* nobody there any more: taken, lost, and answered by a reset */
        k_reset(e);
        return (ssize_t)n;
    }
    room = e->peer->rx.cap - e->peer->rx.len;
    if (e->peer->nmessages >= 0) { /* all of a message or nothing */
        if (n > e->peer->rx.cap) return errno = EMSGSIZE, -1;
        if (n > room || e->peer->nmessages == K_BACKLOG) room = 0;
    }
    if (room == 0 && n > 0) {
        e->nospace = 1;
        errno = EAGAIN;
        return -1;
    }
    if (n > room) {
        n = room;
        e->nospace = 1;
    }
    k_put(&e->peer->rx, buf, (uint32_t)n);
    if (e->peer->nmessages >= 0) e->peer->message[e->peer->nmessages++] = (uint32_t)n;
    sim.progress += n;
    if (n) k_changed(e->peer, EPOLLIN);
    return (ssize_t)n;
}

/* The three that a fd's calls go through; they add what the seed has in mind. */

/* A call that found nothing is not made again before an event: that would be a spin, however slow. */
K_FN int k_dry(k_file *f, int *dry, const char *call) {
    if (sim.thrifty && *dry && f->item.epoll)
        k_fail("busy loop", "%s of fd %d again in vain: nothing was there, and no event has come since", call, f->fd);
    *dry = 1;
    return errno = EAGAIN, -1;
}

K_FN void k_edge_later(void *arg, uint64_t fd_and_key) {
    k_file *f = sim.file[fd_and_key >> 32];
    (void)arg;
    if (f) k_wake(f, (uint32_t)fd_and_key);
}

/* An edge that makes good for a nasty answer: at once, or soon. */
K_FN void k_make_good(k_file *f, uint32_t key) {
    if (k_below(2)) k_wake(f, key);
    else k_at(k_range(0, 20000), k_edge_later, NULL, ((uint64_t)f->fd << 32) | key);
}

K_FN k_file *k_stream_of(int fd, const char *call) {
    k_file *f = k_get(fd, call);
    if (f && !f->nonblock) k_fail("blocking fd", "%s on fd %d, which would block", call, fd);
    return f;
}

K_FN ssize_t k_readv_stream(k_file *f, const struct iovec *iov, int n) {
    ssize_t total = 0, r = 0;
    size_t want = 0;
    int i;
    for (i = 0; i < n; i++) want += iov[i].iov_len;
    sim.stats.reads++;
    if (k_chance(sim.faults.again)) {
        sim.stats.read_again++;
        k_make_good(f, EPOLLIN);
        return k_dry(f, &f->dry_in, "read");
    }
    for (i = 0; i < n; i++) {
        if (iov[i].iov_len == 0) continue;
        r = k_recv(f->end, (unsigned char *)iov[i].iov_base, iov[i].iov_len);
        if (r <= 0) break;
        total += r;
        if ((size_t)r < iov[i].iov_len || f->end->nmessages >= 0) break;
        if (i + 1 < n && !f->end->rx.len) break; /* an error or the end waits for the next call */
    }
    if (total == 0 && want) {
        if (r == 0) sim.stats.eofs++;
        if (r < 0 && errno == EAGAIN) {
            sim.stats.read_again++;
            return k_dry(f, &f->dry_in, "read");
        }
        return r;
    }
    if ((size_t)total < want) {
        sim.stats.short_reads++;
        if (f->end->rx.len && f->end->nmessages < 0 && !f->end->marked) k_make_good(f, EPOLLIN);
    }
    return total;
}

K_FN ssize_t k_writev_stream(k_file *f, const struct iovec *iov, int n) {
    ssize_t total = 0, r = 0;
    size_t want = 0, allow;
    int i;
    for (i = 0; i < n; i++) want += iov[i].iov_len;
    sim.stats.writes++;
    if (f->end->state == K_UP && !f->end->err && !f->end->wr_shut && k_chance(sim.faults.again)) {
        sim.stats.write_again++;
        k_make_good(f, EPOLLOUT);
        return k_dry(f, &f->dry_out, "write");
    }
    allow = want;
    if (want > 1 && !(f->end->peer && f->end->peer->nmessages >= 0) && k_chance(sim.faults.short_write))
        allow = 1 + k_below((uint32_t)want - 1);
    for (i = 0; i < n && (size_t)total < allow; i++) {
        size_t part = iov[i].iov_len;
        if (part == 0) continue;
        if (part > allow - (size_t)total) part = allow - (size_t)total;
        r = k_send(f->end, (const unsigned char *)iov[i].iov_base, part);
        if (r < 0) break;
        total += r;
        if ((size_t)r < part) break;
    }
    if (total == 0 && want) {
        if (errno != EAGAIN) return -1;
        sim.stats.write_again++;
        return k_dry(f, &f->dry_out, "write");
    }
    if ((size_t)total < want) {
        sim.stats.short_writes++;
        if ((size_t)total == allow) k_make_good(f, EPOLLOUT);
    }
    return total;
}

K_FN ssize_t k_readv(int fd, const struct iovec *iov, int n) {
    k_file *f;
    ssize_t r;
    k_point();
    f = k_stream_of(fd, "read");
    if (!f) return -1;
    if (f->type == K_EVENTFD || f->type == K_TIMERFD) {
        if (!f->counter) return errno = EAGAIN, -1;
        memcpy(iov[0].iov_base, &f->counter, 8);
        f->counter = 0;
        return 8;
    }
    if (!f->end || f->type == K_PIPE_WRITE) return errno = EINVAL, -1;
    r = k_readv_stream(f, iov, n);
    k_trace("read", fd, r < 0 ? -errno : r);
    return r;
}

K_FN ssize_t k_read(int fd, void *buf, size_t n) {
    struct iovec iov;
    iov.iov_base = buf;
    iov.iov_len = n;
    return k_readv(fd, &iov, 1);
}

K_FN ssize_t k_writev(int fd, const struct iovec *iov, int n) {
    k_file *f;
    ssize_t r;
    k_point();
    f = k_stream_of(fd, "write");
    if (!f) return -1;
    if (f->type == K_EVENTFD) {
        uint64_t add;
        memcpy(&add, iov[0].iov_base, 8);
        f->counter += add;
        sim.stats.eventfd_writes++;
        k_wake(f, EPOLLIN);
        return 8;
    }
    if (!f->end || f->type == K_PIPE_READ) return errno = EINVAL, -1;
    r = k_writev_stream(f, iov, n);
    k_trace("write", fd, r < 0 ? -errno : r);
    return r;
}

K_FN ssize_t k_write(int fd, const void *buf, size_t n) {
    struct iovec iov;
    iov.iov_base = (void *)(uintptr_t)buf;
    iov.iov_len = n;
    return k_writev(fd, &iov, 1);
}

/* send and sendmsg: the same on sockets, refused on anything else */
K_FN ssize_t k_sendv(int fd, const struct iovec *iov, int n) {
    k_file *f = k_stream_of(fd, "send");
    if (!f) return -1;
    if (f->type != K_SOCKET) return errno = ENOTSOCK, -1;
    return k_writev(fd, iov, n);
}

K_FN ssize_t k_send_fd(int fd, const void *buf, size_t n) {
    struct iovec iov;
    iov.iov_base = (void *)(uintptr_t)buf;
    iov.iov_len = n;
    return k_sendv(fd, &iov, 1);
}

/* A pair of connected sockets (TCP, or Unix streams), a pipe, or sockets that keep the bounds of messages, for the test;
   blocking, as the system gives them. */
enum { K_STREAMS, K_PIPE, K_MESSAGES, K_UNIX };
K_FN int k_pair(int kind, uint32_t cap, int fds[2]) {
    const int is_pipe = kind == K_PIPE;
    k_file *a = k_open_fd(is_pipe ? K_PIPE_READ : K_SOCKET), *b;
    if (!a) return -1;
    b = k_open_fd(is_pipe ? K_PIPE_WRITE : K_SOCKET);
    if (!b) k_fail("test", "k_pair: no fd left");
    a->end = k_end_new(cap);
    b->end = k_end_new(cap);
    a->end->file = a;
    b->end->file = b;
    k_link(a->end, b->end);
    if (kind == K_MESSAGES) a->end->nmessages = b->end->nmessages = 0;
    if (kind == K_UNIX) a->end->marked = b->end->marked = 1;
    if (is_pipe) {
        a->end->wr_shut = b->end->rd_shut = 1;
        sim.stats.pipes++;
    }
    fds[0] = a->fd;
    fds[1] = b->fd;
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>sockets                                                                                                        */

K_FN int k_socket(int domain, int type, int protocol) {
    k_file *f;
    k_point();
    (void)protocol;
    if (domain != AF_INET || (type & 0xf) != SOCK_STREAM) return errno = EAFNOSUPPORT, -1;
    sim.stats.sockets++;
    f = k_chance(sim.faults.socket_full) ? NULL : k_open_fd(K_SOCKET);
    if (!f) {
        sim.stats.socket_full++;
        return errno = EMFILE, -1;
    }
    f->end = k_end_new(64 + (sim.faults.late ? k_below(4000) : 4000));
    f->end->file = f;
    f->nonblock = (type & SOCK_NONBLOCK) != 0;
    k_trace("socket", f->fd, 0);
    return f->fd;
}

K_FN int k_port(const struct sockaddr *addr) {
    struct sockaddr_in in;
    memcpy(&in, addr, sizeof in);
    return ntohs(in.sin_port);
}

K_FN struct sockaddr_in k_address(int port) {
    struct sockaddr_in in;
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_port = htons((uint16_t)port);
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return in;
}

K_FN k_file *k_listener(int port) {
    int fd;
    for (fd = K_FIRST_FD; fd < K_FDS; fd++) {
        k_file *f = sim.file[fd];
        if (f && f->type == K_LISTENER && !f->down && f->port == port) return f;
        if (fd > sim.fd_limit) break;
    }
    return NULL;
}

K_FN int k_bind(int fd, const struct sockaddr *addr) {
    k_file *f = k_get(fd, "bind");
    if (!f) return -1;
    if (k_listener(k_port(addr))) return errno = EADDRINUSE, -1;
    f->port = k_port(addr) ? k_port(addr) : 40000 + fd;
    return 0;
}

K_FN int k_listen(int fd, int backlog) {
    k_file *f = k_get(fd, "listen");
    if (!f) return -1;
    k_end_free(f->end);
    f->end = NULL;
    f->type = K_LISTENER;
    f->backlog = backlog < 1 ? 1 : backlog > K_BACKLOG ? K_BACKLOG : backlog;
    k_trace("listen", fd, f->port);
    return 0;
}

/* A connection arrives at a listener: its client's end `c`. 0, or -1 if nobody listens, 1 if the backlog is full. */
K_FN int k_arrive(int port, k_end *c, uint32_t cap) {
    k_file *f = k_listener(port);
    if (!f) return -1;
    if (f->nqueue >= f->backlog) return 1;
    f->queue[f->nqueue] = k_end_new(cap);
    k_link(f->queue[f->nqueue], c);
    f->nqueue++;
    k_wake(f, EPOLLIN);
    return 0;
}

K_FN int k_accept_error(k_file *f) {
    if (k_room() < 0 || k_chance(sim.faults.accept_full)) {
        sim.stats.accept_full++;
        if (sim.now >= f->full_until) f->full = 0;
        if (!f->full++) f->full_until = sim.now + 10000000;
        if (sim.thrifty && f->full > 10 && !sim.stats.enomem)
            k_fail("busy loop", "accept on fd %d eleven times in 10 ms: no number was free, and no event has come",
                   f->fd);
        return k_room() < 0 ? EMFILE : k_below(2) ? EMFILE : ENFILE;
    }
    if (f->nqueue == 0) {
        sim.stats.accept_again++;
        return EAGAIN;
    }
    if (k_chance(sim.faults.accept_abort)) { /* the client gave up while it was queued */
        k_end *e = f->queue[0];
        memmove(f->queue, f->queue + 1, (size_t)--f->nqueue * sizeof f->queue[0]);
        if (e->peer) {
            e->peer->blamed = 1;
            k_reset(e->peer);
        }
        k_end_free(e);
        sim.stats.accept_aborts++;
        return ECONNABORTED;
    }
    return 0;
}

K_FN int k_accept(int fd) {
    k_file *f, *s;
    int e;
    k_point();
    f = k_get(fd, "accept");
    if (!f) return -1;
    if (f->type != K_LISTENER || f->down) return errno = EINVAL, -1;
    if (!f->nonblock && !f->nqueue) k_fail("blocking fd", "accept on fd %d, which would block", fd);
    e = k_accept_error(f);
    k_trace("accept", fd, e);
    if (e) return errno = e, -1;
    s = k_open_fd(K_SOCKET);
    s->end = f->queue[0];
    s->end->file = s;
    s->nonblock = 1;
    memmove(f->queue, f->queue + 1, (size_t)--f->nqueue * sizeof f->queue[0]);
    sim.stats.accepts++;
    sim.progress++;
    return s->fd;
}

/* The answer to a connect, if it is still the same attempt: the number, even the address, may be another one's by now. */
K_FN void k_connected(void *arg, uint64_t serial_and_fd) {
    const uint64_t fd = serial_and_fd % K_FDS;
    const k_file *f = sim.file[fd];
    k_end *e = f ? f->end : NULL;
    int r;
    (void)arg;
    if (!e || e->serial != serial_and_fd / K_FDS || e->state != K_CONNECTING) return;
    r = k_arrive(e->port, e, e->rx.cap);
    if (r > 0) { /* a full backlog drops it; the client tries again */
        k_at(1000000, k_connected, NULL, serial_and_fd);
        return;
    }
    k_trace("connected", (int64_t)fd, r);
    if (r < 0) {
        e->state = K_DOWN;
        e->rd_shut = e->wr_shut = 1;
        e->err = ECONNREFUSED;
        sim.stats.refused++;
    }
    e->nospace = 0;
    k_changed(e, 0);
}

K_FN int k_connect(int fd, const struct sockaddr *addr) {
    k_file *f;
    k_end *e;
    int err;
    k_point();
    f = k_get(fd, "connect");
    if (!f) return -1;
    if (f->type != K_SOCKET) return errno = EINVAL, -1;
    if (!f->nonblock) k_fail("blocking fd", "connect on fd %d, which would block", fd);
    e = f->end;
    k_trace("connect", fd, e->state);
    if (e->state == K_FRESH) {
        e->state = K_CONNECTING;
        e->connecting = 1;
        e->port = k_port(addr);
        sim.stats.connects++;
        k_at(k_range(1000, 200000), k_connected, NULL, e->serial * K_FDS + (uint64_t)fd);
        return errno = EINPROGRESS, -1;
    }
    if (e->state == K_CONNECTING) return errno = EALREADY, -1;
    if (!e->connecting) return errno = EISCONN, -1;
    e->connecting = 0;
    if (e->state == K_UP) return 0;
    err = e->err ? e->err : ECONNABORTED;
    e->err = 0;
    return errno = err, -1;
}

K_FN int k_getsockopt(int fd, int name, int *value) {
    k_file *f = k_get(fd, "getsockopt");
    if (!f) return -1;
    if (f->type != K_SOCKET && f->type != K_LISTENER) return errno = ENOTSOCK, -1;
    *value = 0;
    if (name == SO_ERROR && f->end) {
        *value = f->end->err;
        f->end->err = 0;
    } else if (name == SO_TYPE) {
        *value = f->end && f->end->nmessages >= 0 ? SOCK_SEQPACKET : SOCK_STREAM;
    } else if (name == SO_PROTOCOL) {
        *value = f->end && (f->end->nmessages >= 0 || f->end->marked) ? 0 : IPPROTO_TCP;
    } else if (name == SO_ACCEPTCONN) {
        *value = f->type == K_LISTENER;
    }
    return 0;
}

K_FN int k_setsockopt(int fd) {
    k_file *f = k_get(fd, "setsockopt");
    if (!f) return -1;
    return f->type == K_SOCKET || f->type == K_LISTENER ? 0 : (errno = ENOTSOCK, -1);
}

K_FN int k_nonblock(int fd) {
    k_file *f = k_get(fd, "fcntl");
    if (!f) return -1;
    f->nonblock = 1;
    return 0;
}

K_FN void k_listener_down(k_file *f) {
    int i;
    for (i = 0; i < f->nqueue; i++) {
        if (f->queue[i]->peer) {
            f->queue[i]->peer->blamed = 1;
            k_reset(f->queue[i]->peer);
        }
        k_end_free(f->queue[i]);
    }
    f->nqueue = 0;
    f->down = 1;
}

K_FN int k_shutdown(int fd) {
    k_file *f;
    k_end *e;
    k_point();
    f = k_get(fd, "shutdown");
    if (!f) return -1;
    k_trace("shutdown", fd, 0);
    sim.stats.shutdowns++;
    if (f->type == K_LISTENER) {
        k_listener_down(f);
        k_wake(f, 0);
        return 0;
    }
    if (f->type != K_SOCKET) return errno = ENOTSOCK, -1;
    e = f->end;
    if (e->state != K_UP && e->state != K_CONNECTING) return errno = ENOTCONN, -1;
    if (e->state == K_CONNECTING) e->state = K_DOWN;
    k_fin(e);
    e->wr_shut = e->rd_shut = 1;
    k_changed(e, 0);
    return 0;
}

K_FN void k_drop_epoll(k_file *ep) {
    while (1) {
        int i = 0;
        while (i < sim.nall && sim.all[i]->item.epoll != ep) i++;
        if (i == sim.nall) break;
        k_unregister(sim.all[i]);
    }
    free(ep->ready);
}

K_FN int k_close(int fd) {
    k_file *f;
    k_point();
    f = k_get(fd, "close");
    if (!f) return -1;
    if (f->pins) k_fail("close in flight", "close of fd %d with %d operations in flight", fd, f->pins);
    k_trace("close", fd, f->type);
    sim.stats.closes++;
    sim.progress++;
    k_unregister(f);
    if (f->type == K_EPOLL) k_drop_epoll(f);
    if (f->type == K_LISTENER) k_listener_down(f);
    if (f->end) {
        if (f->end->peer && !f->registered) f->end->peer->blamed = 1; /* accepted, and could not be attached */
        f->end->file = NULL;
        k_end_free(f->end);
    }
    sim.file[fd] = NULL;
    sim.open--;
    if (fd < sim.lowest) sim.lowest = fd;
    free(f);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>files                                                                                                          */

K_FN k_inode *k_file_add(const char *name, uint64_t size, uint64_t seed) {
    k_inode *i = &sim.inode[sim.ninodes++];
    snprintf(i->name, sizeof i->name, "%s", name);
    i->size = size;
    i->seed = seed;
    i->cached = size;
    i->name_cached = 1;
    return i;
}

K_FN k_inode *k_lookup(const char *path) {
    int i;
    for (i = 0; i < sim.ninodes; i++)
        if (strcmp(sim.inode[i].name, path) == 0) return &sim.inode[i];
    errno = ENOENT;
    return NULL;
}

K_FN int k_openat(const char *path, int flags) {
    k_inode *inode = k_lookup(path);
    k_file *f;
    if (!inode) return -1;
    sim.stats.opens++;
    if (inode->fifo && !(flags & O_NONBLOCK) && !sim.on_worker && !k_is_worker())
        k_fail("blocking call", "the loop's thread opens the FIFO %s, which would block", path);
    f = k_chance(sim.faults.open_full) ? NULL : k_open_fd(K_REGULAR);
    if (!f) {
        sim.stats.open_full++;
        return errno = EMFILE, -1;
    }
    f->inode = inode;
    f->nonblock = (flags & O_NONBLOCK) != 0;
    inode->name_cached = 1; /* now it is */
    k_trace("open", f->fd, (int64_t)inode->size);
    return f->fd;
}

K_FN int k_blocking(int fd) {
    k_file *f = k_get(fd, "fcntl");
    if (!f) return -1;
    f->nonblock = 0;
    return 0;
}

/* openat2; the flags of `resolve` as in linux/openat2.h: 0x08 beneath, 0x20 cached */
K_FN int k_openat2(const char *path, int flags, uint64_t resolve) {
    k_inode *inode;
    k_point();
    if (sim.faults.no_openat2) {
        sim.stats.old_kernel++;
        return errno = ENOSYS, -1;
    }
    if ((resolve & 0x08) && (path[0] == '/' || strstr(path, ".."))) return errno = EXDEV, -1;
    inode = k_lookup(path);
    if ((resolve & 0x20) && (!inode || !inode->name_cached)) {
        sim.stats.cold++;
        return errno = EAGAIN, -1;
    }
    sim.stats.hot += (resolve & 0x20) != 0;
    return k_openat(path, flags);
}

K_FN int k_fill_stat(const k_inode *inode, struct stat *st) {
    memset(st, 0, sizeof *st);
    st->st_mode = inode->fifo ? S_IFIFO | 0600 : S_IFREG | 0644;
    st->st_size = (off_t)inode->size;
    st->st_nlink = 1;
    return 0;
}

K_FN int k_fstat(int fd, struct stat *st) {
    k_file *f = k_get(fd, "fstat");
    if (!f) return -1;
    sim.stats.stats++;
    if (f->inode) return k_fill_stat(f->inode, st);
    memset(st, 0, sizeof *st);
    st->st_mode = f->type == K_SOCKET || f->type == K_LISTENER ? S_IFSOCK | 0777 : S_IFIFO | 0600;
    return 0;
}

K_FN int k_fstatat(const char *path, struct stat *st) {
    const k_inode *inode = k_lookup(path);
    sim.stats.stats++;
    return inode ? k_fill_stat(inode, st) : -1;
}

K_FN ssize_t k_pread(int fd, void *buf, size_t n, int64_t offset, int cached_only) {
    k_file *f;
    unsigned char *out = (unsigned char *)buf;
    uint64_t at = (uint64_t)offset, end;
    k_point();
    if (!cached_only && k_is_worker()) k_compute(k_range(100, 50000)); /* the disk */
    f = k_get(fd, "pread");
    if (!f) return -1;
    sim.stats.preads++;
    if (!f->inode || offset < 0) return errno = f->inode ? EINVAL : ESPIPE, -1;
    if (cached_only && sim.faults.no_nowait) {
        sim.stats.old_kernel++;
        return errno = EOPNOTSUPP, -1;
    }
    end = f->inode->size;
    if (cached_only && at < end) {
        if (at >= f->inode->cached) {
            sim.stats.cold++;
            return errno = EAGAIN, -1;
        }
        end = f->inode->cached;
        sim.stats.hot++;
    } else if (!cached_only) {
        f->inode->cached = f->inode->size;
    }
    if (at >= end) return 0;
    if (n > end - at) n = (size_t)(end - at);
    if (!cached_only && n > 1 && k_chance(sim.faults.short_read)) n = 1 + k_below((uint32_t)n - 1);
    for (end = at + n; at < end; at++) *out++ = k_byte(f->inode->seed, at);
    k_trace("pread", fd, (int64_t)n);
    return (ssize_t)n;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>seam                                                                                                           */

/* On a worker: what it looks at, takes out of a word that it shares with the loop, and puts in. */
K_FN void k_before_load(const void *word) {
    if (sim.loads && k_is_worker()) sim.loads(word);
}
K_FN void k_before_exchange(const void *word, uintptr_t old) {
    if (sim.exchanges && k_is_worker()) sim.exchanges(word, old);
}
K_FN void k_before_swap(const void *word, int will, uintptr_t value) {
    if (!will || !k_is_worker()) return;
    if (sim.swaps) sim.swaps(word, value);
    if (k_chance(sim.faults.thread_stick)) sim.thread[sim.self].stall_in = 1 + (int)k_below(4);
}

#define OL_SYS_MALLOC(n) k_malloc(n)
#define OL_SYS_REALLOC(p, n) k_realloc((p), (n))
#define OL_SYS_FREE(p) k_free(p)
#define OL_SYS_NOW() k_clock()
#define OL_SYS_PIECE sim.piece
#define OL_SYS_EPOLL_CREATE() k_epoll_create()
#define OL_SYS_EPOLL_CTL(ep, op, fd, event) k_epoll_ctl((ep), (op), (fd), (event))
#define OL_SYS_EPOLL_WAIT(ep, events, n, timeout_ns) k_epoll_wait((ep), (events), (n), (timeout_ns))
#define OL_SYS_EVENTFD() k_eventfd()
#define OL_SYS_READ(fd, buf, n) k_read((fd), (buf), (n))
#define OL_SYS_WRITE(fd, buf, n) k_write((fd), (buf), (n))
#define OL_SYS_READV(fd, iov, n) k_readv((fd), (iov), (n))
#define OL_SYS_WRITEV(fd, iov, n) k_writev((fd), (iov), (n))
#define OL_SYS_SEND(fd, buf, n) k_send_fd((fd), (buf), (n))
#define OL_SYS_SENDV(fd, iov, n) k_sendv((fd), (iov), (n))
#define OL_SYS_ACCEPT(fd) k_accept(fd)
#define OL_SYS_CONNECT(fd, addr, len) ((void)(len), k_connect((fd), (addr)))
#define OL_SYS_SOCKET(domain, type, protocol) k_socket((domain), (type), (protocol))
#define OL_SYS_BIND(fd, addr, len) ((void)(len), k_bind((fd), (addr)))
#define OL_SYS_LISTEN(fd, backlog) k_listen((fd), (backlog))
#define OL_SYS_SHUTDOWN(fd) k_shutdown(fd)
#define OL_SYS_CLOSE(fd) k_close(fd)
#define OL_SYS_GETSOCKOPT(fd, name, value) k_getsockopt((fd), (name), (value))
#define OL_SYS_SETSOCKOPT(fd, name, value) ((void)(value), k_setsockopt(fd))
#define OL_SYS_NONBLOCK(fd) k_nonblock(fd)
#define OL_SYS_FSTAT(fd, st) k_fstat((fd), (st))
#define OL_SYS_FSTATAT(fd, path, st) ((void)(fd), k_fstatat((path), (st)))
#define OL_SYS_PREAD(fd, buf, n, offset) k_pread((fd), (buf), (n), (offset), 0)
#define OL_SYS_PREAD_CACHED(fd, buf, n, offset) k_pread((fd), (buf), (n), (offset), 1)
#define OL_SYS_OPEN(dir, path, flags, mode) ((void)(dir), (void)(mode), k_openat((path), (flags)))
#define OL_SYS_OPEN2(dir, path, flags, mode, resolve) ((void)(dir), (void)(mode), k_openat2((path), (flags), (resolve)))
#define OL_SYS_BLOCK(fd) k_blocking(fd)
#define OL__RESOLVE_BENEATH 0x08
#define OL__RESOLVE_CACHED 0x20
#define OL_SYS_TIMERFD() k_timerfd()
#define OL_SYS_TIMERFD_SET(fd, ns) k_timerfd_set((fd), (ns))
#define OL_SYS_AT_FORK(fn) k_at_fork(fn)
#define OL_SYS_THREAD int
#define OL_SYS_THREAD_START(thread, fn, arg) k_thread_start((thread), (fn), (arg))
#define OL_SYS_THREAD_JOIN(thread) k_thread_join(thread)
#define OL_SYS_FUTEX_WAIT(word, value) k_futex_wait((word), (value))
#define OL_SYS_FUTEX_WAKE(word, n) k_futex_wake((word), (n))
#define OL_SYS_MUTEX int
#define OL_SYS_MUTEX_INIT 0
#define OL_SYS_MUTEX_LOCK(m) k_lock(m)
#define OL_SYS_MUTEX_UNLOCK(m) k_unlock(m)
#define OL_SYS_NAP() k_nap()
#define OL_SYS_CPUS() (sim.cpus)
#define OL_SYS_SCHED_IDLE() k_point()
#define OL_SYS_PAUSE() k_pause()
#define OL_SYS_ATOMIC(T) T
#define OL_SYS_RELAXED __ATOMIC_RELAXED
#define OL_SYS_ACQUIRE __ATOMIC_ACQUIRE
#define OL_SYS_RELEASE __ATOMIC_RELEASE
#define OL_SYS_ACQ_REL __ATOMIC_ACQ_REL
#define OL_SYS_SEQ_CST __ATOMIC_SEQ_CST
#define OL_SYS_LOAD(p, order) (k_point(), k_before_load(p), __atomic_load_n((p), (order)))
#define OL_SYS_STORE(p, value, order) (k_point(), __atomic_store_n((p), (value), (order)))
#define OL_SYS_XCHG(p, value, order)                                                                                   \
    (k_point(), k_before_exchange((p), (uintptr_t) * (p)), __atomic_exchange_n((p), (value), (order)))
#define OL_SYS_ADD(p, value, order) (k_point(), __atomic_fetch_add((p), (value), (order)))
#define OL_SYS_CAS(p, expected, value, order)                                                                          \
    (k_point(), k_before_swap((p), *(p) == *(expected), (uintptr_t)(value)),                                           \
     __atomic_compare_exchange_n((p), (expected), (value), 0, (order), OL_SYS_RELAXED))

/* ---------------------------------------------------------------------------------------------------------------- */
/* Start and end                                                                                                    */

K_FN void k_boot(uint64_t seed) {
    uint64_t x = seed;
    int i;
    memset(&sim, 0, offsetof(k_kernel, on_fail));
    for (i = 0; i < 4; i++) sim.rng[i] = k_splitmix(&x);
    sim.now = 1000000000;
    sim.tick = 30;
    sim.piece = 1 << 30;
    sim.fd_limit = 1024;
    sim.lowest = K_FIRST_FD;
    sim.blocks.next = sim.blocks.prev = &sim.blocks;
    sim.freed.next = sim.freed.prev = &sim.freed;
    sim.thread[0].state = K_T_RUNS;
    sim.nthreads = 1;
    sim.cpus = 2;
    sim.barren_max = 20000;
    sim.waits_max = 1000000;
    sim.hash = 0xcbf29ce484222325u;
}

/* The same with a fuzzer's bytes for the first choices; they must stay where they are. */
K_FN void k_boot_bytes(const void *data, size_t len) {
    k_boot(1);
    sim.input = (const unsigned char *)data;
    sim.ninput = len;
}

/* Frees all that is left, whatever state it is in. Threads that have not ended are forgotten. */
K_FN void k_halt(void) {
    int fd;
    k_threads_vanish();
    sim.loads = NULL;
    sim.exchanges = NULL;
    sim.swaps = NULL;
    for (fd = K_FIRST_FD; fd < K_FDS && sim.open; fd++) {
        if (!sim.file[fd]) continue;
        free(sim.file[fd]->ready);
        free(sim.file[fd]);
        sim.file[fd] = NULL;
        sim.open--;
    }
    while (sim.ends) k_end_release(sim.ends);
    while (sim.blocks.next && sim.blocks.next != &sim.blocks) k_bury(sim.blocks.next);
    (void)k_release_freed();
    free(sim.heap);
    free(sim.all);
    sim.heap = NULL;
    sim.all = NULL;
    sim.nheap = sim.heap_cap = sim.nall = sim.all_cap = 0;
}

/* What the library still holds; a test calls it when it has closed its own fds. */
K_FN void k_check_leaks(void) {
    int fd;
    if (k_release_freed()) k_fail("memory", "a block was written to after it was freed");
    if (sim.nowned) k_fail("test", "%lld blocks of the test's own are left", (long long)sim.nowned);
    if (sim.nthreads > 1) k_fail("leak", "a thread was not joined");
    if (sim.nblocks)
        k_fail("leak", "%lld blocks, %lld bytes were not freed", (long long)sim.nblocks, (long long)sim.bytes);
    for (fd = K_FIRST_FD; fd < K_FDS && sim.open; fd++)
        if (sim.file[fd]) k_fail("leak", "fd %d (kind %d) was not closed", fd, sim.file[fd]->type);
}

#endif
