/* fuzz.h: what the fuzz targets share: checks that end the run, buffers that end at a page which can't be touched, and
   a main that replays files, so that a target needs libFuzzer only where new inputs are looked for.

   A target defines LLVMFuzzerTestOneInput. Compiled by the line at its top it is a program that replays the files and
   directories that it is given; with -DFUZZ_LIBFUZZER -fsanitize=fuzzer, libFuzzer brings the main. tests/fuzz/run.sh
   does both. */
#ifndef FUZZ_H
#define FUZZ_H

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FUZZ_FN static __attribute__((unused))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the run with a text, unless the condition holds. */
#define FUZZ_CHECK(condition, ...)                                                                                     \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s is false: ", __FILE__, __LINE__, #condition);                                   \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fprintf(stderr, "\n");                                                                                     \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* ---------------------------------------------------------------------------------------------------------------- */
/* buffers                                                                                                          */

#define FUZZ_FILL 0xa5 /* in memory that nobody has written */

/* Room for `size` bytes in front of a page that can't be touched: code that isn't instrumented (a codec in assembly)
   is caught, too. Never freed. */
FUZZ_FN uint8_t *fuzz_area(size_t size) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (size + page - 1) / page * page;
    uint8_t *p = (uint8_t *)mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + room, page, PROT_NONE) != 0) {
        perror("fuzz: no memory");
        exit(2);
    }
    return p + room - size;
}

/* Takes its input apart, byte by byte; what is beyond the end reads as 0. */
typedef struct fuzz_input {
    const uint8_t *p, *end;
} fuzz_input;

FUZZ_FN fuzz_input fuzz_open(const uint8_t *data, size_t size) {
    fuzz_input in;
    in.p = data;
    in.end = data + size;
    return in;
}
FUZZ_FN size_t fuzz_left(const fuzz_input *in) { return (size_t)(in->end - in->p); }
FUZZ_FN uint32_t fuzz_byte(fuzz_input *in) { return in->p < in->end ? *in->p++ : 0; }
FUZZ_FN uint32_t fuzz_word(fuzz_input *in) {
    const uint32_t high = fuzz_byte(in);
    return high << 8 | fuzz_byte(in);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* replay                                                                                                           */

#if !defined(FUZZ_LIBFUZZER)

enum {
    FUZZ_SECONDS = 20, /* for one file, so that a hang ends as a failure; the slowest takes a fraction of one */
    FUZZ_FAILURES = 10 /* after so many the rest isn't replayed */
};

static struct fuzz_files {
    char **name;
    size_t n, room;
} fuzz_files;
static volatile size_t *fuzz_at; /* shared with the child: the file that it replays */

FUZZ_FN void fuzz_add_file(const char *name) {
    if (fuzz_files.n == fuzz_files.room) {
        fuzz_files.room = fuzz_files.room ? 2 * fuzz_files.room : 256;
        fuzz_files.name = (char **)realloc(fuzz_files.name, fuzz_files.room * sizeof *fuzz_files.name);
    }
    if (!fuzz_files.name || !(fuzz_files.name[fuzz_files.n++] = strdup(name))) abort();
}

FUZZ_FN int fuzz_add(const char *name) {
    struct dirent **entries;
    struct stat st;
    if (stat(name, &st) != 0) return fprintf(stderr, "%s: %s\n", name, strerror(errno)), 0;
    if (!S_ISDIR(st.st_mode)) return fuzz_add_file(name), 1;
    const int n = scandir(name, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char path[4096];
        if (entries[i]->d_name[0] != '.' &&
            snprintf(path, sizeof path, "%s/%s", name, entries[i]->d_name) < (int)sizeof path)
            fuzz_add_file(path);
        free(entries[i]);
    }
    if (n >= 0) free(entries);
    return n >= 0;
}

FUZZ_FN void fuzz_replay_file(const char *name) {
    struct stat st;
    FILE *file = fopen(name, "rb");
    if (!file || fstat(fileno(file), &st) != 0) {
        perror(name);
        exit(2);
    }
    const size_t size = (size_t)st.st_size;
    uint8_t *data = (uint8_t *)malloc(size ? size : 1); /* exactly, so that a read past the end is seen */
    if (!data || fread(data, 1, size, file) != size) {
        perror(name);
        exit(2);
    }
    fclose(file);
    alarm(FUZZ_SECONDS);
    (void)LLVMFuzzerTestOneInput(data, size);
    free(data);
}

/* Replays the files from..to-1 in a child. 0, or the child's wait status; then *fuzz_at says how far it came. */
FUZZ_FN int fuzz_replay(size_t from, size_t to) {
    int status = -1;
    *fuzz_at = from;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        for (; *fuzz_at < to; ++*fuzz_at) fuzz_replay_file(fuzz_files.name[*fuzz_at]);
        alarm(FUZZ_SECONDS); /* for the search for leaks at the end */
        exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        perror("fuzz: can't replay");
        exit(2);
    }
    return status;
}

FUZZ_FN void fuzz_not_ok(size_t i, int status) {
    const int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    printf("not ok %s: %s\n", fuzz_files.name[i],
           number == SIGALRM ? "it doesn't end"
           : number          ? strsignal(number)
                             : "a sanitizer's report, or a leak");
}

/* All files, or until too many have failed: how many were replayed. A leak shows at the end of a process: then each
   file gets one of its own. */
FUZZ_FN size_t fuzz_replay_all(size_t *failures) {
    size_t failed = 0, from = 0;
    while (from < fuzz_files.n && failed < FUZZ_FAILURES) {
        const int status = fuzz_replay(from, fuzz_files.n);
        const size_t at = *fuzz_at;
        if (status == 0) {
            from = at;
        } else if (at < fuzz_files.n) {
            failed++;
            fuzz_not_ok(at, status);
            from = at + 1;
        } else {
            const size_t known = failed;
            for (; from < at && failed < FUZZ_FAILURES; from++) {
                const int alone = fuzz_replay(from, from + 1);
                if (alone != 0) failed++, fuzz_not_ok(from, alone);
            }
            if (failed == known) failed++, printf("not ok: the files leak together, but none of them alone\n");
        }
    }
    if (from < fuzz_files.n) printf("%zu files were not replayed: too many failures\n", fuzz_files.n - from);
    *failures = failed;
    return from;
}

int main(int argc, char **argv) {
    int good = 1;
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        printf(
            "usage: %s FILE|DIRECTORY...\nReplays inputs that the fuzzer found, each with all of the target's checks."
            " Ends with the number of those that passed.\n",
            argv[0]);
        return argc < 2 ? 2 : 0;
    }
    for (int i = 1; i < argc; i++) good &= fuzz_add(argv[i]);
    fuzz_at = (volatile size_t *)mmap(NULL, sizeof *fuzz_at, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fuzz_at == MAP_FAILED) return perror("fuzz: no memory"), 2;
    size_t failed = 0;
    const size_t n = good ? fuzz_replay_all(&failed) : 0;
    for (size_t i = 0; i < fuzz_files.n; i++) free(fuzz_files.name[i]);
    free(fuzz_files.name);
    printf("%zu passed, %zu failed\n", n - (failed < n ? failed : n), failed);
    return n && !failed ? 0 : 1;
}
#endif

#endif /* FUZZ_H */
