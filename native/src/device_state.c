/* The commands about what the board keeps in its own flash. */
#include "commands.h"

#include <string.h>

static const ehmn_image *image_of(const ehmn_device *device)
{
    return device->port->image;
}

static int32_t load(ehmn_device *device, const ehmn_state *state)
{
    return ehmn_delta_load(device->model, device->port->flash->base + state->offset, state->bytes);
}

void ehmn_load_state(ehmn_device *device)
{
    const ehmn_flash *flash = device->port->flash;
    ehmn_state state;
    device->state_status = EHMN_OK;
    if (flash == NULL || device->model == NULL || device->mode != EHMN_PLASTIC) {
        return;
    }
    int32_t status = ehmn_state_begin(flash, image_of(device)->id, &state);
    if (status == EHMN_OK && state.sequence != 0) {
        status = load(device, &state);
    }
    device->state_status = status;
}

/* The state that counts from now on: back from flash, or nothing learned if there is none. */
static int32_t return_to_stored(ehmn_device *device)
{
    ehmn_state state;
    int32_t status = ehmn_state_find(device->port->flash, &state);
    if (status == EHMN_OK) {
        status = state.sequence != 0 ? load(device, &state) : ehmn_delta_reset(device->model, 0);
    }
    device->state_status = status;
    return status;
}

int32_t ehmn_command_store(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    const ehmn_port *port = device->port;
    (void)request;
    (void)answer;
    if (port->flash == NULL) {
        return EHMN_WIRE_E_NO_FLASH;
    }
    int32_t status = ehmn_delta_save(device->model, port->staging, port->staging_room);
    return status == EHMN_OK
        ? ehmn_state_store(port->flash, image_of(device)->id, port->staging, device->delta_bytes)
        : status;
}

int32_t ehmn_command_confirm(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    (void)request;
    (void)answer;
    return device->port->flash == NULL ? EHMN_WIRE_E_NO_FLASH : ehmn_state_confirm(device->port->flash);
}

int32_t ehmn_command_roll_back(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    (void)request;
    (void)answer;
    if (device->port->flash == NULL) {
        return EHMN_WIRE_E_NO_FLASH;
    }
    if (device->mode != EHMN_PLASTIC) {
        return EHMN_E_STATE;
    }
    int32_t status = ehmn_state_drop(device->port->flash);
    return status == EHMN_OK ? return_to_stored(device) : status;
}

int32_t ehmn_command_wipe(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    const ehmn_port *port = device->port;
    (void)request;
    (void)answer;
    if (port->flash == NULL) {
        return EHMN_WIRE_E_NO_FLASH;
    }
    int32_t status = ehmn_state_wipe(port->flash);
    if (device->model != NULL && device->mode == EHMN_PLASTIC) {
        (void)ehmn_delta_reset(device->model, 0);
        ehmn_reset(device->model);
    }
    memset(port->staging, 0, port->staging_room);
    ehmn_forget_text(device);
    device->state_status = status;
    return status;
}

int32_t ehmn_command_state(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    ehmn_wire_state said;
    ehmn_state state;
    (void)request;
    memset(&said, 0, sizeof said);
    if (device->port->flash == NULL) {
        said.status = EHMN_WIRE_E_NO_FLASH;
    } else {
        int32_t status = ehmn_state_find(device->port->flash, &state);
        if (status != EHMN_OK) {
            return status;
        }
        said.status = device->state_status;
        said.sequence = state.sequence;
        said.confirmed = state.confirmed;
        said.bytes = state.bytes;
        said.trials = state.trials;
        said.slot_bytes = state.slot_bytes;
        memcpy(said.image_id, state.image_id, sizeof said.image_id);
    }
    memcpy(answer->payload, &said, sizeof said);
    answer->header.length = (uint16_t)sizeof said;
    return EHMN_OK;
}
