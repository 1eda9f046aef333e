"""A little SVG: shapes, axes and two kinds of chart. Pure; no library, so that a plot needs nothing to be installed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

INK, MUTED, RULE, PAPER = "#1f2933", "#66727f", "#e3e8ed", "#ffffff"
FONT = "font-family=\"Inter, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif\""
Scale = Callable[[float], float]


@dataclass(slots=True)
class Canvas:
    """A drawing in the making. Coordinates in px from the upper left corner."""

    width: int
    height: int
    _parts: list[str] = field(default_factory=list)

    def text(
        self,
        x: float,
        y: float,
        said: str,
        *,
        size: int = 12,
        fill: str = INK,
        anchor: str = "start",
        weight: int = 400,
    ) -> None:
        """A line of text; y is its baseline."""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{escape(said)}</text>'
        )

    def upright(self, x: float, y: float, said: str, *, size: int = 12, fill: str = MUTED) -> None:
        """A line of text that reads upwards, around its middle."""
        self._parts.append(
            f'<text transform="translate({x:.1f} {y:.1f}) rotate(-90)" font-size="{size}" fill="{fill}" '
            f'text-anchor="middle">{escape(said)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, *, stroke: str = RULE, dash: str = "") -> None:
        """A thin line."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{dashed}/>')

    def bar(self, x: float, y: float, width: float, height: float, fill: str, *, opacity: float = 1) -> None:
        """A rectangle with softened corners."""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" rx="2" fill="{fill}" '
            f'fill-opacity="{opacity:g}"/>'
        )

    def dot(self, x: float, y: float, radius: float, fill: str) -> None:
        """A filled circle with a rim of the paper's colour."""
        self._parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}" stroke="{PAPER}" stroke-width="1.5"/>'
        )

    def svg(self) -> str:
        """The file's text."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
        paper = f'<rect width="{self.width}" height="{self.height}" rx="6" fill="{PAPER}"/>'
        size = f'width="{self.width}" height="{self.height}" {FONT}>'
        return "\n".join([head + size, paper, *self._parts, "</svg>"]) + "\n"


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """From values to px."""
    return lambda value: start + (min(max(value, low), high) - low) / (high - low) * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """From values to px, by their logarithms; what is below the lowest stands there."""
    span = math.log(high / low)
    return lambda value: start + math.log(min(max(value, low), high) / low) / span * (end - start)


def decades(low: float, high: float) -> list[float]:
    """The powers of ten between."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**power for power in range(first, last + 1)]


def figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


@dataclass(frozen=True, slots=True)
class Point:
    """A dot with its name."""

    x: float
    y: float
    label: str
    fill: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a chart stands on its canvas."""

    left: float
    top: float
    right: float
    bottom: float


def scatter(
    canvas: Canvas,
    frame: Frame,
    points: Sequence[Point],
    *,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    y_ticks: Sequence[float],
    x_title: str,
    y_title: str,
) -> None:
    """Dots over a logarithmic x axis, each with its label where that covers nothing."""
    x_of, y_of = logarithmic(*x_range, frame.left, frame.right), linear(*y_range, frame.bottom, frame.top)
    for tick in decades(*x_range):
        canvas.line(x_of(tick), frame.top, x_of(tick), frame.bottom)
        canvas.text(x_of(tick), frame.bottom + 16, f"{tick:g}", size=11, fill=MUTED, anchor="middle")
    for tick in y_ticks:
        canvas.line(frame.left, y_of(tick), frame.right, y_of(tick))
        canvas.text(frame.left - 6, y_of(tick) + 4, f"{tick:g}", size=11, fill=MUTED, anchor="end")
    canvas.text((frame.left + frame.right) / 2, frame.bottom + 34, x_title, fill=MUTED, anchor="middle")
    canvas.upright(frame.left - 38, (frame.top + frame.bottom) / 2, y_title)
    centres = [(x_of(point.x), y_of(point.y)) for point in points]
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in centres]
    for point, (x, y) in sorted(zip(points, centres, strict=True), key=lambda each: not each[0].strong):
        canvas.dot(x, y, 7 if point.strong else 5, point.fill)
        box = _label_box(x, y, 6.8 * len(point.label), taken, frame)
        taken.append(box)
        nearest = min(max(x, box[0]), box[2])
        if not box[1] - 14 < y < box[3] + 14:
            canvas.line(x, y, nearest, box[3] if y > box[3] else box[1], stroke=point.fill)
        fill, weight = (point.fill, 700) if point.strong else (INK, 400)
        canvas.text(box[0], box[3] - 3, point.label, fill=fill, weight=weight)


_Box = tuple[float, float, float, float]


def _label_box(x: float, y: float, width: float, taken: Sequence[_Box], frame: Frame) -> _Box:
    """Where a label stands free: left, top, right, bottom. Beside its dot if it can, else further up or down."""
    boxes = [
        (left, y + shift - 8, left + width, y + shift + 7)
        for shift in sorted(range(-112, 113, 16), key=abs)
        for left in (x + 12, x - 12 - width, x - width / 2)
        if frame.left < left and left + width < frame.right
    ]
    for box in boxes:
        if all(box[0] > t[2] or box[2] < t[0] or box[1] > t[3] or box[3] < t[1] for t in taken):
            return box
    return boxes[0] if boxes else (x + 12, y - 8, x + 12 + width, y + 7)


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a bar chart: a solid bar and, where there is one, a fainter one behind it that reaches further."""

    label: str
    value: float
    fill: str
    faint: float | None = None
    strong: bool = False
    said: str = ""


def bars(
    canvas: Canvas, frame: Frame, rows: Sequence[Bar], *, scale: Scale, ticks: Sequence[float], row_height: float = 26
) -> None:
    """Rows of bars along a scale; their figures at their ends."""
    bottom = frame.top + row_height * len(rows)
    for tick in ticks:
        canvas.line(scale(tick), frame.top - 4, scale(tick), bottom)
        canvas.text(scale(tick), bottom + 14, f"{tick:g}", size=11, fill=MUTED, anchor="middle")
    for number, row in enumerate(rows):
        y = frame.top + number * row_height
        thick = row_height - 10
        canvas.text(frame.left - 8, y + thick - 3, row.label, anchor="end", weight=700 if row.strong else 400)
        if row.faint is not None:
            canvas.bar(frame.left, y, scale(row.faint) - frame.left, thick, row.fill, opacity=0.35)
        canvas.bar(frame.left, y, scale(row.value) - frame.left, thick, row.fill)
        end = scale(max(row.value, row.faint if row.faint is not None else row.value))
        canvas.text(end + 6, y + thick - 3, row.said or figure(row.value), size=11, fill=MUTED)
