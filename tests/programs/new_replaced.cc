// A program that puts an operator new of its own in the place of the C++ library's, and no delete: its
// blocks are longer than what the compiler tells delete.
#include <cstdlib>
#include <list>
#include <memory>
#include <new>
#include <string>

#if defined __GNUC__ && !defined __clang__
// The very thing that is tried.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

void *operator new(size_t n) {
    void *p = std::malloc(n + 24);
    if (!p) throw std::bad_alloc();
    return p;
}

struct Counted {
    char bytes[40];
    ~Counted() { bytes[0] = 0; }
};

int main() {
    for (size_t n = 0; n < 300; n++) {
        ::operator delete(::operator new(n), n);
        ::operator delete[](::operator new[](n), n);
        delete new Counted;
        delete[] new Counted[n];
        std::list<std::string> list(n, std::string(n, 'x'));
        std::make_shared<Counted>().reset();
    }
    return 0;
}
