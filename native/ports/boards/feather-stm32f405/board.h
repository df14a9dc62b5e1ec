/* Adafruit Feather STM32F405 Express: an STM32F405RG, a Cortex-M4 at 168 MHz, with a crystal of 12 MHz.
 *
 * Data sheet DS8626, 4 and table 6; sectors: reference manual RM0090, table 5. Of 1 MB of flash the firmware takes the
 * five small sectors, 128 KB; the image five of the seven large ones; learned state the last two. The 128 KB of
 * contiguous RAM are the model's; stack, data and the host's staging buffer lie in the 64 KB of core-coupled memory.
 * The host's line is USART3 on the pins marked TX (PB10) and RX (PB11); the boot loader in the chip's ROM answers on
 * the same pins if B0 is at 3.3 V during reset (application note AN2606).
 * Every number of this board stands here: C, the linker script and Python read it. Plain integers only. */
#ifndef BOARD_H
#define BOARD_H

#define BOARD_NAME "feather-stm32f405"

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
#define BOARD_STACK_ADDRESS 0x10000000
#define BOARD_STACK_BYTES 0x00002000
#define BOARD_RAM_ADDRESS 0x10002000
#define BOARD_RAM_BYTES 0x00002000
#define BOARD_STAGING_ADDRESS 0x10004000
#define BOARD_STAGING_BYTES 0x0000C000
#define BOARD_ARENA_ADDRESS 0x20000000
#define BOARD_ARENA_BYTES 0x00020000

#define BOARD_CRYSTAL_HZ 12000000
#define BOARD_TICK_HZ 168000000
#define BOARD_UART_ADDRESS 0x40004800
#define BOARD_UART_CLOCK_HZ 42000000
#define BOARD_UART_INTERRUPT 39
#define BOARD_UART_ENABLE_ADDRESS 0x40023840
#define BOARD_UART_ENABLE_BIT 18
#define BOARD_UART_PORT_ADDRESS 0x40020400
#define BOARD_UART_SEND_PIN 10
#define BOARD_UART_RECEIVE_PIN 11
#define BOARD_BAUD 115200

#endif
