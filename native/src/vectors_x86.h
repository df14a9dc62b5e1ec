/* On x86 the functions of vectors.c are there in plain C, for AVX2 and some for AVX-512;
 * vectors_x86.c asks the processor. */
#ifndef EHMN_VECTORS_X86_H
#define EHMN_VECTORS_X86_H

#include <stdint.h>

#define EHMN_DECLARE_VECTORS(set)                                                                                      \
    int32_t ehmn_##set##_quantise8(const int32_t *v, uint32_t n, int32_t frac, int8_t *out);                           \
    int32_t ehmn_##set##_quantise16(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *out);          \
    int32_t ehmn_##set##_narrow(const int16_t *v, uint32_t n, int8_t *out);                                            \
    int32_t ehmn_##set##_quantise_narrow(const int32_t *v, uint32_t n, int32_t frac, int8_t *out, int32_t *step);      \
    void ehmn_##set##_multiply_all(int32_t *v, uint32_t n, int32_t factor);                                            \
    void ehmn_##set##_shift_all(int32_t *v, const int32_t *shift, uint32_t n);                                         \
    void ehmn_##set##_add_all(int32_t *v, const int32_t *more, uint32_t n);                                            \
    void ehmn_##set##_add_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale,              \
                                  int32_t shift);                                                                      \
    void ehmn_##set##_add_outputs(int32_t *v, const int16_t *z, uint32_t n, int32_t gain);                             \
    void ehmn_##set##_follow_all(int32_t *mean, const int32_t *v, uint32_t n, int32_t rate);                           \
    void ehmn_##set##_running_sums(const int8_t *v, uint32_t n, uint32_t *edge, int8_t *sign);                         \
    void ehmn_##set##_scale_all(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out);            \
    void ehmn_##set##_rms_normalise(const int32_t *v, uint32_t n, int32_t frac, int32_t eps_mantissa,                  \
                                    int32_t eps_shift, int32_t *out);                                                  \
    int32_t ehmn_##set##_fit_scores(const int8_t *key_frac, uint32_t stride, uint32_t n, int32_t frac, int32_t to,     \
                                    int32_t *scores);                                                                  \
    int32_t ehmn_##set##_align_weights(const int8_t *value_frac, uint32_t stride, uint32_t n, int32_t *weights);       \
    void ehmn_##set##_subtract_all(const int32_t *v, const int32_t *less, uint32_t n, int32_t *out);                   \
    int64_t ehmn_##set##_dot_weights(const int8_t *w, const int32_t *v, uint32_t n);                                   \
    int64_t ehmn_##set##_dot_outputs(const int16_t *z, const int32_t *v, uint32_t n);                                  \
    int64_t ehmn_##set##_sum(const int32_t *v, uint32_t n);                                                            \
    uint64_t ehmn_##set##_limit(int32_t *v, uint32_t n, int32_t most);                                                 \
    void ehmn_##set##_times_slope(const int32_t *v, const int16_t *z, uint32_t n, int32_t *out);                       \
    uint32_t ehmn_##set##_length(const int8_t *w, uint32_t n);                                                         \
    void ehmn_##set##_tanh_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *z);                               \
    uint32_t ehmn_##set##_pass_over(const int16_t *logits, uint32_t n, int32_t max, uint64_t *ahead)

EHMN_DECLARE_VECTORS(plain);
EHMN_DECLARE_VECTORS(avx2);
void ehmn_avx2_add_weights_within(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale,
                                  int32_t shift);

/* Those that are there for AVX-512 too. */
int32_t ehmn_avx512_quantise8(const int32_t *v, uint32_t n, int32_t frac, int8_t *out);
int32_t ehmn_avx512_quantise16(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *out);
int32_t ehmn_avx512_narrow(const int16_t *v, uint32_t n, int8_t *out);
int32_t ehmn_avx512_quantise_narrow(const int32_t *v, uint32_t n, int32_t frac, int8_t *out, int32_t *step);
void ehmn_avx512_multiply_all(int32_t *v, uint32_t n, int32_t factor);
void ehmn_avx512_add_all(int32_t *v, const int32_t *more, uint32_t n);
void ehmn_avx512_add_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift);
void ehmn_avx512_add_weights_within(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale,
                                    int32_t shift);
void ehmn_avx512_scale_all(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out);
void ehmn_avx512_rms_normalise(const int32_t *v, uint32_t n, int32_t frac, int32_t eps_mantissa, int32_t eps_shift,
                               int32_t *out);
int32_t ehmn_avx512_fit_scores(const int8_t *key_frac, uint32_t stride, uint32_t n, int32_t frac, int32_t to,
                               int32_t *scores);
int32_t ehmn_avx512_align_weights(const int8_t *value_frac, uint32_t stride, uint32_t n, int32_t *weights);
void ehmn_avx512_tanh_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *z);
uint32_t ehmn_avx512_pass_over(const int16_t *logits, uint32_t n, int32_t max, uint64_t *ahead);

void ehmn_plain_signs(const int32_t *v, uint32_t n, uint32_t *bits);

/* As in encoder.c. Returns how many pairs were rotated, from the first on. */
uint32_t ehmn_rotate_some(const int16_t *turn, uint32_t half, int32_t *v);
uint32_t ehmn_avx2_rotate(const int16_t *turn, uint32_t half, int32_t *v);
uint32_t ehmn_avx512_rotate(const int16_t *turn, uint32_t half, int32_t *v);

/* Whether this processor has all of AVX-512 that its files use: an answer like that of __builtin_cpu_supports. */
#define EHMN_HAS_AVX512                                                                                                \
    (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))

#endif
