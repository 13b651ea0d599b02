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
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include "checks.h"

enum { SECONDS = 20, SLOTS = 16, SHOWN = 5, SHOWN_IN_ALL = 30, HANGS = 3, SCENARIOS = 128 };

static struct options {
    const char *scenario, *call, *error;
    uint32_t index;
    int mode, side, quick, verbose, list, calls, jobs;
} want = {NULL, NULL, NULL, 0, -1, -1, 0, 0, 0, 0, 2};

struct injection {
    int scenario; /* its number */
    enum side side;
    enum call call;
    uint32_t index;
    int fault;
    enum mode mode;
};

static struct slot { /* a run under way */
    pid_t pid;
    int output;
    struct report *report;
    struct injection at;
} slots[SLOTS];

static struct tally { uint32_t made, reached, failed, hung; } by_scenario[SCENARIOS], by_call[CALL_COUNT], total;

static const struct scenario *list[SCENARIOS];
static struct report count[SCENARIOS]; /* calls without a fault */
static int nscenarios, baselines, baseline_failures;
static const char *self = "build/torture/torture";

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
    if (!at->index) {
        run_and_count(p);
        _exit(0);
    }
    plan.side = at->side;
    plan.call = at->call;
    plan.index = at->index;
    plan.fault = &faults[at->fault];
    plan.mode = at->mode;
    plan.verbose = want.verbose;
    plan.active = 1;
    run_once(p);
    plan.active = 0;
    plan.fault = NULL;
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
    printf("%s --scenario %s", self, list[at->scenario]->name);
    if (at->index)
        printf(" --call %s%s --index %u --errno %s --mode %s", side_prefix(at->side), call_names[at->call], at->index,
               faults[at->fault].name, at->mode == ONCE ? "once" : "on");
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
    static int shown, silent;
    const int hung = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    const int well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    struct tally *t = &by_scenario[s->at.scenario];
    if (well) return 1;
    t->hung += hung ? 1u : 0u;
    if (t->failed < SHOWN && shown < SHOWN_IN_ALL) {
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
    if (!s->at.index) {
        count[p] = *s->report;
        baselines++;
        baseline_failures += !well;
        return;
    }
    struct tally *all[] = {&by_scenario[p], &by_call[s->at.call], &total};
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

static void inject_at(struct injection at) {
    for (at.fault = 0; at.fault < nfaults; at.fault++) {
        if (!takes(at.fault, at.call, at.index)) continue;
        for (int m = ONCE; m < MODES; m++) {
            at.mode = (enum mode)m;
            if (want.mode >= 0 ? m != want.mode : want.quick && m != ONCE) continue;
            if (by_scenario[at.scenario].hung < HANGS) submit(&at);
        }
    }
}

static void inject_into(int scenario) {
    for (int s = 0; s < SIDES; s++)
        for (int c = 0; c < CALL_COUNT; c++) {
            struct injection at = {scenario, (enum side)s, (enum call)c, 0, 0, ONCE};
            const uint32_t n = count[scenario].calls[s][c];
            if (want.call && strcmp(want.call, call_names[c]) != 0) continue;
            if (want.side >= 0 && s != want.side) continue;
            if (want.index) {
                at.index = want.index;
                if (want.side >= 0 || n) inject_at(at);
                continue;
            }
            for (at.index = 1; at.index <= n; at.index++) inject_at(at);
        }
}

static int wanted(int scenario) { return !want.scenario || strcmp(want.scenario, list[scenario]->name) == 0; }

static void run_all(void) {
    for (int i = 0; i < nscenarios; i++) {
        const struct injection at = {i, SIDE_LOOP, C_ALLOC, 0, 0, ONCE};
        if (wanted(i)) submit(&at);
    }
    finish();
    for (int i = 0; i < nscenarios; i++) {
        if (!wanted(i)) continue;
        inject_into(i);
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
    printf("%-18s %10u %8u %7u\n", "all", total.made, total.reached, total.failed);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* The command line                                                                                                 */

static void usage(void) {
    printf("usage: torture [--quick] [--scenario NAME] [--call NAME] [--index N] [--errno NAME] [--mode once|on]\n"
           "               [--jobs N] [--verbose] | --list | --calls | --help\n\n"
           "  --quick     each call of each scenario is given one of its errors, once\n"
           "  --scenario   only this one\n"
           "  --call      only calls of this name; worker:NAME for those of other threads than the loop's\n"
           "  --index     only the N-th of them, from 1\n"
           "  --errno     only this error: an errno's name, SHORT or ZERO\n"
           "  --mode      once: this call fails; on: it and all later ones\n"
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

static void take_call(const char *name) {
    const int worker = strncmp(name, "worker:", 7) == 0;
    want.side = worker ? SIDE_WORKER : SIDE_LOOP;
    if (worker) name += 7;
    want.call = name;
    for (int c = 0; c < CALL_COUNT; c++)
        if (strcmp(name, call_names[c]) == 0) return;
    wrong("there is no call", name);
}

static void take_error(const char *name) {
    want.error = name;
    for (int f = 0; f < nfaults; f++)
        if (strcmp(faults[f].name, name) == 0) return;
    wrong("no call has the error", name);
}

static int take_number(const char *word, int most) {
    char *end;
    const long n = strtol(word, &end, 10);
    if (*end || n < 1 || n > most) wrong("not a number that can be", word);
    return (int)n;
}

static void parse(int argc, char **argv) {
    static const char *const with_value[] = {"--scenario", "--call", "--index", "--errno", "--mode", "--jobs"};
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value = NULL;
        for (size_t k = 0; k < sizeof with_value / sizeof *with_value; k++)
            if (strcmp(word, with_value[k]) == 0) value = i + 1 < argc ? argv[++i] : "";
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            usage();
            exit(0);
        } else if (strcmp(word, "--quick") == 0) want.quick = 1;
        else if (strcmp(word, "--verbose") == 0 || strcmp(word, "-v") == 0) want.verbose = 1;
        else if (strcmp(word, "--list") == 0) want.list = 1;
        else if (strcmp(word, "--calls") == 0) want.calls = 1;
        else if (!value) wrong("unknown word", word);
        else if (strcmp(word, "--scenario") == 0) want.scenario = value;
        else if (strcmp(word, "--call") == 0) take_call(value);
        else if (strcmp(word, "--index") == 0) want.index = (uint32_t)take_number(value, 1 << 30);
        else if (strcmp(word, "--errno") == 0) take_error(value);
        else if (strcmp(word, "--jobs") == 0) want.jobs = take_number(value, SLOTS);
        else if (strcmp(value, "once") == 0 || strcmp(value, "on") == 0) want.mode = strcmp(value, "on") == 0;
        else wrong("the mode is once or on, not", value);
    }
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
    run_all();
    print_tables();
    const uint32_t failed = total.failed + (uint32_t)baseline_failures;
    printf("%u passed, %u failed\n", total.made + (uint32_t)baselines - failed, failed);
    return failed || !baselines;
}
