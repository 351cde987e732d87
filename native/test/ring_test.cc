// Rings and doorbells: order, wrap-around, full and empty, and that no wake-up is lost between threads.
#include "ring/ring.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "ring/doorbell.h"
#include "test/check.h"
#include "test/rendezvous.h"

namespace atoll_native {
namespace {

using Producer = RingProducer<RequestRecord>;
using Consumer = RingConsumer<RequestRecord>;

constexpr uint32_t kMessages = 300'000;  // through each stress test
/// A lost wake-up would sleep this long; nothing else here takes that long.
constexpr int64_t kSleepNs = 20'000'000'000;

std::unique_ptr<RingMemory> empty_ring() { return std::unique_ptr<RingMemory>(new RingMemory()); }

RequestRecord numbered(uint64_t number) {
  RequestRecord record;
  record.block = number;
  record.length = ~number;  // torn records show
  return record;
}

void takes_in_order_and_says_when_full() {
  const auto memory = empty_ring();
  Producer producer(memory.get());
  Consumer consumer(memory.get());
  CHECK(consumer.empty());
  CHECK_EQ(producer.room(), kRingRecords);
  for (uint32_t i = 0; i < kRingRecords; i++) REQUIRE(producer.put(numbered(i)));
  CHECK(!producer.put(numbered(0)));
  CHECK_EQ(producer.room(), 0u);
  CHECK(!consumer.empty());
  std::vector<RequestRecord> out(kRingRecords + 1);
  CHECK_EQ(consumer.take(std::span(out).first(3)), 3u);
  CHECK_EQ(producer.room(), 3u);
  CHECK_EQ(out[2].block, 2u);
  CHECK_EQ(consumer.take(out), kRingRecords - 3);
  CHECK_EQ(out[0].block, 3u);
  CHECK_EQ(out[kRingRecords - 4].block, kRingRecords - 1);
  CHECK(consumer.empty());
  CHECK_EQ(consumer.take(out), 0u);
}

void puts_the_part_of_a_batch_that_fits() {
  const auto memory = empty_ring();
  Producer producer(memory.get());
  Consumer consumer(memory.get());
  std::vector<RequestRecord> batch;
  for (uint32_t i = 0; i < kRingRecords; i++) batch.push_back(numbered(i));
  CHECK_EQ(producer.put(std::span<const RequestRecord>(batch).first(kRingRecords - 2)), kRingRecords - 2);
  CHECK_EQ(producer.put(std::span<const RequestRecord>(batch).first(5)), 2u);
  CHECK_EQ(producer.put(std::span<const RequestRecord>(batch).first(0)), 0u);
  RequestRecord out;
  for (uint32_t i = 0; i < kRingRecords - 2; i++) REQUIRE(consumer.take(&out, 1) == 1 && out.block == i);
  CHECK(consumer.take(&out, 1) == 1 && out.block == 0);
  CHECK(consumer.take(&out, 1) == 1 && out.block == 1);
}

void positions_wrap() {
  const auto memory = empty_ring();
  // As after 2^32 - 5 records: the next batch crosses both the ring's end and the counters'.
  memory->head.store(UINT32_MAX - 4);
  memory->tail.store(UINT32_MAX - 4);
  Producer producer(memory.get());
  Consumer consumer(memory.get());
  CHECK(consumer.empty());
  for (uint32_t round = 0; round < 3; round++) {
    for (uint32_t i = 0; i < kRingRecords; i++) REQUIRE(producer.put(numbered(i)));
    CHECK(!producer.put(numbered(0)));
    RequestRecord out;
    for (uint32_t i = 0; i < kRingRecords; i++) REQUIRE(consumer.take(&out, 1) == 1 && out.block == i);
    CHECK(consumer.empty());
  }
}

void ends_may_be_attached_late() {
  const auto memory = empty_ring();
  CHECK(Producer(memory.get()).put(numbered(1)));
  CHECK(Producer(memory.get()).put(numbered(2)));
  RequestRecord out;
  CHECK(Consumer(memory.get()).take(&out, 1) == 1 && out.block == 1);
  CHECK(Consumer(memory.get()).take(&out, 1) == 1 && out.block == 2);
  CHECK(Consumer(memory.get()).empty());
}

void takes_to_any_alignment() {
  const auto memory = empty_ring();
  Producer(memory.get()).put(numbered(42));
  uint8_t bytes[1 + kRecordBytes];
  CHECK_EQ(Consumer(memory.get()).take(bytes + 1, 1), 1u);
  RequestRecord out;
  std::memcpy(&out, bytes + 1, sizeof out);
  CHECK_EQ(out.block, 42u);
}

/// Puts kMessages records in batches of changing size; rings after each batch.
void produce(RingMemory* memory, Doorbell bell) {
  Producer producer(memory);
  RequestRecord batch[64];
  for (uint64_t sent = 0; sent < kMessages;) {
    const uint64_t want = std::min<uint64_t>(1 + sent % 64, kMessages - sent);
    for (uint64_t i = 0; i < want; i++) batch[i] = numbered(sent + i);
    const uint32_t put = producer.put(std::span<const RequestRecord>(batch).first(want));
    sent += put;
    bell.ring();
    if (put == 0) std::this_thread::yield();
    // Now and then the consumer gets to sleep.
    if (sent % 1024 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

struct Outcome {
  uint64_t received = 0;
  uint64_t wrong = 0;
  uint64_t sleeps = 0;
  bool overslept = false;
};

/// Takes kMessages records, sleeping by `sleep(bell)` whenever there are none.
template <typename Sleep>
Outcome consume(RingMemory* memory, Doorbell bell, Sleep sleep) {
  Consumer consumer(memory);
  Outcome outcome;
  RequestRecord out[100];
  while (outcome.received < kMessages && !outcome.overslept) {
    const uint32_t count = consumer.take(std::span(out));
    for (uint32_t i = 0; i < count; i++) {
      if (out[i].block != outcome.received || out[i].length != ~out[i].block) outcome.wrong++;
      outcome.received++;
    }
    if (count != 0) continue;
    bell.arm();
    if (consumer.empty()) {
      outcome.sleeps++;
      outcome.overslept = !sleep(bell);
    }
    bell.disarm();
  }
  return outcome;
}

void check_outcome(const Outcome& outcome) {
  CHECK(!outcome.overslept);
  CHECK_EQ(outcome.received, kMessages);
  CHECK_EQ(outcome.wrong, 0u);
  CHECK(outcome.sleeps > 0);  // else this tested nothing
}

void no_wakeup_is_lost_by_futex() {
  const auto memory = empty_ring();
  uint32_t asleep = 0;
  std::thread producer(produce, memory.get(), Doorbell(asleep));
  const Outcome outcome = consume(memory.get(), Doorbell(asleep), [](Doorbell& bell) {
    const auto before = std::chrono::steady_clock::now();
    bell.wait(kSleepNs);
    return std::chrono::steady_clock::now() - before < std::chrono::nanoseconds(kSleepNs / 2);
  });
  producer.join();
  check_outcome(outcome);
}

void no_wakeup_is_lost_by_eventfd() {
  const auto memory = empty_ring();
  uint32_t asleep = 0;
  const int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  REQUIRE(event_fd >= 0 && epoll_fd >= 0);
  epoll_event event{};
  event.events = EPOLLIN;
  REQUIRE(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &event) == 0);
  std::thread producer(produce, memory.get(), Doorbell(asleep, event_fd));
  const Outcome outcome = consume(memory.get(), Doorbell(asleep, event_fd), [&](Doorbell& bell) {
    epoll_event got;
    const int ready = epoll_wait(epoll_fd, &got, 1, static_cast<int>(kSleepNs / 1'000'000));
    bell.drain();
    return ready == 1;
  });
  producer.join();
  check_outcome(outcome);
  close(event_fd);
  close(epoll_fd);
}

/// Both sides at the same moment, again and again: the consumer says that it sleeps and looks once more, the producer
/// puts and looks whether it must ring. Never may both miss the other. (Without either fence this fails within some
/// rounds.)
void neither_misses_the_other() {
  const auto memory = empty_ring();
  uint32_t asleep = 0;
  const int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  REQUIRE(event_fd >= 0);
  Rendezvous rendezvous;
  std::thread other([&] {
    Producer producer(memory.get());
    Doorbell bell(asleep, event_fd);
    for (uint32_t round = 0; rendezvous.begin(false); round++) {
      producer.put(numbered(round));
      bell.ring();
      rendezvous.meet();
    }
  });
  Consumer consumer(memory.get());
  Doorbell bell(asleep, event_fd);
  uint32_t missed = 0;
  for (uint32_t round = 0; rendezvous.begin(true); round++) {
    for (uint32_t i = 0; i < round % 64; i++) asm volatile("");  // tries all distances between the two
    bell.arm();
    const bool saw_nothing = consumer.empty();
    rendezvous.meet();
    uint64_t count;
    const bool rung = read(event_fd, &count, sizeof count) == sizeof count;
    if (saw_nothing && !rung) missed++;
    bell.disarm();
    RequestRecord out;
    REQUIRE(consumer.take(&out, 1) == 1 && out.block == round);
  }
  other.join();
  CHECK_EQ(missed, 0u);
  close(event_fd);
}

void rings_coalesce() {
  uint32_t asleep = 0;
  const int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  Doorbell bell(asleep, event_fd);
  uint64_t count = 0;
  bell.ring();  // nobody sleeps
  CHECK(read(event_fd, &count, sizeof count) < 0);
  bell.arm();
  for (int i = 0; i < 10; i++) bell.ring();
  CHECK_EQ(read(event_fd, &count, sizeof count), static_cast<ssize_t>(sizeof count));
  CHECK_EQ(count, 1u);
  bell.ring();  // woken already
  CHECK(read(event_fd, &count, sizeof count) < 0);
  close(event_fd);
}

void a_rung_futex_does_not_sleep() {
  uint32_t asleep = 0;
  Doorbell bell(asleep);
  bell.arm();
  bell.ring();  // between the second look and the sleep
  const auto before = std::chrono::steady_clock::now();
  bell.wait(kSleepNs);
  CHECK(std::chrono::steady_clock::now() - before < std::chrono::nanoseconds(kSleepNs / 2));
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  takes_in_order_and_says_when_full();
  puts_the_part_of_a_batch_that_fits();
  positions_wrap();
  ends_may_be_attached_late();
  takes_to_any_alignment();
  rings_coalesce();
  a_rung_futex_does_not_sleep();
  neither_misses_the_other();
  no_wakeup_is_lost_by_futex();
  no_wakeup_is_lost_by_eventfd();
  return check_summary();
}
