"""Judges a volume or snapshot of the journal: directory keys, journal object, image, seal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..model.findings import Subject, SubjectKind, Trouble
from ..model.names import IMAGE_ID_KEY, IMAGE_NAME_KEY, Kind
from ..model.observed import Entry, Image
from ..model.records import Store, mark_from_text
from .check_look import Look, Verdict, finding
from .steps import (
    ReleaseName,
    RemoveEntry,
    RemoveUnfinished,
    ReserveName,
    RestoreImage,
    Seal,
    Step,
    StoreImageId,
    WriteEntry,
)
from .volume_clone import drop_cut

_NO_RISK = "none: nothing that holds data is removed"


@dataclass(frozen=True)
class _Facts:
    """What there is of one uuid. ``owned`` are the request names whose key leads to it."""

    look: Look
    kind: Kind
    uuid: str
    subject: Subject
    owned: tuple[str, ...]
    entry: Entry | None
    image: str
    found: Image | None
    by_id: Image | None
    headless: str | None

    @property
    def oid(self) -> str:
        return self.kind.object(self.uuid)

    def key(self, name: str) -> str:
        """Name a directory key."""
        return f"{self.kind.directory(self.look.where.journal)}:{self.kind.key(name)}"

    def release(self) -> list[Step]:
        """Steps that free every name that leads here."""
        return [ReleaseName(self.look.where, self.kind, name, self.uuid) for name in self.owned]

    def forget(self) -> list[Step]:
        """Steps that make the journal forget the uuid, the object first as a removal does."""
        return [RemoveEntry(self.look.where, self.kind, self.uuid), *self.release()]


def judge_entry(look: Look, subject: Subject) -> list[Verdict]:
    """Return what is wrong with one uuid; nothing while somebody may be at work on it."""
    kind = Kind.VOLUME if subject.kind is SubjectKind.VOLUME else Kind.SNAPSHOT
    facts = _observe(look, kind, subject)
    if look.in_hand(facts.uuid, facts.image, *(name for name in facts.owned)):
        return []
    if facts.entry is None:
        return [*_without_object(facts)]
    if look.young_object(facts.oid):
        return []
    return [*_keys(facts, facts.entry), *_image(facts, facts.entry)]


def _observe(look: Look, kind: Kind, subject: Subject) -> _Facts:
    view, where, uuid = look.view, look.where, subject.key
    entry = view.entry(where, kind, uuid)
    names = dict.fromkeys([*subject.names, *([entry.name] if entry is not None and entry.name else [])])
    owned = tuple(name for name in names if view.lookup(where, kind, name) == uuid)
    image = entry.image if entry is not None else kind.image(uuid)
    found = view.find(where, image)
    headless = view.partial(where, image) if found is None else None
    stored = entry.image_id if entry is not None else None
    by_id = view.find_id(where, stored) if stored and (found is None or found.id != stored) else None
    return _Facts(look, kind, uuid, subject, owned, entry, image, found, by_id, headless)


def _without_object(facts: _Facts) -> Iterator[Verdict]:
    look, where, kind = facts.look, facts.look.where, facts.kind
    if facts.found is not None and look.young(facts.found.created_at):
        return
    if facts.owned:
        name = facts.owned[0]
        objects = [*map(facts.key, facts.owned), facts.oid]
        if facts.found is None and facts.headless is None:
            yield Verdict(
                finding(
                    look, Trouble.KEY_WITHOUT_OBJECT, facts.subject, objects,
                    "a driver died between reserving the name and writing the object, or between the two removals of a "
                    "delete",
                    "remove the directory key, so that the name is free again", _NO_RISK, automatic=True,
                    uuid=facts.uuid, image=None,
                ),
                tuple(facts.release()),
            )  # fmt: skip
            return
        values = tuple(sorted({IMAGE_NAME_KEY: facts.image, kind.name_key: name}.items()))
        steps: list[Step] = [WriteEntry(where, kind, facts.uuid, values)]
        if facts.found is not None:
            steps.append(StoreImageId(where, kind, facts.uuid, facts.image))
        else:
            steps = [RemoveUnfinished(where, facts.image, facts.headless or ""), *facts.release()]
        yield Verdict(
            finding(
                look, Trouble.KEY_WITHOUT_OBJECT, facts.subject, [*objects, f"image {where}/{facts.image}"],
                "the journal object was removed while its directory key and its image stayed",
                "write the journal object again from the key and the image" if facts.found is not None
                else "remove the image, which has a name and no header, and the directory key",
                "the image counts as complete afterwards, although its creation may never have been finished"
                if facts.found is not None else "data objects of an image whose header is gone can't be found any more",
                held=look.used(facts.found) if facts.found is not None else None, uuid=facts.uuid, image=facts.image,
            ),
            tuple(steps),
        )  # fmt: skip
    elif facts.found is not None:
        mark = mark_from_text(look.view.record(where, Store.IMAGES, facts.found.id))
        if mark is not None and not mark.adopted:
            return  # released on purpose
        values = tuple(sorted({IMAGE_NAME_KEY: facts.image, kind.name_key: facts.image}.items()))
        yield Verdict(
            finding(
                look, Trouble.IMAGE_WITHOUT_JOURNAL, facts.subject, [f"image {where}/{facts.image}", facts.oid],
                "the journal entries of this image were removed, or it was restored from the trash without them",
                f"journal it again under the name {facts.image}, with the handle that it had",
                "none to the data; whoever meant the image to be gone has to remove the volume then",
                held=look.used(facts.found), uuid=facts.uuid, image=facts.image, image_id=facts.found.id,
                created_at=facts.found.created_at,
            ),
            (
                ReserveName(where, kind, facts.image, facts.uuid),
                WriteEntry(where, kind, facts.uuid, values),
                StoreImageId(where, kind, facts.uuid, facts.image),
            ),
        )  # fmt: skip
    elif facts.headless is not None:
        yield _headless(facts, [f"image {where}/{facts.image}"], [])


def _headless(facts: _Facts, objects: list[str], after: list[Step]) -> Verdict:
    where = facts.look.where
    return Verdict(
        finding(
            facts.look, Trouble.IMAGE_HEADLESS, facts.subject, objects,
            "the creation of the image was cut short before its header was written, or the header was lost",
            "remove what is left of the image" + (" and its journal entries" if after else ""),
            "data objects of an image whose header is gone can't be found any more", uuid=facts.uuid,
            image=facts.image,
        ),
        (RemoveUnfinished(where, facts.image, facts.headless or ""), *after),
    )  # fmt: skip


# -- keys and object --------------------------------------------------------------------------------------------------


def _keys(facts: _Facts, entry: Entry) -> Iterator[Verdict]:
    look, where, kind, name = facts.look, facts.look.where, facts.kind, entry.name
    others = [other for other in facts.owned if other != name]
    there = facts.found is not None or facts.by_id is not None or facts.headless is not None
    if name is None:
        if len(others) == 1 and entry.values.get(IMAGE_NAME_KEY, facts.image) == facts.image:
            values = tuple(sorted({IMAGE_NAME_KEY: facts.image, kind.name_key: others[0]}.items()))
            yield Verdict(
                finding(
                    look, Trouble.OBJECT_INCOMPLETE, facts.subject, [facts.oid, facts.key(others[0])],
                    "the journal object lacks the request name: writing it was cut short",
                    f"write the name {others[0]}, which the directory has for it", _NO_RISK, automatic=True,
                    values=dict(entry.values),
                ),
                (WriteEntry(where, kind, facts.uuid, values),),
            )  # fmt: skip
        elif not others:
            yield _nameless(facts, entry, there)
    elif name in facts.owned:
        if others:
            yield Verdict(
                finding(
                    look, Trouble.DUPLICATE_NAMES, facts.subject, [facts.oid, *map(facts.key, facts.owned)],
                    "several directory keys lead to one uuid; the object belongs to one of them",
                    f"remove the keys of {', '.join(others)}; {name} stays", _NO_RISK, automatic=True, name=name,
                    others=others,
                ),
                tuple(ReleaseName(where, kind, other, facts.uuid) for other in others),
            )  # fmt: skip
    else:
        yield from _unkeyed(facts, name, others, there)


def _nameless(facts: _Facts, entry: Entry, there: bool) -> Verdict:
    return Verdict(
        finding(
            facts.look, Trouble.OBJECT_WITHOUT_KEY, facts.subject, [facts.oid],
            "a journal object without a request name that no directory key leads to",
            None if there else "remove the object", "none: no image belongs to it" if not there else
            "nothing is done: which name it had is not known", automatic=not there, values=dict(entry.values),
            image=facts.image if there else None,
        ),
        () if there else (RemoveEntry(facts.look.where, facts.kind, facts.uuid),),
    )  # fmt: skip


def _unkeyed(facts: _Facts, name: str, others: list[str], there: bool) -> Iterator[Verdict]:
    """The object has a request name whose key does not lead to it."""
    look, where, kind, uuid = facts.look, facts.look.where, facts.kind, facts.uuid
    owner = look.view.lookup(where, kind, name)
    objects = [facts.oid, facts.key(name), *map(facts.key, others)]
    if others:
        steps: tuple[Step, ...] = (
            (ReserveName(where, kind, name, uuid), *(ReleaseName(where, kind, other, uuid) for other in others))
            if owner is None
            else (WriteEntry(where, kind, uuid, ((kind.name_key, others[0]),)),)
        )
        yield Verdict(
            finding(
                look, Trouble.NAME_MISMATCH, facts.subject, objects,
                "the directory and the object name each other differently",
                f"let the name be {name}, as the object says" if owner is None
                else f"let the name be {others[0]}, because {name} belongs to {owner}",
                "none to the data; a client that uses the other name does not find it any more", name=name,
                others=others, owner=owner,
            ),
            steps,
        )  # fmt: skip
    elif not there:
        if not facts.look.sole:
            return  # it may be another instance's, whose directory this check did not look at
        yield Verdict(
            finding(
                look, Trouble.OBJECT_WITHOUT_KEY, facts.subject, objects,
                "a removal was cut short, or the directory key was lost", "remove the object",
                "none: no image belongs to it", automatic=True, name=name, owner=owner, image=None,
            ),
            (RemoveEntry(where, kind, uuid),),
        )  # fmt: skip
    elif owner is None:
        yield Verdict(
            finding(
                look, Trouble.OBJECT_WITHOUT_KEY, facts.subject, objects,
                "the directory key was lost: a driver died between the two removals of a delete, or the directory was "
                "changed by hand",
                f"put the directory key of {name} back", _NO_RISK, automatic=look.sole, name=name, owner=None,
                image=facts.image, held=look.used(facts.found) if facts.found is not None else None,
            ),
            (ReserveName(where, kind, name, uuid),),
        )  # fmt: skip
    else:
        fresh = f"{name}-{uuid[:8]}"
        yield Verdict(
            finding(
                look, Trouble.OBJECT_WITHOUT_KEY, facts.subject, objects,
                f"the name was given to {owner} meanwhile", f"journal it under the name {fresh}",
                "none to the data; the handle stays, the name becomes another", name=name, owner=owner,
                image=facts.image, held=look.used(facts.found) if facts.found is not None else None,
            ),
            (ReserveName(where, kind, fresh, uuid), WriteEntry(where, kind, uuid, ((kind.name_key, fresh),))),
        )  # fmt: skip


# -- image ------------------------------------------------------------------------------------------------------------


def _image(facts: _Facts, entry: Entry) -> Iterator[Verdict]:
    if not facts.owned:
        return  # told of already, and its image is to be judged once the journal is whole
    if facts.found is None:
        yield from _missing(facts, entry)
        return
    look, where, image = facts.look, facts.look.where, facts.found
    objects = [facts.oid, f"image {where}/{image.name}"]
    if entry.image_id is None:
        linked = look.linked(image)
        if look.young(image.created_at):
            return
        yield Verdict(
            finding(
                look, Trouble.IMAGE_ID_MISSING, facts.subject, objects,
                "a driver died after it had made the image and before it stored its id", "store the image's id",
                "none: the image is a clone that its parent knows, so its content is complete" if linked else
                "the image counts as complete afterwards, although nothing proves that it is: one that was to be a "
                "copy may be empty",
                automatic=linked, held=look.used(image), image_id=image.id, linked=linked, size=image.size,
                created_at=image.created_at,
            ),
            (StoreImageId(where, facts.kind, facts.uuid, image.name),),
        )  # fmt: skip
        return
    if entry.image_id != image.id:
        other = facts.by_id
        place = None if other is None else "in the trash" if other.trashed else f"called {other.name}"
        yield Verdict(
            finding(
                look, Trouble.IMAGE_ID_MISMATCH, facts.subject, objects,
                "the image was replaced by another one of the same name"
                + (f"; the one that the journal means is {place}" if place else ""),
                "store the id of the image that has the name now",
                "none: no image has the id that the journal has" if other is None else
                f"the volume becomes the image that has its name; the one that the journal means ({other.id}) stays "
                f"{place}", automatic=other is None, stored=entry.image_id, actual=image.id,
                held=look.used(other) if other is not None else None,
            ),
            (WriteEntry(where, facts.kind, facts.uuid, ((IMAGE_ID_KEY, image.id),)),),
        )  # fmt: skip
    elif facts.kind is Kind.SNAPSHOT and image.snap(image.name) is None and not look.young(image.created_at):
        yield Verdict(
            finding(
                look, Trouble.UNSEALED, facts.subject, [f"image {where}/{image.name}", f"@{image.name}"],
                "the snapshot that restores are made from was never made, or was removed",
                "snapshot the image under its own name", "none: the image is only read by restores", automatic=True,
                image_id=image.id,
            ),
            (Seal(where, image.name),),
        )  # fmt: skip


def _missing(facts: _Facts, entry: Entry) -> Iterator[Verdict]:
    """The journal leads to a name that no image has."""
    look, where, kind, by_id = facts.look, facts.look.where, facts.kind, facts.by_id
    objects = [*map(facts.key, facts.owned), facts.oid, f"image {where}/{facts.image}"]
    if by_id is not None and by_id.trashed:
        moved = look.view.trashed(where, by_id.id)
        if moved is not None and look.young(moved.deleted_at):
            return  # a removal, whose next steps are the journal's
        tasked = look.tasked(by_id.id)
        yield Verdict(
            finding(
                look, Trouble.IMAGE_TRASHED, facts.subject, [*objects, f"trash of {where}: {by_id.id}"],
                "the image was moved to the trash without the journal, by hand or by a driver that died",
                "remove the journal entries, as the task that removes the image will leave them" if tasked
                else "bring the image back from the trash",
                "the handle is not known any more; to keep the data, cancel the task and restore the image" if tasked
                else "none to the data; whoever meant it to be removed has to remove the volume then",
                held=look.used(by_id), image_id=by_id.id, tasked=tasked,
            ),
            tuple(facts.forget()) if tasked else (RestoreImage(where, by_id.id, facts.image),),
        )  # fmt: skip
    elif by_id is not None:
        yield Verdict(
            finding(
                look, Trouble.IMAGE_RENAMED, facts.subject, [*objects, f"image {where}/{by_id.name}"],
                "the image was renamed", f"store its name {by_id.name} in the journal",
                "none to the data; drivers that expect the standard name of the image may not find it",
                held=look.used(by_id), image_id=by_id.id, name=by_id.name,
            ),
            (WriteEntry(where, kind, facts.uuid, ((IMAGE_NAME_KEY, by_id.name),)),),
        )  # fmt: skip
    elif facts.headless is not None:
        yield _headless(facts, objects, facts.forget())
    elif entry.image_id is not None:
        yield Verdict(
            finding(
                look, Trouble.IMAGE_LOST, facts.subject, objects,
                "the image was removed without the journal", "remove the journal entries, so that the name is free",
                "the handle is not known any more; the data is gone already", image_id=entry.image_id,
            ),
            tuple(facts.forget()),
        )  # fmt: skip
    else:
        yield _never_made(facts, entry, objects)


def _never_made(facts: _Facts, entry: Entry, objects: list[str]) -> Verdict:
    look, where = facts.look, facts.look.where
    source = cut = None
    if facts.kind is Kind.SNAPSHOT and entry.source is not None:
        source = look.view.find(where, entry.source)
        cut = source.snap(facts.image) if source is not None else None
        if source is not None and cut is not None:
            objects = [*objects, f"image {where}/{source.name}@{facts.image}"]
    trouble = Trouble.SNAPSHOT_NEVER_CUT if facts.kind is Kind.SNAPSHOT else Trouble.RESERVED_WITHOUT_IMAGE
    return Verdict(
        finding(
            look, trouble, facts.subject, objects,
            "a driver died after it had reserved the name and before it made the image",
            "remove the reservation" + (" and the snapshot that was cut for it" if cut is not None else ""),
            _NO_RISK if cut is None else "what the source held when it was cut can't be had back; no client was ever "
            "told of that snapshot",
            automatic=cut is None, source=entry.source, cut=cut is not None,
        ),
        (*drop_cut(where, source, facts.image), *facts.forget()),
    )  # fmt: skip
