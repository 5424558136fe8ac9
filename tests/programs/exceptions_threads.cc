// Exceptions that leave the thread that threw them: one thread allocates them, another ends their
// life; and thread-local objects that allocate until the thread is gone.
#include "check.hh"
#include <condition_variable>
#include <exception>
#include <future>
#include <memory>
#include <mutex>
#include <queue>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

struct Failure : std::runtime_error {
    explicit Failure(int n) : std::runtime_error("failure " + std::to_string(n)), detail(200, n) {}
    std::vector<int> detail;
};

// Lives as long as its thread, and grows in the destructor, too.
struct Log {
    ~Log() {
        for (int i = 0; i < 100; i++) lines.push_back(std::string(100, 'x'));
    }
    std::vector<std::string> lines;
};
static thread_local Log log_of_thread;

class Queue {
public:
    void put(std::exception_ptr e) {
        std::lock_guard<std::mutex> lock(mutex);
        queue.push(std::move(e));
        filled.notify_one();
    }
    std::exception_ptr take() {
        std::unique_lock<std::mutex> lock(mutex);
        filled.wait(lock, [this] { return !queue.empty(); });
        std::exception_ptr e = std::move(queue.front());
        queue.pop();
        return e;
    }

private:
    std::mutex mutex;
    std::condition_variable filled;
    std::queue<std::exception_ptr> queue;
};

// Through frames with objects that have to be destroyed on the way.
static void throw_from(int depth, int n) {
    auto held = std::make_unique<std::string>(static_cast<size_t>(depth) * 50 + 30, 'h');
    if (depth == 0) throw Failure(n);
    throw_from(depth - 1, n);
    CHECK(held->empty());
}

static void produce(Queue &queue, int from, int count) {
    for (int n = from; n < from + count; n++) {
        try {
            throw_from(10, n);
        } catch (const Failure &failure) {
            log_of_thread.lines.push_back(failure.what());
            queue.put(std::current_exception());
        }
    }
}

static long consume(Queue &queue, int count) {
    long sum = 0;
    for (int i = 0; i < count; i++) {
        try {
            std::rethrow_exception(queue.take());
        } catch (const Failure &failure) {
            CHECK(failure.detail.size() == 200);
            CHECK(failure.what() == "failure " + std::to_string(failure.detail[0]));
            sum += failure.detail[0];
        }
    }
    return sum;
}

int main() {
    const int threads = 4, count = 1000;
    Queue queue;
    std::vector<std::thread> producers;
    std::vector<std::future<long>> consumers;
    for (int t = 0; t < threads; t++) {
        producers.emplace_back(produce, std::ref(queue), t * count, count);
        consumers.push_back(std::async(std::launch::async, consume, std::ref(queue), count));
    }
    for (auto &producer : producers) producer.join();
    long sum = 0;
    for (auto &consumer : consumers) sum += consumer.get();
    CHECK(sum == 4L * count * (4L * count - 1) / 2);
    auto failing = std::async(std::launch::async, [] { throw_from(3, 7); });
    bool thrown = false;
    try {
        failing.get();
    } catch (const Failure &failure) {
        thrown = failure.detail.back() == 7;
    }
    CHECK(thrown);
    return 0;
}
