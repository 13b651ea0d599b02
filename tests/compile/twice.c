/* The public half first, as another header would include it; then the implementation, twice; then all again. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "offload.h"
#include "offload.h"
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"
#include "offload.h"
#undef OFFLOAD_IMPLEMENTATION
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"

int main(void) { return ol_version() == 0; }
