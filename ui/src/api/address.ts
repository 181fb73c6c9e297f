/** Addresses of the gateway, relative to the page, so that both work below any path prefix. */

/** The page is at `<prefix>/ui/`, the API beside it at `<prefix>/api/`. */
export function apiUrl(path: string, page: string = document.baseURI): string {
  return new URL(`../api/${path}`, page).href;
}

export function eventsUrl(page: string = document.baseURI): string {
  return new URL("events", page).href;
}
