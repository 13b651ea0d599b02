/* policies.h: random policies, and a model of what a policy in force promises. Part of sim.c. */
#ifndef SIM_POLICIES_H
#define SIM_POLICIES_H

static const char *const kind_name[OL__KINDS] = {"any", "call", "crc32", "deflate", "inflate", "file"};
static const char *const mode_name[] = {"", "software", "sliced", "sync", "async", "auto"};

/* Seeds differ in taste, so that each mode has some in which it is the rule. */
enum { TASTE_OFFLOADED, TASTE_SLICED, TASTE_AUTO, TASTE_ANY, TASTES };
static int mode_random(void) {
    if (w.taste == TASTE_SLICED && k_below(3)) return OL_SLICED;
    if (w.taste == TASTE_AUTO && k_below(4)) return OL_AUTO;
    if (w.taste == TASTE_ANY) return OL_SOFTWARE + (int)k_below(5);
    return k_below(6) == 0 ? OL_SOFTWARE : k_below(3) == 0 ? OL_SYNC : OL_ASYNC;
}
/* Sizes that a rule is about: mostly some that occur, some that can be said shorter. */
static uint64_t bytes_random(void) {
    const uint32_t x = k_below(8);
    if (x == 0) return (uint64_t)k_below(4) << 10;
    if (x == 1) return (uint64_t)k_below(3) << 20;
    return k_below(x == 2 ? 3000 : 500);
}

static void policy_random(ol_policy *p) {
    uint32_t i;
    memset(p, 0, sizeof *p);
    p->n = k_below(6);
    if (p->n == 0 && k_below(4)) p->n = 1;
    if (k_below(32) == 0) p->n = OL_POLICY_RULES - k_below(20);
    for (i = 0; i < p->n; i++) {
        ol_rule *r = &p->rule[i];
        r->kind = (uint8_t)(k_below(2) ? 0 : k_below(OL__KINDS));
        r->cls = (uint8_t)(k_below(2) ? 0 : k_below(3));
        r->mode = (uint8_t)mode_random();
        r->full = (uint8_t)k_below(4);
        if (k_below(3) == 0) {
            r->min = bytes_random();
            r->max = k_below(2) ? r->min + k_below(2) * bytes_random() : 0;
        }
        if (w.nbackends == 0 && r->mode > OL_SLICED) r->mode = OL_SOFTWARE;
        if (r->mode > OL_SLICED)
            snprintf(r->backend, sizeof r->backend, "%s", w.backend[k_below((uint32_t)w.nbackends)]);
    }
}

/* The same as text, with what its author may add. */
static void policy_text(const ol_policy *p, char *out, size_t size) {
    static const char *const cls[] = {"any", "latency", "batch"}, *const full[] = {"-", "software", "wait", "fail"};
    uint32_t i;
    size_t n = (size_t)snprintf(out, size, "%s", k_below(2) ? "" : "# op class bytes mode backend when-full\n\n");
    for (i = 0; i < p->n; i++) {
        const ol_rule *r = &p->rule[i];
        char max[24] = "";
        if (r->max) snprintf(max, sizeof max, "%llu", (unsigned long long)r->max);
        n += (size_t)snprintf(out + n, size - n, "%s %s\t%llu-%s  %s %s %s%s\n", kind_name[r->kind], cls[r->cls],
                              (unsigned long long)r->min, max, mode_name[r->mode],
                              r->mode <= OL_SLICED ? "-" : r->backend, full[r->full], k_below(4) ? "" : " # why not");
    }
}

/* As text and back it is the same; a buffer that is too small gets the beginning. */
static void policy_prints(const ol_policy *p) {
    static char text[OL_POLICY_RULES * 80 + 100], less[OL_POLICY_RULES * 80 + 100];
    const int n = ol_policy_print(p, text, sizeof text);
    const size_t room = k_below((uint32_t)n + 2);
    ol_policy parsed;
    char error[80];
    CHECK("print", n > 0 && (size_t)n < sizeof text && strlen(text) == (size_t)n);
    if (ol_policy_parse(text, &parsed, error, sizeof error)) k_fail("print", "%s in: %s", error, text);
    CHECK("print", memcmp(&parsed, p, sizeof parsed) == 0);
    memset(less, 1, sizeof less);
    CHECK("print", ol_policy_print(p, less, room) == n && less[room] == 1);
    if (room) CHECK("print", strlen(less) == room - 1 && memcmp(less, text, room - 1) == 0);
    COUNT(POLICY_PRINTED);
}

static void policy_bad(int loop) { /* refused, and the old one stays */
    ol_policy p, now;
    ol_loop_get_policy(w.loop[loop], &now);
    memset(&p, 0, sizeof p);
    p.n = 1;
    p.rule[0].mode = OL_ASYNC;
    memcpy(p.rule[0].backend, "nowhere", 8);
    CHECK("error", ol_loop_set_policy(w.loop[loop], &p) == -EINVAL);
    told(ol_error());
    ol_loop_get_policy(w.loop[loop], &p);
    CHECK("error", memcmp(&p, &now, sizeof p) == 0 && memcmp(&p, &w.policy[loop], sizeof p) == 0);
    COUNT(BAD_POLICY);
}
static void policy_set(int loop) {
    ol_policy *p = &w.policy[loop], parsed;
    if (k_below(8) == 0) {
        policy_bad(loop);
        return;
    }
    policy_random(p);
    if (p->n && k_below(2)) {
        static char text[OL_POLICY_RULES * 80 + 200];
        char error[80];
        policy_text(p, text, sizeof text);
        if (ol_policy_parse(text, &parsed, error, sizeof error)) k_fail("policy", "%s in: %s", error, text);
        CHECK("policy", memcmp(&parsed, p, sizeof parsed) == 0);
    }
    if (k_below(2)) policy_prints(p);
    CHECK("error", ol_loop_set_policy(w.loop[loop], p) == 0);
}

/* The first rule that matches; NULL: software. */
static const ol_rule *policy_rule(int loop, int kind, int cls, uint64_t len) {
    const ol_policy *p = &w.policy[loop];
    uint32_t i;
    for (i = 0; i < p->n; i++) {
        const ol_rule *r = &p->rule[i];
        if ((!r->kind || r->kind == kind) && (!r->cls || r->cls == cls) && len >= r->min && (!r->max || len <= r->max))
            return r;
    }
    return NULL;
}

static int policy_lane(const char *name) {
    int i;
    for (i = 0; i < w.nbackends; i++)
        if (strcmp(w.backend[i], name) == 0) return i + 1;
    return 0;
}

/* What rule was in force when this operation was submitted? */
static void policy_note(task *t) {
    const ol_rule *r = policy_rule(t->loop, t->kind, t->cls, t->op_len);
    t->has_rule = r != NULL;
    if (r) t->rule = *r;
}

/* What happens when the backend is full. */
static int policy_full(const task *t) {
    if (t->rule.full) return t->rule.full;
    return t->cls == OL_LATENCY ? (int)OL_FULL_SOFTWARE : (int)OL_FULL_WAIT;
}

/* What auto may do, and the reasons that only it has. */
static void policy_judge_auto(const task *t, int lane) {
    const ol_op *op = &t->op;
    const int own = op->why == OL_WHY_MEASURED || op->why == OL_WHY_PROBE || op->why == OL_WHY_STALLED;
    if (t->kind == OL_OP_FILE) CHECK("auto", !own); /* what may block has no choice */
    else CHECK("auto", op->why != OL_WHY_RULE);
    if (!own) return;
    CHECK("auto", (op->where == 0) == (op->mode == OL_SOFTWARE || op->mode == OL_SLICED));
    if (op->why == OL_WHY_STALLED) CHECK("auto", !op->where);
    COUNT_IF(AUTO_HERE, op->mode == OL_SOFTWARE);
    COUNT_IF(AUTO_SLICED, op->mode == OL_SLICED);
    COUNT_IF(AUTO_SYNC, op->mode == OL_SYNC);
    COUNT_IF(AUTO_ASYNC, op->mode == OL_ASYNC);
    (void)lane;
}

/* An operation that ran says where and why: as the policy said, or with a reason that holds. */
static void policy_judge(const task *t) {
    const ol_op *op = &t->op;
    const int rule = t->has_rule ? t->rule.mode : (int)OL_SOFTWARE;
    const int lane = rule > OL_SLICED ? policy_lane(t->rule.backend) : 0;
    const int full = policy_full(t);
    const int device = lane > 0 && lane <= w.ndevs;
    CHECK("policy", op->where == 0 || op->where == lane);
    if (rule == OL_AUTO) policy_judge_auto(t, lane);
    switch (op->why) {
    case OL_WHY_RULE: CHECK("policy", op->where == lane); break;
    case OL_WHY_FULL:
        CHECK("policy", (lane || rule == OL_SLICED) && !op->where && full == OL_FULL_SOFTWARE);
        break;
    case OL_WHY_PARKED: CHECK("policy", lane && op->where == lane && full != OL_FULL_SOFTWARE); break;
    case OL_WHY_UNSUPPORTED:
        CHECK("policy", device && !op->where && !(w.device[lane - 1].backend.kinds >> t->kind & 1));
        break;
    case OL_WHY_FAILED: CHECK("policy", lane && !op->where); break;
    case OL_WHY_CACHE: CHECK("policy", t->kind == OL_OP_FILE && !op->where); break;
    case OL_WHY_SYNC_BOUND:
        CHECK("policy", op->where == lane && (rule == OL_SYNC || rule == OL_AUTO) && t->awaited);
        break;
    case OL_WHY_MEASURED:
    case OL_WHY_PROBE:
    case OL_WHY_STALLED: CHECK("policy", rule == OL_AUTO); break;
    default: k_fail("policy", "an operation ran for the reason %d", op->why);
    }
    if (op->mode == OL_SLICED) {
        CHECK("policy", !op->where && t->kind != OL_OP_FILE && (rule == OL_SLICED || rule == OL_AUTO));
    } else if (!op->where) {
        CHECK("policy", op->mode == OL_SOFTWARE);
        if (rule == OL_SLICED) CHECK("policy", t->kind == OL_OP_FILE || op->why == OL_WHY_FULL || sim.stats.enomem);
    } else if (op->mode == OL_SYNC) {
        CHECK("policy", (rule == OL_SYNC || rule == OL_AUTO) && t->awaited);
    } else {
        CHECK("policy", op->mode == OL_ASYNC);
    }
    if (device && op->where) CHECK("policy", w.device[lane - 1].backend.kinds >> t->kind & 1);
    if (device && op->why == OL_WHY_RULE && t->awaited && rule == OL_SYNC)
        CHECK("policy", (op->mode == OL_SYNC) == !(w.device[lane - 1].p.flags & OL_CHANNEL_NO_SYNC));
}

/* One that was refused for lack of room. */
static void policy_judge_full(const task *t) {
    CHECK("policy", t->has_rule && t->rule.mode != OL_SOFTWARE && policy_full(t) != OL_FULL_SOFTWARE);
    if (t->op.mode) CHECK("policy", t->rule.mode > OL_SLICED);
    else CHECK("policy", t->rule.mode == OL_SLICED || t->rule.mode == OL_AUTO); /* too many wait to be sliced */
}

#endif
