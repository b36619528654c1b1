// Runs subscriptions by graphql-ws or graphql-sse against a server that is up, as told by lines of JSON on stdin:
//   {"do": "subscribe", "id", "query", "variables", "resume": "variables" | "Last-Event-ID"}
//   {"do": "stop", "id"}
// and tells in lines of JSON on stdout: {"id", "next"}, {"id", "error"}, {"id", "complete"}; {"connected": how often},
// {"closed": code, "reason"}, {"ping"} and {"pong"} (true: received).
// node client.mjs ws|sse URL [KEEP-ALIVE in ms]
import { createInterface } from 'node:readline';
import { createClient as createSSE } from 'graphql-sse';
import { createClient as createWS } from 'graphql-ws';

const [transport, url, keepAlive = '0'] = process.argv.slice(2);
const stops = new Map();
const lastEventIds = new WeakMap();
let connections = 0;

const tell = (said) => process.stdout.write(`${JSON.stringify(said)}\n`);
const soon = () => new Promise((resolve) => setTimeout(resolve, 50));
const connected = () => tell({ connected: ++connections });

const client =
  transport === 'ws'
    ? createWS({
        url: url.replace(/^http/, 'ws'),
        keepAlive: Number(keepAlive),
        retryAttempts: 100,
        retryWait: soon,
        shouldRetry: () => true, // Else a server that is away for a moment is an error: node tells it by an event of another kind.
        on: {
          connected,
          closed: ({ code, reason }) => tell({ closed: code, reason }),
          ping: (received) => tell({ ping: received }),
          pong: (received) => tell({ pong: received }),
        },
      })
    : createSSE({
        url,
        headers: (request) => (lastEventIds.has(request) ? { 'last-event-id': lastEventIds.get(request) } : {}),
        retryAttempts: 100,
        retry: soon,
        on: { connected },
      });

// What a client does to go on where it was: both libraries send the request anew, as it is then, when they connect again.
function remember(request, resume, { taskEvents, claimedTasks }) {
  if (resume === 'Last-Event-ID') lastEventIds.set(request, taskEvents.cursor);
  else if (taskEvents) request.variables.after = taskEvents.cursor;
  else request.variables.input.holding.push(...claimedTasks.leases.map(({ id }) => id));
}

function subscribe({ id, query, variables = {}, resume }) {
  const request = { query, variables };
  const stop = client.subscribe(request, {
    next(answer) {
      if (resume) remember(request, resume, answer.data);
      tell({ id, next: answer });
    },
    error: (error) => tell({ id, error: error instanceof Error ? error.message : error }),
    complete: () => tell({ id, complete: true }),
  });
  stops.set(id, stop);
}

for await (const line of createInterface({ input: process.stdin })) {
  const told = JSON.parse(line);
  if (told.do === 'subscribe') subscribe(told);
  else stops.get(told.id)();
}
