/** Text for screen readers: streamed text is announced by whole sentences, not by tokens. */

const ENDS = /[.!?:;]["')\]]*\s|\n/g;

/** Return the end of the last complete sentence of `text` after `start`; `start` if none is complete. */
export function sentenceEnd(text: string, start: number): number {
  let end = start;
  ENDS.lastIndex = start;
  for (let found = ENDS.exec(text); found; found = ENDS.exec(text)) end = ENDS.lastIndex;
  return end;
}
