/** Requests with the API key, and their errors as text for people. */

export class ApiError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/** Whether the gateway asks for an API key, or refuses the one it got. */
export function isUnauthorized(error: unknown): boolean {
  return error instanceof ApiError && error.status === 401;
}

export function isAborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

export function messageOf(error: unknown): string {
  if (error instanceof ApiError) return error.message;
  if (error instanceof TypeError) return "The gateway cannot be reached.";
  return error instanceof Error ? error.message : String(error);
}

/** Send a request; a body is sent as JSON. Throws ApiError for a status that is not 2xx. */
export async function send(url: string, key: string, init: { body?: unknown; signal?: AbortSignal } = {}) {
  const headers = new Headers();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const request: RequestInit = { headers, cache: "no-store" };
  if (init.signal) request.signal = init.signal;
  if (init.body !== undefined) {
    headers.set("Content-Type", "application/json");
    request.method = "POST";
    request.body = JSON.stringify(init.body);
  }
  const response = await fetch(url, request);
  if (!response.ok) throw new ApiError(response.status, errorText(await response.text(), response.status));
  return response;
}

/** Return the text of an error response: Ollama's `{"error": "..."}`, or the body of a proxy. */
export function errorText(body: string, status: number): string {
  try {
    const parsed: unknown = JSON.parse(body);
    if (typeof parsed === "object" && parsed !== null && "error" in parsed && typeof parsed.error === "string") {
      return parsed.error;
    }
  } catch {
    // not JSON: the response of a proxy
  }
  const text = body.trim();
  return text && text.length < 300 && !text.startsWith("<") ? text : `The gateway answered with status ${status}.`;
}
