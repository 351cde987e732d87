# The addon: the native core and its N-API layer in one loadable object, build/Release/atoll.node.
# The sources are listed at configure time, so a new file is picked up by the next `npm run setup`;
# native/Makefile builds the same ones, without the addon folder, for the tests.
{
  'targets': [
    {
      'target_name': 'atoll',
      'sources': [
        '<!@(find native -name "*.cc" -not -path "native/test/*" -not -path "native/fuzz/*" | sort)',
      ],
      'include_dirs': [
        'native',
        '<!@(node -p "require(\'node-addon-api\').include_dir")',
        '<!@(pkg-config --cflags-only-I fuse3 | sed s/-I//g)',
      ],
      'defines': [
        'NAPI_VERSION=9',
        'NAPI_DISABLE_CPP_EXCEPTIONS',
        '_GNU_SOURCE',
        '_FILE_OFFSET_BITS=64',
      ],
      # Node's own choices, which must not win over ours.
      'cflags!': ['-O3'],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20', '-fno-rtti', '-O3'],
      'cflags': ['-O2', '-g', '-Wall', '-Wextra', '-Werror', '-fvisibility=hidden', '-pthread'],
      'cflags_cc': ['-std=c++20', '-fno-exceptions'],
      'libraries': ['-luring', '<!@(pkg-config --libs fuse3)', '-lpthread'],
      'conditions': [
        # SSE 4.2 (crc32c) is in every x86-64 machine since 2009.
        ['target_arch=="x64"', {'cflags': ['-march=x86-64-v2']}],
        ['target_arch=="arm64"', {'cflags': ['-march=armv8-a+crc']}],
      ],
    },
  ],
}
