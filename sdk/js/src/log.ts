/** Structured logs: one line of JSON for each record, on stderr, unless another place is given. */

export type Level = "debug" | "info" | "warn" | "error";
export type Fields = Record<string, unknown>;

/** Where records go: console, pino and the like fit. */
export interface Logger {
  log(level: Level, message: string, fields: Fields): void;
}

const LEVELS: Level[] = ["debug", "info", "warn", "error"];

export function lines(least: Level = "info"): Logger {
  return {
    log(level, message, fields) {
      if (LEVELS.indexOf(level) < LEVELS.indexOf(least)) return;
      process.stderr.write(JSON.stringify({ time: new Date().toISOString(), level, message, ...fields }) + "\n");
    },
  };
}

/** Says nothing. */
export const silent: Logger = { log() {} };
