/**
 * The report as plots, by gnuplot: a panel per row that compares throughput, the same for CPU time, and the paired
 * ratios beside their goals.
 */
import fs from 'node:fs';
import path from 'node:path';
import type { Children } from './children.ts';
import { LIMITS, SERVERS } from './peers/server.ts';
import type { Report, RowResult } from './result.ts';
import { median, spread } from './stats.ts';

/** Atoll, the four peers, the limits in grey, and what else is compared. */
const COLOURS = ['#c2410c', '#1d4ed8', '#60a5fa', '#15803d', '#86efac', '#71717a', '#d4d4d8', '#7c3aed', '#facc15'];
const COLUMNS = 3;
const PANEL_WIDTH = 420;
const PANEL_HEIGHT = 300;

/** Writes NAME.gp, NAME.png and NAME.svg for each plot that there is data for. @returns the images */
export async function plot(children: Children, report: Report, out: string): Promise<string[]> {
  const compared = report.rows.filter((row) => row.series.length > 1);
  const ratios = report.rows.filter((row) => row.goals.some((goal) => goal.spread !== null));
  const images: string[] = [];
  if (compared.length > 0) {
    images.push(
      ...(await draw(
        children,
        out,
        'values',
        panels(compared, valueBars, (row) => row.unit),
        compared.length,
      )),
    );
    const cpu = compared.filter((row) => cpuBars(row).length > 1);
    const unit = (): string => 'CPU s per million I/Os';
    if (cpu.length > 0) images.push(...(await draw(children, out, 'cpu', panels(cpu, cpuBars, unit), cpu.length)));
  }
  if (ratios.length > 0) images.push(...(await draw(children, out, 'ratios', ratioPlot(ratios), 1)));
  return images;
}

interface Bar {
  name: string;
  value: number;
  min: number;
  max: number;
}

function valueBars(row: RowResult): Bar[] {
  return row.series.map(({ name, samples }) => {
    const { median: value, min, max } = spread(samples.map((sample) => sample.value));
    return { name, value, min, max };
  });
}

function cpuBars(row: RowResult): Bar[] {
  return row.series.flatMap(({ name, samples }) => {
    const values = samples.flatMap((sample) => (sample.cpuPerMillion === null ? [] : [sample.cpuPerMillion]));
    return values.length > 0
      ? [{ name, value: median(values), min: Math.min(...values), max: Math.max(...values) }]
      : [];
  });
}

/** One panel per row, a bar per contender, whiskers from the smallest to the largest round. */
function panels(rows: RowResult[], barsOf: (row: RowResult) => Bar[], unitOf: (row: RowResult) => string): string {
  const lines = [`set multiplot layout ${Math.ceil(rows.length / COLUMNS)},${Math.min(COLUMNS, rows.length)}`];
  lines.push('set style fill solid 0.9', 'set boxwidth 0.7', 'unset key', 'set grid ytics lc rgb "#dddddd"');
  lines.push(
    'set xtics rotate by -25 font ",8" nomirror',
    'set yrange [0:*]',
    'set format y "%.1s%c"',
    'set bmargin 5',
  );
  rows.forEach((row, index) => {
    const bars = barsOf(row);
    lines.push(`$panel${index} << EOD`);
    bars.forEach((bar, i) => {
      lines.push(`${i} ${bar.value} ${bar.min} ${bar.max} ${colour(bar.name)} "${quoted(bar.name)}"`);
    });
    lines.push('EOD');
    // 40k for thousands, but no 500m for halves.
    lines.push(`set format y "${Math.max(...bars.map((bar) => bar.max)) >= 1000 ? '%.0s%c' : '%g'}"`);
    lines.push(`set title "${quoted(row.title)}" font ",9"`, `set ylabel "${quoted(unitOf(row))}" font ",8"`);
    lines.push(
      `plot $panel${index} using 1:2:5:xtic(6) with boxes lc rgb variable, ` +
        `$panel${index} using 1:2:3:4 with yerrorbars lc rgb "#111111" ps 0`,
    );
  });
  lines.push('unset multiplot');
  return lines.join('\n');
}

/** The servers have the same colour in every plot; what else comes gets the next one. */
const coloured: string[] = [...SERVERS, ...LIMITS];

function colour(name: string): string {
  let index = coloured.indexOf(name);
  if (index < 0) index = coloured.push(name) - 1;
  return `0x${COLOURS[index % COLOURS.length]!.slice(1)}`;
}

/** Ratios on a logarithmic scale, and the goal of each as a tick across. */
function ratioPlot(rows: RowResult[]): string {
  const goals = rows.flatMap((row) =>
    row.goals.flatMap((goal) => (goal.spread ? [{ row, goal, ratio: goal.spread }] : [])),
  );
  const lines = ['$ratios << EOD'];
  goals.forEach(({ row, goal, ratio }, i) => {
    lines.push(`${i} ${ratio.median} ${ratio.min} ${ratio.max} ${goal.bound} "${quoted(`${row.id} ${goal.text}`)}"`);
  });
  lines.push(
    'EOD',
    'set logscale y 2',
    'set grid ytics lc rgb "#dddddd"',
    'set xtics rotate by -35 font ",8" nomirror',
  );
  lines.push(
    `set xrange [-0.7:${goals.length - 0.3}]`,
    'set ylabel "ratio, same round"',
    'set bmargin 9',
    'set rmargin 26',
  );
  lines.push(
    `plot $ratios using 1:2:3:4:xtic(6) with yerrorbars pt 7 lc rgb "${COLOURS[0]}" title "Atoll / peer, median and spread", ` +
      `$ratios using 1:5 with points pt 9 ps 1.4 lc rgb "#111111" title "goal"`,
  );
  return lines.join('\n');
}

function quoted(text: string): string {
  return text.replaceAll('\\', '').replaceAll('"', "'").replaceAll('@', ' ').replaceAll('_', ' ');
}

export async function draw(
  children: Children,
  out: string,
  name: string,
  body: string,
  count: number,
): Promise<string[]> {
  const width = count === 1 ? 900 : Math.min(COLUMNS, count) * PANEL_WIDTH;
  const height = count === 1 ? 520 : Math.ceil(count / COLUMNS) * PANEL_HEIGHT;
  const images = [path.join(out, `${name}.png`), path.join(out, `${name}.svg`)];
  const script = images.map((image) => {
    const terminal = image.endsWith('.png') ? 'pngcairo' : 'svg';
    return `reset\nset encoding utf8\nset terminal ${terminal} size ${width},${height} font "sans,10"\nset output "${image}"\n${body}\nunset output\n`;
  });
  const file = path.join(out, `${name}.gp`);
  fs.writeFileSync(file, script.join('\n'));
  await children.run('gnuplot', [file]);
  return images;
}
