/* parent: starts a server as its child and stops and continues single threads of it, as its standard input says.

   cc -O2 tests/soak/parent.c -o build/soak/parent
   build/soak/parent build/examples/gzip_server --port 8080 DIRECTORY

   SIGSTOP acts on a process as a whole, whatever thread it is sent to. A tracer stops one thread: PTRACE_SEIZE and
   PTRACE_INTERRUPT, which every user may do to a child of his own, and PTRACE_DETACH lets it go on. Between a release
   and the next hold nothing is traced, so the server runs as ever and may use ptrace itself, as LeakSanitizer does.

   One command a line, one line of answer ("ok", or "error" and why):
     hold TID      stops that thread; the answer comes when it stands
     release TID   lets it go on
     suspend       stops the whole process; the answer comes when all of it stands
     resume        lets it go on
     signal N      sends a signal
   "child PID" comes first, before or after the child's own first line: it has the same standard output. "exited STATUS"
   or "killed SIGNAL" comes by itself at its end, which is ours, too. At the end of the input it is killed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HELD = 128, LINE = 256 };

static pid_t child;
static int suspended;

static struct {
    pid_t tid;
    int signal; /* one that was on its way to the thread when it was stopped: delivered on release */
} held[HELD];
static int nheld;

static void answer(const char *what, const char *why) {
    printf("%s%s%s\n", what, why ? " " : "", why ? why : "");
    fflush(stdout);
}

static void ok_or_errno(long result) { answer(result == 0 ? "ok" : "error", result == 0 ? NULL : strerror(errno)); }

/* Reports the child's end, which is also ours. */
static void report_end(int status) {
    if (WIFEXITED(status)) printf("exited %d\n", WEXITSTATUS(status));
    else printf("killed %d\n", WTERMSIG(status));
    fflush(stdout);
    exit(0);
}

static int find_held(pid_t tid) {
    for (int i = 0; i < nheld; i++)
        if (held[i].tid == tid) return i;
    return -1;
}

static void hold(pid_t tid) {
    int status = 0;
    if (nheld == HELD || find_held(tid) >= 0 || suspended) {
        answer("error", "held already, or too many are, or the process is suspended");
        return;
    }
    if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) != 0 || ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) != 0) {
        ok_or_errno(-1);
        return;
    }
    pid_t r;
    do r = waitpid(tid, &status, __WALL);
    while (r < 0 && errno == EINTR);
    if (r == tid && !WIFSTOPPED(status)) {
        if (tid == child) report_end(status);
        answer("error", "the thread has ended");
        return;
    }
    /* a stop by an event is ours; any other is a signal on its way, at which the thread stands just as well */
    held[nheld].tid = tid;
    held[nheld++].signal = status >> 16 ? 0 : WSTOPSIG(status);
    ok_or_errno(r == tid ? 0 : -1);
}

static void release(pid_t tid) {
    const int i = find_held(tid);
    if (i < 0) {
        answer("error", "not held");
        return;
    }
    const long r = ptrace(PTRACE_DETACH, tid, NULL, (void *)(long)held[i].signal);
    held[i] = held[--nheld];
    ok_or_errno(r);
}

/* The kernel reports the stop when the last thread has stopped. */
static void suspend(void) {
    int status = 0;
    if (nheld || suspended) {
        answer("error", "suspended already, or threads are held");
        return;
    }
    if (kill(child, SIGSTOP) != 0 || waitpid(child, &status, WUNTRACED) != child) {
        ok_or_errno(-1);
        return;
    }
    if (!WIFSTOPPED(status)) report_end(status);
    suspended = 1;
    answer("ok", NULL);
}

static void resume(void) {
    suspended = 0;
    ok_or_errno(kill(child, SIGCONT));
}

static void command(char *line) {
    char word[16] = "";
    int number = 0;
    const int n = sscanf(line, "%15s %d", word, &number);
    if (n == 2 && strcmp(word, "hold") == 0) hold(number);
    else if (n == 2 && strcmp(word, "release") == 0) release(number);
    else if (n == 2 && strcmp(word, "signal") == 0) ok_or_errno(kill(child, number));
    else if (n == 1 && strcmp(word, "suspend") == 0) suspend();
    else if (n == 1 && strcmp(word, "resume") == 0) resume();
    else answer("error", "unknown command; see --help");
}

/* Reads what is there and runs the complete lines in it; 0 at the end of the input. */
static int commands(void) {
    static char text[LINE];
    static size_t have;
    const ssize_t n = read(STDIN_FILENO, text + have, sizeof text - 1 - have);
    if (n < 0 && errno == EINTR) return 1;
    if (n <= 0 || have + (size_t)n == sizeof text - 1) return 0; /* no command is that long */
    have += (size_t)n;
    text[have] = '\0';
    for (char *end; (end = strchr(text, '\n')) != NULL;) {
        *end = '\0';
        command(text);
        have -= (size_t)(end + 1 - text);
        memmove(text, end + 1, have + 1);
    }
    return 1;
}

static void start(char **argv, const sigset_t *before) {
    const pid_t self = getpid();
    child = fork();
    if (child < 0) {
        perror("parent: can't start the child");
        exit(2);
    }
    if (child > 0) {
        printf("child %d\n", (int)child);
        fflush(stdout);
        return;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* whatever ends us: the server doesn't stay behind */
    if (getppid() != self) _exit(127);
    (void)sigprocmask(SIG_SETMASK, before, NULL);
    execv(argv[0], argv);
    fprintf(stderr, "parent: %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static void usage(FILE *to) {
    fputs(
        "usage: parent PROGRAM [ARGUMENT]...\n"
        "Starts a program as its child. On the standard input, one a line: hold TID, release TID (one thread of it),\n"
        "suspend, resume (all of it), signal N. Each is answered by a line: ok, or error and why. The first line of\n"
        "output is \"child PID\"; the child's end is reported as \"exited STATUS\" or \"killed SIGNAL\". At the end of "
        "the\n"
        "input it is killed.\n",
        to);
}

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    sigset_t wanted, before;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGCHLD);
    sigprocmask(SIG_BLOCK, &wanted, &before);
    struct pollfd fds[2];
    memset(fds, 0, sizeof fds);
    fds[0].fd = STDIN_FILENO;
    fds[1].fd = signalfd(-1, &wanted, SFD_NONBLOCK | SFD_CLOEXEC);
    fds[0].events = fds[1].events = POLLIN;
    start(argv + 1, &before);
    for (;;) {
        int status = 0;
        struct signalfd_siginfo info;
        if (poll(fds, 2, -1) < 0 && errno != EINTR) break;
        while (read(fds[1].fd, &info, sizeof info) > 0) {
        }
        if (waitpid(child, &status, WNOHANG) == child && !WIFSTOPPED(status)) report_end(status);
        if (fds[0].revents && !commands()) break;
    }
    (void)kill(child, SIGKILL);
    return 0;
}
