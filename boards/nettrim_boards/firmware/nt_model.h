/* The names of the one model that a program is compiled with.
 *
 * Compile with -DNT_MODEL_HEADER='"model.h"' -DNT_NAME=<name> -DNT_NAME_UPPER=<NAME>. */
#ifndef NETTRIM_NT_MODEL_H
#define NETTRIM_NT_MODEL_H

#include <stddef.h>

#include NT_MODEL_HEADER

#define NT_PASTE(first, name, last) first##name##last
#define NT_EXPAND(first, name, last) NT_PASTE(first, name, last)

#define MODEL_RUN NT_EXPAND(nt_, NT_NAME, _run)
#define MODEL_SELFTEST NT_EXPAND(nt_, NT_NAME, _selftest)
#define MODEL_INPUT_SIZE ((size_t)(NT_EXPAND(NT_, NT_NAME_UPPER, _INPUT_SIZE)))
#define MODEL_OUTPUT_SIZE ((size_t)(NT_EXPAND(NT_, NT_NAME_UPPER, _OUTPUT_SIZE)))

#if !NT_EXPAND(NT_, NT_NAME_UPPER, _HAS_SELFTEST)
#error "this model has no golden vector: write its header with one"
#endif

/* An arena of no bytes still needs an address. */
#define MODEL_ARENA_BYTES ((size_t)(NT_EXPAND(NT_, NT_NAME_UPPER, _ARENA_BYTES)) + NO_ARENA)
#define NO_ARENA (NT_EXPAND(NT_, NT_NAME_UPPER, _ARENA_BYTES) == 0 ? (size_t)1 : (size_t)0)

#define MODEL_ALIGNED __attribute__((aligned(16)))

#endif
