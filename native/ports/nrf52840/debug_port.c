/* The debug port of the nRF52840 (product specification 1.7 or later, 4.8). From build code F on it locks itself at
 * each start, unless the user's information and the firmware both open it. Whoever then flashes a new model must first
 * erase all of the chip, with what it has learned. A port that somebody has locked on purpose stays locked. */
#include "nrf52840/debug_port.h"

#include "peripherals.h"

#define NVMC_READY REGISTER(0x4001E400)
#define NVMC_CONFIG REGISTER(0x4001E504)
#define CONFIG_READ 0u
#define CONFIG_WRITE 1u
#define FICR_INFO_VARIANT REGISTER(0x10000104) /* four letters: package, build code */
#define UICR_APPROTECT REGISTER(0x10001208)
#define APPROTECT_DISABLE REGISTER(0x40000558) /* from build code F on */
#define APPROTECT_OPEN 0x5Au
#define NEVER_WRITTEN 0xFFFFFFFFu

void debug_port_open(void)
{
    if ((FICR_INFO_VARIANT >> 8 & 0xFFu) < 'F') {
        return;
    }
    if (UICR_APPROTECT == NEVER_WRITTEN) {
        NVMC_CONFIG = CONFIG_WRITE;
        while (!NVMC_READY) {
        }
        UICR_APPROTECT = APPROTECT_OPEN; /* counts from the next start on */
        memory_barrier();
        while (!NVMC_READY) {
        }
        NVMC_CONFIG = CONFIG_READ;
        while (!NVMC_READY) {
        }
    }
    APPROTECT_DISABLE = UICR_APPROTECT;
}
