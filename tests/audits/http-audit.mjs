// Runs every audit of graphql-http (MUST, SHOULD and MAY) against a server that is up.
// node http-audit.mjs URL [--json]
// Exit code: 0 if all are ok, 1 if any is not, 2 if there is nothing to ask.
import { parseArgs } from 'node:util';
import { serverAudits } from 'graphql-http';

function usage(message) {
  console.error(`${message}\nusage: node http-audit.mjs URL [--json]`);
  process.exit(2);
}

function options() {
  try {
    const { values, positionals } = parseArgs({ options: { json: { type: 'boolean' } }, allowPositionals: true });
    return { url: positionals[0], json: values.json };
  } catch (error) {
    return usage(error.message);
  }
}

async function run(audit) {
  const result = await audit.fn();
  const { id, name } = audit;
  if (result.status === 'ok') return { id, name, status: 'ok' };
  const { status, reason, response } = result;
  return { id, name, status, reason, http: response?.status, contentType: response?.headers.get('content-type') };
}

const { url, json } = options();
if (!URL.canParse(url ?? '')) usage(url ? `not a URL: ${url}` : 'which server?');

const results = [];
try {
  // One after another: the server's log then reads in the order of the audits.
  for (const audit of serverAudits({ url })) results.push(await run(audit));
} catch (error) {
  usage(`${url} does not answer: ${error.cause?.message || error.cause?.code || error.message}`);
}

const failed = results.filter(({ status }) => status !== 'ok');
if (json) {
  console.log(JSON.stringify({ url, passed: results.length - failed.length, failed: failed.length, results }, null, 2));
} else {
  for (const { id, name, reason, http, contentType } of failed) {
    console.log(`${id} ${name}: ${reason} (HTTP ${http}, ${contentType})`);
  }
  console.log(`${results.length - failed.length} passed, ${failed.length} failed`);
}
process.exitCode = failed.length ? 1 : 0;
