/** Metrics of the control socket. */
import { type Definition, durations } from './definition.ts';

export const CONTROL: readonly Definition[] = [
  {
    kind: 'counter',
    name: 'atoll_control_requests_total',
    help: 'Requests on the control socket',
    labels: ['route', 'status'],
    read: ({ control }) =>
      [...control.requests].flatMap(([route, statuses]) =>
        [...statuses].map(([status, count]) => [{ route, status: String(status) }, count] as const),
      ),
  },
  durations(
    'atoll_control_request_seconds',
    'Requests on the control socket, from their head to the end of the answer',
    ({ control }) => control.times,
  ),
];
