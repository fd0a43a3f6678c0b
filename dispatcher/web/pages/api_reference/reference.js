// Shows the OpenAPI document. A browser cannot send an API key with a link, so the page asks for it where the document needs one.
"use strict";

const form = document.getElementById("key-form");
const refusal = document.getElementById("refusal");

function show(spec, key) {
  form.hidden = true;
  const reference = SwaggerUIBundle({
    spec,
    dom_id: "#reference",
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    displayOperationId: true,
    validatorUrl: null, // no call to another site
    onComplete: () => key && reference.preauthorizeApiKey("ApiKey", key),
  });
}

async function load(key) {
  const response = await fetch("/openapi.json", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  if (response.ok) {
    show(await response.json(), key);
  } else {
    form.hidden = false;
    refusal.textContent = key ? "This key was not accepted." : "";
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  load(document.getElementById("key").value.trim());
});

// With a key the answer is 401 at first, which is no error: ask before the browser reports one.
if (document.documentElement.dataset.needsKey === "true") {
  form.hidden = false;
} else {
  load("");
}
