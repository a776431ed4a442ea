/* A plugin for QEMU that counts executed instructions, all of them and those between two marker instructions.
 *
 *   qemu-aarch64 -plugin instruction_counter.so,out=FILE PROGRAM
 *   qemu-system-arm -M netduinoplus2 -plugin instruction_counter.so,out=FILE -kernel FIRMWARE
 *
 * When QEMU ends, FILE holds one line: {"total": T, "marked": M, "runs": R}. The markers are `orr x27, x27, x27` (begin)
 * and `orr x28, x28, x28` (end) in A64, `mov r11, r11` and `mov r12, r12` in Thumb. No compiler writes them; they are
 * not counted in M. One guest thread, or one core, only.
 *
 * QEMU 4.2 to 8.2 speak version 1 of the plugin interface. Its header is not packaged, so the few declarations used
 * here are written out after the interface's documentation (https://www.qemu.org/docs/master/devel/tcg-plugins.html). */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_CB_RW_REGS };
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

typedef void (*on_translation)(qemu_plugin_id_t id, struct qemu_plugin_tb *block);
typedef void (*on_execution)(unsigned int cpu, void *data);
typedef void (*on_exit)(qemu_plugin_id_t id, void *data);

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, on_translation callback);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *instruction, on_execution callback,
                                                   enum qemu_plugin_cb_flags flags, void *data);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *instruction, enum qemu_plugin_op op,
                                                       void *counter, uint64_t amount);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, on_exit callback, void *data);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *instruction);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction);

EXPORT int qemu_plugin_version = 1;

typedef struct {
    size_t size;
    uint8_t bytes[4]; /* little-endian */
} marker;

/* A64 "ORR (shifted register)": 0xAA000000 | Rm << 16 | Rn << 5 | Rd; Thumb "MOV (register)", T1: 0x4600 | Rd[3] << 7 |
 * Rm << 3 | Rd[2:0]. A guest executes only one of the two sets; the lengths keep them apart. */
static const marker begin_markers[] = {{4, {0x7B, 0x03, 0x1B, 0xAA}}, {2, {0xDB, 0x46}}};
static const marker end_markers[] = {{4, {0x9C, 0x03, 0x1C, 0xAA}}, {2, {0xE4, 0x46}}};

static char out_path[4096];
static uint64_t plain, markers, runs, marked, plain_at_begin;

static void at_begin(unsigned int cpu, void *data)
{
    (void)cpu;
    (void)data;
    markers++;
    plain_at_begin = plain;
}

static void at_end(unsigned int cpu, void *data)
{
    (void)cpu;
    (void)data;
    markers++;
    runs++;
    marked += plain - plain_at_begin;
}

static bool is_one_of(struct qemu_plugin_insn *instruction, const marker set[2])
{
    const size_t size = qemu_plugin_insn_size(instruction);
    const void *bytes = qemu_plugin_insn_data(instruction);
    for (int i = 0; i < 2; i++) {
        if (size == set[i].size && memcmp(bytes, set[i].bytes, size) == 0) {
            return true;
        }
    }
    return false;
}

static void at_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    const size_t count = qemu_plugin_tb_n_insns(block);
    (void)id;
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        if (is_one_of(instruction, begin_markers)) {
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, at_begin, QEMU_PLUGIN_CB_NO_REGS, NULL);
        } else if (is_one_of(instruction, end_markers)) {
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, at_end, QEMU_PLUGIN_CB_NO_REGS, NULL);
        } else {
            qemu_plugin_register_vcpu_insn_exec_inline(instruction, QEMU_PLUGIN_INLINE_ADD_U64, &plain, 1);
        }
    }
}

static void write_counts(qemu_plugin_id_t id, void *data)
{
    FILE *file = fopen(out_path, "w");
    (void)id;
    (void)data;
    if (file == NULL) {
        perror(out_path);
        return;
    }
    fprintf(file, "{\"total\": %" PRIu64 ", \"marked\": %" PRIu64 ", \"runs\": %" PRIu64 "}\n", plain + markers, marked,
            runs);
    fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || strlen(argv[0] + 4) >= sizeof out_path) {
        fputs("instruction_counter: expected the one option out=FILE\n", stderr);
        return -1;
    }
    strcpy(out_path, argv[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, at_translation);
    qemu_plugin_register_atexit_cb(id, write_counts, NULL);
    return 0;
}
