/* Boards with the UART and the timer of Arm's Cortex-M System Design Kit (technical reference manual DDI 0479,
 * 4.2 and 4.3), such as the MPS2 and its emulation. The board serves the host on its first UART for ever. */
#include "board.h"
#include "device.h"
#include "startup.h"

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define UART_DATA REGISTER(BOARD_UART_ADDRESS + 0x00)
#define UART_STATE REGISTER(BOARD_UART_ADDRESS + 0x04)
#define UART_CTRL REGISTER(BOARD_UART_ADDRESS + 0x08)
#define UART_INTCLEAR REGISTER(BOARD_UART_ADDRESS + 0x0C)
#define UART_BAUDDIV REGISTER(BOARD_UART_ADDRESS + 0x10)
#define STATE_TX_FULL 1u
#define STATE_RX_FULL 2u
#define CTRL_TX_ENABLE 1u
#define CTRL_RX_ENABLE 2u
#define CTRL_RX_INTERRUPT 8u
#define INT_RX 2u

#define TIMER_CTRL REGISTER(BOARD_TIMER_ADDRESS + 0x00)
#define TIMER_VALUE REGISTER(BOARD_TIMER_ADDRESS + 0x04)
#define TIMER_RELOAD REGISTER(BOARD_TIMER_ADDRESS + 0x08)

/* Armv7-M Architecture Reference Manual, B3.4: the interrupt only wakes the core, it is never taken. */
#define NVIC_ISER0 REGISTER(0xE000E100)
#define NVIC_ICPR0 REGISTER(0xE000E280)
#define UART_RX_BIT (1u << BOARD_UART_RX_INTERRUPT)

static void start_peripherals(void)
{
    TIMER_RELOAD = UINT32_MAX;
    TIMER_CTRL = 1;
    UART_BAUDDIV = BOARD_CLOCK_HZ / BOARD_BAUD;
    UART_CTRL = CTRL_TX_ENABLE | CTRL_RX_ENABLE | CTRL_RX_INTERRUPT;
    NVIC_ISER0 = UART_RX_BIT;
}

static void timer_start(void)
{
    TIMER_VALUE = UINT32_MAX;
}

static uint32_t timer_read(void)
{
    return UINT32_MAX - TIMER_VALUE; /* it counts down */
}

/* Sleeps until a byte is there. The interrupt is cleared before looking: one that comes later ends the sleep. */
static uint8_t uart_read(void)
{
    for (;;) {
        UART_INTCLEAR = INT_RX;
        NVIC_ICPR0 = UART_RX_BIT;
        if (UART_STATE & STATE_RX_FULL) {
            return (uint8_t)UART_DATA;
        }
        __asm__ volatile("dsb\n\twfi" ::: "memory");
    }
}

static void uart_write(const void *bytes, uint32_t count)
{
    const uint8_t *p = bytes;
    for (uint32_t i = 0; i < count; i++) {
        while (UART_STATE & STATE_TX_FULL) {
        }
        UART_DATA = p[i];
    }
}

static void restart(void)
{
    while (UART_STATE & STATE_TX_FULL) {
    }
    system_reset();
}

int main(void)
{
    static ehmn_device device;
    static const ehmn_port port = {
        .board = BOARD_NAME,
        .image = (const void *)BOARD_IMAGE_ADDRESS,
        .image_room = BOARD_IMAGE_BYTES,
        .arena = (void *)BOARD_ARENA_ADDRESS,
        .arena_room = BOARD_ARENA_BYTES,
        .staging = (void *)BOARD_STAGING_ADDRESS,
        .staging_room = BOARD_STAGING_BYTES,
        .tick_hz = BOARD_CLOCK_HZ,
        .timer_start = timer_start,
        .timer_read = timer_read,
        .write = uart_write,
        .restart = restart,
    };
    start_peripherals();
    ehmn_device_start(&device, &port);
    for (;;) {
        ehmn_device_take(&device, uart_read());
    }
}
