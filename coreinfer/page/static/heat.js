"use strict";
// A prompt's neurons beside its cluster's: a row a layer, neurons from the most to the least important for the corpus.
(function (ours) {
  const { el, svg } = ours;
  const SHADES = 8,
    LEFT = 26,
    TOP = 4;

  // Cells of like shade are one path: 64 bins of 32 layers are 2,048 cells, and 8 elements.
  function shaded(rows, sizes, width, row, accent) {
    const most = Math.max(...rows.flatMap((counts) => counts.map((count, bin) => count / sizes[bin])), 1e-9);
    const paths = Array.from({ length: SHADES + 1 }, () => "");
    const total = sizes.reduce((a, b) => a + b, 0),
      across = width - LEFT;
    rows.forEach((counts, layer) => {
      let from = 0;
      counts.forEach((count, bin) => {
        const shade = count ? Math.max(1, Math.round((count / sizes[bin] / most) * SHADES)) : 0;
        const x = LEFT + (from / total) * across,
          w = (sizes[bin] / total) * across;
        if (shade)
          paths[shade] +=
            `M${x.toFixed(2)} ${TOP + layer * row}h${(w + 0.2).toFixed(2)}v${row - 1}h-${(w + 0.2).toFixed(2)}z`;
        from += sizes[bin];
      });
    });
    return paths
      .map(
        (d, shade) =>
          d &&
          svg("path", {
            class: accent ? "cell accent" : "cell",
            d,
            opacity: (0.04 + 0.86 * (shade / SHADES)).toFixed(2),
          }),
      )
      .filter(Boolean);
  }

  function panel(title, words, rows, sizes, spoken, accent) {
    const layers = rows.length,
      row = Math.max(5, Math.min(22, Math.round(230 / layers)));
    const place = el("div", { class: "plot" }),
      height = TOP + row * layers + 20;
    const box = el("div", {}, el("h3", {}, title), el("p", { class: "note" }, words), place);
    queueMicrotask(() => {
      ours.drawn(place.appendChild(el("div")), (width) =>
        ours.frame(
          width,
          height,
          spoken,
          svg("rect", {
            class: "frame",
            x: LEFT - 0.5,
            y: TOP - 0.5,
            width: Math.max(width - LEFT, 1),
            height: row * layers,
          }),
          ...shaded(rows, sizes, width, row, accent),
          ...rows.map((_, layer) =>
            layer % Math.ceil(layers / 12)
              ? null
              : svg("text", { x: LEFT - 7, y: TOP + layer * row + row / 2 + 4, "text-anchor": "end" }, String(layer)),
          ),
          svg("text", { x: LEFT, y: height - 3 }, "important for all"),
          svg("text", { x: width, y: height - 3, "text-anchor": "end" }, "for few"),
        ),
      );
      const tip = ours.tip(place),
        total = sizes.reduce((a, b) => a + b, 0);
      place.addEventListener("pointermove", (event) => {
        const at = place.getBoundingClientRect(),
          layer = Math.floor((event.clientY - at.top - TOP) / row);
        let left = ((event.clientX - at.left - LEFT) / (at.width - LEFT)) * total,
          from = 0,
          bin = 0;
        while (bin < sizes.length - 1 && left >= sizes[bin]) {
          left -= sizes[bin];
          from += sizes[bin];
          bin += 1;
        }
        if (layer < 0 || layer >= layers || event.clientX < at.left + LEFT) return tip.hide();
        tip.show(
          event.clientX - at.left,
          event.clientY - at.top,
          `layer ${layer}: ${rows[layer][bin]} of ${sizes[bin]} neurons`,
          [`places ${from + 1} to ${from + sizes[bin]} of ${total} by importance`],
        );
      });
      place.addEventListener("pointerleave", () => tip.hide());
    });
    return box;
  }

  // What two sets have in common in each layer, as bars with their numbers.
  function shares(compare) {
    const layers = compare.layers.length,
      row = Math.max(13, Math.min(22, Math.round(230 / layers))),
      height = TOP + row * layers + 20;
    const place = el("div", { class: "plot" });
    queueMicrotask(() =>
      ours.drawn(place, (width) =>
        ours.frame(
          width,
          height,
          `Overlap by layer: ${compare.layers.map((layer, i) => `layer ${i} ${ours.percent(layer.overlap)}`).join(", ")}`,
          ...compare.layers.flatMap((layer, i) => {
            const y = TOP + i * row,
              across = width - LEFT - 44;
            return [
              svg("text", { x: LEFT - 7, y: y + row / 2 + 4, "text-anchor": "end" }, String(i)),
              svg("rect", { class: "frame", x: LEFT, y: y + 2, width: Math.max(across, 1), height: row - 5 }),
              svg("rect", {
                class: "bars",
                x: LEFT,
                y: y + 2,
                width: Math.max(across * layer.overlap, 0),
                height: row - 5,
              }),
              svg(
                "text",
                { class: "strong", x: width, y: y + row / 2 + 4, "text-anchor": "end" },
                ours.percent(layer.overlap),
              ),
            ];
          }),
        ),
      ),
    );
    return el(
      "div",
      {},
      el("h3", {}, "What they share"),
      el("p", { class: "note" }, "Of the prompt's neurons, those in its cluster's core."),
      place,
    );
  }

  // `compare` is the server's; `used`: whether the cluster had a part in the choice.
  ours.heat = (host, compare, cluster, used) => {
    const of = (name) => compare.layers.map((layer) => layer[name]);
    const own = compare.layers.map((layer) => layer.prompt.map((count, bin) => count - layer.both[bin]));
    const alone = own.flat().reduce((a, b) => a + b, 0),
      kept = of("prompt")
        .flat()
        .reduce((a, b) => a + b, 0);
    const other = used ? "" : " It had no part in this choice.";
    host.replaceChildren(
      panel(
        "The prompt's neurons",
        `${ours.whole(kept)} are kept. The darker, the more of a place's neurons.`,
        of("prompt"),
        compare.sizes,
        `Heat map of the prompt's ${ours.whole(kept)} neurons by layer and importance`,
        false,
      ),
      panel(
        `Cluster ${cluster}'s core`,
        `What its prior alone would keep.${other}`,
        of("cluster"),
        compare.sizes,
        `Heat map of the core of cluster ${cluster} by layer and importance`,
        false,
      ),
      panel(
        "The prompt's alone",
        `${ours.whole(alone)} that its cluster's core lacks.`,
        own,
        compare.sizes,
        `Heat map of ${ours.whole(alone)} neurons that are the prompt's alone`,
        true,
      ),
      shares(compare),
    );
  };

  // Where a similarity lies between the threshold and 1.
  ours.gauge = (host, similarity, threshold, strong) => {
    const place = el("div");
    host.replaceChildren(place); // each with its own picture: the last one's is not drawn again
    ours.drawn(place, (width) => {
      const low = Math.min(0, similarity, threshold) - 0.02,
        x = (value) => 6 + ((value - low) / (1 - low)) * (width - 12);
      const weak = similarity < threshold;
      const edge = (value) => (x(value) > width - 90 ? "end" : x(value) < 60 ? "start" : "middle");
      return ours.frame(
        width,
        58,
        `Similarity ${similarity.toFixed(3)}, threshold ${threshold.toFixed(3)}`,
        svg("line", { class: "reach", x1: x(low + 0.02), x2: x(1), y1: 28, y2: 28 }),
        svg("line", { class: "edge", x1: x(threshold), x2: x(threshold), y1: 19, y2: 40 }),
        strong > threshold ? svg("line", { class: "edge", x1: x(strong), x2: x(strong), y1: 22, y2: 34 }) : null,
        svg("text", { x: x(threshold), y: 54, "text-anchor": edge(threshold) }, `threshold ${threshold.toFixed(3)}`),
        svg("circle", { class: weak ? "mark" : "nowdot", cx: x(similarity), cy: 28, r: 6.5 }),
        svg(
          "text",
          { class: weak ? "strong" : "accent", x: x(similarity), y: 13, "text-anchor": edge(similarity) },
          similarity.toFixed(3),
        ),
      );
    });
  };
})(window.coreinfer);
