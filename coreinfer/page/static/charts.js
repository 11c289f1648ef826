"use strict";
// The report's other pictures: sizes, layer budgets, how much core sets overlap.
(function (ours) {
  const { el, svg } = ours;

  function hover(host, words) {
    const tip = ours.tip(host);
    host.classList.add("plot");
    host.addEventListener("pointermove", (event) => {
      const box = host.getBoundingClientRect(),
        x = event.clientX - box.left,
        y = event.clientY - box.top;
      const found = words(x, y, box.width);
      if (found) tip.show(x, y, found[0], found.slice(1));
      else tip.hide();
    });
    host.addEventListener("pointerleave", () => tip.hide());
  }

  // Clusters by size, the largest first.
  ours.sizes = (host, data) => {
    const rows = [...data.clusters].sort((a, b) => b.size - a.size),
      height = 220,
      left = 52,
      bottom = 24,
      top = 8;
    const ticks = ours.steps(rows[0].size, 4),
      most = ticks[ticks.length - 1],
      y = (size) => top + (1 - size / most) * (height - top - bottom);
    ours.drawn(host.appendChild(el("div")), (width) => {
      const step = (width - left) / rows.length,
        gap = step > 4 ? 1 : 0;
      return ours.frame(
        width,
        height,
        `Sizes of ${ours.counted(rows.length, "cluster")}: ${ours.whole(rows[0].size)} passages in the largest, ${ours.whole(rows[rows.length - 1].size)} in the smallest`,
        ...ticks.flatMap((tick) => [
          svg("line", { class: tick ? "grid" : "axis", x1: left, x2: width, y1: y(tick), y2: y(tick) }),
          svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, ours.whole(tick)),
        ]),
        svg("path", {
          class: "bars",
          d: rows
            .map(
              (c, i) =>
                `M${(left + i * step).toFixed(2)} ${y(c.size).toFixed(1)}h${(step - gap).toFixed(2)}V${y(0)}h-${(step - gap).toFixed(2)}z`,
            )
            .join(""),
        }),
        svg("text", { x: width, y: height - 4, "text-anchor": "end" }, "clusters, the largest first"),
      );
    });
    hover(host, (x, _, width) => {
      const c = rows[Math.floor(((x - left) / (width - left)) * rows.length)];
      return c && [`cluster ${c.cluster}: ${ours.counted(c.size, "passage")}`, c.terms.slice(0, 5).join(", ")];
    });
  };

  // Neurons that each layer keeps, a line for each keep; equal budgets are level lines.
  ours.budgets = (host, data) => {
    const lines = data.budgets.filter((row) => row.keep < 1),
      height = 270,
      left = 44,
      right = 60,
      top = 14,
      bottom = 38,
      last = data.layers - 1;
    const y = (share) => top + (1 - share) * (height - top - bottom),
      x = (layer, width) => left + (last ? layer / last : 0.5) * (width - left - right);
    const chosen = lines.reduce((a, b) => (Math.abs(b.keep - data.keep) < Math.abs(a.keep - data.keep) ? b : a));
    ours.drawn(host.appendChild(el("div")), (width) =>
      ours.frame(
        width,
        height,
        `Share of its neurons that each layer keeps, by keep. At keep ${chosen.keep}: ${chosen.neurons.map((n, l) => `layer ${l} ${ours.percent(n / data.width)}`).join(", ")}`,
        ...[0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
          svg("line", { class: share ? "grid" : "axis", x1: left, x2: width - right, y1: y(share), y2: y(share) }),
          svg("text", { x: left - 8, y: y(share) + 4, "text-anchor": "end" }, ours.percent(share)),
        ]),
        ...lines.flatMap((row) => {
          const mine = row === chosen,
            points = row.neurons.map((n, layer) => `${x(layer, width).toFixed(1)},${y(n / data.width).toFixed(1)}`);
          return [
            svg("polyline", { class: mine ? "now line" : "line", points: points.join(" "), opacity: mine ? 1 : 0.35 }),
            svg(
              "text",
              { class: mine ? "accent" : "", x: width - right + 8, y: y(row.neurons[last] / data.width) + 4 },
              mine ? `keep ${row.keep}` : String(row.keep),
            ),
          ];
        }),
        ...Array.from({ length: data.layers }, (_, layer) =>
          layer % Math.ceil(data.layers / 16)
            ? null
            : svg("text", { x: x(layer, width), y: height - bottom + 18, "text-anchor": "middle" }, String(layer)),
        ),
        svg("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, "layer"),
      ),
    );
    hover(host, (at, high, width) => {
      const layer = Math.round(((at - left) / (width - left - right)) * last);
      if (!(layer >= 0 && layer <= last)) return null;
      const row = lines.reduce((a, b) =>
        Math.abs(y(b.neurons[layer] / data.width) - high) < Math.abs(y(a.neurons[layer] / data.width) - high) ? b : a,
      );
      return [
        `layer ${layer} at keep ${row.keep}: ${ours.counted(row.neurons[layer], "neuron")}`,
        `${((100 * row.neurons[layer]) / data.width).toFixed(1)}% of ${ours.whole(data.width)}`,
      ];
    });
  };

  // How much two clusters' cores share in each layer: the mean over pairs, from the least to the most, and chance.
  ours.layerOverlap = (host, laps) => {
    const layers = laps.layers.length,
      row = Math.max(16, Math.min(34, Math.round(250 / layers))),
      left = 34,
      right = 46,
      top = 4,
      height = top + layers * row + 38;
    ours.drawn(host.appendChild(el("div")), (width) => {
      const x = (share) => left + share * (width - left - right);
      return ours.frame(
        width,
        height,
        `Overlap of two clusters' cores by layer: ${laps.layers.map((l, i) => `layer ${i} ${ours.percent(l.mean)}`).join(", ")}`,
        ...[0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
          svg("line", { class: share ? "grid" : "axis", x1: x(share), x2: x(share), y1: top, y2: height - 34 }),
          svg("text", { x: x(share), y: height - 18, "text-anchor": "middle" }, ours.percent(share)),
        ]),
        ...laps.layers.flatMap((layer, i) => {
          const y = top + i * row + row / 2;
          return [
            svg("text", { x: left - 9, y: y + 4, "text-anchor": "end" }, String(i)),
            svg("line", { class: "reach", x1: x(layer.least), x2: x(layer.most), y1: y, y2: y }),
            svg("line", {
              class: "chance",
              x1: x(laps.chance[i]),
              x2: x(laps.chance[i]),
              y1: y - row / 2 + 2,
              y2: y + row / 2 - 2,
            }),
            svg("circle", { class: "nowdot", cx: x(layer.mean), cy: y, r: Math.min(5, row / 4) }),
            svg("text", { class: "strong", x: width, y: y + 4, "text-anchor": "end" }, ours.percent(layer.mean)),
          ];
        }),
        svg("text", { x: (left + width - right) / 2, y: height - 2, "text-anchor": "middle" }, "neurons in common"),
      );
    });
    hover(host, (_, y) => {
      const i = Math.floor((y - top) / row),
        layer = laps.layers[i];
      return (
        layer && [
          `layer ${i}: ${ours.percent(layer.mean)} in common`,
          `${ours.percent(layer.least)} to ${ours.percent(layer.most)} over all pairs`,
          `${ours.percent(laps.chance[i])} by chance`,
        ]
      );
    });
  };

  // Every two clusters, by neighbourhood: the darker, the more of their cores is the same.
  ours.matrix = (host, laps, data) => {
    const n = laps.clusters.length,
      flat = laps.matrix.flatMap((row, i) => row.filter((_, j) => j !== i)),
      strip = 8;
    const low = Math.min(...flat, 1),
      high = Math.max(...flat, low + 1e-6),
      shades = 10;
    ours.drawn(host.appendChild(el("div")), (width) => {
      const side = Math.min(width, 620),
        cell = (side - strip) / n,
        paths = Array.from({ length: shades + 1 }, () => "");
      const round = (value) => value.toFixed(2);
      laps.matrix.forEach((row, i) =>
        row.forEach((value, j) => {
          const shade = Math.round(shades * Math.min(Math.max((value - low) / (high - low), 0), 1));
          paths[shade] +=
            `M${round(strip + j * cell)} ${round(strip + i * cell)}h${round(cell + 0.15)}v${round(cell + 0.15)}h-${round(cell + 0.15)}z`;
        }),
      );
      const edge = laps.clusters.flatMap((c, i) => [
        svg("rect", {
          class: `dot g${data.clusters[c].group}`,
          x: strip + i * cell,
          y: 0,
          width: cell,
          height: strip - 3,
          "stroke-width": 0,
        }),
        svg("rect", {
          class: `dot g${data.clusters[c].group}`,
          y: strip + i * cell,
          x: 0,
          height: cell,
          width: strip - 3,
          "stroke-width": 0,
        }),
      ]);
      return ours.frame(
        width,
        side,
        `Overlap of every two of ${ours.counted(n, "cluster")}' core sets: ${ours.percent(low)} to ${ours.percent(high)}`,
        ...paths
          .map(
            (d, shade) => d && svg("path", { class: "cell", d, opacity: (0.03 + 0.85 * (shade / shades)).toFixed(3) }),
          )
          .filter(Boolean),
        ...edge,
      );
    });
    hover(host, (x, y, width) => {
      const cell = (Math.min(width, 620) - strip) / n,
        i = Math.floor((y - strip) / cell),
        j = Math.floor((x - strip) / cell);
      if (!(i >= 0 && i < n && j >= 0 && j < n)) return null;
      const name = (c) => `cluster ${c}: ${data.clusters[c].terms.slice(0, 3).join(", ")}`;
      return [
        `${(100 * laps.matrix[i][j]).toFixed(1)}% in common`,
        name(laps.clusters[i]),
        ...(i === j ? [] : [name(laps.clusters[j])]),
      ];
    });
  };
})(window.coreinfer);
