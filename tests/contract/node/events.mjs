// What the package eventsource does with the events of a batch, until it stops by itself; prints what came of it as one JSON.
import { EventSource } from "eventsource";

const { BASE, KEY, BATCH } = process.env;
const found = { connections: 0, kinds: [], states: [] };
const source = new EventSource(`${BASE}/v1/batches/${BATCH}/events`, {
  fetch: (url, init) => {
    found.connections += 1;
    return fetch(url, { ...init, headers: { ...init.headers, Authorization: `Bearer ${KEY}` } });
  },
});
const take = (event) => {
  found.kinds.push(event.type);
  found.states.push(JSON.parse(event.data).status);
};
source.addEventListener("batch.progress", take);
source.addEventListener("batch.ended", take);
source.addEventListener("error", (event) => {
  if (source.readyState !== EventSource.CLOSED) return; // it comes back by itself
  found.code = event.code;
  console.log(JSON.stringify(found));
});
