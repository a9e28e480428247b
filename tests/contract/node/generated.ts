// A client whose types openapi-typescript made, from an upload to verdicts; prints what came of it as one JSON. `tsc` checks it first.
import createClient from "openapi-fetch";

import type { components, paths } from "./generated-api.js";

type Verdict = components["schemas"]["Verdict"];

declare const process: { env: Record<string, string> };
const { BASE, KEY, LINES } = process.env as { BASE: string; KEY: string; LINES: string };
const api = createClient<paths>({ baseUrl: BASE, headers: { Authorization: `Bearer ${KEY}` } });

const made = await api.POST("/v1/batches", {
  params: { query: { name: "generated" }, header: { "Idempotency-Key": "once" } },
  headers: { "content-type": "application/jsonl" },
  body: LINES as never, // one operation has bodies of several types: openapi-fetch takes them to be all at once
  bodySerializer: (body: unknown) => body as string,
});
if (made.error) throw new Error(made.error.detail);

const verdicts: Verdict[] = [];
let after: string | undefined;
for (;;) {
  const page = await api.GET("/v1/batches/{batch_id}/results", {
    params: { path: { batch_id: made.data.id }, query: { after }, header: { Prefer: "wait=5" } },
  });
  if (page.error) throw new Error(page.error.detail);
  verdicts.push(...page.data.data);
  after = page.data.next;
  if (page.data.complete) break;
}
const ended = await api.GET("/v1/batches/{batch_id}", { params: { path: { batch_id: made.data.id } } });
const judged = await api.POST("/v1/moderations", { body: { input: "a text", flag_from: "unsafe" } });
const unknown = await api.GET("/v1/files/{file_id}", { params: { path: { file_id: "file-0" } } });
const counts: components["schemas"]["RequestCounts"] | undefined = ended.data?.request_counts;
const flagged: boolean | undefined = judged.data?.results[0]?.flagged;

// @ts-expect-error: types tell what there is not
verdicts[0]?.severities;

console.log(
  JSON.stringify({
    verdicts: verdicts.map(({ id, severity }) => [id, severity]),
    status: ended.data?.status,
    counts,
    flagged,
    unknown: unknown.error?.error.code,
  }),
);
