// What perspective-api-client does, as its users write it; prints what came of it as one JSON. Its address is replaced where axios sends.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const axios = require("axios");
const Perspective = require("perspective-api-client");

const { BASE, KEY, TEXT } = process.env;
axios.interceptors.request.use((config) => ({ ...config, url: config.url.replace("https://commentanalyzer.googleapis.com", BASE) }));

const client = new Perspective({ apiKey: KEY });
const values = (answer) =>
  Object.fromEntries(Object.entries(answer.attributeScores).map(([name, score]) => [name, score.summaryScore.value]));
const found = {};
found.one = values(await client.analyze(TEXT));
found.some = values(await client.analyze(TEXT, { attributes: ["toxicity", "profanity", "threat"], doNotStore: false }));
const whole = { comment: { text: TEXT }, languages: ["en"], requestedAttributes: { TOXICITY: { scoreThreshold: 0.6 } } };
found.whole = values(await client.analyze(whole));
found.refused = await client.analyze(TEXT, { attributes: ["none"] }).then(() => null, (error) => [error.response.status, error.message]);
found.wrongKey = await new Perspective({ apiKey: "gf_wrong" })
  .analyze(TEXT)
  .then(() => null, (error) => [error.response.status, error.response.data.error.details[0].reason]);
console.log(JSON.stringify(found));
