#include "mutate_frames.h"

#include "edgehmn_wire.h"

#define MOST_FRAMES 64u
#define LONGEST (EHMN_WIRE_MAX_FRAME + 8u) /* of frames that are put in: longer than there may be */
#define USUAL_FRAMES 12u /* beyond these, what follows is mostly cut off: speed */

typedef struct {
    size_t at, bytes;
} span;

static size_t find_frames(const uint8_t *data, size_t size, size_t from, span *frames)
{
    const uint32_t sync = EHMN_WIRE_SYNC;
    size_t n = 0;
    for (size_t at = from; at + EHMN_WIRE_OVERHEAD <= size && n < MOST_FRAMES;) {
        size_t bytes = EHMN_WIRE_OVERHEAD + (data[at + 6u] | (size_t)data[at + 7u] << 8);
        if (memcmp(data + at, &sync, 2) != 0) {
            at++;
            continue;
        }
        bytes = bytes <= size - at && bytes <= LONGEST ? bytes : EHMN_WIRE_OVERHEAD;
        frames[n++] = (span){at, bytes};
        at += bytes;
    }
    return n;
}

/* A payload that a command may take: how long it is. */
static uint32_t payload_of(draws *d, uint32_t command, uint8_t *out)
{
    static const char *const texts[] = {"a", "b ab", "<s>", " ", "\n", "a\xe2\x96\x81", "<", "\xc3"};
    uint32_t few = below(d, 128) == 0 ? below(d, 70) : below(d, 4);
    switch (command) {
    case EHMN_WIRE_PROCESS:
        put32(out, below(d, 16) == 0 ? draw(d) : below(d, 3));
        for (uint32_t i = 0; i < few; i++) {
            put32(out + 4u + 4u * i, below(d, 64) == 0 ? draw(d) : below(d, 5));
        }
        return 4u + 4u * few;
    case EHMN_WIRE_GENERATE:
        put32(out, few);
        put32(out + 4, below(d, 8) == 0 ? draw(d) : below(d, 4097));
        return 8;
    case EHMN_WIRE_SAY:
        put32(out, few);
        put32(out + 4, below(d, 8) == 0 ? draw(d) : below(d, 4097));
        put32(out + 8, below(d, 16) == 0 ? draw(d) : below(d, 2));
        return 12;
    case EHMN_WIRE_FORGET:
        put32(out, draw(d));
        put32(out + 4, draw(d));
        return 8;
    case EHMN_WIRE_READ:
        put32(out, below(d, 4) == 0 ? 4096u - below(d, 64) : below(d, 64));
        put32(out + 4, below(d, 16) == 0 ? draw(d) : below(d, 70));
        return 8;
    case EHMN_WIRE_LOAD:
        put32(out, below(d, 16) == 0 ? draw(d) : below(d, 2) == 0 ? 4097u : below(d, 2048));
        return 4;
    case EHMN_WIRE_WRITE:
        put32(out, below(d, 4) == 0 ? 4096u - below(d, 64) : 4u * below(d, 200));
        put32(out + 4, draw(d));
        return 4u + below(d, 5);
    case EHMN_WIRE_TEXT: {
        const char *text = texts[below(d, 8)];
        uint32_t n = (uint32_t)strlen(text), times = below(d, 256) == 0 ? 512u / n : 1u + below(d, 3);
        put32(out, below(d, 16) == 0 ? draw(d) : below(d, 3));
        put32(out + 4, below(d, 16) == 0 ? draw(d) : below(d, 2));
        for (uint32_t i = 0; i < times; i++) {
            memcpy(out + 8u + i * n, text, n);
        }
        return 8u + times * n;
    }
    default:
        return below(d, 32) == 0 ? 4u : 0u;
    }
}

/* Put a request in at `at`. */
static size_t insert_frame(draws *d, uint8_t *data, size_t size, size_t max, size_t at)
{
    uint8_t frame[LONGEST] = {0};
    uint32_t command = below(d, 32) == 0 ? below(d, 256) : 1u + below(d, EHMN_WIRE_SAY);
    uint32_t length = payload_of(d, command, frame + 16);
    length = below(d, 64) == 0 ? LONGEST - EHMN_WIRE_OVERHEAD - below(d, 16) : length;
    size_t bytes = EHMN_WIRE_OVERHEAD + length;
    if (size + bytes > max) {
        return size;
    }
    put32(frame, EHMN_WIRE_SYNC);
    frame[4] = EHMN_WIRE_VERSION;
    frame[5] = (uint8_t)command;
    frame[6] = (uint8_t)length;
    frame[7] = (uint8_t)(length >> 8);
    memmove(data + at + bytes, data + at, size - at);
    memcpy(data + at, frame, bytes);
    return size + bytes;
}

static size_t change_frames(draws *d, uint8_t *data, size_t size, size_t max, size_t from)
{
    static span frames[MOST_FRAMES];
    static uint8_t copy[LONGEST];
    size_t n = find_frames(data, size, from, frames);
    if (n == 0) {
        return insert_frame(d, data, size, max, size);
    }
    span f = frames[below(d, (uint32_t)n)], to = frames[below(d, (uint32_t)n)];
    switch (below(d, 6)) {
    case 0: /* taken out */
        memmove(data + f.at, data + f.at + f.bytes, size - f.at - f.bytes);
        return size - f.bytes;
    case 1: /* repeated elsewhere */
        if (size + f.bytes > max) {
            return size;
        }
        memcpy(copy, data + f.at, f.bytes);
        memmove(data + to.at + f.bytes, data + to.at, size - to.at);
        memcpy(data + to.at, copy, f.bytes);
        return size + f.bytes;
    case 2: /* another payload, of the same length */
        (void)payload_of(d, data[f.at + 5u], copy);
        memcpy(data + f.at + 16u, copy, f.bytes - EHMN_WIRE_OVERHEAD);
        return size;
    case 3: /* what follows is lost */
        return below(d, 4) == 0 ? f.at + f.bytes : size;
    default:
        return insert_frame(d, data, size, max, below(d, 3) == 0 ? size : f.at);
    }
}

/* From left to right: sync, length, sequence, CRC. */
static void repair(draws *d, uint8_t *data, const span *frames, size_t n)
{
    uint32_t sequence = n > 0 ? get32(data + frames[0].at + 8u) : 0u;
    for (size_t i = 0; i < n; i++) {
        uint8_t *p = data + frames[i].at;
        uint32_t length = (uint32_t)frames[i].bytes - EHMN_WIRE_OVERHEAD, how = below(d, 128);
        put32(p, EHMN_WIRE_SYNC);
        p[4] = how == 0 ? p[4] : (uint8_t)EHMN_WIRE_VERSION;
        p[5] = i == 0 && how > 8u ? (uint8_t)EHMN_WIRE_IDENTIFY : p[5];
        p[6] = (uint8_t)length;
        p[7] = (uint8_t)(length >> 8);
        if (p[5] == EHMN_WIRE_IDENTIFY && i > 0) {
            sequence = get32(p + 8); /* a new session */
        }
        if (how == 1u) {
            sequence--; /* the last request once more */
        } else if (how == 2u) {
            sequence += draw(d);
        }
        put32(p + 8, sequence++);
        put32(p + 16u + length, fuzz_crc32(p, 16u + length) + (how == 3u));
    }
}

size_t mutate_frames(draws *d, uint8_t *data, size_t size, size_t max, size_t from)
{
    if (size < from || below(d, 3) == 0) {
        size = LLVMFuzzerMutate(data, size, max);
    } else {
        for (uint32_t n = 1u + below(d, 3); n > 0 && size >= from; n--) {
            size = change_frames(d, data, size, max, from);
        }
    }
    if (size <= from) {
        return size;
    }
    span frames[MOST_FRAMES];
    size_t n = find_frames(data, size, from, frames);
    if (n > USUAL_FRAMES && below(d, 16) != 0) {
        n = below(d, USUAL_FRAMES) + 1u;
        size = frames[n - 1u].at + frames[n - 1u].bytes;
    }
    if (below(d, 16) != 0) {
        repair(d, data, frames, n);
    }
    return size;
}
