/** Splits a response body into text and lines as it arrives. */

/** Yield the body's text as it arrives. */
export async function* textOf(response: Response): AsyncGenerator<string> {
  if (!response.body) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      yield decoder.decode(value, { stream: true });
    }
  } finally {
    await reader.cancel().catch(() => undefined); // of a reader that has failed: its error is thrown already
  }
}

/** Collects text and returns the lines that are complete. */
export class LineBuffer {
  private rest = "";

  feed(text: string): string[] {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop() ?? "";
    return lines.map((line) => (line.endsWith("\r") ? line.slice(0, -1) : line));
  }

  /** Return the last line, which has no line end. */
  end(): string {
    const rest = this.rest;
    this.rest = "";
    return rest;
  }
}
