/* Every byte that edgehmn stores: the image (the immutable model) and the delta (what was learned).
 *
 * All fields are little-endian and of fixed width; there are no enums, pointers or bit-fields. Python reads
 * sizes, offsets and constants of this file through cffi: nothing here is retyped anywhere else. SPEC.md says
 * what the numbers mean. */
#ifndef EDGEHMN_IMAGE_H
#define EDGEHMN_IMAGE_H

#include <stddef.h>
#include <stdint.h>

/* What must hold of the types below, in C and in C++, which have different words for it. */
#ifdef __cplusplus
#define EHMN_ASSERT(condition, what) static_assert(condition, what)
#else
#define EHMN_ASSERT(condition, what) _Static_assert(condition, what)
#endif

/* Images and deltas are read where they lie, and numbers are computed as `int` wherever they fit 32 bits. */
EHMN_ASSERT(sizeof(int) >= 4, "edgehmn needs an int of 32 bits at least");
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "edgehmn needs a processor in little-endian order"
#endif

#define EHMN_IMAGE_MAGIC 0x4E4D4845u /* "EHMN" */
#define EHMN_DELTA_MAGIC 0x444D4845u /* "EHMD" */
#define EHMN_IMAGE_VERSION 4u
#define EHMN_DELTA_VERSION 3u
#define EHMN_ALIGN 16u /* every section starts at a multiple of this */
#define EHMN_ID_BYTES 32u

/* Limits that the validator enforces; products of two of them fit 32 bits wherever the core multiplies. */
#define EHMN_MAX_LAYERS 64u
#define EHMN_MAX_D_MODEL 4096u
#define EHMN_MAX_D_HIDDEN 16384u
#define EHMN_MAX_D_HEAD 256u
#define EHMN_MAX_VOCAB 262144u
#define EHMN_MAX_CTX 512u
#define EHMN_MAX_DENSE 8u      /* dense adapters */
#define EHMN_ROW_ADAPTERS 2u   /* adapters whose rows are chosen by the previous token, and by the previous two */
#define EHMN_NGRAM_ORDERS 4u
#define EHMN_NGRAM_COUNTS 16u
#define EHMN_MAX_ORDER 8u      /* tokens of context that anything looks back */
#define EHMN_RECALLED 16u      /* episodes that a prediction recalls at most */
#define EHMN_EPISODE_BUCKETS 16u
#define EHMN_MAX_SLOTS 65536u  /* rows, n-grams or episodes of one table */
#define EHMN_MAX_GUARD 256u
#define EHMN_MAX_BITS (1u << 27) /* of a score, Q16: more than any prediction can give */
#define EHMN_MAX_NEGATIVES 64u

/* What a delta may hold. Biases have 12 fractional bits. An n-gram's slot: 18 bits of token, 10 of tag, 4 of count. */
#define EHMN_BIAS_FRAC 12
#define EHMN_NGRAM_TOKEN_MASK 0x3FFFFu
#define EHMN_NGRAM_TAG_SHIFT 18u
#define EHMN_NGRAM_TAG_MASK 0x3FFu
#define EHMN_NGRAM_COUNT_SHIFT 28u
#define EHMN_NGRAM_GAIN_MAX (1 << 20) /* Q16 bits, of either sign */
#define EHMN_SHARE_MIN 66             /* Q16, of the recalled episodes */
#define EHMN_SHARE_MAX 62259
#define EHMN_MAX_WRITTEN 0x80000000u  /* episodes */
#define EHMN_MAX_CHECKS 256u          /* observations that the centre of a topic is made of */

#define EHMN_NORM_RMSNORM 0u
#define EHMN_NORM_LAYERNORM 1u
#define EHMN_MLP_SWIGLU 0u
#define EHMN_MLP_GELU 1u      /* in its tanh form, without a gate */
#define EHMN_POSITIONS_ROPE 0u
#define EHMN_POSITIONS_LEARNED 1u
#define EHMN_WINDOW_SLIDING 0u /* the oldest position falls out */
#define EHMN_WINDOW_RESTART 1u /* a full window begins anew with the last half of its tokens */
#define EHMN_NO_TOKEN 0xFFFFFFFFu

#define EHMN_MATRICES_PER_LAYER 7u /* q, k, v, o, gate, up, down; the gate has no rows where there is none */
#define EHMN_MATRIX_Q 0u
#define EHMN_MATRIX_K 1u
#define EHMN_MATRIX_V 2u
#define EHMN_MATRIX_O 3u
#define EHMN_MATRIX_GATE 4u
#define EHMN_MATRIX_UP 5u
#define EHMN_MATRIX_DOWN 6u

#define EHMN_VECTORS 6u
#define EHMN_VECTOR_NORM_GAIN 0u         /* final norm, d_model */
#define EHMN_VECTOR_NORM_BIAS 1u         /* final norm, d_model, at value_frac */
#define EHMN_VECTOR_MEAN 2u              /* of the final norm's output, d_model, at value_frac */
#define EHMN_VECTOR_INVERSE_DEVIATION 3u /* of the final norm's output, d_model */
#define EHMN_VECTOR_ROPE 4u              /* phase step per token, d_head / 2, as uint32 turns * 2^32;
                                           none with learned positions */
#define EHMN_VECTOR_NORM_SHIFTS 5u       /* n_layers * 2 * d_model, 0..EHMN_MAX_NORM_SHIFT: by how many bits each
                                           channel of the layers' norms (attention, MLP) is shifted down */
#define EHMN_MAX_NORM_SHIFT 8
#define EHMN_MAX_STEP 259 /* of 8-bit inputs, in units of 16-bit ones: 32767 / 127, rounded up */

/* Parameters of the plasticity rule (SPEC.md, "Learning"). A number of slots of zero switches its mechanism off. */
typedef struct {
    int32_t eta_local;      /* Q24 */
    int32_t eta_global;     /* Q16, in units of eta_local: the share of the rate that G' modulates */
    int32_t w_reward;       /* Q16, gamma * w_reward of the paper */
    int32_t w_uncertainty;  /* Q16, (1 - gamma) * w_uncertainty */
    int32_t w_novelty;      /* Q16 */
    int32_t kappa;          /* Q16, weight of the slow eligibility; 0 is off */
    int32_t rho_slow;       /* Q16, below 1 */
    int32_t beta_attention; /* Q16, times log2(e); 0 is off */
    int32_t rho_context;    /* Q16, below 1 */
    uint32_t phase_step;    /* turns * 2^32 per learned token; 0 switches the gate off */
    int32_t decay_row;      /* Q24, decay per token times d_model, below 1 */
    int32_t weight_frac;    /* one LSB of a dense plastic weight is 2^-weight_frac */
    uint32_t n_negatives;   /* power of two */
    int32_t eta_gain;       /* Q16 */
    int32_t gain_max;       /* Q16 */
    int32_t rho_average;    /* Q16, below 1 */
    int32_t rho_trace[8];   /* Q16, below 1, one for each dense adapter */
    uint32_t phase_seed;    /* draws the fixed phase phi of every unit */
    uint32_t row_slots[2];  /* rows of the adapters by the previous token, and by the previous two */
    int32_t eta_row[2];     /* Q24 */
    int32_t row_frac;       /* one LSB of a row is 2^-row_frac */
    int32_t decay_visit;    /* Q24, decay of a row at each visit, below 1 */
    int32_t bias_step;      /* Q12 bits, added to the bias of the token that came; 0 switches the bias off */
    int32_t bias_decay;     /* Q16, decay per token times 128, below 1 */
    uint32_t ngram_slots;   /* of each order */
    uint32_t ngram_order[4]; /* tokens of context; 0 is off */
    int32_t eta_ngram;      /* Q16 */
    uint32_t episodes;
    int32_t sharpness;      /* Q8 bits by which an episode of similarity 0 weighs less than one of similarity 1 */
    int32_t eta_episode;    /* Q16 */
    int32_t eta_scale;      /* Q24 */
    int32_t topic_limit;    /* Q16, mean squared distance beyond which a topic is new */
    int32_t topic_margin;   /* Q16, a known topic is entered when its distance is less by this */
    int32_t guard_limit;    /* Q16 bits; 0 switches the guard off */
    int32_t closed_below;   /* Q16: a unit whose rate is below so many times the mean of all is closed; 0: none */
    uint32_t reserved[17];  /* zero */
} ehmn_rule;

/* A matrix of int8 weights, row by row, and one scale for each row: real weight = w * scale[row] * 2^-shift. Weights of
 * 4 bits lie two in a byte, the even column in the low half, and a row begins at a byte. */
typedef struct {
    uint32_t rows;
    uint32_t cols;
    uint32_t weights_offset; /* int8[rows][cols], from the image's first byte; -128 (-8 of 4 bits) does not occur */
    uint32_t scales_offset;  /* int32[rows], not negative */
    int32_t shift;           /* 0..62 */
    uint32_t input_bits;     /* 8..16: mantissas of the vector that it multiplies; those of 8 bits have a step */
    uint32_t weight_bits;    /* 8; or 4 in a layer whose input_bits exceed 8 */
    uint32_t bias_offset;    /* int32[rows] at value_frac, only in a layer; 0: none */
} ehmn_matrix;

/* A vector of 32-bit values: real value = v * 2^-shift. */
typedef struct {
    uint32_t length;
    uint32_t offset;
    int32_t shift; /* 0..62 */
    uint32_t reserved;
} ehmn_vector;

/* One hidden vector of ordinary text that the guard watches: hidden = mantissa * 2^-frac. */
typedef struct {
    int32_t frac;  /* -16..30 */
    uint32_t token; /* that came after it */
    uint32_t bits; /* score of that token by the frozen model, Q16 */
} ehmn_guard;

typedef struct {
    uint32_t magic;
    uint32_t version;
    uint32_t bytes; /* of the whole image */
    uint32_t crc32; /* of all bytes after this field (CRC-32/ISO-HDLC, as in zlib) */
    uint8_t id[32]; /* SHA-256 of the canonical tensors and settings */
    uint32_t n_layers;
    uint32_t d_model;
    uint32_t d_hidden;
    uint32_t n_heads;
    uint32_t n_kv_heads;
    uint32_t vocab_size;
    uint32_t n_ctx;
    uint32_t n_dense;           /* dense adapters */
    uint32_t final_norm;        /* of the head, EHMN_NORM_... */
    uint32_t tied_head;         /* 1: the head is the embedding; 0: a matrix of its own */
    uint32_t norm;              /* of the layers, EHMN_NORM_... */
    uint32_t mlp;               /* EHMN_MLP_... */
    uint32_t positions;         /* EHMN_POSITIONS_... */
    uint32_t window;            /* EHMN_WINDOW_... */
    uint32_t start_token;       /* encoded first in every window; EHMN_NO_TOKEN: none */
    int32_t value_frac;         /* 8..16: fractional bits of the residual and of every matrix product */
    int32_t hidden_frac;        /* 0..14: fractional bits of the hidden vector between encoder and head */
    int32_t norm_eps_mantissa;  /* d_model * eps = mantissa * 2^-shift, mantissa not negative */
    int32_t norm_eps_shift;     /* 0..62 */
    uint32_t matrices_offset;   /* ehmn_matrix[n_layers * 7], then embedding, head if untied, positions if
                                   learned, preconditioner, topic */
    uint32_t vectors_offset;    /* ehmn_vector[EHMN_VECTORS] */
    uint32_t guard_offset;      /* ehmn_guard[n_guard], then int8 mantissas[n_guard][d_model] */
    uint32_t n_guard;
    uint32_t tokenizer_offset;  /* edgehmn_tokenizer.h */
    uint32_t tokenizer_bytes;   /* 0: the image has no tokenizer */
    uint32_t reserved[3];       /* zero */
    ehmn_rule rule;
} ehmn_image;

/* Running mean and variance of one signal, in bits: Q16. */
typedef struct {
    int32_t mean;
    int32_t variance;
    uint32_t started;
    uint32_t reserved;
} ehmn_average;

/* What each mechanism is worth in the present text. */
typedef struct {
    int32_t scale;       /* Q16, of the frozen model's output */
    int32_t bias;        /* Q16 */
    int32_t row[2];      /* Q16 */
    int32_t dense[8];    /* Q16, one for each dense adapter */
    int32_t ngram[4][16]; /* Q16 bits, by order and count */
    int32_t share[16];   /* Q16, of the recalled episodes, by similarity */
} ehmn_gains;

/* The delta begins with this and continues with, each at the next multiple of 4, zeros between:
 *   int8   dense[n_dense][d_model][d_model]         LSB 2^-weight_frac, -128 does not occur
 *   int8   rows[row_slots[0] + row_slots[1]][d_model]  LSB 2^-row_frac, -128 does not occur
 *   int16  bias[vocab_size]                         Q12 bits, -32768 does not occur; none if bias_step is 0
 *   uint32 ngrams[orders that are on][ngram_slots]  token (18 bits), tag (10), count (4)
 *   uint32 keys[episodes][(d_model + 31) / 32]      signs of the standardised input
 *   uint32 tokens[episodes]
 *   int32  trace[n_dense][d_model]                  Q20, input trace of each dense adapter
 *   int32  slow[n_dense][d_model]                   Q20, slow eligibility
 *   int32  context[n_dense][d_model]                Q20, context of the attention alpha
 *   int32  topic[2][d_model]                        Q20, fast and slow mean, for novelty
 *   int32  centre[d_model]                          Q12, of this bank's topic
 *   int32  wander[d_model]                          Q12, the direction in which it wanders, as long as it is common */
typedef struct {
    uint32_t magic;
    uint32_t version;
    uint32_t bytes; /* of the whole delta */
    uint32_t crc32; /* of all bytes after this field */
    uint8_t image_id[32];
    uint64_t seed;
    uint64_t learned; /* tokens learned: the counter of every draw */
    uint64_t writes;  /* single steps of a plastic weight made so far */
    uint32_t phase;   /* Phi, turns * 2^32 */
    uint32_t written; /* episodes written so far */
    uint32_t checks;  /* observations that the centre is made of */
    int32_t guard_excess; /* Q16 bits */
    uint32_t age;         /* tokens learned in this bank */
    int32_t spread;       /* Q16, mean distance of this bank's topic from its centre, not negative */
    ehmn_average reward;
    ehmn_average uncertainty;
    ehmn_average novelty;
    ehmn_gains gains;
} ehmn_delta;

EHMN_ASSERT(sizeof(ehmn_rule) == 256, "ehmn_rule");
EHMN_ASSERT(sizeof(ehmn_matrix) == 32, "ehmn_matrix");
EHMN_ASSERT(sizeof(ehmn_vector) == 16, "ehmn_vector");
EHMN_ASSERT(sizeof(ehmn_guard) == 12, "ehmn_guard");
EHMN_ASSERT(offsetof(ehmn_image, crc32) == 12, "ehmn_image.crc32");
EHMN_ASSERT(offsetof(ehmn_image, n_layers) == 48, "ehmn_image.n_layers");
EHMN_ASSERT(offsetof(ehmn_image, rule) == 160, "ehmn_image.rule");
EHMN_ASSERT(sizeof(ehmn_image) == 416, "ehmn_image");
EHMN_ASSERT(sizeof(ehmn_gains) == 368, "ehmn_gains");
EHMN_ASSERT(offsetof(ehmn_delta, crc32) == 12, "ehmn_delta.crc32");
EHMN_ASSERT(offsetof(ehmn_delta, reward) == 96, "ehmn_delta.reward");
EHMN_ASSERT(sizeof(ehmn_delta) == 512, "ehmn_delta");

#endif
