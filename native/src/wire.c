/* Frames out of any stream of bytes, and into one. */
#include "edgehmn_wire.h"

#include "edgehmn.h"

#include <string.h>

#define HEADER_BYTES ((uint32_t)sizeof(ehmn_wire_header))
#define CRC_BYTES ((uint32_t)sizeof(uint32_t))
#define NEEDS_MORE 0u
#define IMPOSSIBLE UINT32_MAX

/* The size of the frame that begins at `bytes`, of which `n` are there, or what is known about it. */
static uint32_t frame_size(const uint8_t *bytes, uint32_t n)
{
    const uint32_t sync = EHMN_WIRE_SYNC;
    if (memcmp(bytes, &sync, n < sizeof sync ? n : sizeof sync) != 0) {
        return IMPOSSIBLE;
    }
    if (n < HEADER_BYTES) {
        return NEEDS_MORE;
    }
    uint16_t length;
    memcpy(&length, bytes + offsetof(ehmn_wire_header, length), sizeof length);
    if (length > EHMN_WIRE_MAX_PAYLOAD) {
        return IMPOSSIBLE;
    }
    uint32_t checked = HEADER_BYTES + length;
    if (n < checked + CRC_BYTES) {
        return NEEDS_MORE;
    }
    uint32_t crc;
    memcpy(&crc, bytes + checked, sizeof crc);
    return ehmn_crc32(0, bytes, checked) == crc ? checked + CRC_BYTES : IMPOSSIBLE;
}

/* Skip the first `from` bytes, and then all that cannot begin a frame. Bytes of a frame that turned out to be
 * none are looked at again: a valid one may begin among them. */
static int32_t skip(ehmn_wire_receiver *receiver, uint32_t from)
{
    uint8_t *bytes = (uint8_t *)&receiver->frame;
    uint32_t size = IMPOSSIBLE;
    while (from < receiver->filled) {
        size = frame_size(bytes + from, receiver->filled - from);
        if (size != IMPOSSIBLE) {
            break;
        }
        from++;
    }
    if (from != 0) {
        receiver->filled -= from;
        memmove(bytes, bytes + from, receiver->filled);
    }
    return receiver->filled != 0 && size != NEEDS_MORE;
}

int32_t ehmn_wire_take(ehmn_wire_receiver *receiver, uint8_t byte)
{
    ((uint8_t *)&receiver->frame)[receiver->filled] = byte;
    receiver->filled++;
    return skip(receiver, 0);
}

int32_t ehmn_wire_drop(ehmn_wire_receiver *receiver)
{
    return skip(receiver, HEADER_BYTES + receiver->frame.header.length + CRC_BYTES);
}

uint32_t ehmn_wire_seal(void *frame)
{
    uint8_t *bytes = frame;
    ehmn_wire_header *header = frame;
    uint32_t checked = HEADER_BYTES + header->length;
    header->sync = EHMN_WIRE_SYNC;
    header->version = EHMN_WIRE_VERSION;
    uint32_t crc = ehmn_crc32(0, bytes, checked);
    memcpy(bytes + checked, &crc, sizeof crc);
    return checked + CRC_BYTES;
}
