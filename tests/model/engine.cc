/* engine.cc: the machine under seam.h: Relacy's threads, memory orders and race detection, and a search over schedules.

   c++ -std=c++17 -O1 -g -w -c tests/model/engine.cc -o build/model/engine.o      (tests/model/run.sh does all of it)

   Relacy (Dmitry Vyukov; Debian: relacy-dev) runs threads as fibers, one at a time, and keeps for each atomic word its
   last values with the vector clocks that came with them. What it lacks for code that wasn't written for it is added
   here: words and plain data found by their address instead of by their type, memory in blocks, futexes, epoll, and a
   scheduler that finds orderings which a uniform random one would need millions of schedules for.

   What it can't show: a load never returns a value that is stored later in the schedule (RC11 forbids what would need
   that where one thing depends on the other), a word's values are forgotten after two more, and stores of one thread
   continue its release sequence, as in C++11, not as in C++20.

   Sections: >>words >>memory >>plain >>atomics >>kernel >>threads >>search >>run >>driver */
#include <climits>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <csignal>
#include <ctime>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <relacy/relacy.hpp>
#undef new
#undef delete
#undef malloc
#undef calloc
#undef realloc
#undef free
#undef assert
#undef errno

#include "seam.h"

extern "C" {
extern struct model_site *const __start_model_sites[], *const __stop_model_sites[];
}

namespace {

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>words: what is known of each piece of memory. All of it is forgotten between two schedules                      */

constexpr size_t ARENA = 1 << 19; /* bytes that one schedule may allocate; nothing is used twice in it */
constexpr size_t WORD = 8, ATOM = 4, BLOCKS = 512, STATICS = 16, HISTORY = rl::atomic_history_size;

alignas(64) unsigned char arena[ARENA];

struct plain { /* a word of plain data; per byte, once it was accessed in parts */
    rl::var_data *byte[WORD];
};
struct atom { /* an atomic word */
    rl::atomic_data *data;
    uint64_t value, past[HISTORY];
};
struct block {
    size_t start, size;
    rl::var_data *life; /* written by allocation and free, read by each access */
    bool freed;
};
struct outside { /* an atomic word outside the arena: a static variable */
    volatile void *word;
    uint64_t first; /* its value at the start of the program */
    atom a;
};

plain plains[ARENA / WORD];
atom atoms[ARENA / ATOM];
uint16_t block_of[ARENA / WORD]; /* 0: none */
block blocks[BLOCKS];
outside statics[STATICS];
uint32_t touched_plains[ARENA / WORD], touched_atoms[ARENA / ATOM];
size_t arena_used, blocks_n, touched_plains_n, touched_atoms_n, statics_n;

/* What depends on the number of threads. */
struct world {
    virtual ~world() {}
    virtual rl::var_data *var_new() = 0;
    virtual rl::var_data *var_copy(const rl::var_data *from) = 0;
    virtual rl::atomic_data *atomic_new() = 0;
    virtual void reset() = 0;
    virtual rl::test_result_e run(rl::test_params &params, std::ostream &out) = 0;
};

world *the_world;
const model *the_model;
uint64_t the_schedule;           /* the number of the one under way */
char the_failure[256];           /* what model_fail was told */
const model_site *last_site[16]; /* of each thread: its latest atomic access, to say where it was */

constexpr size_t SITES = 512;
model_site *sites[SITES];
size_t sites_n;
unsigned char *reached; /* sites that a model has come to; shared with the driver */

void words_reset() {
    for (size_t i = 0; i < touched_plains_n; i++) memset(&plains[touched_plains[i]], 0, sizeof(plain));
    for (size_t i = 0; i < touched_atoms_n; i++) atoms[touched_atoms[i]].data = nullptr;
    for (size_t i = 0; i < statics_n; i++) statics[i].a.data = nullptr;
    memset(block_of, 0, (arena_used + WORD - 1) / WORD * sizeof *block_of);
    memset(last_site, 0, sizeof last_site);
    touched_plains_n = touched_atoms_n = 0;
    blocks_n = 1;
    arena_used = 0;
    the_failure[0] = 0;
    the_world->reset();
}

rl::thread_info_base &self() { return *rl::ctx().threadx_; }

/* ---- reporting: a failure ends the schedule; notes make the log of --trace ---- */

const rl::debug_info outside_it("the kernel", "seam.h", 0);

struct note {
    char text[160];
    void output(std::ostream &out) const { out << text; }
};

__attribute__((format(printf, 2, 3))) void log_note(const model_site *site, const char *format, ...) {
    rl::context &c = rl::ctx();
    if (!c.collecting_history()) return;
    note n;
    va_list args;
    va_start(args, format);
    vsnprintf(n.text, sizeof n.text, format, args);
    va_end(args);
    c.exec_log(site ? rl::debug_info(site->function, "offload.h", (unsigned)site->line) : outside_it, n);
}

__attribute__((format(printf, 2, 3))) void fail(rl::test_result_e kind, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(the_failure, sizeof the_failure, format, args);
    va_end(args);
    rl::ctx().fail_test(the_failure, kind, outside_it);
}

const char *whereabouts() {
    static char text[128];
    const model_site *s = last_site[self().index_];
    if (!s) return "before its first atomic access";
    snprintf(text, sizeof text, "after %s, line %d", s->function, s->line);
    return text;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>memory                                                                                                         */

bool in_arena(const volatile void *p) { return (uintptr_t)p - (uintptr_t)arena < ARENA; }
size_t offset_of(const volatile void *p) { return (size_t)((uintptr_t)p - (uintptr_t)arena); }

/* An access at this place: is the block there, still there, and known to this thread? */
void check_life(size_t at, const char *what) {
    block &b = blocks[block_of[at / WORD]];
    if (!b.size || at - b.start >= b.size)
        fail(rl::test_result_access_to_freed_memory, "%s outside any block, %s", what, whereabouts());
    if (b.freed)
        fail(rl::test_result_access_to_freed_memory, "%s of a freed block of %zu bytes, at %zu, %s", what, b.size,
             at - b.start, whereabouts());
    if (!b.life->load(self()))
        fail(rl::test_result_data_race, "%s of a block of %zu bytes, at %zu, whose allocation is not known, %s", what,
             b.size, at - b.start, whereabouts());
}

void *block_new(size_t size) {
    const size_t start = arena_used, words = (size + WORD - 1) / WORD;
    if (start + words * WORD + 2 * WORD > ARENA || blocks_n == BLOCKS) {
        fail(rl::test_result_inconsistent_test_suite, "the engine's memory is too small");
        return nullptr;
    }
    block &b = blocks[blocks_n];
    b.start = start;
    b.size = size;
    b.freed = false;
    b.life = the_world->var_new();
    b.life->init(self());
    for (size_t i = 0; i < words; i++) block_of[start / WORD + i] = (uint16_t)blocks_n;
    blocks_n++;
    arena_used += (words + 2) / 2 * 2 * WORD; /* at least a word in between, and 16 bytes of alignment */
    memset(arena + start, 0xa5, words * WORD);
    return arena + start;
}

void block_free(void *p) {
    if (!in_arena(p)) fail(rl::test_result_double_free, "free of what is no block");
    const size_t at = offset_of(p);
    block &b = blocks[block_of[at / WORD]];
    if (b.start != at || !b.size) fail(rl::test_result_double_free, "free of what is no block");
    if (b.freed) fail(rl::test_result_double_free, "double free, %s", whereabouts());
    if (!b.life->store(self()))
        fail(rl::test_result_data_race, "free of a block of %zu bytes while another thread uses it, %s", b.size,
             whereabouts());
    b.freed = true;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>plain: called by the compiler before each access to memory                                                     */

/* One word or a part of it. The compiler announces an access before it happens; the schedule goes on elsewhere only at
   atomic accesses and calls, so that makes no difference. */
void plain_word(size_t at, size_t n, bool write) {
    plain &p = plains[at / WORD];
    const size_t first = at % WORD;
    const bool whole = n == WORD;
    if (!p.byte[0]) {
        touched_plains[touched_plains_n++] = (uint32_t)(at / WORD);
        rl::var_data *v = the_world->var_new();
        for (size_t i = 0; i < WORD; i++) p.byte[i] = whole ? v : i ? the_world->var_new() : v;
    } else if (!whole && p.byte[0] == p.byte[1]) {
        for (size_t i = 1; i < WORD; i++) p.byte[i] = the_world->var_copy(p.byte[0]);
    }
    for (size_t i = first; i < first + n; i++) {
        if (i > first && p.byte[i] == p.byte[i - 1]) break;
        if (write ? p.byte[i]->store(self()) : p.byte[i]->load(self())) continue;
        const block &b = blocks[block_of[at / WORD]];
        fail(rl::test_result_data_race, "%s of a block of %zu bytes, at %zu, %s", write ? "write" : "read", b.size,
             at - b.start, whereabouts());
    }
}

void plain_access(const volatile void *address, size_t size, bool write) {
    if (!in_arena(address) || !rl::is_ctx()) return;
    size_t at = offset_of(address);
    check_life(at, write ? "write" : "read");
    for (size_t left = size; left;) {
        const size_t room = WORD - at % WORD, n = left < room ? left : room;
        if (atoms[at / ATOM].data || (n == WORD && atoms[at / ATOM + 1].data))
            fail(rl::test_result_data_race, "plain access to an atomic word, %s", whereabouts());
        plain_word(at, n, write);
        at += n;
        left -= n;
    }
}

} // namespace

extern "C" {
void __tsan_init(void);
void __tsan_init(void) {}
void __tsan_func_entry(void *);
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void);
void __tsan_func_exit(void) {}

#define ACCESS(name, size, write)                                                                                      \
    void __tsan_##name(void *p);                                                                                       \
    void __tsan_##name(void *p) { plain_access(p, size, write); }
#define ACCESSES(n)                                                                                                    \
    ACCESS(read##n, n, false)                                                                                          \
    ACCESS(write##n, n, true)                                                                                          \
    ACCESS(unaligned_read##n, n, false)                                                                                \
    ACCESS(unaligned_write##n, n, true)                                                                                \
    ACCESS(volatile_read##n, n, false)                                                                                 \
    ACCESS(volatile_write##n, n, true)                                                                                 \
    ACCESS(read_write##n, n, true)
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
#undef ACCESSES
#undef ACCESS

void __tsan_read_range(void *p, unsigned long n);
void __tsan_read_range(void *p, unsigned long n) { plain_access(p, n, false); }
void __tsan_write_range(void *p, unsigned long n);
void __tsan_write_range(void *p, unsigned long n) { plain_access(p, n, true); }
void *__tsan_memcpy(void *to, const void *from, unsigned long n);
void *__tsan_memcpy(void *to, const void *from, unsigned long n) {
    plain_access(from, n, false);
    plain_access(to, n, true);
    return memcpy(to, from, n);
}
void *__tsan_memmove(void *to, const void *from, unsigned long n);
void *__tsan_memmove(void *to, const void *from, unsigned long n) {
    plain_access(from, n, false);
    plain_access(to, n, true);
    return memmove(to, from, n);
}
void *__tsan_memset(void *p, int c, unsigned long n);
void *__tsan_memset(void *p, int c, unsigned long n) {
    plain_access(p, n, true);
    return memset(p, c, n);
}
}

namespace {

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>atomics                                                                                                        */

uint64_t memory_get(const volatile void *word, size_t size) {
    return size == 8 ? *(const volatile uint64_t *)word : *(const volatile uint32_t *)word;
}
void memory_set(volatile void *word, size_t size, uint64_t value) {
    if (size == 8) *(volatile uint64_t *)word = value;
    else *(volatile uint32_t *)word = (uint32_t)value;
}

atom &static_atom(const volatile void *word, size_t size) {
    for (size_t i = 0; i < statics_n; i++)
        if (statics[i].word == word) return statics[i].a;
    if (statics_n == STATICS) fail(rl::test_result_inconsistent_test_suite, "too many static atomics");
    outside &o = statics[statics_n++];
    o.word = const_cast<volatile void *>(word);
    o.first = memory_get(word, size);
    return o.a;
}

/* A schedule point, then the atomic word at an address. What was written there plainly, by the thread that made it, has
   to be known to this one. */
atom &atom_at(const volatile void *word, size_t size, const model_site *site) {
    rl::ctx().sched();
    last_site[self().index_] = site;
    if (site->index < SITES) reached[site->index] = 1;
    if (size != 4 && size != 8) fail(rl::test_result_inconsistent_test_suite, "an atomic of %zu bytes", size);
    if (!in_arena(word)) {
        atom &a = static_atom(word, size);
        if (!a.data) {
            for (size_t i = 0; i < statics_n; i++)
                if (&statics[i].a == &a) memory_set(statics[i].word, size, statics[i].first);
            a.data = the_world->atomic_new();
            a.value = a.past[0] = memory_get(word, size);
        }
        return a;
    }
    const size_t at = offset_of(word);
    check_life(at, "atomic access");
    const plain &p = plains[at / WORD];
    for (size_t i = at % WORD; p.byte[0] && i < at % WORD + size; i++)
        if (!p.byte[i]->load(self()))
            fail(rl::test_result_data_race, "atomic access before the initial value is known, %s", whereabouts());
    atom &a = atoms[at / ATOM];
    if (!a.data) {
        touched_atoms[touched_atoms_n++] = (uint32_t)(at / ATOM);
        a.data = the_world->atomic_new();
        a.value = a.past[0] = memory_get(word, size);
    }
    return a;
}

const char *const order_names[] = {"relaxed", "acquire", "release", "acq_rel", "seq_cst", "load, store"};
const char *const kind_names[] = {"load", "store", "xchg", "add", "cas"};

unsigned load_index(atom &a, model_order order) {
    unsigned i;
    switch (order) {
    case MODEL_SEQ_CST: i = self().atomic_load_seq_cst(a.data); break;
    case MODEL_ACQ_REL:
    case MODEL_ACQUIRE: i = self().atomic_load_acquire(a.data); break;
    default: i = self().atomic_load_relaxed(a.data); break;
    }
    if (i == (unsigned)-1) fail(rl::test_result_unitialized_access, "a load finds no value");
    return i;
}

void put(atom &a, volatile void *word, size_t size, unsigned index, uint64_t value) {
    a.value = a.past[index] = value;
    memory_set(word, size, value);
}

void modify(atom &a, volatile void *word, size_t size, uint64_t value, model_order order) {
    rl::thread_info_base &t = self();
    bool aba;
    unsigned i;
    switch (order) {
    case MODEL_SEQ_CST: i = t.atomic_rmw_seq_cst(a.data, aba); break;
    case MODEL_ACQ_REL: i = t.atomic_rmw_acq_rel(a.data, aba); break;
    case MODEL_ACQUIRE: i = t.atomic_rmw_acquire(a.data, aba); break;
    case MODEL_RELEASE: i = t.atomic_rmw_release(a.data, aba); break;
    default: i = t.atomic_rmw_relaxed(a.data, aba); break;
    }
    put(a, word, size, i, value);
}

uint64_t load_at(const volatile void *word, size_t size, const model_site *site, model_order order) {
    atom &a = atom_at(word, size, site);
    const uint64_t v = a.past[load_index(a, order)];
    log_note(site, "load %s, %s: %#llx%s", site->word, order_names[order], (unsigned long long)v,
             v == a.value ? "" : " (old)");
    return v;
}

void store_at(volatile void *word, size_t size, uint64_t value, const model_site *site, model_order order) {
    atom &a = atom_at(word, size, site);
    unsigned i;
    switch (order) {
    case MODEL_SEQ_CST: i = self().atomic_store_seq_cst(a.data); break;
    case MODEL_ACQ_REL:
    case MODEL_RELEASE: i = self().atomic_store_release(a.data); break;
    default: i = self().atomic_store_relaxed(a.data); break;
    }
    log_note(site, "store %s, %s: %#llx", site->word, order_names[order], (unsigned long long)value);
    put(a, word, size, i, value);
}

} // namespace

uint64_t model_load(const volatile void *word, size_t size, const model_site *site) {
    return load_at(word, size, site, site->now);
}
void model_store(volatile void *word, size_t size, uint64_t value, const model_site *site) {
    store_at(word, size, value, site, site->now);
}

uint64_t model_xchg(volatile void *word, size_t size, uint64_t value, const model_site *site) {
    if (site->now == MODEL_SPLIT) {
        const uint64_t was = load_at(word, size, site, site->order);
        store_at(word, size, value, site, site->order);
        return was;
    }
    atom &a = atom_at(word, size, site);
    const uint64_t old = a.value;
    log_note(site, "xchg %s, %s: %#llx -> %#llx", site->word, order_names[site->now], (unsigned long long)old,
             (unsigned long long)value);
    modify(a, word, size, value, site->now);
    return old;
}

uint64_t model_add(volatile void *word, size_t size, uint64_t value, const model_site *site) {
    if (site->now == MODEL_SPLIT) {
        const uint64_t was = load_at(word, size, site, site->order);
        store_at(word, size, size == 8 ? was + value : (uint32_t)(was + value), site, site->order);
        return was;
    }
    atom &a = atom_at(word, size, site);
    const uint64_t old = a.value, sum = size == 8 ? old + value : (uint32_t)(old + value);
    log_note(site, "add %s, %s: %#llx -> %#llx", site->word, order_names[site->now], (unsigned long long)old,
             (unsigned long long)sum);
    modify(a, word, size, sum, site->now);
    return old;
}

/* As the seam has it: strong, and relaxed where it fails. One that fails may have read an older value. */
int model_cas(volatile void *word, size_t size, void *expected, uint64_t value, const model_site *site) {
    const uint64_t want = memory_get(expected, size);
    if (site->now == MODEL_SPLIT) {
        const uint64_t was = load_at(word, size, site, site->order);
        if (was == want) store_at(word, size, value, site, site->order);
        memory_set(expected, size, was);
        return was == want;
    }
    atom &a = atom_at(word, size, site);
    uint64_t seen = a.value;
    if (rl::ctx().rand(4, rl::sched_type_user) == 3) seen = a.past[load_index(a, MODEL_RELAXED)];
    if (seen == want) seen = a.value;
    if (seen == want) {
        log_note(site, "cas %s, %s: %#llx -> %#llx", site->word, order_names[site->now], (unsigned long long)want,
                 (unsigned long long)value);
        modify(a, word, size, value, site->now);
        return 1;
    }
    if (seen == a.value) (void)self().atomic_load_relaxed_rmw(a.data);
    log_note(site, "cas %s fails: %#llx, not %#llx", site->word, (unsigned long long)seen, (unsigned long long)want);
    memory_set(expected, size, seen);
    return 0;
}

void *model_malloc(size_t size) { return block_new(size); }
void *model_realloc(void *old, size_t size) {
    void *p = block_new(size);
    if (!old) return p;
    const size_t had = blocks[block_of[offset_of(old) / WORD]].size, n = had < size ? had : size;
    plain_access(old, n, false);
    plain_access(p, n, true);
    memcpy(p, old, n);
    block_free(old);
    return p;
}
void model_free(void *p) {
    if (p) block_free(p);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>kernel: time, epoll, eventfds. An eventfd is watched edge-triggered, by one epoll fd                           */

namespace {

constexpr int FDS = 32, FIRST_FD = 100;

struct file {
    bool open;
    uint64_t counter; /* an eventfd's writes, a timerfd's expirations */
    bool armed;       /* a timerfd's */
    int watcher;      /* the epoll fd that watches it, 0 none */
    uint64_t data;    /* what that reports */
    uint32_t events;
    bool edge;  /* there is something that was not reported yet */
    int waiter; /* an epoll fd's: thread + 1 that waits in it */
};
struct sleeper {
    volatile void *word;
    int thread;
};

file files[FDS];
sleeper sleepers[16];
int files_n, sleepers_n;
int64_t now_ns;

struct lock {
    void *name;
    rl::generic_mutex_data *mutex;
};
lock locks[16];
int locks_n;

void kernel_reset() {
    memset(files, 0, sizeof files);
    files_n = sleepers_n = locks_n = 0;
    now_ns = 1000000000;
}

file &file_of(int fd) {
    if (fd < FIRST_FD || fd >= FIRST_FD + files_n || !files[fd - FIRST_FD].open)
        fail(rl::test_result_user_assert_failed, "a system call on a closed fd, %s", whereabouts());
    return files[fd - FIRST_FD];
}
int file_new() {
    if (files_n == FDS) fail(rl::test_result_inconsistent_test_suite, "too many fds");
    files[files_n].open = true;
    return FIRST_FD + files_n++;
}

/* What an epoll fd has to report; NULL: only whether it has anything. */
int collect(int ep, epoll_event *events) {
    int n = 0;
    for (int i = 0; i < files_n && n < 4; i++) {
        file &f = files[i];
        if (!f.open || f.watcher != ep || !f.counter || ((f.events & EPOLLET) && !f.edge)) continue;
        if (events) {
            f.edge = false;
            events[n].events = EPOLLIN;
            events[n].data.u64 = f.data;
        }
        n++;
    }
    return n;
}

/* Something new on a watched fd. */
void rise(file &f) {
    f.counter++;
    f.edge = true;
    if (!f.watcher) return;
    file &e = file_of(f.watcher);
    if (!e.waiter) return;
    const int thread = e.waiter - 1;
    e.waiter = 0;
    rl::ctx().unpark_thread(thread, false, outside_it);
}

/* Waits until the epoll fd has something to report, or until a timer fires, which may be at any time. */
void await(int ep, bool timed) {
    file *timer = nullptr;
    for (int i = 0; i < files_n; i++)
        if (files[i].open && files[i].watcher == ep && files[i].armed) timer = &files[i];
    file_of(ep).waiter = self().index_ + 1;
    const rl::unpark_reason why = rl::ctx().park_current_thread(timed || timer, false, false, outside_it);
    file_of(ep).waiter = 0;
    if (why == rl::unpark_reason_timeout && timer && timer->armed) {
        timer->armed = false;
        rise(*timer);
    }
}

} // namespace

int64_t model_now(void) { return now_ns += model_choose(2) * 1000; } /* coarse clocks stand still at times */
int model_epoll_create(void) { return file_new(); }
int model_eventfd(void) { return file_new(); }
int model_timerfd(void) { return file_new(); }
int model_timerfd_set(int fd, int64_t ns) {
    rl::ctx().sched();
    file &f = file_of(fd);
    log_note(nullptr, "timerfd: %lld ns", (long long)ns);
    f.counter = 0;
    f.edge = false;
    f.armed = ns > 1;
    if (ns == 1) rise(f);
    return 0;
}
void model_poll(int ep) {
    rl::ctx().sched();
    while (!collect(ep, nullptr)) {
        log_note(nullptr, "poll sleeps");
        await(ep, false);
    }
    log_note(nullptr, "poll: readable");
}
int model_epoll_ctl(int ep, int what, int fd, epoll_event *event) {
    (void)file_of(ep);
    file &f = file_of(fd);
    f.watcher = what == EPOLL_CTL_DEL ? 0 : ep;
    if (event) f.data = event->data.u64, f.events = event->events;
    return 0;
}

int model_epoll_wait(int ep, epoll_event *events, int64_t timeout_ns) {
    rl::ctx().sched();
    (void)file_of(ep);
    int n = collect(ep, events);
    if (!n && timeout_ns) {
        log_note(nullptr, "epoll_wait sleeps");
        await(ep, timeout_ns > 0);
        n = collect(ep, events);
    }
    log_note(nullptr, "epoll_wait returns %d", n);
    return n;
}

int64_t model_write(int fd) {
    rl::ctx().sched();
    log_note(nullptr, "write to an eventfd");
    rise(file_of(fd));
    return 8;
}
int64_t model_read(int fd, void *value) {
    rl::ctx().sched();
    file &f = file_of(fd);
    memcpy(value, &f.counter, sizeof f.counter);
    f.counter = 0;
    return 8;
}
int model_close(int fd) {
    rl::ctx().sched();
    file_of(fd).open = false;
    return 0;
}
int model_unused(const char *call) {
    fail(rl::test_result_inconsistent_test_suite, "%s is not modelled", call);
    return -1;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>threads                                                                                                        */

int model_thread_start(void **thread, void *(*fn)(void *), void *arg) {
    rl::context &c = rl::ctx();
    c.sched();
    *thread = c.create_thread(fn, arg);
    log_note(nullptr, "a thread starts");
    return 0;
}
void model_thread_join(void *thread) {
    rl::ctx().sched();
    static_cast<rl::win_waitable_object *>(thread)->wait(false, false, outside_it);
}

/* The kernel compares and goes to sleep in one step. It may wake without reason. */
void model_futex_wait(volatile void *word, uint32_t value) {
    rl::context &c = rl::ctx();
    c.sched();
    if ((uint32_t)memory_get(word, 4) != value) return;
    const int me = self().index_;
    sleepers[sleepers_n++] = sleeper{word, me};
    log_note(nullptr, "futex: sleeps");
    c.park_current_thread(false, true, false, outside_it);
    for (int i = 0; i < sleepers_n; i++)
        if (sleepers[i].thread == me) sleepers[i] = sleepers[--sleepers_n];
    log_note(nullptr, "futex: awake");
}
void model_futex_wake(volatile void *word, int n) {
    rl::context &c = rl::ctx();
    c.sched();
    log_note(nullptr, "futex: wake");
    for (; n; n--) {
        int candidates[16], k = 0;
        for (int i = 0; i < sleepers_n; i++)
            if (sleepers[i].word == word) candidates[k++] = i;
        if (!k) return;
        const int chosen = candidates[k > 1 ? c.rand((unsigned)k, rl::sched_type_user) : 0];
        const int thread = sleepers[chosen].thread;
        sleepers[chosen] = sleepers[--sleepers_n];
        c.unpark_thread(thread, false, outside_it);
    }
}

static lock &lock_of(void *name) {
    for (int i = 0; i < locks_n; i++)
        if (locks[i].name == name) return locks[i];
    if (locks_n == 16) fail(rl::test_result_inconsistent_test_suite, "too many mutexes");
    locks[locks_n] = lock{name, rl::ctx().mutex_ctor(false, false, false, false)};
    return locks[locks_n++];
}
void model_lock(void *mutex) {
    log_note(nullptr, "lock");
    lock_of(mutex).mutex->lock_exclusive(false, outside_it);
}
void model_unlock(void *mutex) { lock_of(mutex).mutex->unlock_exclusive(outside_it); }
void model_yield(void) { rl::ctx().yield(1, outside_it); }

void model_fail(const char *text) { fail(rl::test_result_user_assert_failed, "%s", text); }
unsigned model_choose(unsigned n) { return rl::ctx().rand(n, rl::sched_type_user); }
int model_self(void) { return self().index_; }

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>search: how schedules are chosen                                                                               */

namespace {

/* Each schedule has a style, by its number: a uniform choice at each step; long runs of one thread; or strict
   priorities that change at a few random steps (Burckhardt et al., "A randomized scheduler with probabilistic
   guarantees of finding bugs", ASPLOS 2010), which finds what needs a thread to stand still while others go far. How
   often loads return old values varies, too. */
template <rl::thread_id_t N> class explorer : public rl::scheduler<explorer<N>, rl::scheduler_thread_info, N> {
  public:
    typedef rl::scheduler<explorer<N>, rl::scheduler_thread_info, N> base_t;
    typedef typename base_t::thread_info_t thread_info_t;
    typedef typename base_t::shared_context_t shared_context_t;
    struct task_t {};

    explorer(rl::test_params &params, shared_context_t &context, rl::thread_id_t dynamic)
        : base_t(params, context, dynamic) {}

    rl::thread_id_t iteration_begin_impl() {
        the_schedule = this->iter_;
        state_ = this->iter_ * 0x9e3779b97f4a7c15u + 0x1234567;
        style_ = next(4);
        const unsigned odds[] = {2, 2, 4, 16};
        old_odds_ = odds[next(4)];
        step_ = 0;
        lowest_ = 0;
        for (int i = 0; i < N; i++) priority_[i] = i + 1;
        for (int i = N - 1; i > 0; i--) std::swap(priority_[i], priority_[next((unsigned)i + 1)]);
        changes_n_ = 1 + next(CHANGES);
        const unsigned range = 16u << next(6);
        for (unsigned i = 0; i < changes_n_; i++) changes_[i] = next(range);
        rl::unpark_reason reason;
        this->thread_ = nullptr;
        return schedule_impl(reason, 0);
    }
    bool iteration_end_impl() { return this->iter_ >= this->params_.iteration_count; }

    rl::thread_id_t schedule_impl(rl::unpark_reason &reason, unsigned yield) {
        const int running = this->running_threads_count, timed = this->timed_thread_count_;
        const int spurious = this->spurious_thread_count_;
        if (timed && (!running || next(16) == 0))
            return wake(this->timed_threads_[next((unsigned)timed)], reason, rl::unpark_reason_timeout);
        if (spurious && running && next(64) == 0)
            return wake(this->spurious_threads_[next((unsigned)spurious)], reason, rl::unpark_reason_spurious);
        reason = rl::unpark_reason_normal;
        step_++;
        const int current = this->thread_ ? this->thread_->index_ : -1;
        if (style_ >= 2) return by_priority(current, yield);
        if (style_ == 1 && !yield && current >= 0 && this->thread_->state_ == rl::thread_state_running && next(16))
            return current;
        return this->running_threads[next((unsigned)running)];
    }

    unsigned rand_impl(unsigned limit, rl::sched_type type) {
        if (type == rl::sched_type_atomic_load) return next(old_odds_) ? 0 : 1; /* 0: no older one */
        return next(limit);
    }
    rl::iteration_t iteration_count_impl() { return this->params_.iteration_count; }
    void get_state_impl(std::ostream &) {}
    void set_state_impl(std::istream &) {}
    void on_thread_block(rl::thread_id_t, bool) {}

  private:
    enum { CHANGES = 4 };
    uint64_t state_;
    unsigned style_, old_odds_, step_, changes_n_, changes_[CHANGES];
    int priority_[N], lowest_;

    unsigned next(unsigned n) { /* splitmix64 */
        uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return (unsigned)((z ^ z >> 31) % n);
    }
    rl::thread_id_t wake(thread_info_t *thread, rl::unpark_reason &reason, rl::unpark_reason why) {
        const rl::thread_id_t index = thread->index_;
        this->unpark_thread(index);
        reason = why;
        return index;
    }
    rl::thread_id_t by_priority(int current, unsigned yield) {
        bool demote = yield != 0;
        for (unsigned i = 0; i < changes_n_; i++) demote |= changes_[i] == step_;
        if (demote && current >= 0) priority_[current] = --lowest_;
        rl::thread_id_t best = this->running_threads[0];
        for (int i = 1; i < this->running_threads_count; i++)
            if (priority_[this->running_threads[i]] > priority_[best]) best = this->running_threads[i];
        return best;
    }
};

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>run: a model as Relacy sees it                                                                                 */

template <rl::thread_id_t STATIC, rl::thread_id_t DYNAMIC>
struct suite : rl::test_suite<suite<STATIC, DYNAMIC>, STATIC> {
    static rl::thread_id_t const dynamic_thread_count = DYNAMIC;

    void before() {
        words_reset();
        kernel_reset();
        the_model->begin();
    }
    void thread(unsigned index) {
        if ((int)index < the_model->threads) the_model->thread((int)index);
    }
    void after() {
        if (the_model->end) the_model->end();
        for (int i = 0; i < locks_n; i++) rl::ctx().mutex_dtor(locks[i].mutex);
        for (size_t i = 1; i < blocks_n; i++)
            if (!blocks[i].freed) fail(rl::test_result_memory_leak, "a block of %zu bytes is left", blocks[i].size);
        for (int i = 0; i < files_n; i++)
            if (files[i].open) fail(rl::test_result_resource_leak, "an fd is left open");
    }
};

template <rl::thread_id_t STATIC, rl::thread_id_t DYNAMIC> struct world_of : world {
    enum { N = STATIC + DYNAMIC, CHUNK = 4096, CHUNKS = 64 };
    typedef rl::var_data_impl<N> var_t;
    typedef rl::atomic_data_impl<N> atomic_t;
    var_t *vars[CHUNKS];
    size_t vars_n = 0;
    atomic_t *atomics;
    size_t atomics_n = 0;

    world_of() {
        memset(vars, 0, sizeof vars);
        atomics = (atomic_t *)malloc(CHUNK * sizeof *atomics);
    }
    void *var_room() {
        const size_t chunk = vars_n / CHUNK;
        if (chunk == CHUNKS) fail(rl::test_result_inconsistent_test_suite, "too much plain data");
        if (!vars[chunk]) vars[chunk] = (var_t *)malloc(CHUNK * sizeof(var_t));
        return &vars[chunk][vars_n++ % CHUNK];
    }
    rl::var_data *var_new() override { return new (var_room()) var_t(); }
    rl::var_data *var_copy(const rl::var_data *from) override {
        return new (var_room()) var_t(*static_cast<const var_t *>(from));
    }
    /* The first value is known to all: whether the thread that wrote it is, is checked apart. */
    rl::atomic_data *atomic_new() override {
        if (atomics_n == CHUNK) fail(rl::test_result_inconsistent_test_suite, "too many atomics");
        atomic_t *a = new (&atomics[atomics_n++]) atomic_t();
        for (size_t i = 0; i < HISTORY; i++) a->history_[i].busy_ = false;
        typename atomic_t::history_record &first = a->history_[0];
        first.busy_ = true;
        first.thread_id_ = 0;
        first.acq_rel_timestamp_ = 0;
        for (int i = 0; i < N; i++) first.acq_rel_order_[i] = 0, first.first_seen_order_[i] = (rl::timestamp_t)-1;
        return a;
    }
    void reset() override { vars_n = atomics_n = 0; }
    rl::test_result_e run(rl::test_params &params, std::ostream &out) override {
        return rl::run_test<suite<STATIC, DYNAMIC>, explorer<N>>(params, out, false);
    }
};

/* Two sizes for all models, for the compiler's sake: threads that a model doesn't have end at once. */
enum { MODEL_THREADS = 4, POOL_THREADS = 2, POOL_WORKERS = 2 };

world *world_for(const model &m) {
    if (m.threads > (m.workers ? POOL_THREADS : MODEL_THREADS) || m.workers > POOL_WORKERS) {
        fprintf(stderr, "model: %s has more threads than the engine\n", m.name);
        exit(2);
    }
    if (m.workers) return new world_of<POOL_THREADS, POOL_WORKERS>;
    return new world_of<MODEL_THREADS, 0>;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* >>driver                                                                                                         */

struct verdict { /* in memory shared with the process that found it */
    int done, failed;
    char model[24], text[256];
    uint64_t schedule, schedules;
    double seconds;
};

struct options {
    bool quick, list, trace;
    const char *only, *weaken;
    uint64_t schedules, first;
    unsigned jobs;
};

constexpr uint64_t STAGES[] = {300, 3000, 30000, 300000}; /* schedules of each model, until one catches a weakening */

double seconds() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

verdict *the_verdict;

/* The child's last words when it can't go on: a schedule without an end, or an invalid pointer. */
void give_up(const char *text) {
    the_verdict->failed = 1;
    the_verdict->schedule = the_schedule;
    snprintf(the_verdict->text, sizeof the_verdict->text, "%s", text);
    the_verdict->done = 1;
    _exit(0);
}
void on_alarm(int) {
    static uint64_t before;
    if (the_schedule == before) give_up("a schedule that doesn't end");
    before = the_schedule;
}
void on_fault(int) { give_up("an invalid pointer"); }

void child_signals() {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing goes on without the driver */
    static char stack[16384];
    stack_t alternate = {};
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, nullptr);
    struct sigaction a = {};
    a.sa_flags = SA_ONSTACK;
    a.sa_handler = on_fault;
    sigaction(SIGSEGV, &a, nullptr);
    sigaction(SIGBUS, &a, nullptr);
    sigaction(SIGABRT, &a, nullptr);
    a.sa_handler = on_alarm;
    sigaction(SIGVTALRM, &a, nullptr);
    itimerval every = {};
    every.it_interval.tv_sec = every.it_value.tv_sec = 5; /* of its own processor time */
    setitimer(ITIMER_VIRTUAL, &every, nullptr);
}

/* Runs schedules first..last of a model in this process; false if one fails. */
bool explore(const model &m, uint64_t first, uint64_t last, bool trace, verdict *v) {
    std::ostringstream sink, log;
    rl::test_params params;
    char start[32];
    snprintf(start, sizeof start, "%llu", (unsigned long long)first);
    params.iteration_count = last;
    params.initial_state = start;
    params.collect_history = trace;
    params.execution_depth_limit = 20000;
    params.output_stream = trace ? static_cast<std::ostream *>(&std::cout) : &log;
    params.progress_stream = &log;
    the_model = &m;
    snprintf(v->model, sizeof v->model, "%s", m.name);
    the_world = world_for(m);
    const rl::test_result_e r = the_world->run(params, sink);
    delete the_world;
    v->schedules += params.stop_iteration - first + 1;
    if (r == rl::test_result_success) return true;
    v->failed = 1;
    v->schedule = params.stop_iteration;
    snprintf(v->text, sizeof v->text, "%s%s%s", rl::test_result_str(r), the_failure[0] ? ": " : "", the_failure);
    return false;
}

struct job {
    model_site *site; /* weakened, NULL none */
    model_order order;
    const model *m; /* NULL: all, until one fails */
    uint64_t first, last;
    verdict *v;
    pid_t pid;
};

void run_job(const job &j) {
    the_verdict = j.v;
    if (j.site) j.site->now = j.order;
    if (j.m) {
        (void)explore(*j.m, j.first, j.last, false, j.v);
        return;
    }
    uint64_t from = 1;
    for (size_t s = 0; s < sizeof STAGES / sizeof *STAGES && from <= j.last; s++) {
        const uint64_t to = STAGES[s] < j.last ? STAGES[s] : j.last;
        for (int i = 0; i < model_count; i++)
            if (!explore(model_all[i], from, to, false, j.v)) return;
        from = to + 1;
    }
}

/* Runs jobs in processes of their own, some at a time; `ended` is called in order. */
void run_jobs(job *jobs, size_t n, unsigned at_a_time, void (*ended)(const job &)) {
    size_t next = 0, shown = 0, running = 0;
    while (shown < n) {
        while (next < n && running < at_a_time) {
            fflush(stdout);
            jobs[next].pid = fork();
            if (jobs[next].pid == 0) {
                child_signals();
                const double begin = seconds();
                run_job(jobs[next]);
                jobs[next].v->seconds = seconds() - begin;
                jobs[next].v->done = 1;
                _exit(0);
            }
            if (jobs[next].pid < 0) {
                perror("model: fork");
                exit(2);
            }
            next++;
            running++;
        }
        int status;
        const pid_t pid = wait(&status);
        if (pid < 0) break;
        running--;
        for (size_t i = 0; i < next; i++) {
            if (jobs[i].pid != pid) continue;
            jobs[i].pid = 0;
            if (!jobs[i].v->done) {
                jobs[i].v->failed = 1;
                snprintf(jobs[i].v->text, sizeof jobs[i].v->text, "the process died");
            }
        }
        while (shown < next && !jobs[shown].pid) ended(jobs[shown++]);
    }
}

int passed, failed;

/* ---- the sites ---- */

int nth_in_function(size_t index) {
    int n = 1;
    for (size_t i = 0; i < index; i++) n += strcmp(sites[i]->function, sites[index]->function) == 0;
    return n;
}
const char *site_name(size_t index) {
    static char text[96];
    snprintf(text, sizeof text, "%s/%d", sites[index]->function, nth_in_function(index));
    return text;
}
void *shared(size_t n) { /* memory that child processes share */
    void *p = mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("model: mmap");
        exit(2);
    }
    return p;
}
/* The words of a line keep the order in which the compiler met them. */
void find_sites() {
    for (model_site *const *s = __start_model_sites; s < __stop_model_sites; s++) {
        if (!strstr((*s)->file, "offload.h")) continue; /* the models' own */
        size_t i = sites_n++;
        for (; i && sites[i - 1]->line > (*s)->line; i--) sites[i] = sites[i - 1];
        sites[i] = *s;
    }
    for (size_t i = 0; i < sites_n; i++) sites[i]->index = (unsigned)i;
    reached = static_cast<unsigned char *>(shared(SITES));
}

/* What is next weaker: one step for each half of acquire-and-release, and two steps instead of one. */
int weaker(const model_site &s, model_order *out) {
    const bool modifies = s.kind == MODEL_XCHG || s.kind == MODEL_ADD || s.kind == MODEL_CAS;
    int n = 0;
    switch (s.order) {
    case MODEL_SEQ_CST:
        out[n++] = modifies ? MODEL_ACQ_REL : s.kind == MODEL_LOAD ? MODEL_ACQUIRE : MODEL_RELEASE;
        break;
    case MODEL_ACQ_REL: out[n++] = MODEL_ACQUIRE, out[n++] = MODEL_RELEASE; break;
    case MODEL_ACQUIRE:
    case MODEL_RELEASE: out[n++] = MODEL_RELAXED; break;
    default: break;
    }
    if (modifies) out[n++] = MODEL_SPLIT;
    return n;
}

/* ---- what is printed ---- */

const char *the_weakening; /* of --weaken */

void show_model(const job &j) {
    const verdict &v = *j.v;
    printf("%-10s %8llu schedules %7.1f s  %s", j.m->name, (unsigned long long)v.schedules, v.seconds,
           v.failed ? "FAILED" : "ok");
    if (v.failed) printf(" in schedule %llu: %s", (unsigned long long)v.schedule, v.text);
    printf("\n");
    if (v.failed)
        printf("    see it: build/model/model --trace --model %s --first %llu%s%s\n", v.model,
               (unsigned long long)v.schedule, the_weakening ? " --weaken " : "", the_weakening ? the_weakening : "");
    fflush(stdout);
    (v.failed ? failed : passed)++;
}

void show_weakened(const job &j) {
    const verdict &v = *j.v;
    char what[96], change[32];
    snprintf(what, sizeof what, "%s %s", kind_names[j.site->kind], j.site->word);
    snprintf(change, sizeof change, "%s -> %s", order_names[j.site->order], order_names[j.order]);
    printf("%-24s %4d  %-38s %-22s  ", site_name(j.site->index), j.site->line, what, change);
    if (v.failed) printf("%-8s %6llu  %s\n", v.model, (unsigned long long)v.schedule, v.text);
    else printf("SURVIVED %llu schedules\n", (unsigned long long)v.schedules);
    fflush(stdout);
    (v.failed ? passed : failed)++;
}

void usage() {
    printf(
        "usage: model [--quick] [--model NAME] [--schedules N] [--first N] [--weaken SITE=ORDER] [--trace] [--list]\n"
        "             [--jobs N]\n\n"
        "Runs offload.h on a model of C11's memory: every model on the source as it is, then on the source with one\n"
        "access weakened, which some model has to notice.\n\n"
        "  --list               the models, and the sites of atomic accesses with their orders\n"
        "  --model NAME         only this model, on the source as it is\n"
        "  --schedules N        how many of each model\n"
        "  --first N            from this one on; a schedule's number decides everything in it\n"
        "  --weaken SITE=ORDER  with this order instead, as in ol__ring_put/3=relaxed; split: a load and a store\n"
        "  --trace              one schedule (--model, --first), with a log if it fails\n"
        "  --quick              fewer schedules\n"
        "  --jobs N             processes at a time\n\n"
        "The last line is `N passed, N failed`; the exit status says the same.\n");
}

void list() {
    printf("models:\n");
    for (int i = 0; i < model_count; i++)
        printf("  %-10s %d threads, %d workers: %s\n", model_all[i].name, model_all[i].threads, model_all[i].workers,
               model_all[i].about);
    printf("sites:\n");
    for (size_t i = 0; i < sites_n; i++)
        printf("  %-28s %5d  %-5s %-44s %s\n", site_name(i), sites[i]->line, kind_names[sites[i]->kind], sites[i]->word,
               order_names[sites[i]->order]);
}

model_site *parse_weaken(const char *text, model_order *order) {
    const char *equals = strchr(text, '=');
    for (size_t i = 0; equals && i < sites_n; i++) {
        const char *name = site_name(i);
        if (strlen(name) != (size_t)(equals - text) || strncmp(name, text, strlen(name)) != 0) continue;
        for (int k = 0; k < 6; k++)
            if (strcmp(k == MODEL_SPLIT ? "split" : order_names[k], equals + 1) == 0)
                return *order = (model_order)k, sites[i];
    }
    fprintf(stderr, "model: no site and order '%s': see --list\n", text);
    exit(2);
}

const model *find_model(const char *name) {
    for (int i = 0; i < model_count; i++)
        if (strcmp(model_all[i].name, name) == 0) return &model_all[i];
    fprintf(stderr, "model: no model '%s': see --list\n", name);
    exit(2);
}

int finish() {
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed ? 1 : 0;
}

void check_source(const options &o) {
    job jobs[64] = {};
    verdict *v = static_cast<verdict *>(shared(64 * sizeof *v));
    size_t n = 0;
    for (int i = 0; i < model_count; i++) {
        if (o.only && strcmp(model_all[i].name, o.only) != 0) continue;
        jobs[n] = job{nullptr, MODEL_RELAXED, &model_all[i], o.first, o.first - 1 + o.schedules, &v[n], 0};
        n++;
    }
    printf("the source as it is:\n");
    run_jobs(jobs, n, o.jobs, show_model);
    if (o.only) return;
    size_t count = 0;
    for (size_t i = 0; i < sites_n; i++) count += reached[i];
    printf("%zu of %zu atomic accesses reached%s", count, sites_n, count < sites_n ? ", all but" : "");
    for (size_t i = 0; i < sites_n; i++)
        if (!reached[i]) printf(" %s", site_name(i));
    printf("\n");
}

void check_weakened(const options &o) {
    static job jobs[3 * SITES];
    const uint64_t most = o.schedules < 10000 ? 10000 : o.schedules; /* what is noticed at all is noticed sooner */
    verdict *v = static_cast<verdict *>(shared(3 * SITES * sizeof *v));
    size_t n = 0;
    for (size_t i = 0; i < sites_n; i++) {
        model_order orders[3];
        for (int k = 0, count = weaker(*sites[i], orders); k < count; k++, n++)
            jobs[n] = job{sites[i], orders[k], nullptr, 1, most, &v[n], 0};
    }
    printf("\nwith one access weakened:\n%-24s %4s  %-38s %-22s  %-8s %6s\n", "function/access", "line", "access",
           "order", "model", "sched.");
    run_jobs(jobs, n, o.jobs, show_weakened);
}

} // namespace

int main(int argc, char **argv) {
    options o = {};
    find_sites();
    o.first = 1;
    o.jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *value = i + 1 < argc ? argv[i + 1] : nullptr;
        if (!strcmp(a, "--help") || !strcmp(a, "-h")) return usage(), 0;
        if (!strcmp(a, "--quick")) o.quick = true;
        else if (!strcmp(a, "--list")) o.list = true;
        else if (!strcmp(a, "--trace")) o.trace = true;
        else if (value && !strcmp(a, "--model")) o.only = value, i++;
        else if (value && !strcmp(a, "--weaken")) o.weaken = value, i++;
        else if (value && !strcmp(a, "--schedules")) o.schedules = strtoull(value, nullptr, 10), i++;
        else if (value && !strcmp(a, "--first")) o.first = strtoull(value, nullptr, 10), i++;
        else if (value && !strcmp(a, "--jobs")) o.jobs = (unsigned)strtoul(value, nullptr, 10), i++;
        else {
            fprintf(stderr, "model: unknown option %s: see --help\n", a);
            return 2;
        }
    }
    if (!o.schedules) o.schedules = o.trace ? 1 : o.quick ? 1000 : 100000;
    if (!o.jobs) o.jobs = 1;
    if (o.list) return list(), 0;
    if (o.only) (void)find_model(o.only);
    if (o.weaken) {
        model_order order;
        model_site *site = parse_weaken(o.weaken, &order);
        site->now = order;
        the_weakening = o.weaken;
    }
    if (o.trace) {
        if (!o.only) return fprintf(stderr, "model: --trace needs --model\n"), 2;
        verdict v = {};
        the_verdict = &v;
        const bool ok = explore(*find_model(o.only), o.first, o.first - 1 + o.schedules, true, &v);
        if (!ok) printf("%s\n", v.text);
        return (ok ? passed : failed)++, finish();
    }
    check_source(o);
    if (!o.only && !o.weaken && !failed) check_weakened(o); /* a model that always fails catches nothing */
    return finish();
}
