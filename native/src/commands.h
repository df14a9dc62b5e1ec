/* What the files of the commands share. Each does a request and fills the answer's payload and its length, which is
 * zero before. Nothing has changed if the status is not zero, but where edgehmn_wire.h says otherwise. */
#ifndef EHMN_COMMANDS_H
#define EHMN_COMMANDS_H

#include "device.h"

/* Of a mode of EHMN_WIRE_PROCESS: whether there is such a one, and the model can do it. */
int32_t ehmn_check_mode(const ehmn_device *device, uint32_t mode);

/* Score, learn or follow if asked, feed: one token. */
int32_t ehmn_process_token(ehmn_device *device, uint32_t token, uint32_t mode, uint32_t *score);

/* Choose a token and feed it. */
int32_t ehmn_say_token(ehmn_device *device, uint32_t temperature, uint32_t *token);

/* Forget the text that waits for more, and that the last output had a beginning. */
void ehmn_forget_text(ehmn_device *device);

/* Load what the flash holds, at a start of the device. */
void ehmn_load_state(ehmn_device *device);

int32_t ehmn_command_store(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer);
int32_t ehmn_command_confirm(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer);
int32_t ehmn_command_roll_back(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer);
int32_t ehmn_command_wipe(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer);
int32_t ehmn_command_state(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer);
int32_t ehmn_command_text(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer);
int32_t ehmn_command_say(ehmn_device *device, const ehmn_wire_frame *request, ehmn_wire_frame *answer);

#endif
