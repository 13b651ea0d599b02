/* msan.h: the seam's epoll for MemorySanitizer, which can't see what the kernel writes through a bare syscall(), and
   knows epoll_wait. Included before a program of the real kernel: clang -fsanitize=memory -include tests/sanitizers/msan.h */
#include <limits.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int msan_epoll_wait(int ep, struct epoll_event *events, int n, long long timeout_ns) {
    long long ms = timeout_ns > 0 ? (timeout_ns + 999999) / 1000000 : timeout_ns;
    return epoll_wait(ep, events, n, ms > INT_MAX ? INT_MAX : (int)ms);
}
#define OL_SYS_EPOLL_CREATE() epoll_create1(EPOLL_CLOEXEC)
#define OL_SYS_EPOLL_CTL(ep, op, fd, event) epoll_ctl((ep), (op), (fd), (event))
#define OL_SYS_EPOLL_WAIT(ep, events, n, timeout_ns) msan_epoll_wait((ep), (events), (n), (timeout_ns))
#define OL_SYS_EVENTFD() eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
