// All that a program in C++ needs of edgehmn: the core, its tokenizer and the exported model.
#ifndef EDGEHMN_HPP
#define EDGEHMN_HPP

#include "edgehmn.h"
#include "edgehmn_model.h"
#include "edgehmn_tokenizer.h"

#endif
