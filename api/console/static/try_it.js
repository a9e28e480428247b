// Ctrl+Enter in the form judges, as the button does.

document.addEventListener("keydown", (event) => {
  const form = event.target.closest?.("form.try");
  if (form && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.querySelector("[data-judge]").click();
  }
});
