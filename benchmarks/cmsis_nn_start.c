/* Start of cmsis_nn_calls.c on an emulated Cortex-M: a vector table at address 0, and the coprocessors switched on. */

#include <stdint.h>

#define STACK_TOP 0x70000u              /* until the C library's start asks the emulator for a better one */
#define CPACR ((volatile uint32_t *)0xE000ED88u) /* Armv7-M and Armv8-M: coprocessor access control */

extern void _start(void); /* newlib's, with semihosting (rdimon.specs) */

static void reset(void)
{
    *CPACR |= 0xFu << 20; /* CP10 and CP11: floating point and Helium */
    __asm volatile("dsb\n\tisb");
    _start();
}

static void fault(void)
{
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    (const void *)STACK_TOP, (const void *)reset, (const void *)fault, (const void *)fault,
    (const void *)fault,     (const void *)fault, (const void *)fault,
};
