// The one written form of every value (../../README.md), and the generated rows of bulk loads and table parameters.

import { createHash } from 'node:crypto';

// Longest written form of a text or binary that stands in the answer itself.
const LONGEST = 300;
// Rows that stand in the answer; of larger sets only a digest.
const ROWS_SHOWN = 50;

const sha256 = (data) => createHash('sha256').update(data).digest('hex');
const two = (number) => String(number).padStart(2, '0');

// tedious hands dates over as JavaScript's, in UTC, with the rest of a fraction beside them.
const fraction = (value) => {
  const nanos = Math.round((value.nanosecondsDelta ?? 0) * 1e9);
  const digits = String(value.getUTCMilliseconds() * 1e6 + nanos).padStart(9, '0').replace(/0+$/, '');
  return digits ? `.${digits}` : '';
};
const day = (value) => `${String(value.getUTCFullYear()).padStart(4, '0')}-${two(value.getUTCMonth() + 1)}-${two(value.getUTCDate())}`;
const clock = (value) =>
  `${two(value.getUTCHours())}:${two(value.getUTCMinutes())}:${two(value.getUTCSeconds())}${fraction(value)}`;

const moment = (value, type) => {
  if (type === 'Date') return `d:${day(value)}`;
  if (type === 'Time') return `t:${clock(value)}`;
  const text = `${day(value)}T${clock(value)}`;
  // The offset of a datetimeoffset is lost in a Date: what is left is the moment in UTC.
  return type === 'DateTimeOffset' ? `o:${text}+00:00` : `m:${text}`;
};

const double = (value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(value);
  return `f:${bytes.toString('hex')}`;
};

// A value of a column of this type; tedious tells all numbers as doubles, and bigints as text.
export const written = (value, type) => {
  if (value === null || value === undefined) return null;
  if (typeof value === 'boolean') return value;
  if (typeof value === 'number') {
    return /^(Int|TinyInt|SmallInt|IntN|BigInt)$/.test(type) ? `i:${value}` : double(value);
  }
  if (typeof value === 'bigint') return `i:${value}`;
  if (value instanceof Date) return moment(value, type);
  if (Buffer.isBuffer(value)) {
    return value.length * 2 > LONGEST ? `b#${value.length}:${sha256(value)}` : `b:${value.toString('hex')}`;
  }
  const text = String(value);
  if (type === 'UniqueIdentifier') return `g:${text.toLowerCase()}`;
  return text.length > LONGEST ? `s#${text.length}:${sha256(text)}` : `s:${text}`;
};

// One result set as it grows.
export class Rows {
  constructor(columns) {
    this.columns = columns;
    this.count = 0;
    this.shown = [];
    this.hash = createHash('sha256');
  }

  add(row) {
    const line = row.map((column) => written(column.value, column.metadata.type.name));
    this.count += 1;
    if (this.count <= ROWS_SHOWN + 1) this.shown.push(line);
    this.hash.update(JSON.stringify(line));
  }

  answer() {
    const told = { columns: this.columns, rows: this.count };
    if (this.count <= ROWS_SHOWN) told.values = this.shown;
    else told.digest = this.hash.digest('hex');
    return told;
  }
}

const bytesOf = (number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(number);
  return bytes;
};

// What each column of a generated row holds is told by its name.
const MAKERS = {
  id: (i) => i,
  name: (i) => `name-${i}`,
  amount: (i) => i + 0.25,
  note: (i) => (i % 3 === 0 ? null : `ä${i}`),
  data: (i) => (i % 5 === 0 ? null : bytesOf(i)),
};

export const madeRows = (columns, count) =>
  Array.from({ length: count }, (_, at) => columns.map((name) => MAKERS[name](at + 1)));
