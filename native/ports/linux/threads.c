/* The pool: its threads and the caller take parts of a piece of work until none is left. A piece is short, and the next
 * one follows soon, so a thread looks for it a while before it sleeps. */
#define _POSIX_C_SOURCE 200809L

#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#define LOOKS 100000u /* for work, before a thread sleeps: some hundred microseconds, what lies between two matrices */

struct ehmn_pool {
    ehmn_parallel parallel;
    pthread_mutex_t lock; /* of all that is not atomic */
    pthread_cond_t wake;
    void (*work)(void *argument, uint32_t part);
    void *argument;
    uint32_t parts;
    uint32_t taken;
    uint32_t sleeping;
    uint32_t started;
    int stop;
    atomic_uint begun;    /* pieces of work */
    atomic_uint finished; /* parts of the present one */
    pthread_t thread[EHMN_MAX_THREADS];
};

/* Do a part that nobody has taken; 0 if there is none. */
static int do_part(ehmn_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    int some = pool->taken < pool->parts;
    uint32_t part = pool->taken;
    void (*work)(void *, uint32_t) = pool->work;
    void *argument = pool->argument;
    pool->taken += some ? 1u : 0u;
    pthread_mutex_unlock(&pool->lock);
    if (some) {
        work(argument, part);
        atomic_fetch_add_explicit(&pool->finished, 1u, memory_order_release);
    }
    return some;
}

/* Wait for the piece of work after `seen`; 0 if there will be none. */
static int wait_for_work(ehmn_pool *pool, unsigned seen)
{
    for (uint32_t look = 0; look < LOOKS; look++) {
        if (atomic_load_explicit(&pool->begun, memory_order_acquire) != seen) {
            return 1;
        }
    }
    pthread_mutex_lock(&pool->lock);
    pool->sleeping++;
    while (!pool->stop && atomic_load(&pool->begun) == seen) {
        pthread_cond_wait(&pool->wake, &pool->lock);
    }
    pool->sleeping--;
    int more = !pool->stop;
    pthread_mutex_unlock(&pool->lock);
    return more;
}

static void *serve(void *argument)
{
    ehmn_pool *pool = argument;
    unsigned seen = 0;
    while (wait_for_work(pool, seen)) {
        seen = atomic_load_explicit(&pool->begun, memory_order_acquire);
        while (do_part(pool)) {
        }
    }
    return NULL;
}

static void run(void *context, void (*work)(void *argument, uint32_t part), void *argument, uint32_t parts)
{
    ehmn_pool *pool = context;
    atomic_store(&pool->finished, 0u);
    pthread_mutex_lock(&pool->lock);
    pool->work = work;
    pool->argument = argument;
    pool->parts = parts;
    pool->taken = 0;
    atomic_fetch_add_explicit(&pool->begun, 1u, memory_order_release);
    if (pool->sleeping > 0) {
        pthread_cond_broadcast(&pool->wake);
    }
    pthread_mutex_unlock(&pool->lock);
    while (do_part(pool)) {
    }
    for (uint32_t look = 0; atomic_load_explicit(&pool->finished, memory_order_acquire) < parts; look++) {
        if (look > LOOKS) {
            sched_yield();
        }
    }
}

ehmn_pool *ehmn_pool_start(uint32_t threads)
{
    ehmn_pool *pool = threads >= 1u && threads <= EHMN_MAX_THREADS ? calloc(1, sizeof *pool) : NULL;
    if (pool == NULL) {
        return NULL;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->parallel.run = run;
    pool->parallel.context = pool;
    pool->parallel.threads = threads;
    for (; pool->started + 1u < threads; pool->started++) {
        if (pthread_create(&pool->thread[pool->started], NULL, serve, pool) != 0) {
            ehmn_pool_stop(pool);
            return NULL;
        }
    }
    return pool;
}

void ehmn_pool_stop(ehmn_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->stop = 1;
    pool->parts = 0;
    atomic_fetch_add(&pool->begun, 1u);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->started; i++) {
        pthread_join(pool->thread[i], NULL);
    }
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

const ehmn_parallel *ehmn_pool_parallel(const ehmn_pool *pool)
{
    return &pool->parallel;
}
