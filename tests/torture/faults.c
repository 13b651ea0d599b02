/* faults.c: every call that the library makes, counted, and failing when its turn has come.

   What is modelled is a kernel that fails, not one that lies:
     - A call that fails has not happened, except where Linux does both: close(2) closes and reports EINTR or EIO, a
       connection that accept(2) reports as aborted is gone, a connect(2) that a signal interrupts goes on.
     - Under edge-triggered epoll, EAGAIN of an fd that is ready, or a part of what was asked for, promises an edge when
       the rest can be had. So one is provoked, by EPOLL_CTL_MOD with the registration's own events and data: the kernel
       looks at the fd again and reports what it finds. After a short read this is done for TCP only, where it means that
       there was no more; of other sockets and of pipes it promises nothing, and no edge is given.
     - EINTR, EAGAIN and a connection that is gone mean "again": in the mode `on` they come BURST times in a row, then
       the call works. All others last.
     - No call fails in a way that its manual page does not name: FUTEX_WAKE, timerfd_settime and pthread_mutex_lock
       don't fail at all with valid arguments; a write to an eventfd is only ever interrupted. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <linux/futex.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include "torture.h"
#include "calls.h"

#define CALL_NAME(id, name) name,
const char *const call_names[CALL_COUNT] = {CALLS(CALL_NAME)};
#undef CALL_NAME

/* One call's errors stand together. */
/* clang-format off */
#define F(call, number, flags)                                                                                         \
    { (call), #number, (number), (flags) }
#define AGAIN(call, number)                                                                                            \
    { (call), #number, (number), HARMLESS | RETRY }
#define LATER(call) F(call, EAGAIN, HARMLESS | RETRY | EDGE)
const struct fault faults[] = {
    F(C_ALLOC, ENOMEM, 0),
    /* epoll_create(2), epoll_ctl(2), epoll_wait(2): ENOSYS is Linux before 5.11, EPERM a filter of calls */
    F(C_EPOLL_CREATE, EMFILE, 0), F(C_EPOLL_CREATE, ENFILE, 0), F(C_EPOLL_CREATE, ENOMEM, 0),
    F(C_EPOLL_CTL, ENOMEM, 0), F(C_EPOLL_CTL, ENOSPC, 0), F(C_EPOLL_CTL, EPERM, 0),
    AGAIN(C_EPOLL_WAIT, EINTR),
    AGAIN(C_EPOLL_PWAIT2, EINTR), F(C_EPOLL_PWAIT2, ENOSYS, HARMLESS), F(C_EPOLL_PWAIT2, EPERM, HARMLESS),
    /* eventfd(2), timerfd_create(2) */
    F(C_EVENTFD, EMFILE, 0), F(C_EVENTFD, ENFILE, 0), F(C_EVENTFD, ENODEV, 0), F(C_EVENTFD, ENOMEM, 0),
    F(C_TIMERFD, EMFILE, 0), F(C_TIMERFD, ENFILE, 0), F(C_TIMERFD, ENODEV, 0), F(C_TIMERFD, ENOMEM, 0),
    AGAIN(C_NOTIFY, EINTR),
    /* read(2), recv(2), tcp(7) */
    AGAIN(C_READ, EINTR), LATER(C_READ), F(C_READ, EIO, 0), F(C_READ, SHORT, HARMLESS),
    AGAIN(C_READV, EINTR), LATER(C_READV), F(C_READV, EIO, 0), F(C_READV, SHORT, HARMLESS),
    AGAIN(C_RECV, EINTR), LATER(C_RECV), F(C_RECV, ECONNRESET, 0), F(C_RECV, ETIMEDOUT, 0), F(C_RECV, ENOMEM, 0),
    F(C_RECV, SHORT, HARMLESS | EDGE),
    AGAIN(C_RECVV, EINTR), LATER(C_RECVV), F(C_RECVV, ECONNRESET, 0), F(C_RECVV, ENOMEM, 0),
    F(C_RECVV, SHORT, HARMLESS | EDGE),
    /* write(2), send(2) */
    AGAIN(C_WRITE, EINTR), LATER(C_WRITE), F(C_WRITE, EPIPE, 0), F(C_WRITE, EIO, 0), F(C_WRITE, SHORT, HARMLESS | EDGE),
    AGAIN(C_WRITEV, EINTR), LATER(C_WRITEV), F(C_WRITEV, EPIPE, 0), F(C_WRITEV, SHORT, HARMLESS | EDGE),
    AGAIN(C_SEND, EINTR), LATER(C_SEND), F(C_SEND, EPIPE, 0), F(C_SEND, ECONNRESET, 0), F(C_SEND, ENOBUFS, 0),
    F(C_SEND, ENOMEM, 0), F(C_SEND, SHORT, HARMLESS | EDGE),
    AGAIN(C_SENDMSG, EINTR), LATER(C_SENDMSG), F(C_SENDMSG, EPIPE, 0), F(C_SENDMSG, ECONNRESET, 0),
    F(C_SENDMSG, ENOBUFS, 0), F(C_SENDMSG, SHORT, HARMLESS | EDGE),
    /* accept(2): errors of the new connection take it with them */
    AGAIN(C_ACCEPT, EINTR), LATER(C_ACCEPT), F(C_ACCEPT, EMFILE, 0), F(C_ACCEPT, ENFILE, 0), F(C_ACCEPT, ENOBUFS, 0),
    F(C_ACCEPT, ENOMEM, 0), F(C_ACCEPT, EPERM, 0), F(C_ACCEPT, ECONNABORTED, RETRY | DONE),
    F(C_ACCEPT, EPROTO, RETRY | DONE), F(C_ACCEPT, EHOSTUNREACH, RETRY | DONE), F(C_ACCEPT, EOPNOTSUPP, RETRY | DONE),
    /* connect(2), socket(2), bind(2), listen(2), unix(7) */
    F(C_CONNECT, EINTR, HARMLESS | RETRY | DONE), F(C_CONNECT, ECONNREFUSED, 0), F(C_CONNECT, ENETUNREACH, 0),
    F(C_CONNECT, ETIMEDOUT, 0), F(C_CONNECT, EADDRNOTAVAIL, 0), F(C_CONNECT, EACCES, 0), F(C_CONNECT, EAGAIN, 0),
    F(C_SOCKET, EMFILE, 0), F(C_SOCKET, ENFILE, 0), F(C_SOCKET, ENOBUFS, 0), F(C_SOCKET, ENOMEM, 0),
    F(C_SOCKET, EACCES, 0), F(C_SOCKET, EAFNOSUPPORT, 0),
    F(C_BIND, EADDRINUSE, 0), F(C_BIND, EACCES, 0), F(C_BIND, EADDRNOTAVAIL, 0), F(C_BIND, ENOMEM, 0),
    F(C_LISTEN, EADDRINUSE, 0),
    F(C_SHUTDOWN, ENOTCONN, HARMLESS),
    F(C_CLOSE, EINTR, HARMLESS | DONE), F(C_CLOSE, EIO, HARMLESS | DONE),
    /* getsockopt(2), setsockopt(2); ENOBUFS and ENOMEM are POSIX's */
    F(C_GETSOCKOPT, ENOPROTOOPT, 0), F(C_GETSOCKOPT, ENOBUFS, 0),
    F(C_SO_ERROR, ECONNREFUSED, 0), F(C_SO_ERROR, EHOSTUNREACH, 0), F(C_SO_ERROR, ETIMEDOUT, 0),
    F(C_SETSOCKOPT, ENOPROTOOPT, 0), F(C_SETSOCKOPT, ENOMEM, 0),
    /* fcntl(2) does not fail for these commands: EPERM stands for a filter of calls */
    F(C_FCNTL, EPERM, 0),
    /* stat(2), open(2), openat2(2), pread(2), readv(2); ENOSYS is Linux before 5.6, EINVAL before 5.12 */
    F(C_FSTAT, ENOMEM, 0), F(C_FSTAT, EOVERFLOW, 0),
    F(C_FSTATAT, ENOENT, 0), F(C_FSTATAT, EACCES, 0), F(C_FSTATAT, ENOMEM, 0), F(C_FSTATAT, ELOOP, 0),
    AGAIN(C_PREAD, EINTR), F(C_PREAD, EIO, 0), F(C_PREAD, SHORT, HARMLESS),
    AGAIN(C_PREADV2, EINTR), F(C_PREADV2, EAGAIN, HARMLESS), F(C_PREADV2, EOPNOTSUPP, HARMLESS),
    F(C_PREADV2, ENOSYS, HARMLESS), F(C_PREADV2, EIO, 0), F(C_PREADV2, SHORT, HARMLESS), F(C_PREADV2, ZERO, HARMLESS),
    AGAIN(C_OPENAT, EINTR), F(C_OPENAT, EMFILE, 0), F(C_OPENAT, ENFILE, 0), F(C_OPENAT, ENOMEM, 0),
    F(C_OPENAT, EACCES, 0), F(C_OPENAT, EIO, 0),
    AGAIN(C_OPENAT2, EINTR), AGAIN(C_OPENAT2, EAGAIN), F(C_OPENAT2, ENOSYS, 0), F(C_OPENAT2, EINVAL, 0),
    F(C_OPENAT2, EPERM, 0), F(C_OPENAT2, EMFILE, 0), F(C_OPENAT2, ENOMEM, 0), F(C_OPENAT2, EACCES, 0),
    /* pthread_create(3), futex(2), pthread_atfork(3), nanosleep(2), sched_setaffinity(2): more CPUs than the set holds,
       sched(7) */
    F(C_THREAD, EAGAIN, HARMLESS),
    AGAIN(C_FUTEX_WAIT, EINTR), AGAIN(C_FUTEX_WAIT, EAGAIN),
    F(C_ATFORK, ENOMEM, 0),
    F(C_NAP, EINTR, HARMLESS),
    F(C_AFFINITY, EINVAL, HARMLESS),
    F(C_SCHED, EPERM, HARMLESS),
    /* a backend, by its contract: offload.h, >>backend */
    F(C_DEV_OPEN, ENOMEM, 0), F(C_DEV_OPEN, EIO, 0),
    F(C_DEV_SUBMIT, EIO, HARMLESS), F(C_DEV_SUBMIT, SHORT, HARMLESS), F(C_DEV_SUBMIT, ZERO, HARMLESS | RETRY),
    F(C_DEV_RUN, EIO, 0), F(C_DEV_RUN, ENOMEM, 0),
    F(C_DEV_CANCEL, EBUSY, 0),
    F(C_DEV_FORKED, ENOMEM, 0), F(C_DEV_FORKED, EIO, 0),
};
/* clang-format on */
#undef LATER
#undef AGAIN
#undef F
const int nfaults = (int)(sizeof faults / sizeof *faults);

struct plan plan;
struct report *report;
__thread enum side this_side = SIDE_LOOP;

enum { BURST = 40, FDS = 1024 };
static struct registration {
    int ep; /* 0: none */
    struct epoll_event event;
} registered[FDS]; /* the loop thread's */
static int blocks, threads;

int blocks_alive(void) { return __atomic_load_n(&blocks, __ATOMIC_SEQ_CST); }
int threads_alive(void) { return __atomic_load_n(&threads, __ATOMIC_SEQ_CST); }

void threads_forked(void) { __atomic_store_n(&threads, 0, __ATOMIC_SEQ_CST); }

static void broken(const char *what, int fd) {
    snprintf(report->text, sizeof report->text, "%s, fd %d", what, fd);
    fprintf(stderr, "%s\n", report->text);
    PRINT_STACK();
    _exit(1);
}

static int strikes(const struct strike *s, enum call call, uint32_t i) {
    if (call != s->call || this_side != s->side || i < s->index) return 0;
    return i == s->index || (s->mode == ON && !((s->fault->flags & RETRY) && i >= s->index + BURST));
}

const struct fault *fault_of(enum call call) {
    const int saved = errno;
    const uint32_t i = __atomic_add_fetch(&report->calls[this_side][call], 1, __ATOMIC_SEQ_CST);
    for (int k = 0; plan.active && k < plan.n; k++) {
        const struct strike *s = &plan.strike[k];
        if (!strikes(s, call, i)) continue;
        __atomic_add_fetch(&report->reached, 1, __ATOMIC_SEQ_CST);
        if (plan.verbose) {
            fprintf(stderr, "%s call %u: %s\n", call_names[call], i, s->fault->name);
            PRINT_STACK();
        }
        errno = saved;
        return s->fault;
    }
    return NULL;
}

/* Has the kernel report what there is on an fd, as it would when the state that EAGAIN spoke of ends. */
static void provoke_edge(int fd) {
    if (this_side != SIDE_LOOP || fd >= FDS || !registered[fd].ep) return;
    (void)epoll_ctl(registered[fd].ep, EPOLL_CTL_MOD, fd, &registered[fd].event);
}

/* The fault that a call without partial success suffers; errno is set. 1: it fails, and must not happen. */
static int refused(enum call call) {
    const struct fault *f = fault_of(call);
    if (!f) return 0;
    errno = f->number;
    return 1;
}

/* ---- memory */

void *torture_malloc(size_t n) {
    if (refused(C_ALLOC)) return NULL;
    void *p = malloc(n);
    if (p) __atomic_add_fetch(&blocks, 1, __ATOMIC_SEQ_CST);
    return p;
}
void *torture_realloc(void *old, size_t n) {
    if (refused(C_ALLOC)) return NULL;
    void *p = realloc(old, n);
    if (p && !old) __atomic_add_fetch(&blocks, 1, __ATOMIC_SEQ_CST);
    return p;
}
void torture_free(void *p) {
    if (p) __atomic_sub_fetch(&blocks, 1, __ATOMIC_SEQ_CST);
    free(p);
}

/* ---- epoll */

int torture_epoll_create1(int flags) { return refused(C_EPOLL_CREATE) ? -1 : epoll_create1(flags); }
int torture_epoll_ctl(int ep, int op, int fd, struct epoll_event *event) {
    if (refused(C_EPOLL_CTL)) return -1;
    const int r = epoll_ctl(ep, op, fd, event);
    if (r == 0 && fd < FDS) {
        registered[fd].ep = op == EPOLL_CTL_DEL ? 0 : ep;
        if (op != EPOLL_CTL_DEL) registered[fd].event = *event;
    }
    return r;
}
int torture_epoll_wait(int ep, struct epoll_event *events, int n, int timeout) {
    return refused(C_EPOLL_WAIT) ? -1 : epoll_wait(ep, events, n, timeout);
}
int torture_eventfd(unsigned initial, int flags) { return refused(C_EVENTFD) ? -1 : eventfd(initial, flags); }
int torture_timerfd_create(int clock, int flags) { return refused(C_TIMERFD) ? -1 : timerfd_create(clock, flags); }
int torture_timerfd_settime(int fd, int flags, const struct itimerspec *new, struct itimerspec *old) {
    return refused(C_TIMERFD_SET) ? -1 : timerfd_settime(fd, flags, new, old);
}

/* ---- reading and writing */

enum { OTHER, SOCKET_FD, PIPE_FD };
static int type_of(int fd) {
    struct stat st;
    if (fstat(fd, &st) != 0) broken("a system call on an fd that is not open", fd);
    return S_ISSOCK(st.st_mode) ? SOCKET_FD : S_ISFIFO(st.st_mode) ? PIPE_FD : OTHER;
}

static int is_tcp(int fd) {
    int protocol = 0;
    socklen_t len = sizeof protocol;
    return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) == 0 && protocol == IPPROTO_TCP;
}

/* Cuts an array down to half of its bytes, into *cut, whose size is the caller's. 0 if there is no half. */
static int halve(const struct iovec *iov, int n, struct iovec *cut, int room) {
    size_t all = 0, left;
    int k = 0;
    for (int i = 0; i < n; i++) all += iov[i].iov_len;
    for (left = all / 2; left && k < n && k < room; k++) {
        cut[k] = iov[k];
        if (cut[k].iov_len > left) cut[k].iov_len = left;
        left -= cut[k].iov_len;
    }
    return k;
}

enum transfer { READS, WRITES };
typedef ssize_t mover(int fd, const struct iovec *iov, int n);

/* One call that moves bytes, whole, in part or not at all. */
static ssize_t moved(enum call call, enum transfer what, int fd, const struct iovec *iov, int n, mover *move) {
    const struct fault *f = fault_of(call);
    struct iovec cut[16];
    const int k = f && f->number == SHORT ? halve(iov, n, cut, 16) : 0;
    ssize_t r = -1;
    if (k) r = move(fd, cut, k);
    else if (!f || f->number == SHORT) r = move(fd, iov, n);
    const int number = r < 0 && f && f->number > 0 ? f->number : errno;
    if (f && (f->flags & EDGE) && (k == 0 || what == WRITES || is_tcp(fd))) provoke_edge(fd);
    errno = number;
    return r;
}

static ssize_t move_read(int fd, const struct iovec *iov, int n) {
    (void)n;
    return read(fd, iov->iov_base, iov->iov_len);
}
static ssize_t move_write(int fd, const struct iovec *iov, int n) {
    (void)n;
    return write(fd, iov->iov_base, iov->iov_len);
}
static ssize_t move_send(int fd, const struct iovec *iov, int n) {
    (void)n;
    return send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
}
static ssize_t move_sendmsg(int fd, const struct iovec *iov, int n) {
    struct msghdr m;
    memset(&m, 0, sizeof m);
    m.msg_iov = (struct iovec *)(uintptr_t)iov;
    m.msg_iovlen = (size_t)n;
    return sendmsg(fd, &m, MSG_NOSIGNAL);
}

ssize_t torture_read(int fd, void *buf, size_t n) {
    const struct iovec iov = {buf, n};
    const int type = type_of(fd);
    if (type == OTHER) return read(fd, buf, n); /* an eventfd or timerfd: the manual names no error that fits */
    return moved(type == SOCKET_FD ? C_RECV : C_READ, READS, fd, &iov, 1, move_read);
}
ssize_t torture_readv(int fd, const struct iovec *iov, int n) {
    return moved(type_of(fd) == SOCKET_FD ? C_RECVV : C_READV, READS, fd, iov, n, readv);
}
ssize_t torture_write(int fd, const void *buf, size_t n) {
    const struct iovec iov = {(void *)(uintptr_t)buf, n};
    return moved(type_of(fd) == OTHER ? C_NOTIFY : C_WRITE, WRITES, fd, &iov, 1, move_write);
}
ssize_t torture_writev(int fd, const struct iovec *iov, int n) {
    (void)type_of(fd);
    return moved(C_WRITEV, WRITES, fd, iov, n, writev);
}
ssize_t torture_send(int fd, const void *buf, size_t n, int flags) {
    const struct iovec iov = {(void *)(uintptr_t)buf, n};
    (void)type_of(fd);
    if (flags != MSG_NOSIGNAL) broken("send with other flags than MSG_NOSIGNAL", fd);
    return moved(C_SEND, WRITES, fd, &iov, 1, move_send);
}
ssize_t torture_sendmsg(int fd, const struct msghdr *m, int flags) {
    (void)type_of(fd);
    if (flags != MSG_NOSIGNAL) broken("sendmsg with other flags than MSG_NOSIGNAL", fd);
    return moved(C_SENDMSG, WRITES, fd, m->msg_iov, (int)m->msg_iovlen, move_sendmsg);
}

/* ---- sockets */

int torture_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags) {
    const struct fault *f = fault_of(C_ACCEPT);
    if (!f) return accept4(fd, addr, len, flags);
    if (f->flags & DONE) { /* a connection is gone; without one the call would have said EAGAIN */
        const int conn = accept4(fd, addr, len, flags);
        if (conn < 0) return conn;
        close(conn);
    }
    if (f->flags & EDGE) provoke_edge(fd);
    errno = f->number;
    return -1;
}
int torture_connect(int fd, const struct sockaddr *addr, socklen_t len) {
    const struct fault *f = fault_of(C_CONNECT);
    int r = -1;
    if (!f || (f->flags & DONE)) r = connect(fd, addr, len);
    if (!f) return r;
    if (!(f->flags & DONE) || (r < 0 && errno == EINPROGRESS)) {
        r = -1;
        errno = f->number;
    }
    return r;
}
int torture_socket(int domain, int type, int protocol) {
    return refused(C_SOCKET) ? -1 : socket(domain, type, protocol);
}
int torture_bind(int fd, const struct sockaddr *addr, socklen_t len) {
    return refused(C_BIND) ? -1 : bind(fd, addr, len);
}
int torture_listen(int fd, int backlog) { return refused(C_LISTEN) ? -1 : listen(fd, backlog); }
int torture_shutdown(int fd, int how) {
    (void)type_of(fd);
    return refused(C_SHUTDOWN) ? -1 : shutdown(fd, how);
}
int torture_close(int fd) {
    const struct fault *f = fault_of(C_CLOSE);
    if (fd >= 0 && fd < FDS && this_side == SIDE_LOOP) registered[fd].ep = 0;
    if (close(fd) != 0 && errno == EBADF) broken("close of an fd that is not open", fd);
    if (!f) return 0;
    errno = f->number;
    return -1;
}
int torture_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    const struct fault *f = fault_of(name == SO_ERROR ? C_SO_ERROR : C_GETSOCKOPT);
    if (f && name == SO_ERROR) {
        memcpy(value, &f->number, sizeof f->number);
        return 0;
    }
    if (!f) return getsockopt(fd, level, name, value, len);
    errno = type_of(fd) == SOCKET_FD ? f->number : ENOTSOCK; /* which the kernel looks at first */
    return -1;
}
int torture_setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
    return refused(C_SETSOCKOPT) ? -1 : setsockopt(fd, level, name, value, len);
}
int torture_fcntl(int fd, int command, ...) {
    va_list args;
    va_start(args, command);
    const int flags = command == F_SETFL ? va_arg(args, int) : 0;
    va_end(args);
    if (command != F_SETFL && command != F_GETFL) broken("fcntl with a command that the injector doesn't know", fd);
    if (refused(C_FCNTL)) return -1;
    return command == F_SETFL ? fcntl(fd, F_SETFL, flags) : fcntl(fd, F_GETFL);
}

/* ---- files */

int torture_fstat(int fd, struct stat *st) { return refused(C_FSTAT) ? -1 : fstat(fd, st); }
int torture_fstatat(int dir, const char *path, struct stat *st, int flags) {
    return refused(C_FSTATAT) ? -1 : fstatat(dir, path, st, flags);
}
ssize_t torture_pread(int fd, void *buf, size_t n, off_t offset) {
    const struct fault *f = fault_of(C_PREAD);
    if (f && f->number > 0) {
        errno = f->number;
        return -1;
    }
    return pread(fd, buf, f && n > 1 ? n / 2 : n, offset);
}
ssize_t torture_preadv2(int fd, const struct iovec *iov, int n, off_t offset, int flags) {
    const struct fault *f = fault_of(C_PREADV2);
    struct iovec cut[16];
    if (f && f->number > 0) {
        errno = f->number;
        return -1;
    }
    if (f && f->number == ZERO) return 0;
    const int k = f ? halve(iov, n, cut, 16) : 0;
    return k ? preadv2(fd, cut, k, offset, flags) : preadv2(fd, iov, n, offset, flags);
}
int torture_openat(int dir, const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    const mode_t mode = va_arg(args, mode_t);
    va_end(args);
    return refused(C_OPENAT) ? -1 : openat(dir, path, flags, mode);
}

/* ---- what has no function in the C library */

#if !defined(SYS_epoll_pwait2)
#define SYS_epoll_pwait2 441
#endif
#if !defined(SYS_openat2)
#define SYS_openat2 437
#endif

static long call_epoll_pwait2(va_list *args) {
    const int ep = va_arg(*args, int);
    struct epoll_event *events = va_arg(*args, struct epoll_event *);
    const int n = va_arg(*args, int);
    const struct timespec *timeout = va_arg(*args, const struct timespec *);
    return refused(C_EPOLL_PWAIT2) ? -1 : syscall(SYS_epoll_pwait2, ep, events, n, timeout, (void *)0, (size_t)0);
}
static long call_openat2(va_list *args) {
    const int dir = va_arg(*args, int);
    const char *path = va_arg(*args, const char *);
    const void *how = va_arg(*args, const void *);
    const size_t size = va_arg(*args, size_t);
    return refused(C_OPENAT2) ? -1 : syscall(SYS_openat2, dir, path, how, size);
}
static long call_futex(va_list *args) {
    uint32_t *word = va_arg(*args, uint32_t *);
    const int op = va_arg(*args, int);
    const uint32_t value = va_arg(*args, uint32_t);
    if ((op & FUTEX_CMD_MASK) == FUTEX_WAIT && refused(C_FUTEX_WAIT)) return -1;
    return syscall(SYS_futex, word, op, value, (void *)0, (void *)0, 0);
}
long torture_syscall(long number, ...) {
    va_list args;
    long r = -1;
    va_start(args, number);
    if (number == SYS_epoll_pwait2) r = call_epoll_pwait2(&args);
    else if (number == SYS_openat2) r = call_openat2(&args);
    else if (number == SYS_futex) r = call_futex(&args);
    else broken("a system call that the injector doesn't know: number instead of", (int)number);
    va_end(args);
    return r;
}

/* ---- threads */

struct start {
    void *(*fn)(void *);
    void *arg;
};
static void *run_thread(void *arg) {
    const struct start s = *(struct start *)arg;
    free(arg);
    this_side = SIDE_WORKER;
    return s.fn(s.arg);
}
int torture_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg) {
    const struct fault *f = fault_of(C_THREAD);
    if (f) return f->number;
    struct start *s = (struct start *)malloc(sizeof *s);
    if (!s) return EAGAIN;
    s->fn = fn;
    s->arg = arg;
    const int r = pthread_create(thread, attr, run_thread, s);
    if (r) free(s);
    threads += r == 0;
    return r;
}
int torture_pthread_join(pthread_t thread, void **result) {
    threads--;
    return pthread_join(thread, result);
}
int torture_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) {
    const struct fault *f = fault_of(C_ATFORK);
    return f ? f->number : pthread_atfork(prepare, parent, child);
}
int torture_nanosleep(const struct timespec *t, struct timespec *left) {
    return refused(C_NAP) ? -1 : nanosleep(t, left);
}
int torture_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set) {
    return refused(C_AFFINITY) ? -1 : sched_getaffinity(pid, size, set);
}
int torture_pthread_setschedparam(pthread_t thread, int policy, const struct sched_param *p) {
    const struct fault *f = fault_of(C_SCHED);
    return f ? f->number : pthread_setschedparam(thread, policy, p);
}
