/* Loops of learning that are made of those of vectors.c: where an instruction set has none of its own for them
 * (vectors_neon_plastic.c). */
#include "fixed.h"
#include "kernels_tables.h"
#include "random.h"

#include <string.h>

/* Few steps are found by bisection, many by walking along. */
uint32_t ehmn_draw_row(int8_t *w, const ehmn_direction *along, int32_t rate, uint32_t *passed)
{
    uint32_t from = *passed;
    uint64_t end = (uint64_t)ehmn_abs(rate) * along->length + from;
    uint32_t writes = (uint32_t)(end >> EHMN_EVENT_FRAC);
    *passed = (uint32_t)end & ((1u << EHMN_EVENT_FRAC) - 1u);
    if (writes > along->few) {
        along->step_row(w, along->edge, along->sign, rate < 0 ? -1 : 0, along->n, ehmn_abs(rate), from);
    } else if (writes > 0) {
        ehmn_step_few(w, along, rate, from, writes);
    }
    return writes;
}

/* Where bytes are summed many at a time. */
int ehmn_has_no_step(const int8_t *w, uint32_t n, uint32_t rate, uint32_t passed)
{
#if defined(EHMN_NEON) || defined(EHMN_ASK_X86)
    return ((uint64_t)rate * ehmn_length(w, n) + passed) >> EHMN_EVENT_FRAC == 0;
#else
    (void)w;
    (void)n;
    (void)rate;
    (void)passed;
    return 0;
#endif
}

#if !defined(EHMN_NEON)

/* Most rows are closed: one comparison finds them. */
uint32_t ehmn_draw_rows(int8_t *w, const ehmn_direction *along, const int32_t *rates, uint32_t least, uint32_t *passed)
{
    const int32_t *end = rates + along->n;
    const uint32_t below = least > 0 ? least - 1u : 0u;
    uint32_t writes = 0, n = along->n;
    do {
        int32_t rate = *rates++;
        if ((uint32_t)rate + below > 2u * below) {
            writes += ehmn_draw_row(w, along, rate, passed);
        }
        w += n;
    } while (rates < end);
    return writes;
}

uint64_t ehmn_scale_within(int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t most)
{
    ehmn_scale_all(v, n, factor, shift, v);
    return ehmn_limit(v, n, most);
}

int64_t ehmn_sum_products(const int32_t *v, const int32_t *w, uint32_t n, int32_t shift,
                          void (*scale)(const int32_t *v, const int32_t *scale, uint32_t n, int32_t shift,
                                        int32_t *out),
                          int32_t *room)
{
    scale(v, w, n, shift, room);
    return ehmn_sum(room, n);
}

/* `rest`: of the block that has been begun, what is not passed. */
uint32_t ehmn_find_quantiles(const ehmn_probabilities *of, uint64_t ahead, uint64_t step, uint32_t n, uint32_t *drawn)
{
    const uint32_t *sum = of->sums, *first = drawn;
    uint64_t rest = sum != NULL ? 0u : of->mass;
    uint32_t k = 0, next = 0;
    while (n > 0) {
        if (ahead >= rest) {
            for (ahead -= rest; ahead >= *sum; next += of->block) {
                ahead -= *sum++;
            }
            rest = *sum++;
            k = next;
            next += of->block;
        }
        uint64_t before = ahead;
        k += ehmn_pass_over(of->logits + k, of->n - k, of->max, &ahead);
        uint32_t p = ehmn_exp2_neg((uint32_t)(of->max - of->logits[k]));
        rest -= before - ahead + p;
        uint32_t found = k;
        for (; ahead < p && n > 0; ahead += step, n--) {
            found += EHMN_DRAWN_ONCE;
        }
        *drawn++ = found;
        ahead -= p;
        k++;
    }
    return (uint32_t)(drawn - first);
}

/* `most`: at most what any of v can be, before the shift that all rows have; as long as it is far from 32 bits, nothing
 * saturates. */
void ehmn_sum_rows(int32_t *v, const ehmn_rows *of, uint32_t token, uint32_t many, const uint32_t *drawn, uint32_t n)
{
    int32_t shift = of->shift, factor = (int32_t)many;
    uint64_t most = 0;
    memset(v, 0, 4u * (size_t)of->n);
    for (const uint32_t *end = drawn + n;; drawn++) {
        const int8_t *w = of->w + (size_t)token * of->n;
        int32_t scale = of->scale[token];
        most += 127u * (uint64_t)ehmn_abs(factor) * (uint32_t)scale;
        if (shift > 0 && shift < 62 && most >> shift < 1u << 30) {
            ehmn_add_weights_within(v, w, of->n, factor, scale, shift);
        } else {
            ehmn_add_weights(v, w, of->n, factor, scale, shift);
        }
        if (drawn == end) {
            return;
        }
        token = ehmn_drawn_token(*drawn);
        factor = -ehmn_drawn_times(*drawn);
    }
}

void ehmn_random_firsts(uint64_t seed, uint32_t stream, uint64_t counter, uint32_t out[4])
{
    for (uint32_t k = 0; k < 4u; k++) {
        uint32_t random[4];
        ehmn_random(seed, stream + k, counter, random);
        out[k] = random[0];
    }
}

#endif
