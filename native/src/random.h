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

/* Of every round: what halves of the state are multiplied by, and what is added to the key. */
#define EHMN_MULTIPLIER_A 0xD2511F53u
#define EHMN_MULTIPLIER_B 0xCD9E8D57u
#define EHMN_KEY_STEP_0 0x9E3779B9u
#define EHMN_KEY_STEP_1 0xBB67AE85u

/* Four words of 32 random bits. */
void ehmn_random(uint64_t seed, uint32_t stream, uint64_t counter, uint32_t out[4]);

/* plastic_loops.c, and vectors_neon_plastic.c on aarch64: the first word of each of four streams, from `stream` on. */
void ehmn_random_firsts(uint64_t seed, uint32_t stream, uint64_t counter, uint32_t out[4]);

#endif
