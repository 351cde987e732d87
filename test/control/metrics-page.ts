/** Reads the Prometheus text format strictly: what a scraper would refuse is an error here. */

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

export interface Family {
  name: string;
  type: string;
  help: string;
  samples: Sample[];
}

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)/y;

export function parsePage(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  const families = new Map<string, Family>();
  let current: Family | null = null;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const help = /^# HELP (\S+) (.+)$/.exec(line);
    const type = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line);
    if (help) {
      current = { name: help[1]!, help: help[2]!, type: '', samples: [] };
      if (families.has(current.name)) throw new Error(`${current.name} is there twice`);
      families.set(current.name, current);
    } else if (type && current?.name === type[1]) {
      current.type = type[2]!;
    } else {
      const sample = sampleOf(line);
      if (!current || baseOf(sample.name, current.type) !== current.name) throw new Error(`out of place: ${line}`);
      current.samples.push(sample);
    }
  }
  for (const family of families.values()) check(family);
  return families;
}

function baseOf(name: string, type: string): string {
  return type === 'histogram' ? name.replace(/_(bucket|sum|count)$/, '') : name;
}

function sampleOf(line: string): Sample {
  const match = SAMPLE.exec(line);
  if (!match) throw new Error(`no sample: ${line}`);
  const labels: Record<string, string> = {};
  const text = match[2] ?? '';
  for (LABEL.lastIndex = 0; LABEL.lastIndex < text.length; ) {
    const label = LABEL.exec(text);
    if (!label) throw new Error(`labels of ${line}`);
    labels[label[1]!] = label[2]!.replace(/\\(.)/g, (_, one: string) => (one === 'n' ? '\n' : one));
  }
  const value = match[3] === '+Inf' ? Number.POSITIVE_INFINITY : Number(match[3]);
  if (Number.isNaN(value)) throw new Error(`no number: ${line}`);
  return { name: match[1]!, labels, value };
}

/** No series twice; counters and buckets are not negative; buckets grow up to +Inf, which is the count. */
function check(family: Family): void {
  const seen = new Set<string>();
  for (const { name, labels, value } of family.samples) {
    const key = seriesKey(name, labels);
    if (seen.has(key)) throw new Error(`${key} is there twice`);
    seen.add(key);
    if (family.type !== 'gauge' && !(value >= 0)) throw new Error(`${key} is ${value}`);
  }
  if (family.type !== 'histogram') return;
  const ends = new Map<string, { le: number; value: number }>();
  for (const { name, labels, value } of family.samples) {
    const { le, ...rest } = labels;
    const key = seriesKey('', rest);
    if (name.endsWith('_bucket')) {
      const before = ends.get(key);
      const bound = le === '+Inf' ? Number.POSITIVE_INFINITY : Number(le);
      if (before && (before.le >= bound || before.value > value))
        throw new Error(`${family.name} ${key}: buckets shrink`);
      ends.set(key, { le: bound, value });
    } else if (name.endsWith('_count')) {
      const end = ends.get(key);
      if (end?.le !== Number.POSITIVE_INFINITY || end.value !== value)
        throw new Error(`${family.name} ${key}: count is not the last bucket`);
    }
  }
}

function seriesKey(name: string, labels: Record<string, string>): string {
  return `${name}${JSON.stringify(Object.entries(labels).sort())}`;
}

/** The value of one sample; the labels given have to be all it has. */
export function sampleValue(families: Map<string, Family>, name: string, labels: Record<string, string> = {}): number {
  const value = sampleOr(families, name, labels);
  if (value === undefined) throw new Error(`there is no ${name} ${JSON.stringify(labels)}`);
  return value;
}

/** The same; undefined when there is none. */
export function sampleOr(
  families: Map<string, Family>,
  name: string,
  labels: Record<string, string>,
): number | undefined {
  for (const family of families.values()) {
    for (const sample of family.samples) {
      if (sample.name === name && seriesKey('', sample.labels) === seriesKey('', labels)) return sample.value;
    }
  }
  return undefined;
}
