"""Everything that a fake cluster holds, in a form that two clusters can be compared in, and what must hold of it."""

from __future__ import annotations

from typing import Any

from vdisk.model.groups import mapping_of
from vdisk.model.names import IMAGE_ID_KEY, IMAGE_NAME_KEY, Kind
from vdisk.model.observed import Entry, Location, Parent
from vdisk.model.records import Store, kept_from_text

from .cluster import FakeCluster
from .state import Space


def inventory(fake: FakeCluster) -> dict[str, Any]:
    """Return everything in the cluster. Image and snapshot ids become names, reserved uuids their request names.

    So two clusters in which the same was done compare equal, whatever uuids and ids were drawn on the way.
    """
    words = _uuid_words(fake)
    result: dict[str, Any] = {}
    names = _image_names(fake)

    def said(text: str) -> str:
        for uuid, word in words.items():
            text = text.replace(uuid, word)
        return text

    def place(pool_id: int, namespace: str, image_id: str) -> str:
        return said(f"{pool_id}/{namespace}/{names.get((pool_id, namespace, image_id), 'nothing')}")

    def parent(link: Parent | None) -> str | None:
        return None if link is None else place(link.pool_id, link.namespace, link.image_id)

    for where, space in fake.spaces():
        key = (where.pool_id, where.namespace)
        images = {}
        for image_id, header in space.headers.items():
            images[said(names[(*key, image_id)])] = {
                "trashed": image_id in space.trash,
                "listed": sorted(said(name) for name, at in space.listing.items() if at == image_id),
                "named": sorted(said(name) for name, at in space.ids.items() if at == image_id),
                "size": header.size,
                "features": header.features,
                "layout": (header.order, header.stripe_unit, header.stripe_count, header.data_pool_id),
                "parent": parent(header.parent),
                "snaps": sorted(
                    (
                        said(snap.name) if snap.user else "(trashed)",
                        sorted(place(child.pool_id, child.namespace, child.image_id) for child in snap.children),
                    )
                    for snap in header.snaps
                ),
            }
        objects = {}
        for (kind, uuid), values in space.objects.items():
            shown = {said(name): said(value) for name, value in values.items()}
            if IMAGE_ID_KEY in values:
                shown[IMAGE_ID_KEY] = place(*key, values[IMAGE_ID_KEY])
            objects[said(kind.object(uuid))] = shown
        content: dict[str, Any] = {
            "directories": {
                kind.value: {said(name): said(uuid) for name, uuid in sorted(found.items())}
                for kind, found in space.directories.items()
            },
            "objects": objects,
            "images": images,
            "headless": sorted(
                said(name) for name, at in {**space.listing, **space.ids}.items() if at not in space.headers
            ),
            "trash": sorted(said(name) for name in space.trash.values()),
            "groups": sorted(said(name) for name in space.groups),
            "grouped": sorted(names[(*key, at)] for at, header in space.headers.items() if header.group_id is not None),
            "intents": sorted(space.intents),
            "records": sorted(
                f"{store.value} {names.get((*key, record), said(record))}"
                for store, records in space.records.items()
                if store is not Store.CHECK
                for record in records
            ),
        }
        if any(content["directories"].values()) or any(content[part] for part in content if part != "directories"):
            result[str(where)] = content
    result["tasks"] = sorted(place(where.pool_id, where.namespace, image_id) for where, image_id in fake.tasks)
    return result


def faults(fake: FakeCluster) -> list[str]:
    """Return what is wrong in a cluster in which everything that was begun is finished; empty when all is well."""
    found = []
    tasks = {(where.pool_id, where.namespace, image_id) for where, image_id in fake.tasks}
    for where, space in fake.spaces():
        led_to = set()
        for kind, directory in space.directories.items():
            for name, uuid in directory.items():
                values = space.objects.get((kind, uuid))
                if values is None:
                    found.append(f"{where}: {kind.value} name {name!r} leads to no object")
                    continue
                led_to.add((kind, uuid))
                if kind is Kind.GROUP:
                    found += _group_faults(where, space, uuid, values)
                    continue
                image = values[IMAGE_NAME_KEY]
                if values.get(kind.name_key) != name:
                    found.append(f"{where}: {kind.value} {uuid} has the name {values.get(kind.name_key)!r}")
                if values.get(IMAGE_ID_KEY) is None or space.ids.get(image) != values[IMAGE_ID_KEY]:
                    found.append(f"{where}: {kind.value} {name!r} has no complete image")
                elif values[IMAGE_ID_KEY] not in space.headers:
                    found.append(f"{where}: {kind.value} {name!r} has an image without header")
                elif kind is Kind.SNAPSHOT and space.headers[values[IMAGE_ID_KEY]].snap(image) is None:
                    found.append(f"{where}: {kind.value} {name!r} is not sealed")
        for kind, uuid in space.objects:
            if (kind, uuid) not in led_to:
                found.append(f"{where}: object {kind.object(uuid)} that no name leads to")
        held = {values.get(IMAGE_NAME_KEY) for values in space.objects.values()}
        found += [f"{where}: RBD group {name} is left" for name in space.groups]
        for name, image_id in {**space.listing, **space.ids}.items():
            if name.startswith("csi-") and name not in held:
                found.append(f"{where}: image {name} that no object leads to")
            if space.ids.get(name) != image_id or space.listing.get(name) != image_id:
                found.append(f"{where}: image {name} is half there")
            if image_id in space.trash:
                found.append(f"{where}: image {name} is in the trash too")
        for image_id, header in space.headers.items():
            if image_id not in space.ids.values() and image_id not in space.trash:
                found.append(f"{where}: header {image_id} that no name leads to")
            found += [
                f"{where}: image {image_id} keeps the left-over snapshot {snap.name}"
                for snap in header.snaps
                if snap.user
                and snap.name.startswith("csi-")
                and space.ids.get(snap.name) != image_id
                and space.trash.get(image_id) != snap.name
            ]
        records = map(kept_from_text, space.records[Store.TRASH].values())
        kept = {record.image_id for record in records if record is not None}
        for image_id, name in space.trash.items():
            if image_id not in kept and (where.pool_id, where.namespace, image_id) not in tasks:
                found.append(f"{where}: {name} is in the trash and nobody will remove it")
        found += [f"{where}: intent {op_id} is left" for op_id in space.intents]
    return found


def _group_faults(where: Location, space: Space, uuid: str, values: dict[str, str]) -> list[str]:
    mapping = mapping_of(Entry(Kind.GROUP, uuid, values))
    if not mapping:
        return [f"{where}: group {uuid} is not complete"]
    members = [(Kind.SNAPSHOT, snapshot) for snapshot in mapping.values()]
    return [
        f"{where}: snapshot {member} of group {uuid} is missing" for member in members if member not in space.objects
    ]


def _uuid_words(fake: FakeCluster) -> dict[str, str]:
    words = {}
    for where, space in fake.spaces():
        for kind, directory in space.directories.items():
            for name, uuid in directory.items():
                words[uuid] = f"<{kind.value} {name} of {where}>"
    return words


def _image_names(fake: FakeCluster) -> dict[tuple[int, str, str], str]:
    names = {}
    for where, space in fake.spaces():
        found = {**{at: name for name, at in space.listing.items()}, **space.trash}
        found.update({at: name for name, at in space.ids.items()})
        for image_id in space.headers:
            names[where.pool_id, where.namespace, image_id] = found.get(image_id, "(nameless)")
    return names
