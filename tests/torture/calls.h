/* calls.h: the calls that library.c makes instead of those without the prefix. */
#ifndef CALLS_H
#define CALLS_H

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

void *torture_malloc(size_t n);
void *torture_realloc(void *old, size_t n);
void torture_free(void *p);
int torture_epoll_create1(int flags);
int torture_epoll_ctl(int ep, int op, int fd, struct epoll_event *event);
int torture_epoll_wait(int ep, struct epoll_event *events, int n, int timeout);
int torture_eventfd(unsigned initial, int flags);
int torture_timerfd_create(int clock, int flags);
int torture_timerfd_settime(int fd, int flags, const struct itimerspec *new, struct itimerspec *old);
ssize_t torture_read(int fd, void *buf, size_t n);
ssize_t torture_readv(int fd, const struct iovec *iov, int n);
ssize_t torture_write(int fd, const void *buf, size_t n);
ssize_t torture_writev(int fd, const struct iovec *iov, int n);
ssize_t torture_send(int fd, const void *buf, size_t n, int flags);
ssize_t torture_sendmsg(int fd, const struct msghdr *m, int flags);
int torture_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int torture_connect(int fd, const struct sockaddr *addr, socklen_t len);
int torture_socket(int domain, int type, int protocol);
int torture_bind(int fd, const struct sockaddr *addr, socklen_t len);
int torture_listen(int fd, int backlog);
int torture_shutdown(int fd, int how);
int torture_close(int fd);
int torture_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int torture_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int torture_fcntl(int fd, int command, ...);
int torture_fstat(int fd, struct stat *st);
int torture_fstatat(int dir, const char *path, struct stat *st, int flags);
ssize_t torture_pread(int fd, void *buf, size_t n, off_t offset);
ssize_t torture_preadv2(int fd, const struct iovec *iov, int n, off_t offset, int flags);
int torture_openat(int dir, const char *path, int flags, ...);
long torture_syscall(long number, ...);
int torture_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int torture_pthread_join(pthread_t thread, void **result);
int torture_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int torture_nanosleep(const struct timespec *t, struct timespec *left);
int torture_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set);
int torture_pthread_setschedparam(pthread_t thread, int policy, const struct sched_param *p);

#endif
