/* The parser of frames and the commands behind it, on boards of several kinds. A second reading of the stream and of
 * the rules of a session says which answers must come; every answer is a valid frame; what is refused changes nothing;
 * the flash is written inside its region and onto blank units only, and what it holds can always be loaded.
 * The input: the kind of board, the operation of the flash that fails (0: none), then the bytes that the host sends. */
#include "fuzz.h"

#include "commands.h"
#include "edgehmn_tokenizer.h"
#include "mutate_frames.h"

#include <setjmp.h>

#define SECTOR 1024u
#define SLOT_SECTORS 1u /* room for one delta: more in a slot is what fuzz_state is about */
#define UNIT 8u
#define STAGING 4096u
#define MOST_TOKENS 48u /* that one input may cost, but for the request that goes beyond */
#define COMMANDS (EHMN_WIRE_SAY + 1u)

typedef struct {
    ehmn_port port;
    ehmn_device opened, device; /* before and after it has looked at the flash */
    uint8_t *opened_arena, *arena;
    uint8_t flash[2 * SLOT_SECTORS * SECTOR];
} board;

enum {
    USUAL, WITHOUT_FLASH, STATIC, WITHOUT_IMAGE, LITTLE_STAGING, WITHOUT_TOKENIZER, OTHER_STATE, KEPT_STATE, BOARDS
};

static board boards[BOARDS];
static ehmn_device device;
static uint8_t *arena;
static uint32_t arena_bytes;
static uint8_t flash_bytes[2 * SLOT_SECTORS * SECTOR] __attribute__((aligned(64)));
static uint8_t staging[STAGING] __attribute__((aligned(64)));
static uint32_t ticks, tokens, faults;
static int flash_changed, flash_used; /* since it was looked at last, and by this input */
static jmp_buf restarted;

/* ---- The board */

static int fails(void)
{
    return faults != 0 && --faults == 0;
}

static int32_t erase(void *context, uint32_t offset)
{
    (void)context;
    REQUIRE(offset % SECTOR == 0 && offset < sizeof flash_bytes);
    flash_changed = flash_used = 1;
    if (fails()) {
        return EHMN_STATE_E_FLASH;
    }
    memset(flash_bytes + offset, 0xFF, SECTOR);
    return EHMN_OK;
}

static int32_t program(void *context, uint32_t offset, const void *bytes, uint32_t count)
{
    (void)context;
    REQUIRE(offset % UNIT == 0 && count % UNIT == 0 && count <= sizeof flash_bytes - offset);
    for (uint32_t i = 0; i < count; i++) {
        REQUIRE(flash_bytes[offset + i] == 0xFF);
    }
    flash_changed = flash_used = 1;
    memcpy(flash_bytes + offset, bytes, fails() ? count / 2u : count); /* and says that all is well */
    return EHMN_OK;
}

static const ehmn_flash flash = {flash_bytes, SECTOR, SLOT_SECTORS, UNIT, erase, program, NULL};

static void timer_start(void)
{
    ticks = 0;
    tokens++;
}

static uint32_t timer_read(void)
{
    return ++ticks;
}

static void restart(void)
{
    tokens += 8u;
    longjmp(restarted, 1); /* a board does not return either */
}

/* ---- What must be answered */

typedef struct {
    uint32_t in_session, sequence, kept_bytes;
    uint8_t kept[EHMN_WIRE_MAX_FRAME];
} session;

static const uint8_t *stream;
static uint32_t seen, reading; /* bytes that the board was given, and where the second reading stands */
static session expected;
static uint8_t *arena_before;

/* The next frame in what the board has seen, as SPEC.md finds it: NULL if there is none yet. */
static const uint8_t *next_frame(void)
{
    static const uint8_t sync[4] = {0xD5, 0x45, 0x48, 0x4D};
    for (; reading < seen; reading++) {
        const uint8_t *p = stream + reading;
        uint32_t left = seen - reading;
        if (*p != sync[0] || !same_bytes(p, sync, left < 4u ? left : 4u)) {
            continue;
        }
        uint32_t length = left < 8u ? 0u : p[6] | (uint32_t)p[7] << 8;
        if (left < 16u || (length <= EHMN_WIRE_MAX_PAYLOAD && left < EHMN_WIRE_OVERHEAD + length)) {
            return NULL;
        }
        if (length <= EHMN_WIRE_MAX_PAYLOAD && fuzz_crc32(p, 16u + length) == get32(p + 16u + length)) {
            reading += EHMN_WIRE_OVERHEAD + length;
            if ((p[5] & EHMN_WIRE_ANSWER) == 0) {
                return p;
            }
            reading--;
        }
    }
    return NULL;
}

static void check_stored(void)
{
    ehmn_state s;
    REQUIRE(ehmn_state_find(&flash, &s) == EHMN_OK);
    REQUIRE(s.offset <= sizeof flash_bytes && s.bytes <= sizeof flash_bytes - s.offset && s.confirmed <= s.sequence);
    if (s.sequence != 0 && same_bytes(s.image_id, ((const ehmn_image *)device.port->image)->id, EHMN_ID_BYTES)) {
        static uint8_t copy[STAGING] __attribute__((aligned(64)));
        uint32_t id = offsetof(ehmn_delta, image_id);
        REQUIRE(s.bytes == device.delta_bytes);
        memcpy(copy, flash_bytes + s.offset, s.bytes);
        REQUIRE(get32(copy) == EHMN_DELTA_MAGIC && fuzz_crc32(copy + id, s.bytes - id) == get32(copy + 12));
    }
    flash_changed = 0;
}

static void check_blank(void)
{
    for (uint32_t i = 0; i < sizeof flash_bytes; i++) {
        REQUIRE(flash_bytes[i] == 0xFF);
    }
    for (uint32_t i = 0; i < device.port->staging_room; i++) {
        REQUIRE(staging[i] == 0);
    }
    REQUIRE(device.text_bytes == 0);
}

/* A request that was done: its answer is of the right length, and if it was refused, the model is as it was. */
static void check_done(const uint8_t *request, const uint8_t *answer, uint32_t count)
{
    static const uint16_t lengths[COMMANDS] = {[EHMN_WIRE_IDENTIFY] = sizeof(ehmn_wire_identity),
                                               [EHMN_WIRE_COUNTS] = sizeof(ehmn_wire_counts),
                                               [EHMN_WIRE_STATE] = sizeof(ehmn_wire_state),
                                               [EHMN_WIRE_TEXT] = sizeof(ehmn_wire_text)};
    uint32_t command = request[5], length = request[6] | (uint32_t)request[7] << 8;
    uint32_t payload = count - EHMN_WIRE_OVERHEAD;
    int32_t status = (int32_t)get32(answer + 12);
    REQUIRE(status <= 0 && status >= EHMN_STATE_E_FLASH);
    REQUIRE(command - 1u < COMMANDS - 1u ? status != EHMN_WIRE_E_COMMAND : status == EHMN_WIRE_E_COMMAND);
    if (status != EHMN_OK) {
        int loads = command == EHMN_WIRE_WIPE || command == EHMN_WIRE_ROLL_BACK;
        REQUIRE(loads || same_bytes(arena, arena_before, arena_bytes));
    } else if (command == EHMN_WIRE_PROCESS) {
        REQUIRE(payload == length - 4u);
    } else if (command == EHMN_WIRE_GENERATE) {
        REQUIRE(payload == 4u * get32(request + 16) && payload <= 4u * EHMN_WIRE_MAX_TOKENS);
    } else if (command == EHMN_WIRE_READ) {
        REQUIRE(payload == get32(request + 20));
    } else if (command == EHMN_WIRE_SAY) {
        REQUIRE(payload >= 4u && get32(answer + 16) <= get32(request + 16));
    } else {
        REQUIRE(payload == lengths[command]);
    }
    if (command == EHMN_WIRE_WIPE && status == EHMN_OK) {
        check_blank();
    }
    if (flash_changed) {
        check_stored();
    }
    memcpy(arena_before, arena, arena_bytes);
}

static void answered(const void *bytes, uint32_t count)
{
    const uint8_t *a = bytes, *request = next_frame();
    REQUIRE(request != NULL && count >= EHMN_WIRE_OVERHEAD && count <= EHMN_WIRE_MAX_FRAME);
    REQUIRE(get32(a) == EHMN_WIRE_SYNC && a[4] == EHMN_WIRE_VERSION);
    REQUIRE((a[6] | (uint32_t)a[7] << 8) == count - EHMN_WIRE_OVERHEAD);
    REQUIRE(fuzz_crc32(a, count - 4u) == get32(a + count - 4u));
    uint32_t sequence = get32(request + 8);
    int32_t status = (int32_t)get32(a + 12);
    REQUIRE(get32(a + 8) == sequence && (status == EHMN_OK || count == EHMN_WIRE_OVERHEAD));
    if (request[4] == EHMN_WIRE_VERSION && expected.in_session && sequence == expected.sequence) {
        REQUIRE(count == expected.kept_bytes && same_bytes(a, expected.kept, count)); /* whatever was asked */
        return;
    }
    REQUIRE(a[5] == (request[5] | EHMN_WIRE_ANSWER));
    if (request[4] != EHMN_WIRE_VERSION) {
        REQUIRE(status == EHMN_WIRE_E_VERSION);
    } else if (request[5] == EHMN_WIRE_IDENTIFY || (expected.in_session && sequence == expected.sequence + 1u)) {
        expected.in_session = 1;
        expected.sequence = sequence;
        expected.kept_bytes = count;
        memcpy(expected.kept, a, count);
        check_done(request, a, count);
    } else {
        REQUIRE(status == EHMN_WIRE_E_SEQUENCE);
    }
}

/* ---- The boards */

static void store_one(uint32_t kind, const ehmn_image *image, int confirmed)
{
    REQUIRE(ehmn_delta_save(boards[USUAL].device.model, staging, STAGING) == EHMN_OK);
    REQUIRE(ehmn_state_store(&flash, image->id, staging, boards[USUAL].device.delta_bytes) == EHMN_OK);
    REQUIRE(!confirmed || ehmn_state_confirm(&flash) == EHMN_OK);
    memcpy(boards[kind].flash, flash_bytes, sizeof flash_bytes);
}

static void make_board(uint32_t kind, const void *image, uint32_t image_bytes, uint32_t room)
{
    board *b = &boards[kind];
    ehmn_port port = {"fuzz", image, image_bytes, arena, room, staging, kind == LITTLE_STAGING ? 64u : STAGING,
                      kind == WITHOUT_FLASH ? NULL : &flash, 1000000, timer_start, timer_read, answered, restart};
    b->port = port;
    memset(flash_bytes, 0xFF, sizeof flash_bytes);
    memcpy(b->flash, flash_bytes, sizeof flash_bytes);
    if (kind == OTHER_STATE || kind == KEPT_STATE) {
        ehmn_image other = *(const ehmn_image *)image;
        other.id[0] ^= kind == OTHER_STATE;
        store_one(kind, &other, kind == KEPT_STATE);
    }
    memset(flash_bytes, 0xFF, sizeof flash_bytes);
    memset(arena, 0, arena_bytes);
    ehmn_device_start(&b->opened, &b->port);
    b->opened_arena = memory(arena_bytes);
    memcpy(b->opened_arena, arena, arena_bytes);
    memcpy(flash_bytes, b->flash, sizeof flash_bytes);
    b->device = b->opened;
    ehmn_load_state(&b->device);
    b->arena = memory(arena_bytes);
    memcpy(b->arena, arena, arena_bytes);
    memcpy(b->flash, flash_bytes, sizeof flash_bytes);
}

/* As ehmn_device_start, but that the image is not validated again. What the flash holds of this image is loaded. */
static void start_again(const board *b)
{
    device = b->opened;
    faults = 0;
    memcpy(arena, b->opened_arena, arena_bytes);
    ehmn_load_state(&device);
    REQUIRE(device.state_status == EHMN_OK || (b == &boards[OTHER_STATE] && device.state_status == EHMN_E_IMAGE_ID));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static uint8_t nothing[sizeof(ehmn_image)] __attribute__((aligned(16)));
    uint32_t bytes, small_bytes, room;
    const void *image = model_image("text", &bytes), *small = model_image("small", &small_bytes);
    (void)argc;
    (void)argv;
    REQUIRE(ehmn_arena_bytes(image, EHMN_PLASTIC, &arena_bytes) == EHMN_OK);
    REQUIRE(ehmn_arena_bytes(small, EHMN_PLASTIC, &room) == EHMN_OK);
    arena_bytes = arena_bytes > room ? arena_bytes : room;
    arena = memory(arena_bytes);
    arena_before = memory(arena_bytes);
    REQUIRE(ehmn_arena_bytes(image, EHMN_STATIC, &room) == EHMN_OK);
    for (uint32_t kind = 0; kind < BOARDS; kind++) {
        make_board(kind, kind == WITHOUT_IMAGE ? nothing : kind == WITHOUT_TOKENIZER ? small : image,
                   kind == WITHOUT_IMAGE ? (uint32_t)sizeof nothing : kind == WITHOUT_TOKENIZER ? small_bytes : bytes,
                   kind == STATIC ? room : arena_bytes);
        REQUIRE((boards[kind].device.image_status == EHMN_OK) == (kind != WITHOUT_IMAGE));
        REQUIRE((boards[kind].device.mode == EHMN_PLASTIC) == (kind != STATIC && kind != WITHOUT_IMAGE));
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const board *b = &boards[size > 0 ? data[0] % BOARDS : 0u];
    volatile uint32_t at = 0;
    if (size < 2u) {
        return 0;
    }
    memcpy(flash_bytes, b->flash, sizeof flash_bytes);
    memcpy(arena, b->arena, arena_bytes);
    memcpy(arena_before, b->arena, arena_bytes);
    memset(staging, 0, sizeof staging);
    memset(&expected, 0, sizeof expected.in_session + sizeof expected.sequence + sizeof expected.kept_bytes);
    device = b->device;
    stream = data + 2;
    reading = 0;
    seen = 0;
    tokens = 0;
    flash_changed = flash_used = 0;
    faults = data[1];
    if (setjmp(restarted) != 0) {
        reading = at; /* what the receiver held is lost */
        expected.in_session = 0;
        start_again(b);
        memcpy(arena_before, arena, arena_bytes);
    }
    while (at < size - 2u && tokens < MOST_TOKENS) {
        seen = ++at;
        ehmn_device_take(&device, stream[at - 1u]);
    }
    REQUIRE(next_frame() == NULL); /* none is left unanswered */
    if (flash_used) {
        start_again(b); /* power goes, and comes back */
    }
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
    draws d = draws_of(seed);
    return mutate_frames(&d, data, size, max, 2);
}
