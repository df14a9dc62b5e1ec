/* What the boot ROM of the RP2350 must find in the first 4 KB to start a program (data sheet, 5.9.5.1): an executable
 * for an Arm core in its secure state, whose vector table is where it begins. */
#include <stdint.h>

#define BLOCK_BEGIN 0xFFFFDED3u
#define ITEM_IMAGE_TYPE 0x10210142u /* of one word: executable, secure, Arm, RP2350 */
#define ITEM_LAST 0x000001FFu       /* after items of one word */
#define NEXT_IS_THIS 0u             /* the loop of blocks is this one alone */
#define BLOCK_END 0xAB123579u

__attribute__((section(".boot_block"), used)) static const uint32_t image_definition[] = {
    BLOCK_BEGIN, ITEM_IMAGE_TYPE, ITEM_LAST, NEXT_IS_THIS, BLOCK_END,
};
