"use strict";
// Where a prompt lands: asked for as one types, and shown in words, on the map and layer by layer.
(function (ours) {
  const PAUSE = 350,
    LONGEST = 3000; // milliseconds without a letter; more where answers take long
  const NAMES = {
    similarity: ["Its topic", "similarity: the nearest clusters' neurons, known before the prompt has run"],
    hybrid: [
      "Its topic, and itself",
      "hybrid: the nearest clusters' neurons, weighed with those that the prompt itself used",
    ],
    stability: ["Itself", "stability: only the neurons that the prompt itself used"],
    dense: ["Everything", "dense: all neurons"],
  };

  // `state`: {overview, keep()}; `failed(error)` shows a refusal, `fine()` takes it back.
  ours.Landing = class {
    constructor(state, map, at, failed, fine) {
      Object.assign(this, { state, map, at, failed, fine, waiting: 0, asking: null, pause: PAUSE });
      at("prompt").addEventListener("input", () => this.soon());
    }

    get text() {
      return this.at("prompt").value;
    }

    soon() {
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.now(), this.pause);
    }

    // Ask for the neurons of the prompt as it stands; an older question is given up.
    async now() {
      clearTimeout(this.waiting);
      if (this.asking) this.asking.abort();
      if (!this.text.trim()) return this.clear();
      const asked = (this.asking = new AbortController());
      const body = { prompt: this.text, keep: this.state.keep(), neurons: false, compare: true };
      const begun = performance.now();
      this.at("verdict").setAttribute("aria-busy", "true");
      try {
        const found = await ours.json("v1/core-neurons", body, asked.signal);
        this.pause = Math.min(Math.max(PAUSE, 2 * (performance.now() - begun)), LONGEST);
        if (found.artifact !== this.state.artifact) return this.state.renew(); // the server has another one since
        this.fine();
        this.show(found);
      } catch (error) {
        if (error.name !== "AbortError") this.failed(error, () => this.now());
      } finally {
        if (this.asking === asked) this.at("verdict").removeAttribute("aria-busy");
      }
    }

    clear() {
      this.found = null;
      this.at("waiting").hidden = false;
      this.at("found-it").hidden = this.at("neurons").hidden = true;
      this.at("gauge").replaceChildren();
      this.map.land([]);
    }

    show(found) {
      this.found = found;
      const [name, words] = NAMES[found.source] || [found.source, found.source],
        weak = found.similarity < found.threshold;
      this.at("waiting").hidden = true;
      this.at("found-it").hidden = false;
      this.at("source").replaceChildren("Decides: ", ours.el("em", {}, name.toLowerCase()));
      const worth = found.worth
        ? ` The clusters count for ${ours.counted(Math.round(found.worth), "prompt token")}.`
        : "";
      this.at("why").textContent = `${words}. ${found.reason[0].toUpperCase()}${found.reason.slice(1)}.${worth}`;
      const terms = this.state.overview.clusters[found.cluster].terms.join(", ");
      this.at("terms").textContent =
        `${weak ? "Nearest, yet too far" : "Nearest"}: cluster ${found.cluster}${terms ? `: ${terms}` : ""}`;
      ours.gauge(this.at("gauge"), found.similarity, found.threshold, found.strong_from ?? found.threshold);
      this.map.land([{ nearest: weak ? found.nearest.slice(0, 1) : found.nearest, weak }]);
      this.at("neurons").hidden = !found.compare;
      if (found.compare)
        ours.heat(this.at("heat"), found.compare, found.cluster, !["stability", "dense"].includes(found.source));
    }
  };
})(window.coreinfer);
