/* ST Nucleo-H743ZI2: an STM32H743ZI, a Cortex-M7 at 400 MHz, with a clock of 8 MHz from the debugger on the board.
 *
 * User manual UM2407, 7.6 and 7.9; memory: reference manual RM0433, tables 8 and 17. Of 2 MB of flash, 16 sectors of
 * 128 KB, the firmware takes the first, learned state the last two, the image the 13 between. The 300 KB that the model
 * needs lie in the 512 KB of AXI SRAM, and behind them the host's staging buffer; stack and data in the 128 KB beside
 * the core; the copy of the learned state in SRAM1 and SRAM2. The host's line is USART3 on PD8 and PD9, which the
 * debugger makes a serial port of USB.
 * Every number of this board stands here: C, the linker script and Python read it. Plain integers only. */
#ifndef BOARD_H
#define BOARD_H

#define BOARD_NAME "nucleo-h743zi2"

#define BOARD_FLASH_ADDRESS 0x08000000
#define BOARD_FLASH_BYTES 0x00020000
#define BOARD_IMAGE_ADDRESS 0x08020000
#define BOARD_IMAGE_BYTES 0x001A0000
#define BOARD_STATE_ADDRESS 0x081C0000
#define BOARD_STATE_SECTOR_BYTES 0x00020000
#define BOARD_STATE_SLOT_SECTORS 1
#define BOARD_STATE_UNIT 32
#define BOARD_STATE_FIRST_SECTOR 6
#define BOARD_STATE_COPY_ADDRESS 0x30000000
#define BOARD_STATE_COPY_BYTES 0x00040000
/* BOARD_STATE_ERASE_CYCLES: data sheet DS12110, flash memory endurance, minimum */
#define BOARD_STATE_ERASE_CYCLES 10000
#define BOARD_STACK_ADDRESS 0x20000000
#define BOARD_STACK_BYTES 0x00002000
#define BOARD_RAM_ADDRESS 0x20002000
#define BOARD_RAM_BYTES 0x0001E000
#define BOARD_ARENA_ADDRESS 0x24000000
#define BOARD_ARENA_BYTES 0x00060000
#define BOARD_STAGING_ADDRESS 0x24060000
#define BOARD_STAGING_BYTES 0x00020000

#define BOARD_CRYSTAL_HZ 8000000
#define BOARD_TICK_HZ 400000000
#define BOARD_UART_ADDRESS 0x40004800
#define BOARD_UART_CLOCK_HZ 100000000
#define BOARD_UART_INTERRUPT 39
#define BOARD_UART_ENABLE_BIT 18
#define BOARD_UART_PORT_ADDRESS 0x58020C00
#define BOARD_UART_SEND_PIN 8
#define BOARD_UART_RECEIVE_PIN 9
#define BOARD_BAUD 115200

#endif
