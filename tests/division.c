/* The firmware's division of 64 bits against the host's: random numbers of every length, and
 * some about powers of two. */
#include <stdint.h>
#include <stdio.h>

uint64_t ehmn_divide(uint64_t n, uint64_t d, uint64_t *rest);
int64_t ehmn_divide_signed(int64_t n, int64_t d, int64_t *rest);

static uint64_t random_bits(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint64_t number(void)
{
    uint64_t bits = random_bits(), shift = random_bits() & 63u;
    switch (random_bits() & 3u) {
    case 0:
        return ((uint64_t)1 << shift) + bits % 5u - 2u;
    case 1:
        return ~(uint64_t)0 >> shift << (bits & 63u);
    case 2:
        return bits >> shift | (uint64_t)0xFFFF << (bits & 31u);
    default:
        return bits >> shift;
    }
}

int main(void)
{
    long done = 0;
    while (done < 3000000) {
        uint64_t n = number(), d = number(), rest;
        int64_t signed_n = (int64_t)n, signed_d = (int64_t)d, signed_rest;
        if (d == 0 || (signed_n == INT64_MIN && signed_d == -1)) {
            continue;
        }
        if (ehmn_divide(n, d, &rest) != n / d || rest != n % d
            || ehmn_divide_signed(signed_n, signed_d, &signed_rest) != signed_n / signed_d
            || signed_rest != signed_n % signed_d) {
            printf("%llu / %llu\n", (unsigned long long)n, (unsigned long long)d);
            return 1;
        }
        done++;
    }
    printf("%ld\n", done);
    return 0;
}
