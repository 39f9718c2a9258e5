"use strict";
// The page: controls, what they choose, and drawing it.
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  page.heat = TokenNumbers.bytes(page.heatColours);
  const VIEWS = {
    kept: "Kept tokens",
    scores: "Token scores",
    attention: "Decoder attention (DAM)",
    target: "DAM target",
    difference: "Kept against target",
    image: "Image alone",
  };
  const byId = (id) => document.getElementById(id);
  const percent = (share) => (Number.isNaN(share) ? "–" : `${(100 * share).toFixed(1)}%`);
  const count = (number) => number.toLocaleString("en");
  const canvas = byId("canvas");
  const context = canvas.getContext("2d");
  const overlayCanvas = document.createElement("canvas");
  const state = { image: 0, view: "kept", chosen: null, seen: null, places: null, picture: null };

  function element(kind, text, parent) {
    const made = document.createElement(kind);
    if (text) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  // The names that fit the detector.
  function viewName(view) {
    const { scoreName, learnsAttention, pooledRows } = state.seen.data;
    if (view === "scores") return scoreName[0].toUpperCase() + scoreName.slice(1);
    if (view === "kept" && pooledRows) return "Polled tokens";
    if (view === "target" && !learnsAttention) return "Most attended tokens";
    return VIEWS[view];
  }

  // What a detector that keeps every token, or scores none, has nothing to show for.
  function offerViews() {
    const without = [];
    if (state.seen.ranking === null) without.push("scores");
    if (state.seen.data.keepRatio === null) without.push("kept", "target", "difference");
    for (const view of Object.keys(VIEWS)) {
      const radio = document.querySelector(`#views [value=${view}]`);
      radio.disabled = without.includes(view);
      radio.nextSibling.textContent = ` ${viewName(view)}`;
    }
    if (!without.includes(state.view)) return;
    state.view = without.includes("kept") ? "attention" : "kept";
    document.querySelector(`#views [value=${state.view}]`).checked = true;
  }

  const isRanked = () => state.seen.ranking !== null
    && document.querySelector("[name=source]:checked").value === "ranked";
  const shownLevels = () => {
    const level = Number(byId("level").value);
    return level < 0 ? state.seen.levels.map((_, i) => i) : [level];
  };

  function keptTokens() {
    const { seen } = state;
    if (isRanked()) {
      const kept = TokenNumbers.keptCount(seen.numOwn, Number(byId("rho").value) / 100);
      return TokenNumbers.firstOf(seen.ranking, kept, seen.numTokens);
    }
    const layer = Number(byId("layer").value);
    return layer < 0 ? TokenNumbers.union(seen.kept) : seen.kept[layer];
  }

  function targetFor(kept) {
    const total = kept.reduce((sum, bit) => sum + bit, 0);
    return TokenNumbers.firstOf(state.seen.attentionRanking, total, state.seen.numTokens);
  }

  function redraw() {
    if (!state.picture) return;
    const kept = keptTokens();
    const target = targetFor(kept);
    const shown = shownLevels();
    const paint = TokenDrawing.painter(state.view, state.seen, kept, target, shown, page);
    context.drawImage(state.picture, 0, 0, canvas.width, canvas.height);
    if (paint) {
      const places = shown.map((level) => state.places[level]);
      const opacity = Number(byId("opacity").value) / 100;
      overlayCanvas.width = canvas.width;
      overlayCanvas.height = canvas.height;
      const above = overlayCanvas.getContext("2d");
      above.putImageData(TokenDrawing.overlay(above, paint, places, opacity), 0, 0);
      context.drawImage(overlayCanvas, 0, 0);
    }
    drawBoxes();
    const figures = TokenNumbers.allFigures(state.seen, kept, target);
    fillTable(figures);
    describe(figures);
  }

  function drawBoxes() {
    const { data } = state.seen;
    const labels = byId("labels").checked;
    if (byId("truth").checked && data.truth) {
      for (const truth of data.truth) {
        TokenDrawing.box(context, truth.box, "#ffffff", labels && truth.label);
      }
    }
    if (byId("boxes").checked) {
      // The best last, so that its label lies on top.
      for (const box of visibleDetections().reverse()) {
        TokenDrawing.box(context, box.box, box.colour, labels && named(box));
      }
    }
    const query = chosenQuery();
    if (!query) return;
    const layer = query.layers[Math.min(Number(byId("decoder").value), query.layers.length - 1)];
    if (layer.box) TokenDrawing.box(context, layer.box, "#ffffff", "", true);
    const points = TokenNumbers.sampling(layer, page.pointUnit, page.weightUnit);
    const shown = new Set(shownLevels());
    TokenDrawing.dots(context, points.filter((p) => shown.has(p.level)), page.levelColours);
    const prior = (layer.prior || []).filter((gaussian) => shown.has(gaussian[4]));
    TokenDrawing.ellipses(context, prior, page.levelColours);
  }

  const named = (box) => `${box.label} ${Math.round(100 * box.score)}%`;
  const visibleDetections = () => {
    const threshold = Number(byId("threshold").value) / 100;
    return state.seen.data.detections.filter((box) => box.score >= threshold);
  };
  const chosenQuery = () => {
    const { queries } = state.seen.data;
    return state.chosen === null ? null : queries[state.chosen];
  };

  function fillTable(figures) {
    const body = byId("levels");
    body.replaceChildren();
    const level = Number(byId("level").value);
    const total = figures[0].attention;
    figures.forEach((row, number) => {
      const line = element("tr", "", body);
      if (number === level + 1) line.className = "chosen";
      const stride = number === 0 ? "" : ` (stride ${state.seen.levels[number - 1].stride})`;
      element("th", number === 0 ? "All" : `${number - 1}${stride}`, line).scope = "row";
      const cells = [count(row.tokens), count(row.kept), percent(row.kept / row.tokens),
        percent(total > 0 ? row.attention / total : NaN), percent(row.corr),
        `${count(row.met)} of ${count(row.target)}`];
      for (const text of cells) element("td", text, line);
    });
    const how = isRanked() ? `ranked again at ρ = ${byId("rho").value}%` : "as the model ran";
    byId("counts").textContent = `Tokens ${how}: Corr ${percent(figures[0].corr)}`;
  }

  function describe(figures) {
    const level = Number(byId("level").value);
    const chosen = level < 0 ? "all" : `${level}, stride ${state.seen.levels[level].stride}`;
    const place = level < 0 ? "all levels" : `level ${chosen}`;
    const row = figures[level + 1];
    const kept = `${count(row.kept)} of ${count(row.tokens)} tokens kept`;
    byId("caption").textContent = `${viewName(state.view)}, ${place}: ${kept}`;
    byId("level-value").textContent = chosen;
    byId("opacity-value").textContent = `${byId("opacity").value}%`;
    byId("rho-value").textContent = `${(Number(byId("rho").value) / 100).toFixed(2)}`;
    byId("threshold-value").textContent = `${byId("threshold").value}%`;
    byId("decoder-value").textContent = byId("decoder").value;
  }

  function legend() {
    const list = byId("legend");
    list.replaceChildren();
    const swatch = (text, fill) => {
      const item = element("li", "", list);
      const mark = element("canvas", "", item);
      [mark.width, mark.height] = [fill.length > 1 ? 96 : 18, 14];
      const brush = mark.getContext("2d");
      fill.forEach((colour, i) => {
        brush.fillStyle = colour;
        brush.fillRect((i * mark.width) / fill.length, 0, mark.width / fill.length + 1, 14);
      });
      element("span", text, item);
    };
    const heat = Array.from({ length: 48 }, (_, i) => {
      const at = 3 * Math.round((i * 255) / 47);
      return `rgb(${page.heat[at]}, ${page.heat[at + 1]}, ${page.heat[at + 2]})`;
    });
    if (state.view === "scores" || state.view === "attention") swatch("low to high", heat);
    const pooled = state.seen.data.pooledRows;
    const others = pooled ? `pooled into ${pooled} rows` : "passed on as they came";
    if (state.view === "kept") element("li", `Bright: kept. Dark: ${others}.`, list);
    if (state.view === "target") element("li", "Bright: the most attended tokens.", list);
    if (state.view === "difference") {
      swatch("kept and in the target", [page.markColours.both]);
      swatch("kept, not in the target", [page.markColours.keptOnly]);
      swatch("in the target, not kept", [page.markColours.attendedOnly]);
    }
    if (state.chosen !== null) {
      state.seen.levels.forEach((level, i) =>
        swatch(`dots of level ${i}`, [page.levelColours[i % page.levelColours.length]]));
      if (chosenQuery().layers.some((layer) => layer.prior)) {
        element("li", "Ellipses: one sigma of the prior of each head.", list);
      }
    }
  }

  function listDetections() {
    const list = byId("detections");
    list.replaceChildren();
    const { data } = state.seen;
    const button = (text, query, colour) => {
      const made = element("button", text, list);
      made.type = "button";
      made.style.borderLeftColor = colour;
      made.disabled = query === null;
      if (query === null) made.title = "The page does not hold this query's sampling";
      made.setAttribute("aria-pressed", String(query !== null && query === state.chosen));
      made.dataset.query = query;
      made.addEventListener("click", () => choose(state.chosen === query ? null : query));
    };
    for (const box of visibleDetections()) button(named(box), box.query, box.colour);
    data.queries.forEach((query, i) => {
      if (query.rank === null) button(`Query ${query.index}, no detection`, i, "#888888");
    });
    if (!list.children.length) element("p", "No detection reaches the score.", list);
  }

  function choose(query) {
    state.chosen = query;
    for (const made of byId("detections").querySelectorAll("button")) {
      const pressed = query !== null && made.dataset.query === String(query);
      made.setAttribute("aria-pressed", String(pressed));
    }
    legend();
    redraw();
  }

  function showImage(number) {
    state.image = (number + page.images.length) % page.images.length;
    const data = page.images[state.image];
    state.seen = TokenNumbers.image(data);
    state.chosen = null;
    byId("image").value = String(state.image);
    byId("place").textContent = `${state.image + 1} of ${page.images.length}`;
    canvas.setAttribute("aria-label", data.name);
    byId("level").max = String(state.seen.levels.length - 1);
    const layers = Math.max(1, ...data.queries.map((query) => query.layers.length));
    byId("decoder").max = String(layers - 1);
    byId("decoder").value = String(layers - 1);
    const select = byId("layer");
    select.replaceChildren();
    element("option", "any", select).value = "-1";
    state.seen.kept.forEach((_, i) => { element("option", String(i), select).value = String(i); });
    for (const id of ["layer", "layer-label"]) byId(id).hidden = state.seen.kept.length < 2;
    const ratio = data.keepRatio === null ? "every token" : `keeping ratio ${data.keepRatio}`;
    byId("run-label").textContent = `As the model ran: ${ratio}`;
    byId("truth-label").hidden = !data.truth;
    if (Number(data.keepRatio) > 0) byId("rho").value = String(Math.round(100 * data.keepRatio));
    const dense = state.seen.ranking === null;
    document.querySelector("[value=ranked]").disabled = dense;
    byId("rho").disabled = dense;
    offerViews();
    const picture = new Image();
    picture.addEventListener("load", () => {
      if (data !== page.images[state.image]) return;
      [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
      state.picture = picture;
      state.places = TokenDrawing.places(state.seen, canvas.width, canvas.height);
      redraw();
    });
    state.picture = null;
    picture.src = data.picture;
    listDetections();
    legend();
  }

  // Where the pointer is, in pixels of the canvas.
  function pointed(event) {
    const frame = canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - frame.left) / frame.width) * canvas.width);
    const y = Math.floor(((event.clientY - frame.top) / frame.height) * canvas.height);
    const within = (value, length) => Math.max(0, Math.min(length - 1, value));
    return { x: within(x, canvas.width), y: within(y, canvas.height) };
  }

  function readOut(event) {
    if (!state.places || !state.picture) return;
    const { x, y } = pointed(event);
    const kept = keptTokens();
    byId("readout").textContent = shownLevels().map((number) => {
      const place = state.places[number];
      const token = TokenDrawing.tokenAt(place, x, y);
      const { scores, counted } = state.seen;
      const counts = scores === null || counted[token] ? "" : " (of the edge: ranked last)";
      const score = scores === null ? "" : `, score ${scores[token].toFixed(2)}${counts}`;
      const attention = state.seen.attention[token].toPrecision(3);
      const cell = `Level ${number} (${place.rows[y]}, ${place.columns[x]})`;
      return `${cell}${score}, attention ${attention}, ${kept[token] ? "kept" : "not kept"}`;
    }).join(" · ");
  }

  function chooseAt(event) {
    const { x, y } = pointed(event);
    const [across, down] = [x / canvas.width, y / canvas.height];
    const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    const [hit] = visibleDetections()
      .filter(({ box, query }) => query !== null
        && box[0] <= across && across <= box[2] && box[1] <= down && down <= box[3])
      .sort((a, b) => area(a) - area(b));
    choose(hit && hit.query !== state.chosen ? hit.query : null);
  }

  function start() {
    const facts = Object.entries(page.facts).map(([name, value]) => `${name}: ${value}`);
    byId("facts").textContent = facts.join(" · ");
    page.images.forEach((image, i) => {
      element("option", image.name, byId("image")).value = String(i);
    });
    for (const [view, text] of Object.entries(VIEWS)) {
      const label = element("label", "", byId("views"));
      const radio = element("input", "", label);
      Object.assign(radio, { type: "radio", name: "view", value: view });
      radio.checked = view === state.view;
      label.append(` ${text}`);
      radio.addEventListener("change", () => { state.view = view; legend(); redraw(); });
    }
    byId("threshold").value = String(Math.round(100 * page.threshold));
    byId("image").addEventListener("change", (event) => showImage(Number(event.target.value)));
    byId("previous").addEventListener("click", () => showImage(state.image - 1));
    byId("next").addEventListener("click", () => showImage(state.image + 1));
    for (const id of ["level", "opacity", "layer", "boxes", "labels", "truth", "decoder"]) {
      byId(id).addEventListener("input", redraw);
    }
    byId("rho").addEventListener("input", () => {
      document.querySelector("[value=ranked]").checked = true;
      redraw();
    });
    byId("layer").addEventListener("input", () => {
      document.querySelector("[value=run]").checked = true;
      redraw();
    });
    for (const radio of document.querySelectorAll("[name=source]")) {
      radio.addEventListener("change", redraw);
    }
    byId("threshold").addEventListener("input", () => { listDetections(); redraw(); });
    canvas.addEventListener("pointermove", readOut);
    canvas.addEventListener("click", chooseAt);
    showImage(0);
  }

  start();
})();
