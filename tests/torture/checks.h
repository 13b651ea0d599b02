/* checks.h: what the scenarios check with, and what several of them need.

   A scenario runs with a fault and without. CHECK holds always. WORKS holds when nothing, or nothing that it may
   notice, fails. A result that is negative must have a text, and a cause: the fault, or what follows from it. */
#ifndef CHECKS_H
#define CHECKS_H

#include <netinet/in.h>
#include "offload.h"
#include "torture.h"

#define MS 1000000ll

#define CHECK(condition) ((condition) ? (void)0 : fail("%s:%d: %s does not hold", __FILE__, __LINE__, #condition))
#define WORKS(condition)                                                                                               \
    ((condition) || !strict() ? (void)0 : fail("%s:%d: %s does not hold", __FILE__, __LINE__, #condition))

/* The result of a call that sets ol_error; `may`: an errno with which it may fail without a fault, too. */
#define EITHER(a, b) ((a) | (b) << 16) /* for `may` */
#define API(call) API_OR(call, NONE)
#define API_OR(call, may) (before_call(), after_call(__FILE__, __LINE__, #call, (call), (may)))

/* The result of an await, which must be the last of this coroutine. */
#define RESULT(co, r) RESULT_OR(co, r, NONE)
#define RESULT_OR(co, r, may) await_result(__FILE__, __LINE__, (co), (r), (may))

/* The result of a completed operation. */
#define OP_RESULT(op) OP_RESULT_OR(op, NONE)
#define OP_RESULT_OR(op, may) op_result(__FILE__, __LINE__, (op), (may))

__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);
int strict(void);
int exact(
    void); /* not even a harmless fault, which may lead to other results: an operation may run elsewhere, or at once */
void before_call(void);
int64_t after_call(const char *file, int line, const char *call, int64_t r, int may);
int64_t await_result(const char *file, int line, const ol_co *co, int64_t r, int may);
int64_t op_result(const char *file, int line, const ol_op *op, int may);

/* Between a scenario's runs: that it left nothing behind. */
void check_begin(void);
void check_end(void);

/* A loop, or NULL if a fault kept it from being made. */
ol_loop *loop_new(const ol_loop_desc *desc);
/* Steps until nothing is left to do, in a bounded number of rounds. */
void loop_work(ol_loop *loop);
/* loop_work, or a drain of what can't end by itself, then the loop's end, which must work. */
void loop_end(ol_loop *loop);
void loop_drain_end(ol_loop *loop);
void loop_destroy(ol_loop *loop);
/* In the child of a fork, before anything else. A loop there makes new descriptors at its first use, which a fault may
   keep it from doing: then its calls give errors until the fault is over, and must work after that. */
void forked(void);

/* A pool with a depth and one worker that never spins, or NULL. */
ol_backend *pool_new(uint32_t workers, uint32_t depth);
void pool_end(ol_backend *pool);

/* A backend of the scenarios' own, "device": it runs an operation when it is polled for it. */
typedef struct device {
    ol_backend backend;
    uint32_t depth;
    int slow;  /* it completes nothing until this is 0 again */
    int stops; /* it lets cancels through */
    int open, held;
    ol_op *op[16];
    ol_exec *exec;
    ol_notify *notify;
} device;
device *device_new(device *d, uint32_t depth);

/* Accepted operations, each of which must complete once. */
typedef struct job {
    ol_op op;
    int accepted, completed;
    int64_t seen; /* the result, in the callback form */
} job;
void job_done(ol_loop *loop, ol_op *op); /* `done` of a job's operation */
int job_submit(ol_loop *loop, job *j);   /* API(ol_submit(...)), counted */
int job_submit_or(ol_loop *loop, job *j, int may);
int64_t count_call(void *arg); /* an operation: adds 1 to the int that arg points to; its new value */

/* Addresses that only this process uses: its own number in 127.0.0.0/8, so that what other runs left in TIME_WAIT is
   in nobody's way; a Unix socket without a file. */
socklen_t tcp_address(struct sockaddr_storage *to);
socklen_t unix_address(struct sockaddr_storage *to);
/* The address that a listener has got. */
socklen_t address_of(const ol_loop *loop, ol_fd listener, struct sockaddr_storage *to);

#endif
