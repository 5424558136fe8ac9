// What the programs in C++ share.
#ifndef CHECK_HH
#define CHECK_HH

#include <cstdio>
#include <cstdlib>

// Ends the process at once, and says where, unless `x` holds: destructors would use the heap.
#define CHECK(x) \
    do { \
        if (!(x)) { \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #x); \
            std::_Exit(1); \
        } \
    } while (0)

#endif
