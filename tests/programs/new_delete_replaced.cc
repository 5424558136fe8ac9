// A program that puts an operator new and delete of its own in the place of the simplest forms alone:
// all other forms end in those, as the C++ library's do, with sizes that are not those of blocks.
#include "check.hh"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>

#if defined __GNUC__ && !defined __clang__
// The very thing that is tried.
#pragma GCC diagnostic ignored "-Wsized-deallocation"
#endif

static long news, deletes, refusals;

// Before each block lies what it must be given back with.
struct alignas(16) Header {
    uint64_t mark, size;
};
static const uint64_t MARK = 0x9d8f3a1b77e45c21;

void *operator new(size_t n) {
    if (n > SIZE_MAX / 4) {
        refusals++;
        throw std::bad_alloc();
    }
    auto *header = static_cast<Header *>(std::malloc(sizeof(Header) + n));
    if (!header) throw std::bad_alloc();
    *header = Header{MARK, n};
    news++;
    return header + 1;
}

void operator delete(void *p) noexcept {
    if (!p) return;
    auto *header = static_cast<Header *>(p) - 1;
    if (header->mark != MARK) {
        std::fprintf(stderr, "a block that is not ours\n");
        std::_Exit(1);
    }
    header->mark = 0;
    deletes++;
    std::free(header);
}

struct Counted {
    char bytes[40];
    ~Counted() { bytes[0] = 0; }
};
struct alignas(128) Wide {
    char bytes[200];
};

static void forms() {
    const std::align_val_t align{128};
    for (size_t n = 0; n < 300; n++) {
        ::operator delete(::operator new(n), n);
        ::operator delete[](::operator new[](n));
        ::operator delete[](::operator new[](n), n);
        ::operator delete(::operator new(n, std::nothrow), std::nothrow);
        ::operator delete[](::operator new[](n, std::nothrow), std::nothrow);
        ::operator delete[](::operator new[](n, std::nothrow), n);
        ::operator delete(::operator new(n, align), n, align);
        ::operator delete[](::operator new[](n, align), align);
        delete[] new Counted[n];
        delete[] new Wide[n % 10];
    }
    volatile size_t huge = SIZE_MAX / 3;
    CHECK(!::operator new(huge, std::nothrow));
    CHECK(!::operator new[](huge, std::nothrow));
    CHECK(refusals == 2);
}

int main() {
    const long before = news - deletes;
    forms();
    CHECK(news >= 300 * 7);
    {
        std::map<int, std::string> map;
        for (int i = 0; i < 1000; i++) map[i] = std::string(static_cast<size_t>(i), 'x');
        std::vector<std::shared_ptr<Counted>> shared(100);
        for (auto &one : shared) one = std::make_shared<Counted>();
    }
    CHECK(news - deletes == before);
    return 0;
}
