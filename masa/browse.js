"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const groups = data.groups;
document.getElementById("about").textContent = data.about;

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

const distinct = (key) => [...new Set(groups.map((group) => group[key]))].sort((a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
const number = (value, digits) => value === null ? "–" : value.toFixed(digits);

const VERDICTS = {
  mixed: (group) => group.right > 0 && group.right < group.solutions.length,
  "all right": (group) => group.solutions.length > 0 && group.right === group.solutions.length,
  "all wrong": (group) => group.solutions.length > 0 && group.right === 0,
  "not sampled": (group) => group.solutions.length === 0,
};
const DECISIONS = {
  skipped: (group) => group.skipped,
  "would skip": (group) => group.would_skip,
  audited: (group) => group.audited,
  "rolled out": (group) => !group.skipped,
};
const ORDERS = {
  "as they came": null,
  "worst predictions first": (a, b) => (b.error ?? -1) - (a.error ?? -1),
  "longest solutions first": (a, b) => b.longest - a.longest,
};

const filters = document.getElementById("filters");
const controls = {};
function choose(name, options, all) {
  const label = element("label", name);
  const select = element("select");
  select.name = name;
  if (all) select.append(new Option("all", ""));
  for (const option of options) select.append(new Option(option, option));
  label.append(select);
  filters.append(label);
  controls[name] = select;
}
choose("step", distinct("step"), true);
choose("level", distinct("level"), true);
choose("split", distinct("split"), true);
choose("verdict", Object.keys(VERDICTS), true);
choose("decision", Object.keys(DECISIONS), true);
choose("order", Object.keys(ORDERS), false);
const label = element("label", "text");
controls.text = element("input");
controls.text.name = "text";
controls.text.type = "search";
label.append(controls.text);
filters.append(label);

let shown = [];
let place = 0;

function kept(group) {
  for (const key of ["step", "level", "split"]) {
    if (controls[key].value !== "" && String(group[key]) !== controls[key].value) return false;
  }
  const verdict = controls.verdict.value;
  if (verdict && !VERDICTS[verdict](group)) return false;
  const decision = controls.decision.value;
  if (decision && !DECISIONS[decision](group)) return false;
  const text = controls.text.value.toLowerCase();
  if (!text) return true;
  const texts = [group.problem, group.id, ...[...group.solutions, ...group.meta].map((one) => one.text)];
  return texts.some((one) => one.toLowerCase().includes(text));
}

/* [start, end) of the last box or tag with an answer, of the last JSON object after </meta> */
function highlighted(text, isMeta) {
  if (isMeta) {
    const end = text.lastIndexOf("</meta>");
    const start = end < 0 ? -1 : text.indexOf("{", end);
    return start < 0 ? null : [start, text.lastIndexOf("}") + 1];
  }
  const box = text.lastIndexOf("\\boxed{");
  const tag = text.lastIndexOf("<answer>");
  if (tag > box) {
    const end = text.indexOf("</answer>", tag);
    return [tag, end < 0 ? text.length : end + "</answer>".length];
  }
  if (box < 0) return null;
  let depth = 0;
  for (let i = box + 6; i < text.length; i++) {
    if (text[i] === "{") depth++;
    else if (text[i] === "}" && --depth === 0) return [box, i + 1];
  }
  return [box, text.length];
}

function textBlock(text, isMeta) {
  const block = element("pre");
  const range = highlighted(text, isMeta);
  if (range === null || range[1] <= range[0]) block.textContent = text;
  else {
    block.append(text.slice(0, range[0]), element("mark", text.slice(...range)), text.slice(range[1]));
  }
  return block;
}

function show() {
  const main = document.getElementById("main");
  main.replaceChildren();
  const output = document.getElementById("place");
  if (!shown.length) {
    output.textContent = "no prompt";
    return;
  }
  const group = shown[place];
  output.textContent = `${place + 1} of ${shown.length}`;
  const flags = ["skipped", "would_skip", "audited"].filter((flag) => group[flag]);
  const head = element("article");
  head.append(element("h2", [`step ${group.step}`, `${group.split}`, `level ${group.level}`, group.id,
    ...flags.map((flag) => flag.replace("_", " "))].join(" · ")));
  head.append(textBlock(group.problem, false), element("p", `answer: ${group.answer}`));
  const truth = group.solutions.length
    ? `${group.right} of ${group.solutions.length} right, mean length ${number(group.length, 0)}` : "not sampled";
  head.append(element("p", `predicted pass rate ${number(group.predicted, 2)}, length ${number(group.predicted_length, 0)}; truth: ${truth}`));
  main.append(head);
  for (const one of group.meta) {
    const card = element("article", undefined, "meta");
    card.append(element("h2", `prediction · ${one.tokens} tokens` + (one.reward === null ? "" : ` · reward ${number(one.reward, 2)}`)
      + (one.error ? ` · ${one.error}` : "")));
    card.append(textBlock(one.text, true));
    main.append(card);
  }
  for (const one of group.solutions) {
    const card = element("article");
    const verdict = one.correct ? "right" : "wrong";
    card.append(element("h2", `${verdict} · ${one.tokens} tokens · ${one.finish}` + (one.reward === null ? "" : ` · reward ${number(one.reward, 2)}`), verdict));
    card.append(textBlock(one.text, false));
    main.append(card);
  }
}

function filter() {
  shown = groups.filter(kept);
  const order = ORDERS[controls.order.value];
  if (order) shown.sort(order);
  place = 0;
  show();
}
function move(by) {
  if (!shown.length) return;
  place = (place + by + shown.length) % shown.length;
  show();
}
filters.addEventListener("input", filter);
filters.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("previous").addEventListener("click", () => move(-1));
document.getElementById("next").addEventListener("click", () => move(1));
document.addEventListener("keydown", (event) => {
  if (["INPUT", "SELECT"].includes(event.target.tagName)) return;
  if (event.key === "ArrowLeft") move(-1);
  if (event.key === "ArrowRight") move(1);
});
filter();
