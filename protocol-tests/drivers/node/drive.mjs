// Drives tedious for the end-to-end tests: one JSON command per line in, one JSON answer per line out.
//
// Commands carry `seq` (returned in the answer), `do` and `id` (the connection's name). The commands of one connection
// run in order, those of several beside each other.
//   connect  host, port, user, password, database, encrypt (false | true | "strict"), login_timeout (s), timeout (s)
//   query    sql, [how: "batch" | "sql" | "prepared"], [parameters], [keep]: answers {sets: [{columns, rows, first}],
//            rows, errors}; `first` holds the first `keep` rows as strings, 5 unless told
//   begin, commit, rollback, reset, close
// An error of the server is {number, state, class, message}; one of the driver's own has number 0.

import { createInterface } from 'node:readline';
import { Connection, Request, TYPES } from 'tedious';

const KEEP = 5;
const sessions = new Map();

const answer = (seq, body) => process.stdout.write(JSON.stringify({ seq, ...body }) + '\n');

const describe = (error) => ({
  number: typeof error.number === 'number' ? error.number : 0,
  state: error.state ?? 0,
  class: error.class ?? 0,
  message: String(error.message ?? error),
});

// A value as pymssql's str() would show it as far as the tests compare: dates are not compared between drivers.
const text = (value) => (value === null ? null : Buffer.isBuffer(value) ? value.toString('hex') : String(value));

class Session {
  constructor() {
    this.tail = Promise.resolve();
    this.errors = [];
  }

  run(command) {
    this.tail = this.tail.then(async () => {
      try {
        answer(command.seq, await this[`do_${command.do}`](command));
      } catch (error) {
        answer(command.seq, { errors: [describe(error)] });
      }
    });
  }

  do_connect(command) {
    const connection = new Connection({
      server: command.host,
      authentication: { type: 'default', options: { userName: command.user, password: command.password } },
      options: {
        port: command.port,
        database: command.database,
        encrypt: command.encrypt ?? false,
        trustServerCertificate: true,
        connectTimeout: (command.login_timeout ?? 20) * 1000,
        requestTimeout: (command.timeout ?? 300) * 1000,
        cancelTimeout: 10_000,
        packetSize: command.packet_size ?? 4096,
        rowCollectionOnRequestCompletion: false,
        useColumnNames: false,
      },
    });
    this.connection = connection;
    connection.on('errorMessage', (info) => this.errors.push(describe(info)));
    connection.on('error', () => {});
    return new Promise((resolve) => {
      connection.connect((error) => resolve({ errors: this.taken(error) }));
    });
  }

  // The errors that the server sent since the last time; else the driver's own.
  taken(error) {
    const errors = this.errors;
    this.errors = [];
    if (error && errors.length === 0) {
      errors.push(describe(error.cause ?? error));
    }
    return errors;
  }

  do_query(command) {
    const keep = command.keep ?? KEEP;
    const sets = [];
    return new Promise((resolve) => {
      let prepared = false;
      const request = new Request(command.sql, (error) => {
        if (command.how === 'prepared' && prepared) {
          prepared = false;
          const errors = this.taken(error);
          request.callback = () => resolve({ sets, rows: sum(sets), errors });
          this.connection.unprepare(request);
          return;
        }
        resolve({ sets, rows: sum(sets), errors: this.taken(error) });
      });
      request.on('columnMetadata', (columns) => {
        sets.push({ columns: columns.map((column) => column.colName), rows: 0, first: [] });
      });
      request.on('row', (row) => {
        const set = sets[sets.length - 1];
        if (set.rows < keep) {
          set.first.push(row.map((column) => text(column.value)));
        }
        set.rows += 1;
      });
      for (const [name, value] of Object.entries(command.parameters ?? {})) {
        const type = typeof value === 'number' ? TYPES.Int : TYPES.NVarChar;
        request.addParameter(name, type, command.how === 'prepared' ? undefined : value);
      }
      if (command.how === 'sql') {
        this.connection.execSql(request);
      } else if (command.how === 'prepared') {
        request.on('prepared', () => {
          prepared = true;
          this.connection.execute(request, command.parameters ?? {});
        });
        this.connection.prepare(request);
      } else {
        this.connection.execSqlBatch(request);
      }
    });
  }

  done(start) {
    return new Promise((resolve) => start((error) => resolve({ errors: this.taken(error) })));
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

  do_reset() {
    return this.done((then) => this.connection.reset(then));
  }

  do_close() {
    this.connection.close();
    return { errors: [] };
  }
}

const sum = (sets) => sets.reduce((total, set) => total + set.rows, 0);

createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line);
  if (command.do === 'connect') {
    sessions.set(command.id, new Session());
  }
  sessions.get(command.id).run(command);
}).on('close', () => process.exit(0));
