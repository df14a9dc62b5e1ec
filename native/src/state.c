/* Two slots of flash. Every function looks at the flash anew: there is no state in memory that could contradict it. */
#include "edgehmn_state.h"

#include <string.h>

#define NOWHERE UINT32_MAX
#define BLANK 0xFFu
#define CHUNK 256u /* bytes that one call of the driver programs at most */

#define MARK_CONFIRMED EHMN_STATE_TRIALS
#define MARK_DROPPED (EHMN_STATE_TRIALS + 1u)
#define MARKS (EHMN_STATE_TRIALS + 2u)

typedef struct {
    uint32_t at; /* of the record in the region; NOWHERE: none */
    uint32_t sequence;
} place;

typedef struct {
    place newest;      /* sound record with the highest sequence, dropped or not */
    place confirmed;
    place provisional; /* newer than the confirmed one, neither confirmed nor dropped */
    uint32_t room[2];  /* where the blank rest of each slot begins; NOWHERE: none */
} survey;

static int is_flash(const ehmn_flash *f)
{
    return f != NULL && f->base != NULL && (uintptr_t)f->base % 8u == 0 && f->erase != NULL && f->program != NULL
        && f->unit >= 8u && f->unit <= EHMN_STATE_MAX_UNIT && (f->unit & (f->unit - 1u)) == 0 && f->sector_bytes != 0
        && f->sector_bytes % f->unit == 0 && f->slot_sectors != 0
        && f->slot_sectors <= (UINT32_MAX / 4u) / f->sector_bytes;
}

static uint32_t slot_bytes(const ehmn_flash *f)
{
    return f->slot_sectors * f->sector_bytes;
}

static uint32_t in_units(const ehmn_flash *f, uint32_t bytes)
{
    return (bytes + f->unit - 1u) & ~(f->unit - 1u);
}

static uint32_t mark_at(const ehmn_flash *f, uint32_t record, uint32_t mark)
{
    return record + in_units(f, sizeof(ehmn_state_record)) + mark * f->unit;
}

static uint32_t data_at(const ehmn_flash *f, uint32_t record)
{
    return mark_at(f, record, MARKS);
}

uint32_t ehmn_state_record_bytes(const ehmn_flash *flash, uint32_t bytes)
{
    return data_at(flash, 0) + in_units(flash, bytes);
}

static int is_blank(const ehmn_flash *f, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        if (f->base[i] != BLANK) {
            return 0;
        }
    }
    return 1;
}

static int is_marked(const ehmn_flash *f, uint32_t record, uint32_t mark)
{
    uint32_t at = mark_at(f, record, mark);
    return !is_blank(f, at, at + f->unit);
}

/* The record at an offset, if a whole header stands there whose state ends before `end`. */
static int read_record(const ehmn_flash *f, uint32_t at, uint32_t end, ehmn_state_record *record)
{
    uint32_t head = data_at(f, 0);
    if (end - at < head) {
        return 0;
    }
    memcpy(record, f->base + at, sizeof *record);
    return record->magic == EHMN_STATE_MAGIC && record->version == EHMN_STATE_VERSION && record->sequence != 0
        && record->bytes <= end - at - head && in_units(f, record->bytes) <= end - at - head
        && ehmn_crc32(0, record, (uint32_t)offsetof(ehmn_state_record, crc32)) == record->crc32;
}

static void keep_newer(place *kept, uint32_t at, uint32_t sequence)
{
    if (kept->at == NOWHERE || sequence > kept->sequence) {
        kept->at = at;
        kept->sequence = sequence;
    }
}

/* Look at the records of one slot. The rest behind them is room only if it is blank: what a loss of power left there
 * makes the slot full. */
static void survey_slot(const ehmn_flash *f, uint32_t slot, survey *s)
{
    uint32_t at = slot * slot_bytes(f);
    uint32_t end = at + slot_bytes(f);
    ehmn_state_record record;
    while (read_record(f, at, end, &record)) {
        if (ehmn_crc32(0, f->base + data_at(f, at), record.bytes) == record.data_crc) {
            keep_newer(&s->newest, at, record.sequence);
            if (!is_marked(f, at, MARK_DROPPED)) {
                keep_newer(is_marked(f, at, MARK_CONFIRMED) ? &s->confirmed : &s->provisional, at, record.sequence);
            }
        }
        at += ehmn_state_record_bytes(f, record.bytes);
    }
    s->room[slot] = is_blank(f, at, end) ? at : NOWHERE;
}

static survey look(const ehmn_flash *f)
{
    survey s;
    memset(&s, 0, sizeof s);
    s.newest.at = NOWHERE;
    s.confirmed.at = NOWHERE;
    s.provisional.at = NOWHERE;
    survey_slot(f, 0, &s);
    survey_slot(f, 1, &s);
    if (s.provisional.sequence <= s.confirmed.sequence) {
        s.provisional.at = NOWHERE;
        s.provisional.sequence = 0;
    }
    return s;
}

static uint32_t trials_of(const ehmn_flash *f, uint32_t record)
{
    uint32_t n = 0;
    while (n < EHMN_STATE_TRIALS && is_marked(f, record, n)) {
        n++;
    }
    return n;
}

static void describe(const ehmn_flash *f, const survey *s, ehmn_state *state)
{
    const place *p = s->provisional.at != NOWHERE ? &s->provisional : &s->confirmed;
    memset(state, 0, sizeof *state);
    state->slot_bytes = slot_bytes(f);
    if (p->at != NOWHERE) {
        ehmn_state_record record;
        memcpy(&record, f->base + p->at, sizeof record);
        state->sequence = p->sequence;
        state->confirmed = s->confirmed.sequence;
        state->offset = data_at(f, p->at);
        state->bytes = record.bytes;
        state->trials = trials_of(f, p->at);
        memcpy(state->image_id, record.image_id, EHMN_ID_BYTES);
    }
}

int32_t ehmn_state_find(const ehmn_flash *flash, ehmn_state *state)
{
    if (!is_flash(flash) || state == NULL) {
        return EHMN_E_ARGUMENT;
    }
    survey s = look(flash);
    describe(flash, &s, state);
    return EHMN_OK;
}

/* Program whole units, the last one filled up, and look that they are there. */
static int32_t program(const ehmn_flash *f, uint32_t at, const void *bytes, uint32_t count)
{
    const uint8_t *p = bytes;
    uint8_t chunk[CHUNK];
    for (uint32_t done = 0; done < count; done += CHUNK) {
        uint32_t n = count - done < CHUNK ? count - done : CHUNK;
        memset(chunk, BLANK, sizeof chunk);
        memcpy(chunk, p + done, n);
        int32_t status = f->program(f->context, at + done, chunk, in_units(f, n));
        if (status != EHMN_OK || memcmp(f->base + at + done, chunk, in_units(f, n)) != 0) {
            return EHMN_STATE_E_FLASH;
        }
    }
    return EHMN_OK;
}

static int32_t set_mark(const ehmn_flash *f, uint32_t record, uint32_t mark)
{
    static const uint8_t zeros[EHMN_STATE_MAX_UNIT] = {0};
    return is_marked(f, record, mark) ? EHMN_OK : program(f, mark_at(f, record, mark), zeros, f->unit);
}

/* The first sector goes first, and with it the header that makes the slot's records count. */
static int32_t erase_slot(const ehmn_flash *f, uint32_t slot)
{
    uint32_t begin = slot * slot_bytes(f);
    for (uint32_t i = 0; i < f->slot_sectors; i++) {
        uint32_t at = begin + i * f->sector_bytes;
        if (is_blank(f, at, at + f->sector_bytes)) {
            continue;
        }
        if (f->erase(f->context, at) != EHMN_OK || !is_blank(f, at, at + f->sector_bytes)) {
            return EHMN_STATE_E_FLASH;
        }
    }
    return EHMN_OK;
}

int32_t ehmn_state_begin(const ehmn_flash *flash, const uint8_t *image_id, ehmn_state *state)
{
    if (image_id == NULL || state == NULL || !is_flash(flash)) {
        return EHMN_E_ARGUMENT;
    }
    survey s = look(flash);
    describe(flash, &s, state);
    if (state->sequence != 0 && memcmp(state->image_id, image_id, EHMN_ID_BYTES) != 0) {
        return EHMN_E_IMAGE_ID;
    }
    if (s.provisional.at == NOWHERE) {
        return EHMN_OK;
    }
    if (state->trials < EHMN_STATE_TRIALS) {
        int32_t status = set_mark(flash, s.provisional.at, state->trials);
        state->trials += status == EHMN_OK;
        return status;
    }
    int32_t status = set_mark(flash, s.provisional.at, MARK_DROPPED);
    s = look(flash);
    describe(flash, &s, state);
    return status != EHMN_OK || state->sequence == 0 || memcmp(state->image_id, image_id, EHMN_ID_BYTES) == 0
        ? status
        : EHMN_E_IMAGE_ID;
}

/* Where a record of `need` bytes goes, the slot erased if that is needed. */
static int32_t make_room(const ehmn_flash *f, const survey *s, uint32_t need, uint32_t *at)
{
    uint32_t size = slot_bytes(f);
    uint32_t newest = s->newest.at == NOWHERE ? 0 : s->newest.at / size;
    uint32_t room = s->room[newest];
    if (room != NOWHERE && (newest + 1u) * size - room >= need) {
        *at = room;
        return EHMN_OK;
    }
    uint32_t slot = s->confirmed.at == NOWHERE ? 1u - newest : 1u - s->confirmed.at / size;
    *at = slot * size;
    return erase_slot(f, slot);
}

int32_t ehmn_state_store(const ehmn_flash *flash, const uint8_t *image_id, const void *bytes, uint32_t count)
{
    if (!is_flash(flash) || image_id == NULL || bytes == NULL) {
        return EHMN_E_ARGUMENT;
    }
    survey s = look(flash);
    ehmn_state present;
    describe(flash, &s, &present);
    if (present.sequence != 0 && memcmp(present.image_id, image_id, EHMN_ID_BYTES) != 0) {
        return EHMN_E_IMAGE_ID;
    }
    if (s.provisional.at != NOWHERE) {
        return EHMN_E_STATE;
    }
    uint32_t most = slot_bytes(flash);
    if (count > most || ehmn_state_record_bytes(flash, count) > most || s.newest.sequence == UINT32_MAX) {
        return EHMN_E_SIZE;
    }
    ehmn_state_record record;
    memset(&record, 0, sizeof record);
    record.magic = EHMN_STATE_MAGIC;
    record.version = EHMN_STATE_VERSION;
    record.sequence = s.newest.sequence + 1u;
    record.bytes = count;
    record.data_crc = ehmn_crc32(0, bytes, count);
    memcpy(record.image_id, image_id, EHMN_ID_BYTES);
    record.crc32 = ehmn_crc32(0, &record, (uint32_t)offsetof(ehmn_state_record, crc32));
    uint32_t at = 0;
    int32_t status = make_room(flash, &s, ehmn_state_record_bytes(flash, count), &at);
    if (status == EHMN_OK) {
        status = program(flash, data_at(flash, at), bytes, count);
    }
    return status == EHMN_OK ? program(flash, at, &record, sizeof record) : status;
}

static int32_t mark_provisional(const ehmn_flash *flash, uint32_t mark)
{
    if (!is_flash(flash)) {
        return EHMN_E_ARGUMENT;
    }
    survey s = look(flash);
    return s.provisional.at == NOWHERE ? EHMN_E_STATE : set_mark(flash, s.provisional.at, mark);
}

int32_t ehmn_state_confirm(const ehmn_flash *flash)
{
    return mark_provisional(flash, MARK_CONFIRMED);
}

int32_t ehmn_state_drop(const ehmn_flash *flash)
{
    return mark_provisional(flash, MARK_DROPPED);
}

int32_t ehmn_state_wipe(const ehmn_flash *flash)
{
    if (!is_flash(flash)) {
        return EHMN_E_ARGUMENT;
    }
    int32_t first = erase_slot(flash, 0);
    int32_t second = erase_slot(flash, 1);
    return first == EHMN_OK ? second : first;
}
