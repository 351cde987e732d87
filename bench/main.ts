/**
 * Measures Atoll beside what people use today, in one run, and writes down what came out: report.json, report.md and
 * plots. docs/benchmarks.md says what the rows are and why.
 */
import fs from 'node:fs';
import path from 'node:path';
import { Bench, Skipped } from './bench.ts';
import { type Options, parseOptions, USAGE, UsageError } from './options.ts';
import { plot } from './plot.ts';
import { fileSystemOf, machine } from './proc.ts';
import { markdown } from './report.ts';
import type { Report } from './result.ts';
import { ROWS } from './rows/all.ts';

async function main(): Promise<number> {
  let options: Options;
  try {
    options = parseOptions(process.argv.slice(2), process.env);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(error.message ? `bench: ${error.message}\n\n${USAGE}` : USAGE);
    return error.message ? 2 : 0;
  }
  if (options.list) {
    process.stdout.write(`${ROWS.flatMap((row) => row.ids).join('\n')}\n`);
    return 0;
  }
  const wanted = (id: string): boolean => options.only === null || options.only.test(id);
  const rows = ROWS.filter((row) => row.ids.some(wanted));
  if (rows.length === 0) {
    process.stderr.write(`bench: no row matches --only ${options.only?.source}; see --list\n`);
    return 2;
  }
  const bench = new Bench(options);
  if (fileSystemOf(bench.dir) === 'tmpfs') {
    process.stderr.write(
      `bench: ${options.dir} is tmpfs, where a flush costs nothing; give a folder on a disk with --dir or $ATOLL_BENCH_DIR\n`,
    );
    await bench.end();
    return 2;
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      bench.abandon();
      process.exit(128 + (signal === 'SIGINT' ? 2 : signal === 'SIGTERM' ? 15 : 1));
    });
  }
  process.once('exit', () => bench.children.killAll());

  const started = Date.now();
  const report: Report = {
    startedAt: new Date(started).toISOString(),
    seconds: 0,
    rounds: options.rounds,
    runtimeSeconds: options.runtimeSeconds,
    machine: machine(bench.dir),
    rows: [],
    failures: [],
  };
  fs.mkdirSync(options.out, { recursive: true });
  const write = (): void => {
    report.seconds = (Date.now() - started) / 1000;
    fs.writeFileSync(path.join(options.out, 'report.json'), `${JSON.stringify(report, null, 2)}\n`);
    fs.writeFileSync(path.join(options.out, 'report.md'), markdown(report));
  };
  for (const row of rows) {
    const ids = row.ids.filter(wanted);
    const done = new Set<string>();
    try {
      for await (const result of row.run(bench, wanted)) {
        report.rows.push(result);
        done.add(result.id);
        // After every row: an hour's run that is broken off keeps what it had.
        write();
      }
    } catch (error) {
      const cause = error instanceof Error ? error.message : String(error);
      if (!(error instanceof Skipped)) bench.say(`  failed: ${error instanceof Error ? error.stack : cause}`);
      for (const line of bench.postMortem()) bench.say(`  ${line}`);
      for (const id of ids.filter((one) => !done.has(one))) report.failures.push({ id, title: id, error: cause });
      write();
    }
  }
  try {
    await plot(bench.children, report, options.out);
  } catch (error) {
    bench.say(`no plots: ${(error as Error).message}`);
  }
  await bench.end();
  process.stdout.write(fs.readFileSync(path.join(options.out, 'report.md'), 'utf8'));
  process.stderr.write(`report, data and plots: ${options.out}\n`);
  return report.failures.length > 0 ? 1 : 0;
}

process.exitCode = await main();
