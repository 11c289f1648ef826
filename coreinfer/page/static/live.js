"use strict";
// The live page: what the server knows of its artifact first, then whatever is asked.
(function (ours) {
  const at = (id) => document.getElementById(id);
  const STRANGE = "0x7f zzkq ~~ 9981 qqq"; // what hardly any corpus holds
  const TYPED = "coreinfer-prompt";
  const state = { overview: null, model: undefined, keep: () => Number(at("keep").value), renew };

  function failed(error, again) {
    at("locked").hidden = error.status !== 401;
    at("alert").hidden = error.status === 401;
    at("alert").replaceChildren(error instanceof ours.Refused ? error.message : `This page failed: ${error.message}`);
    if (error.status === 401) at("key").focus();
    state.again = again;
    if (again && error.wait) {
      const button = ours.el("button", { type: "button" }, "Try again");
      button.disabled = true;
      setTimeout(() => (button.disabled = false), 1000 * error.wait);
      button.addEventListener("click", () => fine() || again());
      at("alert").append(" ", button);
    }
    if (!(error instanceof ours.Refused)) throw error;
  }

  // Read the page anew, and keep what was typed.
  function renew() {
    ours.kept("sessionStorage", TYPED, at("prompt").value);
    location.reload();
  }

  function fine() {
    at("alert").hidden = at("locked").hidden = true;
  }

  at("unlock").addEventListener("submit", (event) => {
    event.preventDefault();
    ours.unlock(at("key").value);
    fine();
    (state.again || start)();
  });

  function describe(data) {
    const n = ours.whole;
    at("facts").textContent = data.model;
    at("lead").textContent =
      `${data.model} has ${data.layers} layers of ${n(data.width)} MLP neurons. ${ours.counted(data.passages, "passage")} of text in ${ours.counted(data.clusters.length, "cluster")} say which of them a topic needs.`;
  }

  function slider(landing, curve) {
    const keep = at("keep");
    const say = () => {
      const [cost, words] = ours.costInWords(state.overview, state.keep());
      at("kept").textContent = state.keep().toFixed(2);
      at("cost").textContent = cost;
      at("cost-words").textContent = words;
      keep.setAttribute("aria-valuetext", `keep ${state.keep().toFixed(2)}: ${cost} ${words}`);
      curve.now(state.keep());
    };
    keep.value = state.overview.keep;
    keep.addEventListener("input", () => {
      say();
      landing.soon();
    });
    say();
  }

  // The terms of the largest cluster of each of three neighbourhoods, and something strange.
  function examples(landing) {
    const largest = [...state.overview.clusters].sort((a, b) => b.size - a.size).filter((c) => c.terms.length);
    const firsts = largest.filter((c, i) => largest.findIndex((other) => other.group === c.group) === i);
    for (const text of [...firsts.slice(0, 3).map((c) => c.terms.slice(0, 3).join(", ")), STRANGE]) {
      const button = ours.el("button", { type: "button", title: text, dir: "auto" }, ours.shortened(text, 30));
      button.addEventListener("click", () => {
        at("prompt").value = text;
        landing.now();
      });
      at("examples").append(button);
    }
  }

  async function start() {
    try {
      const [overview, models] = await Promise.all([ours.json("v1/clusters"), ours.json("v1/models")]);
      state.overview = overview;
      state.model = models.data[0].id;
      state.artifact = models.data[0].artifact;
    } catch (error) {
      return failed(error, start);
    }
    describe(state.overview);
    const map = new ours.ClusterMap(at("map"), state.overview);
    const landing = new ours.Landing(state, map, at, failed, fine),
      generating = new ours.Generating(state, at, failed, fine);
    ours.searching(at("search"), at("found"), map, () => (landing.found ? landing.show(landing.found) : map.land([])));
    ours.clusterTable(at("table"), state.overview);
    slider(landing, ours.curve(at("curve"), state.overview));
    examples(landing);
    at("ask").addEventListener("submit", (event) => event.preventDefault());
    at("prompt").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      generating.go();
    });
    at("prompt").value ||= ours.kept("sessionStorage", TYPED);
    ours.kept("sessionStorage", TYPED, "");
    if (at("prompt").value.trim()) landing.now();
  }

  ours.theme(at("theme"));
  start();
})(window.coreinfer);
