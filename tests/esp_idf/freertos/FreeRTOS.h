#ifndef STAND_IN_FREERTOS_H
#define STAND_IN_FREERTOS_H
#include <stdint.h>
typedef uint32_t TickType_t;
typedef struct queue *QueueHandle_t;
#define portMAX_DELAY ((TickType_t)0xFFFFFFFFu)
#endif
