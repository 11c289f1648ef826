"use strict";
// What a keep costs: the curve that calibration measured, its chosen point, and the keep that is asked for.
(function (ours) {
  const { svg } = ours;
  const HEIGHT = 250,
    LEFT = 44,
    RIGHT = 14,
    TOP = 16,
    BOTTOM = 38;

  // `data`: {curve, keep}. Returns {now(keep)}, which moves the mark of the keep asked for.
  ours.curve = (host, data) => {
    if (!data.curve.length) {
      host.append(
        ours.el("p", { class: "note" }, "Calibration measured no curve for this artifact: coreinfer calibrate does."),
      );
      return { now() {} };
    }
    const points = [...data.curve, { keep: 1, rise: 0, rise_high: 0 }];
    const ticks = ours.steps(Math.max(...points.map((p) => Math.max(p.rise_high, p.rise)), 1e-3), 4);
    const low = Math.min(0, ...points.map((p) => p.rise)),
      most = ticks[ticks.length - 1];
    let asked = null;
    host.classList.add("plot");

    const picture = (width) => {
      const x = (keep) => LEFT + keep * (width - LEFT - RIGHT);
      const y = (rise) => TOP + ((most - rise) / (most - low)) * (HEIGHT - TOP - BOTTOM);
      const path = (name) => points.map((p) => `${x(p.keep).toFixed(1)},${y(p[name]).toFixed(1)}`);
      const chosen = ours.expected(data.curve, data.keep);
      const parts = ticks.flatMap((tick) => [
        svg("line", { class: tick ? "grid" : "axis", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
        svg("text", { x: LEFT - 8, y: y(tick) + 4, "text-anchor": "end" }, String(Number(tick.toPrecision(2)))),
      ]);
      for (const keep of width > 380 ? [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1] : [0.2, 0.4, 0.6, 0.8, 1])
        parts.push(svg("text", { x: x(keep), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, String(keep)));
      parts.push(
        svg(
          "text",
          { x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle" },
          "keep: share of MLP neurons kept",
        ),
      );
      parts.push(
        svg("polygon", { class: "band", points: [...path("rise"), ...path("rise_high").reverse()].join(" ") }),
      );
      parts.push(svg("polyline", { class: "line", points: path("rise").join(" ") }));
      for (const p of points) parts.push(svg("circle", { class: "mark", cx: x(p.keep), cy: y(p.rise), r: 3 }));
      if (chosen)
        parts.push(
          svg("circle", { class: "chosen", cx: x(data.keep), cy: y(chosen.rise), r: 5.5 }),
          svg("text", { class: "strong", x: x(data.keep) + 9, y: y(chosen.high) - 9 }, `chosen: ${data.keep}`),
        );
      const at = asked === null ? null : ours.expected(data.curve, asked);
      if (asked !== null)
        parts.push(svg("line", { class: "now", x1: x(asked), x2: x(asked), y1: TOP - 6, y2: HEIGHT - BOTTOM }));
      if (at) parts.push(svg("circle", { class: "nowdot", cx: x(asked), cy: y(at.rise), r: 5 }));
      return ours.frame(width, HEIGHT, spoken(), ...parts);
    };
    const spoken = () =>
      `Expected rise of the loss, nats per token, by keep: ${points.map((p) => `${p.keep}: ${p.rise.toFixed(3)}`).join(", ")}. Chosen: keep ${data.keep}.`;

    const again = ours.drawn(host.appendChild(ours.el("div")), picture),
      tip = ours.tip(host);
    host.addEventListener("pointermove", (event) => {
      const box = host.getBoundingClientRect(),
        keep = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
      const near = points.reduce((a, b) => (Math.abs(b.keep - keep) < Math.abs(a.keep - keep) ? b : a));
      if (keep < -0.05 || keep > 1.05) return tip.hide();
      tip.show(event.clientX - box.left, event.clientY - box.top, `keep ${near.keep}: ${ours.signed(near.rise, 4)}`, [
        `at most ${ours.signed(near.rise_high, 4)} (95%)`,
        "nats per token",
      ]);
    });
    host.addEventListener("pointerleave", () => tip.hide());
    return {
      now(keep) {
        asked = keep;
        again();
      },
    };
  };

  // A keep's cost in words.
  ours.costInWords = (data, keep) => {
    if (keep >= 1) return ["0", "all neurons: the dense model itself"];
    const at = ours.expected(data.curve, keep);
    if (!at)
      return ["unknown", data.curve.length ? `not measured below keep ${data.curve[0].keep}` : "no curve was measured"];
    return [ours.signed(at.rise, 3), `nats per token expected over dense, at most ${ours.signed(at.high, 3)} (95%)`];
  };
})(window.coreinfer);
