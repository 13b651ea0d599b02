/* torture: what offload.h does when the system fails, call by call.

   cc -std=c11 -O1 -g -I. -DOFFLOAD_ISAL tests/torture/[a-z]*.c -o build/torture/torture -pthread -lisal

   The shipped header runs small scenarios on the real kernel: loops, coroutines, sockets, pipes, files, threads. Its calls
   are counted, those of the loop's thread and of workers apart. Then each scenario runs once for every one of these calls
   and every error that the call's manual page names, which it is given: once, and from then on; reads and writes are
   also cut short. Each run is a process of its own, which runs the scenario with the fault and then without, and fails
     - when it crashes, or a sanitizer reports,
     - when it does not end: a wait that nothing can end, or too many rounds of the loop,
     - when memory, an fd or a thread is left,
     - when an operation that was accepted does not complete once,
     - when a call gives an error that nothing explains, or one without a text,
     - when the scenario does not do its work although the fault is one that the library should deal with, or afterwards.
   A failure prints the command that repeats it alone. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include "checks.h"

enum { SLOTS = 16, SHOWN = 5, SHOWN_IN_ALL = 30, HANGS = 3, SCENARIOS = 128 };

static struct options {
    const char *scenario, *call, *error;
    uint32_t index;
    int mode, quick, verbose, list, calls, jobs, pairs;
    int seed;
    enum side side; /* of the call */
    struct strike also;
} want = {.mode = -1, .jobs = 2, .pairs = 100, .seed = 1};

struct injection { /* what a run is to suffer */
    int scenario;  /* its number */
    int n;         /* faults; 0: it is a run that counts the calls */
    struct strike strike[2];
};

static struct slot { /* a run under way */
    pid_t pid;
    int output;
    struct report *report;
    struct injection at;
} slots[SLOTS];

static struct tally {
    uint32_t made, reached, failed, hung;
    int broken; /* without a fault already */
} by_scenario[SCENARIOS], by_call[CALL_COUNT], pairs, total;

static const struct scenario *list[SCENARIOS];
static struct report count[SCENARIOS]; /* calls without a fault */
static int nscenarios, baselines, baseline_failures;
static const char *self = "build/torture/torture";

static int shown; /* failures, in full */
static int shows(int scenario) { return by_scenario[scenario].failed < SHOWN && shown < SHOWN_IN_ALL; }

/* ---------------------------------------------------------------------------------------------------------------- */
/* A run, in a process of its own                                                                                   */

static void panicked(const char *text) { fail("%s", text); }

static void run_once(const struct scenario *p) {
    check_begin();
    p->run();
    check_end();
}

/* The number of calls differs a little from run to run where threads take part: the larger counts. */
static void run_and_count(const struct scenario *p) {
    struct report first;
    run_once(p);
    first = *report;
    memset(report->calls, 0, sizeof report->calls);
    run_once(p);
    for (int s = 0; s < SIDES; s++)
        for (int c = 0; c < CALL_COUNT; c++)
            if (first.calls[s][c] > report->calls[s][c]) report->calls[s][c] = first.calls[s][c];
}

__attribute__((noreturn)) static void run(const struct injection *at) {
    const struct scenario *p = list[at->scenario];
    ol_set_panic(panicked);
    alarm(SECONDS);
    if (!at->n) {
        run_and_count(p);
        _exit(0);
    }
    memcpy(plan.strike, at->strike, sizeof plan.strike);
    plan.n = at->n;
    plan.verbose = want.verbose;
    plan.quiet = !shows(at->scenario);
    plan.active = 1;
    run_once(p);
    plan.active = plan.n = 0;
    if (report->reached) run_once(p);
    _exit(0);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* Starting them and judging how they end                                                                           */

static void start(struct slot *s, const struct injection *at) {
    s->at = *at;
    memset(s->report, 0, sizeof *s->report);
    if (ftruncate(s->output, 0) != 0 || lseek(s->output, 0, SEEK_SET) != 0) perror("torture: output");
    fflush(NULL);
    s->pid = fork();
    if (s->pid < 0) {
        perror("torture: fork");
        exit(2);
    }
    if (s->pid) return;
    report = s->report;
    dup2(s->output, 1);
    dup2(s->output, 2);
    run(at);
}

static const char *side_prefix(enum side side) { return side == SIDE_WORKER ? "worker:" : ""; }

static void print_command(const struct injection *at) {
    static const char *const modes[] = {"once", "on"};
    const struct strike *s = at->strike;
    printf("%s --scenario %s", self, list[at->scenario]->name);
    if (at->n)
        printf(" --call %s%s --index %u --errno %s --mode %s", side_prefix(s->side), call_names[s->call], s->index,
               s->fault->name, modes[s->mode]);
    if (at->n == 2)
        printf(" --and %s%s,%u,%s,%s", side_prefix(s[1].side), call_names[s[1].call], s[1].index, s[1].fault->name,
               modes[s[1].mode]);
    printf("\n");
}

static void print_output(const struct slot *s, int lines) {
    char text[8192];
    const ssize_t n = pread(s->output, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    for (char *line = text, *end; *line && lines; line = end, lines--) {
        end = strchr(line, '\n');
        if (end) *end++ = 0;
        else end = line + strlen(line);
        if (strspn(line, "= ") != strlen(line)) printf("      | %s\n", line);
    }
}

/* How a run ended: 1 well. */
static int judge(struct slot *s, int status) {
    static int silent;
    const int hung = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    const int well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    struct tally *t = &by_scenario[s->at.scenario];
    if (well) return 1;
    t->hung += hung ? 1u : 0u;
    if (shows(s->at.scenario)) {
        shown++;
        printf("not ok ");
        print_command(&s->at);
        if (s->report->text[0]) printf("      %s\n", s->report->text);
        else if (hung) printf("      no end in %d seconds\n", SECONDS);
        else if (WIFSIGNALED(status))
            printf("      killed by signal %d, %s\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
        else printf("      exit status %d\n", WEXITSTATUS(status));
        print_output(s, want.verbose ? 200 : 12);
    } else if (!silent++) {
        printf("      further failures are counted, and some are not shown\n");
    }
    return 0;
}

static void ended(struct slot *s, int status) {
    const int well = judge(s, status);
    const int p = s->at.scenario;
    s->pid = 0;
    if (want.verbose && well) print_output(s, 200);
    if (!s->at.n) {
        count[p] = *s->report;
        by_scenario[p].broken = !well;
        baselines++;
        baseline_failures += !well;
        return;
    }
    struct tally *all[] = {&by_scenario[p], s->at.n == 2 ? &pairs : &by_call[s->at.strike[0].call], &total};
    for (int i = 0; i < 3; i++) {
        all[i]->made++;
        all[i]->reached += s->report->reached != 0;
        all[i]->failed += !well;
    }
}

/* Waits for one of ours; others that end here are not. */
static void wait_for_one(void) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, 0);
    if (pid < 0 && errno != EINTR) {
        perror("torture: waitpid");
        exit(2);
    }
    for (int i = 0; i < want.jobs; i++)
        if (pid > 0 && slots[i].pid == pid) ended(&slots[i], status);
}

/* Now and then a line, for those who wait. */
static void progress(const struct injection *at) {
    static time_t last;
    const time_t now = time(NULL);
    if (!last) last = now;
    if (now < last + 5) return;
    last = now;
    fprintf(stderr, "  %6u runs, at %s\n", total.made, list[at->scenario]->name);
}

static void submit(const struct injection *at) {
    progress(at);
    for (;;) {
        for (int i = 0; i < want.jobs; i++)
            if (!slots[i].pid) {
                start(&slots[i], at);
                return;
            }
        wait_for_one();
    }
}

static void finish(void) {
    for (int i = 0; i < want.jobs; i++)
        while (slots[i].pid) wait_for_one();
}

static void open_slots(void) {
    for (int i = 0; i < want.jobs; i++) {
        void *p = mmap(NULL, sizeof(struct report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        slots[i].output = memfd_create("torture", MFD_CLOEXEC);
        if (p == MAP_FAILED || slots[i].output < 0) {
            perror("torture: memory for a run");
            exit(2);
        }
        slots[i].report = (struct report *)p;
    }
}

char files_directory[512];
static pid_t parent;
static void remove_files(void) {
    const int dir = getpid() == parent ? open(files_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (dir < 0) return;
    if (unlinkat(dir, "file", 0) != 0 || unlinkat(dir, "fifo", 0) != 0 || rmdir(files_directory) != 0)
        perror(files_directory);
    close(dir);
}
static void make_files(void) {
    static unsigned char bytes[FILE_BYTES];
    const char *tmp = getenv("TMPDIR");
    parent = getpid();
    snprintf(files_directory, sizeof files_directory, "%s/offload-torture-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    const int dir = mkdtemp(files_directory) ? open(files_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    const int file = dir < 0 ? -1 : openat(dir, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    for (int i = 0; i < FILE_BYTES; i++) bytes[i] = (unsigned char)i;
    if (file < 0 || write(file, bytes, FILE_BYTES) != FILE_BYTES || mkfifoat(dir, "fifo", 0600) != 0) {
        fprintf(stderr, "torture: %s: %s; TMPDIR names another place for files\n", files_directory, strerror(errno));
        exit(2);
    }
    close(file);
    close(dir);
    atexit(remove_files);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* All injections                                                                                                   */

/* Which errors a call is given: all, or one of them, in turn. */
static int takes(int fault, enum call call, uint32_t index) {
    int n = 0, before = 0;
    if (faults[fault].call != call) return 0;
    if (want.error) return strcmp(want.error, faults[fault].name) == 0;
    if (!want.quick) return 1;
    for (int i = 0; i < nfaults; i++) {
        n += faults[i].call == call;
        before += faults[i].call == call && i < fault;
    }
    return (int)(index % (uint32_t)n) == before;
}

static void inject(const struct injection *at) {
    if (by_scenario[at->scenario].hung < HANGS) submit(at);
}

static void inject_at(struct injection at) {
    struct strike *s = at.strike;
    for (int f = 0; f < nfaults; f++) {
        if (!takes(f, s->call, s->index)) continue;
        s->fault = &faults[f];
        for (int m = ONCE; m < MODES; m++) {
            s->mode = (enum mode)m;
            if (want.mode >= 0 ? m == want.mode : m == ONCE || !want.quick) inject(&at);
        }
    }
}

static void inject_into(int scenario) {
    for (int s = 0; s < SIDES; s++)
        for (int c = 0; c < CALL_COUNT; c++) {
            struct injection at;
            const uint32_t n = count[scenario].calls[s][c];
            memset(&at, 0, sizeof at);
            at.scenario = scenario;
            at.n = want.also.fault ? 2 : 1;
            at.strike[0].side = (enum side)s;
            at.strike[0].call = (enum call)c;
            at.strike[1] = want.also;
            if (want.call && (strcmp(want.call, call_names[c]) != 0 || s != (int)want.side)) continue;
            for (at.strike[0].index = 1; at.strike[0].index <= n && !want.index; at.strike[0].index++) inject_at(at);
            at.strike[0].index = want.index;
            if (want.index && (want.call || n)) inject_at(at);
        }
}

/* Pairs of faults, at random: what one of them leads to meets the other. */
static uint64_t random_state;
static uint32_t below(uint32_t n) { /* xorshift64*, S. Vigna, "An experimental exploration of Marsaglia's xorshift
                                       generators, scrambled", ACM TOMS 42, 2016 */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 0x2545f4914f6cdd1du) >> 32) % n;
}

static struct strike any_strike(int scenario) {
    struct strike s;
    uint32_t n = 0, kinds = 0, which;
    memset(&s, 0, sizeof s);
    for (int k = 0; k < SIDES * CALL_COUNT; k++) n += count[scenario].calls[k / CALL_COUNT][k % CALL_COUNT] != 0;
    which = below(n);
    for (int k = 0; k < SIDES * CALL_COUNT; k++) {
        if (!count[scenario].calls[k / CALL_COUNT][k % CALL_COUNT] || which-- != 0) continue;
        s.side = (enum side)(k / CALL_COUNT);
        s.call = (enum call)(k % CALL_COUNT);
    }
    s.index = 1 + below(count[scenario].calls[s.side][s.call] + 1); /* with a fault there may be more calls */
    s.mode = (enum mode)below(MODES);
    for (int f = 0; f < nfaults; f++)
        if (faults[f].call == s.call && below(++kinds) == 0) s.fault = &faults[f];
    return s;
}

static void inject_pairs(int scenario) {
    random_state = 0x9e3779b97f4a7c15u * ((uint64_t)want.seed + 1); /* and the same whatever else runs */
    for (const char *c = list[scenario]->name; *c; c++) random_state = random_state * 31 + (unsigned char)*c;
    for (int i = 0; i < want.pairs; i++) {
        struct injection at;
        memset(&at, 0, sizeof at);
        at.scenario = scenario;
        at.n = 2;
        at.strike[0] = any_strike(scenario);
        at.strike[1] = any_strike(scenario);
        /* some calls can't fail; and one that says "again" twice as often as a system does is no system */
        if (!at.strike[0].fault || !at.strike[1].fault || at.strike[0].call == at.strike[1].call) continue;
        inject(&at);
    }
}

static int wanted(int scenario) { return !want.scenario || strcmp(want.scenario, list[scenario]->name) == 0; }

static void run_all(void) {
    for (int i = 0; i < nscenarios; i++) {
        struct injection at;
        memset(&at, 0, sizeof at);
        at.scenario = i;
        if (wanted(i)) submit(&at);
    }
    finish();
    for (int i = 0; i < nscenarios; i++) {
        if (!wanted(i) || by_scenario[i].broken) continue;
        inject_into(i);
        if (!want.call && !want.index && !want.error && want.mode < 0 && !want.quick) inject_pairs(i);
    }
    finish();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* What came of it                                                                                                  */

static void print_calls(int scenario) {
    const char *comma = "";
    for (int s = 0; s < SIDES; s++)
        for (int c = 0; c < CALL_COUNT; c++) {
            if (!count[scenario].calls[s][c]) continue;
            printf("%s%s%s %u", comma, side_prefix((enum side)s), call_names[c], count[scenario].calls[s][c]);
            comma = ", ";
        }
    printf("\n");
}

static void print_tables(void) {
    printf("\n%-18s %10s %8s %7s  calls without a fault\n", "scenario", "injections", "reached", "failed");
    for (int i = 0; i < nscenarios; i++) {
        const struct tally *t = &by_scenario[i];
        if (!wanted(i)) continue;
        printf("%-18s %10u %8u %7u  ", list[i]->name, t->made, t->reached, t->failed);
        print_calls(i);
        if (t->broken) printf("%-18s fails without a fault\n", "");
        if (t->hung >= HANGS) printf("%-18s given up after %d hangs\n", "", HANGS);
    }
    printf("\n%-18s %10s %8s %7s  errors\n", "call", "injections", "reached", "failed");
    for (int c = 0; c < CALL_COUNT; c++) {
        const struct tally *t = &by_call[c];
        if (!t->made) continue;
        printf("%-18s %10u %8u %7u ", call_names[c], t->made, t->reached, t->failed);
        for (int f = 0; f < nfaults; f++)
            if ((int)faults[f].call == c) printf(" %s", faults[f].name);
        printf("\n");
    }
    if (pairs.made) printf("%-18s %10u %8u %7u  two at a time\n", "pairs", pairs.made, pairs.reached, pairs.failed);
    printf("%-18s %10u %8u %7u\n", "all", total.made, total.reached, total.failed);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* The command line                                                                                                 */

static void usage(void) {
    printf("usage: torture [--quick] [--scenario NAME] [--call NAME] [--index N] [--errno NAME] [--mode once|on]\n"
           "               [--and CALL,INDEX,ERRNO,MODE] [--pairs N] [--seed N] [--jobs N] [--verbose]\n"
           "       torture --list | --calls | --help\n\n"
           "  --quick     each call of each scenario is given one of its errors, once\n"
           "  --scenario  only this one\n"
           "  --call      only calls of this name; worker:NAME for those of other threads than the loop's\n"
           "  --index     only the N-th of them, from 1\n"
           "  --errno     only this error: an errno's name, SHORT or ZERO\n"
           "  --mode      once: this call fails; on: it and all later ones\n"
           "  --and       with a second fault\n"
           "  --pairs     so many runs of each scenario with two faults at random; default 100\n"
           "  --seed      what decides them; default 1\n"
           "  --jobs      runs at a time, 1 to %d; default 2\n"
           "  --verbose   what each run prints, and where the fault struck\n"
           "  --list      the scenarios\n"
           "  --calls     the calls and their errors\n",
           SLOTS);
}

__attribute__((noreturn)) static void wrong(const char *text, const char *word) {
    fprintf(stderr, "torture: %s '%s'; see --help\n", text, word);
    exit(2);
}

/* CALL or worker:CALL. */
static enum call call_named(const char *name, enum side *side) {
    const int worker = strncmp(name, "worker:", 7) == 0;
    *side = worker ? SIDE_WORKER : SIDE_LOOP;
    for (int c = 0; c < CALL_COUNT; c++)
        if (strcmp(name + (worker ? 7 : 0), call_names[c]) == 0) return (enum call)c;
    wrong("there is no call", name);
}

static const struct fault *error_named(const char *name, int call) { /* call -1: of any */
    for (int f = 0; f < nfaults; f++)
        if (strcmp(faults[f].name, name) == 0 && (call < 0 || call == (int)faults[f].call)) return &faults[f];
    wrong("no such call has the error", name);
}

static enum mode mode_named(const char *name) {
    if (strcmp(name, "once") != 0 && strcmp(name, "on") != 0) wrong("the mode is once or on, not", name);
    return strcmp(name, "on") == 0 ? ON : ONCE;
}

static int number_of(const char *word, int least, int most) {
    char *end;
    const long n = strtol(word, &end, 10);
    if (end == word || *end || n < least || n > most) wrong("not a number that can be", word);
    return (int)n;
}

static struct strike strike_of(char *text) { /* CALL,INDEX,ERRNO,MODE */
    struct strike s;
    const char *call = strtok(text, ","), *index = strtok(NULL, ","), *error = strtok(NULL, ","),
               *mode = strtok(NULL, ",");
    if (!mode) wrong("not CALL,INDEX,ERRNO,MODE:", text);
    s.call = call_named(call, &s.side);
    s.index = (uint32_t)number_of(index, 1, 1 << 30);
    s.fault = error_named(error, (int)s.call);
    s.mode = mode_named(mode);
    return s;
}

static void take(int letter, char *value) {
    switch (letter) {
    case 's': want.scenario = value; break;
    case 'c': want.call = call_names[call_named(value, &want.side)]; break;
    case 'i': want.index = (uint32_t)number_of(value, 1, 1 << 30); break;
    case 'e': want.error = error_named(value, -1)->name; break;
    case 'm': want.mode = (int)mode_named(value); break;
    case 'a': want.also = strike_of(value); break;
    case 'p': want.pairs = number_of(value, 0, 1 << 20); break;
    case 'S': want.seed = number_of(value, 0, INT_MAX); break;
    case 'j': want.jobs = number_of(value, 1, SLOTS); break;
    case 'q': want.quick = 1; break;
    case 'v': want.verbose = 1; break;
    case 'l': want.list = 1; break;
    case 'C': want.calls = 1; break;
    case 'h': usage(); exit(0);
    default: exit(2); /* getopt has said why */
    }
}

static void parse(int argc, char **argv) {
    static const struct option options[] = {
        {"scenario", 1, NULL, 's'}, {"call", 1, NULL, 'c'},    {"index", 1, NULL, 'i'}, {"errno", 1, NULL, 'e'},
        {"mode", 1, NULL, 'm'},     {"and", 1, NULL, 'a'},     {"pairs", 1, NULL, 'p'}, {"seed", 1, NULL, 'S'},
        {"jobs", 1, NULL, 'j'},     {"quick", 0, NULL, 'q'},   {"list", 0, NULL, 'l'},  {"calls", 0, NULL, 'C'},
        {"help", 0, NULL, 'h'},     {"verbose", 0, NULL, 'v'}, {NULL, 0, NULL, 0}};
    for (int letter; (letter = getopt_long(argc, argv, "hv", options, NULL)) != -1;) take(letter, optarg);
    if (optind < argc) wrong("unknown word", argv[optind]);
}

static void collect(void) {
    static const struct scenario *const tables[] = {scenarios_loop, scenarios_io, scenarios_op, scenarios_shared,
                                                    scenarios_guest};
    int found = !want.scenario;
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct scenario *p = tables[t]; p->name; p++) {
            found |= want.scenario && strcmp(want.scenario, p->name) == 0;
            list[nscenarios++] = p;
        }
    if (!found) wrong("there is no scenario", want.scenario);
}

int main(int argc, char **argv) {
    self = argv[0];
    setvbuf(stdout, NULL, _IOLBF, 0);
    parse(argc, argv);
    collect();
    if (want.list)
        for (int i = 0; i < nscenarios; i++) printf("%s\n", list[i]->name);
    if (want.calls)
        for (int f = 0; f < nfaults; f++) printf("%s %s\n", call_names[faults[f].call], faults[f].name);
    if (want.list || want.calls) return 0;
    signal(SIGPIPE, SIG_DFL);
    open_slots();
    make_files();
    run_all();
    print_tables();
    const uint32_t failed = total.failed + (uint32_t)baseline_failures;
    printf("%u passed, %u failed\n", total.made + (uint32_t)baselines - failed, failed);
    return failed || !baselines;
}
