/* policy.c: fuzz target: the text of a policy, and what the table that comes out does in a loop.

   cc -std=c11 -O1 -g -I. tests/fuzz/policy.c -o build/fuzz/policy -pthread

   Input: a byte that says how long the buffer for the error is (0: none), then the text.

   What is checked:
     - An error names a line that exists, and the right one: what stands before it parses, what ends with it doesn't.
     - An error leaves the result alone; its text is cut to the buffer and not a byte longer, and ol_error has it whole.
     - The same text gives the same table twice; a table written down again as text gives the same table.
     - A loop takes every table whose backends it has, refuses any other with a text that names the missing one, and
       then keeps the old one.
     - Operations go where the first rule that fits sends them, at the limits of the rules and next to them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"
#include "fuzz.h"

/* libFuzzer: -max_len=1200 */

enum { SLOTS = 16, GUARD = 16, ERROR_BYTES = 256 };

/* ---------------------------------------------------------------------------------------------------------------- */
/* a loop with two backends that do everything at once                                                              */

struct device {
    ol_op *op[SLOTS];
    int n;
};

static int device_open(void *self, ol_notify *notify, ol_channel *out) {
    (void)notify;
    memset(out, 0, sizeof *out);
    out->self = self;
    out->depth = SLOTS;
    return 0;
}
static int device_submit(void *channel, ol_op *const *ops, int n) {
    struct device *d = (struct device *)channel;
    int i = 0;
    for (; i < n && d->n < SLOTS; i++) {
        (void)ol_op_exec(NULL, ops[i]);
        d->op[d->n++] = ops[i];
    }
    return i;
}
static int device_poll(void *channel, ol_op **ops, int max) {
    struct device *d = (struct device *)channel;
    const int n = d->n < max ? d->n : max;
    memcpy(ops, d->op, (size_t)n * sizeof *ops);
    d->n -= n;
    memmove(d->op, d->op + n, (size_t)d->n * sizeof *ops);
    return n;
}
static int device_look(void *channel) { return ((struct device *)channel)->n; }
static void device_close(void *channel) { (void)channel; }

static struct device devices[2];
static const char *const names[2] = {"threads", "device"};

static ol_loop *make_loop(void) {
    static ol_backend backend[2];
    ol_backend *list[2];
    ol_loop_desc desc;
    ol_loop *loop = NULL;
    for (int i = 0; i < 2; i++) {
        memset(&backend[i], 0, sizeof backend[i]);
        backend[i].version = OL_BACKEND_VERSION;
        backend[i].kinds = 1u << OL_OP_CALL | 1u << OL_OP_CRC32 | 1u << OL_OP_DEFLATE | 1u << OL_OP_INFLATE;
        backend[i].name = names[i];
        backend[i].self = &devices[i];
        backend[i].open = device_open;
        backend[i].submit = device_submit;
        backend[i].poll = device_poll;
        backend[i].look = device_look;
        backend[i].close = device_close;
        list[i] = &backend[i];
    }
    memset(&desc, 0, sizeof desc);
    desc.backends = list;
    desc.nbackends = 2;
    desc.policy = "";
    if (ol_loop_create(&loop, &desc) != 0) {
        fprintf(stderr, "policy: can't create a loop: %s\n", ol_error());
        exit(2);
    }
    return loop;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* text to table                                                                                                    */

/* An error: `code`, in the line that the message names. */
static void check_line_of(const char *text, int code) {
    const char *digits = strstr(ol_error(), "line ");
    const long line = digits ? strtol(digits + 5, NULL, 10) : 0;
    const char *begin = text, *end;
    ol_policy policy;
    FUZZ_CHECK(line > 0, "the error names no line: %s", ol_error());
    for (long i = 1; i < line; i++) {
        begin = strchr(begin, '\n');
        FUZZ_CHECK(begin, "the error names line %ld, but there are only %ld", line, i);
        begin++;
    }
    end = strchrnul(begin, '\n');
    char *part = (char *)malloc((size_t)(end - text) + 2);
    if (!part) abort();
    memcpy(part, text, (size_t)(end - text));
    memcpy(part + (end - text), "\n", 2);
    const int with = ol_policy_parse(part, &policy, NULL, 0);
    digits = strstr(ol_error(), "line ");
    FUZZ_CHECK(with == code && digits && strtol(digits + 5, NULL, 10) == line, "not the line that is wrong");
    part[begin - text] = '\0';
    FUZZ_CHECK(ol_policy_parse(part, &policy, NULL, 0) == 0, "a line before %ld is wrong, too", line);
    free(part);
}

/* Parses as the application would; 0 or a negative errno, all promises about the result checked. */
static int parse(const char *text, size_t room, ol_policy *out) {
    char *err = (char *)malloc(room + GUARD), whole[ERROR_BYTES];
    ol_policy before;
    if (!err) abort();
    memset(err, FUZZ_FILL, room + GUARD);
    memset(out, FUZZ_FILL, sizeof *out);
    before = *out;
    const int r = ol_policy_parse(text, out, room ? err : NULL, room);
    for (size_t i = 0; i < GUARD; i++) FUZZ_CHECK((uint8_t)err[room + i] == FUZZ_FILL, "wrote past the error's buffer");
    if (r == 0) {
        FUZZ_CHECK(out->n <= OL_POLICY_RULES, "%u rules", out->n);
    } else {
        FUZZ_CHECK(r == -EINVAL, "result %d", r);
        FUZZ_CHECK(memcmp(out, &before, sizeof before) == 0, "an error has changed the result");
        snprintf(whole, sizeof whole, "%s", ol_error());
        FUZZ_CHECK(strlen(whole) > 10 && strlen(whole) < 128, "'%s'", whole);
        if (room) {
            FUZZ_CHECK(memchr(err, 0, room) && strncmp(err, whole, room - 1) == 0, "'%s' became '%s'", whole, err);
            FUZZ_CHECK(strlen(err) == (strlen(whole) < room ? strlen(whole) : room - 1), "cut too short: '%s'", err);
        }
        check_line_of(text, r);
    }
    free(err);
    return r;
}

/* The rules as text again, with what ol_policy_print promises of its buffer. */
static void write_down(const ol_policy *policy, char *to, size_t cap) {
    char cut[GUARD + 40];
    for (uint32_t i = 0; i < policy->n; i++) {
        const ol_rule *r = &policy->rule[i];
        FUZZ_CHECK(r->kind <= OL_OP_FILE && r->cls <= OL_BATCH && r->full <= OL_FULL_FAIL, "rule %u", i);
        FUZZ_CHECK(r->mode >= OL_SOFTWARE && r->mode <= OL_AUTO, "rule %u: mode %d", i, r->mode);
        FUZZ_CHECK(r->max == 0 || r->min <= r->max, "rule %u: an empty range", i);
        FUZZ_CHECK(memchr(r->backend, 0, sizeof r->backend), "rule %u: a name without end", i);
        FUZZ_CHECK((r->mode <= OL_SLICED) == !r->backend[0], "rule %u: backend '%s'", i, r->backend);
    }
    const int n = ol_policy_print(policy, to, cap);
    FUZZ_CHECK(n > 0 && (size_t)n < cap && strlen(to) == (size_t)n, "the table as text has %d bytes: %s", n, ol_error());
    memset(cut, FUZZ_FILL, sizeof cut);
    FUZZ_CHECK(ol_policy_print(policy, cut, 40) == n && strlen(cut) == 39 && memcmp(cut, to, 39) == 0, "cut: '%s'", cut);
    for (size_t i = 0; i < GUARD; i++) FUZZ_CHECK((uint8_t)cut[40 + i] == FUZZ_FILL, "wrote past the buffer");
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* table to decision                                                                                                */

static int calls, dones;
static int64_t call(void *arg) {
    (void)arg;
    calls++;
    return 7;
}
static void done(ol_loop *loop, ol_op *op) {
    (void)loop;
    FUZZ_CHECK(op->result == 7, "the call's result became %lld", (long long)op->result);
    dones++;
}

static const char *expected(const ol_policy *policy, int cls, uint64_t bytes, int *mode) {
    for (uint32_t i = 0; i < policy->n; i++) {
        const ol_rule *r = &policy->rule[i];
        if (r->kind != 0 && r->kind != OL_OP_CALL) continue;
        if (r->cls != 0 && r->cls != cls) continue;
        if (bytes < r->min || (r->max != 0 && bytes > r->max)) continue;
        *mode = r->mode;
        return r->mode <= OL_SLICED ? "software" : r->backend;
    }
    *mode = OL_SOFTWARE;
    return "software";
}

static void check_decision(ol_loop *loop, const ol_policy *policy, int cls, uint64_t bytes) {
    ol_op op;
    int mode;
    const char *where = expected(policy, cls, bytes, &mode);
    calls = dones = 0;
    ol_prep_call(&op, call, NULL);
    op.len = bytes;
    op.cls = (uint8_t)cls;
    const int r = ol_submit(loop, &op, done);
    FUZZ_CHECK(r == 0 && dones == 0, "ol_submit: %d %s", r, ol_error());
    for (int i = 0; i < 100 && !dones; i++) FUZZ_CHECK(ol_loop_step(loop, 0) >= 0, "%s", ol_error());
    FUZZ_CHECK(calls == 1 && dones == 1, "%d calls, %d completions", calls, dones);
    if (mode == OL_AUTO && !op.where) where = "software";
    FUZZ_CHECK(strcmp(ol_op_where(loop, &op), where) == 0, "%llu bytes of class %d ran in %s, not in %s",
               (unsigned long long)bytes, cls, ol_op_where(loop, &op), where);
    FUZZ_CHECK((op.mode == OL_SLICED) == (mode == OL_SLICED) || mode == OL_AUTO, "mode %d for %d", op.mode, mode);
    if (mode == OL_AUTO) FUZZ_CHECK(op.why == OL_WHY_MEASURED || op.why == OL_WHY_PROBE, "why: %s", ol_op_why(&op));
    else FUZZ_CHECK(op.why == OL_WHY_RULE || op.why == OL_WHY_SYNC_BOUND, "why: %s", ol_op_why(&op));
}

static void check_in_loop(const ol_policy *policy) {
    static ol_loop *loop;
    ol_policy none, in_force;
    const char *missing = NULL;
    memset(&none, 0, sizeof none);
    if (!loop) loop = make_loop();
    FUZZ_CHECK(ol_loop_set_policy(loop, &none) == 0, "%s", ol_error());
    for (uint32_t i = 0; i < policy->n && !missing; i++) {
        const char *name = policy->rule[i].backend;
        if (*name && strcmp(name, names[0]) != 0 && strcmp(name, names[1]) != 0) missing = name;
    }
    const int r = ol_loop_set_policy(loop, policy);
    ol_loop_get_policy(loop, &in_force);
    FUZZ_CHECK(memcmp(&in_force, r == 0 ? policy : &none, sizeof none) == 0, "another table is in force");
    FUZZ_CHECK(r == (missing ? -EINVAL : 0), "ol_loop_set_policy: %d %s", r, r ? ol_error() : "");
    FUZZ_CHECK(!missing || strstr(ol_error(), missing), "'%s' doesn't name the backend '%s'", ol_error(), missing);
    for (uint32_t i = 0; r == 0 && i < policy->n && i < 6; i++) {
        const ol_rule *rule = &policy->rule[i];
        const int cls = rule->cls ? rule->cls : OL_LATENCY + (int)(i % 2);
        check_decision(loop, policy, cls, rule->min);
        if (rule->min) check_decision(loop, policy, cls, rule->min - 1);
        if (rule->max) check_decision(loop, policy, cls, rule->max);
        check_decision(loop, policy, rule->cls == OL_BATCH ? OL_LATENCY : OL_BATCH, rule->max + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char again[OL_POLICY_RULES * 80];
    ol_policy first, second;
    if (size == 0) return 0;
    char *text = (char *)malloc(size); /* without the first byte, with a NUL */
    if (!text) abort();
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    const int r = parse(text, data[0], &first);
    FUZZ_CHECK(parse(text, 0, &second) == r, "the second time the result is another one");
    if (r == 0) {
        FUZZ_CHECK(memcmp(&first, &second, sizeof first) == 0, "the second time the table is another one");
        write_down(&first, again, sizeof again);
        FUZZ_CHECK(parse(again, ERROR_BYTES, &second) == 0, "%s: %s", ol_error(), again);
        FUZZ_CHECK(memcmp(&first, &second, sizeof first) == 0, "written down it is another table:\n%s", again);
        check_in_loop(&first);
    }
    free(text);
    return 0;
}
