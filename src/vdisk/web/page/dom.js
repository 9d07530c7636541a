// Elements from data. Text becomes text nodes, never markup, so that a name can not become code.

export function h(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

// Where an element is below another, as numbers of children; and the element that is there.
function trail(place, element) {
  const steps = [];
  for (let at = element; at !== place; at = at.parentElement) steps.unshift([...at.parentElement.children].indexOf(at));
  return steps;
}

// Puts children in place of what is there. What had the keyboard's focus has it again if it is still there, so that a
// view that is drawn anew every few seconds does not throw anybody out of it; if it is gone, the content has it.
export function fill(place, ...children) {
  const before = document.activeElement;
  const steps = before && before !== place && place.contains(before) ? trail(place, before) : null;
  place.replaceChildren(...children.flat(Infinity).filter((child) => child));
  if (steps === null) return;
  const after = steps.reduce((at, step) => at?.children[step], place);
  const same = after?.tagName === before.tagName && after.textContent === before.textContent;
  (same ? after : document.getElementById("main"))?.focus({ preventScroll: true });
}

export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${Number(bytes.toFixed(bytes < 10 ? 2 : 1))} ${units[unit]}`;
}

export function time(text) {
  return text ? h("time", { datetime: text, title: text }, new Date(text).toLocaleString()) : "–";
}

export function number(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString();
}

export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

const TONE = {
  ready: "good", done: "good", sealed: "good", running: "", queued: "", waiting: "warn", pending: "warn", deleting: "warn", incomplete: "warn",
  failed: "bad", unreadable: "bad", stuck: "bad",
};

export function badge(word, tone = TONE[word] ?? "") {
  return h("span", { class: `badge ${tone}` }, word);
}

// Marks before a head: "#" for figures, "-" for what a narrow window leaves out (its cells have the class "less"), because
// it is on the page of the thing itself as well.
export function table(caption, heads, rows, empty) {
  if (!rows.length) return h("div", { class: "wide" }, h("p", { class: "empty" }, empty));
  const head = heads.map((text) => h("th", {
    scope: "col", class: [text.includes("#") && "number", text.startsWith("-") && "less"].filter(Boolean).join(" "),
  }, text.replace(/^-?#?/, "") || h("span", { class: "unseen" }, "Actions")));
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { hidden: true }, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)));
}

// What an error's details say beyond its message: who has an image open, what hangs on it, what differs.
const TOLD = {
  watchers: ["Open by", (who) => `${who.address} (client.${who.client})`],
  dependents: ["What hangs on it", String],
  differs: ["What differs", String],
};

export function failure(error) {
  const lists = Object.entries(TOLD).filter(([name]) => error.details?.[name]?.length).map(([name, [title, shown]]) => h("div", {},
    h("b", {}, title), h("ul", {}, error.details[name].map((item) => h("li", { class: "mono" }, shown(item))))));
  const operation = error.details?.operation;
  return h("div", { class: "error", role: "alert" }, h("p", {}, error.message), lists,
    operation && h("p", {}, h("a", { href: `#/operation/${encodeURIComponent(operation)}` }, "The operation")));
}

export function notice(text) {
  const line = h("p", {}, text);
  // The latest takes the place of the one before: there is nothing in them that the page does not show as well.
  document.getElementById("notices").replaceChildren(line);
  setTimeout(() => line.remove(), 5000);
}

export function plan(steps) {
  return h("ol", { class: "plan" }, steps.map((step) => h("li", {}, h("b", {}, step.step), ": ", step.description)));
}

// Names and values side by side.
export function facts(list) {
  return h("div", { class: "sheet" }, h("dl", {}, list.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
}
