/** Metrics of the process, and of its log. */
import { counter, countersBy, type Definition, gauge } from './definition.ts';

export const DAEMON: readonly Definition[] = [
  {
    kind: 'gauge',
    name: 'atoll_build_info',
    help: '1; the labels say what runs',
    labels: ['version', 'node'],
    read: ({ status }) => [[{ version: status.version, node: process.versions.node }, 1]],
  },
  gauge('atoll_uptime_seconds', 'Since the engine was opened', ({ activity }) => activity.uptimeSeconds),
  countersBy('level', 'atoll_log_lines_total', 'Warnings and errors in the log', ({ log }) => ({
    warn: log.warn,
    error: log.error,
  })),
  counter('process_cpu_seconds_total', 'User and system time of all threads', (source) => source.process.cpuSeconds),
  gauge('process_resident_memory_bytes', 'Resident memory', (source) => source.process.residentBytes),
  gauge('process_open_fds', 'Open file descriptors', (source) => source.process.openDescriptors),
  gauge('process_start_time_seconds', 'Start of the process, Unix time', (source) => source.process.startTime),
];
