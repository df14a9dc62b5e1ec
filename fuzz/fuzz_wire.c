/* The parser of frames and the commands behind it: whatever comes in, every answer is a valid frame of its session, and
 * the flash stays one that holds a whole state or none. */
#include "fuzz.h"

#include "device.h"

#define SECTOR 4096u
#define UNIT 32u

static uint8_t *image, *arena, *fresh_arena;
static ehmn_device device, fresh;
static uint32_t image_bytes, arena_bytes;
static uint8_t flash_bytes[2 * SECTOR] __attribute__((aligned(64)));
static uint8_t staging[2 * SECTOR] __attribute__((aligned(64)));
static ehmn_wire_receiver answers;
static uint32_t ticks, restarts;

static int32_t erase(void *context, uint32_t offset)
{
    (void)context;
    REQUIRE(offset % SECTOR == 0 && offset < sizeof flash_bytes);
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
    memcpy(flash_bytes + offset, bytes, count);
    return EHMN_OK;
}

static const ehmn_flash flash = {flash_bytes, SECTOR, 1, UNIT, erase, program, NULL};

static void timer_start(void)
{
    ticks = 0;
}

static uint32_t timer_read(void)
{
    return ++ticks;
}

static void answer(const void *bytes, uint32_t count)
{
    const uint8_t *p = bytes;
    int32_t whole = 0;
    for (uint32_t i = 0; i < count; i++) {
        REQUIRE(!whole);
        whole = ehmn_wire_take(&answers, p[i]);
    }
    REQUIRE(whole && (answers.frame.header.command & EHMN_WIRE_ANSWER));
    REQUIRE(answers.frame.header.status == EHMN_OK || answers.frame.header.length == 0);
    REQUIRE(!ehmn_wire_drop(&answers));
}

static void restart(void)
{
    restarts++;
}

static ehmn_port the_port(void)
{
    ehmn_port port = {"fuzz", image, image_bytes, arena, arena_bytes, staging, sizeof staging, &flash, 1000000,
                      timer_start, timer_read, answer, restart};
    return port;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    image = image_of_environment(&image_bytes);
    REQUIRE(ehmn_arena_bytes(image, EHMN_PLASTIC, &arena_bytes) == EHMN_OK);
    arena = aligned_alloc(64, (arena_bytes + 63u) / 64u * 64u);
    fresh_arena = malloc(arena_bytes);
    memset(flash_bytes, 0xFF, sizeof flash_bytes);
    static ehmn_port port;
    port = the_port();
    ehmn_device_start(&fresh, &port);
    REQUIRE(fresh.image_status == EHMN_OK);
    memcpy(fresh_arena, arena, arena_bytes);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(flash_bytes, 0xFF, sizeof flash_bytes);
    memset(&answers, 0, sizeof answers);
    memcpy(arena, fresh_arena, arena_bytes); /* the image is not validated again for every input */
    device = fresh;
    restarts = 0;
    for (size_t i = 0; i < size; i++) {
        ehmn_device_take(&device, data[i]);
        if (restarts != 0) {
            ehmn_device_start(&device, fresh.port);
            restarts = 0;
        }
    }
    ehmn_state found;
    REQUIRE(ehmn_state_find(&flash, &found) == EHMN_OK);
    return 0;
}

/* Put right, from left to right, what makes frames of a session: sync, length, sequence, CRC. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
    const uint32_t sync = EHMN_WIRE_SYNC;
    uint32_t sequence = 7;
    size = LLVMFuzzerMutate(data, size, max);
    for (size_t at = 0; seed % 8u != 0 && at + EHMN_WIRE_OVERHEAD <= size;) {
        if (memcmp(data + at, &sync, 2) != 0) {
            at++;
            continue;
        }
        uint32_t length = data[at + 6] | (uint32_t)data[at + 7] << 8;
        uint32_t room = (uint32_t)(size - at) - EHMN_WIRE_OVERHEAD;
        length = length > EHMN_WIRE_MAX_PAYLOAD || length > room ? (room < 64u ? room : length % 64u) : length;
        put32(data + at, sync);
        data[at + 4] = EHMN_WIRE_VERSION;
        data[at + 6] = (uint8_t)length;
        data[at + 7] = (uint8_t)(length >> 8);
        put32(data + at + 8, sequence++);
        put32(data + at + 16 + length, ehmn_crc32(0, data + at, 16u + length));
        at += EHMN_WIRE_OVERHEAD + length;
    }
    return size;
}
