/* The policy: its text, its errors, and that each operation reports where it ran and why.
   cc -O2 -I. tests/criterion/policy.c -o build/tests/policy -lcriterion -lisal -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define OFFLOAD_IMPLEMENTATION
#define OFFLOAD_ISAL
#include "offload.h"

#include <criterion/criterion.h>

#include "random.h"

TestSuite(policy, .timeout = 60);

static ol_policy parse(const char *text) {
    ol_policy p;
    char err[160] = "";
    memset(&p, 0xa5, sizeof p);
    cr_assert_eq(ol_policy_parse(text, &p, err, sizeof err), 0, "%s", err);
    return p;
}

Test(policy, text_becomes_rules) {
    const ol_policy p = parse("# a comment\n"
                              "\n"
                              "deflate  latency  0-8191  software - -   # another\n"
                              "\tinflate batch 4K-64K sync threads wait\r\n"
                              "any any 2M- async dev1 fail\n"
                              "crc32 any 77 async dev1 software");
    cr_assert_eq(p.n, 4u);
    const ol_rule *r = p.rule;
    cr_assert(r[0].kind == OL_OP_DEFLATE && r[0].cls == OL_LATENCY && r[0].min == 0 && r[0].max == 8191);
    cr_assert(r[0].mode == OL_SOFTWARE && r[0].full == 0 && !r[0].backend[0]);
    cr_assert(r[1].kind == OL_OP_INFLATE && r[1].cls == OL_BATCH && r[1].min == 4096 && r[1].max == 65536);
    cr_assert(r[1].mode == OL_SYNC && r[1].full == OL_FULL_WAIT && strcmp(r[1].backend, "threads") == 0);
    cr_assert(r[2].kind == 0 && r[2].cls == 0 && r[2].min == 2u << 20 && r[2].max == 0 && r[2].full == OL_FULL_FAIL);
    cr_assert(r[3].kind == OL_OP_CRC32 && r[3].min == 77 && r[3].max == 77 && r[3].full == OL_FULL_SOFTWARE);
    cr_assert_eq(parse("").n, 0u);
    cr_assert_eq(parse("# nothing").n, 0u);
}

Test(policy, presets_have_their_rules) {
    cr_assert_geq(parse("pool").n, 6u);
    const ol_policy p = parse("thesis"); /* its Table 3.1 */
    cr_assert(p.rule[0].kind == OL_OP_DEFLATE && p.rule[0].cls == OL_LATENCY && p.rule[0].max == 256 &&
              p.rule[0].mode == OL_SOFTWARE);
    cr_assert(p.rule[1].cls == OL_LATENCY && p.rule[1].min == 257 && p.rule[1].max == 0 && p.rule[1].mode == OL_SYNC);
    cr_assert(p.rule[1].full == OL_FULL_SOFTWARE && strcmp(p.rule[1].backend, "device") == 0);
    cr_assert(p.rule[2].cls == OL_BATCH && p.rule[2].min == 0 && p.rule[2].max == 0 && p.rule[2].mode == OL_ASYNC);
    cr_assert_eq(p.rule[2].full, OL_FULL_WAIT);
}

Test(policy, errors_name_the_line_and_leave_the_result_alone) {
    static const struct {
        const char *text, *says;
        int code;
    } bad[] = {
        {"deflate latency 0- software -", "line 1: a rule has six words", -EINVAL},
        {"\n\ndeflate latency 0- software - - x", "line 3: too many words", -EINVAL},
        {"# x\nzip latency 0- software - -", "line 2: op must be", -EINVAL},
        {"deflate fast 0- software - -", "class must be", -EINVAL},
        {"deflate any 5-4 software - -", "bytes must be", -EINVAL},
        {"deflate any -5 software - -", "bytes must be", -EINVAL},
        {"deflate any 4-5x software - -", "bytes must be", -EINVAL},
        {"deflate any 4-x software - -", "bytes must be", -EINVAL},
        {"deflate any 4-0 software - -", "bytes must be", -EINVAL},
        {"deflate any 4x5 software - -", "bytes must be", -EINVAL},
        {"deflate any 0 software - -", "bytes must be", -EINVAL},
        {"deflate any 4G- software - -", "bytes must be", -EINVAL},
        {"deflate any 0-99999999999999999999999 software - -", "", -EINVAL},
        {"deflate any 0-2000000000000 software - -", "bytes must be", -EINVAL},
        {"deflate any 1073741824M- software - -", "bytes must be", -EINVAL},
        {"deflate any 4KK- software - -", "bytes must be", -EINVAL},
        {"deflate any 0- fast threads -", "mode must be", -EINVAL},
        {"deflate any 0- - threads -", "mode must be", -EINVAL},
        {"deflate any 0- async threads never", "when-full must be", -EINVAL},
        {"deflate any 0- async - wait", "need a backend", -EINVAL},
        {"deflate any 0- software threads -", "software and sliced need backend -", -EINVAL},
        {"deflate any 0- sliced threads wait", "software and sliced need backend -", -EINVAL},
        {"any any 0- software - -\ndeflate any 0- auto - wait", "line 2: software and sliced", -EINVAL},
        {"deflate any 0- async sixteen_letters_ wait", "at most 15", -EINVAL},
        {"deflate any 0- async threads_threads_threads_threads_ wait", "too long", -EINVAL},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ol_policy p, before;
        char err[200] = "";
        memset(&p, 0x5a, sizeof p);
        before = p;
        cr_assert_eq(ol_policy_parse(bad[i].text, &p, err, sizeof err), bad[i].code, "'%s'", bad[i].text);
        cr_assert_not_null(strstr(err, bad[i].says), "'%s' says '%s'", bad[i].text, err);
        cr_assert_str_eq(ol_error(), err);
        cr_assert(memcmp(&p, &before, sizeof p) == 0);
    }
    char tiny[8];
    cr_assert_eq(ol_policy_parse(NULL, NULL, tiny, sizeof tiny), -EINVAL);
    cr_assert_eq(strlen(tiny), 7u);
    cr_assert_eq(ol_policy_parse("nonsense", NULL, NULL, 0), -EINVAL);
    cr_assert_eq(ol_policy_parse("nonsense", NULL, NULL, sizeof tiny), -EINVAL);
    memset(tiny, 'x', sizeof tiny);
    cr_assert_eq(ol_policy_parse("nonsense", NULL, tiny, 0), -EINVAL);
    cr_assert_eq(tiny[0], 'x', "there was no room");
    cr_assert_not_null(strstr(ol_error(), "line 1: a rule has six words"));
    char many[OL_POLICY_RULES * 40 + 80] = "";
    for (int i = 0; i < OL_POLICY_RULES; i++) strcat(many, "any any 0- software - -\n");
    cr_assert_eq(ol_policy_parse(many, NULL, NULL, 0), 0);
    strcat(many, "any any 0- software - -\n");
    cr_assert_eq(ol_policy_parse(many, NULL, tiny, sizeof tiny), -EINVAL);
}

Test(policy, random_text_never_does_more_than_fail) {
    static const char *const piece[] = {"deflate", "any", "0-", "4K", "-", "async", "threads", "wait",
                                        "#",       "\n",  " ",  "\t", "K", "9",     "\r",      "software"};
    unsigned seed = 7;
    int good = 0;
    for (int i = 0; i < 100000; i++) {
        char text[200] = "", err[64];
        ol_policy p;
        for (int n = rand_r(&seed) % 14; n; n--) {
            strcat(text, piece[rand_r(&seed) % 16]);
            if (rand_r(&seed) % 3) strcat(text, " ");
        }
        good += ol_policy_parse(text, &p, err, sizeof err) == 0;
    }
    cr_assert(good > 1000);
}

/* ---- as text again */

static uint64_t random_size(void) { /* of all magnitudes, round ones often */
    uint64_t n = random64() % (((uint64_t)1 << (random64() % 40)) + 1);
    if (random64() % 3 == 0) n &= ~(uint64_t)1023;
    if (random64() % 3 == 0) n &= ~(uint64_t)((1 << 20) - 1);
    return random64() % 20 ? n : (uint64_t)1 << 40;
}
static void random_rule(ol_rule *r) {
    static const char letters[] = "abcxyzABC0189-_.+/*!$%&()=?~\x7f\xe4";
    memset(r, 0, sizeof *r);
    r->kind = (uint8_t)(random64() % OL__KINDS);
    r->cls = (uint8_t)(random64() % 3);
    r->mode = (uint8_t)(1 + random64() % 5);
    r->full = (uint8_t)(random64() % 4);
    r->min = random_size();
    r->max = random64() % 3 ? r->min + random_size() : 0;
    if (random64() % 8 == 0) r->max = r->min; /* 0: no limit */
    if (r->max > (uint64_t)1 << 40) r->max = (uint64_t)1 << 40;
    if (r->mode <= OL_SLICED) return;
    const size_t n = 1 + random64() % 15;
    for (size_t i = 0; i < n; i++) r->backend[i] = letters[random64() % (sizeof letters - 1)];
    if (strcmp(r->backend, "-") == 0) r->backend[0] = 'x';
}
static char text[1 << 14], again[1 << 14];
static int print(const ol_policy *p, char *out) {
    const int n = ol_policy_print(p, out, sizeof text);
    cr_assert(n >= 0 && n < (int)sizeof text && strlen(out) == (size_t)n, "%s", ol_error());
    return n;
}
Test(policy, any_table_is_read_back_from_its_text) {
    for (int i = 0; i < 5000; i++) {
        ol_policy p;
        memset(&p, 0, sizeof p);
        p.n = (uint32_t)(i < 65 ? i : (int)(random64() % 8));
        for (uint32_t k = 0; k < p.n; k++) random_rule(&p.rule[k]);
        print(&p, text);
        const ol_policy q = parse(text);
        cr_assert(memcmp(&p, &q, sizeof p) == 0, "%s", text);
        print(&q, again); /* what it writes is canonical */
        cr_assert_str_eq(text, again);
    }
}
Test(policy, text_in_any_form_becomes_its_canonical_form) {
    static const char canonical[] = "# op     class    bytes         mode      backend          when-full\n"
                                    "deflate  latency  0-8191        software  -                -\n"
                                    "any      any      8K-           auto      device           -\n"
                                    "call     batch    2M-3M         sliced    -                wait\n"
                                    "crc32    any      1025          sync      dev-1            fail\n"
                                    "inflate  any      1K            async     fifteen_letters  software\n"
                                    "file     any      0-            async     threads          wait\n"
                                    "any      any      1048576M-     software  -                -\n"
                                    "call     any      999999999999-1099511627775 sliced    -                -\n";
    ol_policy p = parse("deflate latency 0-8191 software - - # this\n\n\tany any 8192- auto device -\r\n"
                        "call   batch 2048K-3145728 sliced - wait\ncrc32 any 1025-1025 sync dev-1 fail\n"
                        "inflate any 1024 async fifteen_letters software\nfile any 0K- async threads wait\n"
                        "any any 1073741824K- software - -\ncall any 999999999999-1099511627775 sliced - -");
    cr_assert_eq(print(&p, text), (int)sizeof canonical - 1);
    cr_assert_str_eq(text, canonical);
    p = parse(canonical);
    print(&p, text);
    cr_assert_str_eq(text, canonical);
    static const char *const presets[] = {"pool", "thesis", ""};
    for (int i = 0; i < 3; i++) {
        const ol_policy preset = parse(presets[i]);
        print(&preset, text);
        p = parse(text);
        cr_assert(memcmp(&p, &preset, sizeof p) == 0);
    }
}
Test(policy, its_text_fits_any_room_and_never_exceeds_it) {
    static char part[1 << 14];
    const ol_policy p = parse("pool");
    const int n = print(&p, text);
    cr_assert_eq(ol_policy_print(&p, NULL, 0), n);
    for (int len = 0; len <= n + 2; len++) {
        memset(part, 0x7f, sizeof part);
        cr_assert_eq(ol_policy_print(&p, part, (size_t)len), n);
        const int there = len > n ? n : len - 1;
        if (len) cr_assert(part[there] == 0 && memcmp(part, text, (size_t)there) == 0, "len %d", len);
        for (int i = len; i < n + 10; i++) cr_assert(i < there + 1 || part[i] == 0x7f, "len %d: past the end", len);
    }
}
/* Each breaks one valid rule; print and set refuse it alike. */
static void no_kind(ol_rule *r) { r->kind = OL__KINDS; }
static void no_class(ol_rule *r) { r->cls = 3; }
static void mode_0(ol_rule *r) { r->mode = 0; }
static void mode_6(ol_rule *r) { r->mode = OL_AUTO + 1; }
static void no_full(ol_rule *r) { r->full = OL_FULL_FAIL + 1; }
static void turned(ol_rule *r) { r->min = 10, r->max = 9; }
static void large_min(ol_rule *r) { r->min = ((uint64_t)1 << 40) + 1, r->max = 0; }
static void large_max(ol_rule *r) { r->max = ((uint64_t)1 << 40) + 1024; }
static void endless(ol_rule *r) { memset(r->backend, 'x', sizeof r->backend); }
static void nameless(ol_rule *r) { memset(r->backend, 0, sizeof r->backend); }
static void software_there(ol_rule *r) { r->mode = OL_SOFTWARE; }
static void sliced_there(ol_rule *r) { r->mode = OL_SLICED; }
static void two_words(ol_rule *r) { strcpy(r->backend, "de vice"); }
static void a_tab(ol_rule *r) { strcpy(r->backend, "device\t"); }
static void a_comment(ol_rule *r) { strcpy(r->backend, "dev#1"); }
static void two_lines(ol_rule *r) { strcpy(r->backend, "a\nb"); }
static void a_return(ol_rule *r) { strcpy(r->backend, "a\r"); }
static void a_dash(ol_rule *r) { strcpy(r->backend, "-"); }
static void (*const breaks[])(ol_rule *) = {no_kind,   no_class,  mode_0,    mode_6,    no_full,        turned,
                                            large_min, large_max, endless,   nameless,  software_there, sliced_there,
                                            two_words, a_tab,     a_comment, two_lines, a_return,       a_dash};
Test(policy, what_text_can_not_say_is_refused) {
    ol_loop *loop = NULL;
    cr_assert_eq(ol_loop_create(&loop, NULL), 0);
    const ol_policy good = parse("call any 0- async threads wait\ncall any 5-20 auto threads -");
    cr_assert_geq(ol_policy_print(&good, text, sizeof text), 0);
    cr_assert_eq(ol_loop_set_policy(loop, &good), 0);
    for (size_t i = 0; i < sizeof breaks / sizeof *breaks; i++) {
        ol_policy p = good;
        breaks[i](&p.rule[1]);
        cr_assert_eq(ol_policy_print(&p, text, sizeof text), -EINVAL, "%d", (int)i);
        cr_assert_not_null(strstr(ol_error(), "malformed"));
        cr_assert_eq(ol_policy_print(&p, NULL, 0), -EINVAL);
        cr_assert_eq(ol_loop_set_policy(loop, &p), -EINVAL, "%d", (int)i);
        p.n = 1; /* what is not in the table doesn't matter */
        cr_assert_geq(ol_policy_print(&p, text, sizeof text), 0);
        cr_assert_eq(ol_loop_set_policy(loop, &p), 0);
    }
    struct {
        ol_policy p;
        ol_rule one_more;
    } large;
    for (int i = 0; i <= OL_POLICY_RULES; i++)
        memcpy((char *)&large + offsetof(ol_policy, rule) + (size_t)i * sizeof(ol_rule), &good.rule[0],
               sizeof(ol_rule));
    large.p.n = OL_POLICY_RULES + 1;
    cr_assert_eq(ol_policy_print(&large.p, text, sizeof text), -EINVAL);
    cr_assert_eq(ol_policy_print(NULL, text, sizeof text), -EINVAL);
    cr_assert_eq(ol_policy_print(&good, NULL, 10), -EINVAL);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}
Test(policy, all_modes_are_read) {
    static const char *const mode[] = {"software - -", "sliced - -", "sync device wait", "async device fail",
                                       "auto device software"};
    for (uint8_t i = 0; i < 5; i++) {
        snprintf(text, sizeof text, "any any 0- %s", mode[i]);
        cr_assert_eq(parse(text).rule[0].mode, OL_SOFTWARE + i);
    }
    static const char *const bad[] = {"sliced device -",    "auto - -",      "auto - wait",    "slice - -",
                                      "automatic device -", "Auto device -", "sliced - never", "auto device"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ol_policy p;
        snprintf(text, sizeof text, "any any 0- %s", bad[i]);
        cr_assert_eq(ol_policy_parse(text, &p, NULL, 0), -EINVAL, "%s", text);
    }
}

/* ---- in force */

typedef struct probe {
    ol_co co;
    ol_op op;
    int64_t r;
    uint64_t bytes;
    const char *where, *why;
    unsigned char buf[1 << 16], out[1 << 17];
} probe;
static void job(ol_co *co) {
    probe *p = OL_SELF(co, probe, co);
    OL_BEGIN(co);
    OL_AWAIT(p->r, ol_run(co, ol_prep_deflate(&p->op, OL_RAW, p->out, sizeof p->out, p->buf, p->bytes)));
    p->where = ol_op_where(co->loop, &p->op);
    p->why = ol_op_why(&p->op);
    OL_END(co);
}
static const char *where_it_ran(ol_loop *loop, uint64_t bytes, int cls) {
    static probe p;
    p.bytes = bytes;
    cr_assert_eq(ol_spawn(loop, &p.co, job, 0, cls), 0);
    cr_assert_eq(ol_loop_run(loop), 0);
    cr_assert_gt(p.r, 0);
    cr_assert_str_eq(p.why, "policy");
    return p.where;
}

Test(policy, the_first_matching_rule_decides_by_class_and_size) {
    ol_loop *loop = NULL;
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.sync_ns = (int64_t)3600 * 1000000000; /* however slow the worker is */
    d.policy = "deflate latency 100-200 async threads wait\n"
               "deflate batch   0-99    sync  threads wait\n"
               "deflate any     0-      software - -\n";
    cr_assert_eq(ol_loop_create(&loop, &d), 0, "%s", ol_error());
    cr_assert_str_eq(where_it_ran(loop, 99, OL_LATENCY), "software");
    cr_assert_str_eq(where_it_ran(loop, 100, OL_LATENCY), "threads");
    cr_assert_str_eq(where_it_ran(loop, 200, OL_LATENCY), "threads");
    cr_assert_str_eq(where_it_ran(loop, 201, OL_LATENCY), "software");
    cr_assert_str_eq(where_it_ran(loop, 99, OL_BATCH), "threads");
    cr_assert_str_eq(where_it_ran(loop, 100, 0), "software");
    ol_policy p;
    ol_loop_get_policy(loop, &p);
    cr_assert_eq(p.n, 3u);
    const ol_policy changed = parse("deflate any 0-150 software - -\nany any 0- async threads wait");
    cr_assert_eq(ol_loop_set_policy(loop, &changed), 0);
    cr_assert_str_eq(where_it_ran(loop, 150, OL_LATENCY), "software");
    cr_assert_str_eq(where_it_ran(loop, 151, OL_BATCH), "threads");
    const ol_policy none = parse("");
    cr_assert_eq(ol_loop_set_policy(loop, &none), 0);
    cr_assert_str_eq(where_it_ran(loop, 60000, OL_BATCH), "software");
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

Test(policy, a_bad_table_leaves_the_old_one_in_force) {
    ol_loop *loop = NULL;
    cr_assert_eq(ol_loop_create(&loop, NULL), 0);
    ol_policy before, p, after;
    ol_loop_get_policy(loop, &before);
    p = parse("deflate any 0- async device wait");
    cr_assert_eq(ol_loop_set_policy(loop, &p), -EINVAL);
    cr_assert_not_null(strstr(ol_error(), "backend"));
    memset(&p, 0xa5, sizeof p);
    cr_assert_eq(ol_loop_set_policy(loop, &p), -EINVAL);
    p = parse("deflate any 0- async threads wait");
    p.rule[0].mode = OL_SLICED;
    cr_assert_eq(ol_loop_set_policy(loop, &p), -EINVAL);
    p.rule[0].mode = OL_ASYNC;
    memset(p.rule[0].backend, 'x', sizeof p.rule[0].backend); /* no end */
    cr_assert_eq(ol_loop_set_policy(loop, &p), -EINVAL);
    p = parse("deflate any 0- async threads wait");
    p.rule[0].min = 10;
    p.rule[0].max = 5;
    cr_assert_eq(ol_loop_set_policy(loop, &p), -EINVAL);
    cr_assert_eq(ol_loop_set_policy(loop, NULL), -EINVAL);
    ol_loop_get_policy(loop, &after);
    cr_assert(memcmp(&before, &after, sizeof before) == 0);
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

Test(policy, a_loop_with_a_bad_policy_is_not_made_and_says_why) {
    ol_loop *loop = NULL;
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.policy = "deflate any\n";
    cr_assert_eq(ol_loop_create(&loop, &d), -EINVAL);
    cr_assert_not_null(strstr(ol_error(), "line 1"));
    d.policy = "thesis"; /* needs a device */
    cr_assert_eq(ol_loop_create(&loop, &d), -EINVAL);
    cr_assert_not_null(strstr(ol_error(), "backend"));
    d.policy = NULL;
    d.no_pool = 1;
    cr_assert_eq(ol_loop_create(&loop, &d), 0);
    cr_assert_str_eq(where_it_ran(loop, 60000, OL_BATCH), "software");
    cr_assert_eq(ol_loop_destroy(loop), 0);
}

/* ---- an emulated device on the clock of the system: what it spends passes */

static int64_t emulated_got;
static int64_t answers(void *arg) { return *(int *)arg; }
static void uses_the_device(ol_co *co) {
    static ol_op op;
    static int forty_two = 42;
    OL_BEGIN(co);
    OL_AWAIT(emulated_got, ol_run(co, ol_prep_call(&op, answers, &forty_two)));
    OL_END(co);
}
Test(policy, a_device_on_the_systems_clock_takes_at_least_its_time) {
    ol_emulated_desc d;
    ol_backend *device = NULL;
    ol_loop *loop = NULL;
    ol_loop_desc l;
    static ol_co co;
    struct timespec a, b;
    memset(&l, 0, sizeof l);
    cr_assert_eq(ol_emulated_parse("setup_ns=200000 latency_ns=300000", &d, NULL, 0), 0);
    cr_assert_eq(ol_emulated_create(&device, &d), 0);
    l.backends = &device, l.nbackends = 1, l.no_pool = 1, l.policy = "call any 0- async device wait";
    cr_assert_eq(ol_loop_create(&loop, &l), 0, "%s", ol_error());
    cr_assert_eq(ol_spawn(loop, &co, uses_the_device, 0, 0), 0);
    clock_gettime(CLOCK_MONOTONIC, &a);
    cr_assert_eq(ol_loop_run(loop), 0);
    clock_gettime(CLOCK_MONOTONIC, &b);
    cr_assert_eq(emulated_got, 42);
    cr_assert_geq((int64_t)(b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec, 500000); /* never less */
    cr_assert_eq(ol_loop_destroy(loop), 0);
    cr_assert_eq(ol_emulated_destroy(device), 0);
}
