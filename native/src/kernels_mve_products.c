/* Products of matrices and vectors for Cortex-M with Helium (kernels_mve.c). One instruction multiplies 16 pairs of
 * bytes and adds all products to a register. Inputs of 16 bits are taken apart: x = 256 high + low, both of them
 * bytes, so a row costs one load and two products for sixteen columns. */
#include "fixed.h"
#include "kernels_tables.h"

#if defined(EHMN_MVE)

#define MOST_COLS 352u   /* inputs that are taken apart on the stack */
#define MOST_SPLIT 32639 /* the largest number whose high part is a byte when the low one is -128..127 */

/* One copy of a function, with a stack of its own. */
#if defined(__clang__)
#define APART __attribute__((noinline))
#else
#define APART __attribute__((noipa))
#endif

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
EHMN_SMALL APART static void multiply_whole(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride,
                                            const int16_t *x, int32_t *acc)
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
#define NEXT_ROW "add %[w], %[w], %[more]\n"
#define ROW_OF_32(sum, add_stride) \
    "vldrb.8 q0, [%[w]], #16\n"         \
    "vldrb.8 q1, [%[w]], #112\n"        \
    "vmladav.s8 r0, q0, %q[low0]\n"     \
    "vmladav.s8 r2, q0, %q[high0]\n"    \
    "vmladava.s8 r0, q1, %q[low1]\n"    \
    add_stride                          \
    "vmladava.s8 r2, q1, %q[high1]\n"   \
    "add " sum ", r0, r2, lsl #8\n"
#define FOUR_ROWS_OF_32(add_stride) \
    ROW_OF_32("r3", add_stride) ROW_OF_32("r4", add_stride) ROW_OF_32("r5", add_stride) ROW_OF_32("r6", add_stride) \
    "stmia %[acc]!, {r3, r4, r5, r6}\n"
/* clang-format on */

/* Keys of 32 columns: their inputs stay in registers. One row's loads move w by 128. */
static void multiply_rows_of_32(const int8_t *w, uint32_t rows, uint32_t stride, const int8_t *x, int32_t *acc)
{
    uint32_t fours_of_128 = stride == 128u ? rows / 4u : 0u, fours = rows / 4u - fours_of_128, rest = rows % 4u;
    __asm__ volatile("wls lr, %[fours], 2f\n"
                     "1:\n" FOUR_ROWS_OF_32(NEXT_ROW)
                     "le lr, 1b\n"
                     "2:\n"
                     "wls lr, %[fours_of_128], 5f\n"
                     "6:\n" FOUR_ROWS_OF_32("")
                     "le lr, 6b\n"
                     "5:\n"
                     "wls lr, %[rest], 4f\n"
                     "3:\n" ROW_OF_32("r3", NEXT_ROW)
                     "str r3, [%[acc]], #4\n"
                     "le lr, 3b\n"
                     "4:\n"
                     : [w] "+&r"(w), [acc] "+&r"(acc)
                     : [more] "r"(stride - 128u), [fours] "r"(fours), [rest] "r"(rest),
                       [fours_of_128] "r"(fours_of_128), [low0] "w"(vld1q_s8(x)), [high0] "w"(vld1q_s8(x + 16)),
                       [low1] "w"(vld1q_s8(x + 32)), [high1] "w"(vld1q_s8(x + 48))
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

void ehmn_kernels_mve_matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
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

/* clang-format off */
#define SIXTEEN_BYTES \
    "vldrb.8 %q[v], [%[x]], #16\n"      \
    "vldrb.8 %q[p], [%[a]], #16\n"      \
    "vldrb.8 %q[q], [%[b]], #16\n"      \
    "vmladava.s8 %[s0], %q[p], %q[v]\n"    \
    "vldrb.8 %q[p], [%[c]], #16\n"      \
    "vmladava.s8 %[s1], %q[q], %q[v]\n"    \
    "vldrb.8 %q[q], [%[d]], #16\n"      \
    "vmladava.s8 %[s2], %q[p], %q[v]\n"    \
    "vmladava.s8 %[s3], %q[q], %q[v]\n"
/* clang-format on */

/* clang-format off */
#define BYTES_OF_128(row, at, x, mla, sum) \
    "vldrw.u32 q2, [r0, #" #row " + " #at "]\n" \
    mla ".s8 " sum ", q2, " x "\n"
#define COLUMN_BYTES_OF_128(at, x, mla) \
    BYTES_OF_128(0, at, x, mla, "r4") BYTES_OF_128(128, at, x, mla, "r6") \
    BYTES_OF_128(256, at, x, mla, "r8") BYTES_OF_128(384, at, x, mla, "r12")
#define LOADED_BYTES_OF_128(at) \
    "vldrb.8 q0, [r1, #" #at "]\n" COLUMN_BYTES_OF_128(at, "q0", "vmladava")

/* As multiply_rows_of_128, for inputs of 8 bits at any address: the first 64 stay in registers. */
__attribute__((naked, noinline)) static void multiply_bytes_of_128(const int8_t *w __attribute__((unused)),
                                                                   const int8_t *x __attribute__((unused)),
                                                                   int32_t *acc __attribute__((unused)),
                                                                   int32_t *acc_end __attribute__((unused)))
{
    __asm__ volatile(
        "push {r4, r6, r8, lr}\n"
        "vpush {d8, d9, d10, d11, d12, d13, d14, d15}\n"
        "vldrb.8 q4, [r1]\n"
        "vldrb.8 q5, [r1, #16]\n"
        "vldrb.8 q6, [r1, #32]\n"
        "vldrb.8 q7, [r1, #48]\n"
        "1:\n"
        COLUMN_BYTES_OF_128(0, "q4", "vmladav")
        COLUMN_BYTES_OF_128(16, "q5", "vmladava")
        COLUMN_BYTES_OF_128(32, "q6", "vmladava")
        COLUMN_BYTES_OF_128(48, "q7", "vmladava")
        LOADED_BYTES_OF_128(64)
        LOADED_BYTES_OF_128(80)
        LOADED_BYTES_OF_128(96)
        LOADED_BYTES_OF_128(112)
        "add r0, r0, #512\n"
        "stmia r2!, {r4, r6, r8, r12}\n"
        "cmp r2, r3\n"
        "bne 1b\n"
        "vpop {d8, d9, d10, d11, d12, d13, d14, d15}\n"
        "pop {r4, r6, r8, pc}\n");
}
/* clang-format on */

/* Four rows and inputs of 8 bits, the columns that no sixteen cover in `there`. */
APART static void multiply_bytes(const int8_t *a, const int8_t *b, const int8_t *c, const int8_t *d, const int8_t *x,
                                  uint32_t cols, mve_pred16_t there, int32_t *acc)
{
    int8x16_t v, p, q;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    __asm__ volatile("wls lr, %[twos], 2f\n"
                     "1:\n" SIXTEEN_BYTES SIXTEEN_BYTES
                     "le lr, 1b\n"
                     "2:\n"
                     "tst %[cols], #16\n"
                     "beq 3f\n" SIXTEEN_BYTES
                     "3:\n"
                     : [a] "+&r"(a), [b] "+&r"(b), [c] "+&r"(c), [d] "+&r"(d), [x] "+&r"(x), [v] "=&w"(v),
                       [p] "=&w"(p), [q] "=&w"(q), [s0] "+&Te"(s0), [s1] "+&Te"(s1), [s2] "+&Te"(s2), [s3] "+&Te"(s3)
                     : [twos] "r"(cols / 32u), [cols] "r"(cols)
                     : "lr", "cc", "memory");
    if (cols % 16u != 0) {
        v = vldrbq_z_s8(x, there);
        s0 = vmladavaq_s8(s0, vldrbq_z_s8(a, there), v);
        s1 = vmladavaq_s8(s1, vldrbq_z_s8(b, there), v);
        s2 = vmladavaq_s8(s2, vldrbq_z_s8(c, there), v);
        s3 = vmladavaq_s8(s3, vldrbq_z_s8(d, there), v);
    }
    acc[0] = s0;
    acc[1] = s1;
    acc[2] = s2;
    acc[3] = s3;
}

void ehmn_kernels_mve_matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                int32_t *acc)
{
    mve_pred16_t there = vctp8q(cols % 16u);
    if (cols == 128u && stride == 128u && ((uintptr_t)w & 3u) == 0 && rows >= 4u) {
        multiply_bytes_of_128(w, x, acc, acc + (rows & ~3u));
        w += (rows & ~3u) * 128u;
        acc += rows & ~3u;
        rows %= 4u;
    }
    for (; rows >= 4u; rows -= 4u, w += 4u * stride, acc += 4) {
        multiply_bytes(w, w + stride, w + 2u * stride, w + 3u * stride, x, cols, there, acc);
    }
    if (rows > 0) {
        const int8_t *last = w + (rows - 1u) * stride, *second = rows > 1u ? w + stride : w;
        int32_t sums[4];
        multiply_bytes(w, second, last, last, x, cols, there, sums);
        for (uint32_t r = 0; r < rows; r++) {
            acc[r] = sums[r];
        }
    }
}

/* Eight bytes, that is sixteen weights, at a time: even columns are the low halves, odd ones the high halves. */
EHMN_SMALL void ehmn_kernels_mve_matvec_s4(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride,
                                           const int16_t *x, int32_t *acc)
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

#endif
