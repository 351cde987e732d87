/** NBD addresses as other programs take them (doc/uri.md of NetworkBlockDevice/nbd). */

/** `nbd+unix:///NAME?socket=/path`, percent-encoded: names and paths may have any character */
export function nbdUri(socket: string, exportName: string): string {
  const path = socket.split('/').map(encodeURIComponent).join('/');
  return `nbd+unix:///${encodeURIComponent(exportName)}?socket=${path}`;
}
