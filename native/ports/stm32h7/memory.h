/* What the files of this family share. */
#ifndef EHMN_STM32H7_MEMORY_H
#define EHMN_STM32H7_MEMORY_H

/* Until all accesses before are done, and the instructions after are fetched with what they changed. */
static inline void memory_barrier(void)
{
    __asm__ volatile("dsb\n\tisb" ::: "memory");
}

/* Caches, and what must not be cached. */
void memory_start(void);

/* Read what the flash holds of learned states, after memory_start. */
void flash_start(void);

#endif
