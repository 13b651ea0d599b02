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
    root('A', 0, "j1 C0 d1 j1 D0 j5 j1 j1");
    w.fd[5] = w.fd[1] + ((ol_fd)1 << 32); /* stale */
    go();
    ol_cancel(co_of('A'));
    while (!strstr(w.log, "Aj5")) cr_assert_geq(ol_loop_step(w.loop, -1), 0);
    expect("H+ A+ Aj1=CANCELED AC0 Ad1 Aj1=TIMEDOUT AD0 Aj5=BADF ");
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
    expect_each("Hs0=CANCELED HC0 Aj0=CANCELED AC0 A. Bj0=CANCELED BC0 B. ");
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

PROMISE(a_lock_ends_with_a_cancel_or_a_deadline_and_others_keep_their_order) {
    root('A', 0, "l0 r0");
    root('B', 1, "l0");
    root('C', 2, "d1 l0");
    root('D', 3, "l0");
    root('E', 4, "l0");
    go();
    ol_cancel(co_of('B'));
    while (!strstr(w.log, "C. ")) cr_assert_geq(ol_loop_step(w.loop, -1), 0);
    expect_each("A+ Al0 B+ Bl0=CANCELED B. C+ Cd1 Cl0=TIMEDOUT C. D+ E+ ");
    says('B', "cancelled");
    says('C', "ol_deadline");
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
    root('A', 0, "r0 s0 C0");
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
    root('J', 1, "y0 y0 j0");
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
    until("x ");
    expect("Ar0 A. x ");
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

/* ---- guests */

static int guest_fd; /* what the other loop watches */
static int readable_within(int ms) {
    struct pollfd p = {guest_fd, POLLIN, 0};
    const int n = poll(&p, 1, ms);
    cr_assert_geq(n, 0);
    return n;
}
static int is_readable(void) { return readable_within(0); }
static void turns_readable(void) { cr_assert(readable_within(30000), "it doesn't turn readable"); }
static void settles(void) { /* the other loop calls as long as it is told to */
    int steps = 0;
    for (; is_readable(); steps++) {
        cr_assert_geq(ol_loop_step(w.loop, 0), 0, "%s", ol_error());
        cr_assert_lt(steps, 200, "it stays readable with nothing to do");
    }
}
static void become_guest(void) {
    guest_fd = ol_loop_fd(w.loop);
    cr_assert_geq(guest_fd, 0, "%s", ol_error());
    settles();
}
static void guest_until(const char *words) {
    while (!strstr(w.log, words)) {
        turns_readable();
        settles();
    }
}
static ol_fd guest_attached(int i) { /* w.fd[i] becomes the handle of an fd that the other loop polls */
    int sv[2];
    ol_close(w.loop, w.fd[i]);
    close(w.far[i]);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
    cr_assert_eq(ol_attach_guest(w.loop, sv[0], 0, &w.fd[i]), 0, "%s", ol_error());
    w.far[i] = sv[1];
    return w.fd[i];
}

PROMISE(the_loops_fd_is_one_and_the_same_and_says_why_there_is_none) {
    const int fds = open_fds();
    no_timerfd = 1;
    fails(ol_loop_fd(w.loop), EMFILE, "ulimit -n");
    fails(ol_loop_fd(NULL), EINVAL, "NULL");
    cr_assert_eq(open_fds(), fds);
    no_timerfd = 0;
    const int fd = ol_loop_fd(w.loop);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ol_loop_fd(w.loop), fd);
    cr_assert_eq(open_fds(), fds + 1);
}

PROMISE(the_loops_fd_is_readable_at_once_if_work_was_there_before) {
    root('A', 0, "");
    guest_fd = ol_loop_fd(w.loop);
    turns_readable();
    settles();
    expect("A+ A. ");
}

static void *posts_from_a_thread(void *arg) {
    cr_assert_eq(ol_post(w.loop, (ol_post_node *)arg), 0);
    return NULL;
}
PROMISE(the_loops_fd_turns_readable_for_events_completions_posts_and_timers_and_for_nothing_else) {
    static watcher h, op;
    static tick t, p;
    pthread_t thread;
    sem_init(&op.go, 0, 0);
    become_guest();
    watch(&h, 0, OL_READABLE, "R");
    settles();
    give(0);
    turns_readable();
    settles();
    expect("h0:1 ");
    cr_assert_eq(ol_submit(w.loop, ol_prep_call(&op.op, waits, &op.go), op_done), 0);
    settles(); /* it is out */
    expect("");
    sem_post(&op.go);
    guest_until("o0 ");
    expect("o0 ");
    p.name = 'p', p.node.fn = on_post;
    cr_assert_eq(pthread_create(&thread, NULL, posts_from_a_thread, &p.node), 0);
    guest_until("p ");
    pthread_join(thread, NULL);
    expect("p ");
    start(&t, 't', 0, 3000000);
    const int64_t due = ol_now(w.loop) + 3000000;
    settles();
    guest_until("t ");
    cr_assert_geq(ol_now(w.loop), due);
    expect("t ");
    settles();
    cr_assert_eq(readable_within(20), 0, "it is readable for nothing");
    ol_unwatch(w.loop, w.fd[0]);
}

/* What is called from outside a step and makes work, each in a loop that was asleep. */
static void call_from_outside(int what) {
    static watcher h, op;
    static tick t;
    sem_init(&op.go, 0, 0);
    root('A', 0, "s0 C0 D0");
    root('B', 1, "r1");
    root('C', 2, "l0 r2");
    root('D', 3, "l0");
    settles();
    w.log[0] = 0;
    switch (what) {
    case 0: root('E', 4, ""); break;
    case 1: cr_assert_eq(ol_submit(w.loop, ol_prep_crc32(&op.op, 0, "abc", 3), op_done), 0); break;
    case 2: start(&t, 't', 0, 0); break;
    case 3: ol_cancel(co_of('A')); break;
    case 4: cr_assert_eq(ol_close(w.loop, w.fd[1]), 0); break;
    case 5: cr_assert_eq(ol_deadline(co_of('A'), 0), 0); break;
    case 6: watch(&h, 4, OL_WRITABLE, "u"); break;
    case 7: cr_assert_eq(ol_unlock(co_of('C'), &w.mutex[0]), 0); break;
    case 8: cr_assert_eq(post(&t, 't', 0), 0); break;
    default: { /* an fd whose number is given out again behind the loop's back: who waited for it is told */
        ol_fd again = 0;
        const int raw = ol_fd_raw(w.loop, w.fd[1]);
        close(raw);
        cr_assert_eq(dup2(w.far[1], raw), raw);
        cr_assert_eq(ol_attach(w.loop, raw, 0, &again), 0);
    }
    }
    turns_readable();
    settles();
    cr_assert_neq(w.log[0], 0, "nothing came of it");
    cr_assert_eq(ol_loop_drain(w.loop, hour), 0);
}
#define FROM_OUTSIDE(name, what)                                                                                       \
    PROMISE(the_loops_fd_turns_readable_after_##name##_from_outside) {                                                 \
        become_guest();                                                                                                \
        call_from_outside(what);                                                                                       \
    }
FROM_OUTSIDE(a_spawn, 0)
FROM_OUTSIDE(a_submit, 1)
FROM_OUTSIDE(a_timer_start, 2)
FROM_OUTSIDE(a_cancel, 3)
FROM_OUTSIDE(a_close, 4)
FROM_OUTSIDE(a_deadline, 5)
FROM_OUTSIDE(a_watch, 6)
FROM_OUTSIDE(an_unlock, 7)
FROM_OUTSIDE(a_post, 8)
FROM_OUTSIDE(an_attach_that_replaces, 9)

PROMISE(the_loops_fd_turns_readable_after_an_operations_cancel_and_a_timers_stop_that_frees_a_partition) {
    static watcher op;
    static tick t[2];
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.turn = 1;
    d.policy = "call any 0- async threads wait";
    cr_assert_eq(ol_loop_destroy(w.loop), 0);
    cr_assert_eq(ol_loop_create(&w.loop, &d), 0);
    for (int i = 0; i < 2; i++) attached(i);
    become_guest();
    cr_assert_eq(ol_submit(w.loop, ol_prep_call(&op.op, waits, &op.go), op_done), 0);
    cr_assert_eq(ol_op_cancel(w.loop, &op.op), 0); /* not submitted yet: stopped */
    guest_until("o0! ");
    expect("o0! ");
    for (int i = 0; i < 2; i++) start(&t[i], (char)('t' + i), w.fd[i], 0);
    while (!w.log[0]) cr_assert_geq(ol_loop_step(w.loop, 0), 0);
    const int other = w.log[0] == 't'; /* admitted, not yet run */
    root('A', other, "");
    ol_timer_stop(w.loop, &t[other].timer);
    w.log[0] = 0;
    turns_readable();
    settles();
    expect("A+ A. ");
}

static void guest_ready(ol_loop *loop, ol_handler *handler, int ready) {
    (void)loop;
    say("g%d:%d ", OL_CONTAINER(handler, watcher, handler)->i, ready);
}
static void guest_watch(watcher *h, int i) {
    h->i = i;
    cr_assert_eq(ol_watch(w.loop, w.fd[i], &h->handler, OL_READABLE, guest_ready), 0);
}

PROMISE(a_free_guest_may_go_on_and_what_it_submits_holds_its_partition) {
    static watcher h[2];
    sem_init(&h[0].go, 0, 0);
    for (int i = 0; i < 2; i++) {
        guest_attached(i);
        guest_watch(&h[i], i);
    }
    become_guest();
    cr_assert_eq(ol_gate_enter(w.loop, w.fd[0], OL_READABLE), 1);
    cr_assert_eq(ol_gate_leave(w.loop), 0);
    cr_assert(!is_readable(), "an event that made no work costs a step");
    cr_assert_eq(ol_gate_enter(w.loop, w.fd[0], OL_READABLE | OL_WRITABLE), 1);
    cr_assert_eq(ol_submit(w.loop, ol_prep_call(&h[0].op, waits, &h[0].go), op_done), 0);
    cr_assert_eq(ol_gate_leave(w.loop), 0);
    turns_readable();
    settles();
    cr_assert_eq(ol_gate_enter(w.loop, w.fd[1], OL_READABLE), 1); /* others go on */
    cr_assert_eq(ol_gate_leave(w.loop), 0);
    cr_assert_eq(ol_gate_enter(w.loop, w.fd[0], OL_READABLE), 0);
    cr_assert_eq(ol_gate_enter(w.loop, w.fd[0], OL_READABLE), 0);
    settles();
    expect("");
    sem_post(&h[0].go);
    guest_until("g0");
    expect("o0 g0:1 ");
    settles();
    expect(""); /* once */
    cr_assert_eq(ol_gate_enter(w.loop, w.fd[0], OL_READABLE), 1);
    cr_assert_eq(ol_gate_leave(w.loop), 0);
}

PROMISE(a_guest_hears_of_all_that_was_withheld_whatever_holds_the_partition) {
    static watcher h;
    guest_attached(1);
    guest_watch(&h, 1);
    become_guest();
    root('A', 0, "j1 r0");
    settles();
    expect("A+ Aj1 ");
    cr_assert_eq(ol_gate_enter(w.loop, w.fd[1], OL_WRITABLE), 0);
    cr_assert_eq(ol_gate_enter(w.loop, w.fd[1], OL_READABLE), 0);
    root('B', 0, "");
    settles();
    give(0);
    turns_readable();
    settles();
    expect("Ar0 A. g1:3 B+ B. ");
}

PROMISE(between_enter_and_leave_the_partition_is_the_guests) {
    static watcher h;
    char c = 0;
    guest_attached(0);
    guest_watch(&h, 0);
    become_guest();
    give(0);
    cr_assert_eq(ol_gate_enter(w.loop, w.fd[0], OL_READABLE), 1);
    root('A', 0, "");
    root('B', 1, "");
    fails(ol_loop_step(w.loop, 0), EBUSY, "ol_gate_leave");
    fails(ol_loop_run(w.loop), EBUSY, "ol_gate_leave");
    cr_assert_eq(ol_loop_drain(w.loop, 0), -ETIMEDOUT);
    fails(ol_gate_enter(w.loop, w.fd[0], OL_READABLE), EBUSY, "ol_gate_leave");
    cr_assert_eq(ol_try_read(w.loop, w.fd[0], &c, 1), 1);
    cr_assert_eq(ol_try_join(w.loop, w.fd[0], w.fd[2]), 0);
    expect("");
    cr_assert_eq(ol_gate_leave(w.loop), 0);
    turns_readable();
    settles();
    expect_each("A+ A. B+ B. ");
    root('C', 2, "r0"); /* joined; but this fd is polled elsewhere */
    turns_readable();
    settles();
    expect("C+ Cr0=NOTSUP C. ");
    says('C', "another loop");
}

PROMISE(a_loop_is_not_destroyed_between_enter_and_leave) {
    static watcher h;
    guest_attached(0);
    guest_watch(&h, 0);
    sem_init(&h.go, 0, 1);
    cr_assert_eq(ol_gate_enter(w.loop, w.fd[0], OL_READABLE), 1);
    cr_assert_eq(ol_submit(w.loop, ol_prep_call(&h.op, waits, &h.go), op_done), 0);
    fails(ol_loop_destroy(w.loop), EBUSY, "ol_gate_leave");
    cr_assert_eq(ol_gate_leave(w.loop), 0);
}

static int64_t inside_enter, inside_leave;
static const char *inside_text;
static void enters_inside(ol_loop *loop, ol_timer *timer) {
    (void)timer;
    inside_enter = ol_gate_enter(loop, w.fd[0], OL_READABLE);
    inside_text = ol_error();
    inside_leave = ol_gate_leave(loop);
}
PROMISE(the_gate_refuses_nonsense) {
    static watcher h;
    static tick t;
    const ol_fd stale = w.fd[5];
    ol_close(w.loop, stale);
    guest_attached(0);
    guest_attached(1);
    guest_watch(&h, 0);
    fails(ol_gate_enter(w.loop, stale, OL_READABLE), EBADF, "stale");
    fails(ol_gate_enter(NULL, w.fd[0], OL_READABLE), EBADF, "stale");
    fails(ol_gate_enter(w.loop, w.fd[2], OL_READABLE), EINVAL, "ol_attach_guest");
    fails(ol_gate_enter(w.loop, w.fd[1], OL_READABLE), EINVAL, "ol_watch");
    fails(ol_gate_enter(w.loop, w.fd[0], 0), EINVAL, "ol_gate_enter needs");
    fails(ol_gate_enter(w.loop, w.fd[0], 4), EINVAL, "ol_gate_enter needs");
    fails(ol_gate_leave(w.loop), EINVAL, "without an ol_gate_enter");
    fails(ol_gate_leave(NULL), EINVAL, "without an ol_gate_enter");
    cr_assert_eq(ol_timer_start(w.loop, &t.timer, 0, enters_inside), 0);
    go();
    cr_assert_eq(inside_enter, -EBUSY);
    cr_assert_not_null(strstr(inside_text, "loop is running"));
    cr_assert_eq(inside_leave, -EINVAL);
}

PROMISE(attach_guest_refuses_nonsense_and_close_closes) {
    ol_fd handle = 0;
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    fails(ol_attach_guest(NULL, sv[0], 0, &handle), EINVAL, "NULL");
    fails(ol_attach_guest(w.loop, sv[0], 0, NULL), EINVAL, "NULL");
    fails(ol_attach_guest(w.loop, sv[0], 3, &handle), EINVAL, "class");
    fails(ol_attach_guest(w.loop, -1, 0, &handle), EBADF, "negative");
    fails(ol_attach_guest(w.loop, 987654, 0, &handle), EBADF, "");
    cr_assert_str_neq(ol_error(), "no error");
    no_memory = 1;
    const int high = fcntl(sv[0], F_DUPFD, 700);
    fails(ol_attach_guest(w.loop, high, 0, &handle), ENOMEM, "memory");
    no_memory = 0;
    close(high);
    cr_assert_eq(ol_attach_guest(w.loop, sv[0], 0, &handle), 0);
    fails(ol_attach_guest(w.loop, sv[0], 0, &handle), EEXIST, "attached");
    fails(ol_attach(w.loop, sv[0], 0, &handle), EEXIST, "attached");
    cr_assert_eq(ol_fd_raw(w.loop, handle), sv[0]);
    cr_assert_eq(ol_close(w.loop, handle), 0);
    cr_assert_eq(fcntl(sv[0], F_GETFD), -1);
    close(sv[1]);
}

static int64_t guest_results[8];
static void awaits_a_guest(ol_co *co) {
    static char buf[8];
    static struct iovec iov = {buf, 8};
    OL_BEGIN(co);
    OL_AWAIT(guest_results[0], ol_read(co, w.fd[0], buf, 8));
    OL_AWAIT(guest_results[1], ol_readv(co, w.fd[0], &iov, 1));
    OL_AWAIT(guest_results[2], ol_write(co, w.fd[0], buf, 8));
    OL_AWAIT(guest_results[3], ol_writev(co, w.fd[0], &iov, 1));
    OL_AWAIT(guest_results[4], ol_wait_readable(co, w.fd[0]));
    OL_AWAIT(guest_results[5], ol_wait_writable(co, w.fd[0]));
    OL_AWAIT(guest_results[6], ol_accept(co, w.fd[0]));
    OL_AWAIT(guest_results[7], ol_connect(co, w.fd[0], NULL, 0));
    OL_END(co);
}
PROMISE(a_guests_fd_can_not_be_awaited_also_when_an_event_is_withheld) {
    static watcher h;
    ol_co co;
    guest_attached(0);
    guest_watch(&h, 0);
    root('A', 0, "y0 y0");
    cr_assert_eq(ol_spawn(w.loop, &co, awaits_a_guest, w.fd[0], 0), 0);
    cr_assert_eq(ol_gate_enter(w.loop, w.fd[0], OL_READABLE | OL_WRITABLE), 0);
    go();
    for (int i = 0; i < 8; i++) cr_assert_eq(guest_results[i], -ENOTSUP, "await %d gave %d", i, (int)guest_results[i]);
    expect("A+ Ay0 Ay0 A. g0:3 ");
}

PROMISE(a_guests_handler_is_not_called_after_unwatch_or_close_and_its_partition_is_free) {
    static watcher h[2];
    for (int i = 0; i < 2; i++) {
        guest_attached(i);
        guest_watch(&h[i], i);
    }
    root('A', 0, "j1 j2 r2");
    go();
    for (int i = 0; i < 2; i++) cr_assert_eq(ol_gate_enter(w.loop, w.fd[i], OL_READABLE), 0);
    cr_assert_eq(ol_unwatch(w.loop, w.fd[0]), 0);
    cr_assert_eq(ol_close(w.loop, w.fd[1]), 0);
    go_on(2);
    root('B', 0, "");
    go();
    expect("A+ Aj1 Aj2 Ar2 A. B+ B. ");
}

PROMISE(a_closed_guest_ends_its_operations_first) {
    static watcher h;
    guest_attached(0);
    guest_watch(&h, 0);
    sem_init(&h.go, 0, 0);
    const int raw = ol_fd_raw(w.loop, w.fd[0]);
    cr_assert_eq(ol_gate_enter(w.loop, w.fd[0], OL_READABLE), 1);
    cr_assert_eq(ol_submit(w.loop, ol_prep_call(&h.op, waits, &h.go), op_done), 0);
    cr_assert_eq(ol_close(w.loop, w.fd[0]), 0); /* its own, while it handles it */
    cr_assert_neq(fcntl(raw, F_GETFD), -1);
    cr_assert_eq(ol_gate_leave(w.loop), 0);
    sem_post(&h.go);
    until("o0");
    cr_assert_eq(fcntl(raw, F_GETFD), -1);
    w.log[0] = 0;
}

/* A server with a loop of its own in small: poll(2), sums as operations, every byte counted. */
static struct guest_conn {
    ol_handler handler;
    ol_op op;
    int polled, open;
    uint64_t got, expected;
    char buf[512];
} guest_conn[3];
static void guest_sum_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    OL_CONTAINER(op, struct guest_conn, op)->got += (uint64_t)op->len;
}
static void guest_reads(struct guest_conn *c, int i) {
    cr_assert_eq(c->op.state_, 0, "an event is handled while an operation of an earlier one is out");
    const ssize_t n = read(ol_fd_raw(w.loop, w.fd[i]), c->buf, sizeof c->buf);
    if (n == 0) c->open = c->polled = 0;
    if (n > 0) cr_assert_eq(ol_submit(w.loop, ol_prep_crc32(&c->op, 0, c->buf, (uint64_t)n), guest_sum_done), 0);
}
static void guest_released(ol_loop *loop, ol_handler *handler, int ready) {
    struct guest_conn *c = OL_CONTAINER(handler, struct guest_conn, handler);
    (void)loop;
    c->polled = 1;
    if (ready & OL_READABLE) guest_reads(c, (int)(c - guest_conn));
}
PROMISE(a_guest_loses_no_event_and_handles_none_too_early) {
    static const char out[1000];
    ol_policy p;
    cr_assert_eq(ol_policy_parse("crc32 any 0- async threads wait", &p, NULL, 0), 0);
    cr_assert_eq(ol_loop_set_policy(w.loop, &p), 0);
    for (int i = 0; i < 3; i++) {
        guest_attached(i);
        cr_assert_eq(ol_watch(w.loop, w.fd[i], &guest_conn[i].handler, OL_READABLE, guest_released), 0);
        guest_conn[i].open = guest_conn[i].polled = 1;
    }
    become_guest();
    unsigned seed = 1;
    int sends = 600;
    while (guest_conn[0].open || guest_conn[1].open || guest_conn[2].open) {
        for (int k = 0; k < 3 && sends; k++) {
            const int i = rand_r(&seed) % 3;
            const ssize_t n = send(w.far[i], out, (size_t)(rand_r(&seed) % 1000 + 1), MSG_DONTWAIT);
            if (n > 0) guest_conn[i].expected += (uint64_t)n, sends--;
        }
        if (!sends)
            for (int i = 0; i < 3; i++) shutdown(w.far[i], SHUT_WR);
        struct pollfd fds[4] = {{guest_fd, POLLIN, 0}};
        for (int i = 0; i < 3; i++)
            fds[i + 1].fd = guest_conn[i].polled ? ol_fd_raw(w.loop, w.fd[i]) : -1, fds[i + 1].events = POLLIN;
        cr_assert_gt(poll(fds, 4, 30000), 0, "nothing moves any more");
        for (int i = 0; i < 3; i++) {
            if (!fds[i + 1].revents) continue;
            const int now = ol_gate_enter(w.loop, w.fd[i], OL_READABLE);
            cr_assert_geq(now, 0, "%s", ol_error());
            if (now) guest_reads(&guest_conn[i], i), ol_gate_leave(w.loop);
            else guest_conn[i].polled = 0;
        }
        if (fds[0].revents) cr_assert_geq(ol_loop_step(w.loop, 0), 0);
    }
    while (stats().ops) turns_readable(), settles();
    for (int i = 0; i < 3; i++) cr_assert_eq(guest_conn[i].got, guest_conn[i].expected);
}

/* ---- forks of the process */

/* Runs fn in a child of fork, and checks that nothing is wrong there: CHILD instead of cr_assert. */
#define CHILD(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "in the child, line %d: %s; log: %s; %s\n", __LINE__, #condition, w.log, ol_error());      \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)
#define in_child_expect(text)                                                                                          \
    do {                                                                                                               \
        CHILD(strcmp(w.log, (text)) == 0);                                                                             \
        w.log[0] = 0;                                                                                                  \
    } while (0)
static void child_until(const char *words) {
    while (!strstr(w.log, words)) CHILD(ol_loop_step(w.loop, -1) >= 0);
    for (int i = 0; i < 5; i++) CHILD(ol_loop_step(w.loop, 0) >= 0);
}
static void child_ends(void) { /* ... with nothing leaked */
    CHILD(ol_loop_drain(w.loop, hour) == 0);
    CHILD(ol_loop_destroy(w.loop) == 0);
    CHILD(live == 0);
    _exit(0);
}
static pid_t child_of(void (*fn)(void)) {
    fflush(NULL);
    const pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid) return pid;
    fn();
    child_ends();
    return 0;
}
static void wait_for(pid_t pid) {
    int status = -1;
    while (waitpid(pid, &status, 0) < 0) cr_assert_eq(errno, EINTR);
    cr_assert_eq(status, 0, "the child failed");
}
static void forks(void (*fn)(void)) { wait_for(child_of(fn)); }

static void child_goes_on(void) {
    CHILD(write(w.far[0], "x", 1) == 1);
    child_until("Ar0 ");
    CHILD(write(w.far[1], "x", 1) == 1);
    child_until("C. ");
    in_child_expect("Ar0 Ar1 A. Bl0 B. C+ C. ");
}
PROMISE(after_a_fork_coroutines_locks_and_lines_go_on_in_both_processes) {
    root('A', 0, "l0 j1 r0 r1");
    root('B', 2, "l0");
    go();
    root('C', 1, "");
    go();
    expect("A+ Al0 Aj1 B+ ");
    forks(child_goes_on);
    forks(child_goes_on); /* the parent's is as it was */
    expect("");
    go_on(0);
    go_on(1);
    expect_each("Ar0 Ar1 A. Bl0 B. C+ C. ");
}

static void child_destroys(void) {
    CHILD(ol_close(w.loop, w.fd[0]) == 0);
    CHILD(ol_unwatch(w.loop, w.fd[1]) == 0);
}
PROMISE(a_child_that_closes_and_destroys_leaves_the_parents_registrations_and_connections_alone) {
    static watcher h;
    watch(&h, 1, OL_READABLE, "r");
    root('A', 0, "r0 r0 r0 r0");
    go();
    expect("A+ ");
    for (int i = 0; i < 3; i++) {
        forks(child_destroys);
        go_on(0);
        expect("Ar0 ");
        go_on(1);
        expect("h1:1 h1:1 ");
    }
    ol_unwatch(w.loop, w.fd[1]);
    go_on(0);
    expect("Ar0 A. ");
}

static watcher forked_op[2];
static const char *forked_text;
static int64_t forked_result;
static void forked_done(ol_loop *loop, ol_op *op) {
    (void)loop;
    forked_result = op->result;
    forked_text = ol_op_error(op);
    say("done ");
}
static void awaits_an_operation(ol_co *co) {
    actor *a = OL_SELF(co, actor, child.co);
    OL_BEGIN(co);
    OL_AWAIT(a->r, ol_run(co, ol_prep_call(&a->op, waits, &forked_op[0].go)));
    a->text = ol_co_error(co);
    say("awaited%s ", a->r == 5 ? "" : name_of(a->r));
    OL_END(co);
}
static void child_has_none_in_flight(void) {
    child_until("awaited");
    while (!strstr(w.log, "done ")) CHILD(ol_loop_step(w.loop, -1) >= 0);
    CHILD(strstr(w.log, "awaitedCANCELED ") != NULL);
    CHILD(strstr(named('A')->text, "forked") != NULL);
    CHILD(forked_result == -ECANCELED && strstr(forked_text, "forked") != NULL);
    CHILD(stats().ops == 0);
}
PROMISE(operations_in_flight_at_a_fork_are_canceled_in_the_child_and_go_on_in_the_parent) {
    sem_init(&forked_op[0].go, 0, 0);
    cr_assert_eq(ol_spawn(w.loop, co_of('A'), awaits_an_operation, w.fd[0], 0), 0);
    go();
    cr_assert_eq(ol_submit(w.loop, ol_prep_call(&forked_op[1].op, waits, &forked_op[0].go), forked_done), 0);
    go();
    forks(child_has_none_in_flight);
    expect("");
    for (int i = 0; i < 2; i++) sem_post(&forked_op[0].go);
    until("awaited ");
    until("done ");
    cr_assert_eq(forked_result, 5);
    w.log[0] = 0;
}

static void child_works(void) {
    static watcher own;
    sem_init(&own.go, 0, 1);
    own.i = 7;
    CHILD(ol_submit(w.loop, ol_prep_call(&own.op, waits, &own.go), op_done) == 0); /* before its first step */
    child_until("o7 ");
    CHILD(own.op.where != 0);
    in_child_expect("o7 ");
    CHILD(ol_spawn(w.loop, co_of('D'), act, 0, 0) == 0);
    child_until("D. ");
    in_child_expect("D+ Do0 D. ");
}
static void child_has_a_child(void) {
    child_works();
    script('D', "o0");
    w.log[0] = 0;
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        child_works();
        child_ends();
    }
    int status = -1;
    CHILD(waitpid(pid, &status, 0) == pid && status == 0);
}
PROMISE(threads_start_again_in_the_child_and_in_its_child) {
    script('D', "o0");
    root('A', 0, "o0"); /* the threads are there before the fork */
    until("A. ");
    expect("A+ Ao0 A. ");
    forks(child_works);
    forks(child_has_a_child);
    root('B', 0, "o0"); /* and after it */
    until("B. ");
    expect("B+ Bo0 B. ");
}

static void child_has_timers(void) {
    child_until("t ");
    child_until("As0=TIMEDOUT A. ");
}
PROMISE(timers_and_deadlines_come_in_both_processes) {
    static tick t;
    root('A', 0, "d1 s0");
    start(&t, 't', 0, 2000000);
    forks(child_has_timers);
    until("t ");
    until("As0=TIMEDOUT A. ");
    w.log[0] = 0;
}

static void child_is_a_guest(void) {
    guest_fd = ol_loop_fd(w.loop);
    CHILD(guest_fd >= 0);
    struct pollfd p = {guest_fd, POLLIN, 0};
    while (!strstr(w.log, "t ")) {
        CHILD(poll(&p, 1, 30000) == 1);
        CHILD(ol_loop_step(w.loop, 0) >= 0);
    }
    in_child_expect("t ");
}
PROMISE(a_guests_child_asks_again_and_is_armed) {
    static tick t;
    for (int i = 0; i < FDS; i++) ol_close(w.loop, w.fd[i]); /* no event may do it by chance */
    become_guest();
    start(&t, 't', 0, 2000000);
    settles();
    forks(child_is_a_guest);
    guest_until("t ");
    expect("t ");
}

static pid_t forked_inside;
static void forks_inside(ol_co *co) {
    actor *a = OL_SELF(co, actor, child.co);
    OL_BEGIN(co);
    fflush(NULL);
    forked_inside = fork();
    sem_post(&forked_op[0].go); /* each process has its own */
    OL_AWAIT(a->r, ol_run(co, ol_prep_call(&a->op, waits, &forked_op[0].go)));
    say("ran%s ", a->r == 5 ? "" : name_of(a->r));
    OL_AWAIT(a->r, ol_read(co, w.fd[0], a->buf, 1));
    say("read%d ", (int)a->r);
    OL_END(co);
}
PROMISE(a_fork_inside_a_coroutine_does_no_harm_to_either) {
    static tick t;
    sem_init(&forked_op[0].go, 0, 0);
    become_guest(); /* the timerfd is shared until the next step */
    start(&t, 't', 0, 5000000);
    cr_assert_eq(ol_spawn(w.loop, co_of('A'), forks_inside, w.fd[0], 0), 0);
    while (!strstr(w.log, "ran")) cr_assert_geq(ol_loop_step(w.loop, -1), 0);
    const int child = !forked_inside;
    if (child) {
        ol_timer_stop(w.loop, &t.timer);
        CHILD(strstr(w.log, "ran ") != NULL);
        CHILD(write(w.far[0], "x", 1) == 1);
        child_until("read1 ");
        child_ends();
    }
    wait_for(forked_inside);
    cr_assert_not_null(strstr(w.log, "ran "));
    guest_until("t "); /* the child has not disarmed it */
    give(0);
    guest_until("read1 ");
    w.log[0] = 0;
}

static int opened, forked_calls, closed_channels, forked_fails;
static int own_open(void *self, ol_notify *notify, ol_channel *out) {
    (void)self, (void)notify;
    memset(out, 0, sizeof *out);
    out->self = (void *)(intptr_t)++opened;
    out->depth = 4;
    return 0;
}
static ol_op *own_has[4];
static int own_n;
static int own_submit(void *channel, ol_op *const *ops, int n) {
    (void)channel;
    for (int i = 0; i < n; i++) own_has[own_n++] = ops[i];
    return n;
}
static int own_poll(void *channel, ol_op **ops, int max) {
    if ((intptr_t)channel != opened) return 0;
    int k = 0;
    for (; k < own_n && k < max; k++) ol_op_exec(NULL, ops[k] = own_has[k]);
    own_n -= k;
    return k;
}
static int own_look(void *channel) { return (intptr_t)channel == opened && own_n > 0 && !forked_fails; }
static void own_close(void *channel) {
    (void)channel;
    closed_channels++;
}
static int own_forked(void *channel) {
    (void)channel;
    forked_calls++;
    own_n = 0; /* forgets what it had */
    return forked_fails ? -EAGAIN : 0;
}
static ol_backend own = {OL_BACKEND_VERSION, 1u << OL_OP_CRC32, "own", NULL, own_open,  own_submit,
                         own_poll,           own_look,          NULL,  NULL, own_close, NULL, NULL};
static void child_has_a_backend(void) {
    static watcher mine;
    if (own.forked) {
        forked_fails = 1;
        CHILD(ol_loop_step(w.loop, 0) == -EAGAIN); /* and tries again */
        forked_fails = 0;
    } else {
        own_n = 0;
    }
    while (!strstr(w.log, "o0! ")) CHILD(ol_loop_step(w.loop, 0) >= 0);
    CHILD(own.forked ? forked_calls == 2 && opened == 1 : opened == 2);
    mine.i = 3;
    CHILD(ol_submit(w.loop, ol_prep_crc32(&mine.op, 0, "abc", 3), op_done) == 0);
    while (!strstr(w.log, "o3")) CHILD(ol_loop_step(w.loop, 0) >= 0);
    CHILD(mine.op.result == 0x352441c2);
    CHILD(ol_loop_destroy(w.loop) == 0);
    CHILD(closed_channels == 1 && live == 0);
    _exit(0);
}
PROMISE(a_backend_is_told_of_a_fork_or_opened_anew_in_the_child) {
    ol_backend *list[1] = {&own};
    ol_loop_desc d;
    memset(&d, 0, sizeof d);
    d.backends = list, d.nbackends = 1, d.policy = "any any 0- async own wait";
    for (int way = 0; way < 2; way++) {
        static watcher op;
        ol_loop *before = w.loop;
        own.forked = way ? own_forked : NULL;
        opened = closed_channels = own_n = 0;
        cr_assert_eq(ol_loop_create(&w.loop, &d), 0, "%s", ol_error());
        op.i = 0;
        forked_fails = 1; /* it completes nothing */
        cr_assert_eq(ol_submit(w.loop, ol_prep_crc32(&op.op, 0, "abc", 3), op_done), 0);
        cr_assert_geq(ol_loop_step(w.loop, 0), 0);
        forked_fails = 0;
        w.log[0] = 0;
        fflush(NULL);
        const pid_t pid = fork();
        if (pid == 0) {
            ol_loop_destroy(before);
            child_has_a_backend();
        }
        wait_for(pid);
        while (!w.log[0]) cr_assert_geq(ol_loop_step(w.loop, 0), 0);
        cr_assert_eq(op.op.result, 0x352441c2);
        cr_assert_eq(ol_loop_destroy(w.loop), 0);
        cr_assert_eq(opened, 1);
        w.loop = before;
        w.log[0] = 0;
    }
}

static ol_backend *own_pool;
static void child_frees_the_pool(void) {
    CHILD(ol_loop_destroy(w.loop) == 0);
    CHILD(ol_threads_destroy(own_pool) == 0);
    CHILD(live == 0);
    _exit(0);
}
PROMISE(a_child_may_free_a_pool_that_was_at_work) {
    ol_threads_desc desc;
    ol_loop_desc d;
    static watcher op[3];
    memset(&desc, 0, sizeof desc);
    desc.workers = 2;
    memset(&d, 0, sizeof d);
    d.backends = &own_pool, d.nbackends = 1;
    sem_init(&op[0].go, 0, 0);
    cr_assert_eq(ol_loop_destroy(w.loop), 0);
    cr_assert_eq(ol_threads_create(&own_pool, &desc), 0);
    cr_assert_eq(ol_loop_create(&w.loop, &d), 0);
    for (int i = 0; i < 3; i++) cr_assert_eq(ol_submit(w.loop, ol_prep_call(&op[i].op, waits, &op[0].go), op_done), 0);
    go();
    forks(child_frees_the_pool);
    for (int i = 0; i < 3; i++) sem_post(&op[0].go);
    until("o0 o0 o0 ");
    cr_assert_eq(ol_loop_destroy(w.loop), 0);
    w.loop = NULL;
    cr_assert_eq(ol_threads_destroy(own_pool), 0);
}

static void child_stops_a_connection(void) {
    CHILD(ol_close(w.loop, w.fd[0]) == 0);
    CHILD(ol_loop_step(w.loop, 0) >= 0);
}
PROMISE(a_close_in_the_child_with_operations_in_flight_does_not_end_the_parents_connection) {
    static watcher h;
    char c = 0;
    sem_init(&h.go, 0, 0);
    watch(&h, 0, OL_READABLE, "ro");
    go_on(0);
    expect("h0:1 ");
    forks(child_stops_a_connection);
    cr_assert_eq(recv(w.far[0], &c, 1, MSG_DONTWAIT), -1);
    cr_assert_eq(errno, EAGAIN, "the peer sees an end");
    sem_post(&h.go);
    until("o0 ");
    cr_assert_eq(ol_try_write(w.loop, w.fd[0], "y", 1), 1);
    cr_assert_eq(read(w.far[0], &c, 1), 1);
    w.log[0] = 0;
    ol_unwatch(w.loop, w.fd[0]);
}

PROMISE(all_descriptors_of_the_library_are_close_on_exec) {
    struct sockaddr_in a;
    static ol_handler h;
    const ol_fd fd = listener(&a);
    const int client = dial(&a);
    cr_assert_geq(ol_loop_fd(w.loop), 0);
    cr_assert_eq(ol_watch(w.loop, fd, &h, OL_READABLE, accepts_one), 0);
    while (accepts < 1 || accepted[0] < 0) cr_assert_geq(ol_loop_step(w.loop, -1), 0);
    int checked = 0;
    DIR *d = opendir("/proc/self/fd");
    for (struct dirent *e; (e = readdir(d));) {
        char name[300], target[64] = "";
        const int n = atoi(e->d_name);
        snprintf(name, sizeof name, "/proc/self/fd/%s", e->d_name);
        if (readlink(name, target, sizeof target - 1) < 0) continue;
        const int ours = strstr(target, "eventpoll") || strstr(target, "eventfd") || strstr(target, "timerfd") ||
                         n == ol_fd_raw(w.loop, fd) || n == ol_fd_raw(w.loop, (ol_fd)accepted[0]);
        if (!ours || n == client) continue;
        cr_assert(fcntl(n, F_GETFD) & FD_CLOEXEC, "%s", target);
        checked++;
    }
    closedir(d);
    cr_assert_geq(checked, 5);
    close(client);
    cr_assert_eq(ol_unwatch(w.loop, fd), 0);
    w.log[0] = 0;
}
