// Boost.Interprocess, measured as the other peers are. What the arguments mean and what is printed is told in src/external.rs.

#include <boost/interprocess/anonymous_shared_memory.hpp>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <numeric>
#include <string>
#include <vector>

namespace ipc = boost::interprocess;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::uint64_t end_of_messages = UINT64_MAX;
constexpr std::uint64_t checked = 32;
constexpr double block_seconds = 300e-6;
constexpr int most = 16;

struct Arguments {
    std::string task;
    std::vector<long> numbers;
    double seconds;
    int processors[2];
};

// What the processes share beside what is measured.
struct Shared {
    std::atomic<int> arrived;
    alignas(128) std::atomic<bool> stopped;
    alignas(128) double rates[most];
    std::uint64_t counts[most];
    alignas(128) ipc::interprocess_mutex mutex;
    std::uint64_t protected_count;
};

[[noreturn]] void fail(const std::string &reason) {
    std::fprintf(stderr, "%s\n", reason.c_str());
    std::_Exit(1);
}

void pin(const Arguments &arguments, int index) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(arguments.processors[index % 2], &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) fail("cannot be pinned");
}

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

void meet(Shared &shared, int all) {
    shared.arrived.fetch_add(1);
    while (shared.arrived.load() < all) sched_yield();
}

// The mean of the middle half.
double middle(std::vector<double> values) {
    if (values.empty()) fail("nothing was measured");
    std::sort(values.begin(), values.end());
    const auto quarter = static_cast<std::ptrdiff_t>(values.size() / 4);
    const auto begin = values.begin() + quarter, end = values.end() - quarter;
    return std::accumulate(begin, end, 0.0) / static_cast<double>(end - begin);
}

// Times blocks of operations, which grow during the warm-up until one takes long enough.
class BlockClock {
public:
    explicit BlockClock(double seconds) : seconds(seconds), begin(Clock::now()), lap(begin) {}

    // Says whether the time is up after this operation.
    bool after(std::uint64_t count) {
        if (count != next) return false;
        const double took = since(lap);
        lap = Clock::now();
        if (warm) laps.push_back(took / static_cast<double>(block));
        else if (took < block_seconds) block *= 2;
        if (!warm && since(begin) > seconds / 4) {
            warm = true;
            begin = lap;
        }
        next = count + block;
        return warm && since(begin) > seconds;
    }

    double seconds_each() const { return middle(laps); }

private:
    double seconds;
    Clock::time_point begin, lap;
    std::uint64_t block = 1, next = 1;
    bool warm = false;
    std::vector<double> laps;
};

// Counts what happens between the end of the warm-up and the limit.
class Window {
public:
    explicit Window(double seconds) : seconds(seconds), start(Clock::now()) {}

    // Says whether the window has ended.
    bool after(std::uint64_t count) {
        if (count % 16 != 0) return false;
        const double now = since(start);
        if (now >= seconds / 4 + seconds) return true;
        if (now >= seconds / 4) {
            if (!begun) first = count;
            begun = true;
            last = count;
        }
        return false;
    }

    double rate() const { return begun ? static_cast<double>(last - first) / seconds : 0; }

private:
    double seconds;
    Clock::time_point start;
    bool begun = false;
    std::uint64_t first = 0, last = 0;
};

// Runs each in a process of its own, on the cores in turn.
void run_all(const Arguments &arguments, const std::vector<std::function<void()>> &actors) {
    for (std::size_t index = 0; index < actors.size(); ++index) {
        const pid_t child = fork();
        if (child < 0) fail("no process");
        if (child == 0) {
            pin(arguments, static_cast<int>(index));
            try {
                actors[index]();
            } catch (const std::exception &error) {
                fail(error.what());
            }
            std::_Exit(0);
        }
    }
    for (std::size_t index = 0; index < actors.size(); ++index) {
        int status = 0;
        if (wait(&status) < 0 || status != 0) fail("a process has failed");
    }
}

// A queue whose name is gone as soon as it is open.
std::unique_ptr<ipc::message_queue> make_queue(const char *which, std::size_t bytes) {
    const std::string name = "offspring-compare-" + std::to_string(getpid()) + which;
    const std::size_t slots = std::clamp<std::size_t>((1 << 20) / bytes, 4, 1024);
    auto queue = std::make_unique<ipc::message_queue>(ipc::create_only, name.c_str(), slots, bytes);
    ipc::message_queue::remove(name.c_str());
    return queue;
}

void receive(ipc::message_queue &queue, std::vector<std::uint64_t> &message) {
    const std::size_t bytes = message.size() * sizeof message[0];
    ipc::message_queue::size_type received = 0;
    unsigned priority = 0;
    queue.receive(message.data(), bytes, received, priority);
    if (received != bytes) fail("messages come whole");
}

void send(ipc::message_queue &queue, const std::vector<std::uint64_t> &message) {
    queue.send(message.data(), message.size() * sizeof message[0], 0);
}

void stream(const Arguments &arguments, Shared &shared) {
    const auto bytes = static_cast<std::size_t>(arguments.numbers.at(0));
    const int count = static_cast<int>(arguments.numbers.at(1));
    const auto queue = make_queue("", bytes);
    std::vector<std::function<void()>> actors;
    for (int me = 0; me < count; ++me) {
        actors.push_back([&] {
            std::vector<std::uint64_t> message(bytes / 8);
            meet(shared, 2 * count);
            for (std::uint64_t number = 0; !shared.stopped.load(std::memory_order_relaxed); ++number) {
                if (number < checked) std::fill(message.begin(), message.end(), number);
                message.front() = message.back() = number;
                send(*queue, message);
            }
            message.front() = end_of_messages;
            send(*queue, message);
        });
    }
    for (int me = 0; me < count; ++me) {
        actors.push_back([&, me] {
            std::vector<std::uint64_t> message(bytes / 8);
            meet(shared, 2 * count);
            BlockClock clock(arguments.seconds);
            Window window(arguments.seconds);
            std::uint64_t number = 0;
            for (;;) {
                receive(*queue, message);
                if (message.front() == end_of_messages) break;
                if (count == 1) {
                    const auto same = [&](std::uint64_t word) { return word == number; };
                    if (number < checked && !std::all_of(message.begin(), message.end(), same)) fail("a message is damaged");
                    if (message.front() != number || message.back() != number) fail("a message is out of order");
                }
                ++number;
                if (count == 1 ? clock.after(number) : window.after(number)) shared.stopped.store(true);
            }
            shared.rates[me] = count == 1 ? 1 / clock.seconds_each() : window.rate();
        });
    }
    run_all(arguments, actors);
    double rate = 0;
    for (int me = 0; me < count; ++me) rate += shared.rates[me];
    std::printf("value %.17g\n", rate);
}

void echo(const Arguments &arguments) {
    const auto there = make_queue("there", 8), back = make_queue("back", 8);
    const auto reflect = [&] {
        std::vector<std::uint64_t> message(1);
        do {
            receive(*there, message);
            send(*back, message);
        } while (message.front() != end_of_messages);
    };
    const auto measure = [&] {
        std::vector<std::uint64_t> message(1);
        std::uint64_t number = 0;
        const auto round_trip = [&](std::uint64_t value) {
            message.front() = value;
            send(*there, message);
            receive(*back, message);
            if (message.front() != value) fail("a message came back changed");
        };
        for (const auto begin = Clock::now(); since(begin) < arguments.seconds / 4;) round_trip(++number);
        std::map<long long, long> latencies;
        const auto begin = Clock::now();
        auto before = begin;
        while (since(begin) < arguments.seconds) {
            round_trip(++number);
            const auto after = Clock::now();
            ++latencies[std::chrono::duration_cast<std::chrono::nanoseconds>(after - before).count()];
            before = after;
        }
        round_trip(end_of_messages);
        for (const auto &[nanoseconds, count] : latencies) std::printf("latency %lld %ld\n", nanoseconds, count);
        std::fflush(stdout);
    };
    run_all(arguments, {reflect, measure});
}

void lock(const Arguments &arguments, Shared &shared) {
    const int contenders = static_cast<int>(arguments.numbers.at(0));
    const auto once = [&] {
        shared.mutex.lock();
        ++shared.protected_count;
        shared.mutex.unlock();
    };
    if (contenders == 1) {
        pin(arguments, 0);
        BlockClock clock(arguments.seconds);
        std::uint64_t count = 0;
        do once();
        while (!clock.after(++count));
        std::printf("value %.17g\n", clock.seconds_each());
        return;
    }
    std::vector<std::function<void()>> actors;
    for (int me = 0; me < contenders; ++me) {
        actors.push_back([&, me] {
            meet(shared, contenders);
            Window window(arguments.seconds);
            std::uint64_t count = 0;
            while (!shared.stopped.load(std::memory_order_relaxed)) {
                once();
                if (window.after(++count)) shared.stopped.store(true);
            }
            shared.rates[me] = window.rate();
            shared.counts[me] = count;
        });
    }
    run_all(arguments, actors);
    double rate = 0;
    std::uint64_t count = 0;
    for (int me = 0; me < contenders; ++me) {
        rate += shared.rates[me];
        count += shared.counts[me];
    }
    if (count != shared.protected_count) fail("the lock does not exclude");
    std::printf("value %.17g\n", rate);
}

}  // namespace

int main(int count, char **words) {
    try {
        if (count < 6) fail("too few arguments");
        Arguments arguments{words[2], {}, std::atof(words[count - 3]), {std::atoi(words[count - 2]), std::atoi(words[count - 1])}};
        for (int index = 3; index < count - 3; ++index) arguments.numbers.push_back(std::atol(words[index]));
        ipc::mapped_region region(ipc::anonymous_shared_memory(sizeof(Shared)));
        Shared &shared = *new (region.get_address()) Shared();
        if (arguments.task == "stream") stream(arguments, shared);
        else if (arguments.task == "echo") echo(arguments);
        else if (arguments.task == "lock") lock(arguments, shared);
        else fail("no such task");
    } catch (const std::exception &error) {
        fail(error.what());
    }
}
