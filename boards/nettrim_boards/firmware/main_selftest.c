/* Runs the model's golden vector on a microcontroller and says so on the serial line and the lamp. */
#include <stddef.h>
#include <stdint.h>

#include "board_io.h"
#include "nt_model.h"

static MODEL_ALIGNED uint8_t arena[MODEL_ARENA_BYTES];

int main(void)
{
    int status;
    board_init();
    status = MODEL_SELFTEST(arena);
    board_write(status == 0 ? "nettrim selftest: passed\r\n" : "nettrim selftest: FAILED\r\n");
    board_finish(status == 0);
}
