// Editors of policies and lists: numbers beside the lines, those with a mistake marked, and a way from a mistake to its line.

const LONGEST = 300_000; // characters that are checked while somebody types; longer ones when they are saved

function numbered(area) {
  const gutter = area.parentElement.querySelector(".gutter");
  const wrong = new Set([...document.querySelectorAll("#problems [data-line]")].map((one) => Number(one.dataset.line)));
  const n = area.value.split("\n").length;
  if (n > 20_000) {
    gutter.replaceChildren();
    return;
  }
  gutter.replaceChildren(
    ...Array.from({ length: n }, (_, at) => {
      const line = document.createElement("span");
      line.className = wrong.has(at + 1) ? "line wrong" : "line";
      line.textContent = wrong.has(at + 1) ? `● ${at + 1}\n` : `${at + 1}\n`;
      return line;
    }),
  );
  gutter.scrollTop = area.scrollTop;
}

for (const area of document.querySelectorAll(".numbered textarea")) {
  area.addEventListener("input", () => numbered(area));
  area.addEventListener("scroll", () => { area.parentElement.querySelector(".gutter").scrollTop = area.scrollTop; });
  area.addEventListener("htmx:configRequest", (event) => { if (area.value.length > LONGEST) event.preventDefault(); });
  document.addEventListener("htmx:afterSettle", () => numbered(area));
  document.addEventListener("click", (event) => {
    const line = event.target.closest("[data-to-line]")?.dataset.toLine;
    if (line) goTo(area, Number(line));
  });
  numbered(area);
}

function goTo(area, line) {
  const lines = area.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((n, one) => n + one.length + 1, 0);
  area.focus();
  area.setSelectionRange(start, start + (lines[line - 1] ?? "").length);
  area.scrollTop = (area.scrollHeight / lines.length) * Math.max(0, line - 5);
}

// A file is taken into the editor, where it can be looked at before it is saved.
document.querySelector("[data-file-for]")?.addEventListener("change", async (event) => {
  const [file] = event.target.files;
  const area = document.getElementById(event.target.dataset.fileFor);
  if (!file) return;
  const ending = file.name.split(".").pop().toLowerCase();
  const form = { csv: "csv", jsonl: "jsonl", ndjson: "jsonl", txt: "txt" }[ending];
  if (form) event.target.form.elements.form.value = form;
  area.value = await file.text();
  area.dispatchEvent(new Event("input", { bubbles: true }));
  area.focus();
});
