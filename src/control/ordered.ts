/**
 * Runs `work` on the items of `source`, up to `depth` at once, and yields the results in the order of the items.
 * When the loop is left or something fails, it waits for what is on its way: buffers may be in use until then.
 */
export async function* ordered<T, R>(
  source: AsyncIterable<T> | Iterable<T>,
  depth: number,
  work: (item: T) => Promise<R>,
): AsyncGenerator<R> {
  const running: Promise<R>[] = [];
  try {
    for await (const item of source) {
      const promise = work(item);
      // It is awaited below, or in `finally`: until then a failure is not unhandled.
      promise.catch(() => undefined);
      running.push(promise);
      if (running.length >= depth) yield await running.shift()!;
    }
    while (running.length > 0) yield await running.shift()!;
  } finally {
    await Promise.allSettled(running);
  }
}
