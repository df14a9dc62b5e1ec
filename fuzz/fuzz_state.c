/* The two slots, on a flash that holds anything and loses power at any moment. What is found lies in the region and has
 * its checksum; storing and confirming lose nothing that counted before; and a slot can always be used again.
 * The input: operations, one a byte up to the first 0; the operation of the flash at which power goes, or (from 128 on)
 * that does nothing; then what the region holds. */
#include "fuzz.h"

#include "edgehmn_state.h"

#include <setjmp.h>

#define SECTOR 256u
#define UNIT 8u
#define MOST_OPERATIONS 6u
#define STATE_BYTES 24u /* of which a slot holds two */

static uint8_t region[2 * SECTOR] __attribute__((aligned(64)));
static const uint8_t id[EHMN_ID_BYTES] = {1};
static const uint8_t states[2][2u * SECTOR + 8u] = {{2}, {3}};
static uint32_t left; /* operations of the flash until power goes; 0: it does not */
static int lies;      /* it does not go: the flash does nothing, and says that all is well, or that it failed */
static jmp_buf power_cut;

/* Whether power goes now; half of the bytes have changed then. */
static int goes_now(void)
{
    return left != 0 && --left == 0;
}

static int32_t cut_short(uint32_t offset)
{
    if (!lies) {
        longjmp(power_cut, 1);
    }
    return offset % (2u * UNIT) == 0 ? EHMN_OK : -1;
}

static int32_t erase(void *context, uint32_t offset)
{
    (void)context;
    REQUIRE(offset % SECTOR == 0 && offset < sizeof region);
    int cut = goes_now();
    memset(region + offset, 0xFF, cut ? (lies ? 0u : SECTOR / 2u) : SECTOR);
    return cut ? cut_short(offset) : EHMN_OK;
}

static int32_t program(void *context, uint32_t offset, const void *bytes, uint32_t count)
{
    (void)context;
    REQUIRE(offset % UNIT == 0 && count % UNIT == 0 && count <= sizeof region - offset);
    for (uint32_t i = 0; i < count; i++) {
        REQUIRE(region[offset + i] == 0xFF);
    }
    int cut = goes_now();
    memcpy(region + offset, bytes, cut ? (lies ? 0u : count / 2u) : count);
    return cut ? cut_short(offset) : EHMN_OK;
}

static const ehmn_flash flash = {region, SECTOR, 1, UNIT, erase, program, NULL};

/* Calls that no flash makes right. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    ehmn_flash odd = flash;
    ehmn_state s;
    (void)argc;
    (void)argv;
    odd.unit = 12;
    REQUIRE(ehmn_state_find(&odd, &s) == EHMN_E_ARGUMENT && ehmn_state_find(&flash, NULL) == EHMN_E_ARGUMENT);
    REQUIRE(ehmn_state_begin(&odd, id, &s) == EHMN_E_ARGUMENT && ehmn_state_store(&odd, id, id, 1) == EHMN_E_ARGUMENT);
    REQUIRE(ehmn_state_confirm(&odd) == EHMN_E_ARGUMENT && ehmn_state_wipe(&odd) == EHMN_E_ARGUMENT);
    return 0;
}

static ehmn_state find(void)
{
    ehmn_state s;
    REQUIRE(ehmn_state_find(&flash, &s) == EHMN_OK);
    REQUIRE(s.offset <= sizeof region && s.bytes <= sizeof region - s.offset && s.confirmed <= s.sequence);
    return s;
}

static int32_t operate(uint8_t operation, ehmn_state *s)
{
    switch (operation % 6u) {
    case 0:
        return ehmn_state_begin(&flash, id, s);
    case 1:
        return ehmn_state_store(&flash, id, states[operation / 6u % 2u], operation / 12u % 2u ? 100u : STATE_BYTES);
    case 2:
        return ehmn_state_confirm(&flash);
    case 3:
        return ehmn_state_drop(&flash);
    case 4:
        return ehmn_state_store(&flash, id, states, 2u * SECTOR); /* too large */
    default:
        return ehmn_state_wipe(&flash);
    }
}

/* What an operation may make of the state that counted before. A mark that power cut short may count or not. */
static ehmn_state compare(const ehmn_state *before, uint8_t operation, int32_t status, int cut)
{
    ehmn_state now = find();
    uint32_t kind = operation % 6u;
    int same = now.sequence == before->sequence && now.offset == before->offset && now.bytes == before->bytes;
    int counts_more = now.sequence > before->sequence;
    if (kind == 1u) {
        REQUIRE(status == EHMN_OK || cut ? same || counts_more : same);
        REQUIRE(status != EHMN_OK || (now.trials == 0 && now.confirmed == before->confirmed && counts_more));
        REQUIRE(status != EHMN_OK || same_bytes(region + now.offset, states[operation / 6u % 2u], now.bytes));
    } else if (kind == 2u) {
        REQUIRE(same && (status != EHMN_OK || now.confirmed == now.sequence));
    } else if (kind == 3u) {
        REQUIRE(now.sequence <= before->sequence && now.sequence >= before->confirmed);
        REQUIRE(status != EHMN_OK || !same);
    } else if (kind == 4u) {
        REQUIRE(same && status != EHMN_OK);
    } else if (kind == 5u && !cut) {
        REQUIRE(status == EHMN_OK && now.sequence == 0);
        for (uint32_t i = 0; i < sizeof region; i++) {
            REQUIRE(region[i] == 0xFF);
        }
    } else if (kind == 0 && !cut) {
        REQUIRE(now.sequence <= before->sequence && now.sequence >= before->confirmed);
    }
    REQUIRE(kind == 5u || now.confirmed >= before->confirmed);
    return now;
}

/* Do one operation; what counts then, if `before` did before it. */
static ehmn_state one(uint8_t operation, ehmn_state before)
{
    ehmn_state s;
    volatile int cut = 1;
    volatile int32_t status = EHMN_STATE_E_FLASH;
    if (setjmp(power_cut) == 0) {
        status = operate(operation, &s);
        cut = status == EHMN_STATE_E_FLASH; /* it lied */
    }
    return compare(&before, operation, status, cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t at = 0;
    memset(region, 0xFF, sizeof region);
    while (at < size && data[at] != 0 && at < MOST_OPERATIONS) {
        at++;
    }
    size_t operations = at, from = at + 2u < size ? at + 2u : size;
    left = at + 1u < size ? data[at + 1u] % 128u : 0u;
    lies = at + 1u < size && data[at + 1u] >= 128u;
    memcpy(region, data + from, size - from < sizeof region ? size - from : sizeof region);
    ehmn_state counts = find();
    for (at = 0; at < operations; at++) {
        counts = one(data[at], counts);
    }
    left = 0;
    REQUIRE(one(2, one(1, one(5, counts))).confirmed == 1u);
    return 0;
}

/* Put right the headers of what may be records in a slot. */
static void repair(draws *d, uint8_t *slot, size_t size)
{
    const uint32_t head = ehmn_state_record_bytes(&flash, 0);
    for (size_t at = 0; at + head <= size;) {
        ehmn_state_record record;
        memcpy(&record, slot + at, sizeof record);
        record.magic = EHMN_STATE_MAGIC;
        record.version = EHMN_STATE_VERSION;
        record.bytes = below(d, 4) == 0 ? record.bytes % 150u : STATE_BYTES;
        if (below(d, 16) == 0) {
            record.bytes = below(d, 2) == 0 ? 0u - below(d, 2u * SECTOR) : draw(d);
        }
        int fits = record.bytes <= size - at - head;
        record.sequence = below(d, 8) != 0 ? record.sequence % 8u : record.sequence;
        if (below(d, 8) != 0) {
            memset(record.image_id, 0, sizeof record.image_id);
            record.image_id[0] = 1;
        }
        record.data_crc = (fits ? fuzz_crc32(slot + at + head, record.bytes) : 0u) + (below(d, 16) == 0);
        record.crc32 = fuzz_crc32((const uint8_t *)&record, offsetof(ehmn_state_record, crc32));
        memcpy(slot + at, &record, sizeof record);
        if (!fits) {
            break;
        }
        for (uint32_t mark = 0; mark < EHMN_STATE_TRIALS + 2u && below(d, 8) != 0; mark++) {
            memset(slot + at + sizeof record + mark * UNIT, below(d, 3) == 0 ? 0 : 0xFF, UNIT);
        }
        at += ehmn_state_record_bytes(&flash, record.bytes);
        if (below(d, 3) != 0) { /* blank behind it: room */
            memset(slot + at, 0xFF, at < size ? size - at : 0u);
            break;
        }
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
    draws d = draws_of(seed);
    size_t at = 0;
    size = LLVMFuzzerMutate(data, size, max);
    while (at < size && data[at] != 0 && at < MOST_OPERATIONS) {
        at++;
    }
    at += 2u;
    if (at >= size || below(&d, 8) == 0) {
        return size;
    }
    for (uint32_t slot = 0; slot < 2u && at < size; slot++, at += SECTOR) {
        if (below(&d, 2) == 0) {
            repair(&d, data + at, size - at < SECTOR ? size - at : SECTOR);
        }
    }
    return size;
}
