/* A stand-in for the drivers of ESP-IDF that the examples use, on Linux: the line is a socket, the partition a file. It
 * declares what the documentation of ESP-IDF says, and does what it promises: flash is erased by sectors, and writing
 * only clears bits. */
#include "driver/uart.h"
#include "esp_heap_caps.h"
#include "esp_partition.h"
#include "esp_system.h"
#include "esp_timer.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int server = -1, line = -1;
static uint8_t *flash;
static esp_partition_t partition = {.label = "learned"};

esp_err_t uart_driver_install(uart_port_t port, int receive, int send, int events, QueueHandle_t *queue, int flags)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)events;
    (void)flags;
    if (port != UART_NUM_0 || receive <= 128 || (send != 0 && send <= 128) || queue != NULL) {
        return ESP_FAIL;
    }
    strncpy(address.sun_path, getenv("STAND_IN_LINE"), sizeof address.sun_path - 1);
    server = socket(AF_UNIX, SOCK_STREAM, 0);
    return bind(server, (struct sockaddr *)&address, sizeof address) == 0 && listen(server, 1) == 0 ? ESP_OK : ESP_FAIL;
}

esp_err_t uart_param_config(uart_port_t port, const uart_config_t *config)
{
    puts("listening");
    fflush(stdout);
    line = accept(server, NULL, NULL);
    return port == UART_NUM_0 && config->baud_rate == 115200 && line >= 0 ? ESP_OK : ESP_FAIL;
}

int uart_read_bytes(uart_port_t port, void *bytes, uint32_t count, TickType_t wait)
{
    (void)port;
    (void)wait;
    ssize_t n = read(line, bytes, count);
    if (n <= 0) {
        line = accept(server, NULL, NULL);
        return 0;
    }
    return (int)n;
}

int uart_write_bytes(uart_port_t port, const void *bytes, size_t count)
{
    (void)port;
    return (int)send(line, bytes, count, MSG_NOSIGNAL);
}

esp_err_t uart_wait_tx_done(uart_port_t port, TickType_t wait)
{
    (void)port;
    (void)wait;
    return ESP_OK;
}

const esp_partition_t *esp_partition_find_first(esp_partition_type_t type, esp_partition_subtype_t subtype,
                                                const char *label)
{
    int file = open(getenv("STAND_IN_LEARNED"), O_RDWR);
    if ((int)type != 0x40 || (int)subtype != 0 || strcmp(label, partition.label) != 0 || file < 0) {
        return NULL;
    }
    partition.size = (uint32_t)lseek(file, 0, SEEK_END);
    partition.erase_size = 4096;
    flash = mmap(NULL, partition.size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return flash == MAP_FAILED ? NULL : &partition;
}

esp_err_t esp_partition_mmap(const esp_partition_t *of, size_t offset, size_t size, esp_partition_mmap_memory_t memory,
                             const void **out, esp_partition_mmap_handle_t *handle)
{
    *out = flash + offset;
    *handle = 1;
    return of == &partition && offset + size <= partition.size && memory == ESP_PARTITION_MMAP_DATA ? ESP_OK : ESP_FAIL;
}

esp_err_t esp_partition_erase_range(const esp_partition_t *of, size_t offset, size_t size)
{
    if (of != &partition || offset % of->erase_size || size % of->erase_size || offset + size > of->size) {
        return ESP_FAIL;
    }
    memset(flash + offset, 0xFF, size);
    return ESP_OK;
}

esp_err_t esp_partition_write(const esp_partition_t *of, size_t offset, const void *bytes, size_t size)
{
    const uint8_t *from = bytes;
    if (of != &partition || offset + size > of->size || offset % 16 || size % 16) { /* 16: if it is encrypted */
        return ESP_FAIL;
    }
    for (size_t i = 0; i < size; i++) {
        flash[offset + i] &= from[i];
    }
    return ESP_OK;
}

int64_t esp_timer_get_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void *heap_caps_aligned_alloc(size_t alignment, size_t size, uint32_t caps)
{
    return caps == MALLOC_CAP_8BIT ? aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment) : NULL;
}

void esp_restart(void)
{
    exit(0);
}
