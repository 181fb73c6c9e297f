/** A block of code with a button that copies it. */

import { useEffect, useState } from "preact/hooks";

/** Milliseconds for which the button says that the code is copied. */
const SHOWN = 2000;

export function CodeBlock({ language, code }: { language: string; code: string }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return undefined;
    const timer = setTimeout(() => setCopied(false), SHOWN);
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = () =>
    void navigator.clipboard?.writeText(code).then(
      () => setCopied(true),
      () => setCopied(false),
    );
  return (
    <figure class="code">
      <figcaption>
        <span>{language || "code"}</span>
        <button type="button" class="plain small" onClick={copy}>
          {copied ? "Copied" : "Copy"}
        </button>
      </figcaption>
      {/* It scrolls by keyboard only if it can be focused. */}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: see above */}
      <pre tabIndex={0}>
        <code>{code}</code>
      </pre>
    </figure>
  );
}
