"""Is this what the page shows? Ids, times and addresses differ with each run; everything else has to be the same.

An id of the page (a uuid, an image id) stands for the id that came back where it was shown first, and for no other
from then on: also in the commands that follow. ``...`` in a line is any text, and a line of it any lines.
"""

import re
from collections.abc import Mapping, Sequence

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
#: Image ids and other short ones: hexadecimal, and told from a number of bytes by a letter.
_SHORT = r"(?=[0-9]*[a-f])[0-9a-f]{9,16}"
_ID = re.compile(rf"(?<![0-9a-f])(?:{_UUID}|{_SHORT})(?![0-9a-f])")
#: What the page shows → what may stand there in its place.
_CHANGING = {
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z",
    r"(?:\d{1,3}\.){3}\d{1,3}:\d+/\d+": r"(?:\d{1,3}\.){3}\d{1,3}:\d+/\d+",
    r"client\.\d+": r"client\.\d+",
    r'(?<="client": )\d+': r"\d+",
    r'(?<="cookie": )\d+': r"\d+",
    r"(?<=cookie=)\d+": r"\d+",
    r"(?<=attempts:        )\d+": r"\d+",
    r"(?<=seconds: )\d+\.\d+": r"\d+(?:\.\d+)?(?:e-\d+)?",
    # The pool's id in a handle: a mgr's own pool may be made before or after the page's.
    r"(?<=-)0000000[0-9a-f](?=-)": r"0000000[0-9a-f]",
    r"\.\.\.": r".*",
    r"\s+": r"\s+",
}
_TOKEN = re.compile("|".join([f"(?P<id>{_ID.pattern})", *(f"(?P<c{n}>{key})" for n, key in enumerate(_CHANGING))]))
_PATTERNS = list(_CHANGING.values())

Known = Mapping[str, str]


def ids(text: str) -> list[str]:
    """Return the ids in a text."""
    return _ID.findall(text)


def translate(text: str, known: Known) -> str:
    """Put the ids of this run in place of the page's."""
    return _ID.sub(lambda found: known.get(found[0], found[0]), text)


def match_line(shown: str, came: str, known: Known) -> Known | None:
    """Return what is known of ids after matching a line, or None if the line is another one."""
    pattern, fresh, at = "", [], 0
    for token in _TOKEN.finditer(shown.rstrip()):
        pattern += re.escape(shown[at : token.start()])
        at = token.end()
        name = token[0]
        if not token["id"]:
            pattern += _PATTERNS[int(str(token.lastgroup)[1:])]
        elif name in known:
            pattern += re.escape(known[name])
        elif name in fresh:
            pattern += f"(?P=i{fresh.index(name)})"
        else:
            pattern += f"(?P<i{len(fresh)}>{_UUID if '-' in name else '[0-9a-f]{9,16}'})"
            fresh.append(name)
    found = re.fullmatch(pattern + re.escape(shown.rstrip()[at:]), came.rstrip())
    if found is None:
        return None
    learned = {name: found[f"i{number}"] for number, name in enumerate(fresh)}
    taken = set(known.values())
    if taken & set(learned.values()) or len(set(learned.values())) < len(learned):
        return None  # two things of the page would be one
    return {**known, **learned}


def match(shown: Sequence[str], came: Sequence[str], known: Known) -> Known | None:
    """Return what is known of ids after matching the whole output, or None if it is not what is shown."""
    if not shown:
        return None if came else known
    if shown[0].strip() == "...":
        for skip in range(len(came) + 1):
            found = match(shown[1:], came[skip:], known)
            if found is not None:
                return found
        return None
    if not came:
        return None
    learned = match_line(shown[0], came[0], known)
    return None if learned is None else match(shown[1:], came[1:], learned)


def learn(shown: Sequence[str], came: Sequence[str], known: Known) -> Known:
    """Return what can be known of ids from an output that is not what is shown, line by line."""
    for line, other in zip(shown, came, strict=False):
        known = match_line(line, other, known) or known
    return known
