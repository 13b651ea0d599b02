/* schedule.c: fuzz target: programs, kernels and schedules of the simulator, chosen byte by byte.

   cc -std=c11 -O1 -g -I. tests/fuzz/schedule.c -o build/fuzz/schedule -pthread

   The simulator (tests/sim/sim.c) takes its random choices from a seed; here it takes them from the input, and from a
   fixed seed behind its end. So the fuzzer keeps a schedule that reached something new, and goes on from there, where
   seeds begin anew each time. What is checked is what the simulator checks: see the top of sim.c. To look at an input
   event by event: build/tests/sim --bytes FILE. */
#define SIM_NO_MAIN
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function" /* what only the simulator's main uses */
#include "tests/sim/sim.c"
#pragma GCC diagnostic pop
#include "fuzz.h"

/* libFuzzer: -max_len=4096 -len_control=0 */
/* clang: -fno-sanitize-coverage=trace-cmp */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    FUZZ_CHECK(sim_run_bytes(data, size) == 0, "a checker of the simulator has found something");
    return 0;
}
