// Who descends from whom, through the trash, and what holds an image.

import * as actions from "./actions.js";
import { get } from "./api.js";
import { badge, fill, h, number, size } from "./dom.js";
import { button } from "./items.js";
import { choose } from "./places.js";

const HANDLE = /^0[01]01-/;
const moment = (text) => text.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/, (found) => new Date(found).toLocaleString());

// That it is what it is holds every volume, and its clones are drawn below it: no news.
function holders(item) {
  const drawn = item.children.map((child) => child.image);
  return item.held_by.filter((reason) => !reason.startsWith("it is ")
    && !(reason.startsWith("clone ") && drawn.some((image) => reason.includes(`/${image}`)))).map(moment);
}

function node(here, item, again) {
  if (item.pool === null) return h("li", {}, h("div", { class: "node" }, "An image that you may not see"));
  const kind = item.handle && !item.trashed ? (item.kind === "snapshot" ? "snapshot" : "volume") : null;
  const held = holders(item);
  const spec = `${actions.spec(item)}/${item.image}`;
  const about = [size(item.size), item.used === null ? null : `used ${size(item.used)}`, item.frees ? `frees ${size(item.frees)}` : null,
    item.children.length ? `${number(item.children.length)} below` : null];
  return h("li", {},
    h("div", { class: `node ${item.kind} ${item.trashed ? "trashed" : ""}` }, badge(item.kind), " ",
      kind ? h("a", { href: `#/${kind}/${encodeURIComponent(item.handle)}` }, actions.called(item)) : h("b", {}, actions.called(item)),
      item.trashed ? [" ", badge("in the trash", "bad")] : null,
      item.removal && [" ", h("a", { href: `#/operation/${encodeURIComponent(item.removal)}` }, "being removed")],
      h("div", { class: "soft" }, about.filter(Boolean).join(", ")),
      held.length ? h("div", { class: "soft" }, `held: ${held.join("; ")}`) : null,
      item.kind === "image" && !item.trashed && here.may("create") && h("div", { class: "own" },
        button("Adopt", () => actions.adopt(null, spec, again)), " ", button("Snapshot", () => actions.snapshot(item, again)))),
    item.children.length ? h("ul", {}, item.children.map((child) => node(here, child, again))) : null);
}

export async function lineage(here) {
  const family = HANDLE.test(here.parts[0] ?? "");
  const chosen = family ? [here.parts[0], h("a", { href: "#/lineage" }, "All of the pool")] : await choose("lineage", here, "Lineage");
  if (chosen === null) return;
  const [place, above] = chosen;
  const head = () => [h("h1", {}, family ? "Lineage of a volume" : "Lineage"), h("div", { class: "bar" }, above)];
  const draw = async () => {
    const trees = await get("/tree", { pool_spec: place });
    if (!here.here()) return;
    fill(here.main, head(),
      trees.length ? h("ul", { class: "tree", "aria-label": `Lineage in ${place}` }, trees.slice(0, 500).map((item) => node(here, item, draw)))
        : h("div", { class: "wide" }, h("p", { class: "empty" }, family ? "Its image is not there yet." : `Nothing in ${place} yet.`)),
      trees.length > 500 ? h("p", { class: "soft" }, `${number(trees.length - 500)} more families; open a volume to see its own.`) : null);
  };
  fill(here.main, head(), h("p", { class: "empty", "aria-busy": "true" }, "Reading …"));
  await draw();
}
