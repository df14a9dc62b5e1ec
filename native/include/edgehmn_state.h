/* What was learned, kept in flash so that a loss of power at any moment leaves the state before or the one after.
 *
 * A flash region is two slots. A slot holds records, one behind the other; a record is a state and, programmed after it
 * has been read back, the header that makes it count. A new record goes behind the newest one if there is room, else
 * the slot is erased that does not hold the last confirmed state: so both slots wear alike, and an erase costs as many
 * stores as a slot has room for. A stored state is provisional: it is loaded at the next EHMN_STATE_TRIALS starts, and
 * dropped at the one after them unless it has been confirmed; then the confirmed one is there again.
 *
 * A record, from its first byte on: ehmn_state_record, filled up to a whole number of units; EHMN_STATE_TRIALS marks,
 * one for each start; the mark "confirmed"; the mark "dropped"; the state, filled up. A mark is one unit, and set when
 * any bit of it is programmed, so no unit is ever programmed twice. Nothing here is static; scans cost one pass of
 * CRC-32 over what is stored. All fields are little-endian.
 *
 *     ehmn_state found; // at the start, with `image` the model's
 *     if (ehmn_state_begin(&flash, image->id, &found) == EHMN_OK && found.sequence != 0) {
 *         ehmn_delta_load(model, flash.base + found.offset, found.bytes);
 *     }
 *     ... learns ...
 *     if (ehmn_delta_save(model, room, bytes) == EHMN_OK) { // what ehmn_delta_bytes says
 *         ehmn_state_store(&flash, image->id, room, bytes);
 *     }
 *     ... predicts no worse, perhaps after another start ...
 *     ehmn_state_confirm(&flash);
 */
#ifndef EDGEHMN_STATE_H
#define EDGEHMN_STATE_H

#include "edgehmn.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EHMN_STATE_MAGIC 0x534D4845u /* "EHMS" */
#define EHMN_STATE_VERSION 1u
#define EHMN_STATE_TRIALS 3u
#define EHMN_STATE_MAX_UNIT 256u
#define EHMN_STATE_E_FLASH (-48) /* the flash does not hold what was written to it, or is not blank after an erase */

/* A region of flash, as a port offers it. Neither function is believed: what it did is read back. */
typedef struct {
    const uint8_t *base;   /* where the region is read; 8-aligned */
    uint32_t sector_bytes; /* what one erase clears; a multiple of `unit` */
    uint32_t slot_sectors; /* the region is two slots of so many sectors */
    uint32_t unit;         /* bytes that are programmed at once and once; a power of two, 8..EHMN_STATE_MAX_UNIT */
    int32_t (*erase)(void *context, uint32_t offset); /* one sector to 0xFF; EHMN_OK or negative */
    int32_t (*program)(void *context, uint32_t offset, const void *bytes, uint32_t count); /* whole units, blank */
    void *context;
} ehmn_flash;

typedef struct {
    uint32_t magic;
    uint32_t version;
    uint32_t sequence; /* 1 for the first state, then one more for each */
    uint32_t bytes;    /* of the state */
    uint32_t data_crc; /* of the state */
    uint32_t reserved[2]; /* zero */
    uint8_t image_id[32];
    uint32_t crc32;    /* of all bytes before this field */
} ehmn_state_record;

/* What a region holds. */
typedef struct {
    uint32_t sequence;    /* of the state that counts; 0: there is none, and the rest is zero but for slot_bytes */
    uint32_t confirmed;   /* sequence of the last confirmed state that is sound; 0: none */
    uint32_t offset;      /* of the state in the region, a multiple of 8 */
    uint32_t bytes;
    uint32_t trials;      /* starts that a provisional state has had */
    uint32_t slot_bytes;
    uint8_t image_id[32]; /* of the image that it was learned with */
} ehmn_state;

/* Bytes that a state of `bytes` takes in a slot. */
uint32_t ehmn_state_record_bytes(const ehmn_flash *flash, uint32_t bytes);

/* Which state counts: the provisional one if there is one, else the last confirmed. EHMN_E_ARGUMENT for a region that
 * is none (as all of these). */
int32_t ehmn_state_find(const ehmn_flash *flash, ehmn_state *state);

/* The same at a start of the device: counts a trial of a provisional state, and drops it when it has had all.
 * A state of another image (`image_id`, EHMN_ID_BYTES) is left as it is: EHMN_E_IMAGE_ID, with `state` filled.
 * EHMN_E_ARGUMENT, EHMN_STATE_E_FLASH. */
int32_t ehmn_state_begin(const ehmn_flash *flash, const uint8_t *image_id, ehmn_state *state);

/* Store a provisional state. After any failure, and after a loss of power before the end, the state that counted still
 * does. EHMN_E_STATE: another provisional one waits, confirm or drop it first. EHMN_E_IMAGE_ID: the state that is there
 * belongs to another image and would be lost; wipe it first. EHMN_E_SIZE: larger than a slot, or 2^32 - 1
 * states have been stored. EHMN_E_ARGUMENT, EHMN_STATE_E_FLASH. */
int32_t ehmn_state_store(const ehmn_flash *flash, const uint8_t *image_id, const void *bytes, uint32_t count);

/* Make the provisional state the confirmed one, or drop it. EHMN_E_STATE: there is none. EHMN_E_ARGUMENT,
 * EHMN_STATE_E_FLASH. */
int32_t ehmn_state_confirm(const ehmn_flash *flash);
int32_t ehmn_state_drop(const ehmn_flash *flash);

/* Erase both slots, and look that every byte of them is 0xFF. EHMN_E_ARGUMENT, EHMN_STATE_E_FLASH. */
int32_t ehmn_state_wipe(const ehmn_flash *flash);

#ifdef __cplusplus
}
#endif

EHMN_ASSERT(sizeof(ehmn_state_record) == 64, "ehmn_state_record");
EHMN_ASSERT(offsetof(ehmn_state_record, crc32) == 60, "ehmn_state_record.crc32");
EHMN_ASSERT(sizeof(ehmn_state) == 56, "ehmn_state");

#endif
