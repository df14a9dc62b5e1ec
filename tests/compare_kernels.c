/* Every table of kernels of this build against the reference, on random and extreme inputs of all sizes. Each array
 * is a block of its own, so that a sanitizer sees a byte too far. For processors that only an emulator has; on the
 * machine that runs the tests, test_kernels.py asks more. Before them, the vectors of compare_vectors.c. Ends with 1
 * and a message at the first difference. */
#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t state = 1;

static int32_t between(int32_t low, int32_t high)
{
    state = state * 1664525u + 1013904223u;
    return low + (int32_t)((state >> 8) % (uint32_t)(high - low + 1));
}

static void *room(size_t bytes)
{
    void *p = malloc(bytes);
    return p != NULL ? p : (exit(2), NULL);
}

static void compare(const char *table, const char *what, uint32_t size, const void *a, const void *b, size_t bytes)
{
    if (memcmp(a, b, bytes) != 0) {
        printf("%s: %s differs at size %u\n", table, what, (unsigned)size);
        exit(1);
    }
}

typedef struct {
    uint32_t rows;
    uint32_t cols;
    uint32_t stride;
    int extreme; /* -1, 1: all values at their limits; 0: random */
} shape;

static int8_t *bytes_of(uint32_t n, int extreme)
{
    int8_t *v = room(n);
    for (uint32_t i = 0; i < n; i++) {
        v[i] = (int8_t)(extreme ? 127 * extreme : between(-127, 127));
    }
    return v;
}

/* Products where sums of pairs of weights are known. */
static void paired(const ehmn_kernels *t, shape s, const int8_t *w, const int8_t *x8, int16_t *x16)
{
    int32_t *pairs = room(4u * s.rows), *a = room(4u * s.rows), *b = room(4u * s.rows);
    for (uint32_t r = 0; r < s.rows; r++) {
        pairs[r] = 0;
        for (uint32_t c = 0; c + 1u < s.cols; c += 2u) {
            pairs[r] -= w[r * s.stride + c] * w[r * s.stride + c + 1u];
        }
    }
    ehmn_kernels_ref.matvec_s8(w, s.rows, s.cols, s.stride, x8, a);
    t->matvec_s8_paired(w, s.rows, s.cols, s.stride, x8, pairs, b);
    compare(t->name, "matvec_s8_paired", s.cols, a, b, 4u * s.rows);
    for (int32_t most = -EHMN_MOST_PAIRED; most <= EHMN_MOST_PAIRED; most += 2 * EHMN_MOST_PAIRED) {
        for (uint32_t i = 0; i < s.cols; i++) {
            x16[i] = (int16_t)(s.extreme ? most : between(-EHMN_MOST_PAIRED, EHMN_MOST_PAIRED));
        }
        ehmn_kernels_ref.matvec_s16(w, s.rows, s.cols, s.stride, x16, a);
        t->matvec_s16_paired(w, s.rows, s.cols, s.stride, x16, pairs, b);
        compare(t->name, "matvec_s16_paired", s.cols, a, b, 4u * s.rows);
    }
    free(pairs);
    free(a);
    free(b);
}

static void products(const ehmn_kernels *t, shape s)
{
    uint32_t last = (s.rows - 1u) * s.stride;
    int8_t *w = bytes_of(last + s.cols, s.extreme), *x8 = bytes_of(s.cols, -s.extreme);
    uint8_t *w4 = room(last + (s.cols + 1u) / 2u);
    int16_t *x16 = room(2u * s.cols);
    int32_t *a = room(4u * s.rows), *b = room(4u * s.rows);
    for (uint32_t i = 0; i < s.cols; i++) {
        x16[i] = (int16_t)(s.extreme ? 32767 : between(-32767, 32767));
    }
    for (uint32_t i = 0; i < last + (s.cols + 1u) / 2u; i++) {
        w4[i] = (uint8_t)((between(-7, 7) & 15) | (between(-7, 7) & 15) << 4);
    }
    ehmn_kernels_ref.matvec_s8(w, s.rows, s.cols, s.stride, x8, a);
    t->matvec_s8(w, s.rows, s.cols, s.stride, x8, b);
    compare(t->name, "matvec_s8", s.cols, a, b, 4u * s.rows);
    ehmn_kernels_ref.matvec_s16(w, s.rows, s.cols, s.stride, x16, a);
    t->matvec_s16(w, s.rows, s.cols, s.stride, x16, b);
    compare(t->name, "matvec_s16", s.cols, a, b, 4u * s.rows);
    ehmn_kernels_ref.matvec_s4(w4, s.rows, s.cols, s.stride, x16, a);
    t->matvec_s4(w4, s.rows, s.cols, s.stride, x16, b);
    compare(t->name, "matvec_s4", s.cols, a, b, 4u * s.rows);
    if (t->matvec_s8_paired != NULL) {
        paired(t, s, w, x8, x16);
    }
    free(w);
    free(x8);
    free(w4);
    free(x16);
    free(a);
    free(b);
}

/* Several vectors at once, where a table has a function for it, against one after the other. */
static void many(const ehmn_kernels *t, shape s, uint32_t n)
{
    uint32_t last = (s.rows - 1u) * s.stride, x_stride = s.cols + n % 3u, acc_stride = s.rows + n % 2u;
    int8_t *w = bytes_of(last + s.cols, s.extreme);
    uint8_t *w4 = room(last + (s.cols + 1u) / 2u);
    int16_t *x = room(2u * ((n - 1u) * x_stride + s.cols));
    int32_t *a = room(4u * n * acc_stride), *b = room(4u * n * acc_stride);
    for (uint32_t i = 0; i < (n - 1u) * x_stride + s.cols; i++) {
        x[i] = (int16_t)(s.extreme ? 32767 : between(-32767, 32767));
    }
    for (uint32_t i = 0; i < last + (s.cols + 1u) / 2u; i++) {
        w4[i] = (uint8_t)((between(-7, 7) & 15) | (between(-7, 7) & 15) << 4);
    }
    for (uint32_t four = 0; four < 2u && t->matmat_s16 != NULL; four++) {
        memset(a, 77, 4u * n * acc_stride);
        memset(b, 77, 4u * n * acc_stride);
        for (uint32_t k = 0; k < n; k++) {
            if (four) {
                ehmn_kernels_ref.matvec_s4(w4, s.rows, s.cols, s.stride, x + k * x_stride, a + k * acc_stride);
            } else {
                ehmn_kernels_ref.matvec_s16(w, s.rows, s.cols, s.stride, x + k * x_stride, a + k * acc_stride);
            }
        }
        (four ? t->matmat_s4 : t->matmat_s16)(four ? (void *)w4 : (void *)w, s.rows, s.cols, s.stride, x, n, x_stride,
                                              b, acc_stride);
        compare(t->name, four ? "matmat_s4" : "matmat_s16", s.cols, a, b, 4u * n * acc_stride);
    }
    int8_t *bytes = bytes_of((n - 1u) * x_stride + s.cols, -s.extreme);
    for (uint32_t k = 0; k < n && t->matmat_s8 != NULL; k++) {
        ehmn_kernels_ref.matvec_s8(w, s.rows, s.cols, s.stride, bytes + k * x_stride, a + k * acc_stride);
    }
    if (t->matmat_s8 != NULL) {
        t->matmat_s8(w, s.rows, s.cols, s.stride, bytes, n, x_stride, b, acc_stride);
        compare(t->name, "matmat_s8", s.cols, a, b, 4u * n * acc_stride);
    }
    free(bytes);
    free(w);
    free(w4);
    free(x);
    free(a);
    free(b);
}

static void sums(const ehmn_kernels *t, shape s)
{
    int8_t *w = bytes_of((s.rows - 1u) * s.stride + s.cols, s.extreme);
    int32_t *weight = room(4u * s.rows), *a = room(4u * s.cols), *b = room(4u * s.cols);
    for (uint32_t i = 0; i < s.rows; i++) {
        weight[i] = s.extreme ? 32768 : between(0, 32768);
    }
    if (t->weighted_sum != NULL) {
        ehmn_kernels_ref.weighted_sum(w, s.rows, s.cols, s.stride, weight, a);
        t->weighted_sum(w, s.rows, s.cols, s.stride, weight, b);
        compare(t->name, "weighted_sum", s.cols, a, b, 4u * s.cols);
    }
    free(w);
    free(weight);
    free(a);
    free(b);
}

/* Several vectors of weights at once, first into nothing, then to what is there. */
static void many_sums(const ehmn_kernels *t, shape s, uint32_t n)
{
    uint32_t weight_stride = s.rows + n % 3u, acc_stride = s.cols + n % 2u;
    int8_t *w = bytes_of((s.rows - 1u) * s.stride + s.cols, s.extreme);
    int32_t *weight = room(4u * n * weight_stride), *a = room(4u * n * acc_stride), *b = room(4u * n * acc_stride);
    for (uint32_t i = 0; i < n * weight_stride; i++) {
        weight[i] = s.extreme ? 32768 : between(0, 32768);
    }
    memset(a, 77, 4u * n * acc_stride);
    memset(b, 77, 4u * n * acc_stride);
    for (uint32_t k = 0; k < n; k++) {
        ehmn_kernels_ref.weighted_sum(w, s.rows, s.cols, s.stride, weight + k * weight_stride, a + k * acc_stride);
    }
    for (int add = 0; add < 2 && t->weighted_sums != NULL; add++) {
        t->weighted_sums(w, s.rows, s.cols, s.stride, weight, n, weight_stride, add, b, acc_stride);
        compare(t->name, "weighted_sums", s.cols, a, b, 4u * n * acc_stride);
        for (uint32_t k = 0; k < n; k++) {
            for (uint32_t c = 0; c < s.cols; c++) {
                a[k * acc_stride + c] = (int32_t)(2u * (uint32_t)a[k * acc_stride + c]);
            }
        }
    }
    free(w);
    free(weight);
    free(a);
    free(b);
}

static void vectors(const ehmn_kernels *t, uint32_t n, int32_t limit)
{
    int32_t *v = room(4u * n), *factor = room(4u * n), *a = room(4u * n), *b = room(4u * n), max = -limit;
    for (uint32_t i = 0; i < n; i++) {
        v[i] = between(-127, 127) * (limit / 127);
        factor[i] = between(0, 127) * (INT32_MAX / 127);
        max = v[i] > max ? v[i] : max;
    }
    for (int32_t shift = -33; shift < 65; shift += 1 + (int32_t)(n % 3u)) {
        ehmn_kernels_ref.scale(v, factor, n, shift, a);
        t->scale(v, factor, n, shift, b);
        compare(t->name, "scale", n, a, b, 4u * n);
        for (uint32_t i = 0; i < n; i++) {
            b[i] = v[i] / 259;
            a[i] = b[i] * 259;
        }
        if (t->scale_steps != NULL) {
            ehmn_kernels_ref.scale(a, factor, n, shift, a);
            t->scale_steps(b, factor, n, 259, shift);
            compare(t->name, "scale_steps", n, a, b, 4u * n);
        }
    }
    for (int32_t frac = 8; frac <= 16; frac++) {
        for (uint32_t i = 0; i < n; i++) {
            a[i] = b[i] = frac % 2 ? factor[i] : v[n - 1u - i] + between(-5, 5);
        }
        ehmn_kernels_ref.gate(v, a, n, frac);
        t->gate(v, b, n, frac);
        compare(t->name, "gate", n, a, b, 4u * n);
    }
    memcpy(a, v, 4u * n);
    memcpy(b, v, 4u * n);
    uint32_t sum_a = ehmn_kernels_ref.soften(a, n, max), sum_b = t->soften(b, n, max);
    compare(t->name, "soften", n, a, b, 4u * n);
    compare(t->name, "soften's sum", n, &sum_a, &sum_b, 4);
    free(v);
    free(factor);
    free(a);
    free(b);
}

static void steps(const ehmn_kernels *t, uint32_t n, int extreme)
{
    uint32_t *edge = room(4u * n), sum = 0, rate = extreme ? 1u << 20 : (uint32_t)between(0, 1 << 20);
    int8_t *sign = room(n), *a = bytes_of(n, 0), *b = room(n);
    uint32_t at = (uint32_t)between(0, (1 << 24) - 1);
    for (uint32_t i = 0; i < n; i++) {
        sum += extreme ? 127u : (uint32_t)between(0, 127);
        edge[i] = sum;
        sign[i] = (int8_t)-between(0, 1);
    }
    memcpy(b, a, n);
    ehmn_kernels_ref.step_row(a, edge, sign, -(int32_t)(n % 2u), n, rate, at);
    t->step_row(b, edge, sign, -(int32_t)(n % 2u), n, rate, at);
    compare(t->name, "step_row", n, a, b, n);
    free(edge);
    free(sign);
    free(a);
    free(b);
}

static void exponentials(const ehmn_kernels *t, uint32_t n)
{
    int16_t *logits = room(2u * n);
    for (uint32_t i = 0; i < n; i++) {
        logits[i] = (int16_t)between(-9000, 9000);
    }
    for (int32_t max = 9000; max <= 32767; max += 23767) {
        uint32_t sum[2] = {ehmn_kernels_ref.exp_sum(logits, n, max), t->exp_sum(logits, n, max)};
        compare(t->name, "exp_sum", n, sum, sum + 1, 4);
    }
    free(logits);
}

static void fits(const ehmn_kernels *t, uint32_t n, int32_t limit)
{
    int32_t *v = room(4u * n);
    int32_t gain = between(0, 1) ? between(0, 1 << 18) : between(0, 1) ? 1 << 20 : between(0, 1 << 20);
    int16_t *bias = room(2u * n), *a = room(2u * n), *b = room(2u * n);
    for (uint32_t i = 0; i < n; i++) {
        v[i] = between(-127, 127) * (limit / 127);
        bias[i] = (int16_t)between(-32767, 32767);
    }
    for (int with = 0; with < 2; with++) {
        int32_t max[2];
        max[0] = ehmn_kernels_ref.fit(v, with ? bias : NULL, gain, n, -200, a);
        max[1] = t->fit(v, with ? bias : NULL, gain, n, -200, b);
        compare(t->name, "fit", n, a, b, 2u * n);
        compare(t->name, "fit's maximum", n, max, max + 1, 4);
    }
    free(v);
    free(bias);
    free(a);
    free(b);
}

#if defined(__ARM_FEATURE_MVE)
/* Without an operating system: from reset, with vectors allowed, to the C library, which speaks to the emulator. */
#define CPACR (*(volatile uint32_t *)0xE000ED88u)

void _start(void);

static void reset(void)
{
    CPACR |= 0x00F00000u;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    _start();
}

static void stop(void)
{
    for (;;) {
        __asm__ volatile("bkpt 0"); /* the emulator ends */
    }
}

__attribute__((section(".vectors"), used)) static void (*const vector_table[16])(void) = {
    (void (*)(void))0x31100000u, reset, stop, stop, stop, stop, stop};
#endif

void compare_vectors(void);

static void keys(const ehmn_kernels *t, uint32_t n, uint32_t words)
{
    uint32_t *all = room(4u * n * words), *key = room(4u * words);
    for (uint32_t i = 0; i < n * words; i++) {
        all[i] = i % 7u == 0 ? 0u - (i & 1u) : ((uint32_t)between(0, 65535) << 16 | (uint32_t)between(0, 65535));
    }
    for (uint32_t w = 0; w < words; w++) {
        key[w] = w % 3u == 0 ? UINT32_MAX : ((uint32_t)between(0, 65535) << 16 | (uint32_t)between(0, 65535));
    }
    for (uint32_t i = 0; i < n; i += 1u + i / 4u) { /* equal ones, near and far */
        memcpy(all + between(0, (int32_t)n - 1) * (int32_t)words, i % 2u ? key : all, 4u * words);
    }
    uint32_t found[2][EHMN_RECALLED];
    for (uint32_t first = 0; first <= n; first += 1u + n / 4u) {
        memset(found, 0xFF, sizeof found);
        ehmn_kernels_ref.nearest(all + first * words, n - first, key, words, found[0]);
        t->nearest(all + first * words, n - first, key, words, found[1]);
        compare(t->name, "nearest", words, found[0], found[1], sizeof found[0]);
    }
    free(all);
    free(key);
}

int main(void)
{
    const ehmn_kernels *t;
    compare_vectors();
    for (uint32_t k = 1; (t = ehmn_kernel_table(k)) != NULL; k++) {
        for (uint32_t n = 1; n <= 300; n++) {
            for (int extreme = -1; extreme <= 1; extreme++) {
                shape s = {1u + n % 9u, n, n + n * 7u % 5u, extreme};
                products(t, s);
                many(t, s, 1u + n % 11u);
                sums(t, s);
                many_sums(t, s, 1u + n % 11u);
                steps(t, n, extreme);
            }
            vectors(t, n, n % 2u ? INT32_MAX : n % 4u ? 1 << 18 : 1 << 21);
            exponentials(t, 1u + n % 128u);
            keys(t, 1u + n % 9u, 1u + n % 40u);
            keys(t, n, 4u);
            fits(t, n, n % 3u ? 60000 : INT32_MAX);
            fits(t, n, 16384);
        }
        keys(t, 2100, 4u);
        const shape more[] = {{300, 3, 3, 0}, {131, 128, 128, 0}, {48, 128, 128, 0}, {4, 128, 128, 0},
                              {64, 344, 344, 0}, {7, 1032, 1032, 0},
                              {128, 32, 128, 0}, {512, 33, 34, 1}};
        for (uint32_t i = 0; i < sizeof more / sizeof more[0]; i++) {
            products(t, more[i]);
            many(t, more[i], 17u);
            sums(t, more[i]);
            many_sums(t, more[i], 17u);
        }
        printf("%s\n", t->name);
    }
    return 0;
}
