/* The second bank of the STM32H743's flash (reference manual RM0433, 4.3.7 to 4.3.12 and 4.9), while the firmware runs
 * from the first. Flash is written by words of 256 bits, each with ten bits of error correction.
 *
 * A word whose writing or erasing was cut short may hold more wrong bits than can be corrected, and reading it is then
 * a bus fault: a start that looks for learned states would fault for ever. So flash is read here alone, with that fault
 * ignored, and into a copy in RAM, in which such words are zeros: neither blank nor sound. The copy is what the rest of
 * the firmware sees; it is made anew at every start and after every write. */
#include "peripherals.h"

#include "board.h"
#include "stm32h7/memory.h"

#define RCC_AHB2ENR REGISTER(0x580244DC)
#define AHB2_SRAM_1_2 (3u << 29)

#define FLASH_KEYR2 REGISTER(0x52002104)
#define FLASH_CR2 REGISTER(0x5200210C)
#define FLASH_SR2 REGISTER(0x52002110)
#define FLASH_CCR2 REGISTER(0x52002114)
#define KEY_1 0x45670123u
#define KEY_2 0xCDEF89ABu
#define CR_LOCK 0x1u
#define CR_PROGRAM 0x2u
#define CR_ERASE 0x4u
#define CR_BY_64_BITS (3u << 4) /* how many are written at once: the most, at 1.8 V or more */
#define CR_START (1u << 7)
#define CR_SECTOR(n) ((n) << 8)
#define SR_BUSY 0x7u /* BSY, WBNE and QW: it works, or words wait */
#define SR_WRONG_WORD (1u << 26)
#define SR_ERRORS 0x07EE0000u /* WRPERR to OPERR, RDPERR, RDSERR and those of the correction */
#define SR_WRITE_ERRORS 0x006E0000u

#define CCR REGISTER(0xE000ED14)
#define CCR_IGNORE_BUS_FAULTS (1u << 8) /* of loads, while faults are masked: Armv7-M manual, B3.2.8 */

#define WORDS (BOARD_STATE_UNIT / 4u)
#define STATE_BYTES (2u * BOARD_STATE_SLOT_SECTORS * BOARD_STATE_SECTOR_BYTES)

_Static_assert(BOARD_STATE_UNIT == 32, "a flash word has 256 bits");

static void copy_word(uint32_t offset)
{
    uint32_t from = BOARD_STATE_ADDRESS + offset;
    uint32_t *to = (uint32_t *)(BOARD_STATE_COPY_ADDRESS + offset);
    FLASH_CCR2 = SR_ERRORS;
    for (uint32_t i = 0; i < WORDS; i++) {
        to[i] = REGISTER(from + 4u * i);
    }
    memory_barrier();
    if (FLASH_SR2 & SR_WRONG_WORD) {
        for (uint32_t i = 0; i < WORDS; i++) {
            to[i] = 0;
        }
    }
}

static void copy(uint32_t offset, uint32_t count)
{
    CCR |= CCR_IGNORE_BUS_FAULTS;
    __asm__ volatile("cpsid f" ::: "memory");
    memory_barrier();
    for (uint32_t i = 0; i < count; i += BOARD_STATE_UNIT) {
        copy_word(offset + i);
    }
    memory_barrier();
    __asm__ volatile("cpsie f" ::: "memory");
    CCR &= ~CCR_IGNORE_BUS_FAULTS;
    FLASH_CCR2 = SR_ERRORS;
}

void flash_start(void)
{
    RCC_AHB2ENR |= AHB2_SRAM_1_2;
    (void)RCC_AHB2ENR;
    copy(0, STATE_BYTES);
}

static void unlock(void)
{
    if (FLASH_CR2 & CR_LOCK) {
        FLASH_KEYR2 = KEY_1;
        FLASH_KEYR2 = KEY_2;
    }
    FLASH_CCR2 = SR_ERRORS;
}

static int32_t finish(void)
{
    while (FLASH_SR2 & SR_BUSY) {
    }
    uint32_t errors = FLASH_SR2 & SR_WRITE_ERRORS;
    FLASH_CR2 = CR_LOCK;
    return errors == 0 ? EHMN_OK : EHMN_STATE_E_FLASH;
}

static int32_t erase(void *context, uint32_t offset)
{
    uint32_t sector = BOARD_STATE_FIRST_SECTOR + offset / BOARD_STATE_SECTOR_BYTES;
    (void)context;
    unlock();
    FLASH_CR2 = CR_ERASE | CR_BY_64_BITS | CR_SECTOR(sector);
    FLASH_CR2 |= CR_START;
    int32_t status = finish();
    copy(offset, BOARD_STATE_SECTOR_BYTES);
    return status;
}

static int32_t program(void *context, uint32_t offset, const void *bytes, uint32_t count)
{
    const uint8_t *from = bytes;
    (void)context;
    unlock();
    FLASH_CR2 = CR_PROGRAM | CR_BY_64_BITS;
    memory_barrier();
    for (uint32_t i = 0; i < count; i += 4u) {
        uint32_t word = from[i] | (uint32_t)from[i + 1u] << 8 | (uint32_t)from[i + 2u] << 16
            | (uint32_t)from[i + 3u] << 24;
        REGISTER(BOARD_STATE_ADDRESS + offset + i) = word;
        if ((i + 4u) % BOARD_STATE_UNIT == 0) {
            memory_barrier();
            while (FLASH_SR2 & SR_BUSY) {
            }
        }
    }
    int32_t status = finish();
    copy(offset, count);
    return status;
}

const ehmn_flash board_flash = {
    .base = (const uint8_t *)BOARD_STATE_COPY_ADDRESS,
    .sector_bytes = BOARD_STATE_SECTOR_BYTES,
    .slot_sectors = BOARD_STATE_SLOT_SECTORS,
    .unit = BOARD_STATE_UNIT,
    .erase = erase,
    .program = program,
};
