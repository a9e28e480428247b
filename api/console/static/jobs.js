// What runs is asked for again every few seconds, as long as somebody can see it; and files are dropped instead of chosen.

const EVERY_MS = 3000;
const COUNTED_EVERY = 5; // times; looking at verdicts costs ten times what looking at the progress does
let times = 0;
const place = document.querySelector("[data-refresh]");

function address() {
  const url = new URL(place.dataset.refresh, location);
  const isRead = document.querySelector("[id^=seen-] details[open], [id^=seen-]:focus-within"); // not taken from under somebody
  if (document.getElementById("seen-crossed") && times % COUNTED_EVERY === 0 && !isRead) url.searchParams.set("counted", "1");
  return url.pathname + url.search;
}

async function refresh() {
  if (!place.querySelector("[data-live]")) {
    if ("reload" in place.dataset && !document.activeElement.closest("form")) location.reload();
    return;
  }
  if (document.visibilityState === "visible") {
    times += 1;
    await window.htmx.ajax("GET", address(), { target: place, swap: "innerHTML" });
  }
  setTimeout(refresh, EVERY_MS);
}

if (place?.querySelector("[data-live]")) setTimeout(refresh, EVERY_MS);

const zone = document.querySelector("[data-drop]");
if (zone) {
  const field = zone.querySelector("input[type=file]");
  const over = (event) => {
    event.preventDefault();
    zone.classList.toggle("over", event.type === "dragover");
  };
  zone.addEventListener("dragover", over);
  zone.addEventListener("dragleave", over);
  zone.addEventListener("drop", (event) => {
    over(event);
    if (event.dataTransfer.files.length === 1) {
      field.files = event.dataTransfer.files;
      field.dispatchEvent(new Event("change", { bubbles: true }));
    }
  });
  field.addEventListener("change", () => {
    const isTooLarge = field.files[0]?.size > Number(zone.dataset.most);
    zone.querySelector("[data-too-large]").hidden = !isTooLarge;
    if (isTooLarge) field.value = "";
    else if (field.files.length) field.form.requestSubmit();
  });
}
