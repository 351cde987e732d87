// Pages of their own: taken only where touched, a few kept for who comes next, the others given back at once.
#include "io/own_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <vector>

#include "test/check.h"

namespace atoll_native {
namespace {

const auto kPage = static_cast<size_t>(sysconf(_SC_PAGESIZE));

/// Pages of [at, at+bytes) that take memory; -1 where nothing is mapped.
int resident(void* at, size_t bytes) {
  std::vector<unsigned char> pages((bytes + kPage - 1) / kPage);
  if (mincore(at, bytes, pages.data()) != 0) {
    CHECK_EQ(errno, ENOMEM);
    return -1;
  }
  int count = 0;
  for (const unsigned char page : pages) count += page & 1;
  return count;
}

void only_what_is_touched_is_there() {
  const size_t bytes = 15 * kPage + 100;
  OwnPages pages(bytes);
  void* const at = pages.take();
  CHECK_EQ(reinterpret_cast<uintptr_t>(at) % kPage, size_t{0});
  CHECK_EQ(resident(at, bytes), 0);
  auto* const words = static_cast<volatile uint8_t*>(at);
  words[3 * kPage] = 1;
  words[bytes - 1] = 1;
  CHECK_EQ(resident(at, bytes), 2);
  pages.give(at);
  CHECK(pages.take() == at);
  CHECK_EQ(resident(at, bytes), 2);
  pages.give(at);
}

void so_many_are_kept_and_no_more() {
  const size_t bytes = 2 * kPage;
  std::vector<void*> taken;
  {
    OwnPages pages(bytes);
    for (uint32_t i = 0; i < OwnPages::kIdleMax + 1; i++) taken.push_back(pages.take());
    for (void* const at : taken) pages.give(at);
    for (uint32_t i = 0; i < OwnPages::kIdleMax; i++) CHECK(resident(taken[i], bytes) >= 0);
    CHECK_EQ(resident(taken.back(), bytes), -1);
  }
  for (void* const at : taken) CHECK_EQ(resident(at, bytes), -1);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  only_what_is_touched_is_there();
  so_many_are_kept_and_no_more();
  return check_summary();
}
