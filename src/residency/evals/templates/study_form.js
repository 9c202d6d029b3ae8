"use strict";
const form = document.querySelector("form");
const told = document.getElementById("told");
const about = form.dataset;
let saved = true;

function count() {
  const sections = [...form.querySelectorAll("section")];
  const open = sections.filter((one) =>
    [...one.querySelectorAll("fieldset[data-needed]")].some((set) => !set.querySelector(":checked")) ||
    (one.querySelector("[data-harmful]:checked") && !one.querySelector("textarea").value.trim()));
  for (const one of sections) one.classList.toggle("done", !open.includes(one));
  told.textContent = about.told.replace("{done}", sections.length - open.length).replace("{of}", sections.length);
}

form.addEventListener("input", () => { saved = false; count(); });
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = Object.fromEntries(new FormData(form));
  const content = { study: about.study, rater: about.rater, code: about.code, fields };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content)], { type: "application/json" }));
  link.download = `${about.rater}.votes.json`;
  link.click();
  saved = true;
});

document.getElementById("earlier").addEventListener("change", async (event) => {
  let content = {};
  try { content = JSON.parse(await event.target.files[0].text()); } catch { /* said below */ }
  if (content.study !== about.study || content.rater !== about.rater) {
    told.textContent = about.strange;
    return;
  }
  form.reset();
  for (const [name, value] of Object.entries(content.fields)) {
    for (const one of form.querySelectorAll(`[name="${CSS.escape(name)}"]`)) {
      if (one.type === "radio" || one.type === "checkbox") one.checked = one.value === value;
      else one.value = value;
    }
  }
  count();
});

window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });
count();
