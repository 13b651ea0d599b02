/* The use side alone: the public half with nothing before it, and the sizes that the manual promises. C and C++. */
#include "offload.h"

#if defined(__cplusplus)
#define CHECK(name, x) static_assert(x, #name)
#else
#define CHECK(name, x) _Static_assert(x, #name)
#endif

CHECK(frame_24, sizeof(ol_frame) <= 24);
CHECK(co_64, sizeof(ol_co) <= 64);
CHECK(op_128, sizeof(ol_op) <= 128);
CHECK(stream_24, sizeof(ol_stream) == 24);
CHECK(fd_is_a_value, sizeof(ol_fd) == 8);
CHECK(root_frame_is_first, offsetof(ol_co, frame) == 0);

struct job {
    ol_co co;
    ol_frame sub;
    ol_op op;
    int64_t n;
    char buf[16];
};

static void inner(ol_co *co) {
    struct job *j = OL_SELF(co, struct job, sub);
    OL_BEGIN(co);
    OL_YIELD();
    if (j->n < 0) OL_RETURN(j->n);
    OL_END(co);
}

void outer(ol_co *co);
void outer(ol_co *co) {
    struct job *j = OL_SELF(co, struct job, co);
    OL_BEGIN(co);
    OL_CALL(j->n, &j->sub, inner);
    OL_DO(ol_sleep(co, 1000));
    while (j->n >= 0) {
        OL_AWAIT(j->n, ol_run(co, ol_prep_crc32(&j->op, 0, j->buf, sizeof j->buf)));
    }
    OL_END_THEN(co, j->n = 0);
}

/* The members that a desc has must be reachable after zeroing, whatever the language. */
int describe(ol_loop_desc *loop, ol_threads_desc *threads, ol_policy *policy);
int describe(ol_loop_desc *loop, ol_threads_desc *threads, ol_policy *policy) {
    loop->policy = "pool";
    threads->workers = 1;
    return ol_policy_parse("pool", policy, NULL, 0);
}
