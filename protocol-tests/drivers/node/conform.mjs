// Runs the scenarios of the conformance suite through tedious; the contract is in ../README.md.

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { Session, Unsupported, described } from './conformance/session.mjs';

const names = ['host', 'port', 'user', 'password', 'database', 'encryption', 'ca', 'tag', 'file', 'scenarios'];
const { values: options } = parseArgs({ options: Object.fromEntries(names.map((name) => [name, { type: 'string' }])) });

const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const input = createInterface({ input: process.stdin });
const lines = input[Symbol.asyncIterator]();

const filled = (step) => JSON.parse(JSON.stringify(step).replaceAll('{tag}', options.tag));

const play = async (scenario) => {
  const told = { scenario: scenario.name, ok: false, result: [], error: null };
  let session;
  try {
    session = await Session.open(options);
    for (const step of scenario.steps.map(filled)) {
      if (step.do === 'await') {
        tell({ await: step.what });
        await lines.next();
        told.result.push({});
      } else {
        told.result.push(await session.step(step));
      }
    }
    told.ok = true;
  } catch (error) {
    if (error instanceof Unsupported) {
      Object.assign(told, { result: null, unsupported: error.message });
    } else {
      console.error(error);
      told.error = described(error.cause ?? error);
    }
  }
  await session?.close();
  return told;
};

const { scenarios } = JSON.parse(readFileSync(options.file, 'utf8'));
for (const name of options.scenarios.split(',')) {
  tell(await play(scenarios.find((scenario) => scenario.name === name)));
}
process.exit(0);
