/* random.h: the same numbers in each run: xorshift64, of G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software,
   2003. */
#ifndef CRITERION_RANDOM_H
#define CRITERION_RANDOM_H

#include <stdint.h>

static uint64_t random_state = 88172645463325252ull;
static uint64_t random64(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}
static inline uint32_t random32(void) { return (uint32_t)(random64() >> 16); }

#endif
