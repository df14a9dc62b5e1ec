/* Every table that there is, and what of the compiler's settings says that this build has it. */
#ifndef EHMN_KERNELS_TABLES_H
#define EHMN_KERNELS_TABLES_H

#include "kernels.h"
#include "vectors_mve.h"
#include "vectors_neon.h"

/* EHMN_ASK_X86, EHMN_AMX beside it if the compiler knows tiles; EHMN_ASK_AARCH64, EHMN_I8MM beside it if it knows
 * products of matrices: the build compiles the files of some tables with the flags of their instruction sets, and the
 * processor is asked (CMakeLists.txt). */
#if defined(EHMN_MVE)
#elif defined(__ARM_FEATURE_DSP) && defined(__thumb2__)
#define EHMN_ARM_DSP
#elif defined(__thumb2__)
#define EHMN_THUMB
#endif

#if defined(__ARM_FEATURE_DOTPROD) && defined(__ARM_FEATURE_MATMUL_INT8) && !defined(EHMN_I8MM) && defined(EHMN_NEON)
#define EHMN_I8MM
#endif

/* Each row keeps a pointer of its own, which loads move along: compilers would rather add an index to each of them. */
#define EHMN_KEEP_POINTER(p) __asm__("" : "+r"(p))

extern const ehmn_kernels ehmn_kernels_avx2;
extern const ehmn_kernels ehmn_kernels_vnni; /* AVX-512 with VNNI */
extern const ehmn_kernels ehmn_kernels_amx;  /* AVX-512, and tiles for several vectors at once */
extern const ehmn_kernels ehmn_kernels_neon;
extern const ehmn_kernels ehmn_kernels_dot; /* aarch64 with dot products of bytes */
extern const ehmn_kernels ehmn_kernels_mmla; /* the same, and products of matrices for several vectors at once */
extern const ehmn_kernels ehmn_kernels_mve; /* Armv8.1-M with vectors */
extern const ehmn_kernels ehmn_kernels_dsp; /* Armv7E-M, and Armv8-M with the DSP extension */
extern const ehmn_kernels ehmn_kernels_thumb; /* Armv7-M without it */

/* Functions of a table that others take over, or use for what their registers do not fill. */
void ehmn_kernels_rows_matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                int32_t *acc);
void ehmn_kernels_rows_matvec_s4(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                int32_t *acc);
void ehmn_kernels_rows_weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride,
                                   const int32_t *weight, int32_t *acc);
void ehmn_kernels_rows_scale(const int32_t *v, const int32_t *scale, uint32_t n, int32_t shift, int32_t *out);
void ehmn_kernels_rows_step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n,
                               uint32_t rate, uint32_t at);
uint32_t ehmn_kernels_rows_exp_sum(const int16_t *logits, uint32_t n, int32_t max);
uint32_t ehmn_kernels_rows_soften(int32_t *scores, uint32_t n, int32_t max);
void ehmn_kernels_rows_gate(const int32_t *gate, int32_t *up, uint32_t n, int32_t frac);
int32_t ehmn_kernels_rows_fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max,
                              int16_t *out);
void ehmn_kernels_mve_matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                int32_t *acc);
void ehmn_kernels_mve_matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 int32_t *acc);
void ehmn_kernels_mve_matvec_s4(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                int32_t *acc);
void ehmn_kernels_rows_nearest(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words, uint32_t *found);
uint32_t ehmn_kernels_cortex_m_exp_sum(const int16_t *logits, uint32_t n, int32_t max);
uint32_t ehmn_kernels_cortex_m_soften(int32_t *scores, uint32_t n, int32_t max);
void ehmn_kernels_cortex_m_gate(const int32_t *gate, int32_t *up, uint32_t n, int32_t frac);
void ehmn_kernels_cortex_m_scale(const int32_t *v, const int32_t *scale, uint32_t n, int32_t shift, int32_t *out);
int32_t ehmn_kernels_cortex_m_fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max,
                                  int16_t *out);
void ehmn_kernels_cortex_m_nearest(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words,
                                   uint32_t *found);
void ehmn_kernels_avx2_nearest(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words,
                               uint32_t *found);
void ehmn_kernels_avx2_matvec_s4(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                int32_t *acc);
void ehmn_kernels_avx2_scale(const int32_t *v, const int32_t *scale, uint32_t n, int32_t shift, int32_t *out);
void ehmn_kernels_avx2_step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n,
                               uint32_t rate, uint32_t at);
uint32_t ehmn_kernels_avx2_exp_sum(const int16_t *logits, uint32_t n, int32_t max);
uint32_t ehmn_kernels_avx2_soften(int32_t *scores, uint32_t n, int32_t max);
void ehmn_kernels_avx2_gate(const int32_t *gate, int32_t *up, uint32_t n, int32_t frac);
int32_t ehmn_kernels_avx2_fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max,
                              int16_t *out);
void ehmn_kernels_avx2_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                  uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_avx2_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_avx2_matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_neon_weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride,
                                    const int32_t *weight, int32_t *acc);
void ehmn_kernels_neon_scale(const int32_t *v, const int32_t *scale, uint32_t n, int32_t shift, int32_t *out);
void ehmn_kernels_neon_step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n,
                               uint32_t rate, uint32_t at);
void ehmn_kernels_neon_nearest(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words,
                               uint32_t *found);
uint32_t ehmn_kernels_neon_exp_sum(const int16_t *logits, uint32_t n, int32_t max);
uint32_t ehmn_kernels_neon_soften(int32_t *scores, uint32_t n, int32_t max);
int32_t ehmn_kernels_neon_fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max,
                              int16_t *out);
void ehmn_kernels_neon_gate(const int32_t *gate, int32_t *up, uint32_t n, int32_t frac);
void ehmn_kernels_neon_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                  uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_neon_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_neon_matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_amx_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_amx_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_vnni_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                  uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_vnni_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_vnni_matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_vnni_step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n,
                                uint32_t rate, uint32_t at);
void ehmn_kernels_vnni_nearest(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words, uint32_t *found);
void ehmn_kernels_vnni_weighted_sums(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride,
                                     const int32_t *weight, uint32_t n, uint32_t weight_stride, int add, int32_t *acc,
                                     uint32_t acc_stride);
void ehmn_kernels_dot_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_dot_matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_dot_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);

void ehmn_kernels_mmla_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                  uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_mmla_matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
void ehmn_kernels_mmla_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride);

/* Put `item` in its place among what was found: the last, which is larger, falls out. */
static inline void ehmn_insert(uint32_t *found, uint32_t item)
{
    uint32_t *at = found + EHMN_RECALLED - 1u;
    for (; at > found && at[-1] > item; at--) {
        *at = at[-1];
    }
    *at = item;
}

/* Rows of weights of 4 bits as bytes. */
static inline void ehmn_unpack_s4(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, int8_t *out,
                                  uint32_t out_stride)
{
    for (uint32_t r = 0; r < rows; r++, w += stride, out += out_stride) {
        for (uint32_t i = 0; i < cols / 2u; i++) {
            out[2u * i] = (int8_t)(((w[i] & 15u) ^ 8u) - 8u);
            out[2u * i + 1u] = (int8_t)((w[i] >> 4 ^ 8u) - 8u);
        }
        if (cols % 2u) {
            out[cols - 1u] = (int8_t)(((w[cols / 2u] & 15u) ^ 8u) - 8u);
        }
    }
}

#endif
