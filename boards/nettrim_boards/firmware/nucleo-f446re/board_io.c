/* NUCLEO-F446RE: USART2 (PA2) reaches the PC through the ST-LINK's USB port at 115200 baud; lamp LD2 is PA5.
 *
 * Sources: RM0390, chapters 6 (RCC), 7 (GPIO) and 25 (USART); UM1724 (USART2 on PA2 and PA3, LD2 on PA5). */
#include "board_io.h"

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define RCC_AHB1ENR REGISTER(0x40023830u)
#define RCC_APB1ENR REGISTER(0x40023840u)
#define GPIOA_MODER REGISTER(0x40020000u)
#define GPIOA_BSRR REGISTER(0x40020018u)
#define GPIOA_AFRL REGISTER(0x40020020u)
#define USART2_SR REGISTER(0x40004400u)
#define USART2_DR REGISTER(0x40004404u)
#define USART2_BRR REGISTER(0x40004408u)
#define USART2_CR1 REGISTER(0x4000440Cu)

#define GPIOA_CLOCK (1u << 0)
#define USART2_CLOCK (1u << 17)
#define SR_TRANSMITTED (1u << 6)
#define SR_EMPTY (1u << 7)
#define CR1_TRANSMIT (1u << 3)
#define CR1_ENABLE (1u << 13)
#define PA2_MASK (3u << 4)
#define PA2_ALTERNATE (2u << 4)
#define PA2_AF7 (7u << 8)
#define PA2_AF_MASK (15u << 8)
#define PA5_MASK (3u << 10)
#define PA5_OUTPUT (1u << 10)
#define LAMP_ON (1u << 5)
#define LAMP_OFF (1u << 21)

#define RESET_CLOCK_HZ 16000000u /* HSI, also the APB1 clock after reset */
#define BAUD 115200u
#define BLINK_LOOPS 400000u /* about a tenth of a second */

void board_init(void)
{
    RCC_AHB1ENR |= GPIOA_CLOCK;
    RCC_APB1ENR |= USART2_CLOCK;
    (void)RCC_APB1ENR; /* a read back: the clock needs two cycles to arrive (RM0390, chapter 6) */
    GPIOA_MODER = (GPIOA_MODER & ~(PA2_MASK | PA5_MASK)) | PA2_ALTERNATE | PA5_OUTPUT;
    GPIOA_AFRL = (GPIOA_AFRL & ~PA2_AF_MASK) | PA2_AF7;
    USART2_BRR = (RESET_CLOCK_HZ + BAUD / 2u) / BAUD;
    USART2_CR1 = CR1_ENABLE | CR1_TRANSMIT;
}

void board_write(const char *text)
{
    for (; *text != '\0'; text++) {
        while ((USART2_SR & SR_EMPTY) == 0u) {
        }
        USART2_DR = (uint32_t)(uint8_t)*text;
    }
    while ((USART2_SR & SR_TRANSMITTED) == 0u) {
    }
}

__attribute__((noreturn)) void board_finish(int passed)
{
    volatile uint32_t loops;
    for (;;) {
        GPIOA_BSRR = LAMP_ON;
        for (loops = 0; loops < BLINK_LOOPS; loops++) {
        }
        GPIOA_BSRR = passed ? LAMP_ON : LAMP_OFF;
        for (loops = 0; loops < BLINK_LOOPS; loops++) {
        }
    }
}
