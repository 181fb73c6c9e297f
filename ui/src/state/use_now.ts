/** The time, for texts that count down. */

import { useEffect, useState } from "preact/hooks";

/** Return the time in milliseconds since 1970, renewed every `every` milliseconds; not renewed if that is null. */
export function useNow(every: number | null): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (every === null) return undefined;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}
