// What needs a script: copying, and times in the visitor's own time zone.
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Could not copy: select the text and copy it";
    }
  });
}
// A second click would send the form again, and its answer would not show the token.
addEventListener("submit", ({ target }) => {
  setTimeout(() => target.querySelectorAll("button").forEach((button) => (button.disabled = true)));
});
// A browser that goes back shows a page as it was left: with its token, and with buttons that do nothing.
addEventListener("pageshow", ({ persisted }) => {
  if (persisted) location.reload();
});
for (const time of document.querySelectorAll("time:not([title])")) {
  const at = new Date(time.dateTime);
  if (Number.isNaN(at.getTime())) continue;
  time.title = time.textContent;
  time.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
