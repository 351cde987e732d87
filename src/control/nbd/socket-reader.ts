/** Takes exact numbers of bytes from a socket, without copying more than once. */
import type { Socket } from 'node:net';

export class SocketReader {
  private readonly socket: Socket;
  private rest: Buffer | null = null;
  private failure: Error | null = null;
  private wakeUp: (() => void) | null = null;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('readable', () => this.wake());
    socket.on('end', () => this.fail(new Error('the server closed the connection')));
    socket.on('close', () => this.fail(new Error('the connection was closed')));
    socket.on('error', (error) => this.fail(error));
  }

  async take(length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(length);
    await this.fill(bytes);
    return bytes;
  }

  async fill(target: Buffer): Promise<void> {
    let at = 0;
    while (at < target.length) {
      const chunk: Buffer | null = this.rest ?? (this.socket.read() as Buffer | null);
      if (chunk === null) {
        if (this.failure) throw this.failure;
        await new Promise<void>((resolve) => {
          this.wakeUp = resolve;
        });
        continue;
      }
      const used = chunk.copy(target, at);
      at += used;
      this.rest = used < chunk.length ? chunk.subarray(used) : null;
    }
  }

  private wake(): void {
    const wakeUp = this.wakeUp;
    this.wakeUp = null;
    wakeUp?.();
  }

  private fail(error: Error): void {
    this.failure ??= error;
    this.wake();
  }
}
