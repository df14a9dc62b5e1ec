/* Topics: notice that the text has changed, and keep one delta, a bank, for each. SPEC.md, "Topic" and "Banks". */
#include "model.h"

#include <string.h>

#define CHECK_PERIOD 16u
#define FIRST_CHECK 48u
#define MEAN_LENGTH 64u
#define CENTRE_FRAC 12
#define MIN_CHECKS 20u  /* before a topic is known well enough to be left for a new one */
#define STRANGE 3u  /* checks in a row make a topic new */
#define FAMILIAR 2u /* checks in a row bring a known one back */
#define SNAPSHOT_PERIOD 256u

_Static_assert(EHMN_MAX_BANKS <= 32u, "the banks in use are bits of a word");

static uint32_t bank_bytes(const ehmn_image *im)
{
    return (ehmn_layout_delta(im).total + 7u) & ~7u;
}

static void *bank_at(const ehmn_model *m, uint32_t index)
{
    return m->banks + (size_t)index * bank_bytes(m->image);
}

static int32_t *centre_of(const ehmn_model *m, void *delta)
{
    return (int32_t *)(void *)((uint8_t *)delta + ehmn_layout_delta(m->image).centre);
}

int32_t ehmn_banks_bytes(const void *image, uint32_t n, uint32_t *bytes)
{
    if (image == NULL || bytes == NULL || n < 2u || n > EHMN_MAX_BANKS) {
        return EHMN_E_ARGUMENT;
    }
    uint64_t total = (uint64_t)(n + 2u) * bank_bytes(image);
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
    m->familiar = 0;
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
    memcpy(bank_at(m, m->bank), state != NULL ? state : ehmn_model_delta(m), ehmn_layout_delta(m->image).total);
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
    memcpy(ehmn_model_delta(m), bank_at(m, bank), ehmn_layout_delta(m->image).total);
    carry_on(ehmn_model_delta(m), &now);
    if (following) {
        *(ehmn_gains *)ehmn_at(m, m->at.kept) = *ehmn_model_gains(m);
        m->following = 1;
    }
    arrive(m, bank);
}

static void recentre(ehmn_model *m, const int32_t *observed)
{
    memcpy(centre_of(m, ehmn_model_delta(m)), observed, 4u * m->image->d_model);
    ehmn_model_delta(m)->checks = 1;
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

/* Mean squared distance of two points, Q16. */
static uint32_t distance_between(const ehmn_model *m, const int32_t *a, const int32_t *b)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < m->image->d_model; i++) {
        uint64_t apart = ehmn_abs(ehmn_sat32((int64_t)a[i] - b[i]));
        sum += apart * apart >> (2 * CENTRE_FRAC - 16);
    }
    return (uint32_t)ehmn_sat32((int64_t)(sum / m->image->d_model));
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
        uint32_t apart = distance_between(m, observed, centre_of(m, bank_at(m, k)));
        if (apart < *distance) {
            *distance = apart;
            best = k;
        }
    }
    return best;
}

static void check_topic(ehmn_model *m, const int32_t *observed, int learning)
{
    const ehmn_rule *rule = &m->image->rule;
    ehmn_delta *delta = ehmn_model_delta(m);
    int32_t *centre = centre_of(m, delta);
    uint32_t apart;
    if (delta->checks == 0) {
        if (learning) {
            recentre(m, observed);
        }
        return;
    }
    m->distance = distance_between(m, observed, centre);
    uint32_t limit = (uint32_t)rule->topic_limit;
    uint32_t known = nearest_bank(m, observed, &apart);
    int nearer = known != m->bank && apart < limit && (int64_t)apart + rule->topic_margin < m->distance;
    m->familiar = nearer ? m->familiar + 1u : 0u;
    if (m->familiar == FAMILIAR) {
        enter_known(m, known);
        return;
    }
    if (!learning) {
        return;
    }
    int far = m->distance > limit;
    m->strange = far && delta->checks >= MIN_CHECKS ? m->strange + 1u : 0u;
    if (m->strange == STRANGE) {
        enter_new(m, observed);
    } else if (!far || delta->checks < MIN_CHECKS) {
        delta->checks += delta->checks < EHMN_MAX_CHECKS;
        for (uint32_t i = 0; i < m->image->d_model; i++) {
            centre[i] = ehmn_follow_value(centre[i], observed[i], (int32_t)(65536u / delta->checks));
        }
    }
}

void ehmn_observe_topic(ehmn_model *m, int learning)
{
    const ehmn_image *im = m->image;
    const int32_t *x = ehmn_at(m, m->at.standard);
    int32_t *fast = ehmn_at(m, m->at.fast);
    int32_t *observed = ehmn_at(m, m->at.observed);
    if (learning && m->banks != NULL && ++m->entered % SNAPSHOT_PERIOD == 0) {
        memcpy(bank_at(m, m->n_banks + m->snapshots % 2u), ehmn_model_delta(m), ehmn_layout_delta(im).total);
        m->snapshots++;
    }
    if (im->rule.topic_limit == 0) {
        return;
    }
    m->seen++;
    int32_t rate = (int32_t)(65536u / (m->seen < MEAN_LENGTH ? m->seen : MEAN_LENGTH));
    for (uint32_t i = 0; i < im->d_model; i++) {
        fast[i] = ehmn_follow_value(fast[i], x[i], rate);
    }
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
        memcpy(ehmn_model_delta(m), state, ehmn_layout_delta(m->image).total);
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
