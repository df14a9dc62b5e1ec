/* Division of 64 bits, which compiled C calls by the names of the run-time ABI: in about half the room of libgcc's, by
 * the processor's division of 32 bits. After Knuth, The Art of Computer Programming 2, 4.3.1, Algorithm D. */
#include <stdint.h>

uint64_t ehmn_divide(uint64_t n, uint64_t d, uint64_t *rest);
int64_t ehmn_divide_signed(int64_t n, int64_t d, int64_t *rest);
void __aeabi_uldivmod(void);
void __aeabi_ldivmod(void);

/* One digit of 16 bits of high 2^16 + next by d, whose highest bit is set; *high < d, and then the rest. */
static inline uint32_t divide_digit(uint32_t *high, uint32_t next, uint32_t d)
{
    uint32_t top = d >> 16, bottom = d & 0xFFFFu;
    uint32_t q = *high / top, r = *high - q * top, product = q * bottom;
    r = r << 16 | next;
    if (product > r) { /* q is too large, by two at most */
        q--;
        r += d;
        if (r >= d && product > r) {
            q--;
            r += d;
        }
    }
    *high = r - product;
    return q;
}

/* high 2^32 + low by d, whose highest bit is set; *high < d, and then the rest. */
static inline uint32_t divide_normal(uint32_t *high, uint32_t low, uint32_t d)
{
    uint32_t first = divide_digit(high, low >> 16, d);
    return first << 16 | divide_digit(high, low & 0xFFFFu, d);
}

/* n / d and n % d, d not 0. */
uint64_t ehmn_divide(uint64_t n, uint64_t d, uint64_t *rest)
{
    uint32_t wide = (uint32_t)(d >> 32), narrow = (uint32_t)d, high = (uint32_t)(n >> 32), low = (uint32_t)n;
    if (wide == 0) {
        uint32_t first = 0;
        if (high >= narrow) {
            first = high / narrow;
            high -= first * narrow;
        }
        if (high == 0) {
            *rest = low % narrow;
            return (uint64_t)first << 32 | low / narrow;
        }
        int shift = __builtin_clz(narrow); /* at most 31 */
        high = high << shift | low >> 1 >> (31 - shift);
        uint32_t q = divide_normal(&high, low << shift, narrow << shift);
        *rest = high >> shift;
        return (uint64_t)first << 32 | q;
    }
    /* n / 2 by the upper bits of d, which gives at most one too many. */
    int shift = __builtin_clz(wide);
    uint32_t half = high >> 1;
    uint32_t q = divide_normal(&half, high << 31 | low >> 1, (uint32_t)(d << shift >> 32)) >> (31 - shift);
    q -= q != 0;
    n -= q * d;
    uint32_t more = n >= d;
    *rest = more ? n - d : n;
    return (uint64_t)q + more;
}

/* Towards zero; the rest has the sign of what is divided. */
int64_t ehmn_divide_signed(int64_t n, int64_t d, int64_t *rest)
{
    uint64_t left;
    uint64_t quotient = ehmn_divide(n < 0 ? -(uint64_t)n : (uint64_t)n, d < 0 ? -(uint64_t)d : (uint64_t)d, &left);
    *rest = (int64_t)(n < 0 ? -left : left);
    return (int64_t)((n ^ d) < 0 ? -quotient : quotient);
}

#if defined(__arm__)

/* What the ABI asks for: the quotient in r0 and r1, the rest in r2 and r3, which the C function leaves where these two
 * were pushed. In instructions that every Cortex-M has, from the M0 on. */
#define BY(function)                            \
    __asm__ volatile("push {r2, r3, r4, lr}\n" \
                     "sub sp, #8\n"            \
                     "add r4, sp, #8\n"        \
                     "str r4, [sp]\n"          \
                     "bl " #function "\n"      \
                     "add sp, #8\n"            \
                     "pop {r2, r3, r4, pc}\n")

__attribute__((naked)) void __aeabi_uldivmod(void)
{
    BY(ehmn_divide);
}

__attribute__((naked)) void __aeabi_ldivmod(void)
{
    BY(ehmn_divide_signed);
}

#endif
