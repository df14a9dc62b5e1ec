// edgehmn.h, edgehmn_tokenizer.h and edgehmn_model.h for C++, which has another word for a static assertion.
#ifndef EDGEHMN_HPP
#define EDGEHMN_HPP

#include <stddef.h>
#include <stdint.h>

#define _Static_assert static_assert
extern "C" {
#include "edgehmn.h"
#include "edgehmn_model.h"
#include "edgehmn_tokenizer.h"
}
#undef _Static_assert

#endif
