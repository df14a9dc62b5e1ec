/* Topics: notice that the text has changed, and keep one delta, a bank, for each. SPEC.md, "Topic" and "Banks". */
#include "model.h"

#include <string.h>

#define CHECK_PERIOD 16u
#define FIRST_CHECK 48u
#define MEAN_LENGTH 40u
#define CENTRE_FRAC 12
#define MOST_APART (1 << 21)  /* of one coordinate, Q12 */
#define MOST_WANDER (1 << 24) /* the same, of the direction in which a topic wanders */
#define MIN_CHECKS 20u        /* before a topic is known well enough to be left for a new one */
#define PATIENCE 6u           /* checks for which a known bank that is nearer holds back a new one */
#define SPREAD_LIMIT 23       /* eighths of its spread that a topic reaches */
#define FIRST_SPREAD 78643    /* Q16, of a topic that nothing is known of; 1.2 */
#define SPREAD_CHECKS 160u    /* that it counts for */
#define WIDE_CHECKS 40u       /* after which a topic reaches 7/16 farther, not 7/8, as at first */
#define SNAPSHOT_PERIOD 256u

_Static_assert(EHMN_MAX_BANKS <= 32u, "the banks in use are bits of a word");

static uint32_t bank_bytes(uint32_t delta_bytes)
{
    return (delta_bytes + 7u) & ~7u;
}

static void *bank_at(const ehmn_model *m, uint32_t index)
{
    return m->banks + (size_t)index * bank_bytes(m->in.total);
}

static int32_t *centre_of(const ehmn_model *m, void *delta)
{
    return (int32_t *)(void *)((uint8_t *)delta + m->in.centre);
}

static int32_t *wander_of(const ehmn_model *m, void *delta)
{
    return (int32_t *)(void *)((uint8_t *)delta + m->in.wander);
}

int32_t ehmn_banks_bytes(const void *image, uint32_t n, uint32_t *bytes)
{
    if (image == NULL || bytes == NULL || n < 2u || n > EHMN_MAX_BANKS) {
        return EHMN_E_ARGUMENT;
    }
    uint64_t total = (uint64_t)(n + 2u) * bank_bytes(ehmn_layout_delta(image).total);
    if (total > UINT32_MAX) {
        return EHMN_E_SIZE;
    }
    *bytes = (uint32_t)total;
    return EHMN_OK;
}

int32_t ehmn_banks_attach(ehmn_model *m, void *memory, uint32_t bytes, uint32_t n)
{
    uint32_t need;
    if (m == NULL || memory == NULL) {
        return EHMN_E_ARGUMENT;
    }
    if ((uintptr_t)memory % 8u != 0) {
        return EHMN_E_ALIGNMENT;
    }
    if (m->mode != EHMN_PLASTIC) {
        return EHMN_E_STATE;
    }
    int32_t status = ehmn_banks_bytes(m->image, n, &need);
    if (status != EHMN_OK || bytes < need) {
        return status != EHMN_OK ? status : EHMN_E_SIZE;
    }
    m->banks = memory;
    m->n_banks = n;
    ehmn_forget_banks(m);
    return EHMN_OK;
}

void ehmn_begin_bank(ehmn_model *m)
{
    m->snapshots = 0;
    m->entered = 0;
    m->strange = 0;
}

void ehmn_forget_banks(ehmn_model *m)
{
    m->bank = 0;
    m->used = 1u;
    ehmn_begin_bank(m);
}

/* Put into the present delta what goes on across banks: `from` is the delta before. */
static void carry_on(ehmn_delta *to, const ehmn_delta *from)
{
    to->seed = from->seed;
    to->learned = from->learned;
    to->writes = from->writes;
    to->phase = from->phase;
    to->reward = from->reward;
    to->uncertainty = from->uncertainty;
    to->novelty = from->novelty;
}

/* Where the older of two snapshots lies; NULL if there are not two. */
static const void *older_snapshot(const ehmn_model *m)
{
    return m->snapshots >= 2u ? bank_at(m, m->n_banks + m->snapshots % 2u) : NULL;
}

static void leave_bank(ehmn_model *m)
{
    const void *state = older_snapshot(m);
    memcpy(bank_at(m, m->bank), state != NULL ? state : ehmn_model_delta(m), m->in.total);
}

static void arrive(ehmn_model *m, uint32_t bank)
{
    m->bank = bank;
    m->used |= 1u << bank;
    m->changes++;
    ehmn_begin_bank(m);
}

static void enter_known(ehmn_model *m, uint32_t bank)
{
    uint32_t following = m->following;
    ehmn_end_following(m);
    ehmn_delta now = *ehmn_model_delta(m);
    leave_bank(m);
    memcpy(ehmn_model_delta(m), bank_at(m, bank), m->in.total);
    carry_on(ehmn_model_delta(m), &now);
    if (following) {
        *(ehmn_gains *)ehmn_at(m, m->at.kept) = *ehmn_model_gains(m);
        m->following = 1;
    }
    arrive(m, bank);
}

/* What is known of a topic of which one point has been seen. */
static void recentre(ehmn_model *m, const int32_t *observed)
{
    ehmn_delta *delta = ehmn_model_delta(m);
    memcpy(centre_of(m, delta), observed, 4u * m->image->d_model);
    memset(wander_of(m, delta), 0, 4u * m->image->d_model);
    delta->checks = 1;
    delta->spread = FIRST_SPREAD;
}

static void enter_new(ehmn_model *m, const int32_t *observed)
{
    uint32_t bank = m->bank;
    if (m->banks != NULL) {
        leave_bank(m);
        for (uint32_t k = 0; k < m->n_banks; k++) {
            int unused = (m->used >> k & 1u) == 0;
            int younger = bank == m->bank || ((ehmn_delta *)bank_at(m, k))->age < ((ehmn_delta *)bank_at(m, bank))->age;
            if (k != m->bank && (unused || younger)) {
                bank = k;
            }
            if (unused) {
                break;
            }
        }
    }
    arrive(m, bank);
    recentre(m, observed);
    ehmn_model_delta(m)->age = 0;
}

/* Where a point lies as seen from a topic. */
typedef struct {
    int64_t square;    /* of the distance from the centre, Q24 */
    int64_t along;     /* its part in the direction in which the topic wanders, Q12 */
    uint32_t wander;   /* length of that direction, Q12; 0: none is known */
    uint32_t distance; /* mean square without that part, Q16 */
} place;

static int32_t apart(const int32_t *observed, const int32_t *centre, uint32_t i)
{
    return ehmn_clamp(ehmn_sat32((int64_t)observed[i] - centre[i]), -MOST_APART, MOST_APART);
}

/* A sum of squares in Q24 as a mean in Q16. */
static uint32_t mean_square(const ehmn_model *m, int64_t sum)
{
    return sum > 0 ? (uint32_t)ehmn_sat32((sum >> (2 * CENTRE_FRAC - 16)) / m->image->d_model) : 0u;
}

static place place_of(const ehmn_model *m, void *delta, const int32_t *observed)
{
    const int32_t *centre = centre_of(m, delta);
    const int32_t *wander = wander_of(m, delta);
    int64_t product = 0;
    int64_t length = 0;
    place p = {0};
    for (uint32_t i = 0; i < m->image->d_model; i++) {
        int64_t e = apart(observed, centre, i);
        int64_t w = ehmn_clamp(wander[i], -MOST_WANDER, MOST_WANDER);
        p.square += e * e;
        product += e * w;
        length += w * w;
    }
    p.wander = ehmn_isqrt((uint64_t)length);
    p.along = p.wander != 0 ? ehmn_div_round(product, p.wander) : (int64_t)ehmn_isqrt((uint64_t)p.square);
    p.distance = mean_square(m, p.wander != 0 ? p.square - p.along * p.along : p.square);
    return p;
}

/* The distance up to which a topic reaches, Q16: the less is known of it, the farther. */
static uint32_t reach(const ehmn_model *m, const ehmn_delta *delta)
{
    int64_t base = (int64_t)SPREAD_LIMIT * delta->spread / 8;
    base = base > m->image->rule.topic_limit ? base : m->image->rule.topic_limit;
    return (uint32_t)ehmn_sat32(base + 7 * base * WIDE_CHECKS / (8u * (WIDE_CHECKS + delta->checks)));
}

/* The other bank that is nearest to `observed`, and how far it is; the present one if there is none. */
static uint32_t nearest_bank(const ehmn_model *m, const int32_t *observed, uint32_t *distance)
{
    uint32_t best = m->bank;
    *distance = UINT32_MAX;
    for (uint32_t k = 0; k < m->n_banks; k++) {
        if (k == m->bank || (m->used >> k & 1u) == 0 || ((ehmn_delta *)bank_at(m, k))->checks == 0) {
            continue;
        }
        uint32_t away = place_of(m, bank_at(m, k), observed).distance;
        if (away < *distance) {
            *distance = away;
            best = k;
        }
    }
    return best;
}

/* Learn where the topic lies, how far it spreads, and the direction in which it wanders: its first principal component,
 * as long as the variance along it (Weng, Zhang, Hwang, PAMI 2003). For that, no point counts for more than a usual
 * one, lest a new topic be learned as a direction of the old one. */
static void learn_place(ehmn_model *m, const int32_t *observed, place p)
{
    ehmn_delta *delta = ehmn_model_delta(m);
    int32_t *centre = centre_of(m, delta);
    int32_t *wander = wander_of(m, delta);
    int64_t all = mean_square(m, p.square);
    uint32_t most = reach(m, delta);
    int64_t along = all > delta->spread ? ehmn_div_round(p.along * delta->spread, all) : p.along;
    int32_t rate = p.wander == 0 ? 65536 : (int32_t)(65536u / (delta->checks > 2u ? delta->checks : 2u));
    delta->checks += delta->checks < EHMN_MAX_CHECKS;
    for (uint32_t i = 0; i < m->image->d_model; i++) {
        int32_t part = ehmn_round_shift(along * apart(observed, centre, i), CENTRE_FRAC);
        int32_t old = ehmn_clamp(wander[i], -MOST_WANDER, MOST_WANDER);
        int32_t change = ehmn_clamp(part, -MOST_WANDER, MOST_WANDER) - old;
        wander[i] = old + ehmn_round_fit((int64_t)change * rate, 16);
    }
    ehmn_follow_all(centre, observed, m->image->d_model, (int32_t)(65536u / delta->checks));
    int32_t distance = (int32_t)(p.distance < most ? p.distance : most);
    delta->spread = ehmn_follow_value(delta->spread, distance, (int32_t)(65536u / (SPREAD_CHECKS + delta->checks)));
}

static void check_topic(ehmn_model *m, const int32_t *observed, int learning)
{
    ehmn_delta *delta = ehmn_model_delta(m);
    uint32_t away;
    if (delta->checks == 0) {
        if (learning) {
            recentre(m, observed);
        }
        return;
    }
    place here = place_of(m, delta, observed);
    uint32_t most = reach(m, delta);
    uint32_t known = nearest_bank(m, observed, &away);
    m->distance = here.distance;
    if (known != m->bank && away < reach(m, bank_at(m, known))
        && (int64_t)away + m->image->rule.topic_margin < here.distance) {
        enter_known(m, known);
        return;
    }
    if (!learning) {
        return;
    }
    m->strange = here.distance > most && delta->checks >= MIN_CHECKS ? m->strange + 1u : 0u;
    if (m->strange >= (away < here.distance ? PATIENCE : 1u)) {
        enter_new(m, observed);
    } else if (delta->checks < MIN_CHECKS || 8u * (uint64_t)here.distance <= 5u * (uint64_t)most) {
        learn_place(m, observed, here);
    }
}

void ehmn_observe_topic(ehmn_model *m, int learning)
{
    const ehmn_image *im = m->image;
    const int32_t *x = ehmn_at(m, m->at.standard);
    int32_t *fast = ehmn_at(m, m->at.fast);
    int32_t *observed = ehmn_at(m, m->at.observed);
    if (learning && m->banks != NULL && ++m->entered % SNAPSHOT_PERIOD == 0) {
        memcpy(bank_at(m, m->n_banks + m->snapshots % 2u), ehmn_model_delta(m), m->in.total);
        m->snapshots++;
    }
    if (im->rule.topic_limit == 0) {
        return;
    }
    m->seen++;
    int32_t rate = (int32_t)(65536u / (m->seen < MEAN_LENGTH ? m->seen : MEAN_LENGTH));
    ehmn_follow_all(fast, x, im->d_model, rate);
    if (m->seen % CHECK_PERIOD == 0 && m->seen >= FIRST_CHECK) {
        ehmn_matvec(m, m->matrices + ehmn_topic_index(im), fast, EHMN_NORM_FRAC, CENTRE_FRAC, observed);
        check_topic(m, observed, learning);
    }
}

void ehmn_roll_back(ehmn_model *m)
{
    ehmn_delta now = *ehmn_model_delta(m);
    const void *state = m->banks != NULL ? older_snapshot(m) : NULL;
    if (state != NULL) {
        memcpy(ehmn_model_delta(m), state, m->in.total);
    } else {
        ehmn_delta_clear(m, now.seed);
    }
    ehmn_delta *delta = ehmn_model_delta(m);
    delta->seed = now.seed;
    delta->learned = now.learned;
    delta->writes = now.writes;
    delta->phase = now.phase;
    delta->guard_excess = 0;
}

int32_t ehmn_bank_save(const ehmn_model *m, uint32_t bank, void *out, uint32_t bytes)
{
    if (m == NULL || out == NULL || bank >= (m->n_banks > 0 ? m->n_banks : 1u)) {
        return EHMN_E_ARGUMENT;
    }
    if (m->mode != EHMN_PLASTIC || (bank != m->bank && (m->used >> bank & 1u) == 0)) {
        return EHMN_E_STATE;
    }
    return ehmn_delta_copy(m, bank == m->bank ? ehmn_model_delta(m) : bank_at(m, bank), out, bytes);
}

int32_t ehmn_bank_load(ehmn_model *m, uint32_t bank, const void *delta, uint32_t bytes)
{
    if (m == NULL || delta == NULL || bank >= (m->n_banks > 0 ? m->n_banks : 1u)) {
        return EHMN_E_ARGUMENT;
    }
    if (bank == m->bank) {
        return ehmn_delta_load(m, delta, bytes);
    }
    int32_t status = ehmn_delta_check(m, delta, bytes);
    if (status == EHMN_OK) {
        memcpy(bank_at(m, bank), delta, bytes);
        m->used |= 1u << bank;
    }
    return status;
}

int32_t ehmn_get_topic(const ehmn_model *m, ehmn_topic *topic)
{
    if (m == NULL || topic == NULL) {
        return EHMN_E_ARGUMENT;
    }
    if (m->mode != EHMN_PLASTIC) {
        return EHMN_E_STATE;
    }
    topic->bank = m->bank;
    topic->banks = 0;
    for (uint32_t used = m->used | 1u << m->bank; used != 0; used &= used - 1u) {
        topic->banks++;
    }
    topic->changes = m->changes;
    topic->distance = m->distance;
    return EHMN_OK;
}
