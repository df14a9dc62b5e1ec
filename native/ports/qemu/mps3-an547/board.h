/* MPS3 with a Cortex-M55 (Arm application note AN547), as qemu-system-arm -M mps3-an547 emulates it.
 *
 * Code runs from the instruction TCM; of 4 MB of SRAM the firmware takes 512 KiB, what a large microcontroller has. The
 * image lies in the DDR, and behind it what is learned: two sectors of 128 KiB like those of an STM32H743, simulated.
 * Addresses are those of the secure state, in which the core starts.
 * Every number of this board stands here: C, the linker script and Python read it. Plain integers only. */
#ifndef BOARD_H
#define BOARD_H

#define BOARD_NAME "mps3-an547"

#define BOARD_FLASH_ADDRESS 0x00000000
#define BOARD_FLASH_BYTES 0x00020000
#define BOARD_STACK_ADDRESS 0x31000000
#define BOARD_STACK_BYTES 0x00002000
#define BOARD_RAM_ADDRESS 0x31002000
#define BOARD_RAM_BYTES 0x00006000
#define BOARD_ARENA_ADDRESS 0x31008000
#define BOARD_ARENA_BYTES 0x00058000
#define BOARD_STAGING_ADDRESS 0x31060000
#define BOARD_STAGING_BYTES 0x00020000
#define BOARD_IMAGE_ADDRESS 0x70000000
#define BOARD_IMAGE_BYTES 0x00FC0000
#define BOARD_STATE_ADDRESS 0x70FC0000
#define BOARD_STATE_SECTOR_BYTES 0x00020000
#define BOARD_STATE_SLOT_SECTORS 1
#define BOARD_STATE_UNIT 32
/* BOARD_STATE_ERASE_CYCLES: of the STM32H743 (data sheet DS12110, flash memory endurance, minimum); simulated flash
 * does not wear */
#define BOARD_STATE_ERASE_CYCLES 10000

#define BOARD_TICK_HZ 32000000
#define BOARD_UART_ADDRESS 0x59303000
#define BOARD_UART_CLOCK_HZ 25000000
#define BOARD_UART_INTERRUPT 33
#define BOARD_BAUD 115200

#endif
