/**
 * Markdown as elements. The text comes from a language model and is not trusted: marked only parses it, every piece of
 * text becomes a text node, and HTML in it is shown as text. Images are not loaded; links open only http(s) and mailto.
 */

import { lexer, type Token, type Tokens } from "marked";
import type { ComponentChildren, JSX } from "preact";
import { memo } from "preact/compat";
import { CodeBlock } from "../views/code_block.tsx";

const ENTITIES: Readonly<Record<string, string>> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  "#39": "'",
  nbsp: " ",
};
const SAFE_SCHEMES = ["http:", "https:", "mailto:"];

export const Markdown = memo(function Markdown({ text }: { text: string }) {
  return <div class="markdown">{blocks(lexer(text, { gfm: true }))}</div>;
});

/** Return the address of a link if it is absolute and its scheme is harmless; null otherwise. */
export function safeLink(href: string): string | null {
  try {
    const url = new URL(href);
    return SAFE_SCHEMES.includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** Replace the character references that language models write; the others stay as they are. */
export function unescaped(text: string): string {
  return text.replace(/&(amp|lt|gt|quot|apos|#39|nbsp);/g, (whole, name: string) => ENTITIES[name] ?? whole);
}

function blocks(tokens: readonly Token[]): ComponentChildren {
  return tokens.map((token, at) => <Block key={at} token={token} />);
}

function Block({ token }: { token: Token }): JSX.Element | null {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "hr":
      return <hr />;
    case "heading":
      return <Heading depth={(token as Tokens.Heading).depth}>{inline(token)}</Heading>;
    case "code":
      return <CodeBlock language={(token as Tokens.Code).lang ?? ""} code={(token as Tokens.Code).text} />;
    case "blockquote":
      return <blockquote>{blocks((token as Tokens.Blockquote).tokens)}</blockquote>;
    case "list":
      return <List list={token as Tokens.List} />;
    case "table":
      return <Table table={token as Tokens.Table} />;
    case "html":
      return <p>{(token as Tokens.HTML).text}</p>;
    case "text":
      return <>{inline(token)}</>;
    default:
      return <p>{inline(token)}</p>;
  }
}

/** The page itself has the levels 1 and 2. */
function Heading({ depth, children }: { depth: number; children: ComponentChildren }) {
  if (depth <= 1) return <h3>{children}</h3>;
  if (depth === 2) return <h4>{children}</h4>;
  return <h5>{children}</h5>;
}

function List({ list }: { list: Tokens.List }) {
  const items = list.items.map((item, at) => (
    <li key={at}>
      {item.task && <input type="checkbox" checked={item.checked === true} disabled aria-label="Task" />}
      {blocks(item.tokens.filter((token) => token.type !== "checkbox"))}
    </li>
  ));
  return list.ordered ? <ol start={Number(list.start) || 1}>{items}</ol> : <ul>{items}</ul>;
}

function Table({ table }: { table: Tokens.Table }) {
  return (
    // A wide table scrolls by itself, and by keyboard only if it can be focused.
    // biome-ignore lint/a11y/noNoninteractiveTabindex: see above
    <section class="table" tabIndex={0} aria-label="Table">
      <table>
        <thead>
          <tr>
            {table.header.map((cell, at) => (
              <th key={at} scope="col">
                {inlines(cell.tokens)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {table.rows.map((row, at) => (
            <tr key={at}>
              {row.map((cell, column) => (
                <td key={column}>{inlines(cell.tokens)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function inline(token: Token): ComponentChildren {
  if ("tokens" in token && token.tokens) return inlines(token.tokens);
  return "text" in token && typeof token.text === "string" ? unescaped(token.text) : token.raw;
}

function inlines(tokens: readonly Token[]): ComponentChildren {
  return tokens.map((token, at) => <Inline key={at} token={token} />);
}

function Inline({ token }: { token: Token }): JSX.Element {
  switch (token.type) {
    case "strong":
      return <strong>{inline(token)}</strong>;
    case "em":
      return <em>{inline(token)}</em>;
    case "del":
      return <del>{inline(token)}</del>;
    case "br":
      return <br />;
    case "codespan":
      return <code>{(token as Tokens.Codespan).text}</code>;
    case "link":
      return <Link href={(token as Tokens.Link).href}>{inline(token)}</Link>;
    case "image":
      return <Link href={(token as Tokens.Image).href}>{(token as Tokens.Image).text || "image"}</Link>;
    default:
      return <>{inline(token)}</>;
  }
}

function Link({ href, children }: { href: string; children: ComponentChildren }) {
  const safe = safeLink(href);
  if (safe === null) return <>{children}</>;
  return (
    <a href={safe} target="_blank" rel="noopener noreferrer">
      {children}
    </a>
  );
}
