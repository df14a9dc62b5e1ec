/* Classes of characters that pre-tokenizers tell apart. The tables are generated: tools/make_unicode.py. */
#ifndef EHMN_UNICODE_H
#define EHMN_UNICODE_H

#include <stdint.h>

#define EHMN_UNICODE_OTHER 0u
#define EHMN_UNICODE_LETTER 1u /* \p{L}, Unicode 16.0 */
#define EHMN_UNICODE_NUMBER 2u /* \p{N}, Unicode 16.0 */
#define EHMN_UNICODE_SPACE 3u  /* \s */

/* Any code point, or any other number (EHMN_UNICODE_OTHER). At most 32 steps behind a binary search. */
uint32_t ehmn_unicode_class(uint32_t code);

/* A number as the splitter of digits sees it: of Unicode 17.0. */
int ehmn_unicode_is_digit(uint32_t code);

#endif
