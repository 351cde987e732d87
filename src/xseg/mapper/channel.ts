/** One end of the mapper's conversation with another thread, looked at once per turn. Messages arrive as copies. */
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';

export interface Channel {
  /** the oldest message not yet received; undefined when there is none */
  receive(): unknown;
  /** `transfer`: buffers that are moved and not copied */
  send(message: unknown, transfer?: ArrayBuffer[]): void;
}

export function portChannel(port: MessagePort): Channel {
  return {
    receive: () => (receiveMessageOnPort(port) as { message: unknown } | undefined)?.message,
    send: (message, transfer) => port.postMessage(message, transfer ?? []),
  };
}
