"""The drawings of the documentation: `python tools/drawings.py` writes doc/images/*.svg.

Each stands on a ground of its own, so that it reads the same on a light page and on a dark one.
"""

from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

IMAGES = Path(__file__).resolve().parent.parent / "doc/images"
WIDTH = 920
#: Kind of a shape → its fill and its stroke.
COLOURS = {
    "plain": ("#ffffff", "#8a97a6"),
    "store": ("#f1f4f7", "#8a97a6"),
    "vdisk": ("#e6f0fb", "#2268b3"),
    "good": ("#e5f4ea", "#2b7d4f"),
    "bad": ("#fdeae7", "#bd3a2c"),
    "late": ("#fff3d9", "#a06a00"),
}
INK, MUTED = "#1c2530", "#55616e"
SANS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, monospace"


@dataclass
class Drawing:
    """Shapes on a ground; lengths are pixels, y grows downward."""

    title: str
    height: int
    shapes: list[str] = field(default_factory=list)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 14,
        mono: bool = False,
        ink: str = INK,
        bold: bool = False,
        anchor: str = "start",
    ) -> None:
        """Write a line whose foot is at y."""
        style = f'font-size="{size}" fill="{ink}" text-anchor="{anchor}"' + (' font-weight="600"' if bold else "")
        style += f' font-family="{MONO if mono else SANS}"'
        self.shapes.append(f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>')

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        kind: str = "plain",
        *,
        dashed: bool = False,
        radius: float = 6,
    ) -> None:
        """Draw a rectangle."""
        fill, stroke = COLOURS[kind]
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.shapes.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}" stroke="{stroke}"'
            f' stroke-width="1.5"{dash}/>'
        )

    def label(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *lines: str,
        kind: str = "plain",
        mono: bool = False,
        size: float = 14,
        dashed: bool = False,
    ) -> None:
        """Draw a rectangle with lines in its middle, the first of them bold if there are several."""
        self.box(x, y, width, height, kind, dashed=dashed)
        step = size * 1.35
        top = y + height / 2 - (len(lines) - 1) * step / 2 + size * 0.35
        for number, line in enumerate(lines):
            first = number == 0
            self.text(
                x + width / 2,
                top + number * step,
                line,
                anchor="middle",
                size=size if first else size - 1.5,
                mono=mono,
                bold=first and len(lines) > 1,
                ink=INK if first else MUTED,
            )

    def arrow(self, *points: tuple[float, float], kind: str = "plain", dashed: bool = False, head: bool = True) -> None:
        """Draw a line through points, with a head at its end."""
        stroke = COLOURS[kind][1]
        path = " ".join(f"{'L' if number else 'M'} {x} {y}" for number, (x, y) in enumerate(points))
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        end = f' marker-end="url(#{kind})"' if head else ""
        self.shapes.append(f'<path d="{path}" fill="none" stroke="{stroke}" stroke-width="1.75"{dash}{end}/>')

    def dot(self, x: float, y: float, kind: str, *, hollow: bool = False) -> None:
        """Draw a snapshot."""
        fill = "#ffffff" if hollow else COLOURS[kind][1]
        self.shapes.append(
            f'<circle cx="{x}" cy="{y}" r="6" fill="{fill}" stroke="{COLOURS[kind][1]}" stroke-width="1.75"/>'
        )

    def cross(self, x: float, y: float, reach: float = 9) -> None:
        """Draw where something dies."""
        for sign in (1, -1):
            self.shapes.append(
                f'<path d="M {x - reach} {y - sign * reach} L {x + reach} {y + sign * reach}" '
                f'stroke="{COLOURS["bad"][1]}" stroke-width="3.5" stroke-linecap="round"/>'
            )

    def svg(self) -> str:
        """Return the file."""
        heads = "".join(
            f'<marker id="{kind}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M 0 0.5 L 10 5 L 0 9.5 z" fill="{stroke}"/></marker>'
            for kind, (_, stroke) in COLOURS.items()
        )
        inside = "\n".join(self.shapes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH}" '
            f'height="{self.height}" role="img">\n<title>{escape(self.title)}</title>\n<defs>{heads}</defs>\n'
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{self.height - 1}" rx="10" fill="#fbfcfd" '
            f'stroke="#d5dce3"/>\n{inside}\n</svg>\n'
        )


def overview() -> Drawing:
    """Who talks to what, and what lies in the pool."""
    d = Drawing("Clients send commands to vdisk in the active ceph-mgr; intents and images are in the pool", 372)
    clients = [("ceph vdisk ...", "shell, scripts"), ("Ceph dashboard", "page and REST"), ("vdisk-csi", "Kubernetes")]
    for number, (name, what) in enumerate(clients):
        y = 62 + number * 84
        d.label(28, y, 160, 58, name, what)
        d.arrow((188, y + 29), (246, 158 + (number - 1) * 22), kind="vdisk")
    d.text(28, 38, "only commands, no key for data", ink=MUTED, size=12.5)

    d.box(250, 48, 258, 222, "store")
    d.text(266, 74, "ceph-mgr, active", bold=True)
    d.label(266, 90, 226, 106, "vdisk", "authorise, plan, queue", "workers, reaper, schedules", kind="vdisk", size=15)
    d.label(266, 210, 226, 44, "rbd_support: task queue", size=13)
    d.label(250, 296, 258, 48, "ceph-mgr, standby", "reads the intents and goes on", dashed=True, size=13)
    d.arrow((379, 270), (379, 292), dashed=True)

    d.box(600, 28, 292, 316, "store")
    d.text(616, 53, "RBD pool (or namespace)", bold=True)
    rows = [
        (66, "vdisk", "vdisk.intents", "what is begun and not done"),
        (118, "plain", "csi.volumes.default", "request name -> uuid"),
        (170, "plain", "csi.volume.<uuid>", "image, name, image id"),
        (240, "good", "csi-vol-<uuid>", "an image: the volume"),
        (292, "good", "csi-snap-<uuid>", "an image, and a snapshot on it"),
    ]
    for y, kind, name, what in rows:
        d.box(614, y, 264, 44, kind)
        d.text(626, y + 18, name, mono=True, size=13)
        d.text(626, y + 35, what, size=12, ink=MUTED)
    d.dot(860, 314, "good")
    d.text(616, 230, "the journal that CSI drivers for RBD keep", size=12, ink=MUTED)
    d.arrow((492, 128), (597, 128), kind="vdisk")
    d.text(552, 119, "librados", size=12.5, ink=MUTED, anchor="middle")
    d.arrow((492, 172), (552, 172), (552, 288), (597, 288), kind="vdisk")
    d.text(530, 163, "librbd", size=12.5, ink=MUTED, anchor="middle")
    return d


def snapshot() -> Drawing:
    """What a snapshot leaves behind, step by step."""
    d = Drawing("Cutting, cloning and sealing a snapshot, and what stays of it", 346)
    left, width, gap = 24, 206, 16
    heads = [
        ("1  reserve", "the name, atomically"),
        ("2  cut", "one monitor round, ~1 s"),
        ("3  clone: ready", "the command answers"),
        ("4  seal", "in the background"),
    ]
    for number, (head, what) in enumerate(heads):
        x = left + number * (width + gap)
        d.box(x, 22, width, 232, "good" if number == 3 else "plain")
        d.text(x + 14, 48, head, bold=True, size=15)
        d.text(x + 14, 68, what, size=12.5, ink=MUTED)
        d.label(x + 14, 86, width - 28, 46, "csi-vol-A", kind="store", mono=True, size=13)
        if number == 0:
            d.label(x + 14, 160, width - 28, 62, "csi.snaps.default", "name -> B", kind="vdisk", size=13)
        if number == 1:
            d.dot(x + width - 34, 109, "vdisk")
            d.text(x + 16, 152, "csi-vol-A@csi-snap-B", mono=True, size=12.5)
        if number >= 2:
            d.dot(x + width - 34, 109, "vdisk", hollow=True)
            d.label(x + 14, 188, width - 28, 50, "csi-snap-B", kind="vdisk", mono=True, size=13)
            d.arrow((x + width / 2, 188), (x + width / 2, 135), kind="vdisk")
            d.text(x + width / 2 + 8, 166, "parent", size=12, ink=MUTED)
        if number == 3:
            d.dot(x + width - 34, 213, "good")
    for number in range(3):
        x = left + (number + 1) * (width + gap) - gap
        d.arrow((x + 1, 138), (x + gap - 1, 138))
    d.dot(36, 284, "vdisk")
    d.text(52, 289, "a snapshot on the volume, while it is being cloned", size=13)
    d.dot(36, 312, "vdisk", hollow=True)
    d.text(52, 317, "removed: the volume lists none and can be deleted;", size=13)
    d.text(52, 334, "RBD keeps its data for the clone", size=13)
    d.dot(478, 284, "good")
    d.text(494, 289, "the seal, csi-snap-B@csi-snap-B: what restores are cloned from", size=13)
    d.text(494, 317, "A restore that comes before the seal makes it first.", size=13, ink=MUTED)
    return d


def operation() -> Drawing:
    """The life of an operation."""
    d = Drawing("An operation from the command to the erasing of its intent", 330)
    stages = [
        ("command", "parse, authorise", "plain", 24, 128),
        ("intent", "written to the pool", "vdisk", 174, 140),
        ("steps", "reserve, create, ...", "vdisk", 336, 140),
        ("answer", "it is true from here on", "good", 498, 156),
        ("background", "seal, reclaim", "late", 676, 116),
        ("end", "erased", "plain", 814, 82),
    ]
    for number, (name, what, kind, x, width) in enumerate(stages):
        d.label(x, 34, width, 58, name, what, kind=kind, size=14)
        if number:
            before = stages[number - 1]
            d.arrow((before[3] + before[4] + 2, 63), (x - 3, 63))
    lanes = [
        (126, "the client waits, at most --wait seconds; then EAGAIN, and repeating waits on", "plain", 24, 576),
        (164, "the intent is in the pool: whoever is the active mgr goes on from it", "vdisk", 244, 611),
        (202, "op ls, op info: where it is and what it waits for; for an hour after its end, too", "store", 88, 808),
    ]
    for y, what, kind, x, width in lanes:
        d.box(x, y, width, 28, kind, radius=4)
        d.text(x + 10, y + 19, what, size=12.5)
    d.text(24, 266, "When a step fails", bold=True)
    rules = [
        ("late", "retryable (a pool that hangs, a failover): again after 0.1 s and ever less often"),
        ("bad", "for good, before the answer: what was done is undone, and the client is told why"),
        ("bad", "for good, after the answer: kept as stuck, with a health check; op retry runs it again"),
    ]
    for number, (kind, what) in enumerate(rules):
        d.box(176, 252 + number * 22, 14, 14, kind, radius=3)
        d.text(200, 264 + number * 22, what, size=13)
    return d


def crash() -> Drawing:
    """A mgr dies in the middle of an operation."""
    d = Drawing("The active mgr dies between two steps; the next one plans again from what is there", 372)
    lanes = ((50, "client", ""), (128, "mgr x", "active"), (222, "mgr y", "standby, then active"), (312, "pool", ""))
    for y, name, what in lanes:
        d.text(24, y + 5, name, bold=True)
        d.text(24, y + 22, what, size=12, ink=MUTED)
    for y, end in ((50, 896), (128, 384), (222, 896)):
        d.arrow((160, y), (end, y), kind="store", dashed=True, head=False)
    d.label(150, 34, 118, 32, "snap create", mono=True, size=12.5)
    d.arrow((209, 66), (209, 108), kind="vdisk")
    for x, width, text in ((180, 58, "intent"), (246, 66, "reserve"), (320, 44, "cut")):
        d.label(x, 112, width, 32, text, kind="vdisk", size=12.5)
    d.cross(392, 128)
    d.text(410, 119, "killed, blocklisted or cut off", size=12.5, ink=COLOURS["bad"][1])
    d.text(410, 148, "fenced: what it still writes is refused", size=12, ink=MUTED)

    d.arrow((209, 144), (209, 298), kind="vdisk", dashed=True)
    d.label(440, 206, 104, 32, "reads intents", kind="vdisk", size=12.5)
    d.label(552, 206, 96, 32, "plans again", kind="vdisk", size=12.5)
    d.label(656, 206, 96, 32, "clone, id", kind="vdisk", size=12.5)
    d.label(760, 206, 70, 32, "answer", kind="good", size=12.5)
    d.label(838, 206, 50, 32, "seal", kind="late", size=12.5)
    d.arrow((492, 298), (492, 241), kind="vdisk", dashed=True)
    d.arrow((600, 298), (600, 241), kind="vdisk", dashed=True)

    d.label(572, 34, 136, 32, "the same again", size=12.5)
    d.arrow((680, 66), (680, 203), kind="vdisk")
    d.arrow((795, 206), (795, 69), kind="good")
    d.label(724, 34, 166, 32, "one snapshot, not two", kind="good", size=12.5)

    d.box(150, 300, 712, 40, "store")
    d.text(162, 325, "vdisk.intents: snap create, uuid B", mono=True, size=12.5)
    d.text(548, 325, "name reserved, image cut", size=12.5, ink=MUTED)
    d.arrow((863, 238), (863, 297), kind="late")
    d.text(856, 360, "erased", size=12, ink=MUTED, anchor="end")
    return d


DRAWINGS = {"overview": overview, "snapshot": snapshot, "operation": operation, "crash": crash}


def main() -> None:
    """Write all of them."""
    for name, draw in DRAWINGS.items():
        (IMAGES / f"{name}.svg").write_text(draw().svg())


if __name__ == "__main__":
    main()
