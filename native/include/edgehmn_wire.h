/* What a board and its host say to each other over a serial line: frames, commands, and what they carry.
 *
 * A frame is a header, `length` bytes of payload, and the CRC-32 of both (ehmn_crc32). Either side takes any
 * bytes whatever: what is no valid frame is skipped, without a clock. The host asks, the board answers with the
 * same sequence, and nothing is sent unasked. A request may be sent again until it is answered, with the same
 * sequence: the board does it once and repeats the answer. SPEC.md, "Wire protocol".
 *
 * All fields are little-endian and of fixed width, as in edgehmn_image.h; there is no padding. */
#ifndef EDGEHMN_WIRE_H
#define EDGEHMN_WIRE_H

#include "edgehmn_image.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EHMN_WIRE_VERSION 2u
#define EHMN_WIRE_SYNC 0x4D4845D5u /* bytes D5 45 48 4D: no text, no run of one byte, and no prefix repeats */
#define EHMN_WIRE_MAX_PAYLOAD 1024u
#define EHMN_WIRE_OVERHEAD 20u     /* header and CRC */
#define EHMN_WIRE_MAX_FRAME 1044u  /* after as many zeros the other side is in no half frame */
#define EHMN_WIRE_ANSWER 0x80u     /* this bit of `command` tells an answer from a request */
#define EHMN_WIRE_MAX_TOKENS 64u   /* in one request */

typedef struct {
    uint32_t sync;
    uint8_t version; /* of the commands; this header and the CRC are the same in every version */
    uint8_t command;
    uint16_t length;   /* of the payload, at most EHMN_WIRE_MAX_PAYLOAD */
    uint32_t sequence; /* of the request, and of its answer */
    int32_t status;    /* of an answer: EHMN_OK, EHMN_E_... or EHMN_WIRE_E_...; of a request: zero */
} ehmn_wire_header;

/* Commands. "->" separates the payload of the request from that of an answer with status zero; the payload of
 * any other answer is empty, and what it refuses has changed nothing. */
#define EHMN_WIRE_IDENTIFY 1u /* nothing -> ehmn_wire_identity. Begins a session: sequences count from its own */
#define EHMN_WIRE_RESET 2u    /* nothing -> nothing. ehmn_reset */
#define EHMN_WIRE_PROCESS 3u  /* mode, tokens[] -> scores[]. For each: ehmn_score, _learn or _follow, _step */
#define EHMN_WIRE_GENERATE 4u /* count, temperature -> tokens[count]. For each: ehmn_sample, ehmn_step */
#define EHMN_WIRE_FORGET 5u   /* uint64 seed -> nothing. ehmn_delta_reset */
#define EHMN_WIRE_COUNTS 6u   /* nothing -> ehmn_wire_counts */
#define EHMN_WIRE_SAVE 7u     /* nothing -> nothing. ehmn_delta_save into the board's staging buffer */
#define EHMN_WIRE_READ 8u     /* offset, bytes -> uint8 data[bytes] of the staging buffer */
#define EHMN_WIRE_WRITE 9u    /* offset, uint8 data[] -> nothing. Into the staging buffer */
#define EHMN_WIRE_LOAD 10u    /* bytes -> nothing. ehmn_delta_load of so many bytes of the staging buffer */
#define EHMN_WIRE_RESTART 11u /* nothing -> nothing, then the board starts anew: the session is over */

/* What was learned, in the board's own flash (edgehmn_state.h). All but _STATE, _CONFIRM and _WIPE need a model
 * that learns; _WIPE forgets even if it then reports that the flash is not blank. */
#define EHMN_WIRE_STORE 12u     /* nothing -> nothing. ehmn_delta_save, ehmn_state_store: provisional. Uses the staging
                                   buffer */
#define EHMN_WIRE_CONFIRM 13u   /* nothing -> nothing. ehmn_state_confirm */
#define EHMN_WIRE_ROLL_BACK 14u /* nothing -> nothing. ehmn_state_drop; the confirmed state, or none, is loaded */
#define EHMN_WIRE_WIPE 15u      /* nothing -> nothing. ehmn_state_wipe, ehmn_delta_reset; the staging buffer zeroed */
#define EHMN_WIRE_STATE 16u     /* nothing -> ehmn_wire_state */

/* Text in and out, by the tokenizer of the image. */
#define EHMN_WIRE_TEXT 17u /* mode, more, uint8 text[] -> ehmn_wire_text. As _PROCESS for the tokens of the text */
#define EHMN_WIRE_SAY 18u  /* count, temperature, begins -> tokens, uint8 text[]. As _GENERATE, for at most `count` */

/* What EHMN_WIRE_PROCESS does with a token that came. */
#define EHMN_WIRE_FROZEN 0u /* nothing */
#define EHMN_WIRE_LEARN 1u
#define EHMN_WIRE_FOLLOW 2u /* the gains follow it, every weight stays */

#define EHMN_WIRE_TEXT_ROOM 512u /* bytes of text that wait at most: those of a word that may go on */

#define EHMN_WIRE_E_VERSION (-32)  /* the request is of another version; the answer's header has the board's */
#define EHMN_WIRE_E_COMMAND (-33)  /* no such command */
#define EHMN_WIRE_E_LENGTH (-34)   /* the payload has not the length that the command needs */
#define EHMN_WIRE_E_SEQUENCE (-35) /* not the next of this session: the board restarted, or serves another host */
#define EHMN_WIRE_E_NO_MODEL (-36) /* the board holds no usable image; the identity says why */
#define EHMN_WIRE_E_NO_TOKENIZER (-37) /* the image has none, so the board takes tokens alone */
#define EHMN_WIRE_E_NO_FLASH (-38)     /* the board has no flash in which it could keep what was learned */

typedef struct {
    int32_t image_status;    /* of ehmn_image_check, ehmn_arena_bytes and ehmn_open: all below is valid if zero */
    uint32_t mode;           /* EHMN_PLASTIC, or EHMN_STATIC where the arena is too small to learn */
    uint8_t image_id[32];    /* EHMN_ID_BYTES */
    uint32_t vocab_size;
    uint32_t arena_bytes;    /* what the model takes; with EHMN_E_ARENA, what it would take to run at all */
    uint32_t delta_bytes;
    uint32_t arena_room;     /* from here on: of the board, valid always */
    uint32_t staging_room;
    uint32_t image_version;  /* that this core reads: EHMN_IMAGE_VERSION */
    uint32_t delta_version;  /* EHMN_DELTA_VERSION */
    uint32_t tick_hz;        /* of the ticks in ehmn_wire_counts */
    uint8_t board[32];       /* name in ASCII, filled up with zeros */
} ehmn_wire_identity;

/* Since the board started. */
typedef struct {
    uint64_t steps; /* as ehmn_counts */
    uint64_t learned;
    uint64_t writes;
    uint64_t macs;
    uint64_t step_ticks;  /* spent in ehmn_score, ehmn_sample and ehmn_step */
    uint64_t learn_ticks; /* spent in ehmn_learn and ehmn_follow */
    uint64_t rollbacks;
} ehmn_wire_counts;

/* What the board's flash holds, and what became of it at the start. */
typedef struct {
    int32_t status;       /* of the last loading from flash: EHMN_OK (also if there was nothing), EHMN_E_IMAGE_ID: kept,
                             not applied, ...; EHMN_WIRE_E_NO_FLASH: all below is zero */
    uint32_t sequence;    /* from here on as in ehmn_state */
    uint32_t confirmed;
    uint32_t bytes;
    uint32_t trials;
    uint32_t slot_bytes;
    uint8_t image_id[32];
} ehmn_wire_state;

/* What became of a piece of text. The staging buffer then begins with the n tokens, and after them their n scores. */
typedef struct {
    uint32_t waiting; /* bytes of text that are no tokens yet: more text, or its end, decides about them */
    uint32_t tokens;  /* n */
    uint32_t bits[2]; /* sum of their scores, the low half first */
} ehmn_wire_text;

/* A frame as it lies in memory, with room for the longest: the CRC follows `length` bytes of payload. */
typedef struct {
    ehmn_wire_header header;
    uint32_t payload[257]; /* EHMN_WIRE_MAX_PAYLOAD / 4, and the CRC */
} ehmn_wire_frame;

/* Bytes on their way to becoming a frame; all zero to begin with. */
typedef struct {
    uint32_t filled; /* bytes of `frame` */
    ehmn_wire_frame frame;
} ehmn_wire_receiver;

/* Take one byte. 1: `receiver->frame` is a valid frame, of any version; use it, then ehmn_wire_drop it before
 * the next byte. 0: it needs more bytes. */
int32_t ehmn_wire_take(ehmn_wire_receiver *receiver, uint8_t byte);

/* Drop the valid frame. 1: behind it stands another one (only after noise that looked like a header). */
int32_t ehmn_wire_drop(ehmn_wire_receiver *receiver);

/* Complete the frame at `frame`, 4-aligned: a header with command, length, sequence and status, the payload, and
 * room for the CRC. Puts in sync, version and CRC, and returns the frame's size in bytes. */
uint32_t ehmn_wire_seal(void *frame);

#ifdef __cplusplus
}
#endif

EHMN_ASSERT(sizeof(ehmn_wire_header) == 16, "ehmn_wire_header");
EHMN_ASSERT(sizeof(ehmn_wire_identity) == 104, "ehmn_wire_identity");
EHMN_ASSERT(offsetof(ehmn_wire_identity, board) == 72, "ehmn_wire_identity.board");
EHMN_ASSERT(sizeof(ehmn_wire_counts) == 56, "ehmn_wire_counts");
EHMN_ASSERT(sizeof(ehmn_wire_state) == 56, "ehmn_wire_state");
EHMN_ASSERT(sizeof(ehmn_wire_text) == 16, "ehmn_wire_text");
EHMN_ASSERT(sizeof(ehmn_wire_frame) == EHMN_WIRE_MAX_FRAME, "ehmn_wire_frame");
EHMN_ASSERT(EHMN_WIRE_MAX_FRAME == EHMN_WIRE_MAX_PAYLOAD + EHMN_WIRE_OVERHEAD, "EHMN_WIRE_MAX_FRAME");

#endif
