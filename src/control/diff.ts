/** What changed between two resources, as the daemon tells it. */
import type { ExtentInfo } from '../xseg/types.ts';
import { type ControlClient, route, withQuery } from './client.ts';
import { ControlError } from './errors.ts';

/** A page at a time: a diff may have more extents than memory. */
export async function* diffPages(client: ControlClient, from: string, to: string): AsyncGenerator<ExtentInfo[]> {
  let offset: number | null = 0;
  while (offset !== null) {
    const target: string = withQuery(route('diff'), { from, to, offset });
    const page: { extents: ExtentInfo[]; next: number | null } = await client.get(target);
    if (page.next !== null && page.next <= offset) throw new ControlError('PROTOCOL', 'the diff does not advance');
    yield page.extents;
    offset = page.next;
  }
}
