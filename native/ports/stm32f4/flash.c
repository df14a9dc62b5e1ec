/* The flash of the STM32F4 (reference manual RM0090, 3.5 to 3.9), written by words at 2.7 V or more. The core waits
 * while the flash is busy, so nothing is read from it meanwhile. Not yet run on hardware; QEMU's chip ignores the
 * controller, and what is read back then says so. */
#include "peripherals.h"

#include "board.h"

#define FLASH_ACR REGISTER(0x40023C00)
#define FLASH_KEYR REGISTER(0x40023C04)
#define FLASH_SR REGISTER(0x40023C0C)
#define FLASH_CR REGISTER(0x40023C10)
#define ACR_DATA_CACHE (1u << 10)
#define ACR_DATA_RESET (1u << 12)
#define KEY_1 0x45670123u
#define KEY_2 0xCDEF89ABu
#define SR_ERRORS 0xF2u /* OPERR, WRPERR, PGAERR, PGPERR, PGSERR; cleared by writing ones */
#define SR_BUSY 0x10000u
#define CR_PROGRAM 0x1u
#define CR_ERASE 0x2u
#define CR_SECTOR(n) ((n) << 3)
#define CR_WORDS 0x200u
#define CR_START 0x10000u
#define CR_LOCK 0x80000000u

static void unlock(void)
{
    if (FLASH_CR & CR_LOCK) {
        FLASH_KEYR = KEY_1;
        FLASH_KEYR = KEY_2;
    }
    FLASH_SR = SR_ERRORS;
}

/* The data cache may hold what was there before: it can be emptied only while it is off. */
static void forget_cached(void)
{
    uint32_t control = FLASH_ACR;
    if (control & ACR_DATA_CACHE) {
        FLASH_ACR = control & ~ACR_DATA_CACHE;
        FLASH_ACR = (control & ~ACR_DATA_CACHE) | ACR_DATA_RESET;
        FLASH_ACR = control;
    }
}

static int32_t finish(void)
{
    while (FLASH_SR & SR_BUSY) {
    }
    uint32_t errors = FLASH_SR & SR_ERRORS;
    FLASH_CR = CR_LOCK;
    forget_cached();
    return errors == 0 ? EHMN_OK : EHMN_STATE_E_FLASH;
}

static int32_t erase(void *context, uint32_t offset)
{
    (void)context;
    unlock();
    FLASH_CR = CR_ERASE | CR_WORDS | CR_SECTOR(BOARD_STATE_FIRST_SECTOR + offset / BOARD_STATE_SECTOR_BYTES);
    FLASH_CR |= CR_START;
    return finish();
}

static int32_t program(void *context, uint32_t offset, const void *bytes, uint32_t count)
{
    const uint8_t *from = bytes;
    (void)context;
    unlock();
    FLASH_CR = CR_PROGRAM | CR_WORDS;
    for (uint32_t i = 0; i < count; i += 4u) {
        uint32_t word = from[i] | (uint32_t)from[i + 1u] << 8 | (uint32_t)from[i + 2u] << 16
            | (uint32_t)from[i + 3u] << 24;
        REGISTER(BOARD_STATE_ADDRESS + offset + i) = word;
        memory_barrier();
        while (FLASH_SR & SR_BUSY) {
        }
    }
    return finish();
}

const ehmn_flash board_flash = {
    .base = (const uint8_t *)BOARD_STATE_ADDRESS,
    .sector_bytes = BOARD_STATE_SECTOR_BYTES,
    .slot_sectors = BOARD_STATE_SLOT_SECTORS,
    .unit = BOARD_STATE_UNIT,
    .erase = erase,
    .program = program,
};
