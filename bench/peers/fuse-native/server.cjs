// server.cjs FILE DIR: one plain file as DIR/file, through the npm package fuse-native (libfuse2), as its users write it. Ends
// when it gets a signal.
const fs = require('node:fs');
const Fuse = require('fuse-native');

const [, , source, dir] = process.argv;
const fd = fs.openSync(source, 'r');
const { size } = fs.fstatSync(fd);

function facts(mode, bytes) {
  const now = new Date();
  return {
    mtime: now,
    atime: now,
    ctime: now,
    nlink: 1,
    size: bytes,
    mode,
    uid: process.getuid(),
    gid: process.getgid(),
  };
}

const operations = {
  readdir: (_path, done) => done(0, ['file']),
  getattr: (path, done) => {
    if (path === '/') return done(0, facts(0o40500, 4096));
    if (path === '/file') return done(0, facts(0o100400, size));
    return done(Fuse.ENOENT);
  },
  open: (_path, _flags, done) => done(0, 1),
  release: (_path, _handle, done) => done(0),
  // synchronous: the bytes are in the page cache, and going through libuv's threads would take longer
  read: (_path, _handle, buffer, length, position, done) => done(fs.readSync(fd, buffer, 0, length, position)),
};

const fuse = new Fuse(dir, operations, { maxRead: 1 << 20, maxBackground: 64 });
fuse.mount((error) => {
  if (error) throw error;
});
process.once('SIGTERM', () => fuse.unmount(() => process.exit(0)));
