"""The page holds the model's numbers, computes with them as the model does, and needs nothing."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from views import drawn_view, view_of

from builders import batch, small_detector
from sparse_detr.visualization.sparsity import (
    BoxOptions,
    QueryChoice,
    SparsityView,
    page_data,
    sparsity_page,
    view_sparsity,
)
from sparse_detr.visualization.sparsity.sparsity_view import ShownBoxes

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\u2028'\"@@DATA@@"
NAMES = ["cat", HOSTILE, "c", "d", "e"]


class Parsed(html.parser.HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._inside, []).append(data)


def page_of(*views: SparsityView, **arguments: Any) -> str:
    data = [page_data(view, BoxOptions(NAMES)) for view in views]
    arguments = {"title": "A title", "facts": {"Config": "c"}, "threshold": 0.3, **arguments}
    return sparsity_page(images=data, **arguments)


def array(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=kind)


def data_in(page: str) -> dict[str, Any]:
    return json.loads(Parsed(page).texts["script"][0])


def test_the_numbers_of_the_page_are_those_of_the_view() -> None:
    view = view_of()
    image = data_in(page_of(view))["images"][0]
    assert view.ranking is not None and view.scores is not None
    assert np.array_equal(array(image["scores"], "<f4"), view.scores)
    assert np.array_equal(array(image["attention"], "<f4"), view.attention)
    assert np.array_equal(array(image["ranking"], "<u4"), view.ranking)
    for text, kept in zip(image["kept"], view.kept, strict=True):
        bits = np.unpackbits(array(text, "u1"), bitorder="little")[: len(kept)]
        assert np.array_equal(bits.astype(bool), kept)
    assert [tuple(level["shape"]) for level in image["levels"]] == [x.shape for x in view.levels]
    assert len(image["queries"]) == len(view.queries)
    for query, expected in zip(image["queries"], view.queries, strict=True):
        for layer, sampling in zip(query["layers"], expected.layers, strict=True):
            places = array(layer["points"], "<i2").reshape(-1, 2) / 8192 * [100, 70]
            near = np.abs(sampling.points).max(1) < 390  # further out they are cut
            np.testing.assert_allclose(places[near], sampling.points[near], atol=0.01)
            weights = array(layer["weights"], "<u2") / 65535
            np.testing.assert_allclose(weights, sampling.weights, atol=1e-5)
            assert np.array_equal(array(layer["levels"], "u1"), sampling.levels)


def test_detections_name_the_sampling_that_the_page_holds() -> None:
    view = view_of()
    image = page_data(view, BoxOptions(NAMES, score_threshold=0.0))
    assert view.detections.queries is not None
    assert len(image["detections"]) == len(view.detections.classes)
    indices = [query["index"] for query in image["queries"]]
    for box, query in zip(image["detections"], view.detections.queries.tolist(), strict=True):
        assert box["query"] == (indices.index(query) if query in indices else None)


def test_names_and_titles_are_text_and_never_markup() -> None:
    view = drawn_view(
        name=HOSTILE, truth=ShownBoxes(np.array([[0.0, 0.0, 9.0, 9.0]]), np.array([1]))
    )
    page = page_of(view, title=HOSTILE, facts={HOSTILE: HOSTILE})
    plain = Parsed(page_of(drawn_view()))
    parsed = Parsed(page)
    assert [tag for tag, _ in parsed.elements] == [tag for tag, _ in plain.elements]
    data = data_in(page)
    assert data["title"] == HOSTILE
    assert data["images"][0]["name"] == HOSTILE
    assert data["images"][0]["truth"][0]["label"] == HOSTILE
    assert data["images"][0]["detections"][0]["label"] == HOSTILE
    assert page.count("alert(1)") == page.count("alert(1)\\u003c/script\\u003e") + page.count(
        "alert(1)&lt;/script&gt;"
    )


def test_scripts_write_text_and_never_markup() -> None:
    folder = files("sparse_detr.visualization.sparsity") / "page_files"
    for script in ("token_numbers.js", "token_drawing.js", "controls.js"):
        text = (folder / script).read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_the_page_refers_to_nothing_outside_itself() -> None:
    page = page_of(view_of())
    without_bytes = re.sub(r"[A-Za-z0-9+/=]{16,}", "", page)
    assert not re.search(
        r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttpRequest|WebSocket", without_bytes
    )
    for tag, attributes in Parsed(page).elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not {"src", "href", "srcset", "action"} & attributes.keys()


def test_the_content_policy_allows_this_style_and_script_alone() -> None:
    page = page_of(drawn_view())
    parsed = Parsed(page)
    (policy,) = (
        attributes["content"] or ""
        for tag, attributes in parsed.elements
        if tag == "meta" and "http-equiv" in attributes
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for text in ("".join(parsed.texts["style"]), parsed.texts["script"][1]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_the_same_input_gives_the_same_page() -> None:
    assert page_of(drawn_view()) == page_of(drawn_view())
    assert page_of(view_of()) == page_of(view_of())


def test_an_image_takes_well_under_a_megabyte() -> None:
    pixels = np.random.default_rng(0).integers(90, 110, (800, 1066, 3), dtype=np.uint8)
    assert len(page_of(drawn_view(image=pixels))) < 700_000


def test_every_control_has_a_name_and_every_id_exists_once() -> None:
    elements = Parsed(page_of(drawn_view())).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {attributes.get("for") for tag, attributes in elements if tag == "label"}
    for tag, attributes in elements:
        if tag == "select" or attributes.get("type") == "range":
            assert "aria-label" in attributes or attributes["id"] in labelled
    script = "".join(
        (files("sparse_detr.visualization.sparsity") / "page_files" / name).read_text("utf-8")
        for name in ("token_drawing.js", "controls.js")
    )
    asked = set(re.findall(r'(?:byId|getElementById)\("([^"]+)"\)', script))
    assert asked <= set(ids)


# ----- the page's own arithmetic, where a JavaScript engine is at hand -----

PROGRAM = """
const numbers = require(process.argv[1]);
const page = JSON.parse(require("fs").readFileSync(0, "utf8"));
const seen = numbers.image(page.images[0]);
const at = {};
for (const rho of page.rhos) {
  const count = numbers.keptCount(seen.numOwn, rho);
  const kept = numbers.firstOf(seen.ranking, count, seen.numTokens);
  const target = numbers.firstOf(seen.attentionRanking, count, seen.numTokens);
  at[rho] = {
    kept: Array.from(kept), target: Array.from(target),
    corr: numbers.allFigures(seen, kept, target).map((row) => row.corr),
  };
}
const run = numbers.union(seen.kept);
const layer = page.images[0].queries[0].layers[0];
console.log(JSON.stringify({
  at, run: Array.from(run), own: Array.from(seen.own),
  corr: numbers.allFigures(seen, run, run)[0].corr,
  cells: Array.from(numbers.cellOfPixel(3, 10, 9)),
  heaviest: numbers.sampling(layer, page.pointUnit, page.weightUnit)[0],
}));
"""
RATIOS = [0.05, 0.1, 0.3, 0.35, 0.7, 1]


@pytest.fixture(scope="module")
def computed() -> tuple[dict[str, Any], Any, Any]:
    """What the page computes for an image, with the model and its input."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no JavaScript engine: node is not installed")
    model, (sample,) = small_detector(), batch([(70, 100)])
    data = data_in(page_of(view_sparsity(model, sample, "scene", [QueryChoice(rank=0)])))
    script = Path(str(files("sparse_detr.visualization.sparsity") / "page_files/token_numbers.js"))
    done = subprocess.run(
        [node, "-e", PROGRAM, str(script)],
        input=json.dumps({**data, "rhos": RATIOS}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout), model, sample


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_page_keeps_the_tokens_that_the_model_keeps_at_every_ratio(
    ratio: float, computed: tuple[dict[str, Any], Any, Any]
) -> None:
    found, model, sample = computed
    view = view_sparsity(model, sample, "scene", [], keep_ratio=ratio)
    assert np.array_equal(found["at"][str(ratio)]["kept"], view.kept_by_any)


def test_the_page_has_the_models_corr_and_target_for_its_own_run(
    computed: tuple[dict[str, Any], Any, Any],
) -> None:
    found, model, sample = computed
    view = view_sparsity(model, sample, "scene", [])
    assert found["corr"] == pytest.approx(view.corr, rel=1e-5)
    at_own = found["at"]["0.3"]
    assert np.array_equal(at_own["target"], view.target)
    assert at_own["corr"] == pytest.approx([view.corr, *view.corr_of_levels], rel=1e-5)
    assert np.array_equal(found["run"], view.kept_by_any)
    assert found["at"]["1"]["corr"] == pytest.approx([1.0] * 5)


def test_the_page_places_cells_and_dots_as_the_pictures_do(
    computed: tuple[dict[str, Any], Any, Any],
) -> None:
    found, model, sample = computed
    # Edges 0, 3, 7, 10 of the padded length; the image ends after 9 pixels.
    assert found["cells"] == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    view = view_sparsity(model, sample, "scene", [QueryChoice(rank=0)])
    layer = view.queries[0].layers[0]
    heaviest = int(np.argmax(layer.weights))
    assert found["heaviest"]["level"] == layer.levels[heaviest]
    assert found["heaviest"]["weight"] == pytest.approx(layer.weights[heaviest], abs=1e-4)
