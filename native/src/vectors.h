/* What the files of loops over vectors share: which of their names others have, and how loops are unrolled. */
#ifndef EHMN_VECTORS_H
#define EHMN_VECTORS_H

#if defined(EHMN_ASK_X86) /* vectors_x86.c has the names */
#include "vectors_x86.h"
#define ehmn_quantise8 ehmn_plain_quantise8
#define ehmn_quantise16 ehmn_plain_quantise16
#define ehmn_narrow ehmn_plain_narrow
#define ehmn_quantise_narrow ehmn_plain_quantise_narrow
#define ehmn_multiply_all ehmn_plain_multiply_all
#define ehmn_shift_all ehmn_plain_shift_all
#define ehmn_add_all ehmn_plain_add_all
#define ehmn_add_weights ehmn_plain_add_weights
#define ehmn_add_outputs ehmn_plain_add_outputs
#define ehmn_follow_all ehmn_plain_follow_all
#define ehmn_running_sums ehmn_plain_running_sums
#define ehmn_scale_all ehmn_plain_scale_all
#define ehmn_rms_normalise ehmn_plain_rms_normalise
#define ehmn_fit_scores ehmn_plain_fit_scores
#define ehmn_align_weights ehmn_plain_align_weights
#define ehmn_tanh_all ehmn_plain_tanh_all
#define ehmn_pass_over ehmn_plain_pass_over
#define ehmn_subtract_all ehmn_plain_subtract_all
#define ehmn_dot_weights ehmn_plain_dot_weights
#define ehmn_dot_outputs ehmn_plain_dot_outputs
#define ehmn_sum ehmn_plain_sum
#define ehmn_limit ehmn_plain_limit
#define ehmn_times_slope ehmn_plain_times_slope
#define ehmn_length ehmn_plain_length
#define ehmn_signs ehmn_plain_signs
#endif

#include "fixed.h"
#include "vectors_first.h"
#include "vectors_mve.h"
#include "vectors_neon.h"

#define RARE static __attribute__((noinline, cold))

/* Loops that have few values left where others, of these processors, come before them. */
#define UNROLLED _Pragma("GCC unroll 4")
#if defined(EHMN_CORTEX_M)
#define UNROLLED_BUT_CORTEX_M
#else
#define UNROLLED_BUT_CORTEX_M UNROLLED
#endif
#if defined(EHMN_ARM_DSP)
#define UNROLLED_BUT_DSP
#define FEW_LEFT 1
#else
#define UNROLLED_BUT_DSP UNROLLED
#define FEW_LEFT 0
#endif

#endif
