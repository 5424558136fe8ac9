// Sizes that the compiler gives to delete, all of them right: none may be taken for a wrong one.
#include "check.hh"
#include <algorithm>
#include <any>
#include <array>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <forward_list>
#include <functional>
#include <future>
#include <iostream>
#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <new>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <valarray>
#include <variant>
#include <vector>

template <size_t N> struct Plain {
    char bytes[N];
};

template <size_t N> struct Counted {
    static inline int alive = 0;
    char bytes[N];
    Counted() { alive++; }
    ~Counted() { alive--; }
};

template <size_t A, size_t N> struct alignas(A) Aligned {
    char bytes[N];
    Aligned() { bytes[0] = 1; }
    ~Aligned() { CHECK(bytes[0] == 1); }
};

// A struct with an array behind its end, as C programs have it, made and dropped by size.
struct Tail {
    size_t n;
    struct More {
        size_t n;
    };
    static void *operator new(size_t own, More more) { return ::operator new(own + more.n); }
    static void operator delete(void *p, More) { ::operator delete(p); }
    static void operator delete(void *p) { ::operator delete(p); }
    explicit Tail(size_t n) : n(n) {}
};

struct Base {
    virtual ~Base() = default;
    int number = 1;
};
struct Other {
    virtual ~Other() = default;
    long words[3];
};
struct Derived : Base, Other {
    std::array<char, 500> more{};
};
struct Deep final : Derived {
    alignas(64) char line[64];
};
struct Virtual : virtual Base {
    char bytes[90];
};

// Of a class of its own that throws: the compiler gives the memory back.
template <size_t N> struct Throws {
    char bytes[N];
    Throws() { throw N; }
};

template <size_t N> static void one_and_many() {
    delete new Plain<N>;
    delete new Counted<N>;
    for (size_t n = 0; n < 70; n += n < 4 ? 1 : 13) {
        delete[] new Plain<N>[n];
        delete[] new Counted<N>[n];
        delete[] new (std::nothrow) Counted<N>[n];
        std::allocator<Plain<N>> plain;
        plain.deallocate(plain.allocate(n), n);
#ifdef __cpp_sized_deallocation
        ::operator delete(::operator new(n * N), n * N);
        ::operator delete[](::operator new[](n * N), n * N);
#endif
        ::operator delete(::operator new(n * N), std::nothrow);
        std::vector<Plain<N>> grows;
        for (size_t i = 0; i < n; i++) grows.push_back(Plain<N>());
        grows.shrink_to_fit();
    }
    CHECK(Counted<N>::alive == 0);
    try {
        delete new Throws<N>;
        CHECK(false);
    } catch (size_t n) {
        CHECK(n == N);
    }
    try {
        delete[] new Throws<N>[3];
        CHECK(false);
    } catch (size_t n) {
        CHECK(n == N);
    }
}

template <size_t A, size_t N> static void at() {
    delete new Aligned<A, N>;
    for (size_t n = 0; n < 9; n++) {
        delete[] new Aligned<A, N>[n];
        delete[] new (std::nothrow) Aligned<A, N>[n];
        std::vector<Aligned<A, N>> some(n);
        CHECK(n == 0 || reinterpret_cast<uintptr_t>(some.data()) % A == 0);
        // No multiple of the alignment, which the C++ library's own would round up.
        const size_t odd = n * N + n / 2;
        const std::align_val_t align{A};
#ifdef __cpp_sized_deallocation
        ::operator delete(::operator new(odd, align), odd, align);
        ::operator delete[](::operator new[](odd, align), odd, align);
#endif
        ::operator delete(::operator new(odd, align), align);
        ::operator delete(::operator new(odd, align, std::nothrow), align, std::nothrow);
        ::operator delete[](::operator new[](odd, align, std::nothrow), align, std::nothrow);
        std::pmr::memory_resource &fresh = *std::pmr::new_delete_resource();
        fresh.deallocate(fresh.allocate(odd, A), odd, A);
    }
}

static void types() {
    std::unique_ptr<Base>(new Derived).reset();
    std::unique_ptr<Other>(new Derived).reset();
    std::unique_ptr<Base>(new Deep).reset();
    std::unique_ptr<Other>(new Deep).reset();
    std::unique_ptr<Base>(new Virtual).reset();
    std::shared_ptr<Other> shared = std::make_shared<Deep>();
    std::weak_ptr<Other> weak = shared;
    shared.reset();
    CHECK(weak.expired());
    std::shared_ptr<void>(new Derived).reset();
    std::shared_ptr<Plain<30>[]>(new Plain<30>[7]).reset();
    for (size_t n = 0; n < 5000; n += 97) delete new (Tail::More{n}) Tail(n);
    std::any any = std::string(200, 'a');
    any = Plain<100>();
    std::function<int()> call = [more = Plain<200>()] { return more.bytes[0]; };
    auto copy = call;
    std::variant<std::string, std::vector<int>> either = std::vector<int>(100);
    either = std::string(300, 'b');
    try {
        throw Plain<4000>();
    } catch (const Plain<4000> &) {
        std::exception_ptr kept = std::current_exception();
    }
}

static void library() {
    std::string text;
    for (int i = 0; i < 3000; i++) text += std::to_string(i);
    text.shrink_to_fit();
    std::wstring(500, L'w').append(500, L'x');
    std::stringstream stream;
    stream << text << 1.5 << std::string(1000, 'c');
    CHECK(stream.str().size() > text.size());
    // A regular expression calls itself for each character: a thread of musl has 128 KiB for that.
    CHECK(std::regex_search(text.substr(440, 100), std::regex("1([0-9]+)99(2|3)")));
    std::deque<Plain<100>> deque(1000);
    for (int i = 0; i < 900; i++) deque.pop_front();
    std::list<std::string> list(100, text);
    std::forward_list<int> forward(100, 1);
    std::set<std::tuple<int, std::string>> set;
    for (int i = 0; i < 100; i++) set.emplace(i, std::to_string(i));
    std::unordered_map<std::string, std::vector<char>> hashed;
    for (int i = 0; i < 1000; i++) hashed[std::to_string(i)].resize(static_cast<size_t>(i));
    std::vector<bool> bits(10000);
    bits.push_back(true);
    std::valarray<double> values(1.0, 1000);
    values = values * 2.0 + values;
    std::vector<int> sorted(5000);
    for (size_t i = 0; i < sorted.size(); i++) sorted[i] = static_cast<int>(i * 7919 % 5000);
    std::stable_sort(sorted.begin(), sorted.end());
    std::inplace_merge(sorted.begin(), sorted.begin() + 2500, sorted.end());
    std::locale::global(std::locale::classic());
    char buffer[1000];
    std::pmr::monotonic_buffer_resource grows(buffer, sizeof buffer);
    std::pmr::vector<std::pmr::string> pooled(&grows);
    for (int i = 0; i < 500; i++) pooled.emplace_back(text.substr(0, static_cast<size_t>(i)));
    std::pmr::synchronized_pool_resource pool;
    std::pmr::map<int, std::pmr::string> mapped(&pool);
    for (int i = 0; i < 500; i++) mapped.emplace(i, text.substr(0, static_cast<size_t>(i)));
}

static void out_of_memory() {
    static bool asked;
    static void *reserve = std::malloc(1);
    std::set_new_handler([] {
        asked = true;
        std::set_new_handler(nullptr);
    });
    volatile size_t huge = SIZE_MAX / 2 - 100;
    for (int round = 0; round < 4; round++) {
        try {
            void *p = round == 0   ? ::operator new(huge)
                      : round == 1 ? ::operator new[](huge)
                      : round == 2 ? ::operator new(huge, std::align_val_t{64})
                                   : ::operator new[](huge, std::align_val_t{64});
            ::operator delete(p);
            CHECK(false);
        } catch (const std::bad_alloc &) {
        }
    }
    CHECK(asked);
    CHECK(!::operator new(huge, std::nothrow));
    CHECK(!::operator new[](huge, std::align_val_t{256}, std::nothrow));
    std::free(reserve);
}

static void everything() {
    one_and_many<1>();
    one_and_many<8>();
    one_and_many<24>();
    one_and_many<127>();
    one_and_many<1000>();
    one_and_many<4096>();
    one_and_many<5001>();
    one_and_many<70000>();
    at<32, 32>();
    at<64, 100>();
    at<256, 700>();
    at<4096, 5000>();
    at<8192, 9000>();
    types();
    library();
}

int main() {
    everything();
    out_of_memory();
    // Made by one thread and dropped by another.
    std::vector<std::future<std::unique_ptr<Base>>> made;
    for (int i = 0; i < 8; i++)
        made.push_back(std::async(std::launch::async, [i] {
            library();
            return std::unique_ptr<Base>(i % 2 ? new Derived : static_cast<Base *>(new Deep));
        }));
    for (auto &one : made) one.get().reset();
    return 0;
}
