/* Children, joins, locks, handlers, gated timers and posts, guests, forks: each promise of their comments, on the real
   kernel and with real threads.
   cc -O2 -I. tests/criterion/sharing.c -o build/tests/sharing -lcriterion -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdlib.h>

/* The seam: allocations are counted and can be made to fail; so can timerfds. */
static long live;
static int no_memory, no_timerfd;
static void *test_realloc(void *p, size_t n) {
    if (__atomic_load_n(&no_memory, __ATOMIC_RELAXED)) return NULL;
    __atomic_fetch_add(&live, p == NULL, __ATOMIC_RELAXED);
    return realloc(p, n);
}
static void test_free(void *p) {
    __atomic_fetch_sub(&live, p != NULL, __ATOMIC_RELAXED);
    free(p);
}
#define OL_SYS_MALLOC(n) test_realloc(NULL, (n))
#define OL_SYS_REALLOC(p, n) test_realloc((p), (n))
#define OL_SYS_FREE(p) test_free(p)
#define OL_SYS_TIMERFD()                                                                                               \
    (no_timerfd ? (errno = EMFILE, -1) : timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC))
#define OL_SYS_TIMERFD_SET(fd, ns) test_timerfd_set((fd), (ns))
static int test_timerfd_set(int fd, long long ns);
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/resource.h>
#include <sys/wait.h>

static int test_timerfd_set(int fd, long long ns) {
    struct itimerspec t;
    memset(&t, 0, sizeof t);
    t.it_value.tv_sec = (time_t)(ns / 1000000000);
    t.it_value.tv_nsec = (long)(ns % 1000000000);
    return timerfd_settime(fd, 0, &t, NULL);
}

/* ---- the world: a loop, a few fds with their far ends, mutexes, and actors, which are coroutines that follow a script */

enum { FDS = 6, MUTEXES = 20, ACTORS = 26 };
static const int64_t hour = (int64_t)3600 * 1000000000;

typedef struct actor {
    ol_child child; /* a root uses its `co` alone */
    const char *at; /* the rest of its script */
    int64_t r;
    const char *text; /* of its last error */
    ol_op op;
    char name, buf[64];
} actor;

static struct {
    ol_loop *loop;
    ol_fd fd[FDS];
    int far[FDS];
    ol_mutex mutex[MUTEXES];
    actor actor[ACTORS];
    char log[4096];
} w;

static int open_fds(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d)) n++;
    closedir(d);
    return n;
}
static int fds_before;

static ol_fd attached(int i) { /* one end of a socket pair as w.fd[i] */
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(w.loop, sv[0], 0, &w.fd[i]), 0, "%s", ol_error());
    if (w.far[i]) close(w.far[i]);
    w.far[i] = sv[1];
    return w.fd[i];
}
static void begin(void) {
    fds_before = open_fds();
    cr_assert_eq(ol_loop_create(&w.loop, NULL), 0, "%s", ol_error());
    for (int i = 0; i < FDS; i++) attached(i);
}
static void end(void) { /* each test's end: nothing alive, nothing lost, nothing leaked */
    if (w.loop) cr_assert_eq(ol_loop_destroy(w.loop), 0, "%s", ol_error());
    for (int i = 0; i < FDS; i++)
        if (w.far[i]) close(w.far[i]);
    cr_assert_eq(open_fds(), fds_before, "fds leaked");
    cr_assert_eq(live, 0, "%ld allocations leaked", live);
}
TestSuite(sharing, .timeout = 60);

/* Not .init and .fini: what fails in there does not count. */
#define PROMISE(name)                                                                                                  \
    static void name(void);                                                                                            \
    Test(sharing, name) {                                                                                              \
        begin();                                                                                                       \
        name();                                                                                                        \
        end();                                                                                                         \
    }                                                                                                                  \
    static void name(void)

static const char *name_of(int64_t r) {
    static const struct {
        int number;
        const char *name;
    } names[] = {{EBADF, "BADF"},   {ECANCELED, "CANCELED"}, {ETIMEDOUT, "TIMEDOUT"}, {EDEADLK, "DEADLK"},
                 {EBUSY, "BUSY"},   {EXDEV, "XDEV"},         {EINVAL, "INVAL"},       {ENOMEM, "NOMEM"},
                 {EAGAIN, "AGAIN"}, {ENOTSUP, "NOTSUP"},     {EPIPE, "PIPE"},         {EBADMSG, "BADMSG"}};
    static char number[24];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].number == -r) return names[i].name;
    snprintf(number, sizeof number, "%lld", (long long)r);
    return number;
}

static void say(const char *format, ...) {
    const size_t n = strlen(w.log);
    va_list args;
    va_start(args, format);
    vsnprintf(w.log + n, sizeof w.log - n, format, args);
    va_end(args);
}

/* What has been logged since the last time: words, each ended by a blank. */
#define expect(text)                                                                                                   \
    do {                                                                                                               \
        cr_assert_str_eq(w.log, (text));                                                                               \
        w.log[0] = 0;                                                                                                  \
    } while (0)

/* The same where the order of different actors is not promised: of each one the words that begin with its name. */
static const char *words_of(const char *text, char name) {
    static char out[2][sizeof w.log];
    static int turn;
    char *o = out[turn ^= 1];
    size_t n = 0;
    for (const char *p = text; *p; p++) {
        const char *const blank = strchr(p, ' ');
        cr_assert_not_null(blank, "a word without a blank behind it: %s", text);
        for (const char *q = p; *p == name && q <= blank; q++) o[n++] = *q;
        p = blank;
    }
    o[n] = 0;
    return o;
}
#define expect_each(text)                                                                                              \
    do {                                                                                                               \
        for (char each = 'A'; each <= 'Z'; each++) cr_assert_str_eq(words_of(w.log, each), words_of((text), each));    \
        w.log[0] = 0;                                                                                                  \
    } while (0)

static actor *named(char name) { return &w.actor[name - 'A']; }
static ol_co *co_of(char name) { return &named(name)->child.co; }

static void act(ol_co *co);

/* The commands of a script that are no awaits; 0 or more, or a negative errno. */
static int64_t do_now(ol_co *co, char command, char what) {
    const int n = what - '0';
    actor *a = what >= 'A' ? named(what) : NULL;
    switch (command) {
    case 'u': return ol_unlock(co, &w.mutex[n]);
    case 'f': memset(&a->child, 0xa5, sizeof a->child); return ol_fork(co, &a->child, act);
    case 'c': return ol_cancel(&a->child.co), 0;
    case 'C': return ol_cancel_clear(co), 0;
    case 'd': return ol_deadline(co, n ? (int64_t)n * 1000000 : 0);
    case 'D': return ol_deadline(co, OL_NEVER);
    case 'x': return ol_close(w.loop, w.fd[n]);
    case 't': return ol_try_join(w.loop, w.fd[0], w.fd[n]);
    default: cr_assert(0, "no command %c", command); return 0;
    }
}

static int64_t nothing(void *arg) { return (int64_t)(intptr_t)arg; }

/* Each command is a letter and what it is about: j1 joins fd 1, l0 locks mutex 0, u0 unlocks it, r1 reads a byte from fd 1,
   W1 waits until fd 1 is readable, fB starts child B, wB waits for it, w* for all; cB cancels B, C0 forgets a cancel; d0 sets
   a deadline that has passed, d5 one in 5 ms, D0 none; x1 closes fd 1, t1 tries to join fds 0 and 1; s0 sleeps for ever,
   y0 yields, o0 runs an operation on the pool, R5 returns 5, R- returns -EBADMSG. Logged are `A+` at the start, each
   command when it is over, with its error, and `A.` at the end. */
static void act(ol_co *co) {
    actor *a = OL_SELF(co, actor, child.co);
    char c;
    OL_BEGIN(co);
    say("%c+ ", a->name);
    for (; *a->at; a->at += a->at[2] ? 3 : 2) {
        c = a->at[0];
        if (c == 'j') OL_AWAIT(a->r, ol_join(co, w.fd[a->at[1] - '0']));
        else if (c == 'l') OL_AWAIT(a->r, ol_lock(co, &w.mutex[a->at[1] - '0']));
        else if (c == 'w') OL_AWAIT(a->r, ol_wait(co, a->at[1] == '*' ? NULL : &named(a->at[1])->child));
        else if (c == 'r') OL_AWAIT(a->r, ol_read(co, w.fd[a->at[1] - '0'], a->buf, 1));
        else if (c == 'W') OL_AWAIT(a->r, ol_wait_readable(co, w.fd[a->at[1] - '0']));
        else if (c == 's') OL_AWAIT(a->r, ol_sleep(co, OL_NEVER));
        else if (c == 'o') OL_AWAIT(a->r, ol_run(co, ol_prep_call(&a->op, nothing, NULL)));
        else if (c == 'y') {
            OL_YIELD();
            a->r = 0;
        } else if (c == 'R') {
            say("%c. ", a->name);
            OL_RETURN(a->at[1] == '-' ? -EBADMSG : a->at[1] - '0');
        } else a->r = do_now(co, c, a->at[1]);
        if (a->r < 0) {
            a->text = strchr("jlwrWso", a->at[0]) ? ol_co_error(co) : ol_error();
            cr_assert_str_neq(a->text, "no error", "%s says nothing", a->at);
        }
        say(a->r < 0 ? "%c%.2s=%s " : "%c%.2s ", a->name, a->at, name_of(a->r));
    }
    OL_END_THEN(co, say("%c. ", a->name));
}

static void script(char name, const char *text) {
    named(name)->name = name;
    named(name)->at = text;
}
/* Starts a root in the partition of fd i, -1: one of its own. */
static void root(char name, int i, const char *text) {
    script(name, text);
    memset(&named(name)->child, 0xa5, sizeof named(name)->child);
    cr_assert_eq(ol_spawn(w.loop, co_of(name), act, i < 0 ? 0 : w.fd[i], 0), 0, "%s", ol_error());
}

static ol_loop_stats stats(void) {
    ol_loop_stats s;
    s.size = sizeof s;
    ol_loop_get_stats(w.loop, &s);
    return s;
}
/* Steps until nothing moves any more. */
static void go(void) {
    uint64_t before;
    do {
        before = stats().resumes + stats().events;
        for (int i = 0; i < 3; i++) cr_assert_geq(ol_loop_step(w.loop, 0), 0, "%s", ol_error());
    } while (stats().resumes + stats().events != before);
}
static void give(int i) { cr_assert_eq(write(w.far[i], "x", 1), 1); } /* ends a wait for fd i */
static void go_on(int i) {
    give(i);
    go();
}
static void ends(void) { cr_assert_eq(ol_loop_run(w.loop), 0, "%s", ol_error()); }
#define says(name, words) cr_assert_not_null(strstr(named(name)->text, (words)), "it says: %s", named(name)->text)

/* ---- children */

PROMISE(a_child_first_runs_from_the_loop_and_need_not_be_initialised) {
    script('B', "");
    root('A', -1, "fB y0 y0");
    go();
    expect("A+ AfB B+ B. Ay0 Ay0 A. ");
}

PROMISE(a_wait_gives_the_childs_result_and_its_error) {
    script('B', "y0 R7");
    script('C', "y0 R-");
    script('D', "y0");
    root('A', -1, "fB fC fD wB wC wD");
    go();
    expect("A+ AfB AfC AfD B+ C+ D+ By0 B. Cy0 C. Dy0 D. AwB AwC=BADMSG AwD A. ");
    says('A', "itself");
    cr_assert_eq(co_of('B')->result, 7);
}

PROMISE(a_wait_for_a_child_that_has_ended_gives_its_result_at_once) {
    script('B', "R3");
    script('C', "R-");
    root('A', -1, "fB fC y0 y0 wB wC wB w* y0");
    go();
    expect("A+ AfB AfC B+ B. C+ C. Ay0 Ay0 AwB AwC=BADMSG AwB Aw* Ay0 A. ");
}

PROMISE(a_wait_for_all_ends_with_the_last_child_and_is_the_roots_alone) {
    script('B', "r0");
    script('C', "r1 fD");
    script('D', "w* r2");
    root('A', 0, "j1 j2 w* fB fC w*");
    go();
    expect("A+ Aj1 Aj2 Aw* AfB AfC B+ C+ ");
    go_on(0);
    expect("Br0 B. ");
    go_on(1);
    expect("Cr1 CfD C. D+ Dw*=INVAL ");
    says('D', "only the root");
    go_on(2);
    expect("Dr2 D. Aw* A. ");
}

PROMISE(a_wait_that_could_never_end_is_EDEADLK) {
    script('B', "wB l0 w*");
    root('A', -1, "l0 fB wB u0 w*");
    go();
    expect("A+ Al0 AfB B+ BwB=DEADLK Bl0=DEADLK Bw*=INVAL B. AwB Au0 Aw* A. ");
}

PROMISE(two_children_that_wait_for_each_other_are_EDEADLK) {
    script('B', "y0 wC");
    script('C', "wB");
    root('A', -1, "fB fC w*");
    go();
    expect("A+ AfB AfC B+ C+ By0 BwC=DEADLK B. CwB C. Aw* A. ");
    says('B', "could never end");
}

PROMISE(a_wait_for_what_is_no_child_of_this_root_is_refused) {
    script('C', "r0");
    root('A', 0, "fC r0"); /* a child of another root */
    memset(&named('E')->child, 0, sizeof(ol_child));
    root('B', 1, "wC wE");
    go();
    expect("A+ AfC B+ BwC=XDEV BwE=INVAL B. C+ Cr0=BUSY C. ");
    says('B', "ol_fork");
    go_on(0);
    expect("Ar0 A. ");
}

PROMISE(a_wait_ends_with_a_cancel_a_deadline_or_want_of_memory) {
    script('B', "s0");
    script('C', "d0 wB D0 wB");
    root('A', -1, "fB fC wC cB wB");
    no_memory = 1; /* the search for deadlocks has no table yet */
    go();
    expect("A+ AfB AfC AwC=NOMEM AcB AwB=NOMEM B+ Bs0=CANCELED B. C+ Cd0 CwB=TIMEDOUT CD0 CwB C. A. ");
    no_memory = 0;
    script('B', "s0");
    script('C', "wB C0 s0");
    root('A', -1, "fB fC wC C0 w*");
    go();
    ol_cancel(co_of('C'));
    go();
    expect("A+ AfB AfC B+ C+ CwB=CANCELED CC0 ");
    says('C', "cancelled");
    ol_cancel(co_of('A'));
    go();
    expect_each("AwC=CANCELED AC0 Bs0=CANCELED B. Cs0=CANCELED C. Aw* A. ");
}

PROMISE(the_end_of_a_root_waits_for_its_children_and_theirs) {
    script('B', "fC");
    script('C', "r0");
    root('A', 0, "fB");
    root('D', 0, ""); /* does not start before */
    go();
    expect("A+ AfB B+ BfC B. C+ ");
    cr_assert_eq(stats().roots, 2u);
    go_on(0);
    expect("Cr0 C. A. D+ D. ");
}

PROMISE(OL_RETURN_of_a_root_waits_for_its_children_too) {
    script('B', "r0");
    root('A', 0, "fB R5");
    root('D', 0, "");
    go();
    expect("A+ AfB A. B+ ");
    go_on(0);
    expect("Br0 B. D+ D. ");
    cr_assert_eq(stats().roots, 0u);
}

PROMISE(children_await_the_partitions_fds_in_both_directions_but_not_the_same_one) {
    script('B', "r0");
    script('C', "r0");
    root('A', 0, "fB fC w*");
    go();
    expect("A+ AfB AfC B+ C+ Cr0=BUSY C. ");
    says('C', "one reader and one writer");
    static char out[1 << 20];
    actor *b = named('B');
    cr_assert_eq(ol_try_write(w.loop, w.fd[0], out, sizeof out) < 0, 1); /* from outside: the partition is held */
    go_on(0);
    expect("Br0 B. Aw* A. ");
    cr_assert_eq(b->buf[0], 'x');
}

static struct duplex {
    ol_co co;
    ol_child reader, writer;
    int64_t r, got, wrote;
    unsigned char in[4096], out[1 << 20];
} duplex;
static void reads_all(ol_co *co) {
    struct duplex *d = OL_SELF(co, struct duplex, reader.co);
    OL_BEGIN(co);
    for (;;) {
        OL_AWAIT(d->r, ol_read(co, w.fd[0], d->in, sizeof d->in));
        if (d->r <= 0) break;
        for (int64_t i = 0; i < d->r; i++) cr_assert_eq(d->in[i], (unsigned char)((d->got + i) * 7));
        d->got += d->r;
    }
    OL_END(co);
}
static void writes_all(ol_co *co) {
    struct duplex *d = OL_SELF(co, struct duplex, writer.co);
    OL_BEGIN(co);
    OL_AWAIT(d->wrote, ol_write(co, w.fd[0], d->out, sizeof d->out));
    OL_END(co);
}
static void full_duplex(ol_co *co) {
    struct duplex *d = OL_SELF(co, struct duplex, co);
    OL_BEGIN(co);
    cr_assert_eq(ol_fork(co, &d->reader, reads_all), 0);
    cr_assert_eq(ol_fork(co, &d->writer, writes_all), 0);
    OL_END(co);
}
PROMISE(children_read_and_write_one_fd_at_once) {
    unsigned char piece[3000], back[3000];
    int64_t sent = 0, received = 0;
    for (size_t i = 0; i < sizeof duplex.out; i++) duplex.out[i] = (unsigned char)(i * 5);
    cr_assert_eq(ol_spawn(w.loop, &duplex.co, full_duplex, w.fd[0], 0), 0);
    fcntl(w.far[0], F_SETFL, O_NONBLOCK);
    while (ol_loop_step(w.loop, 0) > 0) { /* the far end: both, as it can */
        for (int i = 0; i < 3000; i++) piece[i] = (unsigned char)((sent + i) * 7);
        const ssize_t n = sent < 1000000 ? write(w.far[0], piece, sizeof piece) : 0;
        if (n > 0) sent += n;
        if (sent >= 1000000) shutdown(w.far[0], SHUT_WR);
        const ssize_t k = read(w.far[0], back, sizeof back);
        for (ssize_t i = 0; i < k; i++) cr_assert_eq(back[i], (unsigned char)((received + i) * 5));
        if (k > 0) received += k;
    }
    received += read(w.far[0], back, sizeof back);
    cr_assert_eq(duplex.got, sent);
    cr_assert_eq(duplex.wrote, (int64_t)sizeof duplex.out);
}

PROMISE(a_child_has_its_parents_class) {
    script('B', "s0");
    root('A', -1, "fB s0");
    script('D', "s0");
    script('C', "fD s0");
    cr_assert_eq(ol_spawn(w.loop, co_of('C'), act, 0, OL_LATENCY), 0);
    go();
    cr_assert_eq(co_of('B')->frame.bits & OL__CO_CLASS, OL_BATCH);
    cr_assert_eq(co_of('D')->frame.bits & OL__CO_CLASS, OL_LATENCY);
    cr_assert_eq(ol_loop_drain(w.loop, hour), 0);
}

PROMISE(a_cancel_of_a_root_reaches_its_children_also_when_it_waits_at_its_end) {
    script('B', "s0 C0 s0");
    script('C', "r0 w*");
    root('A', 0, "fB fC w* C0");
    go();
    expect("A+ AfB AfC B+ C+ ");
    ol_cancel(co_of('A'));
    go();
    expect_each("Aw*=CANCELED AC0 Bs0=CANCELED BC0 Cr0=CANCELED Cw*=CANCELED C. ");
    ol_cancel(co_of('A')); /* waits at its end for B */
    go();
    expect("Bs0=CANCELED B. A. ");
    /* one that is forked by a cancelled one is born so */
    script('B', "s0");
    root('A', 0, "cA fB w*");
    go();
    expect("A+ AcA AfB Aw*=CANCELED B+ Bs0=CANCELED B. A. ");
}

PROMISE(a_cancel_of_a_child_is_its_own) {
    script('B', "s0");
    script('C', "s0");
    root('A', -1, "fB fC y0 cB wB cC wC");
    go();
    expect("A+ AfB AfC B+ C+ Ay0 AcB Bs0=CANCELED B. AwB AcC Cs0=CANCELED C. AwC A. ");
}

static int64_t refused[4];
static const char *refused_text[4];
static void forks_badly(ol_co *co) {
    static ol_child child;
    OL_BEGIN(co);
    refused[0] = ol_fork(co, NULL, act);
    refused_text[0] = ol_error();
    refused[1] = ol_fork(co, &child, NULL);
    refused[2] = ol_fork(co_of('B'), &child, act); /* alive, but not the one that runs */
    refused[3] = ol_fork(NULL, &child, act);
    OL_END_THEN(co, refused[1] |= ol_fork(co, &child, act)); /* after its end, neither */
}
PROMISE(a_fork_of_nothing_or_by_another_than_the_running_one_is_EINVAL) {
    ol_co co;
    root('B', -1, "s0");
    cr_assert_eq(ol_spawn(w.loop, &co, forks_badly, 0, 0), 0);
    go();
    for (int i = 0; i < 4; i++) cr_assert_eq(refused[i], -EINVAL, "case %d", i);
    cr_assert_not_null(strstr(refused_text[0], "ol_fork"));
    ol_cancel(co_of('B'));
    ends();
    expect("B+ Bs0=CANCELED B. ");
}

/* ---- joins */

PROMISE(a_join_makes_a_free_partition_ones_own_at_once_and_before_it_awaits_are_EXDEV) {
    root('A', 0, "r1 j1 r1");
    go();
    expect("A+ Ar1=XDEV Aj1 ");
    says('A', "ol_join");
    root('B', 1, "");
    go();
    expect(""); /* B waits for A */
    go_on(1);
    expect("Ar1 A. B+ B. ");
}

PROMISE(a_join_waits_its_turn_first_come_first_served) {
    root('H', 1, "r1");
    root('B', 1, "");
    go();
    root('A', 0, "j1 r0");
    go();
    root('C', 1, "");
    go();
    expect("H+ A+ ");
    go_on(1);
    expect("Hr1 H. B+ B. Aj1 ");
    go_on(0);
    expect("Ar0 A. C+ C. ");
}

PROMISE(a_join_lasts_until_the_fd_is_closed) {
    root('A', 0, "j1");
    go();
    root('B', 0, "r0");
    root('C', 1, "r1");
    go();
    expect("A+ Aj1 A. B+ "); /* one partition still, after A's end */
    ol_close(w.loop, w.fd[0]);
    go();
    expect("Br0=CANCELED B. C+ ");
    attached(0); /* the number is used again: a partition of its own */
    root('D', 0, "r1 r0");
    go();
    expect("D+ Dr1=XDEV ");
    go_on(0);
    go_on(1);
    expect("Dr0 D. Cr1 C. ");
}

PROMISE(joins_of_free_and_held_partitions_keep_the_order_of_all_that_waits) {
    root('A', 0, "j1 j2 j2 j0 r0");
    root('B', 1, "r1");
    root('C', 2, "r2");
    go();
    root('D', 1, "");
    root('E', 2, "");
    go();
    expect("A+ B+ C+ ");
    go_on(2);
    expect("Cr2 C. E+ E. ");
    go_on(1);
    expect("Br1 B. Aj1 Aj2 Aj2 Aj0 ");
    go_on(0);
    expect("Ar0 A. D+ D. ");
}

PROMISE(a_joined_partition_takes_the_highest_class_of_its_fds_and_its_root) {
    ol_fd latency = 0;
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(w.loop, sv[0], OL_LATENCY, &latency), 0);
    w.fd[5] = latency;
    root('A', 0, "j5 r0");
    go();
    cr_assert_eq(co_of('A')->frame.bits & OL__CO_CLASS, OL_LATENCY);
    root('B', 0, "s0");
    cr_assert_eq(co_of('B')->frame.bits & OL__CO_CLASS, OL_LATENCY, "who comes later has it, too");
    cr_assert_eq(ol_loop_drain(w.loop, hour), 0);
    /* and the other way round: the root's */
    script('C', "j2");
    cr_assert_eq(ol_spawn(w.loop, co_of('C'), act, w.fd[1], OL_LATENCY), 0);
    go();
    root('D', 2, "");
    cr_assert_eq(co_of('D')->frame.bits & OL__CO_CLASS, OL_LATENCY);
    go();
    close(sv[1]);
}

PROMISE(joins_in_a_circle_are_EDEADLK_for_the_one_that_closes_it) {
    root('A', 0, "y0 j1 r0");
    root('B', 1, "y0 j2 r1");
    root('C', 2, "y0 j0 r2");
    go();
    expect("A+ B+ C+ Ay0 By0 Cy0 Cj0=DEADLK ");
    says('C', "one order");
    go_on(2);
    expect("Cr2 C. Bj2 ");
    go_on(1);
    expect("Br1 B. Aj1 ");
    go_on(0);
    expect("Ar0 A. ");
}

PROMISE(circles_over_joins_locks_and_children_are_EDEADLK) {
    script('B', "l0"); /* A waits for its child B, that for the lock of C, that for the partition of A */
    root('C', 1, "l0 y0 y0 j0 r1");
    root('A', 0, "y0 fB wB");
    go();
    expect("C+ Cl0 A+ Cy0 Ay0 AfB Cy0 B+ Bl0=DEADLK B. AwB A. Cj0 ");
    go_on(1);
    expect("Cr1 C. ");
}

PROMISE(a_wait_without_a_circle_is_never_refused) {
    root('A', 0, "l0 r0"); /* a long chain: F for E for ... for A */
    root('B', 1, "l1 y0 l0");
    root('C', 2, "y0 y0 j1 l2");
    root('D', 3, "l3 y0 y0 y0 j2");
    root('E', 4, "y0 y0 y0 y0 l3");
    root('F', 5, "y0 y0 y0 y0 y0 j4");
    go();
    cr_assert_null(strstr(w.log, "="), "%s", w.log);
    w.log[0] = 0;
    go_on(0);
    expect("Ar0 A. Bl0 B. Cj1 Cl2 C. Dj2 D. El3 E. Fj4 F. ");
}

PROMISE(a_join_that_moves_a_line_looks_for_circles_again) {
    script('B', "l0");
    root('H', 3, "r3");
    root('A', 0, "j3 r0 fB w*"); /* first in line */
    root('C', 1, "l0 j3 r1");    /* second: it will wait for A, whose child will wait for it */
    go();
    expect("H+ A+ C+ Cl0 ");
    go_on(3);
    expect("Hr3 H. Aj3 ");
    go_on(0);
    expect("Ar0 AfB B+ Bl0=DEADLK B. Aw* A. Cj3 ");
    go_on(1);
    expect("Cr1 C. ");
}

PROMISE(a_join_ends_with_a_cancel_a_deadline_a_close_or_want_of_memory) {
    root('H', 1, "r1");
    root('A', 0, "j1 C0 j1 j9 j1 j1");
    w.fd[5] = w.fd[1] + ((ol_fd)1 << 32); /* stale */
    named('A')->at = "j1 C0 d1 j1 D0 j5 j1 j1";
    go();
    ol_cancel(co_of('A'));
    go();
    expect("H+ A+ Aj1=CANCELED AC0 Ad1 ");
    while (!strstr(w.log, "Aj5")) cr_assert_geq(ol_loop_step(w.loop, -1), 0);
    expect("Aj1=TIMEDOUT AD0 Aj5=BADF ");
    says('A', "stale");
    ol_close(w.loop, w.fd[1]);
    go();
    expect_each("Hr1=CANCELED H. Aj1=CANCELED Aj1=BADF A. ");
    says('A', "stale");
}

PROMISE(a_join_says_why_it_ended) {
    root('H', 1, "r1");
    root('A', 0, "j1");
    root('B', 2, "d0 j1");
    root('C', 3, "j1");
    go();
    says('B', "ol_deadline");
    ol_cancel(co_of('C'));
    go();
    says('C', "cancelled");
    ol_close(w.loop, w.fd[1]);
    go();
    says('A', "closed during the wait");
    expect_each("H+ A+ B+ Bd0 Bj1=TIMEDOUT B. C+ Cj1=CANCELED C. Hr1=CANCELED H. Aj1=CANCELED A. ");
}

PROMISE(a_join_without_memory_is_ENOMEM_and_can_be_tried_again) {
    root('H', 1, "r1");
    root('A', 0, "j1 y0 j1");
    no_memory = 1;
    while (!strstr(w.log, "Aj1")) cr_assert_geq(ol_loop_step(w.loop, 0), 0);
    no_memory = 0;
    go();
    expect("H+ A+ Aj1=NOMEM Ay0 ");
    says('A', "memory");
    go_on(1);
    expect("Hr1 H. Aj1 A. ");
}

PROMISE(a_join_by_a_child_widens_its_roots_partition) {
    script('B', "j1 r1");
    root('H', 1, "r1");
    root('A', 0, "fB w* r1");
    go();
    expect("H+ A+ AfB B+ ");
    go_on(1);
    expect("Hr1 H. Bj1 ");
    go_on(1);
    expect("Br1 B. Aw* ");
    go_on(1);
    expect("Ar1 A. ");
}

PROMISE(two_of_one_root_may_wait_for_the_same_join) {
    script('B', "j1 j2");
    root('H', 1, "r1");
    root('A', 0, "fB j1 w*");
    go();
    expect("H+ A+ AfB B+ ");
    go_on(1);
    expect_each("Hr1 H. Aj1 Bj1 Bj2 B. Aw* A. ");
}

PROMISE(a_waiting_join_is_ended_by_a_drain_whoever_holds_the_partition) {
    root('H', 0, "s0 C0 r0");
    root('A', 3, "j0 C0");
    root('B', -1, "j0 C0");
    go();
    expect("H+ A+ B+ ");
    cr_assert_eq(ol_loop_drain(w.loop, 1), -ETIMEDOUT);
    go();
    expect("Hs0=CANCELED HC0 Aj0=CANCELED AC0 A. Bj0=CANCELED BC0 B. ");
    go_on(0);
    expect("Hr0 H. ");
}

PROMISE(try_join_joins_when_one_of_the_two_is_free) {
    cr_assert_eq(ol_try_join(w.loop, w.fd[0], w.fd[1]), 0);
    cr_assert_eq(ol_try_join(w.loop, w.fd[1], w.fd[0]), 0); /* is so already */
    root('A', 0, "r1 r1");
    root('B', 2, "r2 t2");
    go();
    cr_assert_eq(ol_try_join(w.loop, w.fd[0], w.fd[2]), -EBUSY);
    cr_assert_not_null(strstr(ol_error(), "both partitions are held"));
    cr_assert_eq(ol_try_join(w.loop, w.fd[3], w.fd[0]), 0); /* into the held one */
    cr_assert_eq(ol_try_join(w.loop, w.fd[0], w.fd[4]), 0);
    cr_assert_eq(ol_try_join(w.loop, w.fd[0], 77), -EBADF);
    cr_assert_not_null(strstr(ol_error(), "stale"));
    cr_assert_eq(ol_try_join(w.loop, 77, w.fd[0]), -EBADF);
    cr_assert_eq(ol_try_join(NULL, w.fd[1], w.fd[0]), -EBADF);
    root('C', 3, "");
    root('D', 4, "");
    go();
    expect("A+ B+ ");
    go_on(2);
    expect("Br2 Bt2=BUSY B. ");
    go_on(1);
    expect("Ar1 ");
    go_on(1);
    expect("Ar1 A. C+ C. D+ D. ");
}

/* ---- locks */

PROMISE(a_lock_is_held_across_awaits_and_goes_to_the_next_in_line_at_once) {
    root('A', 0, "l0 r0 u0 y0 y0");
    root('B', 1, "l0 r1 u0 r1");
    root('C', 2, "l0 u0");
    root('D', 3, "r3");
    go();
    expect("A+ Al0 B+ C+ D+ ");
    go_on(3); /* others go on */
    expect("Dr3 D. ");
    give(0);
    while (!strstr(w.log, "Au0")) cr_assert_geq(ol_loop_step(w.loop, 0), 0);
    cr_assert_eq(w.mutex[0].holder, co_of('B'));
    go();
    expect("Ar0 Au0 Bl0 Ay0 Ay0 A. ");
    go_on(1);
    expect("Br1 Bu0 Cl0 Cu0 C. ");
    cr_assert_null(w.mutex[0].holder);
    go_on(1);
    expect("Br1 B. ");
}

PROMISE(a_lock_is_released_by_the_end_of_its_holder) {
    script('C', "l1 r0");
    root('A', 0, "l0 fC"); /* at its OL_END, before it waits for children */
    root('B', 1, "l0 r1 l1 R3");
    root('D', 2, "l0");
    go();
    expect_each("A+ Al0 AfC B+ D+ C+ Cl1 Bl0 ");
    go_on(1);
    expect("Br1 ");
    go_on(0);
    expect_each("Cr0 C. A. Bl1 B. Dl0 D. ");
    for (int i = 0; i < 2; i++) cr_assert_null(w.mutex[i].holder);
}

PROMISE(many_locks_are_released_by_the_end_of_their_holder) {
    static const char *const all = "l0 l1 l2 l3 l4 l5 l6 l7 l8 l9 l: l; l< l= l> l? l@ lA lB lC"; /* '0' + 0..19 */
    root('A', 0, all);
    named('A')->at = all;
    root('B', 1, "l? l0");
    root('C', 2, "l3 u3 l:");
    go();
    cr_assert_null(strstr(w.log, "=D"), "%s", w.log);
    cr_assert_not_null(strstr(w.log, "A. B+ Bl? Bl0 B. C+ Cl3 Cu3 Cl: C. "), "%s", w.log);
    for (int i = 0; i < MUTEXES; i++) cr_assert_null(w.mutex[i].holder, "mutex %d", i);
}

PROMISE(a_lock_that_could_never_come_is_EDEADLK) {
    root('A', 0, "l0 l0 y0 l1 u0 r0");
    root('B', 1, "l1 y0 y0 l0 u1");
    go();
    expect("A+ Al0 Al0=DEADLK B+ Bl1 Ay0 By0 By0 Bl0=DEADLK Bu1 B. Al1 Au0 ");
    says('A', "could never end");
    go_on(0);
    expect("Ar0 A. ");
}

PROMISE(a_lock_ends_with_a_cancel_a_deadline_or_want_of_memory_and_others_keep_their_order) {
    root('A', 0, "l0 r0");
    root('B', 1, "l0");
    root('C', 2, "d1 l0");
    root('D', 3, "l0");
    root('E', 4, "l0");
    go();
    no_memory = 1;
    expect("A+ Al0 B+ C+ Cd1 D+ E+ ");
    ol_cancel(co_of('B'));
    while (!strstr(w.log, "C.")) cr_assert_geq(ol_loop_step(w.loop, -1), 0);
    expect("Bl0=CANCELED B. Cl0=TIMEDOUT C. ");
    says('B', "cancelled");
    says('C', "ol_deadline");
    no_memory = 0;
    go_on(0);
    expect("Ar0 A. Dl0 D. El0 E. ");
}

PROMISE(a_lock_without_memory_to_look_for_circles_is_ENOMEM) {
    root('A', 0, "l0 r0");
    root('B', 1, "l0 y0 l0");
    no_memory = 1;
    while (!strstr(w.log, "Bl0")) cr_assert_geq(ol_loop_step(w.loop, 0), 0);
    no_memory = 0;
    go();
    expect("A+ Al0 B+ Bl0=NOMEM By0 ");
    says('B', "memory");
    go_on(0);
    expect("Ar0 A. Bl0 B. ");
}

static void locks_nothing(ol_co *co) {
    OL_BEGIN(co);
    OL_AWAIT(refused[0], ol_lock(co, NULL));
    refused_text[0] = ol_co_error(co);
    OL_END(co);
}
PROMISE(a_lock_of_another_loop_or_none_is_refused) {
    ol_loop *other = NULL;
    ol_co co;
    cr_assert_eq(ol_loop_create(&other, NULL), 0);
    root('A', 0, "l0 r0");
    go();
    script('B', "l0");
    cr_assert_eq(ol_spawn(other, co_of('B'), act, 0, 0), 0);
    cr_assert_eq(ol_loop_run(other), 0);
    expect("A+ Al0 B+ Bl0=XDEV B. ");
    says('B', "another loop");
    cr_assert_eq(ol_spawn(other, &co, locks_nothing, 0, 0), 0);
    cr_assert_eq(ol_loop_run(other), 0);
    cr_assert_eq(refused[0], -EINVAL);
    cr_assert_not_null(strstr(refused_text[0], "NULL"));
    go_on(0);
    script('B', "l0"); /* free: it may be anybody's */
    cr_assert_eq(ol_spawn(other, co_of('B'), act, 0, 0), 0);
    cr_assert_eq(ol_loop_run(other), 0);
    expect("Ar0 A. B+ Bl0 B. ");
    cr_assert_eq(ol_loop_destroy(other), 0);
}

PROMISE(an_unlock_by_another_than_the_holder_is_EINVAL) {
    script('C', "u0");
    root('A', 0, "u0 l0 fC w* u0 u0");
    root('B', 1, "y0 u0");
    go();
    expect("A+ Au0=INVAL Al0 AfC B+ C+ Cu0=INVAL C. By0 Bu0=INVAL B. Aw* Au0 Au0=INVAL A. ");
    says('B', "does not hold");
    cr_assert_eq(ol_unlock(NULL, &w.mutex[0]), -EINVAL);
    cr_assert_eq(ol_unlock(co_of('B'), NULL), -EINVAL);
}

PROMISE(an_unlock_from_outside_lets_the_next_one_in) {
    root('A', 0, "l0 r0");
    root('B', 1, "l0");
    go();
    cr_assert_eq(ol_unlock(co_of('A'), &w.mutex[0]), 0);
    go();
    expect("A+ Al0 B+ Bl0 B. ");
    go_on(0);
    expect("Ar0 A. ");
}

/* ---- handlers */

typedef struct watcher {
    ol_handler handler;
    const char *
        does; /* r reads a byte, R all; w writes a byte; x closes; u stops watching; o submits an operation; n nothing */
    int i;    /* the fd's number in the log */
    ol_op op;
    sem_t go;
    char buf[64];
} watcher;

static int64_t waits(void *arg) { /* an operation that is out until the test lets it go */
    while (sem_wait((sem_t *)arg) != 0) {
    }
    return 5;
}
static void op_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    say("o%d%s ", OL_CONTAINER(op, watcher, op)->i, op->result == 5 ? "" : "!");
}
static void on_ready(ol_loop *loop, ol_handler *handler, int ready) {
    watcher *h = OL_CONTAINER(handler, watcher, handler);
    const ol_fd fd = w.fd[h->i];
    say("h%d:%d ", h->i, ready);
    for (const char *p = h->does; *p; p++) {
        switch (*p) {
        case 'r': {
            const int64_t n = ol_try_read(loop, fd, h->buf, 1);
            if (n == -EAGAIN) return;
            cr_assert_eq(n, 1);
            break;
        }
        case 'R':
            while (ol_try_read(loop, fd, h->buf, 1) > 0) {
            }
            break;
        case 'w': cr_assert_eq(ol_try_write(loop, fd, "y", 1), 1); break;
        case 'x': cr_assert_eq(ol_close(loop, fd), 0); break;
        case 'u': cr_assert_eq(ol_unwatch(loop, fd), 0); break;
        case 'o': cr_assert_eq(ol_submit(loop, ol_prep_call(&h->op, waits, &h->go), op_done), 0); break;
        default: break;
        }
    }
}
static void watch(watcher *h, int i, int events, const char *does) {
    h->does = does;
    h->i = i;
    cr_assert_eq(ol_watch(w.loop, w.fd[i], &h->handler, events, on_ready), 0, "%s", ol_error());
}
/* Steps until the log contains `words`: what other threads do may take its time. */
static void until(const char *words) {
    while (!strstr(w.log, words)) cr_assert_geq(ol_loop_step(w.loop, -1), 0, "%s", ol_error());
    go();
}

PROMISE(a_handler_is_called_again_as_long_as_there_is_something) {
    static watcher h;
    watch(&h, 0, OL_READABLE, "r");
    go();
    expect("");
    cr_assert_eq(write(w.far[0], "abc", 3), 3);
    go();
    expect("h0:1 h0:1 h0:1 h0:1 "); /* the last one: it can't know before it has looked */
}

static int raw_calls;
static void reads_raw(ol_loop *loop, ol_handler *handler, int ready) {
    char buf[16];
    (void)ready;
    raw_calls++;
    if (read(ol_fd_raw(loop, handler->fd), buf, sizeof buf) < 0 && errno == EAGAIN) ol_again(loop, handler->fd, 0);
}
PROMISE(a_handler_with_calls_of_its_own_says_when_there_is_no_more) {
    static ol_handler h;
    cr_assert_eq(ol_watch(w.loop, w.fd[0], &h, OL_READABLE, reads_raw), 0);
    for (int i = 0; i < 3; i++) {
        go_on(0);
        cr_assert_eq(raw_calls, 2 * (i + 1));
    }
}

PROMISE(a_handler_waits_while_a_coroutine_lives_in_its_partition) {
    static watcher h;
    watch(&h, 0, OL_READABLE, "R");
    root('A', 0, "r0 r1 y0");
    named('A')->at = "r0 s0 C0";
    go_on(0);
    expect("A+ Ar0 ");
    go_on(0);
    expect("");
    ol_cancel(co_of('A'));
    go();
    expect("As0=CANCELED AC0 A. h0:1 ");
    root('A', 0, "r0"); /* it reads what there is: little is left for the handler */
    go_on(0);
    expect("A+ Ar0 A. h0:1 ");
}

PROMISE(a_handler_waits_until_the_done_of_its_operation_has_returned_and_others_go_on) {
    static watcher h[2];
    sem_init(&h[0].go, 0, 0);
    watch(&h[0], 0, OL_READABLE, "ro");
    watch(&h[1], 1, OL_READABLE, "R");
    go_on(0);
    expect("h0:1 ");
    root('B', 0,
         ""); /* nor does a root of this partition start; it comes behind the handler, which got in line before */
    give(0);
    go_on(1);
    expect("h1:1 ");
    sem_post(&h[0].go);
    sem_post(&h[0].go);
    until("B. h0:1 ");
    expect("o0 h0:1 o0 B+ B. h0:1 ");
    cr_assert_eq(ol_unwatch(w.loop, w.fd[0]), 0);
}

static void takes_the_other_off(ol_loop *loop, ol_handler *handler, int ready) {
    watcher *h = OL_CONTAINER(handler, watcher, handler);
    say("h ");
    (void)ready;
    cr_assert_eq(h->does[0] == 'x' ? ol_close(loop, w.fd[h->i]) : ol_unwatch(loop, w.fd[h->i]), 0);
    cr_assert_eq(ol_unwatch(loop, handler->fd), 0);
}
PROMISE(a_handler_that_was_taken_off_is_not_called_even_if_it_was_about_to_be) {
    static watcher h[2];
    go();
    for (int way = 0; way < 2; way++) {
        for (int i = 0; i < 2; i++) {
            h[i].does = way ? "x" : "u";
            h[i].i = 1 - i;
            cr_assert_eq(ol_watch(w.loop, w.fd[i], &h[i].handler, OL_WRITABLE, takes_the_other_off), 0);
        }
        go();
        expect("h "); /* one of the two */
    }
}

static watcher *replacement;
static void replaces_itself(ol_loop *loop, ol_handler *handler, int ready) {
    const ol_fd fd = handler->fd;
    say("old:%d ", ready);
    cr_assert_eq(ol_watch(loop, fd, &replacement->handler, OL_READABLE, on_ready), 0);
    memset(OL_CONTAINER(handler, watcher, handler), 0xa5, sizeof(watcher));
    free(OL_CONTAINER(handler, watcher, handler));
}
PROMISE(another_watch_changes_what_it_watches_for_or_replaces_it) {
    static watcher h, next;
    watcher *old = (watcher *)calloc(1, sizeof *old);
    watch(&h, 0, OL_READABLE, "n");
    go();
    expect("");
    watch(&h, 0, OL_READABLE | OL_WRITABLE, "u");
    go();
    expect("h0:2 ");
    replacement = &next;
    next.does = "R", next.i = 1;
    cr_assert_eq(ol_watch(w.loop, w.fd[1], &old->handler, OL_READABLE, replaces_itself), 0);
    go_on(1);
    expect("old:1 h1:1 ");
    cr_assert_eq(ol_unwatch(w.loop, w.fd[1]), 0);
    watch(&h, 2, OL_READABLE, "R"); /* free again for another fd */
    go_on(2);
    expect("h2:1 ");
}

PROMISE(a_handler_hears_of_both_after_an_error) {
    static watcher h;
    char junk[4096];
    memset(junk, 0, sizeof junk);
    while (ol_try_write(w.loop, w.fd[0], junk, sizeof junk) > 0) {
    } /* not writable any more */
    go();
    while (ol_try_write(w.loop, w.fd[0], junk, sizeof junk) > 0) {
    }
    watch(&h, 0, OL_READABLE | OL_WRITABLE, "x");
    go();
    expect("");
    close(w.far[0]); /* with bytes unread: a reset */
    w.far[0] = 0;
    go();
    expect("h0:3 ");
}

PROMISE(watch_and_unwatch_refuse_nonsense) {
    static watcher h;
    const ol_fd stale = w.fd[5];
    ol_close(w.loop, stale);
    cr_assert_eq(ol_watch(w.loop, stale, &h.handler, OL_READABLE, on_ready), -EBADF);
    cr_assert_not_null(strstr(ol_error(), "stale"));
    cr_assert_eq(ol_watch(NULL, w.fd[0], &h.handler, OL_READABLE, on_ready), -EBADF);
    cr_assert_eq(ol_watch(w.loop, w.fd[0], NULL, OL_READABLE, on_ready), -EINVAL);
    cr_assert_not_null(strstr(ol_error(), "OL_READABLE"));
    cr_assert_eq(ol_watch(w.loop, w.fd[0], &h.handler, OL_READABLE, NULL), -EINVAL);
    cr_assert_eq(ol_watch(w.loop, w.fd[0], &h.handler, 0, on_ready), -EINVAL);
    cr_assert_eq(ol_watch(w.loop, w.fd[0], &h.handler, 4, on_ready), -EINVAL);
    cr_assert_eq(ol_watch(w.loop, w.fd[0], &h.handler, -1, on_ready), -EINVAL);
    watch(&h, 0, OL_READABLE, "n");
    cr_assert_eq(ol_watch(w.loop, w.fd[1], &h.handler, OL_READABLE, on_ready), -EINVAL);
    cr_assert_not_null(strstr(ol_error(), "another fd"));
    cr_assert_eq(ol_unwatch(w.loop, stale), -EBADF);
    cr_assert_not_null(strstr(ol_error(), "stale"));
    cr_assert_eq(ol_unwatch(w.loop, w.fd[1]), 0); /* there is none: as asked */
    cr_assert_eq(ol_unwatch(w.loop, w.fd[0]), 0);
    cr_assert_eq(ol_unwatch(w.loop, w.fd[0]), 0);
}

#define fails(call, number, words)                                                                                     \
    do {                                                                                                               \
        const int64_t result = (call);                                                                                 \
        cr_assert_eq(result, -(number), "%s gave %lld", #call, (long long)result);                                     \
        cr_assert_not_null(strstr(ol_error(), (words)), "%s says: %s", #call, ol_error());                             \
    } while (0)

PROMISE(try_calls_transfer_or_say_why_not) {
    char buf[8];
    struct iovec iov[2] = {{buf, 2}, {buf + 4, 4}};
    const struct iovec empty = {buf, 0};
    fails(ol_try_read(w.loop, w.fd[0], buf, 8), EAGAIN, "nothing is there");
    go();
    fails(ol_try_read(w.loop, w.fd[0], buf, 8), EAGAIN, "nothing is there");
    cr_assert_eq(ol_try_write(w.loop, w.fd[0], "hello", 5), 5);
    cr_assert_eq(ol_try_writev(w.loop, w.fd[0], iov, 2), 6);
    cr_assert_eq(read(w.far[0], buf, 8), 8);
    cr_assert(memcmp(buf, "hello", 5) == 0);
    cr_assert_eq(write(w.far[0], "abcdef", 6), 6);
    go();
    cr_assert_eq(ol_try_readv(w.loop, w.fd[0], iov, 2), 6);
    cr_assert(memcmp(buf, "ab", 2) == 0 && memcmp(buf + 4, "cdef", 4) == 0);
    fails(ol_try_read(w.loop, w.fd[0], buf, 0), EINVAL, "0 bytes");
    fails(ol_try_readv(w.loop, w.fd[0], &empty, 1), EINVAL, "0 bytes");
    fails(ol_try_readv(w.loop, w.fd[0], NULL, 1), EINVAL, "iovec");
    fails(ol_try_readv(w.loop, w.fd[0], iov, 0), EINVAL, "iovec");
    fails(ol_try_writev(w.loop, w.fd[0], iov, 1025), EINVAL, "iovec");
    fails(ol_try_read(w.loop, 99, buf, 8), EBADF, "stale");
    fails(ol_try_write(w.loop, 99, buf, 8), EBADF, "stale");
    fails(ol_try_accept(w.loop, 99), EBADF, "stale");
    fails(ol_try_read(NULL, w.fd[0], buf, 8), EBADF, "stale");
    root('A', 0, "r0");
    go();
    fails(ol_try_read(w.loop, w.fd[0], buf, 8), EXDEV, "partition");
    fails(ol_try_write(w.loop, w.fd[0], buf, 8), EXDEV, "partition");
    go_on(0);
    shutdown(w.far[0], SHUT_WR);
    go();
    cr_assert_eq(ol_try_read(w.loop, w.fd[0], buf, 8), 0);
    cr_assert_eq(ol_try_read(w.loop, w.fd[0], buf, 8), 0); /* and again */
    close(w.far[0]);
    w.far[0] = 0;
    go();
    fails(ol_try_write(w.loop, w.fd[0], buf, 8), EPIPE, "peer has closed"); /* and no SIGPIPE */
    fails(ol_try_accept(w.loop, w.fd[1]), EAGAIN, "nothing is there");
    give(1);
    go();
    fails(ol_try_accept(w.loop, w.fd[1]), EINVAL, "system call"); /* no listener */
}

static int64_t tried[4];
static void tries(ol_co *co) { /* in the partition of fd 0, while its child waits to read */
    static char buf[8];
    OL_BEGIN(co);
    cr_assert_eq(ol_fork(co, &named('B')->child, act), 0);
    OL_YIELD();
    tried[0] = ol_try_read(w.loop, w.fd[0], buf, 8);
    refused_text[0] = ol_error();
    tried[1] = ol_try_write(w.loop, w.fd[0], buf, 8);
    tried[2] = ol_try_write(w.loop, w.fd[1], buf, 8);
    refused_text[2] = ol_error();
    tried[3] = ol_join(co, w.fd[1]) == OL__DONE ? ol_try_write(w.loop, w.fd[1], buf, 8) : 0;
    OL_END(co);
}
PROMISE(try_calls_serve_who_runs_in_the_partition_but_not_past_one_who_waits) {
    ol_co co;
    script('B', "r0");
    go();
    root('C', 1, "");
    cr_assert_eq(ol_spawn(w.loop, &co, tries, w.fd[0], 0), 0);
    go();
    cr_assert_eq(tried[0], -EBUSY);
    cr_assert_not_null(strstr(refused_text[0], "waits for this direction"));
    cr_assert_eq(tried[1], 8);
    cr_assert(tried[2] == -EXDEV || tried[2] == 8, "%d", (int)tried[2]); /* free, but not its own */
    cr_assert_eq(tried[3], 8);
    go_on(0);
    expect_each("C+ C. B+ Br0 B. ");
}

PROMISE(try_writes_may_be_short_and_go_on_when_the_fd_is_writable_again) {
    static watcher h;
    static char out[1 << 20], in[1 << 16];
    int64_t sent = 0, n;
    go();
    while ((n = ol_try_write(w.loop, w.fd[0], out, sizeof out)) > 0) {
        cr_assert_lt(n, (int64_t)sizeof out);
        sent += n;
    }
    cr_assert_eq(n, -EAGAIN);
    watch(&h, 0, OL_WRITABLE, "u");
    go();
    expect("");
    for (int64_t got = 0; got < sent;) got += read(w.far[0], in, sizeof in);
    go();
    expect("h0:2 ");
}

static int64_t accepted[64];
static int accepts;
static void accepts_one(ol_loop *loop, ol_handler *handler, int ready) {
    (void)ready;
    const int64_t r = ol_try_accept(loop, handler->fd);
    accepted[accepts++ % 64] = r;
    if (r >= 0) say("a ");
    if (r < 0 && r != -EAGAIN) say("a%d:%s ", (int)-r, strstr(ol_error(), "ulimit -n") ? "ulimit" : ol_error());
}
static ol_fd listener(struct sockaddr_in *a) {
    ol_fd fd = 0;
    socklen_t len = sizeof *a;
    memset(a, 0, sizeof *a);
    a->sin_family = AF_INET;
    a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(ol_listen(w.loop, (struct sockaddr *)a, len, 16, 0, OL_LATENCY, &fd), 0, "%s", ol_error());
    cr_assert_eq(getsockname(ol_fd_raw(w.loop, fd), (struct sockaddr *)a, &len), 0);
    return fd;
}
static int dial(const struct sockaddr_in *a) {
    const int s = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(s, (const struct sockaddr *)a, sizeof *a), 0);
    return s;
}
PROMISE(try_accept_gives_attached_connections_of_their_own_partition) {
    struct sockaddr_in a;
    static ol_handler h;
    const ol_fd fd = listener(&a);
    cr_assert_eq(ol_watch(w.loop, fd, &h, OL_READABLE, accepts_one), 0);
    const int client[2] = {dial(&a), dial(&a)};
    while (accepts < 3) cr_assert_geq(ol_loop_step(w.loop, -1), 0);
    go();
    expect("a a ");
    w.fd[4] = (ol_fd)accepted[0], w.fd[5] = (ol_fd)accepted[1];
    cr_assert_eq(accepted[2], -EAGAIN);
    root('A', 4, "r4 r5");
    root('B', 5, "r5");
    go();
    cr_assert_eq(write(client[0], "x", 1), 1);
    cr_assert_eq(write(client[1], "x", 1), 1);
    until("B. ");
    until("A. ");
    expect_each("A+ Ar4 Ar5=XDEV A. B+ Br5 B. ");
    for (int i = 0; i < 2; i++) close(client[i]);
    cr_assert_eq(ol_unwatch(w.loop, fd), 0);
}

PROMISE(try_accept_without_a_free_fd_lets_the_listener_rest) {
    struct sockaddr_in a;
    struct rlimit old, few;
    static ol_handler h;
    const ol_fd fd = listener(&a);
    cr_assert_eq(ol_watch(w.loop, fd, &h, OL_READABLE, accepts_one), 0);
    const int client = dial(&a), spare = dup(client);
    getrlimit(RLIMIT_NOFILE, &old);
    few = old;
    few.rlim_cur = (rlim_t)spare + 1;
    setrlimit(RLIMIT_NOFILE, &few);
    int filler[64], n = 0;
    while (n < 64 && (filler[n] = dup(0)) >= 0) n++;
    const uint64_t turns = stats().turns;
    while (accepts < 3) cr_assert_geq(ol_loop_step(w.loop, -1), 0);
    cr_assert_lt(stats().turns - turns, 20u, "it spins");
    expect("a24:ulimit a24:ulimit a24:ulimit ");
    cr_assert_eq(stats().accept_full, 3u);
    close(spare);
    until("a "); /* one fd is free, and there is no new event: the rest ends by itself */
    setrlimit(RLIMIT_NOFILE, &old);
    for (int i = 0; i < n; i++) close(filler[i]);
    close(client);
    cr_assert_eq(ol_unwatch(w.loop, fd), 0);
}

PROMISE(a_loop_runs_as_long_as_it_has_a_handler) {
    static watcher h;
    watch(&h, 0, OL_READABLE, "ru");
    give(0);
    ends();
    expect("h0:1 ");
    watch(&h, 0, OL_READABLE, "rx");
    give(0);
    ends();
    expect("h0:1 ");
    ends();
}

PROMISE(handlers_of_latency_critical_fds_go_first) {
    static watcher h[2];
    ol_fd fd = 0;
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    cr_assert_eq(ol_attach(w.loop, sv[0], OL_LATENCY, &fd), 0);
    w.fd[5] = fd;
    go();
    watch(&h[0], 0, OL_WRITABLE, "u");
    watch(&h[1], 5, OL_WRITABLE, "u");
    go();
    expect("h5:2 h0:2 ");
    close(sv[1]);
}

/* ---- gated timers and posts */

typedef struct tick {
    ol_timer timer;
    ol_post_node node;
    char name;
    watcher *submits;
} tick;
static void ticked(tick *t) {
    say("%c ", t->name);
    if (t->submits) cr_assert_eq(ol_submit(w.loop, ol_prep_call(&t->submits->op, waits, &t->submits->go), op_done), 0);
}
static void on_timer(ol_loop *loop, ol_timer *timer) {
    (void)loop;
    ticked(OL_CONTAINER(timer, tick, timer));
}
static void on_post(ol_loop *loop, ol_post_node *node) {
    (void)loop;
    ticked(OL_CONTAINER(node, tick, node));
}
static void start(tick *t, char name, ol_fd fd, int64_t ns) {
    t->name = name;
    t->timer.fd = fd;
    cr_assert_eq(ol_timer_start(w.loop, &t->timer, ns, on_timer), 0);
}
static int post(tick *t, char name, ol_fd fd) {
    if (!t->node.next) t->name = name, t->node.fd = fd, t->node.fn = on_post;
    return ol_post(w.loop, &t->node);
}

PROMISE(timers_and_posts_of_an_fd_wait_for_its_partition_in_line_with_all_else) {
    static watcher h;
    tick t[4];
    memset(t, 0, sizeof t);
    root('A', 0, "r0 r0");
    root('J', 1, "j0");
    named('J')->at = "y0 y0 j0";
    go();
    expect("A+ J+ Jy0 Jy0 ");
    start(&t[0], 't', w.fd[0], 0);
    go();
    root('B', 0, "");
    go();
    cr_assert_eq(post(&t[1], 'p', w.fd[0]), 0);
    go();
    watch(&h, 0, OL_WRITABLE, "u");
    go();
    start(&t[2], 's', w.fd[0], 0);
    start(&t[3], 'f', 0, 0); /* of no fd, and of another one: at once */
    cr_assert_eq(post(&t[3], 'f', w.fd[3]), 0);
    go();
    expect("f f ");
    go_on(0);
    expect("Ar0 ");
    go_on(0);
    expect("Ar0 A. Jj0 J. t B+ B. p h0:2 s ");
}

PROMISE(what_a_gated_callback_submits_holds_its_partition) {
    watcher op = {0};
    tick t = {0};
    for (int way = 0; way < 2; way++) {
        sem_init(&op.go, 0, 0);
        t.submits = &op;
        if (way) cr_assert_eq(post(&t, 't', w.fd[0]), 0);
        else start(&t, 't', w.fd[0], 0);
        go();
        root('A', 0, "");
        root('B', 1, "");
        go();
        expect("t B+ B. ");
        sem_post(&op.go);
        until("A. ");
        expect("o0 A+ A. ");
    }
}

PROMISE(timers_and_posts_of_a_closed_fd_run_like_those_of_none) {
    tick t[4];
    memset(t, 0, sizeof t);
    root('A', 0, "r0 s0");
    go();
    start(&t[0], 't', w.fd[0], 0); /* these wait already when it is closed */
    go();
    cr_assert_eq(post(&t[1], 'p', w.fd[0]), 0);
    go();
    expect("A+ ");
    ol_close(w.loop, w.fd[0]);
    start(&t[2], 'u', w.fd[0], 0); /* these don't */
    cr_assert_eq(post(&t[3], 'q', w.fd[0]), 0);
    go();
    cr_assert(strcmp(w.log, "q u Ar0=CANCELED ") == 0 || strcmp(w.log, "q Ar0=CANCELED u ") == 0, "%s", w.log);
    w.log[0] = 0;
    ol_cancel(co_of('A'));
    go();
    expect("As0=CANCELED A. t p ");
}

PROMISE(a_timer_that_waits_for_its_partition_can_be_stopped_and_started_again) {
    tick t[3];
    memset(t, 0, sizeof t);
    root('A', 0, "r0");
    go();
    for (int i = 0; i < 3; i++) start(&t[i], (char)('t' + i), w.fd[0], 0);
    go();
    expect("A+ ");
    ol_timer_stop(w.loop, &t[0].timer);
    ol_timer_stop(w.loop, &t[0].timer);
    start(&t[1], 'v', 0, 0); /* of no fd now */
    go();
    expect("v ");
    ol_timer_stop(w.loop, &t[1].timer);
    start(&t[2], 'x', w.fd[0], 1000000);
    go_on(0);
    expect("Ar0 A. ");
    until("x ");
    expect("x ");
    ends(); /* none is left */
}

PROMISE(a_timer_that_was_admitted_and_has_not_run_can_be_stopped) {
    ol_loop_desc d;
    tick t[2];
    memset(t, 0, sizeof t);
    memset(&d, 0, sizeof d);
    d.turn = 1; /* one a round */
    cr_assert_eq(ol_loop_destroy(w.loop), 0);
    cr_assert_eq(ol_loop_create(&w.loop, &d), 0);
    for (int i = 0; i < 2; i++) attached(i);
    for (int i = 0; i < 2; i++) start(&t[i], (char)('t' + i), w.fd[i], 0);
    while (!w.log[0]) cr_assert_geq(ol_loop_step(w.loop, 0), 0);
    const int other = w.log[0] == 't';
    ol_timer_stop(w.loop, &t[other].timer);
    root('A', other, ""); /* its partition is free */
    w.log[0] = 0;
    ends();
    expect("A+ A. ");
}

PROMISE(a_post_is_EBUSY_while_it_waits_and_its_function_is_called_once) {
    tick t = {0};
    root('A', 0, "r0");
    go();
    ol_loop_run(NULL); /* leaves a text */
    const char *before = ol_error();
    cr_assert_eq(post(&t, 'p', w.fd[0]), 0);
    cr_assert_eq(post(&t, 'p', w.fd[0]), -EBUSY);
    go();
    cr_assert_eq(post(&t, 'p', w.fd[0]), -EBUSY);
    cr_assert_eq(ol_error(), before, "it leaves ol_error alone");
    go_on(0);
    expect("A+ Ar0 A. p ");
    cr_assert_eq(post(&t, 'q', w.fd[0]), 0);
    go();
    expect("q ");
}

PROMISE(timers_and_posts_that_wait_move_with_a_join) {
    tick t[2];
    memset(t, 0, sizeof t);
    root('H', 1, "r1");
    root('A', 0, "j1 r0");
    go();
    start(&t[0], 't', w.fd[1], 0);
    cr_assert_eq(post(&t[1], 'p', w.fd[1]), 0);
    go();
    expect("H+ A+ ");
    go_on(1);
    expect("Hr1 H. Aj1 ");
    ol_timer_stop(w.loop, &t[0].timer);
    go_on(0);
    expect("Ar0 A. p ");
}

PROMISE(posts_that_wait_run_before_the_loop_is_destroyed) {
    static watcher h;
    tick t = {0};
    sem_init(&h.go, 0, 1);
    t.submits = &h;
    start(&t, 't', w.fd[0], 0);
    go();
    tick p = {0};
    cr_assert_eq(post(&p, 'p', w.fd[0]), 0);
    cr_assert_eq(ol_loop_destroy(w.loop), 0);
    w.loop = NULL;
    cr_assert(strcmp(w.log, "t o0 p ") == 0 || strcmp(w.log, "t o0! p ") == 0, "%s",
              w.log); /* stopped in time or not */
}
