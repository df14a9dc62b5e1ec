/* Every draw: Philox4x32-10 (Salmon et al., SC 2011), a function of (seed, stream, counter) and nothing else. */
#ifndef EHMN_RANDOM_H
#define EHMN_RANDOM_H

#include <stdint.h>

#define EHMN_STREAM_NEGATIVES 0u
#define EHMN_STREAM_WRITES 1u    /* + dense adapter */
#define EHMN_STREAM_DECAY 33u    /* + dense adapter */
#define EHMN_STREAM_ROW_DECAY 66u /* + row adapter */
#define EHMN_STREAM_ROWS 68u     /* + row adapter */
#define EHMN_STREAM_SAMPLE 70u
#define EHMN_STREAM_FOLLOW 71u
#define EHMN_STREAM_PHASE 72u    /* + dense adapter; the seed is the image's phase_seed */

/* Four words of 32 random bits. */
void ehmn_random(uint64_t seed, uint32_t stream, uint64_t counter, uint32_t out[4]);

/* The first word of each of four streams, from `stream` on. */
void ehmn_random_firsts(uint64_t seed, uint32_t stream, uint64_t counter, uint32_t out[4]);

#endif
