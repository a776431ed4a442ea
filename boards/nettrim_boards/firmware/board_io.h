/* What every microcontroller board's folder implements for the programs beside it. */
#ifndef NETTRIM_BOARD_IO_H
#define NETTRIM_BOARD_IO_H

/* Sets up the serial line and the lamp; the clock stays as it is after reset. */
void board_init(void);

/* Writes text to the serial line and returns when it has left. */
void board_write(const char *text);

/* Shows the outcome for ever: lamp steady when passed, blinking when not. */
__attribute__((noreturn)) void board_finish(int passed);

#endif
