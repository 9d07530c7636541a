// Every action on volumes, snapshots and the trash, as a dialog.

import { call, part } from "./api.js";
import { form } from "./forms.js";

const WAIT = 5;
const name = (value = "") => ({ name: "name", label: "Name", required: true, value, hint: "The request name, unique in its pool and namespace." });
const volumeSize = (required) => ({ name: "size", label: "Size", required, hint: required ? "Bytes, or with a unit such as 10G." : "As large as the source if empty; it may be larger." });
const target = (place) => ({ name: "pool_spec", label: "Pool", value: place, hint: "pool or pool/namespace" });
const keep = { name: "keep_for", label: "Can be undeleted for", value: "7d", hint: "Such as 7d or 12h. Empty: as the option trash_keep_for says, or not at all." };
const made = (what) => (answer) => (answer.state === "pending" ? `${what} goes on in the background.` : `${what} is done.`);

export const spec = (item) => (item.namespace ? `${item.pool}/${item.namespace}` : item.pool);

export const create = (place, confirmed) => form({
  title: "Create a volume", fields: [target(place), name(), volumeSize(true)], submit: "Create", confirmed,
  action: (values) => call("POST", "/volume", { ...values, wait: WAIT }), done: made("Creating the volume"),
});

export const snapshot = (volume, confirmed) => form({
  title: `Snapshot of ${volume.name ?? volume.image}`, fields: [{ ...name(), name: "snap_name" }], submit: "Take snapshot", confirmed,
  action: (values) => call("POST", "/snapshot", { image_spec: `${spec(volume)}/${volume.image}`, ...values, wait: WAIT }),
  done: made("The snapshot"),
});

export const clone = (volume, confirmed) => form({
  title: `Clone ${volume.name ?? volume.image}`, fields: [name(), target(spec(volume)), volumeSize(false)], submit: "Clone", confirmed,
  action: (values) => call("POST", `/volume/${part(volume.handle)}/clone`, { ...values, wait: WAIT }), done: made("Cloning"),
});

export const restore = (shot, confirmed) => form({
  title: `Restore ${shot.name} to a new volume`, fields: [name(), target(spec(shot)), volumeSize(false)], submit: "Restore", confirmed,
  action: (values) => call("POST", `/snapshot/${part(shot.handle)}/restore`, { ...values, wait: WAIT }), done: made("Restoring"),
});

export const resize = (volume, confirmed) => form({
  title: `Grow ${volume.name ?? volume.image}`, text: "Volumes never shrink.", fields: [volumeSize(true)], submit: "Grow", confirmed,
  action: (values) => call("PUT", `/volume/${part(volume.handle)}/size`, { ...values, wait: WAIT }), done: made("Growing the volume"),
});

export const flatten = (volume, confirmed) => form({
  title: `Flatten ${volume.name ?? volume.image}`, text: "Copies what it shares with its parents, so that it depends on none of them. It stays in use.",
  submit: "Flatten", confirmed, action: (values) => call("POST", `/volume/${part(volume.handle)}/flatten`, { ...values, wait: WAIT }),
  done: made("Flattening"),
});

export const revert = (volume, shot, confirmed) => form({
  title: `Revert ${volume.name} to ${shot.name}`, text: "Refused while somebody has the volume open.", danger: true, submit: "Revert", confirmed,
  action: (values) => call("POST", `/volume/${part(volume.handle)}/revert`, { snapshot: shot.handle, ...values, wait: WAIT }),
  done: made("Reverting"),
});

export const remove = (kind, item, confirmed) => form({
  title: `Delete ${kind} ${item.name ?? item.image}`, fields: [keep], danger: true, submit: "Delete", confirmed,
  text: kind === "volume" ? "Its snapshots stay. Refused while somebody has it open." : "Volumes that were restored from it stay.",
  action: (values) => call("DELETE", `/${kind}/${part(item.handle)}`, { ...values, wait: WAIT }),
  done: () => `The ${kind} is deleted; its space follows in the background.`,
});

export const undelete = (row, confirmed) => form({
  title: `Bring back ${row.name ?? row.image}`, text: "Image, journal and handle come back as they were.", submit: "Bring back", confirmed,
  fields: [{ name: "new_name", label: "New name", hint: "Only if the old one is taken by now." }],
  action: (values) => call("POST", `/trash/${part(row.handle ?? `${spec(row)}/${row.id}`)}/restore`, { ...values, wait: WAIT }),
  done: () => "It is back.",
});

export const purge = (place, confirmed) => form({
  title: `Empty the trash of ${place}`, danger: true, submit: "Delete for good", confirmed, planned: false,
  text: "Deletes for good what has expired, or everything that was deleted at least so long ago.",
  fields: [{ name: "older_than", label: "Deleted at least so long ago", hint: "Such as 3d. Empty: only what has expired." }],
  action: (values) => call("DELETE", "/trash", { pool_spec: place, ...values, wait: WAIT }),
  done: (answer) => `${answer.purged.length} deleted for good.`,
});

export const schedule = (target_, confirmed) => form({
  title: "Schedule snapshots", submit: "Add", confirmed,
  fields: [
    { name: "pool_spec", label: "Of", required: true, value: target_, hint: "A volume (handle, or pool/name), or every volume of a pool or pool/namespace." },
    { name: "interval", label: "Every", required: true, value: "1d", hint: "Such as 30m, 1h or 2d." },
    { name: "keep", label: "Keep", value: "24h7d4w", hint: "Such as 24h7d4w3m. Empty: nothing is ever removed." },
  ],
  action: (values) => call("POST", "/schedule", { ...values, wait: WAIT }), done: () => "The schedule is set.",
});
