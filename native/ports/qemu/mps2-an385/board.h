/* MPS2 with a Cortex-M3 (Arm application note AN385), as qemu-system-arm -M mps2-an385 emulates it.
 *
 * Of 8 MB of SRAM the firmware takes 512 KiB, what a large microcontroller has; the image lies in the
 * PSRAM, and behind it what is learned: two sectors of 128 KiB like those of an STM32H743, simulated.
 * Every number of this board stands here: C, the linker script and Python read it. Plain integers only. */
#ifndef BOARD_H
#define BOARD_H

#define BOARD_NAME "mps2-an385"

#define BOARD_FLASH_ADDRESS 0x00000000
#define BOARD_FLASH_BYTES 0x00020000
#define BOARD_STACK_ADDRESS 0x20000000
#define BOARD_STACK_BYTES 0x00002000
#define BOARD_RAM_ADDRESS 0x20002000
#define BOARD_RAM_BYTES 0x00006000
#define BOARD_ARENA_ADDRESS 0x20008000
#define BOARD_ARENA_BYTES 0x00058000
#define BOARD_STAGING_ADDRESS 0x20060000
#define BOARD_STAGING_BYTES 0x00020000
#define BOARD_IMAGE_ADDRESS 0x21000000
#define BOARD_IMAGE_BYTES 0x00FC0000
#define BOARD_STATE_ADDRESS 0x21FC0000
#define BOARD_STATE_SECTOR_BYTES 0x00020000
#define BOARD_STATE_SLOT_SECTORS 1
#define BOARD_STATE_UNIT 32
/* BOARD_STATE_ERASE_CYCLES: of the STM32H743 (data sheet DS12110, flash memory endurance, minimum); simulated flash
 * does not wear */
#define BOARD_STATE_ERASE_CYCLES 10000

#define BOARD_TICK_HZ 25000000
#define BOARD_TIMER_ADDRESS 0x40000000
#define BOARD_UART_ADDRESS 0x40004000
#define BOARD_UART_CLOCK_HZ 25000000
#define BOARD_UART_INTERRUPT 0
#define BOARD_BAUD 115200

#endif
