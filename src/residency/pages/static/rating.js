// Votes by digit keys, and a vote that is not lost where the pages do not answer.
"use strict";

const unsent = document.getElementById("unsent");
let last = { set: null, digit: "", at: 0 };

// What is marked next: where the focus is, if that is open; else the first that is open.
function nextSet() {
  const sets = [...document.querySelectorAll("fieldset[data-keys]")];
  const open = sets.filter((one) => !one.querySelector(":checked"));
  const here = document.activeElement.closest("fieldset[data-keys]");
  return open.includes(here) ? here : open[0] || here || (sets.length === 1 ? sets[0] : null);
}

function choose(set, value) {
  const found = set.dataset.keys === "choice"
    ? set.querySelectorAll("input")[value - 1]
    : set.querySelector(`input[value="${value}"]`);
  if (!found) return false;
  found.checked = true;
  found.focus();
  return true;
}

document.addEventListener("keydown", (event) => {
  const place = event.target;
  if (!/^[0-9]$/.test(event.key) || event.ctrlKey || event.altKey || event.metaKey) return;
  if (place.matches("textarea, input[type=text]")) return;
  // 1 and then 0 is ten, where there is one
  const ten = event.key === "0" && last.digit === "1" && event.timeStamp - last.at < 1000;
  if (ten && choose(last.set, 10)) {
    last = { set: null, digit: "", at: 0 };
    event.preventDefault();
    return;
  }
  const set = nextSet();
  if (!set || !choose(set, Number(event.key))) return;
  last = { set, digit: event.key, at: event.timeStamp };
  event.preventDefault();
});

// The vote is sent from here, so that the page with what was filled in stays where nobody answers.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("[data-vote]") || event.defaultPrevented) return;
  event.preventDefault();
  const fields = new URLSearchParams(new FormData(form, event.submitter));
  unsent.hidden = true;
  let answer;
  try {
    answer = await fetch(form.action, { method: "POST", body: fields });
  } catch {
    unsent.hidden = false;
    unsent.scrollIntoView({ block: "center" });
    delete form.dataset.sent;
    for (const button of form.querySelectorAll("button")) button.removeAttribute("aria-disabled");
    return;
  }
  if (answer.ok) {
    location.assign(answer.url);
    return;
  }
  // what is wanting is said by the page that a plain form gets
  for (const [name, value] of fields) {
    if (name !== "go") continue;
    const hidden = Object.assign(document.createElement("input"), { type: "hidden", name, value });
    form.append(hidden);
  }
  HTMLFormElement.prototype.submit.call(form);
});
