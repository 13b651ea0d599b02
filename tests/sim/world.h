/* world.h: what the checkers of sim.c know: partitions, fds, parties, roots, operations; and closing, which all may do.

   Part of sim.c, which includes it after offload.h and device.h. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#define US 1000
#define MS 1000000
enum {
    LOOPS = 2,
    VISITOR = LOOPS, /* a loop that is there for a moment */
    ALL_LOOPS = LOOPS + 1,
    DEVS = 2,
    LANES = DEVS + 1, /* and the pool */
    PARTIES = 64,
    PARTS = 4096,
    FDS = 4096,
    ROOTS = 1024,
    TASKS = 1024,
    TIMERS = 6,
    NODES = 8,
    POSTERS = 2,
    SENDERS = 3 + POSTERS, /* who posts: the loop's thread, interrupts, the outside, posters */
    VAULTS = 4,
    FLOWS = 64,
    SESSIONS = 64,
    DEPTH = 6,
    BODY = 1500, /* bytes of a message at most */
    FILES = 4
};
#if defined(K_ASAN)
#define DEFAULT_SEEDS (HAS_CODEC ? 2000 : 3000)
#else
#define DEFAULT_SEEDS 10000
#endif
#define ENOUGH ((int64_t)10000 * MS) /* virtual time in which everything ends once the faults have stopped */
#define SPIN_SLACK (20 * US)         /* how much longer than sync_ns a synchronous wait may take */
#define LATE (40 * MS)               /* how late a time may be noticed: other loops' sleeps and spins included */

struct root;
typedef struct place {      /* what stands in line for a partition, or may: lines.h */
    struct partition *part; /* NULL: nowhere */
    struct partition *came; /* where it came: part, or one that was joined to it since */
    uint64_t lo, hi;        /* between these moments; hi NOT_YET: perhaps it is not there */
    struct place *next, *prev;
    int surely; /* a root that is to start: while it is there, the partition is held */
} place;
#define NOT_YET UINT64_MAX

typedef struct partition {  /* a partition */
    struct root *holder;    /* the root that lives in it */
    int busy;               /* a callback runs in it */
    int callbacks;          /* operations in callback form whose `done` has not returned */
    int inflight;           /* operations accepted, not known to be complete */
    int closes;             /* fds of it that were closed */
    uint64_t last_post[3];  /* that ran in it, of those of one thread */
    struct fdrec *fd;       /* one of its fds */
    place line;             /* head of a ring, in no order */
    struct partition *into; /* it was joined to this one, then */
    uint64_t merged;
} partition;

typedef struct fdrec { /* a fd that the library has */
    ol_fd handle;
    int loop, cls, closed, at; /* at: place among the open ones */
    int guest;                 /* polled by a loop that is not the library's */
    int joined;                /* it was: its class is its partition's */
    int joins;                 /* may be joined: nothing at its other end waits for anything in here */
    partition *part;
    struct party *party;
    struct flow *flow;       /* who talks to it from outside */
    struct session *session; /* whose handlers watch it */
    int readers;             /* coroutines inside ol_read */
    uint64_t reads;          /* ol_read calls begun */
    int inherited;           /* open when the process forked */
} fdrec;

typedef struct party { /* who talks to a server: a script outside, or a client coroutine */
    int id, outside;
    int tainted; /* the seed broke it on purpose */
    int refused; /* it never got through */
    int complete;
    k_end *end; /* outside only, from here on */
    int port, target, window;
    int made, sent, answered; /* messages begun, sent in full, answered */
    unsigned char out[16 + BODY], in[16 + BODY];
    uint32_t out_len, out_at, in_at;
    int scheduled, stalled, half, fin, over;
    int64_t lag;
} party;

enum { R_ACCEPTOR, R_CONN, R_CLIENT, R_EXTRA, R_PUMP, R_SHARER, R_PROXY, R_RELIEF, R_CHILD, R_KINDS };
enum { WAITS_NOT, WAITS_JOIN, WAITS_LOCK, WAITS_CHILD, WAITS_ALL };
typedef struct root { /* embedded first in everything that is a root coroutine, or a child */
    union {
        ol_co co;
        ol_child child;
    };
    int kind, loop, id, at, cls;
    int raised;     /* its class has changed since it was woken, perhaps */
    int was_raised; /* that was so when this run of it began */
    int started, canceled;
    int was_late;     /* when it was cancelled: its deadline had passed */
    int was_due;      /* a deadline may have stopped the operation of this await before it was set anew */
    int64_t deadline; /* not before this may it time out */
    int64_t surely_due;
    uint64_t set_in; /* the round in which that was set */
    int sleeps;      /* in ol_sleep, and until then */
    int64_t sleeps_until;
    uint64_t sleeps_since; /* the round in which it began to, or went on */
    partition *part;
    place stand;        /* to start, or to join */
    struct root *top;   /* of a child: its root; else itself */
    int family;         /* of a root: children alive */
    int ended, returns; /* has it reached its end? by OL_RETURN, with children? */
    int64_t value;      /* what it ended with */
    int waits;          /* for what, and for which */
    fdrec *waits_fd;
    struct vault *waits_vault;
    struct root *waits_child;
    uint64_t seen;
    void *owner;                                  /* the struct that embeds it */
    uint64_t latency_mark, batch_mark, blur_mark; /* runs of each class when it last yielded */
    int unseen_mark, unseen;                      /* and those that nobody has seen, perhaps */
    uint64_t slices_mark, hidden_mark;            /* slices of its class, and those of whose class nobody knows */
} root;

/* What is known of a loop's channel to a backend, by its op.where. */
typedef struct lane_known {
    uint32_t in[4];   /* operations in the backend, by line */
    uint32_t out;     /* accepted and not handed back, of those whose time says something of others */
    int64_t made_lo;  /* it has made progress, or begun to have something to do, between these moments or later */
    int64_t made_hi;
    int avoided;      /* auto may avoid it: it has stalled, or let an operation time out, and completed nothing since */
    uint32_t streak;  /* operations in a row that avoided it */
    uint32_t tries;   /* ... and those that did not, since it is avoided */
    int tried;        /* the last one did not, and it had surely stalled */
} lane_known;

/* ... of a kind, class and range of sizes. */
typedef struct cell_known {
    uint64_t n[6];             /* by mode */
    uint32_t measured, probes; /* auto: in a row because measured so; in all to learn, at most */
} cell_known;
enum { BUCKETS = 16 };

typedef struct slice_line {
    struct task *first, *last; /* the first that is not over is under way */
} slice_line;

typedef struct vault { /* what a lock guards */
    ol_mutex m;
    int loop;
    root *owner, *line[ROOTS];
    int n;
    uint64_t stamp; /* of the latest to own it */
} vault;

typedef struct task { /* an operation and its buffers */
    ol_op op;
    int kind, loop, id, at;
    int inflight, canceled, reported, runs, cls;
    int asked;                    /* its backend was asked to stop it */
    int refused;                  /* its backend had no room for it, and it waits in the loop */
    int returned;                 /* its backend has handed it back */
    int forked;                   /* it was in flight when the process forked */
    int in_pool, starts, granted; /* the pool has it; workers that took it; the pool has stopped it */
    uint64_t ticket;              /* in the order of submission */
    uint64_t seed;
    uint32_t len;
    unsigned char *in, *out;
    uint64_t out_sum; /* of the output at the moment of completion */
    int64_t expect, begun;
    int64_t cost;    /* of a call, in ns; of one in steps, of a step at most */
    int steps, step; /* of a call: how many, and the next one */
    int inside;      /* its function runs */
    int thread;      /* that runs it: 1 + its number, DEVICE_THREAD */
    root *waiter;    /* who awaits it, or NULL */
    int64_t spent;                /* in its function */
    int64_t loop_time;            /* the loop's, when it was submitted */
    int64_t accepted;             /* when the call that submitted it returned */
    int sliced;                   /* it stands in the line of sliced ones, or is under way */
    struct task *before, *behind; /* there */
    uint64_t slices;              /* that it has had */
    int64_t slice_took;           /* its last one at least, and at most, -1 unknown */
    int lane;                     /* counted among those of this backend: its op.where */
    uint32_t told_ns;             /* by its backend: how long it took */
    int awaited;     /* by ol_run; else in callback form */
    uint64_t op_len; /* op.len, as the policy sees it */
    int has_rule;    /* of the policy, when it was submitted */
    ol_rule rule;
    ol_stream stream;
    int64_t packed; /* of an inflate's input, in bytes */
    partition *part;
    int closes; /* of its partition, when it was submitted */
    k_file *pin;
} task;

enum { DEVICE_THREAD = 1000 };

enum { T_IDLE, T_RUNNING };
typedef struct clock_timer {
    ol_timer t;
    int state, loop;
    int64_t due, surely_due;
    fdrec *f;         /* that it names */
    partition *names; /* its partition then */
    uint64_t since;   /* up to this moment its time had surely not come */
    place stand;
} clock_timer;

typedef struct note { /* a post */
    ol_post_node node;
    int posting;    /* calls of ol_post that have not returned */
    uint64_t calls; /* of ol_post */
    int accepted;   /* of those that have */
    int runs, wanted, seen, loop, thread;
    int lost;         /* its thread is gone, in the middle of a post */
    uint64_t order;   /* of the call that queued it, among those of its thread */
    fdrec *f;         /* that it names */
    partition *names; /* its partition then */
    uint64_t since;   /* before this moment it was not posted */
    place stand;
} note;

typedef struct poster { /* a thread of the application that posts */
    int thread, id;
    note own[2];
} poster;

static struct world {
    int nloops, phase;       /* CHAOS, CALM, ENDING */
    int budget;              /* mischief left */
    int forks;               /* how often the process may still fork */
    int64_t idle_until;      /* a loop could do nothing before this time */
    int renewing[ALL_LOOPS]; /* it has forked, and this loop has had no round since */
    int bad, clients, pumps; /* how much may still be started */
    ol_loop *loop[ALL_LOOPS];
    ol_loop_desc desc[ALL_LOOPS];
    const void *gone[ALL_LOOPS]; /* where workers notified a loop that has closed its channel */
    int creating, destroying;    /* the loop that is */
    ol_policy policy[ALL_LOOPS]; /* in force */
    dev device[DEVS];
    int ndevs;
    const char *backend[LANES]; /* names that policies may use */
    int nbackends;
    int old_kernel;
    uint64_t posts, last_post[LOOPS][SENDERS];
    uint64_t tickets, last_taken[ALL_LOOPS][LANES][3][2]; /* by class, and apart for calls and files */
    partition parts[PARTS];
    int nparts;
    fdrec fds[FDS];
    int nfds;
    fdrec *open[FDS];
    int nopen;
    fdrec *listener[LOOPS];
    fdrec *named[LOOPS];     /* by the latest timer or post that names one */
    fdrec *by_number[K_FDS]; /* the latest of each number */
    uint64_t clock;          /* of lines.h */
    root *waiting[ROOTS];    /* for a join, a lock, a child; in the order in which they began to */
    int nwaiting;
    uint64_t stamps;
    vault vaults[LOOPS][VAULTS];
    root *roots[ROOTS];
    int nroots, alive[ALL_LOOPS], next_id;
    task *tasks[TASKS];
    int ntasks, inflight[ALL_LOOPS], refused[ALL_LOOPS];
    party parties[PARTIES];
    int nparties;
    clock_timer timer[LOOPS][TIMERS];
    note notes[NODES];
    note contended; /* all posters post it */
    poster posters[POSTERS];
    int nposters, posters_end;
    k_inode *file[FILES];
    uint64_t latency_runs[ALL_LOOPS], batch_runs[ALL_LOOPS]; /* taken from the ready queues */
    int blurred
        [ALL_LOOPS]; /* handlers that have been taken from them perhaps, or will be, and are not called any more */
    uint64_t blur[ALL_LOOPS]; /* or perhaps, nobody knows of which class */
    uint64_t turns;
    uint64_t steps[ALL_LOOPS]; /* rounds that have ended */
    int64_t began[ALL_LOOPS];  /* when the last of them began */
    uint32_t items, awaits;    /* run in this round; awaits that ended in this run */
    int attached[ALL_LOOPS];   /* fds that are open */
    uint64_t software[ALL_LOOPS], offloaded[ALL_LOOPS], parked[ALL_LOOPS], perhaps[ALL_LOOPS]; /* operations */
    lane_known lane[ALL_LOOPS][LANES + 1];
    cell_known cell[ALL_LOOPS][OL__KINDS][3][BUCKETS];
    uint64_t why[ALL_LOOPS][16];                                         /* operations by their reason */
    uint64_t timed[ALL_LOOPS][OL__KINDS][3], handed[ALL_LOOPS][OL__KINDS][3]; /* with times: all; not on the spot */
    uint64_t due_least[ALL_LOOPS], due_most[ALL_LOOPS], undue[ALL_LOOPS]; /* for a sample: least, most, in vain */
    int crowded[ALL_LOOPS]; /* more operations than there are places for samples, perhaps */
    int64_t longest[ALL_LOOPS]; /* from submission to result */
    int64_t created_lo[ALL_LOOPS], created_hi[ALL_LOOPS];
    slice_line slicer[ALL_LOOPS][3];
    uint64_t slice[ALL_LOOPS];        /* the number of the latest that was seen */
    uint64_t slices_seen[ALL_LOOPS], slices_of[ALL_LOOPS][3], slices_most[ALL_LOOPS], maybe_software[ALL_LOOPS];
    int64_t slice_begun, step_ended;  /* of that */
    task *slice_task;
    int taste;  /* of the random policies */
    int bursts; /* that are left */
    partition *current; /* whose root or callback runs */
    int draining;       /* the loop that is; -1 none */
    int stepping;       /* the loop that is inside a step, -1 none */
    int64_t computed;   /* time that calls took on the loop's own thread */
    int64_t entered;    /* when its latest step began, or an earlier one */
    int gate;           /* the guest whose event is handled, -1 none */
    int in_submit;
    ol_frame *frames[DEPTH + 4]; /* that are running, outermost first */
    int nframes;
    ol_co *running, *goes_on;
} w;
enum { CHAOS, CALM, ENDING };

/* A part of a seed's program. Each function may be NULL. */
typedef struct workload {
    const char *name;
    void (*build)(void);  /* the loops are there; nothing fails yet */
    void (*quiet)(void);  /* the faults stop, and what hung or fell silent goes on; may come twice */
    int (*calm)(void);    /* 1: all of it has come to its end, or never will by itself */
    void (*asleep)(void); /* the loop w.stepping sleeps, and no thread can run: is that right? */
    void (*close)(void);  /* all has come to its end but those who only wait for others */
    void (*leave)(void);  /* the loops are about to be destroyed */
    void (*end)(void);    /* they are gone */
} workload;

static void mischief(int loop);

#define CHECK(checker, condition)                                                                                      \
    do {                                                                                                               \
        if (!(condition)) k_fail(checker, "line %d: %s", __LINE__, #condition);                                        \
    } while (0)

/* A negative result comes with a text that says more. */
static void told_at(int line, const char *text) {
    static ol_op fine;
    if (!text || !*text || strcmp(text, ol_op_error(&fine)) == 0)
        k_fail("text", "line %d: it is '%s'", line, text ? text : "NULL");
}
#define told(text) told_at(__LINE__, (text))

/* CRC-32, bit by bit: not the library's. */
static uint32_t crc_slow(uint32_t crc, const unsigned char *p, uint64_t n) {
    static uint32_t table[256];
    uint32_t i, j;
    if (!table[1])
        for (i = 0; i < 256; i++) {
            uint32_t c = i;
            for (j = 0; j < 8; j++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
            table[i] = c;
        }
    crc = ~crc;
    while (n--) crc = table[(crc ^ *p++) & 0xff] ^ (crc >> 8);
    return ~crc;
}

static partition *part_new(void) {
    partition *p;
    if (w.nparts == PARTS) k_fail("test", "PARTS is too small");
    p = &w.parts[w.nparts++];
    p->line.next = p->line.prev = &p->line;
    return p;
}
static void settle(void);
static void sliced_stops(const task *t);

static fdrec *fd_new(int loop, ol_fd handle, int cls, partition *p, party *who) {
    fdrec *f;
    if (w.nfds == FDS) k_fail("test", "FDS is too small");
    f = &w.fds[w.nfds++];
    f->handle = handle;
    f->loop = loop;
    f->cls = cls;
    f->part = p;
    f->party = who;
    f->joins = who && who->outside;
    w.by_number[(uint32_t)handle] = f;
    f->at = w.nopen;
    w.open[w.nopen++] = f;
    w.attached[loop]++;
    p->fd = f;
    return f;
}

static void taint(party *p) {
    if (p) p->tainted = 1;
}
static void flow_taint(struct flow *f);
static void session_closed(struct session *s);
/* Whatever runs over this fd need not come to its end any more. */
static void taint_fd(fdrec *f) {
    taint(f->party);
    flow_taint(f->flow);
}

/* Closes as anybody may, and checks what close promises. */
static int fd_close(fdrec *f) {
    const int fd = (int)(uint32_t)f->handle, was_closed = f->closed;
    const partition *before;
    const k_file *file;
    int r, i, idle, shut = 0;
    settle();
    before = f->part;
    if (!was_closed && sim.file[fd]->end) shut = sim.file[fd]->end->wr_shut;
    idle = f->part->inflight == 0;
    if (!was_closed) {
        f->closed = 1;
        f->part->closes++;
        w.attached[f->loop]--;
        w.open[f->at] = w.open[--w.nopen];
        w.open[f->at]->at = f->at;
    }
    r = ol_close(w.loop[f->loop], f->handle);
    CHECK("error", r == (was_closed ? -EBADF : 0));
    COUNT(CLOSES);
    if (was_closed) return r;
    if (f->session) session_closed(f->session);
    settle(); /* who stood in line behind its handler may have joined all of it to a partition with operations */
    file = sim.file[fd];
    if (idle && f->part == before) CHECK("close", file == NULL);
    if (file && file->type == K_SOCKET && f->inherited) /* the connection is the parent's, too */
        CHECK("fork", shut || !file->end->wr_shut || file->end->state != K_UP);
    else if (file && file->type == K_SOCKET) CHECK("close", file->end->wr_shut || file->end->state != K_UP);
    for (i = 0; i < w.ntasks; i++)
        if (w.tasks[i]->part == f->part) {
            if (w.tasks[i]->pin) CHECK("close", w.tasks[i]->asked);
            sliced_stops(w.tasks[i]);
        }
    return r;
}

#endif
