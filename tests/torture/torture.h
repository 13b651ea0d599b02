/* torture.h: what the parts of the fault injector share. torture.c says what it is for.

   faults.c     the calls that the library makes, each of which can be made to fail, and the table of how
   library.c    offload.h, compiled so that it makes its calls there
   checks.c     what a scenario checks with
   torture.c    runs the scenarios once for each fault, each in a process of its own
   run_*.c      the scenarios */
#ifndef TORTURE_H
#define TORTURE_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN
#endif
#if defined(WITH_ASAN)
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#define PRINT_STACK() __sanitizer_print_stack_trace()
#define PRINT_LEAKS() (void)__lsan_do_recoverable_leak_check()
#else
#define PRINT_STACK() ((void)0)
#define PRINT_LEAKS() ((void)0)
#endif

/* ---------------------------------------------------------------------------------------------------------------- */
/* Faults                                                                                                           */

/* Calls that can fail: an enumerator and a name for the command line. A read tells sockets from the rest, because their
   errors differ; `so_error` is getsockopt(SO_ERROR), whose failure is the error that it reports. The last five are not
   the system's: they are a backend's own functions. */
#define CALLS(X)                                                                                                       \
    X(C_ALLOC, "alloc")                                                                                                \
    X(C_EPOLL_CREATE, "epoll_create")                                                                                  \
    X(C_EPOLL_CTL, "epoll_ctl")                                                                                        \
    X(C_EPOLL_WAIT, "epoll_wait")                                                                                      \
    X(C_EPOLL_PWAIT2, "epoll_pwait2")                                                                                  \
    X(C_EVENTFD, "eventfd")                                                                                            \
    X(C_TIMERFD, "timerfd_create")                                                                                     \
    X(C_TIMERFD_SET, "timerfd_settime")                                                                                \
    X(C_NOTIFY, "notify")                                                                                              \
    X(C_READ, "read")                                                                                                  \
    X(C_READV, "readv")                                                                                                \
    X(C_RECV, "read-socket")                                                                                           \
    X(C_RECVV, "readv-socket")                                                                                         \
    X(C_WRITE, "write")                                                                                                \
    X(C_WRITEV, "writev")                                                                                              \
    X(C_SEND, "send")                                                                                                  \
    X(C_SENDMSG, "sendmsg")                                                                                            \
    X(C_ACCEPT, "accept")                                                                                              \
    X(C_CONNECT, "connect")                                                                                            \
    X(C_SOCKET, "socket")                                                                                              \
    X(C_BIND, "bind")                                                                                                  \
    X(C_LISTEN, "listen")                                                                                              \
    X(C_SHUTDOWN, "shutdown")                                                                                          \
    X(C_CLOSE, "close")                                                                                                \
    X(C_GETSOCKOPT, "getsockopt")                                                                                      \
    X(C_SO_ERROR, "so_error")                                                                                          \
    X(C_SETSOCKOPT, "setsockopt")                                                                                      \
    X(C_FCNTL, "fcntl")                                                                                                \
    X(C_FSTAT, "fstat")                                                                                                \
    X(C_FSTATAT, "fstatat")                                                                                            \
    X(C_PREAD, "pread")                                                                                                \
    X(C_PREADV2, "preadv2")                                                                                            \
    X(C_OPENAT, "openat")                                                                                              \
    X(C_OPENAT2, "openat2")                                                                                            \
    X(C_THREAD, "thread_start")                                                                                        \
    X(C_FUTEX_WAIT, "futex_wait")                                                                                      \
    X(C_ATFORK, "pthread_atfork")                                                                                      \
    X(C_NAP, "nanosleep")                                                                                              \
    X(C_AFFINITY, "sched_getaffinity")                                                                                 \
    X(C_SCHED, "setschedparam")                                                                                        \
    X(C_DEV_OPEN, "device-open")                                                                                       \
    X(C_DEV_SUBMIT, "device-submit")                                                                                   \
    X(C_DEV_RUN, "device-run")                                                                                         \
    X(C_DEV_CANCEL, "device-cancel")                                                                                   \
    X(C_DEV_FORKED, "device-forked")

#define CALL_ENUM(id, name) id,
enum call { CALLS(CALL_ENUM) CALL_COUNT };
#undef CALL_ENUM
extern const char *const call_names[CALL_COUNT];

/* The thread that runs the loop, and all others, are counted apart, so that each index means the same in every run. */
enum side { SIDE_LOOP, SIDE_WORKER, SIDES };

enum { /* fault.number of what is no errno */
       NONE = 0,
       SHORT = -1, /* half of the bytes, or of the operations */
       ZERO = -2   /* no bytes, although there are some (readv(2), BUGS) */
};
enum {               /* fault.flags */
       HARMLESS = 1, /* the scenario must not notice it */
       RETRY = 2,    /* means "again": a real system says so a few times, not for ever */
       DONE = 4,     /* what was asked for happens nevertheless */
       EDGE = 8      /* an edge of epoll follows, without which it would be a lie */
};
struct fault {
    enum call call;
    const char *name;
    int number, flags;
};
extern const struct fault faults[];
extern const int nfaults;

enum mode { ONCE, ON, MODES }; /* the n-th call fails; it and all later ones do */

struct strike {
    enum side side;
    enum call call;
    uint32_t index; /* from 1 */
    const struct fault *fault;
    enum mode mode;
};
struct plan {            /* of a run */
    int active, verbose; /* verbose: print where it happens */
    int quiet;           /* a failure's stack would not be shown */
    int n;               /* faults: 0 none, 1, or 2 that have nothing to do with each other */
    struct strike strike[2];
};

enum { SECONDS = 20 }; /* for a run: what takes longer hangs */

struct report { /* shared by a run's process and the one that started it */
    uint32_t calls[SIDES][CALL_COUNT];
    uint32_t reached; /* how often the planned fault happened */
    char text[512];   /* what failed */
};

extern struct plan plan;
extern struct report *report;
extern __thread enum side this_side;

/* Counts a call of a backend's own function; the fault that it is to suffer, or NULL. */
const struct fault *fault_of(enum call call);

/* Blocks of memory and threads that the library has. */
int blocks_alive(void);
int threads_alive(void);
void threads_forked(void); /* in the child there are none */

/* ---------------------------------------------------------------------------------------------------------------- */
/* Scenarios                                                                                                        */

/* A directory with a file of so many bytes, the lowest of their offsets, and a FIFO; all runs read it. */
extern char files_directory[];
enum { FILE_BYTES = 300000 }; /* more than is read on the spot */

struct scenario {
    const char *name;
    void (*run)(void);
};
/* Each table ends with a name that is NULL. */
extern const struct scenario scenarios_loop[], scenarios_io[], scenarios_op[], scenarios_shared[], scenarios_guest[];

#endif
