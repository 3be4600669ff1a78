// A connection of tedious: every step of a scenario in the driver's own way.

import { readFileSync } from 'node:fs';
import { Connection, Request, TYPES } from 'tedious';
import { Rows, madeRows } from './values.mjs';

// Longest login and longest answer, in milliseconds.
const PATIENCE = 60_000;

export class Unsupported extends Error {}

const PARAMETERS = {
  int: [TYPES.Int],
  bigint: [TYPES.BigInt],
  bit: [TYPES.Bit],
  nvarchar: [TYPES.NVarChar],
  varbinary: [TYPES.VarBinary, {}, (hex) => Buffer.from(hex, 'hex')],
  decimal: [TYPES.Decimal, { precision: 18, scale: 4 }, Number],
  datetime2: [TYPES.DateTime2, { scale: 7 }, (text) => new Date(`${text}Z`)],
  float: [TYPES.Float],
  date: [TYPES.Date, {}, (text) => new Date(`${text}T00:00:00Z`)],
  uniqueidentifier: [TYPES.UniqueIdentifier],
};

const COLUMNS = {
  id: [TYPES.Int, { nullable: false }],
  name: [TYPES.NVarChar, { nullable: false, length: 40 }],
  amount: [TYPES.Decimal, { nullable: false, precision: 10, scale: 2 }],
  note: [TYPES.NVarChar, { nullable: true, length: 20 }],
  data: [TYPES.VarBinary, { nullable: true, length: 8 }],
};

const given = (type, value) => {
  const [, , convert] = PARAMETERS[type];
  return value === null || !convert ? value : convert(value);
};

const marked = (sql) => sql.replaceAll(/\{(\d+)\}/g, '@p$1');

export const described = (error) => ({
  number: typeof error.number === 'number' ? error.number : 0,
  state: error.state ?? 0,
  class: error.class ?? 0,
  message: String(error.message ?? error),
});

const encryption = (options) => {
  const ca = readFileSync(options.ca, 'utf8');
  const verified = { cryptoCredentialsDetails: { ca }, trustServerCertificate: false };
  switch (options.encryption) {
    case 'none':
      return { encrypt: false, trustServerCertificate: true };
    case 'on':
      return { encrypt: true, trustServerCertificate: true };
    case 'required':
      return { encrypt: true, ...verified };
    case 'strict':
      return { encrypt: 'strict', ...verified };
    default:
      throw new Unsupported('the driver does not encrypt the login alone');
  }
};

export class Session {
  static async open(options) {
    const session = new Session();
    await session.connect(options);
    return session;
  }

  connect(options) {
    this.errors = [];
    this.connection = new Connection({
      server: options.host,
      authentication: { type: 'default', options: { userName: options.user, password: options.password } },
      options: {
        port: Number(options.port),
        database: options.database,
        connectTimeout: PATIENCE,
        requestTimeout: PATIENCE,
        cancelTimeout: PATIENCE,
        maxRetriesOnTransientErrors: 0,
        rowCollectionOnRequestCompletion: false,
        useColumnNames: false,
        ...encryption(options),
      },
    });
    this.connection.on('errorMessage', (info) => this.errors.push(described(info)));
    this.connection.on('error', (error) => (this.fault = error));
    // A stream that tedious cannot read ends the connection, and the request is never called back.
    this.ended = new Promise((resolve) => this.connection.on('end', resolve));
    return this.done((then) => this.connection.connect(then), true);
  }

  close() {
    this.connection.close();
    return this.ended;
  }

  // One step; an error if the connection ends before it does.
  step(step) {
    const ended = this.ended.then(() => {
      throw this.fault ?? new Error('the connection ended');
    });
    // It ends after the last step as well, when nobody waits for this any more.
    ended.catch(() => {});
    return Promise.race([this[`do_${step.do}`](step), ended]);
  }

  // The errors that the server sent since the last time; else the driver's own.
  taken(error) {
    const errors = this.errors;
    this.errors = [];
    if (error && errors.length === 0) errors.push(described(error.cause ?? error));
    return errors;
  }

  done(start, must = false) {
    return new Promise((resolve, reject) => {
      start((error) => {
        if (error && must) reject(error);
        else resolve({ errors: this.taken(error) });
      });
    });
  }

  // A request that gathers its result sets, and what it came to.
  request(sql, finished) {
    const sets = [];
    const request = new Request(sql, (error, affected) => {
      const told = { sets: sets.map((rows) => rows.answer()), errors: this.taken(error) };
      if (affected !== undefined) told.affected = affected;
      finished(told, request);
    });
    request.on('columnMetadata', (columns) => sets.push(new Rows(columns.map((column) => column.colName))));
    request.on('row', (row) => sets[sets.length - 1].add(row));
    return request;
  }

  do_batch(step) {
    return new Promise((resolve) => this.connection.execSqlBatch(this.request(step.sql, resolve)));
  }

  do_query(step) {
    return new Promise((resolve) => {
      const request = this.request(marked(step.sql), resolve);
      step.params.forEach(({ type, value }, at) => {
        const [kind, details] = PARAMETERS[type];
        request.addParameter(`p${at + 1}`, kind, given(type, value), details);
      });
      this.connection.execSql(request);
    });
  }

  async do_prepared(step) {
    const replies = [];
    const request = this.request(marked(step.sql), () => {});
    step.types.forEach((type, at) => request.addParameter(`p${at + 1}`, PARAMETERS[type][0], undefined, PARAMETERS[type][1]));
    await new Promise((resolve, reject) => {
      request.on('prepared', resolve);
      request.on('error', reject);
      this.connection.prepare(request);
    });
    for (const run of step.runs) {
      const values = Object.fromEntries(run.map((value, at) => [`p${at + 1}`, given(step.types[at], value)]));
      replies.push(await this.execute(request, values));
    }
    await new Promise((resolve) => {
      request.callback = resolve;
      this.connection.unprepare(request);
    });
    return { runs: replies };
  }

  // One execution of what was prepared; the request keeps its listeners, so each run has its own.
  execute(request, values) {
    return new Promise((resolve) => {
      const gathered = this.request('', (told) => resolve(told));
      request.removeAllListeners('columnMetadata');
      request.removeAllListeners('row');
      request.on('columnMetadata', (columns) => gathered.emit('columnMetadata', columns));
      request.on('row', (row) => gathered.emit('row', row));
      request.callback = (error, affected) => gathered.userCallback(error, affected);
      request.error = undefined;
      this.connection.execute(request, values);
    });
  }

  do_begin() {
    return this.done((then) => this.connection.beginTransaction(then));
  }

  do_commit() {
    return this.done((then) => this.connection.commitTransaction(then));
  }

  do_rollback() {
    return this.done((then) => this.connection.rollbackTransaction(then));
  }

  do_cancel(step) {
    return new Promise((resolve) => {
      let rows = 0;
      const request = new Request(step.sql, (error) => {
        this.taken(error);
        resolve({ cancelled: error?.code === 'ECANCEL' });
      });
      request.on('row', () => {
        rows += 1;
        if (rows === step.after) this.connection.cancel();
      });
      this.connection.execSqlBatch(request);
    });
  }

  do_bulk(step) {
    return new Promise((resolve) => {
      const load = this.connection.newBulkLoad(step.table, (error, affected) => {
        const errors = this.taken(error);
        resolve(errors.length ? { errors } : { errors, affected });
      });
      for (const name of step.columns) load.addColumn(name, ...COLUMNS[name]);
      this.connection.execBulkLoad(load, madeRows(step.columns, step.rows));
    });
  }

  do_mars() {
    throw new Unsupported('the driver has no MARS');
  }

  do_tvp(step) {
    return new Promise((resolve) => {
      const request = this.request(marked(step.sql), resolve);
      const columns = step.columns.map((name) => ({ name, type: COLUMNS[name][0], ...COLUMNS[name][1] }));
      request.addParameter('p1', TYPES.TVP, { name: step.type, columns, rows: madeRows(step.columns, step.rows) });
      this.connection.execSql(request);
    });
  }

  do_cursor() {
    throw new Unsupported('the driver has no server cursors');
  }
}
