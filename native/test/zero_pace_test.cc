// How much is zeroed by one call, and what it waits for.
#include "block/zero_pace.h"

#include "test/check.h"

namespace atoll_native {
namespace {

void slow_calls_become_small_and_fast_ones_large() {
  ZeroPace pace;
  CHECK_EQ(pace.bytes(), ZeroPace::kBytesFirst);
  pace.took(ZeroPace::kLongNs);
  CHECK_EQ(pace.bytes(), ZeroPace::kBytesFirst);
  pace.took(ZeroPace::kLongNs + 1);
  CHECK_EQ(pace.bytes(), ZeroPace::kBytesFirst / 2);
  pace.took(ZeroPace::kLongNs / 4);
  CHECK_EQ(pace.bytes(), ZeroPace::kBytesFirst / 2);
  pace.took(ZeroPace::kLongNs / 4 - 1);
  CHECK_EQ(pace.bytes(), ZeroPace::kBytesFirst);
  for (int i = 0; i < 20; i++) pace.took(ZeroPace::kLongNs + 1);
  CHECK_EQ(pace.bytes(), ZeroPace::kBytesMin);
  for (int i = 0; i < 20; i++) pace.took(0);
  CHECK_EQ(pace.bytes(), ZeroPace::kBytesMax);
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
  atoll_native::a_sync_runs_from_the_first_that_began();
  atoll_native::it_waits_for_long_syncs_and_not_for_ever();
  return atoll_native::check_summary();
}
