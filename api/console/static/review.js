// Reviewing by keyboard: hold the space bar to look, Enter to send what is chosen. Without it, the page's switches and buttons do.

const USED = "input, textarea, select, button, a, summary";
const veil = document.querySelector(".veil");

function isFree(event) {
  return !event.ctrlKey && !event.metaKey && !event.altKey && !event.target.closest(USED);
}

function lift(isLifted) {
  veil?.classList.toggle("lifted", isLifted);
}

document.addEventListener("keydown", (event) => {
  if (event.key === " " && isFree(event)) {
    event.preventDefault();
    lift(true);
  } else if (event.key === "Enter" && isFree(event)) {
    event.preventDefault();
    document.querySelector("#decide")?.requestSubmit();
  } else if (event.target.matches("input[type=radio], input[type=checkbox]") && event.key.length === 1 && event.key !== " ") {
    event.target.blur(); // a key after a choice is a key of the page
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: event.key, bubbles: true }));
    event.preventDefault();
  }
});
document.addEventListener("keyup", (event) => {
  if (event.key === " ") lift(false);
});
// Whoever turns away sees nothing when coming back; and no page with a text comes back from the browser's memory.
addEventListener("blur", () => lift(false));
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
