/**
 * Streams: the results of one GraphQL subscription, over a websocket (graphql-transport-ws) or server-sent events.
 *
 * Each is an async generator of the data that comes. Both throw Broken when the stream does not open or ends, also by
 * silence, and Refused when the server will not have the subscription.
 */

import { createClient } from "graphql-ws";
import { WebSocket, type ClientOptions, type MessageEvent } from "ws";

import { refusal, type Api, type Json } from "./api.js";
import { decode, marked, unmarked } from "./json.js";

const OPEN_SECONDS = 10;
/** A quiet stream carries an empty payload after so long. */
const QUIET_SECONDS = 10;
const PING_SECONDS = 10;

/** The stream is no more. */
export class Broken extends Error {}

export type Open = (api: Api, document: string, variables: Json, signal: AbortSignal) => AsyncGenerator<Json>;

/** Over a websocket. Pings notice a dead line within 20 s, and a watchdog a stream that says nothing. */
export async function* websocket(api: Api, document: string, variables: Json, signal: AbortSignal): AsyncGenerator<Json> {
  let overdue: NodeJS.Timeout | undefined;
  const client = createClient({
    url: api.url.replace(/^http/, "ws"),
    webSocketImpl: socketOf(api),
    retryAttempts: 0,
    connectionAckWaitTimeout: OPEN_SECONDS * 1000,
    keepAlive: PING_SECONDS * 1000,
    connectionParams: api.key ? { authorization: api.headers["authorization"] } : {},
    jsonMessageReviver: unmarked,
    on: {
      ping: (received) => {
        if (!received) overdue = setTimeout(() => client.terminate(), PING_SECONDS * 1000);
      },
      pong: (received) => {
        if (received) clearTimeout(overdue);
      },
    },
  });
  const cut = () => client.terminate();
  signal.addEventListener("abort", cut, { once: true });
  const watchdog = new Watchdog(OPEN_SECONDS + QUIET_SECONDS + api.silence, cut);
  try {
    for await (const said of client.iterate<Json>({ query: document, variables })) {
      watchdog.fed(QUIET_SECONDS + api.silence);
      yield dataOf(said as Json);
    }
  } catch (error) {
    throw reasonOf(error);
  } finally {
    watchdog.rest();
    clearTimeout(overdue);
    signal.removeEventListener("abort", cut);
    client.terminate();
  }
  throw new Broken("websocket: the server ended the stream");
}

/** The class of sockets to this server: with its headers, and with integers that are exact. */
function socketOf(api: Api): typeof WebSocket {
  const options: ClientOptions = { handshakeTimeout: OPEN_SECONDS * 1000, maxPayload: 0, perMessageDeflate: false, headers: {} };
  for (const name of ["authorization", "crew-namespace"]) {
    if (api.headers[name]) options.headers![name] = api.headers[name];
  }
  return class extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url, protocols, options);
      // What goes wrong is told by the close that follows, also after graphql-ws has stopped listening.
      this.on("error", () => {});
      const messages = { set: (take: (event: unknown) => void) => listen(this, take) };
      Object.defineProperty(this, "onmessage", messages);
    }
  } as unknown as typeof WebSocket;
}

function listen(socket: WebSocket, take: (event: unknown) => void): void {
  socket.addEventListener("message", (event: MessageEvent) => take({ data: marked(String(event.data)) }));
}

function reasonOf(error: unknown): Error {
  if (error instanceof Error && error.name === "Refused") return error;
  if (Array.isArray(error)) return refusal(error[0] ?? {});
  const { code, reason, message } = error as { code?: number; reason?: string; message?: string };
  return new Broken(`websocket: ${code ?? ""} ${reason || message || ""}`.trim());
}

/** Over server-sent events, distinct connections mode. A watchdog notices a line that says nothing. */
export async function* sse(api: Api, document: string, variables: Json, signal: AbortSignal): AsyncGenerator<Json> {
  const cutting = new AbortController();
  const cut = () => cutting.abort();
  signal.addEventListener("abort", cut, { once: true });
  const watchdog = new Watchdog(OPEN_SECONDS + QUIET_SECONDS, cut);
  try {
    const response = await fetch(api.url, {
      method: "POST",
      headers: { ...api.headers, accept: "text/event-stream" },
      body: JSON.stringify({ query: document, variables }),
      signal: cutting.signal,
    });
    const kind = response.headers.get("content-type") ?? "";
    if (response.status !== 200 || !kind.startsWith("text/event-stream") || !response.body) {
      throw new Broken(`sse: status ${response.status}, ${kind || "no content type"}`);
    }
    for await (const data of events(response.body, () => watchdog.fed(QUIET_SECONDS + api.silence))) yield data;
  } catch (error) {
    if (error instanceof TypeError || (error as Error).name === "AbortError") throw new Broken(`sse: ${(error as Error).message}`);
    throw error;
  } finally {
    watchdog.rest();
    signal.removeEventListener("abort", cut);
    cut();
  }
}

async function* events(body: ReadableStream<Uint8Array>, alive: () => void): AsyncGenerator<Json> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) {
    alive();
    text += decoder.decode(chunk, { stream: true });
    const whole = text.split("\n\n");
    text = whole.pop()!;
    for (const event of whole) {
      const { name, data } = fieldsOf(event);
      if (name === "complete") throw new Broken("sse: the server ended the stream");
      if (name === "next" && data) yield dataOf(decode(data));
    }
  }
  throw new Broken("sse: the line was closed");
}

function fieldsOf(event: string): { name: string; data: string } {
  let name = "";
  const data: string[] = [];
  for (const line of event.split("\n")) {
    const [field, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).replace(/^ /, "")];
    if (field === "event") name = value.trim();
    else if (field === "data") data.push(value);
  }
  return { name, data: data.join("\n") };
}

function dataOf(said: Json): Json {
  if (said["errors"]?.length) throw refusal(said["errors"][0]);
  return said["data"];
}

/** Bites when it is not fed in time. */
class Watchdog {
  private timer: NodeJS.Timeout | undefined;

  constructor(
    seconds: number,
    private readonly bite: () => void,
  ) {
    this.fed(seconds);
  }

  fed(seconds: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(this.bite, seconds * 1000);
  }

  rest(): void {
    clearTimeout(this.timer);
  }
}
