#ifndef CUPOLA_SERVER_DICTIONARY_VECTORIZE_H_
#define CUPOLA_SERVER_DICTIONARY_VECTORIZE_H_

// Before a function: compiles one copy of it per instruction set and picks one
// when the program starts, so that one build is fast on every CPU. For plain
// loops that the compiler turns into vector instructions. Sanitizers instrument
// the code that picks, which runs before they are ready: there is one copy
// then.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CUPOLA_CLONES \
  __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CUPOLA_CLONES
#endif

#endif  // CUPOLA_SERVER_DICTIONARY_VECTORIZE_H_
