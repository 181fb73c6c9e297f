/** Models as `/ui/events` describes them, for the tests. */

import type { Model } from "../../src/api/models.ts";

const IDLE: Model = {
  name: "llama3.2",
  namespace: "default",
  names: ["llama3.2"],
  phase: "Idle",
  reason: "",
  pending: 0,
  slotsUsed: 0,
  slots: 0,
  replicas: 0,
  replicasReady: 0,
  gpus: null,
  memoryBytes: null,
  vramBytes: null,
  nodes: [],
  tokensPerSecond: null,
  pull: null,
  expiresAt: null,
  sizeBytes: 2_020_000_000,
  family: "llama",
  parameterSize: "3.2B",
  quantization: "Q4_K_M",
  contextLength: 8192,
  capabilities: ["completion", "tools"],
};

export function model(fields: Partial<Model> = {}): Model {
  return { ...IDLE, ...fields, names: fields.names ?? [fields.name ?? IDLE.name] };
}

/** A Model in each of the states that users meet. */
export function examples(now: number): Model[] {
  return [
    model({
      name: "qwen3:8b",
      family: "qwen3",
      parameterSize: "8.2B",
      sizeBytes: 5_200_000_000,
      contextLength: 40960,
      capabilities: ["completion", "tools", "thinking"],
      phase: "Ready",
      pending: 2,
      slotsUsed: 4,
      slots: 4,
      replicas: 1,
      replicasReady: 1,
      gpus: 1,
      memoryBytes: 1_200_000_000,
      vramBytes: 9_800_000_000,
      nodes: ["gpu-node-1"],
      tokensPerSecond: 142.4,
      expiresAt: new Date(now + 272_000).toISOString(),
    }),
    model({
      name: "gemma3:12b",
      family: "gemma3",
      parameterSize: "12.2B",
      sizeBytes: 8_150_000_000,
      contextLength: 32768,
      capabilities: ["completion", "vision"],
      phase: "Pulling",
      reason: "PullingWeights",
      replicas: 0,
      pending: 1,
      pull: { completedBytes: 3_510_000_000, totalBytes: 8_150_000_000 },
    }),
    model({ name: "llama3.2:latest", reason: "inactive: no pending requests" }),
    model({
      name: "nomic-embed-text",
      family: "nomic-bert",
      parameterSize: "137M",
      quantization: "F16",
      sizeBytes: 274_000_000,
      contextLength: 2048,
      capabilities: ["embedding"],
    }),
    model({
      name: "qwen3:32b",
      family: "qwen3",
      parameterSize: "32.8B",
      sizeBytes: 20_200_000_000,
      contextLength: 40960,
      capabilities: ["completion", "tools", "thinking"],
      phase: "WaitingForCapacity",
      reason: "No node has a free GPU with 24 GB; 1 of 4 GPUs is used by qwen3:8b, which serves requests.",
      pending: 3,
    }),
    model({
      name: "team/legal-summary",
      namespace: "legal",
      family: "llama",
      phase: "Failed",
      reason: "The Secret hf-token, which holds the credentials of the source, does not exist.",
    }),
  ];
}
