"use strict";
// Other ways to a cluster than the eye: a search by term, and all of them as a table.
(function (ours) {
  const { el } = ours;

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
      const rows = [...data.clusters]
        .sort((a, b) => b.size - a.size || a.cluster - b.cluster)
        .map((c) =>
          el(
            "tr",
            {},
            el("td", {}, String(c.cluster)),
            el("td", {}, ours.whole(c.size)),
            el("td", {}, c.similarity[2].toFixed(2)),
            el("td", { dir: "auto" }, c.terms.join(", ")),
          ),
        );
      const heads = ["cluster", "passages", "similarity", "terms"].map((name) => el("th", { scope: "col" }, name));
      details.append(
        el(
          "div",
          { class: "scroll", tabindex: 0, role: "region", "aria-label": "Clusters" },
          el("table", { class: "clusters" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)),
        ),
      );
    });
  };
})(window.coreinfer);
