/* Every draw: Philox4x32-10 (Salmon et al., SC 2011), a function of (seed, stream, counter) and nothing else. */
#ifndef EHMN_RANDOM_H
#define EHMN_RANDOM_H

#include <stdint.h>

#define EHMN_STREAM_NEGATIVES 0u
#define EHMN_STREAM_WRITES 1u  /* + adapter */
#define EHMN_STREAM_DECAY 33u  /* + adapter */
#define EHMN_STREAM_SAMPLE 65u
#define EHMN_STREAM_PHASE 66u  /* + adapter; the seed is the image's phase_seed */

/* Four words of 32 random bits. */
void ehmn_random(uint64_t seed, uint32_t stream, uint64_t counter, uint32_t out[4]);

#endif
