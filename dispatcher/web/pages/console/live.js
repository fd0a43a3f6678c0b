// Shows the newest state of a page of the console without reloading it. What somebody types, opens or selects stays: meanwhile the
// page is not changed.
"use strict";
(() => {
  const seconds = Number(document.currentScript.dataset.seconds);
  const main = document.getElementById("main");

  const isInUse = () =>
    document.hidden ||
    main.contains(document.activeElement) ||
    main.querySelector("details[open]") !== null ||
    [...main.querySelectorAll("input, textarea")].some((field) => field.value !== field.defaultValue) ||
    String(getSelection()) !== "";

  async function update() {
    if (isInUse()) return;
    const headers = { Accept: "text/html", "X-Automatic": "1" }; // does not count as use of the session
    const answer = await fetch(location.href, { headers });
    if (answer.redirected) return location.reload(); // the session has ended
    if (!answer.ok) throw new Error(answer.statusText);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
    if (fresh !== null && !isInUse()) main.replaceChildren(...fresh.childNodes);
  }

  setInterval(() => update().catch(() => {
    const shown = document.querySelector(".live");
    if (shown !== null) shown.textContent = shown.dataset.stale;
  }), seconds * 1000);
})();
