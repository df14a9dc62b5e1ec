/* What small processors have for the loops of vectors.c and vectors_reduce.c: each does the first values of a
 * loop, whole fours or eights, and returns how many; none where the processor has nothing better than the loop. */
#ifndef EHMN_VECTORS_FIRST_H
#define EHMN_VECTORS_FIRST_H

#include "vectors_cortex_m.h"
#include "vectors_dsp.h"
#if defined(EHMN_ASK_X86)
#include "vectors_x86.h"
#endif

#if !defined(EHMN_CORTEX_M)
#define ehmn_first_max(v, n, max) 0u
#define ehmn_first_any(v, n, any) 0u
#define ehmn_first_shift(v, shift, n) 0u
#define ehmn_first_multiply(v, n, factor) 0u
#define ehmn_first_add_weights(v, w, n, factor, scale, shift, spare) 0u
#define ehmn_first_fit_scores(key_frac, stride, scores, n, beyond) INT32_MIN /* the largest score */
#define ehmn_first_align(value_frac, stride, n, least, weights) 0u
#define ehmn_first_into8(v, n, shift, out) 0u
#define ehmn_first_narrow(v, n, shift, reciprocal, out) 0u
#endif

/* Those with vectors have one for encoder.c. */
#if !defined(EHMN_MVE) && !defined(EHMN_NEON) && !defined(EHMN_ASK_X86)
#define ehmn_rotate_some(turn, half, v) 0u
#endif

#if !defined(EHMN_ARM_DSP)
#define ehmn_first_into16(v, n, shift, out) 0u
#define ehmn_first_square(v, n, shift, out, sum) 0u
#define ehmn_first_add(v, more, n) 0u
#define ehmn_first_scale(v, n, up, factor, half, by, out) 0u
#define ehmn_first_follow(mean, v, n, rate) 0u
#define ehmn_first_least(from, stride, n, least) 0u
#define ehmn_first_running_sums(v, n, edge, sign, sum) 0u
#endif

#endif
