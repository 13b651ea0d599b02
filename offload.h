/* offload.h - v0.1.0 - coroutines, an event loop and a policy for servers that hand heavy work away
   MIT license, at the end of this file.

   Do this:
       #define OFFLOAD_IMPLEMENTATION
       #include "offload.h"
   in exactly one C or C++ file, and only the #include in every other. Compile with -D_GNU_SOURCE -pthread.

   A whole program: it echoes what each of its clients sends.

       struct conn { ol_co co; ol_fd fd; int64_t n; char buf[4096]; };

       static void echo(ol_co *co) {                           // one coroutine for each connection
           struct conn *c = OL_SELF(co, struct conn, co);      // locals die at an await: state lives here
           OL_BEGIN(co);
           for (;;) {
               OL_AWAIT(c->n, ol_read(co, c->fd, c->buf, sizeof c->buf));
               if (c->n <= 0) break;
               OL_AWAIT(c->n, ol_write(co, c->fd, c->buf, (size_t)c->n));
               if (c->n < 0) break;
           }
           ol_close(co->loop, c->fd);
           OL_END_THEN(co, free(c));
       }

   and the same with the bytes compressed on another core, while this one goes on with other connections:

           OL_AWAIT(c->n, ol_run(co, ol_prep_deflate(&c->op, OL_GZIP, c->out, sizeof c->out, c->in, c->len)));

   CONTENTS (search for the tag)
       >>manual     model, ways in, rules, sharing, threads, forks, ownership, callbacks, errors, build macros, costs
       >>config     OL_API, versions, constants
       >>status     errors and their texts
       >>co         coroutines: frames, OL_BEGIN, OL_AWAIT, OL_CALL, OL_END; children, joins, locks
       >>loop       the loop, timers, posts
       >>io         fds, sockets, handlers, guests, files
       >>op         operations: deflate, inflate, crc32, call
       >>policy     the table that decides where an operation runs
       >>backend    the vtable behind which work is done; the thread pool; the emulated device
     and under OFFLOAD_IMPLEMENTATION
       >>sys        the seam: every contact with the outside, replaceable by macros
       >>memory >>list >>ring >>clock >>timers >>coroutine >>epoll >>partition >>gate >>roots >>lock >>fds >>guest
       >>io:impl >>backend:isal >>files >>backend:software >>policy:impl >>stats >>op:impl >>backend:threads
       >>backend:emulated >>loop:impl >>entry

   ---------------------------------------------------------------------------------------------------------------
   >>manual

   MODEL
     coroutine   a function `void f(ol_co *)` that runs until it must wait, returns, and is called again when it can
                 go on. Its state is a struct of yours with an ol_co inside. It has no stack and allocates nothing.
     partition   the unit of conflict. Each fd has one, until ol_join makes two into one. A root coroutine holds its
                 partition from its start to its end, whatever it awaits; a callback while it runs, and for as long as
                 an operation that it submitted is out. Meanwhile nothing else of that partition starts: it waits its
                 turn, first come, first served, and costs no system call. Other partitions go on.
     operation   heavy work described by an ol_op of yours: compress, checksum, call a function.
     policy      a table that decides for each operation whether it runs on the spot or on a backend, by its kind, its
                 class (latency-critical or batch) and its size. Every operation says where it ran and why.
     backend     something that runs operations: the built-in thread pool, an emulated device to try things out, or your
                 own behind the same vtable.

   THREE WAYS IN, each of use without the next, and free to mix
     guest       your server keeps its own loop: it watches ol_loop_fd, calls ol_loop_step, and asks ol_gate_enter
                 before it handles an event of an fd that may have an operation out (examples/guest.c).
     handlers    our loop, a callback for each fd: ol_watch, ol_try_read, ol_submit (examples/handlers.c).
     coroutines  straight-line code: ol_spawn, ol_read, ol_run (examples/echo.c, examples/gzip_server.c).

   RULES OF COROUTINES
     1. Locals die at an await. Keep state in the struct; declare locals without initialisers before OL_BEGIN, or in
        blocks that contain no await.
     2. The expression inside an I/O await (read, write, accept, connect) is evaluated again each time the fd becomes
        ready. Its arguments must be expressions over the struct, without side effects. An ol_run is evaluated once.
     3. An await is a statement. It must stand directly in the coroutine's function, not inside a switch of your own
        (a loop or an if is fine): an await inside a switch is trapped when it resumes.
     4. Leave a coroutine through OL_END or OL_RETURN, never by a bare return: that is trapped, too.
     5. At most one await a line.
     6. After the end the library doesn't touch the ol_co again: OL_END_THEN(co, free(c)) is the place to free it.

   SHARING
     Fds that share state    ol_join: one partition, held by one root at a time (examples/proxy.c).
     Full duplex             ol_fork: children of the root read and write at once; they share its hold.
     State across partitions ol_lock: a mutex that pauses the coroutine, not the thread. Without an await in between
                             there is nothing to lock: one coroutine runs at a time.
     What waits for what     joins, locks and children are waited for; a wait that would close a circle gives -EDEADLK
                             at once, and never otherwise.

   THREADS
     A loop and all that belongs to it is used by one thread, the one that runs it. ol_post and ol_notify_loop may be
     called from any thread and from signal handlers; all such calls must have returned before ol_loop_destroy (join the
     threads that make them first). ol_threads_create and ol_loop_create from any thread. Run one loop for each core,
     with SO_REUSEPORT listeners, and let them share a pool.

   FORKS
     A child of fork may go on with the loops of the thread that forked, or destroy them: at its next use a loop there
     makes new descriptors of its own and leaves the parent's alone. Operations in flight complete in the child with
     -ECANCELED (what an ol_open among them has opened stays open); the parent's go on. Worker threads start again with
     the next operation. A guest asks for ol_loop_fd again. Close in the child, by ol_close, what it doesn't need: as
     long as it has a connection, the parent's close of it neither ends it for the peer nor stops its events. A child
     that only calls exec has nothing to do: all descriptors of the library are close-on-exec.

   OWNERSHIP AND LIFE TIME
     These are yours, at stable addresses; the library uses them
       ol_co          from ol_spawn until its end.
       ol_child       from ol_fork until its end, and until ol_wait(child) has returned where somebody waits for it.
       frames of sub-coroutines   from OL_CALL until they end; they may share a union.
       ol_op, its buffers, dictionary and stream   from ol_run or ol_submit until the await returns or `done` is called,
                      without exception: not after a cancel, a deadline, a close or a fork either.
       ol_timer       from ol_timer_start until its function is called, or ol_timer_stop.
       ol_post_node   from ol_post until its function is called.
       ol_handler     from ol_watch until ol_unwatch, ol_close of its fd, or a handler in its place.
       ol_mutex       while somebody holds it or waits for it.
       iovecs, buffers of reads and writes   from the await's first evaluation until it returns.
       ol_backend     until the loops that have it are destroyed. Strings of a desc: until then, too.
     All of that ends at the latest when ol_loop_destroy has returned 0. An attached fd is closed by the library: at
     ol_close, or when the last operation of its partition is done, or by ol_loop_destroy.

   FROM INSIDE a coroutine or a callback, on the loop's thread
                  ol_close  ol_cancel  join         spawn, submit  again              free its own struct
     coroutine    any fd    any        ol_join      yes            -                  in OL_END_THEN
     child        any fd    any        ol_join      yes            -                  in OL_END_THEN, if nobody waits
     handler      any fd    any        ol_try_join  yes            while it is ready  after ol_close, ol_unwatch
     done         any fd    any        ol_try_join  yes            ol_submit          yes
     timer        any fd    any        ol_try_join  yes            ol_timer_start     yes
     post         any fd    any        ol_try_join  yes            ol_post            yes
     log          any fd    any        ol_try_join  yes            -                  -
     A root that is spawned on the caller's own partition starts when the caller's hold ends. ol_submit: see there for
     drains. ol_loop_stop is legal everywhere; ol_loop_step, ol_loop_run, ol_loop_drain, ol_loop_destroy and
     ol_gate_enter give -EBUSY. The function of an OL_OP_CALL runs on another thread, or in the call that submits it: of
     the library it may call ol_post and ol_notify_loop, and ol_op_exec with an ol_exec and an ol_op of its own.

   ERRORS
     Negative errno values. Text that names the remedy: ol_co_error after an await, ol_op_error for an operation,
     ol_error for the other calls. -ENOSPC output too small, -EBADMSG corrupt input, -EIO device fault, -ETIMEDOUT
     deadline passed, -EAGAIN full, -ECANCELED, -ENOTSUP not built in, -EINVAL, -EBUSY, -EXDEV another partition's fd,
     -EDEADLK a wait that could never end, -EBADF closed or stale fd. The library never prints and never exits. A broken
     internal invariant, or a coroutine that breaks rule 3 or 4, calls the panic hook (default: abort).

   BUILD MACROS, defined before the inclusion, the same in every file
     OFFLOAD_IMPLEMENTATION   in one file: the code
     OFFLOAD_STATIC           everything static; no external symbol
     OFFLOAD_NAMESPACE foo    the external symbols become foo_ol_...: several copies can live in one program
     OFFLOAD_ISAL             deflate and inflate by ISA-L, link with -lisal (Debian: libisal-dev); it also speeds up
                              crc32. Without it deflate and inflate answer -ENOTSUP.

   LIMITS AND COSTS (bench/ prints the costs on your machine)
     ol_frame 24 B, ol_co 64 B, ol_op 128 B; an idle connection costs a slot, a partition and an ol_co: <= 160 B.
     No allocation for an event or an operation once tables and codec contexts have grown to their size. A codec
     context (about 450 KB) belongs to a loop (one more for each class that is sliced) or a worker, never to a
     connection. A loop's statistics take about 120 KB. Of each operation only counters are kept; its times are taken
     of one in 64 (desc.sample), which costs two looks at the clock.
     An I/O await that can go on at once costs its system call; nothing is registered or unregistered for a wait.
*/
#ifndef OFFLOAD_H
#define OFFLOAD_H

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>config                                                                                                         */

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#define OL_VERSION_MAJOR 0
#define OL_VERSION_MINOR 1
#define OL_VERSION_PATCH 0

#if defined(OFFLOAD_STATIC)
#define OL_API static __attribute__((unused))
#elif defined(__cplusplus)
#define OL_API extern "C"
#else
#define OL_API extern
#endif

#define OL__MUST_USE __attribute__((warn_unused_result))

/* Names of external symbols. One line for each public function; with OFFLOAD_NAMESPACE each gets a prefix. */
#if defined(OFFLOAD_NAMESPACE)
#define OL__CAT2(a, b) a##_##b
#define OL__CAT(a, b) OL__CAT2(a, b)
#define OL__NAME(x) OL__CAT(OFFLOAD_NAMESPACE, x)
#define ol_version OL__NAME(ol_version)
#define ol_error OL__NAME(ol_error)
#define ol_co_error OL__NAME(ol_co_error)
#define ol_op_error OL__NAME(ol_op_error)
#define ol_set_panic OL__NAME(ol_set_panic)
#define ol__panic OL__NAME(ol__panic)
#define ol__trap_await OL__NAME(ol__trap_await)
#define ol_spawn OL__NAME(ol_spawn)
#define ol_cancel OL__NAME(ol_cancel)
#define ol_cancel_clear OL__NAME(ol_cancel_clear)
#define ol_canceled OL__NAME(ol_canceled)
#define ol_set_class OL__NAME(ol_set_class)
#define ol_deadline OL__NAME(ol_deadline)
#define ol_sleep OL__NAME(ol_sleep)
#define ol_fork OL__NAME(ol_fork)
#define ol_wait OL__NAME(ol_wait)
#define ol_join OL__NAME(ol_join)
#define ol_try_join OL__NAME(ol_try_join)
#define ol_lock OL__NAME(ol_lock)
#define ol_unlock OL__NAME(ol_unlock)
#define ol__root_end OL__NAME(ol__root_end)
#define ol__call OL__NAME(ol__call)
#define ol_loop_create OL__NAME(ol_loop_create)
#define ol_loop_destroy OL__NAME(ol_loop_destroy)
#define ol_loop_run OL__NAME(ol_loop_run)
#define ol_loop_step OL__NAME(ol_loop_step)
#define ol_loop_stop OL__NAME(ol_loop_stop)
#define ol_loop_drain OL__NAME(ol_loop_drain)
#define ol_loop_fd OL__NAME(ol_loop_fd)
#define ol_gate_enter OL__NAME(ol_gate_enter)
#define ol_gate_leave OL__NAME(ol_gate_leave)
#define ol_loop_desc_of OL__NAME(ol_loop_desc_of)
#define ol_loop_get_stats OL__NAME(ol_loop_get_stats)
#define ol_loop_get_cell OL__NAME(ol_loop_get_cell)
#define ol_loop_get_times OL__NAME(ol_loop_get_times)
#define ol_loop_dump OL__NAME(ol_loop_dump)
#define ol_histogram_add OL__NAME(ol_histogram_add)
#define ol_histogram_at OL__NAME(ol_histogram_at)
#define ol_now OL__NAME(ol_now)
#define ol_post OL__NAME(ol_post)
#define ol_timer_start OL__NAME(ol_timer_start)
#define ol_timer_stop OL__NAME(ol_timer_stop)
#define ol_attach OL__NAME(ol_attach)
#define ol_attach_guest OL__NAME(ol_attach_guest)
#define ol_watch OL__NAME(ol_watch)
#define ol_unwatch OL__NAME(ol_unwatch)
#define ol_try_read OL__NAME(ol_try_read)
#define ol_try_readv OL__NAME(ol_try_readv)
#define ol_try_write OL__NAME(ol_try_write)
#define ol_try_writev OL__NAME(ol_try_writev)
#define ol_try_accept OL__NAME(ol_try_accept)
#define ol_listen OL__NAME(ol_listen)
#define ol_socket OL__NAME(ol_socket)
#define ol_fd_raw OL__NAME(ol_fd_raw)
#define ol_close OL__NAME(ol_close)
#define ol_read OL__NAME(ol_read)
#define ol_readv OL__NAME(ol_readv)
#define ol_write OL__NAME(ol_write)
#define ol_writev OL__NAME(ol_writev)
#define ol_accept OL__NAME(ol_accept)
#define ol_connect OL__NAME(ol_connect)
#define ol_wait_readable OL__NAME(ol_wait_readable)
#define ol_wait_writable OL__NAME(ol_wait_writable)
#define ol_again OL__NAME(ol_again)
#define ol_open OL__NAME(ol_open)
#define ol_stat OL__NAME(ol_stat)
#define ol_pread OL__NAME(ol_pread)
#define ol_deflate_bound OL__NAME(ol_deflate_bound)
#define ol_prep_deflate OL__NAME(ol_prep_deflate)
#define ol_prep_deflate_chunk OL__NAME(ol_prep_deflate_chunk)
#define ol_prep_inflate OL__NAME(ol_prep_inflate)
#define ol_prep_inflate_chunk OL__NAME(ol_prep_inflate_chunk)
#define ol_prep_crc32 OL__NAME(ol_prep_crc32)
#define ol_prep_call OL__NAME(ol_prep_call)
#define ol_prep_steps OL__NAME(ol_prep_steps)
#define ol_run OL__NAME(ol_run)
#define ol_submit OL__NAME(ol_submit)
#define ol_op_cancel OL__NAME(ol_op_cancel)
#define ol_op_where OL__NAME(ol_op_where)
#define ol_op_why OL__NAME(ol_op_why)
#define ol_exec_create OL__NAME(ol_exec_create)
#define ol_exec_destroy OL__NAME(ol_exec_destroy)
#define ol_op_exec OL__NAME(ol_op_exec)
#define ol_policy_parse OL__NAME(ol_policy_parse)
#define ol_policy_print OL__NAME(ol_policy_print)
#define ol_loop_set_policy OL__NAME(ol_loop_set_policy)
#define ol_loop_get_policy OL__NAME(ol_loop_get_policy)
#define ol_notify_loop OL__NAME(ol_notify_loop)
#define ol_threads_create OL__NAME(ol_threads_create)
#define ol_threads_destroy OL__NAME(ol_threads_destroy)
#define ol_threads_get_stats OL__NAME(ol_threads_get_stats)
#define ol_emulated_create OL__NAME(ol_emulated_create)
#define ol_emulated_change OL__NAME(ol_emulated_change)
#define ol_emulated_destroy OL__NAME(ol_emulated_destroy)
#define ol_emulated_parse OL__NAME(ol_emulated_parse)
#endif

/* Class of a coroutine, an fd or an operation: the operation's, else the coroutine's, else the fd's, else batch. */
enum { OL_INHERIT = 0, OL_LATENCY = 1, OL_BATCH = 2 };

/* What an await function returns to OL_AWAIT; you don't see it. */
enum { OL__DONE = 0, OL__PENDING = 1 };

typedef struct ol_loop ol_loop;
typedef struct ol_co ol_co;
typedef struct ol_frame ol_frame;
typedef struct ol_op ol_op;
typedef struct ol_backend ol_backend;

/* A handle of an fd of a loop: its number and a generation, so that a stale one is recognised. 0 is never valid. */
typedef uint64_t ol_fd;

/* What queues hold is told apart by the low bits of its address. */
#define OL__ALIGNED __attribute__((aligned(8)))

/* Run-time version: MAJOR << 16 | MINOR << 8 | PATCH of the implementation that was linked. */
OL_API uint32_t ol_version(void);

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>status                                                                                                         */

/* The text for the last error that a call other than an await returned on this thread; names what to do. Never NULL,
   static storage. */
OL_API const char *ol_error(void);

/* The text for the last negative result that an await gave this coroutine. Never NULL, static storage. */
OL_API const char *ol_co_error(const ol_co *co);

/* The text for a completed operation's negative result. Never NULL, static storage. */
OL_API const char *ol_op_error(const ol_op *op);

/* Called with a text when an internal invariant is broken or a coroutine leaves without OL_END. It may log, dump or
   longjmp; if it returns, abort() follows. NULL: abort at once. Process-wide; set it before loops run. */
OL_API void ol_set_panic(void (*hook)(const char *text));

OL_API void ol__panic(const char *text);
OL_API void ol__trap_await(ol_co *co);

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>co                                                                                                             */

/* A frame: one in ol_co for the root, and one in your struct for each sub-coroutine that it calls. 24 bytes. */
struct ol_frame {
    uint32_t state;      /* 0 at the start, else the source line of the await where it waits */
    uint32_t bits;       /* root only: the coroutine's flags */
    void (*fn)(ol_co *); /* its function */
    ol_frame *up;        /* its caller, NULL in the root */
};

/* A coroutine. Embed it in a struct of yours; ol_spawn fills it. Members are read-only for you. 64 bytes. */
struct OL__ALIGNED ol_co {
    ol_frame frame;   /* the root's frame; must stay the first member */
    ol_frame *top;    /* innermost frame, resumed directly */
    ol_loop *loop;    /* the loop it runs on */
    union {
        uintptr_t next; /* queued: the next in the queue */
        ol_op *op;      /* waiting for this operation */
        ol_co *child;   /* waiting for this child, NULL all */
        ol_fd fd;       /* waiting for this fd */
    } link;
    int64_t result; /* result of the last await */
    uint32_t part;  /* its partition */
    uint32_t timer; /* its place in the loop's timer heap, 0 none */
};

/* A child: a coroutine that lives in the partition of the root that started it. 80 bytes. */
typedef struct ol_child {
    ol_co co;
    struct ol_child *next_, *prev_;
} ol_child;

typedef struct ol__queue {
    uintptr_t head, tail; /* no count: it would be two read-modify-writes on the path of a switch */
} ol__queue;

/* A lock for state that several partitions share. Embed it where that state is; zero it once. 48 bytes. */
typedef struct ol_mutex {
    ol_co *holder; /* NULL: free. Read-only for you */
    ol_loop *loop_;
    ol__queue waiting_;
    struct ol_mutex *next_, *prev_;
} ol_mutex;

/* The struct of type `type` that embeds, as `member`, the running coroutine (ol_co) or sub-coroutine (ol_frame). */
#define OL_SELF(co, type, member) ((type *)(void *)((char *)(co)->top - offsetof(type, member)))

/* The struct of type `type` that embeds *ptr as `member`: for ol_op, ol_timer, ol_post_node callbacks. */
#define OL_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

enum { /* ol_frame.state */
    OL__ENDING = 0x7ffffffe, /* at OL_END, waiting for its children */
    OL__RUNNING = 0x7fffffff
};
enum { /* ol_co.link of a coroutine that yields: it is neither a pointer nor a handle */
    OL__YIELD = 1
};
enum {                      /* ol_frame.bits of the root */
    OL__CO_CLASS = 0x3,     /* its class */
    OL__CO_DONE = 0x4,      /* the await's result is in co->result */
    OL__CO_RETRY = 0x8,     /* the fd may be ready: evaluate the await again */
    OL__CO_CANCELED = 0x10, /* ol_cancel was called */
    OL__CO_EXPIRED = 0x20,  /* its deadline has passed */
    OL__CO_CHILD = 0x40,    /* it is a child */
    OL__CO_ENDED = 0x80,    /* ... that has ended */
    OL__CO_SEEN = 0x1000,   /* mark of the search for deadlocks */
    OL__CO_RETURNED = 0x2000, /* ended by OL_RETURN, waiting for its children */
    OL__CO_AWAITED = 0x4000,  /* a child that another child waits for */
    OL__CO_IN_SLOT = 0x8000,  /* an fd's slot names it as the one that waits */
    OL__CO_LOCKS_SHIFT = 24,  /* 24..27: locks that it holds, 15: that many or more */
    OL__CO_WAIT_SHIFT = 8,  /* 8..11: what it waits for */
    OL__CO_ERR_SHIFT = 16,  /* 16..23: which text belongs to the last error */
    OL__CO_ERR_OWN = 1u << OL__CO_ERR_SHIFT /* ... its own: a negative result of OL_RETURN */
};

/* Opens the body of a coroutine. Declare locals above it, without initialisers that must survive an await. */
#define OL_BEGIN(co)                                                                                                   \
    {                                                                                                                  \
        ol_co *const ol__co = (co);                                                                                    \
        ol_frame *const ol__frame = ol__co->top;                                                                       \
        const uint32_t ol__state = ol__frame->state;                                                                   \
        ol__frame->state = OL__RUNNING;                                                                                \
        switch (ol__state) {                                                                                           \
        default: ol__trap_await(ol__co); return;                                                                       \
        case 0:

/* Waits for `await` (a call of ol_read, ol_run, ol_sleep, ...) and stores its int64_t result in `lhs`. */
#define OL_AWAIT(lhs, await)                                                                                           \
    do {                                                                                                               \
        OL_DO(await);                                                                                                  \
        (lhs) = ol__co->result;                                                                                        \
    } while (0)

/* The same for a result that you don't need. */
#define OL_DO(await)                                                                                                   \
    do {                                                                                                               \
        if (0) {                                                                                                       \
        case __LINE__:;                                                                                                \
        }                                                                                                              \
        if (ol__take(ol__co)) {                                                                                        \
        } else if (await) {                                                                                            \
            ol__frame->state = __LINE__;                                                                               \
            return;                                                                                                    \
        }                                                                                                              \
    } while (0)

/* Calls the sub-coroutine `fn` on the frame `frame_ptr` (an ol_frame * in your struct) and waits for its end; its
   result (OL_RETURN; 0 from OL_END) goes to `lhs`. Cost of a resume inside it does not grow with the depth. */
#define OL_CALL(lhs, frame_ptr, fn) OL_AWAIT(lhs, ol__call(ol__co, (frame_ptr), (fn)))

/* Lets other ready work run, and the kernel be asked, then goes on. A request to end shows at the next await. */
#define OL_YIELD()                                                                                                     \
    do {                                                                                                               \
        ol__co->link.fd = OL__YIELD;                                                                                   \
        ol__frame->state = __LINE__;                                                                                   \
        return;                                                                                                        \
        case __LINE__:;                                                                                                \
    } while (0)

/* Ends this coroutine (or sub-coroutine) with a result. A root's end waits for its children. OL_END_THEN's `after` is
   not evaluated: a root that is freed there leaves by a break or a goto to it instead. */
#define OL_RETURN(value)                                                                                               \
    do {                                                                                                               \
        (void)ol__end(ol__co, ol__frame, (value), 0);                                                                  \
        return;                                                                                                        \
    } while (0)

/* Closes the body: the coroutine ends with result 0. */
#define OL_END(co) OL_END_THEN(co, (void)0)

/* The same, then evaluates `after`, which may free the struct that the coroutine and its children live in. */
#define OL_END_THEN(co, after)                                                                                         \
    if (0) {                                                                                                           \
    case OL__ENDING:;                                                                                                  \
    }                                                                                                                  \
    if (ol__end((co), ol__frame, 0, 1)) return;                                                                        \
    after;                                                                                                             \
    return;                                                                                                            \
    }                                                                                                                  \
    ol__panic("offload: a coroutine left its body by a break outside a loop: end it with OL_RETURN or OL_END");        \
    }

/* Starts a root coroutine on `fd`'s partition (0: one of its own) with a class (0: the fd's, else batch). It first
   runs from the loop, never from here. If the partition is held it waits for its turn, FIFO. `co` need not be
   initialised and must not be alive. 0, -EBADF (fd closed or stale), -EINVAL, -ENOMEM. */
OL_API int ol_spawn(ol_loop *loop, ol_co *co, void (*fn)(ol_co *), ol_fd fd, int cls);

/* Asks a coroutine to end: its await, and each later one, ends with -ECANCELED. An await of an operation first waits
   for that operation, which is asked to stop and gives its true result if it was too late. Cancellation outranks a
   deadline. A root's children are cancelled, too. The coroutine decides what to do: usually to clean up and end. From
   the loop's thread. */
OL_API void ol_cancel(ol_co *co);

/* Called by the coroutine that was cancelled, so that it can await again while it cleans up: forgets the request. The
   deadline stays; set one for the clean-up. */
OL_API void ol_cancel_clear(ol_co *co);

/* Changes the class of a coroutine, for instance of a connection that turns from a request to a long body. Counts
   from its next wake-up on. 0, or -EINVAL. */
OL_API int ol_set_class(ol_co *co, int cls);

/* 1 if a cancel request stands. */
OL_API int ol_canceled(const ol_co *co);

/* Sets the coroutine's one deadline, `ns` nanoseconds from now; OL_NEVER: none; 0 or less: it has passed. When it
   passes, the await under way and each later one end with -ETIMEDOUT until it is set again; but what a wait for an fd
   has got by the time that the coroutine runs is not lost. -ENOMEM if the timer heap can't grow: the old one stays. */
#define OL_NEVER INT64_MAX
OL_API int ol_deadline(ol_co *co, int64_t ns);

/* Awaits the current time plus `ns`; result 0. Never less; how much more depends on the kernel's timers and the load.
   */
OL_API int ol_sleep(ol_co *co, int64_t ns) OL__MUST_USE;

/* Children: coroutines in the partition of a root, for full duplex and for several waits at once. They share its hold:
   one runs at a time, and each may await the partition's fds. Children of a child are the root's, too. The root can't
   end before them: its OL_END or OL_RETURN waits until they have, without a deadline. To end it, cancel them first, or
   close the fd that they wait for. */

/* Starts a child of the running coroutine `co`, with its class. It first runs from the loop, never from here. `child`
   need not be initialised and must not be alive. 0, or -EINVAL. */
OL_API int ol_fork(ol_co *co, ol_child *child, void (*fn)(ol_co *));

/* Awaits the end of a child; the result is the child's (OL_RETURN; 0 from OL_END). The child's struct must be there
   still. child NULL: of all children, for the root only; result 0. -EDEADLK: the child waits, if only through others,
   for this coroutine. -EINVAL, -EXDEV (not of this partition), -ECANCELED, -ETIMEDOUT, -ENOMEM. */
OL_API int ol_wait(ol_co *co, ol_child *child) OL__MUST_USE;

/* Joins: fds that share state become one partition, for instance the two ends of a proxy. */

/* Awaits that the whole partition of `fd` belongs to this coroutine's; if it is held, its turn there, first come, first
   served with whatever else waits for it. Lasts until the fd is closed. The joined partition takes the highest class of
   its fds and its root. Result 0; -EDEADLK: its holder waits, if only through others, for this partition. -EBADF,
   -ECANCELED (also: fd was closed meanwhile), -ETIMEDOUT, -ENOMEM. O(fds of both), O(coroutines that wait for each
   other) where it must wait. */
OL_API int ol_join(ol_co *co, ol_fd fd) OL__MUST_USE;

/* Joins the partitions of two fds now, from anywhere on the loop's thread. 0; -EBUSY if both are held; -EBADF. */
OL_API int ol_try_join(ol_loop *loop, ol_fd a, ol_fd b);

/* Awaits the lock: state shared across partitions, such as a cache, that must not change across an await. First come,
   first served. It is released by ol_unlock, or by the end of its holder (of a root: at its OL_END, before it waits for
   children). Result 0; -EDEADLK: its holder waits, if only through others, for this coroutine, or is it. -EXDEV
   (another loop's), -ECANCELED, -ETIMEDOUT, -ENOMEM. */
OL_API int ol_lock(ol_co *co, ol_mutex *mutex) OL__MUST_USE;

/* Releases it; the next one in line has it at once. 0, or -EINVAL if co doesn't hold it. */
OL_API int ol_unlock(ol_co *co, ol_mutex *mutex);

/* True once when the await's result has arrived. */
static inline int ol__take(ol_co *co) {
    const uint32_t bits = co->frame.bits;
    co->frame.bits = bits & ~(uint32_t)OL__CO_DONE;
    return (int)(bits & OL__CO_DONE);
}

OL_API int ol__root_end(ol_co *co, int resume);

static inline int ol__end(ol_co *co, ol_frame *frame, int64_t result, int resume) { /* 1: waits for its children */
    co->result = result;
    frame->state = 0;
    if (result < 0) co->frame.bits = (co->frame.bits & ~(0xffu << OL__CO_ERR_SHIFT)) | (uint32_t)OL__CO_ERR_OWN;
    if (frame->up) {
        co->top = frame->up;
        co->frame.bits |= (uint32_t)OL__CO_DONE;
        return 0;
    }
    return ol__root_end(co, resume);
}

OL_API int ol__call(ol_co *co, ol_frame *frame, void (*fn)(ol_co *)) OL__MUST_USE;

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>loop                                                                                                           */

typedef struct ol_loop_desc {
    ol_backend *const *backends; /* backends besides software; they must outlive the loop. NULL: none */
    uint32_t nbackends;          /* how many; at most 7 */
    uint32_t no_pool;            /* 1: don't add the process's shared thread pool, named "threads". Default: it is added
                                    unless a backend of that name is in the list; its threads start at first use */
    const char *policy;          /* policy text or the name of a preset, "pool" or "thesis". NULL: "pool" if a backend
                                    is named "threads", else "" (all in software) */
    uint32_t events;             /* kernel events taken at a time. Default 256, at most 4096 */
    uint32_t turn;               /* coroutines resumed between two looks at the kernel. Default 64 */
    uint32_t latency_run;        /* latency-critical resumes in a row before one of batch. Default 8 */
    uint32_t budget;             /* awaits that may go on without suspending in one resume. Default 64 */
    uint32_t park_max;           /* operations that may wait for a full backend, counted as its depth. Default 4096 */
    uint32_t dequeue_batch;      /* completions taken from a backend at a time. Default 16 */
    uint32_t sample;             /* the times of one in so many operations are taken. Default 64; 1: of each */
    int64_t slice_ns;            /* how long a sliced operation runs at a time. Default 20,000 */
    int64_t stall_ns;            /* auto: a backend that completes nothing for so long is avoided. Default 5,000,000 */
    int64_t spin_ns;             /* how long to look for completions before sleeping. Default 0: don't spin */
    int64_t sync_ns;             /* bound of a synchronous wait, then it suspends. Default 100,000 */
    int64_t poll_ns;             /* interval at which backends that can't notify are polled. Default 1,000 */
    void (*log)(void *user, int level, const char *text); /* level 0 error, 1 warning. NULL: silent. A lasting condition
                                    (no fd for ol_accept) is reported each time: limit the rate yourself */
    void *log_user;
    uint32_t canary_; /* must be 0: a desc that was not zeroed is refused */
} ol_loop_desc;

/* Counters since the loop was created. `size` is set by you to sizeof, so that the struct can grow. */
typedef struct ol_loop_stats {
    uint32_t size;
    uint32_t roots;       /* root coroutines alive */
    uint32_t ops;         /* operations accepted and not complete */
    uint32_t fds;         /* fds attached, closing ones included */
    uint64_t turns;       /* rounds of the loop */
    uint64_t events;      /* kernel events */
    uint64_t stale;       /* kernel events of closed fds, dropped */
    uint64_t resumes;     /* coroutine resumes */
    uint64_t sleeps;      /* times the loop slept */
    uint64_t wakes;       /* times it was woken by ol_notify or ol_post */
    uint64_t software;    /* operations run on the spot */
    uint64_t offloaded;   /* operations given to backends */
    uint64_t parked;      /* operations that waited for a full backend */
    uint64_t withheld;    /* roots, handlers, timers, posts and joins that had to wait for a partition */
    uint64_t accept_full; /* accepts that failed, mostly for want of a free fd */
    uint64_t slices;      /* of sliced operations, which count as run on the spot */
    uint64_t busy_ns;     /* between a return from the kernel and the next call: of all time, the loop's load */
    uint64_t waited_ns;   /* in the kernel */
    uint64_t why[16];     /* operations by OL_WHY_... */
} ol_loop_stats;

/* Creates a loop. desc NULL: all defaults. Allocates; opens an epoll fd and an eventfd. 0, -EINVAL (see ol_error),
   -ENOMEM, -EMFILE and other errors of the system. */
OL_API int ol_loop_create(ol_loop **loop, const ol_loop_desc *desc);

/* Frees a loop. Handlers are taken off; operations in flight are cancelled and waited for, however long that takes,
   because their buffers are in use; posts that are queued then are called, later ones dropped; fds that are still
   attached are closed. -EBUSY while coroutines are alive (ol_loop_drain ends them) or when
   called from inside the loop; an error of the system, when it can't ask for completions. */
OL_API int ol_loop_destroy(ol_loop *loop);

/* Runs until ol_loop_stop, or until no coroutine, handler, timer, operation or post is left. 0, -EBUSY if it runs
   already, or an error of epoll. */
OL_API int ol_loop_run(ol_loop *loop);

/* One round: waits for at most timeout_ns (0: not at all; -1: without limit), then runs what is ready.
   Returns 1 if anything is left to do, 0 if not, negative on error. */
OL_API int ol_loop_step(ol_loop *loop, int64_t timeout_ns);

/* Makes ol_loop_run return after the round under way; if it isn't running, the next one returns at once. From the
   loop's thread; from others by ol_post. */
OL_API void ol_loop_stop(ol_loop *loop);

/* Cancels every coroutine, then runs for at most timeout_ns until all have ended and all operations are complete.
   Meanwhile ol_submit in callbacks gives -ECANCELED.
   0, or -ETIMEDOUT with some left. */
OL_API int ol_loop_drain(ol_loop *loop, int64_t timeout_ns);

/* The desc in force, every default resolved. */
OL_API const ol_loop_desc *ol_loop_desc_of(const ol_loop *loop);

OL_API void ol_loop_get_stats(const ol_loop *loop, ol_loop_stats *stats);

/* Times in ns: exact below 16, then eight ranges an octave, so that a value read back is at most 12.5% too large. The
   last range is open: above 64 s. 2,200 bytes. */
enum { OL_HISTOGRAM = 272 };
typedef struct ol_histogram {
    uint64_t count, sum, max;
    uint64_t n[OL_HISTOGRAM];
} ol_histogram;
OL_API void ol_histogram_add(ol_histogram *h, int64_t ns); /* negative counts as 0 */

/* The time that a share (0 to 1) of what was counted did not exceed: the upper end of its range, at most the maximum. 0
   if nothing was counted. */
OL_API int64_t ol_histogram_at(const ol_histogram *h, double share);

/* What loops measure: of sampled operations (desc.sample) the submitter's own time, all waiting, the work, and the
   whole from ol_run or ol_submit to the completion; of the loop its lag: the time between two looks at the kernel,
   which an event may have waited. For operations on the spot only OL_TIME_SERVICE and OL_TIME_TOTAL. */
enum { OL_TIME_SUBMIT = 0, OL_TIME_QUEUE = 1, OL_TIME_SERVICE = 2, OL_TIME_TOTAL = 3, OL_TIME_LAG = 4 };

/* Copies what was measured of one kind (0: all) and class (0: all). 0 or -EINVAL. */
OL_API int ol_loop_get_times(const ol_loop *loop, int kind, int cls, int what, ol_histogram *out);

/* Writes the counters, the cells that were used, and the quantiles of the times as text for people, at most len bytes
   with the 0 at its end. Returns the bytes that the whole needs without it, as snprintf does. */
OL_API int ol_loop_dump(const ol_loop *loop, char *text, size_t len);

/* The loop's time in ns, monotonic: of the start of the round, or of a later call that set a time. */
OL_API int64_t ol_now(const ol_loop *loop);

/* Inside another loop (libevent, libuv, a server's own): watch this fd for readability, level-triggered, and call
   ol_loop_step(loop, 0) when it is readable. From the first call of this on, each step ends armed: the fd turns
   readable when a kernel event, a completion, a post or a timer is due, and after calls from outside a step that make
   work. An fd >= 0 that stays the loop's, or a negative errno. Costs at most two system calls a step. */
OL_API int ol_loop_fd(ol_loop *loop);

/* A function called from the loop on behalf of any thread. Zero it once; the library only writes `next` and what ends
   in an underscore. */
typedef struct OL__ALIGNED ol_post_node {
    void (*fn)(ol_loop *loop, struct ol_post_node *node); /* called once for each accepted post */
    void *next;                                           /* NULL while it is not posted */
    ol_fd fd; /* if not 0, it is called when this fd's partition is free, and holds it meanwhile; when the fd is closed
                 by then, like one without */
    uintptr_t link_;
    uint32_t part_;
    uint32_t reserved;
} ol_post_node;

/* Queues node; from any thread and from signal handlers; allocates nothing, takes no lock, can't fail for lack of room,
   leaves ol_error alone. 0, or -EBUSY if the node is still queued from an earlier post: then its function is going to
   be called anyway, and will see all that was written before this call. FIFO for posts of one thread. */
OL_API int ol_post(ol_loop *loop, ol_post_node *node);

/* A timer with a callback. Zero it once. */
typedef struct OL__ALIGNED ol_timer {
    void (*fn)(ol_loop *loop, struct ol_timer *timer); /* called once, from the loop; may start it again */
    ol_fd fd;       /* as in ol_post_node; set it while the timer doesn't run */
    uintptr_t link_;
    uint32_t index; /* place in the heap, 0 while it doesn't run */
    uint32_t part_; /* partition that it waits for */
} ol_timer;

/* Starts or restarts: fn is called in ns nanoseconds, not earlier. 0, -EINVAL, -ENOMEM. O(log n). */
OL_API int ol_timer_start(ol_loop *loop, ol_timer *timer, int64_t ns, void (*fn)(ol_loop *, ol_timer *));

/* Stops it if it runs; fn will not be called, also if its time has come and it waits for its partition. O(log n). */
OL_API void ol_timer_stop(ol_loop *loop, ol_timer *timer);

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>io                                                                                                             */

/* Hands a pollable fd (socket, pipe, eventfd, ...) to the loop: makes it non-blocking and registers it once, edge-
   triggered, for everything. From then on use the handle, and ol_close. -EPERM: it can't be polled (a regular file:
   use ol_pread). -EBADF, -EEXIST (attached already), -EINVAL (class), -ENOMEM, -ENOSPC. One system call or three. */
OL_API int ol_attach(ol_loop *loop, int fd, int cls, ol_fd *handle);

/* A listening socket: SO_REUSEADDR, and SO_REUSEPORT if reuseport. fd class is inherited by what it accepts.
   Port 0 lets the system choose: ask getsockname(ol_fd_raw(handle)). Errors of socket, bind, listen. */
OL_API int ol_listen(ol_loop *loop, const struct sockaddr *addr, socklen_t len, int backlog, int reuseport, int cls,
                     ol_fd *handle);

/* A new socket that belongs to the partition of the running coroutine `co`: its awaits on it are served at once. */
OL_API int ol_socket(ol_co *co, int domain, int type, int protocol, ol_fd *handle);

/* The fd number of a handle, or -EBADF if it is closed or stale. For getsockname and setsockopt; don't close it. */
OL_API int ol_fd_raw(const ol_loop *loop, ol_fd handle);

/* Closes. Legal at any time, with awaits and operations under way: awaits on it end with -ECANCELED, later ones with
   -EBADF; operations of its partition get a cancel request; a socket is shut down so that the peer sees it now.
   close(2) follows the last of those operations. 0 or -EBADF. */
OL_API int ol_close(ol_loop *loop, ol_fd handle);

/* The awaits below: result >= 0, or -EBADF (closed, stale), -EXDEV (fd of another partition), -EBUSY (someone waits
   for this direction already), -ECANCELED, -ETIMEDOUT, or the error of the system call. Arguments are evaluated again
   on each wake-up (rule 2). TCP_NODELAY and the like are yours to set. */

/* Reads 1 to len bytes; 0 is the end of the stream. */
OL_API int ol_read(ol_co *co, ol_fd fd, void *buf, size_t len) OL__MUST_USE;

/* Reads once into the iovecs; like ol_read. */
OL_API int ol_readv(ol_co *co, ol_fd fd, const struct iovec *iov, int n) OL__MUST_USE;

/* Writes all of it: the result is len, or an error after which it is unknown how much was sent. Never SIGPIPE on
   sockets. */
OL_API int ol_write(ol_co *co, ol_fd fd, const void *buf, size_t len) OL__MUST_USE;

/* Writes all of the iovecs, which it advances as it goes (so after an error they hold what was not sent). Result: the
   bytes written. At most IOV_MAX entries. */
OL_API int ol_writev(ol_co *co, ol_fd fd, struct iovec *iov, int n) OL__MUST_USE;

/* Accepts a connection: the result, which you take as int64_t and cast if it is >= 0, is its ol_fd, non-blocking,
   attached, a partition of its own. When no fd is free (-EMFILE, -ENFILE, -ENOBUFS, -ENOMEM) the error comes after a
   pause of 10 ms, so that a loop around it can't spin. */
OL_API int ol_accept(ol_co *co, ol_fd listener) OL__MUST_USE;

/* Connects; result 0. */
OL_API int ol_connect(ol_co *co, ol_fd fd, const struct sockaddr *addr, socklen_t len) OL__MUST_USE;

/* Waits until the fd is readable (writable), for calls of your own; result 0. If your call then says EAGAIN, tell it by
   ol_again(loop, fd, write) before you wait again. */
OL_API int ol_wait_readable(ol_co *co, ol_fd fd) OL__MUST_USE;
OL_API int ol_wait_writable(ol_co *co, ol_fd fd) OL__MUST_USE;
OL_API int ol_again(ol_loop *loop, ol_fd fd, int write);

/* Handlers: a callback for each fd, gated like coroutines: while the partition is held it is not called. Level-
   triggered: it is called again as long as what it watches for is there. Mix handlers and coroutines as you like; while
   a coroutine lives in the partition, the handler waits. */

enum { OL_READABLE = 1, OL_WRITABLE = 2 };

typedef struct OL__ALIGNED ol_handler { /* zero it once */
    void (*fn)(ol_loop *loop, struct ol_handler *handler, int ready); /* ready: which of `events`; an error sets all */
    ol_fd fd;       /* what it watches */
    uintptr_t link_;
    uint8_t events; /* OL_READABLE, OL_WRITABLE */
    uint8_t state_;
    uint8_t reserved[6];
} ol_handler;

/* Calls fn from the loop whenever fd is ready for one of `events`. An fd has one handler: another call changes what it
   watches for, or replaces it. From inside it: anything but running the loop; if it closes its fd or is replaced, it
   may free its struct. An operation that it submits holds the partition until `done` has returned. Use the ol_try_
   functions; after calls of your own that end with EAGAIN, call ol_again. Watch for OL_WRITABLE only while you have
   something to write. 0, -EBADF, -EINVAL. */
OL_API int ol_watch(ol_loop *loop, ol_fd fd, ol_handler *handler, int events,
                    void (*fn)(ol_loop *loop, ol_handler *handler, int ready));

/* Ends it; fn will not be called. ol_close does it, too. 0 or -EBADF. */
OL_API int ol_unwatch(ol_loop *loop, ol_fd fd);

/* Without waiting, for handlers and anywhere else on the loop's thread: the bytes transferred (reads: 0 at the end of
   the stream; writes: perhaps fewer than asked for), or -EAGAIN, -EBADF, -EXDEV (somebody else holds the fd's
   partition), -EBUSY (a coroutine waits for it), or the error of the system call. */
OL_API int64_t ol_try_read(ol_loop *loop, ol_fd fd, void *buf, size_t len);
OL_API int64_t ol_try_readv(ol_loop *loop, ol_fd fd, const struct iovec *iov, int n);
OL_API int64_t ol_try_write(ol_loop *loop, ol_fd fd, const void *buf, size_t len);
OL_API int64_t ol_try_writev(ol_loop *loop, ol_fd fd, const struct iovec *iov, int n);

/* The same for a connection: its ol_fd, as ol_accept gives it. When no fd is free, the listener counts as not readable
   for 10 ms, so that its handler can't spin. */
OL_API int64_t ol_try_accept(ol_loop *loop, ol_fd listener);

/* Guests: fds that another loop polls, gated by this one, so that no event of an fd is handled while an operation of an
   earlier one is out. */

/* Gives fd a partition; it is not registered in our epoll, and can't be awaited. ol_watch gives it the handler that
   hears of what was withheld. Take it out of the other loop before ol_close, which closes it. Errors as ol_attach. */
OL_API int ol_attach_guest(ol_loop *loop, int fd, int cls, ol_fd *handle);

/* Call it when the other loop reports `ready` (OL_READABLE, OL_WRITABLE) for the fd. 1: handle the event now, then call
   ol_gate_leave; operations that you submit in between hold the partition until their `done` has returned. 0: the
   partition is held; stop polling the fd (if you poll level-triggered). When it is free, ol_loop_step calls the handler
   with all that was withheld; poll again from then on. -EBADF, -EINVAL (no guest's fd, no handler), -EBUSY (inside a
   step, or ol_gate_leave was not called). */
OL_API int ol_gate_enter(ol_loop *loop, ol_fd handle, int ready);
OL_API int ol_gate_leave(ol_loop *loop); /* 0, or -EINVAL without ol_gate_enter */

/* Regular files: on the spot where the page cache (name cache) has the answer, else as an operation of kind "file".
   `op` and all that the arguments point to belong to the library until the await returns. Evaluated once. */

enum { OL_BENEATH = 1 }; /* ol_open: refuse what leaves dirfd, by "..", absolute names or symbolic links: -EXDEV */

/* openat, with O_CLOEXEC: the result is a plain fd for ol_pread, ol_stat and close(2). mode matters with O_CREAT only.
   With O_NONBLOCK it takes two system calls less, and can't be held up by a FIFO without a writer. */
OL_API int ol_open(ol_co *co, ol_op *op, int dirfd, const char *path, int flags, uint32_t mode, int how) OL__MUST_USE;

/* fstatat; path NULL: fstat of dirfd. */
OL_API int ol_stat(ol_co *co, ol_op *op, int dirfd, const char *path, struct stat *st) OL__MUST_USE;

/* Reads len bytes at the offset, fewer only at the end of the file; result: the bytes read. */
OL_API int ol_pread(ol_co *co, ol_op *op, int file, void *buf, size_t len, int64_t offset) OL__MUST_USE;

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>op                                                                                                             */

enum { /* ol_op.kind */
    OL_OP_CALL = 1,
    OL_OP_CRC32 = 2,
    OL_OP_DEFLATE = 3,
    OL_OP_INFLATE = 4,
    OL_OP_FILE = 5,
    OL__KINDS = 6
};
enum { OL_RAW = 1, OL_ZLIB = 2, OL_GZIP = 3 }; /* formats: RFC 1951, 1950, 1952 */
enum { OL_STEPS = 1 };                         /* ... of a call whose function does a step at a time (ol_prep_steps) */
enum {                                         /* ol_op.level of deflate */
    OL_LEVEL_AUTO = 0,                         /* static tables up to 8 KB, 1 above */
    OL_LEVEL_1 = 1,                            /* ISA-L's levels 1 to 3 */
    OL_LEVEL_2 = 2,
    OL_LEVEL_3 = 3,
    OL_LEVEL_STATIC = 4 /* ISA-L level 0 with the static Huffman tables of RFC 1951: fastest for small buffers */
};
enum { OL_SOFTWARE = 1, OL_SLICED = 2, OL_SYNC = 3, OL_ASYNC = 4, OL_AUTO = 5 }; /* modes */
enum { OL_FULL_SOFTWARE = 1, OL_FULL_WAIT = 2, OL_FULL_FAIL = 3 };              /* what to do when a backend is full */
enum {                                                                          /* ol_op.why */
    OL_WHY_NONE = 0,
    OL_WHY_RULE = 1,        /* the policy's rule */
    OL_WHY_FULL = 2,        /* the backend was full: run in software now */
    OL_WHY_PARKED = 3,      /* the backend was full: waited for room */
    OL_WHY_UNSUPPORTED = 4, /* the rule's backend doesn't do this kind */
    OL_WHY_FAILED = 5,      /* the backend could not start or refused it */
    OL_WHY_CACHE = 6,       /* a file operation that was answered on the spot */
    OL_WHY_SYNC_BOUND = 7,  /* a synchronous wait exceeded its bound and was suspended */
    OL_WHY_STOPPED = 8,     /* cancelled or timed out before it ran */
    OL_WHY_MEASURED = 9,    /* auto: measured to be the cheapest */
    OL_WHY_PROBE = 10,      /* auto: tried, to learn what it costs now */
    OL_WHY_STALLED = 11     /* auto: the backend makes no progress */
};

/* State that runs through the chunks of one stream. Zero it before the first chunk. 24 bytes. */
typedef struct ol_stream {
    uint64_t total;    /* uncompressed bytes so far */
    uint32_t check;    /* running crc32 (gzip) or adler32 (zlib) */
    uint8_t started;   /* header written or read */
    uint8_t finished;  /* trailer written or read */
    uint8_t failed;    /* an earlier chunk failed: the stream can't go on */
    uint8_t reserved[9];
} ol_stream;

/* An operation. ol_prep_* fills it; members of the first group may then be changed before it is submitted. 128 bytes.
   */
struct OL__ALIGNED ol_op {
    const void *src; /* input */
    void *dst;       /* output */
    uint64_t len;    /* bytes of input (OL_OP_CALL: a size hint for the policy) */
    uint64_t cap;    /* bytes that dst can hold */
    union {
        struct ol__codec_args {
            const void *dict;  /* the uncompressed bytes that came before, NULL none */
            ol_stream *stream; /* NULL: src is the whole */
        } codec;
        struct ol__call_args {
            int64_t (*fn)(void *arg);
            void *arg;
        } call;
        struct ol__file_args {
            int64_t offset;
            int32_t fd;
            uint32_t what;
        } file;
        uint32_t crc; /* crc32: start value, 0 for a new one */
    } u;
    uint16_t dict_len;   /* bytes of dictionary, at most 32,768 */
    uint8_t level;       /* OL_LEVEL_... */
    uint8_t final;       /* of a stream's chunk: 1 the last one, 0 ends byte-aligned by a flush */
    uint8_t cls;         /* class; 0 inherits */
    uint8_t kind;        /* OL_OP_... */
    uint8_t format;      /* OL_RAW, OL_ZLIB, OL_GZIP; of a call OL_STEPS, or 0 */
    uint8_t sample_;     /* the library's: its place in the loop's table of samples */
    uint32_t timeout_us; /* cancelled with -ETIMEDOUT after so many microseconds; 0: never */

    /* results, valid when the await returned or in `done` */
    uint32_t service_ns; /* how long the backend worked on it, 0 unknown: the pool tells it of sampled ones only */
    int64_t result; /* bytes written, or what the kind says; or a negative errno */
    uint64_t used;  /* inflate: bytes of input consumed */
    uint8_t where;  /* index of the backend; 0 is software. ol_op_where names it */
    uint8_t why;    /* OL_WHY_... */
    uint8_t mode;   /* OL_SOFTWARE, OL_SLICED, OL_SYNC, OL_ASYNC: what was done */
    uint8_t err;

    /* the library's */
    uint8_t state_;
    uint8_t flags_;
    uint16_t magic_;
    uint32_t part_;
    uint32_t timer_;
    union {
        ol_co *co;             /* awaited by */
        void (*done)(ol_loop *, ol_op *); /* or to be reported to */
    } owner_;
    ol_op *next_;         /* a queue's link; a backend's while it has the operation */
    ol_op *prev_in_part_; /* list of the partition's operations */
    ol_op *next_in_part_;
};

/* Bytes that dst must have so that a deflate of len bytes, in any format, can't fail for lack of room. */
OL_API uint64_t ol_deflate_bound(uint64_t len);

/* Fill an operation; they return op, so that they can stand inside ol_run. Nothing runs yet. */

/* Compresses src into dst as one complete stream (set u.codec.stream for a chunk). Result: bytes written. -ENOSPC if
   cap is too small. */
OL_API ol_op *ol_prep_deflate(ol_op *op, int format, void *dst, uint64_t cap, const void *src, uint64_t len);

/* One chunk of a stream. `dict`: up to 32,768 bytes that came immediately before src, NULL for none (a worse ratio).
   final 0: the output ends at a byte boundary and can be sent; 1: the last one, with the trailer. */
OL_API ol_op *ol_prep_deflate_chunk(ol_op *op, int format, void *dst, uint64_t cap, const void *src, uint64_t len,
                                    ol_stream *stream, const void *dict, uint32_t dict_len, int final);

/* Decompresses one stream, header to trailer, checksum verified. Result: bytes written; op->used: bytes of input
   consumed (more may follow: gzip members can be concatenated, RFC 1952 section 2.2). -ENOSPC, -EBADMSG (corrupt or
   truncated). Nothing is written past cap. */
OL_API ol_op *ol_prep_inflate(ol_op *op, int format, void *dst, uint64_t cap, const void *src, uint64_t len);

/* One chunk, as ol_prep_deflate_chunk cut it; dict: the last 32,768 bytes of output before this chunk. */
OL_API ol_op *ol_prep_inflate_chunk(ol_op *op, int format, void *dst, uint64_t cap, const void *src, uint64_t len,
                                    ol_stream *stream, const void *dict, uint32_t dict_len, int final);

/* CRC-32 (IEEE 802.3, as in gzip), going on from `start` (0 for a new one). Result: the checksum, 0..2^32-1. */
OL_API ol_op *ol_prep_crc32(ol_op *op, uint32_t start, const void *src, uint64_t len);

/* Any function of yours, run on a worker: it may block and compute, and must not touch the loop. Where the policy says
   software, or the backend is full or fails, it runs on the loop's thread. Result: what it returns. */
OL_API ol_op *ol_prep_call(ol_op *op, int64_t (*fn)(void *arg), void *arg);

/* The same for work that can stop in between: `step` does a part, of some microseconds, and returns OL_MORE to be
   called again, or the result. So it can be sliced (see >>policy); anywhere else it is called until it has done all. */
#define OL_MORE INT64_MIN
OL_API ol_op *ol_prep_steps(ol_op *op, int64_t (*step)(void *arg), void *arg);

/* Await form: submits and waits. Where the policy says software it runs now and the coroutine goes on without
   suspending, within a budget. Result: the operation's; besides -EINVAL (not prepared, bad arguments), -EBUSY (in
   flight), -EAGAIN (full), -ENOTSUP, -ECANCELED, -ETIMEDOUT. */
OL_API int ol_run(ol_co *co, ol_op *op) OL__MUST_USE;

/* Callback form: `done` is called once, from the loop, never from here. Submitted by a coroutine, or by a callback that
   holds a partition, the operation belongs to that partition and holds it. 0: accepted; otherwise a negative errno and
   `done` isn't called. */
OL_API int ol_submit(ol_loop *loop, ol_op *op, void (*done)(ol_loop *loop, ol_op *op));

/* A request: the operation still completes, with -ECANCELED if it was stopped in time, else with its true result. 0, or
   -EINVAL if it is not in flight. From the loop's thread. */
OL_API int ol_op_cancel(ol_loop *loop, ol_op *op);

/* Where it ran ("software", "threads", ...) and why, as text. */
OL_API const char *ol_op_where(const ol_loop *loop, const ol_op *op);
OL_API const char *ol_op_why(const ol_op *op);

/* A codec context: what ol_op_exec needs. About 450 KB, allocated in parts as needed. One thread at a time. */
typedef struct ol_exec ol_exec;
OL_API ol_exec *ol_exec_create(void);
OL_API void ol_exec_destroy(ol_exec *exec);

/* Runs a prepared operation now, on this thread, without loop, policy or partition: for backends, tests and programs
   that just want the codec. Sets op->result and returns it. */
OL_API int64_t ol_op_exec(ol_exec *exec, ol_op *op);

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>policy

   Text, one rule a line, the first that matches decides; `#` starts a comment:

       # op       class     bytes      mode      backend   when-full
       deflate    latency   0-8191     software  -         -
       deflate    any       8K-        async     threads   wait

   op: call crc32 deflate inflate file any. class: latency batch any. bytes: N, N-M, N- with suffixes K (1,024) and M;
   backend: a name the loop knows, - for software and sliced; when-full: software, wait, fail. What no rule matches runs
   in software. Modes:
     software  on the spot.
     sliced    on the loop's own core, in slices of desc.slice_ns between other ready work, latency-critical work
               first; one operation of each class at a time. A slice exceeds its time by one block (16 KB) or one step
               at most (crc32 with ISA-L: 256 KB). A call without steps is one step; what may block (file) runs on the
               spot.
     sync      offloaded; spins for the result, for at most desc.sync_ns, then suspends. Completions of others are
               filed with their owners.
     async     offloaded; suspends.
     auto      measures, for each kind, class and octave of sizes, what the work costs here and on the backend under
               its present load, and picks what is cheapest: for latency-critical work the time to the result, plus
               what others wait while it has the loop (it spins only if no other such work is ready or out); for batch
               the loop's time, or, while the loop has nothing else to do, the time to the result. What is longer than
               a slice is sliced, not run on the spot. The choice changes when another is cheaper by a fifth; each 16th
               to 512th operation tries another. A backend that completes nothing for desc.stall_ns, or until an
               operation times out, is avoided, but for a try now and then. */

#define OL_POLICY_RULES 64

typedef struct ol_rule {
    uint8_t kind; /* OL_OP_..., 0 any */
    uint8_t cls;  /* OL_LATENCY, OL_BATCH, 0 any */
    uint8_t mode; /* OL_SOFTWARE to OL_AUTO */
    uint8_t full; /* OL_FULL_...; 0 means software for latency, wait for batch */
    uint32_t reserved;
    uint64_t min, max; /* bytes, inclusive; max 0 means no limit */
    char backend[16];  /* "" for software and sliced */
} ol_rule;

typedef struct ol_policy {
    uint32_t n;
    uint32_t reserved;
    ol_rule rule[OL_POLICY_RULES];
} ol_policy;

/* Parses text (or a preset's name, "pool" or "thesis"). On error *out is unchanged and err, if not NULL, gets a text
   with the line number. 0, or -EINVAL. */
OL_API int ol_policy_parse(const char *text, ol_policy *out, char *err, size_t err_len);

/* Puts a table in force for the operations submitted from now on. -EINVAL: a rule is malformed or names a backend that
   the loop does not have (see ol_error); the old table stays. From the loop's thread. */
OL_API int ol_loop_set_policy(ol_loop *loop, const ol_policy *policy);

/* Writes a table as text that ol_policy_parse reads back to the same table; len and result as those of ol_loop_dump. */
OL_API int ol_policy_print(const ol_policy *policy, char *text, size_t len);

/* What a loop knows of one kind and class and a range of sizes (below 256 bytes, then an octave each, open from 4M):
   what it did, and what auto has measured; 0: not yet. `size` is set by you to sizeof. */
typedef struct ol_cell {
    uint32_t size;
    uint32_t choice;     /* auto's at present: OL_SOFTWARE, OL_SYNC or OL_ASYNC */
    uint64_t min, max;   /* bytes; max 0: no limit */
    uint64_t n[6];       /* operations by mode, OL_SOFTWARE to OL_ASYNC */
    int64_t here_ns;     /* time on the loop's own core */
    int64_t service_ns;  /* time that the backend works on it, where it says so */
    int64_t async_ns[2]; /* time to the result from a backend that has nothing else: awake, asleep */
    int64_t sync_ns[2];
} ol_cell;

/* Copies the cell of an operation of `bytes` bytes. 0 or -EINVAL. */
OL_API int ol_loop_get_cell(const ol_loop *loop, int kind, int cls, uint64_t bytes, ol_cell *cell);

/* The table in force. */
OL_API void ol_loop_get_policy(const ol_loop *loop, ol_policy *policy);

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>backend  A backend executes operations. It is one vtable; each loop opens a channel of its own and calls it from
   its thread only. The built-in pool is written to the same contract; examples/backend.c has another.  Contract: each
   operation that submit accepted is returned by poll exactly once, with op->result set, also after cancel. poll and
   look never block. submit does no heavy work. A full channel accepts fewer. While it has an operation, a backend may
   use op->next_ and nothing else of the library's members. */

#define OL_BACKEND_VERSION 2

/* Where completions are announced: from any thread and from signal handlers. It wakes the loop if that sleeps. */
typedef struct ol_notify ol_notify;
OL_API void ol_notify_loop(ol_notify *notify);

enum { /* ol_channel.flags */
    OL_CHANNEL_NOTIFIES = 1, /* calls ol_notify_loop after each completion: the loop may sleep meanwhile */
    OL_CHANNEL_NO_SYNC = 2,  /* its engine shares the loop's core: don't spin for it, suspend */
    OL_CHANNEL_ONE_QUEUE = 4, /* depth is for all classes and sorts together */
    OL_CHANNEL_VERIFY = 8    /* hardware: an inflate counts if the checksum that its zlib or gzip stream has is right */
};

typedef struct ol_channel {
    void *self;     /* handed to the functions below */
    uint32_t depth; /* how many may be in flight, at least 1; for each class, and apart for calls and files */
    uint32_t flags;
    uint32_t reserve; /* with OL_CHANNEL_ONE_QUEUE: so many are for latency-critical work only; less than depth */
} ol_channel;

struct ol_backend {
    uint32_t version; /* OL_BACKEND_VERSION */
    uint32_t kinds;   /* bit 1u << OL_OP_... for each kind it executes */
    const char *name; /* as in the policy, at most 15 characters; "software" and "-" are taken */
    void *self;
    /* Opens a channel for a loop: fills *out. 0 or a negative errno. */
    int (*open)(void *self, ol_notify *notify, ol_channel *out);
    /* Takes up to n operations, in order; returns how many (0: full), or a negative errno (none taken). */
    int (*submit)(void *channel, ol_op *const *ops, int n);
    /* Hands back up to max completed operations; returns how many. */
    int (*poll)(void *channel, ol_op **ops, int max);
    /* How many poll would hand back now, at least as a yes or no; consumes nothing. O(1). */
    int (*look)(void *channel);
    /* Time in ns, on the loop's clock, at which poll is next worth calling; -1 unknown. NULL: unknown. */
    int64_t (*next_ns)(void *channel, int64_t now);
    /* Asks to stop op; may come several times, and when op is complete but not yet polled. 0: stopped, poll will hand
       it back with -ECANCELED. -EBUSY: too late, it will complete. NULL: always too late. */
    int (*cancel)(void *channel, ol_op *op);
    /* Closes the channel; nothing is in flight. When it returns, no thread may touch `notify` any more. */
    void (*close)(void *channel);
    /* In the child of a fork, before anything else is called there: forget what is in flight, threads are gone; the
       loop completes it with -ECANCELED. 0 or a negative errno. NULL: the loop opens a new channel and forgets this
       one. */
    int (*forked)(void *channel);
    /* Would the next submit have to wake an engine, which takes longer? O(1). NULL: never. */
    int (*asleep)(void *channel);
};

typedef struct ol_threads_desc {
    uint32_t workers;  /* threads. Default: CPUs of the process - 1, at least 1, at most 64 */
    uint32_t depth;    /* of each loop's channel (see ol_channel). Default 256, rounded up to a power of 2 */
    int64_t spin_ns;   /* how long an idle worker spins before it sleeps. Default 20,000 with several CPUs, 0 with one;
                          -1: never spins */
    uint32_t sched;    /* 0 default: SCHED_IDLE if the process has one CPU; 1 always SCHED_IDLE (work on the loops' own
                          cores that never delays them), 2 never */
    uint32_t canary_;  /* must be 0 */
} ol_threads_desc;

/* A pool of worker threads, shared by any number of loops; the threads start at the first operation. desc NULL: all
   defaults. At most workers - 1 (of several) run calls and file operations. -EINVAL, -ENOMEM. */
OL_API int ol_threads_create(ol_backend **backend, const ol_threads_desc *desc);

/* Stops the threads and frees it. -EBUSY while a loop uses it. */
OL_API int ol_threads_destroy(ol_backend *backend);

/* `size` is set by you to sizeof. Utilisation: 1 - idle_ns / (workers * elapsed_ns). From any thread. 0 or -EINVAL. */
typedef struct ol_threads_stats {
    uint32_t size;
    uint32_t workers;    /* threads that run */
    uint32_t asleep;     /* of these, now */
    uint32_t loops;      /* that use it */
    uint64_t idle_ns;    /* what all of them have spun and slept, up to the last time that each found work */
    uint64_t elapsed_ns; /* since they were started */
} ol_threads_stats;
OL_API int ol_threads_get_stats(ol_backend *backend, ol_threads_stats *stats);

/* An emulated device: a backend that takes an accelerator's time and gives true results. It is for finding out what an
   accelerator would change, and how a program behaves while one is slow, faulty or stuck; figures from it are the
   emulated device's. Its engines are shared by all loops that have it and serve first come, first served. An operation
   of `bytes` (op->len) bytes is complete at
       the time at which an engine is free for it + (engine_ns + bytes^exponent / bytes_per_s) * jitter + latency_ns
   and op->service_ns is what comes after the first plus. Before it enters the device the thread that submits spends the
   set-up's time, by OL_SYS_SPEND. The result is made when poll hands it out, between OL_SYS_CLOCK_STOP and
   OL_SYS_CLOCK_GO: on the real clock that takes the software's time on top, on a clock that stands still there the
   times are the device's own. What is cancelled, faulty or hung is never executed, its stream is as it was before. */
typedef struct ol_emulated_desc { /* 0 means the default, as everywhere; where none is given it means 0 */
    char name[16];      /* as in the policy, at most 15 characters. Default "device" */
    uint32_t kinds;     /* bits 1u << OL_OP_... of call, crc32, deflate, inflate. Default these four */
    uint32_t engines;   /* that work at the same time. Default 1, at most 64 */
    uint32_t depth;     /* operations in flight of each loop, all classes together. Default 128, at most 65,536 */
    uint32_t reserve;   /* of these, for latency-critical work alone; less than depth. Default depth / 8 */
    uint32_t order;     /* 0: completions come as they finish; 1: as submitted, each after the loop's earlier ones */
    int64_t setup_ns;   /* of the submitter's time, for each operation. No time may be above 1,000 s */
    int64_t burst_ns;   /* of the submitter's time, for each burst of operations */
    int64_t latency_ns; /* of an operation, in addition to its engine's time; the engine goes on with the next */
    int64_t engine_ns;  /* that an engine is busy with an operation of any size */
    double bytes_per_s; /* of one engine, in addition. Default: the size costs nothing */
    double exponent;    /* of the size: above 1 for work that grows faster than its input. Default 1, at most 4 */
    double jitter;      /* 0 to 1: the engine's time is multiplied by a factor, at random in 1 - jitter to 1 + jitter */
    double faults;      /* share of the operations, 0 to 1, that end with -EIO */
    double corrupts;    /* ... that succeed, but one bit of the output is wrong (crc32 and call: of the result) */
    double hangs;       /* ... whose completion is lost: only a cancel ends them, with -ECANCELED; their engine goes on.
                           The three shares together are at most 1 */
    uint64_t seed;      /* of all that is random: the same operations meet the same fates. Default 1, at most 2^53 */
    uint32_t canary_;   /* must be 0 */
} ol_emulated_desc;

/* Makes a device; desc NULL: all defaults. From any thread. -EINVAL: a member is out of its range, ol_error() names it;
   -ENOMEM. A loop takes about 120 bytes for each operation of depth; an operation costs O(engines + log depth). What
   no engine has begun can be cancelled, and those behind it move up. */
OL_API int ol_emulated_create(ol_backend **backend, const ol_emulated_desc *desc);

/* Changes times, bytes_per_s, exponent, jitter and shares for the operations submitted from now on. From any thread,
   while loops use it. Members from name to order, and seed, stay as they were, whatever desc says. -EINVAL as above. */
OL_API int ol_emulated_change(ol_backend *backend, const ol_emulated_desc *desc);

/* Frees it. -EBUSY while a loop uses it. */
OL_API int ol_emulated_destroy(ol_backend *backend);

/* A desc from text: words MEMBER=VALUE, and before them the name of one of these devices or none:
       bluefield2-host, bluefield2-nic   the compression engine of a SmartNIC, used from its host and from its own cores
       qat-like                          many engines behind a ring, in order, and far away
       slow                              slower than software at every size
   as in "bluefield2-host engines=2 latency_ns=3000 jitter=0.1 kinds=deflate,inflate". Where their figures come from
   stands with them, in >>backend:emulated. On an error (-EINVAL; a 0 that would mean another default is one) *out is
   unchanged and err, if not NULL, gets the text of ol_error(), which names the member. */
OL_API int ol_emulated_parse(const char *text, ol_emulated_desc *out, char *err, size_t err_len);

#endif /* OFFLOAD_H */

#if defined(OFFLOAD_IMPLEMENTATION) && !defined(OFFLOAD_IMPLEMENTED_H)
#define OFFLOAD_IMPLEMENTED_H

#if !defined(__linux__)
#error "offload.h: the implementation needs Linux (epoll, eventfd, futex)"
#endif
#if !defined(_GNU_SOURCE)
#error "offload.h: compile the file with OFFLOAD_IMPLEMENTATION with -D_GNU_SOURCE (it needs accept4 and epoll)"
#endif

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>sys

   The seam. Everything that touches the outside goes through these macros; a translation unit may define them, a group
   as a whole, before it includes the implementation. System calls return -1 with errno set, as the originals do. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* memory; alignment as malloc's */
#if !defined(OL_SYS_MALLOC)
#define OL_SYS_MALLOC(n) malloc(n)
#define OL_SYS_REALLOC(p, n) realloc((p), (n))
#define OL_SYS_FREE(p) free(p)
#endif

/* the most that ISA-L, which counts in 32 bits, is given at a time */
#if !defined(OL_SYS_PIECE)
#define OL_SYS_PIECE (1 << 30)
#endif

/* clock: int64_t ns, monotonic */
#if !defined(OL_SYS_NOW)
#define OL_SYS_NOW() ol__sys_now()
static int64_t ol__sys_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
#endif

/* epoll and eventfd; timeout in ns, -1 without limit */
#if !defined(OL_SYS_EPOLL_WAIT)
#define OL_SYS_EPOLL_CREATE() epoll_create1(EPOLL_CLOEXEC)
#define OL_SYS_EPOLL_CTL(ep, op, fd, event) epoll_ctl((ep), (op), (fd), (event))
#define OL_SYS_EPOLL_WAIT(ep, events, n, timeout_ns) ol__sys_epoll_wait((ep), (events), (n), (timeout_ns))
#define OL_SYS_EVENTFD() eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
#if !defined(SYS_epoll_pwait2)
#define SYS_epoll_pwait2 441
#endif
/* ThreadSanitizer keeps signals back while a thread waits in a system call that it doesn't know. */
#if defined(__SANITIZE_THREAD__)
#define OL__SYS_COARSE 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define OL__SYS_COARSE 1
#endif
#endif
#if !defined(OL__SYS_COARSE)
#define OL__SYS_COARSE 0
#endif
static int ol__sys_epoll_wait(int ep, struct epoll_event *events, int n, int64_t timeout_ns) {
    /* Linux 5.11 has nanoseconds; older kernels and filters of calls get milliseconds, rounded up */
    static int coarse = OL__SYS_COARSE;
    if (timeout_ns > 0) {
        struct timespec t;
        t.tv_sec = (time_t)(timeout_ns / 1000000000);
        t.tv_nsec = (long)(timeout_ns % 1000000000);
        if (!__atomic_load_n(&coarse, __ATOMIC_RELAXED)) {
            const long r = syscall(SYS_epoll_pwait2, ep, events, n, &t, (void *)0, (size_t)0);
            if (r >= 0 || (errno != ENOSYS && errno != EPERM)) return (int)r;
            __atomic_store_n(&coarse, 1, __ATOMIC_RELAXED);
        }
        timeout_ns = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
        if (timeout_ns > INT_MAX) timeout_ns = INT_MAX;
    }
    return epoll_wait(ep, events, n, (int)timeout_ns);
}
#endif

/* what guests need: a timer that wakes an epoll fd */
#if !defined(OL_SYS_TIMERFD)
#define OL_SYS_TIMERFD() timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
#define OL_SYS_TIMERFD_SET(fd, ns) ol__sys_timerfd_set((fd), (ns)) /* expires in ns; 0: never */
static int ol__sys_timerfd_set(int fd, int64_t ns) {
    struct itimerspec t;
    memset(&t, 0, sizeof t);
    t.it_value.tv_sec = (time_t)(ns / 1000000000);
    t.it_value.tv_nsec = (long)(ns % 1000000000);
    return timerfd_settime(fd, 0, &t, NULL);
}
#endif

/* sockets and pipes; SEND and SENDV are for sockets and never raise SIGPIPE */
#if !defined(OL_SYS_READ)
#define OL_SYS_READ(fd, buf, n) read((fd), (buf), (n))
#define OL_SYS_WRITE(fd, buf, n) write((fd), (buf), (n))
#define OL_SYS_READV(fd, iov, n) readv((fd), (iov), (n))
#define OL_SYS_WRITEV(fd, iov, n) writev((fd), (iov), (n))
#define OL_SYS_SEND(fd, buf, n) send((fd), (buf), (n), MSG_NOSIGNAL)
#define OL_SYS_SENDV(fd, iov, n) ol__sys_sendv((fd), (iov), (n))
#define OL_SYS_ACCEPT(fd) accept4((fd), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
#define OL_SYS_CONNECT(fd, addr, len) connect((fd), (addr), (len))
#define OL_SYS_SOCKET(domain, type, protocol) socket((domain), (type), (protocol))
#define OL_SYS_BIND(fd, addr, len) bind((fd), (addr), (len))
#define OL_SYS_LISTEN(fd, backlog) listen((fd), (backlog))
#define OL_SYS_SHUTDOWN(fd) shutdown((fd), SHUT_RDWR)
#define OL_SYS_CLOSE(fd) close(fd)
#define OL_SYS_GETSOCKOPT(fd, name, value) ol__sys_getsockopt((fd), (name), (value)) /* SOL_SOCKET, an int */
#define OL_SYS_SETSOCKOPT(fd, name, value) setsockopt((fd), SOL_SOCKET, (name), &(value), sizeof(value))
#define OL_SYS_NONBLOCK(fd) ol__sys_nonblock(fd)
static ssize_t ol__sys_sendv(int fd, struct iovec *iov, int n) {
    struct msghdr m;
    memset(&m, 0, sizeof m);
    m.msg_iov = iov;
    m.msg_iovlen = (size_t)n;
    return sendmsg(fd, &m, MSG_NOSIGNAL);
}
static int ol__sys_getsockopt(int fd, int name, int *value) {
    socklen_t len = sizeof *value;
    return getsockopt(fd, SOL_SOCKET, name, value, &len);
}
static int ol__sys_nonblock(int fd) {
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || (flags & O_NONBLOCK)) return flags < 0 ? -1 : 0;
    return fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}
#endif

/* files */
#if !defined(OL_SYS_PREAD)
#define OL_SYS_FSTAT(fd, st) fstat((fd), (st))
#define OL_SYS_FSTATAT(fd, path, st) fstatat((fd), (path), (st), 0)
#define OL_SYS_PREAD(fd, buf, n, offset) pread((fd), (buf), (n), (offset))
#define OL_SYS_PREAD_CACHED(fd, buf, n, offset) ol__sys_pread_cached((fd), (buf), (n), (offset))
#define OL_SYS_OPEN(dir, path, flags, mode) openat((dir), (path), (flags), (mode_t)(mode))
#define OL_SYS_OPEN2(dir, path, flags, mode, resolve) ol__sys_open2((dir), (path), (flags), (mode), (resolve))
#define OL_SYS_BLOCK(fd) ol__sys_block(fd) /* clears O_NONBLOCK */
#if !defined(SYS_openat2)
#define SYS_openat2 437
#endif
enum { OL__RESOLVE_BENEATH = 0x08, OL__RESOLVE_CACHED = 0x20 }; /* linux/openat2.h, Linux 5.6 and 5.12 */
static ssize_t ol__sys_pread_cached(int fd, void *buf, size_t n, int64_t offset) {
#if defined(RWF_NOWAIT)
    struct iovec iov;
    iov.iov_base = buf;
    iov.iov_len = n;
    return preadv2(fd, &iov, 1, offset, RWF_NOWAIT);
#else
    (void)fd, (void)buf, (void)n, (void)offset;
    errno = EOPNOTSUPP;
    return -1;
#endif
}
static int ol__sys_block(int fd) {
    const int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}
static int ol__sys_open2(int dir, const char *path, int flags, uint32_t mode, uint64_t resolve) {
    uint64_t how[3]; /* struct open_how: flags, mode, resolve */
    how[0] = (uint64_t)(uint32_t)flags;
    how[1] = mode;
    how[2] = resolve;
    return (int)syscall(SYS_openat2, dir, path, how, sizeof how);
}
#endif

/* threads */
#if !defined(OL_SYS_THREAD_START)
#define OL_SYS_THREAD pthread_t
#define OL_SYS_THREAD_START(thread, fn, arg) ol__sys_thread_start((thread), (fn), (arg))
#define OL_SYS_THREAD_JOIN(thread) pthread_join((thread), NULL)
#define OL_SYS_FUTEX_WAIT(word, value) syscall(SYS_futex, (word), 128 /* WAIT, private */, (value), NULL, NULL, 0)
#define OL_SYS_FUTEX_WAKE(word, n) syscall(SYS_futex, (word), 129 /* WAKE, private */, (n), NULL, NULL, 0)
#define OL_SYS_MUTEX pthread_mutex_t
#define OL_SYS_MUTEX_INIT PTHREAD_MUTEX_INITIALIZER
#define OL_SYS_MUTEX_LOCK(m) pthread_mutex_lock(m)
#define OL_SYS_MUTEX_UNLOCK(m) pthread_mutex_unlock(m)
#define OL_SYS_CPUS() ol__sys_cpus()
#define OL_SYS_SCHED_IDLE() ol__sys_sched_idle()
static int ol__sys_thread_start(pthread_t *thread, void *(*fn)(void *), void *arg) {
    sigset_t all, old; /* the application's signals are for the application's threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int r = pthread_create(thread, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}
static int ol__sys_cpus(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    const int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n;
}
static void ol__sys_sched_idle(void) {
    struct sched_param p;
    memset(&p, 0, sizeof p);
    (void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &p);
}
#endif
#if !defined(OL_SYS_AT_FORK) /* calls fn in each child of fork; 0 or an errno */
#define OL_SYS_AT_FORK(fn) pthread_atfork(NULL, NULL, (fn))
#endif
#if !defined(OL_SYS_NAP) /* a moment's sleep of the thread */
#define OL_SYS_NAP() ol__sys_nap()
static void ol__sys_nap(void) {
    struct timespec t;
    t.tv_sec = 0;
    t.tv_nsec = 20000;
    (void)nanosleep(&t, NULL);
}
#endif
#if !defined(OL_SYS_PAUSE)
#if defined(__x86_64__) || defined(__i386__)
#define OL_SYS_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define OL_SYS_PAUSE() __asm__ volatile("yield" ::: "memory")
#else
#define OL_SYS_PAUSE() ((void)0)
#endif
#endif

/* the emulated device. SPEND: the calling thread is busy so long setting it up. What it does between STOP and GO is the
   device's work, or the emulation's: a clock that measures the program alone stands still there, and is not read. */
#if !defined(OL_SYS_SPEND)
#define OL_SYS_SPEND(ns) ol__sys_spend(ns)
static void ol__sys_spend(int64_t ns) {
    const int64_t begin = OL_SYS_NOW();
    while (OL_SYS_NOW() - begin < ns) OL_SYS_PAUSE();
}
#endif
#if !defined(OL_SYS_CLOCK_STOP)
#define OL_SYS_CLOCK_STOP() ((void)0)
#define OL_SYS_CLOCK_GO() ((void)0)
#endif

/* atomics. OL_SYS_ATOMIC names the type of a word shared by threads. No stand-alone fences: ThreadSanitizer does not
   model them. Each order is as weak as it can be: make model weakens them one at a time, and each must be missed. */
#if !defined(OL_SYS_ATOMIC)
#define OL_SYS_ATOMIC(T) T
#define OL_SYS_RELAXED __ATOMIC_RELAXED
#define OL_SYS_ACQUIRE __ATOMIC_ACQUIRE
#define OL_SYS_RELEASE __ATOMIC_RELEASE
#define OL_SYS_ACQ_REL __ATOMIC_ACQ_REL
#define OL_SYS_SEQ_CST __ATOMIC_SEQ_CST
#define OL_SYS_LOAD(p, order) __atomic_load_n((p), (order))
#define OL_SYS_STORE(p, value, order) __atomic_store_n((p), (value), (order))
#define OL_SYS_XCHG(p, value, order) __atomic_exchange_n((p), (value), (order))
#define OL_SYS_ADD(p, value, order) __atomic_fetch_add((p), (value), (order)) /* returns the old value */
#define OL_SYS_CAS(p, expected, value, order)                                                                          \
    __atomic_compare_exchange_n((p), (expected), (value), 0, (order), OL_SYS_RELAXED)
#endif

#if defined(OFFLOAD_ISAL)
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#endif

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>memory: errors, panic, tables                                                                                  */

/* One text for each situation; the number is kept in a coroutine's or an operation's `err`. OL__E_SYSTEM stands for an
   errno that a system call gave. */
#define OL__SITUATIONS(X)                                                                                              \
    X(OL__E_NONE, 0, "no error")                                                                                       \
    X(OL__E_RESULT, 0, "the function, coroutine or backend returned this error itself")                                \
    X(OL__E_NULL, EINVAL, "a pointer that must not be NULL is")                                                        \
    X(OL__E_SYSTEM, 0, "a system call failed: strerror(-result) names the reason")                                     \
    X(OL__E_STALE, EBADF, "the fd is closed or its handle stale: use the handle that attach, accept or socket gave")   \
    X(OL__E_CLOSED, ECANCELED, "the fd was closed during the wait")                                                    \
    X(OL__E_OTHER_PART, EXDEV, "the fd belongs to another partition: ol_join it first")                                \
    X(OL__E_HELD, EXDEV, "the fd's partition is held by another: ol_join it in a coroutine, or try later")             \
    X(OL__E_WAITER, EBUSY, "another coroutine waits for this direction of the fd: one reader and one writer each")     \
    X(OL__E_NOT_READY, EAGAIN, "nothing is there now: a handler will be called when it is")                            \
    X(OL__E_GUEST_FD, ENOTSUP, "the fd is polled by another loop: to await it, give it to ol_attach instead")          \
    X(OL__E_GATE, EINVAL, "ol_gate_enter needs an fd of ol_attach_guest, a handler (ol_watch), and what is ready")     \
    X(OL__E_GATE_ENTERED, EBUSY, "between ol_gate_enter and ol_gate_leave only that one fd's event is handled")        \
    X(OL__E_GATE_LEFT, EINVAL, "ol_gate_leave without an ol_gate_enter that gave 1")                                   \
    X(OL__E_WATCH, EINVAL, "handler and fn must not be NULL, events OL_READABLE, OL_WRITABLE or both")                 \
    X(OL__E_WATCH_OTHER, EINVAL, "the handler watches another fd: each fd needs an ol_handler of its own")             \
    X(OL__E_JOIN, EBUSY, "both partitions are held: join when one is free, or from a coroutine by ol_join")            \
    X(OL__E_DEADLOCK, EDEADLK, "this wait could never end: its holder waits for the caller. Take locks and joins in "  \
                               "one order everywhere, or release what you hold first")                                 \
    X(OL__E_MUTEX_LOOP, EXDEV, "the mutex is held in another loop: one loop's coroutines share a mutex")               \
    X(OL__E_NOT_HOLDER, EINVAL, "the coroutine does not hold the mutex")                                               \
    X(OL__E_FORK, EINVAL, "ol_fork needs the running coroutine, an ol_child and a function")                           \
    X(OL__E_WAIT, EINVAL, "ol_wait needs a child that ol_fork started; only the root may wait for all")                \
    X(OL__E_WAIT_PART, EXDEV, "the child belongs to another root")                                                     \
    X(OL__E_FORKED, ECANCELED, "the process has forked: this operation goes on in the parent")                         \
    X(OL__E_CANCELED, ECANCELED, "the coroutine was cancelled: clean up and end, or call ol_cancel_clear")             \
    X(OL__E_DEADLINE, ETIMEDOUT, "the coroutine's deadline has passed: set a new one by ol_deadline, or end")          \
    X(OL__E_READ_ZERO, EINVAL, "a read of 0 bytes can't be told from the end of the stream: give it room")             \
    X(OL__E_IOV, EINVAL, "the iovec array is empty, NULL or longer than IOV_MAX")                                      \
    X(OL__E_NO_FD, EMFILE, "no free fd: raise ulimit -n, or close idle connections")                                   \
    X(OL__E_NO_MEMORY, ENOMEM, "out of memory")                                                                        \
    X(OL__E_NOT_PREPARED, EINVAL, "the operation is not prepared: call ol_prep_deflate, ol_prep_call, ... first")      \
    X(OL__E_IN_FLIGHT, EBUSY, "the operation is in flight: wait until its await returns or done is called")            \
    X(OL__E_NOT_IN_FLIGHT, EINVAL, "the operation is not in flight")                                                   \
    X(OL__E_OP_BUFFER, EINVAL, "src is NULL with len > 0, or dst is NULL with cap > 0")                                \
    X(OL__E_OP_FORMAT, EINVAL, "format must be OL_RAW, OL_ZLIB or OL_GZIP, level at most OL_LEVEL_STATIC")             \
    X(OL__E_OP_DICT, EINVAL, "a dictionary has at most 32,768 bytes, a pointer, and a stream with an earlier chunk")   \
    X(OL__E_OP_STREAM, EINVAL, "the stream is finished or failed: zero it to start a new one")                         \
    X(OL__E_OP_FN, EINVAL, "the function is NULL")                                                                     \
    X(OL__E_OP_CLASS, EINVAL, "class must be 0, OL_LATENCY or OL_BATCH")                                               \
    X(OL__E_NO_CODEC, ENOTSUP, "deflate and inflate need ISA-L: define OFFLOAD_ISAL and link with -lisal")             \
    X(OL__E_ZLIB_DICT, ENOTSUP, "the zlib stream needs a preset dictionary: use OL_RAW and a dictionary")              \
    X(OL__E_NO_ROOM, ENOSPC, "the output is too small: ol_deflate_bound tells what deflate needs at most")             \
    X(OL__E_CORRUPT, EBADMSG, "the compressed input is corrupt or truncated")                                          \
    X(OL__E_OP_CANCELED, ECANCELED, "the operation was cancelled before it ran")                                       \
    X(OL__E_OP_TIMEOUT, ETIMEDOUT, "the operation's timeout or its coroutine's deadline passed before it ran")         \
    X(OL__E_FULL, EAGAIN, "the backend and its waiting line are full: submit later, or raise depth or park_max")       \
    X(OL__E_FILE_BENEATH, ENOTSUP, "OL_BENEATH needs openat2 (Linux 5.6)")                                             \
    X(OL__E_DESC, EINVAL, "the desc was not zeroed, or a member is out of its range: see its comments in offload.h")   \
    X(OL__E_BACKEND_DESC, EINVAL, "a backend is NULL, lacks a function, has another version, or a bad or double name") \
    X(OL__E_ATTACHED, EEXIST, "the fd is attached to this loop already, or ol_close has not finished with it")         \
    X(OL__E_FD_NUMBER, EBADF, "the fd number is negative")                                                             \
    X(OL__E_NOT_POLLABLE, EPERM, "the fd can't be polled (a regular file?): use ol_pread")                             \
    X(OL__E_SPAWN, EINVAL, "co and fn must not be NULL, class 0, OL_LATENCY or OL_BATCH")                              \
    X(OL__E_RUNNING, EBUSY, "the loop is running: don't call this from inside it")                                     \
    X(OL__E_ALIVE, EBUSY, "coroutines are alive: end them, or call ol_loop_drain first")                               \
    X(OL__E_DRAINING, ECANCELED, "the loop is being drained or destroyed: callbacks start no more operations")         \
    X(OL__E_DRAIN, ETIMEDOUT, "coroutines or operations were still alive when the time was over")                      \
    X(OL__E_TIMER, EINVAL, "the timer and its function must not be NULL")                                              \
    X(OL__E_POLICY, EINVAL, "the policy is malformed: ol_policy_parse names the line")                                 \
    X(OL__E_STATS, EINVAL, "kind, class or what is out of its range, or a pointer NULL")                               \
    X(OL__E_DEVICE, EIO, "the device's output does not match its checksum: run it again, or in software")              \
    X(OL__E_BACKEND_BUSY, EBUSY, "a loop uses the backend: destroy its loops first")                                   \
    X(OL__E_CHANNELS, ENOSPC, "the pool serves 256 loops at most: create another one")

#define OL__ENUM_OF(name, number, text) name,
enum ol__situation { OL__SITUATIONS(OL__ENUM_OF) OL__E_COUNT };
#undef OL__ENUM_OF

static const struct ol__text {
    int number;
    const char *text;
} ol__texts[OL__E_COUNT] = {
#define OL__TEXT_OF(name, number, text) {(number), (text)},
    OL__SITUATIONS(OL__TEXT_OF)
#undef OL__TEXT_OF
};

static __thread const char *ol__last_error = "no error";
static void (*ol__panic_hook)(const char *text);

OL_API void ol__panic(const char *text) {
    if (ol__panic_hook) ol__panic_hook(text);
    abort();
}
OL_API void ol_set_panic(void (*hook)(const char *text)) { ol__panic_hook = hook; }

/* Cheap invariant checks; they stay on in release builds. */
#if defined(OL_SYS_CHECK)
#define OL__CHECK(condition, text) OL_SYS_CHECK(condition, text)
#else
#define OL__CHECK(condition, text)                                                                                     \
    do {                                                                                                               \
        if (__builtin_expect(!(condition), 0)) ol__panic("offload: broken invariant: " text);                          \
    } while (0)
#endif

/* Remedies for the errnos that servers meet; other errnos have their usual text. */
static const char *ol__system_text(int number) {
    switch (number) {
    case EMFILE:
    case ENFILE: return ol__texts[OL__E_NO_FD].text;
    case ENOMEM:
    case ENOBUFS: return ol__texts[OL__E_NO_MEMORY].text;
    case EADDRINUSE: return "the address is in use: another server listens there; choose another port";
    case EACCES: return "permission denied: ports below 1024 and some files need privileges";
    case ECONNREFUSED: return "connection refused: nothing listens there";
    case ECONNRESET: return "the peer reset the connection";
    case EPIPE: return "the peer has closed the connection";
    case ENOENT: return "no such file";
    case EXDEV: return "the name leads out of the directory";
    case EFAULT: return "a buffer's address is invalid";
    default: return ol__texts[OL__E_SYSTEM].text;
    }
}

static const char *ol__situation_text(unsigned situation, int64_t result) {
    if (result >= 0) return ol__texts[OL__E_NONE].text;
    if (situation == OL__E_SYSTEM) return ol__system_text((int)-result);
    return ol__texts[situation < OL__E_COUNT ? situation : 0].text;
}

/* For calls outside coroutines: remember the text, return the number. */
static int ol__fail(enum ol__situation situation) {
    ol__last_error = ol__texts[situation].text;
    return -ol__texts[situation].number;
}
static int ol__fail_errno(int number) {
    ol__last_error = ol__system_text(number);
    return -number;
}

OL_API const char *ol_error(void) { return ol__last_error; }
OL_API const char *ol_co_error(const ol_co *co) {
    return ol__situation_text((co->frame.bits >> OL__CO_ERR_SHIFT) & 0xff, co->result);
}
OL_API const char *ol_op_error(const ol_op *op) { return ol__situation_text(op->err, op->result); }

OL_API uint32_t ol_version(void) { return OL_VERSION_MAJOR << 16 | OL_VERSION_MINOR << 8 | OL_VERSION_PATCH; }

static void *ol__zalloc(size_t n) {
    void *p = OL_SYS_MALLOC(n);
    if (p) memset(p, 0, n);
    return p;
}

/* A table that holds at least `need` elements: the old one, or one doubled in size with the new elements zero. NULL: no
   memory, and the old one stays. */
static void *ol__grow(void *table, uint32_t *capacity, uint32_t need, size_t element) {
    if (need <= *capacity) return table;
    uint32_t n = *capacity ? *capacity : 64;
    while (n < need && n <= UINT32_MAX / 2) n *= 2;
    void *p = n < need ? NULL : OL_SYS_REALLOC(table, n * element);
    if (!p) {
        ol__fail(OL__E_NO_MEMORY);
        return NULL;
    }
    memset((char *)p + *capacity * element, 0, (n - *capacity) * element);
    *capacity = n;
    return p;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>list: FIFO queues of whatever waits or is to run                                                               */

/* An item is the address of one of these, with its kind in the low bits. */
typedef uintptr_t ol__item;
enum { OL__CO = 0, OL__OP = 1, OL__TIMER = 2, OL__POST = 3, OL__HANDLER = 4, OL__KIND = 7 };

static ol__item ol__item_co(ol_co *co) { return (uintptr_t)co; }
static ol__item ol__item_op(ol_op *op) { return (uintptr_t)op | OL__OP; }
static ol_co *ol__item_to_co(ol__item item) { return (ol_co *)item; }
static ol_op *ol__item_to_op(ol__item item) { return (ol_op *)(item & ~(uintptr_t)OL__KIND); }
static void *ol__item_to(ol__item item) { return (void *)(item & ~(uintptr_t)OL__KIND); }

static ol__item ol__item_next(ol__item item) {
    if (__builtin_expect(!(item & OL__KIND), 1)) return ((ol_co *)item)->link.next;
    switch (item & OL__KIND) {
    case OL__OP: return (ol__item)ol__item_to_op(item)->next_;
    case OL__TIMER: return ((ol_timer *)ol__item_to(item))->link_;
    case OL__POST: return ((ol_post_node *)ol__item_to(item))->link_;
    default: return ((ol_handler *)ol__item_to(item))->link_;
    }
}
static void ol__item_set_next(ol__item item, ol__item next) {
    if (__builtin_expect(!(item & OL__KIND), 1)) {
        ((ol_co *)item)->link.next = next;
        return;
    }
    switch (item & OL__KIND) {
    case OL__OP: ol__item_to_op(item)->next_ = (ol_op *)next; break;
    case OL__TIMER: ((ol_timer *)ol__item_to(item))->link_ = next; break;
    case OL__POST: ((ol_post_node *)ol__item_to(item))->link_ = next; break;
    default: ((ol_handler *)ol__item_to(item))->link_ = next;
    }
}

static void ol__push(ol__queue *q, ol__item item) {
    ol__item_set_next(item, 0);
    if (q->tail)
        ol__item_set_next(q->tail, item);
    else
        q->head = item;
    q->tail = item;
}

static ol__item ol__pop(ol__queue *q) {
    const ol__item item = q->head;
    if (!item) return 0;
    q->head = ol__item_next(item);
    if (!q->head) q->tail = 0;
    return item;
}

/* Takes an item out of the middle; O(n), on slow paths only. 1 if it was there. */
static int ol__unlink(ol__queue *q, ol__item item) {
    ol__item before = 0;
    for (ol__item i = q->head; i; before = i, i = ol__item_next(i)) {
        if (i != item) continue;
        const ol__item next = ol__item_next(i);
        if (before)
            ol__item_set_next(before, next);
        else
            q->head = next;
        if (!next) q->tail = before;
        return 1;
    }
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>ring: a bounded ring, one producer, many consumers                                                             */

/* The producer is a loop, the consumers are workers. A slot holds an operation, NULL (free) or OL__TOMB (its operation
   was cancelled while it waited). Positions are 64 bits wide and never wrap, so that a stalled consumer's CAS can't
   succeed by mistake. What the producer wrote, the slots included, is released with tail and acquired by who claims;
   head and slots hand over nothing but themselves. */
typedef struct ol__ring {
    OL_SYS_ATOMIC(uint64_t) head; /* next position to claim */
    char pad0[56];
    OL_SYS_ATOMIC(uint64_t) tail; /* next position to fill */
    uint64_t mask;
    OL_SYS_ATOMIC(ol_op *) * slot;
    char pad1[40];
} ol__ring;

#define OL__TOMB ((ol_op *)(uintptr_t)1)

/* Loop: appends; 0 if it is full. A slot is free only when the worker that claimed it has emptied it. */
static int ol__ring_put(ol__ring *r, ol_op *op) {
    const uint64_t t = OL_SYS_LOAD(&r->tail, OL_SYS_RELAXED);
    if (OL_SYS_LOAD(&r->slot[t & r->mask], OL_SYS_RELAXED)) return 0;
    OL_SYS_STORE(&r->slot[t & r->mask], op, OL_SYS_RELAXED);
    OL_SYS_STORE(&r->tail, t + 1, OL_SYS_RELEASE);
    return 1;
}

/* A hint: it may be old. */
static uint64_t ol__ring_size(ol__ring *r) {
    const uint64_t h = OL_SYS_LOAD(&r->head, OL_SYS_RELAXED);
    const uint64_t t = OL_SYS_LOAD(&r->tail, OL_SYS_RELAXED);
    return t > h ? t - h : 0;
}

/* Worker: claims a share of what waits, at most `most`, with one CAS. Returns how many, from position *first on. */
static uint64_t ol__ring_claim(ol__ring *r, uint64_t share, uint64_t most, uint64_t *first) {
    uint64_t h = OL_SYS_LOAD(&r->head, OL_SYS_RELAXED);
    for (;;) {
        const uint64_t t = OL_SYS_LOAD(&r->tail, OL_SYS_ACQUIRE);
        if (t <= h) return 0;
        uint64_t n = (t - h + share - 1) / share;
        if (n > most) n = most;
        if (OL_SYS_CAS(&r->head, &h, h + n, OL_SYS_RELAXED)) {
            *first = h;
            return n;
        }
    }
}

/* Worker: empties a claimed slot; NULL if the operation was cancelled meanwhile. */
static ol_op *ol__ring_take(ol__ring *r, uint64_t position) {
    ol_op *op = OL_SYS_XCHG(&r->slot[position & r->mask], (ol_op *)NULL, OL_SYS_RELAXED);
    return op == OL__TOMB ? NULL : op;
}

/* Loop: takes a waiting operation back; 0 if a worker has it. O(n), for cancels. */
static int ol__ring_cancel(ol__ring *r, ol_op *op) {
    const uint64_t t = OL_SYS_LOAD(&r->tail, OL_SYS_RELAXED);
    for (uint64_t i = t > r->mask ? t - r->mask - 1 : 0; i < t; i++) {
        ol_op *expected = op;
        if (OL_SYS_LOAD(&r->slot[i & r->mask], OL_SYS_RELAXED) != op) continue;
        return OL_SYS_CAS(&r->slot[i & r->mask], &expected, OL__TOMB, OL_SYS_RELAXED);
    }
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>clock: the loop and its parts                                                                                  */

/* Sleep and wake. The loop announces its sleep by an exchange, then looks once more for work; a notifier first
   publishes its work, then exchanges. Both are read-modify-writes of one word, so one of the two sees the other: the
   notifier the announcement, or the loop, which acquires what all exchanges before its own have released, the work. For
   that every change of the word has to be an exchange, the loop's way back to 0 as well. */
struct ol_notify {
    OL_SYS_ATOMIC(uint32_t) sleeping;
    int eventfd;
};

typedef struct ol__slot { /* what the loop knows of an fd number */
    uint32_t gen;         /* generation of the handle in force, or of the next one */
    uint8_t bits;         /* OL__READ, OL__WRITE, ... */
    uint8_t flags;        /* OL__OPEN, ... */
    uint8_t cls;
    uint8_t reserved;
    uint32_t part;
    uint32_t next, prev; /* fd + 1 of its neighbours in the list of its partition's fds */
    ol_co *wait[2];      /* who waits to read, to write */
    ol_handler *handler;
} ol__slot;

enum { OL__READ = 1, OL__WRITE = 2, OL__EOF = 4, OL__ERROR = 8, OL__URGENT = 16 }; /* slot.bits: readiness */
enum { /* slot.flags */
    OL__OPEN = 1,       /* attached */
    OL__CLOSING = 2,    /* ol_close was called, close(2) waits for operations */
    OL__TCP = 4,        /* a short read means that it is drained */
    OL__SOCKET = 8,
    OL__GUEST = 16,     /* another loop polls it */
    OL__JOINED = 32,    /* its class is its partition's */
    OL__PAUSED = 64,    /* a listener that waits for a free fd */
    OL__INHERITED = 128 /* by the child of a fork: the parent has it, too */
};
enum { OL__FRESH = 256 }; /* to ol__attach: the kernel has just given out the number, so nobody else can have it */
enum { OL__IN = 0, OL__OUT = 1 }; /* directions */

typedef struct ol__part { /* a partition. It is held while it has a holder or an operation in flight */
    ol__item holder;    /* the root that lives in it, or the callback that is to run or runs in it */
    ol__queue waiting;  /* roots to start, callbacks to run, coroutines of other partitions that join: FIFO */
    ol_op *ops;         /* its operations in flight */
    ol_child *children; /* of its root */
    uint32_t fd;        /* fd + 1 of its first fd */
    uint32_t closing;   /* fds that wait for operations to be closed; in a free partition: the next free one */
} ol__part;

#define OL__CALLBACK ((ol__item)OL__KIND) /* holder: a done callback, or the guest */

typedef struct ol__timer_entry {
    int64_t when;      /* the key; not later than wake and deadline */
    int64_t wake;      /* end of a sleep; a timer's time */
    int64_t deadline;
    ol__item target;   /* a coroutine, an operation or a timer */
} ol__timer_entry;

typedef struct ol__line { /* one for each class and sort: neither batch nor blocking calls hold up the others */
    ol__queue staged;     /* to be submitted in a burst */
    ol__queue parked;     /* waiting for room */
    uint32_t in_flight;   /* staged and in the backend */
    uint32_t parked_n;
} ol__line;

typedef struct ol__lane { /* a loop's channel to a backend */
    ol_backend *backend;
    ol_channel channel;
    uint32_t in_backend;
    uint32_t forks; /* of the process, when the channel was opened */
    ol__line line[4];
    int64_t looked;     /* when completions were last looked for */
    int64_t progress;   /* when it last completed something, or began to have something to complete */
    uint32_t shun;      /* it stalled: auto tries it only once in so many operations, */
    uint32_t shun_left; /* and so many are left until then */
    float work;         /* ns that what is in flight takes, as far as that is known */
    float share;        /* of that work that the next operation waits: 1 with one engine, 1/n with n */
    float submit_ns[2]; /* the loop's time for handing over one operation: awake, asleep */
    float reap_ns;      /* ... and for taking it back */
} ol__lane;

typedef struct ol__cell { /* what is known of a kind, class and range of sizes */
    uint64_t n[6];        /* operations by mode */
    float ns[3][2];       /* time to the result by OL__HERE ([0] only), OL__ASYNC, OL__SYNC from a backend that has
                             nothing else, awake and asleep: moving averages, 0 unknown */
    float service;        /* time that a backend works on it */
    uint8_t choice;       /* which of the three */
    uint8_t other;        /* which of the rest is tried next */
    uint16_t timed;       /* counts operations between two that are timed, */
    uint16_t probe;       /* ... and down to one that tries another way */
    uint16_t interval;    /* between two of those */
} ol__cell;
enum { OL__HERE = 0, OL__ASYNC = 1, OL__SYNC = 2, OL__BUCKETS = 16 };

typedef struct ol__sample { /* an operation whose times are taken */
    int64_t begin;
    int64_t handed; /* to the backend */
    float submit_ns;
    uint8_t next;  /* of the free ones */
    uint8_t count; /* for the histograms */
    uint8_t learn; /* for auto: 1 + its way */
    uint8_t asleep;
    float backlog; /* of the backend, before it */
} ol__sample;

typedef struct ol__slicer { /* one for each class */
    ol_op *op;         /* under way */
    ol__queue waiting;
    uint32_t waiting_n;
    int first;
    int64_t spent; /* on op */
    ol_exec *exec; /* made at first use */
} ol__slicer;

enum { OL__CALLS = 1, OL__OF_BATCH = 2 }; /* a line's number, and a ring's, is the sum of what it is for */
enum { OL__LANES = 9 };                   /* software, seven of the application's, the shared pool */

struct ol_loop {
    ol_notify notify; /* shared with other threads */
    OL_SYS_ATOMIC(void *) posts;
    char pad[64];
    ol_loop_desc desc;
    int ep;
    uint32_t gen_seed;
    int64_t now;
    int64_t polled; /* when the kernel was last asked */
    int64_t slept;  /* ... and when the loop last slept in it, or spun */
    uint32_t skipped; /* rounds since then */
    ol__slot *slot;
    uint32_t slots;
    uint32_t parts;
    ol__part *part;
    uint32_t free_part;
    uint32_t used_parts;
    ol__timer_entry *heap; /* 1-based */
    uint32_t heap_capacity;
    uint32_t heap_n;
    uint32_t user_timers;
    uint32_t handlers;
    uint32_t posts_held; /* taken from `posts`, waiting for their partitions */
    ol_timer pause;      /* of listeners without a free fd */
    ol_mutex *locks;     /* that are held */
    ol_co **seen;        /* of the search for deadlocks */
    uint32_t seen_capacity;
    uint32_t seen_n;
    int eventfd_before;  /* the one of before a fork, or -1 */
    int timerfd;         /* -1: nobody asked for ol_loop_fd */
    int64_t armed;       /* when it expires */
    uint32_t forks;      /* of the process, when `ep` was made */
    uint32_t budget;  /* what the running coroutine may still do without suspending */
    ol__queue ready[3];
    uint32_t latency_streak;
    uint32_t ran;     /* latency-critical resumes and callbacks in the last round */
    ol_co *current;   /* the running coroutine */
    uint32_t callback_part; /* that of the running callback */
    uint32_t guest_part;    /* that of the event that the guest handles */
    ol_op *sync_op;   /* a synchronous waiter's operation */
    int inside, stop, draining;
    ol__lane lane[OL__LANES]; /* [0] is software */
    uint32_t lanes;
    uint32_t ops; /* accepted, not complete */
    ol_exec *exec;
    ol__slicer slicer[2];
    ol__cell (*cell)[2][OL__BUCKETS];   /* by kind - 1, class - 1, size */
    ol_histogram (*times)[2][OL_TIME_LAG]; /* by kind - 1, class - 1, what */
    ol_histogram lag;
    ol__sample sample[256]; /* [0].next heads the free ones, 0 ends them */
    uint32_t sampled;       /* operations since the last that was counted */
    struct epoll_event *event;
    ol_policy policy;
    uint8_t rule_lane[OL_POLICY_RULES];
    ol_loop_stats stats;
    int uses_default_pool;
};

static int64_t ol__refresh(ol_loop *loop) { return loop->now = OL_SYS_NOW(); }
OL_API int64_t ol_now(const ol_loop *loop) { return loop->now; }

static void ol__log(const ol_loop *loop, int level, const char *text) {
    if (loop->desc.log) loop->desc.log(loop->desc.log_user, level, text);
}

OL_API void ol_notify_loop(ol_notify *notify) {
    if (OL_SYS_XCHG(&notify->sleeping, 0u, OL_SYS_RELEASE)) {
        const int saved = errno; /* this may run in a signal handler */
        const uint64_t one = 1;
        while (OL_SYS_WRITE(notify->eventfd, &one, sizeof one) < 0 && errno == EINTR) {}
        errno = saved;
    }
}

static int ol__ready(const ol_loop *loop) { return loop->ready[OL_LATENCY].head || loop->ready[OL_BATCH].head; }

/* Forks that this process has behind it. A loop that was made before notices at its next use that its epoll fd is the
   parent's and its workers are not here. */
static uint32_t ol__forks;

/* After a call from outside a step that made work: who watches ol_loop_fd is to call ol_loop_step. */
static void ol__outside(ol_loop *loop) {
    if (loop->timerfd >= 0 && !loop->inside && loop->forks == ol__forks) ol_notify_loop(&loop->notify);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>timers: a 4-ary heap; each target knows its place                                                              */

static void ol__heap_tell(ol__item target, uint32_t i) {
    switch (target & OL__KIND) {
    case OL__CO: ol__item_to_co(target)->timer = i; break;
    case OL__OP: ol__item_to_op(target)->timer_ = i; break;
    default: ((ol_timer *)ol__item_to(target))->index = i;
    }
}
static void ol__heap_place(ol_loop *loop, uint32_t i, const ol__timer_entry *e) {
    loop->heap[i] = *e;
    ol__heap_tell(e->target, i);
}

static void ol__heap_up(ol_loop *loop, uint32_t i, ol__timer_entry e) {
    while (i > 1) {
        const uint32_t up = (i - 2) / 4 + 1;
        if (loop->heap[up].when <= e.when) break;
        ol__heap_place(loop, i, &loop->heap[up]);
        i = up;
    }
    ol__heap_place(loop, i, &e);
}

static void ol__heap_down(ol_loop *loop, uint32_t i, ol__timer_entry e) {
    for (;;) {
        const uint64_t child = 4 * ((uint64_t)i - 1) + 2;
        if (child > loop->heap_n) break;
        uint32_t least = (uint32_t)child;
        for (uint32_t k = least + 1; k < least + 4 && k <= loop->heap_n; k++)
            if (loop->heap[k].when < loop->heap[least].when) least = k;
        if (loop->heap[least].when >= e.when) break;
        ol__heap_place(loop, i, &loop->heap[least]);
        i = least;
    }
    ol__heap_place(loop, i, &e);
}

static void ol__heap_rekey(ol_loop *loop, uint32_t i, ol__timer_entry e) {
    e.when = e.wake < e.deadline ? e.wake : e.deadline;
    if (e.when < loop->heap[i].when)
        ol__heap_up(loop, i, e);
    else
        ol__heap_down(loop, i, e);
}

static int ol__heap_add(ol_loop *loop, ol__item target, int64_t wake, int64_t deadline) {
    void *heap = ol__grow(loop->heap, &loop->heap_capacity, loop->heap_n + 2, sizeof *loop->heap);
    if (!heap) return -ENOMEM;
    loop->heap = (ol__timer_entry *)heap;
    ol__timer_entry e;
    e.when = wake < deadline ? wake : deadline;
    e.wake = wake;
    e.deadline = deadline;
    e.target = target;
    ol__heap_up(loop, ++loop->heap_n, e);
    return 0;
}

static void ol__heap_remove(ol_loop *loop, uint32_t i) {
    const ol__item target = loop->heap[i].target;
    const ol__timer_entry last = loop->heap[loop->heap_n--];
    if (i <= loop->heap_n) {
        if (last.when < loop->heap[i].when)
            ol__heap_up(loop, i, last);
        else
            ol__heap_down(loop, i, last);
    }
    ol__heap_tell(target, 0);
}

/* The sum of a time and a span, without overflow. */
static int64_t ol__after(int64_t now, int64_t ns) { return ns < OL_NEVER - now ? now + ns : OL_NEVER; }

/* Sets one of a coroutine's two times. Where its deadline is only put off, the key stays and is corrected when it comes
   up: a server moves a connection's deadline with each request. */
static int ol__co_times(ol_co *co, int64_t wake, int64_t deadline) {
    ol_loop *loop = co->loop;
    if (!co->timer) {
        if (wake == OL_NEVER && deadline == OL_NEVER) return 0;
        return ol__heap_add(loop, ol__item_co(co), wake, deadline);
    }
    ol__timer_entry e = loop->heap[co->timer];
    e.wake = wake;
    e.deadline = deadline;
    const int64_t when = wake < deadline ? wake : deadline;
    if (when == OL_NEVER)
        ol__heap_remove(loop, co->timer);
    else if (when < e.when || wake != OL_NEVER)
        ol__heap_rekey(loop, co->timer, e);
    else
        loop->heap[co->timer] = e;
    return 0;
}

static int64_t ol__co_deadline(const ol_co *co) {
    return co->timer ? co->loop->heap[co->timer].deadline : OL_NEVER;
}
static int64_t ol__co_wake(const ol_co *co) { return co->timer ? co->loop->heap[co->timer].wake : OL_NEVER; }

static ol__item ol__item_timer(ol_timer *timer) { return (uintptr_t)timer | OL__TIMER; }

static void ol__withdraw(ol_loop *loop, uint32_t index, ol__item item);
static void ol__timer_withdraw(ol_loop *loop, ol_timer *timer) {
    const uint32_t index = timer->part_;
    if (!index) return;
    timer->part_ = 0;
    loop->user_timers--;
    ol__withdraw(loop, index, ol__item_timer(timer));
}

OL_API int ol_timer_start(ol_loop *loop, ol_timer *timer, int64_t ns, void (*fn)(ol_loop *, ol_timer *)) {
    if (!loop || !timer || !fn) return ol__fail(OL__E_TIMER);
    const int64_t when = ol__after(ol__refresh(loop), ns > 0 ? ns : 0);
    if (!timer->index) {
        if (ol__heap_add(loop, ol__item_timer(timer), when, OL_NEVER) < 0) return -ENOMEM;
        loop->user_timers++;
    } else {
        ol__timer_entry e = loop->heap[timer->index];
        e.wake = when;
        ol__heap_rekey(loop, timer->index, e);
    }
    timer->fn = fn;
    ol__timer_withdraw(loop, timer); /* it had fired, and waited for its partition */
    ol__outside(loop);
    return 0;
}

OL_API void ol_timer_stop(ol_loop *loop, ol_timer *timer) {
    if (!loop || !timer) return;
    if (timer->index) {
        ol__heap_remove(loop, timer->index);
        loop->user_timers--;
    }
    ol__timer_withdraw(loop, timer);
    ol__outside(loop);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>coroutine: resume, suspend, wake                                                                               */

enum { /* what a coroutine waits for */
    OL__W_READY = 1,  /* its turn, or nothing: it runs */
    OL__W_IN = 2,     /* an fd to become readable */
    OL__W_OUT = 3,    /* an fd to become writable */
    OL__W_OP = 4,     /* an operation */
    OL__W_TIME = 5,   /* a time */
    OL__W_PART = 6,   /* its partition, to start */
    OL__W_JOIN = 7,   /* another partition, that of the fd in `result` */
    OL__W_LOCK = 8,   /* the mutex in `result` */
    OL__W_CHILD = 9,  /* a child, or all */
    OL__W_END = 10    /* all children, at its end */
};

static uint32_t ol__waits(const ol_co *co) { return (co->frame.bits >> OL__CO_WAIT_SHIFT) & 0xf; }
static void ol__set_waits(ol_co *co, uint32_t what) {
    co->frame.bits = (co->frame.bits & ~(0xfu << OL__CO_WAIT_SHIFT)) | what << OL__CO_WAIT_SHIFT;
}
static uint32_t ol__co_class(const ol_co *co) { return co->frame.bits & OL__CO_CLASS; }

/* The await is over with this result. */
static int ol__done(ol_co *co, int64_t result) {
    co->result = result;
    return OL__DONE;
}
static void ol__co_error(ol_co *co, unsigned situation, int64_t result) {
    co->frame.bits = (co->frame.bits & ~(0xffu << OL__CO_ERR_SHIFT)) | situation << OL__CO_ERR_SHIFT;
    co->result = result;
}
static int ol__spend(ol_loop *loop, uint32_t cost);
static void ol__wake(ol_co *co, uint32_t flag);

/* The result is there; the coroutine goes on, or, if it has used up its budget, when its turn comes again. Failures
   cost, too: a coroutine that tries again and again must not stop the loop. */
static int ol__give(ol_co *co, uint32_t cost) {
    if (ol__spend(co->loop, cost)) return OL__DONE;
    ol__wake(co, OL__CO_DONE);
    return OL__PENDING;
}
static int ol__co_fail(ol_co *co, unsigned situation, int64_t result) {
    ol__co_error(co, situation, result);
    return ol__give(co, 1);
}
static int ol__co_situation(ol_co *co, enum ol__situation s) { return ol__co_fail(co, s, -ol__texts[s].number); }

/* Puts a suspended coroutine into the ready queue. `flag` says whether its result is there or the await is to be
   evaluated again. */
static void ol__wake(ol_co *co, uint32_t flag) {
    co->frame.bits |= flag;
    ol__set_waits(co, OL__W_READY);
    ol__push(&co->loop->ready[ol__co_class(co)], ol__item_co(co));
}

OL_API void ol__trap_await(ol_co *co) {
    (void)co;
    ol__panic("offload: a coroutine was resumed at an await inside a switch of its own, or its frame was overwritten: "
              "awaits must stand outside inner switches");
}

static void ol__trap_return(void) {
    ol__panic("offload: a coroutine returned without OL_END or OL_RETURN");
}

/* Runs a coroutine until it suspends or ends. Its innermost frame is called directly; when that ends, its caller, and
   so on: the depth costs nothing on a resume. After the root's end its memory may be gone: only loop->current is
   looked at. */
static inline __attribute__((always_inline)) int ol__resume(ol_loop *loop, ol_co *co) { /* 1: it yielded */
    int yielded = 0;
    loop->current = co;
    loop->budget = loop->desc.budget;
    for (;;) {
        ol_frame *const frame = co->top;
        ol_frame *const up = frame->up;
        frame->fn(co);
        if (loop->current != co) break;
        if (co->top == up) continue;
        if (co->top->state == OL__RUNNING) ol__trap_return();
        yielded = co->link.fd == OL__YIELD;
        if (yielded) ol__push(&loop->ready[ol__co_class(co)], ol__item_co(co));
        break;
    }
    loop->current = NULL;
    return yielded;
}

OL_API int ol__call(ol_co *co, ol_frame *frame, void (*fn)(ol_co *)) {
    ol_frame *const up = co->top;
    frame->state = 0;
    frame->bits = 0;
    frame->fn = fn;
    frame->up = up;
    co->top = frame;
    fn(co);
    if (co->top == up) {
        (void)ol__take(co);
        return OL__DONE;
    }
    if (co->top->state == OL__RUNNING) ol__trap_return();
    return OL__PENDING;
}

/* A coroutine that an event has woken is no longer the one that waits, on one of its partition's fds: mostly it has
   only one. */
static void ol__slot_forget(ol_co *co) {
    ol_loop *loop = co->loop;
    co->frame.bits &= ~(uint32_t)OL__CO_IN_SLOT;
    for (uint32_t fd = loop->part[co->part].fd; fd; fd = loop->slot[fd - 1].next)
        for (int dir = OL__IN; dir <= OL__OUT; dir++)
            if (loop->slot[fd - 1].wait[dir] == co) loop->slot[fd - 1].wait[dir] = NULL;
}

/* What every await looks at first: cancellation outranks the deadline. 0: it is over, with a result. */
static int ol__await_enter(ol_co *co) {
    OL__CHECK(co->loop->current == co, "an await of a coroutine that is not running");
    if (co->frame.bits & OL__CO_IN_SLOT) ol__slot_forget(co);
    const uint32_t bits = co->frame.bits;
    co->frame.bits = bits & ~(uint32_t)OL__CO_RETRY;
    if (__builtin_expect(!(bits & (OL__CO_CANCELED | OL__CO_EXPIRED)), 1)) return 1;
    const enum ol__situation why = bits & OL__CO_CANCELED ? OL__E_CANCELED : OL__E_DEADLINE;
    ol__co_error(co, why, -ol__texts[why].number);
    return 0;
}

/* Takes `cost` from the budget; 0 when it is used up. */
static int ol__spend(ol_loop *loop, uint32_t cost) {
    if (loop->budget < cost) {
        loop->budget = 0;
        return 0;
    }
    loop->budget -= cost;
    return 1;
}

/* Suspends until a time, or until `fd` (if not 0) is closed; co->result is what the await then gives. */
static int ol__wait_time(ol_co *co, int64_t when, ol_fd fd, int64_t result) {
    if (ol__co_times(co, when, ol__co_deadline(co)) < 0)
        return ol__co_situation(co, OL__E_NO_MEMORY);
    co->result = result;
    co->link.fd = fd;
    ol__set_waits(co, OL__W_TIME);
    return OL__PENDING;
}

OL_API int ol_sleep(ol_co *co, int64_t ns) {
    const int resumed = (co->frame.bits & OL__CO_RETRY) != 0; /* interrupted, and then not: co->result is its end */
    if (!ol__await_enter(co)) return ol__give(co, 1);
    return ol__wait_time(co, resumed ? co->result : ol__after(ol__refresh(co->loop), ns > 0 ? ns : 0), 0, 0);
}

static void ol__op_stop(ol_loop *loop, ol_op *op, uint8_t flag);
enum { /* op.flags_ */
    OL__OP_CLASS = 3,
    OL__OP_CANCEL = 4,
    OL__OP_EXPIRED = 8,
    OL__OP_AWAITED = 16,
    OL__OP_ELSE_HERE = 32 /* runs in software if the backend has no room */
};

static void ol__queue_leave(ol_co *co);

/* Takes a coroutine out of a wait for an fd, a time, or both (the pause of ol_accept). */
static void ol__leave(ol_co *co) {
    const uint32_t what = ol__waits(co);
    if (co->link.fd) {
        ol__slot *slot = &co->loop->slot[(uint32_t)co->link.fd];
        ol_co **waiter = &slot->wait[what == OL__W_OUT ? OL__OUT : OL__IN];
        OL__CHECK(*waiter == co, "a waiter that its fd doesn't know");
        *waiter = NULL;
        co->frame.bits &= ~(uint32_t)OL__CO_IN_SLOT;
    }
    if (what == OL__W_TIME) ol__co_times(co, OL_NEVER, ol__co_deadline(co));
}

/* Ends the wait of a coroutine that was cancelled, timed out or lost its fd: the await is evaluated again and sees why.
   An operation is asked to stop; its completion ends the wait. */
static void ol__interrupt(ol_co *co, uint8_t op_flag) {
    const uint32_t what = ol__waits(co);
    if (what == OL__W_OP) {
        ol__op_stop(co->loop, co->link.op, op_flag);
    } else if (what == OL__W_IN || what == OL__W_OUT || what == OL__W_TIME) {
        if (what == OL__W_TIME) co->result = ol__co_wake(co);
        ol__leave(co);
        ol__wake(co, OL__CO_RETRY);
    } else if (what == OL__W_JOIN || what == OL__W_LOCK || what == OL__W_CHILD) {
        ol__queue_leave(co);
        ol__wake(co, OL__CO_RETRY);
    }
}
static void ol__cancel_one(ol_co *co) {
    if (co->frame.bits & OL__CO_CANCELED) return;
    co->frame.bits |= OL__CO_CANCELED;
    ol__interrupt(co, OL__OP_CANCEL);
}

OL_API void ol_cancel(ol_co *co) {
    const ol__part *part = &co->loop->part[co->part];
    ol__cancel_one(co);
    for (ol_child *c = part->holder == ol__item_co(co) ? part->children : NULL; c; c = c->next_) ol__cancel_one(&c->co);
    ol__outside(co->loop);
}
OL_API void ol_cancel_clear(ol_co *co) { co->frame.bits &= ~(uint32_t)OL__CO_CANCELED; }
OL_API int ol_deadline(ol_co *co, int64_t ns) {
    const int64_t when = ns > 0 && ns != OL_NEVER ? ol__after(ol__refresh(co->loop), ns) : OL_NEVER;
    const int r = ol__co_times(co, ol__co_wake(co), when);
    if (r < 0) return r; /* and the old one stays, if it has passed, too */
    co->frame.bits &= ~(uint32_t)OL__CO_EXPIRED;
    if (ns <= 0) {
        co->frame.bits |= OL__CO_EXPIRED;
        ol__interrupt(co, OL__OP_EXPIRED);
    }
    ol__outside(co->loop);
    return 0;
}

OL_API int ol_set_class(ol_co *co, int cls) {
    if (cls != OL_LATENCY && cls != OL_BATCH) return ol__fail(OL__E_OP_CLASS);
    co->frame.bits = (co->frame.bits & ~(uint32_t)OL__CO_CLASS) | (uint32_t)cls;
    return 0;
}
OL_API int ol_canceled(const ol_co *co) { return (co->frame.bits & OL__CO_CANCELED) != 0; }

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>epoll: fds, handles, events                                                                                    */

#define OL__WAKE_EVENT UINT64_MAX        /* data of the loop's eventfd */
#define OL__TIMER_EVENT (UINT64_MAX - 1) /* and of its timerfd */

static ol_fd ol__handle(uint32_t gen, int fd) { return (uint64_t)gen << 32 | (uint32_t)fd; }

/* The open slot of a handle, or NULL. Don't keep it across anything that may attach: the table moves. */
static ol__slot *ol__slot_of(const ol_loop *loop, ol_fd handle) {
    const uint32_t fd = (uint32_t)handle;
    if (fd >= loop->slots) return NULL;
    ol__slot *slot = &loop->slot[fd];
    return slot->gen == (uint32_t)(handle >> 32) && (slot->flags & OL__OPEN) ? slot : NULL;
}

static void ol__offer(ol_loop *loop, const ol__slot *slot);

/* The fd has become ready: who waits for it goes on, or its handler gets in line. */
static void ol__slot_ready(ol_loop *loop, ol__slot *slot, uint32_t bits) {
    slot->bits = (uint8_t)(slot->bits | bits);
    for (int dir = OL__IN; dir <= OL__OUT; dir++) {
        ol_co *co = slot->wait[dir];
        if (!co || !(bits & (dir == OL__IN ? OL__READ : OL__WRITE))) continue;
        /* it stays the one that waits until it runs: nobody may write into the middle of its write */
        if (ol__waits(co) == OL__W_IN || ol__waits(co) == OL__W_OUT) ol__wake(co, OL__CO_RETRY);
    }
    if (slot->handler) ol__offer(loop, slot);
}

/* A kernel event: readiness is added to the fd's state, and whoever waits for it becomes ready. No application code
   runs here, so no fd of the same burst can be closed or reused before its event is seen. */
static void ol__event(ol_loop *loop, const struct epoll_event *event) {
    if (event->data.u64 == OL__WAKE_EVENT) { /* edge-triggered and never read: each write is an edge of its own */
        loop->stats.wakes++;
        return;
    }
    if (event->data.u64 == OL__TIMER_EVENT) {
        loop->armed = OL_NEVER;
        return;
    }
    ol__slot *slot = ol__slot_of(loop, event->data.u64);
    loop->stats.events++;
    if (!slot) {
        loop->stats.stale++;
        return;
    }
    uint32_t bits = 0;
    if (event->events & EPOLLIN) bits |= OL__READ;
    if (event->events & EPOLLOUT) bits |= OL__WRITE;
    if (event->events & EPOLLRDHUP) bits |= OL__READ | OL__EOF;
    if (event->events & EPOLLPRI) bits |= OL__READ | OL__URGENT;
    if (event->events & (EPOLLHUP | EPOLLERR)) bits |= OL__READ | OL__WRITE | OL__ERROR;
    ol__slot_ready(loop, slot, bits);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>partition                                                                                                      */

static uint32_t ol__part_new(ol_loop *loop) { /* 0: no memory */
    uint32_t i = loop->free_part;
    if (i) {
        loop->free_part = loop->part[i].closing;
    } else {
        void *p = ol__grow(loop->part, &loop->parts, loop->used_parts + 1, sizeof *loop->part);
        if (!p) return 0;
        loop->part = (ol__part *)p;
        i = loop->used_parts++;
    }
    memset(&loop->part[i], 0, sizeof loop->part[i]);
    return i;
}

static int ol__held(const ol__part *part) { return part->holder || part->ops; }

/* The list of a partition's fds. */
static void ol__part_add_fd(ol_loop *loop, uint32_t index, uint32_t fd) {
    ol__part *part = &loop->part[index];
    ol__slot *slot = &loop->slot[fd];
    slot->part = index;
    slot->prev = 0;
    slot->next = part->fd;
    if (part->fd) loop->slot[part->fd - 1].prev = fd + 1;
    part->fd = fd + 1;
    loop->stats.fds++;
}
static void ol__part_remove_fd(ol_loop *loop, uint32_t fd) {
    const ol__slot *slot = &loop->slot[fd];
    if (slot->prev)
        loop->slot[slot->prev - 1].next = slot->next;
    else
        loop->part[slot->part].fd = slot->next;
    if (slot->next) loop->slot[slot->next - 1].prev = slot->prev;
    loop->stats.fds--;
}

static void ol__part_free(ol_loop *loop, uint32_t index) {
    OL__CHECK(!loop->part[index].fd, "a partition was freed twice, or with fds");
    loop->part[index].fd = UINT32_MAX;
    loop->part[index].closing = loop->free_part;
    loop->free_part = index;
}

static uint32_t ol__higher(uint32_t a, uint32_t b) { return b && (!a || b < a) ? b : a; } /* of classes; 0: none */

/* The highest class among a partition's fds and its root; 0 if none was given. */
static uint32_t ol__part_class(const ol_loop *loop, const ol__part *part) {
    uint32_t cls = 0;
    for (uint32_t fd = part->fd; fd; fd = loop->slot[fd - 1].next) cls = ol__higher(cls, loop->slot[fd - 1].cls);
    const int root = part->holder && (part->holder & OL__KIND) == OL__CO;
    return root ? ol__higher(cls, ol__co_class(ol__item_to_co(part->holder))) : cls;
}

static void ol__raise(ol_co *co, uint32_t cls) {
    co->frame.bits = (co->frame.bits & ~(uint32_t)OL__CO_CLASS) | ol__higher(ol__co_class(co), cls);
}

/* After a join: all of it has the highest class. */
static void ol__part_level(ol_loop *loop, uint32_t index) {
    ol__part *part = &loop->part[index];
    const uint32_t cls = ol__part_class(loop, part);
    for (uint32_t fd = part->fd; fd; fd = loop->slot[fd - 1].next) {
        loop->slot[fd - 1].cls = (uint8_t)cls;
        loop->slot[fd - 1].flags |= OL__JOINED;
    }
    if (!cls) return;
    if (part->holder && (part->holder & OL__KIND) == OL__CO) ol__raise(ol__item_to_co(part->holder), cls);
    for (ol_child *c = part->children; c; c = c->next_) ol__raise(&c->co, cls);
    for (ol__item i = part->waiting.head; i; i = ol__item_next(i))
        if ((i & OL__KIND) == OL__CO && ol__waits(ol__item_to_co(i)) == OL__W_PART) ol__raise(ol__item_to_co(i), cls);
}

/* Makes partition `from`, which nobody holds, a part of `into`. What waits for it goes behind what waits there: between
   the two there was no conflict, and so no order, until now. */
static void ol__merge(ol_loop *loop, uint32_t into, uint32_t from) {
    ol__part *old = &loop->part[from];
    while (old->fd) {
        const uint32_t fd = old->fd - 1;
        ol__part_remove_fd(loop, fd);
        ol__part_add_fd(loop, into, fd);
    }
    for (ol__item i = ol__pop(&old->waiting); i; i = ol__pop(&old->waiting)) {
        ol_co *co = ol__item_to_co(i);
        const uint32_t kind = i & OL__KIND;
        if (kind == OL__TIMER) ((ol_timer *)ol__item_to(i))->part_ = into;
        if (kind == OL__POST) ((ol_post_node *)ol__item_to(i))->part_ = into;
        if (kind == OL__CO && ol__waits(co) == OL__W_PART) co->part = into;
        if (kind == OL__CO && ol__waits(co) == OL__W_JOIN && co->part == into) { /* another one of the same root */
            co->result = 0;
            ol__wake(co, OL__CO_DONE);
        } else {
            ol__push(&loop->part[into].waiting, i);
        }
    }
    ol__part_free(loop, from);
    ol__part_level(loop, into);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>gate: what may start in a partition, and when                                                                  */

static void ol__ready_push(ol_loop *loop, uint32_t cls, ol__item item) {
    ol__push(&loop->ready[cls == OL_LATENCY ? OL_LATENCY : OL_BATCH], item);
}

enum { OL__QUEUED = 1, OL__ADMITTED = 2 }; /* handler.state_: waits for its partition; holds it and is to run */

static ol__item ol__item_handler(ol_handler *handler) { return (uintptr_t)handler | OL__HANDLER; }
static int ol__handler_ready(const ol__slot *slot) { /* a guest said itself what it wants to hear of */
    return slot->bits & (slot->flags & OL__GUEST ? OL__READ | OL__WRITE : slot->handler->events);
}

static void ol__moved(ol_loop *loop, uint32_t index, ol__item last);

/* The partition is free, and this is the next in line. 0: there is nothing to do for it any more. */
static int ol__admit(ol_loop *loop, uint32_t index, ol__item item) {
    const ol__part *part = &loop->part[index];
    if ((item & OL__KIND) == OL__CO) {
        ol_co *co = ol__item_to_co(item);
        if (ol__waits(co) == OL__W_JOIN) {
            const ol__item last = loop->part[co->part].waiting.tail;
            ol__merge(loop, co->part, index);
            co->result = 0;
            ol__wake(co, OL__CO_DONE);
            ol__moved(loop, co->part, last);
            return 1;
        }
        loop->part[index].holder = item;
        ol__wake(co, 0);
        return 1;
    }
    uint32_t cls = part->fd ? loop->slot[part->fd - 1].cls : 0;
    if ((item & OL__KIND) == OL__HANDLER) {
        ol_handler *h = (ol_handler *)ol__item_to(item);
        const ol__slot *slot = ol__slot_of(loop, h->fd);
        h->state_ = 0;
        if (!ol__handler_ready(slot)) return 0; /* the holder has read it all */
        h->state_ = OL__ADMITTED;
        cls = slot->cls;
    }
    loop->part[index].holder = item;
    ol__ready_push(loop, cls, item);
    return 1;
}

/* Lets the next in line start if the partition is free, through the ready queue; gives the partition back if nothing is
   left of it. Partition 0 belongs to no root: operations submitted from outside are listed there. */
static void ol__part_release(ol_loop *loop, uint32_t index) {
    ol__part *part = &loop->part[index];
    if (index == 0 || ol__held(part)) return;
    for (ol__item item = ol__pop(&part->waiting); item; item = ol__pop(&part->waiting))
        if (ol__admit(loop, index, item)) return;
    if (!part->fd) ol__part_free(loop, index);
}

/* To the end of a partition's line; it starts if the partition is free. */
static void ol__gate(ol_loop *loop, uint32_t index, ol__item item) {
    ol__part *part = &loop->part[index];
    if (ol__held(part)) loop->stats.withheld++;
    ol__push(&part->waiting, item);
    ol__part_release(loop, index);
}

/* Takes a callback out of the line again, or off the ready queue, where it holds the partition. */
static void ol__withdraw(ol_loop *loop, uint32_t index, ol__item item) {
    ol__part *part = &loop->part[index];
    if (part->holder != item) {
        (void)ol__unlink(&part->waiting, item);
        return;
    }
    if (!ol__unlink(&loop->ready[OL_LATENCY], item)) (void)ol__unlink(&loop->ready[OL_BATCH], item);
    part->holder = 0;
    ol__part_release(loop, index);
}

/* The fd may be ready for its handler: then that goes to the end of the partition's line. 1: it went there. */
static int ol__line_up(ol_loop *loop, const ol__slot *slot) {
    ol_handler *h = slot->handler;
    if (h->state_ || !ol__handler_ready(slot)) return 0;
    h->state_ = OL__QUEUED;
    ol__push(&loop->part[slot->part].waiting, ol__item_handler(h));
    return 1;
}
static void ol__offer(ol_loop *loop, const ol__slot *slot) {
    if (!ol__line_up(loop, slot)) return;
    if (ol__held(&loop->part[slot->part])) loop->stats.withheld++;
    ol__part_release(loop, slot->part);
}

/* Before and after a callback of the application that holds its partition. */
static void ol__callback_begin(ol_loop *loop, uint32_t index) {
    loop->part[index].holder = OL__CALLBACK; /* not the item: before it returns, that may stand in line again */
    loop->callback_part = index;
}
static void ol__callback_end(ol_loop *loop, uint32_t index) {
    loop->callback_part = 0;
    loop->part[index].holder = 0;
}

static void ol__run_handler(ol_loop *loop, ol_handler *h) {
    const ol_fd fd = h->fd;
    ol__slot *slot = ol__slot_of(loop, fd);
    const uint32_t index = slot->part;
    const int ready = ol__handler_ready(slot);
    h->state_ = 0;
    if (slot->flags & OL__GUEST) slot->bits = 0; /* who polls it will say so again */
    ol__callback_begin(loop, index);
    if (ready) h->fn(loop, h, ready);
    slot = ol__slot_of(loop, fd); /* the handler may have closed it, and then its own memory is gone */
    if (slot && slot->handler) (void)ol__line_up(loop, slot);
    ol__callback_end(loop, index);
    ol__part_release(loop, index);
}

/* A timer or a post that names a fd, in its turn. */
static void ol__run_timer(ol_loop *loop, ol_timer *timer) {
    const uint32_t index = timer->part_;
    timer->part_ = 0;
    loop->user_timers--;
    ol__callback_begin(loop, index);
    timer->fn(loop, timer);
    ol__callback_end(loop, index);
    ol__part_release(loop, index);
}
static void ol__run_post(ol_loop *loop, ol_post_node *node) {
    const uint32_t index = node->part_;
    loop->posts_held--;
    node->part_ = 0;
    (void)OL_SYS_XCHG(&node->next, NULL, OL_SYS_ACQUIRE); /* from here on it can be posted again */
    ol__callback_begin(loop, index);
    node->fn(loop, node);
    ol__callback_end(loop, index);
    ol__part_release(loop, index);
}

/* Runs what is due; a timer that its callback starts again waits for the next round, so this ends. */
static void ol__run_timers(ol_loop *loop) {
    const int64_t now = loop->now;
    for (uint32_t n = loop->heap_n; n && loop->heap_n && loop->heap[1].when <= now; n--) {
        const ol__timer_entry e = loop->heap[1];
        if ((e.target & OL__KIND) == OL__TIMER) {
            ol_timer *timer = (ol_timer *)ol__item_to(e.target);
            const ol__slot *slot = timer->fd ? ol__slot_of(loop, timer->fd) : NULL;
            ol__heap_remove(loop, 1);
            if (slot) {
                timer->part_ = slot->part;
                ol__gate(loop, slot->part, e.target);
            } else {
                loop->user_timers--;
                timer->fn(loop, timer);
            }
        } else if ((e.target & OL__KIND) == OL__OP) {
            ol__heap_remove(loop, 1);
            ol__op_stop(loop, ol__item_to_op(e.target), OL__OP_EXPIRED);
        } else {
            ol_co *co = ol__item_to_co(e.target);
            if (e.deadline <= now) {
                ol__co_times(co, e.wake, OL_NEVER);
                co->frame.bits |= OL__CO_EXPIRED;
                ol__interrupt(co, OL__OP_EXPIRED);
            } else if (e.wake <= now) {
                ol__leave(co);
                ol__wake(co, OL__CO_DONE);
                if (co->timer) ol__heap_rekey(loop, co->timer, loop->heap[co->timer]); /* to its deadline */
            } else {
                ol__heap_rekey(loop, 1, e);
            }
        }
    }
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>roots: spawn, children, end                                                                                    */

static void ol__co_init(ol_co *co, ol_loop *loop, void (*fn)(ol_co *), uint32_t index, uint32_t bits) {
    memset(co, 0, sizeof *co);
    co->frame.fn = fn;
    co->frame.bits = bits;
    if (loop->draining) co->frame.bits |= OL__CO_CANCELED;
    co->top = &co->frame;
    co->loop = loop;
    co->part = index;
}

OL_API int ol_spawn(ol_loop *loop, ol_co *co, void (*fn)(ol_co *), ol_fd fd, int cls) {
    if (!loop || !co || !fn || cls < 0 || cls > OL_BATCH) return ol__fail(OL__E_SPAWN);
    uint32_t index;
    if (fd) {
        const ol__slot *slot = ol__slot_of(loop, fd);
        if (!slot) return ol__fail(OL__E_STALE);
        index = slot->part;
        if (!cls || ((slot->flags & OL__JOINED) && slot->cls && slot->cls < cls)) cls = slot->cls;
    } else {
        index = ol__part_new(loop);
        if (!index) return -ENOMEM;
    }
    ol__co_init(co, loop, fn, index, cls ? (uint32_t)cls : (uint32_t)OL_BATCH);
    ol__set_waits(co, OL__W_PART);
    loop->stats.roots++;
    ol__gate(loop, index, ol__item_co(co));
    ol__outside(loop);
    return 0;
}

OL_API int ol_fork(ol_co *co, ol_child *child, void (*fn)(ol_co *)) {
    if (!co || !child || !fn || co->loop->current != co) return ol__fail(OL__E_FORK);
    ol__part *part = &co->loop->part[co->part];
    ol__co_init(&child->co, co->loop, fn, co->part,
                (co->frame.bits & (OL__CO_CLASS | OL__CO_CANCELED)) | (uint32_t)OL__CO_CHILD);
    child->prev_ = NULL;
    child->next_ = part->children;
    if (part->children) part->children->prev_ = child;
    part->children = child;
    ol__wake(&child->co, 0);
    return 0;
}

static void ol__locks_drop(ol_co *co);

static void ol__root_gone(ol_loop *loop, ol_co *co) {
    const uint32_t index = co->part;
    (void)ol__co_times(co, OL_NEVER, OL_NEVER);
    loop->part[index].holder = 0;
    loop->stats.roots--;
    ol__part_release(loop, index);
}

/* Gives what ol_wait waited for to `co`, if it is `child` or the last one. */
static void ol__child_tell(ol_co *co, const ol_co *child, int last) {
    if (ol__waits(co) == OL__W_CHILD && co->link.child == child) {
        if (child->result < 0)
            ol__co_error(co, OL__E_RESULT, child->result);
        else
            co->result = child->result;
        ol__wake(co, OL__CO_DONE);
    } else if (ol__waits(co) == OL__W_CHILD && !co->link.child && last) {
        co->result = 0;
        ol__wake(co, OL__CO_DONE);
    }
}

static void ol__child_end(ol_loop *loop, ol_co *co) {
    ol_child *child = (ol_child *)(void *)co; /* its first member */
    ol__part *part = &loop->part[co->part];
    ol_co *root = ol__item_to_co(part->holder);
    if (child->prev_)
        child->prev_->next_ = child->next_;
    else
        part->children = child->next_;
    if (child->next_) child->next_->prev_ = child->prev_;
    co->frame.bits |= OL__CO_ENDED;
    for (ol_child *c = co->frame.bits & OL__CO_AWAITED ? part->children : NULL; c; c = c->next_)
        ol__child_tell(&c->co, co, 0);
    ol__child_tell(root, co, !part->children);
    if (part->children || ol__waits(root) != OL__W_END) return;
    if (root->frame.bits & OL__CO_RETURNED)
        ol__root_gone(loop, root);
    else
        ol__wake(root, 0);
}

/* A coroutine has reached its end. 1: it has children, and the end waits for them; with `resume` its function is called
   once more then. */
OL_API int ol__root_end(ol_co *co, int resume) {
    ol_loop *loop = co->loop;
    OL__CHECK(loop->current == co, "a coroutine ended that was not running");
    (void)ol__co_times(co, OL_NEVER, OL_NEVER);
    ol__locks_drop(co);
    if (co->frame.bits & OL__CO_IN_SLOT) ol__slot_forget(co);
    if (co->frame.bits & OL__CO_CHILD) {
        ol__child_end(loop, co);
    } else {
        OL__CHECK(loop->part[co->part].holder == ol__item_co(co), "a root ended that doesn't hold its partition");
        if (loop->part[co->part].children) {
            co->frame.state = resume ? (uint32_t)OL__ENDING : 0;
            if (!resume) co->frame.bits |= OL__CO_RETURNED;
            co->link.child = NULL;
            ol__set_waits(co, OL__W_END);
            return 1;
        }
        ol__root_gone(loop, co);
    }
    loop->current = NULL; /* what runs after the end belongs to no partition */
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>lock: waiting on each other: children, joins, locks                                                            */

/* Who waits for whom: for a lock, its holder; for a partition, its root and all children, since it is free when they
   have ended; for a child, that child. A wait that would close a circle is refused. A circle is closed by a coroutine
   that starts to wait, or by a join that moves a line of others behind its own root: there it is looked for. */
static int ol__seen(ol_loop *loop, ol_co *co) {
    if (co->frame.bits & OL__CO_SEEN) return 0;
    void *p = ol__grow(loop->seen, &loop->seen_capacity, loop->seen_n + 1, sizeof *loop->seen);
    if (!p) return OL__E_NO_MEMORY;
    loop->seen = (ol_co **)p;
    loop->seen[loop->seen_n++] = co;
    co->frame.bits |= OL__CO_SEEN;
    return 0;
}
static int ol__seen_group(ol_loop *loop, uint32_t index, int root) {
    const ol__part *part = &loop->part[index];
    int r = 0;
    if (root && part->holder && (part->holder & OL__KIND) == OL__CO) r = ol__seen(loop, ol__item_to_co(part->holder));
    for (ol_child *c = part->children; c && !r; c = c->next_) r = ol__seen(loop, &c->co);
    return r;
}
/* Adds those for whom co waits. */
static int ol__follow(ol_loop *loop, const ol_co *co) {
    switch (ol__waits(co)) {
    case OL__W_LOCK: return ol__seen(loop, ((const ol_mutex *)(uintptr_t)co->result)->holder);
    case OL__W_JOIN: return ol__seen_group(loop, ol__slot_of(loop, (ol_fd)co->result)->part, 1);
    case OL__W_CHILD: return co->link.child ? ol__seen(loop, co->link.child) : ol__seen_group(loop, co->part, 0);
    case OL__W_END: return ol__seen_group(loop, co->part, 0);
    default: return 0;
    }
}
/* `co` is about to wait. 0, or why it must not. */
static int ol__must_not_wait(ol_co *co) {
    ol_loop *loop = co->loop;
    loop->seen_n = 0;
    int r = ol__follow(loop, co);
    for (uint32_t i = 0; i < loop->seen_n && !r; i++) {
        if (loop->seen[i] == co) r = OL__E_DEADLOCK;
        if (!r) r = ol__follow(loop, loop->seen[i]);
    }
    for (uint32_t i = 0; i < loop->seen_n; i++) loop->seen[i]->frame.bits &= ~(uint32_t)OL__CO_SEEN;
    return r;
}

/* Suspends until it is woken with a result, in a queue or in none; not if that could never come. */
static int ol__wait_in(ol_co *co, uint32_t what, ol__queue *q) {
    ol__set_waits(co, what);
    const int refused = ol__must_not_wait(co);
    if (refused) {
        ol__set_waits(co, OL__W_READY);
        return ol__co_situation(co, (enum ol__situation)refused);
    }
    if (q) ol__push(q, ol__item_co(co));
    return OL__PENDING;
}

/* The opposite. */
static void ol__queue_leave(ol_co *co) {
    const uint32_t what = ol__waits(co);
    if (what == OL__W_CHILD) return;
    ol__queue *q = what == OL__W_LOCK ? &((ol_mutex *)(uintptr_t)co->result)->waiting_
                                      : &co->loop->part[ol__slot_of(co->loop, (ol_fd)co->result)->part].waiting;
    const int there = ol__unlink(q, ol__item_co(co));
    OL__CHECK(there, "a waiter that its queue doesn't know");
    (void)there;
}

/* A join has put a line behind another one, that of partition `index` behind `last`: who is in it waits for other
   coroutines now. */
static void ol__moved(ol_loop *loop, uint32_t index, ol__item last) {
    ol__queue *q = &loop->part[index].waiting;
    for (ol__item i = last ? ol__item_next(last) : q->head, next; i; i = next) {
        ol_co *co = ol__item_to_co(i);
        next = ol__item_next(i);
        if ((i & OL__KIND) != OL__CO || ol__waits(co) != OL__W_JOIN) continue;
        const int refused = ol__must_not_wait(co);
        if (!refused) continue;
        (void)ol__unlink(q, i);
        ol__co_error(co, (unsigned)refused, -ol__texts[refused].number);
        ol__wake(co, OL__CO_DONE);
    }
}

static int ol__give_0(ol_co *co) {
    co->result = 0;
    return ol__give(co, 1);
}

OL_API int ol_wait(ol_co *co, ol_child *child) {
    if (!ol__await_enter(co)) return ol__give(co, 1);
    if (child ? !(child->co.frame.bits & OL__CO_CHILD) : (co->frame.bits & OL__CO_CHILD) != 0)
        return ol__co_situation(co, OL__E_WAIT);
    if (child && (child->co.frame.bits & OL__CO_ENDED)) {
        if (child->co.result < 0) return ol__co_fail(co, OL__E_RESULT, child->co.result);
        co->result = child->co.result;
        return ol__give(co, 1);
    }
    if (child && (child->co.loop != co->loop || child->co.part != co->part))
        return ol__co_situation(co, OL__E_WAIT_PART);
    if (!child && !co->loop->part[co->part].children) return ol__give_0(co);
    co->link.child = child ? &child->co : NULL;
    if (child && (co->frame.bits & OL__CO_CHILD)) child->co.frame.bits |= OL__CO_AWAITED;
    return ol__wait_in(co, OL__W_CHILD, NULL);
}

OL_API int ol_join(ol_co *co, ol_fd fd) {
    const int resumed = (co->frame.bits & OL__CO_RETRY) != 0;
    ol_loop *loop = co->loop;
    if (!ol__await_enter(co)) return ol__give(co, 1);
    const ol__slot *slot = ol__slot_of(loop, fd);
    if (!slot) return ol__co_situation(co, resumed ? OL__E_CLOSED : OL__E_STALE);
    if (slot->part == co->part) return ol__give_0(co);
    if (!ol__held(&loop->part[slot->part])) {
        ol__merge(loop, co->part, slot->part);
        return ol__give_0(co);
    }
    co->result = (int64_t)fd;
    const int r = ol__wait_in(co, OL__W_JOIN, &loop->part[slot->part].waiting);
    if (ol__waits(co) == OL__W_JOIN) loop->stats.withheld++;
    return r;
}

OL_API int ol_try_join(ol_loop *loop, ol_fd a, ol_fd b) {
    const ol__slot *x = loop ? ol__slot_of(loop, a) : NULL, *y = loop ? ol__slot_of(loop, b) : NULL;
    if (!x || !y) return ol__fail(OL__E_STALE);
    if (x->part == y->part) return 0;
    if (ol__held(&loop->part[y->part])) {
        if (ol__held(&loop->part[x->part])) return ol__fail(OL__E_JOIN);
        ol__merge(loop, y->part, x->part);
    } else {
        ol__merge(loop, x->part, y->part);
    }
    return 0;
}

/* How many locks a coroutine holds, up to 15: most end with none, and need not look for them. */
static uint32_t ol__locks(const ol_co *co) { return co->frame.bits >> OL__CO_LOCKS_SHIFT & 15; }

static void ol__lock_take(ol_co *co, ol_mutex *m) {
    ol_loop *loop = co->loop;
    m->holder = co;
    m->loop_ = loop;
    m->prev_ = NULL;
    m->next_ = loop->locks;
    if (loop->locks) loop->locks->prev_ = m;
    loop->locks = m;
    if (ol__locks(co) < 15) co->frame.bits += 1u << OL__CO_LOCKS_SHIFT;
}

static void ol__lock_drop(ol_loop *loop, ol_mutex *m) {
    ol_co *const next = ol__item_to_co(ol__pop(&m->waiting_));
    if (m->prev_)
        m->prev_->next_ = m->next_;
    else
        loop->locks = m->next_;
    if (m->next_) m->next_->prev_ = m->prev_;
    m->holder = NULL;
    if (!next) return;
    ol__lock_take(next, m);
    next->result = 0;
    ol__wake(next, OL__CO_DONE);
}

static void ol__locks_drop(ol_co *co) { /* its end */
    ol_loop *loop = co->loop;
    uint32_t left = ol__locks(co);
    for (ol_mutex *m = left ? loop->locks : NULL, *next; m; m = next) {
        next = m->next_; /* who gets it is listed in front */
        if (m->holder != co) continue;
        ol__lock_drop(loop, m);
        if (left < 15 && --left == 0) break;
    }
    co->frame.bits &= ~(15u << OL__CO_LOCKS_SHIFT);
}

OL_API int ol_lock(ol_co *co, ol_mutex *mutex) {
    if (!ol__await_enter(co)) return ol__give(co, 1);
    if (!mutex) return ol__co_situation(co, OL__E_NULL);
    if (mutex->holder && mutex->loop_ != co->loop) return ol__co_situation(co, OL__E_MUTEX_LOOP);
    if (!mutex->holder) {
        ol__lock_take(co, mutex);
        return ol__give_0(co);
    }
    co->result = (int64_t)(intptr_t)mutex;
    return ol__wait_in(co, OL__W_LOCK, &mutex->waiting_);
}

OL_API int ol_unlock(ol_co *co, ol_mutex *mutex) {
    if (!co || !mutex || mutex->holder != co) return ol__fail(OL__E_NOT_HOLDER);
    if (ol__locks(co) < 15) co->frame.bits -= 1u << OL__CO_LOCKS_SHIFT;
    ol__lock_drop(co->loop, mutex);
    ol__outside(co->loop);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>fds: attach, close                                                                                             */

static uint32_t ol__next_gen(uint32_t gen) { return gen >= 0x7fffffff ? 1 : gen + 1; }

static void ol__handler_drop(ol_loop *loop, ol__slot *slot) {
    ol_handler *h = slot->handler;
    if (!h) return;
    const uint8_t state = h->state_;
    slot->handler = NULL;
    loop->handlers -= !(slot->flags & OL__GUEST);
    h->state_ = 0;
    if (state) ol__withdraw(loop, slot->part, ol__item_handler(h));
}

/* From here on the handle is stale, events of it are dropped, and who waits for it gets -ECANCELED. */
static void ol__slot_retire(ol_loop *loop, uint32_t fd) {
    ol__slot *slot = &loop->slot[fd];
    const int64_t handle = (int64_t)ol__handle(slot->gen, (int)fd);
    ol__queue *waiting = &loop->part[slot->part].waiting;
    for (ol__item i = waiting->head, next; i; i = next) {
        next = ol__item_next(i);
        ol_co *co = ol__item_to_co(i);
        if ((i & OL__KIND) == OL__CO && ol__waits(co) == OL__W_JOIN && co->result == handle) ol__interrupt(co, 0);
    }
    slot->gen = ol__next_gen(slot->gen);
    slot->flags &= (uint8_t)~(OL__OPEN | OL__PAUSED);
    for (int dir = OL__IN; dir <= OL__OUT; dir++) {
        if (slot->wait[dir]) ol__interrupt(slot->wait[dir], 0);
        slot->wait[dir] = NULL; /* also one that is woken already: it will see that the fd is closed */
    }
    ol__handler_drop(loop, slot);
}

/* An fd that was closed behind our back, and its number given out again: the old handle ends here. */
static void ol__slot_lost(ol_loop *loop, uint32_t fd) {
    ol__slot_retire(loop, fd);
    const uint32_t index = loop->slot[fd].part;
    loop->slot[fd].flags = 0;
    ol__part_remove_fd(loop, fd);
    ol__part_release(loop, index);
    ol__outside(loop);
}

static int ol__register_as(int ep, int fd, uint64_t data, uint32_t events, int op) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = events | EPOLLET;
    event.data.u64 = data;
    return OL_SYS_EPOLL_CTL(ep, op, fd, &event);
}
static int ol__register(int ep, int fd, ol_fd handle, int op) {
    return ol__register_as(ep, fd, handle, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI, op);
}
static int ol__register_own(int ep, int fd, uint64_t data) { /* never read: each write and expiry is an edge */
    return ol__register_as(ep, fd, data, EPOLLIN, EPOLL_CTL_ADD);
}

static int ol__after_fork(ol_loop *loop);

/* Registers fd in a partition (0: a new one). On failure nothing has changed, and fd is still the caller's. */
static int ol__attach(ol_loop *loop, int fd, uint32_t index, int cls, uint32_t flags, uint32_t bits, ol_fd *handle) {
    const int r = ol__after_fork(loop);
    if (r < 0) return r;
    const uint32_t had = loop->slots;
    void *table = ol__grow(loop->slot, &loop->slots, (uint32_t)fd + 1, sizeof *loop->slot);
    if (!table) return -ENOMEM;
    loop->slot = (ol__slot *)table;
    for (uint32_t i = had; i < loop->slots; i++) loop->slot[i].gen = loop->gen_seed;
    ol__slot *slot = &loop->slot[fd];
    const int open = slot->flags & OL__OPEN;
    const int known = open && !(flags & OL__FRESH);
    if ((slot->flags & OL__CLOSING) || (known && ((slot->flags | flags) & OL__GUEST))) return ol__fail(OL__E_ATTACHED);
    const uint32_t mine = index ? index : ol__part_new(loop);
    if (!mine) return -ENOMEM;
    const ol_fd new_handle = ol__handle(open ? ol__next_gen(slot->gen) : slot->gen, fd);
    /* EEXIST: it is attached; or the number was closed while a duplicate of it lived, and the registration is still
       there */
    if (!(flags & OL__GUEST) && ol__register(loop->ep, fd, new_handle, EPOLL_CTL_ADD) < 0 &&
        (known || errno != EEXIST || ol__register(loop->ep, fd, new_handle, EPOLL_CTL_MOD) < 0)) {
        const int number = errno;
        if (!index) ol__part_release(loop, mine);
        if (number == EPERM) return ol__fail(OL__E_NOT_POLLABLE);
        return number == EEXIST ? ol__fail(OL__E_ATTACHED) : ol__fail_errno(number);
    }
    if (open) ol__slot_lost(loop, (uint32_t)fd);
    slot->bits = (uint8_t)bits;
    slot->flags = (uint8_t)((flags & 255) | OL__OPEN);
    slot->cls = (uint8_t)cls;
    slot->wait[OL__IN] = slot->wait[OL__OUT] = NULL;
    slot->handler = NULL;
    ol__part_add_fd(loop, mine, (uint32_t)fd);
    *handle = new_handle;
    return 0;
}

/* Only TCP promises that a short read has drained the socket. A read of a Unix stream also ends where the credentials
   or fds of a message begin, one of SCTP at the end of a message. */
static uint32_t ol__socket_flags(int fd) {
    int protocol = 0;
    if (OL_SYS_GETSOCKOPT(fd, SO_PROTOCOL, &protocol) < 0) return errno == ENOTSOCK ? 0 : OL__SOCKET;
    return protocol == IPPROTO_TCP ? OL__SOCKET | OL__TCP : OL__SOCKET;
}

OL_API int ol_attach(ol_loop *loop, int fd, int cls, ol_fd *handle) {
    if (!loop || !handle) return ol__fail(OL__E_NULL);
    if (cls < 0 || cls > OL_BATCH) return ol__fail(OL__E_OP_CLASS);
    if (fd < 0) return ol__fail(OL__E_FD_NUMBER);
    if (OL_SYS_NONBLOCK(fd) < 0) return ol__fail_errno(errno);
    return ol__attach(loop, fd, 0, cls, ol__socket_flags(fd), 0, handle);
}

OL_API int ol_attach_guest(ol_loop *loop, int fd, int cls, ol_fd *handle) {
    if (!loop || !handle) return ol__fail(OL__E_NULL);
    if (cls < 0 || cls > OL_BATCH) return ol__fail(OL__E_OP_CLASS);
    if (fd < 0) return ol__fail(OL__E_FD_NUMBER);
    int type;
    if (OL_SYS_GETSOCKOPT(fd, SO_TYPE, &type) < 0 && errno == EBADF) /* no epoll_ctl is going to see that */
        return ol__fail_errno(errno);
    return ol__attach(loop, fd, 0, cls, ol__socket_flags(fd) | OL__GUEST, 0, handle);
}

OL_API int ol_listen(ol_loop *loop, const struct sockaddr *addr, socklen_t len, int backlog, int reuseport, int cls,
                     ol_fd *handle) {
    if (!loop || !addr || !handle) return ol__fail(OL__E_NULL);
    if (cls < 0 || cls > OL_BATCH) return ol__fail(OL__E_OP_CLASS);
    const int one = 1;
    const int fd = OL_SYS_SOCKET(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return ol__fail_errno(errno);
    int r = 0;
    if (OL_SYS_SETSOCKOPT(fd, SO_REUSEADDR, one) < 0 || (reuseport && OL_SYS_SETSOCKOPT(fd, SO_REUSEPORT, one) < 0) ||
        OL_SYS_BIND(fd, addr, len) < 0 || OL_SYS_LISTEN(fd, backlog) < 0)
        r = ol__fail_errno(errno);
    else
        r = ol__attach(loop, fd, 0, cls, ol__socket_flags(fd) | OL__FRESH, 0, handle);
    if (r < 0) OL_SYS_CLOSE(fd);
    return r;
}

OL_API int ol_socket(ol_co *co, int domain, int type, int protocol, ol_fd *handle) {
    if (!co || !handle) return ol__fail(OL__E_NULL);
    const int fd = OL_SYS_SOCKET(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (fd < 0) return ol__fail_errno(errno);
    const uint32_t flags = ol__socket_flags(fd) | OL__FRESH;
    const int r = ol__attach(co->loop, fd, co->part, (int)ol__co_class(co), flags, 0, handle);
    if (r < 0) OL_SYS_CLOSE(fd);
    return r;
}

OL_API int ol_fd_raw(const ol_loop *loop, ol_fd handle) {
    return loop && ol__slot_of(loop, handle) ? (int)(uint32_t)handle : ol__fail(OL__E_STALE);
}

/* close(2), now or when the last of the partition's operations is done. */
static void ol__close_now(ol_loop *loop, uint32_t fd) {
    /* a file that the parent has, too, stays registered after close(2) */
    if ((loop->slot[fd].flags & (OL__INHERITED | OL__GUEST)) == OL__INHERITED && loop->forks == ol__forks)
        (void)ol__register(loop->ep, (int)fd, 0, EPOLL_CTL_DEL);
    loop->slot[fd].flags = 0;
    ol__part_remove_fd(loop, fd);
    OL_SYS_CLOSE((int)fd);
}
static void ol__close_waiting(ol_loop *loop, uint32_t index) {
    ol__part *part = &loop->part[index];
    if (!part->closing || part->ops) return;
    part->closing = 0;
    for (uint32_t fd = part->fd, next; fd; fd = next) {
        next = loop->slot[fd - 1].next;
        if (loop->slot[fd - 1].flags & OL__CLOSING) ol__close_now(loop, fd - 1);
    }
}

OL_API int ol_close(ol_loop *loop, ol_fd handle) {
    ol__slot *slot = loop ? ol__slot_of(loop, handle) : NULL;
    if (!slot) return ol__fail(OL__E_STALE);
    const uint32_t fd = (uint32_t)handle;
    ol__slot_retire(loop, fd);
    const uint32_t index = slot->part; /* not before: without its handler somebody may have joined it */
    slot->flags |= OL__CLOSING;
    if (loop->part[index].ops) {
        const int shared = (slot->flags & OL__INHERITED) || loop->forks != ol__forks;
        if ((slot->flags & OL__SOCKET) && !shared) (void)OL_SYS_SHUTDOWN((int)fd);
        loop->part[index].closing++;
        for (ol_op *op = loop->part[index].ops, *next; op; op = next) {
            next = op->next_in_part_;
            ol__op_stop(loop, op, OL__OP_CANCEL);
        }
    } else {
        ol__close_now(loop, fd);
    }
    ol__part_release(loop, index);
    ol__outside(loop);
    return 0;
}

OL_API int ol_watch(ol_loop *loop, ol_fd fd, ol_handler *handler, int events,
                    void (*fn)(ol_loop *, ol_handler *, int ready)) {
    ol__slot *slot = loop ? ol__slot_of(loop, fd) : NULL;
    if (!slot) return ol__fail(OL__E_STALE);
    if (!handler || !fn || events < 1 || events > (OL_READABLE | OL_WRITABLE)) return ol__fail(OL__E_WATCH);
    if (slot->handler != handler) {
        const ol__slot *other = ol__slot_of(loop, handler->fd);
        if (other && other->handler == handler) return ol__fail(OL__E_WATCH_OTHER);
        ol__handler_drop(loop, slot);
        handler->state_ = 0;
        slot->handler = handler;
        loop->handlers += !(slot->flags & OL__GUEST);
    }
    handler->fn = fn;
    handler->fd = fd;
    handler->events = (uint8_t)events;
    ol__offer(loop, slot);
    ol__outside(loop);
    return 0;
}

OL_API int ol_unwatch(ol_loop *loop, ol_fd fd) {
    ol__slot *slot = loop ? ol__slot_of(loop, fd) : NULL;
    if (!slot) return ol__fail(OL__E_STALE);
    ol__handler_drop(loop, slot);
    ol__outside(loop);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>guest: another loop polls, this one gates                                                                      */

OL_API int ol_gate_enter(ol_loop *loop, ol_fd handle, int ready) {
    ol__slot *slot = loop ? ol__slot_of(loop, handle) : NULL;
    if (!slot) return ol__fail(OL__E_STALE);
    if (!(slot->flags & OL__GUEST) || !slot->handler || ready < 1 || ready > (OL_READABLE | OL_WRITABLE))
        return ol__fail(OL__E_GATE);
    if (loop->inside) return ol__fail(OL__E_RUNNING);
    if (loop->guest_part) return ol__fail(OL__E_GATE_ENTERED);
    if (ol__held(&loop->part[slot->part])) {
        slot->bits = (uint8_t)(slot->bits | ready);
        ol__offer(loop, slot);
        return 0;
    }
    loop->guest_part = slot->part;
    ol__callback_begin(loop, slot->part);
    return 1;
}

OL_API int ol_gate_leave(ol_loop *loop) {
    if (!loop || !loop->guest_part) return ol__fail(OL__E_GATE_LEFT);
    const uint32_t index = loop->guest_part;
    loop->guest_part = 0;
    ol__callback_end(loop, index);
    ol__part_release(loop, index);
    if (ol__ready(loop)) ol__outside(loop); /* operations that were submitted have said so themselves */
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>io:impl                                                                                                        */

enum { OL__GO = 2 };

/* Its deadline has passed, but the fd is ready: the loop was late, and what came first counts, as in poll(2). */
static int ol__late(const ol_co *co, const ol__slot *slot, int dir) {
    return (co->frame.bits & (OL__CO_CANCELED | OL__CO_EXPIRED)) == OL__CO_EXPIRED &&
           (slot->bits & (dir == OL__IN ? OL__READ : OL__WRITE));
}

/* The common beginning of I/O awaits: OL__GO with *slot, or what the await returns. *resumed: this is an evaluation
   after a wake-up, and co->result holds what the first left there. */
static int ol__io_enter(ol_co *co, ol_fd fd, int dir, ol__slot **slot, int *resumed) {
    ol__slot *s = ol__slot_of(co->loop, fd);
    *resumed = (co->frame.bits & OL__CO_RETRY) != 0;
    if (co->frame.bits & OL__CO_IN_SLOT) ol__slot_forget(co);
    if (*resumed && s && ol__late(co, s, dir))
        co->frame.bits &= ~(uint32_t)OL__CO_RETRY;
    else if (!ol__await_enter(co))
        return ol__give(co, 1);
    if (!*resumed) co->result = 0;
    if (!s) return ol__co_situation(co, *resumed ? OL__E_CLOSED : OL__E_STALE); /* during the wait, or before it */
    if (s->part != co->part) return ol__co_situation(co, OL__E_OTHER_PART);
    if (s->wait[dir]) return ol__co_situation(co, OL__E_WAITER);
    if (s->flags & OL__GUEST) return ol__co_situation(co, OL__E_GUEST_FD);
    *slot = s;
    if (ol__spend(co->loop, 1)) return OL__GO;
    ol__wake(co, OL__CO_RETRY);
    return OL__PENDING;
}
#define OL__IO_ENTER(dir)                                                                                              \
    ol__slot *slot;                                                                                                    \
    int resumed;                                                                                                       \
    const int enter = ol__io_enter(co, fd, (dir), &slot, &resumed);                                                    \
    if (enter != OL__GO) return enter

/* Suspends until the fd's bit is set; nothing is registered for it. */
static int ol__io_wait(ol_co *co, ol__slot *slot, ol_fd fd, int dir) {
    if (co->frame.bits & OL__CO_EXPIRED) return ol__co_situation(co, OL__E_DEADLINE);
    slot->bits &= (uint8_t)~(dir == OL__IN ? OL__READ : OL__WRITE);
    slot->wait[dir] = co;
    co->frame.bits |= OL__CO_IN_SLOT;
    co->link.fd = fd;
    ol__set_waits(co, dir == OL__IN ? OL__W_IN : OL__W_OUT);
    return OL__PENDING;
}
static int ol__io_error(ol_co *co, int number) { return ol__co_fail(co, OL__E_SYSTEM, -number); }
static int ol__would_block(int number) { return number == EAGAIN; } /* which EWOULDBLOCK is on Linux */

/* A short read of TCP means that it is drained: what comes later is a new edge. Not so when the end, an error or
   urgent data is there, which came with an edge that has been seen. */
static void ol__short_read(ol__slot *slot) {
    if ((slot->flags & OL__TCP) && !(slot->bits & (OL__EOF | OL__ERROR | OL__URGENT)))
        slot->bits &= (uint8_t)~OL__READ;
}

/* Bytes read, or a negative errno; -EAGAIN clears the bit. */
static int64_t ol__read_once(ol__slot *slot, ol_fd fd, const struct iovec *iov, int n, size_t len) {
    const int raw = (int)(uint32_t)fd;
    for (;;) {
        const ssize_t k = n == 1 ? OL_SYS_READ(raw, iov->iov_base, len) : OL_SYS_READV(raw, iov, n);
        if (k > 0 && (size_t)k < len) ol__short_read(slot);
        if (k >= 0) return k;
        if (ol__would_block(errno)) {
            slot->bits &= (uint8_t)~(OL__READ | OL__URGENT);
            return -EAGAIN;
        }
        if (errno != EINTR) return -errno;
    }
}

static int64_t ol__iov_len(const struct iovec *iov, int n);
static int ol__read_some(ol_co *co, ol_fd fd, const struct iovec *iov, int n) {
    OL__IO_ENTER(OL__IN);
    (void)resumed;
    const int64_t len = ol__iov_len(iov, n);
    if (len <= 0) return ol__co_situation(co, len ? OL__E_IOV : OL__E_READ_ZERO);
    if (slot->bits & OL__READ) {
        const int64_t k = ol__read_once(slot, fd, iov, n, (size_t)len);
        if (k >= 0) return ol__done(co, k);
        if (k != -EAGAIN) return ol__io_error(co, (int)-k);
    }
    return ol__io_wait(co, slot, fd, OL__IN);
}

/* The bytes of an iovec array, or -1 if it is not usable. */
static int64_t ol__iov_len(const struct iovec *iov, int n) {
    uint64_t len = 0;
    if (!iov || n < 1 || n > 1024 /* IOV_MAX of Linux */) return -1;
    for (int i = 0; i < n; i++) len += iov[i].iov_len;
    return len > SSIZE_MAX ? -1 : (int64_t)len;
}

OL_API int ol_read(ol_co *co, ol_fd fd, void *buf, size_t len) {
    struct iovec iov;
    iov.iov_base = buf;
    iov.iov_len = len;
    return ol__read_some(co, fd, &iov, 1);
}
OL_API int ol_readv(ol_co *co, ol_fd fd, const struct iovec *iov, int n) {
    return ol__read_some(co, fd, iov, n);
}

/* Bytes sent, or a negative errno; -EAGAIN clears the bit. */
static int64_t ol__send_once(ol__slot *slot, ol_fd fd, struct iovec *iov, int n) {
    const int raw = (int)(uint32_t)fd;
    for (;;) {
        ssize_t k;
        if (slot->flags & OL__SOCKET)
            k = n == 1 ? OL_SYS_SEND(raw, iov->iov_base, iov->iov_len) : OL_SYS_SENDV(raw, iov, n);
        else
            k = n == 1 ? OL_SYS_WRITE(raw, iov->iov_base, iov->iov_len) : OL_SYS_WRITEV(raw, iov, n);
        if (k >= 0) return k;
        if (ol__would_block(errno)) {
            slot->bits &= (uint8_t)~OL__WRITE;
            return -EAGAIN;
        }
        if (errno != EINTR) return -errno;
    }
}

OL_API int ol_write(ol_co *co, ol_fd fd, const void *buf, size_t len) {
    OL__IO_ENTER(OL__OUT);
    (void)resumed; /* co->result: what earlier evaluations of this await sent */
    while ((size_t)co->result < len) {
        struct iovec iov;
        iov.iov_base = (char *)(uintptr_t)buf + co->result;
        iov.iov_len = len - (size_t)co->result;
        const int64_t k = slot->bits & OL__WRITE ? ol__send_once(slot, fd, &iov, 1) : -EAGAIN;
        if (k == -EAGAIN) return ol__io_wait(co, slot, fd, OL__OUT);
        if (k < 0) return ol__io_error(co, (int)-k);
        co->result += k;
    }
    return OL__DONE;
}

/* Moves the array past k bytes, in place; empty entries stay where they are. */
static void ol__iov_advance(struct iovec *iov, int n, size_t k) {
    for (int i = 0; i < n && k; i++) {
        const size_t take = k < iov[i].iov_len ? k : iov[i].iov_len;
        iov[i].iov_base = (char *)iov[i].iov_base + take;
        iov[i].iov_len -= take;
        k -= take;
    }
}

OL_API int ol_writev(ol_co *co, ol_fd fd, struct iovec *iov, int n) {
    OL__IO_ENTER(OL__OUT);
    (void)resumed;
    if (ol__iov_len(iov, n) < 0) return ol__co_situation(co, OL__E_IOV);
    for (;;) {
        while (n && !iov->iov_len) iov++, n--;
        if (!n) return OL__DONE;
        const int64_t k = slot->bits & OL__WRITE ? ol__send_once(slot, fd, iov, n) : -EAGAIN;
        if (k == -EAGAIN) return ol__io_wait(co, slot, fd, OL__OUT);
        if (k < 0) return ol__io_error(co, (int)-k);
        ol__iov_advance(iov, n, (size_t)k);
        co->result += k;
    }
}

enum { OL__ACCEPT_PAUSE_NS = 10000000 };

/* Errors of one connection, which is gone with them (accept(2)): the next one can be taken at once. */
static int ol__gone(int number) {
    return number == ECONNABORTED || number == EINTR || number == EPROTO || number == ENETDOWN ||
           number == ENOPROTOOPT || number == EHOSTDOWN || number == ENONET || number == EHOSTUNREACH ||
           number == ENETUNREACH;
}

/* One connection: 0 with its handle; or a negative errno: -EAGAIN clears the bit. -EINTR: one is gone, try again. The
   table of slots may have moved. */
static int ol__accept_once(ol_loop *loop, ol_fd fd, ol_fd *handle) {
    ol__slot *slot = &loop->slot[(uint32_t)fd];
    const int conn = OL_SYS_ACCEPT((int)(uint32_t)fd);
    if (conn >= 0) {
        /* a new connection can be written to; whether it can be read the kernel tells */
        const uint32_t flags = (slot->flags & (uint32_t)(OL__SOCKET | OL__TCP)) | OL__FRESH;
        const int r = ol__attach(loop, conn, 0, slot->cls, flags, OL__WRITE, handle);
        if (r < 0) OL_SYS_CLOSE(conn);
        return r;
    }
    if (ol__would_block(errno)) {
        slot->bits &= (uint8_t)~OL__READ;
        return -EAGAIN;
    }
    return ol__gone(errno) ? -EINTR : -errno;
}

static void ol__accept_full(ol_loop *loop, int number) {
    loop->stats.accept_full++;
    ol__log(loop, 1, ol__system_text(number));
}

OL_API int ol_accept(ol_co *co, ol_fd fd) {
    OL__IO_ENTER(OL__IN);
    (void)resumed;
    ol_loop *loop = co->loop;
    ol_fd handle = 0;
    int r = slot->bits & OL__READ ? -EINTR : -EAGAIN;
    while (r == -EINTR) {
        r = ol__accept_once(loop, fd, &handle);
        if (r == -EINTR && !ol__spend(loop, 1)) {
            ol__wake(co, OL__CO_RETRY);
            return OL__PENDING;
        }
    }
    if (r == 0) return ol__done(co, (int64_t)handle);
    slot = &loop->slot[(uint32_t)fd];
    if (r == -EAGAIN) return ol__io_wait(co, slot, fd, OL__IN);
    ol__co_error(co, OL__E_SYSTEM, r);
    const int pending = ol__wait_time(co, ol__after(ol__refresh(loop), OL__ACCEPT_PAUSE_NS), fd, r);
    if (ol__waits(co) == OL__W_TIME) slot->wait[OL__IN] = co; /* else there was no memory for it */
    ol__accept_full(loop, -r);
    return pending;
}

OL_API int ol_connect(ol_co *co, ol_fd fd, const struct sockaddr *addr, socklen_t len) {
    OL__IO_ENTER(OL__OUT);
    int number = 0;
    if (!(resumed && co->result)) { /* result 1: under way */
        const int r = OL_SYS_CONNECT((int)(uint32_t)fd, addr, len);
        if (r < 0 && errno != EINPROGRESS && errno != EINTR && errno != EALREADY) return ol__io_error(co, errno);
        /* what was seen so far is the state of an unconnected socket; being wrong here only costs an EAGAIN */
        slot->bits = r < 0 ? 0 : OL__READ | OL__WRITE;
        if (r == 0) return ol__done(co, 0);
        co->result = 1;
    }
    if (!(slot->bits & OL__WRITE)) return ol__io_wait(co, slot, fd, OL__OUT);
    if (OL_SYS_GETSOCKOPT((int)(uint32_t)fd, SO_ERROR, &number) < 0) number = errno;
    return number ? ol__io_error(co, number) : ol__done(co, 0);
}

static int ol__wait_ready(ol_co *co, ol_fd fd, int dir) {
    OL__IO_ENTER(dir);
    (void)resumed;
    if (!(slot->bits & (dir == OL__IN ? OL__READ : OL__WRITE))) return ol__io_wait(co, slot, fd, dir);
    return ol__done(co, 0);
}
OL_API int ol_wait_readable(ol_co *co, ol_fd fd) { return ol__wait_ready(co, fd, OL__IN); }
OL_API int ol_wait_writable(ol_co *co, ol_fd fd) { return ol__wait_ready(co, fd, OL__OUT); }

OL_API int ol_again(ol_loop *loop, ol_fd fd, int write) {
    ol__slot *slot = loop ? ol__slot_of(loop, fd) : NULL;
    if (!slot) return ol__fail(OL__E_STALE);
    slot->bits &= (uint8_t)~(write ? OL__WRITE : OL__READ);
    return 0;
}

/* The common beginning of calls that don't wait: 0 with *slot, or a negative errno. They serve who runs in the fd's
   partition, and others while nobody does. */
static int ol__try_enter(ol_loop *loop, ol_fd fd, int dir, ol__slot **out) {
    ol__slot *slot = loop ? ol__slot_of(loop, fd) : NULL;
    if (!slot) return ol__fail(OL__E_STALE);
    const uint32_t mine = loop->current ? loop->current->part : loop->callback_part;
    if (mine != slot->part && ol__held(&loop->part[slot->part])) return ol__fail(OL__E_HELD);
    if (slot->wait[dir]) return ol__fail(OL__E_WAITER);
    *out = slot;
    if ((slot->flags & OL__GUEST) || (slot->bits & (dir == OL__IN ? OL__READ : OL__WRITE))) return 0;
    return ol__fail(OL__E_NOT_READY);
}
static int64_t ol__tried(int64_t k) {
    if (k == -EAGAIN) return ol__fail(OL__E_NOT_READY);
    return k < 0 ? ol__fail_errno((int)-k) : k;
}

OL_API int64_t ol_try_readv(ol_loop *loop, ol_fd fd, const struct iovec *iov, int n) {
    ol__slot *slot;
    const int64_t len = ol__iov_len(iov, n);
    if (len <= 0) return ol__fail(len ? OL__E_IOV : OL__E_READ_ZERO);
    const int r = ol__try_enter(loop, fd, OL__IN, &slot);
    return r ? r : ol__tried(ol__read_once(slot, fd, iov, n, (size_t)len));
}
OL_API int64_t ol_try_writev(ol_loop *loop, ol_fd fd, const struct iovec *iov, int n) {
    ol__slot *slot;
    if (ol__iov_len(iov, n) < 0) return ol__fail(OL__E_IOV);
    const int r = ol__try_enter(loop, fd, OL__OUT, &slot);
    return r ? r : ol__tried(ol__send_once(slot, fd, (struct iovec *)(uintptr_t)iov, n)); /* which it only reads */
}
OL_API int64_t ol_try_read(ol_loop *loop, ol_fd fd, void *buf, size_t len) {
    struct iovec iov;
    iov.iov_base = buf;
    iov.iov_len = len;
    return ol_try_readv(loop, fd, &iov, 1);
}
OL_API int64_t ol_try_write(ol_loop *loop, ol_fd fd, const void *buf, size_t len) {
    struct iovec iov;
    iov.iov_base = (char *)(uintptr_t)buf;
    iov.iov_len = len;
    return ol_try_writev(loop, fd, &iov, 1);
}

static void ol__pause_over(ol_loop *loop, ol_timer *timer) {
    (void)timer;
    for (uint32_t fd = 0; fd < loop->slots; fd++) {
        if (!(loop->slot[fd].flags & OL__PAUSED)) continue;
        loop->slot[fd].flags &= (uint8_t)~OL__PAUSED;
        ol__slot_ready(loop, &loop->slot[fd], OL__READ);
    }
}

OL_API int64_t ol_try_accept(ol_loop *loop, ol_fd fd) {
    ol__slot *slot;
    ol_fd handle = 0;
    int r = ol__try_enter(loop, fd, OL__IN, &slot);
    if (r) return r;
    do r = ol__accept_once(loop, fd, &handle);
    while (r == -EINTR);
    if (r == 0) return (int64_t)handle;
    if (r == -EAGAIN) return ol__tried(r);
    slot = &loop->slot[(uint32_t)fd];
    if (loop->pause.index || ol_timer_start(loop, &loop->pause, OL__ACCEPT_PAUSE_NS, ol__pause_over) == 0) {
        slot->flags |= OL__PAUSED;
        slot->bits &= (uint8_t)~OL__READ;
    }
    ol__accept_full(loop, -r); /* last: the application's log may close the listener */
    return ol__fail_errno(-r);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>backend:isal: deflate, inflate, checksums. Runs on any thread; touches only the operation and its context      */

struct ol_exec {
#if defined(OFFLOAD_ISAL)
    struct isal_zstream *deflate;
    struct inflate_state *inflate;
    uint8_t *level_buffer;
#endif
    uint64_t left;  /* of the operation under way: input that was not looked at, */
    uint64_t room;  /* output that the codec was not given, */
    uint64_t piece; /* most input, or output, of one step, */
    uint32_t check; /* running checksum, */
    int way;        /* OL__CODING, ... */
};
enum { OL__CODING = 0, OL__STORING = 1, OL__SPILLED = 2 };
enum { OL__BLOCK = 16384 }; /* bytes of a step where time matters: some ten microseconds of a codec */
#if defined(OFFLOAD_ISAL)
enum { OL__CRC_BLOCKS = 16 }; /* of a checksum, which is so much faster */
#else
enum { OL__CRC_BLOCKS = 1 };
#endif

OL_API ol_exec *ol_exec_create(void) { return (ol_exec *)ol__zalloc(sizeof(ol_exec)); }
static void ol__exec_clear(ol_exec *exec) {
    (void)exec;
#if defined(OFFLOAD_ISAL)
    OL_SYS_FREE(exec->deflate);
    OL_SYS_FREE(exec->inflate);
    OL_SYS_FREE(exec->level_buffer);
#endif
}
OL_API void ol_exec_destroy(ol_exec *exec) {
    if (exec) ol__exec_clear(exec);
    OL_SYS_FREE(exec);
}

static uint64_t ol__least(uint64_t a, uint64_t b) { return a < b ? a : b; }

static int64_t ol__op_fail(ol_op *op, enum ol__situation situation) {
    op->err = (uint8_t)situation;
    return -ol__texts[situation].number;
}

#if defined(OFFLOAD_ISAL)
static uint32_t ol__crc32(uint32_t crc, const void *p, uint64_t n) {
    return crc32_gzip_refl(crc, (const unsigned char *)p, n);
}
#else
static uint32_t ol__crc_table[8][256];
static pthread_once_t ol__crc_once = PTHREAD_ONCE_INIT;
static void ol__crc_fill(void) { /* table k: the effect of a byte that k zero bytes follow */
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        ol__crc_table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            ol__crc_table[k][i] = ol__crc_table[k - 1][i] >> 8 ^ ol__crc_table[0][ol__crc_table[k - 1][i] & 0xff];
}
static uint32_t ol__crc32(uint32_t crc, const void *data, uint64_t n) { /* eight bytes a step */
    const unsigned char *p = (const unsigned char *)data;
    pthread_once(&ol__crc_once, ol__crc_fill);
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        crc ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        crc = ol__crc_table[7][crc & 0xff] ^ ol__crc_table[6][crc >> 8 & 0xff] ^ ol__crc_table[5][crc >> 16 & 0xff] ^
              ol__crc_table[4][crc >> 24] ^ ol__crc_table[3][p[4]] ^ ol__crc_table[2][p[5]] ^ ol__crc_table[1][p[6]] ^
              ol__crc_table[0][p[7]];
    }
    for (; n; n--, p++) crc = crc >> 8 ^ ol__crc_table[0][(crc ^ *p) & 0xff];
    return ~crc;
}
#endif

OL_API uint64_t ol_deflate_bound(uint64_t len) { return len + 5 * (len / 65535 + 1) + 18; }

#if defined(OFFLOAD_ISAL)
enum { OL__STATIC_UP_TO = 8192 };

static uint32_t ol__check(int format, uint32_t running, const void *p, uint64_t n) {
    if (format == OL_GZIP) return ol__crc32(running, p, n);
    if (format == OL_RAW) return 0;
    for (const uint8_t *b = (const uint8_t *)p; n;) {
        const uint64_t piece = ol__least(n, OL_SYS_PIECE);
        running = isal_adler32(running, b, piece);
        b += piece;
        n -= piece;
    }
    return running;
}

/* Stored blocks (RFC 1951 section 3.2.4): what a deflate falls back to when compressing gains nothing. */
static uint64_t ol__stored_size(uint64_t len) { return len + 5 * (len / 65535 + (len % 65535 || !len)); }

/* Stores the next piece, of whole blocks; -1: more to do, else the bytes of all. */
static int64_t ol__store(ol_exec *x, const ol_op *op, uint8_t *out, int final) {
    const uint8_t *src = (const uint8_t *)op->src + (op->len - x->left);
    out += (op->len - x->left) / 65535 * 65540;
    for (uint64_t done = 0; done < x->piece; done += 65535) {
        const uint32_t n = (uint32_t)ol__least(x->left, 65535);
        x->left -= n;
        *out++ = (uint8_t)(final && !x->left);
        *out++ = (uint8_t)n;
        *out++ = (uint8_t)(n >> 8);
        *out++ = (uint8_t)~n;
        *out++ = (uint8_t)(~n >> 8);
        if (n) memcpy(out, src, n);
        x->check = ol__check(op->format, x->check, src, n);
        out += n;
        src += n;
        if (!x->left) return (int64_t)ol__stored_size(op->len);
    }
    return -1;
}

/* Sets the codec up; -1 if it can't, -2 without memory. */
static int ol__deflate_open(ol_exec *x, const ol_op *op, uint8_t *out) {
    enum { BUFFER = ISAL_DEF_LVL3_DEFAULT > ISAL_DEF_LVL2_DEFAULT ? ISAL_DEF_LVL3_DEFAULT : ISAL_DEF_LVL2_DEFAULT };
    int level = op->level;
    if (level == OL_LEVEL_AUTO) level = op->len <= OL__STATIC_UP_TO ? OL_LEVEL_STATIC : OL_LEVEL_1;
    if (!x->deflate) x->deflate = (struct isal_zstream *)OL_SYS_MALLOC(sizeof *x->deflate);
    if (level != OL_LEVEL_STATIC && !x->level_buffer) x->level_buffer = (uint8_t *)OL_SYS_MALLOC(BUFFER);
    if (!x->deflate || (level != OL_LEVEL_STATIC && !x->level_buffer)) return -2;
    struct isal_zstream *z = x->deflate;
    isal_deflate_init(z);
    if (level == OL_LEVEL_STATIC) {
        isal_deflate_set_hufftables(z, NULL, IGZIP_HUFFTABLE_STATIC);
    } else {
        z->level = (uint32_t)level;
        z->level_buf = x->level_buffer;
        z->level_buf_size = BUFFER;
    }
    if (op->dict_len && isal_deflate_set_dict(z, (uint8_t *)(uintptr_t)op->u.codec.dict, op->dict_len) != COMP_OK)
        return -1;
    z->next_out = out;
    z->avail_in = z->avail_out = 0; /* isal_deflate_init leaves them */
    return 0;
}

/* Compresses the next piece into at most cap bytes: OL_MORE, or the bytes of all; -1 if cap is not enough. */
static int64_t ol__deflate_piece(ol_exec *x, const ol_op *op, uint64_t cap, int final) {
    struct isal_zstream *z = x->deflate;
    if (!z->avail_in && x->left) {
        z->next_in = (uint8_t *)(uintptr_t)op->src + (op->len - x->left);
        z->avail_in = (uint32_t)ol__least(x->left, ol__least(OL__BLOCK, OL_SYS_PIECE)); /* alike in each mode */
        x->left -= z->avail_in;
        x->check = ol__check(op->format, x->check, z->next_in, z->avail_in);
    }
    if (!z->avail_out && x->room) {
        z->avail_out = (uint32_t)ol__least(x->room, ol__least(OL__BLOCK, OL_SYS_PIECE)); /* it is put out in lumps */
        x->room -= z->avail_out;
    }
    z->flush = x->left ? NO_FLUSH : SYNC_FLUSH;
    z->end_of_stream = (uint16_t)(final && !x->left);
    if (isal_deflate(z) != COMP_OK) return -1;
    const int over = !x->left && !z->avail_in && (final ? z->internal_state.state == ZSTATE_END : z->avail_out > 0);
    if (over) return (int64_t)(cap - x->room - z->avail_out);
    return !z->avail_out && !x->room ? -1 : OL_MORE;
}

static uint64_t ol__put_header(uint8_t *out, int format) {
    static const uint8_t gzip[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}; /* RFC 1952: no time, unknown system */
    static const uint8_t zlib[2] = {0x78, 0x01};                           /* RFC 1950: 32 KB window, fastest */
    if (format == OL_GZIP) memcpy(out, gzip, sizeof gzip);
    if (format == OL_ZLIB) memcpy(out, zlib, sizeof zlib);
    return format == OL_GZIP ? sizeof gzip : format == OL_ZLIB ? sizeof zlib : 0;
}

static uint64_t ol__trailer_size(int format) { return format == OL_GZIP ? 8 : format == OL_ZLIB ? 4 : 0; }
static void ol__make_trailer(uint8_t *out, int format, uint32_t check, uint64_t total) {
    for (uint32_t i = 0; i < 4; i++) { /* gzip: little-endian crc and length; zlib: big-endian adler */
        out[i] = (uint8_t)(check >> (format == OL_GZIP ? 8 * i : 24 - 8 * i));
        if (format == OL_GZIP) out[4 + i] = (uint8_t)(total >> 8 * i);
    }
}

/* The stream of a chunk, or a new one for a whole. */
static ol_stream *ol__stream_of(ol_op *op, ol_stream *whole) {
    memset(whole, 0, sizeof *whole);
    ol_stream *s = op->u.codec.stream ? op->u.codec.stream : whole;
    if (!s->started && op->format == OL_ZLIB) s->check = 1; /* adler32 of nothing */
    return s;
}

/* One piece; OL_MORE: call it again. */
static int64_t ol__deflate(ol_exec *x, ol_op *op, int first) {
    ol_stream whole, *s = ol__stream_of(op, &whole);
    const int final = s == &whole || op->final;
    uint8_t header[10], *out = (uint8_t *)op->dst;
    const uint64_t head = s->started ? 0 : ol__put_header(header, op->format);
    const uint64_t extra = head + (final ? ol__trailer_size(op->format) : 0);
    if (op->cap < extra) return ol__op_fail(op, OL__E_NO_ROOM);
    const uint64_t room = op->cap - extra;
    int64_t n = 0;
    if (first) {
        x->left = op->len;
        x->room = room;
        x->check = s->check;
        x->way = OL__CODING;
        n = ol__deflate_open(x, op, out + head);
        if (n == -2) return ol__op_fail(op, OL__E_NO_MEMORY);
    }
    if (x->way == OL__CODING) {
        if (n == 0) n = ol__deflate_piece(x, op, room, final);
        if (n == OL_MORE) return n;
        if (n < 0 || (uint64_t)n > ol__stored_size(op->len)) {
            if (ol__stored_size(op->len) > room) return ol__op_fail(op, OL__E_NO_ROOM);
            x->way = OL__STORING;
            x->left = op->len;
            x->check = s->check;
        }
    }
    if (x->way == OL__STORING && (n = ol__store(x, op, out + head, final)) < 0) return OL_MORE;
    if (head) memcpy(out, header, head);
    s->started = 1;
    s->check = x->check;
    s->total += op->len;
    if (final) {
        uint8_t trailer[8];
        ol__make_trailer(trailer, op->format, s->check, s->total);
        if (extra > head) memcpy(out + head + n, trailer, extra - head);
        s->finished = 1;
    }
    return (int64_t)extra + n;
}

/* Reads the header that a stream begins with. Bytes consumed, or a negative errno. */
static int64_t ol__get_header(struct inflate_state *z, ol_op *op) {
    struct isal_gzip_header gzip;
    struct isal_zlib_header zlib;
    int r = ISAL_DECOMP_OK;
    z->next_in = (uint8_t *)(uintptr_t)op->src;
    z->avail_in = (uint32_t)ol__least(op->len, OL_SYS_PIECE);
    if (op->format == OL_GZIP) {
        isal_gzip_header_init(&gzip);
        r = isal_read_gzip_header(z, &gzip);
        /* ISA-L lets reserved flags pass, which RFC 1952 section 2.3.1.2 forbids */
        if (op->len > 3 && ((const uint8_t *)op->src)[3] & 0xe0) r = ISAL_INVALID_WRAPPER;
    } else if (op->format == OL_ZLIB) {
        memset(&zlib, 0, sizeof zlib);
        r = isal_read_zlib_header(z, &zlib);
        if (r == ISAL_DECOMP_OK && zlib.dict_flag) return ol__op_fail(op, OL__E_ZLIB_DICT);
    }
    return r == ISAL_DECOMP_OK ? (int64_t)(z->next_in - (const uint8_t *)op->src) : ol__op_fail(op, OL__E_CORRUPT);
}

/* Inflates the next piece of the raw deflate data: OL_MORE, 0 at the end, or a negative errno. When dst is full before
   the end, one byte of scratch finds out whether anything would have followed. */
static int64_t ol__inflate_piece(ol_exec *x, ol_op *op, int final) {
    struct inflate_state *z = x->inflate;
    uint8_t scratch = 0;
    if (!z->avail_in && x->left) {
        z->avail_in = (uint32_t)ol__least(x->left, x->piece);
        x->left -= z->avail_in;
    }
    if (!z->avail_out && x->room) {
        z->avail_out = (uint32_t)ol__least(x->room, x->piece);
        x->room -= z->avail_out;
    } else if (!z->avail_out) { /* not twice: what fills the scratch ends this */
        z->avail_out = 1;
        x->way = OL__SPILLED;
    }
    if (x->way == OL__SPILLED) z->next_out = &scratch;
    const uint32_t had_in = z->avail_in, had_out = z->avail_out;
    const uint8_t *const out = z->next_out;
    if (isal_inflate(z) != ISAL_DECOMP_OK) return ol__op_fail(op, OL__E_CORRUPT);
    if (x->way == OL__SPILLED && !z->avail_out) return ol__op_fail(op, OL__E_NO_ROOM);
    x->check = ol__check(op->format, x->check, out, had_out - z->avail_out);
    if (z->block_state != ISAL_BLOCK_FINISH && (z->avail_in != had_in || z->avail_out != had_out)) return OL_MORE;
    const int ended = z->block_state == ISAL_BLOCK_FINISH;
    /* between two blocks, at a byte boundary, with all input taken; HDR: it looked for a header and found no byte */
    const int header = z->block_state == ISAL_BLOCK_NEW_HDR || (z->block_state == ISAL_BLOCK_HDR && !z->tmp_in_size);
    const int between = header && z->read_in_length == 0 && !z->avail_in; /* and so nothing is left */
    return (final ? ended : between) ? 0 : ol__op_fail(op, OL__E_CORRUPT);
}

static int64_t ol__inflate_open(ol_exec *x, ol_op *op, const ol_stream *s) {
    uint64_t used = 0;
    if (!x->inflate) x->inflate = (struct inflate_state *)OL_SYS_MALLOC(sizeof *x->inflate);
    if (!x->inflate) return ol__op_fail(op, OL__E_NO_MEMORY);
    isal_inflate_init(x->inflate);
    if (!s->started) {
        const int64_t head = ol__get_header(x->inflate, op);
        if (head < 0) return head;
        used = (uint64_t)head;
        isal_inflate_init(x->inflate);
    }
    x->inflate->crc_flag = ISAL_DEFLATE;
    uint8_t *dict = (uint8_t *)(uintptr_t)op->u.codec.dict;
    if (op->dict_len && isal_inflate_set_dict(x->inflate, dict, op->dict_len) != COMP_OK)
        return ol__op_fail(op, OL__E_CORRUPT);
    x->inflate->next_in = (uint8_t *)(uintptr_t)op->src + used;
    x->inflate->next_out = (uint8_t *)op->dst;
    x->inflate->avail_in = x->inflate->avail_out = 0;
    x->left = op->len - used;
    x->room = op->cap;
    x->check = s->check;
    x->way = OL__CODING;
    return 0;
}

/* One piece; OL_MORE: call it again. */
static int64_t ol__inflate(ol_exec *x, ol_op *op, int first) {
    ol_stream whole, *s = ol__stream_of(op, &whole);
    const int final = s == &whole || op->final;
    int64_t r = first ? ol__inflate_open(x, op, s) : 0;
    if (r == 0) r = ol__inflate_piece(x, op, final);
    if (r < 0) return r; /* OL_MORE, too */
    struct inflate_state *z = x->inflate;
    const uint64_t back = (uint64_t)(z->read_in_length > 0 ? z->read_in_length / 8 : 0);
    const uint64_t n = op->cap - x->room - (x->way == OL__SPILLED ? 0 : z->avail_out);
    uint64_t used = (uint64_t)(z->next_in - (const uint8_t *)op->src) - back;
    if (final) {
        uint8_t trailer[8];
        const uint64_t size = ol__trailer_size(op->format);
        ol__make_trailer(trailer, op->format, x->check, s->total + n);
        if (op->len - used < size || (size && memcmp((const uint8_t *)op->src + used, trailer, size) != 0))
            return ol__op_fail(op, OL__E_CORRUPT);
        used += size;
        s->finished = 1;
    }
    s->started = 1;
    s->check = x->check;
    s->total += n;
    op->used = used;
    return (int64_t)n;
}
#endif

/* What hardware has inflated counts if the checksum that the stream carries is that of the output. */
static void ol__verify(ol_op *op) {
#if defined(OFFLOAD_ISAL)
    const uint64_t size = ol__trailer_size(op->format), n = (uint64_t)op->result;
    uint8_t trailer[8];
    if (op->kind != OL_OP_INFLATE || op->result < 0 || op->u.codec.stream || !size) return;
    int wrong = n > op->cap || op->used < size || op->used > op->len;
    if (!wrong) {
        ol__make_trailer(trailer, op->format, ol__check(op->format, op->format == OL_ZLIB, op->dst, n), n);
        wrong = memcmp((const uint8_t *)op->src + op->used - size, trailer, size) != 0;
    }
    if (wrong) op->result = ol__op_fail(op, OL__E_DEVICE);
#else
    (void)op;
#endif
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>files: what an operation of kind "file" does, on whatever thread it runs                                       */

enum { OL__FILE_OPEN = 1, OL__FILE_STAT = 2, OL__FILE_READ = 3 };

static int64_t ol__file_error(ol_op *op, int number) {
    op->err = OL__E_SYSTEM;
    return -number;
}

/* openat with OL_BENEATH; `cached`: only if the name cache has the answer, else EAGAIN. A plain fd or -1. */
static int ol__file_open(const ol_op *op, int flags, int cached) {
    const char *path = (const char *)op->src;
    const int beneath = op->u.file.offset & OL_BENEATH ? OL__RESOLVE_BENEATH : 0;
    const uint32_t mode = flags & O_CREAT ? (uint32_t)op->cap & 07777 : 0;
    if (!beneath && !cached) return OL_SYS_OPEN(op->u.file.fd, path, flags, mode);
    return OL_SYS_OPEN2(op->u.file.fd, path, flags, mode, (uint64_t)(beneath | (cached ? OL__RESOLVE_CACHED : 0)));
}

static int64_t ol__file_read(ol_op *op) {
    while (op->used < op->len) {
        const ssize_t k = OL_SYS_PREAD(op->u.file.fd, (char *)op->dst + op->used, (size_t)(op->len - op->used),
                                       op->u.file.offset + (int64_t)op->used);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return ol__file_error(op, errno);
        if (k == 0) break;
        op->used += (uint64_t)k;
    }
    return (int64_t)op->used;
}

static int64_t ol__file_execute(ol_op *op) {
    int r = -1;
    switch (op->u.file.what) {
    case OL__FILE_OPEN:
        for (int tries = 0; tries < 64; tries++) { /* EAGAIN: a rename on the way raced with the check (openat2(2)) */
            r = ol__file_open(op, (int)(op->cap >> 32), 0);
            const int raced = errno == EAGAIN && (op->u.file.offset & OL_BENEATH);
            if (r >= 0 || (errno != EINTR && !raced)) break;
        }
        if (r < 0 && errno == ENOSYS) return ol__op_fail(op, OL__E_FILE_BENEATH);
        break;
    case OL__FILE_STAT: r = OL_SYS_FSTATAT(op->u.file.fd, (const char *)op->src, (struct stat *)op->dst); break;
    default: return ol__file_read(op);
    }
    return r < 0 ? ol__file_error(op, errno) : r;
}

/* A name in the cache may still be that of a FIFO, a terminal or a leased file, whose open waits: so it is tried with
   O_NONBLOCK, and kept if it is a regular file or directory. */
static int ol__file_plain(int fd) {
    struct stat st;
    if (OL_SYS_FSTAT(fd, &st) < 0) return 0;
    return (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && OL_SYS_BLOCK(fd) == 0;
}
static int ol__file_try_open(ol_op *op) {
    const int flags = (int)(op->cap >> 32);
    const int fd = ol__file_open(op, flags | O_NONBLOCK, 1);
    if (fd < 0) {
        const int number = errno;
        if (number == EAGAIN || number == ENOSYS || number == EINVAL || number == EINTR || number == EPERM ||
            number == ENXIO)
            return 0;
        op->result = ol__file_error(op, number);
        return 1;
    }
    if (!(flags & O_NONBLOCK) && !ol__file_plain(fd)) {
        OL_SYS_CLOSE(fd);
        return 0;
    }
    op->result = fd;
    return 1;
}

/* Linux 5.9 and 5.10 may say 0 bytes before the end (readv(2), BUGS). */
static int ol__file_ended(const ol_op *op) {
    struct stat st;
    return OL_SYS_FSTAT(op->u.file.fd, &st) == 0 && op->u.file.offset + (int64_t)op->used >= st.st_size;
}

enum { OL__SPOT_BYTES = 256 << 10 }; /* a longer read would hold up the loop even from the cache */

/* Tries a file operation without blocking. 1: op->result is there. */
static int ol__file_try(ol_op *op) {
    ssize_t k;
    switch (op->u.file.what) {
    case OL__FILE_OPEN: return ol__file_try_open(op);
    case OL__FILE_STAT: {
        const int fd = op->src ? ol__file_open(op, O_PATH | O_CLOEXEC, 1) : op->u.file.fd;
        if (fd < 0 && op->src) return 0;
        op->result = OL_SYS_FSTAT(fd, (struct stat *)op->dst) < 0 ? ol__file_error(op, errno) : 0;
        if (op->src) OL_SYS_CLOSE(fd);
        return 1;
    }
    default: break;
    }
    if (op->len > OL__SPOT_BYTES) return 0;
    while (op->used < op->len) {
        k = OL_SYS_PREAD_CACHED(op->u.file.fd, (char *)op->dst + op->used, (size_t)(op->len - op->used),
                                op->u.file.offset + (int64_t)op->used);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0 && (errno == EAGAIN || errno == EOPNOTSUPP || errno == ENOSYS)) return 0;
        if (k < 0) {
            op->result = ol__file_error(op, errno);
            return 1;
        }
        if (k == 0 && !ol__file_ended(op)) return 0;
        if (k == 0) break;
        op->used += (uint64_t)k;
    }
    op->result = (int64_t)op->used;
    return 1;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>backend:software: any operation, on the thread that asks                                                       */

enum { OL__OP_MAGIC = 0x0f1d };
enum { /* op.state_ */
    OL__IDLE = 0,
    OL__STAGED = 1,   /* in a lane's list, to be submitted */
    OL__PARKED = 2,   /* in a lane's list, waiting for room */
    OL__BACKEND = 3,  /* a backend has it */
    OL__FINISHED = 4, /* complete, to be reported */
    OL__SLICING = 5   /* in a slicer's line, or under way there */
};

/* One step of an operation, of x->piece bytes: OL_MORE, or its result. */
static int64_t ol__step(ol_exec *x, ol_op *op, int first) {
    int64_t r;
    switch (op->kind) {
    case OL_OP_CALL:
        r = op->u.call.fn(op->u.call.arg);
        if (r == OL_MORE && op->format == OL_STEPS) return r;
        op->err = OL__E_RESULT;
        return r == OL_MORE ? OL_MORE + 1 : r; /* no errno anyway */
    case OL_OP_CRC32: {
        if (first) x->left = op->len;
        if (first) x->check = op->u.crc;
        const uint64_t n = ol__least(x->left, OL__CRC_BLOCKS * x->piece);
        x->check = ol__crc32(x->check, (const char *)op->src + (op->len - x->left), n);
        x->left -= n;
        return x->left ? OL_MORE : (int64_t)x->check;
    }
#if defined(OFFLOAD_ISAL)
    case OL_OP_DEFLATE: return ol__deflate(x, op, first);
    case OL_OP_INFLATE:
        r = ol__inflate(x, op, first);
        /* a chunk that had too little room can be repeated; a corrupt one ends its stream */
        if (r == -EBADMSG && op->u.codec.stream) op->u.codec.stream->failed = 1;
        return r;
#endif
    default: return ol__file_execute(op); /* ol__op_check lets no other kind come here */
    }
}

static int64_t ol__execute(ol_exec *x, ol_op *op) {
    ol_exec none;
    int64_t r;
    if (!x && (op->kind == OL_OP_DEFLATE || op->kind == OL_OP_INFLATE)) return ol__op_fail(op, OL__E_NO_MEMORY);
    if (!x) x = &none;
    x->piece = OL_SYS_PIECE;
    for (int first = 1; (r = ol__step(x, op, first)) == OL_MORE;) first = 0;
    return r;
}

static ol_op *ol__prep(ol_op *op, int kind, const void *src, uint64_t len, void *dst, uint64_t cap) {
    memset(op, 0, sizeof *op);
    op->magic_ = OL__OP_MAGIC;
    op->kind = (uint8_t)kind;
    op->src = src;
    op->len = len;
    op->dst = dst;
    op->cap = cap;
    return op;
}
static uint8_t ol__byte(int value) { return value < 0 || value > 255 ? 255 : (uint8_t)value; }

static ol_op *ol__prep_codec(ol_op *op, int kind, int format, void *dst, uint64_t cap, const void *src, uint64_t len,
                             ol_stream *stream, const void *dict, uint32_t dict_len, int final) {
    ol__prep(op, kind, src, len, dst, cap);
    op->format = ol__byte(format);
    op->u.codec.stream = stream;
    op->u.codec.dict = dict;
    op->dict_len = dict_len > 65535 ? 65535 : (uint16_t)dict_len;
    op->final = final != 0;
    return op;
}
OL_API ol_op *ol_prep_deflate(ol_op *op, int format, void *dst, uint64_t cap, const void *src, uint64_t len) {
    return ol__prep_codec(op, OL_OP_DEFLATE, format, dst, cap, src, len, NULL, NULL, 0, 1);
}
OL_API ol_op *ol_prep_deflate_chunk(ol_op *op, int format, void *dst, uint64_t cap, const void *src, uint64_t len,
                                    ol_stream *stream, const void *dict, uint32_t dict_len, int final) {
    return ol__prep_codec(op, OL_OP_DEFLATE, format, dst, cap, src, len, stream, dict, dict_len, final);
}
OL_API ol_op *ol_prep_inflate(ol_op *op, int format, void *dst, uint64_t cap, const void *src, uint64_t len) {
    return ol__prep_codec(op, OL_OP_INFLATE, format, dst, cap, src, len, NULL, NULL, 0, 1);
}
OL_API ol_op *ol_prep_inflate_chunk(ol_op *op, int format, void *dst, uint64_t cap, const void *src, uint64_t len,
                                    ol_stream *stream, const void *dict, uint32_t dict_len, int final) {
    return ol__prep_codec(op, OL_OP_INFLATE, format, dst, cap, src, len, stream, dict, dict_len, final);
}
OL_API ol_op *ol_prep_crc32(ol_op *op, uint32_t start, const void *src, uint64_t len) {
    ol__prep(op, OL_OP_CRC32, src, len, NULL, 0)->u.crc = start;
    return op;
}
OL_API ol_op *ol_prep_call(ol_op *op, int64_t (*fn)(void *arg), void *arg) {
    ol__prep(op, OL_OP_CALL, NULL, 0, NULL, 0);
    op->u.call.fn = fn;
    op->u.call.arg = arg;
    return op;
}
OL_API ol_op *ol_prep_steps(ol_op *op, int64_t (*step)(void *arg), void *arg) {
    ol_prep_call(op, step, arg)->format = OL_STEPS;
    return op;
}

static enum ol__situation ol__op_check_codec(const ol_op *op) {
    const ol_stream *s = op->u.codec.stream;
#if !defined(OFFLOAD_ISAL)
    return OL__E_NO_CODEC;
#endif
    if (op->format < OL_RAW || op->format > OL_GZIP || op->level > OL_LEVEL_STATIC) return OL__E_OP_FORMAT;
    if ((op->len && !op->src) || (op->cap && !op->dst)) return OL__E_OP_BUFFER;
    if (s && (s->finished || s->failed)) return OL__E_OP_STREAM;
    if (!op->dict_len) return OL__E_NONE;
    if (op->dict_len > 32768 || !op->u.codec.dict) return OL__E_OP_DICT;
    const int first = !s || !s->started;
    return op->format != OL_RAW && first ? OL__E_OP_DICT : OL__E_NONE;
}

/* What is wrong with an operation that is about to be submitted or executed. */
static enum ol__situation ol__op_check(const ol_op *op) {
    if (!op || op->magic_ != OL__OP_MAGIC) return OL__E_NOT_PREPARED;
    if (op->state_ != OL__IDLE) return OL__E_IN_FLIGHT;
    if (op->cls > OL_BATCH) return OL__E_OP_CLASS;
    switch (op->kind) {
    case OL_OP_CALL: return op->u.call.fn ? OL__E_NONE : OL__E_OP_FN;
    case OL_OP_CRC32: return op->len && !op->src ? OL__E_OP_BUFFER : OL__E_NONE;
    case OL_OP_DEFLATE:
    case OL_OP_INFLATE: return ol__op_check_codec(op);
    default: return OL__E_NOT_PREPARED;
    }
}

OL_API int64_t ol_op_exec(ol_exec *exec, ol_op *op) {
    /* a backend executes operations that are in flight; anybody else's are idle */
    if (op && op->magic_ == OL__OP_MAGIC && op->state_ == OL__BACKEND) return op->result = ol__execute(exec, op);
    const enum ol__situation s = ol__op_check(op);
    if (s == OL__E_NOT_PREPARED) return ol__fail(s);
    return op->result = s == OL__E_NONE ? ol__execute(exec, op) : ol__op_fail(op, s);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>policy:impl                                                                                                    */

static const char *const ol__kind_names[] = {"any", "call", "crc32", "deflate", "inflate", "file"};
static const char *const ol__class_names[] = {"any", "latency", "batch"};
static const char *const ol__mode_names[] = {"-", "software", "sliced", "sync", "async", "auto"};
static const char *const ol__full_names[] = {"-", "software", "wait", "fail"};

/* Where there are only threads: waking a worker costs the submitter about as much as compressing 4 to 8 KB (bench/core
   prints both), so smaller work stays. What may block never runs on the loop. */
static const char ol__policy_pool[] = "call     any      0-        async     threads  wait\n"
                                      "file     any      0-        async     threads  wait\n"
                                      "deflate  latency  8K-       async     threads  software\n"
                                      "deflate  batch    8K-       async     threads  wait\n"
                                      "inflate  latency  16K-      async     threads  software\n"
                                      "inflate  batch    16K-      async     threads  wait\n"
                                      "crc32    any      512K-     async     threads  software\n"
                                      "any      any      0-        software  -        -\n";
/* Table 3.1 of A. Vijeev, "Operating System Scheduling for Emerging Hardware Accelerators", UC San Diego 2023 */
static const char ol__policy_thesis[] = "deflate  latency  0-256     software  -        -\n"
                                        "deflate  latency  257-      sync      device   software\n"
                                        "deflate  batch    0-        async     device   wait\n"
                                        "call     any      0-        async     threads  wait\n"
                                        "file     any      0-        async     threads  wait\n";

/* The next word of the line; its length, or -1 if it is too long. */
static int ol__word(const char **p, char *word, size_t room) {
    size_t n = 0;
    while (**p == ' ' || **p == '\t' || **p == '\r') ++*p;
    for (; **p && !strchr(" \t\r\n#", **p); ++*p) {
        if (n + 1 >= room) return -1;
        word[n++] = **p;
    }
    word[n] = 0;
    return (int)n;
}

static int ol__name_index(const char *const *names, int n, const char *word) {
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], word) == 0) return i;
    return -1;
}

static int ol__bytes_valid(uint64_t n) { return n <= (uint64_t)1 << 40; } /* so that text can say it, K or M or not */

/* A number with an optional K or M; -1 if it is not one. */
static int64_t ol__bytes(const char **p) {
    uint64_t v = 0;
    const char *const begin = *p;
    for (; **p >= '0' && **p <= '9'; ++*p) {
        v = v * 10 + (uint64_t)(**p - '0');
        if (v > (uint64_t)1 << 40) return -1;
    }
    if (*p == begin) return -1;
    const int shift = **p == 'K' ? 10 : **p == 'M' ? 20 : 0;
    if (shift) ++*p;
    return ol__bytes_valid(v << shift) ? (int64_t)(v << shift) : -1;
}

static int ol__range(const char *word, ol_rule *rule) { /* N, N-M, N- */
    const char *p = word;
    const int64_t min = ol__bytes(&p);
    if (min < 0) return 0;
    rule->min = rule->max = (uint64_t)min;
    if (!*p) return min > 0; /* max 0 means no limit, so "0" alone can't be said */
    if (*p++ != '-') return 0;
    rule->max = 0;
    if (!*p) return 1;
    const int64_t max = ol__bytes(&p);
    rule->max = (uint64_t)max;
    return max > 0 && max >= min && !*p;
}

static int ol__rule_valid(const ol_rule *r) {
    return r->kind < OL__KINDS && r->cls <= OL_BATCH && r->mode >= OL_SOFTWARE && r->mode <= OL_AUTO &&
           r->full <= OL_FULL_FAIL && (!r->max || r->max >= r->min) && ol__bytes_valid(r->min) &&
           ol__bytes_valid(r->max) && memchr(r->backend, 0, sizeof r->backend) && !strpbrk(r->backend, " \t\r\n#") &&
           strcmp(r->backend, "-") != 0 && (r->mode <= OL_SLICED) == !r->backend[0];
}

/* Parses one line into *rule: 1 a rule, 0 nothing, -1 an error described by *what. */
static int ol__policy_line(const char **p, ol_rule *rule, const char **what) {
    char word[6][32];
    int n = 0;
    memset(rule, 0, sizeof *rule);
    for (;; n++) {
        char extra[32];
        const int k = ol__word(p, n < 6 ? word[n] : extra, sizeof extra);
        if (k == 0) break;
        *what = k < 0 ? "a word is too long" : "too many words: op class bytes mode backend when-full";
        if (k < 0 || n == 6) return -1;
    }
    if (n == 0) return 0;
    *what = "a rule has six words: op class bytes mode backend when-full";
    if (n != 6) return -1;
    const int kind = ol__name_index(ol__kind_names, OL__KINDS, word[0]);
    const int cls = ol__name_index(ol__class_names, 3, word[1]);
    const int mode = ol__name_index(ol__mode_names, 6, word[3]);
    const int full = ol__name_index(ol__full_names, 4, word[5]);
    const int software = strcmp(word[4], "-") == 0;
    *what = kind < 0                         ? "op must be any, call, crc32, deflate, inflate or file"
            : cls < 0                        ? "class must be any, latency or batch"
            : !ol__range(word[2], rule)      ? "bytes must be N (from 1), N- or N-M, with K or M"
            : mode <= 0                      ? "mode must be software, sliced, sync, async or auto"
            : full < 0                       ? "when-full must be -, software, wait or fail"
            : strlen(word[4]) > 15           ? "a backend's name has at most 15 characters"
            : (mode <= OL_SLICED) != software ? "software and sliced need backend -, the other modes need a backend"
                                              : NULL;
    if (*what) return -1;
    rule->kind = (uint8_t)kind;
    rule->cls = (uint8_t)cls;
    rule->mode = (uint8_t)mode;
    rule->full = (uint8_t)full;
    if (!software) memcpy(rule->backend, word[4], strlen(word[4]) + 1);
    return 1;
}

static int ol__policy_error(int line, const char *what, char *err, size_t err_len) {
    static __thread char text[128];
    snprintf(text, sizeof text, "policy, line %d: %s", line, what);
    if (err && err_len) snprintf(err, err_len, "%s", text);
    ol__last_error = text;
    return -EINVAL;
}

OL_API int ol_policy_parse(const char *text, ol_policy *out, char *err, size_t err_len) {
    ol_policy policy;
    const char *what = "the text is NULL";
    int line = 1;
    memset(&policy, 0, sizeof policy);
    if (text && strcmp(text, "pool") == 0) text = ol__policy_pool;
    if (text && strcmp(text, "thesis") == 0) text = ol__policy_thesis;
    for (const char *p = text; text; line++) {
        ol_rule rule;
        const int r = ol__policy_line(&p, &rule, &what);
        if (r < 0) break;
        if (r && policy.n == OL_POLICY_RULES) {
            what = "more than 64 rules";
            break;
        }
        if (r) policy.rule[policy.n++] = rule;
        while (*p && *p != '\n') p++;
        if (*p) {
            p++;
            continue;
        }
        if (out) *out = policy;
        return 0;
    }
    return ol__policy_error(line, what, err, err_len);
}

/* Text that grows in a buffer which may be too small, as with snprintf. */
typedef struct ol__out {
    char *text;
    size_t len, at;
} ol__out;
__attribute__((format(printf, 2, 3))) static void ol__say(ol__out *out, const char *format, ...) {
    const size_t room = out->at < out->len ? out->len - out->at : 0;
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(room ? out->text + out->at : NULL, room, format, args);
    va_end(args);
    out->at += (size_t)n; /* with these formats it can't fail */
}

static void ol__say_bytes(ol__out *out, uint64_t n) {
    const int shift = !n || n % 1024 ? 0 : n % (1 << 20) ? 10 : 20;
    ol__say(out, "%llu%s", (unsigned long long)(n >> shift), shift == 20 ? "M" : shift ? "K" : "");
}

OL_API int ol_policy_print(const ol_policy *policy, char *text, size_t len) {
    if (!policy || policy->n > OL_POLICY_RULES || (len && !text)) return ol__fail(OL__E_POLICY);
    ol__out out = {text, len, 0};
    ol__say(&out, "# op     class    bytes         mode      backend          when-full\n");
    for (uint32_t i = 0; i < policy->n; i++) {
        const ol_rule *r = &policy->rule[i];
        if (!ol__rule_valid(r)) return ol__fail(OL__E_POLICY);
        ol__say(&out, "%-8s %-8s ", ol__kind_names[r->kind], ol__class_names[r->cls]);
        const size_t begin = out.at;
        ol__say_bytes(&out, r->min);
        if (r->max != r->min || !r->max) ol__say(&out, "-");
        if (r->max && r->max != r->min) ol__say_bytes(&out, r->max);
        const int pad = out.at - begin < 13 ? (int)(13 - (out.at - begin)) : 0;
        ol__say(&out, "%*s %-9s %-16s %s\n", pad, "", ol__mode_names[r->mode], r->backend[0] ? r->backend : "-",
                ol__full_names[r->full]);
    }
    return (int)out.at;
}

static uint32_t ol__lane_named(const ol_loop *loop, const char *name) { /* its index, or OL__LANES */
    for (uint32_t i = 1; i < loop->lanes; i++)
        if (strcmp(loop->lane[i].backend->name, name) == 0) return i;
    return OL__LANES;
}

OL_API int ol_loop_set_policy(ol_loop *loop, const ol_policy *policy) {
    uint8_t lane[OL_POLICY_RULES];
    if (!loop || !policy || policy->n > OL_POLICY_RULES) return ol__fail(OL__E_POLICY);
    for (uint32_t i = 0; i < policy->n; i++) {
        const ol_rule *r = &policy->rule[i];
        if (!ol__rule_valid(r)) return ol__fail(OL__E_POLICY);
        const uint32_t to = r->backend[0] ? ol__lane_named(loop, r->backend) : 0;
        if (to == OL__LANES) {
            static __thread char text[128];
            snprintf(text, sizeof text,
                     "the policy names the backend '%s', which this loop doesn't have: add it to the desc", r->backend);
            ol__last_error = text;
            return -EINVAL;
        }
        lane[i] = (uint8_t)to;
    }
    loop->policy = *policy;
    memcpy(loop->rule_lane, lane, sizeof lane);
    return 0;
}

OL_API void ol_loop_get_policy(const ol_loop *loop, ol_policy *policy) { *policy = loop->policy; }

/* The first rule that matches; -1 none: software. */
static int ol__policy_find(const ol_loop *loop, uint32_t kind, uint32_t cls, uint64_t bytes) {
    for (uint32_t i = 0; i < loop->policy.n; i++) {
        const ol_rule *r = &loop->policy.rule[i];
        const int fits = bytes >= r->min && (!r->max || bytes <= r->max);
        if (fits && (!r->kind || r->kind == kind) && (!r->cls || r->cls == cls)) return (int)i;
    }
    return -1;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>stats: what operations cost                                                                                    */

OL_API void ol_histogram_add(ol_histogram *h, int64_t ns) {
    const uint64_t v = ns > 0 ? (uint64_t)ns : 0;
    const uint32_t shift = v < 16 ? 0 : 60 - (uint32_t)__builtin_clzll(v); /* leaves four bits, the first one set */
    const uint64_t i = v < 16 ? v : 8 * shift + (v >> shift);
    h->n[i < OL_HISTOGRAM ? i : OL_HISTOGRAM - 1]++;
    h->count++;
    h->sum += v;
    if (v > h->max) h->max = v;
}

OL_API int64_t ol_histogram_at(const ol_histogram *h, double share) {
    const double want = (share > 0 ? share < 1 ? share : 1 : 0) * (double)h->count * (1 - 1e-12); /* 0.07 * 100 > 7 */
    uint64_t left = (uint64_t)want + 1;
    for (uint32_t i = 0; i < OL_HISTOGRAM - 1; left -= h->n[i++]) {
        const uint32_t shift = i < 16 ? 0 : i / 8 - 1;
        const uint64_t upper = ((uint64_t)(i - 8 * shift + 1) << shift) - 1;
        if (h->n[i] >= left) return (int64_t)ol__least(upper, h->max);
    }
    return (int64_t)h->max;
}

static void ol__histogram_sum(ol_histogram *to, const ol_histogram *h) {
    for (uint32_t i = 0; i < OL_HISTOGRAM; i++) to->n[i] += h->n[i];
    to->count += h->count;
    to->sum += h->sum;
    if (h->max > to->max) to->max = h->max;
}

static uint32_t ol__bucket(uint64_t bytes) {
    return bytes < 256 ? 0 : (uint32_t)ol__least(56 - (uint32_t)__builtin_clzll(bytes), OL__BUCKETS - 1);
}
static ol__cell *ol__cell_of(const ol_loop *loop, uint32_t kind, uint32_t cls, uint64_t bytes) {
    return &loop->cell[kind - 1][cls - 1][ol__bucket(bytes)];
}
static uint32_t ol__op_class(const ol_op *op) { return op->flags_ & OL__OP_CLASS; }
static ol__cell *ol__op_cell(const ol_loop *loop, const ol_op *op) {
    return ol__cell_of(loop, op->kind, ol__op_class(op), op->len);
}
static const uint8_t ol__way_modes[] = {OL_SOFTWARE, OL_ASYNC, OL_SYNC}; /* of OL__HERE, OL__ASYNC, OL__SYNC */

/* A moving average. One sample moves it up by three eighths at most, so that an interruption doesn't count for much;
   `half`: by half of the way, when samples are rare. */
static void ol__average(float *average, float ns, int half) {
    const float old = *average, most = 4 * old;
    if (ns < 1) ns = 1; /* 0 means unknown */
    *average = old <= 0 ? ns : half ? (old + ns) / 2 : old + ((ns < most ? ns : most) - old) / 8;
}

/* What a way took. One that was tried and costs much less than it used to is tried again soon. */
static void ol__learn(ol__cell *cell, float *average, int64_t ns, int probe) {
    const float old = *average;
    ol__average(average, (float)ns, probe);
    if (probe && (float)ns < old / 2)
        cell->interval = cell->probe = 4;
    else if ((float)ns > 2 * old && cell->interval > 256)
        cell->interval = 256;
}

/* The same for an operation that a backend had, behind a backlog: without one it says what the operation takes, else
   what share of the backlog it has waited. */
static void ol__learn_from(ol__cell *cell, ol__lane *lane, const ol__sample *t, int64_t ns, int probe) {
    float *own = &cell->ns[t->learn - 1][t->asleep];
    const float waited = t->backlog * lane->share;
    if (*own <= 0 || t->backlog < *own / 4 || (float)ns < *own) {
        ol__learn(cell, own, *own > 0 || (float)ns < 2 * waited ? ns : ns - (int64_t)waited, probe);
        return;
    }
    const float share = ((float)ns - *own) / t->backlog;
    lane->share += ((share < 4 ? share : 4) - lane->share) / 8;
}

/* Of what auto decides each that only tries is timed, and one in eight, or 32 where nothing has changed for long. */
static int ol__learn_due(ol__cell *cell, uint8_t why) {
    return why == OL_WHY_PROBE || (why >= OL_WHY_MEASURED && !(cell->timed++ & (cell->interval < 512 ? 7 : 31)));
}
static int ol__count_due(ol_loop *loop) {
    if (++loop->sampled < loop->desc.sample) return 0;
    loop->sampled = 0;
    return 1;
}

static void ol__times_add(ol_loop *loop, const ol_op *op, int64_t submit, int64_t service, int64_t total) {
    ol_histogram *h = loop->times[op->kind - 1][ol__op_class(op) - 1];
    if (submit >= 0) ol_histogram_add(&h[OL_TIME_SUBMIT], submit);
    if (submit >= 0) ol_histogram_add(&h[OL_TIME_QUEUE], total - service - submit);
    ol_histogram_add(&h[OL_TIME_SERVICE], service);
    ol_histogram_add(&h[OL_TIME_TOTAL], total);
}

/* Takes the operation's times from here on, if there is a place: `learn`: 1 + the way that auto is to learn of. */
static void ol__sample_begin(ol_loop *loop, ol_op *op, uint32_t learn, int asleep, float backlog) {
    const uint8_t i = loop->sample[0].next;
    if (!i) return;
    ol__sample *t = &loop->sample[i];
    loop->sample[0].next = t->next;
    op->sample_ = i;
    t->begin = OL_SYS_NOW();
    t->submit_ns = 0;
    t->count = !learn || ol__count_due(loop);
    t->learn = (uint8_t)learn;
    t->asleep = (uint8_t)asleep;
    t->backlog = backlog;
}
static void ol__sample_free(ol_loop *loop, ol_op *op) {
    loop->sample[op->sample_].next = loop->sample[0].next;
    loop->sample[0].next = op->sample_;
    op->sample_ = 0;
}
static void ol__sample_drop(ol_loop *loop, ol_op *op) { /* it takes another way: the next that is looked at counts */
    if (op->sample_ && loop->sample[op->sample_].count) loop->sampled = loop->desc.sample - 1;
    if (op->sample_) ol__sample_free(loop, op);
}
static void ol__sample_end(ol_loop *loop, ol_op *op) {
    const ol__sample *t = &loop->sample[op->sample_];
    const int64_t total = loop->now - t->begin;
    ol__sample_free(loop, op);
    if (op->result == -ECANCELED) return; /* it says nothing of the work */
    if (t->learn) { /* that the loop was busy and looked late is not the backend's time; that it had to wake up is */
        ol__lane *lane = &loop->lane[op->where];
        const int64_t looked = lane->looked > loop->slept ? lane->looked : loop->slept;
        const int64_t work = (int64_t)t->submit_ns + op->service_ns, most = loop->now - t->handed;
        int64_t least = looked - t->handed > work ? looked - t->handed : work;
        if (least > most || t->learn == 1 + OL__SYNC) least = most; /* who spins has looked all the time */
        ol__learn_from(ol__op_cell(loop, op), lane, t,
                       op->service_ns ? least : (least + most) / 2, op->why == OL_WHY_PROBE);
    }
    if (t->count) ol__times_add(loop, op, (int64_t)t->submit_ns, op->service_ns, total);
}

static void ol__op_counted(ol_loop *loop, const ol_op *op) {
    ol__op_cell(loop, op)->n[op->mode]++;
    loop->stats.why[op->why]++;
}

OL_API int ol_loop_get_times(const ol_loop *loop, int kind, int cls, int what, ol_histogram *out) {
    if (!loop || !out || kind < 0 || kind >= OL__KINDS || cls < 0 || cls > OL_BATCH || what < 0 || what > OL_TIME_LAG)
        return ol__fail(OL__E_STATS);
    memset(out, 0, sizeof *out);
    if (what == OL_TIME_LAG) *out = loop->lag;
    for (int k = 1; k < OL__KINDS && what < OL_TIME_LAG; k++)
        for (int c = OL_LATENCY; c <= OL_BATCH; c++)
            if ((!kind || kind == k) && (!cls || cls == c)) ol__histogram_sum(out, &loop->times[k - 1][c - 1][what]);
    return 0;
}

OL_API int ol_loop_get_cell(const ol_loop *loop, int kind, int cls, uint64_t bytes, ol_cell *out) {
    if (!loop || !out || kind < 1 || kind >= OL__KINDS || cls < OL_LATENCY || cls > OL_BATCH)
        return ol__fail(OL__E_STATS);
    const uint32_t size = (uint32_t)ol__least(out->size, sizeof *out), b = ol__bucket(bytes);
    const ol__cell *cell = ol__cell_of(loop, (uint32_t)kind, (uint32_t)cls, bytes);
    ol_cell c;
    memset(&c, 0, sizeof c);
    c.size = size;
    c.choice = ol__way_modes[cell->choice];
    c.min = b ? (uint64_t)128 << b : 0;
    c.max = b < OL__BUCKETS - 1 ? ((uint64_t)256 << b) - 1 : 0;
    memcpy(c.n, cell->n, sizeof c.n);
    c.here_ns = (int64_t)cell->ns[OL__HERE][0];
    c.service_ns = (int64_t)cell->service;
    for (int i = 0; i < 2; i++) c.sync_ns[i] = (int64_t)cell->ns[OL__SYNC][i];
    for (int i = 0; i < 2; i++) c.async_ns[i] = (int64_t)cell->ns[OL__ASYNC][i];
    memcpy(out, &c, size);
    return 0;
}

static void ol__dump_cells(const ol_loop *loop, ol__out *out) {
    ol__say(out, "\n%-8s %-8s %9s %10s %10s %10s %10s  %-8s %9s %9s %9s   in ns, backend idle\n", "op", "class",
            "bytes", "software", "sliced", "sync", "async", "auto", "here", "sync", "async");
    for (int k = 1; k < OL__KINDS; k++)
        for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++)
            for (uint32_t b = 0; b < OL__BUCKETS; b++) {
                ol_cell c;
                c.size = sizeof c;
                (void)ol_loop_get_cell(loop, k, cls, b ? (uint64_t)128 << b : 0, &c);
                if (!(c.n[OL_SOFTWARE] | c.n[OL_SLICED] | c.n[OL_SYNC] | c.n[OL_ASYNC])) continue;
                ol__say(out, "%-8s %-8s %8llu+", ol__kind_names[k], ol__class_names[cls], (unsigned long long)c.min);
                for (int m = OL_SOFTWARE; m <= OL_ASYNC; m++) ol__say(out, " %10llu", (unsigned long long)c.n[m]);
                ol__say(out, "  %-8s %9lld %9lld %9lld\n", c.here_ns ? ol__mode_names[c.choice] : "-",
                        (long long)c.here_ns, (long long)c.sync_ns[0], (long long)c.async_ns[0]);
            }
}

OL_API int ol_loop_dump(const ol_loop *loop, char *text, size_t len) {
    static const char *const names[] = {"submit", "queue", "service", "total", "loop lag"};
    if (!loop || (len && !text)) return ol__fail(OL__E_STATS);
    ol__out out = {text, len, 0};
    const ol_loop_stats *t = &loop->stats;
    ol__say(&out, "loop: %u roots, %u operations in flight, %u fds, %llu rounds, %llu events, busy %.1f%%\n", t->roots,
            loop->ops, t->fds, (unsigned long long)t->turns, (unsigned long long)t->events,
            100.0 * (double)t->busy_ns / (double)(t->busy_ns + t->waited_ns + 1));
    ol__say(&out, "\n%-10s %10s %10s %10s %10s %10s %10s   in ns, of one operation in %u\n", "time", "count", "mean",
            "p50", "p99", "p99.9", "max", loop->desc.sample);
    for (int what = OL_TIME_SUBMIT; what <= OL_TIME_LAG; what++) {
        ol_histogram h;
        (void)ol_loop_get_times(loop, 0, 0, what, &h);
        ol__say(&out, "%-10s %10llu %10llu %10lld %10lld %10lld %10llu\n", names[what], (unsigned long long)h.count,
                (unsigned long long)(h.count ? h.sum / h.count : 0), (long long)ol_histogram_at(&h, 0.5),
                (long long)ol_histogram_at(&h, 0.99), (long long)ol_histogram_at(&h, 0.999), (unsigned long long)h.max);
    }
    ol__dump_cells(loop, &out);
    ol__say(&out, "\n");
    for (uint32_t i = OL_WHY_RULE; i <= OL_WHY_STALLED; i++) {
        ol_op op;
        op.why = (uint8_t)i;
        if (t->why[i]) ol__say(&out, "%12llu  %s\n", (unsigned long long)t->why[i], ol_op_why(&op));
    }
    return (int)out.at;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>op:impl: submission, completion, cancel                                                                        */

static uint32_t ol__op_line(const ol_op *op) {
    const uint32_t call = op->kind == OL_OP_CALL || op->kind == OL_OP_FILE ? OL__CALLS : 0;
    return call + (ol__op_class(op) == OL_LATENCY ? 0 : OL__OF_BATCH);
}

/* From acceptance to completion an operation is in its partition's list, so that ol_close finds it. */
static void ol__op_list(ol_loop *loop, ol_op *op) {
    ol__part *part = &loop->part[op->part_];
    op->prev_in_part_ = NULL;
    op->next_in_part_ = part->ops;
    if (part->ops) part->ops->prev_in_part_ = op;
    part->ops = op;
    loop->ops++;
}
static void ol__op_unlist(ol_loop *loop, ol_op *op) {
    if (op->prev_in_part_)
        op->prev_in_part_->next_in_part_ = op->next_in_part_;
    else
        loop->part[op->part_].ops = op->next_in_part_;
    if (op->next_in_part_) op->next_in_part_->prev_in_part_ = op->prev_in_part_;
    op->state_ = OL__IDLE;
    loop->ops--;
    ol__close_waiting(loop, op->part_);
}

/* The await that started the operation gets its result. */
static void ol__co_result(ol_co *co, const ol_op *op) {
    if (op->result < 0)
        ol__co_error(co, op->err, op->result);
    else
        co->result = op->result;
}

/* op->result is final: tell the owner, through the ready queue. */
static void ol__op_finish(ol_loop *loop, ol_op *op) {
    if (op->timer_) ol__heap_remove(loop, op->timer_);
    if (op->sample_) ol__sample_end(loop, op);
    if (op->result == -ECANCELED && (op->flags_ & (OL__OP_CANCEL | OL__OP_EXPIRED))) {
        op->why = OL_WHY_STOPPED;
        op->result = ol__op_fail(op, op->flags_ & OL__OP_CANCEL ? OL__E_OP_CANCELED : OL__E_OP_TIMEOUT);
    } else if (op->result < 0 && !op->err) {
        op->err = OL__E_RESULT;
    }
    ol__op_counted(loop, op);
    if (!(op->flags_ & OL__OP_AWAITED)) {
        op->state_ = OL__FINISHED;
        ol__push(&loop->ready[ol__op_class(op)], ol__item_op(op));
        return;
    }
    ol_co *co = op->owner_.co;
    ol__co_result(co, op);
    ol__op_unlist(loop, op);
    if (loop->sync_op == op)
        loop->sync_op = NULL;
    else
        ol__wake(co, OL__CO_DONE);
}

/* Calls `done`; the partition is held until it returns. The operation may be gone afterwards. */
static void ol__op_report(ol_loop *loop, ol_op *op) {
    const uint32_t index = op->part_;
    const int hold = index && !loop->part[index].holder;
    if (hold) loop->part[index].holder = OL__CALLBACK;
    ol__op_unlist(loop, op);
    loop->callback_part = index;
    op->owner_.done(loop, op);
    loop->callback_part = 0;
    if (hold) loop->part[index].holder = 0;
    ol__part_release(loop, index);
}

/* On the spot, in one go. */
static void ol__op_software(ol_loop *loop, ol_op *op, uint8_t why) {
    ol__cell *cell = ol__op_cell(loop, op);
    const int count = ol__count_due(loop), learn = ol__learn_due(cell, why);
    const int64_t begin = count || learn ? OL_SYS_NOW() : 0;
    op->where = 0;
    op->mode = OL_SOFTWARE;
    op->why = why;
    loop->stats.software++;
    op->result = ol__execute(loop->exec, op);
    if (!count && !learn) return;
    const int64_t ns = OL_SYS_NOW() - begin;
    if (learn) ol__learn(cell, cell->ns[OL__HERE], ns, why == OL_WHY_PROBE);
    if (count) ol__times_add(loop, op, -1, ns, ns);
}

/* Takes an operation's part from the work that a lane has in flight. */
static void ol__unload(ol__lane *lane, const ol__cell *cell) {
    lane->work = lane->work > cell->service ? lane->work - cell->service : 0;
}

/* A request to stop: what waits here ends at once, what a backend has it may give back. */
static void ol__op_stop(ol_loop *loop, ol_op *op, uint8_t flag) {
    ol__lane *lane = &loop->lane[op->where];
    ol__line *line = &lane->line[ol__op_line(op)];
    op->flags_ |= flag;
    if (op->state_ == OL__BACKEND) {
        if (lane->backend->cancel && loop->forks == ol__forks) (void)lane->backend->cancel(lane->channel.self, op);
        return;
    }
    if (op->state_ == OL__SLICING) { /* one that is under way notices it at its next slice */
        ol__slicer *s = &loop->slicer[ol__op_class(op) - 1];
        if (!ol__unlink(&s->waiting, ol__item_op(op))) return;
        s->waiting_n--;
        op->result = -ECANCELED;
        ol__op_finish(loop, op);
        return;
    }
    if (op->state_ != OL__STAGED && op->state_ != OL__PARKED) return;
    const int staged = op->state_ == OL__STAGED;
    const int there = ol__unlink(staged ? &line->staged : &line->parked, ol__item_op(op));
    OL__CHECK(there, "an operation that its line doesn't know");
    (void)there;
    if (staged) {
        line->in_flight--;
        ol__unload(lane, ol__op_cell(loop, op));
    } else {
        line->parked_n--;
    }
    op->result = -ECANCELED;
    ol__op_finish(loop, op);
}

static void ol__reap_lane(ol_loop *loop, ol__lane *lane);

/* In flight, calls and files apart, whose time says nothing of others, unless there is one queue for all. */
static uint32_t ol__in_flight(const ol__lane *lane) {
    const uint32_t n = lane->line[0].in_flight + lane->line[OL__OF_BATCH].in_flight;
    if (!(lane->channel.flags & OL_CHANNEL_ONE_QUEUE)) return n;
    return n + lane->line[OL__CALLS].in_flight + lane->line[OL__CALLS + OL__OF_BATCH].in_flight;
}

static int ol__has_room(const ol__lane *lane, uint32_t which) {
    if (!(lane->channel.flags & OL_CHANNEL_ONE_QUEUE)) return lane->line[which].in_flight < lane->channel.depth;
    return ol__in_flight(lane) + (which & OL__OF_BATCH ? lane->channel.reserve : 0) < lane->channel.depth;
}

/* One that was to be offloaded, and can't be. */
static void ol__op_here(ol_loop *loop, ol__lane *lane, ol__line *line, ol_op *op, uint8_t why) {
    line->in_flight--;
    ol__unload(lane, ol__op_cell(loop, op));
    if (!op->sample_ && loop->sampled) loop->sampled--; /* it counts where it runs */
    ol__sample_drop(loop, op);
    ol__op_software(loop, op, why);
    ol__op_finish(loop, op);
}

static void ol__stage(ol_loop *loop, ol__lane *lane, ol_op *op) {
    ol__line *line = &lane->line[ol__op_line(op)];
    if (!ol__in_flight(lane)) {
        lane->progress = loop->now;
        lane->work = 0; /* it is a sum of estimates that change */
    }
    lane->work += ol__op_cell(loop, op)->service;
    op->state_ = OL__STAGED;
    line->in_flight++;
    ol__push(&line->staged, ol__item_op(op));
}

/* The work that a backend has, in ns, less what it must have done since it last completed something. */
static float ol__backlog(const ol_loop *loop, const ol__lane *lane) {
    const float left = lane->work - (float)(loop->now - lane->progress);
    return ol__in_flight(lane) && left > 0 ? left : 0;
}

static void ol__shun(ol__lane *lane) {
    if (!lane->shun) lane->shun = lane->shun_left = 16;
}

/* Is the lane to be avoided because it completes nothing? -1: yes, but this operation may try it. */
static int ol__shunned(const ol_loop *loop, ol__lane *lane) {
    const int stalled = ol__in_flight(lane) && loop->now - lane->progress > loop->desc.stall_ns;
    if (!stalled && !lane->shun) return 0;
    ol__shun(lane);
    if (lane->shun_left) {
        lane->shun_left--;
        return 1;
    }
    lane->shun = lane->shun_left = lane->shun < 256 ? 2 * lane->shun : 512;
    return -1;
}

/* Time to the result by a way of a backend; 0 unknown. */
static float ol__expected(const ol__cell *cell, uint32_t way, int asleep, float waits) {
    const float known = cell->ns[way][asleep] > 0 ? cell->ns[way][asleep] : cell->ns[way][!asleep];
    if (known <= 0) return 0;
    return (known > cell->service ? known : cell->service) + waits;
}

/* From times to costs: what else an operation takes from the loop, as its class sees that. */
static void ol__weigh(const ol_loop *loop, const ol__lane *lane, uint32_t cls, int asleep, float cost[3]) {
    const float took = lane->submit_ns[asleep] + lane->reap_ns;
    const uint32_t out = lane->line[0].in_flight + lane->line[OL__CALLS].in_flight;
    const int back = lane->in_backend && lane->backend->look(lane->channel.self);
    if (cls != OL_LATENCY) {
        if (ol__ready(loop) || back) cost[OL__ASYNC] = took;
        return;
    }
    /* who of its class waits for this loop meanwhile: who is ready, as many as ran in the last round, and half of those
       whose operations are out */
    const int others = loop->ready[OL_LATENCY].head || (out && back);
    const float waiting = (float)(others ? loop->ran + 1 : 0) + (float)out / 2;
    cost[OL__HERE] *= 1 + waiting;
    cost[OL__ASYNC] += took * waiting;
    cost[OL__SYNC] *= 1 + waiting;
}

/* auto: which way an operation goes. ways: 3 if it may wait synchronously, else 2; waits: what it waits for others. */
static uint32_t ol__auto(const ol_loop *loop, ol__lane *lane, ol__cell *cell, ol_op *op, uint32_t ways, int asleep,
                         float waits) {
    const int shunned = ol__shunned(loop, lane);
    float cost[3] = {cell->ns[OL__HERE][0], ol__expected(cell, OL__ASYNC, asleep, waits), 0};
    if (ways > OL__SYNC) cost[OL__SYNC] = ol__expected(cell, OL__SYNC, asleep, waits);
    op->why = shunned > 0 ? OL_WHY_STALLED : OL_WHY_PROBE;
    if (shunned) return shunned > 0 ? OL__HERE : OL__ASYNC;
    for (uint32_t way = 0; way < ways; way++)
        if (cost[way] <= 0) return way; /* each is tried once at first */
    ol__weigh(loop, lane, ol__op_class(op), asleep, cost);
    uint32_t best = cell->choice < ways ? cell->choice : (uint32_t)OL__ASYNC;
    cost[best] *= 0.8f; /* so that what is about equal doesn't flap */
    for (uint32_t way = 0; way < ways; way++)
        if (cost[way] < cost[best]) best = way;
    if (cell->probe == 0 && (ol__op_class(op) != OL_LATENCY || waits < cost[best])) { /* else at an idler moment */
        cell->interval = cell->interval < 8 ? 16 : cell->interval < 256 ? (uint16_t)(2 * cell->interval) : 512;
        cell->probe = cell->interval;
        cell->other ^= 1;
        return (best + 1 + (ways > 2 ? cell->other : 0)) % ways;
    }
    if (cell->probe) cell->probe--;
    op->why = OL_WHY_MEASURED;
    cell->choice = (uint8_t)best;
    return best;
}

/* The mode of an operation whose rule says auto. */
static uint32_t ol__auto_mode(ol_loop *loop, ol__lane *lane, ol_op *op, int spin) {
    ol__cell *cell = ol__op_cell(loop, op);
    const int asleep = lane->backend->asleep && lane->backend->asleep(lane->channel.self);
    const float backlog = ol__backlog(loop, lane);
    if (op->kind == OL_OP_FILE) return OL_ASYNC; /* what may block has no choice */
    /* who spins keeps others of its class from the loop: only if there are none */
    const int alone = !loop->ready[OL_LATENCY].head && !lane->line[0].in_flight && !lane->line[OL__CALLS].in_flight;
    const uint32_t ways = spin && alone && ol__op_class(op) == OL_LATENCY ? 3 : 2;
    const uint32_t way = ol__auto(loop, lane, cell, op, ways, asleep, backlog * lane->share);
    const float here = cell->ns[OL__HERE][0];
    if (way == OL__HERE && (here > 0 ? here > (float)loop->desc.slice_ns : op->len > OL__BLOCK)) return OL_SLICED;
    if (way != OL__HERE && ol__learn_due(cell, op->why)) ol__sample_begin(loop, op, 1 + way, asleep, backlog);
    return ol__way_modes[way];
}

/* Accepted: it has its timeout, and ol_close finds it. 0, or -ENOMEM. */
static int ol__op_accept(ol_loop *loop, ol_op *op) {
    const int64_t due = op->timeout_us ? ol__after(ol__refresh(loop), (int64_t)op->timeout_us * 1000) : OL_NEVER;
    if (op->timeout_us && ol__heap_add(loop, ol__item_op(op), due, OL_NEVER) < 0) {
        ol__sample_drop(loop, op);
        return (int)(op->result = ol__op_fail(op, OL__E_NO_MEMORY));
    }
    if (!op->sample_ && ol__count_due(loop)) ol__sample_begin(loop, op, 0, 0, 0);
    ol__op_list(loop, op);
    return 0;
}

static uint8_t ol__when_full(const ol_rule *rule, uint32_t cls) {
    return rule->full ? rule->full : (uint8_t)(cls == OL_LATENCY ? OL_FULL_SOFTWARE : OL_FULL_WAIT);
}

static int ol__op_offload(ol_loop *loop, ol__lane *lane, const ol_rule *rule, ol_op *op) {
    const uint32_t which = ol__op_line(op), cls = ol__op_class(op);
    ol__line *line = &lane->line[which];
    if (!ol__has_room(lane, which)) ol__reap_lane(loop, lane); /* what is complete makes room */
    const int full = line->parked_n || !ol__has_room(lane, which);
    const uint8_t action = ol__when_full(rule, cls);
    if (full && (action != OL_FULL_WAIT || line->parked_n >= loop->desc.park_max)) {
        ol__sample_drop(loop, op);
        if (action != OL_FULL_SOFTWARE) return (int)(op->result = ol__op_fail(op, OL__E_FULL));
        ol__op_software(loop, op, OL_WHY_FULL);
        return 1;
    }
    if (ol__op_accept(loop, op) < 0) return -ENOMEM;
    if (action == OL_FULL_SOFTWARE) op->flags_ |= OL__OP_ELSE_HERE;
    if (!full) {
        ol__stage(loop, lane, op);
        return 0;
    }
    op->state_ = OL__PARKED;
    op->why = OL_WHY_PARKED;
    loop->stats.parked++;
    ol__push(&line->parked, ol__item_op(op));
    line->parked_n++;
    return 0;
}

static void ol__slice_begin(ol_loop *loop, ol__slicer *s, ol_op *op) {
    s->op = op;
    s->first = 1;
    s->spent = 0;
    ol__push(&loop->ready[ol__op_class(op)], ol__item_op(op));
}

static int ol__op_slice(ol_loop *loop, const ol_rule *rule, ol_op *op) {
    ol__slicer *s = &loop->slicer[ol__op_class(op) - 1];
    const int full = s->waiting_n >= loop->desc.park_max;
    if (!s->exec) s->exec = ol_exec_create();
    if (!s->exec || (full && ol__when_full(rule, ol__op_class(op)) == OL_FULL_SOFTWARE)) {
        ol__op_software(loop, op, full ? (uint8_t)OL_WHY_FULL : op->why);
        return 1;
    }
    if (full) return (int)(op->result = ol__op_fail(op, OL__E_FULL));
    if (ol__op_accept(loop, op) < 0) return -ENOMEM;
    op->state_ = OL__SLICING;
    op->mode = OL_SLICED;
    if (s->op) {
        ol__push(&s->waiting, ol__item_op(op));
        s->waiting_n++;
    } else {
        ol__slice_begin(loop, s, op);
    }
    return 0;
}

/* Its turn in the ready queue: blocks until the slice's time is over. */
static void ol__run_slice(ol_loop *loop, ol_op *op) {
    ol__slicer *s = &loop->slicer[ol__op_class(op) - 1];
    const int64_t begin = OL_SYS_NOW();
    int64_t now = begin, r = op->flags_ & (OL__OP_CANCEL | OL__OP_EXPIRED) ? -ECANCELED : OL_MORE;
    s->exec->piece = ol__least(OL__BLOCK, OL_SYS_PIECE);
    while (r == OL_MORE && now - begin < loop->desc.slice_ns) {
        r = ol__step(s->exec, op, s->first);
        s->first = 0;
        now = OL_SYS_NOW();
    }
    s->spent += now - begin;
    loop->stats.slices++;
    if (r == OL_MORE) {
        ol__push(&loop->ready[ol__op_class(op)], ol__item_op(op));
        return;
    }
    op->result = r;
    op->service_ns = (uint32_t)ol__least((uint64_t)s->spent, UINT32_MAX);
    loop->stats.software++;
    loop->now = now;
    ol__cell *cell = ol__op_cell(loop, op);
    if (r != -ECANCELED) ol__learn(cell, cell->ns[OL__HERE], s->spent, op->why == OL_WHY_PROBE);
    s->op = NULL;
    if (s->waiting_n) {
        s->waiting_n--;
        ol__slice_begin(loop, s, ol__item_to_op(ol__pop(&s->waiting)));
    }
    ol__op_finish(loop, op);
}

/* Decides where the operation runs, and starts it. 1: it ran, op->result is there; 0: in flight; negative: refused.
   `awaited`: its coroutine may spin for it. */
static int ol__op_start(ol_loop *loop, ol_op *op, uint32_t cls, uint32_t part, int awaited) {
    const int renewed = ol__after_fork(loop); /* before there is an operation of the child's own */
    op->where = op->sample_ = 0;
    op->service_ns = 0;
    op->flags_ = (uint8_t)cls;
    op->part_ = part;
    op->err = OL__E_NONE;
    op->why = OL_WHY_RULE;
    if (renewed < 0) {
        op->err = OL__E_SYSTEM;
        return (int)(op->result = renewed);
    }
    const int found = ol__policy_find(loop, op->kind, cls, op->len);
    const ol_rule *rule = found < 0 ? NULL : &loop->policy.rule[found];
    const uint32_t index = found < 0 ? 0 : loop->rule_lane[found];
    ol__lane *lane = &loop->lane[index];
    const int spin = awaited && !(lane->channel.flags & OL_CHANNEL_NO_SYNC);
    uint32_t mode = rule ? rule->mode : (uint32_t)OL_SOFTWARE;
    if (index && !(lane->backend->kinds >> op->kind & 1)) {
        mode = OL_SOFTWARE;
        op->why = OL_WHY_UNSUPPORTED;
    }
    if (mode == OL_AUTO) mode = ol__auto_mode(loop, lane, op, spin);
    if (mode == OL_SOFTWARE || (mode == OL_SLICED && op->kind == OL_OP_FILE)) {
        ol__op_software(loop, op, op->why);
        return 1;
    }
    if (mode == OL_SLICED) return ol__op_slice(loop, rule, op);
    op->where = (uint8_t)index;
    op->mode = (uint8_t)(mode == OL_SYNC && spin ? OL_SYNC : OL_ASYNC);
    return ol__op_offload(loop, lane, rule, op);
}

/* One call of submit, timed if one of the operations is. */
static int ol__submit_burst(ol_loop *loop, ol__lane *lane, ol_op **burst, int n) {
    int timed = 0, asleep = 0;
    for (int i = 0; i < n; i++) timed |= burst[i]->sample_;
    if (timed && lane->backend->asleep) asleep = lane->backend->asleep(lane->channel.self) != 0;
    const int64_t begin = timed ? OL_SYS_NOW() : 0;
    const int k = lane->backend->submit(lane->channel.self, burst, n);
    if (!timed || k <= 0) return k;
    const float each = (float)(OL_SYS_NOW() - begin) / (float)k;
    ol__average(&lane->submit_ns[asleep], each, 0);
    for (int i = 0; i < k; i++) {
        loop->sample[burst[i]->sample_].submit_ns = each;
        loop->sample[burst[i]->sample_].handed = begin;
    }
    return k;
}

static void ol__put_back(ol__line *line, ol_op *op) {
    ol__queue *q = &line->staged;
    op->state_ = OL__STAGED;
    ol__item_set_next(ol__item_op(op), q->head);
    q->head = ol__item_op(op);
    if (!q->tail) q->tail = q->head;
}

/* What the backend did not take: it waits at the head of its line, or runs here if its rule would rather have that. */
static void ol__refused(ol_loop *loop, ol__lane *lane, ol__line *line, ol_op **burst, int n) {
    for (int i = n; i-- > 0;) {
        if (burst[i]->flags_ & OL__OP_ELSE_HERE) continue;
        if (burst[i]->why != OL_WHY_PARKED && burst[i]->why != OL_WHY_SYNC_BOUND) loop->stats.parked++; /* once */
        burst[i]->why = OL_WHY_PARKED;
        ol__put_back(line, burst[i]);
    }
    for (int i = 0; i < n; i++)
        if (burst[i]->flags_ & OL__OP_ELSE_HERE) ol__op_here(loop, lane, line, burst[i], OL_WHY_FULL);
}

/* Submits what is staged, in bursts. What the backend doesn't take stays first in line. */
static void ol__flush_line(ol_loop *loop, ol__lane *lane, ol__line *line) {
    ol__queue *q = &line->staged;
    ol_op *burst[32];
    while (q->head) {
        int n = 0;
        for (; n < 32 && q->head; n++) {
            burst[n] = ol__item_to_op(ol__pop(q));
            burst[n]->state_ = OL__BACKEND; /* before another thread sees it */
        }
        const int k = ol__submit_burst(loop, lane, burst, n);
        OL__CHECK(k <= n, "a backend accepted more than it was given");
        if (k > 0) {
            lane->in_backend += (uint32_t)k;
            loop->stats.offloaded += (uint64_t)k;
        }
        if (k < 0) { /* it can't work at all (threads that don't start, say): nothing may be lost */
            while (n) ol__put_back(line, burst[--n]);
            ol__log(loop, 1, "a backend refused operations: they run in software");
            while (q->head) ol__op_here(loop, lane, line, ol__item_to_op(ol__pop(q)), OL_WHY_FAILED);
            return;
        }
        ol__refused(loop, lane, line, burst + k, n - k);
        if (k < n) return;
    }
}
static void ol__flush(ol_loop *loop) {
    if (loop->forks != ol__forks) return; /* forked inside this step */
    for (uint32_t i = 1; i < loop->lanes; i++)
        for (uint32_t k = 0; k < 4; k++) ol__flush_line(loop, &loop->lane[i], &loop->lane[i].line[k]);
}

/* It is off the backend's hands; how long that took is kept, where the backend says so. */
static void ol__served(ol_loop *loop, ol__lane *lane, const ol_op *op) {
    ol__cell *cell = ol__op_cell(loop, op);
    ol__unload(lane, cell);
    if (op->service_ns) ol__average(&cell->service, (float)op->service_ns, op->why == OL_WHY_PROBE);
}

/* Takes completions to their owners, and lets parked operations follow. */
static void ol__reap_lane(ol_loop *loop, ol__lane *lane) {
    ol_op *got[64];
    if (lane->in_backend && lane->backend->look(lane->channel.self)) {
        const int most = loop->desc.dequeue_batch < 64 ? (int)loop->desc.dequeue_batch : 64;
        const int n = lane->backend->poll(lane->channel.self, got, most);
        OL__CHECK(n <= most, "a backend handed back more than it was asked for");
        int timed = 0;
        for (int i = 0; i < n; i++) timed |= got[i]->sample_;
        const int64_t begin = timed ? ol__refresh(loop) : 0;
        for (int i = 0; i < n; i++) {
            OL__CHECK(got[i]->state_ == OL__BACKEND, "a backend completed an operation that it doesn't have");
            lane->line[ol__op_line(got[i])].in_flight--;
            lane->in_backend--;
            ol__served(loop, lane, got[i]);
            if (lane->channel.flags & OL_CHANNEL_VERIFY) ol__verify(got[i]);
            if (got[i]->result != -ECANCELED) lane->shun = 0;
            else if (got[i]->flags_ & OL__OP_EXPIRED) ol__shun(lane);
            ol__op_finish(loop, got[i]);
        }
        lane->progress = loop->now;
        if (timed) ol__average(&lane->reap_ns, (float)(OL_SYS_NOW() - begin) / (float)n, 0);
    }
    lane->looked = loop->now;
    for (uint32_t k = 0; k < 4; k++) {
        ol__line *line = &lane->line[k];
        for (; line->parked_n && ol__has_room(lane, k); line->parked_n--)
            ol__stage(loop, lane, ol__item_to_op(ol__pop(&line->parked)));
    }
}
static void ol__reap(ol_loop *loop) {
    if (loop->forks != ol__forks) return;
    for (uint32_t i = 1; i < loop->lanes; i++) ol__reap_lane(loop, &loop->lane[i]);
}

/* Spins for one operation; completions of others are filed with their owners. 1: it is complete. 0: the bound has
   passed, and the wait becomes a suspension. */
static int ol__sync_wait(ol_loop *loop, ol_op *op, int64_t begin) {
    ol__lane *lane = &loop->lane[op->where];
    loop->sync_op = op;
    ol__flush(loop);
    for (uint32_t i = 1; loop->sync_op; i++) {
        ol__reap_lane(loop, lane);
        if (!loop->sync_op) break;
        if (i % 16 == 0 && ol__refresh(loop) - begin >= loop->desc.sync_ns) {
            loop->sync_op = NULL;
            op->why = OL_WHY_SYNC_BOUND;
            return 0;
        }
        OL_SYS_PAUSE();
    }
    return 1;
}

/* What an operation that ran on the spot takes from the budget: about one for each microsecond. */
static uint32_t ol__cost_of(uint64_t us) { return 1 + (us < 1024 ? (uint32_t)us : 1024); }
static uint32_t ol__op_cost(const ol_op *op) {
    const uint64_t bytes = op->kind == OL_OP_CRC32 ? op->len >> 6 : op->len;
    return op->kind == OL_OP_CALL ? 16 : ol__cost_of(bytes >> 10);
}

static int ol__op_await(ol_co *co, ol_op *op) {
    ol_loop *loop = co->loop;
    const int r = ol__op_start(loop, op, op->cls ? op->cls : ol__co_class(co), co->part, 1);
    if (r) {
        if (r > 0) ol__op_counted(loop, op);
        ol__co_result(co, op);
        return ol__give(co, r < 0 ? 1 : ol__op_cost(op));
    }
    op->flags_ |= OL__OP_AWAITED;
    op->owner_.co = co;
    const int spin = op->mode == OL_SYNC && op->state_ == OL__STAGED;
    const int64_t begin = spin ? OL_SYS_NOW() : 0;
    if (spin && ol__sync_wait(loop, op, begin)) {
        return ol__give(co, ol__cost_of((uint64_t)(OL_SYS_NOW() - begin) / 1000)); /* what it took, as in software */
    }
    if (op->mode == OL_SYNC) op->mode = OL_ASYNC;
    co->link.op = op;
    ol__set_waits(co, OL__W_OP);
    return OL__PENDING;
}

OL_API int ol_run(ol_co *co, ol_op *op) {
    if (!ol__await_enter(co)) return ol__give(co, 1);
    const enum ol__situation s = ol__op_check(op);
    return s == OL__E_NONE ? ol__op_await(co, op) : ol__co_situation(co, s);
}

OL_API int ol_submit(ol_loop *loop, ol_op *op, void (*done)(ol_loop *, ol_op *)) {
    const enum ol__situation s = ol__op_check(op);
    if (!loop || !done) return ol__fail(OL__E_OP_FN);
    if (s != OL__E_NONE) return ol__fail(s);
    const ol_co *co = loop->current;
    if (loop->draining && !co) return ol__fail(OL__E_DRAINING);
    const uint32_t part = co ? co->part : loop->callback_part;
    uint32_t inherited = co ? ol__co_class(co) : part ? ol__part_class(loop, &loop->part[part]) : 0;
    if (!inherited) inherited = OL_BATCH;
    const int r = ol__op_start(loop, op, op->cls ? op->cls : inherited, part, 0);
    if (r < 0) {
        ol__last_error = ol_op_error(op);
        return r;
    }
    op->owner_.done = done;
    if (r) {
        ol__op_list(loop, op);
        ol__op_finish(loop, op);
    }
    ol__outside(loop);
    return 0;
}

OL_API int ol_op_cancel(ol_loop *loop, ol_op *op) {
    if (!loop || !op || op->magic_ != OL__OP_MAGIC || op->state_ == OL__IDLE) return ol__fail(OL__E_NOT_IN_FLIGHT);
    ol__op_stop(loop, op, OL__OP_CANCEL);
    ol__outside(loop);
    return 0;
}

static int ol__file_await(ol_co *co, ol_op *op, uint32_t what) {
    op->u.file.what = what;
    if (!ol__file_try(op)) return ol__op_await(co, op);
    op->why = OL_WHY_CACHE;
    op->mode = OL_SOFTWARE;
    op->flags_ = (uint8_t)ol__co_class(co);
    ol__op_counted(co->loop, op);
    ol__co_result(co, op);
    return ol__give(co, 1 + ol__op_cost(op) / 8);
}

OL_API int ol_open(ol_co *co, ol_op *op, int dirfd, const char *path, int flags, uint32_t mode, int how) {
    if (!ol__await_enter(co)) return ol__give(co, 1);
    if (!op) return ol__co_situation(co, OL__E_NOT_PREPARED);
    if (!path) return ol__co_fail(co, OL__E_SYSTEM, -EFAULT);
    ol__prep(op, OL_OP_FILE, path, 0, NULL, (uint64_t)(uint32_t)(flags | O_CLOEXEC) << 32 | mode);
    op->u.file.offset = how;
    op->u.file.fd = dirfd;
    return ol__file_await(co, op, OL__FILE_OPEN);
}
OL_API int ol_stat(ol_co *co, ol_op *op, int dirfd, const char *path, struct stat *st) {
    if (!ol__await_enter(co)) return ol__give(co, 1);
    if (!op) return ol__co_situation(co, OL__E_NOT_PREPARED);
    if (!st) return ol__co_fail(co, OL__E_SYSTEM, -EFAULT);
    ol__prep(op, OL_OP_FILE, path, 0, st, sizeof *st);
    op->u.file.fd = dirfd;
    return ol__file_await(co, op, OL__FILE_STAT);
}
OL_API int ol_pread(ol_co *co, ol_op *op, int file, void *buf, size_t len, int64_t offset) {
    if (!ol__await_enter(co)) return ol__give(co, 1);
    if (!op) return ol__co_situation(co, OL__E_NOT_PREPARED);
    if (len && !buf) return ol__co_situation(co, OL__E_OP_BUFFER);
    if (offset < 0) return ol__co_fail(co, OL__E_SYSTEM, -EINVAL); /* to preadv2 -1 means something else */
    ol__prep(op, OL_OP_FILE, NULL, len, buf, len);
    op->u.file.fd = file;
    op->u.file.offset = offset;
    return ol__file_await(co, op, OL__FILE_READ);
}

OL_API const char *ol_op_where(const ol_loop *loop, const ol_op *op) {
    return op->where && op->where < loop->lanes ? loop->lane[op->where].backend->name : "software";
}
OL_API const char *ol_op_why(const ol_op *op) {
    static const char *const text[] = {"it has not run",
                                       "policy",
                                       "backend full: run in software",
                                       "backend full: waited for room",
                                       "the backend does not support this kind",
                                       "the backend failed",
                                       "answered from the cache",
                                       "policy; the synchronous wait exceeded its bound",
                                       "cancelled or timed out",
                                       "auto: the cheapest, as measured",
                                       "auto: tried to learn its cost",
                                       "auto: the backend makes no progress"};
    return op->why < sizeof text / sizeof *text ? text[op->why] : text[0];
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>backend:threads: the pool                                                                                      */

enum { OL__POOL_CHANNELS = 256, OL__POOL_WORKERS = 64, OL__CLAIM = 16 };

typedef struct ol__pool ol__pool;

typedef struct ol__pool_channel { /* a loop's */
    ol__ring ring[4];             /* numbered as a lane's lines */
    OL_SYS_ATOMIC(ol_op *) done;  /* stack of completions, newest first */
    char pad[56];
    ol_notify *notify;
    ol__pool *pool;
    ol_op *got; /* the loop's: completions taken off the stack, oldest first */
    int open;
} ol__pool_channel;

/* Where idle workers sleep. As in ol_notify, `waiters` is only ever changed by read-modify-writes: who adds himself
   acquires what every waker before has released. A permit hands over what its giver has written: who is woken sees what
   for, and doesn't lie down again while another worker blocks in the rest. */
typedef struct ol__semaphore {
    OL_SYS_ATOMIC(uint32_t) waiters;
    OL_SYS_ATOMIC(uint32_t) permits; /* futex */
    char pad[56];
} ol__semaphore;

typedef struct ol__worker {
    ol__pool *pool;
    uint32_t index;
    uint32_t next; /* channel to look at first */
    uint32_t woken; /* it has slept, and done nothing since */
    OL_SYS_ATOMIC(ol__pool_channel *) busy; /* the channel that it is completing to */
    OL_SYS_THREAD thread;
    ol_exec exec;
    OL_SYS_ATOMIC(uint64_t) idle_ns;
    char pad[64];
} ol__worker;

struct ol__pool {
    ol_backend backend;
    ol_threads_desc desc;
    OL_SYS_MUTEX lock; /* start, open, close: never on the path of an operation */
    OL_SYS_ATOMIC(uint32_t) forks; /* of the process, when its threads were started */
    OL_SYS_ATOMIC(uint32_t) channels; /* how many; released with all that is in them */
    OL_SYS_ATOMIC(ol__pool_channel *) channel[OL__POOL_CHANNELS];
    OL_SYS_ATOMIC(uint32_t) stop;
    OL_SYS_ATOMIC(uint32_t) started;
    uint32_t loops;
    int failed;
    int64_t since; /* when the first thread was started */
    ol__semaphore sleep[2]; /* [1]: the worker that takes no calls, so that calls can't take all */
    ol__worker worker[OL__POOL_WORKERS];
};

/* Wakes one sleeper. Returns 0 if there is none. A woken worker has been counted out by its waker. */
static int ol__semaphore_wake(ol__semaphore *s) {
    uint32_t n = OL_SYS_ADD(&s->waiters, 0u, OL_SYS_RELEASE);
    while (n)
        if (OL_SYS_CAS(&s->waiters, &n, n - 1, OL_SYS_RELAXED)) {
            OL_SYS_ADD(&s->permits, 1u, OL_SYS_RELEASE);
            OL_SYS_FUTEX_WAKE(&s->permits, 1);
            return 1;
        }
    return 0;
}

/* The second half of a sleep that was announced by adding to waiters. */
static void ol__semaphore_wait(ol__semaphore *s) {
    for (;;) {
        uint32_t n = OL_SYS_LOAD(&s->permits, OL_SYS_RELAXED);
        while (n)
            if (OL_SYS_CAS(&s->permits, &n, n - 1, OL_SYS_ACQUIRE)) return;
        OL_SYS_FUTEX_WAIT(&s->permits, 0);
    }
}

/* Takes an announcement back; if a waker has counted this worker out already, its permit is consumed. */
static void ol__semaphore_leave(ol__semaphore *s) {
    uint32_t n = OL_SYS_LOAD(&s->waiters, OL_SYS_RELAXED);
    while (n)
        if (OL_SYS_CAS(&s->waiters, &n, n - 1, OL_SYS_RELAXED)) return;
    ol__semaphore_wait(s);
}

static void ol__pool_wake(ol__pool *pool, int calls) {
    if (!calls && ol__semaphore_wake(&pool->sleep[1])) return;
    (void)ol__semaphore_wake(&pool->sleep[0]);
}

/* Worker: runs one operation and returns it to its loop. From the moment it is on the stack the loop may finish with
   the channel and close it; `busy` keeps it until the notification is out. */
static void ol__worker_run(ol__worker *w, ol__pool_channel *c, ol_op *op) {
    const int64_t begin = op->sample_ ? OL_SYS_NOW() : 0;
    op->result = ol__execute(&w->exec, op);
    if (op->sample_) op->service_ns = (uint32_t)ol__least((uint64_t)(OL_SYS_NOW() - begin), UINT32_MAX);
    OL_SYS_STORE(&w->busy, c, OL_SYS_RELAXED); /* published by the exchange below */
    ol_op *top = OL_SYS_LOAD(&c->done, OL_SYS_RELAXED);
    do op->next_ = top;
    while (!OL_SYS_CAS(&c->done, &top, op, OL_SYS_RELEASE));
    ol_notify_loop(c->notify);
    OL_SYS_STORE(&w->busy, (ol__pool_channel *)NULL, OL_SYS_RELEASE);
}

/* Claims from one ring and runs what it got: one call, which may block, or a burst of others. Between two of batch,
   latency-critical work goes first, but no calls. */
static uint32_t ol__worker_rings(ol__worker *w, uint32_t which);

/* A worker that was woken has taken its share, perhaps of another ring than the one that it was woken for: who sleeps
   and could do some of what is left in any is woken in turn. */
static void ol__worker_pass_on(ol__worker *w) {
    const uint32_t channels = OL_SYS_LOAD(&w->pool->channels, OL_SYS_ACQUIRE);
    uint64_t left[2] = {0, 0};
    w->woken = 0;
    for (uint32_t i = 0; i < channels; i++) {
        ol__pool_channel *c = OL_SYS_LOAD(&w->pool->channel[i], OL_SYS_RELAXED);
        for (uint32_t which = 0; which < 4; which++) left[which & OL__CALLS] |= ol__ring_size(&c->ring[which]);
    }
    if (left[0]) ol__pool_wake(w->pool, 0);
    if (left[1]) ol__pool_wake(w->pool, 1);
}

static uint32_t ol__worker_ring(ol__worker *w, ol__pool_channel *c, uint32_t which) {
    ol__ring *r = &c->ring[which];
    const uint32_t threads = OL_SYS_LOAD(&w->pool->started, OL_SYS_RELAXED);
    uint64_t first = 0;
    /* with several workers half of a fair share, so that one with slow work doesn't sit on what others could do */
    const uint64_t n = ol__ring_claim(r, threads > 1 ? 2 * threads : 1, which & OL__CALLS ? 1 : OL__CLAIM, &first);
    if (!n) return 0;
    if (w->woken)
        ol__worker_pass_on(w);
    else if (ol__ring_size(r))
        ol__pool_wake(w->pool, (int)(which & OL__CALLS));
    for (uint64_t i = 0; i < n; i++) {
        ol_op *op = ol__ring_take(r, first + i);
        if (op) ol__worker_run(w, c, op);
        while ((which & OL__OF_BATCH) && ol__worker_rings(w, 0)) {}
    }
    return (uint32_t)n;
}

/* The rings of one number, of all loops; of batch work one at a time, so that what is urgent is looked for again. */
static uint32_t ol__worker_rings(ol__worker *w, uint32_t which) {
    const uint32_t channels = OL_SYS_LOAD(&w->pool->channels, OL_SYS_ACQUIRE);
    uint32_t ran = 0;
    for (uint32_t i = 0; i < channels && (!ran || !(which & OL__OF_BATCH)); i++) {
        if (++w->next >= channels) w->next = 0;
        ol__pool_channel *c = OL_SYS_LOAD(&w->pool->channel[w->next], OL_SYS_RELAXED);
        ran += ol__worker_ring(w, c, which);
    }
    return ran;
}

static int ol__worker_takes_calls(const ol__worker *w) { return w->index != 1; }

static uint32_t ol__worker_round(ol__worker *w) {
    uint32_t ran = ol__worker_rings(w, 0);
    if (ol__worker_takes_calls(w)) ran += ol__worker_rings(w, OL__CALLS);
    if (ran) return ran;
    ran = ol__worker_rings(w, OL__OF_BATCH);
    if (ol__worker_takes_calls(w)) ran += ol__worker_rings(w, OL__OF_BATCH + OL__CALLS);
    return ran;
}

static int ol__worker_sees_work(ol__worker *w) {
    const uint32_t channels = OL_SYS_LOAD(&w->pool->channels, OL_SYS_ACQUIRE);
    for (uint32_t i = 0; i < channels; i++) {
        ol__pool_channel *c = OL_SYS_LOAD(&w->pool->channel[i], OL_SYS_RELAXED);
        for (uint32_t which = 0; which < 4; which++)
            if ((ol__worker_takes_calls(w) || !(which & OL__CALLS)) && ol__ring_size(&c->ring[which])) return 1;
    }
    return 0;
}

static void ol__worker_sleep(ol__worker *w) {
    ol__semaphore *s = &w->pool->sleep[ol__worker_takes_calls(w) ? 0 : 1];
    OL_SYS_ADD(&s->waiters, 1u, OL_SYS_ACQUIRE);
    /* announced: what was submitted before that is seen now, what comes later sees the announcement. It only looks: a
       worker that is busy must not be counted as one that can be woken. */
    if (OL_SYS_LOAD(&w->pool->stop, OL_SYS_RELAXED) || ol__worker_sees_work(w))
        ol__semaphore_leave(s);
    else
        ol__semaphore_wait(s);
    w->woken = 1; /* also where it only left: a waker may have counted on it */
}

static void *ol__worker_main(void *arg) {
    ol__worker *w = (ol__worker *)arg;
    ol__pool *pool = w->pool;
    if (pool->desc.sched == 1) OL_SYS_SCHED_IDLE();
    while (!OL_SYS_LOAD(&pool->stop, OL_SYS_RELAXED)) {
        if (ol__worker_round(w)) continue;
        const int64_t begin = OL_SYS_NOW(), end = begin + pool->desc.spin_ns;
        int64_t now = begin;
        uint32_t ran = 0;
        while (!ran && now < end) {
            for (int i = 0; i < 32 && !ran; i++) {
                OL_SYS_PAUSE();
                ran = ol__worker_round(w);
            }
            if (!ran) now = OL_SYS_NOW();
        }
        if (!ran) {
            ol__worker_sleep(w);
            now = OL_SYS_NOW();
        }
        OL_SYS_STORE(&w->idle_ns, OL_SYS_LOAD(&w->idle_ns, OL_SYS_RELAXED) + (uint64_t)(now - begin), OL_SYS_RELAXED);
    }
    return NULL;
}

static const OL_SYS_MUTEX ol__unlocked = OL_SYS_MUTEX_INIT;
static OL_SYS_MUTEX ol__fork_lock = OL_SYS_MUTEX_INIT;

/* In the child of a fork the threads are gone, and what they and other threads were doing stands still: the rings are
   emptied, the locks are made anew. Each loop completes its own operations. */
static void ol__pool_reset(ol__pool *pool) {
    const uint32_t channels = OL_SYS_LOAD(&pool->channels, OL_SYS_RELAXED);
    for (uint32_t i = 0; i < channels; i++) {
        ol__pool_channel *c = OL_SYS_LOAD(&pool->channel[i], OL_SYS_RELAXED);
        for (int k = 0; k < 4; k++) {
            const uint64_t tail = OL_SYS_LOAD(&c->ring[k].tail, OL_SYS_RELAXED);
            OL_SYS_STORE(&c->ring[k].head, tail, OL_SYS_RELAXED);
            for (uint64_t j = 0; j <= c->ring[k].mask; j++)
                OL_SYS_STORE(&c->ring[k].slot[j], (ol_op *)NULL, OL_SYS_RELAXED);
        }
        OL_SYS_STORE(&c->done, (ol_op *)NULL, OL_SYS_RELAXED);
        c->got = NULL;
    }
    for (uint32_t i = 0; i < OL__POOL_WORKERS; i++)
        OL_SYS_STORE(&pool->worker[i].busy, (ol__pool_channel *)NULL, OL_SYS_RELAXED);
    for (uint32_t i = 0; i < 2; i++) {
        OL_SYS_STORE(&pool->sleep[i].waiters, 0u, OL_SYS_RELAXED);
        OL_SYS_STORE(&pool->sleep[i].permits, 0u, OL_SYS_RELAXED);
    }
    memcpy(&pool->lock, &ol__unlocked, sizeof ol__unlocked);
    pool->failed = 0;
    OL_SYS_STORE(&pool->started, 0u, OL_SYS_RELAXED);
}

/* Before the pool is used for anything that may take its lock or wait for its threads. */
static void ol__pool_here(ol__pool *pool) {
    if (OL_SYS_LOAD(&pool->forks, OL_SYS_ACQUIRE) == ol__forks) return;
    OL_SYS_MUTEX_LOCK(&ol__fork_lock);
    if (OL_SYS_LOAD(&pool->forks, OL_SYS_RELAXED) != ol__forks) {
        ol__pool_reset(pool);
        OL_SYS_STORE(&pool->forks, ol__forks, OL_SYS_RELEASE);
    }
    OL_SYS_MUTEX_UNLOCK(&ol__fork_lock);
}
static int ol__channel_forked(void *channel) {
    ol__pool_here(((ol__pool_channel *)channel)->pool);
    return 0;
}

/* Starts the threads at the first operation; with fewer than asked for it goes on. 0, or a negative errno with none. */
static int ol__pool_start(ol__pool *pool) {
    int r = 0;
    OL_SYS_MUTEX_LOCK(&pool->lock);
    for (uint32_t i = OL_SYS_LOAD(&pool->started, OL_SYS_RELAXED); i < pool->desc.workers && !pool->failed; i++) {
        ol__worker *w = &pool->worker[i];
        if (!i) pool->since = OL_SYS_NOW();
        OL_SYS_STORE(&w->idle_ns, (uint64_t)0, OL_SYS_RELAXED);
        w->pool = pool;
        w->index = i;
        r = OL_SYS_THREAD_START(&w->thread, ol__worker_main, w);
        if (r) {
            pool->failed = 1;
            break;
        }
        OL_SYS_STORE(&pool->started, i + 1, OL_SYS_RELAXED);
    }
    OL_SYS_MUTEX_UNLOCK(&pool->lock);
    return OL_SYS_LOAD(&pool->started, OL_SYS_RELAXED) ? 0 : -EAGAIN;
}

static int ol__channel_submit(void *channel, ol_op *const *ops, int n) {
    ol__pool_channel *c = (ol__pool_channel *)channel;
    int k = 0;
    uint32_t plain = 0, calls = 0;
    if (!OL_SYS_LOAD(&c->pool->started, OL_SYS_RELAXED) && ol__pool_start(c->pool) < 0) return -EAGAIN;
    for (; k < n; k++) {
        const uint32_t which = ol__op_line(ops[k]);
        if (!ol__ring_put(&c->ring[which], ops[k])) break;
        calls += which & OL__CALLS;
        plain += !(which & OL__CALLS);
    }
    if (plain) ol__pool_wake(c->pool, 0);
    if (calls) ol__pool_wake(c->pool, 1);
    return k;
}

static int ol__channel_look(void *channel) {
    ol__pool_channel *c = (ol__pool_channel *)channel;
    return c->got || OL_SYS_LOAD(&c->done, OL_SYS_RELAXED);
}

static uint32_t ol__pool_sleepers(ol__pool *pool) {
    return OL_SYS_LOAD(&pool->sleep[0].waiters, OL_SYS_RELAXED) + OL_SYS_LOAD(&pool->sleep[1].waiters, OL_SYS_RELAXED);
}
static int ol__channel_asleep(void *channel) {
    ol__pool *pool = ((ol__pool_channel *)channel)->pool;
    return ol__pool_sleepers(pool) >= OL_SYS_LOAD(&pool->started, OL_SYS_RELAXED);
}

static int ol__channel_poll(void *channel, ol_op **ops, int max) {
    ol__pool_channel *c = (ol__pool_channel *)channel;
    int n = 0;
    while (n < max) {
        if (!c->got) { /* turn the stack over: oldest first */
            ol_op *op = OL_SYS_LOAD(&c->done, OL_SYS_RELAXED);
            if (op) op = OL_SYS_XCHG(&c->done, (ol_op *)NULL, OL_SYS_ACQUIRE);
            for (ol_op *next; op; op = next) {
                next = op->next_;
                op->next_ = c->got;
                c->got = op;
            }
            if (!c->got) break;
        }
        ops[n++] = c->got;
        c->got = c->got->next_;
    }
    return n;
}

static int ol__channel_cancel(void *channel, ol_op *op) {
    ol__pool_channel *c = (ol__pool_channel *)channel;
    if (!ol__ring_cancel(&c->ring[ol__op_line(op)], op)) return -EBUSY;
    op->result = -ECANCELED;
    op->next_ = c->got;
    c->got = op;
    return 0;
}

static void ol__channel_free(ol__pool_channel *c) {
    for (int i = 0; i < 4; i++) OL_SYS_FREE(c->ring[i].slot);
    OL_SYS_FREE(c);
}

static void ol__channel_close(void *channel) {
    ol__pool_channel *c = (ol__pool_channel *)channel;
    ol__pool_here(c->pool);
    /* not `started`: another loop may be at it, and not have counted the one that ran our last operation */
    for (uint32_t i = 0; i < c->pool->desc.workers; i++)
        while (OL_SYS_LOAD(&c->pool->worker[i].busy, OL_SYS_ACQUIRE) == c) OL_SYS_NAP(); /* it may need our core */
    OL_SYS_MUTEX_LOCK(&c->pool->lock);
    c->open = 0; /* workers may still look at its empty rings: it is used again, or freed with the pool */
    c->pool->loops--;
    OL_SYS_MUTEX_UNLOCK(&c->pool->lock);
}

static ol__pool_channel *ol__channel_new(ol__pool *pool) {
    ol__pool_channel *c = (ol__pool_channel *)ol__zalloc(sizeof *c);
    if (!c) return NULL;
    c->pool = pool;
    for (int i = 0; i < 4; i++) {
        c->ring[i].mask = pool->desc.depth - 1;
        c->ring[i].slot = (ol_op **)ol__zalloc(pool->desc.depth * sizeof(ol_op *));
        if (!c->ring[i].slot) {
            ol__channel_free(c);
            return NULL;
        }
    }
    return c;
}

static int ol__pool_open(void *self, ol_notify *notify, ol_channel *out) {
    ol__pool *pool = (ol__pool *)self;
    ol__pool_channel *c = NULL;
    int r = 0;
    ol__pool_here(pool);
    OL_SYS_MUTEX_LOCK(&pool->lock);
    const uint32_t n = OL_SYS_LOAD(&pool->channels, OL_SYS_RELAXED);
    for (uint32_t i = 0; i < n && !c; i++) {
        ol__pool_channel *old = OL_SYS_LOAD(&pool->channel[i], OL_SYS_RELAXED);
        if (!old->open) c = old;
    }
    if (!c && n == OL__POOL_CHANNELS) r = ol__fail(OL__E_CHANNELS);
    if (!c && !r) {
        c = ol__channel_new(pool);
        if (!c) r = ol__fail(OL__E_NO_MEMORY);
        if (c) OL_SYS_STORE(&pool->channel[n], c, OL_SYS_RELAXED);
        if (c) OL_SYS_STORE(&pool->channels, n + 1, OL_SYS_RELEASE);
    }
    if (c) {
        c->open = 1;
        c->notify = notify;
        pool->loops++;
        out->self = c;
        out->depth = pool->desc.depth;
        out->flags = OL_CHANNEL_NOTIFIES;
        if (pool->desc.sched == 1) out->flags |= OL_CHANNEL_NO_SYNC;
    }
    OL_SYS_MUTEX_UNLOCK(&pool->lock);
    return r;
}

OL_API int ol_threads_create(ol_backend **backend, const ol_threads_desc *desc) {
    ol_threads_desc d;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    if (!backend || d.canary_ || d.workers > OL__POOL_WORKERS || d.depth > 1u << 16 || d.spin_ns < -1 || d.sched > 2)
        return ol__fail(OL__E_DESC);
    const uint32_t cpus = (uint32_t)OL_SYS_CPUS();
    if (!d.workers) d.workers = cpus < 2 ? 1 : cpus > OL__POOL_WORKERS ? (uint32_t)OL__POOL_WORKERS : cpus - 1;
    uint32_t depth = 1;
    while (depth < (d.depth ? d.depth : 256)) depth *= 2;
    d.depth = depth;
    if (!d.spin_ns) d.spin_ns = cpus > 1 ? 20000 : -1;
    if (!d.sched) d.sched = cpus > 1 ? 2 : 1;
    ol__pool *pool = (ol__pool *)ol__zalloc(sizeof *pool);
    if (!pool) return ol__fail(OL__E_NO_MEMORY);
    pool->desc = d;
    memcpy(&pool->lock, &ol__unlocked, sizeof ol__unlocked);
    OL_SYS_STORE(&pool->forks, ol__forks, OL_SYS_RELAXED);
    pool->backend.version = OL_BACKEND_VERSION;
    pool->backend.kinds = (1u << OL__KINDS) - 2; /* all */
    pool->backend.name = "threads";
    pool->backend.self = pool;
    pool->backend.open = ol__pool_open;
    pool->backend.submit = ol__channel_submit;
    pool->backend.poll = ol__channel_poll;
    pool->backend.look = ol__channel_look;
    pool->backend.cancel = ol__channel_cancel;
    pool->backend.close = ol__channel_close;
    pool->backend.forked = ol__channel_forked;
    pool->backend.asleep = ol__channel_asleep;
    *backend = &pool->backend;
    return 0;
}

OL_API int ol_threads_destroy(ol_backend *backend) {
    if (!backend || backend->open != ol__pool_open) return ol__fail(OL__E_BACKEND_DESC);
    ol__pool *pool = (ol__pool *)backend->self;
    if (pool->loops) return ol__fail(OL__E_BACKEND_BUSY);
    ol__pool_here(pool);
    OL_SYS_STORE(&pool->stop, 1u, OL_SYS_RELAXED);
    const uint32_t started = OL_SYS_LOAD(&pool->started, OL_SYS_RELAXED);
    for (uint32_t i = 0; i < 2; i++) {
        OL_SYS_STORE(&pool->sleep[i].permits, started, OL_SYS_RELEASE); /* with `stop` */
        OL_SYS_FUTEX_WAKE(&pool->sleep[i].permits, INT_MAX);
    }
    for (uint32_t i = 0; i < started; i++) OL_SYS_THREAD_JOIN(pool->worker[i].thread);
    for (uint32_t i = 0; i < OL__POOL_WORKERS; i++) ol__exec_clear(&pool->worker[i].exec); /* some may be a parent's */
    const uint32_t channels = OL_SYS_LOAD(&pool->channels, OL_SYS_RELAXED);
    for (uint32_t i = 0; i < channels; i++) ol__channel_free(OL_SYS_LOAD(&pool->channel[i], OL_SYS_RELAXED));
    OL_SYS_FREE(pool);
    return 0;
}

OL_API int ol_threads_get_stats(ol_backend *backend, ol_threads_stats *stats) {
    if (!backend || !stats || backend->open != ol__pool_open) return ol__fail(OL__E_BACKEND_DESC);
    ol__pool *pool = (ol__pool *)backend->self;
    ol_threads_stats s;
    memset(&s, 0, sizeof s);
    s.size = (uint32_t)ol__least(stats->size, sizeof s);
    ol__pool_here(pool);
    OL_SYS_MUTEX_LOCK(&pool->lock);
    s.workers = OL_SYS_LOAD(&pool->started, OL_SYS_RELAXED);
    s.asleep = (uint32_t)ol__least(ol__pool_sleepers(pool), s.workers);
    s.loops = pool->loops;
    if (s.workers) s.elapsed_ns = (uint64_t)(OL_SYS_NOW() - pool->since);
    for (uint32_t i = 0; i < s.workers; i++) s.idle_ns += OL_SYS_LOAD(&pool->worker[i].idle_ns, OL_SYS_RELAXED);
    OL_SYS_MUTEX_UNLOCK(&pool->lock);
    memcpy(stats, &s, s.size);
    return 0;
}

/* The pool that loops share when they bring none of their own: made by the first, freed by the last. */
static OL_SYS_MUTEX ol__shared_lock = OL_SYS_MUTEX_INIT;
static ol_backend *ol__shared_pool;
static uint32_t ol__shared_users;

/* Called by the system in the child, which has one thread: what another one had locked would stay locked for ever. */
static void ol__process_forked(void) {
    ol__forks++;
    memcpy(&ol__shared_lock, &ol__unlocked, sizeof ol__unlocked);
    memcpy(&ol__fork_lock, &ol__unlocked, sizeof ol__unlocked);
}
static int ol__watch_forks(void) { /* once; 0 or an errno, and the next loop tries again */
    static int watched;
    int number = 0;
    OL_SYS_MUTEX_LOCK(&ol__shared_lock);
    if (!watched) number = OL_SYS_AT_FORK(ol__process_forked);
    watched = number == 0;
    OL_SYS_MUTEX_UNLOCK(&ol__shared_lock);
    return number;
}

static int ol__shared_get(ol_backend **backend) {
    int r = 0;
    OL_SYS_MUTEX_LOCK(&ol__shared_lock);
    if (!ol__shared_pool) r = ol_threads_create(&ol__shared_pool, NULL);
    if (!r) {
        ol__shared_users++;
        *backend = ol__shared_pool;
    }
    OL_SYS_MUTEX_UNLOCK(&ol__shared_lock);
    return r;
}
static void ol__shared_put(void) {
    OL_SYS_MUTEX_LOCK(&ol__shared_lock);
    if (--ol__shared_users == 0) {
        (void)ol_threads_destroy(ol__shared_pool);
        ol__shared_pool = NULL;
    }
    OL_SYS_MUTEX_UNLOCK(&ol__shared_lock);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>backend:emulated: a device that takes its time by the clock                                                    */

enum { OL__FATE_GOOD, OL__FATE_HANGS, OL__FATE_FAULTY, OL__FATE_CORRUPT, OL__FATE_CANCELED };

typedef struct ol__device ol__device;
typedef struct ol__device_channel ol__device_channel;

typedef struct ol__device_job { /* an operation in flight, whose next_ points here */
    ol_op *op;
    ol__device_channel *channel;
    struct ol__device_job *before, *behind; /* all jobs of the device but the cancelled, as they were submitted */
    int64_t entered, begins, finishes;      /* OL_NEVER: it hangs */
    int64_t engine_ns, latency_ns, engine_was; /* when its engine was free before it took this job */
    uint64_t number, dice; /* counts up, 0: cancelled; which bit is corrupted */
    uint32_t engine, at;   /* at: its place in the heap */
    int fate;
} ol__device_job;

struct ol__device_channel { /* a loop's */
    ol__device *device;
    ol__device_job **heap; /* n in flight, next to be handed out on top; then those that are free */
    ol__device_job *job;
    OL_SYS_ATOMIC(int64_t) next; /* finish of what is on top: asked for often, and not worth a lock */
    uint32_t n, depth;
    ol_exec exec;
};

struct ol__device {
    ol_backend backend;
    char name[16];
    OL_SYS_MUTEX lock; /* all below, and the channels' heaps: a cancel moves up what other loops have submitted */
    uint32_t forks; /* of the process, when it was last used; under ol__fork_lock */
    uint32_t loops;
    ol_emulated_desc desc;
    uint64_t random, number;
    ol__device_job *first, *last;
    int64_t idle[64]; /* when each engine has done all that it was given */
};

/* splitmix64, of G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014 */
static uint64_t ol__device_random(ol__device *d) {
    uint64_t x = d->random += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}
static double ol__device_share(uint64_t random) { return (double)(random >> 11) / 9007199254740992.0; } /* 0 <= . < 1 */

/* x to the e, 0 < e <= 4, to 12 digits: with pow a program would have to link libm. x is 2^k m; ln m is a series in
   (m-1)/(m+1) <= 1/3; the power is 2^q e^r with 0 <= r < ln 2. */
static double ol__power(uint64_t x, double e) {
    if (x < 2 || e == 1) return (double)x;
    const double ln2 = 0.69314718055994530942;
    const int k = 63 - __builtin_clzll(x);
    const double m = (double)x / (double)((uint64_t)1 << k), t = (m - 1) / (m + 1);
    double ln = 0, power = 1;
    for (int i = 25; i > 0; i -= 2) ln = ln * t * t + 1.0 / i;
    const double y = e * (2 * t * ln + k * ln2);
    int q = (int)(y / ln2);
    for (int i = 18; i > 0; i--) power = 1 + power * (y - q * ln2) / i;
    for (; q > 60; q -= 60) power *= (double)((uint64_t)1 << 60);
    return power * (double)((uint64_t)1 << q);
}
static int64_t ol__device_time(const ol_emulated_desc *desc, uint64_t bytes, double share) {
    double ns = (double)desc->engine_ns;
    if (desc->bytes_per_s > 0) ns += ol__power(bytes, desc->exponent) * 1e9 / desc->bytes_per_s;
    ns *= 1 + desc->jitter * (2 * share - 1);
    return (int64_t)((ns < 1e12 ? ns : 1e12) + 0.5);
}

static int ol__device_precedes(const ol__device_job *a, const ol__device_job *b) {
    if (a->channel->device->desc.order || a->finishes == b->finishes) return a->number < b->number;
    return a->finishes < b->finishes;
}
static void ol__device_sift(ol__device_channel *c, ol__device_job *job) {
    uint32_t i = job->at, k;
    for (; i && ol__device_precedes(job, c->heap[k = (i - 1) / 2]); i = k) (c->heap[i] = c->heap[k])->at = i;
    for (; (k = 2 * i + 1) < c->n; i = k) {
        if (k + 1 < c->n && ol__device_precedes(c->heap[k + 1], c->heap[k])) k++;
        if (!ol__device_precedes(c->heap[k], job)) break;
        (c->heap[i] = c->heap[k])->at = i;
    }
    (c->heap[i] = job)->at = i;
    OL_SYS_STORE(&c->next, c->heap[0]->finishes, OL_SYS_RELAXED);
}

/* Gives the job to the engine that is free first. */
static void ol__device_place(ol__device *d, ol__device_job *job) {
    uint32_t k = 0;
    for (uint32_t i = 1; i < d->desc.engines; i++)
        if (d->idle[i] < d->idle[k]) k = i;
    job->engine = k;
    job->engine_was = d->idle[k];
    job->begins = d->idle[k] > job->entered ? d->idle[k] : job->entered;
    d->idle[k] = ol__after(job->begins, job->engine_ns);
    job->finishes = job->fate == OL__FATE_HANGS ? OL_NEVER : ol__after(d->idle[k], job->latency_ns);
    ol__device_sift(job->channel, job);
}
static void ol__device_unlink(ol__device *d, ol__device_job *job) {
    *(job->before ? &job->before->behind : &d->first) = job->behind;
    *(job->behind ? &job->behind->before : &d->last) = job->before;
}

static void ol__device_enter(ol__device_channel *c, ol_op *op, int64_t now) {
    ol__device *d = c->device;
    const ol_emulated_desc *desc = &d->desc;
    ol__device_job *job = c->heap[c->n];
    /* two draws for each operation, whatever the desc says: a member changes nothing that the others bring about */
    const double share = ol__device_share(ol__device_random(d));
    job->dice = ol__device_random(d);
    job->fate = share < desc->hangs                                    ? OL__FATE_HANGS
                : share < desc->hangs + desc->faults                   ? OL__FATE_FAULTY
                : share < desc->hangs + desc->faults + desc->corrupts ? OL__FATE_CORRUPT
                                                                       : OL__FATE_GOOD;
    job->op = op;
    op->next_ = (ol_op *)(void *)job; /* where cancel finds it */
    job->channel = c;
    job->engine_ns = ol__device_time(desc, op->len, ol__device_share(job->dice));
    job->latency_ns = desc->latency_ns;
    job->number = ++d->number;
    job->entered = now;
    job->before = d->last;
    job->behind = NULL;
    *(d->last ? &d->last->behind : &d->first) = job;
    d->last = job;
    job->at = c->n++;
    ol__device_place(d, job);
}

/* Each operation enters when its set-up is done. What the emulation itself costs is not the program's time. */
static int ol__device_submit(void *channel, ol_op *const *ops, int n) {
    ol__device_channel *c = (ol__device_channel *)channel;
    ol__device *d = c->device;
    const int64_t begin = OL_SYS_NOW();
    int k = 0;
    OL_SYS_CLOCK_STOP();
    OL_SYS_MUTEX_LOCK(&d->lock);
    int64_t now = begin + d->desc.burst_ns;
    for (; k < n && c->n < c->depth; k++) ol__device_enter(c, ops[k], now += d->desc.setup_ns);
    OL_SYS_MUTEX_UNLOCK(&d->lock);
    OL_SYS_CLOCK_GO();
    if (k && now > begin) OL_SYS_SPEND(now - begin);
    return k;
}

/* The result is made so late that what was cancelled has not run, and its stream has not gone on. */
static void ol__device_finish(ol__device_channel *c, const ol__device_job *job) {
    ol_op *op = job->op;
    const int64_t took = job->fate == OL__FATE_CANCELED ? 0 : job->engine_ns + job->latency_ns;
    op->service_ns = (uint32_t)ol__least((uint64_t)took, UINT32_MAX);
    op->result = job->fate == OL__FATE_CANCELED ? -ECANCELED : -EIO;
    if (job->fate == OL__FATE_CANCELED || job->fate == OL__FATE_FAULTY) return;
    op->result = ol__execute(&c->exec, op);
    if (job->fate != OL__FATE_CORRUPT || op->result < 0) return;
    if (op->kind == OL_OP_CALL || op->kind == OL_OP_CRC32)
        op->result ^= (int64_t)1 << (job->dice & 31); /* not a higher one: it must not become an error */
    else if (op->result)
        ((uint8_t *)op->dst)[(job->dice >> 3) % (uint64_t)op->result] ^= (uint8_t)(1u << (job->dice & 7));
}

static int ol__device_poll(void *channel, ol_op **ops, int max) {
    ol__device_channel *c = (ol__device_channel *)channel;
    const int64_t now = OL_SYS_NOW();
    int n = 0;
    OL_SYS_CLOCK_STOP();
    OL_SYS_MUTEX_LOCK(&c->device->lock);
    for (; n < max && c->n && c->heap[0]->finishes <= now; n++) {
        ol__device_job *job = c->heap[0], *end = c->heap[--c->n];
        if (job->fate != OL__FATE_CANCELED) ol__device_unlink(c->device, job);
        ops[n] = job->op;
        c->heap[c->n] = job;
        end->at = 0;
        if (c->n)
            ol__device_sift(c, end);
        else
            OL_SYS_STORE(&c->next, OL_NEVER, OL_SYS_RELAXED);
    }
    OL_SYS_MUTEX_UNLOCK(&c->device->lock);
    /* the jobs are free, but only this thread takes them again */
    for (int i = 0; i < n; i++) ol__device_finish(c, (ol__device_job *)(void *)ops[i]->next_);
    OL_SYS_CLOCK_GO();
    return n;
}

static int64_t ol__device_next(void *channel, int64_t now) {
    const int64_t next = OL_SYS_LOAD(&((ol__device_channel *)channel)->next, OL_SYS_RELAXED);
    (void)now;
    return next == OL_NEVER ? -1 : next;
}
static int ol__device_look(void *channel) {
    const int64_t next = ol__device_next(channel, 0);
    return next >= 0 && next <= OL_SYS_NOW();
}

/* What no engine has begun leaves no trace: those behind it, none of which has begun either, are taken back from their
   engines, last first, and placed again. */
static void ol__device_withdraw(ol__device *d, ol__device_job *job) {
    for (ol__device_job *j = d->last; j != job; j = j->before) d->idle[j->engine] = j->engine_was;
    d->idle[job->engine] = job->engine_was;
    for (ol__device_job *j = job->behind; j; j = j->behind) ol__device_place(d, j);
}
static int ol__device_cancel(void *channel, ol_op *op) {
    ol__device_channel *c = (ol__device_channel *)channel;
    ol__device_job *job = (ol__device_job *)(void *)op->next_;
    OL_SYS_MUTEX_LOCK(&c->device->lock);
    const int64_t now = OL_SYS_NOW();
    const int begun = job->begins <= now, before = job->fate == OL__FATE_CANCELED;
    const int late = begun && job->fate != OL__FATE_HANGS && !before;
    if (!late && !before) {
        if (!begun) ol__device_withdraw(c->device, job);
        ol__device_unlink(c->device, job);
        job->fate = OL__FATE_CANCELED;
        job->finishes = now;
        job->number = 0; /* not even in order does it wait for others */
        ol__device_sift(c, job);
    }
    OL_SYS_MUTEX_UNLOCK(&c->device->lock);
    return late ? -EBUSY : 0;
}

/* In the child of a fork: what the device had in flight is the parent's. */
static void ol__device_here(ol__device *d) {
    OL_SYS_MUTEX_LOCK(&ol__fork_lock);
    if (d->forks != ol__forks) {
        memcpy(&d->lock, &ol__unlocked, sizeof ol__unlocked);
        memset(d->idle, 0, sizeof d->idle);
        d->first = d->last = NULL;
        d->forks = ol__forks;
    }
    OL_SYS_MUTEX_UNLOCK(&ol__fork_lock);
}
static int ol__device_forked(void *channel) {
    ol__device_channel *c = (ol__device_channel *)channel;
    ol__device_here(c->device);
    c->n = 0;
    OL_SYS_STORE(&c->next, OL_NEVER, OL_SYS_RELAXED);
    for (uint32_t i = 0; i < c->depth; i++) c->heap[i] = &c->job[i]; /* another thread may have been at it */
    return 0;
}

static int ol__device_open(void *self, ol_notify *notify, ol_channel *out) {
    ol__device *d = (ol__device *)self;
    const uint32_t depth = d->desc.depth; /* like reserve it never changes */
    ol__device_channel *c = (ol__device_channel *)ol__zalloc(
        sizeof *c + depth * (sizeof(ol__device_job) + sizeof(ol__device_job *)));
    (void)notify;
    if (!c) return ol__fail(OL__E_NO_MEMORY);
    ol__device_here(d);
    OL_SYS_MUTEX_LOCK(&d->lock);
    d->loops++;
    OL_SYS_MUTEX_UNLOCK(&d->lock);
    c->device = d;
    c->depth = depth;
    c->job = (ol__device_job *)(void *)(c + 1);
    c->heap = (ol__device_job **)(void *)(c->job + depth);
    out->self = c;
    out->depth = depth;
    out->reserve = d->desc.reserve;
    out->flags = OL_CHANNEL_ONE_QUEUE | OL_CHANNEL_VERIFY;
    return ol__device_forked(c);
}
static void ol__device_close(void *channel) {
    ol__device_channel *c = (ol__device_channel *)channel;
    ol__device_here(c->device);
    OL_SYS_MUTEX_LOCK(&c->device->lock);
    c->device->loops--;
    OL_SYS_MUTEX_UNLOCK(&c->device->lock);
    ol__exec_clear(&c->exec);
    OL_SYS_FREE(c);
}

/* The numbers of a desc: where, which type, whether its default is another than 0, the most that it may be. A seed has
   53 bits, which a double can hold. */
enum { OL__U32, OL__I64, OL__U64, OL__F64 };
static const struct ol__device_field {
    const char *name;
    size_t at;
    int type, filled;
    double most;
} ol__device_fields[] = {
#define OL__FIELD(member, type, filled, most) {#member, offsetof(ol_emulated_desc, member), type, filled, most}
    OL__FIELD(engines, OL__U32, 1, 64),         OL__FIELD(depth, OL__U32, 1, 65536),
    OL__FIELD(reserve, OL__U32, 1, 65535),      OL__FIELD(order, OL__U32, 0, 1),
    OL__FIELD(setup_ns, OL__I64, 0, 1e12),      OL__FIELD(burst_ns, OL__I64, 0, 1e12),
    OL__FIELD(latency_ns, OL__I64, 0, 1e12),    OL__FIELD(engine_ns, OL__I64, 0, 1e12),
    OL__FIELD(bytes_per_s, OL__F64, 0, 1e18),   OL__FIELD(exponent, OL__F64, 1, 4),
    OL__FIELD(jitter, OL__F64, 0, 1),           OL__FIELD(faults, OL__F64, 0, 1),
    OL__FIELD(corrupts, OL__F64, 0, 1),         OL__FIELD(hangs, OL__F64, 0, 1),
    OL__FIELD(seed, OL__U64, 1, 9007199254740992.0)
#undef OL__FIELD
};
enum { OL__DEVICE_FIELDS = sizeof ol__device_fields / sizeof *ol__device_fields };

static double ol__device_get(const ol_emulated_desc *d, const struct ol__device_field *f) {
    const void *p = (const char *)d + f->at;
    switch (f->type) {
    case OL__U32: return (double)*(const uint32_t *)p;
    case OL__I64: return (double)*(const int64_t *)p;
    case OL__U64: return (double)*(const uint64_t *)p;
    default: return *(const double *)p;
    }
}
static void ol__device_set(ol_emulated_desc *d, const struct ol__device_field *f, double v) {
    void *p = (char *)d + f->at;
    switch (f->type) {
    case OL__U32: *(uint32_t *)p = (uint32_t)v; break;
    case OL__I64: *(int64_t *)p = (int64_t)v; break;
    case OL__U64: *(uint64_t *)p = (uint64_t)v; break;
    default: *(double *)p = v;
    }
}
enum { OL__DEVICE_KINDS = 1 << OL_OP_CALL | 1 << OL_OP_CRC32 | 1 << OL_OP_DEFLATE | 1 << OL_OP_INFLATE };

static int ol__device_error(const char *member, const char *what) {
    static __thread char text[192];
    snprintf(text, sizeof text, "ol_emulated_desc: %s %s", member, what);
    ol__last_error = text;
    return -EINVAL;
}
static int ol__device_range(const struct ol__device_field *f, double value) {
    char what[48];
    snprintf(what, sizeof what, "must be at most %.16g", f->most);
    return value >= 0 && value <= f->most ? 0 : ol__device_error(f->name, value < 0 ? "must not be negative" : what);
}

/* Checks the desc and puts the defaults in. */
static int ol__device_check(ol_emulated_desc *d) {
    if (d->canary_) return ol__device_error("canary_", "must be 0: zero the desc first");
    if (!d->name[0]) memcpy(d->name, "device", 7);
    if (!memchr(d->name, 0, sizeof d->name) || strpbrk(d->name, " \t\r\n#"))
        return ol__device_error("name", "must be a word of at most 15 characters");
    if (d->kinds & ~(uint32_t)OL__DEVICE_KINDS) return ol__device_error("kinds", "are call, crc32, deflate, inflate");
    for (int i = 0; i < OL__DEVICE_FIELDS; i++)
        if (ol__device_range(&ol__device_fields[i], ol__device_get(d, &ol__device_fields[i])) < 0) return -EINVAL;
    if (!d->kinds) d->kinds = OL__DEVICE_KINDS;
    if (!d->engines) d->engines = 1;
    if (!d->depth) d->depth = 128;
    if (!d->reserve) d->reserve = d->depth / 8;
    if (!(d->exponent > 0)) d->exponent = 1;
    if (!d->seed) d->seed = 1;
    if (d->reserve >= d->depth) return ol__device_error("reserve", "must be less than depth");
    if (d->faults + d->corrupts + d->hangs <= 1 + 1e-9) return 0; /* 0.7, 0.2 and 0.1 are a bit more */
    return ol__device_error("faults, corrupts and hangs", "must be at most 1 together");
}

/* 12, -3, 0.25, 1.5e9; returns whether it is one. strtod would want the decimal point of the process's locale. */
static int ol__device_number(const char *p, double *value) {
    const double sign = *p == '-' ? -1 : 1;
    const char *const digits = p += *p == '-';
    double v = 0, scale = sign;
    int e = 0;
    for (; *p >= '0' && *p <= '9'; p++) v = v * 10 + (*p - '0');
    if (p == digits) return 0;
    if (*p == '.')
        for (p++; *p >= '0' && *p <= '9'; p++, scale *= 10) v = v * 10 + (*p - '0');
    if (*p == 'e')
        for (p++; *p >= '0' && *p <= '9' && e < 100; p++) e = e * 10 + (*p - '0');
    for (v /= scale; e; e--) v *= 10;
    *value = v;
    return !*p;
}
static int ol__device_kinds(const char *text, uint32_t *kinds) { /* deflate,inflate; returns whether it is that */
    for (*kinds = 0;; text++) {
        char kind[16] = "";
        for (size_t n = 0; *text && *text != ',' && n < sizeof kind - 1; text++) kind[n++] = *text;
        const int k = ol__name_index(ol__kind_names, OL__KINDS, kind);
        if (k <= 0 || !(OL__DEVICE_KINDS >> k & 1)) return 0;
        *kinds |= 1u << k;
        if (!*text) return 1;
    }
}

static int ol__device_assign(ol_emulated_desc *d, const char *name, const char *text) {
    double v = -1;
    const int number = ol__device_number(text, &v);
    if (!strcmp(name, "name")) {
        if (!*text || strlen(text) > 15) return ol__device_error(name, "must have 1 to 15 characters");
        memcpy(d->name, text, strlen(text) + 1);
        return 0;
    }
    if (!strcmp(name, "kinds"))
        return ol__device_kinds(text, &d->kinds) ? 0 : ol__device_error(name, "must be of call,crc32,deflate,inflate");
    for (int i = 0; i < OL__DEVICE_FIELDS; i++) {
        const struct ol__device_field *f = &ol__device_fields[i];
        if (strcmp(name, f->name) != 0) continue;
        if (!number) return ol__device_error(name, "must be a number, as 12, 0.5 or 1.5e9");
        if (f->filled && v == 0) return ol__device_error(name, "must not be 0: leave it out for its default");
        if (ol__device_range(f, v) < 0) return -EINVAL;
        if (f->type != OL__F64 && v != (double)(int64_t)v) return ol__device_error(name, "must be a whole number");
        ol__device_set(d, f, v);
        return 0;
    }
    return ol__device_error(name, "is not a member that text can set");
}

/* T: A. Vijeev, "Operating System Scheduling for Emerging Hardware Accelerators", UC San Diego 2023, chapter 2: its
   text, not its plots. Nothing is fitted to its chapter 4. L(bytes) is latency_ns + engine_ns + bytes / bytes_per_s.
   - L(256) from the host is what software takes (T: below that size software is faster, above it the device is).
     4,550 ns: ISA-L level 1, 256 bytes of HTML, one Zen 5 core. Assumptions: that level, that core.
   - The NIC's own cores save the round trip over PCIe, a couple of microseconds (T). Assumption: 2,000 ns at each size.
   - From 8 KB on that is at most 25 % (T). Assumption: just 25 % at 8 KB. So L(8K) is 8,000 ns from the NIC and 10,000
     from the host; with L(256), bytes_per_s is 1.456e9, and L(0) 2,374 and 4,374 ns.
   - How much of L(0) occupies an engine, T doesn't say. Assumption: half of the NIC's, 1,187 ns. With many in flight
     throughput depends on it directly: compare also with engine_ns 0 and 2,374, and the difference in latency_ns.
   - Set-up takes 0.36 to 2.8 us on the host, 1 to 11 us on the NIC, at all sizes less than L (T). Assumptions: the
     geometric mean on the host, 1,000 ns; that of the NIC, 3,300, is more than L(0), so 2,000.
   - L hardly depends on what the data are (T): no jitter. Assumptions: one engine, completions as they finish, no cost
     for each burst, the default depth, and all kinds take what deflate takes. */
static const char *const ol__device_presets[][2] = {
    {"bluefield2-host", "setup_ns=1000 latency_ns=3187 engine_ns=1187 bytes_per_s=1.456e9"},
    {"bluefield2-nic", "setup_ns=2000 latency_ns=1187 engine_ns=1187 bytes_per_s=1.456e9"},
    /* assumptions, all, and no product's figures: each operation takes longer than above, all together are faster */
    {"qat-like", "engines=16 depth=512 order=1 setup_ns=400 burst_ns=400 latency_ns=12000 engine_ns=1000 "
                 "bytes_per_s=8e8"},
    /* assumptions, all: below a tenth of ISA-L level 1's speed, 1.2e9 bytes/s on one Zen 5 core */
    {"slow", "setup_ns=3000 latency_ns=20000 engine_ns=5000 bytes_per_s=1e8"}};

static int ol__device_words(const char *p, ol_emulated_desc *d) {
    char word[64];
    for (int first = 1;; first = 0) {
        int n, r = 1;
        while ((n = ol__word(&p, word, sizeof word)) == 0) { /* the end of a line */
            while (*p && *p != '\n') p++;
            if (!*p++) return 0;
        }
        if (n < 0) return ol__device_error("text", "has a word of more than 63 characters");
        char *value = strchr(word, '=');
        if (value) *value++ = 0;
        for (int i = 0; i < 4 && first && !value; i++)
            if (!strcmp(word, ol__device_presets[i][0])) r = ol__device_words(ol__device_presets[i][1], d);
        if (value) r = ol__device_assign(d, word, value);
        if (r == 1)
            r = ol__device_error(word, first ? "is not bluefield2-host, bluefield2-nic, qat-like, slow or MEMBER=VALUE"
                                             : "must be MEMBER=VALUE: a device's name comes first");
        if (r) return r;
    }
}
OL_API int ol_emulated_parse(const char *text, ol_emulated_desc *out, char *err, size_t err_len) {
    ol_emulated_desc d, filled;
    memset(&d, 0, sizeof d);
    int r = text ? ol__device_words(text, &d) : ol__device_error("text", "must not be NULL");
    filled = d;
    if (!r) r = ol__device_check(&filled);
    if (!r && out) *out = d;
    if (r && err && err_len) snprintf(err, err_len, "%s", ol__last_error);
    return r;
}

OL_API int ol_emulated_create(ol_backend **backend, const ol_emulated_desc *desc) {
    ol_emulated_desc filled;
    memset(&filled, 0, sizeof filled);
    if (desc) filled = *desc;
    const int r = backend ? ol__device_check(&filled) : ol__fail(OL__E_NULL);
    if (r) return r;
    ol__device *d = (ol__device *)ol__zalloc(sizeof *d);
    if (!d) return ol__fail(OL__E_NO_MEMORY);
    d->desc = filled;
    d->random = filled.seed;
    memcpy(d->name, filled.name, sizeof d->name);
    memcpy(&d->lock, &ol__unlocked, sizeof ol__unlocked);
    d->forks = ol__forks;
    d->backend.version = OL_BACKEND_VERSION;
    d->backend.kinds = filled.kinds;
    d->backend.name = d->name;
    d->backend.self = d;
    d->backend.open = ol__device_open;
    d->backend.submit = ol__device_submit;
    d->backend.poll = ol__device_poll;
    d->backend.look = ol__device_look;
    d->backend.next_ns = ol__device_next;
    d->backend.cancel = ol__device_cancel;
    d->backend.close = ol__device_close;
    d->backend.forked = ol__device_forked;
    *backend = &d->backend;
    return 0;
}

OL_API int ol_emulated_change(ol_backend *backend, const ol_emulated_desc *desc) {
    if (!backend || backend->open != ol__device_open) return ol__fail(OL__E_BACKEND_DESC);
    if (!desc) return ol__fail(OL__E_NULL);
    ol__device *d = (ol__device *)backend->self;
    ol_emulated_desc filled = *desc;
    const size_t fixed = offsetof(ol_emulated_desc, setup_ns); /* what lies before is read without the lock */
    const int r = ol__device_check(&filled);
    if (r) return r;
    ol__device_here(d);
    OL_SYS_MUTEX_LOCK(&d->lock);
    memcpy((char *)&d->desc + fixed, (const char *)&filled + fixed, sizeof filled - fixed);
    OL_SYS_MUTEX_UNLOCK(&d->lock);
    return 0;
}

OL_API int ol_emulated_destroy(ol_backend *backend) {
    if (!backend || backend->open != ol__device_open) return ol__fail(OL__E_BACKEND_DESC);
    ol__device *d = (ol__device *)backend->self;
    ol__device_here(d);
    OL_SYS_MUTEX_LOCK(&d->lock);
    const uint32_t loops = d->loops;
    OL_SYS_MUTEX_UNLOCK(&d->lock);
    if (loops) return ol__fail(OL__E_BACKEND_BUSY);
    OL_SYS_FREE(d);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>loop:impl                                                                                                      */

#define OL__LIST_END ((void *)1) /* a posted node's `next` is never NULL */

/* Two posters may race for one node: who turns NULL into LIST_END queues it. The other one touches the word by an
   exchange of the same value, so that what it wrote before is seen by the function, which takes it by an exchange
   too. What the first one wrote, the node included, is released with the list's head. */
OL_API int ol_post(ol_loop *loop, ol_post_node *node) {
    for (;;) {
        void *next = NULL;
        if (OL_SYS_CAS(&node->next, &next, OL__LIST_END, OL_SYS_RELAXED)) break;
        if (OL_SYS_CAS(&node->next, &next, next, OL_SYS_RELEASE)) return -EBUSY;
    }
    void *head = OL_SYS_LOAD(&loop->posts, OL_SYS_RELAXED);
    do (void)OL_SYS_XCHG(&node->next, head, OL_SYS_RELAXED);
    while (!OL_SYS_CAS(&loop->posts, &head, (void *)node, OL_SYS_RELEASE));
    ol_notify_loop(&loop->notify);
    return 0;
}

static void ol__run_posts(ol_loop *loop) {
    if (OL_SYS_LOAD(&loop->posts, OL_SYS_RELAXED) == OL__LIST_END) return;
    void *newest = OL_SYS_XCHG(&loop->posts, OL__LIST_END, OL_SYS_ACQUIRE);
    ol_post_node *first = NULL; /* turned over, oldest first; linked by `next` with LIST_END at the end */
    while (newest != OL__LIST_END) {
        ol_post_node *node = (ol_post_node *)newest;
        newest = OL_SYS_XCHG(&node->next, first ? (void *)first : OL__LIST_END, OL_SYS_RELAXED);
        first = node;
    }
    while (first) {
        ol_post_node *node = first;
        const ol__slot *slot = node->fd ? ol__slot_of(loop, node->fd) : NULL;
        /* one that waits for its partition can't be posted again, another can from here on */
        void *next = OL_SYS_XCHG(&node->next, slot ? OL__LIST_END : NULL, OL_SYS_ACQUIRE);
        first = next == OL__LIST_END ? NULL : (ol_post_node *)next;
        if (slot) {
            node->part_ = slot->part;
            loop->posts_held++;
            ol__gate(loop, slot->part, (uintptr_t)node | OL__POST);
        } else {
            node->fn(loop, node);
        }
    }
}

static void ol__run_item(ol_loop *loop, ol__item item) {
    switch (item & OL__KIND) {
    case OL__OP:
        if (ol__item_to_op(item)->state_ == OL__SLICING)
            ol__run_slice(loop, ol__item_to_op(item));
        else
            ol__op_report(loop, ol__item_to_op(item));
        break;
    case OL__TIMER: ol__run_timer(loop, (ol_timer *)ol__item_to(item)); break;
    case OL__POST: ol__run_post(loop, (ol_post_node *)ol__item_to(item)); break;
    default: ol__run_handler(loop, (ol_handler *)ol__item_to(item));
    }
}

/* Latency-critical first, but after latency_run in a row one of batch. */
static uint32_t ol__next_class(ol_loop *loop) {
    const int other = loop->ready[OL_BATCH].head != 0;
    if (!loop->ready[OL_LATENCY].head || (other && loop->latency_streak >= loop->desc.latency_run)) {
        loop->latency_streak = 0;
        return OL_BATCH;
    }
    if (other) loop->latency_streak++;
    return OL_LATENCY;
}

enum { OL__TURN_NS = 20000, OL__KERNEL_NS = 10000, OL__KERNEL_TURNS = 16, OL__RETRY_NS = 1000000 };
enum { OL__SLACK_NS = 50000 };

/* Runs what is ready now. What becomes ready meanwhile may go before what waits in the other class, but the round ends
   with the last of those that were there at its beginning, and then the kernel is looked at. */
static void ol__run_ready(ol_loop *loop) {
    ol__item last[3];
    const int64_t begin = loop->now;
    uint32_t ran = 0;
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++) last[cls] = loop->ready[cls].tail;
    for (uint32_t i = 1; i <= loop->desc.turn && (last[OL_LATENCY] || last[OL_BATCH]); i++) {
        const uint32_t cls = ol__next_class(loop);
        const ol__item item = ol__pop(&loop->ready[cls]);
        if (!item) break; /* the last one was taken off */
        if (item == last[cls]) last[cls] = 0;
        int look = cls == OL_BATCH || i % 8 == 0 || (item & OL__KIND) == OL__OP;
        loop->stats.resumes++;
        ran += cls == OL_LATENCY;
        if (item & OL__KIND)
            ol__run_item(loop, item);
        else
            look |= ol__resume(loop, ol__item_to_co(item)); /* who yields has computed */
        if (look && OL_SYS_NOW() - begin > OL__TURN_NS) break;
    }
    loop->ran = ran;
}

/* Is there a post or a completion? */
static int ol__work_waits(ol_loop *loop) {
    if (OL_SYS_LOAD(&loop->posts, OL_SYS_RELAXED) != OL__LIST_END) return 1;
    for (uint32_t i = 1; i < loop->lanes; i++)
        if (loop->lane[i].in_backend && loop->lane[i].backend->look(loop->lane[i].channel.self)) return 1;
    return 0;
}

/* How long the loop may sleep, at most `limit`. */
static int64_t ol__may_sleep(ol_loop *loop, int64_t limit) {
    int64_t t = limit < 0 ? OL_NEVER : limit;
    if (ol__ready(loop)) return 0;
    if (loop->heap_n) {
        const int64_t due = loop->heap[1].when - loop->now;
        if (due < t) t = due > 0 ? due : 0;
    }
    for (uint32_t i = 1; i < loop->lanes; i++) {
        ol__lane *l = &loop->lane[i];
        if (l->in_backend && !(l->channel.flags & OL_CHANNEL_NOTIFIES)) {
            const int64_t next = l->backend->next_ns ? l->backend->next_ns(l->channel.self, loop->now) : -1;
            const int64_t in = next > loop->now ? next - loop->now : loop->desc.poll_ns;
            if (in < t) t = in;
        }
        for (uint32_t k = 0; k < 4; k++)
            if ((l->line[k].staged.head || l->line[k].parked_n) && t > OL__RETRY_NS) t = OL__RETRY_NS;
    }
    return t == OL_NEVER ? -1 : t;
}

static uint32_t ol__offloaded(const ol_loop *loop) {
    uint32_t n = 0;
    for (uint32_t i = 1; i < loop->lanes; i++) n += loop->lane[i].in_backend;
    return n;
}

static int ol__ask_kernel(ol_loop *loop, int64_t timeout) {
    const int64_t before = loop->now;
    ol_histogram_add(&loop->lag, before - loop->polled);
    loop->stats.busy_ns += (uint64_t)(before - loop->polled);
    const int n = OL_SYS_EPOLL_WAIT(loop->ep, loop->event, (int)loop->desc.events, timeout);
    const int number = n < 0 ? errno : 0;
    loop->polled = ol__refresh(loop);
    loop->stats.waited_ns += (uint64_t)(loop->polled - before);
    loop->skipped = 0;
    return n >= 0 ? n : number == EINTR ? 0 : -number;
}

/* How long to spin before a sleep of `wait`. The kernel would sleep longer than it takes till a backend without
   notifications is to be polled again: a timer may be late by 50 microseconds (prctl(2), PR_SET_TIMERSLACK). */
static int64_t ol__spin_time(const ol_loop *loop, int64_t wait) {
    const int64_t most = ol__offloaded(loop) ? loop->desc.spin_ns : 0;
    for (uint32_t i = 1; i < loop->lanes && wait > 0 && wait < OL__SLACK_NS; i++)
        if (loop->lane[i].in_backend && !(loop->lane[i].channel.flags & OL_CHANNEL_NOTIFIES)) return wait;
    return wait < 0 || wait > most ? most : wait;
}

/* Spins for completions, with a look at the kernel now and then. 1: there is something. */
static int ol__spin(ol_loop *loop, int64_t time, int *events) {
    const int64_t end = ol__after(loop->now, time);
    do {
        for (int i = 0; i < 64; i++) {
            if (ol__work_waits(loop)) {
                loop->slept = ol__refresh(loop); /* it has looked until now */
                return 1;
            }
            OL_SYS_PAUSE();
        }
        if (ol__refresh(loop) - loop->polled >= OL__KERNEL_NS && (*events = ol__ask_kernel(loop, 0)) != 0) return 1;
    } while (loop->now < end);
    return 0;
}

/* Waits for kernel events; returns how many. With work at hand the kernel is asked at intervals only, so that an
   operation whose worker spins costs no system call. */
static int ol__wait(ol_loop *loop, int64_t limit) {
    int events = 0;
    int64_t wait = ol__may_sleep(loop, limit);
    const int hurry = ol__ready(loop) || (wait && ol__work_waits(loop));
    if (hurry && loop->now - loop->polled < OL__KERNEL_NS && ++loop->skipped < OL__KERNEL_TURNS) return 0;
    if (hurry) wait = 0;
    const int64_t spin = wait ? ol__spin_time(loop, wait) : 0;
    if (spin) {
        if (ol__spin(loop, spin, &events)) return events;
        wait = spin == wait ? 0 : ol__may_sleep(loop, limit);
    }
    if (!wait) return ol__ask_kernel(loop, 0);
    (void)OL_SYS_XCHG(&loop->notify.sleeping, 1u, OL_SYS_ACQUIRE);
    if (ol__work_waits(loop))
        wait = 0;
    else
        loop->stats.sleeps++;
    events = ol__ask_kernel(loop, wait);
    if (wait) loop->slept = loop->now;
    (void)OL_SYS_XCHG(&loop->notify.sleeping, 0u, OL_SYS_ACQUIRE); /* who was woken sees what for */
    return events;
}

static int ol__alive(ol_loop *loop) {
    return loop->stats.roots || loop->ops || loop->user_timers || loop->handlers || loop->posts_held ||
           ol__ready(loop) || OL_SYS_LOAD(&loop->posts, OL_SYS_RELAXED) != OL__LIST_END;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>entry                                                                                                          */

static int ol__is_one_of(int fd, const int fds[3]) { return fd == fds[0] || fd == fds[1] || fd == fds[2]; }

/* The first use of a loop in the child of a fork. The epoll fd is shared with the parent: closing it here changes
   nothing there, but to remove a registration from it would. 0, or a negative errno, and it is tried again. An fd that
   the child has closed by itself may have given its number to one of ours. */
static int ol__fork_fds(ol_loop *loop, int fresh[3]) {
    fresh[0] = OL_SYS_EPOLL_CREATE();
    if (fresh[0] >= 0) fresh[1] = OL_SYS_EVENTFD();
    if (fresh[1] >= 0 && loop->timerfd >= 0) fresh[2] = OL_SYS_TIMERFD();
    if (fresh[0] < 0 || fresh[1] < 0 || (loop->timerfd >= 0 && fresh[2] < 0)) return -1;
    if (ol__register_own(fresh[0], fresh[1], OL__WAKE_EVENT) < 0) return -1;
    if (fresh[2] >= 0 && ol__register_own(fresh[0], fresh[2], OL__TIMER_EVENT) < 0) return -1;
    for (uint32_t fd = 0; fd < loop->slots; fd++)
        if ((loop->slot[fd].flags & (OL__OPEN | OL__GUEST)) == OL__OPEN && !ol__is_one_of((int)fd, fresh) &&
            ol__register(fresh[0], (int)fd, ol__handle(loop->slot[fd].gen, (int)fd), EPOLL_CTL_ADD) < 0 &&
            errno != EBADF)
            return -1; /* EBADF: the child has closed it by itself */
    return 0;
}
static void ol__channel_check(ol_channel *c) {
    if (!c->depth) c->depth = 1;
    if (c->reserve >= c->depth) c->reserve = c->depth - 1;
}
static int ol__fork_lanes(ol_loop *loop) {
    for (uint32_t i = 1; i < loop->lanes; i++) {
        ol__lane *lane = &loop->lane[i];
        ol_backend *b = lane->backend;
        if (lane->forks == ol__forks) continue;
        const int r = b->forked ? b->forked(lane->channel.self) : b->open(b->self, &loop->notify, &lane->channel);
        if (r < 0) return ol__fail_errno(-r);
        ol__channel_check(&lane->channel);
        lane->forks = ol__forks;
    }
    return 0;
}
static void ol__fork_ops(ol_loop *loop) {
    for (uint32_t i = 1; i < loop->lanes; i++) {
        loop->lane[i].in_backend = loop->lane[i].shun = 0;
        memset(loop->lane[i].line, 0, sizeof loop->lane[i].line);
    }
    for (uint32_t i = 0; i < loop->used_parts; i++)
        for (ol_op *op = loop->part[i].ops, *next; op; op = next) {
            next = op->next_in_part_;
            if (op->state_ == OL__FINISHED || op->state_ == OL__SLICING) continue;
            op->result = ol__op_fail(op, OL__E_FORKED);
            ol__op_finish(loop, op);
        }
}
static void ol__arm(ol_loop *loop);

static int ol__after_fork(ol_loop *loop) {
    int fresh[3] = {-1, -1, -1};
    if (__builtin_expect(loop->forks == ol__forks, 1)) return 0;
    const int r = ol__fork_lanes(loop);
    if (r < 0) return r;
    if (ol__fork_fds(loop, fresh) < 0) {
        const int number = errno;
        for (int i = 0; i < 3; i++)
            if (fresh[i] >= 0) OL_SYS_CLOSE(fresh[i]);
        return ol__fail_errno(number);
    }
    for (uint32_t fd = 0; fd < loop->slots; fd++) {
        if (loop->slot[fd].flags & OL__OPEN) loop->slot[fd].flags |= OL__INHERITED;
        if ((loop->slot[fd].flags & OL__OPEN) && ol__is_one_of((int)fd, fresh)) ol__slot_lost(loop, fd);
    }
    OL_SYS_CLOSE(loop->ep);
    if (loop->eventfd_before >= 0) OL_SYS_CLOSE(loop->eventfd_before);
    if (loop->timerfd >= 0) OL_SYS_CLOSE(loop->timerfd);
    loop->ep = fresh[0];
    loop->eventfd_before = loop->notify.eventfd; /* a post that is under way elsewhere may still write to it */
    loop->notify.eventfd = fresh[1];
    loop->timerfd = fresh[2];
    loop->armed = OL_NEVER;
    loop->forks = ol__forks;
    ol__fork_ops(loop);
    if (loop->timerfd >= 0 && !loop->inside) ol__arm(loop);
    return 0;
}

/* For who watches ol_loop_fd: the loop counts as asleep, and wakes by its eventfd or its timerfd. */
static void ol__arm(ol_loop *loop) {
    (void)OL_SYS_XCHG(&loop->notify.sleeping, 1u, OL_SYS_ACQUIRE);
    ol__refresh(loop);
    const int64_t wait = ol__work_waits(loop) ? 0 : ol__may_sleep(loop, -1);
    const int64_t due = wait < 0 ? OL_NEVER : ol__after(loop->now, wait);
    if (due == loop->armed) return;
    loop->armed = due;
    (void)OL_SYS_TIMERFD_SET(loop->timerfd, wait < 0 ? 0 : wait ? wait : 1);
}

OL_API int ol_loop_fd(ol_loop *loop) {
    if (!loop) return ol__fail(OL__E_NULL);
    const int r = ol__after_fork(loop);
    if (r < 0 || loop->timerfd >= 0) return r < 0 ? r : loop->ep;
    const int fd = OL_SYS_TIMERFD();
    if (fd < 0) return ol__fail_errno(errno);
    if (ol__register_own(loop->ep, fd, OL__TIMER_EVENT) < 0) {
        const int number = errno;
        OL_SYS_CLOSE(fd);
        return ol__fail_errno(number);
    }
    loop->timerfd = fd;
    loop->armed = OL_NEVER;
    if (!loop->inside) ol__arm(loop);
    return loop->ep;
}

OL_API int ol_loop_step(ol_loop *loop, int64_t timeout_ns) {
    if (!loop) return ol__fail(OL__E_NULL);
    if (loop->inside) return ol__fail(OL__E_RUNNING);
    if (loop->guest_part) return ol__fail(OL__E_GATE_ENTERED);
    const int r = ol__after_fork(loop);
    if (r < 0) return r;
    if (loop->timerfd >= 0) (void)OL_SYS_XCHG(&loop->notify.sleeping, 0u, OL_SYS_ACQUIRE);
    loop->inside = 1;
    loop->stats.turns++;
    ol__refresh(loop);
    ol__flush(loop); /* what was submitted between the rounds */
    const int n = ol__wait(loop, timeout_ns);
    for (int i = 0; i < n; i++) ol__event(loop, &loop->event[i]);
    ol__run_posts(loop);
    ol__reap(loop);
    ol__run_timers(loop);
    ol__run_ready(loop);
    ol__flush(loop);
    if (loop->timerfd >= 0 && loop->forks == ol__forks) ol__arm(loop); /* else the timerfd is the parent's */
    loop->inside = 0;
    return n < 0 ? ol__fail_errno(-n) : ol__alive(loop);
}

OL_API int ol_loop_run(ol_loop *loop) {
    int r = 1;
    if (!loop) return ol__fail(OL__E_NULL);
    if (loop->inside) return ol__fail(OL__E_RUNNING);
    while (!loop->stop && ol__alive(loop) && r > 0) r = ol_loop_step(loop, -1);
    loop->stop = 0;
    return r < 0 ? r : 0;
}

OL_API void ol_loop_stop(ol_loop *loop) { loop->stop = 1; }

/* Every living root holds a partition or waits for one. */
static void ol__cancel_all(ol_loop *loop) {
    for (uint32_t i = 0; i < loop->used_parts; i++) {
        const ol__part *part = &loop->part[i];
        if (part->holder && (part->holder & OL__KIND) == OL__CO) ol_cancel(ol__item_to_co(part->holder));
        for (ol__item item = part->waiting.head; item; item = ol__item_next(item))
            if ((item & OL__KIND) == OL__CO && ol__waits(ol__item_to_co(item)) == OL__W_PART)
                ol__item_to_co(item)->frame.bits |= OL__CO_CANCELED; /* who joins is found where it lives */
        for (ol_op *op = part->ops, *next; op; op = next) {
            next = op->next_in_part_;
            if (!(op->flags_ & OL__OP_AWAITED)) ol__op_stop(loop, op, OL__OP_CANCEL);
        }
    }
}

OL_API int ol_loop_drain(ol_loop *loop, int64_t timeout_ns) {
    int r = 1;
    if (!loop) return ol__fail(OL__E_NULL);
    if (loop->inside) return ol__fail(OL__E_RUNNING);
    const int64_t end = ol__after(ol__refresh(loop), timeout_ns > 0 ? timeout_ns : 0);
    loop->draining = 1;
    ol__cancel_all(loop);
    while ((loop->stats.roots || loop->ops) && r >= 0) {
        if (ol__refresh(loop) >= end) break;
        r = ol_loop_step(loop, end - loop->now);
    }
    loop->draining = 0;
    if (r < 0) return r;
    return loop->stats.roots || loop->ops ? ol__fail(OL__E_DRAIN) : 0;
}

static void ol__timers_forget(ol__queue *q) {
    for (ol__item i = ol__pop(q); i; i = ol__pop(q))
        if ((i & OL__KIND) == OL__TIMER) ((ol_timer *)ol__item_to(i))->part_ = 0;
}

static void ol__posts_drop(ol_loop *loop) { /* nobody posts any more */
    void *next = OL_SYS_LOAD(&loop->posts, OL_SYS_RELAXED);
    while (next != OL__LIST_END) {
        ol_post_node *node = (ol_post_node *)next;
        next = OL_SYS_LOAD(&node->next, OL_SYS_RELAXED);
        OL_SYS_STORE(&node->next, NULL, OL_SYS_RELAXED);
    }
}

static void ol__loop_free(ol_loop *loop) {
    ol__posts_drop(loop);
    while (loop->heap_n) ol__heap_remove(loop, loop->heap_n); /* the application's timers can be started elsewhere, */
    for (int cls = OL_LATENCY; cls <= OL_BATCH; cls++) ol__timers_forget(&loop->ready[cls]); /* those due, too */
    for (uint32_t i = 1; i < loop->used_parts; i++) ol__timers_forget(&loop->part[i].waiting);
    for (uint32_t fd = 0; fd < loop->slots; fd++)
        if (loop->slot[fd].flags & (OL__OPEN | OL__CLOSING)) OL_SYS_CLOSE((int)fd);
    for (uint32_t i = 1; i < loop->lanes; i++) loop->lane[i].backend->close(loop->lane[i].channel.self);
    if (loop->uses_default_pool) ol__shared_put();
    if (loop->ep >= 0) OL_SYS_CLOSE(loop->ep);
    if (loop->notify.eventfd >= 0) OL_SYS_CLOSE(loop->notify.eventfd);
    if (loop->eventfd_before >= 0) OL_SYS_CLOSE(loop->eventfd_before);
    if (loop->timerfd >= 0) OL_SYS_CLOSE(loop->timerfd);
    ol_exec_destroy(loop->exec);
    for (int i = 0; i < 2; i++) ol_exec_destroy(loop->slicer[i].exec);
    OL_SYS_FREE(loop->cell);
    OL_SYS_FREE(loop->times);
    OL_SYS_FREE(loop->slot);
    OL_SYS_FREE(loop->part);
    OL_SYS_FREE(loop->heap);
    OL_SYS_FREE(loop->event);
    OL_SYS_FREE(loop->seen);
    OL_SYS_FREE(loop);
}

OL_API int ol_loop_destroy(ol_loop *loop) {
    if (!loop) return 0;
    if (loop->inside) return ol__fail(OL__E_RUNNING);
    if (loop->stats.roots) return ol__fail(OL__E_ALIVE);
    if (loop->guest_part) return ol__fail(OL__E_GATE_ENTERED);
    int r = ol__after_fork(loop);
    if (r < 0) return r;
    for (uint32_t fd = 0; fd < loop->slots; fd++)
        if (loop->slot[fd].flags & OL__OPEN) ol__handler_drop(loop, &loop->slot[fd]);
    ol__cancel_all(loop);
    loop->draining = 1;
    for (int last = 0; r >= 0 && !last;) { /* posts are called that are there when the last operation is complete */
        last = !loop->ops && !loop->posts_held;
        r = ol_loop_step(loop, last ? 0 : OL__RETRY_NS);
        if (r >= 0 && loop->stats.roots) r = ol__fail(OL__E_ALIVE); /* a callback started one */
        if (loop->ops || loop->posts_held) last = 0;
    }
    loop->draining = 0;
    if (r < 0) return r;
    ol__loop_free(loop);
    return 0;
}

static int ol__desc_resolve(ol_loop_desc *d) {
    if (d->canary_ || d->nbackends > OL__LANES - 2 || (d->nbackends && !d->backends) || d->no_pool > 1 ||
        d->events > 4096 || d->turn > 1 << 20 || d->latency_run > 1 << 20 || d->budget > 1 << 20 ||
        d->dequeue_batch > 1 << 20 || d->park_max > 1 << 30 || d->slice_ns < 0 || d->stall_ns < 0 || d->spin_ns < 0 ||
        d->sync_ns < 0 || d->poll_ns < 0)
        return ol__fail(OL__E_DESC);
    if (!d->events) d->events = 256;
    if (!d->turn) d->turn = 64;
    if (!d->latency_run) d->latency_run = 8;
    if (!d->budget) d->budget = 64;
    if (!d->park_max) d->park_max = 4096;
    if (!d->dequeue_batch) d->dequeue_batch = 16;
    if (!d->sample) d->sample = 64;
    if (!d->slice_ns) d->slice_ns = 20000;
    if (!d->stall_ns) d->stall_ns = 5000000;
    if (!d->sync_ns) d->sync_ns = 100000;
    if (!d->poll_ns) d->poll_ns = 1000;
    return 0;
}

static int ol__lane_open(ol_loop *loop, ol_backend *b) {
    ol__lane *lane = &loop->lane[loop->lanes]; /* there is room: the desc was checked */
    if (!b || b->version != OL_BACKEND_VERSION || !b->name || !b->name[0] || strlen(b->name) > 15 || !b->open ||
        !b->submit || !b->poll || !b->look || !b->close || strcmp(b->name, "software") == 0 ||
        strcmp(b->name, "-") == 0 || ol__lane_named(loop, b->name) != OL__LANES)
        return ol__fail(OL__E_BACKEND_DESC);
    lane->backend = b;
    const int r = b->open(b->self, &loop->notify, &lane->channel);
    if (r < 0) return b->open == ol__pool_open ? r : ol__fail_errno(-r);
    ol__channel_check(&lane->channel);
    lane->forks = ol__forks;
    lane->share = 1;
    loop->lanes++;
    return 0;
}

static int ol__lanes_open(ol_loop *loop) {
    int r = 0;
    loop->lanes = 1;
    for (uint32_t i = 0; i < loop->desc.nbackends && !r; i++) r = ol__lane_open(loop, loop->desc.backends[i]);
    if (r || loop->desc.no_pool || ol__lane_named(loop, "threads") != OL__LANES) return r;
    ol_backend *pool = NULL;
    r = ol__shared_get(&pool);
    if (r) return r;
    loop->uses_default_pool = 1;
    return ol__lane_open(loop, pool);
}

static int ol__loop_init(ol_loop *loop) {
    static OL_SYS_ATOMIC(uint32_t) loops;
    ol_policy policy;
    /* handles of one loop are rarely those of another, so that a mistake shows */
    loop->gen_seed = (OL_SYS_ADD(&loops, 1u, OL_SYS_RELAXED) * 0x9e3779b1u >> 1 & 0x3fffffff) | 1;
    loop->notify.eventfd = loop->eventfd_before = loop->timerfd = -1;
    loop->used_parts = 1;
    loop->posts = OL__LIST_END;
    loop->ep = OL_SYS_EPOLL_CREATE();
    if (loop->ep < 0 || (loop->notify.eventfd = OL_SYS_EVENTFD()) < 0) return ol__fail_errno(errno);
    if (ol__register_own(loop->ep, loop->notify.eventfd, OL__WAKE_EVENT) < 0) return ol__fail_errno(errno);
    const int number = ol__watch_forks();
    if (number) return ol__fail_errno(number);
    loop->forks = ol__forks;
    loop->part = (ol__part *)ol__grow(NULL, &loop->parts, 1, sizeof *loop->part);
    loop->event = (struct epoll_event *)OL_SYS_MALLOC(loop->desc.events * sizeof *loop->event);
    loop->exec = ol_exec_create();
    loop->cell = (ol__cell(*)[2][OL__BUCKETS])ol__zalloc((OL__KINDS - 1) * sizeof *loop->cell);
    loop->times = (ol_histogram(*)[2][OL_TIME_LAG])ol__zalloc((OL__KINDS - 1) * sizeof *loop->times);
    if (!loop->part || !loop->event || !loop->exec || !loop->cell || !loop->times) return ol__fail(OL__E_NO_MEMORY);
    for (uint32_t i = 0; i < 255; i++) loop->sample[i].next = (uint8_t)(i + 1);
    int r = ol__lanes_open(loop);
    if (!loop->desc.policy) loop->desc.policy = ol__lane_named(loop, "threads") == OL__LANES ? "" : "pool";
    if (!r) r = ol_policy_parse(loop->desc.policy, &policy, NULL, 0);
    if (!r) r = ol_loop_set_policy(loop, &policy);
    loop->polled = ol__refresh(loop);
    return r;
}

OL_API int ol_loop_create(ol_loop **out, const ol_loop_desc *desc) {
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    if (!out) return ol__fail(OL__E_DESC);
    *out = NULL;
    int r = ol__desc_resolve(&d);
    if (r) return r;
    ol_loop *loop = (ol_loop *)ol__zalloc(sizeof *loop);
    if (!loop) return ol__fail(OL__E_NO_MEMORY);
    loop->desc = d;
    r = ol__loop_init(loop);
    if (r) {
        ol__loop_free(loop);
        return r;
    }
    *out = loop;
    return 0;
}

OL_API const ol_loop_desc *ol_loop_desc_of(const ol_loop *loop) { return &loop->desc; }

OL_API void ol_loop_get_stats(const ol_loop *loop, ol_loop_stats *stats) {
    const uint32_t size = stats->size < sizeof *stats ? stats->size : (uint32_t)sizeof *stats;
    ol_loop_stats s = loop->stats;
    s.size = size;
    s.ops = loop->ops;
    memcpy(stats, &s, size);
}

#endif /* OFFLOAD_IMPLEMENTATION */

/*
MIT License

Copyright (c) 2026 the offload.h authors

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
*/
