"use strict";
// What the page computes from the numbers that it holds. Nothing here touches the document.
const TokenNumbers = (() => {
  function bytes(text) {
    const characters = atob(text);
    const found = new Uint8Array(characters.length);
    for (let i = 0; i < characters.length; i += 1) found[i] = characters.charCodeAt(i);
    return found;
  }

  const unpacked = (Kind, text) => new Kind(bytes(text).buffer);

  // One image of the data, with its arrays unpacked and its levels placed.
  function image(data) {
    let start = 0;
    const levels = data.levels.map(({ stride, shape, covered }) => {
      const level = { stride, rows: shape[0], columns: shape[1], covered, start };
      start += shape[0] * shape[1];
      return level;
    });
    const own = new Uint8Array(start);
    for (const level of levels) {
      for (let row = 0; row < level.covered[0]; row += 1) {
        const first = level.start + row * level.columns;
        own.fill(1, first, first + level.covered[1]);
      }
    }
    const attention = unpacked(Float32Array, data.attention);
    return {
      data,
      levels,
      own,
      attention,
      numTokens: start,
      numOwn: own.reduce((sum, bit) => sum + bit, 0),
      scores: data.scores === null ? null : unpacked(Float32Array, data.scores),
      counted: data.counted === null ? null : bits(bytes(data.counted), start),
      ranking: data.ranking === null ? null : unpacked(Uint32Array, data.ranking),
      attentionRanking: ranked(attention, own),
      kept: data.kept.map((text) => bits(bytes(text), start)),
    };
  }

  function bits(packed, count) {
    const mask = new Uint8Array(count);
    for (let i = 0; i < count; i += 1) mask[i] = (packed[i >> 3] >> (i & 7)) & 1;
    return mask;
  }

  // Tokens of the image by value, highest first, ties to the earlier token.
  function ranked(values, own) {
    const order = [];
    for (let i = 0; i < values.length; i += 1) if (own[i]) order.push(i);
    return Uint32Array.from(order.sort((a, b) => values[b] - values[a] || a - b));
  }

  // The released count, whose product is in single precision.
  function keptCount(numOwn, rho) {
    const product = Math.fround(Math.fround(numOwn) * Math.fround(rho));
    return Math.min(numOwn, Math.trunc(product) + 1);
  }

  function firstOf(ranking, count, numTokens) {
    const mask = new Uint8Array(numTokens);
    for (let i = 0; i < Math.min(count, ranking.length); i += 1) mask[ranking[i]] = 1;
    return mask;
  }

  function union(masks) {
    const either = new Uint8Array(masks[0].length);
    for (const mask of masks) for (let i = 0; i < mask.length; i += 1) either[i] |= mask[i];
    return either;
  }

  // Counts and Corr of the tokens from `start` on.
  function figures(seen, kept, target, start, length) {
    const sums = { tokens: 0, kept: 0, target: 0, met: 0, attention: 0, onKept: 0 };
    for (let i = start; i < start + length; i += 1) {
      if (!seen.own[i]) continue;
      sums.tokens += 1;
      sums.kept += kept[i];
      sums.target += target[i];
      sums.met += kept[i] & target[i];
      sums.attention += seen.attention[i];
      if (kept[i]) sums.onKept += seen.attention[i];
    }
    sums.corr = sums.attention > 0 ? sums.onKept / sums.attention : NaN;
    return sums;
  }

  // Figures of all tokens, then of each level.
  function allFigures(seen, kept, target) {
    const levels = seen.levels.map((level) =>
      figures(seen, kept, target, level.start, level.rows * level.columns));
    return [figures(seen, kept, target, 0, seen.numTokens), ...levels];
  }

  // Where the cells of a level begin and end, whole pixels of the picture.
  function cellEdges(cells, length) {
    return Array.from({ length: cells + 1 }, (_, i) => Math.floor((i * length) / cells + 0.5));
  }

  // The cell of each pixel along one axis; pixels beyond the last cell belong to it.
  function cellOfPixel(cells, length, pixels) {
    const edges = cellEdges(cells, length);
    const found = new Int32Array(pixels).fill(cells - 1);
    for (let cell = 0; cell < cells; cell += 1) {
      found.fill(cell, Math.min(edges[cell], pixels), Math.min(edges[cell + 1], pixels));
    }
    return found;
  }

  // A query's sampling in one decoder layer: places in shares of the image.
  function sampling(layer, pointUnit, weightUnit) {
    const points = unpacked(Int16Array, layer.points);
    const weights = unpacked(Uint16Array, layer.weights);
    const levels = unpacked(Uint8Array, layer.levels);
    return Array.from(weights, (weight, i) => ({
      x: points[2 * i] * pointUnit,
      y: points[2 * i + 1] * pointUnit,
      weight: weight * weightUnit,
      level: levels[i],
    })).sort((a, b) => b.weight - a.weight);
  }

  return { image, bytes, keptCount, firstOf, union, allFigures, cellOfPixel, sampling };
})();
if (typeof module !== "undefined") module.exports = TokenNumbers;
