/* Runs the model's golden vector on a microcontroller and says so on the serial line and the lamp. */
#include <stddef.h>
#include <stdint.h>

#include "board_io.h"
#include "nt_model.h"

#if defined(__thumb__) /* moves that do nothing: the emulator's plugin counts the instructions between the two */
#define MARK_BEGIN() __asm__ volatile("mov r11, r11" ::: "memory")
#define MARK_END() __asm__ volatile("mov r12, r12" ::: "memory")
#else
#define MARK_BEGIN() ((void)0)
#define MARK_END() ((void)0)
#endif

static MODEL_ALIGNED uint8_t arena[MODEL_ARENA_BYTES];

int main(void)
{
    int status;
    board_init();
    MARK_BEGIN();
    status = MODEL_SELFTEST(arena);
    MARK_END();
    board_write(status == 0 ? "nettrim selftest: passed\r\n" : "nettrim selftest: FAILED\r\n");
    board_finish(status == 0);
}
