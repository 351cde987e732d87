/** The formats that files of imports and exports have. */
export type SourceFormat = 'raw' | 'qcow2' | 'stream';
export const SOURCE_FORMATS: readonly SourceFormat[] = ['raw', 'qcow2', 'stream'];
