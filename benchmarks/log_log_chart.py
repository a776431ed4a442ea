"""Curves on two logarithmic axes as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 420, 70, 190, 20, 50  # in pixels
COLOURS = ("#4878a8", "#c06040", "#509060", "#806090")


@dataclass(frozen=True)
class Curve:
    """Positive measurements, and a straight line through their logarithms."""

    points: Sequence[tuple[float, float]]

    @property
    def slope(self) -> float:
        """The exponent p of y = c x^p, by least squares in the logarithms; 0 for fewer than two different x."""
        x, y = ([math.log(point[axis]) for point in self.points] for axis in (0, 1))
        centre_x, centre_y = sum(x) / len(x), sum(y) / len(y)
        spread = sum((each - centre_x) ** 2 for each in x)
        return sum((a - centre_x) * (b - centre_y) for a, b in zip(x, y, strict=True)) / spread if spread else 0.0


@dataclass(frozen=True)
class _Axis:
    """Maps the decades from ``low`` to ``high`` to pixels."""

    low: int
    high: int
    start: float
    stop: float

    def place(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def render_log_log(curves: Mapping[str, Curve], x_label: str, y_label: str) -> str:
    """Return the chart; each curve's label states its slope."""
    x_axis = _axis([x for curve in curves.values() for x, _ in curve.points], LEFT, WIDTH - RIGHT)
    y_axis = _axis([y for curve in curves.values() for _, y in curve.points], HEIGHT - BOTTOM, TOP)
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        *_grid(x_axis, y_axis),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text x="{LEFT}" y="{TOP - 6}" text-anchor="middle">{escape(y_label)}</text>',
    ]
    for index, (name, curve) in enumerate(curves.items()):
        lines += _curve(curve, name, COLOURS[index % len(COLOURS)], TOP + 20 * (index + 1), (x_axis, y_axis))
    return "\n".join([*lines, "</svg>", ""])


def _axis(values: Sequence[float], start: float, stop: float) -> _Axis:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return _Axis(low, max(high, low + 1), start, stop)


def _grid(x_axis: _Axis, y_axis: _Axis) -> list[str]:
    lines = []
    for decade in range(x_axis.low, x_axis.high + 1):
        x = x_axis.place(10.0**decade)
        lines.append(f'<path d="M{x:.1f} {y_axis.start:.1f}V{y_axis.stop:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{y_axis.start + 16:.1f}" text-anchor="middle">{10.0**decade:g}</text>')
    for decade in range(y_axis.low, y_axis.high + 1):
        y = y_axis.place(10.0**decade)
        lines.append(f'<path d="M{x_axis.start:.1f} {y:.1f}H{x_axis.stop:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{x_axis.start - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{10.0**decade:g}</text>')
    return lines


def _curve(curve: Curve, name: str, colour: str, label_y: float, axes: tuple[_Axis, _Axis]) -> list[str]:
    x_axis, y_axis = axes
    places = [(x_axis.place(x), y_axis.place(y)) for x, y in curve.points]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    label = f"{escape(name)}: slope {curve.slope:.2f}"
    return [
        f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *dots,
        f'<text x="{WIDTH - RIGHT + 12}" y="{label_y}" fill="{colour}">{label}</text>',
    ]
