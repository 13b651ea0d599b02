/* gate.pml: sleep and wake, the gate of partitions and the way of operations to workers and back, for Spin.

   spin -a tests/model/gate.pml && cc -O2 -w -DSAFETY -DNOCLAIM -o pan pan.c && ./pan      (see tests/model/run.sh)
   spin -a tests/model/gate.pml && cc -O2 -w -o pan pan.c && ./pan -a

   A loop, three workers, two partitions, a ring of two slots. Peers send requests, two to one partition and one to the
   other. A root starts for each, when its partition is free, submits an operation or two and ends when they are reported:
   so a request finds its partition held, and an operation no room. Some operations are calls that block until another
   one runs. Steps are those that other threads can tell apart, in a sequentially consistent memory; that the memory
   orders make it look so is what the other models are for.

   Safety: one root in a partition at a time; an operation runs once and is reported once; whoever waits is woken, that
   is, there is no end but the one where everything is reported. Liveness: everything is reported, however unfair the
   scheduler is: nobody spins. With one of these defined a promise has to break:

     NO_LOOP_LOOK       the loop doesn't look again after it has announced its sleep
     NO_WORKER_LOOK     nor does a worker
     NOTIFY_FIRST       a worker notifies, and then publishes the completion
     WAKE_FIRST         the loop wakes workers, and then fills the ring
     RELEASE_EARLY      a partition is released when its operations are submitted
     WITHHELD_LOST      what a held partition has withheld is not looked at when it is released
     NO_RESUBMIT        a parked operation is never submitted
     COUNTED_TWICE      a woken worker counts itself out, too
     NO_CHAIN           a worker that leaves work behind doesn't wake another
     SLOT_TOO_EARLY     a slot is filled again when it is claimed, not when it is emptied
     CLAIM_IN_STEPS     two workers can claim the same slot
     ONE_COMPLETION     the loop takes one completion off the stack, and leaves it empty
     LOOKS_ONLY         a worker that sees work when it is about to sleep announces its sleep again */

#if !defined(WORKERS)
#define WORKERS 3
#endif
#define PARTS 2
#define SLOTS 2
#define NONE 255
#define OPS 4 /* 0, 1: of the first root in partition 0; 2: of the second one; 3: of the one in partition 1 */
#define FIRST(p) (p == 0 -> 0 : 3)
#define EACH(p) (p == 0 && next_op[0] == 0 -> 2 : 1)
#define PART(op) (op < 3 -> 0 : 1)
#define WAITS_FOR(op) (op == 0 -> 1 : (op == 2 -> 3 : NONE)) /* a call that blocks until another one runs */
#define BIT(op) (1 << (op))
#define ALL ((1 << OPS) - 1)

/* the ring: positions never wrap */
byte slot[SLOTS] = NONE;
byte head, tail;

/* completions, as a set: their order makes no difference to anybody here */
byte done;

/* the loop's sleep */
bool sleeping, eventfd;
byte kernel[PARTS]; /* requests that epoll has to report */

/* the workers' sleep */
byte waiters, permits;

/* what is known for checking only */
byte submitted, ran, reported;

inline wake() { /* ol__semaphore_wake */
    if
    :: atomic { waiters > 0 -> waiters-- }
       permits++
    :: atomic { waiters == 0 -> skip }
    fi
}

/* ---- workers ---------------------------------------------------------------------------------------------------- */

proctype worker() {
    byte position, op;
    bool was;
rounds:
    do
#if defined(CLAIM_IN_STEPS)
    :: atomic { head < tail -> position = head }
       head = position + 1
#else
    :: atomic { head < tail -> position = head; head++ }
#endif
#if !defined(NO_CHAIN)
       if
       :: head < tail -> wake() /* there is more */
       :: else
       fi
#endif
       d_step {
           op = slot[position % SLOTS];
           slot[position % SLOTS] = NONE;
           assert(op != NONE);
           assert(!(ran & BIT(op)));
           ran = ran | BIT(op);
           position = 0
       }
       (WAITS_FOR(op) == NONE || (ran & BIT(WAITS_FOR(op))));
#if defined(NOTIFY_FIRST)
       d_step { was = sleeping; sleeping = false }
       if
       :: was -> eventfd = true
       :: else
       fi
       d_step { done = done | BIT(op); op = 0; was = false }
#else
       d_step { done = done | BIT(op); op = 0 }
       d_step { was = sleeping; sleeping = false }
       if
       :: was -> d_step { eventfd = true; was = false }
       :: else
       fi
#endif
    :: head >= tail -> break
    od;
announce:
    waiters++;
#if !defined(NO_WORKER_LOOK)
    if
    :: head < tail -> /* leave */
       if
       :: atomic { waiters > 0 -> waiters-- }
       :: atomic { waiters == 0 -> goto end_asleep } /* counted out already */
       fi;
#if defined(LOOKS_ONLY)
       goto announce
#else
       goto rounds
#endif
    :: else
    fi;
#endif
end_asleep:
    atomic { permits > 0 -> permits-- }
#if defined(COUNTED_TWICE)
    if
    :: atomic { waiters > 0 -> waiters-- }
    :: atomic { waiters == 0 -> skip }
    fi;
#endif
    goto rounds
}

/* ---- the loop --------------------------------------------------------------------------------------------------- */

bool held[PARTS];
byte withheld[PARTS], next_op[PARTS], alive[PARTS]; /* alive: operations of the root that lives there */
byte in_flight;
chan staged = [SLOTS] of { byte };
chan parked = [OPS] of { byte };

/* A root starts: it submits its operations and waits for them. */
inline start(p) {
    assert(!held[p] && alive[p] == 0);
    held[p] = true;
    alive[p] = EACH(p);
    i = alive[p];
    do
    :: i > 0 ->
       op = FIRST(p) + next_op[p];
       next_op[p]++;
       submitted = submitted | BIT(op);
       if
       :: in_flight < SLOTS && len(parked) == 0 -> in_flight++; staged ! op
       :: else -> parked ! op
       fi;
       i--
    :: else -> break
    od;
#if defined(RELEASE_EARLY)
    held[p] = false
#endif
}

/* A request: its root starts now, or when the partition is free. */
inline request(p) {
    if
    :: held[p] -> withheld[p]++
    :: else -> start(p)
    fi
}

/* An operation is complete: with the last one its root ends, and the next one starts. */
inline complete(o) {
    q = PART(o);
    assert((submitted & BIT(o)) && !(reported & BIT(o)));
    reported = reported | BIT(o);
    in_flight--;
    alive[q]--;
    if
    :: alive[q] == 0 ->
       held[q] = false;
#if !defined(WITHHELD_LOST)
       if
       :: withheld[q] > 0 -> withheld[q]--; start(q)
       :: else
       fi
#endif
    :: else
    fi
}

/* Fills the ring, then wakes a worker. What finds no room stays first in line. */
inline flush() {
#if defined(WAKE_FIRST)
    if
    :: len(staged) > 0 -> wake()
    :: else
    fi;
#endif
    do
#if defined(SLOT_TOO_EARLY)
    :: d_step { len(staged) > 0 && tail - head < SLOTS ->
#else
    :: d_step { len(staged) > 0 && slot[tail % SLOTS] == NONE ->
#endif
           staged ? op; slot[tail % SLOTS] = op; tail++; op = 0; put = true }
    :: else -> break
    od;
    if
    :: put -> put = false;
#if !defined(WAKE_FIRST)
       wake()
#endif
    :: else
    fi
}

/* Sleeps if there is nothing to do, and asks the kernel. */
inline sleep() {
    if
    :: done != 0 -> skip
    :: else ->
       sleeping = true;
#if defined(NO_LOOP_LOOK)
       atomic { eventfd || kernel[0] || kernel[1] -> skip }
#else
       if
       :: done != 0 -> skip
       :: else -> atomic { eventfd || kernel[0] || kernel[1] -> skip }
       fi
#endif
    fi;
    d_step {
        eventfd = false;
        events[0] = kernel[0]; kernel[0] = 0;
        events[1] = kernel[1]; kernel[1] = 0
    }
    sleeping = false
}

proctype loop() {
    byte op, o, i, p, q, got, events[PARTS];
    bool put;
    do
    :: reported == ALL -> break
    :: else ->
       flush();
       sleep();
       d_step { /* takes the completions; then nobody else is concerned */
           got = done;
#if defined(ONE_COMPLETION)
           o = 0;
           do
           :: o < OPS && !(got & BIT(o)) -> o++
           :: else -> break
           od;
           got = got & BIT(o);
#endif
           done = 0;
           p = 0;
           do
           :: p < PARTS ->
              do
              :: events[p] > 0 -> events[p]--; request(p)
              :: else -> break
              od;
              p++
           :: else -> break
           od;
           o = 0;
           do
           :: o < OPS ->
              if
              :: got & BIT(o) -> complete(o)
              :: else
              fi;
              o++
           :: else -> break
           od;
#if !defined(NO_RESUBMIT)
           do
           :: len(parked) > 0 && in_flight < SLOTS -> parked ? op; in_flight++; staged ! op
           :: else -> break
           od;
#endif
           p = 0; q = 0; o = 0; got = 0; op = 0
       }
    od
}

/* The first request is there at the beginning, the others may come at any time. */
proctype peers() {
    if
    :: kernel[0]++; kernel[1]++
    :: kernel[1]++; kernel[0]++
    fi
}

init {
    atomic {
        slot[0] = NONE; slot[1] = NONE;
        run loop();
        kernel[0] = 1;
        run worker(); run worker();
#if WORKERS == 3
        run worker();
#endif
        run peers()
    }
}

ltl all_reported { <> (reported == ALL) }
