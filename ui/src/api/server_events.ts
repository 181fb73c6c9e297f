/** Parser of text/event-stream (https://html.spec.whatwg.org/multipage/server-sent-events.html, "Parsing"). */

import { LineBuffer } from "./lines.ts";

export interface ServerEvent {
  readonly event: string;
  readonly data: string;
}

export class ServerEventParser {
  private readonly lines = new LineBuffer();
  private event = "";
  private data: string[] = [];

  feed(text: string): ServerEvent[] {
    const found: ServerEvent[] = [];
    for (const line of this.lines.feed(text)) {
      if (line === "") {
        if (this.data.length) found.push({ event: this.event || "message", data: this.data.join("\n") });
        this.event = "";
        this.data = [];
      } else {
        this.field(line);
      }
    }
    return found;
  }

  private field(line: string): void {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon); // empty in a comment
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.event = value;
    if (name === "data") this.data.push(value);
  }
}
