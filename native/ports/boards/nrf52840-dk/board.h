/* Nordic nRF52840-DK (PCA10056): an nRF52840, a Cortex-M4 at 64 MHz, with a crystal of 32 MHz.
 *
 * Product specification 1.7 or later, 4.2 and 6.34; pins: hardware user guide of the kit, 8.8. Of 1 MB of flash the
 * firmware takes 128 KB, the image 768 KB, learned state the rest. Of 256 KB of RAM the model has 176, the host's
 * staging buffer 64. The host's line is P0.06 and P0.08, which the debugger on the board makes a serial port of USB.
 * Every number of this board stands here: C, the linker script and Python read it. Plain integers only. */
#ifndef BOARD_H
#define BOARD_H

#define BOARD_NAME "nrf52840-dk"

#define BOARD_FLASH_ADDRESS 0x00000000
#define BOARD_FLASH_BYTES 0x00020000
#define BOARD_IMAGE_ADDRESS 0x00020000
#define BOARD_IMAGE_BYTES 0x000C0000
#define BOARD_STATE_ADDRESS 0x000E0000
#define BOARD_STATE_SECTOR_BYTES 0x00001000
#define BOARD_STATE_SLOT_SECTORS 16
#define BOARD_STATE_UNIT 8
/* BOARD_STATE_ERASE_CYCLES: product specification, NVMC, endurance of a page, minimum */
#define BOARD_STATE_ERASE_CYCLES 10000
#define BOARD_STACK_ADDRESS 0x20000000
#define BOARD_STACK_BYTES 0x00002000
#define BOARD_RAM_ADDRESS 0x20002000
#define BOARD_RAM_BYTES 0x00002000
#define BOARD_ARENA_ADDRESS 0x20004000
#define BOARD_ARENA_BYTES 0x0002C000
#define BOARD_STAGING_ADDRESS 0x20030000
#define BOARD_STAGING_BYTES 0x00010000

#define BOARD_TICK_HZ 64000000
#define BOARD_UART_ADDRESS 0x40002000
#define BOARD_UART_INTERRUPT 2
#define BOARD_UART_PORT_ADDRESS 0x50000000
#define BOARD_UART_SEND_PIN 6
#define BOARD_UART_RECEIVE_PIN 8
#define BOARD_BAUD 115200

#endif
