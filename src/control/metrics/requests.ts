/** Metrics of the data path: clients' requests, the reactors that serve them, data syncs. */
import { counter, countersBy, type Definition, durations, durationsBy, gauge } from './definition.ts';
import { sumOf, waitsOf } from './sum.ts';

export const REQUESTS: readonly Definition[] = [
  countersBy(
    'path',
    'atoll_requests_total',
    'Client requests that ended, at once or after waiting',
    ({ activity }) => ({
      inline: sumOf(activity.reactors, 'inline'),
      waited: sumOf(activity.reactors, 'waited'),
    }),
  ),
  durationsBy(
    'op',
    'atoll_request_wait_seconds',
    'How long requests took that were not complete at once',
    ({ activity }) => waitsOf(activity.reactors),
  ),
  counter('atoll_request_errors_total', 'Client requests that failed', ({ activity }) =>
    sumOf(activity.reactors, 'errors'),
  ),
  countersBy('direction', 'atoll_io_total', 'Reads and writes of clients', ({ activity }) => ({
    read: sumOf(activity.reactors, 'reads'),
    write: sumOf(activity.reactors, 'writes'),
  })),
  countersBy('direction', 'atoll_io_bytes_total', 'Bytes read and written by clients', ({ activity }) => ({
    read: sumOf(activity.reactors, 'readBytes'),
    write: sumOf(activity.reactors, 'writeBytes'),
  })),
  gauge('atoll_nbd_connections', 'NBD connections', ({ activity }) => activity.nbd.connections),
  gauge(
    'atoll_nbd_requests_in_flight',
    'Requests of NBD clients on their way',
    ({ activity }) => activity.nbd.inFlight,
  ),
  gauge(
    'atoll_nbd_payload_bytes',
    'Payload memory that NBD connections hold',
    ({ activity }) => activity.nbd.bytesHeld,
  ),
  {
    kind: 'counter',
    name: 'atoll_reactor_requests_total',
    help: 'Client requests by the reactor that served them',
    labels: ['reactor'],
    read: ({ activity }) => activity.reactors.map(({ requests }, i) => [{ reactor: String(i) }, requests]),
  },
  counter('atoll_reactor_turns_total', 'Turns of the reactors', ({ activity }) => sumOf(activity.reactors, 'loops')),
  countersBy('outcome', 'atoll_reactor_polls_total', 'Busy polls, by whether work came while they lasted', (source) => {
    const hits = sumOf(source.activity.reactors, 'spinHits');
    return { hit: hits, miss: sumOf(source.activity.reactors, 'spins') - hits };
  }),
  durations('atoll_data_sync_seconds', 'Syncs of pool files', ({ activity }) => activity.dataSyncs.times),
  counter(
    'atoll_data_sync_errors_total',
    'Syncs of pool files that failed',
    ({ activity }) => activity.dataSyncs.errors,
  ),
];
