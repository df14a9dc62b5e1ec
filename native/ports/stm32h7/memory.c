/* Caches and memory protection of the Cortex-M7 (Armv7-M Architecture Reference Manual, B2.2.7, B3.5 and B4.8).
 *
 * Both caches are on. What is learned lies in flash that the firmware writes itself: to the core that part is a device,
 * so that it is never cached, nor read ahead of its time, nor written in another order. So no cache needs maintenance
 * after the start. */
#include "stm32h7/memory.h"

#include "board.h"
#include "peripherals.h"

#define CCR REGISTER(0xE000ED14)
#define CCR_DATA_CACHE (1u << 16)
#define CCR_INSTRUCTION_CACHE (1u << 17)
#define CCSIDR REGISTER(0xE000ED80)
#define CSSELR REGISTER(0xE000ED84)
#define ICIALLU REGISTER(0xE000EF50)
#define DCISW REGISTER(0xE000EF60)
#define CCSIDR_WAYS(size) ((size) >> 3 & 0x3FFu) /* less one, as the sets */
#define CCSIDR_SETS(size) ((size) >> 13 & 0x7FFFu)
#define DCISW_WAY_SHIFT 30u /* four ways, lines of 32 bytes */
#define DCISW_SET_SHIFT 5u

#define MPU_CTRL REGISTER(0xE000ED94)
#define MPU_RNR REGISTER(0xE000ED98)
#define MPU_RBAR REGISTER(0xE000ED9C)
#define MPU_RASR REGISTER(0xE000EDA0)
#define CTRL_ON 7u /* also in fault handlers and while faults are masked; elsewhere the usual map holds */
#define RASR_NO_CODE (1u << 28)
#define RASR_ALL_ACCESS (3u << 24)
#define RASR_DEVICE (1u << 16)
#define RASR_SIZE(log2) (((log2) - 1u) << 1)
#define RASR_ON 1u
#define STATE_BYTES (2 * BOARD_STATE_SLOT_SECTORS * BOARD_STATE_SECTOR_BYTES)
#define STATE_BITS 18u

_Static_assert(STATE_BYTES == 1 << STATE_BITS, "a region of protection is a power of two");
_Static_assert(BOARD_STATE_ADDRESS % STATE_BYTES == 0, "and begins at a multiple of its size");

static void protect(void)
{
    MPU_RNR = 0;
    MPU_RBAR = BOARD_STATE_ADDRESS;
    MPU_RASR = RASR_NO_CODE | RASR_ALL_ACCESS | RASR_DEVICE | RASR_SIZE(STATE_BITS) | RASR_ON;
    MPU_CTRL = CTRL_ON;
    memory_barrier();
}

/* Caches come out of a reset with anything in them. */
static void start_caches(void)
{
    ICIALLU = 0;
    CSSELR = 0;
    memory_barrier();
    uint32_t size = CCSIDR;
    for (uint32_t set = 0; set <= CCSIDR_SETS(size); set++) {
        for (uint32_t way = 0; way <= CCSIDR_WAYS(size); way++) {
            DCISW = set << DCISW_SET_SHIFT | way << DCISW_WAY_SHIFT;
        }
    }
    memory_barrier();
    CCR |= CCR_DATA_CACHE | CCR_INSTRUCTION_CACHE;
    memory_barrier();
}

void memory_start(void)
{
    protect();
    start_caches();
}
