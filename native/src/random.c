#include "random.h"
#include "vectors_neon.h"

#define MULTIPLIER_A 0xD2511F53u
#define MULTIPLIER_B 0xCD9E8D57u
#define KEY_STEP_0 0x9E3779B9u
#define KEY_STEP_1 0xBB67AE85u

void ehmn_random(uint64_t seed, uint32_t stream, uint64_t counter, uint32_t out[4])
{
    uint32_t key0 = (uint32_t)seed;
    uint32_t key1 = (uint32_t)(seed >> 32);
    out[0] = (uint32_t)counter;
    out[1] = (uint32_t)(counter >> 32);
    out[2] = stream;
    out[3] = 0;
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)MULTIPLIER_A * out[0];
        uint64_t b = (uint64_t)MULTIPLIER_B * out[2];
        out[0] = (uint32_t)(b >> 32) ^ out[1] ^ key0;
        out[1] = (uint32_t)b;
        out[2] = (uint32_t)(a >> 32) ^ out[3] ^ key1;
        out[3] = (uint32_t)a;
        key0 += KEY_STEP_0;
        key1 += KEY_STEP_1;
    }
}

#if defined(EHMN_NEON)

/* The upper words of products. */
static inline uint32x4_t upper(uint32x4_t v, uint32_t factor)
{
    uint64x2_t low = vmull_n_u32(vget_low_u32(v), factor), high = vmull_high_n_u32(v, factor);
    return vuzp2q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high));
}

/* A stream in each lane. */
void ehmn_random_firsts(uint64_t seed, uint32_t stream, uint64_t counter, uint32_t out[4])
{
    static const uint32_t lanes[4] = {0, 1, 2, 3};
    uint32x4_t key0 = vdupq_n_u32((uint32_t)seed), key1 = vdupq_n_u32((uint32_t)(seed >> 32));
    uint32x4_t w0 = vdupq_n_u32((uint32_t)counter), w1 = vdupq_n_u32((uint32_t)(counter >> 32));
    uint32x4_t w2 = vaddq_u32(vdupq_n_u32(stream), vld1q_u32(lanes)), w3 = vdupq_n_u32(0);
    for (int round = 0; round < 10; round++) {
        uint32x4_t a = vmulq_n_u32(w0, MULTIPLIER_A), b = vmulq_n_u32(w2, MULTIPLIER_B);
        uint32x4_t above = upper(w0, MULTIPLIER_A);
        w0 = veorq_u32(veorq_u32(upper(w2, MULTIPLIER_B), w1), key0);
        w2 = veorq_u32(veorq_u32(above, w3), key1);
        w1 = b;
        w3 = a;
        key0 = vaddq_u32(key0, vdupq_n_u32(KEY_STEP_0));
        key1 = vaddq_u32(key1, vdupq_n_u32(KEY_STEP_1));
    }
    vst1q_u32(out, w0);
}

#else

void ehmn_random_firsts(uint64_t seed, uint32_t stream, uint64_t counter, uint32_t out[4])
{
    for (uint32_t k = 0; k < 4u; k++) {
        uint32_t random[4];
        ehmn_random(seed, stream + k, counter, random);
        out[k] = random[0];
    }
}

#endif
