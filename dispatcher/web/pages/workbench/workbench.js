// Reloads the page when a file of the folder changed. The server sends the folder's version on each change.
"use strict";
const live = document.getElementById("live");
const shown = document.body.dataset.version;
const events = new EventSource("/events");
events.onmessage = (event) => {
  live.textContent = "reloads on save";
  if (event.data !== shown) location.reload();
};
events.onerror = () => { live.textContent = "the workbench does not answer"; };

// A choice in a list is a click on "Show".
for (const list of document.querySelectorAll("select[data-submits]")) {
  list.addEventListener("change", () => list.form.requestSubmit());
}
