/* Counts the instructions that a program executes under qemu-user, and prints the count when it ends.
 *
 *   qemu-aarch64 -plugin libcount.so -d plugin PROGRAM ...
 *
 * If a program closes the descriptor -1, which does nothing, the count so far is printed: this marks parts of it to
 * count.
 *
 * A plugin for QEMU's TCG interface, version 1: qemu calls it whenever it translates a block of guest code, and the
 * plugin requests a counter that grows by the block's length whenever the block runs. The count of a single-threaded
 * program is the same in every run. Debian does not ship qemu-plugin.h, so the functions are declared here as in the
 * QEMU manual ("TCG Plugins"); the two structs that are only passed on are incomplete types. */

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info_t;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                           void (*translated)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, enum qemu_plugin_op op, void *counter,
                                              uint64_t by);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id,
                                          void (*called)(qemu_plugin_id_t, unsigned int, int64_t, uint64_t, uint64_t,
                                                         uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*ended)(qemu_plugin_id_t, void *), void *data);
void qemu_plugin_outs(const char *text);

int qemu_plugin_version = 1;

/* close, on aarch64 and on arm. What has the other's number there gets no such first argument. */
enum { CLOSE = 57, CLOSE_ON_ARM = 6 };

static uint64_t executed;

static void print(void)
{
    char text[64];
    snprintf(text, sizeof text, "instructions: %" PRIu64 "\n", executed);
    qemu_plugin_outs(text);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &executed,
                                             qemu_plugin_tb_n_insns(block));
}

static void called(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t descriptor, uint64_t a2, uint64_t a3,
                   uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)vcpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if ((number == CLOSE || number == CLOSE_ON_ARM) && (int32_t)descriptor == -1)
        print();
}

static void ended(qemu_plugin_id_t id, void *data)
{
    (void)id, (void)data;
    print();
}

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
