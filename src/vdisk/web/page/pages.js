// Lists page by page: in the order of names with a search for the beginning of a name or for a handle, or of ids.

import { get, part } from "./api.js";
import { count, failure, fill, h, table } from "./dom.js";
import { choose } from "./places.js";

const PAGE = 50;
const HANDLE = /^0[01]01-/;

// The names that begin with the search come right after its text in the order of names, but for itself.
async function page(path, place, key, search, marker) {
  const query = { pool_spec: place, limit: PAGE, marker: marker || search };
  const [exact, rest] = await Promise.all([
    search && !marker ? get(`${path}/${part(`${place}/${search}`)}`).catch(() => null) : null,
    get(path, query),
  ]);
  const found = rest.filter((item) => !search || (item.name ?? "").startsWith(search));
  if (exact && exact.name === search) found.unshift(exact);
  return { found, more: found.length >= PAGE && rest.length === PAGE, last: rest.at(-1)?.[key] };
}

// `view` is in the address, `path` that of the request, `one` and `many` what they are called; `row(item, again)` gives
// the rows of an item, `buttons(place, again)` what stands at the right, `note` a line below the title. `key` is what the
// list is in the order of; only names are searched. `empty(place)` is said where there is nothing.
export async function listing(here, {
  view, title, path, one, many = `${one}s`, heads, row, buttons = () => [], note, key = "name", empty = (place) => `No ${many} in ${place} yet.`,
}) {
  const chosen = await choose(view, here, title);
  if (chosen === null) return;
  const [place, select] = chosen;
  const list = h("div", { "aria-live": "polite" });
  const pages = [""];
  let search = "";
  const draw = async () => {
    const asked = `${search} ${pages.length}`;
    list.setAttribute("aria-busy", "true");
    try {
      const { found, more, last } = await page(path, place, key, search, pages.at(-1));
      if (!here.here() || asked !== `${search} ${pages.length}`) return;
      const go = (text, disabled, move) => h("button", { disabled, onclick: () => { move(); draw(); } }, text);
      fill(list, table(`${title} of ${place}`, heads, found.map((item) => row(item, draw)),
        search ? `No name begins with ${search}.` : empty(place)),
      h("div", { class: "bar" }, h("span", { class: "soft" }, `Page ${pages.length}, ${count(found.length, one, many)}`), h("span", { class: "gap" }),
        pages.length > 2 && go("First", false, () => pages.splice(1)), go("Previous", pages.length < 2, () => pages.pop()),
        go("Next", !more, () => pages.push(last))));
    } catch (error) {
      if (here.here()) fill(list, failure(error));
    }
    list.removeAttribute("aria-busy");
  };
  const find = h("input", { type: "search", placeholder: "beginning of a name, or a handle" });
  const submit = (event) => {
    event.preventDefault();
    const text = find.value.trim();
    if (HANDLE.test(text)) { location.hash = `#/volume/${encodeURIComponent(text)}`; return; }
    search = text;
    pages.splice(1);
    draw();
  };
  fill(here.main, h("h1", {}, title), note && h("p", { class: "soft" }, note), h("form", { class: "bar", role: "search", onsubmit: submit }, select,
    key === "name" && [h("label", {}, "Find", find), h("button", {}, "Search")], h("span", { class: "gap" }), buttons(place, draw)), list);
  await draw();
}
