/* Threads for the core on an operating system with POSIX threads. */
#ifndef EHMN_THREADS_H
#define EHMN_THREADS_H

#include "edgehmn.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EHMN_MAX_THREADS 64u

typedef struct ehmn_pool ehmn_pool;

/* Start a pool of `threads` threads, 1..EHMN_MAX_THREADS, of which one is whoever calls the core; they wait for work,
 * at first awake, then asleep. NULL if there is no memory or the system gives none. Stop it when no model uses it. */
ehmn_pool *ehmn_pool_start(uint32_t threads);
void ehmn_pool_stop(ehmn_pool *pool);

/* For ehmn_use_threads; one model at a time. */
const ehmn_parallel *ehmn_pool_parallel(const ehmn_pool *pool);

#ifdef __cplusplus
}
#endif

#endif
