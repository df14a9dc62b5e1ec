#include "random.h"

void ehmn_random(uint64_t seed, uint32_t stream, uint64_t counter, uint32_t out[4])
{
    uint32_t key0 = (uint32_t)seed;
    uint32_t key1 = (uint32_t)(seed >> 32);
    out[0] = (uint32_t)counter;
    out[1] = (uint32_t)(counter >> 32);
    out[2] = stream;
    out[3] = 0;
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)EHMN_MULTIPLIER_A * out[0];
        uint64_t b = (uint64_t)EHMN_MULTIPLIER_B * out[2];
        out[0] = (uint32_t)(b >> 32) ^ out[1] ^ key0;
        out[1] = (uint32_t)b;
        out[2] = (uint32_t)(a >> 32) ^ out[3] ^ key1;
        out[3] = (uint32_t)a;
        __asm__("" : "+r"(key0), "+r"(key1)); /* no constants of all rounds, which take more instructions than sums */
        key0 += EHMN_KEY_STEP_0;
        key1 += EHMN_KEY_STEP_1;
    }
}
