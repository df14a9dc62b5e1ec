/* What the files for several vectors at once on aarch64 share: how sums of eight rows leave their registers. */
#ifndef EHMN_KERNELS_NEON_BLOCKS_H
#define EHMN_KERNELS_NEON_BLOCKS_H

#include "kernels_blocks.h"

#include <arm_neon.h>

#define TOKENS 8u /* vectors whose sums stay in registers, or half as many */

/* What does not fill registers: `tokens` sums of `rows` rows, which stand `apart`. */
static __attribute__((noinline)) void put_some(const int32_t *sum, uint32_t apart, uint32_t tokens, uint32_t rows,
                                               int add, int32_t *acc, size_t acc_stride)
{
    for (uint32_t t = 0; t < tokens; t++, sum += apart, acc += acc_stride) {
        for (uint32_t r = 0; r < apart && r < rows; r++) {
            acc[r] = add ? acc[r] + sum[r] : sum[r];
        }
    }
}

/* Sums s[t] of eight rows, of which `rows` are there, for `tokens` of `most` vectors. */
EHMN_INTO static inline void put_eights(int32x4_t (*s)[2], uint32_t tokens, const uint32_t most, uint32_t rows, int add,
                                        int32_t *acc, size_t acc_stride)
{
    if (tokens < most || rows < 8u) {
        int32_t sum[8u * TOKENS];
        for (uint32_t t = 0; t < most; t++) {
            vst1q_s32(sum + 8u * t, s[t][0]);
            vst1q_s32(sum + 8u * t + 4u, s[t][1]);
        }
        put_some(sum, 8u, tokens, rows, add, acc, acc_stride);
        return;
    }
    for (uint32_t t = 0; t < most; t++, acc += acc_stride) {
        EHMN_KEEP_POINTER(acc);
        vst1q_s32(acc, add ? vaddq_s32(s[t][0], vld1q_s32(acc)) : s[t][0]);
        vst1q_s32(acc + 4, add ? vaddq_s32(s[t][1], vld1q_s32(acc + 4)) : s[t][1]);
    }
}

#endif
