/* What startup.c gives to a board, and expects of it. */
#ifndef EHMN_STARTUP_H
#define EHMN_STARTUP_H

#include <stdint.h>

/* Given by the board; starts with interrupts masked. */
int main(void);

/* Start the whole chip anew. Does not return. */
void system_reset(void);

#endif
