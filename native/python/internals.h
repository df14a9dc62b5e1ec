/* What tests look at besides the public interface. The compiler holds these against the core's own headers. */
#include "fixed.h"
#include "kernels.h"
#include "model.h"
#include "random.h"

int32_t ehmn_round_shift(int64_t v, int32_t shift);
int32_t ehmn_mul(int32_t a, int32_t b, int32_t shift);
int64_t ehmn_div_round(int64_t a, int64_t b);
int32_t ehmn_bit_length(uint64_t v);
uint32_t ehmn_isqrt(uint64_t v);
uint32_t ehmn_exp2_neg(uint32_t x);
int32_t ehmn_log2(uint64_t v);
uint32_t ehmn_sigmoid(int32_t x);
int32_t ehmn_tanh(int32_t x);
int32_t ehmn_sin(uint32_t phase);
int32_t ehmn_narrow(const int16_t *v, uint32_t n, int8_t *out);
void ehmn_multiply_all(int32_t *v, uint32_t n, int32_t factor);
int32_t ehmn_quantise8(const int32_t *v, uint32_t n, int32_t frac, int8_t *out);
int32_t ehmn_quantise16(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *out);
int32_t ehmn_gelu(int32_t x, int32_t frac);
void ehmn_rms_normalise(const int32_t *v, uint32_t n, int32_t frac, int32_t eps_mantissa, int32_t eps_shift,
                        int32_t *out);
void ehmn_random(uint64_t seed, uint32_t stream, uint64_t counter, uint32_t out[4]);

typedef struct {
    const int8_t *w;
    int32_t left;
    int32_t right;
} ehmn_row;

typedef struct {
    const char *name;
    void (*matvec_s8)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc);
    void (*matvec_s16)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc);
    void (*matvec_s4)(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                      int32_t *acc);
    void (*weighted_sum)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc);
    void (*scale)(const int32_t *v, const int32_t *scale, uint32_t n, int32_t shift, int32_t *out);
    void (*scale_steps)(int32_t *v, const int32_t *scale, uint32_t n, int32_t step, int32_t shift);
    void (*step_row)(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n, uint32_t rate,
                     uint32_t at);
    uint32_t few_steps;
    uint32_t (*exp_sum)(const int16_t *logits, uint32_t n, int32_t max);
    uint32_t (*soften)(int32_t *scores, uint32_t n, int32_t max);
    void (*gate)(const int32_t *gate, int32_t *up, uint32_t n, int32_t frac);
    int32_t (*fit)(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max, int16_t *out);
    void (*nearest)(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words, uint32_t *found);
    void (*matmat_s16)(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x, uint32_t n,
                       uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
    void (*matmat_s4)(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x, uint32_t n,
                      uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
    void (*matmat_s8)(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x, uint32_t n,
                      uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
    void (*weighted_sums)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                          uint32_t n, uint32_t weight_stride, int add, int32_t *acc, uint32_t acc_stride);
    void (*matvec_s8_paired)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                             const int32_t *pairs, int32_t *acc);
    void (*matvec_s16_paired)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                              const int32_t *pairs, int32_t *acc);
    void (*sum_rows)(int32_t *v, uint32_t n, const ehmn_row *rows, uint32_t count);
} ehmn_kernels;
extern const ehmn_kernels ehmn_kernels_ref;
extern const ehmn_kernels ehmn_kernels_rows;
const ehmn_kernels *ehmn_kernel_table(uint32_t index);
const ehmn_kernels *ehmn_best_kernels(void);
void ehmn_use_kernels(ehmn_model *m, const ehmn_kernels *kernels);

typedef struct {
    uint32_t keys;
    uint32_t values;
    uint32_t key_fracs;
    uint32_t value_fracs;
    uint32_t phases;
    uint32_t residual;
    uint32_t wide;
    uint32_t mixed;
    uint32_t scores;
    uint32_t mantissas;
    uint32_t narrow;
    uint32_t normed;
    uint32_t logits;
    uint32_t recent;
    uint32_t delta;
    uint32_t plain;
    uint32_t standard;
    uint32_t inputs;
    uint32_t outputs;
    uint32_t error;
    uint32_t cumulative;
    uint32_t presynaptic;
    uint32_t key;
    uint32_t fast;
    uint32_t kept;
    uint32_t observed;
    uint32_t total;
} ehmn_layout;
ehmn_layout ehmn_layout_arena(const ehmn_image *image, uint32_t mode);
typedef struct {
    uint32_t dense;
    uint32_t rows;
    uint32_t bias;
    uint32_t ngrams;
    uint32_t keys;
    uint32_t tokens;
    uint32_t trace;
    uint32_t slow;
    uint32_t context;
    uint32_t topic;
    uint32_t centre;
    uint32_t wander;
    uint32_t total;
} ehmn_delta_layout;
ehmn_delta_layout ehmn_layout_delta(const ehmn_image *image);
