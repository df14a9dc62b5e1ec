/* What the files for dot products of bytes on aarch64 share: inputs of 16 bits as two bytes. */
#ifndef EHMN_KERNELS_DOT_H
#define EHMN_KERNELS_DOT_H

#include <arm_neon.h>
#include <stddef.h>
#include <string.h>

#define ROWS 128u      /* of several vectors at once: all of them take the vectors as they are laid out, */
#define SOME_COLS 256u /* so many columns of them */
#define MOST_WHOLE 32639 /* 127 * 256 + 127: beyond, the high byte would be 128 */

/* Apart: what these prepare would cost each product that has no need of them. */
#define RARE static __attribute__((noinline, cold))

typedef struct {
    int8x16_t low;
    int8x16_t high;
} bytes16;

/* Sixteen values as bytes. */
static inline bytes16 bytes_of(int16x8_t a, int16x8_t b)
{
    bytes16 out;
    out.low = vuzp1q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b));
    out.high = vuzp2q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b));
    uint8x16_t high = vsubq_u8(vreinterpretq_u8_s8(out.high), vcltzq_s8(out.low)); /* plus one where low is negative */
    out.high = vreinterpretq_s8_u8(high);
    return out;
}

/* The same; *most becomes the largest of them and of what it was. */
static inline bytes16 split16(const int16_t *x, int16x8_t *most)
{
    int16x8_t a = vld1q_s16(x), b = vld1q_s16(x + 8);
    *most = vmaxq_s16(*most, vmaxq_s16(a, b));
    return bytes_of(a, b);
}

/* Split `cols` values; where fewer than sixteen are left, zeros come before them. Returns whether one exceeds
 * MOST_WHOLE: its high byte is -128. */
static inline int split(const int16_t *x, uint32_t cols, bytes16 *out)
{
    int16x8_t most = vdupq_n_s16(INT16_MIN);
    int16_t rest[16] = {0};
    for (; cols >= 16u; cols -= 16u, x += 16) {
        *out++ = split16(x, &most);
    }
    if (cols > 0) {
        memcpy(rest + 16u - cols, x, 2u * cols);
        *out = split16(rest, &most);
    }
    return vmaxvq_s16(most) > MOST_WHOLE;
}

/* acc[r] += 2^16 w[r][c] for every value that exceeds MOST_WHOLE. */
RARE void mend(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, int32_t *acc)
{
    for (uint32_t c = 0; c < cols; c++) {
        for (uint32_t r = 0; x[c] > MOST_WHOLE && r < rows; r++) {
            acc[r] += w[r * stride + c] * 65536;
        }
    }
}

#endif
