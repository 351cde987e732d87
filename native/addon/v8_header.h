// V8's own header, which is not held to our warnings.
#pragma once
#pragma GCC system_header
#include <v8.h>
