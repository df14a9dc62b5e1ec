/* Cortex-M with vectors of 128 bits (Helium, MVE: M55, M85). Products: kernels_mve_products.c. */
#include "fixed.h"
#include "kernels_tables.h"

#include <stddef.h>

#if defined(EHMN_MVE)

/* Shifts above 32 need the upper halves of the products alone; see ehmn_kernels_rows_scale. */
static void scale(const int32_t *v, const int32_t *factor, uint32_t n, int32_t shift, int32_t *out)
{
    if (shift >= 33 && shift <= 62) {
        for (uint32_t left = n / 4u; left > 0; left--, v += 4, factor += 4, out += 4) {
            vst1q_s32(out, vrshlq_n_s32(vmulhq_s32(vld1q_s32(v), vld1q_s32(factor)), 32 - shift));
        }
        n %= 4u;
    } else if (shift >= 2 && shift <= 32) {
        uint32_t left = n / 4u;
        int32_t up = 33 - shift; /* by which v may be shifted first, if there is room */
        if (ehmn_mve_max_abs(v, n) < 1u << (31 - up)) {
            for (; left > 0; left--, v += 4, factor += 4, out += 4) {
                int32x4_t product = vmulhq_s32(vshlq_r_s32(vld1q_s32(v), up), vld1q_s32(factor));
                vst1q_s32(out, vrshrq_n_s32(product, 1));
            }
        }
        for (; left > 0; left--, v += 4, factor += 4, out += 4) {
            vst1q_s32(out, ehmn_mve_multiply_round(vld1q_s32(v), vld1q_s32(factor), shift));
        }
        n %= 4u;
    }
    if (n > 0) {
        ehmn_kernels_rows_scale(v, factor, n, shift, out);
    }
}

/* Sixteen weights at a time: the upper bytes of their places on the line, less those of the weights before, which are
 * the same bytes moved up by one. What that pushes out of a vector enters the next. */
static void step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n, uint32_t rate,
                     uint32_t at)
{
    uint32_t before = 0;
    __asm__ volatile("wls lr, %[sixteens], 2f\n"
                     "1:\n"
                     "vld40.32 {q0, q1, q2, q3}, [%[edge]]\n"
                     "vld41.32 {q0, q1, q2, q3}, [%[edge]]\n"
                     "vld42.32 {q0, q1, q2, q3}, [%[edge]]\n"
                     "vld43.32 {q0, q1, q2, q3}, [%[edge]]!\n"
                     "vmlas.u32 q3, %q[rates], %[at]\n"
                     "vmlas.u32 q2, %q[rates], %[at]\n"
                     "vmlas.u32 q1, %q[rates], %[at]\n"
                     "vmlas.u32 q0, %q[rates], %[at]\n"
                     "vsri.32 q3, q2, #8\n"
                     "vsri.32 q3, q1, #16\n"
                     "vsri.32 q3, q0, #24\n"
                     "vldrb.8 q1, [%[sign]], #16\n"
                     "vmov q0, q3\n"
                     "vshlc q0, %[before], #8\n"
                     "veor q1, q1, %q[turn]\n" /* -1 where weights move down */
                     "vsub.i8 q3, q3, q0\n"
                     "vldrb.8 q2, [%[w]]\n"
                     "veor q3, q3, q1\n" /* there d steps are -d - 1, and one is added after what saturates */
                     "vqadd.s8 q2, q2, q3\n"
                     "vsub.i8 q2, q2, q1\n"
                     "vstrb.8 q2, [%[w]], #16\n"
                     "le lr, 1b\n"
                     "2:\n"
                     : [w] "+&r"(w), [edge] "+&r"(edge), [sign] "+&r"(sign), [before] "+&r"(before)
                     : [sixteens] "r"(n / 16u), [at] "r"(at), [rates] "w"(vdupq_n_u32(rate)),
                       [turn] "w"(vdupq_n_s8((int8_t)flip))
                     : "lr", "q0", "q1", "q2", "q3", "memory");
    for (uint32_t j = 0; j < n % 16u; j++) {
        uint32_t now = (at + rate * edge[j]) >> 24;
        int32_t steps = (int32_t)((now - before) & 255u);
        w[j] = (int8_t)ehmn_clamp(w[j] + ((sign[j] ^ flip) < 0 ? -steps : steps), -127, 127);
        before = now;
    }
}

/* Eight at a time, their even and their odd ones. */
static uint32_t exp_sum(const int16_t *logits, uint32_t n, int32_t max)
{
    uint32_t sum = 0;
    for (uint32_t left = n / 8u; left > 0; left--, logits += 8) {
        uint32x4_t odd, even = ehmn_mve_exp2(vld1q_s16(logits), max, &odd);
        sum = vaddvaq_u32(vaddvaq_u32(sum, even), odd);
    }
    return n % 8u ? sum + ehmn_kernels_rows_exp_sum(logits, n % 8u, max) : sum;
}

static uint32_t soften(int32_t *scores, uint32_t n, int32_t max)
{
    const uint32x4_t low_byte = vdupq_n_u32(255), top = vdupq_n_u32((uint32_t)max), far = vdupq_n_u32(30u << 8);
    const uint32x4_t nine = vdupq_n_u32(9u << 8);
    uint32_t sum = 0;
    for (uint32_t left = n / 4u; left > 0; left--, scores += 4) {
        uint32x4_t below = vminq_u32(vsubq_u32(top, vreinterpretq_u32_s32(vld1q_s32(scores))), far);
        uint32x4_t y = vsubq_u32(nine, below);
        uint32x4_t at = vandq_u32(y, low_byte);
        uint32x4_t entry = vorrq_n_u32(vldrhq_gather_shifted_offset_u32(ehmn_exp2_table, at), 0x8000);
        uint32x4_t weight = vrshrq_n_u32(ehmn_mve_exp2_of(entry, vshrq_n_s32(vreinterpretq_s32_u32(y), 8)), 9);
        sum = vaddvaq_u32(sum, weight);
        vst1q_s32(scores, vreinterpretq_s32_u32(weight));
    }
    return n % 4u ? sum + ehmn_kernels_rows_soften(scores, n % 4u, max) : sum;
}

static int32_t max_abs(const int32_t *v, uint32_t fours)
{
    uint32_t max = 0;
    for (; fours > 0; fours--, v += 4) {
        max = vmaxavq_s32(max, vld1q_s32(v));
    }
    return max > INT32_MAX ? INT32_MAX : (int32_t)max;
}

/* As ehmn_kernels_rows_gate, where the largest inputs, shifted up by `up_v` and `up_up`, still fit: their products need
 * no saturation. */
static void gate_within(const int32_t *v, int32_t *up, uint32_t fours, int32_t frac, int32_t up_v, int32_t up_up)
{
    const uint32x4_t turn = vdupq_n_u32(65537);
    for (; fours > 0; fours--, v += 4, up += 4) {
        int32x4_t x = vld1q_s32(v);
        uint32x4_t y = ehmn_mve_sigmoid_of(vqshlq_r_u32(vreinterpretq_u32_s32(vqabsq_s32(x)), 16 - frac));
        uint32x4_t negative = vreinterpretq_u32_s32(vshrq_n_s32(x, 31));
        y = vaddq_u32(veorq_u32(y, negative), vandq_u32(negative, turn)); /* 65536 - y where x is negative */
        int32x4_t opened = vqrdmulhq_s32(x, vreinterpretq_s32_u32(vshlq_n_u32(y, 15))); /* round(x y / 2^16) */
        vst1q_s32(up, vqrdmulhq_s32(vshlq_r_s32(opened, up_v), vshlq_r_s32(vld1q_s32(up), up_up)));
    }
}

static void gate(const int32_t *v, int32_t *up, uint32_t n, int32_t frac)
{
    uint32_t fours = n / 4u;
    int32_t room_v = __builtin_clz((uint32_t)max_abs(v, fours) | 1u) - 1;
    int32_t room_up = __builtin_clz((uint32_t)max_abs(up, fours) | 1u) - 1;
    int32_t up_v = room_v < 31 - frac ? room_v : 31 - frac;
    if (31 - frac - up_v > room_up) {
        ehmn_kernels_rows_gate(v, up, n, frac);
        return;
    }
    gate_within(v, up, fours, frac, up_v, 31 - frac - up_v);
    if (n % 4u) {
        ehmn_kernels_rows_gate(v + 4u * fours, up + 4u * fours, n % 4u, frac);
    }
}

/* Eight at a time: even values go to the lower halves, odd ones to the upper. round(bias gain / 2^20) =
 * round(2^11 bias gain / 2^31). */
/* clang-format off */
#define FIT_EIGHTS(add_bias) \
    __asm__ volatile("wls lr, %[eights], 2f\n"             \
                     "1:\n"                                \
                     "vld20.32 {q0, q1}, [%[v]]\n"         \
                     "vld21.32 {q0, q1}, [%[v]]!\n"        \
                     add_bias                              \
                     "vqmovnb.s32 q0, q0\n"                \
                     "vqmovnt.s32 q0, q1\n"                \
                     "vmax.s16 q0, q0, %q[least]\n"        \
                     "vmax.s16 %q[most], %q[most], q0\n"   \
                     "vstrh.16 q0, [%[out]], #16\n"        \
                     "le lr, 1b\n"                         \
                     "2:\n"                                \
                     : [v] "+&r"(v), [bias] "+&r"(bias), [out] "+&r"(out), [most] "+&w"(most)  \
                     : [eights] "r"(n / 8u), [least] "w"(least), [gain] "r"(gain)              \
                     : "lr", "q0", "q1", "q2", "q3", "memory")
#define ADD_BIAS \
    "vldrh.16 q2, [%[bias]], #16\n"        \
    "vshllb.s16 q3, q2, #11\n"             \
    "vqrdmlah.s32 q0, q3, %[gain]\n"       \
    "vshllt.s16 q3, q2, #11\n"             \
    "vqrdmlah.s32 q1, q3, %[gain]\n"
/* clang-format on */

static int32_t fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max, int16_t *out)
{
    const int16x8_t least = vdupq_n_s16(-INT16_MAX);
    int16x8_t most = least;
    if (bias != NULL) {
        FIT_EIGHTS(ADD_BIAS);
    } else {
        FIT_EIGHTS("");
    }
    if (n >= 8u) {
        int32_t own = vmaxvq_s16(-INT16_MAX, most);
        max = own > max ? own : max;
    }
    return n % 8u ? ehmn_kernels_rows_fit(v, bias, gain, n % 8u, max, out) : max;
}

/* In how many bits the next keys of four words differ from a, b, c, d, four keys at a time, up to those among which one
 * differs in less than `limit`, 2^24 bits: their counts 2^24, and where keys end up. `fours`: how many, at least one.
 * The counts of sixteen bytes are taken from a table at once. */
static inline const uint32_t *count_fours(const uint32_t *keys, uint32_t fours, uint32x4_t a, uint32x4_t b,
                                          uint32x4_t c, uint32_t d, uint32_t limit, uint32x4_t *counts)
{
    uint32_t least = UINT32_MAX;
    uint32x4_t sum;
    __asm__ volatile("dls lr, %[fours]\n"
                     "1:\n"
                     "vld40.32 {q0, q1, q2, q3}, [%[keys]]\n" /* first words, second words, ... */
                     "vld41.32 {q0, q1, q2, q3}, [%[keys]]\n"
                     "vld42.32 {q0, q1, q2, q3}, [%[keys]]\n"
                     "vld43.32 {q0, q1, q2, q3}, [%[keys]]!\n"
                     "veor q0, q0, %q[a]\n"
                     "vldrb.u8 %q[sum], [%[table], q0]\n"
                     "veor q1, q1, %q[b]\n"
                     "vldrb.u8 q0, [%[table], q1]\n"
                     "vdup.32 q1, %[d]\n"
                     "vadd.i8 %q[sum], %q[sum], q0\n"
                     "veor q2, q2, %q[c]\n"
                     "vldrb.u8 q0, [%[table], q2]\n"
                     "veor q3, q3, q1\n"
                     "vadd.i8 %q[sum], %q[sum], q0\n"
                     "vldrb.u8 q0, [%[table], q3]\n"
                     "vadd.i8 %q[sum], %q[sum], q0\n"
                     "vmul.i32 %q[sum], %q[sum], %[ones]\n" /* the upper byte: the sum of all four */
                     "vminv.u32 %[least], %q[sum]\n"
                     "cmp %[least], %[limit]\n"
                     "blo 2f\n"
                     "le lr, 1b\n"
                     "2:\n"
                     : [keys] "+&r"(keys), [least] "+&r"(least), [sum] "=&w"(sum)
                     : [fours] "r"(fours), [a] "w"(a), [b] "w"(b), [c] "w"(c), [d] "r"(d),
                       [table] "r"(ehmn_mve_bit_counts), [ones] "r"(0x01010101), [limit] "r"(limit)
                     : "lr", "q0", "q1", "q2", "q3", "cc", "memory");
    *counts = sum;
    return keys;
}

/* Sixteen numbers in order, with `item` among them unless all are smaller; the last falls out. What is not smaller
 * moves up by one: vshlc brings in the one before, and what comes out goes into the next four. */
#define INSERT_INTO(four)                 \
    "vldrw.u32 q0, " four "\n"            \
    "vmin.u32 q1, q0, q2\n"               \
    "vshlc q0, %[before], #32\n"          \
    "vmax.u32 q0, q0, q1\n"               \
    "vstrw.32 q0, " four "\n"
static inline void insert(uint32_t *found, uint32_t item)
{
    uint32_t before = 0;
    __asm__ volatile("vdup.32 q2, %[item]\n" INSERT_INTO("[%[found]]") INSERT_INTO("[%[found], #16]")
                         INSERT_INTO("[%[found], #32]") INSERT_INTO("[%[found], #48]")
                     : [before] "+&r"(before)
                     : [found] "r"(found), [item] "r"(item)
                     : "q0", "q1", "q2", "memory");
}

_Static_assert(EHMN_RECALLED == 16u, "insert counts on it");

/* Of keys of four words, the first whole fours; returns how many keys. */
EHMN_SMALL static uint32_t nearest_fours(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t *found)
{
    const uint32x4_t a = vdupq_n_u32(key[0]), b = vdupq_n_u32(key[1]), c = vdupq_n_u32(key[2]);
    uint32_t d = key[3], i = 0, limit = 255u << 24;
    n /= 4u;
    while (i < n) {
        uint32_t count[4];
        uint32x4_t counts;
        const uint32_t *next = count_fours(keys + 16u * i, n - i, a, b, c, d, limit, &counts);
        i = (uint32_t)((const char *)next - (const char *)keys) / 64u;
        uint32_t near = 0xFFFFu ^ (uint32_t)vcmpcsq_n_u32(counts, limit); /* four bits of each */
        vst1q_u32(count, counts);
        while (near != 0) {
            uint32_t at = (uint32_t)__builtin_ctz(near);
            insert(found, count[at / 4u] >> 24 << 16 | (4u * i - 4u + at / 4u));
            near &= 0u - (16u << at);
        }
        limit = found[EHMN_RECALLED - 1u] >> 16 << 24; /* of a distance up to 128, or of UINT32_MAX */
    }
    return 4u * n;
}

EHMN_SMALL static void nearest(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words, uint32_t *found)
{
    for (uint32_t i = words == 4u ? nearest_fours(keys, n, key, found) : 0; i < n; i++) {
        uint32_t sum = 0;
        const uint32_t *from = keys + i * words;
        for (uint32_t w = 0; w < words; w += 4u) {
            mve_pred16_t some = vctp32q(words - w);
            uint32x4_t differ = veorq_u32(vld1q_z_u32(from + w, some), vld1q_z_u32(key + w, some));
            sum = vaddvaq_u8(sum, vldrbq_gather_offset_u8(ehmn_mve_bit_counts, vreinterpretq_u8_u32(differ)));
        }
        if (sum < found[EHMN_RECALLED - 1u] >> 16) {
            ehmn_insert(found, sum << 16 | i);
        }
    }
}

const ehmn_kernels ehmn_kernels_mve = {
    .name = "mve",
    .matvec_s8 = ehmn_kernels_mve_matvec_s8,
    .matvec_s16 = ehmn_kernels_mve_matvec_s16,
    .matvec_s4 = ehmn_kernels_mve_matvec_s4,
    .scale = scale,
    .step_row = step_row,
    .few_steps = 2u,
    .exp_sum = exp_sum,
    .soften = soften,
    .gate = gate,
    .fit = fit,
    .nearest = nearest,
};

#endif
