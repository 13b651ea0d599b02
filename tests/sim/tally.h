/* tally.h: how often each thing occurred, and in what share of the seeds. Part of sim.c.

   A generator that never gets somewhere tests nothing there, so each row must occur in a share of the seeds that the
   run is told to ask for. To count something new, add a row to ROWS and call COUNT(ROW); calls of the library count
   themselves, once they are in CALLS and have their macro below. */
#ifndef SIM_TALLY_H
#define SIM_TALLY_H

#if defined(OFFLOAD_ISAL)
#define HAS_CODEC 1
#else
#define HAS_CODEC 0
#endif

/* Row, sort, name, and whether it has to occur. Rows that are reached by number stand in that number's order. */
#define ROWS(X)                                                                                                        \
    X(ROOT, "roots", "acceptor", 1)                                                                                    \
    X(ROOT_CONN, "roots", "connection", 1)                                                                             \
    X(ROOT_CLIENT, "roots", "client", 1)                                                                               \
    X(ROOT_EXTRA, "roots", "extra", 1)                                                                                 \
    X(ROOT_PUMP, "roots", "pump end", 1)                                                                               \
    X(ROOT_SHARER, "roots", "sharer", 1)                                                                               \
    X(ROOT_PROXY, "roots", "proxy", 1)                                                                                 \
    X(ROOT_RELIEF, "roots", "relief of a handler", 1)                                                                  \
    X(ROOT_CHILD, "roots", "child", 1)                                                                                 \
    X(WITHHELD, "roots", "waited for its partition", 1)                                                                \
    X(HANDED_OVER, "roots", "handed over to another", 1)                                                               \
    X(WENT_ON, "roots", "went on after a cancel or a deadline", 1)                                                     \
    X(MESSAGES, "streams", "request", 1)                                                                               \
    X(REPLIES, "streams", "answer", 1)                                                                                 \
    X(COMPLETE, "streams", "complete", 1)                                                                              \
    X(BROKEN, "streams", "broken on purpose", 1)                                                                       \
    X(REFUSED, "streams", "refused", 1)                                                                                \
    X(CLOSES, "streams", "close", 1)                                                                                   \
    X(OP, "operations", "call", 1)                                                                                     \
    X(OP_CRC32, "operations", "crc32", 1)                                                                              \
    X(OP_DEFLATE, "operations", "deflate", HAS_CODEC)                                                                  \
    X(OP_INFLATE, "operations", "inflate", HAS_CODEC)                                                                  \
    X(OP_FILE, "operations", "file", 1)                                                                                \
    X(OP_CALLBACK, "operations", "callback form", 1)                                                                   \
    X(OP_SOFTWARE, "operations", "mode software", 1)                                                                   \
    X(OP_SLICED, "operations", "mode sliced", 1)                                                                       \
    X(OP_SYNC, "operations", "mode sync", 1)                                                                           \
    X(OP_ASYNC, "operations", "mode async", 1)                                                                         \
    X(AT_SOFTWARE, "operations", "on the spot", 1)                                                                     \
    X(AT_DEV0, "operations", "on dev0", 1)                                                                             \
    X(AT_DEV1, "operations", "on dev1", 1)                                                                             \
    X(AT_THREADS, "operations", "on threads", 1)                                                                       \
    X(WHY, "operations", "why: not run", 0)                                                                            \
    X(WHY_RULE, "operations", "why: rule", 1)                                                                          \
    X(WHY_FULL, "operations", "why: full", 1)                                                                          \
    X(WHY_PARKED, "operations", "why: parked", 1)                                                                      \
    X(WHY_UNSUPPORTED, "operations", "why: unsupported", 1)                                                            \
    X(WHY_FAILED, "operations", "why: failed", 1)                                                                      \
    X(WHY_CACHE, "operations", "why: cache", 1)                                                                        \
    X(WHY_SYNC_BOUND, "operations", "why: sync bound", 1)                                                              \
    X(WHY_STOPPED, "operations", "why: stopped", 1)                                                                    \
    X(WHY_MEASURED, "operations", "why: measured", 1)                                                                  \
    X(WHY_PROBE, "operations", "why: probe", 1)                                                                        \
    X(WHY_STALLED, "operations", "why: stalled", 1)                                                                    \
    X(OP_STEPS, "operations", "call in steps", 1)                                                                      \
    X(SERVICE_TOLD, "operations", "device told its time", 1)                                                           \
    X(SLICED_MANY, "sliced", "in several slices", 1)                                                                   \
    X(SLICE_LINE, "sliced", "waited for others", 1)                                                                    \
    X(SLICE_LINE_FULL, "sliced", "refused, too many wait", 1)                                                          \
    X(SLICED_STOPPED, "sliced", "stopped between slices", 1)                                                           \
    X(SLICED_STOPPED_IN_LINE, "sliced", "stopped in line", 1)                                                          \
    X(AUTO_HERE, "auto", "on the spot", 1)                                                                             \
    X(AUTO_SLICED, "auto", "sliced", 1)                                                                                \
    X(AUTO_SYNC, "auto", "sync", 1)                                                                                    \
    X(AUTO_ASYNC, "auto", "async", 1)                                                                                  \
    X(AUTO_QUIET, "auto", "measured, and nobody else waits", 1)                                                        \
    X(AUTO_TRIED, "auto", "a stalled backend tried", 1)                                                                \
    X(AUTO_LONG, "auto", "... avoided 16 times in a row", 1)                                                           \
    X(ONE_QUEUE_FULL, "devices", "one queue full", 1)                                                                  \
    X(RESERVE_USED, "devices", "reserve used", 1)                                                                      \
    X(DEV_ENDED_BY_CANCEL, "devices", "only a cancel ended it", 1)                                                     \
    X(DEV_ASLEEP, "devices", "asleep", 1)                                                                              \
    X(DEV_IN_SLOW, "devices", "slow phase", 1)                                                                         \
    X(DEV_IN_FAST, "devices", "fast phase", 1)                                                                         \
    X(DEV_IN_FULL, "devices", "full phase", 1)                                                                         \
    X(TIMES_ALL, "figures", "times of every operation", 1)                                                             \
    X(DUMPED, "figures", "dump", 1)                                                                                    \
    X(POLICY_PRINTED, "figures", "policy printed", 1)                                                                  \
    X(POOL_STATS, "figures", "of the pool", 1)                                                                         \
    X(OP_CANCELED, "operation ends", "ECANCELED", 1)                                                                   \
    X(OP_TIMEOUT, "operation ends", "ETIMEDOUT", 1)                                                                    \
    X(OP_REFUSED, "operation ends", "EAGAIN", 1)                                                                       \
    X(OP_FAULT, "operation ends", "EIO", 1)                                                                            \
    X(OP_NO_FD, "operation ends", "EMFILE", 1)                                                                         \
    X(OP_NO_CODEC, "operation ends", "ENOTSUP", !HAS_CODEC)                                                            \
    X(OP_BUSY, "operation ends", "EBUSY, in flight", 1)                                                                \
    X(YIELD, "awaits", "OL_YIELD", 1)                                                                                  \
    X(AW_CANCELED, "await ends", "ECANCELED", 1)                                                                       \
    X(AW_TIMED_OUT, "await ends", "ETIMEDOUT", 1)                                                                      \
    X(AW_OVERDUE, "await ends", "ETIMEDOUT, as it was due before", 1)                                                  \
    X(AW_BADF, "await ends", "EBADF", 1)                                                                               \
    X(AW_XDEV, "await ends", "EXDEV", 1)                                                                               \
    X(AW_NOMEM, "await ends", "ENOMEM", 1)                                                                             \
    X(AW_EMFILE, "await ends", "EMFILE, ENFILE", 1)                                                                    \
    X(AW_RESET, "await ends", "ECONNRESET, EPIPE", 1)                                                                  \
    X(TIMER_FIRED, "callbacks", "timer", 1)                                                                            \
    X(POST_RUN, "callbacks", "post", 1)                                                                                \
    X(POST_BUSY, "callbacks", "post of a queued node", 1)                                                              \
    X(POST_THREAD, "callbacks", "post by a thread", 1)                                                                 \
    X(DONE_CALLED, "callbacks", "done", 1)                                                                             \
    X(BAD_POLICY, "callbacks", "bad policy refused", 1)                                                                \
    X(LOGGED, "callbacks", "log", 1)                                                                                   \
    X(FORKED, "endings", "the process forked", 1)                                                                      \
    X(FORK_FAILED, "endings", "a loop had no descriptors for that", 0)                                                 \
    X(OP_FORKED, "operation ends", "ECANCELED by a fork", 1)                                                           \
    X(ENDED_ITSELF, "endings", "by itself", 1)                                                                         \
    X(ENDED_DRAINED, "endings", "drained", 1)                                                                          \
    X(ENDED_LATE, "endings", "drained at the second attempt", 1)                                                       \
    X(POOL_STOPPED, "pool", "cancel in the ring", 1)                                                                   \
    X(POOL_TOO_LATE, "pool", "cancel too late", 1)                                                                     \
    X(POOL_FULL, "pool", "full", 1)                                                                                    \
    X(POOL_REFUSED, "pool", "refused for lack of threads", 1)                                                          \
    X(POOL_CALLS_FULL, "pool", "all but one of several busy with calls", 1)                                            \
    X(POOL_AFTER_FORK, "pool", "used after a fork", 1)                                                                 \
    X(VISITOR, "pool", "a loop that comes and goes", 1)                                                                \
    X(STALE, "kernel", "stale event dropped", 1)                                                                       \
    X(JOINED, "sharing", "partitions joined", 1)                                                                       \
    X(JOIN_DONE, "sharing", "join", 1)                                                                                 \
    X(TRY_JOINED, "sharing", "try_join", 1)                                                                            \
    X(JOIN_BUSY, "sharing", "try_join EBUSY", 1)                                                                       \
    X(LOCKED, "sharing", "lock", 1)                                                                                    \
    X(DEADLOCKS, "sharing", "EDEADLK", 1)                                                                              \
    X(WAITED, "sharing", "wait for a child", 1)                                                                        \
    X(WAITED_ALL, "sharing", "wait for all", 1)                                                                        \
    X(AW_BUSY, "sharing", "second reader EBUSY", 1)                                                                    \
    X(PROXIED, "sharing", "proxy joined", 1)                                                                           \
    X(FLOW_COMPLETE, "sharing", "flow complete", 1)                                                                    \
    X(FLOW_BROKEN, "sharing", "flow broken on purpose", 1)                                                             \
    X(HANDLED, "handlers", "called", 1)                                                                                \
    X(SESSION_ECHO, "handlers", "echo", 1)                                                                             \
    X(SESSION_PROXY, "handlers", "proxy side", 1)                                                                      \
    X(REPLACED, "handlers", "replaced", 1)                                                                             \
    X(RELIEVED, "handlers", "relieved", 1)                                                                             \
    X(TRY_READ, "handlers", "read", 1)                                                                                 \
    X(TRY_WRITTEN, "handlers", "write", 1)                                                                             \
    X(TRY_FOREIGN, "handlers", "foreign fd refused", 1)                                                                \
    X(TRY_ACCEPTED, "handlers", "accept", 1)                                                                           \
    X(TRY_FULL, "handlers", "accept without a free fd", 1)                                                             \
    X(GATED, "handlers", "gated timer or post", 1)                                                                     \
    X(STOPPED_IN_LINE, "handlers", "gated timer stopped in line", 1)                                                   \
    X(GUEST, "guests", "loop is a guest", 1)                                                                           \
    X(SESSION_GUEST, "guests", "guest's connection", 1)                                                                \
    X(LET_IN, "guests", "event let in", 1)                                                                             \
    X(WITHHELD_GUEST, "guests", "event withheld", 1)

/* The library's functions. run.sh compares the list with offload.h. */
#define CALLS(X)                                                                                                       \
    X(ol_join, "awaits")                                                                                               \
    X(ol_lock, "awaits")                                                                                               \
    X(ol_wait, "awaits")                                                                                               \
    X(ol_fork, "calls")                                                                                                \
    X(ol_try_join, "calls")                                                                                            \
    X(ol_unlock, "calls")                                                                                              \
    X(ol_watch, "calls")                                                                                               \
    X(ol_unwatch, "calls")                                                                                             \
    X(ol_try_read, "calls")                                                                                            \
    X(ol_try_readv, "calls")                                                                                           \
    X(ol_try_write, "calls")                                                                                           \
    X(ol_try_writev, "calls")                                                                                          \
    X(ol_try_accept, "calls")                                                                                          \
    X(ol_loop_fd, "calls")                                                                                             \
    X(ol_attach_guest, "calls")                                                                                        \
    X(ol_gate_enter, "calls")                                                                                          \
    X(ol_gate_leave, "calls")                                                                                          \
    X(ol_read, "awaits")                                                                                               \
    X(ol_readv, "awaits")                                                                                              \
    X(ol_write, "awaits")                                                                                              \
    X(ol_writev, "awaits")                                                                                             \
    X(ol_accept, "awaits")                                                                                             \
    X(ol_connect, "awaits")                                                                                            \
    X(ol_wait_readable, "awaits")                                                                                      \
    X(ol_wait_writable, "awaits")                                                                                      \
    X(ol_sleep, "awaits")                                                                                              \
    X(ol_run, "awaits")                                                                                                \
    X(ol_open, "awaits")                                                                                               \
    X(ol_stat, "awaits")                                                                                               \
    X(ol_pread, "awaits")                                                                                              \
    X(ol__call, "awaits")                                                                                              \
    X(ol_spawn, "calls")                                                                                               \
    X(ol_cancel, "calls")                                                                                              \
    X(ol_cancel_clear, "calls")                                                                                        \
    X(ol_canceled, "calls")                                                                                            \
    X(ol_set_class, "calls")                                                                                           \
    X(ol_deadline, "calls")                                                                                            \
    X(ol_loop_create, "calls")                                                                                         \
    X(ol_loop_destroy, "calls")                                                                                        \
    X(ol_loop_run, "calls")                                                                                            \
    X(ol_loop_step, "calls")                                                                                           \
    X(ol_loop_stop, "calls")                                                                                           \
    X(ol_loop_drain, "calls")                                                                                          \
    X(ol_loop_desc_of, "calls")                                                                                        \
    X(ol_loop_get_stats, "calls")                                                                                      \
    X(ol_loop_set_policy, "calls")                                                                                     \
    X(ol_loop_get_policy, "calls")                                                                                     \
    X(ol_now, "calls")                                                                                                 \
    X(ol_post, "calls")                                                                                                \
    X(ol_notify_loop, "calls")                                                                                         \
    X(ol_timer_start, "calls")                                                                                         \
    X(ol_timer_stop, "calls")                                                                                          \
    X(ol_attach, "calls")                                                                                              \
    X(ol_listen, "calls")                                                                                              \
    X(ol_socket, "calls")                                                                                              \
    X(ol_fd_raw, "calls")                                                                                              \
    X(ol_close, "calls")                                                                                               \
    X(ol_again, "calls")                                                                                               \
    X(ol_prep_deflate, "calls")                                                                                        \
    X(ol_prep_deflate_chunk, "calls")                                                                                  \
    X(ol_prep_inflate, "calls")                                                                                        \
    X(ol_prep_inflate_chunk, "calls")                                                                                  \
    X(ol_prep_crc32, "calls")                                                                                          \
    X(ol_prep_call, "calls")                                                                                           \
    X(ol_deflate_bound, "calls")                                                                                       \
    X(ol_submit, "calls")                                                                                              \
    X(ol_op_cancel, "calls")                                                                                           \
    X(ol_op_where, "calls")                                                                                            \
    X(ol_op_why, "calls")                                                                                              \
    X(ol_exec_create, "calls")                                                                                         \
    X(ol_exec_destroy, "calls")                                                                                        \
    X(ol_op_exec, "calls")                                                                                             \
    X(ol_policy_parse, "calls")                                                                                        \
    X(ol_threads_create, "calls")                                                                                      \
    X(ol_threads_destroy, "calls")                                                                                     \
    X(ol_prep_steps, "calls")                                                                                          \
    X(ol_policy_print, "calls")                                                                                        \
    X(ol_loop_get_cell, "calls")                                                                                       \
    X(ol_loop_get_times, "calls")                                                                                      \
    X(ol_loop_dump, "calls")                                                                                           \
    X(ol_histogram_add, "calls")                                                                                       \
    X(ol_histogram_at, "calls")                                                                                        \
    X(ol_threads_get_stats, "calls")                                                                                   \
    X(ol_error, "calls")                                                                                               \
    X(ol_co_error, "calls")                                                                                            \
    X(ol_op_error, "calls")                                                                                            \
    X(ol_version, "calls")                                                                                             \
    X(ol_set_panic, "calls")

enum {
#define X(row, sort, name, needed) T_##row,
    ROWS(X)
#undef X
#define X(name, sort) C_##name,
        CALLS(X)
#undef X
#define X(member, sort, name) K_##member,
            K_STATS(X)
#undef X
                ROWS_N
};

static const struct row {
    const char *sort, *name;
    int needed;
} rows[ROWS_N] = {
#define X(row, sort, name, needed) {sort, name, needed},
    ROWS(X)
#undef X
#define X(name, sort) {sort, #name, 1},
        CALLS(X)
#undef X
#define X(member, sort, name) {sort, name, 1},
            K_STATS(X)
#undef X
};

static uint64_t counted[ROWS_N]; /* in this seed */

#define COUNT(row) ((void)counted[T_##row]++)
#define COUNT_AT(row, offset) ((void)counted[T_##row + (offset)]++)
#define COUNT_IF(row, condition) ((void)(counted[T_##row] += (condition) ? 1u : 0u))

/* From here on each call of the library counts itself. */
#define ol_join(...) (counted[C_ol_join]++, ol_join(__VA_ARGS__))
#define ol_lock(...) (counted[C_ol_lock]++, ol_lock(__VA_ARGS__))
#define ol_wait(...) (counted[C_ol_wait]++, ol_wait(__VA_ARGS__))
#define ol_fork(...) (counted[C_ol_fork]++, ol_fork(__VA_ARGS__))
#define ol_try_join(...) (counted[C_ol_try_join]++, ol_try_join(__VA_ARGS__))
#define ol_unlock(...) (counted[C_ol_unlock]++, ol_unlock(__VA_ARGS__))
#define ol_watch(...) (counted[C_ol_watch]++, ol_watch(__VA_ARGS__))
#define ol_unwatch(...) (counted[C_ol_unwatch]++, ol_unwatch(__VA_ARGS__))
#define ol_try_read(...) (counted[C_ol_try_read]++, ol_try_read(__VA_ARGS__))
#define ol_try_readv(...) (counted[C_ol_try_readv]++, ol_try_readv(__VA_ARGS__))
#define ol_try_write(...) (counted[C_ol_try_write]++, ol_try_write(__VA_ARGS__))
#define ol_try_writev(...) (counted[C_ol_try_writev]++, ol_try_writev(__VA_ARGS__))
#define ol_try_accept(...) (counted[C_ol_try_accept]++, ol_try_accept(__VA_ARGS__))
#define ol_loop_fd(...) (counted[C_ol_loop_fd]++, ol_loop_fd(__VA_ARGS__))
#define ol_attach_guest(...) (counted[C_ol_attach_guest]++, ol_attach_guest(__VA_ARGS__))
#define ol_gate_enter(...) (counted[C_ol_gate_enter]++, ol_gate_enter(__VA_ARGS__))
#define ol_gate_leave(...) (counted[C_ol_gate_leave]++, ol_gate_leave(__VA_ARGS__))
#define ol_read(...) (counted[C_ol_read]++, ol_read(__VA_ARGS__))
#define ol_readv(...) (counted[C_ol_readv]++, ol_readv(__VA_ARGS__))
#define ol_write(...) (counted[C_ol_write]++, ol_write(__VA_ARGS__))
#define ol_writev(...) (counted[C_ol_writev]++, ol_writev(__VA_ARGS__))
#define ol_accept(...) (counted[C_ol_accept]++, ol_accept(__VA_ARGS__))
#define ol_connect(...) (counted[C_ol_connect]++, ol_connect(__VA_ARGS__))
#define ol_wait_readable(...) (counted[C_ol_wait_readable]++, ol_wait_readable(__VA_ARGS__))
#define ol_wait_writable(...) (counted[C_ol_wait_writable]++, ol_wait_writable(__VA_ARGS__))
#define ol_sleep(...) (counted[C_ol_sleep]++, ol_sleep(__VA_ARGS__))
#define ol_run(...) (counted[C_ol_run]++, ol_run(__VA_ARGS__))
#define ol_open(...) (counted[C_ol_open]++, ol_open(__VA_ARGS__))
#define ol_stat(...) (counted[C_ol_stat]++, ol_stat(__VA_ARGS__))
#define ol_pread(...) (counted[C_ol_pread]++, ol_pread(__VA_ARGS__))
#define ol__call(...) (counted[C_ol__call]++, ol__call(__VA_ARGS__))
#define ol_spawn(...) (counted[C_ol_spawn]++, ol_spawn(__VA_ARGS__))
#define ol_cancel(...) (counted[C_ol_cancel]++, ol_cancel(__VA_ARGS__))
#define ol_cancel_clear(...) (counted[C_ol_cancel_clear]++, ol_cancel_clear(__VA_ARGS__))
#define ol_canceled(...) (counted[C_ol_canceled]++, ol_canceled(__VA_ARGS__))
#define ol_set_class(...) (counted[C_ol_set_class]++, ol_set_class(__VA_ARGS__))
#define ol_deadline(...) (counted[C_ol_deadline]++, ol_deadline(__VA_ARGS__))
#define ol_loop_create(...) (counted[C_ol_loop_create]++, ol_loop_create(__VA_ARGS__))
#define ol_loop_destroy(...) (counted[C_ol_loop_destroy]++, ol_loop_destroy(__VA_ARGS__))
#define ol_loop_run(...) (counted[C_ol_loop_run]++, ol_loop_run(__VA_ARGS__))
#define ol_loop_step(...) (counted[C_ol_loop_step]++, ol_loop_step(__VA_ARGS__))
#define ol_loop_stop(...) (counted[C_ol_loop_stop]++, ol_loop_stop(__VA_ARGS__))
#define ol_loop_drain(...) (counted[C_ol_loop_drain]++, ol_loop_drain(__VA_ARGS__))
#define ol_loop_desc_of(...) (counted[C_ol_loop_desc_of]++, ol_loop_desc_of(__VA_ARGS__))
#define ol_loop_get_stats(...) (counted[C_ol_loop_get_stats]++, ol_loop_get_stats(__VA_ARGS__))
#define ol_loop_set_policy(...) (counted[C_ol_loop_set_policy]++, ol_loop_set_policy(__VA_ARGS__))
#define ol_loop_get_policy(...) (counted[C_ol_loop_get_policy]++, ol_loop_get_policy(__VA_ARGS__))
#define ol_now(...) (counted[C_ol_now]++, ol_now(__VA_ARGS__))
#define ol_post(...) (counted[C_ol_post]++, ol_post(__VA_ARGS__))
#define ol_notify_loop(...) (counted[C_ol_notify_loop]++, ol_notify_loop(__VA_ARGS__))
#define ol_timer_start(...) (counted[C_ol_timer_start]++, ol_timer_start(__VA_ARGS__))
#define ol_timer_stop(...) (counted[C_ol_timer_stop]++, ol_timer_stop(__VA_ARGS__))
#define ol_attach(...) (counted[C_ol_attach]++, ol_attach(__VA_ARGS__))
#define ol_listen(...) (counted[C_ol_listen]++, ol_listen(__VA_ARGS__))
#define ol_socket(...) (counted[C_ol_socket]++, ol_socket(__VA_ARGS__))
#define ol_fd_raw(...) (counted[C_ol_fd_raw]++, ol_fd_raw(__VA_ARGS__))
#define ol_close(...) (counted[C_ol_close]++, ol_close(__VA_ARGS__))
#define ol_again(...) (counted[C_ol_again]++, ol_again(__VA_ARGS__))
#define ol_prep_deflate(...) (counted[C_ol_prep_deflate]++, ol_prep_deflate(__VA_ARGS__))
#define ol_prep_deflate_chunk(...) (counted[C_ol_prep_deflate_chunk]++, ol_prep_deflate_chunk(__VA_ARGS__))
#define ol_prep_inflate(...) (counted[C_ol_prep_inflate]++, ol_prep_inflate(__VA_ARGS__))
#define ol_prep_inflate_chunk(...) (counted[C_ol_prep_inflate_chunk]++, ol_prep_inflate_chunk(__VA_ARGS__))
#define ol_prep_crc32(...) (counted[C_ol_prep_crc32]++, ol_prep_crc32(__VA_ARGS__))
#define ol_prep_call(...) (counted[C_ol_prep_call]++, ol_prep_call(__VA_ARGS__))
#define ol_deflate_bound(...) (counted[C_ol_deflate_bound]++, ol_deflate_bound(__VA_ARGS__))
#define ol_submit(...) (counted[C_ol_submit]++, ol_submit(__VA_ARGS__))
#define ol_op_cancel(...) (counted[C_ol_op_cancel]++, ol_op_cancel(__VA_ARGS__))
#define ol_op_where(...) (counted[C_ol_op_where]++, ol_op_where(__VA_ARGS__))
#define ol_op_why(...) (counted[C_ol_op_why]++, ol_op_why(__VA_ARGS__))
#define ol_exec_create(...) (counted[C_ol_exec_create]++, ol_exec_create(__VA_ARGS__))
#define ol_exec_destroy(...) (counted[C_ol_exec_destroy]++, ol_exec_destroy(__VA_ARGS__))
#define ol_op_exec(...) (counted[C_ol_op_exec]++, ol_op_exec(__VA_ARGS__))
#define ol_policy_parse(...) (counted[C_ol_policy_parse]++, ol_policy_parse(__VA_ARGS__))
#define ol_threads_create(...) (counted[C_ol_threads_create]++, ol_threads_create(__VA_ARGS__))
#define ol_threads_destroy(...) (counted[C_ol_threads_destroy]++, ol_threads_destroy(__VA_ARGS__))
#define ol_prep_steps(...) (counted[C_ol_prep_steps]++, ol_prep_steps(__VA_ARGS__))
#define ol_policy_print(...) (counted[C_ol_policy_print]++, ol_policy_print(__VA_ARGS__))
#define ol_loop_get_cell(...) (counted[C_ol_loop_get_cell]++, ol_loop_get_cell(__VA_ARGS__))
#define ol_loop_get_times(...) (counted[C_ol_loop_get_times]++, ol_loop_get_times(__VA_ARGS__))
#define ol_loop_dump(...) (counted[C_ol_loop_dump]++, ol_loop_dump(__VA_ARGS__))
#define ol_histogram_add(...) (counted[C_ol_histogram_add]++, ol_histogram_add(__VA_ARGS__))
#define ol_histogram_at(...) (counted[C_ol_histogram_at]++, ol_histogram_at(__VA_ARGS__))
#define ol_threads_get_stats(...) (counted[C_ol_threads_get_stats]++, ol_threads_get_stats(__VA_ARGS__))
#define ol_error(...) (counted[C_ol_error]++, ol_error(__VA_ARGS__))
#define ol_co_error(...) (counted[C_ol_co_error]++, ol_co_error(__VA_ARGS__))
#define ol_op_error(...) (counted[C_ol_op_error]++, ol_op_error(__VA_ARGS__))
#define ol_version(...) (counted[C_ol_version]++, ol_version(__VA_ARGS__))
#define ol_set_panic(...) (counted[C_ol_set_panic]++, ol_set_panic(__VA_ARGS__))

/* ---------------------------------------------------------------------------------------------------------------- */
/* Of all seeds                                                                                                     */

typedef struct tally {
    uint64_t total[ROWS_N], seeds[ROWS_N]; /* how often, and in how many seeds */
    uint64_t passed, failed, events, turns, virtual_ns, hash;
} tally;

static void tally_add(tally *to, const tally *t) {
    int i;
    for (i = 0; i < ROWS_N; i++) to->total[i] += t->total[i], to->seeds[i] += t->seeds[i];
    to->passed += t->passed;
    to->failed += t->failed;
    to->events += t->events;
    to->turns += t->turns;
    to->virtual_ns += t->virtual_ns;
    to->hash += t->hash;
}

/* A seed has ended: its counts go into t. */
static void tally_seed(tally *t, uint64_t turns) {
    int i;
#define X(member, sort, name) counted[K_##member] = sim.stats.member;
    K_STATS(X)
#undef X
    for (i = 0; i < ROWS_N; i++) t->total[i] += counted[i], t->seeds[i] += counted[i] > 0;
    t->events += sim.nevents;
    t->turns += turns;
    t->virtual_ns += (uint64_t)(sim.now - 1000000000);
}

static double tally_share(const tally *t, int row) {
    const uint64_t runs = t->passed + t->failed;
    return runs ? 100.0 * (double)t->seeds[row] / (double)runs : 0;
}

/* Each sort on lines of its own: name, how often, in what share of the seeds. */
static void tally_print(const tally *t) {
    unsigned char shown[ROWS_N];
    int i, j, column;
    memset(shown, 0, sizeof shown);
    for (i = 0; i < ROWS_N; i++) {
        if (shown[i]) continue;
        column = printf("  %-14s", rows[i].sort);
        for (j = i; j < ROWS_N; j++) {
            char text[100];
            int n;
            if (strcmp(rows[j].sort, rows[i].sort) != 0) continue;
            shown[j] = 1;
            n = snprintf(text, sizeof text, " %s %llu (%.1f%%);", rows[j].name, (unsigned long long)t->total[j],
                         tally_share(t, j));
            if (column + n > 120) column = printf("\n%16s", "") - 1;
            column += printf("%s", text);
        }
        printf("\n");
    }
}

/* Rows that occur in less than `percent` of the seeds; how many there are. */
static int tally_rare(const tally *t, double percent) {
    int i, n = 0;
    for (i = 0; i < ROWS_N; i++) {
        if (!rows[i].needed || tally_share(t, i) >= percent) continue;
        printf("not ok: %s: %s occurs in %.2f%% of the seeds; %.1f%% are asked for\n", rows[i].sort, rows[i].name,
               tally_share(t, i), percent);
        n++;
    }
    return n;
}
static int tally_needed(void) {
    int i, n = 0;
    for (i = 0; i < ROWS_N; i++) n += rows[i].needed;
    return n;
}

#endif
