"""The log-log chart: slopes, and a picture that holds every curve."""

from xml.etree import ElementTree as ET

import pytest

from benchmarks.log_log_chart import Curve, render_log_log


def test_slope_is_the_exponent() -> None:
    assert Curve([(x, 5 * x**1.5) for x in (10, 20, 80)]).slope == pytest.approx(1.5)


def test_single_point_has_slope_zero() -> None:
    assert Curve([(3, 4)]).slope == 0


def test_chart_names_curves_with_their_slopes_and_marks_every_point() -> None:
    chart = render_log_log({"a": Curve([(1, 1), (10, 100)]), "b<": Curve([(2, 0.02), (4, 0.02)])}, "size", "s")
    root = ET.fromstring(chart)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "a: slope 2.00" in texts
    assert "b<: slope 0.00" in texts
    assert sum(element.tag.endswith("circle") for element in root.iter()) == 4
