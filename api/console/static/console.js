// What every page does: times in local time, keys that lead somewhere, and forms that send themselves when a choice is made.

const TYPED = "input, textarea, select, [contenteditable]";
const USED = new Set(["Enter", " "]);

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.textContent = at.toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
    }
  }
}

// An element with data-key is used by pressing that key, unless somebody is typing.
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.target.closest(TYPED)) return;
  if (USED.has(event.key) && event.target.closest("a, button, summary")) return; // what has the focus is used
  const wanted = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === event.key && !one.disabled);
  if (wanted) {
    event.preventDefault();
    wanted.matches(TYPED) ? wanted.focus() : wanted.click();
  }
});

document.addEventListener("change", (event) => {
  if (event.target.closest("[data-send-on-change]")) event.target.form.requestSubmit();
});

// A form with data-ask is sent only if the person says yes.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.ask;
  if (question && !window.confirm(question)) event.preventDefault();
});

document.addEventListener("htmx:load", (event) => localTimes(event.detail.elt));
localTimes(document);
