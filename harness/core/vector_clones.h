// Compiles a hot function for several vector widths; the one that the processor has is chosen
// at start.
#pragma once

// Sanitizers cannot run the resolver that picks, and other compilers have no such attribute: one plain version there.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define KVC_VECTOR_VERSIONS 1
#define KVC_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KVC_VECTOR_CLONES
#endif

// Bodies that such a function shares between element types: they take over its vector width only when inlined.
#define KVC_INLINE inline __attribute__((always_inline))
