/* Netduino Plus 2: an STM32F405RG, a Cortex-M4, as qemu-system-arm -M netduinoplus2 emulates it.
 *
 * The memory is what the chip has and no more: 1 MB of flash, 128 KB of contiguous RAM (the emulation has 192, and
 * lacks the 64 KB of core-coupled memory). The firmware takes the five small sectors of flash, 128 KB; the image five
 * of the seven large ones. The last two are for learned state; this emulation cannot write its flash, so there it goes
 * over the line alone. For the host's staging buffer there is what the model leaves of the arena.
 * Every number of this board stands here: C, the linker script and Python read it. Plain integers only. */
#ifndef BOARD_H
#define BOARD_H

#define BOARD_NAME "netduinoplus2"

#define BOARD_FLASH_ADDRESS 0x08000000
#define BOARD_FLASH_BYTES 0x00020000
#define BOARD_IMAGE_ADDRESS 0x08020000
#define BOARD_IMAGE_BYTES 0x000A0000
#define BOARD_STATE_ADDRESS 0x080C0000
#define BOARD_STATE_SECTOR_BYTES 0x00020000
#define BOARD_STATE_SLOT_SECTORS 1
#define BOARD_STATE_UNIT 8
#define BOARD_STATE_FIRST_SECTOR 10
/* BOARD_STATE_ERASE_CYCLES: data sheet DS8626, flash memory endurance, minimum */
#define BOARD_STATE_ERASE_CYCLES 10000
#define BOARD_STACK_ADDRESS 0x20000000
#define BOARD_STACK_BYTES 0x00001000
#define BOARD_RAM_ADDRESS 0x20001000
#define BOARD_RAM_BYTES 0x00001000
#define BOARD_ARENA_ADDRESS 0x20002000
#define BOARD_ARENA_BYTES 0x0001E000
#define BOARD_STAGING_ADDRESS 0
#define BOARD_STAGING_BYTES 0

#define BOARD_TICK_HZ 168000000
#define BOARD_UART_ADDRESS 0x40011000
#define BOARD_UART_CLOCK_HZ 16000000
#define BOARD_UART_INTERRUPT 37
#define BOARD_UART_ENABLE_ADDRESS 0x40023844
#define BOARD_UART_ENABLE_BIT 4
#define BOARD_UART_PORT_ADDRESS 0x40020000
#define BOARD_UART_SEND_PIN 9
#define BOARD_UART_RECEIVE_PIN 10
#define BOARD_BAUD 115200

#endif
