# The addon: the native core and its N-API layer in one loadable object, build/Release/atoll.node.
# The sources are listed by the shell, so that a new file in a listed folder is picked up when
# scripts/setup.mjs sees that the list has changed, and a folder that is not there yet costs nothing.
{
  'variables': {
    'openssl_fips': '',
  },
  'targets': [
    {
      'target_name': 'atoll',
      'sources': [
        '<!@(ls native/addon/*.cc native/segment/*.cc native/ring/*.cc native/reactor/*.cc native/volume/*.cc native/block/*.cc native/io/*.cc native/map/*.cc native/nbd/*.cc 2>/dev/null || true)',
      ],
      'include_dirs': [
        'native',
        '<!@(node -p "require(\'node-addon-api\').include_dir")',
      ],
      'defines': [
        'NAPI_VERSION=9',
        'NAPI_DISABLE_CPP_EXCEPTIONS',
        '_GNU_SOURCE',
        '_FILE_OFFSET_BITS=64',
      ],
      # Node's own flags, which would win over ours by coming later or earlier.
      'cflags!': ['-O3'],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20', '-fno-rtti', '-O3'],
      'cflags': ['-O2', '-g', '-Wall', '-Wextra', '-Werror', '-fvisibility=hidden', '-pthread'],
      'cflags_cc': ['-std=c++20', '-fno-exceptions'],
      'libraries': ['-luring', '-lpthread'],
      'conditions': [
        # SSE 4.2 (crc32c) is in every x86-64 machine since 2009.
        ['target_arch=="x64"', {'cflags': ['-march=x86-64-v2']}],
        ['target_arch=="arm64"', {'cflags': ['-march=armv8-a+crc']}],
      ],
    },
  ],
}
