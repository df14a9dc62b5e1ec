/* The steps of rows of weights, for aarch64: of one row, and of those of many that are open, four at a time. */
#include "vectors_neon.h"

#if defined(EHMN_NEON)

#include "kernels_tables.h"

#include <stddef.h>

/* A row of weights that is to be stepped: of those that go against the direction, rate and place are complements, which
 * turns the differences of places around. */
typedef struct {
    int8_t *w;
    uint32_t rate;
    uint32_t at;
} row_steps;

/* The last weights of a row of n, less than sixteen. */
static void step_rest(row_steps row, const uint32_t *edge, const int8_t *sign, uint32_t n)
{
    uint32_t whole = n & ~15u;
    uint32_t last = (row.at + (whole > 0 ? row.rate * edge[whole - 1u] : 0u)) >> 24;
    for (uint32_t i = whole; i < n; i++) {
        uint32_t now = (row.at + row.rate * edge[i]) >> 24;
        int32_t steps = (int8_t)(now - last);
        row.w[i] = (int8_t)ehmn_clamp(row.w[i] + (sign[i] < 0 ? -steps : steps), -127, 127);
        last = now;
    }
}

/* The upper bytes of the places of sixteen weights on the line. An addition that keeps upper halves brings what is
 * added and the first half of the way to the bytes. */
static inline uint8x16_t places_of(const uint32x4_t *edge, uint32x4_t rate, uint32x4_t at)
{
    uint16x8_t low = vaddhn_high_u32(vaddhn_u32(vmulq_u32(edge[0], rate), at), vmulq_u32(edge[1], rate), at);
    uint16x8_t high = vaddhn_high_u32(vaddhn_u32(vmulq_u32(edge[2], rate), at), vmulq_u32(edge[3], rate), at);
    return vuzp2q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
}

/* Sixteen weights w, moved by as many steps as lie between places, of which the last before them is in
 * `before`. `way`: 1 or -1. */
static inline int8x16_t moved(int8x16_t w, uint8x16_t before, uint8x16_t now, int8x16_t way)
{
    int8x16_t steps = vreinterpretq_s8_u8(vsubq_u8(now, vextq_u8(before, now, 15)));
    return vmaxq_s8(vqaddq_s8(w, vmulq_s8(steps, way)), vdupq_n_s8(-127));
}

static inline int8x16_t way_of(const int8_t *sign)
{
    return vorrq_s8(vld1q_s8(sign), vdupq_n_s8(1));
}

static inline uint32x4x4_t next_edges(const uint32_t **edge)
{
    uint32x4x4_t sixteen = vld1q_u32_x4(*edge);
    *edge += 16;
    EHMN_KEEP_POINTER(*edge);
    return sixteen;
}

static void step_one(row_steps row, const uint32_t *edge, const int8_t *sign, uint32_t n)
{
    const uint32x4_t rate = vdupq_n_u32(row.rate), at = vdupq_n_u32(row.at);
    const uint32_t *from = edge;
    const int8_t *way = sign;
    uint8x16_t before = vreinterpretq_u8_u32(at);
    int8_t *w = row.w;
    if (n & 16u) {
        uint8x16_t now = places_of(next_edges(&from).val, rate, at);
        vst1q_s8(w, moved(vld1q_s8(w), before, now, way_of(way)));
        before = now;
        w += 16;
        way += 16;
    }
    for (uint32_t left = n / 32u; left > 0; left--, w += 32, way += 32) {
        uint32x4x4_t e = next_edges(&from), f = next_edges(&from);
        uint8x16_t now = places_of(e.val, rate, at), then = places_of(f.val, rate, at);
        int8x16_t a = moved(vld1q_s8(w), before, now, way_of(way));
        int8x16_t b = moved(vld1q_s8(w + 16), now, then, way_of(way + 16));
        vst1q_s8(w, a);
        vst1q_s8(w + 16, b);
        before = then;
    }
    step_rest(row, edge, sign, n);
}

void ehmn_kernels_neon_step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n,
                                uint32_t rate, uint32_t at)
{
    row_steps row = {w, flip ? 0u - rate : rate, at ^ (uint32_t)flip};
    step_one(row, edge, sign, n);
}

/* A direction as rows are stepped along it, sixteen weights at a time. */
typedef struct {
    uint32_t far[EHMN_MAX_D_MODEL]; /* from an edge to the one sixteen weights on, the first sixteen from zero */
    int8_t way[EHMN_MAX_D_MODEL];   /* 1 or -1 */
} strides;

static void make_strides(strides *to, const ehmn_direction *along)
{
    const uint32_t *edge = along->edge;
    const int8_t *sign = along->sign;
    uint32_t *far = to->far;
    int8_t *way = to->way;
    for (uint32_t left = along->n / 16u; left > 0; left--, far += 16, sign += 16, way += 16) {
        uint32x4x4_t now = next_edges(&edge);
        if (far > to->far) {
            uint32x4x4_t before = vld1q_u32_x4(edge - 32);
            for (uint32_t k = 0; k < 4u; k++) {
                now.val[k] = vsubq_u32(now.val[k], before.val[k]);
            }
        }
        vst1q_u32_x4(far, now);
        vst1q_s8(way, way_of(sign));
    }
}

/* clang-format off */
/* The places p0 to p3 of sixteen weights of a row go on to those of the next sixteen. */
#define GO_ON(p0, p1, p2, p3, lane)                 \
    "mla " p0 ".4s, v16.4s, v22.s[" lane "]\n"      \
    "mla " p1 ".4s, v17.4s, v22.s[" lane "]\n"      \
    "mla " p2 ".4s, v18.4s, v22.s[" lane "]\n"      \
    "mla " p3 ".4s, v19.4s, v22.s[" lane "]\n"

#define OF_FOUR(in, b0, b1, b2, b3, n0, n1, n2, n3) in(b0, n0) in(b1, n1) in(b2, n2) in(b3, n3)
#define LESS_BEFORE(b, n) "ext " b ".16b, " b ".16b, " n ".16b, #15\n"
#define STEPS(b, n) "sub " b ".16b, " n ".16b, " b ".16b\n"
#define THEIR_WAY(b, n) "mul " b ".16b, " b ".16b, v20.16b\n"

/* Sixteen weights of each row, by the upper bytes of the places, of which those before are in b0 to b3, and which come
 * into n0 to n3. */
#define SIXTEEN(b0, b1, b2, b3, n0, n1, n2, n3)                                         \
    "ld1 {v16.4s-v19.4s}, [%[far]], #64\n"                                              \
    "ldr q20, [%[way]], #16\n"                                                          \
    GO_ON("v0", "v1", "v2", "v3", "0")                                                  \
    GO_ON("v4", "v5", "v6", "v7", "1")                                                  \
    GO_ON("v8", "v9", "v10", "v11", "2")                                                \
    GO_ON("v12", "v13", "v14", "v15", "3")                                              \
    "tbl " n0 ".16b, {v0.16b-v3.16b}, v21.16b\n"                                        \
    "tbl " n1 ".16b, {v4.16b-v7.16b}, v21.16b\n"                                        \
    "tbl " n2 ".16b, {v8.16b-v11.16b}, v21.16b\n"                                       \
    "tbl " n3 ".16b, {v12.16b-v15.16b}, v21.16b\n"                                      \
    "ldr q16, [%[w0]]\n"                                                                \
    "ldr q17, [%[w1]]\n"                                                                \
    "ldr q18, [%[w2]]\n"                                                                \
    "ldr q19, [%[w3]]\n"                                                                \
    OF_FOUR(LESS_BEFORE, b0, b1, b2, b3, n0, n1, n2, n3)                                \
    OF_FOUR(STEPS, b0, b1, b2, b3, n0, n1, n2, n3)                                      \
    OF_FOUR(THEIR_WAY, b0, b1, b2, b3, n0, n1, n2, n3)                                  \
    "sqadd v16.16b, v16.16b, " b0 ".16b\n"                                              \
    "sqadd v17.16b, v17.16b, " b1 ".16b\n"                                              \
    "sqadd v18.16b, v18.16b, " b2 ".16b\n"                                              \
    "sqadd v19.16b, v19.16b, " b3 ".16b\n"                                              \
    "smax v16.16b, v16.16b, v23.16b\n"                                                  \
    "smax v17.16b, v17.16b, v23.16b\n"                                                  \
    "smax v18.16b, v18.16b, v23.16b\n"                                                  \
    "smax v19.16b, v19.16b, v23.16b\n"                                                  \
    "str q16, [%[w0]], #16\n"                                                           \
    "str q17, [%[w1]], #16\n"                                                           \
    "str q18, [%[w2]], #16\n"                                                           \
    "str q19, [%[w3]], #16\n"

#define FOUR_TIMES(p0, p1, p2, p3, lane)            \
    "dup " p0 ".4s, v20.s[" lane "]\n"              \
    "dup " p1 ".4s, v20.s[" lane "]\n"              \
    "dup " p2 ".4s, v20.s[" lane "]\n"              \
    "dup " p3 ".4s, v20.s[" lane "]\n"

/* All whole sixteens, at least one, of four times as many rows as `fours` says, at least one, in every register that
 * there is: the compiler would move the places, of which a look up takes four registers that follow each other.
 * v20: where the rows begin, then the ways; v21: what is looked up; v22: the rates; v23: the least weight. The upper
 * bytes before are in v24 to v27 and in v28 to v31 in turn. */
static void step_sixteens(int8_t *const *w, const int32_t *rate, const uint32_t *at, uint32_t fours, const strides *by,
                          uint32_t sixteens)
{
    static const uint8_t upper[16] = {3, 7, 11, 15, 19, 23, 27, 31, 35, 39, 43, 47, 51, 55, 59, 63};
    int8_t *w0, *w1, *w2, *w3;
    const uint32_t *far;
    const int8_t *way;
    uint32_t left;
    __asm__ volatile(
        "ldr q21, [%[upper]]\n"
        "movi v23.16b, #0x81\n"
        "1:\n"
        "ldr q20, [%[at]], #16\n"
        "ldr q22, [%[rate]], #16\n"
        "ldp %[w0], %[w1], [%[w]], #16\n"
        "ldp %[w2], %[w3], [%[w]], #16\n"
        "mov %[far], %[fars]\n"
        "mov %[way], %[ways]\n"
        "mov %w[left], %w[sixteens]\n"
        FOUR_TIMES("v0", "v1", "v2", "v3", "0")
        FOUR_TIMES("v4", "v5", "v6", "v7", "1")
        FOUR_TIMES("v8", "v9", "v10", "v11", "2")
        FOUR_TIMES("v12", "v13", "v14", "v15", "3")
        "mov v24.16b, v0.16b\n"
        "mov v25.16b, v4.16b\n"
        "mov v26.16b, v8.16b\n"
        "mov v27.16b, v12.16b\n"
        "2:\n"
        SIXTEEN("v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31")
        "subs %w[left], %w[left], #2\n"
        "b.lo 3f\n"
        SIXTEEN("v28", "v29", "v30", "v31", "v24", "v25", "v26", "v27")
        "b.hi 2b\n"
        "3:\n"
        "subs %w[fours], %w[fours], #1\n"
        "b.ne 1b\n"
        : [w0] "=&r"(w0), [w1] "=&r"(w1), [w2] "=&r"(w2), [w3] "=&r"(w3), [far] "=&r"(far), [way] "=&r"(way),
          [left] "=&r"(left), [w] "+&r"(w), [rate] "+&r"(rate), [at] "+&r"(at), [fours] "+&r"(fours)
        : [upper] "r"(upper), [fars] "r"(by->far), [ways] "r"(by->way), [sixteens] "r"(sixteens)
        : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16",
          "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31",
          "cc", "memory");
}
/* clang-format on */

/* Bit i: of v[64] the i-th, plus `below`, is above twice that. */
static inline uint64_t which_are_open(const int32_t *v, uint32_t below)
{
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint32x4_t by = vdupq_n_u32(below), most = vdupq_n_u32(2u * below);
    const uint8x16_t place = vld1q_u8(places);
    uint8x16_t bits[4];
    for (uint32_t k = 0; k < 4u; k++, v += 16) {
        uint32x4_t open[4];
        for (uint32_t i = 0; i < 4u; i++) {
            open[i] = vcgtq_u32(vaddq_u32(vreinterpretq_u32_s32(vld1q_s32(v + 4u * i)), by), most);
        }
        uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(open[0]), vreinterpretq_u16_u32(open[1]));
        uint16x8_t high = vuzp1q_u16(vreinterpretq_u16_u32(open[2]), vreinterpretq_u16_u32(open[3]));
        bits[k] = vandq_u8(vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)), place);
    }
    uint8x16_t all = vpaddq_u8(vpaddq_u8(bits[0], bits[1]), vpaddq_u8(bits[2], bits[3]));
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(all, all)), 0);
}

#define MOST_OPEN (64u + 3u)

/* Rows that are open, in their order. */
typedef struct {
    int8_t *w[MOST_OPEN];
    int32_t rate[MOST_OPEN];
    uint32_t count;
    uint32_t at;  /* where the first of them begins, on the line of all rows: of whole steps only differences count */
    uint64_t sum; /* of the magnitudes of the rates of those that were stepped */
} open_rows;

/* Those of the next 64 rates v; the rows themselves begin at w. */
static void add_open(open_rows *rows, const int32_t *v, uint32_t below, int8_t *w, size_t n)
{
    int8_t **row = rows->w + rows->count;
    int32_t *rate = rows->rate + rows->count;
    for (uint64_t open = which_are_open(v, below); open != 0; open &= open - 1u) {
        uint64_t r = (uint64_t)__builtin_ctzll(open);
        *row++ = w + r * n;
        *rate++ = v[r];
    }
    rows->count = (uint32_t)(rate - rows->rate);
}

/* Where rows begin, the first `some` of them, whole fours; complements of those that go against the direction. */
static void find_places(open_rows *rows, uint32_t some, uint32_t length, uint32_t *at)
{
    const uint32x4_t zero = vdupq_n_u32(0), lengths = vdupq_n_u32(length);
    uint32x4_t from = vdupq_n_u32(rows->at);
    uint64x2_t sum = vdupq_n_u64(0);
    const int32_t *rate = rows->rate;
    for (const uint32_t *end = at + some; at < end; at += 4, rate += 4) {
        int32x4_t r = vld1q_s32(rate);
        uint32x4_t magnitude = vreinterpretq_u32_s32(vabsq_s32(r)), far = vmulq_u32(magnitude, lengths);
        uint32x4_t to = vaddq_u32(far, vextq_u32(zero, far, 3));
        to = vaddq_u32(vaddq_u32(to, vextq_u32(zero, to, 2)), from);
        vst1q_u32(at, veorq_u32(vsubq_u32(to, far), vcltzq_s32(r)));
        from = vdupq_laneq_u32(to, 3);
        sum = vpadalq_u32(sum, magnitude);
    }
    rows->at = vgetq_lane_u32(from, 0);
    rows->sum += vaddvq_u64(sum);
}

/* Step all whole fours; the others move to the beginning. */
static void step_fours(open_rows *rows, const ehmn_direction *along, const strides *by)
{
    const uint32_t n = along->n, some = rows->count & ~3u;
    uint32_t at[MOST_OPEN];
    if (some == 0) {
        return;
    }
    find_places(rows, some, along->length, at);
    if (n >= 16u) {
        step_sixteens(rows->w, rows->rate, at, some / 4u, by, n / 16u);
    }
    for (uint32_t k = 0; n % 16u != 0 && k < some; k++) {
        row_steps row = {rows->w[k], (uint32_t)rows->rate[k], at[k]};
        step_rest(row, along->edge, along->sign, n);
    }
    rows->count -= some;
    for (uint32_t k = 0; k < rows->count; k++) {
        rows->w[k] = rows->w[some + k];
        rows->rate[k] = rows->rate[some + k];
    }
}

/* Those that are left. */
static void step_each(open_rows *rows, const ehmn_direction *along)
{
    for (uint32_t k = 0; k < rows->count; k++) {
        int32_t rate = rows->rate[k];
        row_steps row = {rows->w[k], (uint32_t)rate, rows->at ^ (uint32_t)(rate >> 31)};
        step_one(row, along->edge, along->sign, along->n);
        rows->at += ehmn_abs(rate) * along->length;
        rows->sum += ehmn_abs(rate);
    }
}

/* Most rows are closed, none knows which: they are found by bits, not by branches. The others are stepped four at a
 * time, however few steps they have: above the limit those are rare. */
uint32_t ehmn_draw_rows(int8_t *w, const ehmn_direction *along, const int32_t *rates, uint32_t least, uint32_t *passed)
{
    const uint32_t n = along->n, below = least > 0 ? least - 1u : 0u;
    open_rows rows;
    strides by;
    rows.count = 0;
    rows.at = *passed;
    rows.sum = 0;
    make_strides(&by, along);
    for (uint32_t left = n; left > 0; left -= left < 64u ? left : 64u, rates += 64, w += 64u * (size_t)n) {
        int32_t some[64];
        const int32_t *v = rates;
        if (left < 64u) {
            memset(some, 0, sizeof some);
            v = memcpy(some, v, 4u * (size_t)left);
        }
        add_open(&rows, v, below, w, n);
        step_fours(&rows, along, &by);
    }
    step_each(&rows, along);
    uint64_t end = rows.sum * along->length + *passed;
    *passed = (uint32_t)end & ((1u << EHMN_EVENT_FRAC) - 1u);
    return (uint32_t)(end >> EHMN_EVENT_FRAC);
}

#endif
