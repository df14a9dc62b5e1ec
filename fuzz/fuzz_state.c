/* The two slots on a flash that holds anything: what is found lies in the region and has its checksum, and what is
 * stored afterwards is found. */
#include "fuzz.h"

#include "edgehmn_state.h"

#define SECTOR 1024u
#define UNIT 8u

static uint8_t region[2 * SECTOR] __attribute__((aligned(64)));

static int32_t erase(void *context, uint32_t offset)
{
    (void)context;
    REQUIRE(offset % SECTOR == 0 && offset < sizeof region);
    memset(region + offset, 0xFF, SECTOR);
    return EHMN_OK;
}

static int32_t program(void *context, uint32_t offset, const void *bytes, uint32_t count)
{
    (void)context;
    REQUIRE(offset % UNIT == 0 && count % UNIT == 0 && count <= sizeof region - offset);
    for (uint32_t i = 0; i < count; i++) {
        REQUIRE(region[offset + i] == 0xFF);
    }
    memcpy(region + offset, bytes, count);
    return EHMN_OK;
}

static const ehmn_flash flash = {region, SECTOR, 1, UNIT, erase, program, NULL};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t id[32] = {1};
    static const uint8_t bytes[100] = {2};
    ehmn_state state;
    memset(region, 0xFF, sizeof region);
    memcpy(region, data, size < sizeof region ? size : sizeof region);
    REQUIRE(ehmn_state_find(&flash, &state) == EHMN_OK);
    REQUIRE(state.offset <= sizeof region && state.bytes <= sizeof region - state.offset);
    (void)ehmn_state_begin(&flash, id, &state);
    int32_t status = ehmn_state_store(&flash, id, bytes, sizeof bytes);
    if (status == EHMN_E_STATE) {
        REQUIRE(ehmn_state_drop(&flash) == EHMN_OK);
        status = ehmn_state_store(&flash, id, bytes, sizeof bytes);
    }
    if (status == EHMN_OK) {
        REQUIRE(ehmn_state_find(&flash, &state) == EHMN_OK && state.bytes == sizeof bytes);
        REQUIRE(memcmp(region + state.offset, bytes, sizeof bytes) == 0);
        REQUIRE(ehmn_state_confirm(&flash) == EHMN_OK);
    }
    return 0;
}

/* Put right the headers of what may be records. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
    const uint32_t head = ehmn_state_record_bytes(&flash, 0);
    size = LLVMFuzzerMutate(data, size, max);
    for (size_t at = 0; seed % 8u != 0 && at + head <= size && at + head <= SECTOR;) {
        ehmn_state_record record;
        memcpy(&record, data + at, sizeof record);
        record.magic = EHMN_STATE_MAGIC;
        record.version = EHMN_STATE_VERSION;
        record.bytes %= 256u;
        if (record.bytes > size - at - head) {
            break;
        }
        record.data_crc = ehmn_crc32(0, data + at + head, record.bytes);
        record.crc32 = ehmn_crc32(0, &record, (uint32_t)offsetof(ehmn_state_record, crc32));
        memcpy(data + at, &record, sizeof record);
        at += ehmn_state_record_bytes(&flash, record.bytes);
    }
    return size;
}
