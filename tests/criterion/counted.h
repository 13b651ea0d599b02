/* counted.h: what a test may not leave behind. The library's allocations that live, and the process's open fds. Include it
   before offload.h's implementation: it defines the memory of the seam. */
#ifndef CRITERION_COUNTED_H
#define CRITERION_COUNTED_H

#include <dirent.h>
#include <stdlib.h>

static long live;
static void *test_realloc(void *p, size_t n) {
    __atomic_fetch_add(&live, p == NULL, __ATOMIC_RELAXED); /* workers allocate, too */
    return realloc(p, n);
}
static void test_free(void *p) {
    __atomic_fetch_sub(&live, p != NULL, __ATOMIC_RELAXED);
    free(p);
}
#define OL_SYS_MALLOC(n) test_realloc(NULL, (n))
#define OL_SYS_REALLOC(p, n) test_realloc((p), (n))
#define OL_SYS_FREE(p) test_free(p)

static int open_fds(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

#endif
