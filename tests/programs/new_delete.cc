// C++ on the preloaded heap: new and delete in all forms, exceptions through allocation, containers,
// threads, strings.
#include "check.hh"
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

struct alignas(256) Wide {
    char bytes[300];
};

struct Thrower {
    explicit Thrower(int n) : text(new char[static_cast<size_t>(n) + 1]) {
        if (n % 3 == 0) throw std::runtime_error("thrown by a constructor " + std::to_string(n));
    }
    std::unique_ptr<char[]> text;
};

static void operators() {
    for (int i = 0; i < 2000; i++) {
        auto *a = new int(i);
        auto *b = new int[static_cast<size_t>(i) + 1]();
        auto *c = new Wide;
        auto *d = new Wide[3];
        auto *e = new (std::nothrow) char[static_cast<size_t>(i) * 100 + 1];
        CHECK(*a == i && b[i] == 0 && e);
        CHECK(reinterpret_cast<uintptr_t>(c) % 256 == 0 && reinterpret_cast<uintptr_t>(d) % 256 == 0);
        delete a;
        delete[] b;
        delete c;
        delete[] d;
        delete[] e;
    }
    volatile size_t huge = SIZE_MAX / 2;
    bool thrown = false;
    try {
        auto *p = new char[huge];
        p[0] = 1;
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown);
    CHECK(!new (std::nothrow) char[huge]);
}

static size_t work(int seed) {
    std::map<std::string, std::vector<int>> ordered;
    std::unordered_map<int, std::string> hashed;
    size_t caught = 0;
    for (int i = 0; i < 3000; i++) {
        ordered[std::to_string((i * 7919 + seed) % 500)].push_back(i);
        hashed[i % 700] += static_cast<char>('a' + i % 26);
        try {
            Thrower t(i);
            CHECK(t.text);
        } catch (const std::exception &e) {
            caught += std::string(e.what()).size() > 10;
        }
    }
    size_t total = 0;
    for (auto &entry : ordered) total += entry.second.size();
    CHECK(total == 3000);
    CHECK(caught == 1000);
    return hashed.size();
}

int main() {
    operators();
    CHECK(work(0) == 700);
    std::vector<std::thread> threads;
    std::vector<std::unique_ptr<std::string>> results(16);
    for (int i = 0; i < 16; i++)
        threads.emplace_back([i, &results] {
            CHECK(work(i) == 700);
            results[static_cast<size_t>(i)] = std::make_unique<std::string>(1000 + i, 'x');
        });
    for (auto &t : threads) t.join();
    for (size_t i = 0; i < 16; i++) CHECK(results[i]->size() == 1000 + i);
    return 0;
}
