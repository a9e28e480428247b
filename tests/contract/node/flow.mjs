// What the openai SDK does, in the order in which its users write it; prints what came of it as one JSON.
import fs from "node:fs";
import OpenAI from "openai";

const { FILE, BODY, HEADERS, SECRET } = process.env;
const client = new OpenAI({ maxRetries: 0 });
const found = {};

const kept = await client.files.create({ file: fs.createReadStream(FILE), purpose: "batch" });
found.kept_s = kept.expires_at - kept.created_at;
const short = await client.files.create({
  file: fs.createReadStream(FILE),
  purpose: "batch",
  expires_after: { anchor: "created_at", seconds: 3600 },
});
found.short_s = short.expires_at - short.created_at;
found.refused = await client.files
  .create({ file: fs.createReadStream(FILE), purpose: "vision" })
  .then(() => null, (error) => [error.status, error.code]);

let batch = await client.batches.create({
  input_file_id: kept.id,
  endpoint: "/v1/moderations",
  completion_window: "24h",
  output_expires_after: { anchor: "created_at", seconds: 3600 },
});
while (!["completed", "failed"].includes(batch.status)) {
  await new Promise((resolve) => setTimeout(resolve, 50));
  batch = await client.batches.retrieve(batch.id);
}
found.batch = [batch.status, batch.request_counts];
const content = await (await client.files.content(batch.output_file_id)).text();
found.flagged = content.trim().split("\n").map((line) => JSON.parse(line).response.body.results[0].flagged);

found.moderations = (await client.moderations.create({ input: ["one", "two"] })).results.map((each) => each.flagged);
const image = [{ type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } }];
found.image = await client.moderations.create({ input: image }).then(() => null, (error) => [error.status, error.message]);
found.models = [];
for await (const model of client.models.list()) found.models.push((await client.models.retrieve(model.id)).id);

found.event = (await client.webhooks.unwrap(BODY, JSON.parse(HEADERS), SECRET)).type;
found.forged = await client.webhooks.unwrap(`${BODY} `, JSON.parse(HEADERS), SECRET).then(() => "taken", () => "refused");
console.log(JSON.stringify(found));
