/* REPEAT products of a 512 x 128 matrix and a vector as a layer makes them, with inputs of INPUT_BITS: the input
 * reduced, multiplied, and the outputs scaled. Without an operating system, for bench/products.py, which counts. */
#include "board.h"
#include "fixed.h"
#include "kernels.h"

#include <stddef.h>

#define ROWS 512u
#define COLS 128u

#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define SYS_EXIT 0x18
#define APPLICATION_EXIT 0x20026

static int8_t w[ROWS * COLS];
static int32_t v[COLS], scale[ROWS], out[ROWS];
static int16_t mantissas[COLS];
static int32_t pairs[ROWS]; /* of weights along a row, which kernels may know */

static void run(void)
{
    const ehmn_kernels *kernels = ehmn_best_kernels();
    uint32_t state = 1;
    for (uint32_t i = 0; i < ROWS * COLS; i++) {
        state = state * 1664525u + 1013904223u;
        w[i] = (int8_t)((int32_t)(state >> 24) - 128);
        w[i] = w[i] == -128 ? 0 : w[i];
        v[i % COLS] = ((int32_t)state >> 13) + ((int32_t)state >> 14); /* the largest not just below a power of two */
        scale[i % ROWS] = (int32_t)(1u << 30 | state >> 3);
    }
    for (uint32_t i = 0; i < ROWS * COLS; i += 2u) {
        pairs[i / COLS] -= w[i] * w[i + 1u];
    }
    for (uint32_t k = 0; k < REPEAT; k++) {
        v[0] = (int32_t)k;
#if INPUT_BITS == 8
        (void)ehmn_quantise8(v, COLS, 16, (int8_t *)mantissas);
        if (kernels->matvec_s8_paired != NULL) {
            kernels->matvec_s8_paired(w, ROWS, COLS, COLS, (const int8_t *)mantissas, pairs, out);
        } else {
            kernels->matvec_s8(w, ROWS, COLS, COLS, (const int8_t *)mantissas, out);
        }
#else
        (void)ehmn_quantise16(v, COLS, 16, 16, mantissas);
        if (kernels->matvec_s16_paired != NULL) {
            kernels->matvec_s16_paired(w, ROWS, COLS, COLS, mantissas, pairs, out);
        } else {
            kernels->matvec_s16(w, ROWS, COLS, COLS, mantissas, out);
        }
#endif
        kernels->scale(out, scale, ROWS, 40, out);
    }
}

void reset(void);

void reset(void)
{
#if defined(__ARM_FEATURE_MVE)
    CPACR |= 0x00F00000u;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
    run();
    __asm__ volatile("mov r0, %0\n\tmov r1, %1\n\tbkpt 0xAB"
                     :
                     : "r"(SYS_EXIT), "r"(APPLICATION_EXIT)
                     : "r0", "r1", "memory");
}

static void stop(void)
{
    for (;;) {
        __asm__ volatile("bkpt 0");
    }
}

__attribute__((section(".vectors"), used)) static void (*const vector_table[16])(void) = {
    (void (*)(void))(BOARD_STACK_ADDRESS + BOARD_STACK_BYTES), reset, stop, stop, stop, stop, stop};
