/* Attention of several tokens on aarch64. Nothing is exchanged in the window: a token's scores of its rows and
 * of the new ones stand side by side, and what it does not see, the rows that tokens up to it have replaced and
 * the new ones of later tokens, is masked. The values are turned, so that sums of them are products along rows,
 * by weights of 16 bits. */
#include "many_attention.h"
#include "vectors_neon.h"

#if defined(EHMN_NEON)

#include "fixed.h"

#define NEW 16u                        /* the rows of the tokens come first, */
#define MOST_ROWS (EHMN_MAX_CTX + NEW) /* then those of the window, up to a multiple of sixteen */
#define COLUMNS 32u                    /* of the values, turned at a time */
#define UNSEEN_FRAC 127
#define MOST_SHIFT 80 /* of a score, all but its query's: beyond, nothing is left of 31 bits, or all saturate */

_Static_assert(TOGETHER == NEW && MOST_ROWS % 16u == 0, "rows come in sixteens");

typedef struct {
    const ehmn_at_head *head;
    uint32_t new;              /* rows of tokens */
    uint32_t old;              /* rows of the window */
    uint32_t n;                /* with those that fill up */
    int32_t left[MOST_ROWS];   /* by how many bits a score is shifted to the left, but for its query's */
    int32_t most[MOST_ROWS];   /* of a score: the least where the row is not seen, */
    int16_t most16[MOST_ROWS]; /* and of its distance from the largest, whose weight is zero then */
    int8_t value_frac[MOST_ROWS]; /* UNSEEN_FRAC where the row is not seen */
} rows;

/* Sixteen rows from r->left[first] on, of keys with these fractional bits. */
static inline void put_left(rows *r, uint32_t first, int8x16_t key_frac)
{
    int8x16_t left = vqsubq_s8(vdupq_n_s8(EHMN_LOGIT_FRAC), key_frac);
    left = vmaxq_s8(vminq_s8(left, vdupq_n_s8(MOST_SHIFT)), vdupq_n_s8(-MOST_SHIFT));
    int16x8_t low = vmovl_s8(vget_low_s8(left)), high = vmovl_high_s8(left);
    vst1q_s32(r->left + first, vmovl_s16(vget_low_s16(low)));
    vst1q_s32(r->left + first + 4u, vmovl_high_s16(low));
    vst1q_s32(r->left + first + 8u, vmovl_s16(vget_low_s16(high)));
    vst1q_s32(r->left + first + 12u, vmovl_high_s16(high));
}

static const int8_t *new_row(const rows *r, uint32_t token)
{
    const ehmn_at_head *h = r->head;
    const int8_t *own = ehmn_own(h->tokens, h->tokens->rows, h->first + token);
    return own + h->kv_head * ehmn_d_head(h->m->image);
}

static const int8_t *new_frac(const rows *r, uint32_t token)
{
    const ehmn_at_head *h = r->head;
    return (const int8_t *)ehmn_own(h->tokens, h->tokens->fracs, h->first + token) + h->kv_head;
}

static void begin(rows *r, const ehmn_at_head *h, uint32_t n)
{
    uint32_t n_ctx = h->m->image->n_ctx, n_kv = h->m->image->n_kv_heads;
    r->head = h;
    r->new = n;
    r->old = h->filled < n_ctx ? h->filled - 1u : n_ctx; /* that are there, or about to be replaced */
    r->n = NEW + ((r->old + 15u) & ~15u);
    int8_t frac[MOST_ROWS] = {0};
    for (uint32_t i = 0; i < n; i++) {
        frac[i] = *new_frac(r, i);
    }
    ehmn_neon_collect(h->key_frac, n_kv, r->old, frac + NEW);
    for (uint32_t i = 0; i < r->n; i += 16u) {
        put_left(r, i, vld1q_s8(frac + i));
    }
}

/* What is seen before the first of the tokens. */
static void see_window(rows *r)
{
    const ehmn_at_head *h = r->head;
    uint32_t end = NEW + r->old;
    for (uint32_t i = 0; i < r->n; i++) {
        r->most[i] = i >= NEW && i < end ? INT32_MAX : INT32_MIN;
    }
    for (uint32_t i = 0; i < r->n; i++) {
        r->most16[i] = i >= NEW && i < end ? INT16_MAX : INT16_MIN;
    }
    memset(r->value_frac, UNSEEN_FRAC, r->n);
    ehmn_neon_collect(h->value_frac, h->m->image->n_kv_heads, r->old, r->value_frac + NEW);
}

/* A token takes its place. */
static void see_token(rows *r, uint32_t token)
{
    uint32_t old = NEW + ehmn_position_of(r->head, token);
    if (old < NEW + r->old) {
        r->most[old] = INT32_MIN;
        r->most16[old] = INT16_MIN;
        r->value_frac[old] = UNSEEN_FRAC;
    }
    r->most[token] = INT32_MAX;
    r->most16[token] = INT16_MAX;
    r->value_frac[token] = new_frac(r, token)[r->head->m->image->n_kv_heads];
}

static int32_t least_frac(const rows *r)
{
    int8x16_t least = vld1q_s8(r->value_frac);
    for (uint32_t i = 16; i < r->n; i += 16u) {
        least = vminq_s8(least, vld1q_s8(r->value_frac + i));
    }
    return vminvq_s8(least);
}

/* The scores as logarithms; returns the largest that is seen. */
static int32_t fit(const rows *r, int32_t q_frac, int32_t *scores)
{
    const int32x4_t by = vdupq_n_s32(q_frac), least = vdupq_n_s32(-INT32_MAX);
    const int32_t *left = r->left, *limit = r->most, *end = scores + r->n;
    int32x4_t most = vdupq_n_s32(INT32_MIN);
    for (int32_t *at = scores; at < end; at += 8, left += 8, limit += 8) {
        int32x4_t a = vqrshlq_s32(vld1q_s32(at), vsubq_s32(vld1q_s32(left), by));
        int32x4_t b = vqrshlq_s32(vld1q_s32(at + 4), vsubq_s32(vld1q_s32(left + 4), by));
        a = vminq_s32(vmaxq_s32(a, least), vld1q_s32(limit));
        b = vminq_s32(vmaxq_s32(b, least), vld1q_s32(limit + 4));
        most = vmaxq_s32(most, vmaxq_s32(a, b));
        vst1q_s32(at, a);
        vst1q_s32(at + 4, b);
    }
    return vmaxvq_s32(most);
}

/* The table's entries of n times sixteen low bytes. */
static inline void look_up(const uint8x16_t *at, const uint32_t n, uint16x8_t (*entry)[2])
{
    const uint8_t *table = ehmn_exp2_bytes_table;
    uint8x16_t low[3], high[3];
#pragma GCC unroll 4
    for (uint32_t quarter = 0; quarter < 4u; quarter++, table += 64) {
        /* its registers are loaded one quarter after the other: they have no room together */
        __asm__("" : "+r"(table));
        uint8x16x4_t lows = vld1q_u8_x4(table), highs = vld1q_u8_x4(table + 256);
        for (uint32_t k = 0; k < n; k++) {
            uint8x16_t place = vsubq_u8(at[k], vdupq_n_u8((uint8_t)(64u * quarter)));
            low[k] = quarter == 0 ? vqtbl4q_u8(lows, place) : vqtbx4q_u8(low[k], lows, place);
            high[k] = quarter == 0 ? vqtbl4q_u8(highs, place) : vqtbx4q_u8(high[k], highs, place);
        }
    }
    for (uint32_t k = 0; k < n; k++) {
        entry[k][0] = vreinterpretq_u16_u8(vzip1q_u8(low[k], high[k]));
        entry[k][1] = vreinterpretq_u16_u8(vzip2q_u8(low[k], high[k]));
    }
}

/* round(2^(y / 256 + 15)), of a table's entry for the low byte of y <= 0; rounded twice if beyond 9 bits, as
 * ehmn_exp2_neg is and then its upper half. */
static inline uint16x8_t power(uint16x8_t entry, int16x8_t y)
{
    int16x8_t whole = vshrq_n_s16(y, 8), second = vmaxq_s16(whole, vdupq_n_s16(-9));
    return vrshlq_u16(vrshlq_u16(entry, vsubq_s16(whole, second)), second);
}

/* 16 n scores become weights, negated, as 2^15 has no place in 16 bits. */
static inline uint32x4_t soften_some(const int32_t *scores, const uint32_t n, int32x4_t max, const int16_t *most,
                                     const int8_t *value_frac, int8x16_t least, uint32x4_t total, int16_t *weights)
{
    int16x8_t y[3][2];
    uint16x8_t entry[3][2];
    uint8x16_t at[3];
    for (uint32_t k = 0; k < n; k++) {
        int32x4x4_t s = vld1q_s32_x4(scores + 16u * k);
        for (uint32_t i = 0; i < 2u; i++) {
            int16x4_t low = vqmovn_s32(vqsubq_s32(s.val[2u * i], max));
            y[k][i] = vqmovn_high_s32(low, vqsubq_s32(s.val[2u * i + 1u], max));
            y[k][i] = vminq_s16(y[k][i], vld1q_s16(most + 16u * k + 8u * i));
        }
        at[k] = vuzp1q_u8(vreinterpretq_u8_s16(y[k][0]), vreinterpretq_u8_s16(y[k][1]));
    }
    look_up(at, n, entry);
    for (uint32_t k = 0; k < n; k++) {
        int8x16_t left = vqsubq_s8(least, vld1q_s8(value_frac + 16u * k));
        uint16x8_t low = power(entry[k][0], y[k][0]), high = power(entry[k][1], y[k][1]);
        total = vpadalq_u16(vpadalq_u16(total, low), high);
        low = vrshlq_u16(low, vmovl_s8(vget_low_s8(left)));
        high = vrshlq_u16(high, vmovl_high_s8(left));
        vst1q_s16(weights + 16u * k, vreinterpretq_s16_u16(vsubq_u16(vdupq_n_u16(0), low)));
        vst1q_s16(weights + 16u * k + 8u, vreinterpretq_s16_u16(vsubq_u16(vdupq_n_u16(0), high)));
    }
    return total;
}

/* All scores become weights, in the same room; returns the sum of these before they are aligned to `least` fractional
 * bits of the values. */
static uint32_t soften(const rows *r, int32_t max, int32_t least, int32_t *scores)
{
    const int32x4_t largest = vdupq_n_s32(max);
    const int8x16_t to = vdupq_n_s8((int8_t)least);
    const int8_t *frac = r->value_frac;
    const int16_t *most = r->most16;
    int16_t *weights = (int16_t *)(void *)scores;
    uint32x4_t total = vdupq_n_u32(0);
    uint32_t n = r->n;
    for (; n >= 48u; n -= 48u, scores += 48, weights += 48, frac += 48, most += 48) {
        total = soften_some(scores, 3u, largest, most, frac, to, total, weights);
    }
    for (; n > 0; n -= 16u, scores += 16, weights += 16, frac += 16, most += 16) {
        total = soften_some(scores, 1u, largest, most, frac, to, total, weights);
    }
    return vaddvq_u32(total);
}

/* Sixteen columns of sixteen rows become rows, those out_stride apart; `cols` and `n` of them are there, others are
 * like the first. */
static void turn(const int8_t *v, size_t stride, uint32_t n, uint32_t cols, int8_t *out, size_t out_stride)
{
    int8x16_t a[16], b[16];
    int8_t part[16][16] = {{0}};
    if (cols < 16u || n < 16u) {
        for (uint32_t i = 0; i < 16u; i++) {
            memcpy(part[i], v + (i < n ? i : 0u) * stride, cols < 16u ? cols : 16u);
        }
        v = part[0];
        stride = 16u;
    }
    for (uint32_t i = 0; i < 16u; i++, v += stride) {
        a[i] = vld1q_s8(v);
    }
    for (uint32_t step = 0; step < 4u; step++) {
        for (uint32_t i = 0; i < 8u; i++) {
            b[2u * i] = vzip1q_s8(a[i], a[i + 8u]);
            b[2u * i + 1u] = vzip2q_s8(a[i], a[i + 8u]);
        }
        memcpy(a, b, sizeof a);
    }
    for (uint32_t i = 0; i < 16u; i++, out += out_stride) {
        vst1q_s8(out, a[i]);
    }
}

/* Columns `first` and on of all values, COLUMNS at most; what fills up is some row, of no weight. */
static void turn_values(const rows *r, uint32_t first, uint32_t cols, int8_t *out)
{
    const ehmn_at_head *h = r->head;
    uint32_t d_kv = ehmn_d_kv(h->m->image);
    const int8_t *new = new_row(r, 0) + d_kv + first, *old = h->values + first;
    for (uint32_t c = 0; c < cols; c += 16u, new += 16, old += 16, out += (size_t)16u * r->n) {
        turn(new, h->tokens->stride, r->new, cols - c, out, r->n);
        for (uint32_t i = 0; i < r->old; i += 16u) {
            turn(old + (size_t)i * d_kv, d_kv, r->old - i, cols - c, out + NEW + i, r->n);
        }
    }
}

/* What the sum of the values by a token's weights becomes its attention by. */
typedef struct {
    int32_t factor;
    int32_t shift;
} weighing;

/* The weights of a head's queries, in place of their scores. */
static void weigh_head(rows *r, uint32_t head, weighing *by)
{
    const ehmn_at_head *h = r->head;
    const ehmn_attending *tokens = h->tokens;
    const ehmn_kernels *kernels = h->m->kernels;
    const ehmn_image *im = h->m->image;
    uint32_t d_head = ehmn_d_head(im), stride = tokens->stride;
    int32_t *scores = ehmn_own(tokens, tokens->scores, h->first), q_frac[TOGETHER];
    int16_t *query = ehmn_own(tokens, tokens->query, h->first);
    for (uint32_t t = 0; t < r->new; t++) {
        const int32_t *q = (const int32_t *)ehmn_own(tokens, tokens->qkv, h->first + t) + head * d_head;
        q_frac[t] = ehmn_quantise16(q, d_head, im->value_frac, 16u, ehmn_own(tokens, query, t));
    }
    kernels->matmat_s16(new_row(r, 0), r->new, d_head, stride, query, r->new, stride / 2u, scores, stride / 4u);
    kernels->matmat_s16(h->keys, r->old, d_head, ehmn_d_kv(im), query, r->new, stride / 2u, scores + NEW, stride / 4u);
    see_window(r);
    for (uint32_t t = 0; t < r->new; t++) {
        int32_t *own = ehmn_own(tokens, scores, t);
        see_token(r, t);
        int32_t max = fit(r, q_frac[t], own), least = least_frac(r);
        uint32_t total = soften(r, max, least, own); /* at least 2^15 */
        by[t].factor = -(int32_t)(((uint64_t)1 << 45) / total);
        by[t].shift = 45 + least - im->value_frac;
        h->m->counts.macs += 2u * (uint64_t)ehmn_filled_at(h, t) * d_head;
    }
}

static void put_into_window(const rows *r)
{
    const ehmn_at_head *h = r->head;
    const ehmn_image *im = h->m->image;
    uint32_t d_head = ehmn_d_head(im), d_kv = ehmn_d_kv(im), n_kv = im->n_kv_heads;
    for (uint32_t t = 0; t < r->new; t++) {
        size_t position = ehmn_position_of(h, t);
        memcpy(h->keys + position * d_kv, new_row(r, t), d_head);
        memcpy(h->values + position * d_kv, new_row(r, t) + d_kv, d_head);
        h->key_frac[position * n_kv] = new_frac(r, t)[0];
        h->value_frac[position * n_kv] = new_frac(r, t)[n_kv];
    }
}

void ehmn_neon_attend_heads(const ehmn_at_head *h, uint32_t n)
{
    const ehmn_attending *tokens = h->tokens;
    const ehmn_image *im = h->m->image;
    uint32_t d_head = ehmn_d_head(im), shared = im->n_heads / im->n_kv_heads, stride = tokens->stride;
    int8_t turned[COLUMNS * MOST_ROWS];
    weighing by[TOGETHER];
    rows r;
    begin(&r, h, n);
    for (uint32_t head = h->kv_head * shared; head < (h->kv_head + 1u) * shared; head++) {
        int32_t *out = (int32_t *)ehmn_own(tokens, tokens->out, h->first) + head * d_head;
        const int16_t *weights = ehmn_own(tokens, tokens->scores, h->first);
        weigh_head(&r, head, by);
        for (uint32_t c = 0; c < d_head; c += COLUMNS) {
            uint32_t cols = d_head - c < COLUMNS ? d_head - c : COLUMNS;
            if (head % shared == 0 || d_head > COLUMNS) {
                turn_values(&r, c, cols, turned);
            }
            h->m->kernels->matmat_s16(turned, cols, r.n, r.n, weights, n, stride / 2u, out + c, stride / 4u);
        }
        for (uint32_t t = 0; t < n; t++) {
            ehmn_scale_all(ehmn_own(tokens, out, t), d_head, by[t].factor, by[t].shift, ehmn_own(tokens, out, t));
        }
    }
    put_into_window(&r);
}

#endif
