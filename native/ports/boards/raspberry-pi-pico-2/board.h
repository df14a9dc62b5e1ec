/* Raspberry Pi Pico 2: an RP2350, of whose cores one Cortex-M33 at 150 MHz is used, with a crystal of 12 MHz.
 *
 * Data sheets of the Pico 2, 2.1 and 4.4, and of the RP2350, 2.2 and 5.5. Of 4 MB of flash the firmware takes 128 KB,
 * learned state the last 256, the image what is between. Of the 512 KB of striped RAM the model has 352, the host's
 * staging buffer 128. The host's line is UART0 on GPIO0 (pin 1) and GPIO1 (pin 2).
 * Every number of this board stands here: C, the linker script and Python read it. Plain integers only. */
#ifndef BOARD_H
#define BOARD_H

#define BOARD_NAME "raspberry-pi-pico-2"

#define BOARD_FLASH_ADDRESS 0x10000000
#define BOARD_FLASH_BYTES 0x00020000
#define BOARD_IMAGE_ADDRESS 0x10020000
#define BOARD_IMAGE_BYTES 0x003A0000
#define BOARD_STATE_ADDRESS 0x103C0000
#define BOARD_STATE_SECTOR_BYTES 0x00001000
#define BOARD_STATE_SLOT_SECTORS 32
#define BOARD_STATE_UNIT 256
/* BOARD_STATE_ERASE_CYCLES: data sheet of the W25Q32 (Winbond), erases of a sector, minimum */
#define BOARD_STATE_ERASE_CYCLES 100000
#define BOARD_STACK_ADDRESS 0x20000000
#define BOARD_STACK_BYTES 0x00002000
#define BOARD_RAM_ADDRESS 0x20002000
#define BOARD_RAM_BYTES 0x00006000
#define BOARD_ARENA_ADDRESS 0x20008000
#define BOARD_ARENA_BYTES 0x00058000
#define BOARD_STAGING_ADDRESS 0x20060000
#define BOARD_STAGING_BYTES 0x00020000

#define BOARD_CRYSTAL_HZ 12000000
#define BOARD_TICK_HZ 150000000
#define BOARD_UART_ADDRESS 0x40070000
#define BOARD_UART_CLOCK_HZ 150000000
#define BOARD_UART_INTERRUPT 33
#define BOARD_UART_SEND_PIN 0
#define BOARD_UART_RECEIVE_PIN 1
#define BOARD_BAUD 115200

#endif
