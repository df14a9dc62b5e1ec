/* Serves a host on UART0, as the firmware of other boards does: `edgehmn run OUT TEXT --runtime device --port PORT`,
 * and whatever else goes over the line. What is learned lies in the partition "learned": two slots of flash. */
#include "core/device.h"
#include "edgehmn_model.h"

#include "driver/uart.h"
#include "esp_heap_caps.h"
#include "esp_partition.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "sdkconfig.h"

#include <stdlib.h>

#define LINE UART_NUM_0
#define BAUD 115200
#define RECEIVE_ROOM 2048
#define LEARNED_TYPE ((esp_partition_type_t)0x40)
#define LEARNED_SUBTYPE ((esp_partition_subtype_t)0x00)
#define SECTOR 4096u
#define UNIT 32u /* encrypted flash is written by 16 or 32 bytes */
#define ALIGNMENT 16u

static const esp_partition_t *learned;
static int64_t started;

static int32_t erase(void *context, uint32_t offset)
{
    (void)context;
    return esp_partition_erase_range(learned, offset, SECTOR) == ESP_OK ? EHMN_OK : EHMN_STATE_E_FLASH;
}

static int32_t program(void *context, uint32_t offset, const void *bytes, uint32_t count)
{
    (void)context;
    return esp_partition_write(learned, offset, bytes, count) == ESP_OK ? EHMN_OK : EHMN_STATE_E_FLASH;
}

/* The flash for what is learned; NULL without such a partition, and then the board keeps nothing. */
static const ehmn_flash *open_learned(void)
{
    static ehmn_flash flash = {.sector_bytes = SECTOR, .unit = UNIT, .erase = erase, .program = program};
    const void *base;
    esp_partition_mmap_handle_t handle;
    learned = esp_partition_find_first(LEARNED_TYPE, LEARNED_SUBTYPE, "learned");
    if (learned == NULL
        || esp_partition_mmap(learned, 0, learned->size, ESP_PARTITION_MMAP_DATA, &base, &handle) != ESP_OK) {
        return NULL;
    }
    flash.base = base;
    flash.slot_sectors = learned->size / SECTOR / 2u;
    return &flash;
}

static void timer_start(void)
{
    started = esp_timer_get_time();
}

static uint32_t timer_read(void)
{
    return (uint32_t)(esp_timer_get_time() - started);
}

static void write_line(const void *bytes, uint32_t count)
{
    uart_write_bytes(LINE, bytes, count);
}

static void restart(void)
{
    uart_wait_tx_done(LINE, portMAX_DELAY);
    esp_restart();
}

static void open_line(void)
{
    const uart_config_t config = {
        .baud_rate = BAUD,
        .data_bits = UART_DATA_8_BITS,
        .parity = UART_PARITY_DISABLE,
        .stop_bits = UART_STOP_BITS_1,
        .flow_ctrl = UART_HW_FLOWCTRL_DISABLE,
        .source_clk = UART_SCLK_DEFAULT,
    };
    ESP_ERROR_CHECK(uart_driver_install(LINE, RECEIVE_ROOM, 0, 0, NULL, 0));
    ESP_ERROR_CHECK(uart_param_config(LINE, &config));
}

void app_main(void)
{
    static ehmn_device device;
    static ehmn_port port = {
        .board = CONFIG_IDF_TARGET,
        .image = edgehmn_model,
        .image_room = EDGEHMN_MODEL_BYTES,
        .arena_room = EDGEHMN_MODEL_ARENA_BYTES,
        .staging_room = (EDGEHMN_MODEL_DELTA_BYTES + 7u) / 8u * 8u,
        .tick_hz = 1000000,
        .timer_start = timer_start,
        .timer_read = timer_read,
        .write = write_line,
        .restart = restart,
    };
    open_line();
    port.flash = open_learned();
    port.arena = heap_caps_aligned_alloc(ALIGNMENT, port.arena_room, MALLOC_CAP_8BIT);
    port.staging = heap_caps_aligned_alloc(ALIGNMENT, port.staging_room, MALLOC_CAP_8BIT);
    if (port.arena == NULL || port.staging == NULL) {
        abort(); /* the chip has not so much memory: a smaller model, or a module with PSRAM */
    }
    ehmn_device_start(&device, &port);
    for (;;) {
        uint8_t byte;
        if (uart_read_bytes(LINE, &byte, 1, portMAX_DELAY) == 1) {
            ehmn_device_take(&device, byte);
        }
    }
}
