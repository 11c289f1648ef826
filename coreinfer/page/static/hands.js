"use strict";
// What hands do to a map: keys walk and zoom; pointers choose, drag and pinch. The wheel zooms with Ctrl alone, so that
// the page still scrolls.
(function (ours) {
  const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const STILL = 4; // pixels that a finger may move and still only press

  // The nearest cluster in a direction: what lies aside counts double.
  function next(map, [dx, dy]) {
    const middle = { x: map.view.x + map.view.w / 2, y: map.view.y + map.view.h / 2 };
    const here = map.data.clusters[map.current] || middle;
    const away = (c) => {
      const along = (c.x - here.x) * dx + (c.y - here.y) * dy;
      return along > 1 ? along + 2 * Math.abs((c.x - here.x) * dy + (c.y - here.y) * dx) : Infinity;
    };
    const best = map.data.clusters.reduce((a, b) => (away(b) < away(a) ? b : a));
    return away(best) < Infinity ? best.cluster : Math.max(map.current, 0);
  }

  function keys(map) {
    map.svg.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's own
      const { key } = event;
      if (ARROWS[key]) map.pick(next(map, ARROWS[key]), false);
      else if (key === "+" || key === "=") map.zoom(1.5);
      else if (key === "-") map.zoom(1 / 1.5);
      else if (key === "0" || key === "Home") map.show(map.home);
      else if (key === "Escape") map.tip.hide();
      else if ((key === "Enter" || key === " ") && map.current >= 0) map.pick(map.current, true);
      else return;
      event.preventDefault();
    });
    map.svg.addEventListener("blur", () => map.tip.hide());
  }

  function wheel(map) {
    const zoom = (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      map.zoom(Math.exp(-event.deltaY / 200), map.at(event));
    };
    map.svg.addEventListener("wheel", zoom, { passive: false });
    map.svg.addEventListener("dblclick", (event) => map.zoom(2, map.at(event)));
  }

  function pointers(map) {
    const fingers = new Map();
    let moved = 0;
    const pinch = (event, from, to, other) => {
      const apart = ([x, y]) => Math.max(Math.hypot(x - other[0], y - other[1]), 1);
      map.zoom(apart(to) / apart(from), map.at(event));
    };
    const drag = (event, from, to) => {
      if (!map.svg.hasPointerCapture(event.pointerId)) map.svg.setPointerCapture(event.pointerId);
      map.host.classList.add("moving");
      const s = map.scale;
      map.move({ ...map.view, x: map.view.x - (to[0] - from[0]) * s, y: map.view.y - (to[1] - from[1]) * s });
    };
    const up = (event) => {
      const c = map.dots.indexOf(event.target);
      if (event.type === "pointerup" && fingers.has(event.pointerId) && moved <= STILL && c >= 0) map.pick(c, true);
      fingers.delete(event.pointerId);
      map.host.classList.remove("moving");
    };
    map.svg.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      moved = 0;
    });
    map.svg.addEventListener("pointermove", (event) => {
      const from = fingers.get(event.pointerId);
      if (!from) return;
      const to = [event.clientX, event.clientY];
      const other = [...fingers].find(([id]) => id !== event.pointerId);
      moved += Math.hypot(to[0] - from[0], to[1] - from[1]);
      fingers.set(event.pointerId, to);
      if (other) pinch(event, from, to, other[1]);
      else if (moved > STILL && map.view.w < map.home.w) drag(event, from, to);
    });
    for (const type of ["pointerup", "pointercancel", "pointerleave"]) map.svg.addEventListener(type, up);
    map.svg.addEventListener("pointerover", (event) => {
      const c = map.dots.indexOf(event.target);
      if (c >= 0 && !fingers.size) map.tell(c);
    });
    map.svg.addEventListener("pointerout", (event) => map.dots.includes(event.target) && map.tip.hide());
  }

  ours.hands = (map) => {
    keys(map);
    wheel(map);
    pointers(map);
  };
})(window.coreinfer);
