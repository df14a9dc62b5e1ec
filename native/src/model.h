/* The opened model: where everything lies in the image and in the arena. Not part of the public interface. */
#ifndef EHMN_MODEL_H
#define EHMN_MODEL_H

#include "edgehmn.h"
#include "kernels.h"

#define EHMN_MODEL_BYTES 512u /* room for struct ehmn_model in the arena, the same on every machine */

/* Arena offsets of everything that a model needs besides the struct itself; `total` is the arena's size. */
typedef struct {
    uint32_t keys;          /* int8[n_layers][n_ctx][d_kv] */
    uint32_t values;        /* the same */
    uint32_t key_fracs;     /* int8[n_layers][n_ctx][n_kv_heads] */
    uint32_t value_fracs;   /* the same */
    uint32_t phases;        /* uint32[d_head / 2] */
    uint32_t residual;      /* int32[d_model] */
    uint32_t wide;          /* int32[wide]: outputs of matrices; wide = max(2 d_hidden, d_model + 2 d_kv) */
    uint32_t mixed;         /* int32[d_model]: attention output */
    uint32_t scores;        /* int32[n_ctx] */
    uint32_t mantissas;     /* int16[max(d_model, d_hidden)]: input of a matrix, 8 or 16 bits */
    uint32_t normed;        /* int32[d_model]: output of the final norm, then adapted */
    uint32_t logits;        /* int16[vocab_size] */
    uint32_t delta;         /* ehmn_delta and its arrays; only if plastic, and all that follows */
    uint32_t standard;      /* int32[d_model]: standardised input of the adapters */
    uint32_t inputs;        /* int8[n_adapters][d_model] */
    uint32_t outputs;       /* int16[n_adapters][d_model]: z */
    uint32_t error;         /* int32[d_model] */
    uint32_t cumulative;    /* uint32[d_model] */
    uint32_t presynaptic;   /* int8[d_model] */
    uint32_t total;
} ehmn_layout;

struct ehmn_model {
    const ehmn_image *image;
    const ehmn_matrix *matrices;
    const ehmn_vector *vectors;
    const ehmn_kernels *kernels;
    uint8_t *arena;
    ehmn_layout at;
    uint32_t mode;
    uint32_t filled;     /* positions in the window that hold something, at most n_ctx */
    uint32_t position;   /* where the next token goes: 0..n_ctx - 1 */
    uint32_t predicted;  /* 1: the logits are those of the present context */
    int32_t max_logit;   /* of the prediction */
    uint32_t entropy;    /* of the prediction, bits in Q16 */
    uint64_t seed;
    uint64_t sampled;    /* draws of ehmn_sample since the last reset, forgetting or loading */
    uint64_t mass;       /* sum of 2^(logit - max_logit) in Q24 */
    int32_t input_fracs[EHMN_MAX_ADAPTERS];
    ehmn_counts counts;
};

_Static_assert(sizeof(struct ehmn_model) <= EHMN_MODEL_BYTES, "struct ehmn_model must fit its room");

/* Offsets of the arrays that follow the header of a delta. */
typedef struct {
    uint32_t weights;
    uint32_t trace;
    uint32_t slow;
    uint32_t context;
    uint32_t topic;
    uint32_t total;
} ehmn_delta_layout;

ehmn_delta_layout ehmn_layout_delta(const ehmn_image *image);
ehmn_layout ehmn_layout_arena(const ehmn_image *image, uint32_t mode);

static inline uint32_t ehmn_d_head(const ehmn_image *image)
{
    return image->d_model / image->n_heads;
}

static inline uint32_t ehmn_d_kv(const ehmn_image *image)
{
    return ehmn_d_head(image) * image->n_kv_heads;
}

/* Index of the matrices that follow those of the layers. */
static inline uint32_t ehmn_embedding_index(const ehmn_image *image)
{
    return image->n_layers * EHMN_MATRICES_PER_LAYER;
}

static inline uint32_t ehmn_head_index(const ehmn_image *image)
{
    return ehmn_embedding_index(image) + (image->tied_head ? 0u : 1u);
}

static inline uint32_t ehmn_preconditioner_index(const ehmn_image *image)
{
    return ehmn_head_index(image) + 1u;
}

static inline const int8_t *ehmn_weights(const ehmn_model *m, const ehmn_matrix *matrix)
{
    return (const int8_t *)((const uint8_t *)m->image + matrix->weights_offset);
}

static inline const int32_t *ehmn_scales(const ehmn_model *m, const ehmn_matrix *matrix)
{
    return (const int32_t *)(const void *)((const uint8_t *)m->image + matrix->scales_offset);
}

static inline const int32_t *ehmn_vector_data(const ehmn_model *m, uint32_t index)
{
    return (const int32_t *)(const void *)((const uint8_t *)m->image + m->vectors[index].offset);
}

static inline void *ehmn_at(const ehmn_model *m, uint32_t offset)
{
    return m->arena + offset;
}

static inline ehmn_delta *ehmn_model_delta(const ehmn_model *m)
{
    return ehmn_at(m, m->at.delta);
}

/* out[rows] = matrix * v, where v[cols] has frac fractional bits and out has out_frac. v is first reduced to
 * the matrix's input_bits. `out` may be `v` only if rows <= cols and nobody needs v. */
void ehmn_matvec(ehmn_model *m, const ehmn_matrix *matrix, const int32_t *v, int32_t frac, int32_t out_frac,
                 int32_t *out);

/* The same in two steps, for several matrices with one input: reduce v into the model's mantissas ... */
int32_t ehmn_reduce(ehmn_model *m, const int32_t *v, uint32_t n, int32_t frac, uint32_t bits);
/* ... and multiply `rows` rows from `first` on by them. */
void ehmn_multiply(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t frac,
                   int32_t out_frac, int32_t *out);

/* Add round(factor * row `row` of `matrix`) at `frac` fractional bits to v[cols]. */
void ehmn_add_row(const ehmn_model *m, const ehmn_matrix *matrix, uint32_t row, int32_t factor, int32_t frac,
                  int32_t *v);

/* Adapters' part of the head: advance the traces and add P sum g tanh(W x) to v[d_model] at value_frac. */
void ehmn_adapt(ehmn_model *m, int32_t *v);

/* Tokens at `n` equally spaced quantiles of the prediction, shifted by offset (16 bits of one step). */
void ehmn_quantile_tokens(const ehmn_model *m, uint32_t n, uint32_t offset, uint32_t *tokens);

#endif
