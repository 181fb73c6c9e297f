/** What a Model does and what a waiting request waits for, in words. */

import type { Model } from "../api/models.ts";
import { bytes, percent, plural } from "./format.ts";

export type Tone = "ready" | "busy" | "waiting" | "failed" | "idle";

const TONES: Readonly<Record<string, Tone>> = {
  Ready: "ready",
  Degraded: "waiting",
  Loading: "busy",
  Pulling: "busy",
  Draining: "busy",
  Pending: "waiting",
  WaitingForCapacity: "waiting",
  Failed: "failed",
};

export function phaseTone(phase: string): Tone {
  return TONES[phase] ?? "idle";
}

export function phaseLabel(phase: string): string {
  return phase === "WaitingForCapacity" ? "Waiting for capacity" : phase || "Unknown";
}

/** "43 %, 2.1 of 4.9 GB"; without a total "2.1 GB". Null if no pull is known. */
export function pullText(model: Model): string | null {
  if (!model.pull) return null;
  const { completedBytes, totalBytes } = model.pull;
  const share = percent(completedBytes, totalBytes);
  if (share === null || totalBytes === null) return bytes(completedBytes);
  return `${share} %, ${bytes(completedBytes)} of ${bytes(totalBytes)}`;
}

/** What a request to the Model waits for, until its answer begins. */
export function waitText(model: Model | undefined): string {
  if (!model) return "Waiting for the model";
  switch (model.phase) {
    case "Pulling":
      return `Pulling ${pullText(model) ?? "the weights"}, then loading`;
    case "WaitingForCapacity":
      return withReason(/gpu/i.test(model.reason) ? "Waiting for a GPU" : "Waiting for free memory", model.reason);
    case "Loading":
      return "Loading into memory";
    case "Pending":
      return withReason("Preparing the model", model.reason);
    case "Draining":
      return "Waiting until the model can be loaded again";
    case "Failed":
      return withReason("The model does not start", model.reason);
    case "Suspended":
      return withReason("The model is suspended", model.reason);
    case "Idle":
      return "Starting the model";
    default:
      return queueText(model);
  }
}

function queueText(model: Model): string {
  if (model.pending > 0 && model.slots > 0 && model.slotsUsed >= model.slots) {
    return `Waiting for a free slot, ${plural(model.pending, "request")} pending`;
  }
  return "Reading the prompt";
}

function withReason(text: string, reason: string): string {
  return reason ? `${text}: ${reason}` : text;
}
