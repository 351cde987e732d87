// libfuse's header, with the version of the interface that is used here in one place.
#pragma once
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
