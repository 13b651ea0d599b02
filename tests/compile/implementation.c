/* Nothing but the implementation, as an application would have it in one file. */
#if !defined(NO_GNU_SOURCE) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#define OFFLOAD_IMPLEMENTATION
#include "offload.h"
