/* The commands. Nothing that a request says is believed before it is checked against the frame that brought it
 * and against the model and buffers that it is about. */
#include "commands.h"

#include <string.h>

typedef struct {
    /* Do the request and fill the answer's payload and its length, which is zero before. Nothing has changed if
     * the status is not zero. */
    int32_t (*run)(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer);
    uint16_t least; /* bytes of the request's payload */
    uint16_t most;
    uint32_t needs_model;
} command;

static int32_t identify(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    const ehmn_port *port = device->port;
    ehmn_wire_identity identity;
    (void)request;
    memset(&identity, 0, sizeof identity);
    identity.image_status = device->image_status;
    identity.mode = device->mode;
    identity.arena_bytes = device->arena_bytes;
    identity.delta_bytes = device->delta_bytes;
    if (device->model != NULL) {
        const ehmn_image *image = port->image;
        memcpy(identity.image_id, image->id, sizeof identity.image_id);
        identity.vocab_size = image->vocab_size;
    }
    identity.arena_room = port->arena_room;
    identity.staging_room = port->staging_room;
    identity.image_version = EHMN_IMAGE_VERSION;
    identity.delta_version = EHMN_DELTA_VERSION;
    identity.tick_hz = port->tick_hz;
    for (uint32_t i = 0; i + 1u < sizeof identity.board && port->board[i] != '\0'; i++) {
        identity.board[i] = (uint8_t)port->board[i];
    }
    memcpy(answer->payload, &identity, sizeof identity);
    answer->header.length = (uint16_t)sizeof identity;
    return EHMN_OK;
}

static int32_t reset(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    (void)request;
    (void)answer;
    ehmn_reset(device->model);
    ehmn_forget_text(device);
    return EHMN_OK;
}

int32_t ehmn_check_mode(const ehmn_device *device, uint32_t mode)
{
    if (mode > EHMN_WIRE_FOLLOW) {
        return EHMN_E_ARGUMENT;
    }
    return mode != EHMN_WIRE_FROZEN && device->mode != EHMN_PLASTIC ? EHMN_E_STATE : EHMN_OK;
}

/* The timer starts anew for each token, so that an emulator that counts instructions gives the same ticks in every
 * run. */
int32_t ehmn_process_token(ehmn_device *device, uint32_t token, uint32_t learn, uint32_t *score)
{
    const ehmn_port *port = device->port;
    port->timer_start();
    int32_t status = ehmn_score(device->model, token, score);
    uint32_t scored = port->timer_read();
    if (status == EHMN_OK && learn != EHMN_WIRE_FROZEN) {
        status = learn == EHMN_WIRE_LEARN ? ehmn_learn(device->model, token) : ehmn_follow(device->model, token);
    }
    uint32_t learned = learn ? port->timer_read() : scored;
    if (status == EHMN_OK) {
        status = ehmn_step(device->model, token);
    }
    device->step_ticks += scored + (port->timer_read() - learned);
    device->learn_ticks += learned - scored;
    return status;
}

static int32_t process(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    const ehmn_image *image = device->port->image;
    uint32_t learn = request->payload[0];
    const uint32_t *tokens = request->payload + 1;
    uint32_t count = request->header.length / (uint32_t)sizeof(uint32_t) - 1u;
    if (request->header.length % sizeof(uint32_t) != 0) {
        return EHMN_WIRE_E_LENGTH;
    }
    int32_t status = ehmn_check_mode(device, learn);
    if (status != EHMN_OK) {
        return status;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (tokens[i] >= image->vocab_size) {
            return EHMN_E_ARGUMENT;
        }
    }
    for (uint32_t i = 0; status == EHMN_OK && i < count; i++) {
        status = ehmn_process_token(device, tokens[i], learn, answer->payload + i);
    }
    answer->header.length = (uint16_t)(count * sizeof(uint32_t));
    return status;
}

int32_t ehmn_say_token(ehmn_device *device, uint32_t temperature, uint32_t *token)
{
    device->port->timer_start();
    int32_t status = ehmn_sample(device->model, temperature, token);
    if (status == EHMN_OK) {
        status = ehmn_step(device->model, *token);
    }
    device->step_ticks += device->port->timer_read();
    return status;
}

static int32_t generate(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    uint32_t count = request->payload[0];
    uint32_t temperature = request->payload[1];
    if (count > EHMN_WIRE_MAX_TOKENS) {
        return EHMN_E_ARGUMENT;
    }
    int32_t status = EHMN_OK; /* only the first token can be refused: after it all that matters is the same */
    for (uint32_t i = 0; status == EHMN_OK && i < count; i++) {
        status = ehmn_say_token(device, temperature, answer->payload + i);
    }
    answer->header.length = (uint16_t)(count * sizeof(uint32_t));
    return status;
}

static int32_t forget(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    uint64_t seed;
    (void)answer;
    memcpy(&seed, request->payload, sizeof seed);
    return ehmn_delta_reset(device->model, seed);
}

static int32_t counts(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    ehmn_counts of_model;
    ehmn_wire_counts all;
    (void)request;
    int32_t status = ehmn_get_counts(device->model, &of_model);
    all.steps = of_model.steps;
    all.learned = of_model.learned;
    all.writes = of_model.writes;
    all.macs = of_model.macs;
    all.step_ticks = device->step_ticks;
    all.learn_ticks = device->learn_ticks;
    all.rollbacks = of_model.rollbacks;
    memcpy(answer->payload, &all, sizeof all);
    answer->header.length = (uint16_t)sizeof all;
    return status;
}

static int32_t save(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    (void)request;
    (void)answer;
    return ehmn_delta_save(device->model, device->port->staging, device->port->staging_room);
}

static int lies_in_staging(const ehmn_device *device, uint32_t offset, uint32_t count)
{
    uint32_t room = device->port->staging_room;
    return offset <= room && count <= room - offset;
}

static int32_t read_staging(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    uint32_t offset = request->payload[0];
    uint32_t count = request->payload[1];
    if (count > EHMN_WIRE_MAX_PAYLOAD || !lies_in_staging(device, offset, count)) {
        return EHMN_E_SIZE;
    }
    memcpy(answer->payload, (const uint8_t *)device->port->staging + offset, count);
    answer->header.length = (uint16_t)count;
    return EHMN_OK;
}

static int32_t write_staging(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    uint32_t offset = request->payload[0];
    uint32_t count = request->header.length - (uint32_t)sizeof offset;
    (void)answer;
    if (!lies_in_staging(device, offset, count)) {
        return EHMN_E_SIZE;
    }
    memcpy((uint8_t *)device->port->staging + offset, request->payload + 1, count);
    return EHMN_OK;
}

static int32_t load(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    uint32_t bytes = request->payload[0];
    (void)answer;
    return lies_in_staging(device, 0, bytes) ? ehmn_delta_load(device->model, device->port->staging, bytes)
                                             : EHMN_E_SIZE;
}

static int32_t restart(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    (void)device;
    (void)request;
    (void)answer;
    return EHMN_OK; /* the answer goes first: see ehmn_device_take */
}

static const command commands[] = {
    [EHMN_WIRE_IDENTIFY] = {identify, 0, 0, 0},
    [EHMN_WIRE_RESET] = {reset, 0, 0, 1},
    [EHMN_WIRE_PROCESS] = {process, 4, 4 + 4 * EHMN_WIRE_MAX_TOKENS, 1},
    [EHMN_WIRE_GENERATE] = {generate, 8, 8, 1},
    [EHMN_WIRE_FORGET] = {forget, 8, 8, 1},
    [EHMN_WIRE_COUNTS] = {counts, 0, 0, 1},
    [EHMN_WIRE_SAVE] = {save, 0, 0, 1},
    [EHMN_WIRE_READ] = {read_staging, 8, 8, 0},
    [EHMN_WIRE_WRITE] = {write_staging, 4, EHMN_WIRE_MAX_PAYLOAD, 0},
    [EHMN_WIRE_LOAD] = {load, 4, 4, 1},
    [EHMN_WIRE_RESTART] = {restart, 0, 0, 0},
    [EHMN_WIRE_STORE] = {ehmn_command_store, 0, 0, 1},
    [EHMN_WIRE_CONFIRM] = {ehmn_command_confirm, 0, 0, 0},
    [EHMN_WIRE_ROLL_BACK] = {ehmn_command_roll_back, 0, 0, 1},
    [EHMN_WIRE_WIPE] = {ehmn_command_wipe, 0, 0, 0},
    [EHMN_WIRE_STATE] = {ehmn_command_state, 0, 0, 0},
    [EHMN_WIRE_TEXT] = {ehmn_command_text, 8, 8 + EHMN_WIRE_TEXT_ROOM, 1},
    [EHMN_WIRE_SAY] = {ehmn_command_say, 12, 12, 1},
};

static int32_t run(ehmn_device *device, const ehmn_wire_frame *request)
{
    uint32_t number = request->header.command;
    if (number >= sizeof commands / sizeof commands[0] || commands[number].run == NULL) {
        return EHMN_WIRE_E_COMMAND;
    }
    const command *c = commands + number;
    if (request->header.length < c->least || request->header.length > c->most) {
        return EHMN_WIRE_E_LENGTH;
    }
    return c->needs_model && device->model == NULL ? EHMN_WIRE_E_NO_MODEL
                                                   : c->run(device, request, &device->answer);
}

/* A request that is no part of the session is refused in a frame of its own: the session goes on. */
static void refuse(const ehmn_device *device, const ehmn_wire_frame *request, int32_t status)
{
    struct {
        ehmn_wire_header header;
        uint32_t crc;
    } frame;
    frame.header = request->header;
    frame.header.command |= EHMN_WIRE_ANSWER;
    frame.header.length = 0;
    frame.header.status = status;
    uint32_t bytes = ehmn_wire_seal(&frame);
    device->port->write(&frame, bytes);
}

static void serve(ehmn_device *device, const ehmn_wire_frame *request)
{
    ehmn_wire_header *answer = &device->answer.header;
    uint32_t sequence = request->header.sequence;
    if (request->header.command & EHMN_WIRE_ANSWER) {
        return; /* an echo of our own */
    }
    if (request->header.version != EHMN_WIRE_VERSION) {
        refuse(device, request, EHMN_WIRE_E_VERSION);
        return;
    }
    if (!device->in_session || sequence != answer->sequence) {
        if (request->header.command != EHMN_WIRE_IDENTIFY
            && (!device->in_session || sequence != answer->sequence + 1u)) {
            refuse(device, request, EHMN_WIRE_E_SEQUENCE);
            return;
        }
        device->in_session = 1;
        memset(&device->answer, 0, sizeof device->answer);
        answer->command = request->header.command | EHMN_WIRE_ANSWER;
        answer->sequence = sequence;
        answer->status = run(device, request);
        answer->length = answer->status == EHMN_OK ? answer->length : 0;
    }
    uint32_t bytes = ehmn_wire_seal(&device->answer);
    device->port->write(&device->answer, bytes);
    if (answer->command == (EHMN_WIRE_RESTART | EHMN_WIRE_ANSWER) && answer->status == EHMN_OK) {
        device->port->restart();
    }
}

void ehmn_device_take(ehmn_device *device, uint8_t byte)
{
    int32_t whole = ehmn_wire_take(&device->receiver, byte);
    while (whole) {
        serve(device, &device->receiver.frame);
        whole = ehmn_wire_drop(&device->receiver);
    }
}

/* Open the image in the richest mode for which there is room. */
static int32_t open_image(ehmn_device *device)
{
    const ehmn_port *port = device->port;
    const ehmn_image *image = port->image;
    uint32_t bytes = image->bytes < port->image_room ? image->bytes : port->image_room;
    int32_t status = ehmn_image_check(image, bytes);
    if (status != EHMN_OK) {
        return status;
    }
    device->mode = EHMN_PLASTIC;
    status = ehmn_arena_bytes(image, device->mode, &device->arena_bytes);
    if (status == EHMN_OK && device->arena_bytes > port->arena_room) {
        device->mode = EHMN_STATIC;
        status = ehmn_arena_bytes(image, device->mode, &device->arena_bytes);
    }
    if (status == EHMN_OK) {
        status = ehmn_delta_bytes(image, &device->delta_bytes);
    }
    if (status == EHMN_OK) {
        uint32_t arena = port->arena_room;
        if (port->staging_room == 0 && device->arena_bytes < arena) { /* the rest is the staging buffer */
            arena = device->arena_bytes;
        }
        status = ehmn_open(image, port->arena, arena, device->mode, 0, &device->model);
    }
    return status;
}

void ehmn_device_start(ehmn_device *device, const ehmn_port *port)
{
    memset(device, 0, sizeof *device);
    device->port = port;
    device->image_status = open_image(device);
    ehmn_load_state(device);
}
