/**
 * The report as Markdown: what was measured, what was aimed at, and where it was missed.
 */
import { LIMITS, SERVERS } from './peers/server.ts';
import { type Goal, type Report, type RowResult, type Sample, valuesOf } from './result.ts';
import { median, spread } from './stats.ts';

const LIMITS_SAY =
  '_limit probe_ and _client limit_ are no peers and have no goals: a program with nothing of what makes a storage ' +
  'server, which shows what the socket and the client allow plain calls; the second does not even touch a file. ' +
  'Neither is an upper bound for a server that sleeps, copies or shares its work otherwise.';

export function markdown(report: Report): string {
  const goals = report.rows.flatMap((row) => row.goals.map((goal) => ({ row, goal })));
  const missed = goals.filter(({ goal }) => !goal.pass);
  const lines = [
    `# Benchmark of ${report.startedAt}`,
    '',
    `${report.rounds} rounds of ${report.runtimeSeconds} s per measurement, contenders interleaved, the order rotated each round;`,
    'medians, and the median of the ratios of the same round with their smallest and largest.',
    `${Object.entries(report.machine)
      .map(([name, value]) => `${name}: ${value}`)
      .join('; ')}. It took ${Math.round(report.seconds / 60)} minutes.`,
    '',
    `**${goals.length - missed.length} of ${goals.length} goals met.**`,
    ...missed.map(({ row, goal }) => `- MISS \`${row.id}\`: ${goal.text}, it is ${number(goal.value)} ${goal.unit}`),
    ...report.failures.map((failure) => `- NOT MEASURED \`${failure.id}\`: ${failure.error}`),
    '',
  ];
  const compared = report.rows.filter((row) => row.series.length > 0);
  if (compared.length > 0) lines.push('## Compared', '');
  for (const rows of groups(compared)) lines.push(...comparedTable(rows), '');
  if (seriesNames(compared).some((name) => LIMITS.includes(name))) lines.push(LIMITS_SAY, '');
  const cpu = compared.filter((row) => row.series.some((one) => one.samples.some((s) => s.cpuPerMillion !== null)));
  if (cpu.length > 0) lines.push('## CPU seconds of the server per million I/Os', '');
  for (const rows of groups(cpu)) lines.push(...sampleTable(rows, (sample) => sample.cpuPerMillion), '');
  const client = compared.filter((row) =>
    row.series.some((one) => one.samples.some((s) => s.clientCores !== undefined)),
  );
  if (client.length > 0) {
    lines.push(
      '## Cores that fio was busy on',
      '',
      'Where it is near the number of connections, or the machine has no more cores, fio was the limit.',
      '',
    );
  }
  for (const rows of groups(client)) lines.push(...sampleTable(rows, (sample) => sample.clientCores ?? null), '');
  const goalRows = report.rows.filter((row) => row.goals.length > 0);
  if (goalRows.length > 0) lines.push('## Goals', '', ...goalTable(goalRows), '');
  lines.push('## Further numbers', '');
  for (const row of report.rows) lines.push(...details(row));
  return `${lines.join('\n').trimEnd()}\n`;
}

/** Rows that share contenders share a table: those of the five servers, and the others by themselves. */
function groups(rows: readonly RowResult[]): RowResult[][] {
  const found = new Map<string, RowResult[]>();
  for (const row of rows) {
    const names = row.series.map((series) => series.name);
    const key = names.every((name) => SERVERS.includes(name) || LIMITS.includes(name)) ? 'servers' : names.join();
    const group = found.get(key);
    if (group) group.push(row);
    else found.set(key, [row]);
  }
  return [...found.values()];
}

function seriesNames(rows: readonly RowResult[]): string[] {
  return [...new Set(rows.flatMap((row) => row.series.map((series) => series.name)))];
}

/** What is no peer stands out. */
function heading(name: string): string {
  return LIMITS.includes(name) ? `_${name}_` : name;
}

function table(head: readonly string[], body: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map((_, i) => (i === 0 ? '---' : '---:'))), ...body.map(line)];
}

function comparedTable(rows: readonly RowResult[]): string[] {
  const names = seriesNames(rows);
  const body = rows.map((row) => [
    row.title,
    row.unit,
    ...names.map((name) => {
      const values = valuesOf(row, name);
      if (!values) return '–';
      const { median: middle, min, max } = spread(values);
      return `${number(middle)} (${number(min)}–${number(max)})`;
    }),
  ]);
  return table(['work', 'unit', ...names.map(heading)], body);
}

function sampleTable(rows: readonly RowResult[], read: (sample: Sample) => number | null): string[] {
  const names = seriesNames(rows);
  const body = rows.map((row) => [
    row.title,
    ...names.map((name) => {
      const samples = row.series.find((series) => series.name === name)?.samples ?? [];
      const values = samples.map(read).filter((value) => value !== null);
      return values.length > 0 ? number(median(values)) : '–';
    }),
  ]);
  return table(['work', ...names.map(heading)], body);
}

function goalTable(rows: readonly RowResult[]): string[] {
  const body = rows.flatMap((row) => row.goals.map((goal) => [row.title, goal.text, measured(goal), verdict(goal)]));
  return table(['work', 'goal', 'measured', ''], body);
}

function measured(goal: Goal): string {
  const value = `${number(goal.value)} ${goal.unit}`;
  return goal.spread ? `${value} (${number(goal.spread.min)}–${number(goal.spread.max)})` : value;
}

function verdict(goal: Goal): string {
  return goal.pass ? 'pass' : '**MISS**';
}

function details(row: RowResult): string[] {
  const facts = Object.entries(row.facts).map(([name, value]) => `${name.replaceAll('_', ' ')}: ${number(value)}`);
  const latencies = row.latencies.map(
    ({ name, p50, p99, max, count, unit }) =>
      `${name}: p50 ${number(p50)} ${unit}, p99 ${number(p99)} ${unit}, longest ${number(max)} ${unit}, of ${count}`,
  );
  const lines = [...latencies, ...facts, ...row.notes];
  return lines.length > 0 ? [`- \`${row.id}\` ${row.title}`, ...lines.map((line) => `  - ${line}`)] : [];
}

/** Three digits that matter, and no more. */
export function number(value: number): string {
  const size = Math.abs(value);
  if (size >= 10_000) return `${(value / 1000).toFixed(size >= 100_000 ? 0 : 1)}k`;
  if (size >= 100 || Number.isInteger(value)) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return value.toFixed(2);
}
