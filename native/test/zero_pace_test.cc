// How much is zeroed by one call, and what it waits for.
#include "block/zero_pace.h"

#include "block/sync_clock.h"
#include "test/check.h"

namespace atoll_native {
namespace {

constexpr uint64_t kLong = ZeroPace::kLongNs;
constexpr uint64_t kFirst = ZeroPace::kBytesFirst;

void slow_calls_become_small_and_fast_ones_large() {
  ZeroPace pace;
  CHECK_EQ(pace.bytes(), kFirst);
  pace.took(kLong);
  CHECK_EQ(pace.bytes(), kFirst);
  pace.took(kLong + 1);
  CHECK_EQ(pace.bytes(), kFirst / 2);
  pace.took(kLong / 4);
  CHECK_EQ(pace.bytes(), kFirst / 2);
  pace.took(kLong / 4 - 1);
  CHECK_EQ(pace.bytes(), kFirst);
  for (int i = 0; i < 20; i++) pace.took(0);
  CHECK_EQ(pace.bytes(), ZeroPace::kBytesMax);
}

/// Sizes of the next calls on a disk that needs `fixed` for each and `per_mib` for a mebibyte, nanoseconds.
uint64_t settled(uint64_t fixed, uint64_t per_mib) {
  ZeroPace pace;
  for (int i = 0; i < 100; i++) pace.took(fixed + (pace.bytes() * per_mib >> 20));
  return pace.bytes();
}

void it_settles_where_a_call_takes_a_millisecond() {
  CHECK_EQ(settled(0, 4 * kLong), 256u << 10);
  CHECK_EQ(settled(0, kLong / 16), 4u << 20);
  CHECK_EQ(settled(0, 1000 * kLong), ZeroPace::kBytesMin);
  CHECK_EQ(settled(0, 10), ZeroPace::kBytesMax);
}

void smaller_calls_that_take_as_long_are_not_made() {
  // 75 % of the time for half the bytes is the border
  CHECK_EQ(settled(3 * kLong, 0), kFirst);
  ZeroPace not_worth;
  not_worth.took(4 * kLong);
  CHECK_EQ(not_worth.bytes(), kFirst / 2);
  not_worth.took(3 * kLong);
  CHECK_EQ(not_worth.bytes(), kFirst);
  not_worth.took(4 * kLong);
  CHECK_EQ(not_worth.bytes(), kFirst);
  ZeroPace worth;
  worth.took(4 * kLong);
  worth.took(3 * kLong - 1'000);
  CHECK_EQ(worth.bytes(), kFirst / 4);
}

void a_sync_runs_from_the_first_that_began() {
  SyncClock clock;
  CHECK_EQ(clock.running_ns(100), 0u);
  clock.began(100);
  CHECK_EQ(clock.running_ns(150), 50u);
  clock.began(140);
  clock.ended();
  CHECK_EQ(clock.running_ns(160), 60u);
  CHECK_EQ(clock.running_ns(90), 0u);
  clock.ended();
  CHECK_EQ(clock.running_ns(200), 0u);
  clock.began(300);
  CHECK_EQ(clock.running_ns(310), 10u);
}

void it_waits_for_long_syncs_and_not_for_ever() {
  ZeroWait wait;
  CHECK(!wait.wants(0));
  CHECK(!wait.wants(ZeroWait::kSyncNsMin - 1));
  CHECK(wait.wants(ZeroWait::kSyncNsMin));
  wait.waited(ZeroWait::kWaitNsMax - 1);
  CHECK(wait.wants(ZeroWait::kSyncNsMin));
  wait.waited(1);
  CHECK(!wait.wants(ZeroWait::kSyncNsMin));
}

}  // namespace
}  // namespace atoll_native

int main() {
  atoll_native::slow_calls_become_small_and_fast_ones_large();
  atoll_native::it_settles_where_a_call_takes_a_millisecond();
  atoll_native::smaller_calls_that_take_as_long_are_not_made();
  atoll_native::a_sync_runs_from_the_first_that_began();
  atoll_native::it_waits_for_long_syncs_and_not_for_ever();
  return atoll_native::check_summary();
}
