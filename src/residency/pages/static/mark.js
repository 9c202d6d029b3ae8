// Marking a note. Marks are counted in code points; the page counts in UTF-16 units, as browsers do. Every step is
// sent at once and proved by the server; what cannot be sent is kept in this browser without any text.
"use strict";

const by = (id) => document.getElementById(id);
const person = by("labeller");
const prefix = `residency ${person.dataset.labeller} `;
const headers = { "content-type": "application/json", "x-token": person.dataset.token };
const post = (address, body) => fetch(address, { method: "POST", headers, body: JSON.stringify(body) });
const RETRY = 2000;
const IDLE = 60_000;

// Steps of this person that were kept when the pages did not answer. Whether one came too late.
async function flush() {
  let late = false;
  for (const key of Object.keys(localStorage)) {
    if (!key.startsWith(prefix)) continue;
    const answer = await post(key.slice(prefix.length), JSON.parse(localStorage[key]));
    if (answer.ok || [400, 404, 409].includes(answer.status)) {
      localStorage.removeItem(key);
      late ||= !answer.ok;
    }
  }
  return late;
}

function marking(place) {
  const text = by("text");
  const work = `${place.dataset.address}/work`;
  const writer = [...crypto.getRandomValues(new Uint8Array(8))].map((one) => one.toString(16).padStart(2, "0")).join("");
  const words = Object.fromEntries([...by("spoken").children].map((one) => [one.dataset.word, one.textContent]));
  const buttons = [...document.querySelectorAll(".label")];
  const labels = new Map(buttons.map((one, n) => [one.dataset.label, { title: one.querySelector("span").textContent, colour: `c${n % 10}`, key: one.dataset.key, coded: "coded" in one.dataset }]));
  const attributes = [...document.querySelectorAll(".attribute")];
  let note, points, units;
  let marks = [], chosen = null, choice = null, picked = false, state = "open", version = 0, seconds = 0;
  let past = [], waiting = null, sending = false, turn = 0, leave = false, last = performance.now();

  const selected = () => selectedIn(text, note.text.length);

  // Drawing
  const quoted = (mark) => note.text.slice(units[mark.start], units[mark.end]);
  const ordered = () => [...marks].sort((a, b) => a.start - b.start || b.end - a.end);
  const asked = (mark) => note.asked.filter((one) => one.start === mark.start && one.end === mark.end && one.label === mark.label);
  function said(mark) {
    const more = [...mark.attributes, ...(mark.code ? [mark.code] : []), ...(asked(mark).length ? ["?"] : [])];
    return [labels.get(mark.label)?.title ?? mark.label, ...more].join(" · ");
  }
  function render() {
    const at = document.activeElement === text || getSelection().toString() ? selected() : null;
    const lane = lanesOf(marks);
    const cuts = new Set([0, note.text.length, ...(note.place ?? []).map((one) => units[one])]);
    for (const mark of marks) cuts.add(units[mark.start]).add(units[mark.end]);
    const order = [...cuts].sort((a, b) => a - b);
    text.replaceChildren(...order.slice(0, -1).map((start, n) => piece(start, order[n + 1], lane)));
    if (at) getSelection().setBaseAndExtent(...locate(text, at.start), ...locate(text, at.end));
    list(), panel();
  }
  function piece(start, end, lane) {
    let made = document.createTextNode(note.text.slice(start, end));
    const over = marks.filter((one) => units[one.start] <= start && end <= units[one.end]).sort((a, b) => lane.get(a) - lane.get(b));
    for (const mark of over) {
      const one = document.createElement("span");
      one.className = `m ${labels.get(mark.label)?.colour} l${Math.min(lane.get(mark), 4)}`;
      one.classList.toggle("proposed", Boolean(mark.proposed));
      one.classList.toggle("chosen", mark === chosen);
      if (units[mark.end] === end) {
        one.classList.add("last");
        one.dataset.said = said(mark);
      }
      one.append(made);
      made = one;
    }
    if (note.place && units[note.place[0]] <= start && end <= units[note.place[1]]) {
      const one = document.createElement("span");
      one.className = "place";
      one.append(made);
      made = one;
    }
    return made;
  }
  function button(words, colour, press, pressed) {
    const item = document.createElement("li"), one = document.createElement("button");
    one.type = "button";
    one.className = colour ?? "";
    one.textContent = words;
    if (pressed !== undefined) one.setAttribute("aria-pressed", pressed);
    one.addEventListener("click", press);
    item.append(one);
    return item;
  }
  function list() {
    const named = (mark) => `${said(mark)}: ${quoted(mark)}${mark.proposed ? ` (${words.proposed})` : ""}`;
    by("marks").replaceChildren(...ordered().map((mark) => button(named(mark), labels.get(mark.label)?.colour, () => { choose(mark); text.focus({ preventScroll: true }); }, mark === chosen)));
    by("count").textContent = marks.length;
    const left = marks.filter((one) => one.proposed).length;
    by("rest").hidden = !left;
    by("left").textContent = `(${left})`;
    if (!place.dataset.decides) return;
    const given = note.candidates.map((one, n) => [one.map((mark) => `${said({ ...mark, attributes: mark.attributes ?? [] })}: ${quoted(mark)}`).join("; ") || words.none, n + 1]);
    if (note.candidates.every((one) => one.length)) given.push([words.none, 0]);
    by("choices").replaceChildren(...given.map(([told, n]) => button(told, "", () => pick(n), n ? choice === n : picked && !choice && !marks.length)));
  }
  function panel() {
    by("chosen").hidden = !chosen;
    for (const one of buttons) one.setAttribute("aria-pressed", chosen?.label === one.dataset.label);
    if (!chosen) return;
    by("quote").textContent = `${said(chosen)}: ${quoted(chosen)}`;
    by("accept").hidden = !chosen.proposed;
    for (const one of attributes) one.setAttribute("aria-pressed", chosen.attributes.includes(one.dataset.attribute));
    if (by("coding")) {
      by("coding").hidden = !labels.get(chosen.label)?.coded;
      by("code").textContent = chosen.code ?? "";
    }
    if (by("asked")) by("asked").textContent = asked(chosen).map((one) => one.words + (one.answer ? ` ${words.answer}: ${one.answer}` : "")).join(" / ");
  }
  const say = (told) => (by("said").textContent = told);
  const fault = (told) => (by("fault").textContent = told);

  // Changing
  const copy = (list) => list.map((one) => ({ ...one, attributes: [...(one.attributes ?? [])] }));
  function step(change, told, keeps) {
    past.push({ marks: copy(marks), choice, state, picked });
    const at = marks.indexOf(chosen);
    marks = copy(marks);
    chosen = marks[at] ?? null;
    change();
    if (!keeps) choice = null;
    if (state === "skipped") state = "open";
    fault("");
    render();
    say(told());
    keep();
  }
  const told = (how) => `${how}: ${said(chosen)}, ${quoted(chosen)}`;
  function put(label) {
    const at = selected();
    const range = at && (at.start < at.end ? points.whole(at) : chosen || document.activeElement !== text || !note.text ? null : points.wordAt(at.start));
    if (range && range.start < range.end) {
      step(() => {
        chosen = marks.find((one) => one.start === range.start && one.end === range.end && one.label === label) ?? { ...range, label, code: null, attributes: [] };
        chosen.proposed = false;
        if (!marks.includes(chosen)) marks.push(chosen);
      }, () => told(words.marked));
      getSelection().collapse(...locate(text, units[range.end]));
    } else if (chosen) {
      step(() => Object.assign(chosen, { label, proposed: false, code: labels.get(label)?.coded ? chosen.code : null }), () => told(words.changed));
    } else fault(words.select);
  }
  function toggle(name) {
    if (!name || !chosen) return;
    const has = chosen.attributes.includes(name);
    step(() => Object.assign(chosen, { proposed: false, attributes: has ? chosen.attributes.filter((one) => one !== name) : [...chosen.attributes, name] }), () => told(words.changed));
  }
  function follow(mark, wanted) {
    const found = ordered().filter((one) => one === mark || wanted(one));
    return found[found.indexOf(mark) + 1] ?? found.find((one) => one !== mark && wanted(one)) ?? null;
  }
  function accept() {
    if (!chosen?.proposed) return go(1);
    const before = said(chosen), next = follow(chosen, (one) => one.proposed), at = marks.indexOf(next);
    step(() => { chosen.proposed = false; chosen = marks[at] ?? chosen; }, () => `${before} ${words.accepted}. ${chosen.proposed ? told(words.proposed) : ""}`);
    show();
  }
  function remove() {
    if (!chosen) return;
    const before = said(chosen), next = follow(chosen, (one) => one.proposed), at = marks.indexOf(next);
    step(() => { const gone = chosen; chosen = marks[at] ?? null; marks = marks.filter((one) => one !== gone); }, () => `${before} ${words.deleted}`);
    show();
  }
  function move() {
    const at = selected(), range = at && points.whole(at);
    if (!chosen || !range || range.start >= range.end) return fault(words.select);
    step(() => Object.assign(chosen, range, { proposed: false }), () => told(words.changed));
    show();
  }
  function pick(n) {
    step(() => { choice = n || null; picked = true; marks = copy(n ? note.candidates[n - 1] : []); chosen = null; }, () => words.chosen, true);
  }
  function undo() {
    if (!past.length) return;
    ({ marks, choice, state, picked } = past.pop());
    chosen = null;
    render();
    say(words.undone);
    keep();
  }
  function choose(mark) {
    chosen = mark;
    render();
    if (mark) say(told(mark.proposed ? words.proposed : words.chosen));
    show();
  }
  // The chosen mark in view, and no longer what was selected before: a digit is for the mark now.
  function show() {
    text.querySelector(".chosen")?.scrollIntoView({ block: "nearest" });
    if (chosen && !getSelection().isCollapsed) getSelection().collapse(...locate(text, units[chosen.start]));
  }
  function go(way) {
    const found = ordered(), at = chosen ? found.indexOf(chosen) + way : way > 0 ? 0 : -1;
    if (found.length) choose(found[(at + found.length) % found.length]);
  }
  function finish(wanted) {
    const unseen = ordered().find((one) => one.proposed);
    if (wanted === "done" && unseen) {
      fault(words.unseen);
      return choose(unseen);
    }
    if (place.dataset.decides && !choice && !marks.length && !picked) {
      fault(words.choose);
      return by("choices").querySelector("button").focus();
    }
    past.push({ marks: copy(marks), choice, state, picked });
    state = wanted;
    leave = true;
    keep();
  }

  // Keeping
  function keep() {
    waiting = { writer, turn: ++turn, base: version, state, seconds: Math.round(seconds * 10) / 10, choice, marks: marks.map(bare) };
    try { localStorage.setItem(prefix + work, JSON.stringify(waiting)); } catch { /* a browser that keeps nothing */ }
    by("kept").textContent = words.saving;
    send();
  }
  async function send() {
    if (sending || !waiting) return;
    sending = true;
    const sent = waiting;
    try {
      const answer = await post(work, { ...sent, base: version, marks: sent.marks.map((one) => ({ ...one, quote: quoted(one) })) });
      if (answer.status === 403) return fault(words.stranger);
      if (answer.status >= 500) throw new Error();
      const found = await answer.json();
      const newest = waiting === sent;
      if (!answer.ok) {
        waiting = null;
        leave = false;
        localStorage.removeItem(prefix + work);
        await load();
        return fault(found.said);
      }
      version = found.version;
      if (!newest) return;
      waiting = null;
      localStorage.removeItem(prefix + work);
      by("kept").textContent = words.saved;
      if (leave) return location.assign(note.next);
      adopt(found);
    } catch {
      by("kept").textContent = words.offline;
      setTimeout(send, RETRY);
    } finally {
      sending = false;
      if (waiting && waiting !== sent) send();
    }
  }
  const bare = ({ start, end, label, code, attributes, proposed }) => ({ start, end, label, code: code || null, attributes: [...(attributes ?? [])].sort(), proposed: Boolean(proposed) });
  const spelled = (list) => JSON.stringify(list.map(bare).map((one) => JSON.stringify(one)).sort());
  // What the server has; not drawn again where it is what stands here, as somebody may be selecting.
  function adopt(found) {
    seconds = Math.max(seconds, found.seconds);
    if (spelled(found.marks) === spelled(marks) && text.dataset.ready) return void ({ choice, state, version } = found);
    const had = chosen;
    ({ marks, choice, state, version } = found);
    chosen = (had && marks.find((one) => one.start < had.end && had.start < one.end && one.label === had.label)) ?? null;
    render();
  }
  async function load() {
    const answer = await fetch(work, { headers });
    if (answer.status === 403) return fault(words.stranger);
    if (!answer.ok) throw new Error();
    note = await answer.json();
    points = new Points(note.text, note.lang);
    units = points.units;
    past = [];
    adopt(note);
  }
  async function begin() {
    try {
      if (await flush()) fault(words.lost);
      await load();
    } catch {
      by("kept").textContent = words.offline;
      setTimeout(begin, RETRY);
      return;
    }
    by("kept").textContent = version ? `${words[state]}, ${words.saved}` : words[state];
    if (!note) return;
    text.focus({ preventScroll: true });
    const first = ordered().find((one) => one.proposed);
    if (first) choose(first);
    if (note.place) text.querySelector(".place")?.scrollIntoView({ block: "center" });
    text.dataset.ready = "yes";
  }

  // Codes and questions
  let asking = 0;
  async function search() {
    const mine = ++asking;
    await new Promise((done) => setTimeout(done, 150));
    if (mine !== asking) return;
    const answer = await post("/label/codes", { words: by("words").value }).catch(() => null);
    const found = answer?.ok ? await answer.json() : [];
    if (mine !== asking) return;
    by("codes").replaceChildren(...found.map(([code, name]) => button(`${code} ${name}`, "", () => give(code))));
  }
  function give(code) {
    if (!chosen) return;
    step(() => Object.assign(chosen, { code, proposed: false }), () => told(words.changed));
    by("codes").replaceChildren();
    text.focus({ preventScroll: true });
  }
  function code() {
    if (!chosen || !by("coding") || by("coding").hidden) return;
    by("words").value = quoted(chosen);
    by("words").focus();
    by("words").select();
    search();
  }
  async function ask() {
    const { start, end, label } = chosen ?? {}, question = by("question").value;
    const answer = chosen && (await post(`${place.dataset.address}/ask`, { start, end, label, words: question }).catch(() => null));
    if (!answer?.ok) return fault(answer ? (await answer.json().catch(() => ({}))).said ?? words.unasked : words.unasked);
    note.asked.push({ start, end, label, words: question, answer: "" });
    by("question").value = "";
    fault("");
    render();
    say(words.sent);
  }

  // Mouse and keys
  const MOVES = { ArrowLeft: ["left", "character", "word"], ArrowRight: ["right", "character", "word"], ArrowUp: ["backward", "line", "line"], ArrowDown: ["forward", "line", "line"], Home: ["backward", "lineboundary", "documentboundary"], End: ["forward", "lineboundary", "documentboundary"] };
  function arrow(event) {
    const now = getSelection(), [way, plain, far] = MOVES[event.key];
    if (!selected()) now.collapse(...locate(text, chosen ? units[chosen.start] : 0));
    const before = unitOf(text, now.focusNode, now.focusOffset);
    if (!event.shiftKey && chosen) { chosen = null; render(); }
    now.modify(event.shiftKey ? "extend" : "move", way, event.ctrlKey || event.altKey ? far : plain);
    if (!text.contains(now.focusNode)) now.collapse(...locate(text, before));
    const after = unitOf(text, now.focusNode, now.focusOffset);
    const passed = note.text.slice(Math.min(before, after), Math.max(before, after));
    say(event.shiftKey ? now.toString().slice(0, 200) : passed.slice(0, 80));
  }
  function caret() {
    const now = getSelection(), inside = now.rangeCount && now.isCollapsed && text.contains(now.focusNode) && document.activeElement === text;
    const at = inside ? now.getRangeAt(0).getClientRects()[0] : null;
    by("caret").hidden = !at;
    if (!at) return;
    const paper = text.parentElement.getBoundingClientRect(), style = by("caret").style;
    style.left = `${at.left - paper.left}px`;
    style.top = `${at.top - paper.top}px`;
    style.height = `${at.height}px`;
  }
  const LETTERS = { n: () => go(1), b: () => go(-1), x: remove, Delete: remove, Backspace: remove, m: move, z: undo, c: code, v: () => { if (chosen && by("unsure")) { by("unsure").open = true; by("question").focus(); } }, Enter: accept, Escape: () => { getSelection().removeAllRanges(); choose(null); } };
  function key(event) {
    if (!note || event.isComposing) return;
    const held = event.ctrlKey || event.metaKey;
    if (held && event.key === "Enter") { event.preventDefault(); return finish("done"); }
    if (event.target.closest("input, textarea")) {
      if (event.key === "Escape") text.focus({ preventScroll: true });
      if (event.key === "Enter" && event.target.id === "words") by("codes").querySelector("button")?.click();
      return;
    }
    if (held && event.code === "KeyZ") { event.preventDefault(); return undo(); }
    if (event.key in MOVES && event.target === text) { event.preventDefault(); return arrow(event); }
    if (held || event.altKey || (event.target.closest("button, a, summary") && ["Enter", " "].includes(event.key))) return;
    const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1];
    const letter = /^[a-z]$/i.test(event.key) ? event.key.toLowerCase() : /^Key([A-Z])$/.exec(event.code)?.[1].toLowerCase() ?? event.key;
    const label = [...labels].find(([, one]) => one.key && one.key === (digit ?? letter))?.[0];
    if (digit && event.shiftKey) toggle(attributes[digit - 1]?.dataset.attribute);
    else if (label) put(label);
    else if (LETTERS[letter]) LETTERS[letter]();
    else return;
    event.preventDefault();
  }
  document.addEventListener("keydown", key);
  for (const [one, event] of [[document, "selectionchange"], [text, "blur"], [text, "focus"]]) one.addEventListener(event, caret);
  place.addEventListener("mousedown", (event) => { if (event.target.closest("button")) event.preventDefault(); });
  text.addEventListener("click", () => {
    const at = selected();
    if (!at || at.start < at.end) return;
    const here = points.at(at.start), over = ordered().filter((one) => one.start <= here && here <= one.end).sort((a, b) => a.end - a.start - (b.end - b.start));
    const next = over[(over.indexOf(chosen) + 1) % Math.max(1, over.length)] ?? null;
    if (next !== chosen) choose(next);
  });
  for (const event of ["keydown", "pointermove", "pointerdown", "wheel"]) document.addEventListener(event, () => {
    seconds += Math.min(performance.now() - last, IDLE) / 1000;
    last = performance.now();
  }, { passive: true });
  for (const one of buttons) one.addEventListener("click", () => put(one.dataset.label));
  for (const one of attributes) one.addEventListener("click", () => toggle(one.dataset.attribute));
  const presses = { done: () => finish("done"), skip: () => finish("skipped"), undo, accept, remove, move, ask, rest: () => step(() => marks.forEach((one) => (one.proposed = false)), () => words.accepted) };
  for (const [id, press] of Object.entries(presses)) by(id)?.addEventListener("click", press);
  by("words")?.addEventListener("input", search);
  begin();
}

if (by("mark")) marking(by("mark"));
else flush().catch(() => {});
