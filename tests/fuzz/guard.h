/* guard.h: the library's memory between pages that can't be touched, for codecs that no sanitizer looks into.

   Include it before offload.h. A block ends where such a page begins, but for the alignment that malloc guarantees,
   and is filled with FUZZ_FILL, also when it was in use before. */
#ifndef GUARD_H
#define GUARD_H

#include "fuzz.h"

static struct guard_block {
    uint8_t *p;
    size_t size;
    int used;
} guard_blocks[16];

static void *guard_malloc(size_t n) {
    enum { N = sizeof guard_blocks / sizeof *guard_blocks };
    const size_t size = (n + 15) / 16 * 16;
    int i = 0;
    while (i < N && guard_blocks[i].p && (guard_blocks[i].used || guard_blocks[i].size != size)) i++;
    FUZZ_CHECK(i < N, "more kinds of memory than this harness knows");
    if (!guard_blocks[i].p) guard_blocks[i].p = fuzz_area(size);
    guard_blocks[i].size = size;
    guard_blocks[i].used = 1;
    memset(guard_blocks[i].p, FUZZ_FILL, size);
    return guard_blocks[i].p;
}

static void guard_free(void *p) {
    for (size_t i = 0; p && i < sizeof guard_blocks / sizeof *guard_blocks; i++) {
        if (guard_blocks[i].p != p) continue;
        FUZZ_CHECK(guard_blocks[i].used, "freed twice");
        guard_blocks[i].used = 0;
        return;
    }
    FUZZ_CHECK(!p, "freed what was never allocated");
}

static void guard_check_all_free(void) {
    for (size_t i = 0; i < sizeof guard_blocks / sizeof *guard_blocks; i++)
        FUZZ_CHECK(!guard_blocks[i].used, "%zu bytes leaked", guard_blocks[i].size);
}

#define OL_SYS_MALLOC(n) guard_malloc(n)
#define OL_SYS_REALLOC(p, n) ((void)(p), guard_malloc(n)) /* what these targets use never asks for it */
#define OL_SYS_FREE(p) guard_free(p)

#endif /* GUARD_H */
