#ifndef EHMN_PL011_UART_H
#define EHMN_PL011_UART_H

/* Begin to send and receive, once the UART has its clock. */
void uart_start(void);

#endif
