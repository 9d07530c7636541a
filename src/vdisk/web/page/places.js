// The choice of a pool and namespace, which several views begin with. It is part of the address.

import { get } from "./api.js";
import { fill, h } from "./dom.js";

export const places = async () => (await get("/pool"))
  .flatMap((found) => ["", ...found.namespaces].map((name) => (name ? `${found.pool}/${name}` : found.pool)));

// Returns [place, select], or draws why there is none and returns null.
export async function choose(view, here, title) {
  const all = await places();
  if (!here.here()) return null;
  if (!all.length) {
    fill(here.main, h("h1", {}, title), h("p", { class: "empty" },
      "No pool may hold volumes yet. Make one: ceph osd pool create rbd, then rbd pool init rbd."));
    return null;
  }
  const remembered = sessionStorage.getItem("vdisk.place");
  const place = here.parts[0] || (all.includes(remembered) ? remembered : all[0]);
  sessionStorage.setItem("vdisk.place", place);
  if (!all.includes(place)) all.unshift(place);
  const select = h("select", { onchange: (event) => { location.hash = `#/${view}/${encodeURIComponent(event.target.value)}`; } },
    all.map((item) => h("option", { value: item, selected: item === place }, item)));
  return [place, h("label", {}, "Pool", select)];
}
