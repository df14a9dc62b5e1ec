/* What the files of this family share. */
#ifndef EHMN_STM32H7_MEMORY_H
#define EHMN_STM32H7_MEMORY_H

/* Caches, and what must not be cached. */
void memory_start(void);

/* Read what the flash holds of learned states, after memory_start. */
void flash_start(void);

#endif
