/* Cortex-M with the DSP extension (M4, M7, M33): SMLAD multiplies two pairs of 16 bits and adds both products. A
 * word of four weights becomes two such pairs, of its even and of its odd bytes, so inputs are laid out in that
 * order first. */
#include "fixed.h"
#include "kernels_tables.h"

#include <stddef.h>

#if defined(EHMN_ARM_DSP)

#define MOST_COLS 384u /* inputs that are laid out on the stack */
#define MOST_ROWS 128u /* weights of a sum that are paired there */

static inline uint32_t load(const void *p)
{
    uint32_t v;
    __builtin_memcpy(&v, p, 4); /* one instruction at any address, in freestanding code, too */
    return v;
}

/* Bytes 0 and 2 of v, or 1 and 3, as two numbers of 16 bits. */
static inline uint32_t even(uint32_t v)
{
    uint32_t out;
    __asm__("sxtb16 %0, %1" : "=r"(out) : "r"(v));
    return out;
}

static inline uint32_t odd(uint32_t v)
{
    uint32_t out;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(out) : "r"(v));
    return out;
}

/* The lower, or the upper, halves of a and b side by side, that of a below. */
static inline uint32_t lower(uint32_t a, uint32_t b)
{
    uint32_t out;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(out) : "r"(a), "r"(b));
    return out;
}

static inline uint32_t upper(uint32_t a, uint32_t b)
{
    uint32_t out;
    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(out) : "r"(b), "r"(a));
    return out;
}

static inline int32_t multiply_add(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t out;
    __asm__("smlad %0, %1, %2, %3" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
    return out;
}

/* What dot_rows works on. The order of the fields is known to its code. */
typedef struct {
    const int8_t *w;   /* word-aligned, as is the stride */
    uint32_t stride;
    const uint32_t *x; /* for each four columns, columns 0 and 2, then 1 and 3 */
    const uint32_t *x_fours; /* x after as many times 32 columns as there are */
    const uint32_t *x_end;   /* x after all columns, a multiple of eight */
    int32_t *acc;
    uint32_t triples;
} dot_job;

/* clang-format off */
#define ONE_ROW(row, sum) \
    "ldrd r8, r9, [" row "], #8\n"       \
    "sxtb16 r10, r8\n"                   \
    "smlad " sum ", r10, r4, " sum "\n"  \
    "sxtb16 r8, r8, ror #8\n"            \
    "smlad " sum ", r8, r5, " sum "\n"   \
    "sxtb16 r10, r9\n"                   \
    "smlad " sum ", r10, r6, " sum "\n"  \
    "sxtb16 r9, r9, ror #8\n"            \
    "smlad " sum ", r9, r7, " sum "\n"

#define EIGHT_COLUMNS \
    "ldmia r3!, {r4, r5, r6, r7}\n" \
    ONE_ROW("r0", "r11") ONE_ROW("r1", "r12") ONE_ROW("r2", "lr")

/* acc[0..2] of three rows at a time: r0, r1, r2 are the rows, r3 the inputs; r11, r12, lr the sums. */
__attribute__((naked, noinline)) static void dot_rows(dot_job *job __attribute__((unused)))
{
    __asm__ volatile(
        "push {r0, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n"
        "1:\n"
        "ldr r10, [sp]\n"
        "ldr r0, [r10]\n"
        "ldr r1, [r10, #4]\n"
        "ldr r3, [r10, #8]\n"
        "add r2, r0, r1, lsl #1\n"
        "add r1, r0, r1\n"
        "mov r11, #0\n"
        "mov r12, #0\n"
        "mov lr, #0\n"
        "ldr r4, [r10, #12]\n"
        "cmp r3, r4\n"
        "beq 3f\n"
        "2:\n"
        EIGHT_COLUMNS EIGHT_COLUMNS EIGHT_COLUMNS EIGHT_COLUMNS
        "ldr r10, [sp]\n"
        "ldr r4, [r10, #12]\n"
        "cmp r3, r4\n"
        "bne 2b\n"
        "3:\n"
        "ldr r10, [sp]\n"
        "ldr r4, [r10, #16]\n"
        "cmp r3, r4\n"
        "beq 4f\n"
        EIGHT_COLUMNS
        "b 3b\n"
        "4:\n"
        "ldr r4, [r10, #20]\n"
        "stmia r4!, {r11, r12, lr}\n"
        "str r4, [r10, #20]\n"
        "ldrd r4, r5, [r10]\n"
        "add r5, r5, r5, lsl #1\n"
        "add r4, r4, r5\n"
        "str r4, [r10]\n"
        "ldr r4, [r10, #24]\n"
        "subs r4, r4, #1\n"
        "str r4, [r10, #24]\n"
        "bne 1b\n"
        "pop {r0, r4, r5, r6, r7, r8, r9, r10, r11, pc}\n");
}
/* clang-format on */

/* One row over inputs in their own order. */
static int32_t dot(const int8_t *w, const int16_t *x, uint32_t cols)
{
    int32_t sum = 0;
    uint32_t c = 0;
    for (; c + 4u <= cols; c += 4u) {
        uint32_t four = load(w + c), first = load(x + c), second = load(x + c + 2u);
        sum = multiply_add(even(four), lower(first, second), sum);
        sum = multiply_add(odd(four), upper(first, second), sum);
    }
    for (; c < cols; c++) {
        sum += w[c] * x[c];
    }
    return sum;
}

/* Three rows at a time over laid-out inputs, as far as they go; the last three may have been among those before. */
static void multiply_rows(const int8_t *w, uint32_t rows, uint32_t stride, const uint32_t *x, uint32_t cols,
                          int32_t *acc)
{
    dot_job job = {w, stride, x, x + (cols & ~31u) / 2u, x + cols / 2u, acc, rows / 3u};
    dot_rows(&job);
    if (rows % 3u != 0) {
        dot_job rest = {w + (rows - 3u) * stride, stride, x, job.x_fours, job.x_end, acc + rows - 3u, 1u};
        dot_rows(&rest);
    }
}

static int fits(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride)
{
    return (((uintptr_t)w | stride) & 3u) == 0 && rows >= 3u && cols >= 8u && cols <= MOST_COLS;
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    uint32_t paired[MOST_COLS / 2u];
    if (!fits(w, rows, cols, stride)) {
        for (uint32_t r = 0; r < rows; r++, w += stride) {
            acc[r] = dot(w, x, cols);
        }
        return;
    }
    uint32_t whole = cols & ~7u;
    const int16_t *in = x;
    for (uint32_t *out = paired, *end = paired + whole / 2u; out < end; in += 8, out += 4) {
        uint32_t a = load(in), b = load(in + 2), c = load(in + 4), d = load(in + 6);
        out[0] = lower(a, b);
        out[1] = upper(a, b);
        out[2] = lower(c, d);
        out[3] = upper(c, d);
    }
    multiply_rows(w, rows, stride, paired, whole, acc);
    for (uint32_t r = 0; r < rows && whole < cols; r++) {
        acc[r] += dot(w + r * stride + whole, x + whole, cols - whole);
    }
}

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    uint32_t paired[MOST_COLS / 2u];
    if (!fits(w, rows, cols, stride) || cols % 8u != 0) {
        ehmn_kernels_rows_matvec_s8(w, rows, cols, stride, x, acc);
        return;
    }
    for (uint32_t c = 0; c < cols; c += 4u) {
        uint32_t four = load(x + c);
        paired[c / 2u] = even(four);
        paired[c / 2u + 1u] = odd(four);
    }
    multiply_rows(w, rows, stride, paired, cols, acc);
}

/* clang-format off */
#define TWO_ROWS \
    "ldr %[a], [%[w]]\n"                         \
    "ldr %[b], [%[w], %[stride]]\n"              \
    "add %[w], %[w], %[stride], lsl #1\n"        \
    "ldr %[f], [%[pair]], #4\n"                  \
    "pkhbt %[t], %[a], %[b], lsl #16\n"          \
    "pkhtb %[b], %[b], %[a], asr #16\n"          \
    "sxtb16 %[a], %[t]\n"                        \
    "smlad %[s0], %[a], %[f], %[s0]\n"           \
    "sxtb16 %[t], %[t], ror #8\n"                \
    "smlad %[s1], %[t], %[f], %[s1]\n"           \
    "sxtb16 %[a], %[b]\n"                        \
    "smlad %[s2], %[a], %[f], %[s2]\n"           \
    "sxtb16 %[b], %[b], ror #8\n"                \
    "smlad %[s3], %[b], %[f], %[s3]\n"
/* clang-format on */

/* Four columns of rows at w and w + stride and so on, by pairs of weights, at least one. */
static void sum_four(const int8_t *w, const uint32_t *pair, uint32_t pairs, uint32_t stride, int32_t *acc)
{
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    uint32_t a, b, t, f;
    const uint32_t *end = pair + pairs;
    __asm__ volatile("sub %[t], %[end], %[pair]\n" /* an odd number begins in the middle */
                     "tst %[t], #4\n"
                     "bne 3f\n"
                     "2:\n" TWO_ROWS "3:\n" TWO_ROWS
                     "cmp %[pair], %[end]\n"
                     "bne 2b\n"
                     : [w] "+&r"(w), [pair] "+&r"(pair), [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2),
                       [s3] "+&r"(s3), [a] "=&r"(a), [b] "=&r"(b), [t] "=&r"(t), [f] "=&r"(f)
                     : [stride] "r"(stride), [end] "r"(end)
                     : "cc", "memory");
    acc[0] -= s0;
    acc[1] -= s1;
    acc[2] -= s2;
    acc[3] -= s3;
}

/* A weight of 2^15 has no place in 16 bits, so weights are paired negated. */
static void weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc)
{
    uint32_t pair[MOST_ROWS / 2u];
    for (uint32_t c = 0; c < cols; c++) {
        acc[c] = 0;
    }
    uint32_t done = 0;
    while (rows - done >= 2u) {
        uint32_t n = rows - done < MOST_ROWS ? (rows - done) / 2u : MOST_ROWS / 2u;
        for (uint32_t i = 0; i < n; i++) {
            pair[i] = lower((uint32_t)-weight[done + 2u * i], (uint32_t)-weight[done + 2u * i + 1u]);
        }
        for (uint32_t c = 0; c + 4u <= cols; c += 4u) {
            sum_four(w + done * stride + c, pair, n, stride, acc + c);
        }
        done += 2u * n;
    }
    for (uint32_t c = 0; c < cols; c++) { /* what no four columns and no two rows cover */
        for (uint32_t r = c < (cols & ~3u) ? done : 0u; r < rows; r++) {
            acc[c] += weight[r] * w[r * stride + c];
        }
    }
}

/* Bytewise a - b modulo 256, and a + b saturated to +-127. */
static inline uint32_t subtract_bytes(uint32_t a, uint32_t b)
{
    uint32_t out;
    __asm__("usub8 %0, %1, %2" : "=r"(out) : "r"(a), "r"(b) : "cc");
    return out;
}

static inline uint32_t add_bytes(uint32_t a, uint32_t b)
{
    uint32_t out;
    __asm__("qadd8 %0, %1, %2\n\tqsub8 %0, %0, %3\n\tqadd8 %0, %0, %3"
            : "=&r"(out)
            : "r"(a), "r"(b), "r"(0x01010101u)); /* -128 becomes -127: it is the only value that moves */
    return out;
}

/* Four weights at a time: the upper bytes of their places on the line, less those of the weights before. */
static void step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n, uint32_t rate,
                     uint32_t at)
{
    uint32_t before = 0;
    uint32_t j = 0;
    for (; j + 4u <= n; j += 4u) {
        uint32_t p0 = at + rate * edge[j], p1 = at + rate * edge[j + 1u];
        uint32_t p2 = at + rate * edge[j + 2u], p3 = at + rate * edge[j + 3u];
        uint32_t now = (upper(p0, p2) >> 8 & 0x00FF00FFu) | (upper(p1, p3) & 0xFF00FF00u);
        uint32_t steps = subtract_bytes(now, now << 8 | before);
        uint32_t down = load(sign + j) ^ (uint32_t)flip;
        uint32_t moved = add_bytes(load(w + j), subtract_bytes(steps ^ down, down));
        __builtin_memcpy(w + j, &moved, 4);
        before = now >> 24;
    }
    for (; j < n; j++) {
        uint32_t now = (at + rate * edge[j]) >> 24;
        int32_t steps = (int32_t)((now - before) & 255u);
        w[j] = (int8_t)ehmn_clamp(w[j] + ((sign[j] ^ flip) < 0 ? -steps : steps), -127, 127);
        before = now;
    }
}

const ehmn_kernels ehmn_kernels_dsp = {
    "dsp",
    matvec_s8,
    matvec_s16,
    ehmn_kernels_rows_matvec_s4,
    weighted_sum,
    ehmn_kernels_rows_scale,
    step_row,
    ehmn_kernels_rows_exp_sum,
    ehmn_kernels_rows_soften,
    ehmn_kernels_rows_gate,
    ehmn_kernels_rows_fit,
    NULL,
    NULL,
};

#endif
