/* Multiplies a matrix of 512 x 128 and rounds the products to a common exponent: COMMAND TABLE KIND COUNT [ROWS COLS],
 * KIND 8 or 16, the bits of the inputs, or m, 64 vectors of 16 bits at once. bench/count_products.py counts what it
 * executes. */
#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 512 * 512, VECTORS = 64 };

static int8_t w[MOST], x8[512];
static int16_t x[VECTORS * 512];
static int32_t acc[VECTORS * 512], scales[512];

int main(int argc, char **argv)
{
    const ehmn_kernels *table = NULL, *t;
    if (argc < 4) {
        return 2;
    }
    for (uint32_t k = 0; (t = ehmn_kernel_table(k)) != NULL; k++) {
        table = strcmp(t->name, argv[1]) == 0 ? t : table;
    }
    uint32_t rows = argc > 5 ? (uint32_t)atoi(argv[4]) : 512u, cols = argc > 5 ? (uint32_t)atoi(argv[5]) : 128u;
    if (table == NULL || rows > 512u || cols > 512u || (argv[2][0] == 'm' && table->matmat_s16 == NULL)) {
        return 1;
    }
    for (uint32_t i = 0; i < rows * cols; i++) {
        w[i] = (int8_t)((int32_t)(i * 2654435761u >> 24) % 128);
    }
    for (uint32_t i = 0; i < VECTORS * cols; i++) {
        x[i] = (int16_t)((int32_t)(i * 2246822519u) >> 17);
        x8[i % cols] = (int8_t)(i % 127u);
    }
    for (uint32_t r = 0; r < rows; r++) {
        scales[r] = (1 << 30) + (int32_t)r;
    }
    for (long n = strtol(argv[3], NULL, 10); n > 0; n--) {
        uint32_t vectors = 1;
        if (argv[2][0] == 'm') {
            vectors = VECTORS;
            table->matmat_s16(w, rows, cols, cols, x, vectors, cols, acc, rows);
        } else if (argv[2][0] == '8') {
            table->matvec_s8(w, rows, cols, cols, x8, acc);
        } else {
            table->matvec_s16(w, rows, cols, cols, x, acc);
        }
        for (uint32_t v = 0; v < vectors; v++) {
            table->scale(acc + v * rows, scales, rows, 40, acc + v * rows);
        }
    }
    printf("%ld\n", (long)acc[0]);
    return 0;
}
