"use strict";
// Drawing on a canvas: tokens as an overlay of pixels, boxes and dots above it.
const TokenDrawing = (() => {
  const DARK = [12, 14, 18];
  const GROUND = 0.55;

  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  // For each level the token that a pixel of the picture lies in, by row and column.
  function places(seen, width, height) {
    const [rows, columns] = seen.data.size;
    const [paddedRows, paddedColumns] = seen.data.padded;
    return seen.levels.map((level) => ({
      columns: TokenNumbers.cellOfPixel(
        level.columns, (paddedColumns / columns) * width, width),
      rows: TokenNumbers.cellOfPixel(level.rows, (paddedRows / rows) * height, height),
      stride: level.columns,
      start: level.start,
    }));
  }

  const tokenAt = (place, x, y) => place.start + place.rows[y] * place.stride + place.columns[x];

  // A function (tokens of a pixel) -> [red, green, blue, alpha in 0..1], or null for no overlay.
  function painter(view, seen, kept, target, shown, page) {
    if (view === "kept" || view === "target") {
      const mask = view === "kept" ? kept : target;
      return (tokens) => [...DARK, 1 - tokens.reduce((n, t) => n + mask[t], 0) / tokens.length];
    }
    if (view === "difference") return differencePainter(kept, target, page.markColours);
    if (view === "scores") return heatPainter(scaledScores(seen), page.heat, false);
    if (view === "attention") return heatPainter(density(seen, shown), page.heat, true);
    return null;
  }

  function differencePainter(kept, target, colours) {
    const table = [null, colours.keptOnly, colours.attendedOnly, colours.both]
      .map((hex) => (hex === null ? DARK.map((part) => part) : rgb(hex)));
    return (tokens) => {
      const mixed = [0, 0, 0, 0];
      for (const token of tokens) {
        const kind = kept[token] + 2 * target[token];
        const share = (kind ? 1 : GROUND) / tokens.length;
        for (let part = 0; part < 3; part += 1) mixed[part] += table[kind][part] * share;
        mixed[3] += share;
      }
      return [mixed[0] / mixed[3], mixed[1] / mixed[3], mixed[2] / mixed[3], mixed[3]];
    };
  }

  function heatPainter(values, heat, addUp) {
    return (tokens) => {
      let value = 0;
      for (const token of tokens) value += values[token];
      value = addUp ? Math.sqrt(value) : value / tokens.length;
      const at = 3 * Math.max(0, Math.min(255, Math.round(255 * value)));
      return [heat[at], heat[at + 1], heat[at + 2], 1];
    };
  }

  function scaledScores(seen) {
    let [low, high] = [Infinity, -Infinity];
    seen.scores.forEach((score, token) => {
      if (!seen.counted[token]) return;
      low = Math.min(low, score);
      high = Math.max(high, score);
    });
    const span = Math.max(high - low, 1e-9);
    return seen.scores.map((score, token) =>
      (seen.counted[token] ? Math.max(0, Math.min(1, (score - low) / span)) : 0));
  }

  // Attention per area, so that levels add up to at most 1 at the brightest place.
  function density(seen, shown) {
    const values = new Float32Array(seen.numTokens);
    let peak = 0;
    for (const number of shown) {
      const level = seen.levels[number];
      const cells = level.rows * level.columns;
      let most = 0;
      for (let i = level.start; i < level.start + cells; i += 1) {
        values[i] = seen.attention[i] * cells;
        most = Math.max(most, values[i]);
      }
      peak += most;
    }
    return values.map((value) => value / Math.max(peak, 1e-12));
  }

  // The overlay as pixels: each colour by the opacity.
  function overlay(context, paint, placesShown, opacity) {
    const { width, height } = context.canvas;
    const pixels = context.createImageData(width, height);
    const tokens = new Array(placesShown.length);
    let [last, colour] = ["", null];
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        let changed = x === 0;
        for (let i = 0; i < placesShown.length; i += 1) {
          const token = tokenAt(placesShown[i], x, y);
          changed = changed || token !== tokens[i];
          tokens[i] = token;
        }
        if (changed) colour = paint(tokens);
        const at = 4 * (y * width + x);
        pixels.data[at] = colour[0];
        pixels.data[at + 1] = colour[1];
        pixels.data[at + 2] = colour[2];
        pixels.data[at + 3] = 255 * opacity * colour[3];
      }
    }
    return pixels;
  }

  function box(context, shares, colour, label, dashed) {
    const { width, height } = context.canvas;
    const [left, top, right, bottom] =
      [shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height];
    const line = Math.max(2, width / 400);
    context.setLineDash(dashed ? [3 * line, 2 * line] : []);
    context.lineWidth = line + 2;
    context.strokeStyle = "rgba(0, 0, 0, 0.6)";
    context.strokeRect(left, top, right - left, bottom - top);
    context.lineWidth = line;
    context.strokeStyle = colour;
    context.strokeRect(left, top, right - left, bottom - top);
    context.setLineDash([]);
    if (!label) return;
    const size = Math.max(13, Math.round(width / 55));
    context.font = `${size}px system-ui, "DejaVu Sans", sans-serif`;
    const wide = context.measureText(label).width + 8;
    const x = Math.max(0, Math.min(left, width - wide));
    const y = top >= size + 6 ? top - size - 6 : Math.max(0, top);
    context.fillStyle = "rgba(0, 0, 0, 0.72)";
    context.fillRect(x, y, wide, size + 6);
    context.fillStyle = "#ffffff";
    context.textBaseline = "middle";
    context.fillText(label, x + 4, y + (size + 6) / 2);
  }

  function dots(context, points, colours) {
    const { width, height } = context.canvas;
    const heaviest = Math.max(1e-9, points.length ? points[0].weight : 0);
    for (const point of points) {
      const radius = Math.sqrt(point.weight / heaviest) * 0.016 * Math.max(width, height);
      if (radius < 0.6) break;
      context.beginPath();
      context.arc(point.x * width, point.y * height, radius, 0, 2 * Math.PI);
      context.fillStyle = colours[point.level % colours.length];
      context.fill();
      context.lineWidth = 1;
      context.strokeStyle = "#000000";
      context.stroke();
    }
  }

  // Gaussians, each [x, y, sigma of x, sigma of y, level], as ellipses of one sigma.
  function ellipses(context, gaussians, colours) {
    const { width, height } = context.canvas;
    context.lineWidth = Math.max(1.5, width / 500);
    for (const [x, y, across, down, level] of gaussians) {
      context.beginPath();
      context.ellipse(x * width, y * height, across * width, down * height, 0, 0, 2 * Math.PI);
      context.strokeStyle = colours[level % colours.length];
      context.stroke();
    }
  }

  return { places, tokenAt, painter, overlay, box, dots, ellipses };
})();
