/* seam.h: offload.h on a model checker for the C11 memory model.

   Include it before offload.h with OFFLOAD_IMPLEMENTATION, compile with -fsanitize=thread, and link with engine.cc in
   place of ThreadSanitizer's runtime. The shipped lines then run unmodified on Relacy's threads and memory:

     atomics       OL_SYS_LOAD and its like call the engine, which keeps each word's recent values. A load may return an
                   older one wherever the memory orders allow that.
     plain data    the compiler calls the engine before each plain access to memory. One that is not ordered with a
                   conflicting one of another thread is a data race, whatever the schedule. Nothing has to be declared.
     memory        an access before the allocation is known to the thread, after the free, or outside any block fails.
     the outside   threads, futexes, mutexes, epoll and eventfds are the engine's. A wait without an end is a deadlock.
                   Neither futexes nor eventfds order memory here: the kernel does not promise it.

   Each use of an atomic macro is a site: the linker collects them in a table, so that the engine can list them, and
   weaken one at a time, without another build and without a list that someone would have to keep. */
#ifndef MODEL_SEAM_H
#define MODEL_SEAM_H

#include <stdint.h>
#include <stddef.h>
#include <sys/epoll.h>

enum model_kind { MODEL_LOAD, MODEL_STORE, MODEL_XCHG, MODEL_ADD, MODEL_CAS };
enum model_order {
    MODEL_RELAXED,
    MODEL_ACQUIRE,
    MODEL_RELEASE,
    MODEL_ACQ_REL,
    MODEL_SEQ_CST,
    MODEL_SPLIT /* what changes a word is done in two steps, a load and a store, of the source's order */
};

struct model_site {
    const char *file, *function, *word; /* where, and on what */
    int line;
    enum model_kind kind;
    enum model_order order; /* as the source has it */
    enum model_order now;   /* as it is to be taken */
    unsigned index;         /* its place in the engine's table, which is by line */
};

/* A model: threads that run on the engine. Threads that the library starts are extra, up to `workers`. */
struct model {
    const char *name, *about;
    int threads, workers;
    void (*begin)(void);       /* before the threads; sequential */
    void (*thread)(int index); /* one call for each, concurrent */
    void (*end)(void);         /* after them; sequential. NULL: nothing. All memory must be free then */
};

#if defined(__cplusplus)
extern "C" {
#endif

extern const struct model model_all[];
extern const int model_count;

uint64_t model_load(const volatile void *word, size_t size, const struct model_site *site);
void model_store(volatile void *word, size_t size, uint64_t value, const struct model_site *site);
uint64_t model_xchg(volatile void *word, size_t size, uint64_t value, const struct model_site *site);
uint64_t model_add(volatile void *word, size_t size, uint64_t value, const struct model_site *site);
int model_cas(volatile void *word, size_t size, void *expected, uint64_t value, const struct model_site *site);

void *model_malloc(size_t size);
void *model_realloc(void *block, size_t size);
void model_free(void *block);

int64_t model_now(void);
int model_epoll_create(void);
int model_epoll_ctl(int ep, int what, int fd, struct epoll_event *event);
int model_epoll_wait(int ep, struct epoll_event *events, int64_t timeout_ns);
int model_eventfd(void);
int model_timerfd(void);
int model_timerfd_set(int fd, int64_t ns);
void model_poll(int ep); /* waits until the epoll fd is readable, and leaves it so */
int64_t model_write(int fd);
int64_t model_read(int fd, void *value);
int model_close(int fd);
int model_unused(const char *call); /* a call that no model makes: fails */

int model_thread_start(void **thread, void *(*fn)(void *), void *arg);
void model_thread_join(void *thread);
void model_futex_wait(volatile void *word, uint32_t value);
void model_futex_wake(volatile void *word, int n);
void model_lock(void *mutex);
void model_unlock(void *mutex);
void model_yield(void);

void model_fail(const char *text); /* this schedule breaks a promise; does not return */
unsigned model_choose(unsigned n); /* 0..n-1, by the schedule */
int model_self(void);              /* number of the running thread */

#if defined(__cplusplus)
}
#endif

/* ---- the macros of the seam ------------------------------------------------------------------------------------- */

#if !defined(__cplusplus)

#define OL_SYS_MALLOC(n) model_malloc(n)
#define OL_SYS_REALLOC(p, n) model_realloc((p), (n))
#define OL_SYS_FREE(p) model_free(p)

#define OL_SYS_NOW() model_now()

#define OL_SYS_EPOLL_CREATE() model_epoll_create()
#define OL_SYS_EPOLL_CTL(ep, op, fd, event) model_epoll_ctl((ep), (op), (fd), (event))
#define OL_SYS_EPOLL_WAIT(ep, events, n, timeout_ns) ((void)(n), model_epoll_wait((ep), (events), (timeout_ns)))
#define OL_SYS_EVENTFD() model_eventfd()
#define OL_SYS_TIMERFD() model_timerfd()
#define OL_SYS_TIMERFD_SET(fd, ns) model_timerfd_set((fd), (ns))

#define OL_SYS_READ(fd, buf, n) ((void)(n), model_read((fd), (buf)))
#define OL_SYS_WRITE(fd, buf, n) ((void)(buf), (void)(n), model_write(fd))
#define OL_SYS_READV(fd, iov, n) ((void)(fd), (void)(iov), (void)(n), model_unused("readv"))
#define OL_SYS_WRITEV(fd, iov, n) ((void)(fd), (void)(iov), (void)(n), model_unused("writev"))
#define OL_SYS_SEND(fd, buf, n) ((void)(fd), (void)(buf), (void)(n), model_unused("send"))
#define OL_SYS_SENDV(fd, iov, n) ((void)(fd), (void)(iov), (void)(n), model_unused("sendmsg"))
#define OL_SYS_ACCEPT(fd) ((void)(fd), model_unused("accept"))
#define OL_SYS_CONNECT(fd, addr, len) ((void)(fd), (void)(addr), (void)(len), model_unused("connect"))
#define OL_SYS_SOCKET(domain, type, protocol) ((void)(domain), (void)(type), (void)(protocol), model_unused("socket"))
#define OL_SYS_BIND(fd, addr, len) ((void)(fd), (void)(addr), (void)(len), model_unused("bind"))
#define OL_SYS_LISTEN(fd, backlog) ((void)(fd), (void)(backlog), model_unused("listen"))
#define OL_SYS_SHUTDOWN(fd) ((void)(fd), model_unused("shutdown"))
#define OL_SYS_CLOSE(fd) model_close(fd)
#define OL_SYS_GETSOCKOPT(fd, name, value) ((void)(fd), (void)(value), -1) /* no sockets here */
#define OL_SYS_SETSOCKOPT(fd, name, value) ((void)(fd), (void)(value), model_unused("setsockopt"))
#define OL_SYS_NONBLOCK(fd) ((void)(fd), model_unused("fcntl"))

#define OL_SYS_THREAD void *
#define OL_SYS_THREAD_START(thread, fn, arg) model_thread_start((thread), (fn), (arg))
#define OL_SYS_THREAD_JOIN(thread) model_thread_join(thread)
#define OL_SYS_FUTEX_WAIT(word, value) model_futex_wait((word), (value))
#define OL_SYS_FUTEX_WAKE(word, n) model_futex_wake((word), (n))
#define OL_SYS_MUTEX uint64_t /* never looked at: its address is its name */
#define OL_SYS_MUTEX_INIT 0
#define OL_SYS_MUTEX_LOCK(m) model_lock(m)
#define OL_SYS_MUTEX_UNLOCK(m) model_unlock(m)
#define OL_SYS_CPUS() 2
#define OL_SYS_SCHED_IDLE() ((void)0)
#define OL_SYS_AT_FORK(fn) ((void)(fn), 0) /* models call it themselves */
#define OL_SYS_NAP() model_yield()
#define OL_SYS_PAUSE() model_yield()

#define OL_SYS_ATOMIC(T) T
#define OL_SYS_RELAXED MODEL_RELAXED
#define OL_SYS_ACQUIRE MODEL_ACQUIRE
#define OL_SYS_RELEASE MODEL_RELEASE
#define OL_SYS_ACQ_REL MODEL_ACQ_REL
#define OL_SYS_SEQ_CST MODEL_SEQ_CST

#define MODEL_SITE(kind, p, order)                                                                                     \
    static struct model_site model_site = {__FILE__, __func__, #p, __LINE__, kind, order, order, ~0u};                 \
    static struct model_site *const model_ref __attribute__((section("model_sites"), used)) = &model_site;             \
    (void)model_ref

#define OL_SYS_LOAD(p, order)                                                                                          \
    __extension__({                                                                                                    \
        MODEL_SITE(MODEL_LOAD, p, order);                                                                              \
        (__typeof__(*(p)))model_load((p), sizeof *(p), &model_site);                                                   \
    })
#define OL_SYS_STORE(p, value, order)                                                                                  \
    __extension__({                                                                                                    \
        MODEL_SITE(MODEL_STORE, p, order);                                                                             \
        model_store((p), sizeof *(p), (uint64_t)(__typeof__(*(p)))(value), &model_site);                               \
    })
#define OL_SYS_XCHG(p, value, order)                                                                                   \
    __extension__({                                                                                                    \
        MODEL_SITE(MODEL_XCHG, p, order);                                                                              \
        (__typeof__(*(p)))model_xchg((p), sizeof *(p), (uint64_t)(__typeof__(*(p)))(value), &model_site);              \
    })
#define OL_SYS_ADD(p, value, order)                                                                                    \
    __extension__({                                                                                                    \
        MODEL_SITE(MODEL_ADD, p, order);                                                                               \
        (__typeof__(*(p)))model_add((p), sizeof *(p), (uint64_t)(value), &model_site);                                 \
    })
#define OL_SYS_CAS(p, expected, value, order)                                                                          \
    __extension__({                                                                                                    \
        MODEL_SITE(MODEL_CAS, p, order);                                                                               \
        model_cas((p), sizeof *(p), (expected), (uint64_t)(__typeof__(*(p)))(value), &model_site);                     \
    })

#endif /* C */
#endif
