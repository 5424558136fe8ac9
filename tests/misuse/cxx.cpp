// What the programs cxx_*.c need of C++.
#include <cstddef>
#include <new>

static const std::align_val_t align{64};

extern "C" void *cxx_new(std::size_t n) { return ::operator new(n); }
extern "C" void *cxx_new_array(std::size_t n) { return new char[n]; }
extern "C" void *cxx_new_aligned(std::size_t n) { return ::operator new(n, align); }
extern "C" void cxx_delete(void *p, std::size_t n) { ::operator delete(p, n); }
extern "C" void cxx_delete_array(void *p, std::size_t n) { ::operator delete[](p, n); }
extern "C" void cxx_delete_aligned(void *p, std::size_t n) { ::operator delete(p, n, align); }
