/* Draws every <figure class="vg-chart"> of a page from the JSON that it names, in the colours of the theme.

   The JSON: {kind: "line" | "step" | "bar" | "scatter", x, y (labels of the axes), diagonal (bool),
   labels (of the bars, or of the steps of a line; or none), x_range, y_range (pairs, or none),
   stacked (bars only), apart: [indices of hatched bars],
   markers: [{at (fractional index among the labels), label}] (vertical lines),
   series: [{name, points: [[x, y], ...] | values: [...], low, high (a band around a line), dashed}]}.
   With labels, values, low and high hold one number or null for each label; null is a gap. */
(() => {
  "use strict";
  const TONES = ["--vg-series-1", "--vg-series-2", "--vg-series-3", "--vg-series-4"];
  const drawn = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const faded = (tone, share) => `color-mix(in srgb, ${tone} ${share}%, transparent)`;

  function hatched(tone) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const pen = tile.getContext("2d");
    pen.fillStyle = faded(tone, 22);
    pen.fillRect(0, 0, 8, 8);
    pen.strokeStyle = tone;
    pen.lineWidth = 2;
    pen.beginPath();
    [-8, 0, 8].forEach((x) => { pen.moveTo(x - 1, 9); pen.lineTo(x + 9, -1); });
    pen.stroke();
    return pen.createPattern(tile, "repeat");
  }

  function datasets(spec) {
    const sets = [];
    const apart = new Set(spec.apart || []);
    const placed = (values) => values.map((each) => (Array.isArray(each) ? { x: each[0], y: each[1] } : each));
    spec.series.forEach((series, at) => {
      const tone = colour(TONES[at % TONES.length]);
      const points = placed(series.points || series.values || []);
      const common = { label: series.name, borderColor: tone, backgroundColor: tone };
      if (spec.kind === "bar") {
        const plain = faded(tone, 75), other = apart.size ? hatched(tone) : plain;
        const fill = series.values.map((_, place) => (apart.has(place) ? other : plain));
        sets.push({ ...common, data: series.values, backgroundColor: fill, borderWidth: 1 });
        return;
      }
      if (series.low && series.high) {
        const band = { ...common, borderWidth: 0, pointRadius: 0, vgBand: true, tension: 0 };
        sets.push({ ...band, data: placed(series.low), fill: false });
        sets.push({ ...band, data: placed(series.high), fill: "-1", backgroundColor: faded(tone, 18) });
      }
      if (spec.kind === "scatter") {
        sets.push({ ...common, data: points, showLine: false, pointRadius: 2.5, backgroundColor: faded(tone, 45), borderWidth: 0 });
      } else {
        sets.push({
          ...common, data: points, borderWidth: 2, pointRadius: series.dashed ? 0 : dots(points),
          vgWhiskers: series.low && spec.labels ? { low: series.low, high: series.high } : null,
          stepped: spec.kind === "step", borderDash: series.dashed ? [6, 4] : [], fill: false,
        });
      }
    });
    if (spec.diagonal) {
      const [low, high] = spec.x_range || [0, 1];
      sets.push({
        label: spec.diagonal === true ? "diagonal" : spec.diagonal, data: [{ x: low, y: low }, { x: high, y: high }],
        borderColor: colour("--vg-faint"), borderDash: [4, 4], borderWidth: 1, pointRadius: 0,
      });
    }
    return sets;
  }

  // Many points need no dots beside the line, except a point between two gaps, which has no line.
  function dots(points) {
    if (points.length <= 40) return 2.5;
    const lonely = (at) => points[at] !== null && (points[at - 1] ?? null) === null && (points[at + 1] ?? null) === null;
    return points.map((_, at) => (lonely(at) ? 2.5 : 0));
  }

  const whiskers = {
    id: "vgWhiskers",
    beforeDatasetsDraw(chart) {
      const pen = chart.ctx;
      chart.data.datasets.forEach((dataset, index) => {
        if (!dataset.vgWhiskers || !chart.isDatasetVisible(index)) return;
        const { low, high } = dataset.vgWhiskers;
        pen.save();
        pen.strokeStyle = faded(dataset.borderColor, 55);
        pen.beginPath();
        low.forEach((bottom, at) => {
          if (bottom === null || high[at] === null) return;
          const x = chart.scales.x.getPixelForValue(at);
          pen.moveTo(x, chart.scales.y.getPixelForValue(bottom));
          pen.lineTo(x, chart.scales.y.getPixelForValue(high[at]));
        });
        pen.stroke();
        pen.restore();
      });
    },
  };

  const markers = (marks) => ({
    id: "vgMarkers",
    afterDatasetsDraw(chart) {
      const pen = chart.ctx, { x, y } = chart.scales;
      const first = x.getPixelForValue(0), step = x.getPixelForValue(1) - first;
      let free = -Infinity;
      (marks || []).forEach((mark) => {
        // An index is the start of its step; the scale's pixel for it is the middle of the step.
        const along = first + (mark.at - 0.5) * (Number.isFinite(step) && step ? step : x.width);
        pen.save();
        pen.strokeStyle = pen.fillStyle = colour("--vg-text");
        pen.setLineDash([3, 3]);
        pen.beginPath();
        pen.moveTo(along, y.top - 4);
        pen.lineTo(along, y.bottom);
        pen.stroke();
        pen.font = "600 11px sans-serif";
        // The label stands above the line; a label that would cover its neighbour appears in the table only.
        const width = pen.measureText(mark.label).width;
        const begin = Math.min(Math.max(along - width / 2, x.left), x.right - width);
        if (begin > free) {
          pen.fillText(mark.label, begin, y.top - 8);
          free = begin + width + 8;
        }
        pen.restore();
      });
    },
  });

  function axis(spec, name) {
    const range = spec[`${name}_range`];
    const bars = Boolean(spec.labels) && name === "x";
    const grid = colour("--vg-line"), text = colour("--vg-faint");
    return {
      type: bars ? "category" : "linear", offset: bars, stacked: Boolean(spec.stacked),
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
      plugins: [whiskers, markers(spec.markers)],
      options: {
        animation: false, responsive: true, maintainAspectRatio: false,
        parsing: spec.kind === "bar" || Boolean(spec.labels),
        interaction: { mode: "nearest", intersect: false },
        layout: { padding: { top: spec.markers && spec.markers.length ? 20 : 0 } },
        scales: { x: axis(spec, "x"), y: axis(spec, "y") },
        plugins: {
          legend: {
            position: spec.markers && spec.markers.length ? "bottom" : "top",  // the labels of markers stand above
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

  // A table of time that is wider than the screen is scrolled to its newest column.
  function newest() {
    document.querySelectorAll(".vg-newest").forEach((part) => { part.scrollLeft = part.scrollWidth; });
  }

  document.addEventListener("DOMContentLoaded", all);
  document.addEventListener("DOMContentLoaded", newest);
  document.addEventListener("htmx:afterSwap", all);
  // The theme is a class of the root element; a button in the page's head changes it.
  new MutationObserver(all).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
})();
