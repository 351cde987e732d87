/** Where users are served, and what they reach that by. */
import { describe, expect, it } from 'vitest';
import { parseHttpAddress, parsePublicUrl } from '../../src/control/serve/addresses.ts';

const code = (run: () => unknown) => {
  try {
    run();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return 'none';
};

describe('--http', () => {
  it.each([
    ['127.0.0.1:8780', { host: '127.0.0.1', port: 8780 }],
    ['localhost:65535', { host: '127.0.0.1', port: 65535 }],
    ['0.0.0.0:80', { host: '0.0.0.0', port: 80 }],
    ['[::1]:0', { host: '::1', port: 0 }],
    [`${'h'.repeat(253)}:1`, { host: 'h'.repeat(253), port: 1 }],
    ['none', null],
  ])('%s', (text, address) => {
    expect(parseHttpAddress(text)).toEqual(address);
  });

  it.each([
    '',
    '8780',
    ':8780',
    '127.0.0.1',
    '127.0.0.1:65536',
    'http://127.0.0.1:1',
    'unix:/x',
    `${'h'.repeat(254)}:1`,
    'None',
  ])('%j is refused', (text) => {
    expect(code(() => parseHttpAddress(text))).toBe('INVALID');
  });
});

describe('--public-url', () => {
  it.each([
    ['https://cloud.example.org', 'https://cloud.example.org'],
    ['https://cloud.example.org/', 'https://cloud.example.org'],
    ['http://10.0.0.1:8780/atoll/', 'http://10.0.0.1:8780/atoll'],
  ])('%s', (text, url) => {
    expect(parsePublicUrl(text)).toBe(url);
  });

  it.each([
    '',
    'cloud.example.org',
    'ftp://x',
    'https://a:b@x',
    'https://x?y',
    'https://x#y',
    'https://x?',
    'https://x/#',
    `https://x/${'y'.repeat(1024)}`,
  ])('%j is refused', (text) => {
    expect(code(() => parsePublicUrl(text))).toBe('INVALID');
  });
});
