// Every action as a dialog: on volumes, snapshots, group snapshots, the trash, operations and schedules.

import { call, part } from "./api.js";
import { count, h } from "./dom.js";
import { form } from "./forms.js";

const WAIT = 5;
const name = (value = "") => ({ name: "name", label: "Name", required: true, value, hint: "The request name, unique in its pool and namespace." });
const volumeSize = (required) => ({ name: "size", label: "Size", required, hint: required ? "Bytes, or with a unit such as 10G." : "As large as the source if empty; it may be larger." });
const target = (place) => ({ name: "pool_spec", label: "Pool", required: true, value: place, hint: "pool or pool/namespace" });
const keep = { name: "keep_for", label: "Can be undeleted for", value: "7d", hint: "Such as 7d or 12h. Empty: as the option trash_keep_for says, or not at all." };
const layout = (source) => ["Layout", [
  { name: "image_features", label: "Image features", hint: `RBD features, a comma between. Empty: ${source ? "the source's" : "librbd's default"}.` },
  { name: "data_pool", label: "Data pool", hint: "For the data, such as an erasure-coded pool." },
  { name: "object_size", label: "Object size", hint: "4K to 32M, a power of two." },
  { name: "stripe_unit", label: "Stripe unit", hint: "Bytes, with a stripe count." },
  { name: "stripe_count", label: "Stripe count", hint: "Objects to stripe over, with a stripe unit." },
]];
const made = (what) => (answer) => (answer.state === "pending" ? `${what} goes on in the background.` : `${what} is done.`);

export const spec = (item) => (item.namespace ? `${item.pool}/${item.namespace}` : item.pool);
export const called = (item) => item.name ?? item.image;

export const create = (place, confirmed) => form({
  title: "Create a volume", fields: [target(place), name(), volumeSize(true)], more: layout(false), submit: "Create", confirmed,
  action: (values) => call("POST", "/volume", { ...values, wait: WAIT }), done: made("Creating the volume"),
});

export const snapshot = (item, confirmed) => form({
  title: `Snapshot of ${called(item)}`, fields: [{ ...name(), name: "snap_name" }], submit: "Take snapshot", confirmed,
  action: (values) => call("POST", "/snapshot", { image_spec: `${spec(item)}/${item.image}`, ...values, wait: WAIT }),
  done: made("The snapshot"),
});

export const clone = (volume, confirmed) => form({
  title: `Clone ${called(volume)}`, fields: [name(), target(spec(volume)), volumeSize(false)], more: layout(true), submit: "Clone", confirmed,
  action: (values) => call("POST", `/volume/${part(volume.handle)}/clone`, { ...values, wait: WAIT }), done: made("Cloning"),
});

export const restore = (shot, confirmed) => form({
  title: `Restore ${called(shot)} to a new volume`, fields: [name(), target(spec(shot)), volumeSize(false)], more: layout(true), submit: "Restore",
  confirmed, action: (values) => call("POST", `/snapshot/${part(shot.handle)}/restore`, { ...values, wait: WAIT }), done: made("Restoring"),
});

export const resize = (volume, confirmed) => form({
  title: `Grow ${called(volume)}`, text: "Volumes never shrink.", fields: [volumeSize(true)], submit: "Grow", confirmed,
  action: (values) => call("PUT", `/volume/${part(volume.handle)}/size`, { ...values, wait: WAIT }), done: made("Growing the volume"),
});

export const flatten = (volume, confirmed) => form({
  title: `Flatten ${called(volume)}`, text: "Copies what it shares with its parents, so that it depends on none of them. It stays in use.",
  submit: "Flatten", confirmed, action: (values) => call("POST", `/volume/${part(volume.handle)}/flatten`, { ...values, wait: WAIT }),
  done: made("Flattening"),
});

export const revert = (volume, shot, confirmed) => form({
  title: `Revert ${called(volume)} to ${called(shot)}`, danger: true, submit: "Revert", confirmed,
  text: "Refused while somebody has the volume open. What it holds now goes to the trash as a volume of its own.",
  fields: [{ name: "keep_for", label: "Former content can be undeleted for", hint: "Such as 7d. Empty: as the option revert_keep_for says." }],
  action: (values) => call("POST", `/volume/${part(volume.handle)}/revert`, { snapshot: shot.handle, ...values, wait: WAIT }),
  done: made("Reverting"),
});

export const adopt = (place, image, confirmed) => form({
  title: "Adopt an image as a volume", submit: "Adopt", confirmed,
  text: "The image becomes a volume as it is, without copying; an image's snapshot (image@snapshot) becomes a snapshot.",
  fields: [{ name: "image_spec", label: "Image", required: true, value: image ?? `${place}/`, hint: "pool/image or pool/namespace/image" }, name()],
  action: (values) => call("POST", "/adopt", { ...values, wait: WAIT }), done: made("Adopting"),
});

export const release = (volume, confirmed) => form({
  title: `Release ${called(volume)}`, danger: true, submit: "Release", confirmed,
  text: `It is no volume any more: name and handle are free. Its image ${volume.image} and what it holds stay as they are.`,
  action: (values) => call("POST", `/volume/${part(volume.handle)}/release`, { ...values, wait: WAIT }), done: made("Releasing"),
});

const LEFT = {
  volume: "Its snapshots stay. Refused while somebody has it open.",
  snapshot: "Volumes that were restored from it stay.",
  group: "Its snapshots go with it. Volumes that were restored from them stay.",
};

export const remove = (kind, item, confirmed) => form({
  title: `Delete ${kind === "group" ? "group snapshot" : kind} ${called(item)}`, text: LEFT[kind], fields: [keep], danger: true, submit: "Delete", confirmed,
  action: (values) => call("DELETE", `/${kind}/${part(item.handle)}`, { ...values, wait: WAIT }),
  done: () => `${called(item)} is deleted; the space follows in the background.`,
});

export const group = (place, confirmed) => form({
  title: "Snapshot several volumes at one moment", submit: "Take group snapshot", confirmed,
  text: "They stand still together for a moment. Each gets a snapshot that can be restored by itself.",
  fields: [name(), { name: "volumes", label: "Volumes", required: true, hint: `Their names or handles, a comma between; all in ${place}.` }],
  action: (values) => call("POST", "/group", {
    ...values, wait: WAIT,
    volumes: values.volumes.split(",").map((text) => text.trim()).filter(Boolean)
      .map((text) => (/^0[01]01-|\//.test(text) ? text : `${place}/${text}`)).join(","),
  }),
  done: made("The group snapshot"),
});

export const undelete = (row, confirmed) => form({
  title: `Bring back ${called(row)}`, text: "Image, journal and handle come back as they were.", submit: "Bring back", confirmed,
  fields: [{ name: "new_name", label: "New name", hint: "Only if the old one is taken by now." }],
  action: (values) => call("POST", `/trash/${part(row.handle ?? `${spec(row)}/${row.id}`)}/restore`, { ...values, wait: WAIT }),
  done: () => "It is back.",
});

export const purge = (place, confirmed) => form({
  title: `Empty the trash of ${place}`, danger: true, submit: "Delete for good", confirmed,
  text: "Deletes for good what has expired, or what the bounds below say, kept or not.",
  fields: [{ name: "older_than", label: "Deleted at least so long ago", hint: "Such as 3d; 0s for everything. Empty: only what has expired." }],
  more: ["Other bounds", [
    { name: "keep_last", label: "All but the latest so many" },
    { name: "threshold", label: "The oldest, until less than this part of the pool is used", hint: "0 to 1" },
  ]],
  planned: (answer) => (answer.purged.length ? h("ul", { class: "plan" }, answer.purged.map((row) => h("li", {}, row.name ?? row.handle)))
    : h("p", { class: "soft" }, "Nothing would be deleted.")),
  action: (values) => call("DELETE", "/trash", { pool_spec: place, ...values, wait: WAIT }),
  done: (answer) => `${count(answer.purged.length, "volume or snapshot", "volumes and snapshots")} deleted for good.`,
});

export const operate = (item, verb, confirmed) => form({
  title: `${verb} ${item.kind} of ${item.target}?`, submit: verb, confirmed,
  text: verb === "Cancel" ? "What it did is undone." : "It is run again now.",
  action: (values) => call("POST", `/operation/${part(item.id)}/${verb.toLowerCase()}`, { ...values, wait: WAIT }),
  done: () => `${verb}: done.`,
});

export const schedule = (target_, confirmed) => form({
  title: "Schedule snapshots", submit: "Add", confirmed,
  fields: [
    { name: "pool_spec", label: "Of", required: true, value: target_, hint: "A volume (handle, or pool/name), or every volume of a pool or pool/namespace." },
    { name: "interval", label: "Every", required: true, value: "1d", hint: "Such as 30m, 1h or 2d." },
    { name: "start_time", label: "From", hint: "Time of day in UTC that intervals count from, such as 03:00." },
    { name: "keep", label: "Keep", value: "24h7d4w", hint: "Such as 24h7d4w3m. Empty: nothing is ever removed." },
  ],
  action: (values) => call("POST", "/schedule", { ...values, wait: WAIT }), done: () => "The schedule is set.",
});

export const unschedule = (row, confirmed) => form({
  title: `Remove the schedule of ${row.target}, every ${row.interval}?`, text: "The snapshots stay.", danger: true, submit: "Remove", confirmed,
  action: (values) => call("DELETE", "/schedule", {
    pool_spec: row.target, interval: row.interval, start_time: row.start_time ?? undefined, ...values, wait: WAIT,
  }),
  done: () => "The schedule is removed.",
});
