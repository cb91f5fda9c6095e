/* Draws every <figure class="vg-chart"> of a page from the JSON it names, in the colours of the theme.

   The JSON: {kind: "line" | "step" | "bar" | "scatter", x, y (labels of the axes), diagonal (bool),
   labels (of the bars, or none), x_range, y_range (pairs, or none),
   series: [{name, points: [[x, y], ...] | values: [...], low, high (a band around a line), dashed}]}. */
(() => {
  "use strict";
  const TONES = ["--vg-series-1", "--vg-series-2", "--vg-series-3", "--vg-series-4"];
  const drawn = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const faded = (tone, share) => `color-mix(in srgb, ${tone} ${share}%, transparent)`;

  function datasets(spec) {
    const found = [];
    spec.series.forEach((series, at) => {
      const tone = colour(TONES[at % TONES.length]);
      const points = (series.points || []).map(([x, y]) => ({ x, y }));
      const common = { label: series.name, borderColor: tone, backgroundColor: tone };
      if (spec.kind === "bar") {
        found.push({ ...common, data: series.values, backgroundColor: faded(tone, 75), borderWidth: 1 });
        return;
      }
      if (series.low && series.high) {
        const band = { ...common, borderWidth: 0, pointRadius: 0, vgBand: true, tension: 0 };
        found.push({ ...band, data: series.low.map(([x, y]) => ({ x, y })), fill: false });
        found.push({ ...band, data: series.high.map(([x, y]) => ({ x, y })), fill: "-1", backgroundColor: faded(tone, 18) });
      }
      if (spec.kind === "scatter") {
        found.push({ ...common, data: points, showLine: false, pointRadius: 2.5, backgroundColor: faded(tone, 45), borderWidth: 0 });
      } else {
        found.push({
          ...common, data: points, borderWidth: 2, pointRadius: points.length > 30 ? 0 : 2.5,
          stepped: spec.kind === "step", borderDash: series.dashed ? [6, 4] : [], fill: false,
        });
      }
    });
    if (spec.diagonal) {
      const [low, high] = spec.x_range || [0, 1];
      found.push({
        label: spec.diagonal === true ? "diagonal" : spec.diagonal, data: [{ x: low, y: low }, { x: high, y: high }],
        borderColor: colour("--vg-faint"), borderDash: [4, 4], borderWidth: 1, pointRadius: 0,
      });
    }
    return found;
  }

  function axis(spec, name) {
    const range = spec[`${name}_range`];
    const bars = spec.kind === "bar" && name === "x";
    const grid = colour("--vg-line"), text = colour("--vg-faint");
    return {
      type: bars ? "category" : "linear",
      title: { display: Boolean(spec[name]), text: spec[name], color: text },
      min: range ? range[0] : undefined, max: range ? range[1] : undefined,
      grid: { color: grid, display: !bars }, border: { color: grid }, ticks: { color: text, maxRotation: 50 },
    };
  }

  function draw(figure) {
    const canvas = figure.querySelector("canvas");
    const spec = JSON.parse(document.getElementById(figure.dataset.chart).textContent);
    drawn.get(figure)?.destroy();
    drawn.set(figure, new Chart(canvas, {
      type: spec.kind === "bar" ? "bar" : "line",
      data: { labels: spec.labels || undefined, datasets: datasets(spec) },
      options: {
        animation: false, responsive: true, maintainAspectRatio: false, parsing: spec.kind === "bar",
        interaction: { mode: "nearest", intersect: false },
        scales: { x: axis(spec, "x"), y: axis(spec, "y") },
        plugins: {
          legend: {
            display: spec.series.length > 1 || Boolean(spec.diagonal),
            labels: {
              color: colour("--vg-text"), boxWidth: 14, boxHeight: 2,
              filter: (item, data) => !data.datasets[item.datasetIndex].vgBand,
            },
          },
          tooltip: { filter: (item) => !item.dataset.vgBand },
        },
      },
    }));
  }

  function all() {
    document.querySelectorAll("figure.vg-chart").forEach(draw);
  }

  document.addEventListener("DOMContentLoaded", all);
  document.addEventListener("htmx:afterSwap", all);
  // The theme is a class of the root element; it is changed by a switch in the page's head.
  new MutationObserver(all).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
})();
