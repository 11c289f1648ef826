"use strict";
// A report's pictures, from the data that it holds.
(function (ours) {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  ours.theme(at("theme"));
  const map = new ours.ClusterMap(at("map"), data.overview);
  const landings = data.prompts.map((prompt, i) => ({
    nearest: prompt.nearest,
    weak: prompt.similarity < prompt.threshold,
    name: data.prompts.length > 1 ? String(i + 1) : "",
  }));
  map.land(landings);
  ours.searching(at("search"), at("found"), map, () => map.land(landings));
  ours.clusterTable(at("table"), data.overview);
  ours.curve(at("curve"), data.overview);
  ours.budgets(at("budgets"), data.overview);
  ours.sizes(at("sizes"), data.overview);
  ours.layerOverlap(at("layers"), data.overlaps);
  ours.matrix(at("matrix"), data.overlaps, data.overview);
  data.prompts.forEach((prompt, i) => {
    ours.gauge(at(`gauge-${i}`), prompt.similarity, prompt.threshold, prompt.strong);
    ours.heat(
      at(`heat-${i}`),
      prompt.compare,
      prompt.cluster,
      prompt.source !== "stability" && prompt.source !== "dense",
    );
  });
})(window.coreinfer);
