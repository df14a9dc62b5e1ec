/* Every byte that edgehmn stores: the image (the immutable model) and the delta (what was learned).
 *
 * All fields are little-endian and of fixed width; there are no enums, pointers or bit-fields. Python reads
 * sizes, offsets and constants of this file through cffi: nothing here is retyped anywhere else. SPEC.md says
 * what the numbers mean. */
#ifndef EDGEHMN_IMAGE_H
#define EDGEHMN_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define EHMN_IMAGE_MAGIC 0x4E4D4845u /* "EHMN" */
#define EHMN_DELTA_MAGIC 0x444D4845u /* "EHMD" */
#define EHMN_IMAGE_VERSION 1u
#define EHMN_DELTA_VERSION 1u
#define EHMN_ALIGN 16u /* every section starts at a multiple of this */
#define EHMN_ID_BYTES 32u

/* Limits that the validator enforces; products of two of them fit 32 bits wherever the core multiplies. */
#define EHMN_MAX_LAYERS 64u
#define EHMN_MAX_D_MODEL 4096u
#define EHMN_MAX_D_HIDDEN 16384u
#define EHMN_MAX_D_HEAD 256u
#define EHMN_MAX_VOCAB 262144u
#define EHMN_MAX_CTX 512u
#define EHMN_MAX_ADAPTERS 8u
#define EHMN_MAX_NEGATIVES 64u

#define EHMN_FINAL_RMSNORM 0u
#define EHMN_FINAL_LAYERNORM 1u

#define EHMN_MATRICES_PER_LAYER 7u /* q, k, v, o, gate, up, down */
#define EHMN_MATRIX_Q 0u
#define EHMN_MATRIX_K 1u
#define EHMN_MATRIX_V 2u
#define EHMN_MATRIX_O 3u
#define EHMN_MATRIX_GATE 4u
#define EHMN_MATRIX_UP 5u
#define EHMN_MATRIX_DOWN 6u

#define EHMN_VECTORS 5u
#define EHMN_VECTOR_NORM_GAIN 0u         /* final norm, d_model */
#define EHMN_VECTOR_NORM_BIAS 1u         /* final norm, d_model, at value_frac */
#define EHMN_VECTOR_MEAN 2u              /* of the final norm's output, d_model, at value_frac */
#define EHMN_VECTOR_INVERSE_DEVIATION 3u /* of the final norm's output, d_model */
#define EHMN_VECTOR_ROPE 4u              /* phase step per token, d_head / 2, as uint32 turns * 2^32 */

/* Parameters of the plasticity rule (SPEC.md, "Learning"). */
typedef struct {
    int32_t eta_local;      /* Q24 */
    int32_t eta_global;     /* Q24 */
    int32_t w_reward;       /* Q16, gamma * w_reward of the paper */
    int32_t w_uncertainty;  /* Q16, (1 - gamma) * w_uncertainty */
    int32_t w_novelty;      /* Q16 */
    int32_t kappa;          /* Q16, weight of the slow eligibility; 0 is off */
    int32_t rho_slow;       /* Q16, below 1 */
    int32_t beta_attention; /* Q16, times log2(e); 0 is off */
    int32_t rho_context;    /* Q16, below 1 */
    uint32_t phase_step;    /* turns * 2^32 per learned token; 0 switches the gate off */
    int32_t decay_row;      /* Q24, decay per token times d_model, below 1 */
    int32_t weight_frac;    /* one LSB of a plastic weight is 2^-weight_frac */
    uint32_t n_negatives;   /* power of two */
    int32_t eta_gain;       /* Q16 */
    int32_t gain_max;       /* Q16 */
    int32_t rho_average;    /* Q16, below 1 */
    int32_t rho_trace[8];   /* Q16, below 1, one for each adapter */
    uint32_t phase_seed;    /* draws the fixed phase phi of every unit */
    uint32_t reserved[7];   /* zero */
} ehmn_rule;

/* A matrix of int8 weights, row by row, and one scale for each row: real weight = w * scale[row] * 2^-shift. */
typedef struct {
    uint32_t rows;
    uint32_t cols;
    uint32_t weights_offset; /* int8[rows][cols], from the image's first byte; -128 does not occur */
    uint32_t scales_offset;  /* int32[rows], not negative */
    int32_t shift;           /* 0..62 */
    uint32_t input_bits;     /* 8 or 16: mantissas of the vector that it multiplies */
    uint32_t reserved[2];    /* zero */
} ehmn_matrix;

/* A vector of 32-bit values: real value = v * 2^-shift. */
typedef struct {
    uint32_t length;
    uint32_t offset;
    int32_t shift; /* 0..62 */
    uint32_t reserved;
} ehmn_vector;

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
    uint32_t n_adapters;
    uint32_t final_norm;        /* EHMN_FINAL_... */
    uint32_t tied_head;         /* 1: the head is the embedding; 0: a matrix of its own */
    int32_t value_frac;         /* 8..16: fractional bits of the residual and of every matrix product */
    int32_t hidden_frac;        /* 0..14: fractional bits of the hidden vector between encoder and head */
    int32_t norm_eps_mantissa;  /* d_model * eps = mantissa * 2^-shift, mantissa not negative */
    int32_t norm_eps_shift;     /* 0..62 */
    uint32_t matrices_offset;   /* ehmn_matrix[n_layers * 7], then embedding, head if untied, preconditioner */
    uint32_t vectors_offset;    /* ehmn_vector[EHMN_VECTORS] */
    uint32_t reserved[4];       /* zero */
    ehmn_rule rule;
} ehmn_image;

/* Running mean and variance of one signal, in bits: Q16. */
typedef struct {
    int32_t mean;
    int32_t variance;
    uint32_t started;
    uint32_t reserved;
} ehmn_average;

/* The delta begins with this and continues with, each directly after the other:
 *   int8  weights[n_adapters][d_model][d_model]   LSB 2^-weight_frac, -128 does not occur
 *   (padding with zeros to a multiple of 4)
 *   int32 trace[n_adapters][d_model]              Q20, input trace of each adapter
 *   int32 slow[n_adapters][d_model]               Q20, slow eligibility
 *   int32 context[n_adapters][d_model]            Q20, context of the attention alpha
 *   int32 topic[2][d_model]                       Q20, fast and slow mean, for novelty */
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
    uint32_t reserved[5]; /* zero */
    ehmn_average reward;
    ehmn_average uncertainty;
    ehmn_average novelty;
    int32_t gain[8]; /* Q16, one for each adapter */
} ehmn_delta;

_Static_assert(sizeof(ehmn_rule) == 128, "ehmn_rule");
_Static_assert(sizeof(ehmn_matrix) == 32, "ehmn_matrix");
_Static_assert(sizeof(ehmn_vector) == 16, "ehmn_vector");
_Static_assert(offsetof(ehmn_image, crc32) == 12, "ehmn_image.crc32");
_Static_assert(offsetof(ehmn_image, n_layers) == 48, "ehmn_image.n_layers");
_Static_assert(offsetof(ehmn_image, rule) == 128, "ehmn_image.rule");
_Static_assert(sizeof(ehmn_image) == 256, "ehmn_image");
_Static_assert(offsetof(ehmn_delta, crc32) == 12, "ehmn_delta.crc32");
_Static_assert(offsetof(ehmn_delta, reward) == 96, "ehmn_delta.reward");
_Static_assert(sizeof(ehmn_delta) == 176, "ehmn_delta");

#endif
