/* Serves the host on the board's line for ever. */
#include "board.h"
#include "device.h"
#include "peripherals.h"
#include "startup.h"

static void restart(void)
{
    uart_drain();
    system_reset();
}

/* A board without a staging buffer of its own takes for it what the model leaves of the arena. */
static void lend_rest_of_arena(ehmn_port *port, const ehmn_device *device)
{
    if (port->staging_room == 0 && device->model != NULL) {
        port->staging = (uint8_t *)port->arena + device->arena_bytes;
        port->staging_room = port->arena_room - device->arena_bytes;
    }
}

int main(void)
{
    static ehmn_device device;
    static ehmn_port port = {
        .board = BOARD_NAME,
        .image = (const void *)BOARD_IMAGE_ADDRESS,
        .image_room = BOARD_IMAGE_BYTES,
        .arena = (void *)BOARD_ARENA_ADDRESS,
        .arena_room = BOARD_ARENA_BYTES,
        .staging = (void *)BOARD_STAGING_ADDRESS,
        .staging_room = BOARD_STAGING_BYTES,
        .flash = &board_flash,
        .tick_hz = BOARD_TICK_HZ,
        .timer_start = timer_start,
        .timer_read = timer_read,
        .write = uart_write,
        .restart = restart,
    };
    peripherals_start();
    ehmn_device_start(&device, &port);
    lend_rest_of_arena(&port, &device);
    for (;;) {
        ehmn_device_take(&device, uart_read());
    }
}
