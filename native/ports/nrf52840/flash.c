/* The flash of the nRF52840 (product specification 1.7 or later, 4.3: the non-volatile memory controller): pages of
 * 4 KB, written by words, each at most twice between two erases. The core waits while the flash is busy; an erase takes
 * up to 90 ms, in which the host waits for its answer and sends nothing. */
#include "peripherals.h"

#include "board.h"

#define NVMC_READY REGISTER(0x4001E400)
#define NVMC_CONFIG REGISTER(0x4001E504)
#define NVMC_ERASEPAGE REGISTER(0x4001E508)
#define CONFIG_READ 0u
#define CONFIG_WRITE 1u
#define CONFIG_ERASE 2u

static void set_mode(uint32_t mode)
{
    NVMC_CONFIG = mode;
    while (!NVMC_READY) {
    }
}

static int32_t erase(void *context, uint32_t offset)
{
    (void)context;
    set_mode(CONFIG_ERASE);
    NVMC_ERASEPAGE = BOARD_STATE_ADDRESS + offset;
    while (!NVMC_READY) {
    }
    set_mode(CONFIG_READ);
    return EHMN_OK;
}

static int32_t program(void *context, uint32_t offset, const void *bytes, uint32_t count)
{
    const uint8_t *from = bytes;
    (void)context;
    set_mode(CONFIG_WRITE);
    for (uint32_t i = 0; i < count; i += 4u) {
        uint32_t word = from[i] | (uint32_t)from[i + 1u] << 8 | (uint32_t)from[i + 2u] << 16
            | (uint32_t)from[i + 3u] << 24;
        REGISTER(BOARD_STATE_ADDRESS + offset + i) = word;
        memory_barrier();
        while (!NVMC_READY) {
        }
    }
    set_mode(CONFIG_READ);
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
