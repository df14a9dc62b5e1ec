/* MPS2 with a Cortex-M33 (Arm application note AN505), as qemu-system-arm -M mps2-an505 emulates it.
 *
 * Of 4 MB of SRAM the firmware takes 512 KiB, what a large microcontroller has; the image lies in the
 * PSRAM, and behind it what is learned: two sectors of 128 KiB like those of an STM32H743, simulated.
 * Every number of this board stands here: C, the linker script and Python read it. Plain integers only. */
#ifndef BOARD_H
#define BOARD_H

#define BOARD_NAME "mps2-an505"

#define BOARD_FLASH_ADDRESS 0x10000000
#define BOARD_FLASH_BYTES 0x00020000
#define BOARD_STACK_ADDRESS 0x38000000
#define BOARD_STACK_BYTES 0x00002000
#define BOARD_RAM_ADDRESS 0x38002000
#define BOARD_RAM_BYTES 0x00006000
#define BOARD_ARENA_ADDRESS 0x38008000
#define BOARD_ARENA_BYTES 0x00058000
#define BOARD_STAGING_ADDRESS 0x38060000
#define BOARD_STAGING_BYTES 0x00020000
#define BOARD_IMAGE_ADDRESS 0x80000000
#define BOARD_IMAGE_BYTES 0x00FC0000
#define BOARD_STATE_ADDRESS 0x80FC0000
#define BOARD_STATE_SECTOR_BYTES 0x00020000
#define BOARD_STATE_SLOT_SECTORS 1
#define BOARD_STATE_UNIT 32
/* BOARD_STATE_ERASE_CYCLES: of the STM32H743 (data sheet DS12110, flash memory endurance, minimum); simulated flash
 * does not wear */
#define BOARD_STATE_ERASE_CYCLES 10000

#define BOARD_TICK_HZ 20000000
#define BOARD_TIMER_ADDRESS 0x50000000
#define BOARD_UART_ADDRESS 0x50200000
#define BOARD_UART_CLOCK_HZ 20000000
#define BOARD_UART_INTERRUPT 32
#define BOARD_BAUD 115200

#endif
