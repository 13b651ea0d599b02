/* library.c: offload.h, whose calls go to the injector.

   The calls are replaced, not the macros of the seam that make them: so what those macros do around a call is the
   shipped code, too, the fallback of epoll_pwait2 and the two steps of making an fd non-blocking among it. All system
   headers come first, so that only the library's own text is affected. run.sh looks into the object file: whatever it
   still calls directly must be known to do nothing that can fail. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#if defined(OFFLOAD_ISAL)
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#endif
#include "calls.h"

/* Members and variables of these names are renamed, too, throughout this file, which does no harm. */
#define malloc torture_malloc
#define realloc torture_realloc
#define free torture_free
#define epoll_create1 torture_epoll_create1
#define epoll_ctl torture_epoll_ctl
#define epoll_wait torture_epoll_wait
#define eventfd torture_eventfd
#define timerfd_create torture_timerfd_create
#define timerfd_settime torture_timerfd_settime
#define read torture_read
#define readv torture_readv
#define write torture_write
#define writev torture_writev
#define send torture_send
#define sendmsg torture_sendmsg
#define accept4 torture_accept4
#define connect torture_connect
#define socket torture_socket
#define bind torture_bind
#define listen torture_listen
#define shutdown torture_shutdown
#define close torture_close
#define getsockopt torture_getsockopt
#define setsockopt torture_setsockopt
#define fcntl torture_fcntl
#define fstat torture_fstat
#define fstatat torture_fstatat
#define pread torture_pread
#define preadv2 torture_preadv2
#define openat torture_openat
#define syscall torture_syscall
#define pthread_create torture_pthread_create
#define pthread_join torture_pthread_join
#define pthread_atfork torture_pthread_atfork
#define nanosleep torture_nanosleep
#define sched_getaffinity torture_sched_getaffinity
#define pthread_setschedparam torture_pthread_setschedparam

#define OFFLOAD_IMPLEMENTATION
#include "offload.h"
