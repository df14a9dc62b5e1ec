/* Flash for an emulated board that has none: a part of its RAM that behaves like it. Programming clears bits and never
 * sets one. It outlives `restart`, and a power cycle where the emulator keeps that RAM in a file. */
#include "peripherals.h"

#include "board.h"

#include <string.h>

static int32_t erase(void *context, uint32_t offset)
{
    (void)context;
    memset((uint8_t *)BOARD_STATE_ADDRESS + offset, 0xFF, BOARD_STATE_SECTOR_BYTES);
    return EHMN_OK;
}

static int32_t program(void *context, uint32_t offset, const void *bytes, uint32_t count)
{
    uint8_t *to = (uint8_t *)BOARD_STATE_ADDRESS + offset;
    const uint8_t *from = bytes;
    (void)context;
    for (uint32_t i = 0; i < count; i++) {
        to[i] &= from[i];
    }
    return EHMN_OK;
}

const ehmn_flash board_flash = {
    .base = (const uint8_t *)BOARD_STATE_ADDRESS,
    .sector_bytes = BOARD_STATE_SECTOR_BYTES,
    .slot_sectors = BOARD_STATE_SLOT_SECTORS,
    .unit = BOARD_STATE_UNIT,
    .erase = erase,
    .program = program,
};
