// Takes the durability out of a daemon, for tests that must notice: a library for LD_PRELOAD.
//
//   ATOLL_SYNC_FAULT=drop:PART          fsync and fdatasync of files with PART in their path do nothing, and succeed
//   ATOLL_SYNC_FAULT=fail:PART[:N]      the Nth such call (default: the first) answers EIO, once
//   ATOLL_SYNC_FAULT=kill:PART[:N]      before the Nth such call is done the process dies, as by kill -9
//
// Writes that are durable by themselves (RWF_DSYNC, O_DSYNC) and io_uring do not come through here.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static char mode;  // 'd', 'f', 'k'; 0: nothing to do
static char part[256];
static long wanted = 1;
static atomic_long seen;

__attribute__((constructor)) static void begin(void) {
  const char* const spec = getenv("ATOLL_SYNC_FAULT");
  if (spec == NULL) return;
  char verb[8];
  if (sscanf(spec, "%7[a-z]:%255[^:]:%ld", verb, part, &wanted) < 2) {
    fprintf(stderr, "ATOLL_SYNC_FAULT=%s makes no sense\n", spec);
    abort();
  }
  mode = verb[0];
}

static int concerned(int fd) {
  if (mode == 0) return 0;
  char link[64];
  char path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strstr(path, part) != NULL;
}

static int sync_it(int fd, long call) {
  if (concerned(fd)) {
    if (mode == 'd') return 0;
    if (atomic_fetch_add(&seen, 1) + 1 == wanted) {
      if (mode == 'k') {
        kill(getpid(), SIGKILL);
        for (;;) pause();
      }
      errno = EIO;
      return -1;
    }
  }
  return (int)syscall(call, fd);
}

int fsync(int fd) { return sync_it(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_it(fd, SYS_fdatasync); }
