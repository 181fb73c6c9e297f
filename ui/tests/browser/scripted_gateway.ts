/**
 * A gateway whose events and answers are written by the test, behind a proxy that adds a path prefix.
 *
 * The states of a pull, of a full cluster and of lost connections cannot be made with one small model; the tests with
 * `corral serve` are in `served.test.ts`.
 */

import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import type { ChatChunk } from "../../src/api/chat.ts";
import type { Model } from "../../src/api/models.ts";

export const PREFIX = "/team/llm";
/** The policy of the real gateway, as `served.test.ts` checks. */
export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** A request to `/api/...` that the test answers. */
export interface Call {
  readonly path: string;
  readonly body: Record<string, unknown>;
  readonly response: ServerResponse;
  /** Whether the client has closed the connection before the response ended. */
  closed: boolean;
}

export class ScriptedGateway {
  models: readonly Model[] = [];
  /** If set, requests without it are answered with status 401. */
  key = "";
  /** Whether connections to `/ui/events` are closed at once. */
  broken = false;
  readonly calls: Call[] = [];
  private readonly folder: string;
  private readonly server: Server;
  private readonly streams = new Set<ServerResponse>();

  constructor(folder: string) {
    this.folder = folder;
    this.server = createServer((request, response) => void this.answer(request, response));
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve));
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}${PREFIX}/ui/`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Forget what a test has set. */
  reset(models: readonly Model[]): void {
    this.dropStreams();
    this.models = models;
    this.key = "";
    this.broken = false;
    this.calls.length = 0;
  }

  show(models: readonly Model[]): void {
    this.models = models;
    for (const stream of this.streams) this.send(stream);
  }

  dropStreams(): void {
    for (const stream of this.streams) stream.destroy();
    this.streams.clear();
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = new URL(request.url ?? "/", "http://gateway").pathname;
    if (!path.startsWith(`${PREFIX}/`)) return void response.writeHead(404).end();
    const inner = path.slice(PREFIX.length);
    if (inner === "/ui/events") return this.events(request, response);
    if (inner.startsWith("/api/")) return this.call(inner, request, response);
    return this.file(inner === "/ui/" ? "index.html" : inner.slice("/ui/".length), response);
  }

  private async file(name: string, response: ServerResponse): Promise<void> {
    const type = TYPES[extname(name)];
    if (!type || name.includes("..")) return void response.writeHead(404).end();
    const content = await readFile(join(this.folder, name));
    response.writeHead(200, { "content-type": type, "content-security-policy": POLICY }).end(content);
  }

  private refused(request: IncomingMessage, response: ServerResponse): boolean {
    if (!this.key || request.headers.authorization === `Bearer ${this.key}`) return false;
    const error = request.headers.authorization ? "invalid API key" : "missing API key";
    response.writeHead(401, { "content-type": "application/json" }).end(JSON.stringify({ error }));
    return true;
  }

  private events(request: IncomingMessage, response: ServerResponse): void {
    if (this.broken) return void request.socket.destroy();
    if (this.refused(request, response)) return;
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    this.streams.add(response);
    response.on("close", () => this.streams.delete(response));
    this.send(response);
  }

  private send(stream: ServerResponse): void {
    stream.write(`event: models\ndata: ${JSON.stringify({ models: this.models, version: "0.1.0" })}\n\n`);
  }

  private async call(path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece as Buffer);
    if (this.refused(request, response)) return;
    const body = JSON.parse(Buffer.concat(pieces).toString()) as Record<string, unknown>;
    const call: Call = { path, body, response, closed: false };
    response.on("close", () => {
      call.closed = !response.writableEnded;
    });
    this.calls.push(call);
  }
}

/** Send lines of a streamed answer; `end` sends the last one. */
export function stream(call: Call, ...chunks: ChatChunk[]): void {
  if (!call.response.headersSent) call.response.writeHead(200, { "content-type": "application/x-ndjson" });
  for (const chunk of chunks) call.response.write(`${JSON.stringify({ done: false, ...chunk })}\n`);
}

export function end(call: Call, chunk: ChatChunk = {}): void {
  const last = { done: true, done_reason: "stop", eval_count: 128, eval_duration: 3_200_000_000, ...chunk };
  stream(call, { message: { content: "" }, ...last });
  call.response.end();
}

export function refuse(call: Call, status: number, error: string): void {
  call.response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ error }));
}
