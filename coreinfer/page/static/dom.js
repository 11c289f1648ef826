"use strict";
// What the other scripts share: elements, numbers in words, pictures that follow their place's width, a tip, the theme.
// Plain scripts and one global: a report holds them within itself, where modules could not import each other.
window.coreinfer = {};
(function (ours) {
  const SVG = "http://www.w3.org/2000/svg";

  function filled(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== undefined && value !== null && value !== false)
        node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined)); // a text is never read as HTML
    return node;
  }

  ours.el = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
  ours.svg = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

  ours.whole = (number) => number.toLocaleString("en-US");
  ours.percent = (share) => `${Math.round(100 * share)}%`;
  ours.counted = (number, noun) => `${ours.whole(number)} ${noun}${number === 1 ? "" : "s"}`;
  ours.signed = (number, digits) => {
    const text = Math.abs(number).toFixed(digits);
    return (Number(text) === 0 ? "" : number < 0 ? "−" : "+") + text;
  };
  ours.shortened = (text, most) => {
    const letters = [...String(text).replace(/\s+/g, " ").trim()]; // by code points: no half of an emoji
    return letters.length > most ? letters.slice(0, most - 1).join("") + "…" : letters.join("");
  };

  // The NLL rise that a curve expects of a keep, {rise, high}; null below what was measured. At keep 1 it is 0.
  ours.expected = (curve, keep) => {
    const points = [...curve, { keep: 1, rise: 0, rise_high: 0 }];
    const after = points.findIndex((point) => point.keep >= keep - 1e-9);
    if (after < 0 || !curve.length) return null;
    const b = points[after],
      a = points[after - 1];
    if (Math.abs(b.keep - keep) < 1e-9) return { rise: b.rise, high: b.rise_high };
    if (!a) return null;
    const part = (keep - a.keep) / (b.keep - a.keep);
    return { rise: a.rise + part * (b.rise - a.rise), high: a.rise_high + part * (b.rise_high - a.rise_high) };
  };

  // A picture in pixels that is drawn again when its place gets another width; `draw(width)` gives [svg, height].
  ours.drawn = (host, draw) => {
    let last = 0;
    const again = () => {
      const width = Math.round(host.clientWidth);
      if (width > 0) {
        last = width;
        host.replaceChildren(draw(width));
      }
    };
    new ResizeObserver(() => Math.round(host.clientWidth) !== last && again()).observe(host);
    again();
    return again;
  };

  ours.frame = (width, height, label, ...children) =>
    ours.svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
      ...children,
    );

  // A tip inside `host`, which must be positioned: show(x, y, head, lines), hide().
  ours.tip = (host) => {
    const node = ours.el("div", { class: "tip", "aria-hidden": "true", hidden: true });
    host.append(node);
    return {
      show(x, y, head, lines) {
        node.replaceChildren(ours.el("b", {}, head), ...lines.map((line) => ours.el("div", {}, line)));
        node.hidden = false;
        const most = host.clientWidth - node.offsetWidth - 4;
        node.style.left = `${Math.max(4, Math.min(x + 14, most))}px`;
        const below = y + 16 + node.offsetHeight <= host.clientHeight;
        node.style.top = `${below ? y + 16 : Math.max(4, y - node.offsetHeight - 12)}px`;
      },
      hide() {
        node.hidden = true;
      },
    };
  };

  // Round steps for an axis from 0 to at least `most`.
  ours.steps = (most, wanted) => {
    const raw = most / wanted,
      ten = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((times) => times * ten >= raw) * ten;
    return Array.from({ length: Math.ceil(most / step - 1e-9) + 1 }, (_, i) => i * step);
  };

  // What a browser remembers, with a new value if one is given; where it may not, the value lasts as long as the page.
  ours.kept = (storage, name, value) => {
    try {
      if (value !== undefined) window[storage].setItem(name, value);
      return window[storage].getItem(name) || "";
    } catch {
      return value || "";
    }
  };

  ours.theme = (button) => {
    const root = document.documentElement,
      dark = window.matchMedia("(prefers-color-scheme: dark)");
    const NAME = "coreinfer-theme";
    const now = () => root.dataset.theme || (dark.matches ? "dark" : "light");
    const say = () => {
      button.textContent = now() === "dark" ? "Light" : "Dark";
      button.setAttribute("aria-label", `Switch to ${now() === "dark" ? "light" : "dark"} colours`);
    };
    const chosen = ours.kept("localStorage", NAME);
    if (chosen) root.dataset.theme = chosen;
    button.addEventListener("click", () => {
      root.dataset.theme = now() === "dark" ? "light" : "dark";
      ours.kept("localStorage", NAME, root.dataset.theme);
      say();
    });
    dark.addEventListener("change", say);
    say();
  };
})(window.coreinfer);
