"use strict";
// The map of the clusters: places come with the data, labels go where they fit at the current zoom.
(function (ours) {
  const { el, svg } = ours;
  const CLOSEST = 12; // the most that it zooms

  // All circles, with room for labels around them.
  function whole(data) {
    const left = Math.min(...data.clusters.map((c) => c.x - c.r));
    const right = Math.max(...data.clusters.map((c) => c.x + c.r));
    const high = Math.min(...data.clusters.map((c) => c.y - c.r));
    const low = Math.max(...data.clusters.map((c) => c.y + c.r));
    const w = Math.max(right - left + 160, 500);
    const h = Math.max(low - high + 90, 340);
    return { x: (left + right - w) / 2, y: (high + low - h) / 2, w, h };
  }

  const circle = (kind, c, more, others) => svg("circle", { class: kind, cx: c.x, cy: c.y, r: c.r + more, ...others });

  // From the nearest cluster to another of the mixture: the further down the list, the fainter.
  function link(best, other, i) {
    const ends = { x1: best.x, y1: best.y, x2: other.x, y2: other.y };
    return svg("line", {
      class: "link",
      ...ends,
      "stroke-width": 1 + 1.2 / (i + 1),
      opacity: Math.max(0.75 - 0.12 * i, 0.2),
    });
  }

  function spoken(c) {
    const words = c.terms.length ? c.terms.slice(0, 5).join(", ") : "no terms";
    return `cluster ${c.cluster}: ${words}; ${ours.counted(c.size, "passage")}`;
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
      this.dots = data.clusters.map((c) => {
        const option = { id: `cluster-${c.cluster}`, role: "option", "aria-label": spoken(c) };
        return circle(`dot g${c.group}`, c, 0, option);
      });
      this.svg = this.sheet();
      host.classList.add("map");
      host.append(this.svg, this.tools());
      this.tip = ours.tip(host);
      ours.hands(this);
      new ResizeObserver(() => this.fit()).observe(host);
      this.fit();
    }

    // A list to screen readers: the circles are its options.
    sheet() {
      const many = ours.counted(this.data.clusters.length, "cluster");
      const keys = "Arrow keys go from cluster to cluster, plus and minus zoom, 0 shows all.";
      const shores = this.data.clusters.map((c) => circle(`shore g${c.group}`, c, 28));
      return svg(
        "svg",
        { role: "listbox", tabindex: 0, preserveAspectRatio: "xMidYMid meet", "aria-label": `Map of ${many}. ${keys}` },
        svg("g", { "aria-hidden": "true" }, ...shores),
        this.marks,
        svg("g", { role: "presentation" }, ...this.dots),
        this.labels,
      );
    }

    tools() {
      const tool = (sign, name, act) => {
        const button = el("button", { type: "button", "aria-label": name, title: name }, sign);
        button.addEventListener("click", act);
        return button;
      };
      return el(
        "div",
        { class: "tools" },
        tool("+", "Zoom in", () => this.zoom(1.5)),
        tool("−", "Zoom out", () => this.zoom(1 / 1.5)),
        tool("⤢", "Show all", () => this.show(this.home)),
      );
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
      const h = (w / this.home.w) * this.home.h;
      const part = w / this.view.w;
      const [px, py] = about || [this.view.x + this.view.w / 2, this.view.y + this.view.h / 2];
      this.move({ x: px - (px - this.view.x) * part, y: py - (py - this.view.y) * part, w, h });
    }

    // Show a part, but never beyond the edges.
    move(view) {
      const inside = (at, size, from, room) => Math.min(Math.max(at, from), from + room - size);
      this.show({
        ...view,
        x: inside(view.x, view.w, this.home.x, this.home.w),
        y: inside(view.y, view.h, this.home.y, this.home.h),
      });
    }

    label() {
      const lit = (c) => Boolean(this.lit && this.lit.has(c.cluster));
      this.labels.replaceChildren(...ours.labels(this.data.clusters, this.view, this.scale, lit));
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
        this.marks.append(circle("ring", best, 8), ...rest.map((other, i) => link(best, other, i)));
        const above = { x: best.x, y: best.y - best.r - 14, "font-size": 26, "text-anchor": "middle" };
        if (name) this.marks.append(svg("text", { class: "label lit", ...above }, name));
      }
      this.light(landings.length ? landings.flatMap((each) => each.nearest.map((near) => near.cluster)) : null);
    }

    // Clusters with a word, or of a number; all where nothing is asked. The largest first.
    search(words) {
      const asked = words.trim().toLowerCase();
      if (!asked) return null;
      return this.data.clusters
        .filter((c) => String(c.cluster) === asked || c.terms.some((term) => term.toLowerCase().includes(asked)))
        .sort((a, b) => b.size - a.size)
        .map((c) => c.cluster);
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

    // The tip beside a cluster.
    tell(cluster) {
      const c = this.data.clusters[cluster];
      const s = this.scale;
      const box = this.svg.getBoundingClientRect();
      const x = (c.x - this.view.x - this.view.w / 2) / s + box.width / 2;
      const y = (c.y - this.view.y - this.view.h / 2) / s + box.height / 2;
      const terms = c.terms.slice(0, 8).map((term) => ours.shortened(term, 40));
      const [low, , middle, , high] = c.similarity.map((value) => value.toFixed(2));
      this.tip.show(x + c.r / s, y, terms.join(", ") || "no terms", [
        `cluster ${c.cluster}, ${ours.counted(c.size, "passage")}`,
        `members' similarity ${middle}, 90% within ${low} to ${high}`,
      ]);
    }

    // A pointer's place on the sheet.
    at(event) {
      const box = this.svg.getBoundingClientRect();
      const s = this.scale;
      return [
        this.view.x + this.view.w / 2 + (event.clientX - box.left - box.width / 2) * s,
        this.view.y + this.view.h / 2 + (event.clientY - box.top - box.height / 2) * s,
      ];
    }
  }

  ours.ClusterMap = ClusterMap;
})(window.coreinfer);
