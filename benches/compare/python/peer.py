"""Python's multiprocessing, measured as the other peers are. What the arguments mean and what is printed is told in src/external.rs."""

import multiprocessing
import os
import sys
from collections import Counter
from time import perf_counter, perf_counter_ns

context = multiprocessing.get_context("fork")
SLOTS = 1024
BLOCK = 300e-6
CHECKED = 32


def pin(cpus, index):
    os.sched_setaffinity(0, {cpus[index % 2]})


class Clock:
    """Times blocks of operations, which grow during the warm-up until one takes long enough."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.begin = self.lap = perf_counter()
        self.block = self.next = 1
        self.warm = False
        self.laps = []

    def after(self, count):
        """Says whether the time is up after this operation."""
        if count != self.next:
            return False
        now = perf_counter()
        took, self.lap = now - self.lap, now
        if self.warm:
            self.laps.append(took / self.block)
        elif took < BLOCK:
            self.block *= 2
        if not self.warm and now - self.begin > self.seconds / 4:
            self.warm, self.begin = True, now
        self.next = count + self.block
        return self.warm and now - self.begin > self.seconds


class Window:
    """Counts what happens between the end of the warm-up and the limit."""

    def __init__(self, seconds):
        self.begin = perf_counter() + seconds / 4
        self.end = self.begin + seconds
        self.first = None
        self.last = 0

    def after(self, count):
        """Says whether the window has ended."""
        now = perf_counter()
        if now >= self.end:
            return True
        if now >= self.begin:
            if self.first is None:
                self.first = count
            self.last = count
        return False

    def rate(self):
        """Operations in a second of the window."""
        return 0 if self.first is None else (self.last - self.first) / (self.end - self.begin)


def middle(values):
    """The mean of the middle half."""
    quarter = len(values) // 4
    half = sorted(values)[quarter : len(values) - quarter]
    return sum(half) / len(half)


def channel(way):
    """A function that sends and one that receives."""
    if way == "multiprocessing.Queue":
        queue = context.Queue(SLOTS)
        return queue.put, queue.get, queue
    receiver, sender = context.Pipe(duplex=False)
    return sender.send, receiver.recv, None


def message(number, size):
    return number if size == 8 else number.to_bytes(8, "little") * (size // 8)


def number_of(message, size):
    return message if size == 8 else int.from_bytes(message[:8], "little")


def send_all(send, queue, size, cpus, index, stopped, barrier):
    pin(cpus, index)
    barrier.wait()
    number = 0
    filler = bytes(size - 8)
    while not stopped.value:
        # The first ones wholly of numbers, the others as quickly as Python makes them.
        if size == 8:
            send(number)
        elif number < CHECKED:
            send(message(number, size))
        else:
            send(number.to_bytes(8, "little") + filler)
        number += 1
    send(None)
    if queue is not None:
        queue.close()
        queue.join_thread()


def recv_all(recv, size, count, seconds, cpus, index, stopped, barrier, rates):
    pin(cpus, index)
    barrier.wait()
    clock = Clock(seconds)
    number = 0
    window = Window(seconds)
    while True:
        received = recv()
        if received is None:
            break
        if count == 1:
            if number < CHECKED:
                assert received == message(number, size), "a message is damaged"
            assert number_of(received, size) == number, "a message is out of order"
            if clock.after(number + 1):
                stopped.value = 1
        elif window.after(number):
            stopped.value = 1
        number += 1
    rates[index - count] = 1 / middle(clock.laps) if count == 1 else window.rate()


def run_all(processes):
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode != 0:
            for other in processes:
                other.kill()
            sys.exit("a process has failed")


def stream(way, size, count, seconds, cpus):
    send, recv, queue = channel(way)
    stopped = context.RawValue("b", 0)
    barrier = context.Barrier(2 * count)
    rates = context.RawArray("d", count)
    processes = []
    for index in range(count):
        processes.append(context.Process(target=send_all, args=(send, queue, size, cpus, index, stopped, barrier)))
    for index in range(count, 2 * count):
        arguments = (recv, size, count, seconds, cpus, index, stopped, barrier, rates)
        processes.append(context.Process(target=recv_all, args=arguments))
    run_all(processes)
    print(f"value {sum(rates)}")


def print_latencies(latencies):
    for nanoseconds, count in sorted(Counter(latencies).items()):
        print(f"latency {nanoseconds} {count}")


def time_each(operation, seconds):
    begin = perf_counter()
    while perf_counter() - begin < seconds / 4:
        operation()
    latencies = []
    begin = before = perf_counter_ns()
    while before - begin < seconds * 1e9:
        operation()
        after = perf_counter_ns()
        latencies.append(after - before)
        before = after
    print_latencies(latencies)


def reflect(recv, send, cpus):
    pin(cpus, 0)
    while True:
        received = recv()
        if received is None:
            os._exit(0)
        send(received)


def echo(way, seconds, cpus):
    send, their_recv, _ = channel(way)
    their_send, recv, _ = channel(way)
    process = context.Process(target=reflect, args=(their_recv, their_send, cpus), daemon=True)
    process.start()
    pin(cpus, 1)

    def round_trip():
        send(12345678)
        assert recv() == 12345678, "a message came back changed"

    time_each(round_trip, seconds)
    send(None)
    process.join()


def contend(lock, protected, seconds, cpus, index, stopped, barrier, rates, counts):
    pin(cpus, index)
    barrier.wait()
    window = Window(seconds)
    count = 0
    while not stopped.value:
        with lock:
            protected[0] += 1
        count += 1
        if count % 16 == 0 and window.after(count):
            stopped.value = 1
    rates[index] = window.rate()
    counts[index] = count


def lock(contenders, seconds, cpus):
    mutex = context.Lock()
    protected = context.RawArray("Q", 1)
    if contenders == 1:
        pin(cpus, 0)
        clock = Clock(seconds)
        count = 0
        while True:
            with mutex:
                protected[0] += 1
            count += 1
            if clock.after(count):
                break
        print(f"value {middle(clock.laps)}")
        return
    stopped = context.RawValue("b", 0)
    barrier = context.Barrier(contenders)
    rates, counts = context.RawArray("d", contenders), context.RawArray("Q", contenders)
    arguments = [(mutex, protected, seconds, cpus, index, stopped, barrier, rates, counts) for index in range(contenders)]
    run_all([context.Process(target=contend, args=each) for each in arguments])
    assert protected[0] == sum(counts), "the lock does not exclude"
    print(f"value {sum(rates)}")


def nothing():
    pass


def spawn(way, mebibytes, seconds, cpus):
    pin(cpus, 0)
    context = multiprocessing.get_context(way.split()[-1])
    ballast = bytearray(b"\1") * (mebibytes << 20)

    def child():
        process = context.Process(target=nothing)
        process.start()
        process.join()
        assert process.exitcode == 0, "a child has failed"

    time_each(child, seconds)
    assert len(ballast) == mebibytes << 20


def main():
    way, task, *numbers, seconds, first, second = sys.argv[1:]
    seconds, cpus, numbers = float(seconds), (int(first), int(second)), [int(number) for number in numbers]
    if task == "stream":
        stream(way, *numbers, seconds, cpus)
    elif task == "echo":
        echo(way, seconds, cpus)
    elif task == "lock":
        lock(*numbers, seconds, cpus)
    else:
        spawn(way, *numbers, seconds, cpus)


# A child that is not a copy imports this file under another name.
if __name__ == "__main__":
    main()
