"use strict";
// A map's labels: each beside its circle where there is room at the current zoom, those that are lit first.
(function (ours) {
  const { svg } = ours;
  const HEAD = 13; // letter heights of a label's two lines, and air around it, in screen pixels
  const MORE = 11;
  const AIR = 3;
  const pen = document.createElement("canvas").getContext("2d");

  function widthOf(text, size, weight) {
    pen.font = `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
    return pen.measureText(text).width;
  }

  // A label's sizes in the sheet's pixels, the best first: both lines, then the first alone.
  function sizesOf(head, more, scale) {
    const wide = widthOf(head, HEAD, 600) * scale;
    const alone = { w: wide, h: (HEAD + 3) * scale, second: "" };
    if (!more) return [alone];
    return [{ w: Math.max(wide, widthOf(more, MORE, 400) * scale), h: (HEAD + MORE + 5) * scale, second: more }, alone];
  }

  // Right of its circle, left, below or above.
  function placesOf(c, { w, h }, scale) {
    const gap = c.r + 4 * scale;
    return [
      { x: c.x + gap, y: c.y - h / 2, anchor: "start", at: 0 },
      { x: c.x - gap - w, y: c.y - h / 2, anchor: "end", at: w },
      { x: c.x - w / 2, y: c.y + gap, anchor: "middle", at: w / 2 },
      { x: c.x - w / 2, y: c.y - gap - h, anchor: "middle", at: w / 2 },
    ];
  }

  function drawn(head, size, place, scale, lit) {
    const x = place.x + place.at;
    const look = { "font-size": HEAD * scale, "stroke-width": 3 * scale, "text-anchor": place.anchor };
    const node = svg(
      "text",
      { class: lit ? "label lit" : "label", x, y: place.y + HEAD * 0.95 * scale, ...look },
      head,
    );
    const below = { class: "more", x, dy: (MORE + 4) * scale, "font-size": MORE * scale };
    if (size.second) node.append(svg("tspan", below, size.second));
    return node;
  }

  // The labels of `clusters` that fit into `view`, on no circle and on no other label; `lit(c)`: it comes first.
  ours.labels = (clusters, view, scale, lit) => {
    const inView = (x, y, w, h) => x >= view.x && y >= view.y && x + w <= view.x + view.w && y + h <= view.y + view.h;
    const seen = clusters.filter(
      (c) => c.x + c.r > view.x && c.x - c.r < view.x + view.w && c.y + c.r > view.y && c.y - c.r < view.y + view.h,
    );
    const taken = [];
    const meets = (x, y, w, h, b) =>
      x < b.x + b.w + AIR * scale && b.x < x + w + AIR * scale && y < b.y + b.h && b.y < y + h;
    const covers = (x, y, w, h, c) =>
      Math.hypot(Math.max(x - c.x, 0, c.x - x - w), Math.max(y - c.y, 0, c.y - y - h)) < c.r;
    const free = ({ x, y }, { w, h }) =>
      inView(x, y, w, h) && !taken.some((b) => meets(x, y, w, h, b)) && !seen.some((c) => covers(x, y, w, h, c));
    const rank = (c) => (lit(c) ? 1e6 : 0) + c.r;
    const nodes = [];
    for (const c of seen.sort((a, b) => rank(b) - rank(a) || a.cluster - b.cluster)) {
      const [head, ...rest] = c.terms.filter((term) => term.trim()).map((term) => ours.shortened(term, 22));
      for (const size of head ? sizesOf(head, rest.slice(0, 2).join(", "), scale) : []) {
        const place = placesOf(c, size, scale).find((tried) => free(tried, size));
        if (!place) continue;
        taken.push({ ...place, w: size.w, h: size.h });
        nodes.push(drawn(head, size, place, scale, lit(c)));
        break;
      }
    }
    return nodes;
  };
})(window.coreinfer);
