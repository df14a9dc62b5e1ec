/* The commands that take and give text. Text comes in pieces: what could become other tokens through the next piece
 * waits in the device; the tokens are made in the staging buffer, which is work space of ehmn_tokenize. */
#include "commands.h"

#include "edgehmn_tokenizer.h"

#include <string.h>

#define TEXT_HEAD 8u /* bytes of a request before its text */
#define WORK_TOKENS (6u * EHMN_WIRE_TEXT_ROOM + 8u) /* with as many, every text that waits has room */

static const void *tokenizer_of(const ehmn_device *device)
{
    const ehmn_image *image = device->port->image;
    return image->tokenizer_bytes == 0 ? NULL : (const uint8_t *)device->port->image + image->tokenizer_offset;
}

void ehmn_forget_text(ehmn_device *device)
{
    memset(device->text, 0, sizeof device->text);
    device->text_bytes = 0;
    device->text_state = 0;
    device->say_state = 0;
}

/* Feed the tokens in the staging buffer; their scores go behind them. */
static int32_t process_all(ehmn_device *device, uint32_t n, uint32_t mode, uint64_t *bits)
{
    uint32_t *tokens = device->port->staging;
    int32_t status = EHMN_OK;
    for (uint32_t i = 0; status == EHMN_OK && i < n; i++) {
        status = ehmn_process_token(device, tokens[i], mode, tokens + n + i);
        *bits += tokens[n + i];
    }
    return status;
}

/* Make tokens of what waits; a word that fills all the room is cut. */
static int32_t tokenize(const ehmn_device *device, const void *section, uint32_t more, ehmn_text *text, uint32_t *n)
{
    uint32_t room = device->port->staging_room / 8u;
    uint32_t capacity = room < WORK_TOKENS ? room : WORK_TOKENS;
    text->more = more;
    int32_t status = ehmn_tokenize(section, text, device->port->staging, capacity, n);
    if (status == EHMN_OK && more && text->position == 0 && text->bytes == EHMN_WIRE_TEXT_ROOM) {
        text->more = 0;
        status = ehmn_tokenize(section, text, device->port->staging, capacity, n);
    }
    return status;
}

int32_t ehmn_command_text(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    const void *section = tokenizer_of(device);
    uint32_t mode = request->payload[0];
    uint32_t more = request->payload[1];
    uint32_t count = request->header.length - TEXT_HEAD;
    if (section == NULL) {
        return EHMN_WIRE_E_NO_TOKENIZER;
    }
    int32_t status = ehmn_check_mode(device, mode);
    if (status != EHMN_OK || more > 1u) {
        return status != EHMN_OK ? status : EHMN_E_ARGUMENT;
    }
    if (count > EHMN_WIRE_TEXT_ROOM - device->text_bytes) {
        return EHMN_E_SIZE;
    }
    memcpy(device->text + device->text_bytes, request->payload + 2, count);
    ehmn_text text = {device->text, device->text_bytes + count, 0, 0, device->text_state};
    uint32_t n = 0;
    uint64_t bits = 0;
    status = tokenize(device, section, more, &text, &n);
    if (status != EHMN_OK) {
        return status; /* text_bytes is as it was */
    }
    device->text_bytes = text.bytes - text.position;
    device->text_state = text.state;
    memmove(device->text, device->text + text.position, device->text_bytes);
    if (!more && device->text_bytes == 0) {
        device->text_state = 0;
    }
    status = process_all(device, n, mode, &bits);
    ehmn_wire_text said = {device->text_bytes, n, {(uint32_t)bits, (uint32_t)(bits >> 32)}};
    memcpy(answer->payload, &said, sizeof said);
    answer->header.length = (uint16_t)sizeof said;
    return status;
}

int32_t ehmn_command_say(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer)
{
    const void *section = tokenizer_of(device);
    uint32_t count = request->payload[0];
    uint32_t temperature = request->payload[1];
    uint8_t *out = (uint8_t *)(answer->payload + 1);
    uint32_t filled = 0;
    uint32_t said = 0;
    if (section == NULL) {
        return EHMN_WIRE_E_NO_TOKENIZER;
    }
    if (count > EHMN_WIRE_MAX_TOKENS || request->payload[2] > 1u) {
        return EHMN_E_ARGUMENT;
    }
    uint32_t state = request->payload[2] ? 0 : device->say_state;
    int32_t status = EHMN_OK; /* only the first token can be refused */
    while (status == EHMN_OK && said < count
           && filled + EHMN_MAX_TOKEN_BYTES <= EHMN_WIRE_MAX_PAYLOAD - (uint32_t)sizeof said) {
        uint32_t token = 0;
        uint32_t n = 0;
        status = ehmn_say_token(device, temperature, &token);
        if (status == EHMN_OK) {
            status = ehmn_detokenize(section, token, &state, out + filled, EHMN_MAX_TOKEN_BYTES, &n);
        }
        filled += n;
        said++;
    }
    if (status == EHMN_OK) {
        device->say_state = state;
        answer->payload[0] = said;
        answer->header.length = (uint16_t)(sizeof said + filled);
    }
    return status;
}
