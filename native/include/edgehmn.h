/* edgehmn: a language model that learns as it runs, in integers, without malloc. This header is the manual.
 *
 * The caller owns two pieces of memory: the image (const, may stay in flash) and an arena, whose exact size is
 * asked first. Nothing else is allocated, and nothing is static: any number of models may run side by side, of one
 * image too. Functions return a status: zero is success, negative a failure, and after a failure nothing has changed
 * unless said otherwise. Every result is the same bits on every machine.
 *
 *     uint32_t need;
 *     ehmn_model *m;
 *     if (ehmn_image_check(image, bytes) == EHMN_OK
 *         && ehmn_arena_bytes(image, EHMN_PLASTIC, &need) == EHMN_OK
 *         && ehmn_open(image, arena, need, EHMN_PLASTIC, seed, &m) == EHMN_OK) {
 *         for (each token of the text) {
 *             ehmn_learn(m, token);   // what was predicted is compared with what came, and learned
 *             ehmn_step(m, token);    // predicts the next
 *         }
 *     }
 *
 * A text may be of any length: of what left the context, what was learned stays.
 * Lifetime: a model lies in its arena, and points into that and into the image, so both stay where they are as long as
 * it is used. There is nothing to close.
 * Threads: a model is used by one at a time, different models by as many as there are. What takes a model as const
 * only reads it.
 * Interrupts: nothing is masked or waited for, and one may come at any time; but a token takes the time of a pass over
 * all weights, so a handler leaves the calls to the main loop.
 * Stack: 2 KB on a Cortex-M, for whatever is called of these headers.
 * Machine: int has 32 bits at least, and bytes are in little-endian order; else it does not compile.
 */
#ifndef EDGEHMN_H
#define EDGEHMN_H

#include "edgehmn_image.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EHMN_OK 0
#define EHMN_E_ARGUMENT (-1)  /* a null pointer, a token outside the vocabulary, an unknown flag */
#define EHMN_E_ALIGNMENT (-2) /* the image does not start at a multiple of 4, the arena of 16, or the delta of 8 */
#define EHMN_E_MAGIC (-3)     /* not an image or delta at all */
#define EHMN_E_VERSION (-4)   /* of a version that this core does not read */
#define EHMN_E_SIZE (-5)      /* truncated, too long, or a size that contradicts another */
#define EHMN_E_CRC (-6)       /* damaged */
#define EHMN_E_CONFIG (-7)    /* a setting out of range */
#define EHMN_E_LAYOUT (-8)    /* a tensor with the wrong shape or place */
#define EHMN_E_VALUE (-9)     /* a weight or scale that may not occur */
#define EHMN_E_ARENA (-10)    /* the arena is too small */
#define EHMN_E_IMAGE_ID (-11) /* the delta belongs to another image */
#define EHMN_E_STATE (-12)    /* the call needs one before it: nothing was predicted yet, or opened as static */

#define EHMN_STATIC 0u  /* no adapters: the frozen model alone, in less memory */
#define EHMN_PLASTIC 1u /* adapters present: may learn, may load and save a delta */

#define EHMN_LOGIT_FRAC 8  /* logits are base-2 logarithms with this many fractional bits */
#define EHMN_SCORE_FRAC 16 /* scores are bits with this many fractional bits */

typedef struct ehmn_model ehmn_model;

/* What a model has done since it was opened; see SPEC.md for what each costs. */
typedef struct {
    uint64_t steps;     /* tokens fed */
    uint64_t learned;   /* tokens learned */
    uint64_t writes;    /* single steps of plastic weights */
    uint64_t macs;      /* multiply-accumulates of all products of vectors, forward and learning; comparing a key with
                           an episode's counts one for every 32 bits */
    uint64_t rollbacks; /* times that the guard undid what was learned */
} ehmn_counts;

#define EHMN_MAX_BANKS 16u

/* Where the model stands among its topics. */
typedef struct {
    uint32_t bank;     /* the present one */
    uint32_t banks;    /* that hold something */
    uint32_t changes;  /* of topic, since the model was opened */
    uint32_t distance; /* Q16, of the present text from the bank's centre, at the last check */
} ehmn_topic;

/* Validate an image totally: header, settings, layout, CRC, every weight and scale. `image`: 4-aligned,
 * `bytes` long. One pass, linear in size. Any bytes whatever give a status, never a fault.
 * All other functions believe an image that has been checked, and must not be given one that has not.
 * EHMN_E_ARGUMENT, _ALIGNMENT, _MAGIC, _VERSION, _SIZE, _CRC, _CONFIG, _LAYOUT, _VALUE. */
int32_t ehmn_image_check(const void *image, uint32_t bytes);

/* The exact arena that ehmn_open needs for a checked image and a mode, EHMN_STATIC or EHMN_PLASTIC: the same number
 * on every machine. UINT32_MAX: more than an arena can have. EHMN_E_ARGUMENT. */
int32_t ehmn_arena_bytes(const void *image, uint32_t mode, uint32_t *bytes);

/* The size of a delta of a checked image. EHMN_E_ARGUMENT. */
int32_t ehmn_delta_bytes(const void *image, uint32_t *bytes);

/* Open a checked image, in an arena that may hold anything. `arena`: EHMN_ALIGN-aligned, arena_bytes long, at least
 * what ehmn_arena_bytes says; more of it may make the model faster, and never changes what it computes. `seed` starts
 * every draw. The delta begins as zero: the model predicts exactly as if it had no adapters.
 * EHMN_E_ARGUMENT, _ALIGNMENT, _ARENA. */
int32_t ehmn_open(const void *image, void *arena, uint32_t arena_bytes, uint32_t mode, uint64_t seed,
                  ehmn_model **model);

/* Forget the context (keys, values, position, prediction); what was learned stays. `model`: not NULL. */
void ehmn_reset(ehmn_model *model);

/* Encoder alone: feed a token, get int16 hidden[d_model] at 2^-hidden_frac, both of the image's header (ehmn_image).
 * EHMN_E_ARGUMENT. */
int32_t ehmn_encode(ehmn_model *model, uint32_t token, int16_t *hidden);

/* Head alone: predict from the hidden vector of any encoder, int16[d_model] at 2^-hidden_frac, and the token that was
 * fed to it. EHMN_E_ARGUMENT. */
int32_t ehmn_head(ehmn_model *model, uint32_t token, const int16_t *hidden);

/* ehmn_encode, then ehmn_head: feed a token, predict the next. EHMN_E_ARGUMENT. */
int32_t ehmn_step(ehmn_model *model, uint32_t token);

#define EHMN_FEED 0u   /* ehmn_process: nothing is learned */
#define EHMN_LEARN 1u  /* ehmn_learn each token before it is fed */
#define EHMN_FOLLOW 2u /* ehmn_follow it */

/* Bytes of `work` with which ehmn_process takes so many tokens at once. EHMN_E_ARGUMENT, also if 32 bits do not hold
 * them. */
int32_t ehmn_work_bytes(const void *image, uint32_t tokens, uint32_t *bytes);

/* Many tokens: for each of tokens[n] ehmn_score into bits[n] (NULL: nobody wants them), learning as `how` says, and
 * ehmn_step, with the same results to the bit. `work`, EHMN_ALIGN-aligned and lent for the call alone, lets the
 * encoder, and where nothing is learned the head, take so many tokens at once as ehmn_work_bytes says for its size: 16
 * to 64 make prompts and texts several times faster. With NULL and 0 it is one token after the other; firmware that
 * does not call this has no code of it. EHMN_E_ARGUMENT, _ALIGNMENT, _STATE (learning or following, but opened as
 * static). */
int32_t ehmn_process(ehmn_model *model, const uint32_t *tokens, uint32_t n, uint32_t how, uint32_t *bits, void *work,
                     uint32_t work_bytes);

/* Threads that the caller lends, for the cores of a Linux board: run(context, work, argument, parts) calls
 * work(argument, part) once for each part below `parts`, on any of `threads` threads, its own among them, and returns
 * when all are done. ports/linux/threads.c is such a pool. Products of large matrices then take several; every result
 * stays the same. `parallel` is lent until the model is no longer used; NULL: one thread. EHMN_E_ARGUMENT. */
typedef struct {
    void (*run)(void *context, void (*work)(void *argument, uint32_t part), void *argument, uint32_t parts);
    void *context;
    uint32_t threads;
} ehmn_parallel;

int32_t ehmn_use_threads(ehmn_model *model, const ehmn_parallel *parallel);

/* The prediction: base-2 logits, int16[vocab_size] with EHMN_LOGIT_FRAC fractional bits; NULL before the first
 * step. Valid until the next step or reset. */
const int16_t *ehmn_logits(const ehmn_model *model);

/* -log2 of the predicted probability of `token`, in bits with EHMN_SCORE_FRAC fractional bits. Before the
 * first step every token has probability 1 / vocab_size. EHMN_E_ARGUMENT. */
int32_t ehmn_score(const ehmn_model *model, uint32_t token, uint32_t *bits);

/* Teach the adapters and memories that `token` came where the prediction stands: once, before the step that feeds it.
 * Costs about its writes. Before the first step there is nothing to teach, and nothing happens.
 * EHMN_E_ARGUMENT, _STATE (opened as static). */
int32_t ehmn_learn(ehmn_model *model, uint32_t token);

/* The same with every weight and memory frozen: only the gains follow what each mechanism is worth in the present text,
 * and a known topic's bank is entered when the topic comes back. So what was learned of one text does no harm in
 * another. EHMN_E_ARGUMENT, _STATE (static). */
int32_t ehmn_follow(ehmn_model *model, uint32_t token);

/* Choose a token from the prediction; ehmn_step then feeds it. `temperature`: Q8, 0 takes the most probable (the lowest
 * id of equals), 256 draws from the prediction itself; at most 4096. EHMN_E_ARGUMENT, _STATE (nothing predicted). */
int32_t ehmn_sample(ehmn_model *model, uint32_t temperature, uint32_t *token);

/* What was done since ehmn_open. EHMN_E_ARGUMENT. */
int32_t ehmn_get_counts(const ehmn_model *model, ehmn_counts *counts);

/* Write the delta into `out`, of any alignment and `bytes` long, at least what ehmn_delta_bytes says. Every model of
 * the same image can load it, on any machine. EHMN_E_ARGUMENT, _STATE (static), _SIZE. */
int32_t ehmn_delta_save(const ehmn_model *model, void *out, uint32_t bytes);

/* Take over a delta, after validating it totally; it is copied. The context stays as it is. `delta`: 8-aligned.
 * EHMN_E_ARGUMENT, _ALIGNMENT, _STATE (static), _MAGIC, _VERSION, _SIZE, _CRC, _IMAGE_ID, _VALUE. */
int32_t ehmn_delta_load(ehmn_model *model, const void *delta, uint32_t bytes);

/* Forget all that was learned, in every bank; draws start again at `seed`. EHMN_E_ARGUMENT, _STATE (static). */
int32_t ehmn_delta_reset(ehmn_model *model, uint64_t seed);

/* Banks: one delta for each topic, in memory that the caller lends (in external RAM, say), beside two snapshots to
 * which a bank returns when a new topic had begun to overwrite it. `n`: 2..EHMN_MAX_BANKS; `memory`: 8-aligned, of
 * the size that ehmn_banks_bytes says, lent until the model is no longer used. The present delta becomes bank 0, the
 * others are empty. EHMN_E_ARGUMENT, _ALIGNMENT, _STATE (static), _SIZE (too little memory, or more than 32 bits
 * can say). */
int32_t ehmn_banks_bytes(const void *image, uint32_t n, uint32_t *bytes);
int32_t ehmn_banks_attach(ehmn_model *model, void *memory, uint32_t bytes, uint32_t n);

/* Save one bank as a delta, or load one, which may be the present one; as ehmn_delta_save and _load. Without banks
 * there is bank 0 alone. EHMN_E_ARGUMENT also for a bank that is not there, _STATE also for saving an empty one. */
int32_t ehmn_bank_save(const ehmn_model *model, uint32_t bank, void *out, uint32_t bytes);
int32_t ehmn_bank_load(ehmn_model *model, uint32_t bank, const void *delta, uint32_t bytes);

/* Without banks the present one is bank 0. EHMN_E_ARGUMENT, _STATE (static). */
int32_t ehmn_get_topic(const ehmn_model *model, ehmn_topic *topic);

/* Score of guard vector `index` of the image, below its n_guard, by what has been learned so far, as ehmn_score gives
 * it; costs a head pass. EHMN_E_ARGUMENT, _STATE (static). */
int32_t ehmn_guard_score(ehmn_model *model, uint32_t index, uint32_t *bits);

/* Turn the gains at rest of what has been learned down until the guard's perplexity is within one per cent of the
 * frozen model's; weights and memories stay, and in use the gains follow the text. For a pause after learning, such as
 * before storing: at most 9 looks at the whole guard, a head pass for each vector. Of several banks, the present one.
 * kept: of 256 parts, those that are left; 256 if all are. The prediction that was made stays until the next step.
 * EHMN_E_ARGUMENT, _STATE (static). */
int32_t ehmn_settle(ehmn_model *model, uint32_t *kept);

/* Name of a status, as in this header, without the prefix: "OK", "E_CRC"; "E_UNKNOWN" for all others, those of the
 * other headers too. Never NULL. */
const char *ehmn_status_name(int32_t status);

/* CRC-32/ISO-HDLC (zlib's) of `bytes` bytes, continuing `crc`, which starts as 0. */
uint32_t ehmn_crc32(uint32_t crc, const void *data, uint32_t bytes);

#ifdef __cplusplus
}
#endif

#endif
