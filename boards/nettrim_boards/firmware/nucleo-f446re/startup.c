/* NUCLEO-F446RE (STM32F446RE, Cortex-M4F): vector table and the way from reset to main.
 *
 * Sources: RM0390, chapter 10 (vector table: positions 0 to 96); Armv7-M Architecture Reference Manual (DDI 0403),
 * B1.5 (exception model) and B3.2.20 (CPACR). */
#include <stdint.h>
#include <string.h>

#define N_INTERRUPTS 97
#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define CPACR_FULL_FPU_ACCESS (0xFu << 20) /* CP10 and CP11 */

/* From memory.ld. */
extern uint8_t nt_data_load[], nt_data_start[], nt_data_end[], nt_bss_start[], nt_bss_end[], nt_stack_top[];

int main(void);
void reset_handler(void);
void default_handler(void);

typedef union {
    void (*handler)(void);
    const void *address;
} vector;

/* The core reads its first stack pointer and the reset address from here. */
__attribute__((section(".vectors"), used)) static const vector vector_table[16 + N_INTERRUPTS] = {
    {.address = nt_stack_top},
    {.handler = reset_handler},
    {.handler = default_handler}, /* NMI */
    {.handler = default_handler}, /* HardFault */
    {.handler = default_handler}, /* MemManage */
    {.handler = default_handler}, /* BusFault */
    {.handler = default_handler}, /* UsageFault */
    {.address = 0},
    {.address = 0},
    {.address = 0},
    {.address = 0},
    {.handler = default_handler}, /* SVCall */
    {.handler = default_handler}, /* Debug monitor */
    {.address = 0},
    {.handler = default_handler}, /* PendSV */
    {.handler = default_handler}, /* SysTick */
    [16 ... 16 + N_INTERRUPTS - 1] = {.handler = default_handler},
};

void reset_handler(void)
{
    /* Before anything else: with the hard-float ABI any C function may use the FPU. */
    CPACR |= CPACR_FULL_FPU_ACCESS;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    memcpy(nt_data_start, nt_data_load, (size_t)(nt_data_end - nt_data_start));
    memset(nt_bss_start, 0, (size_t)(nt_bss_end - nt_bss_start));
    (void)main();
    default_handler();
}

/* No interrupt is enabled: what arrives here is a fault. A debugger finds the core in this loop. */
void default_handler(void)
{
    for (;;) {
        __asm__ volatile("wfi");
    }
}
