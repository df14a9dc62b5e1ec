/* Cortex-M with vectors of 128 bits (Helium, MVE: M55, M85). One instruction multiplies sixteen pairs of bytes and adds
 * all products to a register. Inputs of 16 bits are taken apart: x = 256 high + low, both of them bytes, so a row costs
 * one load and two products for sixteen columns. */
#include "fixed.h"
#include "kernels_tables.h"

#include <stddef.h>

#if defined(EHMN_MVE)

#define MOST_COLS 352u /* inputs that are taken apart on the stack */
/* One copy, with a stack of its own. */
#if defined(__clang__)
#define APART __attribute__((noinline))
#else
#define APART __attribute__((noipa))
#endif
#define MOST_SPLIT 32639 /* the largest number whose high part is a byte when the low one is -128..127 */

/* What multiply_rows works on. The order of the fields is known to its code. */
typedef struct {
    const int8_t *w;
    uint32_t stride;
    const int8_t *x;       /* for each sixteen columns the low parts, then the high ones; zero beyond the columns */
    const int8_t *x_fours; /* x after as many times 64 columns as there are */
    const int8_t *x_end;   /* x after as many times 16 columns as there are */
    uint32_t rest;         /* columns after these */
    int32_t *acc;
    uint32_t fours;        /* of rows, at least one */
} split_job;

/* clang-format off */
#define SIXTEEN_COLUMNS \
    "vldrb.8 q0, [r9], #16\n"      \
    "vldrb.8 q1, [r9], #16\n"      \
    "vldrb.8 q2, [r1], #16\n"      \
    "vldrb.8 q3, [r3], #16\n"      \
    "vmladava.s8 r0, q2, q0\n"     \
    "vmladava.s8 r2, q2, q1\n"     \
    "vldrb.8 q2, [r5], #16\n"      \
    "vmladava.s8 r4, q3, q0\n"     \
    "vmladava.s8 r6, q3, q1\n"     \
    "vldrb.8 q3, [r7], #16\n"      \
    "vmladava.s8 r8, q2, q0\n"     \
    "vmladava.s8 r10, q2, q1\n"    \
    "vmladava.s8 r12, q3, q0\n"    \
    "vmladava.s8 lr, q3, q1\n"

/* Four rows at a time, r1, r3, r5 and r7; of each a sum of the products of the low and one of the high parts. */
__attribute__((naked, noinline)) static void multiply_rows(split_job *job __attribute__((unused)))
{
    __asm__ volatile(
        "push {r0, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n"
        "ldr r1, [r0, #20]\n"
        "vctp.8 r1\n" /* for the columns that no sixteen cover */
        "1:\n"
        "ldr r11, [sp]\n"
        "ldrd r1, r9, [r11]\n"
        "add r3, r1, r9\n"
        "add r5, r3, r9\n"
        "add r7, r5, r9\n"
        "mov r0, #0\n"
        "mov r2, #0\n"
        "mov r4, #0\n"
        "mov r6, #0\n"
        "mov r8, #0\n"
        "mov r10, #0\n"
        "mov r12, #0\n"
        "mov lr, #0\n"
        "ldrd r9, r11, [r11, #8]\n"
        "cmp r9, r11\n"
        "beq 3f\n"
        "2:\n"
        SIXTEEN_COLUMNS SIXTEEN_COLUMNS SIXTEEN_COLUMNS SIXTEEN_COLUMNS
        "cmp r9, r11\n"
        "bne 2b\n"
        "3:\n"
        "ldr r11, [sp]\n"
        "ldr r11, [r11, #16]\n"
        "4:\n"
        "cmp r9, r11\n"
        "beq 5f\n"
        SIXTEEN_COLUMNS
        "b 4b\n"
        "5:\n"
        "ldr r11, [sp]\n"
        "ldr r11, [r11, #20]\n"
        "cmp r11, #0\n"
        "beq 6f\n"
        "vldrb.8 q0, [r9], #16\n"
        "vldrb.8 q1, [r9], #16\n"
        "vpstt\n"
        "vldrbt.8 q2, [r1]\n"
        "vldrbt.8 q3, [r3]\n"
        "vmladava.s8 r0, q2, q0\n"
        "vmladava.s8 r2, q2, q1\n"
        "vmladava.s8 r4, q3, q0\n"
        "vmladava.s8 r6, q3, q1\n"
        "vpstt\n"
        "vldrbt.8 q2, [r5]\n"
        "vldrbt.8 q3, [r7]\n"
        "vmladava.s8 r8, q2, q0\n"
        "vmladava.s8 r10, q2, q1\n"
        "vmladava.s8 r12, q3, q0\n"
        "vmladava.s8 lr, q3, q1\n"
        "6:\n"
        "ldr r11, [sp]\n"
        "add r0, r0, r2, lsl #8\n"
        "add r4, r4, r6, lsl #8\n"
        "add r8, r8, r10, lsl #8\n"
        "add r12, r12, lr, lsl #8\n"
        "ldrd r2, r6, [r11, #24]\n"
        "stmia r2!, {r0, r4, r8, r12}\n"
        "subs r6, r6, #1\n"
        "strd r2, r6, [r11, #24]\n"
        "ldrd r0, r4, [r11]\n"
        "add r0, r0, r4, lsl #2\n"
        "str r0, [r11]\n"
        "bne 1b\n"
        "pop {r0, r4, r5, r6, r7, r8, r9, r10, r11, pc}\n");
}

#define ROW_OF_128(row, at, low, high, mla, sum_low, sum_high) \
    "vldrw.u32 q2, [r1, #" #row " + " #at "]\n" \
    mla ".s8 " sum_low ", q2, " low "\n"        \
    mla ".s8 " sum_high ", q2, " high "\n"
#define COLUMNS_OF_128(at, low, high, mla) \
    ROW_OF_128(0, at, low, high, mla, "r0", "r2")     \
    ROW_OF_128(128, at, low, high, mla, "r4", "r6")   \
    ROW_OF_128(256, at, low, high, mla, "r8", "r10")  \
    ROW_OF_128(384, at, low, high, mla, "r12", "lr")
#define LOADED_COLUMNS_OF_128(at) \
    "vldrw.u32 q0, [r3, #2 * " #at "]\n"        \
    "vldrw.u32 q1, [r3, #2 * " #at " + 16]\n"   \
    COLUMNS_OF_128(at, "q0", "q1", "vmladava")

/* The same of rows of 128 bytes, one after the other, word-aligned: the first 32 columns' inputs stay in registers. */
__attribute__((naked, noinline)) static void multiply_rows_of_128(const int8_t *w __attribute__((unused)),
                                                                  const int8_t *x __attribute__((unused)),
                                                                  int32_t *acc __attribute__((unused)),
                                                                  int32_t *acc_end __attribute__((unused)))
{
    __asm__ volatile(
        "push {r4, r5, r6, r7, r8, r9, r10, lr}\n"
        "vpush {d8, d9, d10, d11, d12, d13, d14, d15}\n"
        "mov r7, r3\n"
        "mov r5, r2\n"
        "mov r3, r1\n"
        "mov r1, r0\n"
        "vldrw.u32 q4, [r3]\n"
        "vldrw.u32 q5, [r3, #16]\n"
        "vldrw.u32 q6, [r3, #32]\n"
        "vldrw.u32 q7, [r3, #48]\n"
        "1:\n"
        COLUMNS_OF_128(0, "q4", "q5", "vmladav")
        COLUMNS_OF_128(16, "q6", "q7", "vmladava")
        LOADED_COLUMNS_OF_128(32)
        LOADED_COLUMNS_OF_128(48)
        LOADED_COLUMNS_OF_128(64)
        LOADED_COLUMNS_OF_128(80)
        LOADED_COLUMNS_OF_128(96)
        LOADED_COLUMNS_OF_128(112)
        "add r0, r0, r2, lsl #8\n"
        "add r4, r4, r6, lsl #8\n"
        "add r8, r8, r10, lsl #8\n"
        "add r12, r12, lr, lsl #8\n"
        "add r1, r1, #512\n"
        "stmia r5!, {r0, r4, r8, r12}\n"
        "cmp r5, r7\n"
        "bne 1b\n"
        "vpop {d8, d9, d10, d11, d12, d13, d14, d15}\n"
        "pop {r4, r5, r6, r7, r8, r9, r10, pc}\n");
}
/* clang-format on */

/* Take inputs apart, for each sixteen the low parts, then the high ones, the last sixteen filled up with zeros. Returns
 * 0 if a high part is no byte. */
APART static int split(const int16_t *x, uint32_t cols, int8_t *out)
{
    int8x16_t bad = vdupq_n_s8(0);
    for (uint32_t left = cols / 16u; left > 0; left--, x += 16, out += 32) {
        int8x16x2_t bytes = vld2q_s8((const int8_t *)x);
        int8x16_t high = vsubq_s8(bytes.val[1], vshrq_n_s8(bytes.val[0], 7));
        bad = vorrq_s8(bad, vbicq_s8(high, bytes.val[1])); /* its sign, where 127 became -128 */
        vst1q_s8(out, bytes.val[0]);
        vst1q_s8(out + 16, high);
    }
    int16_t most = vminvq_s8(0, bad) < 0 ? INT16_MAX : 0;
    for (uint32_t done = 0, rest = cols % 16u; rest > 0 && done < 16u; done += 8u) {
        mve_pred16_t there = vctp16q(rest > done ? rest - done : 0u);
        int16x8_t v = vldrhq_z_s16(x + done, there);
        most = vmaxvq_s16(most, v);
        vstrbq_s16(out + done, v);
        vstrbq_s16(out + 16u + done, vrshrq_n_s16(v, 8));
    }
    return most <= MOST_SPLIT;
}

/* Inputs of 16 bits as they are, eight columns at a time: four rows of them, the last ones once more where fewer are
 * left. */
APART static void multiply_whole(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 int32_t *acc)
{
    mve_pred16_t there = vctp16q(cols % 8u);
    for (uint32_t r = 0; r < rows; r += 4u) {
        uint32_t last = rows - 1u - r;
        const int8_t *a = w + r * stride, *b = a + (last < 1u ? last : 1u) * stride;
        const int8_t *c = a + (last < 2u ? last : 2u) * stride, *d = a + (last < 3u ? last : 3u) * stride;
        const int16_t *in = x;
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (uint32_t left = cols / 8u; left > 0; left--, in += 8, a += 8, b += 8, c += 8, d += 8) {
            int16x8_t v = vld1q_s16(in);
            s0 = vmladavaq_s16(s0, vldrbq_s16(a), v);
            s1 = vmladavaq_s16(s1, vldrbq_s16(b), v);
            s2 = vmladavaq_s16(s2, vldrbq_s16(c), v);
            s3 = vmladavaq_s16(s3, vldrbq_s16(d), v);
        }
        if (cols % 8u) {
            int16x8_t v = vldrhq_z_s16(in, there);
            s0 = vmladavaq_s16(s0, vldrbq_z_s16(a, there), v);
            s1 = vmladavaq_s16(s1, vldrbq_z_s16(b, there), v);
            s2 = vmladavaq_s16(s2, vldrbq_z_s16(c, there), v);
            s3 = vmladavaq_s16(s3, vldrbq_z_s16(d, there), v);
        }
        int32_t sums[4] = {s0, s1, s2, s3};
        for (uint32_t k = 0; k <= last && k < 4u; k++) {
            acc[r + k] = sums[k];
        }
    }
}

/* clang-format off */
#define ROW_OF_32(sum) \
    "vldrb.8 q0, [%[w]]\n"              \
    "vldrb.8 q1, [%[w], #16]\n"         \
    "vmladav.s8 r0, q0, %q[low0]\n"     \
    "vmladav.s8 r2, q0, %q[high0]\n"    \
    "vmladava.s8 r0, q1, %q[low1]\n"    \
    "add %[w], %[w], %[stride]\n"       \
    "vmladava.s8 r2, q1, %q[high1]\n"   \
    "add " sum ", r0, r2, lsl #8\n"
/* clang-format on */

/* Keys of 32 columns: their inputs stay in registers. */
static void multiply_rows_of_32(const int8_t *w, uint32_t rows, uint32_t stride, const int8_t *x, int32_t *acc)
{
    uint32_t fours = rows / 4u, rest = rows % 4u;
    __asm__ volatile("wls lr, %[fours], 2f\n"
                     "1:\n" ROW_OF_32("r3") ROW_OF_32("r4") ROW_OF_32("r5") ROW_OF_32("r6")
                     "stmia %[acc]!, {r3, r4, r5, r6}\n"
                     "le lr, 1b\n"
                     "2:\n"
                     "wls lr, %[rest], 4f\n"
                     "3:\n" ROW_OF_32("r3")
                     "str r3, [%[acc]], #4\n"
                     "le lr, 3b\n"
                     "4:\n"
                     : [w] "+&r"(w), [acc] "+&r"(acc)
                     : [stride] "r"(stride), [fours] "r"(fours), [rest] "r"(rest), [low0] "w"(vld1q_s8(x)),
                       [high0] "w"(vld1q_s8(x + 16)), [low1] "w"(vld1q_s8(x + 32)), [high1] "w"(vld1q_s8(x + 48))
                     : "r0", "r2", "r3", "r4", "r5", "r6", "lr", "q0", "q1", "memory");
}

/* These return 0, having done nothing, if an input cannot be taken apart. */
APART static int multiply_32(const int8_t *w, uint32_t rows, uint32_t stride, const int16_t *x, int32_t *acc)
{
    int8_t apart[64] __attribute__((aligned(4)));
    if (!split(x, 32u, apart)) {
        return 0;
    }
    multiply_rows_of_32(w, rows, stride, apart, acc);
    return 1;
}

APART static int multiply_128(const int8_t *w, uint32_t rows, const int16_t *x, int32_t *acc)
{
    int8_t apart[256] __attribute__((aligned(4)));
    if (!split(x, 128u, apart)) {
        return 0;
    }
    multiply_rows_of_128(w, apart, acc, acc + (rows & ~3u));
    if (rows % 4u != 0) { /* the last four may have been among those before */
        multiply_rows_of_128(w + (rows - 4u) * 128u, apart, acc + rows - 4u, acc + rows);
    }
    return 1;
}

APART static int multiply_any(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                              int32_t *acc)
{
    int8_t apart[2u * MOST_COLS] __attribute__((aligned(4)));
    const int8_t *x_end = apart + 2u * (cols & ~15u);
    if (!split(x, cols, apart)) {
        return 0;
    }
    split_job job = {w, stride, apart, apart + 2u * (cols & ~63u), x_end, cols & 15u, acc, rows / 4u};
    multiply_rows(&job);
    if (rows % 4u != 0) {
        job.w = w + (rows - 4u) * stride;
        job.acc = acc + rows - 4u;
        job.fours = 1;
        multiply_rows(&job);
    }
    return 1;
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    int done = 0;
    if (rows >= 4u && cols == 32u) {
        done = multiply_32(w, rows, stride, x, acc);
    } else if (cols == 128u && stride == 128u && ((uintptr_t)w & 3u) == 0 && rows >= 4u) {
        done = multiply_128(w, rows, x, acc);
    } else if (rows >= 4u && cols <= MOST_COLS) {
        done = multiply_any(w, rows, cols, stride, x, acc);
    }
    if (!done) {
        multiply_whole(w, rows, cols, stride, x, acc);
    }
}

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    uint32_t whole = cols & ~15u;
    mve_pred16_t there = vctp8q(cols - whole);
    uint32_t r = 0;
    for (; r + 4u <= rows; r += 4u, w += 4u * stride) {
        const int8_t *a = w, *b = a + stride, *c = b + stride, *d = c + stride;
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (uint32_t i = 0; i < whole; i += 16u) {
            int8x16_t v = vld1q_s8(x + i);
            s0 = vmladavaq_s8(s0, vld1q_s8(a + i), v);
            s1 = vmladavaq_s8(s1, vld1q_s8(b + i), v);
            s2 = vmladavaq_s8(s2, vld1q_s8(c + i), v);
            s3 = vmladavaq_s8(s3, vld1q_s8(d + i), v);
        }
        if (whole < cols) {
            int8x16_t v = vldrbq_z_s8(x + whole, there);
            s0 = vmladavaq_s8(s0, vldrbq_z_s8(a + whole, there), v);
            s1 = vmladavaq_s8(s1, vldrbq_z_s8(b + whole, there), v);
            s2 = vmladavaq_s8(s2, vldrbq_z_s8(c + whole, there), v);
            s3 = vmladavaq_s8(s3, vldrbq_z_s8(d + whole, there), v);
        }
        acc[r] = s0;
        acc[r + 1u] = s1;
        acc[r + 2u] = s2;
        acc[r + 3u] = s3;
    }
    for (; r < rows; r++, w += stride) {
        int32_t sum = 0;
        for (uint32_t i = 0; i < cols; i += 16u) {
            mve_pred16_t of = vctp8q(cols - i);
            sum = vmladavaq_s8(sum, vldrbq_z_s8(w + i, of), vldrbq_z_s8(x + i, of));
        }
        acc[r] = sum;
    }
}

/* Eight bytes, that is sixteen weights, at a time: even columns are the low halves, odd ones the high halves. */
static void matvec_s4(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                      int32_t *acc)
{
    uint32_t whole = cols & ~15u;
    for (uint32_t r = 0; r < rows; r++, w += stride) {
        int32_t sum = 0;
        for (uint32_t c = 0; c < whole; c += 16u) {
            int16x8_t two = vreinterpretq_s16_u16(vldrbq_u16(w + c / 2u));
            int16x8x2_t v = vld2q_s16(x + c);
            sum = vmladavaq_s16(sum, vshrq_n_s16(vshlq_n_s16(two, 12), 12), v.val[0]);
            sum = vmladavaq_s16(sum, vshrq_n_s16(vshlq_n_s16(two, 8), 12), v.val[1]);
        }
        for (uint32_t c = whole; c < cols; c++) {
            int32_t half = w[c / 2u] >> 4u * (c % 2u) & 15;
            sum += (half < 8 ? half : half - 16) * x[c];
        }
        acc[r] = sum;
    }
}

/* clang-format off */
#define ROW_OF_SUM(factor) \
    "vldrb.s32 q4, [%[w]]\n"                       \
    "vldrb.s32 q5, [%[w], #4]\n"                   \
    "vmla.s32 q0, q4, " factor "\n"                \
    "vldrb.s32 q4, [%[w], #8]\n"                   \
    "vmla.s32 q1, q5, " factor "\n"                \
    "vldrb.s32 q5, [%[w], #12]\n"                  \
    "vmla.s32 q2, q4, " factor "\n"                \
    "vmla.s32 q3, q5, " factor "\n"
#define NEXT_ROW "add %[w], %[w], %[stride]\n"
/* clang-format on */

/* Sixteen columns of rows at w and w + stride and so on, four rows at a time. */
static void sum_sixteen(const int8_t *w, uint32_t rows, uint32_t stride, const int32_t *weight, int32_t *acc)
{
    uint32_t fours = rows / 4u, rest = rows % 4u;
    __asm__ volatile("vmov.i32 q0, #0\n"
                     "vmov.i32 q1, #0\n"
                     "vmov.i32 q2, #0\n"
                     "vmov.i32 q3, #0\n"
                     "wls lr, %[fours], 2f\n"
                     "1:\n"
                     "ldmia %[weight]!, {r4, r5, r6, r8}\n"
                     ROW_OF_SUM("r4") NEXT_ROW
                     ROW_OF_SUM("r5") NEXT_ROW
                     ROW_OF_SUM("r6") NEXT_ROW
                     ROW_OF_SUM("r8") NEXT_ROW
                     "le lr, 1b\n"
                     "2:\n"
                     "wls lr, %[rest], 4f\n"
                     "3:\n"
                     "ldr r4, [%[weight]], #4\n"
                     ROW_OF_SUM("r4") NEXT_ROW
                     "le lr, 3b\n"
                     "4:\n"
                     "vstrw.32 q0, [%[acc]]\n"
                     "vstrw.32 q1, [%[acc], #16]\n"
                     "vstrw.32 q2, [%[acc], #32]\n"
                     "vstrw.32 q3, [%[acc], #48]\n"
                     : [w] "+&l"(w), [weight] "+&r"(weight)
                     : [stride] "r"(stride), [acc] "r"(acc), [fours] "r"(fours), [rest] "r"(rest)
                     : "r4", "r5", "r6", "r8", "lr", "q0", "q1", "q2", "q3", "q4", "q5", "memory");
}

static void weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc)
{
    uint32_t c = 0;
    for (; c + 16u <= cols; c += 16u) {
        sum_sixteen(w + c, rows, stride, weight, acc + c);
    }
    for (; c < cols; c += 4u) {
        mve_pred16_t there = vctp32q(cols - c);
        int32x4_t sum = vdupq_n_s32(0);
        const int8_t *at = w + c;
        for (uint32_t r = 0; r < rows; r++, at += stride) {
            sum = vmlaq_n_s32(sum, vldrbq_z_s32(at, there), weight[r]);
        }
        vstrwq_p_s32(acc + c, sum, there);
    }
}

/* Shifts above 32 need the upper halves of the products alone; see ehmn_kernels_rows_scale. */
static void scale(const int32_t *v, const int32_t *factor, uint32_t n, int32_t shift, int32_t *out)
{
    if (shift >= 33 && shift <= 62) {
        for (uint32_t left = n / 4u; left > 0; left--, v += 4, factor += 4, out += 4) {
            vst1q_s32(out, vrshlq_n_s32(vmulhq_s32(vld1q_s32(v), vld1q_s32(factor)), 32 - shift));
        }
        n %= 4u;
    } else if (shift >= 2 && shift <= 32) {
        for (uint32_t left = n / 4u; left > 0; left--, v += 4, factor += 4, out += 4) {
            vst1q_s32(out, ehmn_mve_multiply_round(vld1q_s32(v), vld1q_s32(factor), shift));
        }
        n %= 4u;
    }
    if (n > 0) {
        ehmn_kernels_rows_scale(v, factor, n, shift, out);
    }
}

/* Sixteen weights at a time: the upper bytes of their places on the line, less those of the weights before. */
static void step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n, uint32_t rate,
                     uint32_t at)
{
    const uint32x4_t rates = vdupq_n_u32(rate);
    const int8x16_t least = vdupq_n_s8(-127), turn = vdupq_n_s8((int8_t)flip);
    uint32_t before = 0;
    uint32_t j = 0;
    for (; j + 16u <= n; j += 16u) {
        uint32x4x4_t e = vld4q_u32(edge + j);
        uint32x4_t now = vmlasq_n_u32(e.val[3], rates, at);
        now = vsriq_n_u32(now, vmlasq_n_u32(e.val[2], rates, at), 8);
        now = vsriq_n_u32(now, vmlasq_n_u32(e.val[1], rates, at), 16);
        now = vsriq_n_u32(now, vmlasq_n_u32(e.val[0], rates, at), 24);
        int8x16_t last = vreinterpretq_s8_u32(vshlcq_u32(now, &before, 8)); /* what it pushes out enters the next */
        int8x16_t down = veorq_s8(vld1q_s8(sign + j), turn);
        int8x16_t steps = veorq_s8(vsubq_s8(vreinterpretq_s8_u32(now), last), down);
        int8x16_t moved = vqaddq_s8(vld1q_s8(w + j), vsubq_s8(steps, down));
        vst1q_s8(w + j, vmaxq_s8(moved, least));
    }
    for (; j < n; j++) {
        uint32_t now = (at + rate * edge[j]) >> 24;
        int32_t steps = (int32_t)((now - before) & 255u);
        w[j] = (int8_t)ehmn_clamp(w[j] + ((sign[j] ^ flip) < 0 ? -steps : steps), -127, 127);
        before = now;
    }
}

/* 2^(y / 256) as Q24 for y <= 0: 2^15 and the table's entry for the low byte of y, shifted by the rest. */
static inline uint32x4_t exp2_of(uint32x4_t entry, int32x4_t rest)
{
    return vrshlq_u32(entry, rest); /* to the left, or to the right with rounding: ehmn_exp2_neg rounds in two parts */
}

/* Eight at a time, their even and their odd ones. Differences saturate: what they stand for is zero. */
static uint32_t exp_sum(const int16_t *logits, uint32_t n, int32_t max, uint64_t *spread)
{
    const uint16x8_t low_byte = vdupq_n_u16(255);
    uint32_t sum = 0;
    int64_t weighted = 0;
    for (uint32_t left = n / 8u; left > 0; left--, logits += 8) {
        int16x8_t y = vqsubq_n_s16(vld1q_s16(logits), (int16_t)max);
        uint16x8_t at = vandq_u16(vreinterpretq_u16_s16(y), low_byte);
        uint16x8_t entry = vorrq_n_u16(vldrhq_gather_shifted_offset_u16(ehmn_exp2_table, at), 0x8000);
        int16x8_t rest = vaddq_n_s16(vshrq_n_s16(y, 8), 9);
        uint32x4_t even = exp2_of(vmovlbq_u16(entry), vmovlbq_s16(rest));
        uint32x4_t odd = exp2_of(vmovltq_u16(entry), vmovltq_s16(rest));
        sum = vaddvaq_u32(vaddvaq_u32(sum, even), odd);
        weighted = vmlaldavaq_s32(weighted, vreinterpretq_s32_u32(even), vmovlbq_s16(y));
        weighted = vmlaldavaq_s32(weighted, vreinterpretq_s32_u32(odd), vmovltq_s16(y));
    }
    *spread -= (uint64_t)weighted;
    return n % 8u ? sum + ehmn_kernels_rows_exp_sum(logits, n % 8u, max, spread) : sum;
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
        uint32x4_t weight = vrshrq_n_u32(exp2_of(entry, vshrq_n_s32(vreinterpretq_s32_u32(y), 8)), 9);
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
    const uint32x4_t most = vdupq_n_u32((16u << 16) - 1u), low_bits = vdupq_n_u32(2047), turn = vdupq_n_u32(65537);
    const uint16_t *table = ehmn_sigmoid_table, *next = ehmn_sigmoid_table + 1;
    __asm__("" : "+r"(table), "+r"(next)); /* both stay in registers */
    for (; fours > 0; fours--, v += 4, up += 4) {
        int32x4_t x = vld1q_s32(v);
        uint32x4_t a = vqshlq_r_u32(vreinterpretq_u32_s32(vqabsq_s32(x)), 16 - frac);
        a = vminq_u32(a, most);
        uint32x4_t i = vshrq_n_u32(a, 11);
        uint32x4_t low = vldrhq_gather_shifted_offset_u32(table, i);
        uint32x4_t step = vsubq_u32(vldrhq_gather_shifted_offset_u32(next, i), low);
        uint32x4_t y = vaddq_u32(low, vrshrq_n_u32(vmulq_u32(step, vandq_u32(a, low_bits)), 11));
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

/* Eight at a time: even values go to the lower halves, odd ones to the upper. */
static int32_t fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max, int16_t *out)
{
    const int16x8_t least = vdupq_n_s16(-INT16_MAX);
    int16_t most = ehmn_sat16(max); /* smaller than all, or one of them */
    uint32_t eights = n / 8u;
    for (uint32_t left = eights; left > 0; left--, v += 8, out += 8) {
        int32x4x2_t two = vld2q_s32(v);
        if (bias != NULL) { /* round(bias gain / 2^20) = round(2^11 bias gain / 2^31) */
            int16x8_t b = vld1q_s16(bias);
            two.val[0] = vqaddq_s32(two.val[0], vqrdmulhq_n_s32(vshllbq_n_s16(b, 11), gain));
            two.val[1] = vqaddq_s32(two.val[1], vqrdmulhq_n_s32(vshlltq_n_s16(b, 11), gain));
            bias += 8;
        }
        int16x8_t fitted = vqmovntq_s32(vqmovnbq_s32(least, two.val[0]), two.val[1]);
        fitted = vmaxq_s16(fitted, least);
        most = vmaxvq_s16(most, fitted);
        vst1q_s16(out, fitted);
    }
    max = most > max ? most : max;
    return n % 8u ? ehmn_kernels_rows_fit(v, bias, gain, n % 8u, max, out) : max;
}

const ehmn_kernels ehmn_kernels_mve = {
    .name = "mve",
    .matvec_s8 = matvec_s8,
    .matvec_s16 = matvec_s16,
    .matvec_s4 = matvec_s4,
    .weighted_sum = weighted_sum,
    .scale = scale,
    .step_row = step_row,
    .exp_sum = exp_sum,
    .soften = soften,
    .gate = gate,
    .fit = fit,
};

#endif
