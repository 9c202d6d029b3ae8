// What the pages do better with a script, and do without one too.
"use strict";

const EVERY = 1500;

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  for (const button of form.querySelectorAll("button")) button.setAttribute("aria-disabled", "true");
});

// A page that was left and is come back to by "back" may send its forms again.
window.addEventListener("pageshow", () => {
  for (const form of document.forms) {
    delete form.dataset.sent;
    for (const button of form.querySelectorAll("button")) button.removeAttribute("aria-disabled");
  }
});

// Work under way: asked for again and again, until it has ended and the page is another one.
async function follow(place) {
  let before = "";
  for (;;) {
    await new Promise((done) => setTimeout(done, EVERY));
    let state;
    try {
      const answer = await fetch(place.dataset.follow, { headers: { accept: "application/json" } });
      if (!answer.ok) throw new Error();
      state = await answer.json();
    } catch {
      continue; // the server may come back
    }
    if (state.ended) {
      location.reload();
      return;
    }
    if (state.html && state.html !== before) place.innerHTML = before = state.html;
    const said = document.getElementById("said");
    if (said && said.textContent !== state.said) said.textContent = state.said;
  }
}

for (const place of document.querySelectorAll("[data-follow]")) follow(place);

// Keys of a queue, while it has the focus: one letter presses a button, or goes to a field.
for (const place of document.querySelectorAll("[data-keys]")) {
  place.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea")) return;
    const wanted = [...place.querySelectorAll("[data-key]")].find((one) => one.dataset.key === event.key);
    if (!wanted) return;
    event.preventDefault();
    if (wanted.matches("textarea")) wanted.focus();
    else wanted.click();
  });
  place.focus();
}
