/* A board that serves a host: the commands of edgehmn_wire.h, done to the model in the board's image.
 *
 * A port fills in an ehmn_port, calls ehmn_device_start once, and then ehmn_device_take for every byte that
 * comes in. That is all: no interrupt, no clock and no thread is asked for. */
#ifndef EHMN_DEVICE_H
#define EHMN_DEVICE_H

#include "edgehmn.h"
#include "edgehmn_state.h"
#include "edgehmn_wire.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a board offers. Everything stays valid and unchanged as long as the device is used. */
typedef struct {
    const char *board;     /* its name, at most 31 characters */
    const void *image;     /* where an image lies if there is one; 4-aligned, at least an ehmn_image readable */
    uint32_t image_room;   /* bytes that may be read from there */
    void *arena;           /* 16-aligned */
    uint32_t arena_room;   /* bytes */
    void *staging;         /* for a delta on its way in or out; 8-aligned */
    uint32_t staging_room; /* bytes */
    const ehmn_flash *flash; /* for what is learned; NULL: the board keeps nothing */
    uint32_t tick_hz;
    void (*timer_start)(void);                        /* count from zero, */
    uint32_t (*timer_read)(void);                     /* up, in ticks */
    void (*write)(const void *bytes, uint32_t count); /* sends to the host; may return before all have left */
    void (*restart)(void);                            /* after all bytes have left; does not return on a board */
} ehmn_port;

typedef struct {
    const ehmn_port *port;
    ehmn_model *model; /* NULL: no usable image */
    uint32_t mode;
    uint32_t arena_bytes;
    uint32_t delta_bytes;
    int32_t image_status;
    uint32_t in_session; /* 1 after the first identify */
    uint64_t step_ticks;
    uint64_t learn_ticks;
    int32_t state_status;    /* of the last loading from flash */
    uint32_t text_bytes;     /* text that waits for what follows it */
    uint32_t text_state;     /* of ehmn_tokenize, and of ehmn_detokenize: */
    uint32_t say_state;
    uint8_t text[EHMN_WIRE_TEXT_ROOM];
    ehmn_wire_receiver receiver;
    ehmn_wire_frame answer; /* of the last request of the session, kept for when it is asked for again */
} ehmn_device;

/* Validate and open the board's image. One that is missing or damaged is no failure: identify reports it. */
void ehmn_device_start(ehmn_device *device, const ehmn_port *port);

/* Take one byte from the host; when it completes a request, do it and answer. Any bytes may come. */
void ehmn_device_take(ehmn_device *device, uint8_t byte);

#ifdef __cplusplus
}
#endif

#endif
