// Places in a text: Python counts code points, a browser counts UTF-16 units.
"use strict";

// The place of the last of ordered numbers that is not above a number.
function below(list, value) {
  let low = 0, high = list.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (list[middle] <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}

class Points {
  constructor(text, lang) {
    this.text = text;
    this.units = []; // of each code point, and of the end
    for (let at = 0; at <= text.length; at += text.codePointAt(at) > 0xffff ? 2 : 1) this.units.push(at);
    this.edges = this.boundaries("grapheme", lang);
    this.words = this.boundaries("word", lang);
  }
  boundaries(granularity, lang) {
    if (!Intl.Segmenter) return this.units;
    const found = new Intl.Segmenter(lang || undefined, { granularity }).segment(this.text);
    return [...Array.from(found, (one) => one.index), this.text.length];
  }
  at(unit) {
    return below(this.units, unit);
  }
  // Units as code points: whole letters as people see them, no blanks at the edges.
  whole({ start, end }) {
    start = this.edges[below(this.edges, start)];
    const last = below(this.edges, end);
    end = this.edges[last] < end ? this.edges[last + 1] : end;
    while (start < end && /\s/.test(this.text[start])) start += 1;
    while (start < end && /\s/.test(this.text[end - 1])) end -= 1;
    return { start: this.at(start), end: this.at(end) };
  }
  // The word at a place, or the one before it.
  wordAt(unit) {
    let at = below(this.words, Math.min(unit, this.text.length - 1));
    const isWord = (n) => /[\p{L}\p{N}]/u.test(this.text.slice(this.words[n], this.words[n + 1]));
    if (at && unit === this.words[at] && !isWord(at)) at -= 1;
    return this.whole({ start: this.words[at], end: this.words[at + 1] ?? this.text.length });
  }
}

// The unit of a place in the page.
function unitOf(root, node, offset) {
  const range = document.createRange();
  range.selectNodeContents(root);
  range.setEnd(node, offset);
  return range.toString().length;
}

// The place in the page of a unit.
function locate(root, unit) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  let node = walker.nextNode(), before = null;
  while (node && unit > node.length) {
    unit -= node.length;
    before = node;
    node = walker.nextNode();
  }
  return node ? [node, unit] : before ? [before, before.length] : [root, 0];
}

// What is selected, in units; nothing where that is elsewhere.
function selectedIn(root, length) {
  const now = getSelection();
  if (!now.rangeCount) return null;
  const range = now.getRangeAt(0);
  const inside = [root.contains(range.startContainer), root.contains(range.endContainer)];
  if (!range.intersectsNode(root) || (range.collapsed && !inside[0])) return null;
  return {
    start: inside[0] ? unitOf(root, range.startContainer, range.startOffset) : 0,
    end: inside[1] ? unitOf(root, range.endContainer, range.endOffset) : length,
  };
}

// The lane of each of several marks: those that overlap have different ones, the shortest the nearest.
function lanesOf(marks) {
  const found = new Map();
  for (const mark of [...marks].sort((a, b) => a.end - a.start - (b.end - b.start))) {
    const over = [...found].filter(([other]) => other.start < mark.end && mark.start < other.end);
    const used = new Set(over.map((one) => one[1]));
    let lane = 0;
    while (used.has(lane)) lane += 1;
    found.set(mark, lane);
  }
  return found;
}
