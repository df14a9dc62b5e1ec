/* Counts the guest instructions that each function executes, exactly, and how often each block of them: a plugin of
 * QEMU (TCG plugin API, version 1), with declarations of its own, as distributions do not package that header.
 *
 *   gcc -O2 -shared -fPIC -o instructions.so instructions.c
 *   qemu-system-arm ... -plugin ./instructions.so,out=counts.txt -kernel firmware.elf
 *
 * When the emulation ends, `out` holds a line "count function" for each symbol of the program that ran; with
 * blocks=FILE, that file holds a line "count address instructions" for each block: what QEMU translated as one, up to
 * the next branch. A block that is entered in the middle is another. */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
typedef struct {
    const char *target_name;
    struct {
        int min;
        int cur;
    } version;
    bool system_emulation;
    struct {
        int smp_vcpus;
        int max_vcpus;
    } system;
} plugin_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { INLINE_ADD_U64 = 0, NO_REGISTERS = 0 };

uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int operation, void *counter,
                                                uint64_t amount);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int operation, void *counter, uint64_t amount);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*callback)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_atexit_cb(plugin_id id, void (*callback)(plugin_id, void *), void *data);

#define EXPORT __attribute__((visibility("default")))
#define MAX_FUNCTIONS 4096
#define MAX_BLOCKS 65536
EXPORT int qemu_plugin_version = 1;

static struct {
    char name[96];
    uint64_t count;
} function[MAX_FUNCTIONS];
static size_t functions;
static struct {
    uint64_t address;
    size_t instructions;
    uint64_t count;
} block[MAX_BLOCKS];
static size_t blocks;
static char out[1024] = "instructions.txt";
static char out_blocks[1024]; /* empty: not asked for */

static uint64_t *counter_of(const char *name)
{
    name = name != NULL ? name : "(none)";
    for (size_t i = 0; i < functions; i++) {
        if (strncmp(function[i].name, name, sizeof function[i].name - 1) == 0) {
            return &function[i].count;
        }
    }
    if (functions + 1 < MAX_FUNCTIONS) {
        strncpy(function[functions].name, name, sizeof function[0].name - 1);
        functions++;
    }
    return &function[functions - 1].count;
}

static void count_block(struct qemu_plugin_tb *tb)
{
    uint64_t address = qemu_plugin_tb_vaddr(tb);
    size_t n = qemu_plugin_tb_n_insns(tb), k = 0;
    while (k < blocks && (block[k].address != address || block[k].instructions != n)) {
        k++;
    }
    if (k == MAX_BLOCKS) {
        fprintf(stderr, "more than %d blocks\n", MAX_BLOCKS);
        exit(1);
    }
    if (k == blocks) {
        block[blocks].address = address;
        block[blocks++].instructions = n;
    }
    qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &block[k].count, 1);
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
    (void)id;
    if (out_blocks[0] != '\0') {
        count_block(tb);
    }
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        qemu_plugin_register_vcpu_insn_exec_inline(insn, INLINE_ADD_U64, counter_of(qemu_plugin_insn_symbol(insn)), 1);
    }
}

static FILE *opened(const char *path)
{
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        perror(path);
    }
    return file;
}

static void ended(plugin_id id, void *data)
{
    (void)id;
    (void)data;
    FILE *file = opened(out);
    if (file == NULL) {
        return;
    }
    for (size_t i = 0; i < functions; i++) {
        fprintf(file, "%" PRIu64 " %s\n", function[i].count, function[i].name);
    }
    fclose(file);
    file = out_blocks[0] != '\0' ? opened(out_blocks) : NULL;
    if (file == NULL) {
        return;
    }
    for (size_t k = 0; k < blocks; k++) {
        fprintf(file, "%" PRIu64 " %" PRIx64 " %zu\n", block[k].count, block[k].address, block[k].instructions);
    }
    fclose(file);
}

EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            strncpy(out, argv[i] + 4, sizeof out - 1);
        } else if (strncmp(argv[i], "blocks=", 7) == 0) {
            strncpy(out_blocks, argv[i] + 7, sizeof out_blocks - 1);
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
