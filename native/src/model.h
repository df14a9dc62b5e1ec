/* The opened model: where everything lies in the image and in the arena. Not part of the public interface. */
#ifndef EHMN_MODEL_H
#define EHMN_MODEL_H

#include "edgehmn.h"
#include "fixed.h"
#include "kernels.h"

#define EHMN_MODEL_BYTES 768u /* room for struct ehmn_model in the arena, the same on every machine */

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
    uint32_t mantissas;     /* int16[max(d_model, d_hidden)]: input of a matrix */
    uint32_t narrow;        /* int8[max(d_model, d_hidden)]: the same of a matrix with 8-bit inputs */
    uint32_t normed;        /* int32[d_model]: output of the final norm, then adapted */
    uint32_t logits;        /* int16[vocab_size] */
    uint32_t recent;        /* uint32[n_ctx / 2]: the newest tokens, a ring; only if the window restarts */
    uint32_t delta;         /* ehmn_delta and its arrays; only if plastic, and all that follows */
    uint32_t plain;         /* int32[d_model]: output of the final norm, before the adapters */
    uint32_t standard;      /* int32[d_model]: standardised input of the adapters */
    uint32_t inputs;        /* int8[n_dense][d_model] */
    uint32_t outputs;       /* int16[n_dense][d_model]: z */
    uint32_t error;         /* int32[d_model] */
    uint32_t cumulative;    /* uint32[d_model] */
    uint32_t presynaptic;   /* int8[d_model] */
    uint32_t key;           /* uint32[(d_model + 31) / 32]: signs of the standardised input */
    uint32_t fast;          /* int32[d_model]: running mean of the standardised input, Q20 */
    uint32_t kept;          /* ehmn_gains: those that learning left, while the model follows */
    uint32_t observed;      /* int32[d_model]: the same through the topic matrix, Q12 */
    uint32_t total;
} ehmn_layout;

/* Offsets of the arrays that follow the header of a delta. */
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

/* What a prediction took from one of the recalled episodes' tokens. */
typedef struct {
    uint32_t token;
    uint32_t part; /* of the weights of all that was recalled, Q16 */
    int32_t aside; /* its logit without them; while a token is learned, that with them */
} ehmn_recall;

struct ehmn_model {
    const ehmn_image *image;
    const ehmn_matrix *matrices;
    const ehmn_vector *vectors;
    const ehmn_kernels *kernels;
    void (*multiply)(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t frac,
                     int32_t out_frac, int32_t *out); /* ehmn_multiply_rows, on several threads if there are any */
    const ehmn_parallel *parallel;                    /* NULL: none */
    uint8_t *arena;
    const int32_t *pairs; /* behind the layout: for each matrix where its sums begin, or 0, then the sums; NULL: none */
    ehmn_layout at;
    uint32_t mode;
    uint32_t filled;     /* positions in the window that hold something, at most n_ctx */
    uint32_t position;   /* where the next token goes: 0..n_ctx - 1 */
    uint32_t newest;     /* where the next one goes in the ring of recent tokens */
    uint32_t predicted;  /* 1: the logits are those of the present context */
    int32_t max_logit;   /* of the prediction without episodes, and the level of both masses */
    uint64_t seed;
    uint64_t sampled;    /* draws of ehmn_sample since the last reset, forgetting or loading */
    uint64_t mass;       /* sum of 2^(logit - max_logit) in Q24, without episodes */
    uint64_t total;      /* the same with them */
    uint64_t extra;      /* mass of all that was recalled, Q16: the gains that it was made with may not last */
    uint32_t summed;     /* log2 of the tokens whose masses have sums in the room of the scores; 0: no sums are there */
    int32_t step;        /* of the mantissas of 8 bits that ehmn_reduce made last: each stands for step * 2^-frac */
    uint32_t most;       /* the largest magnitude of those of 16 bits, or one more; for ehmn_matvec_s16 on Cortex-M */
    int32_t input_fracs[EHMN_MAX_DENSE];
    ehmn_delta_layout in; /* of the delta */
    ehmn_counts counts;
    uint32_t history[EHMN_MAX_ORDER]; /* tokens fed, the newest first */
    uint32_t n_history;
    uint32_t row[EHMN_ROW_ADAPTERS];      /* row that the prediction read, plus one; 0: none */
    uint32_t ngram_at[EHMN_NGRAM_ORDERS];  /* where the slot lies in which each order looked, plus one; 0: nowhere */
    uint32_t ngram_tag[EHMN_NGRAM_ORDERS]; /* and the tag that its context has */
    uint32_t ngram_hit[EHMN_NGRAM_ORDERS]; /* what was there if the tag was that one; 0: none */
    uint32_t n_recalled;                  /* distinct tokens of the recalled episodes; 0: none were recalled */
    uint32_t bucket;                      /* of the share that was used */
    ehmn_recall recalled[EHMN_RECALLED];
    uint32_t following;                   /* 1: the gains are not those that learning left */
    uint64_t followed;                    /* tokens followed since the last reset, forgetting or loading */
    uint32_t seen;                        /* tokens learned or followed since the last reset */
    uint32_t strange;                     /* checks in a row that found the topic new */
    uint32_t distance;                    /* Q16, of the last check */
    uint8_t *banks;                       /* n_banks deltas, then two snapshots; NULL: none */
    uint32_t n_banks;
    uint32_t bank;                        /* the present one: its delta is the model's */
    uint32_t used;                        /* bit k: bank k holds something, or is the present one */
    uint32_t snapshots;                   /* taken since the present bank was entered */
    uint32_t entered;                     /* tokens learned since then */
    uint32_t changes;                     /* of topic */
};

_Static_assert(sizeof(struct ehmn_model) <= EHMN_MODEL_BYTES, "struct ehmn_model must fit its room");

/* Take the next `bytes` of a region that begins at *at, whose parts start at multiples of `align`, a power of two. */
static inline uint32_t ehmn_take(uint64_t *at, uint32_t align, uint64_t bytes)
{
    uint64_t start = *at;
    *at = (start + bytes + (align - 1u)) & ~(uint64_t)(align - 1u);
    return (uint32_t)start;
}

/* image.c: change the table of an opened model. */
void ehmn_use_kernels(ehmn_model *m, const ehmn_kernels *kernels);

/* pairs.c: fill what the arena has beyond the model's need; rows of a product with the present
 * mantissas, of 8 bits and of 16. */
void ehmn_keep_pairs(ehmn_model *m, uint32_t arena_bytes);
void ehmn_matvec_s8(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t *out);
void ehmn_matvec_s16(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t *out);

/* image.c: whether the bytes from offset `from` up to offset `to` are zero. */
int ehmn_bytes_are_zero(const void *bytes, uint64_t from, uint64_t to);

/* delta.c: the first n members of a layout are the lengths of arrays, in elements of so many bytes each: make them
 * offsets of arrays that lie one behind the other from `at` on, at multiples of `align`, a power of two. Returns where
 * they end, UINT32_MAX if that does not fit 32 bits. */
uint32_t ehmn_place(void *layout, const uint8_t *element_bytes, uint32_t n, uint32_t at, uint32_t align);

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

/* Values in the room of the outputs of matrices. */
static inline uint32_t ehmn_wide(const ehmn_image *image)
{
    uint32_t attention = image->d_model + 2u * ehmn_d_kv(image);
    return attention > 2u * image->d_hidden ? attention : 2u * image->d_hidden;
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

static inline uint32_t ehmn_positions_index(const ehmn_image *image)
{
    return ehmn_head_index(image) + 1u;
}

static inline uint32_t ehmn_preconditioner_index(const ehmn_image *image)
{
    return ehmn_head_index(image) + (image->positions == EHMN_POSITIONS_LEARNED ? 2u : 1u);
}

static inline uint32_t ehmn_topic_index(const ehmn_image *image)
{
    return ehmn_preconditioner_index(image) + 1u;
}

/* Bytes from one row of weights to the next. */
static inline uint32_t ehmn_row_bytes(const ehmn_matrix *matrix)
{
    return matrix->weight_bits == 4u ? (matrix->cols + 1u) / 2u : matrix->cols;
}

static inline uint32_t ehmn_key_words(const ehmn_image *image)
{
    return (image->d_model + 31u) / 32u;
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

/* out[rows] = matrix * v + bias, where v[cols] has frac fractional bits and out has out_frac. v is first reduced to
 * the matrix's input_bits. `out` may be `v` only if rows <= cols and nobody needs v. */
void ehmn_matvec(ehmn_model *m, const ehmn_matrix *matrix, const int32_t *v, int32_t frac, int32_t out_frac,
                 int32_t *out);

/* The same in two steps, for several matrices with one input: reduce v into the model's mantissas ... */
int32_t ehmn_reduce(ehmn_model *m, const int32_t *v, uint32_t n, int32_t frac, uint32_t bits);
/* What it does, anywhere: mantissas[n] of so many bits, or of 16, of which narrow[n] are made for 8 bits;
 * *step as in the model. */
int32_t ehmn_reduce_into(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *mantissas, int8_t *narrow,
                         int32_t *step);
/* ... and multiply `rows` rows from `first` on by them. */
void ehmn_multiply(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t frac,
                   int32_t out_frac, int32_t *out);

/* encoder.c: what is behind it: a part of the rows, on the thread that calls. */
/* Sums of n rows' products, of inputs in units of `step`, as values: scale of kernels.h, after a
 * multiplication by the step. */
void ehmn_scale_products(const ehmn_kernels *kernels, int32_t *v, const int32_t *scale, uint32_t n, int32_t step,
                         int32_t shift);
void ehmn_multiply_rows(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t frac,
                        int32_t out_frac, int32_t *out);

/* parallel.c: how many of `rows` rows, each of so many multiplications, one thread takes; all, if it is alone. */
uint32_t ehmn_rows_of_part(const ehmn_model *m, uint32_t rows, uint64_t macs_of_row);

/* encoder.c: empty the window. */
void ehmn_clear_window(ehmn_model *m);

/* encoder.c: the steps of a token, which many.c does for several of them at once. The residual of a token at the next
 * position of the window, and by which its heads are rotated, int16[d_head]; ... */
void ehmn_begin_position(ehmn_model *m, uint32_t token, int32_t *residual, int16_t *turn);
/* ... norm `index` (2 layer, and 2 layer + 1 of the MLP), without the gain and bias that the next
 * matrix holds: Q20; ... */
void ehmn_normalise(const ehmn_model *m, uint32_t index, const int32_t *v, int32_t *out);
/* ... what a matrix of a layer adds to its product; ... */
void ehmn_add_bias(const ehmn_model *m, const ehmn_matrix *matrix, int32_t *out);
/* ... put the key and the value into the window, and attend to it. qkv: int32[d_model + 2 d_kv],
 * out: int32[d_model]; ... */
void ehmn_attend(ehmn_model *m, uint32_t layer, const int16_t *turn, int32_t *qkv, int32_t *out);
/* ... rotate the pairs (i, i + half) of one head by `turn`: for each pair the cosine and the sine of its phase; ... */
void ehmn_rotate(const int16_t *turn, uint32_t half, int32_t *v);
/* ... up[d_hidden] = its activation, by the gate that follows it if there is one; ... */
void ehmn_activate(const ehmn_model *m, int32_t *up);
/* ... the next position; and, for a token that was fed and not merely encoded again, its hidden vector. */
void ehmn_end_position(ehmn_model *m);
void ehmn_end_token(ehmn_model *m, uint32_t token, const int32_t *residual, int16_t *hidden);

#define EHMN_ATTENDING_TOGETHER 16u /* tokens */
#define EHMN_ATTENDING_SCORES(n_ctx) ((n_ctx) + 2u * EHMN_ATTENDING_TOGETHER) /* of a token, with room to fill up */

/* many_attention.c: what tokens at successive positions have of their own, in memory that begins as these pointers say
 * for the first of them, and `stride` bytes on for each other. */
typedef struct {
    uint32_t n;
    uint32_t stride;
    const int16_t *turn; /* int16[d_head] */
    int32_t *qkv;        /* int32[d_model + 2 d_kv] */
    int32_t *out;        /* int32[d_model] */
    int32_t *scores;     /* int32[EHMN_ATTENDING_SCORES(n_ctx)] */
    int16_t *query;      /* int16[d_head] */
    int8_t *rows;        /* int8[2 d_kv]: key and value, or what they take the place of */
    int8_t *fracs;       /* int8[2 n_kv_heads], of the rows */
} ehmn_attending;

/* What ehmn_attend does for each of them in turn, the first of them at m->position, which moves on with m->filled. */
void ehmn_attend_many(ehmn_model *m, uint32_t layer, const ehmn_attending *tokens);

static inline ehmn_gains *ehmn_model_gains(const ehmn_model *m)
{
    return &ehmn_model_delta(m)->gains;
}

/* plasticity.c: gain += eta_gain sum, within 0..gain_max; sum has `frac` fractional bits. */
void ehmn_move_gain(const ehmn_model *m, int32_t *gain, int64_t sum, int32_t frac);

/* What stands in the slot of an n-gram. */
static inline uint32_t ehmn_ngram_token(uint32_t slot)
{
    return slot & EHMN_NGRAM_TOKEN_MASK;
}

static inline uint32_t ehmn_ngram_tag(uint32_t slot)
{
    return slot >> EHMN_NGRAM_TAG_SHIFT & EHMN_NGRAM_TAG_MASK;
}

static inline uint32_t ehmn_ngram_count(uint32_t slot)
{
    return slot >> EHMN_NGRAM_COUNT_SHIFT;
}

/* plasticity.c: put back the gains that learning left, if the model has followed since. */
void ehmn_end_following(ehmn_model *m);

/* An array of the delta, by its offset in ehmn_delta_layout. */
static inline void *ehmn_in_delta(const ehmn_model *m, uint32_t offset)
{
    return ehmn_at(m, m->at.delta + offset);
}

/* head.c: the final norm of hidden at value_frac; what the head reads of it, adapted if the model is plastic; and the
 * head's input out of v[d_model] at value_frac. */
void ehmn_final_norm(ehmn_model *m, const int16_t *hidden, int32_t *normed);
void ehmn_adapted_norm(ehmn_model *m, const int16_t *hidden, int32_t *v);
int32_t ehmn_reduce_head(ehmn_model *m, int32_t *v);

/* head.c: the same in steps, for several tokens at once: the newest token of the context that rows and n-grams look at;
 * v[d_model] in bits, before it is reduced; what follows from the logits and max_logit. */
void ehmn_push_token(ehmn_model *m, uint32_t token);
void ehmn_to_bits(const ehmn_model *m, int32_t *v);
void ehmn_end_prediction(ehmn_model *m);

/* head.c: logits of the `rows` tokens from `first` on out of what the head's matrix gave for them: with their biases if
 * the model is plastic, and saturated. Returns the largest of them and max. How many are taken at one time: the room of
 * the outputs of matrices holds so many values of 32 bits, and as many of 16 behind them. */
int32_t ehmn_fit_logits(ehmn_model *m, uint32_t first, uint32_t rows, int32_t max, const int32_t *v, int16_t *out);
uint32_t ehmn_block_rows(const ehmn_model *m, uint32_t first);

/* head.c: both masses of the logits as they are now, of which max_logit is known; change one of them, and max_logit
 * with it. With episodes set aside: bits by which a token surprises, and the entropy, both in Q16. */
void ehmn_summarise(ehmn_model *m);
void ehmn_change_logit(ehmn_model *m, uint32_t token, int32_t logit);
uint32_t ehmn_surprise(const ehmn_model *m, uint32_t token);
uint32_t ehmn_entropy(const ehmn_model *m);

/* adapters.c: advance the traces and put what the adapters make of `plain` into out[d_model] at value_frac; and the
 * same of a guard vector, in its place, by the dense adapters and the scale alone, without traces and without
 * keeping what learning needs. */
void ehmn_adapt(ehmn_model *m, int32_t *out);
void ehmn_adapt_guard(ehmn_model *m, int32_t *v);

/* memories.c: hash[k] of the newest k + 1 tokens of context for k < n, as far as they are there; n-grams and episodes
 * added to the logits; what episodes made of the logits put aside, or back; what they learn of `token`. `write` 0
 * moves the gains alone. */
void ehmn_contexts(const ehmn_model *m, uint32_t n, uint32_t *hash);
uint32_t ehmn_slot(uint32_t hash, uint32_t slots);
void ehmn_remember(ehmn_model *m);
void ehmn_swap_recalled(ehmn_model *m);
void ehmn_learn_bias(ehmn_model *m, uint32_t token, const uint32_t *drawn, uint32_t n, int write);
void ehmn_decay_bias(ehmn_model *m, int32_t factor);
void ehmn_learn_ngrams(ehmn_model *m, uint32_t token, int write);
void ehmn_learn_episodes(ehmn_model *m, uint32_t token, int write);

/* topic.c: look at the topic after a token was learned or followed; enter another bank if it has changed. */
void ehmn_observe_topic(ehmn_model *m, int learning);
void ehmn_forget_banks(ehmn_model *m);
void ehmn_begin_bank(ehmn_model *m); /* nothing is counted yet of the bank that is present now */

/* topic.c: undo what was learned lately: back to the older snapshot, or to nothing. */
void ehmn_roll_back(ehmn_model *m);

/* guard.c: look at one guard vector if its turn has come; the level of harm, 0..2, that holds for the next token. */
void ehmn_watch(ehmn_model *m);
uint32_t ehmn_harm(const ehmn_model *m);

/* delta.c: whether bytes are a delta of this model; the delta of a model that has learned nothing. */
int32_t ehmn_delta_check(const ehmn_model *m, const void *delta, uint32_t bytes);
/* ... a copy with the right CRC; of the model's own delta with the gains that learning left. */
int32_t ehmn_delta_copy(const ehmn_model *m, const void *delta, void *out, uint32_t bytes);
void ehmn_delta_clear(ehmn_model *m, uint64_t seed);

/* The negatives, drawn at as many equally spaced quantiles of the prediction, shifted by offset (16 bits of one step).
 * Returns how many tokens. */
uint32_t ehmn_draw_negatives(const ehmn_model *m, uint32_t offset, uint32_t *drawn);

/* delta[d_model] = N (E[token] - mean of E over the N negatives), which are n tokens, at value_frac. */
void ehmn_output_error(ehmn_model *m, uint32_t token, const uint32_t *drawn, uint32_t n, int32_t *delta);

#endif
