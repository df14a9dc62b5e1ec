#ifndef EHMN_NRF52840_DEBUG_PORT_H
#define EHMN_NRF52840_DEBUG_PORT_H

/* Keep the chip open to the debugger that flashed it, unless somebody has locked it. */
void debug_port_open(void);

#endif
