// Talks to the sidecar that its arguments start, by vscode-jsonrpc, and prints what it was told as JSON.
// {bigHome, agentId, sessionId} come in the environment, as CONVERSATION.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import {
  AbstractMessageReader,
  AbstractMessageWriter,
  CancellationTokenSource,
  createMessageConnection,
} from "vscode-jsonrpc/node";

/** Lines as Node itself cuts them: at a bare U+2028 too, so that a text with one arrives whole only if it was escaped. */
class LineReader extends AbstractMessageReader {
  constructor(input) {
    super();
    this.lines = createInterface({ input, crlfDelay: Infinity });
  }

  listen(callback) {
    this.lines.on("line", (line) => {
      try {
        callback(JSON.parse(line));
      } catch (error) {
        this.fireError(error);
      }
    });
    this.lines.on("close", () => this.fireClose());
    return { dispose: () => this.lines.close() };
  }
}

class LineWriter extends AbstractMessageWriter {
  constructor(output) {
    super();
    this.output = output;
    output.on("error", (error) => this.fireError(error));
  }

  async write(message) {
    this.output.write(JSON.stringify(message) + "\n");
  }

  end() {
    this.output.end();
  }
}

const TERMINALS = new Set(["sessions:done", "backup:done", "backup:error"]);
const { bigHome, agentId, sessionId } = JSON.parse(process.env.CONVERSATION);
const [program, ...options] = process.argv.slice(2);
const sidecar = spawn(program, options, { stdio: ["pipe", "pipe", "inherit"] });
const connection = createMessageConnection(new LineReader(sidecar.stdout), new LineWriter(sidecar.stdin));

/** What breaks the protocol would leave the client waiting for what never comes. */
function broken(why) {
  console.error(why);
  process.exit(1);
}

const streams = new Map();
connection.onError(([error]) => broken(error));
connection.onNotification((method, params) => {
  const stream = streams.get(params?.handleId);
  if (stream === undefined) {
    broken(`${method} of a handle that no reply has named`);
  }
  stream.events.push({ method, params });
  stream.begun();
  if (TERMINALS.has(method)) {
    stream.ended();
  }
});
connection.listen();

/** A stream once its handle is known: its events so far, and promises of its first and of its terminal. */
async function start(method, params) {
  const handle = await connection.sendRequest(method, params);
  const stream = { handle, events: [] };
  stream.first = new Promise((resolve) => (stream.begun = resolve));
  stream.terminal = new Promise((resolve) => (stream.ended = resolve));
  streams.set(handle, stream);
  return stream;
}

async function whole(method, params) {
  const stream = await start(method, params);
  await stream.terminal;
  return stream.events;
}

async function error(method, params) {
  try {
    return { result: await connection.sendRequest(method, params) };
  } catch ({ code, message, data }) {
    return { code, message, data };
  }
}

/** A request that the client takes back by its own `$/cancelRequest`, which the sidecar doesn't know. */
async function takenBack() {
  const source = new CancellationTokenSource();
  const reply = connection.sendRequest("ping", source.token);
  source.cancel();
  return reply;
}

const report = {
  ping: await connection.sendRequest("ping"),
  info: await connection.sendRequest("get_sidecar_info"),
  taken_back: await takenBack(),
  analysis: await whole("analyze_sessions_stream", { batchSize: 5 }),
  by_name: await connection.sendRequest("preview_session", { agentId, sessionId }),
  by_position: await connection.sendRequest("preview_session", agentId, sessionId),
  no_session: await error("preview_session", { agentId, sessionId: "none" }),
  no_method: await error("no_such_method"),
  wrong_params: await error("preview_session", { agentId: 1 }),
  backup: await whole("backup_before_upgrade_stream"),
  backups: await connection.sendRequest("list_backups"),
};
await connection.sendRequest("set_active_openclaw_home", { path: bigHome });
const stream = await start("analyze_sessions_stream", { batchSize: 1 });
await stream.first;
report.cancel = await connection.sendRequest("cancel_stream", { handleId: stream.handle });
await stream.terminal;
report.cancelled = stream.events;
report.cancel_again = await connection.sendRequest("cancel_stream", { handleId: stream.handle });

const exited = once(sidecar, "exit");
connection.end();
[report.exit_code] = await exited;
process.stdout.write(JSON.stringify(report));
