"use strict";
// The map of the clusters: places come with the data, labels go where they fit at the current zoom.
(function (ours) {
  const { el, svg } = ours;
  const HEAD = 13, MORE = 11, AIR = 3, CLOSEST = 12; // letter heights and air in screen pixels; the most zoom
  const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const pen = document.createElement("canvas").getContext("2d");

  function widthOf(text, size, weight) {
    pen.font = `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
    return pen.measureText(text).width;
  }

  // All circles, with room for labels around them.
  function whole(data) {
    const left = Math.min(...data.clusters.map((c) => c.x - c.r)), right = Math.max(...data.clusters.map((c) => c.x + c.r));
    const high = Math.min(...data.clusters.map((c) => c.y - c.r)), low = Math.max(...data.clusters.map((c) => c.y + c.r));
    const w = Math.max(right - left + 160, 500), h = Math.max(low - high + 90, 340);
    return { x: (left + right - w) / 2, y: (high + low - h) / 2, w, h };
  }

  function wordsOf(cluster) {
    const terms = cluster.terms.filter((term) => term.trim()).map((term) => ours.shortened(term, 22));
    return [terms[0] || "", terms.slice(1, 3).join(", ")];
  }

  class ClusterMap {
    // `onPick(cluster)` is called when one is chosen by hand.
    constructor(host, data, onPick) {
      this.host = host;
      this.data = data;
      this.onPick = onPick || (() => {});
      this.home = whole(data);
      this.view = { ...this.home };
      this.lit = null; // a set of clusters: the others are pale
      this.current = -1;
      this.marks = svg("g", { "aria-hidden": "true" });
      this.labels = svg("g", { "aria-hidden": "true" });
      const shores = data.clusters.map((c) => svg("circle", { class: `shore g${c.group}`, cx: c.x, cy: c.y, r: c.r + 28 }));
      this.dots = data.clusters.map((c) => svg("circle", {
        class: `dot g${c.group}`, cx: c.x, cy: c.y, r: c.r, id: `cluster-${c.cluster}`, role: "option", "aria-label": this.spoken(c),
      }));
      this.svg = svg("svg", {
        role: "listbox", tabindex: 0, preserveAspectRatio: "xMidYMid meet",
        "aria-label": `Map of ${ours.counted(data.clusters.length, "cluster")}. Arrow keys go from cluster to cluster, plus and minus zoom, 0 shows all.`,
      }, svg("g", { "aria-hidden": "true" }, ...shores), this.marks, svg("g", { role: "presentation" }, ...this.dots), this.labels);
      const tool = (sign, name, act) => {
        const button = el("button", { type: "button", "aria-label": name, title: name }, sign);
        button.addEventListener("click", act);
        return button;
      };
      const tools = el("div", { class: "tools" }, tool("+", "Zoom in", () => this.zoom(1.5)), tool("−", "Zoom out", () => this.zoom(1 / 1.5)), tool("⤢", "Show all", () => this.show(this.home)));
      host.classList.add("map");
      host.append(this.svg, tools);
      this.tip = ours.tip(host);
      this.hear();
      new ResizeObserver(() => this.fit()).observe(host);
      this.fit();
    }

    spoken(c) {
      const words = c.terms.length ? c.terms.slice(0, 5).join(", ") : "no terms";
      return `cluster ${c.cluster}: ${words}; ${ours.counted(c.size, "passage")}`;
    }

    fit() {
      const height = this.host.clientWidth * Math.min(Math.max(this.home.h / this.home.w, 0.5), 1.1);
      this.svg.style.height = `${Math.round(height)}px`;
      this.show(this.view);
    }

    // Screen pixels -> the sheet's, for one pixel.
    get scale() {
      const box = this.svg.getBoundingClientRect();
      return Math.max(this.view.w / Math.max(box.width, 1), this.view.h / Math.max(box.height, 1));
    }

    show(view) {
      this.view = view;
      this.svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
      this.host.classList.toggle("near", view.w < this.home.w * 0.99);
      this.tip.hide();
      cancelAnimationFrame(this.waiting);
      this.waiting = requestAnimationFrame(() => this.label());
    }

    zoom(times, about) {
      const w = Math.min(Math.max(this.view.w / times, this.home.w / CLOSEST), this.home.w);
      const h = (w / this.home.w) * this.home.h, part = w / this.view.w;
      const [px, py] = about || [this.view.x + this.view.w / 2, this.view.y + this.view.h / 2];
      this.move({ x: px - (px - this.view.x) * part, y: py - (py - this.view.y) * part, w, h });
    }

    // Show a part, but never beyond the edges.
    move(view) {
      const inside = (at, size, from, room) => Math.min(Math.max(at, from), from + room - size);
      this.show({ ...view, x: inside(view.x, view.w, this.home.x, this.home.w), y: inside(view.y, view.h, this.home.y, this.home.h) });
    }

    // Labels by size of circle, those that are lit first; each beside its circle, on no other label or circle.
    label() {
      const s = this.scale, v = this.view, placed = [];
      const seen = this.data.clusters.filter((c) => c.x + c.r > v.x && c.x - c.r < v.x + v.w && c.y + c.r > v.y && c.y - c.r < v.y + v.h);
      const first = (c) => (this.lit && this.lit.has(c.cluster) ? 1e6 : 0) + c.r;
      const free = ([x, y, w, h]) => x >= v.x && y >= v.y && x + w <= v.x + v.w && y + h <= v.y + v.h
        && !placed.some(([a, b, c, d]) => x < a + c + AIR * s && a < x + w + AIR * s && y < b + d && b < y + h)
        && !seen.some((o) => Math.hypot(Math.max(x - o.x, 0, o.x - x - w), Math.max(y - o.y, 0, o.y - y - h)) < o.r);
      const nodes = [];
      for (const c of seen.sort((a, b) => first(b) - first(a) || a.cluster - b.cluster)) {
        const [head, more] = wordsOf(c);
        const found = head ? this.place(c, head, more, s, free) : null;
        if (found) {
          placed.push(found.box);
          nodes.push(found.node);
        }
      }
      this.labels.replaceChildren(...nodes);
    }

    place(c, head, more, s, free) {
      const wide = widthOf(head, HEAD, 600) * s, wider = Math.max(wide, widthOf(more, MORE, 400) * s);
      for (const [w, h, second] of more ? [[wider, (HEAD + MORE + 5) * s, true], [wide, (HEAD + 3) * s, false]] : [[wide, (HEAD + 3) * s, false]]) {
        const gap = c.r + 4 * s;
        const tries = [[gap, -h / 2, "start"], [-gap - w, -h / 2, "end"], [-w / 2, gap, "middle"], [-w / 2, -gap - h, "middle"]];
        for (const [dx, dy, anchor] of tries) {
          const box = [c.x + dx, c.y + dy, w, h];
          if (!free(box)) continue;
          const x = box[0] + (anchor === "start" ? 0 : anchor === "end" ? w : w / 2);
          const lit = this.lit && this.lit.has(c.cluster) ? " lit" : "";
          const node = svg("text", { class: `label${lit}`, x, y: box[1] + HEAD * 0.95 * s, "font-size": HEAD * s, "stroke-width": 3 * s, "text-anchor": anchor }, head);
          if (second) node.append(svg("tspan", { class: "more", x, dy: (MORE + 4) * s, "font-size": MORE * s }, more));
          return { box, node };
        }
      }
      return null;
    }

    // Only these clusters stay bright; null: all.
    light(clusters) {
      this.lit = clusters ? new Set(clusters) : null;
      this.host.classList.toggle("away", Boolean(clusters));
      this.dots.forEach((dot, c) => dot.classList.toggle("lit", Boolean(this.lit && this.lit.has(c))));
      this.label();
    }

    // Where prompts land: [{nearest: [{cluster, similarity}], weak, name}], the nearest cluster first.
    land(landings) {
      this.dots.forEach((dot) => dot.classList.remove("landed"));
      this.marks.replaceChildren();
      this.host.classList.toggle("weak", landings.length > 0 && landings.every((each) => each.weak));
      for (const { nearest, name } of landings) {
        const [best, ...rest] = nearest.map((near) => this.data.clusters[near.cluster]);
        this.dots[best.cluster].classList.add("landed");
        this.marks.append(svg("circle", { class: "ring", cx: best.x, cy: best.y, r: best.r + 8 }));
        rest.forEach((other, i) => this.marks.append(svg("line", {
          class: "link", x1: best.x, y1: best.y, x2: other.x, y2: other.y, "stroke-width": 1 + 1.2 / (i + 1), opacity: 0.75 - 0.12 * i,
        })));
        if (name) this.marks.append(svg("text", { class: "label lit", x: best.x, y: best.y - best.r - 14, "font-size": 26, "text-anchor": "middle" }, name));
      }
      this.light(landings.length ? landings.flatMap((each) => each.nearest.map((near) => near.cluster)) : null);
    }

    // Clusters with a word, or of a number; all where nothing is asked. The largest first.
    search(words) {
      const asked = words.trim().toLowerCase();
      if (!asked) return null;
      return this.data.clusters
        .filter((c) => String(c.cluster) === asked || c.terms.some((term) => term.toLowerCase().includes(asked)))
        .sort((a, b) => b.size - a.size).map((c) => c.cluster);
    }

    pick(cluster, told) {
      if (this.current >= 0) this.dots[this.current].classList.remove("here");
      this.current = cluster;
      this.dots.forEach((dot, c) => dot.setAttribute("aria-selected", String(c === cluster)));
      this.dots[cluster].classList.add("here");
      this.svg.setAttribute("aria-activedescendant", `cluster-${cluster}`);
      this.tell(cluster);
      if (told) this.onPick(cluster);
    }

    tell(cluster) {
      const c = this.data.clusters[cluster], s = this.scale, box = this.svg.getBoundingClientRect();
      const x = (c.x - this.view.x - this.view.w / 2) / s + box.width / 2, y = (c.y - this.view.y - this.view.h / 2) / s + box.height / 2;
      const alike = c.similarity ? [`members' similarity ${c.similarity[2].toFixed(2)}, 90% within ${c.similarity[0].toFixed(2)} to ${c.similarity[4].toFixed(2)}`] : [];
      this.tip.show(x + c.r / s, y, c.terms.slice(0, 8).map((term) => ours.shortened(term, 40)).join(", ") || "no terms", [
        `cluster ${c.cluster}, ${ours.counted(c.size, "passage")}`, ...alike,
      ]);
    }

    // The nearest cluster in a direction: far aside counts double.
    next([dx, dy]) {
      const here = this.data.clusters[this.current] || { x: this.view.x + this.view.w / 2, y: this.view.y + this.view.h / 2 };
      const away = (c) => {
        const along = (c.x - here.x) * dx + (c.y - here.y) * dy, aside = Math.abs((c.x - here.x) * dy + (c.y - here.y) * dx);
        return along > 1 ? along + 2 * aside : Infinity;
      };
      const best = this.data.clusters.reduce((a, b) => (away(b) < away(a) ? b : a));
      return away(best) < Infinity ? best.cluster : this.current;
    }

    at(event) {
      const box = this.svg.getBoundingClientRect(), s = this.scale;
      return [this.view.x + this.view.w / 2 + (event.clientX - box.left - box.width / 2) * s, this.view.y + this.view.h / 2 + (event.clientY - box.top - box.height / 2) * s];
    }

    hear() {
      const fingers = new Map();
      let moved = 0;
      this.svg.addEventListener("keydown", (event) => {
        if (ARROWS[event.key]) this.data.clusters.length && this.pick(Math.max(this.next(ARROWS[event.key]), 0), false);
        else if (event.key === "+" || event.key === "=") this.zoom(1.5);
        else if (event.key === "-") this.zoom(1 / 1.5);
        else if (event.key === "0" || event.key === "Home") this.show(this.home);
        else if (event.key === "Escape") this.tip.hide();
        else if ((event.key === "Enter" || event.key === " ") && this.current >= 0) this.pick(this.current, true);
        else return;
        event.preventDefault();
      });
      this.svg.addEventListener("blur", () => this.tip.hide());
      this.svg.addEventListener("wheel", (event) => {
        if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
        event.preventDefault();
        this.zoom(Math.exp(-event.deltaY / 200), this.at(event));
      }, { passive: false });
      this.svg.addEventListener("dblclick", (event) => this.zoom(2, this.at(event)));
      this.svg.addEventListener("pointerover", (event) => {
        const c = this.dots.indexOf(event.target);
        if (c >= 0 && !fingers.size) this.tell(c);
      });
      this.svg.addEventListener("pointerout", (event) => this.dots.includes(event.target) && this.tip.hide());
      this.svg.addEventListener("pointerdown", (event) => {
        fingers.set(event.pointerId, [event.clientX, event.clientY]);
        moved = 0;
      });
      this.svg.addEventListener("pointermove", (event) => {
        const from = fingers.get(event.pointerId);
        if (!from) return;
        const to = [event.clientX, event.clientY], other = [...fingers].find(([id]) => id !== event.pointerId);
        moved += Math.hypot(to[0] - from[0], to[1] - from[1]);
        fingers.set(event.pointerId, to);
        if (other) {
          const apart = (point) => Math.max(Math.hypot(point[0] - other[1][0], point[1] - other[1][1]), 1);
          this.zoom(apart(to) / apart(from), this.at(event));
        } else if (moved > 4 && this.view.w < this.home.w) {
          if (!this.svg.hasPointerCapture(event.pointerId)) this.svg.setPointerCapture(event.pointerId);
          this.host.classList.add("moving");
          const s = this.scale;
          this.move({ ...this.view, x: this.view.x - (to[0] - from[0]) * s, y: this.view.y - (to[1] - from[1]) * s });
        }
      });
      const up = (event) => {
        const c = this.dots.indexOf(event.target);
        if (event.type === "pointerup" && fingers.has(event.pointerId) && moved <= 4 && c >= 0) this.pick(c, true);
        fingers.delete(event.pointerId);
        this.host.classList.remove("moving");
      };
      for (const type of ["pointerup", "pointercancel", "pointerleave"]) this.svg.addEventListener(type, up);
    }
  }

  ours.ClusterMap = ClusterMap;

  // The search box above a map: what is found stays bright, and is counted aloud.
  ours.searching = (input, said, map, cleared) => {
    input.addEventListener("input", () => {
      const found = map.search(input.value);
      said.textContent = found === null ? "" : found.length ? ours.counted(found.length, "cluster") : "no cluster";
      if (found === null) cleared();
      else map.light(found);
    });
    input.addEventListener("keydown", (event) => {
      const found = map.search(input.value);
      if (event.key === "Enter" && found && found.length) map.pick(found[0], true);
    });
  };

  // The same clusters as a table, made when it is opened.
  ours.clusterTable = (details, data) => {
    details.addEventListener("toggle", () => {
      if (!details.open || details.querySelector("table")) return;
      const rows = [...data.clusters].sort((a, b) => b.size - a.size || a.cluster - b.cluster).map((c) =>
        el("tr", {}, el("td", {}, String(c.cluster)), el("td", {}, ours.whole(c.size)), el("td", {}, c.similarity[2].toFixed(2)), el("td", { dir: "auto" }, c.terms.join(", "))));
      const heads = ["cluster", "passages", "similarity", "terms"].map((name) => el("th", { scope: "col" }, name));
      details.append(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Clusters" }, el("table", { class: "clusters" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows))));
    });
  };
})(window.coreinfer);
