/* The flash beside the RP2350, written by the functions of the boot ROM (data sheet, 4.4, 5.4.1 and 5.4.8). While it is
 * written nothing can be read from it, so all that runs then lies in RAM, and so do the bytes to be written. Afterwards
 * the way of reading that the boot ROM had found is set up again, by the function that it left at the base of its RAM
 * (4.3), which cannot run there. */
#include "peripherals.h"

#include "board.h"

#define IN_RAM __attribute__((section(".code_in_ram"), noinline))

#define ROM_MAGIC 0x10u
#define ROM_MAGIC_FIELD 0xFFFFFFu
#define ROM_MAGIC_RP2350 0x02754Du /* 'M', 'u', 2 */
#define ROM_LOOKUP 0x16u
#define ROM_CODE(a, b) ((uint32_t)(a) | (uint32_t)(b) << 8)
#define ROM_SECURE_FUNCTION 0x4u
#define CPACR REGISTER(0xE000ED88)
#define CPACR_REDUNDANCY (3u << 14) /* the coprocessor that functions of the boot ROM check themselves with: 3.6 */
#define OP_SECURE 0x100u /* and in flash's own addresses */
#define OP_ERASE 0x00000u
#define OP_PROGRAM 0x10000u

#define SETUP_ADDRESS 0x400E0000u
#define SETUP_WORDS 64u
#define THUMB 1u

_Static_assert(BOARD_STATE_UNIT == 256 && BOARD_STATE_SECTOR_BYTES == 4096, "pages and sectors of the boot ROM");

typedef uintptr_t (*lookup)(uint32_t code, uint32_t mask);
typedef void (*action)(void);
typedef int (*operation)(uint32_t flags, uint32_t address, uint32_t count, const uint8_t *bytes);

typedef struct {
    action connect;
    action leave_reading;
    operation operate;
    action flush_cache;
} rom_functions;

static uint8_t page[BOARD_STATE_UNIT];
static uint32_t setup[SETUP_WORDS];

/* An address so low that the compiler would take it for a mistake with a null pointer. */
static uintptr_t low(uintptr_t address)
{
    __asm__("" : "+r"(address));
    return address;
}

/* Called from the flash, before it is written. */
static int find(rom_functions *rom)
{
    if ((REGISTER(low(ROM_MAGIC)) & ROM_MAGIC_FIELD) != ROM_MAGIC_RP2350) {
        return 0;
    }
    CPACR |= CPACR_REDUNDANCY;
    memory_barrier();
    lookup look = (lookup)(uintptr_t)*(const volatile uint16_t *)low(ROM_LOOKUP);
    rom->connect = (action)look(ROM_CODE('I', 'F'), ROM_SECURE_FUNCTION);
    rom->leave_reading = (action)look(ROM_CODE('E', 'X'), ROM_SECURE_FUNCTION);
    rom->operate = (operation)look(ROM_CODE('F', 'O'), ROM_SECURE_FUNCTION);
    rom->flush_cache = (action)look(ROM_CODE('F', 'C'), ROM_SECURE_FUNCTION);
    for (uint32_t i = 0; i < SETUP_WORDS; i++) {
        setup[i] = REGISTER(SETUP_ADDRESS + 4u * i);
    }
    return rom->connect != NULL && rom->leave_reading != NULL && rom->operate != NULL && rom->flush_cache != NULL;
}

IN_RAM static int operate(const rom_functions *rom, uint32_t flags, uint32_t address, uint32_t count)
{
    action read_again = (action)((uintptr_t)setup | THUMB);
    rom->connect();
    rom->leave_reading();
    int status = rom->operate(flags, address, count, page);
    rom->flush_cache();
    memory_barrier();
    read_again();
    return status;
}

static int32_t erase(void *context, uint32_t offset)
{
    rom_functions rom;
    (void)context;
    return find(&rom)
            && operate(&rom, OP_SECURE | OP_ERASE, BOARD_STATE_ADDRESS + offset, BOARD_STATE_SECTOR_BYTES) == 0
        ? EHMN_OK
        : EHMN_STATE_E_FLASH;
}

static int32_t program(void *context, uint32_t offset, const void *bytes, uint32_t count)
{
    const uint8_t *from = bytes;
    rom_functions rom;
    (void)context;
    for (uint32_t done = 0; done < count; done += BOARD_STATE_UNIT) {
        for (uint32_t i = 0; i < BOARD_STATE_UNIT; i++) {
            page[i] = from[done + i];
        }
        if (!find(&rom)
            || operate(&rom, OP_SECURE | OP_PROGRAM, BOARD_STATE_ADDRESS + offset + done, BOARD_STATE_UNIT) != 0) {
            return EHMN_STATE_E_FLASH;
        }
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
